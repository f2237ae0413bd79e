"""What happened to a stream, told three ways: metrics, one log line, and (later) traces.

Nothing here is called per event. A relay counts in plain integers, in the ``RouteStats`` that all
streams of its route share; Prometheus reads them when it scrapes, and the line is written when the
stream ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from structlog.typing import EventDict, Processor

from proxy.config import Config
from proxy.config import Log as LogSettings
from proxy.errors import UpstreamError

#: The name of our own log lines; every other name is a library's.
LOGGER = "sse-sidecar"

#: Seconds; the buckets of OpenTelemetry's gen_ai.server.time_to_first_token, and longer ones for
#: models that think first.
FIRST_EVENT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
#: Seconds between two reads of one stream: from a burst to beyond a balancer's idle limit.
GAP_BUCKETS = tuple(2**power / 1000 for power in range(20))
#: Seconds that a stream lasts.
DURATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


#: The methods that have a label of their own.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

#: The close codes that have a label of their own; applications may choose of two thousand others.
TOLD_CODES = frozenset(range(1000, 1016))


class Histogram:
    """Counts of observations by bucket, cheap enough for the hot path."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts as Prometheus wants them."""
        cumulative, rows = 0, []
        for bound, count in zip(self.bounds, self.counts, strict=False):
            cumulative += count
            rows.append((repr(float(bound)), float(cumulative)))
        return [*rows, ("+Inf", float(sum(self.counts)))]


class Gaps(Histogram):
    """A histogram whose bounds are powers of two, in milliseconds.

    So a value's bucket is the length of a number. A search touches five other numbers, which is a
    part of an event's cost.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(GAP_BUCKETS)
        self.counts = [0] * 64

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[int(value * 1000).bit_length()] += 1
        self.total += value


class RouteStats:
    """Everything counted for one route. Plain attributes: whoever counts, adds."""

    __slots__ = (
        "bytes",
        "cancels",
        "drops",
        "durations",
        "ends",
        "events",
        "first_events",
        "gaps",
        "heartbeats",
        "pauses",
        "readers",
        "reconnects",
        "replayed",
        "requests",
        "resumes",
        "streams",
        "unrecorded",
        "websocket_bytes",
        "websocket_ends",
        "websocket_messages",
        "websockets",
    )

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # (method, status)
        self.streams = 0  # running now
        self.readers = 0  # connected now
        self.events = 0
        self.bytes = 0  # of events, to clients
        self.heartbeats = 0
        self.replayed = 0
        self.pauses = 0
        self.unrecorded = 0
        self.reconnects: Counter[str] = Counter()  # by outcome
        self.resumes: Counter[str] = Counter()  # by outcome
        self.cancels: Counter[str] = Counter()  # by who cancelled
        self.drops: Counter[str] = Counter()  # readers whose connection we ended, by cause
        self.ends: Counter[str] = Counter()  # by reason
        self.first_events = Histogram(FIRST_EVENT_BUCKETS)
        self.gaps = Gaps()
        self.durations = Histogram(DURATION_BUCKETS)
        self.websockets = 0  # open now
        self.websocket_messages: Counter[str] = Counter()  # that passed through, by direction
        self.websocket_bytes: Counter[str] = Counter()
        self.websocket_ends: Counter[tuple[str, str, str]] = Counter()  # (cause, by, code)


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """The store at this moment; ``evicted`` since the start."""

    bytes: int
    max_bytes: int
    streams: int
    tombstones: int
    evicted: int


class Facts(msgspec.Struct, frozen=True):
    """A finished stream, as its log line tells it. Times in seconds, sizes in bytes."""

    stream: str
    route: str
    upstream: str
    dialect: str
    method: str
    path: str
    client: str
    reason: str
    message: str
    events: int
    bytes_in: int
    bytes_out: int
    first_event: float | None
    duration: float
    longest_gap: float
    readers: int
    resumes: int
    replayed: int
    heartbeats: int
    drops: int
    pauses: int
    evicted: int
    recorded: bool


class Visited(msgspec.Struct, frozen=True):
    """An answered request that was no stream's, as its log line tells it.

    ``path`` has no query. Seconds, and bytes of the answer's body.
    """

    route: str
    method: str
    path: str
    client: str
    status: int
    bytes: int
    duration: float


class Joined(msgspec.Struct, frozen=True):
    """A WebSocket that passed through and is over, as its log line tells it.

    ``cause`` is what ended it, ``by`` the side that did, ``code`` the close code, 1006 where there was none.
    Messages and bytes of their payload as on the wire; seconds.
    """

    route: str
    upstream: str
    path: str
    client: str
    cause: str
    by: str
    code: int | None
    messages_to_upstream: int
    messages_to_client: int
    bytes_to_upstream: int
    bytes_to_client: int
    duration: float


#: What has a line of its own: there are many of these.
Told = Facts | Visited | Joined


class Telemetry:
    """The process's metrics and its log. ``tells_requests``: the log has a line for plain requests too."""

    def __init__(self) -> None:
        self.tells_requests = False
        self.routes: dict[str, RouteStats] = {}
        self.reloads: Counter[str] = Counter()
        self.config_loaded_at = 0.0
        self.draining = False
        self.upstream_errors: Counter[tuple[str, str]] = Counter()  # (upstream, kind)
        self.misrouted = 0  # requests for a stream that another node holds
        self.store: Callable[[], StoreFigures] | None = None
        self.settle: Callable[[], None] | None = None  # counts for the routes what streams have counted
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self.log = structlog.get_logger(LOGGER)
        self._lines = _Lines()

    def configure(self, config: Config) -> None:
        """Tell what a configuration wants told. Routes count from zero, not from their first request."""
        self.tells_requests = config.log.requests
        self.log = structlog.get_logger(LOGGER).bind()  # now, and not anew for every line
        self._lines = _Lines()
        for route in config.routes:
            self.route(route.name)

    def route(self, name: str) -> RouteStats:
        """Return the counters of a route, new or known."""
        stats = self.routes.get(name)
        if stats is None:
            stats = self.routes[name] = RouteStats()
        return stats

    def count_request(self, route: str, method: str, status: int) -> None:
        """Count one answered request. Methods that nobody defined share one label: clients choose them."""
        known = method if method in METHODS else "other"
        self.route(route).requests[known, status] += 1

    def upstream_failed(self, upstream: str, server: str, error: UpstreamError) -> None:
        """Count and tell of a request that got no response from one server of an upstream."""
        self.upstream_errors[upstream, error.kind] += 1
        told = {"kind": error.kind, "reason": error.reason}
        if error.detail:
            told["detail"] = error.detail
        self.log.warning("upstream failed", upstream=upstream, server=server, **told)

    def request_ended(self, visited: Visited) -> None:
        """Write the line of a plain request."""
        level = logging.WARNING if visited.status >= 500 else logging.INFO
        self._lines.write(level, "request", visited)

    def stream_ended(self, facts: Facts) -> None:
        """Publish a finished stream."""
        stats = self.route(facts.route)
        stats.ends[facts.reason] += 1
        stats.durations.observe(facts.duration)
        level = logging.INFO if facts.reason in ("complete", "cancelled") else logging.WARNING
        self._lines.write(level, "stream", facts)

    def websocket_ended(self, joined: Joined) -> None:
        """Publish a WebSocket that passed through."""
        code = joined.code if joined.code in TOLD_CODES else "other"
        self.route(joined.route).websocket_ends[joined.cause, joined.by, str(code)] += 1
        level = logging.INFO if joined.cause in ("closed", "drain") else logging.WARNING
        self._lines.write(level, "websocket", joined)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; prometheus-client calls this at each scrape."""
        if self.settle is not None:
            self.settle()
        yield from self._per_route()
        yield from self._histograms()
        yield from self._process()

    def describe(self) -> Iterable[Metric]:
        """Nothing to describe ahead of a scrape."""
        return ()

    def _per_route(self) -> Iterator[Metric]:
        for name, help_text, read in GAUGES:
            gauge = GaugeMetricFamily(name, help_text, labels=["route"])
            for route, stats in self.routes.items():
                gauge.add_metric([route], read(stats))
            yield gauge
        for name, help_text, read in COUNTERS:
            counter = CounterMetricFamily(name, help_text, labels=["route"])
            for route, stats in self.routes.items():
                counter.add_metric([route], read(stats))
            yield counter
        for name, help_text, labels, rows in LABELLED:
            counter = CounterMetricFamily(name, help_text, labels=["route", *labels])
            for route, stats in self.routes.items():
                for values, count in rows(stats).items():
                    key = values if isinstance(values, tuple) else (values,)
                    counter.add_metric([route, *map(str, key)], count)
            yield counter

    def _histograms(self) -> Iterator[Metric]:
        for name, help_text, read in HISTOGRAMS:
            family = HistogramMetricFamily(name, help_text, labels=["route"])
            for route, stats in self.routes.items():
                histogram = read(stats)
                family.add_metric([route], histogram.buckets(), histogram.total)
            yield family

    def _process(self) -> Iterator[Metric]:
        errors = CounterMetricFamily(
            "sidecar_upstream_errors", "Requests that got no response", labels=["upstream", "kind"]
        )
        for (upstream, kind), count in self.upstream_errors.items():
            errors.add_metric([upstream, kind], count)
        yield errors
        yield CounterMetricFamily(
            "sidecar_misrouted_requests", "Requests for a stream of another node", value=self.misrouted
        )
        reloads = CounterMetricFamily("sidecar_config_reloads", "Attempts to reload", labels=["outcome"])
        for outcome in ("loaded", "refused"):
            reloads.add_metric([outcome], self.reloads[outcome])
        yield reloads
        yield GaugeMetricFamily(
            "sidecar_config_loaded_timestamp_seconds", "When the configuration in force was loaded",
            value=self.config_loaded_at,
        )  # fmt: skip
        yield GaugeMetricFamily("sidecar_draining", "1 while shutting down", value=float(self.draining))
        if self.store is not None:
            yield from _store_metrics(self.store())


def _store_metrics(store: StoreFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily("sidecar_log_bytes", "Bytes held in logs", value=store.bytes)
    yield GaugeMetricFamily("sidecar_log_max_bytes", "Bound of the bytes in logs", value=store.max_bytes)
    yield GaugeMetricFamily("sidecar_logs", "Logs held, running and finished", value=store.streams)
    yield GaugeMetricFamily("sidecar_tombstones", "Dropped streams remembered", value=store.tombstones)
    yield CounterMetricFamily("sidecar_log_evictions", "Logs dropped before their time", value=store.evicted)


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


def configure_logging(settings: LogSettings) -> None:
    """Write log lines to stderr, ours and the libraries': JSON, or for people where stderr is a terminal.

    Libraries are heard from warnings on. A stderr that cannot be written to never breaks a stream.

    Our own lines do not take the way through the standard library's logging, which is the libraries':
    one is written for every stream, and that way would cost more than the rest of a short stream's end.
    """
    level = getattr(logging, settings.level.upper())
    people = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    rendered = _rendered(people)
    structlog.configure(
        processors=[_what_first, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: STDERR,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _what_first, *rendered],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger(LOGGER).setLevel(level)
    logging.captureWarnings(True)


class Stderr:
    """Takes finished lines to stderr. A line that nobody takes is lost, and breaks nothing.

    Those of streams and requests, of which there are many, wait for a moment and leave together:
    ``waiting`` holds when each was told (seconds since the epoch), its level, its event and its facts.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[tuple[float, int, str, Told]] = []

    def write(self, line: str) -> None:
        """Write one line, behind those that wait. (A stream that somebody has closed raises ValueError.)"""
        if self.waiting:
            self.flush()
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = write

    def write_soon(self, level: int, event: str, facts: Told) -> None:
        """Write a line of ``facts`` in JSON, within LINES_TOGETHER."""
        self.waiting.append((time.time(), level, event, facts))
        if len(self.waiting) == 1:
            asyncio.get_running_loop().call_later(LINES_TOGETHER, self.flush)
        elif len(self.waiting) >= MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        lines, self.waiting = self.waiting, []
        if lines:
            self.write("\n".join(_json_line(*line) for line in lines))


#: So long the line of a stream or a request may wait for others, in seconds, and so many may wait. A write
#: for each of them would be a tenth of what a short stream costs.
LINES_TOGETHER = 0.1
MOST_LINES = 1000


class _Lines:
    """Writes the lines of streams and requests, in JSON without structlog's steps.

    Those are made for lines to which anybody may add; for these they would take five times as long.
    Other forms than ours are structlog's to render, at once.
    """

    __slots__ = ("_log", "_processors")

    def __init__(self) -> None:
        self._log = structlog.get_logger(LOGGER).bind()
        self._processors = structlog.get_config()["processors"]

    def write(self, level: int, event: str, facts: Told) -> None:
        """Write a line of ``facts``."""
        if not self._log.is_enabled_for(level):
            return
        if self._processors[-1] is _as_json:
            STDERR.write_soon(level, event, facts)
        else:
            self._log.log(level, event, **msgspec.structs.asdict(facts))


def _json_line(at: float, level: int, event: str, facts: Told) -> str:
    when, word = _iso(datetime.fromtimestamp(at, UTC)), LEVELS[level]
    with contextlib.suppress(UnicodeEncodeError):
        told = msgspec.json.format(_ENCODER.encode(facts), indent=0)
        if told.isascii():
            return f'{{"timestamp": "{when}", "level": "{word}", "event": "{event}", {told[1:].decode()}'
    line = {"timestamp": when, "level": word, "event": event, **msgspec.structs.asdict(facts)}
    return _as_json(None, "", line)


LEVELS = {logging.INFO: "info", logging.WARNING: "warning"}

#: This process's; what waits in it leaves at the latest when the process ends.
STDERR = Stderr()
atexit.register(STDERR.flush)


def _rendered(for_people: bool) -> list[Processor]:
    if for_people:
        return [structlog.dev.ConsoleRenderer()]
    return [structlog.processors.format_exc_info, _as_json]


def _what_first(_logger: Any, method: str, line: EventDict) -> EventDict:
    """Begin a line with when and what: people read JSON too."""
    return {"timestamp": _iso(datetime.now(UTC)), "level": method, "event": line.pop("event"), **line}


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


_ENCODER = msgspec.json.Encoder(enc_hook=repr)


def _as_json(_logger: Any, _method: str, line: EventDict) -> str:
    r"""Return a line as JSON in ASCII, spaced for reading.

    Text that is not ASCII (what a client wrote into its path, say) takes the slow way, which escapes it:
    it may hold what cannot be encoded (``\udcff``) and what a terminal would obey (``\x9b``).
    """
    with contextlib.suppress(UnicodeEncodeError):
        encoded = msgspec.json.format(_ENCODER.encode(line), indent=0)
        if encoded.isascii():
            return encoded.decode()
    return json.dumps(line, default=repr)
