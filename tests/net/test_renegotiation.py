"""Renegotiation through both drivers: threads that read and write meanwhile, slow tokens, peers that do not want to."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.errors import ConfigurationError, HandshakeTimeout, RenegotiationRefused, Truncated
from nss_pk11.net.blocking import TLSSocket
from nss_pk11.net.client import wrap
from nss_pk11.net.connection import Connection, Echo
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import key_of
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine

from .peers import TIMEOUT, Task, client_context, running, socket_pair
from .test_server import SlowKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nss_pk11.certs import Trust
    from nss_pk11.tls.config import Identity

    from ..support.pki import PKI

BULK = os.urandom(3_000_000)
TLS12: dict[str, Any] = {"max_version": Version.tls1_2, "renegotiation": "secure"}
CLIENT = ClientConfig(server_name="localhost", **TLS12)


def server(sock: socket.socket, identity: Identity, **settings: Any) -> TLSSocket:
    return TLSSocket(sock, Engine.server(ServerConfig(identities=(identity,), **TLS12 | settings)), KeyExecutor())


@pytest.fixture
def ends(identity: Identity, trust: Trust) -> Iterator[tuple[TLSSocket, TLSSocket]]:
    """Our server and our client, which have shaken hands."""
    ours, theirs = socket_pair()
    with server(ours, identity) as a, wrap(theirs, CLIENT, KeyExecutor(trust=trust)) as b:
        shaking = Task(b.do_handshake)
        a.do_handshake()
        shaking.wait()
        yield a, b


def read(tls: TLSSocket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        got += tls.recv()
    return bytes(got)


@pytest.mark.parametrize("by", ["client", "server"])
def test_while_both_read_and_write(ends: tuple[TLSSocket, TLSSocket], by: str) -> None:
    """One thread reads and another writes at either end; whoever waits wrongly hangs, and no byte is lost."""

    def write(tls: TLSSocket, renegotiates: bool) -> None:
        step = len(BULK) // 8
        for start in range(0, len(BULK), step):
            tls.sendall(memoryview(BULK)[start : start + step])
            if renegotiates:
                tls.renegotiate()
        tls.sendall(b"!")  # so that the other end reads until the last handshake is over

    a, b = ends
    writers = [Task(partial(write, a, by == "server")), Task(partial(write, b, by == "client"))]
    readers = [Task(partial(read, tls, len(BULK) + 1)) for tls in ends]
    for task in writers:
        task.wait()
    assert [sha256(task.wait()).digest() for task in readers] == [sha256(BULK + b"!").digest()] * 2


def test_in_one_thread_each(ends: tuple[TLSSocket, TLSSocket]) -> None:
    """A wish comes together with a request; the server's `sendall` of the answer does the handshake."""
    a, b = ends

    def ask() -> bytes:
        before = b.info
        with b._lock:
            b._engine.send(b"request")
            b._engine.renegotiate()
        b._send_in_turn()
        answer = b.recv()
        assert b.info is not before
        return answer

    asking = Task(ask)
    assert a.recv() == b"request"
    a.sendall(b"answer")
    assert asking.wait() == b"answer"


def test_python_renegotiates_when_asked(identity: Identity, pki: PKI) -> None:
    ours, theirs = socket_pair()

    def use() -> bytes:
        context = client_context(pki)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with context.wrap_socket(theirs, server_hostname="localhost") as tls:
            data = tls.recv(5)
            tls.sendall(data)
            return tls.recv(1)

    peer = Task(use)
    with server(ours, identity) as tls:
        tls.do_handshake()
        before = tls.info
        tls.renegotiate()
        assert tls.info is not before
        tls.sendall(b"hello")
        assert tls.recv() == b"hello"
    assert peer.wait() == b""


def test_a_client_that_does_not_answer(identity: Identity, trust: Trust) -> None:
    """It may (RFC 5246 section 7.4.1.1): the time passes, and the connection is as good as before."""
    ours, theirs = socket_pair()
    engine = Engine.server(ServerConfig(identities=(identity,), **TLS12))
    with (
        TLSSocket(ours, engine, KeyExecutor(), handshake_timeout=0.2) as a,
        wrap(theirs, CLIENT, KeyExecutor(trust=trust)) as b,
    ):
        shaking = Task(b.do_handshake)
        a.do_handshake()
        shaking.wait()
        with pytest.raises(HandshakeTimeout):
            a.renegotiate()
        a.sendall(b"still here")
        with pytest.raises(ConfigurationError):
            a.renegotiate()
        before = a.info
        answering = Task(partial(read, b, 20))  # which begins with the HelloRequest
        a._handshake_timeout = TIMEOUT
        a._read_while(lambda: a.info is before)
        a.sendall(b"and anew  ")
        assert answering.wait() == b"still hereand anew  "


def test_refused(identity: Identity, trust: Trust) -> None:
    ours, theirs = socket_pair()
    with server(ours, identity, renegotiation="never") as a, wrap(theirs, CLIENT, KeyExecutor(trust=trust)) as b:
        echoing = Task(lambda: a.sendall(a.recv()))
        with pytest.raises(RenegotiationRefused) as caught:
            b.renegotiate()
        assert caught.value.name == "SSL_ERROR_NO_RENEGOTIATION_ALERT"
        b.sendall(b"on we go")
        assert b.recv() == b"on we go"
        echoing.wait()


def test_a_peer_that_says_goodbye_instead(ends: tuple[TLSSocket, TLSSocket]) -> None:
    a, b = ends
    b.shutdown_write()
    with pytest.raises(Truncated):
        a.renegotiate()


# --- the server loop -------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_key(identity: Identity) -> Iterator[SlowKey]:
    key = SlowKey(identity)
    yield key
    key.go.set()


def test_a_token_signs_slowly_in_a_renegotiation(identity: Identity, trust: Trust, slow_key: SlowKey) -> None:
    """Others are served meanwhile; what the client sent before is answered before."""
    config = ServerConfig(identities=(identity,), **TLS12)
    slow = replace(config, identities=(replace(identity, key=slow_key),))

    class Asks(Echo):
        __slots__ = ()

        def data_received(self, data: bytes | bytearray) -> None:
            super().data_received(data)
            if data == b"before":
                self._connection.engine.renegotiate(config=slow)

    with (
        running(config, KeyExecutor(), Asks) as server,
        KeyExecutor(trust=trust) as executor,
        wrap(server.dial(), CLIENT, executor) as tls,
        wrap(server.dial(), CLIENT, executor) as other,
    ):
        tls.sendall(b"before")
        assert tls.recv() == b"before"
        before = tls.info
        reading = Task(tls.recv)
        assert slow_key.signing.acquire(timeout=TIMEOUT)
        other.sendall(b"meanwhile")
        assert other.recv() == b"meanwhile"
        writing = Task(lambda: tls.sendall(b"behind"))
        slow_key.go.set()
        writing.wait()
        assert reading.wait() == b"behind"
        assert tls.info is not before
        assert slow_key.signed == 1


class OneShot(Echo):
    """Answers once, and says goodbye."""

    __slots__ = ()

    def data_received(self, data: bytes | bytearray) -> None:
        self._connection.write(data * 2)
        self._connection.finish()


def test_an_answer_that_waits_for_the_handshake_is_not_lost(identity: Identity, trust: Trust) -> None:
    """Request and ClientHello come in one piece; the application answers and ends in the middle of the handshake."""
    applications: list[Connection] = []

    def application(connection: Connection) -> OneShot:
        applications.append(connection)
        return OneShot(connection)

    with running(ServerConfig(identities=(identity,), **TLS12), KeyExecutor(), application) as server:
        with KeyExecutor(trust=trust) as executor, wrap(server.dial(), CLIENT, executor) as tls:
            tls.do_handshake()
            with tls._lock:
                tls._engine.renegotiate()
                tls._engine._link.records.send(23, b"request")
            tls._send_in_turn()
            assert read(tls, 14) == b"requestrequest"
            assert tls.recv() == b""
            assert not tls.engine.handshaking
        [ended] = server.wait_for_end()
        assert ended.error is None
        assert len(applications) == 1, "one connection, one application"


def test_slow_reader_of_bulk_data(identity: Identity, trust: Trust) -> None:
    """The server asks while its output is stuck in the kernel."""
    config = ServerConfig(identities=(identity,), **TLS12)

    class Bulk(Echo):
        __slots__ = ("left",)

        def __init__(self, connection: Connection) -> None:
            super().__init__(connection)
            self.left = 0

        def data_received(self, data: bytes | bytearray) -> None:
            self.left = 30
            self._connection.engine.renegotiate()

        def produce(self) -> bool:
            if self.left:
                self.left -= 1
                self._connection.write(BULK[:100_000])
            return bool(self.left)

    with (
        running(config, KeyExecutor(), Bulk) as server,
        KeyExecutor(trust=trust) as executor,
        wrap(server.dial(), CLIENT, executor) as tls,
    ):
        tls.do_handshake()
        before = tls.info
        tls.sendall(b"go")
        assert read(tls, 3_000_000) == BULK[:100_000] * 30
        tls._read_while(lambda: tls.info is before)


def test_key_of(identity: Identity) -> None:
    """The tests above use a key in a token."""
    assert key_of(identity).token.label == "net"
