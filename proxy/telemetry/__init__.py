"""What happened to a stream, told two ways: metrics, and one log line.

Nothing here is called per event. A relay counts in plain integers, in the ``RouteStats`` that all
streams of its route share (``counters``); Prometheus reads them when it scrapes (``exposition``), and
the line is written when the stream ends (``lines``). Then, too, what a model's stream told of itself
is counted (``answers``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from proxy.config import Config
from proxy.errors import UpstreamError
from proxy.telemetry import answers, exposition
from proxy.telemetry.answers import Answer, Answers
from proxy.telemetry.counters import METHODS, TOLD_CODES, ProcessStats, RouteStats, StoreFigures
from proxy.telemetry.lines import LOGGER, Facts, Joined, Lines, Visited, configure_logging

__all__ = [
    "Answer", "Facts", "Joined", "RouteStats", "StoreFigures", "Telemetry", "Visited", "configure_logging",
]  # fmt: skip


class Telemetry:
    """The process's metrics and its log. ``tells_requests``: the log has a line for plain requests too."""

    def __init__(self) -> None:
        self.tells_requests = False
        self.routes: dict[str, RouteStats] = {}
        self.answers: dict[str, Answers] = {}  # by route; those that had any
        self.process = ProcessStats()
        self.store: Callable[[], StoreFigures] | None = None
        self.settle: Callable[[], None] | None = None  # counts for the routes what streams have counted
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self.log = structlog.get_logger(LOGGER)
        self._lines = Lines()

    def configure(self, config: Config) -> None:
        """Tell what a configuration wants told. Routes count from zero, not from their first request."""
        self.tells_requests = config.log.requests
        self.log = structlog.get_logger(LOGGER).bind()  # now, and not anew for every line
        self._lines = Lines()
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
        self.process.upstream_errors[upstream, error.kind] += 1
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

    def answered(self, route: str, answer: Answer) -> None:
        """Count what a model's stream has told of itself, at its end."""
        if route not in self.answers:
            self.answers[route] = Answers()
        self.answers[route].count(answer)

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
        yield from exposition.of_routes(self.routes)
        yield from answers.families(self.answers)
        yield from exposition.of_process(self.process)
        if self.store is not None:
            yield from exposition.of_store(self.store())

    def describe(self) -> Iterable[Metric]:
        """Nothing to describe ahead of a scrape."""
        return ()
