"""ClientHello and ServerHello (RFC 8446 section 4.1, RFC 5246 section 7.4.1); HelloRetryRequest is a ServerHello in disguise."""

from __future__ import annotations

from ...errors import DecodeError, IllegalParameter
from ..codec import Reader, Writer
from ..codepoints import H, X
from .extensions import Extensions, decode_block, decode_versions, encode_block

# SHA-256 of "HelloRetryRequest" (RFC 8446 section 4.1.3).
HELLO_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
# Last eight bytes of ServerHello.random when a server that knows better negotiates less (RFC 8446 section 4.1.3).
DOWNGRADE_TLS12 = b"DOWNGRD\x01"
DOWNGRADE_TLS11 = b"DOWNGRD\x00"


def message(kind: int, body: bytes) -> bytes:
    """A handshake message: type, 24-bit length, body."""
    return kind.to_bytes(1, "big") + len(body).to_bytes(3, "big") + body


class ClientHello:
    """`version` is legacy_version; `raw` the whole message as received or sent (the transcript and PSK binders need it)."""

    __slots__ = ("compression", "extensions", "random", "raw", "session_id", "suites", "version")

    def __init__(
        self,
        version: int,
        random: bytes,
        session_id: bytes,
        suites: tuple[int, ...],
        extensions: Extensions,
        compression: bytes = b"\0",
    ) -> None:
        self.version, self.random, self.session_id, self.suites = version, random, session_id, suites
        self.extensions, self.compression, self.raw = extensions, compression, b""

    def encode(self) -> bytes:
        w = Writer()
        w.u16(self.version).raw(self.random).vector(1, self.session_id)
        w.u16_list(2, self.suites).vector(1, self.compression)
        if self.extensions:
            w.raw(encode_block(self.extensions))
        self.raw = message(H.client_hello, w.bytes())
        return self.raw

    @classmethod
    def decode(cls, raw: bytes) -> ClientHello:
        r = Reader(raw, 4)
        version, random, session_id = r.u16(), r.take(32), r.vector(1)
        if len(session_id) > 32:
            raise DecodeError(f"session id of {len(session_id)} bytes")
        suites, compression = r.u16_list(2), r.vector(1, least=1)
        extensions = decode_block(r) if r else {}
        r.end()
        if X.pre_shared_key in extensions and next(reversed(extensions)) != X.pre_shared_key:
            raise IllegalParameter(
                "pre_shared_key is not the last extension (RFC 8446 section 4.2.11)", name="SSL_ERROR_MALFORMED_PRE_SHARED_KEY"
            )
        hello = cls(version, random, session_id, suites, extensions, compression)
        hello.raw = raw
        return hello

    def offered_versions(self) -> tuple[int, ...]:
        """supported_versions, or what legacy_version implies (RFC 8446 section 4.2.1)."""
        body = self.extensions.get(X.supported_versions)
        if body is not None:
            return decode_versions(body)
        return tuple(range(min(self.version, 0x0303), 0x02FF, -1))


class ServerHello:
    """`retry` tells a HelloRetryRequest."""

    __slots__ = ("compression", "extensions", "random", "raw", "session_id", "suite", "version")

    def __init__(
        self, version: int, random: bytes, session_id: bytes, suite: int, extensions: Extensions, compression: int = 0
    ) -> None:
        self.version, self.random, self.session_id, self.suite = version, random, session_id, suite
        self.extensions, self.compression, self.raw = extensions, compression, b""

    @property
    def retry(self) -> bool:
        return self.random == HELLO_RETRY_RANDOM

    def encode(self) -> bytes:
        w = Writer()
        w.u16(self.version).raw(self.random).vector(1, self.session_id).u16(self.suite).u8(self.compression)
        if self.extensions:
            w.raw(encode_block(self.extensions))
        self.raw = message(H.server_hello, w.bytes())
        return self.raw

    @classmethod
    def decode(cls, raw: bytes) -> ServerHello:
        r = Reader(raw, 4)
        version, random, session_id = r.u16(), r.take(32), r.vector(1)
        if len(session_id) > 32:
            raise DecodeError(f"session id of {len(session_id)} bytes")
        suite, compression = r.u16(), r.u8()
        extensions = decode_block(r) if r else {}
        r.end()
        hello = cls(version, random, session_id, suite, extensions, compression)
        hello.raw = raw
        return hello
