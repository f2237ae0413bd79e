"""The way of a stream's events: reads of the upstream in, writes to the readers out. The hot path.

``receive`` runs to its end without a task switch for every read. What it does per event is: cut,
number, append, and one write per reader. Whatever can be decided when the stream begins or ends is
decided there, by the relay that a lane is the half of: what the stream's dialect is, what its end means.

Between the upstream and the readers stands the log, a window of bounded size. While somebody reads at
its head, its oldest blocks are dropped for new ones; where that would lose blocks that nobody has
been given yet, the upstream is not read until a reader has caught up (``slow_reader: pause``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from proxy.config import Route
from proxy.emit import Translation
from proxy.server.hub import Hub
from proxy.server.observation import Observer
from proxy.server.source import Source
from proxy.server.tally import Tally
from proxy.stream.framing import Framing
from proxy.stream.log import Log
from proxy.stream.numbering import Numbering
from proxy.stream.plain import is_plain, plain_blocks
from proxy.stream.sse import Parser

#: Reading upstream goes on when the fastest reader is within this part of the log again.
RESUME_AT = 0.5


class Tap(Protocol):
    """A reader's connection, as the lane sees it."""

    live: bool

    @property
    def lag_bytes(self) -> int:
        """Bytes of the log it has not been given."""

    @property
    def lag_events(self) -> int:
        """Blocks of the log it has not been given."""

    @property
    def cursor(self) -> int:
        """Seq of the last block it was given."""

    @property
    def replayed(self) -> int:
        """How many blocks it was given that were older than itself."""

    def send_live(self, wire: bytes) -> None:
        """Write what was just logged. Only for live taps."""

    def send_between(self, wire: bytes) -> None:
        """Write what is not logged, if nothing that was logged is still to be written before it."""

    def fall_behind(self) -> None:
        """Leave the live state: what is logged from now on is taken from the log."""

    def pump(self) -> None:
        """Write what can be written."""

    def dismiss(self, retry: int) -> None:
        """Close between two blocks, with a hint when to come back (milliseconds)."""


class Lane(ABC):
    """What of a stream takes part in every event.

    While nothing is unusual (the stream runs and is recognized, a block begins with the next byte, and no
    line is owed to the next block), reads of up to ``_plain_bytes`` bytes may be plain ones. In a stream that
    is not passed on as it came, in another format or another form, none is.
    """

    __slots__ = (
        "_clock",
        "_last_received",
        "_plain_bytes",
        "_recognized",
        "_source",
        "_store",
        "corked",
        "log",
        "numbering",
        "observer",
        "parser",
        "paused",
        "readers",
        "recorded",
        "route",
        "tally",
        "translation",
    )

    numbering: Numbering

    def __init__(self, hub: Hub, route: Route, log: Log, tally: Tally, *, recorded: bool) -> None:
        self.route = route
        self.log = log
        self.tally = tally
        self.recorded = recorded
        self.parser: Framing = Parser(route.max_event_bytes)
        self.translation: Translation | None = None
        self.observer: Observer | None = None
        self.readers: list[Tap] = []
        self.paused = False
        self.corked = False  # whether what is written waits for what comes with it
        self._clock = hub.clock
        self._store = hub.store
        self._source: Source | None = None
        self._recognized = False  # whether there was a block with data, which tells the dialect
        self._plain_bytes = -1
        self._last_received = tally.last_sent

    @abstractmethod
    def recognize(self, blocks: list[bytes]) -> bool:
        """Let the first block with data say what the stream is; return whether there was one."""

    @property
    @abstractmethod
    def verbatim(self) -> bool:
        """Whether comments pass, or may come to. They are not in the log: a reader must be there when
        they come.
        """

    @abstractmethod
    def overflowed(self, size: int) -> None:
        """End the stream: a block has grown to ``size`` bytes."""

    @abstractmethod
    def malformed(self, why: str) -> None:
        """End the stream: its body is not of the format that it should be of."""

    # The way of an event

    def receive(self, data: bytes) -> None:
        """Take one read from upstream.

        A read of plain events in a steady lane is told by its bytes alone, and goes out without the
        steps that find out what any other read means.
        """
        clock = self._clock  # to call what an attribute holds, fetching it first is faster
        self._last_received = now = clock()
        size = len(data)
        if size <= self._plain_bytes:
            if is_plain(data):
                self.tally.read_one(now, size)
                self._pass_on(self.numbering.number_plain(data), now)
                return
            blocks = plain_blocks(data)
            if blocks is not None:
                self.tally.bytes_in += size
                entries = self.numbering.number_plain_blocks(blocks)
                self._emit(b"".join(entries), entries, now)
                return
        if self.log.terminal is None:
            self.tally.bytes_in += size
            self._receive_any(data, now)

    def receive_last(self, data: bytes) -> None:
        """Take the last read. What it holds leaves together with the end of the readers' answers."""
        if self.verbatim:
            self.receive(data)
            return
        self.corked = True
        for reader in self.readers:
            reader.fall_behind()
        try:
            self.receive(data)
        finally:
            self.corked = False
        # The upstream's end may have to wait until the readers have caught up; or the data brought another.
        if self.paused or self.log.terminal is not None:
            for reader in self.readers:
                reader.pump()

    def _receive_any(self, data: bytes, now: float) -> None:
        """Take one read, whatever it holds."""
        parser = self.parser
        blocks = parser.feed(data)
        if blocks:
            self._take(blocks, now)
        if parser.overflowed:
            self.overflowed(parser.overflowed)
        elif parser.broken:
            self.malformed(parser.broken)
        elif (
            self.translation is None
            and self._recognized
            and type(parser) is Parser
            and parser.between_blocks
            and not self.numbering.owing
            and not (self.observer is not None and self.observer.searching)
        ):
            self._plain_bytes = self.route.max_event_bytes
        else:
            self.unsettle()

    def _take(self, blocks: list[bytes], now: float) -> None:
        """Take whole blocks: recognize, translate, number, log and write them, and then look at the first."""
        self._recognized = self._recognized or self.recognize(blocks)
        if self.translation is not None:  # whose blocks are all plain: nothing has to be found out about them
            entries = self.numbering.number_plain_blocks(self.translation.feed(blocks, now))
            self._emit(b"".join(entries), entries, now)
            return
        numbered = self.numbering.number(blocks)
        self._emit(numbered.wire, numbered.entries, now)
        if self.observer is not None and self.observer.searching:
            self.observer.read_first(blocks, now)

    def unsettle(self) -> None:
        """Look closely at the next read."""
        self._plain_bytes = -1

    def _pass_on(self, entry: bytes, now: float) -> None:
        """Log one entry, and write it to whoever stands at the head of the log: ``_emit``, unrolled."""
        full = self.log.append(entry)
        size = len(entry)
        if self.recorded:
            store = self._store
            store.bytes += size
            full = full or store.bytes > store.max_bytes
        for reader in self.readers:
            if reader.live:
                self.tally.bytes_out += size
                reader.send_live(entry)
            else:
                reader.pump()
        if full:
            self._bound(now)

    def _emit(self, wire: bytes, entries: list[bytes], now: float) -> None:
        """Log entries, and write ``wire``, what goes out, to whoever stands at the head of the log."""
        if not wire:
            return
        if entries:
            self.tally.logged(now)
            size = sum(map(len, entries))
            self.log.extend(entries, size)
            if self.recorded:
                self._store.bytes += size
        self.tally.last_sent = now
        for reader in self.readers:
            if reader.live:
                self.tally.bytes_out += len(wire)
                reader.send_live(wire)
            elif entries:
                reader.pump()
            else:
                reader.send_between(wire)
        if entries:
            self._bound(now)

    # The window between upstream and readers

    def _bound(self, now: float) -> None:
        """Keep the log's bounds, and hold the upstream back where that would lose blocks."""
        log, before = self.log, self.log.bytes
        too_much = False
        if log.full:
            for reader in self.readers:
                if reader.live:  # somebody has everything: nothing that is dropped will be missed by all
                    log.trim()
                    break
            else:
                log.trim(self._floor())
                too_much = self._too_far_ahead()
        if self.recorded and not self._store.grew(log, log.bytes - before, now, self._floor):
            floor = self._floor()  # all logs together are at their bound, and this one could not give way
            too_much = too_much or (floor is not None and log.last > floor)
        if too_much and not self.paused and self.route.slow_reader == "pause":
            self._pause()

    def _floor(self) -> int | None:
        """The block after which nothing may be dropped: what the fastest reader still has to get.

        Before the first reader comes that is everything: it is about to read from the beginning.
        """
        if self.route.slow_reader == "drop":
            return None
        if not self.readers:
            return None if self.tally.readers else 0
        return max(reader.cursor for reader in self.readers)

    def _too_far_ahead(self) -> bool:
        """Whether even the fastest reader is a whole window behind, or nobody reads and the log is full."""
        if not self.readers:
            return self.recorded or not self.tally.readers
        return all(
            reader.lag_bytes >= self.log.max_bytes or reader.lag_events >= self.log.max_events
            for reader in self.readers
        )

    def _pause(self) -> None:
        self.paused = True
        self.tally.paused()
        if self._source is not None:
            self._source.pause()

    def advanced(self) -> None:
        """Hear that a reader took blocks from the log: perhaps the upstream can be read again."""
        if not self.paused:
            return
        log = self.log  # which is smaller than its window where all logs together are at their bound
        window_bytes, window_events = min(log.max_bytes, log.bytes), min(log.max_events, len(log))
        if any(
            reader.lag_bytes <= window_bytes * RESUME_AT and reader.lag_events <= window_events * RESUME_AT
            for reader in self.readers
        ):
            self.paused = False
            self._last_received = now = self._clock()
            self._bound(now)  # which a reader's lag had kept from being held
            if self._source is not None and not self.paused:
                self._source.resume()
