"""What can be told of a connection and of a suite: the records of sslt.h, filled in from what the engine negotiated."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from ..tls.suites import Suite

if TYPE_CHECKING:
    from ._connection import Connection

SSL_SECURITY_STATUS_NOOPT, SSL_SECURITY_STATUS_OFF = -1, 0
SSL_SECURITY_STATUS_ON_HIGH, SSL_SECURITY_STATUS_ON_LOW, SSL_SECURITY_STATUS_FORTEZZA = 1, 2, 3


class SSLAuthType(IntEnum):
    """By what a server proves who it is (sslt.h)."""

    ssl_auth_null = 0
    ssl_auth_rsa_decrypt = 1
    ssl_auth_rsa = 1
    ssl_auth_dsa = 2
    ssl_auth_kea = 3
    ssl_auth_ecdsa = 4
    ssl_auth_ecdh_rsa = 5
    ssl_auth_ecdh_ecdsa = 6
    ssl_auth_rsa_sign = 7
    ssl_auth_rsa_pss = 8
    ssl_auth_psk = 9
    ssl_auth_tls13_any = 10


HIGH_BITS = 90  # secret ones, from which on security is high


class SSLSecurityStatus(NamedTuple):
    """What SSL_SecurityStatus gives through pointers; `keySize`, `secretKeySize`: bits."""

    on: int = SSL_SECURITY_STATUS_OFF
    cipher: str | None = None
    keySize: int = 0
    secretKeySize: int = 0
    issuer: str | None = None
    subject: str | None = None


def security_status(layer: Connection) -> SSLSecurityStatus:
    """All off before the first handshake, and while SSL_SECURITY is."""
    info = layer.info
    if info is None or info.suite is None or not layer.secure:
        return SSLSecurityStatus()
    suite = info.suite
    name = cipher_name(suite)
    high = SSL_SECURITY_STATUS_ON_HIGH if suite.secret_key_bits >= HIGH_BITS else SSL_SECURITY_STATUS_ON_LOW
    issuer, subject = peer_names(layer)
    bits, secret = suite.key_bits, suite.secret_key_bits
    if "DES" in name:  # without the parity bits
        bits, secret = bits * 7 // 8, secret * 7 // 8
    return SSLSecurityStatus(high if bits else SSL_SECURITY_STATUS_OFF, name, bits, secret, issuer, subject)


def cipher_name(suite: Suite) -> str:
    """As NSS says it: AES in CBC mode is "AES-128"."""
    return re.sub(r"^(AES-\d+)-CBC$", r"\1", suite.cipher.name)


def peer_names(layer: Connection) -> tuple[str, str]:
    """Issuer and subject of the peer's certificate."""
    chain = layer.peer_chain
    return (chain[0].issuerName, chain[0].subjectName) if chain else ("no certificate", "no certificate")
