"""One SQLite file of PKCS #11 objects: `cert9.db` (table nssPublic) or `key4.db` (nssPrivate and metaData), raw.

Knows how NSS lays out its tables (lib/softoken/sdb.c), nothing of what the attributes mean.  A file is never trusted: it is
checked before it is used, and whatever goes wrong in it is DatabaseError.  A file opened read-only is never written to.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from ..errors import DatabaseError
from .attributes import COLUMNS, Attribute, column

_EMPTY = b"\xa5\x00\x5a"  # how a value of no bytes is kept: SQL NULL means that there is no such attribute
_COLUMN = re.compile(r"a(0|[1-9a-f][0-9a-f]{0,7})")
_WAIT = 30.0  # seconds for another process's write, as long as NSS waits
_LARGEST = 64 << 20  # bytes of one value or statement
_OBJECT_IDS = 0x3FFFFFFF
_INDEXES = (("issuer", Attribute.issuer), ("subject", Attribute.subject), ("label", Attribute.label), ("ckaid", Attribute.id))
_METADATA = "metaData"

# SQLite's primary result codes that are not the file's fault.
_NAMES = {
    sqlite3.SQLITE_BUSY: ("SEC_ERROR_BUSY", "is being written by another process"),
    sqlite3.SQLITE_LOCKED: ("SEC_ERROR_BUSY", "is being written by another process"),
    sqlite3.SQLITE_READONLY: ("SEC_ERROR_READ_ONLY", "cannot be written"),
    sqlite3.SQLITE_PERM: ("SEC_ERROR_READ_ONLY", "may not be opened"),
    sqlite3.SQLITE_IOERR: ("SEC_ERROR_IO", "cannot be read or written"),
    sqlite3.SQLITE_FULL: ("SEC_ERROR_IO", "has no room left"),
}


@dataclass(frozen=True)
class StoredObject:
    """An object as it is kept: CK_ULONGs are 4 bytes big-endian, private attributes still encrypted."""

    id: int
    attributes: dict[int, bytes] = field(repr=False)

    def get(self, attribute: int) -> bytes:
        """The value, empty where there is none."""
        return self.attributes.get(attribute, b"")


class Store:
    """One file.  Safe to use from many threads, one at a time; works on in a forked child."""

    def __init__(self, path: Path, table: str, *, read_only: bool) -> None:
        self.path, self.table, self.read_only = path, table, read_only
        self.metadata = Metadata(self)
        self._lock = threading.RLock()
        self._depth = 0
        self._connection: sqlite3.Connection | None = None
        self._owner = 0  # the process that opened the connection
        self._columns: frozenset[int] = frozenset()
        self._abandoned: list[sqlite3.Connection] = []

    @classmethod
    def open(cls, path: Path, table: str, *, read_only: bool, create: bool) -> Self:
        """Open and check a file.  Raises DatabaseError.

        `create` makes the file (mode 0600) and its tables where they are missing; opened for writing, columns that NSS has
        learnt since are added.
        """
        self = cls(path, table, read_only=read_only)
        self._look_at_file(create and not read_only)
        try:
            with self._guarded():
                if not read_only:
                    self._upgrade(create)
                self._check()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Close the file.  What is not committed is not kept."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None

    @property
    def version(self) -> tuple[int, ...]:
        """Another value whenever the file may hold something else than before, whoever wrote it; its own in every process."""
        with self._guarded() as connection:
            by_others = connection.execute("PRAGMA data_version").fetchone()[0]
            return self._owner, by_others, connection.total_changes

    # --- objects ---

    def find(self, template: Mapping[int, bytes]) -> list[StoredObject]:
        """The objects that have these values, oldest first."""
        with self._guarded() as connection:
            if not self._columns.issuperset(template):
                return []
            where = " AND ".join(f"{column(attribute)}=?" for attribute in template) or "1"
            rows = connection.execute(f"SELECT * FROM {self.table} WHERE {where} ORDER BY rowid", _bound(template.values()))
            return [self._object(rows.description, row) for row in rows]

    def get(self, object_id: int) -> StoredObject | None:
        """The object of that number."""
        with self._guarded() as connection:
            rows = connection.execute(f"SELECT * FROM {self.table} WHERE id=? LIMIT 1", (object_id,))
            row = rows.fetchone()
            return None if row is None else self._object(rows.description, row)

    def insert(self, attributes: Mapping[int, bytes]) -> int:
        """Keep a new object; its number is unused and random, 30 bits."""
        with self.transaction(), self._guarded() as connection:
            object_id = self._free_id(connection)
            names = "".join(f", {column(attribute)}" for attribute in attributes)
            marks = ", ?" * len(attributes)
            values = (object_id, *_bound(attributes.values()))
            connection.execute(f"INSERT INTO {self.table} (id{names}) VALUES (?{marks})", values)
            return object_id

    def update(self, object_id: int, attributes: Mapping[int, bytes]) -> None:
        """Change some attributes of an object."""
        with self.transaction(), self._guarded() as connection:
            changes = ", ".join(f"{column(attribute)}=?" for attribute in attributes)
            if changes:
                connection.execute(f"UPDATE {self.table} SET {changes} WHERE id=?", (*_bound(attributes.values()), object_id))

    def delete(self, object_id: int) -> None:
        """Delete an object; none of that number is no error."""
        with self.transaction(), self._guarded() as connection:
            connection.execute(f"DELETE FROM {self.table} WHERE id=?", (object_id,))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: BEGIN IMMEDIATE, committed at the end, rolled back on an exception.  May be nested."""
        with self._guarded() as connection:
            if self.read_only:
                raise DatabaseError(f"{self.path} is open for reading only", name="SEC_ERROR_READ_ONLY")
            if not self._depth:
                connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    connection.execute("COMMIT")
            except BaseException:
                if self._depth == 1 and connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    # --- the file ---

    def _look_at_file(self, create: bool) -> None:
        """Is there an ordinary file that can be opened without surprises?  With `create` there is one afterwards."""
        if create:
            with suppress(FileExistsError), self._files():
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with self._files():
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise DatabaseError(f"{self.path} is no file")
            with self.path.open("rb") as opened:
                header = opened.read(20)
        if self.read_only and header[18:20].count(2):  # SQLite file format, section 1.3.3
            raise DatabaseError(f"{self.path} is in write-ahead mode, which cannot be read without writing: open it for writing")

    def _size(self) -> int:
        with self._files():
            return self.path.stat().st_size

    @contextmanager
    def _files(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise
        except FileNotFoundError:
            raise DatabaseError(f"there is no {self.path}") from None
        except OSError as error:
            raise DatabaseError(f"{self.path}: {error.strerror}", name="SEC_ERROR_IO") from None

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        """The connection, locked; whatever SQLite says against the file becomes DatabaseError."""
        with self._lock:
            try:
                yield self._connected()
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
                name, text = _NAMES.get(code & 0xFF, ("SEC_ERROR_BAD_DATABASE", f"is no usable NSS database ({error})"))
                if self.read_only and name == "SEC_ERROR_READ_ONLY":
                    text = "was left in the middle of a write, which only opening it for writing can put right"
                    name = "SEC_ERROR_BAD_DATABASE"
                raise DatabaseError(f"{self.path} {text}", name=name) from None
            except (OverflowError, UnicodeError):
                raise DatabaseError(f"{self.path} holds values that no NSS database has") from None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._owner == os.getpid():
            return self._connection
        if self._connection is not None:  # forked: SQLite's connections do not cross processes, not even to be closed
            self._abandoned.append(self._connection)
            self._depth = 0
        mode = "ro" if self.read_only else "rw"
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self.path.absolute()))}?mode={mode}",
            uri=True,
            timeout=_WAIT,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = bytes
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST)
        self._connection, self._owner = connection, os.getpid()
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "temp_store=MEMORY", "mmap_size=0"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _check(self) -> None:
        """Nothing is used of a file that is damaged, or that brings code (views, triggers, computed columns) along."""
        with self._guarded() as connection:
            for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
                if kind not in (b"table", b"index") or (sql or b"").upper().startswith(b"CREATE VIRTUAL"):
                    raise DatabaseError(f"{self.path} is no NSS database: it holds a {_printable(kind)} {_printable(name)}")
            wanted = {self.table, _METADATA} if self.table == "nssPrivate" else {self.table}
            for table in sorted(wanted):
                names = self._table_columns(connection, table)
                if not names >= ({"id", "item1", "item2"} if table == _METADATA else {"id", "a0"}):
                    raise DatabaseError(f"{self.path} is no NSS database: it has no table {table}")
            result = connection.execute("PRAGMA quick_check(1)").fetchone()
            pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
            if result != (b"ok",) or pages * size > self._size():  # SQLite takes a short last page for one of zeros
                raise DatabaseError(f"{self.path} is damaged")
            found = (_COLUMN.fullmatch(name) for name in self._table_columns(connection, self.table))
            self._columns = frozenset(int(match[1], 16) for match in found if match)

    def _table_columns(self, connection: sqlite3.Connection, table: str) -> set[str]:
        names = set()
        for row in connection.execute(f"PRAGMA table_xinfo({table})"):
            if row[6]:
                raise DatabaseError(f"{self.path} is no NSS database: its table {table} has computed columns")
            names.add(row[1].decode("utf-8", "replace") if isinstance(row[1], bytes) else str(row[1]))
        return names

    def _upgrade(self, create: bool) -> None:
        """Make the tables that are missing, and the columns that this version knows and the file does not."""
        if not create:
            self._check()
            if self._columns.issuperset(COLUMNS):
                return
        with self.transaction(), self._guarded() as connection:
            existing = self._table_columns(connection, self.table)
            if not existing:
                names = "".join(f", {column(attribute)}" for attribute in COLUMNS)
                connection.execute(f"CREATE TABLE {self.table} (id PRIMARY KEY UNIQUE ON CONFLICT ABORT{names})")
                for name, indexed in _INDEXES:
                    connection.execute(f"CREATE INDEX {name} ON {self.table} ({column(indexed)})")
            else:
                self._check()
                for attribute in COLUMNS:
                    if column(attribute) not in existing:
                        connection.execute(f"ALTER TABLE {self.table} ADD COLUMN {column(attribute)}")
            if self.table == "nssPrivate":
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {_METADATA} (id PRIMARY KEY UNIQUE ON CONFLICT REPLACE, item1, item2)"
                )

    def _free_id(self, connection: sqlite3.Connection) -> int:
        while True:
            candidate = secrets.randbelow(_OBJECT_IDS) + 1
            if connection.execute(f"SELECT 1 FROM {self.table} WHERE id=?", (candidate,)).fetchone() is None:
                return candidate

    def _object(self, description: Any, row: tuple[object, ...]) -> StoredObject:
        object_id, attributes = 0, {}
        for (name, *_), value in zip(description, row, strict=True):
            if name == "id" and isinstance(value, int) and 0 < value < 1 << 32:
                object_id = value
            elif value is not None and (match := _COLUMN.fullmatch(name)):
                attributes[int(match[1], 16)] = self.value(value)
        if not object_id:
            raise DatabaseError(f"{self.path} holds an object without a number")
        return StoredObject(object_id, attributes)

    def value(self, value: object) -> bytes:
        """A value of a row as bytes."""
        if not isinstance(value, bytes):
            raise DatabaseError(f"{self.path} holds values that no NSS database has")
        return b"" if value == _EMPTY else value


class Metadata:
    """The table metaData of key4.db: the password's check value and the MACs, by name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, name: str) -> tuple[bytes, bytes] | None:
        """Both items of a row; an item that is NULL is empty."""
        with self._store._guarded() as connection:
            row = connection.execute(f"SELECT item1, item2 FROM {_METADATA} WHERE id=? LIMIT 1", (name,)).fetchone()
            return None if row is None else (self._item(row[0]), self._item(row[1]))

    def put(self, name: str, item1: bytes, item2: bytes = b"") -> None:
        """Keep a row in the place of the old one."""
        with self._store.transaction(), self._store._guarded() as connection:
            connection.execute(f"DELETE FROM {_METADATA} WHERE id=?", (name,))
            connection.execute(f"INSERT INTO {_METADATA} (id, item1, item2) VALUES (?, ?, ?)", (name, item1, item2))

    def delete(self, name: str) -> None:
        """Delete a row; none of that name is no error."""
        with self._store.transaction(), self._store._guarded() as connection:
            connection.execute(f"DELETE FROM {_METADATA} WHERE id=?", (name,))

    def _item(self, value: object) -> bytes:
        return b"" if value is None else self._store.value(value)


def _bound(values: Any) -> tuple[bytes, ...]:
    return tuple(value or _EMPTY for value in values)


def _printable(name: object) -> str:
    return repr(name.decode("ascii", "replace") if isinstance(name, bytes) else name)[:60]
