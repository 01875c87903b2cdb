"""Where what lies in a server's session cache, and how much there is of it: NSS's limits and defaults.

Numbers only; touches no memory.  The layout is native-endian: it is for processes of one build on one machine.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..errors import ConfigurationError

DEFAULT_ENTRIES = 10000
SET_SIZE = 128  # entries of a set; each set is a ring
MAX_LOCKS = 8  # of sessions, as NSS has them on Linux; one more is for certificates

DEFAULT_SSL2_TIMEOUT = MAX_SSL2_TIMEOUT = 100  # seconds
DEFAULT_SSL3_TIMEOUT = MAX_SSL3_TIMEOUT = 86400
MIN_TIMEOUT = 5

MAX_SESSION_ID = 32
HEADER_BYTES = 4096
TAG_BYTES = 8
SET_HEAD = struct.Struct("=IIQQ8x")  # next slot, unused, hits, misses
SET_BYTES = SET_HEAD.size + SET_SIZE * TAG_BYTES

# Address, session id and its length, created and expires (seconds since 1970): what an entry's seal covers besides its state.
ABOUT = struct.Struct("=16s32sIIB3x")
PLACE = struct.Struct("=II")  # index of the client-certificate entry, length of the sealed state
ENTRY_HEAD = ABOUT.size + PLACE.size
ENTRY_BYTES = 512
ENTRY_ROOM = ENTRY_BYTES - ENTRY_HEAD

CERTIFICATE_HEAD = struct.Struct("=HH32s")  # length, length of session id, session id
CERTIFICATE_BYTES = 4096
CERTIFICATE_ROOM = CERTIFICATE_BYTES - CERTIFICATE_HEAD.size  # 4060
MIN_CERTIFICATES = 125


def ssl2_timeout(seconds: int) -> int:
    """What NSS makes of an SSL 2 timeout: 0 is the default of 100 s, else at least 5 s and at most 100 s."""
    return _within(seconds or DEFAULT_SSL2_TIMEOUT, MAX_SSL2_TIMEOUT)


def ssl3_timeout(seconds: int) -> int:
    """What NSS makes of the timeout of SSL 3.0 and later: 0 is the default of 24 h, else at least 5 s and at most 24 h."""
    return _within(seconds or DEFAULT_SSL3_TIMEOUT, MAX_SSL3_TIMEOUT)


def _within(seconds: int, most: int) -> int:
    return max(MIN_TIMEOUT, min(seconds, most))


class Layout(NamedTuple):
    """The three tables one behind the other: set heads with their tags, session entries, certificate entries."""

    sets: int
    certificates: int

    @classmethod
    def of(cls, max_entries: int) -> Layout:
        """For so many sessions, rounded up to whole sets; 0 or less is NSS's default.

        Raises ConfigurationError where the size, which has 32 bits, would be too large.
        """
        sets = -(-(max_entries if max_entries > 0 else DEFAULT_ENTRIES) // SET_SIZE)
        layout = cls(sets, max(MIN_CERTIFICATES, sets * SET_SIZE * ENTRY_BYTES // CERTIFICATE_BYTES))
        if layout.size >= 1 << 32:
            raise ConfigurationError(f"a session cache of {max_entries} entries is too large")
        return layout

    @property
    def locks(self) -> int:
        """Of sessions; the number behind the last is the certificates' lock."""
        return min(self.sets, MAX_LOCKS)

    @property
    def entries(self) -> int:
        return self.sets * SET_SIZE

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return self.certificate_at(self.certificates)

    def set_at(self, number: int) -> int:
        return HEADER_BYTES + number * SET_BYTES

    def entry_at(self, number: int, slot: int) -> int:
        return self.set_at(self.sets) + (number * SET_SIZE + slot) * ENTRY_BYTES

    def certificate_at(self, index: int) -> int:
        return self.entry_at(self.sets, 0) + index * CERTIFICATE_BYTES
