"""Builds the shim, pk11_tokens/pk11-tokens.so: one C file, libc only.  `CC`, `CFLAGS` and `LDFLAGS` are heeded."""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "pk11_tokens/shim/pk11_tokens.c"
MODULE = "pk11_tokens/pk11-tokens.so"

# nodelete: a host may unload the module while threads of it still have a connection, whose destructor lies in here.
OPTIONS = "-std=c11 -O2 -fPIC -shared -fvisibility=hidden -pthread -Wall -Wextra -Wl,-z,nodelete,-z,defs"


class ShimBuild(BuildHookInterface[Any]):
    """Compiles before a wheel or an editable installation is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into the package; the wheel is of this platform, but of any Python."""
        words = [os.environ.get("CC", "cc"), OPTIONS, os.environ.get("CFLAGS", ""), SOURCE]
        words += ["-o", MODULE, os.environ.get("LDFLAGS", ""), "-ldl"]
        subprocess.run(shlex.split(" ".join(words)), cwd=Path(self.root), check=True)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
