"""Options that several subcommands share, and the slot manager they open.

May touch `pins` and `slots`, both only on use: `--help` imports neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import NSPRError
from .output import note

if TYPE_CHECKING:
    from ..pins import PinProvider
    from ..slots import PinMemory, SlotManager

Command = TypeVar("Command", bound=Callable[..., Any])

PIN_SOURCES = "prompt, env:NAME, file:PATH, cmd:COMMAND, @FILE, or pass:VALUE (tests only)"


def pin_provider(ctx: click.Context, param: click.Parameter, value: str | None) -> PinProvider | None:
    """The provider that a SOURCE stands for.  The text is never repeated: it may hold a PIN."""
    password_file = ctx.meta.get(_PASSWORD_FILE) if param.name == "pin" else None
    if value is not None and password_file is not None:
        raise click.UsageError("--pin and -f exclude each other")
    if value is None:
        return password_file
    from .. import pins

    if value.startswith("pass:"):
        note("pass: shows the PIN to everyone who can list processes; use it for tests only", style="yellow")
    try:
        return pins.parse(value)
    except NSPRError:
        raise click.BadParameter(f"a PIN comes from {PIN_SOURCES}", ctx, param) from None


def hex_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    """A CKA_ID from hex digits; colons between bytes are fine."""
    try:
        return None if value is None else bytes.fromhex(value.replace(":", ""))
    except ValueError:
        raise click.BadParameter("an id is hex digits, two for each byte", ctx, param) from None


def module_option(command: Command) -> Command:
    return click.option(
        "--module",
        "modules",
        multiple=True,
        metavar="PATH",
        type=click.Path(),
        envvar="NSS_PK11_MODULE",
        help="PKCS #11 library; may be repeated. [default: the URI's module-path, else those registered with p11-kit; "
        "or the variable NSS_PK11_MODULE]",
    )(command)


def pin_option(command: Command) -> Command:
    return click.option(
        "--pin",
        "pin",
        callback=pin_provider,
        metavar="SOURCE",
        help=f"Where the PIN comes from: {PIN_SOURCES}. A URI's own pin-value or pin-source wins.",
    )(command)


_PASSWORD_FILE = "nss_pk11.password_file"


def _keep_password_file(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """For `pin_provider`: both options stand for one."""
    if value is not None:
        from .. import pins

        ctx.meta[_PASSWORD_FILE] = pins.password_file(value.removeprefix("@"))


def database_option(required: bool = False) -> Callable[[Command], Command]:
    """An NSS database directory, and NSS's way to give its password.  Goes with `pin_option`."""

    def decorate(command: Command) -> Command:
        for option in (
            click.option("-f", "password_file", type=click.Path(), metavar="PWFILE", expose_value=False, is_eager=True,
                         callback=_keep_password_file,
                         help="Password file, as NSS tools take it: a password, or lines TOKEN:PASSWORD."),
            click.option("-d", "--database", "database", metavar="DIR", required=required,
                         help="NSS database directory (cert9.db, key4.db, pkcs11.txt)."),
        ):  # fmt: skip
            command = option(command)
        return command

    return decorate


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")(command)


def yes_option(command: Command) -> Command:
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation.")(command)


def token_option(required: bool = False) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        return click.option(
            "--token",
            "token",
            metavar="TOKEN",
            required=required,
            help="The token: its label, or a pkcs11: URI such as pkcs11:token=web;serial=4711.",
        )(command)

    return decorate


@contextmanager
def open_manager(
    modules: tuple[str, ...],
    *uris: str | None,
    pin: PinProvider | None = None,
    memory: PinMemory | None = None,
    database: str | None = None,
    roots: bool = False,
) -> Iterator[SlotManager]:
    """A slot manager with `modules` loaded; with none given those that p11-kit knows, unless the `uris` name their own.

    With a `database` directory, opened read-only, its modules take the place of p11-kit's, as with NSS; `roots`: libnssckbi.so
    too.  Without a PIN source the terminal is asked, if it comes to that.
    """
    from .. import pins
    from ..slots import SlotManager

    with SlotManager(pin or pins.terminal(), memory=memory) as manager:
        for path in modules:
            manager.load(path)
        if database is not None:
            manager.open_database(database, load_roots=roots)
        elif not modules and not all(uri and ("module-path=" in uri or not uri.startswith("pkcs11:")) for uri in uris or (None,)):
            manager.load_registered()
        yield manager
