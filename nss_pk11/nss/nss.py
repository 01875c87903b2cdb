"""Opening the databases and shutting down (nss.h).

`configdir` is a directory of cert9.db, key4.db and pkcs11.txt, with or without `sql:` before it.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import version

from ..db import modules
from ..db.location import parse
from ..errors import ConfigurationError, DatabaseError, NSPRError
from ..slots import SlotManager
from ._state import state
from .prerror import sets_error

__all__ = [
    "NSS_INIT_COOPERATE",
    "NSS_INIT_FORCEOPEN",
    "NSS_INIT_NOCERTDB",
    "NSS_INIT_NOMODDB",
    "NSS_INIT_NOPK11FINALIZE",
    "NSS_INIT_NOROOTINIT",
    "NSS_INIT_OPTIMIZESPACE",
    "NSS_INIT_PK11RELOAD",
    "NSS_INIT_PK11THREADSAFE",
    "NSS_INIT_READONLY",
    "NSS_INIT_RESERVED",
    "SECMOD_DB",
    "NSS_GetVersion",
    "NSS_Init",
    "NSS_InitReadWrite",
    "NSS_Initialize",
    "NSS_IsInitialized",
    "NSS_NoDB_Init",
    "NSS_Shutdown",
    "NSS_VersionCheck",
]

NSS_INIT_READONLY = 0x1
NSS_INIT_NOCERTDB = 0x2
NSS_INIT_NOMODDB = 0x4
NSS_INIT_FORCEOPEN = 0x8
NSS_INIT_NOROOTINIT = 0x10
NSS_INIT_OPTIMIZESPACE = 0x20
NSS_INIT_PK11THREADSAFE = 0x40
NSS_INIT_PK11RELOAD = 0x80
NSS_INIT_NOPK11FINALIZE = 0x100
NSS_INIT_RESERVED = 0x200
NSS_INIT_COOPERATE = NSS_INIT_PK11THREADSAFE | NSS_INIT_PK11RELOAD | NSS_INIT_NOPK11FINALIZE | NSS_INIT_RESERVED

SECMOD_DB = "secmod.db"  # the name that C programs give; of a directory of cert9.db it means pkcs11.txt

_LIKE_VERSION = (3, 124)  # of NSS, whose interface this is


def NSS_Init(configdir: str) -> None:
    """Open the databases for reading (nss.h).  A second call does nothing, and keeps the first databases.

    Raises NSPRError: SEC_ERROR_BAD_DATABASE (missing, damaged), SEC_ERROR_LEGACY_DATABASE (cert8.db), and what a module that the
    list calls critical fails with.
    """
    NSS_Initialize(configdir, "", "", SECMOD_DB, NSS_INIT_READONLY | NSS_INIT_OPTIMIZESPACE)


def NSS_InitReadWrite(configdir: str) -> None:
    """Open the databases for changes too; what is missing is made (nss.h).  Raises as `NSS_Init`, and SEC_ERROR_READ_ONLY."""
    NSS_Initialize(configdir, "", "", SECMOD_DB, NSS_INIT_OPTIMIZESPACE)


def NSS_NoDB_Init(configdir: str | None = None) -> None:
    """Begin with no database and the internal module alone; the argument is reserved (nss.h)."""
    flags = NSS_INIT_READONLY | NSS_INIT_NOCERTDB | NSS_INIT_NOMODDB | NSS_INIT_FORCEOPEN | NSS_INIT_NOROOTINIT
    NSS_Initialize("", "", "", "", flags | NSS_INIT_OPTIMIZESPACE)


@sets_error
def NSS_Initialize(configdir: str, certPrefix: str, keyPrefix: str, secmodName: str, flags: int) -> None:
    """The general form (nss.h).

    `certPrefix`, `keyPrefix`: before the names of the files.  `secmodName`: "" or SECMOD_DB.  `flags`: NSS_INIT_READONLY;
    NSS_INIT_NOCERTDB, no databases; NSS_INIT_NOMODDB, no module list; NSS_INIT_FORCEOPEN, go on without databases that cannot be
    opened; NSS_INIT_NOROOTINIT, no libnssckbi.so.  The others mean nothing here.

    Differs: libnssckbi.so is looked for where the system has it too, not in `configdir` alone.
    Raises as `NSS_Init`; ConfigurationError (SEC_ERROR_INVALID_ARGS) for another module list.
    """
    if secmodName not in ("", SECMOD_DB, modules.FILE):
        raise ConfigurationError(f"the module list of a database directory is {modules.FILE}; {secmodName!r} cannot be one")
    with state.lock:
        if state.initialised:
            return
        manager = SlotManager()
        try:
            if not flags & NSS_INIT_NOCERTDB:
                _open(manager, configdir, certPrefix, keyPrefix, flags)
        except BaseException:
            manager.close()
            raise
        state.begin(manager)
        if manager.database is not None and not flags & NSS_INIT_NOMODDB:
            state.read_entries(manager.database.directory / modules.FILE)


def _open(manager: SlotManager, configdir: str, certPrefix: str, keyPrefix: str, flags: int) -> None:
    try:
        os.stat(f"{parse(configdir).directory}/")  # that of a directory
        manager.open_database(
            configdir,
            read_only=bool(flags & NSS_INIT_READONLY),
            cert_prefix=certPrefix,
            key_prefix=keyPrefix,
            load_modules=not flags & NSS_INIT_NOMODDB,
            load_roots=not flags & NSS_INIT_NOROOTINIT,
        )
    except OSError as error:
        if not flags & NSS_INIT_FORCEOPEN:
            raise DatabaseError(f"{configdir}: {error.strerror}") from None
    except DatabaseError:
        if not flags & NSS_INIT_FORCEOPEN:
            raise


def NSS_IsInitialized() -> bool:
    """Whether the databases are open (nss.h)."""
    return state.initialised


@sets_error
def NSS_Shutdown() -> None:
    """Close the databases and let the modules go; keys are forgotten (nss.h).

    Raises NSPRError: SEC_ERROR_NOT_INITIALIZED; SEC_ERROR_BUSY while certificates, keys, slots or modules, or sessions of the
    cache that SSL_ClearSessionCache empties, are still held.  Differs: C shuts down half-way then, and leaves the objects
    dangling; here everything stays open, and the call may be made again once they are given back.
    """
    with state.lock:
        if not state.initialised:
            raise NSPRError("NSS_Init was not called", name="SEC_ERROR_NOT_INITIALIZED")
        held = sorted(repr(item) for item in state.held())
        if held:
            more = f" and {len(held) - 5} more" if len(held) > 5 else ""
            raise NSPRError(f"still held: {', '.join(held[:5])}{more}", name="SEC_ERROR_BUSY")
        state.end()


def NSS_GetVersion() -> str:
    """The version of this package (nss.h), where C gives NSS's."""
    return version("nss-pk11")


def NSS_VersionCheck(importedVersion: str) -> bool:
    """Whether a program written for this version of NSS ("3.10", "3.12.4") finds what it needs (nss.h)."""
    match = re.match(r"(\d+)(?:\.(\d+))?", importedVersion)
    return (
        match is not None and (wanted := (int(match[1]), int(match[2] or 0)))[0] == _LIKE_VERSION[0] and wanted <= _LIKE_VERSION
    )
