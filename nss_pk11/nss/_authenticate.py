"""The callbacks that NSS brings along: judging the peer's certificate, and finding one of our own (ssl.h)."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import asn1crypto.core

from ..certs.nss import Usage, verify_peer
from ..errors import CertificateError, NotFound, NSPRError
from . import _trust
from ._objects import PK11_FindKeyByAnyCert, instances, wrap_all
from ._settings import settings_of
from ._sslt import SSL_ENABLE_OCSP_STAPLING
from .cert import (
    CERT_CheckCertValidTimes,
    CERT_FindUserCertByUsage,
    CERT_GetCertNicknames,
    SECCertNicknames,
    SECCertTimeValidity,
    SECCertUsage,
)
from .prerror import sets_error
from .types import CERTCertificate, SECKEYPrivateKey

if TYPE_CHECKING:
    from ._layers import PRFileDesc
    from ._sslsocket import SSLLayer
    from .cert import Handle

__all__ = ["NSS_CmpCertChainWCANames", "NSS_GetClientAuthData", "SSL_AuthCertificate"]

_LONGEST = 20  # issuers above a certificate that are looked at


@sets_error
def SSL_AuthCertificate(arg: Handle, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
    """Judge the peer's certificate by the database's trust, and on a client by the name of SSL_SetURL (ssl.h).

    `arg`: the database's handle; `isServer`: the peer is a client.  A stapled OCSP response counts where SSL_ENABLE_OCSP_STAPLING
    is on.  Raises CertificateError: SSL_ERROR_BAD_CERT_DOMAIN for another name or where none was set; SSL_ERROR_NO_CERTIFICATE
    where the peer has shown none; otherwise as CERT_VerifyCert.  Differs: signatures are checked without `checksig` too.
    """
    settings = settings_of(fd)
    layer = cast("SSLLayer", fd.layer)
    if not layer.peer_chain:
        raise CertificateError("the peer has shown no certificate", name="SSL_ERROR_NO_CERTIFICATE")
    verify_peer(
        [cert.derCert for cert in layer.peer_chain],
        _trust.store(),
        Usage.CLIENT if isServer else Usage.SERVER,
        now=time.time(),
        host=None if isServer else settings.url,
        ocsp=layer.staple if settings.on(SSL_ENABLE_OCSP_STAPLING) and not isServer else None,
    )


@sets_error
def NSS_GetClientAuthData(arg: str | None, socket: PRFileDesc, caNames: list[bytes]) -> tuple[CERTCertificate, SECKEYPrivateKey]:
    """The certificate of a nickname and its key; with None the first of ours that is valid now, under one of the CAs, and whose
    key is found (ssl.h).  Logs in, with the argument of SSL_SetPKCS11PinArg.

    `caNames`: DER; none: any CA will do, as in later NSS.  Differs: both are returned.
    Raises NotFound: SEC_ERROR_UNKNOWN_CERT (the nickname's), SSL_ERROR_NO_CERTIFICATE (none will do); NSPRError as
    PK11_FindKeyByAnyCert.
    """
    wincx = settings_of(socket).pin_arg
    if arg:
        return _with_key(arg, wincx)
    for nickname in CERT_GetCertNicknames(None, SECCertNicknames.SEC_CERT_NICKNAMES_USER, wincx):
        with suppress(NSPRError):
            cert, key = _with_key(nickname, wincx)
            valid = CERT_CheckCertValidTimes(cert, time.time()) == SECCertTimeValidity.secCertTimeValid
            if valid and (not caNames or _issued_under(cert, caNames)):
                return cert, key
    raise NotFound("no certificate of ours is for a client, valid, and under these CAs", name="SSL_ERROR_NO_CERTIFICATE")


def _with_key(nickname: str, wincx: object) -> tuple[CERTCertificate, SECKEYPrivateKey]:
    cert = CERT_FindUserCertByUsage(None, nickname, SECCertUsage.certUsageSSLClient, False, wincx)
    return cert, PK11_FindKeyByAnyCert(cert, wincx)


@sets_error
def NSS_CmpCertChainWCANames(cert: CERTCertificate, caNames: list[bytes]) -> None:
    """Whether one of these CAs, DER names, has issued a certificate or one of its issuers (ssl.h).  A name may lack its outer DER
    header, as old servers send it.  Raises NotFound (SEC_ERROR_UNKNOWN_ISSUER) if none has, or none is named."""
    if not _issued_under(cert, caNames):
        raise NotFound("no issuer of the certificate is among these CAs", name="SEC_ERROR_UNKNOWN_ISSUER")


def _issued_under(cert: CERTCertificate, ca_names: list[bytes]) -> bool:
    wanted = set(ca_names)
    issuers: dict[bytes, CERTCertificate] | None = None
    current: CERTCertificate | None = cert
    for _ in range(_LONGEST + 1):
        if current is None:
            return False
        if current.derIssuer in wanted or _without_header(current.derIssuer) in wanted:
            return True
        if current.derIssuer == current.derSubject:
            return False
        if issuers is None:
            issuers = {other.derSubject: other for other in wrap_all(instances())}
        current = issuers.get(current.derIssuer)
    return False


def _without_header(name: bytes) -> bytes:
    return bytes(asn1crypto.core.Sequence.load(name).contents)
