"""PKCS #12 (RFC 7292) into a database and out of it, as pk12util does; the format itself is cryptography's."""

from __future__ import annotations

import threading
import warnings
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PBES,
    PKCS12Certificate,
    PKCS12KeyAndCertificates,
    load_pkcs12,
    serialize_key_and_certificates,
)

from ..errors import CertificateError, ConfigurationError, NotFound, PinIncorrect
from .database import Database
from .records import CertificateRecord, KeyRecord

_warnings = threading.Lock()  # filters of warnings are the process's
_ITERATIONS = 600_000  # of an exported file; it leaves the machine, so more than a database's


class Imported(NamedTuple):
    """What came in: the private keys and the certificates, the keys' own first."""

    keys: list[KeyRecord]
    certificates: list[CertificateRecord]


def import_(database: Database, data: bytes, password: str) -> Imported:
    """Keep the keys and certificates of a PKCS #12 file, under the friendly names they have in it.

    Raises PinIncorrect (`password` is not the file's), DatabaseLocked, DatabaseError, CertificateError
    (SEC_ERROR_PKCS12_DECODING_PFX), ConfigurationError for keys of kinds that NSS does not keep.
    """
    return keep(database, decode(data, password))


def decode(data: bytes, password: str) -> PKCS12KeyAndCertificates:
    """What is in a PKCS #12 file.  Raises PinIncorrect, CertificateError (SEC_ERROR_PKCS12_DECODING_PFX)."""
    try:
        return load(data, password.encode())
    except (ValueError, UnsupportedAlgorithm, TypeError) as error:
        if "password" in str(error).lower():
            raise PinIncorrect("this is not the password of the PKCS #12 file") from None
        raise CertificateError("this is no PKCS #12 file that can be read", name="SEC_ERROR_PKCS12_DECODING_PFX") from None


def keep(database: Database, content: PKCS12KeyAndCertificates, nickname: str = "") -> Imported:
    """Keep what is in a file; `nickname`: instead of the friendly name of the key and its certificate.

    Raises DatabaseLocked, DatabaseError, ConfigurationError.
    """
    own = content.cert
    name = nickname or friendly_name(own)
    with database.writing():
        keys = [] if content.key is None else [database.add_key(content.key, name)]
        certificates = [] if own is None else [database.add_certificate(own.certificate.public_bytes(Encoding.DER), name)]
        certificates += [
            database.add_certificate(other.certificate.public_bytes(Encoding.DER), friendly_name(other))
            for other in content.additional_certs
        ]
    return Imported(keys, certificates)


def export(database: Database, nickname: str, password: str) -> bytes:
    """The key and certificate of `nickname` and what the database has of the chain above, as PKCS #12 (PBES2, AES-256, SHA-256).

    Raises NotFound (no such certificate, or none with a key here), DatabaseLocked, DatabaseError.
    """
    named = database.certificates(nickname=nickname)
    if not named:
        raise NotFound(f"the database has no certificate {nickname!r}", name="SEC_ERROR_UNKNOWN_CERT")
    held = database.keys()
    keys = {key.key_id: key for key in held}
    pairs = [(record, keys[record.key_id]) for record in named if record.key_id in keys]
    if not pairs:
        raise NotFound(f"the database has no private key of the certificate {nickname!r}", name="SEC_ERROR_NO_KEY")
    try:
        own, key = max(((_load(record), key) for record, key in pairs), key=lambda pair: pair[0].not_valid_after_utc)
        chain = _issuers(database, own)
        encryption = (
            PrivateFormat.PKCS12.encryption_builder()
            .kdf_rounds(_ITERATIONS)
            .key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC)
            .hmac_hash(SHA256())
        )
        sealed = encryption.build(password.encode()) if password else NoEncryption()
        private_key = _exportable(database.private_key(key))
        return serialize_key_and_certificates(nickname.encode(), private_key, own, chain, sealed)
    except ValueError:
        raise CertificateError(f"the certificate {nickname!r} cannot be exported", name="SEC_ERROR_BAD_DER") from None


def load(data: bytes, password: bytes | None) -> PKCS12KeyAndCertificates:
    """What is in the file, as `cryptography` has it and raises.  pk12util writes BER, of which it warns: nothing the caller could
    do about."""
    with _warnings, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PKCS#12 bundle could not be parsed as DER", UserWarning)
        return load_pkcs12(data, password)


def _issuers(database: Database, certificate: x509.Certificate) -> list[PKCS12Certificate]:
    """The chain above, as far as it is here: by issuer's name and the signature, without a loop."""
    chain: list[PKCS12Certificate] = []
    seen = {certificate}
    while certificate.issuer != certificate.subject:
        record, found = next(
            ((record, issuer) for record in database.certificates(subject=certificate.issuer.public_bytes())
             if _issued(issuer := _load(record), certificate)), (None, None))  # fmt: skip
        if record is None or found is None or found in seen:
            break
        seen.add(found)
        chain.append(PKCS12Certificate(found, record.nickname.encode() or None))
        certificate = found
    return chain


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # every kind of no: wrong signature, unknown algorithm, odd key
        return False
    return True


def _load(record: CertificateRecord) -> x509.Certificate:
    return x509.load_der_x509_certificate(record.der)


def friendly_name(certificate: PKCS12Certificate | None) -> str:
    name = certificate.friendly_name if certificate is not None else None
    return name.decode("utf-8", "replace") if name else ""


def _exportable(
    key: PrivateKeyTypes,
) -> rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    if isinstance(key, rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        return key
    raise ConfigurationError("keys of this kind cannot go into a PKCS #12 file")
