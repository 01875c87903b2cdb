"""Forked children, each at the other end of a channel from its parent.

A channel is a socket pair that keeps messages apart; each message is JSON.  The parent closes or shuts its end, or dies: the
child should end.  The child closes its end, or dies: the parent sees it.  Fork only while single-threaded, and before a PKCS #11
library is loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable

MESSAGE = 65536  # bytes, the most a message has
_HANDLED = (signal.SIGTERM, signal.SIGINT)


class Child:
    """A child as its parent sees it."""

    def __init__(self, work: Callable[[socket.socket], int], others: Iterable[socket.socket]) -> None:
        """Fork.  `work(channel)` is the child's whole life and returns its exit code; `others`: what it must not inherit."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inherited = [self.channel, *others]
        # A signal meant for the parent's handler must not find it in the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _live(work, theirs, inherited)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def fileno(self) -> int:
        return self.channel.fileno()

    def receive(self) -> object:
        """The next message; None at the end, when `reap` is next."""
        return receive(self.channel)

    def send(self, message: object) -> None:
        """To a child that may have ended."""
        send(self.channel, message)

    def drain(self) -> None:
        """Have it end, and still hear it."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    def reap(self) -> int:
        """Wait for its end; the exit code, or minus the signal that killed it."""
        self.channel.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def send(channel: socket.socket, message: object) -> None:
    with contextlib.suppress(OSError):
        channel.send(json.dumps(message).encode())


def receive(channel: socket.socket) -> object:
    """None at the end."""
    try:
        data = channel.recv(MESSAGE)
        return json.loads(data) if data else None
    except (OSError, ValueError):
        return None


def _live(work: Callable[[socket.socket], int], channel: socket.socket, others: list[socket.socket]) -> None:
    """Never returns: nothing of the parent's (its `finally`, its exit handlers) is the child's to run."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent passes it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        for other in others:
            other.close()
        code = work(channel)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        os._exit(code)
