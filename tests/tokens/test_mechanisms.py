"""What simulated tokens compute: held against SoftHSM (the same key in both), `cryptography` and the openssl command."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from pk11_tokens import RunningSimulator, start
from pk11_tokens.abi import CKA, CKK, CKM, CKO, MECHANISM_INFO
from pk11_tokens.keytypes import integer
from pk11_tokens.mechanisms import MECHANISMS, fortezza
from pk11_tokens.personalities import PERSONALITIES

from ..support.require import require
from ..support.softhsm import SoftHSM
from .client import AES, P256, SHOWN, Client, Mechanism, Value, key_of, key_values, refused
from .cryptoki import PIN, SLOT, Module

KINDS = ("rsa2048", "dsa1024", "dsa2048", "p256", "p384", "p521", "ed25519", "ed448", "mldsa44", "mldsa65", "mldsa87")
MESSAGE = b"a message that is signed, " * 5
HASHES = {"1": hashes.SHA1(), "224": hashes.SHA224(), "256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CKG_MGF1 = {"1": 1, "256": 2, "384": 3, "512": 4, "224": 5}
_NUMBERS = dsa.generate_parameters(1024).parameter_numbers()
DOMAIN = {CKA.PRIME: integer(_NUMBERS.p), CKA.SUBPRIME: integer(_NUMBERS.q), CKA.BASE: integer(_NUMBERS.g)}
ED448 = pack("@BLP", 0, 0, 0)  # CK_EDDSA_PARAMS


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    keys = [{"label": kind, "kind": kind} for kind in KINDS]
    with start([{"label": "card", "key": keys}]) as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A session with a SoftHSM of its own: a copy of the library is loaded as another library."""
    hsm = SoftHSM(tmp_path / "softhsm")
    hsm.create_token("card", pin=PIN.decode())
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.config))
    with Module(shutil.copy(hsm.module_path, tmp_path / "softhsm.so")) as initialised:
        slots, count = (ctypes.c_ulong * 4)(), ctypes.c_ulong(4)
        assert initialised.C_GetSlotList(1, slots, ctypes.byref(count)) == "CKR_OK"
        yield Client(initialised, slot=slots[0]).login()


def public_key(client: Client, label: str) -> Any:
    return load_der_public_key(client.get(key_of(client, label), CKA.PUBLIC_KEY_INFO))


def pss(name: str, salt: int | None = None) -> bytes:
    """CK_RSA_PKCS_PSS_PARAMS."""
    digest = CKM.SHA_1 if name == "1" else CKM[f"SHA{name}"]
    return pack("@3L", digest, CKG_MGF1[name], HASHES[name].digest_size if salt is None else salt)


# --- signatures, checked by `cryptography` ---------------------------------------------------------------------------


def hashed(name: str, data: bytes) -> bytes:
    context = hashes.Hash(HASHES[name])
    context.update(data)
    return context.finalize()


def der(signature: bytes) -> bytes:
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("kind", ["p256", "p384", "p521"])
def test_ecdsa(client: Client, kind: str, name: str) -> None:
    key, public = key_of(client, kind), public_key(client, kind)
    for mechanism, data in ((CKM[f"ECDSA_SHA{name}"], MESSAGE), (CKM.ECDSA, hashed(name, MESSAGE))):
        signature = client.sign(Mechanism(mechanism), key, data)
        public.verify(der(signature), MESSAGE, ec.ECDSA(HASHES[name]))
        client.verify(Mechanism(mechanism), key_of(client, kind, CKO.PUBLIC_KEY), data, signature)
    parts = client.run_parts("Sign", Mechanism(CKM[f"ECDSA_SHA{name}"]), key, [MESSAGE[:7], b"", MESSAGE[7:]])
    public.verify(der(parts), MESSAGE, ec.ECDSA(HASHES[name]))


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("kind", ["dsa1024", "dsa2048"])
def test_dsa(client: Client, kind: str, name: str) -> None:
    key, public = key_of(client, kind), public_key(client, kind)
    for mechanism, data in ((CKM[f"DSA_SHA{name}"], MESSAGE), (CKM.DSA, hashed(name, MESSAGE))):
        signature = client.sign(Mechanism(mechanism), key, data)
        assert len(signature) == {"dsa1024": 40, "dsa2048": 64}[kind]
        public.verify(der(signature), MESSAGE, HASHES[name])
        client.verify(Mechanism(mechanism), key_of(client, kind, CKO.PUBLIC_KEY), data, signature)
    parts = client.run_parts("Sign", Mechanism(CKM[f"DSA_SHA{name}"]), key, [MESSAGE[:7], b"", MESSAGE[7:]])
    public.verify(der(parts), MESSAGE, HASHES[name])


@pytest.mark.parametrize("name", HASHES)
def test_rsa(client: Client, name: str) -> None:
    key, public = key_of(client, "rsa2048"), public_key(client, "rsa2048")
    probabilistic = padding.PSS(padding.MGF1(HASHES[name]), HASHES[name].digest_size)
    for mechanism, scheme in (
        (Mechanism(CKM[f"SHA{name}_RSA_PKCS"]), padding.PKCS1v15()),
        (Mechanism(CKM[f"SHA{name}_RSA_PKCS_PSS"], pss(name)), probabilistic),
    ):
        for signature in (
            client.sign(mechanism, key, MESSAGE),
            client.run_parts("Sign", mechanism, key, [MESSAGE[:9], MESSAGE[9:]]),
        ):
            public.verify(signature, MESSAGE, scheme, HASHES[name])
            client.verify(mechanism, key_of(client, "rsa2048", CKO.PUBLIC_KEY), MESSAGE, signature)
    mechanism = Mechanism(CKM.RSA_PKCS_PSS, pss(name, 7))
    signature = client.sign(mechanism, key, hashed(name, MESSAGE))
    public.verify(signature, hashed(name, MESSAGE), padding.PSS(padding.MGF1(HASHES[name]), 7), Prehashed(HASHES[name]))


@pytest.mark.parametrize(("kind", "parameter"), [("ed25519", b""), ("ed448", ED448)])
def test_eddsa(client: Client, kind: str, parameter: bytes) -> None:
    signature = client.sign(Mechanism(CKM.EDDSA, parameter), key_of(client, kind), MESSAGE)
    public_key(client, kind).verify(signature, MESSAGE)
    client.verify(Mechanism(CKM.EDDSA, parameter), key_of(client, kind, CKO.PUBLIC_KEY), MESSAGE, signature)


@pytest.mark.parametrize("kind", ["mldsa44", "mldsa65", "mldsa87"])
def test_mldsa(client: Client, kind: str) -> None:
    key, public = key_of(client, kind), public_key(client, kind)
    public.verify(client.sign(Mechanism(CKM.ML_DSA), key, MESSAGE), MESSAGE)
    context = ctypes.create_string_buffer(b"context", 7)
    mechanism = Mechanism(CKM.ML_DSA, pack("@LPL", 0, ctypes.addressof(context), 7), context)
    signature = client.sign(mechanism, key, MESSAGE)
    public.verify(signature, MESSAGE, b"context")
    with pytest.raises(InvalidSignature):
        public.verify(signature, MESSAGE)
    client.verify(mechanism, key_of(client, kind, CKO.PUBLIC_KEY), MESSAGE, signature)


@pytest.mark.parametrize("kind", ["rsa2048", "p384", "ed25519", "ed448"])
def test_openssl_accepts_signatures(client: Client, tmp_path: Path, kind: str) -> None:
    mechanism = {
        "rsa2048": Mechanism(CKM.SHA256_RSA_PKCS),
        "p384": Mechanism(CKM.ECDSA_SHA256),
        "ed25519": Mechanism(CKM.EDDSA),
        "ed448": Mechanism(CKM.EDDSA, ED448),
    }[kind]
    signature = client.sign(mechanism, key_of(client, kind), MESSAGE)
    for name, content in (
        ("key", public_key(client, kind).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        ("signature", der(signature) if kind == "p384" else signature),
        ("message", MESSAGE),
    ):
        (tmp_path / name).write_bytes(content)
    digest = [] if kind.startswith("ed") else ["-digest", "sha256"]
    command = [
        require("openssl"),
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "key",
        "-rawin",
        *digest,
        "-in",
        "message",
        "-sigfile",
    ]
    done = subprocess.run([*command, "signature"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert "Signature Verified Successfully" in done.stdout, done


@pytest.mark.parametrize(
    ("mechanism", "template", "kind"),
    [
        (CKM.RSA_PKCS_KEY_PAIR_GEN, {CKA.MODULUS_BITS: 2048, CKA.PUBLIC_EXPONENT: b"\1\0\1"}, rsa.RSAPublicKey),
        (CKM.EC_KEY_PAIR_GEN, {CKA.EC_PARAMS: P256}, ec.EllipticCurvePublicKey),
        (CKM.EC_EDWARDS_KEY_PAIR_GEN, {CKA.EC_PARAMS: bytes.fromhex("06032b6570")}, ed25519.Ed25519PublicKey),
        (CKM.EC_EDWARDS_KEY_PAIR_GEN, {CKA.EC_PARAMS: b"\x13\x0cedwards25519"}, ed25519.Ed25519PublicKey),
        (CKM.EC_EDWARDS_KEY_PAIR_GEN, {CKA.EC_PARAMS: bytes.fromhex("06032b6571")}, ed448.Ed448PublicKey),
        (CKM.DSA_KEY_PAIR_GEN, DOMAIN, dsa.DSAPublicKey),
        (CKM.ML_DSA_KEY_PAIR_GEN, {CKA.PARAMETER_SET: 3}, mldsa.MLDSA87PublicKey),
    ],
)
def test_generated_pairs(client: Client, mechanism: CKM, template: Mapping[int, Value], kind: type[Any]) -> None:
    public, private = client.generate_pair(Mechanism(mechanism), template, {})
    assert isinstance(load_der_public_key(client.get(public, CKA.PUBLIC_KEY_INFO)), kind)
    assert client.get(public, CKA.PUBLIC_KEY_INFO) == client.get(private, CKA.PUBLIC_KEY_INFO)
    for attribute, value in template.items():
        assert client.get(public, attribute) == (value if isinstance(value, bytes) else value.to_bytes(8, "little"))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("mechanism", "public", "result"),
    [
        (CKM.RSA_PKCS_KEY_PAIR_GEN, {}, "TEMPLATE_INCOMPLETE"),
        (CKM.RSA_PKCS_KEY_PAIR_GEN, {CKA.MODULUS_BITS: 512}, "KEY_SIZE_RANGE"),
        (CKM.EC_KEY_PAIR_GEN, {CKA.EC_PARAMS: b"\6\1\1"}, "CURVE_NOT_SUPPORTED"),
        (CKM.EC_KEY_PAIR_GEN, {CKA.EC_PARAMS: P256, CKA.KEY_TYPE: CKK.RSA}, "TEMPLATE_INCONSISTENT"),
        (CKM.EC_KEY_PAIR_GEN, {CKA.EC_PARAMS: P256, CKA.EC_POINT: b"\4"}, "ATTRIBUTE_READ_ONLY"),
        (CKM.DSA_KEY_PAIR_GEN, {CKA.PRIME: b"\7", CKA.SUBPRIME: b"\3", CKA.BASE: b"\2"}, "DOMAIN_PARAMS_INVALID"),
        (CKM.ML_DSA_KEY_PAIR_GEN, {CKA.PARAMETER_SET: 9}, "ATTRIBUTE_VALUE_INVALID"),
        (CKM.ECDSA, {CKA.EC_PARAMS: P256}, "MECHANISM_INVALID"),
    ],
)
def test_pairs_that_cannot_be_made(client: Client, mechanism: CKM, public: Mapping[int, Value], result: str) -> None:
    with refused(result):
        client.generate_pair(Mechanism(mechanism), public, {})


# --- the same as SoftHSM ---------------------------------------------------------------------------------------------

USES: dict[int, Value] = {
    CKA.ENCRYPT: True,
    CKA.DECRYPT: True,
    CKA.SIGN: True,
    CKA.VERIFY: True,
    CKA.WRAP: True,
    CKA.UNWRAP: True,
}
SECRET: dict[int, Value] = {**AES, **SHOWN, **USES, CKA.VALUE: bytes(range(32))}
HMAC: dict[int, Value] = {**SECRET, CKA.KEY_TYPE: CKK.GENERIC_SECRET, CKA.VALUE: bytes(range(64))}
IV = bytes(range(16))


def gcm(additional: bytes, tag: int = 128) -> Mechanism:
    iv, data = ctypes.create_string_buffer(IV[:12], 12), ctypes.create_string_buffer(additional, len(additional))
    parameter = pack("@PLLPLL", ctypes.addressof(iv), 12, 96, ctypes.addressof(data), len(additional), tag)
    return Mechanism(CKM.AES_GCM, parameter, iv, data)


CIPHERS: dict[str, tuple[Callable[[], Mechanism], tuple[int, ...]]] = {
    "ECB": (lambda: Mechanism(CKM.AES_ECB), (16, 160)),
    "CBC": (lambda: Mechanism(CKM.AES_CBC, IV), (16, 160)),
    "CBC_PAD": (lambda: Mechanism(CKM.AES_CBC_PAD, IV), (0, 1, 15, 16, 17, 160)),
    "CTR": (lambda: Mechanism(CKM.AES_CTR, pack("@L16s", 128, IV)), (1, 16, 100)),
    "GCM": (lambda: gcm(b"header"), (1, 16, 100)),
}


@pytest.mark.parametrize("name", CIPHERS)
def test_ciphers_are_softhsm_s(client: Client, softhsm: Client, name: str) -> None:
    mechanism, lengths = CIPHERS[name]
    ours, theirs = client.create(SECRET), softhsm.create(SECRET)
    for length in lengths:
        data = bytes(length)
        sealed = client.run("Encrypt", mechanism(), ours, data)
        assert sealed == softhsm.run("Encrypt", mechanism(), theirs, data)
        assert client.run("Decrypt", mechanism(), ours, sealed) == data
        for size in (5, 16, 33):
            parts = [data[start : start + size] for start in range(0, length, size)]
            assert client.run_parts("Encrypt", mechanism(), ours, parts) == sealed
            parts = [sealed[start : start + size] for start in range(0, len(sealed), size)]
            assert client.run_parts("Decrypt", mechanism(), ours, parts) == data


@pytest.mark.parametrize(
    "number", [CKM.SHA_1_HMAC, CKM.SHA224_HMAC, CKM.SHA256_HMAC, CKM.SHA384_HMAC, CKM.SHA512_HMAC, CKM.AES_CMAC]
)
def test_macs_are_softhsm_s(client: Client, softhsm: Client, number: CKM) -> None:
    values = SECRET if number == CKM.AES_CMAC else HMAC
    ours, theirs = client.create(values), softhsm.create(values)
    mac = client.sign(Mechanism(number), ours, MESSAGE)
    assert mac == softhsm.sign(Mechanism(number), theirs, MESSAGE)
    assert mac == client.run_parts("Sign", Mechanism(number), ours, [MESSAGE[:40], MESSAGE[40:]])
    client.verify(Mechanism(number), ours, MESSAGE, mac)
    with refused("SIGNATURE_INVALID"):
        client.verify(Mechanism(number), ours, MESSAGE + b".", mac)
    with refused("SIGNATURE_LEN_RANGE"):
        client.verify(Mechanism(number), ours, MESSAGE, mac[1:])


@pytest.mark.parametrize("number", [CKM.SHA_1, CKM.SHA224, CKM.SHA256, CKM.SHA384, CKM.SHA512])
def test_digests_are_softhsm_s(client: Client, softhsm: Client, number: CKM) -> None:
    digest = softhsm.digest(Mechanism(number), MESSAGE)
    assert client.digest(Mechanism(number), MESSAGE) == digest
    client("C_DigestInit", Mechanism(number).address)
    for part in MESSAGE[:50], MESSAGE[50:]:
        client("C_DigestUpdate", part, len(part))
    assert client.finish("C_DigestFinal") == digest


def test_a_key_can_be_digested_though_not_read(client: Client) -> None:
    client("C_DigestInit", Mechanism(CKM.SHA256).address)
    client("C_DigestKey", client.create(HMAC | {CKA.EXTRACTABLE: False}))
    assert client.finish("C_DigestFinal") == hashed("256", bytes(range(64)))
    client("C_DigestInit", Mechanism(CKM.SHA256).address)
    with refused("KEY_INDIGESTIBLE"):
        client("C_DigestKey", key_of(client, "p256"))


def oaep() -> Mechanism:
    return Mechanism(CKM.RSA_PKCS_OAEP, pack("@3LPL", CKM.SHA_1, 1, 1, 0, 0))


@pytest.mark.parametrize("mechanism", [lambda: Mechanism(CKM.RSA_PKCS), oaep, lambda: Mechanism(CKM.RSA_X_509)])
def test_rsa_encryption_is_softhsm_s(client: Client, softhsm: Client, mechanism: Callable[[], Mechanism]) -> None:
    private_values, public_values = key_values(rsa.generate_private_key(65537, 2048))
    private, public = client.create(private_values), client.create(public_values)
    uses: dict[int, Value] = {CKA.TOKEN: False}
    their_private = softhsm.create(private_values | uses | {CKA.DECRYPT: True, CKA.SIGN: True})
    their_public = softhsm.create(public_values | uses | {CKA.ENCRYPT: True, CKA.VERIFY: True})
    data = b"secret".rjust(256, b"\0") if mechanism().number == CKM.RSA_X_509 else b"secret"
    assert client.run("Decrypt", mechanism(), private, softhsm.run("Encrypt", mechanism(), their_public, data)) == data
    assert softhsm.run("Decrypt", mechanism(), their_private, client.run("Encrypt", mechanism(), public, data)) == data
    if mechanism().number != CKM.RSA_PKCS_OAEP:
        signature = client.sign(mechanism(), private, data)
        softhsm.verify(mechanism(), their_public, data, signature)
        assert signature == softhsm.sign(mechanism(), their_private, data)
        client.verify(mechanism(), public, data, signature)


@pytest.mark.parametrize("bits", [1024, 2048])
def test_dsa_is_softhsm_s(client: Client, softhsm: Client, bits: int) -> None:
    private_values, public_values = key_values(dsa.generate_private_key(bits))
    uses: dict[int, Value] = {CKA.TOKEN: False}
    their_private = softhsm.create(private_values | uses | {CKA.SIGN: True})
    their_public = softhsm.create(public_values | uses | {CKA.VERIFY: True})
    private, public = client.create(private_values), client.create(public_values)
    for name in ("1", "256"):
        digest = hashed(name, MESSAGE)[: 20 if bits == 1024 else 32]
        for mechanism, data in ((CKM.DSA, digest), (CKM[f"DSA_SHA{name}"], MESSAGE)):
            softhsm.verify(Mechanism(mechanism), their_public, data, client.sign(Mechanism(mechanism), private, data))
            client.verify(Mechanism(mechanism), public, data, softhsm.sign(Mechanism(mechanism), their_private, data))
    with refused("DATA_LEN_RANGE"):
        client.sign(Mechanism(CKM.DSA), private, bytes(21))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_key_agreement(client: Client, curve: ec.EllipticCurve) -> None:
    key, other = ec.generate_private_key(curve), ec.generate_private_key(curve)
    handle = client.create(key_values(key)[0] | {CKA.DERIVE: True})
    encoded = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    buffer = ctypes.create_string_buffer(encoded, len(encoded))
    mechanism = Mechanism(CKM.ECDH1_DERIVE, pack("@LLPLP", 1, 0, 0, len(encoded), ctypes.addressof(buffer)), buffer)
    secret = key.exchange(ec.ECDH(), other.public_key())
    values = {**SHOWN, CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.GENERIC_SECRET}
    whole = client.derive(mechanism, handle, values)
    assert client.get(whole, CKA.VALUE) == secret
    assert client.number(whole, CKA.VALUE_LEN) == len(secret)
    assert client.get(client.derive(mechanism, handle, values | {CKA.VALUE_LEN: 16}), CKA.VALUE) == secret[-16:]
    with refused("KEY_SIZE_RANGE"):
        client.derive(mechanism, handle, values | {CKA.VALUE_LEN: 100})
    with refused("KEY_FUNCTION_NOT_PERMITTED"):
        client.derive(mechanism, key_of(client, "p256"), values)


# --- wrapping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [CKM.AES_KEY_WRAP, CKM.AES_KEY_WRAP_PAD])
def test_softhsm_unwraps_what_was_wrapped(client: Client, softhsm: Client, number: CKM) -> None:
    ours, theirs = client.create(SECRET), softhsm.create(SECRET)
    key = client.generate(Mechanism(CKM.AES_KEY_GEN), {CKA.VALUE_LEN: 16, **SHOWN})
    wrapped = client.wrap(Mechanism(number), ours, key)
    values = {**SHOWN, CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES, CKA.TOKEN: False}
    assert softhsm.get(softhsm.unwrap(Mechanism(number), theirs, wrapped, values), CKA.VALUE) == client.get(key, CKA.VALUE)
    again = client.unwrap(Mechanism(number), ours, softhsm.wrap(Mechanism(number), theirs, theirs), values)
    assert client.get(again, CKA.VALUE) == SECRET[CKA.VALUE]
    assert client.is_true(key, CKA.LOCAL)
    assert not client.is_true(again, CKA.LOCAL)
    with refused("WRAPPED_KEY_INVALID"):
        client.unwrap(Mechanism(number), ours, bytes(len(wrapped)), values)


def test_a_private_key_wrapped_and_back(client: Client) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private_values, public_values = key_values(key)
    wrapper, public = client.create(SECRET), client.create(public_values)
    wrapped = client.wrap(Mechanism(CKM.AES_CBC_PAD, IV), wrapper, client.create(private_values | {CKA.EXTRACTABLE: True}))
    values: dict[int, Value] = {CKA.CLASS: CKO.PRIVATE_KEY, CKA.KEY_TYPE: CKK.EC}
    again = client.unwrap(Mechanism(CKM.AES_CBC_PAD, IV), wrapper, wrapped, values)
    client.verify(Mechanism(CKM.ECDSA), public, bytes(32), client.sign(Mechanism(CKM.ECDSA), again, bytes(32)))
    with refused("KEY_UNEXTRACTABLE"):
        client.wrap(Mechanism(CKM.AES_CBC_PAD, IV), wrapper, key_of(client, "p256"))
    with refused("WRAPPING_KEY_HANDLE_INVALID"):
        client.wrap(Mechanism(CKM.AES_CBC_PAD, IV), 1, wrapper)
    with refused("KEY_NOT_WRAPPABLE"):
        client.wrap(Mechanism(CKM.AES_CBC_PAD, IV), wrapper, public)


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_what_a_host_sees(module: Module) -> None:
    count = ctypes.c_ulong()
    assert module.C_GetMechanismList(SLOT, None, ctypes.byref(count)) == "CKR_OK"
    numbers = (ctypes.c_ulong * count.value)()
    assert module.C_GetMechanismList(SLOT, numbers, ctypes.byref(count)) == "CKR_OK"
    only_fortezza = {row.mechanism for row in fortezza.CAPABILITIES}
    assert set(numbers) == set(MECHANISMS) - only_fortezza  # a plain token offers all else
    for number in numbers:
        row = MECHANISMS[number]
        room = ctypes.create_string_buffer(MECHANISM_INFO.size)
        assert module.C_GetMechanismInfo(SLOT, number, room) == "CKR_OK"
        assert MECHANISM_INFO.unpack(room.raw) == (*row.sizes, row.flags | 1)
        assert row.flags


def test_personalities_offer_what_there_is() -> None:
    names = {row.name for row in MECHANISMS.values()}
    for personality in PERSONALITIES.values():
        assert set(personality.mechanisms) <= names, personality.name


def test_random_numbers(client: Client) -> None:
    buffers = [ctypes.create_string_buffer(32) for _ in range(2)]
    for buffer in buffers:
        client("C_SeedRandom", b"seed", 4)
        client("C_GenerateRandom", buffer, 32)
    assert buffers[0].raw != buffers[1].raw
    assert bytes(32) not in (buffers[0].raw, buffers[1].raw)


def test_secret_keys_are_generated(client: Client) -> None:
    aes = client.generate(Mechanism(CKM.AES_KEY_GEN), {CKA.VALUE_LEN: 24, **SHOWN})
    generic = client.generate(Mechanism(CKM.GENERIC_SECRET_KEY_GEN), {CKA.VALUE_LEN: 7, **SHOWN})
    assert [len(client.get(handle, CKA.VALUE)) for handle in (aes, generic)] == [24, 7]
    assert client.number(aes, CKA.KEY_TYPE) == CKK.AES
    assert client.number(generic, CKA.KEY_TYPE) == CKK.GENERIC_SECRET
    for values, result in (({}, "TEMPLATE_INCOMPLETE"), ({CKA.VALUE_LEN: 5}, "KEY_SIZE_RANGE")):
        with refused(result):
            client.generate(Mechanism(CKM.AES_KEY_GEN), values)
