"""What a stream looks like as frames, how it ends, and what comes where there is no stream."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from proxy.server.opening import Opener
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.bridge import (
    begin,
    bridge,
    data_of,
    ended,
    event,
    opened,
    refused,
    still_lives,
)
from tests.support.client import ask
from tests.support.origin import PATIENCE, Connection, Script, reply, response
from tests.support.script import answers, holds, in_turn, streams
from tests.support.websocket import Socket, connect

CHAT = "/v1/chat/completions"
DELTA = (
    '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    '"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}'
)
PROMPT = {"model": "m", "messages": [], "stream": True}


def breaks(*chunks: bytes) -> Script:
    """Send these chunks, and close the connection in the middle of the body."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        for data in chunks:
            await connection.chunk(data)
        await connection.close()

    return script


async def silent(connection: Connection) -> None:
    """Answer nothing until the peer leaves."""
    await connection.gone()


async def text(socket: Socket) -> str:
    """The next frame as it is written."""
    came = await socket.frame()
    assert came is not None
    return came.payload.decode()


# Blocks as frames


async def test_a_stream_in_frames_to_the_letter(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``open`` when the upstream answered, an ``event`` for each block, ``end`` with its reason."""
    origin = await start_origin(streams(b'data: {"n" : 1.0}\n\n', b"event: note\ndata: hello\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({"prompt": "hi"})
    stream = json.loads(first := await text(socket))["stream"]
    assert first == f'{{"type":"open","stream":"{stream}","status":200}}'
    assert await text(socket) == (
        f'{{"type":"event","id":"{stream}.1","event":"message","data":{{"n" : 1.0}}}}'
    )
    assert await text(socket) == f'{{"type":"event","id":"{stream}.2","event":"note","data":"hello"}}'
    assert await text(socket) == f'{{"type":"end","stream":"{stream}","reason":"complete"}}'


@pytest.mark.parametrize(
    ("block", "kind", "data"),
    [
        (b"data: hello", "message", "hello"),
        (b"data:hello", "message", "hello"),
        (b"data:  two spaces", "message", " two spaces"),
        (b"data: [DONE]", "message", "[DONE]"),
        (b"data: 12", "message", "12"),
        (b"data: null", "message", "null"),
        (b'data: "quoted"', "message", '"quoted"'),
        (b"data: [1, 2]", "message", [1, 2]),
        (b'data: {"a":{"b":[]}}', "message", {"a": {"b": []}}),
        (b'data: {"a":', "message", '{"a":'),
        (b'data: {"a":1} tail', "message", '{"a":1} tail'),
        (b"data: one\ndata: two", "message", "one\ntwo"),
        (b'data: {"a":\ndata: 1}', "message", {"a": 1}),
        (b"data", "message", ""),
        (b"data:", "message", ""),
        ("data: ä😀".encode(), "message", "ä😀"),
        (b'data: quote " and \\ and \x01', "message", 'quote " and \\ and \x01'),
        (b"data: \xff", "message", "\ufffd"),
        (b"event: delta\ndata: x", "delta", "x"),
        (b'event: a"b\ndata: x', 'a"b', "x"),
        (b"event:\ndata: x", "message", "x"),
        (b": comment\nevent: e\nretry: 5\ndata: x", "e", "x"),
    ],
)
async def test_a_block_as_an_event(
    block: bytes, kind: str, data: Any, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Objects and arrays are themselves, everything else is a string; a frame is always valid JSON."""
    origin = await start_origin(streams(block + b"\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, data, kind)
    assert await socket.hear() == ended(stream)


async def test_what_is_no_event_is_no_frame(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Comments, blocks without data and a half block at the end: nothing, and no number is lost."""
    origin = await start_origin(
        streams(b": hello\n\n", b"data: a\n\n", b"event: x\n\n: ping\n\nid: 5\n\n", b"data: b\n\ndata: half")
    )
    sidecar = await start_sidecar(origin.url, route=bridge(ids="always"))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    heard = await socket.hear_until("end")
    assert heard == [event(stream, 1, "a"), event(stream, 2, "b"), ended(stream)]


async def test_the_apps_own_ids_stand_beside_ours(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A frame's id is always one to resume by; what the app calls the block is its ``upstream_id``."""
    origin = await start_origin(streams(b"id: e1\ndata: a\n\n", b"data: b\n\n", b"id: e3\ndata: c\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(ids="upstream"))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear_until("end") == [
        event(stream, 1, "a", upstream_id="e1"),
        event(stream, 2, "b"),
        event(stream, 3, "c", upstream_id="e3"),
        ended(stream),
    ]


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_a_stream_that_comes_in_pieces_is_the_same(
    size: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """However an upstream's bytes are cut, in the middle of a letter too."""
    whole = 'data: {"t":"ä😀"}\r\n\r\nevent: e\ndata: 2\ndata: 3\n\n'.encode()
    origin = await start_origin(streams(*(whole[at : at + size] for at in range(0, len(whole), size))))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear_until("end") == [
        event(stream, 1, {"t": "ä😀"}),
        event(stream, 2, "2\n3", "e"),
        ended(stream),
    ]


async def test_frames_come_one_by_one_as_they_are_sent(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A block leaves when it is complete: neither ``open`` nor an event waits for what follows."""
    origin = await start_origin(holds())
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    upstream = await origin.request()
    for number in range(1, 20):
        await upstream.chunk(b'data: {"n":%d}\n\n' % number)
        assert await socket.hear() == event(stream, number, {"n": number})


async def test_a_burst_comes_whole(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Thousands of blocks in a few reads, each its own frame, none twice, none missing."""
    blocks = [b'data: {"n":%d}\n\n' % number for number in range(1, 5001)]
    origin = await start_origin(streams(b"".join(blocks[:4000]), b"".join(blocks[4000:])))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    heard = await socket.hear_until("end")
    assert heard == [*(event(stream, number, {"n": number}) for number in range(1, 5001)), ended(stream)]


async def test_a_coded_stream_is_decoded(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """As for SSE."""
    raw = response(
        "Content-Type: text/event-stream", "Content-Encoding: gzip", body=gzip.compress(b"data: a\n\n")
    )
    origin = await start_origin(reply(raw))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await begin(socket)
    assert data_of(await socket.hear_until("end")) == ["a"]


async def test_what_cannot_be_resumed_is_streamed_all_the_same(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``replay: off``: every event and its end come, and a resume finds nothing."""
    origin = await start_origin(streams(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(replay="off"))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear_until("end") == [event(stream, 1, "a"), event(stream, 2, "b"), ended(stream)]
    await socket.say({"type": "resume", "stream": stream, "after": 0})
    await refused(socket, "unknown-stream", status=404)


# How streams end


async def test_a_stream_that_breaks_off_is_truncated(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The connection lives on: over WebSocket a broken stream can be told as one."""
    origin = await start_origin(in_turn(breaks(b"data: a\n\ndata: b"), streams(b"data: c\n\n")))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    told = await socket.hear()
    assert told == ended(stream, "truncated", message=told["message"])
    assert "broke off" in told["message"]
    await begin(socket)
    assert data_of(await socket.hear_until("end")) == ["c"]


@pytest.mark.parametrize(
    ("policy", "reason", "word"),
    [
        ({"timeouts": {"idle": "250ms"}}, "idle_timeout", "timeouts.idle"),
        ({"timeouts": {"total": "250ms"}}, "total_timeout", "timeouts.total"),
        ({"max_event_bytes": 3}, "overflow", "max_event_bytes"),
    ],
)
async def test_limits_end_a_stream_and_say_which(
    policy: dict[str, Any], reason: str, word: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Each with the reason of the log's terminal record, and the name of the setting."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(**policy))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    told = (await socket.hear_until("end"))[-1]
    assert told == ended(stream, reason, message=told["message"])
    assert word in told["message"]
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    await still_lives(socket)


async def test_a_sidecar_that_stops_says_so(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """``producer_lost``: the stream ended because we did."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    await sidecar.stop()
    assert await socket.hear() == ended(stream, "producer_lost", message="the sidecar shut down")


async def test_a_providers_error_in_the_stream_is_its_end(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The provider's own event says it; ``end`` says that it was one."""
    error = '{"error":{"message":"overloaded","type":"server_error","code":null}}'
    origin = await start_origin(streams(f"data: {DELTA}\n\ndata: {error}\n\n".encode()))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, CHAT)
    stream = await begin(socket, PROMPT)
    heard = await socket.hear_until("end")
    assert data_of(heard) == [json.loads(DELTA), json.loads(error)]
    assert heard[-1]["reason"] == "upstream_error"
    assert heard[-1]["stream"] == stream


@pytest.mark.parametrize(
    ("target", "first", "kind"),
    [
        (CHAT, f"data: {DELTA}", "message"),
        (
            "/v1/responses",
            "event: response.created\n"
            'data: {"type":"response.created","sequence_number":0,"response":{"id":"r"}}',
            "error",
        ),
        (
            "/v1/messages",
            'event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}',
            "error",
        ),
        ("/v1/models/m:streamGenerateContent", 'data: {"candidates":[{"content":{"parts":[]}}]}', "message"),
    ],
)
async def test_a_failure_is_told_in_the_dialects_form_before_the_end(
    target: str, first: str, kind: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Whoever feeds the events to a provider's parser sees them fail as they would over SSE."""
    origin = await start_origin(breaks(f"{first}\n\n".encode()))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, target)
    stream = await begin(socket, PROMPT)
    heard = await socket.hear_until("end")
    assert heard[0]["data"] == json.loads(first.partition("data: ")[2])
    assert (heard[1]["id"], heard[1]["event"]) == (f"{stream}.2", kind)
    assert heard[1]["data"]["error"]
    assert (len(heard), heard[-1]["reason"]) == (3, "truncated")


async def test_a_chat_without_its_marker_is_truncated_and_with_it_complete(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The dialect's verdict, as for SSE; a marker is an event like any other."""
    block = f"data: {DELTA}\n\n".encode()
    origin = await start_origin(in_turn(streams(block), streams(block + b"data: [DONE]\n\n")))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, CHAT)
    await begin(socket, PROMPT)
    assert (await socket.hear_until("end"))[-1]["reason"] == "truncated"
    await begin(socket, PROMPT)
    heard = await socket.hear_until("end")
    assert data_of(heard)[-1] == "[DONE]"
    assert heard[-1]["reason"] == "complete"


# Answers that are no stream


@pytest.mark.parametrize(
    ("status", "body", "data"),
    [
        ("200 OK", b'{"a" : 1}', {"a": 1}),
        ("201 Created", b"[]", []),
        ("202 Accepted", b"queued", "queued"),
        ("200 OK", "ä".encode(), "ä"),
        ("200 OK", b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
async def test_a_good_answer_is_a_stream_of_one_event(
    status: str, body: bytes, data: Any, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """There is nothing to resume, so it has no id; the connection is ready for the next."""
    origin = await start_origin(answers(f"{status}\r\nContent-Type: application/json".encode(), body))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    for _ in range(2):
        await socket.say({"prompt": "hi"})
        assert await socket.hear() == {"type": "open", "stream": None, "status": int(status[:3])}
        assert await socket.hear() == {"type": "event", "id": None, "event": "message", "data": data}
        assert await socket.hear() == ended(None)


@pytest.mark.parametrize("head", [b"204 No Content", b"200 OK\r\nContent-Length: 0"])
async def test_an_empty_answer_has_no_event(
    head: bytes, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Opened and ended."""
    origin = await start_origin(reply(b"HTTP/1.1 %b\r\n\r\n" % head))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({})
    assert await socket.hear() == {"type": "open", "stream": None, "status": int(head[:3])}
    assert await socket.hear() == ended(None)


@pytest.mark.parametrize(
    ("status", "recoverable"),
    [
        ("400 Bad Request", False),
        ("401 Unauthorized", False),
        ("404 Not Found", False),
        ("429 Too Many Requests", True),
        ("500 Internal Server Error", False),
        ("503 Service Unavailable", True),
        ("307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/", False),
        ("599 Odd", False),
    ],
)
@pytest.mark.parametrize(
    ("body", "data"),
    [(b'{"error":{"message":"no"}}', {"error": {"message": "no"}}), (b"no", "no"), (b"", "")],
)
async def test_any_other_answer_is_an_error_with_its_status_and_body(
    status: str,
    recoverable: bool,
    body: bytes,
    data: Any,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """What the upstream said is told as it is; a redirect is followed by nobody."""
    origin = await start_origin(answers(status.encode(), body))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({})
    heard = await refused(
        socket, "upstream-status", status=int(status[:3]), recoverable=recoverable, body=data
    )
    assert status.partition("\r\n")[0] in heard["message"]
    await still_lives(socket)
    assert len(origin.requests) == 1


async def test_an_event_stream_with_another_status_is_no_stream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Only a 200 makes one."""
    origin = await start_origin(answers(b"429 Slow\r\nContent-Type: text/event-stream", b"data: no\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({})
    await refused(socket, "upstream-status", status=429, body="data: no\n\n")


async def test_a_long_error_is_cut(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The attack: an upstream that answers every request with a megabyte of HTML."""
    origin = await start_origin(answers(b"500 Oops", b"x" * 1_000_000))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({})
    heard = await refused(socket, "upstream-status", status=500)
    assert heard["body"] == "x" * 65536
    await still_lives(socket)


async def test_a_good_answer_over_the_limit_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``max_message`` bounds what is held of an answer; one of just that size passes."""
    origin = await start_origin(in_turn(answers(b"200 OK", b"x" * 101), answers(b"200 OK", b"x" * 100)))
    sidecar = await start_sidecar(origin.url, route=bridge(max_message=100))
    socket = await connect(sidecar.url)
    await socket.say({})
    told = await refused(socket, "upstream-broken", status=502, recoverable=False)
    assert "max_message" in told["message"]
    await socket.say({})
    assert data_of(await socket.hear_until("end")) == ["x" * 100]


async def test_an_answer_that_breaks_off_is_an_error(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Half an answer is none."""

    async def half(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await connection.close()

    origin = await start_origin(half)
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({})
    await refused(socket, "upstream-broken", status=502, recoverable=False)
    await still_lives(socket)


async def test_an_answer_that_stays_away_is_given_up(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A body that begins and does not go on is bounded by ``timeouts.idle``, like a stream."""

    async def stalls(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await connection.gone()

    origin = await start_origin(stalls)
    sidecar = await start_sidecar(origin.url, route=bridge(timeouts={"idle": "250ms"}))
    socket = await connect(sidecar.url)
    await socket.say({})
    await refused(socket, "upstream-broken", status=502)
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")


@pytest.mark.parametrize("status", ["200 OK", "500 Oops"])
async def test_a_coded_answer_is_decoded(
    status: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A frame has no place for a Content-Encoding: an upstream that codes unasked is undone."""
    fields = f"{status}\r\nContent-Encoding: gzip".encode()
    origin = await start_origin(answers(fields, gzip.compress(b'{"a":1}')))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, headers={"Accept-Encoding": "gzip"})
    await socket.say({})
    heard = [await socket.hear()]
    if status == "200 OK":
        heard.append(await socket.hear())
    assert heard[-1].get("data", heard[-1].get("body")) == {"a": 1}


async def test_a_small_answer_that_decodes_to_much_is_cut(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: 50 KB of gzip that are 50 MB of zeros; and what is no gzip is a broken answer."""
    bomb = gzip.compress(bytes(50_000_000))
    origin = await start_origin(
        in_turn(
            answers(b"500 Oops\r\nContent-Encoding: gzip", bomb),
            answers(b"200 OK\r\nContent-Encoding: gzip", bomb),
            answers(b"200 OK\r\nContent-Encoding: gzip", b"no gzip"),
        )
    )
    sidecar = await start_sidecar(origin.url, route=bridge(max_message="1MiB"))
    socket = await connect(sidecar.url)
    await socket.say({})
    assert len((await refused(socket, "upstream-status", status=500))["body"]) == 65536
    for _ in range(2):
        await socket.say({})
        await refused(socket, "upstream-broken", status=502)


# Upstreams that fail


async def test_an_upstream_that_is_not_there(start_sidecar: StartSidecar) -> None:
    """Nothing was sent, so it may be tried again."""
    sidecar = await start_sidecar("http://127.0.0.1:1", route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({})
    await refused(socket, "upstream-unreachable", status=502, recoverable=True)
    await still_lives(socket)


async def test_an_upstream_that_breaks(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """It may have begun to work: a client that repeats itself might pay twice."""

    async def hangs_up(connection: Connection) -> None:
        await connection.close()

    origin = await start_origin(
        in_turn(hangs_up, reply(b"SSH-2.0-x\r\n\r\n", close=True), streams(b"data: a\n\n"))
    )
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    for _ in range(2):
        await socket.say({})
        await refused(socket, "upstream-broken", status=502, recoverable=False)
    await begin(socket)


async def test_an_upstream_that_says_nothing(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """``timeouts.first_byte``: then the request is closed."""
    origin = await start_origin(silent)
    sidecar = await start_sidecar(origin.url, route=bridge(timeouts={"first_byte": "250ms"}))
    socket = await connect(sidecar.url)
    await socket.say({})
    await refused(socket, "upstream-timeout", status=504, recoverable=False)
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")


async def test_so_many_streams_and_no_more(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """``limits.streams`` is everybody's: nothing is sent upstream for one more."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(), limits={"streams": 1})
    await (await ask(sidecar.url, method="POST")).block()
    socket = await connect(sidecar.url)
    await socket.say({})
    await refused(socket, "capacity", status=503, recoverable=True)
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    ("limit", "code"), [("readers_per_caller", "too-many-readers"), ("readers", "capacity")]
)
async def test_so_many_readers_and_no_more(
    limit: str, code: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A stream over WebSocket is a reader like any other."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(), limits={limit: 1})
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    other = await connect(sidecar.url)
    await other.say({})
    await refused(other, code, recoverable=True)
    await other.say({"type": "resume", "stream": stream, "after": 0})
    await refused(other, code, recoverable=True)
    assert len(origin.requests) == 1
    await socket.close()
    await eventually(lambda: not sidecar.hub.readers, "the reader is counted out")
    await other.say({"type": "resume", "stream": stream, "after": 0})
    assert await other.hear() == opened(stream, resumed_from=0)


async def test_a_place_that_was_taken_meanwhile_is_told_and_paid_for_no_longer(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Two starts ask upstream while there is room for one reader: the second stream is closed at once."""
    go = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await go.wait()
        await holds(b"data: a\n\n")(connection)

    origin = await start_origin(slow)
    sidecar = await start_sidecar(origin.url, route=bridge(linger="forever"), limits={"readers": 1})
    sockets = [await connect(sidecar.url) for _ in range(2)]
    for number, socket in enumerate(sockets, 1):
        await socket.say({})
        await origin.request(number)
    go.set()
    told = [await socket.hear() for socket in sockets]
    assert {each.get("code", each["type"]) for each in told} == {"open", "capacity"}
    await eventually(lambda: origin.connections == 1, "one upstream request was closed")
    assert len(sidecar.hub.running) == 1


async def test_a_fault_of_ours_is_told_and_logged(
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The client learns that it was not its fault, and nothing of the rest; the connection lives."""

    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a detail of ours")

    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    with monkeypatch.context() as patch:
        patch.setattr(Opener, "prepare", fails)
        await socket.say({})
        told = await refused(socket, "internal", status=500, recoverable=False)
    assert "detail" not in told["message"]
    await eventually(lambda: "a detail of ours" in "".join(capsys.readouterr()), "the log tells")
    await begin(socket)


# Answered early


async def test_a_stream_may_open_before_the_upstream_answers(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``open_after``: ``open`` comes, and the events when there are some."""
    go = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await go.wait()
        await streams(b"data: a\n\n")(connection)

    origin = await start_origin(slow)
    sidecar = await start_sidecar(origin.url, route=bridge(open_after="10ms"))
    socket = await connect(sidecar.url)
    stream = await begin(socket, {})
    go.set()
    assert await socket.hear_until("end") == [event(stream, 1, "a"), ended(stream)]


@pytest.mark.parametrize(("target", "told"), [("/x", 0), (CHAT, 1)])
async def test_what_fails_after_an_early_open_is_told_in_the_stream(
    target: str, told: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """In the dialect's form where it has one, and in any case as the reason of its end."""
    go = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await go.wait()
        await connection.send(response(status="401 Unauthorized", body=b"bad key"))

    origin = await start_origin(slow)
    sidecar = await start_sidecar(origin.url, route=bridge(open_after="10ms"))
    socket = await connect(sidecar.url, target)
    stream = await begin(socket, PROMPT)
    go.set()
    heard = await socket.hear_until("end")
    assert len(data_of(heard)) == told
    assert all("bad key" in data["error"]["message"] for data in data_of(heard))
    assert heard[-1] == ended(stream, "upstream_error", message=heard[-1]["message"])
    assert "401" in heard[-1]["message"]


async def test_an_early_stream_is_cancelled_before_its_upstream_answers(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The request that nobody has answered yet is closed."""
    origin = await start_origin(silent)
    sidecar = await start_sidecar(origin.url, route=bridge(open_after="10ms"))
    socket = await connect(sidecar.url)
    stream = await begin(socket, {})
    await socket.say({"type": "cancel"})
    assert (await socket.hear())["reason"] == "cancelled"
    async with asyncio.timeout(PATIENCE):
        await (await origin.request()).peer_closed.wait()
    await socket.say({"type": "resume", "stream": stream, "after": 0})
    assert await socket.hear() == opened(stream, resumed_from=0)
