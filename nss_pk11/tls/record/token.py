"""Protection of records by a cipher that runs on a token: SKIPJACK in CBC mode on a FORTEZZA card, with a MAC made here.

As `cbc`, whose padding and MAC these records have; the key never leaves the card, and there is one call of it per record.
Touches no token itself: what encrypts is given, see `waits.TokenCipher`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import TokenError
from ..codepoints import C, Version
from ..suites import Suite
from .cbc import Cbc, Crypt

if TYPE_CHECKING:
    from ..waits import TokenCipher


class TokenCbc(Cbc):
    """One direction.  `marked`: the first record begins with a block that means nothing.  A card makes the IV that it encrypts
    with itself, so the server cannot use the one that the client chose for it: a random block goes ahead, and the client, whose
    card decrypts it with the wrong IV, drops it.
    """

    __slots__ = ("_cipher",)

    def __init__(
        self,
        suite: Suite,
        version: Version,
        cipher: TokenCipher,
        mac_key: bytes,
        *,
        marked: bool,
        split: bool = True,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._cipher = cipher
        super().__init__(suite, version, b"", mac_key, split=split, random=random)
        self._explicit = self._block if marked else 0
        self.overhead += self._explicit

    def _begin(self, suite: Suite, key: bytes, iv: bytes) -> tuple[Crypt, Crypt]:
        return self._cipher.update, self._cipher.update

    def protect(self, content_type: int, fragment: bytes) -> bytes:
        """Raises TokenError.  The alert that is to say so cannot be protected either, and is not sent."""
        try:
            return super().protect(content_type, fragment)
        except TokenError:
            if content_type != C.alert:
                raise
            return b""

    def _seal(self, content_type: int, fragment: bytes) -> bytes:
        record = super()._seal(content_type, fragment)
        self._explicit = 0
        return record

    def _decrypted(self, body: bytes | memoryview, least: int) -> bytes:
        plaintext = super()._decrypted(body, least)
        self._explicit = 0
        return plaintext
