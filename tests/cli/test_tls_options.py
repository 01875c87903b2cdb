"""What --min, --max, --suites and --renegotiation make of a configuration, and what they say of it."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from nss_pk11.cli.tls_options import negotiation, negotiation_options
from nss_pk11.errors import ConfigurationError
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.suites import BY_NAME, DEFAULT_SUITES, LEGACY_SUITES, SSL2_SUITES, SUITES


def asked(*options: str) -> tuple[dict[str, Any], str]:
    """The fields that the options give, and what they say on stderr."""
    found: dict[str, Any] = {}

    @click.command()
    @negotiation_options
    def command(**wanted: Any) -> None:
        found.update(negotiation(**wanted))

    result = CliRunner().invoke(command, options, catch_exceptions=False, standalone_mode=False)
    return found, result.stderr


def test_nothing_asked_is_the_default() -> None:
    fields, said = asked()
    assert said == ""
    assert "suites" not in fields
    for config in (ClientConfig(**fields), ServerConfig(**fields)):
        assert (config.min_version, config.max_version, config.renegotiation) == (Version.tls1_2, Version.tls1_3, "never")
        assert config.suites == DEFAULT_SUITES


@pytest.mark.parametrize(("name", "version"), [("ssl3", Version.ssl3), ("tls1.0", Version.tls1_0), ("tls1.1", Version.tls1_1)])
def test_an_old_version_brings_suites_that_it_knows(name: str, version: Version) -> None:
    fields, said = asked("--min", name)
    config = ClientConfig(**fields)
    assert (config.min_version, config.max_version) == (version, Version.tls1_3)
    assert set(DEFAULT_SUITES) < set(config.suites) < set(SUITES)
    assert not set(config.suites) & set(LEGACY_SUITES)
    assert said.count("\n") == 1
    assert version.label in said


def test_ssl2_takes_its_version_and_its_suites() -> None:
    """Each by name; either alone enables nothing of it, and no other word stands for it."""
    for options in (("--min", "ssl2"), ("--suites", "LEGACY,SSL2"), ("--min", "ssl2", "--suites", "LEGACY")):
        config = ServerConfig(**asked(*options)[0])
        assert config.min_version > Version.ssl2
        assert not [suite for suite in config.usable_suites() if suite in SSL2_SUITES]
    fields, said = asked("--min", "ssl2", "--suites", "SSL2")
    config = ServerConfig(**fields)
    assert (config.min_version, config.max_version, config.suites) == (Version.ssl2, Version.ssl2, SSL2_SUITES)
    assert said.count("\n") == 1
    assert "SSLv2, 6 suites for old peers" in said
    assert asked("--v2-hello")[0]["v2_hello"] is True


def test_legacy_is_every_suite_and_the_old_ones_come_last() -> None:
    suites = asked("--min", "ssl3", "--suites", "LEGACY")[0]["suites"]
    assert set(suites) == set(SUITES) | set(LEGACY_SUITES)
    assert len(suites) == len(set(suites))
    assert suites[-len(LEGACY_SUITES) :] == LEGACY_SUITES
    assert suites[: len(SUITES)] == SUITES
    first, *rest = asked("--suites", "NULL-SHA,legacy")[0]["suites"]
    assert (first, len(rest)) == (BY_NAME["NULL-SHA"], len(suites) - 1)


@pytest.mark.parametrize("name", ["TLS_RSA_WITH_RC4_128_MD5", "RC4-MD5", "SSL_RSA_WITH_RC4_128_MD5", "ssl_rsa_with_rc4_128_md5"])
def test_all_three_names_of_a_suite(name: str) -> None:
    fields, said = asked("--suites", name, "--max", "tls1.2")
    assert [suite.code for suite in fields["suites"]] == [0x0004]
    assert "RC4-MD5" in said


def test_suites_alone_enable_no_old_version() -> None:
    fields, said = asked("--suites", "LEGACY")
    assert fields["min_version"] == Version.tls1_2
    assert "SSLv3" not in said


def test_no_version_is_left() -> None:
    with pytest.raises(ConfigurationError):
        asked("--max", "tls1.0")
    with pytest.raises(ConfigurationError):
        asked("--min", "ssl3", "--max", "ssl3", "--suites", "ECDHE-RSA-AES128-SHA")


@pytest.mark.parametrize("value", ["never", "secure", "legacy"])
def test_renegotiation(value: str) -> None:
    fields, said = asked("--renegotiation", value)
    assert ServerConfig(**fields).renegotiation == value
    assert ("RFC 5746" in said) == (value == "legacy")
