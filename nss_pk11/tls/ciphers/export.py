"""The keys of export suites: a few secret bytes, stretched in public (RFC 2246 section 6.3.1, RFC 6101 section 6.2.2.1).

The key block gives the secret bytes.  Everything after that an eavesdropper can do too; only an attack on many connections at
once is made harder.
"""

from __future__ import annotations

import hashlib

from ..codepoints import Version
from ..ssl3.prf import prf
from ..suites import Cipher

_LABELS = b"client write key", b"server write key"


def final_keys(
    cipher: Cipher, version: Version, secrets: list[bytes], client_random: bytes, server_random: bytes
) -> tuple[list[bytes], list[bytes]]:
    """Keys and IVs, of the client and of the server each, from their `secrets` in the key block."""
    derive = _ssl3 if version == Version.ssl3 else _tls
    keys, ivs = derive(cipher.key, secrets, client_random, server_random)
    return keys, [iv[: cipher.block] for iv in ivs]


def _ssl3(length: int, secrets: list[bytes], client_random: bytes, server_random: bytes) -> tuple[list[bytes], list[bytes]]:
    seeds = client_random + server_random, server_random + client_random
    keys = [hashlib.md5(secret + seed).digest()[:length] for secret, seed in zip(secrets, seeds, strict=True)]
    return keys, [hashlib.md5(seed).digest() for seed in seeds]


def _tls(length: int, secrets: list[bytes], client_random: bytes, server_random: bytes) -> tuple[list[bytes], list[bytes]]:
    seed = client_random + server_random
    keys = [prf("md5sha1", secret, label, seed, length) for secret, label in zip(secrets, _LABELS, strict=True)]
    block = prf("md5sha1", b"", b"IV block", seed, 16)
    return keys, [block[:8], block[8:]]
