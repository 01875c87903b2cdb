"""Slow tokens: key operations of different connections overlap, up to what the token allows, whoever drives them."""

from __future__ import annotations

import socket
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from nss_pk11 import pins
from nss_pk11.net.blocking import TLSSocket
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import load_identity
from nss_pk11.slots import SlotManager
from nss_pk11.tls.config import ServerConfig
from nss_pk11.tls.engine import Engine

from ..support import load
from ..support.command import Serve
from .hsms import hsm, identity, loaded
from .peers import TIMEOUT, Task, client_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from pk11_tokens import RunningSimulator, TokenControl

    from ..support.pki import PKI
    from ..support.softhsm import SoftHSM

SESSIONS = 8
CLIENTS = 20


@pytest.fixture
def token(simulated_tokens: Callable[..., RunningSimulator], pki: PKI) -> TokenControl:
    """50 ms a signature, eight sessions."""
    return simulated_tokens([hsm(pki, "hsm", latency={"C_Sign": 0.05}, max_sessions=SESSIONS)])["hsm"]


def test_server_keeps_all_sessions_busy(token: TokenControl, softhsm: SoftHSM, pki: PKI) -> None:
    with Serve(softhsm, *identity(token, pki), "--echo") as server, loaded(server, pki, 100, CLIENTS) as handshakes:
        assert handshakes.wait() == (100, {})
    status = token.status()
    assert status.most_running >= SESSIONS - 1, "one session may be kept for the login"
    assert status.calls["C_OpenSession"] <= SESSIONS, "no session is opened in vain"


def test_blocking_sockets_in_threads_keep_all_sessions_busy(token: TokenControl, pki: PKI) -> None:
    together = threading.Barrier(CLIENTS)

    def serve(listener: socket.socket, config: ServerConfig, executor: KeyExecutor) -> None:
        sock, _ = listener.accept()
        with TLSSocket(sock, Engine.server(config), executor) as tls:
            tls.sendall(tls.recv(1))
            assert tls.recv(1) == b""
            tls.unwrap().close()

    def connect(port: int) -> None:
        together.wait(TIMEOUT)
        load.handshake(port, client_context(pki))

    with (
        SlotManager() as manager,
        KeyExecutor() as executor,
        socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener,
    ):
        listener.settimeout(TIMEOUT)
        chain = pki.server("p256").chain_file
        own = load_identity(manager, f"{token.uri('www')}&pin-value=1234-hsm", chain=chain)
        config = ServerConfig(identities=(own,), mechanisms=manager.mechanisms)
        servers = [Task(partial(serve, listener, config, executor)) for _ in range(CLIENTS)]
        clients = [Task(partial(connect, listener.getsockname()[1])) for _ in range(CLIENTS)]
        for task in (*clients, *servers):
            task.wait()
        assert token.status().most_running >= SESSIONS - 1


def test_token_that_gives_fewer_sessions_than_it_says(token: TokenControl, softhsm: SoftHSM, pki: PKI) -> None:
    """Other programs hold them: who finds none waits for one that is open, and no handshake fails."""
    with SlotManager() as other:
        other.load(token.simulator.module)
        [home] = [found for found in other.tokens() if found.info.label == "hsm"]
        home.login(pins.value("1234-hsm"))
        held = [home.pool.take() for _ in range(SESSIONS - 3)]  # type: ignore[attr-defined]
        with Serve(softhsm, *identity(token, pki), "--echo") as server, loaded(server, pki, 40, CLIENTS) as handshakes:
            assert handshakes.wait() == (40, {}), server.output
        for worker in held:
            home.pool.give_back(worker)  # type: ignore[attr-defined]
