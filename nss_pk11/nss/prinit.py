"""Starting and ending NSPR (prinit.h).  Python needs neither; ported programs call both."""

from __future__ import annotations

import threading

from ._state import state
from .prerror import NSPRError, sets_error

__all__ = ["PR_PRIORITY_NORMAL", "PR_SYSTEM_THREAD", "PR_USER_THREAD", "PR_Cleanup", "PR_Init", "PR_Initialized"]

PR_USER_THREAD, PR_SYSTEM_THREAD = 0, 1
PR_PRIORITY_NORMAL = 1

_initialised = threading.Event()


def PR_Init(type: int = PR_USER_THREAD, priority: int = PR_PRIORITY_NORMAL, maxPTDs: int = 1) -> None:
    """Begin (prinit.h).  Optional, as in NSPR, where the first call begins by itself; the arguments mean nothing any more."""
    _initialised.set()


def PR_Initialized() -> bool:
    """Whether `PR_Init` was called (prinit.h)."""
    return _initialised.is_set()


@sets_error
def PR_Cleanup() -> None:
    """End (prinit.h).  Raises NSPRError (PR_INVALID_STATE_ERROR) before `PR_Init` and, as a caller's mistake that C lets pass,
    while NSS is still initialised."""
    if not _initialised.is_set():
        raise NSPRError("PR_Init was not called", name="PR_INVALID_STATE_ERROR")
    if state.initialised:
        raise NSPRError("NSS_Shutdown comes first", name="PR_INVALID_STATE_ERROR")
    _initialised.clear()
