"""Every place a PIN can come from."""

from __future__ import annotations

import os
import pty
import select
import sys
from pathlib import Path

import pytest

from nss_pk11 import pins
from nss_pk11.errors import ConfigurationError, PinCancelled

REQUEST = pins.PinRequest(token="web", serial="17")


def test_callback_gets_slot_retry_and_argument() -> None:
    got = []

    def ask(slot: pins.PinRequest, retry: bool, argument: str | None) -> str | None:
        got.append((slot, retry, argument))
        return None if retry else "4711"

    source = pins.callback(ask, "window")
    assert source(REQUEST) == "4711"
    again = pins.PinRequest(token="web", retry=True)
    assert source(again) is None
    assert got == [(REQUEST, False, "window"), (again, True, "window")]
    assert (source.person, source.static) == (False, False)
    assert pins.callback(ask, person=True).person


def test_a_password_file_of_nss(tmp_path: Path) -> None:
    path = tmp_path / "pwfile"
    path.write_bytes(b"NSS Certificate DB:one\r\nweb:t:wo\n")
    source = pins.parse(f"@{path}")
    assert source(REQUEST) == "t:wo"
    assert source(pins.PinRequest(token="NSS Certificate DB")) == "one"
    assert (source.static, source.person) == (False, False)


def test_a_password_alone_is_for_the_first_token_that_asks(tmp_path: Path) -> None:
    path = tmp_path / "pwfile"
    path.write_text("secret\n")
    source = pins.password_file(path)
    assert [source(REQUEST), source(REQUEST)] == ["secret", "secret"]
    with pytest.raises(ConfigurationError) as caught:
        source(pins.PinRequest(token="card"))
    assert "secret" not in str(caught.value)
    path.write_text("")
    assert source(REQUEST) == ""
    path.write_bytes(b"\xff\n")
    with pytest.raises(ConfigurationError):
        source(REQUEST)
    path.unlink()
    with pytest.raises(ConfigurationError):
        source(REQUEST)


def test_value() -> None:
    source = pins.value("sesame")
    assert (source(REQUEST), source.static, source.person) == ("sesame", True, False)
    assert "sesame" not in repr(source)


def test_file_is_read_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    source = pins.file(path)
    with pytest.raises(ConfigurationError, match="No such file"):
        source(REQUEST)
    for content, pin in ((b"4711", "4711"), (b"4711\n", "4711"), (b"4711\r\nx\n", "4711"), ("grün \n".encode(), "grün ")):
        path.write_bytes(content)
        assert source(REQUEST) == pin
    for content in (b"", b"\n4711", b"\xff\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="pin"):
            source(REQUEST)
    assert (source.person, source.static) == (False, True)


def test_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    source = pins.environment("NSS_PK11_TEST_PIN")
    monkeypatch.delenv("NSS_PK11_TEST_PIN", raising=False)
    with pytest.raises(ConfigurationError, match="NSS_PK11_TEST_PIN"):
        source(REQUEST)
    monkeypatch.setenv("NSS_PK11_TEST_PIN", "sesame")
    assert source(REQUEST) == "sesame"
    assert "sesame" not in repr(source)
    assert source.static


def test_command_is_told_the_token_and_its_words_are_not_shown() -> None:
    assert pins.command('echo "$NSS_PK11_TOKEN-$NSS_PK11_SERIAL"; echo more')(REQUEST) == "web-17"
    for line in ("echo sesame; exit 3", "true", "printf '\\377'"):
        with pytest.raises(ConfigurationError) as caught:
            pins.command(line)(REQUEST)
        assert "sesame" not in str(caught.value)
    assert "sesame" not in repr(pins.command("echo sesame"))


def test_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_PIN", "e")
    (tmp_path / "pin").write_text("f")
    for text, pin in (
        ("env:A_PIN", "e"),
        (f"file:{tmp_path}/pin", "f"),
        ("cmd:echo c:d", "c:d"),
        ("pass:p:q", "p:q"),
        ("pass:", ""),
    ):
        assert pins.parse(text)(REQUEST) == pin
    assert pins.parse("prompt").person
    for text in ("", "sesame", "env:", "file:", "cmd:", "environment:X"):
        with pytest.raises(ConfigurationError) as caught:
            pins.parse(text)
        assert "sesame" not in str(caught.value)


def test_words_of_a_request() -> None:
    assert REQUEST.prompt == 'PIN of token "web"'
    assert "LAST TRY" in pins.PinRequest("web", final_try=True, count_low=True).prompt
    assert "tried before" in pins.PinRequest("web", count_low=True).prompt
    assert "the last PIN was wrong" in pins.PinRequest("web", retry=True).prompt
    assert 'its key "www" once' in pins.PinRequest("web", context_specific=True, key="www").prompt


def ask_on_terminal(request: pins.PinRequest, typed: bytes) -> tuple[str, str]:
    """What `pins.terminal()` answers, and what the terminal shows, in a child whose terminal we hold."""
    pid, master = pty.fork()
    if pid == 0:
        status = 1
        try:
            answer = pins.terminal()(request)
            os.write(1, f"<{answer!r}>".encode())
            status = 0
        finally:
            os._exit(status)
    shown = b""
    try:
        os.set_blocking(master, False)
        sent = False
        while not shown.endswith(b">"):
            assert select.select([master], [], [], 20)[0], shown
            try:
                shown += os.read(master, 1000)
            except BlockingIOError:
                continue
            if not sent and (shown.endswith(b": ")):
                os.write(master, typed)
                sent = True
    finally:
        os.waitpid(pid, 0)
        os.close(master)
    text = shown.decode()
    return text.rpartition("<")[2].rstrip(">"), text


@pytest.mark.parametrize(("typed", "answer"), [(b"4711\n", "'4711'"), (b"\n", "None"), (b"\x04", "None")])
def test_terminal(typed: bytes, answer: str) -> None:
    got, shown = ask_on_terminal(pins.PinRequest(token="web", retry=True), typed)
    assert got == answer
    assert 'PIN of token "web" (the last PIN was wrong): ' in shown
    assert "4711" not in shown.partition("<")[0]


def test_terminal_of_a_keypad_only_tells() -> None:
    got, shown = ask_on_terminal(pins.PinRequest(token="web", protected=True), b"")
    assert got == "''"
    assert "on its keypad" in shown


def test_no_terminal() -> None:
    """In a session of its own a process has none; standard input is not read in its place."""
    import subprocess

    script = (
        "from nss_pk11 import pins\ntry: pins.terminal()(pins.PinRequest('web'))\nexcept Exception as e: print(type(e).__name__)"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(
        command, input="4711\n", capture_output=True, text=True, start_new_session=True, timeout=60, check=False
    )
    assert done.stdout.strip() == PinCancelled.__name__, done.stderr
