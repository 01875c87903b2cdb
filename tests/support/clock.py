"""A clock that stands still until the test moves it: for whatever takes a `clock` argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """`now` in seconds, as `time.time` or `time.monotonic` would tell them."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now
