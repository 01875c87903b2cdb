"""Secret keys: AES, HMAC, key wrapping (PKCS #11 3.1 sections 6.8, 6.10 to 6.13, 6.15 and following)."""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import cmac, hmac, keywrap
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.padding import PKCS7

from ..abi import CKK, CKM, CKR, Refused
from ..memory import Mechanism, Memory
from .capability import (
    Capability,
    Compared,
    Parameter,
    ReadParameter,
    Start,
    Transformation,
    Verification,
    Whole,
    no_parameter,
    words,
)
from .digests import HASHES, Running

_BLOCK = 16
_AES_SIZES = (16, 32)  # bytes
_LONGEST = 512  # bytes of a generic secret

_CTR_PARAMS = Struct("@L16s")  # ulCounterBits, cb
_GCM_PARAMS = Struct("@PLLPLL")  # pIv, ulIvLen, ulIvBits, pAAD, ulAADLen, ulTagBits
_TAGS = (128, 120, 112, 104, 96)  # bits; shorter ones are not worth having


def generate(length: int) -> bytes:
    return os.urandom(length)


# --- block cipher modes ----------------------------------------------------------------------------------------------


class _Blocks:
    """A cipher under way, with PKCS #7 padding or none.

    `padding`: the padder or unpadder, which of them `decrypting` says.  `block`: 1 for a mode that is a stream.
    """

    def __init__(self, context: Any, padding: Any, block: int, *, decrypting: bool) -> None:
        self._context, self._padding, self._block, self._decrypting = context, padding, block, decrypting
        self._pending = 0  # bytes that went in and have not come out

    def size(self, length: int) -> int:
        held = 1 if self._padding and self._decrypting else 0  # the last block may be padding
        return max(0, (self._pending + length - held) // self._block * self._block)

    def last(self, length: int = 0) -> int:
        return self._block if self._padding else 0

    def update(self, data: bytes) -> bytes:
        if self._padding and not self._decrypting:
            result: bytes = self._context.update(self._padding.update(data))
        else:
            result = self._context.update(data)
            result = self._padding.update(result) if self._padding else result
        self._pending += len(data) - len(result)
        return result

    def finish(self) -> bytes:
        try:
            if not self._decrypting:
                padded = self._padding.finalize() if self._padding else b""
                return bytes(self._context.update(padded) + self._context.finalize())
            last = bytes(self._context.finalize())
        except ValueError:
            raise Refused(CKR.ENCRYPTED_DATA_LEN_RANGE if self._decrypting else CKR.DATA_LEN_RANGE) from None
        try:
            return last if not self._padding else bytes(self._padding.update(last) + self._padding.finalize())
        except ValueError:
            raise Refused(CKR.ENCRYPTED_DATA_INVALID) from None


def _blocks(
    mechanism: CKM, mode: Any, parameter: ReadParameter, *, pad: bool = False, block: int = _BLOCK, **more: Any
) -> Capability:
    def encrypt(key: bytes, parameter: Parameter) -> Transformation:
        padder = PKCS7(8 * _BLOCK).padder() if pad else None
        return _Blocks(Cipher(algorithms.AES(key), mode(parameter)).encryptor(), padder, block, decrypting=False)

    def decrypt(key: bytes, parameter: Parameter) -> Transformation:
        unpadder = PKCS7(8 * _BLOCK).unpadder() if pad else None
        return _Blocks(Cipher(algorithms.AES(key), mode(parameter)).decryptor(), unpadder, block, decrypting=True)

    return _aes(mechanism, parameter=parameter, encrypt=encrypt, decrypt=decrypt, **more)


def _aes(mechanism: CKM, **uses: Any) -> Capability:
    return Capability(mechanism=mechanism, key_types=(CKK.AES,), sizes=_AES_SIZES, **uses)


def _block_parameter(mechanism: Mechanism, memory: Memory) -> bytes:
    """The IV."""
    if len(mechanism.parameter) != _BLOCK:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return mechanism.parameter


def _counter_parameter(mechanism: Mechanism, memory: Memory) -> bytes:
    """The first counter block; `cryptography` counts in all 128 bits."""
    if len(mechanism.parameter) != _CTR_PARAMS.size:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    bits, block = _CTR_PARAMS.unpack(mechanism.parameter)
    if not 0 < bits <= 8 * _BLOCK:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return bytes(block)


# --- GCM -------------------------------------------------------------------------------------------------------------


def _gcm_parameter(mechanism: Mechanism, memory: Memory) -> tuple[bytes, bytes, int]:
    """IV, additional data, bytes of the tag."""
    iv, iv_length, _, data, data_length, tag = words(mechanism, _GCM_PARAMS)
    if tag not in _TAGS or not 8 <= iv_length <= 128:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return memory.read(iv, iv_length), memory.read(data, data_length), tag // 8


def _gcm_encrypt(key: bytes, parameter: Parameter) -> Transformation:
    iv, additional, tag = parameter

    def work(data: bytes) -> bytes:
        sealed = AESGCM(key).encrypt(iv, data, additional)
        return sealed[: len(data) + tag]

    return Whole(work, lambda length: length + tag)


def _gcm_decrypt(key: bytes, parameter: Parameter) -> Transformation:
    """Nothing comes out before the tag has been checked (section 6.13.3 lets a token do so)."""
    iv, additional, tag = parameter

    def work(data: bytes) -> bytes:
        if len(data) < tag:
            raise Refused(CKR.ENCRYPTED_DATA_LEN_RANGE)
        context = Cipher(algorithms.AES(key), modes.GCM(iv, data[-tag:], min_tag_length=tag)).decryptor()
        context.authenticate_additional_data(additional)
        try:
            return context.update(data[:-tag]) + context.finalize()
        except InvalidTag:
            raise Refused(CKR.ENCRYPTED_DATA_INVALID) from None

    return Whole(work, lambda length: length - tag)


# --- key wrapping ----------------------------------------------------------------------------------------------------


def _wrapping(mechanism: CKM, wrap: Callable[[bytes, bytes], bytes], unwrap: Callable[[bytes, bytes], bytes]) -> Capability:
    """RFC 3394, RFC 5649: eight bytes more, and up to a multiple of eight."""

    def start(function: Callable[[bytes, bytes], bytes], longer: int, error: CKR) -> Start:
        def begin(key: bytes, parameter: Parameter) -> Transformation:
            def work(data: bytes) -> bytes:
                try:
                    return function(key, data)
                except (ValueError, keywrap.InvalidUnwrap):
                    raise Refused(error) from None

            return Whole(work, lambda length: -(-length // 8) * 8 + longer)

        return begin

    return _aes(
        mechanism,
        encrypt=start(wrap, 8, CKR.DATA_LEN_RANGE),
        decrypt=start(unwrap, 0, CKR.ENCRYPTED_DATA_INVALID),
        parts=False,
        wraps=True,
        only_wraps=True,
    )


# --- MACs ------------------------------------------------------------------------------------------------------------


def _mac(mechanism: CKM, make: Callable[[bytes], Transformation], **more: Any) -> Capability:
    def sign(key: bytes, parameter: Parameter) -> Transformation:
        return make(key)

    def verify(key: bytes, parameter: Parameter) -> Verification:
        return Compared(make(key))

    return Capability(mechanism=mechanism, sign=sign, verify=verify, **more)


def _hmac(name: str, algorithm: HashAlgorithm) -> Capability:
    name = "SHA_1" if name == "SHA1" else name
    return _mac(
        CKM[f"{name}_HMAC"],
        lambda key: Running(hmac.HMAC(key, algorithm), algorithm.digest_size),
        key_types=(CKK.GENERIC_SECRET, CKK[f"{name}_HMAC"]),
        sizes=(algorithm.digest_size // 2, _LONGEST),
    )


CAPABILITIES = (
    Capability(mechanism=CKM.GENERIC_SECRET_KEY_GEN, key_types=(CKK.GENERIC_SECRET,), sizes=(1, _LONGEST), generate=generate),
    _aes(CKM.AES_KEY_GEN, generate=generate),
    _blocks(CKM.AES_ECB, lambda parameter: modes.ECB(), no_parameter),
    _blocks(CKM.AES_CBC, modes.CBC, _block_parameter, wraps=True),
    _blocks(CKM.AES_CBC_PAD, modes.CBC, _block_parameter, pad=True, wraps=True),
    _blocks(CKM.AES_CTR, modes.CTR, _counter_parameter, block=1),
    _aes(CKM.AES_GCM, parameter=_gcm_parameter, encrypt=_gcm_encrypt, decrypt=_gcm_decrypt, wraps=True),
    _wrapping(CKM.AES_KEY_WRAP, keywrap.aes_key_wrap, keywrap.aes_key_unwrap),
    _wrapping(CKM.AES_KEY_WRAP_PAD, keywrap.aes_key_wrap_with_padding, keywrap.aes_key_unwrap_with_padding),
    _mac(
        CKM.AES_CMAC,
        lambda key: Running(cmac.CMAC(algorithms.AES(key)), _BLOCK),
        key_types=(CKK.AES,),
        sizes=_AES_SIZES,
    ),
    *(_hmac(name, algorithm) for name, algorithm in HASHES.items()),
)
