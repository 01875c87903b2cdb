"""The error family: names that exist, numbers that are NSS's, alerts for everything, and no text without a cause."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from pathlib import Path

import pytest

import nss_pk11
from nss_pk11 import errors
from nss_pk11.errors import Alert, AlertReceived, CertificateError, TokenError, alert_for, error_meaning, error_number
from nss_pk11.tls.engine import _MESSAGE_NAMES, _error_name

NAME = "(SSL_ERROR|SEC_ERROR|PR|XP_SEC)_[A-Z0-9_]*[A-Z0-9]"
PACKAGE = Path(nss_pk11.__file__).parent


def names_in_source() -> list[tuple[str, str]]:
    """Every NSS name that the package writes out, with the file; what a file exports is no error's name."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        exported = {id(node) for line in tree.body if _is_all(line) for node in ast.walk(line)}
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in exported
            if is_text and re.fullmatch(NAME, node.value):
                found.append((str(path.relative_to(PACKAGE)), node.value))
    return found


def _is_all(line: ast.stmt) -> bool:
    return isinstance(line, ast.Assign) and any(isinstance(name, ast.Name) and name.id == "__all__" for name in line.targets)


def test_every_name_the_package_uses_is_an_nss_name() -> None:
    used = names_in_source()
    assert len(used) > 100
    unknown = []
    for where, name in used:
        try:
            error_number(name)
        except KeyError:
            unknown.append((where, name))
    assert unknown == []


@pytest.mark.parametrize("kind", sorted(_MESSAGE_NAMES))
def test_names_made_of_message_types_exist(kind: int) -> None:
    for what in ("UNEXPECTED", "MALFORMED"):
        assert error_number(_error_name(what, kind)) < 0


@pytest.mark.parametrize(
    ("name", "number"),
    # From NSS's sslerr.h, secerr.h and NSPR's prerr.h: the first of each family, and some whose place is easy to get wrong.
    [
        ("SSL_ERROR_EXPORT_ONLY_SERVER", -12288),
        ("SSL_ERROR_NO_CYPHER_OVERLAP", -12286),
        ("SSL_ERROR_BAD_CERT_DOMAIN", -12276),
        ("SSL_ERROR_RX_CERTIFICATE_REQUIRED_ALERT", -12107),
        ("SEC_ERROR_IO", -8192),
        ("SEC_ERROR_UNKNOWN_ISSUER", -8179),
        ("SEC_ERROR_BAD_PASSWORD", -8177),
        ("PR_OUT_OF_MEMORY_ERROR", -6000),
        ("PR_END_OF_FILE_ERROR", -5938),
    ],
)
def test_numbers_are_nss(name: str, number: int) -> None:
    assert error_number(name) == number
    assert error_meaning(name)


def test_the_table_travels_with_the_package() -> None:
    assert files("nss_pk11").joinpath("error_codes.json").is_file()
    assert files("nss_pk11").joinpath("py.typed").is_file()


def test_text_names_the_cause() -> None:
    error = TokenError(
        "cannot sign", token="web", slot="slot 0", mechanism="CKM_ECDSA", ckr="CKR_DEVICE_REMOVED", function="C_Sign"
    )
    for word in (
        "cannot sign",
        "web",
        "slot 0",
        "CKM_ECDSA",
        "CKR_DEVICE_REMOVED",
        "C_Sign",
        "SEC_ERROR_UNKNOWN_PKCS11_ERROR",
        "-8018",
    ):
        assert word in str(error)
    assert str(errors.BadRecordMac()).startswith(error_meaning("SSL_ERROR_BAD_MAC_READ"))


@pytest.mark.parametrize("alert", [alert for alert in Alert if alert != Alert.unknown_psk_identity])
def test_every_alert_received_has_its_own_name(alert: Alert) -> None:
    error = AlertReceived(alert)
    assert error.alert is alert
    assert error.errno < 0
    assert alert.name in str(error)


def test_an_unknown_alert_is_kept_as_its_number() -> None:
    assert AlertReceived(200).alert == 200
    assert "200" in str(AlertReceived(200))


@pytest.mark.parametrize(
    ("error", "alert"),
    [
        (CertificateError(name="SEC_ERROR_EXPIRED_CERTIFICATE"), Alert.certificate_expired),
        (CertificateError(name="SEC_ERROR_UNKNOWN_ISSUER"), Alert.unknown_ca),
        (CertificateError(name="SEC_ERROR_REVOKED_CERTIFICATE_OCSP"), Alert.certificate_revoked),
        (CertificateError(name="SEC_ERROR_OCSP_OLD_RESPONSE"), Alert.bad_certificate_status_response),
        (CertificateError(name="SSL_ERROR_BAD_CERT_DOMAIN"), Alert.bad_certificate),
        (errors.PinLocked(), Alert.internal_error),
        (RuntimeError("a bug"), Alert.internal_error),
        (errors.RecordOverflow(), Alert.record_overflow),
        (errors.Truncated(), None),
    ],
)
def test_error_to_alert(error: BaseException, alert: Alert | None) -> None:
    assert alert_for(error) is alert
