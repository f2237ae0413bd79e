"""The operators' listener: metrics, liveness, readiness, and what is streaming right now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from proxy.server.report import snapshot
from proxy.server.wire import json_body
from proxy.stream.cursor import short

if TYPE_CHECKING:
    from proxy.server.app import Sidecar

SIDECAR: web.AppKey[Sidecar] = web.AppKey("sidecar")


def admin_app(sidecar: Sidecar) -> web.Application:
    """Return the application that the admin listener serves."""
    app = web.Application()
    app[SIDECAR] = sidecar
    app.router.add_get("/", index)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/streams", streams)
    return app


async def index(request: web.Request) -> web.Response:
    """What there is to ask for."""
    return web.Response(text="/metrics\n/healthz\n/readyz\n/streams\n")


async def metrics(request: web.Request) -> web.Response:
    """All metrics in the format that the scraper accepts."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    body = encode(request.app[SIDECAR].telemetry.registry)
    return web.Response(body=body, headers={"Content-Type": content_type})


async def healthz(request: web.Request) -> web.Response:
    """The process answers: liveness."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """New clients are welcome: readiness. 503 while draining."""
    if request.app[SIDECAR].ready:
        return web.Response(text="ready\n")
    return web.Response(status=503, text="draining\n")


async def streams(request: web.Request) -> web.Response:
    """The streams held, running ones first, as JSON. Ids are shortened: a whole one opens its stream."""
    hub = request.app[SIDECAR].hub
    kept = [relay for relay in hub.store if relay not in hub.running]
    rows = [
        {
            "stream": short(relay.id),
            "route": relay.route.name,
            "dialect": relay.dialect.name,
            "client": relay.birth.client,
            "paused": relay.paused,
            "recorded": relay.recorded,
            **snapshot(relay),
        }
        for relay in (*hub.running, *kept)
    ]
    return web.Response(body=json_body({"streams": rows}), content_type="application/json")
