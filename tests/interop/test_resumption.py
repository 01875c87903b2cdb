"""Resumption both ways: tickets and session ids in TLS 1.2, pre-shared keys in TLS 1.3."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.codepoints import Group, Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.suites import BY_NAME

from ..support.ours import OurServer, connect
from ..support.peers.base import Want
from ..support.peers.gnutls import gnutls_cli
from ..support.peers.openssl import OpenSSLServer, s_client
from ..support.peers.table import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.certs import Trust

    from ..support.ours import Seen
    from ..support.peers.table import ServerPool
    from ..support.pki import PKI
    from .conftest import Keyring

VERSIONS = pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)


@pytest.fixture(scope="module")
def server(server_keys: Keyring) -> Iterator[OurServer]:
    """Ours, with tickets and session ids."""
    config = ServerConfig(identities=(server_keys.identity("p256"),), tickets=TicketKeys(), session_ids=True)
    with OurServer(config) as server:
        yield server


@pytest.fixture(scope="module")
def server_by_id(server_keys: Keyring) -> Iterator[OurServer]:
    """Ours, with session ids alone."""
    with OurServer(ServerConfig(identities=(server_keys.identity("p256"),), session_ids=True)) as server:
        yield server


def _resumed_last(server: OurServer, before: int) -> bool:
    """Whether the second connection resumed the first, at no cost to the token."""
    first, second = server.next(before), server.next(before + 1)
    assert first.error is None
    assert second.error is None
    assert not first.info.resumed
    return second.info.resumed


@VERSIONS
@pytest.mark.parametrize("peer", ["gnutls", "nss", "node", "python"])
def test_our_server(server: OurServer, server_keys: Keyring, peer: str, version: Version, pki: PKI, directory: Path) -> None:
    before, operations = server.mark(), server_keys.operations("p256")
    result = CLIENTS[peer](server.port, Want(version=version, ca=pki.ca_file, resume=True), directory)
    assert result.ok, result
    assert _resumed_last(server, before)
    assert result.resumed, result
    assert server_keys.operations("p256") == operations + 1


@pytest.mark.parametrize(
    ("version", "tickets"),
    [(Version.tls1_2, True), (Version.tls1_2, False), (Version.tls1_3, True)],
    ids=["TLSv1.2 tickets", "TLSv1.2 ids", "TLSv1.3"],
)
def test_openssl_resumes_with_our_server(
    server: OurServer, server_by_id: OurServer, tickets: bool, version: Version, pki: PKI, tmp_path: Path
) -> None:
    ours = server if tickets else server_by_id
    before, session = ours.mark(), tmp_path / "session"
    first = s_client(ours.port, Want(version=version, ca=pki.ca_file), session)
    assert first.ok, first
    assert not first.resumed
    second = s_client(ours.port, Want(version=version, ca=pki.ca_file, resume=True), session)
    assert second.ok, second
    assert second.resumed
    assert _resumed_last(ours, before)


def test_tickets_of_one_connection(server: OurServer, pki: PKI, trust: Trust) -> None:
    """TLS 1.3: two, each good for a connection of its own (RFC 8446 appendix C.4)."""
    config = ClientConfig(server_name="localhost")
    first = connect(server.port, config, trust=trust)
    assert len({session.ticket for session in first.sessions}) == 2
    for session in first.sessions:
        assert connect(server.port, dataclasses.replace(config, session=session), trust=trust).info.resumed
    result = s_client(server.port, Want(version=Version.tls1_3, ca=pki.ca_file))
    assert result.output.count("Post-Handshake New Session Ticket arrived") == 2


def test_gnutls_resumes_by_id_with_our_server(server: OurServer, pki: PKI) -> None:
    """A client that knows no tickets gets a session id (RFC 5246 section 7.4.1.3)."""
    before = server.mark()
    want = Want(version=Version.tls1_2, ca=pki.ca_file, resume=True, extra=("--noticket",))
    result = gnutls_cli(server.port, want)
    assert result.resumed, result
    assert _resumed_last(server, before)


def test_a_ticket_of_other_keys_is_ignored(server: OurServer, server_keys: Keyring, pki: PKI, tmp_path: Path) -> None:
    """A full handshake instead, no alert (RFC 5077 section 3.4, RFC 8446 section 4.2.11)."""
    config = ServerConfig(identities=(server_keys.identity("p256"),), tickets=TicketKeys())
    with OurServer(config) as other:
        for version in (Version.tls1_2, Version.tls1_3):
            session = tmp_path / f"session-{version.label}"
            assert s_client(server.port, Want(version=version, ca=pki.ca_file), session).ok
            result = s_client(other.port, Want(version=version, ca=pki.ca_file, resume=True), session)
            assert result.ok, result
            assert not result.resumed


def test_a_session_of_another_name_is_not_resumed(server: OurServer, pki: PKI, tmp_path: Path) -> None:
    """RFC 6066 section 3: the server must not resume where the names differ."""
    session = tmp_path / "session"
    assert s_client(server.port, Want(version=Version.tls1_2, ca=pki.ca_file), session).ok
    want = Want(version=Version.tls1_2, server_name="other.test", resume=True)
    result = s_client(server.port, want, session)
    assert result.ok, result
    assert not result.resumed


@pytest.mark.parametrize("retry", [False, True], ids=["at once", "after HelloRetryRequest"])
def test_early_data_is_refused(server_keys: Keyring, foreign: ServerPool, retry: bool, pki: PKI, tmp_path: Path) -> None:
    """RFC 8446 section 4.2.10: a client that sends 0-RTT data with a ticket that is not ours gets a full handshake, and the
    data it sent blindly is skipped."""
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_bytes(b"GET /early HTTP/1.0\r\n\r\n" * 40)
    giver = foreign("openssl", Want(version=Version.tls1_3, credential=pki.server("p256"), extra=("-max_early_data", "16384")))
    assert s_client(giver.port, Want(version=Version.tls1_3, ca=pki.ca_file), session).ok
    groups = (Group.secp521r1,) if retry else (Group.x25519,)
    config = ServerConfig(identities=(server_keys.identity("p256"),), tickets=TicketKeys(), groups=groups)
    with OurServer(config) as ours:
        extra = ("-early_data", str(early), "-groups", "X25519:P-521")
        result = s_client(ours.port, Want(version=Version.tls1_3, ca=pki.ca_file, resume=True, extra=extra), session)
        assert result.ok, f"{ours.next(0).error}\n{result}"
        assert "Early data was rejected" in result.output
        assert not result.resumed
        assert ours.next(0).info.hello_retry is retry


def test_without_extended_master_secret(server: OurServer, server_keys: Keyring, pki: PKI, tmp_path: Path) -> None:
    """RFC 7627: works without, but a session made with it is not resumed without (section 5.3)."""
    want = Want(version=Version.tls1_2, ca=pki.ca_file)
    before = server.mark()
    result = gnutls_cli(server.port, want, "%NO_SESSION_HASH")
    assert result.ok, result
    assert not server.next(before).info.extended_master_secret
    before = server.mark()
    result = gnutls_cli(server.port, dataclasses.replace(want, resume=True), "%NO_SESSION_HASH")
    assert result.ok, result
    assert server.next(before + 1).error is None


# --- our client ----------------------------------------------------------------------------------------------------------


def _twice(port: int, config: ClientConfig, trust: Trust) -> tuple[Seen, Seen]:
    first = connect(port, config, trust=trust)
    assert first.error is None
    assert first.sessions, "the server gave no session"
    return first, connect(port, dataclasses.replace(config, session=first.sessions[-1]), trust=trust)


@VERSIONS
@pytest.mark.parametrize("peer", ["openssl", "gnutls", "nss", "node", "python"])
def test_our_client(foreign: ServerPool, peer: str, version: Version, pki: PKI, trust: Trust) -> None:
    server = foreign(peer, Want(credential=pki.server("p256")))
    first, second = _twice(server.port, ClientConfig(server_name="localhost", max_version=version), trust)
    assert second.error is None, f"{second.error}\n{server.output}"
    assert second.info.resumed, server.output
    assert second.answer
    assert second.version == first.version == version.label
    assert second.info.peer_chain == first.info.peer_chain  # the session knows whom it is with
    assert second.exported != first.exported


@pytest.mark.parametrize("peer", ["openssl", "gnutls"])
def test_our_client_by_id(foreign: ServerPool, peer: str, pki: PKI, trust: Trust) -> None:
    extra = {"openssl": ("-no_ticket",), "gnutls": ("--noticket",)}[peer]
    server = foreign(peer, Want(version=Version.tls1_2, credential=pki.server("p256"), extra=extra))
    first, second = _twice(server.port, ClientConfig(server_name="localhost"), trust)
    assert first.sessions[-1].session_id
    assert not first.sessions[-1].ticket
    assert second.error is None, f"{second.error}\n{server.output}"
    assert second.info.resumed


def test_our_client_when_the_server_has_forgotten(pki: PKI, trust: Trust) -> None:
    want = Want(credential=pki.server("p256"))
    for version in (Version.tls1_2, Version.tls1_3):
        config = ClientConfig(server_name="localhost", max_version=version)
        with OpenSSLServer(want) as server:
            session = connect(server.port, config, trust=trust).sessions[-1]
        with OpenSSLServer(want) as server:
            seen = connect(server.port, dataclasses.replace(config, session=session), trust=trust)
        assert seen.error is None
        assert not seen.info.resumed
        assert seen.answer


def test_resumption_across_hello_retry(foreign: ServerPool, pki: PKI, trust: Trust) -> None:
    """The binder is made anew over the second ClientHello (RFC 8446 section 4.2.11.2)."""
    server = foreign("openssl", Want(version=Version.tls1_3, group=Group.secp384r1, credential=pki.server("p256")))
    config = ClientConfig(server_name="localhost", groups=(Group.x25519, Group.secp384r1), key_shares=1)
    _, second = _twice(server.port, config, trust)
    assert second.error is None, f"{second.error}\n{server.output}"
    assert second.info.resumed
    assert second.info.hello_retry


def test_our_server_resumes_across_hello_retry(server_keys: Keyring, pki: PKI, tmp_path: Path) -> None:
    config = ServerConfig(identities=(server_keys.identity("p256"),), tickets=TicketKeys(), groups=(Group.secp384r1,))
    with OurServer(config) as server:
        want = Want(version=Version.tls1_3, ca=pki.ca_file, extra=("-groups", "X25519:P-384"))
        assert s_client(server.port, want, tmp_path / "session").ok
        result = s_client(server.port, dataclasses.replace(want, resume=True), tmp_path / "session")
        assert result.resumed, result
        assert server.next(1).info.hello_retry


def test_a_suite_with_the_same_hash_resumes(foreign: ServerPool, pki: PKI, trust: Trust) -> None:
    """RFC 8446 section 4.2.11: the hash counts, not the cipher."""
    gcm, chacha = BY_NAME["TLS_AES_128_GCM_SHA256"], BY_NAME["TLS_CHACHA20_POLY1305_SHA256"]
    server = foreign("openssl", Want(version=Version.tls1_3, credential=pki.server("p256")))
    first = connect(server.port, ClientConfig(server_name="localhost", suites=(gcm,)), trust=trust)
    config = ClientConfig(server_name="localhost", suites=(chacha,), session=first.sessions[-1])
    second = connect(server.port, config, trust=trust)
    assert second.error is None, f"{second.error}\n{server.output}"
    assert second.suite == chacha.name
