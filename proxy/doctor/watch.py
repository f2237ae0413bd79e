"""Watching a stream: for how long, and when enough was seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from proxy.doctor.ask import SAMPLE_BYTES
from proxy.doctor.dial import Exchange, clock
from proxy.doctor.head import EVENT_STREAM, media_type
from proxy.doctor.transcript import Transcript

#: So many events over so many seconds say enough about a stream's pace.
ENOUGH_EVENTS, ENOUGH_SECONDS = 50, 3.0

#: Seconds beyond a wanted silence, to see a limit of that very length strike.
IDLE_MARGIN = 0.5

#: Seconds between two beats of our own pulse, and how much later than due a beat must be to count.
PULSE, STALL = 0.02, 0.01

#: Stalls that are kept in mind.
MAX_STALLS = 20_000


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to watch: ``seconds`` since the head, or until ``idle`` seconds without an event."""

    seconds: float = 10.0
    idle: float | None = None

    def satisfied(self, seen: Transcript, headed: float) -> bool:
        """Whether there is nothing more to wait for."""
        if seen.full or _is_no_stream(seen):
            return True
        times = [arrival.at for arrival in seen.arrivals[-2:]]
        if not times:
            return False
        if self.idle is not None:
            return times[-1] - [headed, *times][-2] >= self.idle
        return len(seen.arrivals) >= ENOUGH_EVENTS and times[-1] - seen.arrivals[0].at >= ENOUGH_SECONDS

    def leaves_at(self, seen: Transcript, headed: float) -> float:
        """When to leave if nothing more comes."""
        if self.idle is None:
            return headed + self.seconds
        last = seen.arrivals[-1].at if seen.arrivals else headed
        return min(last, headed + self.seconds) + self.idle + IDLE_MARGIN


def _is_no_stream(seen: Transcript) -> bool:
    size = sum(read.size for read in seen.reads[:100])
    return not seen.arrivals and media_type(seen.head) != EVENT_STREAM and size >= SAMPLE_BYTES


async def watch(
    exchange: Exchange,
    seen: Transcript,
    patience: Patience,
    note: Callable[[Transcript], None] = lambda seen: None,
) -> None:
    """Read until enough was seen, time is over, or the end; ``note`` is called after each read."""
    pulse = asyncio.create_task(_feel_pulse(seen), name="pulse")
    try:
        await _watch(exchange, seen, patience, note)
    finally:
        pulse.cancel()


async def _feel_pulse(seen: Transcript) -> None:
    """Find out when this process is kept from looking: a busy machine must not be taken for a proxy."""
    while True:
        due = clock() + PULSE
        await asyncio.sleep(PULSE)
        if (awake := clock()) - due >= STALL and len(seen.stalls) < MAX_STALLS:
            seen.stalls.append((due, awake))


async def _watch(
    exchange: Exchange, seen: Transcript, patience: Patience, note: Callable[[Transcript], None]
) -> None:
    while not patience.satisfied(seen, exchange.headed):
        try:
            async with asyncio.timeout(patience.leaves_at(seen, exchange.headed) - clock()):
                data = await exchange.read()
        except TimeoutError:
            return
        if not data:
            return
        seen.receive(data, clock())
        note(seen)
