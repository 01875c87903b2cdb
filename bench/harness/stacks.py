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
    """Shares of CPU time, each adding up to 1: by room, by function and by line (innermost Python frame, with the native code
    it calls); `inclusive`: by function of ours, with all it calls."""

    samples: int = 0
    rooms: Counter[str] = field(default_factory=Counter)
    functions: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    inclusive: Counter[str] = field(default_factory=Counter)


def collect(collapsed: Iterable[str], system_share: float) -> Profile:
    """Reads lines "frame;frame;… count", outermost frame first.

    `system_share`: the kernel's part of the CPU time.  A sampler cannot tell running from ready to run, and on a busy machine
    a process loses the processor in system calls, when it wakes its peer up; so the samples there are weighed to that part.
    """
    stacks = [(stack.split(";"), int(number)) for stack, _, number in (line.rpartition(" ") for line in collapsed) if stack]
    stacks = [(frames, count) for frames, count in stacks if not _waits(frames)]
    in_system = sum(count for frames, count in stacks if _in_system(frames))
    profile = Profile(sum(count for _, count in stacks))
    system = system_share / in_system if in_system else 0.0
    user = (1 - system_share if in_system else 1) / max(1, profile.samples - in_system)
    for frames, count in stacks:
        _charge(profile, frames, count * (system if _in_system(frames) else user))
    return profile


def _python(frames: list[str]) -> list[tuple[int, re.Match[str]]]:
    """The Python frames and where they are."""
    return [(index, match) for index, frame in enumerate(frames) if (match := _PYTHON.match(frame))]


def _waits(frames: list[str]) -> bool:
    python = _python(frames)
    return any(WAITING.match(_symbol(frame)) for frame in (frames[-1], frames[python[-1][0]] if python else ""))


def _in_system(frames: list[str]) -> bool:
    return SYSTEM_CALLS.match(_symbol(frames[-1])) is not None and not _PYTHON.match(frames[-1])


def _charge(profile: Profile, frames: list[str], share: float) -> None:
    python = _python(frames)
    native = frames[python[-1][0] + 1 :] if python else frames
    match = python[-1][1] if python else None
    place = _place(match) if match else "native"
    for counter, key in (
        (profile.rooms, _native_room(native) or (_room(match) if match else "interpreter")),
        (profile.functions, place),
        (profile.lines, f"{place}:{match['line'] if match else '?'}" + (f" → {_symbol(native[-1])}" if native else "")),
        *((profile.inclusive, place) for place in {_place(found) for _, found in python if _OURS.search(found["path"])}),
    ):
        counter[key] += share  # type: ignore[assignment]  # a Counter of floats


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
