"""The token "NSS Certificate DB": an NSS database directory as a token of the internal module.

Keys are decrypted when they are first used after a login, and forgotten at logout.  Touches `db`, and PIN providers by
`LoginGuard` alone; files only through `db`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from ...db import CertificateRecord, Database, KeyRecord
from ...errors import ConfigurationError, DatabaseLocked, NotFound, PinIncorrect, TokenError
from ...pins import value
from .. import faults
from ..login import LoginGuard, PinMemory
from ..model import Algorithm, MechanismInfo, PrivateKey, PublicKey, Slot, Token, TokenCertificate, TokenInfo
from ..publickeys import bits_of, kind_of
from ..uri import object_uri
from .keys import SoftwareKey, algorithms_of
from .module import InternalModule, Offer

if TYPE_CHECKING:
    from ...pins import PinProvider

TOKEN_NAME = "NSS Certificate DB"
SLOT_NAME = "NSS User Private Key and Certificate Services"
FIRST_SLOT = 2  # NETSCAPE_SLOT_KEY of NSS; further databases count on

_GENERATORS: dict[str, Callable[[], PrivateKeyTypes]] = {
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa4096": lambda: rsa.generate_private_key(65537, 4096),
    "dsa1024": lambda: dsa.generate_private_key(1024),
    "dsa2048": lambda: dsa.generate_private_key(2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


def token_info(database: Database, slot_id: int) -> TokenInfo:
    """Named as NSS names it, so that URIs which NSS tools print fit; `module` is the directory, which tells databases apart."""
    return TokenInfo(
        label=TOKEN_NAME,
        serial="0000000000000000",
        manufacturer="Mozilla Foundation",
        model="NSS 3",
        slot=SLOT_NAME,
        slot_id=slot_id,
        module=str(database.directory),
    )


class DatabaseToken(Token):
    """Certificates and public keys show without login."""

    def __init__(self, database: Database, slot_id: int, offer: Offer, pins: PinProvider | None, memory: PinMemory) -> None:
        self.database = database
        self._offer = offer
        self.info = token_info(database, slot_id)
        self._pins, self._memory = pins, memory
        self._guard = LoginGuard(self.info, lambda: self.flags, memory)
        self._decrypted: dict[int, SoftwareKey] = {}
        self._lock = threading.Lock()

    @property
    def flags(self) -> frozenset[str]:
        database = self.database
        holds = {
            "CKF_RNG": True,
            "CKF_TOKEN_INITIALIZED": True,
            "CKF_USER_PIN_INITIALIZED": database.has_password,
            "CKF_LOGIN_REQUIRED": database.needs_login,
            "CKF_WRITE_PROTECTED": database.read_only,
        }
        return frozenset(flag for flag, does in holds.items() if does)

    def mechanisms(self) -> dict[str, MechanismInfo]:
        return self._offer.mechanisms()

    # --- login -------------------------------------------------------------------------------------------------------

    @property
    def logged_in(self) -> bool:
        return self.database.unlocked

    def login(self, pins: PinProvider | None = None) -> None:
        database = self.database
        if database.unlocked:
            return
        if database.needs_login:
            self._guard.login(pins or self._pins, self._send_password, lambda: database.unlocked)
        elif database.has_password:
            database.unlock("")

    def _send_password(self, password: str | None) -> int:
        return faults.OK if self.database.unlock(password or "") else faults.PIN_INCORRECT

    def logout(self) -> None:
        """Forget the database's key and every private key."""
        with self._lock:
            self.database.lock()
            self._decrypted.clear()

    def check_pin(self, pin: str) -> None:
        self.logout()
        if self.database.needs_login:
            self._guard.login(value(pin), self._send_password, lambda: self.database.unlocked)
        elif not self.database.unlock(pin):
            raise PinIncorrect("the password of the database is another", token=TOKEN_NAME, module=self.info.module)

    def change_pin(self, old: str, new: str) -> None:
        self.check_pin(old)
        self.database.set_password(old, new)
        self._memory.forget(self.info)

    def set_first_pin(self, so_pin: str, pin: str) -> None:
        """A database has no security officer: only one that has no password yet takes one in this way."""
        if self.database.has_password:
            raise PinIncorrect("the database has a password already", token=TOKEN_NAME)
        self.database.set_password(None, pin)
        self._memory.forget(self.info)

    def decrypted(self, record: KeyRecord, label: str) -> SoftwareKey:
        """A key as it is used.  Raises DatabaseLocked unless logged in, DatabaseError where it is damaged."""
        with self._lock:
            if not self.database.unlocked:
                self._decrypted.clear()
            known = self._decrypted.get(record.id)
            if known is None:
                known = SoftwareKey(self.database.private_key(record), label, self.info, record.key_id)
                self._decrypted[record.id] = known
            return known

    # --- what is in it -----------------------------------------------------------------------------------------------

    def find_keys(self, pins: PinProvider | None = None, label: str | None = None, id: bytes | None = None) -> list[PrivateKey]:
        keys = (DatabaseKey(self, record, name, pins or self._pins) for record, name in self._named_keys())
        return [key for key in keys if label in (None, key.label) and id in (None, key.id)]

    def public_names(self) -> list[tuple[str, bytes]]:
        return [(name, record.key_id) for record, name in self._named_keys()]

    def _named_keys(self) -> list[tuple[KeyRecord, str]]:
        """certutil gives a key no nickname: it has that of its certificate."""
        records = self.database.keys()
        names = {item.key_id: item.nickname for item in self.database.certificates() if item.key_id} if records else {}
        return [(record, record.nickname or names.get(record.key_id, "")) for record in records]

    def certificates(self) -> list[TokenCertificate]:
        return [self._certificate(record) for record in self.database.certificates()]

    def _certificate(self, record: CertificateRecord) -> TokenCertificate:
        uri = object_uri(self.info, "cert", record.nickname, record.key_id)
        return TokenCertificate(record.der, record.nickname, record.key_id, uri, self.info)

    # --- changes -----------------------------------------------------------------------------------------------------

    def generate_key(self, kind: str, label: str, id: bytes = b"") -> PrivateKey:
        if kind not in _GENERATORS:
            raise ConfigurationError(
                f"a key is one of {', '.join(_GENERATORS)}, not {kind!r}", name="SEC_ERROR_UNSUPPORTED_KEYALG"
            )
        if id:
            raise ConfigurationError("an NSS database makes the ids of its keys itself")
        self.login()
        record = self.database.add_key(_GENERATORS[kind](), label)
        return DatabaseKey(self, record, label, self._pins)

    def import_certificate(self, der: bytes, label: str, id: bytes) -> TokenCertificate:
        try:
            x509.load_der_x509_certificate(der)
        except ValueError:
            raise ConfigurationError("what is to be imported is no certificate", name="SEC_ERROR_BAD_DER") from None
        return self._certificate(self.database.add_certificate(der, label))

    def delete(self, item: PrivateKey | TokenCertificate) -> None:
        if isinstance(item, TokenCertificate):
            for certificate in self.database.certificates(der=item.der):
                self.database.delete_certificate(certificate)
                return
        else:
            for key in self.database.keys():  # noqa: SIM118 - no dict
                if key.key_id == item.id:
                    self.database.delete_key(key)
                    with self._lock:
                        self._decrypted.pop(key.id, None)
                    return
        raise NotFound("there is no such object in the database", name="SEC_ERROR_NO_KEY", token=self.info.label)

    def initialise(self, label: str, so_pin: str | None, pin: str | None) -> NoReturn:
        raise TokenError("an NSS database is not initialised anew: create another", token=self.info.label)

    def close(self) -> None:
        self.logout()
        self.database.close()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._guard.after_fork()
        for key in self._decrypted.values():
            key.after_fork()


class DatabaseKey:
    """A `PrivateKey` of a database.  Used without a login it asks for one, as a token's key does that was logged out."""

    sensitive = True
    extractable = True  # with the password: PKCS #12
    local = False
    always_authenticate = False
    can_decrypt_raw = SoftwareKey.can_decrypt_raw
    parallel = os.cpu_count() or 1

    def __init__(self, home: DatabaseToken, record: KeyRecord, label: str, pins: PinProvider | None) -> None:
        self.home, self.token, self.label, self.id = home, home.info, label, record.key_id
        self._record, self._pins = record, pins
        self.uri = object_uri(home.info, "private", label, record.key_id)
        public = record.public_key
        self._public: PublicKey | None = public if isinstance(public, PublicKey) else None
        self.kind = kind_of(self._public) if self._public is not None else f"CKK_{record.kind.upper()}"
        self.bits = bits_of(self._public) if self._public is not None else 0
        self.algorithms: frozenset[Algorithm] = algorithms_of(self.kind, self.bits)
        self.can_decrypt = self.kind == "rsa"
        self.latency = 1e-3 if self.kind == "rsa" else 1e-4  # seconds; a guess until it is used
        self.operations = 0
        self._lock = threading.Lock()

    @property
    def public_key(self) -> PublicKey:
        if self._public is None:
            raise NotFound(f'key "{self.label}" is of a type that TLS has no use for', name="SEC_ERROR_UNSUPPORTED_KEYALG")
        return self._public

    def mechanism(self, algorithm: Algorithm) -> str:
        return ""

    def sign(self, algorithm: Algorithm, message: bytes, *, prehashed: bool = False, patient: bool = True) -> bytes:
        key = self._key(patient)
        signature = key.sign(algorithm, message, prehashed=prehashed, patient=patient)
        self._count(key)
        return signature

    def decrypt(self, ciphertext: bytes, *, raw: bool = False, patient: bool = True) -> bytes | None:
        key = self._key(patient)
        plaintext = key.decrypt(ciphertext, raw=raw, patient=patient)
        self._count(key)
        return plaintext

    def _key(self, patient: bool) -> SoftwareKey:
        try:
            return self.home.decrypted(self._record, self.label)
        except DatabaseLocked:
            if not patient:
                raise
        self.home.login(self._pins)
        return self.home.decrypted(self._record, self.label)

    def _count(self, key: SoftwareKey) -> None:
        with self._lock:
            self.operations += 1
            self.latency = key.latency

    def __repr__(self) -> str:
        return f"<{self.kind} database key {self.uri}>"


class DatabaseSlot(Slot):
    """Where one database is; it stays while the manager does."""

    description = SLOT_NAME
    manufacturer = "Mozilla Foundation"
    removable = False
    hardware = False

    def __init__(self, module: InternalModule, id: int, database: Database, pins: PinProvider | None, memory: PinMemory) -> None:
        self.module, self.id = module, id
        self.contents = DatabaseToken(database, id, module.offer, pins, memory)

    @property
    def token(self) -> DatabaseToken:
        return self.contents
