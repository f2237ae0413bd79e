"""Answers as they stand on the wire, and how they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.doctor.evidence import Ending
from proxy.doctor.http import Answer, Garbled

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (CHUNKED + b"3\r\none\r\n5;x=y\r\n two \r\n0\r\n\r\n", b"one two "),
        (CHUNKED + b"3\r\none\r\n0\r\nTrailer: x\r\n\r\n", b"one"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none", b"one"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
    ids=["chunks", "trailer", "length", "interim", "no-content"],
)
def test_a_whole_body_is_read_however_it_is_split(wire: bytes, body: bytes) -> None:
    """Whole, byte by byte, and at every split: the same body, and its end."""
    for reads in ([wire], [wire[i : i + 1] for i in range(len(wire))]):
        answer = Answer()
        assert b"".join(answer.feed(read) for read in reads) == body
        assert answer.over
        assert answer.end() is Ending.WHOLE
    for split in range(len(wire)):
        answer = Answer()
        assert answer.feed(wire[:split]) + answer.feed(wire[split:]) == body


@pytest.mark.parametrize(
    ("wire", "ending"),
    [
        (CHUNKED + b"3\r\none\r\n", Ending.CUT),
        (CHUNKED + b"3\r\non", Ending.CUT),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\none", Ending.CUT),
        (b"HTTP/1.1 200 OK\r\n\r\none", Ending.CLOSED),
        (b"HTTP/1.1 200", Ending.CUT),
    ],
    ids=["between-chunks", "inside-a-chunk", "short", "no-framing", "no-head"],
)
def test_a_close_means_what_was_promised_before(wire: bytes, ending: Ending) -> None:
    """A close before the last chunk is a cut; without any framing nobody can tell."""
    answer = Answer()
    answer.feed(wire)
    assert answer.end() is ending


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"1" * 5000,
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000,
    ],
    ids=["no-http", "chunk-size", "endless-line", "length", "endless-head"],
)
def test_what_is_not_http_is_said_so(wire: bytes) -> None:
    """And what never ends is not kept for ever."""
    with pytest.raises(Garbled):
        Answer().feed(wire)


def test_a_length_beside_chunks_is_read_as_chunks_and_both_are_seen() -> None:
    """RFC 9112 §6.3: Transfer-Encoding overrides; the check of the headers is to tell."""
    answer = Answer()
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"
    assert answer.feed(wire) == b"one"
    assert answer.head is not None
    assert answer.head.get("content-length") == "9"


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_are_read_or_refused(data: bytes, split: int) -> None:
    """A peer can send anything: nothing else than Garbled is raised."""
    answer = Answer()
    try:
        answer.feed(CHUNKED + data[:split])
        answer.feed(data[split:])
    except Garbled:
        return
    assert answer.end() in (Ending.WHOLE, Ending.CUT)
