"""Handshakes with a key in a network HSM, which takes its time for a signature but makes many at once.

Here it is latency that is measured, so the clock on the wall counts, beside CPU time.  Every contender has a simulated token of
its own (`pk11_tokens`, a process each), since sixteen sessions are all that the token gives.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .measure import Figure, cpu_seconds
from .sections import Bench, Row, Section
from .servers import GNUTLS, METRICS, OPENSSL, OURS, SSLCONTEXT, Contender, Server
from .tokens import PIN, Tokens

LATENCY, SESSIONS = 0.05, 16  # seconds a signature, sessions at most
CLIENTS = 48  # at once: three for each session
KEY = "ec"


@dataclass(frozen=True)
class Round:
    """What one round of one contender showed; times in milliseconds, CPU time in microseconds a handshake."""

    rate: float
    cpu: float
    stall: float
    queue: float | None = None
    token: float | None = None


def _tokens(stack: ExitStack, directory: Path) -> Tokens:
    """A simulated network HSM with a key and a certificate, for as long as `stack` lives."""
    import pk11_tokens  # here, so that the other sections do without

    directory.mkdir()
    token = {
        "label": f"bench-{KEY}",
        "serial": "0001",
        "pin": PIN,
        "personality": "network HSM",
        "latency": {"C_Sign": LATENCY},
        "max_sessions": SESSIONS,
        "parallel": SESSIONS,
        "key": [{"label": KEY, "id": "01", "kind": "p256", "self_signed": ["localhost"]}],
    }
    simulator = stack.enter_context(pk11_tokens.start([token]))
    tokens = Tokens(directory, {**os.environ, "PKCS11_MODULE_PATH": simulator.module}, Path(simulator.module))
    certificate = ssl.DER_cert_to_PEM_cert(simulator[f"bench-{KEY}"].certificate_der(KEY))
    tokens.certificate(KEY).write_text(certificate)
    return tokens


def _measure(bench: Bench, server: Server) -> Round:
    """Keeps `server` busy for the section's seconds.  Raises RuntimeError where the client fails."""
    metrics = re.search(r"metrics at (http://\S+)", server.log.read_text(errors="replace"))
    with bench.client(server, "crowd", "1.3", CLIENTS, bench.effort.seconds) as client:
        earlier = _spent(metrics[1]) if metrics else {}
        before = cpu_seconds(server.pid)
        answer = json.loads(client.ask())
        used = cpu_seconds(server.pid) - before
        spent = _spent(metrics[1]) if metrics else {}
    done = answer["done"]
    parts = {part: (spent[part] - earlier[part]) / done * 1e3 for part in spent}
    return Round(done / answer["seconds"], used / done * 1e6, answer["worst_wait"] * 1e3, **parts)


def _spent(metrics: str) -> dict[str, float]:
    """Seconds that uses of keys waited for a thread (`queue`) and were with the token (`token`), all together."""
    with urllib.request.urlopen(metrics, timeout=10) as answer:
        text = answer.read().decode()
    found = {part: re.findall(rf"^nss_pk11_key_{part}_seconds_sum\S* (\S+)$", text, re.M) for part in ("queue", "token")}
    return {part: sum(map(float, values)) for part, values in found.items()}


COLUMNS = (
    # title, field of Round, whether more is better
    ("handshakes/s", "rate", True),  # by the clock
    ("CPU µs", "cpu", False),  # of the server, per handshake
    ("worst stall, ms", "stall", False),  # of a connection that needs no key
    ("queue, ms", "queue", False),  # mean wait of a signature for a thread
    ("token, ms", "token", False),  # mean time of a signature after that, its check included
)


def network(bench: Bench) -> Iterator[Row]:
    """Handshakes a second by the clock, what they cost, and how long a connection that needs no key had to wait meanwhile."""
    contenders: tuple[Contender, ...] = (replace(OURS, options=("--metrics", f"{METRICS}:0")), OPENSSL, GNUTLS, SSLCONTEXT)
    rounds: dict[str, list[Round]] = {}

    def rate(own: Bench, server: Server) -> float:
        found = _measure(own, server)
        rounds.setdefault(server.contender.name, []).append(found)
        return found.rate

    with ExitStack() as stack:
        measured: dict[str, Callable[[], float]] = {}
        missing = {}
        for number, contender in enumerate(contenders):
            bench.advance(f"starting {contender.name}")
            directory = bench.directory / f"network-{number}"
            own = replace(bench, tokens=_tokens(stack, directory), directory=directory)
            try:
                measured[contender.name] = partial(rate, own, stack.enter_context(own.server(contender, KEY)))
            except (RuntimeError, FileNotFoundError) as error:
                missing[contender.name] = str(error)
        few = replace(bench, effort=replace(bench.effort, rounds=bench.effort.rounds // 2))
        first = few.row(COLUMNS[0][0], measured, missing, rate=True)
    yield first
    for title, field, more in COLUMNS[1:]:
        figures = {
            name: Figure(values, more)
            for name in first.figures
            if None not in (values := tuple(getattr(found, field) for found in rounds[name][1:]))  # the first warms up
        }
        yield Row(title, figures, {})


NETWORK = Section("network", "Key in a network HSM, 50 ms a signature, 16 sessions", network)
