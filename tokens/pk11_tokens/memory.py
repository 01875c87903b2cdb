"""The memory of the calling host, which the shim reads and writes for us (it has no address of ours, we have only its).

One `Memory` a connection, so one a thread of the host.  Reading costs a round trip; writing is kept and goes out with the
next read or with the return value, in one send.  Knows sockets and layouts, no token and no session.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_WAITALL, socket
from struct import Struct

from .abi import ATTRIBUTE, CKR, MECHANISM, ULONG, Refused

# What the shim understands: three words, and behind a WRITE its bytes.
ORDER = Struct("@3Q")
RETURN, READ, WRITE = 0, 1, 2

# Longer than anything a host may ask of a token here; a length that was never set must not take all of our memory.
LIMIT = 1 << 26
MOST_PLACES = 1000  # in one round trip: all orders fit into a socket, so that host and server never both wait to send


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A CK_MECHANISM: its type, a copy of its parameter, and where that lies in the host (for a parameter with pointers)."""

    type: int
    parameter: bytes
    pointer: int
    length: int


class Memory:
    """Reads and writes the host at the other end of `connection`.  A host that has gone: ConnectionError."""

    def __init__(self, connection: socket) -> None:
        self._connection = connection
        self._waiting = b""  # writes that have not gone out yet
        self._expected: dict[tuple[int, int], bytes] = {}  # read ahead, during one call

    def expect(self, places: Sequence[tuple[int, int]]) -> None:
        """Read ahead what the call is going to read, each (address, length), in one round trip."""
        wanted = [(address, length) for address, length in places if address and 0 < length <= LIMIT]
        self._expected = dict(zip(wanted, self.read_all(wanted), strict=True))

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at `address`; one round trip.  Raises Refused(CKR_ARGUMENTS_BAD) for NULL or an absurd length."""
        if not length:
            return b""
        expected = self._expected.get((address, length))
        if expected is not None:
            return expected
        if not address or length > LIMIT:
            raise Refused(CKR.ARGUMENTS_BAD)
        self._connection.sendall(self._waiting + ORDER.pack(READ, address, length), MSG_NOSIGNAL)
        self._waiting = b""
        return receive(self._connection, length)

    def read_all(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes at each (address, length), in one round trip.  Raises as `read`."""
        if len(places) > MOST_PLACES or any(length > LIMIT or (length and not address) for address, length in places):
            raise Refused(CKR.ARGUMENTS_BAD)
        orders = b"".join(ORDER.pack(READ, address, length) for address, length in places if length)
        if orders:
            self._connection.sendall(self._waiting + orders, MSG_NOSIGNAL)
            self._waiting = b""
        return [receive(self._connection, length) if length else b"" for _, length in places]

    def write(self, address: int, data: bytes) -> None:
        """Puts `data` at `address`; the host has it when the call returns.  Raises Refused(CKR_ARGUMENTS_BAD) for NULL."""
        if not address:
            raise Refused(CKR.ARGUMENTS_BAD)
        self._expected.pop((address, len(data)), None)
        if data:
            self._waiting += ORDER.pack(WRITE, address, len(data)) + data

    def ulong(self, address: int) -> int:
        """The CK_ULONG at `address`."""
        value: int = ULONG.unpack(self.read(address, ULONG.size))[0]
        return value

    def set_ulong(self, address: int, value: int) -> None:
        """Puts `value` at `address` as a CK_ULONG."""
        self.write(address, ULONG.pack(value))

    def output(self, pointer: int, length_pointer: int, data: bytes) -> None:
        """Gives `data` as section 5.2 says: NULL asks for the length; a room too small: Refused(CKR_BUFFER_TOO_SMALL)."""
        if not pointer:
            self.set_ulong(length_pointer, len(data))
            return
        room = self.ulong(length_pointer)
        self.set_ulong(length_pointer, len(data))
        if room < len(data):
            raise Refused(CKR.BUFFER_TOO_SMALL)
        self.write(pointer, data)

    def template(self, pointer: int, count: int) -> list[tuple[int, bytes]]:
        """An array of `count` CK_ATTRIBUTE: (type, value) each; a pValue of NULL is b""."""
        rows = self.attributes(pointer, count)
        values = self.read_all([(value, length if value else 0) for _, value, length in rows])
        return [(kind, value) for (kind, _, _), value in zip(rows, values, strict=True)]

    def attributes(self, pointer: int, count: int) -> list[tuple[int, int, int]]:
        """An array of `count` CK_ATTRIBUTE as it lies there: (type, pValue, ulValueLen) each."""
        return list(ATTRIBUTE.iter_unpack(self.read(pointer, count * ATTRIBUTE.size)))

    def mechanism(self, pointer: int) -> Mechanism:
        """The CK_MECHANISM at `pointer`, with a copy of its parameter."""
        kind, parameter, length = MECHANISM.unpack(self.read(pointer, MECHANISM.size))
        return Mechanism(kind, self.read(parameter, length) if parameter else b"", parameter, length)

    def check_host(self) -> None:
        """Raises ConnectionError when the host has gone, which a function that waits for something else would not notice."""
        with suppress(BlockingIOError):
            if not self._connection.recv(1, MSG_PEEK | MSG_DONTWAIT):
                raise ConnectionError("the host has gone")

    def reply(self, rv: int) -> None:
        """Ends the call: what was written and the return value, in one send."""
        self._connection.sendall(self._waiting + ORDER.pack(RETURN, rv, 0), MSG_NOSIGNAL)
        self._waiting = b""
        self._expected = {}


def receive(connection: socket, length: int) -> bytes:
    """Exactly `length` bytes.  Raises ConnectionError when the other end goes before they have come."""
    data = connection.recv(length, MSG_WAITALL)
    while len(data) < length:  # a signal may cut MSG_WAITALL short
        more = connection.recv(length - len(data), MSG_WAITALL)
        if not more:
            raise ConnectionError("the host has gone")
        data += more
    return data
