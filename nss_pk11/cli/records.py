"""Modules, tokens, keys and certificates as records: one dictionary each, for JSON as it is and for text by `show_*`.

Reads what `slots` and `certs` tell; asks no token for anything but its mechanisms, keys and certificates.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Container, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import NSPRError

if TYPE_CHECKING:
    from ..slots import Module, PrivateKey, Slot, Token, TokenCertificate
    from .output import Text

Record = dict[str, Any]

# What a mechanism is for, by its flags (PKCS #11 3.0, CK_MECHANISM_INFO); a mechanism may stand in several groups.
USES: dict[str, frozenset[str]] = {
    "sign": frozenset({"CKF_SIGN"}),
    "decrypt": frozenset({"CKF_DECRYPT"}),
    "derive": frozenset({"CKF_DERIVE"}),
    "digest": frozenset({"CKF_DIGEST"}),
    "encrypt": frozenset({"CKF_ENCRYPT"}),
    "wrap": frozenset({"CKF_WRAP"}),
    "generate": frozenset({"CKF_GENERATE", "CKF_GENERATE_KEY_PAIR"}),
}

# The state of the user PIN, worst first.
_PIN_STATES = {
    "CKF_USER_PIN_LOCKED": "locked",
    "CKF_USER_PIN_FINAL_TRY": "final try",
    "CKF_USER_PIN_COUNT_LOW": "count low",
    "CKF_USER_PIN_TO_BE_CHANGED": "to be changed",
    "CKF_USER_PIN_INITIALIZED": "ok",
}


# --- records ---------------------------------------------------------------------------------------------------------


def module_record(module: Module, tokens: Container[Token] | None = None) -> Record:
    """A module with its slots; where `tokens` are given, only theirs."""
    slots = [slot for slot in module.slots() if tokens is None or slot.token in tokens]
    return {
        "path": module.path,
        "manufacturer": module.manufacturer,
        "description": module.description,
        "version": ".".join(map(str, module.version)),
        "slots": [slot_record(slot) for slot in slots],
    }


def slot_record(slot: Slot) -> Record:
    return {
        "id": slot.id,
        "description": slot.description,
        "manufacturer": slot.manufacturer,
        "removable": slot.removable,
        "hardware": slot.hardware,
        "token": None if slot.token is None else token_record(slot.token),
    }


def token_record(token: Token) -> Record:
    initialised = "CKF_TOKEN_INITIALIZED" in token.flags
    return {
        "label": token.info.label,
        "manufacturer": token.info.manufacturer,
        "model": token.info.model,
        "serial": token.info.serial,
        "flags": sorted(token.flags),
        "initialised": initialised,
        "login_required": "CKF_LOGIN_REQUIRED" in token.flags,
        "logged_in": token.logged_in,
        "pin": next((state for flag, state in _PIN_STATES.items() if flag in token.flags), "not set"),
        "pinpad": "CKF_PROTECTED_AUTHENTICATION_PATH" in token.flags,
        "read_only": "CKF_WRITE_PROTECTED" in token.flags,
        "fortezza": "CKM_KEA_KEY_DERIVE" in token.mechanisms(),
        "mechanisms": mechanisms_record(token),
        "keys": list(map(key_record, token.keys())) if initialised else [],
        "certificates": list(map(certificate_record, token.certificates())) if initialised else [],
    }


def mechanisms_record(token: Token) -> dict[str, list[str]]:
    """Mechanism names by use; "other" where a token does not say what some are for."""
    mechanisms = token.mechanisms()
    groups = {use: sorted(name for name, info in mechanisms.items() if info.flags & flags) for use, flags in USES.items()}
    other = sorted(set(mechanisms).difference(*groups.values()))
    return groups | ({"other": other} if other else {})


def key_record(key: PrivateKey) -> Record:
    return {
        "label": key.label,
        "id": key.id.hex(),
        "type": key.kind,
        "bits": key.bits,
        "uri": key.uri,
        "token": key.token.label,
        "sensitive": key.sensitive,
        "extractable": key.extractable,
        "generated_inside": key.local,
        "pin_for_each_use": key.always_authenticate,
        "algorithms": sorted(key.algorithms),
        "can_decrypt": key.can_decrypt,
    }


def certificate_record(certificate: TokenCertificate) -> Record:
    from cryptography.utils import CryptographyDeprecationWarning

    from .. import certs

    record: Record = {"label": certificate.label, "id": certificate.id.hex(), "uri": certificate.uri}
    try:
        with warnings.catch_warnings(action="ignore", category=CryptographyDeprecationWarning):  # odd roots of old trust stores
            info = certs.describe(certificate.der)
    except NSPRError as error:
        return record | {"error": str(error)}
    return record | {
        "subject": info.subject,
        "names": list(info.names),
        "key": info.key,
        "serial": str(info.serial),
        "sha256": info.fingerprint,
        "not_before": info.not_before.isoformat(),
        "not_after": info.not_after.isoformat(),
        "expired": info.not_after < datetime.now(UTC),
    }


# --- text ------------------------------------------------------------------------------------------------------------

_STATE_STYLES = {"ok": "green", "not set": "", "to be changed": "yellow", "count low": "yellow", "final try": "bold red"}


_MANY = 20  # certificates, of which only the number is shown


def show_module(text: Text, record: Record) -> None:
    text.heading(
        "module", record["path"] or "(internal)", record["description"], record["manufacturer"], f"version {record['version']}"
    )
    for slot in record["slots"]:
        text.heading("slot", str(slot["id"]), slot["description"], "no token" if slot["token"] is None else "", level=1)
        if slot["token"] is not None:
            show_token(text, slot["token"])


def show_token(text: Text, record: Record) -> None:
    text.heading(
        "token",
        record["label"] or "(no label)",
        record["model"],
        record["manufacturer"],
        f"serial {record['serial']}" if record["serial"] else "",
        "FORTEZZA" if record["fortezza"] else "",
        level=1,
    )
    if not record["initialised"]:
        text.line("state", "not initialised", "yellow", level=2)
        return
    pin = record["pin"]
    states = {
        "logged in" if record["logged_in"] else "login required": record["login_required"],
        f"PIN {pin}": record["login_required"],
        "PIN on the pinpad": record["pinpad"],
        "read-only": record["read_only"],
    }
    style = _STATE_STYLES.get(pin, "bold red") if record["login_required"] else ""
    text.line("state", " · ".join(["initialised", *(state for state, holds in states.items() if holds)]), style, level=2)
    for use, names in record["mechanisms"].items():
        text.words(use, [name.removeprefix("CKM_") for name in names], level=2)
    _show_all(text, record["keys"], show_key, 2)
    certificates = record["certificates"]
    if len(certificates) <= _MANY:
        _show_all(text, certificates, show_certificate, 2)
    else:  # a trust store
        text.line("certificates", f"{len(certificates)}; nss-pk11 cert list --token {shlex.quote(record['label'])}", level=2)


def _show_all(text: Text, records: Iterable[Record], show: Callable[[Text, Record, int], None], level: int) -> None:
    for record in records:
        show(text, record, level)


def show_key(text: Text, record: Record, level: int = 0) -> None:
    kind = record["type"].upper() if record["type"] in ("rsa", "dsa", "ec", "kea") else record["type"].capitalize()
    about = {
        f"{kind} {record['bits']} bits": True,
        "sensitive": record["sensitive"],
        "extractable" if record["extractable"] else "not extractable": True,
        "generated inside": record["generated_inside"],
        "PIN for each use": record["pin_for_each_use"],
        f"id {record['id']}": bool(record["id"]),
    }
    text.heading("key", record["label"] or "(no label)", *(word for word, holds in about.items() if holds), level=level)
    text.line("", record["uri"], "blue", level=level)


def show_certificate(text: Text, record: Record, level: int = 0) -> None:
    about = [record["error"]] if "error" in record else [record["subject"], " ".join(record["names"]), record["key"]]
    text.heading("certificate", record["label"] or "(no label)", *about, level=level)
    if "error" not in record:
        text.line("", *_expiry(record), level=level)
    text.line("", record["uri"], "blue", level=level)


def _expiry(record: Record) -> tuple[str, str]:
    """What to say about the end of a certificate's life, and how to colour it."""
    end = datetime.fromisoformat(record["not_after"])
    if record["expired"]:
        return f"expired {end:%Y-%m-%d}", "bold red"
    days = (end - datetime.now(UTC)).days
    return f"expires {end:%Y-%m-%d} (in {days} days)", "yellow" if days < 14 else "green"
