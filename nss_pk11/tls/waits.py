"""What a handshake can wait for.

A handshake is a generator that reads as the RFC's message flow; each `yield` hands one of these to the engine.  `Receive`
is answered by the peer; every `Operation` is answered by whoever drives the engine, with `engine.complete(operation,
result)` or `engine.fail(operation, error)`.  Waiting for a key is a wait like any other: nothing blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from .codepoints import SignatureScheme
    from .config import Identity
    from .messages.fortezza import ClientKeys


class Wait:
    """Base: something a handshake cannot go on without."""

    __slots__ = ()


class Receive(Wait):
    """The next handshake message, which must be one of `types` (HandshakeType values); any other is unexpected_message."""

    __slots__ = ("types",)

    def __init__(self, *types: int) -> None:
        self.types = types


class Operation(Wait):
    """Something only the driver can do.  Compared by identity; one is pending per engine at a time."""

    __slots__ = ()


class Sign(Operation):
    """Sign `message` with `identity.key` by `scheme`; result: the signature as TLS carries it (DER for ECDSA and DSA).
    RFC 8446 section 4.4.3, RFC 5246 section 7.4.8.

    `prehashed`: `message` is what the mechanism takes, 36 bytes of MD5 and SHA-1 for rsa_pkcs1_md5_sha1, 20 for dsa_sha1
    (SSL 3.0 hashes in its own way, RFC 6101 section 5.6.8).
    """

    __slots__ = ("identity", "message", "prehashed", "scheme")

    def __init__(self, identity: Identity, scheme: SignatureScheme, message: bytes, prehashed: bool = False) -> None:
        self.identity, self.scheme, self.message, self.prehashed = identity, scheme, message, prehashed


class Decrypt(Operation):
    """RSAES-PKCS1-v1_5 decryption of `ciphertext` with `identity.key`; result: the plaintext, or None where decryption
    failed *for whatever reason that depends on the ciphertext*.  The engine hides the difference (RFC 5246 section 7.4.7.1)."""

    __slots__ = ("ciphertext", "identity")

    def __init__(self, identity: Identity, ciphertext: bytes) -> None:
        self.identity, self.ciphertext = identity, ciphertext


class DecryptSsl2(Decrypt):
    """The same for SSL 2.0, whose keys should do nothing else (DROWN).  `raw`: the result is the whole block, padding and all."""

    __slots__ = ("raw",)

    def __init__(self, identity: Identity, ciphertext: bytes, raw: bool = False) -> None:
        super().__init__(identity, ciphertext)
        self.raw = raw


class TokenCipher(Protocol):
    """One direction of a connection, on a token, where its key is and stays.  Lives as long as it is referred to."""

    def update(self, data: bytes | memoryview) -> bytes:
        """Whole blocks, encrypted or decrypted, going on from those before.  Raises TokenError, for ever once it did."""


class KeaInitiated(NamedTuple):
    """What the card of a client has done: `identity` is whose key it did it with.  `write`, `read`, `kept`: only where asked
    for."""

    identity: Identity
    keys: ClientKeys
    write: TokenCipher | None
    read: TokenCipher | None
    kept: bytes = b""


class KeaInitiate(Operation):
    """A FORTEZZA client's part of the key exchange (RFC 6101 section 5.6.7; `ssl3.fortezza`); result: KeaInitiated, with no
    signature in its keys.

    `identities`: of which the first in the domain of the server's certificate (`chain`, DER, leaf first) is to do it;
    `random`: r_s, 128 bytes; `premaster`: 48 bytes, to be encrypted; `ciphers`: whether records are encrypted on the card;
    `keep`: whether that is to be possible again, by KeaResume.
    """

    __slots__ = ("chain", "ciphers", "identities", "keep", "premaster", "random")

    def __init__(
        self,
        identities: tuple[Identity, ...],
        chain: tuple[bytes, ...],
        random: bytes,
        premaster: bytes,
        ciphers: bool,
        keep: bool = False,
    ) -> None:
        self.identities, self.chain, self.random = identities, chain, random
        self.premaster, self.ciphers, self.keep = premaster, ciphers, keep


class KeaResponded(NamedTuple):
    """What the card of a server has done.  `premaster`: 48 bytes, right or wrong."""

    premaster: bytes
    write: TokenCipher | None
    read: TokenCipher | None
    kept: bytes = b""

    def __repr__(self) -> str:
        return "<KeaResponded>"  # nothing that holds a secret shows it


class KeaRespond(Operation):
    """A FORTEZZA server's part, with `identity.key`; result: KeaResponded.  `random`: r_s; `keys`: the client's message;
    `ciphers`, `keep`: as above."""

    __slots__ = ("ciphers", "identity", "keep", "keys", "random")

    def __init__(self, identity: Identity, random: bytes, keys: ClientKeys, ciphers: bool, keep: bool = False) -> None:
        self.identity, self.random, self.keys, self.ciphers, self.keep = identity, random, keys, ciphers, keep


class KeaResume(Operation):
    """Take up what a card kept of an earlier handshake; result: the ciphers (write, read), None where this card did not keep it.

    `identities`: a client's, as above; a server's, of which the first is to do it, `chain` empty; `kept`: see KeaInitiated.
    """

    __slots__ = ("chain", "identities", "kept")

    def __init__(self, identities: tuple[Identity, ...], chain: tuple[bytes, ...], kept: bytes) -> None:
        self.identities, self.chain, self.kept = identities, chain, kept


class LookupSession(Operation):
    """Find a server session by id (RFC 5246 section 7.4.1.2); result: what StoreSession stored (bytes), or None."""

    __slots__ = ("session_id",)

    def __init__(self, session_id: bytes) -> None:
        self.session_id = session_id


class VerifyPeer(Operation):
    """Decide on the peer's certificate; result ignored, `fail` with a CertificateError refuses it.

    `chain`: DER, leaf first; `server_name`: the name to match, "" on a server; `ocsp`: stapled response (DER), b"" for none,
    None on a resumption, where the chain is the session's and only today's trust and time are to be judged;
    `purpose`: "server" or "client", whose certificate it is.
    """

    __slots__ = ("chain", "ocsp", "purpose", "server_name")

    def __init__(self, chain: tuple[bytes, ...], server_name: str, ocsp: bytes | None, purpose: str) -> None:
        self.chain, self.server_name, self.ocsp, self.purpose = chain, server_name, ocsp, purpose


class ChooseClientIdentity(Operation):
    """The server asks for a certificate; result: one of `identities` (those that fit `schemes`), or None to send none.

    `authorities`: DER names of the CAs the server accepts, empty for any.
    """

    __slots__ = ("authorities", "identities", "schemes")

    def __init__(self, identities: tuple[Identity, ...], authorities: tuple[bytes, ...], schemes: tuple[int, ...]) -> None:
        self.identities, self.authorities, self.schemes = identities, authorities, schemes


# Not handshake messages, but flows wait for them like ones; what they are sent is the record's fragment.  Alerts are warnings.
CHANGE_CIPHER_SPEC = 0x100  # RFC 5246 section 7.1
NO_CERTIFICATE = 0x101  # SSL 3.0: what a client sends in place of a Certificate (RFC 6101 section 5.6.6)
NO_RENEGOTIATION = 0x102  # RFC 5246 section 7.2.2
SSL2_MESSAGE = 0x103  # of SSL 2.0, or a ClientHello in its form; flows are sent an Ssl2Message


class Ssl2Message(bytes):
    """A message that came in a record of SSL 2.0, from its type on."""

    __slots__ = ()
