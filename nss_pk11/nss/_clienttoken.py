"""The token by whose key a client has proved who it is: where it goes, so does what was proved (ssl3_ClientAuthTokenPresent).

Asks slots; knows no sockets.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import NSPRError, TokenError

if TYPE_CHECKING:
    from ..slots import Slot

_LOOK_AGAIN = 1.0  # seconds until a slot is asked again, as in NSS


class ClientToken:
    """Of one handshake, and of the sessions it gave."""

    def __init__(self, slot: Slot) -> None:
        self._slot, self._token, self._asked, self._gone = slot, slot.token, time.monotonic(), False

    def ready(self) -> bool:
        """Whether it is there and, if it wants a login, logged in: else no session of its is resumed."""
        self._look()
        try:
            token = self._token
            return not self._gone and token is not None and ("CKF_LOGIN_REQUIRED" not in token.flags or token.logged_in)
        except NSPRError:
            return False

    def check(self) -> None:
        """Raises TokenError (SSL_ERROR_TOKEN_INSERTION_REMOVAL) once it was away, be it that it is back."""
        if time.monotonic() - self._asked >= _LOOK_AGAIN:
            self._look()
        if self._gone:
            raise TokenError("the client's token was removed", name="SSL_ERROR_TOKEN_INSERTION_REMOVAL")

    def _look(self) -> None:
        self._asked = time.monotonic()
        try:
            self._gone = self._gone or self._token is None or self._slot.token is not self._token
        except NSPRError:  # nor is its module
            self._gone = True
