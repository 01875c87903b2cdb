"""The circuit breaker, by a clock of the test's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nss_pk11.slots import faults
from nss_pk11.slots.health import FIRST_PAUSE, LONGEST_PAUSE, Breaker, BreakerState
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def test_closed_admits_everybody(breaker: Breaker) -> None:
    assert breaker.state is BreakerState.closed
    assert breaker.admits()
    assert breaker.admits()
    assert not breaker.succeeded()


def test_one_probe_at_a_time_after_a_pause(breaker: Breaker, clock: Clock) -> None:
    assert breaker.failed()
    assert breaker.state is BreakerState.open
    assert not breaker.admits()
    clock.now += FIRST_PAUSE
    assert breaker.ripe
    assert breaker.admits()
    assert breaker.state is BreakerState.half_open
    assert not breaker.ripe
    assert not breaker.admits()
    assert breaker.succeeded()
    assert breaker.state is BreakerState.closed


def test_pauses_double_up_to_a_limit_and_begin_anew(breaker: Breaker, clock: Clock) -> None:
    pauses = []
    breaker.failed()
    for _ in range(8):
        pauses.append(breaker.retry_at - clock.now)
        clock.now = breaker.retry_at
        assert breaker.admits()
        assert not breaker.failed()
    assert pauses == pytest.approx([min(FIRST_PAUSE * 2**n, LONGEST_PAUSE) for n in range(8)])
    clock.now = breaker.retry_at
    assert breaker.admits()
    breaker.succeeded()
    breaker.failed()
    assert breaker.retry_at - clock.now == pytest.approx(FIRST_PAUSE)


def test_failures_of_what_began_before_do_not_prolong_the_pause(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    until = breaker.retry_at
    clock.now += FIRST_PAUSE / 2
    assert not breaker.failed()
    assert breaker.retry_at == until


def test_probe_that_was_not_run_leaves_its_place_to_another(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    clock.now = breaker.retry_at
    assert breaker.admits()
    breaker.abandoned()
    assert breaker.admits()


def test_longer_pause_where_the_caller_says_so(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(60.0)
    clock.now += 59.0
    assert not breaker.admits()
    clock.now += 1.0
    assert breaker.admits()


def test_documentation_lists_every_result_that_is_recovered_from() -> None:
    """docs/operations.md has a table of results; "once more" is said of those, and of no others."""
    table = (Path(__file__).parents[2] / "docs/operations.md").read_text("utf-8")
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `CKR_")]
    assert len(rows) > 10
    again = {name for names, what in rows for name in re.findall(r"CKR_\w+", names) if "once more" in what}
    assert again == {faults.result_name(rv) for rv in faults.RECOVERABLE}
