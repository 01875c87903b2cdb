"""The functions of PKCS #11, by name: what they are called with, and a table of those there are.

A function takes a `Call` and the words of its C arguments, returns for CKR_OK and raises `Refused` for anything else.  One
module a group, as in section 5 of PKCS #11 2.40.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from ..abi import FUNCTIONS

if TYPE_CHECKING:
    from ..host import Host, Session
    from ..machine import Machine, Token
    from ..memory import Memory

Function = Callable[..., None]

_MODULES = ("general", "slots", "sessions", "objects", "operations", "states", "keys", "random")


class Call:
    """One call of a host.

    `arguments`: its words.  `token`: the one that the call is about (of the session or slot it names), if any.  `noted`: what
    the function tells the journal: names, labels, lengths; never a PIN, a key or data.
    """

    __slots__ = ("arguments", "function", "host", "machine", "memory", "noted", "token")

    def __init__(
        self, host: Host, memory: Memory, function: str, arguments: tuple[int, ...], machine: Machine, token: Token | None
    ) -> None:
        self.host = host
        self.memory = memory
        self.function = function
        self.arguments = arguments
        self.machine = machine
        self.token = token
        self.noted: dict[str, object] = {}

    def session(self, handle: int) -> Session:
        """The host's session; raises as `Host.session`."""
        return self.host.session(handle)


def _gather(modules: Iterable[ModuleType]) -> dict[str, Function]:
    return {name: function for module in modules for name, function in vars(module).items() if name in FUNCTIONS}


# What is not here answers CKR_FUNCTION_NOT_SUPPORTED.
IMPLEMENTED: dict[str, Function] = _gather(import_module(f"{__name__}.{name}") for name in _MODULES)
