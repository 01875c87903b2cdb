"""What hands and misfortunes do to tokens in use, seen by a host and by `status`."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.exceptions import InvalidSignature
from pk11_tokens import RunningSimulator, TokenControl
from pk11_tokens.abi import CKF, CKM, MECHANISM, MECHANISM_INFO

from .conftest import CARD, DEADLINE, KEY, Host, Refused, Signing, Start, refused, verify, wait_until
from .cryptoki import PIN, SLOT

# --- mechanisms ------------------------------------------------------------------------------------------------------


def listed(host: Host) -> list[int]:
    count = ctypes.c_ulong(200)
    numbers = (ctypes.c_ulong * 200)()
    assert host.module.C_GetMechanismList(SLOT, numbers, ctypes.byref(count)) == "CKR_OK"
    return list(numbers[: count.value])


def test_a_token_offers_exactly_what_it_is_told(card: TokenControl, host: Host, sign: Signing) -> None:
    """Also what it cannot do, in its list only; keys are of no use without their mechanism."""
    before = card.mechanisms()
    assert "CKM_ECDSA" in before
    card.offer("CKM_RC4", "CKM_SHA256", "CKM_RC4")
    assert card.mechanisms() == ("CKM_RC4", "CKM_SHA256")
    assert listed(host) == [CKM.RC4, CKM.SHA256]
    room = ctypes.create_string_buffer(MECHANISM_INFO.size)
    assert host.module.C_GetMechanismInfo(SLOT, CKM.RC4, room) == "CKR_OK"
    assert MECHANISM_INFO.unpack(room.raw) == (0, 0, CKF.HW)
    with refused("CKR_MECHANISM_INVALID"):
        sign()
    assert host.module.C_GetMechanismInfo(SLOT, CKM.ECDSA, room) == "CKR_MECHANISM_INVALID"
    session = sign.session
    assert host.module.C_DigestInit(session, MECHANISM.pack(CKM.RC4, 0, 0)) == "CKR_MECHANISM_INVALID"
    assert host.module.C_DigestInit(session, MECHANISM.pack(CKM.SHA256, 0, 0)) == "CKR_OK"
    card.offer(*before)
    verify(card, sign())
    card.offer()
    assert listed(host) == []


def test_no_token_is_told_to_offer_what_nobody_knows(card: TokenControl) -> None:
    for name in ("CKM_NONSENSE", "RC4", "__class__"):
        with pytest.raises(RuntimeError, match=f"{name} is no mechanism known here"):
            card.offer("CKM_RC4", name)
    assert "CKM_RC4" not in card.mechanisms()


# --- hands -----------------------------------------------------------------------------------------------------------


def test_a_removed_token_says_so_once_then_its_sessions_are_unknown(card: TokenControl, sign: Signing) -> None:
    verify(card, sign())
    card.remove()
    assert not card.status().present
    assert card.status().reader is None
    with refused("CKR_DEVICE_REMOVED"):
        sign()
    with refused("CKR_SESSION_HANDLE_INVALID"):
        sign()


def test_sessions_logins_and_handles_do_not_outlive_a_removal(card: TokenControl, host: Host, sign: Signing) -> None:
    assert card.status().logged_in
    card.remove()
    card.insert()
    status = card.status()
    assert (status.present, status.sessions, status.logged_in) == (True, 0, False)
    with refused("CKR_DEVICE_REMOVED"):
        sign()
    verify(card, Signing(host, host.log_in())())


def test_a_token_goes_into_the_reader_that_is_named(simulated_tokens: Start) -> None:
    simulator = simulated_tokens({"reader": [{"name": "Left reader", "token": CARD}, {"name": "Right reader"}]})
    card = simulator["card"]
    card.remove()
    card.insert("right")
    assert [reader["token"] for reader in simulator.readers()] == [None, "card"]
    assert card.status().reader == "Right reader"
    card.remove()
    card.insert()
    assert card.status().reader == "Right reader"  # its last one


def test_cards_are_swapped(simulated_tokens: Start) -> None:
    other = {"label": "other card", "key": [KEY]}
    simulator = simulated_tokens({"reader": [{"name": "Left reader", "token": CARD}], "drawer": [other]})
    host = Host(simulator)
    assert host.module.token_info()[0].rstrip() == b"card"
    simulator.swap("left", "other card")
    assert host.module.token_info()[0].rstrip() == b"other card"
    assert not simulator["card"].status().present


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda simulator: simulator["card"].insert(), "there is a token in 'Reader 1'"),
        (lambda simulator: simulator["card"].insert("nowhere"), '"nowhere" names no reader; there is "Reader 1"'),
        (lambda simulator: simulator.swap("1", "ghost"), 'there is no token "ghost"; there is "card"'),
        (lambda simulator: simulator["card"].fail("C_Singe", "CKR_DEVICE_ERROR"), 'no function "C_Singe"'),
        (lambda simulator: simulator["card"].fail("C_Sign", "CKR_DEVICE_EROR"), 'no result "CKR_DEVICE_EROR"'),
        (lambda simulator: simulator["card"].fail_randomly(2), "from 0 to 1"),
        (lambda simulator: simulator["card"].slow(-1), "negative"),
        (lambda simulator: simulator["card"].certificate_der("www"), 'no certificate labelled "www"'),
        (lambda simulator: simulator.ask("dance"), 'no command "dance"'),
        (lambda simulator: simulator.ask("remove"), "token"),
    ],
)
def test_what_cannot_be_done_is_said(simulator: RunningSimulator, act: Callable[[RunningSimulator], None], words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        act(simulator)


def test_a_token_that_is_not_there_is_a_key_error(simulator: RunningSimulator) -> None:
    with pytest.raises(KeyError):
        simulator["ghost"]


def test_a_locked_token_takes_no_pin_until_it_is_unlocked(card: TokenControl, host: Host) -> None:
    card.lock()
    assert card.status().locked
    with refused("CKR_PIN_LOCKED"):
        host.log_in()
    card.unlock()
    assert not card.status().locked
    host.log_in()


# --- time ------------------------------------------------------------------------------------------------------------


def in_parallel(host: Host, count: int) -> float:
    """So many sessions sign at once; how long it took."""
    sessions = [host.log_in()] + [host.module.open() for _ in range(count - 1)]
    signings = [Signing(host, session) for session in sessions]
    with ThreadPoolExecutor(count) as pool:
        began = time.monotonic()
        list(pool.map(lambda sign: sign(), signings))
        return time.monotonic() - began


def test_sixteen_slow_sessions_are_slow_together(card: TokenControl, host: Host) -> None:
    card.slow(0.5, "C_Sign")  # long enough for a busy machine to begin all of them meanwhile
    took = in_parallel(host, 16)
    assert card.status().most_running == 16
    assert 0.5 <= took < 8 * 0.5


def test_what_exceeds_the_parallel_limit_waits(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD | {"parallel": 2, "latency": {"C_Sign": 0.05}}])
    took = in_parallel(Host(simulator), 6)
    status = simulator["card"].status()
    assert status.most_running == 2
    assert (status.operations_running, status.operations_waiting) == (0, 0)
    assert took >= 3 * 0.05


def test_status_shows_who_works_and_who_waits(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD | {"parallel": 1}])
    card, host = simulator["card"], Host(simulator)
    card.slow(60, "C_Sign")
    signings = [Signing(host, host.log_in()), Signing(host, host.module.open())]
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(sign) for sign in signings]
        wait_until(lambda: (card.status().operations_running, card.status().operations_waiting) == (1, 1))
        card.slow(0)
        card.remove()  # nobody waits for a card that has gone
        for each in waiting:
            with refused("CKR_DEVICE_REMOVED"):
                each.result(DEADLINE)


def test_slow_concerns_the_named_function_or_all_operations(card: TokenControl, sign: Signing) -> None:
    def seconds() -> float:
        began = time.monotonic()
        sign()
        return time.monotonic() - began

    card.slow(1.0, "C_Verify")
    assert seconds() < 1.0
    card.slow(1.0)
    assert 1.0 <= seconds() < 2.0  # once, for asking how long the signature will be is no operation
    card.slow(0)
    assert seconds() < 1.0


def test_silent_hosts_lose_sessions_and_login(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD | {"idle_timeout": 0.8}])
    host = Host(simulator)
    sign = Signing(host, host.log_in())
    for _ in range(5):  # 1 s, but never silent for long
        sign()
        time.sleep(0.2)
    sign()
    wait_until(lambda: simulator["card"].status().sessions == 0)
    with refused("CKR_SESSION_HANDLE_INVALID"):
        sign()
    assert not simulator["card"].status().logged_in


# --- failures --------------------------------------------------------------------------------------------------------


def test_the_next_calls_fail_then_no_more(card: TokenControl, sign: Signing) -> None:
    card.fail("C_Sign", "CKR_DEVICE_ERROR", times=2)
    for _ in range(2):
        with refused("CKR_DEVICE_ERROR"):
            sign()
    verify(card, sign())


def test_a_failure_lasts_until_it_is_cleared(card: TokenControl, sign: Signing) -> None:
    card.fail("*", "CKR_DEVICE_MEMORY", times=0)
    for _ in range(3):
        with refused("CKR_DEVICE_MEMORY"):
            sign()
    card.clear()
    verify(card, sign())


def test_a_vendors_result_reaches_the_host(card: TokenControl, sign: Signing) -> None:
    card.fail("C_Sign", "0x80000042")
    with refused("CKR_0x80000042"):
        sign()


def test_a_lost_answer_is_an_operation_done(card: TokenControl, host: Host) -> None:
    """C_Login that fails before: no PIN came; afterwards: the token has seen it."""
    card.fail("C_Login", "CKR_DEVICE_ERROR", when="before")
    with refused("CKR_DEVICE_ERROR"):
        host.log_in()
    assert card.status().pin_attempts == 0
    card.fail("C_Login", "CKR_DEVICE_ERROR", when="after")
    with refused("CKR_DEVICE_ERROR"):
        host.log_in()
    assert card.status().pin_attempts == 1


@pytest.mark.parametrize(
    ("result", "sessions", "logged_in"),
    [
        ("CKR_SESSION_HANDLE_INVALID", 1, True),
        ("CKR_USER_NOT_LOGGED_IN", 2, False),
        ("CKR_DEVICE_REMOVED", 0, False),
        ("CKR_DEVICE_ERROR", 2, True),
    ],
)
def test_a_failure_is_what_it_says(
    card: TokenControl, host: Host, sign: Signing, result: str, sessions: int, logged_in: bool
) -> None:
    host.module.open()
    card.fail("C_SignInit", result)
    with refused(result):
        sign()
    status = card.status()
    assert (status.sessions, status.logged_in, status.present) == (sessions, logged_in, True)


def test_a_failure_may_take_the_link_with_it(card: TokenControl, sign: Signing) -> None:
    card.fail("C_Sign", "CKR_DEVICE_ERROR", disconnect=True)
    with refused("CKR_DEVICE_ERROR"):
        sign()
    assert (card.status().sessions, card.status().logged_in) == (0, False)
    with refused("CKR_SESSION_HANDLE_INVALID"):
        sign()


def test_a_lost_link_ends_sessions_and_login(card: TokenControl, sign: Signing) -> None:
    card.disconnect()
    assert card.status().present
    with refused("CKR_SESSION_HANDLE_INVALID"):
        sign()


def test_random_failures_are_the_same_for_the_same_seed(card: TokenControl, sign: Signing) -> None:
    def fates(seed: int) -> list[bool]:
        card.fail_randomly(0.3, seed=seed, results=["CKR_FUNCTION_FAILED"])
        return [succeeds(sign) for _ in range(40)]

    first = fates(7)
    assert 0 < first.count(False) < 40
    assert fates(7) == first
    assert fates(8) != first
    card.clear()
    assert all(succeeds(sign) for _ in range(40))


def succeeds(sign: Signing) -> bool:
    try:
        sign()
    except Refused as error:
        return str(error) != "CKR_FUNCTION_FAILED"
    return True


def test_random_failures_end_what_they_name(card: TokenControl, host: Host) -> None:
    session = host.log_in()
    card.fail_randomly(1, results=["CKR_SESSION_HANDLE_INVALID"])
    with refused("CKR_SESSION_HANDLE_INVALID"):
        host.find(session)
    assert card.status().sessions == 0


def test_signatures_are_wrong_at_the_rate(card: TokenControl, sign: Signing) -> None:
    card.wrong_signatures(0.5, seed=3)
    wrong = 0
    for _ in range(40):
        try:
            verify(card, sign())
        except InvalidSignature:
            wrong += 1
    assert 0 < wrong < 40
    assert card.status().wrong_signatures == wrong
    card.wrong_signatures(0)
    verify(card, sign())


# --- the keypad ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pinpad(simulated_tokens: Start) -> RunningSimulator:
    return simulated_tokens([CARD | {"personality": "pinpad reader"}])


def test_the_person_types_the_pin(pinpad: RunningSimulator) -> None:
    host = Host(pinpad)
    assert host.module.token_flags() & CKF.PROTECTED_AUTHENTICATION_PATH
    pinpad["card"].person(delay=0.2)
    began = time.monotonic()
    Signing(host, host.log_in(pin=None))()
    assert time.monotonic() - began >= 0.2


def test_a_pin_from_the_host_is_refused_where_there_is_a_keypad(pinpad: RunningSimulator) -> None:
    with refused("CKR_ARGUMENTS_BAD"):
        Host(pinpad).log_in(PIN)
    assert pinpad["card"].status().pin_attempts == 0


def test_the_person_cancels(pinpad: RunningSimulator) -> None:
    pinpad["card"].person(pin=None)
    with refused("CKR_FUNCTION_CANCELED"):
        Host(pinpad).log_in(pin=None)
    assert pinpad["card"].status().pin_attempts == 0


def test_the_person_types_something_else(pinpad: RunningSimulator) -> None:
    pinpad["card"].person(pin="000000")
    with refused("CKR_PIN_INCORRECT"):
        Host(pinpad).log_in(pin=None)
    assert pinpad["card"].status().tries_left == 2


def test_the_person_mistypes_first(pinpad: RunningSimulator) -> None:
    card, host = pinpad["card"], Host(pinpad)
    card.person(mistakes=2)
    for left in (2, 1):
        with refused("CKR_PIN_INCORRECT"):
            host.log_in(pin=None)
        assert card.status().tries_left == left
    host.log_in(pin=None)
    assert card.status().tries_left == 3


def test_the_card_leaves_while_the_person_thinks(pinpad: RunningSimulator) -> None:
    card, host = pinpad["card"], Host(pinpad)
    card.person(delay=60)
    session = host.module.open()
    with ThreadPoolExecutor(1) as pool:
        login = pool.submit(host.module.login, session, None)
        wait_until(lambda: card.status().waiting_for_person)
        card.remove()
        assert login.result(DEADLINE) == "CKR_DEVICE_REMOVED"
