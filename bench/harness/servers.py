"""The contenders: how each server is started, and how its port is found.

Every server takes a free port that the kernel chooses; `Server` reads it from /proc, whatever the server itself says.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .measure import family
from .tokens import PIN, Tokens

BENCH = Path(__file__).resolve().parent.parent
METRICS = "127.0.0.2"  # where a server may have a second port, which is not taken for its own
STARTS = 3  # SoftHSM sometimes refuses a login while another process starts on the same token

_METRICS_IN_PROC = f"{int.from_bytes(socket.inet_aton(METRICS), sys.byteorder):08X}:"

Command = Callable[[Tokens, str, Path], list[str]]


def _ours(tokens: Tokens, label: str, directory: Path) -> list[str]:
    identity, chain = tokens.uri(label, module=True), str(tokens.certificate(label))
    return [sys.executable, "-m", "nss_pk11", "serve", "--listen", "127.0.0.1:0", "--identity", identity, "--chain", chain,
            "--dir", str(directory)]  # fmt: skip


def _openssl(tokens: Tokens, label: str, directory: Path) -> list[str]:
    return ["openssl", "s_server", "-accept", "127.0.0.1:0", "-quiet", "-WWW", "-cert", str(tokens.certificate(label)),
            "-engine", "pkcs11", "-keyform", "engine", "-key", tokens.uri(label)]  # fmt: skip


def _gnutls(tokens: Tokens, label: str, directory: Path) -> list[str]:
    return ["gnutls-serv", "--quiet", "--port", "0", "--http", "--disable-client-cert", "--provider", str(tokens.module),
            "--x509certfile", str(tokens.certificate(label)), "--x509keyfile", tokens.uri(label)]  # fmt: skip


def _tlslite(tokens: Tokens, label: str, directory: Path) -> list[str]:
    return [sys.executable, str(BENCH / "tlslite_server.py"), str(tokens.certificate(label)), str(tokens.module),
            f"bench-{label}", PIN, label]  # fmt: skip


def _stdlib(tokens: Tokens, label: str, directory: Path) -> list[str]:
    certificate, key = tokens.software_certificate(label), tokens.software_key(label)
    return [sys.executable, str(BENCH / "stdlib_server.py"), str(certificate), str(key), str(directory / "large")]


def _sslcontext(tokens: Tokens, label: str, directory: Path) -> list[str]:
    return [sys.executable, str(BENCH / "sslcontext_server.py"), str(tokens.module), f"bench-{label}", PIN]


@dataclass(frozen=True)
class Contender:
    """A server to measure.  `slow`: its operations take ten times as long, so fewer of them will do."""

    name: str
    command: Command
    options: tuple[str, ...] = ()
    slow: bool = False


OURS = Contender("nss-pk11 serve", _ours)
OPENSSL = Contender("openssl s_server, pkcs11 engine", _openssl)
GNUTLS = Contender("gnutls-serv, pkcs11: URL", _gnutls)
TLSLITE = Contender("tlslite-ng, python-pkcs11", _tlslite, slow=True)
STDLIB = Contender("stdlib ssl, key in a file", _stdlib)
SSLCONTEXT = Contender("asyncio + stdlib ssl, sslcontext", _sslcontext)
SERVERS = (OURS, OPENSSL, GNUTLS, TLSLITE, STDLIB)


class Server:
    """A running contender; a context manager.  `pid` is what is measured, `port` where it listens."""

    def __init__(self, contender: Contender, tokens: Tokens, label: str, directory: Path, log: Path) -> None:
        self.contender, self.log = contender, log
        self.command = [*contender.command(tokens, label, directory), *contender.options]
        self.environment, self.directory = tokens.environment, directory

    def __enter__(self) -> Server:
        for attempt in range(STARTS):
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command, cwd=self.directory, env=self.environment, stdin=subprocess.PIPE, stdout=log, stderr=log
                )
            try:
                self.port = listening_port(self.process)
            except RuntimeError:
                self.__exit__()
                if attempt == STARTS - 1:
                    raise RuntimeError(f"{self.contender.name} does not start: {self.last_words()}") from None
            else:
                return self
        raise AssertionError("unreachable")

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self) -> str:
        return self.log.read_text(errors="replace").strip()[-500:] or "it said nothing"

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


def listening_port(process: subprocess.Popen[bytes], timeout: float = 15.0) -> int:
    """The IPv4 port that `process` or a child of it listens on, once it does.  Raises RuntimeError if it ends or times out."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        sockets = set()
        for pid in family(process.pid):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    sockets.add(os.readlink(descriptor))
                except FileNotFoundError:
                    continue
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            field = line.split()
            if field[1].startswith(_METRICS_IN_PROC):
                continue
            if field[3] == "0A" and f"socket:[{field[9]}]" in sockets:  # TCP_LISTEN
                return int(field[1].rpartition(":")[2], 16)
        time.sleep(0.02)
    raise RuntimeError("no listening socket")


CLIENT_CONFIGURATION = """\
openssl_conf = start
[start]
ssl_conf = ssl
[ssl]
system_default = pinned
[pinned]
Groups = X25519:P-256
Ciphersuites = TLS_AES_128_GCM_SHA256
"""


def client_environment(directory: Path) -> dict[str, str]:
    """The load generator's environment: its OpenSSL offers one group and one TLS 1.3 suite (Python 3.11's `ssl` cannot)."""
    configuration = directory / "client-openssl.cnf"
    configuration.write_text(CLIENT_CONFIGURATION)
    return {**os.environ, "OPENSSL_CONF": str(configuration)}
