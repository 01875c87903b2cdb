"""Protection of records by a MAC and a stream cipher, or by the MAC alone (RFC 2246 section 6.2.3.1, RFC 6101 section 5.2.3.1).

The same interface as `cbc`.  Nothing is padded, so nothing but the MAC can be wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hmac import compare_digest

from ...errors import BadRecordMac, RecordOverflow
from ..ciphers import bulk
from ..codepoints import Version
from ..suites import Suite
from .aead import APPLICATION_DATA, MAX_PLAINTEXT
from .mac import mac_of

_HEADER = struct.Struct(">BHH").pack
RECORD_LIMIT = 1 << 48  # the sequence number must not wrap; nothing else bounds a key stream


class Stream:
    """RC4, whose key stream runs on from record to record, or NULL."""

    __slots__ = ("_crypt", "_mac", "_sequence", "_version", "overhead")

    hides_type = False

    def __init__(self, suite: Suite, version: Version, key: bytes, mac_key: bytes) -> None:
        self._version = version
        self._mac = mac_of(suite.mac, mac_key, version)
        self._crypt: Callable[[bytes | memoryview], bytes] = (
            bulk.stream(suite.cipher, key).update if suite.cipher.kind == "stream" else bytes
        )
        self._sequence = 0
        self.overhead = self._mac.size

    @property
    def exhausted(self) -> bool:
        return self._sequence >= RECORD_LIMIT

    def protect(self, content_type: int, fragment: bytes) -> bytes:
        body = self._crypt(fragment + self._mac(self._sequence, content_type, fragment))
        self._sequence += 1
        return _HEADER(content_type, self._version, len(body)) + body

    def protect_run(self, data: memoryview, size: int) -> list[bytes]:
        """All of `data` as application_data records of `size` bytes each."""
        starts = range(0, len(data), size)
        return [self.protect(APPLICATION_DATA, bytes(data[start : start + size])) for start in starts]

    def unprotect(self, content_type: int, header: bytes, body: memoryview) -> tuple[int, bytes]:
        """Content type and content.  Raises BadRecordMac, RecordOverflow."""
        plaintext = self._crypt(body)
        length = max(0, len(plaintext) - self._mac.size)
        content = plaintext[:length]
        if not compare_digest(plaintext[length:], self._mac(self._sequence, content_type, content)):
            raise BadRecordMac("record does not authenticate")
        self._sequence += 1
        if length > MAX_PLAINTEXT:
            raise RecordOverflow(f"record of {length} plaintext bytes")
        return content_type, content
