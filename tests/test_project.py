"""The project as it is shipped: its metadata, its type marker, and who loads whom."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_installed_version_is_the_written_one() -> None:
    written = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert version("nss-pk11") == written
    assert f"## {written}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_package_says_that_it_is_typed() -> None:
    assert files("nss_pk11").joinpath("py.typed").is_file()


def test_the_engine_loads_nothing_that_knows_sockets_or_tokens() -> None:
    """Sans-I/O for real: what import-linter reads in the source holds in the running interpreter too."""
    script = (
        "import sys, pkgutil, importlib, nss_pk11.tls as tls\n"
        "for module in pkgutil.walk_packages(tls.__path__, 'nss_pk11.tls.'): importlib.import_module(module.name)\n"
        "print(*{'.'.join(name.split('.')[:2]) for name in sys.modules if name.startswith('nss_pk11.')})\n"
        "print(*{'pkcs11', 'ssl', 'asyncio'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    rooms, foreign = result.stdout.split("\n")[:2]
    assert set(rooms.split()) == {"nss_pk11.errors", "nss_pk11.tls"}
    assert foreign == ""
