"""What the tests with old peers share: our server's part of the conversation, and what is kept of what passed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nss_pk11.net.connection import Connection
    from nss_pk11.tls.codepoints import Version


class Conversing:
    """The server's part of the conversation (`peers.commanded`): answers every line, and closes after the last."""

    busy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received = b""

    def data_received(self, data: bytes | bytearray) -> None:
        self._received += bytes(data)
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._connection.write(b"ECHO " + line + b"\n")
            if line == b"BYE":
                self._connection.finish()

    def produce(self) -> bool:
        return False

    def eof_received(self) -> None:
        self._connection.finish()


@dataclass
class Matrix:
    """What passed in this run: role, row, version -> letters of peers."""

    cells: dict[tuple[str, str, Version], set[str]] = field(default_factory=dict)

    def passed(self, role: str, row: str, version: Version, peer: str) -> None:
        self.cells.setdefault((role, row, version), set()).add(peer)
