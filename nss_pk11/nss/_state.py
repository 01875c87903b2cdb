"""What NSS keeps for the process: whether it is initialised, its slot manager and database, the password function, and which
objects the application still holds.

A forked child has the state of its parent, as in C; the slot manager begins anew in it by itself.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

from ..db.modules import ModuleEntry, SlotSettings, read
from ..errors import NSPRError
from ..slots.modules import library_key

if TYPE_CHECKING:
    from ..certs.stores import MemoryStore
    from ..db import Database, Trust
    from ..slots import Module, Slot, SlotEvent, SlotManager, Watcher
    from .types import PK11SlotInfo

PasswordFunction = Callable[["PK11SlotInfo", bool, object], str | None]


class Reference:
    """An object of NSS that is in an application's hands: while there is one, NSS_Shutdown says SEC_ERROR_BUSY.

    Given back when nothing refers to it any more, or once it was freed as often as it was duplicated, as in C.
    """

    def __init__(self) -> None:
        self._uses = 1
        state.hold(self)

    def duplicate(self) -> Self:
        self._uses += 1
        return self

    def free(self) -> None:
        """Raises NSPRError (SEC_ERROR_INVALID_ARGS) where it was freed already, which in C is undefined."""
        if not self._uses:
            raise NSPRError(f"this {type(self).__name__} was freed before", name="SEC_ERROR_INVALID_ARGS")
        self._uses -= 1
        if not self._uses:
            state.drop(self)


class State:
    """The one state of the process.  `lock` is held while NSS is initialised or shut down."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.password: PasswordFunction | None = None
        self.person = False  # a human answers it
        self.disabled: dict[tuple[str, int], int] = {}  # slots the user does not want: module path and slot id, reason
        self.entries: dict[Module, ModuleEntry] = {}  # what the module list, or the application, says of modules in use
        self.roots: dict[Slot, MemoryStore] = {}  # what root modules hold
        self.root_records: dict[Slot, dict[tuple[bytes, bytes], Trust]] = {}  # and what they say
        self._manager: SlotManager | None = None
        self._watcher: Watcher | None = None
        self._events: dict[Module, SimpleQueue[Slot | None]] = {}
        self._held: weakref.WeakValueDictionary[int, Reference] = weakref.WeakValueDictionary()
        self._at_end: list[Callable[[], None]] = []

    @property
    def initialised(self) -> bool:
        return self._manager is not None

    @property
    def manager(self) -> SlotManager:
        """Raises NSPRError (SEC_ERROR_NOT_INITIALIZED)."""
        if self._manager is None:
            raise NSPRError("NSS_Init was not called", name="SEC_ERROR_NOT_INITIALIZED")
        return self._manager

    @property
    def database(self) -> Database | None:
        """None after NSS_NoDB_Init."""
        return self.manager.database

    def begin(self, manager: SlotManager) -> None:
        self._manager = manager

    def at_end(self, call: Callable[[], None]) -> None:
        """Have `call` called once when NSS is shut down, before the tokens go."""
        self._at_end.append(call)

    def end(self) -> None:
        manager = self.manager
        while self._at_end:
            self._at_end.pop()()
        self._manager = None
        self.disabled.clear()
        self.entries.clear()
        self.roots.clear()
        self.root_records.clear()
        self._events.clear()
        self._watcher = None
        manager.close()

    def read_entries(self, path: Path) -> None:
        """What the module list says of the modules in use."""
        loaded = {library_key(module.path): module for module in self.manager.modules if module.path}
        for entry in read(path):
            module = loaded.get(library_key(entry.library)) if entry.library else None
            if module is not None:
                self.entries[module] = entry

    def slot_settings(self, slot: Slot) -> SlotSettings:
        entry = self.entries.get(slot.module)
        return entry.slots.get(slot.id, SlotSettings()) if entry else SlotSettings()

    # --- tokens that come and go ---

    def events_of(self, module: Module, interval: float) -> SimpleQueue[Slot | None]:
        """Slots of a module whose tokens came or went since the first call; watched every `interval` seconds, that of the first
        call."""
        with self.lock:
            if self._watcher is None:
                self._watcher = self.manager.watch(self._tell, interval)
            return self._events.setdefault(module, SimpleQueue())

    def _tell(self, event: SlotEvent) -> None:
        queue = self._events.get(event.slot.module)
        if queue is not None and event.kind != "present":
            queue.put(event.slot)

    # --- what the application holds ---

    def hold(self, item: Reference) -> None:
        self._held[id(item)] = item

    def drop(self, item: Reference) -> None:
        self._held.pop(id(item), None)

    def held(self) -> list[Reference]:
        """What is not given back.  Objects that only refer to each other are: they are collected first."""
        if self._held:
            gc.collect()
        return self.live()

    def live(self) -> list[Reference]:
        """What was not freed, and is not collected yet.  `values()` would fail where another thread holds something meanwhile."""
        return [item for reference in self._held.valuerefs() if (item := reference()) is not None]


state = State()
