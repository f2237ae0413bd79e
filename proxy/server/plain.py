"""Everything that is no stream: the upstream's answer as it is, passed on piece by piece."""

from __future__ import annotations

import aiohttp
from aiohttp import hdrs, web

from proxy.server import cors, guard
from proxy.server.exchange import Exchange
from proxy.server.headers import NOT_RETURNED, end_to_end
from proxy.server.upstream import Response
from proxy.server.wire import Answer


async def pass_on(exchange: Exchange, response: Response) -> web.StreamResponse:
    """Answer with the upstream's response, untouched but for hop-by-hop fields.

    Where the upstream breaks off in the middle, so does the answer: its connection is closed before
    the length or the last chunk that was promised, and the client notices.
    """
    upstream, request = response.answer, exchange.request
    answer = Answer(
        status=upstream.status,
        reason=upstream.reason or "",
        headers=end_to_end(upstream.headers, NOT_RETURNED if exchange.credentials else ()),
    )
    cors.allow(request, answer.headers, guard.allowed_origins(exchange.config, exchange.route))
    try:
        await answer.prepare(request)
        if request.method != hdrs.METH_HEAD:
            async for data in upstream.content.iter_any():
                await answer.write(data)
        await answer.write_eof()
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
        if isinstance(error, aiohttp.ClientConnectionResetError):  # it is the client that has left
            raise
        if request.transport is not None:
            request.transport.close()
    finally:
        response.close()
    return answer
