"""A hundred thousand operations, and lost links among them, leave nothing behind: on either side of the C ABI."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from pk11_tokens import RunningSimulator, TokenControl

from nss_pk11 import pins
from nss_pk11.slots import Algorithm, PrivateKey, SlotManager

OPERATIONS = 100_000
THREADS = 4
WARM_UP = 4_000  # operations until pools, allocators and caches have their size
PAGE = 4096


class Held(NamedTuple):
    """What host and token server hold: memory in KiB, file descriptors, threads of the host; and what the token counts."""

    host_memory: int
    server_memory: int
    descriptors: int
    server_descriptors: int
    threads: int
    sessions: int
    objects: int


def resident(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE // 1024


def descriptors(pid: int | str) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def held(simulator: RunningSimulator, token: TokenControl) -> Held:
    status = token.status()
    return Held(
        resident("self"),
        resident(simulator.pid),
        descriptors("self"),
        descriptors(simulator.pid),
        threading.active_count(),
        status.sessions,
        status.objects,
    )


def sign(key: PrivateKey, count: int, lose: Callable[[], None]) -> None:
    """In all threads together; the link is lost now and then."""

    def work(thread: int) -> None:
        for number in range(count // THREADS):
            if thread == 0 and number % 2_500 == 2_499:
                lose()
            key.sign(Algorithm.ecdsa_sha256, b"m")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_leaks(simulated_tokens: Callable[..., RunningSimulator]) -> None:
    simulator = simulated_tokens(
        [{"label": "hsm", "pin": "123456", "max_sessions": 8, "key": [{"label": "www", "kind": "p256"}]}]
    )
    token = simulator["hsm"]
    with SlotManager() as manager:
        key = manager.find_key(token.uri("www"), pins.value("123456"))
        sign(key, WARM_UP, token.disconnect)
        before = held(simulator, token)
        sign(key, OPERATIONS, token.disconnect)
        after = held(simulator, token)
    assert after.sessions <= 8
    assert after.objects == before.objects
    assert after.threads == before.threads
    assert after.descriptors <= before.descriptors + THREADS
    assert after.server_descriptors <= before.server_descriptors + 2 * THREADS
    assert after.host_memory - before.host_memory < 4 * 1024
    assert after.server_memory - before.server_memory < 16 * 1024
    assert token.status().sessions == 0, "the manager is closed"
