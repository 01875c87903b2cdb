"""The one suite table against a stack that has its own: Python's `ssl` knows OpenSSL's names, numbers and key lengths."""

from __future__ import annotations

import ssl

import pytest

from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import DEFAULT_GROUPS, Config, Group
from nss_pk11.tls.suites import BY_CODE, BY_NAME, DEFAULT_SUITES, MAC_BYTES, SUITES

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.set_ciphers("ALL:@SECLEVEL=0")
OPENSSL = {cipher["id"] & 0xFFFF: cipher for cipher in CONTEXT.get_ciphers()}
KNOWN = [suite for suite in SUITES if suite.code in OPENSSL]


def test_codes_and_names_are_unique() -> None:
    assert len(BY_CODE) == len(SUITES)
    assert len({suite.name for suite in SUITES}) == len({suite.openssl for suite in SUITES}) == len(SUITES)
    assert all(BY_NAME[suite.name] is BY_NAME[suite.openssl] is suite for suite in SUITES)


def test_openssl_knows_most_of_the_table() -> None:
    assert len(KNOWN) > 40


@pytest.mark.parametrize("suite", KNOWN, ids=lambda suite: suite.openssl)
def test_rows_agree_with_openssl(suite) -> None:  # type: ignore[no-untyped-def]
    theirs = OPENSSL[suite.code]
    assert suite.openssl == theirs["name"]
    assert suite.secret_key_bits == theirs["strength_bits"] == theirs["alg_bits"]
    assert (suite.cipher.kind == "aead") == theirs["aead"]
    if not theirs["aead"]:
        assert suite.mac == theirs["digest"]
    kx = {"any": "kx-any", "rsa": "kx-rsa", "dhe_rsa": "kx-dhe", "ecdhe_rsa": "kx-ecdhe", "ecdhe_ecdsa": "kx-ecdhe"}
    assert kx[suite.key_exchange] == theirs["kea"]


def test_defaults_are_modern() -> None:
    """Forward secret, authenticated encryption, TLS 1.2 at least; nothing else without being named."""
    assert all(suite.forward_secret and suite.cipher.kind == "aead" for suite in DEFAULT_SUITES)
    assert Config().min_version == Version.tls1_2
    assert DEFAULT_GROUPS[0] == Group.X25519MLKEM768


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.openssl)
def test_a_missing_mechanism_takes_exactly_its_suites(suite) -> None:  # type: ignore[no-untyped-def]
    """Suites are gated by what present slots offer, each of its mechanisms being needed."""
    everything = frozenset().union(*(row.mechanisms for row in SUITES))
    config = Config(suites=SUITES, mechanisms=lambda: everything)
    assert suite in config.usable_suites()
    for mechanism in suite.mechanisms:
        offered = everything - {mechanism}
        usable = Config(suites=(suite, *_others(mechanism)), mechanisms=lambda offered=offered: offered).usable_suites()  # type: ignore[misc]
        assert suite not in usable
        assert usable


def _others(mechanism: str) -> tuple:  # type: ignore[type-arg]
    return tuple(row for row in SUITES if mechanism not in row.mechanisms)


def test_lengths_are_those_of_the_algorithms() -> None:
    assert MAC_BYTES == {"": 0, "sha1": 20, "sha256": 32, "sha384": 48}
    for suite in SUITES:
        assert suite.hash_bytes == {"sha256": 32, "sha384": 48}[suite.hash]
        assert suite.cipher.key * 8 in (128, 256)
        if suite.cipher.kind == "aead":
            assert suite.cipher.fixed_iv + suite.cipher.explicit_nonce == 12
