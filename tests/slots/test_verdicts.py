"""What tokens said to PINs, as forked processes share it."""

from __future__ import annotations

import os
import select
import signal
import threading

from nss_pk11.slots import verdicts
from nss_pk11.slots.verdicts import PinVerdicts, Verdict

from .test_fork import end_of, fork, in_child

CARD, OTHER = ("card", "1", "maker"), ("card", "2", "maker")
WAIT = 30.0  # seconds


def test_each_token_and_key_has_its_own() -> None:
    known = PinVerdicts()
    known.keep(CARD, "1234", None, Verdict.REFUSED)
    known.keep(CARD, "1234", "signature", Verdict.TAKEN)
    assert known.of(CARD, "1234", None) is Verdict.REFUSED
    assert known.of(CARD, "1234", "signature") is Verdict.TAKEN
    for token, pin, key in ((OTHER, "1234", None), (CARD, "12345", None), (CARD, "1234", ""), (CARD, "", "1234")):
        assert known.of(token, pin, key) is Verdict.UNTRIED
    known.keep(CARD, "1234", None, Verdict.TAKEN)
    assert known.of(CARD, "1234", None) is Verdict.TAKEN


def test_a_token_is_forgotten() -> None:
    known = PinVerdicts()
    for token in (CARD, OTHER):
        known.keep(token, "1234", None, Verdict.REFUSED)
    known.forget(CARD)
    assert known.of(CARD, "1234", None) is Verdict.UNTRIED
    assert known.of(OTHER, "1234", None) is Verdict.REFUSED


def test_the_oldest_make_place() -> None:
    known = PinVerdicts()
    for number in range(verdicts._ROOM + 1):
        known.keep(CARD, str(number), None, Verdict.REFUSED)
    assert known.of(CARD, "0", None) is Verdict.UNTRIED
    assert all(known.of(CARD, str(number), None) is Verdict.REFUSED for number in range(1, verdicts._ROOM + 1))


def test_processes_share_them() -> None:
    known = PinVerdicts()
    known.keep(CARD, "0000", None, Verdict.REFUSED)

    def work() -> None:
        assert known.of(CARD, "0000", None) is Verdict.REFUSED
        known.keep(CARD, "1111", None, Verdict.REFUSED)

    assert in_child(work) == 0
    assert known.of(CARD, "1111", None) is Verdict.REFUSED


def test_one_tries_at_a_time_and_who_dies_lets_go() -> None:
    known = PinVerdicts()
    reader, writer = os.pipe()

    def try_for_ever() -> None:
        with known.trying(CARD):
            os.write(writer, b"x")
            signal.pause()

    child = fork(try_for_ever)
    got = threading.Event()

    def try_once() -> None:
        with known.trying(CARD):
            got.set()

    waiting = threading.Thread(target=try_once)
    try:
        assert select.select([reader], [], [], WAIT)[0]
        with known.trying(OTHER):  # is nobody's
            pass
        waiting.start()
        assert not got.wait(0.2)
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        os.close(writer)
    assert got.wait(WAIT)
    waiting.join()
    assert end_of(child) == -signal.SIGKILL
