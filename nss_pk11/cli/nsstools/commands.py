"""`nss-pk11 selfserv`, `tstclnt` and `strsclnt`: flags go to the programs as they are, since NSS's letters are not click's."""

from __future__ import annotations

import signal
from collections.abc import Callable
from importlib import import_module

import click

_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": ["--help"], "allow_interspersed_args": False}


def _command(name: str, what: str, example: str) -> click.Command:
    """One of them: its module's `main(arguments)` runs it and gives the exit status, its `USAGE` is the help."""

    def run(arguments: tuple[str, ...]) -> None:
        program: Callable[[list[str]], int] = import_module(f".{name}", __package__).main
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once, as NSS's
        raise click.exceptions.Exit(program(list(arguments)))

    class Program(click.Command):
        def get_help(self, ctx: click.Context) -> str:
            usage: str = import_module(f".{name}", __package__).USAGE
            return f"{what}\n\n{usage}\n\nExample: nss-pk11 {name} {example}"

    arguments = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    return Program(name, callback=run, context_settings=_PASSED_ON, params=[arguments], help=what)


selfserv = _command("selfserv", "NSS's test program: an HTTP server.", "-d sql:db -n www -p 8443 -V tls1.0: -v")
tstclnt = _command(
    "tstclnt", "NSS's test program: a client for standard input and output.", "-h localhost -p 8443 -d sql:db -o -Q"
)
strsclnt = _command(
    "strsclnt", "NSS's test program: many connections, most resumed.", "-q -d sql:db -p 8443 -c 100 -t 4 -o localhost"
)
