"""`import nss_pk11`: every name is there, and none costs anything before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nss_pk11


@pytest.mark.parametrize("name", nss_pk11.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(nss_pk11, name) is not None
    assert name in dir(nss_pk11)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'nss_pk11' has no attribute 'nonsense'"):
        nss_pk11.nonsense  # noqa: B018


def test_import_is_light() -> None:
    """`nss-pk11 --help` and whoever needs one room only do not wait for all of them."""
    code = "import sys, nss_pk11; print(*[name for name in ('cryptography', 'pkcs11', 'nss_pk11.net') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
