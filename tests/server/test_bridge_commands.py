"""What a client may say while it listens, and what it is told where it says something else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.endurance.peace import Peace
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
from tests.support.origin import Connection
from tests.support.script import holds, in_turn, streams
from tests.support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    Socket,
    closing,
    connect,
    frame,
)

UNKNOWN = "A" * 22
BY_CLIENT = "cancelled by the client"


async def silent(connection: Connection) -> None:
    """Answer nothing until the peer leaves."""
    await connection.gone()


async def closed_with(socket: Socket, code: int) -> Frame:
    """Hear a close frame of this code, and then the end of the connection."""
    came = await socket.frame()
    assert came is not None
    assert (came.opcode, came.code) == (CLOSE, code), came
    assert await socket.ended()
    return came


# Cancel


@pytest.mark.parametrize("named", [False, True])
async def test_a_cancel_closes_the_upstream_while_tokens_flow(
    named: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """At once: the origin sees its request closed, and the client is told of the end."""

    async def lively(connection: Connection) -> None:
        await connection.start_stream()
        while not connection.writer.is_closing():
            await connection.chunk(b'data: {"token":"x"}\n\n')
            await asyncio.sleep(0.001)

    origin = await start_origin(lively)
    sidecar = await start_sidecar(origin.url, route=bridge(linger="forever"))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    for _ in range(5):
        assert (await socket.hear())["type"] == "event"
    await socket.say({"type": "cancel", "stream": stream} if named else {"type": "cancel"})
    heard = await socket.hear_until("end")
    assert heard[-1] == ended(stream, "cancelled", message=BY_CLIENT)
    await eventually(lambda: not origin.connections, "the upstream request was closed")
    assert sidecar.telemetry.route("all").cancels == {"client": 1}
    await still_lives(socket)


async def test_a_cancel_before_the_upstream_has_answered_closes_it(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """There is no stream yet, so none is named; and the connection is ready for the next start."""
    origin = await start_origin(in_turn(silent, streams(b"data: a\n\n")))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({"prompt": "hi"})
    upstream = await origin.request()
    await socket.say({"type": "cancel"})
    assert await socket.hear() == ended(None, "cancelled", message=BY_CLIENT)
    await eventually(upstream.peer_closed.is_set, "the upstream request was closed")
    await begin(socket)
    assert data_of(await socket.hear_until("end")) == ["a"]


async def test_a_cancel_in_the_middle_of_an_answer_that_is_no_stream_closes_it(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Nothing of it was told yet."""

    async def half(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await connection.gone()

    origin = await start_origin(half)
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({})
    upstream = await origin.request()
    await eventually(lambda: next(iter(sidecar.hub.sockets))._opening)  # type: ignore[attr-defined]
    await socket.say({"type": "cancel"})
    assert await socket.hear() == ended(None, "cancelled", message=BY_CLIENT)
    await eventually(upstream.peer_closed.is_set, "the upstream request was closed")
    await still_lives(socket)


async def test_a_start_and_its_cancel_in_one_read(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Nothing is sent upstream, or what was is closed; the client is told of one end."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    peace = Peace()
    socket = await connect(sidecar.url)
    for _ in range(50):
        await socket.send_raw(frame(TEXT, b"{}") + frame(TEXT, b'{"type":"cancel"}'))
        assert await socket.hear() == ended(None, "cancelled", message=BY_CLIENT)
    await still_lives(socket)
    await socket.close()
    socket.abort()
    await peace.restored(sidecar)


async def test_a_cancel_where_nothing_runs(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """It crossed the end on its way, or is a mistake: it is told so, every time."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({"type": "cancel"})
    await refused(socket, "nothing-running", status=409, recoverable=False)
    await begin(socket)
    await socket.hear_until("end")
    await socket.say({"type": "cancel"})
    await refused(socket, "nothing-running")


async def test_a_cancel_of_what_has_ended_is_answered_by_its_end(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """By name it is idempotent, as ``POST …/cancel`` is: its end is told again, with its own reason."""
    origin = await start_origin(in_turn(streams(b"data: a\n\n"), holds(b"data: b\n\n")))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    first = await begin(socket)
    await socket.hear_until("end")
    second = await begin(socket)
    assert await socket.hear() == event(second, 1, "b")
    for _ in range(2):
        await socket.say({"type": "cancel", "stream": first})
        assert await socket.hear() == ended(first)
    await still_lives(socket)
    assert len(sidecar.hub.running) == 1


@pytest.mark.parametrize("name", [UNKNOWN, "short", "", "../etc/passwd", "a" * 1000])
async def test_a_cancel_of_what_nobody_knows(
    name: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """One answer for all that is not this client's."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({"type": "cancel", "stream": name})
    assert await socket.hear() == {
        "type": "error",
        "code": "unknown-stream",
        "message": "no stream with this id can be read here",
        "recoverable": False,
        "status": 404,
    }


async def test_a_cancel_reaches_a_stream_of_another_connection(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Both hear of the end: the one that asked, and the one that read."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    reading, other = await connect(sidecar.url), await connect(sidecar.url)
    stream = await begin(reading)
    assert await reading.hear() == event(stream, 1, "a")
    await other.say({"type": "cancel", "stream": stream})
    told = ended(stream, "cancelled", message=BY_CLIENT)
    assert (await other.hear(), await reading.hear()) == (told, told)
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")


async def test_a_cancel_over_http_ends_a_stream_over_websocket(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """sendBeacon, say, from a page that is about to be closed."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert (await ask(sidecar.url, f"/_streams/{stream}/cancel", method="POST")).status == 202
    heard = await socket.hear_until("end")
    assert (heard[-1]["stream"], heard[-1]["reason"]) == (stream, "cancelled")
    await still_lives(socket)


async def test_an_unnamed_cancel_stops_all_that_runs_here(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Streams, and requests that are not answered yet."""
    origin = await start_origin(in_turn(holds(b"data: a\n\n"), holds(b"data: b\n\n"), silent))
    sidecar = await start_sidecar(origin.url, route=bridge(max_concurrent=3))
    elsewhere = await connect(sidecar.url)
    other = await begin(elsewhere)
    assert await elsewhere.hear() == event(other, 1, "a")
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "b")
    await socket.say({})
    await origin.request(3)
    await socket.say({"type": "cancel"})
    ends = [await socket.hear(), await socket.hear()]
    assert {end["stream"] for end in ends} == {None, stream}
    assert {end["reason"] for end in ends} == {"cancelled"}
    for number in (2, 3):
        await eventually((await origin.request(number)).peer_closed.is_set, "it was closed")
    assert [relay.id for relay in sidecar.hub.running] == [other]


# What a client says wrong, and may say again better


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("not json", "not json"),
        ("", "JSON"),
        ("{", "JSON"),
        ('{"a":1}}', "JSON"),
        ("[1]", "object"),
        ('"text"', "object"),
        ("null", "object"),
        ("12", "object"),
        ('{"type":"begin"}', "begin"),
        ('{"type":""}', "start, chat, cancel, resume, ping"),
        ('{"type":"' + "x" * 5000 + '"}', "unknown type"),
        ('{"type":7}', "7"),
        ('{"type":["start"]}', "start"),
        ('{"type":{}}', "{}"),
        ('{"type":true}', "true"),
        ('{"type":1e999}', "1e999"),
        ('{"type":"\\ud800"}', "type"),
        ('{"type":"cancel","stream":7}', "stream"),
        ('{"type":"resume"}', "last_event_id"),
        ('{"type":"resume","after":1}', "last_event_id"),
        ('{"type":"resume","stream":7,"after":1}', "stream"),
        ('{"type":"resume","last_event_id":7}', "last_event_id"),
        ('{"type":"resume","stream":"","after":[]}', "after"),
        ('{"type":"resume","stream":"","after":1e999}', "after"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "JSON"),
    ],
)
async def test_what_is_not_understood_is_told_and_the_connection_lives(
    said: str, word: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What came, what was expected; nothing of it is repeated at length, and a stream goes on."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    await socket.say(said)
    told = await refused(socket, "bad-frame", status=400, recoverable=False)
    assert word in told["message"]
    assert len(told["message"]) < 500
    await (await origin.request()).chunk(b"data: b\n\n")
    assert await socket.hear() == event(stream, 2, "b")
    assert len(origin.requests) == 1


@pytest.mark.parametrize("size", [0, 1, 100_000])
async def test_a_binary_message_is_refused_and_the_connection_lives(
    size: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It says what came and what was expected."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.send(BINARY, bytes(size))
    told = await refused(socket, "bad-frame")
    assert f"binary message of {size} bytes" in told["message"]
    assert "JSON" in told["message"]
    await still_lives(socket)


async def test_half_a_surrogate_pair_passes_as_over_http(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A page that cuts a text inside an emoji says this, and it is JSON (RFC 8259 §8.2)."""
    origin = await start_origin(streams(b'data: {"t":"\\ud83d"}\n\n'))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say('{"prompt":"\\ud83d"}')
    assert data_of(await socket.hear_until("end")) == [{"t": "\ud83d"}]
    assert (await origin.request()).body == b'{"prompt":"\\ud83d"}'


# Pings


async def test_pings_are_answered(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The protocol's with the same payload, between frames and inside a message; ours in JSON."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.send(PING, b"x" * 125)
    assert await socket.frame() == Frame(PONG, b"x" * 125)
    await socket.send(TEXT, b'{"type":', fin=False)
    await socket.send(PING)
    assert await socket.frame() == Frame(PONG, b"")
    await socket.send(CONTINUATION, b'"ping"}')
    assert await socket.hear() == {"type": "pong"}
    await socket.send(PONG, b"unasked")
    await still_lives(socket)


async def test_a_message_may_come_in_fragments(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Any number, empty ones too, cut in the middle of a letter, and byte by byte on the wire."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    said = '{"text":"ä😀"}'.encode()
    raw = frame(TEXT, fin=False)
    raw += b"".join(frame(CONTINUATION, said[at : at + 1], fin=False) for at in range(len(said)))
    raw += frame(CONTINUATION)
    for at in range(0, len(raw), 3):
        await socket.send_raw(raw[at : at + 3])
    await socket.hear_until("end")
    assert (await origin.request()).body == said


# What ends the connection


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b'{"a":"\xed\xa0\x80"}'), 1007),
        (frame(TEXT, b"\xf0\x9f\x98", fin=False) + frame(CONTINUATION), 1007),
        (frame(TEXT, b"{}", masked=False), 1002),
        (frame(TEXT, b"{}", rsv=4), 1002),
        (frame(3, b""), 1002),
        (frame(11, b""), 1002),
        (frame(CONTINUATION, b"{}"), 1002),
        (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
        (frame(PING, b"", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, closing(1005)), 1002),
        (frame(CLOSE, closing(1000) + b"\xff"), 1007),
        (frame(TEXT, b"x" * 1001), 1009),
        (frame(TEXT, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 600), 1009),
    ],
    ids=[
        "no UTF-8",
        "a surrogate in JSON",
        "half a letter",
        "not masked",
        "a reserved bit",
        "a reserved opcode",
        "a reserved control opcode",
        "a continuation of nothing",
        "a message inside another",
        "a ping in two pieces",
        "a ping of 126 bytes",
        "half a close code",
        "a close code that is never sent",
        "a close reason that is no UTF-8",
        "too long",
        "too long in two pieces",
    ],
)
async def test_who_breaks_the_protocol_is_told_and_closed(
    raw: bytes, code: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An ``error`` frame in words, the close frame with its code, and no answer to what follows."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(max_message=1000))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    await socket.send_raw(raw + frame(TEXT, b'{"type":"ping"}'))
    told = await refused(socket, "bad-frame")
    came = await closed_with(socket, code)
    assert came.reason == told["message"]
    socket.abort()
    await eventually(lambda: not sidecar.hub.sockets, "nothing is left of it")
    assert not sidecar.hub.readers
    assert len(sidecar.hub.running) == 1, "its stream lingers"


async def test_a_message_just_of_the_limit_is_heard(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``max_message`` bytes are allowed, in one frame or in several."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(max_message=1000))
    socket = await connect(sidecar.url)
    said = b'{"a":"%b"}' % (b"x" * 992)
    assert len(said) == 1000
    await socket.send(TEXT, said)
    await socket.hear_until("end")
    await socket.send(TEXT, said[:400], fin=False)
    await socket.send(CONTINUATION, said[400:])
    await socket.hear_until("end")
    assert [upstream.body for upstream in origin.requests] == [said] * 2


async def test_who_sends_too_much_is_told_although_it_goes_on_sending(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """To close at once would reset the connection, and the client would lose the words that explain it.

    A stream that ends meanwhile is no reason to close sooner.
    """
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(max_message=1000))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    await socket.send_raw(frame(TEXT, bytes(20_000_000))[:100_000])
    held = next(iter(sidecar.hub.sockets))
    await eventually(lambda: held._closing, "it has judged")  # type: ignore[attr-defined]
    await (await origin.request()).end()
    await eventually(lambda: not sidecar.hub.running, "the stream ended")
    for _ in range(100):
        await socket.send_raw(bytes(100_000))
        await asyncio.sleep(0)
    await refused(socket, "bad-frame")
    assert (await closed_with(socket, 1009)).reason.startswith("a message of 20000000 bytes")


# Close


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (1001, ""), (3000, ""), (4999, "ä" * 61)])
async def test_a_close_is_answered_and_the_connection_ends(
    code: int, reason: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """With the same code (RFC 6455 §5.5.1), and the server closes first (§7.1.1)."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    assert (await socket.close(code, reason)).code == code
    assert await socket.ended()
    await eventually(lambda: not sidecar.hub.sockets, "it is counted out")


async def test_a_close_without_a_code_is_answered_with_1000(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """1005 may not be sent."""
    origin = await start_origin(streams())
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.send(CLOSE)
    await closed_with(socket, 1000)


async def test_nothing_is_heard_behind_a_close(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What follows it in the same read is no command any more."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.send_raw(frame(CLOSE, closing(1000)) + frame(TEXT, b"{}") + frame(PING))
    await closed_with(socket, 1000)
    assert not origin.requests


async def test_a_close_in_the_middle_of_a_stream_lets_it_linger(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Closing is leaving, not cancelling: nothing comes behind the answer, and the stream goes on."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    assert (await socket.close()).code == 1000
    assert await socket.ended()
    await eventually(lambda: not sidecar.hub.readers, "the reader is counted out")
    assert not (await origin.request()).peer_closed.is_set()
    again = await connect(sidecar.url)
    await again.say({"type": "resume", "last_event_id": f"{stream}.1"})
    assert await again.hear() == opened(stream, resumed_from=1)


async def test_half_closing_is_leaving(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A client whose side of the connection ends without a word will not be heard again."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await begin(socket)
    socket.answer.writer.write_eof()
    await eventually(lambda: not (sidecar.hub.sockets or sidecar.hub.readers), "it is counted out")


# Whatever comes


async def test_any_mixture_of_commands_leaves_a_connection_in_order(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Each command has exactly one answer, whatever came before it; and in the end nothing is left."""
    said: list[Any] = [
        {"type": "ping"},
        {"type": "cancel"},
        {"type": "nonsense"},
        {"type": "resume", "stream": UNKNOWN, "after": 0},
        {"type": "cancel", "stream": UNKNOWN},
        "{",
    ]
    expected = ["pong", "nothing-running", "bad-frame", "unknown-stream", "unknown-stream", "bad-frame"]
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(
        origin.url,
        route=bridge(replay={"keep": "50ms"}),
        upstreams={"origin": {"url": origin.url, "keepalive": "50ms"}},
    )
    peace = Peace()
    socket = await connect(sidecar.url)
    for _ in range(20):
        text = [each if isinstance(each, str) else json.dumps(each) for each in said]
        await socket.send_raw(b"".join(frame(TEXT, each.encode()) for each in text))
        heard = [await socket.hear() for _ in said]
        assert [each.get("code", each["type"]) for each in heard] == expected
        await begin(socket)
        assert data_of(await socket.hear_until("end")) == ["a"]
    await socket.close()
    socket.abort()
    await peace.restored(sidecar)
    assert not sidecar.hub.sockets
