"""Metrics: what is counted while streams run is what a scrape shows."""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from proxy.config import Log
from proxy.telemetry import (
    COUNTERS,
    DURATION_BUCKETS,
    FIRST_EVENT_BUCKETS,
    GAP_BUCKETS,
    GAUGES,
    HISTOGRAMS,
    LABELLED,
    MOST_LINES,
    Facts,
    Histogram,
    Joined,
    RouteStats,
    StoreFigures,
    Telemetry,
    Visited,
    configure_logging,
)
from tests.conftest import config_for, eventually

FACTS = Facts(
    stream="AZaz09",
    route="chat",
    upstream="origin",
    dialect="openai",
    method="POST",
    path="/v1/chat/completions",
    client="127.0.0.1",
    reason="complete",
    message="",
    events=3,
    bytes_in=300,
    bytes_out=330,
    first_event=0.1235,
    duration=1.9877,
    longest_gap=0.5,
    readers=1,
    resumes=0,
    replayed=0,
    heartbeats=0,
    drops=0,
    pauses=0,
    evicted=0,
    recorded=True,
)

JOINED = Joined(
    route="realtime",
    upstream="origin",
    path="/v1/realtime",
    client="127.0.0.1",
    cause="closed",
    by="client",
    code=1000,
    messages_to_upstream=3,
    messages_to_client=4,
    bytes_to_upstream=300,
    bytes_to_client=400,
    duration=12.5,
)

VISITED = Visited("rest", "GET", "/x", "127.0.0.1", 200, 12, 0.0123)


def shown(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    """Return the value that a scrape shows for a sample, or None where it shows none."""
    value: float | None = telemetry.registry.get_sample_value(name, labels)
    return value


# Histograms


def test_histogram() -> None:
    """A value counts in the first bucket that is not below it; buckets are cumulative on the wire."""
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1, 1.001, 2.5, 99):
        histogram.observe(value)
    assert histogram.buckets() == [("1.0", 2), ("2.5", 4), ("+Inf", 5)]
    assert histogram.total == pytest.approx(104.001)


@given(st.lists(st.floats(0, 10_000)), st.sampled_from([FIRST_EVENT_BUCKETS, GAP_BUCKETS, DURATION_BUCKETS]))
def test_any_observations(values: list[float], bounds: tuple[float, ...]) -> None:
    """Each bucket holds the values up to its bound, the last one all."""
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    ordered = sorted(values)
    for (label, count), bound in zip(histogram.buckets(), (*bounds, float("inf")), strict=True):
        assert float(label) == bound
        assert count == len([value for value in ordered if value <= bound])
    assert histogram.total == pytest.approx(sum(values))
    assert bisect_left(bounds, bounds[-1]) == len(bounds) - 1, "bounds ascend"


# What a scrape shows


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
    assert all(family.name.startswith("sidecar_") and family.documentation for family in families)


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
    telemetry.draining = True
    telemetry.reloads["refused"] += 1
    telemetry.config_loaded_at = 1_700_000_000
    telemetry.upstream_errors["origin", "upstream-timeout"] += 2
    telemetry.store = lambda: StoreFigures(bytes=1, max_bytes=2, streams=3, tombstones=4, evicted=5)
    assert shown(telemetry, "sidecar_draining") == 1
    assert shown(telemetry, "sidecar_config_reloads_total", outcome="refused") == 1
    assert shown(telemetry, "sidecar_config_loaded_timestamp_seconds") == 1_700_000_000
    assert shown(telemetry, "sidecar_upstream_errors_total", upstream="origin", kind="upstream-timeout") == 2
    names = ("log_bytes", "log_max_bytes", "logs", "tombstones", "log_evictions_total")
    assert [shown(telemetry, f"sidecar_{name}") for name in names] == [1, 2, 3, 4, 5]


def test_two_processes_in_one() -> None:
    """Each has a registry of its own: two sidecars in one process do not count for each other."""
    one, two = Telemetry(), Telemetry()
    one.route("a").events += 1
    assert shown(two, "sidecar_events_total", route="a") is None


# The end of a stream


def test_a_stream_that_ended() -> None:
    """It is counted by reason, its duration observed, and every fact stands in one line."""
    telemetry = Telemetry()
    with capture_logs() as lines:
        telemetry.stream_ended(FACTS)
    stats = telemetry.route("chat")
    assert stats.ends == {"complete": 1}
    assert (sum(stats.durations.counts), stats.durations.total) == (1, FACTS.duration)
    (line,) = lines
    assert (line.pop("event"), line.pop("log_level")) == ("stream", "info")
    assert line.keys() == set(Facts.__struct_fields__)
    assert (line["first_event"], line["duration"], line["events"]) == (0.1235, 1.9877, 3)
    assert line["recorded"] is True


@pytest.mark.parametrize(
    ("reason", "level"),
    [("complete", "info"), ("cancelled", "info"), ("truncated", "warning"), ("idle_timeout", "warning")],
)
def test_a_stream_that_went_wrong_is_a_warning(reason: str, level: str) -> None:
    """Whoever looks for trouble finds it by level; a reader that left is no trouble."""
    with capture_logs() as lines:
        Telemetry().stream_ended(replace(FACTS, reason=reason, first_event=None))
    assert [(line["log_level"], line["first_event"]) for line in lines] == [(level, None)]


@pytest.mark.parametrize(("status", "level"), [(200, "info"), (404, "info"), (499, "info"), (502, "warning")])
def test_a_plain_request(status: int, level: str) -> None:
    """A request that was no stream's has a line too, where that is wanted."""
    with capture_logs() as lines:
        Telemetry().request_ended(replace(VISITED, status=status))
    assert [(line["event"], line["log_level"], line["duration"]) for line in lines] == [
        ("request", level, 0.0123)
    ]


# The end of a WebSocket


def test_a_websocket_that_ended() -> None:
    """It is counted by what ended it, who did and with which code; every fact stands in one line."""
    telemetry = Telemetry()
    with capture_logs() as lines:
        telemetry.websocket_ended(JOINED)
        telemetry.websocket_ended(replace(JOINED, cause="lost", by="upstream", code=1006))
    assert telemetry.route("realtime").websocket_ends == {
        ("closed", "client", "1000"): 1,
        ("lost", "upstream", "1006"): 1,
    }
    line = lines[0]
    assert (line.pop("event"), line.pop("log_level")) == ("websocket", "info")
    assert line == structs.asdict(JOINED)


@pytest.mark.parametrize(
    ("cause", "level"),
    [
        ("closed", "info"),
        ("drain", "info"),
        ("lost", "warning"),
        ("silent", "warning"),
        ("send_timeout", "warning"),
        ("too_big", "warning"),
    ],
)
def test_a_websocket_that_went_wrong_is_a_warning(cause: str, level: str) -> None:
    """Peers that close, and a sidecar that leaves, are no trouble."""
    with capture_logs() as lines:
        Telemetry().websocket_ended(replace(JOINED, cause=cause))
    assert [line["log_level"] for line in lines] == [level]


def test_codes_of_applications_share_one_label() -> None:
    """The attack: closes with each of two thousand codes, which would be as many time series."""
    telemetry = Telemetry()
    codes = [*range(1000, 1016), 0, 999, 1016, 2000, *range(3000, 5000), 65535, None]
    with capture_logs() as lines:
        for code in codes:
            telemetry.websocket_ended(replace(JOINED, code=code))
    labels = [label for _, _, label in telemetry.route("realtime").websocket_ends]
    assert sorted(labels) == [*map(str, range(1000, 1016)), "other"]
    assert telemetry.route("realtime").websocket_ends["closed", "client", "other"] == len(codes) - 16
    assert [line["code"] for line in lines] == codes, "the line says which it was"


# Lines of which there are many


class Written:
    """What was written to stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    @property
    def text(self) -> str:
        """All of it."""
        self._text += self._capsys.readouterr().err
        return self._text

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines, which are JSON."""
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """The log, in JSON."""
    root, ours = logging.getLogger(), logging.getLogger("sse-sidecar")
    handlers, level = root.handlers[:], root.level
    configure_logging(Log(format="json"))
    yield Written(capsys)
    structlog.reset_defaults()
    logging.captureWarnings(False)
    ours.setLevel(logging.NOTSET)
    root.setLevel(level)
    root.handlers[:] = handlers


async def test_lines_of_streams_leave_together(stderr: Written) -> None:
    """They wait for each other for a moment; each tells when its stream ended."""
    telemetry = Telemetry()
    telemetry.stream_ended(FACTS)
    telemetry.request_ended(VISITED)
    telemetry.websocket_ended(JOINED)
    assert not stderr.text
    await eventually(lambda: bool(stderr.text), "the lines are written")
    first, second, third = stderr.lines
    assert list(first) == ["timestamp", "level", "event", *Facts.__struct_fields__]
    assert list(third) == ["timestamp", "level", "event", *Joined.__struct_fields__]
    assert (first["stream"], third["upstream"]) == ("AZaz09", "origin")
    assert [line["event"] for line in (first, second, third)] == ["stream", "request", "websocket"]
    assert first["timestamp"] <= second["timestamp"] <= third["timestamp"]


async def test_no_line_overtakes_another(stderr: Written) -> None:
    """What is written at once takes along what waits."""
    telemetry = Telemetry()
    telemetry.stream_ended(FACTS)
    telemetry.log.info("stopped")
    assert [line["event"] for line in stderr.lines] == ["stream", "stopped"]


async def test_few_lines_wait(stderr: Written) -> None:
    """A thousand streams that end at once are not held in memory to be told of."""
    telemetry = Telemetry()
    for _ in range(MOST_LINES):
        telemetry.stream_ended(FACTS)
    assert len(stderr.lines) == MOST_LINES


@pytest.mark.parametrize("path", ["/é", "/\x9b2J", "/\udcff", '/"\\\n'])
async def test_a_line_is_ascii_whatever_a_client_wrote(stderr: Written, path: str) -> None:
    """The attack: bytes that are no text, that a terminal obeys, or that end the line."""
    telemetry = Telemetry()
    telemetry.stream_ended(replace(FACTS, path=path))
    telemetry.log.info("now")
    (told, _) = stderr.lines
    assert told["path"] == path
    assert stderr.text.isascii()
    assert stderr.text.replace("\n", "").isprintable()


async def test_the_level_holds_for_them_too(stderr: Written) -> None:
    """With ``level: warning`` a whole stream has no line."""
    configure_logging(Log(format="json", level="warning"))
    telemetry = Telemetry()
    telemetry.stream_ended(FACTS)
    telemetry.stream_ended(replace(FACTS, reason="truncated"))
    telemetry.log.warning("now")
    assert [line.get("reason") for line in stderr.lines] == ["truncated", None]
