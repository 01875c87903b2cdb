"""TLS 1.2 between two engines of ours: what OpenSSL's Python face cannot be made to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nss_pk11.errors import Alert, CertificateError, ConfigurationError
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
from nss_pk11.tls.events import ForgetSession, HandshakeCompleted, StoreSession
from nss_pk11.tls.messages import tls12
from nss_pk11.tls.suites import BY_NAME, SUITES
from nss_pk11.tls.waits import Decrypt, LookupSession, Sign, VerifyPeer

from ..support import drive
from ..support.drive import Driver, exchange
from ..support.pki import PKI

ONLY12: dict[str, Any] = {"suites": SUITES, "max_version": Version.tls1_2}
DHE, RSA, CBC = (BY_NAME[name] for name in ("DHE-RSA-AES128-GCM-SHA256", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"))


def connect(server: Driver, client: Driver) -> None:
    exchange(server, client)
    assert (server.error, client.error) == (None, None)
    assert server.engine.handshake_complete
    assert client.engine.handshake_complete
    ours, theirs = server.engine.info, client.engine.info
    for name in ("version", "suite", "group", "signature_scheme", "alpn", "server_name", "resumed", "client_random"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.extended_master_secret == theirs.extended_master_secret
    assert ours.encrypt_then_mac == theirs.encrypt_then_mac
    for kind in ("tls-unique", "tls-exporter") if ours.extended_master_secret else ("tls-unique",):
        assert server.engine.channel_binding(kind) == client.engine.channel_binding(kind) != b""
    assert server.engine.export(b"EXPERIMENTAL x", None, 40) == client.engine.export(b"EXPERIMENTAL x", None, 40)
    assert server.engine.export(b"EXPERIMENTAL x", b"", 40) != server.engine.export(b"EXPERIMENTAL x", None, 40)


def refused(server: Driver, client: Driver, name: str, alert: Alert, by: str = "server") -> None:
    """The handshake ends by `by`'s error `name`, and the other side is told `alert`."""
    exchange(server, client)
    judge, told = (server, client) if by == "server" else (client, server)
    assert judge.error is not None
    assert judge.error.name == name
    assert told.alert == alert


# --- choosing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "settings", "suite"),
    [
        (("rsa", "p256"), {}, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (("rsa",), {}, "ECDHE-RSA-AES128-GCM-SHA256"),
        (("ed25519",), {}, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (("rsa",), {"groups": (Group.ffdhe3072,)}, "DHE-RSA-AES128-GCM-SHA256"),
        (("rsa",), {"schemes": (SignatureScheme.ed25519,)}, "AES128-GCM-SHA256"),
        (("p384", "rsa"), {"groups": (Group.x25519, Group.secp256r1)}, "ECDHE-RSA-AES128-GCM-SHA256"),
    ],
)
def test_choice_of_suite(engine_pki: PKI, kinds: tuple[str, ...], settings: Any, suite: str) -> None:
    """By the server's identities and what the client takes: its groups, its schemes, its curves for certificates."""
    server = drive.server(*(engine_pki.server(kind) for kind in kinds), **ONLY12)
    connect(server, drive.client(**ONLY12, **settings))
    assert server.engine.info.suite is BY_NAME[suite]


def test_the_cheaper_of_two_keys_signs(engine_pki: PKI) -> None:
    for rsa, ec, wanted in ((5.0, 900.0, "ecdhe_rsa"), (900.0, 5.0, "ecdhe_ecdsa")):
        identities = drive.identity(engine_pki.server("rsa"), cost=rsa), drive.identity(engine_pki.server("p256"), cost=ec)
        server = drive.server(identities=identities, **ONLY12)
        connect(server, drive.client(**ONLY12))
        assert server.engine.info.suite is not None
        assert server.engine.info.suite.key_exchange == wanted


def test_the_client_s_order_where_the_server_has_none(engine_pki: PKI) -> None:
    preferred = (BY_NAME["ECDHE-RSA-CHACHA20-POLY1305"], BY_NAME["ECDHE-RSA-AES128-GCM-SHA256"])
    server = drive.server(engine_pki.server("rsa"), **ONLY12, prefer_own_order=False)
    client = drive.client(max_version=Version.tls1_2, suites=preferred, groups=(Group.secp384r1, Group.x25519))
    connect(server, client)
    assert (server.engine.info.suite, server.engine.info.group) == (preferred[0], Group.secp384r1)


def test_named_identity_before_a_better_suite(engine_pki: PKI) -> None:
    server = drive.server(engine_pki.server("p256", names=("other.test",)), engine_pki.server("rsa"), **ONLY12)
    connect(server, drive.client(**ONLY12))
    assert server.engine.info.signature_scheme is not None
    assert server.engine.info.signature_scheme.name.startswith("rsa")


def test_unknown_name(engine_pki: PKI) -> None:
    server = drive.server(engine_pki.server("rsa"), **ONLY12, refuse_unknown_names=True)
    refused(server, drive.client(**ONLY12, server_name="who.test"), "SSL_ERROR_UNRECOGNIZED_NAME_ALERT", Alert.unrecognized_name)


@pytest.mark.parametrize(
    ("client_groups", "server_groups", "expected"),
    [
        ((Group.x25519,), None, Group.ffdhe2048),
        ((Group.ffdhe4096, Group.ffdhe3072), None, Group.ffdhe3072),
        ((Group.ffdhe4096,), (Group.ffdhe2048,), None),
    ],
)
def test_finite_fields(engine_pki: PKI, client_groups: Any, server_groups: Any, expected: Group | None) -> None:
    """RFC 7919 section 4: one the client names, or ffdhe2048 if it names none, or none at all."""
    settings = {"groups": server_groups} if server_groups else {}
    server = drive.server(engine_pki.server("rsa"), suites=(DHE,), max_version=Version.tls1_2, **settings)
    client = drive.client(suites=(DHE,), max_version=Version.tls1_2, groups=client_groups)
    if expected is None:
        refused(server, client, "SSL_ERROR_NO_CYPHER_OVERLAP", Alert.insufficient_security)
    else:
        connect(server, client)
        assert server.engine.info.group == expected


def test_sha1_only_where_both_enable_it(engine_pki: PKI) -> None:
    sha1 = (SignatureScheme.rsa_pkcs1_sha1,)
    client = drive.client(**ONLY12 | {"suites": (DHE,)}, schemes=sha1)
    refused(drive.server(engine_pki.server("rsa"), **ONLY12), client, "SSL_ERROR_NO_CYPHER_OVERLAP", Alert.handshake_failure)
    client = drive.client(**ONLY12 | {"suites": (DHE,)}, schemes=sha1)
    connect(drive.server(engine_pki.server("rsa"), **ONLY12, schemes=sha1), client)


# --- RSA key exchange --------------------------------------------------------------------------------------------------------


def test_rsa_key_exchange_decrypts_once_and_signs_nothing(engine_pki: PKI) -> None:
    server = drive.server(engine_pki.server("rsa"), **ONLY12)
    connect(server, drive.client(suites=(RSA,), max_version=Version.tls1_2))
    assert [type(operation) for operation in server.operations] == [Decrypt]
    assert server.engine.info.group is None
    assert server.engine.info.signature_scheme is None


@pytest.mark.parametrize("plaintext", [None, b"", bytes(48), b"\x03\x03" + bytes(45), b"\x03\x02" + bytes(46)])
def test_bleichenbacher(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch, plaintext: bytes | None) -> None:
    """Whatever the token makes of the ciphertext, the client learns the same: its Finished cannot be read."""
    server = drive.server(engine_pki.server("rsa"), **ONLY12)
    honest = server._result
    monkeypatch.setattr(server, "_result", lambda op: plaintext if isinstance(op, Decrypt) else honest(op))
    client = drive.client(suites=(RSA,), max_version=Version.tls1_2)
    refused(server, client, "SSL_ERROR_BAD_MAC_READ", Alert.bad_record_mac)


def test_rsa_needs_a_key_that_decrypts(engine_pki: PKI) -> None:
    identity = replace(drive.identity(engine_pki.server("rsa")), can_decrypt=False)
    server = drive.server(identities=(identity,), **ONLY12)
    client = drive.client(suites=(RSA,), max_version=Version.tls1_2)
    refused(server, client, "SSL_ERROR_NO_CYPHER_OVERLAP", Alert.handshake_failure)


# --- resumption --------------------------------------------------------------------------------------------------------------


def test_a_resumed_servers_chain_is_judged_again(engine_pki: PKI) -> None:
    """A session got while nothing was verified is no way round verification."""
    keys = TicketKeys()
    first = drive.client(**ONLY12)
    connect(drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys), first)
    again = drive.client(**ONLY12, session=first.sessions[0])
    again.refuse = CertificateError("no longer trusted", name="SEC_ERROR_UNTRUSTED_ISSUER")
    server = drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys)
    exchange(server, again)
    assert again.error is again.refuse
    assert server.alert == 48


def test_ticket(engine_pki: PKI) -> None:
    keys = TicketKeys()
    first = drive.client(**ONLY12, alpn=("a", "b"))
    connect(drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys, alpn=("a",)), first)
    (session,) = first.sessions
    assert session.ticket
    assert session.extended_master_secret
    again = drive.client(**ONLY12, session=session, alpn=("a", "b"))
    server = drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys, alpn=("b",))
    connect(server, again)
    assert server.engine.info.resumed
    assert server.engine.info.alpn == "b"
    assert server.operations == []
    assert again.sessions == []  # the ticket is as good as it was
    foreign = drive.server(engine_pki.server("rsa"), **ONLY12, tickets=TicketKeys())
    client = drive.client(**ONLY12, session=session)
    connect(foreign, client)
    assert not client.engine.info.resumed
    assert client.sessions[0].ticket != session.ticket


def test_session_id_and_client_certificate(engine_pki: PKI) -> None:
    credential, cache = engine_pki.client("p256"), dict[bytes, bytes]()
    session = None
    for resumed in (False, True):
        server = drive.server(engine_pki.server("rsa"), **ONLY12, session_ids=True, client_auth="require")
        server.cache = cache
        client = drive.client(**ONLY12, session=session, identities=(drive.identity(credential),))
        connect(server, client)
        assert server.engine.info.resumed == resumed
        assert server.engine.info.peer_chain == drive.identity(credential).chain
        kinds = {type(operation) for operation in server.operations}
        assert kinds == ({LookupSession, VerifyPeer} if resumed else {Sign, VerifyPeer})
        session = session or client.sessions[0]


def test_session_of_a_stranger_is_not_enough(engine_pki: PKI) -> None:
    """A server that requires a certificate takes no session without one; one that asks for none takes no session with one."""
    keys = TicketKeys()
    anonymous = drive.client(**ONLY12)
    connect(drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys), anonymous)
    client = drive.client(**ONLY12, session=anonymous.sessions[0], identities=(drive.identity(engine_pki.client("rsa")),))
    connect(drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys, client_auth="require"), client)
    assert not client.engine.info.resumed
    again = drive.client(**ONLY12, session=client.sessions[0])
    connect(drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys), again)
    assert not again.engine.info.resumed


def test_session_is_good_for_its_name_and_context_only(engine_pki: PKI) -> None:
    keys = TicketKeys()
    first = drive.client(**ONLY12)
    connect(drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys), first)
    for server_settings, client_settings in (({}, {"server_name": "else.test"}), ({"context": b"x"}, {})):
        client = drive.client(**ONLY12, **{"session": first.sessions[0]} | client_settings)
        connect(drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys, **server_settings), client)
        assert not client.engine.info.resumed


def test_session_expires(engine_pki: PKI) -> None:
    now = [1_000_000.0]
    clock: Any = {"clock": lambda: now[0]}
    cache: dict[bytes, bytes] = {}
    session = None
    for later, resumed in ((0, False), (7200, True), (1, False)):
        now[0] += later
        server = drive.server(engine_pki.server("rsa"), **ONLY12, session_ids=True, **clock)
        server.cache = cache
        client = drive.client(**ONLY12, session=session and replace(session, lifetime=1 << 20), **clock)
        connect(server, client)
        assert client.engine.info.resumed == resumed
        session = session or client.sessions[0]


def test_fatal_alert_forgets_the_session(engine_pki: PKI) -> None:
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12, session_ids=True), drive.client(**ONLY12)
    connect(server, client)
    stored = next(event for event in server.events if isinstance(event, StoreSession))
    assert list(server.cache) == [stored.session_id]
    server.take(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert server.error is not None
    assert any(isinstance(event, ForgetSession) for event in [*server.events, *server.engine.events()])


# --- limits ------------------------------------------------------------------------------------------------------------------


def record_sizes(flight: bytes) -> list[int]:
    sizes = []
    while flight:
        sizes.append(int.from_bytes(flight[3:5], "big"))
        flight = flight[5 + sizes[-1] :]
    return sizes


@pytest.mark.parametrize("newest", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)
def test_record_size_limit(engine_pki: PKI, newest: Version) -> None:
    """Both ways, without counting the content type, even if the client had TLS 1.3 in mind (RFC 8449 section 4)."""
    server = drive.server(engine_pki.server("rsa"), **ONLY12, record_size_limit=700)
    client = drive.client(suites=SUITES, max_version=newest, record_size_limit=300)
    connect(server, client)
    assert client.engine.info.record_size_limit == 700
    assert server.engine.info.record_size_limit == (300 if newest == Version.tls1_2 else 301)
    for sender, receiver in ((server, client), (client, server)):
        sender.engine.send(bytes(2000))
        flight = sender.give()
        assert max(record_sizes(flight)) == sender.engine.info.record_size_limit + 24  # nonce and tag
        receiver.take(flight)
        assert receiver.received == bytes(2000)


def test_too_large_a_record(engine_pki: PKI) -> None:
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12, record_size_limit=700), drive.client(**ONLY12)
    connect(server, client)
    client.engine._link.records.send_limit = 701
    client.engine.send(bytes(701))
    server.take(client.give())
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_RX_RECORD_TOO_LONG"


def test_max_fragment_length(engine_pki: PKI) -> None:
    """At once and for handshake messages too (RFC 6066 section 4)."""
    server = drive.server(engine_pki.server("rsa"), **ONLY12)
    client = drive.client(**ONLY12, max_fragment_length=512)
    server.take(client.give())
    flight = server.give()
    assert max(record_sizes(flight)) <= 512
    client.take(flight)
    connect(server, client)
    client.engine.send(bytes(2000))
    assert max(record_sizes(client.give())) == 512 + 24


# --- what comes along ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [DHE, RSA], ids=lambda suite: suite.openssl)
def test_stapled_ocsp(engine_pki: PKI, suite: Any) -> None:
    server = drive.server(engine_pki.server("rsa"), ocsp=b"an OCSP response", **ONLY12)
    client = drive.client(suites=(suite,), max_version=Version.tls1_2)
    connect(server, client)
    assert client.engine.info.ocsp == b"an OCSP response"
    (verify,) = (operation for operation in client.operations if isinstance(operation, VerifyPeer))
    assert (verify.ocsp, verify.server_name, verify.purpose) == (b"an OCSP response", "localhost", "server")
    plain = drive.client(suites=(suite,), max_version=Version.tls1_2, request_ocsp=False)
    connect(drive.server(engine_pki.server("rsa"), ocsp=b"an OCSP response", **ONLY12), plain)
    assert plain.engine.info.ocsp == b""


@pytest.mark.parametrize("by", ["server", "client"])
def test_refused_certificate(engine_pki: PKI, by: str) -> None:
    server = drive.server(engine_pki.server("rsa"), **ONLY12, client_auth="require")
    client = drive.client(**ONLY12, identities=(drive.identity(engine_pki.client("rsa")),))
    judge = server if by == "server" else client
    judge.refuse = CertificateError("who?", name="SEC_ERROR_UNKNOWN_ISSUER")
    refused(server, client, "SEC_ERROR_UNKNOWN_ISSUER", Alert.unknown_ca, by)
    assert not any(isinstance(event, HandshakeCompleted) for event in server.events + client.events)


def test_key_log(engine_pki: PKI) -> None:
    lines: list[str] = []
    server = drive.server(engine_pki.server("rsa"), **ONLY12, keylog=lines.append)
    client = drive.client(**ONLY12, keylog=lines.append)
    connect(server, client)
    assert len(lines) == 2
    assert lines[0] == lines[1]
    label, random, secret = lines[0].split()
    assert (label, random, len(secret)) == ("CLIENT_RANDOM", client.engine.info.client_random.hex(), 96)


def test_what_only_tls13_has(engine_pki: PKI) -> None:
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12)
    connect(server, client)
    with pytest.raises(ConfigurationError):
        client.engine.update_keys()
    with pytest.raises(ConfigurationError):
        server.engine.request_client_certificate()


# --- renegotiation -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["server", "client"])
def test_renegotiation_is_refused_with_a_warning(engine_pki: PKI, by: str) -> None:
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12)
    connect(server, client)
    asking, asked = (server, client) if by == "server" else (client, server)
    link = asking.engine._link
    request = tls12.HELLO_REQUEST if by == "server" else b"\x01\0\0\x02\x03\x03"
    for _ in range(4):
        link.send(request)
        link.flush()
        asked.take(asking.give())
        assert asked.error is None
        asking.take(asked.give())
        asking.engine.send(b"on we go")
        asked.engine.send(b"so we do")
        exchange(asking, asked)
    assert asked.received == b"on we go" * 4
    assert asking.received == b"so we do" * 4
    for _ in range(5):  # and no data
        assert asked.error is None
        link.send(request)
        link.flush()
        exchange(asking, asked)
    assert asked.error is not None
    assert asked.error.name == "SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"
    assert asking.alert == Alert.no_renegotiation


@pytest.mark.parametrize("etm", [True, False])
def test_close(engine_pki: PKI, etm: bool) -> None:
    server = drive.server(engine_pki.server("p256"), **ONLY12, encrypt_then_mac=etm)
    client = drive.client(suites=(CBC,), max_version=Version.tls1_2)
    connect(server, client)
    client.engine.close()
    server.take(client.give())
    assert server.engine.peer_closed
    server.engine.send(b"half-open")
    client.take(server.give())
    assert client.received == b"half-open"
