"""Pages of other origins: those that were named may read and resume, all others are kept out."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from proxy.demo import Record, Running, expected_text
from tests.browser.conftest import OpenSite, Site
from tests.support.client import ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "/api/chat?prompt=hi&interval=0"

#: Asks for a stream, and resumes it by its id behind the fortieth block, all from another origin.
RESUME = """
  async (site) => {
    const first = await fetch(site + "/api/chat?prompt=hi&interval=0");
    const id = first.headers.get("Stream-Id");
    await first.text();
    const again = await fetch(site + "/_streams/" + id, {headers: {"Last-Event-ID": id + ".40"}});
    return {
      id,
      link: first.headers.get("Link"),
      from: again.headers.get("Stream-Resumed-From"),
      closed: again.headers.get("Stream-Closed"),
      rest: await again.text(),
    };
  }
"""

#: Whether a fetch gave the page anything to read.
READABLE = "(url) => fetch(url).then(() => true, () => false)"


async def finished_stream(site: Site) -> str:
    """Let a client that is no browser read a stream to its end; return its id."""
    answer = await ask(site.sidecar.url, PROMPT)
    await answer.rest()
    stream = answer.header("Stream-Id")
    assert stream is not None
    return stream


async def test_a_named_origin_resumes_by_fetch(
    page: Page, pages_port: int, open_site: OpenSite, provider: Running
) -> None:
    """Its page reads the stream's headers, and passes the preflight that ``Last-Event-ID`` needs."""
    home = f"http://app.example:{pages_port}"
    site = await open_site(provider.url, origins=[home])
    await page.goto(home)
    answer = await page.evaluate(RESUME, site.url)
    stream = answer["id"]
    assert stream in answer["link"]
    assert (answer["from"], answer["closed"]) == ("40", "true")
    assert answer["rest"].startswith(f"id: {stream}.41\n")
    assert len(provider.requests) == 1


async def test_a_named_origin_resumes_by_event_source(
    page: Page, pages_port: int, open_site: OpenSite, provider: Running
) -> None:
    """An EventSource cannot send a first ``Last-Event-ID``, so the cursor may stand in the query."""
    home = f"http://app.example:{pages_port}"
    site = await open_site(provider.url, origins=[home])
    stream = await finished_stream(site)
    await page.goto(home)
    await page.evaluate("(url) => follow(url)", f"{site.url}/_streams/{stream}?after=0")
    await page.wait_for_function("seen.at(-1)?.[0] === 'done'")
    texts = await page.evaluate("seen.slice(0, -1).map(([type, data]) => JSON.parse(data).text)")
    assert "".join(texts) == expected_text()


async def test_an_origin_that_was_not_named_reads_nothing(
    page: Page, pages_port: int, open_site: OpenSite, provider: Running
) -> None:
    """Neither the route nor a stream's own address can be read, by fetch or by EventSource."""
    site = await open_site(provider.url, origins=["http://app.example"])
    stream = await finished_stream(site)
    await page.goto(f"http://evil.example:{pages_port}")
    for url in (f"{site.url}{PROMPT}", f"{site.url}/_streams/{stream}"):
        assert not await page.evaluate(READABLE, url)
        await page.evaluate("(url) => follow(url)", url)
        await page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert await page.evaluate("seen") == []


async def test_the_same_page_may_read_what_is_its_own(
    page: Page, open_site: OpenSite, provider: Running
) -> None:
    """The page's own origin needs no permission, which shows that it was the origin that counted."""
    site = await open_site(provider.url, origins=["http://app.example"])
    stream = await finished_stream(site)
    await page.goto(f"{site.url}/page")
    for url in (f"{site.url}{PROMPT}", f"{site.url}/_streams/{stream}"):
        assert await page.evaluate(READABLE, url)


# A route that spends a credential of ours

SPENDING = {"set_headers": {"Authorization": "Bearer our-own-key"}}

#: Posts a form to ``url`` as a page does that wants no answer, only the effect.
POST_FORM = """
  (url) => {
    const form = document.createElement("form");
    form.method = "POST";
    form.enctype = "text/plain";
    form.action = url;
    form.innerHTML = `<input name='{"model":"demo-1","messages":[],"x":"' value='"}'>`;
    document.body.append(form);
    form.submit();
  }
"""


def asked(provider: Running) -> list[Record]:
    """What reached the provider, but for the icon that a browser wants for each page that it shows."""
    return [record for record in provider.requests if record.path != "/favicon.ico"]


async def submit(page: Page, url: str) -> int:
    """Submit the form and return the status of the answer that the browser then shows."""
    async with page.expect_response(url) as answering:
        await page.evaluate(POST_FORM, url)
    answer = await answering.value
    return answer.status


async def test_a_foreign_form_spends_nothing(
    page: Page, pages_port: int, open_site: OpenSite, provider: Running
) -> None:
    """Any page may post a form to a loopback address; this one is refused, and the provider never asked."""
    site = await open_site({"url": provider.url, **SPENDING})
    await page.goto(f"http://evil.example:{pages_port}")
    assert await submit(page, f"{site.url}/v1/chat/completions") == 403
    assert asked(provider) == []


async def test_a_foreign_fetch_spends_nothing(
    page: Page, pages_port: int, open_site: OpenSite, provider: Running
) -> None:
    """A fetch without CORS is sent by the browser all the same, and is refused here."""
    site = await open_site({"url": provider.url, **SPENDING})
    await page.goto(f"http://evil.example:{pages_port}")
    async with page.expect_response(f"{site.url}{PROMPT}") as answering:
        await page.evaluate("(url) => fetch(url, {mode: 'no-cors'}).then(() => {})", f"{site.url}{PROMPT}")
    assert (await answering.value).status == 403
    assert asked(provider) == []


async def test_a_rebound_name_spends_nothing(page: Page, open_site: OpenSite, provider: Running) -> None:
    """A foreign name that resolves to this machine makes its pages same-origin; only the Host tells."""
    site = await open_site({"url": provider.url, **SPENDING})
    rebound = f"http://evil.example:{site.forwarder.port}"
    await page.goto(f"{rebound}/page")
    assert (
        await page.evaluate("(url) => fetch(url).then((answer) => answer.status)", f"{rebound}{PROMPT}")
        == 403
    )
    assert asked(provider) == []


async def test_our_own_form_is_served(page: Page, open_site: OpenSite, provider: Running) -> None:
    """The same form from the sidecar's own page reaches the provider, with the credential."""
    site = await open_site({"url": provider.url, **SPENDING})
    await page.goto(f"{site.url}/page")
    assert await submit(page, f"{site.url}/v1/chat/completions") != 403
    (record,) = asked(provider)
    assert record.header("Authorization") == "Bearer our-own-key"
