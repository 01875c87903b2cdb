"""Which sessions are resumed and which are not: another certificate, another name, after failures.  The other end: Python's
`ssl`, OpenSSL 1.0.2 for SSL 2, openssl."""

from __future__ import annotations

import os
import socket
import ssl as python_ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import _sidcaches, prio, ssl, sslproto
from nss_pk11.nss.prio import PRFileDesc
from nss_pk11.sessions import SharedServerCache
from nss_pk11.tls.session import Session
from tests.db.tools import Tools
from tests.support.peers import openssl_legacy
from tests.support.peers.commanded import Commanded
from tests.support.require import require

from . import test_ssl_caches
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
    port_of,
    python_client,
    read_exactly,
    run,
    server_context,
)
from .test_ssl_caches import no_tickets, reused, talk

pytestmark = pytest.mark.usefixtures("ready")


def server_cache() -> SharedServerCache:
    cache = _sidcaches._servers.cache
    assert cache is not None
    return cache


def clients() -> int:
    """Sessions in the client cache."""
    return len(_sidcaches._clients.cache)


class TestClients:
    def test_another_url_of_the_same_certificate(self, files: Path) -> None:
        """Whoever accepted the certificate for one name has not accepted it for all that are in it."""
        asked: list[str | None] = []

        def prepare(fd: PRFileDesc) -> None:
            ssl.SSL_AuthCertificateHook(fd, lambda arg, fd, *_: asked.append(ssl.SSL_RevealURL(fd)), None)

        with PythonServer(no_tickets(server_context(files, version=TLS1_2)), reused, 3) as server:
            for url in (HOST, HOST.upper(), HOST):
                talk(server.port, url, prepare=prepare)
        assert server.results == [False, False, True]
        assert asked == [HOST, HOST.upper()]

    def test_a_url_that_was_changed_meanwhile(self, files: Path) -> None:
        """The session is that of the name the certificate was judged by."""

        def change(fd: PRFileDesc) -> None:
            ssl.SSL_HandshakeCallback(fd, lambda fd, _: ssl.SSL_SetURL(fd, "elsewhere.example"), None)

        ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_SESSION_TICKETS, True)
        with PythonServer(server_context(files, version=TLS1_3), reused, 3) as server:
            talk(server.port, prepare=change)
            fd = connected(server.port, "elsewhere.example")
            with pytest.raises(NSPRError, match="SSL_ERROR_BAD_CERT_DOMAIN"):
                ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
            talk(server.port)
        assert server.results[0] is False
        assert server.results[2] is True

    @pytest.mark.parametrize("when", ["before the tickets come", "afterwards"])
    def test_invalidating_several_tickets(self, files: Path, when: str) -> None:
        """TLS 1.3 servers send more than one, some of them late: none is used."""
        ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_SESSION_TICKETS, True)
        with PythonServer(server_context(files, version=TLS1_3), reused, 2) as server:
            fd = connected(server.port)
            ssl.SSL_ForceHandshake(fd)
            if when != "afterwards":
                ssl.SSL_InvalidateSession(fd)
            prio.PR_Write(fd, b"x")
            assert read_exactly(fd, 1) == b"x"
            if when == "afterwards":
                assert clients() == 2
                ssl.SSL_InvalidateSession(fd)
            prio.PR_Close(fd)
            assert clients() == 0
            talk(server.port)
            assert clients() == 2
        assert server.results == [False, False]

    @pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
    def test_after_a_fatal_alert(self, files: Path, version: python_ssl.TLSVersion) -> None:
        """RFC 5246 section 7.2.2, and NSS's ssl_UncacheSessionID."""

        def spoil(sock: python_ssl.SSLSocket) -> None:
            sock.sendall(b"x")
            with socket.socket(fileno=os.dup(sock.fileno())) as plain:
                plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            assert over.wait(10)

        over = threading.Event()
        ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_SESSION_TICKETS, True)
        with PythonServer(server_context(files, version=version), spoil) as server:
            fd = connected(server.port)
            assert prio.PR_Recv(fd, 1, 0, TICKS) == b"x"
            with pytest.raises(NSPRError, match="SSL_ERROR_BAD_MAC_READ"):
                prio.PR_Recv(fd, 1, 0, TICKS)
            assert clients() == 0
            prio.PR_Close(fd)
            over.set()

    def test_flushing_what_cannot_be_done_again(self, files: Path) -> None:
        """A handshake that is not permitted flushes nothing (ssl3_RedoHandshake)."""
        with PythonServer(no_tickets(server_context(files, version=TLS1_2)), reused, 2) as server:
            fd = connected(server.port)
            ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_RENEGOTIATION, ssl.SSL_RENEGOTIATE_NEVER)
            ssl.SSL_ForceHandshake(fd)
            with pytest.raises(NSPRError, match="SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"):
                ssl.SSL_ReHandshake(fd, True)
            prio.PR_Write(fd, b"x")
            assert read_exactly(fd, 1) == b"x"
            prio.PR_Close(fd)
            talk(server.port)
        assert server.results == [False, True]


class TestServers:
    @pytest.fixture
    def openssl(self) -> Iterator[Commanded]:
        with openssl_legacy.start() as child:
            yield child

    @pytest.mark.parametrize("tickets", [True, False])
    def test_another_certificate(self, files: Path, tickets: bool) -> None:
        """Two servers in one process, with one cache: who had a session with the one has none with the other."""
        context = client_context(files, TLS1_2)
        context.check_hostname = False
        if not tickets:
            no_tickets(context)
        found = []
        session = None
        ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_SESSION_TICKETS, tickets)
        for nickname in ("server", "server", "client"):
            listener = listening(nickname)
            with OurServer(listener, echo) as server, python_client(server.port, context, session) as sock:
                sock.sendall(b"x")
                assert sock.recv(10) == b"x"
                found.append(sock.session_reused)
                session = session or sock.session
            prio.PR_Close(listener)
        assert found == [False, True, False]

    @pytest.mark.parametrize(("seconds", "lives"), [(0, 86400), (7, 7)])
    def test_lifetime(self, files: Path, seconds: int, lives: int) -> None:
        """What the cache says, 24 hours by default, is what counts."""
        ssl.SSL_ShutdownServerSessionIDCache()
        ssl.SSL_ConfigServerSessionIDCache(0, 0, seconds, None)
        listener = listening()
        with (
            OurServer(listener, lambda fd: (echo(fd), ssl.SSL_GetSessionID(fd))[1]) as server,
            python_client(server.port, no_tickets(client_context(files, TLS1_2))) as sock,
        ):
            sock.sendall(b"x")
            assert sock.recv(10) == b"x"
        prio.PR_Close(listener)
        self.expires(server.results[0], lives)

    def expires(self, session_id: bytes, seconds: int) -> None:
        cache = server_cache()
        state = cache.get(session_id, "127.0.0.1")
        assert state is not None
        session = Session.decode(state)
        assert session.fresh(session.created + seconds - 1)
        now = int(session.created)
        cache._clock = lambda: now + seconds
        assert cache.get(session_id, "127.0.0.1") == state
        cache._clock = lambda: now + seconds + 60  # the entry may be a little younger than the session
        assert cache.get(session_id, "127.0.0.1") is None

    @pytest.mark.parametrize(("seconds", "lives"), [(0, 100), (5, 5)])
    def test_lifetime_of_ssl2(self, openssl: Commanded, monkeypatch: pytest.MonkeyPatch, seconds: int, lives: int) -> None:
        monkeypatch.setenv("NSS_PK11_SHARE_KEYS_WITH_SSL2", "1")
        ssl.SSL_ShutdownServerSessionIDCache()
        ssl.SSL_ConfigServerSessionIDCache(0, seconds, 0, None)
        listener = listening()
        ssl.SSL_VersionRangeSet(listener, (sslproto.SSL_LIBRARY_VERSION_2, sslproto.SSL_LIBRARY_VERSION_2))

        def name(fd: PRFileDesc) -> bytes | None:
            prio.PR_Recv(fd, 100, 0, TICKS)
            return ssl.SSL_GetSessionID(fd)

        with OurServer(listener, name) as server:
            openssl.connect(server.port, protocol="ssl2", ciphers="RC4-MD5")
        prio.PR_Close(listener)
        self.expires(server.results[0], lives)


class TestProcessesWithTickets:
    CHILD = test_ssl_caches.TestProcesses.CHILD.replace(
        "cert =", "ssl.SSL_OptionSet(listener, ssl.SSL_ENABLE_SESSION_TICKETS, True)\ncert =", 1
    )

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_executed_children_open_each_others_tickets(self, files: Path, tmp_path: Path, ready: Tools, version: str) -> None:
        """The cache's key is what they share; TLS 1.3 has nothing but tickets."""
        ssl.SSL_ShutdownServerSessionIDCache()
        ssl.SSL_ConfigMPServerSIDCache(0, 0, 0, None)
        listener = listening("")
        number = prio.PR_FileDesc2NativeHandle(listener)
        prio.PR_SetFDInheritable(listener, True)
        target = ("-connect", f"127.0.0.1:{port_of(listener)}", version, "-CAfile", files / "ca.pem", "-ign_eof")
        said = []
        for option in ("-sess_out", "-sess_in"):
            with subprocess.Popen(
                [sys.executable, "-c", self.CHILD, str(ready.directory), str(number)], close_fds=False
            ) as child:
                said.append(run(require("openssl"), "s_client", *target, option, tmp_path / "session", input=b"x\n"))
                assert child.wait(20) == 0
        assert "\nNew, TLSv1." in said[0]
        assert "\nReused, TLSv1." in said[1]
        prio.PR_Close(listener)
