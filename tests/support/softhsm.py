"""SoftHSM tokens, from the package of simulated ones; what is missing here skips the test, and fails it under CI=true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pk11_tokens import softhsm
from pk11_tokens.softhsm import PIN, SO_PIN, KeyOnToken, NotInstalled, TokenOnDisk

from .require import missing

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PIN", "SO_PIN", "KeyOnToken", "SoftHSM", "TokenOnDisk"]


class SoftHSM(softhsm.SoftHSM):
    """A SoftHSM of its own in `directory`."""

    def __init__(self, directory: Path) -> None:
        try:
            super().__init__(directory)
        except NotInstalled as error:
            missing(error.what)
