"""Renegotiation with other people's ends (RFC 5746): both roles, started by either side, keys in tokens."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.errors import ConfigurationError, RenegotiationRefused
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.suites import SUITES

from ..support.ours import OurServer, connect, page
from ..support.peers.base import Process, Want
from ..support.peers.gnutls import GnuTLSEchoServer, GnuTLSServer, gnutls_cli
from ..support.peers.nss import NSSServer, tstclnt
from ..support.peers.openssl import InteractiveOpenSSLServer, OpenSSLServer, s_client_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from nss_pk11.certs import Trust
    from nss_pk11.net.blocking import TLSSocket
    from nss_pk11.tls.engine import Engine

    from ..support.pki import PKI
    from .conftest import Keyring

OLD: dict[str, Any] = {
    "min_version": Version.ssl3,
    "max_version": Version.tls1_2,
    "suites": SUITES,
    "extended_master_secret": True,
}
CLIENT = ClientConfig(server_name="localhost", renegotiation="secure", **OLD)
TLS = [Version.tls1_0, Version.tls1_1, Version.tls1_2]


def versions(versions: Sequence[Version]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("version", versions, ids=lambda version: version.label)


def ask(**options: Any) -> Callable[[Engine], Callable[[], bool]]:
    """Our server sends a HelloRequest, and answers the request when the handshake is over."""

    def start(engine: Engine) -> Callable[[], bool]:
        made = {name: replace(engine.config, **value) if name == "config" else value for name, value in options.items()}
        engine.renegotiate(**made)
        return lambda: not engine.handshaking

    return start


@pytest.fixture(scope="module")
def server(server_keys: Keyring, trust: Trust) -> Iterator[OurServer]:
    """Ours; "/again" makes it ask for a renegotiation before it answers, "/who" for one with a client certificate."""
    config = ServerConfig(identities=(server_keys.identity("rsa"),), renegotiation="secure", session_ids=True, **OLD)
    actions = {b"/again": ask(), b"/who": ask(config={"client_auth": "require"}, resume=False)}
    with OurServer(config, trust=trust, actions=actions) as server:
        yield server


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.0\r\n\r\n".encode()


# --- our server ------------------------------------------------------------------------------------------------------------


def openssl(server: OurServer, want: Want, times: int, path: str = "/") -> str:
    """s_client renegotiates `times` times, then asks for `path`; returns what it said."""
    with Process(s_client_command(server.port, want)) as client:
        client.wait_for("Verify return code")
        for number in range(1, times + 1):
            client.write(b"R\n")  # to be read alone
            client.wait_for(r"(RENEGOTIATING\n(.*\n)+?depth=0 .*\nverify return:1\n)" + f"{{{number}}}")
        client.write(get(path))
        assert client.wait() == 0, client.output
        return client.output


@versions(TLS)
@pytest.mark.parametrize("times", [1, 3])
def test_openssl_renegotiates(version: Version, server: OurServer, server_keys: Keyring, times: int, pki: PKI) -> None:
    before, signatures = server.mark(), server_keys.operations("rsa")
    output = openssl(server, Want(version=version, ca=pki.ca_file), times)
    assert output.count("RENEGOTIATING") == times
    assert "200 OK" in output
    assert server.next(before).error is None
    assert server_keys.operations("rsa") == signatures + 1 + times


@versions(TLS)
def test_our_server_asks_openssl(version: Version, server: OurServer, pki: PKI) -> None:
    before = server.mark()
    output = openssl(server, Want(version=version, ca=pki.ca_file), 0, "/again")
    assert "200 OK" in output
    assert server.next(before).error is None


@versions(TLS)
def test_our_server_asks_openssl_for_a_certificate(version: Version, server: OurServer, pki: PKI) -> None:
    before = server.mark()
    want = Want(version=version, ca=pki.ca_file, credential=pki.client("p256"))
    output = openssl(server, want, 0, "/who")
    assert "200 OK" in output
    seen = server.next(before)
    assert seen.error is None
    assert seen.info.peer_chain
    assert page(output.encode())["peer_certificates"] == 2


def test_our_server_wants_a_certificate_that_openssl_has_not(server: OurServer, pki: PKI) -> None:
    before = server.mark()
    output = openssl_fails(server, Want(version=Version.tls1_2, ca=pki.ca_file), "/who")
    assert "200 OK" not in output
    error = server.next(before).error
    assert error is not None
    assert error.name == "SSL_ERROR_NO_CERTIFICATE"


def openssl_fails(server: OurServer, want: Want, path: str) -> str:
    with Process(s_client_command(server.port, want)) as client:
        client.wait_for("Verify return code")
        client.write(get(path))
        client.wait()
        return client.output


@versions(TLS)
def test_gnutls_renegotiates(version: Version, server: OurServer, pki: PKI) -> None:
    before = server.mark()
    result = gnutls_cli(server.port, Want(version=version, ca=pki.ca_file, extra=("--rehandshake",)))
    assert "ReHandshake was completed" in result.output, result
    assert b"200 OK" in result.answer
    assert server.next(before).error is None


@versions(TLS)
def test_our_server_asks_gnutls(version: Version, server: OurServer, pki: PKI) -> None:
    before = server.mark()
    want = Want(version=version, ca=pki.ca_file, request=get("/again"))
    result = gnutls_cli(server.port, want)
    assert b"200 OK" in result.answer, result
    assert server.next(before).error is None


@versions([Version.ssl3, *TLS])
@pytest.mark.parametrize("times", [1, 2])
def test_nss_renegotiates(version: Version, server: OurServer, times: int, pki: PKI, directory: Path) -> None:
    """From the second time on it resumes; then it ends with 1 though all went well."""
    before = server.mark()
    want = Want(version=version, ca=pki.ca_file, extra=("-r", str(times)))
    result = tstclnt(server.port, want, directory)
    assert '"resumed"' in result.output, str(result)
    assert result.resumed == (times > 1)
    seen = server.next(before)
    assert seen.error is None
    assert seen.info.resumed == (times > 1)


# --- our client ------------------------------------------------------------------------------------------------------------


def again(connection: TLSSocket) -> None:
    before = connection.info
    connection.renegotiate()
    assert connection.info is not before
    assert connection.info.client_random != before.client_random


@pytest.fixture(scope="module")
def openssl_server(pki: PKI) -> Iterator[OpenSSLServer]:
    extra = ("-client_renegotiation", "-min_protocol", "TLSv1", "-max_protocol", "TLSv1.2")
    with OpenSSLServer(Want(credential=pki.server("rsa"), extra=extra)) as server:
        yield server


@versions(TLS)
def test_our_client_renegotiates_with_openssl(version: Version, openssl_server: OpenSSLServer, trust: Trust) -> None:
    def use(connection: TLSSocket) -> None:
        for _ in range(3):
            again(connection)

    seen = connect(openssl_server.port, replace(CLIENT, max_version=version), trust=trust, use=use)
    assert seen.error is None, f"{seen.error}\n{openssl_server.output}"
    assert seen.info.version is version
    assert b"200 ok" in seen.answer
    assert b"Secure Renegotiation IS supported" in seen.answer


@versions(TLS)
def test_our_client_resumes_in_a_renegotiation(version: Version, openssl_server: OpenSSLServer, trust: Trust) -> None:
    def use(connection: TLSSocket) -> None:
        connection.renegotiate(config=replace(config, session=sessions[-1]))
        assert connection.info.resumed
        connection.renegotiate(resume=False)
        assert not connection.info.resumed

    config = replace(CLIENT, max_version=version)
    sessions = connect(openssl_server.port, config, trust=trust).sessions
    seen = connect(openssl_server.port, config, trust=trust, use=use)
    assert seen.error is None, f"{seen.error}\n{openssl_server.output}"
    assert b"200 ok" in seen.answer


def test_openssl_refuses(pki: PKI, trust: Trust) -> None:
    """OpenSSL's default: a client may not; the connection goes on (here: as far as OpenSSL's alert lets it)."""
    told: list[str] = []

    def use(connection: TLSSocket) -> None:
        with pytest.raises(RenegotiationRefused) as caught:
            connection.renegotiate()
        told.append(caught.value.name)

    with OpenSSLServer(Want(version=Version.tls1_2, credential=pki.server("rsa"))) as server:
        seen = connect(server.port, CLIENT, trust=trust, use=use)
    assert told == ["SSL_ERROR_NO_RENEGOTIATION_ALERT"]
    assert seen.error is None
    assert b"200 ok" in seen.answer


@versions(TLS)
@pytest.mark.parametrize("command", ["r", "R"], ids=["again", "with a certificate"])
def test_openssl_asks_our_client(version: Version, command: str, pki: PKI, trust: Trust, client_keys: Keyring) -> None:
    want = Want(version=version, credential=pki.server("rsa"), ca=pki.ca_file, extra=("-CAfile", str(pki.ca_file)))
    ours = client_keys.identity("p256")
    with InteractiveOpenSSLServer(want) as server:

        def ask() -> None:
            server.process.write(command.encode() + b"\n")
            server.process.wait_for("SSL_do_handshake -> 1")
            server.process.wait_for(r"(?s)write hello request.*read finished")
            server.process.write(b"and then\n")

        def use(connection: TLSSocket) -> None:
            first = connection.info
            connection.sendall(b"before\n")
            server.process.wait_for("before")
            asking = threading.Thread(target=ask)
            asking.start()
            assert connection.recv() == b"and then\n"
            asking.join()
            assert connection.info is not first
            assert connection.info.identity is (ours if command == "R" else None)
            connection.sendall(b"behind\n")
            server.process.wait_for("behind")

        config = replace(CLIENT, identities=(ours,))
        seen = connect(server.port, config, trust=trust, use=use, request=None)
        assert seen.error is None, f"{seen.error}\n{server.output}"


@versions(TLS)
def test_our_client_renegotiates_with_gnutls(version: Version, pki: PKI, trust: Trust) -> None:
    with GnuTLSServer(Want(version=version, credential=pki.server("rsa"))) as server:
        seen = connect(server.port, CLIENT, trust=trust, use=again)
        assert seen.error is None, f"{seen.error}\n{server.output}"
        assert b"200 OK" in seen.answer


@versions(TLS)
def test_gnutls_asks_our_client(version: Version, pki: PKI, trust: Trust) -> None:
    with GnuTLSEchoServer(Want(version=version, credential=pki.server("rsa"))) as server:

        def use(connection: TLSSocket) -> None:
            first = connection.info
            connection.sendall(b"**REHANDSHAKE**\n")
            got = b""
            connection._read_while(lambda: connection.info is first)
            connection.sendall(b"behind\n")
            while b"behind" not in got:
                got += connection.recv()

        seen = connect(server.port, CLIENT, trust=trust, use=use, request=None)
        assert seen.error is None, f"{seen.error}\n{server.output}"


@versions([Version.ssl3, *TLS])
@pytest.mark.parametrize("flags", [("-r", "-r", "-r"), ("-r", "-r", "-r", "-r")], ids=["request", "require"])
def test_nss_asks_our_client(
    version: Version, flags: tuple[str, ...], pki: PKI, trust: Trust, client_keys: Keyring, directory: Path
) -> None:
    """selfserv asks for a certificate after the request has come."""
    want = Want(version=version, credential=pki.server("rsa"), ca=pki.ca_file, extra=flags)
    with NSSServer(want, directory) as server:
        seen = connect(server.port, replace(CLIENT, identities=(client_keys.identity("rsa"),)), trust=trust)
        assert seen.error is None, f"{seen.error}\n{server.output}"
        assert b"200 OK" in seen.answer


# --- peers without RFC 5746 ------------------------------------------------------------------------------------------------

UNTIED = "%DISABLE_SAFE_RENEGOTIATION"


class UntiedServer(GnuTLSServer):
    words = (UNTIED,)


@versions(TLS)
def test_legacy_renegotiation_of_our_server(version: Version, server_keys: Keyring, pki: PKI) -> None:
    config = ServerConfig(identities=(server_keys.identity("rsa"),), renegotiation="legacy", **OLD)
    want = Want(version=version, ca=pki.ca_file, extra=("--rehandshake",))
    with OurServer(config) as legacy:
        result = gnutls_cli(legacy.port, want, UNTIED)
        assert "ReHandshake was completed" in result.output, result
        assert b"200 OK" in result.answer


def test_our_server_renegotiates_with_nobody_who_is_not_tied(server: OurServer, pki: PKI) -> None:
    want = Want(version=Version.tls1_2, ca=pki.ca_file, extra=("--rehandshake",))
    result = gnutls_cli(server.port, want, UNTIED)
    assert "Received alert [100]: No renegotiation" in result.output, result
    assert "ReHandshake was completed" not in result.output


@versions(TLS)
@pytest.mark.parametrize("policy", ["secure", "legacy"])
def test_legacy_renegotiation_of_our_client(version: Version, policy: Any, pki: PKI, trust: Trust) -> None:
    def use(connection: TLSSocket) -> None:
        if policy == "legacy":
            again(connection)
        else:
            with pytest.raises(ConfigurationError) as caught:
                connection.renegotiate()
            assert caught.value.name == "SSL_ERROR_RENEGOTIATION_NOT_ALLOWED"

    with UntiedServer(Want(version=version, credential=pki.server("rsa"))) as server:
        seen = connect(server.port, replace(CLIENT, renegotiation=policy), trust=trust, use=use)
        assert seen.error is None, f"{seen.error}\n{server.output}"
        assert b"200 OK" in seen.answer


@pytest.mark.parametrize("by", ["client", "server"])
def test_no_handshake_at_all_with_who_is_not_tied(by: str, server_keys: Keyring, pki: PKI, trust: Trust) -> None:
    if by == "server":
        config = ServerConfig(identities=(server_keys.identity("rsa"),), require_safe_negotiation=True, **OLD)
        with OurServer(config) as strict:
            before = strict.mark()
            assert not gnutls_cli(strict.port, Want(version=Version.tls1_2, ca=pki.ca_file), UNTIED).ok
            error = strict.next(before).error
    else:
        with UntiedServer(Want(version=Version.tls1_2, credential=pki.server("rsa"))) as server:
            error = connect(server.port, replace(CLIENT, require_safe_negotiation=True), trust=trust).error
    assert error is not None
    assert error.name == "SSL_ERROR_UNSAFE_NEGOTIATION"
