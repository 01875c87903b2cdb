"""Slots, tokens in them, sessions: what PKCS #11 2.40 says in sections 5.5 and 5.6, and what removal does to them."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from pk11_tokens.abi import CKF, CKM, CKS, EFFECTIVELY_INFINITE, MECHANISM_INFO, SLOT_INFO

from .cryptoki import READ_WRITE, SERIAL, SLOT, SO_PIN, Module
from .test_shim import CARD, host, sockets, until

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

Start = Callable[..., "RunningSimulator"]
TWO_READERS = {"reader": [{"name": "Left", "token": CARD}, {"name": "Right"}]}


def slots(module: Module, present: int = 0) -> list[int]:
    count = ctypes.c_ulong()
    assert module.C_GetSlotList(present, None, ctypes.byref(count)) == "CKR_OK"
    room = (ctypes.c_ulong * count.value)()
    assert module.C_GetSlotList(present, room, ctypes.byref(count)) == "CKR_OK"
    return list(room)


def event(module: Module, flags: int = CKF.DONT_BLOCK) -> str | int:
    """The slot that changed, or why there is none."""
    slot = ctypes.c_ulong()
    result = module.C_WaitForSlotEvent(flags, ctypes.byref(slot), None)
    return slot.value if result == "CKR_OK" else str(result)


# --- slots ---------------------------------------------------------------------------------------------------------------


def test_slots_with_and_without_tokens(simulated_tokens: Start) -> None:
    simulator = simulated_tokens(TWO_READERS)
    with Module(simulator.module) as module:
        assert (slots(module), slots(module, 1)) == ([1, 2], [1])
        simulator["card"].remove()
        assert (slots(module), slots(module, 1)) == ([1, 2], [])
        simulator["card"].insert("Right")
        assert (slots(module), slots(module, 1)) == ([1, 2], [2])


def test_a_slot_list_that_does_not_fit(simulated_tokens: Start) -> None:
    with Module(simulated_tokens(TWO_READERS).module) as module:
        count, room = ctypes.c_ulong(1), (ctypes.c_ulong * 2)(77, 77)
        assert module.C_GetSlotList(0, room, ctypes.byref(count)) == "CKR_BUFFER_TOO_SMALL"
        assert (count.value, list(room)) == (2, [77, 77])


def test_the_flags_of_a_slot(simulated_tokens: Start) -> None:
    simulator = simulated_tokens({"reader": [{"name": "Left", "token": {**CARD, "personality": "smart card"}}]})
    with Module(simulator.module) as module:

        def flags() -> int:
            room = ctypes.create_string_buffer(SLOT_INFO.size)
            assert module.C_GetSlotInfo(SLOT, room) == "CKR_OK"
            return int(SLOT_INFO.unpack(room.raw)[2])

        assert flags() == CKF.HW_SLOT | CKF.REMOVABLE_DEVICE | CKF.TOKEN_PRESENT
        simulator["card"].remove()
        assert flags() == CKF.HW_SLOT | CKF.REMOVABLE_DEVICE


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("C_GetSlotInfo", (ctypes.create_string_buffer(512),)),
        ("C_GetTokenInfo", (ctypes.create_string_buffer(512),)),
        ("C_GetMechanismList", (None, ctypes.byref(ctypes.c_ulong()))),
        ("C_GetMechanismInfo", (CKM.ECDSA, ctypes.create_string_buffer(512))),
        ("C_OpenSession", (SERIAL, None, None, ctypes.byref(ctypes.c_ulong()))),
        ("C_CloseAllSessions", ()),
        ("C_InitToken", (SO_PIN, 8, b"new".ljust(32))),
    ],
)
def test_a_slot_that_is_not_there_and_a_token_that_is_not(
    simulated_tokens: Start, function: str, arguments: tuple[Any, ...]
) -> None:
    with Module(simulated_tokens(TWO_READERS).module) as module:
        for slot in (0, 3, 2**64 - 1):
            assert getattr(module, function)(slot, *arguments) == "CKR_SLOT_ID_INVALID"
        absent = "CKR_OK" if function == "C_GetSlotInfo" else "CKR_TOKEN_NOT_PRESENT"
        assert getattr(module, function)(2, *arguments) == absent


def test_mechanisms_are_those_of_the_personality(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([{**CARD, "mechanisms": ["CKM_ECDSA", "CKM_SHA256"]}]).module) as module:
        count = ctypes.c_ulong(2)
        listed = (ctypes.c_ulong * 2)()
        assert module.C_GetMechanismList(SLOT, listed, ctypes.byref(count)) == "CKR_OK"
        assert (count.value, list(listed)) == (2, [CKM.ECDSA, CKM.SHA256])
        room = ctypes.create_string_buffer(MECHANISM_INFO.size)
        assert module.C_GetMechanismInfo(SLOT, CKM.ECDSA, room) == "CKR_OK"
        shortest, longest, flags = MECHANISM_INFO.unpack(room.raw)
        assert (shortest, longest) == (256, 521)
        assert flags & (CKF.HW | CKF.SIGN | CKF.VERIFY | CKF.DIGEST) == CKF.HW | CKF.SIGN | CKF.VERIFY
        assert module.C_GetMechanismInfo(SLOT, CKM.RSA_PKCS, room) == "CKR_MECHANISM_INVALID"
        assert module.C_GetMechanismInfo(SLOT, 0x80000001, room) == "CKR_MECHANISM_INVALID"


# --- slot events ---------------------------------------------------------------------------------------------------------


def test_every_change_is_told_once_to_every_host(simulated_tokens: Start) -> None:
    simulator = simulated_tokens(TWO_READERS)
    with Module(simulator.module) as module:
        assert event(module) == "CKR_NO_EVENT"
        simulator["card"].remove()
        assert (event(module), event(module)) == (1, "CKR_NO_EVENT")
        simulator["card"].insert("Right")
        simulator["card"].remove()
        assert (event(module), event(module)) == (2, "CKR_NO_EVENT"), "two changes before anybody asked: one flag of the slot"
        script = "with module: print(module.C_WaitForSlotEvent(1, ctypes.byref(ctypes.c_ulong()), None))"
        simulator["card"].insert("Left")
        assert host(script, simulator.module).stdout == "CKR_NO_EVENT\n", "it came when this host was not there"
        assert event(module) == 1


def waiting(module: Module) -> tuple[threading.Thread, list[str | int]]:
    """A thread that waits for an event, once it has begun to, and where it puts what it is told."""
    told: list[str | int] = []
    before = sockets()
    thread = threading.Thread(target=lambda: told.append(event(module, flags=0)))
    thread.start()
    until(lambda: sockets() == before + 1)
    assert slots(module, 1) == [SLOT], "others are served meanwhile"
    assert not told
    return thread, told


def test_waiting_for_an_event(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    with Module(simulator.module) as module:
        thread, told = waiting(module)
        simulator["card"].remove()
        thread.join(10)
        assert told == [SLOT]


def test_c_finalize_ends_the_wait(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([CARD]).module) as module:
        thread, told = waiting(module)
        assert module.C_Finalize(None) == "CKR_OK"
        thread.join(10)
        assert told == ["CKR_CRYPTOKI_NOT_INITIALIZED"]


def test_the_end_of_the_server_ends_the_wait(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    with Module(simulator.module) as module:
        thread, told = waiting(module)
        simulator.stop()
        thread.join(10)
        assert told == ["CKR_DEVICE_ERROR"]


def test_a_host_that_is_killed_while_it_waits_is_gone(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    script = """
import signal
module.C_Initialize(None)
module.open()
signal.setitimer(signal.ITIMER_REAL, 0.2)
module.C_WaitForSlotEvent(0, ctypes.byref(ctypes.c_ulong()), None)"""
    assert host(script, simulator.module).returncode < 0
    until(lambda: simulator["card"].status().sessions == 0)


def test_bad_arguments_of_waiting(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([CARD]).module) as module:
        slot = ctypes.c_ulong()
        assert module.C_WaitForSlotEvent(CKF.DONT_BLOCK, None, None) == "CKR_ARGUMENTS_BAD"
        assert module.C_WaitForSlotEvent(CKF.DONT_BLOCK, ctypes.byref(slot), ctypes.byref(slot)) == "CKR_ARGUMENTS_BAD"


@pytest.mark.parametrize(("events", "told"), [("unsupported", "CKR_FUNCTION_NOT_SUPPORTED"), ("silent", "CKR_NO_EVENT")])
def test_drivers_that_report_no_events(simulated_tokens: Start, events: str, told: str) -> None:
    simulator = simulated_tokens([{**CARD, "slot_events": events}])
    with Module(simulator.module) as module:
        simulator["card"].remove()
        assert event(module) == told


# --- sessions ------------------------------------------------------------------------------------------------------------


def test_opening_and_closing(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([CARD]).module) as module:
        handle = ctypes.c_ulong()
        parallel = module.C_OpenSession(SLOT, CKF.RW_SESSION, None, None, ctypes.byref(handle))
        assert parallel == "CKR_SESSION_PARALLEL_NOT_SUPPORTED"
        reading, writing = module.open(), module.open(READ_WRITE)
        assert reading != writing
        assert (module.state(reading), module.state(writing)) == (CKS.RO_PUBLIC_SESSION, CKS.RW_PUBLIC_SESSION)
        assert module.C_CloseSession(reading) == "CKR_OK"
        assert module.C_CloseSession(reading) == "CKR_SESSION_HANDLE_INVALID"
        assert module.C_CloseAllSessions(SLOT) == "CKR_OK"
        assert module.C_CloseSession(writing) == "CKR_SESSION_HANDLE_INVALID"
        assert module.open() not in (reading, writing), "a handle never comes back"


def test_sessions_are_counted(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    with Module(simulator.module) as module:
        module.open()
        module.open(READ_WRITE)
        module.open(READ_WRITE)
        assert module.token_info()[5:9] == (EFFECTIVELY_INFINITE, 3, EFFECTIVELY_INFINITE, 2)
        script = "with module: module.open(); print(module.token_info()[5:9])"
        assert host(script, simulator.module).stdout == "(0, 1, 0, 0)\n", "CK_TOKEN_INFO counts those of this application"


def test_a_token_has_so_many_sessions_for_all_hosts(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([{**CARD, "max_sessions": 2}])
    another = "with module: print(module.C_OpenSession(SLOT, SERIAL, None, None, ctypes.byref(ctypes.c_ulong())))"
    with Module(simulator.module) as module:
        first = module.open()
        assert host(another, simulator.module).stdout == "CKR_OK\n"
        module.open()
        assert host(another, simulator.module).stdout == "CKR_SESSION_COUNT\n"
        assert module.token_info()[5:7] == (2, 2)
        assert module.C_CloseSession(first) == "CKR_OK"
        assert host(another, simulator.module).stdout == "CKR_OK\n"


# --- a token goes --------------------------------------------------------------------------------------------------------


def test_a_removed_token_is_told_of_once_in_each_session(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    with Module(simulator.module) as module:
        one, two, three = module.open(), module.open(), module.open()
        assert module.login(one) == "CKR_OK"
        simulator["card"].remove()
        room = ctypes.create_string_buffer(64)
        assert module.C_GetSessionInfo(one, room) == "CKR_DEVICE_REMOVED"
        assert module.C_GetSessionInfo(one, room) == "CKR_SESSION_HANDLE_INVALID"
        assert module.C_CloseSession(two) == "CKR_DEVICE_REMOVED"
        assert module.C_CloseSession(two) == "CKR_SESSION_HANDLE_INVALID"
        simulator["card"].insert()
        assert module.login(three) == "CKR_DEVICE_REMOVED", "the same card, another insertion"
        assert module.login(three) == "CKR_SESSION_HANDLE_INVALID"
        again = module.open()
        assert again not in (one, two, three)
        assert module.state(again) == CKS.RO_PUBLIC_SESSION, "the login went with the card"


def test_other_tokens_do_not_mind(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD, {**CARD, "label": "other"}])
    with Module(simulator.module) as module:
        session = module.open(slot=2)
        assert module.login(session) == "CKR_OK"
        simulator["card"].remove()
        assert module.state(session) == CKS.RO_USER_FUNCTIONS


def test_another_token_in_the_same_reader(simulated_tokens: Start) -> None:
    description = {"reader": [{"name": "Left", "token": CARD}], "drawer": [{**CARD, "label": "other"}]}
    simulator = simulated_tokens(description)
    with Module(simulator.module) as module:
        session = module.open()
        assert module.login(session) == "CKR_OK"
        simulator.swap("Left", "other")
        assert module.token_info()[0].rstrip() == b"other"
        assert module.login(session) == "CKR_DEVICE_REMOVED"
        assert module.state(module.open()) == CKS.RO_PUBLIC_SESSION


def test_a_link_that_is_lost(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    with Module(simulator.module) as module:
        session = module.open()
        assert module.login(session) == "CKR_OK"
        simulator["card"].disconnect()
        assert module.login(session) == "CKR_SESSION_HANDLE_INVALID"
        assert module.state(module.open()) == CKS.RO_PUBLIC_SESSION


def test_who_is_idle_loses_sessions_and_login(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([{**CARD, "idle_timeout": 0.8}])
    with Module(simulator.module) as module:
        session = module.open()
        assert module.login(session) == "CKR_OK"
        time.sleep(1.0)  # what is measured is time: there is nothing to wait for
        assert module.C_CloseSession(session) == "CKR_SESSION_HANDLE_INVALID"
        again = module.open()
        assert module.state(again) == CKS.RO_PUBLIC_SESSION
        for _ in range(6):
            assert module.state(again) == CKS.RO_PUBLIC_SESSION, "who calls is not idle"
            time.sleep(0.2)
