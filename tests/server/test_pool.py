"""One request on a pooled connection: what leaves together, and which connections are used again."""

from __future__ import annotations

import asyncio

import pytest

from proxy.server.upstream import Patience
from proxy.server.wheel import Wheel
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import ask, read_answer, send
from tests.support.origin import Connection, reply, response


@pytest.mark.parametrize(
    ("framing", "sent", "forwarded"),
    [
        (b"Content-Length: 5", b"hello", b"hello"),
        (b"Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"0\r\n\r\n", b"0\r\n\r\n"),
    ],
    ids=["length", "chunked", "empty"],
)
async def test_a_body_that_came_whole_leaves_with_its_head(
    framing: bytes, sent: bytes, forwarded: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """In one write, so that the upstream is woken once."""
    came: list[bytes] = []

    async def script(connection: Connection) -> None:
        came.append(bytes(connection.reader._buffer))  # type: ignore[attr-defined]  # what came with the head
        assert await connection.reader.readexactly(len(forwarded)) == forwarded
        await connection.send(response())

    origin = await start_origin(script, whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    request = b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + sent
    reader, writer = await send(sidecar.url, request)
    assert (await read_answer(reader, writer, "POST")).status == 200
    assert came == [forwarded]


@pytest.mark.parametrize(
    ("method", "length"), [("POST", "0"), ("PUT", "0"), ("PATCH", "0"), ("DELETE", "0"), ("GET", None)]
)
async def test_a_request_that_could_have_a_body_says_that_it_has_none(
    method: str, length: str | None, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """RFC 9110 §8.6: a user agent "SHOULD send Content-Length … when the method defines a meaning for
    enclosed content and it is not sending Transfer-Encoding".
    """
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    assert (await ask(sidecar.url, method=method)).status == 200
    assert origin.requests[0].header("content-length") == length


async def test_host_is_the_first_field_and_the_servers_own(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It is what the upstream's URL says, whatever the client called us."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    await ask(sidecar.url, headers={"X-First": "1", "Host": "here"})
    assert origin.requests[0].head.split(b"\r\n")[1] == f"Host: 127.0.0.1:{origin.port}".encode()


async def test_a_host_that_is_set_is_sent(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """``set_headers`` wins over the URL: a server behind an address may know itself by name."""
    origin = await start_origin(reply())
    upstream = {"url": origin.url, "set_headers": {"Host": "api.example"}}
    sidecar = await start_sidecar(origin.url, upstreams={"origin": upstream})
    await ask(sidecar.url, headers={"Host": "here"})
    assert origin.requests[0].header("host") == "api.example"


async def test_a_connection_is_used_again(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """After a body that was read to its end, with whatever framing, or none."""
    bodies = iter((response(body=b"x"), response(), b"HTTP/1.1 204 No Content\r\n\r\n", response()))

    async def script(connection: Connection) -> None:
        await connection.send(next(bodies))

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    for method in ("GET", "POST", "GET", "HEAD"):
        answer = await ask(sidecar.url, method=method, body=b"y" if method == "POST" else None)
        await answer.body()
    assert len(origin.requests) == 4
    assert origin.connections == 1


async def test_a_reply_that_comes_too_early_ends_its_connection(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What is left of the request's body must not be read as the next request."""
    origin = await start_origin(reply(response(status="401 Unauthorized")), whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="POST", headers={"Content-Length": "100"}, body=b"only the start")
    assert answer.status == 401
    await answer.body()
    await eventually(lambda: not origin.connections, "the connection is closed")


# How long a response is waited for


async def impatient(seconds: float) -> str:
    """Wait for something that never comes."""
    loop = asyncio.get_running_loop()
    patience = Patience(Wheel(loop), loop, seconds)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        if patience.lost():
            return "lost"
        raise
    finally:
        patience.end()
    return "slept"


async def test_patience_ends() -> None:
    """The task is woken, and is not cancelled."""
    task = asyncio.create_task(impatient(0.01))
    assert await task == "lost"
    assert not task.cancelling()


async def test_patience_is_renewed() -> None:
    """While an upload moves, nobody loses it."""
    loop = asyncio.get_running_loop()
    patience = Patience(Wheel(loop), loop, 0.2)
    for _ in range(6):
        await asyncio.sleep(0.05)
        patience.renew(loop.time())
    patience.end()
    assert not patience.lost()


async def test_whoever_else_cancels_is_obeyed() -> None:
    """A client that leaves in the very moment in which patience ends has left."""
    task = asyncio.create_task(impatient(0.02))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    both = asyncio.create_task(impatient(0.001))
    await asyncio.sleep(0)
    both.cancel()
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
