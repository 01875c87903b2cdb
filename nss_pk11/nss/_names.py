"""Names as NSS writes them (RFC 1485, later 2253 and 4514): "CN=host.example,O=Example,C=DE", the last part first."""

from __future__ import annotations

import re

import asn1crypto.x509

from ..errors import NSPRError

_KEYWORDS = {
    "2.5.4.3": "CN",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.46": "dnQualifier",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
    "1.2.840.113549.1.9.1": "E",
    "0.9.2342.19200300.100.1.3": "MAIL",
    "2.5.4.12": "title",
    "2.5.4.9": "STREET",
    "2.5.4.17": "postalCode",
    "2.5.4.18": "postOfficeBox",
    "2.5.4.5": "serialNumber",
    "2.5.4.4": "SN",
    "2.5.4.42": "givenName",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.15": "businessCategory",
}
_SPECIAL = re.compile(r"[,+=\r\n<>#;]|^ | $|  ")  # has to be quoted; quotation marks and backslashes are only escaped

# What asn1crypto raises where it is given something else than it expects.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def rfc1485(der: bytes) -> str:
    """A name, DER, as CERT_NameToAscii writes it.  Raises NSPRError (SEC_ERROR_BAD_DER)."""
    try:
        name = asn1crypto.x509.Name.load(der)
        return ",".join("+".join(_attribute(item) for item in rdn) for rdn in reversed(list(name.chosen)))
    except UNREADABLE:
        raise NSPRError("this is no name that can be read", name="SEC_ERROR_BAD_DER") from None


def _attribute(item: asn1crypto.x509.NameTypeAndValue) -> str:
    """What is no text is the DER of the value, in hexadecimal."""
    oid, value = item["type"].dotted, item["value"].native
    keyword = _KEYWORDS.get(oid, f"OID.{oid}")
    if not isinstance(value, str):
        return f"{keyword}=#{item['value'].dump().hex().upper()}"
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'{keyword}="{escaped}"' if _SPECIAL.search(value) else f"{keyword}={escaped}"
