"""Replay, then live: every reader sees every block once and in order, or is told what is gone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.errors import Gap
from proxy.stream.log import COMPACT_AFTER, Log
from proxy.stream.reader import TAKE_BYTES, Reader, gap_block
from proxy.stream.sse import decode

UNBOUNDED = 10**9


def block(seq: int, size: int = 0) -> bytes:
    """Return a numbered wire block of about ``size`` bytes."""
    return b"id: s.%d\ndata: %b\n\n" % (seq, b"x" * size)


def log_of(count: int, *, max_events: int = UNBOUNDED) -> Log:
    """Return a log of so many blocks, trimmed to ``max_events``."""
    log = Log(max_events, UNBOUNDED)
    grow(log, count)
    return log


def grow(log: Log, count: int) -> bytes:
    """Log so many more blocks and return what live readers are given."""
    entries = [block(seq) for seq in range(log.last + 1, log.last + 1 + count)]
    log.extend(entries, sum(map(len, entries)))
    log.trim()
    return b"".join(entries)


def reader_of(log: Log, cursor: int = 0, *, retry: int | None = None, signal_gaps: bool = False) -> Reader:
    """Return a reader, by default one that must not see a retry line and is refused at a gap."""
    return Reader(log, cursor, retry=retry, signal_gaps=signal_gaps)


def test_replay_then_live() -> None:
    """A reader takes what is there; when nothing more is, it is live, and takes no more."""
    log = log_of(3)
    reader = reader_of(log)
    assert (reader.cursor, reader.lag_events, reader.lag_bytes, reader.live) == (0, 3, log.bytes, False)
    assert reader.take() == block(1) + block(2) + block(3)
    assert (reader.cursor, reader.lag_events, reader.lag_bytes, reader.live) == (3, 0, 0, False)
    assert reader.take() == b""
    assert reader.live
    grow(log, 2)
    assert (reader.cursor, reader.lag_events, reader.lag_bytes) == (5, 0, 0)


def test_blocks_logged_between_two_takes_are_taken() -> None:
    """The hand-off: what comes before the reader has found nothing more is still taken from the log."""
    log = log_of(1)
    reader = reader_of(log)
    reader.take()
    grow(log, 1)
    assert reader.take() == block(2)
    assert not reader.live


def test_from_a_cursor() -> None:
    """A reader that comes back gets what follows its cursor."""
    log = log_of(4)
    reader = reader_of(log, 2)
    assert reader.lag_bytes == len(block(3)) + len(block(4))
    assert reader.take() == block(3) + block(4)


def test_at_the_head() -> None:
    """A reader that has everything is live at once."""
    reader = reader_of(log_of(4), 4)
    assert reader.take() == b""
    assert reader.live


def test_a_budget() -> None:
    """One step takes as many whole blocks as fit, and at least one."""
    log = log_of(3)
    reader = reader_of(log)
    assert reader.take(1) == block(1)
    assert reader.take(2 * len(block(1))) == block(2) + block(3)


def test_the_default_budget() -> None:
    """A step is bounded, so that a slow socket is not given a whole log."""
    log = Log(UNBOUNDED, UNBOUNDED)
    big = block(1, TAKE_BYTES // 2)
    log.extend([big, big, big], 3 * len(big))
    assert reader_of(log).take() == big


def test_fall_behind() -> None:
    """A live reader whose socket is full goes on from the log where it was."""
    log = log_of(2)
    reader = reader_of(log, 2)
    reader.take()
    reader.fall_behind()
    grow(log, 2)
    assert (reader.live, reader.cursor, reader.lag_events) == (False, 2, 2)
    assert reader.lag_bytes == len(block(3)) + len(block(4))
    reader.fall_behind()
    assert reader.cursor == 2, "one that is behind stays where it is"
    assert reader.take() == block(3) + block(4)


# The reconnection time


def test_the_first_block_carries_the_retry() -> None:
    """Once a connection, on the first block that it gets."""
    log = log_of(2)
    reader = reader_of(log, retry=3000)
    assert reader.take() == b"id: s.1\nretry: 3000\ndata: \n\n" + block(2)
    grow(log, 1)
    assert reader.take() == block(3)
    assert log.after(0, 1) == [block(1)], "the log's own block is as it was"


def test_a_reader_that_got_nothing_yet_is_not_live() -> None:
    """The first block has to come from the log, since live readers all get the same bytes."""
    log = log_of(2)
    reader = reader_of(log, 2, retry=0)
    assert reader.take() == b""
    assert not reader.live
    grow(log, 1)
    assert reader.take() == b"id: s.3\nretry: 0\ndata: \n\n"
    assert reader.take() == b""
    assert reader.live


# Gaps


def test_a_gap_is_refused() -> None:
    """A reader behind the window is told its cursor and the oldest block that there is."""
    reader = reader_of(log_of(9, max_events=3), 2)
    with pytest.raises(Gap) as caught:
        reader.take()
    assert (caught.value.cursor, caught.value.earliest) == (2, 7)
    assert not reader.live


def test_a_gap_is_signalled() -> None:
    """Or it is told in the stream which blocks are gone, and goes on behind them."""
    reader = reader_of(log_of(9, max_events=3), 2, signal_gaps=True)
    assert reader.take() == gap_block(3, 6) + block(7) + block(8) + block(9)
    assert (reader.cursor, reader.lag_bytes) == (9, 0)
    assert reader.take() == b""


def test_the_edge_of_the_window_is_no_gap() -> None:
    """A cursor just before the oldest block misses nothing."""
    assert reader_of(log_of(9, max_events=3), 6).take() == block(7) + block(8) + block(9)


def test_a_gap_that_opens_later() -> None:
    """A slow reader can fall out of the window, more than once."""
    log = log_of(3, max_events=2)
    reader = reader_of(log, 1, signal_gaps=True)
    assert reader.take(1) == block(2)
    grow(log, 3)
    assert reader.take(1) == gap_block(3, 4) + block(5)
    grow(log, 3)
    assert reader.take() == gap_block(6, 7) + block(8) + block(9)


def test_the_retry_stands_in_a_block_of_the_log() -> None:
    """After a gap it is not the signal that carries the retry, but the block behind it."""
    reader = reader_of(log_of(3, max_events=1), retry=5, signal_gaps=True)
    assert reader.take() == gap_block(1, 2) + b"id: s.3\nretry: 5\ndata: \n\n"


@pytest.mark.parametrize(("last", "data"), [(9, '{"from":4,"to":9}'), (None, '{"from":4,"to":null}')])
def test_gap_block(last: int | None, data: str) -> None:
    """A gap is an event of its own; it has no id, so a client's cursor stays what it was."""
    event = decode(gap_block(4, last).removesuffix(b"\n\n"))
    assert (event.event, event.data, event.id) == ("stream-gap", data, None)
    assert gap_block(4, last).endswith(b"\n\n")


# What a resume cost


def test_replayed() -> None:
    """Replayed are the blocks that were there before the reader was, not those it took later."""
    log = log_of(5)
    reader = reader_of(log, 2)
    assert reader.replayed == 0
    reader.take(1)
    assert reader.replayed == 1
    grow(log, 4)
    reader.take()
    assert reader.replayed == 3
    reader.take()
    grow(log, 4)
    assert (reader.live, reader.replayed) == (True, 3)


def test_blocks_that_are_gone_are_not_replayed() -> None:
    """A gap is no replay."""
    reader = reader_of(log_of(9, max_events=3), 2, signal_gaps=True)
    reader.take(1)
    assert reader.replayed == 1
    reader.take()
    assert reader.replayed == 3


# All of it at once


@dataclass
class Client:
    """A reader and what it has been given: every block up to ``seen``, but for the gaps it was told."""

    reader: Reader
    seen: int
    measured_from: int  # its lag in bytes counts the blocks behind this one
    retry: int | None
    signal_gaps: bool
    gone: bool = False
    joined_at: int = 0
    replayed: int = 0


class LogAndReaders(RuleBasedStateMachine):
    """A bounded log that grows in batches, and readers that come, take, fall behind and are live.

    The model is the list of all blocks there ever were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(1, 1)
        self.all: list[bytes] = []
        self.ends = [0]  # how many bytes there had been behind each of them
        self.clients: list[Client] = []

    @initialize(max_events=st.integers(1, 12), max_bytes=st.integers(1, 600))
    def bound(self, max_events: int, max_bytes: int) -> None:
        """A log has bounds."""
        self.log = Log(max_events, max_bytes)

    @rule(sizes=st.lists(st.integers(0, 120), min_size=1, max_size=6), pause=st.booleans())
    def receive(self, sizes: list[int], pause: bool) -> None:
        """Log what one read brought; give it to the live; keep the bounds, perhaps with a floor."""
        batch = [block(self.log.last + index, size) for index, size in enumerate(sizes, start=1)]
        self._log(batch)
        floor = self._floor() if pause else None
        before, first = self.log.bytes, self.log.first
        assert self.log.trim(floor) == before - self.log.bytes
        assert floor is None or self.log.first <= max(first, floor + 1), "somebody still has to read it"
        within = len(self.log) <= self.log.max_events and self.log.bytes <= self.log.max_bytes
        assert within or len(self.log) == 1 or (floor is not None and self.log.first > floor)

    @rule(batches=st.integers(1, 3))
    def receive_much(self, batches: int) -> None:
        """Log so much that the places of dropped blocks have to be collected."""
        for _ in range(batches):
            self._log([block(self.log.last + 1 + index) for index in range(COMPACT_AFTER)])
            self.log.trim()

    def _log(self, batch: list[bytes]) -> None:
        live = [client for client in self.clients if client.reader.live]
        for entry in batch:
            self.all.append(entry)
            self.ends.append(self.ends[-1] + len(entry))
        self.log.extend(batch, sum(map(len, batch)))
        for client in live:
            client.seen += len(batch)

    @rule(size=st.integers(0, 400), pause=st.booleans())
    def shed(self, size: int, pause: bool) -> None:
        """The store asks for bytes back, perhaps not for those that somebody still has to read."""
        floor = self._floor() if pause else None
        before, first = self.log.bytes, self.log.first
        freed = self.log.shed(size, floor)
        assert freed == before - self.log.bytes
        assert floor is None or self.log.first <= max(first, floor + 1), "somebody still has to read it"
        assert freed >= size or len(self.log) <= 1 or (floor is not None and self.log.first > floor)

    def _floor(self) -> int | None:
        """What the furthest reader has: a relay that can pause its upstream drops no more than that."""
        return max((client.reader.cursor for client in self.clients if not client.gone), default=None)

    @precondition(lambda self: len(self.clients) < 5)
    @rule(back=st.integers(0, 30), retry=st.sampled_from([None, 3000]), signal_gaps=st.booleans())
    def join(self, back: int, retry: int | None, signal_gaps: bool) -> None:
        """A reader comes with a cursor somewhere up to the head, inside the window or not."""
        cursor = max(self.log.last - back, 0)
        reader = Reader(self.log, cursor, retry=retry, signal_gaps=signal_gaps)
        start = max(cursor, self.log.first - 1)
        self.clients.append(Client(reader, cursor, start, retry, signal_gaps, joined_at=self.log.last))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), budget=st.integers(0, 400))
    def take(self, data: st.DataObject, budget: int) -> None:
        """A reader that is not live takes what follows."""
        client = data.draw(st.sampled_from(self.clients))
        if client.reader.live or client.gone:
            return
        first = self.log.first
        if client.seen + 1 < first and not client.signal_gaps:
            with pytest.raises(Gap) as caught:
                client.reader.take(budget)
            assert (caught.value.cursor, caught.value.earliest) == (client.seen, first)
            client.gone = True
            return
        everything = client.seen == self.log.last and client.retry is None
        self._check_taken(client, client.reader.take(budget), first, budget)
        assert client.reader.live == everything

    def _check_taken(self, client: Client, wire: bytes, first: int, budget: int) -> None:
        if client.seen + 1 < first:
            told = gap_block(client.seen + 1, first - 1)
            assert wire.startswith(told)
            wire = wire.removeprefix(told)
            client.seen = client.measured_from = first - 1
        if wire and client.retry is not None:
            assert wire.count(b"\nretry: 3000\n") == 1
            wire, client.retry = wire.replace(b"\nretry: 3000\n", b"\n", 1), None
        assert b"retry" not in wire
        count = wire.count(b"\n\n")
        taken = self.all[client.seen : client.seen + count]
        assert wire == b"".join(taken)
        assert len(wire) <= budget or count == 1
        assert count or client.seen == self.log.last, "at least one block, if there is one"
        client.replayed += max(min(client.seen + count, client.joined_at) - client.seen, 0)
        client.seen += count

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def fall_behind(self, data: st.DataObject) -> None:
        """A socket is full."""
        client = data.draw(st.sampled_from(self.clients))
        client.reader.fall_behind()
        assert not client.reader.live

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A client is gone."""
        self.clients.remove(data.draw(st.sampled_from(self.clients)))

    @invariant()
    def the_log_is_true(self) -> None:
        """What is held is the end of what there was, and every figure says so."""
        log = self.log
        held = log.after(log.first - 1, UNBOUNDED)
        assert held == self.all[len(self.all) - len(log) :]
        assert log.last == len(self.all)
        assert log.first == log.last - len(log) + 1
        assert log.evicted == log.first - 1
        assert log.bytes == sum(map(len, held))
        assert log.written == self.ends[-1]
        assert len(log) >= 1 or not self.all
        assert log.full == (len(log) >= log.max_events or log.bytes >= log.max_bytes)

    @invariant()
    def readers_know_where_they_are(self) -> None:
        """A cursor is the last block seen; a lag is what follows it."""
        for client in self.clients:
            reader = client.reader
            assert reader.cursor == client.seen
            assert reader.lag_events == self.log.last - client.seen
            assert reader.lag_bytes == self.ends[-1] - self.ends[max(client.seen, client.measured_from)]
            assert reader.replayed == client.replayed
            assert not reader.live or client.seen == self.log.last


LogAndReaders.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
test_log_and_readers = LogAndReaders.TestCase
