"""A feed whose upstream goes away and comes back: its readers see one stream, without a drop."""

from __future__ import annotations

import asyncio
import json

import pytest

from proxy.server import reconnect
from proxy.server.reconnect import Reconnector
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import Truncated, ask
from tests.support.origin import Connection, Script
from tests.support.script import answers, holds, in_turn, streams

FEED = {"reconnect": True}


def drops(data: bytes) -> Script:
    """Send ``data`` and close the connection in the middle of the body."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(data)
        await connection.close()

    return script


def reconnecting() -> bool:
    """Whether some feed's upstream is being asked again."""
    return any(task.get_name().startswith("reconnect of") for task in asyncio.all_tasks())


async def test_a_dropped_upstream_is_asked_again_from_its_last_id(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It breaks off inside a block; the client gets every block once, and its connection lives on."""
    origin = await start_origin(
        in_turn(
            drops(b"retry: 20\n\nid: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: hal"),
            holds(b"id: 3\ndata: half no more\n\n"),
        )
    )
    sidecar = await start_sidecar(origin.url, route=FEED)
    answer = await ask(sidecar.url, "/events", headers={"Last-Event-ID": "0"})
    assert (await answer.block()).endswith(b"id: 1\nretry: 20\ndata: a\n\n")
    assert await answer.block() == b"id: 2\ndata: b\n\n"
    assert await answer.block() == b"id: 3\ndata: half no more\n\n"
    assert [request.header("last-event-id") for request in origin.requests] == ["0", "2"]
    assert sidecar.telemetry.route("all").reconnects == {"reconnected": 1}
    await eventually(lambda: sidecar.hub.running, "the stream runs on")


async def test_our_ids_count_on_over_a_reconnect(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Under our own ids the seq goes on, while the app is asked for what follows its own id."""
    origin = await start_origin(
        in_turn(streams(b"retry: 20\nid: x\ndata: a\n\n"), holds(b"id: y\ndata: b\n\n"))
    )
    sidecar = await start_sidecar(origin.url, route={**FEED, "ids": "always"})
    answer = await ask(sidecar.url, "/events")
    stream = answer.header("stream-id")
    assert await answer.block() == f"id: {stream}.1\nretry: 20\ndata: a\n\n".encode()
    assert await answer.block() == f"id: {stream}.2\ndata: b\n\n".encode()
    assert origin.requests[1].header("last-event-id") == "x"


@pytest.mark.parametrize(("ids", "sent"), [(b"id: 7\n", "7"), (b"", "5"), (b"id: 7\n\nid\n", None)])
async def test_the_last_id_is_the_apps_then_the_clients_unless_the_app_takes_it_back(
    start_origin: StartOrigin, start_sidecar: StartSidecar, ids: bytes, sent: str | None
) -> None:
    """As an EventSource does: an empty id resets it, and then no header is sent."""
    origin = await start_origin(in_turn(streams(b"retry: 20\n" + ids + b"data: a\n\n"), holds()))
    sidecar = await start_sidecar(origin.url, route=FEED)
    answer = await ask(sidecar.url, "/events", headers={"Last-Event-ID": "5"})
    await answer.until(b"data: a\n\n")
    assert (await origin.request(2)).header("last-event-id") == sent


async def test_heartbeats_fill_the_pause_between_two_upstreams(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """While nobody sends, the reader's connection is kept alive."""
    origin = await start_origin(
        in_turn(streams(b"data: a\n\n"), answers(b"503 Service Unavailable"), holds(b"data: b\n\n"))
    )
    sidecar = await start_sidecar(origin.url, route={**FEED, "heartbeat": "30ms"})
    answer = await ask(sidecar.url, "/events")
    await answer.block()
    assert (await answer.block()).startswith(b": ping\n: ping\n")


async def test_204_ends_the_feed_cleanly(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The standard's word for "stop reconnecting" ends the stream as a whole one."""
    origin = await start_origin(in_turn(streams(b"retry: 20\ndata: a\n\n"), answers(b"204 No Content")))
    sidecar = await start_sidecar(origin.url, route={**FEED, "finished": "stop"})
    answer = await ask(sidecar.url, "/events")
    stream = answer.header("stream-id")
    assert await answer.rest() == f"id: {stream}.1\nretry: 20\ndata: a\n\n".encode()
    state = await (await ask(sidecar.url, f"/_streams/{stream}/state")).json()
    assert (state["state"], state["reason"]) == ("finished", "complete")
    assert len(origin.requests) == 2


@pytest.mark.parametrize(
    "head",
    [b"400 Bad Request", b"401 Unauthorized", b"404 Not Found", b"200 OK\r\nContent-Type: text/html"],
)
async def test_an_answer_that_will_not_change_ends_the_feed_and_is_told(
    start_origin: StartOrigin, start_sidecar: StartSidecar, head: bytes
) -> None:
    """4xx, or something that is no event stream: no second attempt, and no clean end for the reader."""
    origin = await start_origin(in_turn(streams(b"retry: 20\ndata: a\n\n"), answers(head, b"no")))
    sidecar = await start_sidecar(origin.url, route=FEED)
    answer = await ask(sidecar.url, "/events")
    await answer.block()
    with pytest.raises(Truncated):
        await answer.rest()
    state = await (await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}/state")).json()
    assert state["reason"] == "upstream_error"
    assert head[:3].decode() in state["message"]
    assert len(origin.requests) == 2


@pytest.mark.parametrize("status", [b"500 Oh", b"502 Oh", b"503 Oh", b"429 Too Many Requests"])
async def test_a_fault_that_may_pass_is_waited_out(
    start_origin: StartOrigin, start_sidecar: StartSidecar, status: bytes
) -> None:
    """5xx and 429: asked again, until it is well."""
    origin = await start_origin(
        in_turn(streams(b"retry: 20\ndata: a\n\n"), answers(status), holds(b"data: b\n\n"))
    )
    sidecar = await start_sidecar(origin.url, route=FEED)
    answer = await ask(sidecar.url, "/events")
    assert (await answer.block()).endswith(b"data: a\n\n")
    assert (await answer.block()).endswith(b"data: b\n\n")
    assert len(origin.requests) == 3
    assert sidecar.telemetry.route("all").reconnects == {f"status_{status[:3].decode()}": 1, "reconnected": 1}


async def test_an_upstream_that_stays_down_is_given_up(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Retried until ``reconnect_for`` is over; then the readers see their connection break."""
    origin = await start_origin(in_turn(streams(b"retry: 20\ndata: a\n\n"), answers(b"503 Down")))
    sidecar = await start_sidecar(origin.url, route={**FEED, "reconnect_for": "100ms"})
    answer = await ask(sidecar.url, "/events")
    await answer.block()
    with pytest.raises(Truncated):
        await answer.rest()
    state = await (await ask(sidecar.url, f"/_streams/{answer.header('stream-id')}/state")).json()
    assert state["reason"] == "upstream_error"
    assert "reconnect_for" in state["message"]
    assert len(origin.requests) == 3  # at once, and once more behind the limit


async def test_a_closed_port_is_waited_out_as_well(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The app restarts: nobody listens for a while."""
    origin = await start_origin(streams(b"retry: 20\nid: 1\ndata: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={**FEED, "reconnect_for": "100ms"})
    answer = await ask(sidecar.url, "/events")
    await answer.block()
    await origin.stop()
    with pytest.raises(Truncated):
        await answer.rest()
    assert sidecar.telemetry.route("all").reconnects["upstream-unreachable"] >= 1
    assert sidecar.telemetry.route("all").ends == {"upstream_error": 1}


async def test_an_upstream_that_answers_and_sends_nothing_is_given_up(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Response after response without an event is no feed: ``reconnect_for`` counts from the last event."""
    origin = await start_origin(in_turn(streams(b"retry: 20\ndata: a\n\n"), streams(b": hello\n\n")))
    sidecar = await start_sidecar(origin.url, route={**FEED, "reconnect_for": "500ms"})
    answer = await ask(sidecar.url, "/events")
    await answer.block()
    with pytest.raises(Truncated):
        await answer.rest()
    assert sidecar.telemetry.route("all").ends == {"upstream_error": 1}
    assert len(origin.requests) > 3  # polled as often as it asked for, or nearly


@pytest.mark.parametrize("first", [b"retry: 400\ndata: a\n\n", b"data: a\n\nretry: 400\n"])
async def test_the_upstreams_retry_is_respected(
    start_origin: StartOrigin, start_sidecar: StartSidecar, first: bytes
) -> None:
    """It is asked again no sooner than it said, even where it said so in its last breath."""
    origin = await start_origin(in_turn(streams(first), holds(b"data: b\n\n")))
    sidecar = await start_sidecar(origin.url, route=FEED)
    began = sidecar.hub.loop.time()
    answer = await ask(sidecar.url, "/events")
    await answer.block()
    await origin.request(2)
    assert sidecar.hub.loop.time() - began >= 0.39
    assert (await answer.block()).endswith(b"data: b\n\n")


async def test_linger_cancels_a_feed_that_is_reconnecting(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Nobody reads it any more: the upstream is not asked again."""
    origin = await start_origin(streams(b"retry: 60000\ndata: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={**FEED, "linger": "50ms"})
    answer = await ask(sidecar.url, "/events")
    await answer.block()
    await eventually(reconnecting, "it waits to ask again")
    answer.abort()
    stats = sidecar.telemetry.route("all")
    await eventually(lambda: stats.ends, "the stream ended")
    assert stats.ends == {"cancelled": 1}
    assert not sidecar.hub.running
    await eventually(lambda: not reconnecting(), "nobody asks any more")
    assert len(origin.requests) == 1


async def test_a_cancel_stops_a_reconnect(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """Also one that waits for the upstream's headers: the request is closed at once."""

    async def silent(connection: Connection) -> None:
        await connection.gone()

    origin = await start_origin(in_turn(streams(b"retry: 20\ndata: a\n\n"), silent))
    sidecar = await start_sidecar(origin.url, route=FEED)
    answer = await ask(sidecar.url, "/events")
    await answer.block()
    again = await origin.request(2)
    target = f"/_streams/{answer.header('stream-id')}"
    assert (await ask(sidecar.url, target, method="DELETE")).status == 202
    await eventually(again.peer_closed.is_set, "the request was closed")
    with pytest.raises(Truncated):
        await answer.rest()
    assert sidecar.telemetry.route("all").ends == {"cancelled": 1}


async def test_a_reader_may_come_while_the_upstream_is_away(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """A resume attaches to the reconnecting stream and asks nobody itself."""
    origin = await start_origin(in_turn(streams(b"retry: 300\ndata: a\n\n"), holds(b"data: b\n\n")))
    sidecar = await start_sidecar(origin.url, route=FEED)
    first = await ask(sidecar.url, "/events")
    await first.block()
    first.abort()
    cursor = {"Last-Event-ID": f"{first.header('stream-id')}.1"}
    again = await ask(sidecar.url, "/events", headers=cursor)
    assert (await again.block()).endswith(b"data: b\n\n")
    assert len(origin.requests) == 2


async def test_only_feeds_reconnect(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A POST is never repeated by the sidecar, whatever the route says: it may cost money."""
    origin = await start_origin(drops(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route=FEED)
    answer = await ask(sidecar.url, "/chat", method="POST", body=json.dumps({"n": 1}).encode())
    await answer.block()
    with pytest.raises(Truncated):
        await answer.rest()
    assert sidecar.telemetry.route("all").ends == {"truncated": 1}
    assert len(origin.requests) == 1


async def test_a_feed_under_a_providers_path_reconnects(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An app may well have a feed at /api/messages: no provider streams to a GET there."""
    origin = await start_origin(in_turn(streams(b"retry: 20\ndata: a\n\n"), holds(b"data: b\n\n")))
    sidecar = await start_sidecar(origin.url, route=FEED)
    answer = await ask(sidecar.url, "/api/messages")
    assert b"data: a\n" in await answer.block()
    assert b"data: b\n" in await answer.block()


async def test_an_upstream_that_wants_no_wait_is_not_asked_in_a_busy_loop(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: ``retry: 0`` on an empty stream, to have the sidecar ask as fast as it can."""
    origin = await start_origin(streams(b"retry: 0\n\n"))
    sidecar = await start_sidecar(origin.url, route=FEED)
    began = asyncio.get_running_loop().time()
    await ask(sidecar.url, "/events")
    await origin.request(11)
    assert asyncio.get_running_loop().time() - began >= 10 * reconnect.LEAST_WAIT


async def test_waits_stay_bounded_however_often_an_upstream_failed(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Doubling a thousand times is beyond what a float can hold."""
    origin = await start_origin(in_turn(streams(b"data: a\n\n"), answers(b"503 No")))
    sidecar = await start_sidecar(origin.url, route=FEED)
    await (await ask(sidecar.url, "/events")).block()
    (relay,) = sidecar.hub.running
    assert relay.reopen is not None
    reconnector: Reconnector = relay.reopen.__self__  # type: ignore[attr-defined]  # a bound method
    waits = [reconnector._next_wait() for _ in range(1100)]
    assert max(waits) <= reconnect.LONGEST_WAIT * (1 + reconnect.JITTER)
    assert min(waits[-1000:]) >= reconnect.LONGEST_WAIT
