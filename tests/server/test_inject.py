"""What a route adds to bodies: there where it is wanted, and nothing else of them changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo import Running, expected_text
from proxy.server.inject import MOST_PLACES, spliced
from tests.conftest import StartOrigin, StartSidecar, config_for, sidecars
from tests.support.bridge import begin, bridge
from tests.support.client import ask, read_answer, send
from tests.support.origin import Origin
from tests.support.script import streams
from tests.support.websocket import connect

CHAT = "/v1/chat/completions"
USAGE = {"stream_options": {"include_usage": True}}
ADDED = b'"stream_options":{"include_usage":true}'
ASKING = b'{"model":"m","stream":true}'
ASKED = b'{"model":"m","stream":true,' + ADDED + b"}"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def start_sidecar() -> AsyncIterator[StartSidecar]:
    """Start sidecars on the fast path alone: how events are read is no matter of how they are asked for."""
    async with sidecars() as start:
        yield start


# ── splicing ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "grown"),
    [
        (b"{}", b"{%b}" % ADDED),
        (b" {\n} \n", b" {\n%b} \n" % ADDED),
        (b'{"n":1}', b'{"n":1,%b}' % ADDED),
        (b'{\n  "n": 1\n}\n', b'{\n  "n": 1\n,%b}\n' % ADDED),
        # into the client's own object
        (b'{"stream_options" : { }}', b'{"stream_options" : { "include_usage":true}}'),
        (b'{"stream_options":{"a":1},"n":1}', b'{"stream_options":{"a":1,"include_usage":true},"n":1}'),
        # what the client says stays
        (b'{"stream_options":{"include_usage":false}}', b'{"stream_options":{"include_usage":false}}'),
        (b'{"stream_options":null}', b'{"stream_options":null}'),
        (b'{"stream_options":[{}]}', b'{"stream_options":[{}]}'),
        # the same words, elsewhere
        (b'{"m":{"stream_options":{}},"t":"\\"stream_options\\":{}"}',
         b'{"m":{"stream_options":{}},"t":"\\"stream_options\\":{}",%b}' % ADDED),
        (b'{"m":[{"stream_options":{}}],"stream_options":{},"z":{"stream_options":{}}}',
         b'{"m":[{"stream_options":{}}],"stream_options":{"include_usage":true},"z":{"stream_options":{}}}'),
        # a key twice: the last counts
        (b'{"stream_options":{"a":1},"stream_options":{"a":1}}',
         b'{"stream_options":{"a":1},"stream_options":{"a":1,"include_usage":true}}'),
        (b'{"n":1,"n":2}', b'{"n":1,"n":2,%b}' % ADDED),
        # what a parser would spoil
        (b'{"n":1.0e+400,"m":%b}' % (b"9" * 5000), b'{"n":1.0e+400,"m":%b,%b}' % (b"9" * 5000, ADDED)),
        (b'{"t":"\\u00e9\\/ \xc3\xa9 \\ud83d"}', b'{"t":"\\u00e9\\/ \xc3\xa9 \\ud83d",%b}' % ADDED),
        (b'\xef\xbb\xbf{"stream_options":{}}', b'\xef\xbb\xbf{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{"t":"\\ud83d"}}', b'{"stream_options":{"t":"\\ud83d","include_usage":true}}'),
        # what is no object that can be read
        (b"", b""),
        (b"[]", b"[]"),
        (b"null", b"null"),
        (b'{"n":1', b'{"n":1'),
        (b'{"n":NaN}', b'{"n":NaN}'),
        (b'{"n":%b%b}' % (b"[" * 100_000, b"]" * 100_000), b'{"n":%b%b}' % (b"[" * 100_000, b"]" * 100_000)),
    ],
)  # fmt: skip
def test_a_body_grows_and_changes_nowhere(body: bytes, grown: bytes) -> None:
    """The addition stands at the end of its object; every byte of the client's is where it was."""
    assert spliced(body, json.dumps(USAGE)) == grown


def test_a_search_is_bounded() -> None:
    """The attack: thousands of places that look like the member which is to grow, each one a reading."""
    decoys = b'{"stream_options":{}},'
    for count, grows in ((MOST_PLACES - 1, True), (MOST_PLACES, False)):
        body = b'{"m":[%b0],"stream_options":{}}' % (decoys * count)
        assert (b"include_usage" in spliced(body, json.dumps(USAGE))) is grows


KEYS = st.sampled_from(["a", "b", "stream", 'q"\\', "é", ""])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
ADDITIONS = st.recursive(
    st.none() | st.booleans() | st.text(),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "stream", ""]), inner, min_size=1),
    max_leaves=6,
).filter(lambda value: isinstance(value, dict))


def merged(said: dict[str, Any], additions: dict[str, Any]) -> dict[str, Any]:
    """What both say; where they differ, what was said."""
    answer = dict(said)
    for key, value in additions.items():
        if isinstance(value, dict) and isinstance(said.get(key), dict):
            answer[key] = merged(said[key], value)
        else:
            answer.setdefault(key, value)
    return answer


def parts(text: bytes) -> dict[str, bytes]:
    """An object's members, each as it is written."""
    return {key: bytes(raw) for key, raw in msgspec.json.decode(text, type=dict[str, msgspec.Raw]).items()}


@given(said=OBJECTS, additions=ADDITIONS, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_any_addition_to_any_body(
    said: dict[str, Any], additions: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    """The body is JSON and holds both; the client's members are written as they were, in their order."""
    body = json.dumps(said, indent=indent, ensure_ascii=ascii_only).encode("utf-8")
    grown = spliced(body, json.dumps(additions))
    expected = merged(said, additions)
    assert json.loads(grown) == expected
    assert list(json.loads(grown))[: len(said)] == list(said)
    before, after = parts(body), parts(grown)
    assert all(after[key] == written for key, written in before.items() if expected[key] == said[key])
    left = iter(grown)
    assert all(byte in left for byte in body)  # nothing of it was taken away, or moved


# ── over HTTP ───────────────────────────────────────────────────────────────────────────────────────────


async def served(
    start_origin: StartOrigin, start_sidecar: StartSidecar, **settings: Any
) -> tuple[Origin, str]:
    """An origin that streams, and the URL of a sidecar that injects."""
    origin = await start_origin(streams(b"data: [DONE]\n\n"))
    route = {"inject": USAGE, **settings.pop("route", {})}
    sidecar = await start_sidecar(origin.url, route=route, **settings)
    return origin, sidecar.url


@pytest.mark.parametrize(
    "headers",
    [
        JSON,
        {},
        {"Content-Type": "Application/JSON; charset=utf-8"},
        {"Content-Type": "application/problem+json"},
        {**JSON, "Content-Digest": "sha-256=:AAAA:", "Content-MD5": "AAAA"},
    ],
)
async def test_a_request_for_a_stream_grows(
    headers: dict[str, str], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its length is the new one, and what vouched for the old bytes is gone."""
    origin, url = await served(start_origin, start_sidecar)
    answer = await ask(url, CHAT, method="POST", headers=headers, body=ASKING)
    assert answer.status == 200
    (request,) = origin.requests
    assert request.body == ASKED
    assert request.header("content-length") == str(len(ASKED))
    assert request.header("content-digest") is None
    assert request.header("content-md5") is None


async def test_a_chunked_body_grows(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A body without a length stays one."""
    origin, url = await served(start_origin, start_sidecar)
    halves = (ASKING[:5], ASKING[5:])
    body = b"".join(b"%x\r\n%b\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n"
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await read_answer(*await send(url, head.encode() + body))).status == 200
    (request,) = origin.requests
    assert request.body == ASKED
    assert request.header("content-length") is None


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("POST", CHAT, JSON, b'{"model":"m"}'),  # OpenAI answers 400 to stream_options without a stream
        ("POST", CHAT, JSON, b'{"model":"m","stream":false}'),
        ("POST", CHAT, JSON, b'[{"stream":true}]'),
        ("POST", "/api/chat", JSON, ASKING),  # an app's own: nobody knows what its words mean
        ("GET", CHAT, JSON, ASKING),
        ("POST", CHAT, {"Content-Type": "text/plain"}, ASKING),
        ("POST", CHAT, {**JSON, "Content-Encoding": "gzip"}, ASKING),
        ("POST", CHAT, {**JSON, "X-Amz-Content-Sha256": "signed"}, ASKING),
        ("POST", CHAT, JSON, b""),
    ],
)
async def test_any_other_request_passes_as_it_is(
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """Without a stream there is nothing to add; what is compressed or signed cannot be added to."""
    origin, url = await served(start_origin, start_sidecar)
    assert (await ask(url, path, method=method, headers=headers, body=body)).status == 200
    assert origin.requests[0].body == body
    assert origin.requests[0].header("content-length") == str(len(body))


async def test_a_body_that_cannot_be_held_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Passed on, it would lose its usage and nobody would know. The limit is named; other types pass."""
    limits = {"buffered_body": len(ASKING) - 1}
    origin, url = await served(start_origin, start_sidecar, limits=limits)
    answer = await ask(url, CHAT, method="POST", headers=JSON, body=ASKING)
    assert answer.status == 413
    assert "limits.buffered_body" in (await answer.json())["error"]["message"]
    image = {"Content-Type": "image/png"}
    assert (await ask(url, CHAT, method="POST", headers=image, body=ASKING)).status == 200
    assert [request.body for request in origin.requests] == [ASKING]


async def test_a_body_that_cannot_be_held_is_not_asked_for(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """No 100 Continue invites what would be refused."""
    _, url = await served(start_origin, start_sidecar, limits={"buffered_body": 5})
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\nExpect: 100-continue\r\n\r\n"
    answer = await read_answer(*await send(url, head.encode()))
    assert (answer.status, answer.interim) == (413, [])


async def test_a_stream_is_known_by_what_its_client_sent(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A resume and a repeated key bring the client's body, which is not the one that went upstream."""
    origin, url = await served(start_origin, start_sidecar)
    headers = {**JSON, "Idempotency-Key": "k", "Authorization": "Bearer me"}
    first = await ask(url, CHAT, method="POST", headers=headers, body=ASKING)
    again = await ask(url, CHAT, method="POST", headers=headers, body=ASKING)
    assert (again.status, again.header("idempotency-replayed")) == (200, "true")
    back = {**JSON, "Last-Event-ID": f"{first.header('stream-id')}.0"}
    resumed = await ask(url, CHAT, method="POST", headers=back, body=ASKING)
    assert (resumed.status, resumed.header("stream-id")) == (200, first.header("stream-id"))
    other = await ask(url, CHAT, method="POST", headers=back, body=ASKED)
    assert other.status == 422
    assert len(origin.requests) == 1


async def test_a_start_over_the_bridge_grows(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """What is started over a WebSocket is a request like any other."""
    origin, url = await served(start_origin, start_sidecar, route=bridge())
    await begin(await connect(url, CHAT), {"model": "m", "stream": True})
    assert json.loads((await origin.request()).body) == json.loads(ASKED)


@pytest.mark.parametrize("own", [{}, {"stream_options": {"include_obfuscation": False}}])
async def test_usage_arrives(own: dict[str, Any], provider: Running, start_sidecar: StartSidecar) -> None:
    """OpenAI's SDK is told what the answer cost, although nobody asked for it."""
    sidecar = await start_sidecar(config_for(provider.url, route={"inject": USAGE}))
    async with openai.AsyncOpenAI(base_url=f"{sidecar.url}/v1", api_key="-", max_retries=0) as client:
        chunks = await client.chat.completions.create(
            model="demo-1", messages=[{"role": "user", "content": "hi"}], stream=True, extra_body=own
        )
        read = [chunk async for chunk in chunks]
        whole = await client.chat.completions.create(
            model="demo-1", messages=[{"role": "user", "content": "hi"}]
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in read if chunk.choices) == expected_text()
    assert read[-1].usage is not None
    assert read[-1].usage.completion_tokens == (whole.usage and whole.usage.completion_tokens)
