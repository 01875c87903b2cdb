"""What was called: every call as a dictionary, as a JSON line where somebody asks for a file, and counted.

A line says who called (`host`, the process id), what (`function`, `slot` or `session`, `token`, `arguments` by name), how it
ended (`result`, the CKR's name) and how long it took (`ms`).  It never holds a PIN, a key or data: of memory only what the
functions put into `Call.noted` is known here.  May use `abi`; writes only the files that it is told to.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from enum import IntEnum
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .abi import CKM, CKR, CKU, GENERAL_FUNCTIONS, SLOT_FUNCTIONS, name_of

if TYPE_CHECKING:
    from .functions import Call

KEPT = 20_000  # calls to remember; older ones are in the files, and counted

# Arguments that are numbers, by their place; all others are addresses and lengths of the host's memory.
_NUMBERS: dict[str, dict[int, str]] = {
    "C_GetSlotList": {0: "token_present"},
    "C_GetMechanismInfo": {1: "mechanism"},
    "C_WaitForSlotEvent": {0: "flags"},
    "C_OpenSession": {1: "flags"},
    "C_Login": {1: "user"},
    "C_CopyObject": {1: "object"},
    "C_DestroyObject": {1: "object"},
    "C_GetObjectSize": {1: "object"},
    "C_GetAttributeValue": {1: "object"},
    "C_SetAttributeValue": {1: "object"},
    "C_FindObjects": {2: "most"},
    "C_EncryptInit": {2: "key"},
    "C_DecryptInit": {2: "key"},
    "C_DigestKey": {1: "key"},
    "C_SignInit": {2: "key"},
    "C_SignRecoverInit": {2: "key"},
    "C_VerifyInit": {2: "key"},
    "C_VerifyRecoverInit": {2: "key"},
    "C_Digest": {2: "length"},
    "C_Sign": {2: "length"},
    "C_Verify": {2: "length"},
    "C_Encrypt": {2: "length"},
    "C_Decrypt": {2: "length"},
    "C_WrapKey": {2: "wrapping_key", 3: "key"},
    "C_UnwrapKey": {2: "unwrapping_key"},
    "C_DeriveKey": {2: "key"},
    "C_GenerateRandom": {2: "length"},
}

_NAMES: dict[str, type[IntEnum]] = {"mechanism": CKM, "user": CKU}


class Journal:
    """The calls of all hosts; thread-safe."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}  # by token name, then function; "" for calls that concern no token
        self._calls: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._numbers = count(1)
        self._files: list[TextIO] = []
        self._lock = threading.Lock()

    def add(self, call: Call, rv: int, seconds: float) -> None:
        """Note a call that was answered with `rv` after `seconds`."""
        record = _record(call, rv, seconds)
        with self._lock:
            record["number"] = next(self._numbers)
            self._calls.append(record)
            self.counts.setdefault(record.get("token", ""), Counter())[call.function] += 1
            if self._files:
                line = json.dumps(record) + "\n"
                for file in self._files:
                    file.write(line)

    def write_to(self, path: Path) -> None:
        """Append calls to a file from now on, a JSON line each.  Raises OSError."""
        file = path.open("a", encoding="utf-8", buffering=1)
        with self._lock:
            self._files.append(file)

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        """The last calls, oldest first, at most KEPT; those with a greater number than `since`."""
        with self._lock:
            newest_first = takewhile(lambda call: call["number"] > since, reversed(self._calls))
            return list(newest_first)[::-1]

    def count(self, token: str) -> dict[str, int]:
        """How often each function was called on a token, since the beginning."""
        with self._lock:
            return dict(self.counts.get(token, {}))

    def forget(self) -> None:
        """Forget the calls and their counts; files keep theirs."""
        with self._lock:
            self._calls.clear()
            self.counts.clear()

    def close(self) -> None:
        with self._lock:
            while self._files:
                self._files.pop().close()


def _record(call: Call, rv: int, seconds: float) -> dict[str, Any]:
    record: dict[str, Any] = {"number": 0, "time": round(time.time(), 6), "host": call.host.pid, "function": call.function}
    if call.arguments and call.function not in GENERAL_FUNCTIONS:
        record["slot" if call.function in SLOT_FUNCTIONS else "session"] = call.arguments[0]
    if call.token is not None:
        record["token"] = call.token.name
    numbers = _NUMBERS.get(call.function, {})
    arguments: dict[str, object] = {}
    for place, name in numbers.items():
        value = call.arguments[place]
        arguments[name] = name_of(_NAMES[name], value) if name in _NAMES else value
    arguments.update(call.noted)
    if arguments:
        record["arguments"] = arguments
    record["result"] = name_of(CKR, rv)
    record["ms"] = round(1000 * seconds, 3)
    return record
