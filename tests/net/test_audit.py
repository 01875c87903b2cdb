"""The audit log: a line for every use of a key, and no gap that goes unseen."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import socket
import stat
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nss_pk11.errors import ConfigurationError
from nss_pk11.net.audit import AuditLog
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import key_of, load_identity
from nss_pk11.net.metrics import Metrics
from nss_pk11.net.uses import KeyUse
from nss_pk11.tls.waits import Decrypt

from ..support.softhsm import PIN
from . import test_command as command
from .peers import TIMEOUT, KeyWith, client_context
from .test_command import WAIT, Serve, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.slots import SlotManager
    from nss_pk11.tls.config import Identity

    from ..support.pki import PKI, Credential
    from ..support.softhsm import SoftHSM, TokenOnDisk

MEMBERS = ["time", "key", "mechanism", "purpose", "peer", "result", "token", "serial", "ms"]

arguments, run = command.arguments, command.run  # fixtures


@pytest.fixture
def use(identity: Identity) -> KeyUse:
    key = key_of(identity)
    return KeyUse(time.time(), key, "sign", "CKM_ECDSA", "CKR_OK", 0.001, 0.0125, ("192.0.2.7", 50312))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audit(path: Path) -> Iterator[AuditLog]:
    with AuditLog(path) as audit:
        yield audit


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_line(audit: AuditLog, use: KeyUse, path: Path, credential: Credential) -> None:
    audit(replace(use, time=1769860800.125))
    audit(replace(use, peer=("2001:db8::1", 4433, 0, 0), result="CKR_DEVICE_REMOVED"))
    audit(replace(use, peer=()))
    first, second, third = lines(path)
    spki = credential.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert list(first) == MEMBERS
    assert first["time"] == "2026-01-31T12:00:00.125Z"
    assert first["key"] == sha256(spki).hexdigest()
    assert (first["mechanism"], first["purpose"], first["result"]) == ("CKM_ECDSA", "sign", "CKR_OK")
    assert (first["token"], first["serial"]) == ("net", use.key.token.serial)
    assert (first["peer"], first["ms"]) == ("192.0.2.7:50312", 12.5)
    assert (second["peer"], second["result"]) == ("[2001:db8::1]:4433", "CKR_DEVICE_REMOVED")
    assert third["peer"] == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_padding_is_not_told(audit: AuditLog, path: Path, manager: SlotManager, token: TokenOnDisk, pki: PKI) -> None:
    """Whoever reads log or metrics must not learn what a ciphertext held: good and bad ones look alike (Bleichenbacher)."""
    credential = pki.for_token(token.generate_key("rsa", "oracle"))
    assert credential.token_key
    identity = load_identity(manager, credential.token_key.uri, chain=credential.chain_file)
    public, metrics = key_of(identity).public_key, Metrics()
    assert isinstance(public, RSAPublicKey)
    good, bad = public.encrypt(b"s" * 48, PKCS1v15()), bytes(255) + b"\2"
    with KeyExecutor(observers=(audit, metrics.key_used)) as executor:
        assert executor.run(Decrypt(identity, good), peer=("192.0.2.7", 1)) == b"s" * 48
        assert executor.run(Decrypt(identity, bad), peer=("192.0.2.7", 1)) is None
    one, other = (line | {"time": "", "ms": 0} for line in lines(path))
    assert one == other
    assert (one["purpose"], one["mechanism"], one["result"]) == ("decrypt", "CKM_RSA_PKCS", "CKR_OK")
    counted = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert [s.value for s in counted if s.name == "nss_pk11_key_operations_total"] == [2]


def test_a_label_cannot_forge_a_line(audit: AuditLog, use: KeyUse, path: Path) -> None:
    label = 'x","result":"CKR_OK"}\n{"time":"now\u2028\x00'
    audit(replace(use, key=KeyWith(use.key, token=replace(use.key.token, label=label)), result="CKR_GENERAL_ERROR"))
    [line] = path.read_text().split("\n")[:-1]
    assert json.loads(line)["token"] == label
    assert json.loads(line)["result"] == "CKR_GENERAL_ERROR"


def test_what_is_there_stays(path: Path, use: KeyUse) -> None:
    path.write_text('{"time":"before"}\n')
    path.chmod(0o640)
    with AuditLog(path) as audit:
        audit(use)
    assert [line["time"] == "before" for line in lines(path)] == [True, False]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_threads_and_processes_mix_no_lines(path: Path, use: KeyUse) -> None:
    each, children = 200, []

    def write(name: str) -> None:
        with AuditLog(path) as audit:
            threads = [
                threading.Thread(target=lambda: [audit(replace(use, mechanism=name * 50)) for _ in range(each)]) for _ in range(3)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    for name in "ab":
        pid = os.fork()
        if pid == 0:
            try:
                write(name)
            finally:
                os._exit(0)
        children.append(pid)
    write("c")
    for pid in children:
        os.waitpid(pid, 0)
    written = [line["mechanism"] for line in lines(path)]
    assert {name: written.count(name * 50) for name in "abc"} == {"a": 600, "b": 600, "c": 600}


# --- files that move, files that are full ----------------------------------------------------------------------------------


def test_rotation(audit: AuditLog, use: KeyUse, path: Path) -> None:
    older = path.with_suffix(".1")
    audit(use)
    path.rename(older)
    audit(replace(use, purpose="decrypt"))
    assert [line["purpose"] for line in lines(older)] == ["sign"]
    assert [line["purpose"] for line in lines(path)] == ["decrypt"]
    path.unlink()
    audit(use)
    assert [line["purpose"] for line in lines(path)] == ["sign"]
    path.write_text("")  # copytruncate
    audit(use)
    assert len(lines(path)) == 1


def test_lines_that_are_lost_are_told(tmp_path: Path, use: KeyUse, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit"
    path.symlink_to("/dev/full")
    with AuditLog(path) as audit:
        for _ in range(3):
            audit(use)
        assert audit.lost == 3
        [told] = caplog.records
        assert told.levelno == logging.ERROR
        assert "No space left on device" in told.message
        path.unlink()
        audit(use)
        audit(use)
        assert audit.lost == 3
    assert [line.get("lost") for line in lines(path)] == [3, None, None]
    assert len(caplog.records) == 2
    assert "3 lines were lost" in caplog.records[1].message


def test_directory_that_has_gone(tmp_path: Path, use: KeyUse, caplog: pytest.LogCaptureFixture) -> None:
    """The file that is open has no name any more, so a line in it would be no record."""
    directory = tmp_path / "log"
    directory.mkdir()
    with AuditLog(directory / "audit") as audit:
        (directory / "audit").unlink()
        directory.rmdir()
        audit(use)
        assert audit.lost == 1
        directory.mkdir()
        audit(use)
    assert [line.get("lost") for line in lines(directory / "audit")] == [1, None]


def test_lost_lines_are_told_at_the_end(tmp_path: Path, use: KeyUse) -> None:
    path = tmp_path / "audit"
    path.symlink_to("/dev/full")
    with AuditLog(path) as audit:
        audit(use)
        path.unlink()
    assert [line["lost"] for line in lines(path)] == [1]


def test_torn_line_does_not_spoil_the_next(audit: AuditLog, use: KeyUse, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit(use)
    size, (soft, hard) = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        audit(use)
        audit(use)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert audit.lost == 2
    audit(use)
    whole, torn, *rest = path.read_text().splitlines()
    assert len(torn) == 20
    assert list(json.loads(whole)) == MEMBERS
    assert [json.loads(line).get("lost") for line in rest] == [2, None]


def test_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot open the audit log .*: No such file or directory"):
        AuditLog(tmp_path / "nowhere" / "audit")


# --- serve -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve(
    softhsm: SoftHSM,
    tmp_path: Path,
    path: Path,
    pki: PKI,
    credential: Credential,
    arguments: tuple[str, ...],
    workers: str,
) -> None:
    begun, peers = datetime.now(UTC), []
    with Serve(softhsm, tmp_path, *arguments, "--audit", str(path), "--workers", workers) as server:
        server.ready()
        context = client_context(pki)
        for _ in range(6):
            sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
            peers.append(f"127.0.0.1:{sock.getsockname()[1]}")
            with context.wrap_socket(sock, server_hostname="localhost"):
                pass
        assert server.stop(signal.SIGTERM) == 0
    spki = credential.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    found = lines(path)
    assert sorted(line["peer"] for line in found) == sorted(peers)
    for line in found:
        assert list(line) == MEMBERS
        assert begun.timestamp() - 0.001 <= datetime.fromisoformat(line["time"]).timestamp() <= time.time()
        assert line["key"] == sha256(spki).hexdigest()
        assert (line["mechanism"], line["purpose"], line["result"]) == ("CKM_ECDSA", "sign", "CKR_OK")
        assert line["token"] == "net"
        assert 0 < line["ms"] < WAIT * 1000
    assert PIN not in {value for line in found for value in line.values()}


def test_serve_needs_its_audit_log(tmp_path: Path, arguments: tuple[str, ...], run: Any) -> None:
    done = run("serve", "--listen", "127.0.0.1:0", *arguments, "--audit", str(tmp_path / "nowhere" / "audit"), status=3)
    assert b"cannot open the audit log" in done.stderr
    assert b"listening" not in done.stdout


def test_serve_goes_on_without(softhsm: SoftHSM, tmp_path: Path, pki: PKI, arguments: tuple[str, ...]) -> None:
    with Serve(softhsm, tmp_path, *arguments, "--audit", "/dev/full") as server:
        server.ready()
        for _ in range(3):
            assert json.loads(request(server.port, pki))["key"]["token"] == "net"
        assert server.stop() == 0
        assert server.log.count("cannot be written: No space left on device") == 1
