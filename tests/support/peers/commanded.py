"""Foreign stacks that run in a child process for many handshakes, one after the other, as lines on their input tell them.

A line asked is `key=value` pairs between tabs; a line answered is a JSON object.  A server answers twice: `{"port": N}` when
it listens, and what became of its connections when they are over.  Both children (`openssl_legacy`, `jsse`) hold the same
conversation over each connection, `CONVERSATION` below, so that every test of them sees data go both ways.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from nss_pk11.tls.suites import BY_NAME

from .base import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# What a client says, line by line; a server answers each line with "ECHO " and the line, and closes after the last.  The second
# does not fit into one record.  Who is to start a renegotiation does it between the first and the second.
CONVERSATION = (b"hello\n", b"x" * 20000 + b"\n", b"BYE\n")
SHORT_CONVERSATION = (b"hello\n", b"x" * 2000 + b"\n", b"BYE\n")  # for who encrypts in pure Python


def answers(conversation: Sequence[bytes]) -> tuple[bytes, ...]:
    """What a server says to each line."""
    return tuple(b"ECHO " + line for line in conversation)


@dataclass(frozen=True)
class Connection:
    """What a foreign stack says of one of its connections.

    `ok`: handshake and conversation went well; `suite`: its number; `renegotiated`: how often, and well; `peer`: subject of the
    other's certificate; `step_down`: bits of the short RSA keys it was asked for (servers); `error`: in its own words.
    """

    ok: bool = False
    version: str = ""
    suite: int = 0
    resumed: bool = False
    renegotiated: int = 0
    secure_renegotiation: bool = False
    peer: str = ""
    step_down: tuple[int, ...] = ()
    error: str = ""

    @classmethod
    def read(cls, said: dict[str, Any]) -> Connection:
        suite = said.get("suite", 0)
        code = suite if isinstance(suite, int) else BY_NAME[suite].code
        return cls(**{**said, "suite": code, "step_down": tuple(said.get("step_down", ()))})


@dataclass
class Serving:
    """A foreign server while it waits for its connections; `connections` are known when the `with` is left."""

    port: int
    connections: list[Connection] = field(default_factory=list)


class Commanded:
    """A child process that does one thing after the other, as it is asked."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        self._command = [str(part) for part in command]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment, bufsize=0
        )
        self._unread = b""

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def ask(self, /, **request: object) -> None:
        assert self._child.stdin
        with contextlib.suppress(BrokenPipeError):  # `answer` says why
            self._child.stdin.write("\t".join(f"{name}={value}" for name, value in request.items()).encode() + b"\n")

    def answer(self, timeout: float = 2 * TIMEOUT) -> dict[str, Any]:
        """The next line.  Raises AssertionError where the child has ended, or is ended, silent for `timeout` seconds."""
        assert self._child.stdout
        deadline = time.monotonic() + timeout
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._child.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = self._child.stdout.read(65536) if ready else b""
            if not part:
                self._child.kill()  # or it would answer the next question with what is due to this one
                self._child.wait()
                raise AssertionError(f"{self._command[0]} {'has ended' if ready else 'says nothing'}:\n{self._said_wrong()}")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def _said_wrong(self) -> str:
        return self._unread.decode("utf-8", "replace") + self._errors_said().decode("utf-8", "replace")

    def _errors_said(self) -> bytes:
        self._errors.seek(0)
        return self._errors.read()

    def connect(self, port: int, **request: object) -> list[Connection]:
        """`request`: the child's own words; "count" connections come of it."""
        self.ask(role="client", port=port, **request)
        return [Connection.read(said) for said in self.answer()["connections"]]

    @contextlib.contextmanager
    def serve(self, **request: object) -> Iterator[Serving]:
        """Within, the server waits for "count" connections (1 unless said), one after the other."""
        self.ask(role="server", **request)
        serving = Serving(self.answer()["port"])
        try:
            yield serving
        finally:  # whatever went wrong: what it says is of interest, and the next answer is not this one's
            serving.connections += [Connection.read(said) for said in self.answer()["connections"]]

    def stop(self) -> None:
        """Ends at the end of its input."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
