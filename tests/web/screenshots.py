"""Takes the pictures in docs/images: ``python -m tests.web.screenshots``.

The demo runs in this process, with a heartbeat of 200 ms; both pages are shown by day and by night.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import ClientSession
from playwright.async_api import Browser

from tests.support.browser import find_chromium, launched
from tests.support.command import PROJECT
from tests.support.pages import DemoSite, Tab, demo_in_process

IMAGES = PROJECT / "docs" / "images"
SCHEMES = ("light", "dark")

CHAT = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
MESSAGES = {**CHAT, "max_tokens": 100}
RESPONSES = {"model": "demo", "stream": True, "input": "hello"}
APP = {"prompt": "hello"}

#: What the operator's picture shows: streams that run, that think, that broke.
STREAMS: tuple[tuple[str, object], ...] = (
    ("/v1/chat/completions?drop_at=30&interval=0.01", CHAT),
    ("/v1/messages?error_at=12&interval=0.01", MESSAGES),
    ("/v1/chat/completions?interval=0.01&tokens=80", CHAT),
    ("/api/chat?endless=1&interval=0.1", APP),
    ("/v1/responses?endless=1&interval=0.03", RESPONSES),
    ("/v1/messages?endless=1&interval=0.02", MESSAGES),
    ("/v1/chat/completions?first_delay=60", CHAT),
    ("/v1/chat/completions?endless=1&interval=0.05", CHAT),
)


async def picture(tab: Tab, name: str) -> None:
    """Write what the tab shows."""
    await tab.page.screenshot(path=IMAGES / name)
    sys.stderr.write(f"docs/images/{name}: {(IMAGES / name).stat().st_size / 1000:.0f} kB\n")


async def visit(browser: Browser, url: str, scheme: str, height: int) -> Tab:
    """Open a tab."""
    context = await browser.new_context(
        viewport={"width": 1280, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    tab = Tab(await context.new_page())
    await tab.page.goto(url)
    return tab


async def playground(browser: Browser, site: DemoSite, scheme: str) -> None:
    """A stream that was dropped and resumed, and still runs."""
    tab = await visit(browser, site.playground, scheme, 900)
    await tab.page.click("#start")
    await tab.until("playground.panes[0]?.record.events > 60")
    await tab.page.click("#drop")
    await tab.until("playground.panes[0].record.resumes.length === 1")
    await tab.until("playground.panes[0].record.events > 150")
    await picture(tab, f"playground-{scheme}.png")
    await tab.page.click("#stop")
    await tab.until("playground.panes[0].verified")
    await tab.page.context.close()


@asynccontextmanager
async def busy(site: DemoSite) -> AsyncIterator[None]:
    """Some streams, one of which its reader has left."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(ClientSession(site.sidecar.url))
        left = await session.post("/v1/chat/completions?endless=1&interval=0.05", json=CHAT)
        left.close()
        for path, body in STREAMS:
            await stack.enter_async_context(session.post(path, json=body))
        for _ in range(2):
            await stack.enter_async_context(session.get("/api/events?interval=0.5"))
        yield


async def streams(browser: Browser, site: DemoSite, scheme: str) -> None:
    """The operators' page, with one stream unfolded."""
    tab = await visit(browser, f"{site.sidecar.admin_url}/", scheme, 1000)
    broken = "#rows tr[data-state=broken] button"
    await tab.until(f"document.querySelector('{broken}')")
    await tab.page.locator(broken).first.click()
    await asyncio.sleep(4)  # until rates have settled
    await picture(tab, f"streams-{scheme}.png")
    await tab.page.context.close()


async def main() -> None:
    """Take them all."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("no Chromium is installed")
    IMAGES.mkdir(exist_ok=True)
    async with launched(chromium) as browser:
        for scheme in SCHEMES:
            async with demo_in_process() as site:
                await playground(browser, site, scheme)
            async with demo_in_process() as site, busy(site):
                await streams(browser, site, scheme)


if __name__ == "__main__":
    asyncio.run(main())
