"""KEA, the key exchange of FORTEZZA cards (NIST, SKIPJACK and KEA Algorithm Specifications, version 2.0, 1998), and its keys.

Diffie-Hellman twice, once with a key that stays and once with a random number, and Skipjack over the sum.  Both sides must be
of one domain (p, q, g), which certificates only name (RFC 2528).  Keys have the methods that the keys of `cryptography`
have, as far as tokens ask for them.  Knows no token and no mechanism; uses `skipjack`.

    initiator: own x, random r;  t = Y_b^r, u = R_b^x          recipient: own x, random r;  t = Y_a^r, u = R_a^x
    in mail there is no R_b: the recipient's Y stands for it, and its x for its r
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha1
from typing import Any

from .skipjack import KEY, Skipjack, wrap_bare

P_BITS, Q_BITS = 1024, 160
LENGTH = P_BITS // 8  # bytes of p, g, Y and R
X_LENGTH = Q_BITS // 8
RANDOM_SLOTS = 20  # random numbers that a card remembers
_PAD = bytes.fromhex("72f1a87e92824198ab0b")
_OID = bytes.fromhex("0609 6086480165 02010116")  # 2.16.840.1.101.2.1.1.22, id-keyExchangeAlgorithm


@dataclass(frozen=True)
class Domain:
    """The numbers that all who agree on keys share.  Raises ValueError for those that are none of KEA's size."""

    p: int
    q: int
    g: int

    def __post_init__(self) -> None:
        if self.p.bit_length() != P_BITS or self.q.bit_length() != Q_BITS or not self.contains(self.g):
            raise ValueError("no domain of KEA")

    def contains(self, value: int) -> bool:
        """Whether a public value may be one: in the subgroup, and not 1."""
        return 1 < value < self.p and pow(value, self.q, self.p) == 1

    @cached_property
    def identifier(self) -> bytes:
        """10 bytes that name the domain in certificates: the hash of Dss-Parms, folded (RFC 2528 section 3.1.1)."""
        digest = sha1(der(0x30, b"".join(_integer(each) for each in (self.p, self.q, self.g)))).digest()
        return bytes(a ^ b for a, b in zip(digest[:10], digest[10:], strict=True))

    def generate(self) -> KeaPrivateKey:
        """A new key."""
        return KeaPrivateKey(self, 1 + secrets.randbelow(self.q - 1))


@dataclass(frozen=True)
class KeaPublicKey:
    """Y, or R.  Raises ValueError where it is not in the subgroup."""

    domain: Domain
    y: int

    def __post_init__(self) -> None:
        if not self.domain.contains(self.y):
            raise ValueError("no public value of this domain")

    @property
    def key_size(self) -> int:
        return P_BITS

    def to_bytes(self) -> bytes:
        """128 bytes, big-endian: how certificates, messages and mechanism parameters carry it."""
        return self.y.to_bytes(LENGTH, "big")

    def public_bytes(self, encoding: Any = None, format: Any = None) -> bytes:
        """SubjectPublicKeyInfo in DER, whatever is asked for (RFC 2528 section 3.1)."""
        algorithm = der(0x30, _OID + der(4, self.domain.identifier))
        return der(0x30, algorithm + der(3, b"\0" + self.to_bytes()))


@dataclass(frozen=True)
class KeaPrivateKey:
    """x, and the random numbers that its card made for it and still remembers: `randoms` has (r, R) each, the oldest first."""

    domain: Domain
    x: int = field(repr=False)
    randoms: deque[tuple[int, int]] = field(
        default_factory=lambda: deque(maxlen=RANDOM_SLOTS), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not 0 < self.x < self.domain.q:
            raise ValueError("no private value of this domain")

    @property
    def key_size(self) -> int:
        return P_BITS

    def public_key(self) -> KeaPublicKey:
        return KeaPublicKey(self.domain, pow(self.domain.g, self.x, self.domain.p))

    def new_random(self) -> KeaPublicKey:
        """R of a new random number, whose r is remembered, in place of the oldest where there are too many."""
        made = self.domain.generate()
        public = made.public_key()
        self.randoms.append((made.x, public.y))
        return public

    def take_random(self, public: int) -> int | None:
        """r of an R that was made here and is still remembered; then it is no longer: no number serves twice."""
        found = next((each for each in list(self.randoms) if each[1] == public), None)
        if found is None:
            return None
        self.randoms.remove(found)
        return found[0]

    def agree(self, own_random: int, peer: KeaPublicKey, peer_random: KeaPublicKey) -> bytes:
        """The key of 10 bytes that both sides arrive at, the TEK.

        `own_random`: r; in mail, of the recipient, x.  `peer_random`: R; in mail, of the recipient, Y.
        Raises ValueError where the numbers of the two sides are of different domains.
        """
        if peer.domain != self.domain or peer_random.domain != self.domain:
            raise ValueError("the other key is of another domain")
        p = self.domain.p
        # Never zero: the subgroup is of odd order, so it holds no value together with its negative.
        shared = ((pow(peer.y, own_random, p) + pow(peer_random.y, self.x, p)) % p).to_bytes(LENGTH, "big")
        return final_stage(shared[:KEY], shared[KEY : 2 * KEY])


def final_stage(v1: bytes, v2: bytes) -> bytes:
    """From the first 20 bytes of the sum to a key of 10: v2 wrapped under v1."""
    return wrap_bare(Skipjack(bytes(a ^ b for a, b in zip(v1, _PAD, strict=True))), v2)


# --- DER -------------------------------------------------------------------------------------------------------------


def der(tag: int, content: bytes) -> bytes:
    """One value: tag, length, content."""
    length = len(content)
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big") if length > 0x7F else b""
    return bytes((tag, 0x80 | len(octets) if octets else length)) + octets + content


def _integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


# --- domains for tests -----------------------------------------------------------------------------------------------

# Two, made with FIPS 186 parameters of 1024 and 160 bits: cards of one understand each other, and not those of the other.
DOMAINS = {
    "kea": Domain(
        p=int(
            "8f10e86749c97c82548701531b86c365582b7addc79b1f49f84222a0221a3f90a0a78c262fda468302716da3aa6ed7e9"
            "f7da7cba2c16b99dda58b6a094c93664eae6bac306453a2c33155dcee220ecd09d4247d9b82262ce21f77ddc67e41a4c"
            "9948ed46cb84c50f05e5d39059f21a2021e42a1756242196f0240b597030e6a7",
            16,
        ),
        q=int("b21c6664620d04610d7c7abfc69063528791aebd", 16),
        g=int(
            "4f87795ca3da4e61cd04d110067589afa6e0250b513641ca9650a1889c7d749b88a9efe97fa4e90aabd69d233721e2fa"
            "c47bc8372079838a67c8f7f54bb9c9814b04d8a484c7f51bfe0d06c24fe43ff4a4e546f7b07f3e8e428d314f35ae2387"
            "7306c435ef28ea9ea03c472e241495b156f35fe8ae2234b82520f3e572248b8",
            16,
        ),
    ),
    "kea_other": Domain(
        p=int(
            "a8c7a6152e601dfdb1c28c1c4d0df08e907a0adf852a6d2158421f0c1fcd006094bd69bbaacbf7aab46af0962dc541ad"
            "d786b8f7454eb3e8377bd43ccea28f6c91444c994c7f3988647f2c5dab0e7e678d08b0db2b0d169dbc0dd9b11c76f22a"
            "9f17b1e85e35f6a9682574f26d2fc19657daba412c27c8c87ec3b06c39edc1f3",
            16,
        ),
        q=int("beb950ff63b26382312552e4ed394ac80324d007", 16),
        g=int(
            "2ed84ddd9fc0bc3b0642a8a7b69a232083e1237b7a0cb51ded06b707d6d1ec610fb36f79c6c62dd5e670dce9d54d4ca6"
            "8dd32c18e7546ec2193858a65b7ca25e3b291846a03bdc37972c5adfac8003ee3bd395e24cdb4de4785ee787f046bc6b"
            "5855bc29d2efff24c3658791db8b681ca4315229ce605953669d32193be1ab77",
            16,
        ),
    ),
}
