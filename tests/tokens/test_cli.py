"""`pk11-tokens` as a process: what it prints, its exit codes, and what is left when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pk11_tokens import PERSONALITIES, Simulator
from pk11_tokens.cli import EXIT_CODES, main

from ..support.peers.base import Process
from .conftest import Host, Signing, refused

PAGE = (Path(__file__).parents[2] / "docs/tokens.md").read_text("utf-8")
COMMAND = (sys.executable, "-m", "pk11_tokens")
DESCRIPTION = """
[[reader]]
name = "Left reader"
[reader.token]
label = "card"
[[reader.token.key]]
label = "www"
kind = "p256"
[[drawer]]
label = "other card"
"""


@pytest.fixture
def served(temporary_directory: str, tmp_path: Path) -> Iterator[Process]:
    """`pk11-tokens serve`, the only one that the other commands see."""
    description = tmp_path / "card.toml"
    description.write_text(DESCRIPTION)
    with Process([*COMMAND, "serve", description]) as server:
        server.wait_for(r"^/\S+/card\.so$")
        yield server


@pytest.fixture
def simulator(served: Process) -> Simulator:
    return Simulator(Path(served.output.strip()).parent)


def run(*arguments: str, status: int = 0) -> str:
    """What a command prints; where it fails, what it says of it."""
    done = subprocess.run(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if status:
        assert done.stdout == ""
        return done.stderr
    assert done.stderr == ""
    return done.stdout


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


# --- serve ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_with_a_signal_and_leaves_nothing(served: Process, temporary_directory: str, number: int) -> None:
    assert os.path.exists(served.output.strip())
    served.signal(number)
    assert served.wait() == 0
    assert served.output.count("\n") == 1
    assert os.listdir(temporary_directory) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_leaves_nothing_either(temporary_directory: str, tmp_path: Path, number: int) -> None:
    """As a terminal sends it, and timeout(1): to the token server too."""
    description = tmp_path / "card.toml"
    description.write_text(DESCRIPTION)
    server = subprocess.Popen([*COMMAND, "serve", description], stdout=subprocess.PIPE, text=True, start_new_session=True)
    with server:
        assert server.stdout
        assert server.stdout.readline().endswith("card.so\n")
        os.killpg(server.pid, number)
        assert server.wait(20) == 0


def test_serve_in_a_directory_of_ones_choice(temporary_directory: str, tmp_path: Path) -> None:
    description, place = tmp_path / "card.toml", Path(temporary_directory) / "here"
    description.write_text(DESCRIPTION)
    calls = tmp_path / "calls.jsonl"
    with Process([*COMMAND, "serve", description, "--directory", place, "--calls", calls]) as server:
        server.wait_for(f"^{place}/card.so$")
        host = Host(Simulator(place))
        host.log_in()
        assert "card" in run("status", "--directory", str(place))
        assert "new directory" in run("serve", str(description), "--directory", str(place), status=1)
        assert place.exists()
    assert not place.exists()
    assert json.loads(calls.read_text().splitlines()[-1])["function"] == "C_Login"


def test_serve_says_what_is_wrong_with_the_description(temporary_directory: str, tmp_path: Path) -> None:
    description = tmp_path / "card.toml"
    description.write_text("[[reader]]\nnmae = 'x'")
    assert run("serve", str(description), status=3) == (
        f'pk11-tokens: {description}: reader[1].nmae: there is no "nmae"; did you mean "name"?\n'
    )
    assert "No such file" in run("serve", str(tmp_path / "none.toml"), status=3)


# --- hands and misfortunes -----------------------------------------------------------------------------------------------


def test_tokens_go_and_come(simulator: Simulator) -> None:
    assert run("remove", "card") == ""
    assert simulator.readers()[0]["token"] is None
    assert run("remove", "card", status=1) == 'pk11-tokens: token "card" is in no reader\n'
    run("insert", "card", "--reader", "left")
    run("swap", "left", "other card")
    assert simulator.readers()[0]["token"] == "other card"


def test_pins_lock_and_unlock(simulator: Simulator) -> None:
    run("lock", "other card")
    assert simulator["other card"].status().locked
    run("unlock", "other card")
    assert not simulator["other card"].status().locked


def test_misfortunes(simulator: Simulator) -> None:
    host = Host(simulator)
    sign = Signing(host, host.log_in())
    run("fail", "card", "C_Sign", "CKR_DEVICE_ERROR", "--times", "2")
    for _ in range(2):
        with refused("CKR_DEVICE_ERROR"):
            sign()
    sign()
    run("random-failures", "card", "1", "--seed", "3", "--result", "CKR_FUNCTION_FAILED")
    with refused("CKR_FUNCTION_FAILED"):
        sign()
    run("clear", "card")
    sign()
    run("wrong-signatures", "card", "1", "--seed", "3")
    sign()
    assert simulator["card"].status().wrong_signatures == 1
    run("slow", "card", "0.1", "--function", "C_Sign")
    sign()
    assert simulator.calls()[-1]["ms"] >= 100
    run("fail", "card", "C_Sign", "CKR_DEVICE_ERROR", "--after", "--disconnect")
    with refused("CKR_DEVICE_ERROR"):
        sign()
    assert simulator["card"].status().sessions == 0
    host.log_in()
    run("disconnect", "card")
    assert not simulator["card"].status().logged_in
    run("person", "card", "--delay", "0.1", "--mistakes", "1")
    run("person", "card", "--cancel")


# --- questions -----------------------------------------------------------------------------------------------------------


def test_status_for_people_and_for_programs(simulator: Simulator) -> None:
    Host(simulator).log_in()
    text = run("status")
    assert "slot 1  Left reader: card\n" in text
    assert "1 session, logged in, never locks, 1 PIN given" in text
    assert "\x1b" not in text
    whole = run_json("status")
    assert whole["module"] == simulator.module
    assert [token["name"] for token in whole["tokens"]] == ["card", "other card"]
    assert run_json("status", "card") == simulator.ask("status", token="card")
    assert 'there is no token "ghost"' in run("status", "ghost", status=1)


def test_calls_for_people_and_for_programs(simulator: Simulator) -> None:
    host = Host(simulator)
    Signing(host, host.log_in())()
    line = run("calls", "--token", "card", "--last", "1")
    assert "C_Sign " in line
    assert "CKR_OK" in line
    found = [json.loads(each) for each in run("calls", "--json").splitlines()]
    assert found == simulator.calls()
    assert {call.get("token") for call in found} == {None, "card"}


def test_calls_are_followed(simulator: Simulator) -> None:
    host = Host(simulator)
    with Process([*COMMAND, "calls", "--follow", "--json"]) as following:
        following.wait_for('"C_Initialize"')
        host.log_in()
        following.wait_for('"C_Login"')
        following.signal(signal.SIGINT)
        assert following.wait() == 0
        numbers = [json.loads(line)["number"] for line in following.output.splitlines()]
    assert numbers == sorted(set(numbers))


def test_personalities() -> None:
    assert set(run_json("personalities")) == set(PERSONALITIES)
    assert all(name in run("personalities") for name in PERSONALITIES)


# --- which simulator -----------------------------------------------------------------------------------------------------


def test_without_a_simulator(temporary_directory: str) -> None:
    assert "no simulator runs here" in run("status", status=4)


def test_with_several_simulators(simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Process([*COMMAND, "serve", tmp_path / "card.toml"]) as second:
        second.wait_for(r"\.so$")
        said = run("status", status=4)
        assert "several simulators run" in said
        assert f"{simulator.directory}: card, other card" in said
        monkeypatch.setenv("PK11_TOKENS_DIRECTORY", str(simulator.directory))
        run("remove", "card")
        assert not simulator["card"].status().present


def test_a_directory_without_a_simulator(tmp_path: Path) -> None:
    assert "no simulated tokens here" in run("status", "--directory", str(tmp_path), status=4)


# --- documentation -------------------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, click.Command]]:
    return sorted(main.commands.items())


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_is_described_and_has_an_example(name: str, command: click.Command) -> None:
    assert f"`{name}" in PAGE or f"`pk11-tokens {name}" in PAGE
    assert f"pk11-tokens {name}" in textwrap.dedent(command.help or "")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert f"`{parameter.opts[0]}" in PAGE, parameter.opts[0]


def test_every_exit_code_is_listed() -> None:
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in PAGE


def test_every_personality_is_described() -> None:
    assert all(f"| `{name}` |" in PAGE for name in PERSONALITIES)


def test_wrong_usage_is_told() -> None:
    assert "Missing argument" in run("remove", status=2)
