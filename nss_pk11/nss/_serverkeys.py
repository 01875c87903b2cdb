"""Certificates and keys of servers (ssl.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from ..certs.info import PARSE_ERRORS
from ..db import TrustFlags
from ..errors import NSPRError
from . import _trust
from ._objects import instances, wrap_all

if TYPE_CHECKING:
    from ..tls.config import Identity
    from ._settings import Settings
    from ._sslt import SSLKEAType
    from .types import CERTCertificate, SECKEYPrivateKey


@dataclass(frozen=True, eq=False)
class ServerKey:
    """A certificate that a socket serves.  `kea`: the slot it was put in; `identity`: the engine's view of it and its key."""

    certificate: CERTCertificate
    key: SECKEYPrivateKey
    kea: SSLKEAType
    identity: Identity


def chain_of(cert: CERTCertificate) -> tuple[bytes, ...]:
    """A certificate and its issuers as far as they lie on tokens, DER, leaf first."""
    known: dict[bytes, list[CERTCertificate]] = {}
    for other in wrap_all(instances()):
        known.setdefault(other.derSubject, []).append(other)
    chain = [cert]
    while len(chain) < 20 and chain[-1].derIssuer != chain[-1].derSubject:
        issuer = next((other for other in known.get(chain[-1].derIssuer, ()) if _issued(other, chain[-1])), None)
        if issuer is None:
            break
        chain.append(issuer)
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
        found = tuple(cert for cert in wrap_all(instances()) if _trust.trust_of(cert)[0] & TrustFlags.trusted_client_ca)
    if not found:
        raise NSPRError("no CA is trusted for clients", name="SSL_ERROR_NO_TRUSTED_SSL_CLIENT_CA")
    return tuple(dict.fromkeys(cert.derSubject for cert in found))


def step_down() -> Any:
    return None
