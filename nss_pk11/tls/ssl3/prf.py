"""The pseudorandom function of TLS 1.2 (RFC 5246 section 5)."""

from __future__ import annotations

from hmac import digest as hmac_digest


def prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """P_hash(secret, label + seed), `length` bytes."""
    seed = label + seed
    output, a = b"", seed
    while len(output) < length:
        a = hmac_digest(secret, a, hash_name)
        output += hmac_digest(secret, a + seed, hash_name)
    return output[:length]
