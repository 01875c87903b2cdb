"""OpenSSL 1.0.2e of the wheel `nassl` in a child process: client and server for SSL 2.0 to TLS 1.2 with every suite but
FORTEZZA's.  `__main__` is the child, `library` reaches the code, `surgery` adds what it lacks."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ...require import missing
from ..commanded import Commanded

ROOT = Path(__file__).parents[4]


def start() -> Commanded:
    """The child."""
    if importlib.util.find_spec("nassl") is None:
        missing("nassl")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return Commanded([sys.executable, "-X", "faulthandler", "-m", __name__], environment)
