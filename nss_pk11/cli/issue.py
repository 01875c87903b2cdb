"""Certificates and certificate requests signed by a key that may be inside a token.

`cryptography` builds and encodes; where it wants a private key it gets one of the classes here, which has the type of its
own keys and signs through `slots.PrivateKey`.  Nothing else of a private key is there to be had.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import ConfigurationError, TokenError
from ..slots import Algorithm, PrivateKey
from ..slots.kea import KeaPublicKey

_BACKDATED = timedelta(hours=1)  # a verifier's clock may be behind ours
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")  # labels of RFC 1123, and the underscore that is in use
_COMMON_NAME_LIMIT = 64  # ub-common-name, RFC 5280 appendix A.1


class Usage(Enum):
    """What a certificate is for (RFC 5280 section 4.2.1.12)."""

    server = (ExtendedKeyUsageOID.SERVER_AUTH,)
    client = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    both = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


# --- a token's key in the type of cryptography's keys ----------------------------------------------------------------


class _TokenBacked:
    """A private key that only signs and tells its public key; everything else stays in the token."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key

    def public_key(self) -> Any:
        return self._key.public_key

    def sign(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        return self._key.sign(Algorithm[self._key.kind], bytes(data))  # kinds that name their one algorithm: EdDSA, ML-DSA

    def _in_the_token(self, *args: Any, **kwargs: Any) -> Any:
        raise UnsupportedAlgorithm("the private key stays in its token")

    private_bytes = private_bytes_raw = private_numbers = decrypt = exchange = sign_mu = _in_the_token
    __copy__ = __deepcopy__ = _in_the_token


class _RSA(_TokenBacked, rsa.RSAPrivateKey):
    @property
    def key_size(self) -> int:
        return self._key.bits

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        kind = "rsa_pss" if isinstance(padding, rsa_padding.PSS) else "rsa_pkcs1"
        return self._key.sign(Algorithm[f"{kind}_{algorithm.name}"], bytes(data))


class _DSA(_TokenBacked, dsa.DSAPrivateKey):
    @property
    def key_size(self) -> int:
        return self._key.bits

    def parameters(self) -> dsa.DSAParameters:
        public = self._key.public_key
        assert isinstance(public, dsa.DSAPublicKey)  # kind "dsa"
        return public.parameters()

    def sign(self, data: Any, algorithm: Any) -> bytes:
        return self._key.sign(Algorithm[f"dsa_{algorithm.name}"], bytes(data))


class _EC(_TokenBacked, ec.EllipticCurvePrivateKey):
    @property
    def curve(self) -> ec.EllipticCurve:
        public = self._key.public_key
        assert isinstance(public, ec.EllipticCurvePublicKey)  # kind "ec"
        return public.curve

    @property
    def key_size(self) -> int:
        return self.curve.key_size

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:
        return self._key.sign(Algorithm[f"ecdsa_{signature_algorithm.algorithm.name}"], bytes(data))


class _Ed25519(_TokenBacked, ed25519.Ed25519PrivateKey):
    pass


class _Ed448(_TokenBacked, ed448.Ed448PrivateKey):
    pass


class _MLDSA44(_TokenBacked, mldsa.MLDSA44PrivateKey):
    pass


class _MLDSA65(_TokenBacked, mldsa.MLDSA65PrivateKey):
    pass


class _MLDSA87(_TokenBacked, mldsa.MLDSA87PrivateKey):
    pass


_CLASSES: dict[str, type[_TokenBacked]] = {
    "rsa": _RSA,
    "dsa": _DSA,
    "ec": _EC,
    "ed25519": _Ed25519,
    "ed448": _Ed448,
    "mldsa44": _MLDSA44,
    "mldsa65": _MLDSA65,
    "mldsa87": _MLDSA87,
}

# An ECDSA signature is as strong as the weaker of curve and hash (SP 800-57 part 1, section 5.6.1).
_EC_HASHES: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


def _signing(key: PrivateKey) -> dict[str, Any]:
    """The arguments of a builder's `sign` for `key`."""
    if key.kind not in _CLASSES:
        raise ConfigurationError(f"certificates are not made with keys of type {key.kind}", name="SEC_ERROR_UNSUPPORTED_KEYALG")
    arguments: dict[str, Any] = {"private_key": _CLASSES[key.kind](key), "algorithm": None}
    if key.kind == "ec":
        arguments["algorithm"] = _EC_HASHES.get(key.bits, hashes.SHA256())
    if key.kind == "dsa":
        arguments["algorithm"] = hashes.SHA256()
    if key.kind == "rsa":
        algorithm = arguments["algorithm"] = hashes.SHA256()
        if Algorithm.rsa_pkcs1_sha256 not in key.algorithms:  # a token may allow PSS alone
            arguments["rsa_padding"] = rsa_padding.PSS(rsa_padding.MGF1(algorithm), algorithm.digest_size)
    return arguments


# --- names and extensions --------------------------------------------------------------------------------------------


def general_name(name: str) -> x509.GeneralName:
    """A name as it stands in subjectAltName: an IP address, a mail address, or else a DNS name (in A-labels).

    Raises ConfigurationError.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    try:
        if "@" in name:
            return x509.RFC822Name(name)
        wildcard, bare = ("*.", name[2:]) if name.startswith("*.") else ("", name)
        ascii_name = bare.encode("idna").decode()
        if _HOST_NAME.fullmatch(ascii_name):
            return x509.DNSName(wildcard + ascii_name)
    except ValueError:
        pass
    raise ConfigurationError(f"{name!r} is neither a host name, an IP address nor a mail address")


def subject_name(names: Sequence[str], subject: str | None) -> x509.Name:
    """The subject: `subject` as RFC 4514 text, or else the first of `names` that fits as the common name.

    Raises ConfigurationError.
    """
    if subject is None:
        short = [name for name in names if len(name) <= _COMMON_NAME_LIMIT]
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in short[:1]])
    try:
        return x509.Name.from_rfc4514_string(subject)
    except ValueError as error:
        raise ConfigurationError(f"{subject!r} is no subject such as CN=localhost,O=Example (RFC 4514): {error}") from None


def _key_usage(key: PrivateKey) -> x509.KeyUsage:
    """RFC 8446 section 4.4.2.2 wants digitalSignature; RSA key exchange wants keyEncipherment (RFC 5246 section 7.4.2)."""
    unset = ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign")
    others = dict.fromkeys((*unset, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, key_encipherment=key.kind == "rsa", **others)


def _extensions(
    key: PrivateKey, names: Sequence[str], usage: Usage, *, has_subject: bool
) -> list[tuple[x509.ExtensionType, bool]]:
    """What a leaf says about itself, each with its criticality (RFC 5280 section 4.2.1)."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(key), True),
        (x509.ExtendedKeyUsage(usage.value), False),
    ]
    if names:
        extensions.append((x509.SubjectAlternativeName([general_name(name) for name in names]), not has_subject))
    return extensions


# --- what is issued --------------------------------------------------------------------------------------------------


def self_signed(
    key: PrivateKey,
    names: Sequence[str],
    *,
    now: datetime,
    days: int = 90,
    subject: str | None = None,
    usage: Usage = Usage.both,
) -> x509.Certificate:
    """A leaf certificate of `key` by `key`, good from an hour before `now` (aware) for `days` days.

    Raises ConfigurationError for a bad name or subject, TokenError where the token does not sign.
    """
    name, public = subject_name(names, subject), key.public_key
    if isinstance(public, KeaPublicKey):
        raise ConfigurationError("a KEA key cannot sign", name="SEC_ERROR_INVALID_KEY")
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    for extension, critical in _extensions(key, names, usage, has_subject=bool(name)):
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(**_signing(key))
    try:
        certificate.verify_directly_issued_by(certificate)
    except InvalidSignature:
        raise _bad_signature(key) from None
    return certificate


def request(
    key: PrivateKey, names: Sequence[str], *, subject: str | None = None, usage: Usage = Usage.both
) -> x509.CertificateSigningRequest:
    """A PKCS #10 request (RFC 2986) for a certificate of `key`.

    Raises ConfigurationError for a bad name or subject, TokenError where the token does not sign.
    """
    name = subject_name(names, subject)
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension, critical in _extensions(key, names, usage, has_subject=bool(name)):
        builder = builder.add_extension(extension, critical)
    issued = builder.sign(**_signing(key))
    if not issued.is_signature_valid:
        raise _bad_signature(key)
    return issued


def _bad_signature(key: PrivateKey) -> TokenError:
    return TokenError(
        f"the signature that key {key.label!r} made does not verify with its own public key",
        name="SEC_ERROR_BAD_SIGNATURE",
        token=key.token.label,
        slot=key.token.slot,
        module=key.token.module,
    )
