"""A prompt in a GET: what goes upstream, who may ask, and that nobody pays twice for one answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Prompt
from proxy.config.template import template_of
from proxy.server.app import Sidecar
from proxy.server.prompt import values_of
from tests.conftest import StartOrigin, StartSidecar, config_for, eventually, sidecars
from tests.support.client import Answer, ask
from tests.support.origin import Connection, Origin, Script, reply, response
from tests.support.script import holds, in_turn, streams

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "${query.prompt}"}]}
HELLO = b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
PAGE = "https://app.example"

ACCEPT = {"Accept": "text/event-stream"}
#: What Chromium's EventSource says of itself on a page of the same origin.
EVENT_SOURCE = {
    **ACCEPT,
    "Cache-Control": "no-cache",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "User-Agent": "Mozilla/5.0",
}


@pytest.fixture
async def start_sidecar() -> AsyncIterator[StartSidecar]:
    """Start sidecars on the fast path alone: how events are read is no matter of how they are asked for."""
    async with sidecars() as start:
        yield start


class Stage:
    """A route with a prompt, and the origin behind it."""

    def __init__(self, origin: Origin, sidecar: Sidecar) -> None:
        self.origin = origin
        self.sidecar = sidecar

    async def ask(
        self, query: str = "prompt=hi", *, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> Answer:
        """Ask what ``query`` says, as an EventSource does unless other ``headers`` are given."""
        fields = EVENT_SOURCE if headers is None else headers
        return await ask(self.sidecar.url, f"/ask?{query}", method=method, headers=fields)

    async def come_back(self, last_event_id: str, query: str = "prompt=hi") -> Answer:
        """Ask again, as an EventSource does when its connection has ended."""
        return await self.ask(query, headers={**EVENT_SOURCE, "Last-Event-ID": last_event_id})

    @property
    def asked(self) -> int:
        """How often the upstream was asked."""
        return len(self.origin.requests)


SetStage = Any


@pytest.fixture
async def set_stage(start_origin: StartOrigin, start_sidecar: StartSidecar) -> SetStage:
    """Make stages: an origin's script, settings of the prompt and of its route, and keys of the file."""

    async def make(
        script: Script | None = None,
        *,
        prompt: dict[str, Any] | None = None,
        route: dict[str, Any] | None = None,
        **top: Any,
    ) -> Stage:
        origin = await start_origin(script or streams(HELLO, DONE))
        asking = {"path": CHAT, "body": BODY, **(prompt or {})}
        settings = {"name": "ask", "path": "/ask", "upstream": "origin", "prompt": asking, **(route or {})}
        return Stage(origin, await start_sidecar(origin.url, routes=[settings], **top))

    return make


async def refused(answer: Answer, status: int) -> str:
    """Check that an answer refuses, in words that nobody stores; return these."""
    assert answer.status == status
    assert answer.header("cache-control") == "no-store"
    assert answer.header("content-type") == "application/json"
    return str((await answer.json())["error"]["message"])


# ── what goes upstream ──────────────────────────────────────────────────────────────────────────────────


async def test_a_get_becomes_a_post(set_stage: SetStage) -> None:
    """The upstream gets the body and nothing of the query; the client gets the stream."""
    stage = await set_stage()
    answer = await stage.ask("prompt=Say+%22hi%22%0A%F0%9F%8C%8A&_=17")
    assert answer.status == 200
    assert (await answer.rest()).endswith(b".2\n" + DONE)
    (request,) = stage.origin.requests
    assert (request.method, request.target) == ("POST", CHAT)
    content = json.loads(request.body)["messages"][0]["content"]
    assert content == 'Say "hi"\n🌊'
    assert request.header("content-type") == "application/json"
    assert request.header("content-length") == str(len(request.body))
    assert request.header("cache-control") is None


@pytest.mark.parametrize("field", ["Content-Encoding", "If-None-Match", "Range", "Pragma", "If-Match"])
async def test_what_is_true_of_the_get_alone_stays_behind(field: str, set_stage: SetStage) -> None:
    """The attack: a field that makes the upstream read another body than the one that is sent."""
    stage = await set_stage()
    assert (await stage.ask(headers={**EVENT_SOURCE, field: "gzip"})).status == 200
    assert stage.origin.requests[0].header(field) is None


async def test_a_query_of_the_upstreams_own(set_stage: SetStage) -> None:
    """Where the upstream wants a query, the prompt's path has it; the dialect goes by that path."""
    path = "/v1beta/models/g:streamGenerateContent?alt=sse"
    stage = await set_stage(streams(b"data: {}\n\n"), prompt={"path": path, "body": {"a": "${query.prompt}"}})
    answer = await stage.ask()
    assert stage.origin.requests[0].target == path
    assert (
        f"id: {answer.header('stream-id')}.1\n".encode() in await answer.rest()
    )  # the form is EventSource's


async def test_additions_and_another_form(set_stage: SetStage) -> None:
    """A prompt's body gets what its route injects, and its stream leaves in the form that the route names."""
    inject = {"stream_options": {"include_usage": True}}
    stage = await set_stage(route={"inject": inject, "emit": "unified"})
    answer = await stage.ask()
    assert b"event: text_delta\n" in await answer.rest()
    assert json.loads(stage.origin.requests[0].body)["stream_options"] == {"include_usage": True}


async def test_a_default(set_stage: SetStage) -> None:
    """A name with a default may be left out; one that is said empty is empty."""
    body = {**BODY, "user": "${query.who:-nobody}"}
    stage = await set_stage(prompt={"body": body})
    await stage.ask("prompt=hi")
    await stage.ask("prompt=hi&who=")
    assert [json.loads(request.body)["user"] for request in stage.origin.requests] == ["nobody", ""]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "the query says no 'prompt'"),
        ("Prompt=hi", "the query says no 'prompt'"),
        ("prompt=a&prompt=a", "the query says 'prompt' twice; expected it once"),
        ("prompt=abcdef", "'prompt' has 6 characters; expected at most 5"),
        ("prompt=%F0%9F%8C%8A%ff", "the query is not UTF-8, percent-encoded"),
        ("prompt=%ED%A0%80", "the query is not UTF-8, percent-encoded"),
        ("prompt=a&x=%ff", "the query is not UTF-8, percent-encoded"),
    ],
)
async def test_a_query_that_cannot_be_put_in(query: str, said: str, set_stage: SetStage) -> None:
    """It is told what is wrong with it, and nothing goes upstream."""
    stage = await set_stage(prompt={"max_length": 5})
    assert await refused(await stage.ask(query), 400) == said
    assert stage.asked == 0


async def test_lengths_count_characters(set_stage: SetStage) -> None:
    """A wave is one, though it takes twelve bytes of the query."""
    stage = await set_stage(prompt={"max_length": 5})
    assert (await stage.ask(f"prompt={quote('🌊' * 5)}")).status == 200


@given(st.text(st.characters(codec="utf-8"), max_size=50), st.text(st.characters(codec="utf-8"), max_size=50))
def test_any_value_arrives(value: str, other: str) -> None:
    """Whatever the query holds, the upstream's JSON holds exactly it."""
    body = template_of({"a": "${query.a}", "b": "<${query.b}>"})
    request = make_mocked_request("GET", f"/ask?a={quote(value, safe='')}&b={quote(other, safe='')}")
    values = values_of(request, Prompt(path="/", body=body))
    assert json.loads(body.filled(values)) == {"a": value, "b": f"<{other}>"}


# ── who may ask ─────────────────────────────────────────────────────────────────────────────────────────

FOREIGN = {
    "an EventSource elsewhere": {
        **EVENT_SOURCE,
        "Origin": "http://evil.example",
        "Sec-Fetch-Site": "cross-site",
    },
    "a fetch without CORS": {**ACCEPT, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a sibling that says no Origin": {**EVENT_SOURCE, "Sec-Fetch-Site": "same-site"},
    "the same from a sibling": {**ACCEPT, "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    "an EventSource of a sibling": {
        **EVENT_SOURCE,
        "Origin": "http://b.localhost",
        "Sec-Fetch-Site": "same-site",
    },
    "plain http to our https": {
        **EVENT_SOURCE,
        "Origin": "http://localhost:8080",
        "Sec-Fetch-Site": "cross-site",
    },
    "the address bar": {**ACCEPT, "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    "an image that was slipped in": {**EVENT_SOURCE, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "a prefetch": {**EVENT_SOURCE, "Sec-Purpose": "prefetch;prerender"},
    "an older prefetch": {**EVENT_SOURCE, "Purpose": "prefetch"},
    "a sandboxed frame": {**ACCEPT, "Origin": "null"},
    "a browser that hides its page": {**ACCEPT, "User-Agent": "Mozilla/5.0"},
    "a browser with a foreign page": {
        **ACCEPT,
        "User-Agent": "Mozilla/5.0",
        "Referer": "http://evil.example/",
    },
    "a page that is called alike": {
        **ACCEPT,
        "User-Agent": "Mozilla/5.0",
        "Referer": f"{PAGE}.evil.example/",
    },
    "a rebound name": {**EVENT_SOURCE, "Host": "rebound.evil.example:8080"},
}


@pytest.mark.parametrize("attack", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_foreign_page_cannot_ask(method: str, attack: dict[str, str], set_stage: SetStage) -> None:
    """A GET needs no permission to be sent, and this one would cost money."""
    stage = await set_stage(origins=[PAGE])
    answer = await stage.ask(headers={"Host": "localhost:8080", **attack}, method=method)
    assert (answer.status, answer.header("cache-control")) == (403, "no-store")
    assert answer.header("access-control-allow-origin") is None
    assert stage.asked == 0


OURS = {
    "an EventSource": EVENT_SOURCE,
    "one that says Origin": {**EVENT_SOURCE, "Origin": "http://localhost:8080"},
    "a program": ACCEPT,
    "a listed page": {**EVENT_SOURCE, "Origin": PAGE, "Sec-Fetch-Site": "cross-site"},
    "a page over plain http": {
        **ACCEPT,
        "User-Agent": "Mozilla/5.0",
        "Referer": "http://localhost:8080/chat",
    },
    "a listed page over plain http": {**ACCEPT, "User-Agent": "Mozilla/5.0", "Referer": f"{PAGE}/chat"},
}


@pytest.mark.parametrize("headers", OURS.values(), ids=OURS)
async def test_our_pages_and_programs_can(headers: dict[str, str], set_stage: SetStage) -> None:
    """Pages of the same origin, those that are listed, and what is no browser."""
    stage = await set_stage(origins=[PAGE])
    answer = await stage.ask(headers={"Host": "localhost:8080", **headers})
    assert answer.status == 200
    allowed = PAGE if headers.get("Origin") == PAGE else None
    assert answer.header("access-control-allow-origin") == allowed


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (None, 406),
        ("*/*", 406),
        ("text/*", 406),
        ("image/avif,image/webp,*/*;q=0.8", 406),
        ("text/event-streams", 406),
        ("text/event-stream;q=0", 406),
        ("text/event-stream; q=0.000", 406),
        ("text/event-stream", 200),
        ("application/json, Text/Event-Stream;q=0.1", 200),
    ],
)
async def test_only_who_asks_for_events_gets_them(
    accept: str | None, status: int, set_stage: SetStage
) -> None:
    """Images, scripts and prefetches take anything, and name no event stream."""
    stage = await set_stage()
    answer = await stage.ask(headers={} if accept is None else {"Accept": accept})
    if status == 406:
        assert "text/event-stream" in await refused(answer, status)
    assert (answer.status, stage.asked) == (status, int(status == 200))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_not_served(method: str, set_stage: SetStage) -> None:
    """The route is for GET alone."""
    stage = await set_stage()
    answer = await stage.ask(method=method)
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")
    assert stage.asked == 0


async def test_a_preflight_asks_for_nothing(set_stage: SetStage) -> None:
    """It is answered for a listed page; any other is refused. Neither is a prompt."""
    stage = await set_stage(origins=[PAGE])
    preflight = {"Access-Control-Request-Method": "GET", "Host": "localhost:8080"}
    for origin, status in ((PAGE, 204), ("http://evil.example", 403), ("http://localhost:8080", 405)):
        answer = await stage.ask(headers={**preflight, "Origin": origin}, method="OPTIONS")
        assert answer.status == status
    assert stage.asked == 0


async def test_a_head_starts_nothing(set_stage: SetStage) -> None:
    """It is told what a GET would bring, and costs nothing; of a stream that there is, it tells more."""
    stage = await set_stage()
    answer = await stage.ask(method="HEAD")
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    assert answer.header("cache-control") == "no-store"
    assert answer.header("stream-id") is None
    assert (await stage.ask("", method="HEAD")).status == 400
    assert stage.asked == 0
    stream = (await stage.ask()).header("stream-id")
    answer = await stage.ask(headers={**EVENT_SOURCE, "Last-Event-ID": f"{stream}.0"}, method="HEAD")
    assert (answer.status, answer.header("stream-id")) == (200, stream)
    assert stage.asked == 1


async def test_a_body_is_refused(set_stage: SetStage) -> None:
    """What is asked stands in the query."""
    stage = await set_stage()
    answer = await ask(stage.sidecar.url, "/ask?prompt=hi", headers=EVENT_SOURCE, body=b"{}")
    assert "has no body" in await refused(answer, 400)
    assert stage.asked == 0


# ── who comes back ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", [CHAT, "/generate"], ids=["a provider", "an app"])
async def test_who_comes_back_gets_the_rest(path: str, set_stage: SetStage) -> None:
    """In the middle the rest, at the end 204, which stops an EventSource. The upstream is asked once."""
    stage = await set_stage(prompt={"path": path})
    answer = await stage.ask()
    stream = answer.header("stream-id")
    assert (await answer.rest()).endswith(DONE)
    resumed = await stage.come_back(f"{stream}.1")
    assert (resumed.status, resumed.header("stream-closed")) == (200, "true")
    assert (await resumed.rest()).endswith(b".2\nretry: 3000\n" + DONE)
    done = await stage.come_back(f"{stream}.2")
    assert (done.status, done.header("stream-closed"), done.header("cache-control")) == (
        204,
        "true",
        "no-store",
    )
    assert stage.asked == 1


async def test_an_id_comes_before_the_first_event(set_stage: SetStage) -> None:
    """The attack on the purse: a network that drops while the model thinks, and a page that asks anew."""
    stage = await set_stage(holds())
    answer = await stage.ask()
    stream = answer.header("stream-id")
    assert await answer.block() == f"id: {stream}.0\nretry: 3000\n\n".encode()
    answer.abort()
    resumed = await stage.come_back(f"{stream}.0")
    request = await stage.origin.request()
    await request.chunk(HELLO)
    assert await resumed.block() == f"id: {stream}.1\nretry: 3000\n".encode() + HELLO
    assert stage.asked == 1


async def test_the_id_comes_before_the_upstream_answers(set_stage: SetStage) -> None:
    """With `open_after` even a drop before that is paid for once."""

    async def silent(connection: Connection) -> None:
        await connection.gone()

    stage = await set_stage(silent, route={"open_after": "0s"})
    answer = await stage.ask()
    assert (await answer.block()).startswith(f"id: {answer.header('stream-id')}.0\n".encode())


async def test_other_readers_get_no_event_without_data(set_stage: SetStage) -> None:
    """A fetch with a parser of its own makes an empty event of an id alone: it gets blocks only."""
    stage = await set_stage()
    fetching = {name: value for name, value in EVENT_SOURCE.items() if name != "Cache-Control"}
    for headers in (fetching, ACCEPT):
        answer = await stage.ask(headers=headers)
        assert (await answer.block()).endswith(HELLO)


@pytest.mark.parametrize(
    ("last_event_id", "query", "status"),
    [
        ("STREAM.1", "prompt=bye", 422),  # another prompt's answer
        ("STREAM.9", "prompt=hi", 400),
        (f"{'A' * 22}.1", "prompt=hi", 404),  # a sidecar that was restarted
        ("42", "prompt=hi", 400),  # an app's own id, which means nothing to a prompt
    ],
)
async def test_who_cannot_be_given_the_rest_begins_nothing(
    last_event_id: str, query: str, status: int, set_stage: SetStage
) -> None:
    """Any status but 200 stops an EventSource for good, and its page hears of it."""
    stage = await set_stage()
    stream = (await stage.ask()).header("stream-id")
    await refused(await stage.come_back(last_event_id.replace("STREAM", stream), query), status)
    assert stage.asked == 1


async def test_a_reload_parts_nobody_from_a_stream(set_stage: SetStage) -> None:
    """Who asked the same gets the same stream, although the body would be another one by now."""
    stage = await set_stage()
    stream = (await stage.ask()).header("stream-id")
    prompt = {"path": CHAT, "body": {**BODY, "model": "newer"}}
    route = {"name": "ask", "path": "/ask", "upstream": "origin", "prompt": prompt}
    stage.sidecar._apply(config_for(stage.origin.url, routes=[route]))
    assert (await stage.come_back(f"{stream}.2")).status == 204
    await stage.ask()
    assert [json.loads(request.body)["model"] for request in stage.origin.requests] == ["m", "newer"]


async def test_ids_are_ours_whatever_the_upstream_writes(set_stage: SetStage) -> None:
    """With the upstream's own ids nobody could tell whose stream is meant."""
    stage = await set_stage(streams(b"id: 42\ndata: a\n\n"), prompt={"path": "/generate"})
    answer = await stage.ask()
    assert await answer.rest() == b"".join(
        part.replace(b"ID", str(answer.header("stream-id")).encode())
        for part in (b"id: ID.0\nretry: 3000\n\n", b"id: ID.1\nretry: 3000\ndata: a\n\n")
    )


async def test_a_stream_that_broke_is_not_begun_again(set_stage: SetStage) -> None:
    """The error is told once; who comes back after it is told to stop."""

    async def breaks(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(HELLO)
        await connection.close()

    stage = await set_stage(breaks)
    answer = await stage.ask()
    assert b'"code":"truncated"' in await answer.rest()
    assert (await stage.come_back(f"{answer.header('stream-id')}.2")).status == 204
    assert stage.asked == 1


# ── what fails ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failure_is_final(start_sidecar: StartSidecar, set_stage: SetStage) -> None:
    """Elsewhere an EventSource is asked to come again after a 502; here each time might be paid for."""
    stage = await set_stage(upstreams={"origin": {"url": "http://127.0.0.1:1"}})
    assert "origin" in await refused(await stage.ask(), 502)


async def test_an_upstreams_refusal_passes(set_stage: SetStage) -> None:
    """Its status closes the EventSource, and its words are there for whoever looks."""
    raw = response("Content-Type: application/json", status="429 Too Many Requests", body=b'{"error":{}}')
    stage = await set_stage(reply(raw))
    answer = await stage.ask()
    assert (answer.status, await answer.body()) == (429, b'{"error":{}}')
    assert answer.header("cache-control") == "no-store"  # what answers a POST is no GET's to keep


async def test_a_full_sidecar_is_final_only_where_nothing_runs(set_stage: SetStage) -> None:
    """One that is full begins nothing; but whose stream runs may come again for it."""
    stage = await set_stage(holds(HELLO), limits={"readers_per_stream": 1, "streams": 1})
    answer = await stage.ask()
    await answer.until(HELLO)
    await refused(await stage.ask(), 503)
    again = await stage.come_back(f"{answer.header('stream-id')}.1")
    assert again.status == 200
    assert (await again.rest()).startswith(b"retry: ")
    assert stage.asked == 1


async def test_a_stream_without_ids_is_not_begun(set_stage: SetStage) -> None:
    """Where nothing can be recorded there are no ids, and an EventSource would ask again and again."""
    stage = await set_stage(holds(HELLO), store={"memory": {"max_bytes": 1}})
    await (await stage.ask()).until(HELLO)
    assert "store.memory.max_bytes" in await refused(await stage.ask(), 503)
    assert stage.asked == 1


async def test_a_stream_that_finds_no_room_in_the_end_is_given_up(set_stage: SetStage) -> None:
    """There was room when the upstream was asked, and none when it answered: then it is stopped."""
    go_on = asyncio.Event()

    async def late(connection: Connection) -> None:
        await go_on.wait()
        await connection.start_stream()
        await connection.gone()

    stage = await set_stage(in_turn(late, holds(HELLO)), store={"memory": {"max_bytes": 1}})
    waiting = asyncio.create_task(stage.ask())
    first = await stage.origin.request(1)
    await (await stage.ask()).until(HELLO)
    go_on.set()
    assert "store.memory.max_bytes" in await refused(await waiting, 503)
    await eventually(first.peer_closed.is_set, "the upstream is stopped")
