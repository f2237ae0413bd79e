"""The handshake of a WebSocket that passes through: what each side gets of the other's, and every refusal."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.server.tunnel import Tunnel
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import ask, read_answer, send
from tests.support.origin import PATIENCE, Connection, Origin, Script, reply, response
from tests.support.process import free_port
from tests.support.script import in_turn
from tests.support.tunnel import (
    ONE_WAY_OF_HTTP,
    Join,
    Peer,
    accepts,
    came,
    heard,
    nothing_left,
    rest,
    switching,
)
from tests.support.websocket import (
    ACCEPT,
    BINARY,
    CLOSE,
    KEY,
    TEXT,
    Frame,
    Socket,
    ask_upgrade,
    closing,
    connect,
    frame,
    handshake,
)

pytestmark = ONE_WAY_OF_HTTP

ROUTE: dict[str, Any] = {"websocket": "passthrough"}


async def greet(client: Socket, upstream: Socket) -> None:
    """See that words arrive, both ways."""
    for one, other in ((client, upstream), (upstream, client)):
        await one.send(TEXT, b"hello")
        got = await other.frame()
        assert got is not None
        assert (got.opcode, got.payload) == (TEXT, b"hello")


# What the upstream gets


async def test_the_handshake_is_end_to_end(join: Join) -> None:
    """The key, extensions, subprotocols and whatever authenticates reach the upstream as they were."""
    fields = {
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits, x-other",
        "Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.sk-mine, bearer.mine",
        "Authorization": "Bearer mine",
        "Cookie": "session=1; theme=dark",
        "Origin": "https://app.example",
        "X-App": "ünïcode",
    }
    pair = await join(target="/v1/realtime?model=gpt%20x&empty=", headers=fields)
    request = pair.upstream.request
    assert (request.method, request.target) == ("GET", "/v1/realtime?model=gpt%20x&empty=")
    assert request.head.startswith(b"GET /v1/realtime?model=gpt%20x&empty= HTTP/1.1\r\nHost: ")
    assert request.header("sec-websocket-key") == KEY
    assert request.header("sec-websocket-version") == "13"
    assert request.header("upgrade") == "websocket"
    assert request.header("connection") == "Upgrade"
    for name, value in fields.items():
        assert (request.header(name) or "").encode("latin-1").decode() == value
    assert request.header("host") == pair.origin.url.removeprefix("http://")
    await greet(pair.client, pair.upstream)


async def test_forwarding_fields(join: Join) -> None:
    """The upstream hears from where and how the client came; what a stranger says of that is not believed."""
    pair = await join(headers={"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Host": "app.example"})
    request = pair.upstream.request
    assert request.header("x-forwarded-for") == "127.0.0.1"
    assert request.header("x-forwarded-host") == "app.example"
    assert request.header("x-forwarded-proto") == "http"
    assert request.header("x-real-ip") is None


async def test_fields_of_one_hop_do_not_pass(join: Join) -> None:
    """What ``Connection`` names belongs to this hop, as does a list of other protocols."""
    pair = await join(
        headers={
            "Connection": "keep-alive, Upgrade, X-Hop",
            "Upgrade": "WebSocket",
            "X-Hop": "1",
            "Keep-Alive": "timeout=5",
            "TE": "trailers",
            "Proxy-Authorization": "Basic eA==",
        }
    )
    request = pair.upstream.request
    assert (request.header("connection"), request.header("upgrade")) == ("Upgrade", "websocket")
    for name in ("x-hop", "keep-alive", "te", "proxy-authorization"):
        assert request.header(name) is None


async def test_a_prefix_is_taken_off_and_the_host_may_stay(join: Join) -> None:
    """``strip_prefix`` and ``host: client`` mean here what they mean anywhere."""
    pair = await join(
        target="/app/ws/a%2Fb?x=1",
        headers={"Host": "app.example:81"},
        route={"path": "/app/{tail:.*}", "strip_prefix": "/app", "host": "client"},
    )
    assert pair.upstream.request.target == "/ws/a%2Fb?x=1"
    assert pair.upstream.request.header("host") == "app.example:81"


def spending(url: str) -> dict[str, Any]:
    """Upstreams of which one gets our key."""
    return {"origin": {"url": url, "set_headers": {"Authorization": "Bearer ours"}}}


async def test_an_upstream_that_gets_our_key_gets_none_of_the_client_s(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Neither in fields, nor among the subprotocols; nor does it learn of the page and the address."""
    origin = await start_origin(
        accepts("Sec-WebSocket-Protocol: realtime", "Set-Cookie: theirs=1", "X-Id: 7")
    )
    sidecar = await start_sidecar(origin.url, route=ROUTE, upstreams=spending(origin.url))
    url = sidecar.url
    client = await connect(
        url,
        headers={
            "Authorization": "Bearer mine",
            "Cookie": "session=1",
            "Origin": url,
            "Referer": f"{url}/page",
            "X-Api-Key": "mine",
            "X-Forwarded-For": "1.2.3.4",
            "Sec-Fetch-Site": "same-origin",
            "Sec-WebSocket-Protocol": "realtime,openai-insecure-api-key.mine , bearer.mine, beta.v1",
        },
    )
    request = await origin.request()
    assert request.header("authorization") == "Bearer ours"
    assert request.header("sec-websocket-protocol") == "realtime, beta.v1"
    assert b"mine" not in request.head
    for name in (
        "cookie",
        "origin",
        "referer",
        "x-api-key",
        "x-forwarded-for",
        "x-forwarded-host",
        "sec-fetch-site",
    ):
        assert request.header(name) is None
    assert client.answer.header("sec-websocket-protocol") == "realtime"
    assert client.answer.header("set-cookie") is None
    assert client.answer.header("x-id") == "7"
    await greet(client, Peer(request))


async def test_a_list_of_nothing_but_credentials_leaves_no_field(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An empty Sec-WebSocket-Protocol would be malformed (RFC 6455 §11.3.4)."""
    origin = await start_origin(accepts())
    sidecar = await start_sidecar(origin.url, route=ROUTE, upstreams=spending(origin.url))
    await connect(sidecar.url, headers={"Sec-WebSocket-Protocol": "bearer.mine"})
    assert (await origin.request()).header("sec-websocket-protocol") is None


# What the client gets


async def test_the_upstream_s_101_comes_back(join: Join) -> None:
    """Its subprotocol, its extensions, its cookies; not what belongs to its own connection."""
    pair = await join(
        accepts(
            "Sec-WebSocket-Protocol: realtime",
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "Keep-Alive: timeout=5",
            "Content-Length: 5",
            "Server: theirs",
        ),
        headers={
            "Sec-WebSocket-Protocol": "realtime, other",
            "Sec-WebSocket-Extensions": "permessage-deflate",
        },
    )
    answer = pair.client.answer
    assert (answer.status, answer.reason) == (101, "Switching Protocols")
    assert answer.header("sec-websocket-protocol") == "realtime"
    assert answer.header("sec-websocket-extensions") == "permessage-deflate; server_no_context_takeover"
    assert answer.headers("set-cookie") == ["a=1", "b=2"]
    assert answer.header("server") == "theirs"
    assert (answer.header("upgrade"), answer.header("connection")) == ("websocket", "Upgrade")
    assert answer.header("keep-alive") is None
    assert answer.header("content-length") is None
    assert answer.header("transfer-encoding") is None


async def test_nothing_is_agreed_on_that_was_not(join: Join) -> None:
    """No extension, and no subprotocol, is added on the way."""
    pair = await join()
    answer = pair.client.answer
    assert answer.header("sec-websocket-protocol") is None
    assert answer.header("sec-websocket-extensions") is None
    assert pair.upstream.request.header("sec-websocket-extensions") is None


async def test_hints_before_the_101_pass(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A 103 is a client's to see, whatever follows."""

    async def script(request: Connection) -> None:
        await request.send(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.js>; rel=preload\r\n\r\n" + switching(request)
        )
        await asyncio.Event().wait()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    client = await connect(sidecar.url)
    assert client.answer.interim == [103]
    await greet(client, Peer(await origin.request()))


UPGRADE, CONNECTION = "Upgrade: websocket", "Connection: Upgrade"
RIGHT = f"Sec-WebSocket-Accept: {ACCEPT}"
WRONG = {
    "another key's": (UPGRADE, CONNECTION, "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "no Accept": (UPGRADE, CONNECTION),
    "no Upgrade": (CONNECTION, RIGHT),
    "another protocol": ("Upgrade: h2c", CONNECTION, RIGHT),
    "no Connection": (UPGRADE, RIGHT),
}


@pytest.mark.parametrize("fields", WRONG.values(), ids=WRONG)
async def test_a_101_that_is_none_is_a_502(
    fields: tuple[str, ...], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """RFC 6455 §4.1: without the right Accept, Upgrade and Connection the handshake has failed."""
    origin = await start_origin(
        reply("\r\n".join(["HTTP/1.1 101 Switching Protocols", *fields, "", ""]).encode())
    )
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    answer = await ask_upgrade(sidecar.url)
    assert answer.status == 502
    assert answer.header("content-type") == "application/problem+json"
    answer.close()
    await nothing_left(sidecar)


# A refusal

REFUSALS = {
    "401": response(
        "WWW-Authenticate: Bearer",
        "Content-Type: application/json",
        status="401 Unauthorized",
        body=b'{"error":1}',
    ),
    "404": response(status="404 Not Found"),
    "426": response("Sec-WebSocket-Version: 13, 8", status="426 Upgrade Required", body=b"later"),
    "429": response("Retry-After: 7", status="429 Too Many Requests"),
    "503": response("Retry-After: 3", status="503 Service Unavailable", body=b"busy"),
    "redirect": response("Location: https://elsewhere.example/ws", status="307 Temporary Redirect"),
    "200": response(body=b"<html>no websocket here</html>"),
    "chunked": b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nno, \r\n2\r\nno\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("raw", REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_answered_as_the_http_that_it_is(
    raw: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Status, fields and body; then both connections serve the next request."""
    origin = await start_origin(in_turn(reply(raw), reply(response(body=b"second")), accepts()))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    reader, writer = await send(sidecar.url, handshake(sidecar.url, "/ws"))
    answer = await read_answer(reader, writer)
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    assert f"HTTP/1.1 {answer.status} {answer.reason}" == status
    for name, _, value in (line.partition(": ") for line in lines):
        assert answer.header(name) == value
    assert await answer.body() == (b"no, no" if b"chunked" in head else body)
    writer.write(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await read_answer(reader, writer)
    assert await answer.body() == b"second"
    writer.write(handshake(sidecar.url, "/ws"))
    answer = await read_answer(reader, writer, upgrade=True)
    assert answer.status == 101
    await greet(Socket(answer), Peer(await origin.request(3)))
    assert len({request.writer for request in origin.requests}) == 1


async def test_what_came_behind_a_refused_handshake_is_no_request(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A frame that a hasty client has sent is not taken for HTTP that would go upstream."""
    origin = await start_origin(reply(response(status="403 Forbidden")))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    hasty = frame(TEXT, b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n", masked=False)
    answer = await ask_upgrade(sidecar.url, early=hasty)
    assert answer.status == 403
    reader = answer.reader
    async with asyncio.timeout(PATIENCE):
        more = await reader.read()
    assert not more or b" 400 " in more[:20]
    assert len(origin.requests) == 1


# An upstream that does not answer


async def test_nobody_there(start_sidecar: StartSidecar) -> None:
    """502, at once."""
    sidecar = await start_sidecar(f"http://127.0.0.1:{free_port()}", route=ROUTE)
    answer = await ask_upgrade(sidecar.url)
    assert (answer.status, (await answer.json())["type"].rpartition(":")[2]) == (502, "upstream-unreachable")


async def test_no_answer_in_time(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """504 after ``timeouts.first_byte``."""
    origin = await start_origin(lambda request: request.gone())
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "timeouts": {"first_byte": "100ms"}})
    answer = await ask_upgrade(sidecar.url)
    assert answer.status == 504


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 101 Switching", b"\x88\x00 what?\r\n\r\n"], ids=["nothing", "half", "no HTTP"]
)
async def test_a_broken_answer(said: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """502, and the client's connection is still good."""
    origin = await start_origin(reply(said, close=True))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    answer = await ask_upgrade(sidecar.url)
    assert answer.status == 502
    await answer.body()
    answer.writer.write(handshake(sidecar.url, "/again"))
    assert (await read_answer(answer.reader, answer.writer)).status == 502


async def test_a_client_that_leaves_before_the_answer(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The upstream's connection is closed as well, and nothing is left."""
    origin = await start_origin(lambda request: request.gone())
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    _, writer = await send(sidecar.url, handshake(sidecar.url, "/"))
    request = await origin.request()
    assert len(sidecar.hub.sockets) == 1
    writer.close()
    await asyncio.wait_for(request.peer_closed.wait(), PATIENCE)
    await nothing_left(sidecar)


async def test_a_dead_pooled_connection_is_met_by_another(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A handshake has no effects: it may be sent again where the pool's connection had just ended."""

    async def script(request: Connection) -> None:
        if request.target == "/first":
            await request.send(response())
        elif request.writer is origin.requests[0].writer:
            await request.close()
        else:
            await accepts()(request)

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    await (await ask(sidecar.url, "/first")).body()
    client = await connect(sidecar.url, "/ws")
    assert [request.target for request in origin.requests] == ["/first", "/ws", "/ws"]
    await greet(client, Peer(origin.requests[2]))


async def test_a_server_that_is_down_is_passed_by(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Of several servers the one that answers is joined, each time."""
    origin = await start_origin(accepts())
    urls = [f"http://127.0.0.1:{free_port()}", origin.url]
    sidecar = await start_sidecar(origin.url, route=ROUTE, upstreams={"origin": {"urls": urls}})
    for number in range(1, 5):
        await greet(await connect(sidecar.url), Peer(await origin.request(number)))


async def test_least_streams_counts_tunnels(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Those that are open count as streams do: two servers have two each."""
    origins = [await start_origin(accepts()) for _ in range(2)]
    upstreams = {"origin": {"urls": [origin.url for origin in origins], "balance": "least_streams"}}
    sidecar = await start_sidecar(origins[0].url, route=ROUTE, upstreams=upstreams)
    for _ in range(4):
        await connect(sidecar.url)
    assert [len(origin.requests) for origin in origins] == [2, 2]


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    """Who vouches for localhost."""
    return trustme.CA()


class TlsOrigin(Origin):
    """An origin behind TLS."""

    def __init__(self, script: Script, authority: trustme.CA) -> None:
        super().__init__(script)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(self._context)

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24, ssl=self._context)


async def secured(authority: trustme.CA, directory: Path, start_sidecar: StartSidecar, script: Script) -> Any:
    """Start an origin and a sidecar that both speak TLS."""
    origin = TlsOrigin(script, authority)
    await origin.start()
    certificate = authority.issue_cert("localhost")
    chain, key, trusted = (directory / name for name in ("chain.pem", "key.pem", "authority.pem"))
    certificate.private_key_pem.write_to_path(key)
    for part in certificate.cert_chain_pems:
        part.write_to_path(chain, append=True)
    authority.cert_pem.write_to_path(trusted)
    upstreams = {"origin": {"url": f"https://localhost:{origin.port}", "tls_ca": str(trusted)}}
    sidecar = await start_sidecar(
        "", route=ROUTE, upstreams=upstreams, tls={"cert": str(chain), "key": str(key)}
    )
    return origin, sidecar


async def connect_tls(authority: trustme.CA, url: str, early: bytes = b"") -> Socket:
    """Open a WebSocket over TLS."""
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust, server_hostname="localhost", limit=2**24
    )
    writer.write(handshake(url, "/") + early)
    answer = await read_answer(reader, writer, upgrade=True)
    assert answer.status == 101
    return Socket(answer)


async def test_tls_on_both_sides(authority: trustme.CA, tmp_path: Path, start_sidecar: StartSidecar) -> None:
    """Large messages both ways, what came early, and a close with its answer."""
    early = frame(TEXT, b"early")
    said = frame(TEXT, b"welcome", masked=False)
    origin, sidecar = await secured(authority, tmp_path, start_sidecar, accepts(early=said))
    try:
        client = await connect_tls(authority, sidecar.url, early)
        upstream = Peer(await origin.request())
        assert upstream.request.header("x-forwarded-proto") == "https"
        assert await came(client, len(said)) == said
        assert await came(upstream, len(early)) == early
        big = bytes(range(256)) * 32768
        for one, other, masked in ((client, upstream, True), (upstream, client, False)):
            sent = frame(BINARY, big, masked=masked)
            one.answer.writer.write(sent)
            assert await came(other, len(sent)) == sent
        await client.send(CLOSE, closing(4000, "done"))
        assert await upstream.frame() == Frame(CLOSE, closing(4000, "done"), masked=True)
        await upstream.send(CLOSE, closing(4000, "done"))
        assert await client.frame() == Frame(CLOSE, closing(4000, "done"))
        upstream.answer.close()
        assert await client.ended()
        client.answer.close()
        await nothing_left(sidecar)
    finally:
        await origin.stop()
    assert not origin.errors


@pytest.mark.parametrize("size", [0, 20, 300_000])
async def test_an_upstream_behind_tls_that_leaves_behind_its_101(
    size: int, authority: trustme.CA, tmp_path: Path, start_sidecar: StartSidecar
) -> None:
    """The handshake, a message, its close and TLS's own end may all come in one read."""
    words = (
        frame(BINARY, bytes(size), masked=False) + frame(CLOSE, closing(1000), masked=False) if size else b""
    )
    origin, sidecar = await secured(authority, tmp_path, start_sidecar, accepts(early=words, leaves=True))
    told = heard(sidecar)
    try:
        for _ in range(5):
            client = await connect_tls(authority, sidecar.url)
            assert await rest(client) == words
            client.answer.close()
        await nothing_left(sidecar)
        assert {line.cause for line in told} == {"closed" if words else "lost"}
    finally:
        await origin.stop()


# What is no handshake


@pytest.mark.parametrize(
    "raw",
    [
        handshake("http://x", "/").replace(b"HTTP/1.1", b"HTTP/1.0"),
        handshake("http://x", "/")
        .replace(b"GET", b"POST")
        .replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
        handshake("http://x", "/", {"Upgrade": "h2c"}),
        handshake("http://x", "/", {"Connection": "keep-alive"}),
        handshake("http://x", "/", {"Upgrade": None}),
    ],
    ids=["HTTP/1.0", "POST", "h2c", "no Connection", "no Upgrade"],
)
async def test_what_asks_for_no_websocket_is_an_ordinary_request(
    raw: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It goes upstream without the offer to switch, and the answer is the upstream's."""
    origin = await start_origin(reply(response(body=b"plain")))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    answer = await read_answer(*await send(sidecar.url, raw))
    assert (answer.status, await answer.body()) == (200, b"plain")
    assert origin.requests[0].header("upgrade") is None
    assert origin.requests[0].header("connection") is None


async def test_a_route_without_websockets(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """``websocket: off``, the default: a handshake is a GET like any other, and a 101 to it is a fault."""
    origin = await start_origin(in_turn(reply(response(body=b"plain")), accepts()))
    sidecar = await start_sidecar(origin.url)
    answer = await ask_upgrade(sidecar.url)
    assert (answer.status, await answer.body()) == (200, b"plain")
    assert origin.requests[0].header("upgrade") is None
    assert (await ask_upgrade(sidecar.url)).status == 502


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
        ({"Sec-WebSocket-Key": "not base64 at all!!!!!!="}, 400),
    ],
)
async def test_a_malformed_handshake_goes_nowhere(
    headers: dict[str, str | None], status: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It is answered here; 426 names the version that is spoken (RFC 6455 §4.4)."""
    origin = await start_origin(accepts())
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    answer = await ask_upgrade(sidecar.url, headers=headers)
    assert answer.status == status
    assert answer.header("sec-websocket-version") == ("13" if status == 426 else None)
    assert not origin.requests


async def test_a_handshake_has_no_body(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """One that brings some is refused: what of it would be frames?"""
    origin = await start_origin(accepts())
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    answer = await ask_upgrade(sidecar.url, headers={"Content-Length": "5"}, early=b"hello")
    assert answer.status == 400
    assert not origin.requests


async def test_a_fault_behind_the_101_is_not_told_in_http(
    start_origin: StartOrigin, start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 500 in the place of frames would be worse than the end of the connection."""

    def fail(*_: object) -> None:
        raise ConnectionResetError("made up")

    monkeypatch.setattr(Tunnel, "_open", fail)
    origin = await start_origin(accepts())
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    answer = await ask_upgrade(sidecar.url)
    assert answer.status == 101
    assert await rest(Socket(answer)) == b""
    await nothing_left(sidecar)


# Who may


async def test_limits_websockets(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """One more than the limit is 503 with Retry-After, until one has left."""
    origin = await start_origin(accepts())
    sidecar = await start_sidecar(origin.url, route=ROUTE, limits={"websockets": 2})
    first, _ = [await connect(sidecar.url) for _ in range(2)]
    refused = await ask_upgrade(sidecar.url)
    assert refused.status == 503
    assert refused.header("retry-after")
    assert len(origin.requests) == 2
    first.abort()
    await eventually(lambda: len(sidecar.hub.sockets) == 1)
    await connect(sidecar.url)


@pytest.mark.parametrize(
    "attack",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "rebound.evil.example", "Origin": "http://rebound.evil.example"},
    ],
)
async def test_no_foreign_page_spends_the_key(
    attack: dict[str, str | None], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A WebSocket is a request without CORS: only the guard can refuse it."""
    origin = await start_origin(accepts())
    sidecar = await start_sidecar(origin.url, route=ROUTE, upstreams=spending(origin.url))
    answer = await ask_upgrade(sidecar.url, headers=attack)
    assert answer.status == 403
    assert not origin.requests


async def test_listed_origins(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Where a route lists some, no other page may; a program, which names none, may."""
    origin = await start_origin(accepts())
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "origins": ["https://app.example"]})
    for page, status in (
        ("https://app.example", 101),
        (sidecar.url, 101),
        (None, 101),
        ("https://evil.example", 403),
        ("null", 403),
    ):
        assert (await ask_upgrade(sidecar.url, headers={"Origin": page})).status == status


async def test_without_a_list_the_app_judges(join: Join) -> None:
    """An app behind a pass-through sees the Origin, cookies or not."""
    pair = await join(headers={"Origin": "https://evil.example", "Cookie": "session=1"})
    assert pair.upstream.request.header("origin") == "https://evil.example"


# What is told of it


def sample(sidecar: Any, name: str, **labels: str) -> float | None:
    """A metric of the only route, as a scrape would see it."""
    value: float | None = sidecar.telemetry.registry.get_sample_value(name, {"route": "all", **labels})
    return value


async def test_metrics(join: Join) -> None:
    """Messages and bytes by direction, while it is open; how it ended, afterwards; and the request itself."""
    pair = await join(target="/ws?secret=1")
    assert sample(pair.sidecar, "sidecar_websockets") == 1
    for size in (0, 10, 70_000):
        await pair.client.send(BINARY, bytes(size))
        assert await pair.upstream.frame() is not None
    fragments = frame(TEXT, b"ab", fin=False, masked=False) + frame(9, b"?", masked=False)
    await pair.upstream.send_raw(fragments + frame(0, b"c", masked=False))
    await came(pair.client, 4 + 3 + 3)
    for _ in range(2):  # a second scrape counts nothing twice
        assert sample(pair.sidecar, "sidecar_websocket_messages_total", direction="to_upstream") == 3
        assert sample(pair.sidecar, "sidecar_websocket_bytes_total", direction="to_upstream") == 70_010
        assert sample(pair.sidecar, "sidecar_websocket_messages_total", direction="to_client") == 1
        assert sample(pair.sidecar, "sidecar_websocket_bytes_total", direction="to_client") == 3
    await pair.client.send(CLOSE, closing(4999))
    assert await pair.upstream.frame() is not None
    pair.upstream.answer.close()
    line = await pair.end()
    assert (line.path, line.client, line.route, line.upstream) == ("/ws", "127.0.0.1", "all", "origin")
    assert (line.cause, line.by, line.code) == ("closed", "client", 4999)
    assert (line.messages_to_upstream, line.bytes_to_upstream) == (3, 70_010)
    assert (line.messages_to_client, line.bytes_to_client) == (1, 3)
    ended = {"cause": "closed", "by": "client", "code": "other"}
    assert sample(pair.sidecar, "sidecar_websockets_ended_total", **ended) == 1
    await eventually(lambda: sample(pair.sidecar, "sidecar_requests_total", method="GET", status="101") == 1)
    assert sample(pair.sidecar, "sidecar_websockets") == 0
    assert sample(pair.sidecar, "sidecar_websocket_messages_total", direction="to_upstream") == 3
