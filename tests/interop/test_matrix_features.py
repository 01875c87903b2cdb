"""What else peers do with us in SSL 3.0 to TLS 1.2, in both roles: client certificates, resumption, renegotiation before and
after RFC 5746, short RSA keys for export suites; and what is refused."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.errors import AlertReceived
from nss_pk11.net.stepdown import step_down
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.suites import BY_NAME

from ..support.old_peers import JSSE, NSS, OLD, Cell, Conversing, GnuTLS, OpenSSL102, converse
from ..support.ours import OurServer, connect
from .talking import EVERYTHING, Answering, Renegotiating, renegotiate_and_converse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nss_pk11.tls.config import Identity

    from ..support.old_peers import OldPeer
    from ..support.old_pki import OldKeys, OldPKI, OldTrust
    from .talking import Matrix

SUITE = BY_NAME["TLS_RSA_WITH_AES_128_CBC_SHA"]
VERSIONS = pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)
CLIENT = ClientConfig(server_name="localhost", **EVERYTHING)
KINDS = ("rsa", "rsa1024", "dsa", "p256")


def peers(*keys: str, first: Version = Version.ssl3) -> pytest.MarkDecorator:
    """With each of these in every version from `first` on; GnuTLS has no SSL 3.0."""
    found = [(v, key) for v in OLD for key in keys if v >= first and not (key == "G" and v is Version.ssl3)]
    return pytest.mark.parametrize(("version", "peer"), found, ids=[f"{v.label}-{key}" for v, key in found])


@dataclasses.dataclass
class World:
    """Everything there is, in one place."""

    pki: OldPKI
    keys: OldKeys
    trust: OldTrust
    peers: dict[str, OldPeer]
    matrix: Matrix

    def identity(self, kind: str = "rsa") -> Identity:
        return self.keys.identity(self.pki.server(kind))

    def serve(self, application: Any = Answering, **settings: Any) -> OurServer:
        config = ServerConfig(**{"identities": (self.identity(),), **EVERYTHING, **settings})
        return OurServer(config, trust=self.trust, application=application)

    def conversing(self, key: str) -> Conversing:
        peer = self.peers[key]
        assert isinstance(peer, Conversing)
        return peer


@pytest.fixture(scope="module")
def world(old_pki: OldPKI, old_keys: OldKeys, old_trust: OldTrust, old_peers: dict[str, OldPeer], matrix: Matrix) -> World:
    return World(old_pki, old_keys, old_trust, old_peers, matrix)


# --- client certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demanding(world: World) -> Iterator[OurServer]:
    """Ours, which wants to know its clients."""
    with world.serve(client_auth="require", authorities=world.trust.authorities) as server:
        yield server


def shows_certificate(world: World, key: str, cell: Cell, port: int, kind: str) -> None:
    peer, credential = world.peers[key], world.pki.client(kind)
    if isinstance(peer, Conversing):
        peer.connections(port, cell, credential)
    else:
        assert isinstance(peer, NSS | GnuTLS)
        assert b"ECHO BYE" in peer.say(port, cell, credential=credential)


def client_certificates() -> pytest.MarkDecorator:
    """Peers and kinds of keys."""
    found = [(version, peer, kind) for version in OLD for peer in "OJNG" for kind in KINDS]
    found = [
        (version, peer, kind)
        for version, peer, kind in found
        if not (version is Version.ssl3 and (peer == "G" or kind == "p256"))  # SSL 3.0 knows no elliptic curves
        and not (version is Version.ssl3 and (peer, kind) == ("N", "dsa"))  # NSS's DSA signatures in SSL 3.0 are its own
    ]
    return pytest.mark.parametrize(("version", "peer", "kind"), found, ids=[f"{v.label}-{p}-{k}" for v, p, k in found])


@client_certificates()
def test_a_client_shows_its_certificate(demanding: OurServer, world: World, version: Version, peer: str, kind: str) -> None:
    before = demanding.mark()
    shows_certificate(world, peer, Cell(SUITE, version), demanding.port, kind)
    seen = demanding.next(before)
    assert seen.error is None
    assert seen.info.version is version
    assert f"client {kind}".encode() in seen.info.peer_chain[0]
    world.matrix.passed("server", f"client certificates, {kind}", version, peer)


@client_certificates()
def test_our_client_shows_its_certificate(world: World, version: Version, peer: str, kind: str) -> None:
    cell, there = Cell(SUITE, version), world.peers[peer]
    identity = world.keys.identity(world.pki.client(kind))
    config = dataclasses.replace(CLIENT, identities=(identity,), suites=(SUITE,), max_version=version)
    if isinstance(there, Conversing):
        with there.serving(cell, verify=True, demand=True) as serving:
            seen = connect(serving.port, config, trust=world.trust, use=converse, request=None)
        assert f"client {kind}" in serving.connections[0].peer
    else:
        assert isinstance(there, NSS | GnuTLS)
        far = there.far(cell, "require")
        seen = connect(far.port, config, trust=world.trust, use=far.talk, request=None)
    assert seen.error is None
    assert seen.info.version is version
    assert seen.info.identity is identity
    world.matrix.passed("client", f"client certificates, {kind}", version, peer)


@peers("O", "J")
def test_a_client_without_a_certificate(demanding: OurServer, world: World, version: Version, peer: str) -> None:
    """In SSL 3.0 it says so by a warning, from TLS 1.0 on by a list of none."""
    before = demanding.mark()
    assert not world.conversing(peer).try_to_connect(demanding.port, Cell(SUITE, version))[0].ok
    error = demanding.next(before).error
    assert error is not None
    assert error.name == "SSL_ERROR_NO_CERTIFICATE"
    with world.serve(client_auth="request", authorities=world.trust.authorities) as welcoming:
        world.conversing(peer).connections(welcoming.port, Cell(SUITE, version))
        assert welcoming.next(0).error is None


@peers("O", "J")
def test_our_client_without_a_certificate(world: World, version: Version, peer: str) -> None:
    config = dataclasses.replace(CLIENT, suites=(SUITE,), max_version=version)
    with world.conversing(peer).trying_to_serve(Cell(SUITE, version), verify=True, demand=True) as serving:
        seen = connect(serving.port, config, trust=world.trust, use=converse, request=None)
    assert isinstance(seen.error, AlertReceived)
    assert not serving.connections[0].ok


# --- resumption by session id ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jsse_of_old(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JSSE]:
    """Java does not resume what has no extended master secret while it wants one; SSL 3.0 has no such thing."""

    class Old(JSSE):
        properties = ("jdk.tls.useExtendedMasterSecret=false",)

    old = Old(world.pki, tmp_path_factory.mktemp("jsse"))
    yield old
    old.close()


def resuming(world: World, key: str, version: Version, request: pytest.FixtureRequest) -> OldPeer:
    old: OldPeer = request.getfixturevalue("jsse_of_old") if (key, version) == ("J", Version.ssl3) else world.peers[key]
    return old


@peers("O", "J", "N")
def test_a_client_resumes(world: World, version: Version, peer: str, request: pytest.FixtureRequest) -> None:
    cell, there = Cell(SUITE, version), resuming(world, peer, version, request)
    with world.serve(None if peer == "N" else Answering, session_ids=True) as server:
        if isinstance(there, Conversing):
            done = there.connections(server.port, cell, count=2, resume=True, no_tickets=True)
            assert [connection.resumed for connection in done] == [False, True]
        else:
            assert isinstance(there, NSS)
            assert b"1 cache hits; 1 cache misses" in there.twice(server.port, cell)
        first, second = server.next(0), server.next(1)
    assert (first.error, second.error) == (None, None)
    assert (first.info.resumed, second.info.resumed) == (False, True)
    assert (second.info.version, second.info.suite) == (version, SUITE)
    world.matrix.passed("server", "resumption by session id", version, peer)


@peers("O", "J", "N", "G")
def test_our_client_resumes(world: World, version: Version, peer: str, request: pytest.FixtureRequest) -> None:
    cell, there = Cell(SUITE, version), resuming(world, peer, version, request)
    config = dataclasses.replace(CLIENT, suites=(SUITE,), max_version=version, tickets=False)

    def twice(port: int, talk: Any) -> None:
        first = connect(port, config, trust=world.trust, use=talk, request=None)
        assert first.error is None
        again = dataclasses.replace(config, session=first.sessions[-1])
        second = connect(port, again, trust=world.trust, use=talk, request=None)
        assert second.error is None
        assert (first.info.resumed, second.info.resumed) == (False, True)
        assert (second.info.version, second.info.suite) == (version, SUITE)

    if isinstance(there, Conversing):
        with there.serving(cell, count=2) as serving:
            twice(serving.port, converse)
        assert [connection.resumed for connection in serving.connections] == [False, True]
    else:
        assert isinstance(there, NSS | GnuTLS)
        far = there.far(cell)
        twice(far.port, far.talk)
    world.matrix.passed("client", "resumption by session id", version, peer)


# --- renegotiation -----------------------------------------------------------------------------------------------------------


@peers("O", "J", "G")
def test_a_client_renegotiates(world: World, version: Version, peer: str) -> None:
    cell, there = Cell(SUITE, version), world.peers[peer]
    with world.serve(renegotiation="secure") as server:
        if isinstance(there, Conversing):
            assert there.connections(server.port, cell, renegotiate=True)[0].renegotiated == 1
        else:
            assert isinstance(there, GnuTLS)
            assert b"ReHandshake was completed" in there.say(server.port, cell, "--rehandshake")
        assert server.next(0).error is None
    world.matrix.passed("server", "renegotiation (RFC 5746), started by the client", version, peer)


@peers("O", "J", "N", "G")
def test_our_server_renegotiates(world: World, version: Version, peer: str) -> None:
    cell, there = Cell(SUITE, version), world.peers[peer]
    with world.serve(Renegotiating, renegotiation="secure") as server:
        if isinstance(there, Conversing):
            there.connections(server.port, cell)
        else:
            assert isinstance(there, NSS | GnuTLS)
            assert b"ECHO BYE" in there.say(server.port, cell)
        assert server.next(0).error is None
    assert Renegotiating.done.pop()
    world.matrix.passed("server", "renegotiation (RFC 5746), started by the server", version, peer)


@peers("O", "J")
def test_our_client_renegotiates(world: World, version: Version, peer: str) -> None:
    config = dataclasses.replace(CLIENT, suites=(SUITE,), max_version=version, renegotiation="secure")
    with world.conversing(peer).serving(Cell(SUITE, version)) as serving:
        seen = connect(serving.port, config, trust=world.trust, use=renegotiate_and_converse, request=None)
    assert seen.error is None
    world.matrix.passed("client", "renegotiation (RFC 5746), started by the client", version, peer)


@peers("O", "J")
def test_a_server_renegotiates(world: World, version: Version, peer: str) -> None:
    config = dataclasses.replace(CLIENT, suites=(SUITE,), max_version=version, renegotiation="secure")
    with world.conversing(peer).serving(Cell(SUITE, version), renegotiate=True) as serving:
        seen = connect(serving.port, config, trust=world.trust, use=converse, request=None)
    assert seen.error is None
    assert serving.connections[0].renegotiated == 1
    world.matrix.passed("client", "renegotiation (RFC 5746), started by the server", version, peer)


# --- renegotiation with peers that do not know RFC 5746 ------------------------------------------------------------------------

OLD_FASHIONED: dict[str, Any] = {"no_rfc5746": True, "unsafe_renegotiation": True}
NO_RFC5746 = ":%DISABLE_SAFE_RENEGOTIATION"


# From TLS 1.0 on OpenSSL's second ClientHello knows RFC 5746 though its first did not: no server lets that pass (section 3.7).
OLD_CLIENTS = pytest.mark.parametrize(
    ("version", "peer"), [(v, "O" if v is Version.ssl3 else "G") for v in OLD], ids=lambda value: getattr(value, "label", value)
)


@OLD_CLIENTS
def test_an_old_client_renegotiates(world: World, version: Version, peer: str) -> None:
    cell, there = Cell(SUITE, version), world.peers[peer]
    with world.serve(renegotiation="legacy") as server:
        if isinstance(there, Conversing):
            done = there.connections(server.port, cell, renegotiate=True, **OLD_FASHIONED)[0]
            assert (done.renegotiated, done.secure_renegotiation) == (1, False)
        else:
            assert isinstance(there, GnuTLS)
            assert b"ReHandshake was completed" in there.say(server.port, cell, "--rehandshake", words=NO_RFC5746)
        assert server.next(0).error is None
    world.matrix.passed("server", "renegotiation without RFC 5746, started by the client", version, peer)


@OLD_CLIENTS
def test_our_server_renegotiates_with_an_old_client(world: World, version: Version, peer: str) -> None:
    cell, there = Cell(SUITE, version), world.peers[peer]
    with world.serve(Renegotiating, renegotiation="legacy") as server:
        if isinstance(there, Conversing):
            assert not there.connections(server.port, cell, **OLD_FASHIONED)[0].secure_renegotiation
        else:
            assert isinstance(there, GnuTLS)
            assert b"ECHO BYE" in there.say(server.port, cell, words=NO_RFC5746)
        assert server.next(0).error is None
    assert Renegotiating.done.pop()
    world.matrix.passed("server", "renegotiation without RFC 5746, started by the server", version, peer)


@pytest.mark.parametrize("version", [v for v in OLD if v > Version.ssl3], ids=lambda version: version.label)
def test_an_old_client_that_learns_rfc_5746_later(world: World, version: Version) -> None:
    with world.serve(renegotiation="legacy") as server:
        done = world.conversing("O").try_to_connect(server.port, Cell(SUITE, version), renegotiate=True, **OLD_FASHIONED)[0]
        assert (done.ok, done.renegotiated) == (False, 0)
        error = server.next(0).error
    assert error is not None
    assert error.name == "SSL_ERROR_BAD_HANDSHAKE_HASH_VALUE"


@peers("O")
def test_our_client_renegotiates_with_an_old_server(world: World, version: Version, peer: str) -> None:
    config = dataclasses.replace(CLIENT, suites=(SUITE,), max_version=version, renegotiation="legacy")
    with world.conversing(peer).serving(Cell(SUITE, version), **OLD_FASHIONED) as serving:
        seen = connect(serving.port, config, trust=world.trust, use=renegotiate_and_converse, request=None)
    assert seen.error is None
    assert not serving.connections[0].secure_renegotiation
    world.matrix.passed("client", "renegotiation without RFC 5746, started by the client", version, peer)


@peers("O")
def test_an_old_server_renegotiates(world: World, version: Version, peer: str) -> None:
    config = dataclasses.replace(CLIENT, suites=(SUITE,), max_version=version, renegotiation="legacy")
    with world.conversing(peer).serving(Cell(SUITE, version), renegotiate=True, **OLD_FASHIONED) as serving:
        seen = connect(serving.port, config, trust=world.trust, use=converse, request=None)
    assert seen.error is None
    assert serving.connections[0].renegotiated == 1
    world.matrix.passed("client", "renegotiation without RFC 5746, started by the server", version, peer)


@VERSIONS
def test_old_peers_may_not_renegotiate_with_careful_ones(world: World, version: Version) -> None:
    cell, there = Cell(SUITE, version), world.conversing("O")
    with world.serve(renegotiation="secure") as server:
        done = there.try_to_connect(server.port, cell, renegotiate=True, **OLD_FASHIONED)[0]
        assert (done.ok, done.renegotiated) == (False, 0)
    with world.serve(require_safe_negotiation=True) as server:
        assert not there.try_to_connect(server.port, cell, **OLD_FASHIONED)[0].ok
        error = server.next(0).error
        assert error is not None
        assert error.name == "SSL_ERROR_UNSAFE_NEGOTIATION"
        there.connections(server.port, cell)


# --- RSA keys of export suites -----------------------------------------------------------------------------------------------

LIMITS = {512: BY_NAME["SSL_RSA_EXPORT_WITH_RC4_40_MD5"], 1024: BY_NAME["TLS_RSA_EXPORT1024_WITH_RC4_56_SHA"]}
EXPORT = pytest.mark.parametrize(
    ("bits", "version"),
    [(bits, version) for bits, suite in LIMITS.items() for version in OLD if version <= suite.max_version],
    ids=lambda value: value.label if isinstance(value, Version) else str(value),
)
KEYS = pytest.mark.parametrize("short", [False, True], ids=["temporary", "own"])


def row(bits: int, short: bool) -> str:
    return f"export, {'own' if short else 'temporary'} RSA key of {bits} bits"


@KEYS
@EXPORT
def test_our_server_encrypts_with_a_short_key(world: World, bits: int, version: Version, short: bool) -> None:
    """The certificate's key is too long, and a temporary one stands in for it; or it is short enough itself."""
    cell, asked = Cell(LIMITS[bits], version), []

    def step_down_asked(size: int) -> Any:
        asked.append(size)
        return step_down(size)

    identity = world.identity({512: "rsa512", 1024: "rsa1024"}[bits] if short else "rsa")
    with world.serve(identities=(identity,), step_down=step_down_asked) as server:
        world.conversing("O").connections(server.port, cell)
        assert server.next(0).error is None
    assert asked == ([] if short else [bits])
    world.matrix.passed("server", row(bits, short), version, "O")


@KEYS
@EXPORT
def test_our_client_encrypts_with_a_short_key(world: World, bits: int, version: Version, short: bool) -> None:
    cell, kind = Cell(LIMITS[bits], version), {512: "rsa512", 1024: "rsa1024"}[bits] if short else "rsa"
    config = dataclasses.replace(CLIENT, suites=(cell.suite,), max_version=version)
    with world.conversing("O").trying_to_serve(cell, kind) as serving:
        seen = connect(serving.port, config, trust=world.trust, use=converse, request=None)
    assert seen.error is None
    OpenSSL102.check(cell, serving.connections, 1)
    assert serving.connections[0].step_down == (() if short else (bits,))
    world.matrix.passed("client", row(bits, short), version, "O")


@KEYS
def test_without_short_keys_there_is_no_export(world: World, short: bool) -> None:
    """No temporary keys, or a key of 512 bits where more are wanted: what is left is not what the client takes."""
    cell = Cell(LIMITS[512], Version.tls1_0)
    with world.serve(identities=(world.identity("rsa1024" if short else "rsa"),), step_down=None) as server:
        assert not world.conversing("O").try_to_connect(server.port, cell)[0].ok
        error = server.next(0).error
        assert error is not None
        assert error.name == "SSL_ERROR_NO_CYPHER_OVERLAP"


@pytest.mark.parametrize("version", [Version.tls1_1, Version.tls1_2], ids=lambda version: version.label)
def test_40_bits_end_with_tls_1_0(world: World, version: Version) -> None:
    """RFC 4346 forbids these suites; OpenSSL 1.0.2 offers and chooses them all the same."""
    for suite in (LIMITS[512], BY_NAME["SSL_RSA_EXPORT_WITH_RC2_CBC_40_MD5"]):
        cell = Cell(suite, version)
        with world.serve(step_down=step_down) as server:
            assert not world.conversing("O").try_to_connect(server.port, cell)[0].ok
            error = server.next(0).error
            assert error is not None
            assert error.name == "SSL_ERROR_NO_CYPHER_OVERLAP"
        config = dataclasses.replace(CLIENT, max_version=version)
        with world.conversing("O").trying_to_serve(cell) as serving:
            seen = connect(serving.port, config, trust=world.trust, use=converse, request=None)
        assert seen.error is not None
        assert not serving.connections[0].ok
