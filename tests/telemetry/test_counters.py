"""Histograms: what they count is what a scrape shows."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry.counters import DURATION_BUCKETS, FIRST_EVENT_BUCKETS, GAP_BUCKETS, Histogram


def test_histogram() -> None:
    """A value counts in the first bucket that is not below it; buckets are cumulative on the wire."""
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1, 1.001, 2.5, 99):
        histogram.observe(value)
    assert histogram.buckets() == [("1.0", 2), ("2.5", 4), ("+Inf", 5)]
    assert histogram.total == pytest.approx(104.001)


@given(st.lists(st.floats(0, 10_000)), st.sampled_from([FIRST_EVENT_BUCKETS, GAP_BUCKETS, DURATION_BUCKETS]))
def test_any_observations(values: list[float], bounds: tuple[float, ...]) -> None:
    """Each bucket holds the values up to its bound, the last one all."""
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    ordered = sorted(values)
    for (label, count), bound in zip(histogram.buckets(), (*bounds, float("inf")), strict=True):
        assert float(label) == bound
        assert count == len([value for value in ordered if value <= bound])
    assert histogram.total == pytest.approx(sum(values))
    assert bisect_left(bounds, bounds[-1]) == len(bounds) - 1, "bounds ascend"
