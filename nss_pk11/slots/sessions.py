"""The sessions of one token: one owner that is logged in and stays open, workers that sign, each used by one thread at a time.

Login counts for all sessions that an application has with a token (PKCS #11 3.1 section 5.6), so only the owner logs in and
workers are opened without a PIN.  The number of workers is bounded by the token's own limit; who finds none waits.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import TokenError
from . import faults
from .algorithms import LARGEST_SIGNATURE
from .cryptoki import Library

if TYPE_CHECKING:
    from .model import TokenInfo

DEFAULT_WORKERS = 16
WAIT = 10.0  # seconds that a thread waits for a worker
_FULL_FOR = 2.0  # seconds until a token that allowed no further session is asked for one again
_BUFFER = max(LARGEST_SIGNATURE, 2048)  # also RSA of 16384 bits


class Worker:
    """An open session with room for one result.  The addresses are taken once: it spares a signature their conversion."""

    __slots__ = ("buffer", "buffer_address", "generation", "handle", "length", "length_address")

    def __init__(self, handle: int, generation: int) -> None:
        self.handle, self.generation = handle, generation
        self.buffer = ctypes.create_string_buffer(_BUFFER)
        self.buffer_address = ctypes.addressof(self.buffer)
        self.length = ctypes.c_ulong()
        self.length_address = ctypes.addressof(self.length)

    def result(self) -> bytes:
        """What the last operation wrote."""
        return self.buffer[: self.length.value]  # type: ignore[return-value]  # a slice of c_char is bytes


class SessionPool:
    """Workers of one token.  Thread-safe.

    `limit`: sessions that the token allows in all, 0 for no limit; one of them is the owner.  A token that allows one only has
    a single worker, which must then be the owner's session: `shared` is its handle.  `owner_lives`: whether the owner's session
    is still good, asked after a new one was opened: in a slot whose token was swapped it would be one of another token.
    """

    def __init__(
        self, library: Library, token: TokenInfo, limit: int, owner_lives: Callable[[], bool], workers: int = DEFAULT_WORKERS
    ) -> None:
        self._library, self._token, self.owner_lives = library, token, owner_lives
        self.capacity = min(workers, limit - 1) if limit > 1 else 1 if limit == 1 else workers
        self._single = limit == 1
        self._closed = False
        self._reset()
        self.generation = 0

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._available = threading.Condition(self._lock)
        self._idle: list[Worker] = []
        self._open = 0  # workers idle or in use
        self._limit = self.capacity  # fewer once the token says that it allows no more
        self._look_again = 0.0  # monotonic
        self._in_use = 0  # of any generation
        self._waiting = 0
        self.shared: int | None = None

    @property
    def in_use(self) -> int:
        """Workers that threads hold now."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """Threads that wait for one."""
        return self._waiting

    @property
    def limit(self) -> int:
        """Workers at most: `capacity`, or fewer once the token has said that it allows no more."""
        return self._limit

    def take(self, wait: float = WAIT) -> Worker:
        """A worker, for this thread alone until `give_back` or `drop`, which takes the thread through the library's gate.

        Raises TokenError: SEC_ERROR_BUSY after `wait` seconds without one.
        """
        worker = self._take(wait)
        self._library.gate.enter()
        return worker

    def _take(self, wait: float) -> Worker:
        while True:
            with self._lock:
                if not self._idle and self._open >= self._limit:
                    if self._limit < self.capacity and time.monotonic() >= self._look_again:
                        self._limit += 1  # somebody may have closed one meanwhile
                    self._wait(time.monotonic() + wait)
                if self._closed:
                    raise self._error("its slot manager is closed", "SEC_ERROR_NOT_INITIALIZED")
                self._in_use += 1
                if self._idle:
                    return self._idle.pop()
                self._open += 1
                generation = self.generation
            worker = self._new_worker(generation)
            if worker is not None:
                return worker

    def _wait(self, deadline: float) -> None:
        """Until a worker is idle or another may be opened; the lock is held.  Raises TokenError at `deadline`."""
        self._waiting += 1
        try:
            while not self._idle and self._open >= self._limit:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._error(f"all {self._open} sessions were busy for too long", "SEC_ERROR_BUSY")
                self._available.wait(left)
        finally:
            self._waiting -= 1

    def _new_worker(self, generation: int) -> Worker | None:
        """None where the token allows no more than are open: other programs use it too."""
        try:
            return self._open_worker(generation)
        except BaseException as error:
            with self._available:
                if generation == self.generation:
                    self._open -= 1
                self._in_use -= 1
                self._available.notify()
                if isinstance(error, TokenError) and error.rv == faults.SESSION_COUNT and (self._open or self._in_use):
                    self._limit, self._look_again = self._open, time.monotonic() + _FULL_FOR
                    return None
            raise

    def _open_worker(self, generation: int) -> Worker:
        gone = faults.fault(faults.SESSION_HANDLE_INVALID, "C_OpenSession", self._token)
        handle = self.shared
        if handle is None:
            if self._single:
                raise gone  # who logs in again needs the only session there is
            handle = self._library.open_session(self._token)
        worker = Worker(handle, generation)
        # If the owner of this generation is alive now, the slot has held its token all the time.
        if self.owner_lives() and generation == self.generation:
            return worker
        self._close(worker)
        raise gone

    def give_back(self, worker: Worker) -> None:
        """After an operation that ended as it should."""
        self._library.gate.leave()
        with self._lock:
            if worker.generation == self.generation:
                self._in_use -= 1
                if self._waiting:
                    self._available.notify()
                self._idle.append(worker)
                return
        self._end(worker)

    def drop(self, worker: Worker) -> None:
        """After one that failed: an operation may still be active in the session, so nobody gets it again."""
        self._library.gate.leave()
        self._end(worker)

    def _end(self, worker: Worker) -> None:
        self._close(worker)  # first, as the token may have no room for another beside it
        with self._available:
            self._in_use -= 1
            if worker.generation == self.generation:
                self._open -= 1
            else:
                self._limit = self.capacity  # it may have been one from before `discard` for which there was no room
            self._available.notify_all()

    def close_idle(self) -> None:
        """One session has died and not the owner's: the token may have ended others that idle too."""
        with self._available:
            workers, self._idle = self._idle, []
            self._open -= len(workers)
            self._available.notify_all()
        for worker in workers:
            self._close(worker)

    def discard(self) -> None:
        """Close all; those in use when they come back.  The pool goes on with new ones."""
        with self._available:
            workers, self._idle = self._idle, []
            self._open, self._limit = 0, self.capacity
            self.generation += 1
            self._available.notify_all()
        for worker in workers:
            self._close(worker)

    def close(self, wait: float = WAIT) -> bool:
        """`discard` for good, and wait for the workers in use; whether all came back in `wait` seconds."""
        deadline = time.monotonic() + wait
        self._closed = True
        self.discard()
        with self._available:
            self._waiting += 1
            while self._in_use and self._available.wait(deadline - time.monotonic()):
                pass
            self._waiting -= 1
            return not self._in_use

    def after_fork(self) -> None:
        """In the child: the parent's sessions are the parent's."""
        generation = self.generation + 1
        self._reset()
        self.generation = generation

    def _error(self, detail: str, name: str) -> TokenError:
        token = self._token
        return TokenError(f'token "{token.label}": {detail}', name=name, slot=token.slot, module=token.module)

    def _close(self, worker: Worker) -> None:
        if not self._single:  # else it is the owner's
            self._library.close_session(worker.handle)
