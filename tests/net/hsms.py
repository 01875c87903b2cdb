"""Servers keyed from simulated network HSMs, and load on them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..support import load
from .peers import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pk11_tokens import TokenControl

    from ..support.command import Serve
    from ..support.pki import PKI


TRIES = 10  # of a simulated network HSM


def hsm(pki: PKI, label: str, *, kind: str = "p256", **personality: Any) -> dict[str, Any]:
    """A network HSM that holds the server's key of a kind, the same whatever its label."""
    credential = pki.server(kind)
    key = {"label": "www", "id": "01", "file": str(credential.key_file), "certificate": str(credential.chain_file)}
    return {"label": label, "serial": f"serial-{label}", "pin": f"1234-{label}", "key": [key]} | {
        "personality": "network HSM", "latency": {}, "parallel": 0, "removable": True
    } | personality  # fmt: skip


def identity(token: TokenControl, pki: PKI, kind: str = "p256") -> tuple[str, ...]:
    """Its key and chain as `serve` takes them, PIN included."""
    chain = str(pki.server(kind).chain_file)
    return "--identity", f"{token.uri('www')}&pin-value=1234-{token.name}", "--chain", chain


class Load:
    """Handshakes by another process, `threads` at once."""

    def __init__(self, server: Serve, pki: PKI, handshakes: int, threads: int) -> None:
        command = [sys.executable, load.__file__, str(server.port), str(handshakes), str(threads), str(pki.ca_file)]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def wait(self) -> tuple[int, dict[str, int]]:
        """How many succeeded, and why others did not."""
        output, _ = self._child.communicate(timeout=300)
        said = json.loads(output)
        return said["done"], said["failures"]

    def stop(self) -> None:
        self._child.kill()
        self._child.communicate()


@contextmanager
def loaded(server: Serve, pki: PKI, handshakes: int, threads: int = 8) -> Iterator[Load]:
    """A load that does not outlive the test."""
    handshaking = Load(server, pki, handshakes, threads)
    try:
        yield handshaking
    finally:
        handshaking.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.02)
