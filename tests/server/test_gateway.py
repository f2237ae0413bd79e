"""What the sidecar answers by itself: every refusal and every failure before a stream has begun."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
import structlog
from aiohttp import web
from multidict import CIMultiDict

from proxy.config import Config
from proxy.server import sse
from proxy.server.relay import Relay
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import Answer, ask, read_answer, send
from tests.support.origin import PATIENCE, Connection, reply, response
from tests.support.script import holds

CHAT = "/v1/chat/completions"
DIALECTS = {
    "openai": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1/models/m:streamGenerateContent",
}


async def problem(answer: Answer, status: int, kind: str, route: str | None) -> dict[str, Any]:
    """Check that an answer is a problem document, and return it."""
    document = await answer.json()
    assert answer.status == status
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("server") == "sse-sidecar"
    assert document.keys() == {"type", "title", "status", "detail", "route"}
    assert document["type"] == f"urn:sse-sidecar:problem:{kind}"
    assert (document["status"], document["route"]) == (status, route)
    assert document["title"]
    assert document["detail"]
    return document  # type: ignore[no-any-return]  # JSON


async def held(connection: Connection) -> None:
    """Answer nothing, until the peer leaves."""
    await connection.gone()


# No route, no method


async def test_no_route(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """404, and nothing is sent anywhere."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"path": "/v1/{tail:.*}"})
    await problem(await ask(sidecar.url, "/v2/x"), 404, "no-route", None)
    assert not origin.requests


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_method_that_the_route_does_not_serve(
    method: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """405, with the methods that it does serve (RFC 9110 §15.5.6)."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"methods": ["POST", "PUT"]})
    answer = await ask(sidecar.url, method=method)
    await problem(answer, 405, "method-not-allowed", None)
    assert answer.header("allow") == "POST, PUT"
    assert not origin.requests


@pytest.mark.parametrize(
    ("method", "target", "more"),
    [
        ("CONNECT", "evil.example:443", b"\x16\x03\x01 for a tunnel"),
        ("TRACE", "/", b""),
        ("TRACE", CHAT, b""),
    ],
)
async def test_tunnels_and_echoes_are_refused(
    method: str, target: str, more: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """CONNECT and TRACE are never proxied, and nothing that follows a CONNECT is taken for a request."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(sidecar.url, f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + more)
    answer = await read_answer(reader, writer, method)
    await problem(answer, 405, "method-not-allowed", None)
    assert answer.header("allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert not origin.requests


# Paths that mislead


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/..%2fadmin",
        "/v1/..%5cadmin",
        "/v1/..;/admin",
        "/v1/./x",
        "/v1/..",
    ],
)
async def test_dot_segments_are_refused_before_routing(
    path: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: ``/v1/%2e%2e/admin`` matches the public route and is the private one upstream."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(
        origin.url,
        routes=[
            {"name": "v1", "path": "/v1/{tail:.*}", "upstream": "origin"},
            {"name": "all", "path": "/{tail:.*}", "upstream": "origin"},
        ],
    )
    await problem(await ask(sidecar.url, path), 400, "bad-path", None)
    assert not origin.requests


# Bodies and headers that are too large


@pytest.mark.parametrize("path", ["/upload", CHAT])
@pytest.mark.parametrize("size", [11, 10**12])
async def test_a_body_that_is_too_long_by_its_own_word(
    size: int, path: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """413 from the head alone: nothing is read, and nothing is sent upstream."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"max_body": 10})
    answer = await ask(sidecar.url, path, method="POST", headers={"Content-Length": str(size)})
    assert not origin.requests
    if path == CHAT:
        assert (answer.status, (await answer.json())["error"]["code"]) == (413, "body-too-large")
    else:
        await problem(answer, 413, "body-too-large", "all")


async def test_a_body_that_turns_out_too_long(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """In chunks nobody knows before: 413 when the limit is passed, and upstream it never looks whole."""
    received = bytearray()

    async def script(connection: Connection) -> None:
        while data := await connection.reader.read(1000):
            received.extend(data)
        connection.peer_closed.set()

    origin = await start_origin(script, whole_bodies=False)
    sidecar = await start_sidecar(origin.url, route={"max_body": 10})
    answer = await ask(
        sidecar.url,
        method="POST",
        headers={"Transfer-Encoding": "chunked"},
        body=b"6\r\nsixsix\r\n6\r\nsixsix\r\n0\r\n\r\n",
    )
    await problem(answer, 413, "body-too-large", "all")
    if origin.requests:  # the first chunk may have been on its way
        await asyncio.wait_for(origin.requests[0].peer_closed.wait(), PATIENCE)
    assert not received.endswith(b"0\r\n\r\n")


async def test_a_body_at_the_limit_passes(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The bound is the largest size that is served."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"max_body": 10})
    assert (await ask(sidecar.url, method="POST", body=b"ten  bytes")).status == 200
    assert origin.requests[0].body == b"ten  bytes"


@pytest.mark.parametrize(
    "fields",
    [
        "X-Long: " + "canary" * 2000,
        "".join(f"X-{number}: {'canary' * 100}\r\n" for number in range(20)).strip(),
        "".join(f"X-{number}: canary\r\n" for number in range(300)).strip(),
        "X" * 12000 + ": canary",
    ],
    ids=["one long", "long in all", "many", "a long name"],
)
async def test_headers_that_are_too_large(
    fields: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """431, and nothing of them is echoed."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, limits={"max_headers": "10KiB"})
    reader, writer = await send(sidecar.url, f"GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode())
    answer = await read_answer(reader, writer)
    assert "canary" not in json.dumps(await problem(answer, 431, "headers-too-large", None))
    assert not origin.requests


async def test_headers_at_the_limit_pass(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A long cookie jar is no attack."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, limits={"max_headers": "10KiB"})
    assert (await ask(sidecar.url, headers={"Cookie": "c" * 9000})).status == 200


# Messages that are none

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
MALFORMED = {
    "no request": b"canary\r\n\r\n",
    "an unknown method": b"CANARY / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01canary",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no Host": b"GET /canary HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: canary\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 37\r\n\r\n"
    + SMUGGLED,
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 37\r\n\r\n" + SMUGGLED,
    "a signed length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +37\r\n\r\n" + SMUGGLED,
    "length and chunks": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + SMUGGLED
    ),
    "another coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: canary\r\n\r\n" + SMUGGLED,
    "chunks that are not last": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
    ),
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : canary\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\r\n canary\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ca\0nary\r\n\r\n",
    "a bare CR": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ca\rnary\r\n\r\n",
    "bytes in the path": b"GET /canary\xff HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_requests(raw: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """What two peers could read in two ways is read by none: 400, no echo, and the connection ends."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(sidecar.url, raw)
    answer = await read_answer(reader, writer)
    assert (answer.status, answer.header("content-type")) == (400, "application/problem+json")
    assert answer.header("cache-control") == "no-store"
    body = await answer.body()
    assert json.loads(body).keys() == {"type", "title", "status", "detail", "route"}
    assert b"canary" not in body.lower()
    assert await answer.closed()
    assert not origin.requests


async def test_a_host_that_is_none(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The attack: user information, a path or a list where a name should stand."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    await problem(await ask(sidecar.url, headers={"Host": "ours@evil.example"}), 400, "bad-request", None)
    assert not origin.requests


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0"])
async def test_other_versions(version: str, start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Only 1.0 and 1.1 are spoken here."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(sidecar.url, f"GET / {version}\r\nHost: x\r\n\r\n".encode())
    assert (await read_answer(reader, writer)).status in (400, 505)
    assert not origin.requests


# An upstream that fails


async def test_an_upstream_that_is_down(start_sidecar: StartSidecar) -> None:
    """502: nothing was sent, so an SDK may well try again."""
    sidecar = await start_sidecar("http://127.0.0.1:1")
    document = await problem(await ask(sidecar.url, "/x?key=canary"), 502, "upstream-unreachable", "all")
    assert "canary" not in document["detail"]
    answer = await ask(sidecar.url, CHAT, method="POST", body=b"{}")
    assert (answer.status, answer.header("x-should-retry")) == (502, None)


async def test_an_upstream_that_cannot_be_found(start_sidecar: StartSidecar) -> None:
    """A name that does not resolve is an upstream that is down."""
    sidecar = await start_sidecar("http://nobody.invalid")
    await problem(await ask(sidecar.url), 502, "upstream-unreachable", "all")


async def test_an_upstream_that_does_not_take_connections(start_sidecar: StartSidecar) -> None:
    """``timeouts.connect`` bounds how long anybody waits for it."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.socket() as first, socket.socket() as second:
            for waiting in (first, second):  # they fill the backlog
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            sidecar = await start_sidecar(
                f"http://127.0.0.1:{full.getsockname()[1]}", route={"timeouts": {"connect": "50ms"}}
            )
            document = await problem(
                await ask(sidecar.url, "/x?key=canary"), 502, "upstream-unreachable", "all"
            )
    assert "canary" not in document["detail"]


BROKEN = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nSet-Cookie: canary\r\nContent-Le",
    "another protocol": b"SSH-2.0-canary\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\nContent-Length: canary\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\ncanary",
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a NUL": b"HTTP/1.1 200 OK\r\nX: a\0canary\r\n\r\n",
    "a control character": b"HTTP/1.1 200 OK\r\nX: a\x01canary\r\nContent-Length: 0\r\n\r\n",
    "one in its reason": b"HTTP/1.1 200 O\x7fcanary\r\nContent-Length: 0\r\n\r\n",
    "another transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a long field": b"HTTP/1.1 200 OK\r\nX: " + b"canary" * 20000 + b"\r\n\r\n",
    "protocols switched": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_an_upstream_that_does_not_speak_http(
    raw: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """502, told once, without the upstream's bytes, and an SDK is told not to pay a second time."""
    origin = await start_origin(reply(raw, close=True))
    sidecar = await start_sidecar(origin.url)
    document = await problem(await ask(sidecar.url, "/x?key=canary"), 502, "upstream-broken", "all")
    assert "canary" not in document["detail"]
    answer = await ask(sidecar.url, CHAT, method="POST", body=b"{}")
    assert (answer.status, answer.header("x-should-retry")) == (502, "false")
    assert len(origin.requests) == 2


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_upstream_that_takes_too_long(
    dialect: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """504 after ``first_byte``, in the form in which the SDK raises; the upstream's connection is closed."""
    origin = await start_origin(held)
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"first_byte": "250ms"}})
    answer = await ask(sidecar.url, DIALECTS[dialect], method="POST", body=b"{}")
    assert (answer.status, answer.header("x-should-retry")) == (504, "false")
    assert (answer.header("content-type"), answer.header("cache-control")) == ("application/json", "no-store")
    assert "0.25s" in (await answer.json())["error"]["message"]
    await asyncio.wait_for((await origin.request()).peer_closed.wait(), PATIENCE)


async def test_only_an_sdk_is_told_not_to_retry(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``x-should-retry`` is the providers' SDKs' own word, and says nothing to anybody else."""
    origin = await start_origin(held)
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"first_byte": "250ms"}})
    answer = await ask(sidecar.url, "/report")
    assert answer.header("x-should-retry") is None
    await problem(answer, 504, "upstream-timeout", "all")


async def test_a_long_upload_is_no_slow_answer(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``first_byte`` is the upstream's time: it starts again with each part of the body."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"first_byte": "400ms"}})
    loop = asyncio.get_running_loop()
    reader, writer = await send(
        sidecar.url, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    began = loop.time()
    while loop.time() < began + 1.0:  # more than twice the limit, in steps well below it
        writer.write(b"1\r\nx\r\n")
        await asyncio.sleep(0.05)
    writer.write(b"0\r\n\r\n")
    assert (await read_answer(reader, writer, "POST")).status == 200
    assert len(origin.requests[0].body) > 2


async def test_after_the_upload_the_clock_runs(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An upstream that has the whole body and says nothing is a slow answer."""
    origin = await start_origin(held)
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"first_byte": "250ms"}})
    assert (await ask(sidecar.url, method="POST", body=b"hello")).status == 504
    assert origin.requests[0].body == b"hello"


# Limits of our own


async def streaming(connection: Connection) -> None:
    """Answer with a stream that goes on."""
    await connection.start_stream()
    await connection.chunk(b"data: 1\n\n")
    await connection.gone()


@pytest.mark.parametrize(
    ("limits", "status", "kind"),
    [
        ({"streams": 1}, 503, "capacity"),
        ({"readers": 1}, 503, "capacity"),
        ({"readers_per_caller": 1}, 429, "too-many-readers"),
    ],
)
async def test_a_full_sidecar(
    limits: dict[str, int],
    status: int,
    kind: str,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """503 for us, 429 for a caller, each with a time to come back; the upstream is let go at once."""
    origin = await start_origin(streaming)
    sidecar = await start_sidecar(origin.url, limits=limits)
    first = await ask(sidecar.url, "/events")
    assert await first.block()
    answer = await ask(sidecar.url, "/events")
    assert int(answer.header("retry-after") or 0) > 0
    await problem(answer, status, kind, "all")
    second = await origin.request(2)
    await asyncio.wait_for(second.peer_closed.wait(), PATIENCE)
    first.close()
    await eventually(lambda: not sidecar.hub.readers)


async def test_too_many_readers_of_one_stream(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """429, and the stream goes on for those that it has."""
    origin = await start_origin(streaming)
    sidecar = await start_sidecar(origin.url, limits={"readers_per_stream": 1})
    first = await ask(sidecar.url, "/events")
    answer = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}")
    assert answer.status == 429
    assert int(answer.header("retry-after") or 0) > 0
    assert (await first.block()).endswith(b"data: 1\n\n")


# EventSource

EVENT_SOURCE = {"Accept": "text/event-stream", "Sec-Fetch-Mode": "cors"}


@pytest.mark.parametrize(
    ("headers", "comes_back"),
    [
        (EVENT_SOURCE, True),
        ({"Accept": "text/event-stream", "Last-Event-ID": "app-7"}, True),
        ({"Accept": "text/event-stream"}, False),
        ({"Sec-Fetch-Mode": "cors"}, False),
        ({"Accept": "*/*", "Last-Event-ID": "app-7"}, False),
    ],
)
@pytest.mark.parametrize("fault", ["down", "slow", "full"])
async def test_an_event_source_survives_a_passing_fault(
    fault: str,
    headers: dict[str, str],
    comes_back: bool,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """Any status but 200 would stop it for good: it is told when to come again. fetch gets the status."""
    origin = await start_origin({"slow": held, "full": streaming, "down": reply(b"", close=True)}[fault])
    sidecar = await start_sidecar(
        origin.url,
        route={"timeouts": {"first_byte": "250ms" if fault == "slow" else "30s"}},
        limits={"streams": 1},
    )
    if fault == "full":
        await ask(sidecar.url, "/events")
    answer = await ask(sidecar.url, "/events", headers=headers)
    if not comes_back:
        assert answer.status in (502, 503, 504)
        return
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    assert answer.header("cache-control") == "no-store"
    name, value = (await answer.body()).removesuffix(b"\n\n").split(b": ")
    assert (name, 1000 <= int(value) <= 3000) == (b"retry", True)
    assert await answer.closed()


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("POST", "/down", 502), ("GET", "/nowhere", 404), ("GET", "/read-only", 405)],
)
async def test_a_fault_that_does_not_pass_keeps_its_status(
    method: str, target: str, status: int, start_sidecar: StartSidecar
) -> None:
    """An EventSource that asks for what is not there should stop; it never posts."""
    sidecar = await start_sidecar(
        "http://127.0.0.1:1",
        routes=[
            {"name": "down", "path": "/down", "upstream": "origin"},
            {"name": "read-only", "path": "/read-only", "upstream": "origin", "methods": ["POST"]},
        ],
    )
    assert (await ask(sidecar.url, target, method=method, headers=EVENT_SOURCE)).status == status


async def test_the_apps_own_errors_are_the_apps(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A 503 from upstream passes untouched, also to an EventSource: the app means it."""
    origin = await start_origin(reply(response("Retry-After: 9", status="503 Busy", body=b"later")))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/events", headers=EVENT_SOURCE)
    assert (answer.status, answer.header("retry-after"), await answer.body()) == (503, "9", b"later")
    assert answer.header("cache-control") is None


# Counting


async def test_requests_are_counted_under_labels_that_clients_cannot_make_up(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: a new method with each request, until the metrics fill the memory."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    for method in ("GET", "PROPFIND", "MKCOL", "PURGE", "M-SEARCH"):
        await ask(sidecar.url, method=method)
    await ask(sidecar.url, "/../x")
    counted = sidecar.telemetry.routes["all"].requests
    assert {method for method, _ in counted} == {"GET", "other"}
    assert sum(counted.values()) == 5


async def test_what_the_upstream_was_asked_for_is_not_to_be_tried_again(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """At capacity, which was seen only when the upstream had answered: it has been paid for once."""
    origin = await start_origin(streaming)
    sidecar = await start_sidecar(origin.url, limits={"streams": 1})
    body = b'{"model":"m","stream":true,"messages":[]}'
    await (await ask(sidecar.url, CHAT, method="POST", body=body)).block()
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)  # not read, so it may be for any answer
    headers = {"Transfer-Encoding": "chunked"}
    refused = await ask(sidecar.url, CHAT, method="POST", headers=headers, body=chunked)
    assert (refused.status, refused.header("x-should-retry")) == (503, "false")
    assert len(origin.requests) == 2


async def test_a_target_that_names_another_host_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: past the check of ``Host``, to an upstream that goes by the target (RFC 9112 §3.2.2)."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    statuses = []
    for named in ("evil.example", "good.example"):
        raw = f"GET http://{named}/x HTTP/1.1\r\nHost: good.example\r\n\r\n".encode()
        statuses.append((await read_answer(*await send(sidecar.url, raw))).status)
    assert statuses == [400, 200]
    assert len(origin.requests) == 1


@pytest.mark.parametrize("path", ["/x", "/_streams/ID"])
async def test_a_client_that_leaves_before_its_answer_is_no_failure_of_ours(
    path: str,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It left when its stream was about to be read: 499 in the metrics, and no error in the log."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    stream = (await ask(sidecar.url, "/x")).header("stream-id") or ""
    headers_of = sse.answer_headers

    def leaving(relay: Relay, request: web.BaseRequest, config: Config) -> CIMultiDict[str]:
        assert request.transport is not None
        request.transport.close()
        return headers_of(relay, request, config)

    monkeypatch.setattr(sse, "answer_headers", leaving)
    with structlog.testing.capture_logs() as lines, pytest.raises(asyncio.IncompleteReadError):
        await ask(sidecar.url, path.replace("ID", stream))
    requests = sidecar.telemetry.route("all" if path == "/x" else "_streams").requests
    await eventually(lambda: requests["GET", 499] == 1, "it has left")
    assert not requests["GET", 500]
    assert not [line for line in lines if line["log_level"] == "error"]
