"""Standard input, or a file, as a descriptor that PR_Poll can wait for: a thread reads it, and a pair of sockets passes it on."""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import suppress

from ...nss.prerror import NSPRError
from ...nss.prio import PR_Close, PR_NewTCPSocketPair, PR_Send, PRFileDesc

CHUNK = 4000


def standard_input() -> PRFileDesc:
    """One descriptor for the whole process: what was read is not there again."""
    try:
        return _fed_from(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # there is none
        return _fed_from(os.open(os.devnull, os.O_RDONLY))


def file(path: str) -> PRFileDesc:
    """Raises OSError."""
    number = os.open(path, os.O_RDONLY)
    if stat.S_ISDIR(os.fstat(number).st_mode):
        os.close(number)
        raise IsADirectoryError(path)
    return _fed_from(number)


def _fed_from(number: int) -> PRFileDesc:
    there, here = PR_NewTCPSocketPair()
    if stat.S_ISREG(os.fstat(number).st_mode):  # ready at once, as PR_Poll has it for files
        PR_Send(here, os.read(number, CHUNK))
    # A daemon: nobody can call back who waits for a terminal.
    threading.Thread(target=_pass_on, args=(number, here), name="tstclnt input", daemon=True).start()
    return there


def _pass_on(number: int, fd: PRFileDesc) -> None:
    with suppress(NSPRError, OSError):  # nobody wants any more of it, or there is no more
        while chunk := os.read(number, CHUNK):
            PR_Send(fd, chunk)
    PR_Close(fd)
    if number > 2:
        os.close(number)
