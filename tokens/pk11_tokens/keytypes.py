"""Keys as attributes and attributes as keys: one row per key type, CKK number to `KeyType`.

Turns the values that a PKCS #11 object holds into a key of `cryptography`, and back.  Knows numbers and encodings; no
object, session or template rule (`attributes`, `objects`).  A card with key types of its own adds rows.
Sources: PKCS #11 3.1 sections 6.1 (RSA), 6.2 (DSA), 6.3 (EC, Edwards and Montgomery), 6.8 and 6.11 (secret keys); PKCS #11
3.2 (ML-DSA).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .abi import CKA, CKK, CKR, ULONG, Refused
from .kea import LENGTH, X_LENGTH, Domain, KeaPrivateKey, KeaPublicKey

Values = Mapping[int, bytes]  # of attributes, as they lie in memory

# CKA_EC_PARAMS: the curve's OID, or for Edwards curves its name as a PrintableString (PKCS #11 3.1 section 6.3.3), or the OID
# that pkcs11-tool took for Ed25519 before RFC 8410 came.
CURVES: dict[bytes, ec.EllipticCurve] = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
    bytes.fromhex("06052b81040023"): ec.SECP521R1(),
}
ED25519, ED448 = bytes.fromhex("06032b6570"), bytes.fromhex("06032b6571")
_EDWARDS: dict[bytes, tuple[type[Any], type[Any]]] = {
    ED25519: (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
    b"\x13\x0cedwards25519": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
    bytes.fromhex("06092b06010401da470f01"): (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
    ED448: (ed448.Ed448PrivateKey, ed448.Ed448PublicKey),
    b"\x13\x0aedwards448": (ed448.Ed448PrivateKey, ed448.Ed448PublicKey),
}
# CKP_ML_DSA_44 to CKP_ML_DSA_87.
_MLDSA: dict[int, tuple[type[Any], type[Any]]] = {
    1: (mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
    2: (mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
    3: (mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
}
SECRET_SIZES: dict[int, tuple[int, ...]] = {
    CKK.AES: (16, 24, 32),
    CKK.SKIPJACK: (12,),
}  # bytes; other secret keys may have any size


@dataclass(frozen=True)
class KeyType:
    """How keys of one type are kept.

    `load_public` and `load_private` raise ValueError, KeyError or struct.error for values that are no key; `public` and
    `private` give the attributes that hold the key; `kinds` are the classes of its private keys.
    """

    load_public: Callable[[Values], Any]
    load_private: Callable[[Values], Any]
    public: Callable[[Any], dict[int, bytes]]
    private: Callable[[Any], dict[int, bytes]]
    kinds: tuple[type[Any], ...]


def load_public(kind: int, values: Values) -> Any:
    """The public key that `values` hold.  Raises Refused(CKR_ATTRIBUTE_VALUE_INVALID, CKR_CURVE_NOT_SUPPORTED)."""
    return _load(KEY_TYPES[kind].load_public, values)


def load_private(kind: int, values: Values) -> Any:
    """The private key that `values` hold.  Raises Refused(CKR_ATTRIBUTE_VALUE_INVALID, CKR_CURVE_NOT_SUPPORTED)."""
    return _load(KEY_TYPES[kind].load_private, values)


def _load(load: Callable[[Values], Any], values: Values) -> Any:
    try:
        return load(values)
    except (ValueError, LookupError, TypeError):
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID) from None


def type_of(private_key: Any) -> int:
    """The CKK of a private key of `cryptography`.  Raises ValueError for one that no token here can hold."""
    for number, row in KEY_TYPES.items():
        if isinstance(private_key, row.kinds):
            return number
    raise ValueError(f"no token here holds a {type(private_key).__name__}")


def bits(key: Any) -> int:
    """Key size in bits: the modulus's, the field's, or 0 where the type alone says it."""
    return int(getattr(key, "key_size", 0))


def public_key_info(public_key: Any) -> bytes:
    """SubjectPublicKeyInfo in DER: CKA_PUBLIC_KEY_INFO."""
    return bytes(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def number(value: int) -> bytes:
    """A CK_ULONG as an attribute's value."""
    return ULONG.pack(value)


def integer(value: int) -> bytes:
    """A "big integer" of PKCS #11: big-endian, no more bytes than needed."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


# --- RSA -------------------------------------------------------------------------------------------------------------


def _load_rsa_public(values: Values) -> rsa.RSAPublicKey:
    return _rsa_public_numbers(values).public_key()


def _rsa_public_numbers(values: Values) -> rsa.RSAPublicNumbers:
    modulus, exponent = (int.from_bytes(values[name], "big") for name in (CKA.MODULUS, CKA.PUBLIC_EXPONENT))
    return rsa.RSAPublicNumbers(exponent, modulus)


def _load_rsa_private(values: Values) -> rsa.RSAPrivateKey:
    """A creator may leave out everything but modulus and exponents (section 6.1.3)."""
    public = _rsa_public_numbers(values)
    d = int.from_bytes(values[CKA.PRIVATE_EXPONENT], "big")
    if values.get(CKA.PRIME_1) and values.get(CKA.PRIME_2):
        p, q = (int.from_bytes(values[name], "big") for name in (CKA.PRIME_1, CKA.PRIME_2))
    else:
        p, q = rsa.rsa_recover_prime_factors(public.n, public.e, d)
    dp, dq, qi = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key()


def _rsa_public(key: rsa.RSAPublicKey) -> dict[int, bytes]:
    numbers = key.public_numbers()
    return {
        CKA.MODULUS: integer(numbers.n),
        CKA.PUBLIC_EXPONENT: integer(numbers.e),
        CKA.MODULUS_BITS: number(key.key_size),
    }


def _rsa_private(key: rsa.RSAPrivateKey) -> dict[int, bytes]:
    numbers = key.private_numbers()
    return {
        CKA.MODULUS: integer(numbers.public_numbers.n),
        CKA.PUBLIC_EXPONENT: integer(numbers.public_numbers.e),
        CKA.PRIVATE_EXPONENT: integer(numbers.d),
        CKA.PRIME_1: integer(numbers.p),
        CKA.PRIME_2: integer(numbers.q),
        CKA.EXPONENT_1: integer(numbers.dmp1),
        CKA.EXPONENT_2: integer(numbers.dmq1),
        CKA.COEFFICIENT: integer(numbers.iqmp),
    }


# --- DSA -------------------------------------------------------------------------------------------------------------


def dsa_parameters(values: Values) -> dsa.DSAParameterNumbers:
    """The domain parameters p, q, g."""
    p, q, g = (int.from_bytes(values[name], "big") for name in (CKA.PRIME, CKA.SUBPRIME, CKA.BASE))
    return dsa.DSAParameterNumbers(p, q, g)


def _load_dsa_public(values: Values) -> dsa.DSAPublicKey:
    return dsa.DSAPublicNumbers(int.from_bytes(values[CKA.VALUE], "big"), dsa_parameters(values)).public_key()


def _load_dsa_private(values: Values) -> dsa.DSAPrivateKey:
    x, parameters = int.from_bytes(values[CKA.VALUE], "big"), dsa_parameters(values)
    public = dsa.DSAPublicNumbers(pow(parameters.g, x, parameters.p), parameters)
    return dsa.DSAPrivateNumbers(x, public).private_key()


def _dsa_domain(key: dsa.DSAPublicKey | dsa.DSAPrivateKey) -> dict[int, bytes]:
    numbers = key.parameters().parameter_numbers()
    return {CKA.PRIME: integer(numbers.p), CKA.SUBPRIME: integer(numbers.q), CKA.BASE: integer(numbers.g)}


def _dsa_public(key: dsa.DSAPublicKey) -> dict[int, bytes]:
    return _dsa_domain(key) | {CKA.VALUE: integer(key.public_numbers().y)}


def _dsa_private(key: dsa.DSAPrivateKey) -> dict[int, bytes]:
    return _dsa_domain(key) | {CKA.VALUE: integer(key.private_numbers().x)}


# --- KEA -------------------------------------------------------------------------------------------------------------


def kea_domain(values: Values) -> Domain:
    """The domain parameters.  Raises ValueError for any but those of 1024 and 160 bits."""
    p, q, g = (int.from_bytes(values[name], "big") for name in (CKA.PRIME, CKA.SUBPRIME, CKA.BASE))
    return Domain(p, q, g)


def _load_kea_public(values: Values) -> KeaPublicKey:
    return KeaPublicKey(kea_domain(values), int.from_bytes(values[CKA.VALUE], "big"))


def _load_kea_private(values: Values) -> KeaPrivateKey:
    return KeaPrivateKey(kea_domain(values), int.from_bytes(values[CKA.VALUE], "big"))


def _kea_domain(domain: Domain) -> dict[int, bytes]:
    return {CKA.PRIME: integer(domain.p), CKA.SUBPRIME: integer(domain.q), CKA.BASE: domain.g.to_bytes(LENGTH, "big")}


def _kea_public(key: KeaPublicKey) -> dict[int, bytes]:
    return _kea_domain(key.domain) | {CKA.VALUE: key.to_bytes()}


def _kea_private(key: KeaPrivateKey) -> dict[int, bytes]:
    return _kea_domain(key.domain) | {CKA.VALUE: key.x.to_bytes(X_LENGTH, "big")}


# --- curves ----------------------------------------------------------------------------------------------------------


def curve(parameters: bytes) -> ec.EllipticCurve:
    """The curve of a CKA_EC_PARAMS.  Raises Refused(CKR_CURVE_NOT_SUPPORTED)."""
    if parameters not in CURVES:
        raise Refused(CKR.CURVE_NOT_SUPPORTED)
    return CURVES[parameters]


def edwards(parameters: bytes) -> tuple[type[Any], type[Any]]:
    """The private and public key class of an Edwards curve's CKA_EC_PARAMS.  Raises Refused(CKR_CURVE_NOT_SUPPORTED)."""
    if parameters not in _EDWARDS:
        raise Refused(CKR.CURVE_NOT_SUPPORTED)
    return _EDWARDS[parameters]


def octet_string(value: bytes) -> bytes:
    """DER: how CKA_EC_POINT holds a point."""
    length = len(value)
    return bytes((4, length) if length < 128 else (4, 0x81, length)) + value


def point(value: bytes) -> bytes:
    """The point in a CKA_EC_POINT, an OCTET STRING in DER, or bare as some hosts write it."""
    for header in (2, 3):
        if octet_string(value[header:]) == value:
            return value[header:]
    return value


def _load_ec_public(values: Values) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(curve(values[CKA.EC_PARAMS]), point(values[CKA.EC_POINT]))


def _load_ec_private(values: Values) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(values[CKA.VALUE], "big"), curve(values[CKA.EC_PARAMS]))


def _parameters(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> bytes:
    return next((der for der, known in CURVES.items() if known.name == key.curve.name), b"")


def _ec_public(key: ec.EllipticCurvePublicKey) -> dict[int, bytes]:
    encoded = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {CKA.EC_PARAMS: _parameters(key), CKA.EC_POINT: octet_string(encoded)}


def _ec_private(key: ec.EllipticCurvePrivateKey) -> dict[int, bytes]:
    return {CKA.EC_PARAMS: _parameters(key), CKA.VALUE: integer(key.private_numbers().private_value)}


def _load_edwards_public(values: Values) -> Any:
    return edwards(values[CKA.EC_PARAMS])[1].from_public_bytes(point(values[CKA.EC_POINT]))


def _load_edwards_private(values: Values) -> Any:
    return edwards(values[CKA.EC_PARAMS])[0].from_private_bytes(values[CKA.VALUE])


def _edwards_parameters(key: Any) -> bytes:
    return next(der for der, kinds in _EDWARDS.items() if isinstance(key, kinds))


def _edwards_public(key: Any) -> dict[int, bytes]:
    return {CKA.EC_PARAMS: _edwards_parameters(key), CKA.EC_POINT: octet_string(key.public_bytes_raw())}


def _edwards_private(key: Any) -> dict[int, bytes]:
    return {CKA.EC_PARAMS: _edwards_parameters(key), CKA.VALUE: key.private_bytes_raw()}


# --- ML-DSA ----------------------------------------------------------------------------------------------------------


def parameter_set(value: bytes) -> tuple[type[Any], type[Any]]:
    """The private and public key class of a CKA_PARAMETER_SET.  Raises Refused(CKR_ATTRIBUTE_VALUE_INVALID)."""
    kinds = _MLDSA.get(ULONG.unpack(value)[0]) if len(value) == ULONG.size else None
    if kinds is None:
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID)
    return kinds


def _set_of(key: Any) -> bytes:
    return number(next(name for name, kinds in _MLDSA.items() if isinstance(key, kinds)))


def _load_mldsa_public(values: Values) -> Any:
    return parameter_set(values[CKA.PARAMETER_SET])[1].from_public_bytes(values[CKA.VALUE])


def _load_mldsa_private(values: Values) -> Any:
    return parameter_set(values[CKA.PARAMETER_SET])[0].from_seed_bytes(values[CKA.SEED])


def _mldsa_public(key: Any) -> dict[int, bytes]:
    return {CKA.PARAMETER_SET: _set_of(key), CKA.VALUE: key.public_bytes_raw()}


def _mldsa_private(key: Any) -> dict[int, bytes]:
    """The seed alone (FIPS 204 section 3.6.3 lets it stand for the key): `cryptography` does not tell the expanded key."""
    return {CKA.PARAMETER_SET: _set_of(key), CKA.SEED: key.private_bytes_raw()}


KEY_TYPES: dict[int, KeyType] = {
    CKK.RSA: KeyType(_load_rsa_public, _load_rsa_private, _rsa_public, _rsa_private, (rsa.RSAPrivateKey,)),
    CKK.DSA: KeyType(_load_dsa_public, _load_dsa_private, _dsa_public, _dsa_private, (dsa.DSAPrivateKey,)),
    CKK.KEA: KeyType(_load_kea_public, _load_kea_private, _kea_public, _kea_private, (KeaPrivateKey,)),
    CKK.EC: KeyType(_load_ec_public, _load_ec_private, _ec_public, _ec_private, (ec.EllipticCurvePrivateKey,)),
    CKK.EC_EDWARDS: KeyType(
        _load_edwards_public,
        _load_edwards_private,
        _edwards_public,
        _edwards_private,
        (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey),
    ),
    CKK.ML_DSA: KeyType(
        _load_mldsa_public,
        _load_mldsa_private,
        _mldsa_public,
        _mldsa_private,
        tuple(private for private, _ in _MLDSA.values()),
    ),
}
