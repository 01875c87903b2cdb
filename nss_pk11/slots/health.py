"""Whether a token may be asked: a circuit breaker, and a mark on those that signed wrongly.

Pure state; makes no PKCS #11 call and knows no token.  Who runs the operations tells it how they ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum
from threading import Lock

FIRST_PAUSE = 0.05  # seconds an open breaker waits before its first probe; doubled after each that fails
LONGEST_PAUSE = 1.0  # a handshake that waits for a token asks this often
SUSPECT_PAUSE = 60.0  # seconds that a token rests after a wrong signature


class BreakerState(IntEnum):
    """`closed`: in use.  `half_open`: one operation is trying whether the token is back.  `open`: not asked."""

    closed = 0
    half_open = 1
    open = 2


class Breaker:
    """A circuit breaker.  Thread-safe.

    A failure opens it; after a pause one operation, the probe, is let through; if that succeeds the breaker closes, else it stays
    open for twice as long.  `suspect`: the token has made a wrong signature, which is not forgotten as long as the process lives.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._open = self._probing = False
        self._pause = FIRST_PAUSE
        self.retry_at = 0.0  # by `clock`; when an open breaker lets a probe through
        self.suspect = False

    @property
    def state(self) -> BreakerState:
        if not self._open:
            return BreakerState.closed
        return BreakerState.half_open if self._probing else BreakerState.open

    @property
    def closed(self) -> bool:
        return not self._open

    @property
    def ripe(self) -> bool:
        """Whether `admits` would say yes."""
        return not self._open or (not self._probing and self._clock() >= self.retry_at)

    def admits(self) -> bool:
        """Whether an operation may start now.  True for an open breaker is leave for one probe: tell how it ended."""
        if not self._open:
            return True
        with self._lock:
            if self._probing or self._clock() < self.retry_at:
                return False
            self._probing = True
            return True

    def succeeded(self) -> bool:
        """An operation ended well.  True if that closed the breaker."""
        if not self._open:
            return False
        with self._lock:
            was_open, self._open = self._open, False
            self._probing, self._pause = False, FIRST_PAUSE
            return was_open

    def failed(self, pause: float = 0.0) -> bool:
        """One failed by the token's fault.  `pause`: seconds until the next probe, if more than usual.  True if that opened
        it.
        """
        with self._lock:
            was_open, self._open = self._open, True
            if was_open and not self._probing:
                return False  # it began while the breaker was closed; the pause runs already
            self._probing = False
            self.retry_at = self._clock() + max(pause, self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return not was_open

    def abandoned(self) -> None:
        """The operation was not run after all."""
        self._probing = False

    def after_fork(self) -> None:
        self._lock = Lock()
        self._probing = False
