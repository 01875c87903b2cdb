"""What all old peers share: cells, and what is asked of a stack."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nss_pk11.net.blocking import TLSSocket
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.suites import EVERY_SUITE, Suite

from ..peers.base import ForeignServer, Want
from ..peers.commanded import CONVERSATION, answers
from ..require import require

if TYPE_CHECKING:
    from pathlib import Path

    from ..old_pki import OldPKI

OLD = (Version.ssl3, Version.tls1_0, Version.tls1_1, Version.tls1_2)
OLD_SUITES = tuple(suite for suite in EVERY_SUITE if suite.min_version < Version.tls1_2)

Talk = Callable[[TLSSocket], None]


@dataclass(frozen=True)
class Cell:
    """A suite in a version."""

    suite: Suite
    version: Version

    def __str__(self) -> str:
        return f"{self.suite.nss_name}-{self.version.label}"

    @property
    def kind(self) -> str:
        """Of the server's key."""
        return {"dhe_dss": "dsa", "ecdhe_ecdsa": "p256"}.get(self.suite.key_exchange, "rsa")

    @property
    def des(self) -> bool:
        return self.suite.cipher.name == "DES-CBC"


CELLS = tuple(Cell(s, v) for s in OLD_SUITES for v in OLD if s.min_version <= v <= s.max_version)


@dataclass(frozen=True)
class Far:
    """A foreign server that listens: what our client is to say to it once it is connected."""

    port: int
    talk: Talk


class OldPeer:
    """One stack.  Its processes start when first wanted and end with `close`."""

    key: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, pki: OldPKI, directory: Path) -> None:
        self.pki, self.directory = pki, directory
        self.stack = contextlib.ExitStack()
        self._servers: dict[Want, ForeignServer] = {}

    @classmethod
    def connects(cls, cell: Cell) -> bool:
        """Whether it can be the client."""
        raise NotImplementedError

    @classmethod
    def serves(cls, cell: Cell) -> bool:
        return cls.connects(cell)

    def client(self, port: int, cell: Cell) -> None:
        """Connect to us.  Raises AssertionError unless all went well."""
        raise NotImplementedError

    def server(self, cell: Cell) -> contextlib.AbstractContextManager[Far]:
        """Serve one connection of ours.  Raises AssertionError when left unless all went well."""
        raise NotImplementedError

    def lasting(self, want: Want, start: Callable[[], ForeignServer]) -> ForeignServer:
        """A server that many connections share, since it takes all versions and suites."""
        if want not in self._servers:
            self._servers[want] = self.stack.enter_context(start())
        return self._servers[want]

    def close(self) -> None:
        self.stack.close()


def dh_parameters(directory: Path) -> Path:
    """A PEM file with RFC 3526's group of 2048 bits: making another would take long."""
    file = directory / "dh2048.pem"
    if not file.exists():
        command = [
            require("openssl"),
            "genpkey",
            "-genparam",
            "-algorithm",
            "DH",
            "-pkeyopt",
            "group:modp_2048",
            "-out",
            str(file),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    return file


def read_line(connection: TLSSocket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv()
        assert part, f"closed after {len(line)} bytes"
        line += part
    return line


def converse(connection: TLSSocket, conversation: tuple[bytes, ...] = CONVERSATION) -> None:
    """The client's part of the conversation."""
    for line, answer in zip(conversation, answers(conversation), strict=True):
        connection.sendall(line)
        assert read_line(connection) == answer
