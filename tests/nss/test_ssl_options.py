"""Options and version ranges, of the process and of sockets, as the manual and NSS's code have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nss_pk11.nss import prio, ssl
from nss_pk11.nss._layers import PRFileDesc
from nss_pk11.nss.ssl import SSLVersionRange
from nss_pk11.nss.sslproto import (
    SSL_LIBRARY_VERSION_3_0,
    SSL_LIBRARY_VERSION_NONE,
    SSL_LIBRARY_VERSION_TLS_1_0,
    SSL_LIBRARY_VERSION_TLS_1_1,
    SSL_LIBRARY_VERSION_TLS_1_2,
    SSL_LIBRARY_VERSION_TLS_1_3,
)
from tests.nss.kinds import refused

STREAM, DATAGRAM = ssl.SSLProtocolVariant

# The manual's: name, number, factory setting.
MANUAL = [
    ("SSL_SECURITY", 1, 1),
    ("SSL_SOCKS", 2, 0),
    ("SSL_REQUEST_CERTIFICATE", 3, 0),
    ("SSL_HANDSHAKE_AS_CLIENT", 5, 0),
    ("SSL_HANDSHAKE_AS_SERVER", 6, 0),
    ("SSL_ENABLE_SSL2", 7, 0),  # the manual says 1: see nss-differences.md
    ("SSL_ENABLE_SSL3", 8, 1),
    ("SSL_NO_CACHE", 9, 0),
    ("SSL_REQUIRE_CERTIFICATE", 10, 2),
    ("SSL_ENABLE_FDX", 11, 0),
    ("SSL_V2_COMPATIBLE_HELLO", 12, 0),  # and 1
    ("SSL_ENABLE_TLS", 13, 1),
    ("SSL_ROLLBACK_DETECTION", 14, 1),
    ("SSL_NO_STEP_DOWN", 15, 0),
]
LATER = [
    ("SSL_ENABLE_SESSION_TICKETS", 18, 0),
    ("SSL_ENABLE_RENEGOTIATION", 20, 2),
    ("SSL_REQUIRE_SAFE_NEGOTIATION", 21, 0),
    ("SSL_CBC_RANDOM_IV", 23, 1),
    ("SSL_ENABLE_OCSP_STAPLING", 24, 0),
    ("SSL_ENABLE_ALPN", 26, 1),
    ("SSL_ENABLE_FALLBACK_SCSV", 28, 0),
    ("SSL_ENABLE_SERVER_DHE", 29, 1),
    ("SSL_ENABLE_EXTENDED_MASTER_SECRET", 30, 1),
    ("SSL_REQUIRE_DH_NAMED_GROUPS", 32, 0),
    ("SSL_RECORD_SIZE_LIMIT", 34, 16385),
    ("SSL_ENABLE_TLS13_COMPAT_MODE", 35, 0),
    ("SSL_ENABLE_POST_HANDSHAKE_AUTH", 39, 0),
]
# What is always so, or never.
FIXED = [
    ("SSL_BYPASS_PKCS11", 16, 0),
    ("SSL_NO_LOCKS", 17, 0),
    ("SSL_ENABLE_DEFLATE", 19, 0),
    ("SSL_ENABLE_FALSE_START", 22, 0),
    ("SSL_ENABLE_NPN", 25, 0),
    ("SSL_REUSE_SERVER_ECDHE_KEY", 27, 0),
    ("SSL_ENABLE_SIGNED_CERT_TIMESTAMPS", 31, 0),
    ("SSL_ENABLE_0RTT_DATA", 33, 0),
    ("SSL_ENABLE_DTLS_SHORT_HEADER", 36, 0),
    ("SSL_ENABLE_HELLO_DOWNGRADE_CHECK", 37, 1),
    ("SSL_ENABLE_V2_COMPATIBLE_HELLO", 38, 0),
    ("SSL_ENABLE_DELEGATED_CREDENTIALS", 40, 0),
    ("SSL_SUPPRESS_END_OF_EARLY_DATA", 41, 0),
    ("SSL_ENABLE_GREASE", 42, 0),
    ("SSL_ENABLE_CH_EXTENSION_PERMUTATION", 43, 0),
    ("SSL_DB_LOAD_CERTIFICATE_CHAIN", 44, 1),
]
FREE = [
    number
    for name, number, _ in MANUAL + LATER
    if name not in ("SSL_SOCKS", "SSL_REQUIRE_CERTIFICATE", "SSL_ENABLE_RENEGOTIATION", "SSL_RECORD_SIZE_LIMIT")
]

Set = Callable[[int, int], None]
Get = Callable[[int], int]


pytestmark = pytest.mark.usefixtures("factory_settings")


@pytest.fixture
def fd() -> Iterator[PRFileDesc]:
    made = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    yield made
    prio.PR_Close(made)


@pytest.fixture
def plain() -> Iterator[PRFileDesc]:
    """A descriptor without SSL."""
    made = prio.PR_NewTCPSocket()
    yield made
    prio.PR_Close(made)


@pytest.fixture(params=["process", "socket", "deprecated process", "deprecated socket"])
def option(request: pytest.FixtureRequest, fd: PRFileDesc) -> tuple[Set, Get]:
    """Setting and getting, by each of the functions for it."""

    def of_socket(which: int) -> int:
        return ssl.SSL_OptionGet(fd, which)

    ways: dict[str, tuple[Set, Get]] = {
        "process": (ssl.SSL_OptionSetDefault, ssl.SSL_OptionGetDefault),
        "socket": (lambda which, on: ssl.SSL_OptionSet(fd, which, on), of_socket),
        "deprecated process": (ssl.SSL_EnableDefault, ssl.SSL_OptionGetDefault),
        "deprecated socket": (lambda which, on: ssl.SSL_Enable(fd, which, on), of_socket),
    }
    return ways[request.param]


# --- SSL_OptionSetDefault, SSL_OptionGetDefault, SSL_OptionSet, SSL_OptionGet, SSL_EnableDefault, SSL_Enable ---


@pytest.mark.parametrize(("name", "number", "factory"), MANUAL + LATER + FIXED)
def test_the_factory_settings(name: str, number: int, factory: int, fd: PRFileDesc) -> None:
    assert getattr(ssl, name) == number
    assert ssl.SSL_OptionGetDefault(number) == factory
    assert ssl.SSL_OptionGet(fd, number) == factory


@pytest.mark.parametrize("number", FREE)
def test_options_are_switched_on_and_off(number: int, option: tuple[Set, Get]) -> None:
    switch, get = option
    for value in (True, False, 1, 0):
        switch(number, value)
        assert get(number) == int(value)


@pytest.mark.parametrize("number", FREE)
def test_any_value_but_0_is_on(number: int) -> None:
    ssl.SSL_OptionSetDefault(number, 0)
    ssl.SSL_OptionSetDefault(number, 7)
    assert ssl.SSL_OptionGetDefault(number) == 1


def test_defaults_are_for_sockets_that_come_later(fd: PRFileDesc) -> None:
    ssl.SSL_OptionSetDefault(ssl.SSL_NO_CACHE, 1)
    later = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    assert ssl.SSL_OptionGet(fd, ssl.SSL_NO_CACHE) == 0
    assert ssl.SSL_OptionGet(later, ssl.SSL_NO_CACHE) == 1
    prio.PR_Close(later)


def test_a_model_gives_its_options_and_keeps_its_own(fd: PRFileDesc) -> None:
    ssl.SSL_OptionSet(fd, ssl.SSL_REQUEST_CERTIFICATE, 1)
    ssl.SSL_OptionSet(fd, ssl.SSL_HANDSHAKE_AS_CLIENT, 1)
    copy = ssl.SSL_ImportFD(fd, prio.PR_NewTCPSocket())
    ssl.SSL_OptionSet(fd, ssl.SSL_REQUEST_CERTIFICATE, 0)
    assert ssl.SSL_OptionGet(copy, ssl.SSL_REQUEST_CERTIFICATE) == 1
    assert ssl.SSL_OptionGet(copy, ssl.SSL_HANDSHAKE_AS_CLIENT) == 1
    prio.PR_Close(copy)


@pytest.mark.parametrize("number", [0, 4, 45, -1, 9999])
def test_there_is_no_such_option(number: int, option: tuple[Set, Get], error: Callable[[], str]) -> None:
    switch, get = option
    assert refused(error, switch, number, 1) == "SEC_ERROR_INVALID_ARGS"
    assert refused(error, switch, number, 0) == "SEC_ERROR_INVALID_ARGS"
    assert refused(error, get, number) == "SEC_ERROR_INVALID_ARGS"


def test_socks_cannot_be_switched_on(option: tuple[Set, Get], error: Callable[[], str]) -> None:
    switch, get = option
    assert refused(error, switch, ssl.SSL_SOCKS, 1) == "SEC_ERROR_INVALID_ARGS"
    switch(ssl.SSL_SOCKS, 0)
    assert get(ssl.SSL_SOCKS) == 0


@pytest.mark.parametrize(("name", "number", "factory"), FIXED)
def test_what_is_always_so_stays(name: str, number: int, factory: int, option: tuple[Set, Get], error: Callable[[], str]) -> None:
    switch, get = option
    assert refused(error, switch, number, 1 - factory) == "SEC_ERROR_INVALID_ARGS"
    switch(number, factory)
    assert get(number) == factory


@pytest.mark.parametrize(("first", "second"), [(5, 6), (6, 5)])
def test_the_roles_exclude_each_other(first: int, second: int, option: tuple[Set, Get], error: Callable[[], str]) -> None:
    switch, get = option
    switch(first, 1)
    assert refused(error, switch, second, 1) == "SEC_ERROR_INVALID_ARGS"
    assert (get(first), get(second)) == (1, 0)
    switch(second, 0)
    switch(first, 0)
    switch(second, 1)
    assert (get(first), get(second)) == (0, 1)


def test_ssl2_and_its_hello_hang_together(option: tuple[Set, Get]) -> None:
    switch, get = option
    switch(ssl.SSL_V2_COMPATIBLE_HELLO, 0)
    assert (get(ssl.SSL_ENABLE_SSL2), get(ssl.SSL_V2_COMPATIBLE_HELLO)) == (0, 0)
    switch(ssl.SSL_ENABLE_SSL2, 1)
    assert (get(ssl.SSL_ENABLE_SSL2), get(ssl.SSL_V2_COMPATIBLE_HELLO)) == (1, 1)
    switch(ssl.SSL_ENABLE_SSL2, 0)
    assert (get(ssl.SSL_ENABLE_SSL2), get(ssl.SSL_V2_COMPATIBLE_HELLO)) == (0, 1)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("SSL_REQUIRE_CERTIFICATE", (0, 1, 2, 3), (-1, 4)),
        ("SSL_ENABLE_RENEGOTIATION", (0, 1, 2, 3), (-1, 4)),
        ("SSL_RECORD_SIZE_LIMIT", (64, 4096, 16385), (0, 63, 16386)),
    ],
)
def test_options_with_more_values(
    name: str, good: tuple[int, ...], bad: tuple[int, ...], option: tuple[Set, Get], error: Callable[[], str]
) -> None:
    switch, get = option
    number = getattr(ssl, name)
    for value in good:
        switch(number, value)
        assert get(number) == value
    for value in bad:
        assert refused(error, switch, number, value) == "SEC_ERROR_INVALID_ARGS"
    assert get(number) == good[-1]


def test_their_values_have_names() -> None:
    assert [ssl.SSL_REQUIRE_NEVER, ssl.SSL_REQUIRE_ALWAYS, ssl.SSL_REQUIRE_FIRST_HANDSHAKE, ssl.SSL_REQUIRE_NO_ERROR] == [
        0,
        1,
        2,
        3,
    ]
    assert [ssl.SSL_RENEGOTIATE_NEVER, ssl.SSL_RENEGOTIATE_UNRESTRICTED] == [0, 1]
    assert [ssl.SSL_RENEGOTIATE_REQUIRES_XTN, ssl.SSL_RENEGOTIATE_TRANSITIONAL] == [2, 3]


@pytest.mark.parametrize("call", [ssl.SSL_OptionSet, ssl.SSL_Enable])
def test_a_plain_descriptor_has_no_options(call: Callable[..., None], plain: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, call, plain, ssl.SSL_NO_CACHE, 1) == "PR_BAD_DESCRIPTOR_ERROR"
    assert refused(error, ssl.SSL_OptionGet, plain, ssl.SSL_NO_CACHE) == "PR_BAD_DESCRIPTOR_ERROR"


# --- versions --------------------------------------------------------------------------------------------------------

ALL = SSLVersionRange(SSL_LIBRARY_VERSION_3_0, SSL_LIBRARY_VERSION_TLS_1_3)


def test_what_is_supported_and_on_by_default(fd: PRFileDesc) -> None:
    assert ssl.SSL_VersionRangeGetSupported(STREAM) == ALL
    assert ssl.SSL_VersionRangeGetDefault(STREAM) == ALL
    assert ssl.SSL_VersionRangeGet(fd) == ALL


def test_a_socket_has_its_own_range(fd: PRFileDesc) -> None:
    ssl.SSL_VersionRangeSet(fd, SSLVersionRange(SSL_LIBRARY_VERSION_TLS_1_1, SSL_LIBRARY_VERSION_TLS_1_2))
    assert ssl.SSL_VersionRangeGet(fd) == (SSL_LIBRARY_VERSION_TLS_1_1, SSL_LIBRARY_VERSION_TLS_1_2)
    assert ssl.SSL_VersionRangeGetDefault(STREAM) == ALL


def test_a_default_range_is_for_sockets_that_come_later(fd: PRFileDesc) -> None:
    ssl.SSL_VersionRangeSetDefault(STREAM, (SSL_LIBRARY_VERSION_TLS_1_2, SSL_LIBRARY_VERSION_TLS_1_2))
    later = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    assert ssl.SSL_VersionRangeGet(fd) == ALL
    assert ssl.SSL_VersionRangeGet(later) == (SSL_LIBRARY_VERSION_TLS_1_2, SSL_LIBRARY_VERSION_TLS_1_2)
    prio.PR_Close(later)


@pytest.mark.parametrize(
    "vrange",
    [
        (SSL_LIBRARY_VERSION_TLS_1_2, SSL_LIBRARY_VERSION_TLS_1_1),
        (1, SSL_LIBRARY_VERSION_TLS_1_1),
        (SSL_LIBRARY_VERSION_TLS_1_2, 0x0305),
        (SSL_LIBRARY_VERSION_NONE, SSL_LIBRARY_VERSION_NONE),
    ],
)
def test_a_range_that_is_none(vrange: tuple[int, int], fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_VersionRangeSet, fd, vrange) == "SSL_ERROR_INVALID_VERSION_RANGE"
    assert refused(error, ssl.SSL_VersionRangeSetDefault, STREAM, vrange) == "SSL_ERROR_INVALID_VERSION_RANGE"
    assert ssl.SSL_VersionRangeGet(fd) == ssl.SSL_VersionRangeGetDefault(STREAM) == ALL


def test_a_range_is_needed(fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_VersionRangeSet, fd, None) == "SEC_ERROR_INVALID_ARGS"
    assert refused(error, ssl.SSL_VersionRangeSetDefault, STREAM, None) == "SEC_ERROR_INVALID_ARGS"


def test_dtls_is_not_done(error: Callable[[], str]) -> None:
    for call in (ssl.SSL_VersionRangeGetSupported, ssl.SSL_VersionRangeGetDefault):
        assert refused(error, call, DATAGRAM) == "SEC_ERROR_INVALID_ARGS"
    assert refused(error, ssl.SSL_VersionRangeSetDefault, DATAGRAM, ALL) == "SEC_ERROR_INVALID_ARGS"


def test_a_plain_descriptor_has_no_versions(plain: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_VersionRangeGet, plain) == "PR_BAD_DESCRIPTOR_ERROR"
    assert refused(error, ssl.SSL_VersionRangeSet, plain, ALL) == "PR_BAD_DESCRIPTOR_ERROR"


def test_options_and_range_tell_the_same(fd: PRFileDesc) -> None:
    def on() -> tuple[int, int]:
        return ssl.SSL_OptionGet(fd, ssl.SSL_ENABLE_SSL3), ssl.SSL_OptionGet(fd, ssl.SSL_ENABLE_TLS)

    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_SSL3, 0)
    assert ssl.SSL_VersionRangeGet(fd) == (SSL_LIBRARY_VERSION_TLS_1_0, SSL_LIBRARY_VERSION_TLS_1_3)
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_TLS, 0)
    assert ssl.SSL_VersionRangeGet(fd) == (SSL_LIBRARY_VERSION_NONE, SSL_LIBRARY_VERSION_NONE)
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_SSL3, 1)
    assert ssl.SSL_VersionRangeGet(fd) == (SSL_LIBRARY_VERSION_3_0, SSL_LIBRARY_VERSION_3_0)
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_TLS, 1)
    assert ssl.SSL_VersionRangeGet(fd) == ALL
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_TLS, 0)
    assert ssl.SSL_VersionRangeGet(fd) == (SSL_LIBRARY_VERSION_3_0, SSL_LIBRARY_VERSION_3_0)
    assert on() == (1, 0)
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_SSL3, 0)
    assert on() == (0, 0)
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_TLS, 1)
    assert ssl.SSL_VersionRangeGet(fd) == (SSL_LIBRARY_VERSION_TLS_1_0, SSL_LIBRARY_VERSION_TLS_1_3)
    ssl.SSL_VersionRangeSet(fd, (SSL_LIBRARY_VERSION_TLS_1_1, SSL_LIBRARY_VERSION_TLS_1_2))
    assert on() == (0, 1)
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_TLS, 1)
    assert ssl.SSL_VersionRangeGet(fd) == (SSL_LIBRARY_VERSION_TLS_1_1, SSL_LIBRARY_VERSION_TLS_1_2)
