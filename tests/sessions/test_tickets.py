"""Ticket keys: what they seal only they and their siblings open, for as long as promised and no longer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from nss_pk11.errors import ConfigurationError
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.config import Tickets
from tests.support.clock import Clock

SECRET = bytes(range(32))
STATE = b"the state of a session"


def test_fits_what_the_engine_asks_for() -> None:
    keys: Tickets = TicketKeys()
    assert keys.lifetime == 7200
    assert keys.unseal(keys.seal(STATE)) == STATE


def test_tickets_for_one_state_differ_and_do_not_show_it() -> None:
    keys = TicketKeys()
    tickets = {keys.seal(STATE) for _ in range(50)}
    assert len(tickets) == 50
    assert not any(STATE in ticket for ticket in tickets)


def test_every_damaged_byte_and_every_cut_is_refused() -> None:
    keys = TicketKeys()
    ticket = keys.seal(STATE)
    for position in range(len(ticket)):
        damaged = bytearray(ticket)
        damaged[position] ^= 1
        assert keys.unseal(bytes(damaged)) is None
        assert keys.unseal(ticket[:position]) is None
    assert keys.unseal(ticket + b"\0") is None
    assert keys.unseal(ticket) == STATE


def test_strangers_cannot_open() -> None:
    assert TicketKeys().unseal(TicketKeys().seal(STATE)) is None
    assert TicketKeys.from_secret(SECRET).unseal(TicketKeys.from_secret(SECRET[::-1]).seal(STATE)) is None


@pytest.mark.parametrize("secret", [None, SECRET], ids=["own", "shared"])
@pytest.mark.parametrize(("lifetime", "rotate_every"), [(7200, 3600), (100, 3600), (5000, 700), (1, 1)])
@pytest.mark.parametrize("phase", [0.0, 0.5, 0.999])
def test_a_ticket_lives_its_lifetime_across_rotations(
    secret: bytes | None, lifetime: int, rotate_every: int, phase: float
) -> None:
    clock = Clock(1_700_000_000 // rotate_every * rotate_every + phase * rotate_every)
    keys = TicketKeys(lifetime, rotate_every, secret=secret, clock=clock)
    sealed_at, ticket = clock.now, keys.seal(STATE)
    for part in (0.2, 0.4, 0.6, 0.8):
        clock.now = sealed_at + (lifetime - 1) * part
        keys.seal(b"keeps the keys turning")
        assert keys.unseal(ticket) == STATE
    clock.now = sealed_at + lifetime
    assert keys.unseal(ticket) is None


def test_the_sealing_key_changes_each_epoch_and_old_ones_are_forgotten() -> None:
    clock = Clock(0.0)
    keys = TicketKeys(100, 100, clock=clock)
    names = set()
    for epoch in range(10):
        clock.now = epoch * 100.0
        names.add(keys.seal(STATE)[:16])
    assert len(names) == 10
    assert len(keys._ring.keys) == 2


def test_a_clock_set_back_and_forth_loses_tickets_but_nothing_else() -> None:
    clock = Clock()
    keys = TicketKeys(100, 100, clock=clock)
    old = keys.seal(STATE)
    clock.now -= 1_000_000
    assert keys.unseal(old) is None
    assert keys.unseal(keys.seal(STATE)) == STATE
    clock.now = -5.0
    assert keys.unseal(keys.seal(STATE)) is not None


def test_siblings_agree_even_where_one_clock_is_ahead() -> None:
    ahead, behind = Clock(1_700_001_000.0), Clock(1_700_000_998.0)
    assert ahead.now // 1000 != behind.now // 1000
    fast = TicketKeys.from_secret(SECRET, 500, 1000, clock=ahead)
    slow = TicketKeys.from_secret(SECRET, 500, 1000, clock=behind)
    assert slow.unseal(fast.seal(STATE)) == STATE
    assert fast.unseal(slow.seal(STATE)) == STATE


def test_threads_that_meet_at_a_rotation_agree_on_one_key() -> None:
    clock = Clock()
    keys = TicketKeys(1000, 10, clock=clock)

    def work(number: int) -> bool:
        clock.now += 1
        return keys.unseal(keys.seal(STATE)) == STATE

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))


@pytest.mark.parametrize(
    "arguments",
    [{"lifetime": 0}, {"lifetime": 604801}, {"rotate_every": 0}, {"lifetime": 1000, "rotate_every": 1}, {"secret": b"short"}],
    ids=str,
)
def test_figures_out_of_range_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        TicketKeys(**arguments)  # type: ignore[arg-type]
