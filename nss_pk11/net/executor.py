"""Runs what an engine asks for: signatures and decryptions on tokens, session look-ups, decisions about certificates.

The only place where an engine's Operation meets a token's key.  A driver that must not wait runs an operation in place if that is
quick (`run_if_quick`), else in a worker thread (`submit`); one that may wait just runs it.  Knows no sockets and no engines.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from ..errors import CertificateError, DecryptError, WrongSignature
from ..slots.group import KeyGroup
from ..tls.signatures import load_leaf
from ..tls.waits import (
    ChooseClientIdentity,
    Decrypt,
    DecryptSsl2,
    KeaInitiate,
    KeaRespond,
    KeaResume,
    LookupSession,
    Operation,
    Sign,
    VerifyPeer,
)
from . import fortezza
from .dispatcher import IN_PLACE_BELOW, Answer, Dispatcher, Errand, NotQuick, Use
from .identity import ALGORITHMS, check_signature, key_of
from .purposes import PURPOSES
from .uses import Observer

if TYPE_CHECKING:
    from ..slots import PrivateKey
    from ..slots.group import Member
    from ..tls.config import Identity

__all__ = ["KeyExecutor", "NotQuick", "SessionStore", "Unverified", "Verifier", "choose_identity"]

log = logging.getLogger(__name__)

KeyOperation = Sign | Decrypt | KeaInitiate | KeaRespond | KeaResume

_leaf = lru_cache(64)(load_leaf)  # of our own chains, few and always the same

TIMEOUT = 10.0  # seconds that a key which is away is waited for, where the caller does not say
VERIFIED_FOR = 60.0  # seconds a verified chain stays verified
VERIFIED_CHAINS = 256
REMEMBERED_KEYS = 1000  # with what is known of their tokens


class Verifier(Protocol):
    """What decides on a peer's chain; `certs.Trust` does."""

    def verify_server(self, chain: tuple[bytes, ...], server_name: str, *, now: float, ocsp: bytes | None = b"") -> object: ...

    def verify_client(self, chain: tuple[bytes, ...], *, now: float) -> object: ...


class SessionStore(Protocol):
    """A server's sessions by id; `sessions.ServerCache` is one."""

    def get(self, session_id: bytes) -> bytes | None: ...

    def put(self, session_id: bytes, state: bytes) -> None: ...

    def delete(self, session_id: bytes) -> None: ...


class Unverified:
    """Accepts every certificate.  For tests, and for users who say so."""

    def verify_server(self, chain: tuple[bytes, ...], server_name: str, *, now: float, ocsp: bytes | None = b"") -> object:
        return chain

    def verify_client(self, chain: tuple[bytes, ...], *, now: float) -> object:
        return chain


class KeyExecutor:
    """One for any number of connections; thread-safe.

    `trust`: decides on peers' certificates; without it every certificate is refused.  `sessions`: a server's session
    cache.  `choose`: picks the client identity instead of `choose_identity`.  `observers` are told of every use of a key.
    `check_signatures`: verify each signature with the token's public key before it leaves, so that a token that computes wrongly
    (RSA-CRT faults give the key away) is found out.  It costs 25 to 60 microseconds; None, the default, checks all but those of
    quick tokens that are software, since these compute in memory no worse than ours.

    Keys slower than 2 ms go to worker threads, a pool per token; `dispatcher` says what happens when one fails.
    """

    def __init__(
        self,
        *,
        trust: Verifier | None = None,
        sessions: SessionStore | None = None,
        choose: Callable[[ChooseClientIdentity], Identity | None] | None = None,
        check_signatures: bool | None = None,
        observers: Sequence[Observer] = (),
        in_place_below: float = IN_PLACE_BELOW,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.trust, self.sessions, self.choose = trust, sessions, choose or choose_identity
        self.check_signatures, self.clock = check_signatures, clock
        self._dispatcher = Dispatcher(observers, in_place_below)
        self._groups: dict[PrivateKey, KeyGroup] = {}
        self._verified: dict[bytes, float] = {}
        self._lock = Lock()
        self._run: dict[type[Operation], Callable[..., object]] = {
            LookupSession: self._lookup,
            VerifyPeer: self._verify,
            ChooseClientIdentity: lambda operation: self.choose(operation),
        }

    def run(self, operation: Operation, timeout: float = TIMEOUT, peer: object = ()) -> object:
        """The operation's result, however long it takes; a key that is away is waited for up to `timeout` seconds.

        `peer`: its address, for observers.  Raises whatever the engine is to be told with `fail`.
        """
        if isinstance(operation, KeyOperation):
            return self._dispatcher.run(self._errand(operation, timeout, peer))
        return self._run[type(operation)](operation)

    def run_if_quick(self, operation: Operation, peer: object = ()) -> object:
        """The same, but raises NotQuick where it would take longer than to wake a thread: `submit` it then."""
        if isinstance(operation, KeyOperation):
            return self._dispatcher.run_if_quick(self._errand(operation, 0.0, peer))
        return self._run[type(operation)](operation)

    def submit(self, operation: KeyOperation, answer: Answer, timeout: float, peer: object = ()) -> Errand:
        """Run `operation` in a worker thread, which calls `answer(result, error)`.

        An operation that has waited longer than `timeout` seconds is not run: error is a TokenError, by
        preference why the token could not do it.  `cancel()` what this returns to forget it.
        """
        errand = self._errand(operation, timeout, peer)
        self._dispatcher.send(errand, answer)
        return errand

    def group(self, key: PrivateKey) -> KeyGroup:
        """The tokens that a key is used on, with their state."""
        group = self._groups.get(key)
        if group is None:
            with self._lock:
                while len(self._groups) >= REMEMBERED_KEYS:  # a program that looks its key up for every connection
                    del self._groups[next(iter(self._groups))]
                group = self._groups.setdefault(key, key if isinstance(key, KeyGroup) else KeyGroup((key,)))
        return group

    @property
    def groups(self) -> list[KeyGroup]:
        """Of every key that was used lately, or asked for by `group`."""
        return list(self._groups.values())

    def _errand(self, operation: KeyOperation, timeout: float, peer: object) -> Errand:
        deadline = time.monotonic() + timeout
        if isinstance(operation, fortezza.CardOperation):
            key, use = fortezza.use_of(operation)
            return Errand(self.group(key), use, "agree", deadline, peer)
        group = self.group(key_of(operation.identity))
        ssl2 = isinstance(operation, DecryptSsl2)
        if group.serves_ssl2 is not ssl2:
            PURPOSES.claim(operation.identity, ssl2=ssl2)
            group.serves_ssl2 = ssl2
        if isinstance(operation, Sign):
            return Errand(group, self._signing(operation), "sign", deadline, peer)
        return Errand(group, _decrypting(operation), "decrypt", deadline, peer)

    def store(self, session_id: bytes, state: bytes) -> None:
        """Keep a server session; answers later LookupSessions."""
        if self.sessions is not None:
            self.sessions.put(session_id, state)

    def forget(self, session_id: bytes) -> None:
        """A session that must not be resumed again."""
        if self.sessions is not None:
            self.sessions.delete(session_id)

    def close(self) -> None:
        """Answer what waits with an error, and wait for what runs, some seconds."""
        self._dispatcher.close()

    def __enter__(self) -> KeyExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- the operations ------------------------------------------------------------------------------------------------

    def _signing(self, operation: Sign) -> Use:
        algorithm = ALGORITHMS[operation.scheme]

        def sign(member: Member, patient: bool) -> bytes:
            signature = member.key.sign(algorithm, operation.message, prehashed=operation.prehashed, patient=patient)
            if self._to_be_checked(member):
                self._check(operation, member, signature)
            return signature

        return Use(sign, lambda member: member.key.mechanism(algorithm))

    def _to_be_checked(self, member: Member) -> bool:
        if member.breaker.suspect:
            return True
        if self.check_signatures is not None:
            return self.check_signatures
        return not self._dispatcher.quick(member)

    def _check(self, operation: Sign, member: Member, signature: bytes) -> None:
        """Raises WrongSignature, and marks the token."""
        try:
            leaf = _leaf(operation.identity.chain)
            check_signature(operation.scheme, leaf, signature, operation.message, operation.prehashed)
        except DecryptError:
            token = member.key.token
            if not member.breaker.suspect:
                member.breaker.suspect = True
                log.error('token "%s" (serial %s) signs wrongly; what it signed was not sent', token.label, token.serial)
            raise WrongSignature(
                f'token "{token.label}" made a signature that does not verify; it was not sent',
                token=token.label,
                slot=token.slot,
                module=token.module,
            ) from None

    def _lookup(self, operation: LookupSession) -> bytes | None:
        return self.sessions.get(operation.session_id) if self.sessions is not None else None

    def _verify(self, operation: VerifyPeer) -> None:
        if self.trust is None:
            raise CertificateError("no authority is trusted", name="SEC_ERROR_UNTRUSTED_ISSUER")
        digest = sha256(b"".join(sha256(der).digest() for der in operation.chain))
        digest.update(b"" if operation.ocsp is None else sha256(operation.ocsp).digest())
        digest.update(f"{operation.purpose}\0{operation.server_name}".encode())
        key, now = digest.digest(), self.clock()
        if 0 <= now - self._verified.get(key, float("-inf")) < VERIFIED_FOR:
            return
        if operation.purpose == "server":
            self.trust.verify_server(operation.chain, operation.server_name, now=now, ocsp=operation.ocsp)
        else:
            self.trust.verify_client(operation.chain, now=now)
        with self._lock:
            while len(self._verified) >= VERIFIED_CHAINS:
                del self._verified[next(iter(self._verified))]
            self._verified[key] = now


def _decrypting(operation: Decrypt) -> Use:
    ciphertext, raw = operation.ciphertext, isinstance(operation, DecryptSsl2) and operation.raw
    mechanism = "CKM_RSA_X_509" if raw else "CKM_RSA_PKCS"
    return Use(lambda member, patient: member.key.decrypt(ciphertext, raw=raw, patient=patient), lambda member: mechanism)


def choose_identity(operation: ChooseClientIdentity) -> Identity | None:
    """The cheapest identity an authority of the server's has issued; failing that the cheapest, as its owner configured it
    and the server's answer says more than silence would; None where there is none."""
    fitting = [i for i in operation.identities if not operation.authorities or set(i.issuers) & set(operation.authorities)]
    return min(fitting or operation.identities, key=lambda identity: identity.cost, default=None)
