"""The module: its table of functions, its numbers, the way to its server, threads, forks, and ends of every kind."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import pkcs11
import pytest
from pk11_tokens import abi
from pk11_tokens.abi import FUNCTIONS, INITIALIZE_ARGS, SESSION_INFO

from ..support.require import require
from .cryptoki import PIN, SERIAL, SLOT, Module

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

Start = Callable[..., "RunningSimulator"]
CARD = {"label": "card", "personality": "faulty HSM", "pin": PIN.decode(), "pin_tries": 3}
ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def host(script: str, module: str) -> subprocess.CompletedProcess[str]:
    """Another process that loads the module: a script that finds it as `module`, and its path as `path`."""
    head = f"import ctypes, os\nfrom tests.tokens.cryptoki import *\npath = {module!r}\nmodule = Module(path)\n"
    command = [sys.executable, "-c", head + script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# --- the table -----------------------------------------------------------------------------------------------------------


def test_the_function_list_is_that_of_pkcs_11_2_40(simulated_tokens: Start) -> None:
    """python-pkcs11 and p11-kit find every function where they look for it; here, the table itself."""
    library = ctypes.CDLL(simulated_tokens([CARD]).module)
    address = ctypes.c_void_p()
    assert library.C_GetFunctionList(None) == abi.CKR.ARGUMENTS_BAD
    assert library.C_GetFunctionList(ctypes.byref(address)) == abi.CKR.OK
    assert address.value
    assert ctypes.string_at(address.value, 2) == bytes(abi.CRYPTOKI_VERSION)
    pointers = (ctypes.c_void_p * 68).from_address(address.value + ctypes.sizeof(ctypes.c_void_p))
    assert all(pointers)
    assert len(set(pointers)) == len(FUNCTIONS) == 68


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (abi.CKM, pkcs11.Mechanism),
        (abi.CKA, pkcs11.Attribute),
        (abi.CKK, pkcs11.KeyType),
        (abi.CKO, pkcs11.ObjectClass),
        (abi.CKC, pkcs11.CertificateType),
        (abi.CKF, pkcs11.TokenFlag),
        (abi.CKF, pkcs11.SlotFlag),
        (abi.CKF, pkcs11.MechanismFlag),
    ],
)
def test_numbers_are_those_of_somebody_else(ours: type[IntEnum], theirs: type[IntEnum]) -> None:
    common = ours.__members__.keys() & theirs.__members__.keys()
    assert len(common) >= 3
    assert {name: int(ours[name]) for name in common} == {name: int(theirs[name]) for name in common}


def test_pkcs11_tool_reads_every_structure(simulated_tokens: Start) -> None:
    tool = require("pkcs11-tool")
    simulator = simulated_tokens({"reader": [{"name": "Left reader", "token": {**CARD, "serial": "4711"}}, {"name": "Right"}]})

    def told(*options: str) -> str:
        command = [tool, "--module", simulator.module, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert "Cryptoki version 2.40" in told("--show-info")
    slots = told("--list-slots")
    for text in ("Left reader", "token label        : card", "serial num         : 4711", "login required", "PIN initialized"):
        assert text in slots
    assert slots.index("Left reader") < slots.index("Right") < slots.index("(empty)")
    assert "ECDSA, keySize={256,521}, hw, sign, verify" in told("--list-mechanisms")


def test_python_pkcs11_works_with_it(simulated_tokens: Start) -> None:
    library = pkcs11.lib(simulated_tokens([CARD]).module)
    token = library.get_token(token_label="card")
    with token.open(user_pin=PIN.decode()) as session:
        assert session.user_type == pkcs11.UserType.USER
    library.finalize()


# --- C_Initialize and C_Finalize -----------------------------------------------------------------------------------------


def test_before_c_initialize_and_after_c_finalize_nothing_works(simulated_tokens: Start) -> None:
    module = Module(simulated_tokens([CARD]).module)
    count = ctypes.c_ulong()
    assert module.C_GetSlotList(0, None, ctypes.byref(count)) == "CKR_CRYPTOKI_NOT_INITIALIZED"
    assert module.C_Finalize(None) == "CKR_CRYPTOKI_NOT_INITIALIZED"
    assert module.C_Initialize(None) == "CKR_OK"
    assert module.C_Initialize(None) == "CKR_CRYPTOKI_ALREADY_INITIALIZED"
    assert module.C_GetSlotList(0, None, ctypes.byref(count)) == "CKR_OK"
    assert module.C_Finalize(ctypes.byref(count)) == "CKR_ARGUMENTS_BAD"
    assert module.C_Finalize(None) == "CKR_OK"
    assert module.C_GetSlotList(0, None, ctypes.byref(count)) == "CKR_CRYPTOKI_NOT_INITIALIZED"


@pytest.mark.parametrize(
    ("mutexes", "flags", "reserved", "result"),
    [
        ((0, 0, 0, 0), 0, 0, "CKR_OK"),
        ((0, 0, 0, 0), abi.CKF.OS_LOCKING_OK, 0, "CKR_OK"),
        ((1, 1, 1, 1), abi.CKF.OS_LOCKING_OK, 0, "CKR_OK"),
        ((1, 1, 1, 1), 0, 0, "CKR_CANT_LOCK"),
        ((1, 1, 0, 1), 0, 0, "CKR_ARGUMENTS_BAD"),
        ((1, 1, 0, 1), abi.CKF.OS_LOCKING_OK, 0, "CKR_ARGUMENTS_BAD"),
        ((0, 0, 0, 0), 0, 1, "CKR_ARGUMENTS_BAD"),
    ],
)
def test_arguments_of_c_initialize(
    simulated_tokens: Start, mutexes: tuple[int, int, int, int], flags: int, reserved: int, result: str
) -> None:
    module = Module(simulated_tokens([CARD]).module)
    assert module.C_Initialize(INITIALIZE_ARGS.pack(*mutexes, flags, reserved)) == result
    assert module.C_Finalize(None) == ("CKR_OK" if result == "CKR_OK" else "CKR_CRYPTOKI_NOT_INITIALIZED")


def test_what_no_token_does_is_not_supported(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([CARD]).module) as module:
        session = module.open()
        assert module.C_GetOperationState(session, None, ctypes.byref(ctypes.c_ulong())) == "CKR_FUNCTION_NOT_SUPPORTED"
        assert module.C_GetFunctionStatus(session) == "CKR_FUNCTION_NOT_PARALLEL"
        assert module.C_CancelFunction(session) == "CKR_FUNCTION_NOT_PARALLEL"


# --- memory --------------------------------------------------------------------------------------------------------------


def test_null_where_something_must_be_is_bad_arguments(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([CARD]).module) as module:
        session = module.open()
        assert module.C_GetInfo(None) == "CKR_ARGUMENTS_BAD"
        assert module.C_GetSlotList(0, None, None) == "CKR_ARGUMENTS_BAD"
        assert module.C_GetSlotInfo(SLOT, None) == "CKR_ARGUMENTS_BAD"
        assert module.C_GetTokenInfo(SLOT, None) == "CKR_ARGUMENTS_BAD"
        assert module.C_OpenSession(SLOT, SERIAL, None, None, None) == "CKR_ARGUMENTS_BAD"
        assert module.C_GetSessionInfo(session, None) == "CKR_ARGUMENTS_BAD"
        assert module.login(session, None) == "CKR_ARGUMENTS_BAD"


def test_a_wild_pointer_costs_the_host_its_connection_not_its_life(simulated_tokens: Start) -> None:
    wild = 0x10
    with Module(simulated_tokens([CARD]).module) as module:
        session = module.open()
        assert module.C_GetInfo(wild) == "CKR_DEVICE_ERROR"
        assert module.C_Login(session, abi.CKU.USER, wild, 6) == "CKR_DEVICE_ERROR"
        assert module.login(session) == "CKR_OK", "another connection, the same host"


# --- the server ----------------------------------------------------------------------------------------------------------


def test_nobody_listens(simulated_tokens: Start, tmp_path: Path) -> None:
    shutil.copy(simulated_tokens([CARD]).module, tmp_path / "alone.so")
    module = Module(tmp_path / "alone.so")
    assert module.C_Initialize(None) == "CKR_GENERAL_ERROR"
    assert module.C_GetSlotList(0, None, ctypes.byref(ctypes.c_ulong())) == "CKR_DEVICE_ERROR"


def test_the_server_dies(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    module = Module(simulator.module)
    assert module.C_Initialize(None) == "CKR_OK"
    session = module.open()
    directory = Path(simulator.module).parent
    simulator.stop()
    assert not directory.exists()
    assert module.login(session) == "CKR_DEVICE_ERROR"
    assert module.C_Initialize(None) == "CKR_GENERAL_ERROR"


def test_two_simulators_in_one_process_know_nothing_of_each_other(simulated_tokens: Start) -> None:
    first, second = simulated_tokens([CARD]), simulated_tokens([{**CARD, "label": "other"}])
    with Module(first.module) as one, Module(second.module) as two:
        assert one.token_info()[0].rstrip() == b"card"
        assert two.token_info()[0].rstrip() == b"other"
        session = one.open()
        assert two.C_CloseSession(session) == "CKR_SESSION_HANDLE_INVALID"


# --- threads and processes -----------------------------------------------------------------------------------------------


def sockets() -> int:
    """How many this process has."""
    return sum(os.readlink(entry).startswith("socket:") for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())


def test_threads_call_at_once_and_their_connections_end_with_them(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    simulator["card"].slow(1.0, "C_GetSessionInfo")  # long enough for a busy machine to begin all of them meanwhile
    with Module(simulator.module) as module:
        session = module.open()
        before, began = sockets(), time.monotonic()
        threads = [threading.Thread(target=module.state, args=(session,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: sockets() == before + 8)
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 8 * 1.0, "they waited for each other"
        until(lambda: sockets() == before)


def test_c_finalize_leaves_no_connection(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    before = sockets()
    with Module(simulator.module) as module:
        module.open()
        assert sockets() > before
    assert sockets() == before


def test_a_session_outlives_the_thread_that_opened_it(simulated_tokens: Start) -> None:
    """And so does the host, though no thread that ever called is left."""
    module = Module(simulated_tokens([CARD]).module)
    sessions: list[int] = []

    def begin() -> None:
        assert module.C_Initialize(None) == "CKR_OK"
        sessions.append(module.open())

    before = sockets()
    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    until(lambda: sockets() == before + 1)
    assert module.login(sessions[0]) == "CKR_OK"
    assert module.C_Finalize(None) == "CKR_OK"


def test_the_end_of_a_process_ends_its_sessions(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([{**CARD, "max_sessions": 1}])
    script = "module.C_Initialize(None); print(module.login(module.open()), flush=True); os.kill(os.getpid(), 9)"
    assert host(script, simulator.module).stdout == "CKR_OK\n"
    until(lambda: simulator["card"].status().sessions == 0)
    with Module(simulator.module) as module:
        assert module.state(module.open()) == abi.CKS.RO_PUBLIC_SESSION


def test_another_process_is_another_host(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    with Module(simulator.module) as module:
        session = module.open()
        assert module.login(session) == "CKR_OK"
        script = f"""with module:
            print(module.C_CloseSession({session}), module.state(module.open()).name)"""
        assert host(script, simulator.module).stdout == "CKR_SESSION_HANDLE_INVALID RO_PUBLIC_SESSION\n"


def test_a_forked_child_begins_anew_and_harms_nobody(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    script = """
module.C_Initialize(None)
session = module.open()
assert module.login(session) == "CKR_OK"
def sockets():
    return sum(os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
               for number in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{number}"))
child = os.fork()
if not child:
    print(sockets())
    print(module.C_CloseSession(session), module.C_Initialize(None), module.C_CloseSession(session), flush=True)
    print(module.state(module.open()).name, module.C_Finalize(None), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(module.state(session).name, module.C_Finalize(None))
"""
    result = host(script, simulator.module)
    assert result.stdout.splitlines() == [
        "0",
        "CKR_CRYPTOKI_NOT_INITIALIZED CKR_OK CKR_SESSION_HANDLE_INVALID",
        "RO_PUBLIC_SESSION CKR_OK",
        "RO_USER_FUNCTIONS CKR_OK",
    ], result.stderr


def test_a_call_is_quick(simulated_tokens: Start) -> None:
    """A generous limit for the quicker ones: a machine under load must not fail it, a wait for a timer or for delayed packets,
    which every call would have, must."""
    with Module(simulated_tokens([CARD]).module) as module:
        session, room = module.open(), ctypes.create_string_buffer(SESSION_INFO.size)
        took = []
        for _ in range(200):
            began = time.perf_counter()
            assert module.C_GetSessionInfo(session, room) == "CKR_OK"
            took.append(time.perf_counter() - began)
        assert sorted(took)[20] < 0.002
