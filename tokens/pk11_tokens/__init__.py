"""Simulated PKCS #11 hardware: smart cards, keypads and HSMs that lock, leave, are slow and go wrong, behind a real module.

    with pk11_tokens.start("card.toml") as simulator:
        ...  # load simulator.module in any host
        simulator["card"].remove()

Names are loaded when they are first used: the pytest plugin is in everybody's test runs, needed or not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .description import PIN, SO_PIN, DescriptionError
    from .personalities import PERSONALITIES, Person, Personality
    from .simulator import RunningSimulator, Simulator, TokenControl, TokenStatus, find, start

__all__ = [
    "PERSONALITIES",
    "PIN",
    "SO_PIN",
    "DescriptionError",
    "Person",
    "Personality",
    "RunningSimulator",
    "Simulator",
    "TokenControl",
    "TokenStatus",
    "find",
    "start",
]

_HOMES = {
    "description": ("PIN", "SO_PIN", "DescriptionError"),
    "personalities": ("PERSONALITIES", "Person", "Personality"),
    "simulator": ("RunningSimulator", "Simulator", "TokenControl", "TokenStatus", "find", "start"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
