"""Keys as attributes: a `cryptography` key as the objects NSS would store of it, and back.  Pure; knows no files.

Attribute sets are those that NSS's `PK11_ImportPrivateKeyInfo` leaves in key4.db and cert9.db.  CKA_ID is the SHA-1 of the
public value (modulus, point, y), by which NSS pairs keys and certificates; CKA_NSS_DB holds that public value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from asn1crypto import core, x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import ConfigurationError, DatabaseError
from .attributes import Attribute, KeyType, ObjectClass, ulong

_A = Attribute
_YES, _NO = b"\x01", b"\x00"
_ED25519 = core.ObjectIdentifier("1.3.101.112").dump()
_CURVES: dict[bytes, type[ec.EllipticCurve]] = {
    core.ObjectIdentifier(oid).dump(): curve
    for oid, curve in (
        ("1.2.840.10045.3.1.7", ec.SECP256R1),
        ("1.3.132.0.34", ec.SECP384R1),
        ("1.3.132.0.35", ec.SECP521R1),
    )
}
_CURVE_OIDS = {curve().name: oid for oid, curve in _CURVES.items()}
KINDS = {KeyType.rsa: "rsa", KeyType.dsa: "dsa", KeyType.ec: "ec", KeyType.ec_edwards: "ed25519"}


class KeyObjects(NamedTuple):
    """What is stored of a key pair: `secret` values still in the clear, to be encrypted."""

    public: dict[int, bytes]
    private: dict[int, bytes]
    secret: dict[int, bytes]


def key_id(public_key: PublicKeyTypes) -> bytes:
    """CKA_ID of a key pair and of its certificates."""
    return _digest(_public_parts(public_key)[1])


def key_id_of_certificate(certificate: x509.Certificate) -> bytes:
    """CKA_ID of a certificate; also for keys of kinds that are not kept here."""
    info = certificate.public_key
    try:
        algorithm = info["algorithm"]["algorithm"].native
        if algorithm in ("rsa", "rsassa_pss"):
            return _digest(_unsigned(info["public_key"].parsed["modulus"].native))
        if algorithm == "dsa":
            return _digest(_unsigned(info["public_key"].parsed.native))
        return _digest(bytes(info["public_key"]) if algorithm == "ec" else info["public_key"].native)
    except (ValueError, TypeError):
        return hashlib.sha1(info.dump(), usedforsecurity=False).digest()


def to_objects(private_key: PrivateKeyTypes, nickname: str, subject: bytes) -> KeyObjects:
    """The objects of a key pair.  Raises ConfigurationError for kinds of keys that NSS has no place for."""
    public_key = private_key.public_key()
    common, public_value = _public_parts(public_key)
    kind = int.from_bytes(common[_A.key_type], "big")
    identity = {_A.token: _YES, _A.id: _digest(public_value), _A.start_date: b"", _A.end_date: b"", _A.modifiable: _YES}
    encrypts, derives = (_YES if kind == KeyType.rsa else _NO), (_YES if kind == KeyType.ec else _NO)
    public = common | identity | {_A.object_class: ulong(ObjectClass.public_key), _A.private: _NO, _A.label: b"", _A.subject: b""}
    public |= {_A.encrypt: encrypts, _A.wrap: encrypts, _A.verify: _YES, _A.verify_recover: encrypts, _A.derive: derives}
    public |= {_A.local: _NO} | _stored_public_value(kind, public_value)
    private = common | identity | {_A.object_class: ulong(ObjectClass.private_key), _A.private: _YES, _A.subject: subject}
    private |= {_A.label: nickname.encode(), _A.sensitive: _YES, _A.extractable: _YES, _A.local: _NO}
    private |= {_A.decrypt: encrypts, _A.unwrap: encrypts, _A.sign: _YES, _A.sign_recover: encrypts, _A.derive: derives}
    private |= {_A.never_extractable: _NO, _A.always_sensitive: _NO, _A.nss_db: public_value}
    return KeyObjects(public, private, _secret_parts(private_key))


def is_known(attributes: Mapping[int, bytes]) -> bool:
    """False for a key on a curve that is not read here; certutil makes such too: X25519."""
    curve = attributes.get(_A.ec_params, b"")
    names_a_curve = attributes.get(_A.key_type) == ulong(KeyType.ec) and curve.startswith(b"\x06")  # an OBJECT IDENTIFIER
    return not names_a_curve or curve in _CURVES


def public_key(attributes: Mapping[int, bytes]) -> PublicKeyTypes:
    """The public key of a private key's or public key's object.  Raises DatabaseError where it makes no sense."""
    try:
        return _READERS[int.from_bytes(attributes[_A.key_type], "big")](attributes)
    except (ValueError, KeyError, TypeError, OverflowError, UnsupportedAlgorithm):
        raise DatabaseError("the database holds a key that makes no sense, or is of a kind this library does not know") from None


def private_key(attributes: Mapping[int, bytes], secret: Mapping[int, bytes]) -> PrivateKeyTypes:
    """The private key, checked against its public side.  Raises DatabaseError, which says nothing of the key."""
    public = public_key(attributes)
    try:
        key = _private_key(public, secret)
    except (ValueError, KeyError, TypeError, OverflowError, UnsupportedAlgorithm):
        raise DatabaseError("the database holds a private key that makes no sense") from None
    if key.public_key() != public:
        raise DatabaseError("the database holds a private key that is not that of its public key")
    return key


def _public_parts(public_key: PublicKeyTypes) -> tuple[dict[int, bytes], bytes]:
    """The attributes that both objects of a pair have, and the public value."""
    if isinstance(public_key, rsa.RSAPublicKey):
        numbers = public_key.public_numbers()
        modulus = _unsigned(numbers.n)
        return {_A.key_type: ulong(KeyType.rsa), _A.modulus: modulus, _A.public_exponent: _unsigned(numbers.e)}, modulus
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name in _CURVE_OIDS:
        point = public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {_A.key_type: ulong(KeyType.ec), _A.ec_params: _CURVE_OIDS[public_key.curve.name]}, point
    if isinstance(public_key, dsa.DSAPublicKey):
        values = public_key.public_numbers()
        p, q, g = (_unsigned(n) for n in (values.parameter_numbers.p, values.parameter_numbers.q, values.parameter_numbers.g))
        return {_A.key_type: ulong(KeyType.dsa), _A.prime: p, _A.subprime: q, _A.base: g}, _unsigned(values.y)
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return {_A.key_type: ulong(KeyType.ec_edwards), _A.ec_params: _ED25519}, public_key.public_bytes_raw()
    raise ConfigurationError("NSS databases keep RSA, DSA, Ed25519 keys and those on P-256, P-384 and P-521, and no others")


def _stored_public_value(kind: int, value: bytes) -> dict[int, bytes]:
    """Where a public key's object has its public value."""
    if kind == KeyType.dsa:
        return {_A.value: value}
    return {} if kind == KeyType.rsa else {_A.ec_point: core.OctetString(value).dump()}


def _secret_parts(private_key: PrivateKeyTypes) -> dict[int, bytes]:
    if isinstance(private_key, rsa.RSAPrivateKey):
        numbers = private_key.private_numbers()
        values = (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
        return dict(zip(_RSA_SECRETS, (_unsigned(value) for value in values), strict=True))
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        size = (private_key.key_size + 7) // 8
        return {_A.value: private_key.private_numbers().private_value.to_bytes(size, "big")}
    if isinstance(private_key, dsa.DSAPrivateKey):
        return {_A.value: _unsigned(private_key.private_numbers().x)}
    assert isinstance(private_key, ed25519.Ed25519PrivateKey)  # _public_parts refuses all others
    return {_A.value: private_key.private_bytes_raw()}


_RSA_SECRETS = (_A.private_exponent, _A.prime_1, _A.prime_2, _A.exponent_1, _A.exponent_2, _A.coefficient)


def _rsa(attributes: Mapping[int, bytes]) -> PublicKeyTypes:
    return rsa.RSAPublicNumbers(_number(attributes[_A.public_exponent]), _number(attributes[_A.modulus])).public_key()


def _dsa(attributes: Mapping[int, bytes]) -> PublicKeyTypes:
    y = attributes[_A.nss_db if int.from_bytes(attributes[_A.object_class], "big") == ObjectClass.private_key else _A.value]
    p, q, g = (_number(attributes[name]) for name in (_A.prime, _A.subprime, _A.base))
    return dsa.DSAPublicNumbers(_number(y), dsa.DSAParameterNumbers(p, q, g)).public_key()


def _ec(attributes: Mapping[int, bytes]) -> PublicKeyTypes:
    curve = _CURVES[attributes[_A.ec_params]]()
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, _point(attributes, 1 + 2 * ((curve.key_size + 7) // 8)))


def _ed25519(attributes: Mapping[int, bytes]) -> PublicKeyTypes:
    return ed25519.Ed25519PublicKey.from_public_bytes(_point(attributes, 32))


def _point(attributes: Mapping[int, bytes], size: int) -> bytes:
    """A point is kept raw, or in an OCTET STRING (PKCS #11 v3.1 section 6.3.3); both are found in real files.

    Its size tells them apart: a raw point begins with 04 as an OCTET STRING does, and what follows may look like a length.
    """
    value = attributes.get(_A.nss_db) or attributes[_A.ec_point]
    return value if len(value) == size else bytes(core.OctetString.load(value, strict=True))


_READERS: dict[int, Callable[[Mapping[int, bytes]], PublicKeyTypes]] = {
    KeyType.rsa: _rsa,
    KeyType.dsa: _dsa,
    KeyType.ec: _ec,
    KeyType.ec_edwards: _ed25519,
}


def _private_key(public: PublicKeyTypes, secret: Mapping[int, bytes]) -> PrivateKeyTypes:
    if isinstance(public, rsa.RSAPublicKey):
        d, p, q, dmp1, dmq1, iqmp = (_number(secret[name]) for name in _RSA_SECRETS)
        return rsa.RSAPrivateNumbers(p, q, d, dmp1, dmq1, iqmp, public.public_numbers()).private_key()
    value = secret[_A.value]
    if isinstance(public, ec.EllipticCurvePublicKey):
        return ec.derive_private_key(_number(value), public.curve)
    if isinstance(public, dsa.DSAPublicKey):
        return dsa.DSAPrivateNumbers(_number(value), public.public_numbers()).private_key()
    return ed25519.Ed25519PrivateKey.from_private_bytes(value)


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _unsigned(number: int) -> bytes:
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def _digest(public_value: bytes) -> bytes:
    """PK11_MakeIDFromPubKey: what is short already is taken as it is."""
    return public_value if len(public_value) <= 20 else hashlib.sha1(public_value, usedforsecurity=False).digest()
