"""Reads that come together, and what their sizes say about a buffer that let them go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from proxy.doctor.evidence import Stream

#: Reads less than this apart, in seconds, came in one instant; but no instant lasts longer than the second.
APART = 0.010
INSTANT = 0.050

#: A lump is held, not merely a burst of a quick sender, when nothing came for so many seconds before it …
SILENCE = 0.100

#: … and it brings so many events.
HELD_EVENTS = 3

#: Buffers of proxies, of frameworks and of sockets, in bytes.
BUFFERS = (4096, 8192, 16384, 32768, 65536)

#: A buffer holds chunk sizes beside the body, so that its lump is shorter by up to this share.
FRAMING_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class Lump:
    """What came in one instant, after ``wait`` seconds of silence; ``cut``: it ends inside an event."""

    at: float
    wait: float
    size: int
    events: int
    cut: bool

    @property
    def held(self) -> bool:
        """Whether it looks as if it had been collected."""
        return self.events >= HELD_EVENTS and self.wait >= SILENCE


def lumps_of(stream: Stream) -> list[Lump]:
    """Cut a stream's reads into instants."""
    groups: list[list[int]] = []
    reads = stream.reads
    for index, read in enumerate(reads):
        together = bool(groups) and (
            read.at - reads[index - 1].at < APART and read.at - reads[groups[-1][0]].at < INSTANT
        )
        if together:
            groups[-1].append(index)
        else:
            groups.append([index])
    counts: dict[float, int] = {}
    for arrival in stream.arrivals:
        counts[arrival.at] = counts.get(arrival.at, 0) + 1
    lumps: list[Lump] = []
    before = stream.headed
    for group in groups:
        first, last = reads[group[0]], reads[group[-1]]
        times = {reads[index].at for index in group}
        events = sum(counts.get(at, 0) for at in times)
        size = sum(reads[index].size for index in group)
        lumps.append(Lump(first.at, stream.awake(before, first.at), size, events, last.cut))
        if events or last.cut:  # a heartbeat is no end of a silence: whoever holds events may let it pass
            before = last.at
    return lumps


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the arrival times alone tell: ``in_held`` events came in ``held`` lumps, after silence each.

    ``longest`` is the longest of these silences. ``opening`` events came at once with the head.
    """

    events: int
    lumps: int
    held: int
    in_held: int
    cuts: int
    buffer: int | None
    opening: int
    silence: float
    at_once: bool
    longest: float

    @property
    def fingerprint(self) -> str:
        """The trace that a buffer left, in words; empty where there is none."""
        if self.buffer is not None:
            cut = ", most of them ending inside an event" if self.cuts else ""
            return f"lumps of about {self.buffer} bytes{cut}"
        if self.cuts >= 2:
            return f"{self.cuts} lumps end inside an event"
        return ""


def pattern_of(stream: Stream) -> Pattern:
    """Look at a stream's lumps."""
    lumps = lumps_of(stream)
    held = [lump for lump in lumps if lump.held]
    # A lump that ends inside an event, the rest of which comes after a silence: no sender writes so.
    cuts = sum(lump.cut and after.wait >= SILENCE for lump, after in pairwise(lumps))
    carrying = [lump for lump in lumps if lump.events]
    return Pattern(
        events=len(stream.arrivals),
        lumps=len(carrying),
        held=len(held),
        in_held=sum(lump.events for lump in held),
        cuts=cuts,
        buffer=buffer_of(lumps) if len(held) >= 2 else None,
        opening=carrying[0].events if carrying and not carrying[0].held else 0,
        silence=max(lump.at for lump in lumps[:1]) - stream.asked if lumps else 0.0,
        longest=max((lump.wait for lump in held), default=0.0),
        at_once=bool(carrying) and len(carrying) <= 2 and stream.ending is not None,
    )


def buffer_of(lumps: Sequence[Lump]) -> int | None:
    """The buffer whose size the lumps have, or None.

    The last lump is what was left, and the first shares its buffer with the head; all others must fit.
    """
    inner = lumps[1:-1] if len(lumps) > 3 else lumps[:-1]
    if len(inner) < 2 or not all(lump.held for lump in inner):
        return None
    for size in BUFFERS:
        if all(size * (1 - FRAMING_SHARE) <= lump.size <= size for lump in inner):
            return size
    return None
