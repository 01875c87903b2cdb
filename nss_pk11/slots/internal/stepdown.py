"""The short-lived RSA keys of export suites ("step-down" in NSS): 512 and 1024 bits, made here, kept in memory, never stored.

For legacy peers only: a 512-bit modulus is factored in hours.  An export suite demands such a key all the same wherever the
server's own is longer (RFC 2246 section 7.4.3), so it is better fresh and worthless than the certificate's.  `cryptography`
generates no modulus below 1024 bits, though it computes with one: the primes of the small one are found here.  Touches nothing.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

from cryptography.hazmat.primitives.asymmetric import rsa

from ...errors import ConfigurationError
from ..forks import prepare_for_forks
from .keys import SoftwareKey
from .module import INFO

_EXPONENT = 65537
_ROUNDS = 40  # of Miller-Rabin: FIPS 186-5 table B.1 wants 5 to 8 for primes of this size, and its bound per round is 1/4
_SMALL_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)


# How long a key is good for (RFC 2246 appendix F.1.1.2): whichever comes first.
MOST_USES = 500
LONGEST = 24 * 3600.0  # seconds


@dataclass
class _Kept:
    """`good_until`: by the clock that never runs backwards, seconds."""

    key: SoftwareKey
    good_until: float
    uses: int = 0


class StepDownKeys:
    """One key of each size, made when it is first asked for, and anew after a day or 500 handshakes.  Thread-safe.  A forked
    child makes its own.  `clock`: seconds, never backwards."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.after_fork()
        prepare_for_forks(self)

    def get(self, bits: int) -> SoftwareKey:
        """The present key of 512 or 1024 bits, for one handshake.  Raises ConfigurationError for another size."""
        if bits not in _GENERATORS:
            raise ConfigurationError(f"step-down keys have 512 or 1024 bits, not {bits}")
        with self._lock:
            kept = self._keys.get(bits)
            if kept is None or kept.uses >= MOST_USES or self._clock() >= kept.good_until:
                key = SoftwareKey(_GENERATORS[bits](), f"step-down {bits}", INFO)
                kept = self._keys[bits] = _Kept(key, self._clock() + LONGEST)
            kept.uses += 1
            return kept.key

    def renew(self) -> None:
        """Have new keys made at once.  Handshakes under way keep theirs."""
        with self._lock:
            self._keys.clear()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[int, _Kept] = {}


def _generate_512() -> rsa.RSAPrivateKey:
    """Two primes of 256 bits with both top bits set, so that their product has 512 bits."""
    p, q = _prime(256), _prime(256)
    while p == q:
        q = _prime(256)
    d = rsa.rsa_recover_private_exponent(_EXPONENT, p, q)
    public = rsa.RSAPublicNumbers(_EXPONENT, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public)
    return numbers.private_key()  # which checks them, the primes too


def _prime(bits: int) -> int:
    """A random prime p with gcd(p - 1, e) = 1 (FIPS 186-5 section A.1.3)."""
    while True:
        candidate = secrets.randbits(bits) | 3 << (bits - 2) | 1
        if all(candidate % small for small in _SMALL_PRIMES) and gcd(candidate - 1, _EXPONENT) == 1 and _is_prime(candidate):
            return candidate


def _is_prime(number: int) -> bool:
    """Miller-Rabin with random bases (FIPS 186-5 section B.3.1); `number` is odd and large."""
    twos = ((number - 1) & (1 - number)).bit_length() - 1
    odd = (number - 1) >> twos
    return all(_passes(number, secrets.randbelow(number - 3) + 2, odd, twos) for _ in range(_ROUNDS))


def _passes(number: int, base: int, odd: int, twos: int) -> bool:
    power = pow(base, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False


_GENERATORS: dict[int, Callable[[], rsa.RSAPrivateKey]] = {
    512: _generate_512,
    1024: lambda: rsa.generate_private_key(_EXPONENT, 1024),
}
