"""A forked child shares nothing of PKCS #11 with its parent: it initialises and logs in anew, and both go on signing."""

from __future__ import annotations

import os
import threading
import traceback
import warnings
from collections.abc import Callable

import pytest

from nss_pk11 import pins
from nss_pk11.errors import PinIncorrect
from nss_pk11.slots import Algorithm, SlotManager
from tests.support.softhsm import PIN, KeyOnToken, SoftHSM, TokenOnDisk

from .conftest import Asked
from .signatures import verify

MESSAGE = b"message"


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; its exit status."""
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
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


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
            assert in_child(lambda: bool(key.sign(Algorithm.ecdsa_sha256, MESSAGE)) and None) == 0
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
