"""What a row of the table of mechanisms says, and the shapes of the work it starts.

A digest, a signature and a cipher under way all are a `Transformation`: data goes in by parts, data comes out by parts.
So functions of one part and of several are the same few lines for all of them (`functions.operations`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Protocol

from cryptography.hazmat.primitives.constant_time import bytes_eq

from ..abi import CKF, CKM, CKR, Refused
from ..keytypes import Values
from ..memory import Mechanism, Memory


class Transformation(Protocol):
    """Work under way.  `update` and `finish` raise Refused."""

    def size(self, length: int) -> int:
        """How many bytes, at most, `update` gives for so many."""

    def last(self, length: int = 0) -> int:
        """How many bytes, at most, `finish` gives once so many more have been put in."""

    def update(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class Verification(Protocol):
    """A signature being checked."""

    def update(self, data: bytes) -> None: ...

    def finish(self, signature: bytes) -> None:
        """Raises Refused: CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE."""


class Saveable(Transformation, Protocol):
    """Work that can be left, and taken up elsewhere."""

    def state(self) -> tuple[bytes, bytes]:
        """The parameter with which the same work goes on from here, and what was put in that has given nothing yet."""


class Whole:
    """Work that needs all data at once.  `length`: of the result, or how it follows from that of the data."""

    def __init__(self, work: Callable[[bytes], bytes], length: int | Callable[[int], int]) -> None:
        self._work, self._length = work, length
        self._data = b""

    def size(self, length: int) -> int:
        return 0

    def last(self, length: int = 0) -> int:
        return self._length if isinstance(self._length, int) else max(0, self._length(len(self._data) + length))

    def update(self, data: bytes) -> bytes:
        self._data += data
        return b""

    def finish(self) -> bytes:
        return self._work(self._data)


class Checked:
    """`check(signature, data)` says whether a signature of `length` bytes is right."""

    def __init__(self, check: Callable[[bytes, bytes], bool], length: int) -> None:
        self._check, self._length = check, length
        self._data = b""

    def update(self, data: bytes) -> None:
        self._data += data

    def finish(self, signature: bytes) -> None:
        if len(signature) != self._length:
            raise Refused(CKR.SIGNATURE_LEN_RANGE)
        if not self._check(signature, self._data):
            raise Refused(CKR.SIGNATURE_INVALID)


class Compared:
    """A MAC is checked by making it again."""

    def __init__(self, mac: Transformation) -> None:
        self._mac = mac

    def update(self, data: bytes) -> None:
        self._mac.update(data)

    def finish(self, signature: bytes) -> None:
        if len(signature) != self._mac.last():
            raise Refused(CKR.SIGNATURE_LEN_RANGE)
        if not bytes_eq(self._mac.finish(), signature):
            raise Refused(CKR.SIGNATURE_INVALID)


Parameter = Any  # what a mechanism makes of its CK_MECHANISM
Start = Callable[[Any, Parameter], Transformation]  # with a key of `cryptography`, bytes for a secret key
ReadParameter = Callable[[Mechanism, Memory], Parameter]


def no_parameter(mechanism: Mechanism, memory: Memory) -> None:
    """For mechanisms that take none.  Raises Refused(CKR_MECHANISM_PARAM_INVALID)."""
    if mechanism.length:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)


def words(mechanism: Mechanism, layout: Struct) -> tuple[int, ...]:
    """The members of a parameter structure.  Raises Refused(CKR_MECHANISM_PARAM_INVALID) for another length."""
    if len(mechanism.parameter) != layout.size:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return layout.unpack(mechanism.parameter)


@dataclass(frozen=True, kw_only=True)
class Capability:
    """What a mechanism can do; a use that is None is not among it.

    `key_types`: CKK of the keys it works with, or makes.  `sizes`: of keys, as C_GetMechanismInfo tells them.  `parts`: it may
    be used part by part.  `wraps`: keys are wrapped by encrypting them.  `saves`: what it starts is `Saveable`.
    `made_parameter`: reads the parameter in place of `parameter` where the token, not the host, chooses what is in it to encrypt
    with.  `first_phase`: says whether C_DeriveKey was called for something else than a key, which is then done.  `fixed`:
    attributes that secret and private keys made with it have, whatever a template says.
    """

    mechanism: CKM
    key_types: tuple[int, ...] = ()
    sizes: tuple[int, int] = (0, 0)
    parameter: ReadParameter = no_parameter
    digest: Callable[[Parameter], Transformation] | None = None
    sign: Start | None = None
    verify: Callable[[Any, Parameter], Verification] | None = None
    encrypt: Start | None = None
    decrypt: Start | None = None
    generate: Callable[[int], bytes] | None = None  # length wanted -> a secret key
    generate_pair: Callable[[Values], Any] | None = None  # template of the public key -> a private key
    derive: Callable[[Any, Parameter, int | None], bytes] | None = None  # key, parameter, length wanted -> a secret key
    made_parameter: ReadParameter | None = None
    first_phase: Callable[[Any, Parameter], bool] | None = None
    fixed: dict[int, bytes] = field(default_factory=dict)
    parts: bool = True
    wraps: bool = False
    only_wraps: bool = False
    saves: bool = False
    more_flags: int = 0

    @property
    def name(self) -> str:
        return f"CKM_{self.mechanism.name}"

    def can(self, use: str) -> bool:
        """Whether it is good for "sign", "wrap", "generate_pair", …"""
        if use in ("wrap", "unwrap"):
            return self.wraps
        return getattr(self, use) is not None and not (self.only_wraps and use in ("encrypt", "decrypt"))

    @property
    def flags(self) -> int:
        """CKF_ bits of CK_MECHANISM_INFO, without CKF_HW."""
        return self.more_flags | sum(flag for use, flag in _FLAGS.items() if self.can(use))


_FLAGS = {
    "digest": CKF.DIGEST,
    "sign": CKF.SIGN,
    "verify": CKF.VERIFY,
    "encrypt": CKF.ENCRYPT,
    "decrypt": CKF.DECRYPT,
    "generate": CKF.GENERATE,
    "generate_pair": CKF.GENERATE_KEY_PAIR,
    "derive": CKF.DERIVE,
    "wrap": CKF.WRAP,
    "unwrap": CKF.UNWRAP,
}
