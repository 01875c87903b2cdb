"""`selfserv -M`: a parent that only waits, and children that serve; they have its listening socket and its session cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from ...nss.prio import PR_Close, PR_FileDesc2NativeHandle, PR_ImportTCPSocket, PR_SetFDInheritable, PRFileDesc
from ...nss.ssl import SSL_ConfigMPServerSIDCache, SSL_InheritMPServerSIDCache, SSL_ShutdownServerSessionIDCache
from .report import say, step

CACHE = "SSL_INHERITANCE"  # the environment's variable in which SSL_ConfigMPServerSIDCache says where the cache is
LISTENER = "SELFSERV_LISTEN_SOCKET"
SIGNALLED = 256  # what PR_WaitProcess adds to the number of the signal that ended a process


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
    family = _Family()
    with family:
        listener = listen()
        with step("SSL_ConfigMPServerSIDCache"):
            SSL_ConfigMPServerSIDCache(cache_entries, 0, 0, None)
        with step("PR_SetFDInheritable"):
            PR_SetFDInheritable(listener, True)
        environment = os.environ | {LISTENER: str(PR_FileDesc2NativeHandle(listener))}
        for _ in range(count):
            family.add([sys.executable, "-m", "nss_pk11", "selfserv", *arguments], environment)
        PR_Close(listener)
        family.wait()
    SSL_ShutdownServerSessionIDCache()
    return 0


class _Family:
    """The children.  Inside the `with` SIGUSR1 ends them; SIGTERM and SIGINT end them, and after it this process."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._signal = 0  # that came
        self._handlers: dict[int, Any] = {}

    def add(self, command: list[str], environment: dict[str, str]) -> None:
        self._children.append(subprocess.Popen(command, env=environment, close_fds=False))
        if self._signal:  # it came before the child was known
            self._children[-1].kill()

    def wait(self) -> None:
        """Until all have ended."""
        while self._children:
            status = self._children[-1].wait()
            say(f"Child {len(self._children)} exited with exit code {status if status >= 0 else SIGNALLED - status:x}")
            self._children.pop()

    def _end(self, number: int, frame: object) -> None:
        self._signal = number
        if number == signal.SIGUSR1:
            say(f"SIG_USER: Parent got sig_user, killing children ({len(self._children)}).")
        for child in list(self._children):
            child.kill()  # as PR_KillProcess

    def __enter__(self) -> None:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._end)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._signal not in (0, signal.SIGUSR1):
            signal.signal(self._signal, signal.SIG_DFL)
            os.kill(os.getpid(), self._signal)
