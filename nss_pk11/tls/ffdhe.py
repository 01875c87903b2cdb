"""The finite-field Diffie-Hellman groups of RFC 7919: their primes, and agreement over them.

The primes are computed from the RFC's own formula (appendix A) rather than copied:
p = 2^b - 2^(b-64) + {[2^(b-130) e] + X} 2^64 - 1.  That takes a millisecond for all of them and leaves nothing to
mistype.  The arithmetic on secrets is the library's, in constant time; OpenSSL knows these groups
and draws the short exponents of RFC 7919 section 5.2 for them.

May import `errors` and `codepoints`; knows nothing of messages or the key schedule.
"""

from __future__ import annotations

import warnings

from ..errors import IllegalParameter
from .codepoints import Group

# The library announces the end of its finite-field support wherever these names are first touched: once, here, and not aloud.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cryptography.hazmat.primitives.asymmetric.dh import DHParameterNumbers, DHPrivateKey, DHPublicNumbers

GENERATOR = 2

# Group -> length of the prime in bits, and the X of its formula: the smallest that makes p a safe prime (RFC 7919 appendix A).
_DEFINITIONS: dict[Group, tuple[int, int]] = {
    Group.ffdhe2048: (2048, 560316),
    Group.ffdhe3072: (3072, 2625351),
    Group.ffdhe4096: (4096, 5736041),
    Group.ffdhe6144: (6144, 15705020),
    Group.ffdhe8192: (8192, 10965728),
}


def _e(bits: int) -> int:
    """[2^bits e]: Euler's number as a fixed-point integer, by its series; 64 guard bits take up the rounding of the terms."""
    total, term, k = 0, 1 << (bits + 64), 0
    while term:
        total += term
        k += 1
        term //= k
    return total >> 64


_LONGEST = max(bits for bits, _ in _DEFINITIONS.values())
_E = _e(_LONGEST - 130)

PRIMES: dict[Group, int] = {
    group: 2**bits - 2 ** (bits - 64) + (((_E >> (_LONGEST - bits)) + x) << 64) - 1 for group, (bits, x) in _DEFINITIONS.items()
}
SIZES: dict[Group, int] = {group: bits // 8 for group, (bits, _) in _DEFINITIONS.items()}  # length of p, in bytes

_NUMBERS = {group: DHParameterNumbers(p, GENERATOR) for group, p in PRIMES.items()}
_PARAMETERS = {group: numbers.parameters() for group, numbers in _NUMBERS.items()}


def generate(group: Group) -> DHPrivateKey:
    """A fresh key pair, its exponent of at least 225, 275 or 325 bits (RFC 7919 section 5.2)."""
    return _PARAMETERS[group].generate_private_key()


def public_bytes(key: DHPrivateKey) -> bytes:
    """The public value, big-endian, as long as the prime (RFC 8446 section 4.2.8.1; harmless in TLS 1.2)."""
    return key.public_key().public_numbers().y.to_bytes(key.key_size // 8, "big")


def agree(group: Group, key: DHPrivateKey, peer: bytes) -> bytes:
    """The shared secret, as long as the prime (RFC 8446 section 7.4.1); TLS 1.2 strips leading zeros (RFC 5246 section 8.1.2).

    Raises IllegalParameter for a peer value outside 1 < Y < p-1 (RFC 7919 section 5.1).
    """
    y = int.from_bytes(peer, "big")
    if len(peer) > SIZES[group] or not 1 < y < PRIMES[group] - 1:
        raise IllegalParameter(f"Diffie-Hellman public value out of range for {group.name}")
    return key.exchange(DHPublicNumbers(y, _NUMBERS[group]).public_key()).rjust(SIZES[group], b"\0")


def respond(prime: int, generator: int, peer: bytes) -> tuple[bytes, bytes]:
    """Answer a share in a group that has no name here: (our public value, shared secret), each as long as the prime.

    What the caller has not checked of the group stays unchecked.  Raises IllegalParameter where the library finds fault."""
    size = (prime.bit_length() + 7) // 8
    try:
        numbers = DHParameterNumbers(prime, generator)
        key = numbers.parameters().generate_private_key()
        secret = key.exchange(DHPublicNumbers(int.from_bytes(peer, "big"), numbers).public_key())
    except ValueError:
        raise IllegalParameter("Diffie-Hellman group or public value is no good") from None
    return key.public_key().public_numbers().y.to_bytes(size, "big"), secret.rjust(size, b"\0")
