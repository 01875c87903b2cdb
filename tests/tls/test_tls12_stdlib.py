"""TLS 1.2 against OpenSSL, as Python's `ssl` has it, in this process: every suite, key, group and feature it knows."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import pytest

from nss_pk11.tls.codepoints import Group, Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.suites import BY_NAME, SUITES, Suite

from ..support import drive
from ..support.drive import Driver, Stdlib, exchange
from ..support.pki import PKI

if TYPE_CHECKING:
    from ..support.pki import Credential

SUITES12 = tuple(suite for suite in SUITES if suite.max_version == Version.tls1_2)
KINDS = ("rsa", "p256", "p384", "p521", "ed25519", "ed448")
MESSAGE = os.urandom(40_000)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


def credential_for(pki: PKI, suite: Suite) -> Credential:
    return pki.server("p256" if suite.key_exchange == "ecdhe_ecdsa" else "rsa")


def server(*credentials: Credential, **settings: object) -> Driver:
    settings = {"suites": SUITES12, "max_version": Version.tls1_2} | settings
    identities = tuple(drive.identity(credential) for credential in credentials)
    return Driver(Engine.server(ServerConfig(identities=identities, **settings)))  # type: ignore[arg-type]


def client(**settings: object) -> Driver:
    settings = {"suites": SUITES12, "max_version": Version.tls1_2, "server_name": "localhost"} | settings
    return Driver(Engine.client(ClientConfig(**settings)))  # type: ignore[arg-type]


def talk(ours: Driver, theirs: Stdlib) -> None:
    """Handshake, and data both ways."""
    exchange(ours, theirs)
    assert ours.error is None
    assert theirs.error is None
    assert theirs.complete
    assert ours.engine.handshake_complete
    ours.engine.send(MESSAGE)
    theirs.send(MESSAGE[::-1])
    exchange(ours, theirs)
    assert theirs.received == MESSAGE
    assert ours.received == MESSAGE[::-1]
    assert theirs.ssl.get_channel_binding("tls-unique") == ours.engine.channel_binding("tls-unique")


@pytest.mark.parametrize("suite", SUITES12, ids=lambda suite: suite.openssl)
def test_suite_as_server(pki: PKI, suite: Suite) -> None:
    ours = server(credential_for(pki, suite))
    theirs = Stdlib(drive.client_context(pki.ca_file, ciphers=f"{suite.openssl}:@SECLEVEL=0"), server=False, name="localhost")
    talk(ours, theirs)
    assert ours.engine.info.suite is suite
    assert ours.engine.info.extended_master_secret
    assert ours.engine.info.encrypt_then_mac == (suite.cipher.kind == "cbc")
    assert theirs.ssl.cipher()[0] == suite.openssl


@pytest.mark.parametrize("suite", SUITES12, ids=lambda suite: suite.openssl)
@pytest.mark.parametrize("etm", [True, False], ids=["etm", "mte"])
def test_suite_as_client(pki: PKI, suite: Suite, etm: bool) -> None:
    theirs = Stdlib(drive.server_context(credential_for(pki, suite)), server=True)
    ours = client(suites=(suite,), encrypt_then_mac=etm)
    talk(ours, theirs)
    assert ours.engine.info.suite is suite
    assert ours.engine.info.encrypt_then_mac == (etm and suite.cipher.kind == "cbc")
