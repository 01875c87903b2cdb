"""FORTEZZA's part of a handshake on the card that has the key: joins `tls.waits` to `slots.fortezza`.

A card that has gone is not waited for, as the keys of another one would not fit: the handshake fails, and the next takes another
suite, if there is one.  No sockets, no engines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from ..errors import ConfigurationError, HandshakeFailure, TokenError
from ..slots import fortezza as card
from ..slots import kea
from ..tls.messages.fortezza import PREMASTER_BYTES, SIGNATURE_BYTES, ClientKeys
from ..tls.waits import KeaInitiate, KeaInitiated, KeaRespond, KeaResponded, KeaResume, TokenCipher
from .dispatcher import Use
from .identity import key_of

if TYPE_CHECKING:
    from ..slots import PrivateKey
    from ..slots.group import Member
    from ..tls.config import Identity

_MECHANISM = "CKM_KEA_KEY_DERIVE"
CardOperation = KeaInitiate | KeaRespond | KeaResume
Result = TypeVar("Result")


def use_of(operation: CardOperation) -> tuple[PrivateKey, Use]:
    """The key that an operation is for, and what is done with it.  Raises HandshakeFailure."""
    if isinstance(operation, KeaInitiate):
        return initiating(operation)
    return responding(operation) if isinstance(operation, KeaRespond) else resuming(operation)


def initiating(operation: KeaInitiate) -> tuple[PrivateKey, Use]:
    """The client's key, and what is done with it.  Raises HandshakeFailure (SSL_ERROR_FORTEZZA_PQG) where no key is of the domain
    of the server's."""
    identity, peer = _match(operation.identities, operation.chain)

    def work(key: card.CardKey, patient: bool) -> KeaInitiated:
        done = card.initiate(
            key, peer, operation.random, operation.premaster, ciphers=operation.ciphers, keep=operation.keep, patient=patient
        )
        keys = ClientKeys(
            public_of(identity).public, done.random, bytes(SIGNATURE_BYTES), done.first_key, done.second_key,
            done.first_iv, done.second_iv, done.secret_iv, done.secret,
        )  # fmt: skip
        return KeaInitiated(identity, keys, done.write, done.read, done.kept)

    return key_of(identity), Use(_on_card(work), lambda member: _MECHANISM)


def responding(operation: KeaRespond) -> tuple[PrivateKey, Use]:
    """The server's."""
    keys = operation.keys
    offered = card.Offered(
        keys.public, keys.random, keys.client_key, keys.server_key, keys.client_iv, keys.server_iv, keys.premaster_iv,
        keys.premaster,
    )  # fmt: skip

    def work(key: card.CardKey, patient: bool) -> KeaResponded:
        done = card.respond(key, operation.random, offered, ciphers=operation.ciphers, keep=operation.keep, patient=patient)
        return KeaResponded(done.secret.ljust(PREMASTER_BYTES, b"\0"), done.write, done.read, done.kept)

    return key_of(operation.identity), Use(_on_card(work), lambda member: _MECHANISM)


def resuming(operation: KeaResume) -> tuple[PrivateKey, Use]:
    """Either's.  Raises as `initiating`."""
    initiated = bool(operation.chain)
    identity = _match(operation.identities, operation.chain)[0] if initiated else operation.identities[0]

    def work(key: card.CardKey, patient: bool) -> tuple[TokenCipher, TokenCipher] | None:
        return card.take_up(key, operation.kept, initiated=initiated, patient=patient)

    return key_of(identity), Use(_on_card(work), lambda member: "CKM_SKIPJACK_WRAP")


def _match(identities: tuple[Identity, ...], chain: tuple[bytes, ...]) -> tuple[Identity, kea.KeaPublicKey]:
    """Of ours that for a server's key, and that."""
    server = kea.from_certificate(chain[0])
    found = best_match(identities, server) if server is not None else None
    if server is None or found is None:
        raise HandshakeFailure("no KEA key here is of the domain of the server's", name="SSL_ERROR_FORTEZZA_PQG")
    return found, server


def best_match(identities: tuple[Identity, ...], server: kea.KeaPublicKey) -> Identity | None:
    """The first in the domain of a server's key."""
    return next((identity for identity in identities if public_of(identity).domain == server.domain), None)


def public_of(identity: Identity) -> kea.KeaPublicKey:
    """The public half of a KEA identity's key."""
    public = key_of(identity).public_key
    assert isinstance(public, kea.KeaPublicKey)
    return public


def _on_card(work: Callable[[card.CardKey, bool], Result]) -> Callable[[Member, bool], Result]:
    """Raises HandshakeFailure (SSL_ERROR_TOKEN_INSERTION_REMOVAL) where the card has gone, or what the client sent is none of
    the card's making."""

    def run(member: Member, patient: bool) -> Result:
        key = member.key
        if not hasattr(key, "operate"):
            raise ConfigurationError(f"key {key.label!r} is on no card", name="SEC_ERROR_NO_TOKEN")
        try:
            return work(cast("card.CardKey", key), patient)
        except TokenError as error:
            if error.rv in card.GONE:
                detail = f'token "{key.token.label}" was removed in mid-handshake'
                raise HandshakeFailure(detail, name="SSL_ERROR_TOKEN_INSERTION_REMOVAL") from error
            if error.rv in card.REFUSED:
                raise HandshakeFailure("the other side's numbers are none of KEA's", name=card.REFUSED[error.rv]) from error
            raise

    return run
