"""RSA key exchange of export suites: by a key no longer than the suite's limit (RFC 2246 sections 7.4.3 and 7.4.7.1).

A server whose own key is longer signs a short one with it, in a ServerKeyExchange.  The client takes such a key in these suites
only, and only if it is as short as it has to be: what it would take elsewhere, somebody in the middle could make it take (FREAK).
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import rsa

from ...errors import IllegalParameter, InsufficientSecurity
from ..codec import Reader
from ..codepoints import Group, Version
from ..config import StepDownKey
from ..messages import tls12
from .rsa import RsaClient, RsaServer

_MALFORMED = "SSL_ERROR_RX_MALFORMED_SERVER_KEY_EXCH"


class RsaExportServer(RsaServer):
    """With a short key."""

    def __init__(self, short: StepDownKey, begins: bytes, version: Version, random: Callable[[int], bytes]) -> None:
        super().__init__(short.identity, begins, version, random)
        self.parameters = tls12.encode_rsa_params(short.modulus, short.exponent)


class RsaExportClient:
    """`limit`: how long the server's short key may be, bits."""

    def __init__(self, limit: int, offered_version: int, version: Version, random: Callable[[int], bytes]) -> None:
        self.group: Group | None = None
        self._limit, self._offered_version, self._version, self._random = limit, offered_version, version, random
        self._exchange: RsaClient | None = None

    def read_parameters(self, reader: Reader) -> None:
        """Raises InsufficientSecurity for a key that is longer than the suite allows, IllegalParameter for one that is none."""
        modulus, exponent = tls12.decode_rsa_params(reader)
        bits = modulus.bit_length()
        if bits > self._limit:
            raise InsufficientSecurity(f"server's export key has {bits} bits, {self._limit} are allowed", name=_MALFORMED)
        try:
            key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        except ValueError:
            raise IllegalParameter("server's export key is none", name=_MALFORMED) from None
        self._exchange = RsaClient(key, self._offered_version, self._version, self._random)

    def answer(self) -> tuple[bytes, bytes]:
        assert self._exchange is not None
        return self._exchange.answer()
