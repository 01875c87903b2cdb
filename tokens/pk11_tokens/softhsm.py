"""SoftHSM tokens for tests: real tokens in a directory of their own, reached through the real C ABI.

Keys are made *inside* the token by OpenSC's pkcs11-tool, or put there by softhsm2-util, so that what the tests stand on does not
depend on the code under test.  SoftHSM reads SOFTHSM2_CONF when a process initialises it: every process that is to see the tokens
needs `SoftHSM.environment`.  Knows nothing of simulated tokens; runs softhsm2-util, pkcs11-tool and, for Ed448, python-pkcs11.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_public_key

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes

PIN = "1234"
SO_PIN = "87654321"

_LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)

# Kind of key -> pkcs11-tool's --key-type.  Ed448, which pkcs11-tool 0.23 does not know, is made by _GENERATE_ED448.
_KEY_TYPES = {
    "rsa": "rsa:2048",
    "rsa3072": "rsa:3072",
    "rsa4096": "rsa:4096",
    "p256": "EC:prime256v1",
    "p384": "EC:secp384r1",
    "p521": "EC:secp521r1",
    "ed25519": "EC:edwards25519",
}
_CURVES: dict[str, ec.EllipticCurve] = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}

_GENERATE_ED448 = """
import sys, pkcs11
from pkcs11 import Attribute, KeyType, Mechanism
module, token, pin, label, id = sys.argv[1:]
with pkcs11.lib(module).get_token(token_label=token).open(rw=True, user_pin=pin) as session:
    parameters = session.create_domain_parameters(
        KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: bytes.fromhex("06032b6571")}, local=True)
    public, _ = parameters.generate_keypair(
        mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, id=bytes.fromhex(id), label=label, store=True)
    print("EC_POINT: " + public[Attribute.EC_POINT].hex())
"""


class NotInstalled(RuntimeError):
    """SoftHSM or a tool that it needs is not installed; `what` is its name."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not installed")
        self.what = what


def find_module() -> str:
    """The path of SoftHSM's library.  Raises NotInstalled."""
    for path in _LIBRARIES:
        if Path(path).exists():
            return path
    raise NotInstalled("softhsm2")


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotInstalled(name)
    return path


@dataclass(frozen=True)
class KeyOnToken:
    """A key pair inside a SoftHSM token."""

    token: TokenOnDisk
    kind: str
    label: str
    id: bytes
    public_key: CertificatePublicKeyTypes

    @property
    def uri(self) -> str:
        """RFC 7512 URI of the private key, without module or PIN."""
        return f"pkcs11:token={quote(self.token.label)};object={quote(self.label)};type=private"

    @property
    def uri_with_pin(self) -> str:
        """The same, whole: module and PIN included, good in a process that knows neither."""
        return f"{self.uri}?module-path={quote(self.token.hsm.module_path)}&pin-value={self.token.pin}"


@dataclass(frozen=True)
class TokenOnDisk:
    """An initialised SoftHSM token."""

    hsm: SoftHSM
    label: str
    pin: str
    so_pin: str

    def generate_key(self, kind: str, label: str | None = None, key_id: bytes | None = None) -> KeyOnToken:
        """Make a key pair inside the token: kind is rsa, rsa3072, rsa4096, p256, p384, p521, ed25519 or ed448."""
        label = label or kind
        key_id = key_id or label.encode().hex().encode()[:8]
        if kind == "ed448":
            output = self.hsm.run(
                sys.executable, "-c", _GENERATE_ED448, self.hsm.module_path, self.label, self.pin, label, key_id.hex()
            )
        else:
            output = self._tool("--keypairgen", "--key-type", _KEY_TYPES[kind], "--label", label, "--id", key_id.hex())
        return KeyOnToken(self, kind, label, key_id, self._public_key(kind, key_id, output))

    def import_key(self, private_key: CertificateIssuerPrivateKeyTypes, label: str, key_id: bytes | None = None) -> KeyOnToken:
        """Put a key pair into the token that was made outside, of whatever kind: DSA, RSA of 512 bits."""
        key_id = key_id or label.encode().hex().encode()[:8]
        file = self.hsm.directory / f"{key_id.hex()}.key"
        file.write_bytes(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        where = ("--token", self.label, "--pin", self.pin, "--label", label, "--id", key_id.hex())
        try:
            self.hsm.run(_tool("softhsm2-util"), "--import", str(file), *where)
        finally:
            file.unlink()
        return KeyOnToken(self, label, label, key_id, private_key.public_key())

    def _public_key(self, kind: str, key_id: bytes, output: str) -> CertificatePublicKeyTypes:
        """pkcs11-tool exports RSA keys, but EC ones only as the CKA_EC_POINT that it prints (an OCTET STRING in DER)."""
        if kind.startswith("rsa"):
            file = self.hsm.directory / f"{key_id.hex()}.spki"
            self._tool("--read-object", "--type", "pubkey", "--id", key_id.hex(), "--output-file", str(file))
            key = load_der_public_key(file.read_bytes())
            return key  # type: ignore[return-value]
        match = re.search(r"EC_POINT:\s*([0-9a-f]+)\s*$", output, re.MULTILINE)
        assert match, output
        point = bytes.fromhex(match[1])
        if kind == "ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(point[-32:])
        if kind == "ed448":
            return ed448.Ed448PublicKey.from_public_bytes(point[-57:])
        curve = _CURVES[kind]
        size = 1 + 2 * ((curve.key_size + 7) // 8)  # uncompressed: 04, x, y
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point[-size:])

    def import_certificate(self, certificate: x509.Certificate, key: KeyOnToken) -> None:
        """Lay a certificate beside its key: same CKA_ID, same label."""
        self._write(certificate, key.id, key.label)

    def import_issuer(self, certificate: x509.Certificate) -> None:
        """Lay a CA's certificate on the token, so that a chain can be built from what is there."""
        self._write(certificate, certificate.fingerprint(SHA256())[:8], "issuer")

    def _write(self, certificate: x509.Certificate, object_id: bytes, label: str) -> None:
        file = self.hsm.directory / f"{object_id.hex()}.der"
        file.write_bytes(certificate.public_bytes(Encoding.DER))
        self._tool("--write-object", str(file), "--type", "cert", "--id", object_id.hex(), "--label", label)

    def _tool(self, *arguments: str) -> str:
        where = ("--module", self.hsm.module_path, "--token-label", self.label, "--login", "--pin", self.pin)
        return self.hsm.run(_tool("pkcs11-tool"), *where, *arguments)


class SoftHSM:
    """A SoftHSM of its own: configuration and tokens in `directory`.  Raises NotInstalled."""

    def __init__(self, directory: Path) -> None:
        for tool in ("softhsm2-util", "pkcs11-tool"):
            _tool(tool)
        self.directory = directory
        self.module_path = find_module()
        tokens = directory / "tokens"
        tokens.mkdir(parents=True, exist_ok=True)
        self.config = directory / "softhsm2.conf"
        self.config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to see these tokens: the present environment, with SOFTHSM2_CONF."""
        return {**os.environ, "SOFTHSM2_CONF": str(self.config)}

    def create_token(self, label: str = "test", pin: str = PIN, so_pin: str = SO_PIN) -> TokenOnDisk:
        self.run(_tool("softhsm2-util"), "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", so_pin)
        return TokenOnDisk(self, label, pin, so_pin)

    def run(self, *command: str) -> str:
        """Run a command on these tokens; its output.  Raises AssertionError where it fails."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
        return done.stdout
