"""The body of one answer, written down as it comes: what arrived when, and no more than fits."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from proxy.doctor.dial import Request
from proxy.doctor.evidence import Arrival, Beat, Ending, Head, Heartbeat, Read, Stream
from proxy.doctor.stamp import stamp_of
from proxy.server.coding import decoder
from proxy.stream.sse import Parser, decode, has_data

#: What is kept of one stream at most: reads and events, and decoded bytes that are looked at.
MAX_RECORDS = 20_000
MAX_BYTES = 64 * 1024 * 1024

#: Blocks at the end of a stream that tell how it ended.
TAIL_BLOCKS = 16

#: Bytes of the digest by which an event is known again.
DIGEST_BYTES = 8


class Asked(Protocol):
    """When a request was sent, and when its head came."""

    @property
    def asked(self) -> float:
        """When it was sent."""

    @property
    def asked_wall(self) -> float:
        """The same by the wall clock."""

    @property
    def headed(self) -> float:
        """When its head came."""


class Transcript:
    """Takes the body's bytes as they come from the wire, and ``at`` what time. ``stream`` is the record.

    ``stalls`` is for the watcher to fill: from when to when it was kept from looking.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self.reads: list[Read] = []
        self.arrivals: list[Arrival] = []
        self.heartbeats: list[Heartbeat] = []
        self.first = b""
        self.retry: int | None = None
        self.full = False
        self.undecodable = ""
        self.stalls: list[tuple[float, float]] = []
        self._parser = Parser()
        self._decoder = decoder(head.get("Content-Encoding"))
        if self._decoder is None:
            self.undecodable = f"Content-Encoding: {head.get('Content-Encoding')[:40]}"
        self._tail: deque[bytes] = deque(maxlen=TAIL_BLOCKS)
        self._wire = self._decoded = 0
        self._comments = self._leading = 0  # of the block that has begun, and the bytes they take

    def receive(self, data: bytes, at: float) -> None:
        """Write down one read."""
        self._wire += len(data)
        for text in self._decode(data):
            self._decoded += len(text)
            self._take(text, at)
            if self._decoded >= MAX_BYTES:
                break
        begun = self._parser.pending[self._leading :]
        self.reads.append(Read(at, len(data), cut=bool(begun) and not begun.startswith(b":")))
        records = max(len(self.reads), len(self.arrivals), len(self.heartbeats))
        self.full = records >= MAX_RECORDS or self._decoded >= MAX_BYTES or bool(self._parser.overflowed)

    def stream(
        self, when: Asked, until: float, *, ending: Ending | None, request: Request | None = None
    ) -> Stream:
        """Everything, as evidence: of the request that began the stream, or of a resume."""
        return Stream(
            asked=when.asked,
            asked_wall=when.asked_wall,
            head=self.head,
            headed=when.headed,
            until=until,
            method=request.method if request is not None else "GET",
            path=request.url.raw_path if request is not None else "",
            resumes=request is not None and request.field("Last-Event-ID") is not None,
            reads=tuple(self.reads),
            arrivals=tuple(self.arrivals),
            heartbeats=tuple(self.heartbeats),
            ending=ending,
            first=self.first,
            retry=self.retry,
            tail=tuple(self._tail),
            wire=self._wire,
            decoded=self._decoded,
            undecodable=self.undecodable,
            stalls=tuple(self.stalls),
        )

    def _decode(self, data: bytes) -> Iterator[bytes]:
        if self._decoder is None or self.undecodable:
            return
        try:
            yield from self._decoder.decode(data)
        except ValueError as error:
            self.undecodable = str(error)

    def _take(self, text: bytes, at: float) -> None:
        blocks = self._parser.feed(text)
        for block in blocks:
            self._note(block, at)
        self._note_beats(blocks, text, at)

    def _note(self, block: bytes, at: float) -> None:
        event = decode(block)
        self.retry = self.retry if event.retry is None else event.retry
        if event.data is None:
            return
        data = event.data
        digest = hashlib.blake2b(f"{event.event}\n{data}".encode(), digest_size=DIGEST_BYTES).digest()
        self.first = self.first or block
        self._tail.append(block)
        self.arrivals.append(Arrival(at, len(block), event.id, digest, stamp_of(data)))

    def _note_beats(self, blocks: list[bytes], text: bytes, at: float) -> None:
        """Count the comments between events, each once, though it may stand in a block to come."""
        pending = self._parser.pending
        known = self._comments
        self._comments, self._leading = _leading_comments(pending)
        forms: list[Beat] = []
        for block in blocks:
            forms += [Beat.LINE if has_data(block) else Beat.BLOCK] * _leading_comments(block + b"\n")[0]
        # A comment alone becomes a block only by the blank line behind it: then its form is known better.
        if known and forms and forms[0] is Beat.BLOCK:
            self.heartbeats[-1] = Heartbeat(self.heartbeats[-1].at, Beat.BLOCK)
        forms += [Beat.LINE] * self._comments
        self.heartbeats += [Heartbeat(at, form) for form in forms[known:]]
        if not blocks and not pending and not text.strip(b"\r\n"):
            self.heartbeats.append(Heartbeat(at, Beat.EMPTY))


def _leading_comments(lines: bytes) -> tuple[int, int]:
    """How many whole comment lines a block begins with, and the bytes that they take."""
    count = end = 0
    while lines.startswith(b":", end) and (line_end := lines.find(b"\n", end)) >= 0:
        count, end = count + 1, line_end + 1
    return count, end
