"""The places a PIN can come from.

None of them shows its PIN in a repr or an error.  Those that read something (file, environment, command) read it anew at every
question and keep nothing.
"""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import ConfigurationError, PinCancelled
from .provider import PinProvider, PinRequest

Argument = TypeVar("Argument")


class Source:
    """A provider made of a function; `name` is what its repr shows."""

    def __init__(self, name: str, ask: Callable[[PinRequest], str | None], *, person: bool = False, static: bool = False) -> None:
        self._name, self._ask = name, ask
        self.person, self.static = person, static

    def __call__(self, request: PinRequest) -> str | None:
        return self._ask(request)

    def __repr__(self) -> str:
        return f"<PIN source {self._name}>"


def callback(
    function: Callable[[PinRequest, bool, Argument | None], str | None], arg: Argument | None = None, *, person: bool = False
) -> PinProvider:
    """A function of yours, `function(slot, retry, arg) -> PIN or None`, as NSS's PK11_SetPasswordFunc takes it.

    `slot` is the `PinRequest`.  Say `person=True` where a human answers: otherwise it is not asked for a token's last try.
    """
    return Source("callback", lambda request: function(request, request.retry, arg), person=person)


def terminal() -> PinProvider:
    """Ask on the controlling terminal, without echo.  An empty line or end of file cancels.

    Raises PinCancelled where there is no terminal.
    """
    return Source("terminal", _ask_terminal, person=True)


def file(path: str | os.PathLike[str]) -> PinProvider:
    """The first line of a file.  Raises ConfigurationError if it cannot be read or holds none."""
    name = os.fspath(path)
    return Source(f"file:{name}", lambda request: _first_line(_read(path), f"PIN file {name}"), static=True)


def password_file(path: str | os.PathLike[str]) -> PinProvider:
    """A password file of NSS's tools: a line `TOKEN:PASSWORD` for each token, or one password, which may be empty, for the first
    token that asks.  Raises ConfigurationError if it cannot be read or says nothing of the token."""
    name, owner = os.fspath(path), list[tuple[str, str, str]]()

    def ask(request: PinRequest) -> str:
        lines = [_decoded(line, f"PIN file {name}") for line in _read(path, lines=True).split(b"\n")]
        mine = [line for line in lines if line.startswith(f"{request.token}:")]
        if mine:
            return mine[0].removeprefix(f"{request.token}:")
        owner.append((request.token, request.serial, request.module))
        if owner[0] != owner[-1]:
            raise ConfigurationError(f'PIN file {name}: it has no line for token "{request.token}"')
        return lines[0]

    return Source(f"@{name}", ask)


def environment(name: str) -> PinProvider:
    """An environment variable, as it is when asked.  Raises ConfigurationError if it is not set."""

    def ask(request: PinRequest) -> str:
        value = os.environ.get(name)
        if value is None:
            raise ConfigurationError(f"environment variable {name}, which is to hold a PIN, is not set")
        return value

    return Source(f"env:{name}", ask, static=True)


def command(line: str) -> PinProvider:
    """The first line that a shell command prints; it finds the token's label in NSS_PK11_TOKEN, its serial in NSS_PK11_SERIAL,
    so that one command may know the PINs of several tokens.

    Raises ConfigurationError if the command fails or prints nothing; what it printed is never shown.
    """

    def ask(request: PinRequest) -> str:
        names = {"NSS_PK11_TOKEN": request.token, "NSS_PK11_SERIAL": request.serial}
        result = subprocess.run(line, shell=True, stdout=subprocess.PIPE, env=os.environ | names, check=False)
        if result.returncode:
            raise ConfigurationError(f"the command that is to print a PIN ended with status {result.returncode}")
        return _first_line(result.stdout, "the command that is to print a PIN")

    return Source("command", ask)


def value(pin: str) -> PinProvider:
    """This very PIN.  For tests, and for `pin-value` in a URI."""
    return Source("value", lambda request: pin, static=True)


_PREFIXES: dict[str, Callable[[str], PinProvider]] = {"env": environment, "file": file, "cmd": command, "pass": value}


def parse(text: str) -> PinProvider:
    """A provider by a command line's words: prompt, env:NAME, file:PATH, cmd:COMMAND, @FILE (of NSS), pass:VALUE.

    Raises ConfigurationError."""
    if text == "prompt":
        return terminal()
    if text.startswith("@") and len(text) > 1:  # as certutil and its kin write it
        return password_file(text[1:])
    prefix, colon, rest = text.partition(":")
    if not colon or prefix not in _PREFIXES:
        # The text itself may be a PIN typed in the wrong place: not shown.
        raise ConfigurationError("a PIN source is one of prompt, env:NAME, file:PATH, cmd:COMMAND, @FILE, pass:VALUE")
    if not rest and prefix != "pass":
        raise ConfigurationError(f"PIN source {prefix}: names nothing")
    return _PREFIXES[prefix](rest)


def _ask_terminal(request: PinRequest) -> str | None:
    # getpass falls back to standard input where there is no terminal, and would take a PIN from piped data.
    try:
        with open("/dev/tty", "r+b", buffering=0) as tty:
            if request.protected:
                tty.write(f"{request.prompt}\n".encode())
                return ""
    except OSError:
        raise PinCancelled(f'there is no terminal to ask for the PIN of token "{request.token}" on') from None
    try:
        return getpass.getpass(f"{request.prompt}: ") or None
    except EOFError:
        return None


def _read(path: str | os.PathLike[str], *, lines: bool = False) -> bytes:
    """The first line, or several."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(1 << 16) if lines else stream.readline(4096)
    except OSError as error:
        raise ConfigurationError(f"PIN file {os.fspath(path)}: {error.strerror}") from None


def _first_line(data: bytes, source: str) -> str:
    text = _decoded(data.split(b"\n", 1)[0], source)
    if not text:
        raise ConfigurationError(f"{source}: empty")
    return text


def _decoded(line: bytes, source: str) -> str:
    try:
        return line.rstrip(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{source}: not UTF-8") from None
