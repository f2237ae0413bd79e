"""Clients that leave, one and many, at every moment of a request: their upstreams go, and nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web

from proxy.demo import Record, Running, State
from proxy.server import gateway
from proxy.server.app import Sidecar
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.server.sse import serve_stream
from tests.conftest import StartOrigin, StartSidecar, config_for, eventually
from tests.endurance.follower import call, hang_up
from tests.endurance.peace import Peace
from tests.support.client import Answer, ask, send
from tests.support.origin import PATIENCE, SSE_HEAD, Connection
from tests.support.websocket import AGREED, TEXT, Socket, connect, frame, handshake

LOOPS = ("asyncio", "uvloop")

CHAT = json.dumps({"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
ENDLESS = "/v1/chat/completions?endless=1&interval=0.01"

#: Everything that could hold something for longer than a test is kept short.
BRIEF: dict[str, Any] = {"linger": "50ms", "replay": {"keep": "50ms"}, "heartbeat": "30ms"}

#: A sidecar that does not turn for so many seconds stands still. Only a failing test waits so long.
STANDSTILL = 5


@pytest.fixture
def turning() -> Iterator[None]:
    """Fail, rather than hang, where the event loop stands still."""
    stood_still = False

    def stop(*_: object) -> None:
        nonlocal stood_still
        stood_still = True
        raise RuntimeError(f"the event loop stood still for {STANDSTILL} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(STANDSTILL)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert not stood_still, "the event loop stood still"


async def brief_sidecar(start: StartSidecar, upstream: str, **policies: Any) -> Sidecar:
    """Start a sidecar that holds nothing for long."""
    return await start(
        config_for(
            upstream,
            route={"timeouts": {"connect": "60s"}, **BRIEF, **policies},
            upstreams={"origin": {"url": upstream, "keepalive": "20ms"}},
            drain="0s",
        )
    )


def record(provider: Running) -> Record:
    """The provider's record of the only stream."""
    (only,) = (seen for seen in provider.requests if seen.streaming)
    return only


# Seen from the provider's side


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_a_provider_is_let_go_after_linger_and_not_before(
    reset: bool, provider: Running, start_sidecar: StartSidecar
) -> None:
    """The upstream goes on for ``linger`` after its only client left, and is closed then."""
    sidecar = await brief_sidecar(start_sidecar, provider.url, linger="400ms")
    loop = asyncio.get_running_loop()
    answer = await ask(sidecar.url, ENDLESS, method="POST", body=CHAT)
    await answer.blocks(3)
    left = loop.time()
    await hang_up(answer.writer, reset=reset)
    await provider.ledger.until(lambda: not record(provider).running, timeout=PATIENCE)
    assert record(provider).state is State.CLIENT_GONE
    assert loop.time() - left >= 0.39
    (count,) = (stats.cancels["linger"] for stats in sidecar.telemetry.routes.values())
    assert count == 1


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_provider_is_let_go_at_once_on_cancel(
    method: str, provider: Running, start_sidecar: StartSidecar
) -> None:
    """A cancel closes the upstream although a reader is there, and the stream could linger for ever."""
    sidecar = await brief_sidecar(start_sidecar, provider.url, linger="forever")
    answer = await ask(sidecar.url, ENDLESS, method="POST", body=CHAT)
    await answer.blocks(3)
    address = f"/_streams/{answer.header('stream-id')}"
    cancelled = await ask(sidecar.url, address + "/cancel" * (method == "POST"), method=method)
    # By the time the cancel is answered, the sidecar has closed its side.
    assert cancelled.status == 202
    assert not sidecar.hub.running
    await provider.ledger.until(lambda: not record(provider).running, timeout=PATIENCE)
    assert record(provider).state is State.CLIENT_GONE


async def test_a_provider_is_let_go_when_its_client_takes_nothing(
    provider: Running, start_sidecar: StartSidecar
) -> None:
    """A client that neither reads nor leaves is cut off after ``send``, and its upstream after ``linger``."""
    sidecar = await brief_sidecar(
        start_sidecar, provider.url, timeouts={"send": "200ms"}, replay={"keep": "50ms", "max_bytes": "1MiB"}
    )
    peace = Peace()
    _, writer = await call(sidecar.url, "POST", f"{ENDLESS}&size=50000&burst=10", body=CHAT, narrow=True)
    await eventually(lambda: any(relay.paused for relay in sidecar.hub.running), "the upstream is held back")
    await provider.ledger.until(lambda: not record(provider).running, timeout=PATIENCE)
    await hang_up(writer, reset=True)
    await peace.restored(sidecar)


# Many at once


async def test_two_hundred_clients_that_leave_at_the_same_moment_leave_nothing(
    provider: Running, start_sidecar: StartSidecar
) -> None:
    """Two hundred streams lose their clients in one instant; afterwards all is as it was before."""
    sidecar = await brief_sidecar(start_sidecar, provider.url)
    peace = Peace()
    answers = await asyncio.gather(*(ask(sidecar.url, ENDLESS, method="POST", body=CHAT) for _ in range(200)))
    await asyncio.gather(*(answer.block() for answer in answers))
    assert len(sidecar.hub.running) == 200
    for number, answer in enumerate(answers):
        abandon(answer, reset=number % 2 == 0)
    await peace.restored(sidecar)
    assert provider.ledger.open_streams == 0


async def test_two_hundred_readers_of_one_stream_that_leave_at_the_same_moment_leave_nothing(
    provider: Running, start_sidecar: StartSidecar
) -> None:
    """One stream loses two hundred readers in one instant, while it is being written to all of them."""
    sidecar = await brief_sidecar(start_sidecar, provider.url)
    peace = Peace()
    first = await ask(sidecar.url, ENDLESS, method="POST", body=CHAT)
    target = f"/_streams/{first.header('stream-id')}"
    answers = [first, *await asyncio.gather(*(ask(sidecar.url, target) for _ in range(199)))]
    await asyncio.gather(*(answer.block() for answer in answers))
    assert sidecar.hub.readers == 200
    for number, answer in enumerate(answers):
        abandon(answer, reset=number % 2 == 0)
    await peace.restored(sidecar)
    assert provider.ledger.open_streams == 0


def abandon(answer: Answer, *, reset: bool) -> None:
    """Leave without waiting for it to be done."""
    asyncio.ensure_future(hang_up(answer.writer, reset=reset))  # noqa: RUF006 - Peace waits for it


# At every moment of a request


@contextlib.asynccontextmanager
async def full_listener() -> AsyncIterator[str]:
    """A server whose queue is full: connecting to it takes for ever."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        host, port = listener.getsockname()
        yield f"http://{host}:{port}"


#: How a request can be begun: its header fields, and the policies of its route.
KINDS: dict[str, tuple[list[tuple[str, str]], dict[str, Any]]] = {
    "ordinary": ([], {}),
    "keyed": ([("Authorization", "Bearer demo"), ("Idempotency-Key", "k")], {}),
    "early": ([("Accept", "text/event-stream")], {"open_after": "10ms"}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
async def test_a_client_that_leaves_before_the_upstream_is_connected(
    kind: str, start_sidecar: StartSidecar
) -> None:
    """The attempt to connect is given up, and nothing is left of it."""
    headers, policies = KINDS[kind]
    async with full_listener() as upstream:
        sidecar = await brief_sidecar(start_sidecar, upstream, **policies)
        peace = Peace()
        _, writer = await call(sidecar.url, "POST", "/x", headers, CHAT)
        await eventually(lambda: sidecar.gateway._upstreams["origin"]._busy == 1, "the upstream is dialled")
        writer.transport.abort()
        await peace.restored(sidecar)


#: How far an upstream has come with its answer when the client leaves.
BEGINNINGS = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a header section": b"HTTP/1.1 200 OK\r\nContent-Type: text/ev",
    "an interim response": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
    "a header section": SSE_HEAD,
    "half a chunk": SSE_HEAD + b"20\r\ndata: h",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf",
}


@each_kind
@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_a_client_that_leaves_while_the_upstream_answers(
    kind: str, beginning: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """However far the upstream has come, its connection is closed, and nothing is left."""
    sent = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(BEGINNINGS[beginning])
        sent.set()
        await connection.gone()

    headers, policies = KINDS[kind]
    origin = await start_origin(script)
    sidecar = await brief_sidecar(start_sidecar, origin.url, **policies)
    peace = Peace()
    _, writer = await call(sidecar.url, "POST", "/x", headers, CHAT)
    await sent.wait()
    writer.transport.abort()
    await peace.restored(sidecar)
    assert origin.connections == 0


@each_kind
async def test_a_client_that_leaves_in_the_middle_of_its_upload(
    kind: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A body that breaks off reaches nobody as a whole one, and nothing is left of it."""

    async def script(connection: Connection) -> None:
        await connection.gone()

    headers, policies = KINDS[kind]
    origin = await start_origin(script, whole_bodies=False)
    sidecar = await brief_sidecar(start_sidecar, origin.url, **policies)
    peace = Peace()
    half = [("Content-Length", "1000"), *headers]
    _, writer = await call(sidecar.url, "POST", "/x", half)
    writer.write(b"half")
    await eventually(lambda: sidecar.gateway.in_flight, "the request has come")
    writer.transport.abort()
    await peace.restored(sidecar)
    assert origin.connections == 0


async def test_a_client_that_leaves_as_the_stream_ends(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A departure and the upstream's end in the same moment meet without a trace."""
    at_the_end, over = asyncio.Queue[Connection](), asyncio.Semaphore(0)

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: a\n\n")
        at_the_end.put_nowait(connection)
        await over.acquire()

    origin = await start_origin(script)
    sidecar = await brief_sidecar(start_sidecar, origin.url)
    peace = Peace()
    for number in range(30):
        answer = await ask(sidecar.url, "/x", method="POST", body=b"{}")
        await answer.block()
        connection = await at_the_end.get()
        connection.writer.write(b"9\r\ndata: b\n\n\r\n0\r\n\r\n")
        over.release()
        await hang_up(answer.writer, reset=number % 2 == 0)
    await peace.restored(sidecar)
    assert origin.connections == 0


async def test_a_client_that_leaves_as_its_stream_opens_is_no_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """Its connection closes in the very turn of the loop in which the upstream has answered."""

    def leave_first(hub: Hub, relay: Relay, request: web.BaseRequest, **options: Any) -> Any:
        assert request.transport is not None
        request.transport.abort()
        return serve_stream(hub, relay, request, **options)

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.gone()

    monkeypatch.setattr(gateway, "serve_stream", leave_first)
    origin = await start_origin(script)
    sidecar = await brief_sidecar(start_sidecar, origin.url)
    peace = Peace()
    _, writer = await call(sidecar.url, "POST", "/x", body=CHAT)
    await origin.request()
    await hang_up(writer, reset=False)
    await peace.restored(sidecar)
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


async def quick_answers(connection: Connection) -> None:
    """What ``test_a_departure_at_any_turn_of_the_loop`` asks for, as fast as it can be had."""
    if connection.target == "/json":
        return await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    await connection.start_stream()
    for number in range(3):
        await connection.chunk(b"data: %d\n\n" % number)
    if connection.target == "/short":
        return await connection.end()
    return await connection.gone()


@each_kind
@pytest.mark.parametrize("target", ["/json", "/short", "/endless"])
async def test_a_departure_at_any_turn_of_the_loop(
    kind: str, target: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Clients leave after 0, 1, 2, 3 … turns of the event loop, so at every point where anything waits."""
    headers, policies = KINDS[kind]
    origin = await start_origin(quick_answers)
    sidecar = await brief_sidecar(start_sidecar, origin.url, **policies)
    peace = Peace()
    rng = random.Random(target + kind)
    for turns in range(60):
        fields = [(name, f"{value} {turns}") for name, value in headers]
        _, writer = await call(sidecar.url, "POST", target, fields, CHAT)
        for _ in range(turns):
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
    await peace.restored(sidecar)
    assert origin.connections == 0


async def test_a_resume_that_is_dropped_at_any_turn_of_the_loop(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Readers that come back to a live stream, and leave again at once, leave nothing in it."""
    origin = await start_origin(quick_answers)
    sidecar = await brief_sidecar(start_sidecar, origin.url)
    peace = Peace()
    answer = await ask(sidecar.url, "/endless", method="POST", body=CHAT)
    stream = answer.header("stream-id")
    await answer.blocks(3)
    for turns in range(60):
        fields = [("Last-Event-ID", f"{stream}.{turns % 4}")]
        again = ("POST", "/endless", fields, CHAT) if turns % 2 else ("GET", f"/_streams/{stream}", fields)
        _, writer = await call(sidecar.url, *again)
        for _ in range(turns // 2):
            await asyncio.sleep(0)
        writer.transport.abort()
    await eventually(lambda: sidecar.hub.readers == 1, "only the first reader is there")
    await hang_up(answer.writer, reset=True)
    await peace.restored(sidecar)
    assert origin.connections == 0


# Over WebSocket

#: What a client of the bridge says at once, behind its handshake.
START = frame(TEXT, CHAT)

#: How streams are read from the upstream is nothing to a tunnel.
tunnel = pytest.mark.parametrize("start_sidecar", [True], indirect=True, ids=["tunnel"])

each_way = pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])


async def bridge_sidecar(start: StartSidecar, upstream: str) -> Sidecar:
    """Start a sidecar with a bridge that holds nothing for long."""
    return await brief_sidecar(start, upstream, websocket="bridge", heartbeat="15s")


async def start_over_websocket(url: str, target: str = ENDLESS) -> Socket:
    """Open a WebSocket to the bridge, and start a stream over it."""
    return await connect(url, target, early=START)


@each_way
async def test_a_provider_is_let_go_after_linger_when_a_socket_is_gone(
    reset: bool, provider: Running, start_sidecar: StartSidecar
) -> None:
    """A stream that was followed over a WebSocket lingers as one over SSE does, and is closed then."""
    sidecar = await brief_sidecar(start_sidecar, provider.url, websocket="bridge", linger="400ms")
    peace, loop = Peace(), asyncio.get_running_loop()
    socket = await start_over_websocket(sidecar.url)
    await socket.hear_until("event")
    left = loop.time()
    await hang_up(socket.answer.writer, reset=reset)
    await provider.ledger.until(lambda: not record(provider).running, timeout=PATIENCE)
    assert record(provider).state is State.CLIENT_GONE
    assert loop.time() - left >= 0.39
    await peace.restored(sidecar)


async def test_two_hundred_sockets_that_are_lost_at_the_same_moment_leave_nothing(
    provider: Running, start_sidecar: StartSidecar
) -> None:
    """Half of them follow a stream of their own, half all the same one; then all is as it was before."""
    sidecar = await bridge_sidecar(start_sidecar, provider.url)
    peace = Peace()
    sockets = await asyncio.gather(*(start_over_websocket(sidecar.url) for _ in range(100)))
    stream = (await sockets[0].hear())["stream"]
    resume = frame(TEXT, json.dumps({"type": "resume", "stream": stream, "after": 0}).encode())
    sockets += await asyncio.gather(*(connect(sidecar.url, ENDLESS, early=resume) for _ in range(100)))
    await asyncio.gather(*(each.hear_until("event") for each in sockets))
    assert (len(sidecar.hub.running), sidecar.hub.readers) == (100, 200)
    for number, lost in enumerate(sockets):
        abandon(lost.answer, reset=number % 2 == 0)
    await peace.restored(sidecar)
    assert provider.ledger.open_streams == 0


@tunnel
async def test_two_hundred_pairs_that_are_lost_at_the_same_moment_leave_nothing(
    provider: Running, start_sidecar: StartSidecar
) -> None:
    """Joined to the provider, with more on the way; it loses every one of them."""
    sidecar = await brief_sidecar(start_sidecar, provider.url, websocket="passthrough", heartbeat="15s")
    peace = Peace()
    asked = frame(TEXT, b'{"do":"send","count":10,"bytes":10000}')
    sockets = await asyncio.gather(*(connect(sidecar.url, "/api/socket", early=asked) for _ in range(200)))
    await asyncio.gather(*(each.hear_bytes() for each in sockets))
    assert provider.ledger.open_streams == 200
    for number, lost in enumerate(sockets):
        abandon(lost.answer, reset=number % 2 == 0)
    await peace.restored(sidecar)
    await provider.ledger.until(lambda: not provider.ledger.open_streams, timeout=PATIENCE)
    assert {each.close_code for each in provider.requests} == {1006}


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_a_socket_that_is_lost_while_the_upstream_answers(
    beginning: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """However far the upstream has come with a start, its connection is closed, and nothing is left."""
    sent = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(BEGINNINGS[beginning])
        sent.set()
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await bridge_sidecar(start_sidecar, origin.url)
    peace = Peace()
    socket = await start_over_websocket(sidecar.url, "/x")
    await sent.wait()
    socket.abort()
    await peace.restored(sidecar)
    assert origin.connections == 0


@pytest.mark.parametrize("target", ["/json", "/short", "/endless"])
async def test_a_socket_that_is_lost_at_any_turn_of_the_loop(
    target: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """With its handshake, its start, its cancel: at every point where anything waits."""
    origin = await start_origin(quick_answers)
    sidecar = await bridge_sidecar(start_sidecar, origin.url)
    peace = Peace()
    rng = random.Random(target)
    cancel = frame(TEXT, b'{"type":"cancel"}')
    for turns in range(60):
        said = handshake(sidecar.url, target) + START + rng.choice((b"", cancel, START[:-9]))
        _, writer = await send(sidecar.url, said)
        for _ in range(turns):
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
    await peace.restored(sidecar)
    assert origin.connections == 0


@tunnel
@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_a_pair_of_which_one_is_lost_at_any_turn_of_the_loop(
    who: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """While the upstream is dialled, refuses, agrees, or talks already: the other one is let go as well."""
    rng = random.Random(who)
    turns = iter(range(60))
    halves = (
        b"",
        b"HTTP/1.1 101 Switching Pro",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nhalf",
        AGREED,
        AGREED + frame(TEXT, b"hello", masked=False)[:-2],
    )

    async def script(connection: Connection) -> None:
        await connection.send(rng.choice(halves))
        if who == "client":
            await connection.gone()
            return
        for _ in range(next(turns, 0)):
            await asyncio.sleep(0)
        connection.writer.transport.abort()

    origin = await start_origin(script)
    sidecar = await brief_sidecar(start_sidecar, origin.url, websocket="passthrough", heartbeat="2s")
    peace = Peace()
    for number in range(60):
        reader, writer = await send(sidecar.url, handshake(sidecar.url, "/x") + START)
        if who == "upstream":
            async with asyncio.timeout(PATIENCE):
                while await reader.read(65536):
                    pass
        for _ in range(number):
            await asyncio.sleep(0)
        writer.transport.abort()
    await peace.restored(sidecar)
    assert origin.connections == 0


# What a departure must not do to others


@pytest.mark.usefixtures("turning")
async def test_a_full_socket_that_is_reset_does_not_stop_the_sidecar(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A socket that fills up and is reset in one turn of the loop stays full: nobody waits for it."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: a\n\n")
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await brief_sidecar(start_sidecar, origin.url)
    peace = Peace()
    answer = await ask(sidecar.url, "/x", method="POST", body=b"{}")
    await answer.block()
    (relay,) = sidecar.hub.running
    (reader,) = relay.readers
    while reader.live:
        relay.receive(b"data: " + b"x" * 1_000_000 + b"\n\n")
    reader._transport.abort()  # type: ignore[attr-defined]  # what its peer's reset does
    await hang_up(answer.writer, reset=True)
    await peace.restored(sidecar)


async def test_a_reset_of_one_reader_is_nothing_to_the_others(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Blocks that come in the same turn as one reader's reset reach all the others."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: 0\n\n")
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await brief_sidecar(start_sidecar, origin.url, heartbeat="15s")
    first = await ask(sidecar.url, "/x", method="POST", body=b"{}")
    target = f"/_streams/{first.header('stream-id')}"
    others = [await ask(sidecar.url, target) for _ in range(10)]
    for answer in (first, *others):
        await answer.block()
    (relay,) = sidecar.hub.running
    for number, reader in enumerate(relay.readers[1:], 1):
        reader._transport.abort()  # type: ignore[attr-defined]
        relay.receive(b"data: %d\n\n" % number)
        assert await first.block() == f"id: {relay.id}.{number + 1}\ndata: {number}\n\n".encode()
    await eventually(lambda: len(relay.readers) == 1, "those that were reset are gone")
