"""Error numbers of SSL (sslerr.h): `sslerr.SSL_ERROR_BAD_CERT_DOMAIN` is -12276, as PR_GetError gives it."""

from __future__ import annotations

from ..errors import error_number

SSL_ERROR_BASE = -0x3000
SSL_ERROR_LIMIT = SSL_ERROR_BASE + 1000


def IS_SSL_ERROR(code: int) -> bool:
    """Whether a number is one of SSL_ERROR_ (sslerr.h)."""
    return SSL_ERROR_BASE <= code < SSL_ERROR_LIMIT


def __getattr__(name: str) -> int:
    """The number of any SSL_ERROR_ name."""
    if name.startswith("SSL_ERROR_"):
        try:
            return error_number(name)
        except KeyError:
            pass
    raise AttributeError(f"sslerr.h has no {name}")
