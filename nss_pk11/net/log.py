"""One line per connection, as text or JSON.

Lines are gathered and written once per turn of the server loop.  What a peer chose (its SNI, its ALPN) is quoted so that it
cannot forge a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from ..errors import AlertReceived, NSPRError, alert_for
from .identity import key_of

if TYPE_CHECKING:
    from ..tls.codepoints import Group, SignatureScheme, Version
    from ..tls.suites import Suite
    from .connection import Connection

Format = Literal["text", "json"]


class ConnectionLog:
    """Writes to the file descriptor `fd`; call `closed` for every connection, `flush` now and then."""

    def __init__(self, fd: int = 2, format: Format = "text") -> None:
        self._fd = fd
        self._line = _json_line if format == "json" else _text_line
        self._lines: list[str] = []

    def closed(self, connection: Connection) -> None:
        self._lines.append(self._line(connection))

    def flush(self) -> None:
        if self._lines:
            data, self._lines = "".join(self._lines).encode(), []
            with contextlib.suppress(OSError):  # a full disk or a closed pipe must not end the server
                while data:
                    data = data[os.write(self._fd, data) :]


def peer_name(address: object) -> str:
    """ "127.0.0.1:4433", "[::1]:4433"."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(address) or "-"


def alert_of(error: NSPRError) -> tuple[str, str] | None:
    """("sent" or "received", the alert's name), or None where none was."""
    if isinstance(error, AlertReceived):
        return "received", getattr(error.alert, "name", str(error.alert))
    alert = alert_for(error)
    return None if alert is None else ("sent", alert.name)


def facts(connection: Connection) -> dict[str, Any]:
    """The line's content, by the names of `record.negotiated`; what does not apply is left out."""
    info, error = connection.info, connection.error
    found: dict[str, Any] = {"time": _stamp(int(time.time())), "pid": os.getpid(), "peer": peer_name(connection.address)}
    found |= _parameters(info.version, info.suite, info.group, info.signature_scheme)
    for name in _PLAIN:
        value = getattr(info, name)
        if value:
            found[name] = value
    if info.identity is not None:
        key = key_of(info.identity)
        found["token"], found["key"] = key.token.label, key.label
    if error is not None:
        found["error"], found["detail"] = error.name, error.detail
        alert = alert_of(error)
        if alert is not None:
            found[f"alert_{alert[0]}"] = alert[1]
    if connection.handshake_seconds:
        found["handshake_ms"] = round(connection.handshake_seconds * 1e3, 2)
    found["ms"] = round((time.monotonic() - connection.started) * 1e3, 2)
    found["bytes_in"], found["bytes_out"] = connection.bytes_in, connection.bytes_out
    return found


@lru_cache(1024)
def _parameters(
    version: Version | None, suite: Suite | None, group: Group | None, signature_scheme: SignatureScheme | None
) -> dict[str, str]:
    """Few combinations, many connections, and an Enum's `name` is slow."""
    named = {"suite": suite, "group": group, "signature_scheme": signature_scheme}
    found = {} if version is None else {"version": version.label}
    return found | {name: value.name for name, value in named.items() if value is not None}


_PLAIN = ("alpn", "server_name", "resumed", "hello_retry")


@lru_cache(1)
def _stamp(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def _json_line(connection: Connection) -> str:
    return json.dumps(facts(connection), separators=(",", ":")) + "\n"


_BARE = frozenset({"time", "peer", "version", "suite", "group", "signature_scheme", "error"})
_SHORT = {
    "server_name": "sni",
    "alert_sent": "alert",
    "alert_received": "got-alert",
    "handshake_ms": "handshake-ms",
    "hello_retry": "hello-retry",
    "bytes_in": "in",
    "bytes_out": "out",
}
_needs_no_quotes = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # printable ASCII without space, quote, equals sign, backslash


@lru_cache(1024)
def _quoted(value: str) -> str:
    return value if _needs_no_quotes(value) else json.dumps(value)


def _text_line(connection: Connection) -> str:
    words = []
    for name, value in facts(connection).items():
        if name in _BARE:
            words.append(value)
        elif value is True:
            words.append(_SHORT.get(name, name))
        elif isinstance(value, str):
            words.append(f"{_SHORT.get(name, name)}={_quoted(value)}")
        elif name != "pid":
            words.append(f"{_SHORT.get(name, name)}={value}")
    return " ".join(words) + "\n"
