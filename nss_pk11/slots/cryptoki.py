"""One PKCS #11 library through python-pkcs11: the only file that imports it, and the home of every way round its defects.

python-pkcs11 (0.10) finds, reads, makes and destroys objects and knows the names of the standard.  Where it falls short, the
comment beside the code begins with "Defect:", so that the way round can go when upstream mends it.

One library is initialised once per process, whoever asks (PKCS #11 3.1 section 5.4), and never unloaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import pkcs11
from cryptography.hazmat.primitives.asymmetric import dsa
from pkcs11._pkcs11 import lib
from pkcs11.attributes import AttributeMapper, Handler
from pkcs11.constants import Attribute, CertificateType, MechanismFlag, ObjectClass, SlotFlag, TokenFlag
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import KeyType, Mechanism

from ..errors import TokenError
from . import faults, mutexes, native
from .gate import Gate
from .model import MechanismInfo, TokenInfo

__all__ = [
    "GENERATED",
    "MECHANISM_NUMBERS",
    "PUBLIC_KEY_INFO",
    "Attribute",
    "Attributes",
    "CertificateType",
    "KeyType",
    "Library",
    "ObjectClass",
    "ObjectSession",
    "SlotDetails",
    "TokenDetails",
    "mechanism_name",
]

Attributes = dict[Any, Any]  # by Attribute, or by number where python-pkcs11 has no name for it
ObjectSession = Any  # pkcs11.Session; its type stubs lack `handle`

# CKA_PUBLIC_KEY_INFO (PKCS #11 2.40 section 4.9) and mechanisms that python-pkcs11 does not name.
PUBLIC_KEY_INFO = 0x129
_UNNAMED_MECHANISMS = {0x4021: "CKM_CHACHA20_POLY1305", 0x4022: "CKM_POLY1305_KEY_GEN", 0x1226: "CKM_CHACHA20"}
# Defect: obsolete mechanisms (KEA, Skipjack) have an underscore before their name.
_MECHANISM_NAMES = _UNNAMED_MECHANISMS | {int(m): f"CKM_{m.name.lstrip('_')}" for m in Mechanism}
MECHANISM_NUMBERS = {name: number for number, name in _MECHANISM_NAMES.items()}

# What `generate_pair` makes: type, bits of modulus or prime or 0, DER of the curve's OID, uses.
_SIGN = MechanismFlag.SIGN | MechanismFlag.VERIFY
_SIGN_DECRYPT = _SIGN | MechanismFlag.DECRYPT | MechanismFlag.ENCRYPT
GENERATED: dict[str, tuple[KeyType, int, bytes, MechanismFlag]] = {
    "rsa2048": (KeyType.RSA, 2048, b"", _SIGN_DECRYPT),
    "rsa3072": (KeyType.RSA, 3072, b"", _SIGN_DECRYPT),
    "rsa4096": (KeyType.RSA, 4096, b"", _SIGN_DECRYPT),
    "dsa1024": (KeyType.DSA, 1024, b"", _SIGN),
    "dsa2048": (KeyType.DSA, 2048, b"", _SIGN),
    "p256": (KeyType.EC, 0, bytes.fromhex("06082a8648ce3d030107"), _SIGN),
    "p384": (KeyType.EC, 0, bytes.fromhex("06052b81040022"), _SIGN),
    "p521": (KeyType.EC, 0, bytes.fromhex("06052b81040023"), _SIGN),
    "ed25519": (KeyType.EC_EDWARDS, 0, bytes.fromhex("06032b6570"), _SIGN),
}

# A module that another process is just setting up may answer with these for a moment.
_STARTING = frozenset({faults.GENERAL_ERROR, faults.TOKEN_NOT_RECOGNIZED})
_NO_TOKEN = frozenset(
    {faults.TOKEN_NOT_PRESENT, faults.TOKEN_NOT_RECOGNIZED, faults.DEVICE_REMOVED, faults.NUMBERS["CKR_SLOT_ID_INVALID"]}
)
_PATIENCE = 10.0  # seconds that `finalize` waits for calls under way
_MOST_EVENTS = 64  # taken at once: a module may have no end of them
_RESTART_PATIENCE = 1.0  # the same, of `restart`
_START_TIME = 0.5  # seconds after C_Initialize in which they are not believed
_START_PAUSES = (0.02, 0.05, 0.1, 0.2)


def mechanism_name(number: int) -> str:
    """CKM_ name; vendor and unknown ones as CKM_0x80000001."""
    return _MECHANISM_NAMES.get(number, f"CKM_{number:#010x}")


def _flag_names(flags: int, kind: type[TokenFlag] | type[MechanismFlag] | type[SlotFlag]) -> frozenset[str]:
    return frozenset(f"CKF_{flag.name}" for flag in kind if flags & flag)


class SlotDetails(NamedTuple):
    description: str
    manufacturer: str
    removable: bool
    hardware: bool


class TokenDetails(NamedTuple):
    """What of CK_TOKEN_INFO is used.  `max_sessions` is 0 where the token names no limit."""

    label: str
    serial: str
    manufacturer: str
    model: str
    flags: frozenset[str]
    max_sessions: int


class _TolerantMapper(AttributeMapper):
    """Reads what modules really hold.

    Defect: `get_objects()` raises ValueError on vendor object classes (NSS trust) and key types, NotImplementedError on
    attributes it has no type for, UnicodeDecodeError on labels that are not UTF-8.  Here: plain int, bytes, U+FFFD.
    """

    def _handler(self, key: Attribute) -> Handler:
        if key not in self.attribute_types:
            return (bytes, bytes)
        pack, unpack = super()._handler(key)

        def tolerant(value: bytes) -> Any:
            try:
                return unpack(value)
            except UnicodeDecodeError:
                return value.decode("utf-8", "replace")
            except ValueError:
                return int.from_bytes(value, sys.byteorder) if len(value) == ctypes.sizeof(ctypes.c_ulong) else value

        return (pack, tolerant)


_MAPPER = _TolerantMapper()


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _counted(
    method: Callable[Concatenate[Library, Parameters], Result],
) -> Callable[Concatenate[Library, Parameters], Result]:
    """A method that `Library.finalize` and a fork wait for, and that is refused after `finalize`."""

    @functools.wraps(method)
    def counted(self: Library, /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        with self.gate:
            if self._closed:
                raise faults.fault(faults.CRYPTOKI_NOT_INITIALIZED, method.__name__, module=self.path)
            return method(self, *arguments, **named)

    return counted


class Library(lib):
    """A loaded and initialised library.  Raises TokenError (SEC_ERROR_NO_MODULE) if there is none at `path`."""

    functions: native.Functions

    def __new__(cls, path: str, parameters: str = "") -> Library:
        try:
            functions = native.Functions(path)
            library = super().__new__(cls, path)  # type: ignore[call-arg]
        except (OSError, AttributeError, PKCS11Error) as error:
            raise TokenError(f"no PKCS #11 module: {error}", name="SEC_ERROR_NO_MODULE", module=path) from None
        library.functions = functions
        # Defect: what frees a library calls C_Finalize by methods that are gone when Python 3.13 ends, and complains.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))
        return library

    def __init__(self, path: str, parameters: str = "") -> None:
        self.path, self._parameters = path, parameters
        self._up = self._ours = self._closed = self._forked = self._torn = False
        self._started = 0.0
        self._lock, self.gate = threading.Lock(), Gate()
        with self.gate, self.translated("C_GetInfo"):
            super().__init__(path)

    # --- life --------------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """C_Initialize, if it was not called in this process.  Called by python-pkcs11 too.  Raises TokenError.

        Defect: python-pkcs11 calls C_Initialize(NULL) and then runs calls of several threads at once without the GIL, which
        corrupts SoftHSM's heap: see `mutexes`.  Defect: pReserved cannot be set, NSS's softokn needs its parameter string.
        """
        with self._lock:
            if self._up:
                return
            reserved = self._parameters.encode() if self._parameters else None
            self._started = time.monotonic()
            rv = self._patiently(lambda: mutexes.initialize(self.functions, self.path, reserved))
            if rv == faults.CRYPTOKI_ALREADY_INITIALIZED and self._forked:
                # Modules that check the process id took the first call.  SoftHSM does not, and would go on with the
                # sessions and the login of the parent.
                self._finalize_parents()
                rv = mutexes.initialize(self.functions, self.path, reserved)
            if rv not in (faults.OK, faults.CRYPTOKI_ALREADY_INITIALIZED):
                raise faults.fault(rv, "C_Initialize", module=self.path, doing=f"initialise {os.path.basename(self.path)}")
            self._up, self._ours, self._forked, self._torn = True, rv == faults.OK, False, False

    def _finalize_parents(self) -> None:
        """C_Finalize what a forked child has of its parent.  Raises TokenError where it would hang, or crash."""
        if self._torn:
            raise TokenError(
                "the process was forked while another of its threads was inside the module, which cannot begin anew after that",
                name="SEC_ERROR_LIBRARY_FAILURE",
                module=self.path,
            )
        self.functions.C_Finalize(None)

    def reopen(self) -> None:
        """Initialise again after `finalize`."""
        self._closed = False
        self.initialize()

    def finalize(self) -> None:
        """C_Finalize, if this process's initialisation is ours and all calls end in time.

        What fails is past mending and ignored.
        """
        self._closed = True
        if not self.gate.wait_until_empty(time.monotonic() + _PATIENCE):
            return
        with self.gate, self._lock:
            if self._up and self._ours:
                self.functions.C_Finalize(None)
            self._up = False

    def restart(self) -> bool:
        """C_Finalize; the next use initialises anew.  False, and nothing done, if it was not us who initialised it, calls are
        under way, or another thread has just done it.  Every session and login in the library ends.
        """
        deadline = time.monotonic() + _RESTART_PATIENCE
        if not self._ours or not self.gate.shut(deadline):
            return False
        try:
            if not self.gate.wait_until_empty(deadline):
                return False
            with self._lock:
                if not self._up:
                    return False
                self.functions.C_Finalize(None)
                self._up = False
            return True
        finally:
            self.gate.open()

    def finalized_by_others(self) -> None:
        """Another user of the library in this process called C_Finalize: the next use begins anew."""
        with self._lock:
            self._up = False

    def after_fork(self) -> None:
        """In a forked child: what the parent initialised is not ours (PKCS #11 3.1 section 5.4); the next use starts anew."""
        self._lock = threading.Lock()
        self._torn = self.gate.after_fork() or self._torn
        self._forked, self._up = self._up or self._forked or self._torn, False

    def _patiently(self, call: Callable[[], int]) -> int:
        """Run a call that may fail for a moment while another process sets the same token up."""
        for pause in _START_PAUSES:
            rv = call()
            if rv not in _STARTING or time.monotonic() > self._started + _START_TIME:
                return rv
            time.sleep(pause)
        return call()

    def check(self, rv: int, function: str, token: TokenInfo | None = None, *, doing: str = "") -> None:
        """Raise the TokenError for anything but CKR_OK."""
        if rv:
            raise faults.fault(rv, function, token, module=self.path, doing=doing)

    @contextmanager
    def translated(self, function: str, token: TokenInfo | None = None, doing: str = "") -> Iterator[None]:
        """Turn python-pkcs11's exceptions into TokenError.

        Defect: the numeric result is lost; codes that it has no class for are only in the message.
        """
        try:
            yield
        except PKCS11Error as error:
            raise faults.fault(faults.result_of(error), function, token, module=self.path, doing=doing) from None

    # --- slots and tokens --------------------------------------------------------------------------------------------

    @_counted
    def slot_ids(self, *, occupied: bool = False) -> list[int]:
        """Every slot, or those with a token.  Defect: `get_slots` ignores the count of the second call."""
        self.initialize()
        return self._list(lambda values, count: self.functions.C_GetSlotList(occupied, values, count), "C_GetSlotList")

    @_counted
    def slot_events(self) -> set[int] | None:
        """The slots that the module reports a change in since the last call; never waits.  None: it reports none, ever.

        Defect: python-pkcs11's `wait_for_slot_event` takes the event and then raises TypeError.
        """
        self.initialize()
        slot, found = ctypes.c_ulong(), set[int]()
        for _ in range(_MOST_EVENTS):
            rv = self.functions.C_WaitForSlotEvent(native.CKF_DONT_BLOCK, ctypes.byref(slot), None)
            if rv == faults.NUMBERS["CKR_FUNCTION_NOT_SUPPORTED"]:
                return None
            if rv == faults.NUMBERS["CKR_NO_EVENT"]:
                break
            self.check(rv, "C_WaitForSlotEvent")
            found.add(slot.value)
        return found

    @_counted
    def slot_details(self, slot: int) -> SlotDetails:
        self.initialize()
        info = native.CK_SLOT_INFO()
        self.check(self.functions.C_GetSlotInfo(slot, ctypes.byref(info)), "C_GetSlotInfo")
        flags = info.flags
        return SlotDetails(
            native.text(info.slotDescription),
            native.text(info.manufacturerID),
            bool(flags & SlotFlag.REMOVABLE_DEVICE),
            bool(flags & SlotFlag.HW_SLOT),
        )

    @_counted
    def token_details(self, slot: int) -> TokenDetails | None:
        """The token in `slot`, as it is now; None for none, or for one the module does not know.

        Defect: python-pkcs11's `Token.flags` is a snapshot, and the session limit is not shown.
        """
        self.initialize()
        info = native.CK_TOKEN_INFO()
        rv = self._patiently(lambda: self.functions.C_GetTokenInfo(slot, ctypes.byref(info)))
        if rv in _NO_TOKEN:
            return None
        self.check(rv, "C_GetTokenInfo")
        limit = info.ulMaxSessionCount
        return TokenDetails(
            native.text(info.label),
            native.text(info.serialNumber),
            native.text(info.manufacturerID),
            native.text(info.model),
            _flag_names(info.flags, TokenFlag),
            0 if limit in (native.UNAVAILABLE, native.EFFECTIVELY_INFINITE) else limit,
        )

    @_counted
    def mechanisms(self, slot: int) -> dict[str, MechanismInfo]:
        """The mechanisms of the token in `slot`.  Defect: `get_mechanisms` ignores the count of the second call: garbage."""
        numbers = self._list(lambda values, count: self.functions.C_GetMechanismList(slot, values, count), "C_GetMechanismList")
        return {info.name: info for info in (self._mechanism(slot, number) for number in numbers)}

    def _mechanism(self, slot: int, number: int) -> MechanismInfo:
        info = native.CK_MECHANISM_INFO()
        if self.functions.C_GetMechanismInfo(slot, number, ctypes.byref(info)):
            return MechanismInfo(mechanism_name(number), number)  # listed, but nothing is known of it
        flags = _flag_names(info.flags, MechanismFlag)
        return MechanismInfo(mechanism_name(number), number, info.ulMinKeySize, info.ulMaxKeySize, flags)

    def _list(self, call: Callable[[Any, Any], int], function: str) -> list[int]:
        """Call twice, for the count and for the values; the list may grow in between."""
        for _ in range(5):
            count = ctypes.c_ulong()
            self.check(call(None, ctypes.byref(count)), function)
            values = (ctypes.c_ulong * max(count.value, 1))()
            rv = call(values, ctypes.byref(count))
            if rv != faults.BUFFER_TOO_SMALL:
                break
        self.check(rv, function)
        return list(values[: count.value])

    def get_slots(self, token_present: bool = False) -> list[pkcs11.Slot]:
        """python-pkcs11's slots, without those it invents (see `slot_ids`)."""
        real = set(self.slot_ids())
        return [slot for slot in super().get_slots(token_present) if slot.slot_id in real]

    @_counted
    def init_token(self, slot: int, label: str, so_pin: str | None) -> None:
        """C_InitToken; None: the PIN is typed at the token.  Defect: python-pkcs11 never calls it."""
        name = label.encode()
        if len(name) > 32:
            raise TokenError("a token's label is at most 32 bytes long", name="SEC_ERROR_INVALID_ARGS", module=self.path)
        with _pin_bytes(so_pin) as (pin, length):
            rv = self.functions.C_InitToken(slot, pin, length, name.ljust(32))
        self.check(rv, "C_InitToken", TokenInfo(label, slot_id=slot, module=self.path), doing="initialise the token")

    @_counted
    def init_pin(self, session: int, pin: str | None) -> int:
        """C_InitPIN, in a session of the security officer.  Returns the CK_RV."""
        with _pin_bytes(pin) as (data, length):
            return self.functions.C_InitPIN(session, data, length)

    @_counted
    def set_pin(self, session: int, old: str | None, new: str | None) -> int:
        """C_SetPIN, of whoever is logged in; None: typed at the token.  Returns the CK_RV."""
        with _pin_bytes(old) as (old_data, old_length), _pin_bytes(new) as (new_data, new_length):
            return self.functions.C_SetPIN(session, old_data, old_length, new_data, new_length)

    # --- sessions ----------------------------------------------------------------------------------------------------

    @_counted
    def open_session(self, token: TokenInfo, *, write: bool = False) -> int:
        """A session's handle.  Defect: python-pkcs11 leaks the session when a login fails, so opening and login are apart."""
        self.initialize()
        handle = ctypes.c_ulong()
        flags = native.CKF_SERIAL_SESSION | (native.CKF_RW_SESSION if write else 0)
        rv = self._patiently(lambda: self.functions.C_OpenSession(token.slot_id, flags, None, None, ctypes.byref(handle)))
        self.check(rv, "C_OpenSession", token)
        return handle.value

    @_counted
    def open_object_session(self, token: TokenInfo, *, write: bool = False) -> ObjectSession:
        """python-pkcs11's session, for work on objects; not logged in, to be closed with `close_session`."""
        self.initialize()
        with self.translated("C_OpenSession", token):
            for slot in self.get_slots():
                if slot.slot_id == token.slot_id:
                    return slot.get_token().open(rw=write, attribute_mapper=_MAPPER)
        raise faults.fault(faults.NUMBERS["CKR_SLOT_ID_INVALID"], "C_OpenSession", token)

    def close_session(self, handle: int) -> None:
        """Defect: python-pkcs11's `close()` logs every session of the token out, and raises once the token has gone."""
        with contextlib.suppress(TokenError):  # finalised: all sessions are closed
            self._close_session(handle)

    @_counted
    def _close_session(self, handle: int) -> None:
        self.functions.C_CloseSession(handle)

    @_counted
    def logged_in(self, handle: int) -> bool | None:
        """Whether the user is logged in, by the session's state; None if the session is no more.

        Defect: python-pkcs11 never calls C_GetSessionInfo.
        """
        info = native.CK_SESSION_INFO()
        if self.functions.C_GetSessionInfo(handle, ctypes.byref(info)):
            return None
        return info.state in (native.CKS_RO_USER_FUNCTIONS, native.CKS_RW_USER_FUNCTIONS)

    @_counted
    def login(self, handle: int, user: int, pin: str | None) -> int:
        """C_Login; None: at the token's keypad.  Returns the CK_RV.

        Defect: python-pkcs11 cannot do a context-specific login on a keypad, and logs in only while opening a session.
        """
        with _pin_bytes(pin) as (data, length):
            return self.functions.C_Login(handle, user, data, length)

    @_counted
    def logout(self, handle: int) -> None:
        self.functions.C_Logout(handle)

    # --- objects -----------------------------------------------------------------------------------------------------

    @_counted
    def find_objects(self, session: ObjectSession, template: Attributes, wanted: tuple[Any, ...]) -> list[tuple[int, Attributes]]:
        """Handle and those of the `wanted` attributes that each matching object shows.  Raises TokenError."""
        with self.translated("C_FindObjects"):
            found = list(session.get_objects(template))
        result = []
        for item in found:
            try:
                values = item.get_attributes(list(wanted))
            except PKCS11Error:
                values = _one_by_one(item, wanted)
            result.append((item.handle, values))
        return result

    @_counted
    def generate_pair(self, session: ObjectSession, kind: str, label: str, id: bytes, token: TokenInfo) -> tuple[Any, Any]:
        """A key pair that stays: private, sensitive, not extractable.  `kind`: one of GENERATED."""
        key_type, size, curve, capabilities = GENERATED[kind]
        public = {Attribute.PRIVATE: False}
        private = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
        common: dict[str, Any] = {
            "id": id,
            "label": label,
            "store": True,
            "capabilities": capabilities,
            "public_template": public,
            "private_template": private,
        }
        with self.translated("C_GenerateKeyPair", token, f"generate a {kind} key"):
            if key_type is KeyType.RSA:
                public_key, private_key = session.generate_keypair(key_type, size, **common)
            else:
                values = _dsa_parameters(size) if size else {Attribute.EC_PARAMS: curve}
                domain = session.create_domain_parameters(key_type, values, local=True)
                public_key, private_key = domain.generate_keypair(mechanism=_PAIR_MECHANISMS[key_type], **common)
            return public_key, private_key

    @_counted
    def set_attribute(self, item: Any, attribute: Attribute, value: Any) -> bool:
        """Whether the object took it."""
        try:
            item[attribute] = value
        except PKCS11Error:
            return False
        return True

    @_counted
    def create_object(self, session: ObjectSession, template: Attributes, token: TokenInfo, doing: str) -> None:
        with self.translated("C_CreateObject", token, doing):
            session.create_object(template)

    @_counted
    def destroy_objects(self, session: ObjectSession, handles: set[int], template: Attributes, token: TokenInfo) -> None:
        """Those of `handles` that match `template`."""
        with self.translated("C_DestroyObject", token, "delete an object"):
            for item in list(session.get_objects(template)):
                if item.handle in handles:
                    item.destroy()


_PAIR_MECHANISMS = {
    KeyType.DSA: Mechanism.DSA_KEY_PAIR_GEN,
    KeyType.EC: Mechanism.EC_KEY_PAIR_GEN,
    KeyType.EC_EDWARDS: Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
}


def _dsa_parameters(bits: int) -> Attributes:
    """New ones: a subprime of 160 bits for a prime of 1024, 256 for 2048 (FIPS 186-4 section 4.2).

    They are public, and made here since tokens make them with subprimes of various lengths, or not at all.
    """
    numbers = dsa.generate_parameters(bits).parameter_numbers()
    values = {Attribute.PRIME: numbers.p, Attribute.SUBPRIME: numbers.q, Attribute.BASE: numbers.g}
    return {name: value.to_bytes((value.bit_length() + 7) // 8) for name, value in values.items()}


def _one_by_one(item: Any, wanted: tuple[Any, ...]) -> Attributes:
    """Some modules answer a request for many attributes with an error if one of them is missing."""
    values = {}
    for attribute in wanted:
        try:
            values[attribute] = item[attribute]
        except PKCS11Error:
            continue
    return values


@contextmanager
def _pin_bytes(pin: str | None) -> Iterator[tuple[Any, int]]:
    """A PIN as C takes it, in memory that is wiped afterwards."""
    if pin is None:
        yield None, 0
        return
    data = bytearray(pin.encode("utf-8"))
    try:
        yield (ctypes.c_char * len(data)).from_buffer(data) if data else b"", len(data)
    finally:
        for index in range(len(data)):
            data[index] = 0
