"""Streams as the doctor would have seen them, written down without a socket and without a clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from yarl import URL

from proxy.doctor.dial import Request
from proxy.doctor.evidence import Ending, Head, Poll, Stream
from proxy.doctor.transcript import Transcript

#: A stream id of the sidecar's form.
ID = "AAAAAAAAAAAAAAAAAAAAAA"

SSE = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("Transfer-Encoding", "chunked"))

#: What a sidecar adds.
OURS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache, no-transform"),
    ("Transfer-Encoding", "chunked"),
    ("Stream-Id", ID),
    ("Link", f'</_streams/{ID}>; rel="resume", </_streams/{ID}/cancel>; rel="cancel"'),
)


@dataclass(frozen=True, slots=True)
class When:
    """The request was sent at 0, its head came at ``headed``."""

    asked: float = 0.0
    asked_wall: float = 1_800_000_000.0
    headed: float = 0.01


def head(*fields: tuple[str, str], status: int = 200, version: str = "HTTP/1.1") -> Head:
    """An answer's head."""
    return Head(version, status, "OK", fields)


def event(number: int, *, ids: bool = True, size: int = 0) -> bytes:
    """The sidecar's block of that number, padded to about ``size`` bytes."""
    line = f"id: {ID}.{number}\n" if ids else ""
    return f'{line}data: {{"number":{number},"text":"{"x" * max(size - 70, 0)}"}}\n\n'.encode()


def heard(
    reads: Iterable[tuple[float, bytes]],
    *,
    fields: tuple[tuple[str, str], ...] = SSE,
    headed: float = 0.01,
    until: float | None = None,
    ending: Ending | None = None,
    path: str = "/events",
    method: str = "GET",
    polls: Iterable[Poll] = (),
) -> Stream:
    """What is known of a stream whose body came in these reads, and which was left at ``until``."""
    seen = Transcript(head(*fields))
    at = headed
    for at, data in reads:
        seen.receive(data, at)
    request = Request(URL(f"http://edge{path}"), method)
    stream = seen.stream(When(headed=headed), until or at, ending=ending, request=request)
    return with_polls(stream, *polls)


def with_polls(stream: Stream, *polls: Poll) -> Stream:
    """The same, and the sidecar's state was looked at."""
    return replace(stream, polls=polls)


def steady(count: int, *, interval: float = 0.05, ids: bool = True) -> list[tuple[float, bytes]]:
    """One event a read, at a steady pace."""
    return [(0.02 + number * interval, event(number, ids=ids)) for number in range(1, count + 1)]


def buffered(
    count: int, *, buffer: int, interval: float = 0.03, size: int = 250, ids: bool = True
) -> list[tuple[float, bytes]]:
    """The same behind a proxy that lets go of a full buffer only, and of the rest at the end."""
    reads: list[tuple[float, bytes]] = []
    held, at = b"", 0.02
    for number in range(1, count + 1):
        at += interval
        held += event(number, ids=ids, size=size)
        while len(held) >= buffer:
            reads.append((at, held[:buffer]))
            held = held[buffer:]
    return [*reads, (at + 0.001, held)] if held else reads


def looks(
    interval: float, until: float, *, pace: float, total: int = 10_000, first: float = 0.03
) -> list[Poll]:
    """Looks at the state of a sidecar that sends an event every ``pace`` seconds."""
    polls = []
    at = interval
    while at < until:
        sent = min(int(max(at - 0.02, 0.0) / pace), total)
        state = "finished" if sent == total else "live"
        polls.append(Poll(at - 0.01, at, 200, state=state, last=sent, first_event=first))
        at += interval
    return polls
