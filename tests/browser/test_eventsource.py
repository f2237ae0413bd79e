"""EventSource in a real browser: it hears everything once, comes back by itself, and knows when to stop."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from proxy.demo import Running, expected_text
from tests.browser.conftest import OpenSite
from tests.conftest import StartOrigin, eventually
from tests.support.forwarder import Forwarder
from tests.support.origin import Connection

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: readyState, as the standard numbers it.
CONNECTING, OPEN, CLOSED = 0, 1, 2


async def send(connection: Connection, *numbers: int) -> None:
    """Send one event for each number, with the number as its data."""
    for number in numbers:
        await connection.chunk(b"data: %d\n\n" % number)


async def heard(page: Page) -> list[str]:
    """Return the data of the events that the page has heard."""
    data = await page.evaluate("seen.map(([type, data, id]) => data)")
    assert isinstance(data, list)
    return data


async def test_every_event_is_heard_once(page: Page, open_site: OpenSite, provider: Running) -> None:
    """Names, data and ids of a whole stream arrive in order, and its heartbeats are no events."""
    site = await open_site(provider.url, route={"heartbeat": "50ms"})
    await page.goto(f"{site.url}/page")
    await page.evaluate("follow('/api/chat?prompt=hi&first_delay=0.3&interval=0')")
    await page.wait_for_function("seen.at(-1)?.[0] === 'done'")

    (relay,) = site.sidecar.hub.store
    assert relay.tally.heartbeats
    events = await page.evaluate("seen")
    assert [name for name, _, _ in events] == ["token"] * 40 + ["done"]
    assert [last_id for _, _, last_id in events] == [f"{relay.id}.{seq}" for seq in range(1, 42)]
    texts = await page.evaluate("seen.slice(0, -1).map(([type, data]) => JSON.parse(data).text)")
    assert "".join(texts) == expected_text()
    assert await page.evaluate("errors") == []


async def test_a_cut_connection_is_resumed(
    page: Page, open_site: OpenSite, start_origin: StartOrigin
) -> None:
    """The browser comes back with ``Last-Event-ID``, and hears what it missed, then what follows."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await send(connection, 1, 2, 3)
        await connection.gone()

    origin = await start_origin(script)
    site = await open_site(origin.url, route={"retry": "100ms"})
    await page.goto(f"{site.url}/page")
    await page.evaluate("follow('/feed')")
    await page.wait_for_function("seen.length === 3")

    upstream = await origin.request(1)
    site.forwarder.cut()
    await send(upstream, 4, 5, 6)
    await page.wait_for_function("seen.length === 6")
    await send(upstream, 7)
    await page.wait_for_function("seen.length === 7")

    assert await heard(page) == ["1", "2", "3", "4", "5", "6", "7"]
    assert await page.evaluate("errors") == [CONNECTING]
    assert await page.evaluate("source.readyState") == OPEN
    (relay,) = site.sidecar.hub.store
    assert relay.tally.resumes == 1
    assert f"\r\nLast-Event-ID: {relay.id}.3\r\n".encode() in site.forwarder.wires[-1].sent
    assert len(origin.requests) == 1


async def test_a_wire_that_breaks_again_and_again(page: Page, open_site: OpenSite, provider: Running) -> None:
    """Each connection carries 2,000 bytes and breaks anywhere, in the middle of a block or of its id."""
    site = await open_site(provider.url, route={"retry": "10ms", "finished": "stop"})
    await page.goto(f"{site.url}/page")
    site.forwarder.cut()  # the page's own connection would be used again
    site.forwarder.allowance = 2000
    await page.evaluate("follow('/api/chat?prompt=hi&tokens=300&interval=0.001')")
    await page.wait_for_function("seen.at(-1)?.[0] === 'done'")

    (relay,) = site.sidecar.hub.store
    ids = await page.evaluate("seen.map(([type, data, id]) => id)")
    assert ids == [f"{relay.id}.{seq}" for seq in range(1, 302)]
    assert relay.tally.resumes > 10
    assert len(provider.requests) == 1


async def test_a_finished_stream_is_not_asked_for_again(
    page: Page, open_site: OpenSite, start_origin: StartOrigin
) -> None:
    """At its end a stream answers 204, the standard's way to tell an EventSource to stop."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await send(connection, 1, 2, 3)
        await connection.end()

    origin = await start_origin(script)
    site = await open_site(origin.url, route={"retry": "20ms", "finished": "stop"})
    await page.goto(f"{site.url}/page")
    for streams in (1, 2):  # while the second stream comes to its end, the first would ask again
        await page.evaluate("seen = []; errors = []; follow('/feed')")
        await page.wait_for_function(f"source.readyState === {CLOSED}")
        assert await heard(page) == ["1", "2", "3"]
        assert await page.evaluate("errors") == [CONNECTING, CLOSED]
        assert (site.answers(200), site.answers(204)) == (streams, streams)
        assert len(origin.requests) == streams


async def test_a_feed_survives_its_upstream(
    page: Page, open_site: OpenSite, start_origin: StartOrigin
) -> None:
    """While the upstream is down the browser is told to come again, and never that it should give up."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await send(connection, len(origin.requests))
        await connection.gone()

    origin = await start_origin(script)
    async with Forwarder(origin.url) as upstream:
        site = await open_site(upstream.url, route={"retry": "20ms"})
        await page.goto(f"{site.url}/page")
        await page.evaluate("follow('/feed')")
        await page.wait_for_function("seen.length === 1")

        await upstream.stop()
        failures = site.sidecar.telemetry.process.upstream_errors
        await eventually(lambda: failures["origin", "upstream-unreachable"], "a request in vain")
        await page.wait_for_function("errors.length >= 2")

        await upstream.start()
        await page.wait_for_function("seen.length === 2")
        assert await heard(page) == ["1", "2"]
        assert set(await page.evaluate("errors")) == {CONNECTING}


async def test_a_full_sidecar_asks_for_patience(
    page: Page, open_site: OpenSite, start_origin: StartOrigin
) -> None:
    """An EventSource that finds no room waits, and gets in when there is some."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await send(connection, len(origin.requests))
        await connection.gone()

    origin = await start_origin(script)
    site = await open_site(origin.url, route={"linger": "0s"}, limits={"streams": 1})
    await page.goto(f"{site.url}/page")
    await page.evaluate("follow('/first'); first = source")
    await page.wait_for_function("seen.length === 1")
    await page.evaluate("follow('/second')")
    await page.wait_for_function("errors.length === 1")
    assert await page.evaluate("source.readyState") == CONNECTING

    await page.evaluate("first.close()")
    await page.wait_for_function(f"source.readyState === {OPEN} && seen.length === 2")
    assert set(await page.evaluate("errors")) == {CONNECTING}
