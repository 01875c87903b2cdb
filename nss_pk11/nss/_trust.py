"""Where the NSS API's verification looks: the database first, then the root modules, then what else lies on tokens."""

from __future__ import annotations

import logging
import warnings

from cryptography.utils import CryptographyDeprecationWarning

from ..certs.nss import TrustStore
from ..certs.stores import DatabaseStore, JoinedStore, MemoryStore
from ..db import Trust
from ..db.attributes import Attribute
from ..db.records import place
from ..errors import NSPRError, TokenError
from ..slots import Slot
from ..slots.tokens import PKCS11Token
from ._objects import lying_on
from ._slots import usable_slots
from ._state import state
from .types import CERTCertificate

_log = logging.getLogger(__name__)


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
        found = _records(slot).get(_place(cert.derCert))
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
    records = _records(slot)
    certificates: dict[bytes, str] = {}
    for item in lying_on(slot):
        try:
            trust = records.get(_place(item.der))
        except NSPRError:  # one that does not parse helps nobody
            continue
        certificates[item.der] = str(trust.ssl) if trust else ""
    with warnings.catch_warnings():  # some old roots have the serial number 0
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        made = MemoryStore(certificates)
    if slot in state.root_records:
        state.roots[slot] = made
    return made


def _records(slot: Slot) -> dict[tuple[bytes, bytes], Trust]:
    """What a token says of certificates; a root module is asked once."""
    token = slot.token
    if not isinstance(token, PKCS11Token):
        return {}
    kept = state.root_records.get(slot)
    if kept is not None:
        return kept
    try:
        records = token.trust_records()
        if records and "CKF_WRITE_PROTECTED" in token.flags:
            state.root_records[slot] = records
        return records
    except TokenError as error:  # a search for a class of objects that it does not know
        _log.info("trust records of token %s: %s", token.info.label, error)
        return {}


def _place(der: bytes) -> tuple[bytes, bytes]:
    found = place(der)
    return found[Attribute.issuer], found[Attribute.serial_number]
