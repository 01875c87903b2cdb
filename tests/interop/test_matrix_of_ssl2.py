"""SSL 2.0 with OpenSSL 1.0.2, our side as server and as client with keys in a token, every suite; and hellos in its form with
whoever still sends or takes them."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nss_pk11.errors import NSPRError
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.suites import BY_NAME, SSL2_SUITES, Suite

from ..support import command
from ..support.meddler import Meddler
from ..support.old_peers import JSSE, OLD, OLD_SUITES, Cell, OpenSSL102, converse
from ..support.ours import OurServer, connect
from ..support.peers.jsse import PROTOCOLS
from ..support.require import require
from .talking import EVERYTHING, Answering

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.tls.config import Identity
    from nss_pk11.tls.session import Session

    from ..support.old_peers import OldPeer
    from ..support.old_pki import OldKeys, OldPKI, OldTrust
    from ..support.peers.commanded import Commanded
    from ..support.pki import Credential
    from ..support.softhsm import SoftHSM
    from .talking import Matrix

SUITES = pytest.mark.parametrize("suite", SSL2_SUITES, ids=lambda suite: suite.nss_name)
VERSIONS = pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)
ONLY = {"suites": SSL2_SUITES, "min_version": Version.ssl2, "max_version": Version.ssl2}
CLIENT = ClientConfig(server_name="localhost", **ONLY)  # type: ignore[arg-type]
HELLOS = {**EVERYTHING, "v2_hello": True}
HELLO = "ClientHello in the form of SSL 2.0"  # the matrix's row
KIND = 0x02000000  # what OpenSSL puts before a kind of SSL 2.0


@pytest.fixture(scope="module")
def credential(old_pki: OldPKI) -> Credential:
    """Of a key that serves SSL 2.0, and so nothing else."""
    return old_pki.server("rsa", ("ssl2.test", "localhost"))


@pytest.fixture(scope="module")
def identity(credential: Credential, old_keys: OldKeys) -> Identity:
    return old_keys.identity(credential)


@pytest.fixture
def openssl(old_peers: dict[str, OldPeer]) -> Commanded:
    peer = old_peers["O"]
    assert isinstance(peer, OpenSSL102)
    return peer.child


@pytest.fixture
def java(old_peers: dict[str, OldPeer]) -> JSSE:
    peer = old_peers["J"]
    assert isinstance(peer, JSSE)
    return peer


def alone(credential: Credential) -> Path:
    """The certificate without its issuers, of which OpenSSL takes none for SSL 2.0."""
    file = credential.chain_file.with_suffix(".leaf.pem")
    file.write_bytes(credential.certificate.public_bytes(Encoding.PEM))
    return file


def words(old_pki: OldPKI, suite: Suite | None = None, **more: Any) -> dict[str, Any]:
    """A request's."""
    return {"protocol": "ssl2", "ciphers": suite.openssl if suite else "ALL", "ca": old_pki.ca_file, **more}


def shows(credential: Credential) -> dict[str, Any]:
    return {"certificate": alone(credential), "key": credential.key_file}


@pytest.fixture(scope="module")
def server(identity: Identity, old_trust: OldTrust) -> Iterator[OurServer]:
    config = ServerConfig(identities=(identity,), session_ids=True, **ONLY)  # type: ignore[arg-type]
    with OurServer(config, trust=old_trust, application=Answering) as server:
        yield server


# --- every suite, and resumption ------------------------------------------------------------------------------------------


@SUITES
def test_our_server(server: OurServer, openssl: Commanded, old_pki: OldPKI, suite: Suite) -> None:
    before = server.mark()
    done = openssl.connect(server.port, **words(old_pki, suite, verify=True, resume=True, count=3))
    assert [connection.error for connection in done] == ["", "", ""]
    assert {(connection.version, connection.suite | KIND) for connection in done} == {("SSLv2", suite.kind | KIND)}
    for number in range(3):
        seen = server.next(before + number)
        assert seen.error is None
        assert (seen.info.version, seen.info.suite, seen.info.resumed) == (Version.ssl2, suite, number > 0)
    assert done[1].resumed


@SUITES
def test_our_client(openssl: Commanded, old_pki: OldPKI, old_trust: OldTrust, credential: Credential, suite: Suite) -> None:
    sessions: list[Session | None] = [None]
    with openssl.serve(**words(old_pki, suite, count=3, **shows(credential))) as far:
        for number in range(3):
            config = dataclasses.replace(CLIENT, session=sessions[-1])
            seen = connect(far.port, config, trust=old_trust, use=converse, request=None)
            assert seen.error is None
            assert (seen.info.version, seen.info.suite, seen.info.resumed) == (Version.ssl2, suite, number > 0)
            assert seen.info.peer_chain == (credential.certificate.public_bytes(Encoding.DER),)
            sessions += seen.sessions
    assert [connection.resumed for connection in far.connections] == [False, True, True]
    assert len(sessions) == 2
    assert sessions[1] is not None
    assert (len(sessions[1].session_id), sessions[1].lifetime) == (16, 100)


def test_our_client_wants_another_strength(
    openssl: Commanded, old_pki: OldPKI, old_trust: OldTrust, credential: Credential
) -> None:
    """It is told what the server has instead."""
    for theirs, ours, name in ((1, 0, "SSL_ERROR_EXPORT_ONLY_SERVER"), (0, 1, "SSL_ERROR_US_ONLY_SERVER")):
        suites = [tuple(s for s in SSL2_SUITES if (s.cipher.secret == 5) == weak) for weak in (False, True)]
        config = dataclasses.replace(CLIENT, suites=suites[ours])
        request = words(old_pki) | {"ciphers": ":".join(suite.openssl for suite in suites[theirs])} | shows(credential)
        with openssl.serve(**request) as far, Meddler(far.port, offering_all) as between:
            seen = connect(between.port, config, trust=old_trust, request=None)
        assert seen.error is not None
        assert seen.error.name == name
        assert not far.connections[0].ok


def offering_all(hello: bytes) -> bytes:
    """OpenSSL says nothing of what it has but what the client has, too, so somebody asks for the rest."""
    kinds = b"".join(suite.kind.to_bytes(3, "big") for suite in SSL2_SUITES)
    assert hello[2] == 1
    body = hello[2:5] + len(kinds).to_bytes(2, "big") + hello[7:11] + kinds + hello[-32:]
    return (0x8000 | len(body)).to_bytes(2, "big") + body


# --- client certificates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_auth", ["none", "request", "require"])
@pytest.mark.parametrize("has", [True, False])
def test_a_client_shows_its_certificate(
    openssl: Commanded, old_pki: OldPKI, old_trust: OldTrust, identity: Identity, client_auth: str, has: bool
) -> None:
    config = ServerConfig(identities=(identity,), session_ids=True, client_auth=client_auth, **ONLY)  # type: ignore[arg-type]
    with OurServer(config, trust=old_trust, application=Answering) as server:
        more = shows(old_pki.client("rsa")) if has else {}
        done = openssl.connect(server.port, **words(old_pki, verify=True, resume=True, count=2, **more))
        seen = server.next(0)
    refused = client_auth == "require" and not has
    assert [connection.ok for connection in done] == [not refused] * 2
    if refused:
        assert seen.error is not None
        assert seen.error.name == "SSL_ERROR_NO_CERTIFICATE"
        assert "peer error no certificate" in done[0].error or "certificate" in done[0].error
        return
    assert seen.error is None
    assert len(seen.info.peer_chain) == (has and client_auth != "none")
    assert [connection.resumed for connection in done] == [False, True]


@pytest.mark.parametrize("has", [True, False])
def test_our_client_shows_its_certificate(
    openssl: Commanded, old_pki: OldPKI, old_trust: OldTrust, old_keys: OldKeys, credential: Credential, has: bool
) -> None:
    own = old_keys.identity(old_pki.client("rsa"))
    config = dataclasses.replace(CLIENT, identities=(own,) if has else ())
    with openssl.serve(**words(old_pki, verify=True, **shows(credential))) as far:
        seen = connect(far.port, config, trust=old_trust, use=converse, request=None)
    [connection] = far.connections
    if has:
        assert seen.error is None
        assert seen.info.identity is own
        assert "client rsa" in connection.peer
    else:
        assert seen.error is not None
        assert "no certificate" in connection.error


# --- hellos in its form -----------------------------------------------------------------------------------------------------


class Watched(Meddler):
    """Keeps the first bytes of a client."""

    def __init__(self, port: int) -> None:
        self.first = b""
        super().__init__(port, self._keep)

    def _keep(self, data: bytes) -> bytes:
        self.first = data
        return data

    def saw(self, version: Version) -> bool:
        return self.first[0] >= 0x80 and self.first[2:5] == b"\x01" + version.to_bytes(2, "big")


NAMES = {Version.ssl3: "ssl3", Version.tls1_0: "tls1", Version.tls1_1: "tls1_1", Version.tls1_2: "tls1_2"}


@pytest.fixture(scope="module")
def tolerant(old_pki: OldPKI, old_keys: OldKeys, old_trust: OldTrust) -> Iterator[OurServer]:
    """Ours, which takes such a hello, and does not speak SSL 2.0."""
    config = ServerConfig(identities=(old_keys.identity(old_pki.server("rsa")),), **HELLOS)
    with OurServer(config, trust=old_trust, application=Answering) as server:
        yield server


@VERSIONS
def test_openssl_greets_us(tolerant: OurServer, openssl: Commanded, old_pki: OldPKI, version: Version, matrix: Matrix) -> None:
    before = tolerant.mark()
    off = ",".join(name for newer, name in NAMES.items() if newer > version)
    with Watched(tolerant.port) as between:
        ciphers = "AES128-SHA:DES-CBC3-SHA:DES-CBC3-MD5"
        [done] = openssl.connect(
            between.port, **words(old_pki, verify=True) | {"protocol": "ssl23", "off": off, "ciphers": ciphers}
        )
        assert between.saw(version)
    assert done.ok, done
    seen = tolerant.next(before)
    assert seen.error is None
    assert seen.info.version is version
    matrix.passed("server", HELLO, version, "O")


@pytest.mark.parametrize("version", OLD[:3], ids=lambda version: version.label)
def test_java_greets_us(tolerant: OurServer, java: JSSE, old_pki: OldPKI, version: Version, matrix: Matrix) -> None:
    """In TLS 1.2 it does not."""
    before = tolerant.mark()
    with Watched(tolerant.port) as between:
        request = {
            "protocols": f"SSLv2Hello,{PROTOCOLS[version]}",
            "suites": "TLS_RSA_WITH_AES_128_CBC_SHA",
            "ca": old_pki.ca_file,
        }
        [done] = java.child.connect(between.port, **request)
        assert between.saw(version)
    assert done.ok, done
    seen = tolerant.next(before)
    assert seen.error is None
    assert seen.info.version is version
    matrix.passed("server", HELLO, version, "J")


@VERSIONS
def test_we_greet_openssl(openssl: Commanded, old_pki: OldPKI, old_trust: OldTrust, version: Version, matrix: Matrix) -> None:
    config = ClientConfig(server_name="localhost", **{**HELLOS, "max_version": version})
    request = words(old_pki) | {"protocol": "ssl23"} | shows(old_pki.server("rsa"))
    with openssl.serve(**request) as far, Watched(far.port) as between:
        seen = connect(between.port, config, trust=old_trust, use=converse, request=None)
        assert between.saw(version)
    assert seen.error is None
    assert seen.info.version is version
    assert far.connections[0].ok
    matrix.passed("client", HELLO, version, "O")


@pytest.mark.parametrize("version", OLD[:3], ids=lambda version: version.label)
def test_we_greet_java(java: JSSE, old_pki: OldPKI, old_trust: OldTrust, version: Version, matrix: Matrix) -> None:
    config = ClientConfig(server_name="localhost", **{**HELLOS, "max_version": version})
    credential = old_pki.server("rsa")
    request = {"protocols": f"SSLv2Hello,{PROTOCOLS[version]}", "suites": "TLS_RSA_WITH_AES_128_CBC_SHA", "ca": old_pki.ca_file}
    words = java.words(Cell(BY_NAME["AES128-SHA"], version), "server", credential) | request
    with java.child.serve(**words) as far, Watched(far.port) as between:
        seen = connect(between.port, config, trust=old_trust, use=converse, request=None)
        assert between.saw(version)
    assert seen.error is None
    assert seen.info.version is version
    assert far.connections[0].ok
    matrix.passed("client", HELLO, version, "J")


def test_who_knows_better_speaks_better(openssl: Commanded, old_pki: OldPKI, old_trust: OldTrust, identity: Identity) -> None:
    """With SSL 2.0 on everywhere, nobody speaks it who need not."""
    shared = dataclasses.replace(identity, shared_with_ssl2=True)
    both: dict[str, Any] = {**EVERYTHING, "min_version": Version.ssl2, "suites": OLD_SUITES + SSL2_SUITES}
    with OurServer(ServerConfig(identities=(shared,), **both), trust=old_trust, application=Answering) as server:
        for off, version in (("", Version.tls1_2), ("ssl3,tls1,tls1_1,tls1_2", Version.ssl2)):
            before = server.mark()
            [done] = openssl.connect(server.port, **words(old_pki, verify=True, off=off) | {"protocol": "ssl23"})
            assert done.ok, done
            assert server.next(before).info.version is version
    for protocol, version in (("ssl23", Version.tls1_2), ("ssl2", Version.ssl2)):
        with openssl.serve(**words(old_pki) | {"protocol": protocol} | shows(old_pki.server("rsa"))) as far:
            seen = connect(far.port, ClientConfig(server_name="localhost", **both), trust=old_trust, use=converse, request=None)
        assert seen.error is None
        assert seen.info.version is version


def rolled_back(hello: bytes) -> bytes:
    """As if the client knew SSL 2.0 alone: neither versions nor ciphers are authenticated."""
    assert hello[2] == 1
    assert hello[3:5] == Version.tls1_2.to_bytes(2, "big")
    return hello[:3] + Version.ssl2.to_bytes(2, "big") + hello[5:]


def test_a_rollback(openssl: Commanded, old_pki: OldPKI, old_trust: OldTrust, identity: Identity) -> None:
    """OpenSSL's mark in the padding, which the token gives out with CKM_RSA_X_509, tells a server that could have done better."""
    shared = dataclasses.replace(identity, shared_with_ssl2=True)
    both: dict[str, Any] = {**EVERYTHING, "min_version": Version.ssl2, "suites": OLD_SUITES + SSL2_SUITES}
    for settings, refused in ((both, True), (ONLY, False)):
        config = ServerConfig(identities=(shared,), **settings)  # type: ignore[arg-type]
        with OurServer(config, trust=old_trust, application=Answering) as server, Meddler(server.port, rolled_back) as between:
            [done] = openssl.connect(between.port, **words(old_pki, verify=True) | {"protocol": "ssl23"})
            seen = server.next(0)
            assert seen.info.version is Version.ssl2
            assert done.ok is not refused, done
            if refused:  # as any wrong master key is
                assert seen.error is not None
                assert seen.error.name == "SSL_ERROR_BAD_MAC_READ"
            before = server.mark()
            [done] = openssl.connect(server.port, **words(old_pki, verify=True))  # a client that knows no better
            assert done.ok, done
            assert server.next(before).info.version is Version.ssl2


def test_a_server_that_does_not_speak_it(tolerant: OurServer, openssl: Commanded, old_pki: OldPKI) -> None:
    before = tolerant.mark()
    [done] = openssl.connect(tolerant.port, **words(old_pki))
    assert not done.ok
    error = tolerant.next(before).error
    assert error is not None
    assert error.name == "SSL_ERROR_UNSUPPORTED_VERSION"
    seen = connect(tolerant.port, CLIENT, request=None)
    assert isinstance(seen.error, NSPRError)


# --- who looks from outside ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(softhsm: SoftHSM, credential: Credential) -> Iterator[command.Serve]:
    """`serve` with SSL 2.0 alone, and two of its suites."""
    options = ("--identity", str(credential.key_file), "--chain", str(credential.chain_file), "--min", "ssl2")
    with command.Serve(softhsm, *options, "--suites", "SSL_EN_RC4_128_WITH_MD5,DES-CBC3-MD5") as server:
        yield server


@pytest.fixture(scope="module")
def modern(softhsm: SoftHSM, old_pki: OldPKI) -> Iterator[command.Serve]:
    """With its version allowed, and no suite of it."""
    other = old_pki.server("rsa")
    with command.Serve(softhsm, "--identity", str(other.key_file), "--chain", str(other.chain_file), "--min", "ssl2") as server:
        yield server


def said(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
    return done.stdout


@pytest.mark.parametrize(
    ("which", "seen"), [("narrow", {"SSLv2"}), ("modern", {"SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"})]
)
def test_sslscan(request: pytest.FixtureRequest, which: str, seen: set[str]) -> None:
    server: command.Serve = request.getfixturevalue(which)
    text = said(require("sslscan"), "--no-colour", "--no-ciphersuites", "--no-groups", f"127.0.0.1:{server.port}")
    lines = [line.split() for line in text.splitlines()]
    assert {line[0] for line in lines if line[1:] == ["enabled"]} == seen
    assert len([line for line in lines if line[1:] == ["disabled"]]) == 6 - len(seen)


@pytest.mark.parametrize(("which", "verdict"), [("narrow", "2 ciphers"), ("modern", "not offered")])
def test_testssl(request: pytest.FixtureRequest, which: str, verdict: str) -> None:
    server: command.Serve = request.getfixturevalue(which)
    text = said(require("testssl"), "--quiet", "--color", "0", "--warnings", "off", "-p", f"127.0.0.1:{server.port}")
    [line] = [line for line in text.splitlines() if line.strip().startswith("SSLv2")]
    assert verdict in line
