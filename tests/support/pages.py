"""The demo, and tabs of one browser that look at it: what all tests of a module's pages share. A plugin, too.

A page's Content-Security-Policy forbids ``eval``, and with it playwright's ``wait_for_function``:
``Tab.until`` looks from outside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from proxy.config import parse
from proxy.demo import Running, start_provider
from proxy.demo.run import DEMO_CONFIG
from proxy.server.app import Sidecar
from tests.support.browser import launched
from tests.support.origin import PROGRAM_PATIENCE

#: What Chromium says by itself of an answer that breaks off or is an error; no page can prevent it.
EXPECTED = ("net::ERR_INCOMPLETE_CHUNKED_ENCODING", "the server responded with a status of 429")


@dataclass(frozen=True, slots=True)
class DemoSite:
    """The demo in this process: the provider, and the sidecar in front of it."""

    provider: Running
    sidecar: Sidecar

    @property
    def playground(self) -> str:
        """The playground's address."""
        return f"{self.sidecar.url}/_playground"


@asynccontextmanager
async def demo_in_process(
    *, listen: str = "127.0.0.1:0", admin: str = "127.0.0.1:0"
) -> AsyncIterator[DemoSite]:
    """The demo as ``sse-sidecar demo`` serves it, with a faster heart: nobody wants to wait five seconds."""
    provider = await start_provider()
    text = DEMO_CONFIG.replace("heartbeat: 5s", "heartbeat: 200ms")
    environ = {"PROVIDER": provider.url, "LISTEN": listen, "ADMIN": admin}
    sidecar = Sidecar(parse(text, "demo", environ))
    await sidecar.start()
    try:
        yield DemoSite(provider, sidecar)
    finally:
        await sidecar.stop()
        await provider.close()


@dataclass(slots=True)
class Tab:
    """A tab, and what went wrong in it: errors on its console (the policy's too), and those nobody caught."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PROGRAM_PATIENCE * 1000)
        self.page.on("console", lambda told: self._note(told.text) if told.type == "error" else None)
        self.page.on("pageerror", lambda error: self._note(str(error)))

    def _note(self, fault: str) -> None:
        if not any(expected in fault for expected in EXPECTED):
            self.faults.append(fault)

    async def see(self, expression: str, argument: object = None) -> Any:
        """Evaluate an expression, or a function of ``argument``."""
        return await self.page.evaluate(expression, argument)

    async def until(self, expression: str, seconds: float = PROGRAM_PATIENCE) -> Any:
        """Wait until the expression is truthy, and return it."""
        deadline = time.monotonic() + seconds
        while not (found := await self.see(expression)):
            assert time.monotonic() < deadline, f"{expression} did not come true within {seconds} s"
            await asyncio.sleep(0.02)
        return found

    async def when(self, expression: str, act: str, *, then: str = "true") -> None:
        """As soon as the expression is truthy, act, and wait for what comes of it.

        All of it in the page: neither a stream nor the pause before a reconnect waits for us meanwhile.
        """
        await self.see(
            f"""async () => {{
              const until = (holds) => new Promise((done) => {{
                const look = () => (holds() ? done() : setTimeout(look, 5));
                look();
              }});
              await until(() => {expression});
              {act};
              await until(() => {then});
            }}"""
        )

    async def scrolls_sideways(self) -> bool:
        """Whether the page is wider than its window."""
        return bool(await self.see("document.documentElement.scrollWidth > window.innerWidth"))


OpenTab = Callable[..., Awaitable[Tab]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_browser(chromium: str) -> AsyncIterator[Browser]:
    """One browser for a module, whose tests run in the module's loop."""
    async with launched(chromium) as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo_site() -> AsyncIterator[DemoSite]:
    """One demo for a module."""
    async with demo_in_process() as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def open_tab(shared_browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[OpenTab]:
    """Open tabs at an address, each for a visitor of its own with playwright's settings of a context.

    A test in which one of them found a fault fails.
    """
    tabs: list[Tab] = []
    async with AsyncExitStack() as contexts:

        async def open_one(url: str, **settings: Any) -> Tab:
            context = await shared_browser.new_context(**settings)
            contexts.push_async_callback(context.close)
            tab = Tab(await context.new_page())
            tabs.append(tab)
            await tab.page.goto(url)
            return tab

        yield open_one
    assert [tab.faults for tab in tabs] == [[] for _ in tabs]


#: Says how strongly each text of a page stands out against what is behind it (WCAG 2.2, 1.4.3), weakest
#: first.
CONTRASTS = """
  () => {
    const parse = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
    const over = ([r, g, b, a = 1], below) => [r, g, b].map((part, each) => part * a + below[each] * (1 - a));
    const backdrop = (element) => {
      const layers = [];
      for (let each = element; each; each = each.parentElement) {
        layers.unshift(parse(getComputedStyle(each).backgroundColor));
      }
      return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const linear = (part) => (part <= 10 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const ratio = (one, other) => {
      const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
      return (light + 0.05) / (dark + 0.05);
    };
    const written = [...document.querySelectorAll("body *")].filter((element) =>
      element.checkVisibility({ opacityProperty: true }) && element.getClientRects().length &&
      [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
    return written
      .map((element) => {
        const behind = backdrop(element);
        const ink = over(parse(getComputedStyle(element).color), behind);
        return [ratio(ink, behind), element.outerHTML.slice(0, 100)];
      })
      .sort(([one], [other]) => one - other);
  }
"""

#: The least contrast of ordinary text that WCAG 2.2 asks for at level AA.
LEAST_CONTRAST = 4.5


async def faint(tab: Tab) -> list[Any]:
    """Return the texts that stand out too little; there must be some that were looked at."""
    found = await tab.see(CONTRASTS)
    assert len(found) > 20
    return [each for each in found if each[0] < LEAST_CONTRAST]
