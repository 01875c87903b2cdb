"""PKCS #12 into the database and out of it (p12.h), with the functions that a program needs who exports or imports one identity.

Differs: a file holds one key with its certificate and the chain above, as cryptography's PKCS #12 does; it is encrypted by PBES2
with AES-256 and has its MAC by SHA-256, whatever algorithms are named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12KeyAndCertificates

from ..db import Database, pkcs12
from ..errors import ConfigurationError, NSPRError, PinIncorrect
from ..slots import Slot
from ..slots.internal import DatabaseToken
from ._authentication import log_in
from .prerror import sets_error
from .types import CERTCertificate, PK11SlotInfo

__all__ = [
    "SEC_PKCS12AddCertAndKey",
    "SEC_PKCS12AddPasswordIntegrity",
    "SEC_PKCS12CreateExportContext",
    "SEC_PKCS12DecoderContext",
    "SEC_PKCS12DecoderFinish",
    "SEC_PKCS12DecoderGetCerts",
    "SEC_PKCS12DecoderImportBags",
    "SEC_PKCS12DecoderStart",
    "SEC_PKCS12DecoderUpdate",
    "SEC_PKCS12DecoderValidateBags",
    "SEC_PKCS12DecoderVerify",
    "SEC_PKCS12DestroyExportContext",
    "SEC_PKCS12Encode",
    "SEC_PKCS12ExportContext",
]

NicknameCollision = Callable[[str, CERTCertificate], str | None]


def _database(slot: Slot) -> Database:
    token = slot.token
    if not isinstance(token, DatabaseToken):
        raise ConfigurationError("PKCS #12 goes into a database and out of it, not through other tokens")
    return token.database


# --- out -------------------------------------------------------------------------------------------------------------


@dataclass
class SEC_PKCS12ExportContext:
    """A file that is being put together."""

    slot: Slot
    wincx: object = None
    password: str = field(default="", repr=False)
    cert: CERTCertificate | None = None


@sets_error
def SEC_PKCS12CreateExportContext(
    pwfn: object, pwfnarg: object, slot: PK11SlotInfo, wincx: object = None
) -> SEC_PKCS12ExportContext:
    """Begin (p12.h).  `pwfn` and `pwfnarg` mean nothing, as in C."""
    _database(slot.slot)
    return SEC_PKCS12ExportContext(slot.slot, wincx)


@sets_error
def SEC_PKCS12AddPasswordIntegrity(p12ctxt: SEC_PKCS12ExportContext, pwitem: str, integAlg: int = 0) -> None:
    """The password of the whole file (p12.h); a str where C wants UCS-2.  Raises ConfigurationError for ""."""
    if not pwitem:
        raise ConfigurationError("an exported key needs a password")
    p12ctxt.password = pwitem


@sets_error
def SEC_PKCS12AddCertAndKey(p12ctxt: SEC_PKCS12ExportContext, cert: CERTCertificate) -> None:
    """What goes into it: a certificate, its key, and what the database has of the chain (p12.h).

    Differs: C's safes, nested destinations and algorithms are made by itself.  Raises ConfigurationError for a second one.
    """
    if p12ctxt.cert is not None:
        raise ConfigurationError("one certificate with its key makes a file")
    if not cert.nickname:
        raise ConfigurationError("a certificate is exported by its nickname; this has none", name="SEC_ERROR_BAD_NICKNAME")
    p12ctxt.cert = cert


@sets_error
def SEC_PKCS12Encode(
    p12exp: SEC_PKCS12ExportContext, output: Callable[[object, bytes], object] | None = None, outputarg: object = None
) -> bytes:
    """The file, also given to `output(outputarg, bytes)` (p12.h); logs in to the database.

    Raises NSPRError: SEC_ERROR_INVALID_ARGS (nothing in it, or no password), SEC_ERROR_NO_KEY, the login's.
    """
    if p12exp.cert is None or not p12exp.password:
        raise ConfigurationError("a certificate and a password come first")
    log_in(PK11SlotInfo(p12exp.slot), p12exp.wincx)
    data = pkcs12.export(_database(p12exp.slot), p12exp.cert.nickname, p12exp.password)
    if output is not None:
        output(outputarg, data)
    return data


def SEC_PKCS12DestroyExportContext(p12exp: SEC_PKCS12ExportContext) -> None:
    """Forget the password and the rest (p12.h)."""
    p12exp.password, p12exp.cert = "", None


# --- in --------------------------------------------------------------------------------------------------------------


@dataclass
class SEC_PKCS12DecoderContext:
    """A file that is being read."""

    slot: Slot
    wincx: object
    password: str = field(repr=False)
    data: bytearray = field(default_factory=bytearray, repr=False)
    content: PKCS12KeyAndCertificates | None = field(default=None, repr=False)
    nickname: str = ""


@sets_error
def SEC_PKCS12DecoderStart(pwitem: str, slot: PK11SlotInfo, wincx: object = None, *unused: object) -> SEC_PKCS12DecoderContext:
    """Begin (p12.h).  `pwitem`: the file's password, a str where C wants UCS-2; functions for temporary files mean nothing."""
    _database(slot.slot)
    return SEC_PKCS12DecoderContext(slot.slot, wincx, pwitem)


@sets_error
def SEC_PKCS12DecoderUpdate(p12dcx: SEC_PKCS12DecoderContext, data: bytes) -> None:
    """The next piece of the file (p12.h).  Raises NSPRError (SEC_ERROR_BAD_DER) for more than 16 MiB."""
    p12dcx.data += data
    if len(p12dcx.data) > 1 << 24:
        raise NSPRError("this is no PKCS #12 file", name="SEC_ERROR_BAD_DER")


@sets_error
def SEC_PKCS12DecoderVerify(p12dcx: SEC_PKCS12DecoderContext) -> None:
    """Check the file's MAC, and so the password (p12.h).  Raises NSPRError: SEC_ERROR_PKCS12_INVALID_MAC (the password is
    wrong, or the file damaged), SEC_ERROR_PKCS12_DECODING_PFX."""
    try:
        p12dcx.content = pkcs12.decode(bytes(p12dcx.data), p12dcx.password)
    except PinIncorrect as error:
        raise NSPRError(error.detail, name="SEC_ERROR_PKCS12_INVALID_MAC") from None


@sets_error
def SEC_PKCS12DecoderValidateBags(p12dcx: SEC_PKCS12DecoderContext, nicknameCb: NicknameCollision | None = None) -> None:
    """Look for nicknames that cannot be kept (p12.h).

    `nicknameCb(old, cert)` is asked for another where the file gives the certificate none, or one that is another's here; it
    answers with it, or None to give up.  Raises NSPRError (SEC_ERROR_PKCS12_CERT_COLLISION) where nobody has one.
    """
    content = _verified(p12dcx)
    if content.cert is None:
        return
    cert = CERTCertificate(content.cert.certificate.public_bytes(Encoding.DER))
    nickname = pkcs12.friendly_name(content.cert)
    while not nickname or _collides(p12dcx, nickname, cert):
        answer = nicknameCb(nickname, cert) if nicknameCb else None
        if not answer:
            raise NSPRError(f"the nickname {nickname!r} cannot be kept", name="SEC_ERROR_PKCS12_CERT_COLLISION")
        nickname = answer
    p12dcx.nickname = nickname


def _collides(p12dcx: SEC_PKCS12DecoderContext, nickname: str, cert: CERTCertificate) -> bool:
    named = _database(p12dcx.slot).certificates(nickname=nickname)
    return any(CERTCertificate(record.der).derSubject != cert.derSubject for record in named)


@sets_error
def SEC_PKCS12DecoderImportBags(p12dcx: SEC_PKCS12DecoderContext) -> None:
    """Keep the key and the certificates in the database; logs in to it (p12.h).  Raises NSPRError: SEC_ERROR_READ_ONLY,
    SEC_ERROR_CERT_NICKNAME_COLLISION, the login's."""
    content = _verified(p12dcx)
    log_in(PK11SlotInfo(p12dcx.slot), p12dcx.wincx)
    pkcs12.keep(_database(p12dcx.slot), content, p12dcx.nickname)


@sets_error
def SEC_PKCS12DecoderGetCerts(p12dcx: SEC_PKCS12DecoderContext) -> list[CERTCertificate]:
    """The certificates in the file, its key's own first (p12.h)."""
    content = _verified(p12dcx)
    found = [*([content.cert] if content.cert else []), *content.additional_certs]
    return [CERTCertificate(item.certificate.public_bytes(Encoding.DER), pkcs12.friendly_name(item)) for item in found]


def SEC_PKCS12DecoderFinish(p12dcx: SEC_PKCS12DecoderContext) -> None:
    """Forget the file and its password (p12.h)."""
    p12dcx.password, p12dcx.content = "", None
    p12dcx.data.clear()


def _verified(p12dcx: SEC_PKCS12DecoderContext) -> PKCS12KeyAndCertificates:
    if p12dcx.content is None:
        raise ConfigurationError("SEC_PKCS12DecoderVerify comes first")
    return p12dcx.content
