"""FORTEZZA's suites from card to card: handshakes, what the cards are asked for, who is refused, and cards that go and come."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.certs import Trust
from nss_pk11.errors import Alert, AlertReceived, HandshakeFailure, IllegalParameter, NSPRError, TokenError
from nss_pk11.net.blocking import TLSSocket
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import load_identity
from nss_pk11.sessions import ServerCache
from nss_pk11.slots import SlotManager
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.session import Session
from nss_pk11.tls.suites import BY_NAME, FORTEZZA_SUITES
from nss_pk11.tls.waits import KeaInitiate, KeaRespond, Operation, Sign

from ..support.softhsm import PIN as SOFTHSM_PIN
from .fortezza import ALL, CBC, RC4, Holder, Pair, card, config, shake_hands
from .hsms import wait_until
from .peers import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pk11_tokens import RunningSimulator

    from nss_pk11.tls.suites import Suite

    from ..support.pki import PKI
    from ..support.softhsm import SoftHSM

    Start = Callable[..., RunningSimulator]

RSA = BY_NAME["SSL_RSA_WITH_3DES_EDE_CBC_SHA"]
BOTH_SUITES = (*FORTEZZA_SUITES, RSA)


@pytest.fixture
def holders(simulated_tokens: Start, pki: PKI) -> Iterator[Callable[..., Holder]]:
    made: list[Holder] = []

    def make(name: str, kind: str = "kea") -> Holder:
        made.append(Holder(simulated_tokens([card(pki, name, kind=kind)]), name))
        return made[-1]

    yield make
    for holder in made:
        holder.close()


@pytest.fixture
def server(holders: Callable[..., Holder]) -> Holder:
    return holders("localhost")


@pytest.fixture
def client(holders: Callable[..., Holder]) -> Holder:
    return holders("somebody")


# --- handshakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "suite"), ALL, ids=lambda value: getattr(value, "openssl", None) or value.label)
def test_a_handshake(version: Version, suite: Suite, server: Holder, client: Holder, trust: Trust) -> None:
    """And 100,000 bytes both ways, in records of all sizes."""
    settings: dict[str, Any] = {"suite": suite, "version": version}
    outcome = shake_hands(
        trust,
        config(ServerConfig, server.kea, **settings),
        config(ClientConfig, client.kea, server_name="localhost", **settings),
        data=bytes(range(250)) * 400,
    )
    for info in (outcome.server, outcome.client):
        assert (info.version, info.suite) == (version, suite)
    assert outcome.client.peer_chain[0] == server.kea.chain[0]
    assert outcome.server.peer_chain == ()


@pytest.mark.parametrize(("version", "suite"), ALL, ids=lambda value: getattr(value, "openssl", None) or value.label)
def test_client_authentication(version: Version, suite: Suite, server: Holder, client: Holder, trust: Trust) -> None:
    """By DSA: over y_c in the ClientKeyExchange, and over the handshake in CertificateVerify."""
    settings: dict[str, Any] = {"suite": suite, "version": version}
    outcome = shake_hands(
        trust,
        config(ServerConfig, server.kea, client_auth="require", **settings),
        config(ClientConfig, client.kea, client.dsa, server_name="localhost", **settings),
    )
    assert outcome.server.peer_chain[0] == client.dsa.chain[0]


def operations(holder: Holder) -> list[tuple[str, str]]:
    """What the card was asked to do, but for records and its housekeeping."""
    wanted = (
        "C_DeriveKey",
        "C_GenerateKey",
        "C_WrapKey",
        "C_UnwrapKey",
        "C_EncryptInit",
        "C_DecryptInit",
        "C_SignInit",
        "C_SetOperationState",
    )
    calls = [call for call in holder.simulator.calls() if call["function"] in wanted]
    assert {call["result"] for call in calls} <= {"CKR_OK"}
    return [(call["function"], call["arguments"]["mechanism"]) for call in calls]


def test_what_the_cards_are_asked_for(server: Holder, client: Holder, trust: Trust) -> None:
    """All keys are made on cards and leave them wrapped; nothing else of them is ever read."""
    for holder in (server, client):
        holder.simulator.forget_calls()
    for suite in (CBC, RC4):
        shake_hands(
            trust,
            config(ServerConfig, server.kea, suite=suite),
            config(ClientConfig, client.kea, server_name="localhost", suite=suite),
        )
    derive, key, wrap = (
        ("C_DeriveKey", "CKM_KEA_KEY_DERIVE"),
        ("C_GenerateKey", "CKM_SKIPJACK_KEY_GEN"),
        ("C_WrapKey", "CKM_SKIPJACK_WRAP"),
    )
    unwrap, encrypt, decrypt = (
        ("C_UnwrapKey", "CKM_SKIPJACK_WRAP"),
        *((f"C_{verb}cryptInit", "CKM_SKIPJACK_CBC64") for verb in ("En", "De")),
    )
    begin = [derive, encrypt, key, key, wrap, wrap, encrypt, encrypt]  # the premaster secret, and each direction's IV
    assert operations(client) == [*begin, decrypt, *begin]
    assert operations(server) == [derive, decrypt, unwrap, unwrap, encrypt, decrypt, derive, decrypt]
    for holder in (server, client):
        read = [call["function"] for call in holder.simulator.calls() if call["function"] == "C_GetAttributeValue"]
        assert not read


def test_a_cards_registers_are_free_again_when_connections_end(server: Holder, client: Holder, trust: Trust) -> None:
    """A connection takes three of a hundred."""
    ours, theirs = config(ServerConfig, server.kea), config(ClientConfig, client.kea, server_name="localhost")
    for _ in range(40):
        shake_hands(trust, ours, theirs)
    for holder in (server, client):
        assert holder.token.status().sessions < 10


# --- resumption ------------------------------------------------------------------------------------------------------


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


# --- who is refused ----------------------------------------------------------------------------------------------------


def test_a_card_of_another_domain(holders: Callable[..., Holder], server: Holder, trust: Trust) -> None:
    stranger = holders("stranger", "kea_other")
    with pytest.raises(HandshakeFailure) as raised:
        shake_hands(trust, config(ServerConfig, server.kea), config(ClientConfig, stranger.kea, server_name="localhost"))
    assert raised.value.name == "SSL_ERROR_FORTEZZA_PQG"


def test_a_client_without_a_card_of_its_own(server: Holder, trust: Trust) -> None:
    with pytest.raises(HandshakeFailure) as raised:
        shake_hands(trust, config(ServerConfig, server.kea), config(ClientConfig, server_name="localhost"))
    assert raised.value.name == "SSL_ERROR_FORTEZZA_PQG"


FIELDS = {
    "premaster": "SSL_ERROR_BAD_MAC_READ",  # by the client's Finished, under other keys
    "premaster_iv": "SSL_ERROR_BAD_MAC_READ",
    "random": "SSL_ERROR_CLIENT_KEY_EXCHANGE_FAILURE",
    "client_key": "SSL_ERROR_SYM_KEY_UNWRAP_FAILURE",
    "server_key": "SSL_ERROR_SYM_KEY_UNWRAP_FAILURE",
    "client_iv": "SSL_ERROR_BAD_MAC_READ",
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_client_key_exchange_that_somebody_changed(field: str, server: Holder, client: Holder) -> None:
    """Every number of it matters."""
    pair = Pair(server, client)
    engine, operation = pair.until(KeaInitiate)
    assert engine is pair.client
    done: Any = pair.executor.run(operation)
    value = getattr(done.keys, field)
    at = 16 if field == "premaster_iv" else len(value) - 1  # behind the LEAF, which nobody looks at
    changed = value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]
    engine.events()
    engine.complete(operation, done._replace(keys=done.keys._replace(**{field: changed})))
    with pytest.raises(NSPRError):
        pair.finish()
    assert pair.server.error is not None
    assert pair.server.error.name == FIELDS[field]


def test_a_signature_of_y_c_that_somebody_changed(server: Holder, client: Holder) -> None:
    """The first that a client with a certificate makes; the second is CertificateVerify."""
    pair = Pair(server, client, client_auth="require")
    engine, operation = pair.until(Sign)
    assert isinstance(operation, Sign)
    assert len(operation.message) == 128
    operation.message = operation.message[:-1] + b"?"
    engine.events()
    engine.complete(operation, pair.executor.run(operation))
    server.simulator.forget_calls()
    with pytest.raises(IllegalParameter) as raised:
        pair.finish()
    assert pair.server.error is raised.value
    assert raised.value.name == "SEC_ERROR_BAD_SIGNATURE"
    assert pair.server.data_to_send()[-2:] == bytes((2, Alert.illegal_parameter))
    assert not operations(server)  # the card works for nobody who has not signed


def test_y_c_left_to_a_certificate(server: Holder, client: Holder) -> None:
    """As clients with certificates of version 1 may, which are not known here."""
    pair = Pair(server, client)
    engine, operation = pair.until(KeaInitiate)
    done: Any = pair.executor.run(operation)
    engine.events()
    engine.complete(operation, done._replace(keys=done.keys._replace(public=b"")))
    with pytest.raises(IllegalParameter) as raised:
        pair.finish()
    assert raised.value.name == "SSL_ERROR_CLIENT_KEY_EXCHANGE_FAILURE"


def test_a_rollback(server: Holder, client: Holder) -> None:
    """The premaster secret holds the version that the client offered: another one is as good as none."""
    pair = Pair(server, client)
    engine, operation = pair.until(KeaInitiate)
    assert isinstance(operation, KeaInitiate)
    assert operation.premaster[:2] == b"\3\0"
    operation.premaster = b"\3\1" + operation.premaster[2:]
    engine.events()
    engine.complete(operation, pair.executor.run(operation))
    with pytest.raises(NSPRError):
        pair.finish()
    assert not pair.server.handshake_complete


# --- cards that go and come --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KeaInitiate, KeaRespond])
def test_a_card_pulled_in_mid_handshake(kind: type[Operation], server: Holder, client: Holder) -> None:
    pair = Pair(server, client)
    engine, operation = pair.until(kind)
    (client if engine is pair.client else server).token.remove()
    with pytest.raises(HandshakeFailure) as raised:
        pair.executor.run(operation)
    assert raised.value.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
    with pytest.raises(HandshakeFailure):
        engine.fail(operation, raised.value)
    with pytest.raises(AlertReceived) as heard:
        (pair.server if engine is pair.client else pair.client).receive_data(engine.data_to_send())
    assert heard.value.name == "SSL_ERROR_HANDSHAKE_FAILURE_ALERT"


def test_a_card_pulled_after_the_handshake(server: Holder, client: Holder) -> None:
    """Records can be neither written nor read any more; and the next handshake works with the card back in."""
    pair = Pair(server, client)
    pair.finish()
    assert pair.server.handshake_complete
    pair.server.send(b"goes through")
    pair.client.receive_data(pair.server.data_to_send())
    pair.client.send(b"arrives too late")
    server.token.remove()
    with pytest.raises(TokenError) as raised:
        pair.server.receive_data(pair.client.data_to_send())
    assert raised.value.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
    assert pair.server.data_to_send() == b""
    server.token.insert()
    again = Pair(server, client)
    again.finish()
    assert again.server.handshake_complete


def test_a_server_with_an_rsa_key_in_softhsm_and_a_card_that_goes_and_comes(
    softhsm: SoftHSM, pki: PKI, server: Holder, client: Holder, trust: Trust, tmp_path: Path
) -> None:
    """Serves both kinds of clients at once; while the card is out, both take RSA."""
    credential = pki.for_token(softhsm.create_token("beside a card").generate_key("rsa", "www"))
    assert credential.token_key
    library = shutil.copy(softhsm.module_path, tmp_path)  # SoftHSM looks for tokens once in a process: another one looks now
    with SlotManager() as manager:
        manager.load(library)
        manager.load(server.simulator.module)
        rsa = load_identity(manager, f"{credential.token_key.uri}?pin-value={SOFTHSM_PIN}", chain=credential.chain_file)
        kea = load_identity(manager, f"{server.token.uri('kea')}&pin-value=123456")
        old: dict[str, Any] = {"min_version": Version.ssl3, "max_version": Version.tls1_0, "suites": BOTH_SUITES}
        serving = ServerConfig(identities=(rsa, kea), mechanisms=manager.mechanisms, **old)
        fortezza = ClientConfig(identities=(client.kea,), server_name="localhost", **old)
        plain = ClientConfig(server_name="localhost", **old | {"suites": (RSA,)})

        def present() -> bool:
            return "CKM_KEA_KEY_DERIVE" in manager.mechanisms()

        with (
            manager.watch(lambda event: None, 0.05),
            KeyExecutor(trust=trust) as executor,
            running(serving, executor) as running_server,
        ):

            def suites() -> list[object]:
                return [_ask(running_server.dial(), trust, settings) for settings in (fortezza, plain)]

            assert suites() == [RC4, RSA]
            server.token.remove()
            wait_until(lambda: not present())
            assert suites() == [RSA, RSA]
            server.token.insert()
            wait_until(present)
            assert suites() == [RC4, RSA]


def _ask(sock: Any, trust: Trust, settings: ClientConfig) -> object:
    with KeyExecutor(trust=trust) as executor, TLSSocket(sock, Engine.client(settings), executor) as tls:
        tls.sendall(b"!")
        assert tls.recv() == b"!"
        return tls.info.suite
