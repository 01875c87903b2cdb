"""The documentation keeps its word: every option is described, every exit code listed, every Python example runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from nss_pk11.cli import main
from nss_pk11.cli.output import EXIT_CODES

ROOT = Path(__file__).parent.parent
CLI_PAGE = (ROOT / "docs/cli.md").read_text("utf-8")
PYTHON_PAGE = (ROOT / "docs/python.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PYTHON_PAGE, re.DOTALL | re.MULTILINE)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def options() -> Iterator[tuple[str, str]]:
    """Every option of every command: the command's name and the option's."""
    for name, command in commands(main):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield from ((name, option) for option in (*parameter.opts, *parameter.secondary_opts))


def test_every_option_is_described() -> None:
    described = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", CLI_PAGE))
    assert [f"{name} {option}" for name, option in options() if option not in described] == []


def test_no_option_is_described_that_does_not_exist() -> None:
    described = set(re.findall(r"`(--[a-z][\w-]*)", CLI_PAGE))
    assert described - {option for _, option in options()} == {"--help"}


def test_every_exit_code_is_listed() -> None:
    assert re.findall(r"^\| (\d+) \| (.*) \|$", CLI_PAGE, re.MULTILINE) == [(str(code), meaning) for code, meaning in EXIT_CODES]


def test_the_readme_shows_the_first_python_example() -> None:
    assert f"```python\n{EXAMPLES[0]}```" in (ROOT / "README.md").read_text("utf-8")


def test_python_examples_fit_the_types(tmp_path: Path) -> None:
    files = []
    for i, example in enumerate(EXAMPLES):
        files.append(tmp_path / f"example{i}.py")
        files[-1].write_text(example)
    command = [sys.executable, "-m", "mypy", "--config-file", "", "--ignore-missing-imports", "--follow-imports", "silent"]
    result = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_readme_links_to_files_that_exist() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text("utf-8")):
            assert (ROOT / target).exists(), f"{page} links to {target}"
