"""Signing and decrypting with keys inside SoftHSM."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from nss_pk11 import pins
from nss_pk11.errors import PinError, PinIncorrect, TokenError
from nss_pk11.slots import Algorithm, PrivateKey, SlotManager, TokenKey
from nss_pk11.slots.algorithms import methods
from nss_pk11.slots.cryptoki import GENERATED, MECHANISM_NUMBERS, Attribute, MechanismFlag
from nss_pk11.slots.internal.stepdown import StepDownKeys
from tests.support.pki import Authority
from tests.support.softhsm import PIN, KeyOnToken, SoftHSM, TokenOnDisk

from .conftest import KINDS, Asked
from .signatures import digest, verify

Find = Callable[[str], PrivateKey]

ALGORITHMS = {
    "rsa": {algorithm for algorithm in Algorithm if algorithm.startswith("rsa_")},
    "p256": {algorithm for algorithm in Algorithm if algorithm.startswith("ecdsa_")},
    "p384": {algorithm for algorithm in Algorithm if algorithm.startswith("ecdsa_")},
    "p521": {algorithm for algorithm in Algorithm if algorithm.startswith("ecdsa_")},
    "ed25519": {Algorithm.ed25519},
    "ed448": {Algorithm.ed448},
}
BITS = {"rsa": 2048, "p256": 256, "p384": 384, "p521": 521, "ed25519": 256, "ed448": 456}


@pytest.mark.parametrize("kind", KINDS)
def test_every_algorithm_of_every_kind(find: Find, keys: dict[str, KeyOnToken], kind: str) -> None:
    key = find(kind)
    assert (key.algorithms, key.bits) == (ALGORITHMS[kind], BITS[kind])
    assert key.public_key == keys[kind].public_key
    assert key.id == keys[kind].id
    message = os.urandom(200)
    for algorithm in key.algorithms:
        verify(keys[kind].public_key, algorithm, key.sign(algorithm, message), message)
    assert key.operations == len(key.algorithms)
    assert 0 < key.latency < 1


@pytest.mark.parametrize("kind", ["rsa", "p256", "p521"])
def test_signs_what_is_hashed_already(find: Find, keys: dict[str, KeyOnToken], kind: str) -> None:
    key = find(kind)
    for algorithm in key.algorithms:
        signature = key.sign(algorithm, digest(algorithm, b"message"), prehashed=True)
        verify(keys[kind].public_key, algorithm, signature, b"message")


@pytest.mark.parametrize("bits", [1024, 2048])
def test_a_dsa_key_is_found_and_paired(new_token: Callable[..., TokenOnDisk], bits: int) -> None:
    made = dsa.generate_private_key(bits)
    on_token = new_token().import_key(made, "dsa")
    certificate = Authority.root("Test root", "p256").issue("dsa", made.public_key())
    on_token.token.import_certificate(certificate, on_token)
    with SlotManager() as manager:
        key = manager.find_key(on_token.uri_with_pin)
        assert (key.kind, key.bits, key.public_key, key.can_decrypt) == ("dsa", bits, made.public_key(), False)
        assert key.algorithms == {algorithm for algorithm in Algorithm if algorithm.startswith("dsa_")}
        assert manager.certificate_for(key) == certificate.public_bytes(Encoding.DER)
        for algorithm in key.algorithms:
            assert key.mechanism(algorithm) == "CKM_DSA"
            verify(key.public_key, algorithm, key.sign(algorithm, b"message"), b"message")
            verify(key.public_key, algorithm, key.sign(algorithm, digest(algorithm, b"message"), prehashed=True), b"message")


@pytest.mark.parametrize(("bits", "pss"), [(512, set()), (1024, {Algorithm.rsa_pss_sha256, Algorithm.rsa_pss_sha384})])
def test_short_rsa_keys(new_token: Callable[..., TokenOnDisk], bits: int, pss: set[Algorithm]) -> None:
    """Export suites have them; what the modulus has no room for is not offered."""
    made = StepDownKeys().get(bits)._key
    assert isinstance(made, rsa.RSAPrivateKey)
    on_token = new_token().import_key(made, f"rsa {bits}")
    pkcs1 = {Algorithm.rsa_pkcs1_md5_sha1, Algorithm.rsa_pkcs1_sha1, Algorithm.rsa_pkcs1_sha256}
    if bits == 1024:
        pkcs1 |= {Algorithm.rsa_pkcs1_sha384, Algorithm.rsa_pkcs1_sha512}
    with SlotManager() as manager:
        key = manager.find_key(on_token.uri_with_pin)
        assert (key.bits, key.algorithms) == (bits, pkcs1 | pss)
        for algorithm in key.algorithms:
            verify(made.public_key(), algorithm, key.sign(algorithm, b"message"), b"message")
        premaster = os.urandom(48)
        assert key.decrypt(made.public_key().encrypt(premaster, padding.PKCS1v15())) == premaster
        assert key.decrypt(b"\1" * (bits // 8)) is None


def test_what_the_token_says_of_a_key_made_inside(find: Find) -> None:
    key = find("rsa")
    assert (key.sensitive, key.extractable, key.local, key.always_authenticate) == (True, False, True, False)
    assert key.token.label in key.uri.replace("%20", " ")


def test_algorithm_of_another_kind_is_refused(find: Find) -> None:
    with pytest.raises(TokenError, match="cannot sign by ed25519") as caught:
        find("p256").sign(Algorithm.ed25519, b"")
    assert caught.value.name == "SEC_ERROR_INVALID_ALGORITHM"


def test_decrypt(find: Find, keys: dict[str, KeyOnToken]) -> None:
    key, public = find("rsa"), keys["rsa"].public_key
    secret = os.urandom(48)
    assert key.can_decrypt
    assert key.decrypt(public.encrypt(secret, padding.PKCS1v15())) == secret  # type: ignore[union-attr]


def test_decryption_that_fails_by_the_ciphertext_is_no_error(find: Find) -> None:
    key = find("rsa")
    for ciphertext in (bytes(256), b"\1" * 256, b"\xff" * 256, b"", b"short", bytes(257)):
        assert key.decrypt(ciphertext) is None


def test_decrypt_with_the_padding_left_on(find: Find, keys: dict[str, KeyOnToken]) -> None:
    key, public, secret = find("rsa"), keys["rsa"].public_key, os.urandom(48)
    assert key.can_decrypt_raw
    block = key.decrypt(public.encrypt(secret, padding.PKCS1v15()), raw=True)  # type: ignore[union-attr]
    assert block is not None
    assert (len(block), block[:2], block[-49:]) == (256, b"\0\2", b"\0" + secret)
    assert b"\0" not in block[2:-49]
    for ciphertext in (bytes(256), b"\1" * 256):
        assert len(key.decrypt(ciphertext, raw=True) or b"") == 256
    for ciphertext in (b"\xff" * 256, b"", b"short", bytes(257)):
        assert key.decrypt(ciphertext, raw=True) is None


def test_keys_that_cannot_decrypt_say_so(find: Find) -> None:
    assert not find("p256").can_decrypt
    assert not find("p256").can_decrypt_raw
    with pytest.raises(TokenError, match="cannot decrypt"):
        find("p256").decrypt(bytes(256))


def test_threads_sign_at_once(find: Find, keys: dict[str, KeyOnToken]) -> None:
    """python-pkcs11 alone corrupts SoftHSM's heap here: it initialises without CKF_OS_LOCKING_OK."""
    key = find("p256")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(300):
                message = b"%d" % number
                verify(keys["p256"].public_key, Algorithm.ecdsa_sha256, key.sign(Algorithm.ecdsa_sha256, message), message)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert key.operations == 4 * 300


# --- what a key may not do, and the ways round -------------------------------------------------------------------------


@pytest.fixture
def generate(manager: SlotManager, new_token: Callable[..., TokenOnDisk]) -> Callable[..., PrivateKey]:
    """Makes a key of a kind with private attributes of the test's choice; returns it as found afterwards."""
    token = new_token()
    manager.close()
    manager.load(token.hsm.module_path)
    [home] = [found for found in manager.tokens() if found.info.label == token.label]
    home.login(pins.value(PIN))

    def make(kind: str, label: str, **attributes: object) -> PrivateKey:
        library = home._library  # type: ignore[attr-defined]
        key_type, size, _, _ = GENERATED[kind]
        with home._writing() as session:  # type: ignore[attr-defined]
            session.generate_keypair(
                key_type,
                size,
                id=os.urandom(8),
                label=label,
                store=True,
                capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY | MechanismFlag.DECRYPT | MechanismFlag.ENCRYPT,
                private_template={Attribute[name]: value for name, value in attributes.items()},
            )
        assert library
        return manager.find_key(f"pkcs11:token={token.label.replace(' ', '%20')};object={label}", pins.value(PIN))

    return make


@pytest.mark.parametrize(
    ("mechanism", "expected"),
    [
        ("CKM_RSA_X_509", ALGORITHMS["rsa"]),  # padded here, signed raw
        ("CKM_SHA384_RSA_PKCS_PSS", {Algorithm.rsa_pss_sha384}),
        ("CKM_SHA256_RSA_PKCS", {Algorithm.rsa_pkcs1_sha256}),
        ("CKM_RSA_PKCS", {algorithm for algorithm in ALGORITHMS["rsa"] if "pkcs1" in algorithm}),  # no PSS: TLS 1.2 only
    ],
)
def test_key_allowed_one_mechanism(generate: Callable[..., PrivateKey], mechanism: str, expected: set[Algorithm]) -> None:
    found = generate("rsa2048", "plain", ALLOWED_MECHANISMS=MECHANISM_NUMBERS[mechanism].to_bytes(8, sys.byteorder))
    assert found.algorithms == expected
    assert found.can_decrypt == (mechanism == "CKM_RSA_PKCS")
    assert found.can_decrypt_raw == (mechanism == "CKM_RSA_X_509")
    for algorithm in expected:
        verify(found.public_key, algorithm, found.sign(algorithm, b"message"), b"message")
        if mechanism.startswith("CKM_SHA"):  # the token itself hashes
            with pytest.raises(TokenError, match="hashed already"):
                found.sign(algorithm, digest(algorithm, b"message"), prehashed=True)


def test_small_modulus_has_no_room_for_every_pss() -> None:
    offered = {"CKM_RSA_X_509": _info("CKM_RSA_X_509")}
    assert Algorithm.rsa_pss_sha512 not in methods("rsa", 1024, offered)
    assert Algorithm.rsa_pss_sha384 in methods("rsa", 1024, offered)


def test_key_without_leave_to_sign_or_decrypt(generate: Callable[..., PrivateKey]) -> None:
    key = generate("rsa2048", "idle", SIGN=False, DECRYPT=False)
    assert key.algorithms == frozenset()
    assert not key.can_decrypt


def test_key_that_wants_its_pin_each_time(generate: Callable[..., PrivateKey]) -> None:
    key = generate("rsa2048", "careful", ALWAYS_AUTHENTICATE=True)
    assert isinstance(key, TokenKey)
    assert key.always_authenticate
    asked = Asked([PIN])
    key._pins = asked
    for _ in range(2):
        verify(key.public_key, Algorithm.rsa_pkcs1_sha256, key.sign(Algorithm.rsa_pkcs1_sha256, b"m"), b"m")
    ciphertext = key.public_key.encrypt(b"secret", padding.PKCS1v15())  # type: ignore[union-attr]
    assert key.decrypt(ciphertext) == b"secret"
    assert [(request.context_specific, request.key) for request in asked.requests] == [(True, "careful")] * 3
    key._pins = pins.value("wrong")
    with pytest.raises(PinIncorrect):
        key.sign(Algorithm.rsa_pkcs1_sha256, b"m")
    key._pins = key.home._pins = None
    with pytest.raises(PinError, match="each use"):
        key.sign(Algorithm.rsa_pkcs1_sha256, b"m")
    key._pins = Asked([PIN])
    verify(key.public_key, Algorithm.rsa_pkcs1_sha256, key.sign(Algorithm.rsa_pkcs1_sha256, b"m"), b"m")


def _info(name: str) -> object:
    from nss_pk11.slots import MechanismInfo

    return MechanismInfo(name, MECHANISM_NUMBERS[name], flags=frozenset({"CKF_SIGN"}))


def test_closing_waits_for_signatures_under_way(softhsm: SoftHSM, keys: dict[str, KeyOnToken]) -> None:
    """C_Finalize under a running C_Sign would crash the process."""
    manager = SlotManager()
    key = manager.find_key(keys["rsa"].uri_with_pin)
    signed, stopped = threading.Event(), []

    def work() -> None:
        try:
            while True:
                key.sign(Algorithm.rsa_pss_sha256, b"m")
                signed.set()
        except TokenError as error:
            stopped.append(error.name)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert signed.wait(20)
    manager.close()
    for thread in threads:
        thread.join(20)
    assert stopped == ["SEC_ERROR_NOT_INITIALIZED"] * 3
