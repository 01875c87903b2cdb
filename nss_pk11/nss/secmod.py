"""PKCS #11 modules: loading them, for now or for good, and waiting for tokens (secmod.h)."""

from __future__ import annotations

from enum import IntEnum
from queue import Empty

from ..db import modules
from ..db.modules import ModuleEntry, SlotFlags, SlotSettings
from ..errors import ConfigurationError, DatabaseError, NotFound, NSPRError
from ..slots import Module
from ._state import state
from .prerror import sets_error
from .types import PK11SlotInfo, SECMODModule

__all__ = [
    "CKF_DONT_BLOCK",
    "SECMODModule",
    "SECMODModuleType",
    "SECMOD_AddNewModule",
    "SECMOD_CancelWait",
    "SECMOD_DeleteModule",
    "SECMOD_DestroyModule",
    "SECMOD_FindModule",
    "SECMOD_FindSlot",
    "SECMOD_GetDefaultModuleList",
    "SECMOD_GetInternalModule",
    "SECMOD_HasRemovableSlots",
    "SECMOD_HasRootCerts",
    "SECMOD_IsModulePresent",
    "SECMOD_LoadUserModule",
    "SECMOD_ReferenceModule",
    "SECMOD_UnloadUserModule",
    "SECMOD_WaitForAnyTokenEvent",
]

CKF_DONT_BLOCK = 1

_POLLING = 1.0  # seconds, where the caller does not say


class SECMODModuleType(IntEnum):
    """What SECMOD_DeleteModule tells of a module (secmodt.h)."""

    SECMOD_EXTERNAL = 0
    SECMOD_INTERNAL = 1
    SECMOD_FIPS = 2


# --- loading ---------------------------------------------------------------------------------------------------------


@sets_error
def SECMOD_LoadUserModule(moduleSpec: str, parent: SECMODModule | None = None, recurse: bool = False) -> SECMODModule:
    """Load a module for this process (secmod.h).  `moduleSpec`: `library="PATH" name="NAME" parameters="…" NSS="…"`.

    Raises NSPRError: SEC_ERROR_INVALID_ARGS (no library named), SEC_ERROR_NO_MODULE (it does not load).
    Differs: modules that hold lists of modules are unknown, so `parent` and `recurse` mean nothing; C returns a module that did
    not load all the same, with `loaded` false.
    """
    values = modules.parse_parameters(moduleSpec)
    library = values.get("library", "")
    if not library:
        raise ConfigurationError("a module specification names a library")
    entry = ModuleEntry(values.get("name") or library, library, values.get("parameters", ""), values.get("nss", ""))
    return _load(entry)


def _load(entry: ModuleEntry) -> SECMODModule:
    module = state.manager.load(entry.library, entry.parameters)
    state.entries[module] = entry
    return SECMODModule(module, entry.name, entry.parameters)


@sets_error
def SECMOD_UnloadUserModule(mod: SECMODModule) -> None:
    """Let a module go that SECMOD_LoadUserModule loaded; its keys are dead (secmod.h).  Raises ConfigurationError
    (SEC_ERROR_INVALID_ARGS) for the internal one."""
    _unload(mod.module)


def _unload(module: Module) -> None:
    if not module.path:
        raise ConfigurationError("the internal module stays")
    state.manager.unload(module)
    state.entries.pop(module, None)


@sets_error
def SECMOD_AddNewModule(moduleName: str, dllPath: str, defaultMechanismFlags: int = 0, cipherEnableFlags: int = 0) -> None:
    """Load a module and enter it into the module list (secmod.h).  `defaultMechanismFlags`: for what its slots are the first
    choice (SECMOD_RSA_FLAG 1, …) and PK11_… flags such as PublicCerts 0x10000000.

    Raises NSPRError: SEC_ERROR_JS_ADD_MOD_FAILURE where there is one of this name, for which C returns SECWouldBlock;
    SEC_ERROR_NO_MODULE; SEC_ERROR_READ_ONLY.  Differs: where the list cannot be written, C loads it for this process and says
    nothing.  `cipherEnableFlags`: FORTEZZA's is the only one, and not kept.
    """
    database = state.database
    if database is None or database.read_only:
        raise DatabaseError("the module list is not open for changes", name="SEC_ERROR_READ_ONLY")
    if any(mod.commonName == moduleName for mod in _modules()):
        raise ConfigurationError(f"there is a module {moduleName!r} already", name="SEC_ERROR_JS_ADD_MOD_FAILURE")
    loaded = _load(modules.external(moduleName, dllPath))
    settings = SlotSettings(SlotFlags(defaultMechanismFlags))
    slots = {slot.id: settings for slot in loaded.module.slots()} if defaultMechanismFlags else None
    try:
        entry = modules.external(moduleName, dllPath, slots=slots)
        modules.add(database.directory / modules.FILE, entry)
    except NSPRError:
        _unload(loaded.module)
        raise
    state.entries[loaded.module] = entry


@sets_error
def SECMOD_DeleteModule(name: str) -> SECMODModuleType:
    """Let a module go and strike it from the module list; returns its type (secmod.h).

    Raises NSPRError: SEC_ERROR_NO_MODULE; SEC_ERROR_INVALID_ARGS for the internal one; SEC_ERROR_READ_ONLY.
    """
    module = SECMOD_FindModule(name).module
    database = state.database
    if not module.path:
        raise ConfigurationError(f"{name!r} is the internal module, which stays")
    if database is not None and any(entry.name == name for entry in modules.read(database.directory / modules.FILE)):
        if database.read_only:
            raise DatabaseError("the module list is not open for changes", name="SEC_ERROR_READ_ONLY")
        modules.delete(database.directory / modules.FILE, name)
    _unload(module)
    return SECMODModuleType.SECMOD_EXTERNAL


# --- which there are -------------------------------------------------------------------------------------------------


def _modules() -> list[SECMODModule]:
    found = []
    for module in state.manager.modules:
        entry = state.entries.get(module)
        found.append(SECMODModule(module, entry.name if entry else "", entry.parameters if entry else ""))
    return found


@sets_error
def SECMOD_GetDefaultModuleList() -> list[SECMODModule]:
    """The modules in use, the internal one first (secmod.h).  Differs: a list, not a chain of SECMODModuleList."""
    return _modules()


@sets_error
def SECMOD_FindModule(name: str) -> SECMODModule:
    """The module of that name in the list (secmod.h).  Raises NotFound (SEC_ERROR_NO_MODULE)."""
    for module in _modules():
        if module.commonName == name:
            return module
    raise NotFound(f"there is no module {name!r}", name="SEC_ERROR_NO_MODULE")


@sets_error
def SECMOD_GetInternalModule() -> SECMODModule:
    """The module that computes in software and holds the database (secmod.h)."""
    return next(module for module in _modules() if module.internal)


@sets_error
def SECMOD_IsModulePresent(pubCipherEnableFlags: int) -> bool:
    """Whether a module offers these ciphers, FORTEZZA (1) being the only one (secmod.h).  Differs: what counts is a token in it
    that does, not what was said when it was added."""
    return pubCipherEnableFlags == 1 and "CKM_KEA_KEY_DERIVE" in state.manager.mechanisms()


@sets_error
def SECMOD_FindSlot(module: SECMODModule, name: str) -> PK11SlotInfo:
    """The slot of a module with this description (secmod.h).  Raises NotFound (SEC_ERROR_NO_SLOT_SELECTED)."""
    for slot in module.module.slots():
        if slot.description == name:
            return PK11SlotInfo(slot)
    raise NotFound(f"{module.commonName!r} has no slot {name!r}", name="SEC_ERROR_NO_SLOT_SELECTED")


@sets_error
def SECMOD_HasRemovableSlots(mod: SECMODModule) -> bool:
    """Whether tokens can come and go (secmod.h)."""
    return any(slot.removable for slot in mod.module.slots())


@sets_error
def SECMOD_HasRootCerts() -> bool:
    """Whether a module carries the usual roots (secmod.h)."""
    return any(module.path.endswith(modules.ROOTS_LIBRARY) for module in state.manager.modules)


def SECMOD_ReferenceModule(module: SECMODModule) -> SECMODModule:
    """One more use of it (secmod.h)."""
    return module.duplicate()


@sets_error
def SECMOD_DestroyModule(module: SECMODModule) -> None:
    """Give it back; it stays loaded (secmod.h)."""
    module.free()


# --- events ----------------------------------------------------------------------------------------------------------


@sets_error
def SECMOD_WaitForAnyTokenEvent(mod: SECMODModule, flags: int = 0, latency: int = 0) -> PK11SlotInfo:
    """Wait until a token of this module comes or goes; the slot where that was (secmod.h).

    `flags`: CKF_DONT_BLOCK, do not wait.  `latency`: ticks of PRIntervalTime (milliseconds) between two looks at a module that
    reports nothing itself.  What happens between two calls is not lost; what was before the first is.
    Raises NSPRError (SEC_ERROR_NO_EVENT): nothing has happened, or SECMOD_CancelWait.
    """
    events = state.events_of(mod.module, latency / 1000 or _POLLING)
    try:
        slot = events.get(block=not flags & CKF_DONT_BLOCK)
    except Empty:
        slot = None
    if slot is None:
        raise NSPRError(f"no token of {mod.commonName!r} came or went", name="SEC_ERROR_NO_EVENT")
    return PK11SlotInfo(slot)


@sets_error
def SECMOD_CancelWait(mod: SECMODModule) -> None:
    """End the SECMOD_WaitForAnyTokenEvent that runs in another thread, else the next (secmod.h)."""
    state.events_of(mod.module, _POLLING).put(None)
