"""What is written down of a body."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest

from proxy.doctor.evidence import Beat
from proxy.doctor.transcript import MAX_BYTES, Transcript
from tests.doctor.seen import SSE, When, event, head, heard


@pytest.mark.parametrize(
    ("reads", "forms"),
    [
        ([b"data: 1\n\n", b": ping\n", b"data: 2\n\n"], [Beat.LINE]),
        ([b"data: 1\n\n", b": ping\n\n", b"data: 2\n\n"], [Beat.BLOCK]),
        ([b"data: 1\n\n", b": ping\n", b"\n", b"data: 2\n\n"], [Beat.BLOCK]),
        ([b"data: 1\n\n", b": ping\n", b": ping\n", b"data: 2\n\n"], [Beat.LINE, Beat.LINE]),
        ([b"data: 1\n\n: pi", b"ng\ndata: 2\n\n"], [Beat.LINE]),
        ([b"data: 1\n\n", b"\n", b"data: 2\n\n"], [Beat.EMPTY]),
        ([b"data: 1\n\n", b"data: 2\n\n"], []),
    ],
    ids=["line", "block", "block-in-two", "two-lines", "split", "empty", "none"],
)
def test_heartbeats_are_told_apart_by_their_form(reads: list[bytes], forms: list[Beat]) -> None:
    """Each is counted once, in however many reads it came and in whose block it stands."""
    stream = heard((float(at), data) for at, data in enumerate(reads))
    assert [beat.form for beat in stream.heartbeats] == forms
    assert len(stream.arrivals) == 2


def test_a_heartbeat_has_the_time_at_which_it_came() -> None:
    """Not that of the event behind it, in whose block it stands."""
    stream = heard([(1.0, b": ping\n"), (9.0, b"data: 1\n\n")])
    assert [beat.at for beat in stream.heartbeats] == [1.0]
    assert [arrival.at for arrival in stream.arrivals] == [9.0]


def test_a_read_that_ends_inside_an_event_is_marked() -> None:
    """A comment that waits for its event is none."""
    stream = heard([(1.0, b"data: 1\n\nda"), (2.0, b"ta: 2\n\n: ping\n"), (3.0, b"data: 3\n\n")])
    assert [read.cut for read in stream.reads] == [True, False, False]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(event(1) + event(2))),
        ("deflate", zlib.compress(event(1) + event(2))),
        ("br", brotli.compress(event(1) + event(2))),
    ],
    ids=["gzip", "deflate", "br"],
)
def test_a_coded_body_is_decoded(coding: str, body: bytes) -> None:
    """The events are seen all the same, beside the bytes on the wire."""
    stream = heard([(1.0, body)], fields=(*SSE, ("Content-Encoding", coding)))
    assert len(stream.arrivals) == 2
    assert (stream.wire, stream.decoded) == (len(body), len(event(1) + event(2)))


@pytest.mark.parametrize(
    ("coding", "body"), [("zstd", b"anything"), ("gzip", b"no gzip")], ids=["unknown", "broken"]
)
def test_what_cannot_be_decoded_is_said_so(coding: str, body: bytes) -> None:
    """Nothing is guessed from it."""
    stream = heard([(1.0, body)], fields=(*SSE, ("Content-Encoding", coding)))
    assert stream.undecodable
    assert not stream.arrivals


def test_no_more_is_taken_than_the_bound() -> None:
    """The attack: many megabytes of zeros, gzipped to some kilobytes."""
    seen = Transcript(head(*SSE, ("Content-Encoding", "gzip")))
    bomb = gzip.compress(bytes(MAX_BYTES * 2))
    seen.receive(bomb, 1.0)
    assert seen.full
    assert seen.stream(When(), 1.0, ending=None).decoded <= MAX_BYTES + 512 * 1024
