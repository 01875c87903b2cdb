"""Where the NSS API's verification looks: the database first, then the root modules, then what else lies on tokens."""

from __future__ import annotations

from ..certs.nss import TrustStore
from ..certs.stores import DatabaseStore, JoinedStore, MemoryStore
from ..db import Trust
from ..net.roots import Place, place_of, store_of, trust_records
from ..slots import Slot
from ._objects import lying_on
from ._slots import usable_slots
from ._state import state
from .types import CERTCertificate


def store() -> TrustStore:
    """As of now."""
    database = state.database
    ours: list[TrustStore] = [] if database is None else [DatabaseStore(database)]
    return JoinedStore(*ours, *(_token_store(slot) for slot in usable_slots() if slot.module.path))


def trust_of(cert: CERTCertificate) -> Trust:
    """What the database says, else the first root module that says anything."""
    database = state.database
    said = Trust() if database is None else database.trust(cert.derCert)
    if any(said):
        return said
    for slot in usable_slots():
        found = _records(slot).get(place_of(cert.derCert))
        if found is not None:
            return found
    return said


def _token_store(slot: Slot) -> MemoryStore:
    """The certificates of a token; what its trust records say of them if it is a root module's, else nothing.

    Such a module is what its library is, so its certificates are read once.
    """
    kept = state.roots.get(slot)
    if kept is not None:
        return kept
    made = store_of(lying_on(slot), _records(slot))
    if slot in state.root_records:
        state.roots[slot] = made
    return made


def _records(slot: Slot) -> dict[Place, Trust]:
    """What a token says of certificates; a root module is asked once."""
    kept = state.root_records.get(slot)
    if kept is not None:
        return kept
    token = slot.token
    records = trust_records(token)
    if token is not None and records and "CKF_WRITE_PROTECTED" in token.flags:
        state.root_records[slot] = records
    return records
