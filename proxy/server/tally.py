"""What is counted of one stream, and of its route at the same time.

Plain additions, no calls into a metrics library: some of them happen for every read of the upstream. What
happens for every event is counted once, here, and for the route when somebody looks: ``settle``.
"""

from __future__ import annotations

from proxy.telemetry import RouteStats


class Tally:
    """One stream's counters. ``began`` is the loop's time of its request.

    Sizes are in bytes, times in seconds. ``last_sent`` is the loop's time of the last read that had
    something to send. ``readers`` counts all there ever were.
    """

    __slots__ = (
        "_began",
        "_bytes",
        "_events",
        "_gaps",
        "_stats",
        "bytes_in",
        "bytes_out",
        "drops",
        "first_event",
        "heartbeats",
        "last_sent",
        "longest_gap",
        "pauses",
        "readers",
        "replayed",
        "resumes",
    )

    def __init__(self, stats: RouteStats, began: float) -> None:
        self._stats = stats
        self._began = began
        self._gaps = stats.gaps
        self._events = self._bytes = 0  # so much of what follows has been counted for the route
        self.last_sent = began
        self.first_event: float | None = None
        self.longest_gap = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.readers = 0
        self.resumes = 0
        self.replayed = 0
        self.heartbeats = 0
        self.pauses = 0
        self.drops = 0

    def logged(self, now: float) -> None:
        """Count the time of a read with events."""
        if self.first_event is None:
            self.first_event = now - self._began
            self._stats.first_events.observe(self.first_event)
            return
        gap = now - self.last_sent
        self._gaps.observe(gap)
        if gap > self.longest_gap:
            self.longest_gap = gap

    def read_one(self, now: float, size: int) -> None:
        """Count a read of ``size`` bytes that was one event, not the stream's first: the hot path."""
        self.bytes_in += size
        gap = now - self.last_sent
        self.last_sent = now
        self._gaps.observe(gap)
        if gap > self.longest_gap:
            self.longest_gap = gap

    def settle(self, events: int) -> None:
        """Count for the route what was only counted here: the stream now has so many ``events``."""
        stats = self._stats
        stats.events += events - self._events
        stats.bytes += self.bytes_out - self._bytes
        self._events, self._bytes = events, self.bytes_out

    def ended(self, now: float) -> None:
        """Count the silence before the end."""
        if self.first_event is not None:
            self.longest_gap = max(self.longest_gap, now - self.last_sent)

    def wrote(self, size: int) -> None:
        """Count bytes of events that were given to a reader that is not live."""
        self.bytes_out += size
        self._bytes += size
        self._stats.bytes += size

    def beat(self) -> None:
        """Count a heartbeat."""
        self.heartbeats += 1
        self._stats.heartbeats += 1

    def paused(self) -> None:
        """Count that the upstream is not read for a while."""
        self.pauses += 1
        self._stats.pauses += 1

    def resumed(self, outcome: str) -> None:
        """Count a reader that came back and was served."""
        self.resumes += 1
        self._stats.resumes[outcome] += 1

    def dropped(self, cause: str) -> None:
        """Count a reader whose connection we ended before it had everything."""
        self.drops += 1
        self._stats.drops[cause] += 1

    def reader_came(self) -> None:
        """Count a reader in."""
        self.readers += 1
        self._stats.readers += 1

    def reader_left(self, replayed: int) -> None:
        """Count a reader out, and the blocks it was given that were older than itself."""
        self._stats.readers -= 1
        self.replayed += replayed
        self._stats.replayed += replayed
