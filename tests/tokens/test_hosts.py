"""Other people's hosts list a simulated token and sign with its key: OpenSC, GnuTLS, NSS, OpenSSL."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pk11_tokens import PIN, RunningSimulator

from ..support.peers.base import HOST, Process, accepts, free_port
from ..support.require import missing, require
from .conftest import Start

DATA = b"what is signed"
KINDS = ("p256", "rsa2048")


@pytest.fixture
def simulator(simulated_tokens: Start) -> RunningSimulator:
    """A card, a little like a real one, with an EC and an RSA key and their certificates."""
    keys = [{"label": kind, "kind": kind, "self_signed": ["localhost"]} for kind in KINDS]
    return simulated_tokens([{"label": "card", "personality": "smart card", "max_sessions": 0, "key": keys}])


def run(*command: str | Path, **environment: str) -> str:
    """What a tool says; both of its streams."""
    done = subprocess.run(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


def check(simulator: RunningSimulator, label: str, signature: bytes) -> None:
    """Raises InvalidSignature for what is no SHA-256 signature on DATA by this key."""
    key = load_der_public_key(simulator["card"].public_key_der(label))
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, DATA, padding.PKCS1v15(), SHA256())
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature, DATA, ec.ECDSA(SHA256()))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


# --- OpenSC ------------------------------------------------------------------------------------------------------------


def opensc(simulator: RunningSimulator, *arguments: str | Path) -> str:
    return run(require("pkcs11-tool"), "--module", simulator.module, *arguments)


def test_opensc_lists_slots_and_objects(simulator: RunningSimulator) -> None:
    slots = opensc(simulator, "--list-slots")
    assert re.search(r"token label\s*: card$", slots, re.MULTILINE)
    assert re.search(r"token model\s*: PIV card$", slots, re.MULTILINE)
    objects = opensc(simulator, "--list-objects", "--login", "--pin", PIN)
    assert "Private Key Object; EC" in objects
    assert "Private Key Object; RSA" in objects
    assert objects.count("Certificate Object; type = X.509 cert") == 2


@pytest.mark.parametrize(("kind", "id", "mechanism"), [("p256", "01", "ECDSA"), ("rsa2048", "02", "SHA256-RSA-PKCS")])
def test_opensc_signs(simulator: RunningSimulator, data: Path, tmp_path: Path, kind: str, id: str, mechanism: str) -> None:
    signature = tmp_path / "signature"
    if mechanism == "ECDSA":
        data.write_bytes(sha256(DATA).digest())  # bare: the host hashes
    how = ("--sign", "-m", mechanism, "--signature-format", "openssl", "-i", data, "-o", signature)
    opensc(simulator, "--login", "--pin", PIN, "--id", id, *how)
    check(simulator, kind, signature.read_bytes())


# --- GnuTLS ------------------------------------------------------------------------------------------------------------


def test_gnutls_lists_token_and_objects(simulator: RunningSimulator) -> None:
    p11tool = require("p11tool")
    assert "token=card" in run(p11tool, "--provider", simulator.module, "--list-tokens")
    objects = run(p11tool, "--provider", simulator.module, "--login", "--list-all", "pkcs11:token=card", GNUTLS_PIN=PIN)
    assert "Private key (EC/ECDSA-SECP256R1)" in objects
    assert "Private key (RSA-2048)" in objects


def test_gnutls_signs(simulator: RunningSimulator) -> None:
    """`--test-sign` signs, and verifies with the public key on the token."""
    uri = "pkcs11:token=card;object=p256;type=private"
    output = run(require("p11tool"), "--provider", simulator.module, "--login", "--test-sign", uri, GNUTLS_PIN=PIN)
    assert re.search(r"Verifying against public key in the token\.\.\. ok", output), output


# --- NSS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path, simulator: RunningSimulator) -> str:
    """An NSS database with the module in it."""
    directory = f"sql:{tmp_path}"
    run(require("certutil"), "-N", "-d", directory, "--empty-password")
    run(require("modutil"), "-dbdir", directory, "-add", "simulated", "-libfile", simulator.module, "-force")
    return directory


def test_nss_lists_the_module_and_the_token(simulator: RunningSimulator, database: str) -> None:
    listing = run(require("modutil"), "-dbdir", database, "-list")
    assert f"library name: {simulator.module}" in listing
    assert "token: card" in listing
    assert "Login Type: Login required" in run(require("modutil"), "-dbdir", database, "-list", "simulated")


def test_nss_finds_the_keys_and_signs(simulator: RunningSimulator, database: str, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(f"card:{PIN}\n")
    certutil = (require("certutil"), "-d", database, "-h", "card", "-f", password)
    keys = run(*certutil, "-K")
    assert re.search(r"^<\s*\d+>\s+ec\s", keys, re.MULTILINE), keys
    assert re.search(r"^<\s*\d+>\s+rsa\s", keys, re.MULTILINE), keys
    ids = re.findall(r"^<\s*\d+>\s+ec\s+(\w+)", keys, re.MULTILINE)
    request = tmp_path / "request"
    run(*certutil, "-R", "-k", ids[0], "-s", "CN=localhost", "-a", "-o", request)
    assert x509.load_pem_x509_csr(request.read_bytes().split(b"\n\n")[-1]).is_signature_valid


# --- OpenSSL's engine --------------------------------------------------------------------------------------------------


@pytest.fixture
def openssl() -> str:
    path = require("openssl")
    if not any(Path("/usr/lib").glob("*/engines-*/pkcs11.so")):
        missing("libengine-pkcs11-openssl")
    return path


def key_uri(label: str) -> str:
    return f"pkcs11:token=card;object={label};type=private;pin-value={PIN}"


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_signs(simulator: RunningSimulator, openssl: str, data: Path, tmp_path: Path, kind: str) -> None:
    signature = tmp_path / "signature"
    engine = ("-engine", "pkcs11", "-keyform", "engine")
    run(openssl, "dgst", "-sha256", *engine, "-sign", key_uri(kind), "-out", signature, data, PKCS11_MODULE_PATH=simulator.module)
    check(simulator, kind, signature.read_bytes())


@pytest.fixture
def s_server(simulator: RunningSimulator, openssl: str, tmp_path: Path) -> Iterator[int]:
    """The port of `openssl s_server` with the card's P-256 key."""
    certificate = tmp_path / "certificate.pem"
    certificate.write_text(ssl.DER_cert_to_PEM_cert(simulator["card"].certificate_der("p256")))
    port = free_port()
    key = ("-engine", "pkcs11", "-keyform", "engine", "-key", key_uri("p256"))
    server = Process(
        [openssl, "s_server", "-accept", f"{HOST}:{port}", *key, "-cert", certificate, "-www"],
        environment=os.environ | {"PKCS11_MODULE_PATH": simulator.module},
    )
    try:
        server.wait_for("^ACCEPT$")
        assert accepts(port)
        yield port
    finally:
        server.stop()


def test_openssl_serves(simulator: RunningSimulator, s_server: int) -> None:
    """A TLS 1.3 handshake with Python's client, signed by the card."""
    der = simulator["card"].certificate_der("p256")
    context = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(der))
    with context.wrap_socket(socket.create_connection((HOST, s_server), timeout=10), server_hostname="localhost") as client:
        assert client.getpeercert(binary_form=True) == der
        assert client.version() == "TLSv1.3"
    assert simulator["card"].status().calls["C_Sign"] > 0
