"""A client that comes back over WebSocket: to its own streams, to those begun over SSE, and the other way."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.server.app import Sidecar
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
from tests.support.client import Answer, ask
from tests.support.origin import Connection, Origin
from tests.support.script import holds, in_turn, streams
from tests.support.websocket import Socket, connect

THREE = b"data: a\n\ndata: b\n\ndata: c\n\n"
UNKNOWN = "A" * 22


def by_id(stream: str | None, seq: int) -> dict[str, Any]:
    """Resume by the id of the last event."""
    return {"type": "resume", "last_event_id": f"{stream}.{seq}"}


def by_number(stream: str | None, seq: int) -> dict[str, Any]:
    """Resume by a stream's name and a number."""
    return {"type": "resume", "stream": stream, "after": seq}


def by_text(stream: str | None, seq: int) -> dict[str, Any]:
    """The same, as it stands in a query."""
    return {"type": "resume", "stream": stream, "after": str(seq)}


def by_both(stream: str | None, seq: int) -> dict[str, Any]:
    """A stream's name, and the id of the last event, which is more exact than ``after``."""
    return {"type": "resume", "stream": stream, "last_event_id": f"{stream}.{seq}", "after": 0}


every_way = pytest.mark.parametrize("way", [by_id, by_number, by_text, by_both])


# The same stream again


@every_way
async def test_a_finished_stream_gives_its_rest_on_the_same_connection(
    way: Any, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What follows the cursor, and the end; nothing is asked upstream."""
    origin = await start_origin(streams(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    await socket.hear_until("end")
    await socket.say(way(stream, 1))
    assert await socket.hear_until("end") == [
        opened(stream, resumed_from=1),
        event(stream, 2, "b"),
        event(stream, 3, "c"),
        ended(stream),
    ]
    assert len(origin.requests) == 1
    assert sidecar.telemetry.route("all").resumes == {"resumed": 1}


@every_way
async def test_a_live_stream_goes_on_on_another_connection(
    way: Any, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Dropped in the middle, and resumed: no block twice, none missing, one upstream request."""
    origin = await start_origin(holds(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    socket.abort()
    upstream = await origin.request()
    await upstream.chunk(b"data: d\n\n")
    again = await connect(sidecar.url)
    await again.say(way(stream, 1))
    assert await again.hear() == opened(stream, resumed_from=1)
    assert data_of([await again.hear() for _ in range(3)]) == ["b", "c", "d"]
    await upstream.chunk(b"data: e\n\n")
    assert await again.hear() == event(stream, 5, "e")
    await upstream.end()
    assert await again.hear() == ended(stream)
    assert len(origin.requests) == 1


async def test_no_cursor_means_from_the_first_block(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``stream`` alone."""
    origin = await start_origin(holds(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    stream = await begin(await connect(sidecar.url))
    other = await connect(sidecar.url)
    await other.say({"type": "resume", "stream": stream})
    assert await other.hear() == opened(stream, resumed_from=0)
    assert data_of([await other.hear() for _ in range(3)]) == ["a", "b", "c"]


async def test_after_now_means_only_what_is_to_come(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``now`` stands at the head of the log."""
    origin = await start_origin(holds(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert data_of([await socket.hear() for _ in range(3)]) == ["a", "b", "c"]
    other = await connect(sidecar.url)
    await other.say({"type": "resume", "stream": stream, "after": "now"})
    assert await other.hear() == opened(stream, resumed_from=3)
    await (await origin.request()).chunk(b"data: d\n\n")
    assert await other.hear() == event(stream, 4, "d")


@every_way
async def test_at_the_end_there_is_only_the_end(
    way: Any, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Where SSE has to say 204, frames say it: opened, ended, and why."""
    origin = await start_origin(streams(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    await socket.hear_until("end")
    for seq in (way(stream, 3), {"type": "resume", "stream": stream, "after": "now"}):
        await socket.say(seq)
        assert await socket.hear() == opened(stream, resumed_from=3)
        assert await socket.hear() == ended(stream)
    assert sidecar.telemetry.route("all").resumes == {"at_end": 2}
    assert not sidecar.hub.readers


async def test_a_truncated_stream_is_truncated_for_whoever_replays_it(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its end is part of it."""

    async def breaks(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(THREE)
        await connection.close()

    origin = await start_origin(breaks)
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    first = (await socket.hear_until("end"))[-1]
    assert first["reason"] == "truncated"
    for seq in (0, 2, 3):
        await socket.say(by_id(stream, seq))
        assert (await socket.hear_until("end"))[-1] == first


# From one transport to the other


async def test_a_stream_begun_over_sse_goes_on_over_websocket(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Each block exactly once over both."""
    origin = await start_origin(holds(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    first = await ask(sidecar.url, method="POST", body=b"{}")
    stream = first.header("stream-id")
    await first.blocks(2)
    first.abort()
    socket = await connect(sidecar.url)
    await socket.say(by_id(stream, 2))
    assert await socket.hear() == opened(stream, resumed_from=2)
    assert await socket.hear() == event(stream, 3, "c")
    upstream = await origin.request()
    await upstream.chunk(b"data: d\n\n")
    assert await socket.hear() == event(stream, 4, "d")
    await upstream.end()
    assert await socket.hear() == ended(stream)
    assert len(origin.requests) == 1


@pytest.mark.parametrize("on_route", [True, False])
async def test_a_stream_begun_over_websocket_goes_on_over_sse(
    on_route: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """By its own address, and by a POST to its route with the start's body, as fetch-event-source does."""
    origin = await start_origin(holds(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url, "/x")
    stream = await begin(socket, {"prompt": "hi"})
    assert await socket.hear() == event(stream, 1, "a")
    socket.abort()
    if on_route:
        cursor = {"Last-Event-ID": f"{stream}.1"}
        again = await ask(sidecar.url, "/x", method="POST", headers=cursor, body=b'{"prompt": "hi"}')
    else:
        again = await ask(sidecar.url, f"/_streams/{stream}?after=1")
    assert again.header("stream-resumed-from") == "1"
    upstream = await origin.request()
    await upstream.chunk(b"data: d\n\n")
    await upstream.end()
    assert (
        await again.rest()
        == (
            f"id: {stream}.2\nretry: 3000\ndata: b\n\nid: {stream}.3\ndata: c\n\nid: {stream}.4\ndata: d\n\n"
        ).encode()
    )
    assert len(origin.requests) == 1


async def test_a_client_that_changes_over_and_over_has_each_block_once(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """SSE, WebSocket, SSE …: with a block logged before, during and after each change."""
    origin = await start_origin(holds())
    sidecar = await start_sidecar(origin.url, route=bridge())
    answer = await ask(sidecar.url, method="POST", body=b"{}")
    stream = answer.header("stream-id")
    upstream = await origin.request()
    got: list[str] = []
    sent = 0

    async def send() -> None:
        nonlocal sent
        sent += 1
        await upstream.chunk(b"data: %d\n\n" % sent)

    for turn in range(40):
        await send()
        if turn % 2:
            socket = await connect(sidecar.url)
            await socket.say(by_id(stream, len(got)))
            assert await socket.hear() == opened(stream, resumed_from=len(got))
            await send()
            while len(got) < sent:
                heard = await socket.hear()
                assert heard["id"] == f"{stream}.{len(got) + 1}"
                got.append(heard["data"])
            socket.abort()
        else:
            answer = await ask(sidecar.url, f"/_streams/{stream}?after={len(got)}")
            await send()
            while len(got) < sent:
                got.append((await answer.block()).decode().rpartition("data: ")[2].strip())
            answer.abort()
    assert got == [str(number) for number in range(1, sent + 1)]
    assert len(origin.requests) == 1


async def test_readers_of_both_kinds_get_the_same(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """One upstream request, three readers over WebSocket, three over SSE, from where each one stands."""
    origin = await start_origin(holds(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    sockets = [await connect(sidecar.url) for _ in range(3)]
    for seq, each in enumerate(sockets):
        await each.say(by_number(stream, seq))
        assert await each.hear() == opened(stream, resumed_from=seq)
    readers = [await ask(sidecar.url, f"/_streams/{stream}?after={seq}") for seq in range(3)]
    state = await (await ask(sidecar.url, f"/_streams/{stream}/state")).json()
    assert state["readers"] == 7
    upstream = await origin.request()
    await upstream.chunk(b"data: d\n\n")
    await upstream.end()
    blocks = ["a", "b", "c", "d"]
    for seq, each in enumerate(sockets):
        heard = await each.hear_until("end")
        expected = [event(stream, number, blocks[number - 1]) for number in range(seq + 1, 5)]
        assert heard == [*expected, ended(stream)]
    for seq, reader in enumerate(readers):
        text = (await reader.rest()).decode()
        assert [line[6:] for line in text.split("\n") if line.startswith("data: ")] == blocks[seq:]
    assert data_of(await socket.hear_until("end")) == blocks
    await eventually(lambda: not sidecar.hub.readers, "every reader was counted out")


# An app's own ids


async def app_ids(start_origin: StartOrigin, start_sidecar: StartSidecar) -> tuple[Origin, Socket, str]:
    """A finished stream of blocks e1, e2 (no id: it keeps e1's), e3, and the connection that began it."""
    origin = await start_origin(streams(b"id: e1\ndata: a\n\ndata: b\n\nid: e3\ndata: c\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(ids="upstream", methods=["POST"]))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    await socket.hear_until("end")
    return origin, socket, stream


async def test_an_apps_own_id_resumes_beside_the_streams_name(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """What an ``upstream_id`` says, a client may use; frames go on having ids of ours."""
    origin, socket, stream = await app_ids(start_origin, start_sidecar)
    await socket.say({"type": "resume", "stream": stream, "last_event_id": "e3"})
    assert await socket.hear_until("end") == [opened(stream, resumed_from=3), ended(stream)]
    await socket.say(by_id(stream, 2))
    assert await socket.hear_until("end") == [
        opened(stream, resumed_from=2),
        event(stream, 3, "c", upstream_id="e3"),
        ended(stream),
    ]
    assert len(origin.requests) == 1


async def test_an_apps_own_id_that_is_not_held_is_a_gap(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Nobody can tell what lies between."""
    _, socket, stream = await app_ids(start_origin, start_sidecar)
    await socket.say({"type": "resume", "stream": stream, "last_event_id": "e9"})
    await refused(socket, "gap", status=410, recoverable=False)
    await still_lives(socket)


# What cannot be resumed


async def beyond_the_window(
    start_origin: StartOrigin, start_sidecar: StartSidecar, **route: Any
) -> tuple[Sidecar, str]:
    """A live stream of five blocks of which the log holds the last two."""
    origin = await start_origin(holds(*(b"data: %d\n\n" % number for number in range(1, 6))))
    sidecar = await start_sidecar(origin.url, route=bridge(replay={"max_events": 2}, **route))
    first = await ask(sidecar.url, method="POST")
    await first.blocks(5)
    return sidecar, str(first.header("stream-id"))


@every_way
@pytest.mark.parametrize("seq", [0, 2])
async def test_a_gap_is_refused_and_the_earliest_block_named(
    way: Any, seq: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``earliest`` is what the Stream-Earliest header is over HTTP."""
    sidecar, stream = await beyond_the_window(start_origin, start_sidecar)
    socket = await connect(sidecar.url)
    await socket.say(way(stream, seq))
    told = await refused(socket, "gap", status=410, recoverable=False, earliest=4)
    await socket.say(by_number(stream, told["earliest"] - 1))
    assert await socket.hear() == opened(stream, resumed_from=3)
    assert data_of([await socket.hear() for _ in range(2)]) == ["4", "5"]
    assert sidecar.telemetry.route("all").resumes == {"gap": 1, "resumed": 1}


async def test_a_gap_is_signalled_where_the_route_says_so(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``gap: signal``: an event that says what is gone, whose id goes on behind it."""
    sidecar, stream = await beyond_the_window(start_origin, start_sidecar, gap="signal")
    socket = await connect(sidecar.url)
    await socket.say(by_id(stream, 1))
    assert await socket.hear() == opened(stream, resumed_from=1)
    assert await socket.hear() == event(stream, 3, {"from": 2, "to": 3}, "stream-gap")
    assert data_of([await socket.hear() for _ in range(2)]) == ["4", "5"]


@pytest.mark.parametrize(
    ("cursor", "code", "status"),
    [
        ({"last_event_id": "{stream}.4"}, "bad-cursor", 400),
        ({"after": 4}, "bad-cursor", 400),
        ({"after": "later"}, "bad-cursor", 400),
        ({"after": "-1"}, "bad-cursor", 400),
        ({"after": -1}, "bad-frame", 400),
        ({"after": 1.5}, "bad-frame", 400),
        ({"after": 10**18}, "bad-frame", 400),
        ({"after": True}, "bad-frame", 400),
        ({"last_event_id": f"{UNKNOWN}.1"}, "bad-cursor", 400),
        ({"last_event_id": "e1"}, "bad-cursor", 400),
    ],
)
async def test_a_cursor_that_cannot_be_is_refused(
    cursor: dict[str, Any], code: str, status: int, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """As over HTTP; the connection lives, and the stream can still be had."""
    origin = await start_origin(streams(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    await socket.hear_until("end")
    named = {
        name: value.format(stream=stream) if isinstance(value, str) else value
        for name, value in cursor.items()
    }
    await socket.say({"type": "resume", "stream": stream, **named})
    await refused(socket, code, status=status, recoverable=False)
    await socket.say(by_id(stream, 2))
    assert await socket.hear() == opened(stream, resumed_from=2)


async def test_what_a_resume_must_name(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """An app's own id says nothing without its stream."""
    origin = await start_origin(streams(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say({"type": "resume", "last_event_id": "e1"})
    await refused(socket, "bad-frame")


async def test_an_expired_stream_is_known_to_be_gone(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """No second generation is paid for."""
    origin = await start_origin(streams(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge(replay={"keep": "0s"}))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    await socket.hear_until("end")
    await eventually(lambda: sidecar.hub.store.tombstones == 1, "the log was dropped")
    await socket.say(by_id(stream, 1))
    await refused(socket, "expired", status=410, recoverable=False)
    assert len(origin.requests) == 1


@pytest.mark.parametrize("name", [UNKNOWN, "short", "", "x" * 1000])
async def test_an_unknown_stream(name: str, start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Nothing begins in its place."""
    origin = await start_origin(streams(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket = await connect(sidecar.url)
    await socket.say(by_number(name, 0))
    await refused(socket, "unknown-stream", status=404, recoverable=False)
    assert not origin.requests


@pytest.mark.parametrize("feed", [True, False])
async def test_a_feed_that_is_finished_gives_its_end(
    feed: bool, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A resume over WebSocket attaches and never starts: the client sees the end, and can start anew."""
    origin = await start_origin(streams(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge(methods=["GET" if feed else "POST"]))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    await socket.hear_until("end")
    await socket.say(by_id(stream, 2))
    assert await socket.hear_until("end") == [
        opened(stream, resumed_from=2),
        event(stream, 3, "c"),
        ended(stream),
    ]
    assert len(origin.requests) == 1


# Whose stream it is

PRINCIPALS = [
    pytest.param({"cookie": "user"}, {"Cookie": "user=me; a=b"}, {"Cookie": "user=you"}, id="cookie"),
    pytest.param({"header": "X-User"}, {"X-User": "me"}, {"X-User": "you"}, id="header"),
    pytest.param(
        {"header": "Authorization"},
        {"Sec-WebSocket-Protocol": "sse-sidecar.v1, bearer.me"},
        {"Sec-WebSocket-Protocol": "sse-sidecar.v1, bearer.you"},
        id="bearer",
    ),
]


@pytest.mark.parametrize(("principal", "me", "you"), PRINCIPALS)
async def test_a_stream_of_another_principal_is_unknown(
    principal: dict[str, str],
    me: dict[str, str],
    you: dict[str, str],
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """To read and to cancel; and what is mine is mine on every connection of mine."""
    origin = await start_origin(holds(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge(principal=principal))
    stream = await begin(await connect(sidecar.url, headers=me))
    for headers in (you, {}):
        other = await connect(sidecar.url, headers=headers)
        for said in (by_id(stream, 0), by_number(stream, 0), {"type": "cancel", "stream": stream}):
            await other.say(said)
            await refused(other, "unknown-stream", status=404)
    mine = await connect(sidecar.url, headers=me)
    await mine.say(by_id(stream, 2))
    assert await mine.hear() == opened(stream, resumed_from=2)
    assert await mine.hear() == event(stream, 3, "c")
    assert len(sidecar.hub.running) == 1


async def test_a_bearer_is_the_same_principal_over_both_transports(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A token in the subprotocol list and the same one in Authorization are one caller."""
    origin = await start_origin(holds(THREE))
    sidecar = await start_sidecar(origin.url, route=bridge(principal={"header": "Authorization"}))
    stream = await begin(await connect(sidecar.url, headers={"Sec-WebSocket-Protocol": "bearer.me"}))

    async def over_sse(token: str) -> Answer:
        headers = {"Authorization": f"Bearer {token}"}
        return await ask(sidecar.url, f"/_streams/{stream}?after=2", headers=headers)

    assert (await over_sse("you")).status == 404
    assert (await (await over_sse("me")).block()).endswith(b"data: c\n\n")


async def test_a_stream_of_another_route_can_be_resumed_by_its_own_caller(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """As below ``/_streams/``: the id is the capability, and the stream's own route says who must ask."""
    origin = await start_origin(streams(THREE))
    routes = [
        {"name": "open", "path": "/open", "upstream": "origin"},
        {"name": "hosted", "path": "/hosted", "upstream": "origin", "hosts": ["only.example"]},
        {"name": "all", "path": "/{tail:.*}", "upstream": "origin", "websocket": "bridge"},
    ]
    sidecar = await start_sidecar(origin.url, routes=routes)
    reachable = await ask(sidecar.url, "/open", method="POST")
    await reachable.rest()
    guarded = await ask(sidecar.url, "/hosted", method="POST", headers={"Host": "only.example"})
    await guarded.rest()
    socket = await connect(sidecar.url)
    await socket.say(by_id(reachable.header("stream-id"), 2))
    assert data_of(await socket.hear_until("end")) == ["c"]
    await socket.say(by_id(guarded.header("stream-id"), 2))
    await refused(socket, "refused", status=403)


# Too many at once


async def test_a_stream_that_is_followed_here_cannot_be_followed_twice(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Its frames could not be told apart; the first goes on."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=bridge(max_concurrent=2))
    socket = await connect(sidecar.url)
    stream = await begin(socket)
    assert await socket.hear() == event(stream, 1, "a")
    await socket.say(by_id(stream, 0))
    told = await refused(socket, "busy", status=429)
    assert "follows" in told["message"]
    await (await origin.request()).chunk(b"data: b\n\n")
    assert await socket.hear() == event(stream, 2, "b")


async def test_a_resume_counts_as_one_of_the_connections_streams(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``max_concurrent`` bounds what a connection follows, however it came to it."""
    origin = await start_origin(in_turn(holds(b"data: a\n\n"), holds(b"data: b\n\n")))
    sidecar = await start_sidecar(origin.url, route=bridge())
    socket, other = await connect(sidecar.url), await connect(sidecar.url)
    first, second = await begin(socket), await begin(other)
    assert await socket.hear() == event(first, 1, "a")
    await socket.say(by_id(second, 0))
    await refused(socket, "busy")
    await (await origin.request()).end()
    assert await socket.hear() == ended(first)
    await socket.say(by_id(second, 0))
    assert await socket.hear() == opened(second, resumed_from=0)
    await socket.say({})
    assert (await socket.hear_until("error"))[-1]["code"] == "busy"


async def test_two_resumes_run_side_by_side(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """One connection of a page that comes back to both of its streams."""
    origin = await start_origin(in_turn(holds(b"data: a\n\n"), holds(b"data: b\n\n")))
    sidecar = await start_sidecar(origin.url, route=bridge(max_concurrent=2))
    lost = await connect(sidecar.url)
    names = []
    for data in ("a", "b"):
        names.append(await begin(lost))
        assert await lost.hear() == event(names[-1], 1, data)
    lost.abort()
    socket = await connect(sidecar.url)
    for name, data in zip(names, ["a", "b"], strict=True):
        await socket.say(by_id(name, 0))
        assert await socket.hear() == opened(name, resumed_from=0)
        assert await socket.hear() == event(name, 1, data)
    for number, name in enumerate(names, 1):
        await (await origin.request(number)).end()
        assert await socket.hear() == ended(name)
