"""`serve` and `connect` with what is broken: only by name, never without a word, and then with everybody."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.suites import LEGACY_SUITES, SUITES

from ..support import command
from ..support.peers.base import Process, Want
from ..support.peers.gnutls import GnuTLSServer, gnutls_cli
from ..support.peers.nss import NSSServer, tstclnt
from ..support.peers.openssl import OpenSSLServer, s_client, s_client_command
from .test_command import PIN, identity
from .test_scanners import _accepted, _sslyze

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..support.pki import PKI
    from ..support.softhsm import SoftHSM
    from .conftest import Keyring

WARNING = r"^nss-pk11: known to be broken, enable it only where a peer knows nothing better: (.*)$"
LEGACY = ("--min", "ssl3", "--suites", "LEGACY")
TLS = pytest.mark.parametrize("version", [Version.tls1_0, Version.tls1_1, Version.tls1_2], ids=lambda version: version.label)
PEERS = pytest.mark.parametrize("peer", ["openssl", "gnutls", "nss"])


def warned(output: str) -> str:
    """What it says is broken, once; "" where it says nothing."""
    found = re.findall(WARNING, output, re.MULTILINE)
    assert len(found) < 2
    return found[0] if found else ""


# --- the word ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), ""),
        (("--min", "tls1.2", "--max", "tls1.3", "--renegotiation", "secure"), ""),
        (("--suites", "ECDHE-RSA-AES128-SHA"), ""),
        (LEGACY, f"SSLv3, TLSv1.0, TLSv1.1, {len(LEGACY_SUITES)} suites for old peers"),
        (("--min", "tls1.1"), "TLSv1.1"),
        (("--min", "tls1.0", "--max", "tls1.0"), "TLSv1.0"),
        (("--suites", "TLS_RSA_WITH_3DES_EDE_CBC_SHA,SSL_RSA_WITH_RC4_128_MD5"), "DES-CBC3-SHA, RC4-MD5"),
        (("--renegotiation", "legacy"), "renegotiation without RFC 5746"),
    ],
)
def test_what_is_broken_is_said(softhsm: SoftHSM, server_keys: Keyring, options: tuple[str, ...], says: str) -> None:
    with command.Serve(softhsm, *identity(server_keys, "rsa"), *PIN, *options) as server:
        assert warned(server.output) == says


def test_names_that_are_none(softhsm: SoftHSM) -> None:
    for options in (("--min", "ssl1"), ("--suites", "ANCIENT"), ("--renegotiation", "always")):
        done = command.run(softhsm, "connect", "localhost:1", *options)
        assert done.returncode == 2
        assert options[1] in done.stderr


# --- the deed ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(softhsm: SoftHSM, server_keys: Keyring) -> Iterator[command.Serve]:
    options = (*LEGACY, "--renegotiation", "secure")
    with command.Serve(softhsm, *identity(server_keys, "rsa"), *PIN, *options) as server:
        yield server


@TLS
def test_serve(server: command.Serve, version: Version, pki: PKI, directory: Path) -> None:
    want = Want(version=version, ca=pki.ca_file)
    for result in (s_client(server.port, want), gnutls_cli(server.port, want), tstclnt(server.port, want, directory)):
        assert result.ok, f"{result}\n{server.output}"
        assert "200 OK" in result.output
    server.wait_for(rf"(?s)( {re.escape(version.label)} TLS_ECDHE_RSA.*){{3}}")


def test_serve_ssl3(server: command.Serve, pki: PKI, directory: Path) -> None:
    result = tstclnt(server.port, Want(version=Version.ssl3, ca=pki.ca_file), directory)
    assert result.ok, f"{result}\n{server.output}"
    assert "200 OK" in result.output
    server.wait_for(" SSLv3 TLS_DHE_RSA_WITH_AES_128_CBC_SHA ")


def test_serve_modern_peers_as_ever(server: command.Serve, pki: PKI) -> None:
    result = s_client(server.port, Want(ca=pki.ca_file))
    assert (result.version, result.suite) == ("TLSv1.3", "TLS_AES_128_GCM_SHA256")


def test_clients_renegotiate(server: command.Serve, pki: PKI) -> None:
    with Process(s_client_command(server.port, Want(version=Version.tls1_2, ca=pki.ca_file))) as client:
        client.wait_for("Verify return code")
        client.write(b"R\n")
        client.wait_for(r"RENEGOTIATING\n(.*\n)+?depth=0 .*\nverify return:1\n")
        client.write(b"GET / HTTP/1.0\r\n\r\n")
        assert client.wait() == 0, client.output
        assert "200 OK" in client.output


def test_sslyze_finds_what_is_enabled_and_no_oracle(server: command.Serve, pki: PKI, tmp_path: Path) -> None:
    found = _sslyze(server.port, pki, tmp_path)
    every = dict.fromkeys(SUITES + LEGACY_SUITES)
    for name, version in (("ssl_3_0", Version.ssl3), ("tls_1_0", Version.tls1_0), ("tls_1_1", Version.tls1_1)):
        accepted = _accepted(found, name)
        ours = {
            s.name for s in every if s.min_version <= version <= s.max_version and "DSS" not in s.name and "ECDSA" not in s.name
        }
        assert accepted <= ours
        assert "TLS_RSA_WITH_3DES_EDE_CBC_SHA" in accepted
        assert "TLS_RSA_WITH_RC4_128_MD5" in accepted
    assert "TLS_RSA_EXPORT_WITH_RC4_40_MD5" in _accepted(found, "ssl_3_0")
    assert found["robot"]["robot_result"] == "NOT_VULNERABLE_NO_ORACLE"
    assert found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"] is False


@TLS
@PEERS
def test_connect(softhsm: SoftHSM, peer: str, version: Version, pki: PKI, directory: Path) -> None:
    want = Want(version=version, credential=pki.server("rsa"))
    servers = {"openssl": OpenSSLServer, "gnutls": GnuTLSServer, "nss": lambda want: NSSServer(want, directory)}
    with servers[peer](want) as server:
        report = command.connect(softhsm, server.port, "--ca", pki.ca_file, *LEGACY)
        assert report["version"] == version.label
        assert report["verified"] is True
        if version < Version.tls1_2:
            refused = command.connect(softhsm, server.port, "--ca", pki.ca_file, status=6)
            assert "error" in refused


def test_connect_ssl3(softhsm: SoftHSM, pki: PKI, directory: Path) -> None:
    with NSSServer(Want(version=Version.ssl3, credential=pki.server("rsa")), directory) as server:
        report = command.connect(softhsm, server.port, "--ca", pki.ca_file, "--min", "ssl3", "--max", "tls1.2")
        assert report["version"] == "SSLv3"
        report = command.connect(softhsm, server.port, "--ca", pki.ca_file, "--min", "tls1.0", status=6)
        assert "error" in report
