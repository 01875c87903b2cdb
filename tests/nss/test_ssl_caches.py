"""Session caches of SSL sockets: clients', servers', those that processes share.  The other end: Python's `ssl`, openssl, NSS."""

from __future__ import annotations

import os
import re
import ssl as python_ssl
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import nss, prio, ssl
from nss_pk11.nss.prio import PRFileDesc
from tests.db.tools import Tools
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
    port_of,
    python_client,
    read_exactly,
    run,
    server_context,
)

pytestmark = pytest.mark.usefixtures("ready")


def reused(sock: python_ssl.SSLSocket) -> bool:
    found = bool(sock.session_reused)  # before the end, after which `sock` knows nothing
    sock.sendall(sock.recv(65536))
    assert sock.recv(1) == b""
    with suppress(OSError):  # whoever ends without a goodbye has his session forgotten by OpenSSL
        sock.unwrap()
    return found


def talk(port: int, url: str = HOST, *, peer_id: str = "", prepare: Callable[[PRFileDesc], object] | None = None) -> object:
    """One connection of ours; returns what `SSL_GetSessionID` says."""
    fd = connected(port, url)
    if peer_id:
        ssl.SSL_SetSockPeerID(fd, peer_id)
    if prepare is not None:
        prepare(fd)
    prio.PR_Write(fd, b"x")
    assert read_exactly(fd, 1) == b"x"
    session_id = ssl.SSL_GetSessionID(fd)
    prio.PR_Close(fd)
    return session_id


def no_tickets(context: python_ssl.SSLContext) -> python_ssl.SSLContext:
    context.options |= python_ssl.OP_NO_TICKET
    return context


class TestClients:
    @pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
    @pytest.mark.parametrize("tickets", [True, False])
    def test_resuming(self, files: Path, version: python_ssl.TLSVersion, tickets: bool) -> None:
        context = server_context(files, version=version)
        if not tickets:
            no_tickets(context)
        ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_SESSION_TICKETS, tickets)
        with PythonServer(context, reused, 2) as server:
            first, second = talk(server.port), talk(server.port)
        assert server.results == [False, True]
        if version == TLS1_2 and not tickets:
            assert first == second
            assert len(first) == 32  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("change", "again"),
        [
            ("nothing", True),
            ("no url", False),
            ("no cache", False),
            ("peer id", False),
            ("cleared", False),
            ("invalidated", False),
            ("flushed", False),
        ],
    )
    def test_what_finds_a_session(self, files: Path, change: str, again: bool) -> None:
        def prepare(fd: PRFileDesc) -> None:
            ssl.SSL_AuthCertificateHook(fd, lambda *_: None, None)
            if change == "no cache":
                ssl.SSL_OptionSet(fd, ssl.SSL_NO_CACHE, True)

        def first(fd: PRFileDesc) -> None:
            prepare(fd)
            if change == "invalidated":
                with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
                    ssl.SSL_InvalidateSession(fd)
                ssl.SSL_ForceHandshake(fd)
                ssl.SSL_InvalidateSession(fd)

        with PythonServer(no_tickets(server_context(files, version=TLS1_2)), reused, 2) as server:
            talk(server.port, prepare=first)
            if change in ("cleared", "flushed"):
                ssl.SSL_ClearSessionCache()
            peer_id = "other:443" if change == "peer id" else ""
            talk(server.port, "" if change == "no url" else HOST, peer_id=peer_id, prepare=prepare)
        assert server.results == [False, again]

    def test_the_same_peer_id(self, files: Path) -> None:
        with PythonServer(no_tickets(server_context(files, version=TLS1_2)), reused, 3) as server:
            for peer_id in ("a:1", "b:1", "a:1"):
                talk(server.port, peer_id=peer_id)
        assert server.results == [False, False, True]

    def test_the_verdict_is_not_asked_for_again(self, files: Path) -> None:
        asked: list[int] = []

        def prepare(fd: PRFileDesc) -> None:
            ssl.SSL_AuthCertificateHook(fd, lambda *_: asked.append(1), None)  # type: ignore[func-returns-value]

        def resumed(fd: PRFileDesc) -> None:
            prepare(fd)
            ssl.SSL_ForceHandshake(fd)
            assert ssl.SSL_PeerCertificate(fd) is not None
            assert ssl.SSL_GetChannelInfo(fd).resumed
            assert ssl.SSL_SecurityStatus(fd).subject == "CN=server"

        with PythonServer(no_tickets(server_context(files, version=TLS1_2)), reused, 2) as server:
            talk(server.port, prepare=prepare)
            talk(server.port, prepare=resumed)
        assert server.results == [False, True]
        assert asked == [1]

    def test_shutdown_wants_it_cleared(self, files: Path, error: Callable[[], str]) -> None:
        with PythonServer(no_tickets(server_context(files, version=TLS1_2)), reused) as server:
            talk(server.port)
        with pytest.raises(NSPRError, match="SSL_ClearSessionCache"):
            nss.NSS_Shutdown()
        assert error() == "SEC_ERROR_BUSY"
        ssl.SSL_ClearSessionCache()
        nss.NSS_Shutdown()

    def test_statistics(self, files: Path) -> None:
        counted = ssl.SSL_GetStatistics()
        before = (counted.sch_sid_cache_hits, counted.hsh_sid_cache_hits, counted.hsh_sid_cache_misses)
        with PythonServer(no_tickets(server_context(files, version=TLS1_2)), reused, 3) as server:
            for _ in range(3):
                talk(server.port)
        after = (counted.sch_sid_cache_hits, counted.hsh_sid_cache_hits, counted.hsh_sid_cache_misses)
        assert tuple(new - old for new, old in zip(after, before, strict=True)) == (2, 2, 1)


class TestServers:
    @pytest.mark.parametrize(("version", "tickets"), [(TLS1_2, True), (TLS1_2, False), (TLS1_3, True)])
    def test_resuming(self, files: Path, version: python_ssl.TLSVersion, tickets: bool) -> None:
        listener = listening()
        ssl.SSL_OptionSet(listener, ssl.SSL_ENABLE_SESSION_TICKETS, tickets)
        context = client_context(files, version)
        with OurServer(listener, echo, 2) as server:
            session, found = None, []
            for _ in range(2):
                with python_client(server.port, context, session) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(10) == b"x"
                    session = sock.session
                    found.append(sock.session_reused)
        assert found == [False, True]
        prio.PR_Close(listener)

    def resumes(self, listener: PRFileDesc, context: python_ssl.SSLContext, between: Callable[[], object]) -> bool | None:
        """Whether a second connection resumes the first's session."""
        with OurServer(listener, echo, 2) as server:
            with python_client(server.port, context) as sock:
                sock.sendall(b"x")
                sock.recv(10)
                session = sock.session
            between()
            with python_client(server.port, context, session) as sock:
                sock.sendall(b"x")
                sock.recv(10)
                return sock.session_reused

    def test_without_cache(self, files: Path) -> None:
        listener = listening()
        context = no_tickets(client_context(files, TLS1_2))
        assert self.resumes(listener, context, lambda: None)
        ssl.SSL_OptionSet(listener, ssl.SSL_NO_CACHE, True)
        assert not self.resumes(listener, context, lambda: None)
        prio.PR_Close(listener)

    def test_a_new_cache_knows_nothing(self, files: Path) -> None:
        def renew() -> None:
            ssl.SSL_ShutdownServerSessionIDCache()
            ssl.SSL_ConfigServerSessionIDCache(100, 5, 5, None)

        listener = listening()
        assert not self.resumes(listener, no_tickets(client_context(files, TLS1_2)), renew)
        prio.PR_Close(listener)

    def test_an_invalidated_session(self, files: Path) -> None:
        listener = listening()

        def serve(fd: PRFileDesc) -> object:
            echo(fd)
            session_id = ssl.SSL_GetSessionID(fd)
            ssl.SSL_InvalidateSession(fd)
            return session_id

        context = no_tickets(client_context(files, TLS1_2))
        with OurServer(listener, serve, 2) as server:
            session, found = None, []
            for _ in range(2):
                with python_client(server.port, context, session) as sock:
                    sock.sendall(b"x")
                    sock.recv(10)
                    session = sock.session
                    found.append(session.id if session else b"")
                    assert not sock.session_reused
        assert server.results == found
        prio.PR_Close(listener)

    @pytest.mark.parametrize("tickets", [True, False])
    def test_a_session_without_certificate_where_one_is_wanted(self, files: Path, tickets: bool) -> None:
        """It is not resumed, so that the client is asked (ssl3con.c)."""
        listener = listening()
        ssl.SSL_OptionSet(listener, ssl.SSL_ENABLE_SESSION_TICKETS, tickets)
        context = client_context(files, TLS1_2)
        if not tickets:
            no_tickets(context)

        def want() -> None:
            ssl.SSL_OptionSet(listener, ssl.SSL_REQUEST_CERTIFICATE, True)
            ssl.SSL_OptionSet(listener, ssl.SSL_REQUIRE_CERTIFICATE, ssl.SSL_REQUIRE_NO_ERROR)

        assert not self.resumes(listener, context, want)
        ssl.SSL_OptionSet(listener, ssl.SSL_REQUIRE_CERTIFICATE, ssl.SSL_REQUIRE_NEVER)
        assert self.resumes(listener, context, lambda: None)
        prio.PR_Close(listener)

    def test_a_session_with_certificate(self, files: Path) -> None:
        listener = listening()
        ssl.SSL_OptionSet(listener, ssl.SSL_REQUEST_CERTIFICATE, True)

        def who(fd: PRFileDesc) -> object:
            echo(fd)
            peer = ssl.SSL_PeerCertificate(fd)
            return peer.subjectName if peer else None

        context = no_tickets(client_context(files, TLS1_2, "client"))
        with OurServer(listener, who, 2) as server:
            session = None
            for again in (False, True):
                with python_client(server.port, context, session) as sock:
                    sock.sendall(b"x")
                    sock.recv(10)
                    session = sock.session
                    assert sock.session_reused == again
        assert server.results == ["CN=client"] * 2
        prio.PR_Close(listener)

    def test_configuring_twice(self, files: Path) -> None:
        listener = listening()
        context = no_tickets(client_context(files, TLS1_2))
        assert self.resumes(listener, context, lambda: ssl.SSL_ConfigServerSessionIDCache(1, 5, 5, None))
        with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
            ssl.SSL_ConfigServerSessionIDCache(-1, 0, 0, None)
        prio.PR_Close(listener)

    def test_locks(self) -> None:
        most = ssl.SSL_GetMaxServerCacheLocks()
        assert most == 10
        ssl.SSL_SetMaxServerCacheLocks(3)
        assert ssl.SSL_GetMaxServerCacheLocks() == 3
        with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
            ssl.SSL_SetMaxServerCacheLocks(2)
        ssl.SSL_SetMaxServerCacheLocks(most)

    def test_strsclnt_resumes(self, ready: Tools) -> None:
        """NSS's own client, many times over."""
        listener = listening()

        def page(fd: PRFileDesc) -> None:
            prio.PR_Recv(fd, 4096, 0, TICKS)
            prio.PR_Write(fd, b"HTTP/1.0 200 OK\r\n\r\nhello\n")

        counted = ssl.SSL_GetStatistics()
        before = (counted.hch_sid_cache_hits, counted.hch_sid_cache_misses)
        with OurServer(listener, page, 10) as server:
            said = run(
                require("strsclnt"), "-d", f"sql:{ready.directory}", "-p", str(server.port), "-c", "10", "-t", "1",
                "-V", "tls1.2:tls1.2", "-a", HOST, "-o", "127.0.0.1",
            )  # fmt: skip
        prio.PR_Close(listener)
        hits = re.search(r"strsclnt: (\d+) cache hits; (\d+) cache misses", said)
        assert hits is not None, said
        assert int(hits[1]) >= 8, said
        after = (counted.hch_sid_cache_hits, counted.hch_sid_cache_misses)
        assert tuple(new - old for new, old in zip(after, before, strict=True)) == (int(hits[1]), int(hits[2]))


class TestProcesses:
    """Children of one parent with one cache (SSL_ConfigMPServerSIDCache)."""

    def client(self, port: int, files: Path, *arguments: str | Path) -> str:
        target = ("-connect", f"127.0.0.1:{port}", "-tls1_2", "-no_ticket", "-CAfile", files / "ca.pem")
        return run(require("openssl"), "s_client", *target, *arguments, input=b"x\n")

    def test_forked_children_share_it(self, files: Path, tmp_path: Path, ready: Tools) -> None:
        """Each child serves one connection with the parent's listening socket, certificate and key; the second resumes."""
        ssl.SSL_ShutdownServerSessionIDCache()
        ssl.SSL_ConfigMPServerSIDCache(0, 0, 0, str(tmp_path))
        assert os.environ["SSL_INHERITANCE"]
        assert list(tmp_path.glob("*")) == []  # the file has no name any more
        listener = listening()
        said = []
        for arguments in (("-sess_out", tmp_path / "session"), ("-sess_in", tmp_path / "session")):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    ssl.SSL_InheritMPServerSIDCache(None)
                    fd, _ = prio.PR_Accept(listener, TICKS)
                    echo(fd)
                    prio.PR_Close(fd)
                    status = 0
                finally:
                    os._exit(status)
            said.append(self.client(port_of(listener), files, *arguments))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert "\nNew, TLSv1.2" in said[0]
        assert "\nReused, TLSv1.2" in said[1]
        prio.PR_Close(listener)
        ssl.SSL_ShutdownServerSessionIDCache()
        assert "SSL_INHERITANCE" not in os.environ

    CHILD = textwrap.dedent(
        """
        import sys
        from nss_pk11.nss import nss, pk11pub, prio, ssl

        directory, osfd = sys.argv[1], int(sys.argv[2])
        pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: None if retry else "secret of the database")
        nss.NSS_Init(f"sql:{directory}")
        ssl.NSS_SetDomesticPolicy()
        ssl.SSL_InheritMPServerSIDCache(sys.argv[3] if len(sys.argv) > 3 else None)
        listener = ssl.SSL_ImportFD(None, prio.PR_ImportTCPSocket(osfd))
        cert = pk11pub.PK11_FindCertFromNickname("server")
        ssl.SSL_ConfigSecureServer(listener, cert, pk11pub.PK11_FindKeyByAnyCert(cert), ssl.kt_rsa)
        fd, _ = prio.PR_Accept(listener, 20000)
        prio.PR_Write(fd, prio.PR_Read(fd, 100))
        prio.PR_Close(fd)
        """
    )

    @pytest.mark.parametrize("by", ["environment", "argument"])
    def test_executed_children_inherit_it(self, files: Path, tmp_path: Path, ready: Tools, by: str) -> None:
        ssl.SSL_ShutdownServerSessionIDCache()
        ssl.SSL_ConfigMPServerSIDCache(0, 0, 0, None)
        listener = listening("")
        number = prio.PR_FileDesc2NativeHandle(listener)
        prio.PR_SetFDInheritable(listener, True)
        environment = dict(os.environ)
        inheritance = environment.pop("SSL_INHERITANCE")
        said = []
        for arguments in (("-sess_out", tmp_path / "session"), ("-sess_in", tmp_path / "session")):
            more = [inheritance] if by == "argument" else []
            with subprocess.Popen(
                [sys.executable, "-c", self.CHILD, str(ready.directory), str(number), *more],
                env=environment | ({"SSL_INHERITANCE": inheritance} if by == "environment" else {}),
                close_fds=False,
            ) as child:
                said.append(self.client(port_of(listener), files, *arguments))
                assert child.wait(20) == 0
        assert "\nNew, TLSv1.2" in said[0]
        assert "\nReused, TLSv1.2" in said[1]
        prio.PR_Close(listener)

    @pytest.mark.parametrize(
        ("string", "name"),
        [
            ("", "SEC_ERROR_INVALID_ARGS"),
            ("no comma", "SEC_ERROR_INVALID_ARGS"),
            ("AAAA,3:1", "SEC_ERROR_INVALID_ARGS"),
            ("AAAAAAAAAAA=,3:1", "SEC_ERROR_INVALID_ARGS"),
        ],
    )
    def test_what_cannot_be_inherited(self, monkeypatch: pytest.MonkeyPatch, string: str, name: str) -> None:
        ssl.SSL_ShutdownServerSessionIDCache()
        monkeypatch.delenv("SSL_INHERITANCE", raising=False)
        with pytest.raises(NSPRError, match=name):
            ssl.SSL_InheritMPServerSIDCache(string)
        with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
            ssl.SSL_InheritMPServerSIDCache(None)
