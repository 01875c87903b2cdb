"""Login and PINs of simulated tokens: PKCS #11 2.40 section 5.6 (C_Login, C_Logout), 5.5 (C_InitToken, C_InitPIN, C_SetPIN)."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from pk11_tokens.abi import ATTRIBUTE, CKA, CKF, CKM, CKO, CKS, CKU, MECHANISM

from .cryptoki import PIN, READ_WRITE, SERIAL, SLOT, SO_PIN, Module
from .test_shim import CARD, host, sockets, until

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

Start = Callable[..., "RunningSimulator"]
FULL = {**CARD, "so_pin": SO_PIN.decode()}
KEYPAD = {**FULL, "personality": "pinpad reader"}
WRONG, NEW = b"999999", b"654321"
LABEL = b"new label".ljust(32)

_LOW, _FINAL, _LOCKED = CKF.USER_PIN_COUNT_LOW, CKF.USER_PIN_FINAL_TRY, CKF.USER_PIN_LOCKED
_SO = CKF.SO_PIN_COUNT_LOW | CKF.SO_PIN_FINAL_TRY | CKF.SO_PIN_LOCKED


def pin_flags(module: Module) -> int:
    return module.token_flags() & (_LOW | _FINAL | _LOCKED | _SO)


# --- C_Login and C_Logout ------------------------------------------------------------------------------------------------


def test_a_login_counts_for_all_sessions_of_the_host(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([CARD]).module) as module:
        reading, writing = module.open(), module.open(READ_WRITE)
        assert module.login(reading) == "CKR_OK"
        assert (module.state(reading), module.state(writing)) == (CKS.RO_USER_FUNCTIONS, CKS.RW_USER_FUNCTIONS)
        assert module.state(module.open()) == CKS.RO_USER_FUNCTIONS
        assert module.login(writing) == "CKR_USER_ALREADY_LOGGED_IN"
        assert module.C_Logout(writing) == "CKR_OK"
        assert (module.state(reading), module.state(writing)) == (CKS.RO_PUBLIC_SESSION, CKS.RW_PUBLIC_SESSION)
        assert module.C_Logout(reading) == "CKR_USER_NOT_LOGGED_IN"


def test_a_login_is_of_one_token(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([CARD, {**CARD, "label": "other"}]).module) as module:
        one, other = module.open(), module.open(slot=2)
        assert module.login(one) == "CKR_OK"
        assert module.state(other) == CKS.RO_PUBLIC_SESSION


@pytest.mark.parametrize("close_all", [False, True])
def test_closing_the_last_session_logs_out(simulated_tokens: Start, close_all: bool) -> None:
    with Module(simulated_tokens([CARD]).module) as module:
        first, last = module.open(), module.open()
        assert module.login(first) == "CKR_OK"
        assert module.C_CloseSession(first) == "CKR_OK"
        assert module.state(last) == CKS.RO_USER_FUNCTIONS
        assert (module.C_CloseAllSessions(SLOT) if close_all else module.C_CloseSession(last)) == "CKR_OK"
        assert module.state(module.open()) == CKS.RO_PUBLIC_SESSION


def test_c_finalize_logs_out(simulated_tokens: Start) -> None:
    path = simulated_tokens([CARD]).module
    with Module(path) as module:
        session = module.open()
        assert module.login(session) == "CKR_OK"
    with Module(path) as module:
        assert module.C_CloseSession(session) == "CKR_SESSION_HANDLE_INVALID"
        assert module.state(module.open()) == CKS.RO_PUBLIC_SESSION


def test_who_may_log_in_when(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([FULL]).module) as module:
        reading, writing = module.open(), module.open(READ_WRITE)
        assert module.login(writing, SO_PIN, CKU.SO) == "CKR_SESSION_READ_ONLY_EXISTS"
        assert module.C_CloseSession(reading) == "CKR_OK"
        assert module.login(writing, SO_PIN, CKU.SO) == "CKR_OK"
        assert module.state(writing) == CKS.RW_SO_FUNCTIONS
        handle = ctypes.c_ulong()
        refused = module.C_OpenSession(SLOT, SERIAL, None, None, ctypes.byref(handle))
        assert refused == "CKR_SESSION_READ_WRITE_SO_EXISTS"
        assert module.login(writing, SO_PIN, CKU.SO) == "CKR_USER_ALREADY_LOGGED_IN"
        assert module.login(writing) == "CKR_USER_ANOTHER_ALREADY_LOGGED_IN"
        assert module.C_Logout(writing) == "CKR_OK"
        assert module.login(writing) == "CKR_OK"
        assert module.login(writing, SO_PIN, CKU.SO) == "CKR_USER_ANOTHER_ALREADY_LOGGED_IN"


def test_kinds_of_user_that_cannot_log_in(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([CARD]).module) as module:
        session = module.open()
        assert module.C_Login(session, 3, PIN, len(PIN)) == "CKR_USER_TYPE_INVALID"
        assert module.login(session, PIN, CKU.CONTEXT_SPECIFIC) == "CKR_OPERATION_NOT_INITIALIZED"
        assert module.C_Login(session + 1, CKU.USER, PIN, len(PIN)) == "CKR_SESSION_HANDLE_INVALID"


# --- wrong PINs ----------------------------------------------------------------------------------------------------------


def test_wrong_pins_lock_the_token_for_everybody(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    with Module(simulator.module) as module:
        session = module.open()
        flags = []
        for _ in range(3):
            flags.append(pin_flags(module))
            assert module.login(session, WRONG) == "CKR_PIN_INCORRECT"
        assert flags == [0, _LOW, _LOW | _FINAL]
        assert pin_flags(module) == _LOW | _LOCKED
        assert module.login(session) == "CKR_PIN_LOCKED"
        another = "with module: print(module.login(module.open()))"
        assert host(another, simulator.module).stdout == "CKR_PIN_LOCKED\n"
        simulator["card"].unlock()
        assert pin_flags(module) == 0
        assert module.login(session) == "CKR_OK"
        assert simulator["card"].status().pin_attempts == 6


def test_a_right_pin_gives_all_tries_back(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([CARD])
    with Module(simulator.module) as module:
        session = module.open()
        for _ in range(3):
            assert module.login(session, WRONG) == "CKR_PIN_INCORRECT"
            assert module.login(session) == "CKR_OK"
            assert module.C_Logout(session) == "CKR_OK"
        assert simulator["card"].status().tries_left == 3


def test_a_pin_that_never_locks(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([{**CARD, "pin_tries": 0}]).module) as module:
        session = module.open()
        assert [module.login(session, WRONG) for _ in range(20)] == ["CKR_PIN_INCORRECT"] * 20
        assert pin_flags(module) == 0
        assert module.login(session) == "CKR_OK"


def test_a_pin_of_impossible_length_costs_no_try(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([{**CARD, "pin_lengths": [6, 8]}])
    with Module(simulator.module) as module:
        session = module.open()
        assert module.token_info()[9:11] == (8, 6)
        assert [module.login(session, pin) for pin in (b"", b"12345", b"123456789")] == ["CKR_PIN_LEN_RANGE"] * 3
        assert simulator["card"].status().tries_left == 3


def test_tries_are_counted_once_though_threads_try_at_once(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([{**CARD, "pin_tries": 100}])
    with Module(simulator.module) as module:
        session = module.open()
        threads = [threading.Thread(target=lambda: [module.login(session, WRONG) for _ in range(5)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert simulator["card"].status().tries_left == 80


def test_no_pin_is_in_the_journal_or_in_messages(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([FULL])
    with Module(simulator.module) as module:
        session = module.open(READ_WRITE)
        assert module.login(session, WRONG) == "CKR_PIN_INCORRECT"
        assert module.login(session) == "CKR_OK"
        assert module.C_SetPIN(session, PIN, len(PIN), NEW, len(NEW)) == "CKR_OK"
    told = repr(simulator.calls()) + repr(simulator["card"].status()) + simulator.log
    assert "C_SetPIN" in told
    for secret in (PIN, SO_PIN, WRONG, NEW):
        assert secret.decode() not in told
        assert secret.hex() not in told


# --- keys that want a PIN for each use -----------------------------------------------------------------------------------


class Signer:
    """Signs with the private key of a token that has one."""

    def __init__(self, module: Module, session: int) -> None:
        self.module, self.session = module, session
        kind, handle, count = ctypes.c_ulong(CKO.PRIVATE_KEY), ctypes.c_ulong(), ctypes.c_ulong()
        template = ATTRIBUTE.pack(CKA.CLASS, ctypes.addressof(kind), ctypes.sizeof(kind))
        assert module.C_FindObjectsInit(session, template, 1) == "CKR_OK"
        assert module.C_FindObjects(session, ctypes.byref(handle), 1, ctypes.byref(count)) == "CKR_OK"
        assert module.C_FindObjectsFinal(session) == "CKR_OK"
        assert count.value == 1
        self.key = handle.value

    def begin(self) -> None:
        assert self.module.C_SignInit(self.session, MECHANISM.pack(CKM.ECDSA, 0, 0), self.key) == "CKR_OK"

    def sign(self) -> str:
        length = ctypes.c_ulong(64)
        return str(self.module.C_Sign(self.session, bytes(32), 32, ctypes.create_string_buffer(64), ctypes.byref(length)))


CAREFUL = {**CARD, "key": [{"label": "www", "kind": "p256", "always_authenticate": True}]}


def test_a_careful_key_wants_the_pin_for_each_signature(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([CAREFUL]).module) as module:
        session = module.open()
        assert module.login(session) == "CKR_OK"
        signer = Signer(module, session)
        signer.begin()
        assert signer.sign() == "CKR_USER_NOT_LOGGED_IN"
        for _ in range(2):
            signer.begin()
            assert module.login(session, PIN, CKU.CONTEXT_SPECIFIC) == "CKR_OK"
            assert signer.sign() == "CKR_OK"
        assert module.login(session, PIN, CKU.CONTEXT_SPECIFIC) == "CKR_OPERATION_NOT_INITIALIZED", "that signature is done"


def test_a_wrong_pin_for_one_signature(simulated_tokens: Start) -> None:
    """It counts like any other, and leaves the operation and the login as they were."""
    simulator = simulated_tokens([CAREFUL])
    with Module(simulator.module) as module:
        session = module.open()
        assert module.login(session) == "CKR_OK"
        signer = Signer(module, session)
        signer.begin()
        assert module.login(session, WRONG, CKU.CONTEXT_SPECIFIC) == "CKR_PIN_INCORRECT"
        assert simulator["card"].status().tries_left == 2
        assert module.login(session, PIN, CKU.CONTEXT_SPECIFIC) == "CKR_OK"
        assert signer.sign() == "CKR_OK"
        signer.begin()
        wrong = [module.login(session, WRONG, CKU.CONTEXT_SPECIFIC) for _ in range(3)]
        assert wrong == ["CKR_PIN_INCORRECT"] * 3
        assert module.login(session, PIN, CKU.CONTEXT_SPECIFIC) == "CKR_PIN_LOCKED"
        assert module.state(session) == CKS.RO_USER_FUNCTIONS


def test_other_keys_want_no_second_pin(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([{**CARD, "key": [{"label": "www", "kind": "p256"}]}]).module) as module:
        session = module.open()
        assert module.login(session) == "CKR_OK"
        signer = Signer(module, session)
        signer.begin()
        assert module.login(session, PIN, CKU.CONTEXT_SPECIFIC) == "CKR_OPERATION_NOT_INITIALIZED"
        assert signer.sign() == "CKR_OK"


def test_signing_is_over_with_the_login(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([{**CARD, "key": [{"label": "www", "kind": "p256"}]}]).module) as module:
        session = module.open()
        assert module.login(session) == "CKR_OK"
        signer = Signer(module, session)
        signer.begin()
        assert module.C_Logout(session) == "CKR_OK"
        assert signer.sign() == "CKR_OPERATION_NOT_INITIALIZED"


# --- the keypad ----------------------------------------------------------------------------------------------------------


def test_a_keypad_takes_no_pin_from_the_host(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([KEYPAD])
    with Module(simulator.module) as module:
        session = module.open()
        assert module.token_flags() & CKF.PROTECTED_AUTHENTICATION_PATH
        assert module.login(session) == "CKR_ARGUMENTS_BAD"
        assert simulator["card"].status().pin_attempts == 0
        assert module.login(session, None) == "CKR_OK"
        assert module.state(session) == CKS.RO_USER_FUNCTIONS


def test_people_at_the_keypad_err_and_cancel(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([KEYPAD])
    with Module(simulator.module) as module:
        session = module.open()
        simulator["card"].person(mistakes=1)
        assert [module.login(session, None) for _ in range(2)] == ["CKR_PIN_INCORRECT", "CKR_OK"]
        assert module.C_Logout(session) == "CKR_OK"
        simulator["card"].person(pin=None)
        assert module.login(session, None) == "CKR_FUNCTION_CANCELED"
        assert simulator["card"].status().tries_left == 3


def test_others_are_served_while_somebody_types(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([KEYPAD])
    simulator["card"].person(delay=30)
    with Module(simulator.module) as module:
        session = module.open()
        told: list[str] = []
        before = sockets()
        thread = threading.Thread(target=lambda: told.append(module.login(session, None)))
        thread.start()
        until(lambda: sockets() == before + 1)
        assert module.state(session) == CKS.RO_PUBLIC_SESSION
        assert not told
        simulator["card"].remove()
        thread.join(10)
        assert told == ["CKR_DEVICE_REMOVED"], "the card was pulled out while the PIN was typed"


# --- C_InitToken, C_InitPIN, C_SetPIN ------------------------------------------------------------------------------------


def test_a_token_made_new(simulated_tokens: Start) -> None:
    """As an administrator does it: initialise, then give the user a PIN."""
    simulator = simulated_tokens([{**FULL, "key": [{"label": "www", "kind": "p256"}]}])
    with Module(simulator.module) as module:
        assert module.C_InitToken(SLOT, WRONG, len(WRONG), LABEL) == "CKR_PIN_INCORRECT"
        assert simulator["card"].status().objects > 0
        assert module.C_InitToken(SLOT, SO_PIN, len(SO_PIN), LABEL) == "CKR_OK"
        assert simulator["card"].status().objects == 0
        assert module.token_info()[0] == LABEL
        assert not module.token_flags() & CKF.USER_PIN_INITIALIZED
        session = module.open(READ_WRITE)
        assert module.login(session) == "CKR_USER_PIN_NOT_INITIALIZED"
        assert module.C_InitPIN(session, NEW, len(NEW)) == "CKR_USER_NOT_LOGGED_IN"
        assert module.login(session, SO_PIN, CKU.SO) == "CKR_OK"
        assert module.C_InitPIN(session, b"1", 1) == "CKR_PIN_LEN_RANGE"
        assert module.C_InitPIN(session, NEW, len(NEW)) == "CKR_OK"
        assert module.C_Logout(session) == "CKR_OK"
        assert module.login(session) == "CKR_PIN_INCORRECT"
        assert module.login(session, NEW) == "CKR_OK"
        assert module.token_flags() & CKF.USER_PIN_INITIALIZED


def test_no_token_is_made_new_while_somebody_uses_it(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([FULL])
    with Module(simulator.module) as module:
        module.open()
        another = f"with module: print(module.C_InitToken(SLOT, {SO_PIN!r}, 8, {LABEL!r}))"
        assert host(another, simulator.module).stdout == "CKR_SESSION_EXISTS\n"
        assert module.C_InitToken(SLOT, SO_PIN, len(SO_PIN), LABEL) == "CKR_SESSION_EXISTS"
        assert module.token_info()[0].rstrip() == b"card"


def test_the_officers_pin_locks_too(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([FULL]).module) as module:
        for _ in range(3):
            assert module.C_InitToken(SLOT, WRONG, len(WRONG), LABEL) == "CKR_PIN_INCORRECT"
        assert module.C_InitToken(SLOT, SO_PIN, len(SO_PIN), LABEL) == "CKR_PIN_LOCKED"
        assert pin_flags(module) == CKF.SO_PIN_COUNT_LOW | CKF.SO_PIN_LOCKED
        assert module.login(module.open()) == "CKR_OK", "the user's is another"


@pytest.mark.parametrize(("login", "user", "old"), [(False, CKU.USER, PIN), (True, CKU.USER, PIN), (True, CKU.SO, SO_PIN)])
def test_changing_a_pin(simulated_tokens: Start, login: bool, user: CKU, old: bytes) -> None:
    with Module(simulated_tokens([FULL]).module) as module:
        session = module.open(READ_WRITE)
        if login:
            assert module.login(session, old, user) == "CKR_OK"
        assert module.C_SetPIN(session, WRONG, len(WRONG), NEW, len(NEW)) == "CKR_PIN_INCORRECT"
        assert module.C_SetPIN(session, old, len(old), b"1", 1) == "CKR_PIN_LEN_RANGE"
        assert module.C_SetPIN(session, old, len(old), NEW, len(NEW)) == "CKR_OK"
        if login:
            assert module.C_Logout(session) == "CKR_OK"
        assert module.login(session, old, user) == "CKR_PIN_INCORRECT"
        assert module.login(session, NEW, user) == "CKR_OK"


def test_a_pin_is_changed_in_a_read_write_session(simulated_tokens: Start) -> None:
    with Module(simulated_tokens([FULL]).module) as module:
        session = module.open()
        assert module.C_SetPIN(session, PIN, len(PIN), NEW, len(NEW)) == "CKR_SESSION_READ_ONLY"
        assert module.login(session) == "CKR_OK"
