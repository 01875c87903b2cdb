"""Which suites there are for NSS's API, in which order, which are on by default, and what the three policies say of each.

The manual's come first, in NSS's own order; the rows are those of its code (ssl3con.c, sslsock.c of 3.10), which permits a few
suites more than the manual.  What the engine has beyond them is later NSS's.  A suite that the engine does not have is not there.
"""

from __future__ import annotations

from typing import NamedTuple

from ..tls.suites import BY_CODE, EVERY_SUITE, Suite
from ._sslt import SSL_ALLOWED, SSL_NOT_ALLOWED, SSL_RESTRICTED

NO, YES, STEP_UP = SSL_NOT_ALLOWED, SSL_ALLOWED, SSL_RESTRICTED


class Row(NamedTuple):
    """A suite of the manual.  `on`: by default; `export`, `france`: policies; `exportable`: off while SSL_NO_STEP_DOWN is on."""

    code: int
    on: bool
    export: int
    france: int
    exportable: bool = False


# In the order of sslenum.c: strongest first.
MANUAL: tuple[Row, ...] = (
    Row(0x0039, False, NO, NO),
    Row(0x0038, False, NO, NO),
    Row(0x0035, False, NO, NO),
    Row(0x001E, True, NO, NO),
    Row(0x0066, False, NO, NO),
    Row(0x0033, False, NO, NO),
    Row(0x0032, False, NO, NO),
    Row(0x0004, True, STEP_UP, NO),
    Row(0x0005, False, STEP_UP, NO),
    Row(0x002F, False, NO, NO),
    Row(0x0016, False, NO, NO),
    Row(0x0013, False, NO, NO),
    Row(0xFEFF, True, NO, NO),
    Row(0x000A, True, STEP_UP, NO),
    Row(0x001D, True, NO, NO),
    Row(0x0015, False, NO, NO),
    Row(0x0012, False, NO, NO),
    Row(0xFEFE, True, NO, NO),
    Row(0x0009, True, NO, NO),
    Row(0x0064, True, YES, NO, True),
    Row(0x0062, True, YES, NO, True),
    Row(0x0003, True, YES, YES, True),
    Row(0x0006, True, YES, YES, True),
    Row(0x001C, True, NO, NO, True),
    Row(0x0002, False, YES, YES, True),
    Row(0x0001, False, YES, YES, True),
    # SSL 2
    Row(0xFF01, True, NO, NO),
    Row(0xFF03, True, NO, NO),
    Row(0xFF07, True, NO, NO),
    Row(0xFF06, True, NO, NO),
    Row(0xFF02, True, YES, YES, True),
    Row(0xFF04, True, YES, YES, True),
)

# Numbers that SSL_SetPolicy and SSL_EnableCipher still know, and what they mean; no suites of their own here.
OLD_FIPS = {0xFFE0: 0xFEFF, 0xFFE1: 0xFEFE}


def _by_default(suite: Suite) -> bool:
    """Of later NSS's suites: all but those that it has off, or does not have."""
    return suite.mac != "sha384" and "CCM" not in suite.cipher.name


_ROWS = {row.code: row for row in MANUAL}
_LATER = tuple(suite for suite in EVERY_SUITE if suite.code not in _ROWS and suite.code not in OLD_FIPS)

IMPLEMENTED: tuple[int, ...] = (*(row.code for row in MANUAL if row.code in BY_CODE), *(suite.code for suite in _LATER))
RSA_EXPORT = tuple(code for code in IMPLEMENTED if BY_CODE[code].export)
EXPORTABLE = frozenset(row.code for row in MANUAL if row.exportable)

FACTORY_PREFERENCES: dict[int, bool] = {
    code: _ROWS[code].on if code in _ROWS else _by_default(BY_CODE[code]) for code in IMPLEMENTED
}
DOMESTIC: dict[int, int] = dict.fromkeys(IMPLEMENTED, YES)
EXPORT: dict[int, int] = {code: _ROWS[code].export if code in _ROWS else NO for code in IMPLEMENTED}
FRANCE: dict[int, int] = {code: _ROWS[code].france if code in _ROWS else NO for code in IMPLEMENTED}

# What a hello offers: later NSS's first, as it does itself, so that no old suite is taken where both sides know better.
OFFERED: tuple[Suite, ...] = (*_LATER, *(BY_CODE[row.code] for row in MANUAL if row.code in BY_CODE))
