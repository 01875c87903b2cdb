"""A private key on a token whose password is wanted anew now and then: the check of NSS's PK11_HandlePasswordCheck before each
use.  Everything else is the key's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from ..slots import Algorithm, PrivateKey, Slot
from ._asking import EVERY_USE, asking
from ._authentication import log_in
from .types import PK11SlotInfo


def asked(key: PrivateKey, slot: Slot, wincx: object) -> PrivateKey:
    """`key`, as NSS lets it be used: `wincx` goes to the application's functions."""
    return cast("PrivateKey", _AskedKey(key, slot, wincx))


class _AskedKey:
    def __init__(self, key: PrivateKey, slot: Slot, wincx: object) -> None:
        self._key, self._slot, self._wincx = key, slot, wincx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)

    @property
    def always_authenticate(self) -> bool:
        """Said also where a use may ask somebody, so that nobody waits for that in the wrong thread."""
        return self._key.always_authenticate or asking.asks(self._slot)

    def sign(self, algorithm: Algorithm, message: bytes, *, prehashed: bool = False, patient: bool = True) -> bytes:
        with self._logged_in():
            return self._key.sign(algorithm, message, prehashed=prehashed, patient=patient)

    def decrypt(self, ciphertext: bytes, *, raw: bool = False, patient: bool = True) -> bytes | None:
        with self._logged_in():
            return self._key.decrypt(ciphertext, raw=raw, patient=patient)

    def operate(self, once: Callable[[Any, bool], Any], *, patient: bool = True) -> Any:
        """Of keys on FORTEZZA cards."""
        with self._logged_in():
            return cast("Any", self._key).operate(once, patient=patient)

    @contextmanager
    def _logged_in(self) -> Iterator[None]:
        """Where every use wants the password, uses come one after the other: a login is every thread's, and so is a logout."""
        if not asking.asks(self._slot):
            yield
        elif asking.values(self._slot).askpw == EVERY_USE:
            with asking.rules.lock:
                slot = PK11SlotInfo(self._slot)
                if asking.is_logged_in(slot, self._wincx):
                    slot.token.logout()
                log_in(slot, self._wincx)
                yield
        else:
            log_in(PK11SlotInfo(self._slot), self._wincx)
            yield

    def __repr__(self) -> str:
        return repr(self._key)
