"""Client certificates both ways, the client's key on a second token."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

import pytest

from nss_pk11.errors import Alert, AlertReceived
from nss_pk11.net.identity import load_identity
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig

from ..support.ours import OurServer, connect
from ..support.peers.base import Want
from ..support.peers.openssl import InteractiveOpenSSLServer, s_client
from ..support.peers.table import ABILITIES, CLIENTS, SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nss_pk11.certs import Trust
    from nss_pk11.net.blocking import TLSSocket
    from nss_pk11.slots import SlotManager
    from nss_pk11.tls.engine import Engine

    from ..support.peers.table import ServerPool
    from ..support.pki import PKI
    from .conftest import Keyring

KINDS = ("rsa", "p256", "ed25519")
VERSIONS = pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)


@pytest.fixture(scope="module")
def servers(server_keys: Keyring, trust: Trust) -> Iterator[dict[str, OurServer]]:
    """Ours, one that requests a certificate and one that requires it."""
    identities = (server_keys.identity("p256"),)
    started: dict[str, OurServer] = {}
    try:
        for mode in ("request", "require"):
            config = ServerConfig(identities=identities, client_auth=mode, authorities=trust.authorities)
            started[mode] = OurServer(config, trust=trust)
        yield started
    finally:
        for server in started.values():
            server.stop()


@VERSIONS
@pytest.mark.parametrize(("kind", "peer"), [(kind, peer) for kind in KINDS for peer in CLIENTS if kind in ABILITIES[peer].kinds])
def test_our_server(servers: dict[str, OurServer], kind: str, peer: str, version: Version, pki: PKI, directory: Path) -> None:
    server = servers["require"]
    before = server.mark()
    want = Want(version=version, ca=pki.ca_file, credential=pki.client(kind))
    result = CLIENTS[peer](server.port, want, directory)
    assert result.ok, f"{server.next(before).error}\n{result}"
    seen = server.next(before)
    assert len(seen.info.peer_chain) >= 1
    assert seen.info.client_signature_scheme is not None


@VERSIONS
@pytest.mark.parametrize(("kind", "peer"), [(kind, peer) for kind in KINDS for peer in SERVERS if kind in ABILITIES[peer].kinds])
def test_our_client(
    foreign: ServerPool, client_keys: Keyring, kind: str, peer: str, version: Version, pki: PKI, trust: Trust
) -> None:
    want = Want(version=version, credential=pki.server("p256"), client_auth="require", ca=pki.ca_file)
    server = foreign(peer, want)
    config = ClientConfig(server_name="localhost", identities=(client_keys.identity(kind),), max_version=version)
    operations = client_keys.operations(kind)
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.answer
    assert client_keys.operations(kind) == operations + 1
    if peer in ("node", "python"):  # these say whom they saw
        assert f"client {kind}" in seen.answer.decode() + server.output


@VERSIONS
def test_our_client_without_a_certificate(foreign: ServerPool, version: Version, pki: PKI, trust: Trust) -> None:
    want = Want(version=version, credential=pki.server("p256"), client_auth="require", ca=pki.ca_file)
    for peer in ("openssl", "node"):
        seen = connect(foreign(peer, want).port, ClientConfig(server_name="localhost", max_version=version), trust=trust)
        assert isinstance(seen.error, AlertReceived), peer
        wanted = Alert.certificate_required if version is Version.tls1_3 else Alert.handshake_failure
        assert seen.error.alert in (wanted, Alert.handshake_failure, Alert.certificate_required), peer


@VERSIONS
def test_a_client_without_a_certificate(servers: dict[str, OurServer], version: Version, pki: PKI, directory: Path) -> None:
    """Requested: welcome all the same.  Required: refused, with the alert of the version (RFC 8446 section 4.4.2.4)."""
    for peer in ("openssl", "gnutls", "nss"):
        before = servers["request"].mark()
        result = CLIENTS[peer](servers["request"].port, Want(version=version, ca=pki.ca_file), directory)
        assert result.ok, f"{peer}: {servers['request'].next(before).error}\n{result}"
        before = servers["require"].mark()
        result = CLIENTS[peer](servers["require"].port, Want(version=version, ca=pki.ca_file), directory)
        assert b"200 OK" not in result.answer, peer
        error = servers["require"].next(before).error
        assert error is not None
        assert error.name == "SSL_ERROR_NO_CERTIFICATE"
    result = s_client(servers["require"].port, Want(version=version, ca=pki.ca_file))
    assert ("certificate required" if version is Version.tls1_3 else "handshake failure") in result.alert, result


@VERSIONS
def test_a_client_certificate_of_an_unknown_ca(servers: dict[str, OurServer], version: Version, pki: PKI, stranger: PKI) -> None:
    server = servers["require"]
    before = server.mark()
    result = s_client(server.port, Want(version=version, ca=pki.ca_file, credential=stranger.client("p256")))
    assert "unknown ca" in result.alert, result
    error = server.next(before).error
    assert error is not None
    assert error.name == "SEC_ERROR_UNKNOWN_ISSUER"


@VERSIONS
def test_a_server_certificate_for_a_client(servers: dict[str, OurServer], version: Version, pki: PKI) -> None:
    """Extended key usage counts: a server's certificate does not identify a client."""
    server = servers["require"]
    before = server.mark()
    result = s_client(server.port, Want(version=version, ca=pki.ca_file, credential=pki.server("rsa")))
    assert b"200 OK" not in result.answer
    error = server.next(before).error
    assert error is not None
    assert error.name == "SEC_ERROR_INADEQUATE_CERT_TYPE"


@VERSIONS
def test_the_identity_of_a_welcome_authority_is_chosen(
    foreign: ServerPool, client_keys: Keyring, version: Version, pki: PKI, trust: Trust
) -> None:
    """Two identities of ours, one under the only CA that the server names."""
    roots = pki.ca_file.read_text().split("-----END CERTIFICATE-----\n")
    only_rsa = pki.directory / "only-rsa-root.pem"
    only_rsa.write_text(roots[0] + "-----END CERTIFICATE-----\n")
    want = Want(version=version, credential=pki.server("p256"), client_auth="require", ca=only_rsa)
    identities = (client_keys.identity("p256"), client_keys.identity("rsa"))
    seen = connect(
        foreign("openssl", want).port,
        ClientConfig(server_name="localhost", identities=identities, max_version=version),
        trust=trust,
    )
    assert seen.error is None
    assert seen.info.identity is identities[1]


@pytest.mark.parametrize("kind", ["rsa-pss", "mldsa44", "mldsa65", "mldsa87"])
def test_certificates_that_softhsm_has_no_keys_for(
    servers: dict[str, OurServer], foreign: ServerPool, manager: SlotManager, kind: str, pki: PKI, trust: Trust, directory: Path
) -> None:
    """Software keys behind our client; Node's OpenSSL 3.5 on the other side, in both roles."""
    credential = pki.client(kind)
    before = servers["require"].mark()
    want = Want(version=Version.tls1_3, ca=pki.ca_file, credential=credential)
    result = CLIENTS["node"](servers["require"].port, want, directory)
    assert result.ok, f"{servers['require'].next(before).error}\n{result}"
    peer = foreign("node", Want(credential=pki.server("p256"), client_auth="require", ca=pki.ca_file))
    identity = load_identity(manager, credential.key_file, chain=credential.chain_file)
    seen = connect(peer.port, ClientConfig(server_name="localhost", identities=(identity,)), trust=trust)
    assert seen.error is None, f"{seen.error}\n{peer.output}"
    assert seen.page["subject"] == f"client {kind}"


@VERSIONS
def test_a_resumed_session_knows_its_client(
    server_keys: Keyring, client_keys: Keyring, version: Version, pki: PKI, trust: Trust, tmp_path: Path
) -> None:
    """The certificate is the session's; the client does not show it again, and its token is not asked."""
    config = ServerConfig(
        identities=(server_keys.identity("p256"),), client_auth="require", authorities=trust.authorities, tickets=TicketKeys()
    )
    with OurServer(config, trust=trust) as server:
        want = Want(version=version, ca=pki.ca_file, credential=pki.client("rsa"))
        assert s_client(server.port, want, tmp_path / "session").ok
        result = s_client(server.port, dataclasses.replace(want, credential=None, resume=True), tmp_path / "session")
        assert result.resumed, result
        first, second = server.next(0), server.next(1)
        assert second.info.resumed
        assert second.info.peer_chain == first.info.peer_chain
        assert first.info.peer_chain

        mine = ClientConfig(server_name="localhost", identities=(client_keys.identity("p256"),), max_version=version)
        operations = client_keys.operations("p256")
        session = connect(server.port, mine, trust=trust).sessions[-1]
        seen = connect(server.port, dataclasses.replace(mine, session=session), trust=trust)
        assert seen.info.resumed
        assert client_keys.operations("p256") == operations + 1


# --- after the handshake (RFC 8446 section 4.6.2) ------------------------------------------------------------------------


def test_our_server_asks_after_the_handshake(server_keys: Keyring, pki: PKI, trust: Trust, directory: Path) -> None:
    config = ServerConfig(identities=(server_keys.identity("p256"),), authorities=trust.authorities)

    def ask(engine: Engine) -> Callable[[], bool]:
        engine.request_client_certificate()
        return lambda: bool(engine.info.peer_chain)

    with OurServer(config, trust=trust, actions={b"/ask": ask}) as server:
        want = Want(version=Version.tls1_3, ca=pki.ca_file, credential=pki.client("rsa"), request=b"GET /ask HTTP/1.0\r\n\r\n")
        for peer, extra in {"openssl": ("-enable_pha",), "nss": ("-E",)}.items():
            before = server.mark()
            result = CLIENTS[peer](server.port, Want(**{**vars(want), "extra": extra}), directory)
            assert result.ok, f"{peer}: {server.next(before).error}\n{result}"
            seen = server.next(before)
            assert seen.error is None
            assert len(seen.info.peer_chain) >= 1, peer


def test_our_client_is_asked_after_the_handshake(pki: PKI, client_keys: Keyring, trust: Trust) -> None:
    config = ClientConfig(server_name="localhost", identities=(client_keys.identity("ed25519"),))
    with InteractiveOpenSSLServer(Want(version=Version.tls1_3, credential=pki.server("p256"))) as server:

        def ask() -> None:
            server.process.write(b"c\n")
            server.process.wait_for("read certificate verify")
            server.process.write(b"hello\n")

        def asked(connection: TLSSocket) -> None:
            asking = threading.Thread(target=ask)
            asking.start()
            assert connection.recv() == b"hello\n"  # reads the CertificateRequest first, and answers
            asking.join()

        operations = client_keys.operations("ed25519")
        seen = connect(server.port, config, trust=trust, use=asked, request=None)
        assert seen.error is None, f"{seen.error}\n{server.output}"
        assert client_keys.operations("ed25519") == operations + 1
        assert "client ed25519" in server.output


def test_status_of_the_client(servers: dict[str, OurServer], client_keys: Keyring, trust: Trust) -> None:
    """Ours with ours: what the server's page says of the client."""
    config = ClientConfig(server_name="localhost", identities=(client_keys.identity("p256"),))
    seen = connect(servers["require"].port, config, trust=trust)
    assert seen.error is None
    said = seen.page
    assert said["client_signature_scheme"] == "ecdsa_secp256r1_sha256"
    assert said["peer_certificates"] == 2
