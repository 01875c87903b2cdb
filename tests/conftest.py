"""One SoftHSM for all tests of a process: its library is loaded and initialised once, and reads its configuration then.  And how
tests are shared out where there are several processes (`-n 2`, by pytest-xdist).
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

from .support.softhsm import SoftHSM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

MATRIX = "tests/interop/test_matrix"


def pytest_collection_finish() -> None:
    """Thousands of tests are there until the end: the garbage collector need not go through all of them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHSM]:
    """SoftHSM as this process sees it; make tokens with labels of your own in it."""
    hsm = SoftHSM(tmp_path_factory.mktemp("softhsm"))
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(hsm.config)
    yield hsm
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Each worker runs whole files, in their order, so that it makes once what a file or a directory shares.  The matrix's files
    go to one worker: its page tells what passed in all of them."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return MATRIX if file.startswith(MATRIX) else file

    config.option.loadscopereorder = False
    return Files(config, log)
