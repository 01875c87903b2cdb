"""How a key on a token makes the signature that was asked for: one table, algorithm to mechanisms, best first.

The best way hashes in software and asks the token only for what needs the key: less data to a slow device, and one mechanism
for all hashes.  Where the token lacks it, the next is taken; RSA-PSS is at last padded here and signed by raw RSA.
Sources: RFC 8017 sections 8.1, 8.2, 9.1, 9.2; PKCS #11 3.1 sections 6.1.10 and 6.3; PKCS #11 3.2 (ML-DSA).
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

DIGEST_BYTES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
_CKM_HASH = {"sha1": "CKM_SHA_1", "sha256": "CKM_SHA256", "sha384": "CKM_SHA384", "sha512": "CKM_SHA512"}
_CKG_MGF1 = {"sha1": 1, "sha256": 2, "sha384": 3, "sha512": 4}

# DER of DigestInfo up to the digest (RFC 8017 section 9.2, note 1).
_DIGEST_INFO = {
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
    """One way to sign: give `prepare(message)` to `mechanism`, at most `size` bytes come back, `finish` them.

    `address` is that of a CK_MECHANISM made once; `keep` holds what it points to.
    """

    mechanism: str
    size: int
    prepare: Transform
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


def methods(
    kind: str, bits: int, offered: dict[str, MechanismInfo], allowed: Iterable[int] | None = None
) -> dict[Algorithm, Method]:
    """What a key of `kind` and `bits` can sign with on a token that offers `offered`.

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
    name, _, hash_ = algorithm.value.rpartition("_")
    match name:
        case "rsa_pkcs1":
            return _rsa_pkcs1(hash_, bits)
        case "rsa_pss":
            return _rsa_pss(hash_, bits)
        case "ecdsa":
            return _ecdsa(hash_, bits)
        case _:
            return _whole_message(algorithm.value)


def _rsa_pkcs1(hash_: str, bits: int) -> Iterable[Method]:
    size = (bits + 7) // 8
    digest_info = partial(_digest_info, hash_)
    yield Method("CKM_RSA_PKCS", size, digest_info)
    yield Method(f"CKM_{hash_.upper()}_RSA_PKCS", size, _unchanged)
    yield Method("CKM_RSA_X_509", size, lambda message: _emsa_pkcs1(digest_info(message), size))


def _rsa_pss(hash_: str, bits: int) -> Iterable[Method]:
    size, length = (bits + 7) // 8, DIGEST_BYTES[hash_]
    if (bits + 6) // 8 < 2 * length + 2:
        return  # the modulus is too short for digest and salt (RFC 8017 section 9.1.1, step 3)
    parameters = CK_RSA_PKCS_PSS_PARAMS(MECHANISM_NUMBERS[_CKM_HASH[hash_]], _CKG_MGF1[hash_], length)
    yield Method("CKM_RSA_PKCS_PSS", size, _hasher(hash_), parameters=parameters)
    yield Method(f"CKM_{hash_.upper()}_RSA_PKCS_PSS", size, _unchanged, parameters=parameters)
    yield Method("CKM_RSA_X_509", size, lambda message: emsa_pss(message, bits - 1, hash_).rjust(size, b"\0"))


def _ecdsa(hash_: str, bits: int) -> Iterable[Method]:
    size = 2 * ((bits + 7) // 8)
    yield Method("CKM_ECDSA", size, _ecdsa_hasher(hash_, bits), _ecdsa_der)
    yield Method(f"CKM_ECDSA_{hash_.upper()}", size, _unchanged, _ecdsa_der)


def _whole_message(name: str) -> Iterable[Method]:
    if name in _MLDSA_BYTES:
        yield Method("CKM_ML_DSA", _MLDSA_BYTES[name], _unchanged)
    else:
        # Without parameters: pure Ed25519.  Ed448 always takes them (PKCS #11 3.1 section 6.3.16).
        parameters = CK_EDDSA_PARAMS() if name == "ed448" else None
        yield Method("CKM_EDDSA", _EDWARDS_BYTES[name], _unchanged, parameters=parameters)


_ALGORITHMS: dict[str, tuple[Algorithm, ...]] = {
    "rsa": tuple(algorithm for algorithm in Algorithm if algorithm.startswith("rsa_")),
    "ec": tuple(algorithm for algorithm in Algorithm if algorithm.startswith("ecdsa_")),
    **{name: (Algorithm(name),) for name in ("ed25519", "ed448", "mldsa44", "mldsa65", "mldsa87")},
}


# --- encodings ---------------------------------------------------------------------------------------------------------


def _unchanged(message: bytes) -> bytes:
    return message


def _hasher(hash_: str) -> Transform:
    new = getattr(hashlib, hash_)
    return lambda message: new(message).digest()


def _ecdsa_hasher(hash_: str, bits: int) -> Transform:
    """A digest longer than the order is cut (FIPS 186-5 section 6.4.1): some tokens refuse it otherwise."""
    new, size = getattr(hashlib, hash_), (bits + 7) // 8
    return lambda message: new(message).digest()[:size]


def _ecdsa_der(signature: bytes) -> bytes:
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))


def _digest_info(hash_: str, message: bytes) -> bytes:
    return _DIGEST_INFO[hash_] + hashlib.new(hash_, message).digest()


def _emsa_pkcs1(digest_info: bytes, size: int) -> bytes:
    return b"\0\1" + b"\xff" * (size - len(digest_info) - 3) + b"\0" + digest_info


def emsa_pss(message: bytes, bits: int, hash_: str) -> bytes:
    """EMSA-PSS-ENCODE (RFC 8017 section 9.1.1), salt as long as the digest; `bits` is the modulus's less one."""
    length = DIGEST_BYTES[hash_]
    size = (bits + 7) // 8
    salt = os.urandom(length)
    digest = hashlib.new(hash_, bytes(8) + hashlib.new(hash_, message).digest() + salt).digest()
    block = (b"\1" + salt).rjust(size - length - 1, b"\0")
    mask = b"".join(hashlib.new(hash_, digest + counter.to_bytes(4)).digest() for counter in range(-(-len(block) // length)))
    masked = int.from_bytes(block) ^ int.from_bytes(mask[: len(block)])
    masked &= (1 << (8 * len(block) - (8 * size - bits))) - 1
    return masked.to_bytes(len(block)) + digest + b"\xbc"
