"""NewSessionTicket (RFC 8446 section 4.6.1, RFC 5077 section 3.3) and KeyUpdate (RFC 8446 section 4.6.3)."""

from __future__ import annotations

from ...errors import IllegalParameter
from ..codec import Reader, Writer
from ..codepoints import H
from .extensions import Extensions, decode_block
from .hello import message


def encode_ticket13(lifetime: int, age_add: int, nonce: bytes, ticket: bytes) -> bytes:
    """`lifetime` in seconds."""
    w = Writer().u32(lifetime).u32(age_add).vector(1, nonce).vector(2, ticket).u16(0)
    return message(H.new_session_ticket, w.bytes())


def decode_ticket13(raw: bytes) -> tuple[int, int, bytes, bytes, Extensions]:
    """Lifetime (seconds), age_add, nonce, ticket, extensions."""
    r = Reader(raw, 4)
    lifetime, age_add, nonce, ticket = r.u32(), r.u32(), r.vector(1), r.vector(2, least=1)
    extensions = decode_block(r)
    r.end()
    return lifetime, age_add, nonce, ticket, extensions


def encode_ticket12(lifetime: int, ticket: bytes) -> bytes:
    """`lifetime` in seconds, a hint."""
    return message(H.new_session_ticket, Writer().u32(lifetime).vector(2, ticket).bytes())


def decode_ticket12(raw: bytes) -> tuple[int, bytes]:
    r = Reader(raw, 4)
    lifetime, ticket = r.u32(), r.vector(2)
    r.end()
    return lifetime, ticket


def encode_key_update(request_peer: bool) -> bytes:
    return message(H.key_update, b"\x01" if request_peer else b"\x00")


def decode_key_update(raw: bytes) -> bool:
    """Whether the peer asks us to update too."""
    r = Reader(raw, 4)
    request = r.u8()
    r.end()
    if request > 1:
        raise IllegalParameter(f"KeyUpdateRequest {request}", name="SSL_ERROR_RX_MALFORMED_KEY_UPDATE")
    return bool(request)
