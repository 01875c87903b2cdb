"""What FORTEZZA cards compute: Skipjack, KEA and time stamps (PKCS #11 2.20 sections 12.10 and 12.16; `skipjack`, `kea`).

How a host does it.  Keys of Skipjack are CKO_SECRET_KEY of CKK_SKIPJACK, always sensitive: none leaves the card but wrapped.

Agree on a key (TEK).  C_DeriveKey with CKM_KEA_KEY_DERIVE, the own private key of CKK_KEA, and CK_KEA_DERIVE_PARAMS: isSender
(CK_BBOOL), ulRandomLen (CK_ULONG, 128), pRandomA, pRandomB (both 128 bytes that the host provides, big-endian), ulPublicDataLen
(128), pPublicData (the other's Y).  The template may hold CKA_VALUE_LEN (12), CKA_KEY_TYPE (CKK_SKIPJACK) and what the key is for
(CKA_WRAP, CKA_UNWRAP, CKA_ENCRYPT, CKA_DECRYPT: true where nothing is said).  The key is not extractable.

    isSender  pRandomB   what happens
    true      0          R_a is made, remembered, and written to pRandomA; no key, the template is not looked at
    true      1          mail: R_a is made and written to pRandomA; a key
    true      R_b        R_a as above, or the one in pRandomA where this card has made it; a key
    false     0          R_b is made, remembered, and written to pRandomB; no key
    false     1          mail: a key from the R_a in pRandomA
    false     R_b        a key from both; R_b must be one that this card remembers, 20 of them for each private key,
                        and each for one use

    CKR_MECHANISM_PARAM_INVALID: a length, or an R_b that the card does not know (any longer)
    CKR_DOMAIN_PARAMS_INVALID: the other's values are not of this key's domain

Make a key: C_GenerateKey with CKM_SKIPJACK_KEY_GEN, no parameter; the template may be empty.  C_WrapKey and C_UnwrapKey with
CKM_SKIPJACK_WRAP, no parameter, under a TEK: 12 bytes; the template of C_UnwrapKey needs CKA_CLASS and CKA_KEY_TYPE.  A wrong
checksum is CKR_WRAPPED_KEY_INVALID.

Encrypt: C_EncryptInit with CKM_SKIPJACK_CBC64 and a pParameter of 24 bytes.  The card makes the initialization vector, and has
written it there when the call returns: 16 bytes of LEAF, here a fixed text, and 8 of IV.  Then C_EncryptUpdate, as often as
there is something; the chain goes on until C_EncryptFinal, which gives nothing.  Decrypt: the same with the 24 bytes as they
came; the LEAF is not looked at.  A host cannot choose the IV with which it encrypts.  C_GetOperationState saves where such work
stands, C_SetOperationState with the same key takes it up again, in any session.

The card keeps 100 secret keys (then CKR_DEVICE_MEMORY), one of them, labelled "Ks", for good: what is wrapped under it can be
unwrapped in a later session.  CKM_SKIPJACK_PRIVATE_WRAP and CKM_SKIPJACK_RELAYX are not there (CKR_MECHANISM_INVALID): how cards
make keys of passwords is not published.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from struct import Struct
from time import gmtime, strftime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa as dsa_keys
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from ..abi import CKA, CKK, CKM, CKR, Refused
from ..attributes import FALSE, TRUE
from ..kea import LENGTH, P_BITS, X_LENGTH, KeaPrivateKey, KeaPublicKey
from ..keytypes import Values, kea_domain, number
from ..memory import Mechanism, Memory
from ..skipjack import BLOCK, KEY, WRAPPED, Cbc, Cfb, Ecb, Mode, Ofb, Skipjack, checksum, unwrap, wrap
from .capability import Capability, Parameter, Start, Transformation, Whole, no_parameter, words

LEAF = b"THIS IS NOT LEAF"  # what software cards had where a real one puts the field for the escrow agents
IV_LENGTH = len(LEAF) + BLOCK
CLOCK = "%Y%m%d%H%M%S00"  # as CK_TOKEN_INFO tells the time (PKCS #11 section 3.2)
_HASH = 20  # bytes
_KEA_PARAMS = Struct("@?LPPLP")  # isSender, ulRandomLen, pRandomA, pRandomB, ulPublicDataLen, pPublicData
_SECRET: dict[int, bytes] = {CKA.SENSITIVE: TRUE}
_STAYS: dict[int, bytes] = _SECRET | {CKA.EXTRACTABLE: FALSE}


# --- Skipjack --------------------------------------------------------------------------------------------------------


def new_key(length: int = WRAPPED) -> bytes:
    """CKA_VALUE of a key: 10 bytes at random and their checksum."""
    key = os.urandom(KEY)
    return key + checksum(key)


class _Units:
    """A mode under way, which takes `unit` bytes at a time; there is nothing at its end."""

    def __init__(self, mode: Mode, unit: int, error: CKR) -> None:
        self._mode, self._unit, self._error = mode, unit, error
        self._pending = b""

    def size(self, length: int) -> int:
        return (len(self._pending) + length) // self._unit * self._unit

    def last(self, length: int = 0) -> int:
        return 0

    def update(self, data: bytes) -> bytes:
        data = self._pending + data
        whole = len(data) // self._unit * self._unit
        self._pending = data[whole:]
        return self._mode(data[:whole])

    def finish(self) -> bytes:
        if self._pending:
            raise Refused(self._error)
        return b""

    def state(self) -> tuple[bytes, bytes]:
        return self._mode.register, self._pending


def _given_iv(mechanism: Mechanism, memory: Memory) -> bytes:
    """The IV with which somebody's card encrypted.  Raises Refused(CKR_MECHANISM_PARAM_INVALID)."""
    if len(mechanism.parameter) != IV_LENGTH:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    return mechanism.parameter[len(LEAF) :]


def _made_iv(mechanism: Mechanism, memory: Memory) -> bytes:
    """A new IV, which the host finds in its parameter.  Raises Refused(CKR_MECHANISM_PARAM_INVALID)."""
    _given_iv(mechanism, memory)
    iv = os.urandom(BLOCK)
    memory.write(mechanism.pointer, LEAF + iv)
    return iv


def _mode(mechanism: CKM, make: Callable[..., Mode], unit: int = BLOCK, *, iv: bool = True) -> Capability:
    def start(error: CKR, *, encrypting: bool) -> Start:
        def begin(key: bytes, parameter: Parameter) -> Transformation:
            given = (parameter,) if iv else ()
            return _Units(make(Skipjack(key[:KEY]), *given, encrypting=encrypting), unit, error)

        return begin

    return Capability(
        mechanism=mechanism,
        key_types=(CKK.SKIPJACK,),
        sizes=(WRAPPED, WRAPPED),
        parameter=_given_iv if iv else no_parameter,
        made_parameter=_made_iv if iv else None,
        encrypt=start(CKR.DATA_LEN_RANGE, encrypting=True),
        decrypt=start(CKR.ENCRYPTED_DATA_LEN_RANGE, encrypting=False),
        saves=True,
    )


def _wrap(key: bytes, parameter: Parameter) -> Transformation:
    def work(data: bytes) -> bytes:
        if len(data) != WRAPPED:
            raise Refused(CKR.DATA_LEN_RANGE)
        return wrap(Skipjack(key[:KEY]), data[:KEY])

    return Whole(work, WRAPPED)


def _unwrap(key: bytes, parameter: Parameter) -> Transformation:
    def work(data: bytes) -> bytes:
        if len(data) != WRAPPED:
            raise Refused(CKR.ENCRYPTED_DATA_LEN_RANGE)
        try:
            return unwrap(Skipjack(key[:KEY]), data) + data[KEY:]
        except ValueError:
            raise Refused(CKR.ENCRYPTED_DATA_INVALID) from None

    return Whole(work, WRAPPED)


# --- KEA -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Agreement:
    """What a CK_KEA_DERIVE_PARAMS says.  `give`: puts the random value that is made here where the host wants it."""

    sender: bool
    random_a: int
    random_b: int
    public: int
    give: Callable[[bytes], None]


def _agreement(mechanism: Mechanism, memory: Memory) -> _Agreement:
    """Raises Refused(CKR_MECHANISM_PARAM_INVALID)."""
    sender, length, random_a, random_b, public_length, public = words(mechanism, _KEA_PARAMS)
    if length != LENGTH or public_length != LENGTH:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    values = memory.read_all([(place, LENGTH) for place in (random_a, random_b, public)])
    a, b, y = (int.from_bytes(value, "big") for value in values)
    return _Agreement(bool(sender), a, b, y, partial(memory.write, random_a if sender else random_b))


def _only_random(key: KeaPrivateKey, asked: _Agreement) -> bool:
    """The first of two phases: a random value is made, no key."""
    if asked.random_b:
        return False
    asked.give(key.new_random().to_bytes())
    return True


def _derive(key: KeaPrivateKey, asked: _Agreement, length: int | None) -> bytes:
    """Raises Refused: CKR_DOMAIN_PARAMS_INVALID, CKR_MECHANISM_PARAM_INVALID."""
    mail = asked.random_b == 1
    try:
        peer = KeaPublicKey(key.domain, asked.public)
        others = asked.random_b if asked.sender else asked.random_a
        peer_random = peer if mail and asked.sender else KeaPublicKey(key.domain, others)
        tek = key.agree(_own_random(key, asked, mail=mail), peer, peer_random)
    except ValueError:
        raise Refused(CKR.DOMAIN_PARAMS_INVALID) from None
    return tek + checksum(tek)


def _own_random(key: KeaPrivateKey, asked: _Agreement, *, mail: bool) -> int:
    if mail and not asked.sender:
        return key.x
    known = key.take_random(asked.random_a if asked.sender else asked.random_b)
    if known is not None:
        return known
    if not asked.sender:
        raise Refused(CKR.MECHANISM_PARAM_INVALID)
    made = key.domain.generate()
    asked.give(made.public_key().to_bytes())
    return made.x


def _generate_pair(template: Values) -> KeaPrivateKey:
    """Raises Refused(CKR_DOMAIN_PARAMS_INVALID)."""
    try:
        return kea_domain(template).generate()
    except ValueError:
        raise Refused(CKR.DOMAIN_PARAMS_INVALID) from None


# --- time stamps -----------------------------------------------------------------------------------------------------


def _stamp(key: dsa_keys.DSAPrivateKey, parameter: Parameter) -> Transformation:
    """A DSA signature over a hash and the time of the card, which the host reads in CK_TOKEN_INFO."""

    def work(data: bytes) -> bytes:
        if len(data) != _HASH:
            raise Refused(CKR.DATA_LEN_RANGE)
        digest = sha1(data + strftime(CLOCK, gmtime()).encode()).digest()
        return b"".join(
            each.to_bytes(X_LENGTH, "big") for each in decode_dss_signature(key.sign(digest, Prehashed(hashes.SHA1())))
        )

    return Whole(work, 2 * X_LENGTH)


CAPABILITIES = (
    Capability(
        mechanism=CKM.SKIPJACK_KEY_GEN, key_types=(CKK.SKIPJACK,), sizes=(WRAPPED, WRAPPED), generate=new_key, fixed=_SECRET
    ),
    _mode(CKM.SKIPJACK_ECB64, Ecb, iv=False),
    _mode(CKM.SKIPJACK_CBC64, Cbc),
    _mode(CKM.SKIPJACK_OFB64, Ofb),
    *(_mode(CKM[f"SKIPJACK_CFB{8 * unit}"], partial(Cfb, unit=unit), unit) for unit in (8, 4, 2, 1)),
    Capability(
        mechanism=CKM.SKIPJACK_WRAP,
        key_types=(CKK.SKIPJACK,),
        sizes=(WRAPPED, WRAPPED),
        encrypt=_wrap,
        decrypt=_unwrap,
        parts=False,
        wraps=True,
        only_wraps=True,
        fixed=_SECRET,
    ),
    Capability(
        mechanism=CKM.KEA_KEY_PAIR_GEN,
        key_types=(CKK.KEA,),
        sizes=(P_BITS, P_BITS),
        generate_pair=_generate_pair,
        fixed=_STAYS,
    ),
    Capability(
        mechanism=CKM.KEA_KEY_DERIVE,
        key_types=(CKK.KEA,),
        sizes=(P_BITS, P_BITS),
        parameter=_agreement,
        first_phase=_only_random,
        derive=_derive,
        fixed=_STAYS | {CKA.KEY_TYPE: number(CKK.SKIPJACK)},
    ),
    Capability(mechanism=CKM.FORTEZZA_TIMESTAMP, key_types=(CKK.DSA,), sizes=(P_BITS, P_BITS), sign=_stamp, parts=False),
)
