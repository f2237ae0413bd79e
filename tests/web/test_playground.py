"""The demo's page in a real browser: what is asked arrives whole, whatever happens to its connection."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from proxy.demo import Record, State, expected_text
from tests.support.origin import PATIENCE
from tests.support.pages import DemoSite, OpenTab, Tab, faint

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST = "playground.panes[0]"


async def choose(
    tab: Tab, *, route: str = "app", over: str = "sse", preset: str = "", **fields: object
) -> None:
    """Choose a route, a transport and a preset, and fill in fields, in that order."""
    page = tab.page
    await page.select_option("#route", route)
    await page.check(f"[name=transport][value={over}]")
    if preset:
        await page.check(f"[name=preset][value={preset}]")
    for name, value in fields.items():
        await page.fill(f"[name={name}]", str(value))


async def start(tab: Tab, **chosen: Any) -> None:
    """Choose, and press Start."""
    await choose(tab, **chosen)
    await tab.page.click("#start")


def press(button: str) -> str:
    """JavaScript that presses a button."""
    return f"document.getElementById('{button}').click()"


async def verdict(tab: Tab, pane: int = 0) -> str:
    """Wait for the end and the comparison; return what the page says of it."""
    await tab.until(f"playground.panes[{pane}]?.verified")
    await tab.until(f"playground.panes[{pane}].settled")
    return await tab.page.locator(".verdict").nth(pane).inner_text()


async def shown_text(tab: Tab, pane: int = 0) -> str:
    """The text as it stands on the page."""
    return str(await tab.see("(pane) => document.querySelectorAll('.pane .text')[pane].textContent", pane))


def streamed(site: DemoSite, since: int) -> list[Record]:
    """The provider's records of streams after that number."""
    return [record for record in site.provider.requests if record.streaming and record.number > since]


@pytest.fixture
def before(demo_site: DemoSite) -> int:
    """The number of the newest request that the provider has seen."""
    return max((record.number for record in demo_site.provider.requests), default=0)


@pytest.mark.parametrize(
    ("route", "over", "events"),
    [
        ("chat", "sse", 43),
        ("responses", "sse", 48),
        ("anthropic", "sse", 46),
        ("gemini", "sse", 41),
        ("unified", "sse", 42),
        ("unified", "websocket", 42),
        ("app", "sse", 41),
        ("app", "websocket", 41),
    ],
)
async def test_a_text_arrives_whole(
    route: str, over: str, events: int, open_tab: OpenTab, demo_site: DemoSite
) -> None:
    """Every API's text stands on the page, and a second look at the stream finds the same events."""
    tab = await open_tab(demo_site.playground)
    await start(tab, route=route, over=over, tokens=40, interval=1)
    assert await verdict(tab) == (
        f"Complete. Nothing lost: {events} events, the same as the stream read again whole."
    )
    assert await shown_text(tab) == expected_text(40)
    assert await tab.page.inner_text(".badge") == "ended: complete"
    assert await tab.page.inner_text("[data-figure=words]") == "40"
    assert re.fullmatch(r"\d\.\d\d s", await tab.page.inner_text("[data-figure=first]"))


async def test_a_feed_is_read_to_its_end(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """The app's own ids are shown; a feed has no WebSocket in the demo, and none is offered."""
    tab = await open_tab(demo_site.playground)
    await start(tab, route="feed", tokens=12, interval=1)
    assert (await verdict(tab)).startswith("Complete. Nothing lost: 12 events")
    assert await tab.page.inner_text("[data-figure=id]") == "12"
    assert await tab.page.is_disabled("[name=transport][value=websocket]")


@pytest.mark.parametrize("over", ["sse", "websocket"])
async def test_a_dropped_connection_is_resumed(
    over: str, open_tab: OpenTab, demo_site: DemoSite, before: int
) -> None:
    """The text goes on behind the last word that came; the provider was asked once."""
    tab = await open_tab(demo_site.playground)
    await start(tab, over=over, tokens=90, interval=15)
    reconnects = "document.querySelector('.badge').innerText === 'reconnecting'"
    await tab.when(f"{FIRST}?.record.events > 20", press("drop"), then=reconnects)

    told = await verdict(tab)
    ((drop,), (resume,)) = await tab.see(f"[{FIRST}.record.drops, {FIRST}.record.resumes]")
    after = drop["after"]
    assert 20 < after < 90
    assert resume["after"] == after
    assert told == (
        f"Complete. Resumed after {after}; nothing lost: 91 events, the same as the stream read again whole."
    )
    assert await shown_text(tab) == expected_text(90)
    assert await tab.page.get_attribute(".seam", "title") == f"resumed after event {after}"
    happened = await tab.page.inner_text(".happenings")
    assert f"connection lost after event {after}" in happened
    assert f"resumed after event {after}" in happened
    assert len(streamed(demo_site, before)) == 1


async def test_a_loss_would_be_seen(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """An event that goes missing on the page's side is told as what it is."""
    tab = await open_tab(demo_site.playground)
    await start(tab, tokens=60, interval=10)
    await tab.when(f"{FIRST}?.record.events > 10", f"{FIRST}.record.data.splice(5, 1)")
    assert "NOT whole, event" in await verdict(tab)
    assert await tab.page.get_attribute(".verdict", "data-tone") == "alarm"


@pytest.mark.parametrize("over", ["sse", "websocket"])
async def test_stop_reaches_the_provider(
    over: str, open_tab: OpenTab, demo_site: DemoSite, before: int
) -> None:
    """The endless answer ends where it is made, and the page says so."""
    tab = await open_tab(demo_site.playground)
    await start(tab, over=over, route="chat", preset="endless", interval=5)
    await tab.until(f"{FIRST}?.record.events > 10")
    await tab.until("document.getElementById('open').textContent === 'Provider: 1 open stream'")
    (record,) = streamed(demo_site, before)
    await tab.page.click("#stop")
    await demo_site.provider.ledger.until(lambda: not record.running, timeout=PATIENCE)
    assert record.state is State.CLIENT_GONE
    assert (await verdict(tab)).startswith("Cancelled. Nothing lost: ")
    await tab.until("document.getElementById('open').textContent === 'Provider: 0 open streams'")


async def test_a_second_viewer_misses_nothing(open_tab: OpenTab, demo_site: DemoSite, before: int) -> None:
    """On the same page over the other transport, and in a tab of its own: both have every word."""
    tab = await open_tab(demo_site.playground)
    await start(tab, tokens=120, interval=10)
    await tab.until(f"{FIRST}?.record.events > 20")
    await tab.page.check("[name=transport][value=websocket]")
    await tab.page.click("#second")
    link = await tab.page.locator("a.tab").first.get_attribute("href")
    other = await open_tab(f"{demo_site.playground}{link}")

    assert (await verdict(tab)).startswith("Complete. Nothing lost: 121 events")
    assert (await verdict(tab, 1)).startswith("Complete. Nothing lost: 121 events")
    assert (await verdict(other)).startswith("Complete. Nothing lost: 121 events")
    assert [await shown_text(tab), await shown_text(tab, 1), await shown_text(other)] == [
        expected_text(120)
    ] * 3
    assert "WebSocket" in await tab.page.locator(".via").nth(1).inner_text()
    assert len(streamed(demo_site, before)) == 1


async def test_a_closed_pane_is_no_cancel(open_tab: OpenTab, demo_site: DemoSite, before: int) -> None:
    """Only its reader leaves; the viewer beside it reads on."""
    tab = await open_tab(demo_site.playground)
    await start(tab, tokens=80, interval=10)
    await tab.when(f"{FIRST}?.record.events > 5", press("second"))
    await tab.when("playground.panes[1]?.record.events > 5", "document.querySelector('.close').click()")
    assert (await verdict(tab)).startswith("Complete. Nothing lost: 81 events")
    (record,) = streamed(demo_site, before)
    assert record.state is State.FINISHED


async def test_lumps_can_be_told_from_an_even_stream(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """The marks of the one stand in clusters of fifteen, those of the other one by one."""
    tab = await open_tab(demo_site.playground)
    await start(tab, preset="lumps", tokens=60, interval=150)
    await verdict(tab)
    lumps = await tab.see(f"{FIRST}.record.lumps")
    *clusters, end = [number for _, number in lumps]
    assert {number % 15 for number in clusters} == {0}  # a busy machine may bring two together
    assert (sum(clusters), end) == (60, 1)

    await start(tab, preset="calm", tokens=30, interval=15)
    await verdict(tab)
    assert len(await tab.see(f"{FIRST}.record.lumps")) > len(lumps)
    described = await tab.page.get_attribute("canvas", "aria-label") or ""
    assert re.match(r"Arrivals over time: 31 events, longest gap \d", described)


async def test_heartbeats_are_marked(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """While a model thinks, they are all that comes."""
    tab = await open_tab(demo_site.playground)
    await start(tab, preset="thinks", tokens=5)
    await tab.page.click("#tuning summary")
    await tab.page.fill("#first_delay", "0.9")
    await tab.page.click("#start")
    await verdict(tab)
    beats, first = await tab.see(f"[{FIRST}.record.beats, {FIRST}.record.arrivals[0]]")
    assert len([beat for beat in beats if beat < first]) >= 2  # words may be slow, too
    assert await tab.page.inner_text("[data-figure=beats]") == str(len(beats))


@pytest.mark.parametrize(
    ("preset", "route", "told"),
    [
        ("hangs-up", "anthropic", r"Told of a broken end \(truncated\): .*\. Nothing lost: 41 events"),
        ("early", "chat", r"Told of a broken end \(truncated\): .*\. Nothing lost: 41 events"),
        (
            "error",
            "responses",
            r"Told of a broken end \(upstream_error\): The demo provider was asked to fail",
        ),
        ("refuses", "chat", r"No stream: 429, The demo provider was asked to fail here\."),
    ],
)
async def test_a_broken_end_is_told(
    preset: str, route: str, told: str, open_tab: OpenTab, demo_site: DemoSite
) -> None:
    """Half an answer is never shown as a whole one."""
    tab = await open_tab(demo_site.playground)
    await start(tab, route=route, preset=preset, interval=1)
    assert re.match(told, await verdict(tab))
    assert await tab.page.get_attribute(".verdict", "data-tone") == "alarm"


async def test_a_refusal_is_named_by_its_status(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """Where a status is all that came, the end is called by it."""
    tab = await open_tab(demo_site.playground)
    for over in ("sse", "websocket"):
        await start(tab, preset="refuses", over=over)
        assert (await verdict(tab)).count("429") == 1
        assert await tab.page.inner_text(".badge") == "ended: 429"


async def test_an_error_that_an_app_tells_is_not_passed_over(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """Its stream is complete to the sidecar, which knows nothing of its events; the page tells it."""
    tab = await open_tab(demo_site.playground)
    await start(tab, preset="error", interval=1)
    told = await verdict(tab)
    assert told.startswith("Complete. The app told of an error: ")
    assert "Nothing lost: 41 events" in told
    assert await tab.page.get_attribute(".verdict", "data-tone") == "alarm"


async def test_what_is_remembered_is_bounded(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """In events and in characters: a stream of large ones does not fill the browser's memory."""
    tab = await open_tab(demo_site.playground)
    kept = await tab.see(
        """async () => {
          const { MOST_CHARACTERS, Record } = await import("/_playground/record.js");
          const record = new Record(0);
          const data = "x".repeat(1_000_000);
          for (let seq = 1; seq <= 100; seq += 1) record.add({ at: seq, seq, id: "", data });
          return [record.characters <= 2 * MOST_CHARACTERS, record.data.length, record.forgotten,
                  record.data.join("").length === record.characters, record.arrivals.length];
        }"""
    )
    assert kept[0] is True
    assert kept[1] + kept[2] == 100
    assert 0 < kept[1] < 20
    assert kept[3:] == [True, kept[1]]


async def test_awkward_bytes_make_no_difference(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """Seven bytes at a time, CR LF, comments: the text is the same."""
    tab = await open_tab(demo_site.playground)
    await start(tab, route="chat", preset="awkward", tokens=40, interval=1)
    assert (await verdict(tab)).startswith("Complete. Nothing lost: 43 events")
    assert await shown_text(tab) == expected_text(40)


async def test_the_line_for_a_shell_does_the_same(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """It runs as it stands, whatever the prompt holds."""
    tab = await open_tab(demo_site.playground)
    await choose(tab, route="chat", tokens=3, interval=0, prompt='it\'s "this" $HOME\nand `that`')
    line = await tab.page.inner_text("#line")
    shell = await asyncio.create_subprocess_shell(
        line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(PATIENCE):
        output, _ = await shell.communicate()
    assert output.decode().rstrip().endswith("data: [DONE]")
    assert "A" in output.decode()

    await tab.page.check("[name=transport][value=websocket]")
    assert "new WebSocket(" in await tab.page.inner_text("#line")


async def test_settings_and_presets_say_the_same(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """A preset fills the fields in; with a field changed it is none any more, until that is changed back."""
    tab = await open_tab(demo_site.playground)
    checked = "document.querySelector('[name=preset]:checked')?.value ?? null"
    await choose(tab, preset="lumps")
    assert await tab.page.input_value("#interval") == "600"
    await tab.page.fill("#interval", "601")
    assert await tab.see(checked) is None
    await tab.page.fill("#interval", "600")
    assert await tab.see(checked) == "lumps"
    assert "burst=15" in await tab.page.inner_text("#line")


# Whoever looks, and however


async def test_everything_is_within_reach_of_the_keyboard(
    open_tab: OpenTab, demo_site: DemoSite, before: int
) -> None:
    """Every control has its turn and shows it; a stream is started, dropped, watched twice and stopped."""
    tab = await open_tab(demo_site.playground)
    keyboard = tab.page.keyboard
    await choose(tab, preset="endless", interval=5)
    reached = []
    await tab.see("document.activeElement.blur()")
    for _ in range(24):
        await keyboard.press("Tab")
        reached.append(
            await tab.see(
                """() => {
                  const it = document.activeElement;
                  if (it === document.body) return "the browser's own";
                  const shown = it.nextElementSibling && it.type === "radio" ? it.nextElementSibling : it;
                  if (getComputedStyle(shown).outlineStyle === "none") return "unseen";
                  return it.id || it.name || it.localName;
                }"""
            )
        )
    wanted = {"keys", "route", "transport", "prompt", "preset", "tokens", "interval", "summary"}
    assert {*wanted, "start", "drop", "stop", "second", "copy", "line"} <= set(reached)
    assert "unseen" not in reached

    await tab.page.focus("#prompt")
    await keyboard.type("drop, stop, view")  # letters are letters where one writes
    await keyboard.press("Control+Enter")
    await tab.until(f"{FIRST}?.record.events > 10")
    await keyboard.type("dsv")
    assert await tab.see(f"[{FIRST}.record.drops.length, {FIRST}.running, playground.panes.length]") == [
        0,
        True,
        1,
    ]

    await tab.page.focus("#start")
    await keyboard.press("d")
    await tab.until(f"{FIRST}.record.resumes.length === 1")
    await keyboard.press("v")
    await tab.until("playground.panes[1]?.record.events > 10")
    await tab.page.focus("#keys")
    await keyboard.press("Space")
    await keyboard.press("s")  # whoever speaks to the machine turns single keys off
    assert await tab.see(f"{FIRST}.running")
    await keyboard.press("Space")
    await keyboard.press("s")
    (record,) = streamed(demo_site, before)
    await demo_site.provider.ledger.until(lambda: not record.running, timeout=PATIENCE)
    assert (await verdict(tab)).startswith("Cancelled. Resumed after ")


async def test_nothing_moves_under_the_hand(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """A preset that is chosen stands out where it stands, and a pane that is closed gives the focus back."""
    tab = await open_tab(demo_site.playground)
    places = "[...document.querySelectorAll('.pills label')].map((it) => [it.offsetLeft, it.offsetTop])"
    before = await tab.see(places)
    await choose(tab, preset="error")
    assert await tab.see(places) == before

    await start(tab, tokens=3, interval=1)
    await tab.page.get_by_role("button", name="Close: First viewer").focus()
    await tab.page.keyboard.press("Enter")
    assert await tab.see("document.activeElement.id") == "start"


async def test_a_small_screen_is_wide_enough(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """360 pixels: nothing sticks out, before and after, and the buttons are where the thumb is."""
    tab = await open_tab(demo_site.playground, viewport={"width": 360, "height": 700})
    assert not await tab.scrolls_sideways()
    await start(tab, tokens=60, interval=10)
    await tab.when(f"{FIRST}?.record.events > 10", press("drop"))
    await tab.page.click("#second")
    await verdict(tab)
    await tab.page.click("#tuning summary")
    assert not await tab.scrolls_sideways()
    box = await tab.page.locator(".actions").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] == pytest.approx(700, abs=1)
    assert box["height"] < 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_stands_out(scheme: str, open_tab: OpenTab, demo_site: DemoSite) -> None:
    """By day and by night, with a connection lost and everything unfolded."""
    tab = await open_tab(demo_site.playground, color_scheme=scheme)
    paper = await tab.see("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) < 128) is (scheme == "dark")
    await tab.page.click("#tuning summary")
    assert await faint(tab) == []
    await start(tab, preset="endless", interval=10)
    await tab.when(f"{FIRST}?.record.events > 10", press("drop"), then=f"{FIRST}.state === 'waiting'")
    await tab.page.evaluate("new Promise(requestAnimationFrame)")
    assert await faint(tab) == []
    await tab.page.click("#stop")


async def test_a_stream_does_not_flood_a_screen_reader(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """What is spoken are a few sentences; the tokens stand in a region that is no live one."""
    tab = await open_tab(demo_site.playground)
    await tab.see(
        """() => {
          spoken = [];
          const said = document.getElementById("said");
          new MutationObserver(() => spoken.push(said.textContent)).observe(said, { childList: true });
        }"""
    )
    await start(tab, tokens=150, interval=8)
    await tab.when(f"{FIRST}?.record.events > 20", press("drop"))
    await verdict(tab)
    spoken = await tab.see("spoken")
    assert [sentence.split()[2] for sentence in spoken] == [
        "Streaming.",
        "Connection",
        "Resumed",
        "Complete.",
    ]
    live = await tab.see(
        "[...document.querySelectorAll('[aria-live], [role=log], [role=status]')].map(({id}) => id)"
    )
    assert live == ["said"]


async def test_a_flood_is_one_update_a_frame(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """Two thousand words as fast as they go: the text is written at most once in each frame that is drawn."""
    tab = await open_tab(demo_site.playground)
    await tab.see(
        """() => {
          frames = 0; writes = 0;
          const count = () => { frames += 1; requestAnimationFrame(count); };
          count();
          new MutationObserver((all) => {
            writes += all.filter(({ target }) => target.parentElement?.matches(".text")).length;
          }).observe(document.getElementById("panes"), { subtree: true, characterData: true });
        }"""
    )
    await start(tab, tokens=2000, interval=0)
    assert (await verdict(tab)).startswith("Complete. Nothing lost: 2001 events")
    frames, writes = await tab.see("[frames, writes]")
    assert 0 < writes <= frames < 1000
    assert await shown_text(tab) == expected_text(2000)


async def test_little_moves_where_little_shall(open_tab: OpenTab, demo_site: DemoSite) -> None:
    """With reduced motion nothing is animated."""
    tab = await open_tab(demo_site.playground, reduced_motion="reduce")
    await start(tab, preset="endless", interval=10)
    await tab.until(f"{FIRST}?.state === 'open'")
    style = "getComputedStyle(document.querySelector('.badge'), '::before').animationName"
    assert await tab.see(style) == "none"
    await tab.page.click("#stop")
