"""Reads that come together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.doctor.lump import lumps_of, pattern_of
from tests.doctor.seen import buffered, event, heard, steady


def test_reads_of_one_instant_are_one_lump() -> None:
    """A large write comes in several reads; the next one comes later."""
    stream = heard([(1.0, event(1)), (1.004, event(2) + event(3)), (2.0, event(4))])
    lumps = lumps_of(stream)
    assert [lump.events for lump in lumps] == [3, 1]
    assert [round(lump.wait, 3) for lump in lumps] == [0.99, 0.996]


def test_a_quick_sender_is_not_one_endless_instant() -> None:
    """An event every millisecond, for a second: no instant lasts as long."""
    lumps = lumps_of(heard([(0.001 * n, event(n)) for n in range(1, 1000)]))
    assert len(lumps) >= 15
    assert not any(lump.held for lump in lumps)


def test_the_first_lump_and_the_last_may_be_smaller_than_the_buffer() -> None:
    """The one shares its buffer with the head, the other is what was left."""
    reads = buffered(100, buffer=4096)
    shortened = [(reads[0][0], reads[0][1][300:]), *reads[1:]]
    assert pattern_of(heard(shortened)).buffer == 4096


def test_two_lumps_make_no_buffer() -> None:
    """Something of some size is always there."""
    assert pattern_of(heard(buffered(32, buffer=4096))).buffer is None
    assert pattern_of(heard(steady(100))).buffer is None


@given(st.lists(st.tuples(st.floats(0.0, 0.5, allow_nan=False), st.integers(0, 5)), max_size=60))
def test_no_event_and_no_byte_is_lost_in_cutting(writes: list[tuple[float, int]]) -> None:
    """Lumps hold what the reads held."""
    at, reads = 0.02, []
    for pause, count in writes:
        at += pause
        reads.append((at, b"".join(map(event, range(count))) or b": ping\n"))
    stream = heard(reads)
    lumps = lumps_of(stream)
    assert sum(lump.events for lump in lumps) == len(stream.arrivals)
    assert sum(lump.size for lump in lumps) == stream.wire
