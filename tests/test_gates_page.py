"""docs/token-gated-suites.md keeps its word: its table is that of the suites, its examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from nss_pk11.slots import SlotManager
from nss_pk11.tls.suites import BY_CODE, FORTEZZA_SUITES

from .support.softhsm import SoftHSM
from .test_docs import ROOT, finish, machine, start

__all__ = ["machine"]  # a fixture

PAGE = (ROOT / "docs/token-gated-suites.md").read_text("utf-8")
WATCHING, WITHHOLDING, MARKED, MID_LIFE = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SAID = re.search(r"^```console\n\$ pytest -v test_suite.py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def run_suite(directory: Path, test: str) -> list[str]:
    """What pytest says of each test, all of which pass."""
    (directory / "test_suite.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-v", "-W", "error", "-p", "no:cacheprovider", "-p", "no:timeout", "test_suite.py"]
    done = subprocess.run(
        [*command, "--rootdir", str(directory), "--strict-markers"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^(test_suite.py::.* PASSED)", done.stdout, re.MULTILINE)


def test_the_table_names_every_mechanism_of_every_suite() -> None:
    table = PAGE.partition("| a suite with | needs |")[2].partition("\n\n")[0]
    assert set(re.findall(r"CKM_\w+", table)) == {name for suite in BY_CODE.values() for name in suite.mechanisms}


def test_the_internal_module_offers_all_but_the_two_of_fortezza() -> None:
    with SlotManager() as manager:
        missing = {name for suite in BY_CODE.values() for name in suite.mechanisms} - manager.mechanisms()
    assert missing == {"CKM_KEA_KEY_DERIVE", "CKM_SKIPJACK_CBC64"}
    assert all(missing & suite.mechanisms for suite in FORTEZZA_SUITES)


def test_a_server_that_watches(machine: SoftHSM) -> None:
    example = WATCHING.replace('pins.value("123456")', "pins.terminal()")
    output = finish(start(machine, example, {}))
    assert "TLS_AES_128_GCM_SHA256\n" in output
    assert "SlotEvent(kind='present'" in output


def test_mechanisms_that_are_withheld(machine: SoftHSM) -> None:
    assert finish(start(machine, WITHHOLDING, {})).splitlines() == re.findall(r"  # (\[.*\]|\d)$", WITHHOLDING, re.MULTILINE)


def test_the_marked_test(tmp_path: Path) -> None:
    assert SAID is not None
    assert run_suite(tmp_path, MARKED) == SAID[1].splitlines()


def test_mid_life(tmp_path: Path) -> None:
    """Whether the token lacks the mechanism at first or not."""
    assert len(run_suite(tmp_path, MID_LIFE)) == 2
