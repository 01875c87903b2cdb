"""The page on porting keeps its word: every function is in it, and tested; its example runs."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.db.tools import Tools

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/porting-from-nss.md").read_text("utf-8")
NAMES = ("prinit", "prerror", "nss", "pk11pub", "secmod", "cert", "keyhi", "p12")


def functions() -> dict[str, str]:
    """Signature by name."""
    found: dict[str, str] = {}
    for name in NAMES:
        module: ModuleType = importlib.import_module(f"nss_pk11.nss.{name}")
        for public in module.__all__:
            function = getattr(module, public)
            if inspect.isfunction(function) and public != "sets_error":
                found[public] = f"{public}({', '.join(inspect.signature(function).parameters)})"
    return found


def test_every_function_is_on_the_page() -> None:
    assert set(re.findall(r"^\| `(\w+\(.*?\))` \|", PAGE, re.MULTILINE)) == set(functions().values())


def test_every_function_says_which_header_it_is_of() -> None:
    for name in functions():
        module = next(item for item in NAMES if hasattr(importlib.import_module(f"nss_pk11.nss.{item}"), name))
        text = inspect.getdoc(getattr(importlib.import_module(f"nss_pk11.nss.{module}"), name)) or ""
        assert re.search(r"\((\w+\.h)", text), name


def test_every_function_is_tested() -> None:
    tests = "".join(file.read_text("utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in functions() if name not in tests] == []


def test_the_example_runs(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    exec(compile(example.replace("sql:/etc/pki/nssdb", f"sql:{tools.directory}"), "porting-from-nss.md", "exec"), {})
