"""`nss-pk11 serve --workers`: processes that share a port, are replaced when they die, and try no PIN twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.net import workers

from ..support.softhsm import PIN
from .peers import TIMEOUT
from .test_command import WAIT, Serve

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator, TokenControl

    from ..support.softhsm import SoftHSM

HSM = {
    "label": "hsm",
    "personality": "network HSM",
    "pin": PIN,
    "max_sessions": 0,
    "key": [{"label": "www", "kind": "p256", "self_signed": ["localhost"]}],
}
REPLACED = r"worker \d+ (was killed by SIG[A-Z]+|ended with status \d+); it is replaced"


def workers_of(server: Serve) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(child) for child in children]


def wait_for(condition: Callable[[], Any], server: Serve) -> Any:
    """What `condition` returns, once that is true."""
    deadline = time.monotonic() + WAIT
    while not (found := condition()):
        assert time.monotonic() < deadline, server.log
        time.sleep(0.02)
    return found


def ended(pid: int) -> bool:
    """Whether the process is no more; one that nobody has waited for is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def shake_hands(port: int, context: ssl.SSLContext) -> None:
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), TIMEOUT), server_hostname="localhost") as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert tls.recv(8) == b"HTTP/1.1"


class Load:
    """Clients of Python's own ssl that do one handshake after the other, each a full one."""

    def __init__(self, port: int, context: ssl.SSLContext, threads: int = 6) -> None:
        self.done, self.failures = 0, list[Exception]()
        self._port, self._context, self.threads = port, context, threads
        self._over, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                shake_hands(self._port, self._context)
            except (OSError, AssertionError) as error:
                with self._lock:
                    self.failures.append(error)
            else:
                with self._lock:
                    self.done += 1

    def wait_for_more(self, count: int = 20) -> None:
        enough, deadline = self.done + count, time.monotonic() + WAIT
        while self.done < enough:
            assert time.monotonic() < deadline, self.failures
            time.sleep(0.01)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


class Terminal:
    """The person's end of the terminal that a server is started on."""

    def __init__(self) -> None:
        self._ours, self.servers = os.openpty()
        self.shown = b""

    def wait_for_questions(self, count: int) -> None:
        deadline = time.monotonic() + WAIT
        while self.shown.count(b"PIN of token") < count or self.echoes():
            assert time.monotonic() < deadline, self.shown
            if select.select([self._ours], [], [], 0.02)[0]:
                self.shown += os.read(self._ours, 1000)

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode() + b"\n")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._ours)
        os.close(self.servers)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal() as terminal:
        yield terminal


@pytest.fixture
def hsm(simulated_tokens: Callable[..., RunningSimulator]) -> TokenControl:
    return simulated_tokens([HSM])["hsm"]


@pytest.fixture
def context(hsm: TokenControl) -> ssl.SSLContext:
    """A client's, that trusts the certificate on the token."""
    return ssl.create_default_context(cadata=hsm.certificate_der("www"))


@pytest.fixture
def server(softhsm: SoftHSM, tmp_path: Path, hsm: TokenControl) -> Iterator[Serve]:
    """Two workers with the key on the HSM."""
    with Serve(softhsm, tmp_path, "--identity", hsm.uri("www"), "--pin", "env:PIN", "--workers", "2") as server:
        yield server.ready()


# --- together ------------------------------------------------------------------------------------------------------------


def test_workers_share_the_port_and_the_tickets(server: Serve, context: ssl.SSLContext) -> None:
    session, resumed = None, []
    for _ in range(8):
        sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
        with context.wrap_socket(sock, server_hostname="localhost", session=session) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while tls.recv(65536):
                pass
            resumed.append(tls.session_reused)
            session = tls.session
    assert resumed == [False] + [True] * 7
    server.lines(8)
    assert server.stop() == 0


def test_worker_that_cannot_start_ends_them_all(softhsm: SoftHSM, tmp_path: Path, hsm: TokenControl) -> None:
    uri = hsm.uri("www")
    with Serve(softhsm, tmp_path, "--identity", uri, "--chain", "/nonexistent", "--pin", "env:PIN", "--workers", "2") as server:
        assert server.process.wait(WAIT) == 3
        assert server.log.count("error: ") == 1
        assert server.process.stdout
        assert server.process.stdout.read() == b""


def test_parent_gone(server: Serve) -> None:
    """Workers drain when nobody is there who could tell them."""
    children = workers_of(server)
    server.stop(signal.SIGKILL)
    for worker in children:
        wait_for(lambda pid=worker: ended(pid), server)  # type: ignore[misc]


# --- replaced --------------------------------------------------------------------------------------------------------------


def test_workers_die_under_load(server: Serve, hsm: TokenControl, context: ssl.SSLContext) -> None:
    """No more handshakes fail than were in the worker at that moment; another takes its place, again and again."""
    with Load(server.port, context) as load:
        load.wait_for_more()
        for kills in range(1, 4):
            os.kill(workers_of(server)[0], signal.SIGKILL)
            # which logs in once
            wait_for(lambda kills=kills: hsm.status().pin_attempts == 2 + kills, server)  # type: ignore[misc]
            load.wait_for_more()
        wait_for(lambda: len(workers_of(server)) == 2, server)
        failed = len(load.failures)
        load.wait_for_more(50)
        assert len(load.failures) == failed <= 3 * load.threads
    assert server.stop() == 0
    assert len(re.findall(REPLACED, server.log)) == 3
    assert "Traceback" not in server.log


def test_worker_is_renewed(server: Serve, hsm: TokenControl, context: ssl.SSLContext) -> None:
    """SIGTERM to one: it drains, and another takes its place; nobody notices."""
    before = workers_of(server)
    with Load(server.port, context) as load:
        load.wait_for_more()
        os.kill(before[0], signal.SIGTERM)
        now = wait_for(lambda: len(now := workers_of(server)) == 2 and before[0] not in now and now, server)
        load.wait_for_more()
        assert not load.failures
    assert before[1] in now
    assert server.stop() == 0
    assert f"worker {before[0]} ended with status 0; it is replaced" in server.log


_CRASHES = """
import os, signal, sys
from nss_pk11.net import workers
workers.PAUSES = (0.0, 0.0, 0.05, 0.1)
def say(*words):  # in one write, as all processes share the pipe
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def work(worker):
    worker.ready()
    say("up", worker.number)
    if worker.number == 0 or sys.argv[1] == "all":
        os.kill(os.getpid(), signal.SIGSEGV)
    worker.wait()
    return 0
sys.exit(workers.Supervisor(2, work, None).run(lambda: say("ready")))
"""


def crashing(which: str) -> subprocess.Popen[str]:
    command = (sys.executable, "-c", _CRASHES, which)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_workers_that_die_at_once_again_and_again() -> None:
    with crashing("all") as process:
        output, errors = process.communicate(timeout=WAIT)
    *others, last = errors.splitlines()
    assert process.returncode == 1, errors
    assert re.fullmatch(r"worker \d+ was killed by SIGSEGV, as \d+ did before it, and none serves: given up", last)
    assert all(re.fullmatch(REPLACED + r"( in 0\.\d+ s)?", line) for line in others)
    assert workers.QUICK_DEATHS <= len(others) + 1 <= output.count("up") < 4 * workers.QUICK_DEATHS


def test_others_go_on_when_one_dies_again_and_again() -> None:
    with crashing("first") as process:
        assert process.stdout
        said = ""
        while said.count("up 0\n") < workers.QUICK_DEATHS + 3 or "up 1\n" not in said:
            said += process.stdout.readline() or pytest.fail(said)
        process.terminate()
        _, errors = process.communicate(timeout=WAIT)
    assert process.returncode in (0, 1), errors  # 1: one died while all were ending
    assert said.count("up 1\n") == 1
    assert "given up" not in errors


# --- PINs ------------------------------------------------------------------------------------------------------------------


def test_wrong_pin_costs_one_try(softhsm: SoftHSM, tmp_path: Path, hsm: TokenControl) -> None:
    with Serve(softhsm, tmp_path, "--identity", hsm.uri("www"), "--pin", "pass:0000", "--workers", "4") as server:
        assert server.process.wait(WAIT) == 4
    assert hsm.status().pin_attempts == 1
    assert server.log.count("error: ") == 1


def test_pin_that_has_become_wrong_costs_one_try(
    softhsm: SoftHSM, tmp_path: Path, hsm: TokenControl, context: ssl.SSLContext
) -> None:
    """Both workers lose their login; one finds out that the PIN is wrong, the other and a replacement hear of it."""
    source = tmp_path / "pin"
    source.write_text(PIN)
    arguments = ("--identity", hsm.uri("www"), "--pin", f"file:{source}", "--workers", "2", "--log-format", "json")
    with Serve(softhsm, tmp_path, *arguments) as server:
        server.ready()
        source.write_text("0000")
        hsm.disconnect()

        for worker in workers_of(server):
            os.kill(worker, signal.SIGSTOP)
            with contextlib.suppress(OSError, AssertionError):
                shake_hands(server.port, context)
            os.kill(worker, signal.SIGCONT)

        def have_failed() -> set[int]:
            connections = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
            return {connection["pid"] for connection in connections if "error" in connection}

        wait_for(lambda: have_failed() == set(workers_of(server)), server)
        assert hsm.status().pin_attempts == 3
        os.kill(workers_of(server)[0], signal.SIGKILL)
        wait_for(lambda: "is not replaced, because of a PIN; 1 are left" in server.log, server)
        assert len(workers_of(server)) == 1
        assert hsm.status().pin_attempts == 3
        assert server.stop() == 4


def test_person_is_asked_for_the_pin_once(
    softhsm: SoftHSM, tmp_path: Path, hsm: TokenControl, terminal: Terminal, context: ssl.SSLContext
) -> None:
    """By the parent, for all workers.  For a replacement again, while the others go on."""
    arguments = ("--identity", hsm.uri("www"), "--pin", "prompt", "--workers", "3")
    with Serve(softhsm, tmp_path, *arguments, terminal=terminal.servers) as server:
        terminal.wait_for_questions(1)
        terminal.type(PIN)
        server.ready()
        os.kill(workers_of(server)[0], signal.SIGKILL)
        terminal.wait_for_questions(2)
        for _ in range(5):
            shake_hands(server.port, context)
        os.kill(min(workers_of(server)), signal.SIGKILL)
        terminal.type("0000")
        terminal.wait_for_questions(3)
        assert b"the last PIN was wrong" in terminal.shown
        terminal.type(PIN)
        wait_for(lambda: hsm.status().pin_attempts == 6, server)  # three, one mistake, two
        assert server.stop() == 0
    assert terminal.shown.count(b"PIN of token") == 3
    assert PIN.encode() not in terminal.shown + server.log.encode()


def test_nobody_answers(softhsm: SoftHSM, tmp_path: Path, hsm: TokenControl, terminal: Terminal) -> None:
    """The server ends all the same when it is to, and leaves the terminal as it was."""
    with Serve(
        softhsm, tmp_path, "--identity", hsm.uri("www"), "--pin", "prompt", "--workers", "2", terminal=terminal.servers
    ) as server:
        terminal.wait_for_questions(1)
        server.stop()
    assert terminal.echoes()
    assert hsm.status().pin_attempts == 0


def test_question_does_not_outlive_the_parent(softhsm: SoftHSM, tmp_path: Path, hsm: TokenControl, terminal: Terminal) -> None:
    with Serve(
        softhsm, tmp_path, "--identity", hsm.uri("www"), "--pin", "prompt", "--workers", "2", terminal=terminal.servers
    ) as server:
        terminal.wait_for_questions(1)
        children = workers_of(server)
        assert len(children) == 2  # a worker, and who asks
        server.stop(signal.SIGKILL)
        for child in children:
            wait_for(lambda pid=child: ended(pid), server)  # type: ignore[misc]
