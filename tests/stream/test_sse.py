"""The parser: what an event stream means does not depend on how its bytes are split over reads."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.stream.sse import MAX_BLOCK_BYTES, Event, Parser, decode, fields, has_data, is_digits, named_data
from tests.stream.byte_streams import BOM, cut, cuts, every_way, streams
from tests.stream.whatwg import EventSource, Message, interpret


def parse(reads: list[bytes], limit: int = MAX_BLOCK_BYTES) -> tuple[list[bytes], Parser]:
    """Return the blocks of a stream that arrives in these reads, and the parser as it is left."""
    parser = Parser(limit)
    return [block for read in reads for block in parser.feed(read)], parser


CASES: dict[str, tuple[bytes, list[bytes], bytes]] = {
    # name: (stream, its blocks, what is pending at its end)
    "nothing": (b"", [], b""),
    "one event": (b"data: a\n\n", [b"data: a"], b""),
    "two events": (b"data: a\n\ndata: b\n\n", [b"data: a", b"data: b"], b""),
    "several lines": (b"event: e\ndata: a\ndata: b\n\n", [b"event: e\ndata: a\ndata: b"], b""),
    "CRLF": (b"event: e\r\ndata: a\r\n\r\n", [b"event: e\ndata: a"], b""),
    "CR": (b"event: e\rdata: a\r\rdata: b\r\r", [b"event: e\ndata: a", b"data: b"], b""),
    "every end of line": (b"a\rb\nc\r\nd\n\re\r\r\nf\r\n\nx", [b"a\nb\nc\nd", b"e", b"f"], b"x"),
    "LF CR is two ends of line": (b"data: a\n\rdata: b\n\r", [b"data: a", b"data: b"], b""),
    "CR LF LF": (b"data: a\r\n\ndata: b\n\n", [b"data: a", b"data: b"], b""),
    "a CR at the end": (b"data: a\n\r", [b"data: a"], b""),
    "many empty lines": (b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [b"data: a", b"data: b"], b""),
    "empty lines only": (b"\n\r\n\r\r\n\n", [], b""),
    "one empty line first": (b"\ndata: a\n\n", [b"data: a"], b""),
    "BOM": (BOM + b"data: a\n\n", [b"data: a"], b""),
    "only one BOM goes": (BOM + BOM + b"data: a\n\n", [BOM + b"data: a"], b""),
    "a BOM later stays": (b"data: a\n\n" + BOM + b"data: b\n\n", [b"data: a", BOM + b"data: b"], b""),
    "BOM and an empty line": (BOM + b"\n\ndata: a\n\n", [b"data: a"], b""),
    "a BOM alone": (BOM, [], b""),
    "half a BOM": (BOM[:2], [], BOM[:2]),
    "half a BOM and a line": (BOM[:2] + b"data: a\n\n", [BOM[:2] + b"data: a"], b""),
    "comments are blocks": (b": ping\n\n:\n\n", [b": ping", b":"], b""),
    "UTF-8": ("data: é😀\u2028\n\n".encode(), ["data: é😀\u2028".encode()], b""),
    "not UTF-8": (b"data: \xff\xc3\n\n", [b"data: \xff\xc3"], b""),
    "NUL": (b"data: \0\n\0\n\n", [b"data: \0\n\0"], b""),
    "an unterminated line": (b"data: a\n\ndata: b", [b"data: a"], b"data: b"),
    "an unterminated block": (b"data: a\n\ndata: b\n", [b"data: a"], b"data: b\n"),
    "an unterminated block after CRLF": (b"data: a\r\n\r\ndata: b\r\n", [b"data: a"], b"data: b\n"),
}


@pytest.mark.parametrize(("stream", "blocks", "pending"), CASES.values(), ids=CASES)
def test_cases(stream: bytes, blocks: list[bytes], pending: bytes) -> None:
    """Each stream has these blocks when it comes whole, byte by byte, and cut anywhere."""
    for reads in every_way(stream):
        found, parser = parse(reads)
        assert (found, parser.pending, parser.overflowed) == (blocks, pending, 0), reads


@settings(max_examples=500)
@given(streams(), cuts())
@example(b"data: a\r", [7, 7])
@example(BOM + b"data: a\n\n", [1, 1, 2])
def test_any_stream_cut_anywhere(stream: bytes, at: list[int]) -> None:
    """Any bytes, cut anywhere, give the same blocks as when they come whole; so do empty reads."""
    whole, parser = parse([stream])
    found, cut_parser = parse(cut(stream, at))
    assert found == whole
    assert cut_parser.pending == parser.pending


@settings(max_examples=500)
@given(streams(), cuts())
def test_any_stream_means_what_the_standard_says(stream: bytes, at: list[int]) -> None:
    """Blocks, decoded, are the events of the WHATWG algorithm: type, data, last id, reconnection time."""
    blocks, parser = parse(cut(stream, at))
    client = interpret(stream)
    understood = understand(blocks, parser.pending)
    assert understood.messages == client.messages
    assert understood.last_event_id == client.last_event_id
    assert understood.reconnection_time == client.reconnection_time


def understand(blocks: list[bytes], pending: bytes) -> EventSource:
    """Do with blocks what a client does with lines: the parser's own idea of what the stream means."""
    client = EventSource()
    for event in map(decode, blocks):
        if event.id is not None:
            client.last_event_id = event.id
        if event.retry is not None:
            client.reconnection_time = event.retry
        if event.data is not None:
            client.messages.append(Message(event.event, event.data, client.last_event_id))
    whole_lines = pending.rpartition(b"\n")[0]
    if (retry := decode(whole_lines).retry) is not None:  # it counts as soon as its line has ended
        client.reconnection_time = retry
    return client


@given(streams(), cuts())
def test_blocks_have_one_form(stream: bytes, at: list[int]) -> None:
    """A block has at least one line, no empty line and no CR, and is a block again when it is parsed."""
    for block in parse(cut(stream, at))[0]:
        assert block
        assert b"\r" not in block
        assert b"\n\n" not in b"\n" + block + b"\n"
        assert parse([b"\n" + block + b"\n\n"])[0] == [block]


# A block that never ends: the memory that a peer can fill is bounded.


@pytest.mark.parametrize(
    ("stream", "blocks", "overflowed"),
    [
        (b"data: 789\n\n", [b"data: 789"], False),
        (b"data: 789X\n\n", [b"data: 789X"], False),
        (b"data: 789X\r\n\r\n", [b"data: 789X"], False),
        (b"data: 789XY\n\n", [], True),
        (b"data: 789XY", [], True),
        (b"data: 789X\n", [], False),
        (b"data: 789X\n:", [], True),
        (b"data: a\n\ndata: 789XY\n\ndata: b\n\n", [b"data: a"], True),
        (b"data: a\n\ndata: b\n\ndata: 789XY", [b"data: a", b"data: b"], True),
        (b"\n\n\n\n\n\n\n\n\n\n\n\ndata: 789X\n\n", [b"data: 789X"], False),
        (BOM + b"data: 789X\n\n", [b"data: 789X"], False),
    ],
)
def test_overflow(stream: bytes, blocks: list[bytes], overflowed: bool) -> None:
    """A block of ten bytes passes a limit of ten, however it is cut; of a longer one, and after it,
    nothing comes, but everything before it does.
    """
    for reads in every_way(stream):
        found, parser = parse(reads, limit=10)
        assert (found, bool(parser.overflowed)) == (blocks, overflowed), reads


def test_overflow_tells_the_size() -> None:
    """``overflowed`` is the block's size: the whole of it where it came at once, else as far as it came."""
    assert parse([b"data: " + b"x" * 94 + b"\n\n"], limit=10)[1].overflowed == 100
    assert parse([b"data: ", b"x" * 50, b"x" * 44], limit=10)[1].overflowed == 56
    assert parse([b"data: x\n", b"data: y\n"], limit=10)[1].overflowed == 15


def test_nothing_after_an_overflow() -> None:
    """A parser that overflowed returns and keeps nothing: a peer that goes on fills no memory."""
    _, parser = parse([b"x" * 11], limit=10)
    for _ in range(3):
        assert parser.feed(b"data: a\n\ndata: b") == []
        assert parser.pending == b""
    assert parser.overflowed == 11


def test_a_half_bom_is_not_measured() -> None:
    """Bytes that may become a BOM are no block yet, so they pass the shortest limit."""
    for reads in every_way(BOM + b"a\n\n"):
        assert parse(reads, limit=1)[0] == [b"a"]


@given(streams(), cuts(), st.integers(1, 24))
def test_any_stream_is_bounded(stream: bytes, at: list[int], limit: int) -> None:
    """Under any limit come the blocks before the first one that is too long, and no more is kept than
    a block of the limit and the end of its last line.
    """
    blocks, unbounded = parse([stream])
    started = [*blocks, unbounded.pending.removesuffix(b"\n")]
    if len(stream) < len(BOM) and BOM.startswith(stream):
        started = []
    short = next((index for index, block in enumerate(started) if len(block) > limit), None)
    parser, found = Parser(limit), []
    for read in cut(stream, at):
        found += parser.feed(read)
        assert len(parser.pending) <= max(limit + 1, len(BOM) - 1)
    assert found == blocks[:short]
    assert (parser.overflowed > limit) if short is not None else (parser.overflowed == 0)


def test_a_block_of_the_default_limit_passes() -> None:
    """Image events are large: sixteen mebibytes in reads of 64 KiB are one block."""
    block = b"data: " + b"A" * (MAX_BLOCK_BYTES - 6)
    wire = block + b"\n\n"
    reads = [wire[start : start + 65536] for start in range(0, len(wire), 65536)]
    found, parser = parse(reads)
    assert found == [block]
    assert not parser.overflowed


# What a block means.


@pytest.mark.parametrize(
    ("block", "event"),
    [
        (b"data: a", Event("message", "a", None, None)),
        (b"data:a", Event("message", "a", None, None)),
        (b"data:  a", Event("message", " a", None, None)),
        (b"data", Event("message", "", None, None)),
        (b"data:", Event("message", "", None, None)),
        (b"data\ndata", Event("message", "\n", None, None)),
        (b"data: a\ndata:\ndata: b", Event("message", "a\n\nb", None, None)),
        (b"data: a:b", Event("message", "a:b", None, None)),
        (b": data: a", Event("message", None, None, None)),
        (b"DATA: a\ndata : b\n data: c", Event("message", None, None, None)),
        (b"event: e\ndata: a", Event("e", "a", None, None)),
        (b"event: e\nevent\ndata: a", Event("message", "a", None, None)),
        (b"event: e", Event("e", None, None, None)),
        (b"id: 1\nid: 2\ndata: a", Event("message", "a", "2", None)),
        (b"id\ndata: a", Event("message", "a", "", None)),
        (b"id: 1\nid: 2\0", Event("message", None, "1", None)),
        (b"retry: 10", Event("message", None, None, 10)),
        (b"retry: 10\nretry: 1x\nretry:  2\nretry: -3\nretry:", Event("message", None, None, 10)),
        ("retry: ١٢".encode(), Event("message", None, None, None)),
        (b"retry: 0010", Event("message", None, None, 10)),
        (b"retry: 9999999999", Event("message", None, None, 9_999_999_999)),
        (b"id: \xff\nevent: \xc3\ndata: \xf0\x9f", Event("\ufffd", "\ufffd", "\ufffd", None)),
    ],
)
def test_decode(block: bytes, event: Event) -> None:
    """The fields of a block, by the standard's rules."""
    assert decode(block) == event


def test_a_retry_of_many_digits_is_noise() -> None:
    """The one exception to the standard's letter: a number of more than ten digits is ignored, since a
    huge one is slow to read, and no timer reaches so far.
    """
    assert is_digits(b"1234567890")
    assert not is_digits(b"12345678901")
    assert decode(b"retry: 5\nretry: " + b"9" * 1_000_000).retry == 5


def test_fields() -> None:
    """Lines are cut at their first colon, one space after it goes, and a comment has no name."""
    assert list(fields(b"data: a\nid\n: ping\nx::  y")) == [
        (b"data", b"a"),
        (b"id", b""),
        (b"", b"ping"),
        (b"x", b":  y"),
    ]


@settings(max_examples=300)
@given(streams())
@example(b"xdata: a\n\nid\ndata\n\ndata \n\n")
def test_has_data(stream: bytes) -> None:
    """A block has data exactly where a client would dispatch an event for it."""
    for block in parse([stream])[0]:
        assert has_data(block) == (len(interpret(b"\n" + block + b"\n\n").messages) == 1)


@pytest.mark.parametrize(
    ("block", "name", "data"),
    [
        (b"data: {}", "message", b"{}"),
        (b"event: ping\ndata: {}", "ping", b"{}"),
        (b"event: \xff\ndata: \xfe", "\ufffd", b"\xfe"),
        (b"data:", "message", ""),
        (b"event:\ndata:{}", "message", "{}"),
        (b"id: s.1\nevent: ping\ndata: a\ndata: b", "ping", "a\nb"),
        (b": comment", "message", ""),
        (b"event: ping", "ping", ""),
    ],
)
def test_named_data(block: bytes, name: str, data: bytes | str) -> None:
    """An event's name and data; the data of one line stays in bytes."""
    assert named_data(block) == (name, data)


@settings(max_examples=300)
@given(streams())
def test_named_data_is_what_decode_finds(stream: bytes) -> None:
    """However a block is written."""
    for block in parse([stream])[0]:
        event = decode(block)
        name, data = named_data(block)
        told = data if isinstance(data, str) else data.decode("utf-8", "replace")
        assert (name, told) == (event.event, event.data or "")
