"""The client's session cache as NSS keeps it: a list, newest first, of any length, found by who was connected to.

Sessions are opaque but for what `Resumable` says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .caches import Resumable

SSL2_LIFETIME = 100.0  # seconds
SSL3_LIFETIME = 86400.0  # seconds: SSL 3.0 and later

_SSL2, _TLS1_3 = 0x0002, 0x0304

S = TypeVar("S", bound=Resumable)


@dataclass(frozen=True, slots=True, eq=False)
class _Entry(Generic[S]):
    peer: tuple[str, int, str | None, str]
    expires: float
    session: S


class NssClientCache(Generic[S]):
    """Sessions by the peer's address, port, peer ID and URL; thread-safe, unlimited, in memory alone (ssl.h).

    An SSL 2 session is good for 100 s, any other for 24 h, both no longer than the session itself says.  One that is too old goes
    when a look-up comes past it.  A TLS 1.3 session is handed out once (RFC 8446 appendix C.4), others as often as asked for.
    `clock`: seconds since 1970.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: list[_Entry[S]] = []  # newest last
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, address: str, port: int, peer_id: str | None, url: str) -> S | None:
        """The newest session with that peer, None where there is none.

        `address`: IP address as text, always of the same form; `peer_id`: what SSL_SetSockPeerID said, None for nothing; `url`:
        what SSL_SetURL said.
        """
        now, peer = self._clock(), (address, port, peer_id, url)
        with self._lock:
            self._entries = [entry for entry in self._entries if now <= entry.expires and entry.session.fresh(now)]
            found = next((entry for entry in reversed(self._entries) if entry.peer == peer), None)
            if found is None:
                return None
            if found.session.version >= _TLS1_3:
                self._drop(found.session)
            return found.session

    def put(self, address: str, port: int, peer_id: str | None, url: str, session: S) -> None:
        """Keep `session`, in front of all others.  A session put twice is kept once."""
        lifetime = SSL2_LIFETIME if session.version == _SSL2 else SSL3_LIFETIME
        entry = _Entry((address, port, peer_id, url), self._clock() + lifetime, session)
        with self._lock:
            self._drop(session)
            self._entries.append(entry)

    def invalidate(self, session: S) -> None:
        """Forget this session (SSL_InvalidateSession, or a fatal alert); one that is not there is no matter."""
        with self._lock:
            self._drop(session)

    def clear(self) -> None:
        """Forget all (SSL_ClearSessionCache)."""
        with self._lock:
            self._entries = []

    def _drop(self, session: S) -> None:
        self._entries = [entry for entry in self._entries if entry.session is not session]
