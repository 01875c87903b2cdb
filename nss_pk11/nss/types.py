"""What the functions of NSS hand around: slots, modules, certificates and keys (certt.h, keythi.h, secmodt.h).

Each is a thin wrapper of the package's own object, and a `Reference`: as long as one lives, NSS cannot be shut down.  Fields that
C programs read have their names of C.  Two wrappers of one thing are equal, where C has one pointer.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..db.modules import INTERNAL_NAME
from ..errors import NotFound, NSPRError
from ..slots import Module, PrivateKey, Slot, Token
from ._state import Reference

__all__ = ["CERTCertificate", "CERTValidity", "PK11SlotInfo", "SECKEYPrivateKey", "SECKEYPublicKey", "SECMODModule"]


class PK11SlotInfo(Reference):
    """A slot and what is in it (secmodt.h)."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.slot = slot

    @property
    def token(self) -> Token:
        """Raises NotFound (SEC_ERROR_NO_TOKEN) while there is none in it."""
        token = self.slot.token
        if token is None:
            raise NotFound(f"slot {self.slot.description!r} is empty", slot=self.slot.description)
        return token

    @property
    def name(self) -> tuple[str, int]:
        """What tells this slot from any other: its module's path and its number."""
        return self.slot.module.path, self.slot.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PK11SlotInfo) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<PK11SlotInfo {self.slot.description!r}>"


class SECMODModule(Reference):
    """A PKCS #11 module in use (secmodt.h)."""

    def __init__(self, module: Module, commonName: str = "", libraryParams: str = "") -> None:
        super().__init__()
        self.module = module
        self.internal = not module.path
        self.commonName = commonName or (INTERNAL_NAME if self.internal else module.path)
        self.dllName: str | None = module.path or None
        self.libraryParams = libraryParams
        self.isFIPS, self.loaded = False, True

    @property
    def slots(self) -> list[PK11SlotInfo]:
        return [PK11SlotInfo(slot) for slot in self.module.slots()]

    @property
    def slotCount(self) -> int:
        return len(self.module.slots())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SECMODModule) and other.module is self.module

    def __hash__(self) -> int:
        return hash(self.module)

    def __repr__(self) -> str:
        return f"<SECMODModule {self.commonName!r}>"


class CERTValidity(NamedTuple):
    notBefore: datetime
    notAfter: datetime


class CERTCertificate(Reference):
    """A certificate (certt.h).  `nickname` is `token:nickname` where it lies on another token than the database's."""

    def __init__(self, derCert: bytes, nickname: str = "", slot: Slot | None = None) -> None:
        """Raises NSPRError (SEC_ERROR_BAD_DER)."""
        super().__init__()
        self.derCert, self.nickname = derCert, nickname
        self._slot = slot
        try:
            self.x509 = x509.load_der_x509_certificate(derCert)
        except ValueError:
            raise NSPRError("this is no certificate", name="SEC_ERROR_BAD_DER") from None

    @property
    def slot(self) -> PK11SlotInfo | None:
        """Where it lies; None for a temporary one."""
        return PK11SlotInfo(self._slot) if self._slot else None

    @property
    def isperm(self) -> bool:
        return self._slot is not None

    @property
    def istemp(self) -> bool:
        return self._slot is None

    @cached_property
    def subjectName(self) -> str:
        return self.x509.subject.rfc4514_string()

    @cached_property
    def issuerName(self) -> str:
        return self.x509.issuer.rfc4514_string()

    @cached_property
    def derSubject(self) -> bytes:
        return self.x509.subject.public_bytes()

    @cached_property
    def derIssuer(self) -> bytes:
        return self.x509.issuer.public_bytes()

    @property
    def serialNumber(self) -> int:
        return self.x509.serial_number

    @property
    def validity(self) -> CERTValidity:
        """In UTC."""
        return CERTValidity(self.x509.not_valid_before_utc, self.x509.not_valid_after_utc)

    @cached_property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, b"" where it holds a key of no known kind."""
        try:
            return self.x509.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm):
            return b""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CERTCertificate) and other.derCert == self.derCert

    def __hash__(self) -> int:
        return hash(self.derCert)

    def __repr__(self) -> str:
        return f"<CERTCertificate {self.nickname or self.subjectName!r}>"


class SECKEYPrivateKey(Reference):
    """A private key on a token (keythi.h); `key` does the work, `wincx` goes to the password function."""

    def __init__(self, key: PrivateKey, slot: Slot, wincx: object = None) -> None:
        super().__init__()
        self.key, self.wincx, self._slot = key, wincx, slot

    @property
    def pkcs11Slot(self) -> PK11SlotInfo:
        return PK11SlotInfo(self._slot)

    @property
    def keyType(self) -> str:
        """ "rsa", "ec", "dsa", "ed25519"."""
        return self.key.kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SECKEYPrivateKey) and other.key.uri == self.key.uri

    def __hash__(self) -> int:
        return hash(self.key.uri)

    def __repr__(self) -> str:
        return f"<SECKEYPrivateKey {self.key.uri}>"


class SECKEYPublicKey:
    """A public key (keythi.h).  Differs: not counted among what is held, as it lies on no token."""

    def __init__(self, key: PublicKeyTypes) -> None:
        self.key = key
