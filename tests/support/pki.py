"""A test PKI in a directory: two roots (RSA and P-256), an intermediate under each, leaves of every key type.

Made with `cryptography`; only keys with the RSASSA-PSS identifier, which it cannot make, come from the openssl command.
Everything is made when first asked for and kept for the run.  A leaf's key may also lie in a token: only its public key is
needed to issue a certificate.
"""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .require import require

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .softhsm import KeyOnToken

P12_PASSWORD = "secret"
DAY = datetime.timedelta(days=1)

_GENERATE: dict[str, Callable[[], Any]] = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),  # this and the next two only old peers have
    "rsa512": lambda: _short_rsa(512),
    "dsa": lambda: dsa.generate_private_key(1024),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "mldsa87": mldsa.MLDSA87PrivateKey.generate,
}


def _short_rsa(bits: int) -> Any:
    """Shorter than `cryptography` makes them."""
    command = [require("openssl"), "genrsa", str(bits)]
    made = subprocess.run(command, check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
    return load_pem_private_key(made.stdout, None)


def _name(common_name: str) -> x509.Name:
    attributes = [(NameOID.ORGANIZATION_NAME, "nss-pk11 tests"), (NameOID.COMMON_NAME, common_name)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate and key."""

    certificate: x509.Certificate
    key: Any

    @classmethod
    def root(cls, name: str, kind: str) -> Authority:
        key = _GENERATE[kind]()
        subject = _name(name)
        return cls(_ca_builder(subject, subject, key.public_key()).sign(key, hashes.SHA256()), key)

    def intermediate(self, name: str, kind: str) -> Authority:
        key = _GENERATE[kind]()
        builder = _ca_builder(_name(name), self.certificate.subject, key.public_key(), path_length=0)
        return Authority(self._sign(builder), key)

    def issue(
        self, common_name: str, public_key: Any, *, names: tuple[str, ...] = (), purpose: str = "server", expired: bool = False
    ) -> x509.Certificate:
        """A leaf for `public_key`; `names` are DNS names and addresses; `purpose` is "server" or "client"."""
        usage = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}[purpose]
        is_rsa = isinstance(public_key, rsa.RSAPublicKey)
        builder = _builder(_name(common_name), self.certificate.subject, public_key, expired)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(digital_signature=True, key_encipherment=is_rsa), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
        return self._sign(builder)

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """With what names our key, which Python's ssl asks for since 3.13 (RFC 5280 section 4.2.1.1)."""
        authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key())  # type: ignore[arg-type]
        return builder.add_extension(authority_id, critical=False).sign(self.key, hashes.SHA256())

    def ocsp_response(self, leaf: x509.Certificate, *, revoked: bool = False) -> bytes:
        """A fresh OCSP response about `leaf`, signed by this CA itself, DER."""
        now = datetime.datetime.now(datetime.UTC)
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=leaf,
            issuer=self.certificate,
            algorithm=hashes.SHA1(),  # only names the certificate (RFC 6960 section 4.1.1)
            cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
            this_update=now - DAY,
            next_update=now + DAY,
            revocation_time=now - DAY if revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: Any, expired: bool = False) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    first, last = (now - 30 * DAY, now - DAY) if expired else (now - DAY, now + 30 * DAY)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(first).not_valid_after(last)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)


def _ca_builder(
    subject: x509.Name, issuer: x509.Name, public_key: Any, path_length: int | None = None
) -> x509.CertificateBuilder:
    builder = _builder(subject, issuer, public_key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    return builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True, digital_signature=True), critical=True)


def _key_usage(**wanted: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    rest = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names + rest})


@dataclass(frozen=True)
class Credential:
    """A certificate with its chain, as files, and the key as a PEM file, or in a token.

    `chain_file`: leaf and intermediate; `issuer_file`: the intermediate alone; `key_file`: unencrypted PKCS#8, for a key
    in a token a file that is not there; `p12_file`: all of it under `P12_PASSWORD`.
    """

    name: str
    kind: str
    certificate: x509.Certificate
    authority: Authority
    directory: Path
    token_key: KeyOnToken | None = None

    @property
    def chain_file(self) -> Path:
        return self.directory / f"{self.name}.pem"

    @property
    def issuer_file(self) -> Path:
        return self.directory / f"{self.name}.issuer.pem"

    @property
    def key_file(self) -> Path:
        return self.directory / f"{self.name}.key"

    @property
    def p12_file(self) -> Path:
        return self.directory / f"{self.name}.p12"

    def write_chain(self) -> None:
        issuer = self.authority.certificate
        self.chain_file.write_bytes(_pem(self.certificate, issuer))
        self.issuer_file.write_bytes(_pem(issuer))

    @property
    def subject(self) -> str:
        """The common name."""
        value = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return str(value)


class PKI:
    """All of it.  `ca_file` holds both roots."""

    def __init__(self, directory: Path, name: str = "Test") -> None:
        self.directory, self._name = directory, name
        directory.mkdir(parents=True, exist_ok=True)
        self.ca_file = directory / "ca.pem"
        self._made: dict[str, Credential] = {}
        self._laid: set[tuple[str, x509.Certificate]] = set()  # issuers on tokens
        self.ca_file.write_bytes(_pem(*(root.certificate for root, _ in self.authorities.values())))

    @cached_property
    def authorities(self) -> dict[str, tuple[Authority, Authority]]:
        """Kind of CA key -> root and the intermediate under it.  An RSA leaf has RSA all the way, so that a peer that
        verifies only RSA, or only ECDSA, can."""
        roots = {kind: Authority.root(f"{self._name} root {kind}", kind) for kind in ("rsa", "p256")}
        return {kind: (root, root.intermediate(f"{self._name} intermediate {kind}", kind)) for kind, root in roots.items()}

    def authority_for(self, kind: str) -> Authority:
        """The intermediate that issues leaves of this kind."""
        return self.authorities["rsa" if kind.startswith("rsa") else "p256"][1]

    def server(self, kind: str, names: tuple[str, ...] = ("localhost", "127.0.0.1"), *, expired: bool = False) -> Credential:
        """A server's certificate; kind: rsa, rsa-pss, p256, p384, p521, ed25519, ed448, mldsa44, mldsa65 or mldsa87."""
        return self._software(kind, names[0], names, "server", expired)

    def client(self, kind: str) -> Credential:
        """A client's certificate, its subject "client KIND"."""
        return self._software(kind, f"client {kind}", (f"client-{kind}.test",), "client", False)

    def for_token(
        self, key: KeyOnToken, *, purpose: str = "server", names: tuple[str, ...] = ("localhost", "127.0.0.1")
    ) -> Credential:
        """A certificate for a key inside a token; it is laid on the token beside the key as well, with
        its issuer."""
        common_name = names[0] if purpose == "server" else f"client {key.kind}"
        authority = self.authority_for(key.kind)
        certificate = authority.issue(common_name, key.public_key, names=names, purpose=purpose)
        credential = Credential(f"token-{key.token.label}-{key.label}", key.kind, certificate, authority, self.directory, key)
        credential.write_chain()
        key.token.import_certificate(certificate, key)
        if (key.token.label, authority.certificate) not in self._laid:
            self._laid.add((key.token.label, authority.certificate))
            key.token.import_issuer(authority.certificate)
        return credential

    def _software(self, kind: str, common_name: str, names: tuple[str, ...], purpose: str, expired: bool) -> Credential:
        name = f"{purpose}-{kind}-{common_name.replace(' ', '-').replace('*', 'any')}{'-expired' if expired else ''}"
        if name not in self._made:
            if kind == "rsa-pss":
                self._made[name] = self._rsa_pss(name, common_name, names, purpose)
            else:
                authority, key = self.authority_for(kind), _GENERATE[kind]()
                leaf = authority.issue(common_name, key.public_key(), names=names, purpose=purpose, expired=expired)
                self._made[name] = self._write(Credential(name, kind, leaf, authority, self.directory), key)
        return self._made[name]

    def _write(self, credential: Credential, key: Any) -> Credential:
        issuer = credential.authority.certificate
        credential.write_chain()
        credential.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        encryption = BestAvailableEncryption(P12_PASSWORD.encode())
        try:
            data = pkcs12.serialize_key_and_certificates(
                credential.name.encode(), key, credential.certificate, [issuer], encryption
            )
        except TypeError:  # key types that cryptography does not put into PKCS#12
            return credential
        credential.p12_file.write_bytes(data)
        return credential

    def _rsa_pss(self, name: str, common_name: str, names: tuple[str, ...], purpose: str) -> Credential:
        """A key whose SubjectPublicKeyInfo says id-RSASSA-PSS (RFC 4055), by the openssl command."""
        openssl, authority = require("openssl"), self.authority_for("rsa")
        key_file, leaf_file = self.directory / f"{name}.key", self.directory / f"{name}.leaf"
        ca_file, ca_key = self.directory / "rsa-issuer.pem", self.directory / "rsa-issuer.key"
        ca_file.write_bytes(_pem(authority.certificate))
        ca_key.write_bytes(authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        kinds = {True: "DNS", False: "IP"}
        alternative = ",".join(f"{kinds[isinstance(_general_name(n), x509.DNSName)]}:{n}" for n in names)
        extensions = [
            f"subjectAltName={alternative}",
            f"extendedKeyUsage={purpose}Auth",
            "keyUsage=critical,digitalSignature",
            "basicConstraints=critical,CA:FALSE",
        ]
        issuer = ["-CA", ca_file, "-CAkey", ca_key, "-sha256", "-sigopt", "rsa_padding_mode:pkcs1", "-days", "30"]
        commands = (
            ["genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key_file],
            ["req", "-x509", "-new", "-key", key_file, "-subj", f"/CN={common_name}", "-out", leaf_file, *issuer]
            + [argument for extension in extensions for argument in ("-addext", extension)],
        )
        for command in commands:
            subprocess.run([openssl, *map(str, command)], check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
        leaf = x509.load_pem_x509_certificate(leaf_file.read_bytes())
        credential = Credential(name, "rsa-pss", leaf, authority, self.directory)
        credential.write_chain()
        load_pem_private_key(key_file.read_bytes(), None)  # readable, or the test would fail far from here
        return credential
