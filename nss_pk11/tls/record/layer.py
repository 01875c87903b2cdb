"""The record layer: bytes in, records out, and back (RFC 8446 section 5, RFC 5246 section 6.2).

It knows framing, limits and which protection is in force for each direction; it knows nothing of what records mean.
Protection objects (`aead`, `cbc`, `stream`, `token`) turn fragments into records and records into fragments.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ...errors import BadRecordMac, NotTLS, RecordOverflow, UnexpectedMessage
from ..codepoints import C, ContentType
from .aead import MAX_PLAINTEXT, Bytes

MAX_EMPTY_RECORDS = 16  # in a row; more is a peer that makes us work for nothing
HEADER = 5
SSL2 = 0x80  # in place of a content type, which SSL 2.0 does not have
FIRST_OF_SSL2 = (0, 1, 4)  # the messages that come first: error, ClientHello, ServerHello
RUN = 24_000  # bytes ready from which one buffer for a run of records pays

_TYPES = frozenset(ContentType)
_NOTHING = memoryview(b"")


class WriteProtection(Protocol):
    """Keys of the sending direction."""

    overhead: int

    @property
    def exhausted(self) -> bool: ...

    def protect(self, content_type: int, fragment: bytes) -> bytes: ...

    def protect_run(self, data: memoryview, size: int) -> list[bytes]: ...


class ReadProtection(Protocol):
    """Keys of the receiving direction."""

    hides_type: bool

    def unprotect(self, content_type: int, header: bytes, body: memoryview) -> tuple[int, bytes]: ...


@runtime_checkable
class RunReader(ReadProtection, Protocol):
    """Keys that can decrypt into a buffer of ours."""

    def unprotect_into(self, header: bytes, body: memoryview, out: memoryview) -> tuple[int, int]: ...


class RecordLayer:
    """Both directions of one connection.

    `receive_limit`, `send_limit`: largest plaintext fragment, bytes; `version`: what headers of plaintext records say;
    `skip_early_data`: bytes of undecryptable early data that may still be thrown away (RFC 8446 section 4.2.10);
    `hears_ssl2`: the first record may be one of SSL 2.0 (RFC 5246 appendix E.2).
    """

    __slots__ = (
        "_buffer", "_empty", "_out", "_position", "_rest", "_seen_any", "hears_ssl2", "ignore_change_cipher_spec", "read",
        "receive_limit", "send_limit", "skip_early_data", "version", "write",
    )  # fmt: skip

    def __init__(self) -> None:
        self._buffer: memoryview = _NOTHING
        self._position = 0
        self._rest: memoryview = _NOTHING  # what comes after `_buffer`
        self._empty = 0
        self._out: list[bytes] = []
        self._seen_any = False
        self.read: ReadProtection | None = None
        self.write: WriteProtection | None = None
        self.receive_limit = MAX_PLAINTEXT
        self.send_limit = MAX_PLAINTEXT
        self.version = 0x0301
        self.ignore_change_cipher_spec = False
        self.hears_ssl2 = False
        self.skip_early_data = 0

    # --- receiving ---------------------------------------------------------------------------------------------------

    def feed(self, data: Bytes) -> None:
        """Take bytes from the peer.  `data` is only borrowed until `settle`.

        Of bulk data only the record that straddles two reads is put together in a copy; the rest is read where it lies.
        """
        data = memoryview(data)
        if self._buffer:
            split = min(self._missing(data), len(data))
            self._buffer, self._rest = memoryview(bytes(self._buffer) + bytes(data[:split])), data[split:]
        else:
            self._buffer = data

    def _missing(self, data: memoryview) -> int:
        """How many bytes of `data` complete the record that `_buffer` begins; all, where it holds more than that."""
        begun = len(self._buffer)
        if not self._seen_any:  # it may be a record of SSL 2.0, with another header
            return len(data)
        header = bytes(self._buffer[:HEADER]) + bytes(data[: max(0, HEADER - begun)])
        if len(header) < HEADER:
            return len(data)
        missing = HEADER + (header[3] << 8 | header[4]) - begun
        return missing if missing > 0 else len(data)

    def settle(self) -> None:
        """Copy what is left over, so that the caller's buffer is free again."""
        left = bytes(self._buffer[self._position :]) + bytes(self._rest)
        self._buffer, self._rest, self._position = memoryview(left) if left else _NOTHING, _NOTHING, 0

    def take_rest(self) -> bytes:
        """What has been received and not been read, and forgets it."""
        self.settle()
        rest, self._buffer = bytes(self._buffer), _NOTHING
        return rest

    def _frame(self) -> tuple[int, bytes, memoryview] | None:
        """Content type, header and body of the next whole record, or None when bytes are missing."""
        if self._position == len(self._buffer):
            self._buffer, self._rest, self._position = self._rest, _NOTHING, 0
        buffer, start = self._buffer, self._position
        available = len(buffer) - start
        if available < HEADER:
            if available and not self._seen_any:
                self._check_start(buffer[start])
            return None
        header = bytes(buffer[start : start + HEADER])
        content_type, length = header[0], header[3] << 8 | header[4]
        if content_type not in _TYPES or header[1] != 3:
            if self.hears_ssl2 and not self._seen_any and content_type & 0x80:
                return self._ssl2_frame(header)
            self._refuse_header(header)
        # RFC 8446 section 5.2: 256 bytes of expansion; RFC 5246 section 6.2.3: 2048; plaintext: none.
        allowance = 0 if self.read is None else 256 if self.read.hides_type else 2048
        if length > MAX_PLAINTEXT + allowance:
            raise RecordOverflow(f"record of {length} bytes")
        end = start + HEADER + length
        if end > len(buffer):
            return None
        self._seen_any = True
        self._position = end
        return content_type, header, buffer[start + HEADER : end]

    def _ssl2_frame(self, header: bytes) -> tuple[int, bytes, memoryview] | None:
        """A record of SSL 2.0 with a header of two bytes, as all have that are not encrypted."""
        if header[2] not in FIRST_OF_SSL2:
            self._refuse_header(header)
        start, length = self._position + 2, (header[0] & 0x7F) << 8 | header[1]
        if start + length > len(self._buffer):
            return None
        self._seen_any = True
        self._position = start + length
        return SSL2, header, self._buffer[start : start + length]

    def _check_start(self, first: int) -> None:
        if first not in _TYPES and not (self.hears_ssl2 and first & 0x80):
            raise NotTLS(f"peer does not speak TLS: first byte is {first:#04x}")

    def _refuse_header(self, header: bytes) -> None:
        if not self._seen_any:
            what = "HTTP" if header[:4] in _HTTP_METHODS else f"something that starts with {header.hex(' ')}"
            raise NotTLS(f"peer does not speak TLS but {what}")
        raise UnexpectedMessage(f"record header {header.hex(' ')}", name="SSL_ERROR_RX_UNKNOWN_RECORD_TYPE")

    def next(self) -> tuple[int, bytes] | None:
        """The next record's content type and plaintext, or None when bytes are missing."""
        while True:
            frame = self._frame()
            if frame is None:
                return None
            content_type, header, body = frame
            if content_type == C.change_cipher_spec and self.ignore_change_cipher_spec:
                self._check_compatibility_change_cipher_spec(body)
                continue
            if self.skip_early_data and self._skips(content_type, len(body)):
                continue
            if self.read is None:
                fragment = bytes(body)
            else:
                try:
                    content_type, fragment = self.read.unprotect(content_type, header, body)
                except BadRecordMac:
                    if self._skip(len(body)):
                        continue
                    raise
                self.skip_early_data = 0
            if len(fragment) > self.receive_limit:
                raise RecordOverflow(f"record of {len(fragment)} plaintext bytes, the limit is {self.receive_limit}")
            self._count_empty(content_type, fragment)
            return content_type, fragment

    def _count_empty(self, content_type: int, fragment: bytes) -> None:
        """Only application data may be empty (RFC 8446 section 5.1), and not for ever."""
        if fragment:
            self._empty = 0
            return
        if content_type != C.application_data:
            raise UnexpectedMessage("empty record of a type that may not be empty", name="SSL_ERROR_RX_MALFORMED_HANDSHAKE")
        self._empty += 1
        if self._empty > MAX_EMPTY_RECORDS:
            raise UnexpectedMessage(f"{self._empty} empty records in a row", name="SSL_ERROR_TOO_MANY_RECORDS")

    def _check_compatibility_change_cipher_spec(self, body: memoryview) -> None:
        """TLS 1.3 drops a change_cipher_spec of one byte 1 until the handshake ends (RFC 8446 section 5), within reason."""
        if bytes(body) != b"\x01":
            raise UnexpectedMessage(
                "change_cipher_spec that is not the single byte 1", name="SSL_ERROR_RX_MALFORMED_CHANGE_CIPHER"
            )
        self._empty += 1
        if self._empty > MAX_EMPTY_RECORDS:
            raise UnexpectedMessage(f"{self._empty} records of no use in a row", name="SSL_ERROR_TOO_MANY_RECORDS")

    # --- early data that is refused (RFC 8446 section 4.2.10) ----------------------------------------------------------

    def _skips(self, content_type: int, length: int) -> bool:
        """After a HelloRetryRequest: application_data in the clear is early data, thrown away unread."""
        return self.read is None and content_type == C.application_data and self._skip(length)

    def _skip(self, length: int) -> bool:
        if not self.skip_early_data:
            return False
        self.skip_early_data -= length
        if self.skip_early_data < 0:
            raise UnexpectedMessage("more early data than any ticket allowed", name="SSL_ERROR_TOO_MUCH_EARLY_DATA")
        return True

    # --- application data in bulk ---------------------------------------------------------------------------------------

    def next_run(self) -> tuple[bytearray, tuple[int, bytes] | None] | None:
        """The plaintext of all whole records that lie ready, in one buffer, up to the first that is not application data;
        that one, if any, comes second.  None where there is too little for a run to pay: use `next`.

        Raises what `next` raises; a record that fails loses the run before it, as the connection is lost anyway.
        """
        read, ready = self.read, len(self._buffer) - self._position + len(self._rest)
        if ready < RUN or not isinstance(read, RunReader):
            return None
        out = bytearray(ready)
        view, filled, limit = memoryview(out), 0, self.receive_limit
        stray: tuple[int, bytes] | None = None
        while (frame := self._frame()) is not None:
            content_type, header, body = frame
            if content_type != C.application_data:
                stray = read.unprotect(content_type, header, body)
            else:
                inner_type, length = read.unprotect_into(header, body, view[filled:])
                if length > limit:
                    raise RecordOverflow(f"record of {length} plaintext bytes, the limit is {limit}")
                if inner_type == C.application_data:
                    self._empty = 0 if length else self._empty + 1
                    filled += length
                    if self._empty <= MAX_EMPTY_RECORDS:
                        continue
                stray = inner_type, bytes(view[filled : filled + length])
            self._count_empty(*stray)
            break
        view.release()
        del out[filled:]
        return out, stray

    # --- sending ---------------------------------------------------------------------------------------------------------

    def send(self, content_type: int, data: Bytes) -> None:
        """Queue `data` as one or more records."""
        limit, write, length = self.send_limit, self.write, len(data)
        if write is None:
            for start in range(0, length, limit):
                fragment = bytes(data[start : start + limit])
                self._out.append(
                    b"%c%b%b%b" % (content_type, self.version.to_bytes(2, "big"), len(fragment).to_bytes(2, "big"), fragment)
                )
        elif length > limit and content_type == C.application_data:
            self._out += write.protect_run(memoryview(data), limit)
        else:
            for start in range(0, length or 1, limit):
                self._out.append(write.protect(content_type, bytes(data[start : start + limit])))

    def send_ssl2(self, message: bytes) -> None:
        """Queue a message of SSL 2.0, in clear."""
        self._out.append((0x8000 | len(message)).to_bytes(2, "big") + message)

    def buffers_to_send(self) -> list[bytes]:
        """Everything queued, in order, and forgets it."""
        out = self._out
        if out:
            self._out = []
        return out

    def data_to_send(self) -> bytes:
        """The same in one piece."""
        out = self.buffers_to_send()
        return out[0] if len(out) == 1 else b"".join(out)


_HTTP_METHODS = (b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"CONN", b"DELE", b"PATC", b"PRI ")
