"""Skipjack, its modes, and how FORTEZZA cards wrap keys with it (NIST, SKIPJACK and KEA Algorithm Specifications, 2.0, 1998).

Bytes in, bytes out: no token, no object, no mechanism.  Standard library alone.

Byte order.  The specification writes keys and blocks as numbers; it does not say which end of a byte string is the first.
FORTEZZA cards, and the annex of the specification for KEA, take strings from their end: what a card makes of a key and a block
is the reverse of what the plain cipher makes of the reversed key and the reversed block.  So everything here, wrapping,
checksums and modes, is in "little" order unless "big" is asked for, which is that of the tables in which many programs
carry the test vectors.  The codebook of NIST in both:

    little   key 11223344556677889900   aabbccdd00112233 -> 00d3127ae2ca8725
    big      key 00998877665544332211   33221100ddccbbaa -> 2587cae27a12d300
"""

from __future__ import annotations

from struct import pack, unpack
from typing import Literal, Protocol

KEY, BLOCK = 10, 8  # bytes
CHECKSUM = 2  # bytes behind a wrapped key
WRAPPED = KEY + CHECKSUM

Order = Literal["little", "big"]
CARD: Order = "little"

_F = bytes.fromhex(
    "a3d70983f848f6f4b321157899b1aff9e72d4d8ace4cca2e5295d91e4e384428"
    "0adf02a017f1606812b77ac3e9fa3d5396846bbaf2639a197caee5f5f7166aa2"
    "39b67b0fc193811beeb41aead0912fb855b9da853f41bfe05a58805f660bd890"
    "35d5c0a733066569450094566d989b7697fcb2c2b0fedb20e1ebd6e4dd474a1d"
    "42ed9e6e493ccd4327d207d4dec7671889cb301f8dc68faac874dcc95d5c31a4"
    "7088612c9f0d2b8750825464267d0340344b1c73d1c4fd3bccfb7fabe63e5ba5"
    "ad04239c145122f02979717eff8c0ee20cefbc72756f37a1ecd38e628b8610e8"
    "087711be924f24c532369dcff3a6bbac5e6ca9135725b5e3bda83a0105592a46"
)
_ROUNDS = 32

# Rule A in steps 1 to 8 and 17 to 24, rule B in the others.
_Step = tuple[int, bool, bytes, bytes, bytes, bytes]  # counter, whether rule A, F with four bytes of the key
_RULE_A = tuple(step // 8 % 2 == 0 for step in range(_ROUNDS))


class Skipjack:
    """The cipher with one key of 10 bytes.  Raises ValueError for another length."""

    def __init__(self, key: bytes, order: Order = CARD) -> None:
        if len(key) != KEY:
            raise ValueError(f"a Skipjack key has {KEY} bytes")
        self.order = order
        # F with each byte of the key already in it; step k uses four of the ten, from 4k on.
        tables = [bytes(_F[value ^ byte] for value in range(256)) for byte in (key if order == "big" else key[::-1])]
        self._steps: list[_Step] = []
        for step, rule_a in enumerate(_RULE_A):
            f0, f1, f2, f3 = (tables[(4 * step + i) % KEY] for i in range(4))
            self._steps.append((step + 1, rule_a, f0, f1, f2, f3))
        self._back = self._steps[::-1]

    def encrypt_number(self, block: int) -> int:
        """One block as a number: bytes read in the order of this cipher."""
        w1, w2, w3, w4 = block >> 48, block >> 32 & 0xFFFF, block >> 16 & 0xFFFF, block & 0xFFFF
        for counter, rule_a, f0, f1, f2, f3 in self._steps:
            high, low = w1 >> 8, w1 & 0xFF
            high ^= f0[low]
            low ^= f1[high]
            high ^= f2[low]
            low ^= f3[high]
            g = high << 8 | low
            if rule_a:
                w1, w2, w3, w4 = g ^ w4 ^ counter, g, w2, w3
            else:
                w1, w2, w3, w4 = w4, g, w1 ^ w2 ^ counter, w3
        return w1 << 48 | w2 << 32 | w3 << 16 | w4

    def decrypt_number(self, block: int) -> int:
        """The reverse of `encrypt_number`."""
        w1, w2, w3, w4 = block >> 48, block >> 32 & 0xFFFF, block >> 16 & 0xFFFF, block & 0xFFFF
        for counter, rule_a, f0, f1, f2, f3 in self._back:
            high, low = w2 >> 8, w2 & 0xFF
            low ^= f3[high]
            high ^= f2[low]
            low ^= f1[high]
            high ^= f0[low]
            g = high << 8 | low
            if rule_a:
                w1, w2, w3, w4 = g, w3, w4, w1 ^ w2 ^ counter
            else:
                w1, w2, w3, w4 = g, g ^ w3 ^ counter, w4, w1
        return w1 << 48 | w2 << 32 | w3 << 16 | w4

    def encrypt(self, block: bytes) -> bytes:
        """One block of 8 bytes."""
        return self.encrypt_number(int.from_bytes(block, self.order)).to_bytes(BLOCK, self.order)

    def decrypt(self, block: bytes) -> bytes:
        """One block of 8 bytes."""
        return self.decrypt_number(int.from_bytes(block, self.order)).to_bytes(BLOCK, self.order)


# --- modes (FIPS 81) -------------------------------------------------------------------------------------------------


class Mode(Protocol):
    """A mode under way: data in multiples of its unit, one direction."""

    def __call__(self, data: bytes) -> bytes: ...

    @property
    def register(self) -> bytes:
        """The initialization vector with which it goes on from here."""


def _numbers(data: bytes, order: Order) -> tuple[int, ...]:
    return unpack(f"{'<' if order == 'little' else '>'}{len(data) // BLOCK}Q", data)


def _bytes(numbers: list[int], order: Order) -> bytes:
    return pack(f"{'<' if order == 'little' else '>'}{len(numbers)}Q", *numbers)


class Ecb:
    """Each block by itself."""

    def __init__(self, cipher: Skipjack, *, encrypting: bool) -> None:
        self._order, self._block = cipher.order, cipher.encrypt_number if encrypting else cipher.decrypt_number

    def __call__(self, data: bytes) -> bytes:
        return _bytes([self._block(number) for number in _numbers(data, self._order)], self._order)

    @property
    def register(self) -> bytes:
        return b""


class Cbc:
    """Each block over the ciphertext before it."""

    def __init__(self, cipher: Skipjack, iv: bytes, *, encrypting: bool) -> None:
        self._cipher, self._encrypting = cipher, encrypting
        self._before = int.from_bytes(iv, cipher.order)

    def __call__(self, data: bytes) -> bytes:
        cipher, before, result = self._cipher, self._before, []
        for number in _numbers(data, cipher.order):
            if self._encrypting:
                before = cipher.encrypt_number(number ^ before)
                result.append(before)
            else:
                result.append(cipher.decrypt_number(number) ^ before)
                before = number
        self._before = before
        return _bytes(result, cipher.order)

    @property
    def register(self) -> bytes:
        return self._before.to_bytes(BLOCK, self._cipher.order)


class Ofb:
    """A key stream that feeds on itself; both directions are the same."""

    def __init__(self, cipher: Skipjack, iv: bytes, *, encrypting: bool) -> None:
        self._cipher, self._register = cipher, int.from_bytes(iv, cipher.order)

    def __call__(self, data: bytes) -> bytes:
        result = []
        for number in _numbers(data, self._cipher.order):
            self._register = self._cipher.encrypt_number(self._register)
            result.append(number ^ self._register)
        return _bytes(result, self._cipher.order)

    @property
    def register(self) -> bytes:
        return self._register.to_bytes(BLOCK, self._cipher.order)


class Cfb:
    """A key stream that feeds on the ciphertext, `unit` bytes at a time: the first of the cipher's output, in string order."""

    def __init__(self, cipher: Skipjack, iv: bytes, *, unit: int, encrypting: bool) -> None:
        self._cipher, self.register, self._unit, self._encrypting = cipher, iv, unit, encrypting

    def __call__(self, data: bytes) -> bytes:
        unit, result = self._unit, b""
        for at in range(0, len(data), unit):
            given = data[at : at + unit]
            made = bytes(a ^ b for a, b in zip(given, self._cipher.encrypt(self.register), strict=False))
            self.register = self.register[unit:] + (made if self._encrypting else given)
            result += made
        return result


# --- wrapped keys ----------------------------------------------------------------------------------------------------


def wrap_bare(cipher: Skipjack, key: bytes) -> bytes:
    """10 bytes under a key: KEA ends with this, and wrapped keys begin with it."""
    middle = cipher.encrypt(key[:BLOCK])
    return cipher.encrypt(middle) + _xor(key[BLOCK:], middle)


def unwrap_bare(cipher: Skipjack, wrapped: bytes) -> bytes:
    """The reverse of `wrap_bare`."""
    middle = cipher.decrypt(wrapped[:BLOCK])
    return cipher.decrypt(middle) + _xor(wrapped[BLOCK:], middle)


def checksum(key: bytes) -> bytes:
    """Two bytes that tell whether a key came through: of a fixed block under it."""
    return Skipjack(key).encrypt(b"\x55" * BLOCK)[1 : 1 + CHECKSUM]


def wrap(cipher: Skipjack, key: bytes) -> bytes:
    """A key of 10 bytes as the 12 that may leave a card."""
    return wrap_bare(cipher, key) + checksum(key)


def unwrap(cipher: Skipjack, wrapped: bytes) -> bytes:
    """The reverse of `wrap`.  Raises ValueError where length or checksum are wrong."""
    key = unwrap_bare(cipher, wrapped[:KEY])
    if len(wrapped) != WRAPPED or checksum(key) != wrapped[KEY:]:
        raise ValueError("this is no key wrapped with this key")
    return key


def wrap_private(cipher: Skipjack, x: bytes) -> bytes:
    """The 20 bytes of a private key of KEA or DSA as 24: both halves wrapped, the second first mixed with the first."""
    return wrap(cipher, x[:KEY]) + wrap(cipher, _xor(x[12:20] + x[10:12], x[:KEY]))


def unwrap_private(cipher: Skipjack, wrapped: bytes) -> bytes:
    """The reverse of `wrap_private`.  Raises ValueError where length or checksums are wrong."""
    first, mixed = unwrap(cipher, wrapped[:WRAPPED]), unwrap(cipher, wrapped[WRAPPED:])
    second = _xor(mixed, first)
    return first + second[8:] + second[:8]


def _xor(data: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, mask, strict=False))
