"""Everything that tokens can compute: one table, MECHANISMS, CKM number to `Capability`.

C_GetMechanismList, C_GetMechanismInfo and every operation read it; a personality says which rows a token offers.  The
cryptography is `cryptography`'s, but for what only FORTEZZA cards do.  A card with mechanisms of its own adds a file here and
its CAPABILITIES below.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from . import curves, digests, dsa, fortezza, mldsa, rsa, secret
from .capability import Capability, Transformation, Verification

__all__ = ["MECHANISMS", "Capability", "Transformation", "Verification", "offered"]

_ROOMS = (digests, rsa, dsa, curves, mldsa, secret, fortezza)
MECHANISMS: dict[int, Capability] = {capability.mechanism: capability for room in _ROOMS for capability in room.CAPABILITIES}


@lru_cache
def offered(names: tuple[str, ...]) -> Mapping[int, Capability]:
    """The rows with these CKM_ names, in the order of the names; a name that is in no row is passed over."""
    by_name = {capability.name: capability for capability in MECHANISMS.values()}
    return {by_name[name].mechanism: by_name[name] for name in names if name in by_name}
