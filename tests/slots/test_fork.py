"""A forked child shares nothing of PKCS #11 with its parent: it initialises and logs in anew, and both go on signing."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from nss_pk11 import pins
from nss_pk11.errors import PinIncorrect, TokenError
from nss_pk11.slots import Algorithm, PrivateKey, SlotManager, forks
from tests.support.softhsm import PIN, KeyOnToken, SoftHSM, TokenOnDisk

from .conftest import Asked
from .signatures import verify

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator, TokenControl

MESSAGE = b"message"
WAIT = 30.0  # seconds
SIGNERS = 4  # threads


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; its process id."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forks while threads run: that these are survived is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def end_of(pid: int) -> int:
    """The child's exit status; one that hangs is killed."""
    handle = os.pidfd_open(pid)
    try:
        if not select.select([handle], [], [], WAIT)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(work: Callable[[], object]) -> int:
    """The exit status of `work` in a forked child."""
    return end_of(fork(work))


def verify_signature_of(key: PrivateKey, public_key: object) -> None:
    verify(public_key, Algorithm.ecdsa_sha256, key.sign(Algorithm.ecdsa_sha256, MESSAGE), MESSAGE)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def signing(key: PrivateKey, threads: int = SIGNERS) -> Iterator[list[BaseException]]:
    """Threads that sign all the time; their errors."""
    over = threading.Event()
    errors: list[BaseException] = []

    def sign() -> None:
        try:
            while not over.is_set():
                key.sign(Algorithm.ecdsa_sha256, MESSAGE)
        except BaseException as error:
            errors.append(error)

    signers = [threading.Thread(target=sign) for _ in range(threads)]
    for signer in signers:
        signer.start()
    try:
        wait_for(lambda: key.operations > threads)
        yield errors
    finally:
        over.set()
        for signer in signers:
            signer.join()


# --- SoftHSM ---------------------------------------------------------------------------------------------------------


def test_child_signs_with_the_parents_key(softhsm: SoftHSM, keys: dict[str, KeyOnToken]) -> None:
    made = keys["p256"]
    asked = Asked([PIN])
    with SlotManager(asked) as manager:
        manager.load(softhsm.module_path)
        key = manager.find_key(made.uri)
        key.sign(Algorithm.ecdsa_sha256, MESSAGE)

        def work() -> None:
            for _ in range(3):
                verify(made.public_key, Algorithm.ecdsa_sha256, key.sign(Algorithm.ecdsa_sha256, MESSAGE), MESSAGE)
            assert len(asked.requests) == 2, "the child logs in for itself, once"
            assert manager.find_key(keys["rsa"].uri).sign(Algorithm.rsa_pss_sha256, MESSAGE)
            manager.close()

        assert in_child(work) == 0
        assert in_child(work) == 0
        verify(made.public_key, Algorithm.ecdsa_sha256, key.sign(Algorithm.ecdsa_sha256, MESSAGE), MESSAGE)
        assert len(asked.requests) == 1


def test_children_of_a_parent_that_is_signing_sign(softhsm: SoftHSM, keys: dict[str, KeyOnToken]) -> None:
    """SoftHSM's locks survive a fork as they are: of children that were forked at any moment one in ten hung or crashed."""
    made = keys["p256"]
    with SlotManager(pins.value(PIN)) as manager:
        manager.load(softhsm.module_path)
        key = manager.find_key(made.uri)
        with signing(key) as errors:
            for _ in range(30):
                assert in_child(lambda: verify_signature_of(key, made.public_key)) == 0
            before = key.operations
            wait_for(lambda: key.operations > before + SIGNERS)
        assert not errors


def test_child_that_could_not_begin_anew_says_so(
    softhsm: SoftHSM, keys: dict[str, KeyOnToken], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forked while a call that did not come back in time was inside a module that does not notice forks: no hang, an error."""
    monkeypatch.setattr(forks, "PATIENCE", 0.1)
    with SlotManager(pins.value(PIN)) as manager:
        manager.load(softhsm.module_path)
        key = manager.find_key(keys["p256"].uri)
        pool = key.home.pool  # type: ignore[attr-defined]
        taken, release = threading.Event(), threading.Event()

        def hold() -> None:
            worker = pool.take()
            taken.set()
            release.wait(WAIT)
            pool.give_back(worker)

        holder = threading.Thread(target=hold)
        holder.start()
        assert taken.wait(WAIT)

        def work() -> None:
            for _ in range(2):
                with pytest.raises(TokenError, match="another of its threads"):
                    key.sign(Algorithm.ecdsa_sha256, MESSAGE)

        try:
            assert in_child(work) == 0
            assert key.sign(Algorithm.ecdsa_sha256, MESSAGE)
        finally:
            release.set()
            holder.join()
        assert in_child(lambda: key.sign(Algorithm.ecdsa_sha256, MESSAGE)) == 0


def test_child_of_a_busy_parent_finds_no_lock_held(softhsm: SoftHSM, keys: dict[str, KeyOnToken]) -> None:
    """Locks of ours that another thread holds at the moment of the fork are new in the child."""
    with SlotManager(pins.value(PIN)) as manager:
        manager.load(softhsm.module_path)
        key = manager.find_key(keys["p256"].uri)
        home = key.home  # type: ignore[attr-defined]
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with manager._lock, home._lock, home.count_lock, home.pool._lock, home._guard._lock:
                held.set()
                release.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(10)
        try:
            assert in_child(lambda: key.sign(Algorithm.ecdsa_sha256, MESSAGE)) == 0
        finally:
            release.set()
            holder.join()


def test_child_remembers_which_pins_failed(softhsm: SoftHSM, new_token: Callable[..., TokenOnDisk]) -> None:
    made = new_token()
    with SlotManager() as manager:
        manager.load(softhsm.module_path)
        [token] = [token for token in manager.tokens() if token.info.label == made.label]
        with pytest.raises(PinIncorrect):
            token.login(pins.value("0000"))

        def work() -> None:
            with pytest.raises(PinIncorrect, match="not sent again"):
                token.login(pins.value("0000"))
            token.login(pins.value(PIN))

        assert in_child(work) == 0


# --- simulated tokens ------------------------------------------------------------------------------------------------

HSM = {"label": "hsm", "personality": "network HSM", "pin": PIN, "pin_tries": 10, "key": [{"label": "www", "kind": "p256"}]}


@pytest.fixture
def hsm(simulated_tokens: Callable[..., RunningSimulator]) -> TokenControl:
    return simulated_tokens([HSM])["hsm"]


def test_parent_and_children_sign_on_an_hsm(hsm: TokenControl) -> None:
    """Also while the parent's threads are signing; each process logs in once."""
    with SlotManager(pins.value(PIN)) as manager:
        key = manager.find_key(hsm.uri("www"))
        public_key = load_der_public_key(hsm.public_key_der("www"))
        with signing(key) as errors:
            children = [fork(lambda: verify_signature_of(key, public_key)) for _ in range(3)]
            assert [end_of(child) for child in children] == [0, 0, 0]
            before = key.operations
            wait_for(lambda: key.operations > before + SIGNERS)
        assert not errors
        verify_signature_of(key, public_key)
    assert hsm.status().pin_attempts == 1 + len(children)


def test_fork_does_not_wait_long_for_a_slow_token(hsm: TokenControl, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that notices forks is as good as new in the child all the same."""
    monkeypatch.setattr(forks, "PATIENCE", 0.3)
    public_key = load_der_public_key(hsm.public_key_der("www"))
    with SlotManager(pins.value(PIN)) as manager:
        key = manager.find_key(hsm.uri("www"))
        key.sign(Algorithm.ecdsa_sha256, MESSAGE)
        hsm.slow(3.0, "C_Sign")
        slow = threading.Thread(target=key.sign, args=(Algorithm.ecdsa_sha256, MESSAGE))
        slow.start()
        wait_for(lambda: hsm.status().operations_running > 0)
        hsm.slow(0.0, "C_Sign")
        began = time.monotonic()
        child = fork(lambda: verify_signature_of(key, public_key))
        took = time.monotonic() - began
        assert slow.is_alive()
        assert end_of(child) == 0
        slow.join()
        assert 0.3 <= took < 2.0
        verify_signature_of(key, public_key)


def test_pin_that_failed_is_not_tried_again_on_the_other_side(hsm: TokenControl) -> None:
    """The parent's in its children, a child's in its parent and in its siblings."""
    with SlotManager() as manager:
        manager.load(hsm.simulator.module)
        [token] = [token for token in manager.tokens() if token.info.label == "hsm"]

        def login(pin: str) -> None:
            with pytest.raises(PinIncorrect):
                token.login(pins.value(pin))

        def try_all() -> None:
            login("0000")
            login("0001")

        login("0000")
        children = [fork(try_all) for _ in range(4)]
        assert [end_of(child) for child in children] == [0] * 4
        login("0001")
        assert hsm.status().pin_attempts == 2
        token.login(pins.value(PIN))
        assert in_child(lambda: token.login(pins.value(PIN))) == 0
        assert hsm.status().pin_attempts == 4
