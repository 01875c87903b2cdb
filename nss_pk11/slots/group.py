"""One key pair that several tokens hold: the same interface as a key on one token, spread over all of them.

Which token is next is decided here (`KeyGroup.choose`), by what each is known to take and how much it has to do.  Runs nothing in
threads and waits for nothing; `net` does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import TypeVar

from ..errors import ConfigurationError, TokenError
from .faults import may_pass
from .forks import prepare_for_forks
from .health import Breaker
from .model import Algorithm, PrivateKey, PublicKey, TokenInfo
from .publickeys import spki

Result = TypeVar("Result")

RECENT = 16  # operations that tell how quick a token is
EXPLORE_AFTER = 32  # operations elsewhere after which a member gets one whatever it takes: a slow token may be quick again


class Member:
    """A key of the group on one token.

    `breaker`: whether the token may be asked.  `running`: operations sent there and not back.  `refusal`: why nobody can log in,
    as long as its breaker is open for that.  `recent`: seconds that the last operations took.
    """

    __slots__ = ("__weakref__", "_group", "_lock", "breaker", "key", "last_used", "recent", "refusal", "running")

    def __init__(self, key: PrivateKey, group: KeyGroup) -> None:
        self.key, self.breaker, self._group = key, Breaker(), group
        self.running, self.last_used = 0, 0
        self.refusal: TokenError | None = None
        self.recent: deque[float] = deque(maxlen=RECENT)
        self._lock = Lock()
        prepare_for_forks(self)

    def after_fork(self) -> None:
        """In the child: what runs is the parent's."""
        self._lock, self.running = Lock(), 0
        self.breaker.after_fork()

    @property
    def expected_seconds(self) -> float:
        """How long one more operation would take there after those before it: no token tells how many it really does at once."""
        return self.key.latency * (self.running + 1)

    def begin(self) -> None:
        with self._lock:
            self.running += 1
            self._group.uses += 1
            self.last_used = self._group.uses

    def end(self) -> None:
        with self._lock:
            self.running -= 1

    def __repr__(self) -> str:
        return f'<{self.key.uri} on "{self.key.token.label}": {self.breaker.state.name}>'


class KeyGroup:
    """A `PrivateKey` on several tokens; of one token too.  Raises ConfigurationError where the keys are not one key pair."""

    def __init__(self, keys: Sequence[PrivateKey]) -> None:
        self.uses = 0  # operations begun
        self.serves_ssl2: bool | None = None  # None: was not used yet (`net.purposes`)
        self.members = tuple(Member(key, self) for key in keys)
        first = self._first = keys[0]
        self.label, self.id, self.uri, self.kind, self.bits = first.label, first.id, first.uri, first.kind, first.bits
        if len(keys) > 1 and len({spki(key.public_key) for key in keys}) > 1:
            raise ConfigurationError("the keys of a group must be one key pair: " + ", ".join(key.uri for key in keys))
        self.algorithms = frozenset.intersection(*(key.algorithms for key in keys))
        self.can_decrypt = all(key.can_decrypt for key in keys)
        self.can_decrypt_raw = all(key.can_decrypt_raw for key in keys)
        self.sensitive = all(key.sensitive for key in keys)
        self.extractable = any(key.extractable for key in keys)
        self.local = all(key.local for key in keys)
        self.always_authenticate = any(key.always_authenticate for key in keys)

    @property
    def token(self) -> TokenInfo:
        """That of the first key."""
        return self._first.token

    @property
    def public_key(self) -> PublicKey:
        return self._first.public_key

    @property
    def latency(self) -> float:
        """Of the quickest, seconds."""
        return min(member.key.latency for member in self.members)

    @property
    def parallel(self) -> int:
        return sum(member.key.parallel for member in self.members)

    @property
    def operations(self) -> int:
        return sum(member.key.operations for member in self.members)

    def mechanism(self, algorithm: Algorithm) -> str:
        return self._first.mechanism(algorithm)

    def choose(self, tried: Collection[Member] = ()) -> Member | None:
        """Where the next operation is over soonest, of those whose breaker admits it and that were not tried; None for nowhere.

        Whoever takes it tells the member's breaker how it ended.  An open breaker whose pause is over goes first: its probe is
        the only way to learn that the token is back, and if it fails another token still has the time.
        """
        if len(self.members) == 1:
            [only] = self.members
            return only if only not in tried and only.breaker.admits() else None
        untried = [member for member in self.members if member not in tried]
        for member in untried:
            if not member.breaker.closed and member.breaker.admits():
                return member
        closed = [member for member in untried if member.breaker.closed]
        if not closed:
            return None
        unused = min(closed, key=lambda member: member.last_used)
        if self.uses - unused.last_used >= EXPLORE_AFTER:
            return unused
        return min(closed, key=lambda member: member.expected_seconds)

    def has_other(self, tried: Collection[Member]) -> bool:
        """Whether `choose` would find one."""
        return any(member.breaker.ripe for member in self.members if member not in tried)

    def sign(self, algorithm: Algorithm, message: bytes, *, prehashed: bool = False, patient: bool = True) -> bytes:
        """On one token after the other until one can.  Raises the last one's TokenError."""
        return self._on_any(lambda key: key.sign(algorithm, message, prehashed=prehashed, patient=patient))

    def decrypt(self, ciphertext: bytes, *, raw: bool = False, patient: bool = True) -> bytes | None:
        return self._on_any(lambda key: key.decrypt(ciphertext, raw=raw, patient=patient))

    def _on_any(self, use: Callable[[PrivateKey], Result]) -> Result:
        tried: list[Member] = []
        last: TokenError | None = None
        # Tokens that rest are asked after all before the caller is told that none can.
        while (member := self.choose(tried) or _first_untried(self.members, tried)) is not None:
            tried.append(member)
            member.begin()
            try:
                result = use(member.key)
            except TokenError as error:
                if may_pass(error):
                    member.breaker.failed()
                else:
                    member.breaker.abandoned()
                last = error
            except BaseException:
                member.breaker.abandoned()
                raise
            else:
                member.breaker.succeeded()
                return result
            finally:
                member.end()
        assert last is not None
        raise last

    def __repr__(self) -> str:
        return f"<{self.kind} key on {len(self.members)} tokens: {', '.join(key.key.uri for key in self.members)}>"


def _first_untried(members: Sequence[Member], tried: Collection[Member]) -> Member | None:
    return next((member for member in members if member not in tried), None)
