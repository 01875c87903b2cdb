"""The database password: who may read the keys, and whether what is read is what was written.

Encrypted values and MACs all live in key4.db, the MACs of cert9.db's trust and public keys too.  The key made of the password
is kept from `unlock` to `lock`, and only while the password in the file is still the one it was made for: another process may
change it at any time, and values protected under an old key would be lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import ConfigurationError, DatabaseError, DatabaseLocked, PinIncorrect
from . import crypto
from .attributes import AUTHENTICATED, ENCRYPTED, Attribute, ObjectClass, ulong
from .store import Store, StoredObject

_PASSWORD = "password"
_MISFILED = 0xC0000000  # NSS bug 1720226: after a password change MACs were filed under PKCS #11 handles, not object numbers
_SIGNED_IN_CERT9 = (ObjectClass.nss_trust, ObjectClass.public_key, 0x0B)  # 0x0B: CKO_TRUST of newer NSS


class Protection:
    """The password of one key4.db and what it protects.  Its methods take part in the transaction of the caller."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = b""
        self._row: tuple[bytes, bytes] | None = None  # the password row that the key is of
        if self.has_password and not self.needs_login:
            self.unlock("")  # NSS, too, is logged in at once where the password is empty

    @property
    def has_password(self) -> bool:
        return self._store.metadata.get(_PASSWORD) is not None

    @property
    def needs_login(self) -> bool:
        """One iteration and the empty password's key: nothing to ask for."""
        row = self._store.metadata.get(_PASSWORD)
        return row is not None and not self._opens(row, "")

    @property
    def unlocked(self) -> bool:
        return bool(self._key) and self._row == self._store.metadata.get(_PASSWORD)

    def unlock(self, password: str) -> bool:
        """Keep the key of `password` if it is the right one."""
        row = self._store.metadata.get(_PASSWORD)
        if row is None or not self._opens(row, password):
            return False
        self._key, self._row = crypto.pass_key(row[0], password), row
        return True

    def lock(self) -> None:
        """Forget the key."""
        self._key, self._row = b"", None

    def require(self) -> None:
        """Raises DatabaseLocked unless keys can be read and MACs made."""
        if not self._key:
            text = "the database is locked: its password has not been given" if self.has_password else "no password is set yet"
            raise DatabaseLocked(text)
        if not self.unlocked:
            self.lock()
            raise DatabaseLocked("the password of the database was changed elsewhere")

    # --- values ---

    def decrypt(self, object_id: int, attribute: int, blob: bytes) -> bytes:
        """The plaintext of an encrypted attribute of key4.db; its MAC is checked.  Raises DatabaseLocked, DatabaseError."""
        self.require()
        value = crypto.decrypt(self._key, blob)
        if crypto.has_mac(blob) and not any(
            self._verified(_name("key", number, attribute), 0, attribute, value) for number in (object_id, object_id | _MISFILED)
        ):
            raise DatabaseError("a private value of the database was changed: its MAC does not fit")
        return value

    def decrypted(self, stored: StoredObject) -> dict[int, bytes]:
        """All plaintexts of an object of key4.db."""
        return {name: self.decrypt(stored.id, name, blob) for name in ENCRYPTED if (blob := stored.get(name))}

    def encrypted(self, object_id: int, values: Mapping[int, bytes]) -> dict[int, bytes]:
        """The attributes to store for plaintexts; keeps their MACs."""
        self.require()
        return self._encrypted(self._key, self._iterations(), object_id, values)

    def sign(self, kind: str, object_id: int, attributes: Mapping[int, bytes]) -> None:
        """Keep the MACs of those attributes that have one.  `kind` is the file: cert or key."""
        self.require()
        self._sign(self._key, self._iterations(), kind, object_id, attributes)

    def is_genuine(self, kind: str, object_id: int, attribute: int, value: bytes) -> bool:
        """Whether the MAC of a plain attribute fits.  True while locked: nothing can be said then."""
        return not self.unlocked or self._verified(_name(kind, object_id, attribute), object_id, attribute, value)

    def forget(self, kind: str, object_id: int) -> None:
        """Delete the MACs of an object."""
        for attribute in (*AUTHENTICATED, *(ENCRYPTED if kind == "key" else ())):
            self._store.metadata.delete(_name(kind, object_id, attribute))

    # --- the password ---

    def change(self, certificates: Store, old: str | None, new: str) -> None:
        """Set the first password, or change it: everything is read under the old key and protected anew.

        Raises PinIncorrect, or DatabaseError where a private value cannot be read; nothing is changed then.
        """
        if "\0" in new:
            raise ConfigurationError(
                "a password has no NUL in it: NSS would read it as its end", name="SEC_ERROR_INVALID_PASSWORD"
            )
        with certificates.transaction(), self._store.transaction():
            row = self._store.metadata.get(_PASSWORD)
            before = (self._key, self._row)
            if row is not None and not self.unlock(old or ""):
                raise PinIncorrect("this is not the password of the database")
            try:
                salt = crypto.new_salt(len(row[0]) if row and new else 0)
                key, iterations = crypto.pass_key(salt, new), crypto.default_iterations() if new else 1
                if row is not None:
                    self._convert(certificates, key, iterations)
                self._store.metadata.put(_PASSWORD, salt, crypto.password_check(key, iterations))
            except BaseException:
                self._key, self._row = before
                raise
        self.unlock(new)

    def _convert(self, certificates: Store, key: bytes, iterations: int) -> None:
        for stored in self._store.find({}):
            values = self.decrypted(stored)
            self._convert_macs("key", stored, key, iterations)
            self._store.update(stored.id, self._encrypted(key, iterations, stored.id, values))
        for object_class in _SIGNED_IN_CERT9:
            for stored in certificates.find({Attribute.object_class: ulong(object_class)}):
                self._convert_macs("cert", stored, key, iterations)

    def _convert_macs(self, kind: str, stored: StoredObject, key: bytes, iterations: int) -> None:
        """Make anew only the MACs that fit: a value that was tampered with stays recognisable."""
        for attribute in AUTHENTICATED:
            if value := stored.get(attribute):
                if self._verified(_name(kind, stored.id, attribute), stored.id, attribute, value):
                    self._sign(key, iterations, kind, stored.id, {attribute: value})
                else:
                    self._store.metadata.delete(_name(kind, stored.id, attribute))

    # --- with a given key ---

    def _encrypted(self, key: bytes, iterations: int, object_id: int, values: Mapping[int, bytes]) -> dict[int, bytes]:
        for attribute, value in values.items():
            self._store.metadata.put(_name("key", object_id, attribute), crypto.sign(key, 0, attribute, value, iterations))
            self._store.metadata.delete(_name("key", object_id | _MISFILED, attribute))
        return {attribute: crypto.encrypt(key, value, iterations) for attribute, value in values.items()}

    def _sign(self, key: bytes, iterations: int, kind: str, object_id: int, attributes: Mapping[int, bytes]) -> None:
        for attribute in _authenticated(attributes):
            mac = crypto.sign(key, object_id, attribute, attributes[attribute], iterations)
            self._store.metadata.put(_name(kind, object_id, attribute), mac)

    def _verified(self, name: str, object_id: int, attribute: int, value: bytes) -> bool:
        row = self._store.metadata.get(name)
        return row is not None and crypto.verify(self._key, object_id, attribute, value, row[0])

    def _iterations(self) -> int:
        """As many as the environment says, but one for the empty password, which protects nothing."""
        assert self._row is not None
        return 1 if crypto.iterations_of(self._row[1]) == 1 else crypto.default_iterations()

    def _opens(self, row: tuple[bytes, bytes], password: str) -> bool:
        salt, check = row
        if not password and crypto.iterations_of(check) != 1:
            return False
        return crypto.is_right(crypto.pass_key(salt, password), check)


def _authenticated(attributes: Iterable[int]) -> list[int]:
    return [attribute for attribute in attributes if attribute in AUTHENTICATED]


def _name(kind: str, object_id: int, attribute: int) -> str:
    return f"sig_{kind}_{object_id:08x}_{attribute:08x}"
