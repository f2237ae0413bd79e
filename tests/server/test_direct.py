"""The fast path's first half: the way of an upstream's bytes through its connection's protocol.

First without sockets, so that every read and every turn of the loop is the test's; then on real ones,
through a whole sidecar. Wherever the two ways of reading must agree, both are tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import ssl
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
import trustme
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.config import load
from proxy.server.app import Sidecar
from proxy.server.direct import READ_A_TURN, DirectProtocol, DirectSource, chunk_head
from proxy.server.wire import as_chunk
from proxy.stream.numbering import Numbering
from tests.conftest import StartOrigin, StartSidecar, at_rest, config_for, eventually, transports, unsent
from tests.support.client import Answer, Truncated, ask, read_answer, send
from tests.support.origin import PATIENCE, Connection, Origin, Script, response

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

# The size line


def exact(data: bytes) -> bool:
    """Whether a read is exactly one whole chunk in the form in which sizes are written, by RFC 9112 §7.1:
    hexadecimal without leading zeros (and in lower case, as nearly all servers write them).
    """
    size, line_end, rest = data.partition(b"\r\n")
    digits = size.strip(b"0123456789abcdef") == b"" and size[:1] not in (b"", b"0")
    return bool(line_end) and digits and len(rest) == int(size, 16) + 2 and rest.endswith(b"\r\n")


def taken(data: bytes) -> bool:
    """Whether the short way would take a read."""
    return data.startswith(chunk_head(len(data))) and data.endswith(b"\r\n")


def test_every_chunk_is_known_by_its_length() -> None:
    """Of each length there is one chunk at most, and its head is found; nothing else is taken, whatever it
    begins with. Reads that fill a turn of the loop are all left to the parser, which is asked about them.
    """
    whole = {len(b"%x" % size) + size + 4: b"%x\r\n" % size for size in range(1, 70_001)}
    for length in range(70_001):
        expected = whole.get(length, ()) if length < READ_A_TURN else ()
        assert chunk_head(length) == expected
        assert not expected or exact(whole[length] + b"x" * (length - len(whole[length]) - 2) + b"\r\n")


@settings(max_examples=500)
@given(
    st.one_of(
        st.binary(max_size=300).map(as_chunk),
        st.tuples(st.integers(0, 40), st.integers(0, 40)).map(
            lambda sizes: b"%x\r\n%b\r\n" % (sizes[0], b"x" * sizes[1])
        ),
        st.lists(
            st.sampled_from([b"\r\n", b"\r", b"\n", b"5", b"a", b"A", b"0", b";x", b" "]), max_size=24
        ).map(b"".join),
        st.lists(st.binary(min_size=1, max_size=9).map(as_chunk), max_size=3).map(b"".join),
        st.integers(0, 5000).map(lambda size: b"\r\n" + b"x" * size + b"\r\n"),
    )
)
@example(b"\r\n" + b"x" * 17 + b"\r\n")
@example(b"\r\n\r\n")
@example(LAST)
@example(b"05\r\nhello\r\n")
@example(b"A\r\n0123456789\r\n")
@example(b"5;x\r\nhello\r\n")
@example(b"5\r\nhello\r\n\r\n")
@example(b"6\r\nhell\r\n\r\n")
@example(b"5\r\nhel\r\n0\r\n")
def test_only_one_whole_chunk_is_taken(data: bytes) -> None:
    """Nothing shorter, nothing longer, nothing in another form; and each that is one, is."""
    assert taken(data) is exact(data)


# Without sockets

#: More than aiohttp keeps of a body before it stops to read.
LONG = b"x" * 200_000


class Kernel(asyncio.Transport):
    """A connection's transport, and the bytes that wait in front of it while it is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.closed = False

    def pause_reading(self) -> None:
        """Deliver nothing."""
        self.reading = False

    def resume_reading(self) -> None:
        """Deliver."""
        self.reading = True

    def close(self) -> None:
        """Close."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed


class Body:
    """One response on a connection, read by a ``DirectSource``, and the consumer of it.

    ``received`` is what it was given in ``calls`` calls, ``ends`` the errors that it was told of at the end:
    one, None when all was well. In the calls of the numbers ``pauses`` it asks for a pause, in that of the
    number ``closes_at`` it closes the source. ``parsed`` are the reads that the parser saw.
    """

    def __init__(self, protocol: DirectProtocol, kernel: Kernel, loop: asyncio.AbstractEventLoop) -> None:
        self.protocol, self.kernel, self.loop = protocol, kernel, loop
        self.received = b""
        self.calls = 0
        self.ends: list[str | None] = []
        self.pauses: frozenset[int] = frozenset()
        self.closes_at: int | None = None
        self.fails = False
        self.paused = False
        self.parsed: list[bytes] = []

    def answer(self, data: bytes) -> None:
        """Let the response begin with ``data``, which has its head."""
        self.protocol.watcher = self.parsed.append  # type: ignore[attr-defined]  # see Watched
        self.protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=2**16)
        self.protocol.data_received(data)
        (_, self.content), _ = self.protocol._buffer.popleft()
        connection = None if self.content.is_eof() else SimpleNamespace(protocol=self.protocol)
        response: Any = SimpleNamespace(
            answer=SimpleNamespace(content=self.content, connection=connection), close=self.kernel.close
        )
        self.source = DirectSource(response, self, self.loop)

    def start(self) -> None:
        """Begin to read."""
        self.source.start(None)  # type: ignore[arg-type]  # it needs no task
        self.turn()

    @property
    def lets_go(self) -> bool:
        """Whether the connection is left alone once the response is over: it may be another one's."""
        return not self.content.is_eof() or (self.protocol._tap is None and self.kernel.reading)

    # The consumer

    def receive(self, data: bytes) -> None:
        """Take bytes, as a relay does."""
        assert data
        assert not self.ends
        assert not self.paused
        if self.fails:
            raise ZeroDivisionError("a fault")
        self.received += data
        if self.calls in self.pauses:
            self.paused = True
            self.source.pause()
        if self.calls == self.closes_at:
            self.source.close()
        self.calls += 1

    def receive_last(self, data: bytes) -> None:
        """Take the last ones."""
        self.receive(data)

    def ended(self, error: str | None) -> None:
        """Note the end."""
        self.ends.append(error)

    # What happens to it

    def read(self, data: bytes, *, buffered: bool = False) -> None:
        """Let one read arrive; for a paused connection it has to wait. (``buffered``: TLS had it already.)"""
        while not (self.kernel.reading or buffered):
            self.resume()
        self.protocol.data_received(data)

    def resume(self) -> None:
        """Let the consumer take more."""
        if self.paused:
            self.paused = False
            self.source.resume()
        self.turn()

    def turn(self) -> None:
        """Let the loop do what it has been told to do."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def lose(self, error: Exception | None = None) -> None:
        """Let the connection end."""
        self.protocol.connection_lost(error)


class Watched(DirectProtocol):
    """The protocol under test, telling of each read that it lets the parser see."""

    def _parse(self, data: bytes, tap: Any) -> None:
        self.watcher(data)
        super()._parse(data, tap)


@contextlib.contextmanager
def opened(
    head: bytes = CHUNKED, *, first: bytes = b"", pauses: Collection[int] = (), started: bool = True
) -> Iterator[Body]:
    """Open a connection whose response begins with ``head`` and ``first``, before the source does."""
    loop = asyncio.new_event_loop()
    protocol, kernel = Watched(loop), Kernel()
    protocol.connection_made(kernel)
    body = Body(protocol, kernel, loop)
    body.pauses = frozenset(pauses)
    body.answer(head + first)
    if started:
        body.start()
    try:
        yield body
    finally:
        loop.close()


def decoded(raw: bytes) -> tuple[bytes, bool]:
    """Return the data that a chunked body's first bytes hold, and whether they hold its end."""
    data = b""
    while True:
        line, line_end, raw = raw.partition(b"\r\n")
        if not line_end:
            return data, False
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            return data, raw.startswith(b"\r\n") or b"\r\n\r\n" in raw
        data += raw[:size]
        raw = raw[size + 2 :]


#: How a size can be written, besides as it mostly is.
SIZES = st.sampled_from(["%x", "%x", "%x", "%X", "0%x", "%x;ext=1", '%x;a="b c"'])

DATA = st.one_of(
    st.integers(0, 99).map(lambda number: b"data: %d\n\n" % number),
    st.binary(min_size=1, max_size=20),
    st.sampled_from([b"\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"\r", b"data: x\r\n\r\n"]),
    st.integers(1, 300).map(lambda size: b"x" * size),
)

TRAILERS = st.sampled_from([b"", b"", b"X-Sum: 1\r\n", b"A: 1\r\nB: 2\r\n"])


@st.composite
def chunked_reads(draw: st.DrawFn) -> list[bytes]:
    """Return the reads in which a chunked body arrives: mostly a chunk each, and cut anywhere else."""
    pieces = [
        b"%b\r\n%b\r\n" % ((draw(SIZES) % len(data)).encode(), data)
        for data in draw(st.lists(DATA, max_size=8))
    ]
    pieces.append(b"0\r\n%b\r\n" % draw(TRAILERS))
    ends = {sum(map(len, pieces[:count])) for count in range(1, len(pieces) + 1)}
    raw = b"".join(pieces)
    joined = draw(st.sets(st.sampled_from(sorted(ends)), max_size=3)) - {len(raw)}
    cuts = draw(st.sets(st.integers(1, len(raw)), max_size=6))
    places = [0, *sorted((ends - joined) | cuts | {len(raw)})]
    return [raw[start:end] for start, end in itertools.pairwise(places)]


@settings(max_examples=400)
@given(chunked_reads(), st.integers(0, 3), st.frozensets(st.integers(0, 8), max_size=4), st.booleans())
@example([b"5\r\nhello\r\n", b"5\r\nworld\r\n1\r\nx\r\n3", b"\r\nabc\r\n", LAST], 0, frozenset({0}), False)
@example([b"5\r\nhello\r\n", b"5\r\nworld\r\n" + LAST], 0, frozenset({0}), False)
@example([b"5\r\nhello\r\n" + LAST], 1, frozenset({0}), False)
@example([as_chunk(b"x"), b"1\r\ny\r\na\r\n", b"5\r\nhello\r\n", b"\r\n", LAST], 0, frozenset(), False)
@example([as_chunk(LONG) + LAST], 1, frozenset({0}), False)
@example([as_chunk(LONG) + LAST], 0, frozenset({0}), False)
@example([as_chunk(b"one"), as_chunk(LONG) + LAST], 0, frozenset({1}), False)
@example([as_chunk(LONG) + as_chunk(b"one") + LAST], 1, frozenset({0}), False)
def test_any_body_in_any_reads(reads: list[bytes], with_head: int, pauses: frozenset[int], tls: bool) -> None:
    """Wherever it is cut, whenever the reader is slow: all of it, at once, and its end.

    At once: what has come is handed on in the very call, however little more is to come, unless the
    consumer wanted a pause.
    """
    so_far = b"".join(reads[:with_head])
    with opened(first=so_far, pauses=pauses) as body:
        assert body.lets_go
        for read in reads[with_head:]:
            body.read(read, buffered=tls)
            so_far += read
            expected, whole = decoded(so_far)
            if not body.paused:
                assert body.received == expected
                assert body.ends == [None] * whole
            assert body.lets_go
            body.turn()
        while body.paused:
            body.resume()
        assert (body.received, True) == decoded(so_far)
        assert body.ends == [None]


@settings(max_examples=200)
@given(
    st.lists(DATA, min_size=1, max_size=8),
    st.frozensets(st.integers(0, 8), max_size=4),
    st.booleans(),
    st.booleans(),
)
@example([b"one", b"two"], frozenset({0}), True, False)
def test_any_body_without_chunks(
    reads: list[bytes], pauses: frozenset[int], length: bool, with_head: bool
) -> None:
    """A body that says its length, and one that ends with its connection."""
    raw = b"".join(reads)
    head = HEAD + (b"Content-Length: %d\r\n\r\n" % len(raw) if length else b"\r\n")
    with opened(head, first=reads.pop(0) if with_head else b"", pauses=pauses) as body:
        for read in reads:
            body.read(read)
            body.turn()
        if not length:
            body.lose()
        while body.paused:
            body.resume()
        assert body.received == raw
        assert body.ends == [None]


def test_the_short_way_is_taken_and_left_and_found_again() -> None:
    """Once the parser has seen a chunk end with a read, whole chunks pass it by; a cut one brings it
    back for as long as it takes.
    """
    with opened() as body:
        for read in (b"1\r\na\r\n", b"1\r\nb\r\n", b"1\r\nc\r\n", b"1\r\nd", b"\r\n", b"1\r\ne\r\n", LAST):
            body.read(read)
        assert body.parsed == [b"1\r\na\r\n", b"1\r\nd", b"\r\n", LAST]
        assert (body.received, body.ends) == (b"abcde", [None])


@pytest.mark.parametrize(
    "read",
    [
        b"A\r\n0123456789\r\n",
        b"05\r\nhello\r\n",
        b"5;x=1\r\nhello\r\n",
        b"1\r\na\r\n1\r\nb\r\n",
        b"5\r\nhel",
        b"5\r",
        b"0\r\nX-Sum: 1\r\n\r\n",
        b"f000\r\n" + b"x" * 0xF000 + b"\r\n1\r\ny\r\n",
        as_chunk(LONG),
    ],
    ids=lambda read: repr(read[:20]),
)
def test_any_other_read_is_parsed(read: bytes) -> None:
    """Another spelling, more than a chunk, less than one, the end, and what is too much for one turn."""
    with opened(first=b"1\r\na\r\n") as body:
        body.read(as_chunk(b"b"))
        body.read(as_chunk(b"c"))
        assert body.parsed == [as_chunk(b"b")]
        body.read(read)
        assert body.parsed == [as_chunk(b"b"), read]
        assert body.received == b"abc" + decoded(read)[0]


def test_a_chunk_that_began_before_the_source_is_not_mistaken() -> None:
    """The parser stands inside a chunk whose data look like a whole chunk."""
    with opened(first=b"c\r\n1\r") as body:
        for read in (b"\nx\r\n", b"1\r\ny\r\n\r\n", LAST):
            body.read(read)
        assert (body.received, body.ends) == (b"1\r\nx\r\n1\r\ny\r\n", [None])


def test_a_pause_ends_the_short_way() -> None:
    """What TLS has in its buffers comes all the same: it waits in the body, and then in its order."""
    with opened(pauses={1}) as body:
        body.read(as_chunk(b"a"))
        body.read(as_chunk(b"b"))
        assert body.paused
        assert not body.kernel.reading
        body.read(as_chunk(b"c"), buffered=True)
        body.read(as_chunk(b"d") + LAST, buffered=True)
        assert body.received == b"ab"
        body.resume()
        assert body.kernel.reading
        assert (body.received, body.ends) == (b"abcd", [None])


def test_a_fast_upstream_leaves_turns_to_others() -> None:
    """A read that fills a turn is the connection's last in it."""
    with opened() as body:
        body.protocol.data_received(as_chunk(LONG))
        assert body.received == LONG
        assert not body.kernel.reading
        body.turn()
        assert body.kernel.reading
        body.protocol.data_received(as_chunk(LONG) + LAST)
        assert body.kernel.reading, "the connection is another response's now"
        assert body.ends == [None]


def test_a_connection_goes_on_to_its_next_response() -> None:
    """A paused reader still has the end of the last one to take; both get what is theirs."""
    with opened(pauses={0}) as body:
        body.read(as_chunk(LONG) + LAST)
        assert body.paused
        assert not body.ends
        assert body.protocol._tap is None
        following = Body(body.protocol, body.kernel, body.loop)
        following.answer(CHUNKED)
        following.start()
        body.resume()
        following.read(as_chunk(b"next"))
        following.read(as_chunk(b" one"))
        assert (following.received, body.received, body.ends) == (b"next one", LONG, [None])


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")])
@pytest.mark.parametrize(
    "reads", [[], [b"1\r\nb\r\n"], [b"1\r\nb\r\n", b"1\r\nc\r\n"], [b"5\r\nbroken"], [b"5"]]
)
def test_a_connection_that_breaks_off(reads: list[bytes], error: Exception | None) -> None:
    """What came before it came; then one end, with what broke it."""
    with opened(first=b"1\r\na\r\n") as body:
        for read in reads:
            body.read(read)
        body.lose(error)
        assert body.received == decoded(b"1\r\na\r\n" + b"".join(reads))[0]
        (told,) = body.ends
        assert told


@pytest.mark.parametrize("started", [True, False], ids=["paused", "not begun"])
def test_what_had_come_is_not_lost_with_the_connection(started: bool) -> None:
    """It waits in the body when the connection breaks off, and the error waits behind it."""
    with opened(pauses={0}, started=started) as body:
        body.read(as_chunk(b"a"))
        body.read(as_chunk(b"b"), buffered=True)
        body.lose(ConnectionResetError("reset"))
        if not started:
            body.start()
        body.resume()
        body.turn()
        assert body.received == b"ab"
        (told,) = body.ends
        assert told


@pytest.mark.parametrize(
    "bad", [b"zz\r\nhello\r\n", b"\r\n" + b"x" * 17 + b"\r\n", b"-5\r\nhello\r\n", b"5\r\nhelloXX"]
)
def test_what_is_no_chunk_breaks_the_body(bad: bytes) -> None:
    """After whole ones that passed the parser by: it is asked, and refuses."""
    with opened() as body:
        for read in (as_chunk(b"a"), as_chunk(b"b"), bad):
            body.read(read)
        body.lose()
        assert body.received in (b"ab", b"abhello")
        (told,) = body.ends
        assert told
        assert body.kernel.closed


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_closed_source_is_silent(at: int) -> None:
    """Closed in the middle of a read, on either way: nothing more comes, not even the end."""
    with opened() as body:
        body.closes_at = at
        for read in (as_chunk(b"a"), as_chunk(b"b"), as_chunk(b"c"), as_chunk(b"d") + LAST):
            body.read(read)
        body.lose()
        body.turn()
        assert (body.calls, body.ends) == (at + 1, [])
        assert body.protocol._tap is None


@pytest.mark.parametrize(
    ("reads", "bad"),
    [([b"1\r\na\r\n1"], b"\r\nb\r\n"), ([b"1\r\na\r\n"], b"1\r\nb\r\n")],
    ids=["parsed", "short"],
)
def test_a_fault_of_the_consumer_is_its_end(reads: list[bytes], bad: bytes) -> None:
    """It is raised to the loop, which tells it and drops the connection; the consumer hears of the end."""
    with opened() as body:
        for read in reads:
            body.read(read)
        body.fails = True
        with pytest.raises(ZeroDivisionError) as fault:
            body.read(bad)
        body.lose(fault.value)
        (told,) = body.ends
        assert told


def test_polling_takes_what_is_there() -> None:
    """Without waiting for a turn of the loop; not while a pause is wanted."""
    with opened(first=as_chunk(b"a"), started=False) as body:
        assert body.received == b""
        body.source.poll()
        assert body.received == b"a"
        body.source.pause()
        body.read(as_chunk(b"b"), buffered=True)
        body.source.poll()
        assert body.received == b"a"
        body.source.resume()
        body.turn()
        assert body.received == b"ab"


# On real sockets, through a whole sidecar

Wrapped = Callable[..., None]


@dataclass
class Reads:
    """The reads of all upstream connections in their order: which way each went, and what it was."""

    log: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that have been read."""
        return sum(len(data) for _, data in self.log)

    @property
    def ways(self) -> list[str]:
        """The ways: ``short``, ``parsed`` for the tap, or ``untapped``."""
        return [way for way, _ in self.log]

    async def come(self, connection: Connection, *pieces: bytes) -> None:
        """Send pieces, each of which is a read of its own (one of more than 64 KiB perhaps of more)."""
        for piece in pieces:
            size = self.size + len(piece)
            await connection.send(piece)
            deadline = time.monotonic() + PATIENCE
            while self.size < size:
                assert time.monotonic() < deadline, f"{piece!r} was not read"
                await asyncio.sleep(0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """What the upstream connections read from now on."""
    reads = Reads()
    data_received, parse = DirectProtocol.data_received, DirectProtocol._parse

    def note_read(self: DirectProtocol, data: bytes) -> None:
        if data:
            reads.log.append(("untapped" if self._tap is None else "short", data))
        data_received(self, data)

    def note_parsed(self: DirectProtocol, data: bytes, tap: Any) -> None:
        reads.log[-1] = ("parsed", data)
        parse(self, data, tap)

    monkeypatch.setattr(DirectProtocol, "data_received", note_read)
    monkeypatch.setattr(DirectProtocol, "_parse", note_parsed)
    return reads


@pytest.fixture
async def start_fast() -> AsyncIterator[StartSidecar]:
    """Start sidecars on the fast path only: for what only it does."""
    running: list[Sidecar] = []

    async def start(upstream: str, **settings: Any) -> Sidecar:
        sidecar = Sidecar(config_for(upstream, **settings))
        assert sidecar.config.fast_path
        await sidecar.start()
        running.append(sidecar)
        return sidecar

    yield start
    for sidecar in running:
        await sidecar.stop()


def event(number: int, size: int = 0) -> bytes:
    """A block as an app sends it, with ``size`` bytes of its own."""
    return b"data: %06d %b\n\n" % (number, b"x" * size)


def told(text: bytes) -> list[int]:
    """The numbers of the events in a piece of a stream."""
    return [int(number) for number in re.findall(rb"^data: (\d{6}) x*$", text, re.M)]


async def begin(connection: Connection) -> None:
    """Begin a stream that the test goes on with, and serve no other request while it does."""
    await connection.start_stream()
    await connection.gone()


async def text_of(answer: Answer) -> bytes:
    """The rest of a stream, its stream id written as ``ID``."""
    return (await answer.rest()).replace((answer.header("stream-id") or "").encode(), b"ID")


async def cut_short(answer: Answer) -> bytes:
    """What is left of a stream that does not end as it should."""
    received = bytearray()
    try:
        while data := await answer.chunk():
            received += data
    except Truncated:
        return bytes(received)
    raise AssertionError("the body ended clean")


async def state_of(sidecar: Sidecar, answer: Answer) -> dict[str, Any]:
    """What the stream of an answer has come to."""
    document = await (await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}/state")).json()
    assert isinstance(document, dict)
    return document


async def test_whole_chunks_pass_the_parser_by(
    reads: Reads, start_origin: StartOrigin, start_fast: StartSidecar
) -> None:
    """From the second whole chunk on; and again after the parser was needed for one that was cut."""
    origin = await start_origin(begin)
    answer = await ask((await start_fast(origin.url)).url)
    connection = await origin.request()
    await reads.come(connection, *(as_chunk(event(number)) for number in range(3)))
    cut = as_chunk(event(3))
    await reads.come(connection, cut[:9], cut[9:], *(as_chunk(event(number)) for number in (4, 5)), LAST)
    assert reads.ways == [
        "untapped",
        "parsed",
        "short",
        "short",
        "parsed",
        "parsed",
        "short",
        "short",
        "parsed",
    ]
    assert told(await answer.rest()) == [0, 1, 2, 3, 4, 5]


#: Chunked bodies of the same three events, in every form that a server may give them.
FORMS = {
    "a chunk each": as_chunk(event(1)) + as_chunk(event(2)) + as_chunk(event(3)) + LAST,
    "one chunk": as_chunk(event(1) + event(2) + event(3)) + LAST,
    "upper case": b"1E\r\n" + event(1) + event(2) + b"\r\nF\r\n" + event(3) + b"\r\n" + LAST,
    "leading zeros": b"00f\r\n" + event(1) + b"\r\n01E\r\n" + event(2) + event(3) + b"\r\n00\r\n\r\n",
    "extensions": b"f;a\r\n" + event(1) + b"\r\n1e;b=1\r\n" + event(2) + event(3) + b'\r\n0;c="d"\r\n\r\n',
    "trailers": as_chunk(event(1) + event(2)) + as_chunk(event(3)) + b"0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
    "cut events": as_chunk(event(1)[:7]) + as_chunk(event(1)[7:] + event(2)[:14])
    + as_chunk(event(2)[14:] + event(3)) + LAST,
    "tiny chunks": b"".join(as_chunk(bytes([byte])) for byte in event(1) + event(2) + event(3)) + LAST,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
async def test_a_body_may_be_cut_anywhere(
    form: str, reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """In two reads, for each place between two bytes, and byte by byte: always the same stream, and
    always the same upstream connection.
    """
    raw = FORMS[form]
    places = range(1, len(raw), 1 if len(raw) < 100 else 7)
    ways = [[raw], [bytes([byte]) for byte in raw], *([raw[:place], raw[place:]] for place in places)]

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await reads.come(connection, *ways[len(origin.requests) - 1])

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    for way in ways:
        answer = await ask(sidecar.url)
        text = await text_of(answer)
        answer.close()
        assert told(text) == [1, 2, 3], way
        assert re.findall(rb"id: ID\.(\d)", text) == [b"1", b"2", b"3"], way
    assert len({connection.writer for connection in origin.requests}) == 1


HEADS = {
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", True),
    "chunked, closing": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n", False),
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n", True),
    "length, closing": (b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\nConnection: close\r\n", False),
    "until the end": (b"HTTP/1.1 200 OK\r\n", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n", False),
}


@pytest.mark.parametrize("framing", HEADS)
@pytest.mark.parametrize("apart", [True, False], ids=["reads", "one read"])
async def test_every_framing(
    apart: bool, framing: str, reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A stream ends where its framing says so, and its connection serves the next one where it may."""
    head, stays = HEADS[framing]
    pieces = [event(number) + b"\n" for number in (1, 2, 3, 4)]
    if "chunked" in framing:
        pieces = [*map(as_chunk, pieces), LAST]

    async def script(connection: Connection) -> None:
        await connection.send(head + b"Content-Type: text/event-stream\r\n\r\n")
        await reads.come(connection, *(pieces if apart else [b"".join(pieces)]))
        if not stays:
            await connection.close()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    for _ in range(3):
        answer = await ask(sidecar.url)
        assert told(await answer.rest()) == [1, 2, 3, 4]
        assert (await state_of(sidecar, answer))["reason"] == "complete"
    assert len({connection.writer for connection in origin.requests}) == (1 if stays else 3)


async def test_a_connection_serves_again_after_the_short_way(
    reads: Reads, start_origin: StartOrigin, start_fast: StartSidecar
) -> None:
    """Streams and plain answers in turn, on one connection; each stream finds the short way."""

    async def script(connection: Connection) -> None:
        if connection.target == "/plain":
            await connection.send(response(body=b"plain"))
            return
        await connection.start_stream()
        await reads.come(connection, *(as_chunk(event(number)) for number in range(4)), LAST)

    origin = await start_origin(script)
    sidecar = await start_fast(origin.url)
    for _ in range(3):
        assert told(await (await ask(sidecar.url, "/stream")).rest()) == [0, 1, 2, 3]
        assert await (await ask(sidecar.url, "/plain")).body() == b"plain"
    assert len({connection.writer for connection in origin.requests}) == 1
    assert reads.ways.count("short") >= 6  # the first chunk may come with the head


class TlsOrigin(Origin):
    """An origin behind TLS."""

    def __init__(self, script: Script, context: ssl.SSLContext) -> None:
        super().__init__(script)
        self.context = context

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24, ssl=self.context)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"https://localhost:{self.port}"


@pytest.fixture
async def start_tls_origin(
    tmp_path: Path,
) -> AsyncIterator[Callable[[Script], Awaitable[tuple[TlsOrigin, str]]]]:
    """Start origins behind TLS; returns each with the file of who vouches for it."""
    running: list[TlsOrigin] = []
    authority = trustme.CA()
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def start(script: Script) -> tuple[TlsOrigin, str]:
        origin = TlsOrigin(script, context)
        await origin.start()
        running.append(origin)
        return origin, str(trusted)

    yield start
    for origin in running:
        await origin.stop()
        assert not origin.errors, origin.errors


async def test_tls(
    reads: Reads,
    start_tls_origin: Callable[[Script], Awaitable[tuple[TlsOrigin, str]]],
    start_sidecar: StartSidecar,
) -> None:
    """Behind TLS a record is a read: the same way, the same reuse."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await reads.come(connection, *(as_chunk(event(number)) for number in range(5)), LAST)

    origin, authority = await start_tls_origin(script)
    upstreams = {"origin": {"url": origin.url, "tls_ca": authority}}
    sidecar = await start_sidecar(origin.url, upstreams=upstreams)
    for _ in range(2):
        assert told(await (await ask(sidecar.url)).rest()) == [0, 1, 2, 3, 4]
    assert len({connection.writer for connection in origin.requests}) == 1
    assert sidecar.config.fast_path is (reads.ways.count("short") >= 6)


async def test_tls_under_backpressure(
    start_tls_origin: Callable[[Script], Awaitable[tuple[TlsOrigin, str]]], start_sidecar: StartSidecar
) -> None:
    """What TLS holds in buffers of its own arrives in order, and none of it is lost."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        for number in range(6000):
            await connection.chunk(event(number, number % 3000))
        await connection.end()

    origin, authority = await start_tls_origin(script)
    upstreams = {"origin": {"url": origin.url, "tls_ca": authority}}
    policy = {"replay": {"max_bytes": 64 * 1024}}
    sidecar = await start_sidecar(origin.url, upstreams=upstreams, route=policy)
    answer = await ask(sidecar.url, method="POST")
    answer.stall()
    (relay,) = sidecar.hub.running
    await eventually(lambda: relay.paused, "the upstream waits")
    await asyncio.sleep(0.1)
    assert relay.log.bytes < 1024 * 1024
    answer.go_on()
    assert told(await answer.rest()) == list(range(6000))


# Clients


async def test_http_1_0(reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Events leave without chunks, and the stream's end is the connection's."""
    origin = await start_origin(begin)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, version="HTTP/1.0")
    assert answer.header("transfer-encoding") is None
    connection = await origin.request()
    await reads.come(connection, *(as_chunk(event(number)) for number in range(4)))
    assert told(b"".join(await answer.blocks(4))) == [0, 1, 2, 3]
    await reads.come(connection, as_chunk(event(4)) + LAST)
    assert await text_of(answer) == b"id: ID.5\n" + event(4)


async def test_requests_in_a_pipeline(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Two requests in one read of ours: two answers in their order, on one connection."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        for number in (1, 2, 3):
            await connection.chunk(event(number))
        await connection.chunk(b"data: %b\n\n" % connection.target.encode())
        await connection.end()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    wanted = b"".join(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % name for name in (b"first", b"second"))
    reader, writer = await send(sidecar.url, wanted)
    for name in (b"/first", b"/second"):
        answer = await read_answer(reader, writer)
        text = await answer.rest()
        assert told(text) == [1, 2, 3]
        assert text.endswith(b"data: " + name + b"\n\n")


async def test_a_client_that_leaves_in_the_middle(
    reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its stream goes on while it lingers; whoever comes back has it all."""
    origin = await start_origin(begin)
    sidecar = await start_sidecar(origin.url, route={"linger": "forever"})
    answer = await ask(sidecar.url, method="POST")
    connection = await origin.request()
    await reads.come(connection, *(as_chunk(event(number)) for number in range(3)))
    assert told(b"".join(await answer.blocks(3))) == [0, 1, 2]
    answer.abort()
    (relay,) = sidecar.hub.running
    await eventually(lambda: not relay.readers, "the reader is gone")
    await reads.come(connection, *(as_chunk(event(number)) for number in range(3, 6)), LAST)
    await eventually(lambda: relay.finished, "the end")
    again = await ask(sidecar.url, f"/_streams/{relay.id}?after=3")
    assert told(await again.rest()) == [3, 4, 5]


async def test_a_client_that_leaves_for_good(
    reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """With no linger its upstream connection is closed, whatever it is in the middle of."""
    origin = await start_origin(begin)
    sidecar = await start_sidecar(origin.url, route={"linger": "0s"})
    answer = await ask(sidecar.url, method="POST")
    connection = await origin.request()
    await reads.come(connection, *(as_chunk(event(number)) for number in range(3)), b"f\r\nda")
    answer.abort()
    async with asyncio.timeout(PATIENCE):
        await connection.peer_closed.wait()
    assert not sidecar.hub.running


# Upstreams that fail


def reset(connection: Connection) -> None:
    """Drop a connection as a crashed server does."""
    plain = connection.writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.writer.transport.abort()


@pytest.mark.parametrize("how", ["reset", "closed"])
@pytest.mark.parametrize(
    "half",
    [b"", b"f", b"f\r\n", b"f\r\ndata: 0000", b"f\r\n" + event(9), b"f\r\n" + event(9) + b"\r", b"0\r\n"],
)
async def test_an_upstream_that_breaks_off(
    half: bytes, how: str, reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Wherever in a chunk it happens: the events before it stay, none is made up, and the end is told."""
    origin = await start_origin(begin)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="POST")
    connection = await origin.request()
    await reads.come(connection, *(as_chunk(event(number)) for number in range(3)), *([half] if half else []))
    if how == "reset":
        reset(connection)
    else:
        await connection.close()
    complete = [0, 1, 2, 9] if event(9) in half else [0, 1, 2]
    assert told(await cut_short(answer)) == complete
    assert (await state_of(sidecar, answer))["reason"] == "truncated"


@pytest.mark.parametrize("how", ["reset", "closed"])
@pytest.mark.parametrize("apart", [True, False])
async def test_an_upstream_that_breaks_off_at_once(
    apart: bool, how: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Before anybody has begun to read: what had come is not lost with the connection."""

    async def script(connection: Connection) -> None:
        events = b"".join(as_chunk(event(number)) for number in range(3))
        for piece in (CHUNKED, events) if apart else (CHUNKED + events,):
            await connection.send(piece)
        if how == "reset":
            await asyncio.sleep(0.05)  # a reset throws away what the kernel has
            reset(connection)
        await connection.close()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    for _ in range(5):
        assert told(await cut_short(await ask(sidecar.url, method="POST"))) == [0, 1, 2]


async def fill(reads: Reads, connection: Connection, answer: Answer, sidecar: Sidecar) -> int:
    """Send events to a client that reads nothing until the upstream is not read either; return how many."""
    (transport,) = transports(sidecar)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    answer.stall()
    (relay,) = sidecar.hub.running
    count = 0
    while not relay.paused:
        await reads.come(connection, as_chunk(event(count, 800)))
        count += 1
        await asyncio.sleep(0)
    return count


async def test_an_upstream_that_breaks_off_unread(
    reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It waits for a slow reader when it dies: what it had said by then still reaches the reader."""
    origin = await start_origin(begin)
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_bytes": 1024}, "high_water": 4096})
    answer = await ask(sidecar.url, method="POST", window=4096)
    connection = await origin.request()
    count = await fill(reads, connection, answer, sidecar)
    await connection.send(as_chunk(event(count)))
    await connection.close()
    await asyncio.sleep(0.05)
    answer.go_on()
    assert told(await cut_short(answer)) == list(range(count + 1))
    assert (await state_of(sidecar, answer))["reason"] == "truncated"


async def test_a_stream_that_ends_itself_while_its_reader_is_slow(
    reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """One read fills the window and breaks a bound: nothing of it is left behind, not even a task."""
    origin = await start_origin(begin)
    policy = {"replay": {"max_bytes": 1024}, "high_water": 4096, "max_event_bytes": "1KiB"}
    sidecar = await start_sidecar(origin.url, route=policy)
    answer = await ask(sidecar.url, method="POST", window=4096)
    connection = await origin.request()
    (transport,) = transports(sidecar)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    answer.stall()
    count = 0
    (relay,) = sidecar.hub.running
    while not count or relay.readers[0].live:
        await reads.come(connection, as_chunk(event(count, 800)))
        count += 1
        await asyncio.sleep(0)
    await reads.come(connection, as_chunk(event(count, 900) + event(count + 1, 900) + event(0, 2000)))
    await eventually(lambda: not (sidecar.hub.running or sidecar.hub._tasks), "the source is gone")
    assert relay.tally.pauses
    answer.go_on()
    assert told(await cut_short(answer)) == list(range(count + 2))
    assert (await state_of(sidecar, answer))["reason"] == "overflow"


@pytest.mark.parametrize(
    "bad",
    [
        b"zz\r\nhello\r\n",
        b"\r\n" + b"x" * 17 + b"\r\n",
        b"f" * 20 + b"\r\n",
        b"\r\n\r\n",
        b"-1\r\nx\r\n",
        b"f\r\n" + event(9) + b"XX",
    ],
    ids=repr,
)
async def test_an_upstream_that_loses_its_place(
    bad: bytes, reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """After whole chunks comes what is none: the stream breaks there, and an SDK is told so in its form."""
    origin = await start_origin(begin)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/v1/chat/completions", method="POST")
    connection = await origin.request()
    chunk = b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n'
    await reads.come(connection, *(as_chunk(chunk % number) for number in range(3)), bad)
    text = await answer.rest()
    assert text.count(b'"content"') == 3
    assert b'data: {"error":' in text
    assert (await state_of(sidecar, answer))["reason"] == "truncated"
    async with asyncio.timeout(PATIENCE):
        await connection.peer_closed.wait()


async def test_a_coded_body_takes_the_ordinary_way(
    reads: Reads, start_origin: StartOrigin, start_fast: StartSidecar
) -> None:
    """Its bytes are no events until they are decoded, which a task does, read by read."""

    async def script(connection: Connection) -> None:
        await connection.start_stream(b"Content-Encoding: gzip\r\n")
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        for number in range(4):
            piece = packer.compress(event(number)) + packer.flush(zlib.Z_SYNC_FLUSH)
            await reads.come(connection, as_chunk(piece))
        await reads.come(connection, as_chunk(packer.flush()) + LAST)

    origin = await start_origin(script)
    sidecar = await start_fast(origin.url)
    answer = await ask(sidecar.url)
    assert told(await answer.rest()) == [0, 1, 2, 3]
    assert set(reads.ways) == {"untapped"}


# The last read, and slow readers


#: Under ``auto`` an app's own ids may still come, and with them comments that have to leave as they came;
#: so its last read is not kept back.
IDS = pytest.mark.parametrize("ids", ["auto", "always", "never"])


@IDS
@pytest.mark.parametrize(("size", "window"), [(100, 1024), (20_000, 1024), (60_000, 65536), (200_000, 65536)])
@pytest.mark.parametrize("events", [1, 40])
async def test_the_last_read_meets_a_slow_reader(
    events: int,
    size: int,
    window: int,
    ids: str,
    reads: Reads,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """Data and the end in one read, more than the window holds, and a socket that takes nothing: the
    end waits until all of it is delivered.
    """
    origin = await start_origin(begin)
    sidecar = await start_sidecar(
        origin.url, route={"replay": {"max_bytes": window}, "high_water": 4096, "ids": ids}
    )
    answer = await ask(sidecar.url, method="POST", window=4096)
    (transport,) = transports(sidecar)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    answer.stall()
    connection = await origin.request()
    filling = 0
    while not unsent(sidecar):
        await reads.come(connection, as_chunk(event(filling, 800)))
        filling += 1
        await asyncio.sleep(0)
    last = b"".join(event(filling + number, size // events) for number in range(events))
    await connection.send(as_chunk(last) + LAST)
    await asyncio.sleep(0.05)
    answer.go_on()
    assert told(await answer.rest()) == list(range(filling + events))
    assert (await state_of(sidecar, answer))["reason"] == "complete"


@IDS
@pytest.mark.parametrize("window", [64, 4096])
@pytest.mark.parametrize("path", ["/events", "/v1/chat/completions"])
async def test_a_first_read_that_is_the_last_and_more_than_the_window(
    path: str, window: int, ids: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """All of it comes with the head, before there is a reader, and is that reader's."""
    body = b"".join(as_chunk(event(number, 500)) for number in range(60))
    if path != "/events":
        body += as_chunk(b"data: [DONE]\n\n")

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED + body + LAST)

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_bytes": window}, "ids": ids})
    for _ in range(3):
        answer = await ask(sidecar.url, path, method="POST")
        assert told(await answer.rest()) == list(range(60))
        assert (await state_of(sidecar, answer))["reason"] in ("complete", "truncated")


@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_a_slow_reader_of_a_fast_upstream(
    framing: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Small events as fast as they are taken, and a reader that stops now and then: the process holds
    its window and no more, and not one event is lost.
    """
    count, size = 30_000, 1000
    sent = 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        plain = connection.writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        head = HEAD + b"Content-Length: %d\r\n\r\n" % (count * len(event(0, size)))
        await connection.send(CHUNKED if framing == "chunked" else head)
        for number in range(count):
            data = event(number, size)
            connection.writer.write(as_chunk(data) if framing == "chunked" else data)
            if number % 20 == 0:
                await connection.writer.drain()
                sent = number
        if framing == "chunked":
            await connection.end()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_bytes": 256 * 1024}})
    answer = await ask(sidecar.url, method="POST", window=65536)
    (relay,) = sidecar.hub.running
    text = b""
    for _ in range(3):
        answer.stall()
        await eventually(lambda: relay.paused, "the upstream waits")
        await at_rest(lambda: sent)
        assert relay.log.bytes < 256 * 1024 + 512 * 1024
        before = len(told(text))
        assert sent - before < count / 2  # the kernel's buffers, which are large
        answer.go_on()
        while len(text) < (before + 3000) * len(event(0, size)):
            text += await answer.chunk()
    assert told(text + await answer.rest()) == list(range(count))


# Faults of our own


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """What is logged of faults, by us or by the loop."""
    with structlog.testing.capture_logs() as lines:
        yield lambda: caplog.text + repr([line for line in lines if line["log_level"] == "error"])


@IDS
@pytest.mark.parametrize("when", ["alone", "with others", "last"])
async def test_a_fault_of_our_own_ends_the_stream(
    when: str,
    ids: str,
    faults: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    reads: Reads,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """On every way a read can take: the log has its traceback, the reader an end, the upstream too."""

    def fail(_numbering: object, what: bytes | list[bytes]) -> None:
        raise ZeroDivisionError(f"a fault with {what!r}")

    origin = await start_origin(begin)
    sidecar = await start_sidecar(origin.url, route={"ids": ids})
    answer = await ask(sidecar.url, method="POST")
    connection = await origin.request()
    await reads.come(connection, as_chunk(event(0)), as_chunk(event(1)))
    assert told(b"".join(await answer.blocks(2))) == [0, 1]
    for name in ("number_plain", "number_plain_blocks", "number"):
        monkeypatch.setattr(Numbering, name, fail)
    bad = {
        "alone": as_chunk(event(2)),
        "with others": as_chunk(event(2)) + as_chunk(event(3)),
        "last": as_chunk(event(2)) + LAST,
    }
    await reads.come(connection, bad[when])
    assert await cut_short(answer) == b""
    assert (await state_of(sidecar, answer))["reason"] == "truncated"
    assert not sidecar.hub.running
    await eventually(lambda: "a fault with" in faults(), "the log line")
    if when != "last":
        async with asyncio.timeout(PATIENCE):
            await connection.peer_closed.wait()


@IDS
async def test_a_last_read_that_is_too_long_ends_the_stream(
    ids: str, reads: Reads, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The end that a block brings about is told, though the upstream's own comes in the same read."""
    origin = await start_origin(begin)
    sidecar = await start_sidecar(origin.url, route={"max_event_bytes": "1KiB", "ids": ids})
    answer = await ask(sidecar.url, method="POST")
    connection = await origin.request()
    await reads.come(connection, as_chunk(event(0)), as_chunk(event(1) + event(2, 2000)) + LAST)
    assert told(await cut_short(answer)) == [0, 1]
    assert (await state_of(sidecar, answer))["reason"] == "overflow"


# A reload


async def test_a_reload_can_switch_it(reads: Reads, tmp_path: Path, start_origin: StartOrigin) -> None:
    """What runs goes on as it began; what comes takes the other way."""
    file = tmp_path / "sidecar.yaml"

    def configure(fast_path: bool) -> None:
        document = {
            "listen": "127.0.0.1:0",
            "fast_path": fast_path,
            "upstreams": {"origin": {"url": origin.url}},
            "routes": [{"name": "all", "path": "/{tail:.*}", "upstream": "origin"}],
        }
        file.write_text(yaml.safe_dump(document))

    async def ways_of(request: int, answer: Answer, first: int) -> set[str]:
        before = len(reads.log)
        connection = await origin.request(request)
        await reads.come(connection, *(as_chunk(event(number)) for number in range(first, first + 3)))
        assert told(b"".join(await answer.blocks(3))) == list(range(first, first + 3))
        return set(reads.ways[before:])

    origin = await start_origin(begin)
    configure(True)
    sidecar = Sidecar(load(file), source=file)
    await sidecar.start()
    try:
        fast = await ask(sidecar.url)
        assert await ways_of(1, fast, 0) == {"parsed", "short"}
        configure(False)
        assert sidecar.reload()
        ordinary = await ask(sidecar.url)
        assert await ways_of(2, ordinary, 0) == {"untapped"}
        assert await ways_of(1, fast, 3) == {"short"}
        configure(True)
        assert sidecar.reload()
        again = await ask(sidecar.url)
        assert await ways_of(3, again, 0) == {"parsed", "short"}
        assert await ways_of(2, ordinary, 3) == {"untapped"}
        for number, answer in ((1, fast), (2, ordinary), (3, again)):
            await reads.come(await origin.request(number), LAST)
            assert await answer.rest() == b""
    finally:
        await sidecar.stop()
