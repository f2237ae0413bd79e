"""Minutes of everything at once: whatever comes, the sidecar complains of nothing and grows no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import mean

import pytest

from proxy.demo import Running, expected_text
from tests.endurance.conftest import StartProcess, Tell
from tests.endurance.crowd import follow_stream, routes
from tests.endurance.follower import Tally, call, hang_up
from tests.endurance.process import MIB, SidecarProcess
from tests.support.client import Answer, Truncated, read_answer
from tests.support.origin import PATIENCE
from tests.support.websocket import BINARY, CLOSE, PING, PONG, Socket, connect

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))

#: Clients at any moment.
CLIENTS = 24

#: Blocks of memory that may be allocated afterwards for every exchange: a leak begins at one. Measured: 0.34.
BLOCKS_AN_EXCHANGE = 0.5

#: The last third may hold so much more than the second. Memory gets holes; what fills them is counted.
GROWTH = 8 * MIB

ENDLESS = "/v1/chat/completions?endless=1&interval=0.005"
CHAT = json.dumps({"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()

#: What aiohttp's parser, ours or the guard refuse, each in its own way.
MALFORMED = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /v1/%2e%2e/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /_streams/AAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: x\r\n\r\n",
)


class Client:
    """One of many that do at random what clients do, and check what comes of it."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._url = url
        self._rng = rng
        self._habits: dict[Callable[[], Awaitable[None]], int] = {
            self._ask_for_json: 8,
            self._upload: 3,
            self._download: 3,
            self._stream: 6,
            self._stream_and_resume: 6,
            self._cancel: 3,
            self._leave: 3,
            self._leave_before_the_answer: 3,
            self._meet_an_error: 2,
            self._meet_a_broken_stream: 2,
            self._meet_a_silent_stream: 2,
            self._meet_a_dead_upstream: 1,
            self._follow_a_feed: 1,
            self._talk_over_a_bridge: 6,
            self._stop_over_a_bridge: 3,
            self._echo_through_a_tunnel: 4,
            self._talk_nonsense: 2,
        }

    async def work(self, end: float) -> None:
        """Do one thing after the other until that (monotonic) time."""
        while time.monotonic() < end:
            (habit,) = self._rng.choices(list(self._habits), list(self._habits.values()))
            await habit()
            self.done[habit.__name__] += 1

    async def _ask_for_json(self) -> None:
        async with self._asking("GET", "/api/hello") as answer:
            assert (await answer.json())["message"] == "hello"

    async def _upload(self) -> None:
        body = self._rng.randbytes(self._rng.randrange(200_000))
        async with self._asking("POST", "/api/upload", body) as answer:
            assert (await answer.json())["bytes"] == len(body)

    async def _download(self) -> None:
        size = self._rng.randrange(1, 500_000)
        async with self._asking("GET", f"/api/download?bytes={size}") as answer:
            if self._rng.random() < 0.7:
                assert len(await answer.body()) == size

    async def _stream(self) -> None:
        async with self._asking("POST", "/v1/chat/completions?interval=0.002", CHAT) as answer:
            body = await answer.body()
        assert b"data: [DONE]\n\n" in body
        chunks = (json.loads(line[len(b"data: ") :]) for line in body.split(b"\n") if b"{" in line)
        deltas = (chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        assert "".join(deltas) == expected_text()

    async def _stream_and_resume(self) -> None:
        number, quota = self._rng.randrange(1_000_000), self._rng.randrange(1, 6)
        await follow_stream(self._url, self._rng, number, quota, Tally())

    async def _cancel(self) -> None:
        async with self._asking("POST", ENDLESS, CHAT) as answer:
            await answer.blocks(self._rng.randrange(1, 5))
            address = f"/_streams/{answer.header('stream-id')}"
            async with self._asking("POST", f"{address}/cancel") as cancelled:
                assert cancelled.status == 202
            assert b"cancelled" in await answer.rest()

    async def _leave(self) -> None:
        async with self._asking("POST", ENDLESS, CHAT) as answer:
            await answer.blocks(self._rng.randrange(1, 5))

    async def _leave_before_the_answer(self) -> None:
        target = f"/v1/chat/completions?headers_delay={self._rng.random() / 10:.3f}"
        _, writer = await call(self._url, "POST", target, body=CHAT)
        await asyncio.sleep(self._rng.random() / 10)
        writer.transport.abort()

    async def _meet_an_error(self) -> None:
        status = self._rng.choice((429, 500, 503))
        async with self._asking("POST", f"/v1/chat/completions?status={status}", CHAT) as answer:
            assert answer.status == status
            assert "error" in await answer.json()

    async def _meet_a_broken_stream(self) -> None:
        wrong = self._rng.choice(("drop_at=5", "error_at=5", "truncate_at=5"))
        async with self._asking("POST", f"/v1/chat/completions?interval=0&{wrong}", CHAT) as answer:
            body = await answer.body()
        assert b'"error"' in body
        assert b"[DONE]" not in body

    async def _meet_a_silent_stream(self) -> None:
        async with self._asking("POST", "/v1/chat/completions?interval=0&hang_at=3", CHAT) as answer:
            assert b"idle_timeout" in await answer.body()

    async def _meet_a_dead_upstream(self) -> None:
        async with self._asking("GET", "/dead/x") as answer:
            assert answer.status == 502

    async def _follow_a_feed(self) -> None:
        async with self._asking("GET", "/api/events?count=9&interval=0.01&drop_at=5") as answer:
            blocks = await answer.blocks(7)  # the upstream drops after five, and is asked again
        ids = [line for block in blocks for line in block.split(b"\n") if line.startswith(b"id:")]
        assert ids == [b"id: %d" % number for number in range(1, 8)]

    async def _talk_over_a_bridge(self) -> None:
        async with self._joined("/api/chat?interval=0.002") as socket:
            for _ in range(self._rng.randrange(1, 4)):
                await socket.say({"prompt": "hi"})
                heard = await socket.hear_until("end")
                texts = (frame["data"]["text"] for frame in heard if frame.get("event") == "token")
                assert "".join(texts) == expected_text()

    async def _stop_over_a_bridge(self) -> None:
        async with self._joined("/api/chat?endless=1&interval=0.005") as socket:
            await socket.say({"prompt": "hi"})
            for _ in range(self._rng.randrange(1, 5)):
                assert (await socket.hear())["type"] in ("open", "event")
            if self._rng.random() < 0.7:
                await socket.say({"type": "cancel"})
                assert (await socket.hear_until("end"))[-1]["reason"] == "cancelled"

    async def _echo_through_a_tunnel(self) -> None:
        async with self._joined("/api/socket") as socket:
            for _ in range(self._rng.randrange(1, 5)):
                message = self._rng.randbytes(self._rng.randrange(200_000))
                await socket.send(BINARY, message)
                assert await socket.hear_bytes() == message

    async def _talk_nonsense(self) -> None:
        async with self._asking("GET", "/api/hello") as answer:
            await answer.body()
            answer.writer.write(self._rng.choice(MALFORMED))
            answer.writer.write_eof()
            with contextlib.suppress(ConnectionError):
                while await answer.reader.read(65536):
                    pass

    @contextlib.asynccontextmanager
    async def _joined(self, target: str) -> AsyncIterator[Socket]:
        """A WebSocket, which the client closes as one should, or just leaves."""
        socket = await connect(self._url, target)
        try:
            yield socket
            if self._rng.random() < 0.3:
                await socket.close()
        finally:
            await hang_up(socket.answer.writer, reset=self._rng.random() < 0.5)

    @contextlib.asynccontextmanager
    async def _asking(self, method: str, target: str, body: bytes | None = None) -> AsyncIterator[Answer]:
        """An answer, from whose connection the client leaves in one way or the other."""
        reader, writer = await call(self._url, method, target, body=body)
        try:
            answer = await read_answer(reader, writer, method)
            yield answer
        finally:
            await hang_up(writer, reset=self._rng.random() < 0.5)


def document(provider: str, turn: int) -> dict[str, object]:
    """A configuration; each turn retires the pools of the one before."""
    policies = {"heartbeat": "500ms", "linger": "1s", "replay": {"keep": "10s"}}
    return {
        # A full house: tombstones and logs reach their bounds within the first third.
        "store": {"memory": {"max_bytes": "16MiB", "tombstones": 100}},
        "upstreams": {
            "provider": {"url": provider, "keepalive": f"{200 + turn}ms"},
            "dead": {"url": "http://127.0.0.1:1"},
        },
        "defaults": {**policies, "timeouts": {"idle": "2s"}},
        "routes": [
            {"name": "dead", "path": "/dead/{tail:.*}", "upstream": "dead"},
            {"name": "socket", "path": "/api/socket", "upstream": "provider", "websocket": "passthrough"},
            *routes("provider", {"feed": {"reconnect": True}}),
        ],
    }


@pytest.mark.long
async def test_minutes_of_mixed_traffic(provider: Running, start_process: StartProcess, tell: Tell) -> None:
    """No complaint in the log, every gauge back to zero, no descriptor more, and memory flat."""
    process = await start_process(document(provider.url, 0))
    await work(process, provider, seconds=SECONDS / 12)
    await process.rests()
    before, descriptors = await process.census(), process.descriptors()

    done, memory = await work(process, provider, seconds=SECONDS)
    await process.rests()
    await process.closes_all_but(descriptors)
    after = await process.census()
    third = len(memory) // 3
    thirds = [mean(memory[start : start + third]) / MIB for start in (0, third, 2 * third)]
    tell(
        f"{SECONDS:.0f} s of mixed traffic, {done.total()} exchanges by {CLIENTS} clients: mean RSS by "
        f"thirds {', '.join(f'{part:.1f}' for part in thirds)} MiB, tidied {before.resident / MIB:.1f} → "
        f"{after.resident / MIB:.1f} MiB; descriptors {descriptors} → {process.descriptors()}; "
        f"blocks {before.blocks} → {after.blocks}; more objects: {after.more_than(before)}"
    )
    assert process.complaints() == []
    assert provider.ledger.open_streams == 0
    assert after.left == {}
    pools = "proxy.server.upstream.Upstream"  # every reload retired one, and made another
    assert after.kinds[pools] == before.kinds[pools]
    assert after.blocks - before.blocks < done.total() * BLOCKS_AN_EXCHANGE
    assert (thirds[2] - thirds[1]) * MIB < GROWTH


async def test_the_end_in_the_midst_of_everything(provider: Running, start_process: StartProcess) -> None:
    """SIGTERM, while streams run, are stalled, wait for headers and are kept, ends in good order.

    WebSockets are told, whatever they are at.
    """
    process = await start_process({**document(provider.url, 0), "drain": "200ms"})
    running = [await call(process.url, "POST", ENDLESS, body=CHAT) for _ in range(20)]
    stalled = [
        await call(process.url, "POST", f"{ENDLESS}&size=50000&burst=10", body=CHAT, narrow=True)
        for _ in range(5)
    ]
    waiting = [await call(process.url, "POST", f"{ENDLESS}&headers_delay=60", body=CHAT) for _ in range(5)]
    answers = [await read_answer(*connection) for connection in running]
    await asyncio.gather(*(answer.blocks(3) for answer in answers))
    targets = ["/api/chat?endless=1&interval=0.005", "/api/chat", "/api/socket"] * 5
    sockets = await asyncio.gather(*(connect(process.url, target) for target in targets))
    for socket in sockets[::3]:
        await socket.say({"prompt": "hi"})
    farewells = asyncio.gather(*map(farewell, sockets))
    assert await process.stop() == 0
    assert await farewells == [1001] * len(sockets)
    for answer in answers:
        with pytest.raises(Truncated):  # cut between two blocks, but not ended: it could be resumed
            await answer.body()
    for _, writer in (*running, *stalled, *waiting):
        await hang_up(writer, reset=True)
    assert process.complaints() == []
    await provider.ledger.until(lambda: not provider.ledger.open_streams, timeout=PATIENCE)


async def farewell(socket: Socket) -> int:
    """Wait for the sidecar's goodbye and answer it; return its code."""
    while (came := await socket.frame()) is not None:
        if came.opcode not in (PING, CLOSE):
            continue
        with contextlib.suppress(ConnectionError):  # it may be gone: on a busy machine this takes a while
            await socket.send(PONG if came.opcode == PING else CLOSE, came.payload)
        if came.opcode == CLOSE:
            return came.code
    raise AssertionError("it left without a goodbye")


async def work(
    process: SidecarProcess, provider: Running, *, seconds: float
) -> tuple[Counter[str], list[int]]:
    """Let clients work, and reload now and then; return what they did, and the memory every second."""
    end = time.monotonic() + seconds
    clients = [Client(process.url, random.Random(number)) for number in range(CLIENTS)]
    memory: list[int] = []
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.work(end))
        for turn in range(int(seconds)):
            await asyncio.sleep(max(0.0, min(1.0, end - time.monotonic())))
            memory.append(process.resident())
            if turn % 5 == 4:
                process.configure(document(provider.url, turn))
                process.reload()
    return sum((client.done for client in clients), Counter()), memory
