"""The bytes of a WebSocket that passes through: they arrive as they were sent, whatever they say.

And however much they are: each side's backpressure stops the other, and what is held between them is bounded.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol

from proxy.server import tunnel
from proxy.server.wire import detached
from tests.conftest import StartOrigin, StartSidecar, at_rest
from tests.server.test_backpressure import resident
from tests.support.origin import PATIENCE, Connection
from tests.support.tunnel import ONE_WAY_OF_HTTP, SIDES, Join, Peer, accepts, came, rest
from tests.support.websocket import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    Socket,
    closing,
    connect,
    frame,
)

pytestmark = ONE_WAY_OF_HTTP

KIB, MIB = 1024, 1024 * 1024

#: What one read may bring beyond a bound: asyncio's own piece.
ONE_READ = 256 * KIB


# What frames may be


def deflated(text: bytes) -> bytes:
    """A message as permessage-deflate sends it (RFC 7692 §7.2.1)."""
    squeeze = zlib.compressobj(wbits=-15)
    return (squeeze.compress(text) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


def conversations(*, masked: bool) -> dict[str, bytes]:
    """What one side may send, right or wrong, by what it is."""

    def made(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
        return frame(opcode, payload, masked=masked, **options)

    return {
        "text": made(TEXT, "grüße".encode()),
        "binary": made(BINARY, bytes(range(256))),
        "empty": made(TEXT) + made(BINARY) + made(PING) + made(PONG),
        "sizes": b"".join(made(BINARY, bytes(size)) for size in (125, 126, 127, 65535, 65536)),
        "fragments": made(TEXT, b"a", fin=False)
        + made(CONTINUATION, b"", fin=False)
        + made(CONTINUATION, b"b"),
        "control frames between fragments": (
            made(TEXT, b"a", fin=False)
            + made(PING, b"one")
            + made(CONTINUATION, b"b", fin=False)
            + made(PONG, b"two" * 40)
            + made(CONTINUATION, b"c")
        ),
        "compressed": made(TEXT, deflated(b"hello " * 50), rsv=4) + made(TEXT, deflated(b"again"), rsv=4),
        "a fragmented compressed one": (
            made(BINARY, deflated(b"hello")[:3], rsv=4, fin=False)
            + made(CONTINUATION, deflated(b"hello")[3:])
        ),
        "reserved opcodes": b"".join(made(opcode, b"??") for opcode in (3, 7, 11, 15)),
        "reserved bits": made(TEXT, b"x", rsv=7) + made(PING, b"y", rsv=3),
        "a continuation of nothing": made(CONTINUATION, b"x"),
        "a message inside another": made(TEXT, b"a", fin=False) + made(BINARY, b"b"),
        "a ping in two pieces": made(PING, b"a", fin=False) + made(CONTINUATION, b"b"),
        "a ping of 126 bytes": made(PING, bytes(126)),
        "no UTF-8": made(TEXT, b"\xff\xfe"),
        "a size in more bytes than it takes": (
            b"\x82\x7e\x00\x05hello" if not masked else b"\x82\xfe\x00\x05abcdhello"
        )
        + (b"\x82\x7f" + (5).to_bytes(8, "big") + b"hello" if not masked else b""),
        "the other side's mask": frame(TEXT, b"x", masked=not masked),
        "what looks like frames": made(BINARY, made(8, closing(1000)) + made(PING, b"no")),
    }


NAMES = pytest.mark.parametrize("name", conversations(masked=True))


@SIDES
@NAMES
async def test_bytes_pass(name: str, side: str, join: Join) -> None:
    """In one piece, byte by byte, and cut in two at every place; then the tunnel is as good as before."""
    pair = await join()
    one, other = pair.seen_from(side)
    said = conversations(masked=side == "client")[name]
    await one.send_raw(said)
    assert await came(other, len(said)) == said
    if len(said) < KIB:
        for cut in range(1, len(said)):
            await one.send_raw(said[:cut])
            await turns()
            await one.send_raw(said[cut:])
            assert await came(other, len(said)) == said
        for at in range(len(said)):
            await one.send_raw(said[at : at + 1])
            await turns()
        assert await came(other, len(said)) == said
    await other.send(TEXT, b"and back")
    answer = await one.frame()
    assert answer is not None
    assert answer.payload == b"and back"


async def turns() -> None:
    """Let the loop go on so far that what was sent has been read."""
    for _ in range(4):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(6))
async def test_both_talk_at_once(seed: int, join: Join) -> None:
    """Everything there is, shuffled, cut anywhere, in both directions at once, with heartbeats between."""
    pair = await join(route={"heartbeat": "10ms", "high_water": "4KiB"})
    dice = random.Random(seed)

    async def talk(one: Socket, other: Socket, *, masked: bool) -> None:
        said = list(conversations(masked=masked).values()) * 5
        dice.shuffle(said)
        stream = b"".join(said)
        hearing = asyncio.create_task(came(other, len(stream)))
        for piece in cut(stream, dice):
            await one.send_raw(piece)
            await asyncio.sleep(0)
        assert await hearing == stream

    await asyncio.gather(
        talk(pair.client, pair.upstream, masked=True), talk(pair.upstream, pair.client, masked=False)
    )


def cut(data: bytes, dice: random.Random) -> Iterator[bytes]:
    """Pieces of a few bytes, and some of many."""
    while data:
        size = dice.choice((1, 2, 3, 5, 14, 1000, 40_000))
        yield data[:size]
        data = data[size:]


# What comes right behind the handshake


@pytest.mark.parametrize("size", [5, 70_000, MIB])
async def test_what_the_client_sends_before_the_101(size: int, join: Join) -> None:
    """It may be in a hurry; the upstream gets all of it, and what follows behind it."""
    early = frame(TEXT, b"first") + frame(BINARY, bytes(size))

    async def slow(request: Connection) -> None:
        await asyncio.sleep(0.1)
        await accepts()(request)

    pair = await join(slow, early=early)
    await pair.client.send(TEXT, b"later")
    assert await came(pair.upstream, len(early)) == early
    assert await pair.upstream.frame() == Frame(TEXT, b"later", masked=True)


@pytest.mark.parametrize("size", [5, 70_000, MIB])
async def test_what_the_upstream_sends_with_its_101(size: int, join: Join) -> None:
    """A server may speak first, in the same segment."""
    early = frame(TEXT, b"first", masked=False) + frame(BINARY, bytes(size), masked=False)
    pair = await join(accepts(early=early))
    await pair.upstream.send(TEXT, b"later")
    assert await came(pair.client, len(early)) == early
    assert await pair.client.frame() == Frame(TEXT, b"later")


async def test_half_a_frame_behind_the_101(join: Join) -> None:
    """The cut between the 101 and what follows may be inside a header."""
    said = frame(PING, b"half of it", masked=False)
    pair = await join(accepts(early=said[:1]))
    await pair.upstream.send_raw(said[1:])
    assert await came(pair.client, len(said)) == said


async def test_too_much_before_the_101(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The attack: a flood behind the handshake, while the upstream thinks. It is not read on."""
    release = asyncio.Event()

    async def thinking(request: Connection) -> None:
        await release.wait()
        await accepts()(request)

    origin = await start_origin(thinking)
    sidecar = await start_sidecar(origin.url, route={"websocket": "passthrough"})
    early = frame(BINARY, bytes(15 * MIB))
    asking = asyncio.create_task(connect(sidecar.url, early=early))
    request = await origin.request()
    assert sidecar._front is not None
    (front,) = sidecar._front.connections
    assert await at_rest(lambda: len(front._message_tail)) < 2 * ONE_READ
    release.set()
    assert await came(Peer(request), len(early)) == early
    await asking


async def test_a_flood_behind_the_handshake_meets_a_full_upstream(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came early fills the upstream's socket: the client is not read on until it has room.

    On a loopback that takes more than may come early; so the kernel is told to keep little, as on a long way.
    """

    def narrowed(protocol: BaseProtocol) -> tuple[asyncio.Transport, bytes]:
        transport, data = detached(protocol)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        return transport, data

    monkeypatch.setattr(tunnel, "detached", narrowed)

    async def slow(request: Connection) -> None:
        request.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport
        await asyncio.sleep(0.2)
        await accepts()(request)

    early = frame(BINARY, bytes(200 * KIB))
    pair = await join(slow, early=early, window=4 * KIB, route={"high_water": "4KiB"})
    flood = Flood(pair.client, 40)
    flooding = asyncio.create_task(flood.run(masked=True))
    assert await at_rest(lambda: flood.sent) < flood.messages
    assert max(map(waiting, pair.sidecar.hub.sockets)) < 4 * KIB + 2 * ONE_READ
    pair.upstream.go_on()
    data = await came(pair.upstream, len(early) + flood.messages * len(frame(BINARY, bytes(MIB))))
    await flooding
    assert hashlib.sha256(data[len(early) :]).hexdigest() == flood.digest.hexdigest()


# Backpressure


def waiting(joined: Any) -> int:
    """Bytes that wait in the fuller of a tunnel's two sockets."""
    return max(int(end.transport.get_write_buffer_size()) for end in joined._ends)


@dataclass
class Flood:
    """One end that sends messages of 1 MiB as fast as they are taken; ``sent`` counts them."""

    end: Socket
    messages: int
    sent: int = 0
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    async def run(self, *, masked: bool) -> None:
        """Send them all."""
        for number in range(self.messages):
            message = frame(BINARY, number.to_bytes(4, "big") * (MIB // 4), masked=masked)
            self.digest.update(message)
            self.size += len(message)
            self.end.answer.writer.write(message)
            await self.end.answer.writer.drain()
            self.sent += 1


@SIDES
async def test_a_reader_that_reads_nothing_stops_the_other(side: str, join: Join) -> None:
    """100 MB stay where they are: one socket buffer and one read are held, and nothing is lost afterwards."""
    pair = await join(window=64 * KIB, route={"heartbeat": "20ms"})
    one, other = pair.seen_from(side)
    before = resident()
    other.stall()
    flood = Flood(one, 100)
    flooding = asyncio.create_task(flood.run(masked=side == "client"))
    assert await at_rest(lambda: flood.sent) < flood.messages
    (joined,) = pair.sidecar.hub.sockets
    assert waiting(joined) < 64 * KIB + ONE_READ
    assert resident() - before < 24 * MIB
    other.go_on()
    digest, left, reader = hashlib.sha256(), None, other.answer.reader
    got = 0
    while left is None or got < left:
        async with asyncio.timeout(PATIENCE):
            data = await reader.read(MIB)
        assert data
        digest.update(data)
        got += len(data)
        left = flood.size if flood.sent == flood.messages else None
    await flooding
    assert got == flood.size
    assert digest.hexdigest() == flood.digest.hexdigest()


@SIDES
async def test_the_other_direction_goes_on(side: str, join: Join) -> None:
    """Who does not read may still speak, and is heard."""
    pair = await join(window=64 * KIB)
    one, other = pair.seen_from(side)
    other.stall()
    flood = Flood(one, 40)
    flooding = asyncio.create_task(flood.run(masked=False))
    await at_rest(lambda: flood.sent)
    for number in range(100):
        await other.send(TEXT, b"%d" % number)
        got = await one.frame()
        assert got is not None
        assert got.payload == b"%d" % number
    other.go_on()
    hearing = came(other, 40 * len(frame(BINARY, bytes(MIB), masked=False)))
    assert len(await hearing) == flood.size
    await flooding


@SIDES
async def test_a_slow_reader_that_takes_something_stays(side: str, join: Join) -> None:
    """``timeouts.send`` is for sockets that take nothing at all: a trickle is progress."""
    pair = await join(window=64 * KIB, route={"timeouts": {"send": "400ms"}})
    one, other = pair.seen_from(side)
    flood = Flood(one, 40)
    flooding = asyncio.create_task(flood.run(masked=False))
    got = 0
    for _ in range(10):  # longer than the limit, in all
        got += len(await came(other, 3 * MIB))
        other.stall()
        await asyncio.sleep(0.1)
        other.go_on()
    got += len(await came(other, 40 * len(frame(BINARY, bytes(MIB), masked=False)) - got))
    await flooding
    assert got == flood.size


async def test_a_thousand_small_messages_in_one_read(join: Join) -> None:
    """What comes together leaves together, in order."""
    pair = await join()
    said = b"".join(frame(TEXT, b"%d" % number) for number in range(10_000))
    await pair.client.send_raw(said)
    assert await came(pair.upstream, len(said)) == said


async def test_a_large_tunnel_does_not_hold_up_a_small_one(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """While one connection floods, another's messages pass in their turn."""
    origin = await start_origin(accepts())
    sidecar = await start_sidecar(origin.url, route={"websocket": "passthrough"})
    loud, quiet = await connect(sidecar.url, "/loud"), await connect(sidecar.url, "/quiet")
    ends = {request.target: Peer(request) for request in [await origin.request(1), await origin.request(2)]}
    flood = Flood(loud, 30)
    flooding = asyncio.create_task(flood.run(masked=False))
    swallowing = asyncio.create_task(rest(ends["/loud"]))
    heard = 0
    while not flooding.done():
        await quiet.send(TEXT, b"x")
        assert await ends["/quiet"].frame() is not None
        heard += 1
    assert heard > flood.messages
    loud.answer.close()
    assert len(await swallowing) == flood.size
