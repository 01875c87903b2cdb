"""Bulk ciphers without authentication, running: a context goes on from one record to the next, its key schedule made once."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4, RC2, TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher as Symmetric
from cryptography.hazmat.primitives.ciphers import CipherAlgorithm, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from ..suites import Cipher


def _des(key: bytes) -> TripleDES:
    """DES is triple DES whose keys are equal: what the second undoes the third does again."""
    return TripleDES(key * 3)


# An export cipher runs with the whole of its final key: of RC2's 128 bits (RFC 2268 section 2, T1) none is taken away.
_ALGORITHMS: dict[str, Callable[[bytes], CipherAlgorithm]] = {
    "AES-128-CBC": AES,
    "AES-256-CBC": AES,
    "3DES-EDE-CBC": TripleDES,
    "DES-CBC": _des,
    "DES-EDE3-CBC": TripleDES,
    "RC2-CBC": RC2,
    "RC2-CBC-40": RC2,
    "RC2-CBC-Export": RC2,
    "RC4": ARC4,
    "RC4-56": ARC4,
    "RC4-40": ARC4,
    "RC4-Export": ARC4,
}


def cbc(cipher: Cipher, key: bytes, iv: bytes) -> tuple[CipherContext, CipherContext]:
    """What encrypts and what decrypts; of whole blocks nothing is held back."""
    symmetric = Symmetric(_ALGORITHMS[cipher.name](key), CBC(iv))
    return symmetric.encryptor(), symmetric.decryptor()


def stream(cipher: Cipher, key: bytes) -> CipherContext:
    """The key stream, which serves either purpose."""
    return Symmetric(_ALGORITHMS[cipher.name](key), None).encryptor()
