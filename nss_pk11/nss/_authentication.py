"""Logging in, through the application's password function, and passwords: the part of pk11pub.h that is about PINs."""

from __future__ import annotations

from .. import pins
from ..db.modules import SlotFlags
from ..errors import ConfigurationError, PinCancelled, PinError, PinIncorrect
from ..pins import PinProvider, PinRequest
from ._asking import MODES, LoginFunction, Values, asking
from ._state import PasswordFunction, state
from .prerror import sets_error
from .types import PK11SlotInfo


def PK11_SetPasswordFunc(func: PasswordFunction | None, *, person: bool = False) -> None:
    """Have `func(slot, retry, arg)` asked for every token's password; None takes it away (pk11pub.h).

    `retry`: the last answer was wrong; `arg`: the `wincx` of the function that needs the token, or SSL_SetPKCS11PinArg's.  It
    answers with the password, or with None to stop.  One for the process; before or after NSS_Init.

    Differs: say `person=True` where a human answers.  Otherwise a card that one more mistake would lock is not risked on its
    answer, and no password that a token refused is sent to it again.
    """
    state.password, state.person = func, person


def PK11_SetVerifyPasswordFunc(func: LoginFunction | None) -> None:
    """Have `func(slot, arg)` asked whether this client may use a token that is logged in already (pk11pub.h).

    For servers that share one token among clients of their own: see PK11_SetIsLoggedInFunc.  None takes it away.
    """
    asking.verify = func


def PK11_SetIsLoggedInFunc(func: LoginFunction | None) -> None:
    """Have `func(slot, arg)` say whether this client, the `wincx` of whoever asks, counts as logged in (pk11pub.h).

    Asked where there is a `wincx`; the token must be logged in besides.  None takes it away.
    """
    asking.logged_in = func


@sets_error
def PK11_SetSlotPWValues(slot: PK11SlotInfo, askpw: int, timeout: int) -> None:
    """When its password is asked for: -1 at every use of a key, 0 once, 1 after `timeout` idle minutes again (pk11pub.h).

    Kept in the module list too where NSS_InitReadWrite opened it.  Slots for which nothing was said follow the database's.
    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for another `askpw`, where C keeps it.  Differs: where -1 is said, uses of
    the token's keys come one after the other.
    """
    if askpw not in MODES or timeout < 0:
        raise ConfigurationError("askpw is -1, 0 or 1, and minutes are not negative")
    asking.set(slot.slot, Values(askpw, timeout))


@sets_error
def PK11_GetSlotPWValues(slot: PK11SlotInfo) -> Values:
    """When its password is asked for: the `askpw` and `timeout` of PK11_SetSlotPWValues, returned (pk11pub.h)."""
    return asking.values(slot.slot)


def provider(slot: PK11SlotInfo, wincx: object) -> PinProvider | None:
    """The password function, as the slot manager asks it about this slot."""
    inner = slot.slot
    if state.password is None:
        return None

    def ask(request: PinRequest, retry: bool, arg: object) -> str | None:
        function = state.password  # of that moment: the token may ask again, much later
        return function(PK11SlotInfo(inner), retry, arg) if function else None

    return pins.callback(ask, wincx, person=state.person)


def log_in(slot: PK11SlotInfo, wincx: object) -> None:
    """Raises NSPRError with NSS's numbers: SEC_ERROR_IO where no password was ever set, SEC_ERROR_BAD_PASSWORD where nobody gave
    one or it was wrong."""
    token = slot.token
    if "CKF_LOGIN_REQUIRED" not in token.flags or asking.is_logged_in(slot, wincx):
        return
    if asking.verify is not None and asking.is_logged_in(slot, None):  # only this client is not
        if not asking.verify(slot, wincx):
            raise PinIncorrect("the application does not let this client in", token=token.info.label)
        return
    if "CKF_USER_PIN_INITIALIZED" not in token.flags:
        raise PinError(f'token "{token.info.label}" has no password yet', name="SEC_ERROR_IO", token=token.info.label)
    asked = provider(slot, wincx)
    if asked is None:
        raise PinIncorrect("there is no password function: call PK11_SetPasswordFunc", token=token.info.label)
    try:
        token.login(asked)
    except PinCancelled as error:
        raise PinIncorrect(error.detail, token=token.info.label) from None
    asking.began(slot)


def log_in_unless_friendly(slot: PK11SlotInfo, wincx: object) -> None:
    """Where certificates show before login there is no need of one."""
    if not PK11_IsFriendly(slot):
        log_in(slot, wincx)


@sets_error
def PK11_Authenticate(slot: PK11SlotInfo, loadCerts: bool = True, wincx: object = None) -> None:
    """Log in to a token unless that is done or not needed (pk11pub.h).

    Raises NSPRError: SEC_ERROR_BAD_PASSWORD (wrong, or nobody gave one), SEC_ERROR_IO (it has none yet),
    SEC_ERROR_LOCKED_PASSWORD, SEC_ERROR_NO_TOKEN.  Differs: `loadCerts` means nothing, certificates are read when asked for.
    """
    log_in(slot, wincx)


@sets_error
def PK11_CheckUserPassword(slot: PK11SlotInfo, pw: str | None) -> None:
    """Log out, then log in by `pw`; None is the empty one (pk11pub.h).

    Raises NSPRError (SEC_ERROR_BAD_PASSWORD) where it is wrong, for which C returns SECWouldBlock, or where the token needs no
    login and `pw` is not empty.
    """
    token = slot.token
    if "CKF_LOGIN_REQUIRED" not in token.flags:
        if pw:
            raise PinIncorrect(f'token "{token.info.label}" has no password', token=token.info.label)
        return
    token.check_pin(pw or "")
    asking.began(slot)


@sets_error
def PK11_InitPin(slot: PK11SlotInfo, ssopw: str | None, userpw: str | None) -> None:
    """Give a token its first password, and log in (pk11pub.h).  `ssopw`: the security officer's, none for a database.

    Raises NSPRError: SEC_ERROR_BAD_PASSWORD (of the security officer, or there is a password already: PK11_ChangePW),
    SEC_ERROR_READ_ONLY.
    """
    slot.token.set_first_pin(ssopw or "", userpw or "")
    if "CKF_LOGIN_REQUIRED" in slot.token.flags:
        slot.token.check_pin(userpw or "")


@sets_error
def PK11_ChangePW(slot: PK11SlotInfo, oldpw: str | None, newpw: str | None) -> None:
    """Change a token's password (pk11pub.h).  None is the empty one.  A database's keys are encrypted anew, all or none.

    Raises NSPRError: SEC_ERROR_BAD_PASSWORD, SEC_ERROR_READ_ONLY, SEC_ERROR_INVALID_PASSWORD (the token will not have the new).
    """
    slot.token.change_pin(oldpw or "", newpw or "")


@sets_error
def PK11_NeedLogin(slot: PK11SlotInfo) -> bool:
    """Whether its token wants a login for private objects (pk11pub.h); False for a database with the empty password."""
    return "CKF_LOGIN_REQUIRED" in slot.token.flags


@sets_error
def PK11_NeedUserInit(slot: PK11SlotInfo) -> bool:
    """Whether no user password was ever set (pk11pub.h)."""
    return "CKF_USER_PIN_INITIALIZED" not in slot.token.flags


@sets_error
def PK11_IsLoggedIn(slot: PK11SlotInfo, wincx: object = None) -> bool:
    """Whether somebody is logged in, and by PK11_SetIsLoggedInFunc this client (pk11pub.h).  Logs out where nobody has asked for
    longer than PK11_SetSlotPWValues allows."""
    return asking.is_logged_in(slot, wincx)


@sets_error
def PK11_Logout(slot: PK11SlotInfo) -> None:
    """Log out; a database forgets its keys (pk11pub.h)."""
    slot.token.logout()


@sets_error
def PK11_LogoutAll() -> None:
    """Log out of every token of every module (pk11pub.h)."""
    for token in state.manager.tokens():
        token.logout()


@sets_error
def PK11_IsFriendly(slot: PK11SlotInfo) -> bool:
    """Whether certificates show before login (pk11pub.h): the internal module's do, and those of slots with PublicCerts."""
    if not slot.slot.module.path:
        return True
    return bool(state.slot_settings(slot.slot).flags & SlotFlags.public_certs)
