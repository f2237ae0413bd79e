"""Metrics: what is counted while streams run is what a scrape shows."""

from __future__ import annotations

from collections import Counter

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry import RouteStats, StoreFigures, Telemetry
from proxy.telemetry.exposition import COUNTERS, GAUGES, HISTOGRAMS, LABELLED
from tests.conftest import config_for


def shown(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    """Return the value that a scrape shows for a sample, or None where it shows none."""
    value: float | None = telemetry.registry.get_sample_value(name, labels)
    return value


def test_every_figure_of_a_route_is_shown() -> None:
    """Each attribute that is counted comes out under its metric, with the route and its own labels."""
    telemetry = Telemetry()
    stats = telemetry.route("chat")
    plain = ["streams", "readers", "events", "bytes", "heartbeats", "replayed", "pauses", "unrecorded",
             "websockets"]  # fmt: skip
    for number, name in enumerate(plain, start=1):
        setattr(stats, name, number)
    stats.ends["complete"] = 11
    stats.resumes["gap"] = 12
    stats.cancels["linger"] = 13
    stats.reconnects["reconnected"] = 14
    stats.requests["GET", 200] = 15
    stats.drops["send_timeout"] = 16
    stats.websocket_messages["to_upstream"] = 17
    stats.websocket_bytes["to_client"] = 18
    stats.websocket_ends["closed", "client", "1000"] = 19
    for histogram in (stats.first_events, stats.gaps, stats.durations):
        histogram.observe(0.3)
    expected = {
        "active_streams": 1,
        "readers": 2,
        "events_total": 3,
        "event_bytes_total": 4,
        "heartbeats_total": 5,
        "replayed_events_total": 6,
        "upstream_pauses_total": 7,
        "unrecorded_streams_total": 8,
        "websockets": 9,
    }
    assert {name: shown(telemetry, f"sidecar_{name}", route="chat") for name in expected} == expected
    assert shown(telemetry, "sidecar_streams_ended_total", route="chat", reason="complete") == 11
    assert shown(telemetry, "sidecar_resumes_total", route="chat", outcome="gap") == 12
    assert shown(telemetry, "sidecar_cancels_total", route="chat", by="linger") == 13
    assert shown(telemetry, "sidecar_readers_dropped_total", route="chat", cause="send_timeout") == 16
    assert shown(telemetry, "sidecar_upstream_reconnects_total", route="chat", outcome="reconnected") == 14
    assert shown(telemetry, "sidecar_requests_total", route="chat", method="GET", status="200") == 15
    for name, direction, value in (("messages", "to_upstream", 17), ("bytes", "to_client", 18)):
        counted = shown(telemetry, f"sidecar_websocket_{name}_total", route="chat", direction=direction)
        assert counted == value
    ended = {"cause": "closed", "by": "client", "code": "1000"}
    assert shown(telemetry, "sidecar_websockets_ended_total", route="chat", **ended) == 19
    for name in ("time_to_first_event", "event_gap", "stream_duration"):
        below, above = ("0.256", "0.512") if name == "event_gap" else ("0.25", "0.5")
        assert shown(telemetry, f"sidecar_{name}_seconds_bucket", route="chat", le=below) == 0
        assert shown(telemetry, f"sidecar_{name}_seconds_bucket", route="chat", le=above) == 1
        assert shown(telemetry, f"sidecar_{name}_seconds_count", route="chat") == 1
        assert shown(telemetry, f"sidecar_{name}_seconds_sum", route="chat") == pytest.approx(0.3)


def test_a_scrape_can_be_read() -> None:
    """The page is in Prometheus's text format, and every metric on it says what it is."""
    telemetry = Telemetry()
    telemetry.store = lambda: StoreFigures(1, 2, 3, 4, 5)
    families = list(text_string_to_metric_families(generate_latest(telemetry.registry).decode()))
    assert len(families) == len({family.name for family in families}) > 20
    assert all(family.name.startswith(("sidecar_", "process_", "gen_ai_")) for family in families)
    assert all(family.documentation for family in families)


def test_nothing_is_counted_in_vain() -> None:
    """Every attribute of a route's figures is read by exactly one metric."""
    stats = RouteStats()
    for number, name in enumerate(RouteStats.__slots__):
        if isinstance(getattr(stats, name), int):
            setattr(stats, name, 1000 + number)
    values = [read(stats) for *_, read in (*GAUGES, *COUNTERS, *LABELLED, *HISTOGRAMS)]
    assert sorted(map(repr, values)) == sorted(repr(getattr(stats, name)) for name in RouteStats.__slots__)


def test_routes_are_told_apart() -> None:
    """What one route counts is not another's; a route is made once."""
    telemetry = Telemetry()
    telemetry.route("a").events += 1
    telemetry.route("b").events += 5
    assert telemetry.route("a") is telemetry.route("a")
    assert shown(telemetry, "sidecar_events_total", route="a") == 1
    assert shown(telemetry, "sidecar_events_total", route="b") == 5


def test_routes_count_from_zero() -> None:
    """A configured route is shown before its first request: an alert on a rate needs the zero."""
    telemetry = Telemetry()
    assert shown(telemetry, "sidecar_events_total", route="all") is None
    telemetry.configure(config_for("http://127.0.0.1:1"))
    assert shown(telemetry, "sidecar_events_total", route="all") == 0
    assert not telemetry.tells_requests
    telemetry.route("all").events += 1
    telemetry.configure(config_for("http://127.0.0.1:1", log={"requests": True}))
    assert shown(telemetry, "sidecar_events_total", route="all") == 1
    assert telemetry.tells_requests


def test_requests() -> None:
    """Answers by method and status; a method that nobody defined is a client's invention, and must not
    make a time series of its own.
    """
    telemetry = Telemetry()
    for method, status in (("GET", 200), ("GET", 200), ("GET", 404), ("BREW", 200), ("get", 200)):
        telemetry.count_request("rest", method, status)
    assert telemetry.route("rest").requests == Counter({("GET", 200): 2, ("other", 200): 2, ("GET", 404): 1})


def test_the_process() -> None:
    """What is no route's: upstreams, reloads, draining, and the store where there is one."""
    telemetry = Telemetry()
    assert shown(telemetry, "sidecar_draining") == 0
    for outcome in ("loaded", "refused"):
        assert shown(telemetry, "sidecar_config_reloads_total", outcome=outcome) == 0
    assert shown(telemetry, "sidecar_log_bytes") is None
    telemetry.process.draining = True
    telemetry.process.reloads["refused"] += 1
    telemetry.process.started = 1_600_000_000
    telemetry.process.config_loaded_at = 1_700_000_000
    telemetry.process.upstream_errors["origin", "upstream-timeout"] += 2
    telemetry.store = lambda: StoreFigures(bytes=1, max_bytes=2, streams=3, tombstones=4, evicted=5)
    assert shown(telemetry, "sidecar_draining") == 1
    assert shown(telemetry, "sidecar_config_reloads_total", outcome="refused") == 1
    assert shown(telemetry, "process_start_time_seconds") == 1_600_000_000
    assert shown(telemetry, "sidecar_config_loaded_timestamp_seconds") == 1_700_000_000
    assert shown(telemetry, "sidecar_upstream_errors_total", upstream="origin", kind="upstream-timeout") == 2
    names = ("log_bytes", "log_max_bytes", "logs", "tombstones", "log_evictions_total")
    assert [shown(telemetry, f"sidecar_{name}") for name in names] == [1, 2, 3, 4, 5]


def test_two_processes_in_one() -> None:
    """Each has a registry of its own: two sidecars in one process do not count for each other."""
    one, two = Telemetry(), Telemetry()
    one.route("a").events += 1
    assert shown(two, "sidecar_events_total", route="a") is None
