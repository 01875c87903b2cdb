"""The command's top: one table of subcommands, each imported only when it runs, so that `--help` stays quick.

May touch click and `output`; neither tokens nor TLS.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from .output import EXIT_CODES_HELP, INTERRUPTED, Failure


class Subcommand(NamedTuple):
    """Where a subcommand lives, and the line that the help shows without importing it."""

    module: str
    attribute: str
    help: str


class LazyGroup(click.Group):
    """A group that knows its subcommands by name and imports them on use."""

    def __init__(self, *args: Any, subcommands: Mapping[str, Subcommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.subcommands = subcommands

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.subcommands:
            return None
        module, attribute, _ = self.subcommands[cmd_name]
        command: click.Command = getattr(import_module(module, __package__), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, subcommand.help) for name, subcommand in self.subcommands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; whatever it raises becomes one line and an exit code, here and nowhere else."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            failure = Failure.of(error)
            if failure is None:
                raise
            raise failure from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED.code) from None


SUBCOMMANDS = {
    "slots": Subcommand(".slots", "slots", "Show modules, slots, tokens, mechanisms, keys and certificates."),
    "token": Subcommand(".token", "token", "Initialise tokens."),
    "key": Subcommand(".key", "key", "Generate, list and delete keys."),
    "cert": Subcommand(".cert", "cert", "Make, request, import, list and delete certificates."),
    "db": Subcommand(".db", "db", "NSS databases: certificates, trust, keys and modules in a directory."),
    "serve": Subcommand(".serve", "serve", "Serve TLS with a key on a token or in a file."),
    "connect": Subcommand(".connect", "connect", "Connect to a TLS server and say what was negotiated."),
    "selfserv": Subcommand(".nsstools.commands", "selfserv", "NSS's test program: an HTTP server."),
    "tstclnt": Subcommand(".nsstools.commands", "tstclnt", "NSS's test program: a client for standard input and output."),
    "strsclnt": Subcommand(".nsstools.commands", "strsclnt", "NSS's test program: many connections, most resumed."),
}

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=LazyGroup, subcommands=SUBCOMMANDS, context_settings=CONTEXT, epilog=EXIT_CODES_HELP)
@click.version_option(package_name="nss-pk11", prog_name="nss-pk11")
def main() -> None:
    """TLS with private keys that never leave their PKCS #11 token.

    \b
    From an empty token to a served page:
      nss-pk11 token init --module /usr/lib/softhsm/libsofthsm2.so --label web
      nss-pk11 key generate --token web --type p256 --label www
      nss-pk11 cert self-signed "pkcs11:token=web;object=www" --name localhost --import
      nss-pk11 serve --listen 127.0.0.1:8443 --identity "pkcs11:token=web;object=www" --www

    Keys and certificates are named by pkcs11: URIs (RFC 7512). PINs come from a SOURCE: prompt, env:NAME,
    file:PATH, cmd:COMMAND, @FILE, or pass:VALUE (tests only: others can read it in the process list).
    """
