"""Elliptic curves: ECDSA, EdDSA and ECDH (PKCS #11 3.1 section 6.3; FIPS 186-5, RFC 8032)."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from ..abi import CKA, CKF, CKK, CKM, CKR, Refused
from ..keytypes import Values, curve, edwards, point
from ..memory import Mechanism, Memory
from .capability import Capability, Checked, Parameter, Start, Transformation, Verification, Whole, words
from .digests import HASHES

# Bits of the field -> what a bare digest is brought to, which keeps its number: bytes, and an algorithm of that length.
_BARE = {
    256: (32, ec.ECDSA(Prehashed(hashes.SHA256()))),
    384: (48, ec.ECDSA(Prehashed(hashes.SHA384()))),
    521: (64, ec.ECDSA(Prehashed(hashes.SHA512()))),
}
_FLAGS = CKF.EC_F_P | CKF.EC_NAMEDCURVE | CKF.EC_UNCOMPRESS
_BITS = (256, 521)
_EDWARDS_BITS = (255, 448)

_EDDSA_PARAMS = Struct("@BLP")  # phFlag, ulContextDataLen, pContextData
_ECDH1_PARAMS = Struct("@LLPLP")  # kdf, ulSharedDataLen, pSharedData, ulPublicDataLen, pPublicData
_CKD_NULL = 1
_CKD: dict[int, hashes.HashAlgorithm] = {
    2: hashes.SHA1(),
    5: hashes.SHA224(),
    6: hashes.SHA256(),
    7: hashes.SHA384(),
    8: hashes.SHA512(),
}


# --- ECDSA -----------------------------------------------------------------------------------------------------------


def generate(template: Values) -> ec.EllipticCurvePrivateKey:
    """Raises Refused(CKR_CURVE_NOT_SUPPORTED)."""
    return ec.generate_private_key(curve(template[CKA.EC_PARAMS]))


def _half(key: Any) -> int:
    """Bytes of each of the two numbers of a signature."""
    return (int(key.key_size) + 7) // 8


def _bare(key: Any, data: bytes) -> tuple[bytes, ec.ECDSA]:
    """A digest of any length, its leftmost bits if it is longer than the order (FIPS 186-5 section 6.4.1)."""
    size, algorithm = _BARE[key.key_size]
    if not data or (key.key_size > 8 * size and len(data) > size):  # no digest is as long as P-521's order
        raise Refused(CKR.DATA_LEN_RANGE)
    return data[:size].rjust(size, b"\0"), algorithm


def _hashing(algorithm: hashes.HashAlgorithm) -> Callable[[Any, bytes], tuple[bytes, ec.ECDSA]]:
    ecdsa = ec.ECDSA(algorithm)
    return lambda key, data: (data, ecdsa)


def _sign(prepare: Callable[[Any, bytes], tuple[bytes, ec.ECDSA]]) -> Start:
    def start(key: ec.EllipticCurvePrivateKey, parameter: Parameter) -> Transformation:
        half = _half(key)

        def work(data: bytes) -> bytes:
            r, s = decode_dss_signature(key.sign(*prepare(key, data)))
            return r.to_bytes(half, "big") + s.to_bytes(half, "big")

        return Whole(work, 2 * half)

    return start


def _verify(prepare: Callable[[Any, bytes], tuple[bytes, ec.ECDSA]]) -> Callable[[Any, Parameter], Verification]:
    def start(key: ec.EllipticCurvePublicKey, parameter: Parameter) -> Verification:
        half = _half(key)

        def check(signature: bytes, data: bytes) -> bool:
            der = encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
            try:
                key.verify(der, *prepare(key, data))
            except InvalidSignature:
                return False
            return True

        return Checked(check, 2 * half)

    return start


def _ecdsa(mechanism: CKM, prepare: Callable[[Any, bytes], tuple[bytes, ec.ECDSA]], *, parts: bool) -> Capability:
    return Capability(
        mechanism=mechanism,
        key_types=(CKK.EC,),
        sizes=_BITS,
        sign=_sign(prepare),
        verify=_verify(prepare),
        parts=parts,
        more_flags=_FLAGS,
    )


# --- ECDH ------------------------------------------------------------------------------------------------------------


def _ecdh_parameter(mechanism: Mechanism, memory: Memory) -> tuple[hashes.HashAlgorithm | None, bytes, bytes]:
    """Key derivation's hash or None, shared data, the other's point."""
    kdf, shared_length, shared, length, public = words(mechanism, _ECDH1_PARAMS)
    if kdf not in (_CKD_NULL, *_CKD) or (kdf == _CKD_NULL and shared_length):
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return _CKD.get(kdf), memory.read(shared, shared_length), memory.read(public, length)


def _ecdh(key: ec.EllipticCurvePrivateKey, parameter: Parameter, length: int | None) -> bytes:
    """Without a KDF, bytes are cut off in front (section 6.3.17)."""
    algorithm, shared, encoded = parameter
    try:
        other = ec.EllipticCurvePublicKey.from_encoded_point(key.curve, point(encoded))
    except ValueError:
        raise Refused(CKR.MECHANISM_PARAM_INVALID) from None
    secret = key.exchange(ec.ECDH(), other)
    if algorithm is None:
        return secret if length is None else secret[-length:]
    return X963KDF(algorithm, length or algorithm.digest_size, shared or None).derive(secret)


# --- EdDSA -----------------------------------------------------------------------------------------------------------


def generate_edwards(template: Values) -> Any:
    """Raises Refused(CKR_CURVE_NOT_SUPPORTED)."""
    return edwards(template[CKA.EC_PARAMS])[0].generate()


def _eddsa_parameter(mechanism: Mechanism, memory: Memory) -> bool:
    """Whether there are parameters: pure Ed25519 takes none, Ed448 always does (section 6.3.16).

    Raises Refused(CKR_MECHANISM_PARAM_INVALID) for prehashing or a context, which `cryptography` lacks.
    """
    if not mechanism.length:
        return False
    prehash, length, _ = words(mechanism, _EDDSA_PARAMS)
    if prehash or length:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return True


def _edwards_length(key: Any, parameters: Parameter) -> int:
    """Bytes of a signature.  With parameters, edwards25519 would be Ed25519ctx, another scheme (RFC 8032 section 5.1)."""
    is_ed448 = isinstance(key, ed448.Ed448PrivateKey | ed448.Ed448PublicKey)
    if bool(parameters) != is_ed448:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return 114 if is_ed448 else 64


def _eddsa_sign(key: Any, parameters: Parameter) -> Transformation:
    return Whole(key.sign, _edwards_length(key, parameters))


def _eddsa_verify(key: Any, parameters: Parameter) -> Verification:
    def check(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return Checked(check, _edwards_length(key, parameters))


CAPABILITIES = (
    Capability(mechanism=CKM.EC_KEY_PAIR_GEN, key_types=(CKK.EC,), sizes=_BITS, generate_pair=generate, more_flags=_FLAGS),
    _ecdsa(CKM.ECDSA, _bare, parts=False),
    *(_ecdsa(CKM[f"ECDSA_{name}"], _hashing(algorithm), parts=True) for name, algorithm in HASHES.items()),
    Capability(
        mechanism=CKM.ECDH1_DERIVE, key_types=(CKK.EC,), sizes=_BITS, parameter=_ecdh_parameter, derive=_ecdh, more_flags=_FLAGS
    ),
    Capability(
        mechanism=CKM.EC_EDWARDS_KEY_PAIR_GEN, key_types=(CKK.EC_EDWARDS,), sizes=_EDWARDS_BITS, generate_pair=generate_edwards
    ),
    Capability(
        mechanism=CKM.EDDSA,
        key_types=(CKK.EC_EDWARDS,),
        sizes=_EDWARDS_BITS,
        parameter=_eddsa_parameter,
        sign=_eddsa_sign,
        verify=_eddsa_verify,
        parts=False,
    ),
)
