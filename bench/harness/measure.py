"""What an operation costs: CPU time and memory of other processes, in interleaved rounds.

Wall time on shared cores says little, so the figure is the CPU time that the measured process itself used (user and
system, all threads, ended ones included), read from its POSIX CPU clock in nanoseconds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_CPUCLOCK_SCHED = 2
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Figure:
    """The rounds of one measurement; `best` is the lowest of costs, the highest of rates."""

    rounds: tuple[float, ...]
    rate: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def best(self) -> float:
        return max(self.rounds) if self.rate else min(self.rounds)


def family(pid: int) -> list[int]:
    """`pid` and its descendants: a server may have worker processes."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    return pids


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its living descendants, of all their threads, in seconds.

    The clock id is the kernel's MAKE_PROCESS_CPUCLOCK (what clock_getcpuclockid(3) returns): no 10 ms ticks, and threads
    that have ended stay counted.  Raises RuntimeError if the process has ended.
    """
    try:
        return sum(time.clock_gettime_ns(~member << 3 | _CPUCLOCK_SCHED) for member in family(pid)) / 1e9
    except OSError:
        raise RuntimeError("the server has ended") from None


def system_share(before: tuple[float, float], after: tuple[float, float]) -> float:
    """The kernel's part of the CPU time between two `user_system` readings."""
    user, system = (late - early for early, late in zip(before, after, strict=True))
    return system / (user + system) if user + system else 0.0


def user_system(pid: int) -> tuple[float, float]:
    """User and system time of one process, in clock ticks (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return float(fields[11]), float(fields[12])


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants."""
    return sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in family(pid)) * _PAGE


def interleave(
    rounds: int, contenders: Mapping[str, Callable[[], float]], advance: Callable[[str], None], *, rate: bool = False
) -> tuple[dict[str, Figure], dict[str, str]]:
    """Runs every contender once per round, in turn, so that a noisy minute hits them all.  The first, unrecorded round
    warms caches up.  A contender that raises RuntimeError is out; the second dictionary says why."""
    values: dict[str, list[float]] = {name: [] for name in contenders}
    failures: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            if name in failures:
                continue
            advance(name)
            try:
                value = contender()
            except RuntimeError as error:
                failures[name] = str(error)
                continue
            if number:
                values[name].append(value)
    return {name: Figure(tuple(values[name]), rate) for name in contenders if name not in failures}, failures
