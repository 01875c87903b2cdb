"""What an old handshake asks of a token, call by call: simulated tokens keep a journal, Python's `ssl` is the other side."""

from __future__ import annotations

import ssl
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.net.blocking import TLSSocket
from nss_pk11.net.executor import KeyExecutor, Unverified
from nss_pk11.net.identity import load_identity
from nss_pk11.slots import SlotManager
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.suites import BY_NAME

from .peers import Task, socket_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pk11_tokens import RunningSimulator

    from nss_pk11.tls.config import Identity

    from ..support.pki import PKI

VERSIONS = {"TLSv1": Version.tls1_0, "TLSv1.1": Version.tls1_1, "TLSv1.2": Version.tls1_2}
KEYS = [{"label": kind, "kind": kind, "self_signed": ["localhost"]} for kind in ("rsa2048", "dsa1024")]
RSA_DECRYPT = [("C_DecryptInit", "CKM_RSA_PKCS"), ("C_Decrypt", 256)]
RSA_SIGN = [("C_SignInit", "CKM_RSA_PKCS"), ("C_Sign", 36)]  # MD5 and SHA-1, no DigestInfo
DSA_SIGN = [("C_SignInit", "CKM_DSA"), ("C_Sign", 20)]


@pytest.fixture
def simulator(simulated_tokens: Callable[..., RunningSimulator]) -> RunningSimulator:
    return simulated_tokens([{"label": "old card", "key": KEYS}])


@pytest.fixture
def manager(simulator: RunningSimulator) -> Iterator[SlotManager]:
    with SlotManager() as manager:
        manager.load(simulator.module)
        yield manager


def identity(manager: SlotManager, simulator: RunningSimulator, label: str) -> Identity:
    """Whose key is in the token; the journal begins after it was found."""
    found = load_identity(manager, f"{simulator['old card'].uri(label)}&pin-value=123456")
    simulator.forget_calls()
    return found


def operations(simulator: RunningSimulator) -> list[tuple[str, object]]:
    """What was done with keys: begun by which mechanism, on how many bytes."""
    calls = [call for call in simulator.calls() if call["function"].startswith(("C_Sign", "C_Decrypt"))]
    assert {call["result"] for call in calls} == {"CKR_OK"}
    return [(call["function"], call["arguments"].get("mechanism") or call["arguments"]["length"]) for call in calls]


def context(protocol: int, ciphers: str, version: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # which the versions themselves are
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    return context


def exchange(engine: Engine, theirs: Callable[[Any], ssl.SSLSocket]) -> str:
    """A handshake and a byte each way; the suite by OpenSSL's name."""
    ours, other = socket_pair()

    def work() -> str:
        with theirs(other) as tls:
            tls.sendall(b"?")
            assert tls.recv(1) == b"!"
            cipher = tls.cipher()
            assert cipher is not None
            return cipher[0]

    task = Task(work)
    with KeyExecutor(trust=Unverified(), check_signatures=True) as executor, TLSSocket(ours, engine, executor) as tls:
        assert tls.recv(1) == b"?"
        tls.sendall(b"!")
        return str(task.wait())


@pytest.mark.parametrize(
    ("version", "cipher", "label", "expected"),
    [
        ("TLSv1", "AES128-SHA", "rsa2048", RSA_DECRYPT),
        ("TLSv1.1", "AES128-SHA", "rsa2048", RSA_DECRYPT),
        ("TLSv1", "DHE-RSA-AES128-SHA", "rsa2048", RSA_SIGN),
        ("TLSv1.1", "DHE-RSA-AES128-SHA", "rsa2048", RSA_SIGN),
        ("TLSv1", "ECDHE-RSA-AES128-SHA", "rsa2048", RSA_SIGN),
        ("TLSv1", "DHE-DSS-AES128-SHA", "dsa1024", DSA_SIGN),
        ("TLSv1.1", "DHE-DSS-AES256-SHA", "dsa1024", DSA_SIGN),
        ("TLSv1.2", "DHE-DSS-AES128-SHA", "dsa1024", DSA_SIGN),
    ],
)
def test_a_server_s_one_operation(
    manager: SlotManager, simulator: RunningSimulator, version: str, cipher: str, label: str, expected: list[tuple[str, object]]
) -> None:
    own = identity(manager, simulator, label)
    settings = ServerConfig(
        identities=(own,), suites=(BY_NAME[cipher],), min_version=VERSIONS[version], schemes=(*ServerConfig.schemes, *own.schemes)
    )
    theirs = context(ssl.PROTOCOL_TLS_CLIENT, f"{cipher}:ALL", version)
    assert exchange(Engine.server(settings), theirs.wrap_socket) == cipher
    assert operations(simulator) == expected


@pytest.mark.parametrize(("label", "expected"), [("rsa2048", RSA_SIGN), ("dsa1024", DSA_SIGN)])
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1.1"])
def test_a_client_s_one_operation(
    manager: SlotManager, simulator: RunningSimulator, pki: PKI, version: str, label: str, expected: list[tuple[str, object]]
) -> None:
    own, credential = identity(manager, simulator, label), pki.server("rsa")
    theirs = context(ssl.PROTOCOL_TLS_SERVER, "ALL", version)
    theirs.load_cert_chain(credential.chain_file, credential.key_file)
    theirs.load_verify_locations(cadata=own.chain[0])
    theirs.verify_mode = ssl.CERT_REQUIRED
    settings = ClientConfig(
        identities=(own,), suites=(BY_NAME["AES128-SHA"],), min_version=VERSIONS[version], max_version=VERSIONS[version]
    )
    wrap = lambda sock: theirs.wrap_socket(sock, server_side=True)  # noqa: E731
    assert exchange(Engine.client(settings), wrap) == "AES128-SHA"
    assert operations(simulator) == expected
