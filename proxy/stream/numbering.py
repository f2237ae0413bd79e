"""Whose ids a stream carries, and what a block looks like on the wire because of it.

The sidecar's own ids are written as the first line of each block with data; blocks without data are
dropped, because a client that has once seen an id dispatches them as empty events, and several SDKs
then fail to parse them. Where the upstream's own ids are kept, blocks leave exactly as they came.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from proxy.stream.sse import BYTE_ORDER_MARK, fields, has_data, is_digits


class Ids(enum.Enum):
    """Who writes the ids of a stream."""

    OWN = "own"
    """The sidecar: ``id: <stream>.<seq>``; the upstream's ``id`` and ``retry`` lines are removed."""
    NONE = "none"
    """Nobody: the upstream's are removed as well."""
    UPSTREAM = "upstream"
    """The upstream: blocks are untouched."""


OWN = Ids.OWN  # an enumeration's member is slow to look up, and this one is asked for with every event

#: How much of a run of blocks without data (an id of its own, a retry) is kept for later readers.
MAX_PREFIX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Numbered:
    """What one read became: ``entries`` for the log, one per block with data, and ``wire`` for readers.

    Every entry ends in its empty line. ``wire`` is all that goes out now: the entries joined, and,
    under the upstream's ids, the blocks without data among them.
    """

    wire: bytes
    entries: list[bytes]


class Numbering:
    """Turns blocks into numbered wire blocks for one stream.

    ``follow`` lets the upstream take over: the first block that brings an id of its own switches
    ``ids`` to UPSTREAM, so that an application's own resume goes on working. ``retry`` is the
    upstream's own reconnection time in milliseconds once it has named one; unless ``retries`` is
    off, it is handed on with the next block. ``last_id`` is the last id that the upstream wrote.
    """

    __slots__ = ("_follow", "_prefix", "_retries", "_retry_due", "_start", "ids", "last_id", "retry", "seq")

    def __init__(self, stream_id: str, ids: Ids, *, follow: bool = False, retries: bool = True) -> None:
        self._start = b"id: " + stream_id.encode("ascii") + b"."
        self._follow = follow
        self._retries = retries
        self._retry_due = False
        self._prefix = b""
        self.ids = ids
        self.seq = 0
        self.retry: int | None = None
        self.last_id: bytes | None = None

    @property
    def as_it_came(self) -> bool:
        """Whether blocks leave as they came, because the ids are the upstream's."""
        return self.ids is Ids.UPSTREAM

    @property
    def owing(self) -> bool:
        """Whether the next entry will carry more than its block: a ``retry`` line, or what came before."""
        return bool(self._prefix) or (self._retry_due and not self.as_it_came)

    @property
    def follows(self) -> bool:
        """Whether the ids become the upstream's with the first block that brings one."""
        return self._follow

    def number_plain(self, data: bytes) -> bytes:
        """Return the entry of one plain event (see ``plain``), while nothing is owing: the hot path."""
        self.seq = seq = self.seq + 1
        return b"%b%d\n%b" % (self._start, seq, data) if self.ids is OWN else data

    def number_plain_blocks(self, blocks: list[bytes]) -> list[bytes]:
        """The same for the blocks of several."""
        first = self.seq + 1
        self.seq += len(blocks)
        if self.ids is OWN:
            start = self._start
            return [b"%b%d\n%b\n\n" % (start, seq, block) for seq, block in enumerate(blocks, first)]
        return [block + b"\n\n" for block in blocks]

    def number(self, blocks: list[bytes]) -> Numbered:
        """Return the wire form of ``blocks``, numbered from ``seq`` + 1."""
        if self.as_it_came:
            return self._number_as_it_came(blocks)
        entries: list[bytes] = []
        pieces: list[bytes] | None = None  # what goes out, where that is more than the entries
        for index, block in enumerate(blocks):
            retry = self.retry
            if _names_a_line(block):
                if self._note_own_lines(block):  # this block brought the upstream's first id
                    rest = self._number_as_it_came(blocks[index:])
                    return Numbered(b"".join(pieces or entries) + rest.wire, entries + rest.entries)
                block = _without_own_lines(block)
            if has_data(block):
                entry = self._entry(block)
                entries.append(entry)
                if pieces is not None:
                    pieces.append(entry)
            elif self._retry_due and self.retry != retry:
                pieces = entries.copy() if pieces is None else pieces
                pieces.append(self._retry_line())
        if pieces is not None:
            return Numbered(b"".join(pieces), entries)
        return Numbered(entries[0] if len(entries) == 1 else b"".join(entries), entries)

    def flush(self, pending: bytes) -> bytes:
        """Return what still goes out when the upstream ends with ``pending``, a block without its end.

        It is no event, but a client acts on a ``retry`` line, and sees a comment, as soon as the line
        has ended; both would have reached it without us.
        """
        lines = []
        for line in pending.split(b"\n")[:-1]:
            name, value = next(fields(line))
            if name == b"retry" and is_digits(value) and self._retries:
                self.retry = int(value)
                lines.append(self._retry_line())
            elif line.startswith(b":") and self.as_it_came:
                lines.append(line + b"\n")
        return b"".join(lines)

    def _entry(self, block: bytes) -> bytes:
        self.seq += 1
        if self.ids is Ids.OWN:
            entry = b"%b%d\n%b\n\n" % (self._start, self.seq, block)
        else:
            entry = _sheltered(block) + b"\n\n"
        if self._retry_due and self.retry is not None:
            self._retry_due = False
            entry = with_retry(entry, self.retry)
        return entry

    def _retry_line(self) -> bytes:
        """A line of its own acts at once, and is part of no event until the next block's lines come."""
        return b"retry: %d\n" % (self.retry or 0)

    def _number_as_it_came(self, blocks: list[bytes]) -> Numbered:
        entries, pieces = [], []
        for block in blocks:
            if _names_a_line(block):
                self._note_own_lines(block)
            piece = _sheltered(block) + b"\n\n"
            pieces.append(piece)
            if has_data(block):
                entries.append(self._prefix + piece)
                self._prefix = b""
            elif not _is_comment(block):
                self._prefix = _newest(self._prefix + piece)  # a reader that comes later needs it too
        self.seq += len(entries)
        return Numbered(b"".join(pieces), entries)

    def _note_own_lines(self, block: bytes) -> bool:
        """Remember what the lines say that are the sidecar's to write; tell whether the upstream takes
        over with them.
        """
        takes_over = False
        for name, value in fields(block):
            if name == b"id" and b"\0" not in value:
                self.last_id = value
                takes_over = self._follow
            elif name == b"retry" and is_digits(value):
                self.retry = int(value)
                self._retry_due = self._retries
        if takes_over:
            self.ids = Ids.UPSTREAM
        return takes_over


OWN_FIELDS = (b"id", b"retry")


def with_retry(entry: bytes, milliseconds: int) -> bytes:
    """Return a wire block with a ``retry`` line, behind its ``id`` line where it has one.

    A block that brings the upstream's own ``retry`` keeps that one.
    """
    if b"\nretry:" in entry or entry.startswith(b"retry:"):
        return entry
    line = b"retry: %d\n" % milliseconds
    if entry.startswith(b"id: "):
        head, newline, rest = entry.partition(b"\n")
        return head + newline + line + rest
    return line + entry


def _without_own_lines(block: bytes) -> bytes:
    lines = block.split(b"\n")
    return b"\n".join(line for line in lines if line.partition(b":")[0] not in OWN_FIELDS)


def _names_a_line(block: bytes) -> bool:
    """Whether an ``id`` or ``retry`` line may stand in the block: cheap, and never wrongly false."""
    return b"\nid" in block or b"\nretry" in block or block.startswith(OWN_FIELDS)


def _sheltered(block: bytes) -> bytes:
    """Keep a block that begins with the bytes of a BOM from losing them: a client strips a BOM where
    the stream begins, and for some reader the stream may begin here.
    """
    return b":\n" + block if block.startswith(BYTE_ORDER_MARK) else block


def _newest(prefix: bytes) -> bytes:
    """Keep a run of blocks within its bound: the newest win, and none is cut in two."""
    if len(prefix) <= MAX_PREFIX_BYTES:
        return prefix
    return prefix[-MAX_PREFIX_BYTES:].partition(b"\n\n")[2]


def _is_comment(block: bytes) -> bool:
    return all(line.startswith(b":") for line in block.split(b"\n"))
