"""Ciphers of old suites against published vectors, in one piece and in many: a running context goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nss_pk11.tls.ciphers import bulk
from nss_pk11.tls.suites import EVERY_SUITE

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "fixtures" / "old-ciphers.json").read_text("utf-8"))
CIPHERS = {suite.cipher.name: suite.cipher for suite in EVERY_SUITE}


@pytest.mark.parametrize("vector", VECTORS["cbc"], ids=lambda vector: f"{vector['cipher']}-{len(vector['plaintext']) // 2}")
def test_cbc(vector: dict[str, str]) -> None:
    key, iv, plaintext, ciphertext = (bytes.fromhex(vector[name]) for name in ("key", "iv", "plaintext", "ciphertext"))
    cipher = CIPHERS[vector["cipher"]]
    assert len(key) == cipher.key
    encryptor, decryptor = bulk.cbc(cipher, key, iv)
    assert encryptor.update(plaintext) == ciphertext
    assert decryptor.update(ciphertext) == plaintext
    encryptor, decryptor = bulk.cbc(cipher, key, iv)
    blocks = [slice(start, start + 8) for start in range(0, len(plaintext), 8)]
    assert [encryptor.update(plaintext[block]) for block in blocks] == [ciphertext[block] for block in blocks]
    assert [decryptor.update(ciphertext[block]) for block in blocks] == [plaintext[block] for block in blocks]


@pytest.mark.parametrize("name", ["RC4", "RC4-56", "RC4-40"])
def test_rc4(name: str) -> None:
    """Export suites too run RC4 with a key of 128 bits."""
    pieces: dict[str, Any]
    for key, pieces in VECTORS["rc4"].items():
        stream = bulk.stream(CIPHERS[name], bytes.fromhex(key))
        output = b"".join(stream.update(bytes(100)) for _ in range(42))
        for offset, wanted in pieces.items():
            assert output[int(offset) : int(offset) + 16].hex() == wanted


def test_every_cipher_runs() -> None:
    """Of the table; whole blocks come out at once."""
    for cipher in CIPHERS.values():
        if cipher.kind == "cbc":
            encryptor, decryptor = bulk.cbc(cipher, bytes(range(cipher.key)), bytes(cipher.block))
            assert decryptor.update(encryptor.update(b"B" * 3 * cipher.block)) == b"B" * 3 * cipher.block
        elif cipher.kind == "stream":
            sent, received = (bulk.stream(cipher, bytes(range(cipher.key))) for _ in range(2))
            assert received.update(sent.update(b"any")) == b"any"
