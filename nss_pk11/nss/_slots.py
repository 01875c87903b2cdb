"""Slots and what is in them: the part of pk11pub.h that asks about tokens and mechanisms."""

from __future__ import annotations

from enum import IntEnum

from ..db.modules import SlotFlags
from ..errors import NotFound
from ..slots import Slot
from ._authentication import PK11_IsFriendly, log_in
from ._state import state
from .prerror import sets_error
from .types import PK11SlotInfo, SECMODModule

CKM_INVALID_MECHANISM = 0xFFFFFFFF

_KEY_SLOT = "NSS User Private Key and Certificate Services"  # the slot of a database, in the internal module


class PK11DisableReasons(IntEnum):
    """Why a slot is not used (secmodt.h)."""

    PK11_DIS_NONE = 0
    PK11_DIS_USER_SELECTED = 1
    PK11_DIS_COULD_NOT_INIT_TOKEN = 2
    PK11_DIS_TOKEN_VERIFY_FAILED = 3
    PK11_DIS_TOKEN_NOT_PRESENT = 4


# Which default-mechanism flag makes a slot the first choice for a mechanism (NSS lib/pk11wrap/pk11slot.c, PK11_GetSlotList).
_FIRST_CHOICE: dict[SlotFlags, tuple[int, ...]] = {
    SlotFlags.rsa: (0x0, 0x1, 0x3, 0x9, 0xD),
    SlotFlags.dsa: (0x10, 0x11),
    SlotFlags.dh: (0x20, 0x21),
    SlotFlags.ecc: (0x1040, 0x1041, 0x1050),
    SlotFlags.rc2: (0x100, 0x101, 0x102),
    SlotFlags.rc4: (0x110, 0x111),
    SlotFlags.des: (0x120, 0x121, 0x122, 0x131, 0x132, 0x133),
    SlotFlags.aes: (0x1080, 0x1081, 0x1082, 0x1087),
    SlotFlags.fortezza: (0x1002, 0x1011),
    SlotFlags.sha1: (0x220, 0x221),
    SlotFlags.md5: (0x210, 0x211),
    SlotFlags.sha256: (0x250, 0x251),
    SlotFlags.sha512: (0x260, 0x261, 0x270, 0x271),
}


def usable_slots() -> list[Slot]:
    """The slots that hold a token and are not disabled."""
    return [slot for slot in state.manager.slots() if (slot.module.path, slot.id) not in state.disabled and slot.token]


# --- one slot --------------------------------------------------------------------------------------------------------


@sets_error
def PK11_GetTokenName(slot: PK11SlotInfo) -> str:
    """The token's label (pk11pub.h).  Raises NotFound (SEC_ERROR_NO_TOKEN) where C gives the last token's or ""."""
    return slot.token.info.label


@sets_error
def PK11_GetSlotName(slot: PK11SlotInfo) -> str:
    """The slot's description (pk11pub.h)."""
    return slot.slot.description


def PK11_GetSlotID(slot: PK11SlotInfo) -> int:
    """Its number within the module (pk11pub.h)."""
    return slot.slot.id


def PK11_GetModule(slot: PK11SlotInfo) -> SECMODModule:
    """Its module (pk11pub.h)."""
    return module_of(slot.slot)


def module_of(slot: Slot) -> SECMODModule:
    entry = state.entries.get(slot.module)
    return SECMODModule(slot.module, entry.name if entry else "", entry.parameters if entry else "")


def PK11_IsHW(slot: PK11SlotInfo) -> bool:
    """Whether it is a device, not software (pk11pub.h; CKF_HW_SLOT)."""
    return slot.slot.hardware


def PK11_IsRemovable(slot: PK11SlotInfo) -> bool:
    """Whether its token can be taken out (pk11pub.h; CKF_REMOVABLE_DEVICE)."""
    return slot.slot.removable


@sets_error
def PK11_IsPresent(slot: PK11SlotInfo) -> bool:
    """Whether there is a token in it, asked now, and the slot is not disabled (pk11pub.h)."""
    return not PK11_IsDisabled(slot) and slot.slot.token is not None


@sets_error
def PK11_IsReadOnly(slot: PK11SlotInfo) -> bool:
    """Whether its token is write-protected (pk11pub.h); so is a database that NSS_Init opened."""
    return "CKF_WRITE_PROTECTED" in slot.token.flags


def PK11_IsInternal(slot: PK11SlotInfo) -> bool:
    """Whether it is of the internal module (pk11pub.h)."""
    return not slot.slot.module.path


@sets_error
def PK11_DoesMechanism(slot: PK11SlotInfo, type: int) -> bool:
    """Whether its token offers the mechanism of that CKM_ number (pk11pub.h)."""
    return any(mechanism.number == type for mechanism in slot.token.mechanisms().values())


# --- switching slots off ---------------------------------------------------------------------------------------------


def PK11_UserDisableSlot(slot: PK11SlotInfo) -> bool:
    """Use this slot no more (pk11pub.h).  True.  Differs: for this process only, the module list stays as it is."""
    state.disabled[slot.name] = PK11DisableReasons.PK11_DIS_USER_SELECTED
    return True


def PK11_UserEnableSlot(slot: PK11SlotInfo) -> bool:
    """Use it again (pk11pub.h).  True."""
    state.disabled.pop(slot.name, None)
    return True


def PK11_IsDisabled(slot: PK11SlotInfo) -> bool:
    """Whether it is switched off (pk11pub.h)."""
    return slot.name in state.disabled


def PK11_GetDisabledReason(slot: PK11SlotInfo) -> PK11DisableReasons:
    """Why, PK11_DIS_NONE if it is not (pk11pub.h)."""
    return PK11DisableReasons(state.disabled.get(slot.name, 0))


# --- finding slots ---------------------------------------------------------------------------------------------------


@sets_error
def PK11_GetInternalSlot() -> PK11SlotInfo:
    """The slot that computes in software and holds nothing (pk11pub.h).  Raises NSPRError (SEC_ERROR_NOT_INITIALIZED)."""
    return PK11SlotInfo(_internal_slots()[0])


@sets_error
def PK11_GetInternalKeySlot() -> PK11SlotInfo:
    """The slot of the database; after NSS_NoDB_Init PK11_GetInternalSlot's (pk11pub.h)."""
    slots = _internal_slots()
    return PK11SlotInfo(next((slot for slot in slots if slot.description == _KEY_SLOT), slots[0]))


def _internal_slots() -> list[Slot]:
    return [slot for module in state.manager.modules if not module.path for slot in module.slots()]


@sets_error
def PK11_FindSlotByName(name: str | None) -> PK11SlotInfo:
    """The slot with the token of this label, of None or "" the database's (pk11pub.h).  Raises NotFound (SEC_ERROR_NO_TOKEN)."""
    if not name:
        return PK11_GetInternalKeySlot()
    for slot in usable_slots():
        token = slot.token
        if token is not None and token.info.label == name:
            return PK11SlotInfo(slot)
    raise NotFound(f"there is no token {name!r}", token=name)


@sets_error
def PK11_TokenExists(type: int) -> bool:
    """Whether any token, the internal ones first, offers the mechanism of that CKM_ number; nobody is logged in (pk11pub.h)."""
    return any(PK11_DoesMechanism(PK11SlotInfo(slot), type) for slot in usable_slots())


@sets_error
def PK11_GetAllTokens(
    type: int = CKM_INVALID_MECHANISM, needRW: bool = False, loadCerts: bool = False, wincx: object = None
) -> list[PK11SlotInfo]:
    """The slots whose tokens offer a mechanism (CKM_INVALID_MECHANISM: any), those that need no login first, then those with
    PublicCerts (pk11pub.h).  `needRW`: no write-protected ones.  `loadCerts`, `wincx`: nothing is loaded, nobody asked.

    Raises NotFound (SEC_ERROR_NO_TOKEN) where there is none."""
    found = [PK11SlotInfo(slot) for slot in usable_slots()]
    if type != CKM_INVALID_MECHANISM:
        found = [slot for slot in found if PK11_DoesMechanism(slot, type)]
    if needRW:
        found = [slot for slot in found if not PK11_IsReadOnly(slot)]
    if not found:
        raise NotFound(f"no token offers mechanism {type:#x}")
    return sorted(found, key=lambda slot: ("CKF_LOGIN_REQUIRED" in slot.token.flags, not PK11_IsFriendly(slot)))


@sets_error
def PK11_GetBestSlot(type: int, wincx: object = None) -> PK11SlotInfo:
    """The slot to use for a mechanism: one that is the first choice by its module's entry, else PK11_GetAllTokens' first; logged
    in where that is needed, but for hashes and random numbers (pk11pub.h).  Raises NSPRError (SEC_ERROR_NO_TOKEN, and the
    login's)."""
    choices = PK11_GetAllTokens(type)
    flag = next((flag for flag, mechanisms in _FIRST_CHOICE.items() if type in mechanisms), SlotFlags(0))
    first = [slot for slot in choices if state.slot_settings(slot.slot).flags & flag]
    best = (first or choices)[0]
    if not 0x200 <= type < 0x2A0:  # digests
        log_in(best, wincx)
    return best


def PK11_ReferenceSlot(slot: PK11SlotInfo) -> PK11SlotInfo:
    """One more use of it; to be freed once more (pk11pub.h)."""
    return slot.duplicate()


@sets_error
def PK11_FreeSlot(slot: PK11SlotInfo) -> None:
    """Give it back (pk11pub.h); what Python no longer refers to is given back by itself."""
    slot.free()
