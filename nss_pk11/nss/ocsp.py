"""OCSP responses that a server makes itself, for tests of stapling (ocsp.h).

What C puts into an arena is returned.  Responses are of SHA-256; certificates are named by SHA-1, as every client expects
(RFC 5019 section 2.1.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import asn1crypto.algos
import asn1crypto.core
import asn1crypto.ocsp
import asn1crypto.x509

from ..errors import ConfigurationError, NotFound, error_name
from ..slots import Algorithm
from ._objects import PK11_FindKeyByAnyCert
from ._serverkeys import chain_of
from .prerror import sets_error
from .types import CERTCertificate

__all__ = [
    "CERTOCSPCertID",
    "CERTOCSPResponderIDType",
    "CERTOCSPSingleResponse",
    "CERT_CreateEncodedOCSPErrorResponse",
    "CERT_CreateEncodedOCSPSuccessResponse",
    "CERT_CreateOCSPCertID",
    "CERT_CreateOCSPSingleResponseGood",
    "CERT_CreateOCSPSingleResponseRevoked",
    "CERT_CreateOCSPSingleResponseUnknown",
]


class CERTOCSPResponderIDType(IntEnum):
    """How a response names who signed it (ocspt.h)."""

    ocspResponderID_byName = 1
    ocspResponderID_byKey = 2


@dataclass(frozen=True)
class CERTOCSPCertID:
    """Which certificate is meant (ocspt.h)."""

    encoded: asn1crypto.ocsp.CertId


@dataclass(frozen=True)
class CERTOCSPSingleResponse:
    """What is said of one certificate (ocspt.h)."""

    encoded: asn1crypto.ocsp.SingleResponse


@sets_error
def CERT_CreateOCSPCertID(cert: CERTCertificate, time: float) -> CERTOCSPCertID:
    """How responses name a certificate (ocsp.h).  `time`: seconds since 1970, not looked at.  Raises NotFound
    (SEC_ERROR_UNKNOWN_ISSUER) where its issuer lies on no token."""
    chain = chain_of(cert)
    self_issued = cert.derIssuer == cert.derSubject
    if len(chain) < 2 and not self_issued:
        raise NotFound("the issuer of the certificate lies on no token", name="SEC_ERROR_UNKNOWN_ISSUER")
    key = asn1crypto.x509.Certificate.load(chain[0 if self_issued else 1])["tbs_certificate"]["subject_public_key_info"]
    return CERTOCSPCertID(
        asn1crypto.ocsp.CertId(
            {
                "hash_algorithm": {"algorithm": "sha1"},
                "issuer_name_hash": hashlib.sha1(cert.derIssuer).digest(),
                "issuer_key_hash": hashlib.sha1(bytes(key["public_key"])).digest(),
                "serial_number": cert.serialNumber,
            }
        )
    )


def CERT_CreateOCSPSingleResponseGood(id: CERTOCSPCertID, thisUpdate: float, nextUpdate: float | None) -> CERTOCSPSingleResponse:
    """That a certificate is good (ocsp.h).  Times: seconds since 1970.  Differs: no arena."""
    return _single(id, "good", asn1crypto.core.Null(), thisUpdate, nextUpdate)


def CERT_CreateOCSPSingleResponseUnknown(
    id: CERTOCSPCertID, thisUpdate: float, nextUpdate: float | None
) -> CERTOCSPSingleResponse:
    """That a certificate is not known (ocsp.h).  Differs: no arena."""
    return _single(id, "unknown", asn1crypto.core.Null(), thisUpdate, nextUpdate)


def CERT_CreateOCSPSingleResponseRevoked(
    id: CERTOCSPCertID, thisUpdate: float, nextUpdate: float | None, revocationTime: float, revocationReason: int | None = None
) -> CERTOCSPSingleResponse:
    """That a certificate was revoked (ocsp.h).  Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) with a reason, as C does.
    Differs: no arena."""
    if revocationReason is not None:
        raise ConfigurationError("reasons are not done here, nor in C")
    return _single(id, "revoked", {"revocation_time": _time(revocationTime)}, thisUpdate, nextUpdate)


def _single(id: CERTOCSPCertID, status: str, value: Any, this: float, following: float | None) -> CERTOCSPSingleResponse:
    fields = {
        "cert_id": id.encoded,
        "cert_status": asn1crypto.ocsp.CertStatus(name=status, value=value),
        "this_update": _time(this),
    }
    if following is not None:
        fields["next_update"] = _time(following)
    return CERTOCSPSingleResponse(asn1crypto.ocsp.SingleResponse(fields))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


# By kind of key: how it signs, and what X.509 calls that.
_SIGNATURES = {
    "rsa": (Algorithm.rsa_pkcs1_sha256, "sha256_rsa"),
    "ec": (Algorithm.ecdsa_sha256, "sha256_ecdsa"),
    "dsa": (Algorithm.dsa_sha256, "sha256_dsa"),
}


@sets_error
def CERT_CreateEncodedOCSPSuccessResponse(
    responderCert: CERTCertificate | None,
    responderIDType: int,
    producedAt: float,
    responses: Sequence[CERTOCSPSingleResponse],
    wincx: object = None,
) -> bytes:
    """A response, DER, signed by `responderCert` with its key (ocsp.h); without one a signature that is wrong, as in C.

    Raises NSPRError as PK11_FindKeyByAnyCert; ConfigurationError (SEC_ERROR_INVALID_ARGS) for keys of other kinds than RSA, EC
    and DSA.  Differs: no arena."""
    data = asn1crypto.ocsp.ResponseData(
        {
            "responder_id": _responder(responderCert, responderIDType),
            "produced_at": _time(producedAt),
            "responses": [response.encoded for response in responses],
        }
    )
    algorithm, signature = "sha256_rsa", bytes(256)
    if responderCert is not None:
        key = PK11_FindKeyByAnyCert(responderCert, wincx)
        if key.keyType not in _SIGNATURES:
            raise ConfigurationError(f"no response is signed by a key of type {key.keyType}")
        method, algorithm = _SIGNATURES[key.keyType]
        signature = key.key.sign(method, data.dump())
    basic = asn1crypto.ocsp.BasicOCSPResponse(
        {"tbs_response_data": data, "signature_algorithm": {"algorithm": algorithm}, "signature": signature}
    )
    encoded = {"response_type": "basic_ocsp_response", "response": asn1crypto.core.ParsableOctetString(basic.dump())}
    return bytes(asn1crypto.ocsp.OCSPResponse({"response_status": "successful", "response_bytes": encoded}).dump())


def _responder(cert: CERTCertificate | None, kind: int) -> asn1crypto.ocsp.ResponderId:
    if cert is not None and kind == CERTOCSPResponderIDType.ocspResponderID_byName:
        return asn1crypto.ocsp.ResponderId(name="by_name", value=asn1crypto.x509.Name.load(cert.derSubject))
    key = b""
    if cert is not None:
        parts = asn1crypto.x509.Certificate.load(cert.derCert)["tbs_certificate"]
        key = bytes(parts["subject_public_key_info"]["public_key"])
    return asn1crypto.ocsp.ResponderId(name="by_key", value=hashlib.sha1(key).digest())


# By error: the status that a response without content tells (RFC 6960 section 4.2.1).
_STATUSES = {
    "SEC_ERROR_OCSP_MALFORMED_REQUEST": "malformed_request",
    "SEC_ERROR_OCSP_SERVER_ERROR": "internal_error",
    "SEC_ERROR_OCSP_TRY_SERVER_LATER": "try_later",
    "SEC_ERROR_OCSP_REQUEST_NEEDS_SIG": "sign_required",
    "SEC_ERROR_OCSP_UNAUTHORIZED_REQUEST": "unauthorized",
}


@sets_error
def CERT_CreateEncodedOCSPErrorResponse(error: int) -> bytes:
    """A response, DER, that only says why there is none (ocsp.h).  `error`: SEC_ERROR_OCSP_TRY_SERVER_LATER and its kin.

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for any other.  Differs: no arena."""
    try:
        status = _STATUSES[error_name(error)]
    except KeyError:
        raise ConfigurationError(f"no OCSP response says {error}") from None
    return bytes(asn1crypto.ocsp.OCSPResponse({"response_status": status}).dump())
