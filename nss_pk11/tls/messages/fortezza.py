"""Messages that FORTEZZA suites alone have (RFC 6101 sections 5.6.3, 5.6.4 and 5.6.7, as NSS fills them in).

Everything here has a fixed length: the card's numbers are 128 bytes, its wrapped keys 12, its IVs 24.  Only y_c has a length of
its own.  What the fields mean is in `ssl3.fortezza`.
"""

from __future__ import annotations

from typing import NamedTuple

from ...errors import DecodeError
from ..codec import Reader, Writer
from ..codepoints import H
from .hello import message

FORTEZZA_DMS = 20  # ClientCertificateType

RANDOM_BYTES = PUBLIC_BYTES = 128  # r_s, r_c; y_c: of KEA's modulus
SIGNATURE_BYTES = 40  # r and s of DSA, one after the other; some transcriptions of the specification say 20
WRAPPED_KEY_BYTES = 12  # SKIPJACK's 10 and a checksum of 2
IV_BYTES = 24  # a LEAF of 16, an IV of 8
PREMASTER_BYTES = 48
LEAST_PUBLIC_BYTES = 64

_MALFORMED = "SSL_ERROR_RX_MALFORMED_CLIENT_KEY_EXCH"


def encode_server_key_exchange(random: bytes) -> bytes:
    """r_s, which nobody signs: the certificate says enough of the server's key."""
    return message(H.server_key_exchange, random)


class ClientKeys(NamedTuple):
    """FortezzaKeys of the ClientKeyExchange, in the message's order.

    `public`: y_c, b"" where the client's certificate says it; `random`: r_c; `signature`: of y_c, zeros without client
    authentication; `client_key`, `server_key`: what the client and the server write with, wrapped under the TEK; the IVs: of
    both and of `premaster`, which is encrypted under the TEK.
    """

    public: bytes
    random: bytes
    signature: bytes
    client_key: bytes
    server_key: bytes
    client_iv: bytes
    server_iv: bytes
    premaster_iv: bytes
    premaster: bytes

    def encode(self) -> bytes:
        return message(H.client_key_exchange, Writer().vector(1, self.public).raw(b"".join(self[1:])).bytes())

    @classmethod
    def decode(cls, raw: bytes) -> ClientKeys:
        """Raises DecodeError for what has other lengths."""
        reader = Reader(raw, 4)
        public = reader.vector(1)
        if public and not LEAST_PUBLIC_BYTES <= len(public) <= PUBLIC_BYTES:
            raise DecodeError(f"y_c of {len(public)} bytes", name=_MALFORMED)
        keys = cls(public, *(reader.take(size) for size in _SIZES))
        reader.end()
        return keys


_SIZES = (
    RANDOM_BYTES, SIGNATURE_BYTES, WRAPPED_KEY_BYTES, WRAPPED_KEY_BYTES, IV_BYTES, IV_BYTES, IV_BYTES, PREMASTER_BYTES
)  # fmt: skip
