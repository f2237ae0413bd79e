"""Status and header fields that decide whether a stream streams."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.doctor.edge import ANY_BUFFERING, edges_in
from proxy.doctor.evidence import Head, Stream
from proxy.doctor.finding import Figures, Finding, fault, ok, spoken, warning
from proxy.server.wire import SERVER
from proxy.stream.cursor import is_stream_id, parse

EVENT_STREAM = "text/event-stream"

#: What each status of a gateway means, where a stream was asked for.
GATEWAY = {
    408: "the request did not come whole in time",
    413: "the body is too large for something on the way",
    429: "a limit on requests",
    431: "the headers are too large for something on the way",
    502: "the edge has no good answer from behind",
    503: "nobody behind the edge is ready",
    401: "whoever answered wants credentials",
    403: "whoever answered refuses",
    404: "nothing is there",
    405: "another method is wanted",
    504: "the edge did not wait long enough for the headers",
    520: "Cloudflare has no good answer from behind",
    524: "Cloudflare waited 100 s for the headers",
}


MENDS = {
    401: "credentials: -H 'Authorization: …'",
    403: "credentials: -H 'Authorization: …'; a page's Origin may be refused, too",
    404: "is the URL right? The edge may strip a prefix, or want one",
    405: "-X METHOD, or a body: -d",
}

UPSTREAM_FAILED = "the sidecar's log line `upstream failed` names the server and the cause"

#: The sidecar's words for a refusal: what each means, and what to do.
PROBLEMS = {
    "upstream-unreachable": ("the sidecar does not reach its upstream", UPSTREAM_FAILED),
    "upstream-broken": ("the sidecar's upstream broke off before its headers", UPSTREAM_FAILED),
    "upstream-timeout": (
        "the sidecar's upstream sent no headers in time",
        f"timeouts.first_byte on the sidecar's route; {UPSTREAM_FAILED}",
    ),
    "capacity": ("the sidecar is full", "limits.streams and limits.readers in its configuration"),
    "no-route": ("the sidecar has no such route", f"{MENDS[404]}; else a route in its configuration"),
    "refused": (
        "the sidecar refuses this host or this page",
        "hosts and origins in its configuration; an edge must keep Host",
    ),
}

#: What it does not list.
OTHER_PROBLEM = "docs/wire.md, Errors before the stream, tells what each means"


def media_type(head: Head) -> str:
    """The media type without its parameters, in lower case."""
    return head.get("Content-Type").partition(";")[0].strip().lower()


def judge_status(head: Head, waited: float, *, streams: bool, problem: str = "") -> Finding:
    """Whether a stream came at all. ``problem`` is the sidecar's own word for a refusal."""
    said = _status_line(head) + (f", sse-sidecar says: {problem}" if problem else "")
    figures: Figures = {"status": head.status, "version": head.version, "waited": round(waited, 3)}
    if head.status == 200 and streams:
        if head.version == "HTTP/1.0":
            mend = "speak HTTP/1.1 to the app and from it (nginx: proxy_http_version 1.1)"
            return warning("status", f"{said}: a cut would look like an end", mend, **figures)
        return ok("status", said, **figures)
    if head.status == 200:
        kind = media_type(head) or "nothing"
        mend = (
            'is it the right URL, method (-X) and body (-d, with "stream": true)? '
            "Else the app must say Content-Type: text/event-stream"
        )
        return fault("status", f"{said}, but {kind} and no events: no stream", mend, **figures)
    meaning = GATEWAY.get(head.status, "no stream")
    if 300 <= head.status < 400:
        meaning = "a redirect, which is not followed: ask its target"
    mend = _mend_status(head)
    if problem:
        meaning, mend = PROBLEMS.get(problem, (meaning, OTHER_PROBLEM))
    return fault("status", f"{said} after {spoken(waited)}: {meaning}", mend, **figures)


def judge_put_off(stream: Stream) -> Finding:
    """An EventSource that may not be told a 502, as it would give up: it is told to come again."""
    head = stream.head
    said = f"{_status_line(head)}, but only retry: {stream.retry}: an EventSource is told to come again, "
    # Both are the sidecar's own, and either may be lost on the way.
    if head.get("Server") == SERVER or head.has("X-Accel-Buffering"):
        said += "as the sidecar has no answer now"
        mend = f"{UPSTREAM_FAILED}; else limits.streams and limits.readers"
    else:
        said += "as the edge found no sidecar, or a sidecar no upstream"
        mend = f"are the sidecars up, and does the edge reach them? If so, {UPSTREAM_FAILED}"
    waited = round(stream.headed - stream.asked, 3)
    return fault("status", said, mend, status=head.status, version=head.version, waited=waited)


def _status_line(head: Head) -> str:
    return f"{head.version} {head.status} {head.reason}".rstrip()


def _mend_status(head: Head) -> str:
    """What to do about a status."""
    if head.status in MENDS:
        return MENDS[head.status]
    edges = ", ".join(edge.name for edge in edges_in(head))
    return f"ask {edges or 'whoever answered'}: its log names the cause"


def judge_no_answer(failure: str, waited: float, *, patient: bool) -> Finding:
    """The connection came about, and no answer did; ``patient``: we were the ones who left."""
    figures: Figures = {"status": None, "waited": round(waited, 3)}
    if not patient:
        said = f"{failure} ({spoken(waited)} after the request)"
        return fault("status", said, "the log of whoever listens there", **figures)
    said = (
        f"nothing for {waited:.0f} s, not even headers: the app has not answered, or something on the way "
        "collects the answer"
    )
    mend = f"open_after on a sidecar's route sends headers early; against buffers: {ANY_BUFFERING}"
    return fault("status", said, mend, **figures)


@dataclass(frozen=True, slots=True)
class Blot:
    """One thing that is wrong with a head."""

    said: str
    mend: str
    grave: bool = True


def judge_headers(stream: Stream) -> Finding:
    """All that is wrong with the head's fields, in one finding."""
    head = stream.head
    blots = list(_blots(stream))
    shown = [
        f"{name}: {head.get(name)[:80]}"
        for name in (
            "Content-Type",
            "Cache-Control",
            "X-Accel-Buffering",
            "Transfer-Encoding",
            "Vary",
            "Age",
            "X-Cache",
        )
        if head.has(name)
    ]
    figures: Figures = {
        "seen": shown,
        "stream_id": head.has("Stream-Id"),
        "link": head.has("Link"),
        "faults": [blot.said for blot in blots],
    }
    if not blots:
        return ok("headers", "; ".join(shown) or "nothing special", **figures)
    tell = fault if any(blot.grave for blot in blots) else warning
    said = "; ".join(blot.said for blot in blots)
    return tell("headers", said, "; ".join(dict.fromkeys(blot.mend for blot in blots)), **figures)


def is_sidecars(stream: Stream) -> bool:
    """Whether a sidecar wrote the stream, whatever became of its header fields."""
    return is_stream_id(stream.head.get("Stream-Id")) or stream_id_of(stream) is not None


def stream_id_of(stream: Stream) -> str | None:
    """The stream's id: from its header, else from its events."""
    named = stream.head.get("Stream-Id")
    if is_stream_id(named):
        return named
    cursor = parse(stream.ids[0]) if stream.ids else None
    return cursor.stream if cursor is not None else None


def _blots(stream: Stream) -> Iterator[Blot]:
    yield from _type_blots(stream.head)
    yield from _framing_blots(stream.head)
    yield from _caching_blots(stream.head)
    yield from _replayed_blots(stream)
    if is_sidecars(stream):
        yield from _stripped_blots(stream.head)
    elif not re.search(r"no-cache|no-store|private", stream.head.get("Cache-Control")):
        yield Blot(
            "no Cache-Control: a cache may keep the stream",
            "Cache-Control: no-cache, no-transform",
            grave=False,
        )


def _type_blots(head: Head) -> Iterator[Blot]:
    if media_type(head) != EVENT_STREAM:
        yield Blot(
            f"Content-Type is {media_type(head) or 'missing'}: EventSource refuses it, edges buffer it",
            f"Content-Type: {EVENT_STREAM}, from the app to the reader",
        )
    charset = re.search(r'charset\s*=\s*"?([\w-]+)', head.get("Content-Type"), re.IGNORECASE)
    if charset and charset[1].lower() not in ("utf-8", "utf8"):
        yield Blot(f"charset {charset[1][:20]}: event streams are UTF-8", "charset=utf-8, or none")


def _framing_blots(head: Head) -> Iterator[Blot]:
    if head.has("Content-Length"):
        both = head.has("Transfer-Encoding")
        yield Blot(
            "Content-Length beside Transfer-Encoding: a way to smuggle requests (RFC 9112 §6.1)"
            if both
            else "Content-Length: somebody had the whole answer before he sent its head",
            "send no Content-Length with a stream",
        )
    elif not head.has("Transfer-Encoding") and head.version == "HTTP/1.1":
        yield Blot("neither length nor chunks: a cut would look like an end", "chunked", grave=False)


def _caching_blots(head: Head) -> Iterator[Blot]:
    hits = [
        name for name in ("X-Cache", "X-Cache-Status", "CF-Cache-Status") if "hit" in head.get(name).lower()
    ]
    age = head.get("Age")
    if hits or (age.isdigit() and int(age) > 0):
        seen = ", ".join([*hits, *(["Age"] if age else [])])
        yield Blot(
            f"from a cache ({seen}): it is another request's stream",
            "no cache on streams: nginx proxy_cache off",
        )


def _replayed_blots(stream: Stream) -> Iterator[Blot]:
    """A stream that began before it was asked for is another request's."""
    if stream.borrowed and stream.began is not None:
        before = spoken(stream.asked - stream.began)
        said = f"another request's stream: it began {before} before this one was made; from a cache"
        yield Blot(said, "no cache on streams: nginx proxy_cache off")


def _stripped_blots(head: Head) -> Iterator[Blot]:
    """What a sidecar always sends, so that something on the way has taken it."""
    mend = "let it pass: no proxy_hide_header, no list of allowed headers, no rewriting"
    if not head.has("Stream-Id"):
        yield Blot("Stream-Id was stripped on the way: the ids are a sidecar's", mend)
    if not head.has("Link"):
        yield Blot("Link was stripped on the way: readers find neither resume nor cancel", mend)
    if "no-transform" not in head.get("Cache-Control"):
        yield Blot("Cache-Control lost its no-transform on the way: compressors feel free", mend)


def judge_cors(head: Head, origin: str | None) -> Finding | None:
    """Whether a page of ``origin`` may read the stream, and what it needs to resume it."""
    if origin is None:
        return None
    allowed = head.get("Access-Control-Allow-Origin")
    if allowed not in ("*", origin):
        mend = "origins: on the sidecar's route, or the app's own CORS headers; the edge must not remove them"
        return fault(
            "cors", f"Access-Control-Allow-Origin is {allowed or 'missing'}: the page may not read it", mend
        )
    exposed = {name.strip().lower() for name in head.get("Access-Control-Expose-Headers").split(",")}
    needed = [name for name in ("Stream-Id", "Link") if head.has(name)]
    hidden = [name for name in needed if name.lower() not in exposed and "*" not in exposed]
    if hidden:
        mend = "Access-Control-Expose-Headers must list them"
        return fault("cors", f"the page may not read {', '.join(hidden)}: no resume, no cancel", mend)
    return ok("cors", f"allowed for {allowed}" + (f", exposed: {', '.join(needed)}" if needed else ""))
