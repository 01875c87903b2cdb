"""The audit log: one JSON line for every use of a private key.

An observer of the key executor.  Touches one file, which it only ever appends to; knows neither tokens nor sockets, and
never sees a PIN, a key or what was signed.

A line is one write to a file opened with O_APPEND, so that the lines of several processes do not mix.  A line that cannot
be written does not stop the server: the key has been used by then, and a full disk should not end a service.  But an auditor
must see that lines are missing: it is logged when it begins and when it ends, and the first line that can be written again
tells how many were lost.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import ConfigurationError, NotFound
from .log import peer_name

if TYPE_CHECKING:
    from types import TracebackType

    from ..slots import PrivateKey
    from .uses import KeyUse

log = logging.getLogger(__name__)

MODE = 0o600  # of a file made here; one that exists keeps its own
REMEMBERED_KEYS = 1024


class AuditLog:
    """An `Observer` that appends to the file at `path`.  Thread-safe; of one process, not to be carried through a fork.

    A file that was moved away or deleted (logrotate) is left and a new one begun with the next line; no signal is needed.
    `lost`: lines that could not be written, so far.  Raises ConfigurationError for a file that cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.lost = 0
        self._untold = 0  # of the lost lines, those that no line tells of yet
        self._torn = False  # a line was written in part: its rest must not be the next one's beginning
        self._lock = Lock()
        self._keys: dict[PrivateKey, str] = {}
        self._fd = -1
        try:
            self._open()
        except OSError as error:
            raise ConfigurationError(
                f"cannot open the audit log {self.path}: {error.strerror}", name="PR_NO_ACCESS_RIGHTS_ERROR"
            ) from None

    def __call__(self, use: KeyUse) -> None:
        """Append a line about `use`."""
        token = use.key.token
        line = {
            "time": _timestamp(use.time),
            "key": self._key_hash(use.key),
            "mechanism": use.mechanism,
            "purpose": use.purpose,
            "peer": peer_name(use.peer) if use.peer else "",
            "result": use.result,
            "token": token.label,
            "serial": token.serial,
            "ms": round(use.token_seconds * 1e3, 3),
        }
        with self._lock:
            if self._untold:
                self._append({"time": line["time"], "lost": self._untold}, counts=0)
            if self._untold:  # it still cannot be written
                self._lose(1)
            else:
                self._append(line, counts=1)

    def close(self) -> None:
        """Tell of lines that were lost, if that can be done now."""
        with self._lock:
            if self._fd >= 0:
                if self._untold:
                    self._append({"time": _timestamp(time.time()), "lost": self._untold}, counts=0)
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    # --- the file; the lock is held ------------------------------------------------------------------------------------

    def _append(self, line: dict[str, Any], counts: int) -> None:
        """Write `line`, which stands for `counts` uses of a key, in one piece."""
        data = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        try:
            self._follow()
            written = os.write(self._fd, b"\n" + data if self._torn else data)
        except OSError as error:
            self._lose(counts, os.strerror(error.errno or 0))
            return
        self._torn = written < len(data) + self._torn
        if self._torn:
            self._lose(counts, "no space for a whole line")
        elif self._untold:
            log.warning("the audit log %s can be written again; %d lines were lost", self.path, self._untold)
            self._untold = 0

    def _lose(self, lines: int, why: str = "") -> None:
        if not self._untold:
            log.error("the audit log %s cannot be written: %s; the server goes on without it", self.path, why)
        self._untold += lines
        self.lost += lines

    def _follow(self) -> None:
        """Have the file open that is at `path` now."""
        ours = os.fstat(self._fd)
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(self.path)
            if (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev):
                return
        self._open()

    def _open(self) -> None:
        """Raises OSError, and then the file that was open is still open."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, MODE)
        if self._fd >= 0:
            os.close(self._fd)
            self._torn = False
        self._fd = fd

    def _key_hash(self, key: PrivateKey) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, hexadecimal; "" where the token shows no public key."""
        found = self._keys.get(key)
        if found is None:
            try:
                spki = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
                found = sha256(spki).hexdigest()
            except NotFound:
                found = ""
            if len(self._keys) >= REMEMBERED_KEYS:
                self._keys.clear()
            self._keys[key] = found
        return found


def _timestamp(seconds: float) -> str:
    """UTC to the millisecond: 2026-01-31T12:00:00.125Z."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"
