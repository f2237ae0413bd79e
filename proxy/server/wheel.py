"""One timer for everything that waits: heartbeats, idle and total limits, linger, keep.

A server with ten thousand open streams has twenty thousand deadlines, nearly all of which move
before they are reached. So nobody reschedules anything when an event passes: an alarm rings at the
earliest moment at which something *could* be due, looks, and names the next such moment.

Waking up costs more than looking. So alarms that are due at about the same moment stand in one slot,
and ring together when it ends: the farther away a moment is when it is set, the wider is its slot. No
alarm rings early. None rings later than by a sixty-fourth of the time for which it was set; that is
GRAIN where it would be less, and WIDEST where it would be more.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable

#: Width of the narrowest slots, in seconds. All widths are powers of two: then the multiples of one are
#: exact as floats, those of a wide one are among those of a narrow one, and slots are found by their moment.
GRAIN = 2.0**-8

#: Width of the widest slots, in seconds.
WIDEST = 2.0**-2

#: A slot is no wider than this part of the time until it rings.
PART = 1 / 64

#: uvloop's timers count in whole milliseconds, and ring up to half of one early, in seconds.
TOLERANCE = 0.001

#: Empty slots are looked for when there are more slots than this, and twice as many as were in use last time.
ROOM = 1000


class Alarm:
    """Something to be looked at when it may be due.

    ``ring(now)`` returns the next moment to look (monotonic seconds), or None for never. ``now`` is never
    before the moment for which it was set.
    """

    __slots__ = ("ring", "rings_at")

    def __init__(self, ring: Callable[[float], float | None]) -> None:
        self.ring: Callable[[float], float | None] | None = ring
        self.rings_at = math.inf  # the moment of its slot while it is set


#: Those that ring together, in the order in which they were set.
Slot = dict[Alarm, None]


class Wheel:
    """Rings alarms, all from one timer of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[float, Slot] = {}  # by the moment at which they end
        self._moments: list[float] = []  # a heap of these moments
        self._room = ROOM
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf  # the timer's moment; uvloop's handles cannot be asked for it
        self._closed = False

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def set(self, alarm: Alarm, due: float) -> None:
        """Let ``alarm`` ring at ``due`` or, if it is to ring before that anyway, then."""
        if due == math.inf or alarm.rings_at <= due or alarm.ring is None or self._closed:
            return
        width = _width(due - self._loop.time())
        moment = math.ceil(due / width) * width
        if alarm.rings_at <= moment:
            return
        self._take_out(alarm)
        alarm.rings_at = moment
        self._slot(moment)[alarm] = None
        if moment < self._rings_at:
            self._schedule()

    def drop(self, alarm: Alarm) -> None:
        """Never ring ``alarm`` again, and let go of what it would have called."""
        alarm.ring = None
        self._take_out(alarm)

    def close(self) -> None:
        """Stop for good."""
        self._closed = True
        self._slots.clear()
        self._moments.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _take_out(self, alarm: Alarm) -> None:
        slot = self._slots.get(alarm.rings_at)
        alarm.rings_at = math.inf
        if slot is not None:
            slot.pop(alarm, None)
            if not slot:
                slot.clear()  # it stays, as it is likely to be used again, but without the room it once took

    def _slot(self, moment: float) -> Slot:
        slot = self._slots.get(moment)
        if slot is None:
            if len(self._slots) >= self._room:
                self._remove_empty_slots()
            slot = self._slots[moment] = {}
            heapq.heappush(self._moments, moment)
        return slot

    def _remove_empty_slots(self) -> None:
        """Keep the slots of a far future bounded whose alarms were all dropped."""
        self._slots = {moment: slot for moment, slot in self._slots.items() if slot}
        self._moments = sorted(self._slots)  # a sorted list is a heap
        self._room = ROOM + 2 * len(self._slots)

    def _schedule(self) -> None:
        """See that there is a timer for the first slot that is not empty."""
        while self._moments and not self._slots[self._moments[0]]:
            del self._slots[heapq.heappop(self._moments)]
        if not self._moments:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._moments[0]
        self._timer = self._loop.call_at(self._rings_at, self._ring)

    def _ring(self) -> None:
        """Ring what is due by now.

        What is set for now meanwhile waits for the loop's next turn: alarms that set each other do not keep
        it from everything else.
        """
        self._timer, self._rings_at = None, -math.inf  # what is set meanwhile needs no timer of its own
        now = self._loop.time()
        for alarm in self._take_due(now + TOLERANCE):
            self._ring_one(alarm, now)
        self._rings_at = math.inf
        self._schedule()

    def _take_due(self, until: float) -> list[Alarm]:
        due: list[Alarm] = []
        while self._moments and self._moments[0] <= until:
            due.extend(self._slots.pop(heapq.heappop(self._moments)))
        return due

    def _ring_one(self, alarm: Alarm, now: float) -> None:
        """Ring it, unless another has just dropped it. One that fails is reported, and silences no other."""
        if alarm.ring is None or self._closed:
            return
        now = max(now, alarm.rings_at)  # an alarm that finds itself early would ring twice
        self._take_out(alarm)  # perhaps another has just set it for an earlier moment
        try:
            again = alarm.ring(now)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # what the loop does with a callback
            context = {"message": f"Exception in alarm {alarm.ring}", "exception": error}
            self._loop.call_exception_handler(context)
            return
        if again is not None:
            self.set(alarm, max(again, now + 2 * GRAIN))


def _width(seconds: float) -> float:
    """How wide the slot of a moment is that lies so many ``seconds`` ahead: a power of two."""
    part = seconds * PART
    if part >= WIDEST:
        return WIDEST
    if part <= GRAIN:
        return GRAIN
    return math.ldexp(0.5, math.frexp(part)[1])  # the greatest power of two that is no more than the part
