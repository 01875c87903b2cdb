"""Connecting: from a host and a port to a TLSSocket, with resumption where a session is at hand."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..certs import Trust
from ..errors import CertificateError
from ..tls.config import ClientConfig
from ..tls.engine import Engine
from ..tls.waits import VerifyPeer
from .blocking import HANDSHAKE_TIMEOUT, TLSSocket
from .executor import KeyExecutor

if TYPE_CHECKING:
    from ..sessions import ClientCache
    from ..tls.session import Session
    from .executor import Verifier

log = logging.getLogger(__name__)


def connect(
    host: str,
    port: int,
    *,
    config: ClientConfig | None = None,
    trust: Verifier | None = None,
    executor: KeyExecutor | None = None,
    sessions: ClientCache[Session] | None = None,
    timeout: float | None = HANDSHAKE_TIMEOUT,
) -> TLSSocket:
    """Connect and shake hands.

    `config`: without one, the defaults for a server named `host`; `trust`: whose certificates are good, the system's roots by
    default; `executor`: instead of one made from `trust`; `sessions`: resume from it and add to it; `timeout`: seconds for the
    TCP connection, then again for the handshake; afterwards the socket waits without limit.

    Raises OSError where there is no connection, else as `TLSSocket.do_handshake`.
    """
    config = config or ClientConfig(server_name=host)
    executor = executor or KeyExecutor(trust=trust or Trust.system())
    where = (host, port, config.server_name)
    if sessions is not None and config.session is None:
        config = replace(config, session=sessions.take(where))
    keep = None if sessions is None else lambda session: sessions.put(where, session)
    tls = wrap(socket.create_connection((host, port), timeout), config, executor, handshake_timeout=timeout, on_session=keep)
    try:
        tls.settimeout(None)
        tls.do_handshake()
    except BaseException:
        tls.close()
        raise
    return tls


def wrap(
    sock: socket.socket,
    config: ClientConfig,
    executor: KeyExecutor,
    *,
    handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
    on_session: Callable[[Session], None] | None = None,
) -> TLSSocket:
    """A client's TLSSocket over a connected socket; the handshake is still to come.

    A session to resume is offered only if its server's certificate would be accepted now: resumption shows none, and the
    session may come from a connection that was less careful.
    """
    if config.session is not None and not _acceptable(config.session, config.server_name, executor):
        config = replace(config, session=None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) if sock.family != socket.AF_UNIX else None
    return TLSSocket(sock, Engine.client(config), executor, handshake_timeout=handshake_timeout, on_session=on_session)


def _acceptable(session: Session, server_name: str, executor: KeyExecutor) -> bool:
    if session.server_name != server_name or not session.fresh(time.time()):
        return False
    try:
        executor.run(VerifyPeer(session.peer_chain, server_name, None, "server"))
    except CertificateError as error:
        log.info("session not resumed: %s", error)
        return False
    return True
