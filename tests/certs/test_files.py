"""Chains from files: order, duplicates, and what is wrong with a file is said with its name."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nss_pk11 import certs
from nss_pk11.errors import CertificateError, ConfigurationError

from .issuing import CA, Made, alternative, make, write


@pytest.fixture(scope="module")
def chain() -> tuple[Made, Made, Made]:
    root = make("root", None, CA)
    middle = make("middle", root, CA)
    return make("leaf", middle, alternative("localhost")), middle, root


def test_any_order_in_the_file_comes_out_leaf_first(tmp_path: Path, chain: tuple[Made, Made, Made]) -> None:
    wanted = tuple(made.der for made in chain)
    for mixed in permutations(chain):
        assert certs.load_pem_chain(write(tmp_path / "chain.pem", *mixed)) == wanted
        assert certs.order(tuple(made.der for made in mixed)) == wanted


def test_duplicates_and_other_blocks_and_text_are_passed_over(tmp_path: Path, chain: tuple[Made, Made, Made]) -> None:
    leaf, middle, _ = chain
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = write(tmp_path / "all.pem", key, b"# the server's own\n", leaf, leaf, b"\r\n", middle, leaf)
    assert certs.load_pem_chain(str(path)) == (leaf.der, middle.der)


def test_an_older_label_means_the_same(tmp_path: Path, chain: tuple[Made, Made, Made]) -> None:
    pem = chain[0].pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE")
    assert certs.load_pem_chain(write(tmp_path / "old.pem", pem)) == (chain[0].der,)


def test_der(tmp_path: Path, chain: tuple[Made, Made, Made]) -> None:
    assert certs.load_pem_chain(write(tmp_path / "leaf.der", chain[0].der)) == (chain[0].der,)


def test_strangers_stay_but_last_and_the_first_leaf_wins(tmp_path: Path, chain: tuple[Made, Made, Made]) -> None:
    leaf, middle, _ = chain
    other = make("other", None, alternative("other"))
    assert certs.load_pem_chain(write(tmp_path / "a.pem", leaf, other, middle)) == (leaf.der, middle.der, other.der)


def test_a_renewed_ca_of_the_same_name_is_told_apart_by_its_signature(tmp_path: Path) -> None:
    old, new = make("CA", None, CA), make("CA", None, CA)
    leaf = make("leaf", new, alternative("localhost"))
    assert certs.load_pem_chain(write(tmp_path / "a.pem", old, leaf, new))[:2] == (leaf.der, new.der)


def test_the_root_is_left_out_on_the_wire_but_never_the_leaf(chain: tuple[Made, Made, Made]) -> None:
    leaf, middle, root = (made.der for made in chain)
    assert certs.without_root((leaf, middle, root)) == (leaf, middle)
    assert certs.without_root((root,)) == (root,)


def test_a_file_that_is_not_there_or_not_to_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pem", tmp_path):
        with pytest.raises(ConfigurationError, match=str(path)):
            certs.load_pem_chain(path)


@pytest.mark.parametrize(
    "damage", ["empty", "text", "key only", "cut in base64", "cut off", "garbage inside", "second cut", "trusted"]
)
def test_broken_files_are_refused_by_name(tmp_path: Path, chain: tuple[Made, Made, Made], damage: str) -> None:
    pem = chain[0].pem
    key = chain[0].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    content = {
        "empty": b"",
        "text": b"hello\n",
        "key only": key,
        "cut in base64": pem[:200] + pem[-26:],
        "cut off": pem[:200],
        "garbage inside": pem.replace(b"A", b"!", 5),
        "second cut": pem + chain[1].pem[:-10],
        "trusted": pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
    }[damage]
    path = write(tmp_path / "broken.pem", content)
    with pytest.raises(CertificateError, match=r"broken\.pem") as caught:
        certs.load_pem_chain(path)
    assert caught.value.name == "SEC_ERROR_BAD_DER"
    with pytest.raises(CertificateError, match=r"broken\.pem"):
        certs.Trust.from_file(path)
