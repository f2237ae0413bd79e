"""Everything that is no stream: the upstream's answer as it is, passed on piece by piece."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import hdrs, web

from proxy.config import Route
from proxy.server import cors, guard
from proxy.server.exchange import Exchange
from proxy.server.headers import NOT_RETURNED, end_to_end
from proxy.server.room import wait_for_room
from proxy.server.upstream import Response
from proxy.server.wire import Answer


async def pass_on(exchange: Exchange, response: Response) -> web.StreamResponse:
    """Answer with the upstream's response, untouched but for hop-by-hop fields.

    Where the upstream breaks off in the middle, or falls silent, so does the answer: its connection is
    closed before the length or the last chunk that was promised, and the client notices.
    """
    upstream, request = response.answer, exchange.request
    answer = Answer(
        status=upstream.status,
        reason=upstream.reason or "",
        headers=end_to_end(upstream.headers, NOT_RETURNED if exchange.credentials else ()),
    )
    if exchange.route.prompt is not None:  # it answers a POST, which no cache keeps, and looks like a GET's
        answer.headers[hdrs.CACHE_CONTROL] = "no-store"
    cors.allow(request, answer.headers, guard.allowed_origins(exchange.config, exchange.route))
    try:
        await answer.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await _copy_body(exchange.route, upstream.content, request, answer)
        await answer.write_eof()
    except aiohttp.ClientConnectionResetError:  # it is the client that has left
        raise
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
        if request.transport is not None:
            request.transport.close()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    finally:
        response.close()
    return answer


async def _copy_body(
    route: Route, body: aiohttp.StreamReader, request: web.BaseRequest, answer: Answer
) -> None:
    """Raises TimeoutError where the upstream sends nothing for ``idle``, or the client takes nothing for
    ``send``.
    """
    idle, send = route.idle_for(feed=False), route.timeouts.send
    while True:
        async with asyncio.timeout(idle):
            data = await body.readany()
        if not data:
            return
        await answer.put(data)
        await wait_for_room(request, send)
