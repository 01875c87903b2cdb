"""What all engine tests share."""

from __future__ import annotations

import pytest

from ..support.pki import PKI


@pytest.fixture(scope="session")
def engine_pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    """Certificates with keys in files."""
    return PKI(tmp_path_factory.mktemp("engine-pki"))
