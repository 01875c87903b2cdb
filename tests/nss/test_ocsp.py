"""OCSP responses that a server makes itself, judged by openssl."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import cert, ocsp, pk11pub, secerr
from tests.db.tools import Tools
from tests.nss.ends import run
from tests.support.require import require

DAY = 86400.0
BY_NAME, BY_KEY = ocsp.CERTOCSPResponderIDType


def judge(files: Path, response: bytes, directory: Path, status: int = 0, verify: bool = True) -> str:
    (directory / "response.der").write_bytes(response)
    certificates = ("-issuer", files / "ca.pem", "-cert", files / "server.pem", "-CAfile", files / "ca.pem")
    options = () if verify else ("-noverify",)
    return run(require("openssl"), "ocsp", "-respin", directory / "response.der", *certificates, *options, status=status)


def single(status: str, id: ocsp.CERTOCSPCertID, now: float) -> ocsp.CERTOCSPSingleResponse:
    if status == "good":
        return ocsp.CERT_CreateOCSPSingleResponseGood(id, now, now + DAY)
    if status == "unknown":
        return ocsp.CERT_CreateOCSPSingleResponseUnknown(id, now, None)
    return ocsp.CERT_CreateOCSPSingleResponseRevoked(id, now, now + DAY, now - DAY)


@pytest.mark.parametrize("responder", [BY_NAME, BY_KEY])
@pytest.mark.parametrize("status", ["good", "unknown", "revoked"])
def test_what_is_said(status: str, responder: int, ready: Tools, files: Path, tmp_path: Path) -> None:
    server, ca = (pk11pub.PK11_FindCertFromNickname(name) for name in ("server", "ca"))
    now = time.time()
    said = single(status, ocsp.CERT_CreateOCSPCertID(server, now), now)
    response = ocsp.CERT_CreateEncodedOCSPSuccessResponse(ca, responder, now, [said])
    output = judge(files, response, tmp_path)
    assert "Response verify OK" in output
    assert f"server.pem: {status}" in output


def test_a_signature_that_is_wrong(ready: Tools, files: Path, tmp_path: Path) -> None:
    server, now = pk11pub.PK11_FindCertFromNickname("server"), time.time()
    said = single("good", ocsp.CERT_CreateOCSPCertID(server, now), now)
    response = ocsp.CERT_CreateEncodedOCSPSuccessResponse(None, BY_NAME, now, [said])
    assert "Response Verify Failure" in judge(files, response, tmp_path, status=1)


def test_errors(ready: Tools, files: Path, tmp_path: Path) -> None:
    response = ocsp.CERT_CreateEncodedOCSPErrorResponse(secerr.SEC_ERROR_OCSP_TRY_SERVER_LATER)
    assert "Responder Error: trylater (3)" in judge(files, response, tmp_path, status=1)
    with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
        ocsp.CERT_CreateEncodedOCSPErrorResponse(secerr.SEC_ERROR_BUSY)


def test_what_cannot_be_made(ready: Tools, tmp_path: Path) -> None:
    now = time.time()
    server = pk11pub.PK11_FindCertFromNickname("server")
    with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
        ocsp.CERT_CreateOCSPSingleResponseRevoked(ocsp.CERT_CreateOCSPCertID(server, now), now, None, now, 1)
    elsewhere = Tools(tmp_path / "elsewhere", "")
    elsewhere.directory.mkdir()
    elsewhere.initialise()
    elsewhere.issue("authority", "-k", "ec", "-q", "nistp256")
    elsewhere.issue("leaf", "-k", "ec", "-q", "nistp256", issuer="authority")
    orphan = cert.CERT_NewTempCertificate(None, elsewhere.der("leaf"))
    with pytest.raises(NSPRError, match="SEC_ERROR_UNKNOWN_ISSUER"):
        ocsp.CERT_CreateOCSPCertID(orphan, now)
    root = cert.CERT_NewTempCertificate(None, elsewhere.der("authority"))
    assert ocsp.CERT_CreateOCSPCertID(root, now)
