"""WebSocket in a real browser: the bridge and the pass-through, for a page that can set no header."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from proxy.demo import Record, Running, State, expected_text
from tests.browser.conftest import OpenSite, Site
from tests.support.origin import PATIENCE

#: How streams are read from the upstream is nothing to a page.
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("start_sidecar", [True], indirect=True, ids=["page"]),
]

BRIDGE = {"websocket": "bridge"}
PASSTHROUGH = {"websocket": "passthrough"}
PROMPT = {"prompt": "hi"}

#: Opens a WebSocket and writes down what it hears, and how it was closed. Gives the subprotocol chosen, or
#: null where it was not let in. What was heard of a stream outlives the page, as an app would keep it.
CONNECT = """
  ([url, protocols]) => {
    heard = []; goodbye = null;
    socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    say = (command) => socket.send(JSON.stringify(command));
    seen = () => JSON.parse(sessionStorage.seen ?? "[]");
    socket.onmessage = ({data}) => {
      heard.push(typeof data === "string" ? JSON.parse(data) : data);
      const {type, id, event, data: token} = heard.at(-1);
      if (type === "event") sessionStorage.seen = JSON.stringify([...seen(), [id, event, token]]);
    };
    socket.onclose = ({code, reason}) => { goodbye = [code, reason]; };
    return new Promise((resolve) => {
      socket.onopen = () => resolve(socket.protocol);
      socket.onerror = () => resolve(null);
    });
  }
"""

#: Follows one stream over as many connections as it takes, from wherever it had come.
FOLLOW = """
  ([url, body]) => {
    const connect = () => {
      const socket = new WebSocket(url, "sse-sidecar.v1");
      connections += 1;
      socket.onopen = () => {
        const last = seen.at(-1)?.[0];
        const command = last ? {type: "resume", last_event_id: last} : {type: "start", body};
        socket.send(JSON.stringify(command));
      };
      socket.onmessage = ({data}) => {
        const frame = JSON.parse(data);
        if (frame.type === "event") seen.push([frame.id, frame.event, frame.data]);
        if (frame.type === "end") ended = frame;
        if (frame.type === "error") ended = frame;
      };
      socket.onclose = () => ended || connect();
    };
    connections = 0; ended = null; seen = [];
    connect();
  }
"""


async def connect(
    page: Page, site: Site, target: str, *protocols: str, host: str = "127.0.0.1"
) -> str | None:
    """Open the page's WebSocket, and return what ``CONNECT`` gives."""
    url = f"ws://{host}:{site.forwarder.port}{target}"
    chosen = await page.evaluate(CONNECT, [url, list(protocols)])
    assert chosen is None or isinstance(chosen, str)
    return chosen


def streamed(provider: Running) -> Record:
    """The provider's record of the only stream."""
    (only,) = (record for record in provider.requests if record.streaming)
    return only


def check_tokens(seen: list[list[object]], tokens: int) -> None:
    """Check that every event of one stream was seen once, in order, and says what was said."""
    stream = str(seen[0][0]).partition(".")[0]
    assert [ident for ident, _, _ in seen] == [f"{stream}.{seq}" for seq in range(1, tokens + 2)]
    assert [name for _, name, _ in seen] == ["token"] * tokens + ["done"]
    said = (data["text"] for _, name, data in seen if name == "token" and isinstance(data, dict))
    assert "".join(said) == expected_text(tokens)


# The bridge


async def test_a_page_signs_in_with_a_subprotocol(page: Page, open_site: OpenSite, provider: Running) -> None:
    """The token reaches the provider as a bearer; the page hears the other name, and Chromium is content."""
    site = await open_site(provider.url, route=BRIDGE)
    await page.goto(f"{site.url}/page")
    target = "/api/chat?interval=0"
    assert await connect(page, site, target, "sse-sidecar.v1", "bearer.s3cret") == "sse-sidecar.v1"
    await page.evaluate("say({type: 'start', body: {prompt: 'hi'}})")
    await page.wait_for_function("heard.at(-1)?.type === 'end'")
    check_tokens(await page.evaluate("seen()"), 40)
    assert streamed(provider).header("Authorization") == "Bearer s3cret"
    assert await page.evaluate("socket.extensions") == ""


async def test_a_pages_cookies_go_with_its_starts(page: Page, open_site: OpenSite, provider: Running) -> None:
    """They come with the handshake, by themselves; a page of the same origin needs no permission."""
    site = await open_site(provider.url, route=BRIDGE)
    await page.context.add_cookies([{"name": "session", "value": "abc", "url": site.url}])
    await page.goto(f"{site.url}/page")
    assert await connect(page, site, "/api/chat?interval=0") == ""
    await page.evaluate("say({prompt: 'hi'})")
    await page.wait_for_function("heard.at(-1)?.type === 'end'")
    assert streamed(provider).header("Cookie") == "session=abc"


async def test_a_page_cancels_while_tokens_flow(page: Page, open_site: OpenSite, provider: Running) -> None:
    """The provider is let go at once, and the socket is ready for the next prompt."""
    site = await open_site(provider.url, route=BRIDGE)
    await page.goto(f"{site.url}/page")
    await connect(page, site, "/api/chat?endless=1&interval=0.005", "sse-sidecar.v1")
    await page.evaluate("say({type: 'start', body: {prompt: 'hi'}})")
    await page.wait_for_function("heard.length > 5")
    await page.evaluate("say({type: 'cancel'})")
    await page.wait_for_function("heard.at(-1)?.type === 'end'")
    assert await page.evaluate("heard.at(-1).reason") == "cancelled"
    record = streamed(provider)
    await provider.ledger.until(lambda: not record.running, timeout=PATIENCE)
    assert record.state is State.CLIENT_GONE

    await page.evaluate("heard = []; say({type: 'start', body: {prompt: 'hi'}})")
    await page.wait_for_function("heard.length > 5")
    assert await page.evaluate("heard[0].type") == "open"


async def test_a_reload_goes_on_where_the_page_was(
    page: Page, open_site: OpenSite, provider: Running
) -> None:
    """In the middle of a stream: no token is lost, none comes twice, and nobody pays for a second one."""
    site = await open_site(provider.url, route=BRIDGE)
    await page.goto(f"{site.url}/page")
    target = "/api/chat?tokens=200&interval=0.01"
    await connect(page, site, target, "sse-sidecar.v1")
    await page.evaluate("say({type: 'start', body: {prompt: 'hi'}})")
    await page.wait_for_function("heard.length > 20")
    await page.reload()

    await connect(page, site, target, "sse-sidecar.v1")
    before = await page.evaluate("seen().length")
    await page.evaluate("say({type: 'resume', last_event_id: seen().at(-1)[0]})")
    await page.wait_for_function("heard.at(-1)?.type === 'end'")
    assert 20 <= before < 201
    assert await page.evaluate("heard[0].resumed_from") == before
    check_tokens(await page.evaluate("seen()"), 200)
    assert len(provider.requests) == 1


async def test_a_wire_that_breaks_again_and_again(page: Page, open_site: OpenSite, provider: Running) -> None:
    """Each connection carries 2,000 bytes and breaks anywhere, in the middle of a frame or of its header."""
    site = await open_site(provider.url, route=BRIDGE)
    await page.goto(f"{site.url}/page")
    site.forwarder.cut()  # the page's own connection would be used again
    site.forwarder.allowance = 2000
    url = f"ws://127.0.0.1:{site.forwarder.port}/api/chat?tokens=200&interval=0.001"
    await page.evaluate(FOLLOW, [url, PROMPT])
    await page.wait_for_function("ended")
    assert await page.evaluate("ended.reason") == "complete"
    check_tokens(await page.evaluate("seen"), 200)
    assert await page.evaluate("connections") > 10
    assert len(provider.requests) == 1


async def test_a_foreign_page_cannot_use_a_browsers_cookies(
    page: Page, pages_port: int, open_site: OpenSite, provider: Running
) -> None:
    """A page of a neighbouring name gets the cookie sent, which is the attack; it is not let in with it, nor
    without one.
    """
    site = await open_site(provider.url, route=BRIDGE)
    await page.goto(f"http://evil.app.example:{pages_port}")
    target = "/api/chat?interval=0"
    assert await connect(page, site, target, host="app.example") is None
    await page.wait_for_function("goodbye")
    assert b"\r\nCookie:" not in bytes(site.forwarder.wires[-1].sent)

    home = f"http://app.example:{site.forwarder.port}"
    await page.context.add_cookies([{"name": "session", "value": "abc", "url": home}])
    assert await connect(page, site, target, host="app.example") is None
    await page.wait_for_function("goodbye")
    handshake = bytes(site.forwarder.wires[-1].sent)
    assert b"\r\nCookie: session=abc\r\n" in handshake
    assert f"\r\nOrigin: http://evil.app.example:{pages_port}\r\n".encode() in handshake
    assert b" 403 " in bytes(site.forwarder.wires[-1].received)
    assert not any(record.path == "/api/chat" for record in provider.requests)


async def test_a_named_foreign_page_may(
    page: Page, pages_port: int, open_site: OpenSite, provider: Running
) -> None:
    """Listed under ``origins``, the same page is let in, which shows that it was the origin that counted."""
    friend = f"http://friend.app.example:{pages_port}"
    site = await open_site(provider.url, route=BRIDGE, origins=[friend])
    home = f"http://app.example:{site.forwarder.port}"
    await page.context.add_cookies([{"name": "session", "value": "abc", "url": home}])
    await page.goto(friend)
    assert await connect(page, site, "/api/chat?interval=0", host="app.example") == ""
    await page.evaluate("say({prompt: 'hi'})")
    await page.wait_for_function("heard.at(-1)?.type === 'end'")
    assert streamed(provider).header("Cookie") == "session=abc"


# The pass-through

#: Sends so many bytes, and says whether the same came back.
ECHO = """
  async (size) => {
    const sent = Uint8Array.from({length: size}, (_, index) => index % 251);
    const answer = new Promise((resolve) => {
      socket.onmessage = ({data}) => resolve(data);
    });
    socket.send(sent);
    const came = new Uint8Array(await answer);
    return came.length === size && came.every((byte, index) => byte === index % 251);
  }
"""


@pytest.mark.parametrize("deflate", [0, 1], ids=["plain", "compressed"])
async def test_bytes_come_back_through_a_pass_through(
    deflate: int, page: Page, open_site: OpenSite, provider: Running
) -> None:
    """One, a few and sixteen mebibytes; Chromium offers compression, and the provider decides."""
    site = await open_site(provider.url, route=PASSTHROUGH)
    await page.goto(f"{site.url}/page")
    assert await connect(page, site, f"/api/socket?deflate={deflate}", "app.v2", "app.v1") == "app.v2"
    for size in (1, 70_000, 16 * 1024 * 1024):
        assert await page.evaluate(ECHO, size)
    assert (await page.evaluate("socket.extensions")).startswith("permessage-deflate" * deflate)
    assert bool(await page.evaluate("socket.extensions")) is bool(deflate)


async def test_goodbyes_pass_through(page: Page, open_site: OpenSite, provider: Running) -> None:
    """The provider's code and reason reach the page, the page's reach the provider."""
    site = await open_site(provider.url, route=PASSTHROUGH)
    await page.goto(f"{site.url}/page")
    await connect(page, site, "/api/socket")
    await page.evaluate("say({do: 'close', code: 4002, reason: 'genug'})")
    await page.wait_for_function("goodbye")
    assert await page.evaluate("goodbye") == [4002, "genug"]

    await connect(page, site, "/api/socket")
    record = provider.requests[-1]
    await page.evaluate("socket.close(4003, 'tschüss')")
    await provider.ledger.until(lambda: not record.running, timeout=PATIENCE)
    assert (record.close_code, record.close_reason) == (4003, "tschüss")


# Either


@pytest.mark.parametrize(("way", "target"), [("bridge", "/api/chat"), ("passthrough", "/api/socket")])
async def test_a_drain_tells_the_page_to_come_again(
    way: str, target: str, page: Page, open_site: OpenSite, provider: Running
) -> None:
    """1001, in good order: not the 1006 of a connection that was lost."""
    site = await open_site(provider.url, route={"websocket": way}, drain="50ms")
    await page.goto(f"{site.url}/page")
    await connect(page, site, target)
    await site.sidecar.drain()
    await page.wait_for_function("goodbye")
    assert (await page.evaluate("goodbye"))[0] == 1001
