"""pkcs11.txt, both ways: modutil reads and changes our files, we read and change modutil's."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nss_pk11.db import modules
from nss_pk11.db.modules import SlotFlags, SlotSettings
from nss_pk11.errors import ConfigurationError, DatabaseError, NotFound, NSPRError
from tests.support.require import require

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"


def run(tool: str, *arguments: str | Path) -> str:
    done = subprocess.run([require(tool), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def modutil(directory: Path, *arguments: str) -> str:
    return run("modutil", "-dbdir", f"sql:{directory}", "-force", *arguments)


@pytest.fixture
def library() -> str:
    """A module that any machine with these tests has."""
    roots = modules.roots_library()
    if roots is None:
        require(modules.ROOTS_LIBRARY)
    return str(roots)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory that certutil made."""
    run("certutil", "-N", "-d", f"sql:{tmp_path}", "--empty-password")
    return tmp_path


def names(directory: Path) -> list[str]:
    return [entry.name for entry in modules.read(directory / modules.FILE)]


def test_the_internal_entry_is_what_certutil_writes(theirs: Path) -> None:
    text = (theirs / modules.FILE).read_text()
    assert f"{modules.internal(f'sql:{theirs}')}\n" == text
    (entry,) = modules.read(theirs / modules.FILE)
    assert entry.internal
    assert entry.critical
    assert entry.trust_order == 75
    assert entry.cipher_order == 100
    assert entry.slots[1].askpw == "any"
    assert entry.slots[1].timeout == 30
    assert entry.slots[1].flags >= SlotFlags.ecc | SlotFlags.rc2 | SlotFlags.rc4 | SlotFlags.sha512 | SlotFlags.random


def test_modules_that_modutil_added(theirs: Path, library: str) -> None:
    modutil(theirs, "-add", "some roots", "-libfile", library, "-mechanisms", "RSA:RC4:AES:FRIENDLY", "-ciphers", "FORTEZZA")
    _, entry = modules.read(theirs / modules.FILE)
    assert (entry.name, entry.library, entry.internal, entry.trust_order) == ("some roots", library, False, 100)
    (settings,) = entry.slots.values()
    assert settings.flags == SlotFlags.rsa | SlotFlags.rc4 | SlotFlags.aes | SlotFlags.public_certs
    modutil(theirs, "-delete", "some roots")
    assert names(theirs) == [modules.INTERNAL_NAME]


def test_modutil_lists_and_deletes_what_we_added(tmp_path: Path, library: str) -> None:
    path = tmp_path / modules.FILE
    modules.create(path, f"sql:{tmp_path}")
    run("certutil", "-N", "-d", f"sql:{tmp_path}", "--empty-password")
    slots = {1: SlotSettings(SlotFlags.rsa | SlotFlags.rc2 | SlotFlags.tls, root_certs=True)}
    modules.add(path, modules.external("of ours", library, slots=slots, trust_order=60))
    shown = modutil(tmp_path, "-list", "of ours")
    assert f"Library file: {library}" in shown
    assert "Default Mechanism Flags: RSA:RC2:TLS" in shown
    modutil(tmp_path, "-delete", "of ours")
    assert names(tmp_path) == [modules.INTERNAL_NAME]


def test_modutil_no_longer_shows_what_we_deleted(theirs: Path, library: str) -> None:
    modutil(theirs, "-add", "first", "-libfile", library)
    path = theirs / modules.FILE
    before = path.read_text()
    modules.add(path, modules.external("second", library, "a='b c'"))
    assert modules.delete(path, "first").name == "first"
    shown = modutil(theirs, "-list")
    assert "second" in shown
    assert "first" not in shown
    modules.delete(path, "second")
    assert path.read_text() == before.partition("library=/")[0]


def test_parameters_reach_modutil_and_come_back(theirs: Path, library: str) -> None:
    modutil(theirs, "-add", "another", "-libfile", library)
    modules.add(theirs / modules.FILE, modules.external("with parameters", library, 'configdir=\'/x y\' flags="a\\"b"'))
    modutil(theirs, "-delete", "another")  # rewrites the file
    found = {entry.name: entry for entry in modules.read(theirs / modules.FILE)}
    assert modules.parse_parameters(found["with parameters"].parameters) == {"configdir": "/x y", "flags": 'a"b'}


def test_what_others_wrote_is_kept_to_the_letter(tmp_path: Path) -> None:
    path = tmp_path / modules.FILE
    text = "# a remark\nlibrary=/x.so\nname=odd\nconfig=something\nNSS=trustOrder=7 slotParams={0x1=[slotFlags=all ]}  \n\n"
    path.write_text(text)
    modules.add(path, modules.external("new", "/new.so"))
    assert path.read_text() == text + "library=/new.so\nname=new\n\n"
    odd = modules.read(path)[0]
    assert odd.trust_order == 7
    assert SlotFlags.random in odd.slots[1].flags
    assert odd.other == ("config=something",)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_parser_defect_is_kept() -> None:
    assert SlotSettings.parse("slotFlags=DSA").flags == SlotFlags.rsa
    assert SlotSettings.parse("slotFlags=RC2").flags == SlotFlags.rc4
    for flags in (SlotFlags.rc2, SlotFlags.rc4, SlotFlags.rc2 | SlotFlags.aes | SlotFlags.disable):
        assert SlotSettings.parse(str(SlotSettings(flags))).flags == flags
    assert str(SlotSettings(SlotFlags.dsa)) == ""


def test_the_internal_module_stays(theirs: Path) -> None:
    path = theirs / modules.FILE
    with pytest.raises(ConfigurationError):
        modules.delete(path, modules.INTERNAL_NAME)
    with pytest.raises(ConfigurationError):
        modules.add(path, modules.external(modules.INTERNAL_NAME, "/evil.so"))
    with pytest.raises(NotFound):
        modules.delete(path, "nobody")


@pytest.mark.parametrize("name", ["", "two\nlines", "zero\0"])
def test_a_name_makes_no_lines(name: str) -> None:
    with pytest.raises(ConfigurationError):
        modules.external(name, "/x.so")


@pytest.mark.parametrize("data", [b"\0", b"x" * (2 << 20), b"SQLite format 3\0"])
def test_what_is_no_list(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / modules.FILE
    path.write_bytes(data)
    with pytest.raises(DatabaseError):
        modules.read(path)
    with pytest.raises(DatabaseError):
        modules.add(path, modules.external("new", "/new.so"))
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "data", [b"", b"=\n=\n\n", b"name=\n", b"name=x\nNSS=slotParams={(=[\\", b"\xff\xfe=\xff\nname=\xff\r", b"#"]
)
def test_nonsense_is_read_without_harm(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / modules.FILE
    path.write_bytes(data)
    for entry in modules.read(path):
        assert entry.name
        assert entry.trust_order == 50
        assert isinstance(entry.slots, dict)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(NSPRError):
        modules.add(tmp_path / "absent" / modules.FILE, modules.external("new", "/new.so"))


def test_one_slot_is_changed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / modules.FILE
    modules.create(path, str(tmp_path))
    before = modules.read(path)[0]
    with path.open("a") as stream:
        stream.write("# a comment of somebody\nlibrary=/lib/a.so\nname=a\nparameters=p\nNSS=trustOrder=75 odd={a \\} b}\n\n")
    change = lambda its: replace(its, askpw="timeout", timeout=5)  # noqa: E731
    for name in (before.name, "a"):
        changed = modules.change_slot(path, name, 2, change)
        assert changed is not None
        assert changed.slots[2] == SlotSettings(askpw="timeout", timeout=5)
    internal, other = modules.read(path)
    assert internal.slots == before.slots | {2: SlotSettings(askpw="timeout", timeout=5)}
    assert (internal.flags, internal.trust_order, internal.cipher_order) == (before.flags, 75, 100)
    assert (other.parameters, other.trust_order) == ("p", 75)
    assert modules.parse_parameters(other.nss)["odd"] == "a } b"
    assert "# a comment of somebody" in path.read_text()
    assert modules.change_slot(path, "nobody", 2, change) is None
