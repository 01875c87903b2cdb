"""Intervals, in which timeouts are given (prinrval.h).  A tick is a millisecond, as NSPR has it on Unix."""

from __future__ import annotations

import time

__all__ = [
    "PR_INTERVAL_MAX",
    "PR_INTERVAL_MIN",
    "PR_INTERVAL_NO_TIMEOUT",
    "PR_INTERVAL_NO_WAIT",
    "PR_IntervalNow",
    "PR_IntervalToMicroseconds",
    "PR_IntervalToMilliseconds",
    "PR_IntervalToSeconds",
    "PR_MicrosecondsToInterval",
    "PR_MillisecondsToInterval",
    "PR_SecondsToInterval",
    "PR_TicksPerSecond",
]

PR_INTERVAL_MIN, PR_INTERVAL_MAX = 1000, 100000  # how coarse or fine a tick may be on any system, per second
PR_INTERVAL_NO_WAIT = 0
PR_INTERVAL_NO_TIMEOUT = 0xFFFFFFFF

_TICKS = 1000  # per second


def PR_TicksPerSecond() -> int:
    """1000 (prinrval.h)."""
    return _TICKS


def PR_IntervalNow() -> int:
    """A clock to take differences of, modulo 2^32 (prinrval.h)."""
    return int(time.monotonic() * _TICKS) & 0xFFFFFFFF


def PR_SecondsToInterval(seconds: int) -> int:
    """Ticks in `seconds` (prinrval.h)."""
    return seconds * _TICKS & 0xFFFFFFFF


def PR_MillisecondsToInterval(milli: int) -> int:
    """Ticks in `milli` milliseconds (prinrval.h)."""
    return milli & 0xFFFFFFFF


def PR_MicrosecondsToInterval(micro: int) -> int:
    """Ticks in `micro` microseconds, rounded up (prinrval.h)."""
    return -(-micro * _TICKS // 1_000_000) & 0xFFFFFFFF


def PR_IntervalToSeconds(ticks: int) -> int:
    """Whole seconds in `ticks` (prinrval.h)."""
    return ticks // _TICKS


def PR_IntervalToMilliseconds(ticks: int) -> int:
    """Milliseconds in `ticks` (prinrval.h)."""
    return ticks


def PR_IntervalToMicroseconds(ticks: int) -> int:
    """Microseconds in `ticks` (prinrval.h)."""
    return ticks * 1_000_000 // _TICKS
