"""Options and versions, of the process and of a socket (ssl.h).

An option's number says what it is, its value is a PRBool but for a few.  What the engine always does, or never, stays as it is:
setting such an option to anything else is SEC_ERROR_INVALID_ARGS, as NSS answers for an option it does not have.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigurationError, NSPRError
from ..tls.codepoints import Version
from . import _sslt as o
from ._layers import PRFileDesc
from ._settings import ALL_VERSIONS, NO_VERSION, Settings, settings_of
from ._sslt import SSLProtocolVariant, SSLVersionRange
from ._suites import EXPORTABLE
from .prerror import sets_error

__all__ = [
    "SSL_Enable",
    "SSL_EnableDefault",
    "SSL_OptionGet",
    "SSL_OptionGetDefault",
    "SSL_OptionSet",
    "SSL_OptionSetDefault",
    "SSL_VersionRangeGet",
    "SSL_VersionRangeGetDefault",
    "SSL_VersionRangeGetSupported",
    "SSL_VersionRangeSet",
    "SSL_VersionRangeSetDefault",
]


@sets_error
def SSL_OptionSetDefault(option: int, on: int) -> None:
    """Set an option for sockets that are imported from now on (ssl.h).

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS): no such option; SSL_SOCKS on; both of SSL_HANDSHAKE_AS_CLIENT and
    SSL_HANDSHAKE_AS_SERVER; a value that is none; on, what is not done here, or off, what is always done.
    """
    _set(Settings.defaults, option, on)


@sets_error
def SSL_OptionGetDefault(option: int) -> int:
    """An option as new sockets will have it (ssl.h).  Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for no option."""
    return _get(Settings.defaults, option)


@sets_error
def SSL_OptionSet(fd: PRFileDesc, option: int, on: int) -> None:
    """Set an option of a socket (ssl.h).  Raises as SSL_OptionSetDefault; NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    _set(settings_of(fd), option, on)


@sets_error
def SSL_OptionGet(fd: PRFileDesc, option: int) -> int:
    """An option of a socket (ssl.h).  Raises ConfigurationError (SEC_ERROR_INVALID_ARGS), NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    return _get(settings_of(fd), option)


def SSL_EnableDefault(which: int, on: int) -> None:
    """SSL_OptionSetDefault, deprecated (ssl.h)."""
    SSL_OptionSetDefault(which, on)


def SSL_Enable(fd: PRFileDesc, which: int, on: int) -> None:
    """SSL_OptionSet, deprecated (ssl.h)."""
    SSL_OptionSet(fd, which, on)


# --- rules -----------------------------------------------------------------------------------------------------------


def _get(settings: Settings, option: int) -> int:
    low, high = settings.version_range
    if option == o.SSL_ENABLE_SSL3:
        return int(low == Version.ssl3)
    if option == o.SSL_ENABLE_TLS:
        return int(high > Version.ssl3)
    return settings.options[_known(option)]


def _set(settings: Settings, option: int, on: int) -> None:
    if option in _VERSIONS:
        settings.version_range = _VERSIONS[option](settings.version_range, bool(on))
    else:
        value = _value(_known(option), int(on))
        if option in _FIXED and value != settings.options[option]:
            raise ConfigurationError(f"option {option} stays {settings.options[option]}")
        _RULES.get(option, _free)(settings, value)
        settings.options[option] = value
    settings.changed()


def _value(option: int, given: int) -> int:
    """A PRBool is 0 or 1, whatever is given for true."""
    if option not in _RANGES:
        return int(given != 0)
    low, high = _RANGES[option]
    if not low <= given <= high:
        raise ConfigurationError(f"option {option} is {low} to {high}, not {given}")
    return given


def _known(option: int) -> int:
    if option not in o.FACTORY_OPTIONS:
        raise ConfigurationError(f"there is no option {option}")
    return option


# What the engine never does, or always.
_FIXED = frozenset(
    {
        o.SSL_SOCKS,
        o.SSL_BYPASS_PKCS11,
        o.SSL_NO_LOCKS,
        o.SSL_ENABLE_DEFLATE,
        o.SSL_ENABLE_FALSE_START,
        o.SSL_ENABLE_NPN,
        o.SSL_REUSE_SERVER_ECDHE_KEY,
        o.SSL_ENABLE_SIGNED_CERT_TIMESTAMPS,
        o.SSL_ENABLE_0RTT_DATA,
        o.SSL_ENABLE_DTLS_SHORT_HEADER,
        o.SSL_ENABLE_HELLO_DOWNGRADE_CHECK,
        o.SSL_ENABLE_V2_COMPATIBLE_HELLO,
        o.SSL_ENABLE_DELEGATED_CREDENTIALS,
        o.SSL_SUPPRESS_END_OF_EARLY_DATA,
        o.SSL_ENABLE_GREASE,
        o.SSL_ENABLE_CH_EXTENSION_PERMUTATION,
        o.SSL_DB_LOAD_CERTIFICATE_CHAIN,
    }
)

# Values that are no PRBool.
_RANGES: dict[int, tuple[int, int]] = {
    o.SSL_REQUIRE_CERTIFICATE: (o.SSL_REQUIRE_NEVER, o.SSL_REQUIRE_NO_ERROR),
    o.SSL_ENABLE_RENEGOTIATION: (o.SSL_RENEGOTIATE_NEVER, o.SSL_RENEGOTIATE_TRANSITIONAL),
    o.SSL_RECORD_SIZE_LIMIT: (64, 16385),
}


def _free(settings: Settings, value: int) -> None:
    """No rule."""


def _excludes(other: int) -> Callable[[Settings, int], None]:
    def rule(settings: Settings, value: int) -> None:
        if value and settings.options[other]:
            raise ConfigurationError("SSL_HANDSHAKE_AS_CLIENT and SSL_HANDSHAKE_AS_SERVER exclude each other")

    return rule


def _enable_ssl2(settings: Settings, value: int) -> None:
    """SSL 2 is greeted in its own hello."""
    if value:
        settings.options[o.SSL_V2_COMPATIBLE_HELLO] = 1


def _v2_compatible_hello(settings: Settings, value: int) -> None:
    if not value:
        settings.options[o.SSL_ENABLE_SSL2] = 0


def _no_step_down(settings: Settings, value: int) -> None:
    """On, it switches exportable suites off, and lets none on again; off, it leaves them as they are."""
    if value:
        settings.preferences.update((code, False) for code in settings.preferences if code in EXPORTABLE)


_RULES: dict[int, Callable[[Settings, int], None]] = {
    o.SSL_HANDSHAKE_AS_CLIENT: _excludes(o.SSL_HANDSHAKE_AS_SERVER),
    o.SSL_HANDSHAKE_AS_SERVER: _excludes(o.SSL_HANDSHAKE_AS_CLIENT),
    o.SSL_ENABLE_SSL2: _enable_ssl2,
    o.SSL_V2_COMPATIBLE_HELLO: _v2_compatible_hello,
    o.SSL_NO_STEP_DOWN: _no_step_down,
}


# --- versions --------------------------------------------------------------------------------------------------------


def _with_ssl3(now: SSLVersionRange, on: bool) -> SSLVersionRange:
    if on:
        return SSLVersionRange(Version.ssl3, max(now.max, Version.ssl3))
    return SSLVersionRange(max(now.min, Version.tls1_0), now.max) if now.max > Version.ssl3 else NO_VERSION


def _with_tls(now: SSLVersionRange, on: bool) -> SSLVersionRange:
    """Every version of TLS, where none was on."""
    if on:
        return now if now.max > Version.ssl3 else SSLVersionRange(now.min or Version.tls1_0, ALL_VERSIONS.max)
    return SSLVersionRange(Version.ssl3, Version.ssl3) if now.min == Version.ssl3 else NO_VERSION


_VERSIONS = {o.SSL_ENABLE_SSL3: _with_ssl3, o.SSL_ENABLE_TLS: _with_tls}


@sets_error
def SSL_VersionRangeGetSupported(protocolVariant: int = SSLProtocolVariant.ssl_variant_stream) -> SSLVersionRange:
    """The oldest and newest version there are (ssl.h).  Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for DTLS."""
    _only_streams(protocolVariant)
    return ALL_VERSIONS


@sets_error
def SSL_VersionRangeGetDefault(protocolVariant: int = SSLProtocolVariant.ssl_variant_stream) -> SSLVersionRange:
    """As new sockets will have it; 0 and 0 while neither SSL_ENABLE_SSL3 nor SSL_ENABLE_TLS is on (ssl.h).  Raises
    ConfigurationError (SEC_ERROR_INVALID_ARGS) for DTLS."""
    _only_streams(protocolVariant)
    return Settings.defaults.version_range


@sets_error
def SSL_VersionRangeSetDefault(protocolVariant: int, vrange: tuple[int, int] | None) -> None:
    """For sockets that are imported from now on (ssl.h).  Raises NSPRError (SSL_ERROR_INVALID_VERSION_RANGE);
    ConfigurationError (SEC_ERROR_INVALID_ARGS) for DTLS, and for None."""
    _only_streams(protocolVariant)
    _set_range(Settings.defaults, vrange)


@sets_error
def SSL_VersionRangeGet(fd: PRFileDesc) -> SSLVersionRange:
    """Of a socket (ssl.h).  Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    return settings_of(fd).version_range


@sets_error
def SSL_VersionRangeSet(fd: PRFileDesc, vrange: tuple[int, int] | None) -> None:
    """Of a socket: the oldest and newest version, SSL_LIBRARY_VERSION_ numbers (ssl.h).

    SSL_ENABLE_SSL3 and SSL_ENABLE_TLS tell afterwards what it covers.  Raises NSPRError: SSL_ERROR_INVALID_VERSION_RANGE,
    PR_BAD_DESCRIPTOR_ERROR; ConfigurationError (SEC_ERROR_INVALID_ARGS) for None.
    Differs: SSL 3.0 and TLS 1.3 may be on together, which later NSS refuses; SSL_LIBRARY_VERSION_2 as the oldest switches
    SSL_ENABLE_SSL2 on, and is no part of the range.
    """
    _set_range(settings_of(fd), vrange)


def _set_range(settings: Settings, vrange: tuple[int, int] | None) -> None:
    if vrange is None:
        raise ConfigurationError("a range has an oldest and a newest version")
    low, high = vrange
    ssl2 = low == Version.ssl2
    if ssl2 and high == Version.ssl2:
        found = NO_VERSION
    else:
        found = SSLVersionRange(ALL_VERSIONS.min if ssl2 else low, high)
        if not ALL_VERSIONS.min <= found.min <= high <= ALL_VERSIONS.max:
            raise NSPRError(f"no range of versions: {low:#06x} to {high:#06x}", name="SSL_ERROR_INVALID_VERSION_RANGE")
    if ssl2:
        settings.options.update({o.SSL_ENABLE_SSL2: 1, o.SSL_V2_COMPATIBLE_HELLO: 1})
    settings.version_range = found
    settings.changed()


def _only_streams(variant: int) -> None:
    if variant != SSLProtocolVariant.ssl_variant_stream:
        raise ConfigurationError("DTLS is not done here")
