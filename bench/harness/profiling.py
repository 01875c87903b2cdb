"""Says where the CPU time of a handshake goes in `nss-pk11 serve`, by room, function and line; see `bench/profile --help`.

Samples with py-spy, native frames included, so the server runs as it is.  Touches: a temporary directory, loopback sockets,
and processes it starts itself.  py-spy needs the right to trace: root, or kernel.yama.ptrace_scope=0.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import tokens
from .measure import system_share, user_system
from .sections import CLIENTS, QUICK, Bench, handshake_cost
from .servers import OURS, STDLIB, TLSLITE, Server
from .stacks import Profile, collect

RATE = 1000  # samples a second
CONTENDERS = {contender.name.split(",")[0]: contender for contender in (OURS, TLSLITE, STDLIB)}  # py-spy knows Python only


@click.command(epilog="Example: bench/profile --key rsa --tls 1.2 --seconds 10")
@click.option("--key", type=click.Choice(tokens.SERVED), default="ec", show_default=True, help="The server's key.")
@click.option("--tls", "version", type=click.Choice(["1.3", "1.2"]), default="1.3", show_default=True)
@click.option("--resume", is_flag=True, help="Resumed handshakes instead of full ones.")
@click.option("--bulk", is_flag=True, help="One large download instead of handshakes.")
@click.option("--seconds", type=click.IntRange(1, 60), default=5, show_default=True, help="How long to sample.")
@click.option("--top", type=click.IntRange(1, 200), default=25, show_default=True, help="Functions and lines to list.")
@click.option("--server", type=click.Choice(list(CONTENDERS)), default=OURS.name, show_default=True, help="Whom to profile.")
@click.option("--markdown", is_flag=True, help="The rooms alone, as a table for a page.")
@click.option("--raw", type=click.Path(dir_okay=False, path_type=Path), help="Keep the collapsed stacks (for a flame graph).")
def main(
    key: str, version: str, resume: bool, bulk: bool, seconds: int, top: int, server: str, markdown: bool, raw: Path | None
) -> None:
    """Profiles `nss-pk11 serve` under load: CPU microseconds by room, function and line, per handshake or per MB."""
    with tempfile.TemporaryDirectory(prefix="nss-pk11-profile-") as name:
        directory = Path(name)
        data = directory / "data"
        data.mkdir()
        if bulk:
            with (data / "large").open("wb") as large:
                large.truncate(seconds * 1000 << 20)  # sparse; may be sent before the time is over
        bench = Bench(tokens.create(directory), directory, data, QUICK, lambda text: None)
        options = ("--resume",) if resume else ()
        load = ("download", "/large") if bulk else ("handshakes", version, 1_000_000, seconds + 2, *options)
        with bench.server(CONTENDERS[server], key) as running:
            before = user_system(running.pid)
            cost = _cost(bench, running, load)
            share = system_share(before, user_system(running.pid))
            stacks = raw or directory / "stacks"
            _sample(bench, running, load, seconds, stacks)
        profile = collect(stacks.read_text().splitlines(), share)
    if not profile.samples:
        raise click.ClickException("no samples: did the server do anything?")
    if markdown:
        print(_markdown(profile, cost), end="")
    else:
        _print(profile, cost, top)


def _cost(bench: Bench, server: Server, load: tuple[object, ...]) -> float | None:
    """CPU microseconds per handshake, warm and not yet sampled; for a download None."""
    if load[0] == "download":
        with bench.client(server, *load) as client:
            client.ask()
        return None
    return [handshake_cost(bench, server, str(load[1]), *map(str, load[4:])) for _ in range(4)][-1]


def _sample(bench: Bench, server: Server, load: tuple[object, ...], seconds: int, stacks: Path) -> None:
    """Runs py-spy on the server while the load lasts."""
    beside = Path(sys.executable).with_name("py-spy")
    command = [str(beside if beside.exists() else "py-spy"), "record", "--native", "--full-filenames", "--format", "raw",
               "--rate", str(RATE), "--duration", str(seconds), "--output", str(stacks), "--pid", str(server.pid)]  # fmt: skip
    with ExitStack() as stack:
        clients = [stack.enter_context(bench.client(server, *load)) for _ in range(1 if load[0] == "download" else CLIENTS)]
        for client in clients:
            client.tell()
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        for client in clients:
            client.process.kill()
    if done.returncode:
        raise click.ClickException(done.stderr.strip() or "py-spy failed")


def _markdown(profile: Profile, cost: float | None) -> str:
    """Rooms by their share; what is under a hundredth is one line."""
    rooms = [(room, share) for room, share in profile.rooms.most_common() if share >= 0.01]
    rooms.append(("everything else", 1 - sum(share for _, share in rooms)))
    lines = ["| where | share | µs |", "|---|---:|---:|"]
    lines += [
        f"| {room} | {share:.0%} | {share * cost:.0f} |" if cost else f"| {room} | {share:.0%} | |" for room, share in rooms
    ]
    return "\n".join(lines) + "\n"


def _print(profile: Profile, cost: float | None, top: int) -> None:
    console = Console()
    if cost:
        console.print(f"{cost:.0f} µs of CPU per handshake; {profile.samples} samples")
    for title, counter, count in (
        ("Rooms", profile.rooms, 50),
        ("Functions: own time and native code they call", profile.functions, top),
        ("Lines", profile.lines, top),
        ("Functions of ours: with all they call", profile.inclusive, top),
    ):
        if not counter:
            continue
        table = Table(title=title, title_justify="left", title_style="bold", box=None)
        table.add_column("%", justify="right")
        table.add_column("µs", justify="right")
        table.add_column("", no_wrap=True)
        for place, share in counter.most_common(count):
            table.add_row(f"{share:.1%}", f"{share * cost:.1f}" if cost else "", escape(place))
        console.print(table)


if __name__ == "__main__":
    try:
        main(prog_name="bench/profile")
    except FileNotFoundError as error:
        sys.exit(f"bench/profile: {error.filename} is missing (for py-spy: .venv/bin/pip install py-spy)")
