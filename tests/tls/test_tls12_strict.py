"""TLS 1.2 hellos that break the rules: each broken rule, its error and its alert.

Two honest engines talk; a test rewrites one handshake message on its way, while it still travels in the clear.
"""

from __future__ import annotations

from typing import Any

import pytest

from nss_pk11.errors import Alert, ConfigurationError
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls import client as client_module
from nss_pk11.tls.codepoints import ExtensionType, HandshakeType, Version
from nss_pk11.tls.messages import extensions as ext
from nss_pk11.tls.messages.hello import ClientHello, ServerHello, message
from nss_pk11.tls.suites import FALLBACK_SCSV, SUITES

from ..support import drive
from ..support.drive import Driver
from ..support.pki import PKI
from ..support.rewrite import Edit, records, refusal, rewrite, run

X, H = ExtensionType, HandshakeType
ONLY12: dict[str, Any] = {"suites": SUITES, "max_version": Version.tls1_2}


# --- ClientHello -----------------------------------------------------------------------------------------------------------


def hello(raw: bytes, extensions: dict[int, bytes | None] | None = None, **changes: Any) -> bytes:
    """A ClientHello changed; None takes an extension out."""
    old = ClientHello.decode(raw)
    merged = {kind: body for kind, body in (old.extensions | (extensions or {})).items() if body is not None}
    fields = {name: getattr(old, name) for name in ("version", "random", "session_id", "suites", "compression")}
    return ClientHello(extensions=merged, **fields | changes).encode()


CLIENT_HELLOS: dict[str, tuple[Edit, Alert]] = {
    "compression without null": (lambda raw: hello(raw, compression=b"\x01"), Alert.illegal_parameter),
    "no compression": (lambda raw: hello(raw, compression=b""), Alert.decode_error),
    "session id of 33 bytes": (lambda raw: hello(raw, session_id=bytes(33)), Alert.decode_error),
    "no suites": (lambda raw: hello(raw, suites=()), Alert.decode_error),
    "unknown suites": (lambda raw: hello(raw, suites=(0x0A0A, 0xFFFF)), Alert.handshake_failure),
    "truncated": (lambda raw: message(1, raw[4:-1]), Alert.decode_error),
    "something behind it": (lambda raw: message(1, raw[4:] + b"\0"), Alert.decode_error),
    "extended master secret with a body": (lambda raw: hello(raw, {X.extended_master_secret: b"\0"}), Alert.decode_error),
    "encrypt-then-mac with a body": (lambda raw: hello(raw, {X.encrypt_then_mac: b"\0"}), Alert.decode_error),
    "no uncompressed points": (lambda raw: hello(raw, {X.ec_point_formats: b"\x01\x01"}), Alert.illegal_parameter),
    "no point formats": (lambda raw: hello(raw, {X.ec_point_formats: b"\0"}), Alert.decode_error),
    "point formats cut": (lambda raw: hello(raw, {X.ec_point_formats: b"\x02\0"}), Alert.decode_error),
    "renegotiation of what": (lambda raw: hello(raw, {X.renegotiation_info: b"\x0c" + bytes(12)}), Alert.handshake_failure),
    "renegotiation info without length": (lambda raw: hello(raw, {X.renegotiation_info: b""}), Alert.decode_error),
    "odd schemes": (lambda raw: hello(raw, {X.signature_algorithms: b"\0\x03\x04\x01\x04"}), Alert.decode_error),
    "no schemes": (lambda raw: hello(raw, {X.signature_algorithms: b"\0\0"}), Alert.decode_error),
    "schemes absent": (lambda raw: hello(raw, {X.signature_algorithms: None}), Alert.handshake_failure),
    "unknown schemes": (lambda raw: hello(raw, {X.signature_algorithms: b"\0\x02\xfe\xfe"}), Alert.handshake_failure),
    "no groups": (lambda raw: hello(raw, {X.supported_groups: b"\0\0"}), Alert.decode_error),
    "unknown groups": (lambda raw: hello(raw, {X.supported_groups: b"\0\x02\x0a\x0a"}), Alert.handshake_failure),
    "record size limit of 63": (lambda raw: hello(raw, {X.record_size_limit: b"\0\x3f"}), Alert.illegal_parameter),
    "record size limit cut": (lambda raw: hello(raw, {X.record_size_limit: b"\0"}), Alert.decode_error),
    "fragments of an unknown size": (
        lambda raw: hello(raw, {X.max_fragment_length: b"\x05", X.record_size_limit: None}),
        Alert.illegal_parameter,
    ),
    "status request cut": (lambda raw: hello(raw, {X.status_request: b"\x01\0"}), Alert.decode_error),
    "server name of no bytes": (lambda raw: hello(raw, {X.server_name: b"\0\x03\0\0\0"}), Alert.decode_error),
    "protocols cut": (lambda raw: hello(raw, {X.application_layer_protocol_negotiation: b"\0\x02\x05h"}), Alert.decode_error),
    "an extension twice": (lambda raw: _twice(raw), Alert.illegal_parameter),
    "fallback to an old version": (
        lambda raw: hello(raw, version=0x0302, suites=(*ClientHello.decode(raw).suites, FALLBACK_SCSV)),
        Alert.inappropriate_fallback,
    ),
    "an old version": (lambda raw: hello(raw, version=0x0302), Alert.protocol_version),
}


def _twice(raw: bytes) -> bytes:
    """The last extension (session_ticket, empty) once more."""
    block = ext.encode_block(ClientHello.decode(raw).extensions)
    start = raw.index(block)
    doubled = block[2:] + X.session_ticket.to_bytes(2, "big") + b"\0\0"
    return message(1, raw[4:start] + len(doubled).to_bytes(2, "big") + doubled)


@pytest.mark.parametrize("name", CLIENT_HELLOS)
def test_client_hello(engine_pki: PKI, name: str) -> None:
    edit, alert = CLIENT_HELLOS[name]
    suites = tuple(suite for suite in SUITES if suite.key_exchange == "ecdhe_rsa")
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(suites=suites, max_version=Version.tls1_2)
    run(server, client, H.client_hello, edit, by="client")
    refusal(server, client, alert)


@pytest.mark.parametrize(
    "extensions",
    [
        {0x0A0A: b"", 0xFAFA: b"\0"},
        {X.session_ticket: b"no ticket of ours"},
        {X.server_name: None},
        {X.supported_groups: b"\0\x06\x0a\x0a\0\x1d\xff\xff"},
        {X.ec_point_formats: None},
        {X.extended_master_secret: None, X.encrypt_then_mac: None},
        {X.renegotiation_info: b"\0"},
        {X.padding: bytes(4000)},
    ],
    ids=str,
)
def test_client_hello_that_is_merely_odd(engine_pki: PKI, extensions: dict[int, bytes | None]) -> None:
    """The server goes on; the honest client notices at Finished that somebody changed its words."""
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12, tickets=TicketKeys()), drive.client(**ONLY12)
    server.take(rewrite(client.give(), H.client_hello, lambda raw: hello(raw, extensions)))
    assert server.error is None
    assert records(server.give())


# --- ServerHello -----------------------------------------------------------------------------------------------------------


def answer(raw: bytes, extensions: dict[int, bytes | None] | None = None, **changes: Any) -> bytes:
    old = ServerHello.decode(raw)
    merged = {kind: body for kind, body in (old.extensions | (extensions or {})).items() if body is not None}
    fields = {name: getattr(old, name) for name in ("version", "random", "session_id", "suite", "compression")}
    return ServerHello(extensions=merged, **fields | changes).encode()


SERVER_HELLOS: dict[str, tuple[Edit, Alert]] = {
    "suite not offered": (lambda raw: answer(raw, suite=0x000A), Alert.illegal_parameter),
    "suite of TLS 1.3": (lambda raw: answer(raw, suite=0x1301), Alert.illegal_parameter),
    "compression": (lambda raw: answer(raw, compression=1), Alert.illegal_parameter),
    "old version": (lambda raw: answer(raw, version=0x0302), Alert.protocol_version),
    "session id of 33 bytes": (lambda raw: answer(raw, session_id=bytes(33)), Alert.decode_error),
    "extension not offered": (lambda raw: answer(raw, {X.cookie: b""}), Alert.unsupported_extension),
    "extension out of place": (lambda raw: answer(raw, {X.signature_algorithms: b"\0\x02\x04\x01"}), Alert.illegal_parameter),
    "renegotiation of what": (lambda raw: answer(raw, {X.renegotiation_info: b"\x01\0"}), Alert.handshake_failure),
    "extended master secret with a body": (lambda raw: answer(raw, {X.extended_master_secret: b"\0"}), Alert.decode_error),
    "ticket promise with a body": (lambda raw: answer(raw, {X.session_ticket: b"\0"}), Alert.decode_error),
    "no uncompressed points": (lambda raw: answer(raw, {X.ec_point_formats: b"\x01\x02"}), Alert.illegal_parameter),
    "encrypt-then-mac and AEAD": (lambda raw: answer(raw, {X.encrypt_then_mac: b""}), Alert.illegal_parameter),
    "protocol not offered": (
        lambda raw: answer(raw, {X.application_layer_protocol_negotiation: b"\0\x03\x02h3"}),
        Alert.illegal_parameter,
    ),
    "record size limit of 63": (lambda raw: answer(raw, {X.record_size_limit: b"\0\x3f"}), Alert.illegal_parameter),
    "a server name": (lambda raw: answer(raw, {X.server_name: b"x"}), Alert.decode_error),
    "truncated": (lambda raw: message(2, raw[4:-1]), Alert.decode_error),
}


@pytest.mark.parametrize("name", SERVER_HELLOS)
def test_server_hello(engine_pki: PKI, name: str) -> None:
    edit, alert = SERVER_HELLOS[name]
    server = drive.server(engine_pki.server("rsa"), **ONLY12, alpn=("h2",))
    client = drive.client(**ONLY12, alpn=("h2",))
    run(server, client, H.server_hello, edit, by="server")
    refusal(client, server, alert)


def test_echo_of_a_session_id_that_means_nothing(engine_pki: PKI) -> None:
    """A TLS 1.3 client's made-up session id is no session (RFC 8446 appendix D.4)."""
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(suites=SUITES)
    flight = client.give()
    made_up = ClientHello.decode(records(flight)[0][5:]).session_id
    assert len(made_up) == 32
    server.take(flight)
    client.take(rewrite(server.give(), H.server_hello, lambda raw: answer(raw, session_id=made_up)))
    server.take(client.give())
    refusal(client, server, Alert.illegal_parameter)


def test_downgrade(engine_pki: PKI) -> None:
    """Somebody cuts TLS 1.3 out of the ClientHello; the server's random tells (RFC 8446 section 4.1.3)."""
    server, client = drive.server(engine_pki.server("rsa"), suites=SUITES), drive.client(suites=SUITES)
    run(server, client, H.client_hello, lambda raw: hello(raw, {X.supported_versions: None, X.key_share: None}), by="client")
    refusal(client, server, Alert.illegal_parameter)


@pytest.mark.parametrize("at_first", [True, False])
def test_extended_master_secret_must_not_change_on_resumption(engine_pki: PKI, at_first: bool) -> None:
    """RFC 7627 section 5.3, both sides' rules."""
    keys = TicketKeys()
    first = drive.client(**ONLY12)
    drive.exchange(drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys), first)
    server, client = (
        drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys),
        drive.client(**ONLY12, session=first.sessions[0]),
    )
    if at_first:
        run(server, client, H.client_hello, lambda raw: hello(raw, {X.extended_master_secret: None}), by="client")
        refusal(server, client, Alert.handshake_failure)
    else:
        run(server, client, H.server_hello, lambda raw: answer(raw, {X.extended_master_secret: None}), by="server")
        refusal(client, server, Alert.handshake_failure)


def test_sessions_from_before_the_extended_master_secret(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither side has it: resumption goes on, but what RFC 7627 section 5.4 calls unsafe is gone."""
    honest, keys = client_module._extensions, TicketKeys()

    def extensions(*arguments: Any) -> ext.Extensions:
        return {kind: body for kind, body in honest(*arguments).items() if kind != X.extended_master_secret}

    def connect(**settings: Any) -> Driver:
        client = drive.client(**ONLY12, **settings)
        drive.exchange(drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys), client)
        assert client.engine.handshake_complete
        return client

    with monkeypatch.context() as patch:
        patch.setattr(client_module, "_extensions", extensions)
        first = connect()
        assert first.engine.channel_binding("tls-unique")
        (session,) = first.sessions
        assert not session.extended_master_secret
        again = connect(session=session)
        assert again.engine.info.resumed
        for kind in ("tls-unique", "tls-exporter"):
            with pytest.raises(ConfigurationError):
                again.engine.channel_binding(kind)
    # A client that learns of it in the meantime gets a full handshake.
    modern = connect(session=session)
    assert modern.engine.info.extended_master_secret
    assert not modern.engine.info.resumed
