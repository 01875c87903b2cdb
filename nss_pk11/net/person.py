"""A person who is asked for PINs on behalf of several processes.

Asked in a process of its own, so that a question that nobody answers keeps nobody waiting but those who need the answer.  One
question at a time; whoever asks the same while it is open gets the same answer: what a token refuses is not sent to it twice
(`slots.login`).  Answers are kept only while others are known to come who need them.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING

from ..errors import NSPRError
from ..pins import PinRequest
from .children import Child, send

if TYPE_CHECKING:
    from ..pins import PinProvider

log = logging.getLogger(__name__)

Token = tuple[str, str, str]


class Person:
    """`pins`: called in a child of this process."""

    def __init__(self, pins: PinProvider) -> None:
        self._pins = pins
        self._questions: list[tuple[PinRequest, list[Child]]] = []  # the first is being put
        self._answers: dict[Token, str] = {}
        self._asker: Child | None = None
        self._keep = True

    @property
    def asker(self) -> Child | None:
        """The process that asks now.  Call `answered` when it can be read from."""
        return self._asker

    def ask(self, request: PinRequest, who: Child) -> None:
        """Send `who` the answer, now or when there is one."""
        token = _token(request)
        if request.retry:
            self._answers.pop(token, None)
        if not request.context_specific and token in self._answers:
            who.send(self._answers[token])
            return
        for open_request, waiting in self._questions:
            if open_request == request and not request.context_specific:
                waiting.append(who)
                return
        self._questions.append((request, [who]))

    def begin(self, others: Iterable[socket.socket], unattended: bool) -> None:
        """Put the next question, if there is one and none is open.

        `others`: channels that its process must not inherit.  `unattended`: the person may have put us into the background.
        """
        if self._asker is None and self._questions:
            request = self._questions[0][0]
            self._asker = Child(lambda channel: self._put(request, unattended, channel), others)

    def answered(self) -> None:
        """The process that asks has said something, or has ended without an answer: nobody gave one."""
        assert self._asker is not None
        answer = self._asker.receive()
        self._asker.reap()
        self._asker = None
        request, waiting = self._questions.pop(0)
        pin = answer if isinstance(answer, str) else None
        if pin is not None and self._keep and not request.context_specific:
            self._answers[_token(request)] = pin
        for who in waiting:
            who.send(pin)

    def keep(self, keep: bool) -> None:
        """Whether others are still to come who need the same answers; if not, forget them."""
        self._keep = keep
        if not keep:
            self._answers.clear()

    def forget(self, who: Child) -> None:
        """It has ended, and waits for no answer."""
        for _, waiting in self._questions:
            with contextlib.suppress(ValueError):
                waiting.remove(who)

    def leave(self) -> None:
        """No more questions: what is open remains without an answer."""
        if self._asker is not None:
            self._asker.drain()

    def _put(self, request: PinRequest, unattended: bool, channel: socket.socket) -> int:
        """The child's life."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGIO):
            signal.signal(number, _end)  # as an exception, so that a terminal gets its echo back
        # SIGIO when the parent goes, or has no use for the answer any more.
        fcntl.fcntl(channel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(channel, fcntl.F_SETFL, fcntl.fcntl(channel, fcntl.F_GETFL) | os.O_ASYNC)
        if unattended:
            # Reading from the terminal would stop all of a server in the background; so it fails.
            signal.signal(signal.SIGTTIN, signal.SIG_IGN)
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            pin = self._pins(request)
        except (NSPRError, OSError) as error:
            log.error("%s", error)
            return 1
        send(channel, pin)
        return 0


def _token(request: PinRequest) -> Token:
    return request.token, request.serial, request.module


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
