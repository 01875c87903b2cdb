"""A server's and a client's card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import Holder, card

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pk11_tokens import RunningSimulator

    from ...support.pki import PKI

    Start = Callable[..., RunningSimulator]


@pytest.fixture
def holders(simulated_tokens: Start, pki: PKI) -> Iterator[Callable[..., Holder]]:
    made: list[Holder] = []

    def make(name: str, kind: str = "kea") -> Holder:
        made.append(Holder(simulated_tokens([card(pki, name, kind=kind)]), name))
        return made[-1]

    yield make
    for holder in made:
        holder.close()


@pytest.fixture
def server(holders: Callable[..., Holder]) -> Holder:
    return holders("localhost")


@pytest.fixture
def client(holders: Callable[..., Holder]) -> Holder:
    return holders("somebody")
