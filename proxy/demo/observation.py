"""Enters every request in the ledger, and shows the ledger under ``/_provider/``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy.demo.ledger import Ledger, Record, State

LEDGER = web.AppKey("LEDGER", Ledger)
_RECORD = web.RequestKey("RECORD", Record)

_PREFIX = "/_provider/"

#: Looking at the ledger leaves no trace in it, nor does what the page that does so consists of.
_UNSEEN = (_PREFIX, "/_playground")


def record_of(request: web.Request) -> Record:
    """The record of a request that is being handled."""
    return request[_RECORD]


@web.middleware
async def observe(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Open a record, close it with the way in which the request went."""
    if request.path.startswith(_UNSEEN):
        return await handler(request)
    record = request.app[LEDGER].open(
        method=request.method, target=request.raw_path, headers=list(request.headers.items())
    )
    request[_RECORD] = record
    try:
        response = await handler(request)
    except (asyncio.CancelledError, ConnectionError):
        # The runner cancels a handler when its connection is lost, however long it would have slept. One that
        # was about to write hears of it first, and is treated alike: the runner would log a traceback.
        record.end(State.CLIENT_GONE)
        raise asyncio.CancelledError from None
    finally:
        record.end(State.FINISHED)
    return response


async def show_requests(request: web.Request) -> web.Response:
    """The records held, oldest first."""
    return web.json_response([record.as_json() for record in request.app[LEDGER].records])


async def show_request(request: web.Request) -> web.Response:
    """One record, or 404."""
    number = int(request.match_info["number"])
    record = request.app[LEDGER].find(number)
    if record is None:
        return web.json_response({"error": f"no record of request {number} is held"}, status=404)
    return web.json_response(record.as_json())


async def show_open(request: web.Request) -> web.Response:
    """The number of streams that run now."""
    return web.json_response(text=json.dumps({"open": request.app[LEDGER].open_streams}) + "\n")


def routes() -> list[web.RouteDef]:
    """The endpoints that show the ledger."""
    return [
        web.get(f"{_PREFIX}requests", show_requests),
        web.get(rf"{_PREFIX}requests/{{number:\d{{1,12}}}}", show_request),
        web.get(f"{_PREFIX}open", show_open),
    ]
