"""A host: one process that has loaded the module; and its sessions.

PKCS #11 calls it an application.  Sessions and logins belong to it: a login counts for all of its sessions with a token
(section 3.5), and for nobody else's.  Several threads of a host call at once: what is looked up and changed together is
under `Machine.lock`.  Knows tokens and readers, no socket and no memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .abi import CKR, CKS, CKU, Refused

if TYPE_CHECKING:
    from .machine import Machine, Reader, Token

# (logged in as, read-write) -> state (section 3.5).  A security officer has no read-only sessions.
_STATES = {
    (None, False): CKS.RO_PUBLIC_SESSION,
    (None, True): CKS.RW_PUBLIC_SESSION,
    (CKU.USER, False): CKS.RO_USER_FUNCTIONS,
    (CKU.USER, True): CKS.RW_USER_FUNCTIONS,
    (CKU.SO, True): CKS.RW_SO_FUNCTIONS,
}


class Operation:
    """What a session has begun with one of the C_...Init functions; each kind of operation is a class of its own.

    `always_authenticate`: its key wants a PIN for each use (CKA_ALWAYS_AUTHENTICATE), which C_Login with
    CKU_CONTEXT_SPECIFIC gives: then `authenticated` is true.
    """

    always_authenticate = False
    authenticated = False


class Session:
    """One session of a host with a token; `operations` has at most one of each kind ("sign", "find", ...)."""

    __slots__ = ("handle", "host", "operations", "read_write", "reader", "token")

    def __init__(self, handle: int, host: Host, reader: Reader, token: Token, *, read_write: bool) -> None:
        self.handle = handle
        self.host = host
        self.reader = reader
        self.token = token
        self.read_write = read_write
        self.operations: dict[str, object] = {}

    @property
    def logged_in(self) -> CKU | None:
        """Who is logged in; None: nobody."""
        return self.host.logins.get(self.token)

    @property
    def state(self) -> CKS:
        """The state that C_GetSessionInfo tells."""
        return _STATES.get((self.logged_in, self.read_write), CKS.RW_SO_FUNCTIONS)


class Host:
    """One process.  `initialised`: between C_Initialize and C_Finalize; `life` counts these, for whoever waits meanwhile."""

    def __init__(self, machine: Machine, pid: int) -> None:
        self.machine = machine
        self.pid = pid
        self.initialised = False
        self.life = 0
        self.sessions: dict[int, Session] = {}
        self.logins: dict[Token, CKU] = {}
        self.events: dict[int, None] = {}  # slots that changed and were not asked about, in that order
        self._removed: set[int] = set()  # sessions whose token was taken out, while the host has not been told

    def initialise(self) -> None:
        """C_Initialize; what slots did before does not concern it."""
        with self.machine.lock:
            self.initialised = True
            self.events.clear()

    def finalise(self) -> None:
        """C_Finalize, or the end of the process: sessions and logins are gone, and nobody waits for a slot any longer."""
        with self.machine.changed:
            self.end(list(self.sessions.values()))
            for token in list(self.logins):
                self.logout(token)
            self._removed.clear()
            self.initialised = False
            self.life += 1
            self.machine.changed.notify_all()

    def session(self, handle: int) -> Session:
        """The session with this handle.

        Raises Refused: CKR_DEVICE_REMOVED once for a session whose token was taken out, else CKR_SESSION_HANDLE_INVALID.
        """
        session = self.sessions.get(handle)
        if session is not None:
            return session
        with self.machine.lock:
            removed = handle in self._removed
            self._removed.discard(handle)
        raise Refused(CKR.DEVICE_REMOVED if removed else CKR.SESSION_HANDLE_INVALID)

    def open_session(self, reader: Reader, token: Token, *, read_write: bool) -> Session:
        """C_OpenSession, once it is clear that it may be opened."""
        with self.machine.lock:
            session = Session(self.machine.new_handle(), self, reader, token, read_write=read_write)
            self.sessions[session.handle] = session
        return session

    def sessions_with(self, token: Token) -> list[Session]:
        """Its sessions with a token."""
        with self.machine.lock:
            return [session for session in self.sessions.values() if session.token is token]

    def close(self, sessions: Iterable[Session]) -> None:
        """C_CloseSession and C_CloseAllSessions: with its last session with a token a host is logged out (section 5.6)."""
        with self.machine.lock:
            closed = self.end(sessions)
            for token in {session.token for session in closed}:
                if not self.sessions_with(token):
                    self.logout(token)

    def end(self, sessions: Iterable[Session]) -> list[Session]:
        """Drop sessions with their operations and session objects; those that were still there."""
        with self.machine.lock:
            ended = [session for session in sessions if self.sessions.pop(session.handle, None) is session]
        for session in ended:
            session.operations.clear()
            session.token.objects.close_session(session)
        return ended

    def logout(self, token: Token) -> None:
        """Nobody is logged in any longer; private session objects and operations go with the login (section 5.6, C_Logout)."""
        with self.machine.lock:
            if self.logins.pop(token, None) is None:
                return
            for session in self.sessions_with(token):
                session.operations.clear()
            token.objects.logout(self)

    def forget(self, token: Token, *, removed: bool = False) -> None:
        """Every session and login with the token dies; `removed`: its sessions say so once."""
        with self.machine.lock:
            ended = self.end(self.sessions_with(token))
            self.logout(token)
            if removed:
                self._removed.update(session.handle for session in ended)
