"""When a PIN is asked for, and when never again.

A card locks after three mistakes, so beyond what NSS does: a PIN that failed is never sent again to that token; a static source
gets one try, and answers for one token only; when one mistake is left, only a person may make it; threads that need the same
login ask once and share the answer.  No PIN is kept: what is remembered of a failed one is a keyed hash.
"""

from __future__ import annotations

import copy
import hashlib
import os
import threading
import weakref
from collections.abc import Callable

from ..errors import PinCancelled, PinError, PinIncorrect, PinLocked
from ..pins import PinProvider, PinRequest
from . import faults
from .model import TokenInfo

# Sends a PIN (None: typed at the token) and returns the CK_RV.
Send = Callable[[str | None], int]

_REFUSED = frozenset({faults.PIN_INCORRECT, faults.PIN_INVALID, faults.PIN_LEN_RANGE})
# The answer to C_Login was lost with the device: a wrong PIN may have cost a try all the same.
_UNKNOWN = frozenset({faults.DEVICE_ERROR, faults.DEVICE_REMOVED, faults.GENERAL_ERROR, faults.FUNCTION_FAILED})
_UNCHANGED_ANSWERS = 2  # a provider that gives a failed PIN this often in a row will not think of another


class PinMemory:
    """What a manager remembers of PINs, by token wherever it is plugged in.  No PIN is kept.

    Which token each static source has answered for, since the PIN of one is never tried on another; and keyed hashes of the PINs
    that a token took, and of those that it refused, since none of these is sent to it twice.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key = os.urandom(16)
        self._owners: weakref.WeakKeyDictionary[PinProvider, tuple[str, str, str]] = weakref.WeakKeyDictionary()
        self._refused: dict[tuple[str, str, str], set[bytes]] = {}
        self._taken: dict[tuple[str, str, str], set[bytes]] = {}

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

    def learn(self, token: TokenInfo, pin: str, key: str | None, rv: int) -> None:
        """What the token answered to `pin`; `key`: for one use of that key, which may have another PIN than the token.

        A PIN of which the answer is not known counts as refused, unless the token has taken it before.
        """
        fingerprint = self._fingerprint(pin, key)
        with self._lock:
            taken = self._taken.setdefault(token.identity, set())
            if rv == faults.OK:
                taken.add(fingerprint)
            elif rv in _REFUSED or (rv in _UNKNOWN and fingerprint not in taken):
                taken.discard(fingerprint)
                self._refused.setdefault(token.identity, set()).add(fingerprint)

    def was_refused(self, token: TokenInfo, pin: str, key: str | None) -> bool:
        return self._fingerprint(pin, key) in self._refused.get(token.identity, ())

    def forget(self, token: TokenInfo) -> None:
        """After its PIN was set anew."""
        with self._lock:
            self._refused.pop(token.identity, None)
            self._taken.pop(token.identity, None)

    def _fingerprint(self, pin: str, key: str | None) -> bytes:
        purpose = b"\0" if key is None else b"\1" + key.encode("utf-8")
        return hashlib.blake2b(pin.encode("utf-8") + purpose, key=self._key).digest()

    def after_fork(self) -> None:
        self._lock = threading.Lock()


class _Attempt:
    """A login under way, to be shared by all who want the same."""

    def __init__(self, pins: PinProvider) -> None:
        self.pins = pins
        self.thread = threading.get_ident()
        self.done = threading.Event()
        self.error: PinError | None = None


class LoginGuard:
    """The PIN rules of one token.  Thread-safe; the provider is called without a lock held, one call at a time."""

    def __init__(self, token: TokenInfo, flags: Callable[[], frozenset[str]], memory: PinMemory) -> None:
        self._token, self._flags, self._memory = token, flags, memory
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None

    def login(self, pins: PinProvider | None, send: Send, logged_in: Callable[[], bool]) -> None:
        """Log in, unless `logged_in()`.  Raises PinError and its kin, TokenError."""
        while True:
            with self._lock:
                if logged_in():
                    return
                running = self._attempt
                if running is None:
                    if pins is None:
                        raise self._error(PinError, "it wants a PIN, and no PIN source was given")
                    mine = self._attempt = _Attempt(pins)
                    break
            if running.thread == threading.get_ident():
                raise self._error(PinError, "its PIN source itself uses the token")
            running.done.wait()
            if running.error is not None and running.pins is pins:
                # What the one answered holds for all who asked the same source: nobody is asked twice.
                raise copy.copy(running.error)
        try:
            self._ask(pins, send, context_key=None)
        except PinError as error:
            mine.error = error
            raise
        finally:
            with self._lock:
                self._attempt = None
            mine.done.set()

    def authenticate(self, pins: PinProvider | None, send: Send, key: str) -> None:
        """The login for one use of a key (CKA_ALWAYS_AUTHENTICATE).  Raises as `login`."""
        if pins is None:
            raise self._error(PinError, f'key "{key}" wants a PIN for each use, and no PIN source was given')
        self._ask(pins, send, context_key=key)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._attempt = None

    # --- asking ------------------------------------------------------------------------------------------------------

    def _ask(self, pins: PinProvider, send: Send, context_key: str | None) -> None:
        self._memory.bind(pins, self._token)
        retry, unchanged = False, 0
        while True:
            request = self._request(pins, retry, context_key)
            pin = pins(request)
            if pin is None:
                raise self._error(PinCancelled, "nobody gave its PIN")
            if not request.protected and self._memory.was_refused(self._token, pin, context_key):
                unchanged += 1
                if pins.static or unchanged >= _UNCHANGED_ANSWERS:
                    raise self._error(PinIncorrect, "this PIN was refused before and is not sent again")
                retry = True
                continue
            rv = send(None if request.protected else pin)
            if not request.protected:
                self._memory.learn(self._token, pin, context_key, rv)
            if rv in (faults.OK, faults.USER_ALREADY_LOGGED_IN):
                return
            if rv not in _REFUSED:
                raise faults.fault(rv, "C_Login", self._token, doing="log in")
            if pins.static:
                raise faults.fault(rv, "C_Login", self._token, doing="log in")
            retry, unchanged = True, 0

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
