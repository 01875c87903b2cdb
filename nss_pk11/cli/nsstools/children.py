"""`selfserv -M`: a parent that only waits, and children that serve; they have its listening socket and its session cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...nss.prio import PR_Close, PR_FileDesc2NativeHandle, PR_ImportTCPSocket, PR_SetFDInheritable, PRFileDesc
from ...nss.ssl import SSL_ConfigMPServerSIDCache, SSL_InheritMPServerSIDCache, SSL_ShutdownServerSessionIDCache
from .report import say, step

CACHE = "SSL_INHERITANCE"  # the environment's variable in which SSL_ConfigMPServerSIDCache says where the cache is
LISTENER = "SELFSERV_LISTEN_SOCKET"


def is_child() -> bool:
    """Whether this process was started by a parent."""
    return LISTENER in os.environ and CACHE in os.environ


def take_over() -> PRFileDesc:
    """The listening socket and the session cache of the parent.  Raises Fatal."""
    with step("PR_GetInheritedFD"):
        listener = PR_ImportTCPSocket(int(os.environ[LISTENER]))
    with step("PR_SetFDInheritable"):
        PR_SetFDInheritable(listener, False)
    with step("SSL_InheritMPServerSIDCache"):
        SSL_InheritMPServerSIDCache(None)
    return listener


def parent(arguments: list[str], count: int, cache_entries: int, listen: Callable[[], PRFileDesc]) -> int:
    """Start children and wait for all of them; SIGUSR1 ends them, and so does what ends the parent.  Raises Fatal."""
    children: list[subprocess.Popen[bytes]] = []
    with _handled(children):
        listener = listen()
        with step("SSL_ConfigMPServerSIDCache"):
            SSL_ConfigMPServerSIDCache(cache_entries, 0, 0, None)
        with step("PR_SetFDInheritable"):
            PR_SetFDInheritable(listener, True)
        environment = os.environ | {LISTENER: str(PR_FileDesc2NativeHandle(listener))}
        command = [sys.executable, "-m", "nss_pk11", "selfserv", *arguments]
        for _ in range(count):
            children.append(subprocess.Popen(command, env=environment, close_fds=False))
        PR_Close(listener)
        while children:
            status = children[-1].wait()
            say(f"Child {len(children)} exited with exit code {status & 0xFF:x}")
            children.pop()
    SSL_ShutdownServerSessionIDCache()
    return 0


@contextmanager
def _handled(children: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """While children run, SIGUSR1 ends them; SIGTERM and SIGINT end them and then this process."""

    def end(number: int, frame: object) -> None:
        for child in list(children):
            child.terminate()
        if number != signal.SIGUSR1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            say(f"SIG_USER: Parent got sig_user, killing children ({len(children)}).")

    handlers = {number: signal.signal(number, end) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
