"""sslyze and testssl.sh find nothing they call vulnerable on `serve`'s defaults; nor does sslyze find an oracle where RSA key
exchange is switched on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.tls.suites import SUITES

from ..support import command
from ..support.require import missing, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..support.pki import PKI
    from ..support.softhsm import SoftHSM
    from .conftest import Keyring

SECONDS = 240
PIN = ("--pin", "env:PIN")
SCANS = [f"--{version}" for version in ("sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3")]
SCANS += ["--certinfo", "--compression", "--early_data", "--ems", "--fallback", "--heartbleed", "--openssl_ccs", "--reneg"]
SCANS += ["--resum", "--robot"]


def identity(keys: Keyring, kind: str) -> tuple[str, str]:
    key = keys.credential(kind).token_key
    assert key
    return ("--identity", key.uri)  # the chain lies on the token


@pytest.fixture(scope="module")
def server(softhsm: SoftHSM, server_keys: Keyring) -> Iterator[command.Serve]:
    """The defaults, with two identities."""
    with command.Serve(softhsm, *identity(server_keys, "p256"), *identity(server_keys, "rsa"), *PIN) as server:
        yield server


def _sslyze(port: int, pki: PKI, tmp_path: Path) -> dict[str, Any]:
    """What sslyze found, by the name of its scan."""
    beside = Path(sys.executable).with_name("sslyze")  # in an environment of its own: it wants an older `cryptography`
    tool = str(beside) if beside.exists() else shutil.which("sslyze")
    if tool is None:
        missing("sslyze")
    report = tmp_path / "sslyze.json"
    arguments = [f"--json_out={report}", "--mozilla_config=disable", f"--certinfo_ca_file={pki.ca_file}", f"localhost:{port}"]
    done = subprocess.run(
        [str(tool), *SCANS, *arguments], capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL, check=False
    )
    assert report.exists(), done.stdout + done.stderr
    [found] = json.loads(report.read_text())["server_scan_results"]
    assert found["scan_status"] == "COMPLETED", found
    results = {name: scan["result"] for name, scan in found["scan_result"].items() if scan["status"] == "COMPLETED"}
    failed = {name: scan for name, scan in found["scan_result"].items() if scan["status"] == "ERROR"}
    assert not failed
    return results


def _accepted(found: dict[str, Any], version: str) -> set[str]:
    return {suite["cipher_suite"]["name"] for suite in found[f"{version}_cipher_suites"]["accepted_cipher_suites"]}


def test_sslyze(server: command.Serve, pki: PKI, tmp_path: Path) -> None:
    found = _sslyze(server.port, pki, tmp_path)
    for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert not _accepted(found, old)
    modern = {suite.name for suite in SUITES if suite.modern}
    assert _accepted(found, "tls_1_2") | _accepted(found, "tls_1_3") == modern
    _nothing_vulnerable(found)
    assert found["robot"]["robot_result"] == "NOT_VULNERABLE_RSA_NOT_SUPPORTED"
    [chain, *_] = found["certificate_info"]["certificate_deployments"]
    assert chain["received_chain_has_valid_order"]
    custom = [path for path in chain["path_validation_results"] if path["was_validation_successful"]]
    assert custom, "the chain validates with the test CA"


def _nothing_vulnerable(found: dict[str, Any]) -> None:
    assert found["heartbleed"]["is_vulnerable_to_heartbleed"] is False
    assert found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"] is False
    assert found["tls_compression"]["supports_compression"] is False
    assert found["tls_fallback_scsv"]["supports_fallback_scsv"] is True
    assert found["session_renegotiation"]["supports_secure_renegotiation"] is True
    assert found["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"] is False
    assert found["tls_extended_master_secret"]["supports_ems_extension"] is True
    assert found["tls_1_3_early_data"]["supports_early_data"] is False


def test_sslyze_finds_no_oracle(softhsm: SoftHSM, server_keys: Keyring, pki: PKI, tmp_path: Path) -> None:
    """ROBOT: every way to get the RSA premaster wrong looks the same (RFC 5246 section 7.4.7.1)."""
    every = ",".join(suite.name for suite in SUITES)
    with command.Serve(softhsm, *identity(server_keys, "rsa"), *PIN, "--suites", every) as server:
        found = _sslyze(server.port, pki, tmp_path)
    _nothing_vulnerable(found)
    assert "TLS_RSA_WITH_AES_128_CBC_SHA" in _accepted(found, "tls_1_2")
    assert found["robot"]["robot_result"] == "NOT_VULNERABLE_NO_ORACLE"


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 30)
def test_testssl(server: command.Serve, pki: PKI, tmp_path: Path) -> None:
    """Protocols, cipher categories and every vulnerability it knows; half a minute."""
    tool = shutil.which("testssl") or require("testssl.sh")
    report = tmp_path / "testssl.json"
    arguments = ["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--add-ca", str(pki.ca_file)]
    checks = ["--protocols", "--std", "--vulnerable"]
    done = subprocess.run(
        [tool, *arguments, *checks, "--jsonfile", str(report), f"localhost:{server.port}"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "dumb"},
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    findings = json.loads(report.read_text())
    bad = [f for f in findings if f["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL")]
    assert not bad
    said = {finding["id"]: finding["finding"] for finding in findings}
    assert said["TLS1_3"].startswith("offered")
    assert said["TLS1_2"].startswith("offered")
    assert {"heartbleed", "CCS", "ROBOT", "BREACH", "LUCKY13"} <= set(said)
