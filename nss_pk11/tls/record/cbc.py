"""AES-CBC protection of records with HMAC (RFC 5246 section 6.2.3.2) and encrypt-then-MAC (RFC 7366).

The same interface as `aead`: one object per direction and key.  Every record carries a random IV of its own.  In
MAC-then-encrypt order the padding is secret until the MAC is checked, and tells nothing here: whatever is wrong with a record
is one error, and the work done does not depend on the padding as far as Python can see to it (Lucky Thirteen).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from hmac import compare_digest
from hmac import digest as hmac_digest

from cryptography.hazmat.primitives.ciphers import Cipher as Symmetric
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from ...errors import BadRecordMac, RecordOverflow
from ..suites import MAC_BYTES, Suite
from .aead import APPLICATION_DATA, MAX_PLAINTEXT

_HEADER = struct.Struct(">BHH").pack
_MAC_HEADER = struct.Struct(">QBHH").pack  # sequence, type, version, length
_MAC_HEADER_BYTES = 13
BLOCK = 16
MAX_PADDING = 256  # with its length byte
RECORD_LIMIT = 1 << 32  # far below both the sequence number's end and the birthday bound of a 128-bit block cipher

# Bytes in a block of each MAC's hash, and those its own padding takes at least.
_HASH_BLOCKS = {"sha1": (64, 9), "sha256": (64, 9), "sha384": (128, 17)}


class Cbc:
    """TLS 1.2: an explicit IV before the ciphertext."""

    __slots__ = ("_etm", "_key", "_mac", "_mac_bytes", "_mac_key", "_random", "_sequence", "overhead")

    hides_type = False

    def __init__(
        self, suite: Suite, key: bytes, mac_key: bytes, encrypt_then_mac: bool, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._key = AES(key)
        self._mac, self._mac_bytes, self._mac_key = suite.mac, MAC_BYTES[suite.mac], mac_key
        self._etm = encrypt_then_mac
        self._random = random
        self._sequence = 0
        self.overhead = BLOCK + self._mac_bytes + BLOCK  # at most, with the shortest padding

    @property
    def exhausted(self) -> bool:
        return self._sequence >= RECORD_LIMIT

    def _authenticate(self, content_type: int, data: bytes) -> bytes:
        """The MAC of the next record; the caller counts it."""
        return hmac_digest(self._mac_key, _MAC_HEADER(self._sequence, content_type, 0x0303, len(data)) + data, self._mac)

    # --- sending ---------------------------------------------------------------------------------------------------------

    def protect(self, content_type: int, fragment: bytes) -> bytes:
        plaintext = fragment if self._etm else fragment + self._authenticate(content_type, fragment)
        padding = BLOCK - 1 - len(plaintext) % BLOCK
        iv = self._random(BLOCK)
        encryptor = Symmetric(self._key, CBC(iv)).encryptor()
        body = iv + encryptor.update(plaintext + bytes((padding,)) * (padding + 1))
        if self._etm:
            body += self._authenticate(content_type, body)
        self._sequence += 1
        return _HEADER(content_type, 0x0303, len(body)) + body

    def protect_run(self, data: memoryview, size: int) -> list[bytes]:
        """All of `data` as application_data records of `size` bytes each."""
        starts = range(0, len(data), size)
        return [self.protect(APPLICATION_DATA, bytes(data[start : start + size])) for start in starts]

    # --- receiving -------------------------------------------------------------------------------------------------------

    def unprotect(self, content_type: int, header: bytes, body: memoryview) -> tuple[int, bytes]:
        """Raises BadRecordMac for whatever is wrong, RecordOverflow for too much plaintext that authenticates."""
        content = self._open_etm(content_type, bytes(body)) if self._etm else self._open(content_type, bytes(body))
        self._sequence += 1
        if len(content) > MAX_PLAINTEXT:
            raise RecordOverflow(f"record of {len(content)} plaintext bytes")
        return content_type, content

    def _decrypt(self, body: bytes, least: int) -> bytes:
        """What follows the IV.  Lengths are public, so a wrong one may be told at once (RFC 5246 section 6.2.3.2)."""
        if len(body) < BLOCK + max(least, BLOCK) or len(body) % BLOCK:
            raise _bad()
        return Symmetric(self._key, CBC(body[:BLOCK])).decryptor().update(body[BLOCK:])

    def _open_etm(self, content_type: int, body: bytes) -> bytes:
        """RFC 7366 section 3: the MAC first; nothing is decrypted that does not authenticate."""
        sealed, mac = body[: -self._mac_bytes], body[-self._mac_bytes :]
        if not compare_digest(mac, self._authenticate(content_type, sealed)):
            raise _bad()
        plaintext = self._decrypt(sealed, least=1)
        length, good = _strip_padding(plaintext, 0)
        if not good:
            raise _bad()
        return plaintext[:length]

    def _open(self, content_type: int, body: bytes) -> bytes:
        """RFC 5246 section 6.2.3.2: a record with bad padding is authenticated all the same, as if it had none."""
        plaintext = self._decrypt(body, least=self._mac_bytes + 1)
        length, good = _strip_padding(plaintext, self._mac_bytes)
        mac = self._authenticate(content_type, plaintext[:length])
        self._even_out(length, len(plaintext) - 1 - self._mac_bytes)
        good &= compare_digest(mac, plaintext[length : length + self._mac_bytes])
        if not good:
            raise _bad()
        return plaintext[:length]

    def _even_out(self, length: int, longest: int) -> None:
        """Hash as many blocks more as the shortest padding would have meant: every record of one size costs the same."""
        block, tail = _HASH_BLOCKS[self._mac]
        done, most = ((count + _MAC_HEADER_BYTES + tail - 1) // block for count in (length, longest))
        hashlib.new(self._mac, bytes((most - done) * block)).digest()


def _strip_padding(plaintext: bytes, mac_bytes: int) -> tuple[int, bool]:
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


def _bad() -> BadRecordMac:
    return BadRecordMac("record does not authenticate")
