"""FORTEZZA on the command line: what `slots` shows, and `serve` and `connect`, each a process with a card of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ...support.command import Serve, connect, run
from . import PIN, card

if TYPE_CHECKING:
    from collections.abc import Callable

    from pk11_tokens import RunningSimulator, TokenControl

    from ...support.pki import PKI
    from ...support.softhsm import SoftHSM

SUITES = ("--min", "ssl3", "--suites", "FORTEZZA")


@pytest.fixture
def cards(simulated_tokens: Callable[..., RunningSimulator], pki: PKI) -> list[TokenControl]:
    """A server's and a client's, each in a library of its own."""
    return [simulated_tokens([card(pki, name)])[f"card of {name}"] for name in ("localhost", "somebody")]


def identity(token: TokenControl) -> tuple[str, ...]:
    return "--module", str(token.simulator.module), "--identity", f"{token.uri('kea')}&pin-value={PIN}"


def test_slots_shows_what_does_fortezza(softhsm: SoftHSM, cards: list[TokenControl]) -> None:
    arguments = ("slots", "--module", str(cards[0].simulator.module))
    shown = run(softhsm, *arguments).stdout
    line = next(line for line in shown.splitlines() if "card of localhost" in line and line.strip().startswith("token"))
    assert line.endswith("FORTEZZA")
    assert "localhost · KEA 1024" in shown
    report = json.loads(run(softhsm, *arguments, "--json").stdout)
    tokens = [slot["token"] for module in report["modules"] for slot in module["slots"] if slot["token"]]
    assert {token["label"]: token["fortezza"] for token in tokens}["card of localhost"]
    assert [token["fortezza"] for token in tokens].count(True) == 1


def test_serve_and_connect(softhsm: SoftHSM, pki: PKI, cards: list[TokenControl]) -> None:
    served, used = cards
    with Serve(softhsm, *identity(served), *SUITES, "--echo") as server:
        report = connect(softhsm, server.port, *identity(used), *SUITES, "--ca", pki.ca_file)
        assert (report["version"], report["suite"]) == ("TLSv1.0", "SSL_FORTEZZA_KEA_WITH_RC4_128_SHA")
        # The card is the server's as long as that runs: one process at a time.
        other = run(softhsm, "slots", "--module", str(served.simulator.module), "--token", "card of localhost")
        assert other.returncode != 0


def test_a_server_with_a_card_is_one_process(softhsm: SoftHSM, cards: list[TokenControl]) -> None:
    done = run(softhsm, "serve", "--listen", "127.0.0.1:0", *identity(cards[0]), *SUITES, "--workers", "2")
    assert done.returncode != 0
    assert "a server with a FORTEZZA card is one process: leave --workers out" in done.stderr
