"""Sessions and login (PKCS #11 2.40 section 5.6), and the PINs that a session sets (5.5: C_InitPIN, C_SetPIN)."""

from __future__ import annotations

from collections.abc import Callable

from ..abi import CKF, CKR, CKS, CKU, SESSION_INFO, Refused
from ..host import Operation, Session
from ..machine import Pin, Token
from . import Call
from .pins import new_pin, pin_from
from .slots import token_in

# The operations whose key may want a PIN for each use.
_WITH_PRIVATE_KEY = ("sign", "decrypt", "sign_recover")


def C_OpenSession(call: Call, slot: int, flags: int, application: int, notify: int, handle: int) -> None:
    """A session; a login of the host with the token counts for it at once."""
    reader, token = token_in(call.machine, slot)
    if not flags & CKF.SERIAL_SESSION:
        raise Refused(CKR.SESSION_PARALLEL_NOT_SUPPORTED)
    if not handle:
        raise Refused(CKR.ARGUMENTS_BAD)
    read_write = bool(flags & CKF.RW_SESSION)
    with call.machine.lock:
        if token_in(call.machine, slot)[1] is not token:
            raise Refused(CKR.DEVICE_REMOVED)
        if not read_write and call.host.logins.get(token) == CKU.SO:
            raise Refused(CKR.SESSION_READ_WRITE_SO_EXISTS)
        most, sessions = token.personality.max_sessions, call.machine.sessions_with(token)
        if most and len(sessions) >= most:
            raise Refused(CKR.SESSION_COUNT)
        if token.personality.exclusive and any(other.host is not call.host for other in sessions):
            raise Refused(CKR.SESSION_COUNT)
        session = call.host.open_session(reader, token, read_write=read_write)
    call.memory.set_ulong(handle, session.handle)


def C_CloseSession(call: Call, session: int) -> None:
    """End a session; the last one of a host with a token logs it out."""
    call.host.close([call.session(session)])


def C_CloseAllSessions(call: Call, slot: int) -> None:
    """End all sessions of the host with the token in a slot."""
    _, token = token_in(call.machine, slot)
    call.host.close(call.host.sessions_with(token))


def C_GetSessionInfo(call: Call, session: int, info: int) -> None:
    """CK_SESSION_INFO."""
    found = call.session(session)
    flags = CKF.SERIAL_SESSION | CKF.RW_SESSION * found.read_write
    call.memory.write(info, SESSION_INFO.pack(found.reader.id, found.state, flags, 0))


# --- login -----------------------------------------------------------------------------------------------------------


def C_Login(call: Call, session: int, user: int, pin: int, pin_length: int) -> None:
    """Log the host in with the token of a session, as user or security officer; or let one operation use its key."""
    found = call.session(session)
    token = found.token
    log_in = _LOGINS.get(user)
    if log_in is None:
        raise Refused(CKR.USER_TYPE_INVALID)
    check, apply, whose = log_in
    check(found)  # before anybody is asked for a PIN
    given = _keypad_or_host(call, session, token, pin, pin_length)
    with token.lock, call.machine.lock:
        found = call.session(session)
        check(found)
        _verify(whose(token), given)
        apply(found)


def _keypad_or_host(call: Call, session: int, token: Token, pin: int, length: int) -> bytes:
    """A PIN; where the card was taken out while somebody typed, that is what is told."""
    try:
        return pin_from(call, token, pin, length)
    except Refused:
        call.session(session)
        raise


def _verify(pin: Pin, given: bytes) -> None:
    result = pin.verify(given)
    if result != CKR.OK:
        raise Refused(result)


def _user_pin(token: Token) -> Pin:
    return token.user_pin


def _officer_pin(token: Token) -> Pin:
    return token.so_pin


def _check_login(session: Session, user: CKU) -> None:
    if session.logged_in == user:
        raise Refused(CKR.USER_ALREADY_LOGGED_IN)
    if session.logged_in is not None:
        raise Refused(CKR.USER_ANOTHER_ALREADY_LOGGED_IN)


def _check_user(session: Session) -> None:
    _check_login(session, CKU.USER)
    if not session.token.user_pin.known:
        raise Refused(CKR.USER_PIN_NOT_INITIALIZED)


def _check_officer(session: Session) -> None:
    _check_login(session, CKU.SO)
    if not all(other.read_write for other in session.host.sessions_with(session.token)):
        raise Refused(CKR.SESSION_READ_ONLY_EXISTS)


def _check_operation(session: Session) -> None:
    if not _awaiting(session):
        raise Refused(CKR.OPERATION_NOT_INITIALIZED)
    if session.logged_in is None:
        raise Refused(CKR.USER_NOT_LOGGED_IN)


def _awaiting(session: Session) -> list[Operation]:
    """Operations of the session whose key wants the PIN once more (CKA_ALWAYS_AUTHENTICATE)."""
    begun = [session.operations.get(kind) for kind in _WITH_PRIVATE_KEY]
    return [operation for operation in begun if isinstance(operation, Operation) and operation.always_authenticate]


def _user_is_in(session: Session) -> None:
    session.host.logins[session.token] = CKU.USER


def _officer_is_in(session: Session) -> None:
    session.host.logins[session.token] = CKU.SO


def _operation_may_go_on(session: Session) -> None:
    for operation in _awaiting(session):
        operation.authenticated = True


# Kind of user -> (what has to be so, what is then so, whose PIN).
_LOGINS: dict[int, tuple[Callable[[Session], None], Callable[[Session], None], Callable[[Token], Pin]]] = {
    CKU.USER: (_check_user, _user_is_in, _user_pin),
    CKU.SO: (_check_officer, _officer_is_in, _officer_pin),
    CKU.CONTEXT_SPECIFIC: (_check_operation, _operation_may_go_on, _user_pin),
}


def C_Logout(call: Call, session: int) -> None:
    """Nobody is logged in any longer, in any session of the host with the token."""
    found = call.session(session)
    with call.machine.lock:
        if found.logged_in is None:
            raise Refused(CKR.USER_NOT_LOGGED_IN)
        call.host.logout(found.token)


# --- PINs ------------------------------------------------------------------------------------------------------------


def C_InitPIN(call: Call, session: int, pin: int, pin_length: int) -> None:
    """The security officer gives the user a PIN."""
    found = call.session(session)
    if found.state != CKS.RW_SO_FUNCTIONS:
        raise Refused(CKR.USER_NOT_LOGGED_IN)
    given = new_pin(found.token, _keypad_or_host(call, session, found.token, pin, pin_length))
    with found.token.lock:
        call.session(session)
        found.token.user_pin.set(given)


def C_SetPIN(call: Call, session: int, old: int, old_length: int, new: int, new_length: int) -> None:
    """Whoever is logged in changes their PIN; the user may do so without logging in."""
    found = call.session(session)
    token = found.token
    if not found.read_write:
        raise Refused(CKR.SESSION_READ_ONLY)
    pin = token.so_pin if found.state == CKS.RW_SO_FUNCTIONS else token.user_pin
    given = _keypad_or_host(call, session, token, old, old_length)
    wanted = new_pin(token, _keypad_or_host(call, session, token, new, new_length))
    with token.lock:
        call.session(session)
        _verify(pin, given)
        pin.set(wanted)
