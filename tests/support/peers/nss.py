"""NSS's selfserv and tstclnt (NSS 3.87 in Debian 12).

They keep certificates and keys in databases; NSS names a certificate by its subject, so each credential gets a database of
its own.  selfserv binds all interfaces, and tstclnt never notices the end of a pipe: its
request comes from a file.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from typing import TYPE_CHECKING

from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
from nss_pk11.tls.suites import SUITES

from ..pki import P12_PASSWORD
from ..require import require
from .base import HOST, ForeignServer, Result, Want, first, run_client

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = {
    Version.ssl3: "ssl3",
    Version.tls1_0: "tls1.0",
    Version.tls1_1: "tls1.1",
    Version.tls1_2: "tls1.2",
    Version.tls1_3: "tls1.3",
}
VERSIONS = {version: f"{name}:{name}" for version, name in _NAMES.items()}
GROUPS = {
    Group.secp256r1: "P256",
    Group.secp384r1: "P384",
    Group.secp521r1: "P521",
    Group.x25519: "x25519",
    Group.ffdhe2048: "FF2048",
    Group.ffdhe3072: "FF3072",
    Group.ffdhe4096: "FF4096",
    Group.ffdhe6144: "FF6144",
    Group.ffdhe8192: "FF8192",
}
SCHEMES = {s: s.name for s in SignatureScheme if s.name.startswith(("rsa_", "ecdsa_"))}


def database(want: Want, directory: Path) -> Path:
    """A database with what `want` needs: the roots and the credential.  Made once, kept in `directory`."""
    credential = want.credential
    what = f"{credential.name if credential else ''}|{want.ca}"
    path = directory / f"nss-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    if path.exists():
        return path
    path.mkdir()
    _run("certutil", "-N", "-d", f"sql:{path}", "--empty-password")
    if want.ca:
        blocks = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", want.ca.read_text(), re.DOTALL)
        for number, block in enumerate(blocks):
            file = path / f"root{number}.pem"
            file.write_text(block)
            _run("certutil", "-A", "-d", f"sql:{path}", "-n", f"root{number}", "-t", "CT,C,C", "-a", "-i", str(file))
    if credential:
        _run("pk12util", "-i", str(credential.p12_file), "-d", f"sql:{path}", "-W", P12_PASSWORD, "-K", "")
    return path


def _run(tool: str, *arguments: str) -> None:
    done = subprocess.run(
        [require(tool), *arguments], capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{tool} failed: {done.stdout}{done.stderr}"


def limits(want: Want) -> list[str]:
    options = ["-V", VERSIONS[want.version] if want.version else "tls1.2:tls1.3"]
    if want.suite:
        options += ["-c", f":{want.suite.code:04X}"]
    elif want.all_suites:
        options += ["-c", "".join(f":{suite.code:04X}" for suite in SUITES if "CCM" not in suite.cipher.name)]
    if want.group:
        options += ["-I", GROUPS[want.group]]
    if want.scheme:
        options += ["-J", SCHEMES[want.scheme]]
    return options


class NSSServer(ForeignServer):
    """selfserv: answers HTTP, then closes."""

    def __init__(self, want: Want, directory: Path) -> None:
        self._database = database(want, directory)
        super().__init__(want)

    def command(self, port: int) -> list[str | Path]:
        want = self.want
        assert want.credential
        command: list[str | Path] = [require("selfserv"), "-p", str(port), "-d", f"sql:{self._database}"]
        command += ["-n", want.credential.name, "-v", "-u", "-G", "-H", "1", *limits(want)]
        command += {"none": [], "request": ["-r"], "require": ["-r", "-r"]}[want.client_auth]
        return [*command, *want.extra]


def tstclnt(port: int, want: Want, directory: Path) -> Result:
    """One connection.  With `want.resume` tstclnt connects twice; the result tells of the second."""
    command: list[str | Path] = [require("tstclnt"), "-h", HOST, "-4", "-p", str(port), "-d", f"sql:{database(want, directory)}"]
    command += ["-v", "-C", "-u", "-G", *limits(want)]
    command += ["-a", want.server_name] if want.server_name else []
    command += ["-n", want.credential.name] if want.credential else []
    command += [] if want.ca else ["-o"]
    command += ["-L", "2"] if want.resume else []
    request = directory / "nss-request"
    request.write_bytes(want.request)
    status, output = run_client([*command, "-A", request, *want.extra], b"")
    return parse(status, output)


def parse(status: int | None, output: str) -> Result:
    number = re.findall(r"SSL version (\d)\.(\d)", output)
    return Result(
        ok=status == 0 and bool(number),
        version=f"TLSv1.{int(number[-1][1]) - 1}" if number else "",
        group=first(r"Key Exchange: (.*)$", output),
        resumed=bool(re.search(r"^[1-9]\d* (?:cache hits|stateless resumes)", output, re.MULTILINE)),
        subject=first(r'Subject: "CN=([^,"]+)', output),
        alert=first(r"(SSL_ERROR_\w+|SEC_ERROR_\w+)", output),
        answer=output.partition("HTTP/1.")[2].encode(),
        output=output,
    )
