"""Certificates, numbers and lengths that parse, or nearly, and are meant to trip: refused by a typed error, or done without.

A peer of ours is made to send them.  What random changes find is in `test_hostile_input`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from asn1crypto import x509
from asn1crypto.core import ParsableOctetString
from asn1crypto.keys import PublicKeyInfo, RSAPublicKey

from nss_pk11.errors import ConfigurationError, NSPRError
from nss_pk11.net.stepdown import step_down
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.codepoints import ExtensionType, HandshakeType, Version
from nss_pk11.tls.config import Identity, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.messages import extensions as ext
from nss_pk11.tls.messages import tls12
from nss_pk11.tls.messages.hello import ClientHello, message
from nss_pk11.tls.server import LONG_HELLO
from nss_pk11.tls.session import MAX_TICKET
from nss_pk11.tls.ssl3 import dhe
from nss_pk11.tls.suites import BY_NAME, EVERY_SUITE, SSL2_SUITES, SUITES

from ..support import drive
from ..support.drive import Driver, exchange
from ..support.pki import PKI
from ..support.rewrite import rewrite

V, X = Version, ExtensionType
SSL2: dict[str, Any] = {"suites": SSL2_SUITES, "min_version": V.ssl2, "max_version": V.ssl2}
by_version = pytest.mark.parametrize("version", [V.tls1_2, V.tls1_3], ids=lambda version: version.label)


def only(version: Version, *names: str, **settings: Any) -> dict[str, Any]:
    suites = tuple(BY_NAME[name] for name in names) or EVERY_SUITE
    return {"suites": suites, "min_version": version, "max_version": version} | settings


def refused(driver: Driver, other: Driver, name: str) -> None:
    exchange(driver, other)
    assert driver.error is not None
    assert isinstance(driver.error, NSPRError)
    assert driver.error.name == name
    assert not driver.engine.handshake_complete


# --- certificates ------------------------------------------------------------------------------------------------------------

Change = Callable[[bytes], bytes]  # of DER

_RSA = bytes.fromhex("300d06092a864886f70d010101")  # AlgorithmIdentifiers of keys
_KEA = bytes.fromhex("300d0609608648016502010116")
_SHA256_RSA = bytes.fromhex("06092a864886f70d01010b")  # of signatures
_X400_ADDRESS = bytes.fromhex("3004a3023000")  # GeneralNames of a kind that `cryptography` does not read


def with_leaf(identity: Identity, change: Change) -> Identity:
    """The same with another leaf, whose signature no longer fits: the engine leaves that to others."""
    return replace(identity, chain=(change(identity.chain[0]), *identity.chain[1:]))


def _version_4(leaf: bytes) -> bytes:
    return leaf.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03", 1)


def _kea_key(leaf: bytes) -> bytes:
    return leaf.replace(_RSA, _KEA, 1)


def _x400_address(leaf: bytes) -> bytes:
    certificate = x509.Certificate.load(leaf)
    extensions = certificate["tbs_certificate"]["extensions"]
    names = next(extension for extension in extensions if extension["extn_id"].native == "subject_alt_name")
    names["extn_value"] = ParsableOctetString(_X400_ADDRESS)
    return bytes(certificate.dump(force=True))


def _huge_exponent(leaf: bytes) -> bytes:
    certificate = x509.Certificate.load(leaf)
    key = RSAPublicKey({"modulus": (1 << 16000) + 12345678901, "public_exponent": (1 << 15990) + 1})
    certificate["tbs_certificate"]["subject_public_key_info"] = PublicKeyInfo.wrap(key, "rsa")
    return bytes(certificate.dump(force=True))


@by_version
def test_server_certificate_of_no_known_version(engine_pki: PKI, version: Version) -> None:
    identity = with_leaf(drive.identity(engine_pki.server("rsa")), _version_4)
    server, client = drive.server(identities=(identity,), **only(version)), drive.client(**only(version))
    refused(client, server, "SEC_ERROR_BAD_DER")


@by_version
def test_client_certificate_of_no_known_version(engine_pki: PKI, version: Version) -> None:
    identity = with_leaf(drive.identity(engine_pki.client("rsa")), _version_4)
    server = drive.server(engine_pki.server("rsa"), **only(version), client_auth="request")
    client = drive.client(**only(version), identities=(identity,))
    refused(server, client, "SEC_ERROR_BAD_DER")


def test_server_certificate_with_a_name_of_an_unknown_kind(engine_pki: PKI) -> None:
    """Whoever looks for the key's usage reads all extensions."""
    identity = with_leaf(drive.identity(engine_pki.server("rsa")), _x400_address)
    server, client = drive.server(identities=(identity,), **only(V.tls1_2)), drive.client(**only(V.tls1_2))
    refused(client, server, "SEC_ERROR_BAD_DER")


def test_server_certificate_signed_in_an_unknown_way(engine_pki: PKI) -> None:
    """There is no binding to it then (RFC 5929 section 4.1)."""
    identity = with_leaf(
        drive.identity(engine_pki.server("rsa")), lambda leaf: leaf.replace(_SHA256_RSA, _SHA256_RSA[:-1] + b"\x7f")
    )
    server, client = drive.server(identities=(identity,), **only(V.tls1_2)), drive.client(**only(V.tls1_2))
    exchange(server, client)
    assert client.engine.handshake_complete
    with pytest.raises(ConfigurationError, match="unknown way"):
        client.engine.channel_binding("tls-server-end-point")


def test_server_certificate_for_fortezza_where_it_has_no_place(engine_pki: PKI) -> None:
    """Its key is nothing that `cryptography` knows."""
    identity = with_leaf(drive.identity(engine_pki.server("rsa")), _kea_key)
    export = only(V.tls1_0, "EXP-RC4-MD5")
    server = drive.server(identities=(identity,), **export, step_down=step_down)
    refused(drive.client(**export), server, "SEC_ERROR_UNSUPPORTED_KEYALG")
    refused(drive.client(**SSL2), drive.server(identities=(identity,), **SSL2), "SEC_ERROR_UNSUPPORTED_KEYALG")


def test_client_certificate_for_fortezza_where_it_has_no_place(engine_pki: PKI) -> None:
    identity = with_leaf(drive.identity(engine_pki.client("rsa")), _kea_key)
    server = drive.server(engine_pki.server("rsa"), **SSL2, client_auth="request")
    refused(server, drive.client(**SSL2, identities=(identity,)), "SSL_ERROR_UNSUPPORTED_CERTIFICATE_TYPE")


def test_ssl2_server_whose_key_only_makes_its_clients_work(engine_pki: PKI) -> None:
    """By Python's pow it would take a minute."""
    identity = with_leaf(drive.identity(engine_pki.server("rsa")), _huge_exponent)
    refused(drive.client(**SSL2), drive.server(identities=(identity,), **SSL2), "SSL_ERROR_BAD_SERVER")


# --- numbers -----------------------------------------------------------------------------------------------------------------


def test_group_that_the_library_finds_too_small(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a client that takes any."""
    weak = tls12.encode_dh_params(*(number.to_bytes(32, "big") for number in ((1 << 255) + 95, 2, 5)))
    honest = dhe.DheServer.__init__

    def init(self: dhe.DheServer, *arguments: Any) -> None:
        honest(self, *arguments)
        self.parameters = weak

    monkeypatch.setattr(dhe.DheServer, "__init__", init)
    settings = only(V.tls1_2, "DHE-RSA-AES128-SHA")
    client = drive.client(**settings, least_dh_bits=0)
    refused(client, drive.server(engine_pki.server("rsa"), **settings), "SSL_ERROR_RX_MALFORMED_HANDSHAKE")


# --- messages ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "error"), [(b"", None), (b"\0", "SSL_ERROR_RX_MALFORMED_HANDSHAKE")])
def test_hello_request_with_something_in_it(engine_pki: PKI, body: bytes, error: str | None) -> None:
    """One without is ignored in the middle of a handshake (RFC 5246 section 7.4.1.1)."""
    server, client = drive.server(engine_pki.server("rsa"), **only(V.tls1_2)), drive.client(**only(V.tls1_2))
    server.take(client.give())
    client.take(rewrite(server.give(), HandshakeType.certificate, lambda raw: message(0, body) + raw))
    assert (client.error.name if client.error else None) == error


# --- lengths -----------------------------------------------------------------------------------------------------------------


@by_version
def test_server_name_longer_than_any(engine_pki: PKI, version: Version) -> None:
    """It would go into tickets, caches and memories."""
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    for name, error in ((longest, None), (longest + "bbb", "SSL_ERROR_RX_MALFORMED_HANDSHAKE")):
        server = drive.server(engine_pki.server("rsa"), **only(version))
        exchange(server, drive.client(**only(version), server_name=name))
        assert (server.error.name if server.error else None) == error
        assert server.engine.info.server_name == ("" if error else name)


@by_version
@pytest.mark.parametrize("by_id", [False, True], ids=["ticket", "id"])
def test_client_certificates_too_long_to_keep(engine_pki: PKI, version: Version, by_id: bool) -> None:
    """What no ticket can hold is not resumed; the connection is none the worse."""
    own = drive.identity(engine_pki.client("rsa"))
    keep: dict[str, Any] = {"session_ids": True} if by_id else {"tickets": TicketKeys()}
    for surplus, kept in ((b"", True), (bytes(MAX_TICKET), False), (bytes(0x11000), False)):
        server = drive.server(engine_pki.server("rsa"), **only(version), client_auth="request", **keep)
        chain = own.chain + ((surplus,) if surplus else ())
        client = drive.client(**only(version), identities=(replace(own, chain=chain),))
        exchange(server, client)
        assert (server.error, client.error) == (None, None)
        assert server.engine.info.peer_chain == chain
        assert bool(server.cache if by_id else client.sessions) == (kept and (version == V.tls1_2 or not by_id))


class LongTickets:
    """Of as many bytes as a message has room for."""

    lifetime = 100

    def seal(self, state: bytes) -> bytes:
        return bytes(0xFFFF)

    def unseal(self, ticket: bytes) -> bytes | None:
        return None


@by_version
def test_ticket_too_long_to_offer(engine_pki: PKI, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ClientHello has room for it."""
    monkeypatch.setattr("nss_pk11.tls.ssl3.server.MAX_TICKET", 0xFFFF)
    server = drive.server(engine_pki.server("rsa"), **only(version), tickets=LongTickets())
    with monkeypatch.context() as patch:
        patch.setattr("nss_pk11.tls.tls13.connected.MAX_TICKET", 0xFFFF)
        client = drive.client(**only(version))
        server.take(client.give())
        client.take(server.give())
        server.take(client.give())
        flight = server.give()
    client.take(flight)
    assert len(flight) > 0xFFFF
    assert client.engine.handshake_complete
    assert (client.error, client.sessions) == (None, [])


@by_version
def test_long_hellos_are_not_remembered(engine_pki: PKI, version: Version) -> None:
    """An answer is remembered by its question, and a question may be 128 KB of made-up numbers, 20 times that in memory."""
    config = ServerConfig(identities=(drive.identity(engine_pki.server("rsa")),), **only(version) | {"suites": SUITES})
    offered: list[int] = []

    def longer(raw: bytes) -> bytes:
        hello = ClientHello.decode(raw)
        schemes = ext.decode_u16_list(hello.extensions[X.signature_algorithms])
        extensions = hello.extensions | {X.signature_algorithms: ext.encode_u16_list((*schemes, *offered))}
        suites = hello.suites + tuple(offered)
        return ClientHello(hello.version, hello.random, hello.session_id, suites, extensions).encode()

    def greet() -> int:
        server = Driver(Engine.server(config))
        server.take(rewrite(drive.client(**only(version)).give(), HandshakeType.client_hello, longer))
        assert server.error is None
        assert server.give()
        return len(config._answers)

    before = greet()
    offered = list(range(0x2000, 0x2000 + 10))
    assert greet() > before, "short ones are"
    before = greet()
    offered = list(range(0x2000, 0x2000 + LONG_HELLO // 2))
    assert greet() == before
