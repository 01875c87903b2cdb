"""The internal module: a slot and token that offer in software what the engine computes and hold keys out of files, and beside
them a slot for each database that is open."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NoReturn

from cryptography import x509

from ...errors import ConfigurationError, NotFound, TokenError
from ..cryptoki import MECHANISM_NUMBERS
from ..model import MechanismInfo, Module, PrivateKey, Slot, Token, TokenCertificate, TokenInfo
from ..uri import object_uri
from .keys import SoftwareKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...pins import PinProvider

INFO = TokenInfo(
    label="NSS Generic Crypto Services",
    serial="0000000000000000",
    manufacturer="nss-pk11",
    model="software",
    slot="NSS Internal Cryptographic Services",
)

# What `cryptography` does for this package; the engine's suites ask for these by name.
MECHANISMS = (
    "CKM_AES_GCM",
    "CKM_AES_CCM",
    "CKM_CHACHA20_POLY1305",
    "CKM_AES_CBC",
    "CKM_DES3_CBC",
    "CKM_DES_CBC",
    "CKM_RC2_CBC",
    "CKM_RC4",
    "CKM_RSA_PKCS",
    "CKM_RSA_PKCS_PSS",
    "CKM_DSA",
    "CKM_ECDSA",
    "CKM_EDDSA",
    "CKM_ML_DSA",
    "CKM_ML_KEM",
    "CKM_DH_PKCS_DERIVE",
    "CKM_ECDH1_DERIVE",
    "CKM_MD5",
    "CKM_SHA_1",
    "CKM_SHA256",
    "CKM_SHA384",
    "CKM_SHA512",
    "CKM_MD5_HMAC",
    "CKM_SHA_1_HMAC",
    "CKM_SHA256_HMAC",
    "CKM_SHA384_HMAC",
    "CKM_SHA512_HMAC",
)


class Offer:
    """What each token of the internal module offers: all of `MECHANISMS` but what policy withholds."""

    def __init__(self) -> None:
        self._all = {name: MechanismInfo(name, MECHANISM_NUMBERS[name]) for name in MECHANISMS}
        self.withheld: frozenset[str] = frozenset()

    def withhold(self, names: Iterable[str]) -> None:
        """Offer these no more, and all others.  Raises ConfigurationError for a name that is not among `MECHANISMS`: who
        mistypes one would believe it gone."""
        withheld = frozenset(names)
        unknown = sorted(withheld - self._all.keys())
        if unknown:
            raise ConfigurationError(f"the internal module has no mechanism {', '.join(unknown)}")
        self.withheld = withheld

    def mechanisms(self) -> dict[str, MechanismInfo]:
        return {name: info for name, info in self._all.items() if name not in self.withheld}


class InternalToken(Token):
    """Needs no login.  Keys stay as long as the process."""

    info = INFO
    logged_in = True

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._keys: dict[bytes, SoftwareKey] = {}
        self._certificates: dict[bytes, TokenCertificate] = {}
        self._lock = threading.Lock()

    @property
    def flags(self) -> frozenset[str]:
        return frozenset({"CKF_TOKEN_INITIALIZED", "CKF_WRITE_PROTECTED", "CKF_RNG"})

    def mechanisms(self) -> dict[str, MechanismInfo]:
        return self._offer.mechanisms()

    def login(self, pins: PinProvider | None = None) -> None:
        pass

    def logout(self) -> None:
        pass

    def check_pin(self, pin: str) -> None:
        pass

    def change_pin(self, old: str, new: str) -> NoReturn:
        raise self._read_only()

    def set_first_pin(self, so_pin: str, pin: str) -> NoReturn:
        raise self._read_only()

    def add(self, key: object, chain: list[bytes], label: str) -> SoftwareKey:
        """Take a private key of `cryptography` and the certificates that came with it.  Raises ConfigurationError."""
        item = SoftwareKey(key, label, INFO)
        for der in chain:
            x509.load_der_x509_certificate(der)  # ValueError here rather than in a handshake
        with self._lock:
            known = self._keys.setdefault(item.id, item)
            if chain:
                uri = object_uri(INFO, "cert", label, item.id)
                self._certificates[item.id] = TokenCertificate(chain[0], label, item.id, uri, INFO)
        return known

    def find_keys(self, pins: PinProvider | None = None, label: str | None = None, id: bytes | None = None) -> list[PrivateKey]:
        with self._lock:
            return [key for key in self._keys.values() if label in (None, key.label) and id in (None, key.id)]

    def public_names(self) -> list[tuple[str, bytes]]:
        return [(key.label, key.id) for key in self.find_keys()]

    def certificates(self) -> list[TokenCertificate]:
        with self._lock:
            return list(self._certificates.values())

    def delete(self, item: PrivateKey | TokenCertificate) -> None:
        """Forgets it; the file it came from stays."""
        with self._lock:
            removed = (self._certificates if isinstance(item, TokenCertificate) else self._keys).pop(item.id, None)
        if removed is None:
            raise NotFound("there is no such object on the token", name="SEC_ERROR_NO_KEY", token=INFO.label)

    def initialise(self, label: str, so_pin: str | None, pin: str | None) -> NoReturn:
        raise self._read_only()

    def generate_key(self, kind: str, label: str, id: bytes = b"") -> NoReturn:
        raise self._read_only()

    def import_certificate(self, der: bytes, label: str, id: bytes) -> NoReturn:
        raise self._read_only()

    def _read_only(self) -> TokenError:
        return TokenError("the internal software token keeps nothing: use files", name="SEC_ERROR_READ_ONLY", token=INFO.label)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        for key in self._keys.values():
            key.after_fork()


class InternalSlot(Slot):
    id = 0
    description = INFO.slot
    manufacturer = INFO.manufacturer
    removable = False
    hardware = False

    def __init__(self, module: InternalModule) -> None:
        self.module = module
        self.contents = InternalToken(module.offer)

    @property
    def token(self) -> InternalToken:
        return self.contents


class InternalModule(Module):
    path = ""
    manufacturer = "nss-pk11"
    description = "internal software token"
    version = (1, 0)

    def __init__(self) -> None:
        self.offer = Offer()
        self.slot = InternalSlot(self)
        self.databases: tuple[Slot, ...] = ()

    def slots(self) -> list[Slot]:
        return [self.slot, *self.databases]

    @property
    def token(self) -> InternalToken:
        return self.slot.contents
