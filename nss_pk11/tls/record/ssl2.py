"""Records of SSL 2.0 (Hickman, section 1.2), behind the interface of `layer`, whose place they take in mid-connection.

They have no types: what a record carries follows from how far the handshake is.  There are no alerts; what an error message
cannot say is not said, and a connection ends with the transport.
"""

from __future__ import annotations

import hashlib
from hmac import compare_digest

from ...errors import Alert, BadRecordMac
from ..ciphers import bulk
from ..codepoints import C
from ..messages.ssl2 import ErrorCode, encode_error
from ..suites import Suite
from .aead import Bytes
from .layer import SSL2, RecordLayer

MAC_BYTES = 16
SEND_LIMIT = 16352  # bytes of data: with its MAC whole blocks, and no more than a header of three bytes can tell

# What is wrong with a certificate can be said.
_ERRORS: dict[int, ErrorCode] = {
    Alert.bad_certificate: ErrorCode.bad_certificate,
    Alert.certificate_expired: ErrorCode.bad_certificate,
    Alert.certificate_revoked: ErrorCode.bad_certificate,
    Alert.certificate_unknown: ErrorCode.bad_certificate,
    Alert.unknown_ca: ErrorCode.bad_certificate,
    Alert.unsupported_certificate: ErrorCode.unsupported_certificate_type,
}


class Protection:
    """One direction: MD5 over key, data, padding and sequence number, and the cipher over that, data and padding."""

    __slots__ = ("_block", "_crypt", "_key")

    def __init__(self, suite: Suite, key: bytes, iv: bytes, *, writes: bool) -> None:
        cipher = suite.cipher
        self._key, self._block = key, cipher.block or 1
        self._crypt = (bulk.cbc(cipher, key, iv)[not writes] if cipher.block else bulk.stream(cipher, key)).update

    def _mac(self, sequence: int, content: bytes) -> bytes:
        return hashlib.md5(self._key + content + (sequence & 0xFFFFFFFF).to_bytes(4, "big")).digest()

    def protect(self, sequence: int, data: bytes) -> tuple[bytes, int]:
        """A record's body, and how much of it is padding."""
        padding = -len(data) % self._block  # a MAC is whole blocks
        content = data + bytes(padding)
        return self._crypt(self._mac(sequence, content) + content), padding

    def unprotect(self, sequence: int, body: bytes, padding: int) -> bytes:
        """Raises BadRecordMac, whatever is wrong."""
        if len(body) < MAC_BYTES + padding or len(body) % self._block:
            raise BadRecordMac("record does not authenticate")
        plaintext = self._crypt(body)
        content = plaintext[MAC_BYTES:]
        if not compare_digest(plaintext[:MAC_BYTES], self._mac(sequence, content)):
            raise BadRecordMac("record does not authenticate")
        return content[: len(content) - padding]


class Ssl2Records(RecordLayer):
    """Both directions of a connection, from the second message on.

    `before`: the layer that took the first; `sent`, `received`: records so far, in clear; `reader`, `writer`: None before there
    are keys; `application`: the handshake is over, and what records carry is data.
    """

    __slots__ = ("_received", "_sent", "application", "reader", "writer")

    def __init__(self, before: RecordLayer, *, sent: int, received: int) -> None:
        super().__init__()
        self._buffer = memoryview(before.take_rest())
        self._out = before.buffers_to_send()
        self._sent, self._received = sent, received
        self.reader: Protection | None = None
        self.writer: Protection | None = None
        self.application = False

    # --- receiving -------------------------------------------------------------------------------------------------------

    def feed(self, data: Bytes) -> None:
        """Take bytes from the peer."""
        self._buffer = memoryview(bytes(self._buffer[self._position :]) + bytes(data))
        self._position = 0

    def _body(self) -> tuple[bytes, int] | None:
        """The next record's body, and how much of it is padding."""
        rest = self._buffer[self._position :]
        size = 2 if rest and rest[0] & 0x80 else 3
        if len(rest) < size:
            return None
        length = (rest[0] & (0x7F if size == 2 else 0x3F)) << 8 | rest[1]
        if len(rest) < size + length:
            return None
        self._position += size + length
        return bytes(rest[size : size + length]), rest[2] if size == 3 else 0

    def next(self) -> tuple[int, bytes] | None:
        """The next record's data, as a message of SSL 2.0 or as application data."""
        while True:
            record = self._body()
            if record is None:
                return None
            body, padding = record
            if self.reader is not None:
                body = self.reader.unprotect(self._received, body, padding)
            elif padding:
                raise BadRecordMac("record in clear with padding")
            self._received += 1
            kind = C.application_data if self.application else SSL2
            self._count_empty(kind, body)
            return kind, body

    def next_run(self) -> None:
        """Nothing is read in runs."""

    # --- sending -----------------------------------------------------------------------------------------------------------

    def send(self, content_type: int, data: Bytes) -> None:
        """Queue application data; of alerts what an error message can say, while there may be one."""
        if content_type == C.alert:
            code = _ERRORS.get(data[1])
            if code is not None and not self.application:
                self.send_ssl2(encode_error(code))
            return
        for start in range(0, len(data), SEND_LIMIT):
            self.send_ssl2(bytes(data[start : start + SEND_LIMIT]))

    def send_ssl2(self, message: bytes) -> None:
        """Queue a record."""
        body, padding = (message, 0) if self.writer is None else self.writer.protect(self._sent, message)
        self._sent += 1
        mark, more = (0, bytes((padding,))) if padding else (0x8000, b"")
        self._out.append((mark | len(body)).to_bytes(2, "big") + more + body)
