"""What a connection lets go of while an answer lasts, and that no byte of the next request is lost by it."""

from __future__ import annotations

import asyncio

import pytest

from proxy.server.app import Sidecar
from proxy.server.wire import FrontProtocol
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import Answer, read_answer, send
from tests.support.origin import Connection, response

GET = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
UPGRADE = b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"


class Streams:
    """An origin whose ``/stream`` is open until ``finish``, and whose every other path answers at once."""

    def __init__(self) -> None:
        self._finish = asyncio.Event()

    def finish(self) -> None:
        """End the stream."""
        self._finish.set()

    async def __call__(self, connection: Connection) -> None:
        """Answer one request."""
        if connection.target != "/stream":
            await connection.send(response(body=connection.target.encode()))
            return
        await connection.start_stream()
        await connection.chunk(b"data: begun\n\n")
        await self._finish.wait()
        await connection.end()


def protocol(sidecar: Sidecar) -> FrontProtocol:
    """The only client's connection."""
    assert sidecar._front is not None
    (connection,) = sidecar._front.connections
    assert isinstance(connection, FrontProtocol)
    return connection


async def begun(sidecar: Sidecar, *pieces: bytes) -> Answer:
    """Send a request in pieces, and wait until its stream rests."""
    reader, writer = await send(sidecar.url, pieces[0])
    for piece in pieces[1:]:
        await asyncio.sleep(0.02)
        writer.write(piece)
    answer = await read_answer(reader, writer)
    assert b"begun" in await answer.block()
    await eventually(lambda: protocol(sidecar)._keepalive_handle is None, "no timer waits for a request")
    return answer


@pytest.mark.parametrize("request_", [GET, LENGTH, CHUNKED], ids=["no body", "length", "chunked"])
async def test_the_parser_goes_and_comes_back(
    request_: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """While the stream lasts there is none; the connection serves the next request all the same."""
    streams = Streams()
    sidecar = await start_sidecar((await start_origin(streams)).url)
    answer = await begun(sidecar, request_)
    assert protocol(sidecar)._parser is None
    streams.finish()
    await answer.rest()
    answer.writer.write(NEXT)
    assert await (await read_answer(answer.reader, answer.writer)).body() == b"/next"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ((GET + NEXT,), b""),
        ((GET + NEXT[:10],), NEXT[10:]),
        ((GET + NEXT[:-2],), NEXT[-2:]),
        ((GET[:-2], GET[-2:] + NEXT[:3]), NEXT[3:]),
        ((LENGTH + NEXT,), b""),
        ((LENGTH + NEXT[:10],), NEXT[10:]),
        ((LENGTH[:-1], LENGTH[-1:] + NEXT[:10]), NEXT[10:]),
        ((CHUNKED + NEXT[:10],), NEXT[10:]),
        ((CHUNKED[:-2], CHUNKED[-2:] + NEXT[:1]), NEXT[1:]),
        ((UPGRADE,), NEXT),
        ((GET + NEXT * 5,), b""),
    ],
)
async def test_a_request_that_comes_early_is_not_lost(
    first: tuple[bytes, ...], then: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A client may send the next request, or its beginning, with the first, or while the stream lasts."""
    streams = Streams()
    sidecar = await start_sidecar((await start_origin(streams)).url)
    answer = await begun(sidecar, *first)
    answer.writer.write(then)
    await asyncio.sleep(0.02)
    streams.finish()
    await answer.rest()
    for _ in range((b"".join(first) + then).count(b"/next")):
        assert await (await read_answer(answer.reader, answer.writer)).body() == b"/next"


async def test_a_hundred_requests_at_once_are_not_lost(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The parser stops when some wait, and keeps what it has not read."""
    streams = Streams()
    sidecar = await start_sidecar((await start_origin(streams)).url)
    answer = await begun(sidecar, GET + NEXT * 100)
    streams.finish()
    await answer.rest()
    for _ in range(100):
        assert await (await read_answer(answer.reader, answer.writer)).body() == b"/next"


async def test_nonsense_after_a_rest_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The new parser is as strict as the old one."""
    streams = Streams()
    sidecar = await start_sidecar((await start_origin(streams)).url)
    answer = await begun(sidecar, GET)
    streams.finish()
    await answer.rest()
    answer.writer.write(b"GET /next HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n")
    assert (await read_answer(answer.reader, answer.writer)).status == 400


async def test_an_unused_connection_is_let_go_after_keepalive(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Not while a stream lasts, however long it is silent; what is unused is closed, and no sooner."""
    streams = Streams()
    sidecar = await start_sidecar((await start_origin(streams)).url, keepalive="200ms")
    answer = await begun(sidecar, GET)
    asked = sidecar.hub.clock()
    other = await read_answer(*await send(sidecar.url, NEXT))
    assert await other.body() == b"/next"
    assert await other.closed()
    assert sidecar.hub.clock() - asked >= 0.19
    assert not answer.reader.at_eof()
    streams.finish()
    assert await answer.rest() == b""
    assert await answer.closed()
