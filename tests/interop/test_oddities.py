"""What peers may do and seldom do: tiny records, padding, no tickets or many, odd server names, no renegotiation_info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.codepoints import SignatureScheme, Version
from nss_pk11.tls.config import ClientConfig, ServerConfig

from ..support.ours import OurServer, bytes_of, connect
from ..support.peers.base import Want
from ..support.peers.gnutls import GnuTLSServer, gnutls_cli
from ..support.peers.openssl import OpenSSLServer, s_client
from ..support.require import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nss_pk11.certs import Trust

    from ..support.peers.table import ServerPool
    from ..support.pki import PKI
    from .conftest import Keyring

VERSIONS = pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)


@pytest.fixture(scope="module")
def server(server_keys: Keyring, trust: Trust) -> Iterator[OurServer]:
    identities = (server_keys.identity("p256"), server_keys.identity("p256", ("a.test",)))
    config = ServerConfig(identities=identities, tickets=TicketKeys(), client_auth="request", authorities=trust.authorities)
    with OurServer(config, trust=trust) as server:
        yield server


@VERSIONS
def test_messages_in_many_records(server: OurServer, foreign: ServerPool, version: Version, pki: PKI, trust: Trust) -> None:
    """Handshake messages broken into records of 512 bytes, the client's certificate among them."""
    small = ("-max_send_frag", "512")
    before = server.mark()
    result = s_client(server.port, Want(version=version, ca=pki.ca_file, credential=pki.client("rsa"), extra=small))
    assert result.ok, result
    assert server.next(before).info.peer_chain
    peer = foreign("openssl", Want(version=version, credential=pki.server("rsa"), extra=small))
    seen = connect(peer.port, ClientConfig(server_name="localhost"), trust=trust)
    assert seen.error is None, f"{seen.error}\n{peer.output}"
    assert len(seen.answer) > 4096


@pytest.mark.parametrize("block", ["100", "4096", "16384"])
def test_padding(server: OurServer, foreign: ServerPool, block: str, pki: PKI, trust: Trust) -> None:
    """RFC 8446 section 5.4: records padded to a multiple of `block`, up to as long as they may be."""
    padded = ("-record_padding", block)
    request = b"GET /bytes/40000 HTTP/1.0\r\n\r\n"
    result = s_client(server.port, Want(version=Version.tls1_3, ca=pki.ca_file, extra=padded, request=request))
    assert result.ok, result
    assert len(result.answer) > 40000
    peer = foreign("openssl", Want(version=Version.tls1_3, credential=pki.server("p256"), extra=padded))
    seen = connect(peer.port, ClientConfig(server_name="localhost"), trust=trust)
    assert seen.error is None, f"{seen.error}\n{peer.output}"
    assert seen.answer


@pytest.mark.parametrize("count", [0, 1, 20])
def test_tickets_of_a_foreign_server(foreign: ServerPool, count: int, pki: PKI, trust: Trust) -> None:
    extra = ("-num_tickets", str(count))
    peer = foreign("openssl", Want(version=Version.tls1_3, credential=pki.server("p256"), extra=extra))
    seen = connect(peer.port, ClientConfig(server_name="localhost"), trust=trust)
    assert seen.error is None
    assert len(seen.sessions) == count


def test_a_client_that_would_resume_without_a_key_exchange(server: OurServer, pki: PKI, tmp_path: Path) -> None:
    """psk_ke offered besides psk_dhe_ke: forward secrecy is kept."""
    session, extra = tmp_path / "session", ("-allow_no_dhe_kex",)
    assert s_client(server.port, Want(version=Version.tls1_3, ca=pki.ca_file), session).ok
    result = s_client(server.port, Want(version=Version.tls1_3, ca=pki.ca_file, resume=True, extra=extra), session)
    assert result.resumed, result
    assert result.group, "a key exchange took place"


@VERSIONS
@pytest.mark.parametrize(
    ("sigalgs", "scheme"),
    [
        ("RSA-PSS+SHA512", SignatureScheme.rsa_pss_rsae_sha512),
        ("ECDSA+SHA256", SignatureScheme.ecdsa_secp256r1_sha256),
        ("ed25519", SignatureScheme.ed25519),
    ],
)
def test_our_client_signs_as_the_server_likes(
    foreign: ServerPool, client_keys: Keyring, sigalgs: str, scheme: SignatureScheme, version: Version, pki: PKI, trust: Trust
) -> None:
    identities = tuple(client_keys.identity(kind) for kind in ("rsa", "p256", "ed25519"))
    extra = ("-client_sigalgs", sigalgs)
    want = Want(version=version, credential=pki.server("p256"), client_auth="require", ca=pki.ca_file, extra=extra)
    peer = foreign("openssl", want)
    seen = connect(peer.port, ClientConfig(server_name="localhost", identities=identities), trust=trust)
    assert seen.error is None, f"{seen.error}\n{peer.output}"
    assert seen.info.client_signature_scheme is scheme


@VERSIONS
@pytest.mark.parametrize(("name", "subject"), [("A.TEST", "a.test"), ("127.0.0.1", "localhost")])
def test_odd_server_names(server: OurServer, name: str, subject: str, version: Version) -> None:
    """Upper case is the same name; an address is no server name, but no reason to refuse (RFC 6066 section 3)."""
    result = s_client(server.port, Want(version=version, server_name=name))
    assert result.ok, result
    assert result.subject == subject


@VERSIONS
def test_our_client_by_address(foreign: ServerPool, version: Version, pki: PKI, trust: Trust) -> None:
    """Checked against the certificate's iPAddress, and not sent."""
    peer = foreign("gnutls", Want(version=version, credential=pki.server("p256")))
    seen = connect(peer.port, ClientConfig(server_name="127.0.0.1"), trust=trust)
    assert seen.error is None
    assert b"Server Name: </p>" in seen.answer or b"Server Name:" not in seen.answer
    seen = connect(peer.port, ClientConfig(server_name="127.0.0.2"), trust=trust)
    assert seen.error is not None
    assert seen.error.name == "SSL_ERROR_BAD_CERT_DOMAIN"


def test_peers_without_renegotiation_info(server: OurServer, pki: PKI, trust: Trust) -> None:
    """RFC 5746 sections 3.4 and 3.6 leave it open whether to go on; whoever does must never renegotiate."""
    legacy = "%DISABLE_SAFE_RENEGOTIATION"
    assert gnutls_cli(server.port, Want(version=Version.tls1_2, ca=pki.ca_file), legacy).ok

    class Legacy(GnuTLSServer):
        words = (legacy,)

    with Legacy(Want(version=Version.tls1_2, credential=pki.server("p256"))) as peer:
        seen = connect(peer.port, ClientConfig(server_name="localhost"), trust=trust)
        assert seen.error is None, f"{seen.error}\n{peer.output}"
        assert seen.answer


@VERSIONS
def test_large_requests(server: OurServer, version: Version, pki: PKI) -> None:
    """Many full records from the client, then the answer."""
    filler = bytes_of(300_000).hex().encode()
    request = b"GET / HTTP/1.0\r\nX-Filler: " + filler + b"\r\n\r\n"
    result = gnutls_cli(server.port, Want(version=version, ca=pki.ca_file, request=request))
    assert result.ok, result
    assert b"200 OK" in result.answer


@VERSIONS
def test_many_authorities(version: Version, pki: PKI, client_keys: Keyring, trust: Trust, tmp_path: Path) -> None:
    """A CertificateRequest that names all of the system's roots is some 20 kB, more than a record."""
    bundle = tmp_path / "many.pem"
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    if not system.exists():
        missing("ca-certificates")
    bundle.write_text(system.read_text() + pki.ca_file.read_text())
    want = Want(version=version, credential=pki.server("p256"), client_auth="require", ca=bundle)
    with OpenSSLServer(want) as peer:
        config = ClientConfig(server_name="localhost", identities=(client_keys.identity("p256"),))
        seen = connect(peer.port, config, trust=trust)
        assert seen.error is None, f"{seen.error}\n{peer.output}"
        assert seen.info.client_signature_scheme is not None
