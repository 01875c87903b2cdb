"""Keys of the card: agreed on, made, wrapped; none leaves it in the clear."""

from __future__ import annotations

import ctypes
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa
from pk11_tokens import PERSONALITIES
from pk11_tokens.abi import CKA, CKK, CKM, CKO, MECHANISM_INFO
from pk11_tokens.kea import RANDOM_SLOTS, KeaPublicKey
from pk11_tokens.keytypes import integer
from pk11_tokens.skipjack import Cbc, Skipjack, checksum, unwrap, wrap

from ..client import SHOWN, Client, Mechanism, Value, key_of, refused
from ..cryptoki import Module
from .host import (
    DOMAIN,
    KEY_GEN,
    MAIL,
    NONE,
    PIN,
    SKIPJACK_KEY,
    WRAP,
    Agreement,
    Card,
    Stranger,
    same_key,
)

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


def test_a_key_and_its_checksum_make_twelve_bytes(a: Card) -> None:
    tek, handle = Stranger().write_to(a)
    key = os.urandom(10)
    made = a.client.unwrap(WRAP, handle, wrap(Skipjack(tek), key), SKIPJACK_KEY)
    assert a.client.wrap(WRAP, handle, made)[10:] == checksum(key)
