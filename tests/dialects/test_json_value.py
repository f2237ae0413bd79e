"""Values of JSON whose type nobody has promised."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.dialects.json_value import source_of, whole_number, word


@pytest.mark.parametrize(
    ("value", "expected"), [("a", "a"), ("", ""), (None, ""), (5, "5"), (True, "True"), ([1], "[1]")]
)
def test_word(value: Any, expected: str) -> None:
    """A text stays what it is, and null says nothing."""
    assert word(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(5, 5), (0, 0), (-1, -1), (None, None), (True, None), (1.0, None), ("1", None)]
)
def test_whole_number(value: Any, expected: int | None) -> None:
    """Nothing else counts: a place in a text is no fraction and no truth."""
    assert whole_number(value) == expected


def test_source_of() -> None:
    """A text as short as it gets; a value too deep to be written is no JSON."""
    assert source_of({"é": [1, None]}) == '{"é":[1,null]}'
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert source_of(deep) == "{"
    while deep:  # taken apart from outside: its own end would go as deep
        deep = deep.pop()
