"""Where sampled CPU time goes: collapsed stacks (py-spy's raw format, with native frames) charged to rooms and functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_PYTHON = re.compile(r"^(?P<function>.+) \((?P<path>.+\.py|<[^>]+>)(?::(?P<line>\d+))?\)$")
_OURS = re.compile(r"nss_pk11/(?P<room>(?:tls/)?\w+)")

# Native code by the shared object it lies in, innermost claim first: SoftHSM uses libcrypto, libcrypto uses libc.
LIBRARIES = (
    ("token (SoftHSM)", ("libsofthsm2",)),
    ("cryptography", ("_rust.abi3", "libcrypto", "_hashlib", "_sha2")),
    ("binding (python-pkcs11, ctypes)", ("_pkcs11", "_ctypes", "libffi")),
)
# What waits, though it looks busy to the sampler, which wakes it up: the loop, and idle threads of a pool.
WAITING = re.compile(r"^_*(epoll_p?wait|p?poll|p?select|_worker)$")

# What libc calls its system calls, with and without its own prefixes.
SYSTEM_CALLS = re.compile(
    r"^(__libc_|__|_)?(accept4?|bind|close|connect|epoll_ctl|fcntl(64)?|fstat(at)?64|getpeername|getsock(name|opt)|ioctl|"
    r"listen|lseek64|open64|p?read(v|64)?|recv(from|msg)?|send(to|msg|file64)?|setsockopt|shutdown|socket|p?write(v|64)?)"
    r"(_nocancel)?$"
)


@dataclass
class Profile:
    """Samples by room and by function; `lines`: the line the function was at, innermost Python frame."""

    total: int = 0
    rooms: Counter[str] = field(default_factory=Counter)
    functions: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    inclusive: Counter[str] = field(default_factory=Counter)


def collect(collapsed: Iterable[str]) -> Profile:
    """Reads lines "frame;frame;… count", outermost frame first."""
    profile = Profile()
    for line in collapsed:
        stack, _, number = line.rpartition(" ")
        if not number.strip().isdigit():
            continue
        count, frames = int(number), stack.split(";")
        python = [(index, match) for index, frame in enumerate(frames) if (match := _PYTHON.match(frame))]
        if any(WAITING.match(_symbol(frame)) for frame in (frames[-1], frames[python[-1][0]] if python else "")):
            continue
        innermost = python[-1][0] if python else -1
        native = frames[innermost + 1 :]
        match = python[-1][1] if python else None
        place = _place(match) if match else "native"
        profile.total += count
        profile.rooms[_native_room(native) or (_room(match) if match else "interpreter")] += count
        profile.functions[place] += count
        if match:
            profile.lines[f"{place}:{match['line']}" + (f" → {_symbol(native[-1])}" if native else "")] += count
        profile.inclusive.update(dict.fromkeys({_place(found) for _, found in python if _OURS.search(found["path"])}, count))
    return profile


def _native_room(native: list[str]) -> str | None:
    """What native code below the innermost Python frame was doing, None where it was the interpreter itself.  A token's own
    system calls are the token's."""
    if native and SYSTEM_CALLS.match(_symbol(native[-1])) and not any("libsofthsm2" in frame for frame in native):
        return "system calls"
    for room, libraries in LIBRARIES:
        if any(library in frame for frame in native for library in libraries):
            return room
    return None


def _symbol(frame: str) -> str:
    return frame.partition(" (")[0]


def _room(match: re.Match[str]) -> str:
    """The room a Python frame lies in; `tls` is split into its own."""
    ours = _OURS.search(match["path"])
    if ours:
        return ours["room"]
    module = match["path"].rpartition("/")[2].removesuffix(".py")
    return f"library ({module})"


def _place(match: re.Match[str]) -> str:
    path = match["path"]
    short = path[path.index("nss_pk11/") + len("nss_pk11/") :] if "nss_pk11/" in path else path.rpartition("/")[2]
    return f"{short} {match['function']}"
