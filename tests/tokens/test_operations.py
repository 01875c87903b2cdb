"""How operations begin, go on and end, and what is refused at each step (PKCS #11 2.40 sections 5.2 and 5.8 to 5.12)."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pk11_tokens import RunningSimulator, start
from pk11_tokens.abi import CKA, CKM, CKO, CKU

from .client import P256, Client, Mechanism, key_of, key_values, refused
from .cryptoki import PIN, Module
from .test_mechanisms import ED448, IV, MESSAGE, SECRET, hashed, pss

KINDS = ("rsa2048", "p256", "p521", "ed25519", "ed448", "mldsa44")


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    keys = [{"label": kind, "kind": kind} for kind in KINDS]
    with start([{"label": "card", "key": [*keys, {"label": "guarded", "kind": "p256", "always_authenticate": True}]}]) as running:
        yield running
        assert "Traceback" not in running.log, running.log


# --- the course of an operation --------------------------------------------------------------------------------------


def test_asking_for_a_length_does_not_end_it(client: Client) -> None:
    client("C_SignInit", Mechanism(CKM.ECDSA).address, key_of(client, "p256"))
    assert client.length("C_Sign", bytes(32), 32) == 64
    with refused("BUFFER_TOO_SMALL"):
        client.finish("C_Sign", bytes(32), 32, room=63)
    with refused("OPERATION_ACTIVE"):
        client("C_SignInit", Mechanism(CKM.ECDSA).address, key_of(client, "p256"))
    signature = client.finish("C_Sign", bytes(32), 32, room=64)
    client.verify(Mechanism(CKM.ECDSA), key_of(client, "p256", CKO.PUBLIC_KEY), bytes(32), signature)
    with refused("OPERATION_NOT_INITIALIZED"):
        client.finish("C_Sign", bytes(32), 32)


def test_no_room_at_the_end_of_several_parts(client: Client) -> None:
    key = client.create(SECRET)
    client("C_EncryptInit", Mechanism(CKM.AES_CBC_PAD, IV).address, key)
    with refused("BUFFER_TOO_SMALL"):
        client.finish("C_EncryptUpdate", bytes(40), 40, room=31)
    first = client.finish("C_EncryptUpdate", bytes(40), 40, room=32)
    assert client.length("C_EncryptFinal") == 16
    with refused("BUFFER_TOO_SMALL"):
        client.finish("C_EncryptFinal", room=15)
    sealed = first + client.finish("C_EncryptFinal", room=16)
    assert client.run("Decrypt", Mechanism(CKM.AES_CBC_PAD, IV), key, sealed) == bytes(40)


def test_an_error_ends_it(client: Client) -> None:
    key = client.create(SECRET)
    client("C_EncryptInit", Mechanism(CKM.AES_ECB).address, key)
    with refused("DATA_LEN_RANGE"):
        client.finish("C_Encrypt", b"short", 5)
    with refused("OPERATION_NOT_INITIALIZED"):
        client.finish("C_Encrypt", bytes(16), 16)


def test_a_failure_that_was_planned_ends_it_too(simulator: RunningSimulator, client: Client) -> None:
    simulator["card"].fail("C_Sign", "CKR_DEVICE_ERROR")
    with refused("DEVICE_ERROR"):
        client.sign(Mechanism(CKM.ECDSA), key_of(client, "p256"), bytes(32))
    client.sign(Mechanism(CKM.ECDSA), key_of(client, "p256"), bytes(32))


def test_operations_of_different_kinds_do_not_meet(client: Client) -> None:
    client("C_DigestInit", Mechanism(CKM.SHA256).address)
    client("C_SignInit", Mechanism(CKM.ECDSA).address, key_of(client, "p256"))
    client("C_FindObjectsInit", None, 0)
    assert client.finish("C_Digest", b"x", 1) == hashed("256", b"x")
    assert len(client.finish("C_Sign", bytes(32), 32)) == 64
    client("C_FindObjectsFinal")


def test_one_part_or_several_but_not_both(client: Client) -> None:
    for mechanism in CKM.ECDSA, CKM.ECDSA_SHA256:
        client("C_SignInit", Mechanism(mechanism).address, key_of(client, "p256"))
        with refused("OPERATION_NOT_INITIALIZED"):
            if mechanism == CKM.ECDSA_SHA256:
                client("C_SignUpdate", b"x", 1)
                client.finish("C_Sign", b"x", 1)
            client("C_SignUpdate", b"x", 1)  # a mechanism that takes all at once


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "number", "parameter", "label", "result"),
    [
        ("C_SignInit", 0x7FFFFFFF, b"", "p256", "MECHANISM_INVALID"),
        ("C_SignInit", CKM.SHA256, b"", "p256", "MECHANISM_INVALID"),
        ("C_EncryptInit", CKM.ECDSA, b"", "p256", "MECHANISM_INVALID"),
        ("C_EncryptInit", CKM.AES_KEY_WRAP, b"", "p256", "MECHANISM_INVALID"),
        ("C_SignInit", CKM.ECDSA, b"", "", "KEY_HANDLE_INVALID"),
        ("C_SignInit", CKM.ECDSA, b"", "rsa2048", "KEY_TYPE_INCONSISTENT"),
        ("C_VerifyInit", CKM.ECDSA, b"", "p256", "KEY_TYPE_INCONSISTENT"),
        ("C_SignInit", CKM.ECDSA, b"x", "p256", "MECHANISM_PARAM_INVALID"),
        ("C_SignInit", CKM.RSA_PKCS_PSS, b"", "rsa2048", "MECHANISM_PARAM_INVALID"),
        ("C_SignInit", CKM.SHA256_RSA_PKCS_PSS, pss("384"), "rsa2048", "MECHANISM_PARAM_INVALID"),
        ("C_SignInit", CKM.EDDSA, ED448, "ed25519", "MECHANISM_PARAM_INVALID"),
        ("C_SignInit", CKM.EDDSA, b"", "ed448", "MECHANISM_PARAM_INVALID"),
        ("C_SignInit", CKM.EDDSA, pack("@BLP", 1, 0, 0), "ed448", "MECHANISM_PARAM_INVALID"),
        ("C_SignInit", CKM.ML_DSA, pack("@LPL", 2, 0, 0), "mldsa44", "MECHANISM_PARAM_INVALID"),
    ],
)
def test_operations_that_do_not_begin(
    client: Client, function: str, number: int, parameter: bytes, label: str, result: str
) -> None:
    with refused(result):
        client(function, Mechanism(number, parameter).address, key_of(client, label) if label else 1)
    client("C_SignInit", Mechanism(CKM.ECDSA).address, key_of(client, "p256"))  # nothing is left of the first


@pytest.mark.parametrize(
    ("number", "parameter", "label", "data", "result"),
    [
        (CKM.RSA_PKCS, b"", "rsa2048", bytes(246), "DATA_LEN_RANGE"),
        (CKM.RSA_X_509, b"", "rsa2048", b"\xff" * 256, "DATA_LEN_RANGE"),
        (CKM.RSA_PKCS_PSS, pss("256"), "rsa2048", bytes(31), "DATA_LEN_RANGE"),
        (CKM.RSA_PKCS_PSS, pss("256", 255), "rsa2048", bytes(32), "KEY_SIZE_RANGE"),
        (CKM.ECDSA, b"", "p521", bytes(66), "DATA_LEN_RANGE"),
        (CKM.ECDSA, b"", "p256", b"", "DATA_LEN_RANGE"),
    ],
)
def test_data_that_does_not_fit(client: Client, number: CKM, parameter: bytes, label: str, data: bytes, result: str) -> None:
    with refused(result):
        client.sign(Mechanism(number, parameter), key_of(client, label), data)


def test_a_key_permits_what_it_says(client: Client) -> None:
    values, _ = key_values(ec.generate_private_key(ec.SECP256R1()))
    with refused("KEY_FUNCTION_NOT_PERMITTED"):
        client.sign(Mechanism(CKM.ECDSA), client.create(values | {CKA.SIGN: False}), bytes(32))
    key = client.create(values | {CKA.ALLOWED_MECHANISMS: pack("@L", CKM.ECDSA_SHA256)})
    client.sign(Mechanism(CKM.ECDSA_SHA256), key, MESSAGE)
    with refused("MECHANISM_INVALID"):
        client.sign(Mechanism(CKM.ECDSA), key, bytes(32))


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "ed25519", "mldsa44"])
def test_wrong_signatures_are_found(client: Client, kind: str) -> None:
    number = {"rsa2048": CKM.SHA256_RSA_PKCS, "p256": CKM.ECDSA_SHA256, "ed25519": CKM.EDDSA, "mldsa44": CKM.ML_DSA}[kind]
    public = key_of(client, kind, CKO.PUBLIC_KEY)
    signature = client.sign(Mechanism(number), key_of(client, kind), MESSAGE)
    for data, changed, result in (
        (MESSAGE + b".", signature, "SIGNATURE_INVALID"),
        (MESSAGE, bytes(len(signature)), "SIGNATURE_INVALID"),
        (MESSAGE, signature + b"\0", "SIGNATURE_LEN_RANGE"),
    ):
        with refused(result):
            client.verify(Mechanism(number), public, data, changed)


def test_a_key_that_wants_the_pin_each_time(client: Client) -> None:
    key = key_of(client, "guarded")
    assert client.is_true(key, CKA.ALWAYS_AUTHENTICATE)
    client("C_SignInit", Mechanism(CKM.ECDSA).address, key)
    with refused("BUFFER_TOO_SMALL"):  # for which the key is not needed
        client.finish("C_Sign", bytes(32), 32, room=63)
    with refused("USER_NOT_LOGGED_IN"):
        client.finish("C_Sign", bytes(32), 32)
    with refused("USER_NOT_LOGGED_IN"):
        client.sign(Mechanism(CKM.ECDSA), key, bytes(32))
    with refused("OPERATION_NOT_INITIALIZED"):
        client("C_Login", CKU.CONTEXT_SPECIFIC, PIN, len(PIN))
    for _ in range(2):
        client("C_SignInit", Mechanism(CKM.ECDSA).address, key)
        client("C_Login", CKU.CONTEXT_SPECIFIC, PIN, len(PIN))
        client.finish("C_Sign", bytes(32), 32)


def test_a_token_does_what_its_personality_says() -> None:
    """PKCS #1 v1.5 only, wrong signatures now and then, keys that want the PIN each time: all from the description."""
    token = {
        "label": "odd",
        "mechanisms": ["CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA"],
        "wrong_signatures": 0.5,
        "seed": 3,
        "always_authenticate": True,
    }
    with start([token]) as simulator, Module(simulator.module) as module:
        client = Client(module).login()
        public, private = client.generate_pair(Mechanism(CKM.EC_KEY_PAIR_GEN), {CKA.EC_PARAMS: P256}, {})
        assert client.is_true(private, CKA.ALWAYS_AUTHENTICATE)
        with refused("MECHANISM_INVALID"):
            client.sign(Mechanism(CKM.ECDSA_SHA256), private, MESSAGE)
        with refused("MECHANISM_INVALID"):
            client.digest(Mechanism(CKM.SHA256), MESSAGE)
        right = 0
        for _ in range(20):
            client("C_SignInit", Mechanism(CKM.ECDSA).address, private)
            client("C_Login", CKU.CONTEXT_SPECIFIC, PIN, len(PIN))
            signature = client.finish("C_Sign", bytes(32), 32)
            client("C_VerifyInit", Mechanism(CKM.ECDSA).address, public)
            result = module.C_Verify(client.session, bytes(32), 32, signature, len(signature))
            assert result in ("CKR_OK", "CKR_SIGNATURE_INVALID")
            right += result == "CKR_OK"
        assert 3 < right < 17


LACKING = """
    C_GetOperationState C_SetOperationState C_SignRecoverInit C_SignRecover C_VerifyRecoverInit C_VerifyRecover
    C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate
"""


@pytest.mark.parametrize("function", LACKING.split())
def test_what_a_token_lacks(client: Client, function: str) -> None:
    with refused("FUNCTION_NOT_SUPPORTED"):
        client(function)
