"""The benchmark's own arithmetic: who is out, what counts as better, where samples go.  What it measures is for `bench/run`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))

from harness import measure, report, stacks  # noqa: E402
from harness.measure import Figure  # noqa: E402
from harness.sections import SECTIONS, Row  # noqa: E402


def test_rounds_alternate_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    figures, failures = measure.interleave(2, {"a": lambda: float(len(order)), "b": lambda: 7.0}, order.append)
    assert order == ["a", "b"] * 3
    assert figures["a"].rounds == (3.0, 5.0)
    assert not failures


def test_a_contender_that_fails_is_out_with_its_reason() -> None:
    def fail() -> float:
        raise RuntimeError("no such server")

    figures, failures = measure.interleave(3, {"good": lambda: 1.0, "bad": fail}, lambda name: None)
    assert list(figures) == ["good"]
    assert failures == {"bad": "no such server"}


@pytest.mark.parametrize(("rate", "ours", "theirs", "best"), [(False, 100.0, 150.0, 90.0), (True, 150.0, 100.0, 160.0)])
def test_a_ratio_above_one_is_in_our_favour(rate: bool, ours: float, theirs: float, best: float) -> None:
    row = Row("row", {"nss-pk11 serve": Figure((ours, best, ours), rate), "peer": Figure((theirs,), rate)}, {"absent": "why"})
    text = report.to_markdown([(SECTIONS[0], [row])])
    assert "1.50×" in text
    assert f"{ours:.0f} [{best:.1f}]" in text or f"{ours:.0f} [{best:.0f}]" in text
    assert "Not measured: absent (row): why" in text


def test_cpu_time_counts_threads_that_have_ended() -> None:
    before = measure.cpu_seconds(os.getpid())
    used = threading.Thread(target=_burn)
    used.start()
    used.join()
    assert measure.cpu_seconds(os.getpid()) - before >= 0.02


def _burn() -> None:
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass


def test_cpu_time_of_a_process_that_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(RuntimeError, match="ended"):
        measure.cpu_seconds(child.pid)


def test_samples_go_to_rooms_and_system_calls_weigh_what_the_kernel_says() -> None:
    loop = "run (/x/nss_pk11/net/server.py:1)"
    profile = stacks.collect(
        [
            f"{loop};epoll_wait (libc.so.6) 500",
            f"{loop};send (libc.so.6) 60",
            f"{loop};accept (/x/nss_pk11/tls/tls13/server.py:7) 30",
            f"{loop};sign (/x/nss_pk11/slots/keys.py:9);C_Sign (/usr/lib/softhsm/libsofthsm2.so);EVP_Sign (libcrypto.so.3) 10",
        ],
        system_share=0.2,
    )
    assert profile.samples == 100
    assert {room: round(share, 3) for room, share in profile.rooms.items()} == {
        "system calls": 0.2,
        "tls/tls13": 0.6,
        "token (SoftHSM)": 0.2,
    }
    assert round(profile.inclusive["net/server.py run"], 3) == 1.0


@pytest.mark.parametrize("script", ["run", "profile"])
def test_help_has_an_example(script: str) -> None:
    said = subprocess.run([BENCH / script, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Example: bench/" in said
