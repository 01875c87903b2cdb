"""Every suite of SSL 3.0, TLS 1.0 and TLS 1.1 in every version that has it, with every foreign stack that has it, our side as
server and as client, keys in a token: version, suite, and data both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nss_pk11.net.stepdown import step_down
from nss_pk11.tls.config import ClientConfig, ServerConfig

from ..support.old_peers import CELLS, PEERS
from ..support.ours import OurServer, connect
from .talking import EVERYTHING, Answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..support.old_peers import Cell, OldPeer
    from ..support.old_pki import OldKeys, OldPKI, OldTrust
    from .talking import Matrix


def cells(role: str) -> pytest.MarkDecorator:
    """Ours is the server where theirs connects."""
    found = [(cell, peer.key) for cell in CELLS for peer in PEERS if (peer.connects if role == "server" else peer.serves)(cell)]
    return pytest.mark.parametrize(("cell", "peer"), found, ids=[f"{cell}-{peer}" for cell, peer in found])


@pytest.fixture(scope="module")
def server(old_pki: OldPKI, old_keys: OldKeys, old_trust: OldTrust) -> Iterator[OurServer]:
    """Ours, with everything enabled: the client chooses."""
    identities = tuple(old_keys.identity(old_pki.server(kind)) for kind in ("rsa", "dsa", "p256"))
    config = ServerConfig(identities=identities, step_down=step_down, **EVERYTHING)
    with OurServer(config, trust=old_trust, application=Answering) as server:
        yield server


def test_every_cell_has_a_peer_in_both_roles() -> None:
    for role in ("connects", "serves"):
        assert [cell for cell in CELLS if not any(getattr(peer, role)(cell) for peer in PEERS)] == []


@cells("server")
def test_our_server(server: OurServer, cell: Cell, peer: str, old_peers: dict[str, OldPeer], matrix: Matrix) -> None:
    before = server.mark()
    try:
        old_peers[peer].client(server.port, cell)
    except AssertionError as failure:
        raise AssertionError(f"{server.next(before)}\n{failure}") from failure
    seen = server.next(before)
    assert seen.error is None
    assert (seen.info.version, seen.info.suite) == (cell.version, cell.suite)
    matrix.passed("server", cell.suite.nss_name, cell.version, peer)


@cells("client")
def test_our_client(cell: Cell, peer: str, old_peers: dict[str, OldPeer], old_trust: OldTrust, matrix: Matrix) -> None:
    config = ClientConfig(server_name="localhost", **{**EVERYTHING, "suites": (cell.suite,), "max_version": cell.version})
    with old_peers[peer].server(cell) as far:
        seen = connect(far.port, config, trust=old_trust, use=far.talk, request=None)
    assert seen.error is None
    assert (seen.info.version, seen.info.suite) == (cell.version, cell.suite)
    matrix.passed("client", cell.suite.nss_name, cell.version, peer)
