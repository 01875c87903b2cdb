"""The one KeyExecutor of the process's SSL sockets: private keys on tokens sign and decrypt through it."""

from __future__ import annotations

import threading

from ..net.executor import KeyExecutor
from ._state import state

_lock = threading.Lock()
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
