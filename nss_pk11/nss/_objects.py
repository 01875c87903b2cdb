"""Certificates and keys on tokens: the part of pk11pub.h that finds, makes, keeps and deletes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from ..errors import CertificateError, ConfigurationError, NotFound, NSPRError, PinError, TokenError
from ..slots import PrivateKey, Slot, TokenCertificate
from ..slots.internal import DatabaseToken, InternalToken
from ..slots.kea import KeaPublicKey
from ._askedkey import asked
from ._authentication import log_in, log_in_unless_friendly, provider
from ._slots import PK11_FindSlotByName, usable_slots
from ._state import state
from .prerror import sets_error
from .types import CERTCertificate, PK11SlotInfo, SECKEYPrivateKey, SECKEYPublicKey

CKM_RSA_PKCS_KEY_PAIR_GEN = 0x0000
CKM_EC_KEY_PAIR_GEN = 0x1040
CKM_EC_EDWARDS_KEY_PAIR_GEN = 0x1055


class PK11CertListType(IntEnum):
    """What PK11_ListCerts lists (secmodt.h)."""

    PK11CertListUnique = 0
    PK11CertListUser = 1
    PK11CertListRootUnique = 2
    PK11CertListCA = 3
    PK11CertListCAUnique = 4
    PK11CertListUserUnique = 5
    PK11CertListAll = 6


_UNIQUE = frozenset({0, 2, 4, 5})
_CAS = frozenset({2, 3, 4})
_USERS = frozenset({1, 5})


class PK11RSAGenParams(NamedTuple):
    """The parameters of an RSA key pair (pk11pub.h)."""

    keySizeInBits: int
    pe: int = 65537


# --- certificates on tokens ------------------------------------------------------------------------------------------


def wrap(slot: Slot, item: TokenCertificate) -> CERTCertificate:
    """A certificate on a token, with the name by which it is found again."""
    other_token = slot.module.path and item.label
    return CERTCertificate(item.der, f"{item.token.label}:{item.label}" if other_token else item.label, slot)


def wrap_all(found: Iterable[tuple[Slot, TokenCertificate]]) -> Iterator[CERTCertificate]:
    """Those that can be read: one that cannot hinders nobody."""
    for slot, item in found:
        with suppress(NSPRError):
            yield wrap(slot, item)


def lying_on(slot: Slot) -> list[TokenCertificate]:
    """What a token shows now; a token that has just gone shows nothing."""
    try:
        return slot.token.certificates() if slot.token else []
    except TokenError:
        if slot.token is None:
            return []
        raise


def instances() -> Iterator[tuple[Slot, TokenCertificate]]:
    """Every certificate that shows now, on every token."""
    return ((slot, item) for slot in usable_slots() for item in lying_on(slot))


def log_in_to_all(wincx: object) -> None:
    """To every token that shows no certificates before; one that nobody can log in to is passed over."""
    for slot in usable_slots():
        with suppress(NSPRError):
            log_in_unless_friendly(PK11SlotInfo(slot), wincx)


@sets_error
def PK11_FindCertsFromNickname(nickname: str, wincx: object = None) -> list[CERTCertificate]:
    """The certificates that `TOKEN:NICKNAME` names; NICKNAME alone is one of the database's; `pkcs11:` URIs too (pk11pub.h).

    Of a nickname with an `@` that nothing has, those with this e-mail address.  Logs in only to tokens that show no certificates
    before.  The best comes first: valid now, then the newest.
    Raises NSPRError: SEC_ERROR_NO_TOKEN, SEC_ERROR_UNKNOWN_CERT where C leaves the error as it was, and the login's.
    """
    found = _by_uri(nickname) if nickname.lower().startswith("pkcs11:") else _by_nickname(nickname, wincx)
    if not found:
        raise NotFound(f"there is no certificate {nickname!r}", name="SEC_ERROR_UNKNOWN_CERT")
    return sorted(found, key=preference, reverse=True)


def _by_nickname(nickname: str, wincx: object) -> list[CERTCertificate]:
    token, colon, name = nickname.partition(":")
    slot = PK11_FindSlotByName(token if colon else None)
    name = name if colon else nickname
    log_in_unless_friendly(slot, wincx)
    items = [(slot.slot, item) for item in lying_on(slot.slot)]
    named = list(wrap_all((slot, item) for slot, item in items if item.label == name))
    if named or "@" not in name:
        return named
    return [cert for cert in wrap_all(items) if name.lower() in cert.addresses]


def _by_uri(uri: str) -> list[CERTCertificate]:
    named = {(item.token, item.der) for item in state.manager.find_certificates(uri)}
    return list(wrap_all((slot, item) for slot, item in instances() if (item.token, item.der) in named))


def preference(cert: CERTCertificate) -> tuple[bool, datetime, datetime]:
    """Which of several is the best, by `max`: valid now, then the newest."""
    start, end = cert.validity
    return start <= datetime.now(UTC) <= end, start, end


@sets_error
def PK11_FindCertFromNickname(nickname: str, wincx: object = None) -> CERTCertificate:
    """The first of PK11_FindCertsFromNickname (pk11pub.h).  Raises as that does."""
    return PK11_FindCertsFromNickname(nickname, wincx)[0]


@sets_error
def PK11_ListCerts(type: int, pwarg: object = None) -> list[CERTCertificate]:
    """The certificates on all tokens, the internal module's first (pk11pub.h).  `type`: a `PK11CertListType`; "unique" is each
    once, otherwise as often as there are tokens with it.  Logs in to tokens that show no certificates before; one that refuses is
    passed over.  Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for another type."""
    try:
        kind = PK11CertListType(type)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    log_in_to_all(pwarg)
    seen: set[bytes] = set()
    listed = []
    for slot, item in instances():
        if kind in _UNIQUE and item.der in seen:
            continue
        user = kind in {1, 2, 5} and is_user(slot, item)
        if (kind in _USERS and not user) or (kind == PK11CertListType.PK11CertListRootUnique and user):
            continue
        for cert in wrap_all([(slot, item)]):
            if kind not in _CAS or is_ca(cert):
                seen.add(item.der)
                listed.append((bool(slot.module.path), cert))
    return [cert for _, cert in sorted(listed, key=lambda pair: pair[0])]


@sets_error
def PK11_ListCertsInSlot(slot: PK11SlotInfo) -> list[CERTCertificate]:
    """The certificates on one token that show now (pk11pub.h)."""
    return list(wrap_all((slot.slot, item) for item in lying_on(slot.slot)))


def is_user(slot: Slot, item: TokenCertificate) -> bool:
    """Whether the token shows a key of this certificate: a public one, where it hides the private before login."""
    token = slot.token
    if token is None or not item.id:
        return False
    return any(id == item.id for _, id in token.public_names()) or bool(token.find_keys(id=item.id))


def is_ca(cert: CERTCertificate) -> bool:
    """By basicConstraints, else by the trust that the database has in it, else, for one of version 1, by being self-signed."""
    if cert.is_ca is not None:
        return cert.is_ca
    database = state.database
    trusted = database is not None and any(letter in str(database.trust(cert.derCert)) for letter in "cCT")
    return trusted or (cert.version == 0 and cert.derSubject == cert.derIssuer)


# --- keys of certificates --------------------------------------------------------------------------------------------


def keys_on(slot: Slot, wincx: object) -> list[PrivateKey]:
    """Its private keys, after login where one is needed."""
    info = PK11SlotInfo(slot)
    log_in(info, wincx)
    return [asked(key, slot, wincx) for key in info.token.find_keys(provider(info, wincx))]


def _spki(key: PrivateKey) -> bytes | None:
    try:
        return key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except NotFound:
        return None


def _key_of(slot: Slot, cert: CERTCertificate, wincx: object) -> SECKEYPrivateKey | None:
    for key in keys_on(slot, wincx):
        if _spki(key) == cert.plain_spki:
            return SECKEYPrivateKey(key, slot, wincx)
    return None


@sets_error
def PK11_FindPrivateKeyFromCert(slot: PK11SlotInfo, cert: CERTCertificate, wincx: object = None) -> SECKEYPrivateKey:
    """The private key of a certificate on one token; logs in (pk11pub.h).  Raises NSPRError: SEC_ERROR_NO_KEY, the login's."""
    return _found(_key_of(slot.slot, cert, wincx), cert)


@sets_error
def PK11_FindKeyByAnyCert(cert: CERTCertificate, wincx: object = None) -> SECKEYPrivateKey:
    """The private key of a certificate, on whatever token that may have it: where the certificate lies, then where public keys
    or certificates show it; logs in to these (pk11pub.h).  Raises NSPRError: SEC_ERROR_NO_KEY, the login's.

    Differs: the key is told by its public key, not by CKA_ID alone."""
    failed: NSPRError | None = None
    for slot in _homes(cert):
        try:
            key = _key_of(slot, cert, wincx)
        except PinError as error:  # another token may have it too
            failed = failed or error
            continue
        if key is not None:
            return key
    if failed is not None:
        raise failed
    return _found(None, cert)


def _found(key: SECKEYPrivateKey | None, cert: CERTCertificate) -> SECKEYPrivateKey:
    if key is None:
        raise NotFound(f"no token has the private key of {cert.nickname or cert.subjectName!r}", name="SEC_ERROR_NO_KEY")
    return key


def _homes(cert: CERTCertificate) -> list[Slot]:
    """The slots to look for a certificate's key in: its own and others that have it too, then those that show a key of its id, or
    need no login."""
    slots = usable_slots()
    with_it = [slot for slot in slots if any(item.der == cert.derCert for item in lying_on(slot))]
    with_it.sort(key=lambda slot: PK11SlotInfo(slot) != cert.slot)  # that which it was found on comes first
    open_ones = [slot for slot in slots if slot.token and (slot.token.logged_in or "CKF_LOGIN_REQUIRED" not in slot.token.flags)]
    id = key_id(cert.public_key)
    showing = [slot for slot in slots if slot.token and id in {shown for _, shown in slot.token.public_names()}]
    return list(dict.fromkeys([*with_it, *showing, *open_ones]))


@sets_error
def PK11_ListPrivKeysInSlot(slot: PK11SlotInfo, nickname: str | None = None, wincx: object = None) -> list[SECKEYPrivateKey]:
    """The private keys on one token, or those of a nickname; logs in (pk11pub.h)."""
    found = keys_on(slot.slot, wincx)
    return [SECKEYPrivateKey(key, slot.slot, wincx) for key in found if nickname in (None, key.label)]


# --- bringing in -----------------------------------------------------------------------------------------------------


def key_id(public: PublicKeyTypes | KeaPublicKey) -> bytes:
    """The CKA_ID that NSS gives a certificate and its key: SHA-1 of modulus, DSA's y, or point (PK11_MakeIDFromPubKey)."""
    if isinstance(public, rsa.RSAPublicKey | dsa.DSAPublicKey):
        number = public.public_numbers().n if isinstance(public, rsa.RSAPublicKey) else public.public_numbers().y
        value = number.to_bytes((number.bit_length() + 7) // 8)
    elif isinstance(public, KeaPublicKey):
        value = public.public
    elif isinstance(public, ec.EllipticCurvePublicKey):
        value = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    else:
        return x509.SubjectKeyIdentifier.from_public_key(public).digest  # type: ignore[arg-type]
    return hashlib.sha1(value, usedforsecurity=False).digest()


@sets_error
def PK11_ImportCert(
    slot: PK11SlotInfo, cert: CERTCertificate, key: SECKEYPrivateKey | None, nickname: str, includeTrust: bool = False
) -> CERTCertificate:
    """Keep a certificate on a token, beside its key (pk11pub.h).

    `key`: its private key on that token, where C has a CK_OBJECT_HANDLE; None: found by its public key.  `includeTrust` means
    nothing, in C too.  Returns the certificate as it lies there, which in C `cert` itself becomes.
    Raises NSPRError: SEC_ERROR_REUSED_ISSUER_AND_SERIAL, SEC_ERROR_TOKEN_NOT_LOGGED_IN, SEC_ERROR_READ_ONLY; otherwise
    SEC_ERROR_ADDING_CERT, which also stands for a nickname in use.
    """
    token = slot.token
    try:
        item = token.import_certificate(cert.derCert, nickname, key.key.id if key else _id_beside(slot, cert))
    except NSPRError as error:
        if error.name in _TELLING:
            raise
        raise CertificateError(error.detail, name="SEC_ERROR_ADDING_CERT") from error
    return wrap(slot.slot, item)


_TELLING = frozenset({"SEC_ERROR_REUSED_ISSUER_AND_SERIAL", "SEC_ERROR_TOKEN_NOT_LOGGED_IN", "SEC_ERROR_READ_ONLY"})


def _id_beside(slot: PK11SlotInfo, cert: CERTCertificate) -> bytes:
    """The id of the key on that token, else the one NSS would give it."""
    for key in slot.token.find_keys():
        if _spki(key) == cert.spki:
            return key.id
    return key_id(cert.public_key)


@sets_error
def PK11_ImportDERCert(
    slot: PK11SlotInfo, derCert: bytes, key: SECKEYPrivateKey | None, nickname: str, includeTrust: bool = False
) -> CERTCertificate:
    """As PK11_ImportCert, from DER (pk11pub.h).  Raises as that does, and NSPRError (SEC_ERROR_BAD_DER)."""
    return PK11_ImportCert(slot, CERTCertificate.decode(derCert), key, nickname, includeTrust)


@sets_error
def PK11_ImportDERPrivateKeyInfo(
    slot: PK11SlotInfo,
    derPKI: bytes,
    nickname: str | None = None,
    publicValue: bytes | None = None,
    isPerm: bool = True,
    isPrivate: bool = True,
    usage: int = 0,
    wincx: object = None,
) -> None:
    """Keep a private key, given as PrivateKeyInfo (PKCS #8) in the clear (pk11pub.h); logs in.

    Into the database, or with `isPerm` False into the internal slot, until NSS_Shutdown.  `publicValue`, `isPrivate` and `usage`
    mean nothing: a database makes the CKA_ID by itself, hides every key and allows every use.
    Raises NSPRError: SEC_ERROR_BAD_DER, SEC_ERROR_UNSUPPORTED_KEYALG, SEC_ERROR_READ_ONLY, the login's.
    """
    PK11_ImportDERPrivateKeyInfoAndReturnKey(slot, derPKI, nickname, publicValue, isPerm, isPrivate, usage, wincx)


@sets_error
def PK11_ImportDERPrivateKeyInfoAndReturnKey(
    slot: PK11SlotInfo,
    derPKI: bytes,
    nickname: str | None = None,
    publicValue: bytes | None = None,
    isPerm: bool = True,
    isPrivate: bool = True,
    usage: int = 0,
    wincx: object = None,
) -> SECKEYPrivateKey:
    """As PK11_ImportDERPrivateKeyInfo; returns the key (pk11pub.h)."""
    try:
        private = load_der_private_key(derPKI, None)
    except (ValueError, TypeError):
        raise NSPRError("this is no PrivateKeyInfo", name="SEC_ERROR_BAD_DER") from None
    except UnsupportedAlgorithm:
        raise NSPRError("the key is of no known kind", name="SEC_ERROR_UNSUPPORTED_KEYALG") from None
    token = slot.token
    if isPerm and isinstance(token, DatabaseToken):
        log_in(slot, wincx)
        record = token.database.add_key(private, nickname or "")
        return SECKEYPrivateKey(_with_id(slot, record.key_id, wincx), slot.slot, wincx)
    if not isPerm and isinstance(token, InternalToken):
        return SECKEYPrivateKey(token.add(private, [], nickname or ""), slot.slot, wincx)
    raise ConfigurationError("keys go into the database, or for a while into the internal slot", name="SEC_ERROR_READ_ONLY")


def _with_id(slot: PK11SlotInfo, id: bytes, wincx: object) -> PrivateKey:
    return asked(next(iter(slot.token.find_keys(provider(slot, wincx), id=id))), slot.slot, wincx)


# --- making keys -----------------------------------------------------------------------------------------------------

_CURVES = {
    "06082a8648ce3d030107": "p256",
    "06052b81040022": "p384",
    "06052b81040023": "p521",
    "06032b6570": "ed25519",
}  # CKA_EC_PARAMS: the curve's OID in DER (RFC 5480 section 2.1.1.1, RFC 8410)


@sets_error
def PK11_GenerateKeyPair(
    slot: PK11SlotInfo,
    type: int,
    param: PK11RSAGenParams | bytes,
    isPerm: bool = True,
    isSensitive: bool = True,
    wincx: object = None,
) -> tuple[SECKEYPrivateKey, SECKEYPublicKey]:
    """Make a key pair on a token, logged in; returns the private and the public key, which C returns through `pubk` (pk11pub.h).

    `type`: CKM_RSA_PKCS_KEY_PAIR_GEN with a PK11RSAGenParams of 2048, 3072 or 4096 bits, CKM_EC_KEY_PAIR_GEN or
    CKM_EC_EDWARDS_KEY_PAIR_GEN with the DER of the curve's OID (P-256, P-384, P-521; Ed25519).
    Raises NSPRError: SEC_ERROR_INVALID_ARGS, SEC_ERROR_NO_MODULE (the token does not make such keys), SEC_ERROR_READ_ONLY, the
    login's.  Differs: keys are to stay (`isPerm`), and leave the token only as PKCS #12; other sizes are not made.
    """
    if not isPerm:
        raise ConfigurationError(
            "keys are made to stay; for one that does not, cryptography makes it and the internal slot has it"
        )
    kind = _kind(type, param)
    log_in(slot, wincx)
    key = asked(slot.token.generate_key(kind, ""), slot.slot, wincx)
    return SECKEYPrivateKey(key, slot.slot, wincx), SECKEYPublicKey(key.public_key)


def _kind(type: int, param: PK11RSAGenParams | bytes) -> str:
    if type == CKM_RSA_PKCS_KEY_PAIR_GEN and isinstance(param, PK11RSAGenParams):
        if param.keySizeInBits in (2048, 3072, 4096) and param.pe == 65537:
            return f"rsa{param.keySizeInBits}"
        raise ConfigurationError("RSA keys have 2048, 3072 or 4096 bits, and the exponent 65537")
    if type in (CKM_EC_KEY_PAIR_GEN, CKM_EC_EDWARDS_KEY_PAIR_GEN) and isinstance(param, bytes):
        kind = _CURVES.get(param.hex())
        if kind is not None and (kind == "ed25519") == (type == CKM_EC_EDWARDS_KEY_PAIR_GEN):
            return kind
        raise ConfigurationError("the curves are P-256, P-384, P-521 and Ed25519", name="SEC_ERROR_UNSUPPORTED_ELLIPTIC_CURVE")
    raise ConfigurationError(f"mechanism {type:#x} makes no key pairs, or has other parameters")


# --- deleting --------------------------------------------------------------------------------------------------------


@sets_error
def PK11_DeleteTokenPrivateKey(privKey: SECKEYPrivateKey, force: bool = False) -> None:
    """Delete a key pair; `force`: even if a certificate of it lies beside it (pk11pub.h).

    Raises NSPRError: SEC_ERROR_INVALID_ARGS without `force` while there is such a certificate, SEC_ERROR_READ_ONLY.
    """
    if not force and _has_certificate(privKey):
        raise ConfigurationError("a certificate of this key lies beside it")
    privKey.pkcs11Slot.token.delete(privKey.key)


def _has_certificate(key: SECKEYPrivateKey) -> bool:
    return any(item.id == key.key.id for item in lying_on(key.pkcs11Slot.slot))


@sets_error
def PK11_DeleteTokenCertAndKey(cert: CERTCertificate, wincx: object = None) -> None:
    """Delete a certificate with its key, wherever both lie; a key that has another certificate stays (pk11pub.h).

    Raises as PK11_FindKeyByAnyCert, where C says success and deletes nothing.
    """
    key = PK11_FindKeyByAnyCert(cert, wincx)
    delete_certificate(cert)
    if not _has_certificate(key):
        PK11_DeleteTokenPrivateKey(key, True)


def delete_certificate(cert: CERTCertificate) -> None:
    """From every token that lets it go.  Raises NotFound (SEC_ERROR_UNKNOWN_CERT), and what the last token says."""
    failed: NSPRError | None = None
    deleted = False
    for slot, item in list(instances()):
        if item.der != cert.derCert or slot.token is None:
            continue
        try:
            slot.token.delete(item)
            deleted = True
        except NSPRError as error:
            failed = error
    if failed is not None and not deleted:
        raise failed
    if not deleted:
        raise NotFound("this certificate lies on no token", name="SEC_ERROR_UNKNOWN_CERT")
