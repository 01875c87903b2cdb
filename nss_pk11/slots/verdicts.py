"""What tokens said to PINs, known to every process that is forked from here: none sends again what another was refused.

Keyed hashes in memory that forked processes share, and a lock for each token, so that a PIN nobody has tried yet is tried by one
thread of one process.  Touches neither tokens nor PIN sources; holds no PIN.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

Identity = tuple[str, str, str]  # of a token, see `TokenInfo.identity`

# A record: digest of the token, digest of the PIN, the verdict.
_TOKEN, _PIN = 16, 15  # bytes
_RECORD = _TOKEN + _PIN + 1
_ROOM = 1023  # records; the oldest make place for others: no card survives so many mistakes
_FIRST = _RECORD  # before it stands the number of records ever made
_PAUSE = 0.005  # seconds until a lock is tried again that the kernel took for a deadlock
_TABLE_LOCK = 0  # the byte of the file whose lock is the table's; others are tokens'


class Verdict(IntEnum):
    UNTRIED = 0
    TAKEN = 1
    REFUSED = 2


class PinVerdicts:
    """Thread-safe, and safe between processes that have it from the same parent.

    `key`: the label of the key for one use of which the PIN is; None: the PIN is for logging in.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(16)
        self._file = os.memfd_create("PIN verdicts")
        weakref.finalize(self, os.close, self._file)
        os.ftruncate(self._file, _FIRST + _ROOM * _RECORD)
        self._table = mmap.mmap(self._file, 0)
        self.after_fork()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._token_locks: dict[bytes, threading.Lock] = {}

    def of(self, token: Identity, pin: str, key: str | None) -> Verdict:
        at = self._position(self._digests(token, pin, key))
        return Verdict(self._table[at + _RECORD - 1]) if at else Verdict.UNTRIED

    def keep(self, token: Identity, pin: str, key: str | None, verdict: Verdict) -> None:
        digests = self._digests(token, pin, key)
        with self._lock, self._locked(_TABLE_LOCK):
            at = self._position(digests) or self._next()
            self._table[at : at + _RECORD] = digests + bytes((verdict,))

    def forget(self, token: Identity) -> None:
        """All of `token`'s."""
        mine = self._digest(_TOKEN, *token)
        with self._lock, self._locked(_TABLE_LOCK):
            for at in range(_FIRST, len(self._table), _RECORD):
                if self._table[at : at + _TOKEN] == mine:
                    self._table[at : at + _RECORD] = bytes(_RECORD)

    @contextmanager
    def trying(self, token: Identity) -> Iterator[None]:
        """One thread at a time, of all processes, for each token.  A process that dies lets go."""
        mine = self._digest(_TOKEN, *token)
        with self._lock:
            lock = self._token_locks.setdefault(mine, threading.Lock())
        # The kernel's record locks tell processes apart, not threads.
        with lock, self._locked(1 + int.from_bytes(mine[:3], "little")):
            yield

    @contextmanager
    def _locked(self, byte: int) -> Iterator[None]:
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX, 1, byte)
                break
            except OSError as error:
                # Two processes of which each has a thread that waits for a thread of the other: the kernel sees the processes
                # only.  There is no deadlock: no thread waits for one token's lock while it holds another's.
                if error.errno != errno.EDEADLK:
                    raise
                time.sleep(_PAUSE)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)

    def _next(self) -> int:
        """Where a new record goes; the table is locked."""
        count = int.from_bytes(self._table[:_FIRST], "little")
        self._table[:_FIRST] = (count + 1).to_bytes(_FIRST, "little")
        return _FIRST + count % _ROOM * _RECORD

    def _position(self, digests: bytes) -> int:
        """Where in the table, 0 if nowhere."""
        at = self._table.find(digests, _FIRST)
        while at > 0 and at % _RECORD:  # part of two records
            at = self._table.find(digests, at + 1)
        return max(at, 0)

    def _digests(self, token: Identity, pin: str, key: str | None) -> bytes:
        return self._digest(_TOKEN, *token) + self._digest(_PIN, pin, *(() if key is None else (key,)))

    def _digest(self, size: int, *texts: str) -> bytes:
        parts = (text.encode("utf-8") for text in texts)
        framed = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
        return hashlib.blake2b(framed, key=self._secret, digest_size=size).digest()
