"""SoftHSM tokens in a temporary directory, one for each of the benchmark's keys, which are generated inside, and a certificate
for each.

Touches: the given directory only; the tokens are found by SOFTHSM2_CONF in `environment`.  One token per key, because
libp11 (the openssl engine) gives up on a token that holds a key type it does not know.
"""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PIN = "1234"  # of tokens that live as long as one run

# label -> (title, pkcs11-tool's key type, the same key in software)
KEYS: dict[str, tuple[str, str, Callable[[], PrivateKey]]] = {
    "ec": ("ECDSA P-256", "EC:prime256v1", lambda: ec.generate_private_key(ec.SECP256R1())),
    "rsa": ("RSA-2048", "rsa:2048", lambda: rsa.generate_private_key(65537, 2048)),
    "ed25519": ("Ed25519", "EC:edwards25519", ed25519.Ed25519PrivateKey.generate),
}
SERVED = ("ec", "rsa")  # those that get a certificate


@dataclass(frozen=True)
class Tokens:
    """Where everything lies.  `environment` is for every process that is to see the tokens."""

    directory: Path
    environment: dict[str, str]
    module: Path = MODULE

    def uri(self, label: str, *, module: bool = False) -> str:
        """The key's RFC 7512 URI with its PIN; `module`: with the path of its PKCS #11 library too."""
        query = f"pin-value={PIN}" + (f"&module-path={self.module}" if module else "")
        return f"pkcs11:token=bench-{label};object={label};type=private?{query}"

    def certificate(self, label: str) -> Path:
        return self.directory / f"{label}.crt"

    def software_certificate(self, label: str) -> Path:
        return self.directory / f"{label}-software.crt"

    def software_key(self, label: str) -> Path:
        return self.directory / f"{label}-software.key"


def create(directory: Path) -> Tokens:
    """Initialises the tokens, generates the keys and issues the certificates.  Raises CalledProcessError."""
    store = directory / "softhsm"
    store.mkdir()
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {store}\nobjectstore.backend = file\nlog.level = ERROR\n")
    tokens = Tokens(directory, {**os.environ, "SOFTHSM2_CONF": str(configuration), "PKCS11_MODULE_PATH": str(MODULE)})
    for label, (_, kind, software) in KEYS.items():
        _run(tokens, "softhsm2-util", "--init-token", "--free", "--label", f"bench-{label}", "--pin", PIN, "--so-pin", PIN)
        _tool(tokens, label, "--login", "--pin", PIN, "--keypairgen", "--key-type", kind, "--label", label, "--id", "01")
        key = software()
        tokens.software_key(label).write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        if label in SERVED:
            _issue(tokens.certificate(label), _public_key(tokens, label))
            _issue(tokens.software_certificate(label), key.public_key())
    return tokens


def _run(tokens: Tokens, *command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, env=tokens.environment, timeout=60).stdout


def _tool(tokens: Tokens, label: str, *arguments: str) -> bytes:
    return _run(tokens, "pkcs11-tool", "--module", str(MODULE), "--token-label", f"bench-{label}", *arguments)


def _public_key(tokens: Tokens, label: str) -> CertificatePublicKeyTypes:
    encoded = _tool(tokens, label, "--read-object", "--type", "pubkey", "--label", label)
    return cast(CertificatePublicKeyTypes, serialization.load_der_public_key(encoded))


_issuer = ec.generate_private_key(ec.SECP256R1())


def _issue(path: Path, public_key: CertificatePublicKeyTypes) -> None:
    """A certificate for localhost, signed by a throw-away authority: only the key behind it matters here."""
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Benchmark authority")]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(_issuer, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
