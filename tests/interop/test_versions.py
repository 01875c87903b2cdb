"""Each version, key type and peer, both directions, our key in SoftHSM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig

from ..support.ours import OurServer, connect
from ..support.peers.base import Want
from ..support.peers.table import ABILITIES, CLIENTS, SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.certs import Trust

    from ..support.peers.table import ServerPool
    from ..support.pki import PKI
    from .conftest import Keyring

VERSIONS = pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)
KINDS = ("rsa", "p256", "ed25519")


def _cells(peers: dict[str, object]) -> list[tuple[str, str]]:
    return [(kind, peer) for kind in KINDS for peer in peers if kind in ABILITIES[peer].kinds]


@pytest.fixture(scope="module")
def servers(server_keys: Keyring) -> Iterator[dict[str, OurServer]]:
    """Ours, one per kind of key."""
    started: dict[str, OurServer] = {}
    try:
        for kind in KINDS:
            config = ServerConfig(identities=(server_keys.identity(kind),), tickets=TicketKeys(), session_ids=True)
            started[kind] = OurServer(config)
        yield started
    finally:
        for server in started.values():
            server.stop()


@VERSIONS
@pytest.mark.parametrize(("kind", "peer"), _cells(dict(CLIENTS)))
def test_our_server(servers: dict[str, OurServer], kind: str, peer: str, version: Version, pki: PKI, directory: Path) -> None:
    server = servers[kind]
    before = server.mark()
    result = CLIENTS[peer](server.port, Want(version=version, ca=pki.ca_file), directory)
    assert result.ok, f"{server.next(before).error}\n{result}"
    assert result.version == version.label
    seen = server.next(before)
    assert seen.error is None
    assert seen.version == version.label
    assert seen.info.server_name == "localhost"
    assert not seen.info.hello_retry
    assert result.suite in ("", seen.suite)


@VERSIONS
@pytest.mark.parametrize(("kind", "peer"), _cells(dict(SERVERS)))
def test_our_client(foreign: ServerPool, kind: str, peer: str, version: Version, pki: PKI, trust: Trust) -> None:
    server = foreign(peer, Want(credential=pki.server(kind)))
    config = ClientConfig(server_name="localhost", min_version=version, max_version=version)
    seen = connect(server.port, config, trust=trust)
    assert seen.error is None, f"{seen.error}\n{server.output}"
    assert seen.version == version.label
    assert seen.answer
    assert len(seen.info.peer_chain) >= 2


def test_both_ends_ours(server_keys: Keyring, trust: Trust, servers: dict[str, OurServer]) -> None:
    for kind in KINDS:
        seen = connect(servers[kind].port, ClientConfig(server_name="localhost"), trust=trust)
        assert seen.error is None
        said = seen.page
        assert (said["version"], said["group"]) == ("TLSv1.3", "X25519MLKEM768")
        assert said["exported"] == seen.exported.hex()
