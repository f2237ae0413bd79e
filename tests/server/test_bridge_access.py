"""Who may open a bridge, and what is counted and written of it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from proxy.server.app import Sidecar
from proxy.server.bridge import HEARD_A_TURN, HEARD_AT_ONCE, Bridge
from proxy.stream.websocket import Message
from tests.conftest import StartCommand, StartOrigin, StartSidecar, config_for, eventually
from tests.support.bridge import begin, bridge, data_of, refused, still_lives
from tests.support.client import ask
from tests.support.command import write_config
from tests.support.origin import Connection, response
from tests.support.script import holds, streams
from tests.support.websocket import TEXT, ask_upgrade, connect, frame

FOREIGN, OURS = "https://evil.example", "https://app.example"


# Pages


@pytest.mark.parametrize(
    ("route", "origin", "cookie", "welcome"),
    [
        ({}, None, True, True),
        ({}, None, False, True),
        ({}, FOREIGN, True, False),
        ({}, FOREIGN, False, False),
        ({}, "http://{host}", True, True),
        ({}, "https://{host}", True, True),
        ({}, "http://{host}.evil.example", True, False),
        ({}, "http://evil.example/{host}", True, False),
        ({}, "null", True, False),
        ({}, "", True, False),
        ({"origins": [OURS]}, OURS, True, True),
        ({"origins": [OURS]}, OURS, False, True),
        ({"origins": [OURS]}, f"{OURS}:8443", True, False),
        ({"origins": [OURS]}, FOREIGN, True, False),
        ({"origins": [OURS]}, FOREIGN, False, False),
        ({"origins": [OURS]}, "http://{host}", True, True),
        ({"origins": [OURS]}, None, True, True),
    ],
)
async def test_a_foreign_page_cannot_use_its_visitors_place(
    route: dict[str, Any],
    origin: str | None,
    cookie: bool,
    welcome: bool,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """The attack: a page opens a WebSocket here, and the browser sends the visitor's cookies along. Or the
    app needs none, since only who is near can reach it; the visitor's browser is near.

    CORS does not hold it back. A client without an Origin is no page.
    """
    upstream = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(upstream.url, route=bridge(**route))
    headers: dict[str, str | None] = {"Cookie": "session=s1"} if cookie else {}
    if origin is not None:
        headers["Origin"] = origin.format(host=sidecar.url.removeprefix("http://"))
    answer = await ask_upgrade(sidecar.url, headers=headers)
    assert answer.status == (101 if welcome else 403)
    if not welcome:
        assert answer.header("content-type") == "application/problem+json"
        assert (await answer.json())["type"].endswith(":refused")
        assert not sidecar.hub.sockets


@pytest.mark.parametrize(
    "credential",
    [{"Authorization": "Basic dTpw"}, {"Sec-WebSocket-Protocol": "sse-sidecar.v1, bearer.t0ken"}],
)
async def test_no_credential_makes_a_foreign_page_welcome(
    credential: dict[str, str], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: any page can put a token into the list, and an app that asks for none ignores it."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    answer = await ask_upgrade(sidecar.url, headers={"Origin": FOREIGN, **credential})
    assert answer.status == 403


@pytest.mark.parametrize(
    ("headers", "welcome"),
    [
        ({}, True),
        ({"Origin": "http://{host}"}, True),
        ({"Origin": OURS}, True),
        ({"Origin": FOREIGN}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Host": "rebound.example"}, False),
        ({"Host": "localhost"}, True),
    ],
)
async def test_a_key_of_ours_is_spent_by_no_foreign_page(
    headers: dict[str, str], welcome: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Cookies or not: what an HTTP request would be refused for, a handshake is refused for."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(
        origin.url,
        route=bridge(origins=[OURS]),
        upstreams={"origin": {"url": origin.url, "set_headers": {"Authorization": "Bearer ours"}}},
    )
    host = sidecar.url.removeprefix("http://")
    said = {name: value.format(host=host) for name, value in headers.items()}
    answer = await ask_upgrade(sidecar.url, headers=said)
    assert answer.status == (101 if welcome else 403)


@pytest.mark.parametrize(("host", "welcome"), [("api.example", True), ("other.example", False)])
async def test_a_routes_hosts_hold_for_handshakes(
    host: str, welcome: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``hosts``, and for each start of the connection as well."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(hosts=["api.example"]))
    answer = await ask_upgrade(sidecar.url, headers={"Host": host})
    assert answer.status == (101 if welcome else 403)
    if welcome:
        socket = await connect(sidecar.url, headers={"Host": host})
        await begin(socket)
        assert data_of(await socket.hear_until("end")) == ["a"]


@pytest.mark.parametrize("path", ["/v1/%2e%2e/admin", "/v1/../admin"])
async def test_a_path_that_misleads_is_refused_before_routing(
    path: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """As for any request."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    assert (await ask_upgrade(sidecar.url, path)).status == 400


# What is counted


async def metrics(sidecar: Sidecar) -> str:
    """The exposition, settled."""
    return (await (await ask(sidecar.admin_url, "/metrics")).body()).decode()


async def test_connections_are_counted_while_they_are_open(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``sidecar_websockets``, by route; a refused handshake was none."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    sockets = [await connect(sidecar.url) for _ in range(3)]
    assert (await ask_upgrade(sidecar.url, headers={"Sec-WebSocket-Version": "8"})).status == 426
    assert 'sidecar_websockets{route="all"} 3.0\n' in await metrics(sidecar)
    await sockets[0].close()
    sockets[1].abort()
    await eventually(lambda: len(sidecar.hub.sockets) == 1, "two have left")
    assert 'sidecar_websockets{route="all"} 1.0\n' in await metrics(sidecar)


async def test_each_start_is_a_request(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Counted like one that came over HTTP, by what came of it; and the handshake is one as well."""

    async def script(connection: Connection) -> None:
        if b"fail" in connection.body:
            await connection.send(response(status="429 Slow", body=b"no"))
        elif b"plain" in connection.body:
            await connection.send(response(body=b"plain"))
        elif b"silent" in connection.body:
            await connection.gone()
        else:
            await streams(b"data: a\n\n")(connection)

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    for said, last in (("stream", "end"), ("stream", "end"), ("plain", "end"), ("fail", "error")):
        await socket.say({"prompt": said})
        await socket.hear_until(last)
    await socket.say({"prompt": "silent"})
    await origin.request(5)
    await socket.say({"type": "cancel"})
    await socket.hear_until("end")
    await socket.say({"type": "resume", "stream": "?"})
    await refused(socket, "unknown-stream")
    await socket.close()
    await eventually(lambda: not sidecar.gateway.in_flight, "it is over")
    counted = {
        line.removeprefix("sidecar_requests_total")
        for line in (await metrics(sidecar)).splitlines()
        if line.startswith("sidecar_requests_total{") and 'route="all"' in line
    }
    assert len(counted) == 4, counted
    for status, method, number in (
        ("200", "POST", 3),
        ("429", "POST", 1),
        ("499", "POST", 1),
        ("101", "GET", 1),
    ):
        (line,) = [each for each in counted if status in each]
        assert method in line
        assert line.endswith(f" {number}.0")


async def test_a_stream_is_counted_like_one_over_sse(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Events, readers, ends, resumes and cancels of the route are the same figures."""
    origin = await start_origin(streams(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    await socket.hear_until("end")
    await socket.say({"type": "resume", "last_event_id": f"{stream}.1"})
    await socket.hear_until("end")
    text = await metrics(sidecar)
    for line in (
        'sidecar_events_total{route="all"} 2.0',
        'sidecar_streams_ended_total{reason="complete",route="all"} 1.0',
        'sidecar_active_streams{route="all"} 0.0',
        'sidecar_resumes_total{outcome="resumed",route="all"} 1.0',
    ):
        assert f"{line}\n" in text
    await still_lives(socket)


async def test_a_stream_over_websocket_is_listed(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its state can be asked for while it runs, with its reader."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    await socket.hear()
    state = await (await ask(sidecar.url, f"/_streams/{stream}/state")).json()
    assert (state["state"], state["last"], state["readers"]) == ("live", 1, 1)


# What is written


async def test_a_stream_has_the_line_that_it_has_over_sse(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """The same fields, and the same values but for its times, its id, and how many bytes frames are."""
    origin = await start_origin(streams(b"data: a\n\n", b"data: b\n\n"))
    routes = [{"name": "all", "path": "/{tail:.*}", "upstream": "origin", "websocket": "bridge"}]
    sidecar = await start_command("serve", write_config(tmp_path, origin.url, routes=routes))
    url = await sidecar.url()
    answer = await ask(url, "/api/chat?key=secret", method="POST", body=b'{"n":1}')
    await answer.rest()
    over_sse = await sidecar.logged("stream")
    socket = await connect(url, "/api/chat?key=secret")
    stream = await begin(socket, {"n": 1})
    await socket.hear_until("end")
    over_socket = await sidecar.logged("stream", 2)
    assert over_socket["stream"] == stream[:6]
    varying = ("timestamp", "stream", "first_event", "duration", "longest_gap", "bytes_out")
    for line in (over_sse, over_socket):
        for name in varying:
            del line[name]
    assert over_socket == over_sse


async def test_a_failed_start_is_told(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """What failed without a fault of the client's has a line, though nobody asked for lines of requests."""
    origin = await start_origin(streams())
    config = write_config(
        tmp_path,
        origin.url,
        upstreams={"origin": {"url": "http://127.0.0.1:1"}},
        routes=[{"name": "all", "path": "/{tail:.*}", "upstream": "origin", "websocket": "bridge"}],
    )
    sidecar = await start_command("serve", config)
    socket = await connect(await sidecar.url(), "/api/chat")
    await socket.say("nonsense")
    await refused(socket, "bad-frame")
    await socket.say({})
    await refused(socket, "upstream-unreachable")
    line = await sidecar.logged("request")
    assert (line["method"], line["path"], line["status"], line["route"]) == ("POST", "/api/chat", 502, "all")
    assert len(sidecar.log("request")) == 1


async def test_no_credential_is_ever_written(
    tmp_path: Path, start_origin: StartOrigin, start_command: StartCommand
) -> None:
    """No bearer, cookie, query, body or whole stream id: in no line of any level, and in no figure."""

    async def script(connection: Connection) -> None:
        if b"fail" in connection.body:
            await connection.send(response(status="500 Oops", body=b"no such key: bearer-2f9c"))
        else:
            await streams(b'data: {"t":"event-77aa"}\n\n')(connection)

    origin = await start_origin(script)
    config = write_config(
        tmp_path,
        origin.url,
        log={"level": "debug", "requests": True},
        routes=[{"name": "all", "path": "/{tail:.*}", "upstream": "origin", "websocket": "bridge"}],
    )
    sidecar = await start_command("serve", config)
    url, admin = await sidecar.url(), await sidecar.admin_url()
    headers = {
        "Sec-WebSocket-Protocol": "sse-sidecar.v1, bearer.bearer-2f9c",
        "Cookie": "session=cookie-93b1",
    }
    socket = await connect(url, "/api/chat?key=query-6e4d", headers)
    names = [await begin(socket, {"secret": "body-40a2"})]
    await socket.hear_until("end")
    await socket.say({"prompt": "fail body-40a2"})
    await refused(socket, "upstream-status")
    for said in (
        "nonsense body-40a2",
        {"type": "body-40a2"},
        {"type": "resume", "last_event_id": f"{names[0]}.99"},
        {"type": "cancel", "stream": "body-40a2"},
    ):
        await socket.say(said)
        assert (await socket.hear())["type"] == "error"
    await socket.send(2, b"body-40a2")
    await socket.send(1, b"\xffbody-40a2")
    figures = (await (await ask(admin, "/metrics")).body()) + (await (await ask(admin, "/streams")).body())
    sidecar.signal(signal.SIGTERM)
    assert await sidecar.ended() == 0
    written = sidecar.errors + sidecar.output + figures.decode()
    assert len(sidecar.log("stream")) == 1
    for secret in ("bearer-2f9c", "cookie-93b1", "query-6e4d", "body-40a2", "event-77aa", *names):
        assert secret not in written, [line for line in written.splitlines() if secret in line]
    assert "Traceback" not in sidecar.errors


# Bounds, and a configuration that changes


async def test_one_caller_cannot_have_all_sockets(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: a client that holds as many connections as there may be. Its own limit is told first."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(), limits={"websockets_per_caller": 2})
    first, _ = await connect(sidecar.url), await connect(sidecar.url)
    refused_one = await ask_upgrade(sidecar.url)
    assert (refused_one.status, refused_one.header("retry-after")) == (429, "5")
    assert (await refused_one.json())["type"].endswith(":too-many-websockets")
    await first.close()
    assert await first.ended()
    await eventually(lambda: len(sidecar.hub.sockets) == 1, "it has left")
    await connect(sidecar.url)


async def test_a_start_goes_by_the_configuration_of_its_moment(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A reload that takes the bridge away from a path takes it from open connections, too."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({"prompt": "x"})
    assert (await socket.hear_until("end"))[0]["type"] == "open"
    sidecar._apply(config_for(origin.url, route={"websocket": "off"}, listen=sidecar.config.listen))
    await socket.say({"prompt": "x"})
    told = await socket.hear()
    assert (told["type"], told["code"], told["status"]) == ("error", "no-route", 404)
    sidecar._apply(config_for(origin.url, route=bridge(), listen=sidecar.config.listen))
    await socket.say({"prompt": "x"})
    assert (await socket.hear_until("end"))[0]["type"] == "open"


async def test_a_flood_of_tiny_frames_leaves_others_their_turn(
    start_origin: StartOrigin, start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack: frames of 6 bytes, whose answers are read as fast as they come. In one turn of the loop a
    hundred or so are heard, and all of them in the end.
    """
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    heard: list[int] = []
    listen = Bridge._listen

    def counted(self: Bridge) -> None:
        before = len(obeyed)
        listen(self)
        heard.append(len(obeyed) - before)

    obeyed: list[object] = []
    receive = Bridge._receive

    def noted(self: Bridge, message: Message) -> None:
        obeyed.append(message)
        receive(self, message)

    monkeypatch.setattr(Bridge, "_listen", counted)
    monkeypatch.setattr(Bridge, "_receive", noted)
    flood = asyncio.ensure_future(socket.send_raw(frame(TEXT) * 20_000))
    for _ in range(20_000):
        assert (await socket.hear())["code"] == "bad-frame"
    await flood
    assert len(obeyed) == 20_000
    assert max(heard) <= HEARD_A_TURN + HEARD_AT_ONCE // 6 + 1
