"""Figures as tables: for the terminal, as Markdown, as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import ssl
import subprocess
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .measure import Figure
from .sections import Row, Section

Results = list[tuple[Section, list[Row]]]
OURS = frozenset({"nss-pk11 serve", "nss_pk11.slots"})

LEGEND = (
    "Median [best] of interleaved rounds. n×: ours against that peer in the same run, above 1 in our favour. CPU time is the "
    "server process's own, user and system; handshakes come from four clients at once; X25519 and AES-128-GCM throughout. "
    "Keys lie in SoftHSM, but for those in software, in a file and in the network HSM. That one is simulated (pk11_tokens); 48 "
    "clients at once ask for full TLS 1.3 handshakes with ECDSA P-256; handshakes/s are by the clock, and the stall is how long "
    "a connection waits that sends no TLS, so that its answer needs no key; queue and token: what a "
    "signature waited for a thread and took then, with the wait for a session, by our --metrics, whose cost is in our CPU time."
)


def machine() -> str:
    """Processor and versions, in one line."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = ("cryptography", "python-pkcs11", "tlslite-ng", "sslcontext")
    return ", ".join(
        (
            f"{os.cpu_count()} cores ({model[1] if model else platform.machine()})",
            f"Python {platform.python_version()} with {' '.join(ssl.OPENSSL_VERSION.split()[:2])}",
            f"SoftHSM {_version('softhsm2-util', '--version')}",
            f"openssl {_version('openssl', 'version')}",
            f"GnuTLS {_version('gnutls-serv', '--version')}",
            *(f"{package} {metadata.version(package)}" for package in packages),
        )
    )


def _version(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    except FileNotFoundError:
        return "absent"
    found = re.search(r"\d+\.\d+\.\d+", said)
    return found[0] if found else "of unknown version"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _cell(row: Row, name: str) -> str:
    figure = row.figures.get(name)
    if figure is None:
        return "–"
    cell = f"{_number(figure.median)} [{_number(figure.best)}]"
    own = next((own for ours, own in row.figures.items() if ours in OURS and ours != name), None)
    if own is None:
        return cell
    ratio = own.median / figure.median if figure.rate else figure.median / own.median
    return f"{cell} {ratio:.2f}×" if ratio < 10 else f"{cell} {ratio:.0f}×"


def _grid(rows: list[Row]) -> list[list[str]]:
    """A line for each contender, ours first, a column for each row."""
    names = dict.fromkeys(name for row in rows for name in (*row.figures, *row.missing))
    return [[name, *(_cell(row, name) for row in rows)] for name in sorted(names, key=lambda name: name not in OURS)]


def _missing(rows: list[Row]) -> list[str]:
    """Which contenders could not be measured, and why."""
    reasons = [(name, row.title, reason.splitlines()[-1]) for row in rows for name, reason in row.missing.items()]
    return [f"Not measured: {name} ({title}): {reason}" for name, title, reason in reasons]


def to_terminal(results: Results, console: Console) -> None:
    for section, rows in results:
        table = Table(title=section.title, title_justify="left", title_style="bold")
        table.add_column("")
        for row in rows:
            table.add_column(row.title, justify="right")
        for line in _grid(rows):
            table.add_row(*line, style="bold" if line[0] in OURS else None)
        console.print(table)
        for sentence in _missing(rows):
            console.print(sentence, style="yellow", markup=False)
    console.print(LEGEND, style="dim", markup=False)
    console.print(machine(), style="dim", markup=False)


def to_markdown(results: Results) -> str:
    lines = []
    for section, rows in results:
        lines += [f"| {section.title} | {' | '.join(row.title for row in rows)} |", f"|---|{'---:|' * len(rows)}"]
        lines += [f"| {' | '.join(line)} |" for line in _grid(rows)]
        lines += ["", *(f"{sentence}  " for sentence in _missing(rows))]
    return "\n".join([*lines, LEGEND, "", f"Machine: {machine()}.", ""])


def to_json(results: Results) -> str:
    def plain(figure: Figure) -> dict[str, object]:
        return {"median": figure.median, "best": figure.best, "rounds": figure.rounds}

    sections = {
        section.name: [
            {"title": row.title, "figures": {name: plain(figure) for name, figure in row.figures.items()}, "missing": row.missing}
            for row in rows
        ]
        for section, rows in results
    }
    return json.dumps({"machine": machine(), "sections": sections}, indent=2)
