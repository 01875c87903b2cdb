"""The mutexes that a PKCS #11 library works with: the operating system's, but for OpenSC's, which hangs with those.

Defect: in OpenSC 0.23 (Debian 12; neither 0.22 nor 0.24) sc_lock() reports success, without having locked, for a PIV card that
has been pulled; sc_unlock() then returns with the card's mutex locked.  The next use of the card waits for that mutex for ever,
with OpenSC's global lock held, and so does then every call of the library.

The way round: mutexes of ours (PKCS #11 3.1 section 5.4, CK_C_INITIALIZE_ARGS) of which the first, OpenSC's global lock, is real
and the others never block.  Every C_ function of OpenSC does its work with the global lock held, so that the others, of its
context and of each card, keep nobody out even where they are released.  The global lock stays OpenSC's, not one around our own
calls, because others in this process may call the same library.  Where p11-kit's proxy initialises OpenSC, it hangs as before.

A mutex is a POSIX semaphore, LockMutex and UnlockMutex are the C library's sem_wait() and sem_post() themselves: there a thread
neither needs the GIL, which the thread that holds the lock may wait for, nor meets a Python signal handler, whose exception
would end the waiting without the lock.  sem_wait() that a signal ends returns -1, and OpenSC calls it again.

Knows nothing of libraries but their names, and what initialises them.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import Any

from . import native
from .forks import prepare_for_forks

_LIBRARIES = frozenset({"opensc-pkcs11.so", "onepin-opensc-pkcs11.so"})  # C_GetInfo, which tells the version, comes too late
_OK = 0
_FREE = 1  # a semaphore's value, for a lock that one may have
_NEVER_BLOCKS = 1 << 30  # each card that is pulled costs 1

_Semaphore = ctypes.c_ulong * 8  # no C library's sem_t is larger
_CREATE = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.POINTER(ctypes.c_void_p))
_DESTROY = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)


def initialize(functions: native.Functions, path: str, reserved: bytes | None) -> int:
    """C_Initialize, ready for calls of several threads at once; `reserved`: its pReserved.  Returns the CK_RV."""
    names = {os.path.basename(path), os.path.basename(os.path.realpath(path))}
    if sys.platform == "linux" and names & _LIBRARIES:
        return _global_lock_alone(os.path.realpath(path)).initialize(functions, reserved)
    arguments = native.CK_C_INITIALIZE_ARGS(flags=native.CKF_OS_LOCKING_OK, pReserved=reserved)
    return functions.C_Initialize(ctypes.byref(arguments))


class _GlobalLockAlone:
    """The mutexes of one library: the first that it makes, and one for all others.  Lives as long as the process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._lock, self._other = _Semaphore(), _Semaphore()
        self._first = False  # whether the next to be made is the global lock
        self._create, self._destroy = _CREATE(self._make), _DESTROY(lambda mutex: _OK)
        self.after_fork()
        prepare_for_forks(self)

    def initialize(self, functions: native.Functions, reserved: bytes | None) -> int:
        calls = (self._create, self._destroy, self._library.sem_wait, self._library.sem_post)
        arguments = native.CK_C_INITIALIZE_ARGS(*(ctypes.cast(call, ctypes.c_void_p) for call in calls), 0, reserved)
        self._first = True
        try:
            return functions.C_Initialize(ctypes.byref(arguments))
        finally:
            self._first = False

    def _make(self, place: Any) -> int:
        if self._first:
            self._set(self._lock, _FREE)  # a C_Initialize that fails releases what it did not lock
        place[0] = ctypes.addressof(self._lock if self._first else self._other)
        self._first = False
        return _OK

    def _set(self, semaphore: Any, value: int) -> None:
        self._library.sem_init(semaphore, 0, value)

    def after_fork(self) -> None:
        """A thread that held the lock is not in the child, where OpenSC's C_Initialize takes it to finalise the parent's."""
        self._set(self._lock, _FREE)
        self._set(self._other, _NEVER_BLOCKS)


@functools.cache
def _global_lock_alone(path: str) -> _GlobalLockAlone:
    return _GlobalLockAlone()
