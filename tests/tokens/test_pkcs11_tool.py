"""Simulated tokens in the hands of other hosts: OpenSC's pkcs11-tool, python-pkcs11, and the slot manager of nss_pk11."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
    load_pem_private_key,
)
from pk11_tokens import RunningSimulator, start
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters
from pkcs11.util.rsa import encode_rsa_public_key

from nss_pk11 import pins
from nss_pk11.slots import Algorithm, SlotManager

from ..slots.signatures import verify
from ..support.require import require
from ..support.softhsm import SoftHSM

PIN = "123456"
ALGORITHMS = {
    "rsa2048": {algorithm for algorithm in Algorithm if algorithm.startswith("rsa_")},
    "dsa1024": {algorithm for algorithm in Algorithm if algorithm.startswith("dsa_")},
    "p256": {algorithm for algorithm in Algorithm if algorithm.startswith("ecdsa_")},
    "p384": {algorithm for algorithm in Algorithm if algorithm.startswith("ecdsa_")},
    "p521": {algorithm for algorithm in Algorithm if algorithm.startswith("ecdsa_")},
    **{kind: {Algorithm(kind)} for kind in ("ed25519", "ed448", "mldsa44", "mldsa65", "mldsa87")},
}


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with start([{"label": "card"}]) as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def softhsm(tmp_path: Path) -> SoftHSM:
    """For commands: each reads SOFTHSM2_CONF anew."""
    hsm = SoftHSM(tmp_path / "softhsm")
    hsm.create_token("card", pin=PIN)
    return hsm


def tool(module: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [require("pkcs11-tool"), "--module", module, "--token-label", "card", "--login", "--pin", PIN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def succeed(module: str, *arguments: str) -> str:
    done = tool(module, *arguments)
    assert done.returncode == 0, done
    return done.stdout


def passed(output: str) -> set[tuple[str, str]]:
    """(section, what is "OK" in it) of `pkcs11-tool --test`."""
    result, section = set(), ""
    for line in output.splitlines():
        if not line.startswith(" ") and line != "OK":
            section = line.split(" (")[0]
        if re.match("  (seems|all 4)", line):
            result.add((section, line.strip()))
        elif (match := re.match("    (.*): OK", line)) or (match := re.match("  (.*): OK", line)):
            result.add((section, match[1]))
    return result


# --- pkcs11-tool -----------------------------------------------------------------------------------------------------


def test_the_test_of_pkcs11_tool(simulator: RunningSimulator, softhsm: SoftHSM) -> None:
    """Everything that passes on SoftHSM passes here, but MD5; and there are no errors, where SoftHSM gives up at OAEP."""
    generate = ("--keypairgen", "--key-type", "rsa:2048", "--label", "rsa", "--id", "01")
    succeed(simulator.module, *generate)
    tool(softhsm.module_path, *generate, environment=softhsm.environment)
    theirs = tool(softhsm.module_path, "--test", "--allow-sw", environment=softhsm.environment)
    ours = tool(simulator.module, "--test", "--allow-sw")
    expected = {(section, what) for section, what in passed(theirs.stdout) if not what.startswith("MD5")}
    assert {section for section, _ in expected} >= {"Digests:", "Signatures", "Verify", "Decryption"}, theirs
    assert expected <= passed(ours.stdout), ours
    assert "No errors" in ours.stdout
    assert ours.returncode == 0


def test_the_curves_of_pkcs11_tool(simulator: RunningSimulator) -> None:
    output = succeed(
        simulator.module, "--test-ec", "--session-rw", "--label", "ec test", "--id", "99", "--key-type", "EC:prime256v1"
    )
    assert "==> OK" in output


@pytest.mark.parametrize(
    ("personality", "kind", "guarded"),
    [
        ("smart card", "rsa2048", False),
        ("smart card", "rsa2048", True),
        ("smart card", "p384", False),
        ("signature token", "ed25519", False),
        ("signature token", "mldsa65", False),
    ],
)
def test_personalities_pass_the_test_of_pkcs11_tool(personality: str, kind: str, guarded: bool) -> None:
    key = {"label": kind, "kind": kind, "always_authenticate": guarded}
    with start([{"label": "card", "personality": personality, "key": [key]}]) as simulator:
        assert "No errors" in succeed(simulator.module, "--test")


def test_objects_by_pkcs11_tool(simulator: RunningSimulator, tmp_path: Path) -> None:
    """Write a key, sign with it, read its public half, delete it."""
    key = rsa.generate_private_key(65537, 2048)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key").write_bytes(der)
    (tmp_path / "data").write_bytes(b"data to sign")
    succeed(simulator.module, "--write-object", f"{tmp_path}/key", "--type", "privkey", "--id", "0a", "--label", "written")
    sign = ("--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", "0a", "-i", f"{tmp_path}/data", "-o", f"{tmp_path}/signature")
    succeed(simulator.module, *sign)
    key.public_key().verify((tmp_path / "signature").read_bytes(), b"data to sign", padding.PKCS1v15(), SHA256())
    assert "written" in succeed(simulator.module, "--list-objects")
    succeed(simulator.module, "--delete-object", "--type", "privkey", "--id", "0a")
    assert "written" not in succeed(simulator.module, "--list-objects")


def test_a_curve_key_by_pkcs11_tool(simulator: RunningSimulator, tmp_path: Path) -> None:
    for kind in "EC:secp384r1", "EC:edwards25519":
        assert "Key pair generated" in succeed(
            simulator.module, "--keypairgen", "--key-type", kind, "--id", "0b", "--label", kind
        )
    succeed(simulator.module, "--keygen", "--key-type", "AES:32", "--label", "aes")
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert load_pem_private_key((tmp_path / "key").read_bytes(), None)
    succeed(simulator.module, "--write-object", f"{tmp_path}/key", "--type", "privkey", "--id", "0c", "--usage-sign")
    (tmp_path / "data").write_bytes(b"data to sign")
    sign = ("--sign", "--mechanism", "ECDSA-SHA256", "--id", "0c", "--signature-format", "openssl")
    succeed(simulator.module, *sign, "-i", f"{tmp_path}/data", "-o", f"{tmp_path}/signature")
    key.public_key().verify((tmp_path / "signature").read_bytes(), b"data to sign", ec.ECDSA(SHA256()))


# --- python-pkcs11 ---------------------------------------------------------------------------------------------------


def test_python_pkcs11(simulator: RunningSimulator) -> None:
    library = pkcs11.lib(simulator.module)
    try:
        with library.get_token(token_label="card").open(user_pin=PIN, rw=True) as session:
            _use_rsa(session)
            _use_curves(session)
            _use_aes(session)
    finally:
        library.finalize()


def _use_rsa(session: pkcs11.Session) -> None:
    public, private = session.generate_keypair(pkcs11.KeyType.RSA, 2048, label="rsa", id=b"\1", store=True)
    key = load_der_public_key(encode_rsa_public_key(public))
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify(private.sign(b"data", mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS), b"data", padding.PKCS1v15(), SHA256())
    assert private.decrypt(public.encrypt(b"text")) == b"text"  # OAEP
    assert public.verify(b"data", private.sign(b"data"))


def _use_curves(session: pkcs11.Session) -> None:
    parameters = session.create_domain_parameters(
        pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
    )
    public, private = parameters.generate_keypair(label="ec", mechanism_param=None)
    key = load_der_public_key(encode_ec_public_key(public))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert public.verify(
        b"data", private.sign(b"data", mechanism=pkcs11.Mechanism.ECDSA_SHA256), mechanism=pkcs11.Mechanism.ECDSA_SHA256
    )


def _use_aes(session: pkcs11.Session) -> None:
    key = session.generate_key(pkcs11.KeyType.AES, 256, label="aes", store=True)
    iv = bytes(16)
    parts = [b"one part, ", b"and another that is longer than a block"]
    assert b"".join(key.decrypt(key.encrypt(parts, mechanism_param=iv), mechanism_param=iv)) == b"".join(parts)
    assert next(iter(session.get_objects({pkcs11.Attribute.LABEL: "aes"}))).key_length == 256
    assert len(session.generate_random(256)) == 32
    assert session.digest(b"data", mechanism=pkcs11.Mechanism.SHA_1).hex() == "a17c9aaa61e80a1bf71d0d850af4e5baa9800bbd"


# --- the slot manager ------------------------------------------------------------------------------------------------


def check_all(manager: SlotManager, module: str, kinds: Sequence[str]) -> None:
    for kind in kinds:
        key = manager.find_key(f"pkcs11:token=card;object={kind}?module-path={module}")
        assert key.algorithms == ALGORITHMS[kind], kind
        for algorithm in key.algorithms:
            verify(key.public_key, algorithm, key.sign(algorithm, b"a message"), b"a message")


def test_the_slot_manager_makes_keys_and_uses_them(simulator: RunningSimulator) -> None:
    kinds = ("rsa2048", "p256", "p384", "p521", "ed25519")
    with SlotManager(pins.value(PIN)) as manager:
        token = manager.load(simulator.module).slots()[0].token
        assert token is not None
        for kind in kinds:
            made = token.generate_key(kind, kind)
            assert (made.local, made.sensitive, made.extractable) == (True, True, False)
        check_all(manager, simulator.module, kinds)
        assert manager.find_key("pkcs11:object=rsa2048").can_decrypt
        key = manager.find_key("pkcs11:object=rsa2048")
        assert isinstance(key.public_key, rsa.RSAPublicKey)
        assert key.decrypt(key.public_key.encrypt(b"secret", padding.PKCS1v15())) == b"secret"
        assert isinstance(manager.find_key("pkcs11:object=ed25519").public_key, ed25519.Ed25519PublicKey)


def test_the_slot_manager_uses_keys_of_every_kind() -> None:
    with (
        start([{"label": "card", "key": [{"label": kind, "kind": kind} for kind in ALGORITHMS]}]) as simulator,
        SlotManager(pins.value(PIN)) as manager,
    ):
        check_all(manager, simulator.module, tuple(ALGORITHMS))


def test_a_key_that_may_do_little_is_offered_for_little() -> None:
    """A card without RSA-PSS cannot serve TLS 1.3 with RSA: the manager is to see that beforehand."""
    with (
        start([{"label": "card", "personality": "smart card", "key": [{"label": "rsa2048", "kind": "rsa2048"}]}]) as simulator,
        SlotManager(pins.value(PIN)) as manager,
    ):
        manager.load(simulator.module)
        key = manager.find_key("pkcs11:object=rsa2048")
        assert {algorithm.removesuffix(f"_{algorithm.hash}") for algorithm in key.algorithms} == {"rsa_pkcs1"}
