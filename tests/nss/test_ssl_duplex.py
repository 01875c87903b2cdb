"""One thread reads while another writes, on one SSL socket (SSL_ENABLE_FDX); the other end is Python's `ssl`."""

from __future__ import annotations

import select
import ssl as python_ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import prinrval, prio, ssl
from nss_pk11.nss._layers import Deadline, SocketLayer
from nss_pk11.nss.prio import PR_POLL_READ, PR_POLL_WRITE, PRFileDesc, PRPollDesc

from .ends import TICKS, TLS1_2, TLS1_3, Background, PythonServer, connected, nonblocking, read_exactly, server_context

pytestmark = pytest.mark.usefixtures("ready")

SIZE = 3_000_000
OURS, THEIRS = bytes(range(256)) * (SIZE // 256), bytes(range(255, -1, -1)) * (SIZE // 256)


def both_ways(sock: python_ssl.SSLSocket) -> bytes:
    """Sends and receives at the same time, each as much as there is."""
    sock.setblocking(False)
    received, sent = bytearray(), 0
    while len(received) < len(OURS) or sent < len(THEIRS):
        select.select([sock], [sock] if sent < len(THEIRS) else [], [], 10)
        with suppress(python_ssl.SSLWantWriteError, python_ssl.SSLWantReadError):
            sent += sock.send(THEIRS[sent : sent + 16384]) if sent < len(THEIRS) else 0
        with suppress(python_ssl.SSLWantWriteError, python_ssl.SSLWantReadError):
            if len(received) < len(OURS):
                more = sock.recv(16384)
                assert more, len(received)
                received += more
    return bytes(received)


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
@pytest.mark.parametrize("duplex", [True, False])
def test_two_threads(files: Path, version: python_ssl.TLSVersion, duplex: bool) -> None:
    """On a blocking socket the option changes nothing, as in NSS."""
    with PythonServer(server_context(files, version=version), both_ways) as server:
        fd = connected(server.port)
        ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_FDX, duplex)
        ssl.SSL_ForceHandshake(fd)
        with Background(lambda: prio.PR_Send(fd, OURS, 0, TICKS)) as writer:
            assert read_exactly(fd, len(THEIRS)) == THEIRS
        assert writer.result == len(OURS)
        prio.PR_Close(fd)
    assert server.results == [OURS]


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
def test_two_threads_on_a_non_blocking_socket(files: Path, version: python_ssl.TLSVersion) -> None:
    def write(fd: PRFileDesc) -> None:
        sent = 0
        while sent < len(OURS):
            try:
                sent += prio.PR_Write(fd, OURS[sent : sent + 50000])
            except NSPRError as error:
                if error.name != "PR_WOULD_BLOCK_ERROR":
                    raise
                prio.PR_Poll([PRPollDesc(fd, PR_POLL_WRITE)], TICKS)

    def read(fd: PRFileDesc) -> bytes:
        received = bytearray()
        while len(received) < len(THEIRS):
            try:
                received += prio.PR_Read(fd, 65536)
            except NSPRError as error:
                if error.name != "PR_WOULD_BLOCK_ERROR":
                    raise
                prio.PR_Poll([PRPollDesc(fd, PR_POLL_READ)], TICKS)
        return bytes(received)

    with PythonServer(server_context(files, version=version), both_ways) as server:
        fd = connected(server.port)
        ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_FDX, True)
        ssl.SSL_ForceHandshake(fd)
        nonblocking(fd)
        with Background(lambda: write(fd)):
            assert read(fd) == THEIRS
        prio.PR_Close(fd)
    assert server.results == [OURS]


def test_a_reader_that_waits_hinders_no_writer(files: Path) -> None:
    with PythonServer(server_context(files), lambda sock: sock.sendall(sock.recv(10))) as server:
        fd = connected(server.port)
        ssl.SSL_ForceHandshake(fd)
        with Background(lambda: prio.PR_Recv(fd, 10, 0, TICKS)) as reader:
            prio.PR_Write(fd, b"x")
        assert reader.result == b"x"
        prio.PR_Close(fd)


def test_readers_take_turns(files: Path) -> None:
    """Four threads read, each byte comes to one of them; four write, each message arrives whole."""

    def swap(sock: python_ssl.SSLSocket) -> set[bytes]:
        received = bytearray()
        while len(received) < 4 * 40000:
            more = sock.recv(65536)
            assert more, len(received)
            received += more
        sock.sendall(bytes(1000))
        return {bytes(received[at : at + 40000]) for at in range(0, len(received), 40000)}

    with PythonServer(server_context(files), swap) as server:
        fd = connected(server.port)
        messages = {bytes((number,)) * 40000 for number in range(4)}
        writers = [threading.Thread(target=prio.PR_Write, args=(fd, message)) for message in messages]
        for thread in writers:
            thread.start()
        counts: list[int] = []

        def read() -> None:
            while data := prio.PR_Recv(fd, 7, 0, TICKS):
                counts.append(len(data))

        readers = [threading.Thread(target=read) for _ in range(4)]
        for thread in (*readers, *writers):
            if thread in readers:
                thread.start()
        for thread in (*readers, *writers):
            thread.join(20)
            assert not thread.is_alive()
        assert sum(counts) == 1000
        prio.PR_Close(fd)
    assert server.results == [messages]


def test_the_first_to_come_shakes_hands(files: Path) -> None:
    """Reader and writer come at the same time to a socket that nobody has used."""
    with PythonServer(server_context(files), lambda sock: sock.sendall(sock.recv(10))) as server:
        fd = connected(server.port)
        with Background(lambda: prio.PR_Recv(fd, 10, 0, TICKS)) as reader:
            assert prio.PR_Send(fd, b"x", 0, TICKS) == 1
        assert reader.result == b"x"
        prio.PR_Close(fd)


def test_what_another_thread_has_read_is_not_waited_for(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer begins to wait for the server's part of the handshake when the reader has finished it."""
    finished, wait, writer = threading.Event(), SocketLayer.wait, threading.current_thread()

    def late(layer: SocketLayer, events: int, deadline: Deadline) -> None:
        if threading.current_thread() is writer:
            assert finished.wait(20)
        wait(layer, events, deadline)

    monkeypatch.setattr(SocketLayer, "wait", late)
    with PythonServer(server_context(files, version=TLS1_2), lambda sock: sock.sendall(sock.recv(10))) as server:
        fd = connected(server.port)
        ssl.SSL_HandshakeCallback(fd, lambda *_: finished.set(), None)
        with Background(lambda: prio.PR_Recv(fd, 10, 0, TICKS)) as reader:
            assert prio.PR_Send(fd, b"x", 0, TICKS) == 1
        assert reader.result == b"x"
        prio.PR_Close(fd)


@pytest.mark.parametrize("timeout", [TICKS, prinrval.PR_INTERVAL_NO_TIMEOUT])
def test_closing_ends_a_read(files: Path, timeout: int) -> None:
    """Even where the peer says nothing more."""
    over = threading.Event()
    with PythonServer(server_context(files), lambda sock: over.wait(20)) as server:
        fd = connected(server.port)
        ssl.SSL_ForceHandshake(fd)
        errors: list[str] = []
        reading = threading.Event()

        def read() -> None:
            reading.set()
            try:
                prio.PR_Recv(fd, 1, 0, timeout)
            except NSPRError as error:
                errors.append(error.name)

        reader = threading.Thread(target=read)
        reader.start()
        assert reading.wait(20)
        time.sleep(0.3)  # it waits by now; if not, that is found out all the same
        prio.PR_Close(fd)
        reader.join(15)
        alive = reader.is_alive()
        over.set()
        reader.join(20)
        assert not alive
        assert errors == ["PR_BAD_DESCRIPTOR_ERROR"]
