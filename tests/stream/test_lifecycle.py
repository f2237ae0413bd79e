"""A stream's states: every pair of a state and a happening, in the table and outside it."""

from __future__ import annotations

import itertools

import pytest

from proxy.stream.lifecycle import TRANSITIONS, Happening, ImpossibleTransition, State, next_state

GRID = """
            ANSWERED   JOINED     ABANDONED  ENDED     FORGOTTEN
OPENING     LIVE       OPENING    LINGERING  FINISHED  -
LIVE        LIVE       LIVE       LINGERING  FINISHED  -
LINGERING   LINGERING  LIVE       -          FINISHED  -
FINISHED    -          FINISHED   FINISHED   -         EXPIRED
EXPIRED     -          EXPIRED    EXPIRED    -         -
"""

HEAD, *ROWS = [line.split() for line in GRID.split("\n") if line]
PAIRS = [
    (State[row[0]], Happening[happening], None if cell == "-" else State[cell])
    for row in ROWS
    for happening, cell in zip(HEAD, row[1:], strict=True)
]


def test_the_grid_is_whole() -> None:
    """Every pair stands in the grid, once."""
    pairs = [(state, happening) for state, happening, _ in PAIRS]
    assert sorted(pairs, key=str) == sorted(itertools.product(State, Happening), key=str)


@pytest.mark.parametrize(("state", "happening", "expected"), PAIRS)
def test_next_state(state: State, happening: Happening, expected: State | None) -> None:
    """A pair in the table leads on; one outside it is a bug, and is told loudly."""
    if expected is None:
        with pytest.raises(ImpossibleTransition, match=f"{happening.value} while {state.value}"):
            next_state(state, happening)
    else:
        assert next_state(state, happening) is expected


def test_an_end_is_final() -> None:
    """A stream that has finished never runs again, and one that has expired never has a log again."""
    over = {State.FINISHED, State.EXPIRED}
    assert {after for (before, _), after in TRANSITIONS.items() if before in over} == over
    assert {after for (before, _), after in TRANSITIONS.items() if before is State.EXPIRED} == {State.EXPIRED}


@pytest.mark.parametrize("state", [State.OPENING, State.LIVE, State.LINGERING])
def test_every_running_stream_can_end(state: State) -> None:
    """Whatever a stream is doing, its end is possible, and then it can be forgotten."""
    finished = next_state(state, Happening.ENDED)
    assert next_state(finished, Happening.FORGOTTEN) is State.EXPIRED
