"""A database directory: certificates with nicknames and trust, CRLs, and private keys under the database password."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from .location import Location
from .records import CertificateRecord, CRLRecord, KeyRecord
from .trust import Trust


class Database:
    """An NSS database directory.  A context manager; safe to use from many threads."""

    read_only: bool
    directory: Path

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
        """Open `location`.  Raises DatabaseError (SEC_ERROR_BAD_DATABASE, SEC_ERROR_READ_ONLY, SEC_ERROR_LEGACY_DATABASE)."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget the key and close the files."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def has_password(self) -> bool:
        """False where no password was ever set, not even the empty one: the database needs initialising."""
        raise NotImplementedError

    @property
    def needs_login(self) -> bool:
        """Whether a password has to be given: it is not the empty one."""
        raise NotImplementedError

    @property
    def unlocked(self) -> bool:
        raise NotImplementedError

    def unlock(self, password: str) -> bool:
        """Check `password` and keep the key made of it; False where it is wrong."""
        raise NotImplementedError

    def lock(self) -> None:
        """Forget the key."""
        raise NotImplementedError

    def set_password(self, old: str | None, new: str) -> None:
        """Change the password: all keys are encrypted and all MACs made anew, at once or not at all.  Raises PinIncorrect."""
        raise NotImplementedError

    def certificates(
        self,
        *,
        nickname: str | None = None,
        der: bytes | None = None,
        subject: bytes | None = None,
        issuer_serial: tuple[bytes, int] | None = None,
    ) -> list[CertificateRecord]:
        """The certificates that match all that is given; subject and issuer are DER names."""
        raise NotImplementedError

    def add_certificate(self, der: bytes, nickname: str = "", trust: Trust | None = None) -> CertificateRecord:
        """Keep a certificate; one that is here already gets what is new.  Raises DatabaseError."""
        raise NotImplementedError

    def set_nickname(self, record: CertificateRecord, nickname: str) -> CertificateRecord:
        raise NotImplementedError

    def delete_certificate(self, record: CertificateRecord) -> None:
        """Delete a certificate and its trust; its key stays."""
        raise NotImplementedError

    def trust(self, der: bytes) -> Trust:
        """What is said of a certificate; no flags where nothing is.  `u` where its private key is here."""
        raise NotImplementedError

    def set_trust(self, der: bytes, trust: Trust) -> None:
        raise NotImplementedError

    def crls(self) -> list[CRLRecord]:
        raise NotImplementedError

    def add_crl(self, der: bytes, url: str = "") -> CRLRecord:
        raise NotImplementedError

    def delete_crl(self, record: CRLRecord) -> None:
        raise NotImplementedError

    def keys(self) -> list[KeyRecord]:
        """The private keys' public sides; no password needed."""
        raise NotImplementedError

    def private_key(self, record: KeyRecord) -> PrivateKeyTypes:
        """Decrypt a key; its MACs are checked.  Raises DatabaseLocked before `unlock`, DatabaseError where it is damaged."""
        raise NotImplementedError

    def add_key(self, private_key: PrivateKeyTypes, nickname: str = "") -> KeyRecord:
        """Keep a private key and its public key.  Raises DatabaseLocked before `unlock`."""
        raise NotImplementedError

    def delete_key(self, record: KeyRecord) -> None:
        """Delete a private key and its public key; its certificates stay."""
        raise NotImplementedError
