"""Where NSS's programs get passwords of tokens: `-w PASSWORD`, `-W FILE` (selfserv: `-f FILE`), or the terminal."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ...nss.pk11pub import PK11_GetTokenName, PK11SlotInfo


@dataclass
class Passwords:
    """The `wincx` of these programs: what the flags say of passwords."""

    plain: str | None = field(default=None, repr=False)
    file: str | None = None


def module_password(slot: PK11SlotInfo, retry: bool, arg: object) -> str | None:
    """For PK11_SetPasswordFunc, as SECU_GetModulePassword: a flag is tried once, a person as often as the token lets."""
    source = arg if isinstance(arg, Passwords) else Passwords()
    token = PK11_GetTokenName(slot)
    if retry and (source.plain is not None or source.file is not None):
        print("Incorrect password/PIN entered.", file=sys.stderr)
        return None
    if source.plain is not None:
        return source.plain
    if source.file is not None:
        return _from_file(Path(source.file), token)
    if not sys.stdin.isatty():
        print("Password check failed:  No password found.", file=sys.stderr)
        return None
    if retry:
        print("Incorrect password/PIN entered.", file=sys.stderr)
    return getpass.getpass(f'Enter Password or Pin for "{token}":')


def _from_file(path: Path, token: str) -> str | None:
    """The line `TOKEN:PASSWORD`, or else the last line, whoever's it is."""
    try:
        lines = [line for line in path.read_text().splitlines() if line]
    except OSError:
        print(f'No password file "{path}" exists.', file=sys.stderr)
        return None
    if not lines:
        print("password file contains no data", file=sys.stderr)
        return None
    return next((line.removeprefix(f"{token}:") for line in lines if line.startswith(f"{token}:")), lines[-1])
