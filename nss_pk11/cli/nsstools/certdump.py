"""`tstclnt -C`: certificates for people to read, in the lines of SECU_PrintCertificate without its line breaks."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_address

from ...nss.cert import (
    CERT_DerNameToAscii,
    CERT_DestroyCertificate,
    CERT_GetDefaultCertDB,
    CERT_VerifyCertNow,
    CERTCertificate,
    SECCertUsage,
)
from ...nss.prerror import NSPRError
from ...nss.prio import PRFileDesc
from ...nss.ssl import SSL_PeerCertificateChain
from . import der
from .report import as_hex, say


def dump_chain(fd: PRFileDesc, detail: int) -> None:
    """What the server sent, and the issuers that are known here.  `detail`: how often -C was given."""
    sent = SSL_PeerCertificateChain(fd)
    say("==== certificate(s) sent by server: ====")
    for certificate in sent:
        _dump(certificate, detail)
    say("==== locally found issuer certificate(s): ====")
    try:
        path = CERT_VerifyCertNow(CERT_GetDefaultCertDB(), sent[0], True, SECCertUsage.certUsageSSLServer)
    except NSPRError:
        path = []
    for certificate in path:
        if certificate not in sent:
            _dump(certificate, detail)
    say("==== end of certificate chain information ====")
    for certificate in sent:
        CERT_DestroyCertificate(certificate)


def _dump(certificate: CERTCertificate, detail: int) -> None:
    say("\n".join(_lines(certificate, detail)))


def _lines(certificate: CERTCertificate, detail: int) -> list[str]:
    parts = der.certificate(certificate.derCert)
    number, version = certificate.serialNumber, certificate.version
    lines = ["Certificate:", "    Data:"]
    if detail > 1:
        lines.append(f"        Version: {version + 1} (0x{version:x})")
    lines += [
        f"        Serial Number: {number} (0x{number:x})"
        if 0 <= number < 1 << 31
        else f"        Serial Number:{number.to_bytes(number.bit_length() // 8 + 1, 'big').lstrip(bytes(1)).hex(':')}",
        f"        Signature Algorithm: {_SIGNATURES.get(parts.signature, parts.signature)}",
        f'        Issuer: "{certificate.issuerName}"',
        "        Validity:",
        f"            Not Before: {_time(certificate.validity.notBefore)}",
        f"            Not After : {_time(certificate.validity.notAfter)}",
        f'        Subject: "{certificate.subjectName}"',
    ]
    if detail > 1:
        lines += [*_key(parts), *_extensions(parts)]
    for name, digest in (("SHA-256", "sha256"), ("SHA1", "sha1")):
        lines.append(f"    Fingerprint ({name}): {hashlib.new(digest, certificate.derCert).hexdigest().upper()}")
    lines[-2:] = [_spaced(line) for line in lines[-2:]]
    if detail > 2:
        text = base64.b64encode(certificate.derCert).decode()
        rows = [text[start : start + 64] for start in range(0, len(text), 64)]
        lines += ["-----BEGIN CERTIFICATE-----", *rows, "-----END CERTIFICATE-----"]
    return lines


def _spaced(line: str) -> str:
    """The digits after the colon in pairs."""
    name, _, digits = line.rpartition(": ")
    return f"{name}: {bytes.fromhex(digits).hex(':').upper()}"


def _time(moment: datetime) -> str:
    return f"{moment:%a %b} {moment:%d %H:%M:%S %Y}"


# --- key -----------------------------------------------------------------------------------------------------------------------


def _key(parts: der.Parts) -> list[str]:
    lines = ["        Subject Public Key Info:", f"            Public Key Algorithm: {_KEYS.get(parts.key, parts.key)}"]
    if parts.key != RSA and parts.parameters is not None:
        lines += as_hex("Args", parts.parameters.raw, 4, wrap=False)
    if parts.key == RSA:
        modulus, exponent = (part.content.lstrip(b"\0") for part in next(der.elements(parts.public_key)).parts)
        number = int.from_bytes(exponent, "big")
        lines += ["            RSA Public Key:", f"                Modulus:{modulus.hex(':')}"]
        lines.append(f"                Exponent: {number} (0x{number:x})")
    elif parts.key == EC and parts.parameters is not None:
        curve = der.oid(parts.parameters.content)
        lines += ["            EC Public Key:", f"                PublicValue:{parts.public_key.hex(':')}"]
        lines.append(f"                Curve: {_CURVES.get(curve, curve)}")
    return lines


RSA, EC = "1.2.840.113549.1.1.1", "1.2.840.10045.2.1"
_CURVES = {
    "1.2.840.10045.3.1.7": "ANSI X9.62 elliptic curve prime256v1 (aka secp256r1, NIST P-256)",
    "1.3.132.0.34": "SECG elliptic curve secp384r1 (aka NIST P-384)",
    "1.3.132.0.35": "SECG elliptic curve secp521r1 (aka NIST P-521)",
}
_KEYS = {
    RSA: "PKCS #1 RSA Encryption",
    "1.2.840.113549.1.1.10": "PKCS #1 RSA-PSS Signature",
    EC: "X9.62 elliptic curve public key",
    "1.2.840.10040.4.1": "ANSI X9.57 DSA Signature",
    "1.3.101.112": "Ed25519",
}
_SIGNATURES = {
    "1.2.840.113549.1.1.4": "PKCS #1 MD5 With RSA Encryption",
    "1.2.840.113549.1.1.5": "PKCS #1 SHA-1 With RSA Encryption",
    "1.2.840.113549.1.1.10": "PKCS #1 RSA-PSS Signature",
    "1.2.840.113549.1.1.11": "PKCS #1 SHA-256 With RSA Encryption",
    "1.2.840.113549.1.1.12": "PKCS #1 SHA-384 With RSA Encryption",
    "1.2.840.113549.1.1.13": "PKCS #1 SHA-512 With RSA Encryption",
    "1.2.840.10045.4.1": "X9.62 ECDSA signature with SHA1",
    "1.2.840.10045.4.3.2": "X9.62 ECDSA signature with SHA256",
    "1.2.840.10045.4.3.3": "X9.62 ECDSA signature with SHA384",
    "1.2.840.10045.4.3.4": "X9.62 ECDSA signature with SHA512",
    "1.2.840.10040.4.3": "DSA with SHA-1 Signature",
    "2.16.840.1.101.3.4.3.2": "DSA with SHA-256 Signature",
    "1.3.101.112": "Ed25519",
}


# --- extensions ----------------------------------------------------------------------------------------------------------------


def _extensions(parts: der.Parts) -> list[str]:
    if not parts.extensions:
        return []
    lines = ["        Signed Extensions:"]
    for number, extension in enumerate(parts.extensions):
        if number:
            lines.append("")
        name, show = _EXTENSIONS.get(extension.oid, (f"OID.{extension.oid}", _raw))
        lines.append(f"            Name: {name}")
        if extension.critical:
            lines.append("            Critical: True")
        lines += [f"            {line}" if line else "" for line in show(extension.value)]
    return lines


def _raw(value: bytes) -> list[str]:
    return as_hex("Data", value, 0, wrap=False)


def _usages(value: bytes) -> list[str]:
    """KeyUsage (RFC 5280 section 4.2.1.3)."""
    bits = next(der.elements(value)).content[1:]
    set_bits = [place for place in range(8 * len(bits)) if bits[place // 8] & 0x80 >> place % 8]
    names = [_USAGES[place] for place in set_bits if place < len(_USAGES)]
    return [*(f"{'Usages:' if not number else '       '} {name}" for number, name in enumerate(names)), ""]


_USAGES = (
    "Digital Signature", "Non-Repudiation", "Key Encipherment", "Data Encipherment", "Key Agreement", "Certificate Signing",
    "CRL Signing", "Encipher Only", "Decipher Only",
)  # fmt: skip


def _constraints(value: bytes) -> list[str]:
    """BasicConstraints (section 4.2.1.9)."""
    fields = {part.tag: part.content for part in next(der.elements(value)).parts}
    if not any(fields.get(0x01, b"")):
        return ["Data: Is not a CA."]
    if 0x02 in fields:
        return [f"Data: Is a CA with a maximum path length of {int.from_bytes(fields[0x02], 'big')}."]
    return ["Data: Is a CA with no maximum path length."]


def _names(value: bytes) -> list[str]:
    """GeneralNames (section 4.2.1.6)."""
    return [_name(part) for part in next(der.elements(value)).parts]


def _name(part: der.Element) -> str:
    if part.tag in _NAMES:
        return f'{_NAMES[part.tag]}: "{part.content.decode("latin-1")}"'
    if part.tag == 0x87 and len(part.content) in (4, 16):
        return f"IP Address: {ip_address(part.content)}"
    if part.tag == 0xA4:
        return f'Directory Name: "{CERT_DerNameToAscii(part.content)}"'
    return _raw(part.raw)[0]


_NAMES = {0x81: "RFC822 Name", 0x82: "DNS name", 0x86: "URI"}


def _purposes(value: bytes) -> list[str]:
    """ExtKeyUsageSyntax (section 4.2.1.12)."""
    found = [der.oid(part.content) for part in next(der.elements(value)).parts]
    return [_PURPOSES.get(purpose, f"OID.{purpose}") for purpose in found]


_PURPOSES = {
    "1.3.6.1.5.5.7.3.1": "TLS Web Server Authentication Certificate",
    "1.3.6.1.5.5.7.3.2": "TLS Web Client Authentication Certificate",
    "1.3.6.1.5.5.7.3.9": "OCSP Responder Certificate",
    "2.16.840.1.113730.4.1": "Strong Crypto Export Approved",
}

_EXTENSIONS: dict[str, tuple[str, Callable[[bytes], list[str]]]] = {
    "2.5.29.14": ("Certificate Subject Key ID", _raw),
    "2.5.29.15": ("Certificate Key Usage", _usages),
    "2.5.29.17": ("Certificate Subject Alt Name", _names),
    "2.5.29.19": ("Certificate Basic Constraints", _constraints),
    "2.5.29.31": ("CRL Distribution Points", _raw),
    "2.5.29.35": ("Certificate Authority Key Identifier", _raw),
    "2.5.29.37": ("Extended Key Usage", _purposes),
    "1.3.6.1.5.5.7.1.1": ("Authority Information Access", _raw),
    "2.16.840.1.113730.1.1": ("Certificate Type", _raw),
}
