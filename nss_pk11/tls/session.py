"""A session that can be resumed: what a client keeps, and what a server seals into a ticket or a cache entry."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from ..errors import DecodeError
from .codec import Reader

_FORMAT = 1
MAX_TICKET = 1 << 15  # bytes of a ticket, or of what a cache keeps: a ClientHello holds 64 KB, and other things beside a ticket
_HEAD = struct.Struct(">BHHQIIBBBHBBH").pack


@dataclass(slots=True)
class Session:
    """`secret`: the TLS 1.2 master secret or the TLS 1.3 PSK; `created`, seconds since 1970; `lifetime`, seconds;
    `age_add`: obfuscates the ticket age in milliseconds (RFC 8446 section 4.6.1); `ticket`, `session_id`: how the client asks for
    it; `peer_chain`: the other side's certificates, DER, leaf first; `card`: what a FORTEZZA card kept of the ciphers, wrapped by
    it.  Holds a secret: its repr does not."""

    version: int
    suite: int
    secret: bytes = field(repr=False)
    created: float
    lifetime: int
    ticket: bytes = field(default=b"", repr=False)
    session_id: bytes = b""
    age_add: int = 0
    extended_master_secret: bool = False
    encrypt_then_mac: bool = False
    server_name: str = ""
    alpn: str = ""
    peer_chain: tuple[bytes, ...] = ()
    context: bytes = b""
    card: bytes = field(default=b"", repr=False)

    def fresh(self, now: float) -> bool:
        """Whether the session may still be used at `now` (seconds since 1970).  A clock that ran backwards makes it stale."""
        return 0 <= now - self.created + 1 <= self.lifetime + 1

    def encode(self) -> bytes:
        """For a ticket or a cache; `decode` takes it back."""
        server_name, alpn = self.server_name.encode(), self.alpn.encode("latin-1")
        flags = self.extended_master_secret | self.encrypt_then_mac << 1 | bool(self.card) << 2
        head = _HEAD(
            _FORMAT, self.version, self.suite, int(self.created * 1000), self.lifetime, self.age_add, flags,
            len(self.secret), len(self.session_id), len(server_name), len(alpn), len(self.context), len(self.ticket),
        )  # fmt: skip
        parts = [head, self.secret, self.session_id, server_name, alpn, self.context, self.ticket]
        if self.card:
            parts.append(len(self.card).to_bytes(1) + self.card)
        for certificate in self.peer_chain:
            parts.append(len(certificate).to_bytes(3, "big"))
            parts.append(certificate)
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Session:
        """Raises DecodeError on anything `encode` did not write."""
        r = Reader(data)
        if r.u8() != _FORMAT:
            raise DecodeError("unknown session format", name="SSL_ERROR_SESSION_NOT_FOUND")
        version, suite, created, lifetime, age_add, flags = r.u16(), r.u16(), r.u64() / 1000, r.u32(), r.u32(), r.u8()
        lengths = r.u8(), r.u8(), r.u16(), r.u8(), r.u8(), r.u16()
        secret, session_id, server_name, alpn, context, ticket = (r.take(length) for length in lengths)
        card = r.vector(1) if flags & 4 else b""
        chain = []
        while r:
            chain.append(r.vector(3))
        return cls(
            version, suite, secret, created, lifetime, ticket, session_id, age_add, bool(flags & 1), bool(flags & 2),
            server_name.decode(), alpn.decode("latin-1"), tuple(chain), context, card,
        )  # fmt: skip
