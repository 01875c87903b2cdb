"""Private keys and chains out of files: PEM, PKCS #8, PKCS #12 and the traditional forms, encrypted or not.

Touches the file it is given and the PIN provider; nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from asn1crypto.pkcs12 import Pfx
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key, load_pem_private_key, pkcs12

from ...db.pkcs12 import load as load_pkcs12
from ...errors import ConfigurationError, PinCancelled, PinError, PinIncorrect
from ...pins import PinProvider, PinRequest

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_DEK_INFO = re.compile(rb"^DEK-Info:\s*([A-Z0-9]+)[A-Z0-9-]*,\s*([0-9A-Fa-f]*)\s*$", re.MULTILINE)  # RFC 1421 section 4.6.1.3
_IV_DIGITS = {b"AES": 32, b"DES": 16}
_TRIES = 3

Loaded = TypeVar("Loaded")


def read(path: str, pins: PinProvider | None) -> tuple[object, list[bytes]]:
    """The private key in a file and the certificates (DER, in the file's order) beside it.

    Raises ConfigurationError for what is no such file, PinError where it is encrypted and the passphrase is not to be had.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", name="SEC_ERROR_IO") from None
    try:
        if b"-----BEGIN " in data:
            return _read_pem(data, path, pins)
        if _is_pkcs12(data):
            return _read_pkcs12(data, path, pins)
        return _with_passphrase(lambda passphrase: load_der_private_key(data, passphrase), path, pins), []
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} holds no private key that can be read: {error}", name="SEC_ERROR_BAD_DER") from None


def _read_pem(data: bytes, path: str, pins: PinProvider | None) -> tuple[object, list[bytes]]:
    blocks = [(match[1], match[0]) for match in _PEM.finditer(data)]
    keys = [block for name, block in blocks if name.endswith(b"PRIVATE KEY")]
    if len(keys) != 1:
        raise ConfigurationError(f"{path} holds {len(keys) or 'no'} private keys, one is wanted", name="SEC_ERROR_NO_KEY")
    for cipher, iv in _DEK_INFO.findall(keys[0]):
        if len(iv) != _IV_DIGITS.get(cipher, len(iv)):  # cryptography 50 panics, past any `except Exception`
            raise ConfigurationError(f"{path}: its DEK-Info is damaged", name="SEC_ERROR_BAD_DER")
    chain = [x509.load_pem_x509_certificate(block).public_bytes(Encoding.DER) for name, block in blocks if name == b"CERTIFICATE"]
    return _with_passphrase(lambda passphrase: load_pem_private_key(keys[0], passphrase), path, pins), chain


def _read_pkcs12(data: bytes, path: str, pins: PinProvider | None) -> tuple[object, list[bytes]]:
    content = _with_passphrase(lambda passphrase: _load_pkcs12(data, passphrase), path, pins)
    if content.key is None:
        raise ConfigurationError(f"{path} holds no private key", name="SEC_ERROR_NO_KEY")
    certificates = ([content.cert] if content.cert else []) + content.additional_certs
    return content.key, [entry.certificate.public_bytes(Encoding.DER) for entry in certificates]


def _load_pkcs12(data: bytes, passphrase: bytes | None) -> pkcs12.PKCS12KeyAndCertificates:
    """Without a passphrase: there is none, or it is empty, which PKCS #12 tells apart and people do not."""
    if passphrase is not None:
        return load_pkcs12(data, passphrase)
    for empty in (None, b""):
        try:
            return load_pkcs12(data, empty)
        except ValueError:
            continue
    raise TypeError("encrypted")


def _is_pkcs12(data: bytes) -> bool:
    """PFX begins with version 3 (RFC 7292 section 4); no key format does."""
    try:
        return bool(Pfx.load(data)["version"].native == "v3")
    except ValueError:
        return False


def _with_passphrase(load: Callable[[bytes | None], Loaded], path: str, pins: PinProvider | None) -> Loaded:
    try:
        return load(None)
    except TypeError:  # what cryptography raises for "encrypted, and no password was given"
        pass
    if pins is None:
        raise PinError(f"{path} is encrypted, and no source for its passphrase was given", token=path)
    for attempt in range(1 if pins.static else _TRIES):
        passphrase = pins(PinRequest(token=path, slot="file", retry=attempt > 0))
        if passphrase is None:
            raise PinCancelled(f"nobody gave the passphrase of {path}", token=path)
        try:
            return load(passphrase.encode("utf-8"))
        except ValueError:
            continue
    raise PinIncorrect(f"the passphrase of {path} is wrong", token=path)
