"""One timer for everything that waits: heartbeats, idle and total limits, linger, keep.

A server with ten thousand open streams has twenty thousand deadlines, nearly all of which move
before they are reached. So nobody reschedules anything when an event passes: an alarm rings at the
earliest moment at which something *could* be due, looks, and names the next such moment.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable

#: Alarms due within this many seconds of each other ring together, in one wake-up of the loop.
GRAIN = 0.005

#: Rebuild the heap when it holds more than this many dead entries, and they are the majority.
MAX_DEAD = 1000


class Alarm:
    """Something to be looked at when it may be due.

    ``ring(now)`` returns the next moment to look (monotonic seconds), or None for never.
    """

    __slots__ = ("entry", "ring")

    def __init__(self, ring: Callable[[float], float | None]) -> None:
        self.ring: Callable[[float], float | None] | None = ring
        self.entry: Entry | None = None  # its place in the wheel while it is set


#: When, in which order among equals, and what.
Entry = tuple[float, int, Alarm]


class Wheel:
    """Rings alarms, all from one timer of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[Entry] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf  # the timer's moment; uvloop's handles cannot be asked for it
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def set(self, alarm: Alarm, due: float) -> None:
        """Let ``alarm`` ring at ``due`` or, if it is to ring before that anyway, then."""
        if due == math.inf or alarm.ring is None:
            return
        if alarm.entry is not None:
            if alarm.entry[0] <= due:
                return
            self._dead += 1
        alarm.entry = (due, next(self._order), alarm)
        heapq.heappush(self._heap, alarm.entry)
        self._schedule()

    def drop(self, alarm: Alarm) -> None:
        """Never ring ``alarm`` again, and let go of what it would have called."""
        alarm.ring = None
        if alarm.entry is not None:
            alarm.entry = None
            self._dead += 1
            if self._dead > MAX_DEAD and self._dead * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].entry is entry]
                heapq.heapify(self._heap)
                self._dead = 0

    def close(self) -> None:
        """Stop for good."""
        self._heap.clear()
        self._dead = 0
        self._rings_at = -math.inf  # as if a timer ran: no other is made
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        if not self._heap:
            return
        due = self._heap[0][0]
        if self._rings_at <= due + GRAIN:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._ring)
        self._rings_at = due

    def _ring(self) -> None:
        """Ring what is due. An alarm that fails is reported by the loop, and silences no other."""
        self._timer, self._rings_at = None, -math.inf  # what is set meanwhile needs no timer of its own
        try:
            self._ring_due(self._loop.time())
        finally:
            self._rings_at = math.inf
            self._schedule()

    def _ring_due(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now + GRAIN:
            entry = heapq.heappop(self._heap)
            alarm = entry[2]
            if alarm.entry is not entry or alarm.ring is None:
                self._dead -= 1
                continue
            alarm.entry = None
            again = alarm.ring(now)
            if again is not None:
                self.set(alarm, max(again, now + 2 * GRAIN))
