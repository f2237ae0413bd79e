"""A run of chunks is finished when each of its answers is."""

from __future__ import annotations

import pytest

from proxy.dialects.choices import Choices

SAYS, STOPS, NOTHING = (False, True), (True, False), (False, False)
STOPS_WITH_TEXT = (True, True)


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ([], False),
        ([(0, SAYS)], False),
        ([(0, NOTHING)], False),
        ([(0, SAYS), (0, STOPS)], True),
        ([(0, SAYS), (0, STOPS_WITH_TEXT)], True),
        ([(0, STOPS), (0, NOTHING)], True),
        ([(0, STOPS), (0, SAYS)], False),
        ([(0, STOPS), (0, SAYS), (0, STOPS)], True),
        ([(0, SAYS), (1, SAYS), (0, STOPS)], False),
        ([(0, SAYS), (1, SAYS), (0, STOPS), (1, STOPS)], True),
        ([(1, SAYS), (1, STOPS)], True),
    ],
)
def test_all_finished(notes: list[tuple[int, tuple[bool, bool]]], expected: bool) -> None:
    """The last chunk of an answer that does anything decides, and every answer counts."""
    choices = Choices()
    for index, (finished, speaks) in notes:
        choices.note(index, finished=finished, speaks=speaks)
    assert choices.all_finished is expected
