"""Finding modules, tokens, keys and certificates by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from nss_pk11 import pins
from nss_pk11.errors import Ambiguous, ConfigurationError, NotFound, PinError, TokenError
from nss_pk11.slots import Algorithm, SlotManager
from nss_pk11.slots.modules import Registration, registrations
from nss_pk11.tls.suites import SUITES
from tests.support.pki import Authority
from tests.support.softhsm import PIN, KeyOnToken, SoftHSM, TokenOnDisk

from .conftest import Asked

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

NewToken = Callable[..., TokenOnDisk]


@pytest.fixture(scope="module")
def shop(new_token: NewToken) -> tuple[TokenOnDisk, dict[str, KeyOnToken], dict[str, bytes]]:
    """A token with two keys, one of them with two certificates of its id, and a CA certificate."""
    from cryptography.hazmat.primitives.serialization import Encoding

    token = new_token()
    made = {label: token.generate_key("p256", label, label.encode()) for label in ("one", "two")}
    authority = Authority.root("Test root", "p256")
    certificate = authority.issue("one", made["one"].public_key)
    token.import_certificate(certificate, made["one"])
    return token, made, {"one": certificate.public_bytes(Encoding.DER)}


def test_uri_alone_is_enough(keys: dict[str, KeyOnToken]) -> None:
    with SlotManager() as manager:
        key = manager.find_key(keys["p256"].uri_with_pin)
        assert key.label == "p256"
        assert manager.find_key(key.uri).id == key.id


def test_pin_in_the_uri_wins(manager: SlotManager, web: TokenOnDisk, keys: dict[str, KeyOnToken]) -> None:
    person = Asked([None])
    manager.find_key(f"{keys['p256'].uri}?pin-value={web.pin}", person)
    assert person.requests == []


def test_a_uri_that_names_two_keys_lists_both(
    manager: SlotManager, shop: tuple[TokenOnDisk, dict[str, KeyOnToken], object]
) -> None:
    token, _, _ = shop
    with pytest.raises(Ambiguous) as caught:
        manager.find_key(f"pkcs11:token={quote(token.label)}", pins.value(PIN))
    assert "object=one" in str(caught.value)
    assert "object=two" in str(caught.value)


def test_what_is_not_there(manager: SlotManager, web: TokenOnDisk, keys: dict[str, KeyOnToken]) -> None:
    token = quote(web.label)
    for uri, part in (
        ("pkcs11:token=nowhere;object=rsa", "no such token"),
        (f"pkcs11:token={token};object=nothing", "no such private key"),
        (f"pkcs11:token={token};id=%01", "no such private key"),
        (f"pkcs11:token={token};object=rsa;serial=0", "no such token"),
        (f"pkcs11:token={token};object=rsa;slot-id=7", "no such token"),
        (f"pkcs11:token={token};object=rsa;library-version=9.9", "no such token"),
        (f"pkcs11:token={token};object=rsa;x-unknown=1", "x-unknown"),
        (f"pkcs11:token={token}?module-name=other", "no such token"),
    ):
        with pytest.raises(NotFound, match=part):
            manager.find_key(uri, pins.value(PIN))


def test_every_path_attribute_can_name(manager: SlotManager, web: TokenOnDisk, keys: dict[str, KeyOnToken]) -> None:
    info = manager.find_key(keys["rsa"].uri, pins.value(PIN)).token
    [module] = [module for module in manager.modules if module.path]
    major, minor = module.version
    uri = (
        f"pkcs11:token={quote(info.label)};serial={info.serial};model={quote(info.model)};manufacturer={quote(info.manufacturer)}"
        f";slot-id={info.slot_id};slot-description={quote(info.slot)};library-version={major}.{minor}"
        f";library-manufacturer={quote(module.manufacturer)};library-description={quote(module.description)}"
        f";object=rsa;type=private?module-name=softhsm2"
    )
    assert manager.find_key(uri).label == "rsa"


def test_key_is_found_by_the_certificate_beside_it(
    manager: SlotManager, shop: tuple[TokenOnDisk, dict[str, KeyOnToken], dict[str, bytes]]
) -> None:
    token, made, certificates = shop
    key = manager.find_key(f"pkcs11:token={quote(token.label)};object=one;type=cert", pins.value(PIN))
    assert key.public_key == made["one"].public_key
    assert manager.certificate_for(key) == certificates["one"]
    other = manager.find_key(made["two"].uri)
    assert manager.certificate_for(other) is None


def test_certificates_need_no_pin(
    manager: SlotManager, shop: tuple[TokenOnDisk, dict[str, KeyOnToken], dict[str, bytes]]
) -> None:
    token, _, certificates = shop
    [found] = manager.find_certificates(f"pkcs11:token={quote(token.label)}")
    assert (found.der, found.label, found.id) == (certificates["one"], "one", b"one")
    assert manager.find_certificates(found.uri) == [found]
    assert manager.find_certificates(f"pkcs11:token={quote(token.label)};object=two") == []


def test_key_of_unnamed_token_is_asked_for_only_where_its_public_half_lies(softhsm: SoftHSM, new_token: NewToken) -> None:
    first, second = new_token(), new_token()
    made = second.generate_key("p256", f"only on {second.label}")
    first.generate_key("p256", "another")
    person = Asked([PIN])
    with SlotManager() as manager:
        manager.load(softhsm.module_path)
        key = manager.find_key(f"pkcs11:object={quote(made.label)}", person)
        assert key.public_key == made.public_key
    assert [request.token for request in person.requests] == [second.label]


def test_other_types_are_refused(manager: SlotManager) -> None:
    with pytest.raises(ConfigurationError, match="secret-key"):
        manager.find_key("pkcs11:type=secret-key")


# --- modules -----------------------------------------------------------------------------------------------------------


def test_same_path_is_the_same_module(softhsm: SoftHSM, manager: SlotManager, tmp_path: Path) -> None:
    link = tmp_path / "link.so"
    link.symlink_to(softhsm.module_path)
    assert manager.load(softhsm.module_path) is manager.load(str(link))


@pytest.mark.parametrize("path", ["/nonexistent/module.so", "libc.so.6", "/etc/hostname"])
def test_no_module(manager: SlotManager, path: str) -> None:
    with pytest.raises(TokenError) as caught:
        manager.load(path)
    assert caught.value.name == "SEC_ERROR_NO_MODULE"
    assert path in str(caught.value)


def test_module_path_may_be_a_directory(keys: dict[str, KeyOnToken], softhsm: SoftHSM) -> None:
    directory = os.path.dirname(softhsm.module_path)
    with SlotManager() as manager:
        key = manager.find_key(f"{keys['rsa'].uri}?module-path={directory}&module-name=softhsm2&pin-value={PIN}")
        assert key.label == "rsa"
        with pytest.raises(ConfigurationError, match="module-name"):
            manager.find_key(f"{keys['rsa'].uri}?module-path={directory}")


def test_two_managers_share_the_library_and_the_last_finalises_it(softhsm: SoftHSM, keys: dict[str, KeyOnToken]) -> None:
    first, second = SlotManager(), SlotManager()
    one = first.find_key(keys["p256"].uri_with_pin)
    two = second.find_key(keys["p256"].uri_with_pin)
    first.close()
    with pytest.raises(TokenError, match="closed"):
        one.sign(Algorithm.ecdsa_sha256, b"")
    assert two.sign(Algorithm.ecdsa_sha256, b"")
    second.close()
    second.close()
    with pytest.raises(TokenError):
        two.sign(Algorithm.ecdsa_sha256, b"")
    with SlotManager() as third:
        assert third.find_key(keys["p256"].uri_with_pin).sign(Algorithm.ecdsa_sha256, b"")


def test_a_module_that_dies_hides_no_key_of_another(
    simulated_tokens: Callable[..., RunningSimulator], keys: dict[str, KeyOnToken], manager: SlotManager
) -> None:
    dead = simulated_tokens(
        [{"personality": "smart card", "label": "dead", "pin": "123456", "key": [{"kind": "p256", "label": "k"}]}]
    )
    manager.load(dead.module)
    manager.find_key("pkcs11:token=dead;object=k", pins.value("123456"))
    dead.kill()
    assert manager.find_key(keys["rsa"].uri, pins.value(PIN)).label == "rsa"
    with pytest.raises(TokenError, match="CKR_DEVICE_ERROR"):
        manager.find_key("pkcs11:token=dead;object=k", pins.value("123456"))


def test_nothing_offered_but_by_a_present_token(manager: SlotManager) -> None:
    offered = manager.mechanisms()
    assert {"CKM_AES_GCM", "CKM_ECDSA"} <= offered
    assert "CKM_KEA_KEY_DERIVE" not in offered
    assert SlotManager().mechanisms() >= frozenset().union(*(suite.mechanisms for suite in SUITES))


def test_login_that_nobody_can_give_is_said(manager: SlotManager, keys: dict[str, KeyOnToken]) -> None:
    with pytest.raises(PinError, match="no PIN source"):
        manager.find_key(keys["rsa"].uri)


# --- p11-kit -----------------------------------------------------------------------------------------------------------


def test_registrations(tmp_path: Path) -> None:
    system, local = tmp_path / "system", tmp_path / "local"
    system.mkdir()
    local.mkdir()
    (system / "a.module").write_text("# comment\nmodule: /a.so\nx-init-reserved: some parameters\n")
    (system / "b.module").write_text("module:/b.so\npriority: 5\ncritical: yes\n")
    (system / "c.module").write_text("module: /c.so\n")
    (system / "d.module").write_text("module: /d.so\ndisable-in: firefox, nss-pk11\n")
    (system / "e.module").write_text("module: /e.so\nenable-in: firefox\n")
    (system / "f.module").write_text("module: /f.so\nenable-in: nss-pk11 firefox\n")
    (system / "readme.txt").write_text("module: /g.so\n")
    (local / "c.module").write_text("module:\n")
    assert registrations([system, local, tmp_path / "absent"]) == [
        Registration("b.module", "/b.so", "", True),
        Registration("a.module", "/a.so", "some parameters"),
        Registration("f.module", "/f.so"),
    ]


def test_registered_module_is_loaded_when_nothing_else_fits(
    keys: dict[str, KeyOnToken], softhsm: SoftHSM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pkcs11/modules").mkdir(parents=True)
    (tmp_path / "pkcs11/modules/tests.module").write_text(f"module: {softhsm.module_path}\n")
    (tmp_path / "pkcs11/modules/broken.module").write_text("module: /nonexistent.so\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with SlotManager() as manager:
        assert [module.path for module in manager.modules] == [""]
        assert manager.find_key(keys["rsa"].uri, pins.value(PIN)).label == "rsa"


def test_registered_modules_are_asked_for_what_the_internal_token_lacks(
    softhsm: SoftHSM, new_token: NewToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_token().generate_key("p256", "known only to a registered module")
    (tmp_path / "pkcs11/modules").mkdir(parents=True)
    (tmp_path / "pkcs11/modules/tests.module").write_text(f"module: {softhsm.module_path}\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with SlotManager() as manager:
        assert manager.find_key(f"pkcs11:object={quote(made.label)}", pins.value(PIN)).public_key == made.public_key


def test_critical_registration_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pkcs11/modules").mkdir(parents=True)
    (tmp_path / "pkcs11/modules/broken.module").write_text("module: /nonexistent.so\ncritical: yes\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with SlotManager() as manager, pytest.raises(TokenError, match="nonexistent"):
        manager.load_registered()
