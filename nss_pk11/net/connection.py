"""One connection of the server loop, what speaks over it, and how long it may take.

Small on purpose: an idle connection is one of these, its engine and a socket.  The loop is `server`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket

    from ..errors import NSPRError
    from ..tls.engine import Engine
    from ..tls.events import ConnectionInfo
    from .dispatcher import Errand


class Application(Protocol):
    """What speaks over a connection.  The loop calls it; it calls the connection's `write` and `finish`."""

    @property
    def busy(self) -> bool:
        """Whether something has begun that a draining server should let end."""

    def data_received(self, data: bytes | bytearray) -> None: ...

    def eof_received(self) -> None:
        """The peer will send no more; it may still read."""

    def produce(self) -> bool:
        """All that was written is gone: write the next chunk, or return False if there is none for now."""


class Echo:
    """Sends back what it gets; says goodbye when the peer does."""

    __slots__ = ("_connection",)
    busy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def data_received(self, data: bytes | bytearray) -> None:
        self._connection.write(data)

    def eof_received(self) -> None:
        self._connection.finish()

    def produce(self) -> bool:
        return False


class Connection:
    """One connection.

    `started` is of `time.monotonic`; `handshake_seconds` is 0 until the handshake is complete; `error` is what ended it, if
    it did not end well; `used`: application data has come.  `mask`, `unsent`, `future`, `deadlines` are the loop's: what it
    is watched for (-1: not yet), output the kernel would not take, the key operation in a worker thread, the time it is under.
    """

    __slots__ = (
        "address", "application", "bytes_in", "bytes_out", "deadlines", "engine", "error", "finishing", "future",
        "handshake_seconds", "mask", "sock", "started", "unsent", "used",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, address: object, engine: Engine, started: float) -> None:
        self.sock, self.address, self.engine, self.started = sock, address, engine, started
        self.application: Application | None = None
        self.error: NSPRError | None = None
        self.finishing = self.used = False
        self.handshake_seconds = 0.0
        self.bytes_in = self.bytes_out = 0
        self.unsent: list[bytes | memoryview] | None = None
        self.mask = -1
        self.future: Errand | None = None
        self.deadlines: Deadlines | None = None

    @property
    def info(self) -> ConnectionInfo:
        return self.engine.info

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue application data; nothing after `finish`."""
        if not self.finishing and self.engine.error is None:
            self.engine.send(data)

    def finish(self) -> None:
        """Say goodbye and close, once everything written has gone out."""
        self.finishing = True


class Deadlines:
    """Connections that all have the same time, so the oldest is always first."""

    __slots__ = ("_since", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: OrderedDict[Connection, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def add(self, connection: Connection, now: float) -> None:
        """Start the connection's time, or start it again; it leaves the deadlines it was under."""
        other = connection.deadlines
        if other is self:
            self._since.move_to_end(connection)
        else:
            if other is not None:
                del other._since[connection]
            connection.deadlines = self
        self._since[connection] = now

    def drop(self, connection: Connection) -> None:
        del self._since[connection]
        connection.deadlines = None

    def expired(self, now: float) -> list[Connection]:
        late = now - self.seconds
        found = []
        for connection, since in self._since.items():
            if since > late:
                break
            found.append(connection)
        return found

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._since))
