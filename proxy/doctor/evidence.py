"""What was seen: plain records, which the checks judge.

All times are seconds of one monotonic clock, unless a name says ``wall``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

#: Seconds that a stream must have begun before our request to be another's.
STALE = 1.0


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer: ``version`` as in ``HTTP/1.1``, the fields in their order."""

    version: str
    status: int
    reason: str = ""
    fields: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """The values of a field, joined as RFC 9110 §5.2 does; empty where there is none."""
        return ", ".join(value for key, value in self.fields if key.lower() == name.lower())

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return any(key.lower() == name.lower() for key, _ in self.fields)


class Ending(enum.Enum):
    """How an answer's body ended."""

    WHOLE = "ended as HTTP ends a body"
    CLOSED = "ended by the close of the connection"
    """There was neither a length nor chunks: a cut would look the same."""
    CUT = "the connection closed before the end of the body"
    RESET = "the connection was reset"
    GARBLED = "what came is not HTTP"


@dataclass(frozen=True, slots=True)
class Connection:
    """How a connection came about; a time is None where there was nothing to do."""

    host: str
    port: int
    address: str = ""
    tls: str = ""
    proxy: str = ""
    lookup: float | None = None
    connect: float = 0.0
    handshake: float | None = None

    @property
    def encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return bool(self.tls)


@dataclass(frozen=True, slots=True)
class Read:
    """Some bytes of the body, as they came from the socket. ``cut``: they end inside an event."""

    at: float
    size: int
    cut: bool = False


class Beat(enum.Enum):
    """In which form a sign of life came."""

    LINE = "a comment and one line end"
    BLOCK = "a comment and a blank line"
    EMPTY = "an empty line"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One sign of life between two events."""

    at: float
    form: Beat


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event with data. ``stamp`` is the time that its data names (seconds since 1970), if any."""

    at: float
    size: int = 0
    id: str | None = None
    digest: bytes = b""
    stamp: float | None = None


@dataclass(frozen=True, slots=True)
class Poll:
    """What ``/_streams/ID/state`` said. ``status`` is 0 where there was no answer at all.

    ``last`` is the newest block that the sidecar had sent at some moment between ``asked`` and ``answered``;
    ``kind`` is the sidecar's word for a refusal. ``first_event`` and ``age`` are seconds since the sidecar
    had the request.
    """

    asked: float
    answered: float
    status: int
    kind: str = ""
    state: str = ""
    reason: str = ""
    last: int = 0
    first_event: float | None = None
    age: float | None = None

    @property
    def good(self) -> bool:
        """Whether it is a sidecar's state of this very stream."""
        return bool(self.state)

    @property
    def runs(self) -> bool:
        """Whether the stream goes on."""
        return self.good and self.state != "finished"

    @property
    def over(self) -> bool:
        """Whether a sidecar says that it has ended."""
        return self.state == "finished"


@dataclass(frozen=True, slots=True)
class Stream:
    """One answer as it came: the request was sent at ``asked``, and watched until ``until``.

    ``ending`` is None where it was we who left; ``left``: we had, and came back. ``first`` and ``tail`` are
    the first and the last blocks with data, ``retry`` is the last waiting time that was told, in
    milliseconds. ``wire`` counts the body's bytes as they came, ``decoded`` those
    without their coding. ``stalls`` are the times, from and to, at which we were kept from looking.
    """

    asked: float
    asked_wall: float
    head: Head
    headed: float
    until: float
    path: str = "/"
    method: str = "GET"
    resumes: bool = False
    left: bool = False
    reads: tuple[Read, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    heartbeats: tuple[Heartbeat, ...] = ()
    ending: Ending | None = None
    first: bytes = b""
    retry: int | None = None
    tail: tuple[bytes, ...] = ()
    wire: int = 0
    decoded: int = 0
    undecodable: str = ""
    stalls: tuple[tuple[float, float], ...] = ()
    polls: tuple[Poll, ...] = ()

    @property
    def ids(self) -> list[str]:
        """The ids of its events."""
        return [arrival.id for arrival in self.arrivals if arrival.id is not None]

    @property
    def alive(self) -> list[float]:
        """When anything at all came, the head included."""
        return [self.headed, *(read.at for read in self.reads)]

    def awake(self, since: float, to: float) -> float:
        """How many of the seconds between two moments we could have seen something come."""
        asleep = sum(max(min(to, end) - max(since, start), 0.0) for start, end in self.stalls)
        return max(to - since - asleep, 0.0)

    @property
    def began(self) -> float | None:
        """The latest moment at which the sidecar can have had the request that began the stream."""
        return min((poll.answered - poll.age for poll in self.polls if poll.age is not None), default=None)

    @property
    def abandoned(self) -> bool:
        """Whether the sidecar cancelled it because we had left: its ``linger`` is short, or 0."""
        return self.ending is None and any(poll.reason == "cancelled" for poll in self.polls)

    @property
    def joined(self) -> bool:
        """Whether a stream was asked for that may well have begun before."""
        named = self.path.rpartition("/")[0].endswith("/_streams")
        return named or self.resumes or self.head.has("Idempotency-Replayed")

    @property
    def borrowed(self) -> bool:
        """Whether it is another request's: it began before ours, and nobody asked for that."""
        return self.began is not None and self.asked - self.began >= STALE and not self.joined

    @property
    def put_off(self) -> bool:
        """Whether all that came is when to come again: so an EventSource is told that nobody is there."""
        told = self.retry is not None and self.ending is not None
        return told and not self.arrivals and not self.head.has("Stream-Id")

    def rejoined(self, again: Stream | None) -> Stream:
        """The stream with the end that only its resumed half saw; itself where there is no such end."""
        if self.ending is not None or again is None or again.ending is None or not again.arrivals:
            return self
        tail = (*self.tail, *again.tail)
        return replace(again, path=self.path, method=self.method, first=self.first, tail=tail, left=True)
