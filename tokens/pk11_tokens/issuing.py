"""Certificates for the keys of simulated tokens: self-signed, or by an issuer made for the purpose.

May use `cryptography` and the keys of `kea`, which cannot sign and which `cryptography` does not know: their certificates are
put together here.  Knows no token and no description.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .kea import KeaPublicKey, der
from .keytypes import public_key_info

_DAYS = 365  # that a certificate is good for
_EDGE = timedelta(hours=1)  # clocks differ

# What an ECDSA signature hashes with (RFC 5480 section 4); Edwards curves and ML-DSA need nothing, RSA and DSA get SHA-256.
_HASHES: dict[str, type[SHA384 | SHA512]] = {"secp384r1": SHA384, "secp521r1": SHA512}


def self_signed(private_key: Any, names: tuple[str, ...]) -> x509.Certificate:
    """A certificate by a key for itself: `names` are DNS names or addresses, the first the common name; for client and server."""
    public_key = private_key.public_key()
    builder = _builder(_common_name(names[0]), _common_name(names[0]), public_key)
    builder = _for_names(builder, names).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    return builder.sign(private_key, _hash_for(private_key))


class Issuer:
    """Somebody who issues certificates: with a key of RSA and a certificate of its own, or with those given."""

    def __init__(self, private_key: Any = None, certificate: x509.Certificate | None = None) -> None:
        self._private_key = private_key or rsa.generate_private_key(65537, 2048)
        self.certificate = certificate or self._own()

    def _own(self) -> x509.Certificate:
        name, public_key = _common_name("Issuer of simulated tokens"), self._private_key.public_key()
        builder = _builder(name, name, public_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        return builder.sign(self._private_key, _hash_for(self._private_key))

    def issue(self, public_key: Any, names: tuple[str, ...]) -> bytes:
        """A certificate in DER: `names` are DNS names or addresses, the first the common name; for client and server."""
        kea = isinstance(public_key, KeaPublicKey)
        # A builder takes no key of KEA: the issuer's stands in its place until the certificate is signed.
        shown = self._private_key.public_key() if kea else public_key
        builder = _for_names(_builder(_common_name(names[0]), self.certificate.subject, shown), names)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(agreement=kea), critical=True)
        certificate = builder.sign(self._private_key, _hash_for(self._private_key))
        whole = certificate.public_bytes(Encoding.DER)
        return self._exchanged(certificate, public_key_info(shown), public_key.public_bytes()) if kea else whole

    def _exchanged(self, certificate: x509.Certificate, old: bytes, new: bytes) -> bytes:
        """The same certificate with another SubjectPublicKeyInfo, signed again."""
        before = certificate.tbs_certificate_bytes
        content = before[_header(before) :].replace(old, new, 1)
        body = der(0x30, content)
        rest = certificate.public_bytes(Encoding.DER)
        rest = rest[_header(rest) + len(before) :]
        algorithm = rest[: len(rest) - len(der(3, b"\0" + certificate.signature))]
        return der(0x30, body + algorithm + der(3, b"\0" + self._sign(body)))

    def _sign(self, data: bytes) -> bytes:
        hashing = _hash_for(self._private_key)
        match self._private_key:
            case rsa.RSAPrivateKey():
                return self._private_key.sign(data, padding.PKCS1v15(), SHA256())
            case ec.EllipticCurvePrivateKey():
                return self._private_key.sign(data, ec.ECDSA(hashing or SHA256()))
        return bytes(self._private_key.sign(data, *(() if hashing is None else (hashing,))))


def _header(encoded: bytes) -> int:
    """Bytes of tag and length."""
    return 2 + (encoded[1] & 0x7F if encoded[1] & 0x80 else 0)


def _hash_for(private_key: Any) -> Any:
    if not isinstance(private_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey):
        return None
    curve = private_key.curve.name if isinstance(private_key, ec.EllipticCurvePrivateKey) else ""
    return _HASHES.get(curve, SHA256)()


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, public_key: Any) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EDGE)
        .not_valid_after(now + timedelta(days=_DAYS))
    )


def _for_names(builder: x509.CertificateBuilder, names: tuple[str, ...]) -> x509.CertificateBuilder:
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    alternative = x509.SubjectAlternativeName([_name(name) for name in names])
    return builder.add_extension(alternative, critical=False).add_extension(uses, critical=False)


def _usage(*, agreement: bool) -> x509.KeyUsage:
    """Keys of KEA agree (RFC 2528 section 3.2), others sign."""
    return x509.KeyUsage(
        digital_signature=not agreement,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=agreement,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
