"""Hostile sets of certificates end soon, in an error that says so; ordinary chains cost next to nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product

import pytest
from cryptography import x509

from nss_pk11.certs import nss
from nss_pk11.certs.facts import facts
from nss_pk11.certs.signatures import signature_flaw
from nss_pk11.errors import CertificateError

from .issuing import CA, NOW, Made, make
from .nss_cases import excluded
from .nss_world import HOST, Case, Records, Shape, World, key_of

SOON = 2.0  # seconds, on a machine that does other things too
LIMIT = "SEC_ERROR_OUT_OF_SEARCH_LIMITS"


def verify(chain: list[Made], records: Records, budget: nss.Budget | None = None) -> list[bytes]:
    return nss.verify([made.der for made in chain], records, nss.Usage.SERVER, now=NOW.timestamp(), budget=budget)


def refused(chain: list[Made], records: Records, budget: nss.Budget | None = None) -> str:
    started = time.perf_counter()
    with pytest.raises(CertificateError) as caught:
        verify(chain, records, budget)
    assert time.perf_counter() - started < SOON
    return caught.value.name


def made(subject: str, issuer: str, key: str, signer: str) -> Made:
    """A CA's certificate; keys and names are told apart by their labels."""
    authority = make(issuer, None, CA, key=key_of("p256", signer))
    return make(subject, authority, CA, key=key_of("p256", key))


@pytest.fixture(scope="module")
def mesh() -> list[Made]:
    """Every one of five CAs certified by every other, each of them eleven times: millions of paths, and none to an anchor."""
    names = [f"mesh {number}" for number in range(5)]
    return [made(one, other, one, other) for one, other, _ in product(names, names, range(11)) if one != other]


@pytest.fixture(scope="module")
def leaf() -> Made:
    return make("leaf", made("mesh 0", "mesh 1", "mesh 0", "mesh 1"), HOST)


def test_more_certificates_than_anybody_sends(mesh: list[Made], leaf: Made) -> None:
    assert refused([leaf, *mesh], Records()) == LIMIT


def test_cross_signed_authorities_without_end(mesh: list[Made], leaf: Made) -> None:
    assert refused([leaf, *mesh[:90]], Records()) == LIMIT


def test_thousands_of_cross_signed_authorities_in_the_store(mesh: list[Made], leaf: Made) -> None:
    records = Records()
    records.certificates = [(one, "") for one in mesh]
    thousands = [one for _ in range(20) for one in mesh]
    asked: list[bytes] = []

    class Crowded(Records):
        def find_by_subject(self, subject: bytes) -> Iterator[bytes]:
            for one in thousands:
                asked.append(one.der)
                yield one.der

    assert refused([leaf], Crowded()) == LIMIT
    assert len(asked) < 1000  # a store is asked for no more than will be looked at


def test_thousands_that_are_not_looked_at_because_the_first_is_trusted() -> None:
    world = World(Case("first trusted"))
    assert len(verify(world.chain, world.records)) == 3


def test_same_name_but_another_key_a_hundred_times() -> None:
    """Each has to be tried: only the signature tells them apart."""
    issuer = made("crowd", "mesh 1", "mesh 0", "mesh 1")
    crowd = [made("crowd", "mesh 1", "mesh 2", "mesh 1") for _ in range(90)]
    assert refused([make("leaf of a crowd", issuer, HOST), *crowd], Records()) == LIMIT


def test_circle_ends() -> None:
    one, other = made("one", "other", "one", "other"), made("other", "one", "other", "one")
    assert refused([make("leaf of a circle", one, HOST), one, other], Records()) == "SEC_ERROR_UNKNOWN_ISSUER"


def line(length: int) -> tuple[list[Made], Records]:
    """A leaf, `length` CAs each certified by the next, and a trusted root."""
    root = make("line root", None, CA)
    chain, records = [root], Records()
    for number in range(length):
        chain.insert(0, make(f"line {number}", chain[0], CA, key=key_of("p256", "line")))
    records.certificates = [(root, "C")]
    return [make("line leaf", chain[0], HOST), *chain[:-1]], records


def test_longest_path() -> None:
    chain, records = line(nss.MAX_DEPTH - 1)
    assert len(verify(chain, records)) == nss.MAX_DEPTH + 1


def test_longer_path() -> None:
    chain, records = line(nss.MAX_DEPTH)
    assert refused(chain, records) == "SEC_ERROR_UNKNOWN_ISSUER"


def test_huge_keys_are_not_reckoned_with() -> None:
    """An RSA key of 65536 bits: verifying with it takes seconds; the certificate is refused unseen."""
    world = World(Case("huge key", inter=Shape((CA,), kind="rsa")))
    der = enlarge(world.chain[1].der)
    started = time.perf_counter()
    assert signature_flaw(facts(world.chain[0].der), facts(der)) != ""
    assert time.perf_counter() - started < SOON


def enlarge(der: bytes) -> bytes:
    import asn1crypto.keys
    import asn1crypto.x509

    certificate = asn1crypto.x509.Certificate.load(der)
    key = asn1crypto.keys.RSAPublicKey({"modulus": (1 << 65535) + 1, "public_exponent": (1 << 65534) + 1})
    certificate["tbs_certificate"]["subject_public_key_info"]["public_key"] = key
    return bytes(certificate.dump(force=True))


def test_thousands_of_names_under_thousands_of_constraints() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName(f"host{number}.example") for number in range(1000)])
    constraints = excluded(*(x509.DNSName(f"other{number}.example") for number in range(1000)))
    world = World(Case("many names", inter=Shape((CA, constraints)), leaf=Shape((names,))))
    assert refused(world.chain, world.records) == LIMIT


def test_budget_is_the_caller_s_to_set(mesh: list[Made], leaf: Made) -> None:
    chain, records = line(3)
    assert refused(chain, records, nss.Budget(signatures=2)) == LIMIT
    assert refused(chain, records, nss.Budget(certificates=2)) == LIMIT
    assert refused(chain, records, nss.Budget(candidates=2)) == LIMIT


def test_ordinary_chain_takes_less_than_a_millisecond() -> None:
    world = World(Case("ordinary", inter=Shape((CA,), kind="rsa"), root=Shape((CA,), kind="rsa", trust="C")))
    stored = {made.certificate.subject.public_bytes(): [made.der] for made, _ in world.records.certificates}
    letters = {made.der: letters for made, letters in world.records.certificates}

    class Indexed(Records):
        def find_by_subject(self, subject: bytes) -> list[bytes]:
            return stored.get(subject, [])

        def trust(self, der: bytes) -> str:
            return letters.get(der, "")

    verify(world.chain[:2], Indexed())
    best = min(timed(world.chain[:2], Indexed()) for _ in range(50))
    assert best < 0.001


def timed(chain: list[Made], records: Records) -> float:
    started = time.perf_counter()
    verify(chain, records)
    return time.perf_counter() - started
