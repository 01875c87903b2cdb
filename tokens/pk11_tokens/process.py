"""The process of a token server: `python -m pk11_tokens.process DIRECTORY NAME`, started by `simulator.start`.

Reads the description from standard input (a line of JSON, for it holds PINs), says on standard output that it is ready, and
lives until standard input ends: so it ends with whoever started it, however that ends, and takes its directory along.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from .build import build
from .control import Control, ControlServer
from .description import DescriptionError, parse
from .journal import Journal
from .server import Server


def main(directory: Path, name: str) -> None:
    """Serve until the end of standard input, or SIGTERM.  SIGINT is for whoever started us, in the same terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        description = parse(json.loads(sys.stdin.buffer.readline()))
        machine, journal = build(description), Journal()
        if description.journal:
            journal.write_to(description.journal)
        with (
            Server(machine, journal, directory / f"{name}.sock"),
            ControlServer(directory / "control.sock", Control(machine, journal)),
        ):
            _say(ready=True)
            with contextlib.suppress(SystemExit):  # SIGTERM: an end like any other, the directory goes
                sys.stdin.buffer.read()
        journal.close()
        shutil.rmtree(directory, ignore_errors=True)
    except DescriptionError as error:
        _say(description=str(error))
    except OSError as error:
        _say(error=str(error))


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
