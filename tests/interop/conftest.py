"""What the interoperability tests share: one PKI and one SoftHSM for the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..support.pki import PKI
from ..support.softhsm import SoftHSM

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="session")
def pki(directory: Path) -> PKI:
    return PKI(directory / "pki")


@pytest.fixture(scope="session")
def hsm(directory: Path) -> SoftHSM:
    return SoftHSM(directory / "softhsm")
