"""The one KeyExecutor of the process's SSL sockets: private keys on tokens sign and decrypt through it."""

from __future__ import annotations

import os
import threading

from ..net.executor import KeyExecutor
from ._state import state

_lock = threading.Lock()
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]  # nobody in the child holds it
_executor: KeyExecutor | None = None


def executor() -> KeyExecutor:
    """Made when it is first needed, closed by NSS_Shutdown."""
    global _executor
    with _lock:
        if _executor is None:
            _executor = KeyExecutor()
            state.at_end(_close)
        return _executor


def _close() -> None:
    global _executor
    with _lock:
        closing, _executor = _executor, None
    if closing is not None:
        closing.close()
