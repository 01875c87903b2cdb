"""What the command says: text that is coloured on a terminal and plain in a pipe, JSON, notes, and errors.

Results go to stdout, everything said about them to stderr.  The only place that turns an error into a line and an exit
code.  Touches neither tokens nor TLS.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable
from typing import IO, Any, NamedTuple

import click

from ..errors import CertificateError, ConfigurationError, DatabaseError, NSPRError, TLSError, TokenError


class Exit(NamedTuple):
    code: int
    meaning: str


SUCCESS = Exit(0, "success")
CANCELLED = Exit(1, "cancelled, or a bug (with a traceback)")
USAGE = Exit(2, "wrong usage: unknown option, missing value")
CONFIGURATION = Exit(3, "configuration: a file, value or combination that cannot be")
TOKEN = Exit(4, "module, token, key or PIN")
CERTIFICATE = Exit(5, "a certificate was not accepted")
TLS = Exit(6, "TLS: the peer, or the protocol")
NETWORK = Exit(7, "network: cannot listen, connect, resolve or go on")

INTERRUPTED = Exit(130, "interrupted (Ctrl-C)")  # 128 + SIGINT, as shells count

EXIT_CODES = (SUCCESS, CANCELLED, USAGE, CONFIGURATION, TOKEN, CERTIFICATE, TLS, NETWORK, INTERRUPTED)
EXIT_CODES_HELP = "\b\nExit codes:\n" + "\n".join(f"  {code:<3}  {meaning}" for code, meaning in EXIT_CODES)

# First match wins.  `OSError` is left to `_exit_for`: a file's is configuration, a socket's is network.
_EXITS: tuple[tuple[type[NSPRError], Exit], ...] = (
    (ConfigurationError, CONFIGURATION),
    (DatabaseError, CONFIGURATION),
    (TokenError, TOKEN),
    (CertificateError, CERTIFICATE),
    (TLSError, TLS),
    (NSPRError, CANCELLED),
)


def _exit_for(error: Exception) -> Exit | None:
    if isinstance(error, OSError):
        return CONFIGURATION if error.filename is not None else NETWORK
    return next((code for kind, code in _EXITS if isinstance(error, kind)), None)


def describe_error(error: Exception) -> str:
    """One line about `error`, in plain words and, for the package's errors, with the NSS name and number."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


class Failure(click.ClickException):
    """An error as the command's user meets it: one line on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click's own subclasses do so

    @classmethod
    def of(cls, error: Exception) -> Failure | None:
        """`error` as a failure, or None where it is click's own, a bug, or a reader that closed the pipe."""
        if isinstance(error, BrokenPipeError):  # stdout's; click ends quietly.  A socket's comes as a package error
            return None
        found = _exit_for(error)
        return None if found is None else cls(describe_error(error), found.code)

    def show(self, file: IO[Any] | None = None) -> None:
        note(f"error: {self.message}", style="red")


def note(text: str, *, style: str | None = None) -> None:
    """A line about what happens, on stderr: never part of the result."""
    click.echo(click.style("nss-pk11: ", bold=True) + click.style(text, fg=style), err=True)


def emit_json(value: object) -> None:
    """`value` as JSON on stdout; bytes as hex."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=lambda data: data.hex()))


# --- text ------------------------------------------------------------------------------------------------------------

_LABEL_WIDTH = 14


class Text:
    """Labelled lines, indented by level: coloured on a terminal and as wide as it, plain and unwrapped in a pipe."""

    def __init__(self) -> None:
        from rich.console import Console  # a tenth of a second that `--help` need not wait for

        self.console = Console(highlight=False, markup=False, emoji=False)

    def blank(self) -> None:
        self.console.print()

    def heading(self, label: str, title: str, *about: str, level: int = 0) -> None:
        """A line with a title, and after it what is said about the titled thing."""
        self._print(label, [(title, "bold cyan"), *((f" · {text}", "") for text in about if text)], level)

    def line(self, label: str, text: str, style: str = "", level: int = 1) -> None:
        """One line, never broken: URIs and paths can be copied whole."""
        self._print(label, [(text, style)], level)

    def words(self, label: str, words: Iterable[str], level: int = 1) -> None:
        """Many words: wrapped on a terminal, one line in a pipe."""
        indent = 2 * level + _LABEL_WIDTH
        width = max(self.console.width - indent, 20) if self.console.is_terminal else sys.maxsize
        for i, line in enumerate(textwrap.wrap(" ".join(words), width, break_long_words=False, break_on_hyphens=False)):
            self._print(label if i == 0 else "", [(line, "")], level)

    def _print(self, label: str, parts: Iterable[tuple[str, str]], level: int) -> None:
        from rich.text import Text as Rich

        text = Rich("  " * level).append(label.ljust(_LABEL_WIDTH), "dim" if label else "")
        for part, style in parts:
            text.append(part, style)
        text.rstrip()
        self.console.print(text, soft_wrap=True)


def confirm(question: str, *, yes: bool) -> None:
    """Return if the user agrees; raise `Failure` if not, a usage error where nobody can be asked."""
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin is not None and sys.stdin.isatty():
            raise
        raise click.UsageError("this needs a confirmation and there is nobody to ask: give --yes") from None
    if not agreed:
        raise Failure("not confirmed, nothing done", CANCELLED.code)
