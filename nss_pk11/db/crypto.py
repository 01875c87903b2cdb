"""How NSS protects what it keeps: pass keys, encryption and MACs of attributes.  Pure: bytes in, bytes out.

A database password becomes a *pass key* (a salted hash); every encrypted value and every MAC carries its own PBKDF2 salt and
derives its own key from that (NSS lib/softoken/sftkpwd.c and lowpbe.c; RFC 8018 PBES2 and PBMAC1).  Values of NSS before
3.60 (PKCS #12 PBE with SHA-1 and triple DES, RFC 7292 appendix B) are read, never written.

Whatever does not parse, and whatever does not fit, is DatabaseError; no error says anything of a password, key or plaintext.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from asn1crypto import core
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from ..errors import DatabaseError

DEFAULT_ITERATIONS = 10_000  # NSS_MP_PBE_ITERATION_COUNT
_MOST_ITERATIONS = 10_000_000  # a file that asks for more is after our time, not our keys
_SHA1_SALT, _SHA384_SALT = 20, 48  # the length of the salt names the hash
_CHECK = b"password-check"

_PBES2, _PBMAC1, _PBKDF2 = "1.2.840.113549.1.5.13", "1.2.840.113549.1.5.14", "1.2.840.113549.1.5.12"
_AES256_CBC = "2.16.840.1.101.3.4.1.42"
_PKCS12_SHA1_3DES = "1.2.840.113549.1.12.1.3"
_HMAC = {
    "1.2.840.113549.2.7": "sha1",
    "1.2.840.113549.2.8": "sha224",
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}
_HMAC_SHA256 = "1.2.840.113549.2.9"


class _Algorithm(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar = [("algorithm", core.ObjectIdentifier), ("parameters", core.Any, {"optional": True})]


class _Protected(core.Sequence):  # type: ignore[misc]
    """What is stored: how it was made, and the ciphertext or MAC."""

    _fields: ClassVar = [("algorithm", _Algorithm), ("value", core.OctetString)]


class _KeyAndScheme(core.Sequence):  # type: ignore[misc]
    """PBES2-params and PBMAC1-params (RFC 8018 appendices A.4 and A.5)."""

    _fields: ClassVar = [("key", _Algorithm), ("scheme", _Algorithm)]


class _PBKDF2Parameters(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar = [
        ("salt", core.OctetString),
        ("iterations", core.Integer),
        ("length", core.Integer, {"optional": True}),
        ("prf", _Algorithm, {"optional": True}),
    ]


class _PKCS12Parameters(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar = [("salt", core.OctetString), ("iterations", core.Integer)]


@contextmanager
def _parsing() -> Iterator[None]:
    """asn1crypto parses lazily and complains in several ways; all of them mean a damaged database."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OverflowError):
        raise DatabaseError("a protected value of the database does not parse") from None


def default_iterations() -> int:
    """PBKDF2 iterations for new values, within the limits that NSS's environment variables set."""
    count = DEFAULT_ITERATIONS
    for name, limit in (("NSS_MIN_MP_PBE_ITERATION_COUNT", max), ("NSS_MAX_MP_PBE_ITERATION_COUNT", min)):
        text = os.environ.get(name, "")
        count = limit(count, int(text)) if text.isdecimal() else count
    return max(count, 1)


def new_salt(length: int = _SHA1_SALT) -> bytes:
    """A salt for a password: 20 bytes, which every NSS reads, or 48 (SHA-384, NSS of 2025 and later)."""
    return secrets.token_bytes(length if length == _SHA384_SALT else _SHA1_SALT)


def pass_key(salt: bytes, password: str) -> bytes:
    """The key that stands for the password in this database."""
    digest = "sha384" if len(salt) == _SHA384_SALT else "sha1"
    return hashlib.new(digest, salt + password.encode(), usedforsecurity=False).digest()


def encrypt(key: bytes, plaintext: bytes, iterations: int) -> bytes:
    """PBES2 with AES-256-CBC.  The IV is stored as NSS does it: 14 random bytes, of which the DER encoding is the real IV."""
    salt, iv = secrets.token_bytes(32), core.OctetString(secrets.token_bytes(14))
    padder = PKCS7(128).padder()
    padded = padder.update(plaintext) + padder.finalize()
    cipher = Cipher(algorithms.AES(_pbkdf2(key, salt, iterations, "sha256")), modes.CBC(iv.dump())).encryptor()
    scheme = _Algorithm({"algorithm": _AES256_CBC, "parameters": iv})
    return _stored(_PBES2, salt, iterations, scheme, cipher.update(padded) + cipher.finalize())


def decrypt(key: bytes, blob: bytes) -> bytes:
    """The plaintext of a stored value.  Raises DatabaseError where it does not parse or does not decrypt."""
    with _parsing():
        protected = _Protected.load(blob, strict=True)
        kind, parameters = protected["algorithm"]["algorithm"].dotted, protected["algorithm"]["parameters"]
        ciphertext = protected["value"].native
        if kind == _PBES2:
            derived, scheme = _derive(key, parameters)
            if scheme["algorithm"].dotted != _AES256_CBC:
                raise ValueError
            return _unpad(Cipher(algorithms.AES(derived), modes.CBC(scheme["parameters"].dump())), ciphertext, 128)
        if kind == _PKCS12_SHA1_3DES:
            old = parameters.parse(_PKCS12Parameters)
            salt, iterations = old["salt"].native, _checked(old["iterations"].native)
            des_key, iv = (pkcs12_kdf(key, salt, iterations, purpose, length) for purpose, length in ((1, 24), (2, 8)))
            return _unpad(Cipher(TripleDES(des_key), modes.CBC(iv)), ciphertext, 64)
    raise DatabaseError("a value of the database is encrypted in a way this library does not know")


def has_mac(blob: bytes) -> bool:
    """Whether a MAC belongs to this encrypted value: the old triple DES form had none."""
    with _parsing():
        return bool(_Protected.load(blob)["algorithm"]["algorithm"].dotted == _PBES2)


def iterations_of(blob: bytes) -> int:
    """The iterations a value was made with: 1 means the empty password."""
    with _parsing():
        algorithm = _Protected.load(blob, strict=True)["algorithm"]
        if algorithm["algorithm"].dotted == _PKCS12_SHA1_3DES:
            return _checked(algorithm["parameters"].parse(_PKCS12Parameters)["iterations"].native)
        key = algorithm["parameters"].parse(_KeyAndScheme)["key"]
        return _checked(key["parameters"].parse(_PBKDF2Parameters)["iterations"].native)


def sign(key: bytes, object_id: int, attribute: int, value: bytes, iterations: int) -> bytes:
    """PBMAC1 over an attribute.  `object_id` is 0 for values that are encrypted (the MAC is then over the plaintext)."""
    salt = secrets.token_bytes(32)
    mac = _mac(_pbkdf2(key, salt, iterations, "sha256"), object_id, attribute, value, "sha256")
    return _stored(_PBMAC1, salt, iterations, _Algorithm({"algorithm": _HMAC_SHA256, "parameters": core.Null()}), mac)


def verify(key: bytes, object_id: int, attribute: int, value: bytes, blob: bytes) -> bool:
    """Whether the MAC `blob` is the attribute's.  Raises DatabaseError where it does not parse."""
    with _parsing():
        protected = _Protected.load(blob, strict=True)
        if protected["algorithm"]["algorithm"].dotted != _PBMAC1:
            return False
        derived, scheme = _derive(key, protected["algorithm"]["parameters"])
        mac = _mac(derived, object_id, attribute, value, _HMAC[scheme["algorithm"].dotted])
        return hmac.compare_digest(mac, protected["value"].native)


def password_check(key: bytes, iterations: int) -> bytes:
    """The value by which a password is recognised."""
    return encrypt(key, _CHECK, iterations)


def is_right(key: bytes, check: bytes) -> bool:
    """Whether the pass key is that of the database.  Raises DatabaseError where the check value does not parse."""
    iterations_of(check)
    try:
        return hmac.compare_digest(decrypt(key, check), _CHECK)
    except DatabaseError:
        return False  # a wrong key decrypts to wrong padding


def _pbkdf2(key: bytes, salt: bytes, iterations: int, digest: str) -> bytes:
    return hashlib.pbkdf2_hmac(digest, key, salt, iterations, 32)


def _derive(key: bytes, parameters: core.Any) -> tuple[bytes, _Algorithm]:
    """The key of one stored value, and what it is for."""
    both = parameters.parse(_KeyAndScheme)
    if both["key"]["algorithm"].dotted != _PBKDF2:
        raise ValueError
    pbkdf2 = both["key"]["parameters"].parse(_PBKDF2Parameters)
    length, prf = pbkdf2["length"].native, pbkdf2["prf"]
    digest = "sha1" if isinstance(prf, core.Void) else _HMAC[prf["algorithm"].dotted]  # RFC 8018 appendix A.2: the default
    if length not in (None, 32):
        raise ValueError
    return _pbkdf2(key, pbkdf2["salt"].native, _checked(pbkdf2["iterations"].native), digest), both["scheme"]


def _checked(iterations: int) -> int:
    if not 1 <= iterations <= _MOST_ITERATIONS:
        raise ValueError
    return iterations


def _stored(kind: str, salt: bytes, iterations: int, scheme: _Algorithm, value: bytes) -> bytes:
    prf = _Algorithm({"algorithm": _HMAC_SHA256, "parameters": core.Null()})
    pbkdf2 = _PBKDF2Parameters({"salt": salt, "iterations": iterations, "length": 32, "prf": prf})
    both = _KeyAndScheme({"key": _Algorithm({"algorithm": _PBKDF2, "parameters": pbkdf2}), "scheme": scheme})
    encoded: bytes = _Protected({"algorithm": _Algorithm({"algorithm": kind, "parameters": both}), "value": value}).dump()
    return encoded


def _mac(key: bytes, object_id: int, attribute: int, value: bytes, digest: str) -> bytes:
    return hmac.digest(key, object_id.to_bytes(4, "big") + attribute.to_bytes(4, "big") + value, digest)


def _unpad(cipher: Cipher[modes.CBC], ciphertext: bytes, block: int) -> bytes:
    decryptor, unpadder = cipher.decryptor(), PKCS7(block).unpadder()
    return unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()


def pkcs12_kdf(password: bytes, salt: bytes, iterations: int, purpose: int, length: int) -> bytes:
    """RFC 7292 appendix B.2 with SHA-1.  The password is taken as it is: NSS gives the raw pass key, no BMPString."""
    block = 64
    filled = b"".join((text * (block // len(text) + 1))[: -(-len(text) // block) * block] for text in (salt, password) if text)
    output = b""
    while len(output) < length:
        digest = bytes([purpose]) * block + filled
        for _ in range(iterations):
            digest = hashlib.sha1(digest, usedforsecurity=False).digest()
        output += digest
        addend = int.from_bytes((digest * 4)[:block], "big") + 1
        pieces = (filled[start : start + block] for start in range(0, len(filled), block))
        filled = b"".join(((int.from_bytes(piece, "big") + addend) % (1 << 8 * block)).to_bytes(block, "big") for piece in pieces)
    return output[:length]
