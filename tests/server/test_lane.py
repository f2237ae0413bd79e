"""The way of a stream's events: what leaves, what it leaves with, and that nothing is held back for it."""

from __future__ import annotations

import asyncio
import functools
from asyncio import selector_events
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from proxy.server.app import Sidecar
from proxy.server.relay import Relay
from proxy.server.wire import as_chunk
from tests.conftest import StartOrigin, StartSidecar, config_for, eventually
from tests.support.client import Answer, Truncated, ask
from tests.support.origin import SSE_HEAD, Connection
from tests.support.script import holds

LAST = b"0\r\n\r\n"
CHAT = b'data: {"choices":[{"index":0,"delta":{"content":"%d"},"finish_reason":null}]}\n\n'
DONE = b"data: [DONE]\n\n"


async def held(connection: Connection) -> None:
    """Begin a stream that the test goes on with."""
    await connection.start_stream()
    await connection.gone()


async def text_of(answer: Answer) -> bytes:
    """The rest of a stream, its stream id written as ``ID``."""
    return (await answer.rest()).replace((answer.header("stream-id") or "").encode(), b"ID")


# Reads that look plain, and are not


@pytest.mark.parametrize(
    ("ids", "reads", "live", "logged"),
    [
        ("never", [b"event: x\n", b"data: b\n\n"], b"event: x\ndata: b\n\n", b"event: x\ndata: b\n\n"),
        ("never", [b"data: b\r\n\r", b"\ndata: c\n\n"], b"data: b\n\ndata: c\n\n", b"data: b\n\ndata: c\n\n"),
        ("never", [b"data: b\n", b"data: c\n\n"], b"data: b\ndata: c\n\n", b"data: b\ndata: c\n\n"),
        ("never", [b": c\n", b"data: c\n\n"], b": c\ndata: c\n\n", b": c\ndata: c\n\n"),
        ("never", [b"retry: 5\n\n", b"data: b\n\n"], b"retry: 5\nretry: 5\ndata: b\n\n",
         b"retry: 5\ndata: b\n\n"),
        ("always", [b"retry: 5\n\n", b"data: b\n\n"], b"retry: 5\nid: ID.3\nretry: 5\ndata: b\n\n",
         b"id: ID.3\nretry: 5\ndata: b\n\n"),
        ("upstream", [b"id: 7\n\n", b"data: b\n\n"], b"id: 7\n\ndata: b\n\n", b"id: 7\n\ndata: b\n\n"),
        ("upstream", [b"data: b\n", b"data: c\n\n"], b"data: b\ndata: c\n\n", b"data: b\ndata: c\n\n"),
    ],
)  # fmt: skip
async def test_a_read_means_what_came_before_it(
    ids: str,
    reads: list[bytes],
    live: bytes,
    logged: bytes,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """Read by read behind a steady stream: the rest of a block, the LF of a CR, what a retry or an id
    is owed. Live, and for who comes later.
    """
    origin = await start_origin(held)
    sidecar = await start_sidecar(origin.url, route={"ids": ids})
    answer = await ask(sidecar.url)
    connection = await origin.request()
    for _ in range(2):  # from the second on a stream is steady
        await connection.chunk(b"data: a\n\n")
        await answer.block()
    (relay,) = sidecar.hub.running
    for read in reads:
        size = relay.tally.bytes_in + len(read)
        await connection.chunk(read)
        await eventually(functools.partial(has_read, relay, size), "the read")
    await connection.end()
    assert await text_of(answer) == live
    assert b"".join(relay.log.after(2, 1000)).replace(relay.id.encode(), b"ID") == logged


def has_read(relay: Relay, size: int) -> bool:
    """Whether so many bytes of the upstream's have been taken."""
    return relay.tally.bytes_in == size


async def test_the_first_event_is_looked_at_though_comments_came_before(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A path like Gemini's, and an app's own stream: reads without an event decide nothing."""
    origin = await start_origin(held)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/v1/models/m:streamGenerateContent", method="POST")
    connection = await origin.request()
    (relay,) = sidecar.hub.running
    for read in (b": one\n\n", b": two\n\n"):
        size = relay.tally.bytes_in + len(read)
        await connection.chunk(read)
        await eventually(functools.partial(has_read, relay, size), "the read")
    await connection.chunk(b"data: tick\n\n")
    assert (await answer.block()).startswith(b"id: ")
    assert relay.dialect.name == "generic"


# Comments, where they pass


@pytest.mark.parametrize("at_once", [True, False], ids=["with the head", "later"])
@pytest.mark.parametrize("ids", ["upstream", "auto"])
async def test_comments_of_the_first_and_the_last_read_pass(
    ids: str, at_once: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """They are in no log, so whoever is to see them must be there when they come: the reader of the
    first read, and the one of a last read that brings the end with it.
    """
    first = as_chunk(b": hello\n\nid: 1\ndata: a\n\n")
    last = as_chunk(b"data: z\n\n: bye\n\n") + LAST

    async def script(connection: Connection) -> None:
        if at_once:
            await connection.send(SSE_HEAD + first)
        else:
            await connection.start_stream()
            await asyncio.sleep(0.02)
            await connection.send(first)
        await asyncio.sleep(0.02)
        await connection.send(last)

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"ids": ids})
    text = await text_of(await ask(sidecar.url))
    hello = b": hello\n\n" if ids == "upstream" else b""  # under auto the ids are not yet the upstream's
    retry = b"retry: 3000\n" if ids == "auto" else b""
    lines = text.replace(retry, b"", 1)
    assert lines == hello + b"id: 1\ndata: a\n\ndata: z\n\n: bye\n\n"


async def test_comments_of_a_stream_that_is_one_read_pass(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Head, events, comments and end in one: the first read is the last."""
    body = b": hello\n\nid: 1\ndata: a\n\n: in between\n\ndata: z\n\n: bye\n\n"

    async def script(connection: Connection) -> None:
        await connection.send(SSE_HEAD + as_chunk(body) + LAST)

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"ids": "upstream"})
    assert await text_of(await ask(sidecar.url)) == body


# Joined writes


@dataclass
class Writes:
    """What a sidecar wrote to its clients: one entry for each call of a transport."""

    port: int = 0
    log: list[bytes] = field(default_factory=list)

    def to(self, sidecar: Sidecar) -> None:
        """Note the writes of this one."""
        self.port = urlsplit(sidecar.url).port or 0

    def note(self, transport: Any, data: bytes) -> None:
        """Note one call."""
        if transport.get_extra_info("sockname")[1] == self.port:
            self.log.append(data)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    """The writes of the sidecar that ``to`` names."""
    writes = Writes()
    transport = selector_events._SelectorSocketTransport
    write, writelines = transport.write, transport.writelines
    nested = False

    def note_write(self: Any, data: bytes) -> None:
        if not nested:
            writes.note(self, bytes(data))
        write(self, data)

    def note_writelines(self: Any, data: Iterable[bytes]) -> None:
        nonlocal nested
        parts = list(data)
        writes.note(self, b"".join(parts))
        nested = True  # it may be built on write
        try:
            writelines(self, parts)
        finally:
            nested = False

    monkeypatch.setattr(transport, "write", note_write)
    monkeypatch.setattr(transport, "writelines", note_writelines)
    return writes


@pytest.fixture
async def start_fast() -> AsyncIterator[Callable[..., Any]]:
    """Start sidecars on the fast path only: a task of its own cannot join the first read to the head."""
    running: list[Sidecar] = []

    async def start(upstream: str, **settings: Any) -> Sidecar:
        sidecar = Sidecar(config_for(upstream, **settings))
        await sidecar.start()
        running.append(sidecar)
        return sidecar

    yield start
    for sidecar in running:
        await sidecar.stop()


@pytest.mark.parametrize("ids", ["auto", "never"])
async def test_a_short_stream_that_comes_whole_leaves_in_one_write(
    ids: str, writes: Writes, start_origin: StartOrigin, start_fast: StartSidecar
) -> None:
    """Head, events and last chunk: an answer of a few tokens costs one packet."""

    async def script(connection: Connection) -> None:
        await connection.send(SSE_HEAD + as_chunk(CHAT % 1) + as_chunk(CHAT % 2) + as_chunk(DONE) + LAST)

    origin = await start_origin(script)
    sidecar = await start_fast(origin.url, route={"ids": ids})
    writes.to(sidecar)
    answer = await ask(sidecar.url, "/v1/chat/completions", method="POST")
    assert (await text_of(answer)).count(b"data: ") == 3
    (only,) = writes.log
    assert only.startswith(b"HTTP/1.1 200 OK\r\n")
    assert only.endswith(b"\r\n" + LAST)


async def test_the_last_events_leave_with_the_end(
    writes: Writes, start_origin: StartOrigin, start_fast: StartSidecar
) -> None:
    """An upstream's last read is one write; every read before it is one as well."""
    origin = await start_origin(held)
    sidecar = await start_fast(origin.url)
    writes.to(sidecar)
    answer = await ask(sidecar.url, "/v1/chat/completions", method="POST")
    connection = await origin.request()
    for number in range(3):
        await connection.chunk(CHAT % number)
        await answer.block()
    await connection.send(as_chunk(CHAT % 3) + as_chunk(CHAT % 4))
    await answer.blocks(2)
    await connection.send(as_chunk(CHAT % 5) + as_chunk(DONE) + LAST)
    await answer.rest()
    head, *events, several, last = writes.log
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert [piece.count(b"data: ") for piece in (head, *events, several, last)] == [0, 1, 1, 1, 2, 2]
    assert last.endswith(b"\r\n" + LAST)


async def test_several_readers_get_the_same_last_write(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Those who stand at the head, and one who has just come back."""
    origin = await start_origin(held)
    sidecar = await start_sidecar(origin.url)
    first = await ask(sidecar.url, "/v1/chat/completions", method="POST")
    connection = await origin.request()
    await connection.chunk(CHAT % 0)
    await first.block()
    stream = first.header("stream-id")
    others = [await ask(sidecar.url, f"/_streams/{stream}?after={after}") for after in ("now", 0)]
    await connection.send(as_chunk(CHAT % 1) + as_chunk(DONE) + LAST)
    counts = [(await answer.rest()).count(b"data: ") for answer in (first, *others)]
    assert counts == [2, 2, 3]


# And nothing waits for that


async def test_a_head_without_events_leaves_at_once(
    writes: Writes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """There is nothing to join it with, and it is not kept until there is."""
    origin = await start_origin(held)
    sidecar = await start_sidecar(origin.url)
    writes.to(sidecar)
    answer = await ask(sidecar.url, "/v1/chat/completions", method="POST")
    assert answer.status == 200
    (head,) = writes.log
    assert head.endswith(b"\r\n\r\n")
    await (await origin.request()).chunk(CHAT % 0)
    assert (await answer.block()).endswith(CHAT % 0)
    assert len(writes.log) == 2


async def test_half_a_first_event_keeps_no_head(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The first read completes no event: the head leaves, and heartbeats follow it until one is whole."""

    async def script(connection: Connection) -> None:
        await connection.send(SSE_HEAD + as_chunk(b"data: ha"))
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"heartbeat": "30ms"})
    answer = await ask(sidecar.url, "/v1/chat/completions", method="POST")
    assert await answer.until(b": ping\n" * 2) == b": ping\n" * 2
    await (await origin.request()).chunk(b"lf\n\n")
    assert (await answer.block()).replace(b": ping\n", b"").endswith(b"\ndata: half\n\n")


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_a_reader_that_is_gone_holds_up_nobody(
    version: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Of two live readers one resets its connection; the other, and the log, get every event."""
    origin = await start_origin(held)
    sidecar = await start_sidecar(origin.url)
    gone = await ask(sidecar.url, "/v1/chat/completions", method="POST", version=version)
    stays = await ask(sidecar.url, f"/_streams/{gone.header('stream-id')}", version=version)
    connection = await origin.request()
    await connection.chunk(CHAT % 0)
    for answer in (gone, stays):
        await answer.block()
    (relay,) = sidecar.hub.running
    await eventually(lambda: all(reader.live for reader in relay.readers), "both are live")
    gone.abort()
    for number in range(1, 9):
        await connection.chunk(CHAT % number)
        assert (await stays.block()).endswith(CHAT % number)
    await connection.send(as_chunk(DONE) + LAST)
    assert (await stays.rest()).endswith(DONE)
    assert relay.log.last == 10


async def test_a_read_after_the_end_is_nobodys(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A stream that was cancelled in the middle of a burst takes nothing more, on any way."""
    origin = await start_origin(held)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/events", method="POST")
    connection = await origin.request()
    for number in range(3):
        await connection.chunk(b"data: %d\n\n" % number)
    await answer.blocks(3)
    (relay,) = sidecar.hub.running
    relay.cancel("request", "enough")
    for late in (b"data: late\n\n", b"data: late\n\ndata: later\n\n", b"id: 7\ndata: odd\n\n"):
        relay.receive(late)
        relay.receive_last(late)
    relay.ended(None)
    assert relay.log.last == 3
    with pytest.raises(Truncated):
        assert await answer.rest()
    await connection.peer_closed.wait()


async def test_what_is_dropped_while_a_reader_catches_up_is_dropped_once(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The store knows the size of every log to the byte, also when an event finds the upstream paused."""
    origin = await start_origin(holds(b"data: 0\n\n"))
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_events": 3}})
    answer = await ask(sidecar.url, "/")
    await answer.block()
    [relay] = sidecar.hub.running
    [reader] = relay.readers
    relay.paused = True
    reader.fall_behind()
    relay.receive(b"".join(b"data: %d\n\n" % number for number in range(1, 10)))
    assert not relay.paused
    assert len(relay.log) == 3
    assert sidecar.hub.store.bytes == relay.log.bytes
    assert len(await answer.blocks(9)) == 9
