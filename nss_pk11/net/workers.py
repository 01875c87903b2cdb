"""Several processes that serve one listening socket.

A PKCS #11 library must not live through a fork (PKCS #11 v3.1 section 5.4: C_Initialize anew in the child), so the parent
never loads one: it forks, and each child loads its own.  Children start one after the other, since some libraries (SoftHSM)
stumble when processes initialise them at the same moment.

A person is asked for a PIN once, by the parent, on behalf of the first child; the others get the same answer, which is
forgotten when all are up.  A child that finds it wrong asks again and the person is asked again.  Other PIN sources are
read by each child for itself.

Each child holds one end of a socket pair.  When the parent closes the other end, or dies, the child drains.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..pins import PinRequest

if TYPE_CHECKING:
    from ..pins import PinProvider

log = logging.getLogger(__name__)

MESSAGE = 65536  # bytes, the most a message has


class Worker:
    """The child's end: its PIN provider, and how it says that it is ready.  `number`: 0 for the first; `parent`: closed at the
    other end when it should drain."""

    def __init__(self, number: int, parent: socket.socket, pins: PinProvider | None) -> None:
        self.number, self.parent = number, parent
        self.pins: PinProvider | None = _ParentPins(parent) if pins is not None and pins.person else pins

    def ready(self) -> None:
        self.parent.send(b'{"ready": true}')


class _ParentPins:
    """Asks the parent, which asks the person."""

    person, static = True, False

    def __init__(self, parent: socket.socket) -> None:
        self._parent = parent

    def __call__(self, request: PinRequest) -> str | None:
        with contextlib.suppress(OSError, ValueError):
            self._parent.send(json.dumps({"pin": asdict(request)}).encode())
            answer: str | None = json.loads(self._parent.recv(MESSAGE))
            return answer
        return None


class Supervisor:
    """Runs `work` in `count` children and answers their PIN requests with `pins`.

    `work(worker)` returns the child's exit code; it calls `worker.ready()` once it serves, and has handled its own errors.
    """

    def __init__(self, count: int, work: Callable[[Worker], int], pins: PinProvider | None) -> None:
        self._count, self._work, self._pins = count, work, pins
        self._pids: dict[socket.socket, int] = {}
        self._answers: dict[tuple[str, str, str], str] = {}
        self._starting = True
        self._draining = False
        self._code = 0

    def run(self, ready: Callable[[], None]) -> int:
        """Start the children, call `ready` when all are, wait for them.  Returns the worst exit code; SIGTERM and SIGINT
        drain, a second one kills."""
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for number in range(self._count):
                if not self._draining and not self._start(number):
                    self._drain()
            self._starting = False
            self._answers.clear()
            if not self._draining:
                ready()
            while self._pids:
                self._serve_children()
            return self._code
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, number: int) -> bool:
        """Fork a child and wait until it is ready; False if it is not going to be."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # which keeps messages apart
        pid = os.fork()
        if pid == 0:
            _child(self._work, Worker(number, theirs, self._pins), [ours, *self._pids])
        theirs.close()
        self._pids[ours] = pid
        while ours in self._pids:
            if self._serve_children():
                return True
        return False

    def _serve_children(self) -> bool:
        """Wait for one message of any child and answer it; True if it was that the child is ready."""
        with selectors.DefaultSelector() as selector:
            for channel in self._pids:
                selector.register(channel, selectors.EVENT_READ)
            channels: list[socket.socket] = [key.fileobj for key, _ in selector.select()]  # type: ignore[misc]
        said_ready = False
        for channel in channels:
            message = self._receive(channel)
            if message is None:
                self._gone(channel)
            elif "pin" in message:
                with contextlib.suppress(OSError):
                    channel.send(json.dumps(self._ask(PinRequest(**message["pin"]))).encode())
            else:
                said_ready = True
        return said_ready

    def _receive(self, channel: socket.socket) -> dict[str, Any] | None:
        """A message, or None at the end."""
        try:
            data = channel.recv(MESSAGE)
            return dict(json.loads(data)) if data else None
        except (OSError, ValueError):
            return None

    def _ask(self, request: PinRequest) -> str | None:
        token = (request.token, request.serial, request.module)
        if request.retry:
            self._answers.pop(token, None)
        pin = self._answers.get(token) or (self._pins(request) if self._pins is not None else None)
        if pin is not None and self._starting and not request.context_specific:
            self._answers[token] = pin
        return pin

    def _gone(self, channel: socket.socket) -> None:
        pid = self._pids.pop(channel)
        channel.close()
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._code = max(self._code, code if code >= 0 else 1)
        if not self._draining and code < 0:
            log.error("worker %d was killed by %s; %d are left", pid, signal.Signals(-code).name, len(self._pids))

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._draining:
            for pid in self._pids.values():
                os.kill(pid, signal.SIGKILL)
        self._drain()

    def _drain(self) -> None:
        self._draining = True
        for channel in self._pids:
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_WR)


def _child(work: Callable[[Worker], int], worker: Worker, others: list[socket.socket]) -> None:
    """Never returns: nothing of the parent's (its `finally`, its exit handlers) is the child's to run."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent passes it on
        for other in others:
            other.close()
        code = work(worker)
    finally:
        with contextlib.suppress(OSError, ValueError):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        os._exit(code)
