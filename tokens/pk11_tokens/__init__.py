"""Simulated PKCS #11 hardware: smart cards, keypads and HSMs that lock, leave, are slow and go wrong, behind a real module.

with pk11_tokens.start("card.toml") as simulator:
    ...  # load simulator.module in any host
    simulator["card"].remove()
"""

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
