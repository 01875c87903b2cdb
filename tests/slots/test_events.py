"""Hot plug, on simulated readers whose modules report changes, cannot, or say nothing."""

from __future__ import annotations

import gc
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.errors import ConfigurationError
from nss_pk11.slots import SlotEvent, SlotManager, Watcher
from tests.support.softhsm import SoftHSM

from .test_fork import in_child

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

SECONDS = 2.0  # in which an event has to come
PATIENCE = 20.0  # seconds: bounds what hangs
REPORTS = ("yes", "unsupported", "silent")
Simulate = Callable[..., "RunningSimulator"]


def card(label: str, slot_events: str = "yes", **more: Any) -> dict[str, Any]:
    return {
        "personality": "smart card",
        "label": label,
        "serial": f"{label}-1",
        "pin": "123456",
        "slot_events": slot_events,
        **more,
    }


def readers(slot_events: str = "yes") -> dict[str, Any]:
    """A card "a" in the left reader, nothing in the right one, a card "b" in the drawer."""
    return {
        "reader": [{"name": "left", "token": card("a", slot_events)}, {"name": "right"}],
        "drawer": [card("b", slot_events)],
    }


class Seen:
    """A callback that keeps what it is told."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.events: list[SlotEvent] = []
        self.threads: set[int] = set()

    def __call__(self, event: SlotEvent) -> None:
        with self._changed:
            self.events.append(event)
            self.threads.add(threading.get_ident())
            self._changed.notify_all()

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(event.kind, event.token.label, event.slot.description) for event in self.events]

    def wait_for(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, seconds), self.told

    def expect(self, *told: tuple[str, str, str]) -> float:
        """Exactly these events come, in this order; they are forgotten then.  Returns after how many seconds."""
        begun = time.monotonic()
        self.wait_for(lambda: len(self.events) >= len(told))
        assert self.told == list(told)
        self.events.clear()
        return time.monotonic() - begun


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def manager() -> Iterator[SlotManager]:
    with SlotManager() as manager:
        yield manager
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("slot watcher")] == []


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- what comes and goes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot_events", REPORTS)
def test_insertion_removal_and_swap_are_told_within_two_seconds(
    simulated_tokens: Simulate, manager: SlotManager, seen: Seen, slot_events: str
) -> None:
    simulator = simulated_tokens(readers(slot_events))
    manager.load(simulator.module)
    with manager.watch(seen):
        took = [seen.expect(("present", "a", "left"))]
        simulator.swap("left", "b")
        took.append(seen.expect(("removed", "a", "left"), ("inserted", "b", "left")))
        simulator["b"].remove()
        took.append(seen.expect(("removed", "b", "left")))
        simulator["a"].insert("right")
        took.append(seen.expect(("inserted", "a", "right")))
        simulator["a"].remove()
        simulator["a"].insert("left")
        took.append(seen.expect(("removed", "a", "right"), ("inserted", "a", "left")))
    assert sorted(took)[-2] < SECONDS, took  # once the machine itself may have stalled
    assert len(seen.threads) == 1


@pytest.mark.parametrize("slot_events", REPORTS)
def test_many_quick_changes_end_in_what_is_there(
    simulated_tokens: Simulate, manager: SlotManager, seen: Seen, slot_events: str
) -> None:
    simulator = simulated_tokens(readers(slot_events))
    manager.load(simulator.module)
    dice = random.Random(7)
    with manager.watch(seen, interval=0.1):
        for _ in range(150):
            reader = dice.choice(simulator.readers())
            inside = {each["token"] for each in simulator.readers()}
            free = [name for name in ("a", "b") if name not in inside]
            if reader["token"] and (not free or dice.random() < 0.5):
                simulator[reader["token"]].remove()
            elif free:
                simulator.swap(reader["name"], dice.choice(free))
        final = {each["name"]: each["token"] for each in simulator.readers() if each["token"]}
        seen.wait_for(lambda: replay(seen.events) == final)
        count = len(seen.events)
        simulator.forget_calls()
        until(lambda: len(simulator.calls()) > 40)  # several looks later still nothing has changed
        assert len(seen.events) == count
    assert count > 2


def replay(events: list[SlotEvent]) -> dict[str, str]:
    """The label in each reader, by the events; nothing goes that was not there, nothing comes where something is."""
    state: dict[str, str] = {}
    for event in list(events):
        if event.kind == "removed":
            assert state.pop(event.slot.description) == event.token.label
        else:
            assert event.slot.description not in state
            state[event.slot.description] = event.token.label
    return state


def test_a_token_with_a_new_label_is_another(softhsm: SoftHSM, manager: SlotManager, seen: Seen) -> None:
    manager.load(softhsm.module_path)
    with manager.watch(seen, interval=0.1):
        blank = next(token for token in manager.tokens() if token.info.module and not token.info.label)
        made = blank.initialise("hot plug", "87654321", "1234")
        seen.wait_for(lambda: ("inserted", made.info) in [(event.kind, event.token) for event in seen.events])


def test_modules_loaded_later_are_watched_too(simulated_tokens: Simulate, manager: SlotManager, seen: Seen) -> None:
    with manager.watch(seen, interval=0.1):
        simulator = simulated_tokens(readers())
        manager.load(simulator.module)
        seen.expect(("present", "a", "left"))
        simulator["a"].remove()
        seen.expect(("removed", "a", "left"))


def test_mechanisms_follow_before_the_callback_runs(simulated_tokens: Simulate, manager: SlotManager, seen: Seen) -> None:
    simulator = simulated_tokens(readers())
    manager.load(simulator.module)
    name = "CKM_EC_KEY_PAIR_GEN"  # the internal token offers none
    offered: list[tuple[str, bool]] = []

    def note(event: SlotEvent) -> None:
        offered.append((event.kind, name in manager.mechanisms()))
        seen(event)

    assert name in manager.mechanisms()
    with manager.watch(note, interval=0.1):
        seen.expect(("present", "a", "left"))
        simulator["a"].remove()
        seen.expect(("removed", "a", "left"))
        simulator["b"].insert("right")
        seen.expect(("inserted", "b", "right"))
    assert offered == [("present", True), ("removed", False), ("inserted", True)]
    simulator.forget_calls()
    assert name in manager.mechanisms()
    assert simulator.calls() == [], "what was seen is remembered"


# --- leaving cards and other modules in peace ------------------------------------------------------------------------


def test_a_card_is_left_in_peace_once_its_module_reports(simulated_tokens: Simulate, manager: SlotManager, seen: Seen) -> None:
    simulator = simulated_tokens(readers())
    manager.load(simulator.module)
    with manager.watch(seen, interval=0.05):
        seen.expect(("present", "a", "left"))
        simulator.swap("left", "b")
        seen.expect(("removed", "a", "left"), ("inserted", "b", "left"))
        simulator.forget_calls()
        until(lambda: len(simulator.calls()) > 250)
    functions = [call["function"] for call in simulator.calls()]
    assert set(functions) <= {"C_GetSlotList", "C_WaitForSlotEvent", "C_GetTokenInfo"}
    looks = functions.count("C_GetSlotList") // 4
    assert 0 < functions.count("C_GetTokenInfo") <= looks // 10 + 1


def test_a_module_without_events_is_asked_for_them_once(simulated_tokens: Simulate, manager: SlotManager, seen: Seen) -> None:
    simulator = simulated_tokens(readers("unsupported"))
    manager.load(simulator.module)
    with manager.watch(seen, interval=0.05):
        until(lambda: len(simulator.calls()) > 60)
    assert [call["function"] for call in simulator.calls()].count("C_WaitForSlotEvent") == 1


def test_a_module_that_dies_stops_no_other(
    simulated_tokens: Simulate, manager: SlotManager, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    dead, alive = simulated_tokens([card("dead")]), simulated_tokens(readers())
    manager.load(dead.module)
    manager.load(alive.module)
    with manager.watch(seen, interval=0.05), caplog.at_level(logging.WARNING):
        seen.wait_for(lambda: len(seen.events) == 2)
        dead.kill()
        until(lambda: "watching" in caplog.text)
        seen.events.clear()
        alive["a"].remove()
        seen.expect(("removed", "a", "left"))
        alive.forget_calls()
        until(lambda: len(alive.calls()) > 40)
    assert len([record for record in caplog.records if dead.module in record.message]) == 1, "said once, not at every look"


def test_a_module_that_hangs_stops_no_other(simulated_tokens: Simulate, manager: SlotManager, seen: Seen) -> None:
    slow, quick = simulated_tokens([card("slow", "silent")]), simulated_tokens(readers())
    manager.load(slow.module)
    manager.load(quick.module)
    with manager.watch(seen, interval=0.1):
        seen.wait_for(lambda: len(seen.events) == 2)
        seen.events.clear()
        slow["slow"].slow(60, "C_GetTokenInfo")
        until(lambda: hangs(slow))
        quick["a"].remove()
        seen.expect(("removed", "a", "left"))
        assert slow.calls() == [], "it hangs all the while"
        slow["slow"].slow(0, "C_GetTokenInfo")
        slow["slow"].disconnect()  # which ends the wait


def hangs(simulator: RunningSimulator) -> bool:
    """Whether nothing is called, or comes back, for ten times as long as a look takes to come."""
    simulator.forget_calls()
    time.sleep(1.0)
    return simulator.calls() == []


def test_a_module_that_others_finalise_is_begun_anew(
    simulated_tokens: Simulate, manager: SlotManager, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulated_tokens(readers())
    module = manager.load(simulator.module)
    with manager.watch(seen, interval=0.1), caplog.at_level(logging.WARNING):
        seen.expect(("present", "a", "left"))
        module.library.functions.C_Finalize(None)  # type: ignore[attr-defined]
        until(lambda: "CKR_CRYPTOKI_NOT_INITIALIZED" in caplog.text)
        simulator["a"].remove()
        seen.expect(("removed", "a", "left"))


# --- callbacks, the end, forks ---------------------------------------------------------------------------------------


def test_a_callback_that_raises_is_logged_and_called_again(
    simulated_tokens: Simulate, manager: SlotManager, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = simulated_tokens(readers())
    manager.load(simulator.module)

    def fail(event: SlotEvent) -> None:
        seen(event)
        raise RuntimeError("not today")

    with manager.watch(fail):
        seen.expect(("present", "a", "left"))
        simulator["a"].remove()
        seen.expect(("removed", "a", "left"))
    assert caplog.text.count("RuntimeError: not today") == 2


def test_no_callback_after_close(simulated_tokens: Simulate, manager: SlotManager, seen: Seen) -> None:
    simulator = simulated_tokens(readers())
    manager.load(simulator.module)
    watcher = manager.watch(seen, interval=0.05)
    seen.expect(("present", "a", "left"))
    assert not watcher.closed
    watcher.close()
    watcher.close()
    assert watcher.closed
    simulator.forget_calls()
    simulator["a"].remove()
    assert [token.info.label for token in manager.tokens() if token.info.module] == []
    assert "C_WaitForSlotEvent" not in {call["function"] for call in simulator.calls()}
    assert seen.events == []


def test_a_callback_may_close(simulated_tokens: Simulate, manager: SlotManager, seen: Seen) -> None:
    manager.load(simulated_tokens([card("a"), card("b")]).module)
    watchers: list[Watcher] = []
    made = threading.Event()

    def close(event: SlotEvent) -> None:
        assert made.wait(10)
        watchers[0].close()
        seen(event)

    watchers.append(manager.watch(close))
    made.set()
    seen.wait_for(lambda: watchers[0].closed and len(seen.events) == 1)
    watchers[0].close()
    assert len(seen.events) == 1


def test_closing_the_manager_closes_its_watchers(simulated_tokens: Simulate, seen: Seen) -> None:
    before = set(threading.enumerate())
    with SlotManager() as manager:
        manager.load(simulated_tokens(readers()).module)
        watcher = manager.watch(seen)
        assert len(set(threading.enumerate()) - before) == 2
    assert watcher.closed
    assert set(threading.enumerate()) <= before


def test_watchers_that_were_closed_are_forgotten(manager: SlotManager, seen: Seen) -> None:
    for _ in range(20):
        manager.watch(seen).close()
    gc.collect()
    assert len(manager._watchers) == 0


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_an_interval_is_positive(manager: SlotManager, interval: float) -> None:
    with pytest.raises(ConfigurationError):
        manager.watch(print, interval)


def test_a_forked_child_is_told_nothing_and_may_watch_anew(simulated_tokens: Simulate, manager: SlotManager, seen: Seen) -> None:
    simulator = simulated_tokens(readers())
    manager.load(simulator.module)
    with manager.watch(seen, interval=0.05) as watcher:
        seen.expect(("present", "a", "left"))

        def work() -> None:
            assert watcher.closed
            assert threading.active_count() == 1
            watcher.close()
            own = Seen()
            with manager.watch(own, interval=0.05):
                own.expect(("present", "a", "left"))
            assert seen.events == []
            manager.close()

        for _ in range(5):
            assert in_child(work) == 0
        assert not watcher.closed
        simulator["a"].remove()
        seen.expect(("removed", "a", "left"))
