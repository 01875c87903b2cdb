"""The master secret and what is made of it: record keys, Finished values, and what CertificateVerify signs.

RFC 5246 sections 6.3, 7.4.8, 7.4.9 and 8.1, RFC 7627; before TLS 1.2 the same sections of RFC 2246; of SSL 3.0 RFC 6101 sections
5.6.8, 5.6.9 and 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from ..ciphers import export
from ..codec import Reader
from ..codepoints import Version
from ..record.aead import Aead12
from ..record.cbc import Cbc
from ..record.mac import SSL3_PADS
from ..record.stream import Stream
from ..record.token import TokenCbc
from ..suites import Suite
from ..transcript import Transcript
from ..waits import TokenCipher
from .prf import derivation, prf

MASTER_SECRET_BYTES = 48
VERIFY_DATA_BYTES = 12  # in SSL 3.0 36

_SSL3_SENDERS = b"CLNT", b"SRVR"
_LABELS = b"client finished", b"server finished"

Protection = Aead12 | Cbc | Stream


class Secrets:
    """Of one connection.  `master` is 48 bytes."""

    __slots__ = ("master", "randoms", "suite", "version")

    def __init__(self, suite: Suite, version: Version, master: bytes, client_random: bytes, server_random: bytes) -> None:
        self.suite, self.version, self.master = suite, version, master
        self.randoms = client_random, server_random

    @classmethod
    def agree(
        cls,
        suite: Suite,
        version: Version,
        premaster: bytes,
        client_random: bytes,
        server_random: bytes,
        session_hash: bytes | None,
    ) -> Secrets:
        """From a premaster secret; with `session_hash` as RFC 7627 section 4 has it, without as RFC 5246 section 8.1."""
        if session_hash is not None:
            label, seed = b"extended master secret", session_hash
        else:
            label, seed = b"master secret", client_random + server_random
        master = derivation(suite, version)(premaster, label, seed, MASTER_SECRET_BYTES)
        return cls(suite, version, master, client_random, server_random)

    def finished(self, by_server: bool, transcript: Transcript) -> bytes:
        """Finished.verify_data: 12 bytes, in SSL 3.0 36."""
        if self.version == Version.ssl3:
            return self._ssl3_hash(transcript, _SSL3_SENDERS[by_server])
        digest = transcript.digest()
        return prf(self.suite.hash_in(self.version), self.master, _LABELS[by_server], digest, VERIFY_DATA_BYTES)

    def certificate_verify(self, transcript: Transcript) -> tuple[bytes, bool]:
        """What CertificateVerify signs, and whether that is hashed already: before TLS 1.2 it is, by MD5 and SHA-1, 36 bytes of
        which DSA and ECDSA sign the last 20.  For TLS 1.2 the transcript must have kept its messages."""
        if self.version >= Version.tls1_2:
            return bytes(transcript.raw), False
        if self.version == Version.ssl3:
            return self._ssl3_hash(transcript, b""), True
        return transcript.digest(), True

    def _ssl3_hash(self, transcript: Transcript, sender: bytes) -> bytes:
        """hash(master + pad_2 + hash(messages + sender + master + pad_1)), by MD5 and by SHA-1."""
        output = b""
        for name, part in (("md5", slice(16)), ("sha1", slice(16, 36))):
            pad = SSL3_PADS[name]
            inner = transcript.digest(sender + self.master + b"\x36" * pad)[part]
            output += hashlib.new(name, self.master + b"\x5c" * pad + inner).digest()
        return output

    def protections(
        self,
        encrypt_then_mac: bool,
        random: Callable[[int], bytes],
        split_records: bool = True,
        ciphers: tuple[TokenCipher, TokenCipher] | None = None,
    ) -> tuple[Protection, Protection]:
        """What the client writes with, and what the server writes with (RFC 5246 section 6.3).  `ciphers`: the same, where these
        are on a token."""
        suite, version, cipher = self.suite, self.version, self.suite.cipher
        macs, keys, ivs = self._key_block()
        if cipher.kind == "aead":
            return Aead12(cipher, keys[0], ivs[0]), Aead12(cipher, keys[1], ivs[1])
        if cipher.kind == "cbc":
            client, server = (
                Cbc(suite, version, key, mac, iv, encrypt_then_mac=encrypt_then_mac, split=split_records, random=random)
                for key, mac, iv in zip(keys, macs, ivs, strict=True)
            )
            return client, server
        if cipher.kind == "token":
            assert ciphers is not None
            client, server = (
                TokenCbc(suite, version, running, mac, marked=marked, split=split_records, random=random)
                for running, mac, marked in zip(ciphers, macs, (False, True), strict=True)
            )
            return client, server
        return Stream(suite, version, keys[0], macs[0]), Stream(suite, version, keys[1], macs[1])

    def _key_block(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """MAC keys, keys and IVs, of the client and of the server each."""
        suite, version, cipher = self.suite, self.version, self.suite.cipher
        client_random, server_random = self.randoms
        iv_bytes = cipher.block if version < Version.tls1_1 else cipher.fixed_iv
        sizes = (suite.mac_bytes, 0, 0) if cipher.kind == "token" else (suite.mac_bytes, cipher.secret, iv_bytes)
        derive = derivation(suite, version)
        block = Reader(derive(self.master, b"key expansion", server_random + client_random, 2 * sum(sizes)))
        macs, keys, ivs = ([block.take(size), block.take(size)] for size in sizes)
        if suite.export:
            keys, ivs = export.final_keys(cipher, version, keys, client_random, server_random)
        return macs, keys, ivs
