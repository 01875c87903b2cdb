"""Where a PIN comes from.

A token asks with a `PinRequest`, a `PinProvider` answers.  How often it may be asked, and when never again, is decided by
`slots.login`; nothing here touches a token.
"""

from __future__ import annotations

from .provider import PinProvider, PinRequest
from .sources import callback, command, environment, file, parse, password_file, terminal, value

__all__ = [
    "PinProvider",
    "PinRequest",
    "callback",
    "command",
    "environment",
    "file",
    "parse",
    "password_file",
    "terminal",
    "value",
]
