"""The PIN rules while a server serves: Python's own `ssl` connects, the token counts the PINs it was sent, a person is asked.

That a rule holds for threads is in `tests/slots`; here it holds for handshakes, of which many come at once.
"""

from __future__ import annotations

import logging
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11 import pins
from nss_pk11.errors import NSPRError, PinCancelled
from nss_pk11.net import dispatcher
from nss_pk11.net.audit import AuditLog
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import load_identity
from nss_pk11.slots import SlotManager
from nss_pk11.tls.config import ServerConfig

from ..support import load
from .hsms import hsm, wait_until
from .peers import TIMEOUT, Running, Task, client_context, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pk11_tokens import RunningSimulator, TokenControl

    from nss_pk11.pins import PinProvider

    from ..support.pki import PKI

    Start = Callable[..., RunningSimulator]

PIN, NEW, TRIES = "1234-hsm", "4321-hsm", 10
CLIENTS = 40  # more than threads for one token
ELSEWHERE = "other.test"  # the name of an identity whose key is in memory
KEYPAD = {"personality": "pinpad reader", "pin_tries": TRIES}


class Person:
    """Answers after `seconds` and not before `decided` is set, in turn, the last answer for ever."""

    person, static = True, False

    def __init__(self, *answers: str | None, seconds: float = 0.0) -> None:
        self._answers, self.seconds = list(answers), seconds
        self.requests: list[pins.PinRequest] = []
        self.asked, self.decided = threading.Event(), threading.Event()
        self.decided.set()

    def __call__(self, request: pins.PinRequest) -> str | None:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self.asked.set()
        time.sleep(self.seconds)
        assert self.decided.wait(TIMEOUT)
        return answer


@contextmanager
def serving(token: TokenControl, pki: PKI, source: PinProvider, **options: Any) -> Iterator[Running]:
    """A server with a key on `token`, logged in, and one in memory."""
    other = pki.server("p256", (ELSEWHERE,))
    with SlotManager() as manager, KeyExecutor(**options) as executor:
        own = load_identity(manager, token.uri("www"), chain=pki.server("p256").chain_file, pins=source)
        in_memory = load_identity(manager, other.key_file, chain=other.chain_file)
        config = ServerConfig(identities=(own, in_memory), mechanisms=manager.mechanisms)
        with running(config, executor) as server:
            yield server


def context_of(pki: PKI, version: str = "TLSv1_3") -> ssl.SSLContext:
    context = client_context(pki)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


def connect(server: Running, context: ssl.SSLContext, name: str = "localhost") -> str:
    """One handshake; "" or the alert that ended it."""
    try:
        load.handshake(server.address[1], context, name)
    except ssl.SSLError as error:
        return str(error.reason)
    return ""


def storm(server: Running, context: ssl.SSLContext, clients: int = CLIENTS) -> set[str]:
    tasks = [Task(partial(connect, server, context)) for _ in range(clients)]
    return {task.wait() for task in tasks}


def errors_of(server: Running, count: int) -> list[NSPRError | None]:
    return [connection.engine.error for connection in server.wait_for_end(count)]


def test_wrong_static_pin_costs_one_try_however_many_connections_wait(simulated_tokens: Start, pki: PKI) -> None:
    """The HSM dropped the login and has another PIN now."""
    token = simulated_tokens([hsm(pki, "hsm")])["hsm"]
    with serving(token, pki, pins.value(PIN)) as server:
        context = context_of(pki)
        assert connect(server, context) == ""
        command = ["pkcs11-tool", "--module", token.simulator.module, "--token-label", "hsm", "--change-pin"]
        subprocess.run([*command, "--pin", PIN, "--new-pin", NEW], check=True, capture_output=True, timeout=TIMEOUT)
        token.disconnect()
        before = token.status().pin_attempts
        assert storm(server, context) == {"TLSV1_ALERT_INTERNAL_ERROR"}
        assert connect(server, context, ELSEWHERE) == ""
        status = token.status()
        assert (status.pin_attempts - before, status.tries_left) == (1, TRIES - 1)


def test_handshakes_prompt_once_and_share_the_answer(simulated_tokens: Start, pki: PKI) -> None:
    token = simulated_tokens([hsm(pki, "hsm")])["hsm"]
    person = Person("wrong-pin", PIN)
    with serving(token, pki, person) as server:
        assert [request.retry for request in person.requests] == [False, True]
        person.seconds = 0.5
        token.disconnect()
        assert storm(server, context_of(pki)) == {""}
        assert [request.retry for request in person.requests[2:]] == [False]
        assert token.status().pin_attempts == 3


def test_handshakes_share_a_cancel_and_do_not_prompt_for_each(
    simulated_tokens: Start, pki: PKI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that wait, those that queue behind them, and those that come soon after; later somebody may think better of it."""
    monkeypatch.setattr(dispatcher, "LOGIN_PAUSE", 2.5)
    token = simulated_tokens([hsm(pki, "hsm")])["hsm"]
    person = Person(PIN, None, PIN, seconds=0.3)
    with serving(token, pki, person) as server:
        context = context_of(pki)
        token.disconnect()
        assert storm(server, context) == {"TLSV1_ALERT_INTERNAL_ERROR"}
        assert storm(server, context, 10) == {"TLSV1_ALERT_INTERNAL_ERROR"}
        assert len(person.requests) == 2
        assert {type(error) for error in errors_of(server, CLIENTS + 10)} == {PinCancelled}
        wait_until(lambda: connect(server, context) == "")
        assert len(person.requests) == 3
        assert token.status().pin_attempts == 2


def test_person_who_thinks_stalls_nobody_else(simulated_tokens: Start, pki: PKI) -> None:
    token = simulated_tokens([hsm(pki, "hsm")])["hsm"]
    person = Person(PIN)
    with serving(token, pki, person) as server:
        context = context_of(pki)
        token.disconnect()
        person.asked.clear()
        person.decided.clear()
        waiting = Task(partial(connect, server, context))
        assert person.asked.wait(TIMEOUT)
        assert [connect(server, context, ELSEWHERE) for _ in range(20)] == [""] * 20
        assert waiting.is_alive()
        person.decided.set()
        assert waiting.wait() == ""


def test_source_that_raises_fails_only_who_needs_it(simulated_tokens: Start, pki: PKI) -> None:
    token = simulated_tokens([hsm(pki, "hsm")])["hsm"]
    asked = []

    def ask(request: pins.PinRequest, retry: bool, arg: object) -> str:
        asked.append(request)
        if len(asked) > 1:
            raise RuntimeError("the window is closed")
        return PIN

    with serving(token, pki, pins.callback(ask)) as server:
        context = context_of(pki)
        token.disconnect()
        assert storm(server, context, 20) == {"TLSV1_ALERT_INTERNAL_ERROR"}
        assert connect(server, context, ELSEWHERE) == ""
        assert len(asked) == 2
        assert token.status().pin_attempts == 1


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("personality", [{}, {"max_sessions": 1}, KEYPAD], ids=["typed", "one session", "keypad"])
def test_key_that_wants_its_pin_each_time_is_served(
    simulated_tokens: Start, pki: PKI, version: str, personality: dict[str, Any]
) -> None:
    """Each of several handshakes at once asks, and logs in for itself, once."""
    described, keypad = hsm(pki, "hsm", **personality), personality is KEYPAD
    described["key"][0]["always_authenticate"] = True
    token = simulated_tokens([described])["hsm"]
    person = Person("" if keypad else PIN)
    with serving(token, pki, person) as server:
        assert storm(server, context_of(pki, version), 8) == {""}
    assert [(each.context_specific, each.key, each.protected) for each in person.requests[1:]] == [(True, "www", keypad)] * 8
    status = token.status()
    assert (status.calls["C_Sign"], status.calls["C_Login"], status.pin_attempts) == (8, 9, 9)


def test_no_pin_in_log_audit_or_journal(
    simulated_tokens: Start, pki: PKI, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    token = simulated_tokens([hsm(pki, "hsm")])["hsm"]
    token.simulator.write_calls(tmp_path / "calls")
    wrong = "9876-hsm"
    audit = AuditLog(tmp_path / "audit")
    with serving(token, pki, Person(PIN, wrong, None), observers=[audit]) as server:
        token.disconnect()
        assert connect(server, context_of(pki)) == "TLSV1_ALERT_INTERNAL_ERROR"
        [error] = errors_of(server, 1)
        shown = f"{error} {error!r} {vars(error)} {server.ended[0]!r} {server.ended[0].engine!r}"
    audit.close()
    shown += caplog.text + (tmp_path / "audit").read_text() + (tmp_path / "calls").read_text()
    assert "C_Login" in shown
    assert PIN not in shown
    assert wrong not in shown
