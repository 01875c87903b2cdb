"""What SSL sockets call the application for: judging certificates, choosing one, being told.  The other end is Python's `ssl`."""

from __future__ import annotations

import ssl as python_ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import pk11pub, prerror, prio, ssl
from nss_pk11.nss._state import state
from nss_pk11.nss.prio import PRFileDesc
from nss_pk11.nss.types import CERTCertificate
from tests.db.tools import Tools

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
    server_context,
)

pytestmark = pytest.mark.usefixtures("ready")


def number(name: str) -> int:
    return NSPRError(name=name).errno


def alert_of(server: PythonServer) -> str:
    """What Python's server heard."""
    (result,) = server.results
    return str(result)


class TestAuthenticating:
    def test_a_server_that_is_known(self, files: Path) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)

    @pytest.mark.parametrize(
        ("certificate", "url", "error", "alert"),
        [
            ("server", "other.example", "SSL_ERROR_BAD_CERT_DOMAIN", "BAD_CERTIFICATE"),
            ("server", "", "SSL_ERROR_BAD_CERT_DOMAIN", "BAD_CERTIFICATE"),
            ("unknown", "unknown", "SEC_ERROR_UNKNOWN_ISSUER", "UNKNOWN_CA"),
        ],
    )
    def test_a_server_that_is_refused(self, files: Path, certificate: str, url: str, error: str, alert: str) -> None:
        with PythonServer(server_context(files, certificate), python_echo) as server:
            fd = connected(server.port, url)
            with pytest.raises(NSPRError, match=error):
                ssl.SSL_ForceHandshake(fd)
            assert prerror.PR_GetError() == number(error)
            with pytest.raises(NSPRError, match=error):
                prio.PR_Read(fd, 1)
            assert ssl.SSL_PeerCertificate(fd) is None
            prio.PR_Close(fd)
        assert alert in alert_of(server)

    def test_the_hook_sees_everything(self, files: Path) -> None:
        seen: list[Any] = []

        def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> int:
            peer = ssl.SSL_PeerCertificate(fd)
            assert peer is not None
            url, pin = ssl.SSL_RevealURL(fd), ssl.SSL_RevealPinArg(fd)
            version = ssl.SSL_GetPreliminaryChannelInfo(fd).protocolVersion
            seen.append((arg, checksig, isServer, peer.subjectName, url, pin, version, ssl.SSL_SecurityStatus(fd).on))
            return ssl.SECSuccess

        with PythonServer(server_context(files, "unknown"), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, judge, "argument")
            ssl.SSL_SetPKCS11PinArg(fd, "window")
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)
        assert seen == [("argument", True, False, "CN=unknown", HOST, "window", 0x0304, 0)]

    @pytest.mark.parametrize("answer", [ssl.SECFailure, False, True, 1, "yes"])
    def test_only_none_and_secsuccess_agree(self, files: Path, answer: object) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, lambda *_: answer, None)  # type: ignore[arg-type, return-value]
            with pytest.raises(NSPRError, match="SSL_ERROR_BAD_CERTIFICATE"):
                ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
        assert "BAD_CERTIFICATE" in alert_of(server)

    def test_a_hook_that_sets_the_error_as_in_c(self, files: Path) -> None:
        def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> int:
            prerror.PR_SetError(number("SEC_ERROR_REVOKED_CERTIFICATE"), 0)
            return ssl.SECFailure

        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, judge, None)
            with pytest.raises(NSPRError, match="SEC_ERROR_REVOKED_CERTIFICATE"):
                ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
        assert "CERTIFICATE_REVOKED" in alert_of(server)

    def test_a_hook_that_fails_is_no_agreement(self, files: Path) -> None:
        def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
            raise ZeroDivisionError

        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, judge, None)
            with pytest.raises(NSPRError, match="SEC_ERROR_LIBRARY_FAILURE") as caught:
                ssl.SSL_ForceHandshake(fd)
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
            prio.PR_Close(fd)
        assert "INTERNAL_ERROR" in alert_of(server)

    def test_a_hook_that_is_interrupted(self, files: Path) -> None:
        """Ctrl-C while it asks somebody: nobody will answer, so the handshake is over and does not wait for ever."""

        def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
            raise KeyboardInterrupt

        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, judge, None)
            with pytest.raises(KeyboardInterrupt):
                ssl.SSL_ForceHandshake(fd)
            with pytest.raises(NSPRError, match="SEC_ERROR_LIBRARY_FAILURE"):
                prio.PR_Recv(fd, 1, 0, TICKS)
            prio.PR_Close(fd)
        assert "INTERNAL_ERROR" in alert_of(server)

    def test_a_closed_socket_holds_no_certificate_that_a_hook_had(self, files: Path) -> None:
        def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
            cert = ssl.SSL_PeerCertificate(fd)
            raise NSPRError(f"{cert} is bad", name="SEC_ERROR_REVOKED_CERTIFICATE")

        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, judge, None)
            with suppress(NSPRError):
                ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
        assert not [item for item in state.held() if isinstance(item, CERTCertificate)]

    def test_agreeing_leaves_the_last_error(self, files: Path) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            prerror.PR_SetError(number("PR_LOOP_ERROR"), 0)
            ssl.SSL_ForceHandshake(fd)
            assert prerror.PR_GetError() == number("PR_LOOP_ERROR")
            prio.PR_Close(fd)


class TestBadCertificates:
    def test_accepted_all_the_same(self, files: Path) -> None:
        seen: list[object] = []

        def accept(arg: object, fd: PRFileDesc) -> int:
            seen.append((arg, prerror.PR_GetError(), ssl.SSL_PeerCertificate(fd) is not None))
            return ssl.SECSuccess

        with PythonServer(server_context(files, "unknown"), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_BadCertHook(fd, accept, "argument")
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            assert ssl.SSL_SecurityStatus(fd).subject == "CN=unknown"
            prio.PR_Close(fd)
        assert seen == [("argument", number("SEC_ERROR_UNKNOWN_ISSUER"), True)]

    def test_refused_again(self, files: Path) -> None:
        def refuse(arg: object, fd: PRFileDesc) -> int:
            return ssl.SECFailure

        with PythonServer(server_context(files, "unknown"), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_BadCertHook(fd, refuse, None)
            with pytest.raises(NSPRError, match="SEC_ERROR_UNKNOWN_ISSUER"):
                ssl.SSL_ForceHandshake(fd)
            assert ssl.SSL_PeerCertificate(fd) is None
            prio.PR_Close(fd)

    def test_not_asked_about_good_ones(self, files: Path) -> None:
        asked: list[object] = []
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_BadCertHook(fd, lambda *_: asked.append(1), None)  # type: ignore[func-returns-value]
            ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
        assert asked == []


class TestPuttingOff:
    """SECWouldBlock, and the answer later."""

    def paused(self, fd: PRFileDesc) -> None:
        for call in (lambda: ssl.SSL_ForceHandshake(fd), lambda: prio.PR_Read(fd, 1), lambda: prio.PR_Write(fd, b"x")):
            with pytest.raises(NSPRError, match="PR_WOULD_BLOCK_ERROR"):
                call()

    @pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
    def test_a_verdict(self, files: Path, version: python_ssl.TLSVersion) -> None:
        with PythonServer(server_context(files, "unknown", version), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, lambda *_: ssl.SECWouldBlock, None)
            with pytest.raises(NSPRError, match="PR_INVALID_STATE_ERROR"):
                ssl.SSL_AuthCertificateComplete(fd, 0)
            self.paused(fd)
            assert ssl.SSL_PeerCertificate(fd) is not None
            ssl.SSL_AuthCertificateComplete(fd, 0)
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)

    def test_a_refusal(self, files: Path) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, lambda *_: ssl.SECWouldBlock, None)
            self.paused(fd)
            ssl.SSL_AuthCertificateComplete(fd, number("SEC_ERROR_EXPIRED_CERTIFICATE"))
            with pytest.raises(NSPRError, match="SEC_ERROR_EXPIRED_CERTIFICATE"):
                ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
        assert "CERTIFICATE_EXPIRED" in alert_of(server)

    @pytest.mark.parametrize("outcome", [ssl.SECSuccess, ssl.SECFailure])
    def test_a_certificate_of_ours(self, files: Path, outcome: int) -> None:
        context = server_context(files)
        context.verify_mode = python_ssl.CERT_OPTIONAL
        context.load_verify_locations(files / "ca.pem")

        def peer(sock: python_ssl.SSLSocket) -> object:
            found = sock.getpeercert()
            python_echo(sock)
            return found

        with PythonServer(context, peer) as server:
            fd = connected(server.port)
            ssl.SSL_GetClientAuthDataHook(fd, lambda *_: ssl.SECWouldBlock, None)
            self.paused(fd)
            ours = pk11pub.PK11_FindCertFromNickname("client")
            ssl.SSL_ClientCertCallbackComplete(fd, outcome, pk11pub.PK11_FindKeyByAnyCert(ours), ours)
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)
        assert bool(server.results[0]) == (outcome == ssl.SECSuccess)


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
class TestClientCertificates:
    """Ours, shown to Python's server."""

    def server(self, files: Path, version: python_ssl.TLSVersion, mode: python_ssl.VerifyMode) -> python_ssl.SSLContext:
        context = server_context(files, version=version)
        context.verify_mode = mode
        context.load_verify_locations(files / "ca.pem")
        return context

    def shown(self, sock: python_ssl.SSLSocket) -> object:
        subject: Any = (sock.getpeercert() or {"subject": None})["subject"]
        python_echo(sock)
        return subject and subject[0][0][1]

    def talk(self, port: int, hook: Callable[..., Any] | None, argument: object = None) -> str | None:
        fd = connected(port)
        ssl.SSL_SetPKCS11PinArg(fd, "window")
        if hook is not None:
            ssl.SSL_GetClientAuthDataHook(fd, hook, argument)
        try:
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            own = ssl.SSL_LocalCertificate(fd)
            return own.nickname if own else None
        finally:
            prio.PR_Close(fd)

    def test_by_nickname(self, files: Path, version: python_ssl.TLSVersion) -> None:
        with PythonServer(self.server(files, version, python_ssl.CERT_REQUIRED), self.shown) as server:
            assert self.talk(server.port, ssl.NSS_GetClientAuthData, "client") == "client"
        assert server.results == ["client"]

    def test_whichever_fits(self, files: Path, version: python_ssl.TLSVersion) -> None:
        with PythonServer(self.server(files, version, python_ssl.CERT_REQUIRED), self.shown) as server:
            nickname = self.talk(server.port, ssl.NSS_GetClientAuthData, None)
        assert nickname in ("client", "server", "ec")
        assert server.results == [nickname]

    def test_a_hook_of_the_application(self, files: Path, version: python_ssl.TLSVersion, ready: Tools) -> None:
        seen: list[Any] = []

        def choose(arg: object, fd: PRFileDesc, caNames: list[bytes]) -> tuple[Any, Any]:
            seen.append((arg, ssl.SSL_RevealPinArg(fd), caNames))
            ours = pk11pub.PK11_FindCertFromNickname("ec")
            return ours, pk11pub.PK11_FindKeyByAnyCert(ours)

        with PythonServer(self.server(files, version, python_ssl.CERT_REQUIRED), self.shown) as server:
            assert self.talk(server.port, choose, "argument") == "ec"
        assert server.results == ["ec"]
        assert seen == [("argument", "window", [])]  # Python's server names no CAs

    def test_the_names_of_cas(self, files: Path, version: python_ssl.TLSVersion) -> None:
        seen: list[list[bytes]] = []

        def choose(arg: object, fd: PRFileDesc, caNames: list[bytes]) -> Any:
            seen.append(caNames)
            return ssl.NSS_GetClientAuthData(None, fd, caNames)

        flag = "-tls1_3" if version == TLS1_3 else "-tls1_2"
        with openssl_server(files, flag, "-Verify", "5", "-verify_return_error", "-www") as port:
            fd = connected(port)
            ssl.SSL_GetClientAuthDataHook(fd, choose, None)
            prio.PR_Write(fd, b"GET / HTTP/1.0\r\n\r\n")
            assert b" 200 " in read_all(fd)
            prio.PR_Close(fd)
        assert seen == [[pk11pub.PK11_FindCertFromNickname("ca").derSubject]]

    @pytest.mark.parametrize("why", ["no hook", "none", "failure", "error"])
    def test_none(self, files: Path, version: python_ssl.TLSVersion, why: str) -> None:
        def refuse(arg: object, fd: PRFileDesc, caNames: list[bytes]) -> object:
            if why == "error":
                raise NSPRError(name="SEC_ERROR_NO_KEY")
            return None if why == "none" else ssl.SECFailure

        with PythonServer(self.server(files, version, python_ssl.CERT_OPTIONAL), self.shown) as server:
            assert self.talk(server.port, None if why == "no hook" else refuse) is None
        assert server.results == [None]

    def test_none_where_one_is_required(self, files: Path, version: python_ssl.TLSVersion) -> None:
        with PythonServer(self.server(files, version, python_ssl.CERT_REQUIRED), self.shown) as server:
            with pytest.raises(NSPRError) as caught:
                self.talk(server.port, None)
            assert caught.value.name in ("SSL_ERROR_RX_CERTIFICATE_REQUIRED_ALERT", "SSL_ERROR_HANDSHAKE_FAILURE_ALERT")


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
class TestAskingClients:
    """SSL_REQUEST_CERTIFICATE and the values of SSL_REQUIRE_CERTIFICATE, with Python's client."""

    def listener(self, require: int | None) -> PRFileDesc:
        fd = listening()
        ssl.SSL_OptionSet(fd, ssl.SSL_REQUEST_CERTIFICATE, True)
        if require is not None:
            ssl.SSL_OptionSet(fd, ssl.SSL_REQUIRE_CERTIFICATE, require)
        return fd

    def who(self, fd: PRFileDesc) -> str | None:
        echo(fd)
        peer = ssl.SSL_PeerCertificate(fd)
        return peer.subjectName if peer else None

    def talk(self, port: int, context: python_ssl.SSLContext) -> None:
        with suppress(OSError), python_client(port, context) as sock:
            sock.sendall(b"x")
            sock.recv(10)

    @pytest.mark.parametrize("require", [None, *range(4)])
    def test_a_client_with_a_certificate(self, files: Path, version: python_ssl.TLSVersion, require: int | None) -> None:
        listener = self.listener(require)
        seen: list[object] = []

        def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
            seen.append(isServer)
            ssl.SSL_AuthCertificate(None, fd, checksig, isServer)

        ssl.SSL_AuthCertificateHook(listener, judge, None)
        with OurServer(listener, self.who) as server:
            self.talk(server.port, client_context(files, version, "client"))
        assert server.results == ["CN=client"]
        assert seen == [True]
        prio.PR_Close(listener)

    @pytest.mark.parametrize(
        ("require", "result"),
        [
            (ssl.SSL_REQUIRE_NEVER, None),
            (ssl.SSL_REQUIRE_ALWAYS, "SSL_ERROR_NO_CERTIFICATE"),
            (ssl.SSL_REQUIRE_FIRST_HANDSHAKE, "SSL_ERROR_NO_CERTIFICATE"),
            (ssl.SSL_REQUIRE_NO_ERROR, None),
        ],
    )
    def test_a_client_without(self, files: Path, version: python_ssl.TLSVersion, require: int, result: str | None) -> None:
        listener = self.listener(require)
        with OurServer(listener, self.who) as server:
            self.talk(server.port, client_context(files, version))
        assert server.results == [result]
        prio.PR_Close(listener)

    def test_a_stranger(self, files: Path, version: python_ssl.TLSVersion) -> None:
        listener = self.listener(None)
        with OurServer(listener, self.who) as server:
            self.talk(server.port, client_context(files, version, "unknown"))
        assert server.results == ["SEC_ERROR_UNKNOWN_ISSUER"]
        ssl.SSL_BadCertHook(listener, lambda *_: None, None)
        with OurServer(listener, self.who) as server:
            self.talk(server.port, client_context(files, version, "unknown"))
        assert server.results == ["CN=unknown"]
        prio.PR_Close(listener)

    def test_not_asked(self, files: Path, version: python_ssl.TLSVersion) -> None:
        listener = listening()
        with OurServer(listener, self.who) as server:
            self.talk(server.port, client_context(files, version, "client"))
        assert server.results == [None]
        prio.PR_Close(listener)


class TestBeingTold:
    def test_once_per_handshake(self, files: Path) -> None:
        told: list[object] = []
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_HandshakeCallback(fd, lambda descriptor, data: told.append((descriptor is fd, data)), 7)
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)
        assert told == [(True, 7)]

    def test_everything_is_known_by_then(self, files: Path) -> None:
        told: list[object] = []

        def tell(fd: PRFileDesc, data: object) -> None:
            told.append((ssl.SSL_SecurityStatus(fd).on, ssl.SSL_PeerCertificate(fd) is not None))

        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_HandshakeCallback(fd, tell, None)
            ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
        assert told == [(1, True)]

    def test_nobody_is_told_of_a_failure(self, files: Path) -> None:
        told: list[object] = []
        with PythonServer(server_context(files, "unknown"), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_HandshakeCallback(fd, lambda *_: told.append(1), None)
            with pytest.raises(NSPRError):
                ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
        assert told == []

    def test_without_security(self) -> None:
        fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
        ssl.SSL_OptionSet(fd, ssl.SSL_SECURITY, False)
        with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
            ssl.SSL_HandshakeCallback(fd, lambda *_: None, None)
        prio.PR_Close(fd)

    def test_an_error_of_the_callback_is_the_callers(self, files: Path) -> None:
        def tell(fd: PRFileDesc, data: object) -> None:
            raise ZeroDivisionError

        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_HandshakeCallback(fd, tell, None)
            with pytest.raises(ZeroDivisionError):
                ssl.SSL_ForceHandshake(fd)
            prio.PR_Send(fd, b"x", 0, TICKS)  # the connection is sound
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)
