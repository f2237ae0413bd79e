"""The bridge over real sockets: how it is reached, and what a start sends upstream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.config import parse
from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.bridge import begin, bridge, data_of, ended, event, opened, refused, still_lives
from tests.support.client import Answer, ask, read_answer, send
from tests.support.origin import reply, response
from tests.support.script import holds, in_turn, streams
from tests.support.websocket import ACCEPT, Socket, ask_upgrade, connect, frame, handshake

CHAT = "/v1/chat/completions"


async def kind(answer: Answer, status: int) -> str:
    """Check that an answer is a problem with this status, and return its kind."""
    assert answer.status == status
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("cache-control") == "no-store"
    document: dict[str, Any] = await answer.json()
    assert (document["status"], document["route"]) == (status, "all")
    assert document["detail"]
    return str(document["type"]).rpartition(":")[2]


# The handshake


async def test_one_address_speaks_both(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """An Upgrade gets frames; everything else at the same URL gets the stream as SSE."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, "/api/chat")
    over_socket = await begin(socket)
    assert await socket.hear() == event(over_socket, 1, "a")
    assert await socket.hear() == ended(over_socket)
    for method in ("GET", "POST"):
        answer = await ask(sidecar.url, "/api/chat", method=method)
        assert answer.header("content-type") == "text/event-stream; charset=utf-8"
        assert (await answer.rest()).endswith(b"data: a\n\n")
    assert len(origin.requests) == 3


async def test_the_handshakes_answer(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Nothing in it that was not asked for, and no extension: frames are not compressed."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    socket = await connect(sidecar.url, headers=offer)
    assert dict(socket.answer.raw_headers) == {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": ACCEPT,
    }
    assert not origin.requests


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        ("sse-sidecar.v1", "sse-sidecar.v1"),
        ("graphql-ws, sse-sidecar.v1", "sse-sidecar.v1"),
        ("bearer.t0ken, sse-sidecar.v1", "sse-sidecar.v1"),
        ("bearer.t0ken", None),
        ("graphql-ws", None),
    ],
)
async def test_only_our_own_subprotocol_is_chosen(
    offered: str | None, chosen: str | None, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It need not be offered; and what carries a credential is never echoed."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, headers={"Sec-WebSocket-Protocol": offered})
    assert socket.answer.header("sec-websocket-protocol") == chosen
    await still_lives(socket)


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "WEBSOCKET"])
@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade"])
async def test_tokens_are_compared_without_their_case(
    upgrade: str, connection: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Firefox says ``keep-alive, Upgrade``."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    await still_lives(await connect(sidecar.url, headers={"Upgrade": upgrade, "Connection": connection}))


async def test_a_frame_that_comes_with_the_handshake_is_heard(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A client need not wait for the 101 to say what it wants; half a frame may be there, too."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    ping = frame(1, b'{"type":"ping"}')
    socket = await connect(sidecar.url, early=frame(1, b'{"prompt":"hi"}') + ping[:7])
    assert data_of(await socket.hear_until("end")) == ["a"]
    await socket.send_raw(ping[7:])
    assert await socket.hear() == {"type": "pong"}
    assert (await origin.request()).body == b'{"prompt":"hi"}'


async def test_a_connection_that_has_served_requests_can_switch(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """HTTP first, then WebSocket, on one connection: browsers do not, but proxies in front do."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    first = await ask(sidecar.url, method="POST", body=b"{}")
    assert (await first.rest()).endswith(b"data: a\n\n")
    first.writer.write(handshake(sidecar.url, "/"))
    answer = await read_answer(first.reader, first.writer, upgrade=True)
    assert answer.status == 101
    await still_lives(Socket(answer))


async def test_a_route_of_posts_takes_the_handshake(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A handshake is a GET by its nature; its starts are what the route serves."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(methods=["POST"]))
    assert (await ask(sidecar.url)).status == 405
    await begin(await connect(sidecar.url), {"prompt": "hi"})
    assert (await origin.request()).method == "POST"


@pytest.mark.parametrize("methods", [["GET"], ["HEAD", "GET"], ["GET", "HEAD"]])
async def test_starts_on_a_route_of_gets_are_gets(
    methods: list[str], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What an EventSource gets there, as frames. A HEAD would bring no stream."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(methods=methods))
    socket = await connect(sidecar.url, "/api/events?topic=a")
    assert await begin(socket)
    upstream = await origin.request()
    assert (upstream.method, upstream.target, upstream.body) == ("GET", "/api/events?topic=a", b"")
    assert upstream.header("content-length") is None
    assert upstream.header("content-type") is None


async def test_other_methods_are_served_beside_posts(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Where POST is among a route's methods, a start is one."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(methods=["GET", "POST"]))
    await begin(await connect(sidecar.url), {})
    assert (await origin.request()).method == "POST"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426, "upgrade-required"),
        ({"Sec-WebSocket-Version": "13, 8"}, 426, "upgrade-required"),
        ({"Sec-WebSocket-Version": None}, 426, "upgrade-required"),
        ({"Sec-WebSocket-Key": None}, 400, "bad-request"),
        ({"Sec-WebSocket-Key": "short"}, 400, "bad-request"),
        ({"Sec-WebSocket-Key": "QUJDRA=="}, 400, "bad-request"),
        ({"Sec-WebSocket-Key": "QUJDRA= ="}, 400, "bad-request"),
        ({"Sec-WebSocket-Protocol": "bearer.a, bearer.b"}, 400, "bad-request"),
    ],
)
async def test_what_is_wrong_with_a_handshake_is_told(
    headers: dict[str, str | None],
    status: int,
    code: str,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """As a problem, like any refusal; a version that we do not speak learns which one we do."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    answer = await ask_upgrade(sidecar.url, headers=headers)
    assert await kind(answer, status) == code
    if status == 426:
        assert answer.header("sec-websocket-version") == "13"
        assert answer.header("upgrade") == "websocket"
        assert "upgrade" in (answer.header("connection") or "").lower()
    assert not origin.requests
    assert not sidecar.hub.sockets


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Length": "2"}, b"{}"),
        ({"Transfer-Encoding": "chunked"}, b"2\r\n{}\r\n0\r\n\r\n"),
    ],
)
async def test_a_handshake_has_no_body(
    headers: dict[str, str | None], body: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: bytes that one reads as a body and the other as frames."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    answer = await ask_upgrade(sidecar.url, headers=headers, early=body)
    assert await kind(answer, 400) == "bad-request"
    assert not origin.requests
    assert not sidecar.hub.sockets


async def test_a_client_can_ask_again_after_a_refusal(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The connection is closed, or it serves the next request: it never goes deaf."""
    origin = await start_origin(reply(response(body=b"plain")))
    sidecar = await start_sidecar(origin.url, route=bridge())
    answer = await ask_upgrade(sidecar.url, headers={"Sec-WebSocket-Version": "8"})
    await answer.body()
    if "close" in (answer.header("connection") or "").lower():
        assert await answer.closed()
        return
    answer.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await (await read_answer(answer.reader, answer.writer)).body() == b"plain"


@pytest.mark.parametrize(
    ("method", "upgrade", "version"),
    [
        ("POST", "websocket", "HTTP/1.1"),
        ("POST", "h2c", "HTTP/1.1"),
        ("PUT", "websocket", "HTTP/1.1"),
        ("POST", "websocket", "HTTP/1.0"),
    ],
)
async def test_what_is_no_handshake_is_an_ordinary_request(
    method: str, upgrade: str, version: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An offer to switch may be declined (RFC 9110 §7.8): its request is answered, body and all."""
    origin = await start_origin(reply(response(body=b"plain")))
    sidecar = await start_sidecar(origin.url, route=bridge())
    offer = {"Upgrade": upgrade, "Connection": "Upgrade"}
    answer = await ask(sidecar.url, method=method, headers=offer, body=b'{"a":1}', version=version)
    assert (answer.status, await answer.body()) == (200, b"plain")
    upstream = await origin.request()
    assert (upstream.method, upstream.body) == (method, b'{"a":1}')
    assert upstream.header("upgrade") is None


async def test_where_no_bridge_is_an_upgrade_is_declined(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Without ``websocket`` a route answers a handshake as the GET that it is, and switches nothing."""
    origin = await start_origin(reply(response(body=b"plain")))
    sidecar = await start_sidecar(origin.url)
    answer = await ask_upgrade(sidecar.url)
    assert (answer.status, await answer.body()) == (200, b"plain")
    assert (await origin.request()).header("upgrade") is None


async def test_so_many_websockets_and_no_more(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """``limits.websockets``: one more is told to come later, and may when one has left."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge(), limits={"websockets": 2})
    sockets = [await connect(sidecar.url) for _ in range(2)]
    answer = await ask_upgrade(sidecar.url)
    assert await kind(answer, 503) == "capacity"
    assert int(answer.header("retry-after") or 0) > 0
    await sockets[0].close()
    await eventually(lambda: len(sidecar.hub.sockets) == 1, "the closed one is counted out")
    await still_lives(await connect(sidecar.url))


async def test_a_sidecar_that_drains_takes_no_websocket(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its last connections may still ask for one: 503, so that the client looks elsewhere."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    reader, writer = await send(sidecar.url, b"")
    await eventually(lambda: len(sidecar._front.connections) == 1, "it is connected")  # type: ignore[union-attr]
    sidecar.hub.draining = True
    writer.write(handshake(sidecar.url, "/"))
    answer = await read_answer(reader, writer, upgrade=True)
    assert await kind(answer, 503) == "capacity"
    assert int(answer.header("retry-after") or 0) > 0


async def test_a_start_goes_where_its_route_goes_now(
    tmp_path: Path, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """After a reload a connection's starts follow the route of its name; without one they are refused."""
    old, new = await start_origin(streams(b"data: old\n\n")), await start_origin(streams(b"data: new\n\n"))
    sidecar = await start_sidecar(old.url, route=bridge())
    socket = await connect(sidecar.url)
    await begin(socket)
    assert data_of(await socket.hear_until("end")) == ["old"]
    reconfigure(sidecar, new.url, "all")
    await begin(socket)
    assert data_of(await socket.hear_until("end")) == ["new"]
    reconfigure(sidecar, new.url, "another")
    await socket.say({"type": "start"})
    await refused(socket, "no-route", status=404, recoverable=False)
    await still_lives(socket)


def reconfigure(sidecar: Sidecar, upstream: str, name: str) -> None:
    """Put another configuration in force, as a reload does."""
    route = {"name": name, "path": "/{tail:.*}", "upstream": "origin", "websocket": "bridge"}
    document = {
        "listen": sidecar.config.listen,
        "upstreams": {"origin": {"url": upstream}},
        "routes": [route],
    }
    sidecar._apply(parse(yaml.safe_dump(document)))


# What a start sends upstream


@pytest.mark.parametrize(
    ("said", "body"),
    [
        ('{"type":"start","body":{ "prompt" : "hi", "n": 1.0 }}', b'{ "prompt" : "hi", "n": 1.0 }'),
        ('{"type":"start","body":[1, 2]}', b"[1, 2]"),
        ('{"type":"start","body":"text"}', b'"text"'),
        ('{"type":"chat","prompt":"hi", "n": 1.0}', b'{"prompt":"hi","n":1.0}'),
        ('{"type":"chat"}', b"{}"),
        ('{"prompt" : "hi"}', b'{"prompt" : "hi"}'),
        ('  {"model":"m","stream":true}\n', b'  {"model":"m","stream":true}\n'),
        ("{}", b"{}"),
        ('{"text":"ä\\u00e4😀"}', '{"text":"ä\\u00e4😀"}'.encode()),
    ],
)
async def test_a_body_goes_upstream_as_it_was_said(
    said: str, body: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``start`` names it, ``chat`` is it but for its type, and an object without a type is it."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say(said)
    await socket.hear_until("end")
    upstream = await origin.request()
    assert upstream.body == body
    assert upstream.header("content-type") == "application/json"
    assert upstream.header("content-length") == str(len(body))
    assert upstream.header("transfer-encoding") is None


@pytest.mark.parametrize("said", ['{"type":"start"}', '{"type":"start","body":null}'])
async def test_a_start_without_a_body_has_none(
    said: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A POST that says nothing about a body."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say(said)
    await socket.hear_until("end")
    upstream = await origin.request()
    assert (upstream.method, upstream.body) == ("POST", b"")
    assert upstream.header("content-type") is None


async def test_a_start_is_the_handshakes_request_but_for_the_handshake(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The client's own fields go upstream; those of the connection and of WebSocket do not."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(
        sidecar.url,
        "/api/chat?user=1&q=a%20b",
        {
            "Cookie": "session=s1; theme=dark",
            "Authorization": "Bearer mine",
            "User-Agent": "page/1",
            "X-Tenant": "t1",
            "Accept": "*/*",
            "Accept-Encoding": "gzip, br",
            "Sec-WebSocket-Extensions": "permessage-deflate",
            "Sec-WebSocket-Protocol": "sse-sidecar.v1",
            "Idempotency-Key": "k1",
            "Last-Event-ID": "7",
        },
    )
    await socket.say({"prompt": "hi"})
    await socket.hear_until("end")
    upstream = await origin.request()
    assert (upstream.method, upstream.target) == ("POST", "/api/chat?user=1&q=a%20b")
    forwarding = {name for name in upstream.headers if name.startswith("x-forwarded-")}
    fields = {name: values for name, values in upstream.headers.items() if name not in forwarding}
    assert fields == {
        "host": [f"127.0.0.1:{origin.port}"],
        "cookie": ["session=s1; theme=dark"],
        "authorization": ["Bearer mine"],
        "user-agent": ["page/1"],
        "x-tenant": ["t1"],
        "accept": ["text/event-stream"],
        "accept-encoding": ["identity"],
        "content-type": ["application/json"],
        "content-length": ["16"],
    }
    assert upstream.header("x-forwarded-for") == "127.0.0.1"


async def test_what_belongs_to_the_connection_ends_with_it(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Fields that Connection names are for the next hop alone (RFC 9110 §7.6.1)."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(
        sidecar.url,
        headers={"Connection": "Upgrade, X-Hop", "X-Hop": "1", "Keep-Alive": "5", "TE": "trailers"},
    )
    await begin(socket, {})
    upstream = await origin.request()
    for name in ("x-hop", "keep-alive", "te", "upgrade"):
        assert upstream.header(name) is None, name


async def test_an_idempotency_key_on_the_handshake_makes_no_start_the_same(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It would make one stream of all starts of the connection."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, headers={"Idempotency-Key": "k", "Authorization": "Bearer me"})
    names = set()
    for _ in range(2):
        names.add(await begin(socket, {}))
        await socket.hear_until("end")
    assert (len(names), len(origin.requests)) == (2, 2)


async def test_a_cursor_on_the_handshake_resumes_nothing(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A start is a new request, whatever a client's library repeats in its headers."""
    origin = await start_origin(streams(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    first = await begin(socket, {})
    await socket.hear_until("end")
    again = await connect(sidecar.url, headers={"Last-Event-ID": f"{first}.1"})
    assert await begin(again, {}) != first
    assert data_of(await again.hear_until("end")) == ["a", "b"]
    assert len(origin.requests) == 2


async def test_a_bearer_among_the_subprotocols_is_the_clients_authorization(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A page cannot set headers on a WebSocket: this is where its token goes, and nowhere else."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(
        sidecar.url, headers={"Sec-WebSocket-Protocol": "sse-sidecar.v1, bearer.t0k-en_~+/="}
    )
    assert "t0k" not in str(socket.answer.raw_headers)
    await begin(socket, {})
    upstream = await origin.request()
    assert upstream.header("authorization") == "Bearer t0k-en_~+/="
    assert upstream.head.count(b"t0k") == 1


async def test_the_header_wins_over_the_subprotocol(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Who can set Authorization has said what it is."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    offer = {"Sec-WebSocket-Protocol": "bearer.other", "Authorization": "Bearer mine"}
    await begin(await connect(sidecar.url, headers=offer), {})
    assert (await origin.request()).header("authorization") == "Bearer mine"


async def test_an_injected_credential_replaces_the_clients(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Our key goes upstream, and of the client's identity nothing: no cookie, no page, no address."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(
        origin.url,
        route=bridge(),
        upstreams={"origin": {"url": origin.url, "set_headers": {"Authorization": "Bearer ours"}}},
    )
    host = sidecar.url.removeprefix("http://")
    socket = await connect(
        sidecar.url,
        headers={
            "Sec-WebSocket-Protocol": "bearer.theirs",
            "Cookie": "session=s1",
            "Origin": f"http://{host}",
            "X-Api-Key": "theirs",
            "X-Forwarded-For": "10.0.0.1",
        },
    )
    await socket.say({"prompt": "hi"})
    await socket.hear_until("end")
    upstream = await origin.request()
    assert upstream.header("authorization") == "Bearer ours"
    assert b"theirs" not in upstream.head
    for name in ("cookie", "origin", "x-api-key", "x-forwarded-for"):
        assert upstream.header(name) is None, name


async def test_a_prefix_is_stripped_and_a_base_path_kept(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A start's target is made like any request's."""
    origin = await start_origin(streams(b"data: a\n\n"))
    route = {"name": "ai", "path": "/ai/{tail:.*}", "upstream": "origin", "strip_prefix": "/ai"}
    sidecar = await start_sidecar(f"{origin.url}/base", routes=[bridge(**route)])
    await begin(await connect(sidecar.url, f"/ai{CHAT}?x=%2F"), {})
    assert (await origin.request()).target == f"/base{CHAT}?x=%2F"


async def test_a_body_over_the_routes_limit_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``max_body`` holds for what comes over a WebSocket, too, and nothing is sent anywhere."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(max_body=20))
    socket = await connect(sidecar.url)
    await socket.say({"prompt": "x" * 20})
    await refused(socket, "body-too-large", status=413, recoverable=False)
    assert not origin.requests
    await begin(socket, {"a": 1})


async def test_a_large_body_arrives_whole(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Megabytes in one message, or in many fragments."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    said = json.dumps({"image": "x" * 3_000_000}).encode()
    await socket.send(1, said)
    await socket.hear_until("end")
    pieces = [said[at : at + 100_000] for at in range(0, len(said), 100_000)]
    for number, piece in enumerate(pieces, 1):
        await socket.send(0 if number > 1 else 1, piece, fin=number == len(pieces))
    await socket.hear_until("end")
    assert [upstream.body for upstream in origin.requests] == [said, said]


# Many requests over one connection


async def test_one_connection_serves_hundreds_of_requests(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """One after another: each gets its own stream, whole and in order, over as few upstream connections."""
    origin = await start_origin(streams(b"data: 1\n\ndata: 2\n\n", b"data: 3\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(replay={"keep": "1s"}))
    socket = await connect(sidecar.url)
    names = set()
    for number in range(300):
        stream = await begin(socket, {"number": number})
        heard = await socket.hear_until("end")
        assert heard == [*(event(stream, seq, str(seq)) for seq in (1, 2, 3)), ended(stream)]
        names.add(stream)
    assert len(names) == 300
    assert [json.loads(upstream.body)["number"] for upstream in origin.requests] == list(range(300))
    assert origin.connections < 10
    (held,) = sidecar.hub.sockets
    assert not held._busy  # type: ignore[attr-defined]  # a Bridge's
    assert not sidecar.hub.readers
    assert not sidecar.hub.running


async def test_a_second_start_is_refused_while_one_runs(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``max_concurrent`` is 1: it is told so, nothing is sent upstream, and the first goes on."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket, {})
    assert await socket.hear() == event(stream, 1, "a")
    await socket.say({"prompt": "second"})
    told = await refused(socket, "busy", status=429, recoverable=True)
    assert "max_concurrent" in told["message"]
    upstream = await origin.request()
    await upstream.chunk(b"data: b\n\n")
    await upstream.end()
    assert await socket.hear_until("end") == [event(stream, 2, "b"), ended(stream)]
    assert len(origin.requests) == 1
    await begin(socket, {})


async def test_a_second_start_is_refused_while_the_first_waits_for_its_answer(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Two starts in one read are two starts, even if nothing has been sent for the first."""
    origin = await start_origin(holds())
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, early=frame(1, b'{"n":1}') + frame(1, b'{"n":2}'))
    await refused(socket, "busy")
    assert (await socket.hear())["type"] == "open"
    assert [upstream.body for upstream in origin.requests] == [b'{"n":1}']


async def test_a_start_right_behind_an_end_is_no_second_one(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A client that cancels and asks anew in one breath is not busy."""
    origin = await start_origin(in_turn(holds(b"data: a\n\n"), streams(b"data: b\n\n")))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    first = await begin(socket, {})
    await socket.hear()
    await socket.send_raw(frame(1, b'{"type":"cancel"}') + frame(1, b'{"n":2}'))
    assert await socket.hear() == ended(first, "cancelled", message="cancelled by the client")
    heard = await socket.hear_until("end")
    assert heard[0] == opened(heard[0]["stream"])
    assert data_of(heard) == ["b"]


async def test_two_streams_share_one_connection(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``max_concurrent: 2``: their frames interleave, each with its own ids, and end one by one."""
    origin = await start_origin(holds())
    sidecar = await start_sidecar(origin.url, route=bridge(max_concurrent=2))
    socket = await connect(sidecar.url)
    first, second = await begin(socket, {"n": 1}), await begin(socket, {"n": 2})
    await socket.say({"n": 3})
    await refused(socket, "busy")
    one, two = await origin.request(1), await origin.request(2)
    for number in (1, 2):
        await one.chunk(b"data: one\n\n")
        assert await socket.hear() == event(first, number, "one")
        await two.chunk(b"data: two\n\n")
        assert await socket.hear() == event(second, number, "two")
    await one.end()
    assert await socket.hear() == ended(first)
    third = await begin(socket, {"n": 3})
    await two.chunk(b"data: two\n\n")
    assert await socket.hear() == event(second, 3, "two")
    await socket.say({"type": "cancel", "stream": third})
    assert await socket.hear() == ended(third, "cancelled", message="cancelled by the client")
    await two.end()
    assert await socket.hear() == ended(second)
