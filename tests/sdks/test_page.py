"""docs/sdks.md shows the matrix as it is tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sdks.matrix import CONDITIONS
from tests.sdks.page import HEADER, MARKS, PAGE, labels, pinned, rows, write


def test_every_sdk_and_every_condition_is_in_the_table() -> None:
    """A row for each SDK in the version that the tests install, a column for each condition."""
    header, *body = rows()
    assert header == HEADER
    assert [row[:2] for row in body] == list(labels(pinned))
    assert {len(row) for row in body} == {len(HEADER)}


def test_no_answer_is_short_and_silent() -> None:
    """Whole, or raised, or given out as the provider's error: the table has no other word."""
    cells = [cell for row in rows()[1:] for cell in row[2:]]
    assert all(result.startswith(("whole", "raises", "error event")) for result in cells)


def test_the_page_says_what_each_condition_is() -> None:
    """In the words that stand beside its definition."""
    text = PAGE.read_text("utf-8")
    for name, condition in CONDITIONS.items():
        assert f"| {name} | {condition.what} |" in text


def test_a_table_is_written_between_the_marks(tmp_path: Path) -> None:
    """And nowhere else."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS.opening}\nold\n{MARKS.closing}\nafter\n")
    write("| a | b |\n|---|---|\n| 1 | 2 |", page)
    assert rows(page) == [("a", "b"), ("1", "2")]
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
    page.write_text("no marks")
    with pytest.raises(ValueError, match=re.escape("page.md has no <!-- matrix -->")):
        write("", page)
