"""Whatever a peer sends: a typed error and the right alert, never a Python exception, never a hang; and bytes may arrive in any
pieces with the same result.

Raw bytes are mutated for what travels in the clear; handshake messages are mutated before encryption for the rest, through a
client or server of ours that has been made to lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_pk11.errors import NSPRError, alert_for
from nss_pk11.net.stepdown import step_down
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls import suites
from nss_pk11.tls.codepoints import ContentType, HandshakeType, Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine

from ..support import drive
from ..support.drive import Driver, exchange
from ..support.pki import PKI

if TYPE_CHECKING:
    from collections.abc import Callable

    from nss_pk11.tls.config import Identity


@dataclass(frozen=True)
class Mode:
    """A kind of handshake: its version, the kinds of keys, "" or the only suite."""

    version: Version
    server: str = "p256"
    client: str = "p256"
    suite: str = ""


MODES = {
    "TLS 1.3": Mode(Version.tls1_3),
    "TLS 1.2": Mode(Version.tls1_2),
    "TLS 1.1": Mode(Version.tls1_1, "rsa", "p256", "ECDHE-RSA-AES128-SHA"),
    "TLS 1.0, export suite": Mode(Version.tls1_0, "rsa", "rsa", "EXP-RC4-MD5"),
    "SSL 3.0, DSS": Mode(Version.ssl3, "dsa", "dsa", "DHE-DSS-AES128-SHA"),
    "SSL 3.0, RSA": Mode(Version.ssl3, "rsa", "rsa", "RC4-MD5"),
}
by_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # a mutated certificate's

ROUNDS = 40  # exchanges after which a connection that is neither up nor dead counts as hanging
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# A mutation: (which message or flight, where in it as a fraction, what to do, with which bytes).
Mutation = tuple[int, float, str, bytes]
MUTATIONS = st.tuples(
    st.integers(0, 9),
    st.floats(0, 1),
    st.sampled_from(["replace", "insert", "delete", "truncate", "repeat", "flip"]),
    st.binary(min_size=1, max_size=40),
)


def mutate(data: bytes, mutation: Mutation) -> bytes:
    _, where, what, material = mutation
    at = int(where * (len(data) - 1)) if data else 0
    match what:
        case "replace":
            return data[:at] + material + data[at + len(material) :]
        case "insert":
            return data[:at] + material + data[at:]
        case "delete":
            return data[:at] + data[at + len(material) :]
        case "truncate":
            return data[:at]
        case "repeat":
            return data + data
    return data[:at] + bytes((data[at] ^ (1 << material[0] % 8),)) + data[at + 1 :] if data else data


@cache
def pki() -> PKI:
    return PKI(Path(mkdtemp(prefix="nss-pk11-test-")))


@cache
def identities(mode: Mode) -> tuple[Identity, Identity]:
    return drive.identity(pki().server(mode.server)), drive.identity(pki().client(mode.client))


def pair(mode: Mode) -> tuple[Driver, Driver]:
    """A server that asks for a client certificate and gives tickets, and a client that has one: every message there is."""
    own, clients = identities(mode)
    enabled: dict[str, Any] = {
        "min_version": min(mode.version, Version.tls1_2),
        "max_version": mode.version,
        "suites": (suites.BY_NAME[mode.suite],) if mode.suite else suites.SUITES,
    }
    server = Engine.server(
        ServerConfig(
            **enabled,
            step_down=step_down,
            identities=(own,),
            client_auth="request",
            tickets=TicketKeys(),
            alpn=("h2",),
        )
    )
    client = Engine.client(ClientConfig(**enabled, identities=(clients,), server_name="localhost", alpn=("h2",)))
    return Driver(server), Driver(client)


def settle(server: Driver, client: Driver) -> None:
    """Shuttle bytes until both are silent, within bounds; each side that dies must have said why, once, with its alert."""
    for _ in range(ROUNDS):
        moved = False
        for one, other in ((client, server), (server, client)):
            data = one.give()
            moved = moved or bool(data)
            if data:
                other.take(data)
        if not moved:
            return
    raise AssertionError("the two sides never stop talking")


def check(side: Driver) -> None:
    """A dead side died of a typed error that maps to an alert (or came from the peer's)."""
    if side.error is not None:
        assert isinstance(side.error, NSPRError)
        assert side.error.errno < 0
        with pytest.raises(NSPRError):
            side.engine.send(b"x")


def lie(side: Driver, mutation: Mutation) -> None:
    """Make `side` mutate its n-th handshake message on the way out; its own transcript keeps the truth."""
    link = side.engine._link
    send, count = link.send, 0

    class Liar(type(link)):  # type: ignore[misc]
        __slots__ = ()

        def send(self, message: bytes) -> None:
            nonlocal count
            if count == mutation[0]:
                message = mutate(message, mutation)
            count += 1
            super().send(message)

    assert send
    link.__class__ = Liar


@by_mode
@FUZZ
@given(mutation=MUTATIONS)
def test_server_survives_mutated_messages(mode: Mode, mutation: Mutation) -> None:
    server, client = pair(mode)
    lie(client, mutation)
    settle(server, client)
    check(server)
    check(client)


@by_mode
@FUZZ
@given(mutation=MUTATIONS)
def test_client_survives_mutated_messages(mode: Mode, mutation: Mutation) -> None:
    server, client = pair(mode)
    lie(server, mutation)
    settle(server, client)
    check(server)
    check(client)


@by_mode
@FUZZ
@given(mutation=MUTATIONS, of_server=st.booleans())
def test_mutated_bytes(mode: Mode, mutation: Mutation, of_server: bool) -> None:
    """Anything may happen to the bytes of a flight: the record layer, then the messages, refuse it or it did no harm."""
    server, client = pair(mode)
    liar = server if of_server else client
    flight = 0
    for _ in range(ROUNDS):
        for one, other in ((client, server), (server, client)):
            data = one.give()
            if data and one is liar:
                if flight == mutation[0] % 3:
                    data = mutate(data, mutation)
                flight += 1
            if data:
                other.take(data)
    check(server)
    check(client)


@by_mode
@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=30))
def test_any_chunking_gives_the_same_result(mode: Mode, sizes: list[int]) -> None:
    server, client = pair(mode)
    pieces = cycle(sizes)

    def feed(side: Driver, data: bytes) -> None:
        while data:
            size = next(pieces)
            side.take(data[:size])
            data = data[size:]

    for _ in range(6):
        feed(server, client.give())
        feed(client, server.give())
    assert server.error is None
    assert client.error is None
    assert server.engine.info.alpn == client.engine.info.alpn == ("" if mode.version == Version.ssl3 else "h2")
    assert server.engine.info.peer_chain == identities(mode)[1].chain
    client.engine.send(b"a" * 40_000)
    server.engine.send(b"b" * 40_000)
    feed(server, client.give())
    feed(client, server.give())
    assert server.received == b"a" * 40_000
    assert client.received == b"b" * 40_000


@settings(max_examples=300, deadline=None)
@given(noise=st.binary(max_size=400))
def test_noise(noise: bytes) -> None:
    server, _ = pair(MODES["TLS 1.3"])
    server.take(noise)
    check(server)


HEADERS = st.tuples(st.sampled_from([0, 20, 21, 22, 23, 24, 255]), st.sampled_from([0, 2, 3]), st.integers(0, 255))


@settings(max_examples=300, deadline=None)
@given(records=st.lists(st.tuples(HEADERS, st.binary(max_size=60)), max_size=6))
def test_records_of_noise(records: list[tuple[tuple[int, int, int], bytes]]) -> None:
    server, _ = pair(MODES["TLS 1.2"])
    server.take(b"".join(bytes(header) + len(body).to_bytes(2, "big") + body for header, body in records))
    check(server)


@FUZZ
@given(
    kind=st.sampled_from(HandshakeType),
    body=st.binary(max_size=200),
    mode=st.sampled_from(list(MODES.values())),
    to_server=st.booleans(),
)
def test_any_message_after_the_handshake(kind: HandshakeType, body: bytes, mode: Mode, to_server: bool) -> None:
    """Under the right keys, from an authenticated peer, and still hostile."""
    server, client = pair(mode)
    exchange(server, client)
    assert server.engine.handshake_complete
    liar, victim = (client, server) if to_server else (server, client)
    liar.engine._link.records.send(ContentType.handshake, bytes((kind,)) + len(body).to_bytes(3, "big") + body)
    settle(server, client)
    check(victim)


def test_every_error_of_the_family_has_an_alert_or_a_reason_for_none() -> None:
    """`alert_for` answers for every class, so no error can leave the engine unannounced by accident."""
    from nss_pk11 import errors

    silent = {errors.AlertReceived, errors.Truncated}
    kinds: list[Callable[[], NSPRError]] = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NSPRError) and kind not in silent
    ]
    assert len(kinds) > 25
    for kind in kinds:
        assert alert_for(kind()) is not None, kind
    assert alert_for(errors.AlertReceived(40)) is None
