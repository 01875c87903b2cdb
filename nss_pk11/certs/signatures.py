"""Signatures on certificates and CRLs: is this one good, and may it be of this kind?

NSS's default policy, which is wider than the Web PKI's: SHA-1, RSA from 1023 bits and DSA are good, MD5 and what is older is not.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from ..errors import CertificateError
from .facts import LARGEST_KEPT, Facts
from .info import PARSE_ERRORS
from .rules import SELF_HASHING, refusal

MINIMUM_BITS = 1023  # of RSA and DSA keys that sign certificates: NSS_RSA_MIN_KEY_SIZE, NSS_DSA_MIN_KEY_SIZE
MAXIMUM_RSA, MAXIMUM_DSA = 16384, 3072  # bits, as in NSS: verifying takes time that a stranger chooses
_HASHES = (hashes.SHA1, hashes.SHA224, hashes.SHA256, hashes.SHA384, hashes.SHA512)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_ECDSA = "1.2.840.10045.4."  # the arc of ECDSA with the one or the other hash (RFC 5758 section 3.2)
_DETAILS = {
    "SEC_ERROR_BAD_SIGNATURE": "is bad, or another's",
    "SEC_ERROR_CERT_SIGNATURE_ALGORITHM_DISABLED": "is of a kind that is not allowed, or that is not its key's",
}

Signed = x509.Certificate | x509.CertificateRevocationList


def signature_flaw(certificate: Facts, issuer: Facts) -> str:
    """The NSS name of what is wrong with the signature of `issuer` on `certificate`, "" if it is good; remembered, unless
    they are oversized."""
    if max(len(certificate.der), len(issuer.der)) > LARGEST_KEPT:
        return flaw(certificate.certificate, issuer)
    return _remembered(certificate, issuer)


@lru_cache(maxsize=1024)
def _remembered(certificate: Facts, issuer: Facts) -> str:
    return flaw(certificate.certificate, issuer)


def flaw(signed: Signed, issuer: Facts) -> str:
    """The same for a certificate or CRL: SEC_ERROR_BAD_SIGNATURE, SEC_ERROR_CERT_SIGNATURE_ALGORITHM_DISABLED or ""."""
    data = signed.tbs_certificate_bytes if isinstance(signed, x509.Certificate) else signed.tbs_certlist_bytes
    try:
        algorithm = signed.signature_hash_algorithm  # None: the signature algorithm brings its own
        if not _allowed(issuer.public_key, algorithm):
            return "SEC_ERROR_CERT_SIGNATURE_ALGORITHM_DISABLED"
        _verify(issuer.public_key, signed, data, algorithm)
    except (TypeError, UnsupportedAlgorithm):  # also: a key of another kind than the signature's
        return "SEC_ERROR_CERT_SIGNATURE_ALGORITHM_DISABLED"
    except (InvalidSignature, CertificateError, *PARSE_ERRORS):
        return "SEC_ERROR_BAD_SIGNATURE"
    return ""


def check_signature(certificate: Facts, issuer: Facts) -> None:
    """Raises CertificateError."""
    name = signature_flaw(certificate, issuer)
    if name:
        detail = (
            "is of a kind that is not allowed, or not its key's" if name != "SEC_ERROR_BAD_SIGNATURE" else "is bad, or another's"
        )
        raise refusal(f"its issuer's signature {detail}", name, certificate.certificate)


def _allowed(key: CertificatePublicKeyTypes, algorithm: hashes.HashAlgorithm | None) -> bool:
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey):
        largest = MAXIMUM_RSA if isinstance(key, rsa.RSAPublicKey) else MAXIMUM_DSA
        if not MINIMUM_BITS <= key.key_size <= largest:
            return False
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, _CURVES):
        return False
    return algorithm is None or isinstance(algorithm, _HASHES)


def _verify(key: CertificatePublicKeyTypes, signed: Signed, data: bytes, algorithm: hashes.HashAlgorithm | None) -> None:
    """Raises InvalidSignature, or TypeError where key and signature are of different kinds."""
    signature, parameters = signed.signature, signed.signature_algorithm_parameters
    by_curve = signed.signature_algorithm_oid.dotted_string.startswith(_ECDSA)
    if isinstance(key, rsa.RSAPublicKey) and algorithm and isinstance(parameters, padding.PKCS1v15 | padding.PSS):
        key.verify(signature, data, parameters, algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm and by_curve:
        key.verify(signature, data, ec.ECDSA(algorithm))
    elif isinstance(key, dsa.DSAPublicKey) and algorithm and not by_curve and parameters is None:
        key.verify(signature, data, algorithm)
    elif isinstance(key, SELF_HASHING) and algorithm is None:
        key.verify(signature, data)
    else:
        raise TypeError("signature of another kind than the key")
