"""KEA: the published end of it, both ways of agreeing, what it refuses, and how certificates carry its keys."""

from __future__ import annotations

import json
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Any, ClassVar

import pytest
from asn1crypto.core import BitString, ObjectIdentifier, OctetString, Sequence
from asn1crypto.keys import DSAParams
from pk11_tokens.kea import DOMAINS, RANDOM_SLOTS, Domain, KeaPrivateKey, KeaPublicKey, final_stage
from pk11_tokens.skipjack import Order, Skipjack, wrap_bare

VECTORS = json.loads((Path(__file__).parents[2] / "fixtures/kea.json").read_text("utf-8"))["final_stage"]
DOMAIN, OTHER = DOMAINS["kea"], DOMAINS["kea_other"]


def final(v1: bytes, v2: bytes, order: Order) -> tuple[bytes, bytes]:
    """The end of KEA once more, in either order: what is between, and the key."""
    cover = Skipjack(bytes(a ^ b for a, b in zip(v1, bytes.fromhex("72f1a87e92824198ab0b"), strict=True)), order)
    return cover.encrypt(v2[:8]), wrap_bare(cover, v2)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["tek"] for vector in VECTORS])
def test_the_final_stage(vector: dict[str, Any]) -> None:
    v1, v2 = bytes.fromhex(vector["v1"]), bytes.fromhex(vector["v2"])
    tek = final_stage(v1, v2)
    intermediate, again = final(v1, v2, "little")
    assert tek.hex() == again.hex() == vector["tek"]
    assert intermediate.hex() == vector["intermediate"]
    assert vector["tek"].startswith(vector["published"]["tek"])
    assert vector["intermediate"].startswith(vector["published"]["intermediate"])
    assert final(v1, v2, "big")[1].hex() == vector["plain_order"]


# --- agreeing --------------------------------------------------------------------------------------------------------


def by_hand(domain: Domain, t: int, u: int) -> bytes:
    w = ((t + u) % domain.p).to_bytes(128, "big")
    return final(w[:10], w[10:20], "little")[1]


def test_both_sides_arrive_at_the_same_key() -> None:
    a, b = DOMAIN.generate(), DOMAIN.generate()
    r_a, r_b = DOMAIN.generate(), DOMAIN.generate()
    initiator = a.agree(r_a.x, b.public_key(), r_b.public_key())
    recipient = b.agree(r_b.x, a.public_key(), r_a.public_key())
    g, p = DOMAIN.g, DOMAIN.p
    assert initiator == recipient == by_hand(DOMAIN, pow(g, b.x * r_a.x, p), pow(g, a.x * r_b.x, p))


def test_in_mail_the_recipient_has_no_random_number() -> None:
    a, b, r_a = (DOMAIN.generate() for _ in range(3))
    initiator = a.agree(r_a.x, b.public_key(), b.public_key())
    recipient = b.agree(b.x, a.public_key(), r_a.public_key())
    g, p = DOMAIN.g, DOMAIN.p
    assert initiator == recipient == by_hand(DOMAIN, pow(g, b.x * r_a.x, p), pow(g, a.x * b.x, p))


def test_keys_of_two_domains_do_not_agree() -> None:
    a, b = DOMAIN.generate(), OTHER.generate()
    with pytest.raises(ValueError, match="another domain"):
        a.agree(a.x, b.public_key(), b.public_key())
    with pytest.raises(ValueError, match="no public value"):
        KeaPublicKey(DOMAIN, b.public_key().y)


@pytest.mark.parametrize("value", [0, 1, 2, -1, DOMAIN.p - 1, DOMAIN.p, DOMAIN.p + DOMAIN.g])
def test_public_values_are_in_the_subgroup(value: int) -> None:
    with pytest.raises(ValueError, match="no public value"):
        KeaPublicKey(DOMAIN, value)


@pytest.mark.parametrize("x", [0, -1, DOMAIN.q, DOMAIN.q + 1])
def test_private_values_are_smaller_than_q(x: int) -> None:
    with pytest.raises(ValueError, match="no private value"):
        KeaPrivateKey(DOMAIN, x)


@pytest.mark.parametrize(
    "make",
    [
        partial(Domain, DOMAIN.p >> 1, DOMAIN.q, DOMAIN.g),
        partial(Domain, DOMAIN.p, DOMAIN.q >> 1, DOMAIN.g),
        partial(Domain, DOMAIN.p, DOMAIN.q, 1),
        partial(Domain, DOMAIN.p, DOMAIN.q, 2),
        partial(Domain, DOMAIN.p, OTHER.q, DOMAIN.g),
    ],
)
def test_a_domain_has_the_sizes_of_kea_and_a_generator(make: partial[Domain]) -> None:
    with pytest.raises(ValueError, match="no domain"):
        make()


# --- random numbers --------------------------------------------------------------------------------------------------


def test_a_random_number_serves_once() -> None:
    key = DOMAIN.generate()
    public = key.new_random()
    r = key.take_random(public.y)
    assert r is not None
    assert pow(DOMAIN.g, r, DOMAIN.p) == public.y
    assert key.take_random(public.y) is None


def test_the_oldest_random_number_gives_way() -> None:
    key = DOMAIN.generate()
    made = [key.new_random().y for _ in range(RANDOM_SLOTS + 1)]
    assert key.take_random(made[0]) is None
    assert all(key.take_random(public) for public in made[1:])


def test_a_private_key_does_not_show_itself() -> None:
    key = DOMAIN.generate()
    key.new_random()
    assert str(key.x) not in repr(key)
    assert "random" not in repr(key)


# --- certificates ----------------------------------------------------------------------------------------------------


class _Algorithm(Sequence):  # type: ignore[misc]
    _fields: ClassVar = [("algorithm", ObjectIdentifier), ("parameters", OctetString)]


class _KeyInfo(Sequence):  # type: ignore[misc]
    _fields: ClassVar = [("algorithm", _Algorithm), ("public_key", BitString)]


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_subject_public_key_info_is_that_of_rfc_2528(domain: Domain) -> None:
    public_key = domain.generate().public_key()
    info = _KeyInfo.load(public_key.public_bytes(), strict=True)
    assert info["algorithm"]["algorithm"].dotted == "2.16.840.1.101.2.1.1.22"
    digest = sha1(DSAParams({"p": domain.p, "q": domain.q, "g": domain.g}).dump()).digest()
    folded = bytes(a ^ b for a, b in zip(digest[:10], digest[10:], strict=True))
    assert info["algorithm"]["parameters"].native == folded == domain.identifier
    assert info["public_key"].contents == b"\0" + public_key.y.to_bytes(128, "big")


def test_domains_have_names_of_their_own() -> None:
    assert DOMAIN.identifier != OTHER.identifier
