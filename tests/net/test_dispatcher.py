"""Errands of the dispatcher: each is answered once, whatever hangs, fails, is cancelled or closed meanwhile.

The keys are a real one whose `sign` does what tokens do: hang, fail, come back.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.errors import NSPRError, PinCancelled, TokenError
from nss_pk11.net import dispatcher
from nss_pk11.net.dispatcher import THREADS_PER_TOKEN
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import key_of
from nss_pk11.slots import faults
from nss_pk11.slots.group import KeyGroup
from nss_pk11.tls.codepoints import SignatureScheme
from nss_pk11.tls.waits import Sign

from .hsms import wait_until
from .peers import TIMEOUT, KeyWith, Task
from .test_executor import Answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nss_pk11.tls.config import Identity

SCHEME = SignatureScheme.ecdsa_secp256r1_sha256


class Behaviour:
    """A key that signs, hangs until `free` is set, or fails with `error`; counts in `begun`."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.error: NSPRError | None = None
        self.begun = 0

    def sign(self, algorithm: object, message: bytes, *, prehashed: bool = False, patient: bool = True) -> bytes:
        self.begun += 1
        assert self.free.wait(TIMEOUT)
        if self.error is not None:
            raise self.error
        return b"signature"


def away() -> TokenError:
    return faults.fault(faults.DEVICE_REMOVED, "C_Sign")


class Hardware:
    """Keys of one pair on several tokens, each with its `Behaviour`, and an executor for them."""

    def __init__(self, identity: Identity, count: int) -> None:
        key = key_of(identity)
        self.tokens = [Behaviour() for _ in range(count)]
        infos = [replace(key.token, serial=str(number)) for number in range(count)]
        keys = [KeyWith(key, sign=b.sign, token=info, latency=0.01) for b, info in zip(self.tokens, infos, strict=True)]
        self.key = KeyGroup(keys) if count > 1 else keys[0]  # type: ignore[arg-type]
        self.operation = Sign(replace(identity, key=self.key), SCHEME, b"message")
        self.executor = KeyExecutor(check_signatures=False)
        self.members = self.executor.group(self.key).members  # type: ignore[arg-type]

    def run_in_thread(self, timeout: float = TIMEOUT) -> Task:
        return Task(partial(self.executor.run, self.operation, timeout))

    def submit(self, answers: Callable[..., None], timeout: float = TIMEOUT) -> Any:
        return self.executor.submit(self.operation, answers, timeout)

    def end(self) -> None:
        for token in self.tokens:
            token.free.set()
        self.executor.close()


@pytest.fixture
def one(identity: Identity) -> Iterator[Hardware]:
    hardware = Hardware(identity, 1)
    yield hardware
    hardware.end()


@pytest.fixture
def two(identity: Identity) -> Iterator[Hardware]:
    hardware = Hardware(identity, 2)
    yield hardware
    hardware.end()


def occupy(hardware: Hardware, number: int) -> Answers:
    """Every thread of a token's pool hangs there."""
    answers, token = Answers(), hardware.tokens[number]
    token.free.clear()
    for _ in range(THREADS_PER_TOKEN):
        hardware.submit(answers)
    wait_until(lambda: token.begun == THREADS_PER_TOKEN)
    return answers


def test_close_answers_who_waits_for_a_token(one: Hardware) -> None:
    """A thread in the middle of a handshake must not wait for ever."""
    [token] = one.tokens
    token.error = away()
    waiting = one.run_in_thread()
    wait_until(lambda: token.begun >= 2)  # parked, and tried again
    one.executor.close()
    with pytest.raises(TokenError):
        waiting.wait()


def test_close_answers_who_waits_for_a_thread(one: Hardware) -> None:
    busy = occupy(one, 0)
    queued = Answers()
    one.submit(queued)
    closing = Task(one.executor.close)
    [(result, error)] = queued.wait(1)
    assert (result, isinstance(error, NSPRError)) == (None, True)
    one.tokens[0].free.set()
    closing.wait()
    assert busy.wait(THREADS_PER_TOKEN) == [(b"signature", None)] * THREADS_PER_TOKEN


def test_close_does_not_wait_for_a_dead_token(one: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "PATIENCE", 0.2)
    busy = occupy(one, 0)
    began = time.monotonic()
    one.executor.close()
    assert time.monotonic() - began < TIMEOUT / 2
    hanging = [thread for thread in threading.enumerate() if thread.name.startswith("token-")]
    assert all(thread.daemon for thread in hanging), "at its end the process must not wait for it either"
    one.tokens[0].free.set()
    busy.wait(THREADS_PER_TOKEN)
    for thread in hanging:
        thread.join(TIMEOUT)


def test_deadline_holds_when_every_token_hangs(two: Hardware) -> None:
    for token in two.tokens:
        token.free.clear()
    began = time.monotonic()
    with pytest.raises(TokenError):
        two.run_in_thread(1.5).wait()
    assert time.monotonic() - began < TIMEOUT / 2


def test_who_left_a_token_that_hangs_is_answered_when_that_is_back(two: Hardware) -> None:
    """It queued there, went away, and the other token rests."""
    hanging, other = two.members
    other.breaker.failed(60.0)
    busy = occupy(two, 0)
    answers = Answers()
    two.submit(answers)
    wait_until(lambda: not hanging.breaker.closed)
    time.sleep(0.3)  # the watcher looks at what queues
    two.tokens[0].free.set()
    assert answers.wait(1) == [(b"signature", None)]
    busy.wait(THREADS_PER_TOKEN)
    assert hanging.running == other.running == 0


def test_error_of_one_who_asks_is_not_anothers(one: Hardware) -> None:
    """An answer that raises must neither end the watcher nor another's errand."""
    [token] = one.tokens
    token.error = away()

    def raises(result: object, error: BaseException | None) -> None:
        raise RuntimeError("the driver is broken")

    answers = Answers()
    one.submit(raises, 0.3)
    one.submit(answers, 0.6)
    [(_, error)] = answers.wait(1)
    assert isinstance(error, TokenError)


def test_deadline_of_one_that_was_never_tried_is_the_tokens_fault(one: Hardware) -> None:
    """The peer gets internal_error: it has not stalled."""
    one.members[0].breaker.failed(60.0)
    answers = Answers()
    one.submit(answers, 0.2)
    [(_, error)] = answers.wait(1)
    assert isinstance(error, TokenError)


def test_cancelled_wherever_it_is(two: Hardware) -> None:
    """Queued, running or parked: never answered, nothing left behind, breakers free for the next probe."""
    for token in two.tokens:
        token.free.clear()
    answers = Answers()
    errands = [two.submit(answers) for _ in range(60)]
    time.sleep(0.7)  # some are at both tokens by now
    for errand in errands[::2]:
        errand.cancel()
    for token in two.tokens:
        token.free.set()
    assert answers.wait(30) == [(b"signature", None)] * 30
    wait_until(lambda: all(member.running == 0 for member in two.members))
    wait_until(lambda: all(member.breaker.state != 1 for member in two.members))
    assert len(answers.all) == 30


def test_probe_that_is_cancelled_leaves_the_breaker_free(one: Hardware) -> None:
    [token], [member] = one.tokens, one.members
    member.breaker.failed()
    wait_until(lambda: member.breaker.ripe)
    token.free.clear()
    probing = one.submit(Answers())
    wait_until(lambda: token.begun == 1)
    probing.cancel()
    answers = Answers()
    one.submit(answers)
    token.free.set()
    assert answers.wait(1) == [(b"signature", None)]
    assert member.breaker.closed


def test_nobody_can_log_in_is_one_error_for_each(one: Hardware) -> None:
    """An exception that several threads raise would keep the frames of all of them."""
    [token] = one.tokens
    token.error = PinCancelled("nobody gave it")
    errors = []
    for _ in range(3):
        with pytest.raises(PinCancelled) as caught:
            one.executor.run(one.operation)
        errors.append(caught.value)
    assert token.begun == 1
    assert len(set(map(id, errors))) == 3
