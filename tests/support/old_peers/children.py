"""OpenSSL 1.0.2 and JSSE: child processes that hold the tests' own conversation, as `peers.commanded` tells them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

from nss_pk11.tls.codepoints import Version

from ..peers import jsse, openssl_legacy
from .base import Cell, Far, OldPeer, converse, dh_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..peers.commanded import Commanded, Connection, Serving
    from ..pki import Credential


class Conversing(OldPeer):
    """A stack that `commanded` drives."""

    def start(self) -> Commanded:
        raise NotImplementedError

    def words(self, cell: Cell, role: str, credential: Credential | None) -> dict[str, Any]:
        """A request's, but for what is particular."""
        raise NotImplementedError

    _child: Commanded | None = None

    @property
    def child(self) -> Commanded:
        """The process; another where the last has ended, so that one failure does not become a hundred."""
        if self._child is None or not self._child.running:
            self._child = self.stack.enter_context(self.start())
        return self._child

    def connections(self, port: int, cell: Cell, credential: Credential | None = None, **more: Any) -> list[Connection]:
        """As a client: "count" connections, each of which went well."""
        done = self.try_to_connect(port, cell, credential, **more)
        self.check(cell, done, more.get("count", 1))
        return done

    def try_to_connect(self, port: int, cell: Cell, credential: Credential | None = None, **more: Any) -> list[Connection]:
        """As a client, whatever comes of it."""
        return self.child.connect(port, **self.words(cell, "client", credential), **more)

    @contextlib.contextmanager
    def serving(self, cell: Cell, **more: Any) -> Iterator[Serving]:
        """As a server, of "count" connections, each of which went well."""
        with self.trying_to_serve(cell, **more) as serving:
            yield serving
        self.check(cell, serving.connections, more.get("count", 1))

    def trying_to_serve(self, cell: Cell, kind: str = "", **more: Any) -> contextlib.AbstractContextManager[Serving]:
        """As a server, whatever comes of it.  `kind` of key, if not the suite's."""
        return self.child.serve(**self.words(cell, "server", self.pki.server(kind or cell.kind)), **more)

    @staticmethod
    def check(cell: Cell, connections: list[Connection], count: int) -> None:
        for connection in connections:
            assert connection.ok, connection
            assert (connection.version, connection.suite) == (cell.version.label.removesuffix(".0"), cell.suite.code)
        assert len(connections) == count

    def client(self, port: int, cell: Cell) -> None:
        self.connections(port, cell)

    @contextlib.contextmanager
    def server(self, cell: Cell) -> Iterator[Far]:
        with self.serving(cell) as serving:
            yield Far(serving.port, converse)


class OpenSSL102(Conversing):
    """OpenSSL 1.0.2e, with rows added to its table for the suites it lacks (`peers.openssl_legacy.surgery`)."""

    key, title = "O", "OpenSSL 1.0.2"
    PROTOCOLS: ClassVar = {Version.ssl3: "ssl3", Version.tls1_0: "tls1", Version.tls1_1: "tls1_1", Version.tls1_2: "tls1_2"}

    @classmethod
    def connects(cls, cell: Cell) -> bool:
        return True

    def start(self) -> Commanded:
        return openssl_legacy.start()

    def words(self, cell: Cell, role: str, credential: Credential | None) -> dict[str, Any]:
        words: dict[str, Any] = {
            "protocol": self.PROTOCOLS[cell.version],
            "suites": f"{cell.suite.code:04X}",
            "ca": self.pki.ca_file,
        }
        if cell.suite.fips and cell.version is Version.ssl3:
            words["tls_prf"] = True
        if credential:
            words |= {"certificate": credential.chain_file, "key": credential.key_file}
        return words | ({"verify": True} if role == "client" else {"dh": dh_parameters(self.directory)})


class JSSE(Conversing):
    """Java 17.  `properties`: see `peers.jsse`."""

    key, title = "J", "JSSE"
    properties: tuple[str, ...] = ()

    @classmethod
    def connects(cls, cell: Cell) -> bool:
        suite = cell.suite
        if suite.fips or suite.rsa_limit == 1024 or suite.cipher.name == "RC2-CBC-40":
            return False
        if suite.key_exchange == "dhe_dss" and suite.cipher.kind == "stream":
            return False
        return not (cell.des and cell.version == Version.tls1_2)  # as RFC 5246 says

    def start(self) -> Commanded:
        return jsse.start(*self.properties)

    def words(self, cell: Cell, role: str, credential: Credential | None) -> dict[str, Any]:
        words: dict[str, Any] = {"protocols": jsse.PROTOCOLS[cell.version], "suites": cell.suite.nss_name, "ca": self.pki.ca_file}
        if credential:
            words |= {"identity": credential.p12_file, "password": jsse.P12_PASSWORD}
        return words
