"""The page on porting keeps its word: every function is in it, and tested; its example runs."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nss_pk11.nss import pk11pub, prio
from tests.db.tools import Tools
from tests.nss.ends import HOST, Background, port_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/porting-from-nss.md").read_text("utf-8")
NAMES = ("prinit", "prerror", "prio", "prinrval", "prnetdb", "nss", "pk11pub", "secmod", "cert", "keyhi", "ocsp", "p12")
NAMES += ("ssl", "sslproto", "sslerr", "secerr")
MANUAL = json.loads((ROOT / "fixtures/sslfnc.json").read_text("utf-8"))
ROW = re.compile(r"^\| `((\w+)\(.*?\))` \| `(\w+)` \|(?: `(test_\w+\.py)((?:::\w+)+)` \|)?", re.MULTILINE)


def functions() -> dict[str, str]:
    """Signature by name."""
    found: dict[str, str] = {}
    for name in NAMES:
        module: ModuleType = importlib.import_module(f"nss_pk11.nss.{name}")
        for public in getattr(module, "__all__", dir(module)):
            function = getattr(module, public)
            if inspect.isfunction(function) and public[0].isupper():
                found[public] = f"{public}({', '.join(inspect.signature(function).parameters)})"
    return found


def test_every_function_is_on_the_page() -> None:
    rows = [row[1] for row in ROW.finditer(PAGE)]
    assert sorted(rows) == sorted(functions().values())


def test_every_function_is_where_the_page_says() -> None:
    for row in ROW.finditer(PAGE):
        assert inspect.isfunction(getattr(importlib.import_module(f"nss_pk11.nss.{row[3]}"), row[2])), row[2]


def test_the_manuals_functions_come_first_in_its_order() -> None:
    named = [row[2] for row in ROW.finditer(PAGE.split("## SSL functions of the manual")[1])]
    assert named[: len(MANUAL["functions"])] == MANUAL["functions"]
    assert set(MANUAL["mentioned"]) <= set(functions())


def test_tests_that_the_page_names_exist_and_call_the_function() -> None:
    shown = [row for row in ROW.finditer(PAGE) if row[4]]
    assert {row[2] for row in shown} >= set(MANUAL["functions"])
    for row in shown:
        text = (Path(__file__).parent / row[4]).read_text("utf-8")
        body: ast.AST = ast.parse(text)
        for part in row[5].split("::")[1:]:
            found = [node for node in ast.iter_child_nodes(body) if getattr(node, "name", "") == part]
            assert found, f"{row[4]}{row[5]}"
            body = found[0]
        assert re.search(rf"\b{row[2]}\b", text), f"{row[4]} does not call {row[2]}"


def test_every_function_says_which_header_it_is_of() -> None:
    for name in functions():
        module = next(item for item in NAMES if hasattr(importlib.import_module(f"nss_pk11.nss.{item}"), name))
        text = inspect.getdoc(getattr(importlib.import_module(f"nss_pk11.nss.{module}"), name)) or ""
        assert re.search(r"\((\w+\.h)", text), name


def test_every_function_is_tested() -> None:
    tests = "".join(file.read_text("utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in functions() if name not in tests] == []


EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_example_runs(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    example = EXAMPLES[0]
    exec(compile(example.replace("sql:/etc/pki/nssdb", f"sql:{tools.directory}"), "porting-from-nss.md", "exec"), {})


def test_the_example_with_ssl_talks(ready: Tools) -> None:
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[1], "porting-from-nss.md", "exec"), names)
    cert = pk11pub.PK11_FindCertFromNickname("server")
    listener = names["listen"](cert, pk11pub.PK11_FindKeyByAnyCert(cert), 0)
    with Background(lambda: names["echo"](listener)):
        assert names["ask"](port_of(listener), HOST, b"hello") == b"hello"
    prio.PR_Close(listener)
    assert len(EXAMPLES) == 2
