"""Whom a command trusts that was given an NSS database: who the database says, and after it the root modules.

Asks `slots` for the database and the root modules; `certs` judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..certs.database import DatabaseTrust
from ..net.roots import store_of, trust_records

if TYPE_CHECKING:
    from ..slots import SlotManager


def trust_of(manager: SlotManager) -> DatabaseTrust:
    """Good while the manager is open, and as of the moment: what others change in the database counts."""
    roots = [(token, records) for token in manager.tokens() if (records := trust_records(token))]
    stores = (store_of(token.certificates(), records) for token, records in roots)
    return DatabaseTrust.of(manager.databases[0].contents.database, *stores)
