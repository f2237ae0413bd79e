"""Each misbehaviour of a stream, on the wire."""

from __future__ import annotations

import asyncio
import json
import zlib

import pytest
from aiohttp.compression_utils import BrotliDecompressor

from proxy.demo import Running, State, expected_text
from proxy.demo.voice import FAILURE

from .wire import CHAT, connect, data_of, get, post

#: Six events: five tokens and ``done``.
TALK = "/api/chat?prompt=Hi&tokens=5&interval=0"


def _clock() -> float:
    """The clock by which the provider waits, so that no wait can seem too short."""
    return asyncio.get_running_loop().time()


async def test_each_event_is_a_write_of_its_own(running: Running) -> None:
    """A well-behaved stream: one chunk an event, the length unknown, the connection kept."""
    async with connect(running) as wire:
        wire.send(get(TALK))
        status, headers = await wire.head()
        chunks = await wire.chunks()
        wire.send(get("/api/hello"))
        assert (await wire.head())[0] == 200
    assert (status, headers["transfer-encoding"], len(chunks)) == (200, "chunked", 6)
    assert all(chunk.endswith(b"\n\n") and chunk.count(b"\n\n") == 1 for chunk in chunks)
    record = running.requests[0]
    assert (record.state, record.events, record.streaming) == (State.FINISHED, 6, True)


async def test_the_headers_can_be_late(running: Running) -> None:
    """``headers_delay`` holds back everything."""
    async with connect(running) as wire:
        began = _clock()
        wire.send(get(f"{TALK}&headers_delay=0.05"))
        await wire.head()
        assert _clock() - began >= 0.05


async def test_the_first_event_can_be_late(running: Running) -> None:
    """``first_delay`` sends the headers at once; nothing has been sent when they arrive."""
    async with connect(running) as wire:
        began = _clock()
        wire.send(get(f"{TALK}&first_delay=0.2"))
        await wire.head()
        assert running.requests[0].events == 0
        await wire.chunk()
        assert _clock() - began >= 0.2


async def test_events_come_at_an_interval(running: Running) -> None:
    """``interval`` lies between two events."""
    async with connect(running) as wire:
        began = _clock()
        wire.send(get("/api/chat?prompt=Hi&tokens=5&interval=0.01"))
        await wire.head()
        assert len(await wire.chunks()) == 6
        assert _clock() - began >= 5 * 0.01


async def test_a_stream_can_pause_in_the_middle(running: Running) -> None:
    """``pause_at`` and ``pause``: nothing comes between the third event and the fourth."""
    async with connect(running) as wire:
        began = _clock()
        wire.send(get(f"{TALK}&pause_at=3&pause=0.2"))
        await wire.head()
        for _ in range(3):
            await wire.chunk()
        assert running.requests[0].events == 3
        assert len(await wire.chunks()) == 3
        assert _clock() - began >= 0.2


@pytest.mark.parametrize("keep", [0, 3, 5])
async def test_a_stream_can_be_dropped_in_the_middle_of_a_block(running: Running, keep: int) -> None:
    """``drop_at``: so many events, half of the next, and no last chunk."""
    async with connect(running) as wire:
        wire.send(get(TALK))
        await wire.head()
        whole = await wire.chunks()
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&drop_at={keep}"))
        await wire.head()
        *events, half = await wire.chunks_before_cut()
    assert events == whole[:keep]
    assert half == whole[keep][: len(whole[keep]) // 2]
    record = running.requests[-1]
    assert (record.state, record.events) == (State.MISBEHAVED, keep)


async def test_a_stream_can_be_dropped_at_its_very_end(running: Running) -> None:
    """``drop_at`` the number of events: all of them, and no last chunk."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&drop_at=6"))
        await wire.head()
        assert len(await wire.chunks_before_cut()) == 6


@pytest.mark.parametrize(
    ("target", "call", "error"),
    [
        (
            "/v1/chat/completions",
            CHAT,
            {"message": FAILURE, "type": "server_error", "param": None, "code": None},
        ),
        ("/api/chat", {"prompt": "Hi"}, FAILURE),
    ],
)
async def test_an_error_can_come_in_the_middle(
    running: Running, target: str, call: dict[str, object], error: object
) -> None:
    """``error_at``: so many events, the API's error, a clean end of the body."""
    async with connect(running) as wire:
        wire.send(post(f"{target}?interval=0&error_at=3", call))
        await wire.head()
        *events, last = await wire.chunks()
    assert len(events) == 3
    assert json.loads(data_of(last)[0])["error"] == error
    assert running.requests[0].state is State.MISBEHAVED


async def test_a_stream_can_end_without_its_marker(running: Running) -> None:
    """``truncate_at``: a clean end of the body, but the terminal marker is not there."""
    async with connect(running) as wire:
        wire.send(post("/v1/chat/completions?interval=0&truncate_at=4", CHAT))
        await wire.head()
        body = b"".join(await wire.chunks())
    assert len(data_of(body)) == 4
    assert b"[DONE]" not in body
    assert running.requests[0].state is State.MISBEHAVED


async def test_a_stream_can_hang(running: Running) -> None:
    """``hang_at``: so many events, then nothing, on a connection that stays open."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&hang_at=2"))
        await wire.head()
        await wire.chunk()
        await wire.chunk()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wire.chunk()
        assert running.requests[0].running
        assert running.ledger.open_streams == 1


async def test_a_stream_can_be_endless(running: Running) -> None:
    """``endless``: after the whole text it goes on with it."""
    async with connect(running) as wire:
        wire.send(get("/api/chat?prompt=Hi&interval=0&endless=1"))
        await wire.head()
        texts = [json.loads(data_of(await wire.chunk())[0])["text"] for _ in range(300)]
    assert "".join(texts) == expected_text(300)


async def test_events_can_come_in_bursts(running: Running) -> None:
    """``burst``: so many events a write, the rest in the last one, a turn in between ends a burst early."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&burst=4"))
        await wire.head()
        assert [chunk.count(b"\n\n") for chunk in await wire.chunks()] == [4, 2]
        wire.send(get(f"{TALK}&burst=4&pause_at=1"))
        await wire.head()
        assert [chunk.count(b"\n\n") for chunk in await wire.chunks()] == [1, 4, 1]


async def test_writes_can_be_small_and_cut_through_characters(running: Running) -> None:
    """``split``: no write is longer, some are no UTF-8 by themselves, together they are the stream."""
    async with connect(running) as wire:
        wire.send(get("/api/chat?prompt=Hi&tokens=20&interval=0&split=7"))
        await wire.head()
        chunks = await wire.chunks()
    assert {len(chunk) for chunk in chunks} <= set(range(1, 8))
    with pytest.raises(UnicodeDecodeError):
        [chunk.decode() for chunk in chunks]
    *tokens, _ = data_of(b"".join(chunks))
    assert "".join(json.loads(data)["text"] for data in tokens) == expected_text(20)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
async def test_a_stream_can_be_compressed(running: Running, coding: str) -> None:
    """``encoding``: each event can be decoded when its write has come, and the whole is complete."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&encoding={coding}"))
        _, headers = await wire.head()
        chunks = await wire.chunks()
    assert headers["content-encoding"] == coding
    decode = (
        BrotliDecompressor().decompress_sync
        if coding == "br"
        else zlib.decompressobj(wbits=31 if coding == "gzip" else 15).decompress
    )
    events = [decode(chunk) for chunk in chunks]
    assert events[0] == b'event: token\ndata: {"text": "A"}\n\n'
    assert len(data_of(b"".join(events))) == 6


@pytest.mark.parametrize(("name", "line_end"), [("crlf", b"\r\n"), ("cr", b"\r")])
async def test_lines_can_end_otherwise(running: Running, name: str, line_end: bytes) -> None:
    """``newline``: the same lines under another line end."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&newline={name}"))
        await wire.head()
        chunks = await wire.chunks()
    assert chunks[0] == b'event: token%bdata: {"text": "A"}%b' % (line_end, line_end * 2)


async def test_a_provider_can_send_comments(running: Running) -> None:
    """``comments``: a comment and a blank line before each event, none of them counted."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&comments=1"))
        await wire.head()
        chunks = await wire.chunks()
    assert chunks[0::2] == [b": OPENROUTER PROCESSING\n\n"] * 6
    assert len(data_of(b"".join(chunks[1::2]))) == 6
    assert running.requests[0].events == 6


async def test_events_can_be_large(running: Running) -> None:
    """``size``: every JSON event has so many bytes, and means the same."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&size=100000"))
        await wire.head()
        chunks = await wire.chunks()
    assert {len(chunk) for chunk in chunks} == {100_000}
    assert json.loads(data_of(chunks[0])[0]) == {"text": "A"}


async def test_a_body_can_end_with_its_connection(running: Running) -> None:
    """``close``: neither chunks nor a length."""
    async with connect(running) as wire:
        wire.send(get(f"{TALK}&close=1"))
        _, headers = await wire.head()
        body = await wire.rest()
    assert headers["connection"] == "close"
    assert not headers.keys() & {"transfer-encoding", "content-length"}
    assert len(data_of(body)) == 6


async def test_the_header_asks_as_well_as_the_query(running: Running) -> None:
    """``X-Misbehave`` has the same keys."""
    async with connect(running) as wire:
        wire.send(get("/api/chat?prompt=Hi", "X-Misbehave: tokens=2; interval=0"))
        await wire.head()
        assert len(await wire.chunks()) == 3
