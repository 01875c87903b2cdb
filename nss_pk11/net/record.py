"""What is known about a connection, as plain values: for log lines, status pages and JSON.

One place, so that the server's log, `serve --www` and `connect` say the same thing by the same names.  Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..tls.codepoints import Version
from .identity import key_of

if TYPE_CHECKING:
    from ..tls.config import Identity
    from ..tls.events import ConnectionInfo


def negotiated(info: ConnectionInfo) -> dict[str, Any]:
    """What was negotiated, by the RFCs' names; None for what was not, or does not exist in this version."""
    before_13 = info.version is not None and info.version < Version.tls1_3
    return {
        "version": info.version.label if info.version else None,
        "suite": info.suite.name if info.suite else None,
        "group": info.group.name if info.group else None,
        "signature_scheme": info.signature_scheme.name if info.signature_scheme else None,
        "client_signature_scheme": info.client_signature_scheme.name if info.client_signature_scheme else None,
        "alpn": info.alpn or None,
        "server_name": info.server_name or None,
        "resumed": info.resumed,
        "hello_retry": info.hello_retry,
        "extended_master_secret": info.extended_master_secret if before_13 else None,
        "encrypt_then_mac": info.encrypt_then_mac if before_13 else None,
        "ocsp_stapled": bool(info.ocsp),
        "record_size_limit": info.record_size_limit,
    }


def key_facts(identity: Identity) -> dict[str, Any]:
    """Where the identity's key lies and what its token says of it; `signatures` counts what it did since it was loaded."""
    key = key_of(identity)
    return {
        "key": key.label or None,
        "id": key.id.hex() or None,
        "kind": f"{key.kind} {key.bits}" if key.kind in ("rsa", "ec") else key.kind,
        "uri": key.uri or None,
        "token": key.token.label or None,
        "token_serial": key.token.serial or None,
        "token_manufacturer": key.token.manufacturer or None,
        "token_model": key.token.model or None,
        "slot": key.token.slot or None,
        "slot_id": key.token.slot_id,
        "module": key.token.module or None,
        "CKA_SENSITIVE": key.sensitive,
        "CKA_EXTRACTABLE": key.extractable,
        "CKA_LOCAL": key.local,
        "CKA_ALWAYS_AUTHENTICATE": key.always_authenticate,
        "signatures": key.operations,
        "signature_microseconds": round(key.latency * 1e6),
    }
