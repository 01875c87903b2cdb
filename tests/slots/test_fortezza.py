"""FORTEZZA cards by the C ABI: KEA between two, keys in certificates and objects, ciphers that outlive an operation."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

from nss_pk11.errors import TokenError
from nss_pk11.slots import SlotManager, kea
from nss_pk11.slots.fortezza import CardCipher, Initiated, Offered, Responded, initiate, respond, take_up
from nss_pk11.slots.kea import KeaPublicKey
from nss_pk11.slots.keys import TokenKey
from nss_pk11.slots.publickeys import bits_of, default_id, from_certificate, kind_of, spki

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pk11_tokens import RunningSimulator

MAIL = (1).to_bytes(128, "big")
SECRET = bytes(range(48))
KINDS = {"one": "kea", "two": "kea", "other": "kea_other"}


def card(label: str) -> dict[str, object]:
    keys = [{"label": "kea", "kind": KINDS[label], "issued": [label]}, {"label": "dsa", "kind": "dsa1024"}]
    return {"personality": "FORTEZZA card", "label": label, "pin": "4711", "key": keys}


@pytest.fixture
def simulator(simulated_tokens: Callable[..., RunningSimulator]) -> RunningSimulator:
    return simulated_tokens([card(label) for label in KINDS])


@pytest.fixture
def manager(simulator: RunningSimulator) -> Iterator[SlotManager]:
    with SlotManager() as manager:
        manager.load(simulator.module)
        yield manager


@pytest.fixture
def keys(manager: SlotManager, simulator: RunningSimulator) -> dict[str, TokenKey]:
    found = {label: manager.find_key(f"{simulator[label].uri('kea')}&pin-value=4711") for label in KINDS}
    assert all(isinstance(key, TokenKey) for key in found.values())
    return found  # type: ignore[return-value]


def public(key: TokenKey) -> KeaPublicKey:
    assert isinstance(key.public_key, KeaPublicKey)
    return key.public_key


def agree(initiator: TokenKey, recipient: TokenKey, *, ciphers: bool = True, keep: bool = False) -> tuple[Initiated, Responded]:
    ours = initiate(initiator, public(recipient), MAIL, SECRET, ciphers=ciphers, keep=keep)
    offered = Offered(
        public(initiator).public, ours.random, ours.first_key, ours.second_key,
        ours.first_iv, ours.second_iv, ours.secret_iv, ours.secret,
    )  # fmt: skip
    return ours, respond(recipient, MAIL, offered, ciphers=ciphers, keep=keep)


# --- keys --------------------------------------------------------------------------------------------------------------


def test_a_kea_key(keys: dict[str, TokenKey]) -> None:
    key = keys["one"]
    assert (key.kind, key.bits, key.algorithms, key.can_decrypt) == ("kea", 1024, frozenset(), False)
    assert (key.sensitive, key.extractable) == (True, False)
    assert public(keys["one"]).domain == public(keys["two"]).domain != public(keys["other"]).domain
    assert (kind_of(key.public_key), bits_of(key.public_key), len(default_id(key.public_key))) == ("kea", 1024, 20)


def test_its_public_half_is_the_same_in_its_certificate(manager: SlotManager, keys: dict[str, TokenKey]) -> None:
    """The domain's identifier is in the certificate, and computed from p, q and g of the public key object."""
    for key in keys.values():
        certificate = manager.certificate_for(key)
        assert certificate is not None
        assert from_certificate(certificate) == key.public_key
        assert kea.from_public_key_info(spki(key.public_key)) == key.public_key


@pytest.mark.parametrize("length", range(0, 150, 7))
def test_a_public_key_cut_short(length: int) -> None:
    whole = KeaPublicKey(bytes(10), bytes(127) + b"\2").public_bytes()
    assert kea.from_public_key_info(whole) == KeaPublicKey(bytes(10), bytes(127) + b"\2")
    assert kea.from_public_key_info(whole[:length]) is None


@pytest.mark.parametrize(("domain", "size"), [(9, 128), (11, 128), (10, 127), (10, 129), (0, 0)])
def test_a_public_key_of_other_lengths(domain: int, size: int) -> None:
    assert kea.from_public_key_info(KeaPublicKey(bytes(domain), bytes(size)).public_bytes()) is None


def test_other_keys_are_none_of_kea(keys: dict[str, TokenKey], manager: SlotManager, simulator: RunningSimulator) -> None:
    dsa = manager.find_key(f"{simulator['one'].uri('dsa')}&pin-value=4711")
    assert kea.from_public_key_info(spki(dsa.public_key)) is None
    assert kea.from_certificate(b"none") is None


# --- KEA and ciphers -----------------------------------------------------------------------------------------------------


def test_two_cards_agree(keys: dict[str, TokenKey]) -> None:
    ours, theirs = agree(keys["one"], keys["two"])
    assert theirs.secret == SECRET
    assert ours.secret != SECRET
    assert [len(part) for part in ours[:7]] == [128, 12, 12, 24, 24, 24, 48]
    assert ours.write is not None
    assert ours.read is not None
    assert theirs.write is not None
    assert theirs.read is not None
    for size in (8, 800, 8):
        data = os.urandom(size)
        assert theirs.read.update(ours.write.update(data)) == data  # its IV came with the key
    first, second = os.urandom(16), os.urandom(16)
    assert ours.read.update(theirs.write.update(first))[8:] == first[8:]  # here the card made one of its own
    assert ours.read.update(theirs.write.update(second)) == second


def test_without_ciphers(keys: dict[str, TokenKey]) -> None:
    """Keys and IVs there are all the same."""
    ours, theirs = agree(keys["one"], keys["two"], ciphers=False)
    assert (ours.write, ours.read, theirs.write, theirs.read) == (None, None, None, None)
    assert theirs.secret == SECRET
    assert len({ours.first_iv, ours.second_iv, ours.secret_iv}) == 3


def test_every_agreement_is_another(keys: dict[str, TokenKey]) -> None:
    one, other = (agree(keys["one"], keys["two"], ciphers=False)[0] for _ in range(2))
    assert not set(one[:7]) & set(other[:7])


def test_ciphers_are_taken_up_at_their_beginnings(keys: dict[str, TokenKey], simulator: RunningSimulator) -> None:
    """By the same keys, also after the cards were away."""
    ours, theirs = agree(keys["one"], keys["two"], keep=True)
    assert ours.write is not None
    data = os.urandom(24)
    sent = ours.write.update(data)
    for label in ("one", "two"):
        simulator[label].remove()
        simulator[label].insert()
    for _ in range(2):
        initiated = take_up(keys["one"], ours.kept, initiated=True)
        responded = take_up(keys["two"], theirs.kept, initiated=False)
        assert initiated is not None
        assert responded is not None
        (write, read), (their_write, their_read) = initiated, responded
        assert write.update(data) == sent
        assert their_read.update(sent) == data
        assert read.update(their_write.update(data))[8:] == data[8:]


def test_nothing_is_kept_that_nobody_asked_for(keys: dict[str, TokenKey]) -> None:
    for ciphers in (True, False):
        assert [side.kept for side in agree(keys["one"], keys["two"], ciphers=ciphers)] == [b"", b""]


@pytest.mark.parametrize("initiated", [True, False])
def test_ciphers_that_another_card_kept(keys: dict[str, TokenKey], initiated: bool) -> None:
    ours, theirs = agree(keys["one"], keys["two"], keep=True)
    kept, other = (ours.kept, keys["two"]) if initiated else (theirs.kept, keys["one"])
    assert take_up(other, kept, initiated=initiated) is None
    assert take_up(other, b"", initiated=initiated) is None


def test_a_state_that_was_changed(keys: dict[str, TokenKey]) -> None:
    ours, _ = agree(keys["one"], keys["two"], keep=True)
    assert take_up(keys["one"], ours.kept[:-1] + bytes((ours.kept[-1] ^ 1,)), initiated=True) is None


def test_cards_of_two_domains(keys: dict[str, TokenKey]) -> None:
    with pytest.raises(TokenError) as raised:
        initiate(keys["one"], public(keys["other"]), MAIL, SECRET, ciphers=False)
    assert raised.value.ckr == "CKR_DOMAIN_PARAMS_INVALID"


# --- sessions ------------------------------------------------------------------------------------------------------------


def test_what_a_connection_had_is_given_back(keys: dict[str, TokenKey], simulator: RunningSimulator) -> None:
    """A hundred registers: fifty connections one after the other, and two at once."""
    before = simulator["one"].status().sessions
    kept = agree(keys["one"], keys["two"])
    for _ in range(50):
        agree(keys["one"], keys["two"])
    assert kept[0].write is not None
    kept[0].write.update(bytes(8))
    del kept
    gc.collect()
    for label in ("one", "two"):
        keys[label].home.lasting.sweep()
        assert simulator[label].status().sessions <= before + 1


def test_a_card_with_no_room_left(keys: dict[str, TokenKey]) -> None:
    """A connection has three of the registers that Ks leaves."""
    kept = [agree(keys["one"], keys["two"]) for _ in range(33)]
    with pytest.raises(TokenError) as raised:
        agree(keys["one"], keys["two"])
    assert (raised.value.name, raised.value.ckr) == ("SEC_ERROR_NO_MEMORY", "CKR_DEVICE_MEMORY")
    kept.clear()
    gc.collect()
    agree(keys["one"], keys["two"])


def ciphers(keys: dict[str, TokenKey]) -> list[CardCipher]:
    ours, theirs = agree(keys["one"], keys["two"])
    found = [ours.write, ours.read, theirs.write, theirs.read]
    assert all(found)
    return [cipher for cipher in found if cipher is not None]


def test_a_logout_ends_ciphers(keys: dict[str, TokenKey], manager: SlotManager) -> None:
    running = ciphers(keys)
    for token in manager.tokens():
        token.logout()
    for cipher in running:
        with pytest.raises(TokenError) as raised:
            cipher.update(bytes(8))
        assert raised.value.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
    agree(keys["one"], keys["two"])  # logs in again


def test_so_does_the_card_that_is_pulled_for_good(keys: dict[str, TokenKey], simulator: RunningSimulator) -> None:
    running = ciphers(keys)
    for label in ("one", "two"):
        simulator[label].remove()
        simulator[label].insert()
    for cipher in running:
        with pytest.raises(TokenError) as raised:
            cipher.update(bytes(8))
        assert raised.value.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
    agree(keys["one"], keys["two"])


def test_a_forked_child_has_no_ciphers_of_its_parents(keys: dict[str, TokenKey]) -> None:
    """And takes nothing from the parent when it forgets them."""
    running = ciphers(keys)
    child = os.fork()
    if not child:
        status = 1
        try:
            running[0].update(bytes(8))
        except TokenError as error:
            status = 0 if error.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL" else 2
        finally:
            running.clear()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for cipher in running:
        assert len(cipher.update(bytes(8))) == 8
