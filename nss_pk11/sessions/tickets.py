"""Ticket keys: seal session state so that only this server, or its siblings, can open it again (RFC 5077 section 4).

A ticket is name (16 bytes) || nonce (12) || AES-256-GCM(key, nonce, expiry (8) || state, additional data: name).  The name is
derived from the key: it tells nothing and needs no agreement.  The expiry, seconds since 1970, is inside the seal.

Time is cut into epochs of `rotate_every` seconds.  The current epoch's key seals; it and those of the epochs before, as far
back as a ticket can live, open.  A key is either drawn at random and forgotten when its epoch is past, or derived from a
secret and the epoch's number, so that processes which share the secret agree without talking.  The first gives past
connections forward secrecy; the second gives it only as far as the secret is kept.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from ..errors import ConfigurationError

MAX_LIFETIME = 604800  # seven days (RFC 8446 section 4.6.1), seconds
MIN_SECRET = 32  # bytes
MAX_EPOCHS = 100  # keys kept at once: a ticket's lifetime over `rotate_every`

_NAME, _NONCE, _EXPIRY, _KEY = 16, 12, 8, 32


class _Key:
    """One epoch's key and its name, both from `material` (32 bytes)."""

    __slots__ = ("aead", "name")

    def __init__(self, material: bytes) -> None:
        expanded = HKDFExpand(SHA256(), _KEY + _NAME, b"nss-pk11 ticket key").derive(material)
        self.aead, self.name = AESGCM(expanded[:_KEY]), expanded[_KEY:]


class _Ring(NamedTuple):
    """The keys in use during one epoch; replaced whole, so that it can be read without a lock."""

    epoch: int
    keys: dict[int, _Key]
    by_name: dict[bytes, _Key]


class TicketKeys:
    """Seals and opens tickets with rotating keys; thread-safe.  Fits `tls.config.Tickets`.

    `lifetime`: seconds a ticket is good; `rotate_every`: seconds between keys; `secret`: see `from_secret`; `clock`: seconds
    since 1970; `random`: that many random bytes.  Raises ConfigurationError for figures out of range.
    """

    def __init__(
        self,
        lifetime: int = 7200,
        rotate_every: int = 3600,
        *,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if not 1 <= lifetime <= MAX_LIFETIME:
            raise ConfigurationError(f"ticket lifetime must be 1 to {MAX_LIFETIME} seconds (RFC 8446 section 4.6.1)")
        if rotate_every < 1 or lifetime > rotate_every * MAX_EPOCHS:
            raise ConfigurationError(f"ticket keys must rotate at most {MAX_EPOCHS} times in a ticket's lifetime")
        if secret is not None and len(secret) < MIN_SECRET:
            raise ConfigurationError(f"a ticket secret needs at least {MIN_SECRET} random bytes")
        self._lifetime, self._rotate_every = lifetime, rotate_every
        self._secret, self._clock, self._random = secret, clock, random
        self._lock = threading.Lock()
        self._ring = _Ring(-1, {}, {})

    @classmethod
    def from_secret(
        cls,
        secret: bytes,
        lifetime: int = 7200,
        rotate_every: int = 3600,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> TicketKeys:
        """Keys that every process with this secret (32 random bytes at least) and `rotate_every` agrees on."""
        return cls(lifetime, rotate_every, secret=secret, clock=clock, random=random)

    @property
    def lifetime(self) -> int:
        """Seconds a new ticket is good."""
        return self._lifetime

    def seal(self, state: bytes) -> bytes:
        """A ticket for `state`, good for `lifetime` seconds from now."""
        now = self._clock()
        ring = self._current(now)
        key, nonce = ring.keys[ring.epoch], self._random(_NONCE)
        expiry = int(now + self._lifetime).to_bytes(_EXPIRY, "big")
        return key.name + nonce + key.aead.encrypt(nonce, expiry + state, key.name)

    def unseal(self, ticket: bytes) -> bytes | None:
        """The state in `ticket`, None where it is not ours, damaged or too old."""
        now = self._clock()
        name, nonce, sealed = ticket[:_NAME], ticket[_NAME : _NAME + _NONCE], ticket[_NAME + _NONCE :]
        key = self._current(now).by_name.get(name)
        if key is None:
            return None
        try:
            opened = key.aead.decrypt(nonce, sealed, name)
        except (InvalidTag, ValueError):  # ValueError: cut off within the nonce
            return None
        left = int.from_bytes(opened[:_EXPIRY], "big") - now
        return opened[_EXPIRY:] if 0 < left <= self._lifetime + self._rotate_every else None  # more: the clock was set back

    def _current(self, now: float) -> _Ring:
        epoch = int(now // self._rotate_every)
        if self._ring.epoch != epoch:
            with self._lock:
                if self._ring.epoch != epoch:
                    self._ring = self._turn(epoch)
        return self._ring

    def _turn(self, epoch: int) -> _Ring:
        """The ring for `epoch`: its own key, and those whose tickets may still live."""
        oldest = epoch + -self._lifetime // self._rotate_every
        if self._secret is None:
            # Newer keys stay too: another thread, with a later look at the clock, may have turned the ring first.
            keys = {number: key for number, key in self._ring.keys.items() if number >= oldest}
            if epoch not in keys:
                keys[epoch] = _Key(self._random(_KEY))
        else:
            # One ahead: a sibling whose clock runs a little fast may seal with it already.
            keys = {number: _Key(_derive(self._secret, number)) for number in range(oldest, epoch + 2)}
        return _Ring(epoch, keys, {key.name: key for key in keys.values()})


def _derive(secret: bytes, epoch: int) -> bytes:
    return HKDF(SHA256(), _KEY, None, b"nss-pk11 ticket epoch" + epoch.to_bytes(8, "big", signed=True)).derive(secret)
