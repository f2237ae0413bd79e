"""What a stream has told of itself, put together."""

from __future__ import annotations

import pytest

from proxy.dialects.part import Error, Finish, Start, Text, Thinking, ToolStart, Usage
from proxy.dialects.summary import Summary


def test_figures_that_come_in_parts() -> None:
    """Anthropic tells its input first and its output last; what is not told anew stays."""
    summary = Summary(0.0)
    summary.note(Usage(input_tokens=10, output_tokens=1, cached_input_tokens=4), 0.1)
    summary.note(Usage(output_tokens=7), 0.2)
    assert summary.usage == Usage(input_tokens=10, output_tokens=7, cached_input_tokens=4)


def test_times_of_tokens() -> None:
    """From the request to the first token; then from one token to the next, on average."""
    summary = Summary(100.0)
    summary.note(Start("id", "model", 5), 100.5)
    assert summary.time_to_first_token is None
    summary.note(Thinking("hm"), 101.0)
    summary.note(Text("a"), 102.0)
    summary.note(Usage(output_tokens=3), 109.0)
    assert (summary.time_to_first_token, summary.time_per_token) == (1.0, 0.5)
    assert (summary.id, summary.model, summary.created) == ("id", "model", 5)


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_one_token_has_no_pace(tokens: int | None) -> None:
    """Nor has an unknown number of them."""
    summary = Summary(0.0)
    summary.note(ToolStart(0, "1", "f"), 1.0)
    summary.note(Usage(output_tokens=tokens), 2.0)
    assert summary.time_per_token is None


def test_why_it_ended() -> None:
    """The first choice speaks for all; the last reason that a choice gives counts."""
    summary = Summary(0.0)
    assert summary.finish is None
    summary.note(Finish("length", "length", 1), 1.0)
    summary.note(Finish("other", "odd", 0), 1.0)
    summary.note(Finish("stop", "stop", 0), 1.0)
    assert summary.finish == Finish("stop", "stop", 0)


def test_the_first_error_counts() -> None:
    """What follows an error is its echo."""
    summary = Summary(0.0)
    summary.note(Error("first", "a"), 1.0)
    summary.note(Error("second", "b"), 1.0)
    assert summary.error == Error("first", "a")
