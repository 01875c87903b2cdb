"""Reader and Writer for the presentation language of RFC 8446 section 3: nested, length-checked.

A Reader raises DecodeError on anything short and, by `end()`, on anything left over.  Both are on the hot path, so they do
no more than slice and compare, each in as few calls as it can.
"""

from __future__ import annotations

import struct
from typing import NoReturn

from ..errors import DecodeError


class Reader:
    """Reads big-endian numbers and vectors off `data`.  True while bytes are left."""

    __slots__ = ("data", "limit", "position")

    def __init__(self, data: bytes, position: int = 0, limit: int | None = None) -> None:
        self.data, self.position = data, position
        self.limit = len(data) if limit is None else limit

    def __bool__(self) -> bool:
        return self.position < self.limit

    def _short(self, end: int) -> NoReturn:
        raise DecodeError(f"message is short of {end - self.limit} bytes")

    def _number(self, width: int) -> int:
        start = self.position
        end = start + width
        if end > self.limit:
            self._short(end)
        self.position = end
        return int.from_bytes(self.data[start:end], "big")

    def u8(self) -> int:
        start = self.position
        if start >= self.limit:
            self._short(start + 1)
        self.position = start + 1
        return self.data[start]

    def u16(self) -> int:
        start = self.position
        end = start + 2
        if end > self.limit:
            self._short(end)
        self.position = end
        return self.data[start] << 8 | self.data[start + 1]

    def u24(self) -> int:
        return self._number(3)

    def u32(self) -> int:
        return self._number(4)

    def u64(self) -> int:
        return self._number(8)

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        start = self.position
        end = start + count
        if end > self.limit:
            self._short(end)
        self.position = end
        return self.data[start:end]

    def rest(self) -> bytes:
        """Everything left."""
        return self.take(self.limit - self.position)

    def _span(self, width: int, least: int) -> int:
        """Step over a vector with a length field of `width` bytes; where its content starts.  It ends at `position`."""
        length = self._number(width)
        if length < least:
            raise DecodeError(f"vector of {length} bytes where at least {least} are required")
        start = self.position
        end = start + length
        if end > self.limit:
            self._short(end)
        self.position = end
        return start

    def vector(self, width: int, least: int = 0) -> bytes:
        """A vector with a length field of `width` bytes, at least `least` bytes long."""
        start = self._span(width, least)
        return self.data[start : self.position]

    def block(self, width: int, least: int = 0) -> Reader:
        """Like `vector`, as a Reader over the same buffer (no copy)."""
        return Reader(self.data, self._span(width, least), self.position)

    def u16_list(self, width: int) -> tuple[int, ...]:
        """A non-empty vector of 16-bit numbers."""
        start = self._span(width, 0)
        length = self.position - start
        if length < 2 or length % 2:
            raise DecodeError(f"list of 16-bit numbers is {length} bytes long")
        return struct.unpack_from(f">{length // 2}H", self.data, start)

    def end(self) -> None:
        """Raises DecodeError if bytes are left."""
        if self.position != self.limit:
            raise DecodeError(f"{self.limit - self.position} bytes follow the end of the message")


class Writer:
    """Builds a message; every method returns the Writer."""

    __slots__ = ("buffer",)

    def __init__(self) -> None:
        self.buffer = bytearray()

    def u8(self, value: int) -> Writer:
        self.buffer.append(value)
        return self

    def u16(self, value: int) -> Writer:
        self.buffer += value.to_bytes(2, "big")
        return self

    def u24(self, value: int) -> Writer:
        self.buffer += value.to_bytes(3, "big")
        return self

    def u32(self, value: int) -> Writer:
        self.buffer += value.to_bytes(4, "big")
        return self

    def u64(self, value: int) -> Writer:
        self.buffer += value.to_bytes(8, "big")
        return self

    def raw(self, data: bytes) -> Writer:
        self.buffer += data
        return self

    def vector(self, width: int, data: bytes) -> Writer:
        """`data` behind its length in `width` bytes.  Raises OverflowError if it does not fit."""
        self.buffer += len(data).to_bytes(width, "big")
        self.buffer += data
        return self

    def u16_list(self, width: int, values: tuple[int, ...]) -> Writer:
        return self.vector(width, struct.pack(f">{len(values)}H", *values))

    def block(self, width: int) -> _Block:
        """`with w.block(2):` what is written inside is preceded by its length in `width` bytes."""
        return _Block(self.buffer, width)

    def bytes(self) -> bytes:
        return bytes(self.buffer)


class _Block:
    """Leaves room for a length and fills it in at the end.  (A generator-based context manager costs four times as much.)"""

    __slots__ = ("_buffer", "_start", "_width")

    def __init__(self, buffer: bytearray, width: int) -> None:
        self._buffer, self._start, self._width = buffer, len(buffer), width

    def __enter__(self) -> None:
        self._buffer += bytes(self._width)

    def __exit__(self, *_: object) -> None:
        body = self._start + self._width
        self._buffer[self._start : body] = (len(self._buffer) - body).to_bytes(self._width, "big")
