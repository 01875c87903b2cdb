"""Pytest fixtures: simulated tokens and SoftHSM tokens, each test its own, no fixed paths; and a marker for what must be there
only while a token offers certain mechanisms.

Loaded in every test run where the package is installed: imports nothing but pytest until a fixture is asked for, and no
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

    from .gated import GatedToken
    from .simulator import RunningSimulator
    from .softhsm import SoftHSM, TokenOnDisk

_labels = itertools.count(1)
MARKER = "requires_mechanisms"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(*names, **token): what is tested is to be there only while a token offers all these CKM_ mechanisms; the test "
        "runs with all of them and without each, on `gated_token`",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run with a token that offers all mechanisms of the marker, one for each with a token that lacks it."""
    marker = metafunc.definition.get_closest_marker(MARKER)
    asked = "gated_token" in metafunc.fixturenames
    if asked != bool(marker and marker.args):
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {MARKER}(name, …) and the fixture gated_token go together")
    if marker and asked:
        missing = ("", *marker.args)
        metafunc.parametrize("gated_token", missing, indirect=True, ids=lambda name: f"without {name}" if name else "all")


@pytest.fixture
def gated_token(request: pytest.FixtureRequest, simulated_tokens: Callable[..., RunningSimulator]) -> GatedToken:
    """A simulated token that offers the mechanisms of the marker `requires_mechanisms`, all of them or all but one."""
    from .gated import GatedToken

    marker = request.node.get_closest_marker(MARKER)
    simulator = simulated_tokens([{"label": "gated"} | marker.kwargs])
    return GatedToken(simulator, marker.args, request.param)


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
