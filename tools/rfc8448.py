"""Turns the text of RFC 8448 into fixtures/rfc8448.json: every named octet string of every trace, in its order.

    python tools/rfc8448.py rfc8448.txt > fixtures/rfc8448.json

Stops where a length that the RFC states is not the length found.  tests/tls/test_rfc8448_vectors.py checks the result
by recomputing it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = {3: "simple-1rtt", 4: "resumed-0rtt", 5: "hello-retry-request", 6: "client-authentication", 7: "compatibility-mode"}

_FURNITURE = re.compile(r"^(Thomson +Informational +\[Page \d+\]|RFC 8448 +TLS 1\.3 Traces +January 2019)$")
_SECTION = re.compile(r"^(\d)\.  (.+)$")
_STEP = re.compile(r"^\{(client|server)\}  (.+)$")
_HEX = re.compile(r"^[0-9a-f]{2}( [0-9a-f]{2})*$")
_VALUE = re.compile(
    r"^(?P<name>.+?)(?: \((?P<length>\d+) octets?\))?:  ?"
    r"(?P<octets>[0-9a-f]{2}(?: [0-9a-f]{2})*|\(empty\)|0 \(all zero octets\))$"
)
_SPECIAL = {"(empty)": "", "0 (all zero octets)": "00" * 32}


def values(lines: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    """(kind, name, text): a "section", a "step" of one side, or a "value" with its hex joined."""
    name, length, octets = "", None, ""

    def finished() -> Iterator[tuple[str, str, str]]:
        joined = octets.replace(" ", "")
        if length is not None and len(joined) != 2 * int(length):
            raise SystemExit(f"{name}: {length} octets announced, {len(joined) // 2} found")
        if name:
            yield "value", name, joined

    for line in map(str.strip, lines):
        if not line or _FURNITURE.match(line):
            continue
        if _HEX.match(line) and name:
            octets += " " + line
            continue
        yield from finished()
        name, length = "", None
        if found := _VALUE.match(line):
            name, length = found["name"], found["length"]
            octets = _SPECIAL.get(found["octets"], found["octets"])
        elif found := _STEP.match(line):
            yield "step", found[1], found[2].rstrip(":")
        elif found := _SECTION.match(line):
            yield "section", found[1], found[2]
    yield from finished()


def read(text: str) -> dict[str, Any]:
    body = text[text.index("\n2.  Private Keys\n") :]
    keys: dict[str, str] = {}
    traces: dict[str, dict[str, Any]] = {}
    into: dict[str, str] = keys
    for kind, name, content in values(iter(body.replace("\f", "").splitlines())):
        if kind == "section":
            if (number := int(name)) in NAMES:
                trace = traces[NAMES[number]] = {"section": number, "title": content, "steps": []}
            elif number > max(NAMES):
                break
        elif kind == "step":
            into = {}
            trace["steps"].append({"by": name, "step": content, "values": into})
        else:
            into[name] = content
    for trace in traces.values():
        trace["steps"] = [step for step in trace["steps"] if step["values"]]  # the rest only say "same as server"
    return {"source": "RFC 8448, January 2019", "server_key": keys, "traces": traces}


if __name__ == "__main__":
    json.dump(read(Path(sys.argv[1]).read_text()), sys.stdout, indent=1)
    print()
