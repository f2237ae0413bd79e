"""Plain text: an event a read, and nothing of the text lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.stream.sse import Parser, decode
from proxy.stream.text import Text
from tests.stream.byte_streams import cut, cuts, every_way
from tests.stream.framings import frame

CASES: dict[str, tuple[list[bytes], list[bytes]]] = {
    "nothing": ([], []),
    "an empty read": ([b""], []),
    "a read": ([b"Hello"], [b"data: Hello"]),
    "two reads": ([b"Hello", b" you"], [b"data: Hello", b"data:  you"]),
    "two lines": ([b"a\nb"], [b"data: a\ndata: b"]),
    "the end of a line": ([b"a\n"], [b"data: a\ndata: "]),
    "only the end of a line": ([b"\n"], [b"data: \ndata: "]),
    "CRLF": ([b"a\r\nb"], [b"data: a\ndata: b"]),
    "CR": ([b"a\rb"], [b"data: a\ndata: b"]),
    "CRLF in two reads": ([b"a\r", b"\nb"], [b"data: a\ndata: ", b"data: b"]),
    "CRLF in two reads, and LF": ([b"a\r", b"\n", b"\nb"], [b"data: a\ndata: ", b"data: \ndata: b"]),
    "a character in two reads": ([b"a\xc3", b"\xa9"], [b"data: a", b"data: \xc3\xa9"]),
    "a character in four reads": ([b"\xf0", b"\x9f", b"\x98", b"\x80b"], ["data: 😀b".encode()]),
    "half a character": ([b"a\xf0\x9f"], [b"data: a", "data: \ufffd".encode()]),
    "no UTF-8": ([b"a\xffb"], ["data: a\ufffdb".encode()]),
    "what looks like an event": ([b"data: x\n\n"], [b"data: data: x\ndata: \ndata: "]),
}


@pytest.mark.parametrize(("reads", "blocks"), CASES.values(), ids=CASES)
def test_cases(reads: list[bytes], blocks: list[bytes]) -> None:
    """Each read becomes an event, its lines the event's; a character waits until it is whole."""
    found, text = frame(Text, reads)
    assert (found, text.overflowed, text.broken) == (blocks, 0, "")


def said(blocks: list[bytes]) -> str:
    """Return what a client has when it joins the data of all events."""
    return "".join(decode(block).data or "" for block in blocks)


BODIES = st.lists(
    st.one_of(
        st.text(max_size=9).map(str.encode), st.sampled_from([b"\r", b"\n", b"\r\n"]), st.binary(max_size=4)
    ),
    max_size=9,
).map(b"".join)


@given(BODIES, cuts(), st.integers(8, 40))
def test_any_text_cut_anywhere(body: bytes, at: list[int], limit: int) -> None:
    """The data of all events, joined, is the text as a browser decodes it, with LF as its line end."""
    blocks, _ = frame(Text, cut(body, at), limit)
    assert said(blocks) == body.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    assert all(Parser().feed(block + b"\n\n") == [block] for block in blocks)


def test_a_text_in_every_way() -> None:
    """Whole, byte by byte, and cut at every place: the same text."""
    body = "é😀\r\n\r\n流れ\r".encode()
    for reads in every_way(body):
        assert said(frame(Text, reads)[0]) == "é😀\n\n流れ\n"


@given(BODIES, st.integers(16, 64))
def test_a_long_read_becomes_several_events(body: bytes, limit: int) -> None:
    """No event is longer than one may be; 16 bytes hold any single character."""
    assert all(len(block) <= limit for block in frame(Text, [body], limit)[0])


def test_a_flood_of_line_ends_stays_within_the_limit() -> None:
    """Each line end grows to seven bytes: a read of them is cut until its events are short enough."""
    blocks, _ = frame(Text, [b"\n" * 10_000], 1024)
    assert max(map(len, blocks)) <= 1024
    assert said(blocks) == "\n" * 10_000
