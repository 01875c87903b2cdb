"""What runs the tokens: the journal that it keeps of calls, and how it begins and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pk11_tokens
import pytest
from pk11_tokens import RunningSimulator, TokenControl

from .conftest import CARD, Host, Signing, Start, refused, verify, wait_until
from .cryptoki import PIN

# --- the journal -----------------------------------------------------------------------------------------------------


def test_calls_are_noted_and_counted(simulator: RunningSimulator, card: TokenControl, sign: Signing) -> None:
    sign()
    card.fail("C_Sign", "CKR_DEVICE_ERROR")
    with refused("CKR_DEVICE_ERROR"):
        sign()
    calls = simulator.calls()
    assert [call["number"] for call in calls] == list(range(1, len(calls) + 1))
    begun = next(call for call in calls if call["function"] == "C_SignInit")
    assert begun["host"] == os.getpid()
    assert begun["token"] == "card"
    assert begun["session"] > 0
    assert begun["arguments"]["mechanism"] == "CKM_ECDSA"
    assert begun["result"] == "CKR_OK"
    assert calls[-1]["result"] == "CKR_DEVICE_ERROR"
    assert simulator.calls(since=calls[-1]["number"]) == []
    counted = sum(call["function"] == "C_Sign" and call.get("token") == "card" for call in calls)
    assert card.status().calls["C_Sign"] == counted > 0
    simulator.forget_calls()
    assert simulator.calls() == []
    assert card.status().calls == {}


def test_no_pin_is_in_the_journal(simulator: RunningSimulator, host: Host, tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    simulator.write_calls(file)
    host.log_in()
    host.module.C_Logout(host.module.open())
    with refused("CKR_PIN_INCORRECT"):
        host.log_in(b"654321")
    lines = file.read_text().splitlines()
    logins = [call for call in map(json.loads, lines) if call["function"] == "C_Login"]
    assert [login["result"] for login in logins] == ["CKR_OK", "CKR_PIN_INCORRECT"]
    assert logins[0]["arguments"] == {"user": "CKU_USER"}
    everything = "".join(lines) + json.dumps(simulator.calls())
    assert PIN.decode() not in everything
    assert "654321" not in everything


# --- the simulator itself ----------------------------------------------------------------------------------------------


def test_simulators_do_not_know_each_other(simulated_tokens: Start) -> None:
    first, second = simulated_tokens([CARD]), simulated_tokens([CARD])
    one, two = (Signing(host, host.log_in()) for host in (Host(first), Host(second)))
    first["card"].remove()
    with refused("CKR_DEVICE_REMOVED"):
        one()
    verify(second["card"], two())


def test_two_tokens_may_have_the_same_key(simulated_tokens: Start, tmp_path: Path) -> None:
    pem = tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", pem],
        check=True,
        capture_output=True,
    )
    key = {"label": "www", "file": pem, "self_signed": ["localhost"]}
    simulator = simulated_tokens([{"label": "one", "key": [key]}, {"label": "two", "serial": "0002", "key": [key]}])
    assert simulator["one"].public_key_der("www") == simulator["two"].public_key_der("www")
    assert simulator["one"].certificate_der("www")[:1] == b"\x30"


def test_the_uri_names_the_key_and_the_module(simulator: RunningSimulator, card: TokenControl) -> None:
    assert card.uri("www") == f"pkcs11:token=card;serial=0001;object=www;type=private?module-path={simulator.module}"


def test_a_dead_server_is_a_device_error(card: TokenControl, simulator: RunningSimulator, sign: Signing) -> None:
    simulator.kill()
    with refused("CKR_DEVICE_ERROR"):
        sign()
    with pytest.raises(RuntimeError, match="no simulator answers"):
        card.status()


def test_nothing_is_left_behind() -> None:
    with pk11_tokens.start([CARD]) as simulator:
        directory = simulator.directory
        assert directory.stat().st_mode & 0o077 == 0
    assert not directory.exists()
    assert not simulator.running
    simulator.stop()  # as often as one likes


def test_a_server_that_died_is_told() -> None:
    simulator = pk11_tokens.start([CARD])
    os.kill(simulator.pid, 9)
    simulator.wait()
    with pytest.raises(RuntimeError, match="ended by itself"):
        simulator.stop()
    assert not simulator.directory.exists()


def test_tokens_go_with_the_process_that_started_them(temporary_directory: str) -> None:
    """However it ends: SIGKILL here."""
    script = f"import os, pk11_tokens; s = pk11_tokens.start([{CARD!r}]); print(s.pid, flush=True); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert killed.returncode == -9, killed.stderr
    wait_until(lambda: not Path(f"/proc/{int(killed.stdout)}").exists())
    assert os.listdir(temporary_directory) == []


def test_a_forked_child_leaves_the_tokens_alone(simulator: RunningSimulator, card: TokenControl) -> None:
    child = os.fork()
    if not child:
        simulator.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert card.status().present
