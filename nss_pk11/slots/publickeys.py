"""Public keys as PKCS #11 attributes show them, and the identity by which a key is found again.

Sources: PKCS #11 3.1 sections 6.1 (RSA), 6.2 (DSA), 6.3 (EC and Edwards), 3.2 (ML-DSA); RFC 8410.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1
from typing import Any

from asn1crypto.core import ObjectIdentifier, OctetString, PrintableString
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from . import kea
from .cryptoki import PUBLIC_KEY_INFO, Attribute, Attributes, KeyType
from .model import PublicKey

_KINDS: dict[type[Any], str] = {
    rsa.RSAPublicKey: "rsa",
    dsa.DSAPublicKey: "dsa",
    ec.EllipticCurvePublicKey: "ec",
    ed25519.Ed25519PublicKey: "ed25519",
    ed448.Ed448PublicKey: "ed448",
    mldsa.MLDSA44PublicKey: "mldsa44",
    mldsa.MLDSA65PublicKey: "mldsa65",
    mldsa.MLDSA87PublicKey: "mldsa87",
    kea.KeaPublicKey: "kea",
}
_EDWARDS: dict[str, type[ed25519.Ed25519PublicKey] | type[ed448.Ed448PublicKey]] = {
    "1.3.101.112": ed25519.Ed25519PublicKey,
    "1.3.101.113": ed448.Ed448PublicKey,
}
_CURVE_NAMES = {"edwards25519": "1.3.101.112", "edwards448": "1.3.101.113"}
_MLDSA: dict[int, type[mldsa.MLDSA44PublicKey] | type[mldsa.MLDSA65PublicKey] | type[mldsa.MLDSA87PublicKey]] = {
    1: mldsa.MLDSA44PublicKey,
    2: mldsa.MLDSA65PublicKey,
    3: mldsa.MLDSA87PublicKey,
}  # CKP_ML_DSA_44…
_BITS = {"ed25519": 256, "ed448": 456, "mldsa44": 1312 * 8, "mldsa65": 1952 * 8, "mldsa87": 2592 * 8}


def kind_of(key: PublicKey) -> str:
    return next(name for kind, name in _KINDS.items() if isinstance(key, kind))


def bits_of(key: PublicKey) -> int:
    """Modulus, prime or field size; for the others the size of the encoded public key."""
    sized = rsa.RSAPublicKey | dsa.DSAPublicKey | ec.EllipticCurvePublicKey | kea.KeaPublicKey
    return key.key_size if isinstance(key, sized) else _BITS[kind_of(key)]


def order_bits(key: PublicKey) -> int:
    """What the length of a signature follows from: the size of DSA's subprime q, else `bits_of`."""
    return key.parameters().parameter_numbers().q.bit_length() if isinstance(key, dsa.DSAPublicKey) else bits_of(key)


def spki(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo in DER: the identity of a key pair."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def default_id(key: PublicKey) -> bytes:
    """SHA-1 of the public key's bits (RFC 5280 section 4.2.1.2, method 1), the usual CKA_ID."""
    if isinstance(key, kea.KeaPublicKey):
        return sha1(key.public, usedforsecurity=False).digest()
    return x509.SubjectKeyIdentifier.from_public_key(key).digest


def from_certificate(der: bytes) -> PublicKey | None:
    """The key of a certificate, None if it is of no known type or the certificate does not parse."""
    try:
        return _known(x509.load_der_x509_certificate(der).public_key())
    except UnsupportedAlgorithm:
        return kea.from_certificate(der)
    except ValueError:
        return None


def from_attributes(values: Attributes) -> PublicKey | None:
    """The public key that the attributes of a private or public key object tell, None if they do not tell it whole."""
    try:
        if values.get(PUBLIC_KEY_INFO):
            return kea.from_public_key_info(values[PUBLIC_KEY_INFO]) or _known(load_der_public_key(values[PUBLIC_KEY_INFO]))
        match values.get(Attribute.KEY_TYPE):
            case KeyType.RSA:
                return _rsa(values)
            case KeyType.DSA:
                return _dsa(values)
            case KeyType._KEA:
                return _kea(values)
            case KeyType.EC:
                return _ec(values)
            case KeyType.EC_EDWARDS:
                return _edwards(values)
            case KeyType.ML_DSA:
                return _MLDSA[values[Attribute.PARAMETER_SET]].from_public_bytes(values[Attribute.VALUE])
    except (LookupError, ValueError, TypeError, UnsupportedAlgorithm):
        pass
    return None


def _known(key: object) -> PublicKey | None:
    return key if isinstance(key, PublicKey) else None


def _rsa(values: Attributes) -> PublicKey:
    modulus, exponent = values[Attribute.MODULUS], values[Attribute.PUBLIC_EXPONENT]
    return rsa.RSAPublicNumbers(int.from_bytes(exponent), int.from_bytes(modulus)).public_key()


_DOMAIN = Attribute.PRIME, Attribute.SUBPRIME, Attribute.BASE


def _dsa(values: Attributes) -> PublicKey:
    """Of a public key object: CKA_VALUE is y there, and the secret x, which is not asked for, of a private one."""
    p, q, g, y = (int.from_bytes(values[name]) for name in (*_DOMAIN, Attribute.VALUE))
    return dsa.DSAPublicNumbers(y, dsa.DSAParameterNumbers(p, q, g)).public_key()


def _kea(values: Attributes) -> PublicKey:
    p, q, g = (values[name] for name in _DOMAIN)
    return kea.from_parameters(p, q, g, values[Attribute.VALUE])


def _ec(values: Attributes) -> PublicKey:
    curve = ec.get_curve_for_oid(x509.ObjectIdentifier(curve_of(values)))()
    return _from_point(lambda point: ec.EllipticCurvePublicKey.from_encoded_point(curve, point), values)


def _edwards(values: Attributes) -> PublicKey:
    return _from_point(_EDWARDS[curve_of(values)].from_public_bytes, values)


def _from_point(load: Callable[[bytes], PublicKey], values: Attributes) -> PublicKey:
    """CKA_EC_POINT is an OCTET STRING in DER; some modules give the bare point, which may happen to look like one."""
    point = values[Attribute.EC_POINT]
    try:
        return load(bytes(OctetString.load(point, strict=True).native))
    except ValueError:
        return load(point)


def curve_of(values: Attributes) -> str:
    """The curve's OID, dotted, "" if there is none.

    CKA_EC_PARAMS is an OID or, for Edwards curves, may be a name (PKCS #11 3.1 section 6.3.3); SoftHSM gives one for the public
    half of a pair and the other for the private.  Raises ValueError for explicit parameters.
    """
    parameters = values.get(Attribute.EC_PARAMS)
    if not parameters:
        return ""
    if parameters[0] == PrintableString.tag:
        return _CURVE_NAMES.get(PrintableString.load(parameters).native, "")
    return str(ObjectIdentifier.load(parameters).dotted)
