"""Times that stand in events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.doctor.stamp import stamp_of


@pytest.mark.parametrize(
    ("data", "stamp"),
    [
        ('{"ts":1800000000.5}', 1_800_000_000.5),
        ('{"t":1800000000500}', 1_800_000_000.5),
        ('{"time":1800000000500000}', 1_800_000_000.5),
        ('{"created_at":"2027-01-15T08:00:00.500Z"}', 1_800_000_000.5),
        ('{"createdAt":"2027-01-15T09:00:00.500+01:00"}', 1_800_000_000.5),
        ('{"timestamp":"2027-01-15T08:00:00"}', None),
        ('{"t":0.25}', None),
        ('{"t":true}', None),
        ('{"created":1800000000}', None),
        ("[1800000000]", None),
        ("[DONE]", None),
        ("{", None),
    ],
    ids=[
        "s",
        "ms",
        "us",
        "iso",
        "zone",
        "no-zone",
        "media",
        "bool",
        "of-the-stream",
        "list",
        "done",
        "broken",
    ],
)
def test_a_stamp_is_a_moment_of_our_time(data: str, stamp: float | None) -> None:
    """A position in a medium is no time of day, and OpenAI's ``created`` is the stream's, not the event's."""
    assert stamp_of(data) == stamp


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_value_is_read_or_passed_over(value: object) -> None:
    """Events hold anything."""
    stamp = stamp_of(json.dumps({"ts": value}))
    assert stamp is None or 1e9 <= stamp < 1e10
