"""Streams, bodies and WebSockets through the shipped nginx configuration, as if it were not there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from pathlib import Path

import pytest

from proxy.demo import Running, expected_text
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.nginx.conftest import StartEdge
from tests.support.bridge import begin, bridge, data_of
from tests.support.client import Truncated, ask, read_answer, send
from tests.support.nginx import Nginx, free_port, http
from tests.support.origin import PATIENCE, Connection
from tests.support.script import holds, streams
from tests.support.tunnel import Peer, accepts
from tests.support.websocket import BINARY

MIB = 1 << 20


async def test_events_pass_one_by_one(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Each is with the client before the next is sent, over HTTP/1.1 and HTTP/2, got and posted."""
    origin = await start_origin(holds())
    edge = await start_edge((await start_sidecar(origin.url)).url)
    answer = await edge.ask("/feed", headers={"Accept-Encoding": "gzip"})
    assert answer.header("content-encoding") is None
    upstream = await origin.request()
    for number in range(20):
        await upstream.chunk(b"data: %d\n\n" % number)
        assert (await answer.block()).endswith(b"data: %d\n\n" % number)

    for seen, options in enumerate([[], ["--data", "{}"], ["--compressed"]], 2):
        async with edge.curl("/chat", "--include", *options) as curl:
            upstream = await origin.request(seen)
            for number in range(20):
                await upstream.chunk(b"data: %d\n\n" % number)
                heard = await curl.until(b"\n\n")
                assert number or heard.startswith(b"HTTP/2 200")
                assert heard.endswith(b"data: %d\n\n" % number)


async def test_other_answers_pass_as_they_come_too(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Lines of JSON, say: the sidecar says nothing of buffering there."""

    async def script(connection: Connection) -> None:
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 18\r\n\r\n"
        )
        await connection.gone()

    origin = await start_origin(script)
    edge = await start_edge((await start_sidecar(origin.url)).url)
    answer = await edge.ask("/api/chat", method="POST", headers={"Accept-Encoding": "gzip"}, body=b"{}")
    assert answer.header("content-encoding") is None
    upstream = await origin.request()
    for number in range(2):
        await upstream.send(b'{"n":%d}\n' % number)
        assert await answer.until(b"\n") == b'{"n":%d}\n' % number
    answer.abort()


async def test_headers_come_before_the_first_event(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """They do not wait for a body, and the heartbeat covers the time until one comes."""
    origin = await start_origin(holds())
    edge = await start_edge((await start_sidecar(origin.url, route={"heartbeat": "50ms"})).url)
    answer = await edge.ask("/feed")
    assert answer.status == 200
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("cache-control") == "no-cache, no-transform"
    assert len(answer.headers("stream-id")) == 1
    await answer.until(b": ping\n: ping\n")


async def test_a_burst_passes_whole(
    start_sidecar: StartSidecar, start_edge: StartEdge, provider: Running
) -> None:
    """A provider's answer, as fast as it goes, is the same at the end of the chain."""
    edge = await start_edge((await start_sidecar(provider.url)).url)
    async with edge.curl("/api/chat?prompt=hi&interval=0") as curl:
        status, output = await curl.rest()
    assert status == 0
    texts = [
        json.loads(data)["text"] for data in re.findall(rb"event: token\n.*?data: ([^\n]*)", output, re.S)
    ]
    assert "".join(texts) == expected_text()


async def test_a_posted_stream_is_resumed(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """The link that the answer carries leads back through nginx to what was missed, and to what follows."""
    origin = await start_origin(holds(b"data: 1\n\n", b"data: 2\n\n"))
    edge = await start_edge((await start_sidecar(origin.url)).url)
    answer = await edge.ask("/v1/chat/completions", method="POST", body=b"{}")
    stream, link = answer.header("stream-id"), answer.header("link") or ""
    await answer.block()
    answer.abort()

    found = re.match(r'<([^>]+)>; rel="resume", <([^>]+)>; rel="cancel"', link)
    assert found, link
    resumed = await edge.ask(found[1], headers={"Last-Event-ID": f"{stream}.1"})
    assert resumed.header("stream-resumed-from") == "1"
    assert (await resumed.block()).endswith(b"data: 2\n\n")
    await (await origin.request()).chunk(b"data: 3\n\n")
    assert (await resumed.block()).endswith(b"data: 3\n\n")
    assert len(origin.requests) == 1


async def test_a_stream_is_cancelled(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """A POST without a body to the cancel link ends the upstream's work at once."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    edge = await start_edge((await start_sidecar(origin.url)).url)
    answer = await edge.ask("/chat", method="POST", body=b"{}")
    cancel = await edge.ask(f"/_streams/{answer.header('stream-id')}/cancel", method="POST")
    assert cancel.status == 202
    await asyncio.wait_for((await origin.request()).gone(), PATIENCE)


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_client_that_leaves_is_seen(
    version: str, start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """With ``linger: 0s`` the upstream's work ends with it: nginx passes the end on at once."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    edge = await start_edge((await start_sidecar(origin.url, route={"linger": "0s"})).url)
    if version == "1.1":
        answer = await edge.ask("/chat", method="POST", body=b"{}")
        await answer.block()
        answer.abort()
    else:
        async with edge.curl("/chat", "--data", "{}") as curl:
            await curl.until(b"\n\n")
    upstream = await origin.request()
    await eventually(lambda: upstream.peer_closed.is_set(), "the upstream was left")


async def breaks(connection: Connection) -> None:
    """Break in the middle of a block."""
    await connection.start_stream()
    await connection.chunk(b"data: 1\n\ndata: 2")
    await connection.close()


async def test_a_broken_stream_stays_broken(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """What the sidecar leaves without an end, nginx does not end: a client must know that some is missing."""
    edge = await start_edge((await start_sidecar((await start_origin(breaks)).url)).url)
    answer = await edge.ask("/chat", method="POST", body=b"{}")
    with pytest.raises(Truncated):
        await answer.rest()
    async with edge.curl("/chat", "--data", "{}") as curl:
        status, output = await curl.rest()
    assert output.endswith(b"data: 1\n\n")
    assert status == 92  # "Stream error in HTTP/2 framing layer" (curl's manual)


async def test_a_large_body_is_not_collected(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Its first half is with the upstream before the second is sent."""

    async def script(connection: Connection) -> None:
        half = await connection.reader.readexactly(4 * MIB)
        halves.put_nowait(half)
        halves.put_nowait(await connection.reader.readexactly(4 * MIB))
        await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    halves: asyncio.Queue[bytes] = asyncio.Queue()
    origin = await start_origin(script, whole_bodies=False)
    edge = await start_edge((await start_sidecar(origin.url)).url)
    head = f"POST /files HTTP/1.1\r\nHost: x\r\nContent-Length: {8 * MIB}\r\n\r\n"
    reader, writer = await send(edge.url, head.encode() + b"a" * 4 * MIB, tls=edge.tls)
    assert await asyncio.wait_for(halves.get(), PATIENCE) == b"a" * 4 * MIB
    writer.write(b"b" * 4 * MIB)
    assert (await read_answer(reader, writer)).status == 204
    assert await halves.get() == b"b" * 4 * MIB


async def test_a_large_body_over_http_2(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge, tmp_path: Path
) -> None:
    """40 MiB, more than nginx's own limit and more than any buffer on the way, come through as they are."""

    async def script(connection: Connection) -> None:
        digest = hashlib.sha256(connection.body).hexdigest().encode()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(digest), digest))

    file = tmp_path / "body"
    file.write_bytes(bytes(range(256)) * (40 * MIB // 256))
    edge = await start_edge((await start_sidecar((await start_origin(script)).url)).url)
    async with edge.curl("/files", "--request", "POST", "--upload-file", file) as curl:
        status, output = await curl.rest()
    assert (status, output.decode()) == (0, hashlib.sha256(file.read_bytes()).hexdigest())


async def test_a_large_body_of_unknown_length(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Its chunks pass, however many there are."""

    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d" % len(connection.body))

    edge = await start_edge((await start_sidecar((await start_origin(script)).url)).url)
    chunk = b"%x\r\n%b\r\n" % (MIB, bytes(MIB))
    head = b"POST /files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    reader, writer = await send(edge.url, head + 4 * chunk + b"0\r\n\r\n", tls=edge.tls)
    answer = await read_answer(reader, writer)
    assert (answer.status, await answer.body()) == (200, b"%08d" % (4 * MIB))


async def test_a_body_over_the_sidecars_limit(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge, tmp_path: Path
) -> None:
    """The sidecar refuses it, by its head, in its own words; nginx has no opinion and loses none of them."""
    origin = await start_origin(streams())
    edge = await start_edge((await start_sidecar(origin.url, route={"max_body": "1KiB"})).url)
    file = tmp_path / "body"
    file.write_bytes(bytes(8 * MIB))
    for _ in range(5):
        async with edge.curl("/files", "--include", "--request", "POST", "--upload-file", file) as curl:
            _, output = await curl.rest()
        assert output.startswith(b"HTTP/2 413")
        assert b"content-type: application/problem+json" in output
    answer = await edge.ask("/files", method="POST", body=bytes(2048))
    assert answer.status == 413
    assert answer.header("content-type") == "application/problem+json"
    assert not origin.requests


async def test_long_headers_pass_both_ways(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """A token of 20 KiB in a request, and 12 KiB of cookies in an answer."""

    async def script(connection: Connection) -> None:
        cookies = b"".join(b"Set-Cookie: name%d=%b\r\n" % (number, b"v" * 1000) for number in range(12))
        await connection.start_stream(cookies)
        await connection.end()

    origin = await start_origin(script)
    edge = await start_edge((await start_sidecar(origin.url)).url)
    answer = await edge.ask(
        "/chat", method="POST", headers={"Authorization": "Bearer " + "t" * 20480}, body=b"{}"
    )
    assert answer.status == 200
    assert len(answer.headers("set-cookie")) == 12
    assert len((await origin.request()).header("authorization") or "") == 20487


async def test_paths_pass_as_they_were_written(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Encoded slashes, doubled ones, and queries: nginx looks at them decoded, and hands on what came."""
    origin = await start_origin(streams())
    edge = await start_edge((await start_sidecar(origin.url)).url)
    target = "/a%2Fb//c%20d/%E2%82%AC?q=%2F&r=a+b"
    await edge.ask(target)
    assert (await origin.request()).target == target


async def test_the_bridge_passes(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """A WebSocket starts a stream, hears its events as they come, and cancels it."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    edge = await start_edge((await start_sidecar(origin.url, route=bridge())).url)
    socket = await edge.connect("/chat")
    await begin(socket, {"prompt": "hi"})
    assert data_of([await socket.hear()]) == ["1"]
    await (await origin.request()).chunk(b"data: 2\n\n")
    assert data_of([await socket.hear()]) == ["2"]
    await socket.say({"type": "cancel"})
    assert (await socket.hear())["reason"] == "cancelled"
    assert (await socket.close()).code == 1000


async def test_large_frames_pass(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """16 MiB in one frame, each way, through a WebSocket of the app's; and its close code and reason."""
    origin = await start_origin(accepts())
    edge = await start_edge((await start_sidecar(origin.url, route={"websocket": "passthrough"})).url)
    client = await edge.connect("/socket")
    upstream = Peer(await origin.request())
    payload = bytes(range(256)) * (16 * MIB // 256)
    for sender, receiver in ((client, upstream), (upstream, client)):
        sending = asyncio.create_task(sender.send(BINARY, payload), name="16 MiB")
        assert await receiver.hear_bytes() == payload
        await sending
    closing = asyncio.create_task(client.close(4321, "enough"), name="closing")
    heard = await upstream.frame()
    assert heard is not None
    assert (heard.code, heard.reason) == (4321, "enough")
    await upstream.send(8, heard.payload)
    assert (await closing).code == 4321


async def test_an_nginx_in_front_of_it_does_not_buffer_either(
    start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> None:
    """Another nginx, which buffers whatever it is not told not to, hears X-Accel-Buffering of this one."""
    origin = await start_origin(holds())
    edge = await start_edge((await start_sidecar(origin.url)).url)
    port = free_port()
    outer = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {edge.url}; }} }}"
    async with Nginx(http(outer)):
        answer = await ask(f"http://127.0.0.1:{port}", "/feed")
        upstream = await origin.request()
        for number in range(5):
            await upstream.chunk(b"data: %d\n\n" % number)
            assert (await answer.block()).endswith(b"data: %d\n\n" % number)
