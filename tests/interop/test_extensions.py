"""ALPN, server names, stapled OCSP, record sizes, certificate compression, exporters and channel bindings, key logs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from nss_pk11.errors import Alert, AlertReceived
from nss_pk11.net.identity import load_identity
from nss_pk11.tls.codepoints import CertificateCompression, Version
from nss_pk11.tls.config import ClientConfig, ServerConfig

from ..support.ours import EXPORT, OurServer, bytes_of, connect, page
from ..support.peers.base import Want, first
from ..support.peers.gnutls import GnuTLSServer, gnutls_cli
from ..support.peers.node import node_client
from ..support.peers.openssl import OpenSSLServer, s_client
from ..support.peers.python_ssl import client_context, fetch
from ..support.peers.table import CLIENTS
from ..support.peers.tlslite_ng import TLSLiteServer, compression_seen_by_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.certs import Trust
    from nss_pk11.slots import SlotManager
    from nss_pk11.tls.config import Identity

    from ..support.peers.table import ServerPool
    from ..support.pki import PKI
    from .conftest import Keyring

VERSIONS = pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)


@pytest.fixture(scope="module")
def identity(server_keys: Keyring) -> Identity:
    return server_keys.identity("p256")


@pytest.fixture(scope="module")
def server(identity: Identity) -> Iterator[OurServer]:
    config = ServerConfig(identities=(identity,), alpn=("h2", "http/1.1"), certificate_compression=tuple(CertificateCompression))
    with OurServer(config) as server:
        yield server


# --- ALPN (RFC 7301) ---------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("peer", ["openssl", "gnutls", "node", "python"])
def test_alpn_of_our_server(server: OurServer, peer: str, version: Version, pki: PKI, directory: Path) -> None:
    want = Want(version=version, ca=pki.ca_file, alpn=("spdy/3", "http/1.1"))
    result = CLIENTS[peer](server.port, want, directory)
    assert result.ok, result
    assert result.alpn == "http/1.1"
    assert page(result.answer)["alpn"] == "http/1.1"


@VERSIONS
def test_no_common_protocol(server: OurServer, version: Version, pki: PKI) -> None:
    before = server.mark()
    result = s_client(server.port, Want(version=version, ca=pki.ca_file, alpn=("spdy/3",)))
    assert "no application protocol" in result.alert, result
    assert server.next(before).error is not None


@VERSIONS
@pytest.mark.parametrize("peer", ["openssl", "gnutls", "node", "python"])
def test_alpn_of_our_client(foreign: ServerPool, peer: str, version: Version, pki: PKI, trust: Trust) -> None:
    server = foreign(peer, Want(version=version, credential=pki.server("p256"), alpn=("http/1.1",)))
    config = ClientConfig(server_name="localhost", alpn=("h2", "http/1.1"))
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.info.alpn == "http/1.1"


# --- server names (RFC 6066 section 3) -------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("localhost", "localhost"),
        ("a.test", "a.test"),
        ("x.wild.test", "*.wild.test"),
        ("nobody.test", "localhost"),
        ("", "localhost"),
    ],
)
def test_several_identities(server_keys: Keyring, name: str, subject: str, version: Version) -> None:
    names = (("localhost", "127.0.0.1"), ("a.test",), ("*.wild.test",))
    config = ServerConfig(identities=tuple(server_keys.identity("p256", which) for which in names))
    with OurServer(config) as server:
        result = s_client(server.port, Want(version=version, server_name=name))
        assert result.ok, result
        assert result.subject == subject
        assert server.next(0).info.server_name == name


@VERSIONS
def test_unknown_names_may_be_refused(identity: Identity, version: Version) -> None:
    with OurServer(ServerConfig(identities=(identity,), refuse_unknown_names=True)) as server:
        result = s_client(server.port, Want(version=version, server_name="nobody.test"))
        assert result.alert == str(Alert.unrecognized_name), result
        assert s_client(server.port, Want(version=version)).ok


@VERSIONS
@pytest.mark.parametrize("key", ["rsa first", "p256 first"])
def test_the_identity_that_the_client_can_verify(server_keys: Keyring, key: str, version: Version, directory: Path) -> None:
    """A client that takes RSA only gets RSA, whatever is cheapest or first."""
    both = [server_keys.identity("rsa"), server_keys.identity("p256")]
    with OurServer(ServerConfig(identities=tuple(both if key == "rsa first" else reversed(both)))) as server:
        for sigalgs, kind in (("RSA-PSS+SHA256:RSA+SHA256", "RSA"), ("ECDSA+SHA256", "ECDSA")):
            result = s_client(server.port, Want(version=version, extra=("-sigalgs", sigalgs)))
            assert result.ok, result
            assert result.scheme.startswith(kind)
        assert s_client(server.port, Want(version=version)).scheme.startswith("ECDSA"), "the cheapest"


# --- stapled OCSP (RFC 6066 section 8, RFC 8446 section 4.4.2.1) ------------------------------------------------------------


@VERSIONS
def test_stapling_by_our_server(identity: Identity, server_keys: Keyring, version: Version, pki: PKI) -> None:
    credential = server_keys.credential("p256")
    stapled = dataclasses.replace(identity, ocsp=credential.authority.ocsp_response(credential.certificate))
    with OurServer(ServerConfig(identities=(stapled,))) as server:
        result = s_client(server.port, Want(version=version, ca=pki.ca_file, extra=("-status",)))
        assert result.ok, result
        assert "OCSP Response Status: successful" in result.output
        assert "Cert Status: good" in result.output
        result = s_client(server.port, Want(version=version, ca=pki.ca_file))
        assert result.ok, "a client that does not ask gets none"
        result = gnutls_cli(server.port, Want(version=version, ca=pki.ca_file, extra=("--ocsp",)))
        assert result.ok, result


@VERSIONS
@pytest.mark.parametrize("revoked", [False, True], ids=["good", "revoked"])
def test_stapling_for_our_client(version: Version, revoked: bool, pki: PKI, trust: Trust, tmp_path: Path) -> None:
    credential = pki.server("p256")
    response = tmp_path / "ocsp.der"
    response.write_bytes(credential.authority.ocsp_response(credential.certificate, revoked=revoked))
    want = Want(version=version, credential=credential, extra=("-status_file", str(response)))
    with OpenSSLServer(want) as server:
        seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust)
    if revoked:
        assert seen.error is not None
        assert seen.error.name == "SEC_ERROR_REVOKED_CERTIFICATE_OCSP"
    else:
        assert seen.error is None
        assert seen.info.ocsp == response.read_bytes()
        assert seen.answer


# --- record sizes (RFC 8449, RFC 6066 section 4) -----------------------------------------------------------------------------


@VERSIONS
def test_record_size_limit_of_gnutls(server: OurServer, identity: Identity, version: Version, pki: PKI) -> None:
    before = server.mark()
    want = Want(version=version, ca=pki.ca_file, request=b"GET /bytes/8000 HTTP/1.0\r\n\r\n", extra=("--recordsize", "600"))
    result = gnutls_cli(server.port, want)
    assert result.ok, f"{server.next(before).error}\n{result}"
    assert server.next(before).info.record_size_limit <= 600
    assert len(result.answer) > 5000  # a record larger than it takes would have been refused


@VERSIONS
def test_record_size_limit_of_our_client(version: Version, pki: PKI, trust: Trust) -> None:
    """GnuTLS sends no record larger than we take; ours would refuse one."""
    with GnuTLSServer(Want(version=version, credential=pki.server("p256"))) as server:
        seen = connect(server.port, ClientConfig(server_name="localhost", record_size_limit=512), trust=trust)
        assert seen.error is None, f"{seen.error}\n{server.output}"
        assert seen.answer


@VERSIONS
@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
def test_max_fragment_length(server: OurServer, foreign: ServerPool, size: int, version: Version, pki: PKI, trust: Trust) -> None:
    before = server.mark()
    want = Want(version=version, ca=pki.ca_file, request=b"GET /bytes/20000 HTTP/1.0\r\n\r\n", extra=("-maxfraglen", str(size)))
    result = s_client(server.port, want)
    assert result.ok, result
    assert server.next(before).info.record_size_limit == size
    peer = foreign("openssl", Want(version=version, credential=pki.server("p256")))
    seen = connect(peer.port, ClientConfig(server_name="localhost", max_fragment_length=size), trust=trust)
    assert seen.error is None, f"{seen.error}\n{peer.output}"
    assert len(seen.answer) > 4096


# --- certificate compression (RFC 8879) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", CertificateCompression, ids=lambda algorithm: algorithm.name)
def test_certificate_compression(server: OurServer, algorithm: CertificateCompression, pki: PKI, trust: Trust) -> None:
    assert compression_seen_by_client(server.port, algorithm.name) == algorithm.name
    with TLSLiteServer(pki.server("p256"), algorithm.name) as peer:
        config = ClientConfig(server_name="localhost", certificate_compression=(algorithm,))
        seen = connect(peer.port, config, trust=trust)
        assert seen.error is None
    assert peer.used == algorithm.name


# --- exporters and channel bindings (RFC 5705, 8446 section 7.5, 5929, 9266) ---------------------------------------------------


@VERSIONS
def test_exporters(server: OurServer, version: Version, pki: PKI, directory: Path) -> None:
    label, context, length = EXPORT[0].decode(), EXPORT[1].decode(), str(EXPORT[2])
    want = Want(version=version, ca=pki.ca_file)
    result = s_client(server.port, dataclasses.replace(want, extra=("-keymatexport", label, "-keymatexportlen", length)))
    assert first(r"Keying material: ([0-9A-F]+)", result.output).lower() == page(result.answer)["exported_without_context"]
    result = node_client(server.port, want)
    assert f'"exported":"{page(result.answer)["exported"]}"' in result.output
    result = gnutls_cli(server.port, dataclasses.replace(want, extra=("--keymatexport", label, "--keymatexportsize", length)))
    assert first(r"Key material: (\w+)", result.output) == page(result.answer)["exported_without_context"]
    result = CLIENTS["nss"](server.port, dataclasses.replace(want, extra=("-x", f"{label}:{length}:{context}")), directory)
    exported = page(result.answer)["exported"]
    assert exported in result.output.lower().replace(" ", "").replace(":", "").replace("\n", ""), result


@VERSIONS
def test_exporters_of_our_client(version: Version, pki: PKI, trust: Trust, foreign: ServerPool) -> None:
    server = foreign("node", Want(version=version, credential=pki.server("p256")))
    seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust)
    assert page(seen.answer)["exported"] == seen.exported.hex()


@VERSIONS
def test_channel_bindings(server: OurServer, version: Version, pki: PKI) -> None:
    result = gnutls_cli(server.port, Want(version=version, ca=pki.ca_file, extra=("--verbose",)))
    for kind, value in page(result.answer)["channel_bindings"].items():
        assert f"'{kind}': {value}" in result.output


# --- key logs ----------------------------------------------------------------------------------------------------------------


@VERSIONS
def test_key_log(identity: Identity, version: Version, pki: PKI, trust: Trust, tmp_path: Path) -> None:
    """Both ends write the same lines: our server's against those of Python's ssl, our client's against our server's."""
    ours: list[str] = []
    theirs = tmp_path / "keys"
    context = client_context(Want(version=version, ca=pki.ca_file), theirs)
    with OurServer(ServerConfig(identities=(identity,), keylog=ours.append)) as server:
        fetch(server.port, context)
        assert set(ours) == {line for line in theirs.read_text().splitlines() if line and not line.startswith("#")}
        ours.clear()
        mine: list[str] = []
        seen = connect(server.port, ClientConfig(server_name="localhost", max_version=version, keylog=mine.append), trust=trust)
        assert seen.error is None
        assert set(mine) == set(ours)
        assert mine


# --- bulk -----------------------------------------------------------------------------------------------------------------------


@VERSIONS
def test_bulk_from_our_server(server: OurServer, version: Version, pki: PKI) -> None:
    body = fetch(server.port, client_context(Want(version=version, ca=pki.ca_file)), b"GET /bytes/3000000 HTTP/1.0\r\n\r\n")
    assert body.partition(b"\r\n\r\n")[2] == bytes_of(3_000_000)


@VERSIONS
def test_bulk_to_our_client(version: Version, pki: PKI, trust: Trust, directory: Path) -> None:
    (directory / "big").write_bytes(bytes_of(3_000_000))
    want = Want(version=version, credential=pki.server("p256"), extra=("-WWW",))

    class FileServer(OpenSSLServer):
        www = False
        working_directory = directory

    with FileServer(want) as server:
        seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust, request=b"GET /big HTTP/1.0\r\n\r\n")
        assert seen.error is None, f"{seen.error}\n{server.output}"
        assert seen.answer.partition(b"\r\n\r\n")[2] == bytes_of(3_000_000)


@VERSIONS
def test_alert_for_a_wrong_name(foreign: ServerPool, version: Version, pki: PKI, trust: Trust) -> None:
    """Our client refuses; what the peer hears is bad_certificate."""
    server = foreign("openssl", Want(version=version, credential=pki.server("p256")))
    seen = connect(server.port, ClientConfig(server_name="wrong.test"), trust=trust)
    assert seen.error is not None
    assert seen.error.name == "SSL_ERROR_BAD_CERT_DOMAIN"
    assert not isinstance(seen.error, AlertReceived)
    assert isinstance(server, OpenSSLServer)
    server.process.wait_for("alert bad certificate")


@VERSIONS
def test_an_expired_certificate(foreign: ServerPool, version: Version, pki: PKI, trust: Trust) -> None:
    server = foreign("openssl", Want(version=version, credential=pki.server("p256", expired=True)))
    seen = connect(server.port, ClientConfig(server_name="localhost"), trust=trust)
    assert seen.error is not None
    assert seen.error.name == "SEC_ERROR_EXPIRED_CERTIFICATE"


def test_a_key_file_serves_too(pki: PKI, manager: SlotManager) -> None:
    """PEM and PKCS #12, by the internal software token."""
    for kind in ("rsa", "p256", "ed25519"):
        credential = pki.server(kind)
        identity = load_identity(manager, credential.key_file, chain=credential.chain_file)
        with OurServer(ServerConfig(identities=(identity,))) as server:
            assert s_client(server.port, Want(ca=pki.ca_file)).ok
