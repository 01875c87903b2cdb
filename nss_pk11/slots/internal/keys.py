"""Private keys in this process's memory, behind the same interface as those in a token.  Computed by `cryptography`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed

from ...errors import ConfigurationError, TokenError
from ..algorithms import holds, md5_sha1
from ..model import Algorithm, PublicKey, TokenInfo
from ..publickeys import bits_of, default_id, kind_of
from ..uri import object_uri

SigningKey = (
    rsa.RSAPrivateKey
    | dsa.DSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_GUESSED_LATENCY = {"rsa": 1e-3, "dsa": 5e-4, "ec": 5e-5, "ed25519": 5e-5}  # seconds
_WEIGHT = 0.1


class SoftwareKey:
    """A `PrivateKey` in software.  Raises ConfigurationError for a type that TLS has no use for."""

    sensitive = False
    extractable = True
    local = False
    always_authenticate = False
    # `cryptography` has no RSA without padding, and Python's pow would give the private exponent away by its time.
    can_decrypt_raw = False
    parallel = os.cpu_count() or 1

    def __init__(self, key: object, label: str, token: TokenInfo, id: bytes = b"") -> None:
        if not isinstance(key, SigningKey):
            raise ConfigurationError("the key is of a type that TLS cannot use", name="SEC_ERROR_UNSUPPORTED_KEYALG")
        self._key, self.token, self.label = key, token, label
        self.public_key: PublicKey = key.public_key()
        self.id = id or default_id(self.public_key)
        self.uri = object_uri(token, "private", label, self.id)
        self.kind = kind_of(self.public_key)
        self.bits = bits_of(self.public_key)
        self._signers = _signers(key, self.kind, self.bits)
        self.algorithms = frozenset(self._signers)
        self.can_decrypt = isinstance(key, rsa.RSAPrivateKey)
        self.latency = _GUESSED_LATENCY.get(self.kind, 5e-4)
        self.operations = 0
        self._lock = threading.Lock()

    def mechanism(self, algorithm: Algorithm) -> str:
        return ""

    def sign(self, algorithm: Algorithm, message: bytes, *, prehashed: bool = False, patient: bool = True) -> bytes:
        signer = self._signers.get(algorithm)
        if prehashed and signer is not None:
            signer = _signer(self._key, algorithm, prehashed=True) if algorithm.hash else None
        if signer is None:
            raise TokenError(
                f'key "{self.label}" cannot sign by {algorithm}', name="SEC_ERROR_INVALID_ALGORITHM", token=self.token.label
            )
        started = time.perf_counter()
        signature = signer(message)
        self._count(time.perf_counter() - started)
        return signature

    def decrypt(self, ciphertext: bytes, *, raw: bool = False, patient: bool = True) -> bytes | None:
        """OpenSSL rejects implicitly: bad padding gives a plaintext derived from key and ciphertext, in the same time."""
        if raw or not isinstance(self._key, rsa.RSAPrivateKey):
            raise TokenError(f'key "{self.label}" cannot decrypt', name="SEC_ERROR_INADEQUATE_KEY_USAGE", token=self.token.label)
        try:
            plaintext = self._key.decrypt(ciphertext, padding.PKCS1v15())
        except ValueError:
            plaintext = None
        self._count()
        return plaintext

    def _count(self, seconds: float | None = None) -> None:
        with self._lock:
            self.operations += 1
            if seconds is not None:
                self.latency += (seconds - self.latency) * (_WEIGHT if self.operations > 1 else 1)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self.kind} software key {self.uri}>"


_PREFIXES = {"rsa": "rsa_", "dsa": "dsa_", "ec": "ecdsa_"}


def algorithms_of(kind: str, bits: int) -> frozenset[Algorithm]:
    """What a private key of that kind and size can be asked for here."""
    if kind not in _PREFIXES:
        return frozenset(algorithm for algorithm in Algorithm if algorithm == kind)
    schemes = (algorithm for algorithm in Algorithm if algorithm.startswith(_PREFIXES[kind]))
    return frozenset(scheme for scheme in schemes if kind != "rsa" or holds(bits, scheme))


def _signers(key: Any, kind: str, bits: int) -> dict[Algorithm, Callable[[bytes], bytes]]:
    return {algorithm: _signer(key, algorithm) for algorithm in algorithms_of(kind, bits)}


def _signer(key: Any, algorithm: Algorithm, *, prehashed: bool = False) -> Callable[[bytes], bytes]:
    if not algorithm.hash:
        signer: Callable[[bytes], bytes] = key.sign
        return signer
    if algorithm is Algorithm.rsa_pkcs1_md5_sha1:
        return partial(_sign_md5_sha1, key, prehashed)
    hash_ = _HASHES[algorithm.hash]
    hashed = Prehashed(hash_) if prehashed else hash_
    if algorithm.startswith("ecdsa_"):
        return partial(_sign_ecdsa, key, ec.ECDSA(hashed))
    if algorithm.startswith("dsa_"):
        return partial(_sign_dsa, key, hashed)
    if algorithm.startswith("rsa_pss_"):
        return partial(_sign_rsa, key, padding.PSS(padding.MGF1(hash_), hash_.digest_size), hashed)
    return partial(_sign_rsa, key, padding.PKCS1v15(), hashed)


def _sign_ecdsa(key: ec.EllipticCurvePrivateKey, scheme: ec.ECDSA, message: bytes) -> bytes:
    return key.sign(message, scheme)


def _sign_dsa(key: dsa.DSAPrivateKey, hash_: hashes.HashAlgorithm | Prehashed, message: bytes) -> bytes:
    return key.sign(message, hash_)


def _sign_rsa(key: rsa.RSAPrivateKey, scheme: Any, hash_: hashes.HashAlgorithm | Prehashed, message: bytes) -> bytes:
    return key.sign(message, scheme, hash_)


def _sign_md5_sha1(key: rsa.RSAPrivateKey, prehashed: bool, message: bytes) -> bytes:
    return key.sign(message if prehashed else md5_sha1(message), padding.PKCS1v15(), NoDigestInfo())
