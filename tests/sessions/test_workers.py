"""`serve --workers`: a client that comes back resumes by its session id with whichever worker takes it, others' deaths or not."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..support.command import Serve
from ..support.peers.base import HOST, TIMEOUT, Want
from ..support.peers.openssl import s_client_command
from ..support.pki import PKI
from ..support.require import require

if TYPE_CHECKING:
    from ..support.softhsm import SoftHSM

THREADS, SESSIONS, RESUMPTIONS = 4, 32, 10000  # sessions of each thread; resumptions of all


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


def serve(softhsm: SoftHSM, pki: PKI, workers: int, *more: str) -> Serve:
    credential = pki.server("p256")
    files = ("--identity", credential.key_file, "--chain", credential.chain_file)
    return Serve(softhsm, *files, "--no-tickets", "--echo", "--workers", str(workers), "--log-format", "json", *more)


def connections(server: Serve) -> list[dict[str, Any]]:
    """What the log says of them, in whole lines: of the last one a part may be written."""
    return [json.loads(line) for line in server.output.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]


def workers_of(server: Serve) -> set[int]:
    pid = server.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def client_context(pki: PKI) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca_file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    return context


def connect(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
    """A connection from its first byte to both close_notify alerts: whether it resumed, and its session."""
    sock = socket.create_connection((HOST, port), TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else close_notify waits 40 ms for an acknowledgement
    with context.wrap_socket(sock, server_hostname="localhost", session=session) as tls:
        reused, session = tls.session_reused, tls.session
        tls.unwrap().close()
    return bool(reused), session


@pytest.fixture
def server(softhsm: SoftHSM, pki: PKI) -> Iterator[Serve]:
    with serve(softhsm, pki, 3) as server:
        yield server


def test_openssl_reconnects(server: Serve, pki: PKI) -> None:
    want = Want(ca=pki.ca_file, extra=("-tls1_2", "-no_ticket", "-reconnect"))
    command = s_client_command(server.port, want)
    done = subprocess.run(command, input=b"", capture_output=True, timeout=TIMEOUT, check=False)
    assert re.findall(rb"^(New|Reused), TLSv1.2", done.stdout, re.MULTILINE) == [b"New"] + [b"Reused"] * 5, done.stderr


def test_session_goes_with_a_fatal_alert(server: Serve, pki: PKI) -> None:
    """RFC 5246 section 7.2.2: it is forgotten, by all workers."""
    context = client_context(pki)
    _, session = connect(server.port, context, None)
    assert connect(server.port, context, session)[0]
    raw = socket.create_connection((HOST, server.port), TIMEOUT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost", session=session)
    with raw:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
        assert tls.session_reused
        raw.sendall(outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))  # no record of this connection's
        while raw.recv(65536):
            pass
    assert not connect(server.port, context, session)[0]


def test_certificates_of_clients_come_back(softhsm: SoftHSM, pki: PKI) -> None:
    """Too long for a session's entry: they lie in the client-certificate cache."""
    credential = pki.client("p256")
    context = client_context(pki)
    context.load_cert_chain(credential.chain_file, credential.key_file)
    with serve(softhsm, pki, 3, "--client-auth", "require", "--ca", str(pki.ca_file)) as server:
        _, session = connect(server.port, context, None)
        assert [connect(server.port, context, session)[0] for _ in range(12)] == [True] * 12


def test_curl_fetches_twice(softhsm: SoftHSM, pki: PKI) -> None:
    """Each with a connection of its own, with one session."""
    credential = pki.server("p256")
    files = ("--identity", credential.key_file, "--chain", credential.chain_file)
    with Serve(softhsm, *files, "--no-tickets", "--workers", "3", "--log-format", "json") as server:
        url = f"https://localhost:{server.port}/status.json"
        limits = ("--tls-max", "1.2", "--cacert", pki.ca_file, "--resolve", f"localhost:{server.port}:{HOST}")
        command = (require("curl"), "-sS", "-H", "Connection: close", *limits, url, url, url)
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert re.findall(r'"resumed": ?(true|false)', done.stdout) == ["false", "true", "true"]


class Clients:
    """Threads with some sessions each, which come back again and again."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.resumed, self.full, self.failures = 0, 0, list[OSError]()
        self._port, self._context = port, context
        self._left, self._lock = RESUMPTIONS, threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(THREADS)]

    def _run(self) -> None:
        sessions: list[ssl.SSLSession | None] = [connect(self._port, self._context, None)[1] for _ in range(SESSIONS)]
        number = 0
        while self._left > 0:
            number = (number + 1) % SESSIONS
            try:
                reused, sessions[number] = connect(self._port, self._context, sessions[number])
            except OSError as error:
                with self._lock:
                    self.failures.append(error)
            else:
                with self._lock:
                    self._left -= reused
                    self.resumed += reused
                    self.full += not reused

    def wait_for(self, resumed: int) -> None:
        deadline = time.monotonic() + 100
        while self.resumed < resumed:
            assert time.monotonic() < deadline, f"{self.resumed} resumptions, {self.failures}"
            time.sleep(0.01)

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._left = 0 if exception[0] else self._left
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
def test_ten_thousand_resumptions_and_a_death(softhsm: SoftHSM, pki: PKI) -> None:
    """Eight workers, one of them killed in the middle: what fails was in its hands, and every other session lives on."""
    with serve(softhsm, pki, 8) as server:
        before = workers_of(server)
        assert len(before) == 8
        with Clients(server.port, client_context(pki)) as clients:
            clients.wait_for(RESUMPTIONS // 2)
            busiest = Counter(connection["pid"] for connection in connections(server)).most_common(1)[0][0]
            os.kill(busiest, signal.SIGKILL)
        log, said = connections(server), server.output
    assert clients.resumed >= RESUMPTIONS
    # A thread has one connection at a time; a session whose connection broke is one that OpenSSL does not offer again.
    assert len(clients.failures) <= THREADS, clients.failures
    assert clients.full <= len(clients.failures)
    assert [connection for connection in log if "error" in connection] == []
    resumed_by = Counter(connection["pid"] for connection in log if "resumed" in connection)
    assert len(resumed_by.keys() & before) > 4, resumed_by
    assert f"worker {busiest} was killed by SIGKILL" in said
