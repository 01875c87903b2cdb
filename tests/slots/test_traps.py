"""One test for each defect of python-pkcs11 that this room works around, and the quirks of modules in the wild.

Each shows the way round at work; that the defect is still there is not tested, so that an upstream that mends it breaks nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pkcs11.exceptions
import pytest

from nss_pk11 import pins
from nss_pk11.errors import PinIncorrect, TokenError
from nss_pk11.slots import Algorithm, PrivateKey, SlotManager, TokenKey, faults
from nss_pk11.slots.cryptoki import Library, mechanism_name
from nss_pk11.slots.sessions import SessionPool
from tests.support.require import missing, require
from tests.support.softhsm import PIN, KeyOnToken, SoftHSM, TokenOnDisk

from .conftest import Asked
from .signatures import verify

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")

# Does the work of a server's key in a process that sees the token through OpenSC's pkcs11-spy, and says how many calls it made.
SPIED = """
import os, shutil, sys
from cryptography.hazmat.primitives.asymmetric import padding
from nss_pk11 import pins
from nss_pk11.errors import PinIncorrect
from nss_pk11.slots import Algorithm, SlotManager
spy, uri, algorithm, count = sys.argv[1:]
with SlotManager() as manager:
    manager.load(spy)
    names = {f"pkcs11:token={token.info.label};".replace(" ", "%20"): token for token in manager.tokens()}
    token = names[uri.partition(";")[0] + ";"]
    for wrong in ("wrong1", "wrong2", "wrong3"):
        try:
            token.login(pins.value(wrong))
        except PinIncorrect:
            pass
    key = manager.find_key(uri, pins.value("1234"))
    if algorithm == "decrypt":
        ciphertext = key.public_key.encrypt(b"secret", padding.PKCS1v15())
        use = lambda: key.decrypt(ciphertext)
    else:
        use = lambda: key.sign(Algorithm(algorithm), b"message")
    use()  # the first opens a worker session
    open(os.environ["PKCS11SPY_OUTPUT"], "w").close()
    manager.mechanisms()
    open(os.environ["PKCS11SPY_OUTPUT"], "w").close()
    for number in range(int(count)):
        manager.mechanisms()
        use()
    shutil.copy(os.environ["PKCS11SPY_OUTPUT"], os.environ["PKCS11SPY_OUTPUT"] + ".counted")
"""


def library(name: str) -> str:
    for directory in (LIBRARIES, LIBRARIES / "pkcs11", LIBRARIES / "nss", Path("/usr/lib64/pkcs11")):
        if (directory / name).exists():
            return str(directory / name)
    missing(name)
    raise AssertionError("unreachable")


def calls(log: Path) -> Counter[str]:
    return Counter(re.findall(r"^\d+: (C_\w+)$", log.read_text(errors="replace"), re.MULTILINE))


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("p256", "ecdsa_sha256"),
        ("rsa", "rsa_pss_sha256"),
        ("rsa", "rsa_pkcs1_sha256"),
        ("ed25519", "ed25519"),
        ("rsa", "decrypt"),
    ],
)
def test_one_init_and_one_call_per_operation(
    softhsm: SoftHSM, keys: dict[str, KeyOnToken], tmp_path: Path, kind: str, algorithm: str
) -> None:
    """Defect: python-pkcs11 makes three calls, asking for the size first."""
    log = tmp_path / "spy"
    environment = softhsm.environment | {"PKCS11SPY": softhsm.module_path, "PKCS11SPY_OUTPUT": str(log)}
    command = [sys.executable, "-W", "error", "-c", SPIED, library("pkcs11-spy.so"), keys[kind].uri, algorithm, "10"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    names = ("C_DecryptInit", "C_Decrypt") if algorithm == "decrypt" else ("C_SignInit", "C_Sign")
    assert calls(log.with_suffix(".counted")) == dict.fromkeys(names, 10)


def test_failed_login_leaks_no_session(softhsm: SoftHSM, new_token: Callable[..., TokenOnDisk]) -> None:
    """Defect: `Token.open(user_pin=)` opens a session and forgets it when the login fails."""
    made = new_token()
    with SlotManager() as manager:
        manager.load(softhsm.module_path)
        [token] = [token for token in manager.tokens() if token.info.label == made.label]
        handles = set()
        for wrong in ("0001", "0002", "0003", "0004"):
            with pytest.raises(PinIncorrect):
                token.login(pins.value(wrong))
            handles.add(token._owner_handle())  # type: ignore[attr-defined]
        assert len(handles) == 1


def test_second_session_needs_no_pin_and_closing_one_logs_nobody_out(find: Callable[[str], PrivateKey]) -> None:
    """Defect: `close()` logs all sessions out, a second `open(user_pin=)` raises UserAlreadyLoggedIn."""
    key = find("p256")
    assert isinstance(key, TokenKey)
    pool = key.home.pool
    workers = [pool.take() for _ in range(3)]
    for worker in workers:
        pool.drop(worker)
    assert key.home.logged_in
    assert key.sign(Algorithm.ecdsa_sha256, b"")


def test_mechanisms_are_those_of_the_module(find: Callable[[str], PrivateKey]) -> None:
    """Defect: `get_mechanisms` ignores the second count and may end in garbage."""
    key = find("p256")
    assert isinstance(key, TokenKey)
    offered = key.home.mechanisms()
    assert offered["CKM_ECDSA"].number == 0x1041
    assert "CKF_SIGN" in offered["CKM_ECDSA"].flags
    assert offered["CKM_RSA_PKCS"].flags >= {"CKF_SIGN", "CKF_DECRYPT"}
    assert (offered["CKM_RSA_PKCS"].min_key_size, offered["CKM_RSA_PKCS"].max_key_size) == (512, 16384)
    assert not any(name.startswith("CKM_0x") for name in offered)


def test_obsolete_and_vendor_mechanisms_have_names() -> None:
    """Defect: mechanisms must be members of an enumeration, and obsolete ones have an underscore."""
    assert mechanism_name(0x1011) == "CKM_KEA_KEY_DERIVE"
    assert mechanism_name(0x1002) == "CKM_SKIPJACK_CBC64"
    assert mechanism_name(0x80001234) == "CKM_0x80001234"
    assert mechanism_name(0x4021) == "CKM_CHACHA20_POLY1305"


def test_results_keep_their_number_and_name() -> None:
    """Defect: the numeric result is lost; unmapped codes are only in the message."""
    kinds = [
        kind for kind in vars(pkcs11.exceptions).values() if isinstance(kind, type) and kind is not pkcs11.exceptions.PKCS11Error
    ]
    ours = {"MultipleObjectsReturned", "MultipleTokensReturned", "NoSuchKey", "NoSuchToken"}
    for kind in kinds:
        if kind.__name__ not in ours and issubclass(kind, pkcs11.exceptions.PKCS11Error):
            assert faults.result_of(kind()) != faults.GENERAL_ERROR or kind.__name__ == "GeneralError", kind
    vendor = pkcs11.exceptions.PKCS11Error("Unmapped error code 0x80000042")
    assert faults.result_of(vendor) == 0x80000042
    error = faults.fault(0x80000042, "C_Sign", mechanism="CKM_ECDSA", doing="sign")
    assert (error.rv, error.ckr, error.mechanism, error.function) == (0x80000042, "CKR_0x80000042", "CKM_ECDSA", "C_Sign")
    assert "CKR_0x80000042" in str(error)


def test_every_fault_has_a_name_of_nss() -> None:
    for number in faults.NAMES:
        assert faults.fault(number, "C_Sign").errno < 0


def test_flags_are_of_now(softhsm: SoftHSM, new_token: Callable[..., TokenOnDisk]) -> None:
    """Defect: `Token.flags` is a snapshot."""
    made = new_token()
    with SlotManager() as manager:
        manager.load(softhsm.module_path)
        [token] = [token for token in manager.tokens() if token.info.label == made.label]
        assert "CKF_USER_PIN_COUNT_LOW" not in token.flags
        token.login(Asked(["0000", PIN]))
        with pytest.raises(PinIncorrect):
            token.initialise("x", "0000", PIN)
        assert "CKF_SO_PIN_COUNT_LOW" in token.flags


def test_session_limit_bounds_the_pool(find: Callable[[str], PrivateKey]) -> None:
    """Defect: the token's session limit is not shown.  One session of the limit is the owner's."""
    key = find("p256")
    assert isinstance(key, TokenKey)
    home = key.home
    for limit, capacity in ((0, 16), (2, 1), (5, 4), (100, 16)):
        assert SessionPool(home._library, home.info, limit, lambda: True).capacity == capacity
    pool = SessionPool(home._library, home.info, 3, lambda: True)
    first, second = pool.take(), pool.take()
    with pytest.raises(TokenError) as caught:
        pool.take(wait=0.01)
    assert caught.value.name == "SEC_ERROR_BUSY"
    pool.give_back(first)
    assert pool.take(wait=0) is first
    pool.drop(second)
    third = pool.take(wait=0)
    assert third.handle not in (first.handle, second.handle)
    pool.discard()
    pool.give_back(first)
    pool.give_back(third)
    assert pool.take(wait=0).generation == 1
    pool.discard()


def test_token_that_allows_one_session(find: Callable[[str], PrivateKey], keys: dict[str, KeyOnToken]) -> None:
    key = find("p256")
    assert isinstance(key, TokenKey)
    home = key.home
    home.forget_sessions()
    home._details = home._details._replace(max_sessions=1)
    home.pool = SessionPool(home._library, home.info, 1, lambda: True)
    key._pins = pins.value(PIN)
    key.place = key.place._replace(generation=-1)
    for _ in range(3):
        verify(keys["p256"].public_key, Algorithm.ecdsa_sha256, key.sign(Algorithm.ecdsa_sha256, b"m"), b"m")
    assert key.home.pool.shared == key.home._owner_handle()
    assert len(home.keys()) == len(keys)


def test_key_is_found_again_when_its_handle_is_worthless(find: Callable[[str], PrivateKey], keys: dict[str, KeyOnToken]) -> None:
    key = find("p256")
    assert isinstance(key, TokenKey)
    key.place = key.place._replace(handle=0xDEAD)
    verify(keys["p256"].public_key, Algorithm.ecdsa_sha256, key.sign(Algorithm.ecdsa_sha256, b"m"), b"m")
    assert key.place.handle != 0xDEAD


def test_sessions_are_opened_anew_when_the_module_closed_them(
    find: Callable[[str], PrivateKey], keys: dict[str, KeyOnToken]
) -> None:
    for kind, algorithm in (("p256", Algorithm.ecdsa_sha256), ("rsa", Algorithm.rsa_pss_sha256)):
        key = find(kind)
        assert isinstance(key, TokenKey)
        home = key.home
        worker = home.pool.take()
        home.pool.give_back(worker)
        home._library.close_session(worker.handle)
        home._library.close_session(home._owner_handle())  # the last: SoftHSM logs out
        verify(keys[kind].public_key, algorithm, key.sign(algorithm, b"m"), b"m")


def test_login_that_was_lost_is_made_again(find: Callable[[str], PrivateKey], keys: dict[str, KeyOnToken]) -> None:
    key = find("p256")
    assert isinstance(key, TokenKey)
    key.home._library.logout(key.home._owner_handle())
    assert not key.home.logged_in
    verify(keys["p256"].public_key, Algorithm.ecdsa_sha256, key.sign(Algorithm.ecdsa_sha256, b"m"), b"m")


# --- modules in the wild -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "at_least"), [("libnssckbi.so", 100), ("p11-kit-trust.so", 1)])
def test_modules_of_roots(name: str, at_least: int) -> None:
    """Defect: `get_objects` raises ValueError on NSS's trust objects.  These modules need no parameters and no login."""
    path = library(name)
    with SlotManager() as manager:
        manager.load(path)
        roots = [item for token in manager.tokens() for item in token.certificates()]
        assert len(roots) >= at_least
        for token in manager.tokens():
            token.login()
            assert token.keys() == []


def test_every_object_of_a_module_with_vendor_classes_is_read() -> None:
    loaded = Library(library("libnssckbi.so"))
    try:
        [slot] = loaded.slot_ids()
        with SlotManager() as manager:
            manager.load(loaded.path)
            [token] = [token for token in manager.tokens() if token.info.slot_id == slot and token.info.module]
            with token._objects() as session:  # type: ignore[attr-defined]
                found = loaded.find_objects(session, {}, (0, 3))
            assert len(found) > 300
            assert any(isinstance(values[0], int) and values[0] >= 0x80000000 for _, values in found)
    finally:
        loaded.finalize()


SOFTOKEN = """
import sys
from nss_pk11 import pins
from nss_pk11.errors import TokenError
from nss_pk11.slots import Algorithm, SlotManager
path, directory = sys.argv[1:]
with SlotManager(pins.value("")) as manager:
    manager.load(path, f"configdir='sql:{directory}' flags=noModDB")
    [token] = [token for token in manager.tokens() if token.info.label == "NSS Certificate DB"]
    token.login()
    key = token.generate_key("p256", "inside NSS")
    signature = key.sign(Algorithm.ecdsa_sha256, b"message")
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    key.public_key.verify(signature, b"message", ec.ECDSA(hashes.SHA256()))
    assert manager.find_key("pkcs11:object=inside%20NSS").public_key == key.public_key
    print(key.sensitive, key.extractable)
"""


def test_nss_softoken_with_its_parameters(tmp_path: Path) -> None:
    """Defect: pReserved cannot be set, without which softokn answers CKR_ARGUMENTS_BAD."""
    certutil = require("certutil")
    subprocess.run([certutil, "-N", "-d", f"sql:{tmp_path}", "--empty-password"], check=True, capture_output=True, timeout=60)
    command = [sys.executable, "-W", "error", "-c", SOFTOKEN, library("libsoftokn3.so"), str(tmp_path)]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "True False\n"), done.stderr


def test_softoken_without_its_parameters_says_why() -> None:
    with SlotManager() as manager, pytest.raises(TokenError) as caught:
        manager.load(library("libsoftokn3.so"))
    assert caught.value.ckr == "CKR_ARGUMENTS_BAD"
    assert caught.value.function == "C_Initialize"
