"""fetch and sendBeacon in a real browser: text as it comes, an error where something is missing, a stop."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from proxy.demo import Running, State
from tests.browser.conftest import OpenSite
from tests.conftest import StartOrigin
from tests.support.origin import Connection

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Posts a prompt, and writes down each piece of text when it comes and how the body ended.
READ = """
  text = ""; ended = null;
  fetch("/chat", {method: "POST", body: "{}"}).then(async (response) => {
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) text += piece;
    return "clean";
  }).catch((error) => error.name).then((how) => { ended = how; });
"""


async def test_a_posted_stream_is_read_as_it_comes(
    page: Page, open_site: OpenSite, start_origin: StartOrigin
) -> None:
    """Each event is there before the upstream sends the next one, and the end is a clean one."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk("data: grün\n\n".encode())
        await page.wait_for_function("text.includes('data: grün\\n\\n')")
        await connection.chunk(b"data: two\n\n")
        await page.wait_for_function("text.includes('data: two\\n\\n')")
        await connection.end()

    origin = await start_origin(script)
    site = await open_site(origin.url)
    await page.goto(f"{site.url}/page")
    await page.evaluate(READ)
    await page.wait_for_function("ended")
    assert await page.evaluate("ended") == "clean"


async def test_a_truncated_stream_is_an_error(
    page: Page, open_site: OpenSite, start_origin: StartOrigin
) -> None:
    """What came is read, and then the read fails: a page cannot take half an answer for a whole one."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: one\n\ndata: tw")
        await page.wait_for_function("text.includes('data: one\\n\\n')")
        await connection.close()

    origin = await start_origin(script)
    site = await open_site(origin.url)
    await page.goto(f"{site.url}/page")
    await page.evaluate(READ)
    await page.wait_for_function("ended")
    assert await page.evaluate("ended") == "TypeError"
    assert "tw" not in await page.evaluate("text")


async def test_a_page_that_is_left_cancels_by_beacon(
    page: Page, open_site: OpenSite, provider: Running
) -> None:
    """A beacon to the cancel link stops the provider at once, though the stream would linger for ever."""
    site = await open_site(provider.url, route={"linger": "forever"})
    await page.goto(f"{site.url}/page")
    await page.evaluate("""
      fetch("/api/chat?prompt=hi&endless=1").then((response) => {
        const link = response.headers.get("Link").match(/<([^>]+)>; rel="cancel"/)[1];
        addEventListener("pagehide", () => navigator.sendBeacon(link));
        streaming = true;
      })
    """)
    await page.wait_for_function("window.streaming")
    (record,) = provider.requests
    assert record.running

    await page.goto("about:blank")
    await provider.ledger.until(lambda: not record.running)
    assert record.state is State.CLIENT_GONE
    assert site.sidecar.telemetry.route("all").cancels == {"client": 1}
