"""Non-blocking SSL sockets and PR_Poll over them; the other end is Python's `ssl` in a thread, as slow as it likes."""

from __future__ import annotations

import os
import socket
import ssl as python_ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import prinrval, prio, ssl
from nss_pk11.nss.prio import PR_POLL_EXCEPT, PR_POLL_READ, PR_POLL_WRITE, PRFileDesc, PRPollDesc

from .ends import (
    HOST,
    TICKS,
    TLS1_2,
    TLS1_3,
    Background,
    PythonServer,
    arrived,
    by_hand,
    client_context,
    connected,
    listening,
    loopback,
    nonblocking,
    port_of,
    python_client,
    python_echo,
    server_context,
)

pytestmark = pytest.mark.usefixtures("ready")
T = TypeVar("T")
VERSIONS = pytest.mark.parametrize("version", [TLS1_2, TLS1_3])


def wait(fd: PRFileDesc, flags: int) -> int:
    pd = PRPollDesc(fd, flags)
    assert prio.PR_Poll([pd], TICKS) == 1
    return pd.out_flags


def repeat(call: Callable[[], T], fd: PRFileDesc, flags: int) -> T:
    """As an application does: try, wait for what it wants to do, try again."""
    while True:
        try:
            return call()
        except NSPRError as error:
            if error.name != "PR_WOULD_BLOCK_ERROR":
                raise
        wait(fd, flags)


def connecting(port: int) -> PRFileDesc:
    fd = ssl.SSL_ImportFD(None, nonblocking(prio.PR_NewTCPSocket()))
    ssl.SSL_SetURL(fd, HOST)
    with pytest.raises(NSPRError, match="PR_IN_PROGRESS_ERROR"):
        prio.PR_Connect(fd, loopback(port))
    prio.PR_ConnectContinue(fd, wait(fd, PR_POLL_WRITE))
    return fd


def would_block(call: Callable[[], object]) -> None:
    with pytest.raises(NSPRError, match="PR_WOULD_BLOCK_ERROR"):
        call()


@VERSIONS
@pytest.mark.parametrize("first", ["force", "read", "write"])
def test_a_client(files: Path, version: python_ssl.TLSVersion, first: str) -> None:
    def greet(sock: python_ssl.SSLSocket) -> bytes:
        sock.sendall(b"welcome")
        return python_echo(sock)

    with PythonServer(server_context(files, version=version), greet) as server:
        fd = connecting(server.port)
        if first == "force":
            repeat(lambda: ssl.SSL_ForceHandshake(fd), fd, PR_POLL_READ)
        if first == "write":
            assert repeat(lambda: prio.PR_Write(fd, b"hello"), fd, PR_POLL_WRITE) == 5
        assert repeat(lambda: prio.PR_Read(fd, 7), fd, PR_POLL_READ) == b"welcome"
        if first != "write":
            assert repeat(lambda: prio.PR_Write(fd, b"hello"), fd, PR_POLL_WRITE) == 5
        assert repeat(lambda: prio.PR_Read(fd, 100), fd, PR_POLL_READ) == b"hello"
        assert repeat(lambda: prio.PR_Read(fd, 100), fd, PR_POLL_READ) == b""
        prio.PR_Close(fd)
    assert server.results == [b"hello"]


@VERSIONS
def test_a_server(files: Path, version: python_ssl.TLSVersion) -> None:
    listener = listening()
    nonblocking(listener)
    would_block(lambda: prio.PR_Accept(listener))

    def client() -> bytes:
        with python_client(port_of(listener), client_context(files, version)) as sock:
            sock.sendall(b"hello")
            return sock.recv(100)

    with Background(client) as peer:
        wait(listener, PR_POLL_READ)
        fd, _ = prio.PR_Accept(listener)
        assert repeat(lambda: prio.PR_Read(fd, 100), fd, PR_POLL_READ) == b"hello"
        assert repeat(lambda: prio.PR_Write(fd, b"answer"), fd, PR_POLL_WRITE) == 6
        prio.PR_Close(fd)
    assert peer.result == b"answer"
    prio.PR_Close(listener)


@VERSIONS
def test_more_than_the_peer_takes(files: Path, version: python_ssl.TLSVersion) -> None:
    """What is counted as written is, at the end; each write goes on where the last one said it stopped."""
    data, go = bytes(range(251)) * 20000, threading.Event()

    def read_late(sock: python_ssl.SSLSocket) -> bytes:
        assert go.wait(10)
        received = bytearray()
        while len(received) < len(data):
            more = sock.recv(1 << 16)
            assert more, len(received)
            received += more
        return bytes(received)

    with PythonServer(server_context(files, version=version), read_late) as server:
        fd = connecting(server.port)
        sent = counts = 0
        while sent < len(data):
            try:
                sent += prio.PR_Write(fd, data[sent:])
                counts += 1
            except NSPRError as error:
                if error.name != "PR_WOULD_BLOCK_ERROR":
                    raise
                if counts:
                    go.set()
                wait(fd, PR_POLL_WRITE)
        prio.PR_Close(fd)
    assert server.results == [data]
    assert counts > 1


def test_a_write_goes_on_with_the_same_data(files: Path) -> None:
    go = threading.Event()

    def read_late(sock: python_ssl.SSLSocket) -> None:
        assert go.wait(10)
        while sock.recv(1 << 16):
            pass

    with PythonServer(server_context(files), read_late) as server:
        fd = connecting(server.port)
        data = bytes(50_000_000)
        sent = _write_until_it_blocks(fd, data)
        assert sent < len(data)
        go.set()
        with pytest.raises(NSPRError, match="PR_INVALID_STATE_ERROR"):
            repeat(lambda: prio.PR_Write(fd, b"other data"), fd, PR_POLL_WRITE)
        assert repeat(lambda: prio.PR_Write(fd, data[sent : sent + 1]), fd, PR_POLL_WRITE) == 1
        prio.PR_Close(fd)


def _write_until_it_blocks(fd: PRFileDesc, data: bytes) -> int:
    sent = repeat(lambda: prio.PR_Write(fd, data), fd, PR_POLL_WRITE)
    while True:
        try:
            sent += prio.PR_Write(fd, data[sent : sent + 1000])
        except NSPRError as error:
            if error.name != "PR_WOULD_BLOCK_ERROR":
                raise
            return sent


class TestPoll:
    def test_a_handshake_decides_what_is_waited_for(self, files: Path) -> None:
        """Whatever the application wants to do: a client first writes, then reads."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            fd = connecting(silent.getsockname()[1])
            for flags in (PR_POLL_READ, PR_POLL_WRITE, PR_POLL_READ | PR_POLL_WRITE):
                assert wait(fd, flags) & flags  # it may begin
            would_block(lambda: ssl.SSL_ForceHandshake(fd))
            for flags in (PR_POLL_READ, PR_POLL_WRITE):
                assert prio.PR_Poll([PRPollDesc(fd, flags)], prinrval.PR_MillisecondsToInterval(20)) == 0
            peer, _ = silent.accept()
            peer.sendall(b"\x15\x03\x03\x00\x02\x02\x28")  # handshake_failure
            for flags in (PR_POLL_READ, PR_POLL_WRITE):
                assert wait(fd, flags) == flags
            with pytest.raises(NSPRError, match="SSL_ERROR_HANDSHAKE_FAILURE_ALERT"):
                ssl.SSL_ForceHandshake(fd)
            peer.close()
            prio.PR_Close(fd)

    def test_a_server_reads_first(self) -> None:
        listener = listening()
        with socket.create_connection(("127.0.0.1", port_of(listener))) as peer:
            fd, _ = prio.PR_Accept(listener, TICKS)
            assert prio.PR_Poll([PRPollDesc(fd, PR_POLL_WRITE)], prinrval.PR_MillisecondsToInterval(20)) == 0
            peer.sendall(b"\x16")
            assert wait(fd, PR_POLL_WRITE) == PR_POLL_WRITE
            prio.PR_Close(fd)
        prio.PR_Close(listener)

    def test_decrypted_data_counts(self, files: Path) -> None:
        def say(sock: python_ssl.SSLSocket) -> bytes:
            sock.sendall(b"two words")
            return sock.recv(10)

        with PythonServer(server_context(files), say) as server:
            fd = connected(server.port)
            assert prio.PR_Recv(fd, 4, 0, TICKS) == b"two "
            plain, _ = prio.PR_NewTCPSocketPair()
            both = [PRPollDesc(fd, PR_POLL_READ), PRPollDesc(plain, PR_POLL_READ)]
            assert prio.PR_Poll(both, TICKS) == 1
            assert [pd.out_flags for pd in both] == [PR_POLL_READ, 0]
            assert prio.PR_Read(fd, 100) == b"words"
            assert prio.PR_Poll([PRPollDesc(fd, PR_POLL_READ)], prinrval.PR_MillisecondsToInterval(20)) == 0
            prio.PR_Write(fd, b"bye")
            prio.PR_Close(fd)
            prio.PR_Close(plain)
            prio.PR_Close(_)

    def test_plain_and_ssl_together(self, files: Path) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_ForceHandshake(fd)
            one, other = prio.PR_NewTCPSocketPair()
            pds = [PRPollDesc(one, PR_POLL_READ), PRPollDesc(fd, PR_POLL_WRITE), PRPollDesc(None)]
            prio.PR_Write(other, b"x")
            assert prio.PR_Poll(pds, TICKS) == 2
            assert [pd.out_flags for pd in pds] == [PR_POLL_READ, PR_POLL_WRITE, 0]
            prio.PR_Write(fd, b"x")
            for each in (fd, one, other):
                prio.PR_Close(each)

    def test_an_end_that_was_read_already(self, files: Path) -> None:
        """close_notify lies in us, and the peer's TCP is still open: reading tells at once, so poll must too."""
        over = threading.Event()

        def close(sock: python_ssl.SSLSocket) -> None:
            sock.sendall(b"x")
            sock.setblocking(False)
            with pytest.raises(OSError, match=r".*"):
                sock.unwrap()
            assert over.wait(10)

        with PythonServer(server_context(files, version=TLS1_2), close) as server:
            fd = connected(server.port)
            assert prio.PR_Recv(fd, 1, 0, TICKS) == b"x"
            assert prio.PR_Recv(fd, 1, 0, TICKS) == b""
            assert wait(fd, PR_POLL_READ) & PR_POLL_READ
            prio.PR_Close(fd)
            over.set()

    def test_an_error_that_was_read_already(self, files: Path) -> None:
        """It came behind data, and the peer's TCP is still open."""
        over = threading.Event()

        def spoil(sock: python_ssl.SSLSocket) -> None:
            sock.sendall(b"x")
            with socket.socket(fileno=os.dup(sock.fileno())) as plain:
                plain.sendall(b"\x15\x03\x03\x00\x02\x02\x28")
            assert over.wait(10)

        with PythonServer(server_context(files, version=TLS1_2), spoil) as server:
            fd = connected(server.port)
            assert prio.PR_Recv(fd, 1, 0, TICKS) == b"x"
            assert wait(fd, PR_POLL_READ) & PR_POLL_READ
            with pytest.raises(NSPRError, match="SSL_ERROR_BAD_MAC_READ"):
                prio.PR_Recv(fd, 1, 0, TICKS)
            for flags in (PR_POLL_READ, PR_POLL_WRITE):
                assert wait(fd, flags) & flags
            prio.PR_Close(fd)
            over.set()

    def test_an_answer_that_is_put_off_is_not_polled_for(self, files: Path) -> None:
        """Whatever comes meanwhile: who polls would come back at once, again and again (ssl_Poll)."""
        with by_hand(server_context(files, version=TLS1_2)) as (fd, far):
            ssl.SSL_AuthCertificateHook(fd, lambda *_: ssl.SECWouldBlock, None)
            would_block(lambda: ssl.SSL_ForceHandshake(fd))
            far.receive()
            assert not far.step(far.peer.do_handshake)
            far.flush()
            arrived(fd)
            while ssl.SSL_PeerCertificate(fd) is None:
                would_block(lambda: ssl.SSL_ForceHandshake(fd))
            far.flush(b"more")
            arrived(fd)
            everything = PRPollDesc(fd, PR_POLL_READ | PR_POLL_WRITE | PR_POLL_EXCEPT)
            assert prio.PR_Poll([everything], prinrval.PR_MillisecondsToInterval(20)) == 0
            far.reset()
            arrived(fd, 0)
            assert prio.PR_Poll([everything], prinrval.PR_MillisecondsToInterval(20)) == 0
            ssl.SSL_AuthCertificateComplete(fd, 0)
            assert wait(fd, PR_POLL_READ) & PR_POLL_READ

    def test_data_that_waits_for_another_handshake(self, files: Path) -> None:
        """Only the peer can end the waiting, so it is what is polled for."""
        over = threading.Event()
        with PythonServer(server_context(files, version=TLS1_2), lambda sock: over.wait(10)) as server:
            fd = connecting(server.port)
            repeat(lambda: ssl.SSL_ForceHandshake(fd), fd, PR_POLL_READ)
            assert wait(fd, PR_POLL_WRITE) == PR_POLL_WRITE
            ssl.SSL_ReHandshake(fd, True)
            would_block(lambda: prio.PR_Write(fd, b"x"))
            assert prio.PR_Poll([PRPollDesc(fd, PR_POLL_WRITE)], prinrval.PR_MillisecondsToInterval(20)) == 0
            over.set()
            prio.PR_Close(fd)

    def test_without_security_it_is_a_socket_like_any(self) -> None:
        ssl.SSL_OptionSetDefault(ssl.SSL_SECURITY, False)
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = connected(server.getsockname()[1])
            assert wait(fd, PR_POLL_READ | PR_POLL_WRITE) == PR_POLL_WRITE
            prio.PR_Close(fd)


def test_a_hundred_connections_in_one_thread(files: Path) -> None:
    """An event loop over PR_Poll: server and clients in one thread, all at once."""
    listener = listening()
    nonblocking(listener)
    count, served = 12, 0
    results: list[bytes] = []

    def client() -> None:
        with python_client(port_of(listener), client_context(files)) as sock:
            sock.sendall(b"ping")
            results.append(sock.recv(100))

    clients = [Background(client) for _ in range(count)]
    for each in clients:
        each.__enter__()
    connections: dict[int, PRFileDesc] = {}
    while served < count:
        pds = [PRPollDesc(listener, PR_POLL_READ), *(PRPollDesc(fd, PR_POLL_READ) for fd in connections.values())]
        assert prio.PR_Poll(pds, TICKS) > 0
        for pd in pds:
            if not pd.out_flags or pd.fd is None:
                continue
            if pd.fd is listener:
                fd, _ = prio.PR_Accept(listener)
                connections[prio.PR_FileDesc2NativeHandle(fd)] = fd
                continue
            try:
                data = prio.PR_Read(pd.fd, 100)
            except NSPRError as error:
                assert error.name == "PR_WOULD_BLOCK_ERROR"  # noqa: PT017 - an event loop goes on
                continue
            assert prio.PR_Write(pd.fd, data) == len(data)
            del connections[prio.PR_FileDesc2NativeHandle(pd.fd)]
            prio.PR_Close(pd.fd)
            served += 1
    for each in clients:
        each.__exit__(None, None, None)
    assert results == [b"ping"] * count
    prio.PR_Close(listener)
