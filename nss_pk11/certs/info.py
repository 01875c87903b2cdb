"""What a certificate says: parsing it, describing it to people, its names, its key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

import asn1crypto.x509
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import CertificateError

E = TypeVar("E", bound=x509.ExtensionType)

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

_FIXED_KEYS: dict[type, str] = {
    ed25519.Ed25519PublicKey: "Ed25519",
    ed448.Ed448PublicKey: "Ed448",
    mldsa.MLDSA44PublicKey: "ML-DSA-44",
    mldsa.MLDSA65PublicKey: "ML-DSA-65",
    mldsa.MLDSA87PublicKey: "ML-DSA-87",
}


@dataclass(frozen=True)
class CertificateInfo:
    """A certificate for people.

    `subject`, `issuer`: RFC 4514 strings; `names`: subject alternative DNS names and addresses; `not_before`, `not_after`:
    UTC; `key`: "RSA 2048", "EC P-256", "Ed25519", "ML-DSA-65"…; `fingerprint`: SHA-256, upper-case hex with colons;
    `serial`: hex; `ca`: basicConstraints says so.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key: str
    fingerprint: str
    serial: str
    ca: bool
    self_signed: bool


# What the parsers raise.  They are lazy: a certificate loads, and a field of it fails where it is first looked at.
PARSE_ERRORS = (
    ValueError,
    TypeError,  # name constraints with an address where a network belongs
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@contextmanager
def reading() -> Iterator[None]:
    """Around all that reads what a peer sent: whatever does not parse is a CertificateError (SEC_ERROR_BAD_DER)."""
    try:
        yield
    except PARSE_ERRORS as error:
        raise CertificateError(f"certificate does not parse: {error}", name="SEC_ERROR_BAD_DER") from error


@reading()
def parse(der: bytes) -> x509.Certificate:
    """The certificate in `der`.  Raises CertificateError (SEC_ERROR_BAD_DER)."""
    return x509.load_der_x509_certificate(der)


def subject_of(certificate: x509.Certificate) -> str:
    """The subject for messages; a name that does not decode is said to be so."""
    try:
        return certificate.subject.rfc4514_string() or "(no subject)"
    except ValueError:
        return "(unreadable subject)"


def extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    """The extension of this kind, None where there is none.  Raises CertificateError where extensions do not parse."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except PARSE_ERRORS as error:
        raise CertificateError(
            f"extensions do not parse: {error}", name="SEC_ERROR_EXTENSION_VALUE_INVALID", subject=subject_of(certificate)
        ) from error


def alternative_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """dNSNames in lower case and iPAddresses, in the certificate's order (RFC 5280 section 4.2.1.6)."""
    found = extension(certificate, x509.SubjectAlternativeName) or ()
    values = (name.value for name in found if isinstance(name, (x509.DNSName, x509.IPAddress)))
    return tuple(str(value).lower() for value in values)


@reading()
def names(der: bytes) -> tuple[str, ...]:
    """The dNSNames of a certificate, lower case, wildcards as they stand.  Raises CertificateError."""
    found = extension(parse(der), x509.SubjectAlternativeName) or ()
    return tuple(name.value.lower() for name in found if isinstance(name, x509.DNSName))


def key_name(certificate: x509.Certificate) -> str:
    """The kind and size of the public key, or the OID of one that is not known."""
    try:
        key = certificate.public_key()
    except PARSE_ERRORS:
        number = certificate.public_key_algorithm_oid.dotted_string
        return "KEA 1024" if number == "2.16.840.1.101.2.1.1.22" else f"unknown ({number})"  # FORTEZZA's have one size
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
    if isinstance(key, (rsa.RSAPublicKey, dsa.DSAPublicKey)):
        return f"{'RSA' if isinstance(key, rsa.RSAPublicKey) else 'DSA'} {key.key_size}"
    known = (name for kind, name in _FIXED_KEYS.items() if isinstance(key, kind))
    return next(known, certificate.public_key_algorithm_oid.dotted_string)


@reading()
def describe(der: bytes) -> CertificateInfo:
    """What there is to say about a certificate.  Raises CertificateError where it does not parse."""
    certificate = parse(der)
    constraints = extension(certificate, x509.BasicConstraints)
    return CertificateInfo(
        subject=subject_of(certificate),
        issuer=certificate.issuer.rfc4514_string(),
        names=alternative_names(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        key=key_name(certificate),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        serial=f"{certificate.serial_number:x}",
        ca=constraints is not None and constraints.ca,
        self_signed=certificate.subject == certificate.issuer,
    )


class Published(Protocol):
    """A public key, of whatever kind."""

    def public_bytes(self, encoding: Encoding, format: PublicFormat) -> bytes: ...


@reading()
def matches_key(der: bytes, public_key: Published) -> bool:
    """Whether `public_key` is the one that the certificate speaks for.  Raises CertificateError where it does not parse."""
    try:
        return _spki(parse(der).public_key()) == _spki(public_key)
    except UnsupportedAlgorithm:  # as it stands: keys that the library does not know have one form
        info = asn1crypto.x509.Certificate.load(der)["tbs_certificate"]["subject_public_key_info"]
        return bool(info.dump() == _spki(public_key))


def _spki(key: Published) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@reading()
def subject_name(der: bytes) -> bytes:
    """The subject as it stands in the certificate, DER: re-encoding might choose other string types."""
    return bytes(asn1crypto.x509.Certificate.load(der).subject.dump())


@reading()
def issuer_names(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The issuer names of a chain as they stand in its certificates, DER (what certificate_authorities is matched with)."""
    return tuple(bytes(asn1crypto.x509.Certificate.load(der).issuer.dump()) for der in chain)
