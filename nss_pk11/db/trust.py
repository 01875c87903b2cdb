"""What a database says about a certificate: the trust flags, and how NSS keeps them.

The letters are those of `certutil -t` and `certutil -L`; the stored values are CKT_NSS_ constants of a CKO_NSS_TRUST object,
one for each usage (NSS lib/pki/pki3hack.c, `get_nss_trust` and `cert_trust_from_stan_trust`).

Pure: numbers and letters, no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import NamedTuple, Self

from ..errors import ConfigurationError
from .attributes import Attribute


class TrustFlags(IntFlag):
    """CERTDB_ flags of NSS's certdb.h that are kept."""

    none = 0
    terminal_record = 1 << 0  # what the record says is final: no chain is built above it
    trusted = 1 << 1  # a peer that is trusted itself (P)
    valid_ca = 1 << 3  # c
    trusted_ca = 1 << 4  # C: issues server certificates
    user = 1 << 6  # u: shown where the private key is here, never stored
    trusted_client_ca = 1 << 7  # T: issues client certificates
    govt_approved_ca = 1 << 8  # G: step-up, of the export years

    def __str__(self) -> str:
        """The letters, as `certutil -L` prints them."""
        valid_ca, trusted_ca, trusted_client = (
            bool(self & flag) for flag in (TrustFlags.valid_ca, TrustFlags.trusted_ca, TrustFlags.trusted_client_ca)
        )
        letters = "c" if valid_ca and not (trusted_ca or trusted_client) else ""
        letters += "p" if self & TrustFlags.terminal_record and not self & TrustFlags.trusted else ""
        for flag, letter in _SHOWN:
            letters += letter if self & flag else ""
        return letters


_SHOWN = (
    (TrustFlags.trusted_ca, "C"),
    (TrustFlags.trusted_client_ca, "T"),
    (TrustFlags.trusted, "P"),
    (TrustFlags.user, "u"),
    (TrustFlags.govt_approved_ca, "G"),
)

_LETTERS = {
    "p": TrustFlags.terminal_record,
    "P": TrustFlags.terminal_record | TrustFlags.trusted,
    "c": TrustFlags.valid_ca,
    "C": TrustFlags.trusted_ca | TrustFlags.valid_ca,
    "T": TrustFlags.trusted_client_ca | TrustFlags.valid_ca,
    "u": TrustFlags.user,
    "G": TrustFlags.govt_approved_ca,
    "w": TrustFlags.none,  # "send warning": accepted and not stored, as certutil does
    "i": TrustFlags.none,
    "g": TrustFlags.none,
}


class Trust(NamedTuple):
    """The three sets of flags of one certificate, in the order certutil prints them."""

    ssl: TrustFlags = TrustFlags.none
    email: TrustFlags = TrustFlags.none
    object_signing: TrustFlags = TrustFlags.none

    @classmethod
    def parse(cls, text: str) -> Self:
        """`CT,C,c`: the letters p P c C T u w for SSL, e-mail and object signing.  Raises ConfigurationError."""
        parts = text.split(",")
        if len(parts) > 3 or not set("".join(parts)) <= set(_LETTERS):
            raise ConfigurationError(f"trust is three groups of the letters p P c C T u w, such as CT,C,c; not {text!r}")
        values = []
        for part in parts:
            flags = TrustFlags.none
            for letter in part:
                flags |= _LETTERS[letter]
            values.append(flags)
        return cls(*values)

    def __str__(self) -> str:
        return ",".join(str(flags) for flags in self)


class StoredTrust(IntEnum):
    """CK_TRUST values (NSS pkcs11n.h)."""

    trusted = 0xCE534351
    trusted_delegator = 0xCE534352
    must_verify = 0xCE534353
    unknown = 0xCE534355
    not_trusted = 0xCE53435A
    valid_delegator = 0xCE53435B


def to_stored(trust: Trust) -> dict[Attribute, int]:
    """The values that NSS keeps for these flags.  `u` is not kept: it follows from the keys."""
    return {
        Attribute.trust_server_auth: _level(trust.ssl, TrustFlags.trusted_ca),
        Attribute.trust_client_auth: _level(trust.ssl, TrustFlags.trusted_client_ca),
        Attribute.trust_email_protection: _level(trust.email, TrustFlags.trusted_ca),
        Attribute.trust_code_signing: _level(trust.object_signing, TrustFlags.trusted_ca),
    }


def from_stored(values: Mapping[int, int], user: bool) -> Trust:
    """The flags that NSS makes of its kept values; `user` where the certificate's private key is here."""
    server, client, email, code = (_FLAGS.get(values.get(name, 0), TrustFlags.none) for name in STORED)
    if client & TrustFlags.trusted_ca:
        client = client & ~TrustFlags.trusted_ca | TrustFlags.trusted_client_ca
    own = TrustFlags.user if user else TrustFlags.none
    return Trust(server | client | own, email | own, code | own)


STORED = (
    Attribute.trust_server_auth,
    Attribute.trust_client_auth,
    Attribute.trust_email_protection,
    Attribute.trust_code_signing,
)


def _level(flags: TrustFlags, delegator: TrustFlags) -> StoredTrust:
    if flags & delegator:
        return StoredTrust.trusted_delegator
    return next((stored for flag, stored in _LEVELS if flags & flag), StoredTrust.must_verify)


_LEVELS = (
    (TrustFlags.trusted, StoredTrust.trusted),
    (TrustFlags.terminal_record, StoredTrust.not_trusted),
    (TrustFlags.valid_ca, StoredTrust.valid_delegator),
)

_FLAGS: dict[int, TrustFlags] = {
    StoredTrust.trusted: TrustFlags.trusted | TrustFlags.terminal_record,
    StoredTrust.trusted_delegator: TrustFlags.valid_ca | TrustFlags.trusted_ca,
    StoredTrust.valid_delegator: TrustFlags.valid_ca,
    StoredTrust.not_trusted: TrustFlags.terminal_record,
}
