"""Verify what a key signed, by `cryptography`."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo

from nss_pk11.slots import Algorithm

HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


def digest(algorithm: Algorithm, message: bytes) -> bytes:
    """What a key is given that is to sign a message hashed already."""
    if algorithm is Algorithm.rsa_pkcs1_md5_sha1:
        return hashlib.md5(message).digest() + hashlib.sha1(message).digest()
    return hashlib.new(algorithm.hash, message).digest()


def verify(public_key: Any, algorithm: Algorithm, signature: bytes, message: bytes) -> None:
    """Raises InvalidSignature."""
    name, _, hash_name = algorithm.rpartition("_")
    chosen = HASHES.get(hash_name)
    match name:
        case "rsa_pkcs1_md5":
            public_key.verify(signature, digest(algorithm, message), padding.PKCS1v15(), NoDigestInfo())
        case "rsa_pkcs1":
            public_key.verify(signature, message, padding.PKCS1v15(), chosen)
        case "rsa_pss":
            assert chosen is not None
            public_key.verify(signature, message, padding.PSS(padding.MGF1(chosen), chosen.digest_size), chosen)
        case "dsa":
            assert chosen is not None
            public_key.verify(signature, message, chosen)
        case "ecdsa":
            assert chosen is not None
            public_key.verify(signature, message, ec.ECDSA(chosen))
        case _:
            public_key.verify(signature, message)
