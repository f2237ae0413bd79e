"""The provider's plain HTTP: what a proxy must pass through without looking at it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

from proxy.demo.app_events import refusal
from proxy.demo.ledger import State
from proxy.demo.misbehaviour import HEADER, BadMisbehaviour, Misbehaviour, asked
from proxy.demo.observation import record_of
from proxy.demo.playback import hang_up
from proxy.demo.voice import FAILURE

#: Bytes of one write of a download.
CHUNK_BYTES = 64 * 1024

#: A download repeats these bytes. Their number is prime, so that a chunk in the wrong place shows.
_PATTERN = bytes(range(251))
_CHUNK_AT_ANY_PHASE = _PATTERN * (CHUNK_BYTES // len(_PATTERN) + 2)

#: Bound of a download, in bytes: it costs the provider nothing, but a typing error may fill a disk.
MAX_DOWNLOAD_BYTES = 1 << 40


async def hello(_request: web.Request) -> web.Response:
    """A little JSON."""
    return web.json_response({"message": "hello", "from": "the demo provider"})


async def echo(request: web.Request) -> web.Response:
    """What came, as it came: target, header fields in order, length and hash of the body."""
    path, _, query = request.raw_path.partition("?")
    length, digest = await _consume(request)
    document = {
        "method": request.method,
        "path": path,
        "query": query,
        "headers": list(request.headers.items()),
        "body_bytes": length,
        "body_sha256": digest,
    }
    return web.json_response(document)


async def upload(request: web.Request) -> web.Response:
    """Length and hash of a body of any size."""
    length, digest = await _consume(request)
    return web.json_response({"bytes": length, "sha256": digest})


async def _consume(request: web.Request) -> tuple[int, str]:
    length, digest = 0, hashlib.sha256()
    async for chunk in request.content.iter_any():
        length += len(chunk)
        digest.update(chunk)
    return length, digest.hexdigest()


def download_chunks(start: int, stop: int) -> Iterator[bytes]:
    """The content of a download from offset ``start`` to before ``stop``."""
    while start < stop:
        length = min(CHUNK_BYTES, stop - start)
        phase = start % len(_PATTERN)
        yield _CHUNK_AT_ANY_PHASE[phase : phase + length]
        start += length


async def download(request: web.Request) -> web.StreamResponse:
    """``bytes=N`` bytes, any one range of them (RFC 9110 §14), or only the headers for HEAD."""
    total = _total(request)
    start, stop = _range(request, total)
    if start >= stop and total:
        unsatisfiable = {"Content-Range": f"bytes */{total}"}
        raise web.HTTPRequestRangeNotSatisfiable(headers=unsatisfiable)
    partial = (start, stop) != (0, total)
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(stop - start),
        "Accept-Ranges": "bytes",
        "ETag": f'"{total}"',
    }
    if partial:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
    status = 206 if partial else 200
    if request.method == "HEAD":
        return web.Response(status=status, headers=headers)
    return await _send(request, web.StreamResponse(status=status, headers=headers), start, stop)


async def _send(
    request: web.Request, response: web.StreamResponse, start: int, stop: int
) -> web.StreamResponse:
    drop_at = _misbehaviour(request).drop_at
    end = stop if drop_at is None else min(stop, start + drop_at)
    await response.prepare(request)
    for chunk in download_chunks(start, end):
        await response.write(chunk)
    if end < stop:
        record_of(request).end(State.MISBEHAVED)
        hang_up(request)
    return response


def _total(request: web.Request) -> int:
    text = request.query.get("bytes", "1024")
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_DOWNLOAD_BYTES):
        raise web.HTTPBadRequest(text=f"bytes={text}: must be a number up to {MAX_DOWNLOAD_BYTES}")
    return int(text)


def _range(request: web.Request, total: int) -> tuple[int, int]:
    """Where the asked range begins and ends.

    "A server MAY ignore the Range header field" (RFC 9110 §14.2). This one does when it holds
    several ranges, or none that can be read.
    """
    try:
        start, stop, _ = request.http_range.indices(total)
    except ValueError:
        return 0, total
    return start, stop


async def status(request: web.Request) -> web.Response:
    """An answer with the status that the path names, from 200 to 599."""
    code = int(request.match_info["code"])
    if not 200 <= code <= 599:
        raise web.HTTPBadRequest(text=f"status {code} cannot be sent: must be from 200 to 599")
    headers = {"Location": "/api/hello"} if code in (301, 302, 303, 307, 308) else None
    if code in (204, 205, 304):
        return web.Response(status=code, headers=headers)
    return web.json_response({"status": code}, status=code, headers=headers)


async def cookies(request: web.Request) -> web.Response:
    """Sets two cookies in two header fields, and tells those that came."""
    response = web.json_response({"received": dict(request.cookies)})
    response.headers.add("Set-Cookie", "session=demo; Path=/; HttpOnly")
    response.headers.add("Set-Cookie", "theme=dark; Path=/; SameSite=Lax")
    return response


async def early_hints(request: web.Request) -> web.Response:
    """A 103 (RFC 8297), then the answer. aiohttp has no interim answers, so this one is written by hand."""
    if request.transport is not None:
        request.transport.write(
            b"HTTP/1.1 103 Early Hints\r\nLink: </demo.css>; rel=preload; as=style\r\n\r\n"
        )
    return web.json_response({"hinted": True})


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _misbehaviour(request: web.Request) -> Misbehaviour:
    """What the header asks for. A query belongs to the endpoint, but for a download's ``drop_at``."""
    query = {name: text for name, text in request.query.items() if name == "drop_at"}
    return Misbehaviour.read(asked(query, request.headers.getall(HEADER, ())))


def _misbehaving(handler: Handler) -> Handler:
    """``handler`` with what applies to an answer that is no stream: a delay, or an error in its place."""

    async def misbehave(request: web.Request) -> web.StreamResponse:
        try:
            wrong = _misbehaviour(request)
        except BadMisbehaviour as error:
            return web.json_response(refusal(400, str(error)), status=400)
        await asyncio.sleep(wrong.headers_delay)
        if wrong.status == 200:
            return await handler(request)
        record_of(request).end(State.MISBEHAVED)
        return web.json_response(refusal(wrong.status, FAILURE), status=wrong.status)

    return misbehave


def routes() -> list[web.RouteDef]:
    """The plain endpoints."""
    return [
        web.get("/api/hello", _misbehaving(hello)),
        web.route("*", "/api/echo", _misbehaving(echo)),
        web.post("/api/upload", _misbehaving(upload)),
        web.get("/api/download", _misbehaving(download)),
        web.route("*", r"/api/status/{code:\d{3}}", _misbehaving(status)),
        web.get("/api/cookies", _misbehaving(cookies)),
        web.get("/api/early-hints", _misbehaving(early_hints)),
    ]
