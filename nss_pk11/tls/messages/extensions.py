"""Extensions: a block of (type, body) pairs, and the body of each, encoded and decoded side by side.

A block is a dict from type (int, known or not) to body, in the order of the wire; bodies are decoded only when somebody
asks.  Decoders raise DecodeError on anything malformed; whether an extension belongs where it stands is for the flows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ...errors import DecodeError, IllegalParameter
from ..codec import Reader, Writer
from ..codepoints import X

if TYPE_CHECKING:
    from ..config import Config
    from ..events import ConnectionInfo

Extensions = dict[int, bytes]
_HEADER = struct.Struct(">HH").pack
_UNPACK_HEADER = struct.Struct(">HH").unpack_from


def decode_block(reader: Reader) -> Extensions:
    """An extension block without its message's end check.  A type twice is illegal_parameter (RFC 8446 section 4.2)."""
    found: Extensions = {}
    block = reader.block(2)
    data, position, limit = block.data, block.position, block.limit
    while position < limit:
        if position + 4 > limit:
            raise DecodeError("extension block ends inside an extension")
        kind, length = _UNPACK_HEADER(data, position)
        body = position + 4
        position = body + length
        if position > limit:
            raise DecodeError(f"extension {kind} is longer than its block")
        if kind in found:
            raise IllegalParameter(f"extension {kind} appears twice")
        found[kind] = data[body:position]
    return found


def encode_block(extensions: Mapping[int, bytes]) -> bytes:
    """The block with its length."""
    parts = [b""]
    for kind, body in extensions.items():
        parts.append(_HEADER(kind, len(body)))
        parts.append(body)
    block = b"".join(parts)
    return len(block).to_bytes(2, "big") + block


# --- server_name (RFC 6066 section 3) ------------------------------------------------------------------------------------


MAX_HOST_NAME = 255  # bytes (RFC 1035 section 2.3.4)


def encode_server_name(name: str) -> bytes:
    encoded = name.encode("ascii")
    return Writer().u16(len(encoded) + 3).u8(0).vector(2, encoded).bytes()


def decode_server_name(body: bytes) -> str:
    """The host name, lower case; "" if the list holds none.  Malformed: no bytes, a NUL, more than DNS allows."""
    r = Reader(body)
    names, host = r.block(2, least=1), ""
    seen: set[int] = set()
    r.end()
    while names:
        kind, name = names.u8(), names.vector(2, least=1)
        if kind in seen:
            raise IllegalParameter("two server names of one type (RFC 6066 section 3)")
        seen.add(kind)
        if kind == 0:
            if not name.isascii() or b"\0" in name or len(name) > MAX_HOST_NAME:
                raise IllegalParameter("server name is not an ASCII host name")
            host = name.decode("ascii").lower().rstrip(".")
    return host


# --- lists of numbers ----------------------------------------------------------------------------------------------------


def encode_u16_list(values: Iterable[int]) -> bytes:
    """supported_groups, signature_algorithms, signature_algorithms_cert: a 16-bit length and 16-bit numbers."""
    return Writer().u16_list(2, tuple(values)).bytes()


def decode_u16_list(body: bytes) -> tuple[int, ...]:
    r = Reader(body)
    values = r.u16_list(2)
    r.end()
    return values


def encode_u8_list(values: Iterable[int]) -> bytes:
    """psk_key_exchange_modes, ec_point_formats: an 8-bit length and bytes."""
    return Writer().vector(1, bytes(values)).bytes()


def decode_u8_list(body: bytes) -> bytes:
    r = Reader(body)
    values = r.vector(1, least=1)
    r.end()
    return values


def encode_versions(versions: Iterable[int]) -> bytes:
    """supported_versions of a ClientHello, and compress_certificate's list: an 8-bit length and 16-bit numbers."""
    return Writer().u16_list(1, tuple(versions)).bytes()


def decode_versions(body: bytes) -> tuple[int, ...]:
    r = Reader(body)
    values = r.u16_list(1)
    r.end()
    return values


def decode_u16(body: bytes) -> int:
    """A single 16-bit number: selected version, selected group, record_size_limit."""
    r = Reader(body)
    value = r.u16()
    r.end()
    return value


def decode_u8(body: bytes) -> int:
    """A single byte: max_fragment_length."""
    r = Reader(body)
    value = r.u8()
    r.end()
    return value


def require_empty(body: bytes) -> None:
    """An extension that carries nothing: raises DecodeError if it carries something."""
    Reader(body).end()


# --- ALPN (RFC 7301 section 3.1) -----------------------------------------------------------------------------------------


def encode_alpn(protocols: Iterable[str]) -> bytes:
    w = Writer()
    with w.block(2):
        for protocol in protocols:
            w.vector(1, protocol.encode("latin-1"))
    return w.bytes()


def decode_alpn(body: bytes) -> tuple[str, ...]:
    r = Reader(body)
    block, protocols = r.block(2, least=2), []
    r.end()
    while block:
        protocols.append(block.vector(1, least=1).decode("latin-1"))
    return tuple(protocols)


# --- status_request (RFC 6066 section 8) ---------------------------------------------------------------------------------

OCSP_REQUEST = b"\x01\x00\x00\x00\x00"  # type ocsp, no responder ids, no extensions


def decode_status_request(body: bytes) -> bool:
    """Whether OCSP is asked for.  Other status types are unknown and so ignored."""
    r = Reader(body)
    if r.u8() != 1:
        return False
    r.vector(2)
    r.vector(2)
    r.end()
    return True


def encode_status(response: bytes) -> bytes:
    """A CertificateStatus: body of the TLS 1.2 message and of the TLS 1.3 certificate extension."""
    return Writer().u8(1).vector(3, response).bytes()


def decode_status(body: bytes) -> bytes:
    r = Reader(body)
    if r.u8() != 1:
        raise IllegalParameter("certificate status of a type that was not asked for")
    response = r.vector(3, least=1)
    r.end()
    return response


# --- key_share (RFC 8446 section 4.2.8) ----------------------------------------------------------------------------------


def encode_key_shares(shares: Iterable[tuple[int, bytes]]) -> bytes:
    w = Writer()
    with w.block(2):
        for group, share in shares:
            w.u16(group).vector(2, share)
    return w.bytes()


def decode_key_shares(body: bytes) -> dict[int, bytes]:
    """Client shares by group, in order.  Two of one group are illegal_parameter."""
    r = Reader(body)
    block = r.block(2)
    r.end()
    shares: dict[int, bytes] = {}
    while block:
        group = block.u16()
        if group in shares:
            raise IllegalParameter(f"two key shares of group {group:#06x}", name="SSL_ERROR_RX_MALFORMED_KEY_SHARE")
        shares[group] = block.vector(2)
        if not shares[group]:
            raise IllegalParameter("empty key share", name="SSL_ERROR_RX_MALFORMED_KEY_SHARE")
    return shares


def encode_key_share(group: int, share: bytes) -> bytes:
    return Writer().u16(group).vector(2, share).bytes()


def decode_key_share(body: bytes) -> tuple[int, bytes]:
    r = Reader(body)
    group, share = r.u16(), r.vector(2, least=1)
    r.end()
    return group, share


# --- pre_shared_key (RFC 8446 section 4.2.11) -----------------------------------------------------------------------------


def encode_offered_psk(ticket: bytes, obfuscated_age: int, binder_bytes: int) -> bytes:
    """One identity and a binder of zeros, to be filled in once the rest of the ClientHello is known."""
    w = Writer()
    with w.block(2):
        w.vector(2, ticket).u32(obfuscated_age)
    return w.u16(binder_bytes + 1).vector(1, bytes(binder_bytes)).bytes()


def decode_offered_psks(body: bytes) -> tuple[list[tuple[bytes, int]], list[bytes], int]:
    """Identities (ticket, obfuscated age), their binders, and how many bytes the binder list takes at the end of the message."""
    r = Reader(body)
    identities, binders = [], []
    block = r.block(2, least=7)
    while block:
        identities.append((block.vector(2, least=1), block.u32()))
    start = r.position
    block = r.block(2, least=33)
    r.end()
    while block:
        binders.append(block.vector(1, least=32))
    if len(identities) != len(binders):
        raise IllegalParameter(
            f"{len(identities)} PSK identities and {len(binders)} binders", name="SSL_ERROR_MALFORMED_PRE_SHARED_KEY"
        )
    return identities, binders, len(body) - start


# --- the rest -------------------------------------------------------------------------------------------------------------


def encode_authorities(names: Iterable[bytes]) -> bytes:
    """certificate_authorities (RFC 8446 section 4.2.4), and the tail of a TLS 1.2 CertificateRequest."""
    w = Writer()
    with w.block(2):
        for name in names:
            w.vector(2, name)
    return w.bytes()


def decode_authorities(body: bytes) -> tuple[bytes, ...]:
    r = Reader(body)
    block, names = r.block(2), []
    r.end()
    while block:
        names.append(block.vector(2, least=1))
    return tuple(names)


def encode_cookie(cookie: bytes) -> bytes:
    return Writer().vector(2, cookie).bytes()


def decode_cookie(body: bytes) -> bytes:
    r = Reader(body)
    cookie = r.vector(2, least=1)
    r.end()
    return cookie


def encode_renegotiation_info(verify_data: bytes) -> bytes:
    return Writer().vector(1, verify_data).bytes()


def decode_renegotiation_info(body: bytes) -> bytes:
    r = Reader(body)
    verify_data = r.vector(1)
    r.end()
    return verify_data


def take_server_answers(answers: Extensions, offered: Extensions, config: Config, info: ConnectionInfo) -> None:
    """server_name, ALPN, record_size_limit and max_fragment_length as a server answers them, in either version.

    `info.record_size_limit` becomes the number the server sent; TLS 1.3 counts the content type in it, TLS 1.2 does not.
    """
    if X.server_name in answers:
        require_empty(answers[X.server_name])
    if X.application_layer_protocol_negotiation in answers:
        chosen = decode_alpn(answers[X.application_layer_protocol_negotiation])
        if len(chosen) != 1 or chosen[0] not in config.alpn:
            raise IllegalParameter("server chose a protocol that was not offered", name="SSL_ERROR_NEXT_PROTOCOL_DATA_INVALID")
        info.alpn = chosen[0]
    if X.max_fragment_length in answers:
        if answers[X.max_fragment_length] != offered[X.max_fragment_length] or X.record_size_limit in answers:
            raise IllegalParameter("server changes max_fragment_length (RFC 6066 section 4)")
        info.record_size_limit = MAX_FRAGMENT_LENGTHS[decode_u8(answers[X.max_fragment_length])]
    if X.record_size_limit in answers:
        info.record_size_limit = decode_u16(answers[X.record_size_limit])
        if info.record_size_limit < 64:
            raise IllegalParameter(f"record_size_limit {info.record_size_limit} (RFC 8449 section 4)")


MAX_FRAGMENT_LENGTHS = {1: 512, 2: 1024, 3: 2048, 4: 4096}  # RFC 6066 section 4

# Which extensions may stand where (RFC 8446 section 4.2's table), for messages a client receives and must not find surprises in.
ENCRYPTED_EXTENSIONS = frozenset(
    {
        X.server_name,
        X.max_fragment_length,
        X.supported_groups,
        X.application_layer_protocol_negotiation,
        X.record_size_limit,
        X.early_data,
    }
)
SERVER_HELLO_13 = frozenset({X.key_share, X.pre_shared_key, X.supported_versions})
HELLO_RETRY_REQUEST = frozenset({X.key_share, X.cookie, X.supported_versions})
