"""A stream on the wire: its headers, its blocks, its ids, and what is written while nothing comes."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest

from proxy.server import sse
from tests.conftest import StartOrigin, StartSidecar, eventually, transports
from tests.support.client import Answer, Truncated, ask
from tests.support.origin import Connection, Script, reply, response

PING = b": ping\n"
SSE = "text/event-stream"
OPENAI = b'data: {"choices":[{"delta":{"content":"hi"}}]}'
GEMINI = b'data: {"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}'
ANTHROPIC = b'event: message_start\ndata: {"type":"message_start","message":{}}'
GENERATE = "/v1/models/m:streamGenerateContent"


def streaming(extra: str = "") -> Script:
    """A script that begins a stream with these header lines; what follows is the test's to send."""

    async def script(connection: Connection) -> None:
        await connection.start_stream("".join(f"{line}\r\n" for line in extra.splitlines()).encode())
        await connection.gone()

    return script


def whole(*blocks: bytes, extra: str = "") -> Script:
    """A script that sends these blocks in one read, and ends as it should."""

    async def script(connection: Connection) -> None:
        await connection.start_stream("".join(f"{line}\r\n" for line in extra.splitlines()).encode())
        await connection.chunk(b"".join(block + b"\n\n" for block in blocks))
        await connection.end()

    return script


async def text_of(answer: Answer) -> bytes:
    """The rest of a stream, its stream id written as ``ID``."""
    return (await answer.rest()).replace((answer.header("stream-id") or "").encode(), b"ID")


# §2: headers


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("TEXT/Event-Stream", "text/event-stream; charset=utf-8"),
        ("text/event-stream;charset=UTF-8", "text/event-stream;charset=UTF-8"),
        ("text/event-stream; charset=utf-8; v=2", "text/event-stream; charset=utf-8; v=2"),
    ],
)
async def test_the_content_type_is_kept_where_it_says_more(
    theirs: str, ours: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A bare type gets its charset; parameters of the upstream's own stay."""
    origin = await start_origin(reply(response(f"Content-Type: {theirs}", body=b"data: 1\n\n")))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert answer.headers("content-type") == [ours]
    assert b"data: 1\n\n" in await answer.rest()


@pytest.mark.parametrize(
    ("theirs", "kept"),
    [
        ("", ""),
        ("Cache-Control: no-cache", ""),
        ("Cache-Control: public, max-age=60", ""),
        ("Cache-Control: no-store", ", no-store"),
        ("Cache-Control: max-age=0,Private", ", private"),
        ("Cache-Control: private\nCache-Control: NO-STORE", ", no-store, private"),
    ],
)
async def test_no_cache_keeps_and_nothing_transforms_a_stream(
    theirs: str, kept: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``no-transform`` keeps compressing middleboxes away; the upstream's stricter words stay in force."""
    origin = await start_origin(streaming(theirs))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert answer.headers("cache-control") == [f"no-cache, no-transform{kept}"]


async def test_a_stream_has_an_id_and_two_links(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """128 random bits, where to resume, where to cancel; what the upstream linked to stays."""
    origin = await start_origin(
        streaming("Link: </next>; rel=next\nStream-Id: theirs\nX-Accel-Buffering: yes")
    )
    sidecar = await start_sidecar(origin.url, public_path="/ai")
    answers = [await ask(sidecar.url) for _ in range(2)]
    ids = {answer.header("stream-id") for answer in answers}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", str(stream)) for stream in ids)
    for answer in answers:
        at = f"/ai/_streams/{answer.header('stream-id')}"
        assert answer.headers("link") == [
            "</next>; rel=next",
            f'<{at}>; rel="resume", <{at}/cancel>; rel="cancel"',
        ]
        assert answer.headers("x-accel-buffering") == ["no"]
        assert answer.header("stream-resumed-from") is None
        assert answer.header("stream-closed") is None


async def test_end_to_end_headers_pass_and_others_do_not(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What framed or identified the upstream's bytes is gone, and what only the next hop should hear."""
    origin = await start_origin(
        streaming(
            "X-Request-Id: 7\nVary: A\nVary: B\nConnection: keep-alive, X-Hop\nX-Hop: 1\nKeep-Alive: 5\n"
            'ETag: "a"\nContent-Digest: sha-256=:x:\nRepr-Digest: sha-256=:x:\nAccept-Ranges: bytes\n'
            "Stream-Closed: true\nStream-Resumed-From: 3\nServer: app/1"
        )
    )
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert answer.header("x-request-id") == "7"
    assert answer.headers("vary") == ["A", "B"]
    assert answer.headers("server") == ["app/1"]
    names = {name.lower() for name, _ in answer.raw_headers}
    assert not names & {"x-hop", "keep-alive", "stream-closed", "stream-resumed-from", "content-length"}
    assert not names & {"etag", "content-digest", "repr-digest", "accept-ranges"}
    assert answer.headers("transfer-encoding") == ["chunked"]


async def test_headers_leave_before_the_first_event(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The client knows the stream while the upstream has sent nothing but its own headers."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert answer.status == 200
    connection = await origin.request()
    await connection.chunk(b"data: 1\n\n")
    assert (await answer.block()).endswith(b"data: 1\n\n")


async def test_nothing_waits_for_more_bytes_in_the_kernel(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """TCP_NODELAY on both sides: a block of a few bytes leaves at once."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url)
    await ask(sidecar.url)
    (relay,) = sidecar.hub.running
    upstream = relay._source._response.answer.connection.transport  # type: ignore[union-attr]
    downstream = relay.readers[0]._transport  # type: ignore[attr-defined]
    for transport in (upstream, downstream):
        option = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option != 0


async def test_a_resume_repeats_the_headers_but_no_cookie(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A cookie belongs to the first answer; whoever has the stream's id later may be somebody else."""
    origin = await start_origin(streaming("Set-Cookie: a=1\nSet-Cookie: b=2\nX-Model: m"))
    sidecar = await start_sidecar(origin.url)
    first = await ask(sidecar.url)
    await (await origin.request()).chunk(b"data: 1\n\ndata: 2\n\n")
    stream = first.header("stream-id")
    resumed = await ask(sidecar.url, f"/_streams/{stream}", headers={"Last-Event-ID": f"{stream}.1"})
    assert (first.headers("set-cookie"), resumed.headers("set-cookie")) == (["a=1", "b=2"], [])
    assert (first.header("stream-resumed-from"), resumed.header("stream-resumed-from")) == (None, "1")
    same = ("x-model", "stream-id", "link", "cache-control", "content-type", "x-accel-buffering")
    assert [first.header(name) for name in same] == [resumed.header(name) for name in same]
    assert (await resumed.block()).endswith(b"data: 2\n\n")


async def test_a_finished_stream_says_so_in_its_head(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``Stream-Closed: true`` where the log already holds the end."""
    origin = await start_origin(whole(b"data: 1", b"data: 2"))
    sidecar = await start_sidecar(origin.url)
    first = await ask(sidecar.url)
    await first.rest()
    resumed = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}?after=1")
    assert (first.header("stream-closed"), resumed.header("stream-closed")) == (None, "true")
    assert await text_of(resumed) == b"id: ID.2\nretry: 3000\ndata: 2\n\n"


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        ({}, "Access-Control-Allow-Origin: *\nAccess-Control-Expose-Headers: X-Mine"),
        ({"origins": ["https://app.example"]}, "Access-Control-Expose-Headers: X-Mine"),
    ],
    ids=["the app allows", "we allow"],
)
async def test_a_page_can_read_what_a_resume_needs(
    settings: dict[str, Any], extra: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Where an answer is a CORS one our fields are exposed, beside those that the app exposes."""
    origin = await start_origin(streaming(extra))
    sidecar = await start_sidecar(origin.url, **settings)
    answer = await ask(sidecar.url, headers={"Origin": "https://app.example"})
    exposed = (answer.header("access-control-expose-headers") or "").split(", ")
    assert exposed[0] == "X-Mine"
    assert {"Stream-Id", "Stream-Resumed-From", "Stream-Closed", "Link", "Retry-After"} <= set(exposed)


async def test_an_answer_for_no_page_exposes_nothing(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """No CORS field is invented."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, headers={"Origin": "https://app.example"})
    assert not [name for name, _ in answer.raw_headers if name.lower().startswith("access-control")]


# §2: what makes a stream


@pytest.mark.parametrize(
    ("method", "status", "content_type"),
    [
        ("GET", "201 Created", SSE),
        ("GET", "206 Partial Content", SSE),
        ("POST", "400 Bad Request", SSE),
        ("GET", "500 Oops", SSE),
        ("GET", "200 OK", "application/json"),
        ("GET", "200 OK", "text/event-streams"),
        ("GET", "200 OK", "application/x-ndjson"),
    ],
)
async def test_any_other_answer_passes_untouched(
    method: str, status: str, content_type: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Only a 200 with text/event-stream makes a stream."""
    body = b": odd\r\ndata: 1\r\rdata"
    origin = await start_origin(reply(response(f"Content-Type: {content_type}", status=status, body=body)))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method=method)
    assert (str(answer.status), await answer.body()) == (status.split()[0], body)
    assert answer.header("content-type") == content_type
    assert answer.header("stream-id") is None
    assert answer.header("cache-control") is None


async def test_head_begins_no_stream(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The upstream's headers pass; nobody would ever read the stream."""
    origin = await start_origin(reply(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, method="HEAD")
    assert (answer.status, answer.header("content-type")) == (200, SSE)
    assert answer.header("stream-id") is None
    assert not sidecar.hub.running


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "QUERY"])
async def test_a_stream_may_answer_any_method(
    method: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It is the answer that counts."""
    origin = await start_origin(whole(b"data: 1"))
    sidecar = await start_sidecar(origin.url)
    assert b"data: 1" in await text_of(await ask(sidecar.url, method=method))


# §2: codings

PLAIN = b"data: 1\n\ndata: 2\n\n"


def raw_deflate(data: bytes) -> bytes:
    """Deflate as some servers send it: without the zlib wrapper."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "stacked": ("br, gzip", lambda data: gzip.compress(brotli.compress(data))),
    "stacked in two lines": (
        "gzip\r\nContent-Encoding: br",
        lambda data: brotli.compress(gzip.compress(data)),
    ),
    "identity": ("identity", lambda data: data),
}


@pytest.mark.parametrize(("coding", "pack"), CODINGS.values(), ids=CODINGS)
async def test_a_coded_stream_is_decoded(
    coding: str, pack: Callable[[bytes], bytes], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Events cannot be told apart inside a coding, so it is undone, and no longer announced."""
    raw = response(f"Content-Type: {SSE}", f"Content-Encoding: {coding}", body=pack(PLAIN))
    origin = await start_origin(reply(raw))
    sidecar = await start_sidecar(origin.url, route={"ids": "never"})
    answer = await ask(sidecar.url, headers={"Accept-Encoding": "gzip, br"})
    assert answer.header("content-encoding") is None
    assert await answer.rest() == b"retry: 3000\n" + PLAIN


async def test_a_coded_block_leaves_as_soon_as_its_bytes_are_there(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A decoder holds nothing back that the upstream has flushed."""
    origin = await start_origin(streaming("Content-Encoding: gzip"))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    connection = await origin.request()
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    for number in range(3):
        block = b"data: %d\n\n" % number
        await connection.chunk(packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH))
        assert (await answer.block()).endswith(block)


async def test_a_coding_that_is_unknown_passes_as_it_is(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What cannot be undone is the client's to undo, whole."""
    raw = response(f"Content-Type: {SSE}", "Content-Encoding: zstd", body=b"(\xb5/\xfd")
    origin = await start_origin(reply(raw))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert (answer.header("content-encoding"), answer.header("stream-id")) == ("zstd", None)
    assert await answer.body() == b"(\xb5/\xfd"


async def test_a_broken_coding_is_a_broken_stream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What came before is kept; the end is unclean."""
    origin = await start_origin(streaming("Content-Encoding: gzip"))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    connection = await origin.request()
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    await connection.chunk(packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH))
    assert (await answer.block()).endswith(b"data: 1\n\n")
    await connection.chunk(b"\xff\xff\xff no deflate")
    with pytest.raises(Truncated):
        await answer.rest()


@pytest.mark.parametrize(
    ("path", "accept", "sent"),
    [
        ("/v1/chat/completions", "application/json", "identity"),
        ("/v1/responses", "*/*", "identity"),
        ("/v1/messages", "*/*", "identity"),
        (GENERATE, "*/*", "identity"),
        ("/events", "text/event-stream", "identity"),
        ("/events", "application/json, text/event-stream;q=0.9", "identity"),
        ("/page", "text/html", "gzip, br"),
    ],
)
async def test_who_wants_a_stream_asks_for_no_coding(
    path: str, accept: str, sent: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """LLM dialects and whoever accepts an event stream; other requests ask as their client did."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    await ask(sidecar.url, path, headers={"Accept": accept, "Accept-Encoding": "gzip, br"})
    assert origin.requests[0].header("accept-encoding") == sent
    assert origin.requests[0].header("accept") == accept


# §2: blocks


async def test_a_block_leaves_when_it_is_complete_and_not_before(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Half a block waits for its other half, whole ones before it do not."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url, route={"ids": "never"})
    answer = await ask(sidecar.url)
    connection = await origin.request()
    await connection.chunk(b"data: 1\n\ndata:")
    assert await answer.chunk() == b"retry: 3000\ndata: 1\n\n"
    await connection.chunk(b" 2\n")
    await connection.chunk(b"data: more\n")
    await connection.chunk(b"\ndata: 3")
    assert await answer.chunk() == b"data: 2\ndata: more\n\n"


async def test_blocks_of_one_read_leave_in_one_write(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """For a reader that has just come, and for one that is live; and a replay leaves in one, too."""
    three = b"".join(b"data: %d\n\n" % number for number in range(3))
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url, route={"ids": "never"})
    answer = await ask(sidecar.url)
    connection = await origin.request()
    await connection.chunk(three)
    assert await answer.chunk() == b"retry: 3000\n" + three
    await connection.chunk(three)
    assert await answer.chunk() == three
    late = await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}")
    assert await late.chunk() == b"retry: 3000\n" + three + three


async def test_http_1_0_gets_the_stream_unchunked(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Ended by close, even if the client asked to keep the connection."""
    origin = await start_origin(whole(b"data: 1", b"data: 2"))
    sidecar = await start_sidecar(origin.url, route={"ids": "never"})
    answer = await ask(sidecar.url, version="HTTP/1.0", headers={"Connection": "keep-alive"})
    assert answer.header("transfer-encoding") is None
    assert await answer.body() == b"retry: 3000\ndata: 1\n\ndata: 2\n\n"


async def test_a_connection_serves_on_after_a_stream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A stream that ended clean leaves its connection to the next request, on both sides."""
    origin = await start_origin(whole(b"data: 1"))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url)
    assert b"data: 1" in await answer.rest()
    answer.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await answer.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len({connection.writer for connection in origin.requests}) == 1


# §3: ids

OWN = (b"id: own-1\ndata: a", b"id:own-2\ndata: b")
STOP = GEMINI.replace(b"}]}}", b'}]},"finishReason":"STOP"}')  # complete, so that nothing is told at its end
IDS: dict[str, tuple[str, str, tuple[bytes, ...], bytes]] = {
    "numbered": (
        "auto",
        "/events",
        (b"data: a", b"event: y\ndata: b\ndata: c", b"data"),
        b"id: ID.1\nretry: 3000\ndata: a\n\nid: ID.2\nevent: y\ndata: b\ndata: c\n\nid: ID.3\ndata\n\n",
    ),
    "no data, no block": (
        "auto",
        "/events",
        (b": only a comment", b"event: x", b"data: a"),
        b"id: ID.1\nretry: 3000\ndata: a\n\n",
    ),
    "a provider's": (
        "auto",
        "/v1/chat/completions",
        (OPENAI, b"data: [DONE]"),
        b"id: ID.1\nretry: 3000\n%b\n\nid: ID.2\ndata: [DONE]\n\n" % OPENAI,
    ),
    "not for gemini": ("auto", GENERATE, (STOP,), b"%b\n\n" % STOP),
    "gemini, if told to": ("always", GENERATE, (STOP,), b"id: ID.1\n%b\n\n" % STOP),
    "never": ("never", "/events", OWN, b"retry: 3000\ndata: a\n\ndata: b\n\n"),
    "always": ("always", "/events", OWN, b"id: ID.1\nretry: 3000\ndata: a\n\nid: ID.2\ndata: b\n\n"),
    "the upstream's": ("auto", "/events", OWN, b"id: own-1\nretry: 3000\ndata: a\n\nid:own-2\ndata: b\n\n"),
    "as they came": (
        "upstream",
        "/events",
        (b"id: 1\nretry: 9\ndata: a", b": comment", b"retry: 7", b"data: b\nid: 2"),
        b"id: 1\nretry: 9\ndata: a\n\n: comment\n\nretry: 7\n\ndata: b\nid: 2\n\n",
    ),
}


@pytest.mark.parametrize(("ids", "path", "blocks", "wire"), IDS.values(), ids=IDS)
async def test_whose_ids_a_stream_carries(
    ids: str,
    path: str,
    blocks: tuple[bytes, ...],
    wire: bytes,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """Each setting of ``ids``, to the byte."""
    origin = await start_origin(whole(*blocks))
    sidecar = await start_sidecar(origin.url, route={"ids": ids})
    assert await text_of(await ask(sidecar.url, path)) == wire


async def test_ids_change_hands_when_the_upstream_brings_its_own(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Under ``auto`` an app's own ids take over with the first one, and its resume goes on working."""
    origin = await start_origin(
        whole(b"data: hello", b"id: 41\ndata: a", b"data: b", b"id: 42\nevent: x\ndata: c")
    )
    sidecar = await start_sidecar(origin.url)
    assert await text_of(await ask(sidecar.url, "/events")) == (
        b"id: ID.1\nretry: 3000\ndata: hello\n\nid: 41\ndata: a\n\ndata: b\n\nid: 42\nevent: x\ndata: c\n\n"
    )
    await ask(sidecar.url, "/events", headers={"Last-Event-ID": "42"})
    assert origin.requests[1].header("last-event-id") == "42"


async def test_what_is_not_recorded_has_no_ids(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An id that cannot be resumed from would be a lie; the retry hint is still true."""
    origin = await start_origin(whole(b"data: a", b"data: b"))
    sidecar = await start_sidecar(origin.url, route={"replay": "off"})
    answer = await ask(sidecar.url, "/events")
    assert 'rel="resume"' not in (answer.header("link") or "")
    assert 'rel="cancel"' in (answer.header("link") or "")
    assert await text_of(answer) == b"retry: 3000\ndata: a\n\ndata: b\n\n"


# §3: retry


@pytest.mark.parametrize(
    ("policy", "path", "blocks", "first"),
    [
        ({}, "/events", (b"data: a",), b"id: ID.1\nretry: 3000\ndata: a\n\n"),
        ({"retry": "1500ms"}, "/events", (b"data: a",), b"id: ID.1\nretry: 1500\ndata: a\n\n"),
        ({"ids": "upstream"}, "/events", (b"data: a",), b"data: a\n\n"),
    ],
)
async def test_the_first_block_says_when_to_come_back(
    policy: dict[str, Any],
    path: str,
    blocks: tuple[bytes, ...],
    first: bytes,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """Once a connection, inside the first block, never as a block of its own; a resume is told again."""
    origin = await start_origin(whole(*blocks, b"data: z"))
    sidecar = await start_sidecar(origin.url, route=policy)
    answer = await ask(sidecar.url, path)
    text = await text_of(answer)
    assert text.startswith(first)
    assert text.count(b"retry") == first.count(b"retry")
    again = await text_of(await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}"))
    assert again == text


async def test_the_upstreams_own_retry_counts(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """It goes out where it came, and is what a later connection is told instead of the default."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/events")
    stream = (answer.header("stream-id") or "").encode()
    connection = await origin.request()
    await connection.chunk(b"data: a\n\n")
    assert await answer.block() == b"id: %b.1\nretry: 3000\ndata: a\n\n" % stream
    await connection.chunk(b"retry: 700\ndata: b\n\n")
    assert await answer.block() == b"id: %b.2\nretry: 700\ndata: b\n\n" % stream
    late = await ask(sidecar.url, f"/_streams/{stream.decode()}")
    assert await late.block() == b"id: %b.1\nretry: 700\ndata: a\n\n" % stream


@pytest.mark.parametrize("ids", ["auto", "always", "never"])
async def test_a_retry_alone_is_handed_on(
    ids: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A browser acts on the line, not on an event; so it passes even where it is all that a stream says."""
    origin = await start_origin(reply(response("Content-Type: text/event-stream", body=b"retry: 700\n")))
    sidecar = await start_sidecar(origin.url, route={"ids": ids})
    assert await (await ask(sidecar.url, "/events")).body() == b"retry: 700\n"


# §3: heartbeats


@pytest.mark.parametrize(
    ("path", "beat"),
    [
        ("/events", PING),
        ("/v1/chat/completions", PING),
        ("/v1/responses", PING),
        ("/v1/messages", PING),
        (GENERATE, b"\n"),
    ],
)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_heartbeats_come_before_the_first_event(
    version: str, path: str, beat: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The upstream has sent its headers and nothing else, and the client hears that it lives."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url, route={"heartbeat": "30ms"})
    answer = await ask(sidecar.url, path, method="POST", version=version)
    assert await answer.until(beat * 3) == beat * 3


@pytest.mark.parametrize(
    ("path", "headers", "body", "beat"),
    [
        ("/events", {"Accept": SSE}, None, PING),
        ("/v1/chat/completions", {}, b'{"stream": true}', PING),
        (GENERATE, {}, b"{}", b"\n"),
    ],
)
async def test_heartbeats_come_before_the_upstream_has_answered(
    path: str,
    headers: dict[str, str],
    body: bytes | None,
    beat: bytes,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """With ``open_after`` the answer begins while the upstream has not even sent its headers."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        await release.wait()
        await connection.start_stream()
        await connection.chunk(b"data: 1\n\n")
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"heartbeat": "30ms", "open_after": "20ms"})
    answer = await ask(sidecar.url, path, method="POST" if body else "GET", headers=headers, body=body)
    assert (answer.status, answer.header("content-type")) == (200, f"{SSE}; charset=utf-8")
    assert await answer.until(beat * 2) == beat * 2
    release.set()
    assert re.fullmatch(
        b"(%b)*(id: .*\n)?(retry: 3000\n)?data: 1\n\n" % beat, await answer.until(b"data: 1\n\n")
    )


async def test_a_request_that_wants_no_stream_is_never_opened_early(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A JSON answer could not be given any more."""
    release = asyncio.Event()

    async def script(connection: Connection) -> None:
        await release.wait()
        await connection.send(response(status="429 Slow down", body=b"{}"))

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"open_after": "0s"})
    asking = asyncio.ensure_future(
        ask(sidecar.url, "/v1/chat/completions", method="POST", body=b'{"stream": false}')
    )
    await origin.request()
    release.set()
    assert (await asking).status == 429


async def test_a_heartbeat_never_stands_inside_a_block(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An upstream that stops in the middle of a block is covered, and its block stays whole."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url, route={"heartbeat": "30ms", "ids": "never"})
    answer = await ask(sidecar.url)
    connection = await origin.request()
    await connection.chunk(b"data: 1\n\ndata: half")
    assert await answer.until(b"data: 1\n\n" + PING * 2) == b"retry: 3000\ndata: 1\n\n" + PING * 2
    await connection.chunk(b" and half\n\n")
    assert (await answer.until(b"data: half and half\n\n")).replace(PING, b"") == b"data: half and half\n\n"


async def test_heartbeats_fill_silence_only(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """While events come, more often than the heartbeat, none is written; when they stop, one is."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url, route={"heartbeat": "1s", "ids": "never"})
    answer = await ask(sidecar.url)
    connection = await origin.request()
    sent = b""
    for number in range(30):  # 1.5 s
        block = b"data: %d\n\n" % number
        sent += block
        await connection.chunk(block)
        await asyncio.sleep(0.05)
    assert await answer.until(PING) == b"retry: 3000\n" + sent + PING


@pytest.mark.parametrize("ids", ["auto", "never"])
async def test_the_upstreams_comments_end_here(
    ids: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its heartbeats are for us: one with an empty line behind it would break a client that saw an id."""
    origin = await start_origin(whole(b": ping", b"data: 1", b": keep-alive", b": x\n: y", b"data: 2"))
    sidecar = await start_sidecar(origin.url, route={"ids": ids})
    text = await text_of(await ask(sidecar.url))
    assert b": ping" not in text
    assert b": keep-alive" not in text
    assert text.count(b"\n\n") == 2


async def test_every_reader_has_a_heartbeat_of_its_own(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A reader that joins late, and one that has all there is, are covered alike."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url, route={"heartbeat": "30ms"})
    first = await ask(sidecar.url)
    await (await origin.request()).chunk(b"data: 1\n\n")
    await first.until(b"data: 1\n\n")
    late = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}?after=now")
    for answer in (first, late):
        assert await answer.until(PING * 2) == PING * 2


# §3: dialects


@pytest.mark.parametrize(
    ("path", "block", "dialect"),
    [
        ("/v1/chat/completions", OPENAI, "openai"),
        ("/api/messages", ANTHROPIC, "anthropic"),
        ("/api/messages", b'data: {"text":"an app\'s own"}', "generic"),
        ("/v1/chat/completions", b"data: tick", "generic"),
        (GENERATE, GEMINI, "gemini"),
        (GENERATE, b"data: tick", "generic"),
        ("/events", OPENAI, "generic"),
    ],
)
async def test_the_path_proposes_and_the_first_block_confirms(
    path: str, block: bytes, dialect: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An app's own ``/api/messages`` is not Anthropic's, and gets what every stream gets."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, path, method="POST")
    connection = await origin.request()
    await connection.chunk(b": a comment says nothing\n\n" + block + b"\n\n")
    text = await answer.block()
    (relay,) = sidecar.hub.running
    assert relay.dialect.name == dialect
    assert text.startswith(b"id: ") is (dialect != "gemini")


async def test_a_route_can_name_the_dialect(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Then neither path nor block has a say."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url, route={"dialect": "gemini", "heartbeat": "30ms"})
    answer = await ask(sidecar.url, "/my/model")
    assert await answer.until(b"\n") == b"\n"
    await (await origin.request()).chunk(b"data: tick\n\n")
    assert (await answer.block()).lstrip(b"\n") == b"data: tick\n\n"


# §4: odd bytes


@pytest.mark.parametrize(
    "sent",
    [
        [b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n"],
        [b"data: a\rdata: b\r\rdata: c\r\r"],
        [b"data: a\ndata: b\r\n\ndata: c\r\r\n"],
        [b"data: a\r", b"\ndata: b\r", b"\n\r", b"\ndata: c\r", b"\r"],
        [b"\xef\xbb", b"\xbfdata: a\ndata: b\n\ndata: c\n\n"],
        [b"\n\r\n\rdata: a\ndata: b\n\n\n\r\r\ndata: c\n\n"],
        [bytes([byte]) for byte in b"data: a\r\ndata: b\r\n\r\ndata: c\n\n"],
    ],
    ids=["CRLF", "CR", "mixed", "split", "BOM", "empty lines", "byte by byte"],
)
async def test_line_ends_become_lf(
    sent: list[bytes], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """However lines end, and wherever reads split them, the same blocks leave with LF."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        for piece in sent:
            await connection.chunk(piece)
        await connection.end()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"ids": "never"})
    assert await (await ask(sidecar.url)).rest() == b"retry: 3000\ndata: a\ndata: b\n\ndata: c\n\n"


@pytest.mark.parametrize(
    "block",
    [
        "data:no space",
        "data:  two spaces",
        "data",
        "data:",
        "unknown: field\ndata: x",
        "event:\ndata: x",
        "data: naïve €uro 🎈",
        "data: a\0b",
        ": comment inside\ndata: x\n: another",
        "data: id: not an id",
    ],
)
async def test_blocks_pass_to_the_byte(
    block: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What the standard lets a block look like is not the sidecar's to tidy up."""
    origin = await start_origin(whole(block.encode()))
    sidecar = await start_sidecar(origin.url)
    expected = b"id: ID.1\nretry: 3000\n%b\n\n" % block.encode()
    assert await text_of(await ask(sidecar.url)) == expected


async def test_an_unterminated_last_block_is_no_event(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """WHATWG: "Once the end of the file is reached, any pending data must be discarded"."""
    origin = await start_origin(reply(response(f"Content-Type: {SSE}", body=b"data: 1\n\ndata: 2\n")))
    sidecar = await start_sidecar(origin.url)
    assert await text_of(await ask(sidecar.url)) == b"id: ID.1\nretry: 3000\ndata: 1\n\n"


@pytest.mark.parametrize(
    ("block", "kept"),
    [
        (b"id: a\0b\ndata: x", b"id: ID.1\nretry: 3000\ndata: x\n\n"),
        (b"retry: 12x\ndata: x", b"id: ID.1\nretry: 3000\ndata: x\n\n"),
        (b"retry: -1\ndata: x", b"id: ID.1\nretry: 3000\ndata: x\n\n"),
    ],
)
async def test_fields_that_the_standard_ignores_change_nothing(
    block: bytes, kept: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An id with NUL is none, so nobody's ids change hands; a retry is digits, or nothing."""
    origin = await start_origin(whole(block))
    sidecar = await start_sidecar(origin.url)
    assert await text_of(await ask(sidecar.url)) == kept


@pytest.mark.parametrize("ended", [True, False], ids=["at last", "never"])
async def test_a_block_that_is_too_long_ends_the_stream(
    ended: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: an upstream that never ends its block. The blocks before it stay, the reason is told."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url, route={"max_event_bytes": "1KiB"})
    answer = await ask(sidecar.url)
    connection = await origin.request()
    await connection.chunk(b"data: 1\n\ndata: " + b"x" * 1100 + b"\n\n" * ended)
    assert (await answer.block()).endswith(b"data: 1\n\n")
    with pytest.raises(Truncated):
        await answer.rest()
    await connection.peer_closed.wait()
    state = await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}/state")
    assert (await state.json())["reason"] == "overflow"


async def test_the_upstreams_retry_survives_a_change_of_dialect(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A path like a provider's, a first block that is none: the retry that came before it still counts."""
    origin = await start_origin(streaming())
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/api/messages")
    connection = await origin.request()
    await connection.chunk(b"retry: 100\n\n")
    told = await answer.until(b"\n")
    await connection.chunk(b"data: 1\n\n")
    told += await answer.block()
    assert set(re.findall(rb"^retry: (\d+)$", told, re.M)) == {b"100"}


async def test_a_broken_end_leaves_time_to_read_what_came_before(
    start_origin: StartOrigin, start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page's fetch drops what its reader has not taken when the failure comes; a replay is one write."""
    monkeypatch.setattr(sse, "PARTING_SECONDS", 60.0)

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: one\n\ndata: tw")
        await connection.close()

    sidecar = await start_sidecar((await start_origin(script)).url)
    first = await ask(sidecar.url, method="POST")
    await first.block()
    replay = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}")
    assert b"data: one" in await replay.block()
    await eventually(lambda: not sidecar.hub.readers, "nobody reads any more")
    assert not any(each.is_closing() for each in transports(sidecar))
    assert len(transports(sidecar)) == 2
    monkeypatch.setattr(sse, "PARTING_SECONDS", 0.05)
    again = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}")
    with pytest.raises(Truncated):
        await again.rest()
