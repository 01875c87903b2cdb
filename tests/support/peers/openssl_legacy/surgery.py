"""What is changed in OpenSSL 1.0.2e so that it can be the peer for everything: rows of tables, a few bytes; no algorithm.

Each change is undone when the `with` is left, so that every connection finds the library as it asks for.
"""

from __future__ import annotations

import contextlib
import ctypes
from ctypes import c_char_p, c_int, c_ulong, c_void_p
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .library import Library


class Row(ctypes.Structure):
    """SSL_CIPHER of 1.0.2."""

    _fields_ = (
        ("valid", c_int),
        ("name", c_char_p),
        ("id", c_ulong),
        ("key_exchange", c_ulong),
        ("authentication", c_ulong),
        ("encryption", c_ulong),
        ("mac", c_ulong),
        ("version", c_ulong),
        ("strength", c_ulong),
        ("extra", c_ulong),
        ("secret_bits", c_int),
        ("bits", c_int),
    )
    if TYPE_CHECKING:
        valid: int
        id: int


SSL3 = 0x03000000  # what ids of SSL 3.0 and TLS begin with
NOT_EXPORT, EXPORT, EXPORT_56, LOW, MEDIUM, HIGH = 1, 2, 0x10, 0x20, 0x40, 0x80

# Suites that 1.0.2 has not: number -> the suite with this key exchange, the one with this cipher, strength, secret bits, bits.
# The code for all of it is there, for other suites.
ADDED = {
    0x0062: (0x09, 0x09, EXPORT | EXPORT_56, 56, 56),  # RSA_EXPORT1024_WITH_DES_CBC_SHA
    0x0064: (0x09, 0x05, EXPORT | EXPORT_56, 56, 128),  # RSA_EXPORT1024_WITH_RC4_56_SHA
    0x0066: (0x12, 0x05, NOT_EXPORT | MEDIUM, 128, 128),  # DHE_DSS_WITH_RC4_128_SHA
    0xFEFE: (0x09, 0x09, NOT_EXPORT | LOW, 56, 56),  # RSA_FIPS_WITH_DES_CBC_SHA
    0xFEFF: (0x0A, 0x0A, NOT_EXPORT | HIGH, 112, 168),  # RSA_FIPS_WITH_3DES_EDE_CBC_SHA
    0xFFE0: (0x0A, 0x0A, NOT_EXPORT | HIGH, 112, 168),  # the same, under the older number
    0xFFE1: (0x09, 0x09, NOT_EXPORT | LOW, 56, 56),  # RSA_FIPS_WITH_DES_CBC_SHA, under the older number
}
FIRST_SLOT = 0x44  # three rows with Camellia make room for the small numbers, the last four rows for the large: ids must ascend


class Suites:
    """The table of suites of SSL 3.0 and TLS, with `ADDED`; `own`: the numbers of those it had before."""

    def __init__(self, library: Library) -> None:
        rows = (Row * (library.size("ssl3_ciphers") // ctypes.sizeof(Row))).from_address(library.address("ssl3_ciphers"))
        self._rows = list(rows)  # of the library's own memory
        self.own = {row.id - SSL3 for row in self._rows if row.valid}
        place = {row.id - SSL3: number for number, row in enumerate(self._rows)}
        slots = [place[FIRST_SLOT] + number for number in range(3)] + [len(self._rows) - 4 + number for number in range(4)]
        self._names = [f"ADDED-{number:04X}".encode() for number in ADDED]  # kept, since the table points at them
        for slot, name, (number, (exchange, cipher, strength, secret_bits, bits)) in zip(
            slots, self._names, ADDED.items(), strict=True
        ):
            like, encrypting = self._rows[place[exchange]], self._rows[place[cipher]]
            exchanging, encrypting_as = (like.key_exchange, like.authentication), (encrypting.encryption, encrypting.mac)
            values = (*exchanging, *encrypting_as, like.version, strength, like.extra, secret_bits, bits)
            self._rows[slot].__init__(1, name, SSL3 + number, *values)
        ids = [row.id for row in self._rows]
        assert ids == sorted(ids)

    @contextlib.contextmanager
    def only(self, numbers: set[int]) -> Iterator[None]:
        """The table holds these suites only: OpenSSL's names cannot tell apart rows that differ in their number alone."""
        before = [row.valid for row in self._rows]
        for row in self._rows:
            row.valid = int(row.id - SSL3 in numbers)
        try:
            yield
        finally:
            for row, valid in zip(self._rows, before, strict=True):
                row.valid = valid


@contextlib.contextmanager
def tls_prf_in_ssl3(library: Library) -> Iterator[None]:
    """SSL 3.0 makes its secrets by the PRF of TLS, as NSS has it for the FIPS suites."""
    table = (c_void_p * (library.size("SSLv3_enc_data") // ctypes.sizeof(c_void_p))).from_address(
        library.address("SSLv3_enc_data")
    )
    instead = {
        library.address(f"ssl3_{name}"): library.address(f"tls1_{name}") for name in ("generate_master_secret", "setup_key_block")
    }
    places = [place for place, function in enumerate(table) if function in instead]
    before = {place: table[place] for place in places}
    assert len(places) == len(instead)
    for place in places:
        table[place] = instead[before[place] or 0]
    try:
        yield
    finally:
        for place, function in before.items():
            table[place] = function


@contextlib.contextmanager
def without_scsv(library: Library) -> Iterator[None]:
    """A ClientHello without TLS_EMPTY_RENEGOTIATION_INFO_SCSV, as before RFC 5746: another number that nobody knows instead."""
    rows = [Row.from_address(library.address(f"scsv.{number}")) for number in range(2)]
    row = next(row for row in rows if row.id == SSL3 + 0x00FF)
    row.id = SSL3 + 0x00AA
    try:
        yield
    finally:
        row.id = SSL3 + 0x00FF


_S3, _SEND_CONNECTION_BINDING = 0x80, 0x4A4  # offsets in SSL of its `s3`, and in that of the flag


def forget_secure_renegotiation(connection: int) -> None:
    """The server has not seen that the client knows RFC 5746."""
    state = c_void_p.from_address(connection + _S3).value
    assert state
    c_int.from_address(state + _SEND_CONNECTION_BINDING).value = 0


def mend_ssl2_resumption(library: Library) -> None:
    """In SSL 2.0 `ssl_get_prev_session` compares the session id's end with a limit that is not given, and aborts every
    resumption: the branch goes.  Not undone, since nothing else goes that way."""
    start = library.address("ssl_get_prev_session")
    code = ctypes.string_at(start, 0x60)
    branch = start + code.index(b"\x48\x39\xc1\x0f\x82") + 3  # cmp %rax,%rcx; jb
    libc: Any = ctypes.CDLL(None)
    libc.mprotect.argtypes = [c_void_p, ctypes.c_size_t, c_int]
    page = start & ~0xFFF
    assert libc.mprotect(page, 0x2000, 7) == 0  # read, write, execute
    ctypes.memmove(branch, b"\x90" * 6, 6)
    assert libc.mprotect(page, 0x2000, 5) == 0
