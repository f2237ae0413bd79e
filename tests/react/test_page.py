"""A React page with ``useChat`` in a real browser, and nothing but a sidecar between it and the provider."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from proxy.demo import State
from proxy.demo.speech import Speech
from proxy.demo.voice import FAILURE
from tests.conftest import eventually
from tests.react.conftest import Stage
from tests.support.pages import OpenTab, Tab

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPENAI = "/v1/chat/completions"
APIS = {"openai": OPENAI, "anthropic": "/v1/messages"}
every_api = pytest.mark.parametrize("api", APIS.values(), ids=APIS)

#: What the page shows: the texts of the assistant, and what it does.
SAID = "[...document.querySelectorAll('article.assistant p')].map((each) => each.textContent)"
STATUS = "document.querySelector('main')?.dataset.status"


async def ask(tab: Tab, text: str) -> None:
    """Send a message."""
    await tab.page.fill("input", text)
    await tab.page.click("button:text('Send')")


def address(stage: Stage, api: str, how: str = "interval=0", chat: str = "c1") -> str:
    """Return the page's address, for a chat with a provider that behaves in this way."""
    return f"{stage.sidecar.url}/?{urlencode({'api': api, 'how': how, 'chat': chat})}"


@every_api
async def test_an_answer_streams(stage: Stage, open_tab: OpenTab, api: str) -> None:
    """Words are there while the provider still speaks, and in the end there are all of them."""
    tab = await open_tab(address(stage, api, "interval=0.03&tokens=20"))
    await ask(tab, "Hello")
    await tab.until(f"{SAID}.join('').split(' ').length > 3")
    assert stage.provider.requests[0].running
    await tab.until(f"{STATUS} === 'ready'")
    assert await tab.see(SAID) == [Speech(20).text()]
    assert len(stage.provider.requests) == 1


@every_api
async def test_a_tool_call_is_shown_run_and_answered(stage: Stage, open_tab: OpenTab, api: str) -> None:
    """The page runs it, sends what it returned, and gets the answer that follows: two requests in all."""
    tab = await open_tab(address(stage, api, "interval=0&tokens=5"))
    await ask(tab, "Use the tool")
    await tab.until(f"{SAID}.length && {STATUS} === 'ready'")
    (call,) = await tab.see("[...document.querySelectorAll('code')].map((each) => each.textContent)")
    assert call.startswith('weather({"city":')
    assert "): 18 degrees in " in call
    assert await tab.see(SAID) == [Speech(5).text()]
    assert len(stage.provider.requests) == 2


@every_api
async def test_an_answer_survives_a_reload(stage: Stage, open_tab: OpenTab, api: str) -> None:
    """The page that comes back shows the whole answer, and the provider was asked once."""
    tab = await open_tab(address(stage, api, "interval=0.03&tokens=40"))
    await ask(tab, "Hello")
    await tab.until(f"{SAID}.join('').split(' ').length > 3")
    await tab.page.reload()
    await tab.until(f"{SAID}.length && {STATUS} === 'ready'")
    assert await tab.see(SAID) == [Speech(40).text()]
    assert await tab.see("document.querySelectorAll('article').length") == 2
    await tab.page.reload()
    await tab.until(f"{STATUS} === 'ready'")
    assert await tab.see(SAID) == [Speech(40).text()]
    assert len(stage.provider.requests) == 1


async def test_stop_stops_the_provider(stage: Stage, open_tab: OpenTab) -> None:
    """At once, though a stream that is only left lingers; what was said stays, also after a reload."""
    tab = await open_tab(address(stage, OPENAI, "endless=1"))
    await ask(tab, "Hello")
    await tab.until(f"{SAID}.join('').split(' ').length > 3")
    await tab.page.click("button:text('Stop')")
    (record,) = stage.provider.requests
    await eventually(lambda: record.state is State.CLIENT_GONE, "the provider's client leaving")
    await tab.until(f"{STATUS} === 'ready'")
    said = await tab.see(SAID)
    assert await tab.see("document.querySelector('[role=alert]')") is None
    await tab.page.reload()
    await tab.until(f"{SAID}.length && {STATUS} === 'ready'")
    assert await tab.see(SAID) == said
    assert len(stage.provider.requests) == 1


@every_api
async def test_an_error_is_shown(stage: Stage, open_tab: OpenTab, api: str) -> None:
    """The provider's own words, beside what it said before."""
    tab = await open_tab(address(stage, api, "interval=0&error_at=9"))
    await ask(tab, "Hello")
    await tab.until(f"{STATUS} === 'error'")
    assert await tab.see("document.querySelector('[role=alert]').textContent") == FAILURE
    (said,) = await tab.see(SAID)
    assert said
    assert Speech(40).text().startswith(said)


async def test_a_truncated_answer_is_an_error(stage: Stage, open_tab: OpenTab) -> None:
    """A provider that hangs up in the middle leaves no short answer that looks whole."""
    tab = await open_tab(address(stage, OPENAI, "interval=0&drop_at=9"))
    await ask(tab, "Hello")
    await tab.until(f"{STATUS} === 'error'")
    assert await tab.see("document.querySelector('[role=alert]').textContent")
