"""RSA key exchange (RFC 5246 section 7.4.7.1, RFC 6101 section 5.6.7.1).

The server's side is where Bleichenbacher's attack and its many children aim: whatever a ciphertext decrypts to, or fails to,
the handshake goes on with 48 bytes, and which 48 bytes shows nowhere but in a Finished that fits or does not.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ...errors import InsufficientSecurity
from ..codec import Reader
from ..codepoints import Group, V, Version
from ..config import Identity
from ..link import Steps
from ..messages import tls12
from ..waits import Decrypt

PREMASTER_BYTES = 48
LENGTH_BYTES = 2  # before the ciphertext; in SSL 3.0 there are none
_ALL_ONES = (1 << 8 * PREMASTER_BYTES) - 1


class RsaServer:
    """`begins`: what the premaster secret begins with, which is the version that the ClientHello offered; b"" for anything, as
    there are clients that put the negotiated version there."""

    def __init__(self, identity: Identity, begins: bytes, version: Version, random: Callable[[int], bytes]) -> None:
        self.parameters = b""
        self._identity, self._begins, self._random = identity, begins, random
        self._width = length_bytes(version)

    def receive(self, raw: bytes) -> Steps[bytes]:
        ciphertext = tls12.decode_client_key_exchange(raw, self._width)
        fallback = self._random(PREMASTER_BYTES)  # before anything is known, so that its cost tells nothing
        plaintext = yield Decrypt(self._identity, ciphertext)
        return select_premaster(plaintext, fallback, self._begins)


def length_bytes(version: Version) -> int:
    return 0 if version == V.ssl3 else LENGTH_BYTES


def select_premaster(plaintext: bytes | None, fallback: bytes, begins: bytes) -> bytes:
    """`plaintext` if it is 48 bytes that start with `begins`, otherwise `fallback`; by a mask, not a branch."""
    found = plaintext or b""
    padded = (found + bytes(PREMASTER_BYTES))[:PREMASTER_BYTES]
    good = (len(found) == PREMASTER_BYTES) & compare_digest(padded[: len(begins)], begins)
    mask = -int(good) & _ALL_ONES
    chosen = int.from_bytes(padded, "big") & mask | int.from_bytes(fallback, "big") & (mask ^ _ALL_ONES)
    return chosen.to_bytes(PREMASTER_BYTES, "big")


class RsaClient:
    """`key`: the server's, from its certificate."""

    def __init__(self, key: rsa.RSAPublicKey, offered_version: int, version: Version, random: Callable[[int], bytes]) -> None:
        self.group: Group | None = None
        self._key, self._random = key, random
        self._begins = offered_version.to_bytes(2, "big")
        self._width = length_bytes(version)

    def read_parameters(self, reader: Reader) -> None:
        raise AssertionError("RSA key exchange has no ServerKeyExchange")

    def answer(self) -> tuple[bytes, bytes]:
        premaster = self._begins + self._random(PREMASTER_BYTES - len(self._begins))
        try:
            ciphertext = self._key.encrypt(premaster, padding.PKCS1v15())
        except ValueError:
            raise InsufficientSecurity("server's RSA key is too short, or none", name="SSL_ERROR_WEAK_SERVER_CERT_KEY") from None
        return tls12.encode_client_key_exchange(self._width, ciphertext), premaster
