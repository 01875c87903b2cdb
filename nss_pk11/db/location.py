"""Where a database is: the directory and the kind behind NSS's `configdir` text (`sql:/etc/pki/nssdb`, `/home/me/.pki/nssdb`).

Reads the environment (NSS_DEFAULT_DB_TYPE) and nothing else; the directory need not exist.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigurationError, DatabaseError

_KINDS = ("sql", "dbm", "extern", "multiaccess")  # NSS lib/softoken/sftkpars.c, `_NSSUTIL_EvaluateConfigDir`


class Location(NamedTuple):
    """A database directory.  `str()` gives the text that NSS tools take after `-d`."""

    directory: Path
    kind: str = "sql"

    def __str__(self) -> str:
        return f"{self.kind}:{self.directory}"


def parse(text: str | os.PathLike[str] | Location) -> Location:
    """The location that `text` names: `sql:DIR`, or DIR alone, which is `sql:` unless NSS_DEFAULT_DB_TYPE says otherwise.

    Raises DatabaseError (SEC_ERROR_LEGACY_DATABASE) for the other kinds of NSS, with the way to convert;
    ConfigurationError for no directory at all.
    """
    if isinstance(text, Location):
        kind, directory = text.kind, str(text.directory)
    else:
        path = os.fspath(text)
        kind, colon, rest = path.partition(":")
        kind, directory = (kind, rest) if colon and kind in _KINDS else (os.environ.get("NSS_DEFAULT_DB_TYPE", "sql"), path)
    if not directory:
        raise ConfigurationError("no database directory given")
    if kind == "dbm":
        raise DatabaseError(
            f"{directory} is asked for as a Berkeley database (cert8.db, key3.db), which NSS itself no longer reads by default; "
            f"convert it once with: certutil --upgrade-merge --source-dir dbm:{directory} -d sql:NEW --upgrade-id old",
            name="SEC_ERROR_LEGACY_DATABASE",
        )
    if kind != "sql":
        raise DatabaseError(
            f"databases of the kind {kind!r} are not supported, only sql: (cert9.db)", name="SEC_ERROR_LEGACY_DATABASE"
        )
    return Location(Path(directory), kind)
