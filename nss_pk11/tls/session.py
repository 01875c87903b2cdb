"""A session that can be resumed: what a client keeps, and what a server seals into a ticket or a cache entry."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import DecodeError
from .codec import Reader, Writer

_FORMAT = 1


@dataclass(frozen=True)
class Session:
    """`secret`: the TLS 1.2 master secret or the TLS 1.3 PSK; `created`, seconds since 1970; `lifetime`, seconds;
    `age_add`: obfuscates the ticket age in milliseconds (RFC 8446 section 4.6.1); `ticket`, `session_id`: how the client asks for
    it; `peer_chain`: the other side's certificates, DER, leaf first.  Holds a secret: its repr does not."""

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

    def fresh(self, now: float) -> bool:
        """Whether the session may still be used at `now` (seconds since 1970).  A clock that ran backwards makes it stale."""
        return 0 <= now - self.created + 1 <= self.lifetime + 1

    def encode(self) -> bytes:
        w = Writer()
        w.u8(_FORMAT).u16(self.version).u16(self.suite).vector(1, self.secret)
        w.u64(int(self.created * 1000)).u32(self.lifetime).u32(self.age_add)
        w.u8(self.extended_master_secret | self.encrypt_then_mac << 1)
        w.vector(2, self.ticket).vector(1, self.session_id)
        w.vector(2, self.server_name.encode()).vector(1, self.alpn.encode("latin-1")).vector(1, self.context)
        with w.block(3):
            for certificate in self.peer_chain:
                w.vector(3, certificate)
        return w.bytes()

    @classmethod
    def decode(cls, data: bytes) -> Session:
        """Raises DecodeError on anything `encode` did not write."""
        r = Reader(data)
        if r.u8() != _FORMAT:
            raise DecodeError("unknown session format", name="SSL_ERROR_SESSION_NOT_FOUND")
        version, suite, secret = r.u16(), r.u16(), r.vector(1)
        created, lifetime, age_add, flags = r.u64() / 1000, r.u32(), r.u32(), r.u8()
        ticket, session_id = r.vector(2), r.vector(1)
        server_name, alpn, context = r.vector(2).decode(), r.vector(1).decode("latin-1"), r.vector(1)
        certificates, chain = r.block(3), []
        while certificates:
            chain.append(certificates.vector(3))
        r.end()
        return cls(
            version,
            suite,
            secret,
            created,
            lifetime,
            ticket,
            session_id,
            age_add,
            bool(flags & 1),
            bool(flags & 2),
            server_name,
            alpn,
            tuple(chain),
            context,
        )
