"""docs/interop.md as a run of the matrix makes it: what stands between its markers, and nothing else of it."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ..support.old_peers import CELLS, OLD, OLD_SUITES, PEERS
from ..support.require import require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .talking import Matrix

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
HEADINGS = {"server": "our server, their client", "client": "our client, their server"}
_SUITES = [suite.nss_name for suite in OLD_SUITES]


def complete(matrix: Matrix) -> bool:
    """Whether all suites, and features at all, were tested and passed: a part of the matrix makes no page."""
    wanted = {
        (role, cell.suite.nss_name, cell.version, peer.key)
        for cell in CELLS
        for peer in PEERS
        for role, able in (("server", peer.connects(cell)), ("client", peer.serves(cell)))
        if able
    }
    passed = {(*cell, peer) for cell, peers in matrix.cells.items() for peer in peers}
    return wanted < passed


def tables(matrix: Matrix) -> str:
    """Suites, then features, each in both roles."""
    features = list(dict.fromkeys(row for _, row, _ in matrix.cells if row not in _SUITES))
    parts = [_table(matrix, "suite", role, heading, _SUITES) for role, heading in HEADINGS.items()]
    parts += [_table(matrix, "feature", role, heading, features) for role, heading in HEADINGS.items()]
    return "\n" + "\n".join(parts) + "\n"


def _table(matrix: Matrix, what: str, role: str, heading: str, rows: Iterable[str]) -> str:
    letters = [peer.key for peer in PEERS]
    lines = [f"### {what.capitalize()}s: {heading}\n"]
    lines += [_row(what, *(version.label for version in OLD)), _row(*["---"] * (1 + len(OLD)))]
    for row in rows:
        passed = [sorted(matrix.cells.get((role, row, version), ()), key=letters.index) for version in OLD]
        if any(passed):
            lines.append(_row(f"`{row}`" if what == "suite" else row, *(" ".join(peers) for peers in passed)))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def peers() -> str:
    """Their letters, names and versions."""
    rows = [_row("letter", "stack", "version"), _row("---", "---", "---")]
    rows += [_row(peer.key, peer.title, _VERSIONS[peer.key]()) for peer in PEERS]
    return "\n" + "\n".join(rows) + "\n\n"


def _said(pattern: str, *command: str) -> str:
    done = subprocess.run(
        [require(command[0]), *command[1:]], capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL
    )
    found = re.search(pattern, done.stdout + done.stderr)
    assert found, done.stdout
    return found[1]


def _nss() -> str:
    version = ctypes.CDLL(ctypes.util.find_library("nss3")).NSS_GetVersion
    version.restype = ctypes.c_char_p
    return str(version().decode())


_VERSIONS = {
    "O": lambda: f"1.0.2e, in the wheel nassl {importlib.metadata.version('nassl')}",
    "J": lambda: _said(r'version "(\d+)', "java", "-version"),
    "N": _nss,
    "G": lambda: _said(r"gnutls-cli (\S+)", "gnutls-cli", "--version"),
    "T": lambda: importlib.metadata.version("tlslite-ng"),
    "S": lambda: _said(r"OpenSSL (\S+)", "openssl", "version"),
}


def between(text: str, name: str) -> str:
    """What stands between a page's markers of this name."""
    start, end = _markers(name)
    return text.partition(start)[2].partition(end)[0]


def replaced(text: str, name: str, content: str) -> str:
    start, end = _markers(name)
    return text.replace(start + between(text, name) + end, start + content + end)


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
