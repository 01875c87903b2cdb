"""Renegotiation between two engines of ours: who may start it, what stays, what is refused (RFC 5746, RFC 5246 section 7.4.1).

With other people's ends: `interop/test_renegotiation.py`.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest

from nss_pk11.errors import Alert, ConfigurationError, NSPRError
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls import client as client_module
from nss_pk11.tls import engine as engine_module
from nss_pk11.tls.codepoints import ExtensionType, Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.events import HandshakeCompleted, RenegotiationDeclined
from nss_pk11.tls.messages import extensions as ext
from nss_pk11.tls.record.layer import RecordLayer
from nss_pk11.tls.ssl3 import renegotiation
from nss_pk11.tls.ssl3.client import ClientHandshake
from nss_pk11.tls.ssl3.server import ServerHandshake
from nss_pk11.tls.suites import BY_NAME, EMPTY_RENEGOTIATION_INFO_SCSV, SUITES
from nss_pk11.tls.waits import ChooseClientIdentity, Sign

from ..support import drive
from ..support.drive import Driver, exchange
from ..support.pki import PKI

ONLY12: dict[str, Any] = {"suites": SUITES, "max_version": Version.tls1_2, "renegotiation": "secure"}
BY = pytest.mark.parametrize("by", ["client", "server"])


def pair(engine_pki: PKI, server: dict[str, Any] | None = None, client: dict[str, Any] | None = None) -> tuple[Driver, Driver]:
    """A server and a client that have shaken hands."""
    ends = drive.server(engine_pki.server("rsa"), **ONLY12 | (server or {})), drive.client(**ONLY12 | (client or {}))
    exchange(*ends)
    assert (ends[0].error, ends[1].error) == (None, None)
    return ends


def completed(driver: Driver) -> int:
    return sum(isinstance(event, HandshakeCompleted) for event in driver.events)


def settle(server: Driver, client: Driver) -> None:
    """Shuttle until silent; both must be well, agree, and have one more handshake behind them."""
    before = completed(server), completed(client)
    exchange(server, client)
    assert (server.error, client.error) == (None, None)
    assert (completed(server), completed(client)) == (before[0] + 1, before[1] + 1)
    for engine in (server.engine, client.engine):
        assert not engine.handshaking
        assert not engine.holding
    assert server.engine.channel_binding("tls-unique") == client.engine.channel_binding("tls-unique")
    assert server.engine.export(b"EXPERIMENTAL x", None, 32) == client.engine.export(b"EXPERIMENTAL x", None, 32)
    talk(server, client)


def talk(server: Driver, client: Driver) -> None:
    seen = len(server.received), len(client.received)
    client.engine.send(b"question")
    server.engine.send(b"answer" * 5000)
    exchange(server, client)
    assert (server.received[seen[0] :], client.received[seen[1] :]) == (b"question", b"answer" * 5000)


def start(by: str, server: Driver, client: Driver, **options: Any) -> None:
    engine = (server if by == "server" else client).engine
    engine.renegotiate(**options)
    assert engine.handshaking


# --- what works ------------------------------------------------------------------------------------------------------------


@BY
def test_again_and_again(engine_pki: PKI, by: str) -> None:
    server, client = pair(engine_pki)
    unique, randoms = {client.engine.channel_binding("tls-unique")}, {client.engine.info.client_random}
    for number in range(1, 4):
        start(by, server, client)
        settle(server, client)
        unique.add(client.engine.channel_binding("tls-unique"))
        randoms.add(server.engine.info.client_random)
        assert len(unique) == len(randoms) == number + 1


@BY
@pytest.mark.parametrize("version", [Version.ssl3, Version.tls1_0, Version.tls1_1], ids=lambda version: version.label)
def test_older_versions(engine_pki: PKI, version: Version, by: str) -> None:
    """Their Finished are 36 bytes in SSL 3.0, and its hellos have this one extension (RFC 5746 section 4.5)."""
    server, client = pair(engine_pki, {"min_version": Version.ssl3}, {"min_version": Version.ssl3, "max_version": version})
    assert client.engine.info.version is version
    for _ in range(2):
        start(by, server, client)
        exchange(server, client)
        talk(server, client)
    assert completed(server) == completed(client) == 3
    assert server.engine.channel_binding("tls-unique") == client.engine.channel_binding("tls-unique")


@BY
def test_ssl3_cannot_decline(engine_pki: PKI, by: str) -> None:
    """It has no such warning: who does not want to ends the connection (RFC 5746 section 4.5)."""
    ssl3 = {"min_version": Version.ssl3, "max_version": Version.ssl3}
    unwilling = ssl3 | {"renegotiation": "never"}
    server, client = pair(engine_pki, unwilling if by == "client" else ssl3, unwilling if by == "server" else ssl3)
    start(by, server, client)
    judge, told = (server, client) if by == "client" else (client, server)
    broken(judge, told, Alert.handshake_failure, "SSL_ERROR_RENEGOTIATION_NOT_ALLOWED")


@pytest.mark.parametrize("chunk", [1, 7])
def test_in_small_pieces(engine_pki: PKI, chunk: int) -> None:
    server, client = pair(engine_pki)
    server.chunk = client.chunk = chunk
    start("client", server, client)
    settle(server, client)


@pytest.mark.parametrize("tickets", [True, False], ids=["ticket", "session id"])
def test_resumption_in_a_renegotiation(engine_pki: PKI, tickets: bool) -> None:
    stores: dict[str, Any] = {"tickets": TicketKeys()} if tickets else {"session_ids": True}
    server, client = pair(engine_pki, stores)
    config = client.engine.config
    assert isinstance(config, ClientConfig)
    start("client", server, client, config=replace(config, session=client.sessions[-1]))
    settle(server, client)
    assert server.engine.info.resumed
    assert client.engine.info.resumed
    start("client", server, client, resume=False)
    settle(server, client)
    assert not client.engine.info.resumed
    assert len(client.sessions) == 2, "the full handshake made a session of its own"


def test_a_server_that_shall_not_resume(engine_pki: PKI) -> None:
    """It asks by HelloRequest; a client that offers its session all the same gets a full handshake."""
    server, client = pair(engine_pki, {"session_ids": True})
    config = client.engine.config
    assert isinstance(config, ClientConfig)
    server.engine.renegotiate(resume=False)
    client.engine.renegotiate(config=replace(config, session=client.sessions[-1]))
    settle(server, client)
    assert not server.engine.info.resumed


def test_a_certificate_only_the_second_time(engine_pki: PKI) -> None:
    ours = drive.identity(engine_pki.client("p256"))
    server, client = pair(engine_pki, client={"identities": (ours,)})
    assert server.engine.info.peer_chain == ()
    config = server.engine.config
    assert isinstance(config, ServerConfig)
    start("server", server, client, config=replace(config, client_auth="require"))
    settle(server, client)
    assert server.engine.info.peer_chain == ours.chain
    start("server", server, client, config=config)
    settle(server, client)
    assert server.engine.info.peer_chain == (), "who is not asked anew is nobody"


def test_other_suites_the_second_time(engine_pki: PKI) -> None:
    first, second = BY_NAME["AES128-GCM-SHA256"], BY_NAME["ECDHE-RSA-AES256-GCM-SHA384"]
    server, client = pair(engine_pki, client={"suites": (first,)})
    assert client.engine.info.suite is first
    start("client", server, client, config=replace(client.engine.config, suites=(second,)))
    assert client.engine.info.suite is first, "until the new one is in force"
    settle(server, client)
    assert server.engine.info.suite is client.engine.info.suite is second


def test_both_ask_at_once(engine_pki: PKI) -> None:
    server, client = pair(engine_pki)
    server.engine.renegotiate()
    client.engine.renegotiate()
    settle(server, client)


def test_from_a_tls13_client(engine_pki: PKI) -> None:
    """One that would like TLS 1.3 keeps the version it has (RFC 8446 section 4.1.2)."""
    server, client = pair(engine_pki, client={"max_version": Version.tls1_3})
    start("client", server, client)
    settle(server, client)
    assert client.engine.info.version is Version.tls1_2


# --- data meanwhile ----------------------------------------------------------------------------------------------------------


def test_what_was_agreed_stays_until_the_end(engine_pki: PKI) -> None:
    server, client = pair(engine_pki)

    def agreed(driver: Driver) -> tuple[Any, ...]:
        engine = driver.engine
        return (
            engine.info,
            engine.info.peer_chain,
            engine.export(b"EXPERIMENTAL x", b"", 32),
            engine.channel_binding("tls-unique"),
        )

    before = agreed(server), agreed(client)
    client.engine.renegotiate()
    while completed(server) < 2 and completed(client) < 2:
        assert (agreed(server), agreed(client)) == before
        to_server = client.give()
        if to_server:
            server.take(to_server)
        else:
            client.take(server.give())
    settle_after = agreed(client) if completed(client) == 2 else agreed(server)
    assert settle_after[0] is not before[1][0]
    assert settle_after[2] not in (before[0][2], before[1][2])


def test_data_in_between(engine_pki: PKI) -> None:
    """The peer's arrives, until its new keys are in force; ours waits for the end."""
    server, client = pair(engine_pki)
    server.engine.renegotiate()
    server.engine.send(b"before the hello")
    client.engine.send(b"unaware")
    hello_request_and_data, unaware = server.give(), client.give()
    client.take(hello_request_and_data)
    assert client.received == b"before the hello"
    assert client.engine.holding
    client.engine.send(b"held ")
    client.engine.send(b"back")
    server.take(unaware)
    assert server.received == b"unaware"
    exchange(server, client)
    assert server.received == b"unawareheld back"
    assert completed(server) == completed(client) == 2


def test_data_of_a_peer_that_does_not_wait(engine_pki: PKI) -> None:
    """RFC 5246 allows it up to change_cipher_spec; other implementations do it."""
    server, client = pair(engine_pki)
    client.engine.renegotiate()
    records = client.engine._link.records
    records.send(23, b"after the hello")
    server.take(client.give())
    assert server.received == b"after the hello"
    server.engine._link.records.send(23, b"behind ServerHelloDone")
    client.take(server.give())
    assert client.received == b"behind ServerHelloDone"
    settle(server, client)


def test_no_data_under_keys_that_are_not_verified(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = pair(engine_pki)
    client.engine.renegotiate()
    server.take(client.give())
    client.take(server.give())
    flight = client.give()
    finished = flight.rindex(b"\x16\x03\x03")
    server.take(flight[:finished])
    assert server.error is None
    # A record of the new keys, put before Finished.
    write = client.engine._link.records.write
    assert write is not None
    write._sequence = 0  # type: ignore[attr-defined]
    server.take(write.protect(23, b"too early"))
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_RX_UNEXPECTED_APPLICATION_DATA"
    assert server.received == b""


def test_held_data_has_a_limit(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_HELD", 10)
    server, client = pair(engine_pki)
    client.engine.renegotiate()
    client.engine.send(b"0123456789")
    with pytest.raises(NSPRError) as caught:
        client.engine.send(b"x")
    assert caught.value.name == "PR_WOULD_BLOCK_ERROR"
    exchange(server, client)
    assert (server.error, client.error) == (None, None)
    assert server.received == b"0123456789"
    talk(server, client)


# --- what is refused -----------------------------------------------------------------------------------------------------------


@BY
def test_a_peer_that_does_not_want(engine_pki: PKI, by: str) -> None:
    """It says no_renegotiation, and all goes on as before; also what was held back."""
    unwilling = {"renegotiation": "never"}
    server, client = pair(engine_pki, **{"client" if by == "server" else "server": unwilling})
    asking = server if by == "server" else client
    for number in range(1, 3):
        start(by, server, client)
        asking.engine.send(b"meanwhile")
        exchange(server, client)
        assert (server.error, client.error) == (None, None)
        assert sum(isinstance(event, RenegotiationDeclined) for event in asking.events) == number
        assert not asking.engine.handshaking
        assert (server if asking is client else client).received.endswith(b"meanwhile")
        talk(server, client)
    assert completed(server) == completed(client) == 1


def test_when_it_may_not_start(engine_pki: PKI) -> None:
    def refused(engine: Any, name: str, **options: Any) -> None:
        with pytest.raises(ConfigurationError) as caught:
            engine.renegotiate(**options)
        assert caught.value.name == name
        assert engine.error is None

    fresh = drive.client(**ONLY12)
    refused(fresh.engine, "SSL_ERROR_HANDSHAKE_NOT_COMPLETED")
    server, client = pair(engine_pki, {"renegotiation": "never"})
    refused(server.engine, "SSL_ERROR_RENEGOTIATION_NOT_ALLOWED")
    only13 = replace(client.engine.config, suites=(BY_NAME["TLS_AES_128_GCM_SHA256"],), max_version=Version.tls1_3)
    refused(client.engine, "SSL_ERROR_NO_CIPHERS_SUPPORTED", config=only13)
    client.engine.renegotiate()
    refused(client.engine, "SSL_ERROR_HANDSHAKE_NOT_COMPLETED")
    exchange(server, client)
    client.engine.close()
    refused(client.engine, "PR_SOCKET_SHUTDOWN_ERROR")
    modern = {"max_version": Version.tls1_3}
    server, client = pair(engine_pki, modern, modern)
    refused(client.engine, "SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION")
    refused(server.engine, "SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION")


def test_a_client_that_never_stops(engine_pki: PKI) -> None:
    server, client = pair(engine_pki)
    for _ in range(renegotiation.MAX_RENEGOTIATIONS):
        start("client", server, client)
        settle(server, client)
    for _ in range(renegotiation.MAX_REFUSALS):
        client.engine.renegotiate()
        exchange(server, client)
        assert isinstance(client.events[-1], RenegotiationDeclined)
    client.engine.renegotiate()
    exchange(server, client)
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"


def test_a_server_that_never_stops(engine_pki: PKI) -> None:
    server, client = pair(engine_pki)
    for _ in range(renegotiation.MAX_RENEGOTIATIONS):
        start("server", server, client)
        settle(server, client)
    server.engine.renegotiate()
    exchange(server, client)
    assert isinstance(server.events[-1], RenegotiationDeclined)


@BY
def test_a_peer_that_asks_now_and_then(engine_pki: PKI, by: str) -> None:
    """Some renew their keys so."""
    server, client = pair(
        engine_pki, {"renegotiation": "never"} if by == "client" else {}, {"renegotiation": "never"} if by == "server" else {}
    )
    for _ in range(renegotiation.MAX_REFUSALS + 2):
        start(by, server, client)
        exchange(server, client)
        talk(server, client)


def broken(judge: Driver, told: Driver, alert: Alert, name: str) -> None:
    exchange(judge, told)
    assert judge.error is not None, "nobody noticed"
    assert judge.error.name == name
    assert told.alert == alert


@BY
@pytest.mark.parametrize(
    "wrong",
    [lambda body: b"\x00", lambda body: body[:-1] + bytes((body[-1] ^ 1,)), lambda body: bytes((body[0] - 1,)) + body[1:-1]],
    ids=["empty", "a bit", "shorter"],
)
def test_wrong_renegotiation_info(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch, by: str, wrong: Any) -> None:
    server, client = pair(engine_pki)
    function = {"client": "offer", "server": "answer"}[by]
    honest = getattr(renegotiation, function)
    monkeypatch.setattr(renegotiation, function, lambda link: wrong(honest(link)))
    client.engine.renegotiate()
    judge, told = (server, client) if by == "client" else (client, server)
    broken(judge, told, Alert.handshake_failure, "SSL_ERROR_BAD_HANDSHAKE_HASH_VALUE")


def test_halves_in_the_wrong_order(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = pair(engine_pki)
    monkeypatch.setattr(
        renegotiation, "answer", lambda link: ext.encode_renegotiation_info(link.server_finished + link.client_finished)
    )
    client.engine.renegotiate()
    broken(client, server, Alert.handshake_failure, "SSL_ERROR_BAD_HANDSHAKE_HASH_VALUE")


def test_no_renegotiation_info_from_the_server(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = pair(engine_pki)
    monkeypatch.setattr(renegotiation, "answer", lambda link: None)
    client.engine.renegotiate()
    broken(client, server, Alert.handshake_failure, "SSL_ERROR_BAD_HANDSHAKE_HASH_VALUE")


def test_renegotiation_info_out_of_the_blue(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5746 sections 4.2 and 4.4: who did not know it the first time does not know it now."""
    honest = renegotiation.answer
    monkeypatch.setattr(renegotiation, "answer", lambda link: None)
    server, client = pair(engine_pki, client={"renegotiation": "legacy"})
    monkeypatch.setattr(renegotiation, "answer", honest)
    client.engine.renegotiate()
    broken(client, server, Alert.handshake_failure, "SSL_ERROR_BAD_HANDSHAKE_HASH_VALUE")


def test_a_first_hello_in_a_renegotiation(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the attack that RFC 5746 ends looks like: a victim's first ClientHello behind the attacker's handshake."""
    server, client = pair(engine_pki)
    suites = client_module._suites
    monkeypatch.setattr(client_module, "_suites", lambda *of: (*suites(*of), EMPTY_RENEGOTIATION_INFO_SCSV))
    client.engine.renegotiate()
    broken(server, client, Alert.handshake_failure, "SSL_ERROR_BAD_HANDSHAKE_HASH_VALUE")


def test_another_version(engine_pki: PKI) -> None:
    server, client = pair(engine_pki)
    client.engine._link.client_version = 0x0302
    client.engine.renegotiate()
    broken(server, client, Alert.protocol_version, "SSL_ERROR_UNSUPPORTED_VERSION")


def test_another_certificate_of_the_server(engine_pki: PKI) -> None:
    """The triple handshake: refused although the certificate is good."""
    server, client = pair(engine_pki)
    other = replace(server.engine.config, identities=(drive.identity(engine_pki.server("rsa", ("another.test",))),))
    start("server", server, client, config=other)
    broken(client, server, Alert.bad_certificate, "SSL_ERROR_BAD_CERTIFICATE")


@BY
def test_a_peer_that_forgets_the_extended_master_secret(engine_pki: PKI, by: str) -> None:
    """OpenSSL refuses that too."""
    ends = server, client = pair(engine_pki)
    theirs, ours = ends if by == "server" else (client, server)
    theirs.engine.use(replace(theirs.engine.config, extended_master_secret=False))
    client.engine.renegotiate()
    exchange(server, client)
    assert ours.error is not None
    assert ours.error.name == "SSL_ERROR_MISSING_EXTENDED_MASTER_SECRET"
    assert theirs.alert == Alert.handshake_failure


@BY
def test_the_protocol_above_stays(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Who offers it again is not listened to; NSS would refuse."""
    server, client = pair(engine_pki, {"alpn": ("h2", "http/1.1")}, {"alpn": ("http/1.1",)})
    honest = client_module._extensions
    for more in ({}, {ExtensionType.application_layer_protocol_negotiation: ext.encode_alpn(("h2",))}):
        offered: list[ext.Extensions] = []
        monkeypatch.setattr(client_module, "_extensions", lambda *a, m=more, o=offered: o.append(honest(*a)) or o[0] | m)
        start(by, server, client)
        settle(server, client)
        assert ExtensionType.application_layer_protocol_negotiation not in offered[0]
        assert client.engine.info.alpn == server.engine.info.alpn == "http/1.1"


@pytest.mark.parametrize("name", ["", "other.example"])
def test_another_server_name(engine_pki: PKI, name: str) -> None:
    """NSS refuses that: what the server has said, and done, was as the first name."""
    server, client = pair(engine_pki)
    assert server.engine.info.server_name == "localhost"
    start("client", server, client, config=replace(client.engine.config, server_name=name))
    broken(server, client, Alert.handshake_failure, "SSL_ERROR_UNRECOGNIZED_NAME_ALERT")


@BY
def test_a_peer_that_forgets_encrypt_then_mac(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """RFC 7366 section 3.1: another suite may do without, block ciphers do not go back."""
    suites = {"suites": (BY_NAME["ECDHE-RSA-AES128-SHA"], BY_NAME["ECDHE-RSA-AES128-GCM-SHA256"])}
    server, client = pair(engine_pki, suites | {"prefer_own_order": False}, suites)
    assert client.engine.info.encrypt_then_mac
    start("client", server, client, config=replace(client.engine.config, suites=suites["suites"][1:]))
    settle(server, client)
    start("client", server, client, config=replace(client.engine.config, suites=suites["suites"][:1]))
    settle(server, client)
    assert client.engine.info.encrypt_then_mac
    judge, forgetful = (server, client) if by == "client" else (client, server)
    forgetful.engine.use(replace(forgetful.engine.config, encrypt_then_mac=False))
    honest = renegotiation.keep_encrypt_then_mac
    monkeypatch.setattr(renegotiation, "keep_encrypt_then_mac", lambda link: link is forgetful.engine._link or honest(link))
    start("client", server, client, config=client.engine.config)
    broken(judge, forgetful, Alert.handshake_failure, "SSL_ERROR_UNSAFE_NEGOTIATION")


def test_a_session_of_another_server(engine_pki: PKI) -> None:
    keys = TicketKeys()
    _, elsewhere = pair(engine_pki, {"tickets": keys, "identities": (drive.identity(engine_pki.server("p256")),)})
    server, client = pair(engine_pki, {"tickets": keys})
    config = client.engine.config
    assert isinstance(config, ClientConfig)
    start("client", server, client, config=replace(config, session=elsewhere.sessions[-1]))
    broken(client, server, Alert.bad_certificate, "SSL_ERROR_BAD_CERTIFICATE")


@BY
def test_a_connection_resumed_without_the_extended_master_secret(
    engine_pki: PKI, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """RFC 7627 section 5.3: its Finished may be another connection's as well."""
    extensions = client_module._extensions

    def without(*of: Any) -> ext.Extensions:
        return {kind: body for kind, body in extensions(*of).items() if kind != 23}

    monkeypatch.setattr(client_module, "_extensions", without)
    keys = TicketKeys()
    _, first = pair(engine_pki, {"tickets": keys})
    server, client = pair(engine_pki, {"tickets": keys}, {"session": first.sessions[-1]})
    assert client.engine.info.resumed
    with pytest.raises(ConfigurationError) as caught:
        (server if by == "server" else client).engine.renegotiate()
    assert caught.value.name == "SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"


@BY
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_peers_without_rfc5746(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch, by: str, first: bool) -> None:
    """`require_safe_negotiation` wants it the first time; without, there is no second time."""
    monkeypatch.setattr(renegotiation, "answer", lambda link: None)
    monkeypatch.setattr(client_module, "EMPTY_RENEGOTIATION_INFO_SCSV", 0x0A0A)
    strict = {"require_safe_negotiation": True}
    if first:
        server = drive.server(engine_pki.server("rsa"), **ONLY12 | (strict if by == "server" else {}))
        client = drive.client(**ONLY12 | (strict if by == "client" else {}))
        judge, told = (server, client) if by == "server" else (client, server)
        broken(judge, told, Alert.handshake_failure, "SSL_ERROR_UNSAFE_NEGOTIATION")
        return
    server, client = pair(engine_pki)
    with pytest.raises(ConfigurationError) as caught:
        (server if by == "server" else client).engine.renegotiate()
    assert caught.value.name == "SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"


# --- operations and memory -------------------------------------------------------------------------------------------------


def test_operations_wait_in_a_renegotiation_as_ever(engine_pki: PKI) -> None:
    """While a token signs, what arrives is kept."""
    server, client = pair(engine_pki)
    client.engine.renegotiate()
    engine = server.engine
    engine.receive_data(client.give())
    (operation,) = (event for event in engine.events() if isinstance(event, Sign))
    client.engine._link.records.send(23, b"kept")
    engine.receive_data(client.give())
    assert engine.events() == []
    assert engine.pending is operation
    engine.complete(operation, drive.sign(operation.identity.key, operation.scheme, operation.message))
    server._settle()
    assert server.received == b"kept"
    settle(server, client)


def test_a_choice_of_no_certificate(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    result = Driver._result
    monkeypatch.setattr(Driver, "_result", lambda self, op: None if isinstance(op, ChooseClientIdentity) else result(self, op))
    server, client = pair(engine_pki, client={"identities": (drive.identity(engine_pki.client("p256")),)})
    start("server", server, client, config=replace(server.engine.config, client_auth="require"))
    broken(server, client, Alert.handshake_failure, "SSL_ERROR_NO_CERTIFICATE")


def test_nothing_of_a_handshake_stays(engine_pki: PKI) -> None:
    server, client = pair(engine_pki)
    for again in (False, True):
        if again:
            start("client", server, client)
            settle(server, client)
        links = server.engine._link, client.engine._link
        handshakes = [found for found in gc.get_objects() if isinstance(found, ServerHandshake | ClientHandshake)]
        assert not [handshake for handshake in handshakes if handshake.link in links]
        assert server.engine._link.previous is None


def test_a_connection_is_freed_at_once(engine_pki: PKI) -> None:
    """Not when garbage is collected."""
    server, client = pair(engine_pki)
    start("server", server, client)
    settle(server, client)
    gc.collect()
    gc.disable()
    try:
        engines = id(server.engine._link.records), id(client.engine._link.records)
        del server, client
        assert not [found for found in gc.get_objects() if isinstance(found, RecordLayer) and id(found) in engines]
    finally:
        gc.enable()
