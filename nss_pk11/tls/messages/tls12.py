"""Messages that only TLS 1.2 and before have (RFC 5246 section 7.4, RFC 8422 section 5, RFC 6066 section 8).

Certificate and CertificateVerify are in `certificate`, NewSessionTicket in `ticket`, the hellos in `hello`.  Before TLS 1.2
messages do not name signature schemes: None stands for that.
"""

from __future__ import annotations

from ...errors import Alert, IllegalParameter
from ..codec import Reader, Writer
from ..codepoints import H
from .certificate import encode_signature
from .extensions import decode_authorities, decode_status, encode_authorities, encode_status
from .hello import message

NAMED_CURVE = 3  # ECCurveType (RFC 8422 section 5.4)
RSA_SIGN, DSS_SIGN, ECDSA_SIGN = 1, 2, 64  # ClientCertificateType (RFC 5246 section 7.4.4, RFC 8422 section 5.5)

SERVER_HELLO_DONE = message(H.server_hello_done, b"")
HELLO_REQUEST = message(H.hello_request, b"")
NO_CERTIFICATE_WARNING = bytes((1, Alert.no_certificate))  # an alert (RFC 6101 section 5.6.6)


def require_empty(raw: bytes) -> None:
    """ServerHelloDone and HelloRequest carry nothing: raises DecodeError if they do."""
    Reader(raw, 4).end()


# --- ServerKeyExchange -----------------------------------------------------------------------------------------------------


def encode_ecdh_params(group: int, point: bytes) -> bytes:
    return Writer().u8(NAMED_CURVE).u16(group).vector(1, point).bytes()


def decode_ecdh_params(reader: Reader) -> tuple[int, bytes]:
    """Group and public point.  Raises IllegalParameter for explicit curves (RFC 8422 section 5.4)."""
    if reader.u8() != NAMED_CURVE:
        raise IllegalParameter("server's curve is not a named one", name="SEC_ERROR_UNSUPPORTED_ELLIPTIC_CURVE")
    return reader.u16(), reader.vector(1, least=1)


def encode_dh_params(prime: bytes, generator: bytes, public: bytes) -> bytes:
    return Writer().vector(2, prime).vector(2, generator).vector(2, public).bytes()


def decode_dh_params(reader: Reader) -> tuple[bytes, bytes, bytes]:
    """Prime, generator and public value, big-endian."""
    return reader.vector(2, least=1), reader.vector(2, least=1), reader.vector(2, least=1)


def encode_rsa_params(modulus: int, exponent: int) -> bytes:
    """Of a short key for an export suite (RFC 2246 section 7.4.3)."""
    w = Writer()
    for number in (modulus, exponent):
        w.vector(2, number.to_bytes((number.bit_length() + 7) // 8, "big"))
    return w.bytes()


def decode_rsa_params(reader: Reader) -> tuple[int, int]:
    """Modulus and exponent."""
    return int.from_bytes(reader.vector(2, least=1), "big"), int.from_bytes(reader.vector(2, least=1), "big")


def encode_server_key_exchange(params: bytes, scheme: int | None, signature: bytes) -> bytes:
    return message(H.server_key_exchange, params + encode_signature(scheme, signature))


# --- ClientKeyExchange -----------------------------------------------------------------------------------------------------


def encode_client_key_exchange(width: int, value: bytes) -> bytes:
    """`value` is an RSA ciphertext or DH public value (`width` 2) or a point (`width` 1); `width` 0: no length before it."""
    return message(H.client_key_exchange, Writer().vector(width, value).bytes() if width else value)


def decode_client_key_exchange(raw: bytes, width: int) -> bytes:
    r = Reader(raw, 4)
    value = r.vector(width, least=1) if width else r.take(max(1, len(raw) - 4))
    r.end()
    return value


# --- client authentication, stapling -----------------------------------------------------------------------------------------


def encode_request(types: tuple[int, ...], schemes: tuple[int, ...] | None, authorities: tuple[bytes, ...]) -> bytes:
    """CertificateRequest.  Before TLS 1.2 it names no `schemes`."""
    w = Writer().vector(1, bytes(types))
    if schemes is not None:
        w.u16_list(2, schemes)
    return message(H.certificate_request, w.raw(encode_authorities(authorities)).bytes())


def decode_request(raw: bytes, unnamed: tuple[int, ...] | None) -> tuple[bytes, tuple[int, ...], tuple[bytes, ...]]:
    """Certificate types, signature schemes (`unnamed` where the message has none), and DER names of authorities."""
    r = Reader(raw, 4)
    types, schemes = r.vector(1, least=1), r.u16_list(2) if unnamed is None else unnamed
    return types, schemes, decode_authorities(r.rest())


def encode_certificate_status(response: bytes) -> bytes:
    return message(H.certificate_status, encode_status(response))


def decode_certificate_status(raw: bytes) -> bytes:
    """The stapled OCSP response, DER."""
    return decode_status(raw[4:])
