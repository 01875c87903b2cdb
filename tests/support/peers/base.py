"""What every foreign peer shares: what is asked of it, what it says it got, and how its processes are run and ended.

A peer's process has a time limit, is ended by its own process id, and writes to a file, so that it never blocks on a full
pipe.  Ports: a peer that can bind port 0 and report does; the others get a free one below the ephemeral range (above it
an outgoing connection of some other test may hold the port).
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
    from nss_pk11.tls.suites import Suite

    from ..pki import Credential

HOST = "127.0.0.1"
TIMEOUT = 30.0  # seconds: a handshake takes milliseconds; this bounds what hangs, on a machine that is busy, too
PORTS = range(18000, 32000)  # below those that the kernel gives away
REQUEST = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True)
class Want:
    """What a peer is to be limited to; None leaves its own default.

    `ca`: PEM file to verify the other side by (None: take any certificate); `credential`: own certificate and key;
    `client_auth` (servers): "none", "request" or "require"; `all_suites`: enable also what the tool leaves out by default;
    `extra`: further arguments, the tool's own.
    """

    version: Version | None = None
    suite: Suite | None = None
    group: Group | None = None
    scheme: SignatureScheme | None = None
    alpn: tuple[str, ...] = ()
    server_name: str = "localhost"
    ca: Path | None = None
    credential: Credential | None = None
    client_auth: str = "none"
    resume: bool = False
    all_suites: bool = False
    request: bytes = REQUEST
    extra: tuple[str, ...] = ()


@dataclass
class Result:
    """What a foreign client says of its connection.  Empty where the tool does not say.

    `ok`: handshake done, certificate accepted and the answer read; `suite`: IANA name; `alert`: the alert the tool got,
    in its own words; `output`: everything it said.
    """

    ok: bool
    version: str = ""
    suite: str = ""
    group: str = ""
    scheme: str = ""
    resumed: bool = False
    alpn: str = ""
    subject: str = ""
    alert: str = ""
    answer: bytes = field(default=b"", repr=False)
    output: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self!r}\n{self.output}"


def free_port() -> int:
    """A port that nobody listens on now, below the ephemeral range.  Workers of pytest-xdist have ports of their own: what one
    has found free no other takes before it is used."""
    worker, workers = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for _ in range(100):
        port = random.choice(PORTS[worker::workers])
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
    raise AssertionError("no free port")


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


class Process:
    """A child whose output goes to a file; ended by `stop`, or by leaving the `with`."""

    def __init__(
        self, command: Sequence[str | Path], *, environment: dict[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.command = [str(part) for part in command]
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop
        self._child = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=self._output, stderr=subprocess.STDOUT, env=environment, cwd=cwd
        )

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.raw_output.decode("utf-8", "replace")

    @property
    def raw_output(self) -> bytes:
        return os.pread(self._output.fileno(), 1 << 24, 0)

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    @property
    def pid(self) -> int:
        return self._child.pid

    def write(self, data: bytes) -> None:
        """To its standard input; one that has already ended takes nothing."""
        assert self._child.stdin
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(data)
            self._child.stdin.flush()

    def close_input(self) -> None:
        assert self._child.stdin
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()

    def signal(self, number: int) -> None:
        self._child.send_signal(number)

    def kill(self) -> None:
        """At once, without a goodbye."""
        self._child.kill()
        self._child.wait()

    def wait(self, timeout: float = TIMEOUT) -> int | None:
        """Its exit status, or None where it still runs after `timeout` seconds."""
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def wait_for(self, pattern: str, timeout: float = TIMEOUT) -> re.Match[str]:
        """Until its output matches; raises AssertionError with the output where it ends first or takes too long."""
        compiled, deadline = re.compile(pattern, re.MULTILINE), time.monotonic() + timeout
        while True:
            ended = not self.running
            if match := compiled.search(self.output):
                return match
            assert not ended, f"{self.command[0]} ended with {self._child.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"{self.command[0]} did not say {pattern!r}:\n{self.output}"
            time.sleep(0.01)

    def stop(self) -> str:
        """End it and return everything it said."""
        if self.running:
            self._child.terminate()
            if self.wait(3) is None:
                self._child.kill()
                self._child.wait()
        self.close_input()
        said = self.output if not self._output.closed else ""
        self._output.close()
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


class ForeignServer:
    """A foreign server on a loopback port.  Subclasses give the command and, if the tool reports its port, the pattern."""

    working_directory: ClassVar[Path | None] = None
    reports: ClassVar[str] = ""  # regular expression whose first group is the port

    def __init__(self, want: Want) -> None:
        self.want = want
        self.port = 0
        self.process = self._start()

    def command(self, port: int) -> list[str | Path]:
        raise NotImplementedError

    def environment(self) -> dict[str, str] | None:
        return None

    def _start(self) -> Process:
        if self.reports:
            process = Process(self.command(0), environment=self.environment(), cwd=self.working_directory)
            try:
                self.port = int(process.wait_for(self.reports)[1])
            except BaseException:
                process.stop()
                raise
            return process
        for _ in range(5):  # someone may have taken the port in between
            port = free_port()
            process = Process(self.command(port), environment=self.environment(), cwd=self.working_directory)
            if _wait_until_accepting(process, port):
                self.port = port
                return process
            said = process.stop()
        raise AssertionError(f"{self.command(0)[0]} does not come up:\n{said}")

    @property
    def output(self) -> str:
        return self.process.output

    def stop(self) -> None:
        self.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _wait_until_accepting(process: Process, port: int) -> bool:
    deadline = time.monotonic() + TIMEOUT
    while process.running and time.monotonic() < deadline:
        if accepts(port):
            return process.running
        time.sleep(0.02)
    return False


def run_client(
    command: Sequence[str | Path], request: bytes, *, environment: dict[str, str] | None = None
) -> tuple[int | None, str]:
    """Run a client tool until the server has closed: exit status (None: it hung) and output.  Its input stays open
    meanwhile, because most tools take the end of input for the end of the connection and never show the answer."""
    with Process(command, environment=environment) as process:
        process.write(request)
        status = process.wait()
        return status, process.output


def first(pattern: str, text: str) -> str:
    """The first group of the first match, or ""."""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1].strip() if match else ""
