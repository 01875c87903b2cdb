"""Tokens and keys in SoftHSM, made once: generating them is what takes time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from nss_pk11 import pins
from nss_pk11.slots import PrivateKey, SlotManager
from tests.support.softhsm import PIN, KeyOnToken, SoftHSM, TokenOnDisk

KINDS = ("rsa", "p256", "p384", "p521", "ed25519", "ed448")
_numbers = count(1)


@pytest.fixture(scope="session")
def new_token(softhsm: SoftHSM) -> Callable[..., TokenOnDisk]:
    """Makes tokens with labels that no other has."""

    def make(**arguments: str) -> TokenOnDisk:
        return softhsm.create_token(f"slots {next(_numbers)}", **arguments)

    return make


@pytest.fixture(scope="session")
def web(new_token: Callable[..., TokenOnDisk]) -> TokenOnDisk:
    """A token with a key of each kind, labelled by the kind.  To be read only."""
    return new_token()


@pytest.fixture(scope="session")
def keys(web: TokenOnDisk) -> dict[str, KeyOnToken]:
    return {kind: web.generate_key(kind) for kind in KINDS}


@pytest.fixture
def manager(softhsm: SoftHSM) -> Iterator[SlotManager]:
    """Has SoftHSM loaded and nobody to ask for a PIN."""
    with SlotManager() as manager:
        manager.load(softhsm.module_path)
        yield manager


@dataclass
class Asked:
    """A PIN provider that remembers what it was asked and gives its answers in turn, the last one for ever."""

    answers: list[str | None]
    person: bool = True
    static: bool = False

    def __post_init__(self) -> None:
        self.requests: list[pins.PinRequest] = []

    def __call__(self, request: pins.PinRequest) -> str | None:
        self.requests.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    __hash__ = object.__hash__


@pytest.fixture
def find(manager: SlotManager, keys: dict[str, KeyOnToken]) -> Callable[[str], PrivateKey]:
    """The key of a kind, logged in to."""
    return lambda kind: manager.find_key(keys[kind].uri, pins.value(PIN))
