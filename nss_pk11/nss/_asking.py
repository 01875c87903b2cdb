"""When a password is asked for again: once in a login, at every use of a key, or after so many idle minutes; and applications
that keep logins of their own, for clients of theirs.  What PK11_SetSlotPWValues and its kin set; asks nobody itself.

Times are those of one NSS_Init: they belong to its slot manager and go with it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..db import modules
from ..db.modules import SlotSettings
from ..errors import DatabaseError
from ..slots import Slot, SlotManager
from ..slots.internal import DatabaseToken
from ._state import state
from .types import PK11SlotInfo

EVERY_USE, ONCE, TIMEOUT = -1, 0, 1  # `askpw` in NSS (lib/pk11wrap/pk11auth.c)
MODES = {EVERY_USE: "every", ONCE: "any", TIMEOUT: "timeout"}  # and in module lists
_NUMBERS = {word: mode for mode, word in MODES.items()}

LoginFunction = Callable[[PK11SlotInfo, object], bool]
_SlotName = tuple[str, int]


class Values(NamedTuple):
    """`askpw`: one of MODES; `timeout`: minutes, for TIMEOUT."""

    askpw: int = ONCE
    timeout: int = 0


@dataclass
class _Rules:
    """Of one slot manager."""

    own: dict[_SlotName, Values] = field(default_factory=dict)  # as the application set them, or as the module list has them
    used: dict[_SlotName, float] = field(default_factory=dict)  # when somebody last asked whether it is logged in
    lock: threading.RLock = field(default_factory=threading.RLock)  # held from a login to the end of the use it was for


_rules: weakref.WeakKeyDictionary[SlotManager, _Rules] = weakref.WeakKeyDictionary()


class Asking:
    """The one of the process.  `verify`, `logged_in`: the application's functions, set like the password function."""

    def __init__(self) -> None:
        self.verify: LoginFunction | None = None
        self.logged_in: LoginFunction | None = None
        self.clock: Callable[[], float] = time.monotonic

    @property
    def rules(self) -> _Rules:
        """Raises NSPRError (SEC_ERROR_NOT_INITIALIZED)."""
        manager = state.manager
        found = _rules.get(manager)
        return _rules.setdefault(manager, _listed()) if found is None else found

    # --- whether somebody is logged in -------------------------------------------------------------------------------

    def is_logged_in(self, slot: PK11SlotInfo, wincx: object) -> bool:
        """By the application's function, where there is one and `wincx` is some client of it; a token that was idle for too long
        is logged out by this very question, as in PK11_IsLoggedIn of NSS."""
        if wincx is not None and self.logged_in is not None and not self.logged_in(PK11SlotInfo(slot.slot), wincx):
            return False
        token, values = slot.token, self.values(slot.slot)
        if not token.logged_in:
            return False
        if values.askpw == TIMEOUT:
            rules, now = self.rules, self.clock()
            if now - rules.used.get(slot.name, now) > 60 * values.timeout:
                token.logout()
                return False
            rules.used[slot.name] = now
        return True

    def began(self, slot: PK11SlotInfo) -> None:
        """Somebody has logged in."""
        self.rules.used[slot.name] = self.clock()

    def asks(self, slot: Slot) -> bool:
        """Whether there is more to a use of a key than the login that a token wants by itself."""
        return self.logged_in is not None or self.values(slot).askpw != ONCE

    # --- values of slots ---------------------------------------------------------------------------------------------

    def values(self, slot: Slot) -> Values:
        """Its own, else those of the database's slot."""
        own = self.rules.own
        found = own.get((slot.module.path, slot.id)) or _of(state.slot_settings(slot))
        if found is None and own:
            found = own.get(_key_slot())
        return found or Values()

    def set(self, slot: Slot, values: Values) -> None:
        """For this process, and in the module list where that is open for changes."""
        self.rules.own[slot.module.path, slot.id] = values
        database = state.database
        if database is None or database.read_only:
            return
        entry = state.entries.get(slot.module)
        with suppress(DatabaseError):  # as in C, where nothing is returned
            path = database.directory / modules.FILE
            name = entry.name if entry else modules.INTERNAL_NAME
            change = lambda its: replace(its, askpw=MODES[values.askpw], timeout=values.timeout)  # noqa: E731
            changed = modules.change_slot(path, name, slot.id, change)
            if entry and changed:
                state.entries[slot.module] = changed


def _of(settings: SlotSettings) -> Values | None:
    mode = _NUMBERS.get(settings.askpw)
    return None if mode is None else Values(mode, settings.timeout)


def _listed() -> _Rules:
    """What the module list says of the internal module's slots; that of other modules is in `state.entries`."""
    rules, database = _Rules(), state.database
    if database is not None:
        for entry in modules.read(database.directory / modules.FILE):
            if entry.internal:
                found = {id: _of(settings) for id, settings in entry.slots.items()}
                rules.own |= {("", id): values for id, values in found.items() if values is not None}
    return rules


def _key_slot() -> _SlotName:
    """The database's."""
    for module in state.manager.modules:
        for slot in module.slots() if not module.path else ():
            if isinstance(slot.token, DatabaseToken):
                return "", slot.id
    return "", 0


asking = Asking()
