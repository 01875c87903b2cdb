# ruff: noqa: SIM118 (a database has keys, it is no mapping)
"""Files that are damaged, hostile, read-only or busy: one clear error, never a traceback of another kind, never a write."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from asn1crypto import core
from cryptography.hazmat.primitives.asymmetric import ec

from nss_pk11.db import Database, Location, Trust, crypto, store
from nss_pk11.db.attributes import COLUMNS, Attribute, column
from nss_pk11.db.location import parse
from nss_pk11.db.store import Store
from nss_pk11.errors import ConfigurationError, DatabaseError, NSPRError
from tests.db.test_database import certificate
from tests.db.tools import Tools

FILES = ("cert9.db", "key4.db")
pytestmark = pytest.mark.usefixtures("few_iterations")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A database of ours with something in it; its password is `secret`."""
    path = tmp_path / "db"
    path.mkdir()
    with Database.open(path, read_only=False, create=True) as database:
        database.set_password(None, "secret")
        key = ec.generate_private_key(ec.SECP256R1())
        database.add_key(key, "mine")
        database.add_certificate(certificate(key, "me"), "me", Trust.parse("CT,,"))
    return path


def state(directory: Path) -> dict[str, str]:
    """Every file with its digest."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir() if path.is_file()}


def read_all(directory: Path) -> None:
    """Use all there is, as a reader would."""
    with Database.open(directory) as database:
        database.unlock("secret")
        for record in database.certificates():
            database.trust(record.der)
        database.crls()
        for key in database.keys():
            database.private_key(key)


def refused(directory: Path, *, read_only: bool = True) -> DatabaseError:
    """Opening fails, and leaves everything as it is."""
    before = state(directory)
    with pytest.raises(DatabaseError) as caught:
        Database.open(directory, read_only=read_only)
    assert state(directory) == before
    return caught.value


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("read_only", [True, False])
def test_truncated_anywhere(directory: Path, name: str, read_only: bool) -> None:
    whole = (directory / name).read_bytes()
    for length in (0, 1, 15, 16, 50, 99, 100, 512, 4095, 4096, 4097, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        (directory / name).write_bytes(whole[:length])
        assert refused(directory, read_only=read_only).name == "SEC_ERROR_BAD_DATABASE"


@pytest.mark.parametrize("name", FILES)
def test_bits_flipped_anywhere(directory: Path, name: str) -> None:
    """Many a flip hits unused space or a label; whatever it hits, only NSPRError comes out, and nothing is written."""
    whole = (directory / name).read_bytes()
    used = [place for place in range(len(whole)) if whole[place]]
    choose, errors = random.Random(9), 0
    for _ in range(150):
        changed = bytearray(whole)
        for place in choose.sample(used, choose.choice((1, 1, 20))):
            changed[place] ^= 1 << choose.randrange(8)
        (directory / name).write_bytes(changed)
        before = state(directory)
        try:
            read_all(directory)
        except NSPRError:
            errors += 1
        assert state(directory) == before
    assert errors > 20


def statements(*lines: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path)
        for line in lines:
            connection.execute(line)
        connection.commit()
        connection.close()

    return change


BOMB = "WITH RECURSIVE forever(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM forever) SELECT n AS id, n AS a0 FROM forever"
HOSTILE = {
    "no table": statements("ALTER TABLE nssPublic RENAME TO other"),
    "a view in its place": statements("DROP TABLE nssPublic", f"CREATE VIEW nssPublic AS {BOMB}"),
    "a view beside it": statements(f"CREATE VIEW other AS {BOMB}"),
    "a trigger": statements("CREATE TRIGGER t AFTER INSERT ON nssPublic BEGIN DELETE FROM nssPublic; END"),
    "computed columns": statements("DROP TABLE nssPublic", "CREATE TABLE nssPublic (id, a0 AS (zeroblob(1000000000)))"),
    "a virtual table": statements("CREATE VIRTUAL TABLE other USING fts5(x)"),
    "no attributes": statements("DROP TABLE nssPublic", "CREATE TABLE nssPublic (id)"),
    "numbers for values": statements("UPDATE nssPublic SET a11=5"),
    "numbers without end": statements("UPDATE nssPublic SET id=9223372036854775807 WHERE a0=x'00000001'"),
    "text for numbers": statements("UPDATE nssPublic SET id='x' WHERE a0=x'00000001'"),
    "garbage for certificates": statements("UPDATE nssPublic SET a11=x'3082ffff00'"),
    "garbage for keys": statements("UPDATE nssPublic SET a181=x'04', a180=x'06'"),
    "a huge value": statements("UPDATE nssPublic SET a11=zeroblob(70000000)"),
    "an unknown encoding": lambda path: path.write_bytes(path.read_bytes()[:56] + b"\0\0\0\7" + path.read_bytes()[60:]),
    "not SQLite": lambda path: path.write_bytes(b"%PDF-1.7" + bytes(5000)),
    "write-ahead mode": statements("PRAGMA journal_mode=WAL"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files(directory: Path, what: str) -> None:
    HOSTILE[what](directory / "cert9.db")
    before = state(directory)
    if what == "garbage for keys":  # public keys that nobody asks for
        read_all(directory)
    else:
        with pytest.raises(NSPRError):
            read_all(directory)
    assert state(directory) == before


KEY4_HOSTILE = {
    "no metadata": ["DROP TABLE metaData"],
    "numbers for the password": ["UPDATE metaData SET item1=1, item2=2 WHERE id='password'"],
    "nothing for the password": ["UPDATE metaData SET item1=NULL, item2=NULL WHERE id='password'"],
    "garbage for the password": ["UPDATE metaData SET item2=x'3000' WHERE id='password'"],
    "garbage for MACs": ["UPDATE metaData SET item1=x'300430000400' WHERE id LIKE 'sig%'"],
    "no MACs": ["DELETE FROM metaData WHERE id LIKE 'sig_key%'"],
    "garbage for keys": ["UPDATE nssPrivate SET a11=x'30820101'"],
    "a key of no kind": ["UPDATE nssPrivate SET a100=x'00000077'"],
    "a key of another kind": ["UPDATE nssPrivate SET a100=x'00000000'"],
    "no curve": ["UPDATE nssPrivate SET a180=NULL"],
    "no point": ["UPDATE nssPrivate SET ad5a0db00=x'0400'"],
}


@pytest.mark.parametrize("what", KEY4_HOSTILE)
def test_hostile_key_files(directory: Path, what: str) -> None:
    statements(*KEY4_HOSTILE[what])(directory / "key4.db")
    before = state(directory)
    with pytest.raises(DatabaseError) as caught:
        read_all(directory)
    assert caught.value.name == "SEC_ERROR_BAD_DATABASE"
    assert state(directory) == before


def test_a_file_that_asks_for_work_without_end(directory: Path) -> None:
    """PBKDF2 iterations come from the file: two thousand million of them would be half an hour."""
    scheme = crypto._Algorithm({"algorithm": crypto._AES256_CBC, "parameters": core.OctetString(bytes(14))})
    for iterations, accepted in ((1000, True), (0, False), (2**31 - 1, False), (2**70, False)):
        check = crypto._stored(crypto._PBES2, bytes(32), iterations, scheme, bytes(32))
        connection = sqlite3.connect(directory / "key4.db")
        connection.execute("UPDATE metaData SET item2=? WHERE id='password'", (check,))
        connection.commit()
        connection.close()
        if accepted:
            with Database.open(directory) as database:
                assert not database.unlock("secret")
        else:
            assert refused(directory).name == "SEC_ERROR_BAD_DATABASE"


def test_nothing_there(tmp_path: Path) -> None:
    assert refused(tmp_path).name == "SEC_ERROR_BAD_DATABASE"
    assert refused(tmp_path, read_only=False).name == "SEC_ERROR_BAD_DATABASE"
    with pytest.raises(DatabaseError):
        Database.open(tmp_path / "no such directory", read_only=False, create=True)
    (tmp_path / "cert8.db").write_bytes(b"\0")
    error = refused(tmp_path)
    assert error.name == "SEC_ERROR_LEGACY_DATABASE"
    assert "--upgrade-merge" in error.detail
    (tmp_path / "cert8.db").unlink()
    os.mkfifo(tmp_path / "cert9.db")
    with pytest.raises(DatabaseError, match="is no file"):
        Database.open(tmp_path)


def test_read_only_is_read_only(directory: Path) -> None:
    before = state(directory)
    other = ec.generate_private_key(ec.SECP256R1())
    with Database.open(directory) as database:
        assert database.unlock("secret")
        (record,), (key,) = database.certificates(), database.keys()
        changes: list[Callable[[], object]] = [
            lambda: database.set_password("secret", "x"),
            lambda: database.add_certificate(certificate(other, "other"), "other"),
            lambda: database.set_nickname(record, "x"),
            lambda: database.delete_certificate(record),
            lambda: database.set_trust(record.der, Trust()),
            lambda: database.add_key(other),
            lambda: database.delete_key(key),
        ]
        for change in changes:
            with pytest.raises(DatabaseError) as caught:
                change()
            assert caught.value.name == "SEC_ERROR_READ_ONLY"
        assert database.unlocked
    assert state(directory) == before


def test_files_are_the_owners_alone(directory: Path) -> None:
    assert {(directory / name).stat().st_mode & 0o777 for name in FILES} == {0o600}


def test_columns_of_other_versions(directory: Path) -> None:
    """An older file gets the columns it lacks when it is opened for writing; a newer one keeps those we do not know."""
    statements("ALTER TABLE nssPublic DROP COLUMN ace534369", "ALTER TABLE nssPublic ADD COLUMN a62c")(directory / "cert9.db")
    read_all(directory)
    connection = sqlite3.connect(directory / "cert9.db")
    names = {row[1] for row in connection.execute("PRAGMA table_info(nssPublic)")}
    assert "ace534369" not in names
    with Database.open(directory, read_only=False):
        names = {row[1] for row in connection.execute("PRAGMA table_info(nssPublic)")}
    connection.close()
    assert names == {"id", "a62c"} | {column(number) for number in COLUMNS}
    assert Tools(directory, "secret").listed() == {"me": "CTu,u,u"}


def test_objects(tmp_path: Path) -> None:
    opened = Store.open(tmp_path / "cert9.db", "nssPublic", read_only=False, create=True)
    number = opened.insert({Attribute.label: b"", Attribute.value: b"\1"})
    assert opened.find({Attribute.label: b""})[0].attributes == {Attribute.label: b"", Attribute.value: b"\1"}
    assert opened.find({0x7777: b"no such column"}) == []
    with suppress(KeyError), opened.transaction():
        opened.update(number, {Attribute.value: b"\2"})
        with opened.transaction():
            opened.delete(number)
        assert opened.get(number) is None
        raise KeyError
    stored = opened.get(number)
    assert stored is not None
    assert stored.get(Attribute.value) == b"\1"
    opened.close()


def test_a_busy_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_WAIT", 0.05)
    other = sqlite3.connect(directory / "cert9.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Database.open(directory, read_only=False) as database:
        assert len(database.certificates()) == 1
        with pytest.raises(DatabaseError) as caught:
            database.delete_certificate(database.certificates()[0])
        assert caught.value.name == "SEC_ERROR_BUSY"
        other.execute("ROLLBACK")
        other.close()
        database.delete_certificate(database.certificates()[0])


def test_a_forked_child_goes_on(directory: Path) -> None:
    code = (
        "import os, sys; from nss_pk11.db import Database; d = Database.open(sys.argv[1], read_only=False); d.unlock('secret')\n"
        "child = os.fork()\n"
        "d.set_nickname(d.certificates()[0], 'child') if not child else None\n"
        "os._exit(0) if not child else os.waitpid(child, 0)\n"
        "print(d.certificates()[0].nickname, d.unlocked)"
    )
    done = subprocess.run([sys.executable, "-c", code, directory], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["child", "True"]


def test_many_threads(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    problems: list[BaseException] = []
    with Database.open(directory, read_only=False) as database:
        database.unlock("secret")

        def work(number: int) -> None:
            try:
                for turn in range(3):
                    der = certificate(key, f"{number}-{turn}")
                    database.add_certificate(der, f"{number}-{turn}", Trust.parse("P,,"))
                    assert str(database.trust(der)) == "P,,"
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert len(database.certificates()) == 13


def test_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse("sql:/x") == parse("/x") == parse(Path("/x")) == Location(Path("/x"), "sql")
    assert str(parse("/x")) == "sql:/x"
    for text in ("dbm:/x", "extern:/x", "multiaccess:/x"):
        with pytest.raises(DatabaseError) as caught:
            parse(text)
        assert caught.value.name == "SEC_ERROR_LEGACY_DATABASE"
    monkeypatch.setenv("NSS_DEFAULT_DB_TYPE", "dbm")
    assert parse("sql:/x").kind == "sql"
    with pytest.raises(DatabaseError):
        parse("/x")
    with pytest.raises(ConfigurationError):
        parse("sql:")


def test_a_copy_is_the_database(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "copy with spaces ?#%41")
    read_all(tmp_path / "copy with spaces ?#%41")
