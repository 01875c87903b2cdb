"""What NSS's programs do before they talk: find an address, listen, switch on the suites that were asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...nss.prerror import NSPRError
from ...nss.prio import (
    PR_AF_INET,
    PR_AF_INET6,
    PR_Bind,
    PR_Close,
    PR_Listen,
    PR_OpenTCPSocket,
    PR_SetSocketOption,
    PR_SockOpt_Reuseaddr,
    PRFileDesc,
    PRNetAddr,
    PRSocketOptionData,
)
from ...nss.prnetdb import PR_EnumerateAddrInfo, PR_GetAddrInfoByName
from ...nss.ssl import (
    SSL_CipherPrefSetDefault,
    SSL_GetCipherSuiteInfo,
    SSL_GetImplementedCiphers,
)
from ...nss.sslproto import SSL_IS_SSL2_CIPHER
from .report import Fatal, step

LEAST_BITS = 112  # of 3DES, the shortest
_FAMILIES = {"4": PR_AF_INET, "6": PR_AF_INET6}


def addresses(host: str, port: int, families: Collection[str]) -> Iterable[PRNetAddr]:
    """Those of `host` in the families "4" and "6" that may be used, the system's favourite first.  Raises NSPRError."""
    wanted = {_FAMILIES[family] for family in families}
    info, place = PR_GetAddrInfoByName(host), 0
    while True:
        place, address = PR_EnumerateAddrInfo(place, info, port)
        if address is None:
            return
        if address.family in wanted:
            yield address


def look_up(host: str, port: int, families: Collection[str]) -> PRNetAddr:
    """The first of them.  Raises NSPRError (PR_DIRECTORY_LOOKUP_ERROR)."""
    for address in addresses(host, port, families):
        return address
    raise NSPRError(f"{host} has no address of the families wanted", name="PR_DIRECTORY_LOOKUP_ERROR")


def only_suites(wanted: Collection[int]) -> None:
    """Switch off all suites but these, for the process.  Raises NSPRError (SSL_ERROR_UNKNOWN_CIPHER_SUITE)."""
    no_suites()
    known(wanted)
    for suite in wanted:
        SSL_CipherPrefSetDefault(suite, True)


def known(suites: Iterable[int]) -> None:
    """Raises NSPRError (SSL_ERROR_UNKNOWN_CIPHER_SUITE) for suites of SSL 2.0, that are none."""
    for suite in suites:
        if SSL_IS_SSL2_CIPHER(suite) and suite not in SSL_GetImplementedCiphers():
            raise NSPRError(f"there is no suite {suite:#06x}", name="SSL_ERROR_UNKNOWN_CIPHER_SUITE")


def no_suites() -> None:
    """Switch off all suites, for the process."""
    for suite in SSL_GetImplementedCiphers():
        SSL_CipherPrefSetDefault(suite, False)


def listen(port: int, threads: int) -> PRFileDesc:
    """A socket that awaits connections at every address of this host, of both families where there are two.  Raises Fatal."""
    try:
        return _listen(PRNetAddr(PR_AF_INET6, "::", port), threads)
    except Fatal as failure:
        if failure.error.name == "PR_ADDRESS_IN_USE_ERROR":
            raise
    return _listen(PRNetAddr(PR_AF_INET, "0.0.0.0", port), threads)


def _listen(address: PRNetAddr, threads: int) -> PRFileDesc:
    with step("Couldn't create socket"):
        fd = PR_OpenTCPSocket(address.family)
    try:
        with step("PR_SetSocketOption(PR_SockOpt_Reuseaddr)"):
            PR_SetSocketOption(fd, PRSocketOptionData(PR_SockOpt_Reuseaddr, True))
        with step("PR_Bind"):
            PR_Bind(fd, address)
        with step("PR_Listen"):
            PR_Listen(fd, 5 + 2 * threads)
    except Fatal:
        PR_Close(fd)
        raise
    return fd


def usual_suites() -> None:
    """Switch on what later NSS has on by itself, and 3.10 had not: all that has long keys."""
    for suite in SSL_GetImplementedCiphers():
        if not SSL_IS_SSL2_CIPHER(suite) and SSL_GetCipherSuiteInfo(suite).effectiveKeyBits >= LEAST_BITS:
            SSL_CipherPrefSetDefault(suite, True)
