"""What nobody asked for is not offered: versions, suites, schemes and renegotiation of the defaults, number by number.

Written out on purpose, not derived from the tables: an old thing that slips into a default shows here.
"""

from __future__ import annotations

import pytest

from nss_pk11.tls.codepoints import ExtensionType, SignatureScheme, Version
from nss_pk11.tls.config import ClientConfig, Config, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.messages import extensions as ext
from nss_pk11.tls.messages.hello import ClientHello
from nss_pk11.tls.suites import EMPTY_RENEGOTIATION_INFO_SCSV, LEGACY_SUITES, SUITES

from ..support import drive
from ..support.drive import exchange
from ..support.pki import PKI

TLS13 = (0x1301, 0x1302, 0x1303)
TLS12 = (0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8)
OLD = (Version.ssl3, Version.tls1_0, Version.tls1_1)


def client_hello(config: ClientConfig) -> ClientHello:
    engine = Engine.client(config)
    engine.start()
    return ClientHello.decode(engine.data_to_send()[5:])


def test_client_hello() -> None:
    hello = client_hello(ClientConfig(server_name="localhost"))
    assert sorted(hello.suites) == sorted((*TLS13, *TLS12, EMPTY_RENEGOTIATION_INFO_SCSV))
    assert hello.offered_versions() == (0x0304, 0x0303)
    assert hello.version == 0x0303
    schemes = ext.decode_u16_list(hello.extensions[ExtensionType.signature_algorithms])
    assert not [
        scheme for scheme in schemes if SignatureScheme(scheme).name.endswith("sha1") or "dsa_sha" in SignatureScheme(scheme).name
    ]
    assert ExtensionType.renegotiation_info not in hello.extensions


@pytest.mark.parametrize("config", [ClientConfig(), ServerConfig()], ids=["client", "server"])
def test_settings(config: Config) -> None:
    assert (config.min_version, config.max_version) == (Version.tls1_2, Version.tls1_3)
    assert sorted(suite.code for suite in config.suites) == sorted(TLS13 + TLS12)
    assert config.renegotiation == "never"
    assert config.extended_master_secret
    assert config.split_records
    assert not any("sha1" in scheme.name or scheme.name.startswith("dsa") for scheme in config.schemes)


def test_settings_of_one_side() -> None:
    assert ServerConfig().rollback_detection
    assert ServerConfig().step_down is None
    assert ClientConfig().least_dh_bits == 2048


def test_no_legacy_suite_is_modern() -> None:
    assert not [suite for suite in LEGACY_SUITES if suite.modern]
    assert not set(LEGACY_SUITES) & set(SUITES)


@pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)
def test_old_clients_are_refused(engine_pki: PKI, version: Version) -> None:
    every = tuple(dict.fromkeys(SUITES + LEGACY_SUITES))
    server = drive.server(engine_pki.server("rsa"))
    client = drive.client(min_version=Version.ssl3, max_version=version, suites=every)
    exchange(server, client)
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_UNSUPPORTED_VERSION"


@pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)
def test_old_servers_are_refused(engine_pki: PKI, version: Version) -> None:
    every = tuple(dict.fromkeys(SUITES + LEGACY_SUITES))
    server = drive.server(engine_pki.server("rsa"), min_version=Version.ssl3, max_version=version, suites=every)
    client = drive.client()
    exchange(server, client)
    assert not client.engine.handshake_complete
    assert client.error is not None


@pytest.mark.parametrize("suite", LEGACY_SUITES, ids=lambda suite: suite.openssl)
def test_old_suites_are_refused(engine_pki: PKI, suite: object) -> None:
    server = drive.server(engine_pki.server("rsa"))
    client = drive.client(min_version=Version.ssl3, max_version=Version.tls1_2, suites=(suite,))
    exchange(server, client)
    assert server.error is not None
    assert server.error.name in ("SSL_ERROR_NO_CYPHER_OVERLAP", "SSL_ERROR_UNSUPPORTED_VERSION")
