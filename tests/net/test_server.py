"""The server loop: many connections, slow tokens, bad peers.  Its end is in `test_server_end`."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.errors import HandshakeTimeout, TokenError, Truncated
from nss_pk11.net.connection import Echo
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import key_of
from nss_pk11.sessions import ServerCache, TicketKeys
from nss_pk11.tls.config import ServerConfig

from .peers import TIMEOUT, KeyWith, Running, Task, client_context, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nss_pk11.net.connection import Connection
    from nss_pk11.tls.config import Identity

    from ..support.pki import PKI

BULK = os.urandom(2_000_000)


@pytest.fixture
def config(identity: Identity) -> ServerConfig:
    return ServerConfig(identities=(identity,), tickets=TicketKeys(), session_ids=True)


@pytest.fixture
def executor() -> Iterator[KeyExecutor]:
    with KeyExecutor(sessions=ServerCache()) as executor:
        yield executor


@pytest.fixture
def server(config: ServerConfig, executor: KeyExecutor) -> Iterator[Running]:
    with running(config, executor) as server:
        yield server


def dial(server: Running, pki: PKI) -> ssl.SSLSocket:
    return client_context(pki).wrap_socket(server.dial(), server_hostname="localhost")


def echo(tls: ssl.SSLSocket, data: bytes) -> bytes:
    tls.sendall(data)
    got = b""
    while len(got) < len(data) and (chunk := tls.recv(65536)):
        got += chunk
    return got


# --- good peers ----------------------------------------------------------------------------------------------------------


def test_echo_and_goodbye(server: Running, pki: PKI) -> None:
    with dial(server, pki) as tls:
        assert tls.version() == "TLSv1.3"
        assert echo(tls, b"hello") == b"hello"
        tls.unwrap().close()
    [ended] = server.wait_for_end()
    assert ended.error is None
    assert ended.handshake_seconds > 0
    assert ended.bytes_in > 0
    assert ended.bytes_out > 0


def test_many_at_once(server: Running, pki: PKI) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(dial(server, pki)) for _ in range(60)]
        for number, tls in enumerate(connections):
            tls.sendall(b"%d" % number)
        assert [int(tls.recv(10)) for tls in connections] == list(range(60))
    server.wait_for_end(60)


def test_bulk_with_a_reader_that_is_slower_than_the_writer(server: Running, pki: PKI) -> None:
    """The echo stops being read when its output is stuck: the writer has to wait, and nothing is lost.

    One thread does both, as an SSLSocket is not for two at once; it reads a little wherever it could write much.
    """
    with dial(server, pki) as tls:
        tls.setblocking(False)
        incoming, sent, received = sha256(), 0, 0
        while received < len(BULK):
            with suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                sent += tls.send(BULK[sent : sent + 300_000]) if sent < len(BULK) else 0
            try:
                chunk = tls.recv(30_000)
            except ssl.SSLWantReadError:
                select.select([tls], [tls] if sent < len(BULK) else [], [], TIMEOUT)
                continue
            assert chunk
            incoming.update(chunk)
            received += len(chunk)
    assert incoming.digest() == sha256(BULK).digest()


def test_byte_by_byte(server: Running, pki: PKI) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(pki).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with server.dial() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    sock.send(bytes([byte]))
                incoming.write(sock.recv(65536))
        tls.write(b"ping")
        for byte in outgoing.read():
            sock.send(bytes([byte]))
        while True:
            try:
                assert tls.read(100) == b"ping"
                break
            except ssl.SSLWantReadError:
                incoming.write(sock.recv(65536))


def test_half_close_is_answered_to_the_end(config: ServerConfig, executor: KeyExecutor, pki: PKI) -> None:
    """A client that says goodbye right behind its request still gets the whole answer."""

    class Late(Echo):
        """Answers only when the client has said all it has to say."""

        __slots__ = ("data", "peer")

        def __init__(self, connection: Connection) -> None:
            self.peer, self.data = connection, b""

        def data_received(self, data: bytes | bytearray) -> None:
            self.data += data

        def eof_received(self) -> None:
            self.peer.write(self.data * 100_000)
            self.peer.finish()

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(pki).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with running(config, executor, Late) as server, server.dial() as sock:

        def step(action: Any) -> Any:
            while True:
                try:
                    return action()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))

        step(tls.do_handshake)
        tls.write(b"0123456789")
        with suppress(ssl.SSLWantReadError):
            tls.unwrap()
        sock.sendall(outgoing.read())
        got = b""
        while chunk := sock.recv(1 << 20):  # the library reads nothing after its own goodbye: count the records
            got += chunk
    assert len(got) > 1_000_000
    [ended] = server.wait_for_end()
    assert ended.error is None


# --- bad peers -----------------------------------------------------------------------------------------------------------


def test_http_gets_an_alert(server: Running) -> None:
    with server.dial() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(100) == bytes.fromhex("15 03 01 00 02 02 0a")
        assert sock.recv(100) == b""
    [ended] = server.wait_for_end()
    assert ended.error
    assert ended.error.name == "SSL_ERROR_RX_UNKNOWN_RECORD_TYPE"
    assert "HTTP" in ended.error.detail


@pytest.mark.parametrize(
    "garbage", [b"\0" * 100, b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 100, os.urandom(5000)], ids=range(4)
)
def test_garbage_hurts_nobody_else(server: Running, pki: PKI, garbage: bytes) -> None:
    with dial(server, pki) as bystander:
        with server.dial() as sock:
            sock.sendall(garbage)
            with suppress(ConnectionError):
                while sock.recv(100):
                    pass
        [ended] = server.wait_for_end()
        assert ended.error
        assert echo(bystander, b"still here") == b"still here"


def test_stalling_clients_are_cut_off(config: ServerConfig, executor: KeyExecutor, pki: PKI) -> None:
    with running(config, executor, handshake_timeout=1.0) as server, server.dial() as silent, server.dial() as slow:
        slow.sendall(b"\x16\x03\x01")
        with dial(server, pki) as bystander:
            assert silent.recv(100) == bytes.fromhex("15 03 01 00 02 01 00")
            assert slow.recv(100) == bytes.fromhex("15 03 01 00 02 01 00")
            silent.close()
            slow.close()
            ended = server.wait_for_end(2)
            assert all(isinstance(connection.error, HandshakeTimeout) for connection in ended)
            assert echo(bystander, b"still here") == b"still here"


def test_peer_that_vanishes(server: Running, pki: PKI) -> None:
    server.dial().close()
    tls = dial(server, pki)
    tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closing resets the connection
    echo(tls, b"x")
    os.close(tls.detach())
    first, second = server.wait_for_end(2)
    assert isinstance(first.error, Truncated)
    assert "during the handshake" in first.error.detail
    assert isinstance(second.error, Truncated)
    assert second.error.name == "PR_CONNECT_RESET_ERROR"


def test_idle_connections_are_told_goodbye(config: ServerConfig, executor: KeyExecutor, pki: PKI) -> None:
    with running(config, executor, idle_timeout=0.2) as server, dial(server, pki) as tls:
        assert tls.recv(100) == b""
        tls.unwrap().close()
        [ended] = server.wait_for_end()
        assert ended.error is None


def test_peer_that_never_reads(config: ServerConfig, executor: KeyExecutor, pki: PKI) -> None:
    """Backpressure stops it, the idle timeout ends it."""
    with running(config, executor, idle_timeout=0.3) as server, dial(server, pki) as tls:
        with suppress(OSError):
            while True:
                tls.sendall(BULK)
        [ended] = server.wait_for_end()
        assert isinstance(ended.error, HandshakeTimeout)
        assert ended.unsent is not None


def test_bug_in_an_application_ends_that_connection_only(
    config: ServerConfig, executor: KeyExecutor, pki: PKI, caplog: pytest.LogCaptureFixture
) -> None:
    class Buggy(Echo):
        def data_received(self, data: bytes | bytearray) -> None:
            if data == b"bug":
                raise ZeroDivisionError
            super().data_received(data)

    with running(config, executor, Buggy) as server, dial(server, pki) as good, dial(server, pki) as bad:
        bad.sendall(b"bug")
        with suppress(ssl.SSLError):
            assert bad.recv(100) == b""
        bad.close()
        [ended] = server.wait_for_end()
        assert ended.error
        assert "ZeroDivisionError" in ended.error.detail
        assert echo(good, b"fine") == b"fine"
    assert "a bug" in caplog.text


# --- slow tokens ---------------------------------------------------------------------------------------------------------


class SlowKey(KeyWith):
    """Says that it is far away, and signs when it is told to."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(key_of(identity), latency=0.05)
        self.go = threading.Event()
        self.signing = threading.Semaphore(0)
        self.signed = 0

    def sign(self, algorithm: Any, message: bytes, *, prehashed: bool, patient: bool) -> bytes:
        self.signing.release()
        assert self.go.wait(TIMEOUT)
        self.signed += 1
        return self._key.sign(algorithm, message)


@pytest.fixture
def slow_key(identity: Identity) -> Iterator[SlowKey]:
    key = SlowKey(identity)
    yield key
    key.go.set()


def test_slow_token_stalls_nobody(
    config: ServerConfig, identity: Identity, executor: KeyExecutor, pki: PKI, slow_key: SlowKey
) -> None:
    """While signatures are under way, several at once, the loop serves connections that need none."""
    slow = replace(config, identities=(replace(identity, key=slow_key),))
    with running(slow, executor) as server:
        waiting = [Task(partial(dial, server, pki)) for _ in range(5)]
        for _ in waiting:
            assert slow_key.signing.acquire(timeout=TIMEOUT)
        with server.dial() as sock:  # five signatures are under way, and yet:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert sock.recv(100)
        slow_key.go.set()
        for task in waiting:
            with task.wait() as tls:
                assert echo(tls, b"hello") == b"hello"


def test_client_that_leaves_while_the_token_signs(
    config: ServerConfig, identity: Identity, executor: KeyExecutor, pki: PKI, slow_key: SlowKey
) -> None:
    slow = replace(config, identities=(replace(identity, key=slow_key),))
    hello = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client_context(pki).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    with running(slow, executor, handshake_timeout=5.0) as server:
        sock = server.dial()
        sock.sendall(hello.read())
        assert slow_key.signing.acquire(timeout=TIMEOUT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        [ended] = server.wait_for_end()
        assert isinstance(ended.error, Truncated)
        slow_key.go.set()
        with dial(server, pki) as tls:  # the late answer hurts nobody
            assert echo(tls, b"hello") == b"hello"


def test_token_slower_than_the_handshake_may_be(
    config: ServerConfig, identity: Identity, executor: KeyExecutor, pki: PKI, slow_key: SlowKey
) -> None:
    slow = replace(config, identities=(replace(identity, key=slow_key),))
    with running(slow, executor, handshake_timeout=1.0) as server:
        with pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"):
            dial(server, pki)
        [ended] = server.wait_for_end()
        assert isinstance(ended.error, TokenError)
        assert "did not answer" in ended.error.detail
        slow_key.go.set()
