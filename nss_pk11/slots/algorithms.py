"""How a key on a token makes the signature that was asked for: one table, algorithm to mechanisms, best first.

The best way hashes in software and asks the token only for what needs the key: less data to a slow device, and one mechanism
for all hashes.  Where the token lacks it, the next is taken; RSA-PSS is at last padded here and signed by raw RSA.
Sources: RFC 8017 sections 8.1, 8.2, 9.1, 9.2; PKCS #11 3.1 sections 6.1.10, 6.2 and 6.3; PKCS #11 3.2 (ML-DSA).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from .cryptoki import MECHANISM_NUMBERS
from .model import Algorithm, MechanismInfo
from .native import CK_EDDSA_PARAMS, CK_MECHANISM, CK_RSA_PKCS_PSS_PARAMS

Transform = Callable[[bytes], bytes]

DIGEST_BYTES = {"md5_sha1": 36, "sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
_CKM_HASH = {"sha1": "CKM_SHA_1", "sha256": "CKM_SHA256", "sha384": "CKM_SHA384", "sha512": "CKM_SHA512"}
_CKG_MGF1 = {"sha1": 1, "sha256": 2, "sha384": 3, "sha512": 4}

# DER of DigestInfo up to the digest (RFC 8017 section 9.2, note 1).  The signature before TLS 1.2 has none (RFC 2246
# section 7.4.3).
_DIGEST_INFO = {
    "md5_sha1": b"",
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_EDWARDS_BYTES = {"ed25519": 64, "ed448": 114}
_MLDSA_BYTES = {"mldsa44": 2420, "mldsa65": 3309, "mldsa87": 4627}
LARGEST_SIGNATURE = 4627


@dataclass(frozen=True, eq=False)
class Method:
    """One way to sign: `mechanism` takes the message, or `encode(hash(message))`; at most `size` bytes come back, `finish` them.

    `hash`: None where the token hashes.  `address` is that of a CK_MECHANISM made once; `parameters` is what it points to.
    """

    mechanism: str
    size: int
    hash: Transform | None = None
    encode: Transform | None = None
    finish: Transform | None = None
    parameters: ctypes.Structure | None = None
    structure: CK_MECHANISM = field(init=False, repr=False)
    address: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        structure = CK_MECHANISM(MECHANISM_NUMBERS[self.mechanism])
        if self.parameters is not None:
            structure.pParameter = ctypes.addressof(self.parameters)
            structure.ulParameterLen = ctypes.sizeof(self.parameters)
        object.__setattr__(self, "structure", structure)
        object.__setattr__(self, "address", ctypes.addressof(structure))

    def takes(self, prehashed: bool) -> bool:
        """Whether it signs what is hashed already."""
        return not prehashed or self.hash is not None

    def prepare(self, message: bytes, prehashed: bool = False) -> bytes:
        """What to give to the mechanism."""
        data = message if prehashed or self.hash is None else self.hash(message)
        return data if self.encode is None else self.encode(data)


def methods(
    kind: str, bits: int, offered: dict[str, MechanismInfo], allowed: Iterable[int] | None = None
) -> dict[Algorithm, Method]:
    """What a key of `kind` and `bits` (`publickeys.order_bits`) can sign with on a token that offers `offered`.

    `allowed`: CKA_ALLOWED_MECHANISMS, None or empty for all.
    """
    permitted = frozenset(allowed or ())
    usable = {
        name
        for name, info in offered.items()
        if "CKF_SIGN" in (info.flags or {"CKF_SIGN"}) and (not permitted or info.number in permitted)
    }
    result = {}
    for algorithm in _ALGORITHMS.get(kind, ()):
        method = next((method for method in _ways(algorithm, bits) if method.mechanism in usable), None)
        if method:
            result[algorithm] = method
    return result


def _ways(algorithm: Algorithm, bits: int) -> Iterable[Method]:
    hash_ = algorithm.hash
    if algorithm.startswith("rsa_") and not holds(bits, algorithm):
        return ()
    match algorithm.value.removesuffix(f"_{hash_}"):
        case "rsa_pkcs1":
            return _rsa_pkcs1(hash_, bits)
        case "rsa_pss":
            return _rsa_pss(hash_, bits)
        case "ecdsa" | "dsa" as name:
            return _two_numbers(name, hash_, bits)
        case _:
            return _whole_message(algorithm.value)


def _rsa_pkcs1(hash_: str, bits: int) -> Iterable[Method]:
    size, prefix, hasher = (bits + 7) // 8, _DIGEST_INFO[hash_], _hasher(hash_)
    yield Method("CKM_RSA_PKCS", size, hasher, lambda digest: prefix + digest)
    if hash_ in _CKM_HASH:
        yield Method(f"CKM_{hash_.upper()}_RSA_PKCS", size)
    yield Method("CKM_RSA_X_509", size, hasher, lambda digest: _emsa_pkcs1(prefix + digest, size))


def _rsa_pss(hash_: str, bits: int) -> Iterable[Method]:
    size, length = (bits + 7) // 8, DIGEST_BYTES[hash_]
    parameters = CK_RSA_PKCS_PSS_PARAMS(MECHANISM_NUMBERS[_CKM_HASH[hash_]], _CKG_MGF1[hash_], length)
    yield Method("CKM_RSA_PKCS_PSS", size, _hasher(hash_), parameters=parameters)
    yield Method(f"CKM_{hash_.upper()}_RSA_PKCS_PSS", size, parameters=parameters)
    encode = partial(_emsa_pss_block, hash_, bits)
    yield Method("CKM_RSA_X_509", size, _hasher(hash_), encode)


def _two_numbers(name: str, hash_: str, bits: int) -> Iterable[Method]:
    """ECDSA and DSA.  A digest longer than the order is cut (FIPS 186-5 section 6.4.1, FIPS 186-4 section 4.6): some tokens
    refuse it otherwise."""
    length = (bits + 7) // 8
    yield Method(f"CKM_{name.upper()}", 2 * length, _hasher(hash_), lambda digest: digest[:length], _der)
    yield Method(f"CKM_{name.upper()}_{hash_.upper()}", 2 * length, finish=_der)


def _whole_message(name: str) -> Iterable[Method]:
    if name in _MLDSA_BYTES:
        yield Method("CKM_ML_DSA", _MLDSA_BYTES[name])
    else:
        # Without parameters: pure Ed25519.  Ed448 always takes them (PKCS #11 3.1 section 6.3.16).
        parameters = CK_EDDSA_PARAMS() if name == "ed448" else None
        yield Method("CKM_EDDSA", _EDWARDS_BYTES[name], parameters=parameters)


_ALGORITHMS: dict[str, tuple[Algorithm, ...]] = {
    "rsa": tuple(algorithm for algorithm in Algorithm if algorithm.startswith("rsa_")),
    "dsa": tuple(algorithm for algorithm in Algorithm if algorithm.startswith("dsa_")),
    "ec": tuple(algorithm for algorithm in Algorithm if algorithm.startswith("ecdsa_")),
    **{name: (Algorithm(name),) for name in ("ed25519", "ed448", "mldsa44", "mldsa65", "mldsa87")},
}


def holds(bits: int, algorithm: Algorithm) -> bool:
    """Whether an RSA modulus has room for the padding (RFC 8017 section 9.1.1, step 3, and section 9.2, step 3)."""
    length = DIGEST_BYTES[algorithm.hash]
    if algorithm.startswith("rsa_pss_"):
        return (bits + 6) // 8 >= 2 * length + 2
    return (bits + 7) // 8 >= len(_DIGEST_INFO[algorithm.hash]) + length + 11


# --- encodings ---------------------------------------------------------------------------------------------------------


def md5_sha1(message: bytes) -> bytes:
    """What RSA signs before TLS 1.2 (RFC 2246 section 7.4.3): each hash is there should the other one break."""
    md5, sha1 = hashlib.md5(message, usedforsecurity=False), hashlib.sha1(message, usedforsecurity=False)
    return md5.digest() + sha1.digest()


def _hasher(hash_: str) -> Transform:
    if hash_ == "md5_sha1":
        return md5_sha1
    new = getattr(hashlib, hash_)
    return lambda message: new(message).digest()


def _der(signature: bytes) -> bytes:
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))


def _emsa_pkcs1(digest_info: bytes, size: int) -> bytes:
    return b"\0\1" + b"\xff" * (size - len(digest_info) - 3) + b"\0" + digest_info


def _emsa_pss_block(hash_: str, modulus_bits: int, digest: bytes) -> bytes:
    """Where the modulus's bits are one more than a multiple of 8 the encoded message is a byte shorter than it."""
    return emsa_pss(digest, modulus_bits - 1, hash_).rjust((modulus_bits + 7) // 8, b"\0")


def emsa_pss(message_digest: bytes, bits: int, hash_: str) -> bytes:
    """EMSA-PSS-ENCODE (RFC 8017 section 9.1.1), salt as long as the digest; `bits` is the modulus's less one."""
    length = DIGEST_BYTES[hash_]
    size = (bits + 7) // 8
    salt = os.urandom(length)
    digest = hashlib.new(hash_, bytes(8) + message_digest + salt).digest()
    block = (b"\1" + salt).rjust(size - length - 1, b"\0")
    mask = b"".join(hashlib.new(hash_, digest + counter.to_bytes(4)).digest() for counter in range(-(-len(block) // length)))
    masked = int.from_bytes(block) ^ int.from_bytes(mask[: len(block)])
    masked &= (1 << (8 * len(block) - (8 * size - bits))) - 1
    return masked.to_bytes(len(block)) + digest + b"\xbc"
