"""Who is inside a PKCS #11 library, so that it is neither finalised nor forked under a running call.

A fork copies the memory of all threads but only the thread that forks: a lock that another one held inside the library is held
in the child for ever (SoftHSM then hangs or crashes in C_Finalize).  So a fork shuts the gates of all libraries, waits a moment
until their calls have come back, and opens them in the parent.  Knows nothing of libraries.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType


class Gate:
    """Entered by each thread before it calls the library.  Thread-safe; a thread may enter again while it is inside.

    Two uncontended locks a call: a thousandth of a signature's time.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside: dict[int, int] = {}  # thread -> how many times it entered
        self._shut = 0  # forks that have shut it
        self._awaited = 0  # threads that wait until it is empty

    def enter(self) -> None:
        """Waits while the gate is shut, unless this thread is inside: what it has begun must come to an end."""
        thread = threading.get_ident()
        with self._lock:
            depth = self._inside.get(thread, 0)
            while self._shut and not depth:
                self._changed.wait()
            self._inside[thread] = depth + 1

    def leave(self) -> None:
        thread = threading.get_ident()
        with self._lock:
            depth = self._inside.pop(thread, 0) - 1
            if depth > 0:
                self._inside[thread] = depth
            elif self._awaited:
                self._changed.notify_all()

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave()

    def occupied(self) -> bool:
        """Whether a thread other than this one is inside."""
        return any(thread != threading.get_ident() for thread in list(self._inside))

    def wait_until_empty(self, deadline: float) -> bool:
        """Whether all other threads were out before `deadline` (time.monotonic)."""
        if not self._acquire(deadline):
            return False
        try:
            self._awaited += 1
            try:
                return self._changed.wait_for(lambda: not self.occupied(), deadline - time.monotonic())
            finally:
                self._awaited -= 1
        finally:
            self._lock.release()

    # --- forks -------------------------------------------------------------------------------------------------------

    def shut(self, deadline: float) -> bool:
        """Let no other thread in until `open`.  False, and nothing done, if that could not be had before `deadline`."""
        if not self._acquire(deadline):
            return False
        self._shut += 1
        self._lock.release()
        return True

    def open(self) -> None:
        with self._lock:
            self._shut -= 1
            self._changed.notify_all()

    def after_fork(self) -> bool:
        """In the child: begin anew; whether a thread of the parent was inside at the fork."""
        torn = self.occupied()
        self._reset()
        return torn

    def _acquire(self, deadline: float) -> bool:
        # Bounded: the fork may come from a signal handler that interrupted this very thread while it held the lock.
        return self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
