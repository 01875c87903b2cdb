"""Runs key operations where their keys are: in place or in threads, on another token where one fails, later where none is there.

Theory of operation
-------------------

An *errand* is one operation of one handshake.  It is sent to a member of its key's group (`slots.group`), in a thread of that
token's own pool, so that a token that hangs stops no other.  What can go wrong there has four answers:

- The member failed and another may do it: the errand goes on to that one at once.
- No member can do it now, but one may later (a token is away, all its sessions are in use): the errand is *parked* until a
  breaker lets a probe through or closes, or until its deadline.
- A member takes far longer than it uses to (a network HSM whose link is dead answers nothing for a minute): the errand goes to
  another member as well, and whoever answers first has answered.  The slow one's breaker opens.
- Nobody can log in, the operation itself is refused, or the deadline is over: the error is the answer.

A signature may so be made twice, on two tokens or on one; neither harms.  No login is tried again by anything here: what may be
sent to a token is for `slots.login` to judge.  One thread, the watcher, looks after what is parked and what takes too long; it
starts when there is such for the first time.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InternalError, NotFound, NSPRError, PinError, TokenError, WrongSignature
from ..slots.faults import may_pass
from ..slots.forks import prepare_for_forks
from ..slots.health import FIRST_PAUSE, SUSPECT_PAUSE
from .threads import DaemonPool
from .uses import KeyUse, Observer

if TYPE_CHECKING:
    from ..slots.group import KeyGroup, Member

log = logging.getLogger(__name__)

Answer = Callable[[object, BaseException | None], None]

IN_PLACE_BELOW = 0.002  # seconds: a thread switch and a wake-up cost less than a tenth of this
THREADS_PER_TOKEN = 16  # a network HSM answers many at once; more than its sessions would only queue there instead of here
LOGIN_PAUSE = 5.0  # seconds that a token to which nobody could log in is left alone: no storm of prompts
SLOW_FACTOR = 8  # times its usual latency, and at least ...
SLOW_SECONDS = 0.5  # ... so long, and a member is taken for dead and another asked as well
PATIENCE = 5.0  # seconds that `close` waits for tokens
LOOK_AGAIN = 0.1  # seconds until the watcher looks again at what it could not help
_NEVER = float("inf")


class NotQuick(Exception):
    """The operation is to run in a thread."""


class Errand:
    """One operation on its way.

    `use` does it.  `purpose` and `peer`: for observers.  `deadline`: monotonic seconds.
    `answer(result, error)` is called once, in whatever thread has it.
    """

    __slots__ = (
        "answer", "at", "deadline", "error", "excluded", "future", "group", "peer", "probes", "purpose", "ready", "started",
        "tried", "use", "wrong",
    )  # fmt: skip

    def __init__(self, group: KeyGroup, use: Use, purpose: str, deadline: float, peer: object = ()) -> None:
        self.group, self.use, self.purpose, self.deadline, self.peer = group, use, purpose, deadline, peer
        self.answer: Answer | None = None
        self.at: Member | None = None  # where it was sent last; None: it is parked
        self.tried: list[Member] = []  # in this round
        self.excluded: list[Member] = []  # for good: they will not do it later either
        self.error: NSPRError | None = None  # the last, should there be no better answer
        self.ready = self.started = 0.0  # monotonic: when it began to wait for a thread; when a thread began, 0 before
        self.wrong = False  # a wrong signature was made for it
        self.probes = False  # it is to try whether the token is back
        self.future: Future[None] | None = None

    def cancel(self) -> None:
        """Forget it; `answer` is not called unless that is happening just now."""
        self.answer = None
        if self.future is not None:
            self.future.cancel()


class Use:
    """What an errand does with whichever key it finds: `run(member, patient)`, by `mechanism(member)`."""

    __slots__ = ("mechanism", "run")

    def __init__(self, run: Callable[[Member, bool], object], mechanism: Callable[[Member], str]) -> None:
        self.run, self.mechanism = run, mechanism


class Dispatcher:
    """Sends errands to tokens.  Thread-safe; to be closed."""

    def __init__(self, observers: Sequence[Observer] = (), in_place_below: float = IN_PLACE_BELOW) -> None:
        self._observers, self._in_place_below = tuple(observers), in_place_below
        self._closed = False
        self.after_fork()
        prepare_for_forks(self)

    def after_fork(self) -> None:
        """In a child no thread of the parent's lives, and its errands are the parent's."""
        self._changed = threading.Condition(threading.RLock())
        self._pools: dict[tuple[str, str, str], DaemonPool] = {}
        self._parked: list[Errand] = []
        self._under_way: set[Errand] = set()  # those that another member could take over
        self._watcher: threading.Thread | None = None
        self._next_look = _NEVER

    def close(self) -> None:
        """Answer what is queued or parked with an error, and wait for what runs, some seconds: a dead token may never answer."""
        with self._changed:
            self._closed = True
            pools, self._pools = list(self._pools.values()), {}
            parked, self._parked = self._parked, []
            watcher = self._watcher
            self._changed.notify_all()
        for errand in parked:
            self._answer(errand, None, _closed(errand))
        for pool in pools:
            pool.cancel_queued()  # which answers it, see `_back`
        deadline = time.monotonic() + PATIENCE
        ended = [pool.join(deadline) for pool in pools]
        if not all(ended):
            log.warning("a token does not answer; it is not waited for any longer")
        if watcher is not None:
            watcher.join()

    # --- in place ------------------------------------------------------------------------------------------------------

    def quick(self, member: Member) -> bool:
        """Whether an operation there is over before a thread would have been woken.

        By the quickest of the last operations, not their mean: on a busy machine anything may take long now and then, but a token
        far away is never quick.  Nor is hardware, which may hang at any time, nor a person who types a PIN for every use.
        """
        if member.key.token.hardware or member.key.always_authenticate:
            return False
        return (min(member.recent) if member.recent else member.key.latency) < self._in_place_below

    def run_if_quick(self, errand: Errand) -> object:
        """Run it in place.  Raises NotQuick where a thread is wiser, or where the token stumbled: to find it again may take
        long.
        """
        member = errand.group.choose()
        if member is None:
            raise NotQuick
        if not (member.breaker.closed and self.quick(member)):
            member.breaker.abandoned()
            raise NotQuick
        member.begin()
        try:
            return self._use(errand, member, patient=False)
        except TokenError:
            raise NotQuick from None
        finally:
            member.end()

    def run(self, errand: Errand) -> object:
        """Run it to its end, in place if that will do, else like `send`.  Raises the error that is its answer."""
        done = threading.Event()
        answers: list[tuple[object, BaseException | None]] = []

        def answered(result: object, error: BaseException | None) -> None:
            answers.append((result, error))
            done.set()

        errand.answer = answered
        member = errand.group.choose()
        if member is not None and (len(errand.group.members) == 1 or self.quick(member)):
            errand.at, errand.probes = member, not member.breaker.closed
            member.begin()
            try:
                self._work(errand, member)
            finally:
                member.end()
        else:
            if member is not None:
                member.breaker.abandoned()
            self.send(errand, answered)
        try:
            # What is parked is answered at the deadline; what hangs in a token is not.
            done.wait(max(0.0, errand.deadline - time.monotonic()) + LOOK_AGAIN)
        finally:
            errand.cancel()
        result, error = answers[0] if answers else (None, errand.error or _late("the token did not answer in time"))
        if error is not None:
            raise error
        return result

    # --- in threads ----------------------------------------------------------------------------------------------------

    def send(self, errand: Errand, answer: Answer) -> None:
        """To the member that is done soonest, or to wait for one."""
        errand.answer = answer
        with self._changed:
            refused = self._send(errand)
        if refused is not None:
            self._answer(errand, None, refused)

    def _send(self, errand: Errand) -> BaseException | None:
        """On its way, or parked; or the error that is its answer.  The lock is held."""
        if self._closed:
            return _closed(errand)
        member = errand.group.choose(errand.tried)
        if member is None:
            later = [member for member in errand.group.members if member not in errand.excluded]
            refusals = [member.refusal for member in later if member.refusal is not None and not member.breaker.closed]
            if len(refusals) == len(later):  # there is none, or nobody can log in to any
                return errand.error or copy.copy(refusals[0])
            errand.at, errand.tried = None, list(errand.excluded)
            self._parked.append(errand)
            ripe = min(member.breaker.retry_at for member in later)  # past already while a probe is under way
            self._look_by(min(errand.deadline, max(ripe, time.monotonic() + FIRST_PAUSE)))
            return None
        errand.at, errand.probes = member, not member.breaker.closed
        errand.ready, errand.started = time.monotonic(), 0.0
        member.begin()
        try:
            future = errand.future = self._pool(member).submit(partial(self._work, errand, member))
        except RuntimeError as error:  # the process can have no more threads
            member.end()
            member.breaker.abandoned()
            return InternalError(f"no thread for a key operation: {error}")
        future.add_done_callback(partial(self._back, errand, member))
        if len(errand.group.members) > 1:
            self._under_way.add(errand)
            self._look_by(errand.ready + _too_long(member))
        return None

    def _pool(self, member: Member) -> DaemonPool:
        token = member.key.token
        pool = self._pools.get(token.identity)
        if pool is None:
            threads = min(THREADS_PER_TOKEN, member.key.parallel)
            pool = self._pools[token.identity] = DaemonPool(threads, f"token-{token.label}")
        return pool

    def _back(self, errand: Errand, member: Member, future: Future[None]) -> None:
        member.end()
        if future.cancelled():
            member.breaker.abandoned()
            if self._closed:
                self._answer(errand, None, _closed(errand))

    def _work(self, errand: Errand, member: Member) -> None:
        """One errand at one member, in a thread of its pool."""
        now = time.monotonic()
        if errand.answer is None or now > errand.deadline:
            member.breaker.abandoned()
            late = "the token has too much to do: the operation waited too long"
            self._answer(errand, None, errand.error or _late(late))
            return
        errand.started = now
        refusal = member.refusal
        if refusal is not None and not member.breaker.closed and not errand.probes:
            # Nobody could log in while it queued: who cancelled is not asked again.
            self._failed(errand, member, copy.copy(refusal))
            return
        try:
            result = self._use(errand, member, patient=True)
        except TokenError as error:
            self._failed(errand, member, error)
        except BaseException as error:
            self._answer(errand, None, error)
        else:
            self._answer(errand, result, None)

    def _failed(self, errand: Errand, member: Member, error: TokenError) -> None:
        """To another member, or to wait, or the answer."""
        with self._changed:
            errand.error = error
            again = isinstance(error, WrongSignature) and len(errand.group.members) == 1 and not errand.wrong
            if again:
                errand.wrong = True  # the only token there is may do better next time, and is checked then too
            else:
                errand.tried.append(member)
            if not (again or may_pass(error)):
                errand.excluded.append(member)
            if errand.at is not member:
                return  # it took too long as well, and another is at it
            self._under_way.discard(errand)
            final = self._send(errand)
        if final is not None:
            self._answer(errand, None, final)

    def _answer(self, errand: Errand, result: object, error: BaseException | None) -> None:
        with self._changed:
            answer, errand.answer = errand.answer, None
            self._under_way.discard(errand)
        if answer is not None:
            try:
                answer(result, error)
            except Exception:
                log.exception("the answer to a key operation was not taken")

    # --- one use of one key ---------------------------------------------------------------------------------------------

    def _use(self, errand: Errand, member: Member, *, patient: bool) -> object:
        begun = time.perf_counter()
        try:
            result = errand.use.run(member, patient)
        except BaseException as error:
            self._learn(errand, member, error, patient)
            self._tell(errand, member, getattr(error, "ckr", "") or getattr(error, "name", ""), time.perf_counter() - begun)
            raise
        seconds = time.perf_counter() - begun
        member.recent.append(seconds)
        if not member.breaker.closed:
            self._is_back(member)
        self._tell(errand, member, "CKR_OK", seconds)
        return result

    def _learn(self, errand: Errand, member: Member, error: BaseException, patient: bool) -> None:
        """What a failure says of the token."""
        breaker, name = member.breaker, member.key.token.label
        if isinstance(error, WrongSignature) and len(errand.group.members) > 1:
            breaker.failed(SUSPECT_PAUSE)
        elif not patient or not isinstance(error, TokenError):
            breaker.abandoned()
        elif may_pass(error):
            member.refusal = None  # why it failed now is another reason
            if breaker.failed():
                log.warning('token "%s" is away: %s', name, error)
            self._probe_at(breaker.retry_at)
        elif isinstance(error, PinError | NotFound):
            member.refusal = copy.copy(error)  # without its frames, in which a PIN may be
            if breaker.failed(LOGIN_PAUSE):
                log.warning('token "%s" is of no use: %s', name, error)
        else:
            breaker.abandoned()

    def _is_back(self, member: Member) -> None:
        member.refusal = None
        if member.breaker.succeeded():
            log.warning('token "%s" is back', member.key.token.label)
            self._probe_at(0.0)

    def _probe_at(self, when: float) -> None:
        with self._changed:
            if self._parked:
                self._look_by(when)

    def _tell(self, errand: Errand, member: Member, result: str, seconds: float) -> None:
        if not self._observers:
            return
        queued = max(0.0, errand.started - errand.ready) if errand.ready else 0.0
        peer: tuple[object, ...] | str = errand.peer  # type: ignore[assignment]
        use = KeyUse(time.time(), member.key, errand.purpose, errand.use.mechanism(member), result, queued, seconds, peer)
        for observer in self._observers:
            try:
                observer(use)
            except Exception:  # the signature is good all the same
                log.exception("an observer of key operations failed")

    # --- the watcher -----------------------------------------------------------------------------------------------------

    def _look_by(self, when: float) -> None:
        """Have the watcher look by then; the lock is held."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._look_after, name="key-watcher", daemon=True)
            self._watcher.start()
        if when < self._next_look:
            self._next_look = when
            self._changed.notify_all()

    def _look_after(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                if now < self._next_look:
                    self._changed.wait(None if self._next_look == _NEVER else self._next_look - now)
                    continue
                self._next_look = _NEVER
                over = self._resend_parked(now) + self._ask_others(now)
            for errand, error in over:
                self._answer(errand, None, error)

    def _resend_parked(self, now: float) -> list[tuple[Errand, BaseException]]:
        """Those whose time is over, and why they failed."""
        parked, self._parked = self._parked, []
        over: list[tuple[Errand, BaseException]] = []
        for errand in parked:
            if errand.answer is None:
                continue
            late = now >= errand.deadline
            error = (errand.error or _late("no token was there in time")) if late else self._send(errand)
            if error is not None:
                over.append((errand, error))
        return over

    def _ask_others(self, now: float) -> list[tuple[Errand, BaseException]]:
        """Errands at a member that takes too long go to another too; those that only queue there leave it."""
        over: list[tuple[Errand, BaseException]] = []
        for errand in list(self._under_way):
            member = errand.at
            assert member is not None
            begun = errand.started or errand.ready
            due = begun + _too_long(member)
            if errand.answer is None:
                self._under_way.discard(errand)
            elif now < due:
                self._look_by(due)
            elif errand.started == 0.0 and member.breaker.closed:
                self._look_by(now + LOOK_AGAIN)  # much to do there, but it works
            elif error := self._ask_another(errand, member, now):
                over.append((errand, error))
        return over

    def _ask_another(self, errand: Errand, member: Member, now: float) -> BaseException | None:
        if (errand.started or errand.probes) and member.breaker.failed():
            log.warning('token "%s" has not answered for %.1f s: others are asked', member.key.token.label, now - errand.ready)
        if not errand.group.has_other([*errand.tried, member]):
            self._look_by(now + LOOK_AGAIN)  # it stays where it is: the token may come to it yet
            return None
        if errand.started == 0.0 and errand.future is not None:
            errand.future.cancel()
        errand.tried.append(member)
        self._under_way.discard(errand)
        return self._send(errand)


def _too_long(member: Member) -> float:
    return max(SLOW_SECONDS, SLOW_FACTOR * member.key.latency)


def _late(detail: str) -> TokenError:
    """The token's fault, not the peer's: that is told `internal_error`."""
    return TokenError(detail, name="PR_IO_TIMEOUT_ERROR")


def _closed(errand: Errand) -> NSPRError:
    return errand.error or TokenError("the key executor is closed", name="SEC_ERROR_NOT_INITIALIZED")
