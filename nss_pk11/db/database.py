"""A database directory: certificates with nicknames and trust, CRLs, and private keys under the database password.

What NSS's softoken does with `cert9.db` and `key4.db`, without PKCS #11 between.  Writes to both files take their locks in
NSS's order (cert9, key4), and are laid out so that a crash between the two commits (key4's is first) leaves at most MACs without
an object, or one half of a key pair that was being added or deleted.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from ..errors import CertificateError, DatabaseError
from . import keys as key_attributes
from . import records
from .attributes import Attribute, KeyType, ObjectClass, ulong
from .location import Location, parse
from .protection import Protection
from .records import CertificateRecord, CRLRecord, KeyRecord
from .store import Store, StoredObject
from .trust import STORED, Trust, from_stored, to_stored

_A = Attribute


class Database:
    """An NSS database directory.  A context manager; safe to use from many threads."""

    def __init__(self, directory: Path, certificates: Store, keys: Store, *, read_only: bool) -> None:
        """For `open`."""
        self.directory, self.read_only = directory, read_only
        self._certificates, self._keys = certificates, keys
        self._lock = threading.RLock()
        self._protection = Protection(keys)

    def __repr__(self) -> str:
        return f"<Database {self.directory}{' read-only' if self.read_only else ''}>"

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str] | Location,
        *,
        read_only: bool = True,
        create: bool = False,
        cert_prefix: str = "",
        key_prefix: str = "",
    ) -> Self:
        """Open `location`; with `create` (and not `read_only`) make the files that are missing, in a directory that exists.

        A database whose password is empty is unlocked at once.  Raises DatabaseError (SEC_ERROR_BAD_DATABASE,
        SEC_ERROR_READ_ONLY, SEC_ERROR_LEGACY_DATABASE, SEC_ERROR_BUSY).
        """
        directory = parse(location).directory
        paths = (directory / f"{cert_prefix}cert9.db", directory / f"{key_prefix}key4.db")
        if not create and not paths[0].exists() and (directory / f"{cert_prefix}cert8.db").exists():
            parse(Location(directory, "dbm"))  # raises, with how to convert
        certificates = Store.open(paths[0], "nssPublic", read_only=read_only, create=create)
        try:
            keys = Store.open(paths[1], "nssPrivate", read_only=read_only, create=create)
        except BaseException:
            certificates.close()
            raise
        try:
            return cls(directory, certificates, keys, read_only=read_only)
        except BaseException:
            certificates.close()
            keys.close()
            raise

    def close(self) -> None:
        """Forget the key and close the files."""
        self.lock()
        self._certificates.close()
        self._keys.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- password ---

    @property
    def has_password(self) -> bool:
        """False where no password was ever set, not even the empty one: the database needs initialising."""
        return self._protection.has_password

    @property
    def needs_login(self) -> bool:
        """Whether a password has to be given: it is not the empty one."""
        return self._protection.needs_login

    @property
    def unlocked(self) -> bool:
        return self._protection.unlocked

    @property
    def version(self) -> tuple[object, ...]:
        """Another value whenever answers may be other than before: somebody wrote something, or it was unlocked or locked."""
        return self._certificates.version, self._keys.version, self.unlocked

    def unlock(self, password: str) -> bool:
        """Check `password` and keep the key made of it; False where it is wrong."""
        with self._lock:
            return self._protection.unlock(password)

    def lock(self) -> None:
        """Forget the key."""
        with self._lock:
            self._protection.lock()

    def set_password(self, old: str | None, new: str) -> None:
        """Set the first password, or change it: all keys are encrypted and all MACs made anew, at once or not at all.

        Unlocked afterwards.  Raises PinIncorrect (`old` is wrong), DatabaseError (a key cannot be read; nothing is changed).
        """
        with self._lock:
            self._protection.change(self._certificates, old, new)

    # --- certificates ---

    def certificates(
        self,
        *,
        nickname: str | None = None,
        der: bytes | None = None,
        subject: bytes | None = None,
        issuer_serial: tuple[bytes, int] | None = None,
    ) -> list[CertificateRecord]:
        """The certificates that match all that is given; subject and issuer are DER names."""
        template: dict[int, bytes] = {_A.object_class: ulong(ObjectClass.certificate)}
        given = {_A.label: None if nickname is None else nickname.encode(), _A.value: der, _A.subject: subject}
        template |= {name: value for name, value in given.items() if value is not None}
        if issuer_serial is not None:
            template |= {_A.issuer: issuer_serial[0], _A.serial_number: records.serial_number(issuer_serial[1])}
        return [records.certificate_record(stored) for stored in self._certificates.find(template)]

    def add_certificate(self, der: bytes, nickname: str = "", trust: Trust | None = None) -> CertificateRecord:
        """Keep a certificate; one that is here already gets the nickname and trust that are given.

        Raises DatabaseError (SEC_ERROR_CERT_NICKNAME_COLLISION where another subject has the nickname), DatabaseLocked
        (trust needs the password), CertificateError (SEC_ERROR_BAD_DER; SEC_ERROR_REUSED_ISSUER_AND_SERIAL).
        """
        attributes = records.certificate_attributes(der, nickname)
        with self._lock, self._certificates.transaction():
            self._refuse_collision(nickname, attributes[_A.subject])
            same: dict[int, bytes] = {name: attributes[name] for name in (_A.object_class, _A.issuer, _A.serial_number)}
            existing = self._certificates.find(same)
            if any(stored.get(_A.value) != der for stored in existing):
                text = "another certificate of this issuer has the same serial number"
                raise CertificateError(text, name="SEC_ERROR_REUSED_ISSUER_AND_SERIAL")
            if existing:
                if nickname:
                    self._certificates.update(existing[0].id, {_A.label: nickname.encode()})
            else:
                self._certificates.insert(attributes)
            if trust is not None:
                self.set_trust(der, trust)
        return self.certificates(der=der)[0]

    def set_nickname(self, record: CertificateRecord, nickname: str) -> CertificateRecord:
        """Give a certificate another nickname.  Raises DatabaseError (SEC_ERROR_CERT_NICKNAME_COLLISION)."""
        with self._lock, self._certificates.transaction():
            stored = self._the(self._certificates, record.id, ObjectClass.certificate)
            self._refuse_collision(nickname, stored.get(_A.subject))
            self._certificates.update(record.id, {_A.label: nickname.encode()})
            return records.certificate_record(self._the(self._certificates, record.id, ObjectClass.certificate))

    def delete_certificate(self, record: CertificateRecord) -> None:
        """Delete a certificate and its trust; its key stays."""
        with self._lock, self._both():
            for stored in self._trust_objects(record.der):
                self._delete(stored)
            self._certificates.delete(record.id)

    # --- trust ---

    def trust(self, der: bytes) -> Trust:
        """What is said of a certificate; no flags where nothing is.  `u` where its private key is here."""
        return self.recorded_trust(der) or from_stored({}, self._is_mine(der))

    def recorded_trust(self, der: bytes) -> Trust | None:
        """The same, or None where nothing is said: no flags (",,") are a saying too, which overrules a root module's.

        Once unlocked, an object in which a MAC does not fit says nothing: somebody else wrote it.
        """
        for stored in self._trust_objects(der):
            values = {name: value for name in STORED if (value := stored.get(name))}
            if all(self._protection.is_genuine("cert", stored.id, name, value) for name, value in values.items()):
                return from_stored({name: int.from_bytes(value, "big") for name, value in values.items()}, self._is_mine(der))
        return None

    def _is_mine(self, der: bytes) -> bool:
        """Whether the certificate's private key is here."""
        id = records.certificate_attributes(der, "")[_A.id]
        return bool(self._keys.find({_A.object_class: ulong(ObjectClass.private_key), _A.id: id}))

    def set_trust(self, der: bytes, trust: Trust) -> None:
        """Say `trust` of a certificate, in place of what was said.  Raises DatabaseLocked before `unlock`."""
        attributes = records.trust_attributes(der, to_stored(trust))
        with self._lock, self._both():
            self._protection.require()
            # A new object instead of a change: its MACs are committed first, then it takes the place of the old one at once.
            before = self._trust_objects(der, whole=False)
            self._protection.sign("cert", self._certificates.insert(attributes), attributes)
            for stored in before:
                self._certificates.delete(stored.id)
        with self._both():
            for stored in before:
                self._protection.forget("cert", stored.id)

    def _trust_objects(self, der: bytes, whole: bool = True) -> list[StoredObject]:
        """The trust objects of a certificate; `whole`: those of its digest alone."""
        template = {_A.object_class: ulong(ObjectClass.nss_trust)} | records.place(der)
        digest = hashlib.sha1(der, usedforsecurity=False).digest()
        found = self._certificates.find(template)
        return [stored for stored in found if not whole or stored.get(_A.cert_sha1_hash) in (b"", digest)]

    # --- CRLs ---

    def crls(self) -> list[CRLRecord]:
        """The revocation lists that are kept."""
        return [records.crl_record(stored) for stored in self._certificates.find({_A.object_class: ulong(ObjectClass.nss_crl)})]

    def add_crl(self, der: bytes, url: str = "") -> CRLRecord:
        """Keep a CRL in place of its issuer's older one.  Its signature is the caller's business.

        Raises CertificateError (SEC_ERROR_CRL_INVALID; SEC_ERROR_OLD_CRL where a newer one is here).
        """
        attributes = records.crl_attributes(der, url)
        with self._lock, self._certificates.transaction():
            same: dict[int, bytes] = {name: attributes[name] for name in (_A.object_class, _A.subject)}
            for stored in self._certificates.find(same):
                if self._newer(stored.get(_A.value), der):
                    raise CertificateError("a newer CRL of this issuer is here", name="SEC_ERROR_OLD_CRL")
                self._certificates.delete(stored.id)
            object_id = self._certificates.insert(attributes)
            return records.crl_record(self._the(self._certificates, object_id, ObjectClass.nss_crl))

    def delete_crl(self, record: CRLRecord) -> None:
        """Delete a CRL."""
        self._certificates.delete(record.id)

    @staticmethod
    def _newer(kept: bytes, der: bytes) -> bool:
        try:
            return records.crl_date(kept) > records.crl_date(der)
        except (ValueError, TypeError, KeyError):
            return False  # what does not parse gives way

    # --- keys ---

    def keys(self) -> list[KeyRecord]:
        """The private keys' public sides, but for those on curves unknown here; no password needed.  Raises DatabaseError where
        one makes no sense."""
        found = self._keys.find({_A.object_class: ulong(ObjectClass.private_key)})
        return [self._key_record(stored) for stored in found if key_attributes.is_known(stored.attributes)]

    def private_key(self, record: KeyRecord) -> PrivateKeyTypes:
        """Decrypt a key; its MACs are checked.  Raises DatabaseLocked before `unlock`, DatabaseError where it is damaged."""
        with self._lock:
            self._protection.require()
            stored = self._the(self._keys, record.id, ObjectClass.private_key)
            for name in (_A.modulus, _A.public_exponent):
                if (value := stored.get(name)) and not self._protection.is_genuine("key", stored.id, name, value):
                    raise DatabaseError("a key of the database was changed: its MAC does not fit")
            return key_attributes.private_key(self._with_public_value(stored), self._protection.decrypted(stored))

    def add_key(self, private_key: PrivateKeyTypes, nickname: str = "") -> KeyRecord:
        """Keep a private key and its public key; one that is here already gets the nickname.  Raises DatabaseLocked."""
        key_id = key_attributes.key_id(private_key.public_key())
        with self._lock, self._both():
            self._protection.require()
            subject = next((stored.get(_A.subject) for stored in self._with_id(self._certificates, 1, key_id)), b"")
            public, private, secret = key_attributes.to_objects(private_key, nickname, subject)
            existing = self._with_id(self._keys, ObjectClass.private_key, key_id)
            if existing:
                object_id = existing[0].id
                if nickname:
                    self._keys.update(object_id, {_A.label: nickname.encode()})
            else:
                object_id = self._keys.insert(private)
                self._keys.update(object_id, self._protection.encrypted(object_id, secret))
                self._protection.sign("key", object_id, private)
            if not self._with_id(self._certificates, ObjectClass.public_key, key_id):
                self._protection.sign("cert", self._certificates.insert(public), public)
            return self._key_record(self._the(self._keys, object_id, ObjectClass.private_key))

    def delete_key(self, record: KeyRecord) -> None:
        """Delete a private key and its public key; its certificates stay."""
        with self._lock, self._both():
            for stored in self._with_id(self._certificates, ObjectClass.public_key, record.key_id):
                self._delete(stored)
            self._protection.forget("key", record.id)
            self._keys.delete(record.id)

    def _key_record(self, stored: StoredObject) -> KeyRecord:
        public_key = key_attributes.public_key(self._with_public_value(stored))
        kind = key_attributes.KINDS[KeyType(int.from_bytes(stored.get(_A.key_type), "big"))]
        return KeyRecord(stored.id, stored.get(_A.id), records.text(stored.get(_A.label)), kind, public_key)

    def _with_public_value(self, stored: StoredObject) -> dict[int, bytes]:
        """The key's attributes; a public value it lacks is taken from its public key's object."""
        attributes = dict(stored.attributes)
        if not attributes.get(_A.nss_db):
            for public in self._with_id(self._certificates, ObjectClass.public_key, stored.get(_A.id))[:1]:
                attributes[_A.nss_db] = public.get(_A.ec_point) or public.get(_A.value)
        return attributes

    # --- both files ---

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Several changes as one: all or none is kept.  Raises DatabaseError (SEC_ERROR_READ_ONLY, SEC_ERROR_BUSY)."""
        with self._lock, self._both():
            yield

    @contextmanager
    def _both(self) -> Iterator[None]:
        """A transaction over both files; key4.db is committed first."""
        with self._certificates.transaction(), self._keys.transaction():
            yield

    def _delete(self, stored: StoredObject) -> None:
        """Delete an object of cert9.db with its MACs."""
        self._certificates.delete(stored.id)
        self._protection.forget("cert", stored.id)

    def _with_id(self, store: Store, object_class: int, key_id: bytes) -> list[StoredObject]:
        return store.find({_A.object_class: ulong(object_class), _A.id: key_id})

    def _the(self, store: Store, object_id: int, object_class: ObjectClass) -> StoredObject:
        stored = store.get(object_id)
        if stored is None or stored.get(_A.object_class) != ulong(object_class):
            raise DatabaseError("what was asked for is no longer in the database", name="SEC_ERROR_UNKNOWN_OBJECT_TYPE")
        return stored

    def _refuse_collision(self, nickname: str, subject: bytes) -> None:
        """NSS finds all certificates of a subject by one nickname, and no others."""
        if nickname and any(
            stored.get(_A.subject) != subject
            for stored in self._certificates.find({_A.object_class: ulong(ObjectClass.certificate), _A.label: nickname.encode()})
        ):
            text = f"the nickname {nickname!r} is that of another certificate"
            raise DatabaseError(text, name="SEC_ERROR_CERT_NICKNAME_COLLISION")
