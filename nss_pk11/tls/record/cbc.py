"""CBC protection of records with a MAC: SSL 3.0 (RFC 6101 section 5.2.3.2) to TLS 1.2 (RFC 5246 section 6.2.3.2), and
encrypt-then-MAC (RFC 7366).

The same interface as `aead`: one object per direction and key.  In MAC-then-encrypt order the padding is secret until the MAC is
checked, and tells nothing here: whatever is wrong with a record is one error, and the work done does not depend on the padding
as far as Python can see to it (Lucky Thirteen).  SSL 3.0 says nothing about padding but its length, so nothing else of it can
be checked: POODLE is that version's own.
"""

from __future__ import annotations

import os
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
MAX_PADDING = 256  # with its length byte
Crypt = Callable[[bytes | memoryview], bytes]  # whole blocks to as many; goes on from one call to the next
_PADDINGS = tuple(bytes((length,)) * (length + 1) for length in range(16))  # the shortest that fits is what we send


class Cbc:
    """Both ways to an IV, with one running cipher.  Before TLS 1.1 records chain: each goes on from the last block of the one
    before, first from `iv`.  Since then the first block of a record is random and decrypts to nothing of use: what comes out of
    encrypting it is an IV that nobody can foretell (RFC 4346 section 6.2.3.2, 2b).

    `split`: a chained IV is known before the data, so the first byte of what is sent together goes ahead in a record of its own,
    whose MAC nobody can foretell (BEAST, CVE-2011-3389).
    """

    __slots__ = (
        "_block", "_decrypt", "_encrypt", "_etm", "_explicit", "_limit", "_mac", "_random", "_sequence", "_split", "_strip",
        "_version", "_written", "overhead",
    )  # fmt: skip

    hides_type = False

    def __init__(
        self,
        suite: Suite,
        version: Version,
        key: bytes,
        mac_key: bytes,
        iv: bytes = b"",
        *,
        encrypt_then_mac: bool = False,
        split: bool = True,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._version, self._block = version, suite.cipher.block
        self._mac = mac_of(suite.mac, mac_key, version)
        self._etm = encrypt_then_mac
        self._explicit = self._block if version >= Version.tls1_1 else 0
        self._split = split and not self._explicit
        self._strip = _strip_ssl3_padding if version == Version.ssl3 else _strip_padding
        self._encrypt, self._decrypt = self._begin(suite, key, iv)
        self._random = random
        self._sequence = self._written = 0
        # Half the blocks after which two are likely to be alike (Sweet32, CVE-2016-2183): of 64 bits 16 GB, of 128 for ever.
        self._limit = self._block << (4 * self._block - 1)
        # At most: with the shortest padding, and another record for the first byte.
        self.overhead = (self._explicit + self._mac.size + self._block) * (1 + self._split) + 5 * self._split

    def _begin(self, suite: Suite, key: bytes, iv: bytes) -> tuple[Crypt, Crypt]:
        encryptor, decryptor = bulk.cbc(suite.cipher, key, iv or bytes(self._block))
        return encryptor.update, decryptor.update

    @property
    def exhausted(self) -> bool:
        return self._written >= self._limit

    # --- sending ---------------------------------------------------------------------------------------------------------

    def protect(self, content_type: int, fragment: bytes) -> bytes:
        if self._split and content_type == APPLICATION_DATA and len(fragment) > 1:
            return self._seal(content_type, fragment[:1]) + self._seal(content_type, fragment[1:])
        return self._seal(content_type, fragment)

    def _seal(self, content_type: int, fragment: bytes) -> bytes:
        sequence = self._sequence
        self._sequence = sequence + 1
        content = fragment if self._etm else fragment + self._mac(sequence, content_type, fragment)
        block = self._block
        plaintext = content + _PADDINGS[block - 1 - len(content) % block]
        body = self._encrypt(self._random(block) + plaintext if self._explicit else plaintext)
        self._written += len(body)
        if self._etm:
            body += self._mac(sequence, content_type, body)
        return _HEADER(content_type, self._version, len(body)) + body

    def protect_run(self, data: memoryview, size: int) -> list[bytes]:
        """All of `data` as application_data records of `size` bytes each."""
        parts = [self._seal(APPLICATION_DATA, bytes(data[:1]))] if self._split else []
        starts = range(len(parts), len(data), size)
        return parts + [self._seal(APPLICATION_DATA, bytes(data[start : start + size])) for start in starts]

    # --- receiving -------------------------------------------------------------------------------------------------------

    def unprotect(self, content_type: int, header: bytes, body: memoryview) -> tuple[int, bytes]:
        """Content type and content.  Raises BadRecordMac, RecordOverflow."""
        content = (self._open_etm if self._etm else self._open)(content_type, body)
        self._sequence += 1
        if len(content) > MAX_PLAINTEXT:
            raise RecordOverflow(f"record of {len(content)} plaintext bytes")
        return content_type, content

    def _decrypted(self, body: bytes | memoryview, least: int) -> bytes:
        """What follows the IV.  Lengths are public, so a wrong one may be told at once (RFC 5246 section 6.2.3.2)."""
        if len(body) < self._explicit + max(least, self._block) or len(body) % self._block:
            raise _bad()
        return self._decrypt(body)[self._explicit :]

    def _open_etm(self, content_type: int, body: memoryview) -> bytes:
        """RFC 7366 section 3: the MAC first; nothing is decrypted that does not authenticate."""
        split = max(0, len(body) - self._mac.size)
        sealed = bytes(body[:split])
        if not compare_digest(body[split:], self._mac(self._sequence, content_type, sealed)):
            raise _bad()
        plaintext = self._decrypted(sealed, least=1)
        length, good = _strip_padding(plaintext, 0, self._block)
        if not good:
            raise _bad()
        return plaintext[:length]

    def _open(self, content_type: int, body: memoryview) -> bytes:
        """RFC 5246 section 6.2.3.2: a record with bad padding is authenticated all the same, as if it had none."""
        size = self._mac.size
        plaintext = self._decrypted(body, least=size + 1)
        length, good = self._strip(plaintext, size, self._block)
        mac = self._mac(self._sequence, content_type, plaintext[:length])
        self._mac.even_out(length, len(plaintext) - 1 - size)
        good &= compare_digest(mac, plaintext[length : length + size])
        if not good:
            raise _bad()
        return plaintext[:length]


def _strip_padding(plaintext: bytes, mac_bytes: int, block: int) -> tuple[int, bool]:
    """Length of the content before MAC and padding, and whether the padding is good.

    Compares a stretch as long as the longest padding, whatever the padding is; bad padding counts as none.
    """
    room = len(plaintext) - mac_bytes
    stretch = plaintext[-MAX_PADDING:]
    claimed = plaintext[-1] + 1
    fits = claimed <= room
    claimed = claimed * fits + (not fits)
    wanted = stretch[: len(stretch) - claimed] + bytes((claimed - 1,)) * claimed
    good = fits & compare_digest(stretch, wanted)
    return room - (claimed * good + (not good)), good


def _strip_ssl3_padding(plaintext: bytes, mac_bytes: int, block: int) -> tuple[int, bool]:
    """The same for SSL 3.0: any bytes, but fewer than a block."""
    room = len(plaintext) - mac_bytes
    claimed = plaintext[-1] + 1
    good = (claimed <= block) & (claimed <= room)
    return room - (claimed * good + (not good)), good


def _bad() -> BadRecordMac:
    return BadRecordMac("record does not authenticate")
