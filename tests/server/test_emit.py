"""Streams that leave in another form than they came in, through the real sidecar."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy.server.app import Sidecar
from proxy.stream.sse import decode
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.bridge import begin, bridge
from tests.support.client import Answer, ask
from tests.support.origin import Connection, Script
from tests.support.script import answers, holds, streams
from tests.support.websocket import connect

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","stream":true,"messages":[]}'
DONE = b"data: [DONE]\n\n"


def chunk(content: str | None = None, finish: str | None = None) -> bytes:
    """One chunk of OpenAI's."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


WHOLE = (chunk("Hel"), chunk("lo"), chunk(finish="stop"), DONE)


def unified(**policies: Any) -> dict[str, Any]:
    """A route that speaks the unified protocol."""
    return {"emit": "unified", **policies}


def said(body: bytes) -> list[dict[str, Any]]:
    """The events of a body, with the ids that they came with."""
    events = [decode(block) for block in body.split(b"\n\n") if b"data: " in block]
    return [{**json.loads(event.data or ""), "block_id": event.id} for event in events]


def kinds(body: bytes) -> list[str]:
    """The types of a body's events."""
    return [event["type"] for event in said(body)]


def post(sidecar: Sidecar, path: str = CHAT, **fields: Any) -> Any:
    """Ask for a stream."""
    return ask(sidecar.url, path, method="POST", body=BODY, **fields)


async def whole(
    start_origin: StartOrigin, start_sidecar: StartSidecar, script: Script, **policies: Any
) -> bytes:
    """The whole body of a stream."""
    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route=unified(**policies))
    answer: Answer = await post(sidecar)
    assert answer.status == 200
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    return await answer.rest()


async def test_a_stream_in_the_unified_protocol(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its events are numbered as any stream's are: the log holds what goes out."""
    events = said(await whole(start_origin, start_sidecar, streams(*WHOLE)))
    assert [event["type"] for event in events] == ["start", "text_delta", "text_delta", "done"]
    assert [event["block_id"].rpartition(".")[2] for event in events] == ["1", "2", "3", "4"]


async def test_a_reader_that_comes_back(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """It goes on behind the event that it had, in the same form."""
    origin = await start_origin(streams(*WHOLE))
    sidecar = await start_sidecar(origin.url, route=unified())
    events = said(await (await post(sidecar)).rest())
    again = await ask(sidecar.url, f"/_streams/{events[1]['block_id'].partition('.')[0]}",
                      headers={"Last-Event-ID": events[1]["block_id"]})  # fmt: skip
    assert said(await again.rest()) == events[2:]
    assert len(origin.requests) == 1


async def test_a_finished_stream_keeps_its_log_alone(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What was needed to tell it is let go: the store counts the log, and nothing besides."""
    origin = await start_origin(streams(*WHOLE))
    sidecar = await start_sidecar(origin.url, route=unified())
    answer = await post(sidecar)
    await answer.rest()
    relay = sidecar.hub.find(answer.header("stream-id"))
    assert relay is not None
    assert relay.translation is not None
    assert not relay.translation.tail.blocks
    assert not relay.translation.summary.model
    assert (relay.heard.model, relay.heard.finish_reason) == ("m", "stop")


async def test_events_leave_as_they_come(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Nothing is held for what may follow."""
    origin = await start_origin(holds(chunk("Hel")))
    sidecar = await start_sidecar(origin.url, route=unified())
    answer = await post(sidecar)
    assert kinds(b"".join(await answer.blocks(2))) == ["start", "text_delta"]
    answer.abort()


async def test_a_stream_that_is_cut(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The end is an error that says so, and the answer ends in good order: everything has been told."""
    *_, last = said(await whole(start_origin, start_sidecar, streams(chunk("Hel"))))
    assert (last["type"], last["code"], last["recoverable"]) == ("error", "truncated", True)
    assert last["message"] == "the upstream closed the stream without its terminal marker"


async def test_a_stream_of_another_dialect(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Where nothing is understood, the provider is not the one to blame, and the error says so."""
    body = await whole(start_origin, start_sidecar, streams(*WHOLE[:-1]), dialect="gemini")
    size = sum(map(len, WHOLE[:-1]))
    assert said(body)[-1]["message"] == (
        f"the upstream closed the stream without its terminal marker; nothing in its {size} bytes is gemini's"
    )


async def test_a_stream_that_closes_without_its_marker(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A finish reason and a clean close are a good end, as they are without a form."""
    body = await whole(start_origin, start_sidecar, streams(chunk("Hello"), chunk(finish="stop")))
    assert kinds(body) == ["start", "text_delta", "done"]


async def test_a_stream_that_closes_inside_of_a_block(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A reason on every chunk is no end where another was to follow; half a marker is one."""
    cut = await whole(start_origin, start_sidecar, streams(chunk("Hel", "stop"), chunk("lo", "stop")[:-20]))
    assert kinds(cut) == ["start", "text_delta", "error"]
    marked = await whole(start_origin, start_sidecar, streams(chunk("Hello", "stop"), DONE[:-1]))
    assert kinds(marked) == ["start", "text_delta", "done"]


async def test_an_error_of_the_provider_s(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """It is told in the form's words, once."""
    error = b'data: {"error":{"message":"busy","type":"server_error","code":"overloaded"}}\n\n'
    events = said(await whole(start_origin, start_sidecar, streams(chunk("Hel"), error, DONE)))
    assert [event["type"] for event in events] == ["start", "text_delta", "error"]
    assert (events[-1]["message"], events[-1]["code"]) == ("busy", "overloaded")


async def test_a_prompt_that_a_filter_blocked(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The reader is told an error, and the record says the same."""
    origin = await start_origin(streams(b'data: {"promptFeedback":{"blockReason":"SAFETY"}}\n\n'))
    sidecar = await start_sidecar(origin.url, route=unified(dialect="gemini"))
    answer = await post(sidecar, "/v1beta/models/m:streamGenerateContent?alt=sse")
    assert kinds(await answer.rest())[-1] == "error"
    state = await (await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}/state")).json()
    assert (state["reason"], state["message"]) == (
        "upstream_error", "the provider reported an error in the stream: SAFETY",
    )  # fmt: skip


async def test_a_cancelled_stream(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Its readers are told that somebody stopped it, which asking again does not mend."""
    origin = await start_origin(holds(chunk("Hel")))
    sidecar = await start_sidecar(origin.url, route=unified())
    answer = await post(sidecar)
    await answer.blocks(2)
    await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}/cancel", method="POST")
    (last,) = said(await answer.rest())
    assert (last["type"], last["code"], last["recoverable"]) == ("error", "cancelled", False)


async def test_an_upstream_that_refuses_behind_an_early_open(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A stream that never began is a start and an error."""
    go = asyncio.Event()

    async def refuses(connection: Connection) -> None:
        await go.wait()
        await answers(b"429 Too Many Requests\r\nContent-Type: application/json", b'{"error":"slow"}')(
            connection
        )

    origin = await start_origin(refuses)
    sidecar = await start_sidecar(origin.url, route=unified(open_after="10ms"))
    answer = await post(sidecar)
    go.set()
    events = said(await answer.rest())
    assert [event["type"] for event in events] == ["start", "error"]
    assert events[-1]["recoverable"]
    assert '{"error":"slow"}' in events[-1]["message"]


async def test_an_answer_that_is_no_stream(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Requests and plain answers are not translated."""
    body = b'{"error":{"message":"no key","type":"invalid_request_error"}}'
    origin = await start_origin(answers(b"401 Unauthorized\r\nContent-Type: application/json", body))
    answer = await post(await start_sidecar(origin.url, route=unified()))
    assert (answer.status, await answer.body()) == (401, body)


async def test_an_app_s_own_stream_under_a_guessed_dialect(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What turns out to be no provider's leaves as it came."""
    origin = await start_origin(streams(b"event: news\ndata: hello\n\n"))
    sidecar = await start_sidecar(origin.url, route=unified())
    body = await (await post(sidecar)).rest()
    assert body.endswith(b"\nevent: news\ndata: hello\n\n")


async def test_the_bridge_brings_the_same_events(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """As frames: the type is the event's name, the rest its data."""
    origin = await start_origin(streams(*WHOLE))
    sidecar = await start_sidecar(origin.url, route=bridge(emit="unified"))
    socket = await connect(sidecar.url, CHAT)
    await begin(socket, json.loads(BODY))
    frames = await socket.hear_until("end")
    socket.abort()
    assert [frame.get("event") for frame in frames] == ["start", "text_delta", "text_delta", "done", None]
    assert frames[1]["data"] == {"type": "text_delta", "content": "Hel"}
    assert frames[-1]["type"] == "end"


async def test_a_heartbeat_between_events(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """It is a comment, as in any stream."""
    origin = await start_origin(holds(chunk("Hel")))
    sidecar = await start_sidecar(origin.url, route=unified(heartbeat="50ms"))
    answer = await post(sidecar)
    await answer.blocks(2)
    assert await answer.until(b": ping\n")
    answer.abort()


async def test_an_error_before_the_stream(start_sidecar: StartSidecar) -> None:
    """The unified protocol's is a problem document, whatever the provider's would have been."""
    sidecar = await start_sidecar("http://127.0.0.1:1", route=unified())
    answer = await post(sidecar)
    assert (answer.status, answer.header("content-type")) == (502, "application/problem+json")
    assert (await answer.json())["status"] == 502


NDJSON = b"200 OK\r\nContent-Type: application/x-ndjson"
LINES = b'{"n":1}\n{"n":2}'


@pytest.mark.parametrize("dialect", ["auto", "generic"])
async def test_lines_pass_where_the_route_does_not_name_them(
    dialect: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Whoever reads lines goes on to read them."""
    origin = await start_origin(answers(NDJSON, LINES))
    sidecar = await start_sidecar(origin.url, route={"dialect": dialect})
    answer = await post(sidecar, "/lines")
    assert (answer.header("content-type"), await answer.body()) == ("application/x-ndjson", LINES)
    assert answer.header("stream-id") is None


async def test_lines_become_events(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Where the route names them; the last one needs no line end where the body ends well."""
    origin = await start_origin(answers(NDJSON, LINES))
    sidecar = await start_sidecar(origin.url, route={"dialect": "ndjson"})
    answer = await post(sidecar, "/lines")
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    events = said(await answer.rest())
    assert [(event["block_id"].rpartition(".")[2], event["n"]) for event in events] == [("1", 1), ("2", 2)]


async def test_nonsense_behind_the_end(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """An answer that was whole stays whole."""
    line = b'{"model":"m","message":{"content":"Hi"},"done":true,"done_reason":"stop"}\n'
    origin = await start_origin(answers(NDJSON, line + b"<html>\n"))
    sidecar = await start_sidecar(origin.url, route=unified(dialect="ollama"))
    answer = await post(sidecar, "/api/chat")
    assert kinds(await answer.rest()) == ["start", "text_delta", "done"]
    state = await (await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}/state")).json()
    assert state["reason"] == "complete"


async def test_a_body_that_is_not_of_its_format(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What came before stays; the end is not a good one, and the log says why."""
    origin = await start_origin(answers(NDJSON, b'{"n":1}\n<html>\n'))
    sidecar = await start_sidecar(origin.url, route={"dialect": "ndjson", "heartbeat": "60s"})
    answer = await post(sidecar, "/lines")
    assert b'data: {"n":1}\n\n' in await answer.until(b"\n\n")
    address = f"/_streams/{answer.header('stream-id')}/state"
    state = await (await ask(sidecar.url, address)).json()
    assert state["reason"] == "upstream_error"
    assert state["message"].startswith("the upstream's body is malformed: ")
    await eventually(lambda: not sidecar.hub.running, "the stream is over")
