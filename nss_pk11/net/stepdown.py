"""The process's short RSA keys as an engine's settings want them: `ServerConfig(step_down=step_down)`.

For export suites alone.  Joins `slots.internal.stepdown`, which makes the keys, to `tls.config`; no files, no sockets.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from ..slots.internal.stepdown import StepDownKeys
from ..tls.config import Identity, StepDownKey

if TYPE_CHECKING:
    from ..slots.internal.keys import SoftwareKey

_KEYS = StepDownKeys()


def step_down(bits: int) -> StepDownKey:
    """The present key of 512 or 1024 bits (RFC 2246 section 7.4.3), made when it is first asked for, which takes some 20 ms.

    Its Decrypt operations go to a `KeyExecutor` like those of any identity.  Raises ConfigurationError for another size.
    """
    return _as_settings(_KEYS.get(bits))


def renew() -> None:
    """Have new keys made for handshakes to come.  They are anyway, daily and every 500 handshakes (RFC 2246 appendix F.1.1.2)."""
    _KEYS.renew()


@lru_cache(2)
def _as_settings(key: SoftwareKey) -> StepDownKey:
    public = key.public_key
    assert isinstance(public, rsa.RSAPublicKey)  # no others are made
    numbers = public.public_numbers()
    identity = Identity(chain=(), schemes=(), key=key, can_decrypt=True, modulus_bits=key.bits)
    return StepDownKey(key.bits, numbers.n, numbers.e, identity)
