"""`serve --www`: a page that says everything about the connection it came over; the same as JSON at /status.json."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from .. import certs
from ..errors import NSPRError
from ..net.log import peer_name
from ..net.record import key_facts, negotiated
from .http import Request, Response

Record = dict[str, Any]


def status_site(request: Request) -> Response:
    """A `Site`: the page at /, its facts at /status.json."""
    path = request.target.partition("?")[0]
    if path == "/status.json":
        return Response.of(200, "application/json", json.dumps(status(request), indent=2).encode() + b"\n", _FRESH)
    if path == "/":
        return Response.of(200, "text/html; charset=utf-8", page(status(request)).encode(), _FRESH, _POLICY)
    return Response.error(404)


_FRESH = ("Cache-Control", "no-store")
_POLICY = ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")


def status(request: Request) -> Record:
    """Everything there is to say, as plain values."""
    connection = request.connection
    info = connection.info
    record: Record = {
        "connection": negotiated(info)
        | {"peer": peer_name(connection.address), "handshake_ms": round(connection.handshake_seconds * 1e3, 2)},
        "certificate": None,
        "key": None,
        "client_certificate": [describe(der) for der in info.peer_chain] or None,
        "request": {"method": request.method, "target": request.target, "user_agent": request.headers.get("user-agent")},
    }
    identity = info.identity or next(iter(connection.engine.config.identities), None)
    if identity is not None:
        record["certificate"] = describe(identity.chain[0])
        record["key"] = key_facts(identity)
    return record


def describe(der: bytes) -> Record:
    """A certificate as plain values."""
    try:
        info = certs.describe(der)
    except NSPRError as error:
        return {"error": str(error)}
    return {name: _plain(getattr(info, name)) for name in _CERTIFICATE}


_CERTIFICATE = ("subject", "issuer", "names", "not_before", "not_after", "key", "fingerprint", "serial")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return list(value) if isinstance(value, tuple) else value


# --- HTML ----------------------------------------------------------------------------------------------------------------

_LABELS = {
    "version": "Version",
    "suite": "Cipher suite",
    "group": "Key exchange",
    "signature_scheme": "Signature",
    "client_signature_scheme": "Client's signature",
    "alpn": "ALPN",
    "server_name": "Server name",
    "resumed": "Resumed",
    "hello_retry": "HelloRetryRequest",
    "extended_master_secret": "Extended master secret",
    "encrypt_then_mac": "Encrypt-then-MAC",
    "ocsp_stapled": "OCSP response stapled",
    "record_size_limit": "Record size limit",
    "peer": "Your address",
    "handshake_ms": "Handshake, ms",
    "subject": "Subject",
    "issuer": "Issuer",
    "names": "Names",
    "not_before": "Valid from",
    "not_after": "Valid until",
    "key": "Key",
    "fingerprint": "SHA-256",
    "serial": "Serial number",
    "id": "CKA_ID",
    "kind": "Type",
    "uri": "URI",
    "token": "Token",
    "token_serial": "Token's serial number",
    "token_manufacturer": "Token's manufacturer",
    "token_model": "Token's model",
    "slot": "Slot",
    "slot_id": "Slot id",
    "module": "Module",
    "signatures": "Signatures so far",
    "signature_microseconds": "One takes, µs",
    "user_agent": "User agent",
    "method": "Method",
    "target": "Target",
    "error": "Error",
}

_STYLE = """
:root { color-scheme: light dark; --line: #8883; --quiet: #888; --good: #1a7f4b; }
@media (prefers-color-scheme: dark) { :root { --good: #4cc38a; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem; }
header { margin-bottom: 2rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; letter-spacing: -.01em; }
header p { margin: 0; color: var(--quiet); }
.badges { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1.2rem 0 0; padding: 0; list-style: none; }
.badges li { border: 1px solid var(--line); border-radius: 999px; padding: .15rem .8rem; font-size: .9rem; }
.badges .good { border-color: var(--good); color: var(--good); }
main { columns: 26rem 2; column-gap: 1.25rem; }
section { border: 1px solid var(--line); border-radius: .8rem; padding: 1rem 1.25rem; }
section { margin-bottom: 1.25rem; break-inside: avoid; }
h2 { font-size: 1rem; margin: 0 0 .6rem; }
dl { display: grid; grid-template-columns: minmax(6rem, 36%) 1fr; gap: .3rem 1rem; margin: 0; font-size: .92rem; }
dt { color: var(--quiet); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
footer { margin-top: 2rem; color: var(--quiet); font-size: .85rem; }
a { color: inherit; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>{style}</style></head>
<body>
<header><h1>{title}</h1><p>{lead}</p><ul class="badges">{badges}</ul></header>
<main>{sections}</main>
<footer>The same as JSON: <a href="/status.json">/status.json</a> · nss-pk11</footer>
</body></html>
"""


def page(record: Record) -> str:
    """`status` as HTML."""
    connection, key = record["connection"], record["key"]
    sections = [("Connection", connection), ("Private key", key), ("Server certificate", record["certificate"])]
    chain = record["client_certificate"]
    sections += [("Your certificate" if i == 0 else "Its issuer", entry) for i, entry in enumerate(chain or [])]
    sections.append(("Request", record["request"]))
    return _PAGE.format(
        title=html.escape(f"Connected by {connection['version']}"),
        style=_STYLE,
        lead=html.escape(_lead(connection, key)),
        badges="".join(f'<li class="{kind}">{html.escape(text)}' for text, kind in _badges(connection, key, bool(chain))),
        sections="\n".join(_section(title, facts) for title, facts in sections if facts),
    )


def _lead(connection: Record, key: Record | None) -> str:
    if connection["resumed"] or key is None:
        return "Resumed from an earlier session: nothing had to be signed."
    if key["module"]:
        return f"Signed by key “{key['key']}” on token “{key['token']}”."
    return f"Signed by key “{key['key'] or 'without a label'}”, which is in a file."


def _badges(connection: Record, key: Record | None, client: bool) -> Iterable[tuple[str, str]]:
    yield connection["suite"], ""
    if connection["group"]:
        yield connection["group"], "good" if "MLKEM" in connection["group"] else ""
    if connection["signature_scheme"]:
        yield connection["signature_scheme"], ""
    yield ("resumed" if connection["resumed"] else "full handshake"), ""
    if key and key["CKA_SENSITIVE"] and not key["CKA_EXTRACTABLE"]:
        yield "the key cannot leave its token", "good"
    if client:
        yield "client certificate verified", "good"


def _section(title: str, facts: Record) -> str:
    rows = "".join(
        f"<dt>{html.escape(_LABELS.get(name, name))}<dd>{html.escape(_words(value))}"
        for name, value in facts.items()
        if value not in (None, "", [])
    )
    return f"<section><h2>{html.escape(title)}</h2><dl>{rows}</dl></section>"


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
