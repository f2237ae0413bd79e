"""Compression, and the times of arrival."""

from __future__ import annotations

import gzip

from proxy.doctor.arrival import judge_compression, judge_timing
from proxy.doctor.finding import Verdict
from tests.doctor.seen import SSE, event, heard, steady


def test_a_compressed_stream_is_a_fault_and_its_lumps_are_told() -> None:
    """Thirty events in one read of gzip."""
    body = gzip.compress(b"".join(map(event, range(30))))
    fields = (*SSE, ("Content-Encoding", "gzip"), ("Server", "nginx"))
    finding = judge_compression(heard([(2.0, body)], fields=fields), "gzip, br")
    assert finding.verdict is Verdict.FAULT
    assert "30 events came in 1 lump" in finding.message
    assert "gzip off" in finding.mend


def test_a_coding_that_we_cannot_undo_is_a_fault_as_well() -> None:
    """And it is said that nothing more can be said."""
    finding = judge_compression(heard([(2.0, b"?")], fields=(*SSE, ("Content-Encoding", "zstd"))), "gzip")
    assert finding.verdict is Verdict.FAULT
    assert "could not be decoded" in finding.message


def test_no_compression_is_good_though_it_was_offered() -> None:
    """As a browser offers it."""
    finding = judge_compression(heard(steady(3)), "gzip, br")
    assert finding.verdict is Verdict.OK
    assert "gzip, br was offered" in finding.message


def test_times_and_gaps_are_told() -> None:
    """Head, first byte, first event, and the spread of the gaps."""
    reads = [(0.2, b": ping\n"), (0.5, event(1)), (0.6, event(2)), (0.7, event(3)), (1.7, event(4))]
    finding = judge_timing(heard(reads, headed=0.1))
    figures = finding.evidence
    assert (figures["headers"], figures["first_byte"], figures["first_event"]) == (0.1, 0.2, 0.5)
    assert (figures["gap_min"], figures["gap_p50"], figures["gap_max"]) == (0.1, 0.1, 1.0)


def test_a_stream_without_events_has_no_times() -> None:
    """It is said how long was waited."""
    finding = judge_timing(heard([], until=10.0))
    assert finding.verdict is Verdict.UNSEEN
    assert "no event for 10.0 s" in finding.message
