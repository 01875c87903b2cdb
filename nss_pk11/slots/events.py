"""Hot plug: tells an application when tokens come and go.

Theory of operation.  An event is the difference between two looks at the slots (C_GetSlotList, C_GetTokenInfo).  What a module
reports by C_WaitForSlotEvent is only a bell that makes us look at once: modules miss changes, report some twice, some without
cause, some never, and C_GetSlotList may swallow what was to be reported.  So an event that the bell loses comes from the next
look, `interval` seconds later at most, and one that it doubles finds nothing new.  A token that was pulled and is back before
anybody looked was not away: whether its sessions survived, their next use finds out.

The bell is asked without waiting (CKF_DONT_BLOCK), some times a second.  A thread that waits inside C_WaitForSlotEvent would be
woken at once, but is woken for the last time only by C_Finalize (PKCS #11 3.1 section 5.5.3), which in some modules waits for it,
in others frees what it stands on; it could not be stopped while the application goes on with the module; and p11-kit's proxy and
SoftHSM answer only those who do not wait.

The card is left in peace.  Whether a slot holds a token, readers know without asking it; C_GetTokenInfo goes to the card in some
modules (OpenSC asks for the tries left), so it is called when that changes or the bell rings.  Only where the bell has not proved
true, by ringing for the last change, is a token asked in every look: it may have been swapped for another between two.  Sessions
are never opened.

Each module has a thread: one that hangs (OpenSC does while a PIN is typed at a reader) hides no other's events.  One more thread
calls the application, so that events come in order and a slow callback delays none but its own.  A forked child has none of them.

May use `modules`; knows nothing of URIs, keys and PINs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Literal

from ..errors import ConfigurationError, TokenError
from .faults import CRYPTOKI_NOT_INITIALIZED
from .forks import prepare_for_forks
from .model import Slot, TokenInfo
from .modules import PKCS11Module

_log = logging.getLogger(__name__)

_BELL = 0.2  # seconds between two questions whether something happened
_THOROUGH = 10  # every so many looks each token is asked, however true the bell
_PATIENCE = 10.0  # seconds that `close` waits for calls under way, and `Watcher` for the first look at each module

Kind = Literal["present", "inserted", "removed"]


@dataclass(frozen=True)
class SlotEvent:
    """A token was there when watching began ("present"), came ("inserted") or went ("removed").

    Another token in its place, or the same one with a new label, is "removed" and then "inserted".
    """

    kind: Kind
    slot: Slot
    token: TokenInfo


class Watcher:
    """Watches until it is closed; made by `SlotManager.watch`.  A context manager.

    `modules`: those in use now.  `changed` is called before the callbacks whenever tokens have changed.  If a callback raises,
    that is logged, and it is called for the next event all the same.  Raises ConfigurationError if `interval` (seconds) is not
    positive.
    """

    def __init__(
        self,
        modules: Callable[[], list[PKCS11Module]],
        changed: Callable[[], None],
        callback: Callable[[SlotEvent], object],
        interval: float,
    ) -> None:
        if not interval > 0:
            raise ConfigurationError(f"an interval is longer than {interval} s")
        self._modules, self._changed, self._callback, self._interval = modules, changed, callback, interval
        self._closing = threading.Event()
        self._events: SimpleQueue[list[SlotEvent]] = SimpleQueue()
        self._watches: dict[PKCS11Module, _ModuleWatch] = {}
        self._threads: list[threading.Thread] = []
        prepare_for_forks(self)
        self._watch_new_modules()
        deadline = time.monotonic() + _PATIENCE
        for watch in self._watches.values():
            watch.has_looked.wait(max(0.0, deadline - time.monotonic()))
        self._start(self._deliver, "callbacks")

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether no more events come: `close` was called, or this is a forked child."""
        return self._closing.is_set()

    def close(self) -> None:
        """Stop.  No callback runs or begins after it, unless it is a callback that closes."""
        if not self._threads:
            return
        self._closing.set()
        self._events.put([])
        deadline = time.monotonic() + _PATIENCE
        for thread in self._threads:  # the one that makes threads ends first
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    _log.warning("%s does not end: a call hangs", thread.name)

    def after_fork(self) -> None:
        """In the child: closed."""
        self._threads = []
        self._closing = threading.Event()
        self._closing.set()

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=f"slot watcher, {name}", daemon=True)
        self._threads.insert(0, thread)
        thread.start()

    def _watch_new_modules(self) -> None:
        for module in self._modules():
            if module not in self._watches:
                watch = self._watches[module] = _ModuleWatch(module, self._interval, self._closing, self._events.put)
                self._start(watch.run, module.path)

    def _deliver(self) -> None:
        """The thread of the callbacks."""
        while not self._closing.is_set():
            try:
                events = self._events.get(timeout=self._interval)
            except Empty:
                events = []
            if events:
                self._changed()
            for event in events:
                if self._closing.is_set():
                    return
                try:
                    self._callback(event)
                except Exception:
                    _log.exception("the callback for %s failed", event.kind)
            if not self._closing.is_set():
                self._watch_new_modules()


class _ModuleWatch:
    """One module: a bell, and what was last known of its slots.  `run` is a thread's work."""

    def __init__(
        self, module: PKCS11Module, interval: float, closing: threading.Event, tell: Callable[[list[SlotEvent]], None]
    ) -> None:
        self.has_looked = threading.Event()
        self._module, self._interval, self._closing, self._tell = module, interval, closing, tell
        self._known: dict[int, tuple[Slot, TokenInfo]] = {}
        self._reports = True  # as far as is known, the module has a bell
        self._problems: list[str] = []  # of the last look

    def run(self) -> None:
        self._tell(self._look(thorough=True, arrival="present"))
        self.has_looked.set()
        due = time.monotonic() + self._interval
        rung, heeded, true_bell, looks = False, True, False, 0
        while not self._closing.wait(self._pause(due)):
            rung = self._bell_rings() or rung
            if not (rung and heeded) and time.monotonic() < due:
                continue
            events = self._look(thorough=rung or not true_bell or looks % _THOROUGH == 0)
            if events:
                true_bell = rung
                self._tell(events)
            heeded = bool(events) or not rung  # after a false alarm not before the next look is due anyway
            rung, looks, due = False, looks + 1, time.monotonic() + self._interval

    def _pause(self, due: float) -> float:
        left = max(0.0, due - time.monotonic())
        return min(left, _BELL) if self._reports else left

    def _bell_rings(self) -> bool:
        if not self._reports:
            return False
        try:
            slots = self._module.library.slot_events()
        except TokenError:  # the next look will say what is wrong
            return False
        self._reports = slots is not None
        return bool(slots)

    def _look(self, *, thorough: bool, arrival: Kind = "inserted") -> list[SlotEvent]:
        """What has changed since the last look.  Not `thorough`: ask only tokens that have come or gone."""
        removed, inserted, problems = [], [], []
        try:
            slots = {slot.id: slot for slot in self._module.slots()}
            occupied = set(self._module.library.slot_ids(occupied=True))
        except TokenError as error:
            self._report([str(error)])
            if error.rv == CRYPTOKI_NOT_INITIALIZED:
                self._module.library.finalized_by_others()
            return []
        for id in sorted(occupied | self._known.keys()):
            before = self._known.get(id)
            if not thorough and before and id in occupied:
                continue
            slot = slots.get(id) or (before and before[0])
            try:
                after = _token_in(slot)
            except TokenError as error:
                problems.append(str(error))
                continue
            if before and before[1] != after:
                removed.append(SlotEvent("removed", *self._known.pop(id)))
            if slot and after and (before is None or before[1] != after):
                self._known[id] = slot, after
                inserted.append(SlotEvent(arrival, slot, after))
        self._report(problems)
        return removed + inserted

    def _report(self, problems: list[str]) -> None:
        """Log what went wrong, once for as long as it lasts."""
        if problems and problems != self._problems:
            _log.warning("watching %s: %s", self._module.path, "; ".join(problems))
        self._problems = problems


def _token_in(slot: Slot | None) -> TokenInfo | None:
    """The token in it, whose mechanisms are read now: `Watcher.changed` is to find them in memory."""
    token = slot.token if slot else None
    if token is None:
        return None
    try:
        token.mechanisms()
    except TokenError as error:  # it may have gone again: the next look will say
        _log.info("mechanisms of token %s: %s", token.info.label, error)
    return token.info
