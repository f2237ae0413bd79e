"""How long a bridge's connection lives, what it may cost, and how it ends: pings, slow readers, drains."""

from __future__ import annotations

import asyncio
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest

from proxy.server.app import Sidecar
from proxy.server.wire import FrontProtocol
from tests.conftest import StartOrigin, StartSidecar, at_rest, eventually, transports, unsent
from tests.endurance.peace import Peace
from tests.server.test_backpressure import KIB, MIB, ONE_READ, Flood, resident, window
from tests.support.bridge import begin, bridge, data_of, ended, event, opened, refused, still_lives
from tests.support.client import ask
from tests.support.origin import PATIENCE, Connection, Script
from tests.support.script import answers, holds, in_turn, streams
from tests.support.websocket import BINARY, CLOSE, PING, PONG, TEXT, Frame, Socket, connect, frame

#: What may wait in this process for a client that asks and does not read.
UNREAD_BYTES = 512 * KIB


async def silent(connection: Connection) -> None:
    """Answer nothing until the peer leaves."""
    await connection.gone()


def number_of(heard: dict[str, Any]) -> int:
    """The number of a flood's block."""
    return int(heard["data"][:6])


async def numbers(socket: Socket) -> list[int]:
    """The numbers of a flood's blocks that come until the end of the stream."""
    return [int(data[:6]) for data in data_of(await socket.hear_until("end"))]


def socket_of(sidecar: Sidecar) -> Any:
    """The sidecar's side of its only WebSocket."""
    (socket,) = sidecar.hub.sockets
    return socket


def narrow(sidecar: Sidecar) -> Any:
    """Let the kernel take little for the only client; return the connection's transport."""
    (transport,) = transports(sidecar)
    transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 8 * KIB)
    return transport


async def close_frame(socket: Socket) -> Frame:
    """Hear what comes up to the close frame, and return that."""
    while True:
        came = await socket.frame()
        assert came is not None, "the connection ended without a close frame"
        if came.opcode == CLOSE:
            return came


# Clients that leave


async def test_a_dropped_connections_stream_lingers(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The origin sees its request closed when nobody has read for ``linger``, and not before."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(linger="250ms"))
    socket = await connect(sidecar.url)
    await begin(socket)
    left = sidecar.hub.loop.time()
    socket.abort()
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    assert sidecar.hub.loop.time() - left >= 0.24
    assert sidecar.telemetry.route("all").cancels == {"linger": 1}


async def test_without_linger_the_upstream_goes_with_the_connection(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``linger: 0s``: all streams of the connection are cancelled at once."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(linger="0s", max_concurrent=2))
    socket = await connect(sidecar.url)
    for _ in range(2):
        stream = await begin(socket)
        assert await socket.hear() == event(stream, 1, "a")
    socket.abort()
    for number in (1, 2):
        await eventually((await origin.request(number)).peer_closed.is_set, "it was closed")
    assert sidecar.telemetry.route("all").cancels == {"disconnect": 2}


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_who_leaves_before_the_upstream_has_answered_pays_nothing(
    how: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It has no id to come back with, so nothing lingers for it."""
    origin = await start_origin(silent)
    sidecar = await start_sidecar(origin.url, route=bridge(linger="forever"))
    socket = await connect(sidecar.url)
    await socket.say({})
    upstream = await origin.request()
    if how == "abort":
        socket.abort()
    else:
        await socket.close()
    await eventually(upstream.peer_closed.is_set, "the upstream request was closed")
    await eventually(lambda: not sidecar.gateway.in_flight, "nothing is left of it")


async def test_who_is_closed_reads_no_more(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """When our close frame is sent nothing can be told any more: what runs lingers from then on.

    The attack: break the protocol, do not and let what was begun run on unseen.
    """
    origin = await start_origin(in_turn(holds(b"data: a\n\n"), silent))
    sidecar = await start_sidecar(origin.url, route=bridge(linger="0s", max_concurrent=2))
    socket = await connect(sidecar.url)
    await begin(socket)
    assert (await socket.hear())["type"] == "event"
    await socket.say({})
    await origin.request(2)
    await socket.send(TEXT, b"\xff")
    assert (await close_frame(socket)).code == 1007
    for number in (1, 2):
        await eventually((await origin.request(number)).peer_closed.is_set, "it was closed")
    assert len(sidecar.hub.sockets) == 1, "all that is left is the client's own last word"


async def test_nothing_is_left_of_clients_that_come_and_go(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """However they leave: tasks, timers, sockets, readers and upstream requests are as they were."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(linger="0s", replay={"keep": "50ms"}))
    peace = Peace()
    for turn in range(40):
        socket = await connect(sidecar.url)
        if turn % 8 < 6:
            await begin(socket, {})
        if turn % 4 == 0:
            socket.abort()
        elif turn % 4 == 1:
            await socket.close()
            socket.abort()
        elif turn % 4 == 2:
            await socket.send(TEXT, b"\xff")
            socket.abort()
        else:
            await socket.send_raw(frame(TEXT, b"{}")[:5])
            socket.answer.writer.write_eof()
            while await socket.frame() is not None:
                pass
            socket.abort()
    await peace.restored(sidecar)
    assert not sidecar.hub.sockets
    assert sidecar.telemetry.route("all").websockets == 0


# Pings


async def test_an_idle_connection_is_pinged(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Every ``heartbeat``, for as long as the client answers."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge(heartbeat="50ms"))
    began = sidecar.hub.loop.time()
    socket = await connect(sidecar.url)
    for _ in range(8):
        assert await socket.frame() == Frame(PING, b"")
        await socket.send(PONG)
    assert sidecar.hub.loop.time() - began >= 0.39


async def test_a_streaming_connection_is_pinged_too(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Events say that we live; only pings make the client say it. They are the stream's heartbeats."""

    async def lively(connection: Connection) -> None:
        await connection.start_stream()
        for _ in range(40):
            await connection.chunk(b"data: x\n\n")
            await asyncio.sleep(0.01)
        await connection.end()

    origin = await start_origin(lively)
    sidecar = await start_sidecar(origin.url, route=bridge(heartbeat="50ms"))
    socket = await connect(sidecar.url)
    await begin(socket)
    (relay,) = sidecar.hub.running
    pings = events = 0
    while True:
        came = await socket.frame()
        assert came is not None
        if came.opcode == PING:
            pings += 1
            await socket.send(PONG)
        elif came.json()["type"] == "end":
            break
        else:
            events += 1
    assert events == 40
    assert pings >= 4
    assert 4 <= relay.tally.heartbeats <= pings


async def test_a_silent_peer_is_given_up(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Two heartbeats without a byte: the connection is cut, and its stream lingers like any other."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(heartbeat="60ms"))
    began = sidecar.hub.loop.time()
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    for _ in range(2):
        assert await socket.frame() == Frame(PING, b"")
    assert await socket.ended()
    assert sidecar.hub.loop.time() - began >= 0.17
    await eventually(lambda: not sidecar.hub.sockets, "it is counted out")
    assert sidecar.telemetry.route("all").drops == {"silent": 1}
    again = await connect(sidecar.url)
    await again.say({"type": "resume", "last_event_id": f"{stream}.1"})
    assert await again.hear() == opened(stream, resumed_from=1)


@pytest.mark.parametrize(
    "sign",
    [frame(PONG), frame(TEXT, b'{"type":"cancel","stream":""}'), b"\x81"],
    ids=["a pong", "a command", "half a header"],
)
async def test_any_byte_is_a_sign_of_life(
    sign: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A pong, a command, a piece of a long message that is on its way."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge(heartbeat="50ms"))
    socket = await connect(sidecar.url)
    message = sign if len(sign) > 1 else frame(TEXT, b"{" + b" " * 100)
    for turn in range(8):
        while True:
            came = await socket.frame()
            assert came is not None, "it was given up"
            if came.opcode == PING:
                break
        await socket.send_raw(sign if len(sign) > 1 else message[turn : turn + 1])
    assert len(sidecar.hub.sockets) == 1


# Readers that are slow


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_reader_that_reads_nothing_stops_the_upstream(
    recorded: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """50 MB stay where they are: log, socket buffer and process stay small, and nothing is lost."""
    flood = Flood(blocks=3200)
    origin = await start_origin(flood)
    policy = window(256 * KIB) if recorded else {"replay": "off"}
    sidecar = await start_sidecar(origin.url, route=bridge(**policy, timeouts={"idle": "1200ms"}))
    before = resident()
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    socket.stall()
    assert await at_rest(lambda: flood.sent) < flood.blocks / 2
    (relay,) = sidecar.hub.running
    assert relay.paused
    assert relay.log.bytes < 256 * KIB + ONE_READ
    assert unsent(sidecar) < 64 * KIB + ONE_READ
    assert resident() - before < 24 * MIB
    paused = sidecar.hub.loop.time()
    await eventually(lambda: sidecar.hub.loop.time() > paused + 1.5, "the idle limit has passed")
    socket.go_on()
    heard = await socket.hear_until("end")
    assert heard[-1] == ended(stream)
    assert [each["id"] for each in heard[:-1]] == [f"{stream}.{seq}" for seq in range(1, flood.blocks + 1)]
    assert list(map(number_of, heard[:-1])) == list(range(1, flood.blocks + 1))
    assert relay.tally.pauses > 0


async def test_a_slow_connection_with_two_streams_gets_both(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """One stream that always has more must not keep the other from its turn."""
    origin = await start_origin(Flood(blocks=1000))
    sidecar = await start_sidecar(origin.url, route=bridge(**window(256 * KIB), max_concurrent=2))
    socket = await connect(sidecar.url, window=32 * KIB)
    narrow(sidecar)
    socket.stall()
    await socket.send_raw(frame(TEXT, b"{}") * 2)
    await eventually(lambda: [relay.paused for relay in sidecar.hub.running] == [True, True], "both wait")
    counts: dict[str, int] = {}
    while True:
        socket.go_on()
        heard = [await socket.hear() for _ in range(8)]
        socket.stall()
        await asyncio.sleep(0.001)  # a client that takes less than there is, so that both always have more
        for each in heard:
            if each["type"] == "end":
                assert min(counts.values()) > 800, counts
                return
            stream, _, seq = each.get("id", f"{each.get('stream')}.0").rpartition(".")
            counts[stream] = counts.get(stream, -1) + 1
            assert int(seq) == counts[stream]


async def test_a_socket_that_has_room_again_at_once_is_written_to(
    start_origin: StartOrigin, start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the connection's task could look, the kernel may have taken everything.

    uvloop may write in the same turn in which it found the socket full: that is no reason to sleep.
    """
    pause_writing = FrontProtocol.pause_writing

    def pause_and_resume(protocol: FrontProtocol) -> None:
        asyncio.get_running_loop().call_soon(protocol.resume_writing)
        pause_writing(protocol)
        protocol.transport._protocol_paused = False  # type: ignore[union-attr]  # the transport's own note of it

    blocks = b"".join(b"data: %06d %b\n\n" % (number, b"x" * KIB) for number in range(1, 2001))
    origin = await start_origin(streams(blocks))
    sidecar = await start_sidecar(origin.url, route=bridge())
    answer = await ask(sidecar.url, method="POST")
    await answer.rest()
    answer.close()
    await eventually(lambda: not transports(sidecar), "it has left")
    monkeypatch.setattr(FrontProtocol, "pause_writing", pause_and_resume)
    socket = await connect(sidecar.url, window=32 * KIB)
    narrow(sidecar)
    await socket.say({"type": "resume", "stream": answer.header("stream-id"), "after": 0})
    assert (await socket.hear())["type"] == "open"
    assert await numbers(socket) == list(range(1, 2001))


@pytest.mark.parametrize("policy", ["pause", "drop"])
async def test_a_slow_reader_is_told_what_it_missed(
    policy: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Where gaps are signalled: an event that names what is gone, and on it goes."""
    sidecar, slow = await behind_a_fast_one(start_origin, start_sidecar, slow_reader=policy, gap="signal")
    heard = await slow.hear_until("end")
    missed: set[int] = set()
    got = []
    for each in heard[:-1]:
        if each["event"] == "stream-gap":
            missed |= set(range(each["data"]["from"], each["data"]["to"] + 1))
            assert each["id"].endswith(f".{each['data']['to']}")
        else:
            got.append(number_of(each))
    assert missed
    assert got == [number for number in range(1, 1501) if number not in missed]
    assert sidecar.telemetry.route("all").pauses == 0


@pytest.mark.parametrize("policy", ["pause", "drop"])
async def test_a_slow_reader_is_told_of_its_gap_where_gaps_are_failures(
    policy: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What it got is without a hole; then the error names the earliest block, and the connection lives."""
    sidecar, slow = await behind_a_fast_one(start_origin, start_sidecar, slow_reader=policy, gap="fail")
    heard = await slow.hear_until("error")
    got = list(map(number_of, heard[:-1]))
    assert got == list(range(1, len(got) + 1))
    told = heard[-1]
    assert (told["code"], told["status"], told["recoverable"]) == ("gap", 410, False)
    assert told["earliest"] > len(got) + 1
    stream = told["stream"]
    await slow.say({"type": "resume", "stream": stream, "after": len(got)})
    await refused(slow, "gap", earliest=told["earliest"])
    await slow.say({"type": "resume", "stream": stream, "after": told["earliest"] - 1})
    rest = await slow.hear_until("end")
    assert rest[0] == opened(stream, resumed_from=told["earliest"] - 1)
    assert list(map(number_of, rest[1:-1])) == list(range(told["earliest"], 1501))
    assert sidecar.telemetry.route("all").drops == {"gap": 1}


async def behind_a_fast_one(
    start_origin: StartOrigin, start_sidecar: StartSidecar, **policy: Any
) -> tuple[Sidecar, Socket]:
    """A WebSocket that has read nothing of a finished stream of 1,500 blocks; one over SSE took all."""
    origin = await start_origin(holds())
    sidecar = await start_sidecar(origin.url, route=bridge(**window(64 * KIB), **policy))
    slow = await connect(sidecar.url)
    fast = await ask(sidecar.url, f"/_streams/{await begin(slow)}?after=0")
    upstream = await origin.request()
    slow.stall()
    for number in range(1, 1501):
        block = b"data: %06d %b\n\n" % (number, b"x" * 16 * KIB)
        await upstream.chunk(block)
        assert (await fast.block()).endswith(block)
    await upstream.end()
    assert await fast.rest() == b""
    slow.go_on()
    return sidecar, slow


async def test_drop_never_waits(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Under ``slow_reader: drop`` the upstream is read to its end though nobody reads."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(origin.url, route=bridge(**window(64 * KIB), slow_reader="drop"))
    socket = await connect(sidecar.url)
    await begin(socket)
    socket.stall()
    await eventually(lambda: flood.sent == flood.blocks, "the upstream is read")
    assert sidecar.telemetry.route("all").pauses == 0
    (relay,) = sidecar.hub.store
    assert relay.log.bytes < 64 * KIB + ONE_READ
    assert unsent(sidecar) < 64 * KIB + ONE_READ


async def test_a_socket_that_takes_nothing_is_closed(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """After ``timeouts.send``; no heartbeat ends it sooner; the stream lingers, and can be had again."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    route = bridge(**window(64 * KIB), timeouts={"send": "300ms"}, linger="forever", heartbeat="50ms")
    sidecar = await start_sidecar(origin.url, route=route)
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    socket.stall()
    (relay,) = sidecar.hub.running
    await eventually(lambda: not relay.readers, "the reader is gone")
    assert not relay.finished
    assert not sidecar.hub.sockets
    assert sidecar.telemetry.route("all").drops == {"send_timeout": 1}
    again = await connect(sidecar.url)
    first = relay.log.first
    await again.say({"type": "resume", "stream": stream, "after": first - 1})
    assert await again.hear() == opened(stream, resumed_from=first - 1)
    assert await numbers(again) == list(range(first, flood.blocks + 1))


async def test_a_slow_reader_that_resets_its_connection_leaves_nothing(
    start_origin: StartOrigin, start_sidecar: StartSidecar, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its place and, without linger, its upstream are free; and that is no failure of ours to be logged."""
    flood = Flood(blocks=2000)
    origin = await start_origin(flood)
    sidecar = await start_sidecar(origin.url, route=bridge(**window(64 * KIB), linger="0s"))
    socket = await connect(sidecar.url)
    await begin(socket)
    socket.stall()
    await at_rest(lambda: flood.sent)
    socket.abort()
    await eventually(lambda: not (sidecar.hub.running or sidecar.hub.readers or sidecar.hub.sockets))
    await eventually(lambda: not sidecar.gateway.in_flight)
    assert flood.sent < flood.blocks
    said = capsys.readouterr()
    assert "failed" not in said.out + said.err
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize(
    ("said", "count"),
    [
        pytest.param(frame(TEXT, b'{"type":"ping"}'), 20_000, id="json"),
        pytest.param(frame(PING, b"x" * 125), 4000, id="ping"),
        pytest.param(frame(TEXT, b"x"), 8000, id="fault"),
        pytest.param(frame(BINARY), 8000, id="binary"),
    ],
)
async def test_a_client_that_asks_and_does_not_read_is_not_listened_to(
    said: bytes, count: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: a million commands whose answers nobody takes. They stay in the client's own socket.

    When it reads, it gets every answer, and is heard again.
    """
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, window=16 * KIB)
    transport = narrow(sidecar)
    socket.stall()
    sending = asyncio.ensure_future(socket.send_raw(said * count))
    await eventually(lambda: not transport.is_reading(), "it is not listened to")
    assert await at_rest(lambda: unsent(sidecar)) < UNREAD_BYTES
    socket.go_on()
    for _ in range(count):
        came = await socket.frame()
        assert came is not None
        assert came.opcode in (TEXT, PONG)
    await sending
    await still_lives(socket)


@pytest.mark.parametrize(
    ("script", "together"),
    [
        (answers(b"200 OK", b"x" * 200_000), 1),
        (answers(b"500 Oops", b"x" * 200_000), 1),
        (streams(), 50),
    ],
    ids=["answer", "error", "stream"],
)
async def test_a_client_that_starts_and_does_not_read_is_not_listened_to(
    script: Script, together: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: request after request, whose answers nobody takes."""
    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route=bridge(max_concurrent=together))
    socket = await connect(sidecar.url, window=16 * KIB)
    transport = narrow(sidecar)
    socket.stall()
    asked = 0

    def is_served() -> bool:
        running = socket_of(sidecar)._opening or sidecar.hub.running
        return len(origin.requests) == asked and not running

    while transport.is_reading() and asked < 5000:
        await socket.send_raw(frame(TEXT, b"{}") * together)
        asked += together
        await eventually(lambda: not transport.is_reading() or is_served())
        assert unsent(sidecar) < UNREAD_BYTES
    assert not transport.is_reading()
    socket.go_on()
    await eventually(transport.is_reading, "it is heard again")


async def test_a_client_that_starts_and_cancels_without_end_costs_no_more_than_it_reads(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: thousands of starts, each cancelled in the same breath. No task and no request is left."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    peace = Peace()
    socket = await connect(sidecar.url)
    await socket.send_raw((frame(TEXT, b"{}") + frame(TEXT, b'{"type":"cancel"}')) * 5000)
    for _ in range(5000):
        assert await socket.hear() == ended(None, "cancelled", message="cancelled by the client")
    await still_lives(socket)
    await socket.close()
    socket.abort()
    await peace.restored(sidecar)


# Drains


async def test_idle_connections_are_closed_when_a_drain_begins(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """1001 at once, whatever ``drain`` allows: the client connects elsewhere."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(), drain="30s")
    fresh, used = await connect(sidecar.url), await connect(sidecar.url)
    await begin(used)
    await used.hear_until("end")
    draining = asyncio.ensure_future(sidecar.drain())
    for socket in (fresh, used):
        came = await close_frame(socket)
        assert (came.code, came.reason) == (1001, "draining; reconnect")
        await socket.send(CLOSE, came.payload)
        assert await socket.ended()
    async with asyncio.timeout(PATIENCE):
        await draining
    assert not sidecar.hub.sockets


async def test_a_running_stream_is_finished_first(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its events and its end come, then 1001; what is begun anew meanwhile is refused."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(max_concurrent=2), drain="30s")
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    draining = asyncio.ensure_future(sidecar.drain())
    await eventually(lambda: sidecar.hub.draining)
    for said in ({}, {"type": "resume", "stream": stream, "after": 0}):
        await socket.say(said)
        await refused(socket, "capacity", status=503, recoverable=True)
    await still_lives(socket)
    upstream = await origin.request()
    await upstream.chunk(b"data: b\n\n")
    await upstream.end()
    assert await socket.hear() == event(stream, 2, "b")
    assert await socket.hear() == ended(stream)
    assert (await close_frame(socket)).code == 1001
    socket.abort()
    async with asyncio.timeout(PATIENCE):
        await draining
    assert len(origin.requests) == 1


async def test_a_start_that_waits_for_its_answer_is_finished_too(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It was asked for before the drain began."""
    go = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await go.wait()
        await streams(b"data: a\n\n")(connection)

    origin = await start_origin(slow)
    sidecar = await start_sidecar(origin.url, route=bridge(), drain="30s")
    socket = await connect(sidecar.url)
    await socket.say({})
    await origin.request()
    draining = asyncio.ensure_future(sidecar.drain())
    await eventually(lambda: sidecar.hub.draining)
    go.set()
    assert data_of(await socket.hear_until("end")) == ["a"]
    assert (await close_frame(socket)).code == 1001
    socket.abort()
    async with asyncio.timeout(PATIENCE):
        await draining


@pytest.mark.parametrize("polite", [True, False])
async def test_what_still_runs_after_the_drain_is_closed(
    polite: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """1001 between two frames, no ``end`` that is none; a client that does not answer delays nothing long."""
    origin = await start_origin(in_turn(holds(b"data: a\n\n"), silent))
    sidecar = await start_sidecar(origin.url, route=bridge(), drain="100ms")
    streaming, waiting = await connect(sidecar.url), await connect(sidecar.url)
    stream = await begin(streaming)
    assert await streaming.hear() == event(stream, 1, "a")
    await waiting.say({})
    upstream = await origin.request(2)
    draining = asyncio.ensure_future(sidecar.drain())
    for socket in (streaming, waiting):
        came = await socket.frame()
        assert came is not None
        assert (came.opcode, came.code) == (CLOSE, 1001)
        if polite:
            await socket.send(CLOSE, came.payload)
            assert await socket.ended()
    await eventually(upstream.peer_closed.is_set, "what nobody will hear of is closed upstream")
    async with asyncio.timeout(PATIENCE):
        await draining


async def test_a_slow_reader_does_not_outlast_a_drain(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A client that takes nothing cannot be told anything: it is cut when the sidecar stops."""
    origin = await start_origin(Flood(blocks=2000))
    sidecar = await start_sidecar(origin.url, route=bridge(**window(64 * KIB)), drain="50ms")
    socket = await connect(sidecar.url)
    await begin(socket)
    socket.stall()
    await at_rest(lambda: unsent(sidecar))
    async with asyncio.timeout(PATIENCE):
        await sidecar.drain()
        await sidecar.stop()
    assert not sidecar.hub.sockets
