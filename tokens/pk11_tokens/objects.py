"""Objects of a token: keys, certificates and data, and who sees which of them under what handle.

Every host has handles of its own.  They die with the session (session objects), with the login (private objects: PKCS #11
2.40 section 5.6, C_Logout) and when the token is taken out; none is ever given twice.  Values are kept as they lie in the
memory of hosts.  Uses the rules of `attributes` and the keys of `keytypes`; knows no memory and no mechanism.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from . import attributes, keytypes
from .abi import CKA, CKC, CKO, CKR, CKU, ULONG, UNAVAILABLE_INFORMATION, Refused
from .attributes import FALSE, SECRET, TRUE, Purpose, Template

if TYPE_CHECKING:
    from .host import Host, Session

KEYS = frozenset((CKO.PUBLIC_KEY, CKO.PRIVATE_KEY, CKO.SECRET_KEY))


class Object:
    """One object.  `owner`: the session that a session object lives with; None for a token object.

    Neither its text nor an error tells a value that may be secret.
    """

    def __init__(self, values: Mapping[int, bytes], owner: Session | None = None) -> None:
        self.values = dict(values)
        self.owner = owner

    def __repr__(self) -> str:
        return f"<Object class={self.kind} {self.label!r}>"

    def number(self, attribute: int) -> int | None:
        """A CK_ULONG attribute, None where the object lacks it."""
        value = self.values.get(attribute)
        return int(ULONG.unpack(value)[0]) if value is not None and len(value) == ULONG.size else None

    def is_true(self, attribute: int) -> bool:
        """A CK_BBOOL attribute; one that is not there is false."""
        return self.values.get(attribute) == TRUE

    @property
    def kind(self) -> int:
        """CKO number."""
        return self.number(CKA.CLASS) or 0

    @property
    def label(self) -> str:
        return self.values.get(CKA.LABEL, b"").decode("utf-8", "replace")

    @property
    def id(self) -> bytes:
        return self.values.get(CKA.ID, b"")

    @cached_property
    def key(self) -> Any:
        """The key of `cryptography`, bytes for a secret key.  Loaded once."""
        kind = self.number(CKA.KEY_TYPE)
        assert kind is not None, "only keys have a key"
        match self.kind:
            case CKO.PUBLIC_KEY:
                return keytypes.load_public(kind, self.values)
            case CKO.PRIVATE_KEY:
                return keytypes.load_private(kind, self.values)
        return self.values[CKA.VALUE]

    @cached_property
    def _rules(self) -> attributes.Rules:
        return attributes.rules_of(self.values)

    @cached_property
    def allowed_mechanisms(self) -> frozenset[int]:
        """CKA_ALLOWED_MECHANISMS; empty: all."""
        return frozenset(value for (value,) in ULONG.iter_unpack(self.values.get(CKA.ALLOWED_MECHANISMS, b"")))

    def read(self, attribute: int) -> bytes:
        """What a host is told.

        Raises Refused: CKR_ATTRIBUTE_TYPE_INVALID where there is no such attribute, CKR_ATTRIBUTE_SENSITIVE for a secret that
        stays here (CKA_SENSITIVE, or not CKA_EXTRACTABLE).
        """
        value = self.values.get(attribute)
        if value is None:
            raise Refused(CKR.ATTRIBUTE_TYPE_INVALID)
        if not self.extractable and SECRET in self._rules[attribute].notes:
            raise Refused(CKR.ATTRIBUTE_SENSITIVE)
        return value

    @property
    def extractable(self) -> bool:
        """Whether its secrets may be shown.  Certificates, data and public keys have none."""
        return not self.is_true(CKA.SENSITIVE) and self.values.get(CKA.EXTRACTABLE) != FALSE

    def matches(self, template: Mapping[int, bytes]) -> bool:
        """Whether it has these values; a search cannot find out what could not be read."""
        try:
            return all(self.values.get(attribute) == value == self.read(attribute) for attribute, value in template.items())
        except Refused:
            return False

    def change(self, template: Template) -> None:
        """C_SetAttributeValue.  Raises Refused: see `attributes.change`; CKR_ACTION_PROHIBITED."""
        if not self.is_true(CKA.MODIFIABLE):
            raise Refused(CKR.ACTION_PROHIBITED)
        self.values.update(attributes.change(self.values, template))

    def copy(self, template: Template, owner: Session | None) -> Object:
        """C_CopyObject.  Raises Refused: see `attributes.change`; CKR_ACTION_PROHIBITED."""
        if not self.is_true(CKA.COPYABLE):
            raise Refused(CKR.ACTION_PROHIBITED)
        return Object(self.values | attributes.change(self.values, template, copying=True), owner)


class ObjectStore:
    """The objects of one token.  Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._objects: dict[Object, None] = {}  # in the order in which they came
        self._views: WeakKeyDictionary[Host, _View] = WeakKeyDictionary()

    # --- what is there, whoever asks ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Object]:
        with self._lock:
            return iter(list(self._objects))

    def __len__(self) -> int:
        return len(self._objects)

    def find(self, kind: int, label: str) -> Object | None:
        """The first token object of this class (CKO) with this label."""
        return next((item for item in self if item.owner is None and item.kind == kind and item.label == label), None)

    def add(self, item: Object) -> Object:
        with self._lock:
            self._objects[item] = None
        return item

    def clear(self) -> None:
        """Nothing is left (C_InitToken)."""
        with self._lock:
            self._objects.clear()
            self._views.clear()

    # --- what a session sees -----------------------------------------------------------------------------------------

    def visible(self, session: Session) -> list[Object]:
        """Token objects and the host's own session objects; private ones only to the user (section 3.5)."""
        return [item for item in self if _sees(session, item)]

    def handle(self, session: Session, item: Object) -> int:
        """The host's handle for an object."""
        with self._lock:
            view = self._views.setdefault(session.host, _View())
            handle = view.handles.get(item)
            if handle is None:
                handle = view.handles[item] = session.host.machine.new_handle()
                view.objects[handle] = item
            return handle

    def get(self, session: Session, handle: int, error: int = CKR.OBJECT_HANDLE_INVALID) -> Object:
        """The object with this handle.  Raises Refused(`error`) where the session has no such object."""
        view = self._views.get(session.host)
        item = view.objects.get(handle) if view else None
        if item is None or item not in self._objects or not _sees(session, item):
            raise Refused(error)
        return item

    def remove(self, item: Object) -> None:
        with self._lock:
            self._objects.pop(item, None)
            self._forget(lambda other: other is item)

    # --- what ends with what -----------------------------------------------------------------------------------------

    def close_session(self, session: Session) -> None:
        """Session objects die with their session."""
        for item in [item for item in self if item.owner is session]:
            self.remove(item)

    def logout(self, host: Host) -> None:
        """Handles of private objects die with the host's login, private session objects with them."""
        with self._lock:
            for item in [item for item in self._objects if item.owner and item.owner.host is host and item.is_true(CKA.PRIVATE)]:
                self.remove(item)
            view = self._views.get(host)
            if view:
                view.forget(lambda item: item.is_true(CKA.PRIVATE))

    def inserted(self) -> None:
        """The token is in a reader again: all handles are new."""
        with self._lock:
            self._views.clear()

    def _forget(self, which: Any) -> None:
        for view in self._views.values():
            view.forget(which)


class _View:
    """A host's handles."""

    def __init__(self) -> None:
        self.objects: dict[int, Object] = {}
        self.handles: dict[Object, int] = {}

    def forget(self, which: Any) -> None:
        for item in [item for item in self.handles if which(item)]:
            del self.objects[self.handles.pop(item)]


def _sees(session: Session, item: Object) -> bool:
    if item.owner is not None and item.owner.host is not session.host:
        return False
    return not item.is_true(CKA.PRIVATE) or session.logged_in == CKU.USER or not session.token.login_required


# --- making objects --------------------------------------------------------------------------------------------------


def completed_key(values: Mapping[int, bytes]) -> dict[int, bytes]:
    """Values of a key that came from elsewhere, checked, with what follows from them (length, CKA_PUBLIC_KEY_INFO).

    Raises Refused: CKR_ATTRIBUTE_VALUE_INVALID, CKR_CURVE_NOT_SUPPORTED.
    """
    key = Object(values).key
    kind = ULONG.unpack(values[CKA.KEY_TYPE])[0]
    if isinstance(key, bytes):
        if len(key) not in keytypes.SECRET_SIZES.get(kind, (len(key) or 1,)):
            raise Refused(CKR.ATTRIBUTE_VALUE_INVALID)
        return {**values, CKA.VALUE_LEN: keytypes.number(len(key))}
    private = ULONG.unpack(values[CKA.CLASS])[0] == CKO.PRIVATE_KEY
    public_key = key.public_key() if private else key
    completed = {**values, CKA.PUBLIC_KEY_INFO: keytypes.public_key_info(public_key)}
    if CKA.MODULUS_BITS in values:
        completed[CKA.MODULUS_BITS] = keytypes.number(key.key_size)
    return completed


def key_pair(
    private_key: Any,
    label: str,
    id: bytes,
    *,
    always_authenticate: bool = False,
    generated: int = UNAVAILABLE_INFORMATION,
    allowed_mechanisms: tuple[int, ...] = (),
) -> tuple[Object, Object]:
    """Private and public key object for a key of `cryptography`, as token objects that stay: sensitive, not extractable.

    `generated`: the CKM by which the token made it; without, it came from elsewhere.  Raises ValueError for a key that no
    token here can hold.
    """
    kind = keytypes.type_of(private_key)
    row, public_key = keytypes.KEY_TYPES[kind], private_key.public_key()
    common = {
        CKA.KEY_TYPE: keytypes.number(kind),
        CKA.TOKEN: TRUE,
        CKA.LABEL: label.encode(),
        CKA.ID: id,
        CKA.PUBLIC_KEY_INFO: keytypes.public_key_info(public_key),
    }
    made = made_here(generated) if generated != UNAVAILABLE_INFORMATION else {}
    private = attributes.complete(
        (),
        Purpose.CREATE,
        common
        | made
        | row.private(private_key)
        | {
            CKA.CLASS: keytypes.number(CKO.PRIVATE_KEY),
            CKA.ALWAYS_AUTHENTICATE: TRUE if always_authenticate else FALSE,
            CKA.ALLOWED_MECHANISMS: b"".join(map(keytypes.number, allowed_mechanisms)),
        },
    )
    public_values = common | made | row.public(public_key) | {CKA.CLASS: keytypes.number(CKO.PUBLIC_KEY)}
    public = attributes.complete((), Purpose.CREATE, public_values)
    private_object = Object(kept(private) if made else private)
    private_object.key = private_key
    return private_object, Object(public)


def certificate(der: bytes, label: str, id: bytes) -> Object:
    """A token object for an X.509 certificate.  Raises ValueError where it does not parse."""
    parsed = x509.load_der_x509_certificate(der)
    return Object(
        attributes.complete(
            (),
            Purpose.CREATE,
            {
                CKA.CLASS: keytypes.number(CKO.CERTIFICATE),
                CKA.CERTIFICATE_TYPE: keytypes.number(CKC.X_509),
                CKA.TOKEN: TRUE,
                CKA.LABEL: label.encode(),
                CKA.ID: id,
                CKA.SUBJECT: parsed.subject.public_bytes(),
                CKA.ISSUER: parsed.issuer.public_bytes(),
                CKA.SERIAL_NUMBER: _der_integer(parsed.serial_number),
                CKA.VALUE: parsed.public_bytes(Encoding.DER),
            },
        )
    )


def _der_integer(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    return bytes((2, len(content))) + content


def made_here(mechanism: int) -> dict[int, bytes]:
    """What says that the token made a key, and how."""
    return {CKA.LOCAL: TRUE, CKA.KEY_GEN_MECHANISM: keytypes.number(mechanism)}


def kept(values: Mapping[int, bytes]) -> dict[int, bytes]:
    """The values of a secret that was made here: what it is now, it always was (CKA_ALWAYS_SENSITIVE, …)."""
    never_extractable = TRUE if values[CKA.EXTRACTABLE] == FALSE else FALSE
    return {**values, CKA.ALWAYS_SENSITIVE: values[CKA.SENSITIVE], CKA.NEVER_EXTRACTABLE: never_extractable}
