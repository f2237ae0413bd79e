"""Serving a stream over WebSocket: the reader whose blocks leave as frames."""

from __future__ import annotations

import asyncio
from typing import Protocol

from proxy.errors import Gap
from proxy.server.follower import Follower
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.stream.frames import Framing, gap_frame
from proxy.stream.reader import TAKE_BYTES


class Line(Protocol):
    """The connection behind a reader, which it may share with others."""

    transport: asyncio.Transport

    @property
    def full(self) -> bool:
        """Whether the socket takes no more for now."""

    def write(self, frames: bytes) -> None:
        """Give frames to the socket."""

    def wake_up(self) -> None:
        """Look at the readers: the socket is full, or a stream is over."""


class WsReader(Follower):
    """One WebSocket connection's way through one stream.

    ``lost`` is why it cannot go on, where that is so. Comments, and whatever stands between blocks, have no
    frames.
    """

    __slots__ = ("_framing", "_line", "_send", "lost")

    def __init__(self, hub: Hub, relay: Relay, line: Line, cursor: int) -> None:
        super().__init__(hub, relay, cursor, retry=None)
        self._line = line
        self._send = line.transport.write  # for what comes live: the hot path
        self._framing = Framing(relay.id)
        self.lost: Gap | None = None

    @property
    def relay(self) -> Relay:
        """The stream."""
        return self._relay

    @property
    def over(self) -> bool:
        """Whether the connection has nothing more to get of the stream."""
        return self._over()

    @property
    def dropped(self) -> bool:
        """Whether it is over before the stream is."""
        return self._dropped

    def begin(self) -> None:
        """Write what there is."""
        self._relay.poll()
        self._begun = True
        self.pump()

    # What the relay calls

    @property
    def full(self) -> bool:
        """Whether the socket takes no more for now."""
        return self._line.full

    def send_live(self, wire: bytes) -> None:
        """Write what was just logged. ``wire`` may hold more than the log: what is no event."""
        log, before = self._log, self._cursor
        self._cursor = last = log.last
        if last == before + 1:
            frames = self._framing.event(last, log.newest)
        else:
            frames = self._framing.events(before + 1, log.after(before, len(wire) + TAKE_BYTES))
        try:
            self._send(frames)
        except RuntimeError:
            if not self._line.transport.is_closing():  # uvloop's raise then
                raise

    def send_between(self, wire: bytes) -> None:
        """Nothing: what is not logged is no event."""

    def take(self, budget: int = TAKE_BYTES) -> bytes:
        """Return the next blocks as frames; nothing, and ``live``, at the head. Raises Gap."""
        told = b""
        if self._cursor + 1 < self._log.first:
            told = gap_frame(self._relay.id, *self._skip_gap())
        first = self._cursor + 1
        entries = self._take_entries(budget)
        self.live = not entries
        return told + self._framing.events(first, entries)

    def dismiss(self, retry: int) -> None:
        """Stop between two blocks: the connection is about to be closed."""
        if not self._dropped:
            self._drop("drain")
            self._wake_up()

    def _lost(self, gap: Gap) -> None:
        super()._lost(gap)
        self.lost = gap

    def _write(self, data: bytes) -> None:
        self._line.write(data)

    def _wake_up(self) -> None:
        self._line.wake_up()
