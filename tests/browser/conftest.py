"""Pages for a browser, and a sidecar behind a wire that can be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from proxy.server.app import Sidecar
from tests.conftest import StartSidecar, config_for
from tests.support.forwarder import Forwarder

#: A page that writes down what its EventSource hears: events by name, data and id, and after each
#: error whether it means to come back (0) or has given up (2).
PAGE = """\
<!doctype html>
<title>A page</title>
<link rel="icon" href="data:,">
<script>
  var source, seen = [], errors = [];

  function note(event) {
    seen.push([event.type, event.data, event.lastEventId]);
    if (event.type === "done") source.close();
  }

  function follow(url) {
    source = new EventSource(url);
    for (const name of ["message", "token", "done", "stream-gap"]) source.addEventListener(name, note);
    source.onerror = () => errors.push(source.readyState);
  }
</script>
"""


@pytest.fixture
async def pages_port() -> AsyncIterator[int]:
    """The port of a server that has ``PAGE`` under any path, to be called by any name."""

    async def show(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", show)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@dataclass(frozen=True, slots=True)
class Site:
    """A sidecar with a page at ``/page`` and everything else at an upstream, behind a forwarder."""

    sidecar: Sidecar
    forwarder: Forwarder

    @property
    def url(self) -> str:
        """The origin under which the browser knows it."""
        return self.forwarder.url

    def answers(self, status: int) -> int:
        """How many GETs at the upstream's route were answered with ``status``."""
        return self.sidecar.telemetry.route("all").requests["GET", status]


OpenSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def open_site(pages_port: int, start_sidecar: StartSidecar) -> AsyncIterator[OpenSite]:
    """Open sites in front of an upstream (a URL, or its settings), configured as by ``config_for``."""
    async with AsyncExitStack() as forwarders:

        async def open_one(
            upstream: str | dict[str, Any], *, route: dict[str, Any] | None = None, **top: Any
        ) -> Site:
            origin = {"url": upstream} if isinstance(upstream, str) else upstream
            config = config_for(
                "",
                upstreams={"pages": {"url": f"http://127.0.0.1:{pages_port}"}, "origin": origin},
                routes=[
                    {"name": "page", "path": "/page", "upstream": "pages"},
                    {"name": "all", "path": "/{tail:.*}", "upstream": "origin", **(route or {})},
                ],
                **top,
            )
            sidecar = await start_sidecar(config)
            return Site(sidecar, await forwarders.enter_async_context(Forwarder(sidecar.url)))

        yield open_one
