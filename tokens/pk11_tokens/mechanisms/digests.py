"""Digests, and by what numbers PKCS #11 calls them elsewhere (PKCS #11 3.1 section 6.15 and following, 6.1.8)."""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives import hashes

from ..abi import CKM, CKR, Refused
from .capability import Capability, Parameter, Transformation

# The part of a mechanism's name that says the hash -> the digest; SHA-1 is CKM_SHA_1, but CKM_SHA1_RSA_PKCS.
HASHES: dict[str, hashes.HashAlgorithm] = {
    "SHA1": hashes.SHA1(),
    "SHA224": hashes.SHA224(),
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}
DIGESTS: dict[int, hashes.HashAlgorithm] = {
    CKM[name if name != "SHA1" else "SHA_1"]: algorithm for name, algorithm in HASHES.items()
}
# CKG_MGF1_SHA1 and its like (section 6.1.8, table 33).
MGF1: dict[int, hashes.HashAlgorithm] = {
    1: hashes.SHA1(),
    2: hashes.SHA256(),
    3: hashes.SHA384(),
    4: hashes.SHA512(),
    5: hashes.SHA224(),
}


def digest(number: int) -> hashes.HashAlgorithm:
    """The digest that a parameter names by its mechanism.  Raises Refused(CKR_MECHANISM_PARAM_INVALID)."""
    if number not in DIGESTS:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return DIGESTS[number]


def mgf1(number: int) -> hashes.HashAlgorithm:
    """The digest of the mask generation that a parameter names.  Raises Refused(CKR_MECHANISM_PARAM_INVALID)."""
    if number not in MGF1:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return MGF1[number]


class _Context(Protocol):
    def update(self, data: bytes) -> None: ...

    def finalize(self) -> bytes: ...


class Running:
    """A digest or MAC of `cryptography`, under way."""

    def __init__(self, context: _Context, length: int) -> None:
        self._context, self._length = context, length

    def size(self, length: int) -> int:
        return 0

    def last(self, length: int = 0) -> int:
        return self._length

    def update(self, data: bytes) -> bytes:
        self._context.update(data)
        return b""

    def finish(self) -> bytes:
        return self._context.finalize()


def _capability(number: int, algorithm: hashes.HashAlgorithm) -> Capability:
    def start(parameter: Parameter) -> Transformation:
        return Running(hashes.Hash(algorithm), algorithm.digest_size)

    return Capability(mechanism=CKM(number), digest=start)


CAPABILITIES = tuple(_capability(number, algorithm) for number, algorithm in DIGESTS.items())
