"""What is counted of one stream: once, and for its route when somebody looks."""

from __future__ import annotations

import pytest

from proxy.server.tally import Tally
from proxy.telemetry import RouteStats, Telemetry


@pytest.fixture
def stats() -> RouteStats:
    """The counters of a route that nothing has happened on."""
    return Telemetry().route("r")


def gaps(stats: RouteStats) -> dict[str, float]:
    """The buckets of the gaps that hold one, or more, of their own."""
    told, before = {}, 0.0
    for bound, count in stats.gaps.buckets():
        if count > before:
            told[bound] = count - before
        before = count
    return told


def test_settling_counts_what_is_new(stats: RouteStats) -> None:
    """However often somebody looks, every event and every byte is counted for the route once."""
    tally = Tally(stats, 0.0)
    tally.settle(0)
    assert (stats.events, stats.bytes) == (0, 0)
    tally.bytes_out += 100
    tally.settle(3)
    tally.settle(3)
    assert (stats.events, stats.bytes) == (3, 100)
    tally.bytes_out += 50
    tally.settle(5)
    assert (stats.events, stats.bytes) == (5, 150)


def test_bytes_that_were_counted_at_once_are_not_counted_again(stats: RouteStats) -> None:
    """What a reader takes from the log is counted for the route there and then; what a live one is
    given, when somebody looks.
    """
    tally = Tally(stats, 0.0)
    tally.wrote(10)
    assert (tally.bytes_out, stats.bytes) == (10, 10)
    tally.bytes_out += 5
    tally.wrote(1)
    assert (tally.bytes_out, stats.bytes) == (16, 11)
    tally.settle(2)
    tally.settle(2)
    assert (stats.events, stats.bytes) == (2, 16)


def test_streams_of_a_route_add_up(stats: RouteStats) -> None:
    """Each settles its own share."""
    first, second = Tally(stats, 0.0), Tally(stats, 0.0)
    first.bytes_out, second.bytes_out = 10, 20
    first.settle(1)
    second.settle(2)
    first.settle(4)
    assert (stats.events, stats.bytes) == (6, 30)


def test_a_read_of_one_event_is_a_read_with_events(stats: RouteStats) -> None:
    """The hot path's count is the general one, unrolled."""
    other = Telemetry().route("r")
    general, unrolled = Tally(other, 10.0), Tally(stats, 10.0)
    for tally in (general, unrolled):
        tally.logged(10.5)
        tally.last_sent = 10.5
    for now in (10.5005, 10.502, 10.6, 12.0, 12.0, 400.0):
        general.bytes_in += 7
        general.logged(now)
        general.last_sent = now
        unrolled.read_one(now, 7)
    assert gaps(stats) == gaps(other)
    assert stats.gaps.total == other.gaps.total == pytest.approx(389.5)
    assert sum(stats.gaps.counts) == 6
    assert (unrolled.bytes_in, unrolled.longest_gap) == (general.bytes_in, general.longest_gap) == (42, 388.0)
    assert (
        (unrolled.first_event, unrolled.last_sent) == (general.first_event, general.last_sent) == (0.5, 400.0)
    )


def test_the_first_event_has_no_gap(stats: RouteStats) -> None:
    """It has the time that it took."""
    tally = Tally(stats, 10.0)
    tally.logged(10.25)
    assert tally.first_event == 0.25
    assert (sum(stats.first_events.counts), sum(stats.gaps.counts)) == (1, 0)
    assert tally.longest_gap == 0.0


@pytest.mark.parametrize(("events", "longest"), [(True, 20.0), (False, 0.0)])
def test_the_silence_before_the_end(events: bool, longest: float, stats: RouteStats) -> None:
    """It is a gap, but not one between two reads; where there was no event there is none."""
    tally = Tally(stats, 10.0)
    if events:
        tally.logged(11.0)
        tally.last_sent = 11.0
    tally.ended(31.0)
    assert tally.longest_gap == longest
    assert sum(stats.gaps.counts) == 0
