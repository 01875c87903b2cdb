"""The machine that is simulated: readers (slots of PKCS #11), tokens in them and in the drawer, and who is told of changes.

`Machine.lock` guards readers, hosts, sessions and logins; `Token.lock` its PINs and its objects.  Whoever needs both takes
the token's first.  PINs are in memory only, and nothing here tells them.  Knows nothing of sockets, memory or the journal.
"""

from __future__ import annotations

import itertools
import random
import threading
from hmac import compare_digest

from .abi import CKR
from .behaviour import Behaviour
from .host import Host, Session
from .objects import ObjectStore
from .personalities import Personality


class Pin:
    """A PIN and its counter of tries.  `attempts`: all tries ever, for tests; `limit` 0: it never locks."""

    def __init__(self, value: bytes | None, limit: int) -> None:
        self._value = value
        self.limit = limit
        self.tries = limit
        self.attempts = 0
        self.blocked = False  # by hand: a card can be locked by another machine

    @property
    def known(self) -> bool:
        """Whether there is one yet (CKF_USER_PIN_INITIALIZED)."""
        return self._value is not None

    @property
    def locked(self) -> bool:
        """No try is left."""
        return self.blocked or (self.limit > 0 and self.tries == 0)

    @property
    def low(self) -> bool:
        """A wrong PIN was given since the last right one (CKF_USER_PIN_COUNT_LOW)."""
        return self.tries < self.limit

    @property
    def final(self) -> bool:
        """One try is left (CKF_USER_PIN_FINAL_TRY)."""
        return self.limit > 0 and self.tries == 1 and not self.blocked

    def verify(self, data: bytes) -> CKR:
        """CKR_OK, CKR_PIN_INCORRECT (one try less), CKR_PIN_LOCKED, or CKR_USER_PIN_NOT_INITIALIZED where there is none."""
        self.attempts += 1
        if self._value is None:
            return CKR.USER_PIN_NOT_INITIALIZED
        if self.locked:
            return CKR.PIN_LOCKED
        if compare_digest(self._value, data):
            self.tries = self.limit
            return CKR.OK
        self.tries = max(0, self.tries - 1)
        return CKR.PIN_INCORRECT

    def set(self, data: bytes | None) -> None:
        """A new PIN, with all tries; None: there is none until somebody sets it."""
        self._value = data
        self.unlock()

    def lock(self) -> None:
        """No PIN is right any longer."""
        self.blocked = True

    def unlock(self) -> None:
        """All tries again."""
        self.blocked = False
        self.tries = self.limit


class Token:
    """A token: PINs, objects, and how it behaves.  Where it is, its reader knows; without a PIN nobody has to log in."""

    def __init__(
        self,
        personality: Personality,
        label: str,
        serial: str,
        *,
        pin: bytes | None = None,
        so_pin: bytes | None = None,
        name: str = "",
        initialised: bool = True,
    ) -> None:
        self.personality = personality
        self.name = name or label
        self.label = label
        self.serial = serial
        self.manufacturer = personality.manufacturer
        self.model = personality.model
        self.initialised = initialised
        self.login_required = pin is not None or so_pin is not None
        self.user_pin = Pin(pin, personality.pin_tries)
        self.so_pin = Pin(so_pin, personality.pin_tries)
        self.lock = threading.RLock()
        self.objects = ObjectStore()
        self.behaviour = Behaviour(personality, pin or b"")


class Reader:
    """A slot: `id` is its number for hosts, from 1."""

    def __init__(self, machine: Machine, number: int, description: str, *, hardware: bool, removable: bool) -> None:
        self.machine = machine
        self.id = number
        self.description = description
        self.hardware = hardware
        self.removable = removable
        self.token: Token | None = None

    def insert(self, token: Token) -> None:
        """Put a token in.  Raises ValueError when one is in, or the token is in another reader."""
        with self.machine.changed:
            if self.token is not None:
                raise ValueError(f"there is a token in {self.description!r}")
            if self.machine.reader_of(token) is not None:
                raise ValueError(f"token {token.name!r} is in another reader")
            token.objects.inserted()
            self.token = token
            self.machine.report(self, token)

    def remove(self) -> Token:
        """Take the token out: every host's sessions and logins with it are gone.  Raises ValueError when none is in."""
        with self.machine.changed:
            token = self.token
            if token is None:
                raise ValueError(f"there is no token in {self.description!r}")
            self.token = None
            self.machine.disconnect(token, removed=True)
            self.machine.report(self, token)
        return token


class Machine:
    """Readers in the order of their numbers, tokens by name (those in no reader too), hosts by process id."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.readers: list[Reader] = []
        self.tokens: dict[str, Token] = {}
        self.hosts: dict[int, Host] = {}
        # Never used twice, and elsewhere in every run, so that whoever keeps a stale one finds out.
        self._handles = itertools.count(random.randrange(1 << 16, 1 << 30))

    def add_reader(
        self, description: str, token: Token | None = None, *, hardware: bool | None = None, removable: bool | None = None
    ) -> Reader:
        """One reader more; without words about it, it is of the kind its token is made for."""
        personality = token.personality if token else None
        with self.lock:
            reader = Reader(
                self,
                len(self.readers) + 1,
                description,
                hardware=hardware if hardware is not None else personality is None or personality.hardware,
                removable=removable if removable is not None else personality is None or personality.removable,
            )
            self.readers.append(reader)
            if token is not None:
                self.add_token(token)
                reader.insert(token)
        return reader

    def add_token(self, token: Token) -> None:
        """A token that can be put into a reader.  Raises ValueError when another has its name."""
        with self.lock:
            if self.tokens.setdefault(token.name, token) is not token:
                raise ValueError(f"there are two tokens named {token.name!r}")

    def reader(self, number: int) -> Reader | None:
        """The reader with this slot id."""
        return self.readers[number - 1] if 0 < number <= len(self.readers) else None

    def reader_of(self, token: Token) -> Reader | None:
        """Where the token is; None: in the drawer."""
        return next((reader for reader in self.readers if reader.token is token), None)

    def new_handle(self) -> int:
        """A handle that no session and no object has ever had."""
        return next(self._handles)

    def host(self, pid: int) -> Host:
        """The host that is this process, from its first connection on."""
        with self.lock:
            return self.hosts.setdefault(pid, Host(self, pid))

    def drop(self, host: Host) -> None:
        """The process has gone."""
        with self.lock:
            host.finalise()
            if self.hosts.get(host.pid) is host:
                del self.hosts[host.pid]

    def sessions_with(self, token: Token) -> list[Session]:
        """The sessions of all hosts with a token."""
        with self.lock:
            return [session for host in self.hosts.values() for session in host.sessions_with(token)]

    def disconnect(self, token: Token, *, removed: bool = False) -> None:
        """Every session and login with the token dies, of every host."""
        with self.lock:
            for host in self.hosts.values():
                host.forget(token, removed=removed)
        token.behaviour.interrupt()

    def report(self, reader: Reader, token: Token) -> None:
        """A slot event for every host, unless the driver of this token keeps such things to itself."""
        with self.changed:
            if token.personality.slot_events == "yes":
                for host in self.hosts.values():
                    host.events[reader.id] = None
            self.changed.notify_all()
