"""The log: what it holds, what it drops, and that its figures are always true."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.stream.log import COMPACT_AFTER, Log, Reason, Terminal

UNBOUNDED = 10**9


def block(seq: int, size: int = 0) -> bytes:
    """Return a numbered wire block, filled up to ``size`` bytes."""
    return b"id: s.%d\ndata: %b\n\n" % (seq, b"x" * max(size - len(b"id: s.%d\ndata: \n\n" % seq), 0))


def log_of(count: int, *, max_events: int = UNBOUNDED, max_bytes: int = UNBOUNDED, size: int = 20) -> Log:
    """Return a log of ``count`` blocks of ``size`` bytes, not yet trimmed."""
    log = Log(max_events, max_bytes)
    append(log, *(block(seq, size) for seq in range(1, count + 1)))
    return log


def append(log: Log, *entries: bytes) -> None:
    """Append wire blocks."""
    log.extend(list(entries), sum(map(len, entries)))


def held(log: Log) -> list[int]:
    """Return the seqs of the blocks that a log holds, read from the blocks themselves."""
    entries = log.after(log.first - 1, UNBOUNDED)
    return [int(entry.partition(b"\n")[0].removeprefix(b"id: s.")) for entry in entries]


def test_empty() -> None:
    """An empty log begins behind its last block, like any other."""
    log = Log(10, 100)
    assert (len(log), log.first, log.last, log.bytes, log.written, log.evicted) == (0, 1, 0, 0, 0, 0)
    assert log.terminal is None
    assert not log.full
    assert log.after(0, 100) == log.tail(5) == []
    assert log.size_before(0) == 0
    assert log.trim() == log.shed(100) == 0


def test_blocks_are_counted_from_one() -> None:
    """Seqs, bytes and the size before each block."""
    log = log_of(3, size=20)
    append(log, block(4, 30))
    assert (len(log), log.first, log.last, log.bytes, log.written) == (4, 1, 4, 90, 90)
    assert [log.size_before(seq) for seq in range(5)] == [0, 20, 40, 60, 90]
    assert held(log) == [1, 2, 3, 4]


# Bounds


def test_trim_by_events() -> None:
    """The oldest blocks beyond ``max_events`` go; what they took is told."""
    log = log_of(5, max_events=3)
    assert log.full
    assert log.trim() == 40
    assert held(log) == [3, 4, 5]
    assert (log.first, log.last, log.evicted, log.bytes, log.written) == (3, 5, 2, 60, 100)
    assert log.trim() == 0


def test_trim_by_bytes() -> None:
    """The oldest blocks beyond ``max_bytes`` go; a log of exactly that many bytes stays."""
    log = log_of(5, max_bytes=60)
    assert log.trim() == 40
    assert held(log) == [3, 4, 5]
    append(log, block(6, 21))
    assert log.trim() == 40
    assert held(log) == [5, 6]


@pytest.mark.parametrize(("max_events", "max_bytes"), [(1, UNBOUNDED), (UNBOUNDED, 1)])
def test_the_newest_block_stays(max_events: int, max_bytes: int) -> None:
    """However large it is, a reader must be able to get it."""
    log = log_of(5, max_events=max_events, max_bytes=max_bytes)
    assert log.trim() == 80
    assert held(log) == [5]
    assert log.shed(UNBOUNDED) == 0
    assert held(log) == [5]


def test_trim_stops_at_a_floor() -> None:
    """What somebody still has to read stays, bounds or not; what all have read does not."""
    log = log_of(6, max_events=2)
    assert log.trim(floor=3) == 60
    assert held(log) == [4, 5, 6]
    assert log.trim(floor=0) == 0
    assert log.trim(floor=6) == 20
    assert held(log) == [5, 6]


def test_full() -> None:
    """Full means that one more block would push out another."""
    log = Log(2, 50)
    append(log, block(1, 20))
    assert not log.full
    append(log, block(2, 20))
    assert log.full, "two events"
    by_bytes = Log(10, 50)
    append(by_bytes, block(1, 49))
    assert not by_bytes.full
    append(by_bytes, block(2, 20))
    assert by_bytes.full, "69 bytes"


@pytest.mark.parametrize(
    ("size", "left"), [(0, [1, 2, 3, 4]), (1, [2, 3, 4]), (20, [2, 3, 4]), (21, [3, 4]), (999, [4])]
)
def test_shed(size: int, left: list[int]) -> None:
    """As many of the oldest blocks go as are needed to free so many bytes."""
    log = log_of(4)
    assert log.shed(size) == (4 - len(left)) * 20
    assert held(log) == left
    assert log.bytes == len(left) * 20


def test_shed_stops_at_a_floor() -> None:
    """What somebody still has to read stays, even where the bytes are wanted elsewhere."""
    log = log_of(4)
    assert log.shed(60, floor=1) == 20
    assert held(log) == [2, 3, 4]
    assert log.shed(60, floor=0) == 0
    assert log.shed(60, floor=4) == 40
    assert held(log) == [4]


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 1200)), max_size=8))
def test_dropping_many_blocks_changes_nothing_else(steps: list[tuple[int, int]]) -> None:
    """The places of dropped blocks are collected and removed now and then: nobody can tell."""
    log, last = Log(UNBOUNDED, UNBOUNDED), 0
    for count, keep in steps:
        append(log, *(block(seq) for seq in range(last + 1, last + count + 1)))
        last += count
        log.max_events = keep
        log.trim()
        first = max(last - keep + 1, log.first)
        seqs = list(range(first, last + 1))
        assert held(log) == seqs
        assert log.tail(3) == [block(seq) for seq in seqs[-3:]]
        assert log.bytes == sum(len(block(seq)) for seq in seqs)
        assert log.written - log.size_before(first) == log.bytes - len(block(first))


class Model:
    """A log as a child would build one: a list, and every figure counted anew."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events, self.max_bytes = max_events, max_bytes
        self.blocks: list[bytes] = []  # all there ever were
        self.first = 1

    @property
    def held(self) -> list[bytes]:
        """The blocks that are still there."""
        return self.blocks[self.first - 1 :]

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(map(len, self.held))

    @property
    def full(self) -> bool:
        """Whether a bound is reached."""
        return len(self.held) >= self.max_events or self.bytes >= self.max_bytes

    def drop(self, max_events: int, max_bytes: int, floor: int | None) -> int:
        """Drop the oldest block for as long as a bound is passed and the block may go."""
        before = self.bytes
        while len(self.held) > 1 and (len(self.held) > max_events or self.bytes > max_bytes):
            if floor is not None and self.first > floor:
                break
            self.first += 1
        return before - self.bytes

    def agrees_with(self, log: Log) -> None:
        """Compare every figure."""
        last, written = len(self.blocks), sum(map(len, self.blocks))
        assert (log.first, log.last, len(log)) == (self.first, last, len(self.held))
        assert (log.bytes, log.written, log.evicted) == (self.bytes, written, self.first - 1)
        assert log.full is self.full
        assert log.after(self.first - 1, UNBOUNDED) == self.held
        assert log.tail(2) == self.held[-2:]
        sizes = [written - self.bytes, *accumulate(map(len, self.held), initial=written - self.bytes)]
        assert [log.size_before(seq) for seq in range(self.first - 2, last + 1)] == sizes


STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 60)),
    st.tuples(st.just("append"), st.integers(0, 60)),
    st.tuples(st.just("extend"), st.lists(st.integers(0, 60), max_size=6)),
    st.tuples(st.just("trim"), st.none() | st.integers(0, 40)),
    st.tuples(st.just("shed"), st.tuples(st.integers(0, 200), st.none() | st.integers(0, 40))),
)


@settings(max_examples=400)
@given(st.integers(1, 8), st.integers(1, 200), st.lists(STEPS, max_size=40))
def test_any_history(max_events: int, max_bytes: int, steps: list[tuple[str, Any]]) -> None:
    """One by one or many at once, trimmed or not, up to any floor: the figures are those of the blocks."""
    log, model = Log(max_events, max_bytes), Model(max_events, max_bytes)
    for what, how in steps:
        if what == "append":
            entry = b"x" * how
            model.blocks.append(entry)
            assert log.append(entry) is model.full
        elif what == "extend":
            entries = [b"y" * size for size in how]
            model.blocks += entries
            append(log, *entries)
        elif what == "trim":
            assert log.trim(how) == model.drop(max_events, max_bytes, how)
        else:
            size, floor = how
            assert log.shed(size, floor) == model.drop(UNBOUNDED, model.bytes - size, floor)
        model.agrees_with(log)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_appending_tells_when_the_log_is_full(one_by_one: bool) -> None:
    """The hot path asks no second question: what ``append`` says is what ``full`` says, window after
    window, and also where places of dropped blocks have been collected.
    """
    log = Log(3, UNBOUNDED)
    for seq in range(1, 3 * COMPACT_AFTER):
        if one_by_one:
            assert log.append(block(seq)) is log.full is (seq >= 3)
        else:
            append(log, block(seq))
            assert log.full is (seq >= 3)
        log.trim()
        assert (log.evicted, len(log)) == (max(seq - 3, 0), min(seq, 3))


def test_dropped_blocks_are_let_go() -> None:
    """A long stream's log takes the memory of its window: dropped blocks keep no more than a bounded
    number of empty places.
    """
    log = Log(10, UNBOUNDED)
    for seq in range(1, 20 * COMPACT_AFTER):
        append(log, block(seq))
        log.trim()
        assert len(log._blocks) <= COMPACT_AFTER + 11  # no public figure tells of empty places
        assert sum(map(len, log._blocks)) == log.bytes


# Reading


def test_after() -> None:
    """The blocks behind a seq: as many as fit, but at least one, so that a large block cannot stall a
    reader; none at the head or beyond it.
    """
    log = log_of(4)
    blocks = [block(seq, 20) for seq in range(1, 5)]
    assert log.after(0, 40) == blocks[:2]
    assert log.after(0, 59) == blocks[:2]
    assert log.after(1, 60) == blocks[1:]
    assert log.after(1, 0) == blocks[1:2]
    assert log.after(4, 100) == log.after(9, 100) == []


def test_after_in_a_window() -> None:
    """Seqs are those of the stream, whatever has been dropped."""
    log = log_of(6, max_events=3)
    log.trim()
    assert log.after(3, 100) == [block(seq, 20) for seq in (4, 5, 6)]
    assert log.after(5, 100) == [block(6, 20)]


def test_tail() -> None:
    """The newest blocks, of those that are held."""
    log = log_of(6, max_events=3)
    log.trim()
    assert log.tail(2) == [block(5, 20), block(6, 20)]
    assert log.tail(9) == [block(seq, 20) for seq in (4, 5, 6)]
    assert log.tail(0) == []


def test_the_newest() -> None:
    """The last block, whatever is dropped; a log that never had one has none."""
    log = Log(1, UNBOUNDED)
    with pytest.raises(IndexError):
        assert log.newest
    for seq in range(1, 2 * COMPACT_AFTER):
        append(log, block(seq))
        log.trim()
        assert log.newest == block(seq)


def test_size_before_a_window() -> None:
    """Before the window the size is that of its edge: dropped blocks are not known one by one."""
    log = log_of(6, max_events=3)
    log.trim()
    assert [log.size_before(seq) for seq in (0, 3, 4, 6, 7)] == [60, 60, 80, 120, 120]


# The upstream's own ids


def test_seq_of() -> None:
    """A block is found by its own id, the newest first, in whatever form the line has."""
    log = Log(UNBOUNDED, UNBOUNDED)
    append(log, b"id: a\ndata: 1\n\n", b"data: 2\nid:b\n\n", b"data: 3\n\n", b"id: a\ndata: 4\n\n")
    assert log.seq_of(b"a") == 4
    assert log.seq_of(b"b") == 2
    assert log.seq_of(b"") is None
    assert log.seq_of(b"data: 2") is None


@pytest.mark.parametrize("last_id", [b"1", b"2", b"id: 1", b"10", b"x"])
def test_seq_of_compares_whole_ids(last_id: bytes) -> None:
    """An id is a whole line of a block, not a part of one, and not text that looks like one."""
    log = Log(UNBOUNDED, UNBOUNDED)
    append(log, b"id: 100\ndata: id: 1\ndata: x\n\n", b"xid: 2\ndata: 2\n\n")
    assert log.seq_of(last_id) is None


def test_seq_of_a_block_without_data() -> None:
    """Who got an id that came before a block, and not the block, must still get the block."""
    log = Log(UNBOUNDED, UNBOUNDED)
    append(log, b"id: a\ndata: 1\n\n", b"id: b\n\nretry: 5\n\nid: c\ndata: 2\n\n", b"id: d\n\ndata: 3\n\n")
    assert log.seq_of(b"b") == 1
    assert log.seq_of(b"c") == 2
    assert log.seq_of(b"d") == 2


def test_seq_of_knows_only_what_is_held() -> None:
    """The id of a dropped block is not found; the one before the window's first block is its edge."""
    log = Log(2, UNBOUNDED)
    append(log, b"id: a\ndata: 1\n\n", b"id: x\n\nid: b\ndata: 2\n\n", b"id: c\ndata: 3\n\n")
    log.trim()
    assert log.seq_of(b"a") is None
    assert log.seq_of(b"x") == 1
    assert log.seq_of(b"c") == 3


# The end


def test_a_log_ends_once() -> None:
    """The terminal record is written once, and says so to who tries again."""
    log = log_of(1)
    end = Terminal(Reason.TRUNCATED, "broke off", told=False)
    log.end(end)
    assert log.terminal is end
    with pytest.raises(ValueError, match="already ended: truncated"):
        log.end(Terminal(Reason.COMPLETE))
    assert log.terminal is end


def test_reasons_are_the_contract() -> None:
    """Clients, logs and metrics know these words."""
    assert sorted(Reason) == [
        "cancelled",
        "complete",
        "idle_timeout",
        "overflow",
        "producer_lost",
        "total_timeout",
        "truncated",
        "upstream_error",
    ]
    assert Terminal(Reason.COMPLETE) == Terminal(Reason.COMPLETE, message="", told=True)
