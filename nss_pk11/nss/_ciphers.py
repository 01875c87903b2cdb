"""Which suites are on, and which policy permits (ssl.h).

A suite is used where preference and policy agree and the present tokens can do it.  Before any policy call nothing is permitted.
A socket has both as they were when it was imported.
"""

from __future__ import annotations

from ..errors import NSPRError
from ._layers import PRFileDesc
from ._settings import Settings, settings_of
from ._sslt import SSL_NO_STEP_DOWN
from ._suites import DOMESTIC, EXPORT, EXPORTABLE, FRANCE, IMPLEMENTED, OLD_FIPS
from .prerror import sets_error

__all__ = [
    "NSS_SetDomesticPolicy",
    "NSS_SetExportPolicy",
    "NSS_SetFrancePolicy",
    "SSL_CipherPolicyGet",
    "SSL_CipherPolicySet",
    "SSL_CipherPrefGet",
    "SSL_CipherPrefGetDefault",
    "SSL_CipherPrefSet",
    "SSL_CipherPrefSetDefault",
    "SSL_EnableCipher",
    "SSL_GetImplementedCiphers",
    "SSL_GetNumImplementedCiphers",
    "SSL_ImplementedCiphers",
    "SSL_NumImplementedCiphers",
    "SSL_SetPolicy",
]

SSL_ImplementedCiphers: tuple[int, ...] = IMPLEMENTED
SSL_NumImplementedCiphers = len(IMPLEMENTED)


def SSL_GetImplementedCiphers() -> tuple[int, ...]:
    """SSL_ImplementedCiphers: every suite there is, the manual's first (ssl.h).  Differs: without the 0 at the end."""
    return SSL_ImplementedCiphers


def SSL_GetNumImplementedCiphers() -> int:
    """SSL_NumImplementedCiphers (ssl.h)."""
    return SSL_NumImplementedCiphers


# --- preferences -----------------------------------------------------------------------------------------------------


@sets_error
def SSL_CipherPrefSetDefault(cipher: int, enabled: bool) -> None:
    """Switch a suite on or off for sockets that are imported from now on (ssl.h).  No token is asked for it.

    Raises NSPRError: SSL_ERROR_UNKNOWN_CIPHER_SUITE; SEC_ERROR_INVALID_ALGORITHM, an exportable one while SSL_NO_STEP_DOWN is on.
    """
    _prefer(Settings.defaults, cipher, enabled)


@sets_error
def SSL_CipherPrefGetDefault(cipher: int) -> bool:
    """Whether a suite will be on in new sockets (ssl.h).  Raises NSPRError (SSL_ERROR_UNKNOWN_CIPHER_SUITE)."""
    return Settings.defaults.preferences[_known(cipher)]


@sets_error
def SSL_CipherPrefSet(fd: PRFileDesc, cipher: int, enabled: bool) -> None:
    """Switch a suite of a socket on or off, before the handshake (ssl.h).  Raises NSPRError as SSL_CipherPrefSetDefault, and
    PR_BAD_DESCRIPTOR_ERROR."""
    _prefer(settings_of(fd), cipher, enabled)


@sets_error
def SSL_CipherPrefGet(fd: PRFileDesc, cipher: int) -> bool:
    """Whether a suite is on in a socket (ssl.h).  Raises NSPRError: SSL_ERROR_UNKNOWN_CIPHER_SUITE, PR_BAD_DESCRIPTOR_ERROR."""
    return settings_of(fd).preferences[_known(cipher)]


def SSL_EnableCipher(which: int, enabled: bool) -> None:
    """SSL_CipherPrefSetDefault, deprecated; knows the old numbers of the FIPS suites too (ssl.h)."""
    SSL_CipherPrefSetDefault(OLD_FIPS.get(which, which), enabled)


def _prefer(settings: Settings, cipher: int, enabled: bool) -> None:
    if enabled and settings.on(SSL_NO_STEP_DOWN) and cipher in EXPORTABLE:
        raise NSPRError("exportable suites are off while SSL_NO_STEP_DOWN is on", name="SEC_ERROR_INVALID_ALGORITHM")
    settings.preferences[_known(cipher)] = bool(enabled)
    settings.changed()


def _known(cipher: int) -> int:
    if cipher not in DOMESTIC:
        raise NSPRError(f"there is no cipher suite {cipher:#06x}", name="SSL_ERROR_UNKNOWN_CIPHER_SUITE")
    return cipher


# --- policy ----------------------------------------------------------------------------------------------------------


def NSS_SetDomesticPolicy() -> None:
    """Permit every suite (ssl.h).  Sessions of before are still resumed until SSL_ClearSessionCache."""
    _permit(DOMESTIC)


def NSS_SetExportPolicy() -> None:
    """Permit what could be exported from the United States, some of it after step-up only (ssl.h).  Differs: later NSS permits
    everything."""
    _permit(EXPORT)


def NSS_SetFrancePolicy() -> None:
    """Permit what could be imported into France (ssl.h).  Differs: later NSS permits everything."""
    _permit(FRANCE)


def _permit(policy: dict[int, int]) -> None:
    Settings.defaults.policies.update(policy)
    Settings.defaults.changed()


@sets_error
def SSL_CipherPolicySet(cipher: int, policy: int) -> None:
    """Permit a suite, or not, for sockets that are imported from now on: SSL_ALLOWED, SSL_NOT_ALLOWED, or SSL_RESTRICTED, for a
    client that was shown a step-up certificate (ssl.h).  Raises NSPRError (SSL_ERROR_UNKNOWN_CIPHER_SUITE)."""
    Settings.defaults.policies[_known(cipher)] = int(policy)
    Settings.defaults.changed()


@sets_error
def SSL_CipherPolicyGet(cipher: int) -> int:
    """What policy says of a suite (ssl.h).  Raises NSPRError (SSL_ERROR_UNKNOWN_CIPHER_SUITE)."""
    return Settings.defaults.policies[_known(cipher)]


def SSL_SetPolicy(which: int, policy: int) -> None:
    """SSL_CipherPolicySet, deprecated; knows the old numbers of the FIPS suites too (ssl.h)."""
    SSL_CipherPolicySet(OLD_FIPS.get(which, which), policy)
