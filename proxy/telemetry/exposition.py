"""What a scrape shows of the counters: a row of a table for each metric of a route."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from proxy.telemetry.counters import Histogram, ProcessStats, RouteStats, StoreFigures

#: A route's counters by its name.
Routes = Mapping[str, RouteStats]

GAUGES: tuple[tuple[str, str, Callable[[RouteStats], float]], ...] = (
    ("sidecar_active_streams", "Streams running now", lambda stats: stats.streams),
    ("sidecar_readers", "Clients reading now", lambda stats: stats.readers),
    ("sidecar_websockets", "WebSockets open now", lambda stats: stats.websockets),
)
COUNTERS: tuple[tuple[str, str, Callable[[RouteStats], float]], ...] = (
    ("sidecar_events", "Blocks with data, as numbered", lambda stats: stats.events),
    ("sidecar_event_bytes", "Bytes of events written to clients", lambda stats: stats.bytes),
    ("sidecar_heartbeats", "Heartbeats written", lambda stats: stats.heartbeats),
    ("sidecar_replayed_events", "Events handed out again on a resume", lambda stats: stats.replayed),
    ("sidecar_upstream_pauses", "Times an upstream was not read since readers were slow", lambda s: s.pauses),
    ("sidecar_unrecorded_streams", "Streams that found no room in the store", lambda stats: stats.unrecorded),
)
LABELLED: tuple[tuple[str, str, tuple[str, ...], Callable[[RouteStats], Counter[Any]]], ...] = (
    ("sidecar_requests", "Requests answered", ("method", "status"), lambda stats: stats.requests),
    ("sidecar_streams_ended", "Streams by how they ended", ("reason",), lambda stats: stats.ends),
    ("sidecar_resumes", "Resumes by outcome", ("outcome",), lambda stats: stats.resumes),
    ("sidecar_cancels", "Streams cancelled, by whom", ("by",), lambda stats: stats.cancels),
    ("sidecar_readers_dropped", "Readers whose connection was ended", ("cause",), lambda stats: stats.drops),
    ("sidecar_upstream_reconnects", "Reconnects to a feed's upstream", ("outcome",), lambda s: s.reconnects),
    (
        "sidecar_websocket_messages",
        "WebSocket messages that passed through",
        ("direction",),
        lambda stats: stats.websocket_messages,
    ),
    (
        "sidecar_websocket_bytes",
        "Bytes of these messages, as on the wire",
        ("direction",),
        lambda stats: stats.websocket_bytes,
    ),
    (
        "sidecar_websockets_ended",
        "WebSockets that passed through, by how they ended",
        ("cause", "by", "code"),
        lambda stats: stats.websocket_ends,
    ),
)
HISTOGRAMS: tuple[tuple[str, str, Callable[[RouteStats], Histogram]], ...] = (
    ("sidecar_time_to_first_event_seconds", "From the request to the first event", lambda s: s.first_events),
    ("sidecar_event_gap_seconds", "Between two reads with events of one stream", lambda stats: stats.gaps),
    (
        "sidecar_stream_duration_seconds",
        "From the request to the stream's end",
        lambda stats: stats.durations,
    ),
)


def of_routes(routes: Routes) -> Iterator[Metric]:
    """Yield what is counted for each route."""
    yield from _by_route(routes)
    yield from _histograms(routes)


def of_process(process: ProcessStats) -> Iterator[Metric]:
    """Yield what is no route's."""
    errors = CounterMetricFamily(
        "sidecar_upstream_errors", "Requests that got no response", labels=["upstream", "kind"]
    )
    for (upstream, kind), count in process.upstream_errors.items():
        errors.add_metric([upstream, kind], count)
    yield errors
    yield CounterMetricFamily(
        "sidecar_misrouted_requests", "Requests for a stream of another node", value=process.misrouted
    )
    reloads = CounterMetricFamily("sidecar_config_reloads", "Attempts to reload", labels=["outcome"])
    for outcome in ("loaded", "refused"):
        reloads.add_metric([outcome], process.reloads[outcome])
    yield reloads
    yield GaugeMetricFamily(
        "sidecar_config_loaded_timestamp_seconds", "When the configuration in force was loaded",
        value=process.config_loaded_at,
    )  # fmt: skip
    # The name that Prometheus wants for it, whatever the program.
    yield GaugeMetricFamily("process_start_time_seconds", "When the sidecar started", value=process.started)
    yield GaugeMetricFamily("sidecar_draining", "1 while shutting down", value=float(process.draining))


def of_store(store: StoreFigures) -> Iterator[Metric]:
    """Yield the store's figures."""
    yield GaugeMetricFamily("sidecar_log_bytes", "Bytes held in logs", value=store.bytes)
    yield GaugeMetricFamily("sidecar_log_max_bytes", "Bound of the bytes in logs", value=store.max_bytes)
    yield GaugeMetricFamily("sidecar_logs", "Logs held, running and finished", value=store.streams)
    yield GaugeMetricFamily("sidecar_tombstones", "Dropped streams remembered", value=store.tombstones)
    yield CounterMetricFamily("sidecar_log_evictions", "Logs dropped before their time", value=store.evicted)


def _by_route(routes: Routes) -> Iterator[Metric]:
    for name, help_text, read in GAUGES:
        gauge = GaugeMetricFamily(name, help_text, labels=["route"])
        for route, stats in routes.items():
            gauge.add_metric([route], read(stats))
        yield gauge
    for name, help_text, read in COUNTERS:
        counter = CounterMetricFamily(name, help_text, labels=["route"])
        for route, stats in routes.items():
            counter.add_metric([route], read(stats))
        yield counter
    for name, help_text, labels, rows in LABELLED:
        counter = CounterMetricFamily(name, help_text, labels=["route", *labels])
        for route, stats in routes.items():
            for values, count in rows(stats).items():
                key = values if isinstance(values, tuple) else (values,)
                counter.add_metric([route, *map(str, key)], count)
        yield counter


def _histograms(routes: Routes) -> Iterator[Metric]:
    for name, help_text, read in HISTOGRAMS:
        family = HistogramMetricFamily(name, help_text, labels=["route"])
        for route, stats in routes.items():
            histogram = read(stats)
            family.add_metric([route], histogram.buckets(), histogram.total)
        yield family
