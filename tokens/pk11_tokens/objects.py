"""The objects of a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .host import Host, Session


class ObjectStore:
    """What a token holds; guarded by `Token.lock`."""

    def close_session(self, session: Session) -> None:
        """The session has ended: the objects that it made for itself (CKA_TOKEN false) are gone."""

    def logout(self, host: Host) -> None:
        """Nobody is logged in any longer: the host's private session objects are gone."""

    def inserted(self) -> None:
        """The token was put into a reader: its objects get new handles."""

    def clear(self) -> None:
        """C_InitToken: nothing is left."""
