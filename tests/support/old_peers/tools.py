"""NSS's, GnuTLS's and OpenSSL's commands, each with its own idea of data, and tlslite-ng."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from typing import TYPE_CHECKING, ClassVar

from nss_pk11.net.blocking import TLSSocket
from nss_pk11.tls.codepoints import Version

from ..peers import gnutls, nss
from ..peers.base import HOST, TIMEOUT, Want
from ..peers.commanded import CONVERSATION, SHORT_CONVERSATION, answers
from ..peers.openssl import OpenSSLServer, s_client_command
from ..peers.tlslite_ng import OldTLSLiteServer, old_tlslite_client
from ..require import require
from .base import OLD_SUITES, Cell, Far, OldPeer, converse, dh_parameters, read_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..pki import Credential

_SAID = b"".join(CONVERSATION)
_ANSWERED = b"".join(answers(CONVERSATION))


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
        assert _ANSWERED in self.say(port, cell)

    def say(self, port: int, cell: Cell, *more: str, credential: Credential | None = None) -> bytes:
        """The client's part of the conversation, at once; what came of it."""
        version = self.VERSIONS[cell.version]
        request = self.directory / "nss-request"
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
        command += ["-d", f"sql:{nss.database(Want(ca=self.pki.ca_file, credential=credential), self.directory)}"]
        command += ["-n", credential.name] if credential else []
        said = run_tool([*command, "-V", f"{version}:{version}", "-c", f":{cell.suite.code:04X}", *more], b"")
        assert f"SSL version 3.{cell.version & 0xFF} ".encode() in said, said
        return said

    def twice(self, port: int, cell: Cell) -> bytes:
        """Two connections of strsclnt, which get a page each; what it says of its cache."""
        version, database = self.VERSIONS[cell.version], nss.database(Want(ca=self.pki.ca_file), self.directory)
        command: list[str | Path] = [require("strsclnt"), "-p", str(port), "-d", f"sql:{database}", "-a", "localhost", "-o"]
        return run_tool(
            [*command, "-c", "2", "-t", "1", "-V", f"{version}:{version}", "-C", f":{cell.suite.code:04X}", HOST], b""
        )

    @contextlib.contextmanager
    def server(self, cell: Cell) -> Iterator[Far]:
        yield self.far(cell)

    def far(self, cell: Cell, client_auth: str = "none") -> Far:
        want = Want(credential=self.pki.server(cell.kind), client_auth=client_auth, ca=self.pki.ca_file)
        return Far(self.lasting(want, lambda: Selfserv(want, self.directory)).port, self._get)

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
        command += ["-r", "-r"] if self.want.client_auth == "require" else []
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

    def client(self, port: int, cell: Cell) -> None:
        assert _ANSWERED in self.say(port, cell)

    def say(self, port: int, cell: Cell, *more: str, words: str = "", credential: Credential | None = None) -> bytes:
        """The client's part of the conversation, at once; what came of it.  `words`: more of the priority string."""
        suite = cell.suite
        exchange, cipher, mac = self.KEY_EXCHANGES[suite.key_exchange], self.CIPHERS[suite.cipher.name], self.MACS[suite.mac]
        priority = self.priority([self.VERSIONS[cell.version]], [exchange], [cipher], [mac]) + words
        command: list[str | Path] = [
            require("gnutls-cli"),
            "--port",
            str(port),
            "--x509cafile",
            self.pki.ca_file,
            "--priority",
            priority,
        ]
        command += ["--x509certfile", credential.chain_file, "--x509keyfile", credential.key_file] if credential else []
        said = run_tool([*command, *more, "localhost"], _SAID)
        assert f"(TLS1.{cell.version - 0x301}".encode() in said, said
        return said

    @contextlib.contextmanager
    def server(self, cell: Cell) -> Iterator[Far]:
        yield self.far(cell)

    def far(self, cell: Cell, client_auth: str = "none", words: str = "") -> Far:
        everything = [list(table.values()) for table in (self.VERSIONS, self.KEY_EXCHANGES, self.CIPHERS, self.MACS)]
        extra = ("--priority", self.priority(*everything) + words)
        want = Want(credential=self.pki.server(cell.kind), client_auth=client_auth, ca=self.pki.ca_file, extra=extra)
        return Far(self.lasting(want, lambda: OldGnuTLSServer(want)).port, self._echo)

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
        command: list[str | Path] = [require("gnutls-serv"), "--port", str(port), "--echo"]
        demand = ["--require-client-cert", "--verify-client-cert", "--x509cafile", str(self.want.ca)]
        command += ["--disable-client-cert"] if self.want.client_auth == "none" else demand
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

        extra = ("-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0", "-dhparam", str(dh_parameters(self.directory)))
        want = Want(credential=self.pki.server(cell.kind), extra=extra)
        yield Far(self.lasting(want, lambda: OpenSSLServer(want)).port, get)


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
