"""``/_streams/``: what a stream's address shows, who may use it, and how a stream is cancelled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import Answer, Truncated, ask
from tests.support.origin import Connection
from tests.support.script import answers, holds, streams

UNKNOWN = "A" * 22
PAGE = "https://app.example"
FOREIGN = "https://evil.example"


async def begin(sidecar: Sidecar, **headers: str) -> Answer:
    """Begin a stream."""
    return await ask(sidecar.url, "/x", method="POST", headers=headers, body=b"{}")


async def state_of(sidecar: Sidecar, stream: str | None) -> dict[str, Any]:
    """What the stream's address tells of its state."""
    answer = await ask(sidecar.url, f"/_streams/{stream}/state")
    assert answer.status == 200
    document: dict[str, Any] = await answer.json()
    return document


# state


async def test_the_state_of_a_stream_from_its_first_block_to_its_end(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Live, lingering, live again, finished, with the figures of its log."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\n"))
    sidecar = await start_sidecar(origin.url)
    before = datetime.now(UTC)
    first = await begin(sidecar)
    stream = first.header("stream-id")
    size = len(b"".join(await first.blocks(2)).replace(b"retry: 3000\n", b""))
    live = await state_of(sidecar, stream)
    assert live | {"started": 0, "age": 0, "time_to_first_event": 0} == {
        "state": "live",
        "reason": None,
        "message": None,
        "first": 1,
        "last": 2,
        "bytes": size,
        "started": 0,
        "age": 0,
        "time_to_first_event": 0,
        "readers": 1,
    }
    started = datetime.fromisoformat(live["started"])
    assert before - timedelta(milliseconds=2) <= started <= datetime.now(UTC)
    assert 0 <= live["time_to_first_event"] <= live["age"]
    first.abort()
    await eventually(lambda: not sidecar.hub.readers, "the reader was counted out")
    assert (await state_of(sidecar, stream))["state"] == "lingering"
    again = await ask(sidecar.url, f"/_streams/{stream}")
    await again.blocks(2)
    assert (await state_of(sidecar, stream))["state"] == "live"
    await (await origin.request()).end()
    assert await again.rest() == b""
    finished = await state_of(sidecar, stream)
    assert (finished["state"], finished["reason"], finished["readers"]) == ("finished", "complete", 0)
    assert finished["started"] == live["started"]
    assert len(origin.requests) == 1


async def test_the_state_tells_what_the_log_still_holds(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``first`` is where a resume can begin at the earliest."""
    origin = await start_origin(holds(b"data: a\n\ndata: b\n\ndata: c\n\n"))
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_events": 1}})
    first = await begin(sidecar)
    await first.blocks(3)
    state = await state_of(sidecar, first.header("stream-id"))
    assert (state["first"], state["last"]) == (3, 3)


async def test_a_stream_whose_upstream_has_not_answered_has_a_state_and_can_be_cancelled(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The client was answered early; its stop reaches the upstream before the upstream's first byte."""

    async def silent(connection: Connection) -> None:
        await connection.gone()

    origin = await start_origin(silent)
    sidecar = await start_sidecar(origin.url, route={"open_after": "10ms"})
    first = await begin(sidecar, Accept="text/event-stream")
    stream = first.header("stream-id")
    opening = await state_of(sidecar, stream)
    assert (opening["state"], opening["last"], opening["time_to_first_event"]) == ("opening", 0, None)
    cancelled = await ask(sidecar.url, f"/_streams/{stream}/cancel", method="POST")
    assert cancelled.status == 202
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")


async def test_head_of_a_state_has_no_body(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """HEAD mirrors GET."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    answer = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}/state", method="HEAD")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    answer.writer.write_eof()
    assert await answer.closed()


# cancel

CANCELS = pytest.mark.parametrize(
    ("method", "suffix"), [("POST", "/cancel"), ("DELETE", "")], ids=["post", "delete"]
)


@CANCELS
async def test_a_cancel_closes_the_upstream_and_can_be_repeated(
    start_origin: StartOrigin, start_sidecar: StartSidecar, method: str, suffix: str
) -> None:
    """202 while it ran, then 200 with the final state, however often; the log stays readable."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    await first.block()
    stream = first.header("stream-id")
    target = f"/_streams/{stream}{suffix}"
    answer = await ask(sidecar.url, target, method=method)
    assert answer.status == 202
    assert answer.header("cache-control") == "no-store"
    said = await answer.json()
    assert (said["state"], said["reason"]) == ("finished", "cancelled")
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    with pytest.raises(Truncated):
        await first.rest()
    for _ in range(2):
        repeated = await ask(sidecar.url, target, method=method)
        assert repeated.status == 200
        assert (await repeated.json())["reason"] == "cancelled"
    assert await (await ask(sidecar.url, f"/_streams/{stream}")).block() == (
        f"id: {stream}.1\nretry: 3000\ndata: a\n\n".encode()
    )
    stats = sidecar.telemetry.route("all")
    assert (stats.cancels, stats.ends) == ({"client": 1}, {"cancelled": 1})
    assert (stats.streams, len(sidecar.hub.running)) == (0, 0)
    assert len(origin.requests) == 1


@CANCELS
async def test_a_cancel_after_the_end_changes_nothing(
    start_origin: StartOrigin, start_sidecar: StartSidecar, method: str, suffix: str
) -> None:
    """A stop that crosses the last block tells how the stream really ended."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    await first.rest()
    answer = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}{suffix}", method=method)
    assert answer.status == 200
    assert (await answer.json())["reason"] == "complete"
    assert not sidecar.telemetry.route("all").cancels


@pytest.mark.parametrize(
    ("headers", "body"),
    [({}, None), ({"Content-Length": "0"}, None), ({"Content-Type": "text/plain;charset=UTF-8"}, b"stop")],
)
async def test_a_beacon_cancels(
    start_origin: StartOrigin, start_sidecar: StartSidecar, headers: dict[str, str], body: bytes | None
) -> None:
    """``navigator.sendBeacon(url)`` when the page is closed: a POST, with or without a body."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    target = f"/_streams/{first.header('stream-id')}/cancel"
    page = {"Origin": PAGE, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-site"}
    assert (await ask(sidecar.url, target, method="POST", headers=page | headers, body=body)).status == 202


async def test_what_is_not_recorded_can_still_be_cancelled(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """``replay: off``: the answer names only its cancel, and that works while it runs."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"replay": "off"})
    first = await begin(sidecar)
    await first.block()
    target = f"/_streams/{first.header('stream-id')}/cancel"
    assert (await ask(sidecar.url, target, method="POST")).status == 202
    await eventually((await origin.request()).peer_closed.is_set, "the upstream request was closed")
    assert (await ask(sidecar.url, target, method="POST")).status == 404


async def test_a_foreign_page_cannot_cancel_what_spends_our_key(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: a page that learned an id posts to its cancel address."""
    origin = await start_origin(holds(b"data: a\n\n"))
    keyed = {"origin": {"url": origin.url, "set_headers": {"Authorization": "Bearer k"}}}
    sidecar = await start_sidecar(origin.url, upstreams=keyed)
    first = await begin(sidecar)
    target = f"/_streams/{first.header('stream-id')}/cancel"
    assert (await ask(sidecar.url, target, method="POST", headers={"Origin": FOREIGN})).status == 403
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert (await ask(sidecar.url, target, method="POST", headers=cross)).status == 403
    assert (await state_of(sidecar, first.header("stream-id")))["state"] == "live"


# methods


@pytest.mark.parametrize(
    ("method", "suffix", "allowed"),
    [
        ("POST", "", "GET, HEAD, DELETE"),
        ("PUT", "", "GET, HEAD, DELETE"),
        ("OPTIONS", "", "GET, HEAD, DELETE"),
        ("GET", "/cancel", "POST"),
        ("HEAD", "/cancel", "POST"),
        ("DELETE", "/cancel", "POST"),
        ("POST", "/state", "GET, HEAD"),
        ("DELETE", "/state", "GET, HEAD"),
    ],
)
async def test_other_methods_are_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar, method: str, suffix: str, allowed: str
) -> None:
    """405 with what is allowed; a GET in particular never cancels (link previews follow links)."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar)
    answer = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}{suffix}", method=method)
    assert (answer.status, answer.header("allow")) == (405, allowed)
    assert not sidecar.telemetry.route("all").cancels


@pytest.mark.parametrize("target", ["/_streams/", "/_streams/short", f"/_streams/{UNKNOWN}/other"])
async def test_what_is_no_streams_address_never_reaches_an_upstream(
    start_origin: StartOrigin, start_sidecar: StartSidecar, target: str
) -> None:
    """Everything below ``/_streams/`` is the sidecar's, also where a route matches every path."""
    origin = await start_origin(answers(b"200 OK"))
    sidecar = await start_sidecar(origin.url)
    assert (await ask(sidecar.url, target)).status == 404
    assert not origin.requests


# principals

PRINCIPALS = pytest.mark.parametrize(
    ("principal", "mine", "yours"),
    [
        ({"cookie": "user"}, {"Cookie": "a=b; user=me"}, {"Cookie": "user=you"}),
        ({"header": "X-User"}, {"X-User": "me"}, {"X-User": "you"}),
    ],
    ids=["cookie", "header"],
)


@PRINCIPALS
@pytest.mark.parametrize(
    ("method", "suffix", "status"),
    [
        ("GET", "", 200),
        ("HEAD", "", 200),
        ("GET", "/state", 200),
        ("POST", "/cancel", 202),
        ("DELETE", "", 202),
    ],
)
async def test_a_bound_stream_is_its_principals_alone(
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
    principal: dict[str, str],
    mine: dict[str, str],
    yours: dict[str, str],
    method: str,
    suffix: str,
    status: int,
) -> None:
    """The id alone is not enough: another principal, or none, is told that there is no such stream."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"principal": principal})
    first = await begin(sidecar, **mine)
    await first.block()
    target = f"/_streams/{first.header('stream-id')}{suffix}"
    for headers in (yours, {}, {"Authorization": "me"}):
        assert (await ask(sidecar.url, target, method=method, headers=headers)).status == 404
    assert sidecar.hub.running
    assert (await ask(sidecar.url, target, method=method, headers=mine)).status == status


@PRINCIPALS
async def test_a_stream_begun_by_nobody_is_nobodys(
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
    principal: dict[str, str],
    mine: dict[str, str],
    yours: dict[str, str],
) -> None:
    """Without the cookie or header one is a principal too, and an empty one is another."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"principal": principal})
    first = await begin(sidecar)
    target = f"/_streams/{first.header('stream-id')}"
    empty = {"Cookie": "user=", "X-User": ""}
    assert [(await ask(sidecar.url, target, headers=headers)).status for headers in (mine, yours, empty)] == (
        [404] * 3
    )
    assert (await ask(sidecar.url, target)).status == 200


async def test_rotating_credentials_bind_nothing_by_default(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """EventSource and sendBeacon cannot send them: where no principal is named, the id is enough."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, Authorization="Bearer t1", Cookie="sid=1")
    target = f"/_streams/{first.header('stream-id')}"
    assert (await ask(sidecar.url, target)).status == 200
    assert (await ask(sidecar.url, target, headers={"Authorization": "Bearer t2"})).status == 200


# cross-origin pages


async def with_apps_cors(
    start_origin: StartOrigin, start_sidecar: StartSidecar, allowed: str, **route: Any
) -> tuple[Sidecar, Answer]:
    """A stream whose upstream allows ``allowed`` to read it."""

    async def script(connection: Connection) -> None:
        await connection.start_stream(f"Access-Control-Allow-Origin: {allowed}\r\n".encode())
        await connection.chunk(b"data: a\n\ndata: b\n\n")
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_events": 1}, **route})
    first = await begin(sidecar, Origin=PAGE)
    await first.blocks(2)
    return sidecar, first


@pytest.mark.parametrize(
    ("method", "suffix", "status"),
    [
        ("GET", "?after=1", 200),
        ("GET", "?after=0", 410),
        ("GET", "?after=9", 400),
        ("PUT", "", 405),
        ("GET", "/state", 200),
        ("POST", "/cancel", 202),
    ],
)
@pytest.mark.parametrize("allowed", ["*", PAGE])
async def test_a_page_reads_below_streams_what_it_reads_on_the_route(
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
    method: str,
    suffix: str,
    status: int,
    allowed: str,
) -> None:
    """Where the app's answer allowed a page to read, so do resume, refusal, state and cancel."""
    sidecar, first = await with_apps_cors(start_origin, start_sidecar, allowed)
    target = f"/_streams/{first.header('stream-id')}{suffix}"
    answer = await ask(sidecar.url, target, method=method, headers={"Origin": PAGE})
    assert answer.status == status
    assert answer.header("access-control-allow-origin") == allowed
    exposed = (answer.header("access-control-expose-headers") or "").split(", ")
    assert {
        "Stream-Id",
        "Stream-Resumed-From",
        "Stream-Closed",
        "Stream-Earliest",
        "Link",
        "Retry-After",
    } <= {*exposed}


async def test_a_page_reads_the_204_at_the_end(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Without CORS on it a fetch would fail where it should stop."""
    sidecar, first = await with_apps_cors(start_origin, start_sidecar, PAGE)
    target = f"/_streams/{first.header('stream-id')}"
    await ask(sidecar.url, target, method="DELETE")
    answer = await ask(sidecar.url, f"{target}?after=2", headers={"Origin": PAGE})
    assert (answer.status, answer.header("access-control-allow-origin")) == (204, PAGE)


async def test_without_the_routes_word_no_page_reads_a_stream(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """An app that says nothing of CORS is not opened by the sidecar."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url)
    first = await begin(sidecar, Origin=PAGE)
    assert first.header("access-control-allow-origin") is None
    answer = await ask(sidecar.url, f"/_streams/{first.header('stream-id')}/state", headers={"Origin": PAGE})
    assert answer.header("access-control-allow-origin") is None
    assert answer.header("access-control-expose-headers") is None


async def test_a_routes_origins_read_its_streams_with_their_cookies(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Where the route names origins, the sidecar speaks for it; a foreign page gets nothing."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"origins": [PAGE]})
    first = await begin(sidecar, Origin=PAGE)
    for target in (f"/_streams/{first.header('stream-id')}", f"/_streams/{first.header('stream-id')}/state"):
        mine = await ask(sidecar.url, target, headers={"Origin": PAGE})
        assert mine.header("access-control-allow-origin") == PAGE
        assert mine.header("access-control-allow-credentials") == "true"
        assert mine.header("vary") == "Origin"
        foreign = await ask(sidecar.url, target, headers={"Origin": FOREIGN})
        assert foreign.header("access-control-allow-origin") is None


async def preflight(sidecar: Sidecar, stream: str | None, origin: str) -> Answer:
    """What a browser asks before it sends a DELETE with a cursor."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "last-event-id, x-user",
    }
    return await ask(sidecar.url, f"/_streams/{stream}", method="OPTIONS", headers=headers)


@pytest.mark.parametrize("route", [{}, {"origins": [PAGE], "principal": {"cookie": "user"}}])
async def test_a_preflight_is_answered_for_the_streams_own_pages(
    start_origin: StartOrigin, start_sidecar: StartSidecar, route: dict[str, Any]
) -> None:
    """204 with methods and headers (a preflight brings no cookie); 403 elsewhere; 404 for no stream."""
    sidecar, first = await with_apps_cors(start_origin, start_sidecar, PAGE, **route)
    stream = first.header("stream-id")
    answer = await preflight(sidecar, stream, PAGE)
    assert answer.status == 204
    assert answer.header("access-control-allow-origin") == PAGE
    assert "DELETE" in (answer.header("access-control-allow-methods") or "")
    assert answer.header("access-control-allow-headers") == "last-event-id, x-user"
    assert (await preflight(sidecar, stream, FOREIGN)).status == 403
    assert (await preflight(sidecar, UNKNOWN, PAGE)).status == 404
    assert (await state_of_bound(sidecar))["state"] == "live"


async def state_of_bound(sidecar: Sidecar) -> dict[str, Any]:
    """The state of the only stream there is, as the operator sees it."""
    (row,) = (await (await ask(sidecar.admin_url, "/streams")).json())["streams"]
    assert isinstance(row, dict)
    return row


# what operators see


async def test_operators_see_six_characters_of_an_id(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The whole id is the key to a stream: logs, metrics and listings must not hand it out."""
    origin = await start_origin(holds(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, log={"requests": True})
    with structlog.testing.capture_logs() as lines:
        first = await begin(sidecar)
        await first.block()
        stream = first.header("stream-id") or ""
        await ask(sidecar.url, "/x", method="POST", headers={"Last-Event-ID": f"{stream}.0"}, body=b"{}")
        await state_of(sidecar, stream)
        listing = await (await ask(sidecar.admin_url, "/streams")).body()
        await ask(sidecar.url, f"/_streams/{stream}/cancel", method="POST")
        await eventually(lambda: any(line.get("stream") == stream[:6] for line in lines), "the stream's line")
        metrics = await (await ask(sidecar.admin_url, "/metrics")).body()
    assert stream[:6] in listing.decode()
    for seen in (str(lines), listing.decode(), metrics.decode()):
        assert stream not in seen
        assert stream[7:] not in seen


async def test_another_principals_stream_looks_like_none(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: guess ids, and learn from the fields of a 404 which streams exist."""
    origin = await start_origin(streams(b"data: a\n\n"))
    sidecar = await start_sidecar(origin.url, route={"principal": {"cookie": "sid"}}, origins=[PAGE])
    first = await begin(sidecar, Cookie="sid=alice")
    await first.rest()
    seen = []
    for stream in (first.header("stream-id"), UNKNOWN):
        answer = await ask(sidecar.url, f"/_streams/{stream}", headers={"Origin": PAGE, "Cookie": "sid=eve"})
        assert answer.status == 404
        seen.append([field for field in answer.raw_headers if field[0] != "Date"])
    assert seen[0] == seen[1]


async def test_a_page_reads_on_the_route_why_its_stream_is_gone(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The 410 of a resume on the stream's own route is readable where the stream was."""
    sidecar, first = await with_apps_cors(start_origin, start_sidecar, PAGE)
    gone = await begin(sidecar, **{"Origin": PAGE, "Last-Event-ID": f"{first.header('stream-id')}.0"})
    assert (gone.status, gone.header("access-control-allow-origin")) == (410, PAGE)
