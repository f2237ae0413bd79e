"""Drop and resume, cancel, and the WebSocket at the same URL."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.doctor.evidence import Arrival, Head, Stream
from proxy.doctor.finding import Figures, Finding, Verdict, fault, many, ok, spoken, unseen, warning
from proxy.doctor.head import EVENT_STREAM, is_sidecars, media_type, stream_id_of
from proxy.stream.cursor import node_of, parse

ROUTE_STREAMS = (
    "the edge must send /_streams/ to the sidecars, unbuffered as the streams themselves; where it strips a "
    "prefix, public_path in the sidecar's configuration tells it"
)

STICKY = (
    "a resume must reach the sidecar that holds the stream: node: in each sidecar's configuration and the "
    "shipped nginx template's map of it, or stickiness by cookie or address at the balancer"
)

#: Seconds without a byte of what had come before, after which a resume has brought what it brings; and those
#: in which a cancelled stream must end. Only a fault waits so long: a busy machine is none.
RESUME_TIMEOUT, CANCEL_TIMEOUT = 5.0, 5.0


@dataclass(frozen=True, slots=True)
class Resumed:
    """What came of a resume behind event ``after`` (counted from 1 in the first connection's events).

    ``problem`` is the sidecar's word for a refusal. ``stream`` is None where nothing came at all.
    """

    after: int
    stream: Stream | None
    problem: str = ""
    failure: str = ""


def judge_resume(first: Stream, resumed: Resumed | None) -> Finding:
    """Whether a reader that dropped gets every event once."""
    finding = _judge_resume(first, resumed)
    if finding.verdict is not Verdict.OK and first.abandoned:
        said = "the stream is cancelled when its reader leaves (linger): there is nothing left to resume"
        return unseen("resume", said, **finding.evidence)
    return finding


def _judge_resume(first: Stream, resumed: Resumed | None) -> Finding:
    lost = sum(poll.kind == "unknown-stream" for poll in first.polls)
    figures: Figures = {"polls": len(first.polls), "polls_lost": lost}
    if resumed is None:
        return unseen("resume", _why_not(first), **figures)
    if resumed.stream is None:
        said = f"no answer to a resume: {resumed.failure}"
        return fault("resume", said, ROUTE_STREAMS, **figures)
    head = resumed.stream.head
    figures |= {"status": head.status, "after": resumed.after}
    streams = head.status == 200 and media_type(head) == EVENT_STREAM
    if not streams and head.status != 204:
        return _refused(first, resumed, head, figures)
    if lost:
        asked = len(first.polls) + 1  # the resume itself
        said = f"it worked, but {lost} of {asked} requests below /_streams/ met a sidecar without the stream"
        return fault("resume", said, STICKY, **figures)
    return _compared(first, resumed, resumed.stream, figures)


def _why_not(first: Stream) -> str:
    if not first.arrivals:
        return "no event came, so that there is nothing to resume from"
    if first.method != "GET":
        return f"no sidecar's stream, and a second {first.method} might be paid for"
    return "its events have no ids"


def _refused(first: Stream, resumed: Resumed, head: Head, figures: Figures) -> Finding:
    if resumed.problem == "unknown-stream":
        said = f"{head.status}: another sidecar answered, which does not hold the stream"
        node = node_of(stream_id_of(first) or "")
        if node is not None:
            said += f"; the id names node {node}, which the edge does not heed, or maps to another sidecar"
        return fault("resume", said, STICKY, **figures)
    if resumed.problem == "gap":
        said = f"{head.status}: the log holds less than this reader was behind"
        mend = "replay.max_events and replay.max_bytes, or gap: signal"
        return warning("resume", said, mend, **figures)
    if resumed.problem:
        mend = "docs/wire.md, Resume, tells what each answer means"
        return fault("resume", f"{head.status}, the sidecar says: {resumed.problem}", mend, **figures)
    if is_sidecars(first):
        kind = f" {media_type(head)}" if head.status == 200 else ""
        said = f"{head.status}{kind} from somebody who is no sidecar: the edge does not route /_streams/"
        return fault("resume", said, ROUTE_STREAMS, **figures)
    mend = "an app that writes ids should go on behind Last-Event-ID; or let a sidecar do it"
    return warning("resume", f"{head.status} to a GET with Last-Event-ID", mend, **figures)


def _compared(first: Stream, resumed: Resumed, again: Stream, figures: Figures) -> Finding:
    """Both connections have some events in common, by which they can be held against each other."""
    known = first.arrivals[resumed.after :]
    came = again.arrivals
    if not known and not came:
        return ok("resume", "at the end already: nothing came twice", **figures)
    if not came:
        return _lacking(known, again, figures)
    figures |= {"replayed": len(came)}
    if not is_sidecars(first):
        return _compared_ids(first, resumed.after, came, figures)
    pairs = enumerate(zip(known, came, strict=False))
    wrong = next((index for index, (before, now) in pairs if not _same(before, now)), None)
    if wrong is not None:
        return _misplaced(first, resumed.after, wrong, came, figures)
    cursors = [cursor.seq for arrival in came if arrival.id and (cursor := parse(arrival.id))]
    if cursors != list(range(cursors[0], cursors[0] + len(cursors)) if cursors else []):
        return fault(
            "resume", "the resumed stream's numbers jump", "nothing between may drop events", **figures
        )
    if len(came) < len(known):
        return _lacking(known, again, figures)
    said = f"dropped, resumed behind event {resumed.after}: {len(came)} events, no gap, none twice"
    return ok("resume", said, **figures)


def _lacking(known: tuple[Arrival, ...], again: Stream, figures: Figures) -> Finding:
    """Less came than was due: it is held, or a slow line was still at it when we left."""
    came, took = len(again.arrivals), spoken(again.until - again.headed)
    if _under_way(again):
        said = f"{came} of {many(len(known), 'event')} came again in {took}, and the next was under way"
        return unseen("resume", said, **figures)
    said = f"only {came} of {len(known)} events that had come before came again"
    if not came:
        said = f"nothing came within {took}, though {many(len(known), 'event')} were due"
    return fault("resume", said, "the replay does not leave the edge: see buffering", **figures)


def _under_way(stream: Stream) -> bool:
    """Whether we left while an event was coming in, piece by piece."""
    if stream.ending is not None or not stream.reads or not stream.reads[-1].cut:
        return False
    return stream.until - stream.reads[-1].at < RESUME_TIMEOUT / 2


def _misplaced(first: Stream, after: int, wrong: int, came: tuple[Arrival, ...], figures: Figures) -> Finding:
    """An event came that was not due."""
    if after and _same(first.arrivals[0], came[0]):
        said = f"it began at event 1 in place of {after + 1}: Last-Event-ID was dropped on the way"
        mend = (
            "let Last-Event-ID pass: no proxy_set_header Last-Event-ID in nginx, no list of allowed headers"
        )
        return fault("resume", said, mend, **figures)
    said = f"event {after + wrong + 1} is another one than before: events are lost, or come twice"
    return fault("resume", said, "nothing between may answer a resume from a cache", **figures)


def _same(one: Arrival, other: Arrival) -> bool:
    return one.digest == other.digest and one.id == other.id


def _compared_ids(first: Stream, after: int, came: tuple[Arrival, ...], figures: Figures) -> Finding:
    """An app's own resume, by ids alone: its data may tell the time of day. None of it is a fault."""
    mend = "an app that writes ids should go on behind Last-Event-ID; or let a sidecar do it"
    due, got = [each.id for each in first.arrivals[after:]], [each.id for each in came]
    if got[0] == first.arrivals[0].id:
        return warning("resume", "Last-Event-ID had no effect: the stream begins anew", mend, **figures)
    if got[: len(due)] != due[: len(got)]:
        return warning("resume", "other events came than those behind Last-Event-ID", mend, **figures)
    said = f"the app resumed behind event {after}: {len(came)} events, no gap, none twice"
    return ok("resume", said, **figures)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer to a cancel, and how many seconds later the stream had ended (None: not in time).

    ``told``: it was a sidecar's own, with the stream's state.
    """

    status: int
    problem: str = ""
    ended_after: float | None = None
    told: bool = False


def judge_cancel(cancelled: Cancelled | None, why_not: str = "") -> Finding:
    """Whether the stop button stops."""
    if cancelled is None:
        return unseen("cancel", why_not)
    figures: Figures = {
        "status": cancelled.status,
        "ended_after": None if cancelled.ended_after is None else round(cancelled.ended_after, 3),
    }
    if cancelled.status == 200 and cancelled.told:
        return unseen("cancel", "200: it had ended by itself before", **figures)
    if not (cancelled.status == 202 and cancelled.told):
        word = f" ({cancelled.problem})" if cancelled.problem else ""
        unrouted = f"{ROUTE_STREAMS}; and let POST and DELETE pass"
        mend = STICKY if cancelled.problem == "unknown-stream" else unrouted
        return fault(
            "cancel", f"{cancelled.status or 'no answer'}{word}: stop does not stop", mend, **figures
        )
    if cancelled.ended_after is None:
        said = f"202, but the reader's stream did not end within {spoken(CANCEL_TIMEOUT)}"
        return fault("cancel", said, "something on the way keeps the connection: see buffering", **figures)
    return ok("cancel", f"202, and the stream ended {spoken(cancelled.ended_after)} later", **figures)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The answer to a WebSocket handshake; ``right`` tells whether its accept value fits the key."""

    head: Head | None
    right: bool = False
    text: str = ""
    failure: str = ""


#: Words in which servers say that they did not see an Upgrade.
MISSED = ("upgrade", "websocket")

UPGRADE_MEND = (
    "the route needs websocket: bridge; nginx: proxy_http_version 1.1, proxy_set_header Upgrade "
    "$http_upgrade and Connection $connection_upgrade (by a map); Apache: upgrade=websocket; ALB and Caddy "
    "need nothing"
)


def judge_websocket(seen: Upgrade | None, *, required: bool, direct: Upgrade | None = None) -> Finding:
    """Whether the URL answers a WebSocket handshake."""
    if seen is None:
        return unseen("websocket", "not asked: a GET there might begin a second stream (--websocket asks)")
    if seen.head is None:
        return (fault if required else warning)("websocket", f"no answer: {seen.failure}", UPGRADE_MEND)
    status = seen.head.status
    if status == 101:
        if seen.right:
            return ok("websocket", "101, Sec-WebSocket-Accept fits", status=status)
        return fault(
            "websocket", "101, but Sec-WebSocket-Accept does not fit the key", UPGRADE_MEND, status=status
        )
    lost = status in (400, 426) and any(word in seen.text.lower() for word in MISSED)
    if direct is not None and direct.head is not None and direct.head.status == 101:
        said = f"{status}, and 101 at the origin: Upgrade was lost on the way"
        return fault("websocket", said, UPGRADE_MEND, status=status)
    if lost:
        said = f"{status}: whoever answered wants an Upgrade, which we sent: it was lost on the way"
        return (fault if required else warning)("websocket", said, UPGRADE_MEND, status=status)
    said = f"{status}: not offered here, or the Upgrade was lost on the way"
    return (
        fault("websocket", said, UPGRADE_MEND, status=status)
        if required
        else unseen("websocket", said, status=status)
    )
