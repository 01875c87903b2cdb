"""Each suite of our table at least once in each direction, with every peer that knows it; CBC with and without
encrypt-then-MAC (RFC 7366)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.suites import BY_NAME, SUITES

from ..support.ours import OurServer, connect
from ..support.peers.base import Want
from ..support.peers.gnutls import gnutls_cli
from ..support.peers.openssl import s_client
from ..support.peers.table import ABILITIES, CLIENTS, key_kind, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.certs import Trust

    from ..support.peers.table import ServerPool
    from ..support.pki import PKI
    from .conftest import Keyring

PEERS = ("openssl", "gnutls", "nss")
CELLS = [(suite.name, peer) for suite in SUITES for peer in PEERS if suite in ABILITIES[peer].suites]
CBC = [suite.name for suite in SUITES if suite.cipher.kind == "cbc"]


@pytest.fixture(scope="module")
def server(server_keys: Keyring) -> Iterator[OurServer]:
    """Ours, with every suite enabled."""
    identities = (server_keys.identity("p256"), server_keys.identity("rsa"))
    with OurServer(ServerConfig(identities=identities, suites=SUITES)) as server:
        yield server


def test_every_suite_has_a_peer() -> None:
    assert {name for name, _ in CELLS} == {suite.name for suite in SUITES}


@pytest.mark.parametrize(("name", "peer"), CELLS)
def test_our_server(server: OurServer, name: str, peer: str, pki: PKI, directory: Path) -> None:
    suite, before = BY_NAME[name], server.mark()
    result = CLIENTS[peer](server.port, Want(version=version_of(suite), suite=suite, ca=pki.ca_file), directory)
    assert result.ok, f"{server.next(before).error}\n{result}"
    seen = server.next(before)
    assert seen.error is None
    assert seen.suite == name
    assert result.suite in ("", name)
    assert b"200 OK" in result.answer


@pytest.mark.parametrize(("name", "peer"), CELLS)
def test_our_client(foreign: ServerPool, name: str, peer: str, pki: PKI, trust: Trust) -> None:
    suite = BY_NAME[name]
    server = foreign(peer, Want(version=version_of(suite), credential=pki.server(key_kind(suite)), all_suites=True))
    config = ClientConfig(server_name="localhost", suites=(suite,), max_version=version_of(suite))
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.suite == name
    assert seen.answer


@pytest.mark.parametrize("encrypt_then_mac", [True, False], ids=["encrypt-then-mac", "mac-then-encrypt"])
@pytest.mark.parametrize("name", CBC)
def test_encrypt_then_mac_of_our_server(server: OurServer, name: str, encrypt_then_mac: bool, pki: PKI) -> None:
    suite, before = BY_NAME[name], server.mark()
    want = Want(version=Version.tls1_2, suite=suite, ca=pki.ca_file)
    result = gnutls_cli(server.port, want, *(() if encrypt_then_mac else ("%NO_ETM",)))
    assert result.ok, f"{server.next(before).error}\n{result}"
    assert server.next(before).info.encrypt_then_mac is encrypt_then_mac


@pytest.mark.parametrize("encrypt_then_mac", [True, False], ids=["encrypt-then-mac", "mac-then-encrypt"])
@pytest.mark.parametrize("name", CBC)
def test_encrypt_then_mac_of_our_client(foreign: ServerPool, name: str, encrypt_then_mac: bool, pki: PKI, trust: Trust) -> None:
    suite = BY_NAME[name]
    server = foreign("openssl", Want(version=Version.tls1_2, credential=pki.server(key_kind(suite)), all_suites=True))
    config = ClientConfig(server_name="localhost", suites=(suite,), max_version=Version.tls1_2, encrypt_then_mac=encrypt_then_mac)
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.info.encrypt_then_mac is encrypt_then_mac


def test_no_common_suite(server_keys: Keyring, pki: PKI) -> None:
    only = BY_NAME["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    with OurServer(ServerConfig(identities=(server_keys.identity("p256"),), suites=(only,))) as server:
        want = Want(version=Version.tls1_2, suite=BY_NAME["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"], ca=pki.ca_file)
        result = s_client(server.port, want)
        assert not result.ok
        assert "handshake failure" in result.alert
        error = server.next(0).error
        assert error
        assert error.name == "SSL_ERROR_NO_CYPHER_OVERLAP"


@pytest.mark.parametrize("name", ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"])
def test_suites_of_one_version_enable_no_other(
    server_keys: Keyring, foreign: ServerPool, name: str, pki: PKI, trust: Trust
) -> None:
    """With TLS 1.2's suites alone, TLS 1.3 is not offered, and the other way round."""
    suite = BY_NAME[name]
    peer = foreign("openssl", Want(credential=pki.server("p256")))
    seen = connect(peer.port, ClientConfig(server_name="localhost", suites=(suite,)), trust=trust)
    assert (seen.error, seen.suite) == (None, name)
    with OurServer(ServerConfig(identities=(server_keys.identity("p256"),), suites=(suite,))) as server:
        assert s_client(server.port, Want(ca=pki.ca_file)).suite == name


def test_defaults_are_modern(server_keys: Keyring, pki: PKI) -> None:
    """What `serve` negotiates when nobody asks: no CBC, no RSA key exchange, no finite-field groups."""
    with OurServer(ServerConfig(identities=(server_keys.identity("p256"), server_keys.identity("rsa")))) as server:
        for suite in SUITES:
            want = Want(version=version_of(suite), suite=suite, ca=pki.ca_file)
            result = s_client(server.port, want)
            assert result.ok is suite.modern, f"{suite.name}: {result}"
            if result.ok:
                assert f'"suite": "{suite.name}"'.encode() in result.answer
