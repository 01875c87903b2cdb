"""Suites: which there are, in which order, which are on, and what the three policies permit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import nss, prio, ssl, sslproto
from nss_pk11.nss._layers import PRFileDesc
from nss_pk11.nss._settings import Settings
from nss_pk11.tls.suites import BY_CODE, BY_NAME
from tests.nss.kinds import refused


class Row(NamedTuple):
    """What NSS's code (3.10) says of a suite, and the manual, which permits a few less under policies.  `on`: by default."""

    name: str
    on: bool
    export: int = 0
    france: int = 0
    exportable: bool = False


# In the manual's order, which is that of SSL_ImplementedCiphers.
SSL3 = [
    Row("TLS_DHE_RSA_WITH_AES_256_CBC_SHA", False),
    Row("TLS_DHE_DSS_WITH_AES_256_CBC_SHA", False),
    Row("TLS_RSA_WITH_AES_256_CBC_SHA", False),
    Row("SSL_FORTEZZA_DMS_WITH_RC4_128_SHA", True),
    Row("TLS_DHE_DSS_WITH_RC4_128_SHA", False),
    Row("TLS_DHE_RSA_WITH_AES_128_CBC_SHA", False),
    Row("TLS_DHE_DSS_WITH_AES_128_CBC_SHA", False),
    Row("SSL_RSA_WITH_RC4_128_MD5", True, export=2),
    Row("SSL_RSA_WITH_RC4_128_SHA", False, export=2),
    Row("TLS_RSA_WITH_AES_128_CBC_SHA", False),
    Row("SSL_DHE_RSA_WITH_3DES_EDE_CBC_SHA", False),
    Row("SSL_DHE_DSS_WITH_3DES_EDE_CBC_SHA", False),
    Row("SSL_RSA_FIPS_WITH_3DES_EDE_CBC_SHA", True),
    Row("SSL_RSA_WITH_3DES_EDE_CBC_SHA", True, export=2),
    Row("SSL_FORTEZZA_DMS_WITH_FORTEZZA_CBC_SHA", True),
    Row("SSL_DHE_RSA_WITH_DES_CBC_SHA", False),
    Row("SSL_DHE_DSS_WITH_DES_CBC_SHA", False),
    Row("SSL_RSA_FIPS_WITH_DES_CBC_SHA", True),
    Row("SSL_RSA_WITH_DES_CBC_SHA", True),
    Row("TLS_RSA_EXPORT1024_WITH_RC4_56_SHA", True, export=1, exportable=True),
    Row("TLS_RSA_EXPORT1024_WITH_DES_CBC_SHA", True, export=1, exportable=True),
    Row("SSL_RSA_EXPORT_WITH_RC4_40_MD5", True, export=1, france=1, exportable=True),
    Row("SSL_RSA_EXPORT_WITH_RC2_CBC_40_MD5", True, export=1, france=1, exportable=True),
    Row("SSL_FORTEZZA_DMS_WITH_NULL_SHA", True, exportable=True),
    Row("SSL_RSA_WITH_NULL_SHA", False, export=1, france=1, exportable=True),
    Row("SSL_RSA_WITH_NULL_MD5", False, export=1, france=1, exportable=True),
]
SSL2 = [
    Row("SSL_EN_RC4_128_WITH_MD5", True),
    Row("SSL_EN_RC2_128_CBC_WITH_MD5", True),
    Row("SSL_EN_DES_192_EDE3_CBC_WITH_MD5", True),
    Row("SSL_EN_DES_64_CBC_WITH_MD5", True),
    Row("SSL_EN_RC4_128_EXPORT40_WITH_MD5", True, export=1, france=1, exportable=True),
    Row("SSL_EN_RC2_128_CBC_EXPORT40_WITH_MD5", True, export=1, france=1, exportable=True),
]
HERE = {code for code in BY_CODE if code not in (0xFFE0, 0xFFE1)}
ROWS = [row for row in SSL3 + SSL2 if getattr(sslproto, row.name) in HERE]
LATER = [code for code in ssl.SSL_ImplementedCiphers if code not in {getattr(sslproto, row.name) for row in ROWS}]
UNKNOWN = [0x0007, 0x0063, 0x0065, 0xFF05, 0x0000, 0xFFE0, 0xFFE1, 0x1D3A3]  # IDEA, other EXPORT1024, the old FIPS numbers, none


def code(row: Row) -> int:
    number: int = getattr(sslproto, row.name)
    return number


each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


pytestmark = pytest.mark.usefixtures("factory_settings")


@pytest.fixture
def fd() -> Iterator[PRFileDesc]:
    made = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    yield made
    prio.PR_Close(made)


# --- what there is ---------------------------------------------------------------------------------------------------


def test_the_manuals_suites_come_first_in_its_order() -> None:
    assert list(ssl.SSL_ImplementedCiphers[: len(ROWS)]) == [code(row) for row in ROWS]
    assert len(ROWS) >= 23  # all but FORTEZZA and SSL 2, if those are not here


def test_this_table_is_the_manuals() -> None:
    """In its order for SSL 3; SSL 2 it lists in no order."""
    manual = json.loads((Path(__file__).parents[2] / "fixtures/sslfnc.json").read_text("utf-8"))
    assert {row.name: row.on for row in SSL3} == manual["ssl3"]
    assert [row.name for row in SSL3] == list(manual["ssl3"])
    assert sorted(row.name for row in SSL2) == sorted(manual["ssl2"])


def test_the_table_is_told_in_three_ways() -> None:
    assert ssl.SSL_GetImplementedCiphers() is ssl.SSL_ImplementedCiphers
    assert ssl.SSL_NumImplementedCiphers == ssl.SSL_GetNumImplementedCiphers() == len(ssl.SSL_ImplementedCiphers)
    assert set(ssl.SSL_ImplementedCiphers) == HERE


@pytest.mark.parametrize("row", SSL3, ids=lambda row: row.name)
def test_the_numbers_are_the_engines(row: Row) -> None:
    if code(row) in BY_CODE:
        assert BY_NAME[row.name].code == code(row)
    assert not sslproto.SSL_IS_SSL2_CIPHER(code(row))


def test_ssl2_has_numbers_of_its_own() -> None:
    assert all(sslproto.SSL_IS_SSL2_CIPHER(code(row)) for row in SSL2)
    assert [number for number in range(0x10000) if sslproto.SSL_IS_SSL2_CIPHER(number)] == list(range(0xFF00, 0xFF10))


# --- preferences: SSL_CipherPrefSetDefault, SSL_CipherPrefGetDefault, SSL_CipherPrefSet, SSL_CipherPrefGet, SSL_EnableCipher ---


@each_row
def test_what_is_on_by_default(row: Row, fd: PRFileDesc) -> None:
    assert ssl.SSL_CipherPrefGetDefault(code(row)) is row.on
    assert ssl.SSL_CipherPrefGet(fd, code(row)) is row.on


def test_of_ssl3_12_are_on_with_fortezza() -> None:
    assert sum(row.on for row in SSL3) == 12


@pytest.mark.parametrize("number", LATER, ids=lambda number: BY_CODE[number].name)
def test_what_later_nss_has_on(number: int) -> None:
    suite = BY_CODE[number]
    expected = "CCM" not in suite.name and not re.search("CBC_SHA384$", suite.name)
    assert ssl.SSL_CipherPrefGetDefault(number) is expected


@pytest.mark.parametrize("number", [row.name for row in ROWS])
def test_a_suite_is_switched(number: str, fd: PRFileDesc) -> None:
    which = getattr(sslproto, number)
    for enabled in (True, False):
        ssl.SSL_CipherPrefSetDefault(which, enabled)
        assert ssl.SSL_CipherPrefGetDefault(which) is enabled
        ssl.SSL_CipherPrefSet(fd, which, not enabled)
        assert ssl.SSL_CipherPrefGet(fd, which) is not enabled
        ssl.SSL_EnableCipher(which, not enabled)
        assert ssl.SSL_CipherPrefGetDefault(which) is not enabled


def test_a_preference_is_for_sockets_that_come_later(fd: PRFileDesc) -> None:
    which = sslproto.SSL_RSA_WITH_RC4_128_MD5
    ssl.SSL_CipherPrefSetDefault(which, False)
    later = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    of_model = ssl.SSL_ImportFD(fd, prio.PR_NewTCPSocket())
    assert [ssl.SSL_CipherPrefGet(each, which) for each in (fd, later, of_model)] == [True, False, True]
    prio.PR_Close(later)
    prio.PR_Close(of_model)


@pytest.mark.parametrize("number", UNKNOWN)
def test_no_such_suite(number: int, fd: PRFileDesc, error: Callable[[], str]) -> None:
    calls: list[tuple[Callable[..., object], tuple[object, ...]]] = [
        (ssl.SSL_CipherPrefSetDefault, (number, True)),
        (ssl.SSL_CipherPrefGetDefault, (number,)),
        (ssl.SSL_CipherPrefSet, (fd, number, True)),
        (ssl.SSL_CipherPrefGet, (fd, number)),
        (ssl.SSL_CipherPolicySet, (number, 1)),
        (ssl.SSL_CipherPolicyGet, (number,)),
    ]
    for call, arguments in calls:
        assert refused(error, call, *arguments) == "SSL_ERROR_UNKNOWN_CIPHER_SUITE"


def test_a_plain_descriptor_has_no_suites(error: Callable[[], str]) -> None:
    plain = prio.PR_NewTCPSocket()
    which = sslproto.SSL_RSA_WITH_RC4_128_MD5
    assert refused(error, ssl.SSL_CipherPrefSet, plain, which, True) == "PR_BAD_DESCRIPTOR_ERROR"
    assert refused(error, ssl.SSL_CipherPrefGet, plain, which) == "PR_BAD_DESCRIPTOR_ERROR"
    prio.PR_Close(plain)


def test_old_fips_numbers_are_known_to_old_functions_alone() -> None:
    for old, new in ((0xFFE0, 0xFEFF), (0xFFE1, 0xFEFE)):
        ssl.SSL_EnableCipher(old, False)
        assert ssl.SSL_CipherPrefGetDefault(new) is False
        ssl.SSL_SetPolicy(old, ssl.SSL_RESTRICTED)
        assert ssl.SSL_CipherPolicyGet(new) == ssl.SSL_RESTRICTED


@pytest.mark.parametrize("of_socket", [False, True])
def test_no_step_down_switches_exportable_suites_off_for_good(of_socket: bool, fd: PRFileDesc, error: Callable[[], str]) -> None:
    """SSL_NO_STEP_DOWN: off again, it leaves them off, but they may be switched on."""

    def switch(on: int) -> None:
        if of_socket:
            ssl.SSL_OptionSet(fd, ssl.SSL_NO_STEP_DOWN, on)
        else:
            ssl.SSL_OptionSetDefault(ssl.SSL_NO_STEP_DOWN, on)

    def get(which: int) -> bool:
        return ssl.SSL_CipherPrefGet(fd, which) if of_socket else ssl.SSL_CipherPrefGetDefault(which)

    def enable(which: int) -> None:
        if of_socket:
            ssl.SSL_CipherPrefSet(fd, which, True)
        else:
            ssl.SSL_CipherPrefSetDefault(which, True)

    exportable = [code(row) for row in ROWS if row.exportable]
    switch(1)
    for row in ROWS:
        assert get(code(row)) is (row.on and not row.exportable), row.name
    for which in exportable:
        assert refused(error, enable, which) == "SEC_ERROR_INVALID_ALGORITHM"
    switch(0)
    assert not any(get(which) for which in exportable)
    for which in exportable:
        enable(which)
        assert get(which)


# --- policy ----------------------------------------------------------------------------------------------------------


def test_nothing_is_permitted_before_a_policy_call(fd: PRFileDesc) -> None:
    nss.NSS_NoDB_Init()
    assert {ssl.SSL_CipherPolicyGet(number) for number in ssl.SSL_ImplementedCiphers} == {ssl.SSL_NOT_ALLOWED}
    with pytest.raises(NSPRError) as caught:
        Settings.defaults.client_config()
    assert caught.value.name == "SSL_ERROR_SSL_DISABLED"


def test_the_domestic_policy_permits_everything() -> None:
    ssl.NSS_SetDomesticPolicy()
    assert {ssl.SSL_CipherPolicyGet(number) for number in ssl.SSL_ImplementedCiphers} == {ssl.SSL_ALLOWED}


@each_row
def test_the_export_policy(row: Row) -> None:
    ssl.NSS_SetDomesticPolicy()
    ssl.NSS_SetExportPolicy()
    assert ssl.SSL_CipherPolicyGet(code(row)) == row.export


@each_row
def test_the_france_policy(row: Row) -> None:
    ssl.NSS_SetDomesticPolicy()
    ssl.NSS_SetFrancePolicy()
    assert ssl.SSL_CipherPolicyGet(code(row)) == row.france


@pytest.mark.parametrize("policy", [ssl.NSS_SetExportPolicy, ssl.NSS_SetFrancePolicy])
def test_what_came_later_was_never_exported(policy: Callable[[], None]) -> None:
    policy()
    assert {ssl.SSL_CipherPolicyGet(number) for number in LATER} == {ssl.SSL_NOT_ALLOWED}


@pytest.mark.parametrize("call", [ssl.SSL_CipherPolicySet, ssl.SSL_SetPolicy])
def test_policy_of_one_suite(call: Callable[[int, int], None]) -> None:
    """The number is not looked at, as in C."""
    which = sslproto.TLS_RSA_WITH_AES_128_CBC_SHA
    for policy in (ssl.SSL_ALLOWED, ssl.SSL_RESTRICTED, ssl.SSL_NOT_ALLOWED, 3):
        call(which, policy)
        assert ssl.SSL_CipherPolicyGet(which) == policy
    assert ssl.SSL_CipherPolicyGet(sslproto.TLS_RSA_WITH_AES_256_CBC_SHA) == ssl.SSL_NOT_ALLOWED


def test_policies_have_numbers() -> None:
    assert (ssl.SSL_NOT_ALLOWED, ssl.SSL_ALLOWED, ssl.SSL_RESTRICTED) == (0, 1, 2)


def test_policy_is_for_sockets_that_come_later(fd: PRFileDesc) -> None:
    nss.NSS_NoDB_Init()
    ssl.NSS_SetDomesticPolicy()
    settings = fd.settings
    assert settings is not None
    with pytest.raises(NSPRError) as caught:
        settings.client_config()
    assert caught.value.name == "SSL_ERROR_SSL_DISABLED"


# --- what follows from both ------------------------------------------------------------------------------------------


def offered(settings: Settings, *, restricted: bool = False) -> set[int]:
    return {suite.code for suite in settings.client_config(restricted=restricted).usable_suites()}


def test_a_suite_is_offered_that_is_on_and_permitted() -> None:
    nss.NSS_NoDB_Init()
    both, off, forbidden = sslproto.SSL_RSA_WITH_RC4_128_MD5, sslproto.SSL_RSA_WITH_RC4_128_SHA, sslproto.SSL_RSA_WITH_DES_CBC_SHA
    ssl.SSL_CipherPolicySet(both, ssl.SSL_ALLOWED)
    ssl.SSL_CipherPolicySet(off, ssl.SSL_ALLOWED)
    assert ssl.SSL_CipherPrefGetDefault(forbidden)
    assert offered(Settings.defaults.copy()) == {both}


def test_a_policy_that_is_none_permits_nothing() -> None:
    nss.NSS_NoDB_Init()
    ssl.SSL_CipherPolicySet(sslproto.SSL_RSA_WITH_RC4_128_MD5, 3)
    ssl.SSL_CipherPolicySet(sslproto.SSL_RSA_WITH_3DES_EDE_CBC_SHA, ssl.SSL_ALLOWED)
    assert offered(Settings.defaults.copy(), restricted=True) == {sslproto.SSL_RSA_WITH_3DES_EDE_CBC_SHA}


def test_restricted_suites_are_offered_after_step_up_only() -> None:
    nss.NSS_NoDB_Init()
    ssl.NSS_SetExportPolicy()
    ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_SSL2, True)
    settings = Settings.defaults.copy()
    weak = {code(row) for row in ROWS if row.on and row.export == 1}
    strong = {code(row) for row in ROWS if row.on and row.export == 2}
    assert weak
    assert strong
    assert settings.has_restricted_suites
    assert offered(settings) == weak
    assert offered(settings, restricted=True) == weak | strong


def test_the_domestic_policy_restricts_nothing() -> None:
    ssl.NSS_SetDomesticPolicy()
    assert not Settings.defaults.has_restricted_suites


def test_old_suites_are_offered_last() -> None:
    """Differs: NSS 3.10 knows none better, and prefers by the order of its table."""
    nss.NSS_NoDB_Init()
    ssl.NSS_SetDomesticPolicy()
    order = [suite.code for suite in Settings.defaults.client_config().usable_suites()]
    manual = {code(row) for row in ROWS}
    first_old = next(place for place, number in enumerate(order) if number in manual)
    assert not manual & set(order[:first_old])
    assert set(order[first_old:]) <= manual
    assert order[first_old:] == [number for number in ssl.SSL_ImplementedCiphers if number in order[first_old:]]
