"""Streams by the id of their chat, as ``useChat`` asks for them: GET of the path and ``/{id}/stream``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar, eventually, sidecars
from tests.support.client import Answer, ask
from tests.support.origin import reply
from tests.support.script import holds, in_turn, streams

ANNA = {"Cookie": "session=anna"}
BERT = {"Cookie": "session=bert"}
ROUTE: dict[str, Any] = {
    "path": "/api/chat",
    "methods": ["POST"],
    "alias": "id",
    "principal": {"cookie": "session"},
}
PAGE = "https://app.example"


@pytest.fixture
async def start_sidecar() -> AsyncIterator[StartSidecar]:
    """Start sidecars: on the fast path alone, since nothing here is about the way of an event."""
    async with sidecars() as start:
        yield start


async def post(
    sidecar: Sidecar, chat: object = "c1", caller: dict[str, str] | None = None, **headers: str
) -> Answer:
    """Ask a question in a chat; ``chat`` is anything that JSON can say."""
    body = json.dumps({"id": chat, "q": "hi"}).encode()
    return await ask(
        sidecar.url,
        "/api/chat",
        method="POST",
        headers={**(caller if caller is not None else ANNA), **headers},
        body=body,
    )


async def resume(
    sidecar: Sidecar,
    chat: str = "c1",
    caller: dict[str, str] | None = None,
    *,
    method: str = "GET",
    **more: str,
) -> Answer:
    """Ask for the stream of a chat; ``chat`` as it stands in the path."""
    headers = {**(caller if caller is not None else ANNA), **more}
    return await ask(sidecar.url, f"/api/chat/{chat}/stream", method=method, headers=headers)


async def test_a_page_that_was_loaded_again_gets_the_running_answer_from_its_beginning(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It knows the chat's id alone, and no second request goes upstream."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    first = await post(sidecar)
    await first.blocks(2)
    first.abort()
    again = await resume(sidecar)
    assert again.status == 200
    assert again.header("stream-id") == first.header("stream-id")
    assert again.header("stream-resumed-from") == "0"
    assert [block.splitlines()[-2] for block in await again.blocks(2)] == [b"data: a", b"data: b"]
    upstream = await origin.request()
    await upstream.chunk(b"data: c\n\n")
    await upstream.end()
    assert (await again.rest()).endswith(b"data: c\n\n")
    assert len(origin.requests) == 1


async def nothing_there(answer: Answer) -> None:
    """Check that an answer is the one that everybody gets for whom nothing runs."""
    names = {name.lower() for name, _ in answer.raw_headers}
    assert (answer.status, await answer.body()) == (204, b"")
    assert answer.header("cache-control") == "no-store"
    assert not {name for name in names if name.startswith("stream-")} | ({"link"} & names)


async def test_without_a_running_stream_there_is_nothing(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Before a stream, and after one whose end was read, the answer is 204; it never goes upstream."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    await nothing_there(await resume(sidecar))
    await (await post(sidecar)).rest()
    await nothing_there(await resume(sidecar))
    assert [request.method for request in origin.requests] == ["POST"]


@pytest.mark.parametrize("caller", [BERT, {}, {"Cookie": "session="}], ids=["another", "nobody", "empty"])
async def test_another_principal_gets_what_everybody_gets(
    start_origin: StartOrigin, start_sidecar: StartSidecar, caller: dict[str, str]
) -> None:
    """The attack: a chat's id that counts up, tried one after the other."""
    origin = await start_origin(holds(b"data: secret\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    await (await post(sidecar)).block()
    await nothing_there(await resume(sidecar, caller=caller))
    await nothing_there(await resume(sidecar, "no-such-chat", caller))


async def test_callers_without_a_principal_have_no_aliases(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """They would all be one, and read each other's chats; their streams run as any other."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    await (await post(sidecar, caller={})).block()
    await nothing_there(await resume(sidecar, caller={}))
    assert len(sidecar.hub.aliases) == 0


async def test_principals_may_call_their_chats_the_same(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Each one gets its own."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    annas, berts = await post(sidecar), await post(sidecar, caller=BERT)
    assert (await resume(sidecar)).header("stream-id") == annas.header("stream-id")
    assert (await resume(sidecar, caller=BERT)).header("stream-id") == berts.header("stream-id")


async def test_the_newest_stream_of_a_chat_wins(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Also where an older one runs still, and when the older one ends."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    old, new = await post(sidecar), await post(sidecar)
    assert (await resume(sidecar)).header("stream-id") == new.header("stream-id")
    await (await origin.request(1)).end()
    await old.rest()
    assert (await resume(sidecar)).header("stream-id") == new.header("stream-id")


async def test_an_answer_that_ended_while_nobody_was_there_is_still_owed(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A phone that slept gets the whole answer once, and then there is nothing more."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    first = await post(sidecar)
    await first.block()
    first.abort()
    relay = sidecar.hub.find(first.header("stream-id") or "")
    assert relay is not None
    await eventually(lambda: not relay.readers, "the client's leaving")
    upstream = await origin.request()
    await upstream.chunk(b"data: b\n\n")
    await upstream.end()
    await eventually(lambda: relay.finished, "the end")
    again = await resume(sidecar)
    assert (again.status, again.header("stream-closed")) == (200, "true")
    assert (await again.rest()).endswith(b"data: b\n\n")
    await nothing_there(await resume(sidecar))


async def test_what_was_stopped_is_owed_to_nobody(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A page that stops leaves at once, and must not find half an answer when it comes back."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    first = await post(sidecar)
    await first.block()
    first.abort()
    stopped = await ask(
        sidecar.url, f"/_streams/{first.header('stream-id')}/cancel", method="POST", headers=ANNA
    )
    assert stopped.status == 202
    await nothing_there(await resume(sidecar))


async def test_a_stop_names_the_stream_that_it_stops(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """One that comes late finds its own stream ended, and leaves the chat's next answer alone."""
    origin = await start_origin(in_turn(streams(b"data: a\n\n"), holds(b"data: b\n\n")))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    first = await post(sidecar)
    await first.rest()
    second = await post(sidecar)
    await second.block()
    address = f"/_streams/{first.header('stream-id')}/cancel"
    late = await ask(sidecar.url, address, method="POST", headers=ANNA)
    assert (late.status, (await late.json())["reason"]) == (200, "complete")
    assert (await resume(sidecar)).header("stream-id") == second.header("stream-id")
    assert not (await origin.request(2)).peer_closed.is_set()


CHUNK = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'


async def test_whoever_else_reads_is_told_of_a_stop(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """In the AI SDK's word, and without a finish; both answers say which protocol they speak."""
    origin = await start_origin(holds(CHUNK))
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "emit": "ai-sdk", "dialect": "openai"})
    first = await post(sidecar)
    other = await resume(sidecar)
    assert [answer.header("x-vercel-ai-ui-message-stream") for answer in (first, other)] == ["v1", "v1"]
    await other.until(b'"delta":"Hi"}')
    await ask(sidecar.url, f"/_streams/{first.header('stream-id')}/cancel", method="POST", headers=ANNA)
    rest = await other.rest()
    assert b'data: {"type":"abort","reason":"cancelled by the client"}' in rest
    assert b"finish" not in rest
    assert b"[DONE]" not in rest


async def test_a_stop_needs_the_principal(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Whoever knows the stream's id and is somebody else gets what everybody gets."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    first = await post(sidecar)
    address = f"/_streams/{first.header('stream-id')}/cancel"
    assert (await ask(sidecar.url, address, method="POST", headers=BERT)).status == 404
    assert (await resume(sidecar)).status == 200


async def test_head_mirrors_get(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """It says what GET would begin with, and reads nothing."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    await nothing_there(await resume(sidecar, method="HEAD"))
    first = await post(sidecar)
    head = await resume(sidecar, method="HEAD")
    assert (head.status, head.header("stream-id")) == (200, first.header("stream-id"))


async def test_nothing_but_get_asks_by_an_alias(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Another method has no route here, unless the configuration has one for it."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    assert (await resume(sidecar, method="DELETE")).status == 404
    assert (await ask(sidecar.url, "/api/chat/c1/stream/", headers=ANNA)).status == 404
    assert (await ask(sidecar.url, "/api/chat//stream", headers=ANNA)).status == 404
    assert not origin.requests


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("a b/c", "a%20b%2Fc"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("grün+東京", "gr%C3%BCn%2B%E6%9D%B1%E4%BA%AC"),
        (7, "7"),
        ("stream", "stream"),
    ],
)
async def test_an_id_may_be_any_text_or_number(
    start_origin: StartOrigin, start_sidecar: StartSidecar, said: object, path: str
) -> None:
    """In the path it stands as ``encodeURIComponent`` writes it."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    first = await post(sidecar, said)
    assert (await resume(sidecar, path)).header("stream-id") == first.header("stream-id")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "a text of 0 characters"),
        ("x" * 257, "a text of 257 characters"),
        (True, "'true'"),
        ({"a": 1}, '{"a": 1}'),
    ],
    ids=["empty", "long", "true", "object"],
)
async def test_what_cannot_be_an_alias_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar, said: object, told: str
) -> None:
    """A clear word at once, before anything was paid for: a resume would find nothing."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    refused = await post(sidecar, said)
    assert refused.status == 400
    detail = (await refused.json())["detail"]
    assert told in detail
    assert detail.endswith("expected a text of 1 to 256 characters")
    assert not origin.requests


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b'{"q":"hi"}', b'{"id":null}', b'{"id":"c1"'])
async def test_a_body_without_an_alias_passes_as_it_is(
    start_origin: StartOrigin, start_sidecar: StartSidecar, body: bytes
) -> None:
    """Its stream is one like any other."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE)
    answer = await ask(sidecar.url, "/api/chat", method="POST", headers=ANNA, body=body)
    assert answer.header("stream-id")
    assert (await origin.request()).body == body
    assert len(sidecar.hub.aliases) == 0


async def test_a_body_that_cannot_be_held_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The alias may stand anywhere in it."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route=ROUTE, limits={"buffered_body": 10})
    refused = await post(sidecar)
    assert refused.status == 413
    assert "alias" in (await refused.json())["detail"]
    assert not origin.requests


AS_WRITTEN = (
    b'{ "id": "c1", "temperature": 1.0, "big": 12345678901234567890123, "text": "\\u00e9", "id2": [1,  2] }'
)
AS_FORWARDED = b'{"temperature":1.0,"big":12345678901234567890123,"text":"\\u00e9","id2":[1,  2]}'


@pytest.mark.parametrize(
    ("policies", "sent"),
    [
        ({}, AS_WRITTEN),
        ({"dialect": "openai"}, AS_FORWARDED),
        ({"emit": "ai-sdk"}, AS_FORWARDED),
        ({"dialect": "openai", "alias": {"field": "id", "forward": True}}, AS_WRITTEN),
        ({"alias": {"field": "id", "forward": False}}, AS_FORWARDED),
    ],
    ids=["app", "provider", "translated", "forward", "keep"],
)
async def test_a_provider_does_not_get_the_field_and_an_app_does(
    start_origin: StartOrigin, start_sidecar: StartSidecar, policies: dict[str, Any], sent: bytes
) -> None:
    """Providers refuse fields that they do not know. What is left stays as the client wrote it."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={**ROUTE, **policies})
    headers = {**ANNA, "Content-Digest": "sha-256=:AAAA:"}
    answer = await ask(sidecar.url, "/api/chat", method="POST", headers=headers, body=AS_WRITTEN)
    upstream = await origin.request()
    assert upstream.body == sent
    assert upstream.header("content-length") == str(len(sent))
    assert upstream.header("content-digest") == ("sha-256=:AAAA:" if sent is AS_WRITTEN else None)
    assert (await resume(sidecar)).header("stream-id") == answer.header("stream-id")


async def test_a_body_of_unknown_length_loses_the_field_too(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It stays one of unknown length."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "dialect": "openai"})
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(AS_WRITTEN), AS_WRITTEN)
    headers = {**ANNA, "Transfer-Encoding": "chunked"}
    answer = await ask(sidecar.url, "/api/chat", method="POST", headers=headers, body=chunked)
    upstream = await origin.request()
    assert (upstream.body, upstream.header("content-length")) == (AS_FORWARDED, None)
    assert (await resume(sidecar)).header("stream-id") == answer.header("stream-id")


async def test_a_resume_by_cursor_still_knows_the_body(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What is compared is what the client sent, not what went upstream."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "dialect": "openai"})
    first = await post(sidecar)
    await first.block()
    cursor = f"{first.header('stream-id')}.0"
    assert (await post(sidecar, **{"Last-Event-ID": cursor})).status == 200
    assert (await post(sidecar, "c2", **{"Last-Event-ID": cursor})).status == 422


async def test_a_patterned_path_keeps_its_chats_apart(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The same chat's id under another path is another chat."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "path": "/{tenant}/chat/"})
    first = await ask(sidecar.url, "/one/chat/", method="POST", headers=ANNA, body=b'{"id":"c1"}')
    one = await ask(sidecar.url, "/one/chat/c1/stream", headers=ANNA)
    assert one.header("stream-id") == first.header("stream-id")
    await nothing_there(await ask(sidecar.url, "/two/chat/c1/stream", headers=ANNA))


async def test_a_route_before_it_comes_first(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """As everywhere: the first route that matches wins."""
    origin = await start_origin(reply())
    routes = [
        {"name": "own", "path": "/api/chat/mine/stream", "upstream": "origin"},
        {"name": "chat", "upstream": "origin", **ROUTE},
        {"name": "rest", "path": "/{tail:.*}", "upstream": "origin"},
    ]
    sidecar = await start_sidecar(origin.url, routes=routes)
    assert (await resume(sidecar, "mine")).status == 200
    await nothing_there(await resume(sidecar, "c1"))
    assert (await resume(sidecar, "c1", method="DELETE")).status == 200
    assert [request.method for request in origin.requests] == ["GET", "DELETE"]


async def test_an_alias_is_forgotten_with_its_stream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Nothing is held that no log is held for."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "replay": {"keep": "0s"}})
    await (await post(sidecar)).rest()
    await eventually(lambda: not len(sidecar.hub.aliases), "the alias's end")
    await nothing_there(await resume(sidecar))


async def test_a_stream_that_was_not_recorded_cannot_be_asked_for(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its beginning is gone; and the chat's stream before it is not the answer either."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=ROUTE, store={"memory": {"max_bytes": 1}})
    await (await post(sidecar)).block()
    await (await post(sidecar)).block()
    await nothing_there(await resume(sidecar))


async def test_a_beginning_that_is_gone_is_told(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Half an answer would look like a whole one."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\ndata: c\n\n"))
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "replay": {"max_events": 2}})
    await (await post(sidecar)).blocks(3)
    gone = await resume(sidecar)
    assert (gone.status, gone.header("stream-earliest")) == (410, "2")


# pages of other origins


async def test_a_page_of_a_known_origin_may_read_it(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The stream with its id, the 204, and the preflight that a header of its own needs."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "origins": [PAGE]})
    nothing = await resume(sidecar, Origin=PAGE)
    assert (nothing.status, nothing.header("access-control-allow-origin")) == (204, PAGE)
    first = await post(sidecar, Origin=PAGE)
    for answer in (first, await resume(sidecar, Origin=PAGE)):
        assert answer.header("access-control-allow-origin") == PAGE
        assert answer.header("access-control-allow-credentials") == "true"
        assert "Stream-Id" in (answer.header("access-control-expose-headers") or "")
    asking = {"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-a"}
    allowed = await ask(sidecar.url, "/api/chat/c1/stream", method="OPTIONS", headers=asking)
    assert (allowed.status, allowed.header("access-control-allow-headers")) == (204, "x-a")
    assert allowed.header("access-control-allow-methods") == "GET, HEAD"
    assert allowed.header("access-control-allow-origin") == PAGE


async def test_a_page_of_an_unknown_origin_may_not_ask(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The preflight is refused here, and goes nowhere."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={**ROUTE, "origins": [PAGE]})
    asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    refused = await ask(sidecar.url, "/api/chat/c1/stream", method="OPTIONS", headers=asking)
    assert refused.status == 403
    assert refused.header("access-control-allow-origin") is None
    assert not origin.requests


async def test_a_route_that_spends_a_credential_is_guarded_here_too(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A foreign page, and a name that is not ours."""
    origin = await start_origin(holds(b"data: a\n\n"))
    upstreams = {"origin": {"url": origin.url, "set_headers": {"Authorization": "Bearer sk"}}}
    sidecar = await start_sidecar(origin.url, route=ROUTE, upstreams=upstreams)
    assert (await post(sidecar)).status == 200
    assert (await resume(sidecar, Origin="https://evil.example")).status == 403
    assert (await resume(sidecar, Host="rebound.example")).status == 403
    assert (await resume(sidecar)).status == 200
