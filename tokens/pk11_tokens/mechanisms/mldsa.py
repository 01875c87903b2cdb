"""ML-DSA (FIPS 204; PKCS #11 3.2 section 6.67)."""

from __future__ import annotations

from struct import Struct
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa

from ..abi import CKA, CKK, CKM, CKR, Refused
from ..keytypes import Values, parameter_set
from ..memory import Mechanism, Memory
from .capability import Capability, Checked, Parameter, Transformation, Verification, Whole, words

_ADDITIONAL_CONTEXT = Struct("@LPL")  # CK_SIGN_ADDITIONAL_CONTEXT: hedgeVariant, pContext, ulContextLen
_DETERMINISTIC_REQUIRED = 2
_LONGEST_CONTEXT = 255

_LENGTHS: dict[type[Any], int] = {
    mldsa.MLDSA44PrivateKey: 2420,
    mldsa.MLDSA44PublicKey: 2420,
    mldsa.MLDSA65PrivateKey: 3309,
    mldsa.MLDSA65PublicKey: 3309,
    mldsa.MLDSA87PrivateKey: 4627,
    mldsa.MLDSA87PublicKey: 4627,
}
_SIZES = (1312, 2592)  # bytes of a public key


def generate(template: Values) -> Any:
    """Raises Refused(CKR_ATTRIBUTE_VALUE_INVALID)."""
    return parameter_set(template[CKA.PARAMETER_SET])[0].generate()


def _parameter(mechanism: Mechanism, memory: Memory) -> bytes | None:
    """The context, None without one.  Raises Refused(CKR_MECHANISM_PARAM_INVALID) where signing must not be hedged."""
    if not mechanism.length:
        return None
    hedge, pointer, length = words(mechanism, _ADDITIONAL_CONTEXT)
    if hedge >= _DETERMINISTIC_REQUIRED or length > _LONGEST_CONTEXT:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return memory.read(pointer, length) or None


def _length(key: Any) -> int:
    return next(length for kind, length in _LENGTHS.items() if isinstance(key, kind))


def _sign(key: Any, context: Parameter) -> Transformation:
    return Whole(lambda data: key.sign(data, context), _length(key))


def _verify(key: Any, context: Parameter) -> Verification:
    def check(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data, context)
        except InvalidSignature:
            return False
        return True

    return Checked(check, _length(key))


CAPABILITIES = (
    Capability(mechanism=CKM.ML_DSA_KEY_PAIR_GEN, key_types=(CKK.ML_DSA,), sizes=_SIZES, generate_pair=generate),
    Capability(
        mechanism=CKM.ML_DSA, key_types=(CKK.ML_DSA,), sizes=_SIZES, parameter=_parameter, sign=_sign, verify=_verify, parts=False
    ),
)
