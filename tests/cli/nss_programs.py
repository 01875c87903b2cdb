"""selfserv, tstclnt and strsclnt, NSS's own and ours, on one database; a server of either in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.peers.base import TIMEOUT, Process, accepts, free_port
from tests.support.require import require

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
STOP = b"GET /stop HTTP/1.0\r\n\r\n"
PASSWORD = "secret of the database"
ANSWER = (
    b"HTTP/1.0 200 OK\r\nServer: Generic Web Server\r\nDate: Tue, 26 Aug 1997 22:10:05 GMT\r\nContent-type: text/plain\r\n\r\n"
)


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    status: int
    out: bytes
    err: str

    @property
    def error(self) -> str:
        """The last name of an error that it said."""
        return (re.findall(r"\b(?:PR|SEC|SSL)_\w*ERROR\w*", self.err) or [""])[-1]


class Programs:
    """`ours`: whether they are ours; `directory`: of the database."""

    def __init__(self, directory: Path, *, ours: bool) -> None:
        self.directory, self.ours = directory, ours
        self.request = directory.parent / "request"
        self.request.write_bytes(REQUEST)

    def command(self, name: str) -> list[str]:
        return [sys.executable, "-m", "nss_pk11", name] if self.ours else [require(name)]

    def run(self, name: str, *arguments: str | Path, stdin: bytes = b"", status: int | None = None) -> Done:
        """To its end; fails unless that is with `status`."""
        done = subprocess.run(
            [*self.command(name), *map(str, arguments)], input=stdin, capture_output=True, timeout=60, check=False
        )
        result = Done(done.returncode, done.stdout, done.stderr.decode())
        assert "Traceback" not in result.err, result.err
        assert status is None or result.status == status, f"{arguments}: {result.status}\n{result.err}"
        return result

    def tstclnt(self, port: int, *arguments: str | Path, status: int | None = 0, database: bool = True) -> Done:
        """One request, of a file as scripts do it."""
        given = [str(argument) for argument in arguments]
        own = ["-h", "localhost"] if "-h" not in given else []
        own += ["-d", f"sql:{self.directory}", "-w", PASSWORD] if database else []
        own += ["-A", str(self.request)] if "-A" not in given else []
        return self.run("tstclnt", "-p", str(port), *own, *given, status=status)

    def strsclnt(self, port: int, *arguments: str, host: str = "localhost", status: int | None = 0) -> Done:
        own = ("-p", str(port), "-d", f"sql:{self.directory}", "-w", PASSWORD, "-q")
        return self.run("strsclnt", *own, *arguments, host, status=status)

    @contextmanager
    def selfserv(self, *arguments: str | Path, nickname: str = "localhost") -> Iterator[Server]:
        """Running; ended by SIGUSR1 afterwards, if it still runs."""
        for _ in range(5):  # someone may have taken the port in between
            port = free_port()
            own = ["-p", str(port), "-d", f"sql:{self.directory}", "-w", PASSWORD, "-n", nickname]
            process = Process([*self.command("selfserv"), *own, *map(str, arguments)])
            deadline = time.monotonic() + TIMEOUT
            while process.running and not accepts(port):
                assert time.monotonic() < deadline, process.output
                time.sleep(0.02)
            if process.running:
                break
            assert "-5982" in process.output, process.output  # PR_ADDRESS_IN_USE_ERROR
            process.stop()
        with process:
            yield Server(process, port)
            if process.running:
                process.signal(signal.SIGUSR1)
                assert process.wait() is not None
            assert "Traceback" not in process.output, process.output


@dataclass(frozen=True)
class Server:
    """A selfserv that listens."""

    process: Process
    port: int

    def end(self) -> tuple[int | None, str]:
        """By SIGUSR1: its exit status, and all that it has said."""
        if self.process.running:
            os.kill(self.process.pid, signal.SIGUSR1)
        return self.process.wait(), self.process.output
