"""What both sides of SSL 2.0 share: keys, the signature of a client's certificate, what peers say in errors, and receiving.

The keys of the record layer come from the master key by MD5; a client that also knows SSL 3.0 leaves a mark in the padding that
the master key is encrypted with, so that nobody can make two such peers speak SSL 2.0 (RFC 6101 appendix E.2).
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import Certificate

from ...errors import Alert, AlertReceived, CertificateError, DecryptError, HandshakeFailure, UnexpectedMessage
from ..config import Config
from ..link import Link, Steps
from ..messages.ssl2 import ErrorCode, MessageType, decode_error
from ..record.ssl2 import Protection, Ssl2Records
from ..signatures import key_kind
from ..suites import Suite
from ..waits import SSL2_MESSAGE, Receive

LIFETIME = 100  # seconds that a session may be resumed (NSS's ssl2 limit)

# DigestInfo of MD5 (RFC 8017 section 9.2, note 1).
_MD5_INFO = bytes.fromhex("3020300c06082a864886f70d020505000410")

_TOLD: dict[int, tuple[Alert, str]] = {
    ErrorCode.no_cipher: (Alert.handshake_failure, "SSL_ERROR_NO_CYPHER_OVERLAP"),
    ErrorCode.no_certificate: (Alert.no_certificate, "SSL_ERROR_NO_CERTIFICATE"),
    ErrorCode.bad_certificate: (Alert.bad_certificate, "SSL_ERROR_BAD_CERT_ALERT"),
    ErrorCode.unsupported_certificate_type: (Alert.unsupported_certificate, "SSL_ERROR_UNSUPPORTED_CERTIFICATE_TYPE"),
}


def receive(link: Link, *kinds: MessageType) -> Steps[bytes]:
    """The next message, of one of `kinds`.  Raises UnexpectedMessage; AlertReceived where the peer tells of an error."""
    raw: bytes = yield Receive(SSL2_MESSAGE)
    return check(link, raw, *kinds)


def check(link: Link, raw: bytes, *kinds: MessageType) -> bytes:
    """The message itself.  Raises as `receive`."""
    if raw[0] in kinds:
        return raw
    if raw[0] == MessageType.error:
        code = decode_error(raw)
        alert, name = _TOLD.get(code, (Alert.handshake_failure, "SSL_ERROR_HANDSHAKE_FAILURE_ALERT"))
        error = AlertReceived(alert, f"peer tells of error {code} of SSL 2.0")
        error.name = name
        raise error
    name = "SSL_ERROR_BAD_CLIENT" if link.is_server else "SSL_ERROR_BAD_SERVER"
    raise UnexpectedMessage(f"message of type {raw[0]} has no place here", name=name)


def rsa_key(leaf: Certificate, name: str) -> rsa.RSAPublicKey:
    """SSL 2.0 knows no other.  Raises CertificateError, by `name`."""
    key = leaf.public_key() if key_kind(leaf) == "rsa" else None
    if not isinstance(key, rsa.RSAPublicKey):
        raise CertificateError("peer's certificate has no RSA key", name=name)
    return key


def require_unsafe(config: Config) -> None:
    """Nobody who insists on peers that know RFC 5746 means one of SSL 2.0.  Raises HandshakeFailure."""
    if config.require_safe_negotiation:
        raise HandshakeFailure("SSL 2.0 does not know secure renegotiation (RFC 5746)", name="SSL_ERROR_UNSAFE_NEGOTIATION")


class Keys:
    """Of one connection (Hickman, section 1.4.3).  `master`: as many bytes as the cipher's key; `argument`: the IV."""

    def __init__(self, suite: Suite, master: bytes, argument: bytes, challenge: bytes, connection_id: bytes) -> None:
        self._suite, self._argument = suite, argument
        size = suite.cipher.key
        parts = (
            hashlib.md5(master + b"%d" % number + challenge + connection_id).digest() for number in range(-(-2 * size // 16))
        )
        self.material = b"".join(parts)[: 2 * size]
        self._client_reads, self._client_writes = self.material[:size], self.material[size:]

    def use(self, records: Ssl2Records, *, is_server: bool) -> None:
        """From the next record on, in both directions."""
        read, write = self._client_reads, self._client_writes
        if is_server:
            read, write = write, read
        records.reader = Protection(self._suite, read, self._argument, writes=False)
        records.writer = Protection(self._suite, write, self._argument, writes=True)

    def to_sign(self, challenge: bytes, server_certificate: bytes) -> bytes:
        """What a client's certificate is proven by, hashed and ready for RSA's padding."""
        return _MD5_INFO + hashlib.md5(self.material + challenge + server_certificate).digest()

    def verify(self, key: rsa.RSAPublicKey, response: bytes, challenge: bytes, server_certificate: bytes) -> None:
        """Raises DecryptError for a signature that is not by `key`."""
        try:
            key.verify(response, self.material + challenge + server_certificate, padding.PKCS1v15(), hashes.MD5())
        except InvalidSignature:
            raise DecryptError("client's answer to the challenge does not verify", name="SEC_ERROR_BAD_SIGNATURE") from None
