"""The one suite table against others: Python's `ssl` knows OpenSSL's names, numbers and key lengths, NSS's manual old suites."""

from __future__ import annotations

import functools
import ssl
from dataclasses import replace

import pytest

from nss_pk11.tls.codepoints import Group, Version
from nss_pk11.tls.config import DEFAULT_GROUPS, Config
from nss_pk11.tls.suites import (
    BY_CODE,
    BY_NAME,
    DEFAULT_SUITES,
    EVERY_SUITE,
    FORTEZZA_SUITES,
    LEGACY_SUITES,
    MAC_BYTES,
    SSL2_SUITES,
    SUITES,
)

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.set_ciphers("ALL:@SECLEVEL=0")
OPENSSL = {cipher["id"] & 0xFFFF: cipher for cipher in CONTEXT.get_ciphers()}
KNOWN = [suite for suite in SUITES if suite.code in OPENSSL]


def test_codes_and_names_are_unique() -> None:
    assert len(EVERY_SUITE) == len(SUITES) + len(LEGACY_SUITES)
    assert len(BY_CODE) == len(EVERY_SUITE) + len(FORTEZZA_SUITES) + len(SSL2_SUITES)
    for names in zip(*((suite.name, suite.openssl, suite.nss_name) for suite in EVERY_SUITE), strict=True):
        assert len(set(names)) == len(EVERY_SUITE)
    assert all(
        BY_NAME[suite.name] is BY_NAME[suite.openssl] is BY_NAME[suite.nss_name] is suite is BY_CODE[suite.code]
        for suite in EVERY_SUITE
    )


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


# What SSL_SecurityStatus and the manual say of each: code, cipher, bits of the key, secret ones, largest RSA key, last version.
SSL3, TLS1_0, TLS1_1, TLS1_2 = Version.ssl3, Version.tls1_0, Version.tls1_1, Version.tls1_2
MANUAL = {
    "TLS_DHE_DSS_WITH_AES_256_CBC_SHA": (0x38, "AES-256-CBC", 256, 256, 0, TLS1_2),
    "TLS_DHE_DSS_WITH_RC4_128_SHA": (0x66, "RC4", 128, 128, 0, TLS1_2),
    "TLS_DHE_DSS_WITH_AES_128_CBC_SHA": (0x32, "AES-128-CBC", 128, 128, 0, TLS1_2),
    "SSL_RSA_WITH_RC4_128_MD5": (0x04, "RC4", 128, 128, 0, TLS1_2),
    "SSL_RSA_WITH_RC4_128_SHA": (0x05, "RC4", 128, 128, 0, TLS1_2),
    "SSL_DHE_RSA_WITH_3DES_EDE_CBC_SHA": (0x16, "3DES-EDE-CBC", 192, 192, 0, TLS1_2),
    "SSL_DHE_DSS_WITH_3DES_EDE_CBC_SHA": (0x13, "3DES-EDE-CBC", 192, 192, 0, TLS1_2),
    "SSL_RSA_FIPS_WITH_3DES_EDE_CBC_SHA": (0xFEFF, "3DES-EDE-CBC", 192, 192, 0, TLS1_2),
    "SSL_RSA_OLDFIPS_WITH_3DES_EDE_CBC_SHA": (0xFFE0, "3DES-EDE-CBC", 192, 192, 0, TLS1_2),
    "SSL_RSA_WITH_3DES_EDE_CBC_SHA": (0x0A, "3DES-EDE-CBC", 192, 192, 0, TLS1_2),
    "SSL_DHE_RSA_WITH_DES_CBC_SHA": (0x15, "DES-CBC", 64, 64, 0, TLS1_2),
    "SSL_DHE_DSS_WITH_DES_CBC_SHA": (0x12, "DES-CBC", 64, 64, 0, TLS1_2),
    "SSL_RSA_FIPS_WITH_DES_CBC_SHA": (0xFEFE, "DES-CBC", 64, 64, 0, TLS1_2),
    "SSL_RSA_OLDFIPS_WITH_DES_CBC_SHA": (0xFFE1, "DES-CBC", 64, 64, 0, TLS1_2),
    "SSL_RSA_WITH_DES_CBC_SHA": (0x09, "DES-CBC", 64, 64, 0, TLS1_2),
    "TLS_RSA_EXPORT1024_WITH_RC4_56_SHA": (0x64, "RC4-56", 128, 56, 1024, TLS1_1),
    "TLS_RSA_EXPORT1024_WITH_DES_CBC_SHA": (0x62, "DES-CBC", 64, 64, 1024, TLS1_1),
    "SSL_RSA_EXPORT_WITH_RC4_40_MD5": (0x03, "RC4-40", 128, 40, 512, TLS1_0),
    "SSL_RSA_EXPORT_WITH_RC2_CBC_40_MD5": (0x06, "RC2-CBC-40", 128, 40, 512, TLS1_0),
    "SSL_RSA_WITH_NULL_SHA": (0x02, "NULL", 0, 0, 0, TLS1_2),
    "SSL_RSA_WITH_NULL_MD5": (0x01, "NULL", 0, 0, 0, TLS1_2),
}


def test_old_rows_agree_with_the_manual() -> None:
    ours = {
        suite.nss_name: (
            suite.code, suite.cipher.name, suite.key_bits, suite.secret_key_bits, suite.rsa_limit, suite.max_version
        )
        for suite in LEGACY_SUITES
    }  # fmt: skip
    assert ours == MANUAL
    assert list(ours) == list(MANUAL)  # in NSS's order
    assert {suite.min_version for suite in LEGACY_SUITES} == {SSL3}
    assert {suite.nss_name for suite in EVERY_SUITE if suite.fips} == {name for name in MANUAL if "FIPS" in name}
    assert all(suite.name == suite.nss_name.replace("SSL_", "TLS_") for suite in LEGACY_SUITES if not suite.fips)
    assert not any(suite.modern for suite in LEGACY_SUITES)


def test_what_ssl3_may_negotiate() -> None:
    """The suites of the manual, and no other: elliptic curves came with TLS 1.0, SHA-256 with TLS 1.2."""
    rest = {suite.name for suite in SUITES if suite.min_version == SSL3}
    assert rest == {f"TLS_{kx}_WITH_AES_{bits}_CBC_SHA" for kx in ("RSA", "DHE_RSA") for bits in (128, 256)}
    first = {suite.min_version for suite in SUITES if suite.key_exchange.startswith("ecdhe") and suite.mac == "sha1"}
    assert first == {TLS1_0}


@pytest.mark.parametrize("suite", EVERY_SUITE, ids=lambda suite: suite.openssl)
def test_a_missing_mechanism_takes_exactly_its_suites(suite) -> None:  # type: ignore[no-untyped-def]
    """Suites are gated by what present slots offer, each of its mechanisms being needed."""
    everything = frozenset().union(*(row.mechanisms for row in EVERY_SUITE))
    config = Config(min_version=SSL3, suites=EVERY_SUITE, mechanisms=lambda: everything)
    assert suite in config.usable_suites()
    for mechanism in suite.mechanisms:
        offered = everything - {mechanism}
        config = replace(config, suites=(suite, *_others(mechanism)), mechanisms=functools.partial(frozenset, offered))
        usable = config.usable_suites()
        assert suite not in usable
        assert usable


def _others(mechanism: str) -> tuple:  # type: ignore[type-arg]
    return tuple(row for row in EVERY_SUITE if mechanism not in row.mechanisms)


def test_lengths_are_those_of_the_algorithms() -> None:
    assert MAC_BYTES == {"": 0, "md5": 16, "sha1": 20, "sha256": 32, "sha384": 48}
    for suite in SUITES:
        assert suite.hash_bytes == {"sha256": 32, "sha384": 48}[suite.hash]
        assert suite.cipher.key * 8 in (128, 256)
        assert suite.cipher.secret == suite.cipher.key
        if suite.cipher.kind == "aead":
            assert suite.cipher.fixed_iv + suite.cipher.explicit_nonce == 12
