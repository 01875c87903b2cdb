"""TLS 1.2 against OpenSSL, as Python's `ssl` has it, in this process: every suite, key, group and feature it knows."""

from __future__ import annotations

import os
import ssl
from typing import Any

import pytest

from nss_pk11.errors import Alert
from nss_pk11.sessions import TicketKeys
from nss_pk11.tls import ffdhe
from nss_pk11.tls.codepoints import Group, Version
from nss_pk11.tls.config import DEFAULT_GROUPS, DEFAULT_SCHEMES
from nss_pk11.tls.suites import BY_NAME, SUITES, Suite

from ..support import drive
from ..support.drive import Driver, Stdlib, client_context, exchange, server_context
from ..support.pki import PKI, Credential

SUITES12 = tuple(suite for suite in SUITES if suite.max_version == Version.tls1_2)
ONLY12: dict[str, Any] = {"suites": SUITES12, "max_version": Version.tls1_2}
KINDS = ("rsa", "p256", "p384", "p521", "ed25519", "ed448")
CURVES = (Group.x25519, Group.x448, Group.secp256r1, Group.secp384r1, Group.secp521r1)
MESSAGE = os.urandom(40_000)
FFDHE2048 = ffdhe.PRIMES[Group.ffdhe2048], ffdhe.GENERATOR


def credential_for(pki: PKI, suite: Suite) -> Credential:
    return pki.server("p256" if suite.key_exchange == "ecdhe_ecdsa" else "rsa")


def their_client(pki: PKI, ciphers: str = "ALL", **settings: Any) -> Stdlib:
    context = client_context(pki.ca_file, ciphers=f"{ciphers}:@SECLEVEL=0", **settings)
    return Stdlib(context, server=False, name="localhost")


def talk(ours: Driver, theirs: Stdlib) -> None:
    """Handshake, and data both ways."""
    exchange(ours, theirs)
    assert (ours.error, theirs.error) == (None, None)
    assert theirs.complete
    assert ours.engine.handshake_complete
    ours.engine.send(MESSAGE)
    theirs.send(MESSAGE[::-1])
    exchange(ours, theirs)
    assert theirs.received == MESSAGE
    assert ours.received == MESSAGE[::-1]
    assert theirs.ssl.get_channel_binding("tls-unique") == ours.engine.channel_binding("tls-unique")


@pytest.mark.parametrize("suite", SUITES12, ids=lambda suite: suite.openssl)
def test_suite_as_server(engine_pki: PKI, suite: Suite) -> None:
    ours, theirs = drive.server(credential_for(engine_pki, suite), **ONLY12), their_client(engine_pki, suite.openssl)
    talk(ours, theirs)
    info = ours.engine.info
    assert info.suite is suite
    assert info.extended_master_secret
    assert info.encrypt_then_mac == (suite.cipher.kind == "cbc")
    assert info.group == {"rsa": None, "dhe_rsa": Group.ffdhe2048}.get(suite.key_exchange, Group.x25519)


@pytest.mark.parametrize("etm", [True, False], ids=["etm", "mte"])
@pytest.mark.parametrize("suite", SUITES12, ids=lambda suite: suite.openssl)
def test_suite_as_client(engine_pki: PKI, suite: Suite, etm: bool) -> None:
    theirs = Stdlib(server_context(credential_for(engine_pki, suite), dh=FFDHE2048), server=True)
    ours = drive.client(**ONLY12 | {"suites": (suite,)}, encrypt_then_mac=etm)
    talk(ours, theirs)
    info = ours.engine.info
    assert info.suite is suite
    assert info.encrypt_then_mac == (etm and suite.cipher.kind == "cbc")
    assert (info.group is None) == (suite.key_exchange == "rsa")
    assert (info.signature_scheme is None) == (suite.key_exchange == "rsa")


@pytest.mark.parametrize("etm", [True, False], ids=["etm", "mte"])
def test_server_may_refuse_encrypt_then_mac(engine_pki: PKI, etm: bool) -> None:
    ours = drive.server(engine_pki.server("rsa"), **ONLY12, encrypt_then_mac=etm)
    talk(ours, their_client(engine_pki, "AES128-SHA"))
    assert ours.engine.info.encrypt_then_mac == etm


@pytest.mark.parametrize("kind", KINDS)
def test_server_key(engine_pki: PKI, kind: str) -> None:
    ours = drive.server(engine_pki.server(kind), **ONLY12)
    talk(ours, their_client(engine_pki))
    assert ours.engine.info.signature_scheme in drive.identity(engine_pki.server(kind)).schemes
    theirs = Stdlib(server_context(engine_pki.server(kind)), server=True)
    ours = drive.client(**ONLY12)
    talk(ours, theirs)
    assert ours.engine.info.peer_chain == drive.identity(engine_pki.server(kind)).chain


def test_rsa_pss_certificate(engine_pki: PKI) -> None:
    credential = engine_pki.server("rsa-pss")
    talk(drive.server(credential, **ONLY12), their_client(engine_pki))
    talk(drive.client(**ONLY12), Stdlib(server_context(credential), server=True))


@pytest.mark.parametrize("group", CURVES, ids=lambda group: group.name)
def test_curve(engine_pki: PKI, group: Group) -> None:
    settings = ONLY12 | {"groups": (group,)}
    ours = drive.server(engine_pki.server("rsa"), **settings)
    theirs = their_client(engine_pki, "ECDHE")
    talk(ours, theirs)
    assert ours.engine.info.group == group
    context = server_context(engine_pki.server("rsa"))
    if group.name.startswith("secp"):
        context.set_ecdh_curve({"secp256r1": "prime256v1"}.get(group.name, group.name))
    ours = drive.client(**settings)
    talk(ours, Stdlib(context, server=True))
    assert ours.engine.info.group == group


@pytest.mark.parametrize("require", [True, False], ids=["require", "request"])
@pytest.mark.parametrize("kind", KINDS)
def test_client_certificate(engine_pki: PKI, kind: str, require: bool) -> None:
    credential = engine_pki.client(kind)
    authorities = tuple(root.certificate.subject.public_bytes() for root, _ in engine_pki.authorities.values())
    settings: Any = {"client_auth": "require" if require else "request", "authorities": authorities}
    ours = drive.server(engine_pki.server("rsa"), **ONLY12, **settings)
    talk(ours, their_client(engine_pki, credential=credential))
    assert ours.engine.info.peer_chain == drive.identity(credential).chain
    assert ours.engine.info.client_signature_scheme is not None

    context = server_context(engine_pki.server("rsa"))
    context.verify_mode = ssl.CERT_REQUIRED if require else ssl.CERT_OPTIONAL
    context.load_verify_locations(engine_pki.ca_file)
    theirs = Stdlib(context, server=True)
    talk(drive.client(**ONLY12, identities=(drive.identity(credential),)), theirs)
    certificate: Any = theirs.ssl.getpeercert()
    assert certificate["subject"][-1][0][1] == credential.subject


@pytest.mark.parametrize("auth", ["request", "require"])
def test_client_without_certificate(engine_pki: PKI, auth: str) -> None:
    ours, theirs = drive.server(engine_pki.server("p256"), **ONLY12, client_auth=auth), their_client(engine_pki)
    if auth == "request":
        talk(ours, theirs)
        assert ours.engine.info.peer_chain == ()
        return
    exchange(ours, theirs)
    assert ours.error is not None
    assert ours.error.name == "SSL_ERROR_NO_CERTIFICATE"
    assert "HANDSHAKE_FAILURE" in str(theirs.error)


def test_client_sends_no_certificate_when_none_fits(engine_pki: PKI) -> None:
    context = server_context(engine_pki.server("rsa"))
    context.verify_mode = ssl.CERT_REQUIRED
    theirs = Stdlib(context, server=True)
    ours = drive.client(**ONLY12)
    exchange(ours, theirs)
    assert ours.alert == Alert.handshake_failure


# --- resumption ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tickets", [True, False], ids=["ticket", "session id"])
@pytest.mark.parametrize("cipher", ["ECDHE-RSA-AES128-GCM-SHA256", "AES256-SHA256"])
def test_resumption_as_server(engine_pki: PKI, tickets: bool, cipher: str) -> None:
    keys, cache = TicketKeys(), dict[bytes, bytes]()
    context = client_context(engine_pki.ca_file, ciphers=cipher)
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    session = None
    for resumed in (False, True, True):
        ours = drive.server(engine_pki.server("rsa"), **ONLY12, tickets=keys if tickets else None, session_ids=True)
        ours.cache = cache
        theirs = Stdlib(context, server=False, name="localhost", session=session)
        talk(ours, theirs)
        assert ours.engine.info.resumed == theirs.ssl.session_reused == resumed
        assert len(cache) == (0 if tickets else 1)
        session = theirs.ssl.session


@pytest.mark.parametrize("tickets", [True, False], ids=["ticket", "session id"])
@pytest.mark.parametrize("newest", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)
def test_resumption_as_client(engine_pki: PKI, tickets: bool, newest: Version) -> None:
    context = server_context(engine_pki.server("p256"))
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    session, open_connections = None, []  # OpenSSL forgets the session of a connection that goes without goodbye
    for resumed in (False, True, True):
        settings = ONLY12 | {"suites": SUITES, "max_version": newest, "session": session}
        ours, theirs = drive.client(**settings), Stdlib(context, server=True)
        open_connections.append(theirs)
        talk(ours, theirs)
        assert ours.engine.info.resumed == theirs.ssl.session_reused == resumed
        assert ours.engine.info.peer_chain == drive.identity(engine_pki.server("p256")).chain
        if not resumed:
            (session,) = ours.sessions
            assert bool(session.ticket) == tickets
            assert bool(session.session_id) == (not tickets)


def test_session_unknown_to_the_server(engine_pki: PKI) -> None:
    """A server that has forgotten makes a full handshake."""
    ours = drive.client(**ONLY12)
    talk(ours, Stdlib(server_context(engine_pki.server("p256")), server=True))
    ours = drive.client(**ONLY12, session=ours.sessions[0])
    talk(ours, Stdlib(server_context(engine_pki.server("p256")), server=True))
    assert not ours.engine.info.resumed
    assert len(ours.sessions) == 1


# --- the rest --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA"])
def test_byte_at_a_time(engine_pki: PKI, cipher: str) -> None:
    ours = drive.server(engine_pki.server("p256"), **ONLY12, client_auth="request")
    ours.chunk = 1
    talk(ours, their_client(engine_pki, cipher, credential=engine_pki.client("rsa")))
    ours = drive.client(**ONLY12, identities=(drive.identity(engine_pki.client("p256")),))
    ours.chunk = 1
    context = server_context(engine_pki.server("p256"), ciphers=cipher)
    context.load_verify_locations(engine_pki.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    talk(ours, Stdlib(context, server=True))


def test_alpn_and_server_name(engine_pki: PKI) -> None:
    identities = [engine_pki.server("p256", names=(name,)) for name in ("other.test", "localhost")]
    ours = drive.server(*identities, **ONLY12, alpn=("h2", "http/1.1"))
    context = client_context(engine_pki.ca_file)
    context.set_alpn_protocols(["http/1.1", "h2"])
    theirs = Stdlib(context, server=False, name="localhost")
    talk(ours, theirs)
    assert ours.engine.info.alpn == theirs.ssl.selected_alpn_protocol() == "h2"
    assert ours.engine.info.server_name == "localhost"
    assert ours.engine.info.identity is not None
    assert ours.engine.info.identity.names == ("localhost",)

    context = server_context(engine_pki.server("p256"))
    context.set_alpn_protocols(["http/1.1"])
    ours = drive.client(**ONLY12, alpn=("h2", "http/1.1"))
    talk(ours, Stdlib(context, server=True))
    assert ours.engine.info.alpn == "http/1.1"


def test_no_protocol_in_common(engine_pki: PKI) -> None:
    context = client_context(engine_pki.ca_file)
    context.set_alpn_protocols(["h3"])
    ours, theirs = (
        drive.server(engine_pki.server("p256"), **ONLY12, alpn=("h2",)),
        Stdlib(context, server=False, name="localhost"),
    )
    exchange(ours, theirs)
    assert ours.error is not None
    assert ours.error.name == "SSL_ERROR_NEXT_PROTOCOL_NO_PROTOCOL"
    assert "no application protocol" in str(theirs.error)


def test_client_detects_downgrade(engine_pki: PKI) -> None:
    """OpenSSL puts no sentinel where it enables TLS 1.2 only, ours does where it knows 1.3 (RFC 8446 section 4.1.3)."""
    ours = drive.server(engine_pki.server("p256"), suites=SUITES)
    talk(ours, their_client(engine_pki))
    assert ours.engine._link.randoms.endswith(b"DOWNGRD\x01")
    ours = drive.server(engine_pki.server("p256"), **ONLY12)
    talk(ours, their_client(engine_pki))
    assert not ours.engine._link.randoms.endswith(b"DOWNGRD\x01")


def test_both_enable_both_versions(engine_pki: PKI) -> None:
    """The version negotiation between them: 1.3 if both know it, 1.2 if one does not."""
    ours = drive.server(engine_pki.server("p256"))
    talk12 = their_client(engine_pki)
    talk(ours, talk12)
    assert ours.engine.info.version == Version.tls1_2
    ours = drive.client()
    talk(ours, Stdlib(server_context(engine_pki.server("p256")), server=True))
    assert ours.engine.info.version == Version.tls1_2


def test_foreign_diffie_hellman_group(engine_pki: PKI) -> None:
    """A server may use a group of its own: here the 2048-bit one of RFC 3526, which we know nothing of."""
    ours = drive.client(**ONLY12 | {"suites": (BY_NAME["DHE-RSA-AES128-GCM-SHA256"],)})
    talk(ours, Stdlib(server_context(engine_pki.server("rsa"), dh=(_modp2048(), 2)), server=True))
    assert ours.engine.info.group is None


def test_small_diffie_hellman_group(engine_pki: PKI) -> None:
    ours = drive.client(**ONLY12 | {"suites": (BY_NAME["DHE-RSA-AES128-GCM-SHA256"],)})
    theirs = Stdlib(server_context(engine_pki.server("rsa"), dh=(_modp1024(), 2)), server=True)
    exchange(ours, theirs)
    assert ours.error is not None
    assert ours.error.name == "SSL_ERROR_WEAK_SERVER_EPHEMERAL_DH_KEY"
    assert "INSUFFICIENT_SECURITY" in str(theirs.error)


@pytest.mark.parametrize("least", [1024, 1025])
def test_how_small_a_diffie_hellman_group_may_be(engine_pki: PKI, least: int) -> None:
    ours = drive.client(**ONLY12 | {"suites": (BY_NAME["DHE-RSA-AES128-SHA"],)}, least_dh_bits=least)
    theirs = Stdlib(server_context(engine_pki.server("rsa"), dh=(_modp1024(), 2)), server=True)
    if least == 1024:
        talk(ours, theirs)
    else:
        exchange(ours, theirs)
        assert "INSUFFICIENT_SECURITY" in str(theirs.error)


def _pi(bits: int) -> int:
    """[2^bits pi] by Machin's formula, with 64 guard bits."""
    one = 1 << (bits + 64)

    def arctan_of_inverse(x: int) -> int:
        total = term = one // x
        k, sign = 3, -1
        while term:
            term //= x * x
            total += sign * (term // k)
            k, sign = k + 2, -sign
        return total

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)) >> 64


def _modp2048() -> int:
    """RFC 3526 section 3: 2^2048 - 2^1984 - 1 + 2^64 * { [2^1918 pi] + 124476 }."""
    return 2**2048 - 2**1984 - 1 + ((_pi(1918) + 124476) << 64)


def _modp1024() -> int:
    """RFC 2409 section 6.2: 2^1024 - 2^960 - 1 + 2^64 * { [2^894 pi] + 129093 }."""
    return 2**1024 - 2**960 - 1 + ((_pi(894) + 129093) << 64)


def test_default_settings_offer_nothing_old(engine_pki: PKI) -> None:
    """SHA-1 signatures and RSA key exchange are no default."""
    assert not any(scheme.name.endswith("sha1") for scheme in DEFAULT_SCHEMES)
    ours, theirs = drive.server(engine_pki.server("rsa")), their_client(engine_pki, "kRSA")
    exchange(ours, theirs)
    assert ours.error is not None
    assert ours.error.name == "SSL_ERROR_NO_CYPHER_OVERLAP"
    assert DEFAULT_GROUPS[0] == Group.X25519MLKEM768
