"""FORTEZZA's suites from card to card: handshakes, what the cards are asked for, and who is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.certs import Trust
from nss_pk11.errors import Alert, HandshakeFailure, IllegalParameter, NSPRError
from nss_pk11.net.identity import load_identity
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.events import Data
from nss_pk11.tls.messages import fortezza
from nss_pk11.tls.waits import KeaInitiate, Sign

from . import ALL, CBC, RC4, Holder, Pair, config, operations, shake_hands

if TYPE_CHECKING:
    from collections.abc import Callable

    from nss_pk11.tls.suites import Suite

    from ...support.pki import PKI


# --- handshakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "suite"), ALL, ids=lambda value: getattr(value, "openssl", None) or value.label)
def test_a_handshake(version: Version, suite: Suite, server: Holder, client: Holder, trust: Trust) -> None:
    """And 40,000 bytes both ways, in records of all sizes."""
    settings: dict[str, Any] = {"suite": suite, "version": version}
    outcome = shake_hands(
        trust,
        config(ServerConfig, server.kea, **settings),
        config(ClientConfig, client.kea, server_name="localhost", **settings),
        data=bytes(range(250)) * 160,
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


@pytest.mark.parametrize("by_client", [True, False], ids=["client", "server"])
def test_a_renegotiation(by_client: bool, server: Holder, client: Holder) -> None:
    """New keys on both cards, and again a block ahead of the server's first record."""
    pair = Pair(server, client)
    pair.finish()
    old = (server.token.status(), client.token.status())
    (pair.client if by_client else pair.server).renegotiate()
    pair.finish()
    for engine, other in ((pair.client, pair.server), (pair.server, pair.client)):
        engine.events()
        other.send(b"after")
        pair.pass_on(engine)
        assert b"".join(event.data for event in engine.events() if isinstance(event, Data)) == b"after"
    for holder, before in zip((server, client), old, strict=True):
        assert holder.token.status().calls["C_DeriveKey"] == before.calls["C_DeriveKey"] + 1


def test_a_cards_registers_are_free_again_when_connections_end(server: Holder, client: Holder, trust: Trust) -> None:
    """A connection takes three of a hundred."""
    ours, theirs = config(ServerConfig, server.kea), config(ClientConfig, client.kea, server_name="localhost")
    for _ in range(40):
        shake_hands(trust, ours, theirs)
    for holder in (server, client):
        assert holder.token.status().sessions < 10


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


def test_a_server_that_asks_for_a_certificate_of_rsa(
    server: Holder, client: Holder, trust: Trust, pki: PKI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DSA alone signs y_c, in 40 bytes: the client has no certificate for it."""
    monkeypatch.setattr(fortezza, "FORTEZZA_DMS", 1)  # as the server says it; the client knows 20
    credential = pki.client("rsa")
    rsa = load_identity(client.manager, credential.key_file, chain=credential.chain_file)
    theirs = config(ClientConfig, client.kea, client.dsa, rsa, server_name="localhost")
    outcome = shake_hands(trust, config(ServerConfig, server.kea, client_auth="request"), theirs)
    assert outcome.server.peer_chain == ()


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
