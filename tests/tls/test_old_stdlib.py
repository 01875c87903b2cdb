"""TLS 1.0, TLS 1.1, and what is old in TLS 1.2, against OpenSSL, as Python's `ssl` has it, in this process.

SSL 3.0, and suites that today's OpenSSL has no more, are in `interop/`.
"""

from __future__ import annotations

import os
import ssl
from typing import Any

import pytest

from nss_pk11.sessions import TicketKeys
from nss_pk11.tls import ffdhe
from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
from nss_pk11.tls.config import DSA_SCHEMES
from nss_pk11.tls.suites import BY_NAME, EVERY_SUITE, SUITES, Suite

from ..support import drive
from ..support.drive import Driver, Stdlib, client_context, exchange, server_context
from ..support.pki import PKI, Credential

V = Version
OLD = (V.tls1_0, V.tls1_1)
MESSAGE = os.urandom(40_000)
FFDHE2048 = ffdhe.PRIMES[Group.ffdhe2048], ffdhe.GENERATOR

# What OpenSSL 3 still has below TLS 1.2, and of old suites in it.
CELLS = [
    (suite, version)
    for suite in EVERY_SUITE
    if suite.cipher.name in ("AES-128-CBC", "AES-256-CBC", "NULL")
    for version in (V.tls1_0, V.tls1_1, V.tls1_2)
    if suite.min_version <= version and (version < V.tls1_2 or suite.key_exchange == "dhe_dss" or suite.cipher.name == "NULL")
]
AUTHENTICATION = {"ecdhe_ecdsa": "p256", "dhe_dss": "dsa"}
by_cell = pytest.mark.parametrize(("suite", "version"), CELLS, ids=lambda value: getattr(value, "openssl", None) or value.label)
by_version = pytest.mark.parametrize("version", OLD, ids=lambda version: version.label)


def only(version: Version, **settings: Any) -> dict[str, Any]:
    return {"suites": SUITES, "min_version": version, "max_version": version} | settings


def credential_for(pki: PKI, suite: Suite) -> Credential:
    return pki.server(AUTHENTICATION.get(suite.key_exchange, "rsa"))


def their_client(pki: PKI, version: Version, ciphers: str = "ALL", **settings: Any) -> Stdlib:
    context = client_context(pki.ca_file, version=version, ciphers=f"{ciphers}:@SECLEVEL=0", **settings)
    return Stdlib(context, server=False, name="localhost")


def their_server(credential: Credential, version: Version, ciphers: str = "ALL:eNULL") -> Stdlib:
    context = server_context(credential, version=version, ciphers=f"{ciphers}:@SECLEVEL=0", dh=FFDHE2048)
    return Stdlib(context, server=True)


def talk(ours: Driver, theirs: Stdlib) -> None:
    """Handshake, and data both ways."""
    exchange(ours, theirs)
    assert (ours.error, theirs.error) == (None, None)
    assert theirs.complete
    assert ours.engine.info.version is not None
    assert theirs.ssl.version() == {V.tls1_0: "TLSv1"}.get(ours.engine.info.version, ours.engine.info.version.label)
    ours.engine.send(MESSAGE)
    theirs.send(MESSAGE[::-1])
    exchange(ours, theirs)
    assert theirs.received == MESSAGE
    assert ours.received == MESSAGE[::-1]
    assert theirs.ssl.get_channel_binding("tls-unique") == ours.engine.channel_binding("tls-unique")


@by_cell
def test_suite_as_server(engine_pki: PKI, suite: Suite, version: Version) -> None:
    ours = drive.server(credential_for(engine_pki, suite), **only(version, suites=(suite,)))
    talk(ours, their_client(engine_pki, version, suite.openssl))
    info = ours.engine.info
    assert info.extended_master_secret
    assert info.encrypt_then_mac == (suite.cipher.kind == "cbc")


@by_cell
@pytest.mark.parametrize("etm", [True, False], ids=["etm", "mte"])
def test_suite_as_client(engine_pki: PKI, suite: Suite, version: Version, etm: bool) -> None:
    ours = drive.client(**only(version, suites=(suite,)), encrypt_then_mac=etm)
    talk(ours, their_server(credential_for(engine_pki, suite), version))
    assert ours.engine.info.suite is suite
    assert ours.engine.info.encrypt_then_mac == (etm and suite.cipher.kind == "cbc")


@by_version
@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("rsa", SignatureScheme.rsa_pkcs1_md5_sha1),
        ("dsa", SignatureScheme.dsa_sha1),
        ("p256", SignatureScheme.ecdsa_sha1),
        ("p521", SignatureScheme.ecdsa_sha1),
    ],
    ids=["rsa", "dsa", "p256", "p521"],
)
def test_client_certificate(engine_pki: PKI, version: Version, kind: str, scheme: SignatureScheme) -> None:
    credential = engine_pki.client(kind)
    ours = drive.server(engine_pki.server("rsa"), **only(version, client_auth="require"))
    talk(ours, their_client(engine_pki, version, credential=credential))
    assert ours.engine.info.peer_chain == drive.identity(credential).chain
    assert ours.engine.info.client_signature_scheme == scheme

    context = server_context(engine_pki.server("rsa"), version=version)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(engine_pki.ca_file)
    theirs = Stdlib(context, server=True)
    ours = drive.client(**only(version, identities=(drive.identity(credential),)))
    talk(ours, theirs)
    assert ours.engine.info.client_signature_scheme == scheme
    certificate: Any = theirs.ssl.getpeercert()
    assert certificate["subject"][-1][0][1] == credential.subject


@by_version
def test_client_without_certificate(engine_pki: PKI, version: Version) -> None:
    ours = drive.server(engine_pki.server("rsa"), **only(version, client_auth="request"))
    talk(ours, their_client(engine_pki, version))
    assert ours.engine.info.peer_chain == ()
    context = server_context(engine_pki.server("rsa"), version=version)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(engine_pki.ca_file)
    talk(drive.client(**only(version)), Stdlib(context, server=True))


@by_version
@pytest.mark.parametrize("how", ["ticket", "session id"])
def test_resumption(engine_pki: PKI, version: Version, how: str) -> None:
    settings: dict[str, Any] = {"tickets": TicketKeys()} if how == "ticket" else {"session_ids": True}
    first = drive.server(engine_pki.server("rsa"), **only(version, **settings))
    context = client_context(engine_pki.ca_file, version=version)
    theirs = Stdlib(context, server=False, name="localhost")
    talk(first, theirs)
    again = drive.server(engine_pki.server("rsa"), **only(version, **settings))
    again.cache = first.cache
    talk(again, Stdlib(context, server=False, name="localhost", session=theirs.ssl.session))
    assert again.engine.info.resumed

    context = server_context(engine_pki.server("rsa"), version=version)
    if how == "session id":
        context.options |= ssl.OP_NO_TICKET
    ours, kept = drive.client(**only(version)), Stdlib(context, server=True)  # OpenSSL forgets a session with its connection
    talk(ours, kept)
    session = ours.sessions[-1]
    assert bool(session.ticket) == (how == "ticket")
    ours = drive.client(**only(version, session=session))
    talk(ours, Stdlib(context, server=True))
    assert ours.engine.info.resumed


def test_a_client_that_does_not_want_tickets(engine_pki: PKI) -> None:
    ours = drive.client(**only(V.tls1_2, tickets=False))
    talk(ours, Stdlib(server_context(engine_pki.server("rsa")), server=True))
    assert [bool(session.ticket) for session in ours.sessions] == [False]


@pytest.mark.parametrize("version", [*OLD, V.tls1_2], ids=lambda version: version.label)
def test_without_the_extended_master_secret(engine_pki: PKI, version: Version) -> None:
    """Whoever does not want it does not get it; both sides then derive the same master secret as of old."""
    ours = drive.server(engine_pki.server("rsa"), **only(version, extended_master_secret=False))
    talk(ours, their_client(engine_pki, version))
    assert not ours.engine.info.extended_master_secret
    ours = drive.client(**only(version, extended_master_secret=False))
    talk(ours, their_server(engine_pki.server("rsa"), version))
    assert not ours.engine.info.extended_master_secret


@pytest.mark.parametrize("scheme", DSA_SCHEMES, ids=lambda scheme: scheme.name)
def test_dsa_in_tls12(engine_pki: PKI, scheme: SignatureScheme) -> None:
    """A server that signs by DSA, and a client."""
    settings = only(V.tls1_2, suites=(BY_NAME["DHE-DSS-AES128-SHA"],), schemes=(scheme, SignatureScheme.rsa_pkcs1_sha256))
    ours = drive.server(engine_pki.server("dsa"), **settings)
    talk(ours, their_client(engine_pki, V.tls1_2, "DHE-DSS-AES128-SHA"))
    assert ours.engine.info.signature_scheme == scheme
    ours = drive.client(**settings)
    talk(ours, their_server(engine_pki.server("dsa"), V.tls1_2))
    assert ours.engine.info.signature_scheme == scheme


def test_whoever_enables_dss_suites_takes_dsa_signatures(engine_pki: PKI) -> None:
    settings = only(V.tls1_2, suites=(BY_NAME["DHE-DSS-AES128-SHA"],))
    talk(drive.client(**settings), their_server(engine_pki.server("dsa"), V.tls1_2))
    talk(drive.server(engine_pki.server("dsa"), **settings), their_client(engine_pki, V.tls1_2, "DHE-DSS-AES128-SHA"))


@pytest.mark.parametrize("best", [V.tls1_0, V.tls1_1, V.tls1_2], ids=lambda version: version.label)
def test_the_best_version_wins(engine_pki: PKI, best: Version) -> None:
    """A client of ours that offers everything meets servers of one version each; and the other way round."""
    everything: dict[str, Any] = {"suites": EVERY_SUITE, "min_version": V.ssl3, "max_version": V.tls1_3}
    ours = drive.client(**everything)
    talk(ours, their_server(engine_pki.server("rsa"), best))
    assert ours.engine.info.version == best
    ours = drive.server(engine_pki.server("rsa"), **everything)
    talk(ours, their_client(engine_pki, best))
    assert ours.engine.info.version == best
