"""After and around the handshake: KeyUpdate, renegotiation, fallback and downgrade, old versions, half-close."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from nss_pk11.errors import Alert, AlertReceived, Truncated
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig

from ..support.meddler import Meddler, hide_tls13
from ..support.ours import OurServer, connect
from ..support.peers.base import REQUEST, Process, Want
from ..support.peers.gnutls import GnuTLSEchoServer, gnutls_cli
from ..support.peers.openssl import InteractiveOpenSSLServer, s_client, s_client_command
from ..support.peers.table import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nss_pk11.certs import Trust
    from nss_pk11.net.blocking import TLSSocket
    from nss_pk11.tls.engine import Engine

    from ..support.peers.table import ServerPool
    from ..support.pki import PKI
    from .conftest import Keyring

VERSIONS = pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)


def _update(request_peer: bool) -> Callable[[Engine], Callable[[], bool]]:
    def update(engine: Engine) -> Callable[[], bool]:
        engine.update_keys(request_peer)
        return lambda: True

    return update


@pytest.fixture(scope="module")
def server(server_keys: Keyring) -> Iterator[OurServer]:
    """Ours; "/update" and "/update-both" make it change its keys before it answers."""
    config = ServerConfig(identities=(server_keys.identity("p256"),))
    with OurServer(config, actions={b"/update": _update(False), b"/update-both": _update(True)}) as server:
        yield server


# --- KeyUpdate (RFC 8446 section 4.6.3) --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/update", "/update-both"])
@pytest.mark.parametrize("peer", ["openssl", "gnutls", "nss", "node", "python", "nassl"])
def test_our_server_updates_its_keys(server: OurServer, peer: str, path: str, pki: PKI, directory: Path) -> None:
    before = server.mark()
    want = Want(version=Version.tls1_3, ca=pki.ca_file, request=f"GET {path} HTTP/1.0\r\n\r\n".encode())
    result = CLIENTS[peer](server.port, want, directory)
    assert result.ok, result
    assert b"200 OK" in result.answer
    assert server.next(before).error is None


@pytest.mark.parametrize("command", ["k", "K"], ids=["update", "update both"])
def test_openssl_updates_its_keys_with_our_server(server: OurServer, command: str, pki: PKI) -> None:
    before = server.mark()
    with Process(s_client_command(server.port, Want(version=Version.tls1_3, ca=pki.ca_file))) as client:
        client.wait_for("Verify return code")
        client.write(command.encode() + b"\n")
        client.wait_for("KEYUPDATE")
        client.write(REQUEST)
        assert client.wait() == 0, client.output
        assert "200 OK" in client.output
    assert server.next(before).error is None


@pytest.mark.parametrize("request_peer", [False, True], ids=["update", "update both"])
@pytest.mark.parametrize("peer", ["openssl", "gnutls", "nss", "node", "python"])
def test_our_client_updates_its_keys(foreign: ServerPool, peer: str, request_peer: bool, pki: PKI, trust: Trust) -> None:
    server = foreign(peer, Want(version=Version.tls1_3, credential=pki.server("p256")))
    seen = connect(
        server.port,
        ClientConfig(server_name="localhost"),
        trust=trust,
        use=lambda connection: connection.engine.update_keys(request_peer),
    )
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.answer


def test_many_updates_in_turn(pki: PKI, trust: Trust) -> None:
    """Data between them.  Seven: GnuTLS takes more than eight in a second for an attack."""

    def use(connection: TLSSocket) -> None:
        for number in range(7):
            connection.engine.update_keys(request_peer=number % 2 == 0)
            line = f"line {number}\n".encode()
            connection.sendall(line)
            got = b""
            while len(got) < len(line):
                got += connection.recv()
            assert got == line

    with GnuTLSEchoServer(Want(version=Version.tls1_3, credential=pki.server("p256"))) as server:
        seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust, use=use, request=None)
        assert seen.error is None, f"{seen.error}\n{server.output}"


@pytest.mark.parametrize("command", ["k", "K"], ids=["update", "update both"])
def test_openssl_updates_its_keys_with_our_client(command: str, pki: PKI, trust: Trust) -> None:
    with InteractiveOpenSSLServer(Want(version=Version.tls1_3, credential=pki.server("p256"))) as server:

        def ask() -> None:
            server.process.write(command.encode() + b"\n")
            server.process.wait_for("write server key update" if command == "k" else "read client key update")
            server.process.write(b"hello\n")

        def use(connection: TLSSocket) -> None:
            asking = threading.Thread(target=ask)
            asking.start()
            assert connection.recv() == b"hello\n"
            asking.join()
            connection.sendall(b"and back\n")
            server.process.wait_for("and back")

        seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust, use=use, request=None)
        assert seen.error is None, f"{seen.error}\n{server.output}"


# --- renegotiation (RFC 5746) ---------------------------------------------------------------------------------------------


def test_secure_renegotiation_is_indicated(server: OurServer, pki: PKI) -> None:
    result = s_client(server.port, Want(version=Version.tls1_2, ca=pki.ca_file))
    assert "Secure Renegotiation IS supported" in result.output


def test_our_server_refuses_renegotiation(server: OurServer, pki: PKI) -> None:
    before = server.mark()
    with Process(s_client_command(server.port, Want(version=Version.tls1_2, ca=pki.ca_file))) as client:
        client.wait_for("Verify return code")
        client.write(b"R\n")
        client.wait_for("no renegotiation")
        client.wait()
    server.next(before)
    result = gnutls_cli(server.port, Want(version=Version.tls1_2, ca=pki.ca_file, extra=("--rehandshake",)))
    assert "Received alert [100]: No renegotiation" in result.output
    assert s_client(server.port, Want(version=Version.tls1_2, ca=pki.ca_file)).ok, "everyone else is served"


def test_our_client_refuses_renegotiation(pki: PKI, trust: Trust) -> None:
    """A HelloRequest is answered with no_renegotiation, and the connection goes on (RFC 5246 section 7.2.2)."""
    with InteractiveOpenSSLServer(Want(version=Version.tls1_2, credential=pki.server("p256"))) as server:

        def use(connection: TLSSocket) -> None:
            connection.sendall(b"before\n")
            server.process.wait_for("before")
            server.process.write(b"r\n")
            connection.recv()

        seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust, use=use, request=None)
        # OpenSSL ends the connection when it is told no; what matters is that ours neither hangs nor renegotiates.
        server.process.wait_for("no renegotiation")
        assert seen.error is None or isinstance(seen.error, AlertReceived | Truncated), repr(seen.error)


# --- fallback and downgrade ------------------------------------------------------------------------------------------------


def test_fallback_to_our_server(server: OurServer, pki: PKI) -> None:
    """RFC 7507: the client could do better, and says that it was pushed down."""
    result = s_client(server.port, Want(version=Version.tls1_2, ca=pki.ca_file, extra=("-fallback_scsv",)))
    assert "inappropriate fallback" in result.alert or result.alert == str(Alert.inappropriate_fallback), result
    assert s_client(server.port, Want(version=Version.tls1_3, ca=pki.ca_file, extra=("-fallback_scsv",))).ok


def test_fallback_of_our_client(foreign: ServerPool, pki: PKI, trust: Trust) -> None:
    server = foreign("openssl", Want(credential=pki.server("p256")))
    config = ClientConfig(server_name="localhost", max_version=Version.tls1_2, fallback=True)
    seen = connect(server.port, config, trust=trust)
    assert isinstance(seen.error, AlertReceived)
    assert seen.error.alert == Alert.inappropriate_fallback


@pytest.mark.parametrize("peer", ["openssl", "gnutls", "nss", "python", "node"])
def test_our_client_notices_a_downgrade(foreign: ServerPool, peer: str, pki: PKI, trust: Trust) -> None:
    """RFC 8446 section 4.1.3: the server's random says that it could do 1.3."""
    server = foreign(peer, Want(credential=pki.server("p256")))
    with Meddler(server.port, hide_tls13) as meddler:
        seen = connect(meddler.port, ClientConfig(server_name="localhost"), trust=trust)
    assert seen.error is not None
    assert not isinstance(seen.error, AlertReceived), "the peer noticed, not we"
    assert "downgrade" in seen.error.detail.lower()


@pytest.mark.parametrize("peer", ["openssl", "nss", "node", "python"])
def test_foreign_clients_notice_a_downgrade(server: OurServer, peer: str, pki: PKI, directory: Path) -> None:
    before = server.mark()
    with Meddler(server.port, hide_tls13) as meddler:
        assert not CLIENTS[peer](meddler.port, Want(ca=pki.ca_file), directory).ok
    error = server.next(before).error
    assert isinstance(error, AlertReceived), repr(error)
    assert error.alert == Alert.illegal_parameter


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(server: OurServer, option: str, pki: PKI) -> None:
    before = server.mark()
    result = s_client(server.port, Want(ca=pki.ca_file, extra=(option,)))
    assert "protocol version" in result.alert, result
    error = server.next(before).error
    assert error is not None
    assert error.name == "SSL_ERROR_UNSUPPORTED_VERSION"


def test_our_client_refuses_an_old_server(pki: PKI, trust: Trust) -> None:
    command = InteractiveOpenSSLServer(Want(credential=pki.server("p256"), extra=("-tls1_1",)))
    with command as server:
        seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust)
    assert seen.error is not None
    assert seen.version in ("", "TLSv1.1")


# --- middlebox compatibility (RFC 8446 appendix D.4) ----------------------------------------------------------------------


@pytest.mark.parametrize(("peer", "extra"), [("openssl", ()), ("openssl", ("-no_middlebox",)), ("nss", ()), ("nss", ("-e",))])
def test_middlebox_compatibility_of_our_server(
    server: OurServer, peer: str, extra: tuple[str, ...], pki: PKI, directory: Path
) -> None:
    result = CLIENTS[peer](server.port, Want(version=Version.tls1_3, ca=pki.ca_file, extra=extra), directory)
    assert result.ok, result


@pytest.mark.parametrize("compatible", [True, False])
@pytest.mark.parametrize("peer", ["openssl", "gnutls", "nss", "node"])
def test_middlebox_compatibility_of_our_client(foreign: ServerPool, peer: str, compatible: bool, pki: PKI, trust: Trust) -> None:
    server = foreign(peer, Want(version=Version.tls1_3, credential=pki.server("p256")))
    config = ClientConfig(server_name="localhost", middlebox_compatibility=compatible)
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.answer


# --- the end ---------------------------------------------------------------------------------------------------------------


@VERSIONS
def test_half_close_by_our_client(pki: PKI, trust: Trust, version: Version) -> None:
    """What the peer sends after our close_notify still arrives."""

    def use(connection: TLSSocket) -> None:
        connection.sendall(b"last words\n")
        connection.shutdown_write()
        got = b""
        while part := connection.recv():
            got += part
        assert got == b"last words\n"

    with GnuTLSEchoServer(Want(version=version, credential=pki.server("p256"))) as server:
        seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust, use=use, request=None)
        assert seen.error is None, f"{seen.error}\n{server.output}"


@VERSIONS
def test_truncation_is_noticed(server_keys: Keyring, version: Version, pki: PKI, trust: Trust) -> None:
    """The transport ends without close_notify: data may be missing, and we say so."""
    with InteractiveOpenSSLServer(Want(version=version, credential=pki.server("p256"))) as server:

        def use(connection: TLSSocket) -> None:
            server.process.write(b"hello\n")
            assert connection.recv() == b"hello\n"
            server.process.kill()
            connection.recv()

        seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust, use=use, request=None)
    assert isinstance(seen.error, Truncated)


@VERSIONS
def test_every_byte_alone(server: OurServer, version: Version, pki: PKI) -> None:
    """A slow line: one byte per segment, both ways."""

    before = server.mark()
    with Meddler(server.port, step=1) as drip:
        result = s_client(drip.port, Want(version=version, ca=pki.ca_file))
    assert result.ok, result
    assert server.next(before).error is None
