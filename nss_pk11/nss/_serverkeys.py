"""Certificates and keys that a socket serves (ssl.h).

Each is put where its kind belongs ("rsa_sign", "rsa_decrypt", "ecdsa secp256r1", …), so that a server may have one of every kind,
and a new one takes the place of the old.  SSL_ConfigSecureServer tells kinds by SSLKEAType, later NSS by the certificate itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import asn1crypto.core
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from ..certs.facts import KeyUse, facts
from ..certs.info import PARSE_ERRORS, reading
from ..db import TrustFlags
from ..errors import ConfigurationError, NSPRError
from ..net import stepdown
from ..net.identity import make_identity
from . import _sidcaches, _trust
from ._channel import SSLAuthType
from ._layers import PRFileDesc
from ._objects import instances, preference, wrap_all
from ._settings import Settings, settings_of
from ._sslt import SSL_NO_STEP_DOWN, SSLKEAType
from ._suites import RSA_EXPORT
from .prerror import sets_error
from .types import CERTCertificate, SECKEYPrivateKey

if TYPE_CHECKING:
    from ..tls.config import Identity

__all__ = [
    "NSS_FindCertKEAType",
    "SSLExtraServerCertData",
    "SSL_ConfigSecureServer",
    "SSL_ConfigSecureServerWithCertChain",
    "SSL_ConfigServerCert",
    "SSL_SetStapledOCSPResponses",
]


@dataclass(frozen=True, eq=False)
class ServerKey:
    """A certificate that a socket serves, and its key; references of its own, so that the application may give back its.  `kea`:
    the type of the key; `identity`: the engine's view of both."""

    certificate: CERTCertificate
    key: SECKEYPrivateKey
    kea: SSLKEAType
    identity: Identity


class SSLExtraServerCertData(NamedTuple):
    """What SSL_ConfigServerCert may be told beside certificate and key (ssl.h).  `authType`: serve it for this alone;
    `stapledOCSPResponses`: DER, of which the first is sent."""

    authType: SSLAuthType = SSLAuthType.ssl_auth_null
    certChain: Sequence[CERTCertificate] | None = None
    stapledOCSPResponses: Sequence[bytes] | None = None


# --- SSLKEAType ------------------------------------------------------------------------------------------------------

_KEA_TYPES = {
    "1.2.840.113549.1.1.1": SSLKEAType.ssl_kea_rsa,  # PKCS #1
    "2.5.8.1.1": SSLKEAType.ssl_kea_rsa,  # X.500
    "1.2.840.10046.2.1": SSLKEAType.ssl_kea_dh,  # X9.42
    "1.2.840.10040.4.1": SSLKEAType.ssl_kea_dh,  # DSA, whose suites exchange keys by DH
    "2.16.840.1.101.2.1.1.2": SSLKEAType.ssl_kea_fortezza,  # MISSI: old DSS, old KEA and DSS, DSS, KEA and DSS
    "2.16.840.1.101.2.1.1.12": SSLKEAType.ssl_kea_fortezza,
    "2.16.840.1.101.2.1.1.19": SSLKEAType.ssl_kea_fortezza,
    "2.16.840.1.101.2.1.1.20": SSLKEAType.ssl_kea_fortezza,
    "2.16.840.1.101.2.1.1.10": SSLKEAType.ssl_kea_fortezza,  # KEA alone, and what RFC 2528 calls so
    "2.16.840.1.101.2.1.1.22": SSLKEAType.ssl_kea_fortezza,
    "1.2.840.10045.2.1": SSLKEAType.ssl_kea_ecdh,
}


@sets_error
def NSS_FindCertKEAType(cert: CERTCertificate | None) -> SSLKEAType:
    """For which key exchange a certificate's key is, ssl_kea_null for none (ssl.h).

    Differs: a DSA key is for ssl_kea_dh, as in later NSS; 3.10 knew no use for one on a server."""
    if cert is None:
        return SSLKEAType.ssl_kea_null
    algorithm = asn1crypto.core.Sequence.load(cert.spki)[0][0]  # not PublicKeyInfo, which knows none of the rare ones
    return _KEA_TYPES.get(algorithm.dotted, SSLKEAType.ssl_kea_null)


# --- a certificate per type ------------------------------------------------------------------------------------------


def SSL_ConfigSecureServer(fd: PRFileDesc, cert: CERTCertificate | None, key: SECKEYPrivateKey | None, kea: int) -> None:
    """Serve a certificate, one for each SSLKEAType; with neither certificate nor key that type's no more (ssl.h).

    For ssl_kea_rsa new step-down keys replace the old, unless the key is short enough for export suites itself.
    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for one of both alone; NSPRError: SEC_ERROR_UNSUPPORTED_KEYALG (no such
    type), SSL_ERROR_CERT_KEA_MISMATCH, SEC_ERROR_KEYGEN_FAIL, PR_BAD_DESCRIPTOR_ERROR; CertificateError (SEC_ERROR_NO_KEY) for
    another certificate's key.  A server with a FORTEZZA certificate is one process: ConfigurationError where its session cache
    is that of several (SSL_ConfigMPServerSIDCache), here or when a handshake begins.
    """
    SSL_ConfigSecureServerWithCertChain(fd, cert, None, key, kea)


@sets_error
def SSL_ConfigSecureServerWithCertChain(
    fd: PRFileDesc,
    cert: CERTCertificate | None,
    certChainOpt: Sequence[CERTCertificate] | None,
    key: SECKEYPrivateKey | None,
    kea: int,
) -> None:
    """SSL_ConfigSecureServer with the chain to send, where C would find it in the database (ssl.h).  Raises as that does."""
    settings = settings_of(fd)
    if (cert is None) != (key is None):
        raise ConfigurationError("a server has certificate and key, or neither")
    if not SSLKEAType.ssl_kea_null <= kea < SSLKEAType.ssl_kea_size:
        raise ConfigurationError(f"there is no SSLKEAType {kea}", name="SEC_ERROR_UNSUPPORTED_KEYALG")
    if cert is None or key is None:
        _clear(settings, kea)
        return
    if kea != NSS_FindCertKEAType(cert):
        raise NSPRError("the certificate is for another key exchange", name="SSL_ERROR_CERT_KEA_MISMATCH")
    server = _server_key(cert, key, certChainOpt)
    _check_one_process(server.identity)
    _clear(settings, kea)
    for place in _places(server):
        settings.servers[place] = server
    if kea == SSLKEAType.ssl_kea_rsa and server.identity.modulus_bits > 512 and not settings.on(SSL_NO_STEP_DOWN):
        _renew_step_down_keys(settings)


def _clear(settings: Settings, kea: int) -> None:
    settings.servers = {place: server for place, server in settings.servers.items() if server.kea != kea}
    settings.changed()


def _renew_step_down_keys(settings: Settings) -> None:
    """Made at once only where a suite that wants one may be chosen."""
    stepdown.renew()
    if not any(settings.permits(code) for code in RSA_EXPORT):
        return
    try:
        stepdown.step_down(512)
    except NSPRError as error:
        raise NSPRError(error.detail, name="SEC_ERROR_KEYGEN_FAIL") from error


# --- a certificate per kind ------------------------------------------------------------------------------------------


@sets_error
def SSL_ConfigServerCert(
    fd: PRFileDesc, cert: CERTCertificate, key: SECKEYPrivateKey, data: SSLExtraServerCertData | None = None, data_len: int = 0
) -> None:
    """Serve a certificate for all that its key usage allows, in place of others for the same (ssl.h): RSA keys sign, decrypt, or
    both, and there may be an EC key on each curve.

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) where one of both is missing, or the certificate is for nothing, or not for
    `data.authType`; CertificateError (SEC_ERROR_NO_KEY) for another certificate's key; NSPRError (PR_BAD_DESCRIPTOR_ERROR).
    A response that SSL_SetStapledOCSPResponses set for a certificate of this type is forgotten: it is about another.
    Differs: `data_len` means nothing.
    """
    settings = settings_of(fd)
    if cert is None or key is None:
        raise ConfigurationError("a server has certificate and key")
    data = data or SSLExtraServerCertData()
    server = _server_key(cert, key, data.certChain)
    if data.stapledOCSPResponses:
        server = replace(server, identity=replace(server.identity, ocsp=bytes(data.stapledOCSPResponses[0])))
    _check_one_process(server.identity)
    wanted = _AUTH_TYPES.get(data.authType)
    places = [place for place in _places(server) if place in _allowed(server) and wanted is not None and place.startswith(wanted)]
    if not places:
        raise ConfigurationError("the certificate's key usage allows no such use")
    for place in places:
        settings.servers[place] = server
    settings.staples = {kea: staple for kea, staple in settings.staples.items() if kea != server.kea}
    settings.changed()


# What SSLAuthType calls the places; of the others there is no certificate.
_AUTH_TYPES = {
    SSLAuthType.ssl_auth_null: "",
    SSLAuthType.ssl_auth_rsa_decrypt: "rsa_decrypt",
    SSLAuthType.ssl_auth_rsa_sign: "rsa_sign",
    SSLAuthType.ssl_auth_rsa_pss: "rsa-pss",
    SSLAuthType.ssl_auth_dsa: "dsa",
    SSLAuthType.ssl_auth_ecdsa: "ecdsa",
    SSLAuthType.ssl_auth_kea: "kea",
    SSLAuthType.ssl_auth_ecdh_rsa: "ecdh",
    SSLAuthType.ssl_auth_ecdh_ecdsa: "ecdh",
}


@reading()
def _allowed(server: ServerKey) -> set[str]:
    """The places for which the certificate's key usage is good."""
    use = facts(server.certificate.derCert).key_use
    signs, enciphers = KeyUse.DIGITAL_SIGNATURE in use, KeyUse.KEY_ENCIPHERMENT in use
    agrees = KeyUse.KEY_AGREEMENT in use
    return {place for place in _places(server) if {"rsa_decrypt": enciphers, "kea": agrees}.get(place, signs)}


def _places(server: ServerKey) -> list[str]:
    """Where a certificate is put, by its key."""
    identity = server.identity
    kind = server.key.keyType
    if kind == "rsa":
        pss_only = not identity.can_decrypt and all("pss_pss" in scheme.name for scheme in identity.schemes)
        return ["rsa-pss"] if pss_only and identity.schemes else ["rsa_sign", "rsa_decrypt"]
    if identity.curve is not None:
        return [f"ecdsa {identity.curve.name}"]
    return [kind]


def _server_key(cert: CERTCertificate, key: SECKEYPrivateKey, chain: Sequence[CERTCertificate] | None) -> ServerKey:
    ders = tuple(item.derCert for item in chain) if chain else chain_of(cert)
    identity = make_identity(key.key, ders, allow_expired=True)
    slot = cert.slot
    return ServerKey(
        CERTCertificate(cert.derCert, cert.nickname, slot.slot if slot else None),
        SECKEYPrivateKey(key.key, key.pkcs11Slot.slot, key.wincx),
        NSS_FindCertKEAType(cert),
        identity,
    )


def _check_one_process(identity: Identity) -> None:
    """Raises ConfigurationError: a card serves one process, and its keys cannot be shared."""
    if identity.kea and _sidcaches.of_several_processes():
        raise ConfigurationError(
            "a server with a FORTEZZA certificate is one process: SSL_ConfigServerSessionIDCache, not SSL_ConfigMPServerSIDCache"
        )


def identities(settings: Settings) -> tuple[Identity, ...]:
    """What the engine may serve: each certificate once, for the places it is in."""
    found: dict[ServerKey, set[str]] = {}
    for place, server in settings.servers.items():
        _check_one_process(server.identity)
        found.setdefault(server, set()).add(place)
    return tuple(_restricted(server, places, settings.staples.get(server.kea)) for server, places in found.items())


def _restricted(server: ServerKey, places: set[str], staple: bytes | None) -> Identity:
    identity = server.identity
    if "rsa_sign" not in places and "rsa_decrypt" in places:
        identity = replace(identity, schemes=())
    if "rsa_decrypt" not in places and identity.can_decrypt:
        identity = replace(identity, can_decrypt=False)
    return identity if staple is None else replace(identity, ocsp=staple)


@sets_error
def SSL_SetStapledOCSPResponses(fd: PRFileDesc, responses: Sequence[bytes] | None, kea: int) -> None:
    """The OCSP responses, DER, that go with the certificate of an SSLKEAType, whenever that is set; None: none (ssl.h).  The
    first is sent, to clients that ask for it.

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for another type than RSA, DH, ECDH; NSPRError (PR_BAD_DESCRIPTOR_ERROR).
    """
    settings = settings_of(fd)
    if kea not in (SSLKEAType.ssl_kea_rsa, SSLKEAType.ssl_kea_dh, SSLKEAType.ssl_kea_ecdh):
        raise ConfigurationError(f"no certificates of type {kea} have OCSP responses")
    settings.staples = {**settings.staples, kea: bytes(responses[0]) if responses else b""}
    settings.changed()


# --- chains and CAs --------------------------------------------------------------------------------------------------


def chain_of(cert: CERTCertificate) -> tuple[bytes, ...]:
    """A certificate and its issuers as far as they lie on tokens, DER, leaf first.  Of those of one issuer the best is taken: a
    CA's renewed certificate may lie beside the old."""
    known: dict[bytes, list[CERTCertificate]] = {}
    for other in wrap_all(instances()):
        known.setdefault(other.derSubject, []).append(other)
    chain = [cert]
    while chain[-1].derIssuer not in {item.derSubject for item in chain}:  # its own, or CAs certify each other
        issuers = [other for other in known.get(chain[-1].derIssuer, ()) if _issued(other, chain[-1])]
        if not issuers:
            break
        chain.append(max(issuers, key=preference))
    return tuple(item.derCert for item in chain)


def _issued(issuer: CERTCertificate, subject: CERTCertificate) -> bool:
    try:
        child, parent = (x509.load_der_x509_certificate(item.derCert) for item in (subject, issuer))
        child.verify_directly_issued_by(parent)
    except (*PARSE_ERRORS, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def client_authorities(settings: Settings) -> tuple[bytes, ...]:
    """The DER names of the CAs that may issue clients' certificates.  Raises NSPRError (SSL_ERROR_NO_TRUSTED_SSL_CLIENT_CA)."""
    found = settings.trust_anchors
    if found is None:
        trusted = TrustFlags.trusted_client_ca
        trusting = (cert for cert in wrap_all(instances()) if _trust.trust_of(cert)[0] & trusted)
        found = tuple(dict.fromkeys(cert.derSubject for cert in trusting))
    if not found:
        raise NSPRError("no CA is trusted for clients", name="SSL_ERROR_NO_TRUSTED_SSL_CLIENT_CA")
    return found
