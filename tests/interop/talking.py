"""What the tests with old peers share: our server's part of the conversation, and what is kept of what passed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from nss_pk11.tls.codepoints import SignatureScheme, Version

from ..support.old_peers import OLD_SUITES, read_line
from ..support.peers.commanded import CONVERSATION, answers

if TYPE_CHECKING:
    from nss_pk11.net.blocking import TLSSocket
    from nss_pk11.net.connection import Connection


# Settings of ours: all that is old.
EVERYTHING: dict[str, Any] = {
    "min_version": Version.ssl3,
    "max_version": Version.tls1_2,
    "suites": OLD_SUITES,
    "schemes": tuple(SignatureScheme),
}


class Answering:
    """The server's part of the conversation (`peers.commanded`): answers every line, and closes after the last."""

    busy = False
    renegotiates_at = 0  # the line at which this server begins another handshake, before it answers

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unread = b""
        self._lines: list[bytes] = []
        self._count = 0
        self._first = connection.info

    def data_received(self, data: bytes | bytearray) -> None:
        *lines, self._unread = (self._unread + bytes(data)).split(b"\n")
        for line in lines:
            self._lines.append(line)
            self._count += 1
            if self._count == self.renegotiates_at:
                self._first = self._connection.info
                self._connection.engine.renegotiate()

    def produce(self) -> bool:
        if not self._lines or self._connection.engine.handshaking:
            return False
        line = self._lines.pop(0)
        self._connection.write(b"ECHO " + line + b"\n")
        if line == b"BYE":
            self._connection.finish()
            self.ended(self._connection.info is not self._first)
        return True

    def ended(self, renegotiated: bool) -> None:
        """The last line has been answered."""

    def eof_received(self) -> None:
        self._connection.finish()


class Renegotiating(Answering):
    """Begins another handshake before it answers the second line; `done` tells, for each connection, that it came to its end."""

    renegotiates_at = 2
    done: ClassVar[list[bool]] = []

    def ended(self, renegotiated: bool) -> None:
        self.done.append(renegotiated)


def renegotiate_and_converse(connection: TLSSocket) -> None:
    """The client's part, with another handshake between the first line and the second."""
    for number, (line, answer) in enumerate(zip(CONVERSATION, answers(CONVERSATION), strict=True)):
        if number == 1:
            first = connection.info
            connection.renegotiate()
            assert connection.info is not first
        connection.sendall(line)
        assert read_line(connection) == answer


@dataclass
class Matrix:
    """What passed in this run: role, row, version -> letters of peers."""

    cells: dict[tuple[str, str, Version], set[str]] = field(default_factory=dict)

    def passed(self, role: str, row: str, version: Version, peer: str) -> None:
        self.cells.setdefault((role, row, version), set()).add(peer)
