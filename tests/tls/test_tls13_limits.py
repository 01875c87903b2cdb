"""TLS 1.3: what the engine refuses and where its patience ends; features no foreign peer here can show."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from nss_pk11.errors import (
    BadRecordMac,
    CertificateError,
    CertificateRequired,
    ConfigurationError,
    DecodeError,
    DecryptError,
    IllegalParameter,
    NotTLS,
    NSPRError,
    RecordOverflow,
    Truncated,
    UnexpectedMessage,
    UnsupportedVersion,
)
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls import suites
from nss_pk11.tls.codepoints import ContentType, ExtensionType, Group, Version, is_grease
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import MAX_KEY_UPDATES, Engine
from nss_pk11.tls.events import PeerCertificate, PeerClosed
from nss_pk11.tls.messages import ticket as tickets
from nss_pk11.tls.messages.extensions import encode_u16_list
from nss_pk11.tls.messages.hello import ClientHello
from nss_pk11.tls.record.layer import MAX_EMPTY_RECORDS
from nss_pk11.tls.tls13 import psk

from ..support import drive
from ..support.drive import Driver, Stdlib, exchange
from ..support.pki import PKI

if TYPE_CHECKING:
    from nss_pk11.tls.config import Identity


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def identity(pki: PKI) -> Identity:
    return drive.identity(pki.server("p256"))


def server(identity: Identity, **settings: object) -> Driver:
    return Driver(Engine.server(ServerConfig(identities=(identity,), **settings)))  # type: ignore[arg-type]


def client(**settings: object) -> Driver:
    return Driver(Engine.client(ClientConfig(server_name="localhost", **settings)))  # type: ignore[arg-type]


def connected(identity: Identity, **settings: object) -> tuple[Driver, Driver]:
    ours, theirs = server(identity, **settings), client()
    exchange(ours, theirs)
    assert ours.engine.handshake_complete
    assert theirs.engine.handshake_complete
    return ours, theirs


def record(kind: int, body: bytes) -> bytes:
    return bytes((kind, 3, 3)) + len(body).to_bytes(2, "big") + body


# --- limits -----------------------------------------------------------------------------------------------------------------


def test_handshake_message_of_more_than_128_kilobytes_is_refused(identity: Identity) -> None:
    ours = server(identity)
    ours.take(record(ContentType.handshake, b"\x01\x02\x00\x01" + bytes(100)))
    assert isinstance(ours.error, DecodeError)
    assert ours.give()[-2:] == b"\x02\x32"  # fatal decode_error


def test_empty_records_are_counted(identity: Identity) -> None:
    ours, theirs = connected(identity)
    layer = theirs.engine._link.records
    for _ in range(MAX_EMPTY_RECORDS):
        layer.send(ContentType.application_data, b"")
    exchange(ours, theirs)
    assert ours.error is None
    theirs.engine.send(b"x")  # one record that holds something starts the count again
    for _ in range(MAX_EMPTY_RECORDS + 1):
        layer.send(ContentType.application_data, b"")
    exchange(ours, theirs)
    assert isinstance(ours.error, UnexpectedMessage)
    assert ours.error.name == "SSL_ERROR_TOO_MANY_RECORDS"


def test_key_updates_both_ways_and_their_limit(identity: Identity) -> None:
    ours, theirs = connected(identity)
    for _ in range(3):
        theirs.engine.update_keys(request_peer=True)
        ours.engine.update_keys()
        theirs.engine.send(b"from the client")
        ours.engine.send(b"from the server")
        exchange(ours, theirs)
    assert ours.received == b"from the client" * 3
    assert theirs.received == b"from the server" * 3
    for _ in range(MAX_KEY_UPDATES + 1):
        theirs.engine.update_keys()
    exchange(ours, theirs)
    assert ours.error is not None
    assert ours.error.name == "SSL_ERROR_TOO_MANY_KEY_UPDATES"


def test_write_key_changes_on_its_own_before_its_limit(identity: Identity) -> None:
    ours, theirs = connected(identity)
    write = ours.engine._link.records.write
    assert write is not None
    write.record_limit = 4  # type: ignore[attr-defined]
    for number in range(12):
        ours.engine.send(b"%d," % number)
    exchange(ours, theirs)
    assert ours.engine._link.records.write is not write
    assert theirs.received == b"0,1,2,3,4,5,6,7,8,9,10,11,"


def test_only_five_psks_are_tried(identity: Identity) -> None:
    class Counting:
        lifetime = 100
        seen = 0

        def seal(self, state: bytes) -> bytes:
            return state

        def unseal(self, ticket: bytes) -> bytes | None:
            self.seen += 1
            return None

    counting = Counting()
    ours = server(identity, tickets=counting)
    theirs = Engine.client(ClientConfig(server_name="localhost"))
    theirs.start()
    hello = ClientHello.decode(bytes(theirs.data_to_send())[5:])
    offered = b"".join((10).to_bytes(2, "big") + b"t" * 10 + bytes(4) for _ in range(8))
    binders = (b"\x20" + bytes(32)) * 8
    hello.extensions[ExtensionType.pre_shared_key] = (
        len(offered).to_bytes(2, "big") + offered + len(binders).to_bytes(2, "big") + binders
    )
    ours.take(record(ContentType.handshake, hello.encode()))
    assert ours.error is None
    assert counting.seen == psk.MAX_TRIED == 5


# --- tickets ----------------------------------------------------------------------------------------------------------------


def resumed(identity: Identity, pki: PKI, keys: TicketKeys, **settings: object) -> tuple[Driver, Driver]:
    first, other = server(identity, tickets=keys), client()
    exchange(first, other)
    assert len(other.sessions) == 2
    again, ours = server(identity, tickets=keys, **settings), client(session=other.sessions[0])
    exchange(again, ours)
    return again, ours


def test_a_ticket_resumes_without_a_signature(identity: Identity, pki: PKI) -> None:
    ours, theirs = resumed(identity, pki, TicketKeys())
    assert ours.engine.info.resumed
    assert theirs.engine.info.resumed
    assert ours.operations == []
    assert len(theirs.sessions) == 1


def test_a_ticket_of_another_context_does_a_full_handshake(identity: Identity, pki: PKI) -> None:
    ours, _ = resumed(identity, pki, TicketKeys(), context=b"another site")
    assert ours.engine.handshake_complete
    assert not ours.engine.info.resumed


def test_a_ticket_survives_a_hello_retry_request(identity: Identity, pki: PKI) -> None:
    ours, theirs = resumed(identity, pki, TicketKeys(), groups=(Group.secp384r1,))
    assert ours.engine.info.hello_retry
    assert ours.engine.info.resumed
    assert theirs.engine.handshake_complete


def test_a_wrong_binder_ends_the_handshake(identity: Identity) -> None:
    keys = TicketKeys()
    first, other = server(identity, tickets=keys), client()
    exchange(first, other)
    again, ours = server(identity, tickets=keys), client(session=other.sessions[0])
    flight = bytearray(ours.give())
    flight[-1] ^= 1  # the binder is the end of the ClientHello
    again.take(bytes(flight))
    assert isinstance(again.error, DecryptError)


def test_a_ticket_with_a_client_certificate_is_checked_again(identity: Identity, pki: PKI) -> None:
    """Today's rules hold for yesterday's certificate."""
    keys = TicketKeys()
    who = drive.identity(pki.client("p256"))
    first, other = server(identity, tickets=keys, client_auth="require"), client(identities=(who,))
    exchange(first, other)
    again, ours = server(identity, tickets=keys, client_auth="require"), client(session=other.sessions[0], identities=(who,))
    exchange(again, ours)
    assert again.engine.info.resumed
    assert [type(operation).__name__ for operation in again.operations] == ["VerifyPeer"]
    assert again.engine.info.peer_chain == who.chain


def test_a_stale_session_is_not_offered(identity: Identity) -> None:
    first, other = server(identity, tickets=TicketKeys()), client()
    exchange(first, other)
    ours = client(session=other.sessions[0], clock=lambda: other.sessions[0].created + other.sessions[0].lifetime + 1)
    hello = ClientHello.decode(ours.give()[5:])
    assert ExtensionType.pre_shared_key not in hello.extensions


def test_a_session_is_offered_to_its_own_server_only(identity: Identity) -> None:
    first, other = server(identity, tickets=TicketKeys()), client()
    exchange(first, other)
    ours = Driver(Engine.client(ClientConfig(server_name="elsewhere.example", session=other.sessions[0])))
    assert ExtensionType.pre_shared_key not in ClientHello.decode(ours.give()[5:]).extensions


def test_a_resumed_servers_chain_is_judged_again(identity: Identity) -> None:
    """A session got while nothing was verified is no way round verification."""
    keys = TicketKeys()
    first, other = server(identity, tickets=keys), client()
    exchange(first, other)
    refusal = CertificateError("no longer trusted", name="SEC_ERROR_UNTRUSTED_ISSUER")
    again, ours = server(identity, tickets=keys), client(session=other.sessions[0])
    ours.refuse = refusal
    exchange(again, ours)
    assert ours.error is refusal
    assert again.alert == 48


# --- client certificates ------------------------------------------------------------------------------------------------------


def test_a_required_certificate_that_does_not_come(identity: Identity) -> None:
    ours, theirs = server(identity, client_auth="require"), client()
    exchange(ours, theirs)
    assert isinstance(ours.error, CertificateRequired)
    assert theirs.alert == 116


def test_post_handshake_authentication(identity: Identity, pki: PKI) -> None:
    who = drive.identity(pki.client("p256"))
    ours, theirs = server(identity), client(identities=(who,))
    exchange(ours, theirs)
    ours.engine.request_client_certificate()
    with pytest.raises(ConfigurationError):
        ours.engine.request_client_certificate()
    exchange(ours, theirs)
    assert [event.chain for event in ours.events if isinstance(event, PeerCertificate)] == [who.chain]
    theirs.engine.send(b"still alive")
    exchange(ours, theirs)
    assert ours.received == b"still alive"


def test_post_handshake_authentication_needs_the_clients_consent(identity: Identity) -> None:
    ours, _ = connected(identity)
    with pytest.raises(ConfigurationError) as caught:
        ours.engine.request_client_certificate()
    assert caught.value.name == "SSL_ERROR_MISSING_POST_HANDSHAKE_AUTH_EXTENSION"


# --- how connections end ------------------------------------------------------------------------------------------------------


def test_half_close_and_truncation(identity: Identity) -> None:
    ours, theirs = connected(identity)
    theirs.engine.close()
    exchange(ours, theirs)
    assert any(isinstance(event, PeerClosed) for event in ours.events)
    ours.engine.send(b"an answer after the client's close_notify")
    exchange(ours, theirs)
    assert theirs.received == b"an answer after the client's close_notify"
    ours.engine.receive_eof()  # close_notify came: the end is no surprise
    with pytest.raises(Truncated):
        theirs.engine.receive_eof()


def test_a_flipped_bit_is_bad_record_mac(identity: Identity) -> None:
    ours, theirs = connected(identity)
    theirs.engine.send(b"data")
    data = bytearray(theirs.give())
    data[-1] ^= 0x80
    ours.take(bytes(data))
    assert isinstance(ours.error, BadRecordMac)
    theirs.take(ours.give())
    assert theirs.alert == 20


def test_oversized_records(identity: Identity) -> None:
    ours = server(identity)
    ours.take(bytes((22, 3, 1)) + (16385).to_bytes(2, "big"))
    assert isinstance(ours.error, RecordOverflow)


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n", b"\x80\x2e\x01\x00\x02", b"SSH-2.0-x\r\n", b"\x00"])
def test_what_is_not_tls_is_named(identity: Identity, noise: bytes) -> None:
    ours = server(identity)
    ours.take(noise)
    assert isinstance(ours.error, NotTLS)
    assert ("HTTP" in str(ours.error)) == noise.startswith(b"GET")


def test_close_before_the_handshake_is_an_error(identity: Identity) -> None:
    ours = server(identity)
    ours.take(record(ContentType.alert, b"\x01\x00"))
    assert isinstance(ours.error, NSPRError)
    with pytest.raises(NSPRError):
        ours.engine.send(b"x")


# --- hellos ---------------------------------------------------------------------------------------------------------------------


def hello_with(change: dict[int, bytes | None], **fields: object) -> bytes:
    """Our client's ClientHello with extensions replaced (None takes one out) and fields set."""
    engine = Engine.client(ClientConfig(server_name="localhost", min_version=Version.tls1_3))
    engine.start()
    hello = ClientHello.decode(bytes(engine.data_to_send())[5:])
    for kind, body in change.items():
        if body is None:
            hello.extensions.pop(kind)
        else:
            hello.extensions[kind] = body
    for name, value in fields.items():
        setattr(hello, name, value)
    return record(ContentType.handshake, hello.encode())


X = ExtensionType


@pytest.mark.parametrize(
    ("change", "alert"),
    [
        ({X.key_share: None}, 109),
        ({X.supported_groups: None}, 109),
        ({X.signature_algorithms: None}, 109),
        ({X.key_share: b"\x00\x05\x00\x1d\x00\x01"}, 50),
        ({X.key_share: b"\x00\x08\x00\x1d\x00\x04abcd"}, 47),
        ({X.supported_groups: encode_u16_list((Group.x448,))}, 47),
        ({X.signature_algorithms: encode_u16_list((0x0807,))}, 40),
        ({X.signature_algorithms: b"\x00\x03\x04\x03\x08"}, 50),
        ({X.supported_versions: b"\x02\x03\x01"}, 70),
        ({X.record_size_limit: b"\x00\x3f"}, 47),
        ({X.application_layer_protocol_negotiation: b"\x00\x00"}, 50),
        ({X.server_name: b"\x00\x04\x00\x00\x02a"}, 50),
    ],
)
def test_bad_hellos_get_the_right_alert(identity: Identity, change: dict[int, bytes | None], alert: int) -> None:
    ours = server(identity)
    ours.take(hello_with(change))
    assert ours.error is not None
    assert ours.give()[-2:] == bytes((2, alert))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"compression": b"\x01\x00"}, IllegalParameter),
        ({"version": 0x0300}, UnsupportedVersion),
        ({"session_id": b"x" * 33}, DecodeError),
    ],
)
def test_bad_fields(identity: Identity, fields: dict[str, object], kind: type[NSPRError]) -> None:
    ours = server(identity)
    ours.take(hello_with({}, **fields))
    assert type(ours.error) is kind


def test_grease_is_ignored(identity: Identity) -> None:
    """RFC 8701: reserved numbers in every list change nothing."""
    assert is_grease(0x0A0A)
    assert is_grease(0xFAFA)
    assert not is_grease(0x0A1A)
    codes = tuple(suite.code for suite in suites.DEFAULT_SUITES)
    greased = hello_with(
        {
            0x1A1A: b"",
            0x2A2A: b"\0",
            X.supported_versions: b"\x04\x3a\x3a\x03\x04",
            X.supported_groups: encode_u16_list((0x4A4A, *Group)),
            X.signature_algorithms: encode_u16_list((0x5A5A, 0x0403)),
        },
        suites=(0x6A6A, *codes),
    )
    ours = server(identity)
    ours.take(greased)
    assert ours.error is None
    assert ours.engine.info.version == Version.tls1_3


def test_a_second_retry_is_refused_by_the_client(identity: Identity) -> None:
    ours, theirs = server(identity, groups=(Group.secp521r1,)), client()
    ours.take(theirs.give())
    retry = ours.give()
    theirs.take(retry)
    theirs.take(retry)
    assert isinstance(theirs.error, NSPRError)
    assert theirs.error.name in {"SSL_ERROR_RX_UNEXPECTED_HELLO_RETRY_REQUEST", "SSL_ERROR_RX_MALFORMED_SERVER_HELLO"}


def test_a_late_key_update_record_may_not_hold_more(identity: Identity) -> None:
    """A message behind a KeyUpdate in one record lies across a key change (RFC 8446 section 5.1)."""
    ours, theirs = connected(identity)
    both = tickets.encode_key_update(False) * 2
    theirs.engine._link.records.send(ContentType.handshake, both)
    exchange(ours, theirs)
    assert isinstance(ours.error, UnexpectedMessage)


def test_downgrade_sentinel_is_noticed(identity: Identity, pki: PKI) -> None:
    """OpenSSL, told to speak TLS 1.2 at most, does not mark its random; our server, which knows TLS 1.3, does."""
    marked = server(identity, suites=suites.SUITES)
    hello = bytearray(hello_with({X.supported_versions: b"\x02\x03\x03"}, suites=(0xC02B,)))
    marked.take(bytes(hello))
    flight = marked.give()
    assert flight[11:43].endswith(b"DOWNGRD\x01")


def test_stdlib_resumes_with_our_ticket(identity: Identity, pki: PKI) -> None:
    keys = TicketKeys()
    context = drive.client_context(pki.ca_file, tls13=True)
    session: ssl.SSLSession | None = None
    reused = []
    for _ in range(2):
        ours = server(identity, tickets=keys)
        theirs = Stdlib(context, server=False, name="localhost", session=session)
        exchange(ours, theirs)
        assert theirs.complete
        session = theirs.ssl.session
        reused.append((theirs.ssl.session_reused, ours.engine.info.resumed))
    assert reused == [(False, False), (True, True)]
