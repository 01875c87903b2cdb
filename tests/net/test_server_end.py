"""How the server loop ends, and what it leaves: draining, descriptors, memory."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from nss_pk11.net.connection import Deadlines, Echo

from . import test_server
from .peers import TIMEOUT, Task, client_context, running
from .test_server import dial, echo

if TYPE_CHECKING:
    from nss_pk11.net.connection import Connection
    from nss_pk11.net.executor import KeyExecutor
    from nss_pk11.tls.config import ServerConfig

    from ..support.pki import PKI

config, executor = test_server.config, test_server.executor  # fixtures


class Busy(Echo):
    """Is busy from "begin" to "end"."""

    __slots__ = ("busy",)

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.busy = False

    def data_received(self, data: bytes | bytearray) -> None:
        self.busy = data == b"begin"
        super().data_received(data)


def test_drain(config: ServerConfig, executor: KeyExecutor, pki: PKI) -> None:
    with running(config, executor, Busy) as server, dial(server, pki) as idle, dial(server, pki) as busy:
        assert echo(idle, b"hi") == b"hi"
        assert echo(busy, b"begin") == b"begin"
        server.server.drain()
        assert idle.recv(100) == b""  # goodbye at once
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            server.dial()
        assert echo(busy, b"end") == b"end"  # may finish
        assert busy.recv(100) == b""
        busy.close()
        server.task.wait()
    assert [connection.error for connection in server.ended] == [None, None]


def test_drain_serves_whoever_was_on_the_way(config: ServerConfig, executor: KeyExecutor, pki: PKI) -> None:
    """In the kernel's queue, in the handshake, or connected and about to ask."""
    asleep, go = threading.Event(), threading.Event()

    class Sleeper(Busy):
        def data_received(self, data: bytes | bytearray) -> None:
            if data == b"sleep":
                asleep.set()
                assert go.wait(TIMEOUT)  # holds the whole loop
            super().data_received(data)

    with running(config, executor, Sleeper) as server:
        with dial(server, pki) as first, dial(server, pki) as connected:
            first.sendall(b"sleep")
            assert asleep.wait(TIMEOUT)
            queued = Task(partial(dial, server, pki))
            while not _in_backlog(server.address[1]):
                time.sleep(0.01)
            server.server.drain()
            go.set()
            assert echo(connected, b"end") == b"end"
            with queued.wait() as late:
                assert echo(late, b"end") == b"end"
                assert late.recv(100) == b""
        server.task.wait()
    assert [connection.error for connection in server.ended] == [None] * 3


def _in_backlog(port: int) -> bool:
    """Whether the kernel holds a connection for this listening port that nobody has accepted yet (its receive queue, proc(5))."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" and int(row[4].split(":")[1], 16) for row in rows)


def test_drain_is_bounded(config: ServerConfig, executor: KeyExecutor, pki: PKI) -> None:
    with running(config, executor, Busy, drain_timeout=0.2) as server, dial(server, pki) as busy:
        echo(busy, b"begin")
        begun = time.monotonic()
        server.server.drain()
        server.task.wait()
        assert 0.2 <= time.monotonic() - begun < 5


def test_drain_when_the_parent_goes(config: ServerConfig, executor: KeyExecutor) -> None:
    parent, child = socket.socketpair()
    with child, running(config, executor, drain_when_closed=child) as server:
        parent.close()
        server.task.wait()


def test_nothing_is_left_open(config: ServerConfig, executor: KeyExecutor, pki: PKI) -> None:
    gc.collect()
    before, threads = _descriptors(), set(threading.enumerate())
    with running(config, executor) as server, dial(server, pki) as tls, server.dial():
        echo(tls, b"x")
    gc.collect()
    assert _descriptors() == before
    assert set(threading.enumerate()) <= threads


def test_closed_connections_are_freed_at_once(config: ServerConfig, executor: KeyExecutor, pki: PKI) -> None:
    """Not when the garbage collector comes by: an open file may hang on them."""
    freed = threading.Event()

    class Witness(Echo):
        __slots__ = ()

        def __del__(self) -> None:
            freed.set()

    gc.disable()
    try:
        with running(config, executor, Witness) as server:
            with dial(server, pki) as tls:
                echo(tls, b"x")
            assert freed.wait(TIMEOUT)
    finally:
        gc.enable()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_out_of_file_descriptors(config: ServerConfig, executor: KeyExecutor, pki: PKI, caplog: pytest.LogCaptureFixture) -> None:
    """The server pauses instead of spinning or dying, and goes on when there are some again."""
    import resource

    with running(config, executor) as server:
        with dial(server, pki) as tls:
            echo(tls, b"warm")
        server.wait_for_end()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = socket.socket()
        waiting.settimeout(TIMEOUT)
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
        try:
            waiting.connect(server.address)
            deadline = time.monotonic() + TIMEOUT
            while "cannot accept" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "cannot accept" in caplog.text
        with client_context(pki).wrap_socket(waiting, server_hostname="localhost") as tls:
            assert echo(tls, b"hello") == b"hello"


def test_deadlines_keep_the_oldest_first() -> None:
    deadlines, other = Deadlines(10.0), Deadlines(5.0)
    first, second = (_connection() for _ in range(2))
    deadlines.add(first, 0.0)
    deadlines.add(second, 1.0)
    assert deadlines.expired(9.9) == []
    deadlines.add(first, 9.0)
    assert deadlines.expired(11.0) == [second]
    other.add(second, 11.0)
    assert list(deadlines) == [first]
    assert other.expired(16.0) == [second]


def _connection() -> Connection:
    from nss_pk11.net.connection import Connection

    return Connection(None, None, None, 0.0)  # type: ignore[arg-type]
