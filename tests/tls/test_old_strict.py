"""What SSL 3.0 to TLS 1.1 must refuse, and what they leave out.

Two engines of ours, one of them made to break a rule.  That their honest selves get on with others is in `test_old_stdlib` and in
`interop/`.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from nss_pk11.errors import Alert, CertificateError
from nss_pk11.tls.codepoints import ExtensionType, HandshakeType, SignatureScheme, Version
from nss_pk11.tls.messages import extensions as ext
from nss_pk11.tls.messages import tls12
from nss_pk11.tls.messages.hello import DOWNGRADE_TLS11, DOWNGRADE_TLS12, ClientHello, ServerHello, message
from nss_pk11.tls.ssl3 import keyexchange, rsa
from nss_pk11.tls.suites import BY_NAME, EMPTY_RENEGOTIATION_INFO_SCSV, EVERY_SUITE

from ..support import drive
from ..support.drive import Driver, exchange
from ..support.pki import PKI
from ..support.rewrite import records, refusal, rewrite, run

X, H, V = ExtensionType, HandshakeType, Version
OLD = (V.ssl3, V.tls1_0, V.tls1_1)
BEFORE_TLS13 = (*OLD, V.tls1_2)
by_version = pytest.mark.parametrize("version", BEFORE_TLS13, ids=lambda version: version.label)


def only(version: Version, **settings: Any) -> dict[str, Any]:
    return {"suites": EVERY_SUITE, "min_version": version, "max_version": version} | settings


def suite(name: str) -> dict[str, Any]:
    return {"suites": (BY_NAME[name],)}


def well(server: Driver, client: Driver) -> None:
    """A whole handshake that nobody finds fault with, and data."""
    exchange(server, client)
    assert (server.error, client.error) == (None, None)
    client.engine.send(b"question")
    server.engine.send(b"answer" * 5000)
    exchange(server, client)
    assert (bytes(server.received), bytes(client.received)) == (b"question", b"answer" * 5000)


# --- hellos ----------------------------------------------------------------------------------------------------------------


def hello_of(flight: bytes) -> ClientHello:
    return ClientHello.decode(records(flight)[0][5:])


def test_client_hello_of_ssl3() -> None:
    """No extensions: what RFC 5746 has to say is said by a suite."""
    flight = drive.client(**only(V.ssl3)).give()
    hello = hello_of(flight)
    assert flight[1:3] == b"\x03\x00"
    assert hello.version == V.ssl3
    assert hello.extensions == {}
    assert EMPTY_RENEGOTIATION_INFO_SCSV in hello.suites
    assert not any(BY_NAME[name].code in hello.suites for name in ("ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256"))


@pytest.mark.parametrize("version", [V.tls1_0, V.tls1_1], ids=lambda version: version.label)
def test_client_hello_of_old_tls(version: Version) -> None:
    flight = drive.client(**only(version)).give()
    hello = hello_of(flight)
    assert flight[1:3] == b"\x03\x01"
    assert hello.version == version
    assert X.signature_algorithms not in hello.extensions, "meaningless before TLS 1.2 (RFC 5246 section 7.4.1.4.1)"
    assert X.supported_groups in hello.extensions


def test_client_hello_of_everything() -> None:
    hello = hello_of(drive.client(suites=EVERY_SUITE, min_version=V.ssl3, max_version=V.tls1_3).give())
    assert hello.version == V.tls1_2
    assert hello.offered_versions() == (V.tls1_3, V.tls1_2, V.tls1_1, V.tls1_0)


def test_what_has_no_number_is_not_offered() -> None:
    """rsa_pkcs1_md5_sha1 is a name for what TLS 1.1 does; its private number means nothing to others."""
    schemes = tuple(SignatureScheme)
    hello = hello_of(drive.client(suites=EVERY_SUITE, schemes=schemes).give())
    offered = ext.decode_u16_list(hello.extensions[X.signature_algorithms])
    assert offered == tuple(scheme for scheme in schemes if scheme != SignatureScheme.rsa_pkcs1_md5_sha1)


def test_server_hello_of_ssl3_answers_nothing_but_renegotiation(engine_pki: PKI) -> None:
    server = drive.server(engine_pki.server("rsa"), **only(V.ssl3))
    client = drive.client(suites=EVERY_SUITE, min_version=V.ssl3, max_version=V.tls1_2, alpn=("h2",))
    server.take(client.give())
    answer = server.give()
    hello = ServerHello.decode(records(answer)[0][5:][: 4 + int.from_bytes(answer[6:9], "big")])
    assert hello.version == V.ssl3
    assert hello.extensions == {X.renegotiation_info: b"\0"}
    assert server.engine.info.alpn == ""
    assert not server.engine.info.extended_master_secret


def test_extensions_that_an_ssl3_server_answers_are_not_heeded(engine_pki: PKI) -> None:
    """OpenSSL's old versions do so.  The client's own words about the handshake then differ from the server's, of course."""
    server = drive.server(engine_pki.server("rsa"), **only(V.ssl3))
    client = drive.client(suites=EVERY_SUITE, min_version=V.ssl3, max_version=V.tls1_1)

    def more(raw: bytes) -> bytes:
        old = ServerHello.decode(raw)
        extensions = old.extensions | {X.server_name: b"", X.extended_master_secret: b"", X.encrypt_then_mac: b""}
        return ServerHello(old.version, old.random, old.session_id, old.suite, extensions).encode()

    server.take(client.give())
    client.take(rewrite(server.give(), H.server_hello, more))
    assert client.error is None
    assert not client.engine.info.extended_master_secret
    assert not client.engine.info.encrypt_then_mac


@by_version
def test_records_say_the_negotiated_version(engine_pki: PKI, version: Version) -> None:
    server = drive.server(engine_pki.server("rsa"), **only(version))
    client = drive.client(suites=EVERY_SUITE, min_version=V.ssl3, max_version=V.tls1_2)
    flights = [client.give()]
    while flights[-1]:
        receiver, sender = (server, client) if len(flights) % 2 else (client, server)
        receiver.take(flights[-1])
        flights.append(receiver.give())
        assert sender.error is None
    assert records(flights[0])[0][1:3] == b"\x03\x01"
    assert {record[1:3] for flight in flights[1:] for record in records(flight)} == {version.to_bytes(2, "big")}


@pytest.mark.parametrize(
    ("best", "chosen", "sentinel"),
    [
        (V.tls1_3, V.tls1_2, DOWNGRADE_TLS12),
        (V.tls1_3, V.tls1_1, DOWNGRADE_TLS11),
        (V.tls1_3, V.ssl3, DOWNGRADE_TLS11),
        (V.tls1_2, V.tls1_1, DOWNGRADE_TLS11),
        (V.tls1_2, V.tls1_2, None),
        (V.tls1_1, V.tls1_0, None),
        (V.tls1_1, V.ssl3, None),
    ],
    ids=lambda value: getattr(value, "label", ""),
)
def test_downgrade_sentinel(engine_pki: PKI, best: Version, chosen: Version, sentinel: bytes | None) -> None:
    """RFC 8446 section 4.1.3; a server that has no better to offer does not frighten clients that have."""
    server = drive.server(engine_pki.server("rsa"), suites=EVERY_SUITE, min_version=V.ssl3, max_version=best)
    client = drive.client(**only(chosen))
    server.take(client.give())
    answer = server.give()
    random = answer[11:43]
    assert (random[-8:] if random[-8:] in (DOWNGRADE_TLS12, DOWNGRADE_TLS11) else None) == sentinel
    client.take(answer)
    exchange(server, client)
    assert client.error is None, "it offered no more than it got"


@pytest.mark.parametrize("best", [V.tls1_2, V.tls1_3], ids=lambda version: version.label)
def test_downgrade_is_noticed(engine_pki: PKI, best: Version) -> None:
    server = drive.server(engine_pki.server("rsa"), suites=EVERY_SUITE, min_version=V.ssl3, max_version=best)
    client = drive.client(suites=EVERY_SUITE, min_version=V.ssl3, max_version=best)

    def older(raw: bytes) -> bytes:
        old = ClientHello.decode(raw)
        extensions = {kind: body for kind, body in old.extensions.items() if kind != X.supported_versions}
        return ClientHello(V.tls1_1, old.random, old.session_id, old.suites, extensions).encode()

    run(server, client, H.client_hello, older, by="client")
    refusal(client, server, Alert.illegal_parameter)


# --- RSA's premaster secret ------------------------------------------------------------------------------------------------


class NegotiatedVersion(rsa.RsaClient):
    """There are clients that put the negotiated version where the offered one belongs."""

    def __init__(self, key: Any, offered_version: int, version: Version, random: Any) -> None:
        super().__init__(key, version, version, random)


class Garbage(rsa.RsaClient):
    """Its ciphertext decrypts to nothing."""

    def answer(self) -> tuple[bytes, bytes]:
        raw, premaster = super().answer()
        return raw[:-64] + bytes(64), premaster


def rsa_pair(pki: PKI, version: Version, monkeypatch: pytest.MonkeyPatch, kind: Any, **settings: Any) -> tuple[Driver, Driver]:
    """The client offers TLS 1.2, the server has no better than `version`."""
    monkeypatch.setattr(keyexchange, "RsaClient", kind)
    server = drive.server(pki.server("rsa"), **only(version, **suite("AES128-SHA")), **settings)
    client = drive.client(**suite("AES128-SHA"), min_version=V.ssl3, max_version=V.tls1_2)
    exchange(server, client)
    return server, client


@pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)
@pytest.mark.parametrize("kind", [NegotiatedVersion, Garbage])
def test_rollback_is_detected(engine_pki: PKI, version: Version, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    """A wrong version in the premaster secret ends like a ciphertext that is none: nobody learns which it was."""
    server, client = rsa_pair(engine_pki, version, monkeypatch, kind)
    refusal(server, client, Alert.bad_record_mac)


@pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)
def test_rollback_detection_can_be_left_out(engine_pki: PKI, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = rsa_pair(engine_pki, version, monkeypatch, NegotiatedVersion, rollback_detection=False)
    assert (server.error, client.error) == (None, None)
    assert client.engine.handshake_complete
    server, client = rsa_pair(engine_pki, version, monkeypatch, Garbage, rollback_detection=False)
    refusal(server, client, Alert.bad_record_mac)


@pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)
def test_length_of_the_ciphertext(engine_pki: PKI, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL 3.0 has none before it (RFC 6101 section 5.6.7.1), TLS has."""
    seen: list[int] = []

    def note(raw: bytes) -> bytes:
        seen.append(len(raw) - 4)
        return raw

    server, client = drive.server(engine_pki.server("rsa"), **only(version)), drive.client(**only(version, **suite("AES128-SHA")))
    run(server, client, H.client_key_exchange, note, by="client")
    assert seen == [256 if version == V.ssl3 else 258]
    assert client.engine.handshake_complete


# --- signatures ------------------------------------------------------------------------------------------------------------


def raw_dsa(key: Any, scheme: Any, signed: bytes, prehashed: bool = False) -> bytes:
    """r and s one after the other, as NSS's servers send them in SSL 3.0."""
    signature = drive.sign(key, scheme, signed, prehashed)
    if not scheme.name.startswith("dsa"):
        return signature
    return b"".join(number.to_bytes(20, "big") for number in decode_dss_signature(signature))


@by_version
@pytest.mark.parametrize("who", ["server", "client"])
def test_dsa_signature_that_is_not_der(engine_pki: PKI, version: Version, who: str) -> None:
    """Good in SSL 3.0, where nothing says what it looks like."""
    name, kind = ("DHE-DSS-AES128-SHA", "dsa") if who == "server" else ("AES128-SHA", "rsa")
    auth: dict[str, Any] = {"client_auth": "require"} if who == "client" else {}
    suites = {"suites": (BY_NAME[name], BY_NAME["DHE-DSS-RC4-SHA"])}  # which permits DSA signatures
    server = drive.server(engine_pki.server(kind), **only(version, **suites), **auth)
    identities = (drive.identity(engine_pki.client("dsa")),) if who == "client" else ()
    client = drive.client(**only(version, **suites), identities=identities)
    (server if who == "server" else client).signer = raw_dsa
    if version == V.ssl3:
        well(server, client)
    else:
        exchange(server, client)
        refuser, other = (client, server) if who == "server" else (server, client)
        refusal(refuser, other, Alert.decrypt_error)


@pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)
def test_key_that_could_not_sign_yet(engine_pki: PKI, version: Version) -> None:
    """A client with an Ed25519 key: it has nothing to show."""
    server = drive.server(engine_pki.server("rsa"), **only(version, **suite("AES128-SHA")), client_auth="request")
    client = drive.client(**only(version, **suite("AES128-SHA")), identities=(drive.identity(engine_pki.client("ed25519")),))
    well(server, client)
    assert server.engine.info.peer_chain == ()


@by_version
def test_wrong_signature_of_the_server(engine_pki: PKI, version: Version) -> None:
    server = drive.server(engine_pki.server("rsa"), **only(version, **suite("DHE-RSA-AES128-SHA")))
    client = drive.client(**only(version, **suite("DHE-RSA-AES128-SHA")))
    run(server, client, H.server_key_exchange, lambda raw: raw[:-1] + bytes((raw[-1] ^ 1,)), by="server")
    refusal(client, server, Alert.handshake_failure if version == V.ssl3 else Alert.decrypt_error)


@by_version
def test_wrong_signature_of_the_client(engine_pki: PKI, version: Version) -> None:
    server = drive.server(engine_pki.server("rsa"), **only(version, **suite("AES128-SHA")), client_auth="require")
    client = drive.client(**only(version, **suite("AES128-SHA")), identities=(drive.identity(engine_pki.client("rsa")),))
    run(server, client, H.certificate_verify, lambda raw: raw[:-1] + bytes((raw[-1] ^ 1,)), by="client")
    refusal(server, client, Alert.handshake_failure if version == V.ssl3 else Alert.decrypt_error)


# --- client authentication -------------------------------------------------------------------------------------------------


@by_version
@pytest.mark.parametrize("auth", ["request", "require"])
def test_no_certificate(engine_pki: PKI, version: Version, auth: str) -> None:
    """In SSL 3.0 a warning, after that an empty Certificate."""
    server = drive.server(engine_pki.server("rsa"), **only(version), client_auth=auth)
    client = drive.client(**only(version))
    server.take(client.give())
    client.take(server.give())
    flight = client.give()
    assert (records(flight)[0][0] == 21) == (version == V.ssl3)
    server.take(flight)
    exchange(server, client)
    if auth == "require":
        refusal(server, client, Alert.handshake_failure)
    else:
        assert (server.error, client.error) == (None, None)


@by_version
def test_warning_out_of_place(engine_pki: PKI, version: Version) -> None:
    """A no_certificate that nobody asked for counts as any warning, and stands for a Certificate in SSL 3.0 only."""
    server = drive.server(engine_pki.server("rsa"), **only(version), client_auth="request")
    client = drive.client(**only(version))
    server.take(client.give())
    client.take(server.give())
    flight = [record for record in records(client.give()) if record[0] != 21]
    warning = b"\x15" + version.to_bytes(2, "big") + b"\0\x02" + tls12.NO_CERTIFICATE_WARNING
    no_certificate = rewrite(flight[0], H.certificate, lambda raw: b"")
    server.take(warning + no_certificate + b"".join(flight[1:]))
    client.take(server.give())
    if version == V.ssl3:
        assert server.error is None
    else:
        refusal(server, client, Alert.unexpected_message)


@pytest.mark.parametrize(
    ("name", "alert", "in_ssl3"),
    [
        ("SEC_ERROR_UNKNOWN_ISSUER", Alert.unknown_ca, Alert.certificate_unknown),
        ("SEC_ERROR_EXPIRED_CERTIFICATE", Alert.certificate_expired, Alert.certificate_expired),
        ("SSL_ERROR_BAD_CERT_DOMAIN", Alert.bad_certificate, Alert.bad_certificate),
    ],
)
def test_alerts_about_certificates(engine_pki: PKI, name: str, alert: Alert, in_ssl3: Alert) -> None:
    for version in BEFORE_TLS13:
        server, client = drive.server(engine_pki.server("rsa"), **only(version)), drive.client(**only(version))
        client.refuse = CertificateError("no", name=name)
        exchange(server, client)
        refusal(client, server, in_ssl3 if version == V.ssl3 else alert)


def test_alerts_that_ssl3_does_not_know(engine_pki: PKI) -> None:
    """They become what comes next (RFC 6101 section 5.4.2)."""
    server, client = drive.server(engine_pki.server("rsa"), **only(V.ssl3)), drive.client(**only(V.ssl3))
    run(server, client, H.server_hello_done, lambda raw: message(H.server_hello_done, b"\0"), by="server")
    refusal(client, server, Alert.illegal_parameter)  # decode_error in TLS
    server = drive.server(engine_pki.server("rsa"), **only(V.ssl3, **suite("AES128-SHA")))
    client = drive.client(**only(V.ssl3, **suite("AES128-SHA")))
    run(server, client, H.client_key_exchange, lambda raw: message(H.client_key_exchange, os.urandom(100)), by="client")
    refusal(server, client, Alert.bad_record_mac)


# --- resumption ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", BEFORE_TLS13, ids=lambda version: version.label)
def test_session_of_another_version(engine_pki: PKI, version: Version) -> None:
    """It is good for its own version only; anything else is a full handshake."""
    everything: dict[str, Any] = {"suites": EVERY_SUITE, "min_version": V.ssl3, "max_version": V.tls1_2}
    first = drive.server(engine_pki.server("rsa"), **only(version), session_ids=True)
    client = drive.client(**everything, extended_master_secret=False)
    well(first, client)
    session = client.sessions[-1]
    assert session.version == version
    for now in BEFORE_TLS13:
        server = drive.server(engine_pki.server("rsa"), **only(now), session_ids=True)
        server.cache = dict(first.cache)
        again = drive.client(**everything, extended_master_secret=False, session=session)
        well(server, again)
        assert again.engine.info.version == now
        assert again.engine.info.resumed == server.engine.info.resumed == (now == version)


def test_session_with_the_extended_master_secret_where_it_is_not_wanted_any_more(engine_pki: PKI) -> None:
    first = drive.server(engine_pki.server("rsa"), **only(V.tls1_2), session_ids=True)
    client = drive.client(**only(V.tls1_2))
    well(first, client)
    session = client.sessions[-1]
    assert session.extended_master_secret
    unwanted: dict[str, Any] = {"extended_master_secret": False}
    ends: list[tuple[dict[str, Any], dict[str, Any]]] = [(unwanted, {}), ({}, unwanted)]
    for ours, theirs in ends:
        server = drive.server(engine_pki.server("rsa"), **only(V.tls1_2), session_ids=True, **ours)
        server.cache = dict(first.cache)
        again = drive.client(**only(V.tls1_2), session=session, **theirs)
        well(server, again)
        assert not again.engine.info.resumed


# --- choice ----------------------------------------------------------------------------------------------------------------


@by_version
def test_each_key_for_its_suites(engine_pki: PKI, version: Version) -> None:
    """One server with a key of each kind."""
    credentials = {kind: engine_pki.server(kind) for kind in ("rsa", "dsa", "p256")}
    kinds = {"AES128-SHA": "rsa", "DHE-RSA-AES128-SHA": "rsa", "DHE-DSS-AES128-SHA": "dsa", "ECDHE-ECDSA-AES128-SHA": "p256"}
    for name, kind in kinds.items():
        if BY_NAME[name].min_version <= version:
            server, client = drive.server(*credentials.values(), **only(version)), drive.client(**only(version, **suite(name)))
            well(server, client)
            assert client.engine.info.peer_chain == drive.identity(credentials[kind]).chain


@by_version
def test_dsa_alone_is_no_good_to_clients_without_dss(engine_pki: PKI, version: Version) -> None:
    server = drive.server(engine_pki.server("dsa"), **only(version))
    client = drive.client(**only(version, suites=tuple(s for s in EVERY_SUITE if s.key_exchange != "dhe_dss")))
    exchange(server, client)
    refusal(server, client, Alert.handshake_failure)
