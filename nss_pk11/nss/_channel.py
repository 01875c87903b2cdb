"""What can be told of a connection and of a suite: the records of sslt.h, filled in from what the engine negotiated."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from ..certs.info import PARSE_ERRORS, parse
from ..errors import NSPRError
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
    if not layer.peer_chain:
        return "no certificate", "no certificate"
    try:
        leaf = parse(layer.peer_chain[0].derCert)
        return rfc1485(leaf.issuer), rfc1485(leaf.subject)
    except (NSPRError, *PARSE_ERRORS):
        return "", ""


# --- names -----------------------------------------------------------------------------------------------------------

_KEYWORDS: dict[ObjectIdentifier, str] = {
    NameOID.COMMON_NAME: "CN",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.COUNTRY_NAME: "C",
    NameOID.LOCALITY_NAME: "L",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.USER_ID: "UID",
    NameOID.EMAIL_ADDRESS: "E",
    NameOID.TITLE: "title",
    NameOID.STREET_ADDRESS: "STREET",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.BUSINESS_CATEGORY: "businessCategory",
}
_SPECIAL = re.compile(r'[,+="\r\n<>#;\\]|^ | $|  ')


def rfc1485(name: x509.Name) -> str:
    """A name as CERT_NameToAscii writes it: "CN=host.example,O=Example,C=DE", the last part first."""
    return ",".join("+".join(_attribute(item) for item in rdn) for rdn in reversed(name.rdns))


def _attribute(item: x509.NameAttribute[str | bytes]) -> str:
    value = item.value
    keyword = _KEYWORDS.get(item.oid)
    if keyword is None or isinstance(value, bytes):
        raw = value if isinstance(value, bytes) else value.encode()
        return f"OID.{item.oid.dotted_string}=#{raw.hex()}"
    if _SPECIAL.search(value):
        value = '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return f"{keyword}={value}"
