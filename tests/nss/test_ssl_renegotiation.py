"""Later handshakes on SSL sockets: renegotiation, key updates, certificates after the handshake, step-up.

The other end is openssl, which renegotiates and updates keys on command, or Python's `ssl`.
"""

from __future__ import annotations

import ssl as python_ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import pk11pub, prio, ssl, sslproto
from nss_pk11.nss.prio import PRFileDesc
from tests.db.tools import Tools
from tests.support.peers.base import Process
from tests.support.require import require

from .ends import (
    HOST,
    TICKS,
    TLS1_2,
    TLS1_3,
    OurServer,
    PythonServer,
    client_context,
    connected,
    echo,
    listening,
    openssl_server,
    python_client,
    python_echo,
    read_all,
    serve,
    server_context,
)

pytestmark = pytest.mark.usefixtures("ready")


@contextmanager
def s_client(port: int, *arguments: str | Path) -> Iterator[Process]:
    """openssl s_client, which sends its standard input; a line "R" renegotiates, "K" updates keys."""
    command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", *arguments]
    with Process(command) as process:
        yield process


def told(fd: PRFileDesc) -> list[int]:
    """Counts the handshakes."""
    counts: list[int] = []
    ssl.SSL_HandshakeCallback(fd, lambda *_: counts.append(1), None)
    return counts


class TestServers:
    @pytest.mark.parametrize("flush", [True, False])
    def test_asking_the_client_again(self, flush: bool) -> None:
        listener = listening()

        def again(fd: PRFileDesc) -> object:
            counts = told(fd)
            data = prio.PR_Recv(fd, 100, 0, TICKS)
            first = ssl.SSL_GetSessionID(fd)
            ssl.SSL_ReHandshake(fd, flush)
            with pytest.raises(NSPRError, match="SSL_ERROR_HANDSHAKE_NOT_COMPLETED"):
                ssl.SSL_ReHandshake(fd, flush)
            ssl.SSL_ForceHandshake(fd)
            prio.PR_Write(fd, b"done\n")
            return data, len(counts), ssl.SSL_GetSessionID(fd) == first

        with OurServer(listener, again) as server, s_client(server.port, "-tls1_2") as client:
            client.write(b"hello\n")
            client.wait_for("^done$")
        assert server.results == [(b"hello\n", 2, server.results[0][2])]
        if flush:
            assert not server.results[0][2]
        prio.PR_Close(listener)

    def test_a_certificate_for_what_is_asked_now(self, files: Path) -> None:
        """The manual's example: a page that only who has a certificate may see."""
        listener = listening()

        def page(fd: PRFileDesc) -> object:
            prio.PR_Recv(fd, 100, 0, TICKS)
            before = ssl.SSL_PeerCertificate(fd)
            ssl.SSL_OptionSet(fd, ssl.SSL_REQUEST_CERTIFICATE, True)
            ssl.SSL_OptionSet(fd, ssl.SSL_REQUIRE_CERTIFICATE, ssl.SSL_REQUIRE_ALWAYS)
            ssl.SSL_RedoHandshake(fd)
            ssl.SSL_ForceHandshake(fd)
            after = ssl.SSL_PeerCertificate(fd)
            prio.PR_Write(fd, b"done\n")
            return before, after.subjectName if after else None

        credential = ("-cert", files / "client.pem", "-key", files / "client.pem")
        with OurServer(listener, page) as server, s_client(server.port, "-tls1_2", *credential) as client:
            client.write(b"hello\n")
            client.wait_for("^done$")
        assert server.results == [(None, "CN=client")]
        prio.PR_Close(listener)

    @pytest.mark.parametrize(
        ("require_certificate", "result"),
        [
            (ssl.SSL_REQUIRE_NEVER, b"done"),
            (ssl.SSL_REQUIRE_ALWAYS, "SSL_ERROR_NO_CERTIFICATE"),
            (ssl.SSL_REQUIRE_FIRST_HANDSHAKE, b"done"),
            (ssl.SSL_REQUIRE_NO_ERROR, b"done"),
        ],
    )
    def test_no_certificate_in_a_later_handshake(self, files: Path, require_certificate: int, result: object) -> None:
        """FIRST_HANDSHAKE requires one in the first alone."""
        listener = listening()

        def again(fd: PRFileDesc) -> object:
            prio.PR_Recv(fd, 100, 0, TICKS)
            ssl.SSL_OptionSet(fd, ssl.SSL_REQUEST_CERTIFICATE, True)
            ssl.SSL_OptionSet(fd, ssl.SSL_REQUIRE_CERTIFICATE, require_certificate)
            ssl.SSL_ReHandshake(fd, True)
            ssl.SSL_ForceHandshake(fd)
            prio.PR_Write(fd, b"done\n")
            return b"done"

        with OurServer(listener, again) as server, s_client(server.port, "-tls1_2") as client:
            client.write(b"hello\n")
            if result == b"done":
                client.wait_for("^done$")
            else:
                client.wait()
        assert server.results == [result]
        prio.PR_Close(listener)

    @pytest.mark.parametrize("require_certificate", [ssl.SSL_REQUIRE_ALWAYS, ssl.SSL_REQUIRE_FIRST_HANDSHAKE])
    def test_a_client_that_begins_again(self, files: Path, require_certificate: int) -> None:
        """It has shown its certificate, and does so again."""
        listener = listening()
        ssl.SSL_OptionSet(listener, ssl.SSL_ENABLE_RENEGOTIATION, ssl.SSL_RENEGOTIATE_UNRESTRICTED)
        ssl.SSL_OptionSet(listener, ssl.SSL_REQUEST_CERTIFICATE, True)
        ssl.SSL_OptionSet(listener, ssl.SSL_REQUIRE_CERTIFICATE, require_certificate)

        def ask(fd: PRFileDesc) -> object:
            counts = told(fd)
            prio.PR_Recv(fd, 100, 0, TICKS)
            prio.PR_Write(fd, b"ready\n")
            while len(counts) < 2:
                prio.PR_Recv(fd, 100, 0, TICKS)
            prio.PR_Write(fd, b"done\n")
            peer = ssl.SSL_PeerCertificate(fd)
            return peer.subjectName if peer else None

        credential = ("-cert", files / "client.pem", "-key", files / "client.pem")
        with OurServer(listener, ask) as server, s_client(server.port, "-tls1_2", *credential) as client:
            client.write(b"hello\n")
            client.wait_for("^ready$")
            client.write(b"R\n")
            client.wait_for("RENEGOTIATING")
            client.write(b"more\n")
            client.wait_for("^done$")
        assert server.results == ["CN=client"]
        prio.PR_Close(listener)

    def test_data_comes_first(self) -> None:
        """SSL_ForceHandshake returns when data has come that must be read before the handshake can go on."""
        listener = listening()

        def again(fd: PRFileDesc) -> object:
            counts = told(fd)
            prio.PR_Recv(fd, 1, 0, TICKS)
            rest = prio.PR_Recv(fd, 100, prio.PR_MSG_PEEK, TICKS)
            ssl.SSL_ReHandshake(fd, True)
            ssl.SSL_ForceHandshake(fd)
            assert len(counts) == 1
            assert prio.PR_Recv(fd, 100, 0, TICKS) == rest
            ssl.SSL_ForceHandshake(fd)
            prio.PR_Write(fd, b"done\n")
            return len(counts)

        with OurServer(listener, again) as server, s_client(server.port, "-tls1_2") as client:
            client.write(b"hello\n")
            client.wait_for("^done$")
        assert server.results == [2]
        prio.PR_Close(listener)

    def test_not_allowed(self, files: Path) -> None:
        listener = listening()
        ssl.SSL_OptionSet(listener, ssl.SSL_ENABLE_RENEGOTIATION, ssl.SSL_RENEGOTIATE_NEVER)

        def again(fd: PRFileDesc) -> object:
            echo(fd)
            with pytest.raises(NSPRError, match="SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"):
                ssl.SSL_ReHandshake(fd, True)
            return echo(fd)

        for version in (TLS1_2, TLS1_3):
            with OurServer(listener, again) as server, python_client(server.port, client_context(files, version)) as sock:
                for _ in range(2):
                    sock.sendall(b"x")
                    assert sock.recv(10) == b"x"
            assert server.results == [b"x"]
        prio.PR_Close(listener)


class TestClients:
    @pytest.mark.parametrize("flush", [True, False])
    def test_beginning_again(self, files: Path, flush: bool) -> None:
        with openssl_server(files, "-tls1_2", "-client_renegotiation", "-rev") as port:
            fd = connected(port)
            with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
                ssl.SSL_ReHandshake(fd, flush)
            counts = told(fd)
            ssl.SSL_ForceHandshake(fd)
            ssl.SSL_ReHandshake(fd, flush)
            ssl.SSL_ForceHandshake(fd)
            assert len(counts) == 2
            assert ssl.SSL_GetChannelInfo(fd).resumed != flush
            prio.PR_Write(fd, b"hello\n")
            assert prio.PR_Recv(fd, 100, 0, TICKS) == b"olleh\n"
            ssl.SSL_ReHandshakeWithTimeout(fd, flush, TICKS)
            prio.PR_Write(fd, b"again\n")
            assert prio.PR_Recv(fd, 100, 0, TICKS) == b"niaga\n"
            assert len(counts) == 3
            prio.PR_Close(fd)

    def test_a_server_that_does_not_want(self, files: Path) -> None:
        """no_renegotiation: the connection stays as it was."""
        with openssl_server(files, "-tls1_2", "-rev", "-no_renegotiation") as port:
            fd = connected(port)
            counts = told(fd)
            ssl.SSL_ForceHandshake(fd)
            ssl.SSL_RedoHandshake(fd)
            ssl.SSL_ForceHandshake(fd)
            assert len(counts) == 1
            prio.PR_Write(fd, b"hello\n")
            assert prio.PR_Recv(fd, 100, 0, TICKS) == b"olleh\n"
            prio.PR_Close(fd)

    def test_not_by_the_option(self, files: Path) -> None:
        with PythonServer(server_context(files, version=TLS1_2), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_RENEGOTIATION, ssl.SSL_RENEGOTIATE_NEVER)
            ssl.SSL_ForceHandshake(fd)
            with pytest.raises(NSPRError, match="SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"):
                ssl.SSL_ReHandshake(fd, True)
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)


class TestTLS13:
    def test_key_updates(self, files: Path) -> None:
        def talk(sock: python_ssl.SSLSocket) -> list[bytes]:
            said = []
            for _ in range(3):
                said.append(sock.recv(10))
                sock.sendall(said[-1])
            return said

        with PythonServer(server_context(files, version=TLS1_3), talk) as server:
            fd = connected(server.port)
            with pytest.raises(NSPRError, match="SSL_ERROR_HANDSHAKE_NOT_COMPLETED"):
                ssl.SSL_KeyUpdate(fd, True)
            for request in (None, False, True):
                if request is not None:
                    ssl.SSL_KeyUpdate(fd, request)
                prio.PR_Write(fd, b"x")
                assert prio.PR_Recv(fd, 10, 0, TICKS) == b"x"
            prio.PR_Close(fd)
        assert server.results == [[b"x"] * 3]

    def test_key_updates_before_tls13(self, files: Path) -> None:
        with PythonServer(server_context(files, version=TLS1_2), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_ForceHandshake(fd)
            for call in (lambda: ssl.SSL_KeyUpdate(fd, True), lambda: ssl.SSL_SendCertificateRequest(fd)):
                with pytest.raises(NSPRError, match="SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION"):
                    call()
            prio.PR_Close(fd)

    def test_a_certificate_after_the_handshake(self, files: Path) -> None:
        listener = listening()
        ssl.SSL_OptionSet(listener, ssl.SSL_ENABLE_POST_HANDSHAKE_AUTH, True)

        def page(fd: PRFileDesc) -> object:
            with pytest.raises(NSPRError, match="SSL_ERROR_HANDSHAKE_NOT_COMPLETED"):
                ssl.SSL_SendCertificateRequest(fd)
            prio.PR_Recv(fd, 100, 0, TICKS)
            before = ssl.SSL_PeerCertificate(fd)
            ssl.SSL_SendCertificateRequest(fd)
            ssl.SSL_ForceHandshake(fd)
            after = ssl.SSL_PeerCertificate(fd)
            prio.PR_Write(fd, b"done\n")
            return before, after.subjectName if after else None

        context = client_context(files, TLS1_3, "client")
        context.post_handshake_auth = True
        with OurServer(listener, page) as server, python_client(server.port, context) as sock:
            sock.sendall(b"hello")
            assert sock.recv(10) == b"done\n"
        assert server.results == [(None, "CN=client")]

        context = client_context(files, TLS1_3)
        with OurServer(listener, page) as server, python_client(server.port, context) as sock:
            sock.sendall(b"hello")
            assert sock.recv(10) == b""
        assert server.results == ["SSL_ERROR_MISSING_POST_HANDSHAKE_AUTH_EXTENSION"]
        prio.PR_Close(listener)

    def test_our_certificate_after_the_handshake(self, files: Path) -> None:
        context = server_context(files, version=TLS1_3)
        context.post_handshake_auth = True
        context.verify_mode = python_ssl.CERT_OPTIONAL
        context.load_verify_locations(files / "ca.pem")

        def ask(sock: python_ssl.SSLSocket) -> Any:
            sock.recv(10)
            before = sock.getpeercert()
            sock.verify_client_post_handshake()
            sock.sendall(b"asked")
            sock.recv(10)
            return before, sock.getpeercert()["subject"][0][0][1]  # type: ignore[index]

        with PythonServer(context, ask) as server:
            fd = connected(server.port)
            ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_POST_HANDSHAKE_AUTH, True)
            ssl.SSL_GetClientAuthDataHook(fd, ssl.NSS_GetClientAuthData, "client")
            prio.PR_Write(fd, b"x")
            assert prio.PR_Recv(fd, 10, 0, TICKS) == b"asked"
            prio.PR_Write(fd, b"y")
            prio.PR_Close(fd)
        assert server.results == [(None, "client")]


class TestStepUp:
    """A client under export policy, and a server whose certificate is approved for strong cryptography."""

    SERVER = ("-tls1_2", "-cipher", "AES256-SHA:AES128-SHA")

    def restrict(self) -> None:
        """Only these two: one always, one after step-up."""
        for code in ssl.SSL_ImplementedCiphers:
            ssl.SSL_CipherPolicySet(code, ssl.SSL_NOT_ALLOWED)
        ssl.SSL_CipherPolicySet(sslproto.TLS_RSA_WITH_AES_128_CBC_SHA, ssl.SSL_ALLOWED)
        ssl.SSL_CipherPrefSetDefault(sslproto.TLS_RSA_WITH_AES_128_CBC_SHA, True)
        ssl.SSL_CipherPolicySet(sslproto.TLS_RSA_WITH_AES_256_CBC_SHA, ssl.SSL_RESTRICTED)
        ssl.SSL_CipherPrefSetDefault(sslproto.TLS_RSA_WITH_AES_256_CBC_SHA, True)

    @pytest.mark.parametrize("approved", [True, False])
    def test_the_certificate_decides(self, step_up_files: Path, approved: bool) -> None:
        self.restrict()
        name = "approved" if approved else "server"
        with openssl_server(
            step_up_files,
            "-tls1_2",
            "-cipher",
            "AES256-SHA:AES128-SHA",
            "-serverpref",
            "-client_renegotiation",
            "-rev",
            name=name,
        ) as port:
            fd = connected(port)
            counts = told(fd)
            ssl.SSL_ForceHandshake(fd)
            prio.PR_Write(fd, b"hello\n")
            assert prio.PR_Recv(fd, 100, 0, TICKS) == b"olleh\n"
            status = ssl.SSL_SecurityStatus(fd)
            assert status.cipher == ("AES-256" if approved else "AES-128")
            assert len(counts) == (2 if approved else 1)
            prio.PR_Close(fd)

    def test_a_server_that_renegotiates_with_nobody(self, step_up_files: Path) -> None:
        self.restrict()
        with openssl_server(step_up_files, *self.SERVER, "-no_renegotiation", "-rev", name="approved") as port:
            fd = connected(port)
            prio.PR_Write(fd, b"hello\n")
            assert prio.PR_Recv(fd, 100, 0, TICKS) == b"olleh\n"
            assert ssl.SSL_SecurityStatus(fd).cipher == "AES-128"
            prio.PR_Close(fd)


@pytest.fixture(scope="module")
def step_up_files(material: Tools) -> Path:
    """approved.pem beside the others: a server's certificate with Netscape's extended key usage."""
    from .ends import write_pem

    home = material.directory.parent
    if not (home / "approved.pem").exists():
        material.issue(
            "approved", "-k", "rsa", "-g", "2048", "-8", HOST, "--extKeyUsage", "serverAuth,stepUp", issuer="ca", trust=",,"
        )
        write_pem(material, "approved", home)
    return home


def test_serving_again_after_a_change_of_certificate(files: Path) -> None:
    """SSL_ConfigSecureServer on a listening socket counts for connections from then on."""
    listener = listening("server")

    def subject(fd: PRFileDesc) -> str:
        echo(fd)
        own = ssl.SSL_LocalCertificate(fd)
        assert own is not None
        return own.nickname

    for nickname in ("server", "ec"):
        ssl.SSL_ConfigSecureServer(listener, None, None, ssl.kt_rsa)
        serve(listener, nickname)
        with OurServer(listener, subject) as server, python_client(server.port, client_context(files)) as sock:
            sock.sendall(b"x")
            assert sock.recv(10) == b"x"
        assert server.results == [nickname]
    assert pk11pub.PK11_FindCertFromNickname("ec").nickname == "ec"
    prio.PR_Close(listener)
