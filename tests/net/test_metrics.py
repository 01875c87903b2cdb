"""`serve --metrics`: what Prometheus' own parser reads of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from nss_pk11.net.scrape import REQUEST_TIMEOUT, Endpoint

from ..support.softhsm import PIN
from . import test_command as command
from .peers import TIMEOUT, Task, client_context
from .test_command import WAIT, Serve, address_of, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pk11_tokens import RunningSimulator, TokenControl

    from ..support.pki import PKI
    from ..support.softhsm import SoftHSM, TokenOnDisk

arguments, run = command.arguments, command.run  # fixtures


class Page:
    """One scrape.  `page("name", label="value")` is the sum of the samples that have these labels."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        return sum(self.values(name, **labels))

    def values(self, name: str, **labels: str) -> list[float]:
        return [s.value for s in self.samples if s.name == f"nss_pk11_{name}" and labels.items() <= s.labels.items()]

    def labels(self, name: str) -> list[dict[str, str]]:
        return [s.labels for s in self.samples if s.name == f"nss_pk11_{name}" and s.value]


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        return bytes(answer.read())


def scrape(server: Serve) -> Page:
    """Ask at the address that the server says."""
    deadline = time.monotonic() + WAIT
    while not (said := re.search(r"^nss-pk11: metrics at (http://127\.0\.0\.1:\d+/metrics)$", server.log, re.MULTILINE)):
        assert time.monotonic() < deadline, server.log
        time.sleep(0.02)
    return Page(get(said[1]).decode())


def wait_for(server: Serve, condition: Callable[[Page], bool]) -> Page:
    deadline = time.monotonic() + WAIT
    while not condition(page := scrape(server)):
        assert time.monotonic() < deadline, page.samples
        time.sleep(0.02)
    return page


@contextlib.contextmanager
def serving(hsm: SoftHSM, directory: Path, *arguments: str) -> Iterator[Serve]:
    with Serve(hsm, directory, *arguments, "--metrics", "127.0.0.1:0") as server:
        yield server.ready()


def shake_hands(server: Serve, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
    """A whole connection; returns its session."""
    sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
    with context.wrap_socket(sock, server_hostname="localhost", session=session) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while tls.recv(65536):
            pass
        return tls.session


# --- serve -----------------------------------------------------------------------------------------------------------------


def test_one_process(softhsm: SoftHSM, tmp_path: Path, arguments: tuple[str, ...], pki: PKI, token: TokenOnDisk) -> None:
    old = client_context(pki)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(softhsm, tmp_path, *arguments) as server:
        context = client_context(pki)
        session = shake_hands(server, context)
        shake_hands(server, context, session)
        shake_hands(server, old)
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.recv(100)
        server.lines(4)
        page = wait_for(server, lambda page: page("token_up") == 1)
        assert server.stop() == 0
    assert "Traceback" not in server.log
    [serial] = {labels["serial"] for labels in page.labels("token_up")}
    on_token = {"token": "net", "serial": serial}
    assert serial
    # three handshakes, of which one was resumed and needed no key
    assert page("key_operations_total", **on_token, mechanism="CKM_ECDSA", purpose="sign", result="CKR_OK") == 2
    assert page("key_operations_total") == 2
    for histogram in ("key_queue_seconds", "key_token_seconds"):
        assert page(f"{histogram}_count", **on_token, mechanism="CKM_ECDSA") == 2
        assert page(f"{histogram}_bucket", le="+Inf") == 2
    assert 0 < page("key_token_seconds_sum") < WAIT
    assert sorted((each["version"], each["resumed"], each["signature"]) for each in page.labels("handshakes_total")) == [
        ("TLSv1.2", "false", "ecdsa_secp256r1_sha256"),
        ("TLSv1.3", "false", "ecdsa_secp256r1_sha256"),
        ("TLSv1.3", "true", ""),
    ]
    assert {labels["group"] for labels in page.labels("handshakes_total")} == {"x25519"}
    assert page("handshake_seconds_count", resumed="true") == 1
    assert page("handshake_failures_total", error="SSL_ERROR_RX_UNKNOWN_RECORD_TYPE") == page("handshake_failures_total") == 1
    assert page.values("token_up", **on_token) == page.values("token_logged_in", **on_token) == [1]
    assert page.values("token_pin_flag", **on_token) == [0, 0, 0]
    assert page.values("token_breaker", **on_token) == page.values("token_suspect", **on_token) == [0]
    assert page.values("token_sessions_in_use", **on_token) == page.values("token_sessions_waiting", **on_token) == [0]
    assert page("token_sessions_capacity") > 0
    assert not [sample for sample in page.samples if sample.name.endswith("_created")]
    assert "process_open_fds" in page.families


def test_open_connections(softhsm: SoftHSM, tmp_path: Path, arguments: tuple[str, ...], pki: PKI) -> None:
    with serving(softhsm, tmp_path, *arguments) as server:
        assert scrape(server)("connections_open") == 0
        sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
        with client_context(pki).wrap_socket(sock, server_hostname="localhost"):
            wait_for(server, lambda page: page("connections_open") == page("handshakes_total") == 1)
        wait_for(server, lambda page: page("connections_open") == 0)


def test_workers(softhsm: SoftHSM, tmp_path: Path, arguments: tuple[str, ...], pki: PKI) -> None:
    """One address for all; one that hangs or dies keeps nobody from the others' numbers."""
    with serving(softhsm, tmp_path, *arguments, "--workers", "2", "--log-format", "json") as server:
        context = client_context(pki)
        for _ in range(10):
            shake_hands(server, context)
        handled = [json.loads(line)["pid"] for line in server.lines(10)]
        page = wait_for(server, lambda page: page("workers") == page("token_up") == 2)
        assert page("handshakes_total") == page("key_operations_total", result="CKR_OK") == 10
        assert sorted(page.values("handshakes_total")) == sorted(handled.count(pid) for pid in set(handled))
        assert sorted(each["worker"] for each in page.labels("token_logged_in")) == ["0", "1"]

        os.kill(handled[0], signal.SIGSTOP)
        begun = time.monotonic()
        page = scrape(server)
        assert page("workers") == 1
        assert len(page.values("token_up")) == 1
        assert time.monotonic() - begun < TIMEOUT / 2
        os.kill(handled[0], signal.SIGCONT)
        page = wait_for(server, lambda page: page("workers") == 2)
        assert page("handshakes_total") == 10

        os.kill(handled[0], signal.SIGKILL)  # another takes its place, and counts from nothing
        left = 10 - handled.count(handled[0])
        page = wait_for(server, lambda page: page("workers") == 2 and page("handshakes_total") == left)
        request(server.port, pki)
        wait_for(server, lambda page: page("handshakes_total") == left + 1)
        assert server.stop() == 0
    assert "Traceback" not in server.log


def test_wrong_pin_shows(softhsm: SoftHSM, tmp_path: Path, pki: PKI) -> None:
    token = softhsm.create_token("low")
    credential = pki.for_token(token.generate_key("p256", "low"))
    assert credential.token_key
    identity = "--identity", credential.token_key.uri, "--chain", str(credential.chain_file), "--pin", "env:PIN"
    with serving(softhsm, tmp_path, *identity) as server:
        assert wait_for(server, lambda page: page("token_up") == 1)("token_pin_flag") == 0
        with pytest.raises(AssertionError, match="CKR_PIN_INCORRECT"):
            softhsm.run("pkcs11-tool", "--module", softhsm.module_path, "--token-label", "low", "--login", "--pin", "wrong", "-O")
        page = wait_for(server, lambda page: page("token_up") == 1)
        assert page("token_pin_flag", flag="CKF_USER_PIN_COUNT_LOW", token="low") == page("token_pin_flag") == 1


HSM = {"label": "hsm", "serial": "77", "personality": "network HSM", "max_sessions": 2, "latency": {"C_Sign": 0.1}, "pin": PIN}
KEY = {"label": "www", "kind": "p256", "self_signed": ["localhost"]}


@pytest.fixture
def hsm(simulated_tokens: Callable[..., RunningSimulator]) -> TokenControl:
    """A token that signs for one at a time, slowly."""
    return simulated_tokens([HSM | {"key": [KEY]}])["hsm"]


@pytest.fixture
def on_hsm(hsm: TokenControl, softhsm: SoftHSM, tmp_path: Path) -> Iterator[tuple[Serve, Callable[[], object]]]:
    """A server with the key on it, and a handshake with that server."""
    context = ssl.create_default_context(cadata=hsm.certificate_der("www"))
    with serving(softhsm, tmp_path, "--identity", hsm.uri("www"), "--pin", "env:PIN", "--check-signatures") as server:
        yield server, lambda: shake_hands(server, context)


def test_pressure_shows(on_hsm: tuple[Serve, Callable[[], object]]) -> None:
    server, handshake = on_hsm
    peers = [Task(handshake) for _ in range(6)]
    hsm = {"token": "hsm", "serial": "77"}
    page = wait_for(
        server, lambda page: page("token_operations_pending", **hsm) >= 3 and page("token_sessions_in_use", **hsm) == 1
    )
    assert page.values("token_sessions_capacity", **hsm) == [1]
    assert page("token_operations_pending", **hsm) > page("token_sessions_waiting")
    assert page("token_breaker") == 0
    for peer in peers:
        peer.wait()
    page = wait_for(server, lambda page: page("token_operations_pending") == 0)
    assert page("token_sessions_in_use") == page("token_sessions_waiting") == 0
    assert page("key_operations_total", result="CKR_OK") == page("key_token_seconds_count") == 6
    assert page("key_token_seconds_sum") > 6 * 0.1  # a tenth of a second each, and some had to wait
    assert page("key_token_seconds_bucket", le="0.05") == 0


def test_a_token_that_hangs_does_not_keep_the_page(hsm: TokenControl, on_hsm: tuple[Serve, Callable[[], object]]) -> None:
    server, handshake = on_hsm
    handshake()
    hsm.slow(4.0, "C_GetTokenInfo")
    begun = time.monotonic()
    page = scrape(server)
    assert time.monotonic() - begun < 3.5
    assert page.values("token_up") == [0]
    assert page.values("token_logged_in") == page.values("token_pin_flag") == []
    assert page("token_sessions_capacity") == page("key_operations_total", result="CKR_OK") == 1
    hsm.slow(0.0, "C_GetTokenInfo")
    assert wait_for(server, lambda page: page("token_up") == 1)("token_logged_in") == 1


def test_misfortunes_show(hsm: TokenControl, on_hsm: tuple[Serve, Callable[[], object]]) -> None:
    server, handshake = on_hsm
    hsm.fail("C_Sign", "CKR_DEVICE_MEMORY")
    with contextlib.suppress(OSError):
        handshake()
    page = scrape(server)
    assert page("key_operations_total", result="CKR_DEVICE_MEMORY", mechanism="CKM_ECDSA") == 1
    hsm.fail("C_Sign", "CKR_DEVICE_ERROR", times=0)  # until it is cleared
    peer = Task(handshake)
    wait_for(server, lambda page: page("token_breaker", token="hsm", serial="77") == 2)
    wait_for(server, lambda page: page("key_operations_total", result="CKR_DEVICE_ERROR") > 0)
    hsm.clear()
    peer.wait()
    wait_for(server, lambda page: page("token_breaker") == page("token_operations_pending") == 0)
    hsm.lock()
    wait_for(server, lambda page: page("token_pin_flag", flag="CKF_USER_PIN_LOCKED") == 1)
    hsm.unlock()
    page = wait_for(server, lambda page: page("token_up") == 1 and page("token_pin_flag") == 0)
    assert page.values("token_suspect") == [0]
    hsm.wrong_signatures(1.0)
    with pytest.raises(OSError):  # noqa: PT011  # alert or end: the server's other tests know
        handshake()
    page = wait_for(server, lambda page: page("handshake_failures_total") > 0)
    assert page("token_suspect", token="hsm", serial="77") == 1
    assert page("key_operations_total", result="SEC_ERROR_BAD_SIGNATURE") > 0


def test_address_in_use(arguments: tuple[str, ...], run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--listen", "127.0.0.1:0", *arguments, "--metrics", address_of(taken), status=7)
        assert f"cannot listen on {address_of(taken)}" in done.stderr.decode()


def test_package_that_is_missing(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Any,
) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for workers in "12":
        done = run("serve", "--listen", "127.0.0.1:0", *arguments, "--metrics", "127.0.0.1:0", "--workers", workers, status=3)
        assert b"metrics need the package prometheus-client: pip install 'nss-pk11[metrics]'" in done.stderr


# --- the parts ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("nss_pk11_things", "Things.", ("kind",), registry=registry).labels('a "b"\n').inc(3)
    return registry


def listening() -> tuple[socket.socket, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"http://{address_of(listener)}/metrics"


def test_endpoint_leaves_nothing(counted: CollectorRegistry) -> None:
    """A scraper that sends nothing keeps neither others from their numbers nor the endpoint from ending."""
    before = set(threading.enumerate())
    listener, url = listening()
    with socket.socket() as silent:
        with Endpoint(listener, counted):
            silent.connect(listener.getsockname())
            assert Page(get(url).decode())("things_total", kind='a "b"\n') == 3
            assert get(url) == get(url)
            begun = time.monotonic()
        assert time.monotonic() - begun < REQUEST_TIMEOUT - 1
        assert listener.fileno() == -1
    left = set(threading.enumerate()) - before  # the silent one's, which ends with its connection
    for thread in left:
        thread.join(TIMEOUT)
    assert not [thread for thread in left if thread.is_alive()]
