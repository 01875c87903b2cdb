"""A virtual PIV card (NIST SP 800-73-4): two keys with their certificates, a PIN with a try counter.

Bytes in, bytes out: `PivCard.exchange` takes a command APDU and gives the response APDU of ISO 7816-4, with command chaining
and GET RESPONSE.  No I/O here; `reader` carries the bytes.  It answers what a host needs that reads certificates and signs, in
short and extended length; keys and certificates are put in by the constructor, never by commands.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

AUTHENTICATION, SIGNATURE = 0x9A, 0x9C  # key references of SP 800-73-4 part 1, table 4b: PIN once, and PIN always

# Status words of ISO 7816-4 section 5.6.
_OK = 0x9000
_MORE = 0x6100  # and how many bytes wait
_TRIES_LEFT = 0x63C0  # and how many
_WRONG_LENGTH = 0x6700
_NOT_VERIFIED = 0x6982
_BLOCKED = 0x6983
_WRONG_DATA = 0x6A80
_NOT_FOUND = 0x6A82
_WRONG_PARAMETERS = 0x6A86
_UNKNOWN_REFERENCE = 0x6A88
_UNKNOWN_INSTRUCTION = 0x6D00

_CHAINED = 0x10  # CLA bit: more of this command's data follows

# Application identifier (SP 800-73-4 part 1 section 2.2) and what SELECT says about it (part 2 section 3.1.1).
_AID = bytes.fromhex("a000000308000010000100")

# BER-TLV tags of the data objects (part 1 tables 8, 10, 12, 15) and of the template of GENERAL AUTHENTICATE (part 2 table 7).
_CAPABILITIES, _HOLDER, _DISCOVERY = 0x5FC107, 0x5FC102, 0x7E
_CERTIFICATE = {AUTHENTICATION: 0x5FC105, SIGNATURE: 0x5FC10A}
_WITNESS_TEMPLATE, _CHALLENGE, _RESPONSE = 0x7C, 0x81, 0x82

# A non-federal holder (SP 800-73-4 part 1 section 3.1.2): FASC-N with agency 9999, all the rest zero.
_FASC_N = bytes.fromhex("d4e739da739ced39ce739da1685a1082108ce73984108ca3fc")

_ALGORITHM_RSA_2048, _ALGORITHM_P256 = 0x07, 0x11  # SP 800-78-4 table 6-2

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class _Refused(Exception):
    """The command ends with this status word."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:04X}")
        self.status = status


@dataclass(frozen=True)
class PivKey:
    """A key on the card: RSA-2048 or P-256, with its certificate in DER."""

    private: PrivateKey
    certificate: bytes

    @property
    def algorithm(self) -> int:
        return _ALGORITHM_RSA_2048 if isinstance(self.private, rsa.RSAPrivateKey) else _ALGORITHM_P256

    def respond(self, challenge: bytes) -> bytes:
        """RSA without padding, or an ECDSA signature (DER) of a digest.  The host pads, the card computes."""
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(challenge[:32].rjust(32, b"\0"), ec.ECDSA(Prehashed(SHA256())))
        numbers = self.private.private_numbers()
        modulus = numbers.public_numbers.n
        value = int.from_bytes(challenge)
        if value >= modulus:
            raise _Refused(_WRONG_DATA)
        return pow(value, numbers.d, modulus).to_bytes((modulus.bit_length() + 7) // 8)


@dataclass(frozen=True)
class _Command:
    """A command APDU (ISO 7816-4 section 5.2), with the data of all its parts once the chain is complete."""

    class_byte: int
    instruction: int
    p1: int
    p2: int
    data: bytes
    expected: int  # bytes the host wants; 256 where it does not say

    @classmethod
    def parse(cls, octets: bytes) -> _Command:
        if len(octets) < 4:
            raise _Refused(_WRONG_LENGTH)
        body = octets[4:]
        extended = len(body) >= 3 and body[0] == 0
        size = 2 if extended else 1  # of a length field
        body = body[1:] if extended else body
        data = b""
        if len(body) > size:
            length = int.from_bytes(body[:size])
            data, body = body[size : size + length], body[size + length :]
            if len(data) != length:
                raise _Refused(_WRONG_LENGTH)
        most = 0x10000 if extended else 0x100
        return cls(octets[0], octets[1], octets[2], octets[3], data, int.from_bytes(body) or most)


def tlv(tag: int, value: bytes = b"") -> bytes:
    """One BER-TLV data object (ISO 7816-4 section 5.2.2.1)."""
    size = len(value)
    length = bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2)
    return tag.to_bytes((tag.bit_length() + 7) // 8) + length + value


def _read_tlv(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Data objects with a tag of one byte, as they stand in a command."""
    while octets:
        if len(octets) < 2:
            raise _Refused(_WRONG_DATA)
        tag, first, octets = octets[0], octets[1], octets[2:]
        count = first & 0x7F if first & 0x80 else 0
        length = int.from_bytes(octets[:count]) if count else first
        octets = octets[count:]
        if len(octets) < length:
            raise _Refused(_WRONG_DATA)
        yield tag, octets[:length]
        octets = octets[length:]


def _data_objects(keys: Mapping[int, PivKey], serial: bytes) -> dict[int, bytes]:
    """What GET DATA finds, by tag; each value is the content of its tag 53 (SP 800-73-4 part 1 appendix A)."""
    capabilities = [(0xF0, bytes(21)), (0xF1, b"\x21"), (0xF2, b"\x21"), (0xF3, b""), (0xF4, b"\0"), (0xF5, b"\x10")]
    capabilities += [(tag, b"") for tag in (0xF6, 0xF7, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE)]
    holder = [(0x30, _FASC_N), (0x34, serial), (0x35, b"20391231"), (0x3E, b""), (0xFE, b"")]
    found = {_CAPABILITIES: capabilities, _HOLDER: holder}
    for reference, key in keys.items():
        found[_CERTIFICATE[reference]] = [(0x70, key.certificate), (0x71, b"\0"), (0xFE, b"")]
    return {tag: b"".join(tlv(*part) for part in parts) for tag, parts in found.items()}


def _with_check_byte(atr: bytes) -> bytes:
    return atr + bytes([reduce(xor, atr[1:])])  # TCK, ISO 7816-3 section 8.2.5


class PivCard:
    """The card: it stays the same, PIN counter included, while it is pushed into a reader and pulled out.

    `keys`: by key reference, AUTHENTICATION and SIGNATURE (an attribute too); `pin`: 6 to 8 digits; `serial`: 16 bytes (a GUID).
    For tests: `tries_left`, `attempts` (PINs ever compared), `signatures`, `instructions` (those received, in order).
    """

    atr: ClassVar[bytes] = _with_check_byte(bytes.fromhex("3bfa1800008131fe450031c173c840000090"))

    def __init__(
        self, keys: Mapping[int, PivKey], *, pin: str = "123456", tries: int = 3, serial: bytes = bytes(range(16))
    ) -> None:
        self.keys = dict(keys)
        self._objects = _data_objects(keys, serial)
        self._pin = pin.encode().ljust(8, b"\xff")  # part 2 section 3.2.1
        self._tries = self.tries_left = tries
        self.attempts = 0
        self.signatures = 0
        self.instructions: list[int] = []
        self._lock = threading.Lock()  # one command at a time, from whichever reader
        self.reset()

    def reset(self) -> None:
        """Power on, power off or reset: nobody is verified, nothing is half done."""
        self._verified = False
        self._chain = b""
        self._waiting = b""

    def exchange(self, octets: bytes) -> bytes:
        """A command APDU in, the response APDU out: data and the two bytes of the status word."""
        with self._lock:
            try:
                return self._answer(_Command.parse(octets))
            except _Refused as refused:
                self._chain = b""
                return refused.status.to_bytes(2)

    def _answer(self, part: _Command) -> bytes:
        self.instructions.append(part.instruction)
        self._chain += part.data
        if part.class_byte & _CHAINED:
            return _OK.to_bytes(2)
        command = _Command(part.class_byte, part.instruction, part.p1, part.p2, self._chain, part.expected)
        self._chain = b""
        if command.instruction not in self._INSTRUCTIONS:
            raise _Refused(_UNKNOWN_INSTRUCTION)
        answer = self._INSTRUCTIONS[command.instruction](self, command)
        self._waiting = answer[command.expected :]
        status = _MORE + min(len(self._waiting), 0xFF) if self._waiting else _OK
        return answer[: command.expected] + status.to_bytes(2)

    def _select(self, command: _Command) -> bytes:
        if len(command.data) < 5 or not _AID.startswith(command.data):
            raise _Refused(_NOT_FOUND)
        self._verified = False  # part 2 section 3.1.1: selecting it sets the security status anew
        return tlv(0x61, tlv(0x4F, _AID[5:]) + tlv(0x79, tlv(0x4F, _AID[:5])))

    def _get_data(self, command: _Command) -> bytes:
        if (command.p1, command.p2) != (0x3F, 0xFF):
            raise _Refused(_WRONG_PARAMETERS)
        tag = int.from_bytes(dict(_read_tlv(command.data)).get(0x5C, b""))
        if tag == _DISCOVERY:  # comes without a tag 53 around it
            return tlv(_DISCOVERY, tlv(0x4F, _AID) + tlv(0x5F2F, b"\x40\0"))
        if tag not in self._objects:
            raise _Refused(_NOT_FOUND)
        return tlv(0x53, self._objects[tag])

    def _verify(self, command: _Command) -> bytes:
        if command.p2 != 0x80:
            raise _Refused(_UNKNOWN_REFERENCE)
        if not command.data and self._verified:
            return b""
        if self.tries_left == 0:
            raise _Refused(_BLOCKED)
        if not command.data:  # only asks
            raise _Refused(_TRIES_LEFT + self.tries_left)
        if len(command.data) != 8:
            raise _Refused(_WRONG_DATA)
        self.attempts += 1
        self._verified = hmac.compare_digest(command.data, self._pin)
        if not self._verified:
            self.tries_left -= 1
            raise _Refused(_TRIES_LEFT + self.tries_left)
        self.tries_left = self._tries
        return b""

    def _general_authenticate(self, command: _Command) -> bytes:
        key = self.keys.get(command.p2)
        if key is None or command.p1 != key.algorithm:
            raise _Refused(_WRONG_PARAMETERS)
        if not self._verified:
            raise _Refused(_NOT_VERIFIED)
        template = dict(_read_tlv(dict(_read_tlv(command.data)).get(_WITNESS_TEMPLATE, b"")))
        if _CHALLENGE not in template:
            raise _Refused(_WRONG_DATA)
        if command.p2 == SIGNATURE:
            self._verified = False  # SP 800-73-4 part 1 section 3.3: "PIN Always"
        response = key.respond(template[_CHALLENGE])
        self.signatures += 1
        return tlv(_WITNESS_TEMPLATE, tlv(_RESPONSE, response))

    def _get_response(self, command: _Command) -> bytes:
        return self._waiting

    _INSTRUCTIONS: ClassVar[Mapping[int, Callable[[PivCard, _Command], bytes]]] = {
        0x20: _verify,
        0x87: _general_authenticate,
        0xA4: _select,
        0xC0: _get_response,
        0xCB: _get_data,
    }
