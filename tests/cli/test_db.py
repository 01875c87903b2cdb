"""`nss-pk11 db` on directories that certutil, pk12util and modutil read and write too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cli.conftest import Command
from tests.db.test_modules import run
from tests.db.tools import Tools
from tests.support.pki import P12_PASSWORD, PKI

PASSWORD = "database secret"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


class OnDatabase:
    """The command and NSS's tools on one directory."""

    def __init__(self, command: Command, directory: Path, password: str) -> None:
        self.command, self.directory = command, directory
        directory.parent.mkdir(exist_ok=True)
        self.tools = Tools(directory, password)
        self.password_file = str(self.tools.file("password", f"{password}\n"))

    def __call__(self, name: str, *arguments: str | Path) -> str:
        """`nss-pk11 db NAME` with the password; what it says."""
        done = self.command("db", name, *map(str, arguments), "-d", str(self.directory), "-f", self.password_file)
        return done.stdout + done.stderr

    def list(self) -> dict[str, list[dict[str, object]]]:
        listed: dict[str, list[dict[str, object]]] = self.command.json("db", "list", "-d", str(self.directory))
        return listed

    def trust(self) -> dict[object, object]:
        return {item["label"]: item["trust"] for item in self.list()["certificates"]}


@pytest.fixture
def made(command: Command, tmp_path: Path) -> OnDatabase:
    """A database that the command made."""
    database = OnDatabase(command, tmp_path / "made" / "db", PASSWORD)
    database("create")
    return database


def test_certutil_reads_what_create_made(made: OnDatabase) -> None:
    assert made.directory.stat().st_mode & 0o777 == 0o700
    assert made.tools.listed() == {}
    with pytest.raises(AssertionError, match="SEC_ERROR_BAD_PASSWORD"):
        run("certutil", "-K", "-d", f"sql:{made.directory}", "-f", made.tools.file("wrong", "wrong\n"))
    assert "Listing of PKCS #11 Modules" in run("modutil", "-dbdir", f"sql:{made.directory}", "-list")


def test_create_takes_nobody_elses_place(made: OnDatabase) -> None:
    said = made.command.fails(3, "db", "create", "-d", str(made.directory), "-f", made.password_file)
    assert "holds a database already" in said


def test_from_pkcs12_to_pkcs12(made: OnDatabase, pki: PKI, tmp_path: Path) -> None:
    credential = pki.server("rsa")
    made("import", credential.p12_file, "--password", f"pass:{P12_PASSWORD}", "--nickname", "www")
    assert made.tools.listed()["www"] == "u,u,u"
    (key,) = made.list()["keys"]
    assert made.tools.keys() == {key["id"]: "rsa"}
    made("export", "www", "--p12", "--out", tmp_path / "out.p12", "--password", "pass:other")
    assert (tmp_path / "out.p12").stat().st_mode & 0o777 == 0o600
    again = Tools(tmp_path / "again", "")
    again.directory.mkdir()
    again.initialise()
    again.import_((tmp_path / "out.p12").read_bytes(), "other")
    assert again.der("www") == made.tools.der("www")
    assert list(again.keys()) == [key["id"]]


def test_a_key_file_with_its_chain(made: OnDatabase, pki: PKI) -> None:
    credential = pki.server("p256")
    made("import", credential.key_file, "--nickname", "www")
    made("import", credential.chain_file, "--nickname", "www")
    assert made.tools.listed()["www"] == "u,u,u"
    assert len(made.tools.listed()) >= 2


def test_trust(made: OnDatabase, pki: PKI) -> None:
    made("import", pki.ca_file, "--nickname", "root", "--trust", "CT,C,")
    assert made.tools.listed()["root"] == "CT,C,"
    made("trust", "root", "P,,p")
    assert made.tools.listed()["root"] == "P,,p"
    made.tools.certutil("-M", "-n", "root", "-t", "C,,")
    assert made.trust()["root"] == "C,,"
    assert "three groups" in made.command.fails(3, "db", "trust", "root", "X,,", "-d", str(made.directory))


def test_trust_needs_the_password(made: OnDatabase, pki: PKI) -> None:
    made("import", pki.ca_file, "--nickname", "root")
    wrong = ("--pin", "pass:wrong")
    assert "SEC_ERROR_BAD_PASSWORD" in made.command.fails(4, "db", "trust", "root", "C,,", "-d", str(made.directory), *wrong)
    assert made.tools.listed()["root"] == ",,"


def test_export_pem(made: OnDatabase, pki: PKI) -> None:
    made("import", pki.ca_file, "--nickname", "root")
    shown = made.command("db", "export", "root", "-d", str(made.directory)).stdout
    assert x509.load_pem_x509_certificate(shown.encode()).public_bytes(Encoding.DER) == made.tools.der("root")
    assert "SEC_ERROR_UNKNOWN_CERT" in made.command.fails(4, "db", "export", "nobody", "-d", str(made.directory))


def test_passwd(made: OnDatabase, tmp_path: Path) -> None:
    made.tools.issue("www", "-k", "ec", "-q", "nistp256")
    new = made.tools.file("new", "NSS FIPS 140-2 Certificate DB:no\nNSS Certificate DB:new secret\n")
    made("passwd", "--new-pin", f"@{new}")
    made.tools.password = "new secret"
    assert list(made.tools.keys().values()) == ["ec"]
    made.command("db", "passwd", "-d", str(made.directory), "--pin", f"@{new}", "--empty-password")
    assert made.list()["password"] == "empty"


def test_delete(made: OnDatabase) -> None:
    for name in ("one", "two"):
        made.tools.issue(name, "-k", "ec", "-q", "nistp256")
    made("delete", "one", "--yes")
    assert (list(made.tools.listed()), len(made.tools.keys())) == (["two"], 2)
    made("delete", "two", "--key", "--yes")
    assert (made.tools.listed(), len(made.tools.keys())) == ({}, 1)


def test_crls(made: OnDatabase, pki: PKI, tmp_path: Path) -> None:
    made.tools.issue("ca", "-k", "ec", "-q", "nistp256", trust="C,,")
    made.tools.run(
        "crlutil", "-G", "-n", "ca", "-f", made.password_file, "-c", made.tools.file("crl", "addcert 7 20260101000000Z\n")
    )
    assert [(crl["issuer"], crl["revoked"]) for crl in made.list()["crls"]] == [("CN=ca", 1)]


def test_modules(made: OnDatabase, command: Command) -> None:
    made("modules", "--add", "soft", "--library", command.hsm.module_path)
    shown = run("modutil", "-dbdir", f"sql:{made.directory}", "-list", "soft")
    assert command.hsm.module_path in shown
    modules = command.json("db", "modules", "-d", str(made.directory))
    assert [module["name"] for module in modules] == ["NSS Internal PKCS #11 Module", "soft"]
    made("modules", "--delete", "soft")
    assert "soft\n" not in made("modules")


def test_the_token_shows_in_slots(made: OnDatabase, command: Command) -> None:
    made.tools.issue("www", "-k", "ec", "-q", "nistp256")
    modules = command.json("slots", "-d", str(made.directory), "--token", "NSS Certificate DB")["modules"]
    (slot,) = (slot for module in modules for slot in module["slots"] if slot["id"] == 2)
    assert slot["token"]["read_only"] is True
    assert slot["token"]["login_required"] is True
    assert [key["label"] for key in slot["token"]["keys"]] == ["www"]


@pytest.mark.parametrize("prepare", [lambda path: None, Path.mkdir, lambda path: _garbage(path)])
def test_what_is_no_database(command: Command, tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    where = tmp_path / "none"
    prepare(where)
    before = sorted(where.iterdir()) if where.exists() else None
    for arguments in (("list",), ("trust", "ca", "C,,"), ("modules",), ("export", "ca")):
        if arguments == ("modules",) and before:
            continue  # a list of modules may be there without databases that can be read
        command.fails(3, "db", *arguments, "-d", str(where))
    assert (sorted(where.iterdir()) if where.exists() else None) == before


def _garbage(path: Path) -> None:
    path.mkdir()
    for name in ("cert9.db", "key4.db"):
        (path / name).write_bytes(b"SQLite format 3\0" + bytes(500))


def test_two_sources_of_one_password(command: Command, tmp_path: Path) -> None:
    said = command.fails(2, "db", "create", "-d", str(tmp_path / "db"), "-f", "x", "--pin", "env:PIN")
    assert "--pin and -f exclude each other" in said
