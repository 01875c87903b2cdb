"""The pseudorandom function of TLS 1.2 (RFC 5246 section 5)."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.hmac import HMAC

_HASHES = {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}


def prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """P_hash(secret, label + seed), `length` bytes."""
    keyed = HMAC(secret, _HASHES[hash_name])  # once; copied for each block
    a = seed = label + seed
    output = b""
    while len(output) < length:
        a = _mac(keyed, a)
        output += _mac(keyed, a + seed)
    return output[:length]


def _mac(keyed: HMAC, data: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(data)
    return mac.finalize()
