"""PIN rules: those that SoftHSM can show, on SoftHSM; the rest on the guard itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from nss_pk11 import pins
from nss_pk11.errors import Ambiguous, NSPRError, PinCancelled, PinError, PinIncorrect, PinLocked, TokenError
from nss_pk11.slots import SlotManager, Token, TokenInfo, faults
from nss_pk11.slots.login import LoginGuard, PinMemory
from tests.support.softhsm import PIN, SoftHSM, TokenOnDisk

from .conftest import Asked

NewToken = Callable[..., TokenOnDisk]


@pytest.fixture
def open_token(softhsm: SoftHSM, new_token: NewToken) -> Iterator[Callable[..., Token]]:
    """A token of its own, in a manager of its own."""
    managers = []

    def make(provider: pins.PinProvider | None = None, **arguments: str) -> Token:
        token = new_token(**arguments)
        manager = SlotManager(provider)
        managers.append(manager)
        manager.load(softhsm.module_path)
        return next(found for found in manager.tokens() if found.info.label == token.label)

    yield make
    for manager in managers:
        manager.close()


def test_asked_once_and_told_what_for(open_token: Callable[..., Token]) -> None:
    token = open_token()
    asked = Asked([PIN])
    assert not token.logged_in
    token.login(asked)
    token.login(asked)
    assert token.logged_in
    [request] = asked.requests
    assert (request.token, request.serial, request.slot) == (token.info.label, token.info.serial, token.info.slot)
    flags = (request.retry, request.count_low, request.final_try, request.protected, request.context_specific)
    assert flags == (False,) * 5


def test_wrong_pin_is_never_sent_again(open_token: Callable[..., Token]) -> None:
    token = open_token()
    person = Asked(["0000", "0000", "1111", PIN])
    token.login(person)
    assert [request.retry for request in person.requests] == [False, True, True, True]
    assert [request.count_low for request in person.requests] == [False, True, True, True]


def test_who_repeats_a_wrong_pin_is_not_asked_for_ever(open_token: Callable[..., Token]) -> None:
    token = open_token()
    stubborn = Asked(["0000"])
    with pytest.raises(PinIncorrect, match="not sent again"):
        token.login(stubborn)
    assert len(stubborn.requests) == 3
    token.login(pins.value(PIN))
    assert token.logged_in


@pytest.mark.parametrize("again", [1, 2])
def test_static_source_gets_one_try(open_token: Callable[..., Token], again: int) -> None:
    token = open_token()
    with pytest.raises(PinIncorrect) as caught:
        token.login(pins.value("0000"))
    assert (caught.value.ckr, caught.value.name) == ("CKR_PIN_INCORRECT", "SEC_ERROR_BAD_PASSWORD")
    assert "CKF_USER_PIN_COUNT_LOW" in token.flags
    for _ in range(again):
        with pytest.raises(PinIncorrect, match="not sent again"):
            token.login(pins.value("0000"))


def test_no_pin_in_errors(open_token: Callable[..., Token]) -> None:
    token = open_token()
    for _ in range(2):
        with pytest.raises(NSPRError) as caught:
            token.login(pins.value("s3same"))
        assert "s3same" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


def test_cancelled(open_token: Callable[..., Token]) -> None:
    token = open_token()
    with pytest.raises(PinCancelled) as caught:
        token.login(Asked([None]))
    assert caught.value.name == "SEC_ERROR_USER_CANCELLED"
    assert not token.logged_in


def test_nobody_to_ask(open_token: Callable[..., Token]) -> None:
    with pytest.raises(PinError, match="no PIN source"):
        open_token().login()


def test_pin_of_one_token_does_not_go_to_another(softhsm: SoftHSM, new_token: NewToken) -> None:
    """The second token has another PIN: sent to it, the first one's would be a mistake."""
    first, second = new_token(), new_token(pin="98765432")
    source = pins.value(PIN)
    with SlotManager(source) as manager:
        manager.load(softhsm.module_path)
        tokens = {token.info.label: token for token in manager.tokens()}
        tokens[first.label].login()
        with pytest.raises(PinError, match=f'that of token "{first.label}"'):
            tokens[second.label].login()
        assert "CKF_USER_PIN_COUNT_LOW" not in tokens[second.label].flags
        tokens[second.label].login(pins.value("98765432"))
        person = Asked([PIN])
        tokens[first.label].login(person)
        assert person.requests == []


def test_static_pin_is_not_tried_on_one_token_after_the_other(softhsm: SoftHSM, new_token: NewToken) -> None:
    first, second = new_token(), new_token()
    with SlotManager() as manager:
        manager.load(softhsm.module_path)
        with pytest.raises(Ambiguous) as caught:
            manager.find_key("pkcs11:object=hidden", pins.value(PIN))
        assert first.label in str(caught.value)
        assert second.label in str(caught.value)


def test_threads_ask_once_and_share_the_answer(open_token: Callable[..., Token]) -> None:
    token = open_token()
    started, answer = threading.Event(), threading.Event()
    requests = []

    def ask(request: pins.PinRequest, retry: bool, argument: object) -> str:
        requests.append(request)
        started.set()
        assert answer.wait(10)
        return PIN

    source = pins.callback(ask)
    threads = [threading.Thread(target=token.login, args=(source,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    answer.set()
    for thread in threads:
        thread.join()
    assert token.logged_in
    assert len(requests) == 1


def test_source_that_uses_the_token_is_no_deadlock(open_token: Callable[..., Token]) -> None:
    token = open_token()

    def ask(request: pins.PinRequest, retry: bool, argument: object) -> str | None:
        token.login(source)
        return PIN

    source = pins.callback(ask)
    with pytest.raises(PinError, match="itself uses the token"):
        token.login(source)


# --- what SoftHSM never does: lock, count to the final try, have a keypad ----------------------------------------------

BASE = frozenset({"CKF_LOGIN_REQUIRED", "CKF_USER_PIN_INITIALIZED"})


class Counted:
    """A guard over flags of the test's choice and a token that answers `results` in turn."""

    def __init__(self, *flags: str, results: tuple[int, ...] = (faults.OK,)) -> None:
        self.sent: list[str | None] = []
        self.results = list(results)
        self.guard = LoginGuard(TokenInfo("card"), lambda: BASE | set(flags), PinMemory())

    def login(self, source: pins.PinProvider) -> None:
        self.guard.login(source, self._send, lambda: False)

    def _send(self, pin: str | None) -> int:
        self.sent.append(pin)
        return self.results.pop(0)


def test_final_try_is_a_persons() -> None:
    card = Counted("CKF_USER_PIN_FINAL_TRY")
    for source in (pins.value("1"), Asked(["1"], person=False)):
        with pytest.raises(PinError, match="only a person"):
            card.login(source)
    assert card.sent == []
    person = Asked(["1"])
    card.login(person)
    assert person.requests[0].final_try
    assert "LAST TRY" in person.requests[0].prompt
    assert card.sent == ["1"]


def test_locked_token_is_not_tried() -> None:
    card = Counted("CKF_USER_PIN_LOCKED")
    person = Asked(["1"])
    with pytest.raises(PinLocked) as caught:
        card.login(person)
    assert caught.value.name == "SEC_ERROR_LOCKED_PASSWORD"
    assert (card.sent, person.requests) == ([], [])


def test_token_that_locks_at_this_try() -> None:
    with pytest.raises(PinLocked):
        Counted(results=(faults.PIN_LOCKED,)).login(Asked(["1"]))


def test_keypad_is_announced_to_the_source_and_gets_no_pin() -> None:
    card = Counted("CKF_PROTECTED_AUTHENTICATION_PATH", results=(faults.PIN_INCORRECT, faults.OK))
    person = Asked(["go on"])
    card.login(person)
    assert card.sent == [None, None]
    assert [(request.protected, request.retry) for request in person.requests] == [(True, False), (True, True)]
    assert "keypad" in person.requests[0].prompt
    with pytest.raises(PinCancelled):
        Counted("CKF_PROTECTED_AUTHENTICATION_PATH").login(Asked([None]))


def test_other_failures_are_told_as_they_are() -> None:
    card = Counted(results=(faults.DEVICE_ERROR,))
    with pytest.raises(TokenError) as caught:
        card.login(Asked(["1"]))
    assert (caught.value.ckr, caught.value.function) == ("CKR_DEVICE_ERROR", "C_Login")


def test_waiting_threads_share_the_refusal_too() -> None:
    asking, answer = threading.Event(), threading.Event()
    card = Counted()

    class Source(Asked):
        def __call__(self, request: pins.PinRequest) -> str | None:
            asking.set()
            assert answer.wait(10)
            return super().__call__(request)

    source = Source([None])
    refusals: list[PinError] = []
    waiting = threading.Event()

    def login() -> None:
        try:
            card.guard.login(source, card._send, lambda: bool(waiting.set()))
        except PinError as error:
            refusals.append(error)

    first = threading.Thread(target=login)
    first.start()
    assert asking.wait(10)
    waiting.clear()
    second = threading.Thread(target=login)
    second.start()
    assert waiting.wait(10)  # it holds the lock now, under which it joins the attempt
    with card.guard._lock:
        answer.set()
    first.join()
    second.join()
    assert [type(error) for error in refusals] == [PinCancelled, PinCancelled]
    assert len(source.requests) == 1


def test_new_pin_after_initialisation_is_not_held_against_the_old(open_token: Callable[..., Token]) -> None:
    token = open_token()
    with pytest.raises(PinIncorrect):
        token.login(pins.value("5555"))
    renewed = token.initialise(token.info.label, "87654321", "5555")
    renewed.login(pins.value("5555"))
    assert renewed.logged_in
