"""RSA: PKCS #1 v1.5, PSS, OAEP and the bare operation (PKCS #11 3.1 section 6.1; RFC 8017)."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed
from cryptography.hazmat.primitives.hashes import HashAlgorithm

from ..abi import CKA, CKK, CKM, CKR, ULONG, Refused
from ..keytypes import Values
from ..memory import Mechanism, Memory
from .capability import Capability, Checked, Parameter, Start, Transformation, Verification, Whole, words
from .digests import HASHES, digest, mgf1

SMALLEST, LARGEST = 1024, 4096  # bits

_PSS_PARAMS = Struct("@3L")  # hashAlg, mgf, sLen
_OAEP_PARAMS = Struct("@3LPL")  # hashAlg, mgf, source, pSourceData, ulSourceDataLen
_CKZ_DATA_SPECIFIED = 1
_PKCS1 = padding.PKCS1v15()
_MORE_THAN_DATA = 11  # PKCS #1 v1.5 needs so many bytes more (RFC 8017 sections 7.2.1 and 9.2)


def _bytes(key: Any) -> int:
    return (int(key.key_size) + 7) // 8


def generate(template: Values) -> rsa.RSAPrivateKey:
    """Raises Refused: CKR_KEY_SIZE_RANGE, CKR_ATTRIBUTE_VALUE_INVALID for an exponent that is too unusual."""
    size = ULONG.unpack(template[CKA.MODULUS_BITS])[0]
    if not SMALLEST <= size <= LARGEST:
        raise Refused(CKR.KEY_SIZE_RANGE)
    exponent = int.from_bytes(template.get(CKA.PUBLIC_EXPONENT) or b"\1\0\1", "big")
    try:
        return rsa.generate_private_key(exponent, size)
    except ValueError:  # `cryptography` makes keys with 65537 and 3 only
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID) from None


# --- signatures ------------------------------------------------------------------------------------------------------


def _verified(verify: Callable[[bytes, bytes], Any]) -> Callable[[bytes, bytes], bool]:
    def check(signature: bytes, data: bytes) -> bool:
        try:
            verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True

    return check


def _sign(pad: Callable[[Parameter], padding.AsymmetricPadding], hashed: Callable[[Parameter], Any], fits: Any) -> Start:
    def start(key: rsa.RSAPrivateKey, parameter: Parameter) -> Transformation:
        scheme, algorithm = pad(parameter), hashed(parameter)

        def work(data: bytes) -> bytes:
            fits(key, parameter, data)
            try:
                return key.sign(data, scheme, algorithm)
            except ValueError:  # the modulus is too short for this digest and salt
                raise Refused(CKR.KEY_SIZE_RANGE) from None

        return Whole(work, _bytes(key))

    return start


def _verify(pad: Callable[[Parameter], padding.AsymmetricPadding], hashed: Callable[[Parameter], Any], fits: Any) -> Any:
    def start(key: rsa.RSAPublicKey, parameter: Parameter) -> Verification:
        scheme, algorithm = pad(parameter), hashed(parameter)

        def verify(signature: bytes, data: bytes) -> None:
            fits(key, parameter, data)
            key.verify(signature, data, scheme, algorithm)

        return Checked(_verified(verify), _bytes(key))

    return start


def _any_length(key: Any, parameter: Parameter, data: bytes) -> None:
    pass


def _room_for_padding(key: Any, parameter: Parameter, data: bytes) -> None:
    if len(data) > _bytes(key) - _MORE_THAN_DATA:
        raise Refused(CKR.DATA_LEN_RANGE)


def _length_of_digest(key: Any, parameter: Parameter, data: bytes) -> None:
    if len(data) != parameter[0].digest_size:
        raise Refused(CKR.DATA_LEN_RANGE)


def _pss_parameter(mechanism: Mechanism, memory: Memory) -> tuple[HashAlgorithm, padding.PSS]:
    hash_, mask, salt = words(mechanism, _PSS_PARAMS)
    if salt > LARGEST // 8:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return digest(hash_), padding.PSS(padding.MGF1(mgf1(mask)), salt)


def _hashed_pss_parameter(algorithm: HashAlgorithm) -> Callable[[Mechanism, Memory], tuple[HashAlgorithm, padding.PSS]]:
    def read(mechanism: Mechanism, memory: Memory) -> tuple[HashAlgorithm, padding.PSS]:
        parameter = _pss_parameter(mechanism, memory)
        if parameter[0].name != algorithm.name:  # section 6.1.13: must be the hash of the mechanism
            raise Refused(CKR.MECHANISM_PARAM_INVALID)
        return parameter

    return read


# --- encryption ------------------------------------------------------------------------------------------------------


def _encrypt(pad: Callable[[Parameter], padding.AsymmetricPadding]) -> Start:
    def start(key: rsa.RSAPublicKey, parameter: Parameter) -> Transformation:
        def work(data: bytes) -> bytes:
            try:
                return key.encrypt(data, pad(parameter))
            except ValueError:
                raise Refused(CKR.DATA_LEN_RANGE) from None

        return Whole(work, _bytes(key))

    return start


def _decrypt(pad: Callable[[Parameter], padding.AsymmetricPadding]) -> Start:
    """PKCS #1 v1.5 with implicit rejection, as OpenSSL does it: bad padding gives random data, not an error."""

    def start(key: rsa.RSAPrivateKey, parameter: Parameter) -> Transformation:
        def work(data: bytes) -> bytes:
            if len(data) != _bytes(key):
                raise Refused(CKR.ENCRYPTED_DATA_LEN_RANGE)
            try:
                return key.decrypt(data, pad(parameter))
            except ValueError:
                raise Refused(CKR.ENCRYPTED_DATA_INVALID) from None

        return Whole(work, _bytes(key))

    return start


def _oaep_parameter(mechanism: Mechanism, memory: Memory) -> padding.OAEP:
    hash_, mask, source, pointer, length = words(mechanism, _OAEP_PARAMS)
    if source not in (0, _CKZ_DATA_SPECIFIED):
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    label = memory.read(pointer, length) if length else None
    return padding.OAEP(padding.MGF1(mgf1(mask)), digest(hash_), label)


# --- the bare operation ----------------------------------------------------------------------------------------------


def _number(key: Any, data: bytes) -> int:
    """Data as a number below the modulus; shorter data is padded with zeros in front (section 6.1.7)."""
    value = int.from_bytes(data, "big")
    if len(data) > _bytes(key) or value >= key.public_numbers().n:
        raise Refused(CKR.DATA_LEN_RANGE)
    return value


def _bare_private(key: rsa.RSAPrivateKey, parameter: Parameter) -> Transformation:
    def work(data: bytes) -> bytes:
        numbers = key.private_numbers()
        value = _number(key.public_key(), data)
        of_p, of_q = pow(value, numbers.dmp1, numbers.p), pow(value, numbers.dmq1, numbers.q)
        result = of_q + (of_p - of_q) * numbers.iqmp % numbers.p * numbers.q  # RFC 8017 section 5.1.2
        return result.to_bytes(_bytes(key), "big")

    return Whole(work, _bytes(key))


def _bare_public(key: rsa.RSAPublicKey, parameter: Parameter) -> Transformation:
    def work(data: bytes) -> bytes:
        numbers = key.public_numbers()
        return pow(_number(key, data), numbers.e, numbers.n).to_bytes(_bytes(key), "big")

    return Whole(work, _bytes(key))


def _bare_verify(key: rsa.RSAPublicKey, parameter: Parameter) -> Verification:
    def check(signature: bytes, data: bytes) -> bool:
        numbers = key.public_numbers()
        return pow(_number(key, signature), numbers.e, numbers.n) == _number(key, data)

    return Checked(check, _bytes(key))


# --- the table -------------------------------------------------------------------------------------------------------


def _pkcs1(parameter: Parameter) -> padding.AsymmetricPadding:
    return _PKCS1


def _capability(mechanism: CKM, **uses: Any) -> Capability:
    return Capability(mechanism=mechanism, key_types=(CKK.RSA,), sizes=(SMALLEST, LARGEST), **uses)


def _signing(mechanism: CKM, pad: Any, hashed: Any, fits: Any, **more: Any) -> Capability:
    return _capability(mechanism, sign=_sign(pad, hashed, fits), verify=_verify(pad, hashed, fits), **more)


def _hashed(name: str, algorithm: HashAlgorithm) -> tuple[Capability, Capability]:
    return (
        _signing(CKM[f"{name}_RSA_PKCS"], _pkcs1, lambda parameter: algorithm, _any_length),
        _signing(
            CKM[f"{name}_RSA_PKCS_PSS"],
            lambda parameter: parameter[1],
            lambda parameter: algorithm,
            _any_length,
            parameter=_hashed_pss_parameter(algorithm),
        ),
    )


def _oaep(parameter: Parameter) -> padding.AsymmetricPadding:
    oaep: padding.OAEP = parameter
    return oaep


CAPABILITIES = (
    _capability(CKM.RSA_PKCS_KEY_PAIR_GEN, generate_pair=generate),
    _signing(
        CKM.RSA_PKCS,
        _pkcs1,
        lambda parameter: NoDigestInfo(),
        _room_for_padding,
        encrypt=_encrypt(_pkcs1),
        decrypt=_decrypt(_pkcs1),
        parts=False,
        wraps=True,
    ),
    _capability(
        CKM.RSA_X_509,
        sign=_bare_private,
        verify=_bare_verify,
        encrypt=_bare_public,
        decrypt=_bare_private,
        parts=False,
    ),
    _capability(
        CKM.RSA_PKCS_OAEP, parameter=_oaep_parameter, encrypt=_encrypt(_oaep), decrypt=_decrypt(_oaep), parts=False, wraps=True
    ),
    _signing(
        CKM.RSA_PKCS_PSS,
        lambda parameter: parameter[1],
        lambda parameter: Prehashed(parameter[0]),
        _length_of_digest,
        parameter=_pss_parameter,
        parts=False,
    ),
    *(capability for name, algorithm in HASHES.items() for capability in _hashed(name, algorithm)),
)
