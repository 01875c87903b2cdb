"""Every kind of token does what its row says; descriptions say what they are, and what is wrong with them."""

from __future__ import annotations

import ctypes
import re
import textwrap
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from struct import Struct
from typing import Any

import pk11_tokens
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pk11_tokens import PERSONALITIES, DescriptionError, Person, Personality
from pk11_tokens.abi import CKF, CKM
from pk11_tokens.description import _FIELDS, KINDS, load, parse
from pk11_tokens.mechanisms import MECHANISMS

from .conftest import CARD, DATA, KEY, Host, Signing, Start, refused, verify
from .cryptoki import PIN, SLOT

PAGE = (Path(__file__).parents[2] / "docs/tokens.md").read_text("utf-8")

# Kind of key -> how a host signs DATA with it; those of KEA do not sign.
SIGNING = {
    "CKM_ECDSA": CKM.ECDSA,
    "CKM_RSA_PKCS": CKM.SHA256_RSA_PKCS,
    "CKM_DSA": CKM.DSA_SHA1,
    "CKM_EDDSA": CKM.EDDSA,
    "CKM_ML_DSA": CKM.ML_DSA,
}
# CK_EDDSA_PARAMS, which Ed448 needs (PKCS #11 3.1 section 6.3.15): not prehashed, no context.
PARAMETERS = {"ed448": Struct("@BLP").pack(0, 0, 0)}
QUICK_KINDS = [kind for kind in KINDS if kind not in ("rsa3072", "rsa4096")]  # of the slow ones, one is enough


def check(public_key: Any, signature: bytes) -> None:
    """Raises InvalidSignature."""
    match public_key:
        case rsa.RSAPublicKey():
            public_key.verify(signature, DATA, padding.PKCS1v15(), SHA256())
        case dsa.DSAPublicKey():
            half = len(signature) // 2
            der = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
            public_key.verify(der, DATA, SHA1())
        case _:
            public_key.verify(signature, DATA)


def log_in_as_suits(host: Host, personality: Personality) -> int:
    return host.log_in(None if personality.protected_path else PIN)


# --- the table -----------------------------------------------------------------------------------------------------------


def test_there_is_a_row_for_each_kind_that_is_promised() -> None:
    promised = {"plain", "smart card", "pinpad reader", "network HSM", "signature token", "faulty HSM", "FORTEZZA card"}
    assert promised <= PERSONALITIES.keys()
    assert all(name == personality.name for name, personality in PERSONALITIES.items())


def test_every_mechanism_of_a_personality_is_one_that_there_is() -> None:
    known = {capability.name for capability in MECHANISMS.values()}
    assert {name for each in PERSONALITIES.values() for name in each.mechanisms} <= known


def test_every_field_can_be_described() -> None:
    assert _FIELDS.keys() == {each.name for each in fields(Personality)} - {"name"}


@pytest.mark.parametrize("name", PERSONALITIES)
def test_a_host_is_told_the_mechanisms_of_the_row(simulated_tokens: Start, name: str) -> None:
    host = Host(simulated_tokens([{"label": "token", "personality": name}]))
    count = ctypes.c_ulong(200)
    types = (ctypes.c_ulong * 200)()
    assert host.module.C_GetMechanismList(SLOT, types, ctypes.byref(count)) == "CKR_OK"
    told = [f"CKM_{CKM(each).name}" for each in types[: count.value]]
    assert sorted(told) == sorted(PERSONALITIES[name].mechanisms)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name, personality in PERSONALITIES.items()
        for kind in QUICK_KINDS
        if KINDS[kind] in personality.mechanisms
        and KINDS[kind] in SIGNING
        and kind != "p256"
        and name not in ("pinpad reader", "faulty HSM")
        and (name, kind) != ("FORTEZZA card", "dsa2048")  # longer than its keys
    ],
)
def test_every_kind_of_key_signs(simulated_tokens: Start, name: str, kind: str) -> None:
    simulator = simulated_tokens([{"label": "token", "personality": name, "key": [{"label": "key", "kind": kind}]}])
    host = Host(simulator)
    session = log_in_as_suits(host, PERSONALITIES[name])
    parameter = PARAMETERS.get(kind, b"")
    signature = host.sign(session, host.find(session, "key"), mechanism=SIGNING[KINDS[kind]], parameter=parameter)
    public_key: Any = load_der_public_key(simulator["token"].public_key_der("key"))
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        assert len(signature) == 2 * ((public_key.key_size + 7) // 8)
    else:
        check(public_key, signature)


# --- what tells them apart -----------------------------------------------------------------------------------------------


def test_a_smart_card_has_one_session_and_three_tries(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD | {"personality": "smart card"}])
    card, host = simulator["card"], Host(simulator)
    session = host.module.open()
    assert host.module.C_OpenSession(SLOT, CKF.SERIAL_SESSION, None, None, ctypes.byref(ctypes.c_ulong())) == "CKR_SESSION_COUNT"
    flags = (CKF.USER_PIN_COUNT_LOW, CKF.USER_PIN_FINAL_TRY, CKF.USER_PIN_LOCKED)

    def shown() -> list[bool]:
        return [bool(host.module.token_flags() & flag) for flag in flags]

    assert shown() == [False, False, False]
    assert host.module.login(session, b"000000") == "CKR_PIN_INCORRECT"
    assert shown() == [True, False, False]
    assert host.module.login(session, b"000000") == "CKR_PIN_INCORRECT"
    assert shown()[:2] == [True, True]
    host.module.login(session, b"000000")
    assert shown()[2]
    assert host.module.login(session, PIN) == "CKR_PIN_LOCKED"
    assert (card.status().tries_left, card.status().locked) == (0, True)


def test_a_key_may_want_its_pin_each_time(simulated_tokens: Start) -> None:
    """CKA_ALWAYS_AUTHENTICATE: C_Login(CKU_CONTEXT_SPECIFIC) between C_SignInit and C_Sign."""
    keys = [KEY | {"always_authenticate": True}, {"label": "other", "kind": "p256"}]
    simulator = simulated_tokens([{"label": "card", "personality": "smart card", "key": keys}])
    host = Host(simulator)
    session = host.log_in()
    with refused("CKR_USER_NOT_LOGGED_IN"):
        host.sign(session, host.find(session, "www"))
    host.sign(session, host.find(session, "other"))
    signature = host.sign(session, host.find(session, "www"), pin=PIN)
    verify(simulator["card"], signature)


def test_a_network_hsm_takes_its_time_and_cannot_be_removed(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD | {"personality": "network HSM"}])
    host = Host(simulator)
    sign = Signing(host, host.log_in())
    simulator.forget_calls()
    sign()
    took = {call["function"]: call["ms"] for call in simulator.calls()}
    assert took["C_Sign"] >= 5
    assert host.module.C_WaitForSlotEvent(CKF.DONT_BLOCK, ctypes.byref(ctypes.c_ulong()), None) == "CKR_FUNCTION_NOT_SUPPORTED"


def test_a_faulty_hsm_computes_wrongly_now_and_then(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD | {"personality": "faulty HSM"}])
    host = Host(simulator)
    sign = Signing(host, host.log_in())
    for _ in range(60):
        sign()
    assert 0 < simulator["card"].status().wrong_signatures < 60


# --- one's own -----------------------------------------------------------------------------------------------------------


def test_a_personality_of_ones_own_in_toml(simulated_tokens: Start, tmp_path: Path) -> None:
    file = tmp_path / "bank.toml"
    file.write_text(
        textwrap.dedent(
            """
            [personality."bank card"]
            like = "smart card"
            model = "bank card"
            pin_tries = 5
            max_sessions = 2
            latency = { C_Sign = 0.02 }
            key_sizes = { CKM_RSA_PKCS = [2048, 2048] }

            [[reader]]
            name = "Counter"
            [reader.token]
            label = "customer"
            personality = "bank card"
            pin_tries = 4
            """
        )
    )
    simulator = simulated_tokens(file)
    assert Path(simulator.module).name == "bank.so"
    status = simulator["customer"].status()
    assert (status.personality, status.tries_left, status.reader) == ("bank card", 4, "Counter")
    assert Host(simulator).module.token_info()[2].rstrip() == b"bank card"


@pytest.mark.parametrize("example", re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
def test_the_descriptions_in_the_documentation(simulated_tokens: Start, tmp_path: Path, example: str) -> None:
    file = tmp_path / "example.toml"
    file.write_text(example)
    simulator = simulated_tokens(file)
    assert all(simulator[name].status().objects or not simulator[name].status().present for name in simulator.tokens())


def test_a_personality_of_ones_own_in_python(simulated_tokens: Start) -> None:
    personality = replace(PERSONALITIES["pinpad reader"], name="slow pad", person=Person(mistakes=1), pin_tries=2)
    simulator = simulated_tokens([CARD | {"personality": personality}])
    host = Host(simulator)
    with refused("CKR_PIN_INCORRECT"):
        host.log_in(pin=None)
    assert simulator["card"].status().tries_left == 1
    host.log_in(pin=None)
    assert simulator["card"].status().personality == "slow pad"


# --- descriptions --------------------------------------------------------------------------------------------------------


def test_certificates_lie_beside_their_keys(simulated_tokens: Start, tmp_path: Path) -> None:
    with pk11_tokens.start([CARD | {"key": [KEY | {"self_signed": ["localhost", "127.0.0.1"]}]}]) as first:
        der = first["card"].certificate_der("www")
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == ["localhost"]
    issuer = tmp_path / "issuer.der"
    issuer.write_bytes(der)
    simulator = simulated_tokens([CARD | {"certificate": [{"file": issuer}]}])
    assert simulator["card"].certificate_der("issuer") == der
    assert simulator["card"].status().objects == 3


def test_a_blank_token_waits_to_be_initialised(simulated_tokens: Start) -> None:
    host = Host(simulated_tokens([{"label": "new", "blank": True}]))
    assert not host.module.token_flags() & CKF.TOKEN_INITIALIZED
    assert host.module.C_InitToken(SLOT, b"12345678", 8, b"fresh".ljust(32)) == "CKR_OK"
    assert host.module.token_flags() & CKF.TOKEN_INITIALIZED


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("reader = 5", "reader: must be a list, not 5"),
        ("", "reader: there is none; a simulator needs at least one [[reader]]"),
        ("[[reader]]\nnmae = 'x'", 'reader[1].nmae: there is no "nmae"; did you mean "name"?'),
        ("[[reader]]\n[reader.token]\npersonality = 'smart crad'", 'there is no "smart crad"; did you mean "smart card"?'),
        ("[[reader]]\n[reader.token]\npin_tries = 'three'", "reader[1].token.pin_tries: must be a whole number, not 'three'"),
        ("[[reader]]\n[reader.token]\npin_tries = -1", "pin_tries: must not be negative"),
        ("[[reader]]\n[reader.token]\nwrong_signatures = 2", "wrong_signatures: must be a number from 0 to 1"),
        ("[[reader]]\n[reader.token]\nslot_events = 'no'", "slot_events: there is no"),
        ("[[reader]]\n[reader.token]\nlatency = {C_Singe = 1}", 'latency.C_Singe: there is no "C_Singe"; did you mean "C_Sign"?'),
        (
            "[[reader]]\n[reader.token]\nkey_sizes = {CKM_DAS = [1, 2]}",
            'key_sizes.CKM_DAS: there is no "CKM_DAS"; did you mean "CKM_DSA"?',
        ),
        ("[[reader]]\n[reader.token]\nmechanisms = ['CKM_NONE']", "mechanisms: CKM_NONE is no mechanism known here"),
        ("[[reader]]\n[reader.token]\npersonality = 'smart card'\npin = '1'", "pin: must have 6 to 8 characters on a smart card"),
        ("[[reader]]\n[reader.token]\nlabel = '" + 33 * "x" + "'", "label: longer than the 32 bytes"),
        ("[[reader]]\ntoken = 5", "reader[1].token: must be a table, not 5"),
        ("[[reader]]\n[reader.token]\n[[reader.token.key]]\nkind = 'p256'", "reader[1].token.key[1].label: needed"),
        ("[[reader]]\n[reader.token]\n[[reader.token.key]]\nlabel = 'a'", "key[1].kind: needed, unless a file is given"),
        ("[[reader]]\n[reader.token]\n[[reader.token.key]]\nlabel = 'a'\nkind = 'p257'", 'did you mean "p256"?'),
        ("[[reader]]\n[reader.token]\n[[reader.token.key]]\nlabel = 'a'\nkind = 'p256'\nid = 'x'", "must be hexadecimal digits"),
        (
            "[[reader]]\n[reader.token]\npersonality = 'smart card'\n[[reader.token.key]]\nlabel = 'a'\nkind = 'ed25519'",
            "a smart card has no CKM_EDDSA, so no ed25519 key",
        ),
        ("[[reader]]\n[reader.token]\n[[reader]]\n[reader.token]", 'token: two are called "token"'),
        ("[[reader]", "not TOML"),
    ],
)
def test_what_is_wrong_with_a_description_is_said(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "card.toml"
    file.write_text(text)
    with pytest.raises(DescriptionError) as caught:
        parse(load(file))
    assert str(caught.value).startswith(f"{file}: ")
    assert fault in str(caught.value)


def _not_there(directory: Path) -> tuple[dict[str, Any], str]:
    return {"label": "a", "file": directory / "none.pem"}, "key[1].file: .*none.pem: No such file"


def _no_key(directory: Path) -> tuple[dict[str, Any], str]:
    file = directory / "key.pem"
    file.write_text("-----BEGIN NOTHING-----\n")
    return {"label": "a", "file": file}, "key[1].file: .*key.pem holds no private key"


def _anothers(directory: Path) -> tuple[dict[str, Any], str]:
    file = directory / "cert.der"
    with pk11_tokens.start([CARD | {"key": [KEY | {"self_signed": ["localhost"]}]}]) as simulator:
        file.write_bytes(simulator["card"].certificate_der("www"))
    return {"label": "a", "kind": "p256", "certificate": file}, "key[1].certificate: .*cert.der is not for this key"


@pytest.mark.parametrize("make", [_not_there, _no_key, _anothers])
def test_what_is_wrong_with_files_is_said(tmp_path: Path, make: Callable[[Path], tuple[dict[str, Any], str]]) -> None:
    key, fault = make(tmp_path)
    with pytest.raises(DescriptionError, match=fault.replace("[1]", r"\[1\]")):
        pk11_tokens.start([{"label": "card", "key": [key]}])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=r"card\.toml: No such file"):
        pk11_tokens.start(tmp_path / "card.toml")
