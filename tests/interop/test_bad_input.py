"""Peers that do not keep to the protocol, and files that do not hold what they should: a clear line and the right alert or
exit status for each, and everyone else is served meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from nss_pk11.errors import Alert, NSPRError
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig

from ..support import command
from ..support.ours import OurServer, connect
from ..support.peers.base import HOST, TIMEOUT, Want
from ..support.peers.openssl import s_client
from ..support.peers.python_ssl import client_context, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nss_pk11.certs import Trust

    from ..support.pki import PKI
    from ..support.softhsm import SoftHSM
    from .conftest import Keyring

PIN = ("--pin", "env:PIN")
HELLO = bytes.fromhex("160301")  # the head of a handshake record


def record(kind: int, body: bytes, version: bytes = b"\x03\x01") -> bytes:
    return bytes([kind]) + version + len(body).to_bytes(2, "big") + body


# What a client sends first -> the alert it gets; None where none can be expected.
CLIENTS: dict[str, tuple[bytes, set[Alert] | None]] = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", {Alert.unexpected_message}),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", {Alert.unexpected_message}),
    "zeros": (bytes(100), {Alert.unexpected_message}),
    "SSLv2 hello": (
        bytes.fromhex("802e010002001500000010010080020080030080040080050080060040070 0c0".replace(" ", "")) + bytes(16),
        None,
    ),
    "a record too long": (HELLO + b"\x48\x01" + bytes(0x4801), {Alert.record_overflow}),
    "a record of length 65535": (HELLO + b"\xff\xff" + bytes(100), {Alert.record_overflow}),
    "empty handshake records": (record(22, b"") * 20, {Alert.unexpected_message, Alert.decode_error}),
    "a message of 16 MB": (record(22, b"\x01\xff\xff\xff" + bytes(100)), {Alert.decode_error, Alert.illegal_parameter}),
    "application data first": (record(23, b"hello"), {Alert.unexpected_message}),
    "Finished first": (record(22, b"\x14\x00\x00\x0c" + bytes(12)), {Alert.unexpected_message}),
    "an empty ClientHello": (record(22, b"\x01\x00\x00\x00"), {Alert.decode_error}),
    "trailing bytes in a ClientHello": (
        record(22, b"\x01\x00\x00\x2c\x03\x03" + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00\x00\x00\xff"),
        {Alert.decode_error},
    ),
    "no compression method": (record(22, b"\x01\x00\x00\x28\x03\x03" + bytes(32) + b"\x00\x00\x02\xc0\x2b\x00"), None),
    "an alert": (record(21, b"\x02\x28"), None),
    "an alert of three bytes": (record(21, b"\x02\x28\x00"), None),
}


@pytest.fixture(scope="module")
def server(server_keys: Keyring) -> Iterator[OurServer]:
    with OurServer(ServerConfig(identities=(server_keys.identity("p256"),)), handshake_timeout=2.0) as server:
        yield server


def _exchange(port: int, sent: bytes) -> bytes:
    """Everything the server answers, until it closes."""
    with socket.create_connection((HOST, port), TIMEOUT) as sock:
        sock.sendall(sent)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(4096):
                answer += part
        return answer


@pytest.mark.parametrize("name", CLIENTS)
def test_clients_that_speak_nonsense(server: OurServer, name: str, pki: PKI) -> None:
    sent, alerts = CLIENTS[name]
    before = server.mark()
    answer = _exchange(server.port, sent)
    error = server.next(before).error
    assert isinstance(error, NSPRError)
    assert error.name != "SEC_ERROR_LIBRARY_FAILURE", f"a bug: {error}"
    if alerts is not None:
        assert answer[:1] == b"\x15", answer
        assert (answer[-2], Alert(answer[-1]) in alerts) == (2, True), Alert(answer[-1]).name
    assert b"200 OK" in fetch(server.port, client_context(Want(ca=pki.ca_file)))


def test_nonsense_after_a_good_start(server: OurServer, pki: PKI) -> None:
    """A real ClientHello, then something else than its continuation."""
    hello = _client_hello()
    for rest, alerts in (
        (record(22, b"\x0b\x00\x00\x00", b"\x03\x03"), {Alert.unexpected_message}),
        (record(23, bytes(100), b"\x03\x03"), {Alert.bad_record_mac}),
        (record(20, b"\x02", b"\x03\x03"), {Alert.unexpected_message, Alert.decode_error, Alert.illegal_parameter}),
        (hello, {Alert.unexpected_message}),
    ):
        before = server.mark()
        _exchange(server.port, hello + rest)
        error = server.next(before).error
        assert isinstance(error, NSPRError)
        assert error.name != "SEC_ERROR_LIBRARY_FAILURE", f"a bug: {error}"
        assert alerts
    assert s_client(server.port, Want(ca=pki.ca_file)).ok


def _client_hello() -> bytes:
    """Python's, of TLS 1.3."""
    with socket.create_server((HOST, 0)) as listener:
        taken: list[bytes] = []

        def take() -> None:
            with listener.accept()[0] as sock:
                taken.append(sock.recv(65536))

        thread = threading.Thread(target=take)
        thread.start()
        with contextlib.suppress(OSError):
            fetch(listener.getsockname()[1], client_context(Want()))
        thread.join()
        return taken[0]


def test_stalling_clients_stop_nobody(server: OurServer, pki: PKI) -> None:
    """Thirty that say nothing, or half a ClientHello: each is cut off after the timeout, and others do not notice."""
    hello = _client_hello()
    before = server.mark()
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(socket.create_connection((HOST, server.port), TIMEOUT)) for _ in range(30)]
        for number, sock in enumerate(stalled):
            sock.sendall(hello[: number * 10])
        assert s_client(server.port, Want(ca=pki.ca_file)).ok
        for sock in stalled:
            while sock.recv(4096):
                pass
    errors = [server.next(before + number).error for number in range(31)]
    assert [error.name for error in errors if error] == ["PR_IO_TIMEOUT_ERROR"] * 30


@pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)
def test_a_client_that_resets(server: OurServer, version: Version, pki: PKI) -> None:
    """A reset in the middle of the answer."""
    before = server.mark()
    context = client_context(Want(version=version, ca=pki.ca_file))
    with (
        socket.create_connection((HOST, server.port), TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET /bytes/8000000 HTTP/1.0\r\n\r\n")
        tls.recv(100)
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert server.next(before).error is not None
    assert s_client(server.port, Want(ca=pki.ca_file)).ok


def test_a_bug_of_ours_ends_one_connection(server_keys: Keyring, pki: PKI, caplog: pytest.LogCaptureFixture) -> None:
    """The peer hears internal_error and no detail; the log has the bug, and the next client is served."""
    bugs = [RuntimeError("a bug")]

    def random(size: int) -> bytes:
        if bugs:
            raise bugs.pop()
        return os.urandom(size)

    config = ServerConfig(identities=(server_keys.identity("p256"),), random=random)
    with OurServer(config) as server:
        result = s_client(server.port, Want(ca=pki.ca_file))
        assert "internal error" in result.alert, result
        assert "a bug" in caplog.text
        assert s_client(server.port, Want(ca=pki.ca_file)).ok


# --- servers -------------------------------------------------------------------------------------------------------------

SERVERS: dict[str, bytes] = {
    "nothing": b"",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "SMTP": b"220 mail.example.org ESMTP\r\n",
    "zeros": bytes(100),
    "an alert": record(21, b"\x02\x28"),
    "a warning without end": record(21, b"\x01\x5a") * 200,
    "a record too long": HELLO + b"\xff\xff" + bytes(100),
    "empty records": record(22, b"") * 50,
    "ClientHello": record(22, b"\x01\x00\x00\x00"),
    "an empty ServerHello": record(22, b"\x02\x00\x00\x00"),
    "half a ServerHello": record(22, b"\x02\x00\x00\x50\x03\x03" + bytes(20)),
    "a ServerHello of SSL 3.0": record(22, b"\x02\x00\x00\x26\x03\x00" + bytes(32) + b"\x00\x00\x2f\x00"),
    "a suite that was not offered": record(22, b"\x02\x00\x00\x26\x03\x03" + b"\x01" * 32 + b"\x00\x00\x05\x00"),
    "application data": record(23, b"hello"),
    "a message of 16 MB": record(22, b"\x02\xff\xff\xff" + bytes(100)),
}


@pytest.mark.parametrize("name", SERVERS)
def test_servers_that_speak_nonsense(name: str, trust: Trust) -> None:
    with socket.create_server((HOST, 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as sock:
                sock.settimeout(TIMEOUT)
                sock.recv(65536)
                sock.sendall(SERVERS[name])
                sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    while sock.recv(4096):
                        pass

        thread = threading.Thread(target=answer)
        thread.start()
        seen = connect(listener.getsockname()[1], ClientConfig(server_name="localhost"), trust=trust)
        thread.join()
    assert isinstance(seen.error, NSPRError)
    assert seen.error.name != "SEC_ERROR_LIBRARY_FAILURE", f"a bug: {seen.error}"
    assert seen.error.detail


# --- files and names -------------------------------------------------------------------------------------------------------


def _broken_pem(pki: PKI, directory: Path) -> tuple[str | Path, ...]:
    file = directory / "broken.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    return ("--identity", pki.server("p256").key_file, "--chain", file)


def _no_pem(pki: PKI, directory: Path) -> tuple[str | Path, ...]:
    file = directory / "no.pem"
    file.write_bytes(bytes(range(256)))
    return ("--identity", pki.server("p256").key_file, "--chain", file)


def _unreadable_key(pki: PKI, directory: Path) -> tuple[str | Path, ...]:
    file = directory / "key.pem"
    file.write_text("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    return ("--identity", file, "--chain", pki.server("p256").chain_file)


FILES: dict[str, tuple[Callable[[PKI, Path], tuple[str | Path, ...]], set[int], str]] = {
    "a PEM that does not parse": (_broken_pem, {3, 5}, "broken.pem"),
    "no PEM at all": (_no_pem, {3, 5}, "no.pem"),
    "a key that does not parse": (_unreadable_key, {3}, "key.pem"),
    "a chain that is not there": (
        lambda pki, directory: ("--identity", pki.server("p256").key_file, "--chain", directory / "absent.pem"),
        {3},
        "absent.pem",
    ),
    "a chain of another key": (
        lambda pki, _: ("--identity", pki.server("p256").key_file, "--chain", pki.server("p384").chain_file),
        {5},
        "does not belong to the key",
    ),
    "an expired certificate": (
        lambda pki, _: (
            "--identity",
            pki.server("p256", expired=True).key_file,
            "--chain",
            pki.server("p256", expired=True).chain_file,
        ),
        {5},
        "expired",
    ),
    "a PKCS #12 with another password": (
        lambda pki, _: ("--identity", pki.server("p256").p12_file, "--pin", "pass:other"),
        {3, 4},
        "passphrase",
    ),
    "a CA file that is a key": (
        lambda pki, _: (
            *("--identity", pki.server("p256").key_file, "--chain", pki.server("p256").chain_file),
            *("--client-auth", "require", "--ca", pki.server("p256").key_file),
        ),
        {3, 5},
        "server-p256-localhost.key",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_served(softhsm: SoftHSM, name: str, pki: PKI, tmp_path: Path) -> None:
    arguments, statuses, says = FILES[name]
    done = command.run(softhsm, "serve", "--listen", f"{HOST}:0", *arguments(pki, tmp_path))
    assert done.returncode in statuses, done
    assert says in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) <= 3, done.stderr


def test_keys_that_are_not_there(softhsm: SoftHSM, server_keys: Keyring) -> None:
    """An unknown object, and a URI that two keys answer to: the error lists them."""
    server_keys.credential("p256")
    server_keys.credential("rsa")
    token = "pkcs11:token=interop-server"
    done = command.run(softhsm, "serve", "--listen", f"{HOST}:0", "--identity", f"{token};object=nobody", *PIN)
    assert done.returncode == 4
    assert "nobody" in done.stderr
    done = command.run(softhsm, "serve", "--listen", f"{HOST}:0", "--identity", token, *PIN)
    assert done.returncode == 4
    assert "object=p256" in done.stderr
    assert "object=rsa" in done.stderr
