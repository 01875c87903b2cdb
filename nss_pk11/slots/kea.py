"""Public keys of KEA, the key exchange of FORTEZZA cards, as certificates and tokens show them (RFC 2528; PKCS #11 2.11 section
12.9).  `cryptography` does not know them; these have as much of its keys' face as the room needs.

Numbers with which one side computes are the cards' business: nothing is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import asn1crypto.x509
from asn1crypto.core import BitString, Integer, ObjectIdentifier, OctetString, Sequence

PUBLIC_BYTES = 128
DOMAIN_BYTES = 10
KEA = "2.16.840.1.101.2.1.1.22"  # id-keyExchangeAlgorithm


class _Algorithm(Sequence):  # type: ignore[misc]
    _fields = [("algorithm", ObjectIdentifier), ("parameters", OctetString)]  # noqa: RUF012  # as asn1crypto wants it


class _Info(Sequence):  # type: ignore[misc]
    _fields = [("algorithm", _Algorithm), ("public_key", BitString)]  # noqa: RUF012


class _Parameters(Sequence):  # type: ignore[misc]
    _fields = [("p", Integer), ("q", Integer), ("g", Integer)]  # noqa: RUF012


@dataclass(frozen=True)
class KeaPublicKey:
    """`domain`: the 10 bytes that name p, q and g, which both sides must have in common; `public`: Y, 128 bytes, big-endian."""

    domain: bytes
    public: bytes

    @property
    def key_size(self) -> int:
        return 8 * PUBLIC_BYTES

    def public_bytes(self, encoding: Any = None, format: Any = None) -> bytes:
        """SubjectPublicKeyInfo in DER, the only form there is."""
        algorithm = {"algorithm": KEA, "parameters": self.domain}
        return bytes(_Info({"algorithm": algorithm, "public_key": _bits(self.public)}).dump())


def from_public_key_info(der: bytes) -> KeaPublicKey | None:
    """None for a key of another kind, or of lengths that KEA does not have."""
    try:
        info = _Info.load(der)
        oid, domain, public = info["algorithm"]["algorithm"].dotted, info["algorithm"]["parameters"].native, info["public_key"]
        key = KeaPublicKey(bytes(domain), bytes(public.contents[1:]))
    except (ValueError, TypeError, KeyError):
        return None
    sized = (len(key.domain), len(key.public)) == (DOMAIN_BYTES, PUBLIC_BYTES)
    return key if oid == KEA and sized else None


def from_certificate(der: bytes) -> KeaPublicKey | None:
    """The key of an X.509 certificate; None as above."""
    try:
        info = asn1crypto.x509.Certificate.load(der)["tbs_certificate"]["subject_public_key_info"].dump()
    except (ValueError, TypeError):
        return None
    return from_public_key_info(info)


def from_parameters(p: bytes, q: bytes, g: bytes, public: bytes) -> KeaPublicKey:
    """As public key objects have it: the domain's identifier is the hash of p, q and g, folded (RFC 2528 section 3.1.1)."""
    numbers = {name: int.from_bytes(value) for name, value in (("p", p), ("q", q), ("g", g))}
    digest = sha1(_Parameters(numbers).dump(), usedforsecurity=False).digest()
    return KeaPublicKey(bytes(a ^ b for a, b in zip(digest[:10], digest[10:], strict=True)), public.rjust(PUBLIC_BYTES, b"\0"))


def _bits(value: bytes) -> BitString:
    return BitString(contents=b"\0" + value)
