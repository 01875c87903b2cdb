"""The user's side: start simulated tokens, hold them in the hand, ask how they are.

The tokens live in a process of their own (a thread of the process that uses them would wait for itself), in a directory of
their own: the module, the socket that it calls, the socket of `control`.  Directory and process go with the `Simulator`, and
with the process that started it, however that ends.  Imports nothing of the simulation itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from .description import DescriptionError, load

ENVIRONMENT = "PK11_TOKENS_DIRECTORY"  # the simulator that the shell means
RIGHT_PIN = ""  # of a person at a keypad: whatever the token's PIN is
_PREFIX = "pk11-tokens-"
_CONTROL = "control.sock"
_PATH_LIMIT = 80  # bytes of a directory: sockaddr_un has 108, and a name comes behind it
_STOPPING = 10.0  # seconds until a server that does not end is ended


@dataclass(frozen=True)
class TokenStatus:
    """How a token is.  `tries_left`: None where it never locks; `calls`: by function, since the beginning."""

    name: str
    label: str
    serial: str
    personality: str
    present: bool
    reader: str | None
    sessions: int
    logged_in: bool
    tries_left: int | None
    locked: bool
    pin_attempts: int
    objects: int
    operations_running: int
    operations_waiting: int
    most_running: int
    waiting_for_person: bool
    wrong_signatures: int
    calls: dict[str, int]


class TokenControl:
    """A hand on one token.  Every method raises RuntimeError in words where it cannot be done."""

    def __init__(self, simulator: Simulator, name: str) -> None:
        self.simulator = simulator
        self.name = name

    def __repr__(self) -> str:
        return f"<token {self.name!r}>"

    def _ask(self, command: str, **arguments: Any) -> Any:
        return self.simulator.ask(command, token=self.name, **arguments)

    def remove(self) -> None:
        """Pull it out of its reader: sessions and logins die, a slot event comes."""
        self._ask("remove")

    def insert(self, reader: str | None = None) -> None:
        """Put it into a reader (its name, the beginning of it, or the slot number), else into its last one."""
        self._ask("insert", reader=reader)

    def lock(self) -> None:
        """Lock the user PIN, as too many wrong ones do."""
        self._ask("lock")

    def unlock(self) -> None:
        """Give all tries back."""
        self._ask("unlock")

    def offer(self, *mechanisms: str) -> None:
        """Offer these mechanisms and no other, as after an update of its firmware: hosts ask while it is put in, so take it out
        before.  Of those that it cannot compute it only says that it can."""
        self._ask("offer", mechanisms=mechanisms)

    def mechanisms(self) -> tuple[str, ...]:
        """What it offers."""
        return tuple(self._ask("mechanisms"))

    def slow(self, seconds: float, function: str = "*") -> None:
        """Let a function take so long (beside what it takes anyway).  "*": every operation, and nothing else is slow then."""
        self._ask("slow", seconds=seconds, function=function)

    def fail(self, function: str, result: str, times: int = 1, *, when: str = "before", disconnect: bool = False) -> None:
        """Let the next `times` calls of `function` ("*": any) answer `result`, such as "CKR_DEVICE_ERROR"; 0: until `clear`.

        `when="after"`: the operation is done, its answer lost.  `disconnect`: all sessions and logins die with it.  Asking for
        the length of a result (NULL for the buffer) does not count.
        """
        self._ask("fail", function=function, result=result, times=times, when=when, disconnect=disconnect)

    def fail_randomly(self, rate: float, seed: int = 0, results: Sequence[str] = ()) -> None:
        """Let calls that work in a session fail at `rate` (0 to 1); `results`: with which of these, else with a lost
        device, session or login."""
        self._ask("fail_randomly", rate=rate, seed=seed, results=list(results))

    def wrong_signatures(self, rate: float, seed: int = 0) -> None:
        """Flip a bit in signatures at `rate`, 0 to 1."""
        self._ask("wrong_signatures", rate=rate, seed=seed)

    def clear(self) -> None:
        """Forget the failures to come and the random ones."""
        self._ask("clear")

    def disconnect(self) -> None:
        """Let every session and login with it die now."""
        self._ask("disconnect")

    def person(self, delay: float = 0.0, pin: str | None = RIGHT_PIN, mistakes: int = 0) -> None:
        """Who stands at the keypad from now on: types `pin` after `delay` seconds, `mistakes` times a wrong one before; None:
        cancels."""
        self._ask("person", delay=delay, pin=pin or None, mistakes=mistakes, cancels=pin is None)

    def status(self) -> TokenStatus:
        """How it is."""
        values = self._ask("status")
        return TokenStatus(**{each.name: values[each.name] for each in fields(TokenStatus)})

    def certificate_der(self, label: str) -> bytes:
        """The certificate with this label."""
        return bytes.fromhex(self._ask("certificate", label=label))

    def public_key_der(self, label: str) -> bytes:
        """The public key with this label: SubjectPublicKeyInfo."""
        return bytes.fromhex(self._ask("public_key", label=label))

    def uri(self, key: str | None = None) -> str:
        """RFC 7512 URI of the token, or of its private key with this label; module included, PIN not."""
        status = self.status()
        uri = f"pkcs11:token={quote(status.label)};serial={quote(status.serial)}"
        if key is not None:
            uri += f";object={quote(key)};type=private"
        return f"{uri}?module-path={quote(self.simulator.module)}"


class Simulator:
    """A running simulation, of this process (`start`) or of another (`Simulator(directory)`)."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        modules = sorted(self.directory.glob("*.so"))
        if not modules:
            raise RuntimeError(f"{directory}: no simulated tokens here")
        self.module = str(modules[0])

    def __getitem__(self, name: str) -> TokenControl:
        if name not in self.tokens():
            raise KeyError(name)
        return TokenControl(self, name)

    def tokens(self) -> list[str]:
        """The names of all tokens, those in readers first."""
        names: list[str] = self.ask("tokens")
        return names

    def readers(self) -> list[dict[str, Any]]:
        """The readers: slot, name, and the name of the token in it or None."""
        readers: list[dict[str, Any]] = self.ask("readers")
        return readers

    def swap(self, reader: str, token: str) -> None:
        """Take out what is in the reader and put this token in, without a moment between."""
        self.ask("swap", reader=reader, token=token)

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        """The last calls of all hosts, oldest first: number, time, host, function, slot or session, token, arguments, result, ms.

        `since`: only those with a greater number.
        """
        calls: list[dict[str, Any]] = self.ask("calls", since=since)
        return calls

    def forget_calls(self) -> None:
        """Begin anew with calls and counts."""
        self.ask("forget_calls")

    def write_calls(self, path: str | Path) -> None:
        """Append calls to a file from now on, a JSON line each."""
        self.ask("journal", path=str(Path(path).absolute()))

    def ask(self, command: str, **arguments: Any) -> Any:
        """A request to the server.  Raises RuntimeError with its words."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(str(self.directory / _CONTROL))
                connection.sendall(json.dumps({"command": command} | arguments).encode() + b"\n")
                with connection.makefile("rb") as answers:
                    answer = json.loads(answers.readline() or b"{}")
        except OSError as error:
            raise RuntimeError(f"{self.directory}: no simulator answers ({error.strerror})") from None
        if "result" not in answer:
            raise RuntimeError(answer.get("error", "the simulator ended before it answered"))
        return answer["result"]


class RunningSimulator(Simulator):
    """A simulation that this process started, and ends: a context manager."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log, self._owner = process, log, os.getpid()
        self._killed = self._stopped = False
        self._complaints = ""
        super().__init__(directory)

    def __enter__(self) -> RunningSimulator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.stop()
        except RuntimeError:
            if error is None:
                raise

    @property
    def running(self) -> bool:
        """Whether the server lives."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server had to complain of, also once it has stopped."""
        with contextlib.suppress(FileNotFoundError):
            self._complaints = self._log.read_text("utf-8", "replace")
        return self._complaints

    def wait(self) -> int:
        """Wait until the server ends; its exit status."""
        return self._process.wait()

    def kill(self) -> None:
        """End the server as a power cut does: hosts get CKR_DEVICE_ERROR from all tokens."""
        self._killed = True
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the server and remove the directory.  Raises RuntimeError where it had ended by itself.

        A forked child may leave its `with` block too: the simulation is its parent's.
        """
        if os.getpid() != self._owner or self._stopped:
            return
        self._stopped = True
        died = not self.running and not self._killed
        with contextlib.ExitStack() as stack:
            log = None
            with contextlib.suppress(FileNotFoundError):
                log = stack.enter_context(self._log.open(encoding="utf-8", errors="replace"))
            _end(self._process)  # and it removes the directory, log included
            self._complaints = log.read() if log else self._complaints
        shutil.rmtree(self.directory, ignore_errors=True)
        if died:
            raise RuntimeError(f"the token server ended by itself (status {self._process.returncode}):\n{self._complaints}")


def start(
    description: str | Path | Mapping[str, Any] | Sequence[Any], *, directory: str | Path | None = None, quiet: bool = True
) -> RunningSimulator:
    """Start simulated tokens: a TOML file, a dictionary of the same shape, or a list of tokens (a reader for each).

    `directory`: where module and sockets are to be, else a new one under the temporary directory; it goes at the end.
    `quiet`: what the server complains of is kept in `log` instead of going to standard error.
    Raises DescriptionError; RuntimeError where the server does not start.
    """
    loaded = load(description)
    name = Path(loaded["source"]).stem if isinstance(description, str | Path) else "tokens"
    place = _directory(directory)
    try:
        shutil.copyfile(_shim(), place / f"{name}.so")
        log = place / "complaints.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pk11_tokens.process", str(place), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors if quiet else None,
            )
        try:
            _hand_over(process, loaded)
            return RunningSimulator(place, process, log)
        except BaseException:
            _end(process)
            raise
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def find(directory: str | Path | None = None) -> Simulator:
    """The simulator in `directory`, else in the one that PK11_TOKENS_DIRECTORY names, else the only one that runs.

    Raises RuntimeError where there is none, or several.
    """
    named = directory or os.environ.get(ENVIRONMENT)
    if named:
        return Simulator(named)
    running = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_CONTROL}")):
        with contextlib.suppress(RuntimeError):
            simulator = Simulator(path.parent)
            running.append((simulator, simulator.tokens()))
    if not running:
        raise RuntimeError(f"no simulator runs here; start one, or name its directory by --directory or {ENVIRONMENT}")
    if len(running) > 1:
        which = "".join(f"\n  {simulator.directory}: {', '.join(tokens)}" for simulator, tokens in running)
        raise RuntimeError(f"several simulators run; name one by --directory or {ENVIRONMENT}:{which}")
    return running[0][0]


def _directory(wanted: str | Path | None) -> Path:
    if wanted is None:
        base = tempfile.gettempdir()
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base if len(base) < _PATH_LIMIT - 30 else "/tmp"))
    path = Path(wanted).absolute()
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise RuntimeError(f"{path}: a directory for sockets has at most {_PATH_LIMIT} bytes")
    try:
        path.mkdir(mode=0o700)
    except OSError as error:
        raise RuntimeError(f"{path}: {error.strerror}; it must be a new directory") from None
    return path


def _shim() -> Path:
    shim = Path(str(files(__package__).joinpath("pk11-tokens.so")))
    if not shim.exists():
        raise RuntimeError("the PKCS #11 module is not built; install nss-pk11-tokens anew")
    return shim


def _hand_over(process: subprocess.Popen[bytes], loaded: dict[str, Any]) -> None:
    """Give the server its description by its standard input (there are PINs in it), and wait until it is ready."""
    assert process.stdin
    assert process.stdout
    with process.stdout as answers:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(loaded).encode() + b"\n")
            process.stdin.flush()
        answer = json.loads(answers.readline() or b'{"error": "it ended before it was ready"}')
    if "description" in answer:
        raise DescriptionError(answer["description"])
    if "error" in answer:
        raise RuntimeError(f"the token server does not start: {answer['error']}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The end of its input ends the server."""
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    try:
        process.wait(_STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
