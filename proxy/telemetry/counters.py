"""What is counted while streams run: plain integers, and histograms that cost little."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

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


class ProcessStats:
    """Everything counted that is no route's."""

    __slots__ = ("config_loaded_at", "draining", "misrouted", "reloads", "started", "upstream_errors")

    def __init__(self) -> None:
        self.reloads: Counter[str] = Counter()  # by outcome
        self.started = 0.0  # seconds since the epoch
        self.config_loaded_at = 0.0  # the same
        self.draining = False
        self.upstream_errors: Counter[tuple[str, str]] = Counter()  # (upstream, kind)
        self.misrouted = 0  # requests for a stream that another node holds


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """The store at this moment; ``evicted`` since the start."""

    bytes: int
    max_bytes: int
    streams: int
    tombstones: int
    evicted: int
