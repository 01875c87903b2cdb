"""RFC 5280 in the small, for two things that the verification library leaves open.

*Causes*: the library says in one English sentence that a path is not valid; here the same path is looked at in a fixed
order (dates, name, usage, issuer, the issuers' own fitness), so that the refusal gets the NSS name people know.

*Second opinion*: the library follows the Web PKI, which has no Edwards-curve or ML-DSA issuers and no version 1
certificates.  A path that it refused is accepted here only if it holds such a certificate and passes every check below; these
are at least as strict as the library's, and refuse what they do not implement (name constraints, policies that are critical).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from ..errors import CertificateError
from .info import alternative_names, extension, key_name, subject_of

MAX_DEPTH = 8  # certificates between leaf and anchor, the library's own limit
_MAX_SIGNATURES = 64  # signatures checked in search of paths: a hostile chain may offer many issuers of one name

_KNOWN_CRITICAL = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.NAME_CONSTRAINTS,  # refused by its own check, with its own name
}
SELF_HASHING = (  # keys that take the whole message
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
    mldsa.MLDSA44PublicKey,
    mldsa.MLDSA65PublicKey,
    mldsa.MLDSA87PublicKey,
)
STRONG_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_STRONG_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_UNKNOWN_TO_THE_LIBRARY = SELF_HASHING  # as issuers

Path = list[x509.Certificate]


class Wanted(NamedTuple):
    """What a chain must be good for.  `usage`: id-kp-serverAuth or id-kp-clientAuth; `server_name`: None for no name to match."""

    usage: x509.ObjectIdentifier
    server_name: str | None
    now: datetime


def refusal(detail: str, name: str, certificate: x509.Certificate) -> CertificateError:
    subject = subject_of(certificate)
    return CertificateError(f"{subject}: {detail}", name=name, subject=subject)


# --- paths ----------------------------------------------------------------------------------------------------------


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed `certificate`: names and signature, nothing else."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def find_paths(leaf: x509.Certificate, intermediates: Path, anchors: Iterable[x509.Certificate]) -> Iterator[Path]:
    """Every path from the leaf to an anchor whose signatures hold, within bounded work."""
    roots, between = _by_subject(anchors), _by_subject(intermediates)
    budget = iter(range(_MAX_SIGNATURES))

    def checked(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        return next(budget, None) is not None and issued(certificate, issuer)

    def extend(path: Path) -> Iterator[Path]:
        last = path[-1]
        yield from ([*path, anchor] for anchor in roots.get(last.issuer, ()) if checked(last, anchor))
        if len(path) <= MAX_DEPTH:
            for candidate in between.get(last.issuer, ()):
                if candidate not in path and checked(last, candidate):
                    yield from extend([*path, candidate])

    yield from extend([leaf])


def _by_subject(certificates: Iterable[x509.Certificate]) -> dict[x509.Name, Path]:
    found: dict[x509.Name, Path] = {}
    for certificate in certificates:
        found.setdefault(certificate.subject, []).append(certificate)
    return found


def no_path(leaf: x509.Certificate, intermediates: Path, anchors: Iterable[x509.Certificate]) -> CertificateError:
    """Why no path was found: the end of what the peer sent, by names, and whether its issuer is known by name at least."""
    roots, between = _by_subject(anchors), _by_subject(intermediates)
    end = leaf
    for _ in range(MAX_DEPTH):
        end = next((candidate for candidate in between.get(end.issuer, ()) if candidate.issuer != end.issuer), end)
    if end.issuer in roots:
        detail = "the trusted certificate with its issuer's name did not sign it"
        return refusal(detail, "SEC_ERROR_BAD_SIGNATURE", end)
    if end.subject == end.issuer:
        return refusal("self-signed, and not among the trusted certificates", "SEC_ERROR_UNKNOWN_ISSUER", end)
    return refusal(f"its issuer {end.issuer.rfc4514_string()} is not trusted", "SEC_ERROR_UNKNOWN_ISSUER", end)


def beyond_the_library(path: Path) -> bool:
    """Whether the library would refuse this path for what its certificates *are*, whatever they say."""
    old = x509.Version.v1 in (path[0].version, path[-1].version)
    return old or any(isinstance(issuer.public_key(), _UNKNOWN_TO_THE_LIBRARY) for issuer in path[1:])


# --- the leaf -------------------------------------------------------------------------------------------------------


def check_leaf(leaf: x509.Certificate, wanted: Wanted) -> None:
    """Dates, name, usage, in this order.  Raises CertificateError."""
    check_dates(leaf, wanted.now, "SEC_ERROR_EXPIRED_CERTIFICATE")
    if wanted.server_name is not None and not matches_name(leaf, wanted.server_name):
        listed = ", ".join(alternative_names(leaf)) or "no name at all"
        raise refusal(f"is for {listed}, not for {wanted.server_name}", "SSL_ERROR_BAD_CERT_DOMAIN", leaf)
    check_usage(leaf, wanted.usage)


def check_dates(certificate: x509.Certificate, now: datetime, name: str) -> None:
    if now < certificate.not_valid_before_utc:
        raise refusal(f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC", name, certificate)
    if now > certificate.not_valid_after_utc:
        raise refusal(f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC", name, certificate)


def matches_name(certificate: x509.Certificate, server_name: str) -> bool:
    """RFC 6125 section 6.4: an address matches exactly; a wildcard stands for the whole leftmost label, and for one only."""
    listed = extension(certificate, x509.SubjectAlternativeName) or ()
    try:
        return x509.IPAddress(ipaddress.ip_address(server_name)) in listed
    except ValueError:
        name = server_name.lower()
    patterns = {entry.value.lower() for entry in listed if isinstance(entry, x509.DNSName)}
    parent = name.partition(".")[2]
    return name in patterns or (bool(parent) and f"*.{parent}" in patterns)


def check_usage(certificate: x509.Certificate, usage: x509.ObjectIdentifier) -> None:
    """extKeyUsage, where present, must name `usage` or any (RFC 5280 section 4.2.1.12)."""
    if not allows(extension(certificate, x509.ExtendedKeyUsage), usage):
        wanted = "TLS servers" if usage == ExtendedKeyUsageOID.SERVER_AUTH else "TLS clients"
        raise refusal(f"its extended key usage does not include {wanted}", "SEC_ERROR_INADEQUATE_CERT_TYPE", certificate)


def allows(found: x509.ExtendedKeyUsage | None, usage: x509.ObjectIdentifier) -> bool:
    return found is None or usage in found or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in found


# --- the path -------------------------------------------------------------------------------------------------------


def check_path(path: Path, wanted: Wanted) -> None:
    """What a path needs beyond signatures and a good leaf (RFC 5280 section 6.1).  Raises CertificateError."""
    _check_end_entity(path[0])
    for depth, issuer in enumerate(path[1:]):
        check_dates(issuer, wanted.now, "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE")
        _check_issuer(issuer, is_anchor=depth + 2 == len(path))
        check_usage(issuer, wanted.usage)
        below = sum(1 for certificate in path[1 : depth + 1] if certificate.subject != certificate.issuer)
        _check_path_length(issuer, below)
    for certificate, issuer in pairwise(path):
        _check_signature_strength(certificate, issuer)
    for certificate in path:
        _check_critical(certificate)


def _check_end_entity(leaf: x509.Certificate) -> None:
    constraints = extension(leaf, x509.BasicConstraints)
    usage = extension(leaf, x509.KeyUsage)
    if (constraints and constraints.ca) or (usage and usage.key_cert_sign):
        raise refusal("is a CA's certificate, not a server's or client's", "SEC_ERROR_INADEQUATE_CERT_TYPE", leaf)


def _check_issuer(issuer: x509.Certificate, *, is_anchor: bool) -> None:
    constraints = extension(issuer, x509.BasicConstraints)
    usage = extension(issuer, x509.KeyUsage)
    # A version 1 certificate cannot say that it is a CA's; who trusts it as an anchor says so (RFC 5280 section 6.1.1 d).
    is_ca = constraints.ca if constraints else is_anchor and issuer.version is x509.Version.v1
    if not is_ca:
        raise refusal("issued a certificate but is not a CA's", "SEC_ERROR_CA_CERT_INVALID", issuer)
    if usage and not usage.key_cert_sign:
        raise refusal("its key usage does not allow it to issue certificates", "SEC_ERROR_CA_CERT_INVALID", issuer)


def _check_path_length(issuer: x509.Certificate, below: int) -> None:
    constraints = extension(issuer, x509.BasicConstraints)
    if constraints and constraints.path_length is not None and below > constraints.path_length:
        detail = f"allows {constraints.path_length} CAs below it, the chain has {below}"
        raise refusal(detail, "SEC_ERROR_PATH_LEN_CONSTRAINT_INVALID", issuer)


def _check_signature_strength(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    key = issuer.public_key()
    strong_key = (
        isinstance(key, _UNKNOWN_TO_THE_LIBRARY)
        or (isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048)
        or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _STRONG_CURVES))
    )
    if not strong_key:
        raise refusal(f"its key is too weak to issue certificates ({key_name(issuer)})", "SEC_ERROR_INVALID_KEY", issuer)
    algorithm = certificate.signature_hash_algorithm  # None: the signature algorithm brings its own
    if algorithm is not None and not isinstance(algorithm, STRONG_HASHES):
        detail = f"its signature rests on {algorithm.name}"
        raise refusal(detail, "SEC_ERROR_CERT_SIGNATURE_ALGORITHM_DISABLED", certificate)


def _check_critical(certificate: x509.Certificate) -> None:
    if extension(certificate, x509.NameConstraints):
        detail = "restricts the names below it, and they do not fit or cannot be judged"
        raise refusal(detail, "SEC_ERROR_CERT_NOT_IN_NAME_SPACE", certificate)
    unknown = [found.oid.dotted_string for found in certificate.extensions if found.critical and found.oid not in _KNOWN_CRITICAL]
    if unknown:
        detail = f"critical extension {unknown[0]} is not understood"
        raise refusal(detail, "SEC_ERROR_UNKNOWN_CRITICAL_EXTENSION", certificate)
