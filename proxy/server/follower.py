"""A reader behind a socket: what SSE and WebSocket have in common.

Blocks go out from wherever they become available: a read of the upstream, a drained socket, an alarm. The
connection's task only waits; it is woken when the socket is full, and when the stream is over.
"""

from __future__ import annotations

from abc import abstractmethod

from proxy.errors import Gap
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.stream.reader import Reader


class Follower(Reader):
    """One client's way through one stream, as far as its socket has room: a ``Tap`` of the relay."""

    __slots__ = ("_begun", "_dropped", "_hub", "_relay")

    def __init__(self, hub: Hub, relay: Relay, cursor: int, *, retry: int | None) -> None:
        super().__init__(relay.log, cursor, retry=retry, signal_gaps=relay.signal_gaps)
        self._hub = hub
        self._relay = relay
        self._begun = False  # whether what stands before the first block is written
        self._dropped = False

    # What a connection is

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether the socket takes no more for now."""

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """Give bytes to the socket."""

    @abstractmethod
    def _wake_up(self) -> None:
        """Let the connection's task see what has happened."""

    @abstractmethod
    def send_live(self, wire: bytes) -> None:
        """Write what was just logged."""

    @abstractmethod
    def send_between(self, wire: bytes) -> None:
        """Write what is not logged, if its place is here: behind what was logged before."""

    @abstractmethod
    def dismiss(self, retry: int) -> None:
        """Close between two blocks; the client may come again after so many milliseconds."""

    # Coming and going

    def enter(self, caller: str, *, resumed: bool) -> None:
        """Become a reader of the stream. Raises TooManyReaders or CapacityError."""
        self._hub.admit_reader(self._relay, caller)
        self._relay.join(self)
        if resumed:
            self._relay.tally.resumed("resumed")

    def exit(self, caller: str) -> None:
        """Be a reader no more."""
        self._relay.leave(self)
        self._hub.dismiss_reader(caller)

    # What the relay calls

    def pump(self) -> None:
        """Write blocks from the log until its head, or until the socket is full."""
        if not self._begun or self._relay.corked:
            return  # its turn comes
        if self.full and not self.live:
            self._wake_up()
            return
        if not (self._relay.finished and self._take_last()):
            while not (self.live or self._dropped or self.full):
                data = self._next()
                if not data:
                    break
                self._write(data)
                self._relay.tally.wrote(len(data))
        if self.full:
            self.fall_behind()
        self._relay.advanced()
        if self._over() or self.full:
            self._wake_up()

    def _next(self) -> bytes:
        """Take what comes next from the log."""
        try:
            return self.take()
        except Gap as gap:
            self._lost(gap)
            return b""

    def _lost(self, gap: Gap) -> None:
        """Hear that the next block is gone, and that the stream does not signal gaps."""
        self._drop("gap")

    def _take_last(self) -> bool:
        """Keep the rest of a finished stream for the answer's end; False where it is to be written now."""
        return False

    def _drop(self, cause: str) -> None:
        """Give the reader nothing more; its client will notice, and may come back."""
        self._dropped = True
        self._relay.tally.dropped(cause)

    def _over(self) -> bool:
        """Whether there is nothing more to write."""
        return self._dropped or (self._relay.finished and not self.lag_events)
