"""A prompt route and a real browser: its EventSource is served once, and no foreign page can make it ask."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.browser.conftest import OpenSite, Site
from tests.conftest import StartOrigin, StartSidecar, eventually, sidecars
from tests.support.origin import Connection
from tests.support.script import holds, streams

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOSED = 2

BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "${query.prompt}"}]}
ROUTE = {"path": "/ask", "retry": "20ms", "prompt": {"path": "/v1/chat/completions", "body": BODY}}
DONE = b"data: [DONE]\n\n"


@pytest_asyncio.fixture(loop_scope="module")
async def start_sidecar() -> AsyncIterator[StartSidecar]:
    """Start sidecars on the fast path alone: how events are read is no matter of who may ask for them."""
    async with sidecars() as start:
        yield start


def word(text: str) -> bytes:
    """One delta of an answer."""
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


async def ask(page: Page, prompt: str) -> None:
    """Let an EventSource of the page ask."""
    await page.evaluate("(prompt) => follow('/ask?' + new URLSearchParams({prompt}))", prompt)


async def heard(page: Page) -> list[Any]:
    """The data of what the page has heard."""
    return list(await page.evaluate("seen.map(([type, data, id]) => data)"))


async def test_an_answer_is_paid_for_once(page: Page, open_site: OpenSite, start_origin: StartOrigin) -> None:
    """The prompt arrives as it was typed; a cut in the middle costs nothing; at the end the page stops."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(word("a"))

    origin = await start_origin(script)
    site = await open_site(origin.url, route=ROUTE)
    await page.goto(f"{site.url}/page")
    prompt = 'Say "hi" & \\ + 100% 🌊\n${query.prompt} </script>'
    await ask(page, prompt)
    await page.wait_for_function("seen.length === 1")
    request = await origin.request()
    assert json.loads(request.body)["messages"][0]["content"] == prompt

    site.forwarder.cut()
    await request.chunk(word("b") + DONE)
    await request.end()
    await page.wait_for_function(f"source.readyState === {CLOSED}")
    assert await heard(page) == [part.decode()[6:-2] for part in (word("a"), word("b"), DONE)]
    assert len(origin.requests) == 1


async def test_a_drop_before_the_first_word_is_no_second_prompt(
    page: Page, open_site: OpenSite, start_origin: StartOrigin
) -> None:
    """The browser takes the id that comes without data, makes no event of it, and comes back with it."""
    origin = await start_origin(holds())
    site = await open_site(origin.url, route=ROUTE)
    await page.goto(f"{site.url}/page")
    await ask(page, "hi")
    await page.wait_for_function("source.readyState === 1")
    (relay,) = site.sidecar.hub.store
    sent = f"id: {relay.id}.0\n".encode()
    await eventually(lambda: any(sent in wire.received for wire in site.forwarder.wires), "the id")

    site.forwarder.cut()
    await page.wait_for_function("errors.length === 1")
    await eventually(lambda: relay.tally.resumes == 1, "a resume")
    await (await origin.request()).chunk(word("a"))
    await page.wait_for_function("seen.length === 1")
    assert await page.evaluate("seen[0][2]") == f"{relay.id}.1"
    assert len(origin.requests) == 1


#: Whatever a page can do to have a GET sent, and a word of when it is over. None of it is allowed to read.
ATTACKS = """
  async (url) => {
    const over = (element, add) => new Promise((done) => {
      element.onload = element.onerror = done;
      add(element);
    });
    const append = (element) => document.body.append(element);
    const make = (name, fields) => Object.assign(document.createElement(name), fields);
    const accept = {headers: {Accept: "text/event-stream"}};
    const failed = () => null;
    const source = new EventSource(url);
    await new Promise((done) => { source.onerror = source.onopen = done; });
    await fetch(url, {mode: "no-cors", referrerPolicy: "no-referrer", ...accept}).catch(failed);
    await fetch(url, {mode: "no-cors", ...accept}).catch(failed);
    await fetch(url, accept).catch(failed);
    await over(make("img", {src: url}), append);
    await over(make("script", {src: url}), append);
    await over(make("link", {rel: "stylesheet", href: url}), append);
    await over(make("iframe", {src: url}), append);
    return source.readyState;
  }
"""


def at(site: Site, name: str) -> str:
    """The site under another name of this machine."""
    return f"http://{name}:{urlsplit(site.url).port}"


@pytest.mark.parametrize("name", ["localhost", "ask.example"], ids=["trustworthy", "plain-http"])
async def test_a_foreign_page_cannot_ask(
    name: str, page: Page, pages_port: int, open_site: OpenSite, start_origin: StartOrigin
) -> None:
    """To this machine, and over https, a browser says where it comes from; elsewhere its Referer counts."""
    origin = await start_origin(streams(word("a"), DONE))
    site = await open_site(origin.url, route=ROUTE, hosts=[name])
    await page.goto(f"http://evil.example:{pages_port}/")
    assert await page.evaluate(ATTACKS, f"{at(site, name)}/ask?prompt=hi") == CLOSED
    refusals = site.answers(403) + site.answers(406)
    assert refusals == 8
    assert not origin.requests


async def test_a_page_over_plain_http_can_ask(
    page: Page, open_site: OpenSite, start_origin: StartOrigin
) -> None:
    """Its browser says neither Sec-Fetch-Site nor Origin, but names the page in Referer."""
    origin = await start_origin(streams(word("a"), DONE))
    site = await open_site(origin.url, route=ROUTE, hosts=["ask.example"])
    await page.goto(f"{at(site, 'ask.example')}/page")
    await ask(page, "hi")
    await page.wait_for_function(f"source.readyState === {CLOSED}")
    assert len(await heard(page)) == 2
    assert len(origin.requests) == 1
    (asked, *_) = [wire.sent for wire in site.forwarder.wires if b"GET /ask" in wire.sent]
    head = asked[asked.index(b"GET /ask") :]
    assert b"sec-fetch-site" not in head.lower()
