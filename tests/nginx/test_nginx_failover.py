"""Several sidecars behind the shipped nginx configuration: one stops, one dies, each has its streams."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar
from tests.nginx.conftest import Edge, StartEdge, StartProcess
from tests.support.client import Answer, Truncated
from tests.support.command import Command
from tests.support.origin import Connection, Origin, Script
from tests.support.process import free_port
from tests.support.script import holds, streams

#: What makes a request one of an EventSource's that comes back, in a browser.
EVENT_SOURCE = {"Accept": "text/event-stream", "Sec-Fetch-Mode": "cors"}
MIB = 1 << 20


async def waits(connection: Connection) -> None:
    """Answer nothing, as a model that thinks."""
    await connection.gone()
    await connection.close()


@dataclass(frozen=True, slots=True)
class Pair:
    """An edge with two sidecars, each with an origin of its own. The first request goes to the first of them.

    That one is a process, since it has to die.
    """

    edge: Edge
    first: Command
    origins: tuple[Origin, Origin]


#: Starts a pair whose origins follow a script; more keys are the first sidecar's.
StartPair = Callable[..., Awaitable[Pair]]


@pytest.fixture
async def start_pair(
    start_origin: StartOrigin,
    start_process: StartProcess,
    start_sidecar: StartSidecar,
    start_edge: StartEdge,
) -> StartPair:
    """Start pairs."""

    async def start(script: Script, **top: Any) -> Pair:
        origins = await start_origin(script), await start_origin(script)
        first = await start_process(origins[0].url, **top)
        second = await start_sidecar(origins[1].url)
        return Pair(await start_edge(await first.url(), second.url), first, origins)

    return start


async def posted(
    edge: Edge, target: str = "/v1/chat/completions", *, after: str | None = None, body: bytes = b"{}"
) -> Answer:
    """Post a question; ``after``: the last event id of a client that comes back so."""
    headers = {} if after is None else {"Last-Event-ID": after}
    return await edge.ask(target, method="POST", headers=headers, body=body)


# One that goes


async def test_a_sidecar_that_drains(start_pair: StartPair) -> None:
    """At SIGTERM its streams go on to their end, and new requests all go to the other one."""
    pair = await start_pair(holds(b"data: 1\n\n"), drain="10s")
    running = await posted(pair.edge)
    await running.block()
    pair.first.signal(signal.SIGTERM)
    await pair.first.logged("draining")

    for _ in range(6):
        answer = await posted(pair.edge)
        assert answer.status == 200
    assert [len(origin.requests) for origin in pair.origins] == [1, 6]

    upstream = await pair.origins[0].request()
    await upstream.chunk(b"data: 2\n\n")
    await upstream.end()
    assert (await running.rest()).endswith(b"data: 2\n\n")
    assert await pair.first.ended() == 0


async def test_a_sidecar_that_dies(start_pair: StartPair) -> None:
    """Its streams break, visibly. New requests go to the other one."""
    pair = await start_pair(holds(b"data: 1\n\n"))
    running = await posted(pair.edge)
    await running.block()
    pair.first.signal(signal.SIGKILL)
    with pytest.raises(Truncated):
        await running.rest()

    for _ in range(6):
        answer = await posted(pair.edge)
        assert answer.status == 200
    assert [len(origin.requests) for origin in pair.origins] == [1, 6]


async def test_a_post_is_never_sent_twice(start_pair: StartPair) -> None:
    """The sidecar that has it dies: nobody else gets it, and SDKs are told not to try again."""
    pair = await start_pair(waits)
    asking = asyncio.create_task(posted(pair.edge), name="the post")
    await pair.origins[0].request()
    pair.first.signal(signal.SIGKILL)
    answer = await asking
    assert answer.status == 502
    assert answer.header("x-should-retry") == "false"
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("cache-control") == "no-store"
    assert not pair.origins[1].requests


async def test_a_get_is_sent_to_the_other_one(start_pair: StartPair) -> None:
    """Where it does no harm, the client never hears that a sidecar died."""
    pair = await start_pair(waits)
    pair.origins[1].script = streams(b"data: 1\n\n")
    asking = asyncio.create_task(pair.edge.ask("/events"), name="the get")
    await pair.origins[0].request()
    pair.first.signal(signal.SIGKILL)
    answer = await asking
    assert (await answer.rest()).endswith(b"data: 1\n\n")


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_large_post_that_meets_a_sidecar_that_is_down(
    version: str,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
    start_edge: StartEdge,
    tmp_path: Path,
) -> None:
    """None of it was sent, so the other one gets it, all of it."""

    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d" % len(connection.body))

    up = (await start_sidecar((await start_origin(script)).url)).url
    for down_first in (True, False):
        down = f"http://127.0.0.1:{free_port()}"
        edge = await start_edge(*([down, up] if down_first else [up, down]))
        for _ in range(2):
            if version == "1.1":
                length = await (await posted(edge, body=bytes(4 * MIB))).body()
            else:
                file = tmp_path / "body"
                file.write_bytes(bytes(4 * MIB))
                async with edge.curl("/files", "--request", "POST", "--upload-file", file) as curl:
                    _, length = await curl.rest()
            assert length == b"%08d" % (4 * MIB)
        assert "connect() failed" in edge.nginx.error_log()


# None is there


async def test_without_a_sidecar(start_edge: StartEdge) -> None:
    """A program gets a 502 that may be tried again: nothing was sent."""
    edge = await start_edge(f"http://127.0.0.1:{free_port()}")
    for answer in (
        await posted(edge),
        await edge.ask("/events"),
        await edge.ask("/events", headers={"Accept": "*/*"}),
    ):
        assert answer.status == 502
        assert answer.header("x-should-retry") is None
        assert (await answer.json())["status"] == 502


async def test_an_event_source_comes_again_where_there_is_no_sidecar(start_edge: StartEdge) -> None:
    """It would give up for good on a 502. Over HTTP/2 as well, and where its stream's node is known."""
    down = f"http://127.0.0.1:{free_port()}"
    edge = await start_edge(down, nodes={"a": down})
    for target in ("/events", f"/_streams/a-{'x' * 22}"):
        answer = await edge.ask(target, headers=EVENT_SOURCE)
        assert answer.status == 200
        assert answer.header("content-type") == "text/event-stream"
        assert await answer.rest() == b"retry: 3000\n\n"
    async with edge.curl(
        "/events", "--header", "Accept: text/event-stream", "--header", "Last-Event-ID: 7"
    ) as curl:
        assert await curl.rest() == (0, b"retry: 3000\n\n")


# Whose stream it is


@dataclass(frozen=True, slots=True)
class Nodes:
    """An edge with two sidecars, by node, in this process, and what is behind them."""

    edge: Edge
    sidecars: dict[str, Sidecar]
    origin: Origin

    async def open_all(self, target: str = "/chat", method: str = "POST") -> dict[str, str]:
        """Open streams until each node has some; return six ids, with the node of each."""
        opened = {}
        for _ in range(6):
            answer = await self.edge.ask(target, method=method, body=b"{}" if method == "POST" else None)
            await answer.block()
            stream = answer.header("stream-id") or ""
            opened[stream] = stream.partition("-")[0]
        assert set(opened.values()) == {"a", "b"}
        return opened


@pytest.fixture
async def nodes(start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge) -> Nodes:
    """Two sidecars, named, behind an edge that knows them."""
    origin = await start_origin(holds(b"data: 1\n\n", b"data: 2\n\n"))
    sidecars = {tag: await start_sidecar(origin.url, node=tag) for tag in "ab"}
    urls = {tag: sidecar.url for tag, sidecar in sidecars.items()}
    return Nodes(await start_edge(*urls.values(), nodes=urls), sidecars, origin)


async def test_a_resume_comes_to_the_sidecar_that_has_the_stream(nodes: Nodes) -> None:
    """By path, by Last-Event-ID on the stream's own route, and by query; and no upstream is asked again."""
    opened = await nodes.open_all()
    for stream in opened:
        ways = [
            await nodes.edge.ask(f"/_streams/{stream}?after=1"),
            await nodes.edge.ask(f"/_streams/{stream}?last_event_id={stream}.1"),
            await posted(nodes.edge, "/chat", after=f"{stream}.1"),
        ]
        for answer in ways:
            assert answer.status == 200, stream
            assert await answer.block() == b"id: %b.2\nretry: 3000\ndata: 2\n\n" % stream.encode()
    assert len(nodes.origin.requests) == 6


async def test_state_and_cancel_come_to_it_as_well(nodes: Nodes) -> None:
    """Whatever is below the stream's own path does."""
    for stream in await nodes.open_all():
        state = await nodes.edge.ask(f"/_streams/{stream}/state")
        assert (await state.json())["state"] == "live"
        cancel = await nodes.edge.ask(f"/_streams/{stream}/cancel", method="POST")
        assert cancel.status == 202


async def test_a_websocket_can_name_its_stream_in_the_query(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Its messages nginx does not read, so that its resume would find the stream by luck only."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    route = {"websocket": "bridge"}
    sidecars = {tag: await start_sidecar(origin.url, node=tag, route=route) for tag in "ab"}
    urls = {tag: sidecar.url for tag, sidecar in sidecars.items()}
    edge = await start_edge(*urls.values(), nodes=urls)
    opened = await Nodes(edge, sidecars, origin).open_all()
    for stream in opened:
        socket = await edge.connect(f"/chat?last_event_id={stream}.0")
        await socket.say({"type": "resume", "stream": stream, "after": 0})
        assert (await socket.hear())["type"] == "open"


async def test_the_streams_node_is_down(nodes: Nodes) -> None:
    """Another sidecar says that there is no such stream, which is final, where a 502 would be asked again."""
    opened = await nodes.open_all()
    gone, left = (next(stream for stream, node in opened.items() if node == tag) for tag in "ab")
    await nodes.sidecars["a"].stop()
    for answer in (
        await nodes.edge.ask(f"/_streams/{gone}", headers={"Last-Event-ID": f"{gone}.1"}),
        await nodes.edge.ask(f"/_streams/{gone}", headers=EVENT_SOURCE),
        await nodes.edge.ask(f"/_streams/{gone}", method="DELETE"),
    ):
        assert answer.status == 404
        assert (await answer.json())["type"] == "urn:sse-sidecar:problem:unknown-stream"
    assert (await nodes.edge.ask(f"/_streams/{left}")).status == 200
    assert len(nodes.origin.requests) == 6


@pytest.mark.parametrize("size", [0, 2, 4 * MIB])
async def test_the_posted_streams_node_is_down(size: int, nodes: Nodes) -> None:
    """It gets its 404 from nginx, at once: the body, which nobody holds, could not be sent to another one."""
    gone = next(stream for stream, node in (await nodes.open_all()).items() if node == "a")
    await nodes.sidecars["a"].stop()
    answer = await posted(nodes.edge, "/chat", after=f"{gone}.1", body=bytes(size))
    assert answer.status == 404
    assert answer.header("content-type") == "application/problem+json"
    assert (await answer.json())["type"] == "about:blank"


async def test_the_streams_node_has_no_address_any_more(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Its name is not known, as that of a pod that is gone: nothing was sent, and the others are asked."""
    sidecar = await start_sidecar((await start_origin(holds())).url, node="b")
    edge = await start_edge(sidecar.url, nodes={"a": "http://gone.invalid:8080"})
    gone = f"a-{'x' * 22}"
    for answer in (
        await edge.ask(f"/_streams/{gone}"),
        await edge.ask(f"/_streams/{gone}/cancel", method="POST"),
    ):
        assert answer.status == 404


async def test_a_feeds_node_is_down(nodes: Nodes) -> None:
    """Another sidecar begins it anew, and says that something may be missing."""
    opened = await nodes.open_all("/events", "GET")
    gone = next(stream for stream, node in opened.items() if node == "a")
    await nodes.sidecars["a"].stop()
    answer = await nodes.edge.ask("/events", headers={**EVENT_SOURCE, "Last-Event-ID": f"{gone}.1"})
    assert answer.status == 200
    assert b"event: stream-gap" in await answer.block()
    assert (answer.header("stream-id") or "").startswith("b-")


@pytest.mark.parametrize("named", ["c-" + "x" * 22 + ".1", "a-short.1", "a-" + "x" * 23 + ".1", "17"])
async def test_ids_of_others_are_nobodys(named: str, nodes: Nodes) -> None:
    """A node that is not known, and an app's own id, go to any sidecar."""
    seen = set()
    for _ in range(6):
        answer = await nodes.edge.ask("/events", headers={"Last-Event-ID": named})
        assert answer.status == 200
        seen.add((answer.header("stream-id") or "").partition("-")[0])
    assert seen == {"a", "b"}
