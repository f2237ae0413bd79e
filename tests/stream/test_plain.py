"""The short way through a read: wherever it answers, it says what the parser and the numbering say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.stream.numbering import Ids, Numbering
from proxy.stream.plain import is_plain, plain_blocks
from proxy.stream.sse import Parser, has_data
from tests.stream.byte_streams import BOM, cut, cuts, streams

STREAM = "abcdefghijklmnopqrstuv"

CHAT = b'data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"}}]}'
ANTHROPIC = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"text":"hi"}}'
)
RESPONSES = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}'
GEMINI = b'data: {"candidates":[{"content":{"parts":[{"text":"na\xc3\xafve \xe2\x82\xac"}]}}]}'

#: What providers send, block by block; each kind comes alone or in one read with others of its kind.
DATA_ONLY = (CHAT, GEMINI, b"data: [DONE]", b"data:x", b"data:", b"data: id: 1", b"data: \0", b"data: " + BOM)
NAMED = (ANTHROPIC, RESPONSES, b"event:x\ndata:y", b"event:\ndata:", b"event: ping\ndata: {}")

#: What differs from such a read in one place or another, so that the parser has to look at it.
ODD = (
    b"",
    b"\n",
    b"\n\n",
    b"\n\n\n",
    b"data",
    b"data\n\n",
    b"data: a",
    b"data: a\n",
    b"\ndata: a\n\n",
    b"data: a\n\n\n",
    b"data: a\n\n\n\n",
    b"data: a\ndata: b\n\n",
    b"data: a\nid: 7\n\n",
    b"id: 7\ndata: a\n\n",
    b"data: a\nevent: x\n\n",
    b"event: x\n\n",
    b"event: x\n\ndata: a\n\n",
    b"event: x\nid: 7\n\n",
    b"event: x\nid: 7\ndata: a\n\n",
    b"event: x\ndata: a\nretry: 5\n\n",
    b"event: x\nevent: y\ndata: a\n\n",
    b"event\ndata: a\n\n",
    b"retry: 5\n\n",
    b"retry: 5\ndata: a\n\n",
    b": ping\n\n",
    b":\n\ndata: a\n\n",
    b"data: a\n\n: ping\n\n",
    b"data: a\n\ndata: b",
    b"data: a\n\ndata: b\n",
    b"data: a\r\n\r\n",
    b"data: a\r\r",
    b"data: a\rid: 7\n\n",
    b"data: a\n\n\r",
    b"event: x\rdata: a\n\n",
    b"data: a\n\nevent: x\ndata: b\n\n",
    b"event: x\ndata: a\n\ndata: b\n\n",
    b"data: a\n\nid: 7\n\ndata: b\n\n",
    BOM + b"data: a\n\n",
    b"Data: a\n\n",
    b" data: a\n\n",
)

#: Reads that look like a provider's, or nearly.
READS = st.one_of(
    st.lists(st.sampled_from(DATA_ONLY), min_size=1, max_size=5).map(
        lambda all_: b"\n\n".join(all_) + b"\n\n"
    ),
    st.lists(st.sampled_from(NAMED), min_size=1, max_size=5).map(lambda all_: b"\n\n".join(all_) + b"\n\n"),
    st.lists(st.sampled_from([*DATA_ONLY, *NAMED, *ODD, b"id: 7", b"\n", b"\n\n", b"\r"]), max_size=6).map(
        b"\n".join
    ),
    st.lists(st.sampled_from(ODD), max_size=4).map(b"".join),
    streams(),
)


def steady() -> Parser:
    """Return a parser that stands between two blocks: where the short way may be asked."""
    parser = Parser()
    parser.feed(b"data: the first\n\n")
    assert parser.between_blocks
    return parser


def numbering(ids: Ids, *, follow: bool = False) -> Numbering:
    """Return a numbering that has numbered a few blocks."""
    begun = Numbering(STREAM, ids, follow=follow)
    begun.number([b"data: %d" % number for number in range(9)])
    return begun


def short_way(data: bytes) -> list[bytes] | None:
    """Return what the short way takes a read for; None where it passes."""
    if is_plain(data):
        return [data[:-2]]
    return plain_blocks(data)


# It never says anything else than the parser


@settings(max_examples=600)
@given(READS)
def test_it_answers_as_the_parser_does(data: bytes) -> None:
    """The same blocks, nothing left over, and the parser stands between two blocks again."""
    parser = steady()
    blocks = parser.feed(data)
    whole = is_plain(data)
    several = plain_blocks(data)
    if whole:
        assert blocks == [data[:-2]]
    if several is not None:
        assert blocks == several
    if whole or several is not None:
        assert parser.between_blocks
        assert parser.pending == b""
        assert all(map(has_data, blocks))


@settings(max_examples=600)
@given(READS, st.sampled_from(Ids), st.booleans())
def test_it_numbers_as_the_numbering_does(data: bytes, ids: Ids, follow: bool) -> None:
    """The same bytes for the log and the wire, the same counter, and nothing noted or owing."""
    blocks = short_way(data)
    if blocks is None:
        return
    short, shorter, long = (numbering(ids, follow=follow) for _ in range(3))
    numbered = long.number(steady().feed(data))
    assert short.number_plain_blocks(blocks) == numbered.entries
    assert b"".join(numbered.entries) == numbered.wire
    if is_plain(data):
        assert [shorter.number_plain(data)] == numbered.entries
        assert shorter.seq == long.seq
    assert short.seq == long.seq == 9 + len(blocks)
    assert not long.owing
    assert (long.ids, long.retry, long.last_id) == (ids, None, None)


@settings(max_examples=300)
@given(streams() | READS, cuts(), st.sampled_from(Ids), st.booleans())
@example(b"data: a\n\nretry: 5\n\ndata: b\n\n", [9, 19], Ids.NONE, False)
@example(b"data: a\n\nid: 7\n\ndata: b\n\n", [9, 16], Ids.UPSTREAM, False)
@example(b"data: a\n\ndata: b\r\n\r\ndata: c\n\n", [9, 20], Ids.OWN, True)
def test_a_stream_that_takes_it_is_the_stream_that_does_not(
    stream: bytes, at: list[int], ids: Ids, follow: bool
) -> None:
    """Any stream in any reads: with the short way, wherever it is allowed, not a byte is different."""

    def emitted(allowed: bool) -> tuple[bytes, list[bytes]]:
        parser, numbers = Parser(), Numbering(STREAM, ids, follow=follow)
        wire, entries = b"", []
        for read in cut(stream, at):
            blocks = short_way(read) if allowed and parser.between_blocks and not numbers.owing else None
            if blocks is None:
                numbered = numbers.number(parser.feed(read))
                wire, entries = wire + numbered.wire, entries + numbered.entries
            else:
                numbered_blocks = numbers.number_plain_blocks(blocks)
                wire, entries = wire + b"".join(numbered_blocks), entries + numbered_blocks
        return wire + numbers.flush(parser.pending), entries

    assert emitted(True) == emitted(False)


# And it is taken


@pytest.mark.parametrize("block", [*DATA_ONLY, *NAMED])
def test_a_providers_event_is_recognised(block: bytes) -> None:
    """One event a read: no provider's stream may silently take the long way."""
    assert is_plain(block + b"\n\n")
    assert plain_blocks(block + b"\n\n") == [block]


@pytest.mark.parametrize("kind", [DATA_ONLY, NAMED], ids=["data only", "named"])
def test_several_events_of_a_provider_are_recognised(kind: tuple[bytes, ...]) -> None:
    """Several a read: not one event, but known as blocks."""
    data = b"".join(block + b"\n\n" for block in kind)
    assert not is_plain(data)
    assert plain_blocks(data) == list(kind)


@pytest.mark.parametrize("data", ODD)
def test_anything_else_is_left_to_the_parser(data: bytes) -> None:
    """One byte out of place, and the short way has no answer."""
    assert not is_plain(data)
    assert plain_blocks(data) is None


@pytest.mark.parametrize("block", [CHAT, ANTHROPIC])
def test_every_cut_is_left_to_the_parser(block: bytes) -> None:
    """A part of an event is never taken for a whole one."""
    data = block + b"\n\n"
    for end in range(len(data)):
        assert short_way(data[:end]) is None
    for start in range(1, len(data)):
        head = data[start:].startswith((b"data:", b"event:"))
        assert (short_way(data[start:]) is None) is not head


# Where it may be asked


@pytest.mark.parametrize(
    ("fed", "between"),
    [
        ([], False),
        ([b"data: a\n\n"], True),
        ([b"data: a\n\ndata"], False),
        ([b"data: a\n\ndata", b": b\n\n"], True),
        ([b"data: a\n"], False),
        ([b"data: a\n", b"\n"], True),
        ([b"data: a\r\r"], False),
        ([b"data: a\r\r", b"data: b\n\n"], True),
        ([b"data: a\r\n\r\n"], True),
        ([b"data: a\n\n\n"], True),
        ([b": ping\n"], False),
        ([b"\xef"], False),
        ([b"\xef\xbb\xbf"], True),
        ([b"\xef\xbb", b"\xbf", b"data: a\n\n"], True),
        ([b""], False),
    ],
)
def test_between_blocks(fed: list[bytes], between: bool) -> None:
    """Only where the next byte begins a block, whatever it is: no half block, no CR whose LF may
    follow, no BOM that may still come.
    """
    parser = Parser()
    for data in fed:
        parser.feed(data)
    assert parser.between_blocks is between


def test_an_overflowed_parser_is_nowhere() -> None:
    """It keeps nothing more, so there is no next block."""
    parser = Parser(max_block_bytes=8)
    parser.feed(b"data: more than eight bytes")
    assert parser.overflowed
    assert not parser.between_blocks


@settings(max_examples=300)
@given(streams(), cuts(), READS)
def test_between_blocks_a_read_means_what_it_means_alone(stream: bytes, at: list[int], data: bytes) -> None:
    """Whatever came before: where a parser says so, it takes the next read as any other would."""
    parser = Parser()
    for read in cut(stream, at):
        parser.feed(read)
    if parser.between_blocks:
        other = steady()
        assert parser.feed(data) == other.feed(data)
        assert parser.pending == other.pending


@pytest.mark.parametrize(
    ("ids", "steps", "owing"),
    [
        (Ids.OWN, [[]], [False]),
        (Ids.OWN, [[b"data: a"]], [False]),
        (Ids.OWN, [[b"retry: 5"], [b": ping"], [b"data: a"]], [True, True, False]),
        (Ids.OWN, [[b"retry: 5\ndata: a"]], [False]),
        (Ids.OWN, [[b"id: 7"]], [False]),
        (Ids.NONE, [[b"data: a", b"retry: 5"], [b"data: b"]], [True, False]),
        (Ids.UPSTREAM, [[b"id: 7"], [b": ping"], [b"data: a"]], [True, True, False]),
        (Ids.UPSTREAM, [[b": ping"]], [False]),
        (Ids.UPSTREAM, [[b"retry: 5\ndata: a"], [b"data: b"]], [False, False]),
        (Ids.UPSTREAM, [[b"retry: 5"], [b"data: b"]], [True, False]),
    ],
)
def test_owing(ids: Ids, steps: list[list[bytes]], owing: list[bool]) -> None:
    """What the next entry has to carry besides its block: a retry that came, lines that came before."""
    numbers = Numbering(STREAM, ids)
    seen = []
    for blocks in steps:
        numbers.number(blocks)
        seen.append(numbers.owing)
    assert seen == owing


def test_follows() -> None:
    """Whether an id of the upstream's own would take over."""
    assert Numbering(STREAM, Ids.OWN, follow=True).follows
    assert not Numbering(STREAM, Ids.OWN).follows


@pytest.mark.parametrize(
    ("ids", "entry"),
    [
        (Ids.OWN, b"id: %b.10\ndata: x\n\n" % STREAM.encode()),
        (Ids.NONE, b"data: x\n\n"),
        (Ids.UPSTREAM, b"data: x\n\n"),
    ],
)
@pytest.mark.parametrize(
    "number",
    [
        lambda numbers: numbers.number_plain(b"data: x\n\n"),
        lambda numbers: numbers.number_plain_blocks([b"data: x"])[0],
    ],
    ids=["one", "several"],
)
def test_the_bytes(number: Callable[[Numbering], bytes], ids: Ids, entry: bytes) -> None:
    """Our id is the first line of the block; without ours, nothing is added."""
    numbers = numbering(ids)
    assert number(numbers) == entry
    assert numbers.seq == 10
