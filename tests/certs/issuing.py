"""Certificates of every shape for the tests of verification: good ones, and ones wrong in one respect each."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2030, 6, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH

KINDS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "mldsa87": mldsa.MLDSA87PrivateKey.generate,
}
SELF_HASHING = ("ed25519", "ed448", "mldsa44", "mldsa65", "mldsa87")

CA = x509.BasicConstraints(ca=True, path_length=None)


@dataclass(frozen=True)
class Made:
    certificate: x509.Certificate
    key: Any
    kind: str

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def alternative(*names: str) -> x509.SubjectAlternativeName:
    def general(text: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(text))
        except ValueError:
            return x509.DNSName(text)

    return x509.SubjectAlternativeName([general(text) for text in names])


def key_usage(*wanted: str) -> x509.KeyUsage:
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    every += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{one: one in wanted for one in every})


def make(
    subject: str,
    issuer: Made | None = None,
    *extensions: x509.ExtensionType,
    kind: str = "p256",
    critical: tuple[type[x509.ExtensionType], ...] = (x509.BasicConstraints,),
    start: datetime = NOW - DAY,
    end: datetime = NOW + 30 * DAY,
    algorithm: hashes.HashAlgorithm | None = None,
    key: Any = None,
) -> Made:
    """A version 3 certificate with these extensions and no others; without `issuer` self-signed."""
    key = key or KINDS[kind]()
    signer, issuer_name = (issuer.key, issuer.certificate.subject) if issuer else (key, name(subject))
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(issuer_name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, critical))
    signed_by = issuer.kind if issuer else kind
    digest = None if signed_by in SELF_HASHING else algorithm or hashes.SHA256()
    return Made(builder.sign(signer, digest), key, kind)


def write(path: Path, *parts: Made | bytes) -> Path:
    path.write_bytes(b"".join(part if isinstance(part, bytes) else part.pem for part in parts))
    return path
