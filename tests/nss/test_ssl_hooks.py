"""Callbacks that do what they should not, or what C lets them do.  The other end is Python's `ssl`."""

from __future__ import annotations

import ssl as python_ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import pk11pub, prio, ssl
from nss_pk11.nss.prio import PRFileDesc

from .ends import TICKS, TIMEOUT, TLS1_2, TLS1_3, PythonServer, arrived, by_hand, connected, python_echo, read_all, server_context

pytestmark = pytest.mark.usefixtures("ready")
VERSIONS = pytest.mark.parametrize("version", [TLS1_2, TLS1_3])


def asking(files: Path, version: python_ssl.TLSVersion = TLS1_3) -> python_ssl.SSLContext:
    """Of a server that asks for a certificate, and does without."""
    context = server_context(files, version=version)
    context.verify_mode = python_ssl.CERT_OPTIONAL
    context.load_verify_locations(files / "ca.pem")
    return context


def who(sock: python_ssl.SSLSocket) -> object:
    found = sock.getpeercert()
    python_echo(sock)
    return found or None


def paused(fd: PRFileDesc) -> None:
    with pytest.raises(NSPRError, match="PR_WOULD_BLOCK_ERROR"):
        ssl.SSL_ForceHandshake(fd)


class TestAnsweringLater:
    def test_an_error_of_the_applications_own(self, files: Path) -> None:
        """A number that NSS does not know refuses as any other."""
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, lambda *_: ssl.SECWouldBlock, None)
            paused(fd)
            ssl.SSL_AuthCertificateComplete(fd, 12345)
            for _ in range(2):
                with pytest.raises(NSPRError, match="SSL_ERROR_BAD_CERTIFICATE"):
                    prio.PR_Recv(fd, 1, 0, TICKS)
            prio.PR_Close(fd)
        assert "BAD_CERTIFICATE" in str(server.results[0])

    def test_what_is_no_key(self, files: Path) -> None:
        with PythonServer(asking(files), who) as server:
            fd = connected(server.port)
            ssl.SSL_GetClientAuthDataHook(fd, lambda *_: ssl.SECWouldBlock, None)
            paused(fd)
            ours = pk11pub.PK11_FindCertFromNickname("client")
            ssl.SSL_ClientCertCallbackComplete(fd, ssl.SECSuccess, "a key", ours)  # type: ignore[arg-type]
            with pytest.raises(NSPRError, match="SEC_ERROR_LIBRARY_FAILURE"):
                prio.PR_Recv(fd, 1, 0, TICKS)
            prio.PR_Close(fd)


@VERSIONS
@pytest.mark.parametrize("missing", ["certificate", "key", "both"])
def test_half_an_identity_is_none(files: Path, version: python_ssl.TLSVersion, missing: str) -> None:
    """As in C, where SECSuccess with a NULL sends no certificate (ssl3_CompleteHandleCertificateRequest)."""

    def choose(arg: object, fd: PRFileDesc, caNames: list[bytes]) -> Any:
        cert = pk11pub.PK11_FindCertFromNickname("client")
        key = pk11pub.PK11_FindKeyByAnyCert(cert)
        return (cert if missing == "key" else None, key if missing == "certificate" else None)

    with PythonServer(asking(files, version), who) as server:
        fd = connected(server.port)
        ssl.SSL_GetClientAuthDataHook(fd, choose, None)
        prio.PR_Write(fd, b"x")
        assert read_all(fd) == b"x"
        assert ssl.SSL_LocalCertificate(fd) is None
        prio.PR_Close(fd)
    assert server.results == [None]


@pytest.mark.parametrize(
    "ask",
    [
        ssl.SSL_PeerCertificate,
        ssl.SSL_PeerCertificateChain,
        ssl.SSL_LocalCertificate,
        ssl.SSL_SecurityStatus,
        ssl.SSL_GetChannelInfo,
        ssl.SSL_GetPreliminaryChannelInfo,
        ssl.SSL_RevealURL,
        ssl.SSL_RevealPinArg,
    ],
)
def test_a_hook_may_wait_for_another_thread_that_asks(files: Path, ask: Callable[[PRFileDesc], object]) -> None:
    """Such as the one that shows the certificate to somebody.  In NSS these take no lock."""
    answered = threading.Event()

    def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
        other = threading.Thread(target=lambda: (ask(fd), answered.set()))
        other.start()
        answered.wait(TIMEOUT / 4)  # else the other thread waits until this one gives up
        others.append(other)

    others: list[threading.Thread] = []
    with PythonServer(server_context(files), python_echo) as server:
        fd = connected(server.port)
        ssl.SSL_AuthCertificateHook(fd, judge, None)
        ssl.SSL_ForceHandshake(fd)
        waited = not answered.is_set()
        for other in others:
            other.join(TIMEOUT)
        prio.PR_Close(fd)
    assert not waited


class TestChangingTheSocket:
    def test_resetting(self, files: Path) -> None:
        """The handshake waits for this very hook."""

        def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
            with pytest.raises(NSPRError, match="PR_INVALID_STATE_ERROR"):
                ssl.SSL_ResetHandshake(fd, False)

        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, judge, None)
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)
        assert server.results == [b"x"]

    @VERSIONS
    def test_closing(self, files: Path, version: python_ssl.TLSVersion) -> None:
        def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
            prio.PR_Close(fd)

        with PythonServer(server_context(files, version=version), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, judge, None)
            for _ in range(2):
                with pytest.raises(NSPRError, match="PR_BAD_DESCRIPTOR_ERROR"):
                    ssl.SSL_ForceHandshake(fd)
            with pytest.raises(NSPRError, match="PR_BAD_DESCRIPTOR_ERROR"):
                prio.PR_Close(fd)
        assert isinstance(server.results[0], OSError)

    def test_closing_when_told(self, files: Path) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_HandshakeCallback(fd, lambda descriptor, _: prio.PR_Close(descriptor), None)
            with pytest.raises(NSPRError, match="PR_BAD_DESCRIPTOR_ERROR"):
                prio.PR_Recv(fd, 1, 0, TICKS)
        assert server.results == [b""]

    def test_setting_what_is_for_later(self, files: Path) -> None:
        """A hook that takes itself away, or gives the socket another URL, changes nothing in the handshake under way."""

        def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
            ssl.SSL_AuthCertificateHook(fd, None, None)
            ssl.SSL_SetURL(fd, "elsewhere.example")
            ssl.SSL_OptionSet(fd, ssl.SSL_NO_CACHE, True)

        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_AuthCertificateHook(fd, judge, None)
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            assert ssl.SSL_RevealURL(fd) == "elsewhere.example"
            prio.PR_Close(fd)
        assert server.results == [b"x"]


@VERSIONS
def test_an_error_of_the_one_who_is_told_is_the_callers(files: Path, version: python_ssl.TLSVersion) -> None:
    """Also NSS's own errors, and where data came with the handshake's end: that is there for the next call."""

    def tell(fd: PRFileDesc, data: object) -> None:
        raise NSPRError(name="PR_FILE_NOT_FOUND_ERROR")

    with by_hand(server_context(files, version=version)) as (fd, far):
        ssl.SSL_HandshakeCallback(fd, tell, None)
        done = False
        while not done:
            try:
                ssl.SSL_ForceHandshake(fd)
            except NSPRError as error:
                if error.name == "PR_FILE_NOT_FOUND_ERROR":
                    break
            far.receive()
            done = far.step(far.peer.do_handshake)
            if done:
                far.peer.write(b"data")
            far.flush()
            arrived(fd)
        if version == TLS1_2:
            with pytest.raises(NSPRError, match="PR_FILE_NOT_FOUND_ERROR"):
                prio.PR_Read(fd, 100)
        assert done == (version == TLS1_2)
        if not done:
            far.receive()
            assert far.step(far.peer.do_handshake)
            far.peer.write(b"data")
            far.flush()
            arrived(fd)
        assert prio.PR_Read(fd, 100) == b"data"
