"""Connections that end badly: what came before is not lost, and why they ended is told.  The other end is Python's `ssl`."""

from __future__ import annotations

import select
import socket
import ssl as python_ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import _sidcaches, prio, ssl
from nss_pk11.nss.prio import PR_POLL_READ, PRFileDesc, PRPollDesc

from .ends import (
    TICKS,
    TLS1_2,
    TLS1_3,
    ByHand,
    OurServer,
    PythonServer,
    arrived,
    by_hand,
    client_context,
    connected,
    listening,
    nonblocking,
    port_of,
    python_echo,
    server_context,
)

pytestmark = pytest.mark.usefixtures("ready")
VERSIONS = pytest.mark.parametrize("version", [TLS1_2, TLS1_3])


def shake_hands(fd: PRFileDesc, far: ByHand) -> None:
    """To the end on the far side; what it says last is not read yet."""
    done = False
    while not done:
        with suppress(NSPRError):
            ssl.SSL_ForceHandshake(fd)
        far.receive()
        done = far.step(far.peer.do_handshake)
        if not done:
            far.flush()
            arrived(fd)


@VERSIONS
def test_data_before_a_reset(files: Path, version: python_ssl.TLSVersion) -> None:
    """Sessions come with it, of a peer whose address nobody can tell any more."""
    with by_hand(server_context(files, version=version)) as (fd, far):
        shake_hands(fd, far)
        far.peer.write(b"last words")
        far.flush()
        far.reset()
        arrived(fd, select.POLLERR)
        with suppress(NSPRError):
            prio.PR_GetPeerName(fd)
            pytest.fail("the system still knows the peer")
        assert prio.PR_Read(fd, 100) == b"last words"


@VERSIONS
@pytest.mark.parametrize("call", ["read", "force"])
def test_everything_at_once(files: Path, version: python_ssl.TLSVersion, call: str) -> None:
    """The handshake's end, data and an error in one read: each is told when it is asked for."""
    told: list[int] = []
    with by_hand(server_context(files, version=version)) as (fd, far):
        ssl.SSL_HandshakeCallback(fd, lambda *_: told.append(1), None)
        shake_hands(fd, far)
        far.peer.write(b"data")
        far.flush(b"\x17\x03\x03\x00\x20" + bytes(32))
        arrived(fd)
        if call == "force":
            ssl.SSL_ForceHandshake(fd)
        assert prio.PR_Read(fd, 100) == b"data"
        assert told == [1]
        with pytest.raises(NSPRError, match="SSL_ERROR_BAD_MAC_READ"):
            prio.PR_Read(fd, 100)


GOODBYE = b"\x15\x03\x03\x00\x02\x01\x00"


@pytest.mark.parametrize("paused", [False, True])
def test_a_goodbye_in_the_handshake(files: Path, paused: bool) -> None:
    """An end like any other, as in NSS; also where it was read while a hook had put its answer off."""
    with by_hand(server_context(files, version=TLS1_2)) as (fd, far):
        ssl.SSL_AuthCertificateHook(fd, lambda *_: ssl.SECWouldBlock if paused else None, None)
        with pytest.raises(NSPRError, match="PR_WOULD_BLOCK_ERROR"):
            ssl.SSL_ForceHandshake(fd)
        if paused:
            far.receive()
            assert not far.step(far.peer.do_handshake)
        far.flush(GOODBYE)
        arrived(fd)
        while paused and ssl.SSL_PeerCertificate(fd) is None:
            with pytest.raises(NSPRError, match="PR_WOULD_BLOCK_ERROR"):
                ssl.SSL_ForceHandshake(fd)
        if paused:
            ssl.SSL_AuthCertificateComplete(fd, 0)
        for _ in range(2):
            with pytest.raises(NSPRError, match="PR_END_OF_FILE_ERROR"):
                ssl.SSL_ForceHandshake(fd)


@pytest.fixture
def served(files: Path) -> Iterator[tuple[PRFileDesc, ByHand]]:
    """A server of ours, not blocking, and its client of TLS 1.2, whose session has an id."""
    context = client_context(files, TLS1_2)
    context.options |= python_ssl.OP_NO_TICKET
    listener = listening()
    with ByHand(socket.create_connection(("127.0.0.1", port_of(listener))), context, server_side=False) as far:
        fd, _ = prio.PR_Accept(listener, TICKS)
        yield nonblocking(fd), far
    prio.PR_Close(fd)
    prio.PR_Close(listener)


def say_all_but_the_end(fd: PRFileDesc, far: ByHand) -> None:
    """The handshake up to the client's Finished, which is not sent yet."""
    assert not far.step(far.peer.do_handshake)
    far.flush()
    arrived(fd)
    with suppress(NSPRError):
        ssl.SSL_ForceHandshake(fd)
    while not far.unsaid:
        far.receive()
        assert not far.step(far.peer.do_handshake)


def test_a_client_that_is_gone_before_its_session_is_kept(served: tuple[PRFileDesc, ByHand]) -> None:
    fd, far = served
    say_all_but_the_end(fd, far)
    far.flush()
    far.reset()
    arrived(fd, select.POLLERR)
    with pytest.raises(NSPRError, match="PR_CONNECT_RESET_ERROR"):
        ssl.SSL_ForceHandshake(fd)


def test_what_was_wrong_is_told_after_a_reset(served: tuple[PRFileDesc, ByHand]) -> None:
    """And the session is forgotten, although the peer's address cannot be asked for any more."""
    fd, far = served
    say_all_but_the_end(fd, far)
    far.flush()
    arrived(fd)
    ssl.SSL_ForceHandshake(fd)
    session_id, cache = ssl.SSL_GetSessionID(fd), _sidcaches._servers.cache
    assert session_id is not None
    assert cache is not None
    assert cache.get(session_id, "127.0.0.1") is not None
    far.flush(b"\x17\x03\x03\x00\x20" + bytes(32))
    far.reset()
    arrived(fd, select.POLLERR)
    with pytest.raises(NSPRError, match="SSL_ERROR_BAD_MAC_READ"):
        prio.PR_Read(fd, 1)
    assert cache.get(session_id, "127.0.0.1") is None


def test_why_the_peer_went_while_we_wrote(files: Path) -> None:
    """TLS 1.3: the client's handshake is over before the server refuses it; a write fails first, a read says why."""
    context = server_context(files, version=TLS1_3)
    context.verify_mode = python_ssl.CERT_REQUIRED
    context.load_verify_locations(files / "ca.pem")
    with PythonServer(context, python_echo) as server:
        fd = connected(server.port)
        ssl.SSL_ForceHandshake(fd)
        with pytest.raises(NSPRError, match="PR_CONNECT_RESET_ERROR"):
            _write_for_ever(fd)
        with pytest.raises(NSPRError, match="SSL_ERROR_RX_CERTIFICATE_REQUIRED_ALERT"):
            prio.PR_Recv(fd, 1, 0, TICKS)
        prio.PR_Close(fd)


def _write_for_ever(fd: PRFileDesc) -> None:
    while True:
        prio.PR_Send(fd, bytes(1000), 0, TICKS)


def test_reading_goes_on_after_writing_was_shut_down(files: Path) -> None:
    """Also where the peer wants an answer, which it cannot have any more: a KeyUpdate that asks for one."""

    def speak(fd: PRFileDesc) -> bytes:
        end = prio.PR_Recv(fd, 1, 0, TICKS)
        for _ in range(2):
            ssl.SSL_KeyUpdate(fd, True)
            prio.PR_Send(fd, b"still here", 0, TICKS)
        return end

    listener = listening()
    with OurServer(listener, speak) as server:
        fd = connected(server.port)
        ssl.SSL_ForceHandshake(fd)
        prio.PR_Shutdown(fd, prio.PR_SHUTDOWN_SEND)
        received = b""
        while more := prio.PR_Recv(fd, 5, 0, TICKS):
            received += more
            assert prio.PR_Poll([PRPollDesc(fd, PR_POLL_READ)], TICKS) == 1
        assert received == b"still here" * 2
        prio.PR_Close(fd)
    assert server.results == [b""]
    prio.PR_Close(listener)
