"""`nss-pk11 token init` and `slots` on real SoftHSM tokens."""

from __future__ import annotations

import re

from tests.support.softhsm import PIN, SO_PIN

from .conftest import Command


def tokens(command: Command, *arguments: str) -> list[dict[str, object]]:
    modules = command.json("slots", *arguments)["modules"]
    return [slot["token"] for module in modules if module["path"] for slot in module["slots"] if slot["token"]]


def test_init_makes_a_token_with_its_label_and_pins(command: Command) -> None:
    done = command("token", "init", "--label", "web", "--so-pin", "env:SO_PIN", "--pin", "env:PIN")
    assert done.stdout == ""
    assert "token 'web' is ready" in done.stderr
    (web,) = [token for token in tokens(command) if token["label"] == "web"]
    assert web["initialised"]
    assert web["login_required"]
    assert web["pin"] == "ok"
    assert not web["pinpad"]
    assert not web["read_only"]


def test_init_takes_a_blank_token_and_leaves_those_in_use_alone(web: Command) -> None:
    web("token", "init", "--label", "second", "--so-pin", "env:SO_PIN", "--pin", "env:PIN")
    assert sorted(str(token["label"]) for token in tokens(web) if token["initialised"]) == ["second", "web"]


def slot_of(command: Command, label: str) -> str:
    (module,) = [module for module in command.json("slots")["modules"] if module["path"]]
    (slot,) = [slot for slot in module["slots"] if slot["token"] and slot["token"]["label"] == label]
    return str(slot["id"])


def test_erasing_a_token_needs_a_confirmation(web: Command) -> None:
    slot = slot_of(web, "web")
    erase = ("token", "init", "--slot", slot, "--label", "new", "--so-pin", "env:SO_PIN", "--pin", "env:PIN")
    assert "give --yes" in web.fails(2, *erase)
    assert "not confirmed, nothing done" in web.fails(1, *erase, stdin="n\n")
    assert [token["label"] for token in tokens(web) if token["initialised"]] == ["web"]
    web(*erase, "--yes")
    assert [token["label"] for token in tokens(web) if token["initialised"]] == ["new"]


def test_init_with_the_wrong_so_pin_leaves_the_token_as_it_was(web: Command) -> None:
    web.environment["SO_PIN"] = "00000000"
    slot = slot_of(web, "web")
    text = web.fails(4, "token", "init", "--slot", slot, "--label", "new", "--so-pin", "env:SO_PIN", "--pin", "env:PIN", "--yes")
    assert "CKR_PIN_INCORRECT" in text
    assert [token["label"] for token in tokens(web) if token["initialised"]] == ["web"]


def test_slot_by_id(command: Command) -> None:
    command("token", "init", "--slot", "0", "--label", "web", "--so-pin", "env:SO_PIN", "--pin", "env:PIN")
    assert [token["label"] for token in tokens(command) if token["initialised"]] == ["web"]


def test_bad_init(command: Command) -> None:
    init = ("token", "init", "--so-pin", "env:SO_PIN", "--pin", "env:PIN")
    assert "at most 32 bytes" in command.fails(3, *init, "--label", "é" * 17)
    assert "no token in slot 4711" in command.fails(4, *init, "--label", "web", "--slot", "4711")
    assert "no terminal to ask for the security officer's PIN" in command.fails(2, "token", "init", "--label", "web")
    assert "NO_SUCH_VARIABLE" in command.fails(3, "token", "init", "--label", "web", "--so-pin", "env:NO_SUCH_VARIABLE")
    assert not any(token["initialised"] for token in tokens(command))


def test_unknown_module(command: Command) -> None:
    text = command.fails(4, "slots", "--module", "/no/such/module.so")
    assert "/no/such/module.so" in text
    assert text.count("\n") == 1


def test_a_file_that_is_no_module(command: Command) -> None:
    text = command.fails(4, "slots", "--module", str(command.hsm.config))
    assert str(command.hsm.config) in text


def test_slots_as_text_is_plain_in_a_pipe(web: Command) -> None:
    done = web("slots")
    assert "\x1b" not in done.stdout
    assert web.hsm.module_path in done.stdout
    assert re.search(r"^ +token +web · SoftHSM v2", done.stdout, re.MULTILINE)
    assert "login required · PIN ok" in done.stdout
    assert re.search(r"^ +sign .*\bECDSA\b", done.stdout, re.MULTILINE)
    assert re.search(r"^ +generate .*\bRSA_PKCS_KEY_PAIR_GEN\b", done.stdout, re.MULTILINE)
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_mechanisms_are_grouped_by_use(web: Command) -> None:
    (token,) = tokens(web, "--token", "web")
    mechanisms = token["mechanisms"]
    assert isinstance(mechanisms, dict)
    assert list(mechanisms) == ["sign", "decrypt", "derive", "digest", "encrypt", "wrap", "generate"]
    assert {"CKM_ECDSA", "CKM_RSA_PKCS_PSS", "CKM_EDDSA"} <= set(mechanisms["sign"])
    assert "CKM_SHA256" in mechanisms["digest"]
    assert "CKM_SHA256" not in mechanisms["sign"]
    assert "CKM_EC_KEY_PAIR_GEN" in mechanisms["generate"]


def test_slots_logs_in_only_if_told_to(web: Command) -> None:
    web("key", "generate", "--token", "web", "--label", "www", "--pin", "env:PIN")
    (before,) = tokens(web, "--token", "web")
    assert (before["keys"], before["logged_in"]) == ([], False)
    assert "private keys may be hidden on web" in web("slots").stderr
    (after,) = tokens(web, "--token", "web", "--pin", "env:PIN")
    assert after["logged_in"]
    assert isinstance(after["keys"], list)
    assert [key["label"] for key in after["keys"]] == ["www"]


def test_one_pin_is_not_tried_on_several_tokens(web: Command) -> None:
    web("token", "init", "--label", "second", "--so-pin", "env:SO_PIN", "--pin", "env:PIN")
    assert "one PIN for several tokens" in web.fails(3, "slots", "--pin", "env:PIN")


def test_a_wrong_pin_is_sent_once(web: Command) -> None:
    web.environment["PIN"] = "9999"
    text = web.fails(4, "key", "list", "--token", "web", "--pin", "env:PIN")
    assert "SEC_ERROR_BAD_PASSWORD" in text
    assert "9999" not in text
    # SoftHSM counts: one mistake is "count low"; it would be "final try" or "locked" after more.
    (token,) = tokens(web, "--token", "web")
    assert token["pin"] == "count low"
    web.environment["PIN"] = PIN
    (token,) = tokens(web, "--token", "web", "--pin", "env:PIN")
    assert token["pin"] == "ok"


def test_pass_warns(web: Command) -> None:
    done = web("key", "list", "--token", "web", "--pin", f"pass:{PIN}")
    assert "everyone who can list processes" in done.stderr
    assert PIN not in done.stderr.replace(SO_PIN, "")


def test_pin_from_a_command_and_a_file(web: Command) -> None:
    file = web.hsm.directory / "pin"
    file.write_text(f"{PIN}\n")
    for source in (f"file:{file}", f"cmd:echo {PIN}"):
        assert web.json("key", "list", "--token", "web", "--pin", source) == []


def test_no_terminal_to_ask_on(web: Command) -> None:
    assert "no terminal" in web.fails(4, "key", "generate", "--token", "web", "--label", "www")
