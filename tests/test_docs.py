"""The documentation keeps its word: every option is described, every exit code listed, every Python example runs."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from nss_pk11 import KeyExecutor, ServerConfig, SlotManager, load_identity
from nss_pk11.cli import main
from nss_pk11.cli.output import EXIT_CODES
from nss_pk11.tls.waits import Sign

from .support.softhsm import PIN, SoftHSM

ROOT = Path(__file__).parent.parent
CLI_PAGE = (ROOT / "docs/cli.md").read_text("utf-8")
PYTHON_PAGE = (ROOT / "docs/python.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PYTHON_PAGE, re.DOTALL | re.MULTILINE)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def options() -> Iterator[tuple[str, str]]:
    """Every option of every command: the command's name and the option's."""
    for name, command in commands(main):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield from ((name, option) for option in (*parameter.opts, *parameter.secondary_opts))


def test_every_option_is_described() -> None:
    described = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", CLI_PAGE))
    assert [f"{name} {option}" for name, option in options() if option not in described] == []


def test_no_option_is_described_that_does_not_exist() -> None:
    described = set(re.findall(r"`(--[a-z][\w-]*)", CLI_PAGE))
    assert described - {option for _, option in options()} == {"--help"}


def test_every_exit_code_is_listed() -> None:
    assert re.findall(r"^\| (\d+) \| (.*) \|$", CLI_PAGE, re.MULTILINE) == [(str(code), meaning) for code, meaning in EXIT_CODES]


def test_the_readme_shows_the_first_python_example() -> None:
    assert f"```python\n{EXAMPLES[0]}```" in (ROOT / "README.md").read_text("utf-8")


def test_python_examples_fit_the_types(tmp_path: Path) -> None:
    files = []
    for i, example in enumerate(EXAMPLES):
        files.append(tmp_path / f"example{i}.py")
        files[-1].write_text(example)
    command = [sys.executable, "-m", "mypy", "--config-file", "", "--ignore-missing-imports", "--follow-imports", "silent"]
    result = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


# --- the examples, run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> SoftHSM:
    """A machine as the pages have it: tokens `web` with key `www` and `card` with key `me`, certificates beside them."""
    hsm = SoftHSM(tmp_path_factory.mktemp("docs"))
    for token, label in (("web", "www"), ("card", "me")):
        key = hsm.create_token(token).generate_key("p256", label)
        cli = (sys.executable, "-m", "nss_pk11", "cert", "self-signed", key.uri_with_pin, "--name", "localhost")
        hsm.run(*cli, "--import", "--out", str(hsm.directory / f"{label}.pem"))
    (hsm.directory / "pin").write_text(PIN)
    return hsm


def start(machine: SoftHSM, example: str, instead: dict[str, str], *, descriptors: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    """Runs an example; `instead` maps what only the page's reader has to what there is here."""
    instead = instead | {
        "/usr/lib/softhsm/libsofthsm2.so": machine.module_path,
        "/run/secrets": str(machine.directory),
        "pins.terminal()": f'pins.value("{PIN}")',
    }
    for old, new in instead.items():
        example = example.replace(old, new)
    command = [sys.executable, "-W", "error", "-c", example]
    environment = machine.environment | {"PIN": PIN}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, cwd=machine.directory, pass_fds=descriptors, stdout=pipe, stderr=pipe, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors == ""
    return output


def test_the_server_and_the_client_talk(machine: SoftHSM) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        inherited = {'socket.create_server(("127.0.0.1", 8443))': f"socket.socket(fileno={fd})"}
        server = start(machine, EXAMPLES[0], inherited, descriptors=(fd,))
        client = start(machine, EXAMPLES[1], {"8443": str(port)})
        try:
            assert finish(client) == "you said hello\n"
            assert "'version': 'TLSv1.3'" in finish(server)
        finally:
            for process in (client, server):
                process.kill()
                process.communicate()


def test_tokens_and_keys(machine: SoftHSM) -> None:
    output = finish(start(machine, EXAMPLES[2], {}))
    assert "web" in output
    assert "sensitive" in output


def test_tokens_that_come_and_go(softhsm: SoftHSM) -> None:
    softhsm.create_token("watched")
    said: list[tuple[object, ...]] = []
    told = threading.Event()

    def hear(*words: object) -> None:
        said.append(words)
        if "watched" in words:
            told.set()

    example = EXAMPLES[3].replace("/usr/lib/softhsm/libsofthsm2.so", softhsm.module_path)
    exec(example, {"print": hear, "input": lambda prompt: told.wait(10)})
    assert ("present", "watched") in [words[:2] for words in said]


class PythonsOwnClient:
    """The transport of the engine's example: at its other end is Python's `ssl`, which sends `hello`, then hangs up."""

    def __init__(self, ca: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=ca)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.answer = b""
        self.steps: list[Callable[[], object]] = [
            self.tls.do_handshake,
            lambda: self.tls.write(b"hello"),
            self.hear,
            self.tls.unwrap,
        ]

    def hear(self) -> None:
        self.answer = self.tls.read()

    def read(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            while self.steps:
                self.steps[0]()
                del self.steps[0]
        return self.outgoing.read()

    def write(self, data: bytes) -> None:
        self.incoming.write(data)


def test_the_engine_alone(machine: SoftHSM) -> None:
    names: dict[str, Any] = {}
    exec(EXAMPLES[4], names)
    pem = machine.directory / "key.pem"
    machine.run(sys.executable, "-m", "nss_pk11", "key", "generate", "--out", str(pem))
    certificate = machine.directory / "cert.pem"
    cli = (sys.executable, "-m", "nss_pk11", "cert", "self-signed", str(pem), "--name", "localhost", "--out", str(certificate))
    machine.run(*cli)
    transport, executor = PythonsOwnClient(str(certificate)), KeyExecutor()
    with SlotManager() as manager:
        config = ServerConfig(identities=(load_identity(manager, str(pem), chain=str(certificate)),))
        names["serve"](transport, config, lambda *question: executor.run(Sign(*question)))
    assert transport.answer == b"hello"


def test_an_old_peer(machine: SoftHSM) -> None:
    """The example's other end is our own server that was told to be old."""
    uri = f"pkcs11:token=web;object=www?module-path={machine.module_path}&pin-value={PIN}"
    old = ("--min", "tls1.0", "--max", "tls1.0", "--renegotiation", "secure", "--echo")
    command = [sys.executable, "-m", "nss_pk11", "serve", "--listen", "127.0.0.1:0", "--identity", uri, *old]
    with subprocess.Popen(
        command, env=machine.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().rpartition(":")[2].strip()
            assert finish(start(machine, EXAMPLES[5], {"8443": port})) == "769\n"
        finally:
            server.terminate()


def test_the_readme_links_to_files_that_exist() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text("utf-8")):
            assert (ROOT / target).exists(), f"{page} links to {target}"
