"""Everything that tokens can compute: one table, MECHANISMS, CKM number to `Capability`.

C_GetMechanismList, C_GetMechanismInfo and every operation read it; a personality says which rows a token offers.  The
cryptography is `cryptography`'s, but for what only FORTEZZA cards do.  A card with mechanisms of its own adds a file here and
its CAPABILITIES below.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from ..abi import CKM
from . import curves, digests, dsa, fortezza, mldsa, rsa, secret
from .capability import Capability, Transformation, Verification

if TYPE_CHECKING:
    from ..personalities import Personality

__all__ = ["MECHANISMS", "Capability", "Transformation", "Verification", "offered", "sizes"]

_ROOMS = (digests, rsa, dsa, curves, mldsa, secret, fortezza)
MECHANISMS: dict[int, Capability] = {capability.mechanism: capability for room in _ROOMS for capability in room.CAPABILITIES}


# What a token may list all the same, as real ones do: it is good for nothing, each use is CKR_MECHANISM_INVALID.
_ONLY_LISTED = [Capability(mechanism=mechanism) for mechanism in CKM if mechanism not in MECHANISMS]


@lru_cache
def offered(names: tuple[str, ...]) -> Mapping[int, Capability]:
    """The rows with these CKM_ names, in the order of the names; a name without a row has one that can do nothing."""
    by_name = {capability.name: capability for capability in (*MECHANISMS.values(), *_ONLY_LISTED)}
    return {by_name[name].mechanism: by_name[name] for name in names if name in by_name}


def sizes(personality: Personality, capability: Capability) -> tuple[int, int]:
    """The smallest and the largest key that a token takes with a mechanism, as C_GetMechanismInfo tells them."""
    return personality.key_sizes.get(capability.name, capability.sizes)
