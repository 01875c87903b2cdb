"""The command between tokens and foreign stacks: `serve` with keys made inside SoftHSM, `connect` with a client's key on a
second token, and what a handshake asks of the token."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nss_pk11.tls.codepoints import Group, Version

from ..support import command
from ..support.ours import page
from ..support.peers.base import Want
from ..support.peers.curl import curl
from ..support.peers.table import CLIENTS
from ..support.require import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..support.peers.table import ServerPool
    from ..support.pki import PKI, Credential
    from ..support.softhsm import SoftHSM
    from .conftest import Keyring

SPIES = ("/usr/lib/x86_64-linux-gnu/pkcs11/pkcs11-spy.so", "/usr/lib/aarch64-linux-gnu/pkcs11/pkcs11-spy.so")
ENGINES = ("/usr/lib/x86_64-linux-gnu/engines-3", "/usr/lib/aarch64-linux-gnu/engines-3", "/usr/lib64/engines-3")
VERSIONS = pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3], ids=lambda version: version.label)
PIN = ("--pin", "env:PIN")


def identity(keys: Keyring, kind: str) -> tuple[str | Path, ...]:
    """The options that name a key in a token and its chain."""
    credential = keys.credential(kind)
    assert credential.token_key
    return ("--identity", credential.token_key.uri, "--chain", credential.chain_file)


@pytest.fixture(scope="module")
def server(softhsm: SoftHSM, server_keys: Keyring, pki: PKI) -> Iterator[command.Serve]:
    with command.Serve(softhsm, *identity(server_keys, "p256"), *PIN, "--client-auth", "request", "--ca", pki.ca_file) as server:
        yield server


@VERSIONS
@pytest.mark.parametrize("peer", CLIENTS)
def test_serve(server: command.Serve, peer: str, version: Version, pki: PKI, directory: Path) -> None:
    result = CLIENTS[peer](server.port, Want(version=version, ca=pki.ca_file), directory)
    assert result.ok, f"{result}\n{server.output}"
    assert result.version == version.label
    assert b"200 OK" in result.answer


@VERSIONS
def test_connect_with_a_certificate_from_a_second_token(
    server: command.Serve, softhsm: SoftHSM, client_keys: Keyring, version: Version, pki: PKI
) -> None:
    limits = ("--max", "tls1.2") if version is Version.tls1_2 else ()
    report = command.connect(softhsm, server.port, "--ca", pki.ca_file, *identity(client_keys, "ed25519"), *PIN, *limits)
    assert report["version"] == version.label
    assert report["verified"] is True
    assert report["client_signature_scheme"] == "ed25519"
    assert (report["client_key"]["token"], report["client_key"]["CKA_EXTRACTABLE"]) == ("interop-client", False)


@pytest.fixture(scope="module")
def card(softhsm: SoftHSM, pki: PKI) -> dict[str, Credential]:
    """Client certificates on a token of curl's own: OpenSSL's engine fails on one that holds an Edwards key."""
    token = softhsm.create_token("interop-curl")
    return {kind: pki.for_token(token.generate_key(kind), purpose="client") for kind in ("rsa", "p256")}


@VERSIONS
@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_curl_with_a_certificate_from_a_second_token(
    server: command.Serve, softhsm: SoftHSM, card: dict[str, Credential], kind: str, version: Version, pki: PKI
) -> None:
    """Two tokens and no key file: curl reaches its own by OpenSSL's pkcs11 engine."""
    if not any(Path(directory, "pkcs11.so").exists() for directory in ENGINES):
        missing("libengine-pkcs11-openssl")
    credential = card[kind]
    assert credential.token_key
    uri = f"{credential.token_key.uri};pin-value={credential.token_key.token.pin}"
    environment = softhsm.environment | {"PKCS11_MODULE_PATH": softhsm.module_path}
    extra = ("--engine", "pkcs11", "--cert", str(credential.chain_file), "--key-type", "ENG", "--key", uri)
    want = Want(version=version, ca=pki.ca_file, extra=extra)
    result = curl(server.port, want, environment=environment, path="status.json")
    assert result.ok, result
    said = page(result.answer)
    assert said["connection"]["version"] == version.label
    assert f"client {kind}" in said["client_certificate"][0]["subject"]
    assert said["key"]["token"] == "interop-server"
    assert said["key"]["CKA_SENSITIVE"] is True


@VERSIONS
@pytest.mark.parametrize("peer", ["openssl", "gnutls", "nss", "node", "python"])
def test_connect(foreign: ServerPool, softhsm: SoftHSM, client_keys: Keyring, peer: str, version: Version, pki: PKI) -> None:
    want = Want(version=version, credential=pki.server("p256"), client_auth="require", ca=pki.ca_file)
    report = command.connect(softhsm, foreign(peer, want).port, "--ca", pki.ca_file, *identity(client_keys, "p256"), *PIN)
    assert report["version"] == version.label
    assert report["client_key"]["signatures"] == 1
    names = [certificate["subject"].split(",")[0] for certificate in report["chain"]]
    assert names[:2] == ["CN=localhost", "CN=Test intermediate p256"]  # NSS sends its root too


def test_the_hybrid_group(server: command.Serve, foreign: ServerPool, softhsm: SoftHSM, pki: PKI, directory: Path) -> None:
    result = CLIENTS["node"](server.port, Want(group=Group.X25519MLKEM768, ca=pki.ca_file), directory)
    assert result.ok, result
    assert "X25519MLKEM768" in server.output
    peer = foreign("node", Want(group=Group.X25519MLKEM768, credential=pki.server("p256")))
    assert command.connect(softhsm, peer.port, "--ca", pki.ca_file)["group"] == "X25519MLKEM768"


def test_sessions_are_kept_in_a_file(foreign: ServerPool, softhsm: SoftHSM, pki: PKI, tmp_path: Path) -> None:
    server = foreign("gnutls", Want(credential=pki.server("p256")))
    arguments = ("--ca", pki.ca_file, "--session", tmp_path / "session")
    assert command.connect(softhsm, server.port, *arguments)["resumed"] is False
    assert command.connect(softhsm, server.port, *arguments)["resumed"] is True


# --- what the token is asked ---------------------------------------------------------------------------------------------


@pytest.fixture
def spied(softhsm: SoftHSM, tmp_path: Path) -> tuple[str, dict[str, str], Path]:
    """OpenSC's pkcs11-spy before SoftHSM: its path, the environment it needs, and its log."""
    spy = next((path for path in SPIES if Path(path).exists()), None)
    if spy is None:
        missing("pkcs11-spy (opensc)")
    log = tmp_path / "spy.log"
    environment = {"PKCS11SPY": softhsm.module_path, "PKCS11SPY_OUTPUT": str(log), "NSS_PK11_MODULE": str(spy)}
    return str(spy), environment, log


# What `serve` asks some times a second, whether there are handshakes or not, to see tokens come and go.
WATCHING = ("C_WaitForSlotEvent", "C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo")


def _calls(log: Path) -> Counter[str]:
    """All but those."""
    found = Counter(re.findall(r"^\d+: (C_\w+)$", log.read_text(), re.MULTILINE))
    return Counter({name: count for name, count in found.items() if name not in WATCHING})


@VERSIONS
@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_one_signature_per_handshake_and_nothing_else(
    spied: tuple[str, dict[str, str], Path],
    softhsm: SoftHSM,
    server_keys: Keyring,
    kind: str,
    version: Version,
    pki: PKI,
    directory: Path,
) -> None:
    _, environment, log = spied
    with command.Serve(softhsm, *identity(server_keys, kind), *PIN, environment=environment) as server:
        want = Want(version=version, ca=pki.ca_file)
        assert CLIENTS["openssl"](server.port, want, directory).ok  # the first may open a session
        before = _calls(log)
        for _ in range(5):
            assert CLIENTS["openssl"](server.port, want, directory).ok
        assert _calls(log) - before == {"C_SignInit": 5, "C_Sign": 5}


def test_one_decryption_per_handshake_with_rsa_key_exchange(
    spied: tuple[str, dict[str, str], Path], softhsm: SoftHSM, server_keys: Keyring, pki: PKI, directory: Path
) -> None:
    _, environment, log = spied
    suites = ("--suites", "TLS_RSA_WITH_AES_128_GCM_SHA256", "--max", "tls1.2")
    with command.Serve(softhsm, *identity(server_keys, "rsa"), *PIN, *suites, environment=environment) as server:
        want = Want(version=Version.tls1_2, ca=pki.ca_file)
        assert CLIENTS["openssl"](server.port, want, directory).ok
        before = _calls(log)
        for _ in range(5):
            assert CLIENTS["openssl"](server.port, want, directory).ok
        assert _calls(log) - before == {"C_DecryptInit": 5, "C_Decrypt": 5}


def test_a_wrong_pin_reaches_the_token_once(
    spied: tuple[str, dict[str, str], Path], softhsm: SoftHSM, server_keys: Keyring
) -> None:
    """Three would lock a card."""
    _, environment, log = spied
    key = identity(server_keys, "p256")
    done = command.run(softhsm, "serve", "--listen", "127.0.0.1:0", *key, *PIN, environment=environment | {"PIN": "wrong-pin"})
    assert done.returncode == 4
    assert "SEC_ERROR_BAD_PASSWORD" in done.stderr
    assert "wrong-pin" not in done.stdout + done.stderr
    assert _calls(log)["C_Login"] == 1
