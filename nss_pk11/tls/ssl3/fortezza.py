"""FORTEZZA key exchange (RFC 6101 sections 5.6.3 and 5.6.7.2, as NSS did it): by KEA, on the cards of both sides.

KEA gives both cards a token encryption key (TEK), which never leaves them.  Under it the client's card wraps a key for each
direction and encrypts the premaster secret, which is made here, as the master secret is derived here.  So MACs, Finished values
and RC4's keys are as in other suites; SKIPJACK's keys and all work with them are the cards'.  All suites send such keys, though
only one uses them: old servers want them there.

The server's random r_s is the constant 1, KEA's e-mail mode: its part then is that of its certificate alone.

A resumed session has SKIPJACK's keys again, as its master secret: each card kept them for its side, wrapped under one of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.x509 import Certificate

from ...errors import DecryptError, HandshakeFailure, IllegalParameter
from .. import signatures
from ..codec import Reader
from ..codepoints import Group, SignatureScheme, V
from ..config import Identity
from ..link import Steps
from ..messages import fortezza as messages
from ..waits import KeaInitiate, KeaInitiated, KeaRespond, KeaResponded, KeaResume, Sign, TokenCipher
from .rsa import PREMASTER_BYTES, select_premaster

E_MAIL_RANDOM = (1).to_bytes(messages.RANDOM_BYTES, "big")
NO_SIGNATURE = bytes(messages.SIGNATURE_BYTES)

# What the client writes with, and what the server writes with.
Ciphers = tuple[TokenCipher, TokenCipher]


class FortezzaServer:
    """`begins`: see `rsa.RsaServer`; `on_token`: whether records are encrypted on the card, by `ciphers` from `receive` on.

    To be set before: `client`, the certificate of one that authenticates itself; `keep`, whether the session may be resumed,
    with `kept`.
    """

    def __init__(self, identity: Identity, begins: bytes, on_token: bool, random: Callable[[int], bytes]) -> None:
        self.parameters = E_MAIL_RANDOM
        self.ciphers: Ciphers | None = None
        self._identity, self._begins, self._on_token, self._random = identity, begins, on_token, random
        self.client: Certificate | None = None
        self.keep, self.kept = False, b""

    def receive(self, raw: bytes) -> Steps[bytes]:
        """Raises IllegalParameter where the client's key did not sign y_c, or y_c is left to a certificate: such ones (version 1,
        MISSI's) are not known here."""
        keys = messages.ClientKeys.decode(raw)
        if self.client is not None:
            _check_signature(keys, self.client)
        if not keys.public:
            raise IllegalParameter("client sends no KEA public value", name="SSL_ERROR_CLIENT_KEY_EXCHANGE_FAILURE")
        fallback = self._random(PREMASTER_BYTES)
        done: KeaResponded = yield KeaRespond(self._identity, self.parameters, keys, self._on_token, self.keep)
        if done.read is not None and done.write is not None:
            self.ciphers, self.kept = (done.read, done.write), done.kept
        return select_premaster(done.premaster, fallback, self._begins)


class FortezzaClient:
    """`begins`: the version that was offered; `on_token`: see `FortezzaServer`."""

    def __init__(self, begins: bytes, on_token: bool, random: Callable[[int], bytes]) -> None:
        self.group: Group | None = None
        self.ciphers: Ciphers | None = None
        self.kept = b""
        self._begins, self._on_token, self._random = begins, on_token, random
        self._server_random = b""

    def read_parameters(self, reader: Reader) -> None:
        self._server_random = reader.take(messages.RANDOM_BYTES)

    def answer(self) -> tuple[bytes, bytes]:
        raise AssertionError("a card answers: see `initiate`")

    def initiate(
        self, identities: tuple[Identity, ...], chain: tuple[bytes, ...], signer: Identity | None, keep: bool
    ) -> Steps[tuple[bytes, bytes]]:
        """The ClientKeyExchange, and the premaster secret.  `identities`: with KEA keys; `chain`: the server's; `signer`: whose
        key authenticates the client, by a signature over y_c; `keep`: whether the session may be resumed, with `kept`."""
        premaster = self._begins + self._random(PREMASTER_BYTES - len(self._begins))
        done: KeaInitiated = yield KeaInitiate(identities, chain, self._server_random, premaster, self._on_token, keep)
        if done.write is not None and done.read is not None:
            self.ciphers, self.kept = (done.write, done.read), done.kept
        keys = done.keys
        if signer is not None:
            signature = yield Sign(signer, SignatureScheme.dsa_sha1, keys.public)
            keys = keys._replace(signature=signatures.dsa_bare(signature))
        return keys.encode(), premaster


def resume_server(identities: tuple[Identity, ...], kept: bytes) -> Steps[Ciphers | None]:
    """Those of an earlier handshake with one of our KEA keys; None: there must be another full one."""
    exchanging = tuple(identity for identity in identities if identity.kea)
    if not exchanging or not kept:
        return None
    ciphers = yield KeaResume(exchanging, (), kept)
    return (ciphers[1], ciphers[0]) if ciphers is not None else None


def resume_client(identities: tuple[Identity, ...], chain: tuple[bytes, ...], kept: bytes) -> Steps[Ciphers]:
    """The same for a client, which has no choice any more.  `chain`: the server's.  Raises HandshakeFailure."""
    ciphers = yield KeaResume(tuple(identity for identity in identities if identity.kea), chain, kept)
    if ciphers is None:
        raise HandshakeFailure("the card does not have this session's keys", name="SSL_ERROR_SYM_KEY_UNWRAP_FAILURE")
    return ciphers[0], ciphers[1]


def _check_signature(keys: messages.ClientKeys, leaf: Certificate) -> None:
    """That it was the client's key that signed y_c.  Raises IllegalParameter, the alert of NSS, whatever is wrong."""
    scheme = SignatureScheme.dsa_sha1
    try:
        signatures.verify(scheme, (scheme,), leaf, V.tls1_0, signatures.dsa_as_der(keys.signature), keys.public)
    except DecryptError as error:
        raise IllegalParameter("client's key did not sign its KEA public value", name=error.name) from None
