"""The command's frame: quick help that tells the truth, and errors as one line with an exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from nss_pk11 import errors
from nss_pk11.cli import main, output
from nss_pk11.cli.main import SUBCOMMANDS
from nss_pk11.cli.output import EXIT_CODES, Failure


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands that do something, with their names."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from commands(child, (*path, name))


def test_help_imports_neither_tokens_nor_cryptography_nor_rich() -> None:
    script = (
        "import sys\nfrom nss_pk11.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'pkcs11', 'cryptography', 'rich', 'asn1crypto'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_help_without_import_is_the_help_with_it(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.get_short_help_str(200) == SUBCOMMANDS[name].help


def test_every_command_shows_an_example_of_itself() -> None:
    for path, command in commands(main):
        text = click.unstyle(command.get_help(click.Context(command)))
        assert f"nss-pk11 {' '.join(path)} " in text, path


def test_exit_codes_are_in_the_help() -> None:
    help_text = CliRunner().invoke(main, ["--help"]).stdout
    assert all(f"{code:<3}  {meaning}" in help_text for code, meaning in EXIT_CODES)


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout.startswith("nss-pk11, version ")


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["slots", "--no-such-option"], ["key", "generate", "--type", "rsa512"]]
)
def test_usage_errors_end_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error:" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.ConfigurationError("bad option"), 3, "bad option [SEC_ERROR_INVALID_ARGS -8187]"),
        (FileNotFoundError(2, "No such file or directory", "www.pem"), 3, "www.pem: No such file or directory"),
        (errors.NotFound("no token fits 'x'"), 4, "no token fits 'x'"),
        (errors.Ambiguous("two"), 4, "two"),
        (errors.PinIncorrect("wrong PIN"), 4, "wrong PIN [SEC_ERROR_BAD_PASSWORD -8177]"),
        (errors.TokenError("the card", ckr="CKR_DEVICE_ERROR"), 4, "result CKR_DEVICE_ERROR"),
        (errors.CertificateError("old", name="SEC_ERROR_EXPIRED_CERTIFICATE"), 5, "old [SEC_ERROR_EXPIRED_CERTIFICATE -8181]"),
        (errors.DecodeError("short"), 6, "short"),
        (errors.AlertReceived(40), 6, "handshake_failure"),
        (ConnectionRefusedError(111, "Connection refused"), 7, "Connection refused"),
        (errors.NSPRError("two\nlines"), 1, "two lines"),
    ],
)
def test_errors_become_one_line_and_a_code(error: Exception, code: int, text: str) -> None:
    failure = Failure.of(error)
    assert failure is not None
    assert failure.exit_code == code
    assert text in failure.message
    assert "\n" not in failure.message


def test_a_bug_stays_a_traceback() -> None:
    assert Failure.of(ZeroDivisionError()) is None
    assert Failure.of(click.UsageError("click's own")) is None


def test_the_error_is_a_line_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fail() -> None:
        raise errors.PinLocked("locked")

    monkeypatch.setattr(main, "get_command", lambda context, name: fail)
    result = CliRunner().invoke(main, ["fail"])
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.splitlines() == [f"nss-pk11: error: {errors.PinLocked('locked')}"]


def test_control_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "get_command", lambda context, name: interrupt)
    assert CliRunner().invoke(main, ["interrupt"]).exit_code == 130


@pytest.mark.parametrize("source", ["1234", "vault:1234", "env:", ""])
def test_a_pin_in_place_of_its_source_is_not_repeated(source: str) -> None:
    result = CliRunner().invoke(main, ["slots", "--pin", source])
    assert result.exit_code == 2
    assert "a PIN comes from prompt, env:NAME, file:PATH, cmd:COMMAND, @FILE, or pass:VALUE" in " ".join(result.stderr.split())
    assert "1234" not in result.output


@pytest.mark.parametrize(("stdin", "code"), [("y\n", 0), ("n\n", 1), ("", 2)])
def test_confirmation(stdin: str, code: int) -> None:
    @click.command()
    @click.option("--yes", is_flag=True)
    def erase(yes: bool) -> None:
        output.confirm("Erase?", yes=yes)
        click.echo("erased")

    result = CliRunner().invoke(erase, input=stdin)
    assert result.exit_code == code
    assert ("erased" in result.stdout) == (code == 0)
    assert CliRunner().invoke(erase, ["--yes"], input="").stdout == "erased\n"
