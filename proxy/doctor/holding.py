"""Does something on the way hold events back?

A lump proves nothing: senders burst. What proves it is the sender's own pace, from the best source there is:

1. *direct*: the same request, sent to the origin at the same time;
2. *state*: a sidecar behind the edge says in ``/_streams/ID/state`` how much of this very stream it has sent;
3. *stamps*: the events say when they were made;
4. *pattern*: nothing but the arrival times. Then only a buffer's own trace is believed to be a fault: lumps
   of its size, or lumps that end inside an event whose rest comes later.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from statistics import median

from proxy.doctor.edge import ANY_BUFFERING, mend_buffering
from proxy.doctor.evidence import Head, Stream
from proxy.doctor.finding import Figures, Finding, fault, many, ok, spoken, unseen, warning
from proxy.doctor.lump import SILENCE, Pattern, pattern_of
from proxy.stream.cursor import parse

CHECK = "buffering"

#: Seconds that an event may be late for reasons of its own: a busy machine, a retransmission.
LATE = 0.3

#: Seconds of lateness that need no second witness.
VERY_LATE = 1.0

#: What is on its way while the sidecar answers counts as received, for so many seconds.
IN_FLIGHT = 0.05

#: Events that the sidecar must be ahead by, in so many polls and in so large a share of them.
AHEAD_EVENTS = 3
AHEAD_POLLS = 3
AHEAD_SHARE = 0.5

#: Seconds between an event's making and our asking that are taken for clocks that differ.
CLOCK_SKEW = 5.0

#: Fewer events than this make no pattern.
ENOUGH = 20

#: A pattern is doubtful when such a share of all events came in held lumps of so many events.
HELD_SHARE = 0.8
HELD_MEAN = 5

#: Seconds without anything, after which everything at once is doubtful.
LONG_SILENCE = 2.0


@dataclass(frozen=True, slots=True)
class Pace:
    """What one source says: how late events were (seconds; the worst, the typical), and how many."""

    source: str
    held: bool
    late: float = 0.0
    typical: float = 0.0
    events: int = 0
    said: str = ""


def judge(stream: Stream, direct: Stream | None = None) -> Finding:
    """Judge by the best source that has something to say."""
    pattern = pattern_of(stream)
    if stream.borrowed:
        return unseen(CHECK, "another request's stream says nothing about the way of this one")
    for pace in (by_direct(stream, direct, pattern), by_state(stream, pattern), by_stamps(stream)):
        if pace is not None:
            return _told(pace, stream.head, pattern)
    return by_pattern(stream, pattern)


def by_direct(stream: Stream, direct: Stream | None, pattern: Pattern) -> Pace | None:
    """Compare with the origin's answer to the same request.

    Two generations differ in pace and length, and a way may be long without holding anything: so events
    must not only be late, but come in larger lumps than at the origin, with silence between them.
    """
    if direct is None or not direct.arrivals:
        return None
    theirs = [arrival.at - direct.asked for arrival in direct.arrivals]
    ours = [arrival.at - stream.asked for arrival in stream.arrivals]
    watched = stream.until - stream.asked
    late = [
        stream.awake(arrival.at - max(mine - there, 0.0), arrival.at)
        for arrival, mine, there in zip(stream.arrivals, ours, theirs, strict=False)
    ]
    if stream.ending is None:
        late += [watched - there for there in theirs[len(ours) :] if there < watched]
    if not late:
        return None
    origin = pattern_of(direct)
    lumpier = _mean(pattern) >= 2 * max(_mean(origin), 1.0) and pattern.in_held >= pattern.events / 2
    worst = max(late)
    held = worst >= LATE and (lumpier or not ours)
    missing = max(sum(there <= watched - LATE for there in theirs) - len(ours), 0)
    counted = f"{many(pattern.events, 'event')} in {many(pattern.lumps, 'lump')}, "
    counted += f"{origin.events} in {origin.lumps}"
    said = f"events come as at the origin: {counted} there (asked at the same time)"
    if held:
        said = f"events come up to {spoken(worst)} late: {counted} at the origin, asked at the same time"
    return Pace("direct", held, worst, median(late), missing, said)


def by_state(stream: Stream, pattern: Pattern) -> Pace | None:
    """Compare with what the sidecar behind the edge has sent by then."""
    if not any(poll.good for poll in stream.polls):
        return None
    looks = _looks_of(stream)
    # A sidecar writes whole events, each at once: lumps that end inside one are somebody else's work.
    torn = pattern.cuts >= 2 and pattern.held >= 2 and pattern.in_held >= pattern.events / 2
    lumpy = looks.behind >= 2 and _lumpy(pattern)
    worst = max(looks.late, pattern.longest if torn or lumpy else 0.0)
    held = torn or lumpy or worst >= VERY_LATE or (looks.often and worst >= LATE)
    if not (held or looks.number):
        return None  # the stream was too short for a look
    said = f"each event came at once ({many(looks.number, 'look')} at the sidecar's state)"
    if held:
        told = f"had already sent up to {looks.ahead} more" if looks.ahead else "says so in its state"
        said = f"events come up to {spoken(worst)} late: the sidecar {told}"
    elif looks.ahead >= AHEAD_EVENTS:
        said = "nothing is held: the sidecar was ahead, but bytes came as fast as the line carries them"
    elif _lumpy(pattern):
        said += (
            f"; but the sidecar gets {pattern.events} events in {pattern.lumps} lumps, with silence between: "
            "does its upstream burst, or does something behind the sidecar hold them?"
        )
    return Pace("state", held, worst, looks.typical, looks.ahead, said)


@dataclass(frozen=True, slots=True)
class Looks:
    """What a ``number`` of looks at the state say: in ``behind`` of them the sidecar was ahead, in silence.

    ``ahead``: by how many events at most; ``often``: again and again; ``late`` and ``typical``: how long it
    took until anything came, in seconds.
    """

    number: int
    behind: int
    ahead: int
    often: bool
    late: float
    typical: float


def _looks_of(stream: Stream) -> Looks:
    received = [arrival.at for arrival in stream.arrivals]
    skipped = _seq_of_first(stream) - 1
    watched = [poll for poll in stream.polls if poll.good and poll.answered <= stream.until]
    most = behind = moving = 0
    late, sent = [_head_start(stream)], -1
    for poll in watched:
        ahead = poll.last - skipped - bisect_right(received, poll.answered + IN_FLIGHT)
        before, after = _silence_around(stream, poll.answered)
        if ahead > 0:
            late.append(after)
        # Where bytes keep coming, nothing is held: events are large, or the line is narrow.
        behind += ahead >= AHEAD_EVENTS and before + after >= SILENCE
        moving += poll.last != sent  # a sender that pauses says nothing about its pace
        most, sent = max(most, ahead), poll.last
    often = behind >= AHEAD_POLLS and behind >= AHEAD_SHARE * moving
    return Looks(len(watched), behind, most, often, max(late), median(late))


def _head_start(stream: Stream) -> float:
    """How long the sidecar had had its first event when anything came; the way there does not count."""
    first = next((poll.first_event for poll in reversed(stream.polls) if poll.first_event is not None), None)
    if first is None or stream.began is None:
        return 0.0
    came = stream.reads[0].at if stream.reads else stream.until
    return stream.awake(min(stream.began + first, came), came)


def _silence_around(stream: Stream, at: float) -> tuple[float, float]:
    """How long nothing had come at a moment, and how long nothing came from then on."""
    alive = stream.alive
    index = bisect_right(alive, at)
    following = alive[index] if index < len(alive) else stream.until
    return stream.awake(alive[max(index - 1, 0)], at), stream.awake(at, following)


def _seq_of_first(stream: Stream) -> int:
    """The number of the first event that came: not 1 where a running stream was joined."""
    cursor = parse(stream.ids[0]) if stream.ids else None
    return cursor.seq if cursor is not None else 1


def by_stamps(stream: Stream) -> Pace | None:
    """Compare with the times in the events: the one that came quickest sets the clock.

    A stamp that is older than the request is history, not lateness; one that never moves is the stream's.
    """
    stamped = [(arrival.at, arrival.stamp) for arrival in stream.arrivals if arrival.stamp is not None]
    if len(stamped) < max(5, len(stream.arrivals) // 2):
        return None
    stamps = [stamp for _, stamp in stamped]
    if len(set(stamps)) < 3 or stamps != sorted(stamps) or stamps[0] < stream.asked_wall - CLOCK_SKEW:
        return None
    grain = 1.0 if all(stamp == int(stamp) for stamp in stamps) else 0.0
    offsets = [at - stamp for at, stamp in stamped]
    quickest = min(offsets)
    delays = [(at, max(at - stamp - quickest - grain, 0.0)) for at, stamp in stamped]
    late = sorted(stream.awake(at - delay, at) for at, delay in delays)
    worst = late[-1]
    count = sum(each >= LATE for each in late)
    held = worst >= LATE and count >= 3
    said = f"each event came within {spoken(worst + grain)} of the time that stands in it"
    if held:
        counted = f"{count} of {len(late)} events"
        said = f"{counted} come late, up to {spoken(worst)}, by the times that stand in them"
    return Pace("stamps", held, worst, median(late), count, said)


def by_pattern(stream: Stream, pattern: Pattern) -> Finding:
    """The arrival times alone."""
    figures = _figures(pattern)
    if pattern.events < 3:
        said = f"{many(pattern.events, 'event')}: nothing to judge by"
        return unseen(CHECK, said, source="pattern", **figures)
    enough = pattern.events >= ENOUGH
    lumpy = enough and _lumpy(pattern)
    shape = f"{many(pattern.events, 'event')} in {many(pattern.lumps, 'lump')}"
    if lumpy and pattern.cuts + (pattern.buffer is not None) >= 2:
        said = f"{shape}: {pattern.fingerprint}"
        return fault(CHECK, said, mend_buffering(stream.head), source="pattern", **figures)
    if enough and pattern.at_once and pattern.silence >= LONG_SILENCE:
        said = f"{shape} after {pattern.silence:.1f} s of nothing, at the very end: nothing streams"
        return warning(CHECK, said, _doubt(stream.head), source="pattern", **figures)
    if lumpy:
        said = f"{shape}, with silence between them; the sender may burst"
        return warning(CHECK, said, _doubt(stream.head), source="pattern", **figures)
    said = f"{shape}: they come as they are sent, as far as arrival times tell"
    return ok(CHECK, said, source="pattern", **figures)


def judge_nothing(direct: Stream, waited: float) -> Finding:
    """The origin streams, and through the edge not even a head has come."""
    sent = many(len(direct.arrivals), "event")
    said = f"nothing for {spoken(waited)}, not even headers, while the origin sent {sent}"
    return fault(CHECK, said, ANY_BUFFERING, source="direct", late_max=round(waited, 3))


def _lumpy(pattern: Pattern) -> bool:
    """Whether nearly all events behind the first came in lumps of several, after silence each."""
    return (
        pattern.held >= 2
        and pattern.in_held >= HELD_SHARE * (pattern.events - pattern.opening)
        and pattern.in_held >= HELD_MEAN * pattern.held
    )


def _doubt(head: Head) -> str:
    return f"--direct URL of the origin tells for sure. If it does not: {mend_buffering(head)}"


def _told(pace: Pace, head: Head, pattern: Pattern) -> Finding:
    figures = _figures(pattern) | {
        "source": pace.source,
        "late_max": round(pace.late, 3),
        "late_p50": round(pace.typical, 3),
        "events_held": pace.events,
    }
    if pace.held:
        trace = f"; {pattern.fingerprint}" if pattern.fingerprint else ""
        return fault(CHECK, pace.said + trace, mend_buffering(head), **figures)
    return ok(CHECK, pace.said, **figures)


def _mean(pattern: Pattern) -> float:
    return pattern.events / pattern.lumps if pattern.lumps else 0.0


def _figures(pattern: Pattern) -> Figures:
    return {
        "events": pattern.events,
        "lumps": pattern.lumps,
        "held_lumps": pattern.held,
        "cuts_inside_events": pattern.cuts,
        "buffer": pattern.buffer,
        "fingerprint": pattern.fingerprint or None,
    }
