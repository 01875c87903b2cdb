"""The sample programs of the page on porting, as processes: with each other, curl, openssl and NSS's tools."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.db.tools import Tools
from tests.support.peers.base import Process, free_port
from tests.support.require import require

from .ends import HOST, TIMEOUT, openssl_server, run

SAMPLES = Path(__file__).parents[2] / "docs/samples"
PAGE = (SAMPLES.parent / "porting-from-nss.md").read_text("utf-8")


@contextmanager
def server(tools: Tools, *arguments: str) -> Iterator[tuple[int, Process]]:
    """The sample server, ended by its own /stop where the test leaves it running."""
    own = ("-n", "server", "-p", "0", "-d", f"sql:{tools.directory}", "-w", tools.password)
    with Process([sys.executable, SAMPLES / "server.py", *own, *arguments]) as process:
        yield int(process.wait_for(r"^listening on port (\d+)")[1]), process


def client(tools: Tools, port: int, *arguments: str | Path, status: int = 0) -> tuple[str, str]:
    """The sample client's output, and what it says beside."""
    own = ("-p", str(port), "-d", f"sql:{tools.directory}", "-w", tools.password, "-a", "127.0.0.1")
    done = subprocess.run(
        [sys.executable, SAMPLES / "client.py", *own, *arguments, HOST],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def curl(port: int, files: Path, *arguments: str | Path) -> str:
    target = ("--resolve", f"{HOST}:{port}:127.0.0.1", "--noproxy", "*", "--cacert", files / "ca.pem")
    return run(require("curl"), "-sS", *target, *arguments[:-1], f"https://{HOST}:{port}/{arguments[-1]}")


def test_server_and_client(material: Tools, files: Path) -> None:
    with server(material, "-r") as (port, process):
        page, said = client(material, port)
        assert "\n\nHello, CN=" in page  # whichever certificate fits
        assert "server: CN=server" in said
        page, _ = client(material, port, "-n", "client")
        assert page.endswith("\n\nHello, CN=client.\n")
        assert curl(port, files, "stop") == "Hello, no certificate.\n"
        assert process.wait() == 0, process.output  # everything was given back: NSS_Shutdown says nothing of SEC_ERROR_BUSY
        assert "client: CN=client" in process.output


def test_the_server_with_others(material: Tools, files: Path) -> None:
    with server(material, "-rr") as (port, process):
        credential = ("--cert", files / "client.pem")
        assert curl(port, files, *credential, "") == "Hello, CN=client.\n"
        for version in ("1.2", "1.3"):
            assert curl(port, files, *credential, f"--tlsv{version}", "--tls-max", version, "") == "Hello, CN=client.\n"
        request, password = material.file("request", "GET / HTTP/1.0\r\n\r\n"), material.file("pw", f"{material.password}\n")
        said = run(
            require("tstclnt"), "-d", f"sql:{material.directory}", "-h", "127.0.0.1", "-p", str(port), "-a", HOST,
            "-A", request, "-n", "client", "-W", password,
        )  # fmt: skip
        assert "Hello, CN=client." in said
        run(require("curl"), "-sk", "--noproxy", "*", f"https://127.0.0.1:{port}/", status=None)  # without a certificate
        process.wait_for("SSL_ERROR_NO_CERTIFICATE")
        assert curl(port, files, *credential, "stop") == "Hello, CN=client.\n"
        assert process.wait() == 0, process.output


def test_the_client_with_openssl(material: Tools, files: Path) -> None:
    with openssl_server(files, "-www") as port:
        page, said = client(material, port)
        assert page.startswith("HTTP/1.0 200 ok")
        assert "server: CN=server" in said


def test_the_client_with_selfserv(material: Tools) -> None:
    port, password = free_port(), material.file("pw", f"{material.password}\n")
    command = [
        require("selfserv"), "-d", f"sql:{material.directory}", "-n", "server", "-p", str(port), "-f", password, "-v", "-r",
    ]  # fmt: skip
    with Process(command) as process:
        process.wait_for("About to call accept")
        page, _ = client(material, port, "-n", "client")
        assert page.startswith("HTTP/1.0 200 OK")
        process.wait_for("CN=client")


@pytest.mark.parametrize(("name", "why"), [("unknown", "SEC_ERROR_UNKNOWN_ISSUER")])
def test_the_client_refuses(material: Tools, files: Path, name: str, why: str) -> None:
    with openssl_server(files, "-www", name=name) as port:
        _, said = client(material, port, status=1)
        assert "refused: " in said
        assert why in said


def test_the_page_shows_them() -> None:
    assert "samples/server.py" in PAGE
    assert "samples/client.py" in PAGE
