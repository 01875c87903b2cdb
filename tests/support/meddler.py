"""A man in the middle: changes the client's first flight, or lets bytes through in small pieces."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

from .peers.base import HOST, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable


class Meddler:
    """Forwards one connection to `port`, at most `step` bytes at a time; `change` gets the first bytes of the client and
    says what to send instead."""

    def __init__(self, port: int, change: Callable[[bytes], bytes] = bytes, step: int = 65536) -> None:
        self._target, self._change, self._step = port, change, step
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="meddler")
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            with client, socket.create_connection((HOST, self._target), TIMEOUT) as server:
                for end in (client, server):
                    end.settimeout(TIMEOUT)
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                first = self._change(client.recv(65536))
                back = threading.Thread(target=self._copy, args=(server, client), name="meddler-back")
                back.start()
                self._send(server, first)
                self._copy(client, server)
                back.join(TIMEOUT)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._send(target, data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _send(self, target: socket.socket, data: bytes) -> None:
        for start in range(0, len(data), self._step):
            target.sendall(data[start : start + self._step])

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def hide_tls13(hello: bytes) -> bytes:
    """Take 1.3 from a ClientHello's supported_versions (by making it a GREASE value): a downgrade attack."""
    at = hello.index(b"\x00\x2b\x00")
    size = hello[at + 4]
    versions = hello[at + 5 : at + 5 + size]
    assert b"\x03\x04" in versions
    return hello[: at + 5] + versions.replace(b"\x03\x04", b"\x7a\x7a") + hello[at + 5 + size :]
