"""TLSSocket against Python's ssl module, over a socket pair."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.errors import AlertReceived, CertificateError, HandshakeTimeout, InternalError, TLSError, Truncated
from nss_pk11.net.blocking import TLSSocket
from nss_pk11.net.client import connect, wrap
from nss_pk11.net.executor import KeyExecutor, Unverified
from nss_pk11.sessions import ClientCache, ServerCache, TicketKeys
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.waits import Operation

from .peers import TIMEOUT, Task, client_context, running, server_context, socket_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from nss_pk11.certs import Trust
    from nss_pk11.tls.config import Identity
    from nss_pk11.tls.session import Session

    from ..support.pki import PKI

BULK = os.urandom(3_000_000)


def server(sock: socket.socket, identity: Identity, **options: Any) -> TLSSocket:
    return TLSSocket(sock, Engine.server(ServerConfig(identities=(identity,))), KeyExecutor(), **options)


def client(sock: socket.socket, trust: Trust, **options: Any) -> TLSSocket:
    return wrap(sock, ClientConfig(server_name="localhost"), KeyExecutor(trust=trust), **options)


def peer_client(sock: socket.socket, pki: PKI, use: Callable[[ssl.SSLSocket], object]) -> Task:
    """Python's ssl as the client."""

    def work() -> object:
        with client_context(pki).wrap_socket(sock, server_hostname="localhost") as tls:
            return use(tls)

    return Task(work)


def peer_server(sock: socket.socket, pki: PKI, use: Callable[[ssl.SSLSocket], object], **attributes: Any) -> Task:
    """Python's ssl as the server."""

    def work() -> object:
        context = server_context(pki.server("p256"), **attributes)
        with context.wrap_socket(sock, server_side=True) as tls:
            return use(tls)

    return Task(work)


def read_all(tls: ssl.SSLSocket) -> bytes:
    return b"".join(iter(lambda: tls.recv(65536), b""))


def test_server_with_a_key_on_a_token(identity: Identity, pki: PKI) -> None:
    ours, theirs = socket_pair()

    def use(tls: ssl.SSLSocket) -> tuple[str | None, bytes]:
        tls.sendall(b"ping")
        return tls.version(), tls.recv(100)

    peer = peer_client(theirs, pki, use)
    with server(ours, identity) as tls:
        assert tls.recv() == b"ping"
        assert tls.info.version
        assert tls.info.server_name == "localhost"
        assert tls.info.identity is identity
        tls.sendall(b"pong")
        assert peer.wait() == ("TLSv1.3", b"pong")


def test_client_verifies_the_server(trust: Trust, pki: PKI) -> None:
    ours, theirs = socket_pair()
    peer = peer_server(theirs, pki, lambda tls: tls.sendall(b"hello"))
    with client(ours, trust) as tls:
        assert tls.recv(2) == b"he"
        assert tls.pending() == 3
        assert tls.recv() == b"llo"
        assert len(tls.info.peer_chain) == 2
        peer.wait()


def test_client_refuses_a_wrong_name_and_says_so(trust: Trust, pki: PKI) -> None:
    ours, theirs = socket_pair()
    peer = peer_server(theirs, pki, lambda tls: tls.recv(1))
    config = ClientConfig(server_name="example.org")
    with wrap(ours, config, KeyExecutor(trust=trust)) as tls:
        with pytest.raises(CertificateError) as refused:
            tls.do_handshake()
        assert refused.value.name == "SSL_ERROR_BAD_CERT_DOMAIN"
        with pytest.raises(CertificateError):  # and stays refused
            tls.sendall(b"secret")
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad certificate"):
        peer.wait()


def test_both_ends_export_the_same(identity: Identity, pki: PKI, trust: Trust) -> None:
    ours, theirs = socket_pair()
    with server(ours, identity) as a, client(theirs, trust) as b:
        shaking = Task(b.do_handshake)
        a.do_handshake()
        shaking.wait()
        assert a.export(b"EXPERIMENTAL-label", b"context", 32) == b.export(b"EXPERIMENTAL-label", b"context", 32)
        assert a.channel_binding() == b.channel_binding()
        assert len(a.channel_binding("tls-server-end-point")) == 32


def test_alert_of_the_peer(identity: Identity, pki: PKI) -> None:
    ours, theirs = socket_pair()

    def work() -> None:
        with ssl.create_default_context().wrap_socket(theirs, server_hostname="localhost"):
            pass

    peer = Task(work)  # knows none of our roots
    with server(ours, identity) as tls, pytest.raises(AlertReceived) as received:
        tls.do_handshake()
    assert received.value.name == "SSL_ERROR_UNKNOWN_CA_ALERT"
    with pytest.raises(ssl.SSLCertVerificationError):
        peer.wait()


def test_recv_into_and_bulk(identity: Identity, pki: PKI) -> None:
    ours, theirs = socket_pair()

    def use(tls: ssl.SSLSocket) -> None:
        tls.sendall(BULK)
        tls.unwrap()

    peer = peer_client(theirs, pki, use)
    received, buffer = sha256(), bytearray(100_001)
    with server(ours, identity) as tls:
        total = 0
        while count := tls.recv_into(buffer):
            received.update(memoryview(buffer)[:count])
            total += count
        assert total == len(BULK)
        assert received.digest() == sha256(BULK).digest()
        tls.shutdown_write()
        peer.wait()


def test_full_duplex(identity: Identity, pki: PKI) -> None:
    """Both sides write far more than the kernel buffers while they read: whoever waits wrongly hangs."""
    ours, theirs = socket_pair()

    def use(tls: ssl.SSLSocket) -> bytes:
        # Python's ssl is not made for two threads at once; echoing in turns keeps both directions full all the same.
        got = []
        left = len(BULK)
        while left:
            chunk = tls.recv(65536)
            left -= len(chunk)
            got.append(chunk)
            tls.sendall(chunk)
        return sha256(b"".join(got)).digest()

    peer = peer_client(theirs, pki, use)
    with server(ours, identity) as tls:
        tls.do_handshake()
        writer = Task(lambda: tls.sendall(BULK))
        back = bytearray()
        while len(back) < len(BULK):
            back += tls.recv()
        writer.wait()
        assert peer.wait() == sha256(BULK).digest()
        assert bytes(back) == BULK


def test_key_updates_while_both_write(identity: Identity, trust: Trust) -> None:
    """A KeyUpdate asks the reader to send, while the writer sends: the records must keep their order."""
    ours, theirs = socket_pair()
    with server(ours, identity) as a, client(theirs, trust) as b:
        shaking = Task(b.do_handshake)
        a.do_handshake()
        shaking.wait()

        def write(tls: TLSSocket) -> None:
            for start in range(0, len(BULK), 100_000):
                tls.sendall(memoryview(BULK)[start : start + 100_000])
                tls.update_keys(request_peer=True)

        def read(tls: TLSSocket) -> bytes:
            got = bytearray()
            while len(got) < len(BULK):
                got += tls.recv()
            return sha256(got).digest()

        tasks = [Task(lambda: write(a)), Task(lambda: write(b)), Task(lambda: read(a)), Task(lambda: read(b))]
        results = [task.wait() for task in tasks]
    assert results == [None, None, sha256(BULK).digest(), sha256(BULK).digest()]


def test_half_close(identity: Identity, trust: Trust) -> None:
    """We say goodbye first and still read what the peer has to say."""
    ours, theirs = socket_pair()
    with server(theirs, identity) as far, client(ours, trust) as near:

        def answer() -> bytes:
            question = b"".join(iter(far.recv, b""))
            far.sendall(b"answer to " + question)
            far.shutdown_write()
            return question

        peer = Task(answer)
        near.sendall(b"question")
        near.shutdown_write()
        assert near.recv() == b"answer to question"
        assert near.recv() == b""
        assert peer.wait() == b"question"


def test_unwrap_gives_the_plain_socket_back(identity: Identity, pki: PKI) -> None:
    ours, theirs = socket_pair()

    def use(tls: ssl.SSLSocket) -> bytes:
        tls.sendall(b"x")
        plain = tls.unwrap()
        plain.sendall(b"plain")
        answer = plain.recv(100)
        plain.close()
        return answer

    peer = peer_client(theirs, pki, use)
    tls = server(ours, identity)
    assert tls.recv() == b"x"
    with tls.unwrap() as plain:
        assert plain.recv(100) == b"plain"
        plain.sendall(b"too")
    assert peer.wait() == b"too"


def test_truncation_is_an_error_not_an_end(identity: Identity, pki: PKI) -> None:
    ours, theirs = socket_pair()

    def use(tls: ssl.SSLSocket) -> None:
        tls.sendall(b"half a mess")
        os.close(tls.detach())

    peer = peer_client(theirs, pki, use)
    with server(ours, identity) as tls:
        assert tls.recv() == b"half a mess"
        with pytest.raises(Truncated) as truncated:
            tls.recv()
        assert truncated.value.name == "PR_END_OF_FILE_ERROR"
    peer.wait()


@pytest.mark.parametrize(("parting", "error", "left"), [(b"", Truncated, 1), (b"no record at all", TLSError, 0)])
def test_session_of_a_connection_that_broke_is_forgotten(
    identity: Identity, pki: PKI, parting: bytes, error: type[TLSError], left: int
) -> None:
    """After a fatal alert (RFC 5246 section 7.2.2); the mere end of the transport is none."""
    ours, theirs = socket_pair()
    context = client_context(pki)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def work() -> None:
        tls = context.wrap_socket(theirs, server_hostname="localhost")
        with socket.socket(fileno=tls.detach()) as plain:
            plain.settimeout(10)
            plain.sendall(parting)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(1000):
                pass

    peer, sessions = Task(work), ServerCache()
    engine = Engine.server(ServerConfig(identities=(identity,), session_ids=True))
    with TLSSocket(ours, engine, KeyExecutor(sessions=sessions)) as tls:
        tls.do_handshake()
        assert len(sessions) == 1
        with pytest.raises(error):
            tls.recv()
        assert len(sessions) == left
    peer.wait()


def test_data_that_came_with_finished_is_not_lost_to_an_error_behind_it(identity: Identity, pki: PKI) -> None:
    ours, theirs = socket_pair()

    def work() -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context(pki).wrap_bio(incoming, outgoing, server_hostname="localhost")
        with theirs:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    theirs.sendall(outgoing.read())
                    incoming.write(theirs.recv(65536))
            tls.write(b"hello")
            theirs.sendall(outgoing.read() + b"no record at all")
            while theirs.recv(1000):
                pass

    peer = Task(work)
    with server(ours, identity) as tls:
        assert tls.recv() == b"hello"
        with pytest.raises(TLSError):
            tls.recv()
    peer.wait()


def test_an_interrupted_operation_ends_the_handshake(identity: Identity, pki: PKI) -> None:
    """As Ctrl-C in a PIN prompt does."""

    class Interrupted(KeyExecutor):
        def run(self, operation: Operation, timeout: float = 0, peer: object = ()) -> object:
            raise KeyboardInterrupt

    ours, theirs = socket_pair()
    peer = peer_client(theirs, pki, lambda tls: None)
    tls = TLSSocket(ours, Engine.server(ServerConfig(identities=(identity,))), Interrupted())
    with tls:
        with pytest.raises(KeyboardInterrupt):
            tls.do_handshake()
        with pytest.raises(InternalError):
            tls.do_handshake()
    with pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"):
        peer.wait()


def test_end_during_the_handshake(identity: Identity) -> None:
    ours, theirs = socket_pair()
    theirs.close()
    with server(ours, identity) as tls, pytest.raises(Truncated, match="during the handshake"):
        tls.do_handshake()


def test_handshake_timeout_is_for_the_whole_of_it(identity: Identity, pki: PKI) -> None:
    """A client that sends a byte now and then gets no more time for it."""
    ours, theirs = socket_pair()
    stop = threading.Event()

    def drip() -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            client_context(pki).wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
        for byte in outgoing.read():
            theirs.send(bytes([byte]))
            if stop.wait(0.05):
                return

    peer = Task(drip)
    with server(ours, identity, handshake_timeout=0.3) as tls:
        with pytest.raises(HandshakeTimeout, match=r"within 0\.3 s"):
            tls.do_handshake()
        assert tls.gettimeout() == TIMEOUT
    stop.set()
    with suppress(OSError):
        peer.wait()
    theirs.close()


def test_recv_timeout_leaves_the_connection_whole(identity: Identity, pki: PKI) -> None:
    ours, theirs = socket_pair()
    go = threading.Event()

    def use(tls: ssl.SSLSocket) -> bytes:
        tls.do_handshake()
        go.wait(10)
        tls.sendall(b"late")
        return tls.recv(10)

    peer = peer_client(theirs, pki, use)
    with server(ours, identity) as tls:
        tls.do_handshake()
        tls.settimeout(0.05)
        with pytest.raises(TimeoutError):
            tls.recv()
        go.set()
        tls.settimeout(10)
        assert tls.recv() == b"late"
        tls.sendall(b"ok")
        assert peer.wait() == b"ok"


def test_send_timeout_leaves_the_rest_queued(identity: Identity, pki: PKI) -> None:
    ours, theirs = socket_pair()
    go = threading.Event()

    def use(tls: ssl.SSLSocket) -> bytes:
        go.wait(10)
        return read_all(tls)

    peer = peer_client(theirs, pki, use)
    with server(ours, identity) as tls:
        tls.do_handshake()
        tls.settimeout(0.05)
        with pytest.raises(TimeoutError):
            tls.sendall(BULK)  # far more than the kernel buffers
        go.set()
        tls.settimeout(10)
        tls.sendall(b"the end")
        tls.shutdown_write()
        got = peer.wait()
    assert got.endswith(b"the end")
    assert BULK.startswith(got.removesuffix(b"the end"))


def test_failing_token_is_internal_error_to_the_peer(identity: Identity, pki: PKI) -> None:
    class Broken(KeyExecutor):
        def run(self, operation: Any) -> object:
            raise RuntimeError("a bug in a driver")

    ours, theirs = socket_pair()
    peer = peer_client(theirs, pki, lambda tls: None)
    with TLSSocket(ours, Engine.server(ServerConfig(identities=(identity,))), Broken()) as tls, pytest.raises(InternalError):
        tls.do_handshake()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert internal error"):
        peer.wait()


def test_sessions_are_resumed(identity: Identity, trust: Trust) -> None:
    cache: ClientCache[Session] = ClientCache()
    config = ServerConfig(identities=(identity,), tickets=TicketKeys())
    with KeyExecutor() as executor, running(config, executor) as server:
        resumed = []
        for _ in range(2):
            with connect(*server.address, trust=trust, sessions=cache) as tls:
                tls.sendall(b"ping")
                assert tls.recv() == b"ping"
                resumed.append(tls.info.resumed)
    assert resumed == [False, True]


def test_session_of_a_careless_connection_is_not_resumed_by_a_careful_one(identity: Identity, trust: Trust) -> None:
    """Resumption shows no certificate: a session may not smuggle in a server that would be refused now."""
    cache: ClientCache[Session] = ClientCache()
    config = ServerConfig(identities=(identity,), tickets=TicketKeys())
    wrong_name = ClientConfig(server_name="example.org")
    with KeyExecutor() as executor, running(config, executor) as server:
        with connect(*server.address, config=wrong_name, trust=Unverified(), sessions=cache) as tls:
            tls.sendall(b"ping")
            assert tls.recv() == b"ping"
        with pytest.raises(CertificateError):
            connect(*server.address, config=wrong_name, trust=trust, sessions=cache)
