"""What a socket calls the application for, and whom it talks to: callbacks, names, the argument of the password function (ssl.h).

Hooks may be set on a listening or model socket; sockets that come of it have them too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConfigurationError
from ._layers import PRFileDesc
from ._settings import settings_of
from .cert import CERTCertDBHandle, CERTCertificate
from .prerror import sets_error
from .types import SECKEYPrivateKey

__all__ = [
    "SSLAuthCertificate",
    "SSLBadCertHandler",
    "SSLGetClientAuthData",
    "SSLHandshakeCallback",
    "SSL_AuthCertificateHook",
    "SSL_BadCertHook",
    "SSL_CertDBHandleSet",
    "SSL_GetClientAuthDataHook",
    "SSL_HandshakeCallback",
    "SSL_SetPKCS11PinArg",
    "SSL_SetSockPeerID",
    "SSL_SetTrustAnchors",
    "SSL_SetURL",
]

# A callback agrees by returning None or SECSuccess (0); it declines by raising NSPRError, or by PR_SetError and SECFailure (-1).
SSLAuthCertificate = Callable[[Any, PRFileDesc, bool, bool], int | None]
SSLBadCertHandler = Callable[[Any, PRFileDesc], int | None]
SSLGetClientAuthData = Callable[[Any, PRFileDesc, list[bytes]], tuple[CERTCertificate, SECKEYPrivateKey] | int | None]
SSLHandshakeCallback = Callable[[PRFileDesc, Any], None]


@sets_error
def SSL_AuthCertificateHook(fd: PRFileDesc, f: SSLAuthCertificate | None, arg: object = None) -> None:
    """Who judges the peer's certificate: `f(arg, fd, checksig, isServer)`; None: SSL_AuthCertificate (ssl.h).

    Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings_of(fd).auth_certificate = (f, arg)


@sets_error
def SSL_BadCertHook(fd: PRFileDesc, f: SSLBadCertHandler | None, arg: object = None) -> None:
    """Who may accept a certificate that was refused: `f(arg, fd)`, which finds why by PR_GetError; None: nobody (ssl.h).

    Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings_of(fd).bad_cert = (f, arg)


@sets_error
def SSL_GetClientAuthDataHook(fd: PRFileDesc, f: SSLGetClientAuthData | None, a: object = None) -> None:
    """Who finds certificate and key when a server asks for them: `f(a, fd, caNames)`, with DER names, returns both (ssl.h).

    None, as before any call: no certificate is sent.  NSS_GetClientAuthData is such a function.
    Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings_of(fd).client_auth_data = (f, a)


@sets_error
def SSL_HandshakeCallback(fd: PRFileDesc, cb: SSLHandshakeCallback | None, client_data: object = None) -> None:
    """Who is told that a handshake is complete: `cb(fd, client_data)` (ssl.h).

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) while SSL_SECURITY is off; NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings = settings_of(fd)
    if not settings.security:
        raise ConfigurationError("there are no handshakes while SSL_SECURITY is off")
    settings.handshake = (cb, client_data)


@sets_error
def SSL_SetURL(fd: PRFileDesc, url: str | None) -> None:
    """The host name of the server, before the first handshake: for its certificate, and for the session cache (ssl.h).

    Without one SSL_AuthCertificate refuses every server, and no session is resumed.
    Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings_of(fd).url = url or ""


@sets_error
def SSL_SetPKCS11PinArg(fd: PRFileDesc, a: object) -> None:
    """What the password function gets as its third argument where this socket needs a token (ssl.h).  Raises NSPRError
    (PR_BAD_DESCRIPTOR_ERROR)."""
    settings_of(fd).pin_arg = a


@sets_error
def SSL_SetSockPeerID(fd: PRFileDesc, peerID: str | None) -> None:
    """Which server is meant behind a proxy's address, "www.example.com:443", before the handshake: tells its sessions from those
    of others in the client's cache (ssl.h).  Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings_of(fd).peer_id = peerID or ""


@sets_error
def SSL_CertDBHandleSet(fd: PRFileDesc, dbHandle: CERTCertDBHandle) -> None:
    """Which database the socket uses; there is one, that of CERT_GetDefaultCertDB (ssl.h).

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for none; NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings_of(fd)
    if not isinstance(dbHandle, CERTCertDBHandle):
        raise ConfigurationError("this is no handle of a database")


@sets_error
def SSL_SetTrustAnchors(fd: PRFileDesc, certList: list[CERTCertificate] | None) -> None:
    """The CAs that a server names when it asks for a certificate, in place of those that the database trusts for clients (ssl.h).
    Whom it trusts does not change.  Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for None; NSPRError
    (PR_BAD_DESCRIPTOR_ERROR)."""
    settings = settings_of(fd)
    if certList is None:
        raise ConfigurationError("there is no list of CAs")
    settings.trust_anchors = tuple(dict.fromkeys(cert.derSubject for cert in certList))
    settings.changed()
