"""The FORTEZZA card as a host sees it, through the C interface: agreeing, wrapping, encrypting, and what it does not do."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import pk11_tokens
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_public_key
from pk11_tokens import PERSONALITIES, DescriptionError, RunningSimulator
from pk11_tokens.abi import CKA, CKF, CKK, CKM, CKO, MECHANISM_INFO, ULONG
from pk11_tokens.issuing import Issuer, self_signed
from pk11_tokens.kea import DOMAINS, RANDOM_SLOTS, KeaPublicKey
from pk11_tokens.keytypes import integer
from pk11_tokens.mechanisms.fortezza import LEAF
from pk11_tokens.skipjack import Cbc, Cfb, Ecb, Ofb, Skipjack, checksum, unwrap, wrap

from ..support.require import require
from .client import SHOWN, Client, Mechanism, Value, key_of, refused
from .conftest import Start
from .cryptoki import Module
from .fortezza import DOMAIN, KEY_GEN, MAIL, NONE, SKIPJACK_KEY, WRAP, Agreement, Card, Cipher, Stranger

EXCHANGE = {"label": "exchange", "kind": "kea", "issued": ["localhost"]}
SIGNATURE = {"label": "signature", "kind": "dsa1024", "issued": ["localhost"]}
PIN = "4711 and more"[:12]  # as long as one may be


def token(label: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "personality": "FORTEZZA card", "pin": PIN, "key": [EXCHANGE, SIGNATURE]} | more


@pytest.fixture(scope="module")
def cards() -> Iterator[RunningSimulator]:
    """Three, the last one of another domain."""
    other = [EXCHANGE | {"kind": "kea_other"}]
    with pk11_tokens.start([token("a"), token("b"), token("c", key=other)]) as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def module(cards: RunningSimulator) -> Iterator[Module]:
    with Module(cards.module) as initialised:
        yield initialised


@pytest.fixture
def a(module: Module) -> Card:
    return Card(Client(module, slot=1).login(PIN.encode()))


@pytest.fixture
def b(module: Module) -> Card:
    return Card(Client(module, slot=2).login(PIN.encode()))


@pytest.fixture
def c(module: Module) -> Card:
    return Card(Client(module, slot=3).login(PIN.encode()))


def same_key(one: Card, key: int, other: Card, its: int) -> bool:
    """Whether two cards have the same key: what one encrypts, the other decrypts."""
    data = os.urandom(16)
    ciphertext, parameter = one.encrypt(key, data)
    return other.decrypt(its, ciphertext, parameter) == data


# --- what it is ------------------------------------------------------------------------------------------------------

SKIPJACK_FLAGS = CKF.ENCRYPT | CKF.DECRYPT


@pytest.mark.parametrize(
    ("mechanism", "flags"),
    [
        (CKM.SKIPJACK_KEY_GEN, CKF.GENERATE),
        *((CKM[f"SKIPJACK_{mode}"], SKIPJACK_FLAGS) for mode in ("ECB64", "CBC64", "OFB64", "CFB64", "CFB32", "CFB16", "CFB8")),
        (CKM.SKIPJACK_WRAP, CKF.WRAP | CKF.UNWRAP),
        (CKM.KEA_KEY_PAIR_GEN, CKF.GENERATE_KEY_PAIR),
        (CKM.KEA_KEY_DERIVE, CKF.DERIVE),
        (CKM.FORTEZZA_TIMESTAMP, CKF.SIGN),
        (CKM.DSA, CKF.SIGN | CKF.VERIFY),
    ],
)
def test_mechanisms(module: Module, mechanism: CKM, flags: int) -> None:
    room = ctypes.create_string_buffer(MECHANISM_INFO.size)
    assert module.C_GetMechanismInfo(1, mechanism, room) == "CKR_OK"
    assert MECHANISM_INFO.unpack(room.raw)[2] == flags | CKF.HW


@pytest.mark.parametrize("mechanism", [CKM.RSA_PKCS, CKM.AES_CBC, CKM.SKIPJACK_PRIVATE_WRAP, CKM.SKIPJACK_RELAYX])
def test_there_is_no_more(module: Module, mechanism: CKM) -> None:
    room = ctypes.create_string_buffer(MECHANISM_INFO.size)
    assert module.C_GetMechanismInfo(1, mechanism, room) == "CKR_MECHANISM_INVALID"


def test_pkcs11_tool_shows_it(cards: RunningSimulator) -> None:
    def tool(*arguments: str) -> str:
        command = [require("pkcs11-tool"), "--module", cards.module, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert "FORTEZZA card" in tool("-L")
    shown = tool("--slot", "1", "-M")
    assert all(f"SKIPJACK-{mode}" in shown for mode in ("CBC64", "WRAP"))
    assert "KEA-KEY-DERIVE" in shown


# --- agreeing --------------------------------------------------------------------------------------------------------


def test_mail(a: Card, b: Card) -> None:
    sent = Agreement(sender=True, public=b.public)
    ours = a.derive(sent, {CKA.VALUE_LEN: 12, CKA.KEY_TYPE: CKK.SKIPJACK, CKA.WRAP: True})
    assert DOMAIN.contains(int.from_bytes(sent.random_a, "big"))
    theirs = b.derive(Agreement(sender=False, public=a.public, random_a=sent.random_a))
    assert same_key(a, ours, b, theirs)


def test_a_random_value_each_time(a: Card, b: Card) -> None:
    made = [Agreement(sender=True, public=b.public) for _ in range(2)]
    keys = [a.derive(agreement) for agreement in made]
    assert made[0].random_a != made[1].random_a
    assert not same_key(a, keys[0], a, keys[1])


def test_a_used_buffer_does_not_bring_an_old_random_value_back(a: Card, b: Card) -> None:
    first = Agreement(sender=True, public=b.public)
    a.derive(first)
    second = Agreement(sender=True, public=b.public, random_a=first.random_a)
    a.derive(second)
    assert second.random_a != first.random_a


def first_phase(card: Card, peer: Card, *, sender: bool) -> bytes:
    """R of a card, and no key; the template is not looked at."""
    agreement = Agreement(sender=sender, public=peer.public, random_b=NONE)
    before = card.client.find({CKA.CLASS: CKO.SECRET_KEY})
    card.derive(agreement, {CKA.EXTRACTABLE: True})
    assert card.client.find({CKA.CLASS: CKO.SECRET_KEY}) == before
    made, other = (agreement.random_a, agreement.random_b) if sender else (agreement.random_b, agreement.random_a)
    assert DOMAIN.contains(int.from_bytes(made, "big"))
    assert other == NONE
    return made


@pytest.mark.parametrize("in_advance", [True, False])
def test_both_give_a_random_value(a: Card, b: Card, *, in_advance: bool) -> None:
    """The sender makes its own before, or with the key."""
    random_a = first_phase(a, b, sender=True) if in_advance else NONE
    random_b = first_phase(b, a, sender=False)
    sent = Agreement(sender=True, public=b.public, random_a=random_a, random_b=random_b)
    ours = a.derive(sent)
    assert (sent.random_a == random_a) == in_advance
    received = Agreement(sender=False, public=a.public, random_a=sent.random_a, random_b=random_b)
    assert same_key(a, ours, b, b.derive(received))
    with refused("MECHANISM_PARAM_INVALID"):
        b.derive(received)  # each random value is for one key


def test_a_card_remembers_its_last_random_values(a: Card, b: Card) -> None:
    made = [first_phase(b, a, sender=False) for _ in range(RANDOM_SLOTS + 1)]
    sent = Agreement(sender=True, public=b.public, random_b=made[0])
    a.derive(sent)
    for random_b in made[1:]:
        b.derive(Agreement(sender=False, public=a.public, random_a=sent.random_a, random_b=random_b))
    with refused("MECHANISM_PARAM_INVALID"):
        b.derive(Agreement(sender=False, public=a.public, random_a=sent.random_a, random_b=made[0]))


def test_anybody_can_compute_the_other_side(a: Card) -> None:
    tek, handle = Stranger().write_to(a)
    ciphertext, parameter = a.encrypt(handle, b"sixteen bytes ok")
    assert Cbc(Skipjack(tek), parameter[16:], encrypting=False)(ciphertext) == b"sixteen bytes ok"


def test_the_card_as_sender_as_computed(a: Card) -> None:
    stranger = Stranger()
    sent = Agreement(sender=True, public=stranger.public)
    handle = a.derive(sent)
    peer, random_a = (KeaPublicKey(DOMAIN, int.from_bytes(value, "big")) for value in (a.public, sent.random_a))
    tek = stranger.key.agree(stranger.key.x, peer, random_a)
    wrapped = a.client.wrap(WRAP, handle, a.client.generate(KEY_GEN, {}))
    assert unwrap(Skipjack(tek), wrapped)


def test_what_the_key_is(a: Card) -> None:
    _, handle = Stranger().write_to(a)
    client = a.client
    assert client.number(handle, CKA.KEY_TYPE) == CKK.SKIPJACK
    assert client.number(handle, CKA.VALUE_LEN) == 12
    assert client.is_true(handle, CKA.SENSITIVE)
    assert not client.is_true(handle, CKA.EXTRACTABLE)
    assert not client.is_true(handle, CKA.LOCAL)
    with refused("ATTRIBUTE_SENSITIVE"):
        client.get(handle, CKA.VALUE)
    with refused("KEY_UNEXTRACTABLE"):
        client.wrap(WRAP, handle, handle)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ({CKA.EXTRACTABLE: True}, "TEMPLATE_INCONSISTENT"),
        ({CKA.SENSITIVE: False}, "TEMPLATE_INCONSISTENT"),
        ({CKA.KEY_TYPE: CKK.AES}, "TEMPLATE_INCONSISTENT"),
        ({CKA.VALUE_LEN: 10}, "KEY_SIZE_RANGE"),
    ],
)
def test_what_the_key_cannot_be(a: Card, b: Card, template: dict[int, Value], error: str) -> None:
    with refused(error):
        a.derive(Agreement(sender=True, public=b.public), template)


def test_cards_of_two_domains_do_not_agree(a: Card, c: Card) -> None:
    with refused("DOMAIN_PARAMS_INVALID"):
        a.derive(Agreement(sender=True, public=c.public))
    with refused("DOMAIN_PARAMS_INVALID"):
        a.derive(Agreement(sender=False, public=c.public, random_a=c.public))


@pytest.mark.parametrize("wrong", [NONE, MAIL, DOMAIN.p.to_bytes(128, "big"), (DOMAIN.p - 1).to_bytes(128, "big")])
def test_values_outside_the_subgroup_are_refused(a: Card, b: Card, wrong: bytes) -> None:
    with refused("DOMAIN_PARAMS_INVALID"):
        a.derive(Agreement(sender=True, public=wrong))
    with refused("DOMAIN_PARAMS_INVALID"):
        a.derive(Agreement(sender=False, public=b.public, random_a=wrong))


def test_values_have_their_length(a: Card, b: Card) -> None:
    for agreement in (
        Agreement(sender=True, public=b.public, length=127),
        Agreement(sender=True, public=b.public[1:]),
        Mechanism(CKM.KEA_KEY_DERIVE),
    ):
        with refused("MECHANISM_PARAM_INVALID"):
            a.client.derive(agreement, a.private, {})


def test_only_keys_of_kea_agree(a: Card, b: Card) -> None:
    with refused("KEY_TYPE_INCONSISTENT"):
        a.client.derive(Agreement(sender=True, public=b.public), key_of(a.client, "signature"), {})


# --- pairs -----------------------------------------------------------------------------------------------------------


def domain_of(card: Card) -> dict[int, Value]:
    return {**card.client.get_all(key_of(card.client, "exchange", CKO.PUBLIC_KEY), [CKA.PRIME, CKA.SUBPRIME, CKA.BASE])}


def test_a_new_pair(a: Card, b: Card) -> None:
    gen = Mechanism(CKM.KEA_KEY_PAIR_GEN)
    public, private = a.client.generate_pair(gen, domain_of(a), {CKA.LABEL: "new"})
    assert not a.client.is_true(private, CKA.EXTRACTABLE)
    assert a.client.is_true(private, CKA.LOCAL)
    with refused("ATTRIBUTE_SENSITIVE"):
        a.client.get(private, CKA.VALUE)
    y = a.client.get(public, CKA.VALUE)
    assert len(y) == 128
    sent = Agreement(sender=True, public=b.public)
    ours = a.client.derive(sent, private, {})
    assert same_key(a, ours, b, b.derive(Agreement(sender=False, public=y, random_a=sent.random_a)))
    with refused("TEMPLATE_INCONSISTENT"):
        a.client.generate_pair(gen, domain_of(a), SHOWN)


def test_a_pair_needs_a_domain(a: Card) -> None:
    gen = Mechanism(CKM.KEA_KEY_PAIR_GEN)
    with refused("TEMPLATE_INCOMPLETE"):
        a.client.generate_pair(gen, {}, {})
    with refused("DOMAIN_PARAMS_INVALID"):
        a.client.generate_pair(gen, domain_of(a) | {CKA.BASE: b"\2"}, {})


@pytest.mark.parametrize("values", [SKIPJACK_KEY | {CKA.VALUE: bytes(12)}, {CKA.CLASS: CKO.PRIVATE_KEY, CKA.KEY_TYPE: CKK.KEA}])
def test_nobody_brings_a_key_in_the_clear(a: Card, values: dict[int, Value]) -> None:
    more = domain_of(a) | {CKA.VALUE: b"\1" * 20} if CKA.VALUE not in values else {}
    with refused("ATTRIBUTE_READ_ONLY"):
        a.client.create(values | more)


def test_keys_of_dsa_have_1024_bits(module: Module, a: Card) -> None:
    room = ctypes.create_string_buffer(MECHANISM_INFO.size)
    assert module.C_GetMechanismInfo(1, CKM.DSA, room) == "CKR_OK"
    assert MECHANISM_INFO.unpack(room.raw)[:2] == (1024, 1024)
    gen = Mechanism(CKM.DSA_KEY_PAIR_GEN)
    a.client.generate_pair(gen, domain_of(a), {})  # the numbers of KEA's domain are good for DSA too
    parameters = dsa.generate_parameters(2048).parameter_numbers()
    numbers = {CKA.PRIME: parameters.p, CKA.SUBPRIME: parameters.q, CKA.BASE: parameters.g}
    longer: dict[int, Value] = {name: integer(value) for name, value in numbers.items()}
    with refused("KEY_SIZE_RANGE"):
        a.client.generate_pair(gen, longer, {})


# --- wrapped keys ----------------------------------------------------------------------------------------------------


def test_wrapped_from_card_to_card(a: Card, b: Card) -> None:
    sent = Agreement(sender=True, public=b.public)
    ours = a.derive(sent)
    theirs = b.derive(Agreement(sender=False, public=a.public, random_a=sent.random_a))
    key = a.client.generate(KEY_GEN, {})
    wrapped = a.client.wrap(WRAP, ours, key)
    assert len(wrapped) == a.client.length("C_WrapKey", WRAP.address, ours, key) == 12
    assert same_key(a, key, b, b.client.unwrap(WRAP, theirs, wrapped, SKIPJACK_KEY))


def test_wrapped_as_computed(a: Card) -> None:
    stranger = Stranger()
    tek, handle = stranger.write_to(a)
    key = a.client.generate(KEY_GEN, {})
    plain = unwrap(Skipjack(tek), a.client.wrap(WRAP, handle, key))
    ciphertext, parameter = a.encrypt(key, bytes(24))
    assert Cbc(Skipjack(plain), parameter[16:], encrypting=False)(ciphertext) == bytes(24)


def test_a_damaged_key_is_noticed(a: Card) -> None:
    tek, handle = Stranger().write_to(a)
    wrapped = wrap(Skipjack(tek), os.urandom(10))
    for place in (0, 9, 10, 11):
        damaged = bytearray(wrapped)
        damaged[place] ^= 1
        with refused("WRAPPED_KEY_INVALID"):
            a.client.unwrap(WRAP, handle, bytes(damaged), SKIPJACK_KEY)
    for wrong in (wrapped[:10], wrapped + b"\0"):
        with refused("WRAPPED_KEY_LEN_RANGE"):
            a.client.unwrap(WRAP, handle, wrong, SKIPJACK_KEY)


def test_private_keys_stay(a: Card) -> None:
    _, handle = Stranger().write_to(a)
    for label in ("exchange", "signature"):
        with refused("KEY_UNEXTRACTABLE"):
            a.client.wrap(WRAP, handle, key_of(a.client, label))


@pytest.mark.parametrize("template", [SHOWN, {CKA.SENSITIVE: False}])
def test_no_key_is_shown(a: Card, template: dict[int, Value]) -> None:
    with refused("TEMPLATE_INCONSISTENT"):
        a.client.generate(KEY_GEN, template)
    tek, handle = Stranger().write_to(a)
    with refused("TEMPLATE_INCONSISTENT"):
        a.client.unwrap(WRAP, handle, wrap(Skipjack(tek), os.urandom(10)), SKIPJACK_KEY | template)
    made = a.client.generate(KEY_GEN, {})
    with refused("ATTRIBUTE_READ_ONLY"):
        a.client.change(made, {CKA.SENSITIVE: False})


def test_what_is_under_ks_survives_the_session(module: Module, a: Card) -> None:
    storage = key_of(a.client, "Ks", CKO.SECRET_KEY)
    key = a.client.generate(KEY_GEN, {})
    ciphertext, parameter = a.encrypt(key, b"eight by")
    wrapped = a.client.wrap(WRAP, storage, key)
    a.client.close()
    again = Card(Client(module, slot=1).login(PIN.encode()))
    key = again.client.unwrap(WRAP, key_of(again.client, "Ks", CKO.SECRET_KEY), wrapped, SKIPJACK_KEY)
    assert again.decrypt(key, ciphertext, parameter) == b"eight by"


def test_registers_run_out(a: Card) -> None:
    most = PERSONALITIES["FORTEZZA card"].key_registers
    there = len(a.client.find({CKA.CLASS: CKO.SECRET_KEY}))
    made = [a.client.generate(KEY_GEN, {}) for _ in range(most - there)]
    with refused("DEVICE_MEMORY"):
        a.client.generate(KEY_GEN, {})
    with refused("DEVICE_MEMORY"):
        Stranger().write_to(a)
    a.client("C_DestroyObject", made[0])
    a.client.generate(KEY_GEN, {})


# --- encryption ------------------------------------------------------------------------------------------------------

MODES: dict[CKM, Any] = {
    CKM.SKIPJACK_CBC64: Cbc,
    CKM.SKIPJACK_OFB64: Ofb,
    **{
        CKM[f"SKIPJACK_CFB{8 * unit}"]: lambda cipher, iv, *, encrypting, unit=unit: Cfb(
            cipher, iv, unit=unit, encrypting=encrypting
        )
        for unit in (8, 4, 2, 1)
    },
}


@pytest.mark.parametrize("number", MODES, ids=lambda number: number.name)
def test_modes(a: Card, number: CKM) -> None:
    key, handle = Stranger().give_key(a)
    data = os.urandom(64)
    ciphertext, parameter = a.encrypt(handle, data, number)
    assert parameter[:16] == LEAF
    assert MODES[number](Skipjack(key), parameter[16:], encrypting=True)(data) == ciphertext
    assert a.decrypt(handle, ciphertext, parameter, number) == data
    assert a.decrypt(handle, ciphertext, bytes(16) + parameter[16:], number) == data  # nobody looks at the LEAF


def test_ecb_has_no_parameter(a: Card) -> None:
    key, handle = Stranger().give_key(a)
    data = os.urandom(32)
    ciphertext = a.client.run("Encrypt", Mechanism(CKM.SKIPJACK_ECB64), handle, data)
    assert ciphertext == Ecb(Skipjack(key), encrypting=True)(data)
    assert a.client.run("Decrypt", Mechanism(CKM.SKIPJACK_ECB64), handle, ciphertext) == data
    with refused("MECHANISM_PARAM_INVALID"):
        a.client("C_EncryptInit", Cipher(CKM.SKIPJACK_ECB64).address, handle)


def test_the_card_chooses_the_iv(a: Card) -> None:
    """Before anything is encrypted, and whatever the host would like."""
    key = a.client.generate(KEY_GEN, {})
    seen = set()
    for _ in range(3):
        cipher = Cipher(parameter=b"what the host would like"[:24])
        a.client("C_EncryptInit", cipher.address, key)
        seen.add(cipher.iv)
        a.client.finish("C_EncryptFinal")
    assert len(seen) == 3
    assert all(iv.startswith(LEAF) for iv in seen)


@pytest.mark.parametrize("length", [0, 8, 16, 23, 25])
def test_the_parameter_has_24_bytes(a: Card, length: int) -> None:
    key = a.client.generate(KEY_GEN, {})
    for function in ("C_EncryptInit", "C_DecryptInit"):
        with refused("MECHANISM_PARAM_INVALID"):
            a.client(function, Cipher(parameter=bytes(length)).address, key)


def test_the_chain_goes_on_between_parts(a: Card) -> None:
    key, handle = Stranger().give_key(a)
    cipher, parts = Cipher(), [os.urandom(length) for length in (8, 3, 0, 29, 24)]
    ciphertext = a.client.run_parts("Encrypt", cipher, handle, parts)
    assert ciphertext == Cbc(Skipjack(key), cipher.iv[16:], encrypting=True)(b"".join(parts))
    pieces = [ciphertext[:16], ciphertext[16:17], ciphertext[17:]]
    assert a.client.run_parts("Decrypt", Cipher(parameter=cipher.iv), handle, pieces) == b"".join(parts)


def test_nothing_is_padded(a: Card) -> None:
    key = a.client.generate(KEY_GEN, {})
    with refused("DATA_LEN_RANGE"):
        a.encrypt(key, bytes(12))
    with refused("ENCRYPTED_DATA_LEN_RANGE"):
        a.decrypt(key, bytes(12), bytes(24))
    assert len(a.encrypt(key, bytes(12), CKM.SKIPJACK_CFB32)[0]) == 12


# --- time ------------------------------------------------------------------------------------------------------------


def test_time_stamps(cards: RunningSimulator, module: Module, a: Card) -> None:
    assert module.token_flags(1) & CKF.CLOCK_ON_TOKEN
    data = sha1(b"what is stamped").digest()
    public_key = load_der_public_key(cards["a"].public_key_der("signature"))
    assert isinstance(public_key, dsa.DSAPublicKey)

    def stamped() -> bool:
        before = module.token_info(1)[-1]
        signature = a.client.sign(Mechanism(CKM.FORTEZZA_TIMESTAMP), key_of(a.client, "signature"), data)
        assert len(signature) == 40
        der = encode_dss_signature(int.from_bytes(signature[:20], "big"), int.from_bytes(signature[20:], "big"))
        try:
            public_key.verify(der, sha1(data + before).digest(), Prehashed(SHA1()))
        except InvalidSignature:
            assert module.token_info(1)[-1] != before  # a second began meanwhile
            return False
        return True

    end = time.monotonic() + 10
    while not stamped():
        assert time.monotonic() < end
    with refused("DATA_LEN_RANGE"):
        a.client.sign(Mechanism(CKM.FORTEZZA_TIMESTAMP), key_of(a.client, "signature"), data + b"\0")


# --- hosts, PINs, readers --------------------------------------------------------------------------------------------

_OTHER_HOST = """
import sys
from tests.tokens.cryptoki import Module
import ctypes
with Module(sys.argv[1]) as module:
    print(module.C_OpenSession(1, 4, None, None, ctypes.byref(ctypes.c_ulong())))
"""


def other_host(module: str) -> str:
    command = [sys.executable, "-c", _OTHER_HOST, module]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=Path(__file__).parents[2]).stdout


def test_one_process_at_a_time(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([token("card")])
    with Module(simulator.module) as module:
        sessions = [module.open(), module.open()]
        assert other_host(simulator.module) == "CKR_SESSION_COUNT\n"
        for session in sessions:
            module.C_CloseSession(session)
        assert other_host(simulator.module) == "CKR_OK\n"


def test_pins(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([token("card")])
    with Module(simulator.module) as module:
        session = module.open()
        assert module.login(session, b"0123456789abc") == "CKR_PIN_LEN_RANGE"
        for _ in range(10):
            assert module.login(session, b"wrong pin") == "CKR_PIN_INCORRECT"
        assert module.login(session, PIN.encode()) == "CKR_PIN_LOCKED"
        simulator["card"].unlock()
        assert module.login(session, PIN.encode()) == "CKR_OK"


def test_taken_out_in_the_middle(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([token("card")])
    with Module(simulator.module) as module:
        card = Card(Client(module).login(PIN.encode()))
        key = card.client.generate(KEY_GEN, {})
        card.client("C_EncryptInit", Cipher().address, key)
        simulator["card"].remove()
        with refused("DEVICE_REMOVED"):
            card.client.finish("C_EncryptUpdate", bytes(8), 8)
        simulator["card"].insert()
        again = Client(module).login(PIN.encode())
        assert again.labels() == {"exchange", "signature", "issuer", "Ks"}
        assert again.find({CKA.CLASS: CKO.SECRET_KEY}) == again.find({CKA.LABEL: "Ks"})


# --- certificates and descriptions -----------------------------------------------------------------------------------


def test_certificates_are_by_one_issuer(cards: RunningSimulator) -> None:
    issuers = {cards[name].certificate_der("issuer") for name in "abc"}
    assert len(issuers) == 1
    issuer = x509.load_der_x509_certificate(issuers.pop())
    for name in "ab":
        for label in ("exchange", "signature"):
            certificate = x509.load_der_x509_certificate(cards[name].certificate_der(label))
            certificate.verify_directly_issued_by(issuer)
            assert cards[name].public_key_der(label) in certificate.tbs_certificate_bytes
            usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
            assert (usage.key_agreement, usage.digital_signature) == (label == "exchange", label == "signature")


def test_a_certificate_lies_beside_its_key(a: Card) -> None:
    private = a.client.get(a.private, CKA.ID)
    found = a.client.find({CKA.CLASS: CKO.CERTIFICATE, CKA.ID: private})
    assert [a.client.get(each, CKA.LABEL) for each in found] == [b"exchange"]


@pytest.mark.parametrize("kind", [ec.generate_private_key(ec.SECP384R1()), dsa.generate_private_key(1024)], ids=["ec", "dsa"])
def test_an_issuer_of_ones_own(simulated_tokens: Start, tmp_path: Path, kind: Any) -> None:
    certificate = self_signed(kind, ("Authority",))
    file = tmp_path / "issuer.pem"
    private = kind.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    simulator = simulated_tokens([token("card", key=[EXCHANGE | {"issuer": file}])])
    issued = x509.load_der_x509_certificate(simulator["card"].certificate_der("exchange"))
    issued.verify_directly_issued_by(certificate)
    with pytest.raises(RuntimeError, match="no certificate"):
        simulator["card"].certificate_der("issuer")


def test_a_certificate_of_kea_from_a_file(simulated_tokens: Start, tmp_path: Path) -> None:
    """It has to be for the key on the card, which is a new one."""
    file = tmp_path / "other.der"
    file.write_bytes(Issuer().issue(DOMAIN.generate().public_key(), ("localhost",)))
    with pytest.raises(DescriptionError, match="is not for this key"):
        simulated_tokens([token("card", key=[{"label": "exchange", "kind": "kea", "certificate": file}])])


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ({"kind": "kea", "self_signed": ["localhost"]}, "self_signed: a key of KEA cannot sign; say issued"),
        ({"kind": "dsa1024", "self_signed": ["a"], "issued": ["a"]}, "self_signed: not with issued"),
        ({"kind": "kea", "certificate": "a", "issued": ["a"]}, "certificate: not with issued"),
        ({"kind": "kea", "issuer": "a.pem"}, "issuer: only with issued"),
        ({"kind": "kea", "issued": ["a"], "issuer": "/nowhere/a.pem"}, "issuer: /nowhere/a.pem: No such file"),
        ({"kind": "kea", "issued": ["a"], "issuer": __file__}, "does not hold a private key and its certificate"),
        ({"kind": "dsa2048"}, "kind: a FORTEZZA card has no key of 2048 bits for CKM_DSA"),
        ({"kind": "p256"}, "a FORTEZZA card has no CKM_ECDSA, so no p256 key"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(simulated_tokens: Start, key: dict[str, Any], fault: str) -> None:
    with pytest.raises(DescriptionError, match=fault):
        simulated_tokens([token("card", key=[{"label": "key"} | key])])


def test_every_domain_is_a_kind_of_key(cards: RunningSimulator, c: Card) -> None:
    assert set(DOMAINS) == {"kea", "kea_other"}
    assert int.from_bytes(c.public, "big") < DOMAINS["kea_other"].p
    assert DOMAINS["kea_other"].contains(int.from_bytes(c.public, "big"))
    assert ULONG.unpack(c.client.get(c.private, CKA.KEY_TYPE))[0] == CKK.KEA


def test_a_key_and_its_checksum_make_twelve_bytes(a: Card) -> None:
    tek, handle = Stranger().write_to(a)
    key = os.urandom(10)
    made = a.client.unwrap(WRAP, handle, wrap(Skipjack(tek), key), SKIPJACK_KEY)
    assert a.client.wrap(WRAP, handle, made)[10:] == checksum(key)
