"""Thousands of WebSockets on which nothing happens: what each of them costs."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.conftest import StartOrigin
from tests.endurance.conftest import StartProcess, Tell
from tests.endurance.process import SidecarProcess
from tests.support.origin import Connection
from tests.support.websocket import AGREED, KEY, Socket, connect

LOOPS = ("uvloop",)

KIB = 1024

#: Connections held at once.
CONNECTIONS = 5000

#: What one may cost, in bytes of proportional memory: on the bridge, and as a pair that passes through.
BRIDGE, PAIR = 25 * KIB, 50 * KIB

#: Connections that are being opened at once; a listener's queue is not much longer.
AT_ONCE = 50

#: Descriptors that a process has besides.
SPARE = 200

Open = Callable[[str], Awaitable[Socket]]


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many descriptors as the pairs of connections need, which the sidecar's process inherits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTIONS + SPARE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"LEFT OUT: {CONNECTIONS} idle WebSockets: the hard limit of descriptors is {hard}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def configured(upstream: str) -> dict[str, object]:
    """A bridge and a pass-through to one upstream. No heartbeat falls into the test."""
    return {
        "upstreams": {"origin": {"url": upstream}},
        "defaults": {"heartbeat": "10m"},
        "routes": [
            {"name": "socket", "path": "/socket", "upstream": "origin", "websocket": "passthrough"},
            {"name": "all", "path": "/{tail:.*}", "upstream": "origin", "websocket": "bridge"},
        ],
    }


async def echo(connection: Connection) -> None:
    """An upstream that accepts a WebSocket and sends every byte back, masks and all."""
    assert connection.header("Sec-WebSocket-Key") == KEY
    await connection.send(AGREED)
    while data := await connection.reader.read(65536):
        await connection.send(data)


async def bridged(url: str) -> Socket:
    """A connection to the bridge, over which something was said."""
    socket = await connect(url, "/x")
    await socket.say({"type": "ping"})
    assert await socket.hear() == {"type": "pong"}
    return socket


async def joined(url: str) -> Socket:
    """A pair of connections, over which something was said."""
    socket = await connect(url, "/socket")
    await socket.say("hello")
    came = await socket.frame()
    assert came is not None
    assert came.payload == b"hello"
    return socket


async def opened(url: str, opening: Open, count: int) -> list[Socket]:
    """Open so many, a few at once."""
    sockets: list[Socket] = []
    for start in range(0, count, AT_ONCE):
        batch = min(AT_ONCE, count - start)
        sockets += await asyncio.gather(*(opening(url) for _ in range(batch)))
    return sockets


async def tidy(process: SidecarProcess) -> int:
    """Let the process collect garbage and give back memory; return its proportional memory, in bytes."""
    await process.census()
    return process.proportional()


@pytest.mark.long
@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize(
    ("opening", "what", "bound"),
    [
        pytest.param(bridged, "connection to the bridge", BRIDGE, id="bridge"),
        pytest.param(joined, "pair that passes through", PAIR, id="passthrough"),
    ],
)
async def test_five_thousand_idle_connections(
    opening: Open,
    what: str,
    bound: int,
    start_origin: StartOrigin,
    start_process: StartProcess,
    tell: Tell,
) -> None:
    """Each costs at most its bound; and when they have gone, no object of theirs is left."""
    origin = await start_origin(echo)
    process = await start_process(configured(origin.url))
    for socket in await opened(process.url, opening, 100):  # code, pools and caches warm up
        socket.abort()
    await process.rests()
    before = await tidy(process)

    sockets = await opened(process.url, opening, CONNECTIONS)
    assert (await process.metrics())["sidecar_websockets"] == CONNECTIONS
    each = (await tidy(process) - before) / CONNECTIONS
    tell(f"{CONNECTIONS} idle WebSockets: {each / KIB:.1f} KiB (PSS) a {what}")
    assert each <= bound
    for socket in sockets:
        socket.abort()
    await process.rests()
    assert (await process.census()).left == {}
    assert process.complaints() == []
