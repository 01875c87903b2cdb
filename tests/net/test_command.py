"""`nss-pk11 serve` and `nss-pk11 connect`, as processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import ssl
import stat
import subprocess
import sys
import termios
import time
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import pytest

from nss_pk11.certs import Trust
from nss_pk11.net.client import connect
from nss_pk11.tls.codepoints import CertificateCompression
from nss_pk11.tls.config import ClientConfig
from nss_pk11.tls.messages import certificate as certificates

from ..support.peers.base import free_port
from ..support.softhsm import PIN
from .peers import TIMEOUT, Task, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..support.pki import PKI, Credential
    from ..support.softhsm import SoftHSM

COMMAND = (sys.executable, "-m", "nss_pk11")
WAIT = 30.0  # seconds


class Serve:
    """A running `nss-pk11 serve`."""

    def __init__(self, hsm: SoftHSM, directory: Path, *arguments: str, terminal: int | None = None) -> None:
        self.errors = directory / "serve.stderr"
        self._stderr: IO[bytes] = self.errors.open("wb")
        environment = hsm.environment | {"NSS_PK11_MODULE": hsm.module_path, "PIN": PIN, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--listen", "127.0.0.1:0", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            preexec_fn=None if terminal is None else partial(fcntl.ioctl, terminal, termios.TIOCSCTTY, 0),
        )
        self.port = 0

    def ready(self) -> Self:
        """Wait for the line that says where it listens."""
        assert self.process.stdout
        readable, _, _ = select.select([self.process.stdout], [], [], WAIT)
        line = self.process.stdout.readline().decode() if readable else ""
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        assert found, f"{line!r}\n{self.log}"
        self.port = int(found[1])
        return self

    @property
    def log(self) -> str:
        """What it has said so far, in whole lines: of the last one a part may be written."""
        return "".join(line for line in self.errors.read_text().splitlines(keepends=True) if line.endswith("\n"))

    def lines(self, count: int) -> list[str]:
        """Log lines about connections, once there are `count`."""
        deadline = time.monotonic() + WAIT
        while True:
            lines = [line for line in self.log.splitlines() if not line.startswith("nss-pk11: ")]
            if len(lines) >= count:
                return lines
            assert time.monotonic() < deadline, f"{len(lines)} of {count} lines:\n{self.log}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(WAIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(WAIT)
        assert self.process.stdout
        self.process.stdout.close()
        self._stderr.close()


@pytest.fixture
def arguments(credential: Credential) -> tuple[str, ...]:
    assert credential.token_key
    return "--identity", credential.token_key.uri, "--chain", str(credential.chain_file), "--pin", "env:PIN"


@pytest.fixture
def server(softhsm: SoftHSM, tmp_path: Path, arguments: tuple[str, ...]) -> Iterator[Serve]:
    with Serve(softhsm, tmp_path, *arguments) as server:
        yield server.ready()


@pytest.fixture
def run(softhsm: SoftHSM) -> Any:
    """`nss-pk11` to its end."""

    def run(*arguments: str, status: int = 0, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = softhsm.environment | {"NSS_PK11_MODULE": softhsm.module_path, "PIN": PIN}
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=WAIT,
            check=False,
            start_new_session=True,
        )
        assert done.returncode == status, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        return done

    return run


def address_of(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def request(port: int, pki: PKI, target: str = "/status.json") -> bytes:
    with client_context(pki).wrap_socket(
        socket.create_connection(("127.0.0.1", port), TIMEOUT), server_hostname="localhost"
    ) as tls:
        tls.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: tls.recv(65536), b"")).partition(b"\r\n\r\n")[2]


# --- serve ---------------------------------------------------------------------------------------------------------------


def test_serve_and_drain(server: Serve, pki: PKI) -> None:
    status = json.loads(request(server.port, pki))
    assert status["key"]["token"] == "net"
    [line] = server.lines(1)
    for word in ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "ecdsa_secp256r1_sha256", "sni=localhost", "token=net", "key=www"):
        assert word in line
    assert "error" not in line
    assert server.stop() == 0


def test_interrupt_drains_too(server: Serve) -> None:
    assert server.stop(signal.SIGINT) == 0


def test_staple_and_checked_signatures(
    softhsm: SoftHSM, tmp_path: Path, arguments: tuple[str, ...], credential: Credential, pki: PKI, run: Any
) -> None:
    staple = tmp_path / "ocsp.der"
    staple.write_bytes(credential.authority.ocsp_response(credential.certificate))
    with Serve(softhsm, tmp_path, *arguments, "--ocsp", str(staple), "--check-signatures") as server:
        server.ready()
        answer = run("connect", f"127.0.0.1:{server.port}", "--ca", str(pki.ca_file), "--json")
    assert json.loads(answer.stdout)["ocsp_stapled"] is True


@pytest.mark.parametrize("content", [None, b"no response"])
def test_staple_that_is_none(arguments: tuple[str, ...], tmp_path: Path, run: Any, content: bytes | None) -> None:
    staple = tmp_path / "ocsp.der"
    if content is not None:
        staple.write_bytes(content)
    done = run("serve", "--listen", "127.0.0.1:0", *arguments, "--ocsp", str(staple), status=3)
    assert b"ocsp.der" in done.stderr


def test_serve_compresses_its_certificate(server: Serve, pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8879, for a client that offers it: the certificate comes packed, and is the same."""
    packed: list[int] = []
    unpack = certificates.decompress_certificate

    def counted(raw: bytes, offered: tuple[CertificateCompression, ...]) -> bytes:
        packed.append(len(raw))
        return unpack(raw, offered)

    monkeypatch.setattr(certificates, "decompress_certificate", counted)
    config = ClientConfig(server_name="localhost", certificate_compression=(CertificateCompression.zlib,))
    with connect("127.0.0.1", server.port, config=config, trust=Trust.from_file(pki.ca_file)) as tls:
        assert len(packed) == 1
        assert packed[0] < sum(len(der) for der in tls.info.peer_chain)


def test_json_log(softhsm: SoftHSM, tmp_path: Path, arguments: tuple[str, ...], pki: PKI) -> None:
    with Serve(softhsm, tmp_path, *arguments, "--log-format", "json") as server:
        server.ready()
        request(server.port, pki)
        [good] = map(json.loads, server.lines(1))
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.recv(100)
        bad = json.loads(server.lines(2)[1])
        assert server.stop() == 0
    assert good["version"] == "TLSv1.3"
    assert "error" not in good
    assert 0 < good["handshake_ms"] <= good["ms"]
    assert (bad["error"], bad["alert_sent"]) == ("SSL_ERROR_RX_UNKNOWN_RECORD_TYPE", "unexpected_message")


def test_a_name_cannot_forge_a_log_line(server: Serve, pki: PKI) -> None:
    context = client_context(pki)
    context.check_hostname = False
    context.set_alpn_protocols(["http/1.1"])
    name = 'x" key=forged'
    with contextlib.suppress(ssl.SSLError, ValueError), socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
        context.wrap_socket(sock, server_hostname=name).close()
    assert not re.search(r" key=forged( |$)", server.lines(1)[0])


def test_files(softhsm: SoftHSM, tmp_path: Path, arguments: tuple[str, ...], pki: PKI) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "hello").write_text("hello")
    with Serve(softhsm, tmp_path, *arguments, "--dir", str(tmp_path / "public")) as server:
        assert request(server.ready().port, pki, "/hello") == b"hello"
        assert server.stop() == 0


def test_key_log(softhsm: SoftHSM, tmp_path: Path, arguments: tuple[str, ...], pki: PKI) -> None:
    log = tmp_path / "keys"
    with Serve(softhsm, tmp_path, *arguments, "--keylog", str(log)) as server:
        request(server.ready().port, pki)
        assert server.stop() == 0
    assert "CLIENT_TRAFFIC_SECRET_0 " in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_client_certificates(softhsm: SoftHSM, tmp_path: Path, arguments: tuple[str, ...], pki: PKI, run: Any) -> None:
    """The client's key is in a second token."""
    token = softhsm.create_token("card")
    me = pki.for_token(token.generate_key("p256", "me"), purpose="client")
    assert me.token_key
    identity = ("--identity", me.token_key.uri, "--chain", str(me.chain_file), "--pin", "env:PIN")
    with Serve(softhsm, tmp_path, *arguments, "--client-auth", "require", "--ca", str(pki.ca_file)) as server:
        address = f"localhost:{server.ready().port}"
        done = run("connect", address, "--ca", str(pki.ca_file), "--brief", *identity, stdin=b"GET /status.json HTTP/1.0\r\n\r\n")
        status = json.loads(done.stdout.partition(b"\r\n\r\n")[2])
        assert me.subject in status["client_certificate"][0]["subject"]
        assert status["connection"]["client_signature_scheme"] == "ecdsa_secp256r1_sha256"
        refused = run("connect", address, "--ca", str(pki.ca_file), "--json", status=6)
        assert json.loads(refused.stdout)["error"]["name"] == "SSL_ERROR_RX_CERTIFICATE_REQUIRED_ALERT"
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--identity", "pkcs11:token=nobody;object=x", "--pin", "env:PIN"), 4, "nobody"),
        (("--identity", "/nonexistent.key"), 3, "/nonexistent.key"),
        (("--identity", "pkcs11:object=x?module-path=/nonexistent.so"), 4, "/nonexistent.so"),
        (("--identity", "x", "--suites", "NONE"), 2, "NONE"),
        (("--identity", "x", "--www", "--echo"), 2, "exclude each other"),
        (("--identity", "x", "--client-auth", "require"), 2, "--ca"),
        (("--identity", "x", "--min", "tls1.3", "--max", "tls1.2"), 3, "no version is left"),
        ((), 2, "--identity"),
    ],
)
def test_what_cannot_be_served(run: Any, arguments: tuple[str, ...], status: int, says: str) -> None:
    done = run("serve", "--listen", "127.0.0.1:0", *arguments, status=status)
    assert re.search(says, done.stderr.decode())
    assert done.stdout == b""


def test_wrong_pin_is_tried_once(run: Any, credential: Credential, monkeypatch: pytest.MonkeyPatch) -> None:
    assert credential.token_key
    done = run("serve", "--listen", "127.0.0.1:0", "--identity", credential.token_key.uri, "--pin", "pass:9999", status=4)
    assert "SEC_ERROR_BAD_PASSWORD" in done.stderr.decode()
    assert "9999" not in done.stderr.decode()


def test_certificates_that_do_not_fit(run: Any, pki: PKI, arguments: tuple[str, ...]) -> None:
    other, old = pki.server("p256"), pki.server("p256", expired=True)
    done = run("serve", "--listen", "127.0.0.1:0", *arguments, "--chain", str(other.chain_file), status=5)
    assert "does not belong to the key" in done.stderr.decode()
    done = run("serve", "--listen", "127.0.0.1:0", "--identity", str(old.key_file), "--chain", str(old.chain_file), status=5)
    assert "SEC_ERROR_EXPIRED_CERTIFICATE" in done.stderr.decode()


def test_port_in_use(run: Any, arguments: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = address_of(taken)
        done = run("serve", "--listen", address, *arguments, status=7)
    assert f"cannot listen on {address}: Address already in use" in done.stderr.decode()


# --- connect -------------------------------------------------------------------------------------------------------------


def test_relay(server: Serve, pki: PKI, run: Any) -> None:
    done = run(
        "connect", f"localhost:{server.port}", "--ca", str(pki.ca_file), "--brief", stdin=b"GET /status.json HTTP/1.0\r\n\r\n"
    )
    assert done.stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"verified for localhost" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_report(server: Serve, pki: PKI, credential: Credential, run: Any) -> None:
    done = run("connect", f"localhost:{server.port}", "--ca", str(pki.ca_file))
    assert done.stdout == b""
    report = done.stderr.decode()
    for word in (
        "TLSv1.3",
        "TLS_AES_128_GCM_SHA256",
        "ecdsa_secp256r1_sha256",
        "verified for localhost",
        "EC P-256",
        credential.subject,
    ):
        assert word in report


def test_json_and_resumption(server: Serve, pki: PKI, tmp_path: Path, run: Any) -> None:
    session = tmp_path / "session"

    def connect(*more: str) -> dict[str, Any]:
        done = run("connect", f"localhost:{server.port}", "--ca", str(pki.ca_file), "--json", "--session", str(session), *more)
        return dict(json.loads(done.stdout))

    first = connect("--alpn", "http/1.1")
    assert (first["version"], first["alpn"], first["resumed"], first["verified"]) == ("TLSv1.3", "http/1.1", False, True)
    assert [len(first["chain"]), first["chain"][0]["names"][0]] == [2, "localhost"]
    assert stat.S_IMODE(session.stat().st_mode) == 0o600
    assert connect("--alpn", "http/1.1")["resumed"] is True
    session.write_bytes(b"nonsense")
    assert connect()["resumed"] is False
    assert connect()["resumed"] is True


def test_session_of_an_unverified_connection(server: Serve, pki: PKI, tmp_path: Path, run: Any) -> None:
    session = str(tmp_path / "session")
    name = ("--servername", "example.org")
    base = ("connect", f"localhost:{server.port}", "--json", "--ca", str(pki.ca_file), "--session", session)
    careless = json.loads(run(*base, *name, "--no-verify").stdout)
    assert careless["verified"] is False
    assert careless["verify_error"]["name"] == "SSL_ERROR_BAD_CERT_DOMAIN"
    run(*base, *name, status=5)


def test_limits(server: Serve, pki: PKI, run: Any) -> None:
    def connect(*more: str) -> dict[str, Any]:
        return dict(json.loads(run("connect", f"localhost:{server.port}", "--ca", str(pki.ca_file), "--json", *more).stdout))

    assert connect("--max", "tls1.2")["version"] == "TLSv1.2"
    assert connect("--suites", "TLS_AES_256_GCM_SHA384")["suite"] == "TLS_AES_256_GCM_SHA384"
    assert connect("--suites", "ECDHE-ECDSA-AES256-GCM-SHA384")["version"] == "TLSv1.2"
    assert connect("--groups", "P-384")["group"] == "secp384r1"


def test_refused_certificate(server: Serve, pki: PKI, run: Any) -> None:
    done = run("connect", f"localhost:{server.port}", status=5)
    assert b"SEC_ERROR_UNKNOWN_ISSUER" in done.stderr
    done = run("connect", f"localhost:{server.port}", "--no-verify", "--brief")
    assert b"NOT VERIFIED" in done.stderr


def test_nobody_there(run: Any) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = run("connect", address, status=7)
    assert f"cannot connect to {address}: Connection refused" in done.stderr.decode()


def test_server_that_says_nothing(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run("connect", address_of(silent), "--timeout", "0.3", status=6)
    assert b"PR_IO_TIMEOUT_ERROR" in done.stderr


def test_server_that_speaks_no_tls(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            with listener.accept()[0] as sock:
                sock.recv(10_000)
                sock.sendall(b"220 mail.example.org ESMTP\r\n")

        peer = Task(work)
        done = run("connect", address_of(listener), status=6)
        peer.wait()
    assert b"does not speak TLS" in done.stderr


def test_truncated_answer(pki: PKI, run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            with server_context(pki.server("p256")).wrap_socket(listener.accept()[0], server_side=True) as tls:
                tls.sendall(b"half a mess")
                while tls.recv(100):
                    pass
                os.close(tls.detach())

        peer = Task(work)
        address = f"localhost:{listener.getsockname()[1]}"
        done = run("connect", address, "--ca", str(pki.ca_file), "--brief", status=6, stdin=b"go on")
        peer.wait()
    assert done.stdout == b"half a mess"
    assert b"PR_END_OF_FILE_ERROR" in done.stderr
