"""Runs what an engine asks for: signatures and decryptions on tokens, session look-ups, decisions about certificates.

The only place where an engine's Operation meets a token's key.  A driver runs an operation in place (`run`) or hands it to
a worker thread (`submit`); `quick` says which is wiser.  Knows no sockets and no engines.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..errors import CertificateError, DecryptError, HandshakeTimeout, InternalError
from ..tls.signatures import load_leaf
from ..tls.waits import ChooseClientIdentity, Decrypt, LookupSession, Operation, Sign, VerifyPeer
from .identity import ALGORITHMS, check_signature, key_of

if TYPE_CHECKING:
    from ..slots import PrivateKey, TokenInfo
    from ..tls.config import Identity

_K = TypeVar("_K", Sign, Decrypt)
Answer = Callable[[object, BaseException | None], None]

IN_PLACE_BELOW = 0.002  # seconds: a thread switch and a wake-up cost less than a tenth of this
RECENT = 16  # operations of a key that tell how quick it is
THREADS_PER_TOKEN = 16  # a network HSM answers many at once; more than its sessions would only queue there instead of here
VERIFIED_FOR = 60.0  # seconds a verified chain stays verified
VERIFIED_CHAINS = 256


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
    cache.  `choose`: picks the client identity instead of `choose_identity`.  `check_signatures`: verify each signature
    with the certificate's public key before it leaves, so that a token that computes wrongly (RSA-CRT faults give the key
    away) is found out; costs 25 to 60 microseconds and is off by default, as tokens check themselves.

    Keys slower than 2 ms go to worker threads, a pool per token: one token that hangs stops no other.
    """

    def __init__(
        self,
        *,
        trust: Verifier | None = None,
        sessions: SessionStore | None = None,
        choose: Callable[[ChooseClientIdentity], Identity | None] | None = None,
        check_signatures: bool = False,
        in_place_below: float = IN_PLACE_BELOW,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.trust, self.sessions, self.choose = trust, sessions, choose or choose_identity
        self.check_signatures, self.in_place_below, self.clock = check_signatures, in_place_below, clock
        self._recent: dict[Identity, deque[float]] = {}
        self._verified: dict[bytes, float] = {}
        self._pools: dict[TokenInfo, ThreadPoolExecutor] = {}
        self._lock = Lock()
        self._run: dict[type[Operation], Callable[..., object]] = {
            Sign: self._timed(self._sign),
            Decrypt: self._timed(self._decrypt),
            LookupSession: self._lookup,
            VerifyPeer: self._verify,
            ChooseClientIdentity: lambda operation: self.choose(operation),
        }

    def run(self, operation: Operation) -> object:
        """The operation's result.  Raises whatever the engine is to be told with `fail`."""
        return self._run[type(operation)](operation)

    def quick(self, operation: Operation) -> bool:
        """Whether the operation is over before a thread would have been woken.

        By the quickest of the key's last operations, not their mean: on a busy machine anything may take long now and then,
        but a token far away is never quick.
        """
        if not isinstance(operation, Sign | Decrypt):
            return True
        recent = self._recent.get(operation.identity)
        return (min(recent) if recent else key_of(operation.identity).latency) < self.in_place_below

    def submit(self, operation: Sign | Decrypt, answer: Answer, timeout: float) -> Future[None]:
        """Run `operation` in a worker thread, which calls `answer(result, error)`.

        An operation that has waited longer than `timeout` seconds is not run: error is HandshakeTimeout.  Cancelling the
        future before it runs forgets it; `answer` is then not called.
        """
        deadline = time.monotonic() + timeout

        def work() -> None:
            try:
                if time.monotonic() > deadline:
                    raise HandshakeTimeout("the token has too much to do: the operation waited too long")
                result = self.run(operation)
            except BaseException as error:
                answer(None, error)
            else:
                answer(result, None)

        return self._pool(key_of(operation.identity)).submit(work)

    def store(self, session_id: bytes, state: bytes) -> None:
        """Keep a server session; answers later LookupSessions."""
        if self.sessions is not None:
            self.sessions.put(session_id, state)

    def forget(self, session_id: bytes) -> None:
        """A session that must not be resumed again."""
        if self.sessions is not None:
            self.sessions.delete(session_id)

    def close(self) -> None:
        """Forget what is queued and wait for what runs."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> KeyExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _pool(self, key: PrivateKey) -> ThreadPoolExecutor:
        with self._lock:
            pool = self._pools.get(key.token)
            if pool is None:
                pool = self._pools[key.token] = ThreadPoolExecutor(THREADS_PER_TOKEN, f"token-{key.token.label}")
            return pool

    def _timed(self, run: Callable[[_K], object]) -> Callable[[_K], object]:
        def timed(operation: _K) -> object:
            begun = time.perf_counter()
            result = run(operation)
            recent = self._recent.get(operation.identity)
            if recent is None:
                recent = self._recent[operation.identity] = deque(maxlen=RECENT)
            recent.append(time.perf_counter() - begun)
            return result

        return timed

    # --- the operations ------------------------------------------------------------------------------------------------

    def _sign(self, operation: Sign) -> bytes:
        identity, scheme, message = operation.identity, operation.scheme, operation.message
        signature = key_of(identity).sign(ALGORITHMS[scheme], message)
        if self.check_signatures:
            try:
                check_signature(scheme, load_leaf(identity.chain), signature, message)
            except DecryptError:
                raise InternalError(
                    "the token made a signature that does not verify; it was not sent", name="SEC_ERROR_BAD_SIGNATURE"
                ) from None
        return signature

    def _decrypt(self, operation: Decrypt) -> bytes | None:
        return key_of(operation.identity).decrypt(operation.ciphertext)

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


def choose_identity(operation: ChooseClientIdentity) -> Identity | None:
    """The cheapest identity an authority of the server's has issued; failing that the cheapest, as its owner configured it
    and the server's answer says more than silence would; None where there is none."""
    fitting = [i for i in operation.identities if not operation.authorities or set(i.issuers) & set(operation.authorities)]
    return min(fitting or operation.identities, key=lambda identity: identity.cost, default=None)
