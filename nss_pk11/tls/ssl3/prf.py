"""What secrets are derived by: the pseudorandom functions of TLS 1.2 (RFC 5246 section 5) and of TLS 1.0 and 1.1 (RFC 2246
section 5), and SSL 3.0's expansion, which came before them (RFC 6101 sections 6.1 and 6.2.2)."""

from __future__ import annotations

import functools
import hashlib
from typing import Protocol

from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

from ..codepoints import Version
from ..suites import Suite

_HASHES: dict[str, HashAlgorithm] = {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}
_MD5, _SHA1 = MD5(), SHA1()


class Derive(Protocol):
    """`length` bytes from a secret, for the purpose that `label` names."""

    def __call__(self, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes: ...


def derivation(suite: Suite, version: Version) -> Derive:
    """By what `suite` derives master secret and key block.  The FIPS suites do it as TLS even in SSL 3.0."""
    if version == Version.ssl3 and not suite.fips:
        return ssl3_expand
    return functools.partial(prf, suite.hash_in(version))


def prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """The PRF with "sha256", "sha384" or "sha512" (TLS 1.2), or with "md5sha1" (before)."""
    seed = label + seed
    if hash_name != "md5sha1":
        return _expand(_HASHES[hash_name], secret, seed, length)
    half = (len(secret) + 1) // 2  # the halves share the middle byte of an odd secret
    one = _expand(_MD5, secret[:half], seed, length)
    other = _expand(_SHA1, secret[len(secret) - half :], seed, length)
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(length, "big")


def _expand(algorithm: HashAlgorithm, secret: bytes, seed: bytes, length: int) -> bytes:
    """P_hash(secret, seed)."""
    keyed = HMAC(secret, algorithm)  # once; copied for each block
    a = seed
    output = b""
    while len(output) < length:
        a = _mac(keyed, a)
        output += _mac(keyed, a + seed)
    return output[:length]


def _mac(keyed: HMAC, data: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(data)
    return mac.finalize()


def ssl3_expand(secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """MD5(secret + SHA(letters + secret + seed)) for the letters A, BB, CCC and so on: at most 416 bytes.  The label was not
    invented yet: the order of the randoms in `seed` tells purposes apart."""
    output = b""
    for count in range(1, (length + 15) // 16 + 1):
        letters = bytes((0x40 + count,)) * count
        output += hashlib.md5(secret + hashlib.sha1(letters + secret + seed).digest()).digest()
    return output[:length]
