"""The numbered blocks of one stream, bounded in number and in bytes: its replay buffer.

A log holds wire blocks, each with its ``id`` line and its empty line, so that a replay is a join and
nothing else. Seqs count from 1. The oldest blocks are dropped when a bound is passed; the newest
block is always held. Its end is one terminal record, set once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Reason(enum.StrEnum):
    """Why a stream ended. Only COMPLETE is a whole answer."""

    COMPLETE = "complete"
    UPSTREAM_ERROR = "upstream_error"
    TRUNCATED = "truncated"
    CANCELLED = "cancelled"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    OVERFLOW = "overflow"
    PRODUCER_LOST = "producer_lost"


@dataclass(frozen=True, slots=True)
class Terminal:
    """The last record of a log. ``told``: the last blocks say it, so a reader may end cleanly."""

    reason: Reason
    message: str = ""
    told: bool = True


#: A block as it goes on the wire.
Block = bytes

#: Dropped blocks leave empty places at the front of the list; so many are collected before the list
#: is moved, which makes dropping one block O(1) on average.
COMPACT_AFTER = 512


class Log:
    """Blocks ``first`` … ``last`` of a stream.

    ``max_events`` and ``max_bytes`` bound what is held. ``written`` counts the bytes of every block
    there ever was, so that the distance of a reader in bytes is a subtraction.
    """

    __slots__ = ("_blocks", "_dropped", "_empty", "_full_at", "last", "max_bytes", "max_events", "terminal",
                 "written")  # fmt: skip

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._blocks: list[Block] = []
        self._empty = 0  # so many places at the front hold nothing any more
        self.max_events = max_events
        self._full_at = max_events  # with this block as its last, the log holds as many as it may
        self.max_bytes = max_bytes
        self._dropped = 0  # bytes of all blocks that are no longer held
        self.last = 0
        self.written = 0
        self.terminal: Terminal | None = None

    def __len__(self) -> int:
        return len(self._blocks) - self._empty

    @property
    def bytes(self) -> int:
        """The size of all blocks held."""
        return self.written - self._dropped

    @property
    def first(self) -> int:
        """Seq of the oldest block held; ``last`` + 1 where none is."""
        return self.last + 1 - len(self)

    @property
    def evicted(self) -> int:
        """How many blocks have been dropped."""
        return self.first - 1

    @property
    def newest(self) -> Block:
        """The last block. Raises IndexError where there is none."""
        return self._blocks[-1]

    @property
    def full(self) -> bool:
        """Whether one more block would push out another."""
        return self.last >= self._full_at or self.bytes >= self.max_bytes

    def append(self, entry: Block) -> bool:
        """Append one wire block, and return whether the log is full. ``trim`` then enforces the bounds."""
        self._blocks.append(entry)
        self.last = last = self.last + 1
        self.written = written = self.written + len(entry)
        return last >= self._full_at or written - self._dropped >= self.max_bytes

    def extend(self, entries: list[Block], size: int) -> None:
        """Append wire blocks of ``size`` bytes in all. ``trim`` then enforces the bounds."""
        self._blocks += entries
        self.last += len(entries)
        self.written += size

    def trim(self, floor: int | None = None) -> int:
        """Drop the oldest blocks until both bounds hold; return how many bytes that freed.

        The newest block stays in any case, and so does every block after ``floor``.
        """
        return self._drop(self.max_events, self.max_bytes, floor)

    def shed(self, size: int, floor: int | None = None) -> int:
        """Drop the oldest blocks until ``size`` bytes are free; return the bytes freed.

        The newest block stays in any case, and so does every block after ``floor``.
        """
        return self._drop(len(self), self.bytes - size, floor)

    def after(self, seq: int, budget: int) -> list[Block]:
        """Return the blocks that follow ``seq``, oldest first: at least one if there is one, and then
        as many as fit in ``budget`` bytes. ``seq`` must not lie before the window.
        """
        start = self._empty + seq - self.first + 1
        blocks = self._blocks
        end, size = start, 0
        while end < len(blocks) and (end == start or size + len(blocks[end]) <= budget):
            size += len(blocks[end])
            end += 1
        return blocks[start:end]

    def tail(self, count: int) -> list[Block]:
        """Return the newest blocks, at most ``count``, oldest first."""
        return self._blocks[max(len(self._blocks) - count, self._empty) :]

    def size_before(self, seq: int) -> int:
        """Return how many bytes had been written when block ``seq`` had just been logged.

        Before the window, that is what had been written when the last dropped block had been.
        """
        start = self._empty + max(seq - self.first + 1, 0)
        return self.written - sum(map(len, self._blocks[start:]))

    def seq_of(self, last_id: Block) -> int | None:
        """Return the seq of the newest held block whose own ``id`` line says ``last_id``.

        Where a block without data said it, that is the seq of the block before: what follows is
        still to be read.
        """
        lines = (b"\nid: " + last_id + b"\n", b"\nid:" + last_id + b"\n")
        for index in range(len(self._blocks) - 1, self._empty - 1, -1):
            without_data, _, block = self._blocks[index][:-2].rpartition(b"\n\n")
            seq = self.last - (len(self._blocks) - 1 - index)
            for position, text in ((seq, block), (seq - 1, without_data)):
                if any(line in b"\n%b\n" % text for line in lines):
                    return position
        return None

    def end(self, terminal: Terminal) -> None:
        """Set the terminal record. A log ends once."""
        if self.terminal is not None:
            raise ValueError(f"this log has already ended: {self.terminal.reason}")
        self.terminal = terminal

    def _drop(self, max_events: int, max_bytes: int, floor: int | None) -> int:
        """Drop the oldest blocks until both bounds hold; return the bytes freed."""
        blocks, end, size = self._blocks, self._empty, self.bytes
        most = len(blocks) - 1
        if floor is not None:
            most = min(most, end + floor - self.first + 1)
        while end < most and (len(blocks) - end > max_events or size > max_bytes):
            size -= len(blocks[end])
            blocks[end] = b""
            end += 1
        freed = self.bytes - size
        self._full_at += end - self._empty
        self._empty = end
        self._dropped += freed
        if end >= COMPACT_AFTER and end * 2 >= len(blocks):
            del blocks[:end]
            self._empty = 0
        return freed
