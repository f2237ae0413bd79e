"""Noise at every door: event streams, requests, responses and WebSocket frames that are nearly right."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable

import brotli
import pytest

from proxy.stream.numbering import Ids, Numbering
from proxy.stream.sse import Parser
from tests.conftest import StartOrigin
from tests.endurance.conftest import StartProcess, Tell
from tests.endurance.follower import hang_up
from tests.endurance.noise import mutated, reads
from tests.endurance.process import SidecarProcess
from tests.stream.whatwg import Message, interpret
from tests.support.client import ask, send
from tests.support.origin import PATIENCE, SSE_HEAD, Connection
from tests.support.websocket import (
    AGREED,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    closing,
    connect,
    frame,
    handshake,
)

#: Change it to hear other noise; every seed must pass.
SEED = 20261120

#: Exchanges at once.
AT_ONCE = 16

STREAM_ID = "AAAAAAAAAAAAAAAAAAAAAA"

STREAMS = (
    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n',
    b"event: message_start\ndata: {}\n\nevent: message_stop\ndata: {}\n\n",
    b"\xef\xbb\xbfdata: a\r\ndata: b\r\n\r\n: c\r\n\r\nretry: 5\r\n\r\ndata\r\n\r\n",
    b"id: 1\rdata: a\r\rid: 2\rdata: b\r\revent: e\rdata: c\r\r",
    b"data: one\n\n\n\n: comment\n\ndata:two\ndata\ndata: three\n\nignored: x\ndata: four\n\ndata: half",
    b": only\n: comments\n\nevent: nothing\n\nid: 9\n\n",
)

REQUESTS = (
    b"GET /a?b=c%20d HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /a HTTP/1.0\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\n\r\n",
    b"GET /_streams/%b?after=1 HTTP/1.1\r\nHost: x\r\nLast-Event-ID: %b.1\r\n\r\n"
    % (STREAM_ID.encode(), STREAM_ID.encode()),
    b"POST /a HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n{}",
    b"OPTIONS /a HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\nAccess-Control-Request-Method: GET\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
    handshake("http://x", "/a") + frame(TEXT, b'{"prompt":"hi"}', key=bytes(4)),
)

EVENTS = b"data: a\n\ndata: b\n\n"
RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /b\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EVENTS,
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-store\r\n"
    b"Content-Length: 18\r\n\r\n" + EVENTS,
    SSE_HEAD + b"12\r\n" + EVENTS + b"\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\n"
    + gzip.compress(EVENTS, mtime=0),
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: br\r\n\r\n"
    + brotli.compress(EVENTS),
)

#: Opcode, payload, and whether it is its message's last frame.
FRAMES = (
    (TEXT, b'{"prompt":"hi"}', True),
    (TEXT, b'{"type":"start","body":{"a":[1]}}', True),
    (TEXT, b'{"type":"chat","b":"\xc3\xa9"}', True),
    (TEXT, b'{"type":"cancel"}', True),
    (TEXT, b'{"type":"ping"}', True),
    (TEXT, b'{"type":"resume","last_event_id":"%b.1"}' % STREAM_ID.encode(), True),
    (TEXT, b'{"type":"pi', False),
    (CONTINUATION, b'ng"}', True),
    (TEXT, b"x" * 5000, True),
    (BINARY, bytes(range(256)), True),
    (PING, b"ping", True),
    (PONG, b"", True),
    (CLOSE, closing(1000, "bye"), True),
)

#: Codes that may stand in a close frame (RFC 6455 §7.4, and the registry that it began).
SENDABLE = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}

#: Bytes of the longest header, and of a control frame's longest payload (RFC 6455 §5.2, §5.5).
LONGEST_HELD = 14 + 125

#: A retry of more digits than the sidecar reads: the one place where it leaves the standard's letter.
TOO_MANY_DIGITS = re.compile(rb"retry: ?[0-9]{11}")

many = pytest.mark.parametrize(
    "count", [pytest.param(1, id="few"), pytest.param(50, id="many", marks=pytest.mark.long)]
)


def said(messages: list[Message]) -> list[tuple[str, str]]:
    """What a page hears: types and data. The ids are the sidecar's."""
    return [(message.type, message.data) for message in messages]


def noisy_stream(rng: random.Random) -> bytes:
    """Return several event streams run together, nearly right."""
    while TOO_MANY_DIGITS.search(
        stream := b"".join(mutated(rng, STREAMS) for _ in range(rng.randrange(1, 4)))
    ):
        pass
    return stream


def noisy_frames(rng: random.Random, *, masked: bool = True) -> bytes:
    """Return several frames, nearly right: in what they say, or in how; or in where they end."""
    key = rng.choice((bytes(4), rng.randbytes(4)))
    frames = []
    for _ in range(rng.randrange(1, 7)):
        opcode, payload, fin = rng.choice(FRAMES)
        said = mutated(rng, [payload]) if rng.random() < 0.4 else payload
        whole = frame(opcode, said, fin=fin, masked=masked, key=key)
        frames.append(mutated(rng, [whole]) if rng.random() < 0.2 else whole)
    return b"".join(frames)


# Event streams


@many
def test_a_noisy_stream_means_the_same_when_it_is_cut_and_numbered(count: int) -> None:
    """Whatever the noise and the cuts, a client of the sidecar is told what a client of the upstream is."""
    for number in range(3000 * count):
        rng = random.Random(f"{SEED} stream {number}")
        stream = noisy_stream(rng)
        parser, numbering = Parser(), Numbering(STREAM_ID, rng.choice(list(Ids)), follow=rng.random() < 0.5)
        wire = b"".join(numbering.number(parser.feed(data)).wire for data in reads(rng, stream))
        assert said(interpret(wire).messages) == said(interpret(stream).messages), (number, stream)


@many
async def test_a_noisy_stream_means_the_same_through_a_sidecar(
    count: int, start_origin: StartOrigin, start_process: StartProcess
) -> None:
    """Over real sockets, in chunks cut anywhere, followed live or replayed from any block."""

    async def script(connection: Connection) -> None:
        rng = random.Random(connection.target)
        await connection.start_stream()
        for data in reads(rng, noisy_stream(rng)):
            await connection.chunk(data)
        await connection.end()

    origin = await start_origin(script)
    process = await start_process(brief(origin.url))

    async def exchange(number: int) -> None:
        target = f"/{SEED}/{number}"
        expected = said(interpret(noisy_stream(random.Random(target))).messages)
        live = await ask(process.url, target, method="POST", body=b"{}")
        assert said(interpret(await live.body()).messages) == expected
        after = random.Random(number).randrange(len(expected) + 1)
        replay = await ask(process.url, f"/_streams/{live.header('stream-id')}?after={after}")
        assert said(interpret(await replay.body()).messages) == expected[after:]
        await hang_up(live.writer, reset=False)
        await hang_up(replay.writer, reset=True)

    await run(exchange, 150 * count)
    await is_sound(process)


# Requests and responses


@many
async def test_noisy_requests_harm_nobody(
    count: int, start_origin: StartOrigin, start_process: StartProcess, tell: Tell
) -> None:
    """Each is refused or answered; what reaches the upstream is well-formed; nothing is left behind."""
    origin = await start_origin(answer_at_once)
    process = await start_process(brief(origin.url, websocket="bridge"))
    statuses: dict[bytes, int] = {}

    async def exchange(number: int) -> None:
        rng = random.Random(f"{SEED} request {number}")
        reader, writer = await send(process.url, mutated(rng, REQUESTS))
        first = b""
        with contextlib.suppress(TimeoutError, ConnectionError):  # a request may wait for its own rest
            first = await asyncio.wait_for(reader.read(65536), 0.2)
        if first:
            status = re.fullmatch(rb"HTTP/1\.[01] ([1-5]\d\d) .*", first.partition(b"\r\n")[0])
            assert status is not None, first
            assert status[1] != b"500", first
            statuses[status[1]] = statuses.get(status[1], 0) + 1
        await hang_up(writer, reset=rng.random() < 0.5)

    await run(exchange, 300 * count)
    tell(f"{300 * count} noisy requests, answered {sorted(statuses.items())}")
    assert statuses.keys() >= {b"101", b"200", b"400"}
    await is_sound(process)


@many
async def test_noisy_responses_harm_nobody(
    count: int, start_origin: StartOrigin, start_process: StartProcess
) -> None:
    """Each is passed on, or told as a failure; no client waits for ever, and nothing is left behind."""

    async def script(connection: Connection) -> None:
        rng = random.Random(connection.target)
        for data in reads(rng, mutated(rng, RESPONSES)):
            await connection.send(data)
        if rng.random() < 0.7:
            await connection.close()
        else:
            await connection.gone()

    origin = await start_origin(script)
    process = await start_process(brief(origin.url))

    async def exchange(number: int) -> None:
        rng = random.Random(f"{SEED} client {number}")
        reader, writer = await send(
            process.url,
            b"GET /%d/response/%d HTTP/1.%d\r\nHost: x\r\n\r\n" % (SEED, number, rng.randrange(2)),
        )
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.")
            if rng.random() < 0.5:
                await reader.read(65536)
        await hang_up(writer, reset=rng.random() < 0.5)

    await run(exchange, 200 * count)
    await is_sound(process)


# WebSocket


@many
async def test_noisy_frames_harm_no_bridge(
    count: int, start_origin: StartOrigin, start_process: StartProcess, tell: Tell
) -> None:
    """Whatever a client says, it hears well-formed frames and, if anything, a goodbye; nothing is left."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        for _ in range(3):
            await connection.chunk(EVENTS)
        await connection.end()

    origin = await start_origin(script)
    process = await start_process(brief(origin.url, websocket="bridge", max_message="4KiB", heartbeat="1s"))
    heard: Counter[str] = Counter()

    async def exchange(number: int) -> None:
        rng = random.Random(f"{SEED} bridge {number}")
        socket = await connect(process.url, "/x")
        for data in reads(rng, noisy_frames(rng)):
            socket.answer.writer.write(data)
        with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(0.2):  # a frame may wait for its own rest
                while (came := await socket.frame()) is not None:
                    heard[note(came)] += 1
        await hang_up(socket.answer.writer, reset=rng.random() < 0.5)

    await run(exchange, 150 * count)
    tell(f"{150 * count} noisy clients of a bridge heard {sorted(heard.items())}")
    assert heard.keys() >= {"open", "event", "end", "error", "pong", "1002", "1007", "1009"}
    await is_sound(process)


def note(came: Frame) -> str:
    """Check that a frame of the sidecar's is a good one, and say in a word what it is."""
    assert came.fin
    assert not came.rsv
    assert not came.masked
    if came.opcode == TEXT:
        return str(came.json()["type"])
    if came.opcode == CLOSE:
        assert came.code in SENDABLE
        return str(came.code)
    assert came.opcode in (PING, PONG)
    return "control"


@many
@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_noisy_frames_pass_through_as_they_are(
    side: str, count: int, start_origin: StartOrigin, start_process: StartProcess
) -> None:
    """What one side says reaches the other byte for byte, up to where it says too much for the route."""
    arrived: dict[str, bytearray] = {}

    def said(target: str) -> bytes:
        return noisy_frames(random.Random(f"{SEED} {target}"), masked=side == "client")

    async def speak(writer: asyncio.StreamWriter, target: str) -> None:
        with contextlib.suppress(OSError):  # the other side may be quicker to leave
            for data in reads(random.Random(target), said(target)):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> None:
        """Note all that comes, and answer what looks like a goodbye."""
        came = arrived[target] = bytearray()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while data := await reader.read(65536):
                    came += data
                    if any(opcode == CLOSE for _, opcode in frames_of(came)[-1:]):
                        writer.write(frame(CLOSE, closing(1001), masked=side == "upstream"))
        writer.transport.abort()

    async def script(connection: Connection) -> None:
        await connection.send(AGREED)
        if side == "client":
            await listen(connection.reader, connection.writer, connection.target)
        else:
            await speak(connection.writer, connection.target)
            await connection.gone()

    origin = await start_origin(script)
    policies = {
        "websocket": "passthrough",
        "max_message": "4KiB",
        "heartbeat": "1m",
        "timeouts": {"first_byte": "30s"},
    }
    process = await start_process(brief(origin.url, **policies))

    async def exchange(number: int) -> None:
        target = f"/{side}/{number}"
        answer = (await connect(process.url, target)).answer
        if side == "client":
            await speak(answer.writer, target)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(PATIENCE):
                    await answer.reader.read()
            await hang_up(answer.writer, reset=True)
        else:
            await listen(answer.reader, answer.writer, target)

    await run(exchange, 150 * count)
    await is_sound(process)
    assert len(arrived) == 150 * count
    for target, came in arrived.items():
        check_passed(said(target), bytes(came))


def check_passed(said: bytes, came: bytes) -> None:
    """Check that what came is what was said.

    The beginning of a frame whose header, or whose little payload, is not there whole is held back. A
    message that is too large is left out with all that follows, and a goodbye of the sidecar's stands there.
    Where the speaker has said goodbye, there is none of the sidecar's, and nothing more needs to pass.
    """
    at, opcode = frames_of(came)[-1] if came else (0, PONG)
    if opcode == CLOSE and said.startswith(came[:at]):
        return
    assert said.startswith(came), (said, came)
    parted = any(opcode == CLOSE for _, opcode in frames_of(came))
    assert parted or len(said) - len(came) < LONGEST_HELD, (said, came)


def frames_of(data: bytes | bytearray) -> list[tuple[int, int]]:
    """Return where each frame in ``data`` begins, the last perhaps not whole, and its opcode."""
    frames, at = [], 0
    while at + 1 < len(data):
        frames.append((at, data[at] & 15))
        masked, size, begin = data[at + 1] >> 7, data[at + 1] & 127, at + 2
        if size >= 126:
            begin = at + (4 if size == 126 else 10)
            size = int.from_bytes(data[at + 2 : begin], "big")
        at = begin + 4 * masked + size
    return frames


async def answer_at_once(connection: Connection) -> None:
    """Answer what a sidecar made of a noisy request, which must be a good one."""
    assert re.fullmatch(rb"[A-Z]+ /[!-~]* HTTP/1\.1", connection.head.partition(b"\r\n")[0]), connection.head
    assert connection.header("host")
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def brief(upstream: str, **policies: object) -> dict[str, object]:
    """A sidecar that waits for nothing long, and has one route with these policies."""
    return {
        "upstreams": {"origin": {"url": upstream, "keepalive": "50ms"}},
        "defaults": {
            "heartbeat": "20ms",
            "linger": "50ms",
            "replay": {"keep": "2s"},
            "timeouts": {"first_byte": "500ms", "idle": "500ms", "send": "1s"},
        },
        "routes": [{"name": "all", "path": "/{tail:.*}", "upstream": "origin", "ids": "always", **policies}],
    }


async def run(exchange: Callable[[int], Awaitable[None]], count: int) -> None:
    """Run exchanges 0 … ``count``, so many at once."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await exchange(number)

    async with asyncio.TaskGroup() as workers:
        for _ in range(AT_ONCE):
            workers.create_task(work())


async def is_sound(process: SidecarProcess) -> None:
    """Check that a sidecar still answers, complains of nothing, and holds nothing."""
    await process.rests()
    assert process.complaints() == []
    assert (await process.census()).left == {}
