"""Random numbers (PKCS #11 2.40 section 5.14)."""

from __future__ import annotations

import os

from . import Call


def C_SeedRandom(call: Call, session: int, seed: int, length: int) -> None:
    """Taken and not needed: the operating system's generator has enough."""
    call.session(session)
    call.memory.read(seed, length)


def C_GenerateRandom(call: Call, session: int, output: int, length: int) -> None:
    call.session(session)
    call.noted["length"] = length
    call.memory.write(output, os.urandom(length))
