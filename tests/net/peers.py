"""The other side: Python's own `ssl`, in a thread, over a socket pair or loopback; and keys with a will of their own."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nss_pk11.net.connection import Echo
from nss_pk11.net.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nss_pk11.net.connection import Connection
    from nss_pk11.net.executor import KeyExecutor
    from nss_pk11.slots import PrivateKey
    from nss_pk11.tls.config import ServerConfig

    from ..support.pki import PKI, Credential

TIMEOUT = 30.0  # seconds: bounds what hangs


class Task(threading.Thread):
    """A thread whose result, or error, is had by `wait`."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def wait(self) -> Any:
        self.join(TIMEOUT)
        assert not self.is_alive(), "a thread hangs"
        if self._error is not None:
            raise self._error
        return self._result


def socket_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    theirs.settimeout(TIMEOUT)
    return ours, theirs


def server_context(credential: Credential, **attributes: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credential.chain_file, credential.key_file)
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


def client_context(pki: PKI) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pki.ca_file))


class KeyWith:
    """A real key with some attributes or methods replaced: what a token might be like."""

    def __init__(self, key: PrivateKey, **replaced: Any) -> None:
        self._key = key
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)


class Running:
    """A `Server` in a thread on loopback.  `ended`: connections that have closed, in order."""

    def __init__(self, config: ServerConfig, executor: KeyExecutor, application: Any = Echo, **options: Any) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address: tuple[str, int] = listener.getsockname()
        self.ended: list[Connection] = []
        self._change = threading.Condition()
        self.server = Server(config, executor, [listener], application, closed=self._closed, **options)
        self.task = Task(self.server.run)

    def _closed(self, connection: Connection) -> None:
        with self._change:
            self.ended.append(connection)
            self._change.notify_all()

    def wait_for_end(self, count: int = 1) -> list[Connection]:
        """All connections that have ended, once there are `count`."""
        with self._change:
            assert self._change.wait_for(lambda: len(self.ended) >= count, TIMEOUT), f"{len(self.ended)} of {count} have ended"
            return list(self.ended)

    def dial(self) -> socket.socket:
        return socket.create_connection(self.address, TIMEOUT)


@contextmanager
def running(config: ServerConfig, executor: KeyExecutor, application: Any = Echo, **options: Any) -> Iterator[Running]:
    server = Running(config, executor, application, **options)
    try:
        yield server
    finally:
        server.server.stop()
        server.task.wait()
