"""The traces of RFC 8448 (fixtures/rfc8448.json) in a form that tests can walk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import rsa

FILE = Path(__file__).resolve().parents[2] / "fixtures" / "rfc8448.json"
NAMES = ("simple-1rtt", "resumed-0rtt", "hello-retry-request", "client-authentication", "compatibility-mode")


class Step(NamedTuple):
    by: str  # "client" or "server"
    what: str  # "construct a ClientHello handshake message", 'derive secret "tls13 c hs traffic"', …
    values: dict[str, bytes]  # "ClientHello", "PRK", "expanded", "complete record", …


class Record(NamedTuple):
    by: str
    kind: str  # "handshake", "application_data", "alert", "change_cipher_spec": what is inside
    payload: bytes  # plaintext
    octets: bytes  # as sent


@dataclass(frozen=True)
class Trace:
    name: str
    steps: tuple[Step, ...]

    def private_keys(self, by: str) -> list[bytes]:
        """Ephemeral private keys in the order they were made: x25519, or P-256 as a big-endian integer."""
        return [step.values["private key"] for step in self.steps if step.by == by and "private key" in step.values]

    @property
    def records(self) -> list[Record]:
        """Every record sent, by both sides, in order."""
        return [
            Record(step.by, step.what.split()[1], step.values["payload"], step.values["complete record"])
            for step in self.steps
            if "complete record" in step.values
        ]

    @property
    def messages(self) -> list[tuple[str, bytes]]:
        """Every handshake message (who, octets), in the order of the transcript; split from what was sent."""
        found = []
        for record in self.records:
            octets = record.payload if record.kind == "handshake" else b""
            while octets:
                length = 4 + int.from_bytes(octets[1:4])
                found.append((record.by, octets[:length]))
                octets = octets[length:]
        return found

    @property
    def secrets(self) -> dict[str, bytes]:
        """Name -> secret: "early", "handshake", "master", and by label "c hs traffic", "s ap traffic", "exp master",
        "res master", "resumption", …"""
        found: dict[str, bytes] = {}
        for step in self.steps:
            name = step.what.partition('"')[2].partition('"')[0].removeprefix("tls13 ")
            if name not in ("", "derived", "finished"):
                found[name] = step.values["secret" if "secret" in step.values else "expanded"]
        return found

    def find(self, what: str, by: str | None = None) -> dict[str, bytes]:
        """The values of the first step whose description holds `what`."""
        return next(step.values for step in self.steps if what in step.what and by in (None, step.by))


@cache
def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found


def load(name: str) -> Trace:
    steps = _read()["traces"][name]["steps"]
    octets = ({key: bytes.fromhex(value) for key, value in step["values"].items()} for step in steps)
    return Trace(name, tuple(Step(step["by"], step["step"], values) for step, values in zip(steps, octets, strict=True)))


@cache
def server_key() -> rsa.RSAPrivateKey:
    """The RSA-1024 key of the server in every trace but "client-authentication" (section 2)."""
    number = {name: int(value, 16) for name, value in _read()["server_key"].items()}
    numbers = rsa.RSAPrivateNumbers(
        number["prime1"],
        number["prime2"],
        number["private exponent"],
        number["exponent1"],
        number["exponent2"],
        number["coefficient"],
        rsa.RSAPublicNumbers(number["public exponent"], number["modulus (public)"]),
    )
    return numbers.private_key()
