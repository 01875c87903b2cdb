"""FORTEZZA's sessions resumed: with SKIPJACK by the keys that both cards kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.certs import Trust
from nss_pk11.errors import HandshakeFailure
from nss_pk11.net.blocking import TLSSocket
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.sessions import ServerCache
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.session import Session
from nss_pk11.tls.suites import BY_NAME

from ..peers import running
from . import ALL, CBC, RC4, Holder, config, operations, shake_hands

if TYPE_CHECKING:
    from collections.abc import Callable

    from nss_pk11.tls.suites import Suite

RSA = BY_NAME["SSL_RSA_WITH_3DES_EDE_CBC_SHA"]


@pytest.mark.parametrize(("version", "suite"), ALL, ids=lambda value: getattr(value, "openssl", None) or value.label)
def test_sessions_are_resumed(version: Version, suite: Suite, server: Holder, client: Holder, trust: Trust) -> None:
    """Again and again, both ways, with data; also what was written to a file meanwhile, and when the cards were away."""
    cache = ServerCache()
    settings: dict[str, Any] = {"suite": suite, "version": version}
    ours = config(ServerConfig, server.kea, session_ids=True, **settings)
    first = shake_hands(trust, ours, config(ClientConfig, client.kea, server_name="localhost", **settings), sessions=cache)
    assert first.session is not None
    assert bool(first.session.card) == (suite is CBC)
    again = Session.decode(first.session.encode())
    assert again.card == first.session.card
    for _ in range(2):
        theirs = config(ClientConfig, client.kea, server_name="localhost", session=again, **settings)
        outcome = shake_hands(trust, ours, theirs, sessions=cache, data=bytes(range(250)) * 40)
        assert outcome.client.resumed
        assert outcome.server.resumed
        for holder in (server, client):
            holder.token.remove()
            holder.token.insert()


def test_what_cards_are_asked_for_to_resume(server: Holder, client: Holder, trust: Trust) -> None:
    """No KEA: the keys of the first handshake, which each card wrapped for itself; the client's encrypts from where it began."""
    cache = ServerCache()
    ours = config(ServerConfig, server.kea, session_ids=True)
    first = shake_hands(trust, ours, config(ClientConfig, client.kea, server_name="localhost"), sessions=cache)
    for holder in (server, client):
        holder.simulator.forget_calls()
    shake_hands(trust, ours, config(ClientConfig, client.kea, server_name="localhost", session=first.session), sessions=cache)
    unwrap, encrypt, decrypt, take_up = (
        (f"C_{function}", f"CKM_SKIPJACK_{mechanism}")
        for function, mechanism in (
            ("UnwrapKey", "WRAP"), ("EncryptInit", "CBC64"), ("DecryptInit", "CBC64"), ("SetOperationState", "CBC64"),
        )
    )  # fmt: skip
    assert operations(client) == [unwrap, unwrap, take_up, decrypt]
    assert operations(server) == [unwrap, unwrap, encrypt, decrypt]


def test_a_server_with_another_card_begins_anew(holders: Callable[..., Holder], client: Holder, trust: Trust) -> None:
    """It cannot unwrap what the first card kept."""
    cache = ServerCache()
    suites: dict[str, Any] = {"session_ids": True}
    one, two = (holders("localhost") for _ in range(2))
    first = shake_hands(
        trust, config(ServerConfig, one.kea, **suites), config(ClientConfig, client.kea, server_name="localhost"), sessions=cache
    )
    assert first.session is not None
    theirs = config(ClientConfig, client.kea, server_name="localhost", session=first.session)
    second = shake_hands(trust, config(ServerConfig, two.kea, **suites), theirs, sessions=cache)
    assert not second.server.resumed
    assert second.session is not None
    assert second.session.session_id != first.session.session_id


def test_a_client_with_another_card_fails(holders: Callable[..., Holder], server: Holder, client: Holder, trust: Trust) -> None:
    """It has asked for the session already when it notices."""
    cache = ServerCache()
    ours = config(ServerConfig, server.kea, session_ids=True)
    first = shake_hands(trust, ours, config(ClientConfig, client.kea, server_name="localhost"), sessions=cache)
    other = holders("another")
    with pytest.raises(HandshakeFailure) as raised:
        shake_hands(trust, ours, config(ClientConfig, other.kea, server_name="localhost", session=first.session), sessions=cache)
    assert raised.value.name == "SSL_ERROR_SYM_KEY_UNWRAP_FAILURE"


def test_a_clients_card_that_saves_nothing(server: Holder, client: Holder, trust: Trust) -> None:
    ours = config(ServerConfig, server.kea, session_ids=True)
    client.token.fail("C_GetOperationState", "CKR_FUNCTION_NOT_SUPPORTED")
    outcome = shake_hands(trust, ours, config(ClientConfig, client.kea, server_name="localhost"), sessions=ServerCache())
    assert outcome.session is None


def test_a_servers_card_that_saves_nothing(server: Holder, client: Holder, trust: Trust) -> None:
    """The client asks in vain for the session that it was given a number of."""
    cache = ServerCache()
    ours = config(ServerConfig, server.kea, session_ids=True)
    server.token.fail("C_WrapKey", "CKR_KEY_NOT_WRAPPABLE")
    first = shake_hands(trust, ours, config(ClientConfig, client.kea, server_name="localhost"), sessions=cache)
    assert first.session is not None
    assert cache.get(first.session.session_id) is None
    theirs = config(ClientConfig, client.kea, server_name="localhost", session=first.session)
    assert not shake_hands(trust, ours, theirs, sessions=cache).client.resumed


def test_a_session_without_what_the_card_kept_is_not_resumed(server: Holder, client: Holder, trust: Trust) -> None:
    """As one that an earlier release stored."""
    cache = ServerCache()
    ours = config(ServerConfig, server.kea, session_ids=True)
    first = shake_hands(trust, ours, config(ClientConfig, client.kea, server_name="localhost"), sessions=cache)
    assert first.session is not None
    state = cache.get(first.session.session_id)
    assert state is not None
    cache.put(first.session.session_id, replace(Session.decode(state), card=b"").encode())
    theirs = config(ClientConfig, client.kea, server_name="localhost", session=first.session)
    assert not shake_hands(trust, ours, theirs, sessions=cache).server.resumed


def test_no_session_is_resumed_while_the_card_is_out(server: Holder, client: Holder, trust: Trust) -> None:
    cache = ServerCache()
    ours = config(ServerConfig, server.kea, suite=RC4, session_ids=True)
    theirs: dict[str, Any] = {"server_name": "localhost", "mechanisms": client.manager.mechanisms}
    first = shake_hands(trust, ours, config(ClientConfig, client.kea, suite=RC4, **theirs), sessions=cache)
    assert first.session is not None
    client.token.remove()
    client.manager.slots()
    engine = Engine.client(config(ClientConfig, client.kea, suites=(RC4, RSA), session=first.session, **theirs))
    engine.start()
    hello = engine.data_to_send()
    assert first.session.session_id not in hello
    assert hello[9 + 34 + 1 :][:6] == bytes.fromhex("0004 000a 00ff")  # 3DES, and the signal of RFC 5746


def test_by_a_server_with_many_connections(server: Holder, client: Holder, trust: Trust) -> None:
    """Which waits for the card in a thread."""
    serving = config(ServerConfig, server.kea, session_ids=True)
    kept: list[Session] = []
    with KeyExecutor(trust=trust, sessions=ServerCache()) as executor, running(serving, executor) as running_server:
        for resumed in (False, True):
            settings = config(ClientConfig, client.kea, server_name="localhost", session=kept[-1] if kept else None)
            with (
                KeyExecutor(trust=trust) as own,
                TLSSocket(running_server.dial(), Engine.client(settings), own, on_session=kept.append) as tls,
            ):
                tls.sendall(b"!")
                assert tls.recv() == b"!"
                assert tls.info.resumed == resumed
