"""Whom a command trusts that was given an NSS database: who the database says, and after it the root modules.

Asks `slots` for the database and the root modules; `certs` judges.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from cryptography.utils import CryptographyDeprecationWarning

from ..certs.database import DatabaseTrust
from ..certs.stores import MemoryStore
from ..db.attributes import Attribute
from ..db.records import place
from ..errors import NSPRError, TokenError
from ..slots.tokens import PKCS11Token

if TYPE_CHECKING:
    from ..slots import SlotManager

_log = logging.getLogger(__name__)


def trust_of(manager: SlotManager) -> DatabaseTrust:
    """Good while the manager is open, and as of the moment: what others change in the database counts."""
    roots = (_root_store(token) for token in manager.tokens() if isinstance(token, PKCS11Token))
    return DatabaseTrust.of(manager.databases[0].contents.database, *(store for store in roots if store is not None))


def _root_store(token: PKCS11Token) -> MemoryStore | None:
    """What a root module says; None for any other token."""
    try:
        records = token.trust_records()
    except TokenError as error:  # a search for a class of objects that it does not know
        _log.info("trust records of token %s: %s", token.info.label, error)
        return None
    certificates: dict[bytes, str] = {}
    for item in token.certificates() if records else ():
        try:
            found = place(item.der)
        except NSPRError:  # one that does not parse helps nobody
            continue
        trust = records.get((found[Attribute.issuer], found[Attribute.serial_number]))
        if trust is not None:
            certificates[item.der] = str(trust.ssl)
    with warnings.catch_warnings():  # some old roots have the serial number 0
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return MemoryStore(certificates) if certificates else None
