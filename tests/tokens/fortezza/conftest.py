"""Three cards and a host of them, logged in."""

from __future__ import annotations

from collections.abc import Iterator

import pk11_tokens
import pytest
from pk11_tokens import RunningSimulator

from ..client import Client
from ..cryptoki import Module
from .host import EXCHANGE, PIN, Card, token


@pytest.fixture(scope="module")
def cards() -> Iterator[RunningSimulator]:
    """Three, the last one of another domain."""
    other = [EXCHANGE | {"kind": "kea_other"}]
    with pk11_tokens.start([token("a"), token("b"), token("c", key=other)]) as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def module(cards: RunningSimulator) -> Iterator[Module]:
    with Module(cards.module) as initialised:
        yield initialised


@pytest.fixture
def a(module: Module) -> Card:
    return Card(Client(module, slot=1).login(PIN.encode()))


@pytest.fixture
def b(module: Module) -> Card:
    return Card(Client(module, slot=2).login(PIN.encode()))


@pytest.fixture
def c(module: Module) -> Card:
    return Card(Client(module, slot=3).login(PIN.encode()))
