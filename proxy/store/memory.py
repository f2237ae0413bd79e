"""The embedded store: logs in this process's memory, under one bound for all of them.

When the bound is reached, finished logs go first, the longest finished before the others. Where no
finished log is left, new streams are not recorded (they still stream, without ids and resume), and
the running ones hold on to less history. What is dropped leaves a *tombstone*, so that a client
that comes back learns that its stream existed and is gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from proxy.config import MemoryStore as MemorySettings
from proxy.stream.log import Log

#: What a log costs besides its blocks, in bytes, about: a thousand empty streams a second must not
#: fill the memory below the bound. So many logs as would cost ``max_bytes`` are held at most, and at
#: least LEAST_LOGS.
LOG_COST = 4096
LEAST_LOGS = 1000


class Held(Protocol):
    """What the store keeps: something with an id and a log that can be told to let go of it."""

    @property
    def id(self) -> str:
        """The stream's id."""

    @property
    def log(self) -> Log:
        """Its numbered blocks."""

    def epitaph(self) -> Epitaph:
        """Return what a tombstone must remember."""

    def forgotten(self) -> None:
        """Hear that the log is no longer held."""


@dataclass(frozen=True, slots=True)
class Epitaph:
    """What is remembered of a stream whose log is gone, to answer a resume as it deserves.

    ``owner`` is the principal's digest, ``feed`` whether it is to be asked for anew, ``last`` its last
    seq, ``last_id`` the upstream's own last id.
    """

    route: str
    method: str
    owner: bytes | None
    feed: bool
    last: int
    last_id: bytes | None


H = TypeVar("H", bound=Held)

#: Tells the block after which nothing of a log may be dropped; None for no such block.
Floor = Callable[[], int | None]


def _no_floor() -> None:
    return None


class MemoryStore(Generic[H]):
    """Streams by id: running, finished and still held, or remembered by a tombstone.

    ``bytes`` is the size of all logs, ``max_bytes`` its bound. ``evicted`` counts logs dropped before their
    keep time.
    """

    def __init__(self, settings: MemorySettings) -> None:
        self._settings = settings
        self.max_bytes = settings.max_bytes
        self._streams: dict[str, H] = {}
        self._finished: OrderedDict[str, H] = OrderedDict()
        self._tombstones: OrderedDict[str, tuple[float, Epitaph]] = OrderedDict()
        self.bytes = 0
        self.evicted = 0

    def __iter__(self) -> Iterator[H]:
        return iter(self._streams.values())

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def tombstones(self) -> int:
        """How many dropped streams are remembered."""
        return len(self._tombstones)

    def configure(self, settings: MemorySettings) -> None:
        """Take over new bounds."""
        self._settings = settings
        self.max_bytes = settings.max_bytes

    def has_room(self, now: float) -> bool:
        """Whether one more stream can be recorded; makes room if finished logs are in the way."""
        self._make_room(now)
        return self.bytes < self.max_bytes

    def add(self, stream: H) -> None:
        """Hold a new stream."""
        self._streams[stream.id] = stream
        self.bytes += stream.log.bytes

    def get(self, stream_id: str) -> H | None:
        """Return the stream, running or finished, if its log is held."""
        return self._streams.get(stream_id)

    def epitaph(self, stream_id: str, now: float) -> Epitaph | None:
        """Return what the stream's tombstone says, if there is one."""
        found = self._tombstones.get(stream_id)
        return found[1] if found and found[0] > now else None

    def grew(self, log: Log, size: int, now: float, floor: Floor = _no_floor) -> bool:
        """Account for ``size`` more bytes (or fewer) in ``log``; return whether the bound holds.

        Where no finished log can go, the one that grows pays with its own oldest blocks, but not
        with those after ``floor()``.
        """
        self.bytes += size
        if self.bytes > self.max_bytes:
            self._make_room(now)
            excess = self.bytes - self.max_bytes
            if excess > 0:
                self.bytes -= log.shed(excess, floor())
        return self.bytes <= self.max_bytes

    def finished(self, stream: H) -> None:
        """Note that the stream has ended: from now on its log may be evicted."""
        self._finished[stream.id] = stream

    def forget(self, stream: H, now: float, *, evicted: bool = False) -> None:
        """Drop a finished stream's log and put up its tombstone."""
        if self._streams.pop(stream.id, None) is None:
            return
        self._finished.pop(stream.id, None)
        self.bytes -= stream.log.bytes
        self.evicted += evicted
        self._tombstones[stream.id] = (now + self._settings.tombstone_keep, stream.epitaph())
        while self._tombstones and (
            len(self._tombstones) > self._settings.tombstones
            or next(iter(self._tombstones.values()))[0] <= now
        ):
            self._tombstones.popitem(last=False)
        stream.forgotten()

    def _make_room(self, now: float) -> None:
        most = max(LEAST_LOGS, self.max_bytes // LOG_COST)
        while self._finished and (self.bytes >= self.max_bytes or len(self._streams) > most):
            self.forget(next(iter(self._finished.values())), now, evicted=True)
