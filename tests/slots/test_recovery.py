"""What keys and tokens go through when cards are pulled, swapped and shared by threads, on simulated hardware through the C ABI.

Above all: no PIN and no operation reaches another token than it was meant for.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11 import pins
from nss_pk11.errors import PinCancelled, TokenError
from nss_pk11.slots import Algorithm, PrivateKey, SlotManager, faults
from nss_pk11.slots.cryptoki import Library
from nss_pk11.slots.keys import TokenKey
from nss_pk11.slots.tokens import PKCS11Token
from nss_pk11.slots.verdicts import PinVerdicts

from .conftest import Asked
from .signatures import verify
from .test_fork import end_of, fork, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pk11_tokens import RunningSimulator

    Start = Callable[..., RunningSimulator]

MESSAGE = b"message"
WAIT = 20.0  # seconds
TRIES = 3  # of a smart card


def card(label: str, **more: Any) -> dict[str, Any]:
    personality: dict[str, Any] = {"label": label, "personality": "smart card", "pin": f"{label}-secret"[:8], "latency": {}}
    return personality | {"key": [{"label": "www", "kind": "p256", "id": "01"}]} | more


def pin_of(label: str) -> pins.PinProvider:
    return pins.value(f"{label}-secret"[:8])


@pytest.fixture
def swapping(simulated_tokens: Start) -> RunningSimulator:
    """One reader; card "a" is in it, "b" is in the drawer."""
    return simulated_tokens({"reader": [{"name": "reader", "token": card("a")}], "drawer": [card("b")]})


@pytest.fixture
def manager() -> Iterator[SlotManager]:
    with SlotManager() as manager:
        yield manager


def sign(key: PrivateKey) -> None:
    verify(key.public_key, Algorithm.ecdsa_sha256, key.sign(Algorithm.ecdsa_sha256, MESSAGE), MESSAGE)


def token_of(manager: SlotManager, label: str) -> PKCS11Token:
    [token] = [found for found in manager.tokens() if found.info.label == label]
    assert isinstance(token, PKCS11Token)
    return token


def when_called(monkeypatch: pytest.MonkeyPatch, method: str, what: Callable[[], object], *, after: bool = False) -> None:
    """Let `what` happen once, right before (or after) the next call of a method of the library."""
    original, todo = getattr(Library, method), [what]

    def hooked(self: Library, *arguments: Any, **named: Any) -> Any:
        if todo and not after:
            todo.pop()()
        result = original(self, *arguments, **named)
        if todo and after:
            todo.pop()()
        return result

    monkeypatch.setattr(Library, method, hooked)


def test_pin_does_not_go_to_the_card_that_came_just_now(
    swapping: RunningSimulator, manager: SlotManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapped between the look at the slot and the session that logs in."""
    manager.load(swapping.module)
    token = token_of(manager, "a")
    when_called(monkeypatch, "open_object_session", lambda: swapping.swap("reader", "b"))
    with pytest.raises(TokenError) as refused:
        token.login(pin_of("a"))
    assert refused.value.ckr == "CKR_TOKEN_NOT_PRESENT"
    assert swapping["b"].status().pin_attempts == 0
    swapping.swap("reader", "a")
    token.login(pin_of("a"))
    assert token.logged_in


def test_worker_of_a_generation_that_is_over_is_not_used(simulated_tokens: Start, manager: SlotManager) -> None:
    """While a session is opened, another thread finds all lost and begins anew: in that session old handles mean nothing."""
    hsm = simulated_tokens([card("hsm", personality="network HSM")])["hsm"]
    key = manager.find_key(hsm.uri("www"), pin_of("hsm"))
    assert isinstance(key, TokenKey)
    token = token_of(manager, "hsm")
    pool, lives = token.pool, token.pool.owner_lives
    before = pool.generation

    def another_thread_was_quicker() -> bool:
        pool.owner_lives = lives
        token.forget_sessions()
        token.login(pin_of("hsm"))
        return lives()

    pool.owner_lives = another_thread_was_quicker
    with pytest.raises(TokenError, match="CKR_SESSION_HANDLE_INVALID"):
        pool.take()
    assert pool.generation == before + 1
    sign(key)
    assert not pool.in_use


@pytest.mark.filterwarnings("ignore:Exception ignored in. 'pkcs11")  # python-pkcs11 ends a search in a session that has gone
def test_card_with_one_session_is_pulled_while_threads_sign_and_search(simulated_tokens: Start, manager: SlotManager) -> None:
    """Nobody takes the only session from who logs in to it again."""
    simulated = simulated_tokens([card("card")])["card"]
    key = manager.find_key(simulated.uri("www"), pin_of("card"))
    token = token_of(manager, "card")
    over = threading.Event()

    def work(number: int) -> None:
        while not over.is_set():
            try:
                if number == 0:
                    assert len(token.find_keys()) <= 1
                    assert token.certificates() == []
                else:
                    sign(key)
            except TokenError as error:  # lost once more, while it was found again
                if error.rv not in faults.LOST:
                    raise

    with ThreadPoolExecutor(5) as threads:
        tasks = [threads.submit(work, number) for number in range(5)]
        try:
            for _ in range(30):
                before = key.operations
                simulated.disconnect()
                wait_for(lambda before=before: key.operations > before + 5 or any(task.done() for task in tasks))
        finally:
            over.set()
        for task in tasks:
            task.result(WAIT)
    assert simulated.status().tries_left == TRIES
    assert not token.pool.in_use


def test_cancelled_use_does_not_spoil_the_only_session(simulated_tokens: Start, manager: SlotManager) -> None:
    """Between C_SignInit and the PIN for this use: the operation stays active in the session."""
    simulated = simulated_tokens([card("card", always_authenticate=True)])["card"]
    asked = Asked(["card-sec", None, "card-sec"])
    key = manager.find_key(simulated.uri("www"), asked)
    with pytest.raises(PinCancelled):
        sign(key)
    sign(key)
    assert simulated.status().tries_left == TRIES


def test_sessions_that_were_lost_are_all_opened_again(simulated_tokens: Start, manager: SlotManager) -> None:
    """A login is lost while all sessions are in use: as long as these are open the token has no room for new ones."""
    hsm = simulated_tokens([card("hsm", personality="network HSM", max_sessions=9, parallel=0)])["hsm"]
    key = manager.find_key(hsm.uri("www"), pin_of("hsm"))
    hsm.slow(0.2, "C_Sign")  # long enough for a busy machine to see all sessions in use at once
    with ThreadPoolExecutor(24) as threads:
        for _ in range(3):
            tasks = [threads.submit(sign, key) for _ in range(48)]
            wait_for(lambda: hsm.status().operations_running == 8)
            hsm.fail("C_Sign", "CKR_USER_NOT_LOGGED_IN")
            for task in tasks:
                task.result(WAIT)
        tasks = [threads.submit(sign, key) for _ in range(48)]
        wait_for(lambda: hsm.status().operations_running == 8 or all(task.done() for task in tasks))
        assert hsm.status().operations_running == 8
        for task in tasks:
            task.result(WAIT)
    assert token_of(manager, "hsm").pool.limit == 8


def test_card_that_was_out_and_is_back_is_the_same_token(swapping: RunningSimulator, manager: SlotManager) -> None:
    """Two objects for one card would take the only session from each other."""
    key = manager.find_key(swapping["a"].uri("www"), pin_of("a"))
    token = token_of(manager, "a")
    swapping.swap("reader", "b")
    assert token_of(manager, "b").find_keys() == []
    with pytest.raises(TokenError) as gone:
        sign(key)
    assert gone.value.ckr == "CKR_TOKEN_NOT_PRESENT"
    swapping.swap("reader", "a")
    sign(key)
    assert token_of(manager, "a") is token
    assert len(manager.find_key(swapping["a"].uri("www"), pin_of("a")).id) == 1
    sign(key)


def test_child_forgets_tokens_that_are_in_no_slot(simulated_tokens: Start, manager: SlotManager) -> None:
    """Of a card that was swapped when the process was forked, too, handles and login are the parent's."""
    slots = {"reader": [{"name": "reader", "token": card("a", personality="plain")}], "drawer": [card("b")]}
    simulator = simulated_tokens(slots)
    key = manager.find_key(simulator["a"].uri("www"), pin_of("a"))
    token = token_of(manager, "a")
    sign(key)
    simulator.swap("reader", "b")
    assert token_of(manager, "b")
    generation = token.pool.generation

    def work() -> None:
        assert token.pool.generation > generation
        simulator.swap("reader", "a")
        sign(key)

    assert end_of(fork(work)) == 0
    sign(key)


def test_tokens_of_two_processes_are_logged_in_to_by_threads() -> None:
    """The kernel takes locks of threads for those of their process, and processes that wait for each other for a deadlock."""
    verdicts = PinVerdicts()
    tokens = [("module", "serial", label) for label in ("one", "two")]

    def work() -> None:
        together = threading.Barrier(2)

        def try_often(number: int) -> None:
            together.wait(WAIT)
            for turn in range(400):
                with verdicts.trying(tokens[(number + turn) % 2]):
                    os.sched_yield()

        with ThreadPoolExecutor(2) as threads:
            for task in [threads.submit(try_often, number) for number in range(2)]:
                task.result(WAIT)

    def child() -> None:
        verdicts.after_fork()
        work()

    children = [fork(child) for _ in range(3)]
    work()
    assert [end_of(child) for child in children] == [0, 0, 0]


def test_sessions_that_others_close_are_used(simulated_tokens: Start, manager: SlotManager) -> None:
    """A token that was full is not taken for full for ever."""
    hsm = simulated_tokens([card("hsm", personality="network HSM", max_sessions=4, parallel=0)])["hsm"]
    pool = manager.find_key(hsm.uri("www"), pin_of("hsm")).home.pool  # type: ignore[attr-defined]
    taken = [pool.take() for _ in range(2)]
    hsm.fail("C_OpenSession", "CKR_SESSION_COUNT")  # another program has the last
    with pytest.raises(TokenError, match="busy"):
        pool.take(0.0)
    assert pool.limit == 2
    pool._look_again = 0.0  # some seconds later
    for worker in (*taken, pool.take(0.0)):
        pool.give_back(worker)
    assert pool.limit == 3


def test_search_that_could_not_be_ended_bars_no_others(simulated_tokens: Start, manager: SlotManager) -> None:
    hsm = simulated_tokens([card("hsm", personality="network HSM")])["hsm"]
    key = manager.find_key(hsm.uri("www"), pin_of("hsm"))
    token = token_of(manager, "hsm")
    hsm.fail("C_FindObjectsFinal", "CKR_DEVICE_ERROR")
    with pytest.raises(TokenError, match="CKR_DEVICE_ERROR"):
        token.find_keys()
    with pytest.raises(TokenError, match="CKR_OPERATION_ACTIVE"):
        token.find_keys()
    assert token.find_keys() == [], "logged out with its sessions"
    sign(key)
    assert len(token.find_keys()) == 1
