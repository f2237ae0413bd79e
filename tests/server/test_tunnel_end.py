"""How a WebSocket that passes through ends: closed, dropped, silent, refused more, or sent away."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct

import pytest

from proxy.server import app, tunnel
from tests.conftest import StartOrigin, StartSidecar, eventually, transports
from tests.endurance.peace import Peace
from tests.support.client import send
from tests.support.origin import PATIENCE, Connection
from tests.support.tunnel import ONE_WAY_OF_HTTP, SIDES, Join, Pair, Peer, accepts, came, rest, switching
from tests.support.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    Socket,
    ask_upgrade,
    closing,
    connect,
    frame,
    handshake,
)

pytestmark = ONE_WAY_OF_HTTP

MIB = 1024 * 1024


# A close frame


@SIDES
@pytest.mark.parametrize(
    "payload",
    [
        closing(1000),
        closing(1001, "away"),
        closing(4321, "grüße " * 14),
        b"",
        b"\x03",
        closing(1006),
        b"\x03\xe8\xff",
    ],
    ids=["normal", "away", "private", "none", "half", "reserved", "no text"],
)
async def test_a_close_passes_with_its_code_and_reason(side: str, payload: bytes, join: Join) -> None:
    """Whatever it says, right or wrong, and so does its answer; then both connections end."""
    pair = await join()
    one, other = pair.seen_from(side)
    await one.send(CLOSE, payload)
    got = await other.frame()
    assert got is not None
    assert (got.opcode, got.payload) == (CLOSE, payload)
    await other.send(CLOSE, payload)
    answer = await one.frame()
    assert answer is not None
    assert (answer.opcode, answer.payload) == (CLOSE, payload)
    pair.upstream.answer.close()
    assert await pair.client.ended()
    told = await pair.end()
    code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else 1005
    assert (told.cause, told.by, told.code) == ("closed", side, code)


@SIDES
async def test_words_between_close_and_its_answer_pass(side: str, join: Join) -> None:
    """RFC 6455 §5.5.1: an end point may delay its close "until its current message is sent"."""
    pair = await join()
    one, other = pair.seen_from(side)
    await one.send(CLOSE, closing(1000))
    assert await other.frame() is not None
    await other.send(TEXT, b"one more thing")
    await other.send(CLOSE, closing(1000))
    last = await one.frame()
    assert last is not None
    assert last.payload == b"one more thing"
    answer = await one.frame()
    assert answer is not None
    assert answer.opcode == CLOSE


@SIDES
async def test_a_close_without_an_answer_is_ended(side: str, join: Join) -> None:
    """Neither side says anything more, and neither leaves: the silence ends it; the close stays the cause."""
    pair = await join(route={"heartbeat": "30ms"})
    one, other = pair.seen_from(side)
    await one.send(CLOSE, closing(4000))
    assert await other.frame() is not None
    told = await pair.end()
    assert (told.cause, told.by, told.code) == ("closed", side, 4000)
    assert await rest(other) == b""


@SIDES
async def test_nothing_of_ours_follows_a_close(side: str, join: Join) -> None:
    """No ping is sent to whom a close was sent: "MUST NOT send any more data frames", and no more of ours."""
    pair = await join(route={"heartbeat": "30ms"})
    one, other = pair.seen_from(side)
    await one.send(CLOSE, closing(1000))
    got = await other.frame()
    assert got is not None
    assert got.opcode == CLOSE
    assert await rest(other) == b""


# A connection that ends without one


@SIDES
async def test_who_drops_without_a_close_ends_the_other(side: str, join: Join) -> None:
    """The other connection ends as well, and no close frame is made up for it."""
    pair = await join()
    one, other = pair.seen_from(side)
    await one.send(TEXT, b"last words")
    one.answer.close()
    last = await other.frame()
    assert last is not None
    assert last.payload == b"last words"
    assert await other.ended()
    told = await pair.end()
    assert (told.cause, told.by, told.code) == ("lost", side, 1006)


@SIDES
async def test_a_reset_ends_the_other(side: str, join: Join) -> None:
    """RST instead of FIN: the same."""
    pair = await join()
    one, other = pair.seen_from(side)
    await one.send(TEXT, b"x")
    assert await other.frame() is not None
    sock = one.answer.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.abort()
    assert await other.ended()
    told = await pair.end()
    assert (told.cause, told.by) == ("lost", side)


@SIDES
async def test_half_a_close_of_the_connection_is_its_end(side: str, join: Join) -> None:
    """Who sends FIN has nothing more to say, and WebSocket knows no half of a connection."""
    pair = await join()
    one, other = pair.seen_from(side)
    await one.send(TEXT, b"last words")
    one.answer.writer.write_eof()
    last = await other.frame()
    assert last is not None
    assert last.payload == b"last words"
    assert await other.ended()
    assert await one.ended()


@SIDES
async def test_who_half_closes_and_takes_nothing_does_not_stay(side: str, join: Join) -> None:
    """The attack: fill your socket, send FIN, never read. What waits is dropped after ``timeouts.send``."""
    pair = await join(window=4096, route={"timeouts": {"send": "200ms"}})
    one, other = pair.seen_from(side)
    one.stall()
    flood = asyncio.create_task(other.send_raw(frame(BINARY, bytes(MIB), masked=False) * 40))
    await asyncio.sleep(0.1)  # its socket is full by then, here and there
    one.answer.writer.write_eof()
    await pair.end()
    flood.cancel()
    await eventually(lambda: not pair.sidecar.hub.sockets, "the tunnel is over")


@SIDES
async def test_the_last_message_before_a_drop_is_not_lost(side: str, join: Join) -> None:
    """4 MiB and a FIN, while the other end is slow: it gets all of it."""
    pair = await join(window=16384)
    one, other = pair.seen_from(side)
    other.stall()
    message = frame(BINARY, bytes(4 * MIB), masked=False)
    one.answer.writer.write(message)
    one.answer.writer.write_eof()
    await asyncio.sleep(0.2)
    other.go_on()
    assert await rest(other) == message


@SIDES
async def test_what_is_left_may_take_long(side: str, join: Join) -> None:
    """A slow reader that takes something gets the end of what was sent, however long it takes.

    The timer that ends one that takes nothing must not end, or trip over, one that is done.
    """
    pair = await join(window=4096, route={"timeouts": {"send": "400ms"}, "high_water": "12MiB"})
    one, other = pair.seen_from(side)
    reader = other.answer.reader
    other.stall()
    message = frame(BINARY, bytes(12 * MIB), masked=False)
    one.answer.writer.write(message)
    one.answer.writer.write_eof()
    got = 0
    for _ in range(8):
        await asyncio.sleep(0.06)
        other.go_on()
        got += len(await reader.readexactly(MIB))
        other.stall()
    other.go_on()
    got += len(await rest(other))
    assert got == len(message)
    await pair.end()
    await asyncio.sleep(0.5)  # the timer's time


# Too much


def too_big(limit: int, *sizes: int) -> bytes:
    """The reason that a sender of a message of these sizes, in fragments, is told."""
    return closing(1009, f"a message of {sum(sizes)} bytes or more; at most {limit}")


@SIDES
async def test_16_mib_pass_and_a_byte_more_does_not(side: str, join: Join) -> None:
    """A message of the bound is no fault. The next one is: 1009 to its sender, 1001 to the other."""
    pair = await join()
    one, other = pair.seen_from(side)
    fits = frame(BINARY, bytes(16 * MIB), masked=side == "client")
    one.answer.writer.write(fits)
    assert await came(other, len(fits)) == fits
    too = frame(BINARY, bytes(16 * MIB + 1), masked=side == "client")
    one.answer.writer.write(too)
    told = await one.frame()
    assert told is not None
    assert (told.opcode, told.payload) == (CLOSE, too_big(16 * MIB, 16 * MIB + 1))
    assert told.masked is (side == "upstream")
    left = await other.frame()
    assert left is not None
    assert (left.opcode, left.code) == (CLOSE, 1001)
    assert left.masked is (side == "client")
    await one.send(CLOSE, told.payload)
    await other.send(CLOSE, left.payload)
    line = await pair.end()
    assert (line.cause, line.by, line.code) == ("too_big", side, 1009)


@SIDES
async def test_fragments_count_together(side: str, join: Join) -> None:
    """A message is as large as its fragments, control frames between them not counted."""
    pair = await join(route={"max_message": 1000})
    one, other = pair.seen_from(side)
    first = [
        frame(TEXT, bytes(600), fin=False, masked=False),
        frame(PING, b"?", masked=False),
        frame(0, bytes(400), fin=False, masked=False),
        frame(0, b"", fin=False, masked=False),
    ]
    await one.send_raw(b"".join(first))
    assert await came(other, len(b"".join(first))) == b"".join(first)
    await one.send(0, b"x")
    told = await one.frame()
    assert told is not None
    assert told.payload == too_big(1000, 1001)
    left = await other.frame()
    assert left is not None
    assert left.code == 1001


@SIDES
async def test_an_announcement_is_enough(side: str, join: Join) -> None:
    """The attack: a header of 2**64 - 1 bytes. Nothing of it is waited for."""
    pair = await join()
    one, _ = pair.seen_from(side)
    await one.send_raw(b"\x82\x7f" + b"\xff" * 8)
    told = await one.frame()
    assert told is not None
    assert told.payload == too_big(16 * MIB, 2**64 - 1)


@SIDES
async def test_who_goes_on_sending_sees_why(side: str, join: Join) -> None:
    """A client that writes all of its message before it reads must not find a reset connection instead.

    Every byte of this one, taken for a frame's beginning, would be a close frame.
    """
    pair = await join(route={"max_message": "1MiB", "heartbeat": "100ms"})
    one, other = pair.seen_from(side)
    await one.send_raw(b"\x82\x7f" + (8 * MIB).to_bytes(8, "big"))
    for _ in range(64):
        await one.send_raw(b"\x88" + bytes(8 * MIB // 64 - 1))
        await asyncio.sleep(0.005)
    told = await one.frame()
    assert told is not None
    assert told.payload == too_big(MIB, 8 * MIB)
    left = await other.frame()
    assert left is not None
    assert left.code == 1001
    await other.send(CLOSE, left.payload)
    await one.send(CLOSE, told.payload)  # what it says now counts again
    assert await one.ended()
    assert await other.ended()


# A restart


async def drain(pair: Pair) -> asyncio.Task[None]:
    """Begin to drain, with no time for those who are connected."""
    return asyncio.create_task(pair.sidecar.drain())


async def test_a_drain_sends_both_away(join: Join) -> None:
    """1001 to both, after ``drain``; their answers are awaited, and it is over when both have come."""
    pair = await join(drain="50ms")
    task = await drain(pair)
    for end in (pair.client, pair.upstream):
        told = await end.frame()
        assert told is not None
        assert (told.opcode, told.payload) == (CLOSE, closing(1001, "draining; reconnect"))
        assert told.masked is (end is pair.upstream)
        await end.send(CLOSE, told.payload)
        assert await end.ended()
    await asyncio.wait_for(task, PATIENCE)
    line = await pair.end()
    assert (line.cause, line.by, line.code) == ("drain", "sidecar", 1001)


@SIDES
async def test_an_answer_to_a_drain_may_come_late(side: str, join: Join) -> None:
    """One side has answered and is gone; the other, which has more to say first, is not cut off for that."""
    pair = await join(drain="10ms")
    quick, slow = pair.seen_from(side)
    task = await drain(pair)
    await quick.close()
    assert await quick.ended()
    told = await slow.frame()
    assert told is not None
    await asyncio.sleep(0.2)
    await slow.send(TEXT, b"what it was about to say")
    await asyncio.sleep(0.1)
    await slow.send(CLOSE, closing(1001))
    assert await slow.ended()  # a FIN: a reset would raise here
    await asyncio.wait_for(task, PATIENCE)


async def test_who_does_not_answer_a_drain_is_dropped(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """After GOODBYE_SECONDS."""
    monkeypatch.setattr(tunnel, "GOODBYE_SECONDS", 0.2)
    pair = await join(drain="10ms")
    task = await drain(pair)
    await asyncio.wait_for(task, PATIENCE)
    assert (await pair.end()).cause == "drain"


@SIDES
async def test_a_drain_in_the_middle_of_a_frame(side: str, join: Join) -> None:
    """Who gets a frame is told behind it; what its sender begins after that does not pass."""
    pair = await join(drain="10ms")
    one, other = pair.seen_from(side)
    message = frame(BINARY, bytes(1000), masked=False)
    await one.send_raw(message[:500])
    assert await came(other, 500) == message[:500]
    task = await drain(pair)
    told = await one.frame()
    assert told is not None
    assert told.code == 1001
    await one.send_raw(message[500:600])
    assert await came(other, 100) == message[500:600]
    await one.send_raw(message[600:] + frame(TEXT, b"too late")[:3])
    assert await came(other, len(message) - 600) == message[600:]
    told = await other.frame()
    assert told is not None
    assert told.code == 1001
    await other.send(CLOSE, told.payload)
    assert await other.ended()
    one.answer.close()
    await asyncio.wait_for(task, PATIENCE)


async def test_a_drain_in_the_middle_of_two_frames(join: Join) -> None:
    """Both get theirs to the end, and then the close frame."""
    pair = await join(drain="10ms")
    ends = [(pair.client, pair.upstream), (pair.upstream, pair.client)]
    message = frame(BINARY, bytes(1000), masked=False)
    for one, other in ends:
        await one.send_raw(message[:500])
        assert await came(other, 500) == message[:500]
    task = await drain(pair)
    await eventually(lambda: all(tunnel._ends_at < math.inf for tunnel in pair.sidecar.hub.sockets))  # type: ignore[attr-defined]
    for one, other in ends:
        await one.send_raw(message[500:])
        assert await came(other, 504) == message[500:]
        told = await other.frame()
        assert told is not None
        assert told.code == 1001
    for one, _ in ends:
        await one.send(CLOSE, closing(1001))
        assert await one.ended()
    await asyncio.wait_for(task, PATIENCE)


@SIDES
async def test_a_frame_that_does_not_end_delays_a_drain_little(
    side: str, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After GOODBYE_SECONDS there is no close frame any more, only the end."""
    monkeypatch.setattr(tunnel, "GOODBYE_SECONDS", 0.2)
    pair = await join(drain="10ms")
    one, other = pair.seen_from(side)
    await one.send_raw(frame(BINARY, bytes(1000), masked=False)[:500])
    assert len(await came(other, 500)) == 500
    await asyncio.wait_for(await drain(pair), PATIENCE)
    assert await rest(other) == b""


@SIDES
async def test_the_sender_of_half_a_frame_leaves_in_a_drain(
    side: str, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is nothing to wait for."""
    monkeypatch.setattr(tunnel, "GOODBYE_SECONDS", 3600.0)
    pair = await join(drain="10ms")
    one, other = pair.seen_from(side)
    await one.send_raw(frame(BINARY, bytes(1000), masked=False)[:500])
    assert len(await came(other, 500)) == 500
    task = await drain(pair)
    assert await one.frame() is not None
    one.answer.close()
    async with asyncio.timeout(PATIENCE):
        assert await rest(other) == b""
        await task


@SIDES
async def test_too_much_while_a_frame_comes_back(side: str, join: Join) -> None:
    """The sender of too much gets what was on its way, and then its 1009."""
    pair = await join(route={"max_message": 2000})
    one, other = pair.seen_from(side)
    message = frame(BINARY, bytes(1000), masked=False)
    await other.send_raw(message[:500])
    assert await came(one, 500) == message[:500]
    await one.send(BINARY, bytes(2001))
    left = await other.frame()
    assert left is not None
    assert left.code == 1001
    await other.send_raw(message[500:])
    await other.send(CLOSE, left.payload)
    assert await came(one, 504) == message[500:]
    told = await one.frame()
    assert told is not None
    assert told.payload == too_big(2000, 2001)
    await one.send(CLOSE, told.payload)
    assert await one.ended()


@SIDES
async def test_a_drain_between_a_close_and_its_answer(
    side: str, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has asked for the end gets it, at once; who has still to answer may do that."""
    monkeypatch.setattr(tunnel, "GOODBYE_SECONDS", 3600.0)
    pair = await join(drain="10ms")
    one, other = pair.seen_from(side)
    await one.send(CLOSE, closing(1000))
    assert await other.frame() is not None
    task = await drain(pair)
    told = await one.frame()
    assert told is not None
    assert told.opcode == CLOSE
    async with asyncio.timeout(PATIENCE):
        assert await one.ended()
        await other.send(TEXT, b"lost")
        await other.send(CLOSE, closing(1000))
        assert await other.ended()
        await task


async def test_a_tunnel_that_begins_after_the_drain_is_told_too(join: Join) -> None:
    """The upstream's 101 comes when all others have been sent away."""
    go = asyncio.Event()

    async def late(request: Connection) -> None:
        if request.target == "/late":
            await go.wait()
        await request.send(switching(request))
        await asyncio.Event().wait()

    pair = await join(late, drain="10ms")
    asking = asyncio.create_task(ask_upgrade(pair.sidecar.url, "/late"))
    await pair.origin.request(2)
    task = await drain(pair)
    await pair.client.close()
    await pair.upstream.close()
    go.set()
    answer = await asking
    assert answer.status == 503
    assert answer.header("retry-after")
    await asyncio.wait_for(task, PATIENCE)


async def test_no_new_tunnel_while_draining(join: Join) -> None:
    """Nobody is let in, not even who stands in the door with half a handshake; who is inside stays."""
    pair = await join(drain="1h")
    url = pair.sidecar.url
    reader, _ = await send(url, handshake(url, "/new")[:20])
    await eventually(lambda: len(transports(pair.sidecar)) == 2)
    task = await drain(pair)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    with pytest.raises(ConnectionError):
        await ask_upgrade(url)
    await pair.client.send(TEXT, b"still here")
    assert await pair.upstream.frame() == Frame(TEXT, b"still here", masked=True)
    task.cancel()
    await asyncio.wait({task})


@SIDES
async def test_a_short_heartbeat_does_not_shorten_a_goodbye(side: str, join: Join) -> None:
    """Who is to say its last words is not counted silent meanwhile."""
    pair = await join(drain="10ms", route={"heartbeat": "30ms"})
    quick, slow = pair.seen_from(side)
    task = await drain(pair)
    while (told := await slow.frame()) is not None and told.opcode == PING:
        await slow.send(PONG, told.payload)
    await asyncio.sleep(0.3)
    await slow.send(CLOSE, closing(1001))
    assert await slow.ended()  # a FIN: a reset would raise here
    while (told := await quick.frame()) is not None and told.opcode == PING:
        pass
    assert told is not None
    await quick.send(CLOSE, closing(1001))
    await asyncio.wait_for(task, PATIENCE)


async def test_a_stop_ends_what_is_left(join: Join) -> None:
    """Without a drain: both connections end at once."""
    pair = await join()
    await asyncio.wait_for(pair.sidecar.stop(), PATIENCE)
    assert await rest(pair.client) == b""
    assert await rest(pair.upstream) == b""


async def test_a_crowd_leaves_nothing_behind(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Two hundred connections that end in every way there is: no task, socket, timer or count stays."""
    origin = await start_origin(accepts())
    sidecar = await start_sidecar(origin.url, route={"websocket": "passthrough", "max_message": "1KiB"})
    peace = Peace()
    for begin in range(0, 200, 20):
        clients = [await connect(sidecar.url) for _ in range(20)]
        upstreams = [Peer(await origin.request(begin + number)) for number in range(1, 21)]
        for number, (client, upstream) in enumerate(zip(clients, upstreams, strict=True)):
            one, other = (client, upstream) if number % 2 else (upstream, client)
            match number // 2 % 5:
                case 0:
                    await one.send(CLOSE, closing(1000))
                    await other.close()
                case 1:
                    one.abort()
                case 2:
                    await one.send(BINARY, bytes(2000))
                case 3:
                    await one.send_raw(frame(TEXT, b"half of it")[:5])
                    one.answer.writer.write_eof()
                case 4:
                    await one.send(TEXT, b"x")
        await eventually(lambda: len(sidecar.hub.sockets) <= 12, "who has dropped is gone")
        for end in (*clients, *upstreams):
            end.abort()
    await origin.stop()
    await peace.restored(sidecar)
    assert not sidecar.hub.sockets


# Pings


async def answered(one: Socket, beats: int) -> list[Frame]:
    """Answer so many pings, and return them."""
    pings = []
    for _ in range(beats):
        ping = await one.frame()
        assert ping is not None
        assert ping.opcode == PING
        await one.send(PONG, ping.payload)
        pings.append(ping)
    return pings


async def test_the_silent_are_pinged_and_their_pongs_swallowed(join: Join) -> None:
    """Both ends answer for many heartbeats: the tunnel stays, and neither hears of the other's pongs."""
    pair = await join(route={"heartbeat": "40ms"})
    one, other = await asyncio.gather(answered(pair.client, 6), answered(pair.upstream, 6))
    assert not any(ping.masked for ping in one)
    assert all(ping.masked for ping in other)
    await pair.client.send(TEXT, b"hello")
    while (came := await pair.upstream.frame()) is not None and came.opcode == PING:
        await pair.upstream.send(PONG, came.payload)
    assert came == Frame(TEXT, b"hello", masked=True)


@SIDES
async def test_a_peer_that_answers_no_ping_is_closed(side: str, join: Join) -> None:
    """Two heartbeats after its first ping it is gone; the other, which answers, hears of no close frame."""
    pair = await join(route={"heartbeat": "50ms"})
    silent, other = pair.seen_from(side)

    async def keep_answering() -> list[Frame]:
        heard = []
        while (ping := await other.frame()) is not None:
            heard.append(ping)
            await other.send(PONG, ping.payload)
        return heard

    answering = asyncio.create_task(keep_answering())
    pings = await rest(silent)
    size = 10 if side == "client" else 14
    assert len(pings) == 2 * size
    assert {ping.opcode for ping in await answering} == {PING}
    told = await pair.end()
    assert (told.cause, told.by, told.code) == ("silent", side, 1006)


@SIDES
async def test_a_frame_that_trickles_in_is_not_disturbed(side: str, join: Join) -> None:
    """While a frame is on its way there is no place for a ping: who gets it is not called silent for that."""
    pair = await join(route={"heartbeat": "30ms"})
    one, other = pair.seen_from(side)
    message = frame(BINARY, bytes(range(256)) * 4, masked=False)

    async def trickle() -> None:
        for at in range(0, len(message), 64):
            await one.send_raw(message[at : at + 64])
            await asyncio.sleep(0.03)

    sending = asyncio.create_task(trickle())
    assert await came(other, 64) == message[:64]
    assert await came(other, len(message) - 64) == message[64:]
    await sending
    ping = await other.frame()
    assert ping is not None
    assert ping.opcode == PING


@SIDES
async def test_a_peer_that_is_not_read_is_not_silent(side: str, join: Join) -> None:
    """One that waits for the other to read, for many heartbeats, is neither pinged nor closed."""
    pair = await join(window=4096, route={"heartbeat": "30ms"})
    one, other = pair.seen_from(side)
    other.stall()
    message = frame(BINARY, bytes(12 * MIB), masked=False)
    one.answer.writer.write(message)
    await asyncio.sleep(0.5)
    assert not pair.told
    other.go_on()
    assert await came(other, len(message)) == message


@SIDES
async def test_pings_of_the_peers_are_theirs(side: str, join: Join) -> None:
    """They pass, and their pongs pass back; ours stand beside them."""
    pair = await join()
    one, other = pair.seen_from(side)
    await one.send(PING, b"are you there?")
    got = await other.frame()
    assert got is not None
    assert (got.opcode, got.payload) == (PING, b"are you there?")
    await other.send(PONG, b"are you there?")
    back = await one.frame()
    assert back is not None
    assert (back.opcode, back.payload) == (PONG, b"are you there?")


async def test_a_peer_that_takes_nothing_is_closed(join: Join) -> None:
    """``timeouts.send`` after its socket became full, though the heartbeat is an hour."""
    pair = await join(window=4096, route={"timeouts": {"send": "200ms"}, "heartbeat": "1h"})
    pair.client.stall()
    pair.upstream.answer.writer.write(frame(BINARY, bytes(12 * MIB), masked=False))
    told = await pair.end()
    assert (told.cause, told.by, told.code) == ("send_timeout", "client", 1006)
    assert await rest(pair.upstream) == b""


# An upstream that is gone at once


@pytest.mark.parametrize(
    "words", [b"", frame(TEXT, b"no room", masked=False) + frame(CLOSE, closing(1013), masked=False)]
)
async def test_an_upstream_that_leaves_behind_its_101(
    words: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What it said right behind the handshake arrives, and then the end."""
    origin = await start_origin(accepts(early=words, leaves=True))
    sidecar = await start_sidecar(origin.url, route={"websocket": "passthrough"})
    for _ in range(5):
        answer = await ask_upgrade(sidecar.url)
        assert answer.status == 101
        assert await rest(Socket(answer)) == words
    await eventually(lambda: not sidecar.hub.sockets, "no tunnel is left")


@pytest.mark.parametrize("dismissed", [False, True])
async def test_a_peer_that_answers_nothing_does_not_keep_the_sidecar(
    dismissed: bool, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream's pool waits for its connections, and a tunnel for both of its peers: a stop cuts it."""
    monkeypatch.setattr(app, "LAST_WORDS", 0.05)
    pair = await join(drain="0s")
    async with asyncio.timeout(PATIENCE):
        if dismissed:
            await pair.sidecar.drain()
        await pair.sidecar.stop()
    assert pair.told[-1].cause == "drain"
