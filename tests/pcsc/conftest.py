"""A reader of its own for each test, with its own pcscd, and a PIV card with the keys that are named.

libpcsclite takes the address of pcscd from the environment once in a process, so whatever uses the card is a process of its
own, started with `Reader.environment`.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pk11_tokens.pcsc import PivCard, PivKey, Reader
from pk11_tokens.pcsc.card import AUTHENTICATION, SIGNATURE
from pk11_tokens.pcsc.reader import find_daemon, find_driver

from ..support.peers.base import HOST, TIMEOUT, Process
from ..support.require import missing, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIN = "123456"
HOLDER = "Erika Mustermann"  # OpenSC calls the token by the subject's common name
USE_KEY, FORK_KEY = (Path(__file__).with_name(name) for name in ("use_key.py", "fork_key.py"))
URIS = {AUTHENTICATION: "pkcs11:model=PKCS%2315%20emulated;id=%01;type=private", SIGNATURE: "pkcs11:id=%02;type=private"}

_LIBRARIES = ("/usr/lib/*/opensc-pkcs11.so", "/usr/lib/opensc-pkcs11.so", "/usr/lib64/opensc-pkcs11.so")


def find_opensc() -> str:
    """The path of OpenSC's PKCS #11 library."""
    for pattern in _LIBRARIES:
        for path in Path("/").glob(pattern[1:]):
            return str(path)
    missing("opensc-pkcs11")


@cache
def _key(kind: str, number: int) -> PivKey:
    private = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOLDER)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(number)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(private, SHA256())
    )
    return PivKey(private, certificate.public_bytes(Encoding.DER))


def make_card(authentication: str = "p256", signature: str = "p256") -> PivCard:
    """A card with both its keys of these kinds: "p256" or "rsa"."""
    return PivCard({AUTHENTICATION: _key(authentication, 1), SIGNATURE: _key(signature, 2)}, pin=PIN)


@dataclass
class Outcome:
    """What `use_key.py` met: `asked` (PinRequests as dicts, in order), `results` ("ok", or the error's name, per signature),
    `messages` (the errors in words)."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@dataclass
class Desk:
    """A reader on a desk and the hosts that use it."""

    reader: Reader
    module: str
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        return self.reader.environment | {"NSS_PK11_MODULE": self.module, "PIN": PIN, "PYTHONUNBUFFERED": "1"}

    def run(self, *command: str) -> str:
        """Run a command beside the reader; its output.  Raises AssertionError where it fails."""
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def nss_pk11(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "nss_pk11", *arguments)

    def serve(self, reference: int, *arguments: str) -> Server:
        return Server(self, "--identity", URIS[reference], "--pin", "env:PIN", "--no-tickets", *arguments)

    def certificate_file(self, card: PivCard, reference: int) -> Path:
        """The key's certificate, which signs itself, in PEM: a client that trusts it trusts this card alone."""
        file = self.directory / f"{reference:x}.pem"
        certificate = x509.load_der_x509_certificate(card.keys[reference].certificate)
        file.write_bytes(certificate.public_bytes(Encoding.PEM))
        return file

    def use(self, card: PivCard, reference: int, *answers: str | None, provider: str = "person", signatures: int = 1) -> Outcome:
        """Sign with a key in a process of its own, answering PIN requests in order, and have each signature verified.
        `provider`: who answers, "person", "program" or "static"."""
        public = card.keys[reference].private.public_key()
        order = {
            "uri": URIS[reference],
            "answers": answers,
            "provider": provider,
            "signatures": signatures,
            "public_key": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex(),
        }
        return Outcome(**json.loads(self.run(sys.executable, str(USE_KEY), json.dumps(order))))


class Server(Process):
    """`nss-pk11 serve` beside the reader."""

    def __init__(self, desk: Desk, *arguments: str) -> None:
        command = (sys.executable, "-m", "nss_pk11", "serve", "--listen", f"{HOST}:0", *arguments)
        super().__init__(command, environment=desk.environment)
        try:
            self.port = int(self.wait_for(r"^listening on 127\.0\.0\.1:(\d+)$")[1])
        except BaseException:
            self.stop()
            raise


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty reader."""
    if find_daemon() is None:
        missing("pcscd")
    if find_driver() is None:
        missing("vsmartcard-vpcd")
    with Reader() as reader:
        yield Desk(reader, find_opensc(), tmp_path)


@pytest.fixture
def insert(desk: Desk) -> Callable[..., PivCard]:
    """A new card, put into the reader: insert(authentication="p256", signature="p256")."""

    def insert(**kinds: str) -> PivCard:
        card = make_card(**kinds)
        desk.reader.insert(card)
        return card

    return insert


@pytest.fixture
def pkcs11_tool() -> str:
    return require("pkcs11-tool")
