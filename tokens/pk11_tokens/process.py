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
    """Serve until the end of standard input, or a signal to end.  SIGINT is for whoever started us, in the same terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    with contextlib.suppress(SystemExit):
        if not _serve(directory, name):
            return  # whoever started us is told why, and tidies up
    shutil.rmtree(directory, ignore_errors=True)


def _serve(directory: Path, name: str) -> bool:
    """Whether it could be done."""
    try:
        description = parse(json.loads(sys.stdin.buffer.readline()))
        machine, journal = build(description), Journal()
        if description.journal:
            journal.write_to(description.journal)
        with (
            contextlib.closing(journal),
            Server(machine, journal, directory / f"{name}.sock"),
            ControlServer(directory / "control.sock", Control(machine, journal)),
        ):
            _say(ready=True)
            sys.stdin.buffer.read()
    except DescriptionError as error:
        _say(description=str(error))
    except OSError as error:
        _say(error=str(error))
    else:
        return True
    return False


def _end(number: int, frame: object) -> None:
    """Once is enough: what follows is tidying up."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
