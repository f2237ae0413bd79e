"""Plain traffic over real sockets: what is no stream passes as it is, both ways, piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import struct

import pytest

from tests.conftest import StartOrigin, StartSidecar, at_rest, eventually, unsent
from tests.support.client import Truncated, ask, read_answer, send
from tests.support.origin import PATIENCE, Connection, Origin, reply, response
from tests.support.process import free_port

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def fields(head: bytes) -> list[tuple[str, str]]:
    """The header lines of a request's head, names in lower case, in their order."""
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]


# Methods and bodies


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE", "M-SEARCH"]
)
async def test_every_method_passes(
    method: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The method reaches the upstream, those of WebDAV and caches too."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/thing", method=method)
    assert answer.status == 200
    assert (origin.requests[0].method, origin.requests[0].target) == (method, "/thing")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")],
    ids=["length", "chunked"],
)
async def test_request_bodies_pass_however_they_are_framed(
    method: str, framing: str, body: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A body arrives whole, framed once: by its length if the client named one, else in chunks."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    name, _, value = framing.partition(": ")
    answer = await ask(sidecar.url, method=method, headers={name: value}, body=body)
    request = origin.requests[0]
    assert (answer.status, request.body) == (200, b"hello")
    framed = {name for name in request.headers if name in ("content-length", "transfer-encoding")}
    assert framed == {name.lower()}


@pytest.mark.parametrize(
    ("head", "first", "last"),
    [
        (CHUNKED, b"5\r\nfirst\r\n", b"4\r\nlast\r\n0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"first", b"last"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"first", b"last"),
    ],
    ids=["chunked", "length", "until-close"],
)
async def test_a_response_streams(
    head: bytes, first: bytes, last: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The first bytes of a response reach the client while the upstream still holds the rest."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(head + first)
        await release.wait()
        await connection.send(last)
        await connection.close()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert await answer.until(b"first") == b"first"
    release.set()
    assert await answer.rest() == b"last"


@pytest.mark.parametrize(
    ("framing", "first", "last"),
    [
        (b"Transfer-Encoding: chunked", b"5\r\nfirst\r\n", b"4\r\nlast\r\n0\r\n\r\n"),
        (b"Content-Length: 9", b"first", b"last"),
    ],
    ids=["chunked", "length"],
)
async def test_an_upload_streams(
    framing: bytes, first: bytes, last: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The first bytes of an upload reach the upstream while the client still holds the rest."""
    arrived = asyncio.Event()

    async def script(connection: Connection) -> None:
        assert await connection.reader.readexactly(len(first)) == first
        arrived.set()
        assert await connection.reader.readexactly(len(last)) == last
        await connection.send(response())

    origin = await start_origin(script, whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(sidecar.url, b"PUT / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + first)
    await asyncio.wait_for(arrived.wait(), PATIENCE)
    writer.write(last)
    assert (await read_answer(reader, writer, "PUT")).status == 200


async def test_the_head_of_an_upload_does_not_wait_for_its_body(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The upstream hears of a request, and may answer it, while the client has sent no byte of its body."""
    origin = await start_origin(reply(CHUNKED + b"5\r\nready\r\n"), whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="POST", headers={"Transfer-Encoding": "chunked"})
    assert await answer.until(b"ready") == b"ready"


async def test_an_upstream_may_answer_before_the_upload_has_ended(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An early refusal reaches a client that is still uploading."""
    origin = await start_origin(reply(response(status="401 Unauthorized"), close=True), whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="POST", headers={"Content-Length": "100"}, body=b"only the start")
    assert answer.status == 401


async def test_a_download_waits_for_its_client(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A client that reads nothing stops the upstream, so that no size is ever held whole."""
    piece, pieces = bytes(256 * 1024), 160  # 40 MiB
    sent = 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.send(CHUNKED)
        for sent in range(1, pieces + 1):  # noqa: B007  # the test watches it
            await connection.chunk(piece)
        await connection.end()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    answer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport
    await origin.request()
    assert await at_rest(lambda: sent) < pieces
    answer.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a socket's transport
    total = 0
    while data := await answer.chunk():
        total += len(data)
    assert total == pieces * len(piece)


async def test_an_upload_waits_for_its_upstream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An upstream that reads nothing stops the client, so that no size is ever held whole."""
    size = 40 * 1024 * 1024
    go = asyncio.Event()

    async def script(connection: Connection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport
        await go.wait()
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a socket's transport
        assert len(await connection.reader.readexactly(size)) == size
        await connection.send(response())

    origin = await start_origin(script, whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(
        sidecar.url, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    )
    await origin.request()
    writer.write(bytes(size))
    assert await at_rest(writer.transport.get_write_buffer_size) > size / 2
    go.set()
    assert (await read_answer(reader, writer, "POST")).status == 200


# Answers without a body


@pytest.mark.parametrize(
    ("method", "raw", "length"),
    [
        ("GET", b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", None),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nX: 1\r\nETag: "a"\r\n\r\n', None),
        ("HEAD", b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 12345\r\n\r\n", "12345"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\nX: 1\r\nContent-Length: 9\r\n\r\n", "9"),
    ],
    ids=["204", "304", "HEAD", "HEAD-chunked", "HEAD-404"],
)
async def test_answers_without_a_body_leave_the_connection_usable(
    method: str, raw: bytes, length: str | None, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """204, 304 and HEAD pass with their header and no byte of a body; the next answer is the next one's."""
    origin = await start_origin(reply(raw))
    sidecar = await start_sidecar(origin.url)
    request = f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    reader, writer = await send(sidecar.url, request)
    for _ in range(2):
        answer = await read_answer(reader, writer, method)
        assert (answer.status, answer.header("x")) == (int(raw.split()[1]), "1")
        assert answer.header("content-length") == length
        assert answer.header("transfer-encoding") is None
        writer.write(request)


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"


async def test_early_hints_pass_before_the_answer(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A 103 reaches the client while the upstream still works on its answer, hop-by-hop fields removed."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS)
        await release.wait()
        await connection.send(response(body=b"page"))

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(sidecar.url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    assert head == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    release.set()
    answer = await read_answer(reader, writer)
    assert (answer.status, await answer.body()) == (200, b"page")


async def test_early_hints_are_not_for_http_1_0(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """RFC 9110 §15.2: "A server MUST NOT send a 1xx response to an HTTP/1.0 client"."""
    origin = await start_origin(reply(HINTS + response(body=b"page")))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, version="HTTP/1.0")
    assert (answer.interim, answer.status) == ([], 200)


async def test_an_upstream_cannot_switch_protocols_unasked(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A 101 to a request that asked for nothing would hand the connection over to bytes of any kind."""
    origin = await start_origin(
        reply(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    )
    sidecar = await start_sidecar(origin.url)
    assert (await ask(sidecar.url)).status == 502


# Header fields


async def test_ranges_pass(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A partial answer is partial for the client too."""
    partial = response(
        "Content-Range: bytes 2-4/9", "Accept-Ranges: bytes", status="206 Partial Content", body=b"cde"
    )
    origin = await start_origin(reply(partial))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, headers={"Range": "bytes=2-4", "If-Range": '"a"'})
    assert origin.requests[0].header("range") == "bytes=2-4"
    assert origin.requests[0].header("if-range") == '"a"'
    assert (answer.status, answer.header("content-range")) == (206, "bytes 2-4/9")
    assert await answer.body() == b"cde"


async def test_trailers_are_dropped_both_ways(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Trailers end at the sidecar: nothing downstream asked for them, and a field in one could mislead."""
    bodies: list[bytes] = []

    async def script(connection: Connection) -> None:
        bodies.append(await connection.reader.readuntil(b"0\r\n\r\n"))
        await connection.send(CHUNKED[:-2] + b"Trailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")

    origin = await start_origin(script, whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(
        sidecar.url,
        b"POST / HTTP/1.1\r\nHost: x\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n",
    )
    answer = await read_answer(reader, writer, "POST")
    assert bodies == [b"2\r\nhi\r\n0\r\n\r\n"]
    assert "trailer" not in origin.requests[0].headers
    assert answer.header("trailer") is None
    assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), PATIENCE) == b"2\r\nok\r\n0\r\n\r\n"


async def test_repeated_fields_keep_their_order_both_ways(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Several cookies, links and other fields arrive as often as they were sent, in their order."""
    cookies = [
        "Set-Cookie: a=1; Path=/",
        "Set-Cookie: b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
        "Set-Cookie: a=3",
    ]
    origin = await start_origin(reply(response(*cookies, "Vary: A", "X: 1", "Vary: B")))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(
        sidecar.url, headers=[("X-A", "1"), ("Cookie", "a=1; b=2"), ("X-A", "2"), ("x-a", "3")]
    )
    assert [value for name, value in fields(origin.requests[0].head) if name == "x-a"] == ["1", "2", "3"]
    assert origin.requests[0].header("cookie") == "a=1; b=2"
    assert answer.headers("set-cookie") == [cookie.removeprefix("Set-Cookie: ") for cookie in cookies]
    assert answer.headers("vary") == ["A", "B"]


@pytest.mark.parametrize(
    "value", [b"caf\xe9", "café €".encode(), b"\xff\xfe mixed \xc3\xa9"], ids=["latin-1", "utf-8", "neither"]
)
async def test_bytes_of_any_charset_pass_in_fields(
    value: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Field values are bytes: latin-1, UTF-8 or neither leaves as it came, in both directions."""
    origin = await start_origin(
        reply(b"HTTP/1.1 200 Tr\xe8s bien\r\nX-Name: %b\r\nContent-Length: 0\r\n\r\n" % value)
    )
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(sidecar.url, b"GET / HTTP/1.1\r\nHost: x\r\nX-Name: %b\r\n\r\n" % value)
    answer = await read_answer(reader, writer)
    assert b"\r\nX-Name: %b\r\n" % value in origin.requests[0].head
    assert (answer.header("x-name") or "").encode("latin-1") == value
    assert answer.reason.encode("latin-1") == b"Tr\xe8s bien"


HOP_BY_HOP = [
    "Keep-Alive: timeout=5",
    "Proxy-Authenticate: Basic",
    "Proxy-Authorization: Basic x",
    "Proxy-Connection: keep-alive",
    "TE: trailers",
    "Trailer: X-Sum",
    "Upgrade: foo/2",
    "HTTP2-Settings: AAA",
    "Connection: keep-alive, X-Mine, x-other",
    "Connection: x-third",
    "X-Mine: 1",
    "X-Other: 1",
    "X-Third: 1",
]
GONE = {line.partition(":")[0].lower() for line in HOP_BY_HOP}


async def test_hop_by_hop_fields_end_here_both_ways(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """RFC 9110 §7.6.1: what Connection names, and what speaks to the next hop only, is not passed on."""
    origin = await start_origin(reply(response(*HOP_BY_HOP, "X-Kept: 1")))
    sidecar = await start_sidecar(origin.url)
    sent = [(name, value) for name, _, value in (line.partition(": ") for line in HOP_BY_HOP)]
    answer = await ask(sidecar.url, headers=[*sent, ("X-Kept", "1")])
    assert not GONE & origin.requests[0].headers.keys()
    assert not GONE & {name.lower() for name, _ in answer.raw_headers}
    assert (origin.requests[0].header("x-kept"), answer.header("x-kept")) == ("1", "1")


async def test_connection_cannot_name_what_frames_or_addresses_a_message(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: nominate Host, Content-Length or the proxy's own word on the client, to strip it."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"host": "client"})
    await ask(
        sidecar.url,
        method="POST",
        headers={"Host": "here", "Connection": "host, content-length, x-forwarded-for, close"},
        body=b"hello",
    )
    request = origin.requests[0]
    assert (request.header("host"), request.body) == ("here", b"hello")
    assert request.header("x-forwarded-for") == "127.0.0.1"


async def test_nothing_is_invented(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A request gets no field but the forwarding ones, an answer none but a date."""
    origin = await start_origin(reply(response(body=b"untyped")))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="POST", headers={"Host": "here"}, body=b"untyped")
    forwarded = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
    assert origin.requests[0].headers.keys() == {"host", "content-length", *forwarded}
    assert {name.lower() for name, _ in answer.raw_headers} == {"content-length", "date"}


async def test_what_the_upstream_says_of_itself_passes(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Server, Date and the reason phrase are the upstream's."""
    origin = await start_origin(
        reply(response("Server: app/1", "Date: Thu, 01 Jan 1970 00:00:00 GMT", status="299 Quite Fine"))
    )
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert (answer.status, answer.reason) == (299, "Quite Fine")
    assert answer.headers("server") == ["app/1"]
    assert answer.headers("date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_the_clients_to_follow(
    status: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: an upstream that redirects into the network in which the sidecar stands."""
    origin = await start_origin(reply(response("Location: /elsewhere", status=f"{status} Moved")))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="POST", body=b"x")
    assert (answer.status, answer.header("location")) == (status, "/elsewhere")
    assert len(origin.requests) == 1


async def test_compressed_bodies_pass_as_they_are(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Neither a request's nor a response's coding is undone, and the client's wish is passed on."""
    packed = gzip.compress(b"hello" * 100)
    origin = await start_origin(reply(response("Content-Encoding: gzip", body=packed)))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(
        sidecar.url,
        method="POST",
        headers={"Content-Encoding": "gzip", "Accept-Encoding": "gzip, zstd"},
        body=packed,
    )
    request = origin.requests[0]
    assert (request.body, request.header("content-encoding")) == (packed, "gzip")
    assert request.header("accept-encoding") == "gzip, zstd"
    assert (await answer.body(), answer.header("content-encoding")) == (packed, "gzip")


# Targets


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb%20c?x=%41&&y=",
        "/a?",
        "/?",
        "/a?b?c",
        "/%41%zz%",
        "//double//slash/",
        "/a;b=c,d:e@f!$'()*+=",
        "/?q=a+b%2Bc&q=a&redirect=http://x/?y",
        "/a/?x=/../y",
        "/~user/%7Euser",
    ],
)
async def test_targets_pass_to_the_letter(
    target: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Nothing in a path or query is decoded, encoded, merged or dropped."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    assert (await ask(sidecar.url, target)).status == 200
    assert origin.requests[0].target == target


@pytest.mark.parametrize(
    ("base", "strip", "asked", "sent"),
    [
        ("", "/api", "/api/users?x=1", "/users?x=1"),
        ("", "/api", "/api/", "/"),
        ("", "/api", "/%61pi/users", "/users"),
        ("", "/api", "/api//users", "//users"),
        ("", "/api", "/api/@evil.example/", "/@evil.example/"),
        ("/base/path", "", "/api/users?x", "/base/path/api/users?x"),
        ("/base/", "/api", "/api/?", "/base/?"),
        ("/b%20se", "/api", "/api/%41", "/b%20se/%41"),
    ],
)
async def test_prefixes_come_off_and_base_paths_go_on(
    base: str, strip: str, asked: str, sent: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``strip_prefix`` takes whole leading segments away, an upstream's own path is put in front."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(
        origin.url + base, route={"path": "/api/{tail:.*}", **({"strip_prefix": strip} if strip else {})}
    )
    assert (await ask(sidecar.url, asked)).status == 200
    assert origin.requests[0].target == sent


@pytest.mark.parametrize(("policy", "host"), [("client", "shop.example:8443"), ("upstream", None)])
async def test_whose_host_goes_upstream_is_the_routes_choice(
    policy: str, host: str | None, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """By default the upstream sees its own name; ``host: client`` hands on the client's."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"host": policy})
    await ask(sidecar.url, headers={"Host": "shop.example:8443"})
    assert origin.requests[0].header("host") == (host or f"127.0.0.1:{origin.port}")
    assert origin.requests[0].header("x-forwarded-host") == "shop.example:8443"


# Expect: 100-continue


async def test_the_body_is_asked_for_when_the_upstream_takes_it(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``100 Continue`` is sent once somebody wants the body, and the upstream is not asked to expect it."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(
        sidecar.url, b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    async with asyncio.timeout(PATIENCE):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert (await read_answer(reader, writer, "PUT")).status == 200
    assert origin.requests[0].body == b"hello"
    assert origin.requests[0].header("expect") is None


@pytest.mark.parametrize(
    ("target", "extra", "status"),
    [
        ("/nowhere", "", 404),
        ("/small", "", 413),
        ("/read-only", "", 405),
        ("/ours", "Origin: http://evil.example\r\n", 403),
        ("/down", "", 502),
    ],
)
async def test_a_refused_request_is_never_asked_for_its_body(
    target: str, extra: str, status: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A refusal that needs no body is the first thing that a client with Expect hears."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(
        origin.url,
        upstreams={
            "origin": {"url": origin.url},
            "ours": {"url": origin.url, "set_headers": {"Authorization": "Bearer x"}},
            "down": {"url": f"http://127.0.0.1:{free_port()}"},
        },
        routes=[
            {"name": "small", "path": "/small", "upstream": "origin", "max_body": 10},
            {"name": "read-only", "path": "/read-only", "upstream": "origin", "methods": ["GET"]},
            {"name": "ours", "path": "/ours", "upstream": "ours"},
            {"name": "down", "path": "/down", "upstream": "down"},
        ],
    )
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    reader, writer = await send(sidecar.url, head.encode())
    answer = await read_answer(reader, writer, "POST")
    assert (answer.interim, answer.status) == ([], status)
    assert not origin.requests


async def test_other_expectations_fail(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """RFC 9110 §10.1.1: what cannot be met is answered 417."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="POST", headers={"Expect": "a-miracle"}, body=b"x")
    assert answer.status == 417


async def test_http_1_0_is_never_told_to_continue(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """RFC 9110 §10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST
    ignore that expectation".
    """
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    answer = await ask(
        sidecar.url, method="POST", headers={"Expect": "100-continue"}, body=b"x", version="HTTP/1.0"
    )
    assert (answer.interim, answer.status) == ([], 200)


# Ends that come too early


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst",
        CHUNKED + b"5\r\nfirst\r\n",
        CHUNKED + b"9\r\nfirst",
    ],
    ids=["length", "chunked", "in a chunk"],
)
async def test_an_upstream_that_breaks_off_is_no_whole_answer(
    raw: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A body that ends too early ends too early for the client as well: never with a clean last chunk."""
    origin = await start_origin(reply(raw, close=True))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert await answer.until(b"first") == b"first"
    with pytest.raises(Truncated):
        await answer.body()


async def test_a_body_in_broken_chunks_is_no_whole_answer(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Garbage where a chunk's size should stand ends the answer as a lost connection does."""
    seen = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED + b"5\r\nfirst\r\n")
        await seen.wait()
        await connection.send(b"garbage\r\n")
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert await answer.until(b"first") == b"first"
    seen.set()
    with pytest.raises(Truncated):
        await answer.body()


async def test_a_reset_is_no_clean_end(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A body that lasts until its connection closes is not whole where the connection was reset."""
    seen = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        await seen.wait()
        at_once = struct.pack("ii", 1, 0)  # RST instead of FIN
        connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        connection.writer.transport.abort()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert await answer.until(b"first") == b"first"
    seen.set()
    with pytest.raises(Truncated):
        await answer.body()


async def test_bytes_after_an_answer_are_nobodys(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: an upstream that sends a second response, for whoever asks next on that connection."""
    evil = response("X: evil", body=b"evil")
    origin = await start_origin(reply(response(body=b"good") + evil))
    sidecar = await start_sidecar(origin.url)
    for number in (1, 2):
        answer = await ask(sidecar.url)
        assert (await answer.body(), answer.header("x")) == (b"good", None)
        assert len(origin.requests) == number


async def test_a_client_that_leaves_before_the_answer_closes_the_upstream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Nobody works for a client that is gone."""
    origin = await start_origin(lambda connection: connection.gone())
    sidecar = await start_sidecar(origin.url)
    _, writer = await send(sidecar.url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection = await origin.request()
    writer.transport.abort()
    await asyncio.wait_for(connection.peer_closed.wait(), PATIENCE)
    await eventually(lambda: not sidecar.gateway.in_flight)


async def test_a_client_that_leaves_within_the_answer_closes_the_upstream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Half an answer is the same: the upstream's connection is closed, not drained."""

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED + b"5\r\nfirst\r\n")
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert await answer.until(b"first") == b"first"
    answer.abort()
    connection = await origin.request()
    await asyncio.wait_for(connection.peer_closed.wait(), PATIENCE)


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
async def test_half_an_upload_never_looks_whole(
    framing: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A client that leaves within its upload leaves the upstream without a last chunk."""
    received = bytearray()

    async def script(connection: Connection) -> None:
        while data := await connection.reader.read(1000):
            received.extend(data)
        connection.peer_closed.set()

    origin = await start_origin(script, whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    first = b"first" if b"Length" in framing else b"5\r\nfirst\r\n"
    _, writer = await send(sidecar.url, b"PUT / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + first)
    connection = await origin.request()
    await eventually(lambda: b"first" in received)
    writer.transport.abort()
    await asyncio.wait_for(connection.peer_closed.wait(), PATIENCE)
    assert bytes(received) == first


async def test_an_upload_in_broken_chunks_is_the_clients_fault(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A chunk size that is no number is answered 400, and the upstream's copy ends unclean."""
    received = bytearray()

    async def script(connection: Connection) -> None:
        while data := await connection.reader.read(1000):
            received.extend(data)

    origin = await start_origin(script, whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(
        sidecar.url, b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    )
    await eventually(lambda: b"first" in received)
    writer.write(b"nonsense\r\n")
    answer = await read_answer(reader, writer, "PUT")
    assert answer.status == 400
    assert b"nonsense" not in await answer.body()
    assert bytes(received) == b"5\r\nfirst\r\n"


# Connections


async def test_connections_are_kept_on_both_sides(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Three requests of one client need one connection to it and one to the upstream."""
    origin = await start_origin(reply(response(body=b"ok")))
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(sidecar.url, b"")
    for _ in range(3):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await (await read_answer(reader, writer)).body() == b"ok"
    assert len({connection.writer for connection in origin.requests}) == 1


async def test_a_connection_is_not_shared_by_requests_under_way(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A connection serves the next request only after the whole answer to the one before."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        await release.wait()
        await connection.send(response(body=connection.target.encode()))

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    asking = [asyncio.ensure_future(ask(sidecar.url, f"/{number}")) for number in range(3)]
    await origin.request(3)
    assert len({connection.writer for connection in origin.requests}) == 3
    release.set()
    assert [await (await answer).body() for answer in asking] == [b"/0", b"/1", b"/2"]


async def test_pipelined_requests_are_answered_in_their_order(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Requests that come in one write get their answers one after the other, bodies and all."""

    async def script(connection: Connection) -> None:
        await connection.send(response(body=connection.target.encode() + connection.body))

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(
        sidecar.url,
        b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
        b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
        b"POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ncd\r\n0\r\n\r\n",
    )
    bodies = [await (await read_answer(reader, writer)).body() for _ in range(3)]
    assert bodies == [b"/1ab", b"/2", b"/3cd"]


@pytest.mark.parametrize("keep", [True, False])
async def test_http_1_0_clients_are_served(
    keep: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A body with a length is that long; the connection stays if the client asked for it."""
    origin = await start_origin(reply(response(body=b"ok")))
    sidecar = await start_sidecar(origin.url)
    request = b"GET / HTTP/1.0\r\n" + (b"Connection: keep-alive\r\n" if keep else b"") + b"\r\n"
    reader, writer = await send(sidecar.url, request)
    answer = await read_answer(reader, writer)
    assert (answer.header("content-length"), await answer.body()) == ("2", b"ok")
    if not keep:
        assert await answer.closed()
        return
    assert answer.header("connection") == "keep-alive"
    writer.write(request)
    assert await (await read_answer(reader, writer)).body() == b"ok"


async def test_http_1_0_gets_no_chunks(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A body of unknown length ends with the connection, even if the client asked to keep it."""
    origin = await start_origin(reply(CHUNKED + b"2\r\nok\r\n0\r\n\r\n"))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, version="HTTP/1.0", headers={"Connection": "keep-alive"})
    assert answer.header("transfer-encoding") is None
    assert answer.header("connection") != "keep-alive"
    assert await answer.body() == b"ok"


@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_an_upgrade_on_a_plain_route_is_an_ordinary_request(
    body: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The wish is not passed on, the body is, and the connection goes on with the next request."""
    origin = await start_origin(reply(response(status="426 Upgrade Required", body=b"no")))
    sidecar = await start_sidecar(origin.url)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    request = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    reader, writer = await send(sidecar.url, request * 2)
    for number in (0, 1):
        answer = await read_answer(reader, writer, "POST")
        assert (answer.status, await answer.body()) == (426, b"no")
        assert origin.requests[number].body == body
        assert not {"upgrade", "connection"} & origin.requests[number].headers.keys()


# What is sent, and sent again


async def test_a_safe_request_survives_the_end_of_a_pooled_connection(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An upstream that closes a kept connection just when it is used again gets a GET once more."""
    origin = await start_origin(serving_once)
    sidecar = await start_sidecar(origin.url)
    for _ in range(2):
        assert await (await ask(sidecar.url)).body() == b"ok"
    assert len(origin.requests) == 3  # answered; met the end; answered on a new connection


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_request_with_effects_is_never_sent_twice(
    method: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The upstream may have done what was asked before its connection ended: only the client can know."""
    origin = await start_origin(serving_once)
    sidecar = await start_sidecar(origin.url)
    assert (await ask(sidecar.url, method=method, body=b"x")).status == 200
    assert (await ask(sidecar.url, method=method, body=b"x")).status == 502
    assert len(origin.requests) == 2


async def serving_once(connection: Connection) -> None:
    """Answer the first request of a connection, and end it upon the second, unanswered."""
    if getattr(connection.writer, "served", False):
        await connection.close()
        return
    connection.writer.served = True  # type: ignore[attr-defined]  # a mark of the test's own
    await connection.send(response(body=b"ok"))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_new_connection_that_ends_unanswered_is_not_tried_again(
    method: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An upstream that takes a request and dies may have died of it: nobody else gets it, not even a GET."""
    dying = await start_origin(reply(b"", close=True))
    other = await start_origin(reply())
    sidecar = await start_sidecar("unused", **balanced([dying.url, other.url]))
    statuses = [(await ask(sidecar.url, method=method)).status for _ in range(2)]
    assert sorted(statuses) == [200, 502]
    assert (len(dying.requests), len(other.requests)) == (1, 1)


def balanced(urls: list[str], balance: str = "round_robin") -> dict[str, object]:
    """Settings of one upstream with several servers."""
    return {"upstreams": {"origin": {"urls": urls, "balance": balance}}}


async def test_requests_go_round(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """``round_robin`` gives each server its turn."""
    origins = [await start_origin(reply()) for _ in range(2)]
    sidecar = await start_sidecar("unused", **balanced([origin.url for origin in origins]))
    for _ in range(6):
        await ask(sidecar.url)
    assert [len(origin.requests) for origin in origins] == [3, 3]


async def test_the_least_busy_server_gets_the_next_request(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``least_streams`` counts what is under way: a server that is stuck gets nothing more."""
    release = asyncio.Event()

    async def stuck(connection: Connection) -> None:
        await release.wait()
        await connection.send(response())

    origins: list[Origin] = [await start_origin(stuck), await start_origin(reply())]
    sidecar = await start_sidecar("unused", **balanced([origin.url for origin in origins], "least_streams"))
    waiting: list[asyncio.Future[object]] = []
    while not origins[0].requests:  # until one of them is stuck
        waiting.append(asyncio.ensure_future(ask(sidecar.url)))
        await eventually(lambda: sum(len(origin.requests) for origin in origins) == len(waiting))
    before = len(origins[1].requests)
    for _ in range(4):
        await ask(sidecar.url)
    assert [len(origin.requests) for origin in origins] == [1, before + 4]
    release.set()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("balance", ["round_robin", "least_streams"])
async def test_a_server_that_is_down_is_passed_over(
    balance: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Where nothing was sent another server gets the request, body and all, and exactly once."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(
        "unused", **balanced([f"http://127.0.0.1:{free_port()}", origin.url], balance)
    )
    for number in range(4):
        answer = await ask(sidecar.url, method="POST", body=b"%d" % number)
        assert answer.status == 200
    assert [connection.body for connection in origin.requests] == [b"0", b"1", b"2", b"3"]


async def test_a_server_that_was_down_is_left_alone_for_a_while(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """One failed connection is enough for the next few seconds: nobody else waits for it."""
    port, knocked = free_port(), 0

    async def knock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocked
        knocked += 1
        writer.close()

    origin = await start_origin(reply())
    sidecar = await start_sidecar("unused", **balanced([f"http://127.0.0.1:{port}", origin.url]))
    for _ in range(2):  # one of them tries the closed port first
        await ask(sidecar.url)
    async with await asyncio.start_server(knock, "127.0.0.1", port):
        for _ in range(4):
            assert (await ask(sidecar.url)).status == 200
    assert (knocked, len(origin.requests)) == (0, 6)


# Silence, on either side


async def test_an_upstream_that_falls_silent_is_cut(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A body that stops for longer than timeouts.idle ends before its length, and frees the upstream."""

    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"idle": "250ms"}})
    answer = await ask(sidecar.url, "/")
    with pytest.raises((Truncated, asyncio.IncompleteReadError, ConnectionResetError)):
        await answer.body()
    await eventually(lambda: (origin.requests[0]).peer_closed.is_set(), "the upstream connection's end")


async def test_a_client_that_takes_nothing_is_cut(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A download that its client does not read ends after timeouts.send, and frees the upstream."""

    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                await connection.send(b"x" * 100_000)
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"send": "100ms"}})
    answer = await ask(sidecar.url, "/")
    answer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as a write transport
    request = await origin.request()
    await eventually(request.peer_closed.is_set, "the upstream connection's end")


async def test_a_flood_of_hints_does_not_fill_the_memory(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: 103 after 103 for a client that reads nothing. It misses some, and gets its answer."""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n" % (b"a" * 30_000)
    sent = asyncio.Event()

    async def script(connection: Connection) -> None:
        for _ in range(400):
            await connection.send(hint)
        sent.set()
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    reader, writer = await send(sidecar.url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", window=4096)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport
    await sent.wait()
    assert await at_rest(lambda: unsent(sidecar)) < 1024 * 1024
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    await origin.requests[0].send(response(body=b"done"))
    answer = await read_answer(reader, writer)
    assert (answer.status, await answer.body()) == (200, b"done")
    assert 0 < len(answer.interim) <= 400


@pytest.mark.parametrize("hints", [b"", HINTS], ids=["alone", "after-hints"])
async def test_head_answered_with_a_body(
    hints: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Some servers do: the head passes, and what is no response is not read as the next one."""

    async def script(connection: Connection) -> None:
        await connection.send(hints + response("X-App: 1", body=b"hello"))

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="HEAD")
    assert (answer.status, answer.header("x-app"), answer.header("content-length")) == (200, "1", "5")
    assert await (await ask(sidecar.url)).body() == b"hello"
    first, second = origin.requests
    assert first.writer is not second.writer
