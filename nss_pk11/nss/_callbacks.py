"""What an engine asks during a handshake, answered by the application's callbacks as NSS calls them.

Callbacks are called in the thread that drives the handshake, while it holds the socket: they may ask about it (as by
SSL_PeerCertificate, SSL_RevealURL, SSL_RevealPinArg), not read or write it.  A callback agrees by returning None or SECSuccess,
and declines by raising NSPRError, or as in C by PR_SetError and SECFailure; a return value that is neither declines too.
SECWouldBlock puts the handshake off until SSL_AuthCertificateComplete or SSL_ClientCertCallbackComplete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import CertificateError, NSPRError, error_name
from ..net.identity import make_identity
from ..tls.codepoints import SignatureScheme
from ..tls.config import Identity
from ._clienttoken import ClientToken
from .prerror import PR_GetError, PR_GetErrorText, PR_SetError
from .types import CERTCertificate, SECKEYPrivateKey

if TYPE_CHECKING:
    from ..tls.waits import ChooseClientIdentity, VerifyPeer
    from ._connection import Connection

SECSuccess, SECFailure, SECWouldBlock = 0, -1, -2

# Stands for whatever SSLGetClientAuthData will answer: it is asked only once the server has asked.
ANY_IDENTITY = Identity(chain=(), schemes=tuple(SignatureScheme), key=None)


class PutOff(Exception):
    """The callback will answer later."""


def _agrees(answer: object) -> bool:
    """Raises PutOff.  False and True are 0 and 1 in Python, and mean the opposite of what they are in C: neither agrees."""
    if answer is None:
        return True
    if isinstance(answer, bool):
        return False
    if answer == SECWouldBlock:
        raise PutOff
    return answer == SECSuccess


def refusal_of(call: Callable[[], object]) -> NSPRError | None:
    """None if a callback agrees, else the error it declines with.  Raises PutOff."""
    PR_SetError(0)
    try:
        if _agrees(call()):
            return None
    except NSPRError as error:
        return error
    return last_error()


def last_error(default: str = "SSL_ERROR_BAD_CERTIFICATE") -> NSPRError:
    """What the application set by PR_SetError."""
    name = _name_of(PR_GetError())
    return NSPRError(PR_GetErrorText(), name=name) if name else NSPRError("the application's callback declined", name=default)


def _name_of(number: int) -> str:
    """ "" for a number that is none of NSS's: an application may have its own."""
    try:
        return error_name(number)
    except KeyError:
        return ""


def verify_peer(layer: Connection, operation: VerifyPeer) -> None:
    """SSLAuthCertificate, then SSLBadCertHandler.  Raises CertificateError, which decides on the alert; PutOff.

    A resumed session brings the certificate that was judged when it was new; NSS judges it no more."""
    layer.peer_chain = [CERTCertificate.decode(der) for der in operation.chain]
    if operation.ocsp is None:
        return
    layer.staple = operation.ocsp
    descriptor, before = layer.descriptor, PR_GetError()
    function, argument = layer.settings.authentication()
    refusal = refusal_of(lambda: function(argument, descriptor, True, layer.is_server))
    if refusal is not None:
        refusal = _judge_again(layer, refusal)
    if refusal is not None:
        layer.peer_chain = []
        raise refusal if isinstance(refusal, CertificateError) else CertificateError(refusal.detail, name=refusal.name)
    PR_SetError(before)


def _judge_again(layer: Connection, refusal: NSPRError) -> NSPRError | None:
    function, argument = layer.settings.bad_cert or (None, None)
    if function is None:
        return refusal
    PR_SetError(refusal.errno)
    try:
        return None if _agrees(function(argument, layer.descriptor)) else refusal
    except NSPRError:
        return refusal  # why the certificate is bad is what counts


def choose_identity(layer: Connection, operation: ChooseClientIdentity) -> Identity | None:
    """SSLGetClientAuthData; None where it has nothing, or nothing that the server can verify.  Raises PutOff."""
    function, argument = layer.settings.client_auth_data or (None, None)
    if function is None:
        return None
    try:
        answer = function(argument, layer.descriptor, list(operation.authorities))
    except NSPRError:
        return None
    if not isinstance(answer, tuple):
        _agrees(answer)
        return None
    cert, key = answer
    return fitting_identity(layer, operation, cert, key) if cert is not None and key is not None else None


def fitting_identity(
    layer: Connection, operation: ChooseClientIdentity, cert: CERTCertificate, key: SECKEYPrivateKey
) -> Identity | None:
    """The identity of a certificate and its key, None where the server cannot verify what it signs."""
    identity = make_identity(key.key, layer.settings.chain_of(cert), allow_expired=True)
    if not set(identity.schemes) & set(operation.schemes):
        return None
    layer.local_certificate = cert
    layer.client_token = ClientToken(key.pkcs11Slot.slot)
    return identity


def raise_for(number: int) -> None:
    """An error's number as a verdict on a certificate.  0: nothing."""
    if number:
        raise CertificateError(name=_name_of(number) or "SSL_ERROR_BAD_CERTIFICATE")
