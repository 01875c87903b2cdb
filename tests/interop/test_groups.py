"""Each group at least once in each direction, HelloRetryRequest both ways, finite-field groups in TLS 1.2 (RFC 7919)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nss_pk11.tls.codepoints import Group, Version
from nss_pk11.tls.config import DEFAULT_GROUPS, ClientConfig, ServerConfig
from nss_pk11.tls.suites import BY_NAME, SUITES

from ..support.ours import OurServer, connect
from ..support.peers.base import Want
from ..support.peers.openssl import GROUPS as OPENSSL_GROUPS
from ..support.peers.openssl import s_client
from ..support.peers.table import ABILITIES, CLIENTS, ServerPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.certs import Trust

    from ..support.pki import PKI
    from .conftest import Keyring

PEERS = ("openssl", "gnutls", "nss", "node")
CELLS = [(group, peer) for group in Group for peer in PEERS if group in ABILITIES[peer].groups]
FINITE_FIELD = tuple(group for group in Group if group.name.startswith("ffdhe"))
CURVES = [(group, peer) for group, peer in CELLS if group not in (*FINITE_FIELD, Group.X25519MLKEM768)]
DHE = BY_NAME["TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"]


def _name(value: object) -> str:
    return value.name if isinstance(value, Group) else str(value)


@pytest.fixture(scope="module")
def server(server_keys: Keyring) -> Iterator[OurServer]:
    identities = (server_keys.identity("p256"), server_keys.identity("rsa"))
    with OurServer(ServerConfig(identities=identities, suites=SUITES, groups=tuple(Group))) as server:
        yield server


def test_every_group_has_a_peer() -> None:
    assert {group for group, _ in CELLS} == set(Group)


@pytest.mark.parametrize(("group", "peer"), CELLS, ids=_name)
def test_our_server(server: OurServer, group: Group, peer: str, pki: PKI, directory: Path) -> None:
    before = server.mark()
    result = CLIENTS[peer](server.port, Want(version=Version.tls1_3, group=group, ca=pki.ca_file), directory)
    assert result.ok, f"{server.next(before).error}\n{result}"
    assert server.next(before).group == group.name


@pytest.mark.parametrize(("group", "peer"), CELLS, ids=_name)
def test_our_client(foreign: ServerPool, group: Group, peer: str, pki: PKI, trust: Trust) -> None:
    """The peer takes only this group: ours offers it, with or without a share in the first flight."""
    server = foreign(peer, Want(version=Version.tls1_3, group=group, credential=pki.server("p256")))
    groups = DEFAULT_GROUPS if group in DEFAULT_GROUPS else (*DEFAULT_GROUPS, group)
    seen = connect(server.port, ClientConfig(server_name="localhost", groups=groups), trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.group == group.name
    assert seen.info.hello_retry is (group not in DEFAULT_GROUPS[:2])


@pytest.mark.parametrize(("group", "peer"), CURVES, ids=_name)
def test_our_server_in_tls12(server: OurServer, group: Group, peer: str, pki: PKI, directory: Path) -> None:
    before = server.mark()
    # The certificate's curve has to be among the client's groups (RFC 8422 section 5.1): so RSA.
    suite = BY_NAME["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
    want = Want(version=Version.tls1_2, suite=suite, group=group, ca=pki.ca_file)
    result = CLIENTS[peer](server.port, want, directory)
    assert result.ok, f"{server.next(before).error}\n{result}"
    assert server.next(before).group == group.name


@pytest.mark.parametrize(("group", "peer"), CURVES, ids=_name)
def test_our_client_in_tls12(foreign: ServerPool, group: Group, peer: str, pki: PKI, trust: Trust) -> None:
    server = foreign(peer, Want(version=Version.tls1_2, group=group, credential=pki.server("rsa")))
    config = ClientConfig(server_name="localhost", max_version=Version.tls1_2, groups=(group, Group.secp256r1))
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.group == group.name


@pytest.mark.parametrize("group", FINITE_FIELD, ids=_name)
def test_finite_field_groups_of_our_server_in_tls12(server: OurServer, group: Group, pki: PKI, directory: Path) -> None:
    for peer, extra in {"gnutls": (), "nss": ("-H",)}.items():  # without -H NSS does not name the group
        before = server.mark()
        want = Want(version=Version.tls1_2, suite=DHE, group=group, ca=pki.ca_file, extra=extra)
        result = CLIENTS[peer](server.port, want, directory)
        assert result.ok, f"{server.next(before).error}\n{result}"
        assert server.next(before).group == group.name


@pytest.mark.parametrize("group", FINITE_FIELD, ids=_name)
def test_finite_field_groups_of_our_client_in_tls12(foreign: ServerPool, group: Group, pki: PKI, trust: Trust) -> None:
    server = foreign("gnutls", Want(version=Version.tls1_2, group=group, suite=DHE, credential=pki.server("rsa")))
    config = ClientConfig(server_name="localhost", max_version=Version.tls1_2, suites=(DHE,), groups=(group,))
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.group == group.name


def test_a_client_without_finite_field_groups(server: OurServer, pki: PKI) -> None:
    """OpenSSL's client names no ffdhe group in TLS 1.2: the server picks one itself (RFC 7919 section 4)."""
    before = server.mark()
    result = s_client(server.port, Want(version=Version.tls1_2, suite=DHE, ca=pki.ca_file))
    assert result.ok, result
    assert server.next(before).group.startswith("ffdhe")


# --- HelloRetryRequest -------------------------------------------------------------------------------------------------


def test_our_server_asks_again(server_keys: Keyring, pki: PKI, directory: Path) -> None:
    config = ServerConfig(identities=(server_keys.identity("p256"),), groups=(Group.secp521r1,))
    first_share_only_of_x25519 = {
        "openssl": ("-groups", "X25519:P-521"),
        "gnutls": ("--single-key-share",),
        "nss": ("-I", "x25519,P521"),
    }
    with OurServer(config) as server:
        for peer, extra in first_share_only_of_x25519.items():
            before = server.mark()
            result = CLIENTS[peer](server.port, Want(version=Version.tls1_3, ca=pki.ca_file, extra=extra), directory)
            assert result.ok, f"{peer}: {server.next(before).error}\n{result}"
            seen = server.next(before)
            assert (seen.group, seen.info.hello_retry) == ("secp521r1", True), peer


@pytest.mark.parametrize("peer", ["openssl", "gnutls", "nss"])
def test_our_client_is_asked_again(foreign: ServerPool, peer: str, pki: PKI, trust: Trust) -> None:
    server = foreign(peer, Want(version=Version.tls1_3, group=Group.secp384r1, credential=pki.server("p256")))
    config = ClientConfig(server_name="localhost", groups=(Group.x25519, Group.secp384r1), key_shares=1)
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert (seen.group, seen.info.hello_retry) == ("secp384r1", True)


def test_no_common_group(server_keys: Keyring, pki: PKI) -> None:
    config = ServerConfig(identities=(server_keys.identity("p256"),), groups=(Group.x25519,))
    with OurServer(config) as server:
        for version in (Version.tls1_3, Version.tls1_2):
            before = server.mark()
            result = s_client(
                server.port, Want(version=version, ca=pki.ca_file, extra=("-groups", OPENSSL_GROUPS[Group.secp256r1]))
            )
            assert not result.ok
            assert "handshake failure" in result.alert
            assert server.next(before).error is not None
