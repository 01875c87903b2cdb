"""What the functions of NSS hand around: slots, modules, certificates and keys (certt.h, keythi.h, secmodt.h).

Each is a thin wrapper of the package's own object, and a `Reference`: as long as one lives, NSS cannot be shut down.  Fields that
C programs read have their names of C.  Two wrappers of one thing are equal, where C has one pointer.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Self

import asn1crypto.x509
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ..certs.info import PARSE_ERRORS
from ..db.modules import INTERNAL_NAME
from ..errors import NotFound, NSPRError
from ..slots import Module, PrivateKey, Slot, Token, kea
from ..slots.kea import KeaPublicKey
from ._names import UNREADABLE, rfc1485
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
        self.derCert, self.nickname, self._slot = derCert, nickname, slot
        try:
            self._parts = parts = asn1crypto.x509.Certificate.load(derCert)
            self.derSubject: bytes = parts.subject.dump()
            self.derIssuer: bytes = parts.issuer.dump()
            self.serialNumber: int = parts.serial_number
            self.version: int = int(parts["tbs_certificate"]["version"])  # 2 for version 3, as encoded
            self.validity = CERTValidity(parts.not_valid_before, parts.not_valid_after)  # in UTC
            self.spki: bytes = parts.public_key.dump()  # SubjectPublicKeyInfo
            self.is_ca = self._basic_constraints()
        except UNREADABLE:
            raise NSPRError("this is no certificate that can be read", name="SEC_ERROR_BAD_DER") from None

    def _basic_constraints(self) -> bool | None:
        """What they say; None where there are none."""
        constraints = self._parts.basic_constraints_value
        return None if constraints is None else bool(constraints["ca"].native)

    @classmethod
    def decode(cls, derCert: bytes, nickname: str = "") -> Self:
        """One that lies on no token.  Raises NSPRError (SEC_ERROR_BAD_DER)."""
        try:
            _ = x509.load_der_x509_certificate(derCert).extensions
        except PARSE_ERRORS:
            raise NSPRError("this is no certificate that can be read", name="SEC_ERROR_BAD_DER") from None
        return cls(derCert, nickname)

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

    @property
    def subjectName(self) -> str:
        """As CERT_NameToAscii writes it: "CN=host.example,C=DE"; "" where it cannot be read."""
        return _readable(self.derSubject)

    @property
    def issuerName(self) -> str:
        return _readable(self.derIssuer)

    @property
    def addresses(self) -> frozenset[str]:
        """The e-mail addresses in it, in small letters."""
        try:
            names = self._parts.subject_alt_name_value or ()
            found = [name.native for name in names if name.name == "rfc822_name"]
            found.append(self._parts.subject.native.get("email_address"))
        except UNREADABLE:
            return frozenset()
        return frozenset(address.lower() for address in found if isinstance(address, str))

    @property
    def public_key(self) -> PublicKeyTypes | KeaPublicKey:
        """Raises NSPRError (SEC_ERROR_UNSUPPORTED_KEYALG)."""
        try:
            return load_der_public_key(self.spki)
        except (ValueError, UnsupportedAlgorithm):
            found = kea.from_public_key_info(self.spki)
            if found is not None:
                return found
            raise NSPRError("its key is of no known kind", name="SEC_ERROR_UNSUPPORTED_KEYALG") from None

    @property
    def plain_spki(self) -> bytes:
        """SubjectPublicKeyInfo as a token's key has it: nothing in it says that an RSA key is for PSS alone."""
        try:
            return self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except NSPRError:
            return self.spki

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CERTCertificate) and other.derCert == self.derCert

    def __hash__(self) -> int:
        return hash(self.derCert)

    def __repr__(self) -> str:
        return f"<CERTCertificate {self.nickname or 'without nickname'!r}>"


def _readable(name: bytes) -> str:
    try:
        return rfc1485(name)
    except NSPRError:
        return ""


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

    def __init__(self, key: PublicKeyTypes | KeaPublicKey) -> None:
        self.key = key
