"""Chains wrong in one respect each, for verification as NSS does it: made from shapes, so that a case is one line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

import asn1crypto.algos
import asn1crypto.core
import asn1crypto.x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding
from cryptography.hazmat.primitives.serialization import Encoding

from nss_pk11.certs import nss
from nss_pk11.certs.nss import Usage
from nss_pk11.errors import CertificateError

from .issuing import CA, DAY, KINDS, NOW, SELF_HASHING, Made, alternative, name

HOST = alternative("host.example")
USAGES = {"V": Usage.SERVER, "C": Usage.CLIENT, "L": Usage.CA}  # certutil's letters
MORE_KINDS = {
    "dsa1024": lambda: dsa.generate_private_key(1024),
    "b256": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
}
OLD_DIGESTS: dict[str, hashes.HashAlgorithm] = {"sha1": hashes.SHA1(), "md5": hashes.MD5()}


class Records:
    """The trust store of the tests: what would be in a database, kept in a list."""

    def __init__(self) -> None:
        self.certificates: list[tuple[Made, str]] = []
        self.lists: list[bytes] = []

    def find_by_subject(self, subject: bytes) -> Iterable[bytes]:
        return [made.der for made, _ in self.certificates if made.certificate.subject.public_bytes() == subject]

    def trust(self, der: bytes) -> str:
        return next((letters for made, letters in self.certificates if made.der == der), "")

    def crls(self, issuer: bytes) -> Iterable[bytes]:
        return [der for der in self.lists if x509.load_der_x509_crl(der).issuer.public_bytes() == issuer]


@dataclass(frozen=True)
class Shape:
    """How one certificate is made.  `digest`: also "sha1", "md5", "pss"; `trust`: its letters, None: not in the database;
    `forged`: signed by a key that is not its issuer's; `damaged`: a bit of the signature turned; `contradictory`: the algorithm
    around it is not the one within; `subject`: its common name, else one that tells its place and case."""

    extensions: tuple[x509.ExtensionType, ...] = ()
    critical: tuple[type[x509.ExtensionType], ...] = (x509.BasicConstraints,)
    kind: str = "p256"
    digest: str = "sha256"
    start: datetime = NOW - DAY
    end: datetime = NOW + 30 * DAY
    version1: bool = False
    forged: bool = False
    damaged: bool = False
    contradictory: bool = False
    trust: str | None = ""
    subject: str = ""


@dataclass(frozen=True)
class Revocation:
    """A CRL of the certificate at `issuer` in the chain, which names the one before."""

    issuer: int = 1
    at: datetime = NOW - DAY
    start: datetime = NOW - DAY
    end: datetime = NOW + DAY
    forged: bool = False
    critical: x509.ExtensionType | None = None


@dataclass(frozen=True)
class Case:
    """`expected`: the NSS name, "" for good; `tools`: what NSS's tools say where that is kept different, with the reason in
    `why`; `revoked`: CRLs; `strangers`: further certificates of the intermediate's name, issued by the root."""

    id: str
    expected: str = ""
    usage: str = "V"
    root: Shape = Shape((CA,), trust="C")
    inter: Shape | None = Shape((CA,))
    leaf: Shape = Shape((HOST,))
    revoked: tuple[Revocation, ...] = ()
    strangers: tuple[Shape, ...] = ()
    tools: str | None = None
    why: str = ""


@dataclass
class World:
    """A case made real."""

    case: Case
    records: Records = field(default_factory=Records)
    chain: list[Made] = field(default_factory=list)

    def __post_init__(self) -> None:
        case = self.case
        root = self.add(self.issue("root", case.root, None), case.root)
        issuer = self.add(self.issue("inter", case.inter, root), case.inter) if case.inter else root
        leaf = self.add(self.issue("leaf", case.leaf, issuer), case.leaf)
        self.chain = [leaf, issuer, root] if case.inter else [leaf, root]
        for number, shape in enumerate(case.strangers):
            self.add(self.issue("inter", shape, root, f"stranger{number}"), shape)
        self.records.lists += [self.revoke(one) for one in case.revoked]

    def add(self, made: Made, shape: Shape) -> Made:
        if shape.trust is not None:
            self.records.certificates.append((made, shape.trust))
        return made

    def issue(self, role: str, shape: Shape, issuer: Made | None, key: str = "") -> Made:
        subject = shape.subject or f"{role} of {self.case.id}"
        signer = Made(issuer.certificate, key_of(issuer.kind, "forger"), issuer.kind) if issuer and shape.forged else issuer
        made = build(subject, shape, signer, key_of(shape.kind, key or role))
        if shape.version1 or shape.digest in OLD_DIGESTS:
            made = resign(made, signer or made, shape)
        made = contradict(made) if shape.contradictory else made
        return damage(made) if shape.damaged else made

    def revoke(self, what: Revocation) -> bytes:
        issuer, victim = self.chain[what.issuer], self.chain[what.issuer - 1]
        entry = x509.RevokedCertificateBuilder().serial_number(victim.certificate.serial_number).revocation_date(what.at)
        builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
        builder = builder.last_update(what.start).next_update(what.end).add_revoked_certificate(entry.build())
        if what.critical is not None:
            builder = builder.add_extension(what.critical, critical=True)
        key = key_of(issuer.kind, "forger") if what.forged else issuer.key
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@cache
def key_of(kind: str, role: str) -> Any:
    return {**KINDS, **MORE_KINDS}[kind]()


def build(subject: str, shape: Shape, issuer: Made | None, key: Any) -> Made:
    signer, issuer_name = (issuer.key, issuer.certificate.subject) if issuer else (key, name(subject))
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(issuer_name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(shape.start).not_valid_after(shape.end)
    for extension in shape.extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, shape.critical))
    digest = None if (issuer.kind if issuer else shape.kind) in SELF_HASHING else hashes.SHA256()
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if shape.digest == "pss" else None
    return Made(builder.sign(signer, digest, rsa_padding=pss), key, shape.kind)


def resign(made: Made, signer: Made, shape: Shape) -> Made:
    """The same certificate with what the library no longer makes: an old digest, an old version."""
    certificate = asn1crypto.x509.Certificate.load(made.der)
    tbs = certificate["tbs_certificate"]
    digest = shape.digest if shape.digest in OLD_DIGESTS else "sha256"
    family = "dsa" if signer.kind.startswith("dsa") else "rsa" if signer.kind.startswith("rsa") else "ecdsa"
    algorithm = asn1crypto.algos.SignedDigestAlgorithm({"algorithm": f"{digest}_{family}"})
    if family == "rsa":
        algorithm["parameters"] = asn1crypto.core.Null()
    tbs["signature"] = certificate["signature_algorithm"] = algorithm
    if shape.version1:
        del tbs["extensions"]
        tbs["version"] = "v1"
    data, chosen = tbs.dump(force=True), OLD_DIGESTS.get(shape.digest, hashes.SHA256())
    arguments = {"rsa": (padding.PKCS1v15(), chosen), "ecdsa": (ec.ECDSA(chosen),), "dsa": (chosen,)}[family]
    certificate["signature_value"] = asn1crypto.core.OctetBitString(signer.key.sign(data, *arguments))
    return Made(x509.load_der_x509_certificate(certificate.dump(force=True)), made.key, made.kind)


def contradict(made: Made) -> Made:
    """Another signature algorithm outside of what is signed than inside of it."""
    certificate = asn1crypto.x509.Certificate.load(made.der)
    certificate["signature_algorithm"] = asn1crypto.algos.SignedDigestAlgorithm({"algorithm": "sha384_ecdsa"})
    return Made(x509.load_der_x509_certificate(certificate.dump(force=True)), made.key, made.kind)


def damage(made: Made) -> Made:
    """A bit turned in the middle of the signature, which stays well formed."""
    der = bytearray(made.der)
    der[-8] ^= 1
    return Made(x509.load_der_x509_certificate(bytes(der)), made.key, made.kind)


def verdict(world: World) -> str:
    """The name of what is wrong, "" for good."""
    try:
        nss.verify([world.chain[0].der], world.records, USAGES[world.case.usage], now=NOW.timestamp())
    except CertificateError as error:
        return error.name
    return ""
