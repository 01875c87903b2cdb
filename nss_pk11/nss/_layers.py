"""Descriptors as NSPR has them: a stack of layers, at its bottom a socket (PRFileDesc, PRIOMethods of prio.h).

Theory of operation.  The socket itself never blocks.  What a layer does is written as *steps*, which do what can be done now and
raise `Blocked` where they would have to wait, saying for what.  `Layer.drive` makes calls of them: on a descriptor that the
application left blocking it waits, up to the timeout, and tries again; on a non-blocking one PR_WOULD_BLOCK_ERROR is the answer.
So there is one place that waits, it holds nothing while it does, and a layer such as SSL may stand between at will.

Touches sockets; knows nothing of SSL.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..errors import NSPRError
from ..net.sizes import READ_SIZE
from .prinrval import PR_INTERVAL_NO_TIMEOUT

if TYPE_CHECKING:
    from ._settings import Settings

T = TypeVar("T")

PR_AF_UNSPEC, PR_AF_LOCAL, PR_AF_INET, PR_AF_INET6 = 0, socket.AF_UNIX.value, socket.AF_INET.value, socket.AF_INET6.value

READ, WRITE = select.POLLIN, select.POLLOUT
LONGEST_WAIT = 500.0  # milliseconds


@dataclass
class PRNetAddr:
    """The address of a socket (prio.h).  `family`: PR_AF_INET or PR_AF_INET6; `ip`: as text; `port`: in the host's byte order."""

    family: int = PR_AF_INET
    ip: str = "0.0.0.0"
    port: int = 0
    flowinfo: int = 0
    scope_id: int = 0

    def as_socket(self) -> tuple[str, int] | tuple[str, int, int, int]:
        return (self.ip, self.port) if self.family == PR_AF_INET else (self.ip, self.port, self.flowinfo, self.scope_id)

    @classmethod
    def of_socket(cls, family: int, address: tuple[str, int] | tuple[str, int, int, int] | str) -> PRNetAddr:
        return cls(family, "") if isinstance(address, str) else cls(family, *address)  # a path, of PR_AF_LOCAL


class Blocked(Exception):
    """A step cannot go on until one of `events` (READ, WRITE); 0: until the application has done something."""

    def __init__(self, events: int) -> None:
        super().__init__()
        self.events = events


# --- errors ----------------------------------------------------------------------------------------------------------

# What the system's errors are in NSPR (pr/src/md/unix/unix_errors.c), and where a call has its own view of one.
_ERRORS: dict[tuple[str, int], str] = {
    ("", errno.EACCES): "PR_NO_ACCESS_RIGHTS_ERROR",
    ("", errno.EADDRINUSE): "PR_ADDRESS_IN_USE_ERROR",
    ("", errno.EADDRNOTAVAIL): "PR_ADDRESS_NOT_AVAILABLE_ERROR",
    ("", errno.EAFNOSUPPORT): "PR_ADDRESS_NOT_SUPPORTED_ERROR",
    ("", errno.EAGAIN): "PR_WOULD_BLOCK_ERROR",
    ("", errno.EALREADY): "PR_ALREADY_INITIATED_ERROR",
    ("", errno.EBADF): "PR_BAD_DESCRIPTOR_ERROR",
    ("", errno.ECONNABORTED): "PR_CONNECT_ABORTED_ERROR",
    ("", errno.ECONNREFUSED): "PR_CONNECT_REFUSED_ERROR",
    ("", errno.ECONNRESET): "PR_CONNECT_RESET_ERROR",
    ("", errno.EFAULT): "PR_ACCESS_FAULT_ERROR",
    ("", errno.EHOSTUNREACH): "PR_HOST_UNREACHABLE_ERROR",
    ("", errno.EINPROGRESS): "PR_IN_PROGRESS_ERROR",
    ("", errno.EINTR): "PR_PENDING_INTERRUPT_ERROR",
    ("", errno.EINVAL): "PR_INVALID_ARGUMENT_ERROR",
    ("", errno.EISCONN): "PR_IS_CONNECTED_ERROR",
    ("", errno.EMFILE): "PR_PROC_DESC_TABLE_FULL_ERROR",
    ("", errno.EMSGSIZE): "PR_INVALID_ARGUMENT_ERROR",
    ("", errno.ENETDOWN): "PR_NETWORK_DOWN_ERROR",
    ("", errno.ENETUNREACH): "PR_NETWORK_UNREACHABLE_ERROR",
    ("", errno.ENFILE): "PR_SYS_DESC_TABLE_FULL_ERROR",
    ("", errno.ENOBUFS): "PR_INSUFFICIENT_RESOURCES_ERROR",
    ("", errno.ENOMEM): "PR_OUT_OF_MEMORY_ERROR",
    ("", errno.ENOPROTOOPT): "PR_INVALID_ARGUMENT_ERROR",
    ("", errno.ENOTCONN): "PR_NOT_CONNECTED_ERROR",
    ("", errno.ENOTSOCK): "PR_NOT_SOCKET_ERROR",
    ("", errno.EOPNOTSUPP): "PR_NOT_TCP_SOCKET_ERROR",
    ("", errno.EPERM): "PR_NO_ACCESS_RIGHTS_ERROR",
    ("", errno.EPIPE): "PR_CONNECT_RESET_ERROR",
    ("", errno.EPROTONOSUPPORT): "PR_PROTOCOL_NOT_SUPPORTED_ERROR",
    ("", errno.EPROTOTYPE): "PR_ADDRESS_NOT_SUPPORTED_ERROR",
    ("", errno.ETIMEDOUT): "PR_IO_TIMEOUT_ERROR",
    ("bind", errno.EINVAL): "PR_SOCKET_ADDRESS_IS_BOUND_ERROR",
    ("connect", errno.EACCES): "PR_ADDRESS_NOT_SUPPORTED_ERROR",
    ("connect", errno.ETIMEDOUT): "PR_CONNECT_TIMEOUT_ERROR",
    ("accept", errno.EINVAL): "PR_INVALID_STATE_ERROR",
}


def io_error(call: str, error: OSError) -> NSPRError:
    """The system's error as NSPR's, PR_UNKNOWN_ERROR for one that has none; `call`: what was tried, "recv"."""
    number = error.errno or 0
    name = _ERRORS.get((call, number)) or _ERRORS.get(("", number)) or "PR_UNKNOWN_ERROR"
    return NSPRError(f"{call}: {error.strerror or error}", name=name)


# --- time ------------------------------------------------------------------------------------------------------------


class Deadline:
    """When a call that may take `timeout` ticks has to be over."""

    __slots__ = ("_until",)

    def __init__(self, timeout: int) -> None:
        self._until = None if timeout == PR_INTERVAL_NO_TIMEOUT else time.monotonic() + timeout / 1000

    def left(self) -> float | None:
        """Milliseconds, for `poll`; None for ever."""
        return None if self._until is None else max(0.0, (self._until - time.monotonic()) * 1000)


# --- reading ---------------------------------------------------------------------------------------------------------


class _Scratch(threading.local):
    """A buffer per thread, not per socket: whoever is given what is in it copies what it keeps."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_SIZE))


_scratch = _Scratch()


# --- layers ----------------------------------------------------------------------------------------------------------


class Layer:
    """What a layer is to the functions of prio.h, and to the layer above it."""

    settings: Settings | None = None  # an SSL layer's

    def bind_to(self, descriptor: PRFileDesc) -> None:
        """It is the top of this descriptor from now on."""

    @property
    def bottom(self) -> SocketLayer:
        raise NotImplementedError

    def drive(self, step: Callable[[], T], timeout: int) -> T:
        """Try `step` until it need not wait.  Raises PR_WOULD_BLOCK_ERROR on a non-blocking descriptor, PR_IO_TIMEOUT_ERROR."""
        bottom = self.bottom
        deadline: Deadline | None = None
        while True:
            try:
                return step()
            except Blocked as blocked:
                if bottom.nonblocking or not blocked.events:
                    raise NSPRError("the operation would block", name="PR_WOULD_BLOCK_ERROR") from None
                events = blocked.events
            if deadline is None:
                deadline = Deadline(timeout)
            bottom.wait(events, deadline)

    def connect(self, address: PRNetAddr, timeout: int) -> None:
        raise NotImplementedError

    def connect_continue(self, out_flags: int) -> None:
        raise NotImplementedError

    def accept(self, timeout: int) -> tuple[Layer, PRNetAddr]:
        raise NotImplementedError

    def receive(self, amount: int, flags: int, timeout: int) -> bytes:
        raise NotImplementedError

    def send(self, data: bytes | bytearray | memoryview, flags: int, timeout: int) -> int:
        raise NotImplementedError

    def available(self) -> int:
        raise NotImplementedError

    def shutdown(self, how: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def poll(self, events: int) -> tuple[int, bool]:
        """What to wait for on the socket where the application waits for `events`, and whether it is there already."""
        return events, False


class SocketLayer(Layer):
    """The bottom: a TCP socket.  `nonblocking`: what the application set."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.nonblocking = False

    @property
    def bottom(self) -> SocketLayer:
        return self

    def wait(self, events: int, deadline: Deadline) -> None:
        """Until one of `events`, or for a while: another thread may have closed the descriptor, or have read what this one waits
        for, and neither wakes who polls.  Raises NSPRError: PR_IO_TIMEOUT_ERROR, PR_BAD_DESCRIPTOR_ERROR."""
        number = self.sock.fileno()
        left = deadline.left()
        if number >= 0:
            poll = select.poll()
            poll.register(number, events)
            if poll.poll(LONGEST_WAIT if left is None else min(left, LONGEST_WAIT)):
                return
        if self.sock.fileno() < 0:
            raise NSPRError("the descriptor is closed", name="PR_BAD_DESCRIPTOR_ERROR")
        if left is not None and left <= LONGEST_WAIT:
            raise NSPRError("timed out", name="PR_IO_TIMEOUT_ERROR")

    # --- steps ---

    def receive_now(self, amount: int, flags: int = 0) -> bytes:
        try:
            return self.sock.recv(amount, flags)
        except BlockingIOError:
            raise Blocked(READ) from None
        except OSError as error:
            raise io_error("recv", error) from error

    def read_now(self) -> memoryview:
        """What there is, at most READ_SIZE bytes, in a buffer of the thread's: good until it reads again.  Empty at the end."""
        buffer = _scratch.view
        try:
            return buffer[: self.sock.recv_into(buffer)]
        except BlockingIOError:
            raise Blocked(READ) from None
        except OSError as error:
            raise io_error("recv", error) from error

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            raise Blocked(WRITE) from None
        except OSError as error:
            raise io_error("send", error) from error

    def _accept_now(self) -> tuple[socket.socket, object]:
        try:
            return self.sock.accept()
        except BlockingIOError:
            raise Blocked(READ) from None
        except OSError as error:
            raise io_error("accept", error) from error

    def _connected_now(self) -> None:
        number = self.sock.fileno()
        if number < 0:
            raise NSPRError("the descriptor is closed", name="PR_BAD_DESCRIPTOR_ERROR")
        poll = select.poll()
        poll.register(number, WRITE)
        if not poll.poll(0):
            raise Blocked(WRITE)
        try:
            failure = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as error:  # closed meanwhile
            raise io_error("connect", error) from error
        if failure:
            raise io_error("connect", OSError(failure, errno.errorcode.get(failure, str(failure))))

    # --- calls ---

    def connect(self, address: PRNetAddr, timeout: int) -> None:
        try:
            self.sock.connect(address.as_socket())
        except BlockingIOError:
            if self.nonblocking:
                raise NSPRError("the connection is under way", name="PR_IN_PROGRESS_ERROR") from None
        except OSError as error:
            raise io_error("connect", error) from error
        else:
            return
        self.drive(self._connected_now, timeout)

    def connect_continue(self, out_flags: int) -> None:
        if not out_flags:
            raise NSPRError("the connection is under way", name="PR_IN_PROGRESS_ERROR")
        try:
            self._connected_now()
        except Blocked:
            raise NSPRError("the connection is under way", name="PR_IN_PROGRESS_ERROR") from None

    def accept(self, timeout: int) -> tuple[Layer, PRNetAddr]:
        connection, address = self.drive(self._accept_now, timeout)
        layer = SocketLayer(connection)
        layer.nonblocking = self.nonblocking
        return layer, PRNetAddr.of_socket(connection.family, address)  # type: ignore[arg-type]

    def receive(self, amount: int, flags: int, timeout: int) -> bytes:
        return self.drive(lambda: self.receive_now(amount, flags), timeout)

    def send(self, data: bytes | bytearray | memoryview, flags: int, timeout: int) -> int:
        """All of it on a blocking descriptor, what fits on another."""
        view = memoryview(data).cast("B")
        sent = 0

        def step() -> int:
            nonlocal sent
            while sent < len(view):
                sent += self.send_now(view[sent:])
                if self.nonblocking:
                    break
            return sent

        return self.drive(step, timeout)

    def available(self) -> int:
        try:
            return len(self.sock.recv(1 << 20, socket.MSG_PEEK))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise io_error("recv", error) from error

    def shutdown(self, how: int) -> None:
        try:
            self.sock.shutdown(how)
        except OSError as error:
            raise io_error("shutdown", error) from error

    def close(self) -> None:
        if self.sock.fileno() < 0:
            raise NSPRError("the descriptor is closed", name="PR_BAD_DESCRIPTOR_ERROR")
        try:
            self.sock.close()
        except OSError as error:
            raise io_error("close", error) from error

    def name(self, peer: bool) -> PRNetAddr:
        """Our address, or the peer's."""
        try:
            address = self.sock.getpeername() if peer else self.sock.getsockname()
        except OSError as error:
            raise io_error("getpeername" if peer else "getsockname", error) from error
        return PRNetAddr.of_socket(self.sock.family, address)


class PRFileDesc:
    """A descriptor (prio.h): the top of a stack of layers."""

    __slots__ = ("__weakref__", "layer")

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        layer.bind_to(self)

    def push(self, layer: Layer) -> None:
        """Put a layer on top of the others."""
        self.layer = layer
        layer.bind_to(self)

    @property
    def settings(self) -> Settings | None:
        """Of its SSL layer; None where it has none."""
        return self.layer.settings

    def __repr__(self) -> str:
        return f"<PRFileDesc {self.layer.bottom.sock.fileno()}>"


DescriptorReference = weakref.ref[PRFileDesc]
