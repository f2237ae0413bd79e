"""The terminal client, with the real SDK and a real provider."""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.chat import chat
from proxy.config import parse
from proxy.demo import Running, State, expected_text, start_provider
from proxy.server.app import Sidecar
from tests.support.origin import PATIENCE


@pytest.fixture
async def provider() -> AsyncIterator[Running]:
    """A provider that listens on a free port until the test is over."""
    running = await start_provider()
    yield running
    await running.close()


@asynccontextmanager
async def _upstream(body: bytes, headers: dict[str, str]) -> AsyncIterator[str]:
    """Something that answers a chat with ``body``; yields the base URL for the SDK."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="text/event-stream", headers=headers)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/v1"))


@pytest.fixture
async def base_url(provider: Running) -> AsyncIterator[str]:
    """A sidecar in front of the provider; its base URL for the SDK."""
    config = parse(
        f"""
        listen: 127.0.0.1:0
        upstreams: {{provider: {{url: "{provider.url}"}}}}
        routes: [{{name: all, path: "/{{tail:.*}}", upstream: provider, heartbeat: 10ms}}]
        """,
        "test",
        {},
    )
    sidecar = Sidecar(config)
    await sidecar.start()
    yield f"{sidecar.url}/v1"
    await sidecar.stop()


class Terminal(io.StringIO):
    """Takes what is printed, and tells when something was."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def flush(self) -> None:
        """What was written is on the screen."""
        self._changed.set()

    async def until(self, text: str) -> None:
        """Return when ``text`` stands on the screen."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.getvalue():
                self._changed.clear()
                await self._changed.wait()


async def _chat(
    base_url: str, *, out: io.StringIO, misbehave: str = "interval=0", drop: int | None = None
) -> int:
    return await chat(
        base_url=base_url,
        model="demo-1",
        prompt="Hi",
        drop_after=drop,
        api_key="demo-key",
        headers={"X-Misbehave": misbehave},
        out=out,
    )


async def test_the_answer_is_written_and_then_its_figures(provider: Running) -> None:
    """Text whole, then time to the first token, rate, tokens and events, status 0."""
    out = io.StringIO()
    assert await _chat(f"{provider.url}/v1", out=out) == 0
    text, figures, rest = out.getvalue().split("\n", 2)
    assert text == expected_text()
    assert re.fullmatch(r"— first token after \d\.\d\d s, [\d.]+ tokens/s, 40 tokens, 43 events —", figures)
    assert rest == ""
    assert provider.requests[0].header("Authorization") == "Bearer demo-key"


async def test_tokens_are_written_as_they_come(provider: Running) -> None:
    """What has arrived is on the screen while the rest is not."""
    out = Terminal()
    talking = asyncio.create_task(_chat(f"{provider.url}/v1", out=out, misbehave="interval=0; hang_at=4"))
    await out.until("A stream is")
    assert not talking.done()
    talking.cancel()
    assert await talking == 130


async def test_ctrl_c_closes_the_connection_where_nothing_can_be_cancelled(provider: Running) -> None:
    """A cancelled chat says so, and the provider sees its client go."""
    out = Terminal()
    talking = asyncio.create_task(_chat(f"{provider.url}/v1", out=out, misbehave="endless=1"))
    await out.until("river")
    talking.cancel()
    assert await talking == 130
    assert re.search(
        r"— stopped after \d+ events \(\d+ tokens\) by closing the connection —\n$", out.getvalue()
    )
    await provider.ledger.until(lambda: provider.requests[0].state is State.CLIENT_GONE)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("misbehave", "path", "fault"),
    [
        ("status=429", "/v1", "HTTP 429: The demo provider was asked to fail here."),
        ("status=500", "/v1", "HTTP 500: The demo provider was asked to fail here."),
        ("interval=0; error_at=5", "/v1", "The demo provider was asked to fail here."),
        ("interval=0; drop_at=5", "/v1", "peer closed connection without sending complete message body"),
        ("nonsense=1", "/v1", "HTTP 400: unknown key 'nonsense'"),
        ("interval=0", "/nowhere", "HTTP 404"),
    ],
)
async def test_a_failure_is_one_line_with_address_and_cause(
    provider: Running, misbehave: str, path: str, fault: str
) -> None:
    """No traceback, status 1."""
    out = io.StringIO()
    assert await _chat(f"{provider.url}{path}", out=out, misbehave=misbehave) == 1
    last = out.getvalue().splitlines()[-1]
    assert last.startswith(f"{provider.url}{path}/chat/completions: {fault}")


async def test_a_short_answer_is_not_taken_for_a_whole_one(provider: Running) -> None:
    """A clean end without a finish reason is a failure."""
    out = io.StringIO()
    assert await _chat(f"{provider.url}/v1", out=out, misbehave="interval=0; truncate_at=5") == 1
    assert out.getvalue().endswith("/v1/: the answer ended after 5 events without a finish_reason\n")


async def test_a_drop_needs_something_to_resume_from(provider: Running) -> None:
    """Without a resume link the chat ends before a word of it is read."""
    out = io.StringIO()
    assert await _chat(f"{provider.url}/v1", out=out, drop=3) == 1
    assert out.getvalue().endswith(
        'the answer has no Link with rel="resume": is a sidecar in front of the upstream?\n'
    )
    assert "A stream" not in out.getvalue()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'data: {"text": "A"}\n\n', "event 1 is no chat completion chunk"),
        (b"data: not JSON\n\n", "Expecting value"),
        (b"data: \xff\n\n", "'utf-8' codec can't decode"),
        (b"", "the answer ended after 0 events"),
    ],
)
async def test_an_upstream_that_is_no_chat_is_told(body: bytes, fault: str) -> None:
    """Whatever else answers there is one line."""
    out = io.StringIO()
    async with _upstream(body, {}) as base_url:
        assert await _chat(base_url, out=out) == 1
    [line] = out.getvalue().strip().splitlines()
    assert line.startswith(f"{base_url}/: {fault}")


async def test_a_link_to_another_host_is_not_followed(provider: Running) -> None:
    """An upstream that could name the address of the resume would be sent the key."""
    out = io.StringIO()
    links = {"Link": f'<{provider.url}/stolen>; rel="resume"', "Stream-Id": "AbCdEfGhIjKlMnOpQrStUv"}
    async with _upstream(b"data: [DONE]\n\n", links) as base_url:
        assert await _chat(base_url, out=out, drop=1) == 1
    assert "no Link" in out.getvalue()
    assert provider.requests == []


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1/v1", "http://[::1", "localhost/v1"])
async def test_an_address_that_leads_nowhere_is_told(base_url: str) -> None:
    """Refused, malformed or without a scheme: one line with the address."""
    out = io.StringIO()
    assert await _chat(base_url, out=out) == 1
    [line] = out.getvalue().strip().splitlines()
    assert line.startswith(base_url)


async def test_a_missing_sdk_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The openai package is an extra."""
    monkeypatch.setitem(sys.modules, "openai", None)
    out = io.StringIO()
    assert await _chat("http://127.0.0.1:1/v1", out=out) == 1
    assert out.getvalue() == 'chat needs the openai package: pip install "sse-sidecar[openai]"\n'


@pytest.mark.parametrize("drop", [1, 7, 42, 43])
async def test_a_dropped_stream_is_resumed_without_a_gap(base_url: str, provider: Running, drop: int) -> None:
    """The text goes on where it was cut, the provider is asked once, and the comparison says so."""
    out = io.StringIO()
    assert await _chat(base_url, out=out, drop=drop) == 0
    before, marker, after, figures, _, verdict = out.getvalue().removesuffix("\n").split("\n")
    assert before + after == expected_text()
    assert re.fullmatch(rf"— dropped after {drop} events; resuming stream [\w-]{{6}}… from {drop} —", marker)
    assert "40 tokens, 43 events" in figures
    assert verdict == "— gap-free: 43 events, the same text as the stream read again whole —"
    assert len(provider.requests) == 1


async def test_a_stream_that_ends_before_the_drop_says_so(base_url: str) -> None:
    """Nothing was dropped, nothing to compare."""
    out = io.StringIO()
    assert await _chat(base_url, out=out, drop=100) == 0
    assert out.getvalue().endswith("— nothing was dropped: the answer ended before event 100 —\n")


async def test_ctrl_c_cancels_the_stream(base_url: str, provider: Running) -> None:
    """The provider's connection is closed at once, which a mere disconnect would not do."""
    out = Terminal()
    talking = asyncio.create_task(_chat(base_url, out=out, misbehave="endless=1"))
    await out.until("river")
    talking.cancel()
    assert await talking == 130
    await provider.ledger.until(lambda: provider.requests[0].state is State.CLIENT_GONE)
    last = out.getvalue().splitlines()[-1]
    assert re.fullmatch(
        r"— cancelled stream [\w-]{6}… after \d+ events \(\d+ tokens\): "
        r"the rest is neither generated nor paid for —",
        last,
    )


async def test_an_upstream_that_dies_is_told_through_the_sidecar(base_url: str) -> None:
    """A cut upstream is one line and status 1, not a short answer."""
    out = io.StringIO()
    assert await _chat(base_url, out=out, misbehave="interval=0; drop_at=5") == 1
    assert out.getvalue().splitlines()[-1].startswith(f"{base_url}/chat/completions: ")
