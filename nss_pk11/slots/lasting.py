"""Sessions that outlive one operation: a cipher that runs as long as a connection, and keys that are to end with it.

The pool's sessions serve whoever comes; these belong to who opened them, and are closed when nobody refers to them any more.
That may be noticed anywhere, also by the garbage collector inside a call of the same library, so it is only noted there: the
next use of the token closes them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakSet

from . import faults
from .cryptoki import Library

if TYPE_CHECKING:
    from .model import TokenInfo
    from .native import Functions
    from .sessions import SessionPool


class LastingSession:
    """One session.  Raises TokenError (CKR_SESSION_HANDLE_INVALID) once the token's sessions were closed."""

    def __init__(self, sessions: LastingSessions, handle: int, generation: int) -> None:
        self._sessions, self._handle, self.generation = sessions, handle, generation

    def call(self, function: str, *arguments: object, mechanism: str = "", doing: str = "") -> None:
        """A C_ function, whose first argument is the session.  Raises TokenError for anything but CKR_OK."""
        sessions = self._sessions
        with sessions.library.gate:
            if self.generation != sessions.pool.generation:
                rv = faults.SESSION_HANDLE_INVALID
            else:
                rv = getattr(sessions.functions, function)(self._handle, *arguments)
        if rv:
            raise faults.fault(rv, function, sessions.token, mechanism=mechanism, doing=doing)

    def __del__(self) -> None:
        self._sessions.done.append((self._handle, self.generation))


class LastingSessions:
    """Those of one token.  Thread-safe."""

    def __init__(self, library: Library, token: TokenInfo, pool: SessionPool) -> None:
        self.library, self.token, self.pool = library, token, pool
        self.functions: Functions = library.functions
        self.done: deque[tuple[int, int]] = deque()  # handles and generations
        self._open: WeakSet[LastingSession] = WeakSet()

    def open(self, generation: int) -> LastingSession:
        """A session of the same `generation` as a handle that is to be used in it.  Raises TokenError."""
        self.sweep()
        handle = self.library.open_session(self.token)
        # If the owner of this generation is alive now, the slot has held its token all the time.
        if not (self.pool.owner_lives() and generation == self.pool.generation):
            self.library.close_session(handle)
            raise faults.fault(faults.SESSION_HANDLE_INVALID, "C_OpenSession", self.token)
        session = LastingSession(self, handle, generation)
        self._open.add(session)
        return session

    def sweep(self) -> None:
        """Close those that nobody refers to.  Of an older generation are none any more, or they are another process's."""
        while self.done:
            try:
                handle, generation = self.done.popleft()
            except IndexError:  # another thread has it
                return
            if generation == self.pool.generation:
                self.library.close_session(handle)

    def close(self) -> None:
        """Close all, before the pool goes on to another generation: what uses them fails from then on."""
        self.sweep()
        for session in list(self._open):
            self.library.close_session(session._handle)
        self._open = WeakSet()
