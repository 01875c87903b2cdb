"""`nss-pk11 slots --watch`, as a process that others read and end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import Command
from tests.support.peers.base import Process

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

COMMAND = (sys.executable, "-m", "nss_pk11", "slots", "--watch")
Watch = Callable[..., Process]


def card(label: str, **more: Any) -> dict[str, Any]:
    return {"personality": "smart card", "name": label[:1], "label": label, "serial": f"{label[:1]}-1", "pin": "123456", **more}


@pytest.fixture
def simulator(simulated_tokens: Callable[..., RunningSimulator]) -> RunningSimulator:
    return simulated_tokens({"reader": [{"name": "left", "token": card("a")}, {"name": "right"}], "drawer": [card("b")]})


@pytest.fixture
def watch(simulator: RunningSimulator) -> Iterator[Watch]:
    """Starts the command; each is ended with the test."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process((*COMMAND, "--module", simulator.module, *arguments)))
        return started[-1]

    yield start
    for process in started:
        process.stop()


def events(process: Process) -> list[dict[str, Any]]:
    """The lines so far: JSON every one of them."""
    return [json.loads(line) for line in process.output.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_each_event_is_a_line_of_json_and_a_signal_ends_well(simulator: RunningSimulator, watch: Watch, number: int) -> None:
    process = watch("--json")
    process.wait_for('"present"')
    simulator.swap("left", "b")
    process.wait_for('"inserted"')
    simulator["b"].remove()
    process.wait_for('"removed".*"b"')
    process.signal(number)
    assert process.wait() == 0
    shown = events(process)
    assert [(event["event"], event["token"]["label"], event["slot"]["description"]) for event in shown] == [
        ("present", "a", "left"),
        ("removed", "a", "left"),
        ("inserted", "b", "left"),
        ("removed", "b", "left"),
    ]
    assert shown[0]["token"] == {"label": "a", "serial": "a-1", "manufacturer": "nss-pk11", "model": "PIV card"}
    assert {event["module"] for event in shown} == {simulator.module}
    assert [event["time"] for event in shown] == sorted(event["time"] for event in shown)


def test_text_has_a_line_for_each_event(simulator: RunningSimulator, watch: Watch) -> None:
    process = watch()
    process.wait_for(r"^\d\d:\d\d:\d\d +present +a · serial a-1 · slot 1 · left · \S+$")
    simulator["a"].remove()
    process.wait_for(r"^\d\d:\d\d:\d\d +removed +a · serial a-1")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert process.output.count("\n") == 2
    assert "\x1b" not in process.output


def test_only_the_token_that_is_named(simulator: RunningSimulator, watch: Watch) -> None:
    process = watch("--json", "--token", "pkcs11:serial=b-1")
    other = watch("--json", "--token", "a")
    other.wait_for('"present"')
    until_watching(simulator, 2)
    simulator.swap("left", "b")
    process.wait_for('"inserted"')
    other.wait_for('"removed"')
    for each in (process, other):
        each.signal(signal.SIGTERM)
        assert each.wait() == 0
    assert [event["event"] for event in events(process)] == ["inserted"]
    assert [event["event"] for event in events(other)] == ["present", "removed"]


def until_watching(simulator: RunningSimulator, processes: int) -> None:
    """Wait until so many hosts have asked for events."""
    deadline = time.monotonic() + 20
    while len({call["host"] for call in simulator.calls() if call["function"] == "C_WaitForSlotEvent"}) < processes:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_name_on_a_card_neither_forges_a_line_nor_paints_the_terminal(
    simulated_tokens: Callable[..., RunningSimulator],
) -> None:
    simulator = simulated_tokens([card("x\n23:59:59 removed \x1b[31m")])
    master, slave = os.openpty()
    command = [*COMMAND, "--module", simulator.module]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm-256color"})
    os.close(slave)
    try:
        shown = read_until(master, "present")
        simulator["x"].remove()
        shown += read_until(master, "removed   x")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert shown.count("\n") == 2, shown
    assert shown.count("\x1b[31m") == 1, "the colour of what went is ours, that in the name is not there"
    assert "x\ufffd23:59:59 removed \ufffd[31m" in shown


def read_until(terminal: int, wanted: str) -> str:
    """What a terminal shows up to the end of the line with `wanted`."""
    shown = ""
    while wanted not in shown or "\n" not in shown[shown.index(wanted) :]:
        assert select.select([terminal], [], [], 20)[0], f"nothing more than {shown!r}"
        shown += os.read(terminal, 65536).decode()
    return shown


def test_watching_logs_in_to_nothing(command: Command) -> None:
    assert "--pin" in command.fails(2, "slots", "--watch", "--pin", "env:PIN")


def test_a_module_that_does_not_load_ends_it(command: Command) -> None:
    assert "no PKCS #11 module" in command.fails(4, "slots", "--watch", "--module", "/nowhere.so")
