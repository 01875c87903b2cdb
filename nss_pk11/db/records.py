"""What a database hands out: certificates, CRLs and keys as values.  No secrets in any of them."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes


@dataclass(frozen=True)
class CertificateRecord:
    """A certificate as it is kept: DER, the nickname ("" where it has none) and e-mail address NSS finds it by, and CKA_ID."""

    id: int
    der: bytes
    nickname: str
    email: str
    key_id: bytes


@dataclass(frozen=True)
class CRLRecord:
    """A certificate revocation list: DER, the issuer's DER name, and the URL it came from ("" where none is kept)."""

    id: int
    der: bytes
    issuer: bytes
    url: str


@dataclass(frozen=True)
class KeyRecord:
    """A private key's public side.  `key_id` is CKA_ID, `kind` one of rsa, ec, dsa, ed25519."""

    id: int
    key_id: bytes
    nickname: str
    kind: str
    public_key: PublicKeyTypes
