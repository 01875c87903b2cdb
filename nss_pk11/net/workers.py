"""Several processes that serve one listening socket, and are replaced when they die.

A PKCS #11 library must not live through a fork (PKCS #11 v3.1 section 5.4: C_Initialize anew in the child), so the parent
never loads one: it forks, and each child loads its own.  It forks only while it is single-threaded.  Children start one after the
other, since some libraries (SoftHSM) stumble when processes initialise them at the same moment.

Who is replaced
---------------

If a worker cannot start in the beginning, none serves: all end.  Otherwise one that ends is replaced, at once if it has lived for
a while, else after a pause that grows.  A worker that is asked to end (SIGTERM) is replaced too: so they are renewed one by one.
When one has died at once too often while no other serves, all is given up.

A worker that ends because of a PIN is not replaced, and from then on none is: the next one would try the same PIN, and a card
locks after three mistakes.  The others go on.

PINs
----

A person is asked for a PIN once, by the parent, on behalf of the first child; the others get the same answer, which is forgotten
when all are up.  A worker that replaces another asks the person again, and nobody else waits for the answer.  Other PIN sources
are read by each child for itself.  What tokens said to PINs is known to all: their slot managers share a `memory` made before the
fork, and a PIN that one was refused is sent by no other.

Each child holds one end of a channel.  When the parent shuts the other end, or dies, the child drains.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

from ..pins import PinRequest
from .children import Child, receive, send
from .person import Person

if TYPE_CHECKING:
    from ..pins import PinProvider
    from ..slots import PinMemory

log = logging.getLogger(__name__)

QUICK = 2.0  # seconds: a worker that has not served that long has died at once
QUICK_DEATHS = 5  # in a row, while no other serves: given up
START_PATIENCE = 30.0  # seconds after which the next is started though one is not ready: it may wait for a person, or hang
LOOK = 0.25  # seconds between looks at the clock and for signals, while one is to be started
PAUSES = (0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before a replacement, by quick deaths in a row


class Worker:
    """The child's end: its PIN provider, and how it says that it is ready.  `number`: 0 for the first; `parent`: closed at the
    other end when it should drain; `memory`: for its slot manager; `replaces`: another was there before."""

    def __init__(
        self, number: int, parent: socket.socket, pins: PinProvider | None, memory: PinMemory | None, replaces: bool
    ) -> None:
        self.number, self.parent, self.memory, self.replaces = number, parent, memory, replaces
        self.pins: PinProvider | None = _ParentPins(parent) if pins is not None and pins.person else pins

    def ready(self) -> None:
        send(self.parent, {"ready": True})

    def pin_failed(self) -> None:
        """It ends because of a PIN, so that another like it would fail too."""
        send(self.parent, {"pin_failed": True})

    def wait(self) -> None:
        """Until it should drain."""
        while receive(self.parent) is not None:
            pass


class _ParentPins:
    """Asks the parent, which asks the person."""

    person, static = True, False

    def __init__(self, parent: socket.socket) -> None:
        self._parent = parent
        self._lock = threading.Lock()

    def __call__(self, request: PinRequest) -> str | None:
        with self._lock:
            send(self._parent, {"pin": asdict(request)})
            answer = receive(self._parent)
        return answer if isinstance(answer, str) else None


@dataclass(eq=False)
class _Place:
    """What one worker after the other fills."""

    number: int
    work: Callable[[Worker], int]
    child: Child | None = None
    up: bool = False
    pin_failed: bool = False
    begun: int = 0  # workers, so far
    started: float = 0.0
    served_since: float = 0.0
    quick_deaths: int = 0  # in a row
    due: float | None = 0.0  # when the next is to be started; None while there is one, and when none is to follow


class Supervisor:
    """Runs `work` in `count` children and answers their PIN requests with `pins`, which is called in a process of its own.

    `work(worker)` returns the child's exit code; it calls `worker.ready()` once it serves, and has handled its own errors.
    `memory`: what the workers learn of PINs.  `companion`: a process beside them, run as they are when they are all up; it is for
    what would need a thread in the parent.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[Worker], int],
        pins: PinProvider | None,
        memory: PinMemory | None = None,
        companion: Callable[[Worker], int] | None = None,
    ) -> None:
        self._pins, self._memory = pins, memory
        self._workers = [_Place(number, work) for number in range(count)]
        self._companions = [_Place(count, companion, due=None)] if companion is not None else []
        self._places = [*self._workers, *self._companions]
        self._person = Person(pins) if pins is not None else None
        self._all_were_up = self._pin_failed = self._draining = False
        self._code = 0

    def run(self, ready: Callable[[], None]) -> int:
        """Start the children, call `ready` when all are up the first time, wait for them.

        Returns the worst exit code of those that were not replaced; SIGTERM and SIGINT drain, a second one kills.
        """
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while self._children() or (not self._draining and self._next_due() is not None):
                self._start()
                self._hear()
                if not self._all_were_up and not self._draining and all(place.up for place in self._workers):
                    self._all_were_up = True
                    for place in self._companions:
                        place.due = monotonic()
                    ready()
            return self._code
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _children(self) -> dict[Child, _Place]:
        return {place.child: place for place in self._places if place.child is not None}

    def _next_due(self) -> float | None:
        return min((place.due for place in self._places if place.due is not None), default=None)

    # --- starting ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Fork the next child that is due, unless one is still starting; have the person asked who is to be asked."""
        now = monotonic()
        starting = any(place.child and not place.up and now < place.started + START_PATIENCE for place in self._places)
        due = [place for place in self._places if place.due is not None and place.due <= now]
        if due and not starting and not self._draining:
            self._fork(min(due, key=lambda place: (place.due, place.number)))
        if self._person is not None:
            to_come = any(place.due is not None or (place.child and not place.up) for place in self._workers)
            self._person.keep(to_come)
            if not self._draining:
                self._person.begin(self._channels(), unattended=self._all_were_up)
        if self._draining or not any(place.child or place.due is not None for place in self._workers):
            self._drain()  # draining perhaps only since a moment ago: signals come at any time

    def _fork(self, place: _Place) -> None:
        def live(channel: socket.socket) -> int:
            return place.work(Worker(place.number, channel, self._pins, self._memory, place.begun > 1))

        place.due, place.up, place.started, place.begun = None, False, monotonic(), place.begun + 1
        place.child = Child(live, self._channels())

    def _channels(self) -> list[socket.socket]:
        asker = self._person.asker if self._person is not None else None
        return [child.channel for child in (*self._children(), *((asker,) if asker else ()))]

    # --- hearing -----------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Wait for messages, an answer of the person's, or until a child is to be started."""
        children, due = self._children(), self._next_due()
        # Signals do not end a select (PEP 475).
        timeout = None if due is None or self._draining else LOOK if due <= monotonic() else min(LOOK, due - monotonic())
        with selectors.DefaultSelector() as selector:
            for child in children:
                selector.register(child, selectors.EVENT_READ)
            if self._person is not None and self._person.asker is not None:
                selector.register(self._person.asker, selectors.EVENT_READ)
            readable = [key.fileobj for key, _ in selector.select(timeout)]
        for child, place in children.items():
            if child in readable:
                self._message(place, child)
        if self._person is not None and self._person.asker in readable:
            self._person.answered()

    def _message(self, place: _Place, child: Child) -> None:
        message = child.receive()
        if not isinstance(message, dict):
            self._gone(place, child)
        elif "pin" in message and self._person is not None:
            self._person.ask(PinRequest(**message["pin"]), child)
        elif "pin_failed" in message:
            place.pin_failed = True
        else:
            place.up, place.served_since = True, monotonic()

    # --- ends --------------------------------------------------------------------------------------------------------

    def _gone(self, place: _Place, child: Child) -> None:
        if self._person is not None:
            self._person.forget(child)
        code = child.reap()
        place.child, was_up, place.up = None, place.up, False
        how = _how(child.pid, code)
        if self._draining:
            self._settle(code)
        elif not self._all_were_up and not was_up:
            if code < 0:
                log.error("%s while it started", how)
            self._settle(code or 1)
            self._drain()
        elif self._pin_failed or place.pin_failed:
            self._pin_failed = True
            self._settle(code)
            log.error("%s and is not replaced, because of a PIN; %d are left", how, len(self._children()))
            self._forget_replacements()
        else:
            self._replace(place, code, how, was_up)

    def _replace(self, place: _Place, code: int, how: str, was_up: bool) -> None:
        asked_to_end = code == 0 and was_up
        quick = not asked_to_end and (not was_up or monotonic() - place.served_since < QUICK)
        place.quick_deaths = place.quick_deaths + 1 if quick else 0
        if place.quick_deaths >= QUICK_DEATHS and not any(other.up for other in self._workers):
            log.error("%s, as %d did before it, and none serves: given up", how, place.quick_deaths - 1)
            self._settle(code or 1)
            self._drain()
            return
        pause = PAUSES[min(place.quick_deaths, len(PAUSES) - 1)]
        place.due = monotonic() + pause
        log.warning("%s; it is replaced%s", how, f" in {pause:g} s" if pause else "")

    def _forget_replacements(self) -> None:
        for place in self._places:
            place.due = None

    def _settle(self, code: int) -> None:
        """What an end that nothing mends adds to our own exit code."""
        self._code = max(self._code, code if code >= 0 else 1)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._draining:
            for child in self._children():
                os.kill(child.pid, signal.SIGKILL)
        self._drain()

    def _drain(self) -> None:
        self._draining = True
        if self._person is not None:
            self._person.leave()
        for child in self._children():
            child.drain()


def _how(pid: int, code: int) -> str:
    return f"worker {pid} was killed by {signal.Signals(-code).name}" if code < 0 else f"worker {pid} ended with status {code}"
