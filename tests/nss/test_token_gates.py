"""Under NSS's functions a suite comes and goes with its token, though nobody watches the slots."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import nss, pk11pub, secmod, ssl
from nss_pk11.nss._settings import Settings
from nss_pk11.nss._state import state

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

DEADLINE = 10.0
pytestmark = pytest.mark.usefixtures("factory_settings")
CKM_RC4 = 0x111


def usable() -> set[str]:
    """The mechanisms of the suites that a client's handshake would begin with now."""
    return {suite.cipher.mechanism for suite in Settings.defaults.client_config().usable_suites()}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.02)


def test_a_suite_comes_and_goes_with_its_token(simulated_tokens: Callable[..., RunningSimulator]) -> None:
    simulator = simulated_tokens([{"label": "gated"}])
    token = simulator["gated"]
    token.offer("CKM_RC4")
    nss.NSS_NoDB_Init()
    ssl.NSS_SetDomesticPolicy()
    state.manager.withheld = {"CKM_RC4"}
    assert "CKM_RC4" not in usable()
    assert not pk11pub.PK11_TokenExists(CKM_RC4)
    secmod.SECMOD_LoadUserModule(f"library={simulator.module} name=gated")
    assert "CKM_RC4" in usable()
    assert pk11pub.PK11_TokenExists(CKM_RC4)
    for _ in range(2):
        token.remove()
        wait_until(lambda: "CKM_RC4" not in usable())
        assert "CKM_DES3_CBC" in usable()
        token.insert()
        wait_until(lambda: "CKM_RC4" in usable())


def test_the_internal_slot_switched_off_takes_all_of_its_mechanisms(simulated_tokens: Callable[..., RunningSimulator]) -> None:
    simulator = simulated_tokens([{"label": "gated"}])
    simulator["gated"].offer("CKM_DES3_CBC", "CKM_RSA_PKCS", "CKM_SHA_1_HMAC")
    nss.NSS_NoDB_Init()
    ssl.NSS_SetDomesticPolicy()
    secmod.SECMOD_LoadUserModule(f"library={simulator.module} name=gated")
    slot, other = pk11pub.PK11_GetInternalSlot(), pk11pub.PK11_FindSlotByName("gated")
    pk11pub.PK11_UserDisableSlot(slot)
    assert usable() == {"CKM_DES3_CBC"}
    pk11pub.PK11_UserDisableSlot(other)
    with pytest.raises(NSPRError) as caught:
        usable()
    assert caught.value.name == "SSL_ERROR_NO_CIPHERS_SUPPORTED"
    pk11pub.PK11_UserEnableSlot(slot)
    assert usable() >= {"CKM_RC4", "CKM_DES3_CBC"}
    for held in (slot, other):
        pk11pub.PK11_FreeSlot(held)
