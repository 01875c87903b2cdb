"""Messages that a peer leaves out, repeats, changes round or makes up: no handshake is completed by them (SMACK).

The peer is one of ours that lies consistently: its transcript holds what it has really sent, so that its Finished would fit if
the other side had gone along.  SSL 2.0 and second handshakes, which `test_hostile_input` does not get to, are mutated here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_pk11.net.stepdown import step_down
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.codepoints import HandshakeType, Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.messages import tls12
from nss_pk11.tls.messages.hello import message
from nss_pk11.tls.record.ssl2 import Ssl2Records
from nss_pk11.tls.ssl3.client import ClientHandshake
from nss_pk11.tls.ssl3.server import ServerHandshake
from nss_pk11.tls.suites import BY_NAME

from ..support.drive import Driver, exchange
from .test_hostile_input import FUZZ, MUTATIONS, Mode, Mutation, check, identities, lie, mutate, settle

H, V = HandshakeType, Version
MODES = {
    "SSL 3.0": Mode(V.ssl3, "rsa", "rsa", "RC4-MD5"),
    "TLS 1.0, export suite": Mode(V.tls1_0, "rsa", "rsa", "EXP-RC4-MD5"),
    "TLS 1.0, DSS": Mode(V.tls1_0, "dsa", "dsa", "DHE-DSS-AES128-SHA"),
    "TLS 1.2, tickets": Mode(V.tls1_2, "rsa", "p256", "ECDHE-RSA-AES128-SHA"),
}
SSL2 = Mode(V.ssl2, "rsa", "rsa", "SSL_CK_RC2_128_CBC_EXPORT40_WITH_MD5")
by_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # a mutated certificate's

CHANGE_CIPHER_SPEC = b""  # among messages


@dataclass
class Ends:
    """What makes servers and clients of one kind."""

    mode: Mode
    client_auth: str = "require"
    keys: TicketKeys = field(default_factory=TicketKeys)
    cache: dict[bytes, bytes] = field(default_factory=dict)

    def pair(self, **client: Any) -> tuple[Driver, Driver]:
        own, clients = identities(self.mode)
        enabled: dict[str, Any] = {
            "min_version": self.mode.version,
            "max_version": self.mode.version,
            "suites": (BY_NAME[self.mode.suite],),
            "renegotiation": "secure",
        }
        resumption = {"tickets": self.keys} if self.mode.version == V.tls1_2 else {"session_ids": True}
        settings = enabled | resumption | {"client_auth": self.client_auth, "step_down": step_down}
        server = Driver(Engine.server(ServerConfig(identities=(own,), **settings)), cache=dict(self.cache))
        return server, Driver(Engine.client(ClientConfig(identities=(clients,), server_name="localhost", **enabled | client)))

    def shaken(self) -> tuple[Driver, Driver]:
        ends = self.pair()
        exchange(*ends)
        assert all(end.engine.handshake_complete for end in ends)
        return ends


MADE_UP = (CHANGE_CIPHER_SPEC, *(message(kind, b"") for kind in H if kind != H.message_hash))
WAYS = ["leave out", "repeat", "change round"]


class Sequence:
    """What one side sends in place of its message number `at`; `touched`: it came to that."""

    def __init__(self, way: str | bytes, at: int) -> None:
        self._way, self._at = way, at
        self._count = 0
        self._held = b""
        self.touched = False

    def __call__(self, raw: bytes) -> list[bytes]:
        number, self._count = self._count, self._count + 1
        if self._held:
            held, self._held = self._held, b""
            return [raw, held]
        if number != self._at:
            return [raw]
        self.touched = True
        match self._way:
            case "leave out":
                return []
            case "repeat":
                return [raw, raw]
            case "change round":
                self._held = raw
                return []
            case bytes():
                return [self._way, raw]
        raise AssertionError(self._way)


def dictate(sequence: Sequence, handshake: type[ServerHandshake] | type[ClientHandshake], patch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Any, bytes], None] = handshake._send

    def send(flow: Any, raw: bytes) -> None:
        for new in sequence(raw):
            if new == CHANGE_CIPHER_SPEC:
                flow.link.send_change_cipher_spec()
            else:
                honest(flow, new)

    patch.setattr(handshake, "_send", send)


@by_mode
@pytest.mark.parametrize("resumed", [False, True], ids=["full", "resumed"])
@pytest.mark.parametrize("by", ["client", "server"])
def test_no_other_order_is_a_handshake(mode: Mode, by: str, resumed: bool) -> None:
    """Every one of a side's messages left out, repeated, sent after the next, and with every other before it."""
    ends = Ends(mode)
    first = ends.shaken()
    ends.cache, session = first[0].cache, first[1].sessions[0]
    handshake = ServerHandshake if by == "server" else ClientHandshake
    tried = 0
    for way in (*WAYS, *MADE_UP):
        if by == "server" and way == tls12.HELLO_REQUEST:
            continue  # which clients ignore (RFC 5246 section 7.4.1.1)
        at, sequence = 0, Sequence(way, 0)
        while True:
            with pytest.MonkeyPatch.context() as patch:
                sequence = Sequence(way, at)
                dictate(sequence, handshake, patch)
                server, client = ends.pair(session=session if resumed else None)
                settle(server, client)
            if not sequence.touched:
                break
            victim = client if by == "server" else server
            assert victim.error is not None or not victim.engine.handshake_complete, (way, at)
            check(victim)
            at, tried = at + 1, tried + 1
    assert tried >= len(MADE_UP) + len(WAYS) - 1
    server, client = ends.pair(session=session if resumed else None)
    settle(server, client)
    assert client.engine.info.resumed is resumed
    assert (server.error, client.error) == (None, None)


# --- mutations ---------------------------------------------------------------------------------------------------------------


@by_mode
@FUZZ
@given(mutation=MUTATIONS, by_server=st.booleans(), starts=st.booleans(), resume=st.booleans())
def test_mutated_messages_of_a_second_handshake(
    mode: Mode, mutation: Mutation, by_server: bool, starts: bool, resume: bool
) -> None:
    server, client = Ends(mode, "request").shaken()
    liar = server if by_server else client
    lie(liar, mutation)
    (server if starts else client).engine.renegotiate(resume=resume)
    settle(server, client)
    check(server)
    check(client)


def lie_in_ssl2(side: Driver, mutation: Mutation, patch: pytest.MonkeyPatch) -> None:
    """As `lie`, where a record is a message."""
    count, send = 0, Ssl2Records.send_ssl2

    def lying(records: Ssl2Records, raw: bytes) -> None:
        nonlocal count
        if records is side.engine._link.records:
            raw = mutate(raw, mutation) if count == mutation[0] else raw
            count += 1
        send(records, raw)

    patch.setattr(Ssl2Records, "send_ssl2", lying)


@FUZZ
@given(mutation=MUTATIONS, by_server=st.booleans(), client_auth=st.sampled_from(["none", "request", "require"]))
def test_mutated_messages_of_ssl2(mutation: Mutation, by_server: bool, client_auth: str) -> None:
    server, client = Ends(SSL2, client_auth).pair()
    with pytest.MonkeyPatch.context() as patch:
        lie_in_ssl2(server if by_server else client, mutation, patch)
        settle(server, client)
    check(server)
    check(client)


@FUZZ
@given(mutation=MUTATIONS, of_server=st.booleans())
def test_mutated_bytes_of_ssl2(mutation: Mutation, of_server: bool) -> None:
    server, client = Ends(SSL2).pair()
    flight = 0
    for _ in range(6):
        for one, other in ((client, server), (server, client)):
            data = one.give()
            if data and (one is server) is of_server:
                data = mutate(data, mutation) if flight == mutation[0] % 3 else data
                flight += 1
            other.take(data)
    check(server)
    check(client)
