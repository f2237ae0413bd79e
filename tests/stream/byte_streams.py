"""Byte streams that look like event streams, and the ways in which reads can cut them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from hypothesis import strategies as st

BOM = b"\xef\xbb\xbf"

END_OF_LINE = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r"])

FIELD_NAME = st.sampled_from(
    [*b"data data data event id retry Data ID da".split(), b"", b" data", b"\0", BOM + b"data"]
)

VALUE = st.one_of(
    st.sampled_from(
        [*b"0 7 3000 12x x a:b a\0b [DONE]".split(b" "), b"", b" two", b"1 ", b"\t", b"\0", b"data: x"]
    ),
    st.sampled_from(["é", "😀", "\u2028", "\x85", "\ufeff"]).map(str.encode),
    st.sampled_from([b"\xc3", b"\xa9", b"\xff", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x8a", b"\xe2\x80"]),
    st.binary(max_size=6),
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Return one line: a field, a comment, nothing, or noise, and mostly its end."""
    name, colon = draw(FIELD_NAME), draw(st.sampled_from([b":", b": ", b": ", b""]))
    value = draw(VALUE) if colon else b""
    return name + colon + value + draw(END_OF_LINE)


EVENT = st.sampled_from([b"data: x\n\n", b"id: 7\r\rdata: y\r\n\r\n", b"retry: 50\n\n", b": c\n\n"])

#: Pieces of which streams are made: whole lines, whole events, empty lines, and noise between them.
PIECES = st.one_of(
    lines(),
    lines(),
    lines(),
    END_OF_LINE,
    EVENT,
    st.sampled_from([BOM, b"\r", b"\n", b":", b" "]),
    st.binary(max_size=3),
)

#: A retry of more digits than the sidecar reads: the one place where it leaves the standard's letter.
TOO_MANY_DIGITS = re.compile(rb"retry: ?[0-9]{11}")


def streams() -> st.SearchStrategy[bytes]:
    """Return streams of up to some hundred bytes, with or without a BOM, whole or broken off."""
    body = st.lists(PIECES, max_size=24).map(b"".join)
    stream = st.tuples(st.sampled_from([b"", b"", BOM, BOM + BOM, b"\xef\xbb"]), body).map(b"".join)
    return stream.filter(lambda stream: TOO_MANY_DIGITS.search(stream) is None)


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    """Return the reads that a stream arrives in when it is cut at these places (some may be empty)."""
    places = [0, *sorted(place % (len(stream) + 1) for place in at), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(places)]


def cuts() -> st.SearchStrategy[list[int]]:
    """Return places to cut a stream at."""
    return st.lists(st.integers(0, 10_000), max_size=12)


def every_way(stream: bytes) -> Iterator[list[bytes]]:
    """Yield a stream whole, byte by byte, and in two reads cut at every place."""
    yield [stream]
    yield [stream[index : index + 1] for index in range(len(stream))]
    for place in range(1, len(stream)):
        yield [stream[:place], stream[place:]]
