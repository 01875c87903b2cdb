"""AEAD protection of records: TLS 1.3 (RFC 8446 section 5.2) and TLS 1.2 (RFC 5246 section 6.2.3.3).

One object per direction and key.  `protect` returns a whole record, header included; `unprotect` takes one.  The two
versions differ in nonce, additional data and where the content type lives, and in nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NoReturn, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from ...errors import BadRecordMac, RecordOverflow, UnexpectedMessage
from ..suites import Cipher

_HEADER = struct.Struct(">BHH").pack
_AAD12 = struct.Struct(">QBHH").pack
MAX_PLAINTEXT = 1 << 14
ALERT, APPLICATION_DATA = 21, 23

Bytes = bytes | bytearray | memoryview


class Aead(Protocol):
    """The part of `cryptography`'s AEADs that records need."""

    def encrypt(self, nonce: bytes, data: Bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: Bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt_into(self, nonce: bytes, data: Bytes, associated_data: bytes | None, buf: memoryview) -> int: ...


def _short_tag(key: bytes) -> Aead:
    return AESCCM(key, 8)


# Cipher -> its AEAD, and how many records one key may protect before it must change: RFC 8446 section 5.5 gives 2^24.5 for AES,
# halved again for margin; RFC 9001 appendix B keeps CCM near 2^23; only the sequence number bounds ChaCha20.
_CIPHERS: dict[str, tuple[Callable[[bytes], Aead], int]] = {
    "AES-128-GCM": (AESGCM, 1 << 23),
    "AES-256-GCM": (AESGCM, 1 << 23),
    "AES-128-CCM": (AESCCM, 1 << 22),
    "AES-256-CCM": (AESCCM, 1 << 22),
    "AES-128-CCM-8": (_short_tag, 1 << 22),
    "AES-256-CCM-8": (_short_tag, 1 << 22),
    "ChaCha20-Poly1305": (ChaCha20Poly1305, 1 << 48),
}


class Aead13:
    """TLS 1.3: nonce = iv XOR sequence; the true content type travels inside; everything outside says application_data."""

    __slots__ = ("_aead", "_iv", "_sequence", "_tag", "overhead", "record_limit")

    hides_type = True

    def __init__(self, cipher: Cipher, key: bytes, iv: bytes) -> None:
        construct, self.record_limit = _CIPHERS[cipher.name]
        self._aead = construct(key)
        self._iv = int.from_bytes(iv, "big")
        self._sequence = 0
        self._tag = cipher.tag
        self.overhead = 1 + cipher.tag

    @property
    def exhausted(self) -> bool:
        """Whether the key has protected as many records as it should (RFC 8446 section 5.5)."""
        return self._sequence >= self.record_limit

    def _nonce(self) -> bytes:
        nonce = (self._iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return nonce

    def protect(self, content_type: int, fragment: bytes) -> bytes:
        header = _HEADER(APPLICATION_DATA, 0x0303, len(fragment) + self.overhead)
        return header + self._aead.encrypt(self._nonce(), fragment + content_type.to_bytes(1, "big"), header)

    def protect_run(self, data: memoryview, size: int) -> list[bytes]:
        """All of `data` as application_data records of `size` bytes each: headers and bodies in turn, to be sent one behind the
        other.  No byte is copied but those that must stand before their content type."""
        parts: list[bytes] = []
        inner, encrypt = bytearray(size + 1), self._aead.encrypt
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            length = len(chunk)
            if length != size:
                inner = bytearray(length + 1)
            inner[:length] = chunk
            inner[length] = APPLICATION_DATA
            header = _HEADER(APPLICATION_DATA, 0x0303, length + self.overhead)
            parts += header, encrypt(self._nonce(), inner, header)
        return parts

    def unprotect(self, content_type: int, header: bytes, body: memoryview) -> tuple[int, bytes]:
        """The true content type and content.  Raises BadRecordMac, RecordOverflow, UnexpectedMessage."""
        if content_type != APPLICATION_DATA:
            if content_type == ALERT and not self._sequence and len(body) == 2 and body[0] == 2 and body[1]:
                return content_type, bytes(body)  # fatal, from a client that gave up before it changed its keys: OpenSSL does
            raise UnexpectedMessage("unprotected record after keys were agreed", name="SSL_ERROR_RX_UNEXPECTED_RECORD_TYPE")
        try:
            inner = self._aead.decrypt(self._nonce(), body, header)
        except (InvalidTag, ValueError):
            self._sequence -= 1  # a skipped early-data record uses no number (RFC 8446 section 4.2.10)
            raise BadRecordMac("record does not authenticate") from None
        if len(inner) > MAX_PLAINTEXT + 1:
            raise RecordOverflow(f"record of {len(inner) - 1} plaintext bytes")
        if inner[-1:] != b"\0":
            return (inner[-1], inner[:-1]) if inner else _no_type()
        inner = inner.rstrip(b"\0")  # padding (RFC 8446 section 5.4)
        return (inner[-1], inner[:-1]) if inner else _no_type()

    def unprotect_into(self, header: bytes, body: memoryview, out: memoryview) -> tuple[int, int]:
        """Like `unprotect`, into `out`; returns content type and length.  `out` must hold len(body) bytes less the tag."""
        length = len(body) - self._tag
        try:
            self._aead.decrypt_into(self._nonce(), body, header, out[:length])
        except (InvalidTag, ValueError):
            self._sequence -= 1
            raise BadRecordMac("record does not authenticate") from None
        if length > MAX_PLAINTEXT + 1:
            raise RecordOverflow(f"record of {length - 1} plaintext bytes")
        while length and not out[length - 1]:
            length -= 1
        return (out[length - 1], length - 1) if length else _no_type()


def _no_type() -> NoReturn:
    raise UnexpectedMessage("record holds nothing but padding", name="SSL_ERROR_RX_UNEXPECTED_RECORD_TYPE")


class Aead12:
    """TLS 1.2: AES-GCM and CCM send 8 nonce bytes with each record (RFC 5288, RFC 6655); ChaCha20 sends none (RFC 7905)."""

    __slots__ = ("_aead", "_explicit", "_iv", "_sequence", "_tag", "overhead", "record_limit")

    hides_type = False

    def __init__(self, cipher: Cipher, key: bytes, iv: bytes) -> None:
        construct, self.record_limit = _CIPHERS[cipher.name]
        self._aead = construct(key)
        self._explicit = cipher.explicit_nonce
        self._iv = int.from_bytes(iv + bytes(self._explicit), "big")
        self._sequence = 0
        self._tag = cipher.tag
        self.overhead = cipher.explicit_nonce + cipher.tag

    @property
    def exhausted(self) -> bool:
        return self._sequence >= self.record_limit

    def protect(self, content_type: int, fragment: bytes) -> bytes:
        sequence = self._sequence
        self._sequence = sequence + 1
        nonce = (self._iv ^ sequence).to_bytes(12, "big")
        aad = _AAD12(sequence, content_type, 0x0303, len(fragment))
        sealed = self._aead.encrypt(nonce, fragment, aad)
        header = _HEADER(content_type, 0x0303, len(fragment) + self.overhead)
        return header + nonce[12 - self._explicit :] + sealed if self._explicit else header + sealed

    def protect_run(self, data: memoryview, size: int) -> list[bytes]:
        """All of `data` as application_data records of `size` bytes each: headers and bodies in turn."""
        parts: list[bytes] = []
        encrypt, explicit = self._aead.encrypt, self._explicit
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            length, sequence = len(chunk), self._sequence
            self._sequence = sequence + 1
            nonce = (self._iv ^ sequence).to_bytes(12, "big")
            header = _HEADER(APPLICATION_DATA, 0x0303, length + self.overhead) + (nonce[4:] if explicit else b"")
            parts += header, encrypt(nonce, chunk, _AAD12(sequence, APPLICATION_DATA, 0x0303, length))
        return parts

    def _opening(self, content_type: int, body: memoryview) -> tuple[bytes, bytes, int]:
        """Nonce, additional data and plaintext length of the next record."""
        length = len(body) - self.overhead
        if length < 0:
            raise BadRecordMac("record is shorter than its tag")
        if length > MAX_PLAINTEXT:
            raise RecordOverflow(f"record of {length} plaintext bytes")
        sequence = self._sequence
        self._sequence = sequence + 1
        if self._explicit:
            nonce = (self._iv | int.from_bytes(body[: self._explicit], "big")).to_bytes(12, "big")
        else:
            nonce = (self._iv ^ sequence).to_bytes(12, "big")
        return nonce, _AAD12(sequence, content_type, 0x0303, length), length

    def unprotect(self, content_type: int, header: bytes, body: memoryview) -> tuple[int, bytes]:
        nonce, aad, _ = self._opening(content_type, body)
        try:
            return content_type, self._aead.decrypt(nonce, body[self._explicit :], aad)
        except InvalidTag:
            raise BadRecordMac("record does not authenticate") from None

    def unprotect_into(self, header: bytes, body: memoryview, out: memoryview) -> tuple[int, int]:
        nonce, aad, length = self._opening(header[0], body)
        try:
            self._aead.decrypt_into(nonce, body[self._explicit :], aad, out[:length])
        except InvalidTag:
            raise BadRecordMac("record does not authenticate") from None
        return header[0], length
