"""Several tokens with one key: load is spread, one that dies is passed over in the middle of a handshake, a wrong signature is
never sent.

The clients are Python's own `ssl`, which verifies what the server signs.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from ..support import load
from ..support.command import Serve
from .hsms import TRIES, hsm, identity, loaded, wait_until
from .peers import client_context
from .test_lost_tokens import alert_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pk11_tokens import RunningSimulator, TokenControl

    from ..support.pki import PKI
    from ..support.softhsm import SoftHSM

    Start = Callable[..., RunningSimulator]


def two(start: Start, pki: PKI, *personalities: dict[str, Any], kind: str = "p256") -> tuple[TokenControl, TokenControl]:
    """Two HSMs, "east" and "west", with the same key."""
    east, west = personalities or ({}, {})
    simulator = start([hsm(pki, "east", kind=kind, **east), hsm(pki, "west", kind=kind, **west)])
    return simulator["east"], simulator["west"]


def both(pki: PKI, tokens: tuple[TokenControl, TokenControl], kind: str = "p256") -> tuple[str, ...]:
    return tuple(word for token in tokens for word in identity(token, pki, kind))


def signed(token: TokenControl) -> int:
    return token.status().calls.get("C_Sign", 0)


def suffer(token: TokenControl, chance: random.Random) -> None:
    """Something that happens to an HSM, and its end."""

    def pull() -> None:
        token.remove()
        time.sleep(chance.uniform(0.02, 0.5))
        token.insert()

    def stumble() -> None:
        token.fail("C_Sign", "CKR_DEVICE_ERROR", times=0)
        time.sleep(chance.uniform(0.02, 0.5))
        token.clear()

    def hang() -> None:
        token.slow(20.0, "C_Sign")
        time.sleep(chance.uniform(0.02, 0.5))
        token.slow(0.001, "C_Sign")
        token.disconnect()

    chance.choice((pull, stumble, hang, token.disconnect, lambda: token.fail("C_SignInit", "CKR_USER_NOT_LOGGED_IN")))()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_handshakes_while_tokens_die_and_revive(simulated_tokens: Start, softhsm: SoftHSM, pki: PKI) -> None:
    """One of two HSMs at a time is pulled, stumbles, hangs, or loses its link or login, at random: no handshake fails."""
    tokens = two(simulated_tokens, pki, {"latency": {"C_Sign": 0.001}}, {"latency": {"C_Sign": 0.001}})
    chance, deaths = random.Random(20261123), 0
    with Serve(softhsm, *both(pki, tokens), "--echo") as server, loaded(server, pki, 10_000) as handshakes:
        while handshakes.running:
            suffer(chance.choice(tokens), chance)
            deaths += 1
            time.sleep(chance.uniform(0.0, 0.3))
        assert handshakes.wait() == (10_000, {}), server.output[-3000:]
        assert server.running
    assert deaths > 20
    for token in tokens:
        status = token.status()
        assert (status.tries_left, status.sessions <= 16) == (TRIES, True)
        assert signed(token) > 1000


def test_load_is_spread_evenly_over_equal_tokens(simulated_tokens: Start, softhsm: SoftHSM, pki: PKI) -> None:
    tokens = two(simulated_tokens, pki, {"latency": {"C_Sign": 0.01}}, {"latency": {"C_Sign": 0.01}})
    with Serve(softhsm, *both(pki, tokens), "--echo") as server, loaded(server, pki, 300) as handshakes:
        assert handshakes.wait() == (300, {})
    assert min(map(signed, tokens)) > 75


def test_slow_token_gets_less(simulated_tokens: Start, softhsm: SoftHSM, pki: PKI) -> None:
    quick, slow = two(simulated_tokens, pki, {"latency": {"C_Sign": 0.004}}, {"latency": {"C_Sign": 0.04}})
    with Serve(softhsm, *both(pki, (quick, slow)), "--echo") as server, loaded(server, pki, 300) as handshakes:
        assert handshakes.wait() == (300, {})
    assert 0 < signed(slow) < signed(quick) / 3


def test_token_that_is_away_is_probed_seldom(simulated_tokens: Start, softhsm: SoftHSM, pki: PKI) -> None:
    """One handshake after a pause that grows, not every one."""
    east, west = two(simulated_tokens, pki)
    with Serve(softhsm, *both(pki, (east, west)), "--echo") as server:
        load.handshake(server.port, client_context(pki))
        east.fail("C_SignInit", "CKR_DEVICE_ERROR", times=0)
        east.fail("C_OpenSession", "CKR_DEVICE_ERROR", times=0)
        before = east.status().calls
        with loaded(server, pki, 400) as handshakes:
            assert handshakes.wait() == (400, {})
        after = east.status().calls
        asked = sum(after.get(name, 0) - before.get(name, 0) for name in ("C_SignInit", "C_OpenSession"))
        assert 0 < asked < 60
        assert server.output.count('token "east" is away') == 1
        east.clear()
        context = client_context(pki)
        wait_until(lambda: load.handshake(server.port, context) is None and 'token "east" is back' in server.output)


def test_login_is_not_tried_again_when_a_token_comes_back_with_another_pin(
    simulated_tokens: Start, softhsm: SoftHSM, pki: PKI
) -> None:
    """Probes of the one cost no try; the other serves."""
    east, west = two(simulated_tokens, pki)
    with Serve(softhsm, *both(pki, (east, west)), "--echo") as server:
        east.fail("C_Login", "CKR_PIN_INCORRECT", times=0)
        logins = east.status().calls["C_Login"]
        east.disconnect()
        with loaded(server, pki, 300) as handshakes:
            assert handshakes.wait() == (300, {})
        assert east.status().calls["C_Login"] - logins == 1
        assert server.output.count('token "east" is of no use') == 1


def test_uri_that_fits_a_key_on_each_of_two_tokens(simulated_tokens: Start, softhsm: SoftHSM, pki: PKI) -> None:
    """By its id; a command tells the PIN of each."""
    east, west = two(simulated_tokens, pki)
    pins = 'cmd:echo "1234-$NSS_PK11_TOKEN"'
    uri = f"pkcs11:id=%01;type=private?module-path={east.simulator.module}"
    chain = str(pki.server("p256").chain_file)
    with Serve(softhsm, "--identity", uri, "--chain", chain, "--pin", pins, "--echo") as server:
        for token, other in ((east, west), (west, east)):
            before = signed(other)
            token.remove()
            load.handshake(server.port, client_context(pki))
            assert signed(other) > before
            token.insert()


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_wrong_signature_is_not_sent_but_made_elsewhere(simulated_tokens: Start, softhsm: SoftHSM, pki: PKI, kind: str) -> None:
    wrong, right = two(simulated_tokens, pki, {"wrong_signatures": 1.0}, {}, kind=kind)
    with Serve(softhsm, *both(pki, (wrong, right), kind), "--echo") as server, loaded(server, pki, 100) as handshakes:
        assert handshakes.wait() == (100, {})
        assert 1 <= wrong.status().wrong_signatures <= 8, "it rests once those that were under way are back"
        assert server.output.count('token "east" (serial serial-east) signs wrongly') == 1


def test_only_token_there_is_may_try_again(simulated_tokens: Start, softhsm: SoftHSM, pki: PKI) -> None:
    token = simulated_tokens([hsm(pki, "hsm")])["hsm"]
    with Serve(softhsm, *identity(token, pki), "--echo") as server:
        context = client_context(pki)
        token.wrong_signatures(1.0)
        assert alert_of(server.port, context) == "TLSV1_ALERT_INTERNAL_ERROR"
        assert 2 <= token.status().wrong_signatures <= 3  # in place, then in a thread
        wait_until(lambda: "SEC_ERROR_BAD_SIGNATURE" in server.output)
        token.wrong_signatures(0.0)
        load.handshake(server.port, context)
        token.wrong_signatures(0.5, seed=3)
        with loaded(server, pki, 60) as handshakes:
            done, failures = handshakes.wait()
        assert done + sum(failures.values()) == 60
        assert done > 20
        assert all("INTERNAL_ERROR" in failure for failure in failures), failures
