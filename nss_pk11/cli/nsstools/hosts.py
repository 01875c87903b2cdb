"""What NSS's programs do before they connect: find an address, and switch on the suites that were asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...nss.prerror import NSPRError
from ...nss.prio import PR_AF_INET, PR_AF_INET6, PRNetAddr
from ...nss.prnetdb import PR_EnumerateAddrInfo, PR_GetAddrInfoByName
from ...nss.ssl import SSL_CipherPrefSetDefault, SSL_GetImplementedCiphers
from .words import BadFlags

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


def only_suites(wanted: Iterable[int], program: str) -> None:
    """Switch off all suites but these, for the process.  Raises BadFlags for one that does not exist."""
    for suite in SSL_GetImplementedCiphers():
        SSL_CipherPrefSetDefault(suite, False)
    for suite in wanted:
        try:
            SSL_CipherPrefSetDefault(suite, True)
        except NSPRError as error:
            raise BadFlags(f"{program}: SSL_CipherPrefSetDefault(0x{suite:04x}) failed") from error
