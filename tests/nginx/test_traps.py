"""What each edge does wrong where it is told less, or more, than the shipped file tells it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.conftest import StartOrigin
from tests.nginx.edges import Edge, Place, Sidecars, checked
from tests.support.client import Answer, Truncated
from tests.support.nginx import Certificate
from tests.support.origin import Connection
from tests.support.process import free_port
from tests.support.script import holds

#: Longer than an edge takes to notice what it notices at all, in seconds.
A_WHILE = 1.0

#: An edge's limit, cut down: short enough to wait for, enough for a busy machine to begin a stream.
LIMIT = "2500ms"

#: Heartbeats well below that limit, and as many of them as last for longer than it.
HEARTBEAT, HEARTBEATS = "250ms", 14


StartEdited = Callable[..., Awaitable[tuple[Edge, Sidecars]]]


@pytest.fixture
async def start_edited(
    tmp_path: Path, certificate: Certificate, start_origin: StartOrigin
) -> AsyncIterator[StartEdited]:
    """Start an edge by name, with edits of its file, before one sidecar before an origin that streams."""
    async with AsyncExitStack() as stack:

        async def start(
            name: str, edits: dict[str, str] | None = None, **environ: str
        ) -> tuple[Edge, Sidecars]:
            origin = await start_origin(page_or_stream)
            sidecars = Sidecars(origin.url, environ)
            await sidecars.start("a")
            stack.push_async_callback(sidecars.stop, "a")
            place = Place(tmp_path, certificate, sidecars.port, sidecars.admin_port, edits or {})
            return await stack.enter_async_context(Edge(name, place)), sidecars

        yield start


async def page_or_stream(connection: Connection) -> None:
    """Answer with a page, to /thinks after more than `LIMIT`; below /api/ with one event and silence."""
    if connection.target.startswith("/api/"):
        await holds(b"data: 1\n\n")(connection)
        return
    if connection.target == "/thinks":
        await asyncio.sleep(3)
    body = b"<p>hello</p>" * 1000
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body)
    await connection.send(head + body)


async def begun(edge: Edge) -> Answer:
    """Begin a stream, and read its event."""
    answer = await edge.ask("/api/other", headers={"Accept": "text/event-stream"})
    assert b"data: 1" in await answer.block()
    return answer


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("haproxy", {r"^ +option abortonclose$": "    no option abortonclose"}),
        ("caddy", {r"^\t# No `flush_interval`: see above\.$": "\tflush_interval -1"}),
    ],
)
async def test_an_edge_that_does_not_tell_who_left(
    start_edited: StartEdited, name: str, edit: dict[str, str]
) -> None:
    """Who leaves is a reader until the next write: without `abortonclose`, and with `flush_interval -1`."""
    edge, sidecars = await start_edited(name, edit)
    (await begun(edge)).abort()
    await asyncio.sleep(A_WHILE)
    assert sidecars.readers("a") == 1


SHORT_SERVER = {r"timeout server +630s": f"timeout server {LIMIT}"}
SHORT_CLIENT = {r"timeout client +60s": f"timeout client {LIMIT}"}


async def test_haproxy_counts_the_sidecar_s_silence(start_edited: StartEdited) -> None:
    """Without heartbeats `timeout server` ends a silent stream."""
    edge, _ = await start_edited("haproxy", SHORT_SERVER)
    with pytest.raises(Truncated):
        await (await begun(edge)).rest()


async def test_heartbeats_keep_a_stream_through_haproxy(start_edited: StartEdited) -> None:
    """With one below that limit, a stream is silent for longer and lives."""
    edge, _ = await start_edited("haproxy", SHORT_SERVER | SHORT_CLIENT, HEARTBEAT=HEARTBEAT)
    assert await (await begun(edge)).until(b": ping\n" * HEARTBEATS)


async def test_haproxy_s_client_timeout_does_not_count_it(start_edited: StartEdited) -> None:
    """Neither a stream's silence nor the wait for headers is the client's."""
    edge, sidecars = await start_edited("haproxy", SHORT_CLIENT)
    await begun(edge)
    assert (await edge.ask("/thinks")).status == 200
    assert sidecars.readers("a") == 1


async def test_envoy_s_route_timeout_counts_the_whole_stream(start_edited: StartEdited) -> None:
    """Where `timeout: 0s` is left out, or is anything else, heartbeats do not help."""
    edge, _ = await start_edited("envoy", {r"timeout: 0s": "timeout: 2.5s"}, HEARTBEAT=HEARTBEAT)
    answer = await begun(edge)
    with pytest.raises(Truncated):
        await answer.rest()


async def test_envoy_s_idle_timeout_counts_silence(start_edited: StartEdited) -> None:
    """A heartbeat below `stream_idle_timeout` keeps a stream that is silent for longer."""
    edge, _ = await start_edited(
        "envoy", {r"stream_idle_timeout: 630s": "stream_idle_timeout: 2.5s"}, HEARTBEAT=HEARTBEAT
    )
    assert await (await begun(edge)).until(b": ping\n" * HEARTBEATS)


@pytest.mark.parametrize("name", ["haproxy", "caddy"])
async def test_pages_are_compressed_and_streams_are_not(start_edited: StartEdited, name: str) -> None:
    """The compressor is there, and lets streams alone."""
    edge, _ = await start_edited(name)
    accepts = {"Accept-Encoding": "gzip"}
    page = await edge.ask("/", headers=accepts)
    stream = await edge.ask("/api/other", headers=accepts)
    assert page.header("Content-Encoding") == "gzip"
    assert stream.header("Content-Encoding") is None


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("haproxy", "default_backend sidecars"), ("caddy", "lb_policy first"), ("envoy", "cluster: any")],
)
async def test_the_programs_find_mistakes(
    name: str, pattern: str, tmp_path: Path, certificate: Certificate
) -> None:
    """The check that accepts the shipped file refuses a broken one: it looks inside."""
    place = Place(
        tmp_path, certificate, free_port(), free_port(), {re.escape(pattern): f"{pattern}s-of-nobody"}
    )
    status, said = await checked(name, place)
    assert status != 0, said
