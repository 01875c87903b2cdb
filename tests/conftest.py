"""One SoftHSM for all tests of a process: its library is loaded and initialised once, and reads its configuration then."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .support.softhsm import SoftHSM

if TYPE_CHECKING:
    from collections.abc import Iterator


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
