"""NSS's own tools on a database directory: the judges of what we write, and the makers of what we read."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.require import require

FEW_ITERATIONS = {"NSS_MAX_MP_PBE_ITERATION_COUNT": "2"}  # protection is tested with the real count, sequences with few


class Tools:
    """certutil and its kin on one directory.  `password` is that of the database."""

    def __init__(self, directory: Path, password: str, *, environment: dict[str, str] | None = None) -> None:
        self.directory, self.password = directory, password
        self.environment = os.environ | (environment or {})
        self.scratch = directory.parent / f"{directory.name}-scratch"
        self.scratch.mkdir(exist_ok=True)
        self.noise = self.file("noise", os.urandom(128))

    def file(self, name: str, content: bytes | str) -> Path:
        """A file beside the database."""
        path = self.scratch / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, tool: str, *arguments: str | Path, statuses: tuple[int, ...] = (0,)) -> str:
        """Run a tool to its end; its output."""
        command = [require(tool), "-d", f"sql:{self.directory}", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode in statuses, f"{tool} {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def certutil(self, *arguments: str | Path) -> str:
        """certutil with the password."""
        return self.run("certutil", *arguments, "-f", self._password_file())

    def _password_file(self) -> Path:
        return self.file("password", self.password + "\n")

    def initialise(self) -> None:
        """certutil -N."""
        if self.password:
            self.certutil("-N")
        else:
            self.run("certutil", "-N", "--empty-password")

    def issue(self, name: str, *arguments: str, trust: str = "u,u,u", issuer: str = "") -> None:
        """Make a key and a certificate, self-signed or signed by `issuer`."""
        by = ("-c", issuer) if issuer else ("-x",)
        serial = str(int.from_bytes(os.urandom(3), "big") + 1)
        common = ("-n", name, "-s", f"CN={name}", "-t", trust, "-m", serial, "-v", "60")
        self.certutil("-S", "-z", self.noise, *common, *by, *arguments)

    def change_password(self, new: str) -> None:
        """certutil -W."""
        self.certutil("-W", "-@", self.file("new-password", new + "\n"))
        self.password = new

    def listed(self) -> dict[str, str]:
        """What `certutil -L` prints: the trust by nickname."""
        lines = self.certutil("-L").split("SSL,S/MIME,JAR/XPI\n")[-1].splitlines()
        found = (re.fullmatch(r"(.*?)\s+([a-zA-Z]*,[a-zA-Z]*,[a-zA-Z]*)\s*", line) for line in lines)
        return {match[1]: match[2] for match in found if match}

    def keys(self) -> dict[str, str]:
        """What `certutil -K` prints, after a login: the kind of each key by its CKA_ID.  (It fails where there are none.)"""
        lines = self.run("certutil", "-K", "-f", self._password_file(), statuses=(0, 255)).splitlines()
        assert lines, "no login"
        found = (re.match(r"<\s*\d+> (\w+)\s+([0-9a-f]+)", line) for line in lines)
        return {match[2]: match[1] for match in found if match}

    def der(self, nickname: str) -> bytes:
        """The certificate of a nickname."""
        command = [require("certutil"), "-d", f"sql:{self.directory}", "-L", "-n", nickname, "-r"]
        return subprocess.run(command, capture_output=True, timeout=60, check=True).stdout

    def export(self, nickname: str, password: str) -> bytes:
        """pk12util -o."""
        target = self.scratch / "out.p12"
        target.unlink(missing_ok=True)
        self.run("pk12util", "-o", target, "-n", nickname, "-k", self._password_file(), "-W", password)
        return target.read_bytes()

    def import_(self, data: bytes, password: str) -> None:
        """pk12util -i."""
        self.run("pk12util", "-i", self.file("in.p12", data), "-k", self._password_file(), "-W", password)


def signs(private_key: PrivateKeyTypes, public_key: PublicKeyTypes) -> None:
    """The key signs, and its public key verifies: raises InvalidSignature otherwise."""
    message = b"to be signed"
    if isinstance(private_key, rsa.RSAPrivateKey) and isinstance(public_key, rsa.RSAPublicKey):
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        public_key.verify(private_key.sign(message, PKCS1v15(), SHA256()), message, PKCS1v15(), SHA256())
    elif isinstance(private_key, ec.EllipticCurvePrivateKey) and isinstance(public_key, ec.EllipticCurvePublicKey):
        public_key.verify(private_key.sign(message, ec.ECDSA(SHA256())), message, ec.ECDSA(SHA256()))
    elif isinstance(private_key, dsa.DSAPrivateKey) and isinstance(public_key, dsa.DSAPublicKey):
        public_key.verify(private_key.sign(message, SHA256()), message, SHA256())
    else:
        assert isinstance(private_key, ed25519.Ed25519PrivateKey)
        assert isinstance(public_key, ed25519.Ed25519PublicKey)
        public_key.verify(private_key.sign(message), message)
