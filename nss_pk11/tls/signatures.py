"""Signature schemes: which keys can make them, what TLS 1.3 signs, and how a peer's signature is checked.

Making signatures is the driver's business (`waits.Sign`); checking them needs public keys only and happens here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    NoDigestInfo,
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.x509 import (
    Certificate,
    DuplicateExtension,
    InvalidVersion,
    ObjectIdentifier,
    UnsupportedGeneralNameType,
    load_der_x509_certificate,
)
from cryptography.x509.oid import PublicKeyAlgorithmOID

from ..errors import CertificateError, DecryptError, IllegalParameter
from .codepoints import SignatureScheme, V, Version

S = SignatureScheme
_HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
Check = Callable[[Any, bytes, bytes], None]


def _pkcs1(name: str) -> Check:
    pad, algorithm = padding.PKCS1v15(), _HASHES[name]
    return lambda key, signature, message: key.verify(signature, message, pad, algorithm)


def _pss(name: str) -> Check:
    algorithm = _HASHES[name]
    pad = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    return lambda key, signature, message: key.verify(signature, message, pad, algorithm)


def _ecdsa(name: str) -> Check:
    algorithm = ec.ECDSA(_HASHES[name])
    return lambda key, signature, message: key.verify(signature, message, algorithm)


def _dsa(name: str) -> Check:
    algorithm = _HASHES[name]
    return lambda key, signature, message: key.verify(signature, message, algorithm)


def md5_sha1(message: bytes) -> bytes:
    """What RSA signs before TLS 1.2: MD5 and SHA-1, one after the other (RFC 2246 section 7.4.3)."""
    md5, sha1 = hashlib.md5(message, usedforsecurity=False), hashlib.sha1(message, usedforsecurity=False)
    return md5.digest() + sha1.digest()


def _bare_rsa(key: Any, signature: bytes, digest: bytes) -> None:
    key.verify(signature, digest, padding.PKCS1v15(), NoDigestInfo())


def _rsa_md5_sha1(key: Any, signature: bytes, message: bytes) -> None:
    _bare_rsa(key, signature, md5_sha1(message))


def _bare_dsa(key: Any, signature: bytes, digest: bytes) -> None:
    key.verify(signature, digest, Prehashed(_HASHES["sha1"]))


def _bare_ecdsa(key: Any, signature: bytes, digest: bytes) -> None:
    key.verify(signature, digest, ec.ECDSA(Prehashed(_HASHES["sha1"])))


def _plain(key: Any, signature: bytes, message: bytes) -> None:
    key.verify(signature, message)


# scheme -> (kind of key, check, TLS 1.3 allows it in CertificateVerify).  Kinds are those of `key_kind`.
_SCHEMES: dict[int, tuple[str, Check, bool]] = {
    S.rsa_pkcs1_sha1: ("rsa", _pkcs1("sha1"), False),
    S.rsa_pkcs1_sha256: ("rsa", _pkcs1("sha256"), False),
    S.rsa_pkcs1_sha384: ("rsa", _pkcs1("sha384"), False),
    S.rsa_pkcs1_sha512: ("rsa", _pkcs1("sha512"), False),
    S.rsa_pss_rsae_sha256: ("rsa", _pss("sha256"), True),
    S.rsa_pss_rsae_sha384: ("rsa", _pss("sha384"), True),
    S.rsa_pss_rsae_sha512: ("rsa", _pss("sha512"), True),
    S.rsa_pss_pss_sha256: ("rsa-pss", _pss("sha256"), True),
    S.rsa_pss_pss_sha384: ("rsa-pss", _pss("sha384"), True),
    S.rsa_pss_pss_sha512: ("rsa-pss", _pss("sha512"), True),
    S.rsa_pkcs1_md5_sha1: ("rsa", _rsa_md5_sha1, False),
    S.dsa_sha1: ("dsa", _dsa("sha1"), False),
    S.dsa_sha256: ("dsa", _dsa("sha256"), False),
    S.dsa_sha384: ("dsa", _dsa("sha384"), False),
    S.dsa_sha512: ("dsa", _dsa("sha512"), False),
    S.ecdsa_sha1: ("ec", _ecdsa("sha1"), False),
    S.ecdsa_secp256r1_sha256: ("secp256r1", _ecdsa("sha256"), True),
    S.ecdsa_secp384r1_sha384: ("secp384r1", _ecdsa("sha384"), True),
    S.ecdsa_secp521r1_sha512: ("secp521r1", _ecdsa("sha512"), True),
    S.ed25519: ("ed25519", _plain, True),
    S.ed448: ("ed448", _plain, True),
    S.mldsa44: ("mldsa44", _plain, True),
    S.mldsa65: ("mldsa65", _plain, True),
    S.mldsa87: ("mldsa87", _plain, True),
}
_CHECKS = {scheme: check for scheme, (_, check, _) in _SCHEMES.items()}
# Before TLS 1.3 an ECDSA scheme names a hash only; the curve is the certificate's (RFC 8446 section 4.2.3).  ML-DSA needs 1.3.
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_TLS13_ONLY = frozenset({S.mldsa44, S.mldsa65, S.mldsa87})
# Those of versions whose signatures have no number (RFC 4346 section 7.4.3, RFC 4492 section 5.4); their checks of what is hashed
# already (RFC 6101 section 5.6.8).
UNNAMED = S.rsa_pkcs1_md5_sha1, S.dsa_sha1, S.ecdsa_sha1
_PREHASHED: dict[int, Check] = {S.rsa_pkcs1_md5_sha1: _bare_rsa, S.dsa_sha1: _bare_dsa, S.ecdsa_sha1: _bare_ecdsa}

_KINDS: tuple[tuple[type, str], ...] = (
    (rsa.RSAPublicKey, "rsa"),
    (dsa.DSAPublicKey, "dsa"),
    (ed25519.Ed25519PublicKey, "ed25519"),
    (ed448.Ed448PublicKey, "ed448"),
    (mldsa.MLDSA44PublicKey, "mldsa44"),
    (mldsa.MLDSA65PublicKey, "mldsa65"),
    (mldsa.MLDSA87PublicKey, "mldsa87"),
)


# What the library raises at certificates that do not parse, or hold what it does not know.
UNREADABLE = ValueError, UnsupportedAlgorithm, InvalidVersion, DuplicateExtension, UnsupportedGeneralNameType

_KEA = ObjectIdentifier("2.16.840.1.101.2.1.1.22")  # id-keyExchangeAlgorithm (RFC 2528)


def key_kind(certificate: Certificate) -> str:
    """ "rsa", "rsa-pss" (id-RSASSA-PSS), a curve's name, "ed25519", "kea", …; "" for a key no scheme fits."""
    try:
        key = certificate.public_key()
    except UnsupportedAlgorithm:
        return "kea" if certificate.public_key_algorithm_oid == _KEA else ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        return "rsa-pss"
    return next((kind for family, kind in _KINDS if isinstance(key, family)), "")


def load_leaf(chain: tuple[bytes, ...]) -> Certificate:
    """The peer's own certificate.  Raises CertificateError if it does not parse."""
    try:
        certificate = load_der_x509_certificate(chain[0])
        if certificate.public_key_algorithm_oid != _KEA:
            certificate.public_key()
    except UNREADABLE:
        raise CertificateError("peer's certificate does not parse", name="SEC_ERROR_BAD_DER") from None
    return certificate


def allowed_in(scheme: int, version: Version) -> bool:
    """Whether CertificateVerify or ServerKeyExchange of `version` may use `scheme`."""
    row = _SCHEMES.get(scheme)
    if row is None:
        return False
    if version >= V.tls1_3:
        return row[2]
    if version < V.tls1_2:
        return scheme in UNNAMED and (version > V.ssl3 or scheme != S.ecdsa_sha1)
    return scheme not in _TLS13_ONLY and scheme != S.rsa_pkcs1_md5_sha1


def permitted(schemes: tuple[SignatureScheme, ...], version: Version) -> tuple[SignatureScheme, ...]:
    """Those of `schemes` that `version` may use; before TLS 1.2 the ones that it has, as whoever enables it means it."""
    return tuple(scheme for scheme in (schemes if version >= V.tls1_2 else UNNAMED) if allowed_in(scheme, version))


def unnamed(certificate: Certificate, version: Version) -> SignatureScheme | None:
    """What the certificate's key signs by before TLS 1.2, when messages do not say it; None from TLS 1.2 on, when they do.

    Raises IllegalParameter for a key that could not sign then."""
    if version >= V.tls1_2:
        return None
    kind = key_kind(certificate)
    scheme = next((scheme for scheme in UNNAMED if fits(scheme, kind, version)), None)
    if scheme is None:
        raise IllegalParameter(f"peer's key cannot sign in {version.label}", name="SEC_ERROR_UNSUPPORTED_KEYALG")
    return scheme


def number(scheme: SignatureScheme, version: Version) -> SignatureScheme | None:
    """`scheme` as messages of `version` say it: not at all before TLS 1.2."""
    return scheme if version >= V.tls1_2 else None


def part_signed(scheme: int, content: bytes, prehashed: bool) -> bytes:
    """Of MD5 and SHA-1, one after the other, RSA signs both and the others SHA-1 alone (RFC 2246 section 7.4.8)."""
    return content[16:] if prehashed and scheme != S.rsa_pkcs1_md5_sha1 else content


def fits(scheme: int, kind: str, version: Version) -> bool:
    """Whether a key of `kind` can make signatures by `scheme` in `version`."""
    row = _SCHEMES.get(scheme)
    if row is None or not allowed_in(scheme, version):
        return False
    wanted = row[0]
    if version < V.tls1_3 and (wanted in _CURVES or wanted == "ec"):
        return kind in _CURVES
    return wanted == kind


def verify(
    scheme: int,
    offered: tuple[SignatureScheme, ...],
    certificate: Certificate,
    version: Version,
    signature: bytes,
    message: bytes,
    prehashed: bool = False,
) -> None:
    """Check the peer's signature over `message`, which is a digest if it is `prehashed` (see `waits.Sign`).

    `offered`: the schemes that we take from TLS 1.2 on; before that there is no choice.

    Raises IllegalParameter for a scheme we did not offer or that does not fit the certificate's key, DecryptError for a
    signature that does not verify (RFC 8446 section 4.4.3).
    """
    if scheme not in (offered if version >= V.tls1_2 else UNNAMED) or not fits(scheme, key_kind(certificate), version):
        raise IllegalParameter(
            f"signature scheme {scheme:#06x} was not offered or does not fit the certificate",
            name="SSL_ERROR_INCORRECT_SIGNATURE_ALGORITHM",
        )
    key = certificate.public_key()
    if version == V.ssl3 and isinstance(key, dsa.DSAPublicKey):
        signature = _as_der(key, signature)
    try:
        (_PREHASHED if prehashed else _CHECKS)[scheme](key, signature, message)
    except (InvalidSignature, ValueError):
        raise DecryptError("peer's signature does not verify", name="SEC_ERROR_BAD_SIGNATURE") from None


def _as_der(key: dsa.DSAPublicKey, signature: bytes) -> bytes:
    """SSL 3.0 does not say what a DSA signature looks like; NSS sends r and s one after the other there, others DER."""
    size = (key.parameters().parameter_numbers().q.bit_length() + 7) // 8
    return signature if len(signature) != 2 * size else dsa_as_der(signature)


def dsa_as_der(bare: bytes) -> bytes:
    """Of a DSA signature's r and s, one after the other and of one length, what TLS and X.509 make."""
    size = len(bare) // 2
    return encode_dss_signature(int.from_bytes(bare[:size], "big"), int.from_bytes(bare[size:], "big"))


def dsa_bare(signature: bytes, size: int = 20) -> bytes:
    """The reverse; r and s have `size` bytes each, those of a 160-bit subprime."""
    return b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(signature))


_PREFIXES = {side: b" " * 64 + b"TLS 1.3, " + side + b" CertificateVerify\0" for side in (b"server", b"client")}


def to_be_signed(by_server: bool, transcript_hash: bytes) -> bytes:
    """What a TLS 1.3 CertificateVerify signs (RFC 8446 section 4.4.3)."""
    return _PREFIXES[b"server" if by_server else b"client"] + transcript_hash
