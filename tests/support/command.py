"""The `nss-pk11` command as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from .peers.base import HOST, TIMEOUT, Process
from .softhsm import PIN

if TYPE_CHECKING:
    from pathlib import Path

    from .softhsm import SoftHSM


def _command(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "nss_pk11", *arguments]


def _environment(hsm: SoftHSM, more: dict[str, str]) -> dict[str, str]:
    return hsm.environment | {"NSS_PK11_MODULE": hsm.module_path, "PIN": PIN, "PYTHONUNBUFFERED": "1"} | more


class Serve(Process):
    """A running `nss-pk11 serve`; stdout and stderr are one."""

    def __init__(self, hsm: SoftHSM, *arguments: str | Path, environment: dict[str, str] | None = None) -> None:
        super().__init__(_command("serve", "--listen", f"{HOST}:0", *arguments), environment=_environment(hsm, environment or {}))
        try:
            self.port = int(self.wait_for(r"^listening on 127\.0\.0\.1:(\d+)$")[1])
        except BaseException:
            self.stop()
            raise


def run(hsm: SoftHSM, *arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, without input."""
    done = subprocess.run(
        _command(*arguments),
        env=_environment(hsm, environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def connect(hsm: SoftHSM, port: int, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
    """`nss-pk11 connect --json` to a loopback port: its report."""
    done = run(hsm, "connect", f"localhost:{port}", "--json", *arguments)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}{done.stderr}"
    report: dict[str, Any] = json.loads(done.stdout)
    return report
