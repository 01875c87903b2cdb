"""Secrets of TLS 1.2: the PRF's vectors, and an RSA premaster secret that is chosen without a branch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.events import ConnectionInfo, StoreSession
from nss_pk11.tls.link import Agreed
from nss_pk11.tls.session import Session
from nss_pk11.tls.ssl3.prf import prf
from nss_pk11.tls.ssl3.rsa import select_premaster
from nss_pk11.tls.ssl3.secrets import Secrets
from nss_pk11.tls.suites import BY_NAME

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "fixtures" / "tls12-prf.json").read_text("utf-8"))["vectors"]
FALLBACK = bytes(range(200, 248))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["hash"])
def test_prf(vector: dict[str, str]) -> None:
    output = bytes.fromhex(vector["output"])
    secret, seed = bytes.fromhex(vector["secret"]), bytes.fromhex(vector["seed"])
    assert prf(vector["hash"], secret, vector["label"].encode(), seed, len(output)) == output


@pytest.mark.parametrize(
    "plaintext",
    [
        None,
        b"",
        b"\x03\x03",
        b"\x03\x03" + bytes(45),
        b"\x03\x03" + bytes(47),
        b"\x03\x02" + bytes(46),
        b"\x02\x03" + bytes(46),
        bytes(48),
        b"\x03\x03" + bytes(200),
    ],
    ids=["not decrypted", "empty", "2", "47", "49", "older", "other major", "zeros", "202"],
)
def test_unfit_premaster_is_replaced(plaintext: bytes | None) -> None:
    assert select_premaster(plaintext, FALLBACK, b"\x03\x03") == FALLBACK


def test_fit_premaster_is_taken() -> None:
    premaster = b"\x03\x03" + bytes(range(46))
    assert select_premaster(premaster, FALLBACK, b"\x03\x03") == premaster


def test_no_repr_shows_a_secret() -> None:
    """What a debugger, a log or an assertion prints."""
    secret = b"master of the house"
    for item in (
        StoreSession(b"id", secret),
        Agreed(ConnectionInfo(), secret, b"", b"", b""),
        Session(Version.tls1_2, 0xC02F, secret, 0.0, 60),
        Secrets(BY_NAME["AES128-SHA"], Version.tls1_0, secret, b"", b""),
    ):
        assert "master" not in repr(item).replace("extended_master_secret", "")
