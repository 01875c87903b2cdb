"""Is fixtures/tls12-prf.json right?  The PRF of RFC 5246 section 5, once more, in five lines and without the package."""

from __future__ import annotations

import hmac
import json
from pathlib import Path

import pytest

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "fixtures" / "tls12-prf.json").read_text("utf-8"))["vectors"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["hash"])
def test_vector(vector: dict[str, str]) -> None:
    secret, wanted = bytes.fromhex(vector["secret"]), bytes.fromhex(vector["output"])
    seed = vector["label"].encode() + bytes.fromhex(vector["seed"])
    a, output = seed, b""
    while len(output) < len(wanted):
        a = hmac.digest(secret, a, vector["hash"])
        output += hmac.digest(secret, a + seed, vector["hash"])
    assert output[: len(wanted)] == wanted
