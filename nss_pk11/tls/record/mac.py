"""MACs of records: HMAC in TLS (RFC 2246 section 6.2.3.1), and in SSL 3.0 what came before it (RFC 6101 section 5.2.3.1).

One object per direction and key, called with sequence number, content type and data.  `even_out` makes the time of a MAC
independent of a length that is secret.
"""

from __future__ import annotations

import hashlib
import struct
from hmac import digest as hmac_digest
from typing import Protocol

from ..codepoints import Version
from ..suites import MAC_BYTES

_TLS_HEADER = struct.Struct(">QBHH")  # sequence, type, version, length
_SSL3_HEADER = struct.Struct(">QBH")  # version left out

# Bytes in a block of each hash, and those its own padding takes at least.
_HASH_BLOCKS = {"md5": (64, 9), "sha1": (64, 9), "sha256": (64, 9), "sha384": (128, 17)}
SSL3_PADS = {"md5": 48, "sha1": 40}  # bytes of pad_1 (0x36) and pad_2 (0x5c)


class Mac(Protocol):
    """`size`: bytes of a MAC."""

    size: int

    def __call__(self, sequence: int, content_type: int, data: bytes) -> bytes: ...

    def even_out(self, length: int, longest: int) -> None: ...


def mac_of(name: str, key: bytes, version: int) -> Mac:
    """The MAC by hash `name` ("md5", "sha1", "sha256", "sha384") as `version` has it."""
    return Ssl3Mac(name, key) if version == Version.ssl3 else Hmac(name, key, version)


class _Even:
    """`_prefix`: bytes that are hashed before the data, less whole blocks."""

    __slots__ = ("_name", "_prefix", "size")

    def __init__(self, name: str, prefix: int) -> None:
        self._name, self._prefix, self.size = name, prefix, MAC_BYTES[name]

    def even_out(self, length: int, longest: int) -> None:
        """After a MAC of `length` bytes hash as many blocks more as one of `longest` bytes would have taken; and another one, as
        to hash none at all is quicker than that."""
        block, tail = _HASH_BLOCKS[self._name]
        done, most = ((count + self._prefix + tail - 1) // block for count in (length, longest))
        hashlib.new(self._name, bytes((most - done + 1) * block)).digest()


class Hmac(_Even):
    """With the version that was negotiated."""

    __slots__ = ("_key", "_version")

    def __init__(self, name: str, key: bytes, version: int) -> None:
        super().__init__(name, _TLS_HEADER.size)
        self._key, self._version = key, version

    def __call__(self, sequence: int, content_type: int, data: bytes) -> bytes:
        return hmac_digest(self._key, _TLS_HEADER.pack(sequence, content_type, self._version, len(data)) + data, self._name)


class Ssl3Mac(_Even):
    """hash(secret + pad_2 + hash(secret + pad_1 + header + data)); both beginnings are hashed once."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, name: str, key: bytes) -> None:
        pad = SSL3_PADS[name]
        super().__init__(name, len(key) + pad + _SSL3_HEADER.size)
        self._inner = hashlib.new(name, key + b"\x36" * pad)
        self._outer = hashlib.new(name, key + b"\x5c" * pad)

    def __call__(self, sequence: int, content_type: int, data: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(_SSL3_HEADER.pack(sequence, content_type, len(data)))
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()
