"""Chromium before the shipped nginx configuration: twelve streams in a page, and an nginx that restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from proxy.config import Config
from proxy.server.app import Sidecar
from tests.browser.conftest import pages_port, start_origin
from tests.conftest import StartOrigin, StartSidecar, config_for, eventually, sidecars
from tests.nginx.conftest import Edge, StartEdge, edges
from tests.support.nginx import Certificate, free_port
from tests.support.origin import PROGRAM_PATIENCE, Origin
from tests.support.script import holds

__all__ = ["pages_port", "start_origin"]  # fixtures of the module's loop, as is all of them here

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def start_sidecar() -> AsyncIterator[StartSidecar]:
    """Start sidecars, as for every test of nginx."""
    async with sidecars(trusted_peers=["127.0.0.1"]) as start:
        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def start_edge(certificate: Certificate, nginx_command: list[str | Path]) -> AsyncIterator[StartEdge]:
    """Start nginx with the shipped template."""
    async with edges(certificate, nginx_command) as start:
        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def page(shared_browser: Browser) -> AsyncIterator[Page]:
    """A tab of a new visitor, who takes the test's certificate."""
    async with await shared_browser.new_context(ignore_https_errors=True) as context:
        page = await context.new_page()
        page.set_default_timeout(PROGRAM_PATIENCE * 1000)
        yield page


@dataclass(frozen=True, slots=True)
class Site:
    """An edge and a sidecar with a page at ``/page``, and the origin of everything else."""

    edge: Edge
    sidecar: Sidecar
    config: Config
    origin: Origin


@pytest_asyncio.fixture(loop_scope="module")
async def site(
    pages_port: int, start_origin: StartOrigin, start_sidecar: StartSidecar, start_edge: StartEdge
) -> Site:
    """A site."""
    origin = await start_origin(holds())
    config = config_for(
        "",
        listen=f"127.0.0.1:{free_port()}",
        upstreams={"pages": {"url": f"http://127.0.0.1:{pages_port}"}, "origin": {"url": origin.url}},
        routes=[
            {"name": "page", "path": "/page", "upstream": "pages"},
            {
                "name": "feeds",
                "path": "/{tail:.*}",
                "upstream": "origin",
                "retry": "100ms",
                "websocket": "bridge",
            },
        ],
    )
    sidecar = await start_sidecar(config)
    return Site(await start_edge(sidecar.url), sidecar, config, origin)


async def test_twelve_event_sources_in_a_page(page: Page, site: Site) -> None:
    """All stream at once over one HTTP/2 connection, where HTTP/1.1 would serve six and let six wait."""
    edge, origin = site.edge, site.origin
    await page.goto(f"{edge.url}/page")
    assert await page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    await page.evaluate("""() => {
      window.all = Array.from({length: 12}, () => []);
      window.sources = all.map((heard, n) => {
        const source = new EventSource(`/feed/${n}`);
        source.onmessage = (event) => heard.push(event.data);
        return source;
      });
    }""")
    feeds = [await origin.request(number + 1) for number in range(12)]
    for word in (b"one", b"two", b"three"):
        for feed in feeds:
            await feed.chunk(b"data: %b %b\n\n" % (word, feed.target.encode()))
        await page.wait_for_function(f"all.every((heard) => heard.at(-1)?.startsWith('{word.decode()} '))")
    heard = await page.evaluate("all")
    assert heard == [[f"{word} /feed/{number}" for word in ("one", "two", "three")] for number in range(12)]
    await page.evaluate("sources.forEach((source) => source.close())")


async def test_a_websocket_beside_http_2(page: Page, site: Site) -> None:
    """The browser opens it over a connection of its own, in HTTP/1.1, and gets the bridge."""
    await page.goto(f"{site.edge.url}/page")
    await page.evaluate("""() => {
      window.heard = [];
      window.socket = new WebSocket(`wss://${location.host}/chat`, "sse-sidecar.v1");
      socket.onopen = () => socket.send('{"prompt": "hi"}');
      socket.onmessage = (event) => heard.push(JSON.parse(event.data));
    }""")
    await (await site.origin.request()).chunk(b"data: 1\n\n")
    await page.wait_for_function("heard.length === 2")
    assert await page.evaluate("heard.map((frame) => frame.type)") == ["open", "event"]
    await page.evaluate("socket.close()")


async def test_nginx_restarts_in_the_middle(page: Page, site: Site) -> None:
    """The browser comes back by itself, and has every event once, those of the meantime too."""
    edge, origin = site.edge, site.origin
    await page.goto(f"{edge.url}/page")
    await page.evaluate("follow('/feed')")
    feed = await origin.request()
    await feed.chunk(b"data: 1\n\ndata: 2\n\n")
    await page.wait_for_function("seen.length === 2")

    await edge.nginx.stop()
    await feed.chunk(b"data: 3\n\n")
    await page.wait_for_function("errors.length")
    await edge.nginx.start()
    await page.wait_for_function("seen.length === 3")
    await feed.chunk(b"data: 4\n\n")
    await page.wait_for_function("seen.length === 4")

    assert [data for _, data, _ in await page.evaluate("seen")] == ["1", "2", "3", "4"]
    assert len(origin.requests) == 1
    await page.evaluate("source.close()")


async def test_the_sidecar_restarts_in_the_middle(
    page: Page, site: Site, start_sidecar: StartSidecar
) -> None:
    """While it is away nginx's own answer keeps the browser coming, which a 502 would stop for good."""
    await page.goto(f"{site.edge.url}/page")
    await page.evaluate("follow('/feed')")
    await (await site.origin.request()).chunk(b"data: 1\n\n")
    await page.wait_for_function("seen.length === 1")

    await site.sidecar.stop()
    # nginx answered while it could not connect:
    await eventually(
        lambda: '"connect_s":"-"' in site.edge.nginx.access_log(), "it came while none was there"
    )
    await start_sidecar(site.config)
    await (await site.origin.request(2)).chunk(b"data: 2\n\n")
    await page.wait_for_function("seen.at(-1)[1] === '2'")
    assert [kind for kind, _, _ in await page.evaluate("seen")] == ["message", "stream-gap", "message"]
    await page.evaluate("source.close()")
