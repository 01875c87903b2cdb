"""DHE key exchange (RFC 5246 sections 7.4.3, 7.4.7.2, 8.1.2; RFC 7919).

A server uses the groups of RFC 7919 only.  A client that meets another group can do no more than look at it.  Keys are never
used twice, so that a secret's leading zeros, which TLS 1.2 strips, tell nobody anything (the Raccoon attack needs reuse).
"""

from __future__ import annotations

from ...errors import IllegalParameter, InsufficientSecurity
from .. import ffdhe, groups
from ..codec import Reader
from ..codepoints import Group
from ..link import Steps
from ..messages import tls12

MOST_BITS = 8192  # beyond, a server only makes its clients work


class DheServer:
    def __init__(self, group: Group) -> None:
        self._share = groups.new_share(group)
        prime = ffdhe.PRIMES[group].to_bytes(ffdhe.SIZES[group], "big")
        self.parameters = tls12.encode_dh_params(prime, bytes((ffdhe.GENERATOR,)), self._share.public)

    def receive(self, raw: bytes) -> Steps[bytes]:
        yield from ()  # nothing to wait for, unlike RSA
        return self._share.agree(tls12.decode_client_key_exchange(raw, 2)).lstrip(b"\0")


class DheClient:
    """`least_bits`: how long the server's prime must be; `named_only`: and a group of RFC 7919."""

    def __init__(self, least_bits: int, *, named_only: bool = False) -> None:
        self._least_bits, self._named_only = least_bits, named_only
        self.group: Group | None = None
        self._prime = self._generator = 0
        self._public = b""

    def read_parameters(self, reader: Reader) -> None:
        """Raises InsufficientSecurity for a group that is too small, IllegalParameter for one that is none."""
        prime, generator, self._public = tls12.decode_dh_params(reader)
        self._prime, self._generator = int.from_bytes(prime, "big"), int.from_bytes(generator, "big")
        bits = self._prime.bit_length()
        if bits < self._least_bits:
            raise InsufficientSecurity(
                f"server's Diffie-Hellman group has {bits} bits", name="SSL_ERROR_WEAK_SERVER_EPHEMERAL_DH_KEY"
            )
        y = int.from_bytes(self._public, "big")
        if bits > MOST_BITS or not self._prime % 2 or not all(1 < value < self._prime - 1 for value in (self._generator, y)):
            raise IllegalParameter("server's Diffie-Hellman group is none", name="SSL_ERROR_RX_MALFORMED_DHE_KEY_SHARE")
        known = (group for group, p in ffdhe.PRIMES.items() if p == self._prime and self._generator == ffdhe.GENERATOR)
        self.group = next(known, None)
        if self._named_only and self.group is None:
            raise InsufficientSecurity(
                "server's Diffie-Hellman group is none of RFC 7919", name="SSL_ERROR_WEAK_SERVER_EPHEMERAL_DH_KEY"
            )

    def answer(self) -> tuple[bytes, bytes]:
        if self.group is not None:
            public, secret = groups.respond(self.group, self._public)
        else:
            public, secret = ffdhe.respond(self._prime, self._generator, self._public)
        return tls12.encode_client_key_exchange(2, public), secret.lstrip(b"\0")
