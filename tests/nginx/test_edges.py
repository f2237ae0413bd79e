"""HAProxy, Caddy and Envoy with the shipped files: what every edge owes to streams, by each of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartOrigin, eventually
from tests.nginx.edges import EDGES, HOSTS, Edge, Place, Sidecars, checked
from tests.support.bridge import begin, ended, event, opened
from tests.support.client import Answer, ask, read_answer, send
from tests.support.nginx import Certificate
from tests.support.origin import PATIENCE, Connection, Origin
from tests.support.process import free_port, program, run
from tests.support.script import answers, holds, streams
from tests.support.websocket import AGREED, BINARY, Frame, frame, read_frame

BOTH = ("a", "b")

#: Before 2.11.2 Caddy closes the body of a POST whose connection was refused, and cannot send it again (its
#: issue 7546). Until the next health check.
LOSES_POSTS = {"caddy"}

#: Those that tell a request that was sent from one that was not, and say so to the providers' SDKs.
FOREWARNS = {"haproxy", "caddy", "envoy"}

#: An event stream of our own POST, as fetch asks for it.
EVENTS = {"Accept": "text/event-stream", "Content-Type": "application/json"}


@dataclass(slots=True)
class Chain:
    """An edge before two sidecars before an origin."""

    edge: Edge
    sidecars: Sidecars
    origin: Origin

    async def post(self, **headers: str) -> Answer:
        """Begin a stream."""
        return await self.edge.ask("/api/other", method="POST", headers={**EVENTS, **headers}, body=b"{}")

    async def one_of_each(self) -> dict[str, Answer]:
        """Begin streams until each node has one; return the answers, whose first block is not read yet."""
        begun: dict[str, Answer] = {}
        async with asyncio.timeout(PATIENCE):
            while len(begun) < len(BOTH):
                answer = await self.post()
                begun[stream_of(answer)[0]] = answer
        return begun

    async def lost(self) -> list[str]:
        """Begin a stream at each node, and lose the connection behind its second block; return their ids."""
        begun = (await self.one_of_each()).values()
        for answer in begun:
            await answer.blocks(2)
            answer.abort()
        return [stream_of(answer) for answer in begun]


def stream_of(answer: Answer) -> str:
    """Return the id of the stream that an answer carries."""
    assert answer.status == 200, (answer.status, answer.raw_headers)
    stream = answer.header("Stream-Id")
    assert stream
    return stream


async def source(edge: Edge) -> Answer:
    """Open a stream as an EventSource does: one that is told to wait, comes again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await edge.ask("/api/events", headers={"Accept": "text/event-stream"})
            if answer.status != 200 or answer.header("Stream-Id"):
                return answer


StartChain = Callable[..., Awaitable[Chain]]


@pytest.fixture(params=EDGES)
async def start_chain(
    request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate, start_origin: StartOrigin
) -> AsyncIterator[StartChain]:
    """Start an edge, sidecars and an origin with this script; ``environ`` is the sidecars'."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(script: Any, *, nodes: tuple[str, ...] = BOTH, **environ: str) -> Chain:
            origin = await start_origin(script)
            sidecars = Sidecars(origin.url, environ)
            for node in nodes:
                await sidecars.start(node)
            stack.push_async_callback(stop_all, sidecars)
            place = Place(tmp_path, certificate, sidecars.port, sidecars.admin_port)
            return Chain(await stack.enter_async_context(Edge(request.param, place)), sidecars, origin)

        yield start


StartBefore = Callable[[int, int], Awaitable[Edge]]


@pytest.fixture(params=EDGES)
async def start_before(
    request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate
) -> AsyncIterator[StartBefore]:
    """Start an edge before whatever listens on this port and this admin port of both nodes."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(port: int, admin_port: int) -> Edge:
            place = Place(tmp_path, certificate, port, admin_port)
            return await stack.enter_async_context(Edge(request.param, place))

        yield start


class Faithless:
    """Two servers that are ready, take a request whole, and hang up. ``taken`` counts the requests."""

    def __init__(self) -> None:
        self.taken = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[int, int]]:
        """Listen on both nodes' addresses; yields the port and the admin port."""
        port, admin_port = free_port(), free_port()
        async with contextlib.AsyncExitStack() as stack:
            for host in HOSTS.values():
                for handler, number in ((self._take, port), (self._ready, admin_port)):
                    server = await asyncio.start_server(handler, host, number)
                    stack.callback(server.close)
            yield port, admin_port

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"{}")
            self.taken += 1
        writer.close()

    async def _ready(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()


@contextlib.asynccontextmanager
async def curl(edge: Edge, paths: list[str]) -> AsyncIterator[Callable[[], str]]:
    """Let curl ask for these paths at once over one connection; yields what it has printed so far."""
    output = edge.place.directory / "curl"
    arguments = ["--no-progress-meter", "--include", "--no-buffer", "--http2", "--insecure", "--parallel"]
    with output.open("wb") as printed:
        process = await asyncio.create_subprocess_exec(
            *(program("curl"), *arguments, "--parallel-max", str(len(paths))),
            *(edge.url + path for path in paths),
            stdout=printed,
            stderr=printed,
        )
    try:
        yield lambda: output.read_text("utf-8", "replace")
    finally:
        process.kill()
        await process.wait()


async def stop_all(sidecars: Sidecars) -> None:
    """Stop the sidecars that run."""
    await asyncio.gather(*(sidecars.stop(node) for node in list(sidecars.running)))


@pytest.mark.parametrize("name", EDGES)
async def test_the_program_takes_the_file(name: str, tmp_path: Path, certificate: Certificate) -> None:
    """The program's own check has nothing to say against the shipped file, no warning either."""
    status, said = await checked(name, Place(tmp_path, certificate, free_port(), free_port()))
    assert status == 0, said
    assert "warn" not in said.lower(), said


async def test_headers_and_events_leave_one_by_one(start_chain: StartChain) -> None:
    """A client reads the head before the first event exists, and each event before the next one does.

    It accepts gzip, as browsers do: nothing compresses the stream.
    """
    chain = await start_chain(holds())
    answer = await chain.post(**{"Accept-Encoding": "gzip"})
    origin = await chain.origin.request()
    assert answer.header("Content-Encoding") is None
    assert answer.header("Cache-Control") == "no-cache, no-transform"
    for number in range(3):
        await origin.chunk(b"data: %d\n\n" % number)
        assert b"data: %d\n\n" % number in await answer.block()


async def test_heartbeats_pass(start_chain: StartChain) -> None:
    """A comment reaches the client of a silent stream."""
    chain = await start_chain(holds(), HEARTBEAT="100ms")
    answer = await chain.post()
    assert await answer.until(b": ping\n") == b": ping\n"


TWO = holds(b"data: 1\n\n", b"data: 2\n\n")


async def test_a_resume_reaches_the_sidecar_that_has_the_stream(start_chain: StartChain) -> None:
    """By the path, whichever node it is, again and again; the other node would answer 404."""
    chain = await start_chain(TWO)
    for stream in 3 * await chain.lost():
        resumed = await chain.edge.ask(f"/_streams/{stream}?after=1")
        assert resumed.header("Stream-Resumed-From") == "1", stream
        assert b"data: 2" in await resumed.block()


async def test_a_resume_by_last_event_id_reaches_it_too(start_chain: StartChain) -> None:
    """On the stream's own route, as fetch-event-source and EventSource do it."""
    chain = await start_chain(TWO)
    for stream in 3 * await chain.lost():
        resumed = await chain.post(**{"Last-Event-ID": f"{stream}.1"})
        assert resumed.header("Stream-Id") == stream
        assert b"data: 2" in await resumed.block()


async def test_a_websocket_s_resume_reaches_it_too(start_chain: StartChain) -> None:
    """What it resumes stands in a message, which no edge reads; so its URL repeats it."""
    chain = await start_chain(TWO)
    for stream in 3 * await chain.lost():
        socket = await chain.edge.connect(f"/api/chat?last_event_id={stream}.1")
        await socket.say({"type": "resume", "last_event_id": f"{stream}.1"})
        assert await socket.hear() == opened(stream, resumed_from=1)


async def test_a_cancel_reaches_it_too(start_chain: StartChain) -> None:
    """The stop button stops the stream at the upstream, whichever sidecar has it."""
    chain = await start_chain(holds(b"data: 1\n\n"))
    for answer in (await chain.one_of_each()).values():
        stopped = await chain.edge.ask(f"/_streams/{stream_of(answer)}/cancel", method="POST", body=b"")
        assert stopped.status == 202
        assert (await stopped.json())["reason"] == "cancelled"


async def test_a_client_that_leaves_is_noticed_at_once(start_chain: StartChain) -> None:
    """Long before the next heartbeat (15 s) the sidecar knows that nobody reads: `linger` begins."""
    chain = await start_chain(holds(b"data: 1\n\n"))
    answer = await chain.post()
    node = stream_of(answer)[0]
    await answer.block()
    await eventually(lambda: chain.sidecars.readers(node) == 1)
    answer.abort()
    async with asyncio.timeout(10):
        await eventually(lambda: chain.sidecars.readers(node) == 0, "the client's departure")
    await chain.edge.ask(f"/_streams/{stream_of(answer)}", method="DELETE")  # do not linger


async def test_a_bridge_passes(start_chain: StartChain) -> None:
    """A WebSocket through the edge: start, events, end."""
    chain = await start_chain(streams(b'data: {"n":1}\n\n'))
    socket = await chain.edge.connect("/api/chat")
    stream = await begin(socket, {"prompt": "hello"})
    assert await socket.hear_until("end") == [event(stream, 1, {"n": 1}), ended(stream)]
    assert (await socket.close()).code == 1000


async def test_large_frames_pass_through(start_chain: StartChain) -> None:
    """A message of 2 MiB goes through a pass-through to the app and comes back, as one."""
    chain = await start_chain(echo)
    socket = await chain.edge.connect("/api/audio")
    payload = os.urandom(1 << 16) * 32
    await asyncio.gather(socket.send(BINARY, payload), heard := asyncio.ensure_future(socket.hear_bytes()))
    assert heard.result() == payload


async def echo(connection: Connection) -> None:
    """Agree to a WebSocket and send one message back as it came."""
    await connection.send(AGREED)
    payload = b""
    fin = False
    while not fin:
        came: Frame | None = await read_frame(connection.reader)
        assert came is not None
        payload, fin = payload + came.payload, came.fin
    await connection.send(frame(BINARY, payload, masked=False))
    await connection.gone()


async def test_a_body_leaves_as_it_comes(start_chain: StartChain) -> None:
    """An upload is not collected: the app has its first part while the client still holds the rest."""
    arrived = asyncio.Event()

    async def takes(connection: Connection) -> None:
        await connection.reader.readuntil(b"part")
        arrived.set()
        await connection.reader.readuntil(b"rest")
        await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    chain = await start_chain(takes)
    chain.origin.whole_bodies = False
    head = b"PUT /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n"
    reader, writer = await send(chain.edge.url, head + b"part", tls=chain.edge.tls)
    async with asyncio.timeout(PATIENCE):
        await arrived.wait()
    writer.write(b"rest")
    assert (await read_answer(reader, writer)).status == 204


async def test_new_requests_go_to_the_sidecar_that_is_left(start_chain: StartChain) -> None:
    """One of two stops: no request fails, from the first on."""
    chain = await start_chain(streams(b"data: 1\n\n"))
    await chain.sidecars.stop("a")
    sources = [await chain.edge.ask("/api/events", headers=EVENTS) for _ in range(6)]
    posts = [await chain.post() for _ in range(6)]
    async with asyncio.timeout(PATIENCE):
        while chain.edge.name in LOSES_POSTS and any(answer.status == 502 for answer in posts):
            posts = [await chain.post() for _ in range(6)]
    assert all(stream_of(answer).startswith("b-") for answer in sources + posts)


async def test_a_resume_of_a_lost_stream_is_answered_by_the_other(start_chain: StartChain) -> None:
    """Its sidecar is gone: the other one says so, where the edge could only say 502 or 503."""
    chain = await start_chain(streams(b"data: 1\n\n"), nodes=("b",))
    lost = f"a-{'x' * 22}"
    assert (await chain.edge.ask(f"/_streams/{lost}")).status == 404
    assert (await chain.post(**{"Last-Event-ID": f"{lost}.1"})).status == 404


async def test_a_drain_takes_new_requests_away_and_leaves_streams(start_chain: StartChain) -> None:
    """A sidecar that got SIGTERM ends its streams in its own time; whatever is new goes to the other one."""
    chain = await start_chain(holds(b"data: 1\n\n"))
    running = await chain.one_of_each()
    draining = asyncio.create_task(chain.sidecars.running["a"].drain())
    for _ in range(4):
        assert stream_of(await source(chain.edge)).startswith("b-")
    for each in chain.origin.requests:
        await each.chunk(b"data: 2\n\n")
        await each.end()
    assert b"data: 2" in await running["a"].rest()
    async with asyncio.timeout(PATIENCE):
        await draining


async def test_an_event_source_is_told_to_come_again(start_chain: StartChain) -> None:
    """No sidecar is there: any error would stop an EventSource for good. Other requests get the error."""
    chain = await start_chain(streams(), nodes=())
    source = await chain.edge.ask("/api/events", headers={"Accept": "text/event-stream"})
    assert source.status == 200
    assert (source.header("Content-Type") or "").startswith("text/event-stream")
    assert source.header("Cache-Control") == "no-store"
    assert (await source.body()).endswith(b"retry: 3000\n\n")
    assert (await chain.edge.ask("/page")).status in (502, 503)


async def test_the_app_s_own_refusal_passes(start_chain: StartChain) -> None:
    """A 503 that the app gives an EventSource is the app's to give: status and body stay."""
    chain = await start_chain(
        answers(b"503 Service Unavailable\r\nContent-Type: text/plain", b"closed today")
    )
    refused = await chain.edge.ask("/other", headers={"Accept": "text/event-stream"})
    assert (refused.status, refused.header("Content-Type")) == (503, "text/plain")
    assert await refused.body() == b"closed today"


async def test_a_post_is_never_sent_twice(start_before: StartBefore) -> None:
    """Whoever took the request and hung up may have begun the work: the client is told, nobody else asked."""
    faithless = Faithless()
    async with faithless.serving() as (port, admin_port):
        edge = await start_before(port, admin_port)
        for number in range(1, 4):
            answer = await edge.ask("/api/chat", method="POST", headers=EVENTS, body=b"{}")
            assert answer.status >= 500
            if edge.name in FOREWARNS:
                assert answer.header("x-should-retry") == "false"
            assert faithless.taken == number


async def test_nor_does_the_edge_let_a_client_of_http_2_send_it_twice(start_before: StartBefore) -> None:
    """REFUSED_STREAM would mean that nobody has it, and browsers and curl would send it again."""
    faithless = Faithless()
    async with faithless.serving() as (port, admin_port):
        edge = await start_before(port, admin_port)
        status, said = await run(
            *(program("curl"), "--silent", "--include", "--http2", "--insecure", "--data", "{}"),
            f"{edge.url}/api/chat",
        )
        assert (status, said.split()[0]) == (0, "HTTP/2")
        assert int(said.split()[1]) >= 500
        assert faithless.taken == 1


async def test_the_edge_says_who_asks(start_chain: StartChain) -> None:
    """The app learns of the client's address, the scheme and the host, and not what the client made up."""
    chain = await start_chain(streams(b"data: 1\n\n"))
    invented = {"X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "evil.example", "Forwarded": "for=1.2.3.4"}
    await (await chain.post(**invented)).body()
    seen = await chain.origin.request()
    # The client, as the edge saw it, and the edge, as the sidecar did.
    client, edge = (seen.header("X-Forwarded-For") or "").split(", ")[-2:]
    assert client.startswith(("127.", "192.")), client
    assert edge == "127.0.0.1"
    assert seen.header("X-Forwarded-Proto") == "https"
    assert seen.header("X-Forwarded-Host") == chain.edge.url.removeprefix("https://")
    assert "1.2.3.4" not in (seen.header("Forwarded") or "")
    assert seen.header("X-Request-Id")


async def test_no_log_shows_a_stream_s_id(start_chain: StartChain) -> None:
    """Whoever has it can read the stream: what the program writes has six characters of it, or none."""
    chain = await start_chain(streams(b"data: 1\n\n"))
    stream = stream_of(await chain.post())
    for target in (f"/_streams/{stream}", f"/_streams/{stream}/state", f"/other?last_event_id={stream}.1"):
        await (await chain.edge.ask(target)).body()
    await (await chain.post(**{"Last-Event-ID": f"{stream}.1"})).body()
    if chain.edge.name == "haproxy":  # the one that writes a line for each request
        shown = stream[: len("a-") + 6]
        await eventually(lambda: f" /_streams/{shown}/state " in chain.edge.output, "the line of the state")
    assert stream[:-1] not in chain.edge.output


async def test_http_leads_to_https(start_chain: StartChain) -> None:
    """With a status that keeps the method."""
    chain = await start_chain(streams())
    answer = await ask(chain.edge.plain_url, "/x?y=1", headers={"Host": "localhost"})
    assert answer.status == 308
    assert (answer.header("Location") or "").startswith("https://localhost")
    assert (answer.header("Location") or "").endswith("/x?y=1")


async def test_http_2_carries_many_streams_over_one_connection(start_chain: StartChain) -> None:
    """Twelve streams at once, where HTTP/1.1 would give a browser six."""
    chain = await start_chain(holds(b"data: 1\n\n"))
    async with curl(chain.edge, [f"/api/stream/{number}" for number in range(12)]) as told:
        await eventually(lambda: told().count("data: 1\n") == 12, "the first event of each")
        assert told().count("HTTP/2 200") == 12
        assert len(chain.origin.requests) == 12
