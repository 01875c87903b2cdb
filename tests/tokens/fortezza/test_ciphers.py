"""Skipjack on the card, with an initialization vector that the card makes, and work that is saved."""

from __future__ import annotations

import os
from typing import Any

import pytest
from pk11_tokens.abi import CKM
from pk11_tokens.mechanisms.fortezza import LEAF
from pk11_tokens.skipjack import Cbc, Cfb, Ecb, Ofb, Skipjack

from ..client import Client, Mechanism, Refusal, refused
from ..cryptoki import Module
from .host import (
    KEY_GEN,
    Card,
    Cipher,
    Stranger,
)

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


# --- work that is saved ------------------------------------------------------------------------------------------------


def save(card: Card) -> bytes:
    return card.client.finish("C_GetOperationState")


def take_up(card: Card, state: bytes, key: int = 0, other: int = 0) -> None:
    card.client("C_SetOperationState", state, len(state), key, other)


@pytest.mark.parametrize("direction", ["Encrypt", "Decrypt"])
@pytest.mark.parametrize("number", MODES, ids=lambda number: number.name)
def test_work_goes_on_in_another_session(module: Module, a: Card, number: CKM, direction: str) -> None:
    key, handle = Stranger().give_key(a)
    cipher, data = Cipher(number, os.urandom(24)), os.urandom(32)
    a.client(f"C_{direction}Init", cipher.address, handle)
    first = a.client.finish(f"C_{direction}Update", data[:19], 19)  # in CBC, three bytes of it are held back
    state = save(a)
    a.client.finish(f"C_{direction}Update", bytes(40), 40)  # what was saved does not change any more
    other = Card(Client(module, slot=1))
    take_up(other, state, handle)
    second = other.client.finish(f"C_{direction}Update", data[19:], 13)
    other.client.finish(f"C_{direction}Final")
    computed = MODES[number](Skipjack(key), cipher.iv[16:], encrypting=direction == "Encrypt")
    assert first + second == computed(data)


def test_before_anything_is_encrypted(a: Card) -> None:
    """As NSS saves it, to begin again later with the same initialization vector.  The state replaces what the session did."""
    key, handle = Stranger().give_key(a)
    cipher = Cipher()
    a.client("C_EncryptInit", cipher.address, handle)
    state = save(a)
    assert len(state) == a.client.length("C_GetOperationState")
    expected = Cbc(Skipjack(key), cipher.iv[16:], encrypting=True)(b"two blocks, once")
    for _ in range(2):
        take_up(a, state, handle)
        assert a.client.finish("C_Encrypt", b"two blocks, once", 16) == expected
    a.client("C_DecryptInit", Cipher().address, handle)
    take_up(a, state, handle)
    with refused("OPERATION_NOT_INITIALIZED"):
        a.client.finish("C_DecryptFinal")


def test_a_state_is_good_for_its_key_alone(a: Card) -> None:
    key = a.client.generate(KEY_GEN, {})
    a.client("C_EncryptInit", Cipher().address, key)
    state = save(a)
    with refused("KEY_CHANGED"):
        take_up(a, state, a.client.generate(KEY_GEN, {}))
    with refused("KEY_NEEDED"):
        take_up(a, state)
    with refused("KEY_NOT_NEEDED"):
        take_up(a, state, key, key)
    with refused("KEY_HANDLE_INVALID"):
        take_up(a, state, 0xFFFF)


def test_nobody_makes_a_state_up(a: Card) -> None:
    """Or a host could choose with which initialization vector the card encrypts."""
    key = a.client.generate(KEY_GEN, {})
    a.client("C_EncryptInit", Cipher().address, key)
    state = save(a)
    for place in range(len(state)):
        changed = state[:place] + bytes((state[place] ^ 1,)) + state[place + 1 :]
        with pytest.raises(Refusal, match=r"^CKR_(SAVED_STATE_INVALID|KEY_CHANGED)$"):
            take_up(a, changed, key)
    for wrong in (b"", state[:-1], state[:20], state + b"\0"):
        with refused("SAVED_STATE_INVALID"):
            take_up(a, wrong, key)
    take_up(a, state, key)


def test_what_is_not_saved(a: Card) -> None:
    key = a.client.generate(KEY_GEN, {})
    with refused("OPERATION_NOT_INITIALIZED"):
        save(a)
    a.client("C_DigestInit", Mechanism(CKM.SHA_1).address)
    with refused("STATE_UNSAVEABLE"):
        save(a)
    a.client("C_EncryptInit", Cipher().address, key)
    with refused("STATE_UNSAVEABLE"):  # two at once
        save(a)
