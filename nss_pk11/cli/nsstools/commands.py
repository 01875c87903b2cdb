"""`nss-pk11 selfserv`, `tstclnt` and `strsclnt`: flags go to the programs as they are, since NSS's letters are not click's."""

from __future__ import annotations

import signal
from collections.abc import Callable
from importlib import import_module

import click

_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": ["--help"], "allow_interspersed_args": False}


def _command(name: str, what: str) -> click.Command:
    """One of them: its module's `main(arguments)` runs it and gives the exit status, its `USAGE` is the help."""

    def run(arguments: tuple[str, ...]) -> None:
        program: Callable[[list[str]], int] = import_module(f".{name}", __package__).main
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once, as NSS's
        raise click.exceptions.Exit(program(list(arguments)))

    class Program(click.Command):
        def get_help(self, ctx: click.Context) -> str:
            return f"{what}\n\n{import_module(f'.{name}', __package__).USAGE}"

    return Program(
        name, callback=run, context_settings=_PASSED_ON, params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)]
    )


selfserv = _command("selfserv", "A TLS server for tests, with the flags, lines and exit status of NSS's program.")
tstclnt = _command("tstclnt", "A TLS client for tests, with the flags, lines and exit status of NSS's program.")
strsclnt = _command("strsclnt", "Many connections to one server, with the flags, lines and exit status of NSS's program.")
