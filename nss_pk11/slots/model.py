"""What the room shows: the shapes that PKCS #11 modules and the internal software module share.

Plain data and abstract classes; no PKCS #11 call is made here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa

from .kea import KeaPublicKey

if TYPE_CHECKING:
    from ..pins import PinProvider

PublicKey = (
    rsa.RSAPublicKey
    | dsa.DSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
    | KeaPublicKey
)


class Algorithm(StrEnum):
    """What a key can be asked to sign with.  PSS: salt as long as the digest, MGF1 with the same hash.

    rsa_pkcs1_md5_sha1 is the RSA signature before TLS 1.2: MD5 and SHA-1 of the message one after the other, 36 bytes, padded as
    PKCS #1 does but without a DigestInfo (RFC 2246 section 7.4.3).
    """

    rsa_pkcs1_md5_sha1 = "rsa_pkcs1_md5_sha1"
    rsa_pkcs1_sha1 = "rsa_pkcs1_sha1"
    rsa_pkcs1_sha256 = "rsa_pkcs1_sha256"
    rsa_pkcs1_sha384 = "rsa_pkcs1_sha384"
    rsa_pkcs1_sha512 = "rsa_pkcs1_sha512"
    rsa_pss_sha256 = "rsa_pss_sha256"
    rsa_pss_sha384 = "rsa_pss_sha384"
    rsa_pss_sha512 = "rsa_pss_sha512"
    ecdsa_sha1 = "ecdsa_sha1"
    ecdsa_sha256 = "ecdsa_sha256"
    ecdsa_sha384 = "ecdsa_sha384"
    ecdsa_sha512 = "ecdsa_sha512"
    dsa_sha1 = "dsa_sha1"
    dsa_sha256 = "dsa_sha256"
    dsa_sha384 = "dsa_sha384"
    dsa_sha512 = "dsa_sha512"
    ed25519 = "ed25519"
    ed448 = "ed448"
    mldsa44 = "mldsa44"
    mldsa65 = "mldsa65"
    mldsa87 = "mldsa87"

    @property
    def hash(self) -> str:
        """hashlib's name of the hash ("sha256"), "md5_sha1" for both, or "" where the algorithm takes the whole message."""
        if self.value.endswith("_md5_sha1"):
            return "md5_sha1"
        return self.value.rpartition("_")[2] if "_sha" in self.value else ""


@dataclass(frozen=True)
class TokenInfo:
    """Which token, and where.  `slot`: the slot's description; `module`: the library's path; `hardware`: CKF_HW_SLOT."""

    label: str
    serial: str = ""
    manufacturer: str = ""
    model: str = ""
    slot: str = ""
    slot_id: int = 0
    module: str = ""
    hardware: bool = False

    @property
    def identity(self) -> tuple[str, str, str]:
        """What stays the same when the token moves to another slot: module, serial, label."""
        return self.module, self.serial, self.label


@dataclass(frozen=True)
class MechanismInfo:
    """CK_MECHANISM_INFO.  Key sizes in the unit the mechanism defines; `flags` are CKF_ names."""

    name: str
    number: int
    min_key_size: int = 0
    max_key_size: int = 0
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TokenCertificate:
    """An X.509 certificate that lies on a token."""

    der: bytes = field(repr=False)
    label: str
    id: bytes
    uri: str
    token: TokenInfo


class PrivateKey(Protocol):
    """A private key, wherever it is.  Thread-safe."""

    @property
    def label(self) -> str: ...
    @property
    def id(self) -> bytes: ...
    @property
    def uri(self) -> str:
        """RFC 7512, names this key and no other."""

    @property
    def token(self) -> TokenInfo: ...
    @property
    def kind(self) -> str:
        """ "rsa", "dsa", "ec", "ed25519", "ed448", "mldsa44", "mldsa65", "mldsa87", "kea"; other types by their
        CKK_ names."""

    @property
    def bits(self) -> int:
        """Of the modulus (RSA), the prime p (DSA) or the field (EC)."""

    @property
    def public_key(self) -> PublicKey:
        """Raises NotFound where the token shows neither a public key nor a certificate for this key."""

    @property
    def algorithms(self) -> frozenset[Algorithm]: ...
    @property
    def can_decrypt(self) -> bool: ...
    @property
    def can_decrypt_raw(self) -> bool:
        """Without taking the padding off (CKM_RSA_X_509), which only SSL 2.0 has a use for."""

    @property
    def sensitive(self) -> bool: ...
    @property
    def extractable(self) -> bool: ...
    @property
    def local(self) -> bool:
        """Generated inside the token (CKA_LOCAL)."""

    @property
    def always_authenticate(self) -> bool: ...
    @property
    def latency(self) -> float:
        """Seconds a signature takes: moving average, a guess by kind before the first."""

    @property
    def operations(self) -> int:
        """Signatures and decryptions done."""

    @property
    def parallel(self) -> int:
        """How many operations its token takes at once."""

    def mechanism(self, algorithm: Algorithm) -> str:
        """CKM_ name of what signs by `algorithm`, "" for a key in software or an algorithm it lacks."""

    def sign(self, algorithm: Algorithm, message: bytes, *, prehashed: bool = False, patient: bool = True) -> bytes:
        """Hash and sign `message`; ECDSA and DSA as DER.  Raises TokenError.

        `prehashed`: `message` is the digest already, for rsa_pkcs1_md5_sha1 the 36 bytes; whoever signs it decides what was
        hashed, as SSL 3.0 must.  A token whose only mechanism hashes by itself cannot do that.

        A key that its token has lost (removed and back, login timed out) is looked for and the signature tried once more, which
        may take long and may ask for a PIN; not `patient` means to fail at once instead, also where every session is busy.
        """

    def decrypt(self, ciphertext: bytes, *, raw: bool = False, patient: bool = True) -> bytes | None:
        """RSAES-PKCS1-v1_5.  None where the failure may depend on the ciphertext; TokenError where it cannot.

        `raw`: the whole block, padding and all, as long as the modulus (RFC 8017 section 7.2.2, EM).  Whoever asks for it must
        treat bad padding as carefully as a token should.
        """


class Token(ABC):
    """What holds keys.  Thread-safe."""

    info: TokenInfo

    @property
    @abstractmethod
    def flags(self) -> frozenset[str]:
        """CKF_ names, read anew each time.  Raises TokenError once the token has gone."""

    @abstractmethod
    def mechanisms(self) -> dict[str, MechanismInfo]:
        """By CKM_ name; unknown numbers are named CKM_0x8000ABCD."""

    @property
    @abstractmethod
    def logged_in(self) -> bool: ...

    @abstractmethod
    def login(self, pins: PinProvider | None = None) -> None:
        """Log the user in; nothing happens if that is done already or not needed.  Raises PinError, TokenError."""

    @abstractmethod
    def logout(self) -> None:
        """Log out; nothing happens if nobody is logged in.  Keys want a new login when next used."""

    @abstractmethod
    def check_pin(self, pin: str) -> None:
        """Log out, then in by this very PIN, which is not kept.  Raises PinError, TokenError."""

    @abstractmethod
    def change_pin(self, old: str, new: str) -> None:
        """Change the user's PIN.  Raises PinError, TokenError."""

    @abstractmethod
    def set_first_pin(self, so_pin: str, pin: str) -> None:
        """Set the user's PIN, as security officer.  Raises PinError, TokenError."""

    def keys(self) -> list[PrivateKey]:
        """The private keys visible now: most tokens show them only after login."""
        return list(self.find_keys())

    @abstractmethod
    def find_keys(
        self, pins: PinProvider | None = None, label: str | None = None, id: bytes | None = None
    ) -> Sequence[PrivateKey]:
        """`keys`, or those of a label and id; `pins`: who is to be asked when they are used."""

    @abstractmethod
    def public_names(self) -> list[tuple[str, bytes]]:
        """Label and id of every public key visible now: most tokens show those without login."""

    @abstractmethod
    def certificates(self) -> list[TokenCertificate]: ...

    @abstractmethod
    def initialise(self, label: str, so_pin: str, pin: str) -> Token:
        """Erase the token, name it, set both PINs; returns it anew (its slot may have another id).  Raises TokenError."""

    @abstractmethod
    def generate_key(self, kind: str, label: str, id: bytes = b"") -> PrivateKey:
        """A key pair, made inside and never to leave.  Kind: rsa2048, rsa3072, rsa4096, dsa1024, dsa2048, p256, p384, p521,
        ed25519.  An empty id means the SHA-1 of the public key's bits.  Needs login.  Raises TokenError, ConfigurationError."""

    @abstractmethod
    def import_certificate(self, der: bytes, label: str, id: bytes) -> TokenCertificate:
        """Lay a certificate beside its key (same id).  Raises TokenError, ConfigurationError."""

    @abstractmethod
    def delete(self, item: PrivateKey | TokenCertificate) -> None:
        """Destroy a key pair or a certificate.  Raises NotFound, TokenError."""


class Slot(ABC):
    """Where a token can be."""

    id: int
    description: str
    manufacturer: str
    removable: bool
    hardware: bool
    module: Module

    @property
    @abstractmethod
    def token(self) -> Token | None:
        """The token that is in it now: the same object while the same token stays."""


class Module(ABC):
    """A PKCS #11 library, or the internal one.  `path` is empty for the internal one; `version` is the library's."""

    path: str
    manufacturer: str
    description: str
    version: tuple[int, int]

    @abstractmethod
    def slots(self) -> list[Slot]:
        """The slots there are now."""
