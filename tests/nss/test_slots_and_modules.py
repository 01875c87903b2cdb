"""Slot queries, and modules: loaded for now, or in the list that modutil reads and writes."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.nss import nss, pk11pub, secmod
from nss_pk11.nss.prerror import NSPRError
from tests.db.tools import Tools
from tests.support.require import require
from tests.support.softhsm import SoftHSM, TokenOnDisk

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

Error = Callable[[], str]
_numbers = count(1)

CKM_RSA_PKCS, CKM_AES_CBC, CKM_KEA_KEY_DERIVE = 0x1, 0x1082, 0x1011


@pytest.fixture
def token(softhsm: SoftHSM) -> TokenOnDisk:
    return softhsm.create_token(f"nss slots {next(_numbers)}")


def modutil(tools: Tools, *arguments: str) -> str:
    command = [require("modutil"), *arguments, "-dbdir", f"sql:{tools.directory}"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_internal_slots(tools: Tools) -> None:
    nss.NSS_Init(str(tools.directory))
    crypto, keys = pk11pub.PK11_GetInternalSlot(), pk11pub.PK11_GetInternalKeySlot()
    assert pk11pub.PK11_GetTokenName(crypto) == "NSS Generic Crypto Services"
    assert pk11pub.PK11_GetSlotName(keys) == "NSS User Private Key and Certificate Services"
    assert pk11pub.PK11_FindSlotByName(None) == pk11pub.PK11_FindSlotByName("NSS Certificate DB") == keys != crypto
    for slot in (crypto, keys):
        assert pk11pub.PK11_IsInternal(slot)
        assert pk11pub.PK11_IsFriendly(slot)
        assert pk11pub.PK11_IsPresent(slot)
        assert not pk11pub.PK11_IsHW(slot)
        assert not pk11pub.PK11_IsRemovable(slot)
    assert pk11pub.PK11_GetModule(keys).commonName == "NSS Internal PKCS #11 Module"
    assert "NSS Internal PKCS #11 Module" in modutil(tools, "-list")


def test_mechanisms(softhsm: SoftHSM, token: TokenOnDisk, error: Error) -> None:
    nss.NSS_NoDB_Init()
    assert pk11pub.PK11_TokenExists(CKM_AES_CBC)
    assert not pk11pub.PK11_TokenExists(CKM_KEA_KEY_DERIVE)
    with pytest.raises(NSPRError):
        pk11pub.PK11_GetBestSlot(CKM_KEA_KEY_DERIVE)
    assert error() == "SEC_ERROR_NO_TOKEN"
    secmod.SECMOD_LoadUserModule(f'library={softhsm.module_path} name=soft NSS="slotParams={{0=[slotFlags=RSA]}}"')
    slot = pk11pub.PK11_FindSlotByName(token.label)
    assert pk11pub.PK11_DoesMechanism(slot, CKM_RSA_PKCS)
    found = pk11pub.PK11_GetAllTokens(CKM_RSA_PKCS)
    assert found[0] == pk11pub.PK11_GetInternalSlot()  # needs no login
    assert slot in found
    assert pk11pub.PK11_GetBestSlot(CKM_AES_CBC) == pk11pub.PK11_GetInternalSlot()


def test_a_slot_that_is_switched_off(softhsm: SoftHSM, token: TokenOnDisk, error: Error) -> None:
    nss.NSS_NoDB_Init()
    secmod.SECMOD_LoadUserModule(f"library={softhsm.module_path} name=soft")
    slot = pk11pub.PK11_FindSlotByName(token.label)
    assert pk11pub.PK11_GetDisabledReason(slot) == 0
    pk11pub.PK11_UserDisableSlot(slot)
    assert pk11pub.PK11_IsDisabled(slot)
    assert pk11pub.PK11_GetDisabledReason(slot) == pk11pub.PK11DisableReasons.PK11_DIS_USER_SELECTED
    assert not pk11pub.PK11_IsPresent(slot)
    with pytest.raises(NSPRError):
        pk11pub.PK11_FindSlotByName(token.label)
    assert error() == "SEC_ERROR_NO_TOKEN"
    pk11pub.PK11_UserEnableSlot(slot)
    assert pk11pub.PK11_FindSlotByName(token.label) == slot


def test_a_module_for_now(softhsm: SoftHSM, token: TokenOnDisk, error: Error) -> None:
    nss.NSS_NoDB_Init()
    module = secmod.SECMOD_LoadUserModule(f'library="{softhsm.module_path}" name="My soft tokens"')
    assert secmod.SECMOD_FindModule("My soft tokens") == module
    assert module.slotCount == len(module.slots) > 1
    assert not secmod.SECMOD_IsModulePresent(1)  # FORTEZZA
    assert pk11pub.PK11_GetModule(pk11pub.PK11_FindSlotByName(token.label)) == module
    secmod.SECMOD_UnloadUserModule(module)
    for find in (lambda: secmod.SECMOD_FindModule("My soft tokens"), lambda: secmod.SECMOD_UnloadUserModule(module)):
        with pytest.raises(NSPRError):
            find()
        assert error() == "SEC_ERROR_NO_MODULE"
    with pytest.raises(NSPRError):
        pk11pub.PK11_FindSlotByName(token.label)
    with pytest.raises(NSPRError, match="internal"):
        secmod.SECMOD_UnloadUserModule(secmod.SECMOD_GetInternalModule())


@pytest.mark.parametrize(("spec", "name"), [("name=x", "SEC_ERROR_INVALID_ARGS"), ("library=/nowhere.so", "SEC_ERROR_NO_MODULE")])
def test_a_module_that_does_not_load(spec: str, name: str, error: Error) -> None:
    nss.NSS_NoDB_Init()
    with pytest.raises(NSPRError):
        secmod.SECMOD_LoadUserModule(spec)
    assert error() == name


def test_modutil_sees_our_module(opened: Tools, softhsm: SoftHSM, error: Error) -> None:
    secmod.SECMOD_AddNewModule("Our soft tokens", softhsm.module_path, 0x10000001, 0)
    listed = modutil(opened, "-list")
    assert "Our soft tokens" in listed
    assert softhsm.module_path in listed
    with pytest.raises(NSPRError, match="already"):
        secmod.SECMOD_AddNewModule("Our soft tokens", softhsm.module_path)
    assert all(pk11pub.PK11_IsFriendly(slot) for slot in secmod.SECMOD_FindModule("Our soft tokens").slots)
    assert secmod.SECMOD_DeleteModule("Our soft tokens") == secmod.SECMODModuleType.SECMOD_EXTERNAL
    assert "Our soft tokens" not in modutil(opened, "-list")
    with pytest.raises(NSPRError, match="stays"):
        secmod.SECMOD_DeleteModule("NSS Internal PKCS #11 Module")


def test_a_module_that_does_not_load_is_not_listed(opened: Tools, error: Error) -> None:
    before = modutil(opened, "-list")
    with pytest.raises(NSPRError):
        secmod.SECMOD_AddNewModule("Nothing", "/nowhere.so")
    assert error() == "SEC_ERROR_NO_MODULE"
    assert modutil(opened, "-list") == before


def test_we_see_modutils_module(tools: Tools, softhsm: SoftHSM, token: TokenOnDisk) -> None:
    modutil(tools, "-add", "Soft", "-libfile", softhsm.module_path, "-mechanisms", "RSA:FRIENDLY", "-force")
    nss.NSS_Init(str(tools.directory))
    module = secmod.SECMOD_FindModule("Soft")
    assert module.dllName == softhsm.module_path
    slot = pk11pub.PK11_FindSlotByName(token.label)
    assert pk11pub.PK11_GetModule(slot) == module


def card(label: str) -> dict[str, Any]:
    return {"personality": "smart card", "label": label, "serial": f"{label}-1", "pin": "123456"}


def test_waiting_for_a_card(simulated_tokens: Callable[..., RunningSimulator], error: Error) -> None:
    simulator = simulated_tokens({"reader": [{"name": "left", "token": card("a")}, {"name": "right"}]})
    nss.NSS_NoDB_Init()
    module = secmod.SECMOD_LoadUserModule(f'library="{simulator.module}" name="readers"')
    with pytest.raises(NSPRError):
        secmod.SECMOD_WaitForAnyTokenEvent(module, secmod.CKF_DONT_BLOCK, 100)
    assert error() == "SEC_ERROR_NO_EVENT"
    assert secmod.SECMOD_HasRemovableSlots(module)
    left = secmod.SECMOD_FindSlot(module, "left")
    simulator["a"].remove()
    slot = secmod.SECMOD_WaitForAnyTokenEvent(module, 0, 100)
    assert slot == left
    assert pk11pub.PK11_GetSlotID(slot) == left.slot.id
    with pytest.raises(NSPRError):
        secmod.SECMOD_FindSlot(module, "middle")
    assert error() == "SEC_ERROR_NO_SLOT_SELECTED"
    assert pk11pub.PK11_GetSlotName(slot) == "left"
    assert not pk11pub.PK11_IsPresent(slot)
    simulator["a"].insert("right")
    slot = secmod.SECMOD_WaitForAnyTokenEvent(module, 0, 100)
    assert pk11pub.PK11_GetTokenName(slot) == "a"


def test_a_wait_is_cancelled(softhsm: SoftHSM) -> None:
    nss.NSS_NoDB_Init()
    module = secmod.SECMOD_LoadUserModule(f"library={softhsm.module_path} name=soft")
    ended: list[str] = []

    def wait() -> None:
        try:
            secmod.SECMOD_WaitForAnyTokenEvent(module)
        except NSPRError as error:
            ended.append(error.name)

    thread = threading.Thread(target=wait)
    thread.start()
    secmod.SECMOD_CancelWait(module)
    thread.join(10)
    assert ended == ["SEC_ERROR_NO_EVENT"]
