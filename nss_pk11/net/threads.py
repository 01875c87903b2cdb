"""Threads that may hang: a pool like `concurrent.futures.ThreadPoolExecutor`, but the process can end without them.

A call into a PKCS #11 module whose device is dead returns after a minute, or never; the standard pool is waited for at the end of
the process, come what may.  Knows nothing of tokens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue


class DaemonPool:
    """At most `size` daemon threads, started as they are needed, for work in the order in which it comes."""

    def __init__(self, size: int, name: str) -> None:
        self._size, self._name = size, name
        self._work: SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Raises RuntimeError where the process can have no more threads."""
        future: Future[None] = Future()
        with self._lock:
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._size:
                thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)
            self._work.put((future, work))
        return future

    def cancel_queued(self) -> None:
        """Cancel what has not begun, and let each thread end with what it does.  Nothing may be submitted any more."""
        while True:
            try:
                item = self._work.get_nowait()
            except Empty:
                break
            if item is not None:
                item[0].cancel()
        for _ in self._threads:
            self._work.put(None)

    def join(self, deadline: float) -> bool:
        """Whether all threads have ended before `deadline` (time.monotonic)."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while True:
            item = self._work.get()
            if item is None:
                return
            future, work = item
            if future.set_running_or_notify_cancel():
                try:
                    work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(None)
            del item, future, work  # nothing is kept alive by a thread that waits
            self._idle.release()
