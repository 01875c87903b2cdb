"""Addresses and names of hosts (prnetdb.h)."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

from ..errors import NSPRError
from ._layers import PR_AF_INET, PR_AF_INET6, PR_AF_UNSPEC, PRNetAddr
from .prerror import sets_error

__all__ = [
    "PR_AI_ADDRCONFIG",
    "PR_AI_NOCANONNAME",
    "PRAddrInfo",
    "PRHostEnt",
    "PR_EnumerateAddrInfo",
    "PR_EnumerateHostEnt",
    "PR_FreeAddrInfo",
    "PR_GetAddrInfoByName",
    "PR_GetHostByName",
    "PR_InitializeNetAddr",
    "PR_IpAddrAny",
    "PR_IpAddrLoopback",
    "PR_IpAddrNull",
    "PR_NetAddrToString",
    "PR_SetNetAddr",
    "PR_StringToNetAddr",
    "PR_htonl",
    "PR_htons",
    "PR_ntohl",
    "PR_ntohs",
]

PR_IpAddrNull, PR_IpAddrAny, PR_IpAddrLoopback = 0, 1, 2
PR_AI_ADDRCONFIG, PR_AI_NOCANONNAME = 0x20, 0x8000

_IPS = {
    (PR_AF_INET, PR_IpAddrAny): "0.0.0.0",
    (PR_AF_INET, PR_IpAddrLoopback): "127.0.0.1",
    (PR_AF_INET6, PR_IpAddrAny): "::",
    (PR_AF_INET6, PR_IpAddrLoopback): "::1",
}


@sets_error
def PR_SetNetAddr(val: int, af: int, port: int, addr: PRNetAddr | None = None) -> PRNetAddr:
    """An address of a family: PR_IpAddrAny, PR_IpAddrLoopback, or PR_IpAddrNull to give `addr` another port (prnetdb.h).

    Differs: returned, not filled in.  Raises NSPRError (PR_INVALID_ARGUMENT_ERROR)."""
    ip = (addr.ip if addr else "0.0.0.0") if val == PR_IpAddrNull else _IPS.get((af, val))
    if ip is None or not 0 <= port <= 0xFFFF:
        raise NSPRError("there is no such address", name="PR_INVALID_ARGUMENT_ERROR")
    return PRNetAddr(af, ip, port)


def PR_InitializeNetAddr(val: int, port: int, addr: PRNetAddr | None = None) -> PRNetAddr:
    """PR_SetNetAddr for PR_AF_INET (prnetdb.h)."""
    return PR_SetNetAddr(val, PR_AF_INET, port, addr)


@sets_error
def PR_StringToNetAddr(string: str) -> PRNetAddr:
    """The address that a text such as "127.0.0.1" or "::1" means; port 0 (prnetdb.h).  Raises NSPRError
    (PR_INVALID_ARGUMENT_ERROR): names of hosts are for PR_GetAddrInfoByName."""
    try:
        parsed = ip_address(string)
    except ValueError:
        raise NSPRError(f"{string!r} is no address", name="PR_INVALID_ARGUMENT_ERROR") from None
    return PRNetAddr(PR_AF_INET if isinstance(parsed, IPv4Address) else PR_AF_INET6, str(parsed))


def PR_NetAddrToString(addr: PRNetAddr) -> str:
    """The address as text, without the port (prnetdb.h)."""
    return addr.ip


@dataclass
class PRAddrInfo:
    """What a name of a host stands for (prnetdb.h)."""

    canonical_name: str
    ips: list[tuple[int, str]] = field(repr=False)


@sets_error
def PR_GetAddrInfoByName(hostname: str, af: int = PR_AF_UNSPEC, flags: int = PR_AI_ADDRCONFIG) -> PRAddrInfo:
    """Ask the system for the addresses of a host (prnetdb.h).  Raises NSPRError (PR_DIRECTORY_LOOKUP_ERROR)."""
    try:
        found = socket.getaddrinfo(hostname, None, af, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NSPRError(f"{hostname}: {error}", name="PR_DIRECTORY_LOOKUP_ERROR") from None
    return PRAddrInfo(hostname, [(family, str(address[0])) for family, _, _, _, address in found])


@sets_error
def PR_EnumerateAddrInfo(enumPtr: int, addrInfo: PRAddrInfo, port: int) -> tuple[int, PRNetAddr | None]:
    """The next address, with `port`; `enumPtr`: 0 at first, then what the last call returned (prnetdb.h).

    Returns 0 and None at the end.  Differs: the address is returned beside the new `enumPtr`, which is a number."""
    if enumPtr >= len(addrInfo.ips):
        return 0, None
    family, ip = addrInfo.ips[enumPtr]
    return enumPtr + 1, PRNetAddr(family, ip, port)


def PR_FreeAddrInfo(addrInfo: PRAddrInfo) -> None:
    """Nothing (prnetdb.h)."""


@dataclass
class PRHostEnt:
    """A host (prnetdb.h)."""

    h_name: str
    h_aliases: list[str]
    h_addrtype: int
    h_addr_list: list[str]


@sets_error
def PR_GetHostByName(hostname: str) -> PRHostEnt:
    """Ask the system for a host's addresses of PR_AF_INET (prnetdb.h).  Raises NSPRError (PR_DIRECTORY_LOOKUP_ERROR)."""
    try:
        name, aliases, ips = socket.gethostbyname_ex(hostname)
    except (OSError, UnicodeError) as error:
        raise NSPRError(f"{hostname}: {error}", name="PR_DIRECTORY_LOOKUP_ERROR") from None
    return PRHostEnt(name, aliases, PR_AF_INET, ips)


@sets_error
def PR_EnumerateHostEnt(enumIndex: int, hostEnt: PRHostEnt, port: int) -> tuple[int, PRNetAddr | None]:
    """The next address of a host, with `port`; `enumIndex` as in PR_EnumerateAddrInfo (prnetdb.h)."""
    if enumIndex >= len(hostEnt.h_addr_list):
        return 0, None
    return enumIndex + 1, PRNetAddr(hostEnt.h_addrtype, hostEnt.h_addr_list[enumIndex], port)


def PR_htons(conversion: int) -> int:
    """16 bits in the network's byte order (prnetdb.h).  PRNetAddr has its port in the host's: do not swap that."""
    return socket.htons(conversion)


def PR_ntohs(conversion: int) -> int:
    """16 bits in the host's byte order (prnetdb.h)."""
    return socket.ntohs(conversion)


def PR_htonl(conversion: int) -> int:
    """32 bits in the network's byte order (prnetdb.h)."""
    return socket.htonl(conversion)


def PR_ntohl(conversion: int) -> int:
    """32 bits in the host's byte order (prnetdb.h)."""
    return socket.ntohl(conversion)
