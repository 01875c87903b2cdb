"""Several processes at one database: killed in the middle of a write, and writing at the same time, ours and certutil's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nss_pk11.db import Database
from tests.db.tools import FEW_ITERATIONS, Tools, signs

PASSWORD = "secret"

# Makes keys with certificates and trust, one after the other, and tells of each once it is committed.
WRITER = """
import sys
from cryptography.hazmat.primitives.asymmetric import ec
from nss_pk11.db import Database, Trust
from tests.db.test_database import certificate
directory, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Database.open(directory, read_only=False) as database:
    assert database.unlock("secret")
    for number in range(count):
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"{who}-{number}"
        der = certificate(key, name)
        with database.writing():
            database.add_key(key, name)
            database.add_certificate(der, name, Trust.parse("CT,,"))
        print(name, flush=True)
"""

# Changes the password to and fro.
CHANGER = """
import sys
from nss_pk11.db import Database
with Database.open(sys.argv[1], read_only=False) as database:
    words = ["secret", "another"]
    while True:
        database.set_password(words[0], words[1])
        words.reverse()
        print(words[0], flush=True)
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """A database with two keys in it."""
    for name, value in FEW_ITERATIONS.items():
        monkeypatch.setenv(name, value)
    directory = tmp_path / "db"
    directory.mkdir()
    made = Tools(directory, PASSWORD)
    made.initialise()
    made.issue("first", "-k", "ec", "-q", "nistp256", trust="CTu,u,u")
    made.issue("second", "-k", "rsa", "-g", "2048")
    return made


def start(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def killed(process: subprocess.Popen[str], lines: int, delay: int) -> list[str]:
    """Kill -9 after so many lines and some more work of its own; what it told to be committed."""
    assert process.stdout is not None
    with process:
        told = [process.stdout.readline() for _ in range(lines)]
        for _ in range(delay):  # time passes in which it is at some other point of its next write
            pass
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    return [line.strip() for line in told if line.endswith("\n")]


def whole(tools: Tools, *, password: str = PASSWORD) -> set[str]:
    """All is consistent and certutil agrees; the nicknames.  Opened for writing first: that is what undoes a half write."""
    with Database.open(tools.directory, read_only=False) as database:
        assert database.unlock(password)
        keys = {key.key_id: key for key in database.keys()}  # noqa: SIM118
        for key in keys.values():
            signs(database.private_key(key), key.public_key)
        records = database.certificates()
        for record in records:
            assert record.key_id in keys
            assert str(database.trust(record.der)) == ("u,u,u" if record.nickname == "second" else "CTu,u,u")
        tools.password = password
        assert set(tools.keys()) == {key_id.hex() for key_id in keys}
        assert set(tools.listed()) == {record.nickname for record in records}
        return {record.nickname for record in records}


def test_killed_while_writing(tools: Tools) -> None:
    expected = {"first", "second"}
    for turn in range(8):
        told = killed(start(WRITER, tools.directory, f"turn{turn}", "1000"), 2, turn * 40_000)
        expected |= set(told)
        found = whole(tools)
        assert expected <= found
        assert len(found - expected) <= 1  # committed, and killed before it could say so
        expected = found


def test_killed_while_changing_the_password(tools: Tools) -> None:
    for turn in range(5):
        with Database.open(tools.directory, read_only=False) as database:
            if not database.unlock(PASSWORD):
                database.set_password("another", PASSWORD)
        killed(start(CHANGER, tools.directory), 3, turn * 60_000)
        with Database.open(tools.directory, read_only=False) as database:
            password = next(word for word in (PASSWORD, "another") if database.unlock(word))
        assert whole(tools, password=password) == {"first", "second"}


def test_writers_at_the_same_time(tools: Tools) -> None:
    """Two of ours and certutil: all that each of them was told to have written is there."""
    processes = [start(WRITER, tools.directory, who, "12") for who in ("one", "two")]
    for number in range(6):
        tools.issue(f"theirs-{number}", "-k", "ec", "-q", "nistp256", trust="CT,,")
    for process in processes:
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        assert len(output.splitlines()) == 12
    ours = {f"{who}-{number}" for who in ("one", "two") for number in range(12)}
    with Database.open(tools.directory) as database:
        der = {record.nickname: record.der for record in database.certificates()}
        assert set(der) == ours | {f"theirs-{number}" for number in range(6)} | {"first", "second"}
    assert len(whole(tools)) == len(der)


def test_a_reader_beside_a_writer(tools: Tools) -> None:
    with start(WRITER, tools.directory, "one", "10") as process, Database.open(tools.directory) as database:
        database.unlock(PASSWORD)
        seen: list[int] = []
        while process.poll() is None:
            for key in database.keys():  # noqa: SIM118
                assert isinstance(database.private_key(key).public_key(), type(key.public_key))
            seen.append(len(database.certificates()))
        assert seen == sorted(seen)
        assert len(database.certificates()) == 12
        assert process.stdout is not None
        assert len(process.stdout.readlines()) == 10


def test_keys_of_another_password_are_never_written(tools: Tools) -> None:
    """Somebody changes the password while we have the old one's key: nothing may be encrypted under that any more."""
    with Database.open(tools.directory, read_only=False) as database:
        assert database.unlock(PASSWORD)
        tools.change_password("another")
        with pytest.raises(Exception, match="changed elsewhere"):
            database.add_key(ec.generate_private_key(ec.SECP256R1()))
        assert not database.unlocked
    assert whole(tools, password="another") == {"first", "second"}
