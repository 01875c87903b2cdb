"""One error family for the whole package, and the one place where an error becomes a TLS alert.

Every error carries an NSS/NSPR name and number (`error_codes.json`; sources: NSS `sslerr.h`, `secerr.h`, NSPR `prerr.h`)
and a detail in plain words.  The *class* says what kind of mistake it is and so which alert the peer gets; the *name* says
which one of NSS's 454 codes the caller reads.  No secret, PIN or key ever goes into a detail.

Everyone may import this module; it imports nothing of the package.
"""

from __future__ import annotations

import json
from enum import IntEnum
from functools import cache
from importlib.resources import files
from typing import ClassVar


class Alert(IntEnum):
    """AlertDescription (RFC 8446 section 6, RFC 5246 section 7.2, and the extensions' RFCs)."""

    close_notify = 0
    unexpected_message = 10
    bad_record_mac = 20
    decryption_failed = 21
    record_overflow = 22
    decompression_failure = 30
    handshake_failure = 40
    no_certificate = 41
    bad_certificate = 42
    unsupported_certificate = 43
    certificate_revoked = 44
    certificate_expired = 45
    certificate_unknown = 46
    illegal_parameter = 47
    unknown_ca = 48
    access_denied = 49
    decode_error = 50
    decrypt_error = 51
    export_restriction = 60
    protocol_version = 70
    insufficient_security = 71
    internal_error = 80
    inappropriate_fallback = 86
    user_canceled = 90
    no_renegotiation = 100
    missing_extension = 109
    unsupported_extension = 110
    certificate_unobtainable = 111
    unrecognized_name = 112
    bad_certificate_status_response = 113
    bad_certificate_hash_value = 114
    unknown_psk_identity = 115
    certificate_required = 116
    no_application_protocol = 120


@cache
def _codes() -> dict[str, tuple[int, str]]:
    text = files("nss_pk11").joinpath("error_codes.json").read_text("utf-8")
    return {name: (number, meaning) for name, (number, meaning) in json.loads(text).items()}


def error_number(name: str) -> int:
    """The number of an NSS/NSPR error name, e.g. -12286 for SSL_ERROR_NO_CYPHER_OVERLAP.  Raises KeyError."""
    return _codes()[name][0]


@cache
def _names() -> dict[int, str]:
    return {number: name for name, (number, _) in _codes().items()}


def error_name(number: int) -> str:
    """The NSS/NSPR name of an error's number.  Raises KeyError."""
    return _names()[number]


def error_meaning(name: str) -> str:
    """What an NSS/NSPR error name means, one sentence.  Raises KeyError."""
    return _codes()[name][1]


class NSPRError(Exception):
    """Base of every error this package raises on purpose.

    Attributes: `name` (NSS/NSPR name), `errno` (its number), `detail` (what happened, in plain words, without secrets).
    """

    default_name: ClassVar[str] = "PR_UNKNOWN_ERROR"

    def __init__(self, detail: str = "", *, name: str | None = None) -> None:
        self.name = name or self.default_name
        self.detail = detail
        super().__init__(detail)

    @property
    def errno(self) -> int:
        return error_number(self.name)

    def __str__(self) -> str:
        return f"{self.detail or error_meaning(self.name)} [{self.name} {self.errno}]"


class ConfigurationError(NSPRError):
    """The caller asked for something that cannot be: a bad option, URI, file or combination."""

    default_name = "SEC_ERROR_INVALID_ARGS"


# --- the peer, or the protocol --------------------------------------------------------------------------------------


class TLSError(NSPRError):
    """A handshake or record that cannot go on.  Subclasses name the kind of mistake; `ALERTS` gives each its alert."""

    default_name = "SSL_ERROR_HANDSHAKE_FAILED"


class DecodeError(TLSError):
    """A message that does not parse: wrong length, trailing bytes, truncated vector."""

    default_name = "SSL_ERROR_RX_MALFORMED_HANDSHAKE"


class UnexpectedMessage(TLSError):
    """A message that parses but has no place here."""

    default_name = "SSL_ERROR_RX_UNEXPECTED_HANDSHAKE"


class IllegalParameter(TLSError):
    """A field that parses but holds a value the protocol forbids here."""

    default_name = "SSL_ERROR_RX_MALFORMED_HANDSHAKE"


class HandshakeFailure(TLSError):
    """No set of parameters that both sides accept."""

    default_name = "SSL_ERROR_NO_CYPHER_OVERLAP"


class UnsupportedVersion(TLSError):
    default_name = "SSL_ERROR_UNSUPPORTED_VERSION"


class InsufficientSecurity(TLSError):
    default_name = "SSL_ERROR_WEAK_SERVER_EPHEMERAL_DH_KEY"


class InappropriateFallback(TLSError):
    """TLS_FALLBACK_SCSV from a client whose newest version is older than ours (RFC 7507)."""

    default_name = "SSL_ERROR_INAPPROPRIATE_FALLBACK_ALERT"


class BadRecordMac(TLSError):
    """A record that does not authenticate.  Padding errors raise this too: one error, one alert (RFC 5246 section 6.2.3.2)."""

    default_name = "SSL_ERROR_BAD_MAC_READ"


class RecordOverflow(TLSError):
    default_name = "SSL_ERROR_RX_RECORD_TOO_LONG"


class DecryptError(TLSError):
    """A signature, Finished or PSK binder that does not verify."""

    default_name = "SSL_ERROR_BAD_HANDSHAKE_HASH_VALUE"


class MissingExtension(TLSError):
    default_name = "SSL_ERROR_MISSING_EXTENSION_ALERT"


class UnsupportedExtension(TLSError):
    """An answer to an extension that was never offered."""

    default_name = "SSL_ERROR_RX_UNEXPECTED_EXTENSION"


class NoApplicationProtocol(TLSError):
    default_name = "SSL_ERROR_NEXT_PROTOCOL_NO_PROTOCOL"


class UnrecognizedName(TLSError):
    default_name = "SSL_ERROR_UNRECOGNIZED_NAME_ALERT"


class CertificateRequired(TLSError):
    """The client sent no certificate and one is required (alert 116 in TLS 1.3, handshake_failure before)."""

    default_name = "SSL_ERROR_NO_CERTIFICATE"


class RenegotiationRefused(TLSError):
    default_name = "SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"


class HandshakeTimeout(TLSError):
    """The peer stalled; nothing is said to it but that the connection closes."""

    default_name = "PR_IO_TIMEOUT_ERROR"


class Truncated(TLSError):
    """The transport ended without close_notify (RFC 8446 section 6.1): data may be missing."""

    default_name = "PR_END_OF_FILE_ERROR"


class NotTLS(TLSError):
    """The peer's first bytes are no TLS record: plain HTTP, a port scan, noise."""

    default_name = "SSL_ERROR_RX_UNKNOWN_RECORD_TYPE"


class AlertReceived(TLSError):
    """The peer ended the connection with a fatal alert; `alert` is its description (an int if unknown)."""

    def __init__(self, alert: int, detail: str = "") -> None:
        try:
            self.alert: int = Alert(alert)
            text = self.alert.name
        except ValueError:
            self.alert, text = alert, f"alert {alert}"
        super().__init__(
            detail or f"peer sent a fatal alert: {text}", name=_NAME_OF_ALERT.get(alert, "SSL_ERROR_HANDSHAKE_UNEXPECTED_ALERT")
        )


class InternalError(TLSError):
    """A fault of ours, or of a token, that ends the connection."""

    default_name = "SEC_ERROR_LIBRARY_FAILURE"


# --- certificates ---------------------------------------------------------------------------------------------------


class CertificateError(NSPRError):
    """A certificate that is not accepted; `name` says why (`SEC_ERROR_EXPIRED_CERTIFICATE`, …), `subject` names it."""

    default_name = "SSL_ERROR_BAD_CERTIFICATE"

    def __init__(self, detail: str = "", *, name: str | None = None, subject: str = "") -> None:
        super().__init__(detail, name=name)
        self.subject = subject


# --- tokens ---------------------------------------------------------------------------------------------------------


class TokenError(NSPRError):
    """A PKCS #11 call that failed.

    Attributes: `ckr` (CKR_ name), `rv` (its number, -1 if the failure is not a module's), `module`, `slot`, `token`
    (labels), `mechanism` (CKM_ name) and `function` (C_ name); empty where unknown.
    """

    default_name = "SEC_ERROR_UNKNOWN_PKCS11_ERROR"

    def __init__(
        self,
        detail: str = "",
        *,
        name: str | None = None,
        ckr: str = "",
        rv: int = -1,
        module: str = "",
        slot: str = "",
        token: str = "",
        mechanism: str = "",
        function: str = "",
    ) -> None:
        super().__init__(detail, name=name)
        self.ckr, self.rv = ckr, rv
        self.module, self.slot, self.token = module, slot, token
        self.mechanism, self.function = mechanism, function

    def __str__(self) -> str:
        fields = {"token": self.token, "slot": self.slot, "mechanism": self.mechanism, "call": self.function, "result": self.ckr}
        where = ", ".join(f"{key} {value}" for key, value in fields.items() if value)
        return super().__str__() + (f" ({where})" if where else "")


class WrongSignature(TokenError):
    """A token made a signature that its own public key does not verify.  It was not sent."""

    default_name = "SEC_ERROR_BAD_SIGNATURE"


class NotFound(TokenError):
    """No module, token, key or certificate answers the description."""

    default_name = "SEC_ERROR_NO_TOKEN"


class Ambiguous(TokenError):
    """A URI that matches more than one object; the detail lists them."""

    default_name = "SEC_ERROR_INVALID_ARGS"


class PinError(TokenError):
    """Login did not happen."""

    default_name = "SEC_ERROR_TOKEN_NOT_LOGGED_IN"


class PinIncorrect(PinError):
    """The token refused the PIN.  It is not sent again."""

    default_name = "SEC_ERROR_BAD_PASSWORD"


class PinLocked(PinError):
    default_name = "SEC_ERROR_LOCKED_PASSWORD"


class PinCancelled(PinError):
    """The provider gave no PIN."""

    default_name = "SEC_ERROR_USER_CANCELLED"


class DatabaseLocked(PinError):
    """A private key of a database was asked for before its password."""


# --- databases ------------------------------------------------------------------------------------------------------


class DatabaseError(NSPRError):
    """An NSS database that cannot be read or written: damaged, hostile, missing, read-only (`SEC_ERROR_READ_ONLY`), busy."""

    default_name = "SEC_ERROR_BAD_DATABASE"


# --- error -> alert -------------------------------------------------------------------------------------------------

ALERTS: dict[type[BaseException], Alert] = {
    DecodeError: Alert.decode_error,
    UnexpectedMessage: Alert.unexpected_message,
    NotTLS: Alert.unexpected_message,
    IllegalParameter: Alert.illegal_parameter,
    HandshakeFailure: Alert.handshake_failure,
    UnsupportedVersion: Alert.protocol_version,
    InsufficientSecurity: Alert.insufficient_security,
    InappropriateFallback: Alert.inappropriate_fallback,
    BadRecordMac: Alert.bad_record_mac,
    RecordOverflow: Alert.record_overflow,
    DecryptError: Alert.decrypt_error,
    MissingExtension: Alert.missing_extension,
    UnsupportedExtension: Alert.unsupported_extension,
    NoApplicationProtocol: Alert.no_application_protocol,
    UnrecognizedName: Alert.unrecognized_name,
    CertificateRequired: Alert.certificate_required,
    RenegotiationRefused: Alert.no_renegotiation,
    CertificateError: Alert.bad_certificate,
    TLSError: Alert.handshake_failure,
}

_CERTIFICATE_ALERTS: dict[str, Alert] = {
    "SEC_ERROR_EXPIRED_CERTIFICATE": Alert.certificate_expired,
    "SEC_ERROR_CERT_NOT_VALID": Alert.certificate_expired,
    "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE": Alert.certificate_expired,
    "SEC_ERROR_REVOKED_CERTIFICATE": Alert.certificate_revoked,
    "SEC_ERROR_REVOKED_CERTIFICATE_OCSP": Alert.certificate_revoked,
    "SEC_ERROR_REVOKED_CERTIFICATE_CRL": Alert.certificate_revoked,
    "SEC_ERROR_UNKNOWN_ISSUER": Alert.unknown_ca,
    "SEC_ERROR_UNTRUSTED_ISSUER": Alert.unknown_ca,
    "SEC_ERROR_UNTRUSTED_CERT": Alert.certificate_unknown,
    "SEC_ERROR_INADEQUATE_CERT_TYPE": Alert.unsupported_certificate,
    "SEC_ERROR_INADEQUATE_KEY_USAGE": Alert.unsupported_certificate,
    "SEC_ERROR_UNSUPPORTED_KEYALG": Alert.unsupported_certificate,
}

# Errors after which the transport is gone or the peer has already said goodbye: there is nobody to alert.
_SILENT = (AlertReceived, Truncated)


def alert_for(error: BaseException) -> Alert | None:
    """The alert that tells the peer about `error`, or None where none may be sent.

    Anything that is not an error about the peer (a token's failure, a bug) is internal_error: what went wrong on this
    side is this side's business (RFC 8446 section 6.2).
    """
    if isinstance(error, _SILENT):
        return None
    if isinstance(error, HandshakeTimeout):
        return Alert.close_notify
    if isinstance(error, InternalError):
        return Alert.internal_error
    if isinstance(error, CertificateError):
        staple = error.name.startswith("SEC_ERROR_OCSP_")
        return _CERTIFICATE_ALERTS.get(error.name, Alert.bad_certificate_status_response if staple else Alert.bad_certificate)
    return next((ALERTS[kind] for kind in type(error).__mro__ if kind in ALERTS), Alert.internal_error)


_NAME_OF_ALERT: dict[int, str] = {
    Alert.close_notify: "SSL_ERROR_CLOSE_NOTIFY_ALERT",
    Alert.unexpected_message: "SSL_ERROR_HANDSHAKE_UNEXPECTED_ALERT",
    Alert.bad_record_mac: "SSL_ERROR_BAD_MAC_ALERT",
    Alert.decryption_failed: "SSL_ERROR_DECRYPTION_FAILED_ALERT",
    Alert.record_overflow: "SSL_ERROR_RECORD_OVERFLOW_ALERT",
    Alert.decompression_failure: "SSL_ERROR_DECOMPRESSION_FAILURE_ALERT",
    Alert.handshake_failure: "SSL_ERROR_HANDSHAKE_FAILURE_ALERT",
    Alert.no_certificate: "SSL_ERROR_NO_CERTIFICATE",
    Alert.bad_certificate: "SSL_ERROR_BAD_CERT_ALERT",
    Alert.unsupported_certificate: "SSL_ERROR_UNSUPPORTED_CERT_ALERT",
    Alert.certificate_revoked: "SSL_ERROR_REVOKED_CERT_ALERT",
    Alert.certificate_expired: "SSL_ERROR_EXPIRED_CERT_ALERT",
    Alert.certificate_unknown: "SSL_ERROR_CERTIFICATE_UNKNOWN_ALERT",
    Alert.illegal_parameter: "SSL_ERROR_ILLEGAL_PARAMETER_ALERT",
    Alert.unknown_ca: "SSL_ERROR_UNKNOWN_CA_ALERT",
    Alert.access_denied: "SSL_ERROR_ACCESS_DENIED_ALERT",
    Alert.decode_error: "SSL_ERROR_DECODE_ERROR_ALERT",
    Alert.decrypt_error: "SSL_ERROR_DECRYPT_ERROR_ALERT",
    Alert.export_restriction: "SSL_ERROR_EXPORT_RESTRICTION_ALERT",
    Alert.protocol_version: "SSL_ERROR_PROTOCOL_VERSION_ALERT",
    Alert.insufficient_security: "SSL_ERROR_INSUFFICIENT_SECURITY_ALERT",
    Alert.internal_error: "SSL_ERROR_INTERNAL_ERROR_ALERT",
    Alert.inappropriate_fallback: "SSL_ERROR_INAPPROPRIATE_FALLBACK_ALERT",
    Alert.user_canceled: "SSL_ERROR_USER_CANCELED_ALERT",
    Alert.no_renegotiation: "SSL_ERROR_NO_RENEGOTIATION_ALERT",
    Alert.missing_extension: "SSL_ERROR_MISSING_EXTENSION_ALERT",
    Alert.unsupported_extension: "SSL_ERROR_UNSUPPORTED_EXTENSION_ALERT",
    Alert.certificate_unobtainable: "SSL_ERROR_CERTIFICATE_UNOBTAINABLE_ALERT",
    Alert.unrecognized_name: "SSL_ERROR_UNRECOGNIZED_NAME_ALERT",
    Alert.bad_certificate_status_response: "SSL_ERROR_BAD_CERT_STATUS_RESPONSE_ALERT",
    Alert.bad_certificate_hash_value: "SSL_ERROR_BAD_CERT_HASH_VALUE_ALERT",
    Alert.certificate_required: "SSL_ERROR_RX_CERTIFICATE_REQUIRED_ALERT",
    Alert.no_application_protocol: "SSL_ERROR_NEXT_PROTOCOL_NO_PROTOCOL",
}
