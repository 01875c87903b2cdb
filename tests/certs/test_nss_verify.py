"""Verification as NSS does it, case by case; that NSS's own tools say the same is `test_nss_tools`."""

from __future__ import annotations

import pytest

from .nss_cases import CASES, NOT_KEPT
from .nss_world import Case, World, verdict


@pytest.mark.parametrize("case", [*CASES, *NOT_KEPT], ids=lambda case: case.id)
def test_verdict(case: Case) -> None:
    assert verdict(World(case)) == case.expected


def test_cases_have_names_of_their_own() -> None:
    assert len({case.id for case in CASES}) == len(CASES) > 60
