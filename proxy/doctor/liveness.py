"""Silence and ends: heartbeats, ids, what an idle connection survives, and how the stream ended."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from proxy.dialects import Dialect, Verdict, confirm, propose
from proxy.doctor.edge import mend_idle, mend_total
from proxy.doctor.evidence import Beat, Ending, Poll, Stream
from proxy.doctor.finding import Figures, Finding, fault, ok, spoken, unseen, warning
from proxy.doctor.head import is_sidecars
from proxy.stream.cursor import parse

#: Silences, in seconds, after which something well known loses patience.
LIMITS = (1.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 75.0, 100.0, 120.0, 180.0, 300.0, 350.0, 600.0)

#: How near to a limit a cut must be, as a share of it; and how much sooner it may come, in seconds: nginx
#: does not set a timer anew that would move by less than 0.3 s.
NEAR, LAZY = 0.1, 0.35

#: Shorter silences end nothing: a cut after one has another cause.
SHORTEST_CUT = 0.65

#: A stream without any sign of life for so long is cut by somebody, sooner or later.
DANGEROUS = 55.0

#: A heartbeat is due after so long, by the usual setting.
USUAL = 15.0

SDKS_THAT_BREAK = "openai-python, groq, langchain-openai and httpx-sse"


def dialect_of(stream: Stream) -> Dialect:
    """What the stream speaks: its path proposes, its first block confirms."""
    proposed = propose(stream.path)
    return confirm(proposed, stream.first) if stream.first else proposed


def judge_heartbeats(stream: Stream) -> Finding:
    """Whether signs of life come, in a form that the readers' SDKs survive."""
    forms = Counter(beat.form for beat in stream.heartbeats)
    dialect, silence = dialect_of(stream), longest_silence(stream)
    figures: Figures = {
        "seen": len(stream.heartbeats),
        "forms": [f"{form.value}: {count}" for form, count in forms.items()],
        "dialect": dialect.name,
        "longest_silence": round(silence, 3),
    }
    seen = ", ".join(f"{count} as {form.value}" for form, count in forms.items())
    if not dialect.ids_safe and (forms[Beat.LINE] or forms[Beat.BLOCK]):
        mend = "an empty line as heartbeat (the sidecar's dialect: gemini does that)"
        said = f"{seen}: Google's SDKs take a comment for JSON and break"
        return fault("heartbeats", said, mend, **figures)
    if forms[Beat.BLOCK] and stream.ids and dialect.ids_safe:
        mend = "one line end behind the comment, not two"
        said = f"{seen}, on a stream with ids: {SDKS_THAT_BREAK} take the blank line for an event"
        tell = fault if dialect.name in ("openai", "openai-responses") else warning
        return tell("heartbeats", said, mend, **figures)
    if stream.heartbeats:
        return ok("heartbeats", f"{seen}; longest silence {spoken(silence)}", **figures)
    if silence >= 2 * USUAL:
        said = f"none in {spoken(silence)} of silence: a lower idle limit on the way would have cut it"
        return warning("heartbeats", said, "a heartbeat every 15 s (the sidecar's default)", **figures)
    return unseen("heartbeats", f"none; the longest silence was {spoken(silence)}", **figures)


def judge_ids(stream: Stream) -> Finding:
    """Whether events have ids, each its own, in their order."""
    ids, events = stream.ids, len(stream.arrivals)
    cursors = [cursor for each in ids if (cursor := parse(each)) is not None]
    figures: Figures = {"events": events, "with_id": len(ids), "sidecars": len(cursors)}
    if not events:
        return unseen("ids", "no events, no ids", **figures)
    dialect = dialect_of(stream)
    if not ids:
        return _without_ids(stream, dialect, figures)
    if not dialect.ids_safe:
        return fault("ids", "Google's SDKs break on id lines", "ids: auto on the sidecar's route", **figures)
    if len(set(ids)) < len(ids):
        repeated = len(ids) - len(set(ids))
        return fault(
            "ids",
            f"{repeated} ids came twice: a reader cannot tell where it stands",
            "one id, one event",
            **figures,
        )
    if cursors and len(cursors) == events:
        steps = Counter(later.seq - earlier.seq for earlier, later in pairwise(cursors))
        if set(steps) - {1}:
            wrong = sum(count for step, count in steps.items() if step != 1)
            said = (
                f"the sidecar's numbers jump at {wrong} places: events were lost or changed places on the way"
            )
            return fault("ids", said, "nothing between may drop or reorder events", **figures)
        return ok(
            "ids", f"the sidecar's, from {cursors[0].seq} to {cursors[-1].seq} without a gap", **figures
        )
    return ok("ids", f"{len(ids)} of {events} events carry one, all different", **figures)


def _without_ids(stream: Stream, dialect: Dialect, figures: Figures) -> Finding:
    if not dialect.ids_safe:
        return ok("ids", "none, as Google's SDKs need it", **figures)
    if is_sidecars(stream):
        said = "none, though a sidecar sent it: not recorded (Link has no resume then), or ids: never"
        return warning("ids", said, "ids: auto, replay on, and room in store.memory.max_bytes", **figures)
    return unseen("ids", "none: a reader that drops cannot go on where it was", **figures)


def longest_silence(stream: Stream) -> float:
    """The longest time without a single byte, up to the end of what was watched."""
    alive = [*stream.alive, stream.until]
    return max(later - earlier for earlier, later in pairwise(alive))


def longest_wait(stream: Stream) -> float:
    """The longest time without an event; heartbeats may have filled it."""
    times = [stream.headed, *(arrival.at for arrival in stream.arrivals), stream.until]
    return max(later - earlier for earlier, later in pairwise(times))


def was_cut(stream: Stream, after: Poll | None) -> bool:
    """Whether somebody between ended it: the connection broke, or the sidecar says that it goes on."""
    if stream.ending is None:
        return False
    if stream.ending in (Ending.CUT, Ending.RESET):
        # A sidecar itself breaks off what its upstream did not finish; but "cancelled" may follow from a cut.
        return after is None or not after.good or after.runs or after.reason in ("complete", "cancelled")
    return after is not None and after.runs


def limit_near(silence: float) -> float | None:
    """The well-known limit that a cut after so much silence points at."""
    near = (each for each in LIMITS if each * (1 - NEAR) - LAZY <= silence <= each * (1 + NEAR) + LAZY)
    return min(near, key=lambda each: abs(each - silence), default=None)


def judge_idle(stream: Stream, wanted: float | None, after: Poll | None) -> Finding:
    """What silence the connection survived. ``after`` is the stream's state once the connection had ended."""
    silence, wait = longest_silence(stream), longest_wait(stream)
    last = stream.until - stream.alive[-1]
    figures: Figures = {
        "longest_silence": round(silence, 3),
        "longest_wait_for_event": round(wait, 3),
        "last_silence": round(last, 3),
        "heartbeats": len(stream.heartbeats),
        "still_runs": after.runs if after is not None and after.good else None,
    }
    if was_cut(stream, after) and last >= SHORTEST_CUT:
        limit = limit_near(last)
        of = f", as a limit of {limit:g} s would do" if limit else ""
        runs = "; the sidecar says that the stream goes on" if after is not None and after.runs else ""
        said = f"cut after {spoken(last)} of silence{of} ({_ending(stream)}){runs}"
        return fault("idle", said, mend_idle(stream.head), **figures, limit=limit)
    filled = f", {len(stream.heartbeats)} heartbeats in all" if stream.heartbeats else ""
    said = f"{spoken(wait)} without an event, {spoken(silence)} without a byte{filled}"
    if wanted is not None and wait < wanted:
        return unseen("idle", f"the stream was never silent for {wanted:g} s: {said}", **figures)
    if wanted is not None and silence >= min(wanted, DANGEROUS) and not stream.heartbeats:
        return warning("idle", f"survived {said}, without a heartbeat", mend_idle(stream.head), **figures)
    if wanted is not None or wait >= 1.0:
        return ok("idle", f"survived {said}", **figures)
    return unseen("idle", f"no silence: {said}", **figures)


def judge_end(stream: Stream, after: Poll | None) -> Finding:
    """How the stream ended: whole, cut, or with an error that was told."""
    dialect = dialect_of(stream)
    verdict = dialect.verdict(stream.tail)
    done = any(b"[DONE]" in block for block in stream.tail)
    reason = after.reason if after is not None and after.good and not after.runs else ""
    figures: Figures = {
        "dialect": dialect.name,
        "ending": stream.ending.value if stream.ending else None,
        "marker": verdict is Verdict.COMPLETE,
        "done": done,
        "reason": reason or None,
    }
    if stream.left and reason == "cancelled":
        return unseen("end", "it was cancelled when its reader left (linger)", **figures)
    if verdict is Verdict.ERROR:
        said = "the stream told an error" + (f" ({reason})" if reason else "")
        return fault(
            "end",
            said,
            "ask the provider's or the app's log; a sidecar's log line tells the reason",
            **figures,
        )
    if stream.ending is None:
        if verdict is Verdict.COMPLETE:
            return ok("end", f"the end marker came{_marker(done)}", **figures)
        return unseen("end", "it still ran when it was left", **figures)
    if was_cut(stream, after):
        if verdict is Verdict.COMPLETE:
            said = f"{_ending(stream)}, after its end marker"
            return warning("end", said, "the body should be ended before the connection is", **figures)
        return _cut(stream, after, figures)
    if reason and reason != "complete":
        said = f"the sidecar's upstream did not finish: {reason}"
        return fault("end", said, "look behind the sidecar: its log line tells more", **figures)
    return _clean_end(stream, dialect, verdict, done, figures)


def _cut(stream: Stream, after: Poll | None, figures: Figures) -> Finding:
    """Somebody ended it, after a silence or in full flow."""
    runs = ", but the sidecar says that the stream goes on" if after is not None and after.runs else ""
    said = f"{_ending(stream)}{runs}"
    if stream.until - stream.alive[-1] >= SHORTEST_CUT:
        return fault("end", f"{said}: somebody between ended it", mend_idle(stream.head), **figures)
    lasted = spoken(stream.until - stream.asked)
    said = f"{said}: after {lasted} in all, while events came: a limit on the whole answer"
    said += "" if runs else ", or whoever sends it hung up"
    return fault("end", said, mend_total(stream.head), **figures)


def _clean_end(stream: Stream, dialect: Dialect, verdict: Verdict, done: bool, figures: Figures) -> Finding:
    if verdict is Verdict.OPEN and dialect.llm and stream.first:
        said = f"a clean close without {dialect.name}'s end: SDKs take half an answer for a whole one"
        return fault(
            "end", said, "a sidecar tells such an end as an error; ask the provider's log", **figures
        )
    if verdict is Verdict.OPEN and not stream.first:
        return fault("end", f"{_ending(stream)}, without a single event", "ask the app's log", **figures)
    if stream.ending is Ending.CLOSED:
        said = f"{_ending(stream)}: a cut would look the same"
        return warning("end", said, "chunks (HTTP/1.1) from the app to the reader", **figures)
    return ok("end", f"whole: {dialect.name}, {_ending(stream)}{_marker(done)}", **figures)


def _marker(done: bool) -> str:
    return ", [DONE] seen" if done else ""


def _ending(stream: Stream) -> str:
    return stream.ending.value if stream.ending else "left by us"
