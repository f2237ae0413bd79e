"""One client's way through a log: replay what it missed, then live, no block twice, none missing.

A reader holds no queue. Behind the head it is a cursor, and ``take`` hands out the blocks that
follow. At the head it is *live*: the same bytes go to every live reader as they are logged, and its
cursor is by definition the log's last block. The hand-off is a single assignment in ``take``, made
in the same step in which the log was found to hold nothing more, so nothing can slip in between.
"""

from __future__ import annotations

from proxy.errors import Gap
from proxy.stream.log import Log
from proxy.stream.numbering import with_retry

#: How much a reader takes from the log in one step, in bytes: a few socket buffers.
TAKE_BYTES = 128 * 1024


class Reader:
    """A cursor into ``log``, standing behind block ``cursor`` (0: before the first).

    ``retry`` is the reconnection time in milliseconds that the connection's first block carries, or
    None for dialects that must not have one. With ``signal_gaps`` a reader that fell out of the
    log's window is told so by a block and goes on; otherwise ``take`` raises Gap. ``replayed`` counts
    the blocks handed out that had been logged before the reader came.
    """

    __slots__ = ("_cursor", "_head", "_log", "_offset", "_retry", "_signal_gaps", "live", "replayed")

    def __init__(self, log: Log, cursor: int, *, retry: int | None, signal_gaps: bool) -> None:
        self._log = log
        self._cursor = cursor
        self._offset = log.size_before(cursor)
        self._retry = retry
        self._signal_gaps = signal_gaps
        self._head = log.last  # so many blocks there were before this reader came
        self.live = False
        self.replayed = 0

    @property
    def cursor(self) -> int:
        """Seq of the last block that was handed out."""
        return self._log.last if self.live else self._cursor

    @property
    def lag_bytes(self) -> int:
        """How many bytes of the log are still to be handed out."""
        return 0 if self.live else self._log.written - self._offset

    @property
    def lag_events(self) -> int:
        """How many blocks of the log are still to be handed out."""
        return 0 if self.live else self._log.last - self._cursor

    def take(self, budget: int = TAKE_BYTES) -> bytes:
        """Return the next blocks as they go on the wire; nothing, and ``live``, at the head.

        Raises Gap where blocks are gone and gaps are not signalled.
        """
        told = b""
        if self._cursor + 1 < self._log.first:
            told = gap_block(*self._skip_gap())
        entries = self._take_entries(budget)
        if not entries:
            self.live = self._retry is None
            return told
        if self._retry is not None:
            entries[0] = with_retry(entries[0], self._retry)
            self._retry = None
        return told + b"".join(entries)

    def _take_entries(self, budget: int) -> list[bytes]:
        """Move over the next blocks, and return them."""
        entries = self._log.after(self._cursor, budget)
        self.replayed += max(min(len(entries), self._head - self._cursor), 0)
        self._cursor += len(entries)
        self._offset += sum(map(len, entries))
        return entries

    def fall_behind(self) -> None:
        """Leave the live state: blocks logged from now on wait in the log until they are taken."""
        if self.live:
            self._cursor = self._log.last
            self._offset = self._log.written
            self.live = False

    def _skip_gap(self) -> tuple[int, int]:
        """Move over blocks that are gone; return the first and the last of them. Raises Gap."""
        missed, first = self._cursor + 1, self._log.first
        if not self._signal_gaps:
            raise Gap(self._cursor, first)
        self._cursor = first - 1
        self._offset = self._log.size_before(self._cursor)
        return missed, first - 1


def gap_block(first: int, last: int | None) -> bytes:
    """Return the block that tells a reader that ``first`` … ``last`` are gone (None: nobody knows)."""
    return b'event: stream-gap\ndata: {"from":%d,"to":%b}\n\n' % (
        first,
        b"null" if last is None else b"%d" % last,
    )
