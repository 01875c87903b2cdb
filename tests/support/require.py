"""A tool that a test needs: found, or the test is skipped; under CI=true a missing tool is a failure, never a silent gap."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the running test because `what` is absent; fail it under CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and CI must run every test", pytrace=False)
    pytest.skip(f"{what} is not installed")


def require(tool: str) -> str:
    """The path of command `tool`."""
    path = shutil.which(tool)
    if path is None:
        missing(tool)
    return path
