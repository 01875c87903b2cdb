"""How a token behaves: how long it takes, how many wait, what fails next, who stands at its keypad.

`Behaviour.running` is entered around every call that concerns the token, before the function that answers it, and without
the token's lock: sixteen sessions that take 50 ms each take 50 ms together.  Made from a `Personality`, changed by `control`
while the token is in use; every method may be called from any thread.  May use `abi`; reaches hosts and readers only through
the call it is given.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .abi import CKR, Refused

if TYPE_CHECKING:
    from .functions import Call
    from .host import Host
    from .machine import Token
    from .personalities import Person, Personality


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What keeps the hardware busy: these wait for a place inside the device, and a latency of "*" is theirs.  The …Init
# functions, attributes and searches only move data.
OPERATIONS = _names("""
    C_Encrypt C_EncryptUpdate C_EncryptFinal C_Decrypt C_DecryptUpdate C_DecryptFinal C_Digest C_DigestUpdate C_DigestFinal
    C_Sign C_SignUpdate C_SignFinal C_SignRecover C_Verify C_VerifyUpdate C_VerifyFinal C_VerifyRecover
    C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate
    C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey C_GenerateRandom
""")

# Which argument is the output buffer: NULL there asks for a length (PKCS #11 5.2), which a library answers by itself, so that
# neither latency nor failures meant for the operation apply.
_OUTPUT_ARGUMENT = {
    "C_Encrypt": 3,
    "C_Decrypt": 3,
    "C_Digest": 3,
    "C_Sign": 3,
    "C_SignRecover": 3,
    "C_EncryptFinal": 1,
    "C_DecryptFinal": 1,
    "C_DigestFinal": 1,
    "C_SignFinal": 1,
    "C_EncryptUpdate": 3,
    "C_DecryptUpdate": 3,
    "C_WrapKey": 4,
}

# What random failures hit: work in a session.  Not its opening, closing and logins: a host could not tidy up after them.
_AT_RANDOM = OPERATIONS | _names("""
    C_EncryptInit C_DecryptInit C_DigestInit C_SignInit C_SignRecoverInit C_VerifyInit C_VerifyRecoverInit
    C_FindObjectsInit C_FindObjects C_FindObjectsFinal C_GetAttributeValue C_SetAttributeValue C_GetSessionInfo
""")

RANDOM_RESULTS = (CKR.DEVICE_ERROR, CKR.DEVICE_REMOVED, CKR.SESSION_HANDLE_INVALID, CKR.USER_NOT_LOGGED_IN)


@dataclass
class Failure:
    """Something that is going to go wrong.

    `function`: a C_ name, or "*" for every call that concerns the token.  `result`: the CKR.  `times`: how often, 0 until
    cleared.  `after`: the operation is done and only its answer lost.  `disconnect`: all sessions and logins die with it.
    """

    function: str
    result: int
    times: int = 1
    after: bool = False
    disconnect: bool = False


class Behaviour:
    """What one token does beside answering correctly."""

    def __init__(self, personality: Personality, pin: bytes = b"") -> None:
        self.parallel = personality.parallel
        self.idle_timeout = personality.idle_timeout
        self.operations_running = 0
        self.operations_waiting = 0
        self.most_running = 0
        self.waiting_for_person = 0  # hosts
        self.spoiled = 0  # signatures made wrong
        self._latency = dict(personality.latency)
        self._failures: list[Failure] = []
        self._rate, self._results = 0.0, tuple[int, ...]()
        self._chance = random.Random(personality.seed)
        self._wrong_signatures, self._wrong_chance = personality.wrong_signatures, random.Random(personality.seed)
        self._person, self._pin = personality.person, pin
        self._hosts: dict[Host, _Attention] = {}  # kept only with an idle time-out
        self._lock = threading.Lock()
        self._places = threading.Condition()  # inside the device
        self._interrupted = threading.Condition()
        self._interruptions = 0

    # --- around every call -------------------------------------------------------------------------------------------

    @contextmanager
    def running(self, call: Call) -> Iterator[None]:
        """Around a call: idle time-out, a place in the device, latency, failures to come.

        Raises Refused with the result that was planned.
        """
        output = _OUTPUT_ARGUMENT.get(call.function)
        if output is not None and not call.arguments[output]:
            yield
            return
        self._begin(call)
        try:
            with self._place(call.function in OPERATIONS):
                self._wait(self._latency_of(call.function))
                self._fail(call, after=False)
                yield
                self._fail(call, after=True)
        finally:
            self._end(call)

    def _begin(self, call: Call) -> None:
        if call.token and self.idle_timeout:
            self.expire(call.token)
            with self._lock:
                self._hosts.setdefault(call.host, _Attention()).calls += 1

    def _end(self, call: Call) -> None:
        if call.token and self.idle_timeout:
            with self._lock:
                attention = self._hosts.setdefault(call.host, _Attention(1))
                attention.calls -= 1
                attention.heard = time.monotonic()

    def expire(self, token: Token) -> None:
        """End sessions and logins of hosts that were silent for longer than the token bears."""
        if not self.idle_timeout:
            return
        with self._lock:
            limit = time.monotonic() - self.idle_timeout
            idle = [host for host, attention in self._hosts.items() if not attention.calls and attention.heard < limit]
            for host in idle:
                del self._hosts[host]
        for host in idle:
            host.forget(token)

    @contextmanager
    def _place(self, operation: bool) -> Iterator[None]:
        """One of the `parallel` places inside the device; waits for it."""
        if not operation:
            yield
            return
        with self._places:
            self.operations_waiting += 1
            self._places.wait_for(lambda: not self.parallel or self.operations_running < self.parallel)
            self.operations_waiting -= 1
            self.operations_running += 1
            self.most_running = max(self.most_running, self.operations_running)
        try:
            yield
        finally:
            with self._places:
                self.operations_running -= 1
                self._places.notify()

    def _latency_of(self, function: str) -> float:
        general = self._latency.get("*", 0.0) if function in OPERATIONS else 0.0
        return self._latency.get(function, general)

    def _wait(self, seconds: float) -> bool:
        """Sleep, but no longer than the token is there; whether nothing interrupted it."""
        if seconds <= 0:
            return True
        with self._interrupted:
            interruptions = self._interruptions
            return not self._interrupted.wait_for(lambda: self._interruptions != interruptions, seconds)

    def interrupt(self) -> None:
        """The token has gone or lost its link: nobody waits for it any longer."""
        with self._interrupted:
            self._interruptions += 1
            self._interrupted.notify_all()

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    def _fail(self, call: Call, *, after: bool) -> None:
        """Raise Refused where a failure is due, once its consequences have come about."""
        with self._lock:
            failure = self._due(call.function, after)
        if failure is None:
            return
        if failure.disconnect:
            disconnect(call)
        else:
            consequence = _CONSEQUENCES.get(failure.result)
            if consequence:
                consequence(call)
        raise Refused(failure.result)

    def _due(self, function: str, after: bool) -> Failure | None:
        for failure in self._failures:
            if failure.function in (function, "*") and failure.after == after:
                if failure.times:
                    failure.times -= 1
                    if not failure.times:
                        self._failures.remove(failure)
                return failure
        at_random = self._rate and not after and function in _AT_RANDOM and self._chance.random() < self._rate
        return Failure(function, self._chance.choice(self._results)) if at_random else None

    def fail(self, failure: Failure) -> None:
        """Let it go wrong; failures come in the order in which they were planned."""
        with self._lock:
            self._failures.append(failure)

    def fail_randomly(self, rate: float, seed: int = 0, results: Sequence[int] = RANDOM_RESULTS) -> None:
        """Fail each call that works with a session at `rate` (0 to 1) with one of `results`; 0 ends it."""
        with self._lock:
            self._rate, self._results, self._chance = rate, tuple(results), random.Random(seed)

    def clear(self) -> None:
        """Nothing goes wrong any longer, but what the personality does by nature."""
        with self._lock:
            self._failures.clear()
            self._rate = 0.0

    def slow(self, seconds: float, function: str = "*") -> None:
        """Let a function take so long; "*": every operation, whatever was said before."""
        with self._lock:
            self._latency = {"*": seconds} if function == "*" else self._latency | {function: seconds}

    def spoil(self, signature: bytes) -> bytes:
        """The signature, or at the rate of wrong ones, one with a bit flipped."""
        with self._lock:
            if not signature or self._wrong_chance.random() >= self._wrong_signatures:
                return signature
            self.spoiled += 1
            bit = self._wrong_chance.randrange(8 * len(signature))
        return (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(len(signature), "big")

    def wrong_signatures(self, rate: float, seed: int = 0) -> None:
        """Make signatures wrong at `rate`, 0 to 1."""
        with self._lock:
            self._wrong_signatures, self._wrong_chance = rate, random.Random(seed)

    # --- the keypad --------------------------------------------------------------------------------------------------

    def meet(self, person: Person) -> None:
        """Somebody else stands at the keypad."""
        with self._lock:
            self._person = person

    def person(self) -> bytes | None:
        """What is typed at the keypad, once it is; None where the person cancels, or the token goes meanwhile."""
        with self._lock:
            person = self._person
            self.waiting_for_person += 1
        there = self._wait(person.delay)
        with self._lock:
            self.waiting_for_person -= 1
        if not there or person.cancels:
            return None
        typed = self._pin if person.pin is None else person.pin.encode()
        with self._lock:
            if self._person.mistakes:
                self._person = replace(self._person, mistakes=self._person.mistakes - 1)
                return bytes(_other_digit(digit) for digit in typed)
        return typed


@dataclass
class _Attention:
    """What a token with an idle time-out knows of a host: calls being answered now, when the last one ended."""

    calls: int = 0
    heard: float = field(default_factory=time.monotonic)


def _other_digit(character: int) -> int:
    return ord("1") if character == ord("0") else ord("0")


# --- what a result means for sessions and logins ---------------------------------------------------------------------


def disconnect(call: Call) -> None:
    """Every session and login with the token dies, of every host."""
    if call.token is not None:
        call.machine.disconnect(call.token)


def _end_session(call: Call) -> None:
    session = call.host.sessions.get(call.arguments[0])
    if session is not None:
        call.host.close([session])


def _end_login(call: Call) -> None:
    if call.token is not None:
        call.host.logout(call.token)


def _reinsert(call: Call) -> None:
    """Out and in again, quicker than anybody looks: sessions and logins are gone, and this call has told of it."""
    reader = call.token and call.machine.reader_of(call.token)
    if not reader or call.token is None:
        return
    with call.machine.changed:
        reader.remove()
        reader.insert(call.token)
    with suppress(Refused):
        call.host.session(call.arguments[0])


_CONSEQUENCES: dict[int, Callable[[Call], None]] = {
    CKR.SESSION_HANDLE_INVALID: _end_session,
    CKR.USER_NOT_LOGGED_IN: _end_login,
    CKR.DEVICE_REMOVED: _reinsert,
}
