"""A database directory that certutil made, as a token: what shows, who is asked for the password, what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from nss_pk11 import pins
from nss_pk11.db import modules
from nss_pk11.errors import DatabaseError, DatabaseLocked, NotFound, PinError, PinIncorrect, TokenError
from nss_pk11.slots import Algorithm, PinMemory, PrivateKey, SlotManager
from tests.db.tools import FEW_ITERATIONS, Tools
from tests.slots.conftest import Asked
from tests.slots.signatures import verify
from tests.support.softhsm import PIN, SoftHSM

PASSWORD = "database secret"
MESSAGE = b"to be signed"


def make(directory: Path, password: str = PASSWORD) -> Tools:
    directory.mkdir()
    tools = Tools(directory, password, environment=FEW_ITERATIONS)
    tools.initialise()
    return tools


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """A CA, and a server's key and certificate with an e-mail address.  To be read only."""
    tools = make(tmp_path_factory.mktemp("database") / "db")
    tools.issue("www", "-k", "ec", "-q", "nistp256", "-7", "www@example.org")
    tools.issue("rsa", "-g", "2048")
    return tools


@pytest.fixture
def manager() -> Iterator[SlotManager]:
    """Nobody to ask, and nothing remembered of other tests' passwords."""
    with SlotManager(memory=PinMemory()) as manager:
        yield manager


def verified(key: PrivateKey, der: bytes, *, patient: bool = True) -> bool:
    public = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(key.sign(Algorithm.ecdsa_sha256, MESSAGE, patient=patient), MESSAGE, ec.ECDSA(SHA256()))
    return True


def test_what_shows_without_a_login(manager: SlotManager, theirs: Tools) -> None:
    token = manager.open_database(theirs.directory, load_roots=False).token
    assert token.flags == {
        "CKF_RNG", "CKF_TOKEN_INITIALIZED", "CKF_USER_PIN_INITIALIZED", "CKF_LOGIN_REQUIRED", "CKF_WRITE_PROTECTED"
    }  # fmt: skip
    assert not token.logged_in
    assert {item.label: item.der for item in token.certificates()} == {name: theirs.der(name) for name in ("www", "rsa")}
    assert {(key.label, key.id.hex(), key.kind) for key in token.find_keys()} == {
        ({"ec": "www", "rsa": "rsa"}[kind], id, kind) for id, kind in theirs.keys().items()
    }
    assert (token.info.label, token.info.slot) == ("NSS Certificate DB", "NSS User Private Key and Certificate Services")


def test_the_password_is_asked_once_and_again_after_a_logout(manager: SlotManager, theirs: Tools) -> None:
    asked = Asked([PASSWORD])
    token = manager.open_database(f"sql:{theirs.directory}", load_roots=False).token
    (key,) = token.find_keys(asked, label="www")
    with pytest.raises(DatabaseLocked):
        key.sign(Algorithm.ecdsa_sha256, MESSAGE, patient=False)
    assert asked.requests == []
    der = theirs.der("www")
    assert verified(key, der)
    assert verified(key, der, patient=False)
    assert len(asked.requests) == 1
    assert asked.requests[0].token == "NSS Certificate DB"
    token.logout()
    with pytest.raises(DatabaseLocked):
        key.sign(Algorithm.ecdsa_sha256, MESSAGE, patient=False)
    assert verified(key, der)
    assert len(asked.requests) == 2
    assert key.operations == 3


def test_a_wrong_password_is_not_tried_twice(manager: SlotManager, theirs: Tools) -> None:
    token = manager.open_database(theirs.directory, load_roots=False).token
    asked = Asked(["wrong"], person=False, static=True)
    for _ in range(2):
        with pytest.raises(PinIncorrect):
            token.login(asked)
    with pytest.raises(PinError):
        token.login()
    token.login(pins.value(PASSWORD))
    assert token.logged_in


def test_databases_do_not_share_what_is_known_of_passwords(manager: SlotManager, theirs: Tools, tmp_path: Path) -> None:
    other = make(tmp_path / "other", "another secret")
    first = manager.open_database(theirs.directory, load_roots=False).token
    second = manager.open_database(other.directory, load_roots=False).token
    with pytest.raises(PinIncorrect):
        second.login(pins.value(PASSWORD))
    first.login(pins.value(PASSWORD))
    second.login(pins.value("another secret"))
    assert [slot.id for slot in manager.databases] == [2, 3]
    assert len(manager.find_certificates("pkcs11:token=NSS%20Certificate%20DB")) == 2


def test_without_a_password_nobody_is_asked(manager: SlotManager, tmp_path: Path) -> None:
    tools = make(tmp_path / "db", "")
    tools.issue("www", "-k", "ec", "-q", "nistp256")
    manager.open_database(tools.directory, load_roots=False)
    key = manager.find_key("pkcs11:token=NSS%20Certificate%20DB;object=www")
    assert verified(key, tools.der("www"))
    assert manager.certificate_for(key) == tools.der("www")


def test_read_only_unless_asked(manager: SlotManager, theirs: Tools) -> None:
    before = {file.name: file.read_bytes() for file in theirs.directory.iterdir()}
    token = manager.open_database(theirs.directory, load_roots=False).token
    token.login(pins.value(PASSWORD))
    with pytest.raises(DatabaseError) as caught:
        token.generate_key("p256", "new")
    assert caught.value.name == "SEC_ERROR_READ_ONLY"
    with pytest.raises(DatabaseError):
        token.import_certificate(theirs.der("www"), "again", b"")
    assert {file.name: file.read_bytes() for file in theirs.directory.iterdir()} == before


def test_certutil_finds_what_the_token_made(manager: SlotManager, tmp_path: Path) -> None:
    tools = make(tmp_path / "db")
    token = manager.open_database(tools.directory, read_only=False, load_roots=False).token
    token.login(pins.value(PASSWORD))
    made = token.generate_key("p256", "made")
    assert tools.keys() == {made.id.hex(): "ec"}
    tools.certutil("-S", "-z", tools.noise, "-n", "made", "-s", "CN=made", "-x", "-t", ",,", "-k", made.id.hex())
    assert verified(made, tools.der("made"))
    token.delete(token.certificates()[0])
    token.delete(made)
    assert (tools.listed(), token.keys()) == ({}, [])


def test_a_password_is_changed(manager: SlotManager, tmp_path: Path) -> None:
    tools = make(tmp_path / "db")
    tools.issue("www", "-k", "ec", "-q", "nistp256")
    token = manager.open_database(tools.directory, read_only=False, load_roots=False).token
    with pytest.raises(PinIncorrect):
        token.login(pins.value("new secret"))
    token.change_pin(PASSWORD, "new secret")
    token.logout()
    token.login(pins.value("new secret"))
    tools.password = "new secret"
    assert list(tools.keys().values()) == ["ec"]


def test_keys_of_other_kinds_are_passed_over(manager: SlotManager, tmp_path: Path) -> None:
    tools = make(tmp_path / "db", "")
    tools.certutil("-G", "-z", tools.noise, "-k", "ec", "-q", "curve25519")
    tools.certutil("-G", "-z", tools.noise, "-k", "dsa", "-g", "1024")
    tools.issue("www", "-k", "ec", "-q", "nistp256")
    token = manager.open_database(tools.directory, load_roots=False).token
    assert sorted(key.kind for key in token.find_keys()) == ["dsa", "ec"]
    assert manager.find_key_by_certificate(tools.der("www")).label == "www"


def test_dsa_keys_are_generated_and_sign(manager: SlotManager, tmp_path: Path) -> None:
    tools = make(tmp_path / "db", "")
    token = manager.open_database(tools.directory, read_only=False, load_roots=False).token
    made = {bits: token.generate_key(f"dsa{bits}", f"dsa {bits}") for bits in (1024, 2048)}
    assert tools.keys() == {key.id.hex(): "dsa" for key in made.values()}
    for bits, key in made.items():
        assert (key.kind, key.bits, key.can_decrypt) == ("dsa", bits, False)
        for algorithm in key.algorithms:
            verify(key.public_key, algorithm, key.sign(algorithm, MESSAGE), MESSAGE)


@pytest.mark.parametrize(("curve", "second"), [(ec.SECP256R1(), 63), (ec.SECP384R1(), 95)], ids=["p256", "p384"])
def test_a_point_that_looks_like_an_octet_string(
    manager: SlotManager, tmp_path: Path, curve: ec.EllipticCurve, second: int
) -> None:
    """04, then what would be the length: one key in 256."""
    private = ec.generate_private_key(curve)
    while private.public_key().public_numbers().x >> (curve.key_size - 8) != second:
        private = ec.generate_private_key(curve)
    tools = make(tmp_path / "db")
    token = manager.open_database(tools.directory, read_only=False, load_roots=False).token
    token.login(pins.value(PASSWORD))
    record = token.database.add_key(private, "odd")
    assert tools.keys() == {record.key_id.hex(): "ec"}
    (key,) = token.find_keys()
    assert key.public_key == private.public_key()
    assert key.sign(Algorithm.ecdsa_sha256, MESSAGE)


# --- nicknames -------------------------------------------------------------------------------------------------------


def test_nicknames(manager: SlotManager, theirs: Tools) -> None:
    manager.open_database(theirs.directory, load_roots=False)
    der = theirs.der("www")
    for name in ("www", "NSS Certificate DB:www", "www@example.org", "NSS Certificate DB:WWW@example.org"):
        assert [item.der for item in manager.find_certificates_by_nickname(name)] == [der], name
    for name in ("", "nobody", "no such token:www", "NSS Certificate DB:", "nobody@example.org"):
        assert manager.find_certificates_by_nickname(name) == [], name
    assert manager.find_key_by_certificate(der).label == "www"


def test_a_nickname_on_a_token_of_another_module(manager: SlotManager, theirs: Tools, softhsm: SoftHSM, tmp_path: Path) -> None:
    """The certificate lies in the database, too; its key on the card alone."""
    card = softhsm.create_token("card of the database")
    card.generate_key("p256", "me")
    tools = make(tmp_path / "db")
    modules.add(tools.directory / modules.FILE, modules.external("softhsm", softhsm.module_path))
    manager.open_database(tools.directory, load_roots=False)
    (token,) = (token for token in manager.tokens() if token.info.label == "card of the database")
    token.login(pins.value(PIN))
    key = token.keys()[0]
    der = make_certificate(key)
    token.import_certificate(der, "me", key.id)
    assert [item.der for item in manager.find_certificates_by_nickname("card of the database:me")] == [der]
    assert manager.find_certificates_by_nickname("me") == []
    assert manager.find_key_by_certificate(der).uri == key.uri
    with pytest.raises(NotFound):
        manager.find_key_by_certificate(theirs.der("www"))


def make_certificate(key: PrivateKey) -> bytes:
    from datetime import UTC, datetime

    from cryptography.hazmat.primitives.serialization import Encoding

    from nss_pk11.cli import issue

    made = issue.self_signed(key, ("localhost",), now=datetime.now(UTC), days=2, subject=None, usage=issue.Usage.both)
    return made.public_bytes(Encoding.DER)


# --- modules ---------------------------------------------------------------------------------------------------------


def test_a_module_that_does_not_load(manager: SlotManager, tmp_path: Path) -> None:
    tools = make(tmp_path / "db", "")
    path = tools.directory / modules.FILE
    modules.add(path, modules.external("absent", str(tmp_path / "absent.so")))
    manager.open_database(tools.directory, load_roots=False)
    assert [module.path for module in manager.modules] == [""]
    modules.add(path, modules.external("absent", str(tmp_path / "absent.so"), critical=True))
    with pytest.raises(TokenError):
        manager.open_database(tools.directory, load_roots=False)
    assert len(manager.databases) == 1


def test_the_roots_are_found(manager: SlotManager, theirs: Tools) -> None:
    if modules.roots_library() is None:
        pytest.skip("no libnssckbi.so on this system")
    manager.open_database(theirs.directory)
    (token,) = (token for token in manager.tokens() if "Builtin" in token.info.label)
    assert len(token.certificates()) > 50
    name = token.certificates()[0].label
    assert manager.find_certificates_by_nickname(f"{token.info.label}:{name}")[0].label == name
