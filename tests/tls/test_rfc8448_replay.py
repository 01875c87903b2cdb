"""RFC 8448's traces replayed through the engine: what it sends must be the trace's octets, record by record.

What the RFC's authors chose freely is given to the engine (randoms, ephemeral keys, the other stack's list of extensions, the
randomised RSA-PSS signatures); everything else it must compute.  The 0-RTT trace is replayed up to the ServerHello, as early
data is refused here, and the server's tickets are taken as given: they are opaque by definition.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from nss_pk11.tls import groups
from nss_pk11.tls.codec import Reader
from nss_pk11.tls.codepoints import ExtensionType, Group, HandshakeType, SignatureScheme, Version
from nss_pk11.tls.config import ClientConfig, Identity, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.events import Data, NewSession
from nss_pk11.tls.link import Flow, Link
from nss_pk11.tls.messages import certificate as certificates
from nss_pk11.tls.messages import extensions as ext
from nss_pk11.tls.messages.hello import ClientHello, ServerHello
from nss_pk11.tls.opening import Opening
from nss_pk11.tls.session import Session
from nss_pk11.tls.suites import BY_CODE
from nss_pk11.tls.tls13.client import ClientHandshake
from nss_pk11.tls.tls13.server import ServerHandshake
from nss_pk11.tls.transcript import Transcript
from nss_pk11.tls.waits import ChooseClientIdentity, Operation, Receive, Sign
from tests.support.rfc8448 import Record, Trace, load

H = HandshakeType
SUITES = tuple(BY_CODE[code] for code in (0x1301, 0x1303, 0x1302))
FULL_TRACES = ["simple-1rtt", "client-authentication", "compatibility-mode"]


class FixedShare:
    """An ephemeral key of the trace."""

    def __init__(self, group: Group, private: bytes) -> None:
        if group is Group.x25519:
            key = groups.MontgomeryShare(group)
            key._private = X25519PrivateKey.from_private_bytes(private)
            self.public = key._private.public_key().public_bytes_raw()
        else:
            curve = groups.WeierstrassShare._curves[group]
            key = groups.WeierstrassShare(group)
            key._private = ec.derive_private_key(int.from_bytes(private, "big"), curve)
            numbers = key._private.public_key().public_numbers()
            self.public = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        self._key = key

    def agree(self, peer: bytes) -> bytes:
        return self._key.agree(peer)


def message(trace: Trace, by: str, kind: int, which: int = 0) -> bytes:
    return [octets for who, octets in trace.messages if who == by and octets[0] == kind][which]


def extensions_of(trace: Trace) -> ext.Extensions:
    reader = Reader(message(trace, "server", H.encrypted_extensions), 4)
    return ext.decode_block(reader)


def answer(engine: Engine, trace: Trace, by: str) -> list[object]:
    """Answer operations with what the trace holds; everything else comes back."""
    seen: list[object] = []
    while events := engine.events():
        for event in events:
            match event:
                case Sign():
                    _, signature = certificates.decode_verify(message(trace, by, H.certificate_verify))
                    engine.complete(event, signature)
                case ChooseClientIdentity():
                    engine.complete(event, event.identities[0])
                case Operation():
                    engine.complete(event)
                case _:
                    seen.append(event)
    return seen


def identity_of(trace: Trace, by: str) -> Identity:
    _, chain, _ = certificates.decode_certificate13(message(trace, by, H.certificate))
    scheme, _ = certificates.decode_verify(message(trace, by, H.certificate_verify))
    return Identity(chain, (SignatureScheme(scheme),), key=None)


def replay(engine: Engine, trace: Trace, by: str, ticket: bytes = b"") -> list[object]:
    """Walk the records: theirs go in, ours must come out.  Returns the events seen."""
    seen: list[object] = []
    ours = bytearray()
    for record in after_hello(trace, by):
        if record.by != by:
            engine.receive_data(record.octets)
            seen += answer(engine, trace, by)
            continue
        if record.kind == "application_data":
            engine.send(record.payload)
        elif record.kind == "alert":
            engine.close()
        elif ticket and record.payload == ticket:
            engine._link.send(ticket)
            engine._link.flush()
        ours += engine.data_to_send()
        assert ours[: len(record.octets)] == record.octets, f"{record.kind} of {len(record.octets)} octets"
        del ours[: len(record.octets)]
    assert not ours
    return seen


def after_hello(trace: Trace, by: str) -> Iterator[Record]:
    """The records from the first that concerns the other side's answer on."""
    records = iter(trace.records)
    first = next(records)
    assert first.by == "client"
    if by == "server":
        yield first
    yield from records


# --- client ---------------------------------------------------------------------------------------------------------------


def client(trace: Trace) -> Engine:
    """A client engine that has sent the trace's own ClientHello."""
    hello = ClientHello.decode(message(trace, "client", H.client_hello))
    identities = (identity_of(trace, "client"),) if trace.name == "client-authentication" else ()
    config = ClientConfig(
        min_version=Version.tls1_3, suites=SUITES, server_name="server", record_size_limit=16384, identities=identities
    )
    link = Link(config, is_server=False)
    link.info.client_random = hello.random

    def flow() -> Flow:
        opening = Opening(hello, Transcript(), {Group.x25519: FixedShare(Group.x25519, trace.private_keys("client")[0])})
        opening.transcript.add(hello.raw)
        link.send(hello.raw)
        link.flush()
        link.records.version = 0x0303
        server_hello = ServerHello.decode((yield Receive(H.server_hello)))
        link.info.version = Version.tls1_3
        connected = yield from ClientHandshake(link, config, opening).run(server_hello)
        yield from connected.run()

    engine = Engine(config, flow(), link)
    engine.start()
    assert engine.data_to_send() == trace.records[0].octets
    return engine


@pytest.mark.parametrize("name", FULL_TRACES)
def test_client_sends_the_traces_octets(name: str) -> None:
    trace = load(name)
    engine = client(trace)
    seen = replay(engine, trace, "client")
    assert engine.info.group is Group.x25519
    assert engine._link.exporter_secret == trace.secrets["exp master"]
    data = [record.payload for record in trace.records if record.by == "server" and record.kind == "application_data"]
    assert [bytes(event.data) for event in seen if isinstance(event, Data)] == data


def test_client_derives_the_tickets_secret() -> None:
    trace = load("simple-1rtt")
    engine = client(trace)
    sessions = [event.session for event in replay(engine, trace, "client") if isinstance(event, NewSession)]
    assert [session.secret for session in sessions] == [trace.secrets["resumption"]]


def test_client_answers_a_hello_retry_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second ClientHello holds what the trace's holds; from there on the octets are the trace's."""
    trace = load("hello-retry-request")
    engine = client(trace)
    theirs = ClientHello.decode(message(trace, "client", H.client_hello, 1))
    monkeypatch.setattr(groups, "new_share", lambda group: FixedShare(group, trace.private_keys("client")[1]))
    encode = ClientHello.encode
    sent: list[ClientHello] = []

    def recorded(self: ClientHello) -> bytes:
        sent.append(ClientHello.decode(encode(self)))
        self.raw = theirs.raw  # the order of extensions and the padding are free
        return self.raw

    monkeypatch.setattr(ClientHello, "encode", recorded)
    replay(engine, trace, "client")
    (ours,) = sent
    without_padding = {kind: body for kind, body in theirs.extensions.items() if kind != ExtensionType.padding}
    assert ours.extensions == without_padding
    assert (ours.random, ours.session_id, ours.suites) == (theirs.random, theirs.session_id, theirs.suites)
    assert engine.info.hello_retry
    assert engine.info.group is Group.secp256r1


# --- server ---------------------------------------------------------------------------------------------------------------


class TraceServerHandshake(ServerHandshake):
    """Answers extensions as the trace's server did."""

    trace: Trace

    def _send_encrypted_extensions(self, hello: ClientHello) -> None:
        self.answers = extensions_of(self.trace)
        super()._send_encrypted_extensions(hello)

    def _send_certificate_request(self) -> None:
        if self.config.client_auth != "none":
            self.requested_certificate = True
            self._send(message(self.trace, "server", H.certificate_request))


class OneTicket:
    """A ticket whose state is known."""

    lifetime = 30

    def __init__(self, ticket: bytes, state: bytes) -> None:
        self._ticket, self._state = ticket, state

    def seal(self, state: bytes) -> bytes:
        raise AssertionError("no ticket is made in these tests")

    def unseal(self, ticket: bytes) -> bytes | None:
        return self._state if ticket == self._ticket else None


def server(trace: Trace, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Engine:
    share = FixedShare(Group.x25519, trace.private_keys("server")[0])
    monkeypatch.setattr(groups, "respond", lambda group, peer: (share.public, share.agree(peer)))
    random = ServerHello.decode(message(trace, "server", H.server_hello)).random
    config = ServerConfig(min_version=Version.tls1_3, suites=SUITES, random=lambda length: random[:length], **settings)  # type: ignore[arg-type]
    link = Link(config, is_server=True)

    def flow() -> Flow:
        hello = ClientHello.decode((yield Receive(H.client_hello)))
        link.info.client_random, link.info.version, link.records.version = hello.random, Version.tls1_3, 0x0303
        handshake = TraceServerHandshake(link, config)
        handshake.trace = trace
        connected = yield from handshake.run(hello)
        yield from connected.run()

    engine = Engine(config, flow(), link)
    engine._advance(None)
    return engine


@pytest.mark.parametrize("name", FULL_TRACES)
def test_server_sends_the_traces_octets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = load(name)
    client_auth = "require" if name == "client-authentication" else "none"
    engine = server(trace, monkeypatch, identities=(identity_of(trace, "server"),), client_auth=client_auth)
    tickets = [octets for who, octets in trace.messages if who == "server" and octets[0] == H.new_session_ticket]
    seen = replay(engine, trace, "server", ticket=tickets[0] if tickets else b"")
    assert engine.handshake_complete
    assert engine._link.exporter_secret == trace.secrets["exp master"]
    data = [record.payload for record in trace.records if record.by == "client" and record.kind == "application_data"]
    assert [bytes(event.data) for event in seen if isinstance(event, Data)] == data
    if client_auth == "require":
        assert engine.info.peer_chain == identity_of(trace, "client").chain


def test_server_resumes_and_refuses_early_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The binder verifies and the ServerHello is the trace's; early data is thrown away unread."""
    trace = load("resumed-0rtt")
    hello = ClientHello.decode(message(trace, "client", H.client_hello))
    ((ticket, _age),), _, _ = ext.decode_offered_psks(hello.extensions[ExtensionType.pre_shared_key])
    state = Session(0x0304, 0x1301, load("simple-1rtt").secrets["resumption"], 1000.0, 30, server_name="server").encode()
    engine = server(trace, monkeypatch, tickets=OneTicket(ticket, state), clock=lambda: 1001.0)
    first, early, flight = trace.records[:3]
    engine.receive_data(first.octets)
    assert engine.info.resumed
    sent = bytes(engine.data_to_send())
    server_hello = message(trace, "server", H.server_hello)
    assert sent[: 5 + len(server_hello)] == flight.octets[:5] + server_hello
    engine.receive_data(early.octets)
    assert engine.events() == []
    assert engine.error is None
