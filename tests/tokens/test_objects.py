"""Objects of simulated tokens: what templates may say, who sees what, and what becomes of handles."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pk11_tokens import RunningSimulator, start
from pk11_tokens.abi import CKA, CKC, CKK, CKM, CKO

from .client import AES, P256, SHOWN, UNAVAILABLE, Client, Mechanism, Value, key_values, refused
from .cryptoki import SERIAL, Module

DATA: dict[int, Value] = {CKA.CLASS: CKO.DATA, CKA.LABEL: "note", CKA.VALUE: b"text"}


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with start([{"label": "card", "key": [{"label": "www", "kind": "p256", "self_signed": ["localhost"]}]}]) as running:
        yield running
        assert "Traceback" not in running.log, running.log


# --- making them -----------------------------------------------------------------------------------------------------


def test_data_is_kept_as_it_came(client: Client) -> None:
    handle = client.create({**DATA, CKA.APPLICATION: "test"})
    shown = client.get_all(handle, [CKA.CLASS, CKA.LABEL, CKA.VALUE, CKA.APPLICATION, CKA.OBJECT_ID])
    assert list(shown.values()) == [b"\0" * 8, b"note", b"text", b"test", b""]
    assert not client.is_true(handle, CKA.TOKEN)
    assert client.is_true(handle, CKA.MODIFIABLE)


@pytest.mark.parametrize(
    ("values", "result"),
    [
        ({}, "TEMPLATE_INCOMPLETE"),
        ({CKA.CLASS: CKO.SECRET_KEY}, "TEMPLATE_INCOMPLETE"),
        ({CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES}, "TEMPLATE_INCOMPLETE"),
        (DATA | {CKA.MODULUS: b"1"}, "ATTRIBUTE_TYPE_INVALID"),
        (DATA | {CKA.TOKEN: b"yes"}, "ATTRIBUTE_VALUE_INVALID"),
        (DATA | {CKA.PRIVATE: b"\2"}, "ATTRIBUTE_VALUE_INVALID"),
        ({CKA.CLASS: b"\0"}, "ATTRIBUTE_VALUE_INVALID"),
        ({CKA.CLASS: CKO.HW_FEATURE}, "ATTRIBUTE_VALUE_INVALID"),
        (AES | {CKA.VALUE: bytes(15)}, "ATTRIBUTE_VALUE_INVALID"),
        (AES | {CKA.LOCAL: True}, "ATTRIBUTE_READ_ONLY"),
        (AES | {CKA.VALUE_LEN: 32}, "ATTRIBUTE_READ_ONLY"),
        (AES | {CKA.TRUSTED: True}, "ATTRIBUTE_READ_ONLY"),
        (
            {CKA.CLASS: CKO.PUBLIC_KEY, CKA.KEY_TYPE: CKK.EC, CKA.EC_PARAMS: P256, CKA.EC_POINT: b"\4" + bytes(64)},
            "ATTRIBUTE_VALUE_INVALID",
        ),
        (
            {CKA.CLASS: CKO.PUBLIC_KEY, CKA.KEY_TYPE: CKK.EC, CKA.EC_PARAMS: b"\6\1\1", CKA.EC_POINT: b"\4" + bytes(64)},
            "CURVE_NOT_SUPPORTED",
        ),
    ],
)
def test_a_template_that_does_not_do(client: Client, values: Mapping[int, Value], result: str) -> None:
    before = client.find()
    with refused(result):
        client.create(values)
    assert client.find() == before


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        mldsa.MLDSA44PrivateKey.generate(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_both_halves_of_a_key_from_elsewhere(client: Client, key: rsa.RSAPrivateKey) -> None:
    private_values, public_values = key_values(key)
    private, public = client.create(private_values), client.create(public_values)
    for handle in private, public:
        assert load_der_public_key(client.get(handle, CKA.PUBLIC_KEY_INFO)) == key.public_key()
        assert not client.is_true(handle, CKA.LOCAL)
        assert client.number(handle, CKA.KEY_GEN_MECHANISM) == UNAVAILABLE
    assert client.is_true(private, CKA.SENSITIVE)
    assert not client.is_true(private, CKA.EXTRACTABLE)
    # It was somewhere else before: nobody can say that it always was secret.
    assert not client.is_true(private, CKA.ALWAYS_SENSITIVE)
    assert not client.is_true(private, CKA.NEVER_EXTRACTABLE)


def test_an_rsa_key_needs_no_more_than_modulus_and_exponents(client: Client) -> None:
    key = rsa.generate_private_key(65537, 1024)
    values, _ = key_values(key)
    few = {CKA.CLASS, CKA.KEY_TYPE, CKA.MODULUS, CKA.PUBLIC_EXPONENT, CKA.PRIVATE_EXPONENT}
    handle = client.create({attribute: value for attribute, value in values.items() if attribute in few})
    signature = client.sign(Mechanism(CKM.SHA256_RSA_PKCS), handle, b"data")
    public = client.create(key_values(key)[1])
    client.verify(Mechanism(CKM.SHA256_RSA_PKCS), public, b"data", signature)
    assert client.number(public, CKA.MODULUS_BITS) == 1024


def test_a_generated_key_says_so(client: Client) -> None:
    public, private = client.generate_pair(
        Mechanism(CKM.EC_KEY_PAIR_GEN), {CKA.EC_PARAMS: P256, CKA.LABEL: "new"}, {CKA.LABEL: "new", CKA.ID: b"\7"}
    )
    for handle in public, private:
        assert client.is_true(handle, CKA.LOCAL)
        assert client.number(handle, CKA.KEY_GEN_MECHANISM) == CKM.EC_KEY_PAIR_GEN
        assert client.get(handle, CKA.EC_PARAMS) == P256
    for attribute in CKA.SENSITIVE, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE, CKA.SIGN, CKA.PRIVATE:
        assert client.is_true(private, attribute)
    for attribute in CKA.EXTRACTABLE, CKA.DECRYPT, CKA.DERIVE, CKA.ALWAYS_AUTHENTICATE, CKA.TOKEN:
        assert not client.is_true(private, attribute)
    assert client.get(private, CKA.ID) == b"\7"
    assert client.get(private, CKA.ALLOWED_MECHANISMS) == b""


# --- reading them ----------------------------------------------------------------------------------------------------


def test_all_that_can_be_told_is_told(client: Client) -> None:
    handle = client.create(AES | {CKA.LABEL: "secret key"})
    label, value, short = (ctypes.create_string_buffer(16) for _ in range(3))
    lengths: list[int] = []
    rows = [
        (CKA.MODULUS, value, 16),
        (CKA.LABEL, label, 16),
        (CKA.VALUE, value, 16),
        (CKA.LABEL, short, 3),
        (CKA.LABEL, None, 0),
    ]
    with refused("ATTRIBUTE_TYPE_INVALID"):
        client.get_into(handle, rows, lengths)
    assert lengths == [UNAVAILABLE, 10, UNAVAILABLE, UNAVAILABLE, 10]
    assert label.value == b"secret key"
    assert value.raw == short.raw == bytes(16)


@pytest.mark.parametrize(
    ("values", "secret"),
    [
        ({}, True),
        ({CKA.SENSITIVE: False}, True),
        ({CKA.SENSITIVE: True, CKA.EXTRACTABLE: True}, True),
        (SHOWN, False),
    ],
)
def test_a_secret_is_shown_only_if_it_may_be(client: Client, values: Mapping[int, Value], secret: bool) -> None:
    handle = client.create(AES | dict(values) | {CKA.VALUE: b"k" * 16, CKA.LABEL: "aes"})
    found = client.find({CKA.LABEL: "aes", CKA.VALUE: b"k" * 16})
    if secret:
        with refused("ATTRIBUTE_SENSITIVE"):
            client.get(handle, CKA.VALUE)
        assert found == []  # a search must not find out either
    else:
        assert client.get(handle, CKA.VALUE) == b"k" * 16
        assert found == [handle]
    client("C_DestroyObject", handle)


def test_a_buffer_too_small(client: Client) -> None:
    handle, lengths = client.create(DATA), list[int]()
    with refused("BUFFER_TOO_SMALL"):
        client.get_into(handle, [(CKA.VALUE, ctypes.create_string_buffer(3), 3)], lengths)
    assert lengths == [UNAVAILABLE]
    assert client.get_into(handle, [(CKA.VALUE, None, 0)]) == [4]


def test_the_size_of_an_object(client: Client) -> None:
    size, handle = ctypes.c_ulong(), client.create(DATA)
    client("C_GetObjectSize", handle, ctypes.byref(size))
    assert size.value > len(b"text")


# --- changing them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "change", "result"),
    [
        (AES, {CKA.LABEL: "other", CKA.SIGN: False}, ""),
        (AES, {CKA.CLASS: CKO.DATA}, "ATTRIBUTE_READ_ONLY"),
        (AES, {CKA.VALUE: bytes(16)}, "ATTRIBUTE_READ_ONLY"),
        (AES, {CKA.TOKEN: True}, "ATTRIBUTE_READ_ONLY"),
        (AES, {CKA.LOCAL: True}, "ATTRIBUTE_READ_ONLY"),
        (AES, {CKA.SENSITIVE: False}, "ATTRIBUTE_READ_ONLY"),
        (AES, {CKA.EXTRACTABLE: True}, "ATTRIBUTE_READ_ONLY"),
        (AES | SHOWN, {CKA.SENSITIVE: True, CKA.EXTRACTABLE: False}, ""),
        (AES, {CKA.MODULUS: b""}, "ATTRIBUTE_TYPE_INVALID"),
        (AES, {CKA.SIGN: b""}, "ATTRIBUTE_VALUE_INVALID"),
        (AES | {CKA.MODIFIABLE: False}, {CKA.LABEL: "other"}, "ACTION_PROHIBITED"),
    ],
)
def test_what_may_be_changed(client: Client, values: Mapping[int, Value], change: Mapping[int, Value], result: str) -> None:
    handle = client.create(dict(values) | {CKA.LABEL: "before"})
    if not result:
        client.change(handle, change)
        return
    with refused(result):
        client.change(handle, {CKA.LABEL: "changed"} | dict(change))
    assert client.get(handle, CKA.LABEL) == b"before"  # all or nothing


def test_a_copy_may_become_more_secret_only(client: Client) -> None:
    original = client.create(AES | SHOWN | {CKA.LABEL: "original", CKA.PRIVATE: False})
    copy = client.copy(original, {CKA.SENSITIVE: True, CKA.PRIVATE: True, CKA.LABEL: "copy"})
    assert client.get(original, CKA.VALUE) == bytes(32)
    with refused("ATTRIBUTE_SENSITIVE"):
        client.get(copy, CKA.VALUE)
    for change, result in ((CKA.SENSITIVE, "ATTRIBUTE_READ_ONLY"), (CKA.PRIVATE, "TEMPLATE_INCONSISTENT")):
        with refused(result):
            client.copy(copy, {change: False})
    with refused("ACTION_PROHIBITED"):
        client.copy(client.create(DATA | {CKA.COPYABLE: False}), {})


def test_destroying(client: Client) -> None:
    handle = client.create(DATA)
    client("C_DestroyObject", handle)
    for function in "C_DestroyObject", "C_GetObjectSize":
        with refused("OBJECT_HANDLE_INVALID"):
            client(function, handle, ctypes.byref(ctypes.c_ulong()))
    with refused("ACTION_PROHIBITED"):
        client("C_DestroyObject", client.create(DATA | {CKA.DESTROYABLE: False}))


# --- searching -------------------------------------------------------------------------------------------------------


def test_a_search(client: Client) -> None:
    handles = [client.create(DATA | {CKA.LABEL: "many", CKA.VALUE: bytes([number])}) for number in range(10)]
    assert client.find({CKA.LABEL: "many"}) == handles
    assert client.find({CKA.LABEL: "many", CKA.VALUE: b"\3"}) == [handles[3]]
    assert client.find({CKA.LABEL: "none"}) == []
    assert client.find({CKA.LABEL: "many", CKA.MODULUS: b""}) == []
    certificate = client.find_one({CKA.CLASS: CKO.CERTIFICATE, CKA.CERTIFICATE_TYPE: CKC.X_509})
    assert client.get(certificate, CKA.LABEL) == b"www"


def test_the_course_of_a_search(client: Client) -> None:
    count = ctypes.c_ulong()
    for function in "C_FindObjects", "C_FindObjectsFinal":
        with refused("OPERATION_NOT_INITIALIZED"):
            client(function, (ctypes.c_ulong * 1)(), 1, ctypes.byref(count))
    client("C_FindObjectsInit", None, 0)
    with refused("OPERATION_ACTIVE"):
        client("C_FindObjectsInit", None, 0)
    client("C_FindObjectsFinal")
    assert client.find()


# --- who sees what ---------------------------------------------------------------------------------------------------


def test_private_objects_are_hidden_until_login(module: Module) -> None:
    client = Client(module)
    assert {client.number(handle, CKA.CLASS) for handle in client.find()} == {CKO.PUBLIC_KEY, CKO.CERTIFICATE}
    client.login()
    key = client.find_one({CKA.CLASS: CKO.PRIVATE_KEY})
    kept = client.create(DATA | {CKA.LABEL: "public"})
    client.create(DATA | {CKA.PRIVATE: True, CKA.LABEL: "private"})
    client("C_Logout")
    with refused("OBJECT_HANDLE_INVALID"):
        client.get(key, CKA.LABEL)
    assert client.get(kept, CKA.LABEL) == b"public"
    with refused("USER_NOT_LOGGED_IN"):
        client.create(DATA | {CKA.PRIVATE: True})
    client.login()
    # The handle stays worthless, the key has a new one; the private session object went with the login.
    with refused("KEY_HANDLE_INVALID"):
        client.sign(Mechanism(CKM.ECDSA), key, bytes(32))
    assert client.find_one({CKA.CLASS: CKO.PRIVATE_KEY}) != key
    assert client.find({CKA.LABEL: "private"}) == []


def test_handles_end_with_the_initialisation(module: Module) -> None:
    client = Client(module).login()
    key = client.find_one({CKA.CLASS: CKO.PRIVATE_KEY})
    assert module.C_Finalize(None) == module.C_Initialize(None) == "CKR_OK"
    with refused("OBJECT_HANDLE_INVALID"):
        Client(module).login().get(key, CKA.LABEL)


def test_session_objects_die_with_their_session(module: Module) -> None:
    first, second = Client(module).login(), Client(module)
    handle = first.create(DATA | {CKA.LABEL: "fleeting"})
    assert second.get(handle, CKA.LABEL) == b"fleeting"  # one application, one set of objects
    first.close()
    with refused("OBJECT_HANDLE_INVALID"):
        second.get(handle, CKA.LABEL)
    assert second.find({CKA.LABEL: "fleeting"}) == []


def test_a_read_only_session(module: Module) -> None:
    reading, writing = Client(module, SERIAL).login(), Client(module)
    with refused("SESSION_READ_ONLY"):
        reading.create(DATA | {CKA.TOKEN: True})
    assert reading.get(reading.create(DATA), CKA.VALUE) == b"text"
    handle = writing.create(DATA | {CKA.TOKEN: True})
    with refused("SESSION_READ_ONLY"):
        reading.change(handle, {CKA.LABEL: "x"})
    with refused("SESSION_READ_ONLY"):
        reading("C_DestroyObject", handle)
    writing("C_DestroyObject", handle)


def test_token_objects_outlive_the_host(simulator: RunningSimulator) -> None:
    with Module(simulator.module) as module:
        Client(module).login().create(DATA | {CKA.TOKEN: True, CKA.LABEL: "kept"})
    with Module(simulator.module) as module:
        client = Client(module)
        client("C_DestroyObject", client.find_one({CKA.LABEL: "kept"}))


def test_handles_are_never_used_again(simulator: RunningSimulator, module: Module) -> None:
    client = Client(module)
    before = set(client.find())
    simulator["card"].remove()
    simulator["card"].insert()
    again = Client(module)
    after = set(again.find())
    assert len(after) == len(before)
    assert not before & after
    with refused("OBJECT_HANDLE_INVALID"):
        again.get(min(before), CKA.LABEL)
