"""``client.js`` through the shipped nginx configuration, which loses its sidecar: nothing ends in silence."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.nginx.conftest import Edge, StartEdge, StartProcess
from tests.support.forwarder import Forwarder
from tests.support.origin import PROGRAM_PATIENCE
from tests.support.process import free_port
from tests.support.script import holds
from tests.web.conftest import node

__all__ = ["node"]  # a fixture

PROGRAM = Path(__file__).with_name("client.mjs")

#: nginx's own answer to whoever takes streams says to come again after 3 s; a page may wait 40 % longer.
RETRY = 3.0


class Reader:
    """``client.mjs`` in Node: what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []

    async def until(self, **wanted: Any) -> list[dict[str, Any]]:
        """Read on to a line that says this; return all so far."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PROGRAM_PATIENCE + 2 * RETRY):
            while not self.said or not wanted.items() <= self.said[-1].items():
                line = await self.process.stdout.readline()
                assert line, f"no {wanted} was said, only {self.said}"
                self.said.append(json.loads(line))
        return self.said


#: Starts to read at an edge.
StartReader = Callable[[Edge], Awaitable[Reader]]


@pytest.fixture
async def start_reader(node: Path) -> AsyncIterator[StartReader]:
    """Start readers, each of a chat of its own."""
    started: list[asyncio.subprocess.Process] = []

    async def start(edge: Edge) -> Reader:
        process = await asyncio.create_subprocess_exec(
            *(node, PROGRAM, f"{edge.url}/chat"),
            env={"NODE_EXTRA_CA_CERTS": str(edge.certificate.ca)},
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return Reader(process)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def sent_away(edge: Edge) -> None:
    """Wait until nginx has told a reader to come again: it answered, and there was no sidecar."""

    def told() -> bool:
        lines = map(json.loads, edge.nginx.access_log().splitlines())
        return any(line["status"] == 200 and line["connect_s"] == "-" for line in lines)

    await eventually(told, "nginx's own answer")


async def test_it_goes_on_where_the_sidecar_comes_back(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge, start_reader: StartReader
) -> None:
    """It was not to be reached for a while, in the middle of an answer: the rest comes, and the real end."""
    origin = await start_origin(holds(b"data: 1\n\n", b"data: 2\n\n"))
    async with Forwarder((await start_sidecar(origin.url)).url) as wire:
        edge = await start_edge(wire.url)
        reader = await start_reader(edge)
        await reader.until(type="event", seq=2)
        await wire.stop()
        await sent_away(edge)
        chat = await origin.request()
        await chat.chunk(b"data: 3\n\n")
        await wire.start()
        await reader.until(type="event", seq=3)
        await chat.end()
        said = await reader.until(type="end")
    assert [line["seq"] for line in said if line["type"] == "event"] == [1, 2, 3]
    assert said[-1]["reason"] == "complete"
    assert len(origin.requests) == 1


async def test_it_throws_where_the_sidecar_died(
    start_origin: StartOrigin, start_process: StartProcess, start_edge: StartEdge, start_reader: StartReader
) -> None:
    """The next one knows nothing of the stream, and says so; that is no end of the answer."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    listen = f"127.0.0.1:{free_port()}"
    dying = await start_process(origin.url, listen=listen)
    edge = await start_edge(await dying.url())
    reader = await start_reader(edge)
    await reader.until(type="event", seq=1)
    dying.signal(signal.SIGKILL)
    await dying.ended()
    await sent_away(edge)
    await (await start_process(origin.url, listen=listen)).url()
    said = await reader.until(type="end")
    assert said[-2:] == [
        {"type": "thrown", "code": "unknown-stream"},
        {"type": "end", "reason": "unknown-stream"},
    ]
    assert len(origin.requests) == 1
