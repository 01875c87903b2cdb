"""Forks of a running process: no thread of the parent is inside a PKCS #11 library then, and in the child all begins anew.

See `gate` for the first, PKCS #11 3.1 section 5.4 for the second.  Knows nothing of libraries but their gates.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol

from .gate import Gate

PATIENCE = 1.0  # seconds that a fork waits for calls under way; a token may take longer, then it is forked all the same


class Forkable(Protocol):
    def after_fork(self) -> None:
        """Runs in a forked child, before anything else: makes new locks and forgets what is the parent's.  Must not block."""


class Library(Forkable, Protocol):
    gate: Gate


_libraries: list[Library] = []
_forkable: weakref.WeakSet[Forkable] = weakref.WeakSet()
_shut: dict[int, list[Gate]] = {}  # by the thread that forks


def prepare_library(library: Library) -> None:
    """Have every fork wait for calls of `library`, and call its `after_fork` in the child before that of others; for ever."""
    _libraries.append(library)


def prepare_for_forks(item: Forkable) -> None:
    """Have `item.after_fork` called in every child that is forked while `item` lives."""
    _forkable.add(item)


def _before() -> None:
    deadline = time.monotonic() + PATIENCE
    shut = _shut[threading.get_ident()] = []
    for library in list(_libraries):
        if library.gate.shut(deadline):
            shut.append(library.gate)
    for gate in shut:
        gate.wait_until_empty(deadline)


def _after_in_parent() -> None:
    for gate in _shut.pop(threading.get_ident(), []):
        gate.open()


def _after_in_child() -> None:
    _shut.clear()
    for item in [*_libraries, *_forkable]:
        item.after_fork()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
