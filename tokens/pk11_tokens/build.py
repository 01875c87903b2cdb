"""From a description that has been checked to the machine: makes and reads keys and certificates, and puts tokens into readers.

Whatever shows only here (a file that is not there, a certificate of another key) is a `DescriptionError` too.  May use
`machine` and `objects`; reads the files that the description names, writes none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key, load_pem_private_key

from .abi import CKA, CKK, CKM, CKO, UNAVAILABLE_INFORMATION
from .attributes import FALSE, TRUE, Purpose, complete
from .description import KINDS, Description, DescriptionError, KeyDescription, TokenDescription
from .issuing import Issuer, self_signed
from .kea import DOMAINS
from .keytypes import bits, number, public_key_info, type_of
from .machine import Machine, Token
from .mechanisms.fortezza import new_key
from .objects import Object, certificate, kept, key_pair, made_here
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
    **{kind: domain.generate for kind, domain in DOMAINS.items()},
}

# The mechanism without which a key is of no use -> the one that makes it, and the type of key -> the former.
_GENERATION = {
    "CKM_ECDSA": CKM.EC_KEY_PAIR_GEN,
    "CKM_RSA_PKCS": CKM.RSA_PKCS_KEY_PAIR_GEN,
    "CKM_DSA": CKM.DSA_KEY_PAIR_GEN,
    "CKM_KEA_KEY_DERIVE": CKM.KEA_KEY_PAIR_GEN,
    "CKM_EDDSA": CKM.EC_EDWARDS_KEY_PAIR_GEN,
    "CKM_ML_DSA": CKM.ML_DSA_KEY_PAIR_GEN,
}
_MECHANISM: dict[int, str] = {
    CKK.EC: "CKM_ECDSA",
    CKK.RSA: "CKM_RSA_PKCS",
    CKK.DSA: "CKM_DSA",
    CKK.KEA: "CKM_KEA_KEY_DERIVE",
    CKK.EC_EDWARDS: "CKM_EDDSA",
    CKK.ML_DSA: "CKM_ML_DSA",
}
STORAGE_KEY_LABEL = "Ks"
ISSUER_LABEL = "issuer"  # of the certificate of whoever issued those of the token's keys


def build(description: Description) -> Machine:
    """The machine.  Raises DescriptionError."""
    machine, issuers = Machine(), _Issuers()
    for reader in description.readers:
        machine.add_reader(reader.name, _token(reader.token, issuers) if reader.token else None)
    for token in description.drawer:
        machine.add_token(_token(token, issuers))
    return machine


class _Issuers:
    """Who issues certificates: the one of all tokens of this machine, or one from a file."""

    @cached_property
    def own(self) -> Issuer:
        return Issuer()

    def of(self, described: KeyDescription) -> Issuer:
        if not described.issuer:
            return self.own
        data = _read(described.issuer, f"{described.where}.issuer")
        try:
            return Issuer(load_pem_private_key(data, None), x509.load_pem_x509_certificate(data))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            fault = f"{described.issuer} does not hold a private key and its certificate in PEM: {error}"
            raise DescriptionError(f"{described.where}.issuer: {fault}") from None


def _token(described: TokenDescription, issuers: _Issuers) -> Token:
    token = Token(
        described.personality,
        described.label,
        described.serial,
        pin=None if described.blank else described.pin.encode(),
        so_pin=None if described.blank else described.so_pin.encode(),
        name=described.name,
        initialised=not described.blank,
    )
    if token.personality.key_registers:
        token.objects.add(_storage_key())
    for key in described.keys:
        _add_key(token, key, issuers)
    if any(key.issued and not key.issuer for key in described.keys):
        token.objects.add(certificate(issuers.own.certificate.public_bytes(Encoding.DER), ISSUER_LABEL, b""))
    for each in described.certificates:
        found = _read_certificate(each.file, each.where, "file")
        token.objects.add(certificate(found.public_bytes(Encoding.DER), each.label, each.id))
    return token


def _storage_key() -> Object:
    """Ks of a FORTEZZA card: a key that was always there, to keep others under."""
    values: dict[int, bytes] = {
        CKA.CLASS: number(CKO.SECRET_KEY),
        CKA.KEY_TYPE: number(CKK.SKIPJACK),
        CKA.TOKEN: TRUE,
        CKA.SENSITIVE: TRUE,
        CKA.EXTRACTABLE: FALSE,
        CKA.LABEL: STORAGE_KEY_LABEL.encode(),
        CKA.VALUE: new_key(),
    }
    return Object(kept(complete((), Purpose.CREATE, values | made_here(CKM.SKIPJACK_KEY_GEN))))


def _add_key(token: Token, described: KeyDescription, issuers: _Issuers) -> None:
    """The pair, and its certificate beside it: same label, same CKA_ID (PKCS #11 section 4.6.3)."""
    if described.file:
        private_key, generated = _read_key(described, described.file, token.personality), UNAVAILABLE_INFORMATION
    else:
        assert described.kind
        private_key, generated = _GENERATE[described.kind](), _GENERATION[KINDS[described.kind]]
    _check_size(described, private_key, token.personality)
    pair = key_pair(
        private_key,
        described.label,
        described.id,
        always_authenticate=described.always_authenticate,
        generated=generated,
    )
    for item in pair:
        token.objects.add(item)
    found = _certificate(described, private_key, issuers)
    if found:
        token.objects.add(certificate(found, described.label, described.id))


def _check_size(described: KeyDescription, private_key: Any, personality: Personality) -> None:
    mechanism, size = _MECHANISM[type_of(private_key)], bits(private_key)
    least, most = personality.key_sizes.get(mechanism, (size, size))
    if not least <= size <= most:
        where = f"{described.where}.{'file' if described.file else 'kind'}"
        raise DescriptionError(f"{where}: a {personality.name} has no key of {size} bits for {mechanism}")


def _certificate(described: KeyDescription, private_key: Any, issuers: _Issuers) -> bytes | None:
    if described.self_signed:
        return self_signed(private_key, described.self_signed).public_bytes(Encoding.DER)
    if described.issued:
        return issuers.of(described).issue(private_key.public_key(), described.issued)
    if not described.certificate:
        return None
    found = _read_certificate(described.certificate, described.where, "certificate")
    if public_key_info(private_key.public_key()) not in found.tbs_certificate_bytes:
        raise DescriptionError(f"{described.where}.certificate: {described.certificate} is not for this key")
    return found.public_bytes(Encoding.DER)


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
