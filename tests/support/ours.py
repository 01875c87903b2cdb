"""Our own server and client in this process: as quick as a handshake, where a subprocess of Python would take a third of a
second.  Keys are in tokens as ever.  The command line is tested by `command.py`'s subprocesses.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from nss_pk11.errors import NSPRError
from nss_pk11.net.blocking import TLSSocket
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.record import negotiated
from nss_pk11.net.server import Server
from nss_pk11.sessions import ServerCache
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.engine import Engine

from .peers.base import HOST, REQUEST, TIMEOUT

if TYPE_CHECKING:
    from nss_pk11.net.connection import Application, Connection
    from nss_pk11.net.executor import Verifier
    from nss_pk11.tls.config import ClientConfig, ServerConfig
    from nss_pk11.tls.events import ConnectionInfo
    from nss_pk11.tls.session import Session


def bytes_of(size: int) -> bytes:
    """`size` bytes that do not repeat soon."""
    return b"".join(sha256(number.to_bytes(4, "big")).digest() for number in range(size // 32 + 1))[:size]


EXPORT = (b"EXPERIMENTAL-nss-pk11", b"context", 32)


@dataclass
class Seen:
    """What we saw of a connection; `error` is what ended it, None if it ended well."""

    info: ConnectionInfo
    error: NSPRError | None = None
    answer: bytes = b""
    exported: bytes = b""
    sessions: list[Session] = field(default_factory=list)

    @property
    def page(self) -> dict[str, Any]:
        """What our own server said of the connection."""
        return page(self.answer)

    @property
    def version(self) -> str:
        return self.info.version.label if self.info.version else ""

    @property
    def suite(self) -> str:
        return self.info.suite.name if self.info.suite else ""

    @property
    def group(self) -> str:
        return self.info.group.name if self.info.group else ""


def page(answer: bytes) -> dict[str, Any]:
    """What our server said, out of whatever a client shows of the answer."""
    text = answer.decode("utf-8", "replace")
    for brace in re.finditer(r"\{", text):
        with contextlib.suppress(ValueError):
            said: dict[str, Any] = json.JSONDecoder().raw_decode(text, brace.start())[0]
            return said
    raise AssertionError(f"no JSON in {text!r}")


# What a request's path makes the server do before it answers; it answers when the returned condition holds.
Action = Callable[[Engine], Callable[[], bool]]


class Page:
    """Answers the first HTTP request with what was negotiated, as JSON, or "/bytes/N" with N bytes, and closes."""

    def __init__(self, connection: Connection, actions: dict[bytes, Action]) -> None:
        self._connection, self._actions = connection, actions
        self._received = b""
        self._ready: Callable[[], bool] | None = None
        self.busy = False

    def data_received(self, data: bytes | bytearray) -> None:
        self._received += bytes(data)
        if b"\r\n\r\n" in self._received and self._ready is None:
            action = self._actions.get(self._received.split(b" ", 2)[1])
            self._ready = action(self._connection.engine) if action else lambda: True

    def produce(self) -> bool:
        if self._ready is None or not self._ready():
            return False
        path = self._received.split(b" ", 2)[1]
        body = bytes_of(int(path[7:])) if path.startswith(b"/bytes/") else self._describe()
        self._connection.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)
        self._connection.finish()
        return True

    def _describe(self) -> bytes:
        engine, info = self._connection.engine, self._connection.info
        said: dict[str, Any] = negotiated(info)
        if info.version is not Version.ssl3:  # which has no exporters
            said["exported"] = engine.export(*EXPORT).hex()
            said["exported_without_context"] = engine.export(EXPORT[0], None, EXPORT[2]).hex()
        kinds = [] if info.resumed else ["tls-server-end-point"]  # the server has no certificate then
        if info.version is Version.tls1_3:
            kinds.append("tls-exporter")
        elif info.extended_master_secret:  # RFC 7627 section 5.4
            kinds.append("tls-unique")
        said["channel_bindings"] = {kind: engine.channel_binding(kind).hex() for kind in kinds}
        said["peer_certificates"] = len(info.peer_chain)
        return json.dumps(said).encode()

    def eof_received(self) -> None:
        self._connection.finish()


class OurServer:
    """A server in a thread.  `seen`: what ended, newest last; `mark` before a connection, and `next` after
    it, give what became of it.

    `actions`: by path of the request; `application`: what speaks instead of a `Page`.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        trust: Verifier | None = None,
        handshake_timeout: float = 10.0,
        actions: dict[bytes, Action] | None = None,
        application: Callable[[Connection], Application] | None = None,
    ) -> None:
        self.seen: list[Seen] = []
        self._ended = threading.Condition()
        self._open = 0  # connections, after the loop's last turn
        listener = socket.create_server((HOST, 0), backlog=64)
        self.port: int = listener.getsockname()[1]
        self.executor = KeyExecutor(trust=trust, sessions=ServerCache() if config.session_ids else None)
        self._server = Server(
            config,
            self.executor,
            [listener],
            application or (lambda connection: Page(connection, actions or {})),
            closed=self._closed,
            turn_over=self._turn_over,
            handshake_timeout=handshake_timeout,
        )
        self._thread = threading.Thread(target=self._server.run, name="our-server")
        self._thread.start()

    def _closed(self, connection: Connection) -> None:
        with self._ended:
            self.seen.append(Seen(connection.info, connection.error))
            self._ended.notify_all()

    def _turn_over(self) -> None:
        with self._ended:
            self._open = self._server.connections
            self._ended.notify_all()

    def mark(self) -> int:
        """How many connections have ended, once all have that clients know of: what `next` is to start from."""
        with self._ended:
            assert self._ended.wait_for(lambda: not self._open, TIMEOUT), "a connection stays open"
            return len(self.seen)

    def next(self, after: int) -> Seen:
        """The first connection that ended after the first `after` ones."""
        with self._ended:
            assert self._ended.wait_for(lambda: len(self.seen) > after, TIMEOUT), "no connection has ended"
            return self.seen[after]

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        self.executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def connect(
    port: int,
    config: ClientConfig,
    *,
    trust: Verifier | None = None,
    request: bytes | None = REQUEST,
    use: Callable[[TLSSocket], None] | None = None,
) -> Seen:
    """One connection of ours: handshake, then `use`, then the request and its whole answer (None: neither).

    Errors come back in the result.
    """
    engine = Engine.client(config)
    seen = Seen(engine.info)
    with (
        KeyExecutor(trust=trust) as executor,
        TLSSocket(
            socket.create_connection((HOST, port), TIMEOUT), engine, executor, on_session=seen.sessions.append
        ) as connection,
    ):
        try:
            connection.do_handshake()
            if engine.info.version not in (Version.ssl2, Version.ssl3):
                seen.exported = engine.export(*EXPORT)
            if use:
                use(connection)
            if request is not None:
                connection.sendall(request)
                while part := connection.recv():
                    seen.answer += part
        except NSPRError as error:
            seen.error = error
    return seen
