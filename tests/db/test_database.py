# ruff: noqa: SIM118 (a database has keys, it is no mapping)
"""Databases in both directions: what certutil made is read whole, what we made works in certutil, pk12util and crlutil."""

from __future__ import annotations

import datetime
import shutil
import socket
import sqlite3
import ssl
import time
import warnings
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from cryptography.x509.oid import NameOID

from nss_pk11.db import Database, Trust, pkcs12
from nss_pk11.errors import (
    CertificateError,
    ConfigurationError,
    DatabaseError,
    DatabaseLocked,
    NotFound,
    PinIncorrect,
)
from tests.db.tools import Tools, signs
from tests.support.peers.base import Process, accepts, free_port
from tests.support.require import require

PASSWORD = "a pässword of 20"
OLD = Path(__file__).parents[2] / "fixtures" / "nss-old"
TRUSTS = [
    "CT,C,C",
    "C,,",
    "T,,",
    "c,c,c",
    "P,P,P",
    "p,p,p",
    "CTP,,C",
    "PT,,",
    "Cp,p,",
    "cT,,",
    "Cw,w,w",
    ",,",
    ",c,P",
    "CTc,pc,Pc",
]
KEYS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "dsa": lambda: dsa.generate_private_key(1024),
}


def certificate(key, name: str, issuer=None, issuer_key=None, email: str = "", serial: int = 0, ca: bool = False) -> bytes:  # type: ignore[no-untyped-def]
    """A certificate for a key, self-signed unless an issuer is given."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer.subject if issuer else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=serial or x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=30),
    ).add_extension(x509.BasicConstraints(ca=ca or issuer is None, path_length=None), critical=True)
    if email:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=False)
    signer = issuer_key or key
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(signer, digest).public_bytes(Encoding.DER)


@pytest.fixture(params=[PASSWORD, ""], ids=["password", "empty"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Tools:
    """An empty database that certutil made."""
    (tmp_path / "theirs").mkdir()
    tools = Tools(tmp_path / "theirs", request.param)
    tools.initialise()
    return tools


@pytest.fixture(params=[PASSWORD, ""], ids=["password", "empty"])
def ours(request: pytest.FixtureRequest, tmp_path: Path) -> Tools:
    """An empty database that we made."""
    return make(tmp_path / "ours", request.param)


def make(directory: Path, password: str) -> Tools:
    directory.mkdir()
    with Database.open(directory, read_only=False, create=True) as database:
        assert not database.has_password
        database.set_password(None, password)
        assert database.has_password
        assert database.needs_login is bool(password)
        assert database.unlocked
    return Tools(directory, password)


def opened(tools: Tools, *, read_only: bool = False) -> Database:
    database = Database.open(f"sql:{tools.directory}", read_only=read_only)
    assert database.needs_login is bool(tools.password)
    assert database.unlocked is not bool(tools.password)
    assert database.unlock(tools.password)
    return database


def test_everything_certutil_made_is_read(theirs: Tools) -> None:
    theirs.issue("The CA", "-k", "rsa", "-g", "2048", trust="CTu,Cu,Cu")
    for curve in ("nistp256", "nistp384", "nistp521"):
        theirs.issue(curve, "-k", "ec", "-q", curve, "-7", f"Me@{curve}.Example", issuer="The CA")
    theirs.certutil("-G", "-z", theirs.noise, "-k", "dsa", "-g", "1024", "-n", "a dsa key")
    with opened(theirs, read_only=True) as database:
        found = {record.nickname: record for record in database.certificates()}
        assert set(found) == set(theirs.listed()) == {"The CA", "nistp256", "nistp384", "nistp521"}
        assert {key.key_id.hex(): key.kind for key in database.keys()} == theirs.keys()
        assert found["nistp384"].email == "me@nistp384.example"
        keys = {key.key_id: key for key in database.keys()}
        for nickname, record in found.items():
            assert record.der == theirs.der(nickname)
            assert str(database.trust(record.der)) == theirs.listed()[nickname]
            public_key = x509.load_der_x509_certificate(record.der).public_key()
            assert keys[record.key_id].public_key == public_key
        for key in keys.values():
            signs(database.private_key(key), key.public_key)
        parsed = x509.load_der_x509_certificate(found["nistp256"].der)
        place = (parsed.issuer.public_bytes(), parsed.serial_number)
        assert database.certificates(issuer_serial=place) == database.certificates(nickname="nistp256")
        assert database.certificates(subject=parsed.subject.public_bytes()) == [found["nistp256"]]
        assert database.certificates(der=found["nistp256"].der, nickname="nistp384") == []


def test_everything_we_made_works_in_nss(ours: Tools) -> None:
    root_key = rsa.generate_private_key(65537, 2048)
    root = x509.load_der_x509_certificate(certificate(root_key, "Root"))
    made = {name: generate() for name, generate in KEYS.items()}
    with opened(ours) as database:
        database.add_certificate(root.public_bytes(Encoding.DER), "Root", Trust.parse("CT,C,C"))
        for name, key in made.items():
            database.add_key(key, name)
            der = certificate(key, f"the {name}", root, root_key, f"{name}@ours.example")
            database.add_certificate(der, name)
        ids = {key.nickname: key.key_id.hex() for key in database.keys()}
        for key in database.keys():
            signs(database.private_key(key), made[key.nickname].public_key())
    assert ours.listed() == {"Root": "CT,C,C"} | dict.fromkeys(made, "u,u,u")
    assert set(ours.keys()) == set(ids.values())
    for name, key in made.items():
        if name != "dsa":  # NSS 3.87 refuses DSA in certificates
            assert "certificate is valid" in ours.certutil("-V", "-n", name, "-u", "V" if name != "Root" else "L")
        content = pkcs12_content(ours.export(name, "x"))
        assert content.key.private_numbers() == key.private_numbers()
    ours.certutil("-M", "-n", "p256", "-t", "P,,")
    ours.certutil("-F", "-k", ids["p384"])
    ours.certutil("-D", "-n", "p521")
    with opened(ours) as database:
        assert str(database.trust(database.certificates(nickname="p256")[0].der)) == "Pu,u,u"
        assert {key.nickname for key in database.keys()} == set(made) - {"p384"}
        assert {record.nickname for record in database.certificates()} == {"Root", *made} - {"p521"}


def pkcs12_content(data: bytes, password: bytes = b"x"):  # type: ignore[no-untyped-def]
    with warnings.catch_warnings(action="ignore"):  # pk12util writes BER
        return load_pkcs12(data, password)


def test_trust_in_both_directions(theirs: Tools) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with opened(theirs) as database:
        for number, letters in enumerate(TRUSTS):
            der = certificate(key, f"number {number}")
            pem = theirs.file("pem", x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
            if number % 2:
                theirs.certutil("-A", "-n", f"n{number}", "-t", letters, "-i", pem)
            else:
                database.add_certificate(der, f"n{number}", Trust.parse(letters))
            assert str(database.trust(der)) == theirs.listed()[f"n{number}"], letters
        for number, letters in enumerate(TRUSTS):
            der = database.certificates(nickname=f"n{number}")[0].der
            if number % 2:
                database.set_trust(der, Trust.parse(TRUSTS[-number]))
            else:
                theirs.certutil("-M", "-n", f"n{number}", "-t", TRUSTS[-number])
            assert str(database.trust(der)) == theirs.listed()[f"n{number}"], letters


@pytest.mark.usefixtures("few_iterations")
def test_password_changes_by_either_side(theirs: Tools) -> None:
    theirs.issue("one", "-k", "ec", "-q", "nistp256", trust="CTu,u,u")
    theirs.issue("two", "-k", "rsa", "-g", "2048", trust="Pu,u,u")
    changes = ["second password", "", "third ☃", "", "fourth"]
    for number, password in enumerate(changes):
        with opened(theirs) as database:
            if number % 2:
                theirs.change_password(password)
                with pytest.raises(DatabaseLocked):  # the key this object holds is no longer that of the database
                    database.private_key(database.keys()[0])
                assert database.unlock(password)
            else:
                with pytest.raises(PinIncorrect):
                    database.set_password("not it", password)
                database.set_password(theirs.password, password)
                theirs.password = password
            assert set(theirs.keys()) == {key.key_id.hex() for key in database.keys()}
            assert theirs.listed() == {"one": "CTu,u,u", "two": "Pu,u,u"}
            for key in database.keys():
                signs(database.private_key(key), key.public_key)
            for record in database.certificates():
                assert str(database.trust(record.der)) == theirs.listed()[record.nickname]
        for key_id in theirs.keys():
            request = theirs.scratch / "request"
            theirs.certutil("-R", "-k", key_id, "-s", "CN=signed by NSS", "-o", request)
            assert x509.load_der_x509_csr(request.read_bytes()).is_signature_valid
    pkcs12_content(theirs.export("two", "x"))


def test_locked_without_the_password(tmp_path: Path) -> None:
    tools = make(tmp_path / "db", PASSWORD)
    key = ec.generate_private_key(ec.SECP256R1())
    der = certificate(key, "me")
    with opened(tools) as database:
        record = database.add_key(key, "me")
        database.lock()
        assert not database.unlocked
        assert not database.unlock(PASSWORD + "x")
        assert not database.unlock("")
        assert database.keys() == [record]
        for change in (
            lambda: database.private_key(record),
            lambda: database.add_key(ec.generate_private_key(ec.SECP256R1())),
            lambda: database.add_certificate(der, "me", Trust.parse("CT,,")),
        ):
            with pytest.raises(DatabaseLocked) as caught:
                change()
            assert caught.value.name == "SEC_ERROR_TOKEN_NOT_LOGGED_IN"
        assert database.certificates() == []  # the certificate went back with its trust
        database.add_certificate(der, "me")  # certificates are public
        assert len(tools.listed()) == 1


@pytest.mark.usefixtures("few_iterations")
def test_pkcs12_with_a_chain_in_both_directions(theirs: Tools, tmp_path: Path) -> None:
    keys = {name: KEYS[kind]() for name, kind in (("Root of it", "p256"), ("Middle", "p384"), ("leaf", "rsa"))}
    root = certificate(keys["Root of it"], "Root of it")
    middle = certificate(keys["Middle"], "Middle", x509.load_der_x509_certificate(root), keys["Root of it"], ca=True)
    leaf = certificate(keys["leaf"], "leaf", x509.load_der_x509_certificate(middle), keys["Middle"])
    with opened(theirs) as source:
        source.add_key(keys["leaf"])
        for name, der, trust in (("Root of it", root, "CT,C,C"), ("Middle", middle, ",,"), ("leaf", leaf, "u,u,u")):
            source.add_certificate(der, name, Trust.parse(trust))
    ours = make(tmp_path / "ours", "another password")
    with opened(ours) as database, opened(theirs) as source:
        imported = pkcs12.import_(database, theirs.export("leaf", "fîle"), "fîle")
        assert imported.certificates[0].nickname == "leaf"
        assert {record.der for record in database.certificates()} == {record.der for record in source.certificates()}
        signs(database.private_key(imported.keys[0]), x509.load_der_x509_certificate(theirs.der("leaf")).public_key())  # type: ignore[arg-type]
        with pytest.raises(PinIncorrect):
            pkcs12.import_(database, theirs.export("leaf", "fîle"), "file")
        with pytest.raises(CertificateError):
            pkcs12.import_(database, b"no such thing", "file")
        for name, error in (("nobody", "SEC_ERROR_UNKNOWN_CERT"), ("Root of it", "SEC_ERROR_NO_KEY")):
            with pytest.raises(NotFound) as caught:
                pkcs12.export(database, name, "x")
            assert caught.value.name == error
        data = pkcs12.export(source, "leaf", "öut")
        assert len(pkcs12_content(data, "öut".encode()).additional_certs) == 2
    assert set(ours.keys().values()) == {"rsa"}
    fresh = make(tmp_path / "fresh", "")
    fresh.import_(data, "öut")
    assert set(fresh.keys().values()) == {"rsa"}
    assert fresh.der("leaf") == theirs.der("leaf")


@pytest.mark.usefixtures("few_iterations")
def test_pkcs12_with_a_dsa_key_in_both_directions(theirs: Tools, tmp_path: Path) -> None:
    key = KEYS["dsa"]()
    ours = make(tmp_path / "ours", "another password")
    with opened(ours) as database:
        database.add_key(key, "dsa")
        database.add_certificate(certificate(key, "dsa"), "dsa")
        theirs.import_(pkcs12.export(database, "dsa", "fîle"), "fîle")
    assert theirs.keys() == ours.keys()
    assert set(theirs.keys().values()) == {"dsa"}
    again = make(tmp_path / "again", "")
    with opened(again) as database:
        imported = pkcs12.import_(database, theirs.export("dsa", "x"), "x")
        signs(database.private_key(imported.keys[0]), key.public_key())
    assert again.keys() == ours.keys()


def test_crls_in_both_directions(theirs: Tools) -> None:
    theirs.issue("The CA", "-k", "rsa", "-g", "2048", trust="CTu,Cu,Cu")
    script = theirs.file("script", "update=20260101000000Z\naddcert 5 20260101000000Z\n")
    theirs.run("crlutil", "-G", "-n", "The CA", "-c", script, "-f", theirs.file("password", theirs.password + "\n"))
    with opened(theirs) as database:
        (kept,) = database.crls()
        parsed = x509.load_der_x509_crl(kept.der)
        assert kept.issuer == parsed.issuer.public_bytes()
        assert [revoked.serial_number for revoked in parsed] == [5]
        key = database.private_key(database.keys()[0])
        assert isinstance(key, rsa.RSAPrivateKey)
        newer, older = (crl(parsed.issuer, key, year) for year in (2026, 2025))
        added = database.add_crl(newer, "http://crl.example/")
        assert database.crls() == [added]
        assert added.url == "http://crl.example/"
        with pytest.raises(CertificateError) as caught:
            database.add_crl(older)
        assert caught.value.name == "SEC_ERROR_OLD_CRL"
        with pytest.raises(CertificateError):
            database.add_crl(b"\x30\x00")
        assert "Serial Number: 77" in theirs.run("crlutil", "-L", "-n", "The CA").replace("77 (0x4d)", "77")
        database.delete_crl(added)
        assert database.crls() == []


def crl(issuer: x509.Name, key: rsa.RSAPrivateKey, year: int) -> bytes:
    day = datetime.datetime(year, 6, 1, tzinfo=datetime.UTC)
    revoked = x509.RevokedCertificateBuilder(77, day).build()
    builder = x509.CertificateRevocationListBuilder(
        issuer, day, day + datetime.timedelta(days=900), revoked_certificates=[revoked]
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def test_the_old_form_is_read_and_becomes_the_new_one(tmp_path: Path) -> None:
    directory = tmp_path / "old"
    shutil.copytree(OLD, directory)
    tools = Tools(directory, "an old password")
    assert sorted(tools.keys().values()) == ["ec", "rsa"]  # NSS reads the fixture
    with Database.open(directory) as database:
        assert not database.unlock("a new password")
        assert database.unlock("an old password")
        for key in database.keys():
            signs(database.private_key(key), key.public_key)
        assert {str(database.trust(record.der)) for record in database.certificates()} == {"CTu,Cu,u"}
    with Database.open(directory, read_only=False) as database:
        database.set_password("an old password", "new")
    tools.password = "new"
    assert sorted(tools.keys().values()) == ["ec", "rsa"]
    with sqlite3.connect(directory / "key4.db") as raw:
        blobs = [value for row in raw.execute("SELECT a11, a123, a128 FROM nssPrivate") for value in row if value]
        signed = raw.execute("SELECT count(*) FROM metaData WHERE id LIKE 'sig_key_%_00000011'").fetchone()
    raw.close()
    assert len(blobs) == 3
    assert all(bytes.fromhex("2a864886f70d01050d") in blob for blob in blobs)  # PBES2
    assert signed == (1,)
    pkcs12_content(tools.export("old rsa", "x"))


def test_what_others_changed_is_seen(tmp_path: Path) -> None:
    tools = make(tmp_path / "db", PASSWORD)
    key, other = KEYS["p256"](), KEYS["p256"]()
    der = certificate(key, "me")
    with opened(tools) as database:
        records = [database.add_key(key), database.add_key(other)]
        database.add_certificate(der, "me", Trust.parse(",,"))
    with sqlite3.connect(tmp_path / "db" / "cert9.db") as raw:
        raw.execute("UPDATE nssPublic SET ace536358=? WHERE a0=?", (bytes.fromhex("ce534352"), bytes.fromhex("ce534353")))
    raw.close()
    with sqlite3.connect(tmp_path / "db" / "key4.db") as raw:
        values = dict(raw.execute("SELECT id, a11 FROM nssPrivate").fetchall())
        raw.execute("UPDATE nssPrivate SET a11=? WHERE id=?", (values[records[1].id], records[0].id))
    raw.close()
    with opened(tools) as database:
        assert str(database.trust(der)) == "u,u,u"  # the MAC of the new value does not fit
        database.lock()
        assert str(database.trust(der)) == tools.listed()["me"] == "Cu,u,u"  # which only who knows the password can see
        assert database.unlock(PASSWORD)
        with pytest.raises(DatabaseError) as caught:
            database.private_key(records[0])
        assert caught.value.name == "SEC_ERROR_BAD_DATABASE"
        database.private_key(records[1])
        with pytest.raises(DatabaseError):
            database.set_password(PASSWORD, "new")  # it would lose a key
        database.private_key(records[1])  # and all is as before


@pytest.mark.usefixtures("few_iterations")
def test_same_things_twice(ours: Tools) -> None:
    key, other = KEYS["p256"](), KEYS["p256"]()
    der = certificate(key, "me", serial=7)
    with opened(ours) as database:
        assert database.add_key(key, "a").id == database.add_key(key, "b").id
        assert [record.nickname for record in database.keys()] == ["b"]
        first = database.add_certificate(der, "me")
        assert database.add_certificate(der, "me") == first
        with pytest.raises(DatabaseError) as collision:
            database.add_certificate(certificate(other, "you"), "me")
        assert collision.value.name == "SEC_ERROR_CERT_NICKNAME_COLLISION"
        with pytest.raises(CertificateError) as reused:
            database.add_certificate(certificate(other, "me", serial=7), "me")
        assert reused.value.name == "SEC_ERROR_REUSED_ISSUER_AND_SERIAL"
        renewed = database.add_certificate(certificate(key, "me", serial=8), "me")  # one subject, one nickname
        assert len(database.certificates(nickname="me")) == 2
        database.delete_certificate(renewed)
        assert database.set_nickname(first, "mine").nickname == "mine"
        assert set(ours.listed()) == {"mine"}
        database.delete_key(database.keys()[0])
        assert ours.listed() == {"mine": ",,"}
        with pytest.raises(CertificateError):
            database.add_certificate(der[:-1], "half")
        with pytest.raises(ConfigurationError):
            database.add_key(ec.generate_private_key(ec.SECP256K1()))


def test_ed25519_keys_are_kept_and_do_not_trouble_certutil(ours: Tools) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    with opened(ours) as database:
        record = database.add_key(key, "edwards")
        assert record.kind == "ed25519"
        signs(database.private_key(record), key.public_key())
    assert list(ours.keys()) == [record.key_id.hex()]  # of a kind that NSS 3.87 has no name for
    ours.change_password("another")
    with opened(ours) as database:
        signs(database.private_key(database.keys()[0]), key.public_key())


def test_selfserv_serves_from_a_database_of_ours(tmp_path: Path) -> None:
    tools = make(tmp_path / "db", "")
    key = KEYS["p256"]()
    der = certificate(key, "localhost")
    with opened(tools) as database:
        database.add_key(key, "server")
        database.add_certificate(der, "server", Trust.parse("Pu,,"))
    port = free_port()
    command: list[str | Path] = [require("selfserv"), "-p", str(port), "-d", f"sql:{tools.directory}", "-n", "server", "-v"]
    with Process(command) as process:
        deadline = time.monotonic() + 20
        while not accepts(port):
            assert process.running, process.output
            assert time.monotonic() < deadline
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(der))
        context.check_hostname = False
        with socket.create_connection(("127.0.0.1", port), timeout=20) as raw, context.wrap_socket(raw) as connection:
            assert connection.getpeercert(binary_form=True) == der


def test_no_secret_is_shown(tmp_path: Path) -> None:
    tools = make(tmp_path / "db", PASSWORD)
    with opened(tools) as database:
        record = database.add_key(KEYS["rsa"](), "mine")
        shown = repr(database) + repr(record) + repr(database.keys()) + repr(database.certificates())
        assert PASSWORD not in shown
        assert "private" not in shown.lower()
        with pytest.raises(PinIncorrect) as caught:
            database.set_password("s3cret", "t0psecret")
        assert "s3cret" not in str(caught.value)
        assert "t0psecret" not in str(caught.value)
