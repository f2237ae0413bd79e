"""Re-emitting: whatever ids a stream gets, its events stay the ones that the upstream sent."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.stream.numbering import MAX_PREFIX_BYTES, Ids, Numbering, with_retry
from proxy.stream.sse import Parser, has_data
from tests.stream.byte_streams import BOM, cut, cuts, streams
from tests.stream.whatwg import EventSource, interpret

STREAM = "abcdefghijklmnopqrstuv"


def ours(seq: int, lines: bytes) -> bytes:
    """Return the wire block that the sidecar makes of these lines."""
    return b"id: %b.%d\n%b\n\n" % (STREAM.encode(), seq, lines)


@dataclass(frozen=True)
class Emitted:
    """What a stream became: ``wire`` for who reads all along, ``entries`` for who comes later."""

    wire: bytes
    entries: list[bytes]
    numbering: Numbering


def emit(reads: list[bytes], ids: Ids, *, follow: bool = False, retries: bool = True) -> Emitted:
    """Re-emit a stream that arrives in these reads, from its begin to its end."""
    parser, numbering = Parser(), Numbering(STREAM, ids, follow=follow, retries=retries)
    wire, entries = b"", []
    for read in reads:
        numbered = numbering.number(parser.feed(read))
        wire += numbered.wire
        entries += numbered.entries
    return Emitted(wire + numbering.flush(parser.pending), entries, numbering)


def said(client: EventSource) -> list[tuple[str, str]]:
    """Return the types and data that a client was given."""
    return [(message.type, message.data) for message in client.messages]


# Any stream, under everybody's ids, means what it meant.


@settings(max_examples=300)
@given(streams(), cuts(), st.sampled_from(Ids), st.booleans())
@example(b"retry: 5\n\ndata: a\n\n" + BOM + b"data: b\n\n", [9, 20], Ids.NONE, False)
@example(b"id\n\ndata: a\n\nid: 1\n\n", [3], Ids.OWN, True)
def test_any_stream_means_the_same(stream: bytes, at: list[int], ids: Ids, follow: bool) -> None:
    """Type, data and reconnection time are the upstream's, live and replayed; a seq is an event."""
    emitted = emit(cut(stream, at), ids, follow=follow)
    upstream, client = interpret(stream), interpret(emitted.wire)
    assert said(client) == said(upstream)
    assert client.reconnection_time == upstream.reconnection_time
    assert said(interpret(b"".join(emitted.entries))) == said(upstream)
    assert emitted.numbering.seq == len(emitted.entries) == len(upstream.messages)


@settings(max_examples=300)
@given(streams(), cuts())
def test_any_stream_under_the_upstreams_ids(stream: bytes, at: list[int]) -> None:
    """Where the upstream writes the ids, a client has them as well, and so has one that replays."""
    emitted = emit(cut(stream, at), Ids.UPSTREAM)
    upstream, client = interpret(stream), interpret(emitted.wire)
    assert client.messages == upstream.messages
    assert client.last_event_id == upstream.last_event_id
    assert interpret(b"".join(emitted.entries)).messages == upstream.messages


@given(streams(), cuts())
def test_any_stream_under_our_ids(stream: bytes, at: list[int]) -> None:
    """Where the sidecar writes the ids they count from 1 without a hole, whatever the upstream wrote."""
    emitted = emit(cut(stream, at), Ids.OWN)
    ids = [message.last_event_id for message in interpret(emitted.wire).messages]
    assert ids == [f"{STREAM}.{seq}" for seq in range(1, len(ids) + 1)]
    assert all(entry.startswith(b"id: ") for entry in emitted.entries)


@given(streams(), cuts())
def test_any_stream_without_ids(stream: bytes, at: list[int]) -> None:
    """Where nobody writes ids, no client ever sees one."""
    client = interpret(emit(cut(stream, at), Ids.NONE).wire)
    assert {message.last_event_id for message in client.messages} <= {""}
    assert client.last_event_id == ""


@settings(max_examples=300)
@given(streams(), cuts(), st.sampled_from([Ids.OWN, Ids.NONE]))
def test_any_stream_where_the_upstream_may_take_over(stream: bytes, at: list[int], ids: Ids) -> None:
    """Up to the upstream's first id they are the sidecar's; from then on they are the upstream's."""
    emitted = emit(cut(stream, at), ids, follow=True)
    upstream, client = interpret(stream), interpret(emitted.wire)
    own = len([message for message in client.messages if message.last_event_id.startswith(STREAM)])
    for seq, (message, original) in enumerate(zip(client.messages, upstream.messages, strict=True), start=1):
        assert message.last_event_id == (f"{STREAM}.{seq}" if seq <= own else original.last_event_id)
        assert seq > own or original.last_event_id == "", "an id of the upstream's was replaced"
    if emitted.numbering.as_it_came:
        assert client.last_event_id == upstream.last_event_id
    else:
        assert upstream.last_event_id == ""


@given(streams(), cuts(), st.sampled_from(Ids), st.booleans())
def test_entries_are_events(stream: bytes, at: list[int], ids: Ids, follow: bool) -> None:
    """Each entry of the log holds one event, whole, and ends where it ends."""
    for entry in emit(cut(stream, at), ids, follow=follow).entries:
        parser = Parser()
        *without_data, event = parser.feed(entry)
        assert parser.pending == b""
        assert has_data(event)
        assert not any(map(has_data, without_data))


@given(streams(), cuts(), st.sampled_from(Ids), st.booleans(), st.integers(0, 8))
def test_any_stream_from_anywhere(stream: bytes, at: list[int], ids: Ids, follow: bool, after: int) -> None:
    """A client that begins behind any entry gets the rest as the same events, its own retry first."""
    entries = emit(cut(stream, at), ids, follow=follow).entries[after:]
    if entries:
        entries[0] = with_retry(entries[0], 3000)
    assert said(interpret(b"".join(entries))) == said(interpret(stream))[after:]


@given(streams(), cuts(), st.sampled_from(Ids), st.booleans())
def test_reads_do_not_matter(stream: bytes, at: list[int], ids: Ids, follow: bool) -> None:
    """However a stream is cut, the same bytes go out and the same entries are logged."""
    whole, in_parts = emit([stream], ids, follow=follow), emit(cut(stream, at), ids, follow=follow)
    assert (in_parts.wire, in_parts.entries) == (whole.wire, whole.entries)


# The wire, byte for byte.


@pytest.mark.parametrize(
    ("ids", "stream", "wire"),
    [
        (Ids.OWN, b"data: a\n\ndata: b\n\n", b"id: %s.1\ndata: a\n\nid: %s.2\ndata: b\n\n"),
        (Ids.OWN, b"event: e\r\ndata:a\rdata\r\n\r\n", b"id: %s.1\nevent: e\ndata:a\ndata\n\n"),
        (Ids.OWN, b"id: 7\ndata: a\nid\nid:8\n\n", b"id: %s.1\ndata: a\n\n"),
        (Ids.OWN, b"idea: 7\nidle\nretryable\ndata\n\n", b"id: %s.1\nidea: 7\nidle\nretryable\ndata\n\n"),
        (Ids.OWN, b": ping\n\nevent: e\n\nid: 7\n\ndata: a\n\n", b"id: %s.1\ndata: a\n\n"),
        (Ids.OWN, b": why\ndata: a\n\n", b"id: %s.1\n: why\ndata: a\n\n"),
        (Ids.OWN, b"data: a\n\ndata: b\n", b"id: %s.1\ndata: a\n\n"),
        (Ids.NONE, b"id: 7\ndata: a\n\ndata: b\n\n", b"data: a\n\ndata: b\n\n"),
        (Ids.NONE, b": ping\n\nid: 7\n\ndata: a\n\n", b"data: a\n\n"),
        (Ids.NONE, b"a: 1\n\n" + BOM + b"data: a\ndata: b\n\n", b":\n" + BOM + b"data: a\ndata: b\n\n"),
        (Ids.UPSTREAM, b": ping\r\n\r\nid:7\r\rid: 8\ndata\n\n", b": ping\n\nid:7\n\nid: 8\ndata\n\n"),
        (Ids.UPSTREAM, b"retry: x\nretry: 5\n\ndata\n\n", b"retry: x\nretry: 5\n\ndata\n\n"),
        (Ids.UPSTREAM, BOM + BOM + b"data: a\n\n", b":\n" + BOM + b"data: a\n\n"),
    ],
)
def test_wire(ids: Ids, stream: bytes, wire: bytes) -> None:
    """What goes out for what came in."""
    assert emit([stream], ids).wire == wire.replace(b"%s", STREAM.encode())


def test_entries_join_to_the_wire() -> None:
    """The entries of one read are what goes out; nothing comes of nothing."""
    numbering = Numbering(STREAM, Ids.OWN)
    numbered = numbering.number([b"data: a", b": ping", b"data: b"])
    assert numbered.entries == [ours(1, b"data: a"), ours(2, b"data: b")]
    assert numbered.wire == b"".join(numbered.entries)
    assert numbering.number([b": ping"]).wire == b""
    assert numbering.number([]).entries == []


@pytest.mark.parametrize("ids", Ids)
def test_what_the_upstream_wrote_is_remembered(ids: Ids) -> None:
    """The upstream's last id and its retry are known, whether they are passed on or not."""
    numbering = emit([b"id: 1\nretry: 10\ndata: a\n\nid: x\0\nid: 2\nretry: no\n\n"], ids).numbering
    assert (numbering.last_id, numbering.retry) == (b"2", 10)
    assert numbering.as_it_came == (ids is Ids.UPSTREAM)
    silent = emit([b"data: a\n\n"], ids).numbering
    assert (silent.last_id, silent.retry) == (None, None)


# The upstream takes over.


def test_the_first_id_takes_over_in_the_middle_of_a_read() -> None:
    """The block that brings an id, and all after it, leave as they came; the ones before are ours."""
    emitted = emit([b"data: a\n\nid: 7\ndata: b\n\n: ping\n\ndata: c\n\n"], Ids.OWN, follow=True)
    assert emitted.entries == [ours(1, b"data: a"), b"id: 7\ndata: b\n\n", b"data: c\n\n"]
    assert emitted.wire == ours(1, b"data: a") + b"id: 7\ndata: b\n\n: ping\n\ndata: c\n\n"
    assert emitted.numbering.as_it_came
    assert emitted.numbering.seq == 3


def test_a_retry_before_the_upstream_takes_over_is_not_lost() -> None:
    """What went out in the same read before the first id goes out all the same."""
    emitted = emit([b"retry: 5\n\nid: 7\ndata: b\n\n"], Ids.OWN, follow=True)
    assert emitted.wire == b"retry: 5\nid: 7\ndata: b\n\n"


@pytest.mark.parametrize("block", [b"id: 7\0\ndata: a", b"retry: 5\ndata: a", b"idea: 7\ndata: a"])
def test_what_is_no_id_does_not_take_over(block: bytes) -> None:
    """An id with NUL is none, and neither is any other field."""
    assert not emit([block + b"\n\n"], Ids.OWN, follow=True).numbering.as_it_came


def test_an_upstream_that_may_not_take_over() -> None:
    """Without ``follow`` the upstream's ids are removed, however many it writes."""
    emitted = emit([b"id: 7\ndata: a\n\n"], Ids.OWN)
    assert emitted.numbering.ids is Ids.OWN
    assert b"7" not in emitted.wire


# Blocks without data, under the upstream's ids: a reader that comes later needs them too.


def test_blocks_without_data_stand_before_the_next_entry() -> None:
    """An id or retry of its own waits for the next event, comments do not; live readers get all at once."""
    stream = b": ping\n\nid: 7\n\nretry: 5\n\ndata: a\n\ndata: b\n\n"
    emitted = emit([stream], Ids.UPSTREAM)
    assert emitted.wire == stream
    assert emitted.entries == [b"id: 7\n\nretry: 5\n\ndata: a\n\n", b"data: b\n\n"]


def test_blocks_without_data_are_bounded() -> None:
    """A feed of nothing but ids grows no entry without end; the newest are kept, and none by half: half
    a line could be a field that nobody wrote.
    """
    stream = b"".join(b"id: %d\nxdata: never sent\n\n" % number for number in range(1000)) + b"data: a\n\n"
    (entry,) = emit([stream], Ids.UPSTREAM).entries
    assert len(entry) < MAX_PREFIX_BYTES + 100
    assert len(entry) > MAX_PREFIX_BYTES - 100
    client = interpret(entry)
    assert said(client) == [("message", "a")]
    assert client.last_event_id == "999"
    assert entry.startswith(b"id: ")


def test_a_block_without_data_beyond_the_bound_is_dropped() -> None:
    """One that is too long by itself is not kept for later readers at all."""
    (entry,) = emit([b"x: " + b"data: y " * 1000 + b"\n\ndata: a\n\n"], Ids.UPSTREAM).entries
    assert entry == b"data: a\n\n"


def test_a_run_of_exactly_the_bound_is_kept() -> None:
    """The bound itself is inside."""
    prefix = b"x: " + b"y" * (MAX_PREFIX_BYTES - 5) + b"\n\n"
    assert emit([prefix + b"data: a\n\n"], Ids.UPSTREAM).entries == [prefix + b"data: a\n\n"]
    assert emit([b"y" + prefix + b"data: a\n\n"], Ids.UPSTREAM).entries == [b"data: a\n\n"]


# The upstream's own reconnection time.


def test_a_retry_goes_out_with_its_block() -> None:
    """``retry`` follows the id line; later blocks do not repeat it."""
    emitted = emit([b"data: a\nretry: 5\n\n", b"data: b\n\n"], Ids.OWN)
    assert emitted.entries == [ours(1, b"retry: 5\ndata: a"), ours(2, b"data: b")]


def test_a_retry_of_its_own_acts_at_once() -> None:
    """Live readers get the bare line when it comes, as they would have without the sidecar; the log's
    next entry repeats it for those that were behind.
    """
    numbering = Numbering(STREAM, Ids.NONE)
    first = numbering.number([b"data: a", b"retry: 5", b": ping", b"id: 9"])
    assert first.wire == b"data: a\n\nretry: 5\n"
    assert first.entries == [b"data: a\n\n"]
    assert numbering.number([b": ping"]).wire == b""
    second = numbering.number([b"data: b"])
    assert second.wire == b"retry: 5\ndata: b\n\n"


def test_only_news_go_out_at_once() -> None:
    """A reconnection time that is repeated with each heartbeat is told once, a new one again, and a time
    between two events of one read stands between them.
    """
    numbering = Numbering(STREAM, Ids.NONE)
    assert numbering.number([b"retry: 5", b"retry: 5", b"retry: 6"]).wire == b"retry: 5\nretry: 6\n"
    assert numbering.number([b"retry: 6"]).wire == b""
    between = numbering.number([b"data: a", b"retry: 7", b"data: b"])
    assert between.wire == b"retry: 6\ndata: a\n\nretry: 7\nretry: 7\ndata: b\n\n"
    assert between.entries == [b"retry: 6\ndata: a\n\n", b"retry: 7\ndata: b\n\n"]


def test_no_retry_where_clients_break_on_it() -> None:
    """For clients that must not see one, ``retry`` is remembered but never written."""
    emitted = emit([b"retry: 5\ndata: a\n\nretry: 6\n\nretry: 7\n"], Ids.NONE, retries=False)
    assert emitted.wire == b"data: a\n\n"
    assert emitted.numbering.retry == 6


def test_a_retry_of_zero_is_one() -> None:
    """Zero milliseconds is a reconnection time, not the lack of one."""
    assert emit([b"retry: 0\ndata: a\n\n"], Ids.NONE).wire == b"retry: 0\ndata: a\n\n"
    assert emit([b"retry: 0\n\n"], Ids.NONE).wire == b"retry: 0\n"


@pytest.mark.parametrize(
    ("entry", "wire"),
    [
        (b"data: a\n\n", b"retry: 5\ndata: a\n\n"),
        (b"id: 1\ndata: a\n\n", b"id: 1\nretry: 5\ndata: a\n\n"),
        (b"id:1\ndata: a\n\n", b"retry: 5\nid:1\ndata: a\n\n"),
        (b"id: 1\nretry: 9\ndata: a\n\n", b"id: 1\nretry: 9\ndata: a\n\n"),
        (b"retry:9\ndata: a\n\n", b"retry:9\ndata: a\n\n"),
        (b"id: 1\n\nid: 2\ndata: a\n\n", b"id: 1\nretry: 5\n\nid: 2\ndata: a\n\n"),
        (b":\n" + BOM + b"data: a\n\n", b"retry: 5\n:\n" + BOM + b"data: a\n\n"),
    ],
)
def test_with_retry(entry: bytes, wire: bytes) -> None:
    """A connection's first block says when to come back, unless it says so already."""
    assert with_retry(entry, 5) == wire


# The end: a half-received block is no event, but its whole lines were read.


@pytest.mark.parametrize(
    ("ids", "pending", "wire"),
    [
        (Ids.OWN, b"", b""),
        (Ids.OWN, b"data: a\nid: 7\n", b""),
        (Ids.OWN, b"retry: 5\ndata: a", b"retry: 5\n"),
        (Ids.OWN, b"retry: 5", b""),
        (Ids.OWN, b"retry:  5\nretry: x\nretry:6\n", b"retry: 6\n"),
        (Ids.OWN, b": ping\ndata: a\n", b""),
        (Ids.UPSTREAM, b": ping\n:pong\nretry: 5\ndata: a\nid: 7\n", b": ping\n:pong\nretry: 5\n"),
        (Ids.UPSTREAM, b": pi", b""),
    ],
)
def test_flush(ids: Ids, pending: bytes, wire: bytes) -> None:
    """At the end go out a ``retry`` line and, where blocks pass as they came, comments: never an event."""
    assert Numbering(STREAM, ids).flush(pending) == wire


def test_flush_remembers_the_retry() -> None:
    """A reader that comes after the end is told the upstream's last word as well."""
    numbering = Numbering(STREAM, Ids.OWN)
    numbering.flush(b"retry: 5\nretry: 6\nretry: 7")
    assert numbering.retry == 6
