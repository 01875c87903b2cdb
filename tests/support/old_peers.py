"""Foreign stacks that still speak SSL 3.0, TLS 1.0 and 1.1, each as client and as server: what they can and how they are driven.

A cell is a suite in a version.  Whoever connects or serves makes sure that data went both ways.  What a stack lacks is
written here with its reason and nowhere else; the matrix grows from it.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nss_pk11.net.blocking import TLSSocket
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.suites import EVERY_SUITE, Suite

from .peers import gnutls, jsse, nss, openssl_legacy
from .peers.base import HOST, TIMEOUT, ForeignServer, Want
from .peers.commanded import CONVERSATION, SHORT_CONVERSATION, Commanded, Connection, Serving, answers
from .peers.openssl import OpenSSLServer, s_client_command
from .peers.tlslite_ng import OldTLSLiteServer, old_tlslite_client
from .require import require

if TYPE_CHECKING:
    from pathlib import Path

    from .old_pki import OldPKI
    from .pki import Credential

OLD = (Version.ssl3, Version.tls1_0, Version.tls1_1, Version.tls1_2)
OLD_SUITES = tuple(suite for suite in EVERY_SUITE if suite.min_version < Version.tls1_2)
_SAID = b"".join(CONVERSATION)
_ANSWERED = b"".join(answers(CONVERSATION))

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


# --- stacks in a process that holds our own conversation -------------------------------------------------------------------


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


class Conversing(OldPeer):
    """A stack that `commanded` drives."""

    def start(self) -> Commanded:
        raise NotImplementedError

    def words(self, cell: Cell, role: str, credential: Credential | None) -> dict[str, Any]:
        """A request's, but for what is particular."""
        raise NotImplementedError

    @property
    def child(self) -> Commanded:
        if not hasattr(self, "_child"):
            self._child = self.stack.enter_context(self.start())
        return self._child

    def connections(self, port: int, cell: Cell, credential: Credential | None = None, **more: Any) -> list[Connection]:
        """As a client: "count" connections, each of which went well."""
        done = self.child.connect(port, **self.words(cell, "client", credential), **more)
        self.check(cell, done, more.get("count", 1))
        return done

    @contextlib.contextmanager
    def serving(self, cell: Cell, **more: Any) -> Iterator[Serving]:
        """As a server, of "count" connections, each of which went well."""
        with self.child.serve(**self.words(cell, "server", self.pki.server(cell.kind)), **more) as serving:
            yield serving
        self.check(cell, serving.connections, more.get("count", 1))

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


# --- tools, each with its own idea of data -----------------------------------------------------------------------------------


def run_tool(command: list[str | Path], request: bytes) -> bytes:
    """Run a client to its end, its input left open; what it wrote.  Raises AssertionError where it fails."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        with subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=output, stderr=errors) as child:
            assert child.stdin
            try:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(request)
                    child.stdin.flush()
                status = child.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                child.kill()
                status = None
        output.seek(0)
        errors.seek(0)
        said, wrong = output.read(), errors.read()
    assert status == 0, f"{command[0]}: {status}\n{said.decode(errors='replace')[:3000]}{wrong.decode(errors='replace')[:3000]}"
    return said + wrong


class NSS(OldPeer):
    """NSS's tstclnt and selfserv."""

    key, title = "N", "NSS"
    VERSIONS: ClassVar = {Version.ssl3: "ssl3", Version.tls1_0: "tls1.0", Version.tls1_1: "tls1.1", Version.tls1_2: "tls1.2"}

    @classmethod
    def connects(cls, cell: Cell) -> bool:
        return not cell.suite.fips and not cell.suite.export

    @classmethod
    def serves(cls, cell: Cell) -> bool:
        # In SSL 3.0 selfserv signs with DSA as nobody else does: r and s without DER.
        return cls.connects(cell) and not (cell.kind == "dsa" and cell.version is Version.ssl3)

    def client(self, port: int, cell: Cell) -> None:
        version = self.VERSIONS[cell.version]
        request = self.directory / "old-nss-request"
        request.write_bytes(_SAID)
        command: list[str | Path] = [
            require("tstclnt"),
            "-4",
            "-h",
            HOST,
            "-a",
            "localhost",
            "-p",
            str(port),
            "-A",
            request,
            "-v",
            "-C",
        ]
        database = nss.database(Want(ca=self.pki.ca_file), self.directory)
        said = run_tool([*command, "-d", f"sql:{database}", "-V", f"{version}:{version}", "-c", f":{cell.suite.code:04X}"], b"")
        assert f"SSL version 3.{cell.version & 0xFF} ".encode() in said, said
        assert _ANSWERED in said

    @contextlib.contextmanager
    def server(self, cell: Cell) -> Iterator[Far]:
        yield Far(self._server(cell.kind).port, self._get)

    def _server(self, kind: str) -> ForeignServer:
        if not hasattr(self, f"_server_{kind}"):
            server = self.stack.enter_context(Selfserv(Want(credential=self.pki.server(kind)), self.directory))
            setattr(self, f"_server_{kind}", server)
        found: ForeignServer = getattr(self, f"_server_{kind}")
        return found

    @staticmethod
    def _get(connection: TLSSocket) -> None:
        """selfserv shows a request's head in its answer."""
        head = b"GET / HTTP/1.0\r\nX-Long: " + b"x" * 5000 + b"\r\n\r\n"
        connection.sendall(head)
        answer = b""
        while part := connection.recv():
            answer += part
        assert answer.startswith(b"HTTP/1.0 200 OK")
        assert head.strip() in answer


class Selfserv(nss.NSSServer):
    """For any old version and suite."""

    def command(self, port: int) -> list[str | Path]:
        credential = self.want.credential
        assert credential
        codes = "".join(f":{suite.code:04X}" for suite in OLD_SUITES if NSS.connects(Cell(suite, Version.tls1_0)))
        command: list[str | Path] = [require("selfserv"), "-p", str(port), "-d", f"sql:{self._database}", "-v", "-c", codes]
        command += ["-S" if credential.kind == "dsa" else "-e" if credential.kind == "p256" else "-n", credential.name]
        return [*command, "-V", "ssl3:tls1.2", "-H", "1"]


class GnuTLS(OldPeer):
    """gnutls-cli, and gnutls-serv as an echo."""

    key, title = "G", "GnuTLS"
    VERSIONS: ClassVar = {Version.tls1_0: "VERS-TLS1.0", Version.tls1_1: "VERS-TLS1.1", Version.tls1_2: "VERS-TLS1.2"}
    KEY_EXCHANGES: ClassVar = {
        "rsa": "RSA",
        "dhe_rsa": "DHE-RSA",
        "dhe_dss": "DHE-DSS",
        "ecdhe_rsa": "ECDHE-RSA",
        "ecdhe_ecdsa": "ECDHE-ECDSA",
    }
    CIPHERS: ClassVar = {
        "AES-128-CBC": "AES-128-CBC",
        "AES-256-CBC": "AES-256-CBC",
        "3DES-EDE-CBC": "3DES-CBC",
        "RC4": "ARCFOUR-128",
        "NULL": "NULL",
    }
    MACS: ClassVar = {"md5": "MD5", "sha1": "SHA1"}

    @classmethod
    def connects(cls, cell: Cell) -> bool:
        suite = cell.suite
        return cell.version in cls.VERSIONS and suite.cipher.name in cls.CIPHERS and not suite.fips and not suite.export

    def priority(self, versions: list[str], exchanges: list[str], ciphers: list[str], macs: list[str]) -> str:
        words = [
            "NONE",
            *versions,
            *exchanges,
            *ciphers,
            *macs,
            "COMP-NULL",
            "SIGN-ALL",
            "SIGN-DSA-SHA1",
            "SIGN-DSA-SHA256",
            "GROUP-ALL",
        ]
        return ":+".join(words) + ":%VERIFY_ALLOW_BROKEN:%VERIFY_ALLOW_SIGN_WITH_SHA1"

    def client_command(self, port: int, cell: Cell, *words: str) -> list[str | Path]:
        suite = cell.suite
        exchange, cipher, mac = self.KEY_EXCHANGES[suite.key_exchange], self.CIPHERS[suite.cipher.name], self.MACS[suite.mac]
        priority = ":".join([self.priority([self.VERSIONS[cell.version]], [exchange], [cipher], [mac]), *words])
        return [require("gnutls-cli"), "--port", str(port), "--x509cafile", self.pki.ca_file, "--priority", priority, "localhost"]

    def client(self, port: int, cell: Cell) -> None:
        said = run_tool(self.client_command(port, cell), _SAID)
        assert _ANSWERED in said
        assert f"(TLS1.{cell.version - 0x301}".encode() in said, said

    @contextlib.contextmanager
    def server(self, cell: Cell) -> Iterator[Far]:
        yield Far(self._server(cell.kind).port, self._echo)

    def _server(self, kind: str) -> ForeignServer:
        if not hasattr(self, f"_server_{kind}"):
            everything = [list(table.values()) for table in (self.VERSIONS, self.KEY_EXCHANGES, self.CIPHERS, self.MACS)]
            server = OldGnuTLSServer(Want(credential=self.pki.server(kind), extra=("--priority", self.priority(*everything))))
            setattr(self, f"_server_{kind}", self.stack.enter_context(server))
        found: ForeignServer = getattr(self, f"_server_{kind}")
        return found

    @staticmethod
    def _echo(connection: TLSSocket) -> None:
        for line in CONVERSATION[:2]:
            connection.sendall(line)
            assert read_line(connection) == line


class OldGnuTLSServer(gnutls.GnuTLSEchoServer):
    """Its priority is all in `want.extra`."""

    def command(self, port: int) -> list[str | Path]:
        credential = self.want.credential
        assert credential
        command: list[str | Path] = [require("gnutls-serv"), "--port", str(port), "--echo", "--disable-client-cert"]
        return [*command, "--x509certfile", credential.chain_file, "--x509keyfile", credential.key_file, *self.want.extra]


class SystemOpenSSL(OldPeer):
    """The system's openssl command (3.0): TLS 1.0 and 1.1 with AES and without encryption."""

    key, title = "S", "OpenSSL 3"

    @classmethod
    def connects(cls, cell: Cell) -> bool:
        known = cell.suite.cipher.name in ("AES-128-CBC", "AES-256-CBC", "NULL")
        return known and cell.version > Version.ssl3

    def client(self, port: int, cell: Cell) -> None:
        want = Want(version=cell.version, suite=cell.suite, ca=self.pki.ca_file, extra=("-quiet", "-no_ticket"))
        assert _ANSWERED in run_tool(s_client_command(port, want), _SAID)

    @contextlib.contextmanager
    def server(self, cell: Cell) -> Iterator[Far]:
        def get(connection: TLSSocket) -> None:
            """The answer tells what was negotiated."""
            connection.sendall(b"GET / HTTP/1.0\r\nX-Long: " + b"x" * 5000 + b"\r\n\r\n")
            answer = b""
            while part := connection.recv():
                answer += part
            assert re.search(rb"Cipher is (\S+)", answer)[1].decode() == cell.suite.openssl  # type: ignore[index]
            assert re.search(rb"Protocol +: (\S+)", answer)[1].decode() == cell.version.label.removesuffix(".0")  # type: ignore[index]

        yield Far(self._server(cell.kind).port, get)

    def _server(self, kind: str) -> ForeignServer:
        if not hasattr(self, f"_server_{kind}"):
            extra = ("-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0", "-dhparam", str(dh_parameters(self.directory)))
            server = OpenSSLServer(Want(credential=self.pki.server(kind), extra=extra))
            setattr(self, f"_server_{kind}", self.stack.enter_context(server))
        found: ForeignServer = getattr(self, f"_server_{kind}")
        return found


class TLSLite(OldPeer):
    """tlslite-ng, in this process."""

    key, title = "T", "tlslite-ng"
    CIPHERS: ClassVar = {"AES-128-CBC": "aes128", "AES-256-CBC": "aes256", "3DES-EDE-CBC": "3des", "RC4": "rc4", "NULL": "null"}
    MACS: ClassVar = {"md5": "md5", "sha1": "sha"}

    @classmethod
    def connects(cls, cell: Cell) -> bool:
        suite = cell.suite
        return suite.cipher.name in cls.CIPHERS and suite.key_exchange == "rsa" and not suite.fips

    def _settings(self, cell: Cell) -> tuple[Version, str, str, str]:
        return cell.version, self.CIPHERS[cell.suite.cipher.name], self.MACS[cell.suite.mac], cell.suite.key_exchange

    def client(self, port: int, cell: Cell) -> None:
        version, code = old_tlslite_client(port, *self._settings(cell))
        assert (version, code) == (cell.version, cell.suite.code)

    @contextlib.contextmanager
    def server(self, cell: Cell) -> Iterator[Far]:
        with OldTLSLiteServer(self.pki.server(cell.kind), *self._settings(cell)) as server:
            yield Far(server.port, lambda connection: converse(connection, SHORT_CONVERSATION))
        assert server.negotiated == (cell.version, cell.suite.code), server.error


PEERS: tuple[type[OldPeer], ...] = (OpenSSL102, JSSE, NSS, GnuTLS, TLSLite, SystemOpenSSL)
