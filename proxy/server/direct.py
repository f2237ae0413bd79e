"""The fast path's first half: an upstream's bytes, taken in the very call in which they arrive.

aiohttp hands a body to its reader through a buffer, a future and a task. That is three steps of the
event loop for one event, and more time than the rest of a proxy takes. Here the protocol that aiohttp
made for the connection calls the stream directly, out of ``data_received``:

* ``DirectProtocol`` is aiohttp's own protocol, still with aiohttp's parser behind it. After each read it
  tells its *tap* to fetch from the body what there is.
* One form of read is so common that it is worth knowing: exactly one whole chunk, as an upstream writes
  one event. Where the parser stands between two chunks it would stand between two chunks again after it,
  so it need not see that read at all. Any other read goes the parser's way; so does everything that is
  not the middle of a chunked body: heads, lengths, trailers, ends, errors.
* ``DirectSource`` is the tap of one response: a ``Source`` like ``TaskSource``, with the same meaning of
  pause, resume and close. A body in a content coding, and a connection that is not ours to tap (a
  configuration can switch the fast path off), are read by ``TaskSource``, the ordinary way.

Backpressure is the transport's own: a paused source pauses the connection, so that the kernel's window
fills and the upstream waits.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from aiohttp.streams import StreamReader

from proxy.server.coding import Decoder, Identity
from proxy.server.source import Consumer, Source, Spawn, TaskSource, broken_by
from proxy.server.wire import UpstreamProtocol, salvaged
from proxy.stream.cursor import short

if TYPE_CHECKING:
    from proxy.server.hub import Hub
    from proxy.server.upstream import Response

CRLF = b"\r\n"

#: After a read of so many bytes, the other connections have their turn. (uvloop would go on with this one,
#: up to 32 reads of 256 KB, as long as it brings more.)
READ_A_TURN = 64 * 1024

#: Bytes of a chunk's framing besides the digits of its size: two line ends.
FRAMING = 4


Receive = Callable[[bytes], None]


class Tap(Protocol):
    """Who takes a connection's body."""

    def receive(self, data: bytes) -> None:
        """Take one whole chunk's bytes."""

    def arrived(self) -> None:
        """Hear that the body may hold more bytes, or its end."""

    def rest(self) -> None:
        """Read on in the loop's next turn."""


class DirectProtocol(UpstreamProtocol):
    """aiohttp's client protocol, telling a tap of every read of a response's body."""

    # Slots, though aiohttp's class has a dictionary: what every event asks for is found faster there.
    __slots__ = ("_take", "_tap")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._tap: Tap | None = None
        self._take: Receive | None = None  # the tap's ``receive``, while the parser stands between two chunks

    def open_tap(self, tap: Tap) -> None:
        """Tell ``tap`` of every read from now on."""
        self._tap = tap
        self._take = None  # unknown: the parser may have begun a chunk

    def close_tap(self) -> None:
        """Go on as aiohttp would."""
        self._tap = self._take = None

    def data_received(self, data: bytes) -> None:
        """Take bytes from the upstream: the hot path. (Without any, the parser goes on after a pause.)"""
        take = self._take
        if take is not None:
            head = chunk_head(len(data))
            if data.startswith(head) and data.endswith(CRLF):
                take(data[len(head) : -2])
                return
        tap = self._tap
        if tap is None or not data:
            super().data_received(data)
        else:
            self._parse(data, tap)
            tap.arrived()
            if len(data) >= READ_A_TURN:
                tap.rest()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the body, and tell the tap."""
        super().connection_lost(exc)
        if self._tap is not None:
            self._tap.arrived()

    def pause_reading(self) -> None:
        """Read no more. What comes all the same, out of TLS's buffers, is the body's to keep.

        The parser is not paused, as aiohttp would, which pauses out of the parser's own calls only: in any
        other moment it would stop inside a later read, and keep the rest of that until the one after it.
        """
        self._take = None
        if self._tap is None:
            super().pause_reading()
        else:
            self._reading_paused = True
            self._pause_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on. A body asks for it whenever it was read from, mostly without need."""
        if self._reading_paused or self._tap is None:
            super().resume_reading(resume_parser)

    def _parse(self, data: bytes, tap: Tap) -> None:
        """Give ``data`` to the parser, and find out where it stands.

        A chunk that ends with the very last byte of a read was not whole before that byte.
        """
        body = self._payload
        if body is None or not data.endswith(CRLF):
            self._take = None
            super().data_received(data)
            return
        super().data_received(data[:-1])
        inside = not _whole(body)
        super().data_received(data[-1:])
        between = inside and _whole(body) and not self._reading_paused
        self._take = tap.receive if between else None


def _whole(body: StreamReader) -> bool:
    """Whether all that a chunked body has received belongs to chunks that have ended."""
    ends = body._http_chunk_splits
    return ends is not None and len(ends) > 0 and ends[-1] == body.total_bytes


@functools.lru_cache(maxsize=4096)
def chunk_head(size: int) -> bytes | tuple[()]:
    """Return the size line of the chunk that takes ``size`` bytes with its framing (RFC 9112 §7.1).

    Where there is no such chunk, or it is too large to be taken at once, return what nothing begins with.
    """
    if size >= READ_A_TURN:
        return ()
    for digits in range(1, 8):
        head = b"%x" % max(size - FRAMING - digits, 0)
        if len(head) == digits and head != b"0":
            return head + CRLF
    return ()


class DirectSource:
    """Pushes a response's bytes to a consumer out of the protocol's own calls."""

    def __init__(self, response: Response, consumer: Consumer, loop: asyncio.AbstractEventLoop) -> None:
        self.receive = consumer.receive
        self._response = response
        self._content = response.answer.content
        self._consumer = consumer
        self._loop = loop
        self._connection = tappable(response)
        self._open = True
        self._paused = False

    def start(self, spawn: Spawn) -> None:
        """Begin to read: in the next turn of the loop, as a task would."""
        if self._connection is not None:
            self._connection.open_tap(self)
        self._loop.call_soon(self.arrived)

    def poll(self) -> None:
        """Push what has come already."""
        self.arrived()

    def pause(self) -> None:
        """Read no more until ``resume``."""
        self._paused = True
        if self._content.is_eof():  # what was just read made room for the end
            self._let_go()
        elif self._connection is not None:
            self._connection.pause_reading()

    def rest(self) -> None:
        """Read on in the loop's next turn."""
        if self._open and not self._paused and self._connection is not None:
            self._connection.pause_reading()
            self._loop.call_soon(self._go_on)

    def resume(self) -> None:
        """Read on: in the next turn, since whoever calls is in the middle of reading what there was."""
        self._paused = False
        self._loop.call_soon(self._go_on)

    def close(self) -> None:
        """Drop the upstream connection."""
        self._open = False
        self._let_go()
        self._response.close()

    def arrived(self) -> None:
        """Take what the body holds, and its end."""
        content = self._content
        if content.is_eof():
            self._let_go()  # aiohttp has given the connection back, and its next response is not ours
        try:
            while self._open and not self._paused:
                error = content.exception()
                if data := content.read_nowait() if error is None else salvaged(content):
                    if content.at_eof():
                        self._consumer.receive_last(data)
                    else:
                        self._consumer.receive(data)
                elif error is not None or content.at_eof():
                    self._end(None if error is None else broken_by(error))
                else:
                    break
        except Exception as error:  # a fault of ours, and no reason to let the readers wait
            self._end(f"{type(error).__name__}: {error}")
            raise

    def _go_on(self) -> None:
        if self._open and not self._paused:
            if self._connection is not None:
                self._connection.resume_reading()
            self.arrived()

    def _end(self, error: str | None) -> None:
        if self._open:
            self.close()
            self._consumer.ended(error)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close_tap()
            self._connection = None


def tappable(response: Response) -> DirectProtocol | None:
    """Return the connection of a response whose body has not ended."""
    connection = response.answer.connection
    protocol = None if connection is None else connection.protocol
    return protocol if isinstance(protocol, DirectProtocol) else None


def source_of(hub: Hub, response: Response, coding: Decoder, consumer: Consumer, stream_id: str) -> Source:
    """Return what pushes a response's body: directly, or where that cannot be, by a task."""
    if hub.config.fast_path and isinstance(coding, Identity):
        return DirectSource(response, consumer, hub.loop)
    return TaskSource(response, coding, consumer, f"upstream of {short(stream_id)}")
