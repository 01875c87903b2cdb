"""A server's session cache that processes share, as NSS has it: sets of 128 entries, each a ring, under eight locks.

What a session needs beyond its entry, the client's certificates as a rule, lies in a table of its own, the client-certificate
cache.  What fits neither is not cached.

No process harms another, whatever it dies of.  An entry's tag, by which it is found, is the last to be written and the first to
go; locks are the kernel's; and a state is sealed together with its session id, address and times, so that a half-written entry,
or one whose other half went to a newer session, does not open and is dropped.

States are opaque here.  They hold master secrets: what goes is overwritten with zeros, at once when it is deleted or found too
old, within a minute of use of its set otherwise.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from functools import reduce
from hashlib import blake2b
from ipaddress import IPv4Address, ip_address
from operator import xor
from time import monotonic
from typing import NamedTuple

from cryptography.exceptions import InvalidTag

from ..errors import ConfigurationError, NSPRError
from . import shared_layout as layout
from .shared_layout import ABOUT, CERTIFICATE_HEAD, ENTRY_HEAD, ENTRY_ROOM, PLACE, SET_HEAD, SET_SIZE, TAG_BYTES, Layout
from .shared_memory import HEADER, SharedMemory, Storage, Stuck

SWEEP = 60.0  # seconds between looks for what is too old in a set

_NONCE = 12
_FIGURES = struct.Struct("=III")  # entries, timeouts of SSL 2 and of SSL 3; behind the memory's own header
_NEXT = struct.Struct("=I")  # the entry of a ring to be written next; what a set's head begins with
_NEXT_AT = HEADER + _FIGURES.size
_WORDS = struct.Struct("=12I")
_NO_TAG = bytes(TAG_BYTES)
_NO_ENTRY = bytes(layout.ENTRY_BYTES)
_NO_CERTIFICATE = bytes(layout.CERTIFICATE_BYTES)


class Statistics(NamedTuple):
    """Look-ups of all processes together."""

    hits: int
    misses: int


class _Place(NamedTuple):
    """Where a session belongs: its set, its tag there, and what its entry begins with."""

    set: int
    tag: bytes
    address: bytes
    session_id: bytes


class SharedServerCache:
    """A server's sessions by id, for any number of threads and processes.  Fits `net.executor.SessionStore`.

    `max_entries`: rounded up to a multiple of 128; 0 is NSS's default of 10,000.  `ssl2_timeout`, `ssl3_timeout`: seconds;
    0 is the default of 100 s and 24 h, and what is out of range becomes the nearest that is not (5 to 100 s; 5 s to 24 h).
    `storage`: "file", as NSS does, an unlinked file in `directory` (None: /tmp), which children inherit by fork and by exec;
    "memory", no file, inherited by fork alone; "private", this process's alone (SSL_ConfigServerSessionIDCache).
    `clock`: seconds since 1970.

    A child by fork just goes on using it.  A program that a child executes calls `inherit`.

    Raises ConfigurationError for a size beyond 4 GiB, NSPRError where there is no memory, disk space or directory.
    """

    def __init__(
        self,
        max_entries: int = 0,
        ssl2_timeout: int = 0,
        ssl3_timeout: int = 0,
        directory: str | None = None,
        *,
        storage: Storage = "file",
        clock: Callable[[], float] = time.time,
    ) -> None:
        where = Layout.of(max_entries)
        memory = SharedMemory.create(where.size, where.locks + 1, storage, directory or "/tmp")
        timeouts = layout.ssl2_timeout(ssl2_timeout), layout.ssl3_timeout(ssl3_timeout)
        _FIGURES.pack_into(memory.data, HEADER, where.entries, *timeouts)
        self._attach(memory, where, timeouts, clock)

    @classmethod
    def inherit(cls, inheritance: str, *, clock: Callable[[], float] = time.time) -> SharedServerCache:
        """The cache that a parent's `inheritance()` speaks of; its `descriptors` must have been inherited.

        Raises ConfigurationError SEC_ERROR_INVALID_ARGS where the string is none (no comma, not base64 of 8 bytes, lengths that
        contradict each other, another protection than read and write), NSPRError PR_BAD_DESCRIPTOR_ERROR where a descriptor was
        not inherited, SEC_ERROR_BAD_DATA where there is no cache of that size behind it.
        """
        memory = SharedMemory.inherit(inheritance, layout.MAX_LOCKS + 1)
        entries, ssl2_timeout, ssl3_timeout = _FIGURES.unpack_from(memory.data, HEADER)
        where = Layout.of(entries)
        if where.size != len(memory.data):
            memory.close()
            raise NSPRError("the inherited session cache is not as large as its entries", name="SEC_ERROR_BAD_DATA")
        cache = cls.__new__(cls)
        cache._attach(memory, where, (ssl2_timeout, ssl3_timeout), clock)
        return cache

    def _attach(self, memory: SharedMemory, where: Layout, timeouts: tuple[int, int], clock: Callable[[], float]) -> None:
        self._memory, self._layout, self._clock = memory, where, clock
        self.ssl2_timeout, self.ssl3_timeout = timeouts
        self._swept = [monotonic()] * where.sets

    def inheritance(self) -> str:
        """The value of SSL_INHERITANCE: base64 of 8 bytes, a comma, "fd:prot".

        Raises ConfigurationError PR_INVALID_STATE_ERROR for a cache that is in no file.
        """
        return self._memory.inheritance()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors, inheritable, that an executed child must get, under the same numbers (`subprocess`: pass_fds)."""
        return self._memory.descriptors

    @property
    def secret(self) -> bytes:
        """32 bytes, the same in all processes that use the cache, from which no key of its own follows: for keys of tickets."""
        return self._memory.secret

    @property
    def max_entries(self) -> int:
        """Sessions it holds at most, a multiple of 128."""
        return self._layout.entries

    @property
    def max_certificates(self) -> int:
        """Entries of the client-certificate cache."""
        return self._layout.certificates

    def count(self) -> int:
        """Entries in use, those that are too old and were not swept yet included."""
        return sum(self._tag(number, slot) != _NO_TAG for number in range(self._layout.sets) for slot in range(SET_SIZE))

    def statistics(self) -> Statistics:
        """Hits and misses of all processes since the cache was made."""
        heads = [SET_HEAD.unpack_from(self._memory.data, self._layout.set_at(number)) for number in range(self._layout.sets)]
        return Statistics(sum(head[2] for head in heads), sum(head[3] for head in heads))

    # --- sessions ----------------------------------------------------------------------------------------------------

    def put(self, session_id: bytes, state: bytes, address: str = "", *, ssl2: bool = False) -> None:
        """Keep `state` under `session_id` (1 to 32 bytes) and the client's `address` (IP address as text, "" for any one).

        Not kept is a state that fits no entry (more than 4476 bytes; an older one under the same id goes all the same), nor one
        whose lock is held by a process that does not go on.
        """
        place = self._place(session_id, address)
        if place is None:
            return
        now = int(self._clock())
        expires = now + (self.ssl2_timeout if ssl2 else self.ssl3_timeout)
        about = ABOUT.pack(place.address, place.session_id, now, expires, len(session_id))
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._memory.aead.encrypt(nonce, state, about)
        fits = len(sealed) <= ENTRY_ROOM + layout.CERTIFICATE_ROOM
        try:
            with self._memory.hold(place.set % self._layout.locks):
                self._sweep(place.set, now)
                slot = self._find(place)
                if slot is not None:
                    self._erase(place.set, slot)
                if fits:
                    # Not into the old one's slot: what was put last is to go last.
                    self._write(place, self._next(place.set), about, sealed)
        except Stuck:
            return

    def get(self, session_id: bytes, address: str = "") -> bytes | None:
        """The state under `session_id` and `address`, None where there is none or it is too old."""
        place = self._place(session_id, address)
        if place is None:
            return None
        try:
            with self._memory.hold(place.set % self._layout.locks):
                now = int(self._clock())
                self._sweep(place.set, now)
                slot = self._find(place)
                state = self._read(place, slot, now) if slot is not None else None
                self._count(place.set, state is not None)
                return state
        except Stuck:
            return None

    def delete(self, session_id: bytes, address: str = "") -> None:
        """Forget a session; one that is not there is no matter."""
        place = self._place(session_id, address)
        if place is None:
            return
        try:
            with self._memory.hold(place.set % self._layout.locks):
                slot = self._find(place)
                if slot is not None:
                    self._erase(place.set, slot)
        except Stuck:
            return

    def close(self) -> None:
        """This process uses it no more (SSL_ShutdownServerSessionIDCache); it is gone when no process does."""
        self._memory.close()

    # --- entries, under their set's lock -----------------------------------------------------------------------------

    def _place(self, session_id: bytes, address: str) -> _Place | None:
        if not 1 <= len(session_id) <= layout.MAX_SESSION_ID or self._memory.data.closed:
            return None
        packed, padded = _packed(address), session_id.ljust(layout.MAX_SESSION_ID, b"\0")
        number = reduce(xor, _WORDS.unpack(packed + padded)) % self._layout.sets
        return _Place(number, blake2b(packed + session_id, digest_size=TAG_BYTES).digest(), packed, padded)

    def _tag_at(self, number: int, slot: int) -> int:
        return self._layout.set_at(number) + SET_HEAD.size + slot * TAG_BYTES

    def _tag(self, number: int, slot: int) -> bytes:
        at = self._tag_at(number, slot)
        return self._memory.data[at : at + TAG_BYTES]

    def _set_tag(self, number: int, slot: int, tag: bytes) -> None:
        at = self._tag_at(number, slot)
        self._memory.data[at : at + TAG_BYTES] = tag

    def _find(self, place: _Place) -> int | None:
        """Its slot, by its tag; the seal says later whether it is the right one."""
        begin, end = self._tag_at(place.set, 0), self._tag_at(place.set, SET_SIZE)
        at = self._memory.data.find(place.tag, begin, end)
        while at >= 0 and (at - begin) % TAG_BYTES:
            at = self._memory.data.find(place.tag, at + 1, end)
        return (at - begin) // TAG_BYTES if at >= 0 else None

    def _next(self, number: int) -> int:
        """The ring's next slot, which is emptied: its oldest."""
        at = self._layout.set_at(number)
        slot: int = _NEXT.unpack_from(self._memory.data, at)[0] % SET_SIZE
        _NEXT.pack_into(self._memory.data, at, (slot + 1) % SET_SIZE)
        self._erase(number, slot)
        return slot

    def _count(self, number: int, hit: bool) -> None:
        at = self._layout.set_at(number)
        slot, unused, hits, misses = SET_HEAD.unpack_from(self._memory.data, at)
        SET_HEAD.pack_into(self._memory.data, at, slot, unused, hits + hit, misses + (not hit))

    def _write(self, place: _Place, slot: int, about: bytes, sealed: bytes) -> None:
        """Into an empty slot.  The tag last: until then there is no entry."""
        rest = sealed[ENTRY_ROOM:]
        index = self._write_rest(place.session_id, rest) if rest else 0
        entry = about + PLACE.pack(index, len(sealed)) + sealed[:ENTRY_ROOM]
        at = self._layout.entry_at(place.set, slot)
        self._memory.data[at : at + len(entry)] = entry
        self._set_tag(place.set, slot, place.tag)

    def _read(self, place: _Place, slot: int, now: int) -> bytes | None:
        """The state, None where it is too old or not whole: then the entry is gone."""
        at = self._layout.entry_at(place.set, slot)
        about = self._memory.data[at : at + ABOUT.size]
        address, session_id, created, expires, _ = ABOUT.unpack(about)
        index, length = PLACE.unpack_from(self._memory.data, at + ABOUT.size)
        if (address, session_id) == (place.address, place.session_id) and created <= now <= expires:
            sealed = self._memory.data[at + ENTRY_HEAD : at + ENTRY_HEAD + min(length, ENTRY_ROOM)]
            if length > ENTRY_ROOM:
                sealed += self._read_rest(session_id, index)
            try:
                return self._memory.aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
            except (InvalidTag, ValueError):  # ValueError: shorter than a nonce
                pass
        self._erase(place.set, slot)
        return None

    def _erase(self, number: int, slot: int) -> None:
        self._set_tag(number, slot, _NO_TAG)
        at = self._layout.entry_at(number, slot)
        session_id = ABOUT.unpack_from(self._memory.data, at)[1]
        index, length = PLACE.unpack_from(self._memory.data, at + ABOUT.size)
        if length > ENTRY_ROOM:
            self._erase_rest(session_id, index)
        self._memory.data[at : at + layout.ENTRY_BYTES] = _NO_ENTRY

    def _sweep(self, number: int, now: int) -> None:
        """Erase what is too old in a set, and what a process left behind that died while it wrote or erased."""
        if monotonic() - self._swept[number] < SWEEP:
            return
        self._swept[number] = monotonic()
        for slot in range(SET_SIZE):
            _, _, created, expires, _ = ABOUT.unpack_from(self._memory.data, self._layout.entry_at(number, slot))
            if expires and not (self._tag(number, slot) != _NO_TAG and created <= now <= expires):
                self._erase(number, slot)

    # --- the client-certificate cache, under its lock ----------------------------------------------------------------

    def _write_rest(self, session_id: bytes, rest: bytes) -> int:
        """Into the next entry of this table, which is one ring; returns its index."""
        data, count = self._memory.data, self._layout.certificates
        with self._memory.hold(self._layout.locks):
            index: int = _NEXT.unpack_from(data, _NEXT_AT)[0] % count
            _NEXT.pack_into(data, _NEXT_AT, (index + 1) % count)
            at = self._layout.certificate_at(index)
            entry = CERTIFICATE_HEAD.pack(len(rest), len(session_id), session_id) + rest
            data[at : at + layout.CERTIFICATE_BYTES] = entry.ljust(layout.CERTIFICATE_BYTES, b"\0")
        return index

    def _read_rest(self, session_id: bytes, index: int) -> bytes:
        """What `_write_rest` wrote; b"" where a newer session has taken its place."""
        with self._memory.hold(self._layout.locks):
            at = self._rest_at(session_id, index)
            if at is None:
                return b""
            length, _, _ = CERTIFICATE_HEAD.unpack_from(self._memory.data, at)
            begin = at + CERTIFICATE_HEAD.size
            return self._memory.data[begin : begin + min(length, layout.CERTIFICATE_ROOM)]

    def _erase_rest(self, session_id: bytes, index: int) -> None:
        with self._memory.hold(self._layout.locks):
            at = self._rest_at(session_id, index)
            if at is not None:
                self._memory.data[at : at + layout.CERTIFICATE_BYTES] = _NO_CERTIFICATE

    def _rest_at(self, session_id: bytes, index: int) -> int | None:
        at = self._layout.certificate_at(index)
        if index >= self._layout.certificates or CERTIFICATE_HEAD.unpack_from(self._memory.data, at)[2] != session_id:
            return None
        return at


def _packed(address: str) -> bytes:
    """16 bytes, of an IPv4 address in its IPv6 form.  Raises ConfigurationError for what is no IP address."""
    if not address:
        return bytes(16)
    try:
        parsed = ip_address(address)
    except ValueError:
        raise ConfigurationError(f"{address!r} is no IP address") from None
    return b"\0" * 10 + b"\xff\xff" + parsed.packed if isinstance(parsed, IPv4Address) else parsed.packed
