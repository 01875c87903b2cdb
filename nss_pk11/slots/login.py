"""When a PIN is asked for, and when never again.

A card locks after three mistakes, so beyond what NSS does: a PIN that failed is never sent again to that token; a static source
gets one try, and answers for one token only; when one mistake is left, only a person may make it; threads that need the same
login ask once and share the answer.  No PIN is kept: what is remembered of a failed one is a keyed hash.
"""

from __future__ import annotations

import copy
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial

from ..errors import NSPRError, PinCancelled, PinError, PinIncorrect, PinLocked
from ..pins import PinProvider, PinRequest
from . import faults
from .model import TokenInfo
from .verdicts import PinVerdicts, Verdict

# Sends a PIN (None: typed at the token) and returns the CK_RV.
Send = Callable[[str | None], int]

_REFUSED = frozenset({faults.PIN_INCORRECT, faults.PIN_INVALID, faults.PIN_LEN_RANGE})
# C_Login ended before the token looked at the PIN, or after it found it right (PKCS #11 3.1 section 5.1).  After any other
# failure the answer may be lost, with the device or otherwise: a wrong PIN may have cost a try all the same.
_NOT_WRONG = frozenset(
    faults.NUMBERS[name]
    for name in (
        "CKR_OK",
        "CKR_ARGUMENTS_BAD",
        "CKR_CRYPTOKI_NOT_INITIALIZED",
        "CKR_FUNCTION_CANCELED",
        "CKR_OPERATION_NOT_INITIALIZED",
        "CKR_PIN_EXPIRED",
        "CKR_SESSION_HANDLE_INVALID",
        "CKR_SLOT_ID_INVALID",
        "CKR_TOKEN_NOT_PRESENT",
        "CKR_TOKEN_NOT_RECOGNIZED",
        "CKR_USER_ALREADY_LOGGED_IN",
        "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
        "CKR_USER_PIN_NOT_INITIALIZED",
        "CKR_USER_TYPE_INVALID",
    )
)
_UNCHANGED_ANSWERS = 2  # a provider that gives a failed PIN this often in a row will not think of another


class PinMemory:
    """What managers remember of PINs, by token wherever it is plugged in.  No PIN is kept.

    Which token each static source has answered for, since the PIN of one is never tried on another; and keyed hashes of the PINs
    that a token took, and of those that it refused, since none of these is sent to it twice.  Forked processes share these.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: weakref.WeakKeyDictionary[PinProvider, tuple[str, str, str]] = weakref.WeakKeyDictionary()
        self._verdicts = PinVerdicts()

    def bind(self, pins: PinProvider, token: TokenInfo) -> None:
        """Raises PinError if `pins` is static and another token's."""
        if not pins.static:
            return
        with self._lock:
            try:
                owner = self._owners.setdefault(pins, token.identity)
            except TypeError:  # cannot be referred to weakly: nothing to remember it by
                return
        if owner != token.identity:
            raise PinError(
                f'the PIN source is that of token "{owner[2]}" and is not tried on token "{token.label}": name one for each',
                token=token.label,
                slot=token.slot,
                module=token.module,
            )

    def try_once(
        self, token: TokenInfo, pin: str, key: str | None, send: Callable[[str], int], admit: Callable[[], object]
    ) -> int | None:
        """What the token answers to `pin`; None, and nothing is sent, if it has refused it before.

        `key`: for one use of that key, which may have another PIN than the token.  `admit`: raises where a PIN of which nothing
        is known must not be tried, by the mistakes that others made meanwhile.  A PIN of which the answer is not known counts
        as refused, unless the token has taken it before.
        """
        verdicts, name = self._verdicts, token.identity
        # One after the other, also for a PIN that was good: it may have been changed, and is then to be found out once only.
        with verdicts.trying(name):
            before = verdicts.of(name, pin, key)
            if before is Verdict.REFUSED:
                return None
            if before is Verdict.UNTRIED:
                admit()
            rv = send(pin)
            if rv == faults.OK and before is not Verdict.TAKEN:
                verdicts.keep(name, pin, key, Verdict.TAKEN)
            elif rv in _REFUSED or (rv not in _NOT_WRONG and before is not Verdict.TAKEN):
                verdicts.keep(name, pin, key, Verdict.REFUSED)
            return rv

    def forget(self, token: TokenInfo) -> None:
        """After its PIN was set anew."""
        self._verdicts.forget(token.identity)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._verdicts.after_fork()


# Of all managers that are not given another: two of one process that open the same token must not make the same mistake.
SHARED_MEMORY = PinMemory()


class _Attempt:
    """A login under way, to be shared by all who want the same."""

    def __init__(self, pins: PinProvider) -> None:
        self.pins = pins
        self.thread = threading.get_ident()
        self.done = threading.Event()
        self.error: NSPRError | None = None
        self.ended = 0.0  # monotonic


class LoginGuard:
    """The PIN rules of one token.  Thread-safe; the provider is called without a lock held, one call at a time."""

    def __init__(self, token: TokenInfo, flags: Callable[[], frozenset[str]], memory: PinMemory) -> None:
        self._token, self._flags, self._memory = token, flags, memory
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
        self._failed: _Attempt | None = None  # the last one that did

    def login(self, pins: PinProvider | None, send: Send, logged_in: Callable[[], bool], since: float | None = None) -> None:
        """Log in, unless `logged_in()`.  Raises PinError and its kin, TokenError, or what the source raises.

        `since`: when that began for which the login is needed, monotonic.  What the same source answered later holds for it too.
        """
        while True:
            with self._lock:
                if logged_in():
                    return
                running = self._attempt or self._failed_since(since)
                if running is None or (running is self._failed and running.pins is not pins):
                    if pins is None:
                        raise self._error(PinError, "it wants a PIN, and no PIN source was given")
                    mine = self._attempt = _Attempt(pins)
                    break
            if not running.done.is_set() and running.thread == threading.get_ident():
                raise self._error(PinError, "its PIN source itself uses the token")
            running.done.wait()
            if running.error is not None and running.pins is pins:
                # What the one answered holds for all who asked the same source: nobody is asked twice.
                raise copy.copy(running.error)
        try:
            self._ask(pins, send, context_key=None)
        except NSPRError as error:
            mine.error = copy.copy(error)  # without the frames, in which the PIN is
            raise
        finally:
            with self._lock:
                self._attempt, mine.ended = None, time.monotonic()
                if mine.error is not None:
                    self._failed = mine
            mine.done.set()

    def _failed_since(self, since: float | None) -> _Attempt | None:
        failed = self._failed
        return failed if failed is not None and since is not None and failed.ended >= since else None

    def authenticate(self, pins: PinProvider | None, send: Send, key: str) -> None:
        """The login for one use of a key (CKA_ALWAYS_AUTHENTICATE).  Raises as `login`."""
        if pins is None:
            raise self._error(PinError, f'key "{key}" wants a PIN for each use, and no PIN source was given')
        self._ask(pins, send, context_key=key)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._attempt = self._failed = None

    # --- asking ------------------------------------------------------------------------------------------------------

    def _ask(self, pins: PinProvider, send: Send, context_key: str | None) -> None:
        self._memory.bind(pins, self._token)
        retry, unchanged = False, 0
        while True:
            request = self._request(pins, retry, context_key)
            pin = self._answer(pins, request)
            if request.protected:
                rv: int | None = send(None)
            else:
                admit = partial(self._request, pins, retry, context_key)
                rv = self._memory.try_once(self._token, pin, context_key, send, admit)
            if rv is None:
                unchanged += 1
                if pins.static or unchanged >= _UNCHANGED_ANSWERS:
                    raise self._error(PinIncorrect, "this PIN was refused before and is not sent again")
                retry = True
                continue
            if rv in (faults.OK, faults.USER_ALREADY_LOGGED_IN):
                return
            if rv not in _REFUSED:
                raise faults.fault(rv, "C_Login", self._token, doing="log in")
            if pins.static:
                raise faults.fault(rv, "C_Login", self._token, doing="log in")
            retry, unchanged = True, 0

    def _answer(self, pins: PinProvider, request: PinRequest) -> str:
        """What the provider says.  Raises PinCancelled, PinError for whatever goes wrong there; nothing of the PIN is shown."""
        try:
            pin = pins(request)
        except NSPRError:
            raise
        except Exception as error:
            raise self._error(PinError, f"its PIN source failed with {type(error).__name__}") from error
        if pin is None:
            raise self._error(PinCancelled, "nobody gave its PIN")
        try:
            pin.encode("utf-8")
        except UnicodeEncodeError:  # it would show the PIN
            raise self._error(PinError, "its PIN is not UTF-8 (PKCS #11 wants that)") from None
        return pin

    def _request(self, pins: PinProvider, retry: bool, context_key: str | None) -> PinRequest:
        """The question, by the token's flags of this moment.  Raises PinLocked, PinError where it must not be put."""
        flags = self._flags()
        if "CKF_USER_PIN_LOCKED" in flags:
            raise self._error(PinLocked, "it is locked after too many wrong PINs")
        if "CKF_USER_PIN_INITIALIZED" not in flags:
            raise self._error(PinError, "it has no user PIN yet")
        final_try = "CKF_USER_PIN_FINAL_TRY" in flags
        if final_try and not pins.person:
            raise self._error(PinError, "one more wrong PIN locks it: only a person may try")
        return PinRequest(
            token=self._token.label,
            serial=self._token.serial,
            slot=self._token.slot,
            module=self._token.module,
            retry=retry,
            final_try=final_try,
            count_low="CKF_USER_PIN_COUNT_LOW" in flags,
            protected="CKF_PROTECTED_AUTHENTICATION_PATH" in flags,
            context_specific=context_key is not None,
            key=context_key or "",
        )

    def _error(self, kind: type[PinError], detail: str) -> PinError:
        token = self._token
        return kind(f'token "{token.label}": {detail}', token=token.label, slot=token.slot, module=token.module)
