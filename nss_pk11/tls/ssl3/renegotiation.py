"""Another handshake on an open connection below TLS 1.3 (RFC 5246 section 7.4.1), tied to the one before it (RFC 5746).

`as_server` and `as_client` are what a flow does between two handshakes: it waits for somebody's wish.  A wish of ours comes
from `Engine.renegotiate`; one of the peer's is refused, politely and not for ever, unless the settings allow it.  The other
functions are the hellos' part of RFC 5746.  Nothing here keeps a handshake alive: an idle connection is a wait.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import NamedTuple

from ...errors import (
    Alert,
    CertificateError,
    ConfigurationError,
    HandshakeFailure,
    IllegalParameter,
    RenegotiationRefused,
    UnsupportedVersion,
)
from ..codepoints import C, H, V, X
from ..config import ClientConfig, Config, ServerConfig
from ..link import Agreed, Link, Steps
from ..messages import extensions as ext
from ..messages import tls12
from ..messages.hello import ClientHello, ServerHello
from ..suites import EMPTY_RENEGOTIATION_INFO_SCSV
from ..waits import NO_RENEGOTIATION, Receive

MAX_REFUSALS = 4  # in a row, without data between them; a peer that keeps asking is not listening
MAX_RENEGOTIATIONS = 16  # that the peer asks for, of one connection: each may cost a token a signature

NO_RENEGOTIATION_WARNING = bytes((1, Alert.no_renegotiation))

_WRONG = "SSL_ERROR_BAD_HANDSHAKE_HASH_VALUE"


class Again(NamedTuple):
    """Our wish for another handshake, which a flow gets in place of a message."""

    resume: bool


# --- between two handshakes ----------------------------------------------------------------------------------------------


def as_server(link: Link, config: ServerConfig) -> Steps[tuple[ClientHello, ServerConfig]]:
    """The ClientHello that begins the next handshake, and the settings for it."""
    link.refusals = 0
    while True:
        raw = yield Receive(H.client_hello, *((NO_RENEGOTIATION,) if link.handshaking else ()))
        assert isinstance(link.config, ServerConfig)
        config = link.config
        if isinstance(raw, Again):
            link.may_resume = raw.resume
            link.handshaking = True
            link.send(tls12.HELLO_REQUEST)
        elif raw == NO_RENEGOTIATION_WARNING:
            link.stay()
        elif link.handshaking or _takes(link, config):
            break
        else:
            _refuse(link)
    hello = ClientHello.decode(raw)
    link.open_again()
    link.info.client_random = hello.random
    if link.info.version not in hello.offered_versions():  # RFC 8446 section 4.1.2: it is kept
        raise UnsupportedVersion("client renegotiates another version")
    return hello, config


def as_client(link: Link, config: ClientConfig) -> Steps[ClientConfig]:
    """Waits until it is time for a ClientHello; returns the settings for it.

    A server that asks wants to see who we are, so what it gets is a full handshake.
    """
    link.refusals = 0
    while True:
        raw = yield Receive(H.hello_request)
        assert isinstance(link.config, ClientConfig)
        config = link.config
        if isinstance(raw, Again):
            link.may_resume = raw.resume
            break
        tls12.require_empty(raw)
        if _takes(link, config):
            link.may_resume = False
            break
        _refuse(link)
    link.open_again()
    return config


def allowed(link: Link, config: Config) -> bool:
    """Whether this connection may be renegotiated at all.

    One that began by resuming without the extended master secret is tied to nothing, whatever its Finished say: somebody in
    the middle could have made another with the same ones (RFC 7627 section 5.3).
    """
    info = link.info
    tied = link.secure_renegotiation and (info.extended_master_secret or not info.resumed or link.renegotiated)
    return config.renegotiation == "legacy" or (config.renegotiation == "secure" and tied)


def check_allowed(link: Link, config: Config) -> None:
    """Whether we may start one.  Raises ConfigurationError with the names `Engine.renegotiate` tells."""
    version = link.info.version
    assert version is not None
    if version == V.tls1_3:
        raise ConfigurationError("TLS 1.3 has no renegotiation", name="SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION")
    if version == V.ssl2:
        raise ConfigurationError("SSL 2.0 has no renegotiation", name="SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION")
    if not allowed(link, config):
        raise ConfigurationError(
            "renegotiation is not enabled, or not safe with this peer", name="SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"
        )
    if not any(suite.min_version <= version <= suite.max_version for suite in config.usable_suites()):
        raise ConfigurationError(f"no enabled suite fits {version.label}", name="SSL_ERROR_NO_CIPHERS_SUPPORTED")


def _takes(link: Link, config: Config) -> bool:
    """Whether a wish of the peer's is granted."""
    link.renegotiations += 1
    return link.renegotiations <= MAX_RENEGOTIATIONS and allowed(link, config)


def _refuse(link: Link) -> None:
    """With a warning (RFC 5246 section 7.2.2); SSL 3.0 has none, so its connection ends (RFC 5746 section 4.5)."""
    if link.refusals == MAX_REFUSALS:
        raise RenegotiationRefused(f"peer asked for renegotiation {MAX_REFUSALS + 1} times")
    if link.info.version == V.ssl3:
        raise RenegotiationRefused("peer asked for renegotiation")
    link.records.send(C.alert, NO_RENEGOTIATION_WARNING)
    link.refusals += 1


# --- RFC 5746 ------------------------------------------------------------------------------------------------------------


def check_client_hello(link: Link, config: ServerConfig, hello: ClientHello) -> None:
    """Sections 3.6, 3.7 and, without secure renegotiation, 4.4."""
    body = hello.extensions.get(X.renegotiation_info)
    theirs = None if body is None else ext.decode_renegotiation_info(body)
    signalled = EMPTY_RENEGOTIATION_INFO_SCSV in hello.suites
    if link.previous is None:
        _note(link, config, theirs is not None or signalled)
        expected = b"" if theirs is not None else None
    else:
        if signalled:
            raise HandshakeFailure("client renegotiates as if for the first time", name=_WRONG)
        _keep_extended_master_secret(link.previous, X.extended_master_secret in hello.extensions)
        expected = link.client_finished if link.secure_renegotiation else None
    _check(theirs, expected)


def _keep_extended_master_secret(previous: Agreed, kept: bool) -> None:
    """A peer that has shown that it knows it does not forget it: a handshake without can be had from two sides (RFC 7627 section
    1), and whoever is between them would like that better."""
    if previous.info.extended_master_secret and not kept:
        raise HandshakeFailure(
            "peer renegotiates without the extended master secret", name="SSL_ERROR_MISSING_EXTENDED_MASTER_SECRET"
        )


def keep_server_name(link: Link) -> None:
    """What a server has said so far it has said by one name; as in NSS, a handshake that asks for another ends."""
    if link.previous is not None and link.info.server_name != link.previous.info.server_name:
        raise HandshakeFailure("client renegotiates with another server name", name="SSL_ERROR_UNRECOGNIZED_NAME_ALERT")


def keep_encrypt_then_mac(link: Link) -> None:
    """Once the suite is chosen: block ciphers with encrypt-then-MAC do not go back to what was before (RFC 7366 section 3.1)."""
    if link.previous is None or not link.previous.info.encrypt_then_mac or link.info.encrypt_then_mac:
        return
    if link.info.suite is not None and link.info.suite.cipher.kind == "cbc":
        raise HandshakeFailure("peer renegotiates without encrypt-then-MAC", name="SSL_ERROR_UNSAFE_NEGOTIATION")


def answer(link: Link) -> bytes | None:
    """The server's renegotiation_info, if there is to be one."""
    if not link.secure_renegotiation:
        return None
    return ext.encode_renegotiation_info(link.client_finished + link.server_finished if link.previous is not None else b"")


def offer(link: Link) -> bytes:
    """The client's, in a renegotiation.  Also where the server has shown that it does not know it (section 4.2)."""
    return ext.encode_renegotiation_info(link.client_finished)


def check_server_hello(link: Link, config: ClientConfig, hello: ServerHello) -> None:
    """Sections 3.4, 3.5 and, without secure renegotiation, 4.2."""
    body = hello.extensions.get(X.renegotiation_info)
    theirs = None if body is None else ext.decode_renegotiation_info(body)
    if link.previous is None:
        _note(link, config, theirs is not None)
        expected = b"" if theirs is not None else None
    else:
        if hello.version != link.info.version:
            raise IllegalParameter("server renegotiates another version", name="SSL_ERROR_RX_MALFORMED_SERVER_HELLO")
        if config.extended_master_secret:
            _keep_extended_master_secret(link.previous, X.extended_master_secret in hello.extensions)
        expected = link.client_finished + link.server_finished if link.secure_renegotiation else None
    _check(theirs, expected)


def _note(link: Link, config: Config, secure: bool) -> None:
    link.secure_renegotiation = secure
    if config.require_safe_negotiation and not secure:
        raise HandshakeFailure("peer does not know secure renegotiation (RFC 5746)", name="SSL_ERROR_UNSAFE_NEGOTIATION")


def _check(theirs: bytes | None, expected: bytes | None) -> None:
    if theirs is None or expected is None:
        if theirs is not expected:
            what = "does not tie" if theirs is None else "ties, out of the blue,"
            raise HandshakeFailure(f"peer {what} the handshake to the one before it", name=_WRONG)
    elif not compare_digest(theirs, expected):
        raise HandshakeFailure("handshake is tied to another than the one before it", name=_WRONG)


def check_same_server(link: Link, chain: tuple[bytes, ...]) -> None:
    """A server that becomes another in the middle of a connection may be two: the triple handshake.  Raises CertificateError."""
    if link.previous is not None and link.previous.info.peer_chain[:1] != chain[:1]:
        raise CertificateError("server renegotiates with another certificate", name="SSL_ERROR_BAD_CERTIFICATE")
