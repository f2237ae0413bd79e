"""Pages for a browser, and a sidecar behind a wire that can be cut.

A module's tests share a browser, which takes longer to start than most of them to run: everything here lives
in the module's loop, and every test has a visitor of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page

from proxy.demo import Running
from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar, config_for, origins, providing, sidecars
from tests.support.forwarder import Forwarder
from tests.support.origin import PROGRAM_PATIENCE

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


@pytest_asyncio.fixture(loop_scope="module", params=[True, False], ids=["fast-path", "task"])
async def start_sidecar(request: pytest.FixtureRequest) -> AsyncIterator[StartSidecar]:
    """Start sidecars, as everywhere, in the module's loop."""
    async with sidecars(fast_path=request.param) as start:
        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def start_origin() -> AsyncIterator[StartOrigin]:
    """Start origins, as everywhere, in the module's loop."""
    async with origins() as start:
        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def provider() -> AsyncIterator[Running]:
    """The built-in provider, in the module's loop."""
    async with providing() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def page(shared_browser: Browser) -> AsyncIterator[Page]:
    """An empty tab of a new visitor."""
    async with await shared_browser.new_context() as context:
        page = await context.new_page()
        page.set_default_timeout(PROGRAM_PATIENCE * 1000)
        yield page


@pytest_asyncio.fixture(loop_scope="module")
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


@pytest_asyncio.fixture(loop_scope="module")
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
