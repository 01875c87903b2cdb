"""Private keys and their public halves: which public key or certificate on a token belongs to which private key.

A private key object often does not tell its public key (EC never does), and what lies beside it is only as trustworthy as
CKA_ID and CKA_LABEL: where these do not decide, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Protocol

from .cryptoki import Attribute, Attributes, KeyType
from .model import PublicKey, TokenCertificate
from .publickeys import curve_of, from_attributes, from_certificate, kind_of, spki

_KINDS = {
    KeyType.RSA: ("rsa",),
    KeyType.DSA: ("dsa",),
    KeyType.EC: ("ec",),
    KeyType.EC_EDWARDS: ("ed25519", "ed448"),
    KeyType.ML_DSA: ("mldsa44", "mldsa65", "mldsa87"),
    KeyType._KEA: ("kea",),
}


class PublicObjects(Protocol):
    """What a token shows to anyone, of what fits a template."""

    def public_keys(self, template: Attributes | None = None) -> list[tuple[Attributes, PublicKey]]: ...

    def certificates(self, template: Attributes | None = None) -> list[TokenCertificate]: ...


class PublicHalves:
    """Finds the public halves of private keys: by their own attributes, else by the public key, else by the certificate beside.

    "Beside" means of the same CKA_ID, or for a key without one of the same label; the label also decides between several.
    For `many` keys all public objects are read once; for a few only those beside them, since a token may hold thousands.
    """

    def __init__(self, token: PublicObjects, many: bool) -> None:
        self._token, self._many = token, many

    def of(self, values: Attributes) -> PublicKey | None:
        """By the attributes of the private key."""
        own = from_attributes(values)
        if own is not None:
            return own
        attribute = Attribute.ID if values.get(Attribute.ID) else Attribute.LABEL
        if not values.get(attribute):
            return None
        label = values.get(Attribute.LABEL)
        for beside in (self._public_keys(values, attribute), self._certificates(values, attribute)):
            halves = {spki(key): key for _, key in beside}
            if len(halves) > 1:
                halves = {spki(key): key for other, key in beside if other == label}
            if halves:
                return next(iter(halves.values())) if len(halves) == 1 else None
        return None

    def _public_keys(self, values: Attributes, attribute: Attribute) -> list[tuple[str, PublicKey]]:
        shown = self._all_public_keys if self._many else self._token.public_keys({attribute: values[attribute]})
        return [
            (other.get(Attribute.LABEL) or "", key)
            for other, key in shown
            if other.get(attribute) == values[attribute] and _same_curve(values, other) and _fits(values, key)
        ]

    def _certificates(self, values: Attributes, attribute: Attribute) -> Iterable[tuple[str, PublicKey]]:
        shown = self._all_certificates if self._many else self._token.certificates({attribute: values[attribute]})
        beside = (item for item in shown if values[attribute] == (item.id if attribute is Attribute.ID else item.label))
        keys = ((item.label, from_certificate(item.der)) for item in beside)
        return [(label, key) for label, key in keys if key is not None and _fits(values, key)]

    @cached_property
    def _all_public_keys(self) -> list[tuple[Attributes, PublicKey]]:
        return self._token.public_keys()

    @cached_property
    def _all_certificates(self) -> list[TokenCertificate]:
        return self._token.certificates()


def _fits(values: Attributes, key: PublicKey) -> bool:
    return Attribute.KEY_TYPE in values and kind_of(key) in _KINDS.get(values[Attribute.KEY_TYPE], ())


def _same_curve(values: Attributes, other: Attributes) -> bool:
    try:
        return curve_of(values) in ("", curve_of(other))
    except ValueError:
        return False
