"""The stores behind verification: a real database made by certutil, memory, and several as one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nss_pk11.certs import nss
from nss_pk11.certs.stores import DatabaseStore, JoinedStore, MemoryStore
from nss_pk11.db.database import Database
from nss_pk11.db.trust import Trust
from nss_pk11.errors import CertificateError

from . import test_nss_tools as tools
from .issuing import CA, NOW
from .nss_cases import CASES
from .nss_world import USAGES, Case, Revocation, Shape, World, verdict


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [World(case) for case in CASES]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, worlds: list[World]) -> Iterator[Database]:
    if shutil.which("certutil") is None:
        pytest.skip("needs libnss3-tools")
    made = tools.Database(tmp_path_factory.mktemp("nss"))
    made.fill(worlds)
    with Database.open(made.location) as opened:
        yield opened


def outcome(world: World, store: nss.TrustStore, chain: list[bytes] | None = None) -> str:
    try:
        nss.verify(chain or [world.chain[0].der], store, USAGES[world.case.usage], now=NOW.timestamp())
    except CertificateError as error:
        return error.name
    return ""


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number].id)
def test_verdicts_from_a_database(database: Database, worlds: list[World], number: int) -> None:
    assert outcome(worlds[number], DatabaseStore(database)) == CASES[number].expected


def test_database_answers_in_little_time(database: Database, worlds: list[World]) -> None:
    chain = [worlds[0].chain[0].der]
    store = DatabaseStore(database)
    started = time.perf_counter()
    for _ in range(20):
        assert outcome(worlds[0], store, chain) == ""
    assert (time.perf_counter() - started) / 20 < 0.005


def memory(world: World, letters: dict[int, str] | None = None) -> MemoryStore:
    """All certificates of a world but its leaf; `letters`: those that are not the world's."""
    found = {made.der: (letters or {}).get(place, known) for place, (made, known) in enumerate(world.records.certificates)}
    lists: dict[bytes, list[bytes]] = {}
    for made, _ in world.records.certificates:
        name = made.certificate.subject.public_bytes()
        lists[name] = list(world.records.crls(name))
    return MemoryStore({der: known for der, known in found.items() if der != world.chain[0].der}, lists)


@pytest.mark.parametrize("revoked", [(), (Revocation(),)])
def test_memory(revoked: tuple[Revocation, ...]) -> None:
    world = World(Case("memory", revoked=revoked))
    assert outcome(world, memory(world)) == verdict(world) == ("SEC_ERROR_REVOKED_CERTIFICATE" if revoked else "")


def test_memory_holds_no_broken_certificates() -> None:
    with pytest.raises(CertificateError) as caught:
        MemoryStore({b"\x30\x00": "C"})
    assert caught.value.name == "SEC_ERROR_BAD_DER"


@pytest.mark.parametrize(
    ("user", "expected"), [("p", "SEC_ERROR_UNTRUSTED_ISSUER"), ("", "SEC_ERROR_UNTRUSTED_ISSUER"), ("C", "")]
)
def test_a_user_s_database_overrules_the_root_module(user: str, expected: str) -> None:
    world = World(Case("overruled", root=Shape((CA,), trust="C")))
    roots = memory(world)
    assert outcome(world, JoinedStore(MemoryStore({}), roots)) == ""
    assert outcome(world, JoinedStore(memory(world, {0: user}), roots)) == expected


def test_stores_together_hold_what_none_holds_alone() -> None:
    world = World(Case("together"))
    leaf, between, anchor = (made.der for made in world.chain)
    one, other = MemoryStore({between: ""}), MemoryStore({anchor: "C"})
    assert outcome(world, one, [leaf]) == outcome(world, other, [leaf]) == "SEC_ERROR_UNKNOWN_ISSUER"
    assert outcome(world, JoinedStore(one, other), [leaf]) == ""


def test_what_certutil_changes_is_seen_at_once(tmp_path: Path) -> None:
    if shutil.which("certutil") is None:
        pytest.skip("needs libnss3-tools")
    world, made = World(Case("changing")), tools.Database(tmp_path)
    made.fill([world])
    with Database.open(made.location, read_only=False) as database:
        store = DatabaseStore(database)
        assert outcome(world, store) == ""
        for letters, expected in [("p", "SEC_ERROR_UNTRUSTED_ISSUER"), ("C", ""), ("T", "SEC_ERROR_UNTRUSTED_ISSUER")]:
            assert tools.run("certutil", "-M", "-n", "0-0", "-t", f"{letters},,", "-d", made.location) == (0, "")
            assert outcome(world, store) == expected
        database.set_trust(world.chain[-1].der, Trust.parse("C,,"))
        assert outcome(world, store) == ""
        assert tools.run("certutil", "-D", "-n", "0-1", "-d", made.location) == (0, "")
        assert outcome(world, store) == "SEC_ERROR_UNKNOWN_ISSUER"
        database.add_certificate(world.chain[1].der)
        assert outcome(world, store) == ""
