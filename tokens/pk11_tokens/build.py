"""From a description that has been checked to the machine: makes and reads keys and certificates, and puts tokens into readers.

Whatever shows only here (a file that is not there, a certificate of another key) is a `DescriptionError` too.  May use
`machine` and `objects`; reads the files that the description names, writes none.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .abi import CKK, CKM, UNAVAILABLE_INFORMATION
from .description import KINDS, Description, DescriptionError, KeyDescription, TokenDescription
from .keytypes import public_key_info, type_of
from .machine import Machine, Token
from .objects import certificate, key_pair
from .personalities import Personality

_GENERATE: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "dsa1024": lambda: dsa.generate_private_key(1024),
    "dsa2048": lambda: dsa.generate_private_key(2048),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa4096": lambda: rsa.generate_private_key(65537, 4096),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "mldsa87": mldsa.MLDSA87PrivateKey.generate,
}

# The mechanism without which a key is of no use -> the one that makes it, and the type of key -> the former.
_GENERATION = {
    "CKM_ECDSA": CKM.EC_KEY_PAIR_GEN,
    "CKM_RSA_PKCS": CKM.RSA_PKCS_KEY_PAIR_GEN,
    "CKM_DSA": CKM.DSA_KEY_PAIR_GEN,
    "CKM_EDDSA": CKM.EC_EDWARDS_KEY_PAIR_GEN,
    "CKM_ML_DSA": CKM.ML_DSA_KEY_PAIR_GEN,
}
_MECHANISM: dict[int, str] = {
    CKK.EC: "CKM_ECDSA",
    CKK.RSA: "CKM_RSA_PKCS",
    CKK.DSA: "CKM_DSA",
    CKK.EC_EDWARDS: "CKM_EDDSA",
    CKK.ML_DSA: "CKM_ML_DSA",
}

_DAYS = 365  # that a self-signed certificate is good for


def build(description: Description) -> Machine:
    """The machine.  Raises DescriptionError."""
    machine = Machine()
    for reader in description.readers:
        machine.add_reader(reader.name, _token(reader.token) if reader.token else None)
    for token in description.drawer:
        machine.add_token(_token(token))
    return machine


def _token(described: TokenDescription) -> Token:
    token = Token(
        described.personality,
        described.label,
        described.serial,
        pin=None if described.blank else described.pin.encode(),
        so_pin=None if described.blank else described.so_pin.encode(),
        name=described.name,
        initialised=not described.blank,
    )
    for key in described.keys:
        _add_key(token, key)
    for each in described.certificates:
        found = _read_certificate(each.file, each.where, "file")
        token.objects.add(certificate(found.public_bytes(Encoding.DER), each.label, each.id))
    return token


def _add_key(token: Token, described: KeyDescription) -> None:
    """The pair, and its certificate beside it: same label, same CKA_ID (PKCS #11 section 4.6.3)."""
    if described.file:
        private_key, generated = _read_key(described, described.file, token.personality), UNAVAILABLE_INFORMATION
    else:
        assert described.kind
        private_key, generated = _GENERATE[described.kind](), _GENERATION[KINDS[described.kind]]
    pair = key_pair(
        private_key,
        described.label,
        described.id,
        always_authenticate=described.always_authenticate,
        generated=generated,
    )
    for item in pair:
        token.objects.add(item)
    found = _certificate(described, private_key)
    if found:
        token.objects.add(certificate(found.public_bytes(Encoding.DER), described.label, described.id))


def _certificate(described: KeyDescription, private_key: Any) -> x509.Certificate | None:
    if described.self_signed:
        return self_signed(private_key, described.self_signed)
    if not described.certificate:
        return None
    found = _read_certificate(described.certificate, described.where, "certificate")
    if public_key_info(found.public_key()) != public_key_info(private_key.public_key()):
        raise DescriptionError(f"{described.where}.certificate: {described.certificate} is not for this key")
    return found


def _read_key(described: KeyDescription, path: Path, personality: Personality) -> Any:
    data = _read(path, f"{described.where}.file")
    try:
        load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
        private_key = load(data, None)
        mechanism = _MECHANISM[type_of(private_key)]
    except (ValueError, TypeError, UnsupportedAlgorithm, KeyError) as error:
        raise DescriptionError(f"{described.where}.file: {path} holds no private key for a token: {error}") from None
    if mechanism not in personality.mechanisms:
        raise DescriptionError(f"{described.where}.file: a {personality.name} has no {mechanism}, so no key like that in {path}")
    return private_key


def _read_certificate(path: Path, where: str, key: str) -> x509.Certificate:
    data = _read(path, f"{where}.{key}")
    try:
        load = x509.load_pem_x509_certificate if b"-----BEGIN" in data else x509.load_der_x509_certificate
        return load(data)
    except ValueError as error:
        raise DescriptionError(f"{where}.{key}: {path} holds no certificate: {error}") from None


def _read(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DescriptionError(f"{where}: {path}: {error.strerror}") from None


# --- self-signed certificates ----------------------------------------------------------------------------------------

# What an ECDSA signature hashes with (RFC 5480 section 4); Edwards curves and ML-DSA need nothing, RSA and DSA get SHA-256.
_HASHES: dict[str, type[SHA384 | SHA512]] = {"secp384r1": SHA384, "secp521r1": SHA512}


def self_signed(private_key: Any, names: tuple[str, ...]) -> x509.Certificate:
    """A certificate by a key for itself: `names` are DNS names or addresses, the first the common name; for client and server."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private_key.public_key()), critical=False)
    )
    hashed = isinstance(private_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey)
    curve = private_key.curve.name if isinstance(private_key, ec.EllipticCurvePrivateKey) else ""
    return builder.sign(private_key, _HASHES.get(curve, SHA256)() if hashed else None)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
