"""The loop that every team writes: an aiohttp server, an aiohttp client, uvloop, and nothing more.

No ids, no heartbeats, no replay, no limits, no errors told: bytes in, bytes out. It is idiomatic, and tuned
where one line does it: no access log, no limit of connections, no total timeout.

    python textbook.py PORT UPSTREAM_URL CA_FILE
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict

#: RFC 9110, section 7.6.1: these fields are for one connection only. Host and framing are aiohttp's to set.
NOT_FORWARDED = (
    "Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Host",
    "Content-Length",
)

SESSION = web.AppKey("session", aiohttp.ClientSession)
UPSTREAM = web.AppKey("upstream", str)


async def relay(request: web.Request) -> web.StreamResponse:
    """Ask the upstream the same, and pass on what comes as it comes."""
    async with request.app[SESSION].request(
        request.method,
        request.app[UPSTREAM] + request.path_qs,
        headers=end_to_end(request.headers),
        data=await request.read(),
    ) as upstream:
        response = web.StreamResponse(status=upstream.status, headers=end_to_end(upstream.headers))
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


def end_to_end(headers: aiohttp.typedefs.LooseHeaders) -> CIMultiDict[str]:
    """The header fields that go on to the other side."""
    kept = CIMultiDict(headers)
    for name in NOT_FORWARDED:
        kept.popall(name, None)
    return kept


async def client(app: web.Application) -> AsyncIterator[None]:
    """One session, and so one pool of connections, for all requests."""
    connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cafile=sys.argv[3]))
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        app[SESSION] = session
        yield


def main() -> None:
    """Serve until SIGTERM."""
    app = web.Application(client_max_size=16 << 20)
    app[UPSTREAM] = sys.argv[2]
    app.cleanup_ctx.append(client)
    app.router.add_route("*", "/{tail:.*}", relay)
    loop = uvloop.new_event_loop()
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=loop,
        backlog=1024,
        keepalive_timeout=3600,
    )


if __name__ == "__main__":
    main()
