"""The operators' listener: what it says, and that the numbers are right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy.server.app import Sidecar
from tests.conftest import StartOrigin, StartSidecar, eventually
from tests.support.client import ask
from tests.support.origin import Connection, response
from tests.support.script import holds, streams

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

#: Every family, and its type.
FAMILIES = {
    "gen_ai_client_inference_usage_cache_read_input_tokens": "counter",
    "gen_ai_client_inference_usage_cache_write_input_tokens": "counter",
    "gen_ai_client_inference_usage_reasoning_output_tokens": "counter",
    "gen_ai_client_token_usage": "histogram",
    "gen_ai_server_request_duration_seconds": "histogram",
    "gen_ai_server_time_per_output_token_seconds": "histogram",
    "gen_ai_server_time_to_first_token_seconds": "histogram",
    "process_start_time_seconds": "gauge",
    "sidecar_active_streams": "gauge",
    "sidecar_cancels": "counter",
    "sidecar_config_loaded_timestamp_seconds": "gauge",
    "sidecar_config_reloads": "counter",
    "sidecar_draining": "gauge",
    "sidecar_event_bytes": "counter",
    "sidecar_event_gap_seconds": "histogram",
    "sidecar_events": "counter",
    "sidecar_finish_reasons": "counter",
    "sidecar_heartbeats": "counter",
    "sidecar_log_bytes": "gauge",
    "sidecar_log_evictions": "counter",
    "sidecar_log_max_bytes": "gauge",
    "sidecar_logs": "gauge",
    "sidecar_misrouted_requests": "counter",
    "sidecar_readers": "gauge",
    "sidecar_readers_dropped": "counter",
    "sidecar_replayed_events": "counter",
    "sidecar_requests": "counter",
    "sidecar_resumes": "counter",
    "sidecar_stream_duration_seconds": "histogram",
    "sidecar_streams_ended": "counter",
    "sidecar_time_to_first_event_seconds": "histogram",
    "sidecar_tombstones": "gauge",
    "sidecar_unrecorded_streams": "counter",
    "sidecar_upstream_errors": "counter",
    "sidecar_upstream_pauses": "counter",
    "sidecar_upstream_reconnects": "counter",
    "sidecar_websockets": "gauge",
    "sidecar_websocket_messages": "counter",
    "sidecar_websocket_bytes": "counter",
    "sidecar_websockets_ended": "counter",
}

#: Nobody listens here: port 1 needs a privilege, and a service that nobody has run for decades.
NOBODY = "http://127.0.0.1:1"


#: A block in which the path's dialect recognises its own.
CHUNK = (
    b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}'
)


class Scrape:
    """One look at /metrics."""

    def __init__(self, families: list[Metric]) -> None:
        self.types = {family.name: family.type for family in families}
        self.samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Return a sample's value; 0 where there is none, as Prometheus' ``or vector(0)`` has it."""
        return self.samples.get((name, *sorted(labels.items())), 0.0)


async def scrape(sidecar: Sidecar, accept: str = "text/plain") -> Scrape:
    """Look at /metrics, in one of its formats."""
    answer = await ask(sidecar.admin_url, "/metrics", headers={"Accept": accept, "Connection": "close"})
    assert answer.status == 200
    parse = parse_open_metrics if accept == OPEN_METRICS else parse_text
    return Scrape(list(parse((await answer.body()).decode())))


async def admin_json(sidecar: Sidecar, path: str) -> Any:
    """Return a page's JSON."""
    answer = await ask(sidecar.admin_url, path, headers={"Connection": "close"})
    assert (answer.header("content-type") or "").startswith("application/json")
    return await answer.json()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/streams"])
async def test_every_page_answers(start_sidecar: StartSidecar, path: str) -> None:
    """All four are there, also for HEAD, and the root names them; nothing can be changed."""
    sidecar = await start_sidecar(NOBODY)
    for method, status in (("GET", 200), ("HEAD", 200), ("POST", 405), ("DELETE", 405)):
        assert (await ask(sidecar.admin_url, path, method=method)).status == status
    assert path in (await (await ask(sidecar.admin_url, "/")).body()).decode().split()
    assert (await ask(sidecar.admin_url, path + "/else")).status == 404


async def test_the_data_plane_has_none_of_it(start_sidecar: StartSidecar, start_origin: StartOrigin) -> None:
    """What clients can reach is the app's, whatever it is called."""

    async def script(connection: Connection) -> None:
        await connection.send(response(body=b"the app's own"))

    sidecar = await start_sidecar((await start_origin(script)).url)
    for path in ("/metrics", "/healthz", "/readyz", "/streams"):
        assert await (await ask(sidecar.url, path)).body() == b"the app's own"


async def test_readiness_ends_with_a_drain(start_sidecar: StartSidecar) -> None:
    """Liveness does not."""
    sidecar = await start_sidecar(NOBODY)
    assert await (await ask(sidecar.admin_url, "/readyz")).body() == b"ready\n"
    assert (await scrape(sidecar)).value("sidecar_draining") == 0
    await sidecar.drain()
    draining = await ask(sidecar.admin_url, "/readyz")
    assert (draining.status, await draining.body()) == (503, b"draining\n")
    assert (await ask(sidecar.admin_url, "/healthz")).status == 200
    assert (await scrape(sidecar)).value("sidecar_draining") == 1


async def test_streams_are_listed(start_sidecar: StartSidecar, start_origin: StartOrigin) -> None:
    """Running ones first, each with its state, none with an id that would open it."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: 1\n\ndata: 2\n\n")
        await (connection.gone if connection.target.startswith("/running") else connection.end)()

    sidecar = await start_sidecar((await start_origin(script)).url)
    finished = await ask(sidecar.url, "/finished?key=secret")
    await finished.rest()
    running = await ask(sidecar.url, "/running?key=secret")
    await running.blocks(2)
    listing = await admin_json(sidecar, "/streams")
    one, two = listing["streams"]
    assert (one["state"], one["reason"], one["readers"], one["last"]) == ("live", None, 1, 2)
    assert (two["state"], two["reason"], two["readers"], two["last"]) == ("finished", "complete", 0, 2)
    for row, answer in ((one, running), (two, finished)):
        stream_id = answer.header("stream-id") or ""
        assert row["stream"] == stream_id[:6]
        assert row["route"] == "all"
        assert row["client"] == "127.0.0.1"
        assert stream_id not in json.dumps(listing)
    assert "secret" not in json.dumps(listing)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        (OPEN_METRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_every_family_is_there_from_the_start(
    start_sidecar: StartSidecar, accept: str, content_type: str
) -> None:
    """Both formats parse; a route counts from zero before its first request."""
    sidecar = await start_sidecar(NOBODY)
    answer = await ask(sidecar.admin_url, "/metrics", headers={"Accept": accept})
    assert (answer.header("content-type") or "").startswith(content_type)
    found = await scrape(sidecar, accept)
    # The text format has no counters as such: its families are called …_total.
    names = {name.removesuffix("_total"): kind for name, kind in found.types.items()}
    assert names == FAMILIES
    for name in ("sidecar_events_total", "sidecar_active_streams", "sidecar_readers"):
        assert (name, ("route", "all")) in found.samples


@pytest.mark.parametrize("accept", ["text/plain", OPEN_METRICS])
async def test_the_numbers_of_a_busy_minute(
    start_sidecar: StartSidecar, start_origin: StartOrigin, accept: str
) -> None:
    """After streams that end, resume, are cancelled, break off and never begin, every number is right."""

    async def script(connection: Connection) -> None:
        if connection.target == "/plain":
            await connection.send(response(body=b"plain"))
            return
        await connection.start_stream()
        chat = connection.target == "/v1/chat/completions"
        for number in (b"1", b"2", b"3"):
            await connection.chunk(b"data: %b\n\n" % (CHUNK if chat else number))
        if chat:
            await connection.close()
        elif connection.target == "/ends":
            await connection.end()
        else:
            await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(
        origin.url,
        upstreams={"origin": {"url": origin.url}, "nobody": {"url": NOBODY}},
        routes=[
            {"name": "dead", "path": "/dead", "upstream": "nobody"},
            {"name": "chat", "path": "/{tail:.*}", "upstream": "origin", "heartbeat": "30ms"},
        ],
    )
    url = sidecar.url

    ended = await ask(url, "/ends")
    blocks = await ended.rest()
    here = f"/_streams/{ended.header('stream-id')}"
    replay = await (await ask(url, f"{here}?after=1")).rest()
    assert (await ask(url, f"{here}?after=3")).status == 204
    assert (await ask(url, f"{here}?after=4")).status == 400
    running = await ask(url, "/holds")
    head = b"".join(await running.blocks(3))
    await running.until(b": ping\n")
    await running.until(b": ping\n")
    during = await scrape(sidecar, accept)
    cancel = f"/_streams/{running.header('stream-id')}/cancel"
    assert (await ask(url, cancel, method="POST")).status == 202
    broken = await ask(url, "/v1/chat/completions", method="POST", body=b'{"stream":true}')
    told = await broken.rest()
    assert b'"error"' in told
    assert (await ask(url, "/dead")).status == 502
    assert await (await ask(url, "/plain")).body() == b"plain"
    assert (await ask(url, "/plain", method="PURGE")).status == 200
    await eventually(lambda: not sidecar.hub.readers, "the end of all readers")
    await eventually(lambda: not sidecar.gateway.in_flight, "the end of all requests")
    after = await scrape(sidecar, accept)

    chat = {"route": "chat"}
    assert during.value("sidecar_active_streams", **chat) == 1
    assert during.value("sidecar_readers", **chat) == 1
    assert during.value("sidecar_heartbeats_total", **chat) >= 2
    assert after.value("sidecar_active_streams", **chat) == 0
    assert after.value("sidecar_readers", **chat) == 0

    def requests(route: str, method: str, status: int) -> float:
        return after.value("sidecar_requests_total", route=route, method=method, status=str(status))

    # The cancelled stream's answer was a 200 that did not end.
    assert requests("chat", "GET", 200) == 3
    assert requests("chat", "POST", 200) == 1
    assert requests("chat", "other", 200) == 1
    assert requests("dead", "GET", 502) == 1
    assert requests("_streams", "GET", 200) == 1
    assert requests("_streams", "GET", 204) == 1
    assert requests("_streams", "GET", 400) == 1
    assert requests("_streams", "POST", 202) == 1

    # Three of each stream, and the error that the broken one was told.
    assert after.value("sidecar_events_total", **chat) == 10
    assert after.value("sidecar_replayed_events_total", **chat) == 2
    written = (blocks + replay + head + told).replace(b": ping\n", b"")
    assert after.value("sidecar_event_bytes_total", **chat) == len(written)

    assert after.value("sidecar_resumes_total", **chat, outcome="resumed") == 1
    assert after.value("sidecar_resumes_total", **chat, outcome="at_end") == 1
    assert after.value("sidecar_resumes_total", **chat, outcome="bad-cursor") == 1
    assert after.value("sidecar_cancels_total", **chat, by="client") == 1
    for reason in ("complete", "cancelled", "truncated"):
        assert after.value("sidecar_streams_ended_total", **chat, reason=reason) == 1

    assert after.value("sidecar_upstream_errors_total", upstream="nobody", kind="upstream-unreachable") == 1

    for name, count in (
        ("sidecar_time_to_first_event_seconds", 3),
        ("sidecar_stream_duration_seconds", 3),
    ):
        assert after.value(f"{name}_count", **chat) == count
        assert after.value(f"{name}_bucket", **chat, le="+Inf") == count
        assert 0 < after.value(f"{name}_sum", **chat) < 60 * count
    assert 1 <= after.value("sidecar_event_gap_seconds_count", **chat) <= 7
    assert (
        after.value("sidecar_stream_duration_seconds_sum", **chat) >= 0.06
    )  # two heartbeats were waited for

    kept = sum(relay.log.bytes for relay in sidecar.hub.store)
    assert after.value("sidecar_log_bytes") == kept > 0
    assert after.value("sidecar_logs") == 3
    assert after.value("sidecar_log_max_bytes") == 256 * 1024 * 1024


async def test_gaps_between_events_are_counted(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """The time between two reads with events; heartbeats and comments of the upstream are no events."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    sidecar = await start_sidecar(origin.url, route={"heartbeat": "10ms"})
    stream = await ask(sidecar.url, "/")
    await stream.block()
    connection = await origin.request()
    await connection.chunk(b": upstream's own\n\n")
    await stream.until(b": ping\n")
    await stream.until(b": ping\n")
    await connection.chunk(b"data: 2\n\n")
    await stream.block()
    found = await scrape(sidecar)
    assert found.value("sidecar_event_gap_seconds_count", route="all") == 1
    assert found.value("sidecar_event_gap_seconds_sum", route="all") >= 0.02


async def test_a_running_stream_is_counted_so_far(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """What a stream has carried is in the metrics while it runs, and is not counted again when it ends."""
    origin = await start_origin(holds(b"data: 1\n\n"))
    sidecar = await start_sidecar(origin.url)
    stream = await ask(sidecar.url, "/")
    written = await stream.block()
    connection = await origin.request()
    for event in (b"data: 2\n\n", b"data: 3\n\n", b"event: x\ndata: 4\n\n", b"data: 5\n\ndata: 6\n\n"):
        await connection.chunk(event)
        written += b"".join(await stream.blocks(event.count(b"\n\n")))
        found = await scrape(sidecar)
        assert found.value("sidecar_events_total", route="all") == written.count(b"data:")
        assert found.value("sidecar_event_bytes_total", route="all") == len(written)
    await connection.end()
    await stream.rest()
    await eventually(lambda: not sidecar.hub.running)
    found = await scrape(sidecar)
    assert found.value("sidecar_events_total", route="all") == 6
    assert found.value("sidecar_event_bytes_total", route="all") == len(written)


async def test_evictions_are_counted(start_sidecar: StartSidecar, start_origin: StartOrigin) -> None:
    """When the store is full, the oldest finished logs go, and leave a tombstone each."""
    origin = await start_origin(streams(b"data: %b\n\n" % (b"x" * 500)))
    sidecar = await start_sidecar(origin.url, store={"memory": {"max_bytes": "1500B"}})
    for _ in range(4):
        await (await ask(sidecar.url, "/")).rest()
    found = await scrape(sidecar)
    assert found.value("sidecar_logs") == 2
    assert found.value("sidecar_log_evictions_total") == 2
    assert found.value("sidecar_tombstones") == 2
    assert found.value("sidecar_log_bytes") <= 1500


async def test_pauses_are_counted(start_sidecar: StartSidecar, start_origin: StartOrigin) -> None:
    """An upstream that is not read, since its readers are slow, is an operator's business."""

    async def endless(connection: Connection) -> None:
        await connection.start_stream()
        while not connection.writer.is_closing():
            await connection.chunk(b"data: %b\n\n" % (b"x" * 64 * 1024))

    origin = await start_origin(endless)
    sidecar = await start_sidecar(origin.url, route={"replay": {"max_bytes": "256KiB"}})
    stream = await ask(sidecar.url, "/")
    await stream.block()
    stream.stall()
    stats = sidecar.telemetry.route("all")
    await eventually(lambda: stats.pauses, "a pause")
    assert (await scrape(sidecar)).value("sidecar_upstream_pauses_total", route="all") == 1
    assert (await admin_json(sidecar, "/streams"))["streams"][0]["paused"] is True


async def test_readers_that_we_dropped_are_counted(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """By cause: whoever takes nothing for too long, and whoever still reads when a drain is over."""
    stuck = await start_origin(holds(b"data: %b\n\n" % (b"x" * 64 * 1024) * 256))
    sidecar = await start_sidecar(
        stuck.url, drain="0s", route={"timeouts": {"send": "50ms"}, "replay": {"max_bytes": "32MiB"}}
    )
    stalled = await ask(sidecar.url, "/stalled")
    stalled.stall()
    await eventually(lambda: not sidecar.hub.readers, "the end of the reader that takes nothing")
    dismissed = await ask(sidecar.url, "/dismissed")
    await dismissed.blocks(256)
    await sidecar.drain()
    found = await scrape(sidecar)
    for cause in ("send_timeout", "drain"):
        assert found.value("sidecar_readers_dropped_total", route="all", cause=cause) == 1


async def test_streams_without_room_are_counted(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """A stream that the store cannot hold is served, and counted."""
    origin = await start_origin(holds(b"data: %b\n\n" % (b"x" * 2000)))
    sidecar = await start_sidecar(origin.url, store={"memory": {"max_bytes": "1KiB"}})
    for _ in range(2):
        await (await ask(sidecar.url, "/")).block()
    found = await scrape(sidecar)
    assert found.value("sidecar_unrecorded_streams_total", route="all") == 1
    assert found.value("sidecar_active_streams", route="all") == 2


async def test_reconnects_to_a_feed_are_counted(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """By outcome."""

    async def script(connection: Connection) -> None:
        if len(origin.requests) == 2:
            await connection.send(response(status="503 Service Unavailable"))
            return
        await connection.start_stream()
        await connection.chunk(b"retry: 20\ndata: %d\n\n" % len(origin.requests))
        if len(origin.requests) == 1:
            await connection.close()
        else:
            await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, route={"reconnect": True})
    feed = await ask(sidecar.url, "/events", headers={"Accept": "text/event-stream"})
    await feed.until(b"data: 3\n\n")
    found = await scrape(sidecar)
    assert found.value("sidecar_upstream_reconnects_total", route="all", outcome="status_503") == 1
    assert found.value("sidecar_upstream_reconnects_total", route="all", outcome="reconnected") == 1


async def test_a_client_cannot_grow_the_metrics(
    start_sidecar: StartSidecar, start_origin: StartOrigin
) -> None:
    """The attack: paths and rare methods without number, each with a time series of its own for ever."""

    async def script(connection: Connection) -> None:
        await connection.send(response())

    sidecar = await start_sidecar((await start_origin(script)).url)
    sizes = []
    for number, method in enumerate(("PURGE", "MKCOL", "REPORT", "SEARCH", "LOCK", "NOTIFY")):
        assert (await ask(sidecar.url, f"/{number}", method=method)).status == 200
        assert (await ask(sidecar.url, f"/_streams/{number}")).status == 404
        await eventually(lambda: not sidecar.gateway.in_flight, "the end of all requests")
        sizes.append(len((await scrape(sidecar)).samples))
    assert len(set(sizes)) == 1
