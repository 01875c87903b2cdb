"""Verification as NSS does it, case by case; that NSS's own tools say the same is `test_nss_tools`."""

from __future__ import annotations

import pytest

from nss_pk11.certs import nss
from nss_pk11.errors import CertificateError

from .issuing import NOW
from .nss_cases import CASES, NOT_KEPT
from .nss_world import USAGES, Case, World


def verdict(world: World) -> str:
    """The name of what is wrong, "" for good."""
    try:
        nss.verify([world.chain[0].der], world.records, USAGES[world.case.usage], now=NOW.timestamp())
    except CertificateError as error:
        return error.name
    return ""


@pytest.mark.parametrize("case", [*CASES, *NOT_KEPT], ids=lambda case: case.id)
def test_verdict(case: Case) -> None:
    assert verdict(World(case)) == case.expected


def test_cases_have_names_of_their_own() -> None:
    assert len({case.id for case in CASES}) == len(CASES) > 60
