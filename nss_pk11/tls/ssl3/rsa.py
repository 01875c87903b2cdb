"""RSA key exchange (RFC 5246 section 7.4.7.1).

The server's side is where Bleichenbacher's attack and its many children aim: whatever a ciphertext decrypts to, or fails to,
the handshake goes on with 48 bytes, and which 48 bytes shows nowhere but in a Finished that fits or does not.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import Certificate

from ...errors import InsufficientSecurity
from ..codec import Reader
from ..codepoints import Group
from ..config import Identity
from ..link import Steps
from ..messages import tls12
from ..waits import Decrypt

PREMASTER_BYTES = 48
_ALL_ONES = (1 << 8 * PREMASTER_BYTES) - 1


class RsaServer:
    """`offered_version`: ClientHello.client_version, which the client repeats inside."""

    def __init__(self, identity: Identity, offered_version: int, random: Callable[[int], bytes]) -> None:
        self.parameters = b""
        self._identity, self._random = identity, random
        self._version = offered_version.to_bytes(2, "big")

    def receive(self, raw: bytes) -> Steps[bytes]:
        ciphertext = tls12.decode_client_key_exchange(raw, 2)
        fallback = self._random(PREMASTER_BYTES)  # before anything is known, so that its cost tells nothing
        plaintext = yield Decrypt(self._identity, ciphertext)
        return select_premaster(plaintext, fallback, self._version)


def select_premaster(plaintext: bytes | None, fallback: bytes, version: bytes) -> bytes:
    """`plaintext` if it is 48 bytes that start with `version`, otherwise `fallback`; by a mask, not a branch."""
    found = plaintext or b""
    padded = (found + bytes(PREMASTER_BYTES))[:PREMASTER_BYTES]
    good = (len(found) == PREMASTER_BYTES) & compare_digest(padded[:2], version)
    mask = -int(good) & _ALL_ONES
    chosen = int.from_bytes(padded, "big") & mask | int.from_bytes(fallback, "big") & (mask ^ _ALL_ONES)
    return chosen.to_bytes(PREMASTER_BYTES, "big")


class RsaClient:
    """`leaf`: the server's certificate, whose key is RSA."""

    def __init__(self, leaf: Certificate, offered_version: int, random: Callable[[int], bytes]) -> None:
        self.group: Group | None = None
        self._leaf, self._random = leaf, random
        self._version = offered_version.to_bytes(2, "big")

    def read_parameters(self, reader: Reader) -> None:
        raise AssertionError("RSA key exchange has no ServerKeyExchange")

    def answer(self) -> tuple[bytes, bytes]:
        premaster = self._version + self._random(PREMASTER_BYTES - 2)
        key = self._leaf.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        try:
            ciphertext = key.encrypt(premaster, padding.PKCS1v15())
        except ValueError:
            raise InsufficientSecurity("server's RSA key is too small", name="SSL_ERROR_WEAK_SERVER_CERT_KEY") from None
        return tls12.encode_client_key_exchange(2, ciphertext), premaster
