"""The functions of ssl.h that act on a socket: importing, handshakes, what is known of the connection.

Settings are `_options`, `_ciphers` and `_serverkeys`; `ssl` shows them all.  Who asks what is known does not wait for the
socket, as in NSS: a callback may be running in another thread, for this very answer.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..errors import ConfigurationError, NSPRError
from ..tls.codepoints import V
from ..tls.waits import ChooseClientIdentity, VerifyPeer
from . import _callbacks
from ._channel import SSLSecurityStatus, security_status
from ._layers import PRFileDesc, SocketLayer
from ._settings import Settings
from ._sslsocket import SSLLayer
from ._suiteinfo import (
    SSLChannelInfo,
    SSLCipherSuiteInfo,
    SSLPreliminaryChannelInfo,
    channel_info,
    preliminary_info,
    suite_info,
)
from .prerror import sets_error
from .prinrval import PR_INTERVAL_NO_TIMEOUT
from .types import CERTCertificate, SECKEYPrivateKey


def layer_of(fd: PRFileDesc) -> SSLLayer:
    """Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR) where there is no SSL on it."""
    if not isinstance(fd, PRFileDesc) or not isinstance(fd.layer, SSLLayer):
        raise NSPRError("this is no SSL socket", name="PR_BAD_DESCRIPTOR_ERROR")
    return fd.layer


@sets_error
def SSL_ImportFD(model: PRFileDesc | None, fd: PRFileDesc) -> PRFileDesc:
    """Put SSL on a socket, with all settings of `model`, or the defaults (ssl.h).  Returns `fd` itself.

    A socket that is not connected yet learns its role from PR_Connect or PR_Accept; one that is needs SSL_ResetHandshake.
    Raises NSPRError: PR_BAD_DESCRIPTOR_ERROR where `model` has no SSL, or `fd` is none or closed; SEC_ERROR_INVALID_ARGS, where
    C puts a second layer on a socket that has one.
    """
    settings = Settings.defaults if model is None else layer_of(model).settings
    if not isinstance(fd, PRFileDesc) or fd.layer.bottom.sock.fileno() < 0:
        raise NSPRError("there is no socket to put SSL on", name="PR_BAD_DESCRIPTOR_ERROR")
    if not isinstance(fd.layer, SocketLayer):
        raise ConfigurationError("there is SSL on this socket already")
    try:
        fd.layer.name(peer=True)
        connected = True
    except NSPRError:
        connected = False
    fd.push(SSLLayer(fd.layer, settings.copy(), connected=connected))
    return fd


# --- handshakes ------------------------------------------------------------------------------------------------------


@sets_error
def SSL_ResetHandshake(fd: PRFileDesc, asServer: bool) -> None:
    """Have the next I/O begin with a first handshake, as a server or as a client (ssl.h)."""
    layer = layer_of(fd)
    if layer.secure:
        layer.reset(asServer)


@sets_error
def SSL_ForceHandshake(fd: PRFileDesc) -> None:
    """Drive the handshake to its end; a later one only as far as it goes before application data that has come (ssl.h).

    Raises NSPRError: why the handshake failed; PR_END_OF_FILE_ERROR where the peer closed; PR_WOULD_BLOCK_ERROR on a non-blocking
    descriptor: PR_Poll, then again.
    """
    SSL_ForceHandshakeWithTimeout(fd, PR_INTERVAL_NO_TIMEOUT)


@sets_error
def SSL_ForceHandshakeWithTimeout(fd: PRFileDesc, timeout: int) -> None:
    """SSL_ForceHandshake in at most `timeout` (ssl.h).  Raises as that, and PR_IO_TIMEOUT_ERROR."""
    layer = layer_of(fd)
    if layer.secure:
        layer.force_handshake(timeout)


@sets_error
def SSL_ReHandshake(fd: PRFileDesc, flushCache: bool) -> None:
    """Begin another handshake, by the settings of now (ssl.h): a client sends its ClientHello, a server HelloRequest.

    `flushCache`: forget the session first, so that the handshake is a full one.  SSL_ForceHandshake or other I/O drives it.
    Raises NSPRError: SEC_ERROR_INVALID_ARGS before a version is negotiated, SSL_ERROR_HANDSHAKE_NOT_COMPLETED while a handshake
    is under way, SSL_ERROR_RENEGOTIATION_NOT_ALLOWED by the option, and in TLS 1.3.
    """
    layer = layer_of(fd)
    if not layer.secure:
        return
    engine = layer.engine
    if engine is None or engine.info.version is None:
        raise ConfigurationError("no version is negotiated yet")
    if not layer.first_done or engine.handshaking:
        raise NSPRError("a handshake is under way", name="SSL_ERROR_HANDSHAKE_NOT_COMPLETED")
    if engine.info.version == V.tls1_3:
        raise NSPRError("TLS 1.3 has no renegotiation", name="SSL_ERROR_RENEGOTIATION_NOT_ALLOWED")
    with layer.lock:  # so that what comes of the new handshake is not what is flushed
        layer.renegotiate(resume=not flushCache)
        if flushCache:
            layer.session.invalidate()


@sets_error
def SSL_ReHandshakeWithTimeout(fd: PRFileDesc, flushCache: bool, timeout: int) -> None:
    """SSL_ReHandshake (ssl.h).  Differs: nothing waits here, so the timeout is for what drives the handshake."""
    SSL_ReHandshake(fd, flushCache)


def SSL_RedoHandshake(fd: PRFileDesc) -> None:
    """SSL_ReHandshake that forgets the session (ssl.h)."""
    SSL_ReHandshake(fd, True)


@sets_error
def SSL_KeyUpdate(fd: PRFileDesc, requestUpdate: bool) -> None:
    """TLS 1.3: change our sending key, and have the peer change its own (sslexp.h).

    Raises NSPRError: SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION, SSL_ERROR_HANDSHAKE_NOT_COMPLETED."""
    layer = layer_of(fd)
    _open_engine(layer)
    layer.begin_again(lambda engine: engine.update_keys(requestUpdate))


@sets_error
def SSL_SendCertificateRequest(fd: PRFileDesc) -> None:
    """TLS 1.3 server: ask for a certificate after the handshake (sslexp.h); SSL_ForceHandshake or reading gets it.

    Raises NSPRError: SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION, SSL_ERROR_HANDSHAKE_NOT_COMPLETED,
    SSL_ERROR_MISSING_POST_HANDSHAKE_AUTH_EXTENSION, PR_IN_PROGRESS_ERROR."""
    layer = layer_of(fd)
    _open_engine(layer)
    layer.request_certificate()


def _open_engine(layer: SSLLayer) -> None:
    if not layer.first_done:
        raise NSPRError("the first handshake is not complete", name="SSL_ERROR_HANDSHAKE_NOT_COMPLETED")


@sets_error
def SSL_AuthCertificateComplete(fd: PRFileDesc, error: int) -> None:
    """Answer for an SSLAuthCertificate or SSLBadCertHandler that returned SECWouldBlock: 0, or why not (ssl.h).

    Raises NSPRError (PR_INVALID_STATE_ERROR) where none did."""
    layer_of(fd).resume(VerifyPeer, lambda operation: _callbacks.raise_for(error))


@sets_error
def SSL_ClientCertCallbackComplete(
    fd: PRFileDesc, outcome: int, clientPrivateKey: SECKEYPrivateKey | None, clientCertificate: CERTCertificate | None
) -> None:
    """Answer for an SSLGetClientAuthData that returned SECWouldBlock; `outcome`: SECSuccess or SECFailure (ssl.h).

    Raises NSPRError (PR_INVALID_STATE_ERROR) where none did."""
    layer = layer_of(fd)

    def answer(operation: object) -> object:
        assert isinstance(operation, ChooseClientIdentity)
        if outcome != _callbacks.SECSuccess or clientCertificate is None or clientPrivateKey is None:
            return None
        return _callbacks.fitting_identity(layer, operation, clientCertificate, clientPrivateKey)

    layer.resume(ChooseClientIdentity, answer)


# --- what is known ---------------------------------------------------------------------------------------------------


@sets_error
def SSL_DataPending(fd: PRFileDesc) -> int:
    """Bytes that are decrypted and not read (ssl.h); 0 does not mean that reading would block.  Where there is no SSL: 0 too."""
    try:
        layer = layer_of(fd)
    except NSPRError:
        return 0
    return layer.pending if layer.secure else 0


@sets_error
def SSL_SecurityStatus(fd: PRFileDesc) -> SSLSecurityStatus:
    """How secure the connection is (ssl.h): on, cipher, keySize, secretKeySize, issuer, subject.

    `on`: SSL_SECURITY_STATUS_OFF (also before the first handshake, and with a NULL cipher), …ON_HIGH from 90 secret bits on,
    …ON_LOW.
    `issuer`, `subject`: of the peer's certificate, "no certificate" without one."""
    return security_status(layer_of(fd))


@sets_error
def SSL_GetSessionID(fd: PRFileDesc) -> bytes | None:
    """The session's id, b"" where it has none (TLS 1.3, tickets); None before the first handshake (ssl.h)."""
    layer = layer_of(fd)
    return layer.session.session_id if layer.secure and layer.first_done else None


@sets_error
def SSL_InvalidateSession(fd: PRFileDesc) -> None:
    """Have the session of this connection resumed no more; the connection goes on (ssl.h).

    Raises NSPRError (SEC_ERROR_INVALID_ARGS) where there is no session."""
    layer = layer_of(fd)
    if not layer.first_done:
        raise ConfigurationError("there is no session yet")
    layer.session.invalidate()


@sets_error
def SSL_PeerCertificate(fd: PRFileDesc) -> CERTCertificate | None:
    """The peer's certificate, one more reference; None without one (ssl.h).  Callbacks that judge a certificate see it here."""
    layer = layer_of(fd)
    chain = layer.peer_chain if layer.secure else []
    return CERTCertificate(chain[0].derCert) if chain else None


def SSL_RevealCert(socket: PRFileDesc) -> CERTCertificate | None:
    """SSL_PeerCertificate (ssl.h)."""
    return SSL_PeerCertificate(socket)


@sets_error
def SSL_PeerCertificateChain(fd: PRFileDesc) -> list[CERTCertificate]:
    """All that the peer sent, its own first (ssl.h).  Raises NSPRError (SSL_ERROR_NO_CERTIFICATE)."""
    layer = layer_of(fd)
    chain = layer.peer_chain if layer.secure else []
    if not chain:
        raise NSPRError("the peer has sent no certificate", name="SSL_ERROR_NO_CERTIFICATE")
    return [CERTCertificate(cert.derCert) for cert in chain]


@sets_error
def SSL_PeerStapledOCSPResponses(fd: PRFileDesc) -> list[bytes]:
    """The OCSP responses, DER, that the server sent with its certificate (ssl.h)."""
    layer = layer_of(fd)
    return [layer.staple] if layer.staple else []


@sets_error
def SSL_LocalCertificate(fd: PRFileDesc) -> CERTCertificate | None:
    """Our own certificate in this connection, one more reference; None without one (ssl.h)."""
    layer = layer_of(fd)
    certificate = layer.local_certificate if layer.secure else None
    return certificate.duplicate() if certificate is not None else None


@sets_error
def SSL_RevealURL(socket: PRFileDesc) -> str | None:
    """What SSL_SetURL set (ssl.h)."""
    return layer_of(socket).settings.url or None


@sets_error
def SSL_RevealPinArg(socket: PRFileDesc) -> object:
    """What SSL_SetPKCS11PinArg set (ssl.h)."""
    return layer_of(socket).settings.pin_arg


@sets_error
def SSL_GetChannelInfo(fd: PRFileDesc) -> SSLChannelInfo:
    """Version, suite, key sizes, session (ssl.h); all 0 before the first handshake.  Differs: returned, `len` is not needed."""
    return channel_info(layer_of(fd))


@sets_error
def SSL_GetPreliminaryChannelInfo(fd: PRFileDesc) -> SSLPreliminaryChannelInfo:
    """What is known during the handshake, for callbacks (ssl.h)."""
    return preliminary_info(layer_of(fd))


@sets_error
def SSL_GetCipherSuiteInfo(cipherSuite: int) -> SSLCipherSuiteInfo:
    """What a suite is made of (ssl.h).  Raises NSPRError (SEC_ERROR_INVALID_ARGS) for one that is not implemented."""
    return suite_info(cipherSuite)


# --- extensions ------------------------------------------------------------------------------------------------------


class SSLNextProtoState(IntEnum):
    """How a protocol came to be chosen (ssl.h)."""

    SSL_NEXT_PROTO_NO_SUPPORT = 0
    SSL_NEXT_PROTO_NEGOTIATED = 1
    SSL_NEXT_PROTO_NO_OVERLAP = 2
    SSL_NEXT_PROTO_SELECTED = 3
    SSL_NEXT_PROTO_EARLY_VALUE = 4


class SSLNextProto(NamedTuple):
    state: SSLNextProtoState
    buf: bytes


@sets_error
def SSL_GetNextProto(fd: PRFileDesc) -> SSLNextProto:
    """The application protocol that was agreed by ALPN, and how (ssl.h)."""
    info = layer_of(fd).info
    if info is None or not info.alpn:
        return SSLNextProto(SSLNextProtoState.SSL_NEXT_PROTO_NO_SUPPORT, b"")
    negotiated = SSLNextProtoState.SSL_NEXT_PROTO_NEGOTIATED
    return SSLNextProto(
        negotiated if layer_of(fd).is_server else SSLNextProtoState.SSL_NEXT_PROTO_SELECTED, info.alpn.encode("latin-1")
    )


@sets_error
def SSL_GetNegotiatedHostInfo(fd: PRFileDesc) -> str | None:
    """Server: the name the client asked for; client: what SSL_SetURL set (ssl.h)."""
    layer = layer_of(fd)
    if not layer.is_server:
        return layer.settings.url or None
    return layer.info.server_name or None if layer.info else None


@sets_error
def SSL_ExportKeyingMaterial(fd: PRFileDesc, label: str | bytes, hasContext: bool, context: bytes, outLen: int) -> bytes:
    """`outLen` bytes that only the two ends know (RFC 5705, RFC 8446 section 7.5) (ssl.h).

    Raises NSPRError: SSL_ERROR_HANDSHAKE_NOT_COMPLETED, SEC_ERROR_INVALID_ARGS."""
    layer = layer_of(fd)
    if not label or outLen <= 0:
        raise ConfigurationError("a label and a length are needed")
    _open_engine(layer)
    with layer.lock:
        assert layer.engine is not None
        name = label.encode() if isinstance(label, str) else label
        return layer.engine.export(name, context if hasContext else None, outLen)
