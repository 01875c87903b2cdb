"""The command in a process of its own, on SoftHSM tokens of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.require import require
from tests.support.softhsm import PIN, SO_PIN, SoftHSM

if TYPE_CHECKING:
    from tests.cli.nss_programs import Programs


@dataclass
class Command:
    """Runs `nss-pk11` without a terminal; `PIN` and `SO_PIN` are in its environment."""

    hsm: SoftHSM
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def _environment(self) -> dict[str, str]:
        own = {"NSS_PK11_MODULE": self.hsm.module_path, "PIN": PIN, "SO_PIN": SO_PIN}
        return {**self.hsm.environment, **own, **self.environment}

    def __call__(self, *arguments: str, status: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it; fail unless it ends with `status`."""
        done = subprocess.run(
            [sys.executable, "-m", "nss_pk11", *arguments],
            env=self._environment,
            input="" if stdin is None else stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            start_new_session=True,  # no controlling terminal: a PIN prompt cannot wait for whoever runs the tests
        )
        assert done.returncode == status, f"{arguments} ended with {done.returncode}, not {status}:\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def fails(self, status: int, *arguments: str, stdin: str | None = None) -> str:
        """What it says on stderr when it ends with `status`: the error is its last line, and nothing is on stdout."""
        done = self(*arguments, status=status, stdin=stdin)
        assert done.stdout == ""
        return done.stderr

    def on_terminal(self, *arguments: str, answers: Sequence[tuple[str, str]] = (), status: int = 0) -> str:
        """What a terminal shows: each answer is typed once its question is there."""
        master, slave = os.openpty()
        process = subprocess.Popen(
            [require("setsid"), "--ctty", "--wait", sys.executable, "-m", "nss_pk11", *arguments],
            env={**self._environment, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        shown, answered = "", 0
        try:
            for question, answer in (*answers, ("", "")):
                while not question or question not in shown[answered:]:
                    assert select.select([master], [], [], 60)[0], f"nothing more than {shown!r}"
                    try:
                        shown += os.read(master, 65536).decode()
                    except OSError:  # EIO: the command has ended
                        assert not question, f"{question!r} was not asked: {shown!r}"
                        break
                answered = len(shown)
                if question:
                    os.write(master, f"{answer}\n".encode())
            assert process.wait(60) == status, shown
        finally:
            process.kill()
            process.wait()
            os.close(master)
        return shown


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command on a SoftHSM with no token yet."""
    return Command(SoftHSM(tmp_path / "hsm"))


@pytest.fixture
def web(command: Command) -> Command:
    """The command on a SoftHSM with the token "web"."""
    command("token", "init", "--label", "web", "--so-pin", "env:SO_PIN", "--pin", "env:PIN")
    return command


@pytest.fixture
def key(web: Command) -> Callable[..., str]:
    """Makes a key on "web" with the command; its URI."""

    def make(kind: str = "p256", label: str = "www") -> str:
        arguments = ("--token", "web", "--type", kind, "--label", label, "--pin", "env:PIN")
        return web("key", "generate", *arguments).stdout.strip()

    return make


@pytest.fixture(scope="session")
def nss_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA with its key; of it servers "localhost", "ec", "other.example", and a client; "bad" of a CA nobody trusts."""
    from tests.cli.nss_programs import PASSWORD
    from tests.db.tools import FEW_ITERATIONS, Tools

    tools = Tools(tmp_path_factory.mktemp("programs") / "db", PASSWORD, environment=FEW_ITERATIONS)
    tools.directory.mkdir()
    tools.initialise()
    rsa, usage = ("-k", "rsa", "-g", "2048"), ("--keyUsage", "certSigning,crlSigning")
    tools.issue("ca", *rsa, *usage, trust="CT,C,C")
    tools.issue("stranger", *rsa, *usage, trust=",,")
    tools.issue("localhost", *rsa, "-8", "localhost", issuer="ca", trust=",,")
    tools.issue("other.example", *rsa, "-8", "other.example", issuer="ca", trust=",,")
    tools.issue("ec", "-k", "ec", "-q", "nistp256", "-8", "localhost", issuer="ca", trust=",,")
    tools.issue("client", *rsa, issuer="ca", trust=",,")
    tools.issue("bad", *rsa, "-8", "localhost", issuer="stranger", trust=",,")
    return tools.directory


@pytest.fixture(scope="session")
def theirs(nss_database: Path) -> Programs:
    """NSS's programs."""
    from tests.cli.nss_programs import Programs

    return Programs(nss_database, ours=False)


@pytest.fixture(scope="session")
def ours(nss_database: Path) -> Programs:
    """Ours."""
    from tests.cli.nss_programs import Programs

    return Programs(nss_database, ours=True)
