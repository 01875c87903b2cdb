"""Public keys out of attributes, as modules variously show them."""

from __future__ import annotations

import pytest
from asn1crypto.core import OctetString, PrintableString
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nss_pk11.slots import Algorithm, MechanismInfo
from nss_pk11.slots.algorithms import methods
from nss_pk11.slots.cryptoki import PUBLIC_KEY_INFO, Attribute, KeyType
from nss_pk11.slots.publickeys import bits_of, from_attributes, kind_of, spki

P256 = bytes.fromhex("06082a8648ce3d030107")
EC = ec.generate_private_key(ec.SECP256R1()).public_key()
POINT = EC.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
ED25519 = ed25519.Ed25519PrivateKey.generate().public_key()
ED448 = ed448.Ed448PrivateKey.generate().public_key()
RSA = rsa.generate_private_key(65537, 2048).public_key()
MLDSA = mldsa.MLDSA65PrivateKey.generate().public_key()


@pytest.mark.parametrize("point", [POINT, OctetString(POINT).dump()], ids=["bare", "in an envelope"])
def test_ec_point_with_and_without_its_envelope(point: bytes) -> None:
    assert from_attributes({Attribute.KEY_TYPE: KeyType.EC, Attribute.EC_PARAMS: P256, Attribute.EC_POINT: point}) == EC


def test_bare_point_that_looks_like_an_envelope() -> None:
    while True:
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        if point[1] == len(point) - 2:
            break
    assert from_attributes({Attribute.KEY_TYPE: KeyType.EC, Attribute.EC_PARAMS: P256, Attribute.EC_POINT: point}) == key


@pytest.mark.parametrize("envelope", [True, False])
@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        (bytes.fromhex("06032b6570"), ED25519),
        (PrintableString("edwards25519").dump(), ED25519),
        (bytes.fromhex("06032b6571"), ED448),
        (PrintableString("edwards448").dump(), ED448),
    ],
)
def test_edwards_curves_by_oid_and_by_name(
    parameters: bytes, key: ed25519.Ed25519PublicKey | ed448.Ed448PublicKey, envelope: bool
) -> None:
    raw = key.public_bytes_raw()
    point = OctetString(raw).dump() if envelope else raw
    values = {Attribute.KEY_TYPE: KeyType.EC_EDWARDS, Attribute.EC_PARAMS: parameters, Attribute.EC_POINT: point}
    assert from_attributes(values) == key


def test_rsa_and_public_key_info_and_mldsa() -> None:
    numbers = RSA.public_numbers()
    shown = {
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.MODULUS: b"\0" + numbers.n.to_bytes(256),
        Attribute.PUBLIC_EXPONENT: b"\1\0\1",
    }
    assert from_attributes(shown) == RSA
    assert from_attributes({PUBLIC_KEY_INFO: spki(EC)}) == EC
    values = {Attribute.KEY_TYPE: KeyType.ML_DSA, Attribute.PARAMETER_SET: 2, Attribute.VALUE: MLDSA.public_bytes_raw()}
    made = from_attributes(values)
    assert made is not None
    assert (kind_of(made), bits_of(made), spki(made)) == ("mldsa65", 1952 * 8, spki(MLDSA))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {Attribute.KEY_TYPE: 0x80000001},
        {Attribute.KEY_TYPE: KeyType.RSA, Attribute.MODULUS: b"", Attribute.PUBLIC_EXPONENT: b""},
        {Attribute.KEY_TYPE: KeyType.RSA, Attribute.MODULUS: b"\1"},
        {Attribute.KEY_TYPE: KeyType.EC, Attribute.EC_PARAMS: P256, Attribute.EC_POINT: b"\4\4"},
        {Attribute.KEY_TYPE: KeyType.EC, Attribute.EC_PARAMS: b"\x30\x03\2\1\1", Attribute.EC_POINT: POINT},
        {Attribute.KEY_TYPE: KeyType.EC, Attribute.EC_PARAMS: bytes.fromhex("06032a0304"), Attribute.EC_POINT: POINT},
        {Attribute.KEY_TYPE: KeyType.EC, Attribute.EC_POINT: POINT},
        {Attribute.KEY_TYPE: KeyType.EC_EDWARDS, Attribute.EC_PARAMS: b"\x13\1x", Attribute.EC_POINT: bytes(32)},
        {Attribute.KEY_TYPE: KeyType.ML_DSA, Attribute.PARAMETER_SET: 9, Attribute.VALUE: b""},
        {PUBLIC_KEY_INFO: b"\x30\0"},
    ],
)
def test_what_tells_no_key_is_no_error(values: dict[int, object]) -> None:
    assert from_attributes(values) is None


def test_mldsa_where_a_token_offers_it() -> None:
    """No token at hand signs ML-DSA: what is asked of one that does."""
    offered = {"CKM_ML_DSA": MechanismInfo("CKM_ML_DSA", 0x1D, flags=frozenset({"CKF_SIGN"}))}
    for kind, size in (("mldsa44", 2420), ("mldsa65", 3309), ("mldsa87", 4627)):
        [(algorithm, method)] = methods(kind, 0, offered).items()
        assert (algorithm, method.size, method.prepare(b"message")) == (Algorithm(kind), size, b"message")
        assert method.structure.mechanism == 0x1D
        assert methods(kind, 0, {}) == {}
