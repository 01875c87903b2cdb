"""`tstclnt -F`: what fresh information on revocation says of a server: what it staples, and the CRLs of the database."""

from __future__ import annotations

from contextlib import suppress

from ...nss.cert import CERT_GetDefaultCertDB, CERT_VerifyCertNow, CERTCertificate, SEC_FindCrlByName, SECCertUsage
from ...nss.prerror import NSPRError
from ...nss.prio import PRFileDesc
from ...nss.ssl import (
    SSL_ENABLE_OCSP_STAPLING,
    SSL_AuthCertificate,
    SSL_OptionGet,
    SSL_OptionSet,
    SSL_PeerCertificate,
    SSL_PeerCertificateChain,
    SSL_PeerStapledOCSPResponses,
)

PURPOSE = SECCertUsage.certUsageSSLServer
GOOD, BAD_CERTIFICATE, NO_DATA, REVOKED = 0, 1, 2, 3
OCSP, CRL = 1, 2  # methods; -M 0: both


def judge(fd: PRFileDesc, depth: int, methods: int) -> int:
    """The exit status of -F.  `depth`: 1 for the server's certificate, 2 for its issuers below the root too; `methods`: of -M."""
    certificate = SSL_PeerCertificate(fd)
    if certificate is None:
        return 254
    _sent = SSL_PeerCertificateChain(fd)  # found as issuers while they are held
    try:
        path = CERT_VerifyCertNow(CERT_GetDefaultCertDB(), certificate, True, PURPOSE)
    except NSPRError as error:
        if error.name != "SEC_ERROR_REVOKED_CERTIFICATE":
            return BAD_CERTIFICATE
        return REVOKED if methods != OCSP else NO_DATA
    found = [_stapled(fd) if methods != CRL else NO_DATA]
    if methods != OCSP and found[0] == NO_DATA and _has_crl(certificate):
        found[0] = GOOD
    if depth > 1:
        found += [GOOD if methods != OCSP and _has_crl(issuer) else NO_DATA for issuer in path[1:-1]]
    return max(found)


def authenticate(fd: PRFileDesc, check_signature: bool = True) -> None:
    """SSL_AuthCertificate as it is in programs that have not called CERT_EnableOCSPChecking, such as NSS's: a stapled response is
    taken, but does not decide.  Raises NSPRError."""
    asked = SSL_OptionGet(fd, SSL_ENABLE_OCSP_STAPLING)
    SSL_OptionSet(fd, SSL_ENABLE_OCSP_STAPLING, False)
    try:
        SSL_AuthCertificate(CERT_GetDefaultCertDB(), fd, check_signature, False)
    finally:
        SSL_OptionSet(fd, SSL_ENABLE_OCSP_STAPLING, asked)


def _stapled(fd: PRFileDesc) -> int:
    """What the server's stapled response says."""
    if not SSL_PeerStapledOCSPResponses(fd):
        return NO_DATA
    before = SSL_OptionGet(fd, SSL_ENABLE_OCSP_STAPLING)
    SSL_OptionSet(fd, SSL_ENABLE_OCSP_STAPLING, True)
    try:
        SSL_AuthCertificate(CERT_GetDefaultCertDB(), fd, True, False)
    except NSPRError as error:
        return _OUTCOMES.get(error.name, NO_DATA)
    finally:
        SSL_OptionSet(fd, SSL_ENABLE_OCSP_STAPLING, before)
    return GOOD


_OUTCOMES = {"SEC_ERROR_REVOKED_CERTIFICATE": REVOKED, "SEC_ERROR_REVOKED_CERTIFICATE_OCSP": REVOKED}


def _has_crl(certificate: CERTCertificate) -> bool:
    """Whether the database has a CRL of its issuer, which then has nothing against it."""
    with suppress(NSPRError):
        SEC_FindCrlByName(CERT_GetDefaultCertDB(), certificate.derIssuer)
        return True
    return False
