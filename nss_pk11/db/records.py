"""What a database hands out, and how certificates and CRLs are kept as attributes.  Pure; no secrets in any of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from asn1crypto import core, crl, x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from ..errors import CertificateError
from .attributes import Attribute, ObjectClass, ulong
from .keys import key_id_of_certificate
from .store import StoredObject

_A = Attribute
_YES, _NO = b"\x01", b"\x00"


@dataclass(frozen=True)
class CertificateRecord:
    """A certificate as it is kept: DER, the nickname ("" where it has none) and e-mail address NSS finds it by, and CKA_ID."""

    id: int
    der: bytes = field(repr=False)
    nickname: str
    email: str
    key_id: bytes


@dataclass(frozen=True)
class CRLRecord:
    """A certificate revocation list: DER, the issuer's DER name, and the URL it came from ("" where none is kept)."""

    id: int
    der: bytes = field(repr=False)
    issuer: bytes = field(repr=False)
    url: str


@dataclass(frozen=True)
class KeyRecord:
    """A private key's public side.  `key_id` is CKA_ID, `kind` one of rsa, ec, dsa, ed25519."""

    id: int
    key_id: bytes
    nickname: str
    kind: str
    public_key: PublicKeyTypes


def certificate_record(stored: StoredObject) -> CertificateRecord:
    """What the attributes of a CKO_CERTIFICATE say."""
    nickname, email = text(stored.get(_A.label)), text(stored.get(_A.nss_email))
    return CertificateRecord(stored.id, stored.get(_A.value), nickname, email, stored.get(_A.id))


def crl_record(stored: StoredObject) -> CRLRecord:
    """What the attributes of a CKO_NSS_CRL say."""
    return CRLRecord(stored.id, stored.get(_A.value), stored.get(_A.subject), text(stored.get(_A.nss_url)))


def certificate_attributes(der: bytes, nickname: str) -> dict[int, bytes]:
    """The object of a certificate.  Raises CertificateError (SEC_ERROR_BAD_DER)."""
    common: dict[int, bytes] = {_A.object_class: ulong(ObjectClass.certificate), _A.token: _YES, _A.private: _NO}
    common |= {_A.modifiable: _YES, _A.label: nickname.encode(), _A.value: der, _A.certificate_type: ulong(0)}
    return {**common, **_read(der)}


@lru_cache(maxsize=512)  # whoever asks which CAs are trusted asks for every root's place, each time
def _read(der: bytes) -> Mapping[int, bytes]:
    """The attributes that a certificate itself tells.  Raises CertificateError (SEC_ERROR_BAD_DER)."""
    try:
        certificate = x509.Certificate.load(der, strict=True)
        body = certificate["tbs_certificate"]
        attributes: dict[int, bytes] = {
            _A.issuer: body["issuer"].dump(),
            _A.serial_number: body["serial_number"].dump(),
            _A.subject: body["subject"].dump(),
            _A.id: key_id_of_certificate(certificate),
        }
        email = _email(certificate)
    except (ValueError, TypeError, KeyError):
        raise CertificateError("this is no X.509 certificate", name="SEC_ERROR_BAD_DER") from None
    return MappingProxyType(attributes | ({_A.nss_email: email.encode()} if email else {}))


def crl_attributes(der: bytes, url: str) -> dict[int, bytes]:
    """The object of a CRL.  Raises CertificateError (SEC_ERROR_CRL_INVALID)."""
    try:
        issuer = crl.CertificateList.load(der, strict=True)["tbs_cert_list"]["issuer"].dump()
        crl_date(der)
    except (ValueError, TypeError, KeyError):
        raise CertificateError("this is no certificate revocation list", name="SEC_ERROR_CRL_INVALID") from None
    common = {_A.object_class: ulong(ObjectClass.nss_crl), _A.token: _YES, _A.private: _NO, _A.label: b"", _A.modifiable: _YES}
    return common | {_A.value: der, _A.subject: issuer, _A.nss_url: url.encode(), _A.nss_krl: _NO}


def crl_date(der: bytes) -> float:
    """thisUpdate of a CRL, seconds since 1970."""
    return float(crl.CertificateList.load(der)["tbs_cert_list"]["this_update"].native.timestamp())


def place(der: bytes) -> dict[int, bytes]:
    """Issuer and serial number: how trust finds its certificate.  Raises CertificateError (SEC_ERROR_BAD_DER)."""
    attributes = _read(der)
    return {name: attributes[name] for name in (_A.issuer, _A.serial_number)}


def serial_number(number: int) -> bytes:
    """A serial number as it is kept: a DER INTEGER."""
    encoded: bytes = core.Integer(number).dump()
    return encoded


def trust_attributes(der: bytes, values: Mapping[Attribute, int]) -> dict[int, bytes]:
    """The object of a certificate's trust; bound to it by issuer, serial number and digests."""
    common = {_A.object_class: ulong(ObjectClass.nss_trust), _A.token: _YES, _A.private: _NO, _A.label: b"", _A.modifiable: _YES}
    digests = {
        _A.cert_sha1_hash: hashlib.sha1(der, usedforsecurity=False).digest(),
        _A.cert_md5_hash: hashlib.md5(der, usedforsecurity=False).digest(),
    }
    flags = {name: ulong(value) for name, value in values.items()} | {_A.trust_step_up_approved: _NO}
    return common | place(der) | digests | flags


def text(value: bytes) -> str:
    """A label: UTF-8 as far as it is."""
    return value.decode("utf-8", "replace")


def _email(certificate: x509.Certificate) -> str:
    """The address by which NSS finds it: the subject's first, else subjectAltName's (CERT_GetCertificateEmailAddress)."""
    for names in certificate.subject.chosen:
        for name in names:
            if name["type"].native == "email_address":
                return str(name["value"].native).lower()
    alternative = certificate.subject_alt_name_value or ()
    return next((str(name.native).lower() for name in alternative if name.name == "rfc822_name"), "")
