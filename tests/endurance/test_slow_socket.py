"""A WebSocket whose peer reads nothing for a while: it is waited for, in bounded memory, and gets it all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from proxy.demo import Running
from tests.conftest import StartOrigin, at_rest, eventually
from tests.endurance.conftest import StartProcess, Tell
from tests.endurance.process import MIB, SidecarProcess
from tests.support.origin import Connection
from tests.support.websocket import BINARY, connect, frame

LOOPS = ("uvloop",)

#: Bytes of an event's data, or of a message.
PIECE = 64 * 1024

#: What a slow reader may add to the sidecar's memory: a log of 1 MiB, buffers, and holes.
GROWTH = 8 * MIB

#: What the kernel may keep for one who does not read, in bytes. As small as it gets would only be slow.
WINDOW = 64 * 1024

#: For how long nothing is read, in seconds, and how much there is to read.
patiently = pytest.mark.parametrize(
    ("seconds", "size"),
    [
        pytest.param(1, 24 * MIB, id="1s"),
        pytest.param(10, 100 * 1000 * 1000, id="10s", marks=pytest.mark.long),
    ],
)


def configured(upstream: str) -> dict[str, object]:
    """A bridge and a pass-through to one upstream. Heartbeats fall into every pause of these tests."""
    return {
        "upstreams": {"origin": {"url": upstream}},
        "defaults": {"heartbeat": "500ms", "replay": {"max_bytes": "1MiB"}},
        "routes": [
            {"name": "socket", "path": "/api/socket", "upstream": "origin", "websocket": "passthrough"},
            {"name": "all", "path": "/{tail:.*}", "upstream": "origin", "websocket": "bridge"},
        ],
    }


class Stall:
    """A stretch in which nothing is read: how far the other side came, and what it cost the sidecar."""

    def __init__(self, process: SidecarProcess, before: int) -> None:
        self._process = process
        self._before = before

    @classmethod
    async def begin(cls, process: SidecarProcess) -> Stall:
        """Measure from now on."""
        before = (await process.census()).resident
        process.forget_peak()
        return cls(process, before)

    async def last(self, seconds: float, sent: Callable[[], int], size: int) -> None:
        """Wait until the sender has been held back for so long: it stood still, and was not at its end."""
        await eventually(sent, "something is sent")
        for _ in range(5):  # on a busy machine the sidecar's process may have stood still before
            held = await at_rest(sent)
            assert held < size
            await asyncio.sleep(seconds)
            if sent() == held:
                return
        raise AssertionError(f"{sent()} of {size} bytes were sent, and it goes on")

    def check(self, what: str, size: int, tell: Tell) -> None:
        """Tell and check what it cost at most."""
        peak = self._process.peak()
        tell(
            f"{what}, {size / 1e6:.0f} MB: RSS {self._before / MIB:.1f} → at most {peak / MIB:.1f} MiB "
            f"(+{(peak - self._before) / MIB:.1f})"
        )
        assert peak - self._before < GROWTH
        assert self._process.complaints() == []


def event(number: int) -> bytes:
    """The data of the event of this number (from 0)."""
    return json.dumps({"number": number, "text": chr(97 + number % 26) * PIECE}).encode()


@patiently
async def test_a_reader_of_the_bridge_that_reads_nothing_loses_nothing(
    seconds: int, size: int, start_origin: StartOrigin, start_process: StartProcess, tell: Tell
) -> None:
    """The upstream is held back, not the rest of the world; afterwards every event comes, once."""
    count, sent = size // PIECE, 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.start_stream()
        for number in range(count):
            await connection.chunk(b"data: %b\n\n" % event(number))
            sent += PIECE
        await connection.end()

    origin = await start_origin(script)
    process = await start_process(configured(origin.url))
    socket = await connect(process.url, "/x", window=WINDOW)
    stall = await Stall.begin(process)
    await socket.say({"type": "start", "body": {}})
    opened = await socket.hear()
    socket.stall()
    await stall.last(seconds, lambda: sent, size)
    socket.go_on()
    for number in range(count):
        heard = await socket.hear()
        assert heard["id"] == f"{opened['stream']}.{number + 1}"
        assert heard["data"] == json.loads(event(number))
    assert await socket.hear() == {"type": "end", "stream": opened["stream"], "reason": "complete"}
    assert sent == count * PIECE
    stall.check(f"a reader of the bridge that reads nothing for {seconds} s", size, tell)
    socket.abort()


@patiently
async def test_a_client_of_a_pass_through_that_reads_nothing_loses_nothing(
    seconds: int, size: int, provider: Running, start_process: StartProcess, tell: Tell
) -> None:
    """The upstream is held back; afterwards every message comes, once."""
    count = size // PIECE
    process = await start_process(configured(provider.url))
    socket = await connect(process.url, "/api/socket", window=WINDOW)
    stall = await Stall.begin(process)
    await socket.say({"do": "send", "count": count, "bytes": PIECE})
    socket.stall()
    (record,) = provider.requests
    await stall.last(seconds, lambda: record.events * PIECE, size)
    socket.go_on()
    for number in range(count):
        assert await socket.hear_bytes() == bytes([number % 256]) * PIECE
    assert record.events == count
    stall.check(f"a client of a pass-through that reads nothing for {seconds} s", size, tell)
    socket.abort()


@patiently
async def test_an_upstream_of_a_pass_through_that_reads_nothing_loses_nothing(
    seconds: int, size: int, provider: Running, start_process: StartProcess, tell: Tell
) -> None:
    """The client is held back; afterwards every message arrives, once, and comes back."""
    count, sent = size // PIECE, 0
    process = await start_process(configured(provider.url))
    socket = await connect(process.url, "/api/socket")
    stall = await Stall.begin(process)
    await socket.say({"do": "pause", "seconds": seconds + 5})

    async def talk() -> None:
        nonlocal sent
        for number in range(count):
            socket.answer.writer.write(frame(BINARY, bytes([number % 256]) * PIECE))
            await socket.answer.writer.drain()
            sent += PIECE

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(talk())
        await stall.last(seconds, lambda: sent, size)
        for number in range(count):
            assert await socket.hear_bytes() == bytes([number % 256]) * PIECE
    stall.check(f"an upstream of a pass-through that reads nothing for {seconds} s", size, tell)
    socket.abort()
