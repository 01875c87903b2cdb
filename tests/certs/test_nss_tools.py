"""NSS's own tools on the cases of `nss_cases`: certutil and vfychain give the verdict and the name that is expected of us.

All cases share one database, where their certificates, trust and CRLs are as the case says.  Where we differ on purpose the
case says what the tools say, and why.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nss_pk11.certs import nss
from nss_pk11.errors import CertificateError, error_number

from .issuing import CA, DAY, NOW
from .nss_cases import CASES
from .nss_world import HOST, Case, Shape, World, verdict

pytestmark = pytest.mark.skipif(shutil.which("certutil") is None, reason="needs libnss3-tools")

TIME = "300601120000Z"  # issuing.NOW
VFYCHAIN_USAGES = {"C": "0", "V": "1", "L": "3"}
# What certutil prints of its message table (NSS SECerrs.h), by the name of the error
MESSAGES = {
    "": "certificate is valid",
    "SEC_ERROR_ALGORITHM_MISMATCH": "The signature algorithm in the signature field of the certificate does not match"
    " the algorithm in its signatureAlgorithm field.",
    "SEC_ERROR_BAD_SIGNATURE": "Peer's certificate has an invalid signature.",
    "SEC_ERROR_CA_CERT_INVALID": "Issuer certificate is invalid.",
    "SEC_ERROR_CERT_NOT_IN_NAME_SPACE": "The Certifying Authority for this certificate"
    " is not permitted to issue a certificate with this name.",
    "SEC_ERROR_CERT_SIGNATURE_ALGORITHM_DISABLED": "The certificate was signed using a signature algorithm"
    " that is disabled because it is not secure.",
    "SEC_ERROR_EXPIRED_CERTIFICATE": "Peer's Certificate has expired.",
    "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE": "The certificate issuer's certificate has expired. Check your system date and time.",
    "SEC_ERROR_INADEQUATE_CERT_TYPE": "Certificate type not approved for application.",
    "SEC_ERROR_INADEQUATE_KEY_USAGE": "Certificate key usage inadequate for attempted operation.",
    "SEC_ERROR_PATH_LEN_CONSTRAINT_INVALID": "Certificate path length constraint is invalid.",
    "SEC_ERROR_REVOKED_CERTIFICATE": "Peer's Certificate has been revoked.",
    "SEC_ERROR_UNKNOWN_CRITICAL_EXTENSION": "Certificate contains unknown critical extension.",
    "SEC_ERROR_UNKNOWN_ISSUER": "Peer's Certificate issuer is not recognized.",
    "SEC_ERROR_UNTRUSTED_CERT": "Peer's certificate has been marked as not trusted by the user.",
    "SEC_ERROR_UNTRUSTED_ISSUER": "Peer's certificate issuer has been marked as not trusted by the user.",
}


def run(*command: str | Path) -> tuple[int, str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


class Database:
    """A directory with everything in it, and the leaf of every case beside it as a file."""

    def __init__(self, directory: Path) -> None:
        self.location = f"sql:{directory}"
        self.files = directory
        assert run("certutil", "-N", "-d", self.location, "--empty-password") == (0, "")

    def fill(self, worlds: list[World]) -> None:
        commands, lists = [], []
        for number, world in enumerate(worlds):
            for place, (made, letters) in enumerate(world.records.certificates):
                path = self.write(f"{number}-{place}.der", made.der)
                commands.append(f"-A -n {number}-{place} -t {letters},, -i {path}")
            self.write(f"{number}-leaf.der", world.chain[0].certificate.public_bytes(Encoding.DER))
            lists += [self.write(f"{number}-{place}.crl", der) for place, der in enumerate(world.records.lists)]
        batch = self.write("batch", "\n".join(commands).encode() + b"\n")
        assert run("certutil", "-B", "-i", batch, "-d", self.location) == (0, "")
        for path in lists:
            code, output = run("crlutil", "-I", "-B", "-i", path, "-d", self.location)
            assert code == 0, output

    def write(self, name: str, data: bytes) -> Path:
        path = self.files / name
        path.write_bytes(data)
        return path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    made = Database(tmp_path_factory.mktemp("nss"))
    made.fill([World(case) for case in CASES])
    return made


def numbered(case: Case) -> int:
    return CASES.index(case)


def certutil(database: Database, number: int, case: Case) -> str:
    """What certutil prints about the leaf of a case, which is the last that the database has of the chain."""
    stored = [shape for shape in (case.root, case.inter, case.leaf) if shape is not None and shape.trust is not None]
    leaf = f"{number}-{len(stored) - 1}"
    _, output = run("certutil", "-V", "-n", leaf, "-u", case.usage, "-e", "-b", TIME, "-d", database.location)
    return output.removeprefix("certutil: ").removeprefix("certificate is invalid: ").strip()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_certutil_says_the_same(database: Database, case: Case) -> None:
    expected = case.expected if case.tools is None else case.tools
    assert certutil(database, numbered(case), case) == MESSAGES[expected]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_vfychain_says_the_same(database: Database, case: Case) -> None:
    expected = case.expected if case.tools is None else case.tools
    leaf = database.files / f"{numbered(case)}-leaf.der"
    usage = VFYCHAIN_USAGES[case.usage]
    code, output = run("vfychain", "-d", database.location, "-b", TIME[:10] + "Z", "-u", usage, leaf)
    assert (code == 0) is (expected == ""), output
    if expected:
        assert error_number(expected) in [int(number) for number in re.findall(r"ERROR (-\d+)", output)], output


# --- mixtures: several things wrong at once show the order of the checks ------------------------------------------------------


def mixtures(count: int, seed: int) -> list[World]:
    """Roots, intermediates and leaves of the cases, thrown together, with trust at random; the same for the same seed."""
    chance = random.Random(seed)
    known = [case for case in CASES if case.tools is None]
    worlds: list[World] = []
    while len(worlds) < count:
        root, between, below, other = (chance.choice(known) for _ in range(4))
        inter = chance.choice([between.inter, Shape((CA,))])
        case = Case(
            f"mixture {len(worlds)}",
            usage=chance.choice("VVCL"),
            root=replace(root.root, trust=chance.choice(["C", "CT", "CT", "T", "", "p", "c"])),
            inter=inter and replace(inter, trust=chance.choice([inter.trust, "", "c", "p", "P", "C"])),
            leaf=replace(chance.choice([below.leaf, Shape((HOST,))]), trust=chance.choice(["", "", "", "P", "p", "c", "C"])),
            revoked=chance.choice([(), other.revoked]),
        )
        with suppress(ValueError, TypeError, IndexError):  # MD5 or PSS by an EC key; a list by nobody in the chain
            worlds.append(World(case))
    return worlds


def test_mixtures(tmp_path: Path) -> None:
    worlds, database = mixtures(100, seed=20300601), Database(tmp_path)
    database.fill(worlds)
    said = [certutil(database, number, world.case) for number, world in enumerate(worlds)]
    assert [MESSAGES[verdict(world)] for world in worlds] == said
    assert len(set(said)) > 8  # the mixture is one


# --- the peer's own intermediates: not in the database -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("sent", inter=Shape((CA,), trust=None)), ""),
        (Case("sent expired", inter=Shape((CA,), trust=None, end=NOW - DAY / 2)), "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE"),
        (Case("sent no CA", inter=Shape(trust=None)), "SEC_ERROR_UNKNOWN_ISSUER"),
        (Case("sent forged", inter=Shape((CA,), trust=None, forged=True)), "SEC_ERROR_BAD_SIGNATURE"),
        (Case("sent with its root", root=Shape((CA,), trust=None), inter=Shape((CA,), trust=None)), "SEC_ERROR_UNTRUSTED_ISSUER"),
    ],
    ids=lambda value: value.id if isinstance(value, Case) else value,
)
def test_intermediates_that_the_peer_sent(tmp_path: Path, case: Case, expected: str) -> None:
    world, database = World(case), Database(tmp_path)
    database.fill([world])
    sent = [database.write(f"{number}.der", made.der) for number, made in enumerate(world.chain)]
    code, output = run("vfychain", "-d", database.location, "-b", TIME[:10] + "Z", "-u", "1", *sent)
    assert (code == 0) is (expected == ""), output
    if expected:
        assert error_number(expected) in [int(number) for number in re.findall(r"ERROR (-\d+)", output)], output
        with pytest.raises(CertificateError) as caught:
            verify_sent(world)
        assert caught.value.name == expected
    else:
        assert verify_sent(world) == [made.der for made in world.chain]


def verify_sent(world: World) -> list[bytes]:
    return nss.verify([made.der for made in world.chain], world.records, nss.Usage.SERVER, now=NOW.timestamp())
