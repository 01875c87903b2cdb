"""Each signature scheme in each direction, and certificates of every kind of key; ML-DSA with OpenSSL 3.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nss_pk11.net.identity import load_identity
from nss_pk11.tls.codepoints import SignatureScheme, Version
from nss_pk11.tls.config import DEFAULT_SCHEMES, ClientConfig, ServerConfig
from nss_pk11.tls.signatures import allowed_in

from ..support.ours import OurServer, connect
from ..support.peers.base import Want
from ..support.peers.node import node_client
from ..support.peers.openssl import s_client
from ..support.peers.table import ABILITIES, CLIENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pk11_tokens import RunningSimulator

    from nss_pk11.certs import Trust
    from nss_pk11.slots import SlotManager
    from nss_pk11.tls.config import Identity

    from ..support.peers.table import ServerPool
    from ..support.pki import PKI
    from .conftest import Keyring

S = SignatureScheme
# Which key makes a scheme's signatures.
KINDS = {
    **{scheme: "rsa" for scheme in S if scheme.name.startswith(("rsa_pkcs1", "rsa_pss_rsae"))},
    **{scheme: "rsa-pss" for scheme in S if scheme.name.startswith("rsa_pss_pss")},
    S.ecdsa_sha1: "p256",
    S.ecdsa_secp256r1_sha256: "p256",
    S.ecdsa_secp384r1_sha384: "p384",
    S.ecdsa_secp521r1_sha512: "p521",
    S.ed25519: "ed25519",
    S.ed448: "ed448",
    S.mldsa44: "mldsa44",
    S.mldsa65: "mldsa65",
    S.mldsa87: "mldsa87",
}
SHA1 = (S.rsa_pkcs1_sha1, S.ecdsa_sha1)
ON_TOKENS = ("rsa", "p256", "p384", "p521", "ed25519", "ed448")
VERSIONS = (Version.tls1_3, Version.tls1_2)


def _cells(peers: tuple[str, ...]) -> list[tuple[SignatureScheme, Version, str]]:
    return [
        (scheme, version, peer)
        for scheme in DEFAULT_SCHEMES
        for version in VERSIONS
        for peer in peers
        if allowed_in(scheme, version) and scheme in ABILITIES[peer].schemes and KINDS[scheme] in ABILITIES[peer].kinds
    ]


def _name(value: object) -> str:
    return value.label if isinstance(value, Version) else value.name if isinstance(value, SignatureScheme) else str(value)


@pytest.fixture(scope="module")
def server(server_keys: Keyring) -> Iterator[OurServer]:
    """Ours with every kind of key that SoftHSM makes: the client's schemes choose among them."""
    with OurServer(ServerConfig(identities=tuple(server_keys.identity(kind) for kind in ON_TOKENS))) as server:
        yield server


@pytest.mark.parametrize(
    ("scheme", "version", "peer"), [c for c in _cells(("openssl", "gnutls", "nss")) if KINDS[c[0]] in ON_TOKENS], ids=_name
)
def test_our_server(server: OurServer, scheme: SignatureScheme, version: Version, peer: str, pki: PKI, directory: Path) -> None:
    before = server.mark()
    # Without --x509cafile and the like: restricted to one scheme, a client could not verify the CA's signatures.
    result = CLIENTS[peer](server.port, Want(version=version, scheme=scheme), directory)
    assert result.ok, f"{server.next(before).error}\n{result}"
    seen = server.next(before)
    assert seen.info.signature_scheme is scheme


@pytest.mark.parametrize(("scheme", "version", "peer"), _cells(("openssl", "gnutls", "nss", "node")), ids=_name)
def test_our_client(foreign: ServerPool, scheme: SignatureScheme, version: Version, peer: str, pki: PKI, trust: Trust) -> None:
    server = foreign(peer, Want(version=version, credential=pki.server(KINDS[scheme])))
    config = ClientConfig(
        server_name="localhost", schemes=(scheme, *_for_the_chain(scheme, version)), min_version=version, max_version=version
    )
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.info.signature_scheme is scheme


def _for_the_chain(scheme: SignatureScheme, version: Version) -> tuple[SignatureScheme, ...]:
    """What the CA signs with, where the leaf's key cannot; in TLS 1.2 an ECDSA key might sign with that as well."""
    if version is Version.tls1_2 and scheme.name.startswith("ecdsa"):
        return ()
    if scheme.name.startswith("rsa_pss_pss"):
        return (S.rsa_pkcs1_sha256,)
    return () if KINDS[scheme] in ("rsa", "p256") else (S.ecdsa_secp256r1_sha256,)


@pytest.mark.parametrize("scheme", SHA1, ids=_name)
def test_sha1_is_refused_by_default(
    server: OurServer, foreign: ServerPool, scheme: SignatureScheme, pki: PKI, trust: Trust
) -> None:
    """RFC 9155: neither signed nor accepted, in TLS 1.2."""
    result = s_client(server.port, Want(version=Version.tls1_2, scheme=scheme))
    assert not result.ok
    assert "handshake failure" in result.alert
    peer = foreign("openssl", Want(version=Version.tls1_2, scheme=scheme, credential=pki.server(KINDS[scheme])))
    seen = connect(peer.port, ClientConfig(server_name="localhost"), trust=trust)
    assert seen.error is not None


def node_accepts(identity: Identity, kind: str, pki: PKI) -> None:
    """Node's OpenSSL 3.5 takes a signature of the identity, by a scheme for keys of this kind."""
    with OurServer(ServerConfig(identities=(identity,))) as server:
        result = node_client(server.port, Want(version=Version.tls1_3, ca=pki.ca_file))
        assert result.ok, f"{server.next(0).error}\n{result}"
        scheme = server.next(0).info.signature_scheme
        assert scheme
        assert KINDS[scheme] == kind


@pytest.mark.parametrize("kind", ["rsa-pss", "mldsa44", "mldsa65", "mldsa87"])
def test_certificates_that_softhsm_has_no_keys_for(kind: str, pki: PKI, manager: SlotManager) -> None:
    """Software keys behind our server; Node's OpenSSL 3.5 is the client."""
    credential = pki.server(kind)
    identity = load_identity(manager, credential.key_file, chain=credential.chain_file)
    node_accepts(identity, kind, pki)


@pytest.mark.parametrize("kind", ["mldsa44", "mldsa65", "mldsa87", "ed25519", "ed448"])
def test_keys_in_a_simulated_token(
    kind: str, simulated_tokens: Callable[..., RunningSimulator], pki: PKI, manager: SlotManager
) -> None:
    """ML-DSA by PKCS #11 3.2, which SoftHSM has not; signed through the C ABI, verified by Node's OpenSSL 3.5."""
    credential = pki.server(kind)
    key = {"label": "www", "file": str(credential.key_file)}
    token = simulated_tokens([{"label": "card", "personality": "signature token", "pin": "123456", "key": [key]}])["card"]
    identity = load_identity(manager, f"{token.uri('www')}&pin-value=123456", chain=credential.chain_file)
    node_accepts(identity, kind, pki)
    assert token.status().calls["C_Sign"] == 1
