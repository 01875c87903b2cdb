"""Pytest fixtures: simulated tokens and SoftHSM tokens, each test its own, no fixed paths.

Loaded in every test run where the package is installed: imports nothing but pytest until a fixture is asked for, and neither
fixture is there for anybody who does not ask.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .simulator import RunningSimulator
    from .softhsm import SoftHSM, TokenOnDisk

_labels = itertools.count(1)


@pytest.fixture
def simulated_tokens() -> Iterator[Callable[..., RunningSimulator]]:
    """A factory: `simulated_tokens(description)` starts simulated tokens, as `pk11_tokens.start` does.

    They are stopped at the end of the test, which fails where a token server has died or failed inside.
    """
    from .simulator import start

    started: list[RunningSimulator] = []

    def make(description: str | Path | Mapping[str, Any] | Iterable[Any], **options: Any) -> RunningSimulator:
        if not isinstance(description, str | os.PathLike | Mapping):
            description = list(description)
        started.append(start(description, **options))
        return started[-1]

    yield make
    faults = [fault for simulator in reversed(started) if (fault := _stop(simulator))]
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


def _stop(simulator: RunningSimulator) -> str:
    """What was wrong with it."""
    try:
        simulator.stop()
    except RuntimeError as error:
        return str(error)
    return f"the token server failed inside:\n{simulator.log}" if "Traceback" in simulator.log else ""


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHSM]:
    """SoftHSM as this process sees it: its library reads SOFTHSM2_CONF once, so there is one for all tests.

    Skips where SoftHSM is not installed.  Make tokens with labels of your own in it, or ask for `softhsm_token`.
    """
    from .softhsm import NotInstalled, SoftHSM

    try:
        hsm = SoftHSM(tmp_path_factory.mktemp("softhsm"))
    except NotInstalled as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(hsm.config))
        yield hsm


@pytest.fixture
def softhsm_token(softhsm: SoftHSM) -> Callable[..., TokenOnDisk]:
    """A factory: `softhsm_token("p256", "rsa")` makes a new token in `softhsm` with these keys, each labelled as its kind."""

    def make(*kinds: str, label: str | None = None) -> TokenOnDisk:
        token = softhsm.create_token(label or f"token {next(_labels)}")
        for kind in kinds:
            token.generate_key(kind)
        return token

    return make
