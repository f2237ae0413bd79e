"""The operators' listener: metrics, liveness, readiness, what is streaming now, and a page for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from prometheus_client.exposition import choose_encoder

from proxy.errors import BadRequest, Refused
from proxy.server.guard import check_host, has_private_host
from proxy.server.listing import View, listing
from proxy.web.serving import serve, serve_named

if TYPE_CHECKING:
    from proxy.config import Config
    from proxy.server.app import Sidecar

SIDECAR: web.AppKey[Sidecar] = web.AppKey("sidecar")


def admin_app(sidecar: Sidecar) -> web.Application:
    """Return the application that the admin listener serves."""
    app = web.Application()
    app[SIDECAR] = sidecar
    app.on_response_prepare.append(_shut_out)
    app.router.add_get("/", index)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/streams", streams)
    app.router.add_get("/_assets/{asset}", serve_named)
    return app


async def _shut_out(_request: web.Request, answer: web.StreamResponse) -> None:
    """Keep pages of other origins from having an answer as an image, a script or anything else of theirs."""
    answer.headers.setdefault("X-Content-Type-Options", "nosniff")
    answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"


async def index(request: web.Request) -> web.Response:
    """For a browser the page with the streams; for whoever else asks, what there is to ask for."""
    if "text/html" in request.headers.get(hdrs.ACCEPT, ""):
        answer = serve(request, "streams.html")
    else:
        answer = web.Response(text="/metrics\n/healthz\n/readyz\n/streams\n")
    answer.headers[hdrs.VARY] = hdrs.ACCEPT
    return answer


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
    """The streams held, running ones first, as JSON; the query chooses among them, sorts and bounds.

    A page whose own name resolves to this listener (DNS rebinding) must not read whose streams these are:
    it answers to addresses, local names and those that the configuration lists.
    """
    hub = request.app[SIDECAR].hub
    try:
        if not has_private_host(request):
            check_host(request, _hosts(hub.config))
        view = View.read(request.query)
    except Refused as error:
        told = f"{error}: call it by its address, or list the name under 'admin.hosts'\n"
        raise web.HTTPForbidden(text=told) from None
    except BadRequest as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None
    body = await listing(hub, view)
    return web.Response(body=body, content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"})


def _hosts(config: Config) -> tuple[str, ...]:
    own = config.admin.hosts if config.admin is not None else None
    return (*(own or ()), *(config.hosts or ()))
