"""A stapled OCSP response (RFC 6960, RFC 6066 section 8): is it about this certificate, by the right signer, in time, and good?

A server need not staple unless its certificate says so (RFC 7633); what it does staple must be good.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from .info import extension
from .rules import SELF_HASHING, STRONG_HASHES, check_dates, issued, refusal

SKEW = timedelta(minutes=5)  # how far a responder's clock and ours may be apart
MAX_AGE = timedelta(days=10)  # of a response without nextUpdate, which promises nothing (the CA/Browser Forum's limit)

_STATUS_NAMES = {
    ocsp.OCSPResponseStatus.MALFORMED_REQUEST: "SEC_ERROR_OCSP_MALFORMED_REQUEST",
    ocsp.OCSPResponseStatus.INTERNAL_ERROR: "SEC_ERROR_OCSP_SERVER_ERROR",
    ocsp.OCSPResponseStatus.TRY_LATER: "SEC_ERROR_OCSP_TRY_SERVER_LATER",
    ocsp.OCSPResponseStatus.SIG_REQUIRED: "SEC_ERROR_OCSP_REQUEST_NEEDS_SIG",
    ocsp.OCSPResponseStatus.UNAUTHORIZED: "SEC_ERROR_OCSP_UNAUTHORIZED_REQUEST",
}


def must_staple(certificate: x509.Certificate) -> bool:
    """Whether the certificate demands a stapled response (RFC 7633 section 4)."""
    features = extension(certificate, x509.TLSFeature) or ()
    return x509.TLSFeatureType.status_request in features


def check(staple: bytes, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime) -> None:
    """Judges a stapled response, b"" for none.  Raises CertificateError with the NSS name of what is wrong."""
    if not staple:
        if must_staple(leaf):
            detail = "requires a stapled OCSP response (RFC 7633) and the server sent none"
            raise refusal(detail, "SEC_ERROR_OCSP_UNKNOWN_RESPONSE_STATUS", leaf)
        return
    response = _parse(staple, leaf)
    _check_signer(response, leaf, issuer, now)
    single = _find_single(response, leaf, issuer)
    _check_times(single, leaf, now)
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        when = single.revocation_time_utc
        raise refusal(f"revoked on {when:%Y-%m-%d}" if when else "revoked", "SEC_ERROR_REVOKED_CERTIFICATE_OCSP", leaf)
    if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise refusal("its CA's OCSP responder does not know it", "SEC_ERROR_OCSP_UNKNOWN_CERT", leaf)


def _parse(staple: bytes, leaf: x509.Certificate) -> ocsp.OCSPResponse:
    try:
        response = ocsp.load_der_ocsp_response(staple)
        status = response.response_status
    except ValueError as error:
        raise refusal("the stapled OCSP response does not parse", "SEC_ERROR_OCSP_MALFORMED_RESPONSE", leaf) from error
    if status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise refusal(f"the stapled OCSP response says {status.name.lower()}", _STATUS_NAMES[status], leaf)
    return response


def _find_single(response: ocsp.OCSPResponse, leaf: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPSingleResponse:
    """The answer about `leaf` among those in the response: its CertID must be what a request for it would hold."""
    for single in response.responses:
        try:
            wanted = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, single.hash_algorithm).build()
        except (ValueError, UnsupportedAlgorithm):  # a hash that nobody uses here
            continue
        if all(
            getattr(single, part) == getattr(wanted, part) for part in ("serial_number", "issuer_name_hash", "issuer_key_hash")
        ):
            return single
    raise refusal("the stapled OCSP response is about another certificate", "SEC_ERROR_OCSP_MALFORMED_RESPONSE", leaf)


def _check_times(single: ocsp.OCSPSingleResponse, leaf: x509.Certificate, now: datetime) -> None:
    issued_at, until = single.this_update_utc, single.next_update_utc
    if issued_at > now + SKEW:
        raise refusal("the stapled OCSP response is dated in the future", "SEC_ERROR_OCSP_FUTURE_RESPONSE", leaf)
    if now - SKEW > (until if until is not None else issued_at + MAX_AGE):
        raise refusal("the stapled OCSP response is out of date", "SEC_ERROR_OCSP_OLD_RESPONSE", leaf)


def _check_signer(response: ocsp.OCSPResponse, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime) -> None:
    """The CA itself, or one that it certified for this (RFC 6960 section 4.2.2.2)."""
    signer = issuer if _is_responder(response, issuer) else _delegate(response, leaf, issuer, now)
    try:
        _verify(response, signer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise refusal("the stapled OCSP response's signature is bad", "SEC_ERROR_OCSP_BAD_SIGNATURE", leaf) from error


def _is_responder(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return response.responder_name == certificate.subject
    return response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def _delegate(response: ocsp.OCSPResponse, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime) -> x509.Certificate:
    found = next((candidate for candidate in response.certificates if _is_responder(response, candidate)), None)
    if found is None or not issued(found, issuer):
        detail = "the stapled OCSP response is signed by neither its CA nor a responder of that CA"
        raise refusal(detail, "SEC_ERROR_OCSP_UNAUTHORIZED_RESPONSE", leaf)
    usage = extension(found, x509.ExtendedKeyUsage) or ()
    if ExtendedKeyUsageOID.OCSP_SIGNING not in usage:
        detail = "the stapled OCSP response's signer is not allowed to sign such"
        raise refusal(detail, "SEC_ERROR_OCSP_UNAUTHORIZED_RESPONSE", leaf)
    check_dates(found, now, "SEC_ERROR_OCSP_INVALID_SIGNING_CERT")
    return found


def _verify(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    """Raises InvalidSignature, UnsupportedAlgorithm or ValueError."""
    key, signature, data = signer.public_key(), response.signature, response.tbs_response_bytes
    algorithm = response.signature_hash_algorithm  # None: the signature algorithm brings its own
    if isinstance(key, rsa.RSAPublicKey) and isinstance(algorithm, STRONG_HASHES):
        key.verify(signature, data, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(algorithm, STRONG_HASHES):
        key.verify(signature, data, ec.ECDSA(algorithm))
    elif isinstance(key, SELF_HASHING):
        key.verify(signature, data)
    else:
        raise UnsupportedAlgorithm("signature algorithm of the OCSP response")
