"""Measures nss-pk11 against its peers, in one run, and prints tables; see `bench/run --help`.

Touches: a temporary directory, loopback sockets, and processes it starts itself.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from . import report, tokens
from .network import NETWORK
from .sections import FULL, QUICK, Bench
from .sections import SECTIONS as BY_CPU_TIME

SECTIONS = (*BY_CPU_TIME, NETWORK)


@click.command(epilog="Example: bench/run --quick --only handshakes --only bulk")
@click.option("--quick", is_flag=True, help="Fewer rounds and operations: about two minutes instead of about eight.")
@click.option("--only", type=click.Choice([section.name for section in SECTIONS]), multiple=True, help="Measure this alone.")
@click.option("--json", "form", flag_value="json", help="Everything, each round too, as JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Tables for a README.")
def main(quick: bool, only: tuple[str, ...], form: str | None) -> None:
    """Compares nss-pk11 with openssl s_server, gnutls-serv, tlslite-ng and the standard library: CPU time of the server
    process per signature, handshake and megabyte, and memory per idle connection, with keys generated inside SoftHSM; and
    handshakes a second with a key in a simulated network HSM, which takes 50 ms for a signature."""
    with (
        tempfile.TemporaryDirectory(prefix="nss-pk11-bench-") as name,
        Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(), console=Console(stderr=True),
            transient=True, disable=not sys.stderr.isatty(),
        ) as progress,
    ):  # fmt: skip
        task = progress.add_task("making tokens and keys", total=None)
        directory = Path(name)
        (directory / "data").mkdir()
        bench = Bench(
            tokens.create(directory),
            directory,
            directory / "data",
            QUICK if quick else FULL,
            lambda text: progress.update(task, description=text),
        )
        results = [(section, list(section.rows(bench))) for section in SECTIONS if not only or section.name in only]
    match form:
        case "json":
            print(report.to_json(results))
        case "markdown":
            print(report.to_markdown(results), end="")
        case _:
            report.to_terminal(results, Console())


if __name__ == "__main__":
    try:
        main(prog_name="bench/run")
    except FileNotFoundError as error:
        packages = "softhsm2 opensc gnutls-bin libengine-pkcs11-openssl"
        sys.exit(f"bench/run: {error.filename} is missing; on Debian: apt-get install {packages}")
    except ModuleNotFoundError as error:
        sys.exit(f"bench/run: {error.name} is missing; pip install -e '.[bench,metrics]' -e ./tokens")
