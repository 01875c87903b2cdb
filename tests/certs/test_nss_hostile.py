"""Broken certificates, lists and names: refusals with a name, never another exception, never an acceptance by mistake."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from cryptography import x509

from nss_pk11.certs import nss
from nss_pk11.certs.crls import usable
from nss_pk11.certs.facts import facts
from nss_pk11.errors import CertificateError, NSPRError

from .issuing import NOW
from .nss_cases import dns, inter, leaf, permitted, root
from .nss_world import Case, Records, Revocation, World

FLIPS = 1500
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")  # flipped into one


@dataclass
class Bytes(Records):
    """Whatever bytes there are, under any name."""

    found: list[bytes] = field(default_factory=list)
    trusted: bytes = b""
    revoked: list[bytes] = field(default_factory=list)

    def find_by_subject(self, subject: bytes) -> list[bytes]:
        return self.found

    def trust(self, der: bytes) -> str:
        return "C" if der == self.trusted else ""

    def crls(self, issuer: bytes) -> list[bytes]:
        return self.revoked


@pytest.fixture(scope="module")
def world() -> World:
    constrained = permitted(dns("example"))
    case = Case("hostile", root=root(constrained), inter=inter(constrained), leaf=leaf(), revoked=(Revocation(at=NOW),))
    return World(case)


def flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.1:
        del changed[chance.randrange(len(changed)) :]
    return bytes(changed)


def same(one: bytes, other: bytes) -> bool:
    """Whether signed part and signature are the same: a bit string may be said to end before its last octet does."""
    first, second = x509.load_der_x509_certificate(one), x509.load_der_x509_certificate(other)
    return first.tbs_certificate_bytes == second.tbs_certificate_bytes and first.signature == second.signature


def outcome(chain: list[bytes], records: Records, usage: nss.Usage = nss.Usage.SERVER) -> str:
    try:
        nss.verify_peer(chain, records, usage, now=NOW.timestamp(), host="host.example")
    except CertificateError as error:
        return error.name
    return ""


@pytest.mark.parametrize("place", [0, 1, 2])
def test_flipped_bits_in_certificates(world: World, place: int) -> None:
    chance = random.Random(place)
    chain = [made.der for made in world.chain]
    names = set()
    for _ in range(FLIPS):
        broken = [*chain[:place], flipped(chain[place], chance), *chain[place + 1 :]]
        if broken == chain:
            continue
        name = outcome(broken[:1], Bytes(found=broken[1:], trusted=chain[2]))
        assert name or same(broken[place], chain[place])
        names.add(name)
    assert len(names) >= 3 - place


def test_flipped_bits_in_the_anchor_are_the_owner_s_business(world: World) -> None:
    """An anchor is trusted as it stands, its own signature included; but whatever it holds, there is no other exception."""
    chance = random.Random(3)
    leaf_, between, anchor = (made.der for made in world.chain)
    for _ in range(FLIPS):
        broken = flipped(anchor, chance)
        outcome([leaf_], Bytes(found=[between, broken], trusted=broken))


def test_flipped_bits_in_lists(world: World) -> None:
    """A list that is broken is none: the certificate it names is as good as without."""
    accepted = 0
    chance = random.Random(4)
    chain, lists = [made.der for made in world.chain], world.records.lists
    assert outcome(chain[:1], Bytes(found=chain[1:], trusted=chain[2], revoked=lists)) == "SEC_ERROR_REVOKED_CERTIFICATE"
    for _ in range(FLIPS):
        broken = flipped(lists[0], chance)
        if usable(broken, facts(chain[1])) is None:
            assert outcome(chain[:1], Bytes(found=chain[1:], trusted=chain[2], revoked=[broken])) == ""
        else:
            accepted += 1
    assert accepted < FLIPS / 50  # those with the bits turned back


def test_flipped_bits_in_what_the_peer_sends_beside_the_path(world: World) -> None:
    chance = random.Random(5)
    chain = [made.der for made in world.chain]
    for _ in range(FLIPS // 10):
        rubbish = [flipped(chain[1], chance) for _ in range(5)]
        assert outcome([chain[0], *rubbish, b"", b"\x30", chain[1]], Bytes(found=[], trusted=chain[2])) != ""
        assert outcome([chain[0], *rubbish, b"", chain[1]], Bytes(found=[chain[2]], trusted=chain[2])) == ""


@pytest.mark.parametrize("sent", [[], [b""], [b"\x30\x00"], [b"\x30\x80" * 400], [b"no certificate"]])
@pytest.mark.parametrize("usage", list(nss.Usage))
def test_no_certificate_at_all(sent: list[bytes], usage: nss.Usage) -> None:
    with pytest.raises(NSPRError) as caught:
        nss.verify(sent, Records(), usage, now=NOW.timestamp())
    assert caught.value.name == ("SEC_ERROR_BAD_DER" if sent else "SSL_ERROR_NO_CERTIFICATE")


def test_constraint_on_an_address_that_is_no_network(world: World) -> None:
    """Four octets where eight belong (RFC 5280 section 4.2.1.10): the certificate does not parse."""
    broken = bytes.fromhex("300aa0083006 8704c0000201")
    extension = x509.UnrecognizedExtension(x509.oid.ExtensionOID.NAME_CONSTRAINTS, broken)
    case = World(Case("no network", inter=inter(extension)))
    assert outcome([case.chain[0].der], case.records) != ""
