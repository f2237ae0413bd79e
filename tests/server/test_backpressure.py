"""Readers that are slow, upstreams that are fast, and the bounds between them (nothing grows unbounded)."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.server.wire import FrontProtocol
from tests.conftest import StartOrigin, StartSidecar, at_rest, eventually, transports
from tests.support.client import Answer, Truncated, ask
from tests.support.origin import PATIENCE, Connection, Origin

KIB, MIB = 1024, 1024 * 1024

#: What one read of an upstream may add to a log beyond its bound: aiohttp's read buffer and a socket's.
ONE_READ = 512 * KIB


@dataclass
class Flood:
    """An upstream that sends numbered blocks as fast as they are taken; ``sent`` counts them."""

    blocks: int
    size: int = 16 * KIB
    sent: int = 0

    async def __call__(self, connection: Connection) -> None:
        """Answer with the stream, and end it."""
        await connection.start_stream()
        for number in range(1, self.blocks + 1):
            await connection.chunk(b"data: %06d %b\n\n" % (number, bytes(b"x" * self.size)))
            self.sent = number
        await connection.end()


def numbers(text: bytes) -> list[int]:
    """The numbers of the blocks in a piece of a stream."""
    return [int(number) for number in re.findall(rb"data: (\d{6}) x*\n\n", text)]


def resident() -> int:
    """Resident memory of this process in bytes: the sidecar, and both ends of the wire."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def stop_reading(answer: Answer) -> None:
    """Take nothing from the socket any more."""
    answer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport


def read_on(answer: Answer) -> None:
    """Take bytes from the socket again."""
    answer.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a socket's transport


def window(size: int, **policy: Any) -> dict[str, Any]:
    """A route's policy with a log of so many bytes."""
    return {"replay": {"max_bytes": size}, **policy}


# A reader that reads nothing


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_reader_that_reads_nothing_stops_the_upstream(
    recorded: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """50 MB stay where they are: the log and the process stay small, and nothing is lost afterwards."""
    flood = Flood(blocks=3200)
    origin = await start_origin(flood)
    policy = window(256 * KIB) if recorded else {"replay": "off"}
    sidecar = await start_sidecar(origin.url, route={**policy, "timeouts": {"idle": "1200ms"}})
    before = resident()
    answer = await ask(sidecar.url, "/events", method="POST")
    stop_reading(answer)
    assert await at_rest(lambda: flood.sent) < flood.blocks / 2
    (relay,) = sidecar.hub.running
    assert relay.paused
    assert relay.log.bytes < 256 * KIB + ONE_READ
    assert resident() - before < 24 * MIB
    paused = sidecar.hub.loop.time()
    await eventually(lambda: sidecar.hub.loop.time() > paused + 1.5, "the idle limit has passed")
    read_on(answer)
    assert numbers(await answer.rest()) == list(range(1, flood.blocks + 1))
    assert relay.tally.pauses > 0


async def test_the_bound_in_events_counts_too(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A log of few large blocks is full by their number, or by their bytes."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_events": 10, "max_bytes": "1GiB"}})
    answer = await ask(sidecar.url, "/events", method="POST")
    stop_reading(answer)
    assert await at_rest(lambda: flood.sent) < flood.blocks
    (relay,) = sidecar.hub.running
    assert relay.log.bytes < 10 * flood.size + ONE_READ
    read_on(answer)
    assert numbers(await answer.rest()) == list(range(1, flood.blocks + 1))


async def test_a_burst_before_the_first_reader_is_not_cut_to_the_log(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What comes with the upstream's headers is the first reader's, however small the log."""

    async def script(connection: Connection) -> None:
        blocks = b"".join(b"data: %06d x\n\n" % number for number in range(1, 101))
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        await connection.send(head + b"Content-Length: %d\r\n\r\n%b" % (len(blocks), blocks))

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_events": 2}})
    headers = {"Idempotency-Key": "k", "Authorization": "Bearer me"}
    answer = await ask(sidecar.url, "/events", method="POST", headers=headers, body=b"x")
    assert numbers(await answer.rest()) == list(range(1, 101))


async def test_a_full_store_does_not_lose_what_a_slow_reader_has_to_get(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Where all logs together are at their bound the upstream waits as well: ``pause`` loses nothing."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(
        origin.url, route=window(16 * MIB), store={"memory": {"max_bytes": "512KiB"}}
    )
    answer = await ask(sidecar.url, "/events", method="POST")
    stop_reading(answer)
    assert await at_rest(lambda: flood.sent) < flood.blocks
    assert sidecar.hub.store.bytes < 512 * KIB + ONE_READ
    read_on(answer)
    assert numbers(await answer.rest()) == list(range(1, flood.blocks + 1))


async def test_a_socket_that_takes_nothing_is_closed(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """After ``timeouts.send``; the stream lingers, and the reader can come back."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(
        origin.url, route=window(64 * KIB, timeouts={"send": "100ms"}, linger="forever")
    )
    answer = await ask(sidecar.url, "/events", method="POST")
    first = await answer.block()
    stop_reading(answer)
    (relay,) = sidecar.hub.running
    await eventually(lambda: not relay.readers, "the reader is gone")
    assert not relay.finished
    read_on(answer)
    with pytest.raises((Truncated, ConnectionResetError)):
        await answer.rest()
    assert numbers(first) == [1]
    again = await ask(sidecar.url, f"/_streams/{relay.id}?after={relay.log.first - 1}")
    assert numbers(await again.rest())[-1] == flood.blocks


async def test_a_slow_socket_that_takes_something_stays(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``timeouts.send`` is for sockets that take nothing at all: a trickle is progress."""
    flood = Flood(blocks=1600)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(origin.url, route=window(64 * KIB, timeouts={"send": "1s"}))
    answer = await ask(sidecar.url, "/events", method="POST")
    text = b""
    for _ in range(4):  # longer than the limit, in all
        stop_reading(answer)
        await asyncio.sleep(0.4)
        read_on(answer)
        text += b"".join(await answer.blocks(200))
    assert numbers(text + await answer.rest()) == list(range(1, flood.blocks + 1))


# A slow reader beside a fast one


async def hold(connection: Connection) -> None:
    """Begin a stream that the test writes."""
    await connection.start_stream()
    await connection.gone()


async def fall_behind(origin: Origin, slow: Answer, fast: Answer, blocks: int) -> None:
    """Send blocks as fast as one reader takes them, while the other takes nothing; then end."""
    connection = await origin.request()
    stop_reading(slow)
    for number in range(1, blocks + 1):
        block = b"data: %06d %b\n\n" % (number, b"x" * 16 * KIB)
        await connection.chunk(block)
        assert (await fast.block()).endswith(block)
    await connection.end()
    assert await fast.rest() == b""
    read_on(slow)


@pytest.mark.parametrize("policy", ["pause", "drop"])
async def test_a_slow_reader_is_told_what_it_missed(
    policy: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The fast one gets all, at once; the other falls out of the log's window and reads of the gap."""
    origin = await start_origin(hold)
    sidecar = await start_sidecar(origin.url, route=window(64 * KIB, slow_reader=policy))
    slow = await ask(sidecar.url, "/events")
    fast = await ask(sidecar.url, f"/_streams/{slow.header('stream-id')}?after=0")
    await fall_behind(origin, slow, fast, 1500)
    text = await slow.rest()
    told = re.findall(rb'\n\nevent: stream-gap\ndata: {"from":(\d+),"to":(\d+)}\n\n', text)
    missed = {number for first, last in told for number in range(int(first), int(last) + 1)}
    assert missed
    assert numbers(text) == [number for number in range(1, 1501) if number not in missed]
    assert sidecar.telemetry.route("all").pauses == 0


@pytest.mark.parametrize("policy", ["pause", "drop"])
async def test_a_slow_reader_is_closed_where_gaps_are_failures(
    policy: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What it got is without a hole; then its connection ends unclean, and coming back is 410."""
    origin = await start_origin(hold)
    sidecar = await start_sidecar(origin.url, route=window(64 * KIB, slow_reader=policy, gap="fail"))
    slow = await ask(sidecar.url, "/events", method="POST")
    stream = slow.header("stream-id")
    fast = await ask(sidecar.url, f"/_streams/{stream}?after=0")
    await fall_behind(origin, slow, fast, 1500)
    got = numbers(await until_broken(slow))
    assert got == list(range(1, len(got) + 1))
    again = await ask(sidecar.url, f"/_streams/{stream}", headers={"Last-Event-ID": f"{stream}.{len(got)}"})
    assert again.status == 410
    assert int(again.header("stream-earliest") or 0) > len(got) + 1


async def until_broken(answer: Answer) -> bytes:
    """What came before the body's unclean end."""
    received = bytearray()
    try:
        while data := await answer.chunk():
            received += data
    except Truncated:
        return bytes(received)
    raise AssertionError("the body ended clean")


async def test_drop_never_waits(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Under ``slow_reader: drop`` the upstream is read to its end though nobody reads."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(origin.url, route=window(64 * KIB, slow_reader="drop"))
    answer = await ask(sidecar.url, "/events", method="POST")
    stop_reading(answer)
    await eventually(lambda: flood.sent == flood.blocks, "the upstream is read")
    assert sidecar.telemetry.route("all").pauses == 0
    (relay,) = sidecar.hub.store
    assert relay.log.bytes < 64 * KIB + ONE_READ


# Nobody reads


async def test_a_lingering_stream_waits_when_its_log_is_full(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Nobody reads, so nothing more is taken than can be replayed; whoever comes back gets it all."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(origin.url, route=window(1 * MIB, linger="forever"))
    answer = await ask(sidecar.url, "/events", method="POST")
    seen = numbers(await answer.block())[-1]
    answer.abort()
    (relay,) = sidecar.hub.running
    await eventually(lambda: not relay.readers and relay.paused, "the upstream waits")
    assert await at_rest(lambda: flood.sent) < flood.blocks
    assert relay.log.bytes < 1 * MIB + ONE_READ
    cursor = max(seen, relay.log.first - 1)
    again = await ask(sidecar.url, f"/_streams/{relay.id}?after={cursor}")
    assert numbers(await again.rest()) == list(range(cursor + 1, flood.blocks + 1))


async def test_a_reader_that_only_looks_ahead_lets_the_upstream_go_on(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Who joins at the head wants what comes, so it has to come."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(origin.url, route=window(256 * KIB, linger="forever"))
    answer = await ask(sidecar.url, "/events", method="POST")
    await answer.block()
    answer.abort()
    (relay,) = sidecar.hub.running
    await eventually(lambda: not relay.readers and relay.paused, "the upstream waits")
    head = relay.log.last
    late = await ask(sidecar.url, f"/_streams/{relay.id}?after=now")
    assert numbers(await late.rest()) == list(range(head + 1, flood.blocks + 1))


# All logs together


async def test_finished_logs_go_oldest_first(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Over ``store.memory.max_bytes`` the stream that ended first is forgotten first, and answers 410."""
    origin = await start_origin(Flood(blocks=10))  # 160 KiB each
    sidecar = await start_sidecar(origin.url, store={"memory": {"max_bytes": "400KiB"}})
    streams = []
    for _ in range(4):
        answer = await ask(sidecar.url, "/events", method="POST")
        await answer.rest()
        streams.append(answer.header("stream-id"))
    statuses = [(await ask(sidecar.url, f"/_streams/{stream}")).status for stream in streams]
    assert statuses == [410, 410, 200, 200]
    assert sidecar.hub.store.bytes <= 400 * KIB
    assert sidecar.hub.store.evicted == 2


async def test_then_new_streams_go_unrecorded(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """No ids, no resume, but all of the stream; and recorded again once there is room."""
    go = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: 000001 %b\n\n" % (b"x" * 100 * KIB))
        if connection is origin.requests[0]:
            await go.wait()
        await connection.chunk(b"data: 000002 x\n\n")
        await connection.end()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, store={"memory": {"max_bytes": "64KiB"}})
    running = await ask(sidecar.url, "/events", method="POST")
    assert (await running.block()).startswith(b"id: ")
    second = await ask(sidecar.url, "/events", method="POST")
    assert 'rel="resume"' not in (second.header("link") or "")
    text = await second.rest()
    assert numbers(text) == [1, 2]
    assert b"id: " not in text
    assert (await ask(sidecar.url, f"/_streams/{second.header('stream-id')}")).status == 404
    assert sidecar.telemetry.route("all").unrecorded == 1
    go.set()
    assert numbers(await running.rest()) == [2]
    third = await ask(sidecar.url, "/events", method="POST")
    assert 'rel="resume"' in (third.header("link") or "")
    assert (await third.block()).startswith(b"id: ")


async def test_a_client_that_leaves_lets_go_of_everything(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A slow reader that resets its connection frees its place, and with no linger its upstream."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(origin.url, route=window(64 * KIB, linger="0s"))
    answer = await ask(sidecar.url, "/events", method="POST")
    stop_reading(answer)
    await at_rest(lambda: flood.sent)
    answer.abort()
    async with asyncio.timeout(PATIENCE):
        await eventually(lambda: not sidecar.hub.running and not sidecar.hub.readers)
    assert flood.sent < flood.blocks


# A reader that is slow, and reads


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "download"])
async def test_a_slow_reader_that_takes_bytes_is_not_cut(
    stream: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``timeouts.send`` is about a reader that takes nothing: this one takes a little, many times."""
    narrowed = asyncio.Event()
    piece = b"data: %b\n\n" % (b"x" * (16 * KIB - 8))

    async def script(connection: Connection) -> None:
        if stream:
            await connection.start_stream()
        else:
            length = 64 * len(piece)
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        await narrowed.wait()
        for _ in range(64):
            await (connection.chunk if stream else connection.send)(piece)
        if stream:
            await connection.end()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"send": "300ms"}})
    closing = {"Connection": "close"}
    answer = await ask(sidecar.url, "/x", method="POST", headers=closing, window=4 * KIB)
    (transport,) = transports(sidecar)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * KIB)
    narrowed.set()
    loop = asyncio.get_running_loop()
    slow_until, taken = loop.time() + 1.5, b""
    while loop.time() < slow_until:
        answer.go_on()
        taken += await answer.reader.read(2 * KIB)
        answer.stall()
        await asyncio.sleep(0.04)
    assert len(taken) < 512 * KIB, "it was slow"
    answer.go_on()
    taken += await answer.reader.read()
    assert taken.count(piece[6:]) == 64
    assert not sidecar.telemetry.route("all").drops


async def test_a_socket_that_has_room_again_at_once_is_written_to(
    start_origin: StartOrigin, start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may have taken everything before the answer's task could look: it must not go to sleep.

    uvloop may write, and tell that there is room, in the very turn in which it found the socket full.
    """
    pause_writing = FrontProtocol.pause_writing

    def pause_and_resume(protocol: FrontProtocol) -> None:
        asyncio.get_running_loop().call_soon(protocol.resume_writing)
        pause_writing(protocol)
        protocol.transport._protocol_paused = False  # type: ignore[union-attr]  # the transport's own note of it

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: 000000 x\n\n")
        await connection.reader.read(1)

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="POST", window=32 * KIB)
    await answer.block()
    (transport,) = transports(sidecar)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * KIB)
    monkeypatch.setattr(FrontProtocol, "pause_writing", pause_and_resume)
    upstream = await origin.request()
    await upstream.chunk(b"".join(b"data: %06d %b\n\n" % (number, b"x" * KIB) for number in range(1, 2001)))
    await upstream.end()
    async with asyncio.timeout(PATIENCE):
        assert numbers(await answer.rest()) == list(range(1, 2001))
