"""Session caches in memory, bounded and thread-safe: the server's by session id, the client's by where it connected to."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class ServerCache:
    """What the engine stores under a session id (RFC 5246 appendix F.1.4).  The least recently used goes first.

    `capacity`: entries; `lifetime`: seconds an entry is good; `clock`: seconds, any zero, never backwards.
    """

    def __init__(self, capacity: int = 10000, lifetime: int = 7200, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity, self._lifetime, self._clock = capacity, lifetime, clock
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, session_id: bytes) -> bytes | None:
        """The state under `session_id`, None where there is none or it is too old."""
        with self._lock:
            stored, state = self._entries.get(session_id, (0.0, None))
            if state is None:
                return None
            if self._clock() - stored >= self._lifetime:
                del self._entries[session_id]
                return None
            self._entries.move_to_end(session_id)
            return state

    def put(self, session_id: bytes, state: bytes) -> None:
        with self._lock:
            self._entries[session_id] = (self._clock(), state)
            self._entries.move_to_end(session_id)
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)

    def delete(self, session_id: bytes) -> None:
        """Forgets a session, as after a fatal alert; one that is not there is no matter."""
        with self._lock:
            self._entries.pop(session_id, None)


class Resumable(Protocol):
    """What a client's cache needs to know of a session; `tls.session.Session` fits."""

    @property
    def version(self) -> int: ...

    def fresh(self, now: float) -> bool: ...


S = TypeVar("S", bound=Resumable)

_TLS1_3 = 0x0304


class ClientCache(Generic[S]):
    """Sessions by a key that says where they belong: host, port, and whatever else must not be mixed.

    A TLS 1.3 session is handed out once, so that an observer cannot link two connections by it (RFC 8446 appendix C.4);
    several of them are kept per key, the newest used first.  Of an older version's sessions the last one is kept, and shared.
    `capacity`: keys, least recently used go first; `per_key`: TLS 1.3 sessions each; `clock`: seconds since 1970.
    """

    def __init__(self, capacity: int = 1000, per_key: int = 4, *, clock: Callable[[], float] = time.time) -> None:
        self._capacity, self._per_key, self._clock = capacity, per_key, clock
        self._entries: OrderedDict[Hashable, deque[S]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, key: Hashable) -> S | None:
        """A session to resume, None where there is none that is fresh."""
        with self._lock:
            sessions = self._entries.get(key, deque())
            now = self._clock()
            while sessions:
                session = sessions.pop()
                if not session.fresh(now):
                    continue
                if session.version < _TLS1_3:
                    sessions.append(session)
                self._settle(key, sessions)
                return session
            self._entries.pop(key, None)
            return None

    def put(self, key: Hashable, session: S) -> None:
        with self._lock:
            kept = (old for old in self._entries.get(key, ()) if old.version == session.version >= _TLS1_3)
            self._settle(key, deque([*kept, session], maxlen=self._per_key))
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Drops every session for `key`: the server refused one, or something was wrong with it."""
        with self._lock:
            self._entries.pop(key, None)

    def _settle(self, key: Hashable, sessions: deque[S]) -> None:
        if not sessions:
            self._entries.pop(key, None)
            return
        self._entries[key] = sessions
        self._entries.move_to_end(key)
