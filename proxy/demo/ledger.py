"""What the provider saw: one record a request, the newest thousand, and a way to wait for a change.

This is how a test looks at the sidecar from the other side: when a request came, what it carried,
and when its connection went away.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

#: Records held; the oldest give way. Enough for a kill test, too few to matter in memory.
MAX_RECORDS = 1000


class State(StrEnum):
    """How a request stands. MISBEHAVED: the provider itself ended it badly, as it was asked to.

    A WebSocket is FINISHED when it was closed, whoever began; CLIENT_GONE when it was lost without a close.
    """

    RUNNING = "running"
    FINISHED = "finished"
    CLIENT_GONE = "client_gone"
    MISBEHAVED = "misbehaved"


@dataclass(slots=True, kw_only=True)
class Record:
    """One request. ``path`` and ``query`` are as they came on the wire; ``events`` counts blocks with data.

    ``started`` is in seconds since the epoch, ``closed_after_seconds`` None while the request runs.

    Of a WebSocket ``events`` counts the messages sent to the client; ``close_code`` and ``close_reason`` are
    what its close frame said: 1005 for a frame without a code, 1006 when it went without one, None
    while it runs.
    """

    number: int
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    changed: Callable[[Record], None]
    started: float = field(default_factory=time.time)
    state: State = State.RUNNING
    streaming: bool = False
    events: int = 0
    closed_after_seconds: float | None = None
    close_code: int | None = None
    close_reason: str = ""
    _opened: float = field(default_factory=time.monotonic)

    @property
    def running(self) -> bool:
        """Whether the request still waits for something."""
        return self.state is State.RUNNING

    def header(self, name: str) -> str | None:
        """The first value of a header field, whatever the case of its name; None without one."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def begin_stream(self) -> None:
        """The request turned out to want a stream."""
        self.streaming = True
        self.changed(self)

    def count_events(self, number: int) -> None:
        """``number`` events were written."""
        self.events += number
        self.changed(self)

    def note_close(self, code: int, reason: str = "") -> None:
        """The client's WebSocket was closed so."""
        self.close_code, self.close_reason = code, reason
        self.changed(self)

    def end(self, state: State) -> None:
        """The request is over. Only the first end counts: a client also goes when it was dropped."""
        if not self.running:
            return
        self.state = state
        self.closed_after_seconds = time.monotonic() - self._opened
        self.changed(self)

    def as_json(self) -> dict[str, Any]:
        """The record as the provider's own endpoints show it."""
        return {
            "number": self.number,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "started": self.started,
            "state": self.state,
            "streaming": self.streaming,
            "events": self.events,
            "closed_after_seconds": self.closed_after_seconds,
            "close_code": self.close_code,
            "close_reason": self.close_reason,
        }


class Ledger:
    """The records, oldest first, numbered from 1."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque(maxlen=MAX_RECORDS)
        self._last = 0
        self._streams: set[int] = set()  # numbers of the streams that run, held or not
        self._waiting: set[asyncio.Future[None]] = set()

    def open(self, *, method: str, target: str, headers: list[tuple[str, str]]) -> Record:
        """Begin a record for a request whose request-target is ``target``."""
        self._last += 1
        path, _, query = target.partition("?")
        record = Record(
            number=self._last, method=method, path=path, query=query, headers=headers, changed=self._note
        )
        self._records.append(record)
        self._note(record)
        return record

    @property
    def records(self) -> list[Record]:
        """The records held, oldest first."""
        return list(self._records)

    @property
    def open_streams(self) -> int:
        """Number of streams that run now."""
        return len(self._streams)

    def find(self, number: int) -> Record | None:
        """The record of that number, or None when it never was or is no longer held."""
        return next((record for record in self._records if record.number == number), None)

    async def until(self, condition: Callable[[], bool], *, timeout: float = 30.0) -> None:
        """Return as soon as ``condition()`` holds, looked at after every change; TimeoutError otherwise."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._change()

    async def _change(self) -> None:
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        try:
            await change
        finally:
            self._waiting.discard(change)

    def _note(self, record: Record) -> None:
        if record.streaming and record.running:
            self._streams.add(record.number)
        else:
            self._streams.discard(record.number)
        for change in self._waiting:
            if not change.done():
                change.set_result(None)
