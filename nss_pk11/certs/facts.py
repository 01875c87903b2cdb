"""What NSS reads out of a certificate: names as they are encoded, key usage, kinds of use, who may be its issuer.

A certificate says some of this in several extensions, old and new; here they are brought into NSS's terms once, and kept.
Parses and says; judges nothing.
"""

from __future__ import annotations

from datetime import datetime
from enum import IntFlag
from functools import cached_property, lru_cache

import asn1crypto.x509
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from ..errors import CertificateError
from .info import PARSE_ERRORS, extension, parse, reading, subject_of

_NETSCAPE_CERT_TYPE = x509.ObjectIdentifier("2.16.840.1.113730.1.1")
_NETSCAPE_STEP_UP = x509.ObjectIdentifier("2.16.840.1.113730.4.1")  # "international step-up": a server's, says NSS

# The extensions NSS knows: any other that is critical is a refusal (RFC 5280 section 4.2).
_KNOWN_CRITICAL = {
    _NETSCAPE_CERT_TYPE,
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.NAME_CONSTRAINTS,
    ExtensionOID.OCSP_NO_CHECK,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
}


class KeyUse(IntFlag):
    """keyUsage, first octet (RFC 5280 section 4.2.1.3)."""

    DIGITAL_SIGNATURE = 0x80
    CONTENT_COMMITMENT = 0x40
    KEY_ENCIPHERMENT = 0x20
    DATA_ENCIPHERMENT = 0x10
    KEY_AGREEMENT = 0x08
    KEY_CERT_SIGN = 0x04
    CRL_SIGN = 0x02


class CertType(IntFlag):
    """netscape-cert-type, the terms in which NSS weighs extended key usages too."""

    SSL_CLIENT = 0x80
    SSL_SERVER = 0x40
    EMAIL = 0x20
    OBJECT_SIGNING = 0x10
    SSL_CA = 0x04
    EMAIL_CA = 0x02
    OBJECT_SIGNING_CA = 0x01
    OTHER_CA = 0x100  # a CA's, but for nothing of the above: NSS counts "any purpose" and IPsec so


ANY_KEY_USE = KeyUse(0xFE)
ANY_CA = CertType.SSL_CA | CertType.EMAIL_CA | CertType.OBJECT_SIGNING_CA | CertType.OTHER_CA

LARGEST_KEPT = 8192  # octets of a certificate that is remembered: strangers send them too

# extended key usage: what it means for an end entity, and for a CA
_PURPOSES: dict[x509.ObjectIdentifier, tuple[CertType, CertType]] = {
    ExtendedKeyUsageOID.SERVER_AUTH: (CertType.SSL_SERVER, CertType.SSL_CA),
    _NETSCAPE_STEP_UP: (CertType.SSL_SERVER, CertType.SSL_CA),
    ExtendedKeyUsageOID.CLIENT_AUTH: (CertType.SSL_CLIENT, CertType.SSL_CA),
    ExtendedKeyUsageOID.EMAIL_PROTECTION: (CertType.EMAIL, CertType.EMAIL_CA),
    ExtendedKeyUsageOID.CODE_SIGNING: (CertType.OBJECT_SIGNING, CertType.OBJECT_SIGNING_CA),
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: (CertType(0), CertType.OTHER_CA),
    ExtendedKeyUsageOID.IPSEC_IKE: (CertType(0), CertType.OTHER_CA),
}


class Facts:
    """One certificate.  Immutable; everything is worked out when first asked for, and raises CertificateError where the
    certificate does not parse."""

    def __init__(self, der: bytes) -> None:
        self.der = der
        self.certificate = parse(der)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Facts) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    def __repr__(self) -> str:
        return f"<Facts {subject_of(self.certificate)}>"

    @reading()
    def read(self) -> None:
        """Reads all but the key, so that nothing raises later.  Raises CertificateError."""
        _ = self.certificate.subject, self.certificate.issuer
        _ = self.contradictory, self.subject, self.issuer, self.validity, self.is_root, self.is_ca, self.key_identifier
        _ = self.key_use, self.types, self.unknown_critical, self.name_constraints, self.alternative_names, self.common_name

    @cached_property
    @reading()
    def _encoded(self) -> asn1crypto.x509.TbsCertificate:
        return asn1crypto.x509.Certificate.load(self.der)["tbs_certificate"]

    @cached_property
    @reading()
    def contradictory(self) -> bool:
        """Whether the signed part names another signature algorithm than what is around it (RFC 5280 section 4.1.1.2)."""
        around = asn1crypto.x509.Certificate.load(self.der)["signature_algorithm"]
        return bool(around.dump() != self._encoded["signature"].dump())

    @cached_property
    @reading()
    def subject(self) -> bytes:
        """DER, as it stands in the certificate: NSS compares names octet by octet."""
        return bytes(self._encoded["subject"].dump())

    @cached_property
    @reading()
    def issuer(self) -> bytes:
        return bytes(self._encoded["issuer"].dump())

    @cached_property
    def serial(self) -> int:
        return self.certificate.serial_number

    @cached_property
    def validity(self) -> tuple[datetime, datetime]:
        with reading():
            return self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc

    @cached_property
    def self_issued(self) -> bool:
        return self.subject == self.issuer and bool(self.certificate.subject)

    @cached_property
    def public_key(self) -> CertificatePublicKeyTypes:
        try:
            return self.certificate.public_key()
        except PARSE_ERRORS as error:
            detail = "its public key is of a kind not understood"
            subject = subject_of(self.certificate)
            raise CertificateError(f"{subject}: {detail}", name="SEC_ERROR_UNSUPPORTED_KEYALG", subject=subject) from error

    @cached_property
    def basic_constraints(self) -> x509.BasicConstraints | None:
        return extension(self.certificate, x509.BasicConstraints)

    @cached_property
    def is_ca(self) -> bool:
        return self.basic_constraints is not None and self.basic_constraints.ca

    @cached_property
    def is_old_root(self) -> bool:
        """Self-issued and before version 3, which could not say that it is a CA's."""
        return self.is_root and self.certificate.version is x509.Version.v1

    @cached_property
    def is_root(self) -> bool:
        """Issued by itself, as far as names and key identifiers tell."""
        key = self.authority_key
        if not self.self_issued or key is None:
            return self.self_issued
        if key.key_identifier is not None and key.key_identifier != self.key_identifier:
            return False
        issuer = authority_name(key)
        return (issuer is None or issuer == self.certificate.issuer) and key.authority_cert_serial_number in (None, self.serial)

    @cached_property
    def key_identifier(self) -> bytes | None:
        found = extension(self.certificate, x509.SubjectKeyIdentifier)
        return found.digest if found else None

    @cached_property
    def authority_key(self) -> x509.AuthorityKeyIdentifier | None:
        return extension(self.certificate, x509.AuthorityKeyIdentifier)

    @cached_property
    def key_use(self) -> KeyUse:
        """What keyUsage allows: everything where there is none."""
        found = extension(self.certificate, x509.KeyUsage)
        if found is None:
            return ANY_KEY_USE
        return KeyUse(sum(use for use in KeyUse if getattr(found, (use.name or "").lower())))

    @cached_property
    def types(self) -> CertType:
        """What the certificate may be used for, by extKeyUsage, netscape-cert-type, or, without either, its being a CA's."""
        purposes, netscape = extension(self.certificate, x509.ExtendedKeyUsage), self._netscape_type
        if not self.purposeful:
            ca = CertType.SSL_CA | CertType.EMAIL_CA if self.is_ca or self.is_old_root else CertType(0)
            return ca | CertType.SSL_CLIENT | CertType.SSL_SERVER | CertType.EMAIL
        types = netscape or CertType(0)
        for purpose in purposes or ():
            if purpose in _PURPOSES:
                types |= _PURPOSES[purpose][self.is_ca]
        return types

    @cached_property
    def steps_up(self) -> bool:
        """Whether it says that a server may speak strong encryption with export clients (Netscape's "international step-up")."""
        return _NETSCAPE_STEP_UP in (extension(self.certificate, x509.ExtendedKeyUsage) or ())

    @cached_property
    def purposeful(self) -> bool:
        """Whether it has an extension that says what it is for."""
        return extension(self.certificate, x509.ExtendedKeyUsage) is not None or self._netscape_type is not None

    @cached_property
    def _netscape_type(self) -> CertType | None:
        for found in self._extensions:
            if found.oid == _NETSCAPE_CERT_TYPE and isinstance(found.value, x509.UnrecognizedExtension):
                encoded = found.value.value  # a BIT STRING of one octet
                if len(encoded) < 4 or encoded[0] != 3:
                    return CertType(0)
                return CertType(encoded[3] & ~0x08)
        return None

    @cached_property
    def unknown_critical(self) -> str:
        """The OID of a critical extension that nobody here understands, or ""."""
        unknown = (found.oid.dotted_string for found in self._extensions if found.critical and found.oid not in _KNOWN_CRITICAL)
        return next(unknown, "")

    @cached_property
    def _extensions(self) -> x509.Extensions:
        with reading():
            return self.certificate.extensions

    @cached_property
    def name_constraints(self) -> x509.NameConstraints | None:
        return extension(self.certificate, x509.NameConstraints)

    @cached_property
    def alternative_names(self) -> tuple[x509.GeneralName, ...]:
        return tuple(extension(self.certificate, x509.SubjectAlternativeName) or ())

    @cached_property
    def common_name(self) -> str | None:
        """The last, which is the most specific."""
        with reading():
            found = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(found[-1].value) if found else None


def facts(der: bytes) -> Facts:
    """The facts of a certificate, kept for the next time unless it is oversized.  Raises CertificateError (SEC_ERROR_BAD_DER)."""
    return _kept(der) if len(der) <= LARGEST_KEPT else Facts(der)


@lru_cache(maxsize=1024)
def _kept(der: bytes) -> Facts:
    return Facts(der)


def authority_name(key: x509.AuthorityKeyIdentifier) -> x509.Name | None:
    """The authorityCertIssuer, where it is a directory name."""
    names = (name.value for name in key.authority_cert_issuer or () if isinstance(name, x509.DirectoryName))
    return next(names, None)


SIGNING_ONLY = (
    dsa.DSAPublicKey,
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
    mldsa.MLDSA44PublicKey,
    mldsa.MLDSA65PublicKey,
    mldsa.MLDSA87PublicKey,
)


def serves(certificate: Facts) -> bool:
    """Whether the key may do what a TLS server's does: which use that is depends on the kind of key."""
    key, use = certificate.public_key, certificate.key_use
    if isinstance(key, rsa.RSAPublicKey):
        return KeyUse.KEY_ENCIPHERMENT in use
    if isinstance(key, ec.EllipticCurvePublicKey):
        return bool(use & (KeyUse.DIGITAL_SIGNATURE | KeyUse.KEY_AGREEMENT))
    return isinstance(key, SIGNING_ONLY) and KeyUse.DIGITAL_SIGNATURE in use
