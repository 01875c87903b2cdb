"""The foreign stacks against each other, without us: so that a failure elsewhere is known to be ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nss_pk11.tls.codepoints import Group, Version
from nss_pk11.tls.suites import BY_NAME

from ..support.old_peers import CELLS, OLD, Cell
from ..support.peers.base import Want
from ..support.peers.node import NodeServer, node_client
from ..support.peers.openssl import OpenSSLServer, s_client
from ..support.peers.table import CLIENTS, SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..support.old_peers import OldPeer
    from ..support.pki import PKI


@pytest.fixture(scope="module", params=SERVERS)
def port(request: pytest.FixtureRequest, pki: PKI, directory: Path) -> Iterator[int]:
    with SERVERS[request.param](Want(credential=pki.server("p256")), directory) as server:
        yield server.port


@pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)
@pytest.mark.parametrize("client", CLIENTS)
def test_foreign_client_with_foreign_server(port: int, client: str, version: Version, pki: PKI, directory: Path) -> None:
    result = CLIENTS[client](port, Want(version=version, ca=pki.ca_file), directory)
    assert result.ok, result
    assert result.version == version.label
    assert result.answer


@pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)
@pytest.mark.parametrize(
    ("client", "server"), [("O", "J"), ("J", "O"), ("N", "O"), ("N", "J"), ("G", "O"), ("G", "J"), ("S", "O")]
)
def test_old_peers(client: str, server: str, version: Version, old_peers: dict[str, OldPeer]) -> None:
    """Of every key exchange that both ends have, one suite."""
    names = ("TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_DHE_RSA_WITH_AES_128_CBC_SHA", "TLS_DHE_DSS_WITH_AES_128_CBC_SHA")
    for name in (*names, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "SSL_RSA_EXPORT_WITH_RC4_40_MD5"):
        cell, there, here = Cell(BY_NAME[name], version), old_peers[server], old_peers[client]
        if cell in CELLS and here.connects(cell) and there.serves(cell):
            with there.server(cell) as far:
                here.client(far.port, cell)


def test_a_wrong_ca_is_noticed(pki: PKI, directory: Path) -> None:
    stranger = pki.authorities["p256"][1].certificate
    file = directory / "stranger.pem"
    file.write_bytes(stranger.public_bytes(Encoding.PEM))
    with OpenSSLServer(Want(credential=pki.server("rsa"))) as server:
        for name, client in CLIENTS.items():
            assert not client(server.port, Want(ca=file), directory).ok, name


def test_hybrid_group(pki: PKI) -> None:
    want = Want(version=Version.tls1_3, group=Group.X25519MLKEM768, credential=pki.server("p256"))
    with NodeServer(want) as server:
        assert node_client(server.port, Want(group=Group.X25519MLKEM768, ca=pki.ca_file)).ok
        assert not s_client(server.port, Want(ca=pki.ca_file)).ok  # 3.0 lacks it: the group was really demanded
