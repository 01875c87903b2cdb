"""Longer paths, in the manner of NIST's PKITS: lengths, self-issued certificates, names below several CAs, keys that change.
certutil is the judge of every one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from .issuing import CA, Made, alternative
from .nss_cases import by, dns, excluded, net, path_length, permitted
from .nss_world import HOST, Case, Records, Shape, World, build, key_of, verdict
from .test_nss_tools import MESSAGES, TIME, Database, run

KEY = x509.SubjectKeyIdentifier


@dataclass(frozen=True)
class Link:
    """One certificate below the last: `subject` and `key` are labels, the same label is the same name or key."""

    subject: str
    extensions: tuple[x509.ExtensionType, ...] = (CA,)
    key: str = ""


def limited(length: int) -> tuple[x509.ExtensionType, ...]:
    return (path_length(length),)


def rolled(*more: x509.ExtensionType, old: str = "old", new: str = "new") -> tuple[x509.ExtensionType, ...]:
    """What certifies a CA's new key by its old one: self-issued, but by key identifiers no root."""
    return (CA, KEY(new.encode()), by(old.encode()), *more)


LEAF = Link("leaf", (HOST,))
UNDER_NEW = Link("leaf", (HOST, by(b"new")))
OLD = KEY(b"old")
TOO_LONG, OUT_OF_SPACE = "SEC_ERROR_PATH_LEN_CONSTRAINT_INVALID", "SEC_ERROR_CERT_NOT_IN_NAME_SPACE"

# what is expected, then the chain from the root down
PATHS: dict[str, tuple[str, list[Link]]] = {
    "four": ("", [Link("root"), Link("a"), Link("b"), LEAF]),
    "as long as may be": ("", [Link("root"), *(Link(f"a{number}") for number in range(19)), LEAF]),
    "longer than may be": ("SEC_ERROR_UNKNOWN_ISSUER", [Link("root"), *(Link(f"a{number}") for number in range(20)), LEAF]),
    "length kept": ("", [Link("root", limited(2)), Link("a", limited(1)), Link("b", limited(0)), LEAF]),
    "length by one too many": (TOO_LONG, [Link("root", limited(1)), Link("a"), Link("b"), LEAF]),
    "length in the middle": (TOO_LONG, [Link("root"), Link("a", limited(0)), Link("b"), LEAF]),
    "length that grows again": (TOO_LONG, [Link("root", limited(1)), Link("a", limited(9)), Link("b"), LEAF]),
    "length and a CA at the end": (TOO_LONG, [Link("root"), Link("a", limited(0)), Link("b"), Link("leaf", (CA, HOST))]),
    "length without a CA between": ("", [Link("root", limited(0)), Link("leaf", (CA, HOST))]),
    "self-issued CA does not count": ("", [Link("root", (path_length(0), OLD)), Link("root", rolled(), "new"), UNDER_NEW]),
    "self-issued CA in the middle": (
        "",
        [Link("root", limited(1)), Link("a", (CA, OLD)), Link("a", rolled(), "new"), UNDER_NEW],
    ),
    "self-issued that looks like a root": (
        "SEC_ERROR_UNTRUSTED_ISSUER",
        [Link("root"), Link("a", (CA, OLD)), Link("a", (CA, KEY(b"new")), "new"), UNDER_NEW],
    ),
    "names kept below two": (
        "",
        [Link("root", (CA, permitted(dns("example")))), Link("a", (CA, permitted(dns("host.example")))), LEAF],
    ),
    "names of the one, not of the other": (
        OUT_OF_SPACE,
        [Link("root", (CA, permitted(dns("example")))), Link("a", (CA, permitted(dns("test")))), LEAF],
    ),
    "names permitted above, excluded below": (
        OUT_OF_SPACE,
        [Link("root", (CA, permitted(dns("example")))), Link("a", (CA, excluded(dns("host.example")))), LEAF],
    ),
    "names excluded far above": (OUT_OF_SPACE, [Link("root", (CA, excluded(dns("example")))), Link("a"), Link("b"), LEAF]),
    "a CA's own name": (
        OUT_OF_SPACE,
        [Link("root", (CA, permitted(dns("example")))), Link("a", (CA, alternative("ca.test"))), LEAF],
    ),
    "a self-issued CA's own name": (
        "",
        [
            Link("root"),
            Link("a", (CA, OLD, permitted(dns("example")))),
            Link("a", rolled(alternative("ca.test")), "new"),
            UNDER_NEW,
        ],
    ),
    "one name of two": (
        OUT_OF_SPACE,
        [Link("root"), Link("a", (CA, permitted(dns("example")))), Link("leaf", (alternative("host.example", "host.test"),))],
    ),
    "name and address": (
        "",
        [
            Link("root"),
            Link("a", (CA, permitted(dns("example"), net("192.0.2.0/24")))),
            Link("leaf", (alternative("host.example", "192.0.2.7"),)),
        ],
    ),
    "wildcard in its space": (
        "",
        [Link("root"), Link("a", (CA, permitted(dns("example")))), Link("leaf", (alternative("*.host.example"),))],
    ),
}


def world(title: str) -> World:
    """The chain of `PATHS[title]`, in a database whose root is trusted."""
    expected, links = PATHS[title]
    chain: list[Made] = []
    for link in links:
        shape = Shape(link.extensions)
        made = build(f"{link.subject} of {title}", shape, chain[0] if chain else None, key_of("p256", link.key or link.subject))
        chain.insert(0, made)
    records = Records()
    records.certificates = [(made, "C" if made is chain[-1] else "") for made in reversed(chain)]
    made_world = World(Case(title, expected))
    made_world.chain, made_world.records = chain, records
    return made_world


@pytest.mark.parametrize("title", PATHS)
def test_path(title: str) -> None:
    assert verdict(world(title)) == PATHS[title][0]


@pytest.mark.skipif(shutil.which("certutil") is None, reason="needs libnss3-tools")
def test_certutil_says_the_same(tmp_path: Path) -> None:
    worlds, database = [world(title) for title in PATHS], Database(tmp_path)
    database.fill(worlds)
    said = {}
    for number, one in enumerate(worlds):
        leaf = f"{number}-{len(one.chain) - 1}"
        _, output = run("certutil", "-V", "-n", leaf, "-u", "V", "-e", "-b", TIME, "-d", database.location)
        said[one.case.id] = output.removeprefix("certutil: ").removeprefix("certificate is invalid: ").strip()
    assert said == {one.case.id: MESSAGES[one.case.expected] for one in worlds}
