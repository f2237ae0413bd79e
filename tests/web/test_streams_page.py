"""The operators' page in a real browser: what streams is there by itself, and how it ended stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Route

from proxy.demo import Running
from proxy.server.app import Sidecar
from tests.conftest import config_for, eventually
from tests.support.client import Answer, ask
from tests.support.origin import PROGRAM_PATIENCE
from tests.support.pages import DemoSite, OpenTab, Tab, demo_in_process, faint

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}
PROMPT = b'{"prompt":"hi"}'


async def begin(site: DemoSite, query: str = "endless=1&interval=0.02") -> Answer:
    """Begin a stream of the app's."""
    return await ask(site.sidecar.url, f"/api/chat?{query}", method="POST", headers=JSON, body=PROMPT)


def short_id(answer: Answer) -> str:
    """What may be shown of a stream's id."""
    return (answer.header("stream-id") or "")[:6]


async def cells(tab: Tab, stream: str) -> dict[str, str] | None:
    """A stream's row on the page, by column; None where there is none."""
    found = await tab.see(
        """(stream) => {
          const rows = [...document.querySelectorAll("#rows tr:not(.more)")];
          const cells = rows.map((row) => [...row.cells]).find(([id]) => id.innerText.trim() === stream);
          return cells && Object.fromEntries(cells.map((cell) => [cell.dataset.column, cell.innerText]));
        }""",
        stream,
    )
    assert found is None or isinstance(found, dict)
    return found


async def until_row(tab: Tab, stream: str, **wanted: str) -> dict[str, str]:
    """Wait until a stream's row says so, and return it."""
    async with asyncio.timeout(PROGRAM_PATIENCE):
        while True:
            row = await cells(tab, stream)
            if row is not None and all(row[column] == value for column, value in wanted.items()):
                return row
            await asyncio.sleep(0.03)


async def cancel(site: DemoSite, answer: Answer) -> None:
    """Stop a stream at its address."""
    await ask(site.sidecar.url, f"/_streams/{answer.header('stream-id')}", method="DELETE")


async def test_a_stream_from_its_beginning_to_its_end(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """It is there by itself, its events grow, and it ends for a reason; its whole id is nowhere."""
    tab = await open_tab(demo_site.sidecar.admin_url)
    answer = await begin(demo_site)
    await answer.blocks(2)
    first = await until_row(tab, short_id(answer), state="live")
    assert (first["route"], first["client"], first["readers"]) == ("all", "127.0.0.1", "1")
    await tab.until("parseFloat(document.querySelector('[data-column=rate]').textContent) > 0")
    later = await until_row(tab, short_id(answer))
    assert int(later["events"]) > int(first["events"])
    assert 1 < float(later["rate"]) < 200  # fifty, on a machine with nothing else to do
    assert await tab.page.inner_text("[data-total=running]") == "1"

    await cancel(demo_site, answer)
    last = await until_row(tab, short_id(answer), state="cancelled", readers="0")
    assert last["age"].endswith("ago")
    assert last["rate"] == last["silent"] == ""
    assert (answer.header("stream-id") or "-") not in await tab.page.content()


async def test_how_it_broke_stands_beside_it(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """The message without a click; what the log would say, with one."""
    answer = await ask(
        demo_site.sidecar.url,
        "/v1/chat/completions?drop_at=7&interval=0",
        method="POST",
        headers=JSON,
        body=b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}',
    )
    await answer.rest()
    tab = await open_tab(f"{demo_site.sidecar.admin_url}/#state=broken")
    row = await until_row(tab, short_id(answer), route="all · openai", events="8")
    state, message = row["state"].split("\n")
    assert state == "truncated"
    assert message == "the upstream's response broke off: the connection ended inside the body"

    await tab.page.get_by_role("button", name=short_id(answer)).click()
    told = await tab.page.inner_text(".more:not([hidden])")
    assert "POST /v1/chat/completions" in told
    assert "truncated: the upstream's response broke off" in told
    assert "events 1 to 8" in told


async def test_a_stream_that_nobody_reads(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """It lingers, which can be asked for; so can the beginning of its id, as a log has it."""
    tab = await open_tab(demo_site.sidecar.admin_url)
    left, read = await begin(demo_site), await begin(demo_site)
    left.close()
    await tab.page.select_option("[name=state]", "lingering")
    await until_row(tab, short_id(left), state="lingering", readers="0")
    assert await cells(tab, short_id(read)) is None

    await tab.page.select_option("[name=state]", "")
    await tab.page.fill("[name=stream]", short_id(read))
    await until_row(tab, short_id(read), state="live")
    await tab.until("document.querySelectorAll('#rows tr:not(.more)').length === 1")
    assert tab.page.url.endswith(f"#stream={short_id(read)}")
    for answer in (left, read):
        await cancel(demo_site, answer)


async def test_a_whole_id_is_cut_to_what_is_shown(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """Somebody who pastes one finds the stream, and no address keeps what opens it."""
    tab = await open_tab(demo_site.sidecar.admin_url)
    answer = await begin(demo_site)
    stream = answer.header("stream-id") or ""
    await until_row(tab, short_id(answer))
    await tab.page.fill("[name=stream]", f" {stream}.17")
    assert await tab.page.input_value("[name=stream]") == short_id(answer)
    assert tab.page.url.endswith(f"#stream={short_id(answer)}")
    await until_row(tab, short_id(answer), state="live")
    await cancel(demo_site, answer)


async def test_the_address_is_the_view(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """A colleague who gets it sees the same; nothing that fits is said, too."""
    tab = await open_tab(f"{demo_site.sidecar.admin_url}/#route=events&state=paused&sort=bytes")
    await tab.until("!document.getElementById('none').hidden")
    chosen = await tab.see("Object.fromEntries(new FormData(document.getElementById('view')))")
    assert chosen == {"state": "paused", "route": "events", "sort": "bytes", "stream": ""}


HOSTILE = "<img src=x onerror='hacked = true'><script>hacked = true</script>"


async def test_names_are_text(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """Whatever a client, an upstream or a configuration calls itself: it is shown, and never obeyed."""
    answer = await begin(demo_site, "tokens=1&interval=0")
    await answer.rest()
    listing = await (await ask(demo_site.sidecar.admin_url, "/streams?limit=1")).json()
    row = listing["streams"][0]
    for name, value in row.items():
        if isinstance(value, str) and name not in ("started", "reason", "state"):
            row[name] = HOSTILE
    row.update(message=HOSTILE, reason=HOSTILE)
    listing["totals"]["routes"] = {HOSTILE: 1}
    listing["sidecar"].update(version=HOSTILE, node=HOSTILE)

    async def answer_so(route: Route) -> None:
        await route.fulfill(body=json.dumps(listing), content_type="application/json")

    tab = await open_tab("about:blank")
    await tab.page.route("**/streams?*", answer_so)
    await tab.page.goto(demo_site.sidecar.admin_url)
    await tab.until("document.querySelector('#rows button')")
    await tab.page.click("#rows button")
    await tab.until("document.querySelector('.more dd')")
    for place in ("#rows", ".more", "#sidecar", "[name=route]"):
        assert HOSTILE in str(await tab.see("(place) => document.querySelector(place).textContent", place))
    assert await tab.see("document.querySelectorAll('main img, main script').length") == 0
    assert await tab.see("typeof hacked") == "undefined"


async def test_many_streams_are_not_all_drawn(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """Two hundred of them are, those that matter; the rest is a number."""
    for _ in range(220):
        await (await begin(demo_site, "tokens=1&interval=0")).rest()
    running = await begin(demo_site)
    tab = await open_tab(demo_site.sidecar.admin_url)
    await until_row(tab, short_id(running), state="live")
    assert await tab.see("document.querySelectorAll('#rows tr:not(.more)').length") == 200
    assert (await tab.page.inner_text("#count")).startswith("The first 200 of 2")
    await cancel(demo_site, running)


async def test_an_open_row_stays_where_the_reader_is(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """The focus outlives the updates, the facts are kept up to date, and holding still is possible."""
    answer = await begin(demo_site)
    tab = await open_tab(f"{demo_site.sidecar.admin_url}/#state=running")
    await until_row(tab, short_id(answer))
    await tab.page.focus("#rows button")
    await tab.page.keyboard.press("Enter")
    before = await tab.page.inner_text(".more:not([hidden])")
    await tab.until(f"document.querySelector('.more').innerText !== {json.dumps(before)}")
    assert await tab.see("document.activeElement.getAttribute('aria-expanded')") == "true"

    await tab.page.click("#hold")
    held = await cells(tab, short_id(answer))
    await asyncio.sleep(1.3)  # longer than it takes to look again
    assert await cells(tab, short_id(answer)) == held
    await tab.page.select_option("[name=state]", "paused")  # that is a wish, and held still from then on
    await tab.until("!document.getElementById('none').hidden")
    await cancel(demo_site, answer)


async def test_a_tab_that_nobody_sees_asks_for_nothing(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """And looks at once when it is seen again."""
    tab = await open_tab(demo_site.sidecar.admin_url)
    await tab.until("document.querySelector('[data-total=running]').textContent !== ''")
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    await tab.see("void Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    await asyncio.sleep(1.3)  # longer than it takes to look again
    assert len(asked) <= 1  # one may have been on its way
    asked.clear()
    await tab.see("delete document.hidden, document.dispatchEvent(new Event('visibilitychange'))")
    await eventually(lambda: asked, "another look")


async def test_a_sidecar_that_goes_and_comes_back(open_tab: OpenTab, unused_tcp_port: int) -> None:
    """Draining, out of reach, started anew: each is said, and what was last known stays until then."""
    admin = f"127.0.0.1:{unused_tcp_port}"
    async with demo_in_process(admin=admin) as site:
        answer = await begin(site)
        tab = await open_tab(site.sidecar.admin_url)
        await until_row(tab, short_id(answer), state="live")
        drain = asyncio.create_task(site.sidecar.drain())
        await tab.until("document.getElementById('notice').textContent.startsWith('It drains')")
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)
    await tab.until("document.getElementById('notice').textContent.includes('out of reach')")
    assert await cells(tab, short_id(answer)) is not None
    async with demo_in_process(admin=admin):
        await tab.until("document.getElementById('notice').textContent.includes('started anew')")
        assert await cells(tab, short_id(answer)) is None
    tab.faults[:] = [
        fault for fault in tab.faults if "ERR_CONNECTION" not in fault and "ERR_EMPTY" not in fault
    ]


@pytest_asyncio.fixture(loop_scope="module")
async def stuck() -> AsyncIterator[tuple[Sidecar, Running]]:
    """A sidecar whose logs hold little, so that a reader who takes nothing stops its upstream."""
    async with demo_in_process() as site:
        config = config_for(site.provider.url, route={"replay": {"max_bytes": "64KiB"}})
        sidecar = Sidecar(config)
        await sidecar.start()
        yield sidecar, site.provider
        await sidecar.stop()


async def test_a_slow_reader_is_seen(open_tab: OpenTab, stuck: tuple[Sidecar, Running]) -> None:
    """Its stream is paused, and its buffer is full."""
    sidecar, _ = stuck
    answer = await ask(
        sidecar.url, "/api/chat?endless=1&interval=0&size=4000", method="POST", headers=JSON, body=PROMPT
    )
    answer.stall()
    tab = await open_tab(sidecar.admin_url)
    await until_row(tab, short_id(answer), state="paused")
    assert await tab.page.inner_text("[data-total=paused]") == "1"
    full: Any = await tab.see("document.querySelector('#rows meter').value")
    assert full >= 0.9


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_readable_on_any_screen(scheme: str, open_tab: OpenTab, demo_site: DemoSite) -> None:
    """360 pixels or many, by day and by night: nothing sticks out, nothing is faint."""
    running = await begin(demo_site)
    broken = await begin(demo_site, "drop_at=3&interval=0")
    await running.blocks(1)
    tab = await open_tab(demo_site.sidecar.admin_url, color_scheme=scheme)
    await until_row(tab, short_id(running), state="live")
    await tab.page.click("#rows button")
    assert await faint(tab) == []
    await tab.page.set_viewport_size({"width": 360, "height": 700})
    assert not await tab.scrolls_sideways()
    assert await faint(tab) == []
    await cancel(demo_site, running)
    broken.close()
