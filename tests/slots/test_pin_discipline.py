"""The PIN rules, one test each, counted by the token: a simulated one, through its real C ABI, knows every PIN it was sent."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11 import pins
from nss_pk11.errors import NSPRError, PinCancelled, PinError, PinIncorrect, PinLocked, TokenError
from nss_pk11.slots import Algorithm, SlotManager

from .conftest import Asked
from .test_fork import in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from pk11_tokens import RunningSimulator, TokenControl

    from nss_pk11.slots import PrivateKey, Token

    Start = Callable[..., RunningSimulator]

PIN, OTHER_PIN, WRONG, NEW = "271828", "314159", "999999", "161803"
THREADS = 16
WAIT = 10.0  # seconds


def card(label: str = "card", pin: str = PIN, *, always: bool = False, **personality: Any) -> dict[str, Any]:
    """A card that locks after three mistakes."""
    key = {"label": "www", "kind": "p256", "always_authenticate": always}
    described = {"label": label, "serial": f"serial-{label}"[:16], "pin": pin, "personality": "plain", "pin_tries": 3}
    return described | {"key": [key]} | personality


KEYPAD = {"personality": "pinpad reader"}


@pytest.fixture
def token(simulated_tokens: Start) -> TokenControl:
    return simulated_tokens([card()])["card"]


def home_of(manager: SlotManager, token: TokenControl) -> Token:
    manager.load(token.simulator.module)
    return next(found for found in manager.tokens() if found.info.label == token.name)


def sign(key: PrivateKey) -> bytes:
    return key.sign(Algorithm.ecdsa_sha256, b"message")


def change_pin(token: TokenControl, old: str, new: str) -> None:
    """By another program; it costs the token one login."""
    command = ["pkcs11-tool", "--module", token.simulator.module, "--token-label", token.status().label]
    subprocess.run([*command, "--change-pin", "--pin", old, "--new-pin", new], check=True, capture_output=True, timeout=WAIT)


def spent(token: TokenControl) -> tuple[int, int | None]:
    """PINs that were sent, and tries that are left."""
    status = token.status()
    return status.pin_attempts, status.tries_left


def at_once(count: int, work: Callable[[], object]) -> list[BaseException | None]:
    """How each of so many threads ended that begin together."""
    together = threading.Barrier(count)
    ends: list[BaseException | None] = []

    def run() -> None:
        together.wait(WAIT)
        try:
            work()
        except Exception as error:
            ends.append(error)
        else:
            ends.append(None)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    return ends


class Thinking(Asked):
    """A person who answers after some seconds."""

    seconds = 0.3

    def __call__(self, request: pins.PinRequest) -> str | None:
        time.sleep(self.seconds)
        return super().__call__(request)


# --- a wrong PIN costs one try -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_wrong_static_pin_costs_one_try_however_many_threads_log_in(token: TokenControl, shared: bool) -> None:
    """Also where each has a source of its own."""
    source = pins.value(WRONG)
    with SlotManager() as manager:
        home = home_of(manager, token)
        ends = at_once(THREADS, lambda: home.login(source if shared else pins.value(WRONG)))
        assert {type(end) for end in ends} == {PinIncorrect}
        assert spent(token) == (1, 2)


def test_wrong_pin_is_sent_again_by_no_manager_and_in_no_other_process(token: TokenControl) -> None:
    def refused() -> None:
        with SlotManager() as manager, pytest.raises(PinIncorrect):
            home_of(manager, token).login(pins.value(WRONG))

    refused()
    refused()
    assert in_child(refused) == 0
    assert spent(token) == (1, 2)


def test_wrong_pin_is_not_sent_again_after_removal_nor_in_another_slot(simulated_tokens: Start) -> None:
    simulator = simulated_tokens({"reader": [{"name": "left", "token": card()}, {"name": "right"}]})
    token = simulator["card"]
    with SlotManager() as manager:
        for reader in ("left", "left", "right"):
            token.remove()
            token.insert(reader)
            with pytest.raises(PinIncorrect):
                home_of(manager, token).login(pins.value(WRONG))
    assert spent(token) == (1, 2)


def test_pin_that_was_right_and_is_changed_costs_one_try(token: TokenControl) -> None:
    with SlotManager() as manager:
        key = manager.find_key(token.uri("www"), pins.value(PIN))
        sign(key)
        change_pin(token, PIN, NEW)
        token.disconnect()
        before, _ = spent(token)
        ends = at_once(THREADS, lambda: sign(key))
        assert {type(end) for end in ends} == {PinIncorrect}
        assert spent(token) == (before + 1, 2)


def test_changed_pin_of_a_key_that_wants_it_each_time_costs_one_try(simulated_tokens: Start) -> None:
    token = simulated_tokens([card(always=True)])["card"]
    with SlotManager() as manager:
        key = manager.find_key(token.uri("www"), pins.value(PIN))
        sign(key)
        change_pin(token, PIN, NEW)
        before, _ = spent(token)
        ends = at_once(THREADS, lambda: sign(key))
        assert {type(end) for end in ends} == {PinIncorrect}
        assert spent(token) == (before + 1, 2)


@pytest.mark.parametrize("result", ["CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED", "CKR_SESSION_CLOSED", "CKR_DEVICE_MEMORY"])
def test_pin_of_unknown_outcome_is_not_sent_twice(token: TokenControl, result: str) -> None:
    token.fail("C_Login", result, when="after", disconnect=True)
    with SlotManager() as manager:
        home = home_of(manager, token)
        with pytest.raises(TokenError) as caught:
            home.login(pins.value(PIN))
        assert caught.value.ckr == result
        with pytest.raises(PinIncorrect, match="not sent again"):
            home.login(pins.value(PIN))
    assert spent(token) == (1, 3)


def test_pin_that_the_token_took_before_survives_a_lost_answer(token: TokenControl) -> None:
    with SlotManager() as manager:
        key = manager.find_key(token.uri("www"), pins.value(PIN))
        token.disconnect()
        token.fail("C_Login", "CKR_DEVICE_ERROR", when="after", disconnect=True)
        with pytest.raises(TokenError):
            sign(key)
        sign(key)
    assert spent(token) == (3, 3)


# --- the last try, and none left ---------------------------------------------------------------------------------------


def at_the_last_try(token: TokenControl) -> None:
    with SlotManager() as manager:
        home = home_of(manager, token)
        for wrong in ("000000", "111111"):
            with pytest.raises(PinIncorrect):
                home.login(pins.value(wrong))
    assert spent(token) == (2, 1)


def test_final_try_is_a_persons(token: TokenControl) -> None:
    at_the_last_try(token)
    with SlotManager() as manager:
        home = home_of(manager, token)
        program = Asked([PIN], person=False)
        for source in (pins.value(PIN), program):
            with pytest.raises(PinError, match="only a person may try"):
                home.login(source)
        assert program.requests == []
        assert spent(token) == (2, 1)
        person = Asked([PIN])
        home.login(person)
        assert [request.final_try for request in person.requests] == [True]
        assert spent(token) == (3, 3)


def test_programs_that_try_at_once_leave_the_last_try(token: TokenControl) -> None:
    """Each knows another wrong PIN, and all began when there were three tries."""
    wrong = iter(range(100000, 100000 + THREADS))
    with SlotManager() as one, SlotManager() as other:
        homes = [home_of(one, token), home_of(other, token)]
        numbers = iter(range(THREADS))
        ends = at_once(THREADS, lambda: homes[next(numbers) % 2].login(pins.value(str(next(wrong)))))
        assert all(isinstance(end, PinError) for end in ends)
        assert spent(token) == (2, 1)


def test_locked_token_is_sent_nothing(token: TokenControl) -> None:
    token.lock()
    with SlotManager() as manager:
        home, person = home_of(manager, token), Asked([PIN])
        for source in (pins.value(PIN), person):
            with pytest.raises(PinLocked, match="locked"):
                home.login(source)
        assert person.requests == []
        assert (token.status().pin_attempts, token.status().calls.get("C_Login", 0)) == (0, 0)


# --- whose PIN it is ----------------------------------------------------------------------------------------------------


def test_pin_of_one_token_is_not_tried_on_another(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([card(), card("other", OTHER_PIN)])
    source = pins.value(PIN)
    with SlotManager(source) as manager:
        home_of(manager, simulator["card"]).login()
        with pytest.raises(PinError, match='that of token "card"'):
            home_of(manager, simulator["other"]).login()
    assert spent(simulator["other"]) == (0, 3)


@pytest.mark.parametrize("always", [False, True])
def test_swapped_card_is_not_sent_the_pin_of_the_first(simulated_tokens: Start, always: bool) -> None:
    first, second = card(always=always), card("other", OTHER_PIN, always=always)
    simulator = simulated_tokens({"reader": [{"name": "reader", "token": first}], "drawer": [second]})
    with SlotManager(pins.value(PIN)) as manager:
        key = manager.find_key(simulator["card"].uri("www"))
        sign(key)
        simulator.swap("reader", "other")
        for _ in range(2):
            with pytest.raises(TokenError):
                sign(key)
    assert simulator["other"].status().pin_attempts == 0


@pytest.mark.parametrize("always", [False, True])
def test_card_that_is_swapped_while_a_person_thinks_is_not_sent_the_pin(simulated_tokens: Start, always: bool) -> None:
    first, second = card(always=always), card("other", OTHER_PIN, always=always)
    simulator = simulated_tokens({"reader": [{"name": "reader", "token": first}], "drawer": [second]})

    def ask(request: pins.PinRequest, retry: bool, arg: object) -> str:
        if request.context_specific or not always:
            simulator.swap("reader", "other")
        return PIN

    with SlotManager(pins.callback(ask, person=True)) as manager, pytest.raises(TokenError):
        sign(manager.find_key(simulator["card"].uri("www")))
    assert simulator["other"].status().pin_attempts == 0


# --- whoever is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [PIN, None])
def test_threads_share_one_prompt_and_its_answer(token: TokenControl, answer: str | None) -> None:
    person = Thinking([answer])
    with SlotManager() as manager:
        home = home_of(manager, token)
        ends = at_once(THREADS, lambda: home.login(person))
    assert len(person.requests) == 1
    assert {type(end) for end in ends} == {type(None) if answer else PinCancelled}
    assert spent(token) == (1 if answer else 0, 3)


def test_threads_share_the_failure_of_a_source(token: TokenControl) -> None:
    class Broken(Thinking):
        def __call__(self, request: pins.PinRequest) -> str | None:
            super().__call__(request)
            raise RuntimeError("the window is closed")

    source = Broken([PIN])
    with SlotManager() as manager:
        home = home_of(manager, token)
        ends = at_once(THREADS, lambda: home.login(source))
    assert len(source.requests) == 1
    assert {type(end) for end in ends} == {PinError}
    assert "its PIN source failed with RuntimeError" in str(ends[0])
    assert spent(token) == (0, 3)


def test_retry_is_told(token: TokenControl) -> None:
    person = Asked([WRONG, PIN])
    with SlotManager() as manager:
        home_of(manager, token).login(person)
    assert [request.retry for request in person.requests] == [False, True]
    assert spent(token) == (2, 3)


# --- a keypad -----------------------------------------------------------------------------------------------------------


def test_keypad_is_announced_and_nothing_is_sent(simulated_tokens: Start) -> None:
    token = simulated_tokens([card(**KEYPAD)])["card"]
    source = Asked([OTHER_PIN])  # would be wrong, and refused by a keypad
    with SlotManager() as manager:
        home_of(manager, token).login(source)
    assert [(request.protected, request.retry) for request in source.requests] == [(True, False)]
    assert spent(token) == (1, 3)


def test_mistake_at_the_keypad_is_told_and_may_be_mended(simulated_tokens: Start) -> None:
    token = simulated_tokens([card(**KEYPAD)])["card"]
    token.person(mistakes=1)
    source = Asked([""])
    with SlotManager() as manager:
        home_of(manager, token).login(source)
    assert [request.retry for request in source.requests] == [False, True]
    assert spent(token) == (2, 3)


def test_cancel_at_the_keypad_or_before_it(simulated_tokens: Start) -> None:
    token = simulated_tokens([card(**KEYPAD)])["card"]
    token.person(pin=None)
    with SlotManager() as manager:
        home = home_of(manager, token)
        for source in (Asked([""]), Asked([None])):
            with pytest.raises(PinCancelled):
                home.login(source)
            assert len(source.requests) == 1
    assert spent(token) == (0, 3)


@pytest.mark.parametrize("keypad", [False, True])
def test_key_that_wants_its_pin_each_time_gets_it(simulated_tokens: Start, keypad: bool) -> None:
    token = simulated_tokens([card(always=True, **(KEYPAD if keypad else {}))])["card"]
    person = Asked(["" if keypad else PIN])
    with SlotManager() as manager:
        key = manager.find_key(token.uri("www"), person)
        assert at_once(4, lambda: sign(key)) == [None] * 4
    assert [(request.context_specific, request.key, request.protected) for request in person.requests] == [
        (False, "", keypad),
        *[(True, "www", keypad)] * 4,
    ]
    calls = token.status().calls
    assert (calls["C_Sign"], calls["C_Login"]) == (4, 5)
    assert spent(token) == (5, 3)


# --- nobody sees it -----------------------------------------------------------------------------------------------------


def test_no_pin_is_shown(token: TokenControl, caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    caplog.set_level(logging.DEBUG)
    token.simulator.write_calls(tmp_path / "calls")
    undecodable = f"{WRONG}\udc80"  # as a variable of the environment may be
    shown = []
    with SlotManager() as manager:
        home = home_of(manager, token)
        for source in (pins.value(WRONG), pins.value(WRONG), pins.value(undecodable), pins.value(PIN)):
            try:
                home.login(source)
            except NSPRError as error:
                shown += [f"{error} {error!r} {vars(error)} {error.__cause__!r}"]
            shown += [repr(source), repr(manager), repr(home), repr(vars(home))]
        key = manager.find_key(f"{token.uri('www')}&pin-value={PIN}")
        shown += [repr(key), repr(vars(key)), key.uri, str(token.simulator.calls()), caplog.text]
    everything = "\n".join([*shown, (tmp_path / "calls").read_text()])
    assert "C_Login" in everything
    assert PIN not in everything
    assert WRONG not in everything
