"""Error numbers of the library below SSL (secerr.h): `secerr.SEC_ERROR_BUSY` is -8053, as PR_GetError gives it."""

from __future__ import annotations

from ..errors import error_number

SEC_ERROR_BASE = -0x2000
SEC_ERROR_LIMIT = SEC_ERROR_BASE + 1000


def IS_SEC_ERROR(code: int) -> bool:
    """Whether a number is one of SEC_ERROR_ and its kin (secerr.h)."""
    return SEC_ERROR_BASE <= code < SEC_ERROR_LIMIT


def __getattr__(name: str) -> int:
    """The number of any name of secerr.h."""
    if name.startswith(("SEC_", "XP_")):
        try:
            return error_number(name)
        except KeyError:
            pass
    raise AttributeError(f"secerr.h has no {name}")
