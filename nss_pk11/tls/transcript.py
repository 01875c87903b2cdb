"""The running hash over all handshake messages (RFC 8446 section 4.4.1, RFC 5246 section 7.4.9, RFC 2246 section 7.4.9)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

from .codepoints import H

# "md5sha1": of the same messages MD5 and SHA-1, 16 and 20 bytes in one digest (before TLS 1.2).
_HASHES: dict[str, Callable[[bytes | bytearray], hashlib._Hash]] = {
    "md5sha1": functools.partial(hashlib.new, "md5-sha1"),
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
}


class Transcript:
    """Messages are kept until the hash is known, and beyond that where `keep` asks for it: TLS 1.2's CertificateVerify signs
    the messages themselves."""

    __slots__ = ("_hash", "keep", "raw")

    def __init__(self) -> None:
        self._hash: hashlib._Hash | None = None
        self.raw = bytearray()
        self.keep = True

    def add(self, message: bytes) -> None:
        if self._hash is not None:
            self._hash.update(message)
        if self.keep:
            self.raw += message

    def use(self, name: str, keep: bool = False) -> None:
        """The hash is known now ("sha256", "sha384", before TLS 1.2 "md5sha1")."""
        self._hash = _HASHES[name](self.raw)
        self.keep = keep
        if not keep:
            self.raw = bytearray()

    def forget_messages(self) -> None:
        """No signature over the messages themselves will be needed any more."""
        self.keep, self.raw = False, bytearray()

    def digest(self, more: bytes = b"") -> bytes:
        """The hash so far; with `more`, as if that had been added too (PSK binders, SSL 3.0's Finished)."""
        assert self._hash is not None
        snapshot = self._hash.copy()
        if more:
            snapshot.update(more)
        return snapshot.digest()

    def replace_by_message_hash(self) -> None:
        """After a HelloRetryRequest the first ClientHello counts as its hash only (RFC 8446 section 4.4.1)."""
        assert self._hash is not None
        digest = self._hash.digest()
        self._hash = _HASHES[self._hash.name](bytes((H.message_hash, 0, 0, len(digest))) + digest)

    def branch(self) -> Transcript:
        """A copy to go on from here (post-handshake authentication, RFC 8446 section 4.4)."""
        other = Transcript()
        assert self._hash is not None
        other._hash, other.keep = self._hash.copy(), False
        return other
