"""The master secret and what is made of it: Finished values and record keys (RFC 5246 sections 6.3, 7.4.9, 8.1, RFC 7627)."""

from __future__ import annotations

from collections.abc import Callable

from ..codec import Reader
from ..record.aead import Aead12
from ..record.cbc import Cbc
from ..suites import Suite
from .prf import prf

MASTER_SECRET_BYTES = 48
VERIFY_DATA_BYTES = 12

Protection = Aead12 | Cbc


class Secrets:
    """Of one connection.  `master` is 48 bytes."""

    __slots__ = ("master", "randoms", "suite")

    def __init__(self, suite: Suite, master: bytes, client_random: bytes, server_random: bytes) -> None:
        self.suite, self.master = suite, master
        self.randoms = client_random, server_random

    @classmethod
    def agree(
        cls, suite: Suite, premaster: bytes, client_random: bytes, server_random: bytes, session_hash: bytes | None
    ) -> Secrets:
        """From a premaster secret; with `session_hash` as RFC 7627 section 4 has it, without as RFC 5246 section 8.1."""
        if session_hash is not None:
            label, seed = b"extended master secret", session_hash
        else:
            label, seed = b"master secret", client_random + server_random
        master = prf(suite.hash, premaster, label, seed, MASTER_SECRET_BYTES)
        return cls(suite, master, client_random, server_random)

    def finished(self, by_server: bool, transcript_hash: bytes) -> bytes:
        """Finished.verify_data."""
        label = b"server finished" if by_server else b"client finished"
        return prf(self.suite.hash, self.master, label, transcript_hash, VERIFY_DATA_BYTES)

    def protections(self, encrypt_then_mac: bool, random: Callable[[int], bytes]) -> tuple[Protection, Protection]:
        """What the client writes with, and what the server writes with (RFC 5246 section 6.3)."""
        suite, cipher = self.suite, self.suite.cipher
        client_random, server_random = self.randoms
        length = 2 * (suite.mac_bytes + cipher.key + cipher.fixed_iv)
        block = Reader(prf(suite.hash, self.master, b"key expansion", server_random + client_random, length))
        macs, keys, ivs = ([block.take(size), block.take(size)] for size in (suite.mac_bytes, cipher.key, cipher.fixed_iv))
        if cipher.kind == "cbc":
            client, server = (Cbc(suite, key, mac, encrypt_then_mac, random) for key, mac in zip(keys, macs, strict=True))
            return client, server
        return Aead12(cipher, keys[0], ivs[0]), Aead12(cipher, keys[1], ivs[1])
