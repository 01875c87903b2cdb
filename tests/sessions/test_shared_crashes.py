"""Processes and threads at one session cache, some of them killed at any line: nobody else notices."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import closing
from hashlib import sha256
from multiprocessing import get_context
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nss_pk11.sessions import SharedServerCache

DEADLINE = 60.0  # seconds
SESSION = bytes(range(32))
SMALL, LARGE = b"small" * 10, b"large" * 500


@pytest.fixture
def cache() -> Iterator[SharedServerCache]:
    """One set, so that all are after one lock."""
    cache = SharedServerCache(1)
    yield cache
    cache.close()


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def reap(pid: int) -> int:
    """Minus the signal that killed it, or its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- killed at every line ----------------------------------------------------------------------------------------------------


def die_at(line: int) -> None:
    """Be killed when so many lines of the cache have been run."""
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if "/sessions/shared" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


@pytest.fixture(scope="module")
def small_process() -> Iterator[Executor]:
    """To fork a process takes as long as it is large, and this one is, after so many tests."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        yield process


@pytest.mark.parametrize("before", [SMALL, LARGE, None], ids=["small", "large", "nothing"])
@pytest.mark.parametrize("step", ["put small", "put large", "get", "delete"])
def test_killed_at_any_line(small_process: Executor, step: str, before: bytes | None) -> None:
    """What is left is the state from before, the new one, or none; the lock is free; and a new state can be put."""
    small_process.submit(kill_at_each_line, step, before).result()


def kill_at_each_line(step: str, before: bytes | None) -> None:
    with closing(SharedServerCache(1)) as cache:
        name, *which = step.split()
        new = {"small": SMALL + b"new", "large": LARGE + b"new"}[which[0]] if which else None
        arguments = (SESSION, new) if new else (SESSION,)

        def work(line: int) -> None:
            die_at(line)
            getattr(cache, name)(*arguments)

        line, seen = 0, set[bytes | None]()
        while True:
            line += 1
            cache.delete(SESSION)
            cache.put(b"neighbour", LARGE)
            if before:
                cache.put(SESSION, before)
            status = reap(fork(lambda line=line: work(line)))  # type: ignore[misc]
            found = cache.get(SESSION)
            assert found in (before, new, None), line
            assert cache.get(b"neighbour") == LARGE, line
            cache.put(SESSION, b"afterwards")
            assert cache.get(SESSION) == b"afterwards", line
            seen.add(found)
            if status == 0:
                break
            assert status == -signal.SIGKILL
        assert line > 10
        assert found == {"put": new, "get": before, "delete": None}[name]
        assert before in seen


# --- garbage ------------------------------------------------------------------------------------------------------------------


@given(st.integers(0), st.binary(min_size=1, max_size=600), st.sampled_from(["entries", "tags", "certificates"]))
@settings(max_examples=150, deadline=None)
def test_garbage_is_no_session(at: int, garbage: bytes, where: str) -> None:
    """Whatever lies in the tables: a state comes back whole or not at all, and new ones can be put."""
    cache = SharedServerCache(1, storage="private")
    states = {bytes([value]) * 32: bytes([value]) * (50 if value % 2 else 2000) for value in range(1, 9)}
    for session_id, state in states.items():
        cache.put(session_id, state)
    layout, data = cache._layout, cache._memory.data
    begins = {"tags": layout.set_at(0), "entries": layout.entry_at(0, 0), "certificates": layout.certificate_at(0)}
    sizes = {"tags": 1056, "entries": 8 * 512, "certificates": 4 * 4096}
    begin = begins[where] + at % sizes[where]
    data[begin : begin + len(garbage)] = garbage
    for session_id, state in states.items():
        assert cache.get(session_id) in (state, None)
    for session_id, state in states.items():
        cache.put(session_id, state)
        assert cache.get(session_id) == state
        cache.delete(session_id)
        assert cache.get(session_id) is None
    cache.close()


# --- all at once --------------------------------------------------------------------------------------------------------------


def state_of(value: int, session_id: bytes) -> bytes:
    """One of several states that can only be this session's."""
    return bytes([value]) + sha256(session_id + bytes([value])).digest() * (2 if value % 3 else 60)


def use(cache: SharedServerCache, steps: int, seed: int) -> int:
    """Put, get and delete at random; returns how often it looked.  Raises AssertionError for another's state."""
    chance, looked = random.Random(seed), 0
    for _ in range(steps):
        session_id = bytes([chance.randrange(40)]) * 32
        match chance.randrange(10):
            case 0:
                cache.delete(session_id)
            case 1 | 2 | 3:
                cache.put(session_id, state_of(chance.randrange(256), session_id))
            case _:
                state = cache.get(session_id)
                assert state is None or state == state_of(state[0], session_id)
                looked += 1
    return looked


def test_no_look_up_is_lost(cache: SharedServerCache) -> None:
    """The counts stand in the shared memory, and come out right only if locks keep processes and threads apart."""
    reader, writer = os.pipe()

    def work(number: int) -> None:
        looked: list[int] = []
        threads = [threading.Thread(target=lambda n=n: looked.append(use(cache, 400, 2 * number + n))) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(looked) == 2
        os.write(writer, sum(looked).to_bytes(4, "big"))

    children = [fork(lambda number=number: work(number)) for number in range(6)]  # type: ignore[misc]
    assert [reap(child) for child in children] == [0] * 6
    looked = sum(int.from_bytes(os.read(reader, 4), "big") for _ in children)
    os.close(reader)
    os.close(writer)
    assert sum(cache.statistics()) == looked > 1000


def test_killed_among_others(cache: SharedServerCache) -> None:
    """Half of eight processes are killed while all use the cache; the others see no wrong state, and go on to their end."""
    doomed = [fork(lambda seed=seed: use(cache, 10**9, seed) and None) for seed in range(4)]  # type: ignore[misc,func-returns-value]
    others = [fork(lambda seed=seed: use(cache, 1500, seed) and None) for seed in range(4, 8)]  # type: ignore[misc,func-returns-value]
    for number, child in enumerate(doomed, 1):
        deadline = time.monotonic() + DEADLINE
        while sum(cache.statistics()) < 500 * number:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        assert reap(child) == -signal.SIGKILL
    assert [reap(child) for child in others] == [0] * 4
    assert use(cache, 500, 9)
    cache.put(SESSION, SMALL)
    assert cache.get(SESSION) == SMALL
