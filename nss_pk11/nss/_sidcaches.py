"""The process's session caches as SSL sockets use them: one of clients, one of servers, and the key of tickets (ssl.h).

A client's sessions are found by the peer's address, its id and the URL; a server's by session id and the client's address.
While the client cache holds a session, NSS cannot be shut down.  The server cache, made by SSL_Config…SIDCache, goes on in
children by fork; a program that a child executes calls SSL_InheritMPServerSIDCache.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, NSPRError, Truncated
from ..sessions.nss_client import NssClientCache
from ..sessions.shared import SharedServerCache
from ..sessions.tickets import TicketKeys
from ..tls.codepoints import V
from ..tls.session import Session
from ._sslt import SSL_REQUEST_CERTIFICATE, SSL_REQUIRE_CERTIFICATE, SSL_REQUIRE_FIRST_HANDSHAKE, SSL_REQUIRE_NEVER
from ._state import Reference
from .prerror import sets_error

if TYPE_CHECKING:
    from ..sessions.shared_memory import Storage
    from ..tls.config import Tickets
    from ..tls.events import ConnectionInfo
    from ._clienttoken import ClientToken
    from ._connection import Connection
    from ._layers import PRNetAddr
    from ._settings import Settings

INHERITANCE = "SSL_INHERITANCE"  # the environment's variable
TICKET_LIFETIME = 2 * 24 * 3600  # seconds, as NSS has it

Peer = tuple[str, int, str, str]  # address, port, peer id, URL


# --- statistics ------------------------------------------------------------------------------------------------------


@dataclass
class SSL3Statistics:
    """How often sessions were found (ssl.h).  `sch`: before a ClientHello, `hsh`: by a ServerHello, `hch`: by a ClientHello."""

    sch_sid_cache_hits: int = 0
    sch_sid_cache_misses: int = 0
    sch_sid_cache_not_ok: int = 0
    hsh_sid_cache_hits: int = 0
    hsh_sid_cache_misses: int = 0
    hsh_sid_cache_not_ok: int = 0
    hch_sid_cache_hits: int = 0
    hch_sid_cache_misses: int = 0
    hch_sid_cache_not_ok: int = 0
    sch_sid_stateless_resumes: int = 0
    hsh_sid_stateless_resumes: int = 0
    hch_sid_stateless_resumes: int = 0
    hch_sid_ticket_parse_failures: int = 0


_statistics = SSL3Statistics()
_lock = threading.Lock()
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]


def _count(name: str) -> None:
    with _lock:
        setattr(_statistics, name, getattr(_statistics, name) + 1)


def SSL_GetStatistics() -> SSL3Statistics:
    """The counters of this process (ssl.h): the object itself, which goes on counting, as in C."""
    return _statistics


# --- clients ---------------------------------------------------------------------------------------------------------


class CachedSessions(Reference):
    """Stands for what the client cache holds, for NSS_Shutdown to find."""

    def __repr__(self) -> str:
        return "<sessions of clients: SSL_ClearSessionCache lets them go>"


@dataclass(frozen=True, slots=True, eq=False)
class CachedSession:
    """A session and, where the client has proved who it is, the token it did so by."""

    session: Session
    token: ClientToken | None = None

    @property
    def version(self) -> int:
        return self.session.version

    def fresh(self, now: float) -> bool:
        return self.session.fresh(now)


class _Clients:
    """The client cache."""

    def __init__(self) -> None:
        self.cache: NssClientCache[CachedSession] = NssClientCache()
        self._held: CachedSessions | None = None
        self._lock = threading.Lock()  # for both at once

    def put(self, peer: Peer, session: CachedSession) -> None:
        with self._lock:
            self.cache.put(*peer, session)
            if self._held is None:
                self._held = CachedSessions()

    def invalidate(self, session: CachedSession) -> None:
        with self._lock:
            self.cache.invalidate(session)
            if not len(self.cache):
                self._held = None

    def clear(self) -> None:
        with self._lock:
            self.cache.clear()
            self._held = None

    def after_fork(self) -> None:
        self._lock = threading.Lock()


_clients = _Clients()
os.register_at_fork(after_in_child=_clients.after_fork)


def SSL_ClearSessionCache() -> None:
    """Forget the sessions of clients (ssl.h): after policy or preferences changed, and before NSS_Shutdown."""
    _clients.clear()


# --- servers ---------------------------------------------------------------------------------------------------------


class _Servers:
    """The server cache and the key of tickets; both are None until configured."""

    def __init__(self) -> None:
        self.cache: SharedServerCache | None = None
        self.shared = False
        self.tickets: TicketKeys | None = None
        self.tickets_of_the_known: _TicketsOfTheKnown | None = None
        self.max_locks = 8 + 2

    def use(self, cache: SharedServerCache) -> None:
        self.cache = cache
        self.tickets = TicketKeys(TICKET_LIFETIME, TICKET_LIFETIME, secret=cache.secret)  # whoever shares the cache has it
        self.tickets_of_the_known = _TicketsOfTheKnown(self.tickets)

    def close(self) -> None:
        if self.cache is not None:
            self.cache.close()
        self.cache = self.tickets = self.tickets_of_the_known = None
        self.shared = False


class _TicketsOfTheKnown:
    """Opens no ticket of a client without a certificate."""

    def __init__(self, tickets: TicketKeys) -> None:
        self._tickets = tickets
        self.seal = tickets.seal

    @property
    def lifetime(self) -> int:
        return self._tickets.lifetime

    def unseal(self, ticket: bytes) -> bytes | None:
        state = self._tickets.unseal(ticket)
        return state if state is not None and _has_certificate(state) else None


_servers = _Servers()


def of_several_processes() -> bool:
    """Whether children by fork and by exec share the server cache."""
    return _servers.shared


def has_server_cache() -> bool:
    return _servers.cache is not None


def tickets_for(settings: Settings, first: bool) -> Tickets | None:
    """What seals and opens a server's tickets."""
    return _servers.tickets_of_the_known if _wants_certificates(settings, first) else _servers.tickets


def _wants_certificates(settings: Settings, first: bool) -> bool:
    """Whether a session without the client's certificate is not resumed (ssl3con.c of 3.10)."""
    required = settings.options[SSL_REQUIRE_CERTIFICATE]
    if not settings.on(SSL_REQUEST_CERTIFICATE) or required == SSL_REQUIRE_NEVER:
        return False
    return required != SSL_REQUIRE_FIRST_HANDSHAKE or first


def _has_certificate(state: bytes) -> bool:
    try:
        return bool(Session.decode(state).peer_chain)
    except (NSPRError, UnicodeDecodeError):
        return False


@sets_error
def SSL_ConfigServerSessionIDCache(
    maxCacheEntries: int = 0, timeout: int = 0, ssl3_timeout: int = 0, directory: str | None = None
) -> None:
    """Make the server cache of a program of one process (ssl.h).  A second call changes nothing.

    `maxCacheEntries`: 0 is 10,000; `timeout`, `ssl3_timeout`: seconds for SSL 2 and for later versions, 0 is 100 s and 24 h;
    `directory` is for the other kind.  Raises NSPRError where there is no room.
    """
    _configure(maxCacheEntries, timeout, ssl3_timeout, None, "private")


@sets_error
def SSL_ConfigMPServerSIDCache(
    maxCacheEntries: int = 0, timeout: int = 0, ssl3_timeout: int = 0, directory: str | None = None
) -> None:
    """Make the server cache of a program of several processes, in their common parent, and set SSL_INHERITANCE in the
    environment (ssl.h).  `directory`: where the file lies while it is made, None is /tmp.  Otherwise as
    SSL_ConfigServerSessionIDCache.

    Differs: the descriptor that children inherit stays open under its own number; where `subprocess` makes them, give it
    `pass_fds` or `close_fds=False`.
    """
    _configure(maxCacheEntries, timeout, ssl3_timeout, directory, "file")
    cache = _servers.cache
    assert cache is not None
    os.environ[INHERITANCE] = cache.inheritance()


def _configure(entries: int, timeout: int, ssl3_timeout: int, directory: str | None, storage: Storage) -> None:
    if entries < 0 or timeout < 0 or ssl3_timeout < 0:
        raise ConfigurationError("entries and seconds are not negative")
    if _servers.cache is None:
        _servers.use(SharedServerCache(entries, timeout, ssl3_timeout, directory, storage=storage))
        _servers.shared = storage == "file"


@sets_error
def SSL_InheritMPServerSIDCache(envString: str | None = None) -> None:
    """In a child: use the cache its parent made (ssl.h).  `envString`: the value of SSL_INHERITANCE, None for the environment's.

    After a fork alone the cache is there already, and this succeeds at once.  Raises NSPRError: SEC_ERROR_INVALID_ARGS where
    there is no such variable or it says nothing that can be, PR_BAD_DESCRIPTOR_ERROR where the descriptor was not inherited;
    in C there is no particular number.
    """
    if _servers.cache is not None:
        return
    inheritance = envString if envString is not None else os.environ.get(INHERITANCE)
    if not inheritance:
        raise ConfigurationError(f"{INHERITANCE} is not set: nothing was inherited")
    _servers.use(SharedServerCache.inherit(inheritance))
    _servers.shared = True


def SSL_ShutdownServerSessionIDCache() -> None:
    """Let the server cache go (ssl.h)."""
    _servers.close()
    os.environ.pop(INHERITANCE, None)


def SSL_GetMaxServerCacheLocks() -> int:
    """How many locks a server cache may have (ssl.h).  Differs: it has one per set, at most 8, and one for certificates."""
    return _servers.max_locks


@sets_error
def SSL_SetMaxServerCacheLocks(maxLocks: int) -> None:
    """Say how many locks it may have, at least 3 (ssl.h).  Raises NSPRError (SEC_ERROR_INVALID_ARGS)."""
    if maxLocks < 3:
        raise ConfigurationError("a server cache has at least three locks")
    _servers.max_locks = maxLocks


# --- one connection --------------------------------------------------------------------------------------------------


class SessionInUse:
    """The session of one connection: where it comes from, where it goes."""

    def __init__(self, layer: Connection) -> None:
        self._layer: Connection = weakref.proxy(layer)  # whose own this is: no cycle, so nothing waits for the collector
        self._offered: CachedSession | None = None
        self._current: CachedSession | None = None
        self._peer: Peer | None = None
        self._given: list[CachedSession] = []  # and cached: in TLS 1.3 several
        self._invalid = False
        self._address_of_peer: PRNetAddr | None = None
        self.session_id = self._found_id = b""
        self._begun = 0

    @property
    def times(self) -> tuple[int, int, int]:
        """When the session was made, when last used, until when it is good; seconds since 1970."""
        if self._current is None:
            return self._begun, self._begun, 0
        session = self._current.session
        return int(session.created), self._begun, int(session.created + session.lifetime)

    @property
    def _address(self) -> PRNetAddr | None:
        """The peer's; None for one that had reset the connection when it was first asked for.  What it sent before is still good,
        but nobody comes back for such a session."""
        if self._address_of_peer is None:
            with suppress(NSPRError):
                self._address_of_peer = self._layer.lower.name(peer=True)
        return self._address_of_peer

    # --- client ---

    def _peer_of_now(self) -> Peer | None:
        """Where sessions are found; None where there are none to be."""
        settings = self._layer.settings
        if not settings.url or settings.no_cache:
            return None
        address = self._address
        return (address.ip, address.port, settings.peer_id or "", settings.url) if address is not None else None

    def look_up(self) -> Session | None:
        """One to offer.  What the handshake gives is found by the settings of now, by which the server is judged."""
        peer = self._peer = self._peer_of_now()
        found = _clients.cache.lookup(*peer) if peer is not None else None
        if found is not None and found.token is not None and not found.token.ready():
            _clients.invalidate(found)
            _count("sch_sid_cache_not_ok")
            return None
        self._offered = found
        if found is None:
            _count("sch_sid_cache_misses")
            return None
        _count("sch_sid_cache_hits")
        if found.session.ticket:
            _count("sch_sid_stateless_resumes")
        return found.session

    def put(self, session: Session) -> None:
        """The server has given one."""
        offered = self._offered
        again = offered is not None and offered.session.secret == session.secret  # resumed, with a new ticket
        current = self._current = CachedSession(session, offered.token if again and offered else self._layer.client_token)
        self.session_id = session.session_id
        peer = self._peer
        if peer is None or self._invalid or self._layer.settings.no_cache:
            return
        if session.version != V.tls1_3:
            self._given.clear()
        self._given.append(current)
        _clients.put(peer, current)

    def offered_again(self) -> Session | None:
        """For another handshake of this connection."""
        self._peer = self._peer_of_now()
        self._offered = self._current or self._offered
        return self._offered.session if self._offered is not None else None

    # --- server ---

    def look_up_id(self, session_id: bytes) -> bytes | None:
        cache, address = _servers.cache, self._address
        state = cache.get(session_id, address.ip) if cache is not None and address is not None else None
        if state is None:
            return None
        if _wants_certificates(self._layer.settings, not self._layer.first_done) and not _has_certificate(state):
            _count("hch_sid_cache_not_ok")
            return None
        self._found_id = session_id
        return state

    def store(self, session_id: bytes, state: bytes) -> None:
        self.session_id = session_id
        cache, address, engine = _servers.cache, self._address, self._layer.engine
        if cache is not None and address is not None and engine is not None:
            cache.put(session_id, state, address.ip, ssl2=engine.info.version == V.ssl2)

    def forget(self, session_id: bytes) -> None:
        cache, address = _servers.cache, self._address
        if cache is not None and address is not None:
            cache.delete(session_id, address.ip)

    # --- both ---

    def failed(self) -> None:
        """The connection has failed: its session is not offered again (RFC 5246 section 7.2.2).  One that was complete and was
        cut off without an alert may be.  A server's engine says itself what is to be forgotten."""
        engine = self._layer.engine
        cut_off = engine is not None and isinstance(engine.error, Truncated)
        if not self._layer.is_server and not (cut_off and self._layer.first_done):
            self._drop()

    def completed(self, info: ConnectionInfo) -> None:
        self._begun = int(time.time())
        if self._layer.is_server:
            _count("hch_sid_cache_hits" if info.resumed else "hch_sid_cache_misses")
            if info.resumed:
                self.session_id, self._found_id = self._found_id, b""
                if not self.session_id:
                    _count("hch_sid_stateless_resumes")
            return
        if not info.resumed:
            if info.identity is None:
                self._layer.client_token = None
            if info.version != V.tls1_3:  # there NSS counts none
                _count("hsh_sid_cache_misses")
            return
        _count("hsh_sid_cache_hits")
        if self._offered is not None:
            self._current = self._offered
            self._layer.client_token = self._offered.token
            self.session_id = self._offered.session.session_id
            if self._offered.session.ticket:
                _count("hsh_sid_stateless_resumes")

    def invalidate(self) -> None:
        """Have it resumed no more, nor by tickets of it that are still to come."""
        if self._layer.is_server:
            self.forget(self.session_id)
            return
        info = self._layer.info
        self._invalid = info is not None and info.version == V.tls1_3
        self._drop()

    def _drop(self) -> None:
        for session in (*self._given, self._offered):
            if session is not None:
                _clients.invalidate(session)
        self._given.clear()
