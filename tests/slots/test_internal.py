"""Software keys: out of files, behind the same interface."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from nss_pk11 import pins
from nss_pk11.errors import ConfigurationError, NotFound, PinCancelled, PinError, PinIncorrect, TokenError
from nss_pk11.slots import Algorithm, PrivateKey, SlotManager
from tests.db.tools import FEW_ITERATIONS, Tools
from tests.support.pki import Authority

from .conftest import Asked
from .signatures import digest, verify

MADE: dict[str, Any] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "dsa": dsa.generate_private_key(1024),
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ed448": ed448.Ed448PrivateKey.generate(),
    "mldsa44": mldsa.MLDSA44PrivateKey.generate(),
    "mldsa65": mldsa.MLDSA65PrivateKey.generate(),
    "mldsa87": mldsa.MLDSA87PrivateKey.generate(),
}
PKCS8, TRADITIONAL = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
OPEN, CLOSED = NoEncryption(), BestAvailableEncryption(b"sesame")


def write(
    path: Path, key: Any, encoding: Encoding = Encoding.PEM, form: PrivateFormat = PKCS8, lock: KeySerializationEncryption = OPEN
) -> str:
    path.write_bytes(key.private_bytes(encoding, form, lock))
    return str(path)


@pytest.fixture
def manager() -> Iterator[SlotManager]:
    with SlotManager() as manager:
        yield manager


@pytest.mark.parametrize("kind", MADE)
def test_every_kind_signs(manager: SlotManager, tmp_path: Path, kind: str) -> None:
    key, chain = manager.load_key_file(write(tmp_path / "key.pem", MADE[kind]))
    assert (key.kind, key.label, chain) == (kind, "key", [])
    assert key.algorithms
    for algorithm in key.algorithms:
        verify(MADE[kind].public_key(), algorithm, key.sign(algorithm, b"message"), b"message")
    assert key.operations == len(key.algorithms)
    assert (key.sensitive, key.extractable, key.local) == (False, True, False)
    with pytest.raises(TokenError, match="cannot sign"):
        key.sign(Algorithm.ecdsa_sha1 if kind != "ec" else Algorithm.ed25519, b"")


@pytest.mark.parametrize("kind", ["rsa", "dsa", "ec"])
def test_signs_what_is_hashed_already(manager: SlotManager, tmp_path: Path, kind: str) -> None:
    key, _ = manager.load_key_file(write(tmp_path / "key.pem", MADE[kind]))
    for algorithm in key.algorithms:
        signature = key.sign(algorithm, digest(algorithm, b"message"), prehashed=True)
        verify(MADE[kind].public_key(), algorithm, signature, b"message")


def test_key_that_hashes_for_itself_takes_no_digest(manager: SlotManager, tmp_path: Path) -> None:
    key, _ = manager.load_key_file(write(tmp_path / "key.pem", MADE["ed25519"]))
    with pytest.raises(TokenError, match="cannot sign") as caught:
        key.sign(Algorithm.ed25519, bytes(64), prehashed=True)
    assert caught.value.name == "SEC_ERROR_INVALID_ALGORITHM"


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize(("form", "lock"), [(PKCS8, OPEN), (PKCS8, CLOSED), (TRADITIONAL, OPEN)])
@pytest.mark.parametrize("kind", ["rsa", "dsa", "ec"])
def test_every_form(
    manager: SlotManager, tmp_path: Path, encoding: Encoding, form: PrivateFormat, lock: KeySerializationEncryption, kind: str
) -> None:
    path = write(tmp_path / "key", MADE[kind], encoding, form, lock)
    key, _ = manager.load_key_file(path, pins.value("sesame"))
    assert key.public_key == MADE[kind].public_key()


def test_chain_in_the_file(manager: SlotManager, tmp_path: Path) -> None:
    authority = Authority.root("Test root", "p256")
    leaf = authority.issue("leaf", MADE["ec"].public_key())
    path = write(tmp_path / "both.pem", MADE["ec"])
    with open(path, "ab") as stream:
        stream.write(leaf.public_bytes(Encoding.PEM) + authority.certificate.public_bytes(Encoding.PEM))
    ders = [leaf.public_bytes(Encoding.DER), authority.certificate.public_bytes(Encoding.DER)]
    key, chain = manager.load_key_file(path)
    assert chain == ders
    assert manager.certificate_for(key) == ders[0]
    for lock in (NoEncryption(), BestAvailableEncryption(b"sesame")):
        packed = pkcs12.serialize_key_and_certificates(b"n", MADE["ec"], leaf, [authority.certificate], lock)
        (tmp_path / "key.p12").write_bytes(packed)
        key, chain = manager.load_key_file(str(tmp_path / "key.p12"), pins.value("sesame"))
        assert (key.public_key, chain) == (MADE["ec"].public_key(), ders)


def test_a_dsa_key_in_pkcs12(manager: SlotManager, tmp_path: Path) -> None:
    leaf = Authority.root("Test root", "p256").issue("leaf", MADE["dsa"].public_key())
    packed = pkcs12.serialize_key_and_certificates(b"n", MADE["dsa"], leaf, None, BestAvailableEncryption(b"sesame"))
    (tmp_path / "key.p12").write_bytes(packed)
    key, chain = manager.load_key_file(str(tmp_path / "key.p12"), pins.value("sesame"))
    assert (key.kind, key.public_key, chain) == ("dsa", MADE["dsa"].public_key(), [leaf.public_bytes(Encoding.DER)])


@pytest.mark.parametrize("kind", ["rsa", "dsa", "ec"])
def test_what_pk12util_wrote(manager: SlotManager, tmp_path: Path, kind: str) -> None:
    """BER, which `cryptography` reads and warns of."""
    (tmp_path / "db").mkdir()
    tools = Tools(tmp_path / "db", "", environment=FEW_ITERATIONS)
    tools.initialise()
    arguments = {"rsa": ("-g", "2048"), "dsa": ("-g", "1024"), "ec": ("-q", "nistp256")}[kind]
    tools.issue("www", "-k", kind, *arguments)
    (tmp_path / "key.p12").write_bytes(tools.export("www", "sesame"))
    key, chain = manager.load_key_file(str(tmp_path / "key.p12"), pins.value("sesame"))
    assert (key.kind, chain) == (kind, [tools.der("www")])


def test_loaded_key_is_found_by_its_uri(manager: SlotManager, tmp_path: Path) -> None:
    key, _ = manager.load_key_file(write(tmp_path / "www.pem", MADE["ec"]))
    assert manager.find_key(key.uri) is key
    assert manager.find_key("pkcs11:object=www") is key
    assert manager.load_key_file(str(tmp_path / "www.pem"))[0] is key
    [token] = manager.tokens()
    assert token.keys() == [key]
    token.delete(key)
    with pytest.raises(NotFound):
        token.delete(key)


def test_passphrases(manager: SlotManager, tmp_path: Path) -> None:
    path = write(tmp_path / "key.pem", MADE["ec"], lock=CLOSED)
    with pytest.raises(PinError, match="encrypted"):
        manager.load_key_file(path)
    with pytest.raises(PinIncorrect) as caught:
        manager.load_key_file(path, pins.value("guess"))
    assert "guess" not in str(caught.value)
    with pytest.raises(PinCancelled):
        manager.load_key_file(path, Asked([None]))
    person = Asked(["guess", "sesame"])
    manager.load_key_file(path, person)
    assert [(request.token, request.retry) for request in person.requests] == [(path, False), (path, True)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"0\x82\x01",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n"
        b"AAAA\n-----END EC PRIVATE KEY-----\n",
        os.urandom(500),
    ],
)
def test_no_key_in_the_file(manager: SlotManager, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pem").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"bad\.pem"):
        manager.load_key_file(str(tmp_path / "bad.pem"), pins.value("x"))


def test_no_file(manager: SlotManager, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        manager.load_key_file(str(tmp_path / "none.pem"))


def test_two_keys_in_a_file(manager: SlotManager, tmp_path: Path) -> None:
    one, two = (Path(write(tmp_path / f"{kind}.pem", MADE[kind])).read_bytes() for kind in ("ec", "rsa"))
    (tmp_path / "two.pem").write_bytes(one + two)
    with pytest.raises(ConfigurationError, match="2 private keys"):
        manager.load_key_file(str(tmp_path / "two.pem"))


@pytest.mark.parametrize("key", [x25519.X25519PrivateKey.generate(), x448.X448PrivateKey.generate()])
def test_key_that_tls_has_no_use_for(manager: SlotManager, tmp_path: Path, key: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        manager.load_key_file(write(tmp_path / "odd.pem", key))
    assert caught.value.name == "SEC_ERROR_UNSUPPORTED_KEYALG"


def test_decryption_rejects_implicitly(manager: SlotManager, tmp_path: Path) -> None:
    """Bad padding gives a plaintext all the same, the same for the same ciphertext: nothing to tell an attacker."""
    key, _ = manager.load_key_file(write(tmp_path / "rsa.pem", MADE["rsa"]))
    assert key.can_decrypt
    secret = os.urandom(48)
    assert key.decrypt(MADE["rsa"].public_key().encrypt(secret, padding.PKCS1v15())) == secret
    bad = b"\1" * 256
    assert isinstance(key.decrypt(bad), bytes)
    assert key.decrypt(bad) == key.decrypt(bad)
    assert key.decrypt(b"short") is None


def test_internal_token_keeps_nothing(manager: SlotManager) -> None:
    [token] = manager.tokens()
    token.login()
    assert token.logged_in
    for make in (
        lambda: token.generate_key("p256", "x"),
        lambda: token.initialise("x", "1", "1"),
        lambda: token.import_certificate(b"", "x", b""),
    ):
        with pytest.raises(TokenError) as caught:
            make()
        assert caught.value.name == "SEC_ERROR_READ_ONLY"


def test_both_sorts_of_key_have_the_whole_interface(manager: SlotManager, tmp_path: Path) -> None:
    key: PrivateKey = manager.load_key_file(write(tmp_path / "key.pem", MADE["ec"]))[0]
    for name in ("label", "id", "uri", "token", "kind", "bits", "public_key", "latency", "always_authenticate"):
        assert getattr(key, name) is not None
    assert "key" in repr(key)
