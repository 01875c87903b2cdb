"""docs/interop.md says what passed, no more and no less.  Runs after the matrix, and counts only after all of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from . import page

if TYPE_CHECKING:
    from .talking import Matrix


def test_the_page_says_what_passed(matrix: Matrix) -> None:
    if not page.complete(matrix):
        pytest.skip("only a part of the matrix was run, or passed")
    text = page.PAGE.read_text("utf-8")
    if os.environ.get("WRITE_INTEROP_PAGE"):
        text = page.replaced(page.replaced(text, "peers", page.peers()), "matrix", page.tables(matrix))
        page.PAGE.write_text(text, "utf-8")
    assert page.between(text, "matrix") == page.tables(matrix), "docs/interop.md is out of date; it says itself how it is made"
