"""What the tests of the NSS databases share."""

from __future__ import annotations

import pytest

from tests.db.tools import FEW_ITERATIONS


@pytest.fixture
def few_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little protection and much speed, in this process and in NSS's tools."""
    for name, value in FEW_ITERATIONS.items():
        monkeypatch.setenv(name, value)
