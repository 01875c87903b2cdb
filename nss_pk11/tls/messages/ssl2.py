"""Messages of SSL 2.0 (Hickman, "The SSL Protocol", February 1995), among them the ClientHello that may also open SSL 3.0 to
TLS 1.2 (RFC 6101 appendix E.1, RFC 5246 appendix E.2).

A message is its type and what follows; a record carries one.  Nothing here knows keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ...errors import DecodeError
from ..codec import Reader, Writer
from .hello import ClientHello as NewerClientHello

X509 = 1  # certificate type
MD5_WITH_RSA = 1  # authentication type
CONNECTION_ID_BYTES = SESSION_ID_BYTES = 16
_NONCE_BYTES = range(16, 33)  # challenges and connection ids


class MessageType(IntEnum):
    error = 0
    client_hello = 1
    client_master_key = 2
    client_finished = 3
    server_hello = 4
    server_verify = 5
    server_finished = 6
    request_certificate = 7
    client_certificate = 8


class ErrorCode(IntEnum):
    no_cipher = 1
    no_certificate = 2
    bad_certificate = 4
    unsupported_certificate_type = 6


M = MessageType


def _kinds(data: bytes) -> tuple[int, ...]:
    """Cipher kinds, of three bytes each.  Raises DecodeError."""
    if len(data) % 3:
        raise DecodeError(f"list of 24-bit cipher kinds is {len(data)} bytes long")
    return tuple(int.from_bytes(data[start : start + 3], "big") for start in range(0, len(data), 3))


def _packed(kinds: tuple[int, ...]) -> bytes:
    return b"".join(kind.to_bytes(3, "big") for kind in kinds)


def _nonce(data: bytes, what: str) -> bytes:
    if len(data) not in _NONCE_BYTES:
        raise DecodeError(f"{what} of {len(data)} bytes")
    return data


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`kinds`: of SSL 2.0, and suites of newer versions as kinds whose first byte is 0; `session_id`: of SSL 2.0, or b"";
    `challenge`: 16 to 32 bytes."""

    version: int
    kinds: tuple[int, ...]
    session_id: bytes
    challenge: bytes

    def encode(self) -> bytes:
        kinds = _packed(self.kinds)
        w = Writer().u8(M.client_hello).u16(self.version)
        w.u16(len(kinds)).u16(len(self.session_id)).u16(len(self.challenge))
        return w.raw(kinds).raw(self.session_id).raw(self.challenge).bytes()

    @classmethod
    def decode(cls, raw: bytes) -> ClientHello:
        """Raises DecodeError."""
        r = Reader(raw, 1)
        version, lengths = r.u16(), (r.u16(), r.u16(), r.u16())
        kinds, session_id, challenge = (r.take(length) for length in lengths)
        r.end()
        if not kinds or len(session_id) not in (0, SESSION_ID_BYTES):
            raise DecodeError("ClientHello of SSL 2.0 without ciphers, or with a session id that is none")
        return cls(version, _kinds(kinds), session_id, _nonce(challenge, "challenge"))

    def newer(self, raw: bytes) -> NewerClientHello:
        """What it says to SSL 3.0 to TLS 1.2.  `raw` is what their transcripts begin with; of a challenge shorter than their
        random the missing bytes are zeros ahead of it (RFC 5246 appendix E.2)."""
        suites = tuple(kind for kind in self.kinds if kind < 0x10000)
        hello = NewerClientHello(self.version, self.challenge.rjust(32, b"\0"), b"", suites, {})
        hello.raw = raw
        return hello


@dataclass(frozen=True, slots=True)
class ServerHello:
    """`hit`: the session is resumed, which leaves `certificate` (DER) and `kinds` out."""

    hit: bool
    version: int
    certificate: bytes
    kinds: tuple[int, ...]
    connection_id: bytes

    def encode(self) -> bytes:
        kinds = _packed(self.kinds)
        w = Writer().u8(M.server_hello).u8(self.hit).u8(0 if self.hit else X509).u16(self.version)
        w.u16(len(self.certificate)).u16(len(kinds)).u16(len(self.connection_id))
        return w.raw(self.certificate).raw(kinds).raw(self.connection_id).bytes()

    @classmethod
    def decode(cls, raw: bytes) -> ServerHello:
        """Raises DecodeError.  There are servers that name a certificate type on a hit, too."""
        r = Reader(raw, 1)
        hit, certificate_type, version, lengths = r.u8(), r.u8(), r.u16(), (r.u16(), r.u16(), r.u16())
        certificate, kinds, connection_id = (r.take(length) for length in lengths)
        r.end()
        if not hit and certificate_type != X509:
            raise DecodeError(f"certificate type {certificate_type}", name="SSL_ERROR_UNSUPPORTED_CERTIFICATE_TYPE")
        if bool(hit) == bool(certificate):
            raise DecodeError("ServerHello of SSL 2.0 " + ("with a certificate on a hit" if hit else "without a certificate"))
        return cls(bool(hit), version, certificate, _kinds(kinds), _nonce(connection_id, "connection id"))


@dataclass(frozen=True, slots=True)
class ClientMasterKey:
    """`clear`: what an export cipher leaves open of the master key; `encrypted`: the rest, under the server's RSA key;
    `argument`: the IV of a block cipher."""

    kind: int
    clear: bytes
    encrypted: bytes
    argument: bytes

    def encode(self) -> bytes:
        w = Writer().u8(M.client_master_key).u24(self.kind)
        w.u16(len(self.clear)).u16(len(self.encrypted)).u16(len(self.argument))
        return w.raw(self.clear).raw(self.encrypted).raw(self.argument).bytes()

    @classmethod
    def decode(cls, raw: bytes) -> ClientMasterKey:
        """Raises DecodeError."""
        r = Reader(raw, 1)
        kind, lengths = r.u24(), (r.u16(), r.u16(), r.u16())
        clear, encrypted, argument = (r.take(length) for length in lengths)
        r.end()
        return cls(kind, clear, encrypted, argument)


def encode_request(challenge: bytes) -> bytes:
    """RequestCertificate."""
    return bytes((M.request_certificate, MD5_WITH_RSA)) + challenge


def decode_request(raw: bytes) -> bytes:
    """The challenge of a RequestCertificate.  Raises DecodeError."""
    r = Reader(raw, 1)
    if (kind := r.u8()) != MD5_WITH_RSA:
        raise DecodeError(f"authentication type {kind}")
    return _nonce(r.rest(), "certificate challenge")


def encode_certificate(certificate: bytes, response: bytes) -> bytes:
    """ClientCertificate: DER, and the signature that answers the challenge."""
    w = Writer().u8(M.client_certificate).u8(X509).u16(len(certificate)).u16(len(response))
    return w.raw(certificate).raw(response).bytes()


def decode_certificate(raw: bytes) -> tuple[bytes, bytes]:
    """Raises DecodeError."""
    r = Reader(raw, 1)
    kind, lengths = r.u8(), (r.u16(), r.u16())
    certificate, response = (r.take(length) for length in lengths)
    r.end()
    if kind != X509:
        raise DecodeError(f"certificate type {kind}", name="SSL_ERROR_UNSUPPORTED_CERTIFICATE_TYPE")
    return certificate, response


def encode_error(code: int) -> bytes:
    return bytes((M.error,)) + code.to_bytes(2, "big")


def decode_error(raw: bytes) -> int:
    """Raises DecodeError."""
    r = Reader(raw, 1)
    code = r.u16()
    r.end()
    return code
