"""A token in a slot of a PKCS #11 module: its keys and certificates, one login, one session pool.

Objects are searched through the owner session, by one thread at a time; signing does not come here (see `keys`).
"""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import asn1crypto.core
from cryptography import x509

from ..db.attributes import ObjectClass as DatabaseClass
from ..db.trust import STORED, Trust, from_stored
from ..errors import Ambiguous, ConfigurationError, NotFound, TokenError
from ..pins import value
from . import faults, native
from .cryptoki import (
    GENERATED,
    PUBLIC_KEY_INFO,
    Attribute,
    Attributes,
    CertificateType,
    Library,
    ObjectClass,
    ObjectSession,
    TokenDetails,
)
from .keys import WANTED, Place, TokenKey, same_pair
from .lasting import LastingSessions
from .login import LoginGuard, PinMemory
from .model import MechanismInfo, PrivateKey, PublicKey, Slot, Token, TokenCertificate, TokenInfo
from .pairing import PublicHalves
from .publickeys import default_id, from_attributes, spki
from .sessions import SessionPool
from .uri import object_uri

if TYPE_CHECKING:
    from ..pins import PinProvider

_PUBLIC_WANTED = (
    Attribute.KEY_TYPE,
    Attribute.LABEL,
    Attribute.ID,
    Attribute.MODULUS,
    Attribute.PUBLIC_EXPONENT,
    Attribute.PRIME,
    Attribute.SUBPRIME,
    Attribute.BASE,
    Attribute.EC_PARAMS,
    Attribute.EC_POINT,
    Attribute.PARAMETER_SET,
    Attribute.VALUE,
    PUBLIC_KEY_INFO,
)
_CERTIFICATE_WANTED = (Attribute.VALUE, Attribute.LABEL, Attribute.ID)
_FEW = 4
_X509 = {Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.CERTIFICATE_TYPE: CertificateType.X_509}

# One session has ended; others may be alive.
_SESSION_GONE = frozenset({faults.SESSION_HANDLE_INVALID, faults.SESSION_CLOSED})
# No session is good any more, nor, after a logout, any handle of a private object (PKCS #11 3.1 section 5.6.10).
_ALL_GONE = faults.LOST - _SESSION_GONE - {faults.KEY_HANDLE_INVALID, faults.OBJECT_HANDLE_INVALID}


class Home(Protocol):
    """The module, as its tokens need it."""

    def slots(self) -> list[Slot]: ...

    def recovered(self, token: PKCS11Token, rv: int) -> None: ...


class PKCS11Token(Token):
    """See `Token`.  `pins`: who is asked where the caller names nobody."""

    def __init__(
        self,
        module: Home,
        library: Library,
        info: TokenInfo,
        details: TokenDetails,
        pins: PinProvider | None,
        memory: PinMemory,
    ) -> None:
        self.info, self._module, self._pins = info, module, pins
        self._details = details
        self._library = library
        self.functions = library.functions
        self.pool = SessionPool(self._library, info, details.max_sessions, self._owner_lives)
        self.lasting = LastingSessions(library, info, self.pool)
        self._memory = memory
        self._guard = LoginGuard(info, lambda: self.flags, memory)
        self._owner: ObjectSession | None = None
        self._lock = threading.RLock()
        self._closed = False
        self._nested = 0  # object work within object work, of the thread that holds the lock
        self.count_lock, self.search_lock = threading.Lock(), threading.Lock()

    @property
    def flags(self) -> frozenset[str]:
        details = self._library.token_details(self.info.slot_id)
        if details is None or not self.is_described_by(details):
            raise faults.fault(faults.TOKEN_NOT_PRESENT, "C_GetTokenInfo", self.info)
        return details.flags

    def is_described_by(self, details: TokenDetails) -> bool:
        """Whether `details`, read now, are those of this very token."""
        info = self.info
        named = (details.label, details.serial, details.manufacturer, details.model)
        return named == (info.label, info.serial, info.manufacturer, info.model)

    def mechanisms(self) -> dict[str, MechanismInfo]:
        return dict(self._mechanisms)

    @cached_property
    def _mechanisms(self) -> dict[str, MechanismInfo]:
        return self._library.mechanisms(self.info.slot_id)

    def forget_mechanisms(self) -> None:
        """Ask the token for its mechanisms anew when somebody next wants to know them."""
        self.__dict__.pop("_mechanisms", None)

    # --- login -------------------------------------------------------------------------------------------------------

    @property
    def logged_in(self) -> bool:
        with self._lock:
            return self._owner is not None and bool(self._library.logged_in(self._owner.handle))

    def login(self, pins: PinProvider | None = None, *, since: float | None = None) -> None:
        """See `Token.login`, and `LoginGuard.login` for `since`."""
        if "CKF_LOGIN_REQUIRED" not in self.flags:
            return
        self._owner_handle()  # first: nobody is asked for a PIN in vain
        self._pins = self._pins or pins  # who logged in first is asked again when a later use finds nobody logged in
        self._guard.login(pins or self._pins, self._send_pin, lambda: self.logged_in, since)

    def _send_pin(self, pin: str | None) -> int:
        """C_Login, to the owner of this moment: while somebody typed, the card may have been out, or another thread found all
        lost and began anew.
        """
        rv = self._library.login(self._owner_handle(), native.CKU_USER, pin)
        if rv == faults.SESSION_HANDLE_INVALID:  # that happened just now; the PIN was not looked at
            rv = self._library.login(self._owner_handle(), native.CKU_USER, pin)
        return rv

    def logout(self) -> None:
        """Sessions end, so that no operation under way goes on in one that is logged in no more."""
        self.forget_sessions()

    def check_pin(self, pin: str) -> None:
        self.logout()
        self._owner_handle()
        self._guard.login(value(pin), self._send_pin, lambda: self.logged_in)

    def authenticate(self, session: int, pins: PinProvider | None, key: str) -> None:
        """The login for one use of a key, between C_…Init and the operation (PKCS #11 3.1 section 5.6.9)."""
        send = lambda pin: self._library.login(session, native.CKU_CONTEXT_SPECIFIC, pin)  # noqa: E731
        self._guard.authenticate(pins or self._pins, send, key)

    def _owner_handle(self) -> int:
        with self._lock:
            if self._closed:
                raise TokenError("its slot manager is closed", name="SEC_ERROR_NOT_INITIALIZED", token=self.info.label)
            if self._owner is not None and not self._owner_lives():
                self.forget_sessions()
            if self._owner is None:
                self._owner = self._open_owner()
                if self._details.max_sessions == 1:
                    self.pool.shared = self._owner.handle
            handle: int = self._owner.handle
            return handle

    def _open_owner(self) -> ObjectSession:
        session = self._library.open_object_session(self.info)
        try:
            # Asked with the session open, which dies with its token: were the slot's another, it would be to that that PINs go.
            self.flags  # noqa: B018  # raises
        except BaseException:
            self._library.close_session(session.handle)
            raise
        return session

    def _owner_lives(self) -> bool:
        owner = self._owner
        return owner is not None and self._library.logged_in(owner.handle) is not None

    @contextmanager
    def _objects(self) -> Iterator[ObjectSession]:
        """The owner session, for object work."""
        with self._lock:
            self._owner_handle()
            assert self._owner is not None
            # The only session of a token that allows no more may be signing just now.
            worker = self.pool.take() if self.pool.shared and not self._nested else None
            self._nested += 1
            try:
                yield self._owner
            finally:
                self._nested -= 1
                if worker:
                    self.pool.give_back(worker)

    @contextmanager
    def _writing(self) -> Iterator[ObjectSession]:
        """A read/write session of its own, closed afterwards; logged in as all are."""
        session = self._library.open_object_session(self.info, write=True)
        try:
            yield session
        finally:
            self._library.close_session(session.handle)

    # --- objects -----------------------------------------------------------------------------------------------------

    def find_keys(self, pins: PinProvider | None = None, label: str | None = None, id: bytes | None = None) -> list[TokenKey]:
        named = {Attribute.LABEL: label, Attribute.ID: id}
        template = {attribute: value for attribute, value in named.items() if value is not None}
        with self._objects():
            generation = self.pool.generation
            found = self._find({Attribute.CLASS: ObjectClass.PRIVATE_KEY, **template}, WANTED)
            halves = PublicHalves(self, many=len(found) > _FEW)
            return [
                TokenKey(Place(self, handle, generation), values, halves.of(values), pins or self._pins)
                for handle, values in found
            ]

    def public_keys(self, template: Attributes | None = None) -> list[tuple[Attributes, PublicKey]]:
        """The public key objects visible now that are of a known type and fit `template`."""
        found = self._find({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **(template or {})}, _PUBLIC_WANTED)
        keys = ((values, from_attributes(values)) for _, values in found)
        return [(values, key) for values, key in keys if key is not None]

    def public_names(self) -> list[tuple[str, bytes]]:
        found = self._find({Attribute.CLASS: ObjectClass.PUBLIC_KEY}, (Attribute.LABEL, Attribute.ID))
        return [(values.get(Attribute.LABEL) or "", values.get(Attribute.ID) or b"") for _, values in found]

    def certificates(self, template: Attributes | None = None) -> list[TokenCertificate]:
        found = self._find({**_X509, **(template or {})}, _CERTIFICATE_WANTED)
        return [self._certificate(values) for _, values in found if values.get(Attribute.VALUE)]

    def trust_records(self) -> dict[tuple[bytes, bytes], Trust]:
        """What a root module of NSS says of certificates, by issuer and serial number in DER; {} where nothing is said."""
        found = self._find({Attribute.CLASS: DatabaseClass.nss_trust}, (Attribute.ISSUER, Attribute.SERIAL_NUMBER, *STORED))
        records = {}
        for _, values in found:
            said: dict[int, int] = {name: int.from_bytes(values.get(name, b""), sys.byteorder) for name in STORED}
            records[values.get(Attribute.ISSUER, b""), values.get(Attribute.SERIAL_NUMBER, b"")] = from_stored(said, user=False)
        return records

    def _find(self, template: Attributes, wanted: tuple[int, ...]) -> list[tuple[int, Attributes]]:
        if "CKF_TOKEN_INITIALIZED" not in self._details.flags and not self.info.label:
            return []  # a blank token opens no session
        with self._objects() as session:
            try:
                return self._library.find_objects(session, template, wanted)
            except TokenError as error:
                if error.rv == faults.OPERATION_ACTIVE:  # a search before could not be ended, and bars the session for good
                    self.forget_sessions()
                raise

    def _certificate(self, values: Attributes) -> TokenCertificate:
        label, id = (values.get(Attribute.LABEL) or "").rstrip("\0"), values.get(Attribute.ID) or b""  # so libnssckbi ends them
        return TokenCertificate(values[Attribute.VALUE], label, id, object_uri(self.info, "cert", label, id), self.info)

    def whereabouts(self) -> PKCS11Token:
        """This token in the slot where it is now.  Raises TokenError (CKR_TOKEN_NOT_PRESENT) while it is in none."""
        details = self._library.token_details(self.info.slot_id)
        if details is not None and self.is_described_by(details):
            return self
        # Some modules look for tokens that came only when they are asked for the list of slots.
        for slot in self._module.slots():
            token = slot.token
            if isinstance(token, PKCS11Token) and token.info.identity == self.info.identity:
                return token
        raise faults.fault(faults.TOKEN_NOT_PRESENT, "C_GetTokenInfo", self.info)

    def recovered(self, rv: int) -> None:
        self._module.recovered(self, rv)

    def find_again(self, key: TokenKey) -> Place:
        """Where a key of this token is now: the one private key with its public key.  Raises NotFound."""
        wanted, generation, shown = spki(key.public_key), self.pool.generation, self.logged_in
        for candidate in self.find_keys(id=key.id or None):
            if candidate.has_public_key and spki(candidate.public_key) == wanted:
                return candidate.place
        shown = shown and self.logged_in and generation == self.pool.generation
        if "CKF_LOGIN_REQUIRED" in self._details.flags and not shown:
            raise faults.fault(faults.USER_NOT_LOGGED_IN, "C_FindObjects", self.info)  # lost again, and private keys hidden
        raise NotFound(f"{key.uri}: the key is no longer there", name="SEC_ERROR_NO_KEY", token=self.info.label)

    def lost(self, rv: int, generation: int) -> None:
        """An operation in a session of `generation` failed with `rv`: forget what can no longer be true."""
        with self._lock:
            if generation != self.pool.generation:
                return
            if rv == faults.CRYPTOKI_NOT_INITIALIZED:
                self._library.finalized_by_others()
            if rv in _SESSION_GONE and self._owner_lives():
                self.pool.close_idle()
            elif rv in _SESSION_GONE or rv in _ALL_GONE or (rv == faults.OPERATION_ACTIVE and self.pool.shared):
                self.forget_sessions()

    def forget_sessions(self) -> None:
        """Close every session, which logs out, and begin with new ones when next used."""
        with self._lock:
            owner, self._owner = self._owner, None
            self.pool.shared = None
            self.lasting.close()
            self.pool.discard()
            if owner is not None:
                self._library.close_session(owner.handle)

    # --- administration ----------------------------------------------------------------------------------------------

    def initialise(self, label: str, so_pin: str | None, pin: str | None) -> Token:
        self.forget_sessions()
        slot = self.info.slot_id
        self._library.init_token(slot, label, so_pin)
        details = self._library.token_details(slot)
        if details is None:
            raise faults.fault(faults.TOKEN_NOT_PRESENT, "C_GetTokenInfo", self.info)
        self._set_user_pin(so_pin, pin)
        # SoftHSM moves a new token to another slot: found again by what names it.
        for other in self._module.slots():
            token = other.token
            if token is not None and (token.info.label, token.info.serial) == (label, details.serial):
                return token
        raise NotFound(f'token "{label}" was initialised, but its module does not show it', token=label, module=self.info.module)

    def set_first_pin(self, so_pin: str, pin: str) -> None:
        self.forget_sessions()  # no read-only session may be open while the security officer is logged in
        self._set_user_pin(so_pin, pin)

    def _set_user_pin(self, so_pin: str | None, pin: str | None) -> None:
        handle = self._library.open_session(self.info, write=True)
        try:
            self._library.check(self._library.login(handle, native.CKU_SO, so_pin), "C_Login", self.info, doing="log in as SO")
            self._library.check(self._library.init_pin(handle, pin), "C_InitPIN", self.info, doing="set the user PIN")
        finally:
            self._library.logout(handle)
            self._library.close_session(handle)
        self._memory.forget(self.info)

    def change_pin(self, old: str, new: str) -> None:
        self.check_pin(old)  # by C_SetPIN a mistake would cost a try as well, and nothing would be remembered
        keypad = "CKF_PROTECTED_AUTHENTICATION_PATH" in self.flags
        with self._writing() as session:
            rv = self._library.set_pin(session.handle, *((None, None) if keypad else (old, new)))
        self._library.check(rv, "C_SetPIN", self.info, doing="change the PIN")
        self._memory.forget(self.info)

    def generate_key(self, kind: str, label: str, id: bytes = b"") -> PrivateKey:
        if kind not in GENERATED:
            raise ConfigurationError(f"a key is one of {', '.join(GENERATED)}, not {kind}")
        self.login()
        with self._writing() as session:
            public, private = self._library.generate_pair(session, kind, label, id or secrets.token_bytes(20), self.info)
            template = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label}
            shown = self._library.find_objects(session, template, _PUBLIC_WANTED)
            key = next((from_attributes(values) for handle, values in shown if handle == public.handle), None)
            if not id and key is not None and self._library.set_attribute(public, Attribute.ID, default_id(key)):
                self._library.set_attribute(private, Attribute.ID, default_id(key))
        for made in self.find_keys(label=label):
            if key is not None and made.has_public_key and spki(made.public_key) == spki(key):
                return made
        raise NotFound(f'key "{label}" was made, but the token does not show it', name="SEC_ERROR_NO_KEY", token=self.info.label)

    def import_certificate(self, der: bytes, label: str, id: bytes) -> TokenCertificate:
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError:
            raise ConfigurationError("not a certificate", name="SEC_ERROR_BAD_DER") from None
        template: Attributes = {
            **_X509,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: False,
            Attribute.LABEL: label,
            Attribute.ID: id,
            Attribute.VALUE: der,
            Attribute.SUBJECT: certificate.subject.public_bytes(),
            Attribute.ISSUER: certificate.issuer.public_bytes(),
            Attribute.SERIAL_NUMBER: asn1crypto.core.Integer(certificate.serial_number).dump(),
        }
        self.login()
        with self._writing() as session:
            self._library.create_object(session, template, self.info, f'import certificate "{label}"')
        return self._certificate(template)

    def delete(self, item: PrivateKey | TokenCertificate) -> None:
        self.login()
        if isinstance(item, TokenCertificate):
            self._destroy({**_X509, Attribute.VALUE: item.der})
            return
        # Objects of other keys may have the same label and id, so the pair is told by its public key.
        twins = [key for key in self.find_keys(label=item.label, id=item.id) if same_pair(key, item)]
        if len(twins) > 1:
            raise Ambiguous(f"{item.uri} names {len(twins)} keys that nothing tells apart", token=self.info.label)
        self._destroy({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: item.id}, {key.place.handle for key in twins})
        template = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: item.id}
        if twins[0].has_public_key:
            mine = spki(twins[0].public_key)
            shown = ((handle, from_attributes(values)) for handle, values in self._find(template, _PUBLIC_WANTED))
            halves = {handle for handle, key in shown if key is not None and spki(key) == mine}
            if halves:  # not every token has one
                self._destroy(template, halves)

    def _destroy(self, template: Attributes, handles: set[int] | None = None) -> None:
        """Those of `handles` (None: all) that fit `template`.  Raises NotFound where there is none."""
        with self._writing() as session:
            found = {handle for handle, _ in self._library.find_objects(session, template, (Attribute.ID,))}
            doomed = found if handles is None else found & handles
            if not doomed:
                raise NotFound("there is no such object on the token", name="SEC_ERROR_NO_KEY", token=self.info.label)
            self._library.destroy_objects(session, doomed, template, self.info)

    # --- end ---------------------------------------------------------------------------------------------------------

    def close(self) -> bool:
        """Close every session for good: its keys are dead.  False if one is still signing after some seconds."""
        self._closed = True
        drained = self.pool.close()
        self.forget_sessions()
        return drained

    def after_fork(self) -> None:
        """In the child: keep what was learned of failed PINs, forget sessions, login and handles."""
        self._lock = threading.RLock()
        self.count_lock, self.search_lock = threading.Lock(), threading.Lock()
        self._owner, self._nested = None, 0
        self.pool.after_fork()
        self._guard.after_fork()
