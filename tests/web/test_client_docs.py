"""The examples of docs/client.md and of the README, as modules in a page: each shows what it promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from proxy.demo import expected_text
from tests.web.conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")

README = Path(__file__).parents[2] / "README.md"
MANUAL = README.parent / "docs" / "client.md"


def example(heading: str, page: Path = MANUAL) -> str:
    """The script under a heading that reads with the module."""
    section = page.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (script,) = re.findall(r"^```js\n(import .*?)^```$", section, re.M | re.S)
    assert isinstance(script, str)
    assert len(script.splitlines()) <= 12
    return script


async def run(page: Page, script: str) -> None:
    """Run a script as a module of the page."""
    await page.add_script_tag(content=script, type="module")


def shows(text: str) -> str:
    """A condition: the page's output is this text."""
    return f"document.querySelector('#output').textContent === {text!r}"


@pytest.mark.parametrize("heading", ["A chat", "One DOM update a frame", "Over a WebSocket"])
async def test_the_whole_text_is_shown(site: Site, shared_browser: Browser, heading: str) -> None:
    """The demo's answer stands on the page, to the last word."""
    page = await site.open(shared_browser)
    await run(page, example(heading))
    await page.wait_for_function(shows(expected_text()))


async def test_the_readme_s_example_shows_the_whole_text(site: Site, shared_browser: Browser) -> None:
    """Although the connection is lost on the way."""
    page = await site.open(shared_browser)
    await run(page, example("Resume in a browser", README))
    await page.wait_for_function("document.querySelector('#output').textContent.length > 20")
    site.wire.cut()
    await page.wait_for_function(shows(expected_text()))


async def test_stop_stops(site: Site, shared_browser: Browser) -> None:
    """The button ends the loop, and the provider."""
    page = await site.open(shared_browser)
    await run(page, example("A stop button"))
    await page.wait_for_function("document.querySelector('#output').textContent.length > 20")
    await page.evaluate("document.querySelector('#stop').click()")
    await page.wait_for_function("document.querySelector('#output').textContent.endsWith(' (cancelled)')")
    (record,) = [each for each in site.provider.requests if each.streaming]
    await site.provider.ledger.until(lambda: not record.running)


async def test_the_feed_goes_on(site: Site, shared_browser: Browser) -> None:
    """Events of the demo's feed become items of a list, with the app's ids."""
    page = await site.open(shared_browser)
    await run(page, example("A feed").replace("/api/events", "/api/events?interval=0.02"))
    await page.wait_for_function("document.querySelectorAll('li').length >= 3")
    site.wire.cut()
    await page.wait_for_function("document.querySelectorAll('li').length >= 20")
    items = await page.evaluate(
        "[...document.querySelectorAll('li')].slice(0, 20).map((item) => item.textContent)"
    )
    assert [item.partition(":")[0] for item in items] == [str(number) for number in range(1, 21)]


async def test_a_reload_goes_on(site: Site, shared_browser: Browser) -> None:
    """What the page had before it was loaded again, and what it has after, is the whole text."""
    page = await site.open(shared_browser)
    await run(page, example("A second viewer, and a reload"))
    await page.wait_for_function("document.querySelector('#output').textContent.length > 20")
    before = await page.evaluate("() => [output.textContent, JSON.parse(sessionStorage.stream).after]")
    await page.reload()
    await page.wait_for_function("window.ready")
    await run(page, example("A second viewer, and a reload"))
    await page.wait_for_function(
        f"({expected_text()!r}).endsWith(output.textContent) && output.textContent.endsWith('none')"
    )
    after = await page.evaluate("output.textContent")
    assert expected_text().startswith(before[0])
    assert (
        len(before[0]) + len(after) >= len(expected_text()) - 20
    )  # what came between the look and the reload
    assert len([each for each in site.provider.requests if each.streaming]) == 1


async def test_an_error_is_told(site: Site, shared_browser: Browser) -> None:
    """The provider's words stand on the page."""
    page = await site.open(shared_browser)
    await run(page, example("Errors"))
    await page.wait_for_function("document.querySelector('#output').textContent.startsWith('429: ')")
