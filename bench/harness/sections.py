"""What is measured: one function per section of the tables.  Each yields its rows; a contender that cannot run is left out of
them and named with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .measure import Figure, cpu_seconds, interleave, resident_bytes
from .servers import GNUTLS, OPENSSL, OURS, SERVERS, STDLIB, TLSLITE, Contender, Server, client_environment
from .tokens import KEYS, MODULE, PIN, SERVED, Tokens

VERSIONS = ("1.3", "1.2")
HARNESS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Effort:
    """How much is done: `rounds` of `handshakes` or `signatures`, `megabytes` a download, `connections` held idle; `seconds` of
    handshakes by many clients at once."""

    rounds: int
    handshakes: int
    signatures: int
    megabytes: int
    connections: int
    seconds: float


FULL = Effort(rounds=7, handshakes=400, signatures=200, megabytes=200, connections=500, seconds=5.0)
QUICK = Effort(rounds=3, handshakes=100, signatures=50, megabytes=50, connections=100, seconds=1.0)
CLIENTS = 4  # at once: a server that waits for each handshake would pay for cold caches, and none is measured idle
SLOWER = 10  # a slow contender does this many times less
SECONDS = 30.0  # a batch of handshakes ends by then
WARM_UP = 50  # connections open before memory is first read


@dataclass(frozen=True)
class Row:
    """One line of a table: what was done, and what each contender needed."""

    title: str
    figures: dict[str, Figure]
    missing: dict[str, str]


@dataclass(frozen=True)
class Bench:
    """What every section needs.  `directory` is the run's own; in `data` lie the files that servers send."""

    tokens: Tokens
    directory: Path
    data: Path
    effort: Effort
    advance: Callable[[str], None]

    def server(self, contender: Contender, label: str) -> Server:
        return Server(contender, self.tokens, label, self.data, self.directory / "servers.log")

    def client(self, server: Server, mode: object, *arguments: object) -> Worker:
        command = [sys.executable, str(HARNESS / "client.py"), *map(str, (mode, server.port, *arguments))]
        return Worker(command, client_environment(self.directory))

    def row(self, title: str, contenders: dict[str, Callable[[], float]], missing: dict[str, str], *, rate: bool = False) -> Row:
        figures, failures = interleave(self.effort.rounds, contenders, lambda name: self.advance(f"{title}: {name}"), rate=rate)
        return Row(title, figures, missing | failures)


class Worker:
    """A child process that gets ready, then answers one line for every line it is sent; a context manager."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.command, self.environment = command, environment

    def __enter__(self) -> Worker:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        try:
            self.answer()
        except RuntimeError:
            self.__exit__()
            raise
        return self

    def ask(self, line: str = "") -> str:
        """Sends a line, returns the answer.  Raises RuntimeError with the child's last words if it ends instead."""
        self.tell(line)
        return self.answer()

    def tell(self, line: str = "") -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout
        assert self.process.stderr
        line = self.process.stdout.readline()
        if not line:
            words = self.process.stderr.read().strip().splitlines() or ["it said nothing"]
            raise RuntimeError(words[-1])
        return line

    def __exit__(self, *_: object) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream
            stream.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


OPERATIONS = (
    # row, key, what (see signer.py)
    ("ECDSA P-256 sign", "ec", "ecdsa"),
    ("Ed25519 sign", "ed25519", "ed25519"),
    ("RSA-2048 PSS sign", "rsa", "pss"),
    ("RSA-2048 PKCS #1 sign", "rsa", "pkcs1"),
    ("RSA-2048 PKCS #1 decrypt", "rsa", "decrypt"),
)
WAYS = {"nss_pk11.slots": "slots", "python-pkcs11": "python-pkcs11", "cryptography, in software": "cryptography"}


def signatures(bench: Bench) -> Iterator[Row]:
    """Raw key operations from Python, no TLS."""
    count = bench.effort.signatures

    def cost(worker: Worker) -> float:
        return float(worker.ask(str(count))) / count * 1e6

    for title, label, what in OPERATIONS:
        environment = {
            **bench.tokens.environment,
            "BENCH_MODULE": str(MODULE),
            "BENCH_TOKEN": f"bench-{label}",
            "BENCH_PIN": PIN,
            "BENCH_URI": bench.tokens.uri(label, module=True),
        }
        with ExitStack() as stack:
            contenders: dict[str, Callable[[], float]] = {}
            missing = {}
            for name, way in WAYS.items():
                key = str(bench.tokens.software_key(label)) if way == "cryptography" else label
                worker = Worker([sys.executable, str(HARNESS / "signer.py"), way, key, what], environment)
                try:
                    contenders[name] = partial(cost, stack.enter_context(worker))
                except RuntimeError as error:
                    missing[name] = str(error)
            yield bench.row(title, contenders, missing)


@contextmanager
def _running(bench: Bench, contenders: tuple[Contender, ...], label: str) -> Iterator[tuple[dict[str, Server], dict[str, str]]]:
    """All `contenders` at once, and why some are not there."""
    with ExitStack() as stack:
        servers, missing = {}, {}
        for contender in contenders:
            bench.advance(f"starting {contender.name}")
            try:
                servers[contender.name] = stack.enter_context(bench.server(contender, label))
            except (RuntimeError, FileNotFoundError) as error:
                missing[contender.name] = str(error)
        yield servers, missing


def handshake_cost(bench: Bench, server: Server, version: str, *options: str) -> float:
    """CPU microseconds of the server per handshake, kept busy by `CLIENTS` clients at once.  Raises RuntimeError where other
    handshakes happened than were asked for."""
    count = bench.effort.handshakes // (SLOWER if server.contender.slow else 1) // CLIENTS
    with ExitStack() as stack:
        arguments = ("handshakes", version, count, SECONDS, *options)
        clients = [stack.enter_context(bench.client(server, *arguments)) for _ in range(CLIENTS)]
        before = cpu_seconds(server.pid)
        for client in clients:
            client.tell()
        answers: list[dict[str, Any]] = [json.loads(client.answer()) for client in clients]
        used = cpu_seconds(server.pid) - before
    done, resumed = (sum(int(answer[what]) for answer in answers) for what in ("done", "resumed"))
    if resumed != (done if "--resume" in options else 0):
        raise RuntimeError(f"{resumed} of {done} handshakes were resumed")
    return used / done * 1e6


def handshakes(bench: Bench) -> Iterator[Row]:
    """Full handshakes, no resumption."""
    for label in SERVED:
        with _running(bench, SERVERS, label) as (servers, missing):
            for version in VERSIONS:
                costs = {name: partial(handshake_cost, bench, server, version) for name, server in servers.items()}
                yield bench.row(f"{KEYS[label][0]}, TLS {version}", dict(costs), missing)


def resumption(bench: Bench) -> Iterator[Row]:
    """Resumed handshakes: a ticket, in TLS 1.3 with a fresh key exchange (psk_dhe_ke)."""
    with _running(bench, SERVERS, "ec") as (servers, missing):
        for version in VERSIONS:
            costs = {name: partial(handshake_cost, bench, server, version, "--resume") for name, server in servers.items()}
            yield bench.row(f"resumed, TLS {version}", dict(costs), missing)


def bulk(bench: Bench) -> Iterator[Row]:
    """Megabytes that a server sends per second of its CPU time."""
    large, small = bench.data / "large", bench.data / "small"
    large.write_bytes(bytes(bench.effort.megabytes << 20))
    small.write_bytes(bytes(1 << 20))
    contenders = (
        OURS,
        OPENSSL,
        replace(GNUTLS, options=("--httpdata", str(large))),
        STDLIB,
        replace(TLSLITE, options=(str(small),)),
    )

    def rate(server: Server) -> float:
        with bench.client(server, "download", "/large") as client:
            before = cpu_seconds(server.pid)
            done = int(json.loads(client.ask())["done"])
            used = cpu_seconds(server.pid) - before
        if done < (small if server.contender.slow else large).stat().st_size:
            raise RuntimeError(f"sent {done} bytes only")
        return done / 1e6 / used

    with _running(bench, contenders, "ec") as (servers, missing):
        rates = {name: partial(rate, server) for name, server in servers.items()}
        yield bench.row("AES-128-GCM, 16 KB records, TLS 1.3", dict(rates), missing, rate=True)


def memory(bench: Bench) -> Iterator[Row]:
    """Resident KB that one more idle connection costs, TLS 1.3.  openssl s_server is not here: it serves one at a time."""
    contenders = (
        OURS,
        GNUTLS,
        replace(STDLIB, options=("--hold",)),
        replace(STDLIB, name="asyncio + stdlib ssl", options=("--asyncio",)),
        replace(TLSLITE, options=("--hold",)),
    )

    def cost(contender: Contender) -> float:
        count = bench.effort.connections // (SLOWER // 2 if contender.slow else 1)
        with (
            bench.server(contender, "ec") as server,
            bench.client(server, "idle", WARM_UP) as first,
            bench.client(server, "idle", count) as second,
        ):
            first.ask()
            before = _settled(server)
            second.ask()
            return (_settled(server) - before) / count / 1024

    once = replace(bench, effort=replace(bench.effort, rounds=min(bench.effort.rounds, 3)))
    yield once.row("idle connection", {contender.name: partial(cost, contender) for contender in contenders}, {})


def _settled(server: Server) -> int:
    """Resident bytes once the server is idle, that is, has used no CPU time for a tenth of a second."""
    used = -1.0
    while used != (used := cpu_seconds(server.pid)):
        time.sleep(0.1)
    return resident_bytes(server.pid)


@dataclass(frozen=True)
class Section:
    """A table."""

    name: str
    title: str
    rows: Callable[[Bench], Iterator[Row]]


SECTIONS = (
    Section("signatures", "Raw token operations, CPU µs", signatures),
    Section("handshakes", "Full handshakes, server CPU µs", handshakes),
    Section("resumption", "Resumed handshakes, server CPU µs", resumption),
    Section("bulk", "Bulk, MB per server CPU second", bulk),
    Section("memory", "Memory per idle connection, KB", memory),
)
