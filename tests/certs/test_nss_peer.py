"""What SSL_AuthCertificate does: the chain, the stapled response, the name, in this order."""

from __future__ import annotations

from typing import Any

import pytest

from nss_pk11.certs import nss
from nss_pk11.errors import Alert, CertificateError, alert_for

from .issuing import CA, DAY, NOW, SERVER
from .nss_cases import leaf, purposes, root
from .nss_world import Case, Shape, World
from .test_ocsp import GOOD, REVOKED, UNKNOWN, respond

LEGACY = Case("legacy", root=root(version1=True, kind="rsa1024"), inter=Shape((CA,), kind="rsa1024", digest="sha1"), leaf=Shape())


def verify(
    world: World, host: str | None = "host.example", ocsp: bytes | None = b"", usage: Any = nss.Usage.SERVER
) -> list[bytes]:
    chain = [made.der for made in world.chain[:-1]]
    return nss.verify_peer(chain, world.records, usage, now=NOW.timestamp(), host=host, ocsp=ocsp)


def refused(world: World, **arguments: Any) -> str:
    with pytest.raises(CertificateError) as caught:
        verify(world, **arguments)
    return caught.value.name


@pytest.fixture(scope="module")
def world() -> World:
    return World(Case("peer", leaf=leaf(purposes(SERVER))))


def test_path_is_what_was_trusted(world: World) -> None:
    assert verify(world) == [made.der for made in world.chain]


def test_what_the_web_pki_does_not_accept() -> None:
    """No alternative name, SHA-1, RSA 1024, a version 1 root, no key identifiers: `Trust` refuses, this does not."""
    world = World(LEGACY)
    assert verify(world, host="leaf of legacy") == [made.der for made in world.chain]
    assert refused(world, host="host.example") == "SSL_ERROR_BAD_CERT_DOMAIN"


def test_another_host(world: World) -> None:
    assert refused(world, host="other.example") == "SSL_ERROR_BAD_CERT_DOMAIN"


def test_no_host_set(world: World) -> None:
    """SSL_SetURL was not called: a client that does not know whom it wants is not told that it has reached them."""
    assert refused(world, host="") == "SSL_ERROR_BAD_CERT_DOMAIN"


def test_servers_look_for_no_name() -> None:
    world = World(Case("peer of a server", usage="C", root=root(trust="CT"), leaf=Shape()))
    assert len(verify(world, host=None, usage=nss.Usage.CLIENT)) == 3


def test_chain_comes_before_the_name() -> None:
    world = World(Case("expired for another", leaf=leaf(end=NOW - DAY / 2)))
    assert refused(world, host="other.example") == "SEC_ERROR_EXPIRED_CERTIFICATE"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(GOOD, ""), (REVOKED, "SEC_ERROR_REVOKED_CERTIFICATE_OCSP"), (UNKNOWN, "SEC_ERROR_OCSP_UNKNOWN_CERT")],
)
def test_stapled_response(world: World, status: Any, expected: str) -> None:
    staple = respond(world.chain[0], world.chain[1], status=status)
    if expected:
        assert refused(world, ocsp=staple) == expected
    else:
        assert verify(world, ocsp=staple)


def test_stapled_response_of_somebody_else(world: World) -> None:
    assert refused(world, ocsp=respond(world.chain[1], world.chain[2])) == "SEC_ERROR_OCSP_UNAUTHORIZED_RESPONSE"


def test_trusted_peer_needs_no_response() -> None:
    world = World(Case("trusted peer", root=root(trust=None), leaf=leaf(trust="P")))
    assert verify(world, ocsp=b"rubbish") == [world.chain[0].der]


@pytest.mark.parametrize(
    ("case", "alert"),
    [
        (Case("alert for nobody's", root=root(trust=None)), Alert.unknown_ca),
        (Case("alert for distrusted", root=root(trust="p")), Alert.unknown_ca),
        (Case("alert for expired", leaf=leaf(end=NOW - DAY / 2)), Alert.certificate_expired),
        (Case("alert for an expired CA", inter=Shape((CA,), end=NOW - DAY / 2)), Alert.certificate_expired),
        (Case("alert for forged", leaf=leaf(forged=True)), Alert.bad_certificate),
    ],
    ids=lambda value: value.id if isinstance(value, Case) else value.name,
)
def test_alerts(case: Case, alert: Alert) -> None:
    with pytest.raises(CertificateError) as caught:
        verify(World(case))
    assert alert_for(caught.value) is alert
    assert case.id in caught.value.subject  # the refusal says which certificate it is about
