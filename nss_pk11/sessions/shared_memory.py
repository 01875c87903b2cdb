"""Memory that processes share, its locks, and the key that what lies in it is sealed with.

The memory is an unlinked file on disk or one that is on none (memfd_create(2)), mapped by all.  Children inherit its descriptor,
the first's by fork or by exec, the second's by fork alone.

A lock is a byte of that file, locked with an open file description's lock (fcntl(2), F_OFD_SETLK): when its holder dies, of
whatever, the kernel lets go of it.  Such a lock belongs to an open file description, which a fork shares, and does not keep
threads apart.  So each process opens the file anew, after a fork too, and each lock has a `threading.Lock` beside it.  The locks
of POSIX would not do: closing any descriptor of the file drops them, and with threads the kernel sees deadlocks where
there are none.

The key never lies in the memory, as the kernel may write that to a disk: where an executed child needs it, it lies in a second
file that is on none.  Knows nothing of sessions.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import fcntl
import mmap
import os
import struct
import tempfile
import threading
import weakref
from collections.abc import Iterator
from hashlib import blake2b
from time import monotonic, sleep
from typing import Literal

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import ConfigurationError, NSPRError

Storage = Literal["file", "memory", "private"]

PATIENCE = 1.0  # seconds to wait for a lock whose holder lives and does not let go: it may be stopped
KEY_BYTES = 32
PROT_READWRITE = 1  # PR_PROT_READWRITE of prio.h

_FLOCK = struct.Struct("hhqqi0q")  # struct flock of 64-bit Linux, and of 32-bit with 64-bit offsets
_SIZES = struct.Struct("=II")  # bytes of the memory, characters of "fd:prot"
_KEY_PLACE = struct.Struct("=8sIiQQ")  # magic, bytes of the memory, the key's descriptor, its device and inode
_MAGIC = b"nssSIDc1"
HEADER = _KEY_PLACE.size  # bytes at the beginning that are this module's

_NAMES = {
    errno.EACCES: "PR_NO_ACCESS_RIGHTS_ERROR",
    errno.EPERM: "PR_NO_ACCESS_RIGHTS_ERROR",
    errno.ENOENT: "PR_FILE_NOT_FOUND_ERROR",
    errno.ENOTDIR: "PR_NOT_DIRECTORY_ERROR",
    errno.ENOSPC: "PR_NO_DEVICE_SPACE_ERROR",
    errno.EFBIG: "PR_FILE_TOO_BIG_ERROR",
    errno.EROFS: "PR_READ_ONLY_FILESYSTEM_ERROR",
    errno.EMFILE: "PR_PROC_DESC_TABLE_FULL_ERROR",
    errno.ENFILE: "PR_SYS_DESC_TABLE_FULL_ERROR",
    errno.ENOMEM: "PR_OUT_OF_MEMORY_ERROR",
    errno.EBADF: "PR_BAD_DESCRIPTOR_ERROR",
}


class Stuck(Exception):
    """A lock could not be had: do without what it guards."""


class SharedMemory:
    """`data`: the memory; `aead`: seals and opens what lies in it; `secret`: 32 bytes that whoever has the memory has, for other
    keys.

    With "private" storage it is this process's alone: a child by fork has a copy of its own.  With "file" storage the descriptors
    are inheritable.
    """

    def __init__(self, data: mmap.mmap, key: bytes, locks: int, file: int = -1, key_file: int = -1) -> None:
        """`file`, `key_file`: descriptors, owned from now on; -1 where there is none."""
        self.data, self.aead = data, AESGCM(key)
        self.secret = blake2b(b"what else the processes share", key=key, digest_size=KEY_BYTES).digest()
        self._file, self._key_file, self._lock_file = file, key_file, -1
        self._locks = [threading.Lock() for _ in range(locks)]
        if file >= 0:
            self._lock_file = _reopen(file)
        _live.add(self)

    @classmethod
    def create(cls, size: int, locks: int, storage: Storage, directory: str) -> SharedMemory:
        """Fresh memory, all zeros.  Raises NSPRError where the system will not give it."""
        key = os.urandom(KEY_BYTES)
        if storage == "private":
            return cls(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), key, locks)
        with contextlib.ExitStack() as undo, _told(f"session cache in {directory}" if storage == "file" else "session cache"):
            file = _unlinked(directory) if storage == "file" else os.memfd_create("session cache")
            undo.callback(os.close, file)
            # All of it now: a write to a page that a full disk has no place for would kill the process.
            os.posix_fallocate(file, 0, size)
            data = mmap.mmap(file, size)
            key_file = -1
            if storage == "file":
                key_file = os.memfd_create("session cache key")
                undo.callback(os.close, key_file)
                os.write(key_file, key)
                of = os.fstat(key_file)
                _KEY_PLACE.pack_into(data, 0, _MAGIC, size, key_file, of.st_dev, of.st_ino)
                for descriptor in (file, key_file):
                    os.set_inheritable(descriptor, True)
            memory = cls(data, key, locks, file, key_file)
            undo.pop_all()
            return memory

    @classmethod
    def inherit(cls, inheritance: str, locks: int) -> SharedMemory:
        """What a parent's `inheritance` speaks of.

        Raises ConfigurationError SEC_ERROR_INVALID_ARGS for a string that is none, NSPRError PR_BAD_DESCRIPTOR_ERROR where a
        descriptor was not inherited or is another's, SEC_ERROR_BAD_DATA where the memory is not what the string says.
        """
        size, file = _parse(inheritance)
        with _told("inherited session cache"):
            if os.fstat(file).st_size < max(size, HEADER):
                raise NSPRError("the inherited session cache is shorter than it should be", name="SEC_ERROR_BAD_DATA")
            data = mmap.mmap(file, size)
            try:
                key, key_file = _inherited_key(data, size)
                return cls(data, key, locks, file, key_file)
            except BaseException:
                data.close()
                raise

    def inheritance(self) -> str:
        """base64(size, length of what follows the comma: 32 bits each, native order), a comma, and "fd:prot" as NSPR writes a
        file map.  Raises ConfigurationError for what is not in a file."""
        if self._key_file < 0:
            raise ConfigurationError("this session cache cannot be inherited by exec", name="PR_INVALID_STATE_ERROR")
        place = f"{self._file}:{PROT_READWRITE}"
        return f"{base64.b64encode(_SIZES.pack(len(self.data), len(place))).decode()},{place}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child has to inherit by exec, with the same numbers."""
        return (self._file, self._key_file) if self._key_file >= 0 else ()

    @contextlib.contextmanager
    def hold(self, lock: int) -> Iterator[None]:
        """Keep other threads and processes out.  Raises Stuck where they do not let go within `PATIENCE`."""
        mutex, deadline = self._locks[lock], monotonic() + PATIENCE
        if not mutex.acquire(timeout=PATIENCE):
            raise Stuck
        try:
            if self._file >= 0:
                self._take(lock, deadline)
            yield
        finally:
            try:
                if self._file >= 0:
                    self._set(lock, fcntl.F_UNLCK)
            finally:
                mutex.release()

    def close(self) -> None:
        """Give the memory back, zeroed where it is private; shared, it lives on as long as any process has it.

        Not while other threads use it."""
        if self.data.closed:
            return
        if self._file < 0:
            self.data[:] = bytes(len(self.data))
        self.data.close()
        for descriptor in (self._lock_file, self._key_file, self._file):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock_file = self._key_file = self._file = -1

    def _take(self, lock: int, deadline: float) -> None:
        """Not F_OFD_SETLKW: whoever holds the lock may be stopped for good, and nobody is to stop with it."""
        pause = 20e-6
        while not self._set(lock, fcntl.F_WRLCK):
            if monotonic() >= deadline:
                raise Stuck
            sleep(pause)
            pause = min(2 * pause, 1e-3)

    def _set(self, lock: int, kind: int) -> bool:
        """Raises Stuck where there are no locks at all (the file could not be opened anew, or the kernel is out of them)."""
        try:
            fcntl.fcntl(self._lock_file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, lock, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        except (OSError, ValueError) as error:
            raise Stuck from error
        return True

    def _after_fork(self) -> None:
        """In the child, which has one thread.  Without a file description of its own it would share its parent's locks."""
        self._locks = [threading.Lock() for _ in self._locks]
        if self._file < 0:
            return
        try:
            if self._lock_file >= 0:
                os.close(self._lock_file)
            self._lock_file = -1
            self._lock_file = _reopen(self._file)
        except OSError:  # no descriptor left: the child does without the cache
            pass


_live: weakref.WeakSet[SharedMemory] = weakref.WeakSet()


def _after_fork() -> None:
    for memory in list(_live):
        memory._after_fork()


os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What the system says, as an NSPRError."""
    try:
        yield
    except OSError as error:
        name = _NAMES.get(error.errno or 0, "PR_UNKNOWN_ERROR")
        raise NSPRError(f"{what}: {error.strerror}", name=name) from error


def _unlinked(directory: str) -> int:
    """A file in `directory`, readable by its owner, which is in no directory any more or never was."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        return os.dup(file.fileno())


def _reopen(file: int) -> int:
    return os.open(f"/proc/self/fd/{file}", os.O_RDWR | os.O_CLOEXEC)


def _parse(inheritance: str) -> tuple[int, int]:
    """Bytes of the memory, and its descriptor."""
    sizes, comma, place = inheritance.partition(",")
    try:
        size, length = _SIZES.unpack(base64.b64decode(sizes, validate=True))
        file, prot = (int(number) for number in place.split(":"))
    except (binascii.Error, struct.error, ValueError):
        raise ConfigurationError("this is no inheritance of a session cache") from None
    if not comma or length != len(place) or prot != PROT_READWRITE or not 0 <= file < 1 << 31 or not size:
        raise ConfigurationError("the inheritance of a session cache contradicts itself")
    return size, file


def _inherited_key(data: mmap.mmap, size: int) -> tuple[bytes, int]:
    magic, stored, key_file, device, inode = _KEY_PLACE.unpack_from(data)
    if magic != _MAGIC or stored != size:
        raise NSPRError("what was inherited is no session cache of this size", name="SEC_ERROR_BAD_DATA")
    of = os.fstat(key_file)
    key = os.pread(key_file, KEY_BYTES, 0) if (of.st_dev, of.st_ino) == (device, inode) else b""
    if len(key) != KEY_BYTES:
        raise NSPRError("the session cache's key was not inherited with it", name="PR_BAD_DESCRIPTOR_ERROR")
    return key, key_file
