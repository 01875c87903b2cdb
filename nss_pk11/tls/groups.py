"""Key agreement over every named group: a share out, a share in, one shared secret (RFC 8446 section 4.2.8 and 7.4).

Ephemeral keys live in software; nothing here touches a token.  One class per family, one table.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import IllegalParameter
from . import ffdhe
from .codepoints import Group


class KeyShare(Protocol):
    """An ephemeral key of ours.  `public` is what goes into key_share or a key exchange message."""

    public: bytes

    def agree(self, peer: bytes) -> bytes:
        """The shared secret with the peer's share (as initiator).  Raises IllegalParameter on a share that is no good."""


_MALFORMED_EC = "SSL_ERROR_RX_MALFORMED_ECDHE_KEY_SHARE"


class MontgomeryShare:
    """X25519 and X448 (RFC 7748).  An all-zero secret is refused, as the library does (RFC 8446 section 7.4.2)."""

    __slots__ = ("_private", "_public_type", "public")

    _families: ClassVar[dict[Group, tuple[Any, Any]]] = {
        Group.x25519: (X25519PrivateKey, X25519PublicKey),
        Group.x448: (X448PrivateKey, X448PublicKey),
    }

    def __init__(self, group: Group) -> None:
        private_type, self._public_type = self._families[group]
        self._private = private_type.generate()
        self.public: bytes = self._private.public_key().public_bytes_raw()

    def agree(self, peer: bytes) -> bytes:
        try:
            secret: bytes = self._private.exchange(self._public_type.from_public_bytes(peer))
        except ValueError:
            raise IllegalParameter("key share is not a usable point", name=_MALFORMED_EC) from None
        return secret


class WeierstrassShare:
    """The NIST curves, uncompressed points only (RFC 8446 section 4.2.8.2).  The library checks that a point is on its curve."""

    __slots__ = ("_curve", "_private", "public")

    _curves: ClassVar[dict[Group, ec.EllipticCurve]] = {
        Group.secp256r1: ec.SECP256R1(),
        Group.secp384r1: ec.SECP384R1(),
        Group.secp521r1: ec.SECP521R1(),
    }

    def __init__(self, group: Group) -> None:
        self._curve = self._curves[group]
        self._private = ec.generate_private_key(self._curve)
        self.public = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def agree(self, peer: bytes) -> bytes:
        if peer[:1] != b"\x04":
            raise IllegalParameter("key share is not an uncompressed point", name=_MALFORMED_EC)
        try:
            return self._private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(self._curve, peer))
        except ValueError:
            raise IllegalParameter("key share is not a point on its curve", name=_MALFORMED_EC) from None


class FiniteFieldShare:
    """RFC 7919 groups; secret and share are padded to the prime's length (RFC 8446 section 7.4.1)."""

    __slots__ = ("_group", "_private", "public")

    def __init__(self, group: Group) -> None:
        self._group = group
        self._private = ffdhe.generate(group)
        self.public = ffdhe.public_bytes(self._private)

    def agree(self, peer: bytes) -> bytes:
        return ffdhe.agree(self._group, self._private, peer)


class HybridShare:
    """X25519MLKEM768: ML-KEM's half comes first, in the share and in the secret (draft-ietf-tls-ecdhe-mlkem section 3)."""

    __slots__ = ("_kem", "_x25519", "public")

    _CIPHERTEXT = 1088
    ENCAPSULATION_KEY = 1184

    def __init__(self, group: Group) -> None:
        self._kem = MLKEM768PrivateKey.generate()
        self._x25519 = MontgomeryShare(Group.x25519)
        self.public = self._kem.public_key().public_bytes_raw() + self._x25519.public

    def agree(self, peer: bytes) -> bytes:
        if len(peer) != self._CIPHERTEXT + 32:
            raise IllegalParameter(f"hybrid key share of {len(peer)} bytes", name="SSL_ERROR_RX_MALFORMED_HYBRID_KEY_SHARE")
        kem_secret = self._kem.decapsulate(peer[: self._CIPHERTEXT])
        return kem_secret + self._x25519.agree(peer[self._CIPHERTEXT :])


_SHARES: dict[Group, type[MontgomeryShare] | type[WeierstrassShare] | type[FiniteFieldShare] | type[HybridShare]] = {
    Group.x25519: MontgomeryShare,
    Group.x448: MontgomeryShare,
    Group.secp256r1: WeierstrassShare,
    Group.secp384r1: WeierstrassShare,
    Group.secp521r1: WeierstrassShare,
    Group.ffdhe2048: FiniteFieldShare,
    Group.ffdhe3072: FiniteFieldShare,
    Group.ffdhe4096: FiniteFieldShare,
    Group.ffdhe6144: FiniteFieldShare,
    Group.ffdhe8192: FiniteFieldShare,
    Group.X25519MLKEM768: HybridShare,
}


def new_share(group: Group) -> KeyShare:
    """A fresh ephemeral key of `group`, to be sent first."""
    return _SHARES[group](group)


def respond(group: Group, peer: bytes) -> tuple[bytes, bytes]:
    """Answer a share: (our share, shared secret).  Raises IllegalParameter on a share that is no good."""
    if group is not Group.X25519MLKEM768:
        share = _SHARES[group](group)
        return share.public, share.agree(peer)
    size = HybridShare.ENCAPSULATION_KEY
    if len(peer) != size + 32:
        raise IllegalParameter(f"hybrid key share of {len(peer)} bytes", name="SSL_ERROR_RX_MALFORMED_HYBRID_KEY_SHARE")
    try:
        kem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(peer[:size]).encapsulate()
    except ValueError:
        raise IllegalParameter("no ML-KEM encapsulation key", name="SSL_ERROR_RX_MALFORMED_HYBRID_KEY_SHARE") from None
    x25519 = MontgomeryShare(Group.x25519)
    return ciphertext + x25519.public, kem_secret + x25519.agree(peer[size:])


TLS12_CURVES = frozenset({Group.secp256r1, Group.secp384r1, Group.secp521r1, Group.x25519, Group.x448})
FINITE_FIELDS = frozenset(ffdhe.PRIMES)
