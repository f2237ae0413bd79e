"""``client.js`` in Chromium: what only a browser has: frames, pages that are left, no network."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from proxy.demo import State
from tests.conftest import eventually
from tests.web.conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = json.dumps({"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hello"}]})


def chat(query: str, options: str = "", origin: str = "") -> str:
    """JavaScript that begins a chat."""
    return f"openStream('{origin}/v1/chat/completions?{query}', {{ body: {ASK}, observe, {options} }})"


async def seqs(page: Page) -> list[int]:
    """The numbers of the events that the page has."""
    return [event[3] for event in await page.evaluate("events")]


async def of_type(page: Page, kind: str) -> list[dict[str, Any]]:
    """What the page's observer was told of one kind."""
    told = await page.evaluate("(kind) => told.filter(({ type }) => type === kind)", kind)
    assert isinstance(told, list)
    return told


DRAW = """
  async (hidden) => {
    let frame = 0;
    if (hidden) {
      Object.defineProperty(document, "hidden", { value: true });
      window.requestAnimationFrame = () => 0;
    } else {
      const count = () => { frame += 1; requestAnimationFrame(count); };
      requestAnimationFrame(count);
    }
    const frames = [];
    let size = 0;
    for await (const events of perFrame(ANSWER)) {
      frames.push(frame);
      size += events.length;
      output.textContent += events.map((event) => event.json?.choices[0]?.delta.content ?? "").join("");
    }
    return { frames, size };
  }
""".replace("ANSWER", chat("tokens=600&interval=0.001"))


async def test_a_page_is_drawn_at_most_once_a_frame(site: Site, shared_browser: Browser) -> None:
    """Six hundred tokens come faster than frames: each frame sees one bundle, and the text is whole."""
    page = await site.open(shared_browser)
    drawn = await page.evaluate(DRAW, False)
    assert drawn["size"] == 603
    assert len(drawn["frames"]) == len(set(drawn["frames"]))
    assert len(drawn["frames"]) < drawn["size"], "no frame saw more than one event"
    text = await page.text_content("#output")
    assert text is not None
    assert len(text.split()) == 600


async def test_a_hidden_page_goes_on(site: Site, shared_browser: Browser) -> None:
    """In the background no frame is ever drawn; bundles come by timer."""
    page = await site.open(shared_browser)
    drawn = await page.evaluate(DRAW, True)
    assert drawn["size"] == 603
    assert len(drawn["frames"]) < drawn["size"] / 2


async def test_a_page_that_is_left_cancels_nothing(site: Site, shared_browser: Browser) -> None:
    """Its connection is gone, and the stream waits for somebody to come back."""
    page = await site.open(shared_browser)
    await page.evaluate(f"() => void collect({chat('endless=1&interval=0.01')})")
    await page.wait_for_function("answer.seq > 3")
    await page.goto("about:blank")
    (relay,) = site.sidecar.hub.store
    await eventually(lambda: not relay.readers, "a stream without readers")
    assert not relay.finished
    (record,) = [each for each in site.provider.requests if each.streaming]
    assert record.running


async def test_a_page_can_cancel_as_it_is_left(site: Site, shared_browser: Browser) -> None:
    """The cancel leaves although the page does not wait for its answer."""
    page = await site.open(shared_browser)
    await page.evaluate(f"() => void collect({chat('endless=1&interval=0.01')})")
    await page.wait_for_function("answer.seq > 3")
    await page.evaluate("() => addEventListener('pagehide', () => void answer.cancel())")
    await page.goto("about:blank")
    (record,) = [each for each in site.provider.requests if each.streaming]
    await site.provider.ledger.until(lambda: not record.running)
    assert record.state is State.CLIENT_GONE
    assert site.sidecar.telemetry.route("all").cancels == {"client": 1}


async def test_without_a_network_it_waits_for_one(site: Site, shared_browser: Browser) -> None:
    """Offline nothing is tried; as soon as it is online the rest comes, though the pause would be long."""
    page = await site.open(shared_browser)
    options = "retry: { max: 600_000 }"
    await page.evaluate(f"() => void collect({chat('interval=0.02', options)}).then(() => (done = true))")
    await page.wait_for_function("answer.seq > 5")
    await page.context.set_offline(True)
    site.wire.cut()
    await page.wait_for_function("answer.state === 'waiting'")
    (relay,) = site.sidecar.hub.store
    await eventually(lambda: relay.finished, "the end of the stream, meanwhile")
    wires = len(site.wire.wires)
    assert await page.evaluate("answer.state") == "waiting"

    await page.context.set_offline(False)
    await page.wait_for_function("window.done")
    assert await seqs(page) == list(range(1, 44))
    assert len(site.wire.wires) > wires
    assert len([each for each in site.provider.requests if each.streaming]) == 1


async def test_it_hears_what_an_event_source_hears(site: Site, shared_browser: Browser) -> None:
    """Side by side on one feed, over a wire that is cut: the same names, data and ids."""
    page = await site.open(shared_browser)
    await page.evaluate("""
      () => {
        window.heard = [];
        const source = new EventSource("/api/events?interval=0.02");
        for (const name of ["message", "tick", "note"]) {
          source.addEventListener(name, (event) => heard.push([event.type, event.data, event.lastEventId]));
        }
        void collect(openStream("/api/events?interval=0.02", { feed: true }));
      }
    """)
    for so_many in (5, 15):
        await page.wait_for_function(f"heard.length >= {so_many} && events.length >= {so_many}")
        site.wire.cut()
    await page.wait_for_function("heard.length >= 30 && events.length >= 30")
    heard, events = await page.evaluate("[heard, events]")
    assert [event[:3] for event in events[:30]] == heard[:30]


async def test_a_foreign_page_resumes_with_its_headers(site: Site, shared_browser: Browser) -> None:
    """From another origin: preflights are answered, ids and links can be read, and a resume is as allowed."""
    page = await site.open(shared_browser, site.pages)
    options = "headers: { 'X-User': 'ann', Authorization: 'Bearer t' }"
    drop = "seq % 15 === 5 && answer.drop()"
    await page.evaluate(f"""
      async () => {{
        window.events = [];
        window.answer = {chat("interval=0.005", options, site.wire.url)};
        for await (const {{ event, data, id, seq }} of answer) {{
          events.push([event, data, id, seq]);
          {drop};
        }}
      }}
    """)
    assert await seqs(page) == list(range(1, 44))
    assert await of_type(page, "resume")
    assert await page.evaluate("answer.end.reason") == "complete"
    resumed = [bytes(wire.sent) for wire in site.wire.wires if b"?after=" in wire.sent]
    assert any(
        b"GET /_streams/" in sent and b"authorization: Bearer t" in sent.replace(b"A", b"a")
        for sent in resumed
    )


async def test_the_browsers_own_websocket(site: Site, shared_browser: Browser) -> None:
    """A relative address, a token among the subprotocols, a wire that is cut, and a stop."""
    page = await site.open(shared_browser)
    await page.evaluate(f"""
      () => void collect(openSocket("/v1/chat/completions?interval=0.01&endless=1",
        {{ body: {ASK}, token: "secret", observe, retry: {{ delay: 10 }} }}))
    """)
    await page.wait_for_function("events.length > 5")
    site.wire.cut()
    await page.wait_for_function("told.some(({ type }) => type === 'resume') && events.length > 20")
    assert await page.evaluate("answer.cancel()") == {
        "reason": "cancelled",
        "message": "cancelled by the client",
    }
    got = await seqs(page)
    assert got == list(range(1, len(got) + 1))
    (record,) = [each for each in site.provider.requests if each.streaming]
    await site.provider.ledger.until(lambda: not record.running)


async def test_a_stream_that_ended_badly_is_read_again_soon(site: Site, shared_browser: Browser) -> None:
    """Chromium loses what comes together with a broken end; what is missing is asked for without a pause."""
    page = await site.open(shared_browser)
    begun = "collect(openStream('/api/chat?drop_at=30&interval=0', { body: { prompt: 'x' } }))"
    assert await page.evaluate(begun) == "truncated"
    again = "async () => [await collect(openStream('/', { stream: answer.stream })), performance.now()]"
    for _ in range(5):
        before = await page.evaluate("performance.now()")
        reason, after = await page.evaluate(again)
        assert reason == "truncated"
        assert await seqs(page) == list(range(1, 31))
        assert after - before < 5000
