"""Sockets (prio.h): made, connected, read, written, waited for and closed as in NSPR, plain or with an SSL layer on top.

Timeouts are intervals (`prinrval`).  Data is `bytes`: what C copies into a buffer is returned, and b"" is the end.  A blocking
descriptor is the default; PR_SockOpt_Nonblocking changes that.  Differs from C everywhere: what goes through a pointer is
returned, and NSPRError is raised where C returns PR_FAILURE, NULL or -1.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import NSPRError
from ._layers import (
    PR_AF_INET,
    PR_AF_INET6,
    PR_AF_LOCAL,
    PR_AF_UNSPEC,
    READ,
    WRITE,
    Deadline,
    PRFileDesc,
    PRNetAddr,
    SocketLayer,
    io_error,
)
from .prerror import sets_error
from .prinrval import PR_INTERVAL_NO_TIMEOUT

__all__ = [
    "PR_AF_INET",
    "PR_AF_INET6",
    "PR_AF_LOCAL",
    "PR_AF_UNSPEC",
    "PR_MSG_PEEK",
    "PR_POLL_ERR",
    "PR_POLL_EXCEPT",
    "PR_POLL_HUP",
    "PR_POLL_NVAL",
    "PR_POLL_READ",
    "PR_POLL_WRITE",
    "PR_SHUTDOWN_BOTH",
    "PR_SHUTDOWN_RCV",
    "PR_SHUTDOWN_SEND",
    "PRFileDesc",
    "PRLinger",
    "PRNetAddr",
    "PRPollDesc",
    "PRSocketOptionData",
    "PR_Accept",
    "PR_Available",
    "PR_Bind",
    "PR_Close",
    "PR_Connect",
    "PR_ConnectContinue",
    "PR_FileDesc2NativeHandle",
    "PR_GetConnectStatus",
    "PR_GetPeerName",
    "PR_GetSockName",
    "PR_GetSocketOption",
    "PR_ImportTCPSocket",
    "PR_Listen",
    "PR_NewTCPSocket",
    "PR_NewTCPSocketPair",
    "PR_OpenTCPSocket",
    "PR_Poll",
    "PR_Read",
    "PR_Recv",
    "PR_Send",
    "PR_SetFDInheritable",
    "PR_SetSocketOption",
    "PR_Shutdown",
    "PR_SockOpt_Broadcast",
    "PR_SockOpt_IpTimeToLive",
    "PR_SockOpt_IpTypeOfService",
    "PR_SockOpt_Keepalive",
    "PR_SockOpt_Linger",
    "PR_SockOpt_MaxSegment",
    "PR_SockOpt_NoDelay",
    "PR_SockOpt_Nonblocking",
    "PR_SockOpt_RecvBufferSize",
    "PR_SockOpt_Reuseaddr",
    "PR_SockOpt_Reuseport",
    "PR_SockOpt_SendBufferSize",
    "PR_Write",
    "PR_Writev",
]

Buffer = bytes | bytearray | memoryview

PR_MSG_PEEK = 0x2
PR_SHUTDOWN_RCV, PR_SHUTDOWN_SEND, PR_SHUTDOWN_BOTH = 0, 1, 2
PR_POLL_READ, PR_POLL_WRITE, PR_POLL_EXCEPT, PR_POLL_ERR, PR_POLL_NVAL, PR_POLL_HUP = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20


# --- making and connecting -------------------------------------------------------------------------------------------


@sets_error
def PR_OpenTCPSocket(af: int) -> PRFileDesc:
    """A new TCP socket; `af`: PR_AF_INET or PR_AF_INET6 (prio.h)."""
    try:
        return PRFileDesc(SocketLayer(socket.socket(af, socket.SOCK_STREAM)))
    except OSError as error:
        raise io_error("socket", error) from error


def PR_NewTCPSocket() -> PRFileDesc:
    """A new TCP socket of PR_AF_INET (prio.h)."""
    return PR_OpenTCPSocket(PR_AF_INET)


@sets_error
def PR_NewTCPSocketPair() -> tuple[PRFileDesc, PRFileDesc]:
    """Two descriptors connected to each other; of PR_AF_LOCAL, as in NSPR on Unix (prio.h)."""
    try:
        one, other = socket.socketpair()
    except OSError as error:
        raise io_error("socketpair", error) from error
    return PRFileDesc(SocketLayer(one)), PRFileDesc(SocketLayer(other))


@sets_error
def PR_ImportTCPSocket(osfd: int | socket.socket) -> PRFileDesc:
    """A descriptor for a socket of the system, by number, or of Python; it belongs to the descriptor from now on (prio.h)."""
    try:
        sock = osfd if isinstance(osfd, socket.socket) else socket.socket(fileno=osfd)
    except OSError as error:
        raise io_error("socket", error) from error
    return PRFileDesc(SocketLayer(sock))


def PR_FileDesc2NativeHandle(fd: PRFileDesc) -> int:
    """The system's number of the socket, -1 once it is closed (prio.h)."""
    return fd.layer.bottom.sock.fileno()


@sets_error
def PR_SetFDInheritable(fd: PRFileDesc, inheritable: bool) -> None:
    """Whether programs that this one executes have the socket too, by its number (prio.h).  Off for new sockets."""
    try:
        os.set_inheritable(fd.layer.bottom.sock.fileno(), inheritable)
    except OSError as error:
        raise io_error("fcntl", error) from error


@sets_error
def PR_Bind(fd: PRFileDesc, addr: PRNetAddr) -> None:
    """Give the socket an address (prio.h).  Raises NSPRError: PR_ADDRESS_IN_USE_ERROR, PR_SOCKET_ADDRESS_IS_BOUND_ERROR, …"""
    try:
        fd.layer.bottom.sock.bind(addr.as_socket())
    except OSError as error:
        raise io_error("bind", error) from error


@sets_error
def PR_Listen(fd: PRFileDesc, backlog: int) -> None:
    """Await connections, up to `backlog` of them not yet accepted (prio.h)."""
    try:
        fd.layer.bottom.sock.listen(backlog)
    except OSError as error:
        raise io_error("listen", error) from error


@sets_error
def PR_Accept(fd: PRFileDesc, timeout: int = PR_INTERVAL_NO_TIMEOUT) -> tuple[PRFileDesc, PRNetAddr]:
    """The next connection, and whose it is (prio.h).  Blocking or not, and with all settings of SSL, as `fd` is.

    Raises NSPRError: PR_IO_TIMEOUT_ERROR, PR_WOULD_BLOCK_ERROR.  Shakes no hands: the first I/O does.
    """
    layer, address = fd.layer.accept(timeout)
    return PRFileDesc(layer), address


@sets_error
def PR_Connect(fd: PRFileDesc, addr: PRNetAddr, timeout: int = PR_INTERVAL_NO_TIMEOUT) -> None:
    """Connect (prio.h).

    Raises NSPRError: PR_CONNECT_REFUSED_ERROR, PR_IO_TIMEOUT_ERROR, …; PR_IN_PROGRESS_ERROR on a non-blocking descriptor: wait
    with PR_Poll for PR_POLL_WRITE, then ask PR_ConnectContinue.
    """
    fd.layer.connect(addr, timeout)


@sets_error
def PR_ConnectContinue(fd: PRFileDesc, out_flags: int) -> None:
    """Whether a non-blocking connection is made; `out_flags`: what PR_Poll said (prio.h).

    Raises NSPRError: PR_IN_PROGRESS_ERROR while it is not, or why it never will be.
    """
    fd.layer.connect_continue(out_flags)


def PR_GetConnectStatus(pd: PRPollDesc) -> None:
    """PR_ConnectContinue, as it was (prio.h)."""
    PR_ConnectContinue(_filled(pd), pd.out_flags)


def _filled(pd: PRPollDesc) -> PRFileDesc:
    if pd.fd is None:
        raise NSPRError("there is no descriptor", name="PR_BAD_DESCRIPTOR_ERROR")
    return pd.fd


@sets_error
def PR_GetSockName(fd: PRFileDesc) -> PRNetAddr:
    """Our address (prio.h)."""
    return fd.layer.bottom.name(peer=False)


@sets_error
def PR_GetPeerName(fd: PRFileDesc) -> PRNetAddr:
    """The peer's address (prio.h).  Raises NSPRError (PR_NOT_CONNECTED_ERROR)."""
    return fd.layer.bottom.name(peer=True)


# --- data ------------------------------------------------------------------------------------------------------------


@sets_error
def PR_Recv(fd: PRFileDesc, amount: int, flags: int = 0, timeout: int = PR_INTERVAL_NO_TIMEOUT) -> bytes:
    """What has arrived, at most `amount` bytes; waits for the first; b"" at the end (prio.h).

    `flags`: PR_MSG_PEEK leaves it to be read again.  On an SSL descriptor this shakes hands first.
    Raises NSPRError: PR_IO_TIMEOUT_ERROR, PR_WOULD_BLOCK_ERROR, PR_CONNECT_RESET_ERROR, …
    """
    if amount < 0 or flags & ~PR_MSG_PEEK:
        raise NSPRError("amount or flags out of range", name="PR_INVALID_ARGUMENT_ERROR")
    return fd.layer.receive(amount, flags, timeout)


def PR_Read(fd: PRFileDesc, amount: int) -> bytes:
    """PR_Recv without flags or timeout (prio.h)."""
    return PR_Recv(fd, amount)


@sets_error
def PR_Send(fd: PRFileDesc, data: Buffer, flags: int = 0, timeout: int = PR_INTERVAL_NO_TIMEOUT) -> int:
    """Send; returns how many bytes: all of them on a blocking descriptor, what goes now on another (prio.h).

    `data` stands for C's buffer and amount; `flags` are 0.  On an SSL descriptor this shakes hands first.
    Raises NSPRError: PR_IO_TIMEOUT_ERROR, PR_WOULD_BLOCK_ERROR, PR_CONNECT_RESET_ERROR, …
    """
    if flags:
        raise NSPRError("there are no flags for sending", name="PR_INVALID_ARGUMENT_ERROR")
    return fd.layer.send(data, flags, timeout)


def PR_Write(fd: PRFileDesc, data: Buffer) -> int:
    """PR_Send without a timeout (prio.h)."""
    return PR_Send(fd, data)


def PR_Writev(fd: PRFileDesc, iov: Sequence[Buffer], timeout: int = PR_INTERVAL_NO_TIMEOUT) -> int:
    """Send several pieces as one (prio.h)."""
    return PR_Send(fd, b"".join(iov), 0, timeout)


@sets_error
def PR_Available(fd: PRFileDesc) -> int:
    """How many bytes can be read at once, as far as is known (prio.h): on an SSL descriptor SSL_DataPending."""
    return fd.layer.available()


@sets_error
def PR_Shutdown(fd: PRFileDesc, how: int) -> None:
    """End one direction: PR_SHUTDOWN_RCV, PR_SHUTDOWN_SEND or PR_SHUTDOWN_BOTH (prio.h)."""
    if how not in (PR_SHUTDOWN_RCV, PR_SHUTDOWN_SEND, PR_SHUTDOWN_BOTH):
        raise NSPRError("there is no such direction", name="PR_INVALID_ARGUMENT_ERROR")
    fd.layer.shutdown(how)


@sets_error
def PR_Close(fd: PRFileDesc) -> None:
    """Close it (prio.h); on an SSL descriptor with close_notify.  Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR) if it is closed."""
    fd.layer.close()


# --- options ---------------------------------------------------------------------------------------------------------

PR_SockOpt_Nonblocking, PR_SockOpt_Linger, PR_SockOpt_Reuseaddr, PR_SockOpt_Keepalive = 0, 1, 2, 3
PR_SockOpt_RecvBufferSize, PR_SockOpt_SendBufferSize, PR_SockOpt_IpTimeToLive, PR_SockOpt_IpTypeOfService = 4, 5, 6, 7
PR_SockOpt_NoDelay, PR_SockOpt_MaxSegment, PR_SockOpt_Broadcast, PR_SockOpt_Reuseport = 13, 14, 15, 16

_BOOLEANS = {
    PR_SockOpt_Reuseaddr: (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    PR_SockOpt_Keepalive: (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    PR_SockOpt_NoDelay: (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    PR_SockOpt_Broadcast: (socket.SOL_SOCKET, socket.SO_BROADCAST),
    PR_SockOpt_Reuseport: (socket.SOL_SOCKET, socket.SO_REUSEPORT),
}
_NUMBERS = {
    PR_SockOpt_RecvBufferSize: (socket.SOL_SOCKET, socket.SO_RCVBUF),
    PR_SockOpt_SendBufferSize: (socket.SOL_SOCKET, socket.SO_SNDBUF),
    PR_SockOpt_IpTimeToLive: (socket.IPPROTO_IP, socket.IP_TTL),
    PR_SockOpt_IpTypeOfService: (socket.IPPROTO_IP, socket.IP_TOS),
    PR_SockOpt_MaxSegment: (socket.IPPROTO_TCP, socket.TCP_MAXSEG),
}
_LINGER = struct.Struct("ii")


@dataclass
class PRLinger:
    """`linger`: seconds where C has an interval (prio.h)."""

    polarity: bool = False
    linger: int = 0


@dataclass
class PRSocketOptionData:
    """An option and its value: bool, int or, for PR_SockOpt_Linger, a PRLinger (prio.h).  C's union is one field."""

    option: int
    value: Any = None


@sets_error
def PR_SetSocketOption(fd: PRFileDesc, data: PRSocketOptionData) -> None:
    """Set an option of the socket (prio.h).  Raises NSPRError: PR_INVALID_ARGUMENT_ERROR, PR_OPERATION_NOT_SUPPORTED_ERROR."""
    bottom = fd.layer.bottom
    if data.option == PR_SockOpt_Nonblocking:
        bottom.nonblocking = bool(data.value)
        return
    try:
        if data.option == PR_SockOpt_Linger:
            packed = _LINGER.pack(data.value.polarity, data.value.linger)
            bottom.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, packed)
        else:
            bottom.sock.setsockopt(*_place(data.option), int(data.value))
    except OSError as error:
        raise io_error("setsockopt", error) from error


@sets_error
def PR_GetSocketOption(fd: PRFileDesc, data: PRSocketOptionData) -> None:
    """Fill in `data.value` for `data.option` (prio.h).  Raises as PR_SetSocketOption."""
    bottom = fd.layer.bottom
    if data.option == PR_SockOpt_Nonblocking:
        data.value = bottom.nonblocking
        return
    try:
        if data.option == PR_SockOpt_Linger:
            on, seconds = _LINGER.unpack(bottom.sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size))
            data.value = PRLinger(bool(on), seconds)
        else:
            value = bottom.sock.getsockopt(*_place(data.option))
            data.value = bool(value) if data.option in _BOOLEANS else value
    except OSError as error:
        raise io_error("getsockopt", error) from error


def _place(option: int) -> tuple[int, int]:
    try:
        return (_BOOLEANS | _NUMBERS)[option]
    except KeyError:
        raise NSPRError(f"there is no socket option {option}", name="PR_OPERATION_NOT_SUPPORTED_ERROR") from None


# --- waiting ---------------------------------------------------------------------------------------------------------


@dataclass
class PRPollDesc:
    """A descriptor, what is awaited (PR_POLL_READ, PR_POLL_WRITE, PR_POLL_EXCEPT), and what came (prio.h)."""

    fd: PRFileDesc | None
    in_flags: int = 0
    out_flags: int = 0


_OS_FLAGS = ((PR_POLL_READ, READ), (PR_POLL_WRITE, WRITE), (PR_POLL_EXCEPT, select.POLLPRI))
_OUTCOMES = ((select.POLLERR, PR_POLL_ERR), (select.POLLNVAL, PR_POLL_NVAL), (select.POLLHUP, PR_POLL_HUP))


@sets_error
def PR_Poll(pds: Sequence[PRPollDesc], timeout: int = PR_INTERVAL_NO_TIMEOUT) -> int:
    """Wait until one of the descriptors is ready; fills in `out_flags`, returns how many are, 0 after `timeout` (prio.h).

    An SSL descriptor is ready to read once it has decrypted data, and during a handshake both directions wait for what that
    waits for.  One without `fd` is passed over; one that is closed has PR_POLL_NVAL.
    """
    waits: list[tuple[PRPollDesc, int, dict[int, int]]] = []
    for pd in pds:
        pd.out_flags = 0
        if pd.fd is None or not pd.in_flags:
            continue
        number = PR_FileDesc2NativeHandle(pd.fd)
        if number < 0:
            pd.out_flags = PR_POLL_NVAL
            continue
        waits.append((pd, number, _awaited(pd, pd.fd)))
    if any(pd.out_flags for pd in pds):
        timeout = 0
    poll, events = select.poll(), dict.fromkeys((number for _, number, _ in waits), 0)
    for _, number, awaited in waits:
        for event in awaited.values():
            events[number] |= event
    for number, event in events.items():
        if event:  # else even its end would wake, again and again: what it waits for is the application's answer
            poll.register(number, event)
    came = dict(poll.poll(Deadline(timeout).left()))
    for pd, number, awaited in waits:
        _fill(pd, awaited, came.get(number, 0))
    return sum(bool(pd.out_flags) for pd in pds)


def _awaited(pd: PRPollDesc, fd: PRFileDesc) -> dict[int, int]:
    """What the system is asked for each flag the application asks for; what is there already goes to `out_flags`."""
    awaited = {}
    for flag, event in _OS_FLAGS:
        if pd.in_flags & flag:
            events, ready = fd.layer.poll(event)
            awaited[flag] = events
            pd.out_flags |= flag if ready else 0
    return awaited


def _fill(pd: PRPollDesc, awaited: dict[int, int], came: int) -> None:
    for flag, events in awaited.items():
        # An end or an error of the connection wakes whoever waits, in C too: the next call tells which.
        if came & events or (came & (select.POLLHUP | select.POLLERR) and flag != PR_POLL_EXCEPT):
            pd.out_flags |= flag
    for event, flag in _OUTCOMES:
        pd.out_flags |= flag if came & event else 0
