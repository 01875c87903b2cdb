"""Certificates: finding, trusting, verifying, deleting them, and CRLs (cert.h, certdb.h, certt.h)."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple, overload

from ..certs.facts import CertType, Facts, KeyUse, facts, serves
from ..certs.info import reading
from ..certs.nss import Usage, check_host, verify
from ..db import CRLRecord, Database, Trust, TrustFlags
from ..errors import CertificateError, ConfigurationError, DatabaseError, NotFound, NSPRError
from . import _trust
from ._names import rfc1485
from ._objects import PK11_FindCertFromNickname, delete_certificate, instances, is_user, log_in_to_all, wrap, wrap_all
from ._state import state
from .prerror import sets_error
from .types import CERTCertificate, CERTValidity, SECKEYPublicKey

__all__ = [
    "CERTCertDBHandle",
    "CERTCertTrust",
    "CERTCertificate",
    "CERTSignedCrl",
    "CERTValidity",
    "CERT_ChangeCertTrust",
    "CERT_CheckCertValidTimes",
    "CERT_DecodeCertFromPackage",
    "CERT_DecodeTrustString",
    "CERT_DerNameToAscii",
    "CERT_DestroyCertificate",
    "CERT_DupCertificate",
    "CERT_EncodeTrustString",
    "CERT_ExtractPublicKey",
    "CERT_FindCertByDERCert",
    "CERT_FindCertByIssuerAndSN",
    "CERT_FindCertByName",
    "CERT_FindCertByNickname",
    "CERT_FindCertByNicknameOrEmailAddr",
    "CERT_FindUserCertByUsage",
    "CERT_GetCertNicknames",
    "CERT_GetCertTrust",
    "CERT_GetDefaultCertDB",
    "CERT_NewTempCertificate",
    "CERT_VerifyCert",
    "CERT_VerifyCertName",
    "CERT_VerifyCertNow",
    "SECCertNicknames",
    "SECCertTimeValidity",
    "SECCertUsage",
    "SEC_DeletePermCRL",
    "SEC_DeletePermCertificate",
    "SEC_FindCrlByName",
    "SEC_LookupCrls",
    "SEC_NewCrl",
]


class SECCertUsage(IntEnum):
    """For what a certificate is to be good (certt.h).  Only the uses in TLS are judged here."""

    certUsageSSLClient = 0
    certUsageSSLServer = 1
    certUsageSSLServerWithStepUp = 2
    certUsageSSLCA = 3


_USAGES = {0: Usage.CLIENT, 1: Usage.SERVER, 2: Usage.SERVER, 3: Usage.CA}


class SECCertNicknames(IntEnum):
    """Whose nicknames CERT_GetCertNicknames gives (cert.h)."""

    SEC_CERT_NICKNAMES_ALL = 1
    SEC_CERT_NICKNAMES_USER = 2
    SEC_CERT_NICKNAMES_SERVER = 3
    SEC_CERT_NICKNAMES_CA = 4


class SECCertTimeValidity(IntEnum):
    secCertTimeValid = 0
    secCertTimeExpired = 1
    secCertTimeNotValidYet = 2


_VALID = SECCertTimeValidity.secCertTimeValid


class CERTCertTrust(NamedTuple):
    """The CERTDB_ flags of a certificate (certt.h, certdb.h)."""

    sslFlags: TrustFlags = TrustFlags.none
    emailFlags: TrustFlags = TrustFlags.none
    objectSigningFlags: TrustFlags = TrustFlags.none


class CERTCertDBHandle:
    """Stands for the database and all tokens; there is one, and functions take it, or None, without looking at it."""


_HANDLE = CERTCertDBHandle()
Handle = CERTCertDBHandle | None


@sets_error
def CERT_GetDefaultCertDB() -> CERTCertDBHandle:
    """What functions below want as `handle` (cert.h).  Raises NSPRError (SEC_ERROR_NOT_INITIALIZED), where C gives NULL."""
    _ = state.manager
    return _HANDLE


def _writable() -> Database:
    if state.database is None:
        raise DatabaseError("there is no database: NSS_NoDB_Init was called", name="SEC_ERROR_READ_ONLY")
    return state.database


# --- certificates in memory ------------------------------------------------------------------------------------------


@sets_error
def CERT_NewTempCertificate(
    handle: Handle, derCert: bytes, nickname: str | None = None, isperm: bool = False, copyDER: bool = True
) -> CERTCertificate:
    """A certificate from DER, that lies on no token (cert.h).  While it lives, verification finds it as an issuer.

    Raises NSPRError (SEC_ERROR_BAD_DER); ConfigurationError (SEC_ERROR_INVALID_ARGS) with `isperm`, as C does.
    """
    if isperm:
        raise ConfigurationError("a temporary certificate is not permanent: PK11_ImportCert keeps it")
    return CERTCertificate.decode(derCert, nickname or "")


@sets_error
def CERT_DecodeCertFromPackage(certbuf: bytes) -> CERTCertificate:
    """A certificate from DER, PEM or base64 (cert.h).  Differs: of PKCS #7 packages nothing is taken.  Raises NSPRError
    (SEC_ERROR_BAD_DER)."""
    pem = re.search(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", certbuf, re.DOTALL)
    if pem or certbuf[:1] != b"0":
        try:
            certbuf = base64.b64decode(pem[1] if pem else certbuf)
        except ValueError:
            raise NSPRError("this is no certificate", name="SEC_ERROR_BAD_DER") from None
    return CERTCertificate.decode(certbuf)


@overload
def CERT_DupCertificate(c: CERTCertificate) -> CERTCertificate: ...


@overload
def CERT_DupCertificate(c: None) -> None: ...


def CERT_DupCertificate(c: CERTCertificate | None) -> CERTCertificate | None:
    """One more use of it; to be destroyed once more (cert.h).  None: None."""
    return c.duplicate() if c is not None else None


@sets_error
def CERT_DestroyCertificate(cert: CERTCertificate | None) -> None:
    """Give it back (cert.h); what Python no longer refers to is given back by itself.  None: nothing."""
    if cert is not None:
        cert.free()


@sets_error
def CERT_DerNameToAscii(dername: bytes) -> str:
    """A name, DER, as text: "CN=host.example,O=Example" (cert.h).  Raises NSPRError (SEC_ERROR_BAD_DER)."""
    return rfc1485(dername)


@sets_error
def CERT_ExtractPublicKey(cert: CERTCertificate) -> SECKEYPublicKey:
    """Its public key (cert.h).  Raises NSPRError (SEC_ERROR_UNSUPPORTED_KEYALG)."""
    return SECKEYPublicKey(cert.public_key)


@sets_error
def CERT_CheckCertValidTimes(cert: CERTCertificate, t: float, allowOverride: bool = False) -> SECCertTimeValidity:
    """Whether it is valid at `t`, seconds since 1970 where C has PRTime (cert.h); a day too early is good, as in C."""
    start, end = cert.validity
    if t < start.timestamp() - 86400:
        return SECCertTimeValidity.secCertTimeNotValidYet
    return SECCertTimeValidity.secCertTimeExpired if t > end.timestamp() else SECCertTimeValidity.secCertTimeValid


# --- finding ---------------------------------------------------------------------------------------------------------


@sets_error
def CERT_FindCertByNickname(handle: Handle, nickname: str) -> CERTCertificate:
    """PK11_FindCertFromNickname without a password function's argument (cert.h).  Raises as that does."""
    return PK11_FindCertFromNickname(nickname, None)


@sets_error
def CERT_FindCertByNicknameOrEmailAddr(handle: Handle, name: str) -> CERTCertificate:
    """The same (cert.h): PK11_FindCertFromNickname looks for e-mail addresses too."""
    return PK11_FindCertFromNickname(name, None)


@sets_error
def CERT_FindCertByDERCert(handle: Handle, derCert: bytes) -> CERTCertificate:
    """That very certificate, on a token (cert.h).  Raises NotFound (SEC_ERROR_UNKNOWN_CERT)."""
    return _first(wrap_all((slot, item) for slot, item in instances() if item.der == derCert))


@sets_error
def CERT_FindCertByName(handle: Handle, name: bytes) -> CERTCertificate:
    """One with this subject, DER (cert.h).  Raises NotFound (SEC_ERROR_UNKNOWN_CERT)."""
    return _first(cert for cert in _all() if cert.derSubject == name)


@sets_error
def CERT_FindCertByIssuerAndSN(handle: Handle, issuerAndSN: tuple[bytes, int]) -> CERTCertificate:
    """That of an issuer, DER, and a serial number (cert.h).  Raises NotFound (SEC_ERROR_UNKNOWN_CERT)."""
    issuer, number = issuerAndSN
    return _first(cert for cert in _all() if cert.derIssuer == issuer and cert.serialNumber == number)


def _all() -> Iterator[CERTCertificate]:
    return wrap_all(instances())


def _first(found: Iterable[CERTCertificate]) -> CERTCertificate:
    cert = next(iter(found), None)
    if cert is None:
        raise NotFound("no token has such a certificate", name="SEC_ERROR_UNKNOWN_CERT")
    return cert


@sets_error
def CERT_FindUserCertByUsage(
    handle: Handle, nickname: str, usage: int, validOnly: bool, proto_win: object = None
) -> CERTCertificate:
    """The certificate of a nickname whose key is ours and that may be used for a `SECCertUsage`, by its key usage and type; else
    the newest such one of the same subject (cert.h).  `validOnly`: and is valid now.  `proto_win`: for the password function.

    Raises NotFound (SEC_ERROR_UNKNOWN_CERT), the login's errors, ConfigurationError (SEC_ERROR_INVALID_ARGS) for uses that are
    not TLS's.
    """
    if usage not in _USAGES:
        raise ConfigurationError(f"usages are those of TLS, not {usage}")
    named = PK11_FindCertFromNickname(nickname, proto_win)
    named_alike = ((pair, cert) for pair in instances() for cert in wrap_all([pair]) if cert.derSubject == named.derSubject)
    ours = [cert for pair, cert in named_alike if is_user(*pair) and _may_do(cert, usage)]
    now = time.time()
    fitting = [cert for cert in ours if not validOnly or CERT_CheckCertValidTimes(cert, now) == _VALID]
    return _first(sorted(fitting, key=lambda cert: (cert == named, cert.slot == named.slot, *cert.validity), reverse=True))


def _may_do(cert: CERTCertificate, usage: int) -> bool:
    """By key usage and type (NSS lib/certdb/certdb.c, CERT_KeyUsageAndTypeForCertUsage); one that cannot be read may nothing."""
    try:
        return _fits(facts(cert.derCert), usage)
    except CertificateError:
        return False


def _fits(one: Facts, usage: int) -> bool:
    if usage == SECCertUsage.certUsageSSLClient:
        return KeyUse.DIGITAL_SIGNATURE in one.key_use and CertType.SSL_CLIENT in one.types
    if usage == SECCertUsage.certUsageSSLCA:
        return KeyUse.KEY_CERT_SIGN in one.key_use and CertType.SSL_CA in one.types
    steps_up = usage != SECCertUsage.certUsageSSLServerWithStepUp or one.steps_up
    return serves(one) and CertType.SSL_SERVER in one.types and steps_up


@sets_error
def CERT_GetCertNicknames(handle: Handle, what: int, wincx: object = None) -> list[str]:
    """The nicknames of certificates on all tokens, each once (cert.h).  `what`: a `SECCertNicknames`.

    Logs in to tokens that show no certificates before; one that refuses is passed over.  Differs: returns a list, not a
    CERTCertNicknames; C, from 3.4 on, gives names for SEC_CERT_NICKNAMES_USER alone.
    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for another `what`.
    """
    try:
        kind = SECCertNicknames(what)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    names: dict[str, None] = {}
    log_in_to_all(wincx)
    for slot, item in instances():
        if not item.label or (kind == SECCertNicknames.SEC_CERT_NICKNAMES_USER and not is_user(slot, item)):
            continue
        wanted = _WANTED.get(kind)
        for cert in wrap_all([(slot, item)]):
            if wanted is None or any(flags & wanted for flags in _trust.trust_of(cert)):
                names[cert.nickname] = None
    return list(names)


_WANTED = {
    SECCertNicknames.SEC_CERT_NICKNAMES_SERVER: TrustFlags.terminal_record,
    SECCertNicknames.SEC_CERT_NICKNAMES_CA: TrustFlags.valid_ca,
}


# --- trust and deleting ----------------------------------------------------------------------------------------------


@sets_error
def CERT_DecodeTrustString(trusts: str) -> CERTCertTrust:
    """The flags of `CT,C,c` (certdb.h).  Raises ConfigurationError (SEC_ERROR_INVALID_ARGS)."""
    return CERTCertTrust(*Trust.parse(trusts))


@sets_error
def CERT_EncodeTrustString(trust: CERTCertTrust) -> str:
    """The letters of flags, as certutil prints them (certdb.h)."""
    return str(Trust(*trust))


@sets_error
def CERT_GetCertTrust(cert: CERTCertificate) -> CERTCertTrust:
    """What the database says of it, else a root module; no flags where nobody says anything (certdb.h)."""
    return CERTCertTrust(*_trust.trust_of(cert))


@sets_error
def CERT_ChangeCertTrust(handle: Handle, cert: CERTCertificate, trust: CERTCertTrust) -> None:
    """Say in the database what to trust it for (certdb.h).  The database is logged in to before.

    Raises NSPRError: SEC_ERROR_TOKEN_NOT_LOGGED_IN, SEC_ERROR_READ_ONLY.
    """
    _writable().set_trust(cert.derCert, Trust(*trust))


@sets_error
def SEC_DeletePermCertificate(cert: CERTCertificate) -> None:
    """Delete it from every token, its trust with it; its key stays (certdb.h).  Raises NSPRError: SEC_ERROR_UNKNOWN_CERT,
    SEC_ERROR_READ_ONLY."""
    delete_certificate(cert)


# --- verifying -------------------------------------------------------------------------------------------------------


@sets_error
def CERT_VerifyCertNow(
    handle: Handle, cert: CERTCertificate, checkSig: bool, certUsage: int, wincx: object = None
) -> list[CERTCertificate]:
    """`CERT_VerifyCert` at this time (cert.h)."""
    return CERT_VerifyCert(handle, cert, checkSig, certUsage, time.time(), wincx)


@sets_error
def CERT_VerifyCert(
    handle: Handle, cert: CERTCertificate, checkSig: bool, certUsage: int, t: float, wincx: object = None
) -> list[CERTCertificate]:
    """Whether a certificate is good for a `SECCertUsage` at `t`, seconds since 1970 (cert.h): by the trust of the database and
    the root modules, with issuers from all tokens and from the temporary certificates that live.

    Returns the path to what is trusted, where C returns SECSuccess and CERT_GetCertChainFromCert gives one.  Raises
    CertificateError with NSS's number of what is wrong (SEC_ERROR_UNKNOWN_ISSUER, SEC_ERROR_EXPIRED_CERTIFICATE, …);
    ConfigurationError (SEC_ERROR_INVALID_ARGS) for uses outside TLS.  Differs: signatures are checked without `checkSig` too.
    """
    usage = _USAGES.get(certUsage)
    if usage is None:
        raise ConfigurationError(f"verification is for TLS servers, clients and CAs, not for usage {certUsage}")
    temporary = [held.derCert for held in state.live() if isinstance(held, CERTCertificate) and held.istemp]
    path = verify([cert.derCert, *temporary], _trust.store(), usage, now=t)
    lying = {item.der: wrap(slot, item) for slot, item in instances() if item.der in path[1:]}
    return [cert, *(lying.get(der) or CERTCertificate(der) for der in path[1:])]


@sets_error
@reading()
def CERT_VerifyCertName(cert: CERTCertificate, hostname: str) -> None:
    """Whether a certificate is for this host or address: subjectAltName, and where it has none the common name (cert.h).

    Raises CertificateError (SSL_ERROR_BAD_CERT_DOMAIN), ConfigurationError (SEC_ERROR_INVALID_ARGS) for no name.
    """
    check_host(facts(cert.derCert), hostname)


# --- CRLs ------------------------------------------------------------------------------------------------------------


class CERTSignedCrl(NamedTuple):
    """A CRL in the database (certt.h)."""

    derCrl: bytes
    derName: bytes
    url: str
    record: CRLRecord


def _crl(record: CRLRecord) -> CERTSignedCrl:
    return CERTSignedCrl(record.der, record.issuer, record.url, record)


@sets_error
def SEC_NewCrl(handle: Handle, url: str | None, derCrl: bytes, type: int = 1) -> CERTSignedCrl:
    """Keep a CRL in place of its issuer's older one, unverified (certdb.h).  Raises NSPRError: SEC_ERROR_CRL_INVALID,
    SEC_ERROR_OLD_CRL, SEC_ERROR_READ_ONLY."""
    return _crl(_writable().add_crl(derCrl, url or ""))


@sets_error
def SEC_LookupCrls(handle: Handle, type: int = 1) -> list[CERTSignedCrl]:
    """All of the database (certdb.h).  Differs: returned, not put into nodes."""
    return [_crl(record) for record in state.database.crls()] if state.database is not None else []


@sets_error
def SEC_FindCrlByName(handle: Handle, crlKey: bytes, type: int = 1) -> CERTSignedCrl:
    """That of an issuer's DER name (certdb.h).  Raises CertificateError (SEC_ERROR_CRL_NOT_FOUND)."""
    for crl in SEC_LookupCrls(handle, type):
        if crl.derName == crlKey:
            return crl
    raise CertificateError("the database has no CRL of this issuer", name="SEC_ERROR_CRL_NOT_FOUND")


@sets_error
def SEC_DeletePermCRL(crl: CERTSignedCrl) -> None:
    """Delete it (certdb.h).  Raises NSPRError (SEC_ERROR_READ_ONLY)."""
    _writable().delete_crl(crl.record)
