"""Skipjack against what was published, and against Crypto++: blocks, modes, wrapped keys."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pk11_tokens.skipjack import (
    BLOCK,
    KEY,
    Cbc,
    Cfb,
    Ecb,
    Mode,
    Ofb,
    Order,
    Skipjack,
    checksum,
    unwrap,
    unwrap_private,
    wrap,
    wrap_bare,
    wrap_private,
)

from ..support.require import missing, require

VECTORS = json.loads((Path(__file__).parents[2] / "fixtures/skipjack.json").read_text("utf-8"))["blocks"]
PROGRAM = Path(__file__).with_name("skipjack.cpp")
MODES: dict[str, Callable[..., Mode]] = {
    "CBC64": Cbc,
    "OFB64": Ofb,
    **{f"CFB{8 * unit}": partial(Cfb, unit=unit) for unit in (8, 4, 2, 1)},
}
CHANCE = random.Random(6)  # the same in every run


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["ciphertext"] for vector in VECTORS])
def test_blocks(vector: dict[str, Any]) -> None:
    key, plaintext, ciphertext = (bytes.fromhex(vector[name]) for name in ("key", "plaintext", "ciphertext"))
    cipher = Skipjack(key, vector["order"])
    assert cipher.encrypt(plaintext) == ciphertext
    assert cipher.decrypt(ciphertext) == plaintext


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["ciphertext"] for vector in VECTORS])
def test_one_order_is_the_mirror_of_the_other(vector: dict[str, Any]) -> None:
    key, plaintext, ciphertext = (bytes.fromhex(vector[name])[::-1] for name in ("key", "plaintext", "ciphertext"))
    other: Order = "little" if vector["order"] == "big" else "big"
    assert Skipjack(key, other).encrypt(plaintext) == ciphertext


@pytest.mark.parametrize("length", [0, 9, 11, 12])
def test_a_key_has_ten_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        Skipjack(bytes(length))


# --- modes -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def crypto_plus_plus(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], list[str]]:
    """Asks skipjack.cpp, compiled."""
    compiler, program = require("g++"), tmp_path_factory.mktemp("skipjack") / "skipjack"
    made = subprocess.run([compiler, "-o", program, PROGRAM, "-lcryptopp"], capture_output=True, text=True, check=False)
    if made.returncode:
        if "cryptopp/" in made.stderr:
            missing("libcrypto++-dev")
        pytest.fail(made.stderr)

    def ask(questions: list[str]) -> list[str]:
        asked = "\n".join(questions) + "\n"
        return subprocess.run([program], input=asked, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()

    return ask


@pytest.mark.parametrize("mode", ["ECB64", *MODES])
def test_crypto_plus_plus_says_the_same(crypto_plus_plus: Callable[[list[str]], list[str]], mode: str) -> None:
    questions, answers = [], []
    for blocks in (1, 2, 3, 40):
        for _ in range(25):
            key, iv, data = (CHANCE.randbytes(length) for length in (KEY, BLOCK, BLOCK * blocks))
            given = () if mode == "ECB64" else (iv,)
            start = MODES.get(mode, Ecb)
            results = (start(Skipjack(key), *given, encrypting=encrypting)(data).hex() for encrypting in (True, False))
            questions.append(f"{mode} {key.hex()} {iv.hex() if given else '-'} {data.hex()}")
            answers.append(" ".join(results))
    assert crypto_plus_plus(questions) == answers


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_goes_on_where_it_was(mode: str) -> None:
    cipher, iv, data = Skipjack(CHANCE.randbytes(KEY)), CHANCE.randbytes(BLOCK), CHANCE.randbytes(64)
    whole = MODES[mode](cipher, iv, encrypting=True)(data)
    parts = MODES[mode](cipher, iv, encrypting=True)
    assert parts(data[:24]) + parts(b"") + parts(data[24:32]) + parts(data[32:]) == whole
    back = MODES[mode](cipher, iv, encrypting=False)
    assert back(whole[:8]) + back(whole[8:]) == data


# --- wrapped keys ----------------------------------------------------------------------------------------------------


def test_a_wrapped_key_is_what_the_specification_says() -> None:
    """Eight bytes twice, the last two with the result of the first time; then two bytes of a fixed block under the key."""
    cipher, key = Skipjack(CHANCE.randbytes(KEY)), CHANCE.randbytes(KEY)
    once = cipher.encrypt(key[:8])
    wrapped = wrap(cipher, key)
    assert wrapped[:8] == cipher.encrypt(once)
    assert wrapped[8:10] == bytes(a ^ b for a, b in zip(key[8:], once[:2], strict=True))
    assert wrapped[10:] == checksum(key) == Skipjack(key).encrypt(b"UUUUUUUU")[1:3]
    assert wrap_bare(cipher, key) == wrapped[:10]
    assert unwrap(cipher, wrapped) == key


@pytest.mark.parametrize("place", range(12))
def test_no_byte_of_a_wrapped_key_may_change(place: int) -> None:
    cipher = Skipjack(bytes(range(10)))
    wrapped = bytearray(wrap(cipher, b"0123456789"))
    wrapped[place] ^= 0x40
    with pytest.raises(ValueError, match="no key wrapped"):
        unwrap(cipher, bytes(wrapped))


def test_a_wrapped_key_has_its_length() -> None:
    cipher = Skipjack(bytes(range(10)))
    wrapped = wrap(cipher, b"0123456789")
    for wrong in (wrapped[:10], wrapped[:11], wrapped + b"\0"):
        with pytest.raises(ValueError, match="no key wrapped"):
            unwrap(cipher, wrong)


def test_private_keys_are_wrapped_in_two_halves() -> None:
    cipher, x = Skipjack(CHANCE.randbytes(KEY)), CHANCE.randbytes(20)
    wrapped = wrap_private(cipher, x)
    assert len(wrapped) == 24
    assert unwrap(cipher, wrapped[:12]) == x[:10]
    assert unwrap(cipher, wrapped[12:]) == bytes(a ^ b for a, b in zip(x[12:] + x[10:12], x[:10], strict=True))
    assert unwrap_private(cipher, wrapped) == x
    with pytest.raises(ValueError, match="no key wrapped"):
        unwrap_private(cipher, wrapped[12:] + wrapped[:12][::-1])
