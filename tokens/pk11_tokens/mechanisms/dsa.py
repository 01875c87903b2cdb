"""DSA (PKCS #11 3.1 section 6.2; FIPS 186-4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature

from ..abi import CKK, CKM, CKR, Refused
from ..keytypes import Values, dsa_parameters
from .capability import Capability, Checked, Parameter, Start, Transformation, Verification, Whole
from .digests import HASHES

_BITS = (1024, 3072)
_BARE = {algorithm.digest_size: Prehashed(algorithm) for algorithm in HASHES.values()}  # section 6.2.13: no other lengths
_Prepare = Callable[[bytes], hashes.HashAlgorithm | Prehashed]


def generate(template: Values) -> dsa.DSAPrivateKey:
    """Raises Refused(CKR_DOMAIN_PARAMS_INVALID)."""
    try:
        return dsa_parameters(template).parameters().generate_private_key()
    except ValueError:
        raise Refused(CKR.DOMAIN_PARAMS_INVALID) from None


def _half(key: Any) -> int:
    """Bytes of each of the two numbers of a signature."""
    return int((key.parameters().parameter_numbers().q.bit_length() + 7) // 8)


def _bare(data: bytes) -> Prehashed:
    if len(data) not in _BARE:
        raise Refused(CKR.DATA_LEN_RANGE)
    return _BARE[len(data)]


def _sign(prepare: _Prepare) -> Start:
    def start(key: dsa.DSAPrivateKey, parameter: Parameter) -> Transformation:
        half = _half(key)

        def work(data: bytes) -> bytes:
            r, s = decode_dss_signature(key.sign(data, prepare(data)))
            return r.to_bytes(half, "big") + s.to_bytes(half, "big")

        return Whole(work, 2 * half)

    return start


def _verify(prepare: _Prepare) -> Callable[[Any, Parameter], Verification]:
    def start(key: dsa.DSAPublicKey, parameter: Parameter) -> Verification:
        half = _half(key)

        def check(signature: bytes, data: bytes) -> bool:
            der = encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
            try:
                key.verify(der, data, prepare(data))
            except InvalidSignature:
                return False
            return True

        return Checked(check, 2 * half)

    return start


def _dsa(mechanism: CKM, prepare: _Prepare, *, parts: bool) -> Capability:
    return Capability(
        mechanism=mechanism, key_types=(CKK.DSA,), sizes=_BITS, sign=_sign(prepare), verify=_verify(prepare), parts=parts
    )


def _hashing(algorithm: hashes.HashAlgorithm) -> _Prepare:
    return lambda data: algorithm


CAPABILITIES = (
    Capability(mechanism=CKM.DSA_KEY_PAIR_GEN, key_types=(CKK.DSA,), sizes=_BITS, generate_pair=generate),
    _dsa(CKM.DSA, _bare, parts=False),
    *(_dsa(CKM[f"DSA_{name}"], _hashing(algorithm), parts=True) for name, algorithm in HASHES.items()),
)
