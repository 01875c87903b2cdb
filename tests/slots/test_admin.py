"""From a blank token to a key with its certificate, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nss_pk11 import pins
from nss_pk11.errors import Ambiguous, ConfigurationError, NotFound, PinIncorrect, TokenError
from nss_pk11.slots import Algorithm, SlotManager, Token
from nss_pk11.slots.cryptoki import Attribute, ObjectClass
from tests.support.pki import Authority
from tests.support.softhsm import PIN, SO_PIN, SoftHSM, TokenOnDisk

from .signatures import verify


@pytest.fixture
def token(softhsm: SoftHSM, new_token: Callable[..., TokenOnDisk]) -> Iterator[Token]:
    """Logged in."""
    made = new_token()
    with SlotManager() as manager:
        manager.load(softhsm.module_path)
        [token] = [token for token in manager.tokens() if token.info.label == made.label]
        token.login(pins.value(PIN))
        yield token


def test_blank_token_is_made_ready(manager: SlotManager) -> None:
    [blank] = [token for token in manager.tokens() if "CKF_TOKEN_INITIALIZED" not in token.flags]
    made = blank.initialise("made here", SO_PIN, PIN)
    assert made.info.label == "made here"
    assert made.info.serial
    assert made.flags >= {"CKF_TOKEN_INITIALIZED", "CKF_USER_PIN_INITIALIZED"}
    made.login(pins.value(PIN))
    assert made.keys() == []
    key = made.generate_key("p256", "first")
    # SoftHSM moves a new token to another slot when it starts again.
    manager.close()
    manager.load(key.token.module)
    assert manager.find_key(f"pkcs11:token=made%20here;serial={made.info.serial}", pins.value(PIN)).public_key == key.public_key


def test_initialising_anew_erases_and_wants_the_officers_pin(token: Token) -> None:
    token.generate_key("p256", "doomed")
    with pytest.raises(PinIncorrect):
        token.initialise(token.info.label, "not the PIN", PIN)
    token.login(pins.value(PIN))
    assert len(token.keys()) == 1
    renewed = token.initialise(token.info.label, SO_PIN, "55555555")
    renewed.login(pins.value("55555555"))
    assert renewed.keys() == []


def test_label_too_long(token: Token) -> None:
    with pytest.raises(TokenError, match="32 bytes"):
        token.initialise("ä" * 17, SO_PIN, PIN)


@pytest.mark.parametrize(
    ("kind", "expected", "bits"),
    [
        ("rsa2048", "rsa", 2048),
        ("rsa3072", "rsa", 3072),
        ("dsa1024", "dsa", 1024),
        ("dsa2048", "dsa", 2048),
        ("p256", "ec", 256),
        ("p384", "ec", 384),
        ("p521", "ec", 521),
        ("ed25519", "ed25519", 256),
    ],
)
def test_generated_key_never_leaves(token: Token, kind: str, expected: str, bits: int) -> None:
    key = token.generate_key(kind, f"my {kind}")
    assert (key.kind, key.bits, key.label) == (expected, bits, f"my {kind}")
    assert (key.sensitive, key.extractable, key.local, key.always_authenticate) == (True, False, True, False)
    assert key.can_decrypt == (expected == "rsa")
    for algorithm in key.algorithms:
        verify(key.public_key, algorithm, key.sign(algorithm, b"m"), b"m")
    # SHA-1 of the bits of the public key: what a certificate's subjectKeyIdentifier says too.
    if expected == "ec":
        assert key.id == hashlib.sha1(key.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)).digest()
    assert token.generate_key("p256", "named", b"\1\2").id == b"\1\2"


def test_unknown_kind(token: Token) -> None:
    with pytest.raises(ConfigurationError, match="rsa2048"):
        token.generate_key("rsa512", "x")


def test_certificate_comes_and_goes(token: Token) -> None:
    key = token.generate_key("p256", "www")
    der = Authority.root("Test root", "p256").issue("www", key.public_key).public_bytes(Encoding.DER)
    laid = token.import_certificate(der, "www", key.id)
    assert token.certificates() == [laid]
    token.delete(laid)
    assert token.certificates() == []
    with pytest.raises(NotFound):
        token.delete(laid)
    with pytest.raises(ConfigurationError, match="not a certificate"):
        token.import_certificate(b"0\0", "x", b"")


def test_deleting_takes_the_pair_and_spares_others_of_the_same_id(token: Token) -> None:
    first, second = token.generate_key("p256", "first", b"id"), token.generate_key("rsa2048", "second", b"id")
    token.delete(first)
    [left] = token.keys()
    assert left.public_key == second.public_key
    assert token.public_names() == [("second", b"id")]  # type: ignore[attr-defined]
    with pytest.raises(NotFound):
        token.delete(first)


def test_deleting_one_of_two_keys_of_one_type_and_id(token: Token) -> None:
    first, second = token.generate_key("p256", "first", b"id"), token.generate_key("p256", "second", b"id")
    token.delete(second)
    [left] = token.keys()
    assert left.public_key == first.public_key
    assert left.sign(Algorithm.ecdsa_sha256, b"m")


def test_keys_that_nothing_tells_apart_are_not_paired_by_guess(token: Token) -> None:
    token.generate_key("p256", "twin", b"id")
    with pytest.raises(NotFound):  # it was made, but which public key is whose cannot be told
        token.generate_key("p256", "twin", b"id")
    twins = token.keys()
    assert [key.algorithms for key in twins] == [frozenset(), frozenset()]
    with pytest.raises(Ambiguous):
        token.delete(twins[0])


def test_label_does_not_pair_what_ids_tell_apart(token: Token) -> None:
    """A key whose public half is gone is not given that of another key of the same label."""
    lonely, other = token.generate_key("p256", "same", b"one"), token.generate_key("p256", "same", b"two")
    library = token._library  # type: ignore[attr-defined]
    with token._writing() as session:  # type: ignore[attr-defined]
        public = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: b"one"}
        handles = {handle for handle, _ in library.find_objects(session, public, (Attribute.ID,))}
        library.destroy_objects(session, handles, public, token.info)
    found = token.keys()
    shown = {key.id: key for key in found}
    assert shown[b"two"].public_key == other.public_key
    with pytest.raises(NotFound, match="neither public key nor certificate"):
        _ = shown[b"one"].public_key
    assert shown[b"one"].algorithms == frozenset()
    # The certificate beside it is as good as the public key.
    der = Authority.root("Test root", "p256").issue("www", lonely.public_key).public_bytes(Encoding.DER)
    token.import_certificate(der, "same", b"one")
    [again] = token.find_keys(id=b"one")
    verify(lonely.public_key, Algorithm.ecdsa_sha256, again.sign(Algorithm.ecdsa_sha256, b"m"), b"m")


def test_without_login_nothing_is_made(softhsm: SoftHSM, new_token: Callable[..., TokenOnDisk]) -> None:
    made = new_token()
    with SlotManager() as manager:
        manager.load(softhsm.module_path)
        [token] = [token for token in manager.tokens() if token.info.label == made.label]
        with pytest.raises(TokenError) as caught:
            token.generate_key("p256", "x")
        assert caught.value.name == "SEC_ERROR_TOKEN_NOT_LOGGED_IN"
