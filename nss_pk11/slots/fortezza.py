"""What a FORTEZZA card does for a connection, by PKCS #11 (2.20 sections 12.10 and 12.16).

KEA gives two cards a token encryption key (TEK); under it go a key for each direction, wrapped, and one secret of the caller's,
encrypted.  TEK and message keys are session objects: they stay on the card, and end with the connection, whose ciphers run in
sessions of their own (`lasting`).  What is to outlive the connection is kept wrapped under a key that the card has for good (Ks),
as NSS keeps it.  Knows no TLS: what the bytes are for is the caller's business.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_ubyte, c_ulong
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from ..errors import TokenError
from . import faults
from .cryptoki import MECHANISM_NUMBERS, Attribute, KeyType, ObjectClass
from .kea import PUBLIC_BYTES, KeaPublicKey
from .keys import Place
from .lasting import LastingSession
from .native import CK_ATTRIBUTE, CK_KEA_DERIVE_PARAMS, CK_MECHANISM

IV_BYTES = 24  # a LEAF of 16, an IV of 8
WRAPPED_BYTES = 12
_BLOCK = 8

# The token is not there any more, or is not what it was.
GONE = faults.LOST | {faults.DEVICE_ERROR}
# What a card says of numbers that came from the other side, and NSS (ssl3_HandleFortezzaClientKeyExchange).
REFUSED = {
    faults.NUMBERS["CKR_DOMAIN_PARAMS_INVALID"]: "SSL_ERROR_CLIENT_KEY_EXCHANGE_FAILURE",
    faults.NUMBERS["CKR_WRAPPED_KEY_INVALID"]: "SSL_ERROR_SYM_KEY_UNWRAP_FAILURE",
}
# What a card says of keys and states that it did not give.
_NOT_ITS_OWN = {
    faults.NUMBERS[f"CKR_{name}"]
    for name in ("WRAPPED_KEY_INVALID", "WRAPPED_KEY_LEN_RANGE", "SAVED_STATE_INVALID", "KEY_CHANGED", "FUNCTION_NOT_SUPPORTED")
}

Result = TypeVar("Result")


class CardKey(Protocol):
    """A key on a token; `keys.TokenKey` is one."""

    @property
    def label(self) -> str: ...

    def operate(self, once: Callable[[Place, bool], Result], *, patient: bool = True) -> Result: ...


class Initiated(NamedTuple):
    """An initiator's numbers: R_a, both keys wrapped, the IVs of both and of the secret, and that encrypted; the ciphers, where
    asked for: to write with the first key, to read with the second.  `kept`: for `take_up`; b"" where not asked for, or the card
    cannot."""

    random: bytes
    first_key: bytes
    second_key: bytes
    first_iv: bytes
    second_iv: bytes
    secret_iv: bytes
    secret: bytes
    write: CardCipher | None
    read: CardCipher | None
    kept: bytes


class Responded(NamedTuple):
    """A recipient's: the secret, and the ciphers, to write with the second key and to read with the first; `kept` as above."""

    secret: bytes
    write: CardCipher | None
    read: CardCipher | None
    kept: bytes

    def __repr__(self) -> str:
        return "<Responded>"  # nothing that holds a secret shows it


class Offered(NamedTuple):
    """What a recipient got: the other's Y and R_a, and the rest as in `Initiated`."""

    public: bytes
    random: bytes
    first_key: bytes
    second_key: bytes
    first_iv: bytes
    second_iv: bytes
    secret_iv: bytes
    secret: bytes


def initiate(
    key: CardKey,
    peer: KeaPublicKey,
    peer_random: bytes,
    secret: bytes,
    *,
    ciphers: bool,
    keep: bool = False,
    patient: bool = True,
) -> Initiated:
    """Be the initiator of KEA.  `peer_random`: R_b, 128 bytes; `secret`: whole blocks; `keep`: the ciphers' beginnings.  Raises
    TokenError."""

    def once(place: Place, patient: bool) -> Initiated:
        card = _Card(key, place)
        tek, random = card.derive(peer.public, None, peer_random)
        secret_iv, encrypted = card.encrypt(tek, secret)
        first, second = card.generate(), card.generate()
        wrapped = card.wrap(tek, first), card.wrap(tek, second)
        second_iv = card.encrypt(second, bytes(_BLOCK))[0]
        if not ciphers:
            first_iv = card.encrypt(first, bytes(_BLOCK))[0]
            return Initiated(random, *wrapped, first_iv, second_iv, secret_iv, encrypted, None, None, b"")
        first_iv, write = card.encryption(first)
        kept = card.keep(first, second, write.state) if keep else b""
        read = card.decryption(second, second_iv)
        return Initiated(random, *wrapped, first_iv, second_iv, secret_iv, encrypted, write, read, kept)

    return key.operate(once, patient=patient)


def respond(
    key: CardKey, own_random: bytes, offered: Offered, *, ciphers: bool, keep: bool = False, patient: bool = True
) -> Responded:
    """Be the recipient.  `own_random`: the R_b that the initiator was given; `keep`: as above.  Raises TokenError."""

    def once(place: Place, patient: bool) -> Responded:
        card = _Card(key, place)
        tek, _ = card.derive(offered.public.rjust(PUBLIC_BYTES, b"\0"), offered.random, own_random)
        secret = card.decrypt(tek, offered.secret_iv, offered.secret)
        if not ciphers:
            return Responded(secret, None, None, b"")
        first, second = (card.unwrap(tek, wrapped) for wrapped in (offered.first_key, offered.second_key))
        kept = card.keep(second, first, lambda: offered.first_iv) if keep else b""
        return Responded(secret, card.encryption(second)[1], card.decryption(first, offered.first_iv), kept)

    return key.operate(once, patient=patient)


def take_up(key: CardKey, kept: bytes, *, initiated: bool, patient: bool = True) -> tuple[CardCipher, CardCipher] | None:
    """The ciphers of an earlier agreement at their beginnings, to write and to read; None where this card did not keep them.

    Its keys are the same.  An initiator writes with the same IV too, and a recipient with a new one, as a card does not encrypt
    with any but its own; so the first block that an initiator reads says nothing.  Raises TokenError.
    """
    write_key, read_key, rest = kept[:WRAPPED_BYTES], kept[WRAPPED_BYTES : 2 * WRAPPED_BYTES], kept[2 * WRAPPED_BYTES :]

    def once(place: Place, patient: bool) -> tuple[CardCipher, CardCipher] | None:
        card = _Card(key, place)
        storage = card.storage_key()
        if not storage:
            return None
        try:
            writing, reading = card.unwrap(storage, write_key), card.unwrap(storage, read_key)
            if initiated:
                return card.taken_up(writing, rest), card.decryption(reading, bytes(IV_BYTES))
            return card.encryption(writing)[1], card.decryption(reading, rest)
        except TokenError as error:
            if error.rv not in _NOT_ITS_OWN:
                raise
            return None

    return key.operate(once, patient=patient)


class CardCipher:
    """One direction, running in a session of its own.  One thread at a time.  `keys`: whose session the key ends with."""

    def __init__(self, session: LastingSession, keys: LastingSession, *, encrypts: bool) -> None:
        self._session, self._keys = session, keys
        self._function = "C_EncryptUpdate" if encrypts else "C_DecryptUpdate"

    def update(self, data: bytes | memoryview) -> bytes:
        """As many bytes as `data`, which is whole blocks.  Raises TokenError: SSL_ERROR_TOKEN_INSERTION_REMOVAL where the card
        has gone, and with it the key."""
        try:
            return _result(partial(self._session.call, self._function), bytes(data), len(data), doing="encrypt a connection")
        except TokenError as error:
            if error.rv in GONE:
                error.name = "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
            raise

    def state(self) -> bytes:
        """Where it stands.  Raises TokenError."""
        length = c_ulong()
        call = partial(self._session.call, "C_GetOperationState", doing="save a cipher")
        call(None, ctypes.byref(length))
        out = ctypes.create_string_buffer(length.value)
        call(out, ctypes.byref(length))
        return out.raw[: length.value]


class _Card:
    """The card of one handshake: a session in which its keys are made."""

    def __init__(self, key: CardKey, place: Place) -> None:
        self._key, self._place = key, place
        self._keys = self._open()

    def _open(self) -> LastingSession:
        return self._place.home.lasting.open(self._place.generation)

    def _call(self, function: str, mechanism: str, *arguments: object) -> None:
        self._keys.call(function, *arguments, mechanism=mechanism, doing=f'use key "{self._key.label}"')

    def derive(self, public: bytes, random_a: bytes | None, random_b: bytes) -> tuple[int, bytes]:
        """The TEK, and R_a; None: this card is the initiator and makes it."""
        a, b, y = (
            ctypes.create_string_buffer(value, PUBLIC_BYTES) for value in (random_a or bytes(PUBLIC_BYTES), random_b, public)
        )
        parameters = CK_KEA_DERIVE_PARAMS(
            random_a is None,
            PUBLIC_BYTES,
            *(ctypes.addressof(buffer) for buffer in (a, b)),
            PUBLIC_BYTES,
            ctypes.addressof(y),
        )
        template = _Template(_TEK)
        handle = c_ulong()
        mechanism = _Mechanism("CKM_KEA_KEY_DERIVE", parameters)
        base = self._place.handle
        self._call("C_DeriveKey", mechanism.name, mechanism.address, base, *template.arguments, ctypes.byref(handle))
        return handle.value, a.raw

    def generate(self) -> int:
        handle, template = c_ulong(), _Template(_MESSAGE_KEY)
        mechanism = _Mechanism("CKM_SKIPJACK_KEY_GEN")
        self._call("C_GenerateKey", mechanism.name, mechanism.address, *template.arguments, ctypes.byref(handle))
        return handle.value

    def wrap(self, tek: int, key: int) -> bytes:
        mechanism = _Mechanism("CKM_SKIPJACK_WRAP")
        out, length = ctypes.create_string_buffer(WRAPPED_BYTES), c_ulong(WRAPPED_BYTES)
        self._call("C_WrapKey", mechanism.name, mechanism.address, tek, key, out, ctypes.byref(length))
        return out.raw[: length.value]

    def unwrap(self, tek: int, wrapped: bytes) -> int:
        handle, template = c_ulong(), _Template(_MESSAGE_KEY)
        mechanism = _Mechanism("CKM_SKIPJACK_WRAP")
        arguments = (mechanism.address, tek, wrapped, len(wrapped), *template.arguments, ctypes.byref(handle))
        self._call("C_UnwrapKey", mechanism.name, *arguments)
        return handle.value

    def encrypt(self, key: int, data: bytes) -> tuple[bytes, bytes]:
        """The IV that the card made, and `data` encrypted, all at once."""
        iv = self._begin(self._keys, "C_EncryptInit", key, bytes(IV_BYTES))
        return iv, _result(partial(self._keys.call, "C_Encrypt"), data, len(data), doing="encrypt a secret")

    def decrypt(self, key: int, iv: bytes, data: bytes) -> bytes:
        self._begin(self._keys, "C_DecryptInit", key, iv)
        return _result(partial(self._keys.call, "C_Decrypt"), data, len(data), doing="decrypt a secret")

    def encryption(self, key: int) -> tuple[bytes, CardCipher]:
        """The IV that the card made, and a cipher that runs."""
        session = self._open()
        iv = self._begin(session, "C_EncryptInit", key, bytes(IV_BYTES))
        return iv, CardCipher(session, self._keys, encrypts=True)

    def decryption(self, key: int, iv: bytes) -> CardCipher:
        session = self._open()
        self._begin(session, "C_DecryptInit", key, iv)
        return CardCipher(session, self._keys, encrypts=False)

    def taken_up(self, key: int, state: bytes) -> CardCipher:
        """An encryption from where `CardCipher.state` left it."""
        session = self._open()
        session.call("C_SetOperationState", state, len(state), key, 0, doing="take up a cipher")
        return CardCipher(session, self._keys, encrypts=True)

    def storage_key(self) -> int:
        """Ks; 0 where there is none (PK11_FindFixedKey)."""
        template, handle, count = _Template(_KS), c_ulong(), c_ulong()
        for function, arguments in (
            ("C_FindObjectsInit", template.arguments),
            ("C_FindObjects", (ctypes.byref(handle), 1, ctypes.byref(count))),
            ("C_FindObjectsFinal", ()),
        ):
            self._keys.call(function, *arguments, doing="look for the key that keys are kept under")
        return handle.value if count.value else 0

    def keep(self, write_key: int, read_key: int, rest: Callable[[], bytes]) -> bytes:
        """What `take_up` wants; b"" where the card cannot."""
        storage = self.storage_key()
        if not storage:
            return b""
        try:
            return self.wrap(storage, write_key) + self.wrap(storage, read_key) + rest()
        except TokenError as error:
            if error.rv in GONE:
                raise
            return b""

    def _begin(self, session: LastingSession, function: str, key: int, iv: bytes) -> bytes:
        buffer = (c_ubyte * IV_BYTES).from_buffer_copy(iv)
        mechanism = _Mechanism("CKM_SKIPJACK_CBC64", buffer)
        session.call(function, mechanism.address, key, mechanism=mechanism.name, doing=f'use key "{self._key.label}"')
        return bytes(buffer)


# --- C ---------------------------------------------------------------------------------------------------------------

_Values = tuple[tuple[Attribute, c_ulong | c_ubyte], ...]
_SKIPJACK_KEY: _Values = (
    (Attribute.CLASS, c_ulong(ObjectClass.SECRET_KEY)),
    (Attribute.KEY_TYPE, c_ulong(KeyType._SKIPJACK)),
)
_YES = c_ubyte(True)
_KS: _Values = (*_SKIPJACK_KEY, (Attribute.TOKEN, _YES))
_SECRET_KEY: _Values = (*_SKIPJACK_KEY, (Attribute.TOKEN, c_ubyte(False)))
_TEK: _Values = (
    *_SECRET_KEY,
    (Attribute.VALUE_LEN, c_ulong(WRAPPED_BYTES)),
    *((attribute, _YES) for attribute in (Attribute.WRAP, Attribute.UNWRAP, Attribute.ENCRYPT, Attribute.DECRYPT)),
)
_MESSAGE_KEY: _Values = (*_SECRET_KEY, (Attribute.ENCRYPT, _YES), (Attribute.DECRYPT, _YES))


class _Template:
    """Attributes as C takes them."""

    def __init__(self, values: _Values) -> None:
        self._array = (CK_ATTRIBUTE * len(values))(
            *(CK_ATTRIBUTE(name, ctypes.addressof(value), ctypes.sizeof(value)) for name, value in values)
        )
        self.arguments = ctypes.addressof(self._array), len(values)


class _Mechanism:
    """A CK_MECHANISM, and its parameters as long as it is used."""

    def __init__(self, name: str, parameters: ctypes.Structure | ctypes.Array[c_ubyte] | None = None) -> None:
        self.name, self._parameters = name, parameters
        pointer, size = (ctypes.addressof(parameters), ctypes.sizeof(parameters)) if parameters is not None else (None, 0)
        self._mechanism = CK_MECHANISM(MECHANISM_NUMBERS[name], pointer, size)
        self.address = ctypes.addressof(self._mechanism)


def _result(call: Callable[..., None], data: bytes, size: int, doing: str) -> bytes:
    """What `call` makes of `data`, at most `size` bytes."""
    out, length = ctypes.create_string_buffer(size), c_ulong(size)
    call(data, len(data), ctypes.byref(out), ctypes.byref(length), mechanism="CKM_SKIPJACK_CBC64", doing=doing)
    return out.raw[: length.value]
