"""A reader that comes back, over real sockets: every row of the table of states.

Streams of these tests come from ``POST /x`` or ``GET /x``. A GET of no provider's dialect is a feed, and
feeds have rows of their own, so the rows that hold for everybody are tested on a route that says
``finished: stop`` and ``gap: fail``, which is what a feed lacks by default and all else has.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar, at_rest, eventually, unsent
from tests.support.client import Answer, Truncated, ask, read_answer, send
from tests.support.origin import Connection, Origin
from tests.support.script import answers, holds, in_turn, streams

NO_FEED = {"finished": "stop", "gap": "fail"}
BODY = b'{"prompt":"hi"}'
UNKNOWN = "A" * 22

#: How a reader says where it stands, and the method that began its stream. Below ``/_streams/`` it is
#: always a GET that comes back.
WAYS = [
    pytest.param("route", "GET", id="route-get"),
    pytest.param("route", "POST", id="route-post"),
    pytest.param("header", "POST", id="streams-header"),
    pytest.param("last_event_id", "POST", id="streams-last_event_id"),
    pytest.param("after", "POST", id="streams-after"),
]
every_way = pytest.mark.parametrize(("way", "method"), WAYS)


async def begin(sidecar: Sidecar, method: str = "POST", **headers: str) -> Answer:
    """Begin a stream."""
    body = BODY if method == "POST" else None
    return await ask(sidecar.url, "/x", method=method, headers=headers, body=body)


async def come_back(
    sidecar: Sidecar, way: str, stream: str | None, seq: int, method: str = "GET", **headers: str
) -> Answer:
    """Ask for what follows block ``seq``, the way that ``WAYS`` names."""
    cursor = f"{stream}.{seq}"
    if way == "route":
        body = BODY if method == "POST" else None
        headers = {"Last-Event-ID": cursor, **headers}
        return await ask(sidecar.url, "/x", method=method, headers=headers, body=body)
    if way == "header":
        return await ask(sidecar.url, f"/_streams/{stream}", headers={"Last-Event-ID": cursor, **headers})
    query = f"after={seq}" if way == "after" else f"last_event_id={cursor}"
    return await ask(sidecar.url, f"/_streams/{stream}?{query}", headers=headers)


def wire(stream: str | None, *blocks: str, first: int = 1, retry: bool = True) -> bytes:
    """What a client gets for upstream blocks: ids counted from ``first``, and a retry line on top."""
    lines = [f"id: {stream}.{seq}\n{block}\n\n" for seq, block in enumerate(blocks, first)]
    if retry and lines:
        lines[0] = lines[0].replace("\n", "\nretry: 3000\n", 1)
    return "".join(lines).encode()


async def kind(answer: Answer) -> str:
    """The kind of problem that an answer tells."""
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("cache-control") == "no-store"
    document: dict[str, Any] = await answer.json()
    assert document["status"] == answer.status
    return str(document["type"]).rpartition(":")[2]


# live, cursor inside the log


@every_way
async def test_a_live_stream_is_replayed_and_then_followed(
    start_origin: StartOrigin, start_sidecar: StartSidecar, way: str, method: str
) -> None:
    """The blocks behind the cursor, then those that come: none twice, none missing, one upstream request."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\ndata: c\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, method)
    stream = first.header("stream-id")
    await first.blocks(3)
    first.abort()
    again = await come_back(sidecar, way, stream, 1, method)
    assert again.status == 200
    assert again.header("stream-id") == stream
    assert again.header("stream-resumed-from") == "1"
    assert again.header("stream-closed") is None
    assert b"".join(await again.blocks(2)) == wire(stream, "data: b", "data: c", first=2)
    upstream = await origin.request()
    await upstream.chunk(b"data: d\n\n")
    assert await again.block() == wire(stream, "data: d", first=4, retry=False)
    await upstream.end()
    assert await again.rest() == b""
    assert len(origin.requests) == 1


async def test_no_cursor_means_from_the_first_block(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A stream's own address without a cursor gives the whole stream."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    stream = first.header("stream-id")
    await first.blocks(2)
    again = await ask(sidecar.url, f"/_streams/{stream}")
    assert again.header("stream-resumed-from") == "0"
    assert b"".join(await again.blocks(2)) == wire(stream, "data: a", "data: b")
    assert len(origin.requests) == 1


async def test_after_now_means_only_what_is_to_come(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``after=now`` stands at the head of the log."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    stream = first.header("stream-id")
    await first.blocks(2)
    again = await ask(sidecar.url, f"/_streams/{stream}?after=now")
    assert again.header("stream-resumed-from") == "2"
    await (await origin.request()).chunk(b"data: c\n\n")
    assert await again.block() == wire(stream, "data: c", first=3)


@pytest.mark.parametrize("query", ["last_event_id={stream}.0", "after=0", "after=now", "after=nonsense"])
async def test_the_header_wins_over_the_query(
    start_origin: StartOrigin, start_sidecar: StartSidecar, query: str
) -> None:
    """An EventSource that reconnects repeats its address and adds the newer cursor as a header."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\ndata: c\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    stream = first.header("stream-id")
    await first.blocks(3)
    again = await ask(
        sidecar.url,
        f"/_streams/{stream}?{query.format(stream=stream)}",
        headers={"Last-Event-ID": f"{stream}.2"},
    )
    assert await again.block() == wire(stream, "data: c", first=3)


async def test_on_a_route_the_query_is_the_apps(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``after`` and ``last_event_id`` in a route's query go upstream and resume nothing."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, "GET")
    stream = first.header("stream-id")
    await first.rest()
    target = f"/x?after=1&last_event_id={stream}.1"
    other = await ask(sidecar.url, target)
    assert other.header("stream-id") != stream
    assert (await origin.request(2)).target == target


async def test_the_first_answers_headers_are_repeated_but_for_its_cookies(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A resume carries the upstream's own fields again, and never sets a cookie again."""

    async def script(connection: Connection) -> None:
        await connection.start_stream(b"X-Model: m1\r\nSet-Cookie: sid=1\r\nCache-Control: private\r\n")
        await connection.chunk(b"data: a\n\n")
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, public_path="/app")
    first = await begin(sidecar)
    assert first.header("set-cookie") == "sid=1"
    stream = first.header("stream-id")
    again = await come_back(sidecar, "header", stream, 0)
    assert again.header("set-cookie") is None
    assert again.header("x-model") == "m1"
    assert again.header("content-type") == "text/event-stream; charset=utf-8"
    assert again.header("cache-control") == "no-cache, no-transform, private"
    assert again.header("x-accel-buffering") == "no"
    assert again.header("link") == (
        f'</app/_streams/{stream}>; rel="resume", </app/_streams/{stream}/cancel>; rel="cancel"'
    )


async def test_any_number_of_readers_follow_one_stream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Ten readers at ten cursors see the same blocks with the same ids; all are counted out again."""
    origin = await start_origin(holds(*(b"data: %d\n\n" % number for number in range(1, 11))))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    stream = first.header("stream-id")
    await first.blocks(10)
    readers = [await come_back(sidecar, "after", stream, seq) for seq in range(10)]
    assert (await (await ask(sidecar.url, f"/_streams/{stream}/state")).json())["readers"] == 11
    upstream = await origin.request()
    await upstream.chunk(b"data: 11\n\n")
    await upstream.end()
    texts = [f"data: {number}" for number in range(1, 12)]
    for seq, reader in enumerate(readers):
        assert await reader.rest() == wire(stream, *texts[seq:], first=seq + 1)
    stats = sidecar.telemetry.route("all")
    await eventually(lambda: not (sidecar.hub.readers or stats.readers), "every reader was counted out")
    assert stats.resumes == {"resumed": 10}
    assert len(origin.requests) == 1


# finished


@every_way
async def test_a_finished_stream_gives_its_rest_and_closes(
    start_origin: StartOrigin, start_sidecar: StartSidecar, way: str, method: str
) -> None:
    """Finished, cursor before the end: 200 with the rest, marked as closed."""
    origin = await start_origin(streams(b"data: a\n\ndata: b\n\ndata: c\n\n"))
    sidecar = await start_sidecar(origin.url, route=NO_FEED)
    first = await begin(sidecar, method)
    stream = first.header("stream-id")
    await first.rest()
    again = await come_back(sidecar, way, stream, 1, method)
    assert again.status == 200
    assert again.header("stream-closed") == "true"
    assert again.header("stream-resumed-from") == "1"
    assert await again.rest() == wire(stream, "data: b", "data: c", first=2)
    assert len(origin.requests) == 1


@every_way
async def test_nothing_is_left_at_the_end_of_a_finished_stream(
    start_origin: StartOrigin, start_sidecar: StartSidecar, way: str, method: str
) -> None:
    """Finished, cursor at the end: 204 stops an EventSource; a re-POST is stopped by an empty stream."""
    origin = await start_origin(streams(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url, route=NO_FEED)
    first = await begin(sidecar, method)
    stream = first.header("stream-id")
    await first.rest()
    again = await come_back(sidecar, way, stream, 2, method)
    if (way, method) == ("route", "POST"):
        assert again.status == 200
        assert again.header("content-type") == "text/event-stream; charset=utf-8"
    else:
        assert again.status == 204
    assert again.header("stream-closed") == "true"
    assert again.header("stream-id") == stream
    assert again.header("cache-control") == "no-store"
    assert again.header("server") == "sse-sidecar"
    assert await again.rest() == b""
    assert len(origin.requests) == 1


async def test_after_now_at_the_end_of_a_finished_stream_is_204(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """There is nothing to come."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    await first.rest()
    again = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}?after=now")
    assert (again.status, again.header("stream-closed")) == (204, "true")


async def test_a_stream_that_broke_off_breaks_off_again_for_whoever_replays_it(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A replay of a truncated stream without a word for it must not look whole."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: a\n\ndata: b\n\n")
        await connection.close()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    stream = first.header("stream-id")
    with pytest.raises(Truncated):
        await first.rest()
    again = await come_back(sidecar, "header", stream, 1)
    assert again.header("stream-closed") == "true"
    assert await again.block() == wire(stream, "data: b", first=2)
    with pytest.raises(Truncated):
        await again.rest()
    assert (await come_back(sidecar, "header", stream, 2)).status == 204


# older than the log


async def beyond_the_window(
    start_origin: StartOrigin, start_sidecar: StartSidecar, method: str, **route: Any
) -> tuple[Origin, Sidecar, str]:
    """A live stream of five blocks of which the log holds the last two."""
    origin = await start_origin(holds(*(b"data: %d\n\n" % number for number in range(1, 6))))
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_events": 2}, **route})
    first = await begin(sidecar, method)
    await first.blocks(5)
    stream = first.header("stream-id")
    assert stream is not None
    return origin, sidecar, stream


@every_way
@pytest.mark.parametrize("seq", [0, 2])
async def test_a_gap_is_refused_and_the_earliest_block_named(
    start_origin: StartOrigin, start_sidecar: StartSidecar, way: str, method: str, seq: int
) -> None:
    """Cursor older than the log: 410 ``gap``, and where one could still begin."""
    origin, sidecar, stream = await beyond_the_window(start_origin, start_sidecar, method, gap="fail")
    again = await come_back(sidecar, way, stream, seq, method)
    assert again.status == 410
    assert again.header("stream-earliest") == "4"
    assert await kind(again) == "gap"
    assert len(origin.requests) == 1


async def test_gaps_fail_by_default_where_an_answer_must_be_whole(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A POST's stream is no feed: without a word in the configuration a gap is refused."""
    _, sidecar, stream = await beyond_the_window(start_origin, start_sidecar, "POST")
    assert (await come_back(sidecar, "route", stream, 1, "POST")).status == 410


async def test_the_oldest_block_held_is_no_gap(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The cursor just before the log's first block misses nothing."""
    _, sidecar, stream = await beyond_the_window(start_origin, start_sidecar, "POST")
    again = await come_back(sidecar, "after", stream, 3)
    assert b"".join(await again.blocks(2)) == wire(stream, "data: 4", "data: 5", first=4)


@every_way
async def test_a_gap_is_signalled_where_the_route_says_so(
    start_origin: StartOrigin, start_sidecar: StartSidecar, way: str, method: str
) -> None:
    """``gap: signal``: 200, and the first block tells which ones are gone."""
    origin, sidecar, stream = await beyond_the_window(start_origin, start_sidecar, method, gap="signal")
    again = await come_back(sidecar, way, stream, 1, method)
    assert again.status == 200
    assert await again.block() == b'event: stream-gap\ndata: {"from":2,"to":3}\n\n'
    assert b"".join(await again.blocks(2)) == wire(stream, "data: 4", "data: 5", first=4)
    assert len(origin.requests) == 1


async def test_feeds_signal_gaps_by_default(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """An EventSource on a feed goes on; a 410 would end it for good."""
    _, sidecar, stream = await beyond_the_window(start_origin, start_sidecar, "GET")
    again = await come_back(sidecar, "route", stream, 0, "GET")
    assert await again.block() == b'event: stream-gap\ndata: {"from":1,"to":3}\n\n'


# cursors that cannot be


@every_way
async def test_a_cursor_past_the_head_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar, way: str, method: str
) -> None:
    """Nobody can have seen block 3 of a stream that has two."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, method)
    await first.blocks(2)
    again = await come_back(sidecar, way, first.header("stream-id"), 3, method)
    assert again.status == 400
    assert await kind(again) == "bad-cursor"
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    "query",
    [
        "after=",
        "after=-1",
        "after=1.5",
        "after=%D9%A1",
        "after=later",
        f"after={'9' * 19}",
        "last_event_id=7",
        f"last_event_id={UNKNOWN}.1",
    ],
)
async def test_a_malformed_cursor_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar, query: str
) -> None:
    """``after`` is a number or ``now``; an id is of our form, and of the stream in the path."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    again = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}?{query}")
    assert again.status == 400
    assert await kind(again) == "bad-cursor"


@pytest.mark.parametrize("target", ["/x", "/_streams/{stream}"])
async def test_differing_duplicate_headers_are_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar, target: str
) -> None:
    """Two cursors are no cursor, and picking one could skip blocks; the same one twice is one."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, "GET")
    stream = first.header("stream-id")
    await first.blocks(2)
    one, two = ("Last-Event-ID", f"{stream}.1"), ("Last-Event-ID", f"{stream}.2")
    differing = await ask(sidecar.url, target.format(stream=stream), headers=[one, two])
    assert differing.status == 400
    same = await ask(sidecar.url, target.format(stream=stream), headers=[one, one])
    assert await same.block() == wire(stream, "data: b", first=2)
    assert len(origin.requests) == 1


# gone, unknown, not yours


@every_way
async def test_an_expired_stream_is_known_to_be_gone(
    start_origin: StartOrigin, start_sidecar: StartSidecar, way: str, method: str
) -> None:
    """When ``keep`` is over a tombstone answers: 410, and no second generation is paid for."""
    origin = await start_origin(streams(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url, route={**NO_FEED, "replay": {"keep": "0s"}})
    first = await begin(sidecar, method)
    await first.rest()
    await eventually(lambda: sidecar.hub.store.tombstones == 1, "the log was dropped")
    again = await come_back(sidecar, way, first.header("stream-id"), 1, method)
    assert again.status == 410
    assert await kind(again) == "expired"
    assert len(origin.requests) == 1


async def test_tombstones_are_bounded_in_number(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """With room for one tombstone, the older of two expired streams is unknown."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(
        origin.url, route={"replay": {"keep": "0s"}}, store={"memory": {"tombstones": 1}}
    )
    names = []
    for _ in range(2):
        answer = await begin(sidecar)
        await answer.rest()
        await eventually(lambda: not len(sidecar.hub.store), "the log was dropped")
        names.append(answer.header("stream-id"))
    assert [(await come_back(sidecar, "header", name, 1)).status for name in names] == [404, 410]


async def test_tombstones_are_bounded_in_time(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A tombstone past its time is no longer answered from."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(
        origin.url, route={"replay": {"keep": "0s"}}, store={"memory": {"tombstone_keep": "0s"}}
    )
    answer = await begin(sidecar)
    await answer.rest()
    await eventually(lambda: not len(sidecar.hub.store), "the log was dropped")
    assert (await come_back(sidecar, "header", answer.header("stream-id"), 1)).status == 404


TWO_ROUTES = [
    {"name": "a", "path": "/x", "upstream": "origin", "principal": {"cookie": "user"}, "finished": "stop"},
    {"name": "b", "path": "/{tail:.*}", "upstream": "origin"},
]


async def test_what_is_not_yours_is_unknown_on_a_route(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Unknown, another route's, another method's or another principal's: one answer for all, to the byte."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, routes=TWO_ROUTES)
    mine = (await begin(sidecar, "GET", Cookie="user=me")).header("stream-id")
    elsewhere = (await ask(sidecar.url, "/y", headers={"Cookie": "user=me"})).header("stream-id")
    posted = (await begin(sidecar, "POST", Cookie="user=me")).header("stream-id")
    answers = [
        await come_back(sidecar, "route", UNKNOWN, 0, Cookie="user=me"),
        await come_back(sidecar, "route", elsewhere, 0, Cookie="user=me"),
        await come_back(sidecar, "route", posted, 0, Cookie="user=me"),
        await come_back(sidecar, "route", mine, 0, Cookie="user=you"),
        await come_back(sidecar, "route", mine, 0),
    ]
    assert [answer.status for answer in answers] == [404] * 5
    assert len({await answer.body() for answer in answers}) == 1
    assert (await come_back(sidecar, "route", mine, 0, Cookie="user=me")).status == 200
    assert len(origin.requests) == 3


async def test_what_is_not_yours_is_unknown_when_it_has_expired_too(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Not even that it existed is told elsewhere than where it began, and no feed begins for it."""
    origin = await start_origin(streams(b"data: a\n\n"))
    routes = [
        {"name": "a", "path": "/x", "upstream": "origin", "replay": {"keep": "0s"}},
        {"name": "b", "path": "/{tail:.*}", "upstream": "origin", "finished": "stop"},
    ]
    sidecar = await start_sidecar(origin.url, routes=routes)
    posted = await begin(sidecar, "POST")
    await posted.rest()
    await eventually(lambda: sidecar.hub.store.tombstones == 1, "the log was dropped")
    cursor = {"Last-Event-ID": f"{posted.header('stream-id')}.0"}
    for target, method, status in [("/x", "POST", 410), ("/x", "GET", 404), ("/y", "POST", 404)]:
        assert (await ask(sidecar.url, target, method=method, headers=cursor)).status == status
    assert len(origin.requests) == 1


async def test_what_is_not_yours_is_unknown_by_its_address(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Below ``/_streams/`` too, whatever is wrong: running, finished or expired, or no id at all.

    A block is 38 bytes: the store holds one finished log beside the running one.
    """
    origin = await start_origin(
        in_turn(holds(b"data: a\n\n"), streams(b"data: a\n\n"), streams(b"data: a\n\n"))
    )
    route = {"principal": {"cookie": "user"}}
    sidecar = await start_sidecar(origin.url, route=route, store={"memory": {"max_bytes": 50}})
    running = await begin(sidecar, Cookie="user=me")
    await running.block()
    evicted = await begin(sidecar, Cookie="user=me")
    await evicted.rest()
    kept = await begin(sidecar, Cookie="user=me")
    await kept.rest()
    assert sidecar.hub.store.tombstones == 1
    names = [answer.header("stream-id") for answer in (running, evicted, kept)]
    refused = [await come_back(sidecar, "after", name, 0, Cookie="user=you") for name in names]
    refused += [await come_back(sidecar, "after", name, 0) for name in (UNKNOWN, "short", "")]
    assert [answer.status for answer in refused] == [404] * 6
    assert len({await answer.body() for answer in refused}) == 1
    mine = [(await come_back(sidecar, "after", name, 0, Cookie="user=me")).status for name in names]
    assert mine == [200, 410, 200]


# too many readers


@every_way
@pytest.mark.parametrize(
    ("limits", "status"),
    [({"readers_per_caller": 1}, 429), ({"readers_per_stream": 1}, 429), ({"readers": 1}, 503)],
)
async def test_too_many_readers_are_told_to_come_later(
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
    way: str,
    method: str,
    limits: dict[str, int],
    status: int,
) -> None:
    """The caller's limit is 429, ours 503, both with Retry-After; a place that is left can be taken."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, limits=limits)
    first = await begin(sidecar, method)
    await first.block()
    stream = first.header("stream-id")
    refused = await come_back(sidecar, way, stream, 0, method)
    assert refused.status == status
    assert int(refused.header("retry-after") or 0) > 0
    assert await kind(refused) == {429: "too-many-readers", 503: "capacity"}[status]
    first.abort()
    await eventually(lambda: not sidecar.hub.readers, "the first reader was counted out")
    assert (await come_back(sidecar, way, stream, 0, method)).status == 200
    assert sum(sidecar.telemetry.route("all").resumes.values()) == 2
    assert len(origin.requests) == 1


# a re-POST


async def test_a_re_post_with_another_body_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It asks for something else under the old stream's name; neither answer would be right."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    await first.block()
    cursor = {"Last-Event-ID": f"{first.header('stream-id')}.0"}
    other = await ask(sidecar.url, "/x", method="POST", headers=cursor, body=b'{"prompt":"bye"}')
    assert other.status == 422
    assert await kind(other) == "body-differs"
    chunked = [*cursor.items(), ("Transfer-Encoding", "chunked")]
    same = await ask(sidecar.url, "/x", method="POST", headers=chunked, body=b"f\r\n%b\r\n0\r\n\r\n" % BODY)
    assert same.status == 200
    bare = await ask(sidecar.url, "/x", method="POST", headers=cursor)
    assert bare.status == 200  # without a body it asks for nothing else
    assert len(origin.requests) == 1


async def test_another_body_is_noticed_also_where_the_upstream_answered_early(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A stream that began before its request had been read whole still knows that request."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: a\n\n")
        assert await connection.reader.readexactly(len(BODY)) == BODY
        await connection.chunk(b"data: b\n\n")
        await connection.gone()

    origin = await start_origin(script, whole_bodies=False)
    sidecar = await start_sidecar(origin.url)
    head = f"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    reader, writer = await send(sidecar.url, head + BODY[:4])
    first = await read_answer(reader, writer, "POST")
    await first.block()
    writer.write(BODY[4:])
    await first.block()
    cursor = {"Last-Event-ID": f"{first.header('stream-id')}.1"}
    other = await ask(sidecar.url, "/x", method="POST", headers=cursor, body=b"{}")
    assert other.status == 422


async def test_a_stream_may_expire_while_the_body_of_a_re_post_comes(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The body trickles in while the log is evicted: the client gets what it was about to get."""
    origin = await start_origin(in_turn(streams(b"data: a\n\n"), streams(b"data: %b\n\n" % (b"b" * 100))))
    sidecar = await start_sidecar(origin.url, store={"memory": {"max_bytes": 100}})
    first = await begin(sidecar)
    await first.rest()
    stream = first.header("stream-id")
    head = f"POST /x HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {stream}.0\r\nContent-Length: {len(BODY)}\r\n"
    reader, writer = await send(sidecar.url, f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await (await begin(sidecar)).rest()
    assert sidecar.hub.store.tombstones == 1
    writer.write(BODY)
    again = await read_answer(reader, writer)
    assert again.status == 200
    assert await again.rest() == wire(stream, "data: a")
    assert sidecar.telemetry.route("all").readers == 0


# HEAD


@pytest.mark.parametrize("way", ["route", "/_streams"])
async def test_head_mirrors_get_and_starts_nothing(
    start_origin: StartOrigin, start_sidecar: StartSidecar, way: str
) -> None:
    """Same status and headers as GET, no body, no reader, no upstream request."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url, route={**NO_FEED, "replay": {"max_events": 1}})
    first = await begin(sidecar, "GET")
    await first.blocks(2)
    stream = first.header("stream-id")

    async def head(seq: int, name: str | None = stream) -> Answer:
        target = "/x" if way == "route" else f"/_streams/{name}"
        return await ask(sidecar.url, target, method="HEAD", headers={"Last-Event-ID": f"{name}.{seq}"})

    live = await head(1)
    assert (live.status, live.header("stream-resumed-from")) == (200, "1")
    got = await come_back(sidecar, "route" if way == "route" else "header", stream, 1)
    varying = {"Date", "Transfer-Encoding"}
    assert [field for field in live.raw_headers if field[0] not in varying] == [
        field for field in got.raw_headers if field[0] not in varying
    ]
    gone = await head(0)
    assert (gone.status, gone.header("stream-earliest")) == (410, "2")
    assert (await head(3)).status == 400
    assert (await head(0, UNKNOWN)).status == 404
    upstream = await origin.request()
    await upstream.end()
    assert await first.rest() == b""
    rest = await head(1)
    assert (rest.status, rest.header("stream-closed")) == (200, "true")
    end = await head(2)
    assert (end.status, end.header("stream-closed")) == (204, "true")
    assert len(origin.requests) == 1
    assert sidecar.telemetry.route("all").resumes["resumed"] == 1


async def test_head_does_not_restart_a_feed(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A finished feed would be asked for anew by GET; HEAD asks nobody."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, "GET")
    await first.rest()
    cursor = {"Last-Event-ID": f"{first.header('stream-id')}.0"}
    again = await ask(sidecar.url, "/x", method="HEAD", headers=cursor)
    assert again.status == 200
    assert len(origin.requests) == 1


# feeds


async def test_a_finished_feed_begins_anew_behind_the_rest_of_its_old_blocks(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The reader misses nothing of the old stream, and then follows the new one under its ids."""
    origin = await start_origin(in_turn(streams(b"data: a\n\ndata: b\n\ndata: c\n\n"), holds(b"data: d\n\n")))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, "GET")
    old = first.header("stream-id")
    await first.rest()
    again = await come_back(sidecar, "route", old, 1)
    new = again.header("stream-id")
    assert again.status == 200
    assert new != old
    assert b"".join(await again.blocks(2)) == wire(old, "data: b", "data: c", first=2, retry=False)
    assert await again.block() == wire(new, "data: d")
    assert len(origin.requests) == 2
    assert sidecar.telemetry.route("all").resumes == {"restarted": 1}


async def test_a_finished_feeds_rest_is_whole_however_large_its_log_may_be(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Six megabytes of old blocks, under a log of eight: none is left out."""
    chunks = [b"data: %b\n\n" % (b"%d" % number * 1_000_000) for number in range(6)]
    origin = await start_origin(in_turn(streams(*chunks), streams(b"data: new\n\n")))
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_bytes": "8MiB"}})
    first = await begin(sidecar, "GET")
    await first.rest()
    again = await come_back(sidecar, "route", first.header("stream-id"), 1)
    blocks = await again.blocks(6)
    assert [block[-5:-2] for block in blocks] == [b"111", b"222", b"333", b"444", b"555", b"new"]


async def test_a_feed_that_broke_off_begins_anew_as_well(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The upstream dropped: the client sees its connection break, comes back, and goes on."""

    async def drop(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: a\n\ndata: hal")
        await connection.close()

    origin = await start_origin(in_turn(drop, holds(b"data: b\n\n")))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, "GET")
    old = first.header("stream-id")
    assert await first.block() == wire(old, "data: a")
    with pytest.raises(Truncated):
        await first.rest()
    again = await come_back(sidecar, "route", old, 1)
    assert await again.block() == wire(again.header("stream-id"), "data: b")


async def test_a_finished_feed_that_lost_blocks_tells_of_the_gap_first(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The gap, what is left of the old blocks, then the new stream."""
    origin = await start_origin(in_turn(streams(b"data: a\n\ndata: b\n\ndata: c\n\n"), holds(b"data: d\n\n")))
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_events": 1}})
    first = await begin(sidecar, "GET")
    old = first.header("stream-id")
    await first.rest()
    again = await come_back(sidecar, "route", old, 1)
    assert await again.block() == b'event: stream-gap\ndata: {"from":2,"to":2}\n\n'
    assert await again.block() == wire(old, "data: c", first=3, retry=False)
    assert await again.block() == wire(again.header("stream-id"), "data: d")


@pytest.mark.parametrize(("seq", "gap"), [(1, b'{"from":2,"to":3}'), (3, None)])
async def test_an_expired_feed_begins_anew(
    start_origin: StartOrigin, start_sidecar: StartSidecar, seq: int, gap: bytes | None
) -> None:
    """The tombstone knows how far the stream went, and so what the reader has missed."""
    origin = await start_origin(in_turn(streams(b"data: a\n\ndata: b\n\ndata: c\n\n"), holds(b"data: d\n\n")))
    sidecar = await start_sidecar(origin.url, route={"replay": {"keep": "0s"}})
    first = await begin(sidecar, "GET")
    await first.rest()
    await eventually(lambda: sidecar.hub.store.tombstones == 1, "the log was dropped")
    again = await come_back(sidecar, "route", first.header("stream-id"), seq)
    if gap is not None:
        assert await again.block() == b"event: stream-gap\ndata: %b\n\n" % gap
    assert await again.block() == wire(again.header("stream-id"), "data: d")
    assert len(origin.requests) == 2


async def test_after_a_restart_of_the_sidecar_a_feed_begins_anew(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The new process does not know the old ids, nor how much the reader missed: it says just that."""
    origin = await start_origin(holds(b"data: a\n\n"))
    before = await start_sidecar(origin.url)
    first = await begin(before, "GET")
    await first.block()
    await before.stop()
    after = await start_sidecar(origin.url)
    again = await come_back(after, "route", first.header("stream-id"), 1)
    assert again.status == 200
    assert await again.block() == b'event: stream-gap\ndata: {"from":2,"to":null}\n\n'
    assert await again.block() == wire(again.header("stream-id"), "data: a")
    assert len(origin.requests) == 2


async def test_after_a_restart_no_provider_is_asked_again(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An unknown id of our form on a route that spends tokens, or on a POST, is 404."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    assert (await come_back(sidecar, "route", UNKNOWN, 1, "POST")).status == 404
    cursor = {"Last-Event-ID": f"{UNKNOWN}.1"}
    assert (await ask(sidecar.url, "/v1/responses/resp_1", headers=cursor)).status == 404
    assert not origin.requests


async def test_a_feeds_own_address_restarts_nothing(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Only the route knows how to ask anew; ``/_streams/`` gives what was logged and then 204."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, "GET")
    stream = first.header("stream-id")
    await first.rest()
    assert await (await come_back(sidecar, "header", stream, 0)).rest() == wire(stream, "data: a")
    assert (await come_back(sidecar, "header", stream, 1)).status == 204
    assert len(origin.requests) == 1


async def test_a_feed_that_begins_anew_goes_on_from_the_apps_last_id(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Clients see our ids; the app is told its own, so that it can go on where it was."""
    origin = await start_origin(in_turn(streams(b"id: app-7\ndata: a\n\n"), holds(b"id: app-8\ndata: b\n\n")))
    sidecar = await start_sidecar(origin.url, route={"ids": "always"})
    first = await begin(sidecar, "GET")
    old = first.header("stream-id")
    assert await first.rest() == wire(old, "data: a")
    again = await come_back(sidecar, "route", old, 1)
    assert await again.block() == wire(again.header("stream-id"), "data: b")
    assert (await origin.request(2)).header("last-event-id") == "app-7"


async def test_an_expired_feed_of_somebody_else_is_unknown(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Not even how many blocks it had is told to another principal."""
    origin = await start_origin(streams(b"data: a\n\n"))
    route = {"principal": {"header": "X-User"}, "replay": {"keep": "0s"}}
    sidecar = await start_sidecar(origin.url, route=route)
    first = await begin(sidecar, "GET", **{"X-User": "me"})
    await first.rest()
    await eventually(lambda: sidecar.hub.store.tombstones == 1, "the log was dropped")
    again = await come_back(sidecar, "route", first.header("stream-id"), 0, **{"X-User": "you"})
    assert again.status == 404
    assert len(origin.requests) == 1


# the app's own ids


@pytest.mark.parametrize("last_id", ["42", "2026-11-20T08:00:00Z", UNKNOWN, f"{UNKNOWN}.x", f"{UNKNOWN}.1.2"])
async def test_an_id_that_is_not_of_our_form_is_the_apps(
    start_origin: StartOrigin, start_sidecar: StartSidecar, last_id: str
) -> None:
    """On a route it goes upstream, and the app resumes its own stream."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/x", headers={"Last-Event-ID": last_id})
    assert answer.status == 200
    assert (await origin.request()).header("last-event-id") == last_id


async def test_an_app_that_brings_ids_keeps_them(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``ids: auto``: the upstream's ids go out as they came, and come back to it on a reconnect."""
    origin = await start_origin(streams(b"id: 7\nevent: tick\ndata: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, "GET")
    assert await first.rest() == b"id: 7\nretry: 3000\nevent: tick\ndata: a\n\n"
    await (await ask(sidecar.url, "/x", headers={"Last-Event-ID": "7"})).rest()
    assert (await origin.request(2)).header("last-event-id") == "7"


async def test_under_the_apps_ids_even_one_of_our_form_is_forwarded(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``ids: upstream``: every id is the app's, which may well be a sidecar itself."""
    origin = await start_origin(holds(b"id: 7\nretry: 9\ndata: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"ids": "upstream"})
    first = await begin(sidecar, "GET")
    assert await first.block() == b"id: 7\nretry: 9\ndata: a\n\n"
    cursor = f"{first.header('stream-id')}.1"
    await ask(sidecar.url, "/x", headers={"Last-Event-ID": cursor})
    assert (await origin.request(2)).header("last-event-id") == cursor


async def test_a_streams_own_address_knows_the_apps_ids(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Below ``/_streams/`` an app's id stands for the block that carries it; one not held is a gap."""
    origin = await start_origin(holds(b"id: x1\ndata: a\n\nid: x2\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url, route={"ids": "upstream"})
    first = await begin(sidecar)
    await first.blocks(2)
    address = f"/_streams/{first.header('stream-id')}"
    again = await ask(sidecar.url, address, headers={"Last-Event-ID": "x1"})
    assert await again.block() == b"id: x2\ndata: b\n\n"
    assert (await ask(sidecar.url, address, headers={"Last-Event-ID": "x0"})).status == 410
    by_number = await ask(sidecar.url, f"{address}?after=1")
    assert await by_number.block() == b"id: x2\ndata: b\n\n"
    assert len(origin.requests) == 1


async def test_a_stream_without_ids_is_resumed_by_counting(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Google's SDKs survive no ids: their streams go out bare, and ``after`` counts blocks."""
    chunk = b'data: {"candidates":[{"content":{"parts":[{"text":"%d"}]}}]}\n\n'
    origin = await start_origin(holds(chunk % 1, chunk % 2))
    sidecar = await start_sidecar(origin.url)
    target = "/v1beta/models/m:streamGenerateContent?alt=sse"
    first = await ask(sidecar.url, target, method="POST", body=BODY)
    assert b"".join(await first.blocks(2)) == chunk % 1 + chunk % 2
    again = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}?after=1")
    assert await again.block() == chunk % 2
    assert len(origin.requests) == 1


# an EventSource that meets a passing fault of ours

COMING_BACK = {"Accept": "text/event-stream", "Last-Event-ID": "7"}
FROM_A_PAGE = {"Accept": "text/event-stream", "Sec-Fetch-Mode": "cors"}

event_sources = pytest.mark.parametrize("headers", [COMING_BACK, FROM_A_PAGE], ids=["cursor", "page"])


async def told_to_come_again(answer: Answer) -> bool:
    """Whether the answer is one after which an EventSource connects again."""
    return (
        answer.status == 200
        and answer.header("content-type") == "text/event-stream; charset=utf-8"
        and answer.header("cache-control") == "no-store"
        and re.fullmatch(rb"retry: [1-9]\d+\n\n", await answer.body()) is not None
        and await answer.closed()
    )


async def silent(connection: Connection) -> None:
    """Take the request and never answer."""
    await connection.gone()


@event_sources
async def test_no_upstream_makes_an_event_source_come_again(
    start_sidecar: StartSidecar, headers: dict[str, str]
) -> None:
    """502: any other status than 200 would stop it for good. Everybody else is told as it is."""
    sidecar = await start_sidecar("http://127.0.0.1:1")
    assert await told_to_come_again(await ask(sidecar.url, "/x", headers=headers))
    assert (await ask(sidecar.url, "/x", headers={"Accept": "text/event-stream"})).status == 502
    assert (await ask(sidecar.url, "/x", headers={"Last-Event-ID": "7"})).status == 502


@event_sources
async def test_a_silent_upstream_makes_an_event_source_come_again(
    start_origin: StartOrigin, start_sidecar: StartSidecar, headers: dict[str, str]
) -> None:
    """504, likewise."""
    origin = await start_origin(silent)
    sidecar = await start_sidecar(origin.url, route={"timeouts": {"first_byte": "30ms"}})
    assert await told_to_come_again(await ask(sidecar.url, "/x", headers=headers))
    assert (await ask(sidecar.url, "/x")).status == 504


@event_sources
@pytest.mark.parametrize(
    ("limits", "status"), [({"streams": 1}, 503), ({"readers": 1}, 503), ({"readers_per_caller": 1}, 429)]
)
async def test_our_limits_make_an_event_source_come_again(
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
    headers: dict[str, str],
    limits: dict[str, int],
    status: int,
) -> None:
    """503 and 429, likewise."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, limits=limits)
    await (await begin(sidecar, "GET")).block()
    assert await told_to_come_again(await ask(sidecar.url, "/x", headers=headers))
    assert (await ask(sidecar.url, "/x")).status == status


async def test_an_event_source_that_resumes_when_readers_are_too_many_comes_again(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Also below ``/_streams/``, where the stream is the old one."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, limits={"readers_per_caller": 1})
    first = await begin(sidecar)
    await first.block()
    headers = {"Accept": "text/event-stream"}
    assert await told_to_come_again(
        await come_back(sidecar, "header", first.header("stream-id"), 0, **headers)
    )


@event_sources
async def test_the_upstreams_own_refusal_passes_to_an_event_source(
    start_origin: StartOrigin, start_sidecar: StartSidecar, headers: dict[str, str]
) -> None:
    """Only faults of our own are softened: what the app says is the app's business."""
    origin = await start_origin(answers(b"503 Service Unavailable", b"closed"))
    sidecar = await start_sidecar(origin.url)
    answer = await ask(sidecar.url, "/x", headers=headers)
    assert (answer.status, await answer.body()) == (503, b"closed")


@pytest.mark.parametrize(("seq", "status"), [(9, 400), (0, 410)])
async def test_a_fault_that_does_not_pass_stops_an_event_source(
    start_origin: StartOrigin, start_sidecar: StartSidecar, seq: int, status: int
) -> None:
    """Coming again would not help: it is told, and closes."""
    _, sidecar, stream = await beyond_the_window(start_origin, start_sidecar, "GET", gap="fail")
    again = await come_back(sidecar, "route", stream, seq, Accept="text/event-stream")
    assert again.status == status


# streams that cannot be resumed


async def test_what_is_not_recorded_cannot_be_resumed(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``replay: off``: no ids, no resume link, and the stream's address knows no blocks."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"replay": "off"})
    first = await begin(sidecar)
    assert await first.block() == b"retry: 3000\ndata: a\n\n"
    stream = first.header("stream-id")
    assert first.header("link") == f'</_streams/{stream}/cancel>; rel="cancel"'
    assert (await come_back(sidecar, "after", stream, 0)).status == 404
    assert (await come_back(sidecar, "route", stream, 0, "POST")).status == 404
    assert len(origin.requests) == 1


# What a restarted feed owes


async def test_only_a_provider_that_streams_to_a_get_refuses_an_unknown_id(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A feed at /api/messages begins anew, as any feed; a response that is streamed again does not."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    unknown = {"Last-Event-ID": f"{UNKNOWN}.5"}
    feed = await ask(sidecar.url, "/api/messages", headers=unknown)
    assert feed.status == 200
    assert b"event: stream-gap\n" in await feed.block()
    response = await ask(sidecar.url, "/v1/responses/resp_1", headers=unknown)
    assert response.status == 404
    assert len(origin.requests) == 1


async def test_the_rest_of_a_feed_is_told_though_its_upstream_has_no_more(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """204 would tell an EventSource to stop, before it has what the log still holds."""
    origin = await start_origin(in_turn(streams(b"data: a\n\ndata: b\n\n"), answers(b"204 No Content")))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, "GET")
    await first.rest()
    stream = first.header("stream-id")
    again = await come_back(sidecar, "route", stream, 1)
    assert again.status == 200
    assert b"data: b\n\n" in await again.rest()
    told_all = await come_back(sidecar, "route", stream, 2)
    assert told_all.status == 204


async def test_a_long_rest_goes_to_a_slow_reader_piece_by_piece(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It waits in the log and not in the socket's buffer, and no heartbeat falls into it."""
    count = 6000
    rest = [b"data: %d %b\n\n" % (number, b"x" * 1000) for number in range(1, count + 1)]
    origin = await start_origin(in_turn(streams(*rest), holds(b"data: new\n\n")))
    log = {"max_events": count, "max_bytes": "16MiB"}
    sidecar = await start_sidecar(origin.url, route={"replay": log, "heartbeat": "30ms"})
    first = await begin(sidecar, "GET")
    await first.rest()
    cursor = {"Last-Event-ID": f"{first.header('stream-id')}.1"}
    again = await ask(sidecar.url, "/x", headers=cursor, window=4096)
    again.stall()
    await origin.request(2)
    await at_rest(lambda: unsent(sidecar))
    assert unsent(sidecar) < 256 * 1024
    again.go_on()
    got = await again.until(b"data: new\n\n")
    owed = got[: got.index(rest[-1]) + len(rest[-1])]
    assert re.findall(rb"^data: (\d+) x{1000}$", owed, re.M) == [b"%d" % n for n in range(2, count + 1)]
    assert b": ping" not in owed
