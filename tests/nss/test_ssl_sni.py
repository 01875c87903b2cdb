"""A server that chooses its settings by the name a client asks for."""

from __future__ import annotations

import socket
import ssl as python_ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import prio, ssl
from nss_pk11.nss._layers import PRFileDesc
from tests.db.tools import Tools
from tests.nss.ends import TICKS, TIMEOUT, TLS1_2, TLS1_3, OurServer, Version, client_context, listening, port_of, serve


@pytest.fixture
def listener(ready: Tools) -> Iterator[PRFileDesc]:
    fd = listening("server")
    yield fd
    prio.PR_Close(fd)


@pytest.fixture
def model(ready: Tools) -> Iterator[PRFileDesc]:
    """Settings with another certificate."""
    fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    serve(fd, "ec")
    yield fd
    prio.PR_Close(fd)


def answer(fd: PRFileDesc) -> str | None:
    prio.PR_Send(fd, prio.PR_Recv(fd, 100, 0, TICKS), 0, TICKS)
    return ssl.SSL_GetNegotiatedHostInfo(fd)


def ask(port: int, files: Path, name: str | None, version: Version, pieces: bool = False) -> str:
    """The common name in the certificate that a client asking for `name` is shown."""
    context = client_context(files, version)
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not pieces:
            with context.wrap_socket(plain, server_hostname=name) as sock:
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
                subject: Any = sock.getpeercert()
                return str(dict(part[0] for part in subject["subject"])["commonName"])
        incoming, outgoing = python_ssl.MemoryBIO(), python_ssl.MemoryBIO()
        talk = context.wrap_bio(incoming, outgoing, server_hostname=name)
        while True:
            try:
                talk.do_handshake()
                break
            except python_ssl.SSLWantReadError:
                for octet in outgoing.read():
                    plain.sendall(bytes([octet]))
                incoming.write(plain.recv(65536))
        talk.write(b"hello")
        plain.sendall(outgoing.read())
        subject = talk.getpeercert()
        return str(dict(part[0] for part in subject["subject"])["commonName"])


versions = pytest.mark.parametrize("version", [TLS1_2, TLS1_3], ids=lambda version: version.name)


@versions
@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
def test_the_hook_gives_the_socket_other_settings(
    version: Version, pieces: bool, listener: PRFileDesc, model: PRFileDesc, files: Path
) -> None:
    """SSL_SNISocketConfigHook, and SSL_ReconfigFD within it."""
    asked: list[object] = []

    def choose(fd: PRFileDesc, names: list[str], arg: object) -> int:
        asked.append((names, arg))
        if names == ["other.example"]:
            assert ssl.SSL_ReconfigFD(model, fd) is fd
            return 0
        return ssl.SSL_SNI_CURRENT_CONFIG_IS_USED

    ssl.SSL_SNISocketConfigHook(listener, choose, "argument")
    with OurServer(listener, answer, count=2) as server:
        assert ask(server.port, files, "other.example", version, pieces) == "ec"
        assert ask(server.port, files, "host.example", version, pieces) == "server"
    assert asked == [(["other.example"], "argument"), (["host.example"], "argument")]
    assert server.results[0] == "other.example"


@versions
def test_a_client_that_asks_for_nobody(version: Version, listener: PRFileDesc, files: Path) -> None:
    ssl.SSL_SNISocketConfigHook(listener, lambda fd, names, arg: pytest.fail("asked"))
    with OurServer(listener, answer) as server:
        assert ask(server.port, files, None, version) == "server"


@versions
def test_a_name_may_be_refused(version: Version, listener: PRFileDesc, files: Path) -> None:
    ssl.SSL_SNISocketConfigHook(listener, lambda fd, names, arg: ssl.SSL_SNI_SEND_ALERT)
    with OurServer(listener, answer) as server, pytest.raises(python_ssl.SSLError, match=r"(?i)unrecognized.name"):
        ask(server.port, files, "host.example", version)
    assert len(server.results) == 1


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x16\x03\x01\x00\x00", b""]
)
def test_what_is_no_client_hello_is_the_engines(data: bytes, listener: PRFileDesc) -> None:
    ssl.SSL_SNISocketConfigHook(listener, lambda fd, names, arg: pytest.fail("asked"))
    with OurServer(listener, answer) as server, socket.create_connection(("127.0.0.1", port_of(listener)), TIMEOUT) as plain:
        plain.sendall(data)
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(100):
            pass
    assert isinstance(server.results[0], str)
    assert "ERROR" in server.results[0]


def test_records_of_nothing_do_not_wait_for_a_name(listener: PRFileDesc) -> None:
    """Whoever sends them without end would fill memory."""
    ssl.SSL_SNISocketConfigHook(listener, lambda fd, names, arg: pytest.fail("asked"))
    with OurServer(listener, answer) as server, socket.create_connection(("127.0.0.1", port_of(listener)), TIMEOUT) as plain:
        plain.sendall(b"\x16\x03\x01\0\0" * 3)
        assert plain.recv(100)[:1] == b"\x15"
    assert "ERROR" in str(server.results[0])


def test_without_a_hook_again(listener: PRFileDesc, files: Path) -> None:
    ssl.SSL_SNISocketConfigHook(listener, lambda fd, names, arg: pytest.fail("asked"))
    ssl.SSL_SNISocketConfigHook(listener, None)
    with OurServer(listener, answer) as server:
        assert ask(server.port, files, "host.example", TLS1_3) == "server"


def test_plain_descriptors(listener: PRFileDesc, error: Callable[[], str]) -> None:
    plain = prio.PR_NewTCPSocket()
    calls: list[tuple[Callable[..., object], tuple[object, ...], str]] = [
        (ssl.SSL_SNISocketConfigHook, (plain, None), "PR_BAD_DESCRIPTOR_ERROR"),
        (ssl.SSL_ReconfigFD, (plain, listener), "PR_BAD_DESCRIPTOR_ERROR"),
        (ssl.SSL_ReconfigFD, (listener, plain), "PR_BAD_DESCRIPTOR_ERROR"),
        (ssl.SSL_ReconfigFD, (None, listener), "SEC_ERROR_INVALID_ARGS"),
    ]
    for call, arguments, name in calls:
        with pytest.raises(NSPRError):
            call(*arguments)
        assert error() == name
    prio.PR_Close(plain)
