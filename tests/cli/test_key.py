"""`nss-pk11 key`: generated inside the token, listed, deleted; and keys in files."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nss_pk11.cli.key import KEY_TYPES
from tests.support.softhsm import PIN

from .conftest import Command

KINDS = {
    "rsa2048": ("rsa", 2048),
    "rsa3072": ("rsa", 3072),
    "rsa4096": ("rsa", 4096),
    "dsa1024": ("dsa", 1024),
    "dsa2048": ("dsa", 2048),
    "p256": ("ec", 256),
    "p384": ("ec", 384),
    "p521": ("ec", 521),
    "ed25519": ("ed25519", 256),
}


def listed(command: Command) -> list[dict[str, object]]:
    records = command.json("key", "list", "--token", "web", "--pin", "env:PIN")
    assert isinstance(records, list)
    return records


def test_every_type_has_a_row() -> None:
    assert set(KINDS) == set(KEY_TYPES)


@pytest.mark.parametrize("kind", [kind for kind in KEY_TYPES if kind not in ("rsa3072", "rsa4096")])
def test_a_key_is_generated_inside_and_stays_there(web: Command, key: Callable[..., str], kind: str) -> None:
    uri = key(kind)
    assert uri.startswith("pkcs11:")
    (record,) = listed(web)
    assert (record["type"], record["bits"]) == KINDS[kind]
    assert record["uri"] == uri
    assert record["label"] == "www"
    assert record["sensitive"]
    assert not record["extractable"]
    assert record["generated_inside"]


def test_a_size_beside_the_type(web: Command, command: Command, tmp_path: Path) -> None:
    generate = ("key", "generate", "--token", "web", "--pin", "env:PIN", "--label", "www")
    assert web.json(*generate, "--type", "dsa", "--bits", "1024")["bits"] == 1024
    command("key", "generate", "--type", "dsa", "--out", str(tmp_path / "dsa.pem"))
    made = load_pem_private_key((tmp_path / "dsa.pem").read_bytes(), None)
    assert made.key_size == 2048  # type: ignore[union-attr]
    assert "dsa1024" in web.fails(2, *generate, "--type", "dsa", "--bits", "512")
    assert "has its size" in web.fails(2, *generate, "--type", "p256", "--bits", "256")


def test_id(web: Command) -> None:
    generate = ("key", "generate", "--token", "web", "--pin", "env:PIN")
    assert web.json(*generate, "--label", "one", "--id", "0a:0b0C")["id"] == "0a0b0c"
    assert len(web.json(*generate, "--label", "two")["id"]) == 40
    assert "hex digits" in web.fails(2, *generate, "--label", "three", "--id", "xyz")


def test_token_by_uri(web: Command) -> None:
    uri = f"pkcs11:token=web?module-path={web.hsm.module_path}&pin-value={PIN}"
    web.environment["NSS_PK11_MODULE"] = ""
    record = web.json("key", "generate", "--token", uri, "--label", "www")
    assert record["token"] == "web"


def test_unknown_token_lists_those_present(web: Command) -> None:
    text = web.fails(4, "key", "generate", "--token", "wep", "--label", "www", "--pin", "env:PIN")
    assert "no token fits pkcs11:token=wep; present: 'web'" in text


def test_the_pin_in_a_uri_is_not_repeated(web: Command) -> None:
    assert PIN not in web.fails(4, "key", "list", "--token", f"pkcs11:token=wep?pin-value={PIN}")
    for name in ("token=wep", "token=web;object=no", "token=web;x=y"):
        uri = f"pkcs11:{name}?pin-value={PIN}"
        assert PIN not in web.fails(4, "key", "delete", uri, "--yes")
        assert PIN not in web.fails(4, "cert", "delete", uri, "--yes")


def test_two_tokens_of_one_name_are_both_listed(web: Command) -> None:
    web("token", "init", "--label", "web", "--so-pin", "env:SO_PIN", "--pin", "env:PIN")
    text = web.fails(4, "key", "list", "--token", "web")
    assert text.count("'web' serial ") == 2


def test_list_as_text(web: Command, key: Callable[..., str]) -> None:
    uri = key()
    done = web("key", "list", "--token", "web", "--pin", "env:PIN")
    assert "www · EC 256 bits · sensitive · not extractable · generated inside" in done.stdout
    assert uri in done.stdout.split()
    assert "private keys may be hidden" in web("key", "list").stderr


def test_delete(web: Command, key: Callable[..., str]) -> None:
    uri, other = key(label="www"), key(label="other")
    delete = ("key", "delete", uri, "--pin", "env:PIN")
    assert "give --yes" in web.fails(2, *delete)
    web(*delete, stdin="n\n", status=1)
    assert len(listed(web)) == 2
    web(*delete, "--yes")
    assert [record["uri"] for record in listed(web)] == [other]
    assert "SEC_ERROR" in web.fails(4, *delete, "--yes")


def test_a_uri_that_fits_two_keys_lists_both(web: Command, key: Callable[..., str]) -> None:
    uris = key(label="same"), key(label="same")
    text = web.fails(4, "key", "delete", "pkcs11:token=web;object=same", "--pin", "env:PIN", "--yes")
    assert all(uri in text for uri in uris)
    assert len(listed(web)) == 2


@pytest.mark.parametrize("kind", ["p384", "ed25519", "rsa2048", "dsa1024"])
def test_key_in_a_file(command: Command, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key.pem"
    generate = ("key", "generate", "--type", kind, "--out", str(path))
    command(*generate)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert load_pem_private_key(before, None)
    assert "exists" in command.fails(3, *generate)
    assert path.read_bytes() == before


def test_bad_usage(command: Command) -> None:
    assert "one of --token and --out" in command.fails(2, "key", "generate", "--label", "www")
    assert "needs a --label" in command.fails(2, "key", "generate", "--token", "web")
    assert "pkcs11: URI" in command.fails(2, "key", "delete", "key.pem", "--yes")
