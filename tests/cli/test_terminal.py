"""On a terminal: colour, questions, PINs that are typed and not shown."""

from __future__ import annotations

import re

from tests.support.softhsm import PIN, SO_PIN

from .conftest import Command

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_colour_and_wrapping(web: Command) -> None:
    shown = web.on_terminal("slots", "--token", "web")
    assert COLOUR.search(shown)
    mechanisms = [line for line in COLOUR.sub("", shown).splitlines() if "_HMAC" in line]
    assert all(len(line) <= 80 for line in mechanisms)
    assert len(mechanisms) > 1


def test_no_color(web: Command) -> None:
    web.environment["NO_COLOR"] = "1"
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", web.on_terminal("slots", "--token", "web"))


def test_init_asks_for_new_pins_twice(command: Command) -> None:
    answers = [
        ("security officer's PIN:", SO_PIN),
        ("Repeat for confirmation:", SO_PIN),
        ("user PIN:", PIN),
        ("Repeat for confirmation:", PIN),
    ]
    shown = command.on_terminal("token", "init", "--label", "web", answers=answers)
    assert "token 'web' is ready" in COLOUR.sub("", shown)
    assert PIN not in shown
    assert SO_PIN not in shown
    assert command.json("key", "list", "--token", "web", "--pin", "env:PIN") == []


def test_a_key_command_asks_for_the_pin_once(web: Command) -> None:
    shown = web.on_terminal("key", "generate", "--token", "web", "--label", "www", answers=[('PIN of token "web":', PIN)])
    assert "pkcs11:token=web" in shown
    assert PIN not in shown
    (key,) = web.json("key", "list", "--token", "web", "--pin", "env:PIN")
    shown = web.on_terminal("key", "delete", key["uri"], answers=[('PIN of token "web":', PIN), ("[y/N]:", "n")], status=1)
    assert "not confirmed, nothing done" in COLOUR.sub("", shown)
    web.on_terminal("key", "delete", key["uri"], answers=[('PIN of token "web":', PIN), ("[y/N]:", "y")])
    assert web.json("key", "list", "--token", "web", "--pin", "env:PIN") == []


def test_a_person_may_correct_a_pin_or_give_up(web: Command) -> None:
    listing = ("key", "list", "--token", "web", "--pin", "prompt")
    web.on_terminal(*listing, answers=[('PIN of token "web":', "9999"), ("the last PIN was wrong", PIN)])
    shown = web.on_terminal(*listing, answers=[('PIN of token "web":', "9999"), ("the last PIN was wrong", "")], status=4)
    assert "SEC_ERROR_USER_CANCELLED" in shown
    assert "9999" not in shown
