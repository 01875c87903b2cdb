"""A private key on a token: named once, signed with often.

The hot path is `sign`: one C_SignInit and one C_Sign on a pooled session, nothing else.  The object's handle is kept; when it
has become worthless (token removed and back, process forked) the key is found again by its public key.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from ..errors import NotFound, TokenError
from . import faults, native
from .algorithms import Method, methods
from .cryptoki import MECHANISM_NUMBERS, PUBLIC_KEY_INFO, Attribute, Attributes, KeyType
from .model import Algorithm, MechanismInfo, PrivateKey, PublicKey, TokenCertificate, TokenInfo
from .publickeys import bits_of, kind_of, order_bits, spki
from .sessions import WAIT
from .uri import object_uri

if TYPE_CHECKING:
    import threading

    from ..pins import PinProvider
    from .lasting import LastingSessions
    from .sessions import SessionPool, Worker

# Read of every private key; none of them is secret.
WANTED = (
    Attribute.KEY_TYPE,
    Attribute.LABEL,
    Attribute.ID,
    Attribute.MODULUS,
    Attribute.PUBLIC_EXPONENT,
    Attribute.EC_PARAMS,
    Attribute.SIGN,
    Attribute.DECRYPT,
    Attribute.SENSITIVE,
    Attribute.EXTRACTABLE,
    Attribute.LOCAL,
    Attribute.ALWAYS_AUTHENTICATE,
    Attribute.ALLOWED_MECHANISMS,
    PUBLIC_KEY_INFO,
)

_GUESSED_LATENCY = {"rsa": 1e-3, "dsa": 5e-4, "ec": 1e-4, "ed25519": 1e-4, "ed448": 5e-4}  # seconds, in software
_WEIGHT = 0.1  # of the newest signature in the average
TRIES = 3  # of an operation whose sessions went while others recovered

# What C_Decrypt may answer for reasons that no ciphertext can bring about.  All else must look like any bad ciphertext: a
# device error too, as some devices answer bad padding with it (RFC 5246 section 7.4.7.1).
_NOT_THE_CIPHERTEXT = faults.LOST | {faults.HOST_MEMORY}

Result = TypeVar("Result")


class Home(Protocol):
    """The token, as its keys need it."""

    info: TokenInfo
    functions: native.Functions
    pool: SessionPool
    lasting: LastingSessions
    count_lock: threading.Lock
    search_lock: threading.Lock

    @property
    def flags(self) -> frozenset[str]: ...

    @property
    def logged_in(self) -> bool: ...

    def mechanisms(self) -> dict[str, MechanismInfo]: ...

    def certificates(self) -> list[TokenCertificate]: ...

    def login(self, pins: PinProvider | None = None, *, since: float | None = None) -> None: ...

    def authenticate(self, session: int, pins: PinProvider | None, key: str) -> None: ...

    def whereabouts(self) -> Home: ...

    def find_again(self, key: TokenKey) -> Place: ...

    def lost(self, rv: int, generation: int) -> None: ...

    def recovered(self, rv: int) -> None:
        """How it ended when what was lost was looked for."""


class Place(NamedTuple):
    """Where a key is: `handle` names its object as long as the sessions of `home` are of `generation`."""

    home: Home
    handle: int
    generation: int


class TokenKey:
    """A `PrivateKey` in a PKCS #11 token."""

    def __init__(
        self,
        place: Place,
        values: Attributes,
        public_key: PublicKey | None,
        pins: PinProvider | None,
    ) -> None:
        self.place, token = place, place.home
        self._public_key, self._pins = public_key, pins
        self.label: str = values.get(Attribute.LABEL) or ""
        self.id: bytes = values.get(Attribute.ID) or b""
        self.uri = object_uri(token.info, "private", self.label, self.id)
        self.kind = kind_of(public_key) if public_key else _kind_by_type(values.get(Attribute.KEY_TYPE))
        self.bits = bits_of(public_key) if public_key else 0
        self.sensitive = bool(values.get(Attribute.SENSITIVE, True))
        self.extractable = bool(values.get(Attribute.EXTRACTABLE, False))
        self.local = bool(values.get(Attribute.LOCAL, False))
        self.always_authenticate = bool(values.get(Attribute.ALWAYS_AUTHENTICATE, False))
        offered, allowed = token.mechanisms(), _mechanism_list(values.get(Attribute.ALLOWED_MECHANISMS))
        may_sign = bool(values.get(Attribute.SIGN, True))
        self._methods = methods(self.kind, order_bits(public_key), offered, allowed) if may_sign and public_key else {}
        self.algorithms = frozenset(self._methods)
        may_decrypt = self.kind == "rsa" and public_key is not None and bool(values.get(Attribute.DECRYPT, True))
        self._decryptions: dict[str, native.CK_MECHANISM] = {
            name: native.CK_MECHANISM(MECHANISM_NUMBERS[name])
            for name in ("CKM_RSA_PKCS", "CKM_RSA_X_509")
            if may_decrypt
            and name in offered
            and "CKF_DECRYPT" in offered[name].flags
            and (not allowed or MECHANISM_NUMBERS[name] in allowed)
        }
        self.can_decrypt, self.can_decrypt_raw = "CKM_RSA_PKCS" in self._decryptions, "CKM_RSA_X_509" in self._decryptions
        self.latency = _GUESSED_LATENCY.get(self.kind, 1e-3)
        self.operations = 0

    @property
    def public_key(self) -> PublicKey:
        if self._public_key is None:
            raise NotFound(
                f'the token shows neither public key nor certificate for key "{self.label}" (id {self.id.hex() or "none"})',
                name="SEC_ERROR_NO_KEY",
                token=self.token.label,
                slot=self.token.slot,
                module=self.token.module,
            )
        return self._public_key

    @property
    def has_public_key(self) -> bool:
        return self._public_key is not None

    @property
    def home(self) -> Home:
        """The token, in the slot where it was last seen."""
        return self.place.home

    @property
    def token(self) -> TokenInfo:
        return self.place.home.info

    @property
    def parallel(self) -> int:
        return self.home.pool.capacity

    def mechanism(self, algorithm: Algorithm) -> str:
        method = self._methods.get(algorithm)
        return method.mechanism if method else ""

    def sign(self, algorithm: Algorithm, message: bytes, *, prehashed: bool = False, patient: bool = True) -> bytes:
        """See `PrivateKey.sign`."""
        method = self._methods.get(algorithm)
        if method is None or not method.takes(prehashed):
            raise TokenError(
                f'key "{self.label}" cannot sign by {algorithm}' + (" what is hashed already" if method else ""),
                name="SEC_ERROR_INVALID_ALGORITHM",
                token=self.token.label,
                slot=self.token.slot,
                module=self.token.module,
            )
        data = method.prepare(message, prehashed)
        signature = self._operate(partial(self._sign_once, method, data), patient)
        return method.finish(signature) if method.finish else signature

    def operate(self, once: Callable[[Place, bool], Result], *, patient: bool = True) -> Result:
        """Do something else with the key (`fortezza`): `once` is given where it is, and is called once more where that no longer
        holds.  Raises TokenError."""
        started = time.perf_counter()
        result = self._operate(once, patient)
        self._count(time.perf_counter() - started)
        return result

    def _sign_once(self, method: Method, data: bytes, place: Place, patient: bool) -> bytes:
        session = self._session(place, patient)
        home, handle = place.home, session.handle
        functions, pool = home.functions, home.pool
        name, started = "C_SignInit", time.perf_counter()
        try:
            rv = functions.C_SignInit(handle, method.address, place.handle)
            if not rv:
                if self.always_authenticate:
                    home.authenticate(handle, self._pins, self.label)
                    started = time.perf_counter()  # a person's time is not the token's
                name = "C_Sign"
                session.length.value = method.size
                rv = functions.C_Sign(handle, data, len(data), session.buffer_address, session.length_address)
            if rv:
                raise self._fault(rv, name, method.mechanism, "sign")
        except BaseException:
            pool.drop(session)
            raise
        signature = session.result()
        pool.give_back(session)
        self._count(time.perf_counter() - started)
        return signature

    def decrypt(self, ciphertext: bytes, *, raw: bool = False, patient: bool = True) -> bytes | None:
        """See `PrivateKey.decrypt`."""
        mechanism = "CKM_RSA_X_509" if raw else "CKM_RSA_PKCS"
        if mechanism not in self._decryptions:
            raise TokenError(f'key "{self.label}" cannot decrypt', name="SEC_ERROR_INADEQUATE_KEY_USAGE", token=self.token.label)
        if len(ciphertext) != (self.bits + 7) // 8:
            return None
        return self._operate(partial(self._decrypt_once, mechanism, ciphertext), patient)

    def _decrypt_once(self, mechanism: str, ciphertext: bytes, place: Place, patient: bool) -> bytes | None:
        session = self._session(place, patient)
        home = place.home
        try:
            rv = home.functions.C_DecryptInit(session.handle, ctypes.addressof(self._decryptions[mechanism]), place.handle)
            if rv:
                raise self._fault(rv, "C_DecryptInit", mechanism, "decrypt")
            if self.always_authenticate:
                home.authenticate(session.handle, self._pins, self.label)
            session.length.value = len(ciphertext)
            rv = home.functions.C_Decrypt(
                session.handle, ciphertext, len(ciphertext), session.buffer_address, session.length_address
            )
            if rv in _NOT_THE_CIPHERTEXT:
                raise self._fault(rv, "C_Decrypt", mechanism, "decrypt")
        except BaseException:
            home.pool.drop(session)
            raise
        plaintext = session.result() if not rv else None
        # A failed C_Decrypt ends the operation (PKCS #11 3.1 section 5.11.3), so the session is as good as after a success:
        # dropping it here would tell the peer by the clock that its padding was wrong.
        home.pool.give_back(session)
        self._count()
        return plaintext

    def _operate(self, once: Callable[[Place, bool], Result], patient: bool) -> Result:
        """Run an operation where the key is.  If that no longer holds, or the device stumbled, once more from the start."""
        place, began = self.place, time.monotonic()
        try:
            return once(place, patient)
        except TokenError as error:
            if not patient or error.rv not in faults.RECOVERABLE:
                raise
            place.home.lost(error.rv, place.generation)
        try:
            result = self._operate_again(once, place, began)
        except TokenError as error:
            place.home.recovered(error.rv)
            raise
        place.home.recovered(faults.OK)
        return result

    def _operate_again(self, once: Callable[[Place, bool], Result], stale: Place, began: float) -> Result:
        """The second try; a few, where the pool had no session for it since another thread's recovery began after this one's."""
        for tries_left in reversed(range(TRIES)):
            self._find_again(stale, began)
            stale = self.place
            try:
                return once(stale, True)
            except TokenError as error:
                if not tries_left or (error.function, error.rv) != ("C_OpenSession", faults.SESSION_HANDLE_INVALID):
                    raise
                stale.home.lost(error.rv, stale.generation)
        raise AssertionError("the last try returns or raises")

    def _session(self, place: Place, patient: bool) -> Worker:
        """A session in which our handle means our key: both are of one generation."""
        pool = place.home.pool
        session = pool.take(WAIT if patient else 0.0)
        if session.generation != place.generation:
            pool.give_back(session)
            raise self._fault(faults.SESSION_HANDLE_INVALID, "C_OpenSession", "", "use")
        return session

    def _find_again(self, stale: Place, began: float) -> None:
        """Look for the token, log in to it, look for the key; several threads that want the same do it once.

        The login has its own rules for that, so that one wrong answer is the answer to all.
        """
        home = stale.home.whereabouts()
        home.login(self._pins, since=began)
        with home.search_lock:
            if self.place is stale:
                self.place = home.find_again(self)

    def _count(self, seconds: float | None = None) -> None:
        with self.home.count_lock:
            self.operations += 1
            if seconds is not None:
                self.latency += (seconds - self.latency) * (_WEIGHT if self.operations > 1 else 1)

    def _fault(self, rv: int, function: str, mechanism: str, doing: str) -> TokenError:
        return faults.fault(rv, function, self.home.info, mechanism=mechanism, doing=f'{doing} with key "{self.label}"')

    def __repr__(self) -> str:
        return f"<{self.kind} key {self.uri}>"


def same_pair(key: TokenKey, other: PrivateKey) -> bool:
    """Whether two are one: by their public halves; those that show none are not told apart."""
    if not key.has_public_key:
        return isinstance(other, TokenKey) and not other.has_public_key
    return (not isinstance(other, TokenKey) or other.has_public_key) and spki(key.public_key) == spki(other.public_key)


def _kind_by_type(key_type: object) -> str:
    return f"CKK_{key_type.name}" if isinstance(key_type, KeyType) else f"CKK_{key_type}"


def _mechanism_list(value: bytes | None) -> list[int]:
    """CKA_ALLOWED_MECHANISMS, an array of CK_ULONG."""
    size = ctypes.sizeof(ctypes.c_ulong)
    count = len(value or b"") // size
    return list((ctypes.c_ulong * count).from_buffer_copy(value)) if value and count else []
