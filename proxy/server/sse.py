"""Serving a stream as Server-Sent Events: the answer's headers, and the reader behind it.

The answer's body is written straight to the connection's transport, in whole blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from aiohttp import web
from multidict import CIMultiDict

from proxy.server.follower import Follower
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.server.room import wait_for_room
from proxy.server.stream_head import StreamAnswer, answer_headers
from proxy.server.wheel import Alarm
from proxy.server.wire import Answer, FrontProtocol, as_chunk, is_chunked
from proxy.stream.reader import TAKE_BYTES

#: Seconds between the last bytes and an end by which a client is told that something is missing. A page's
#: ``fetch`` fails as soon as it sees such an end, and what its reader has not taken by then is lost (WHATWG
#: Streams, ReadableStreamDefaultControllerError: "Perform ! ResetQueue(controller)"), though it came.
PARTING_SECONDS = 0.25


class SseReader(Follower):
    """One client connection that reads a stream as SSE.

    ``prelude`` is written before anything of the log: what this reader missed elsewhere.
    """

    __slots__ = (
        "_alarm",
        "_answer",
        "_chunked",
        "_last",
        "_last_written",
        "_prelude",
        "_protocol",
        "_request",
        "_transport",
        "_wake",
    )

    def __init__(
        self, hub: Hub, relay: Relay, request: web.BaseRequest, answer: Answer, cursor: int, prelude: bytes
    ) -> None:
        super().__init__(hub, relay, cursor, retry=relay.retry)
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._request = request
        self._answer = answer
        self._transport = request.transport
        self._protocol = cast(FrontProtocol, request.protocol)
        self._wake: asyncio.Future[None] | None = None
        self._last_written = hub.loop.time()
        self._alarm = Alarm(self._beat)
        self._last = b""  # what leaves with the answer's end
        self._chunked = is_chunked(request)
        self._prelude = prelude

    async def serve(self, caller: str, *, resumed: bool) -> web.StreamResponse:
        """Write the stream until it is over, the client leaves (cancels this), or takes nothing.

        Where something is missing at the end, and the stream does not say so itself, the connection is
        closed before the body has ended, so that the client notices.
        """
        hub, relay, protocol = self._hub, self._relay, self._protocol
        send = relay.route.timeouts.send
        self.enter(caller, resumed=resumed)
        try:
            await self._answer.prepare(self._request)
            self._transport.set_write_buffer_limits(high=relay.route.high_water)
            protocol.on_full = self._fill_up
            hub.wheel.set(self._alarm, self._last_written + relay.route.heartbeat)
            await self._begin(send)
            if not relay.finished:
                protocol.rest()
            while not self._over():
                if protocol.writing_paused:
                    await wait_for_room(self._request, send)
                else:
                    self._wake = hub.loop.create_future()
                    await self._wake
                if not protocol.writing_paused:  # also where it was full, and had room again at once
                    self.pump()
            await wait_for_room(self._request, send)
        except TimeoutError:
            relay.tally.dropped("send_timeout")
            self._transport.abort()
            return self._answer
        finally:
            protocol.on_full = None
            hub.wheel.drop(self._alarm)
            self.exit(caller)
        if self._ended_well():
            await self._answer.write_eof(self._last)
            relay.was_read = True
        else:
            await self._answer.put(self._last)
            await asyncio.sleep(PARTING_SECONDS)
            self._close()
        return self._answer

    async def _begin(self, send: float) -> None:
        """Write the answer's head, and in the same write what there is to write behind it.

        An upstream's first events often come with its head, and a short stream whole.
        """
        self._relay.poll()
        while self._prelude:
            piece, self._prelude = self._prelude[:TAKE_BYTES], self._prelude[TAKE_BYTES:]
            self._relay.tally.wrote(len(piece))
            await self._answer.put(piece)
            await wait_for_room(self._request, send)
        if not (self._relay.finished and self._take_last()):
            piece = self._next()
            self._relay.tally.wrote(len(piece))
            await self._answer.put(piece)
        self._begun = True
        self.pump()

    # What the relay calls

    @property
    def full(self) -> bool:
        """Whether the socket takes no more for now."""
        return self._protocol.writing_paused

    def send_live(self, wire: bytes) -> None:
        """Write what was just logged."""
        try:
            self._transport.write(as_chunk(wire) if self._chunked else wire)
        except RuntimeError:
            if not self._transport.is_closing():  # uvloop's raise then; the handler is about to be cancelled
                raise

    def _fill_up(self) -> None:
        """Hear that the socket is full."""
        self.fall_behind()
        self._wake_up()

    def send_between(self, wire: bytes) -> None:
        """Write what is not logged, if its place is here: behind what was logged before."""
        if self.lag_events:
            return
        if self._begun:
            self._write(wire)
            self._relay.tally.wrote(len(wire))
        else:
            self._prelude += wire  # it came with the upstream's head

    def _next(self) -> bytes:
        if self._retry is not None:
            self._retry = self._relay.retry  # the upstream may have named one since this reader came
        return super()._next()

    def _take_last(self) -> bool:
        """Keep the rest of a finished stream for the answer's last write, unless it is too much for one."""
        if self.lag_bytes > TAKE_BYTES:
            return False
        if self.lag_events and not self._dropped:
            self._last = self._next()
            self._relay.tally.wrote(len(self._last))
        return True

    def dismiss(self, retry: int) -> None:
        """Close between two blocks. The line is not a block, so no SDK stumbles over it; an
        EventSource takes the hint, comes back, and resumes.
        """
        if not self._dropped:
            if self._relay.retry is not None and self._begun and not self._protocol.writing_paused:
                self._write(b"retry: %d\n" % retry)
            self._drop("drain")
            self._wake_up()

    # What happens meanwhile

    def _ended_well(self) -> bool:
        """Whether the reader has everything, up to an end that the stream itself has told."""
        terminal = self._relay.log.terminal
        return not self._dropped and terminal is not None and terminal.told and not self.lag_events

    def _beat(self, now: float) -> float:
        """Write a heartbeat if nothing else was written for as long."""
        heartbeat = self._relay.route.heartbeat
        last = self._last_written
        if self.live:
            last = max(last, self._relay.tally.last_sent)
        if now < last + heartbeat:
            return last + heartbeat
        if self._begun and not (self._over() or self._protocol.writing_paused):
            self._write(self._relay.form.heartbeat)
            self._relay.tally.beat()
        return now + heartbeat

    def _write(self, data: bytes) -> None:
        self._last_written = self._hub.loop.time()
        if not self._transport.is_closing():
            self._transport.write(as_chunk(data) if self._chunked else data)

    def _close(self) -> None:
        """End the connection after what is in its buffer, but do not wait for ever for a peer that
        takes nothing.
        """
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._hub.loop.call_later(self._relay.route.timeouts.send, self._transport.abort)

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def serve_stream(
    hub: Hub,
    relay: Relay,
    request: web.BaseRequest,
    *,
    caller: str,
    cursor: int = 0,
    resumed: bool = False,
    extra: CIMultiDict[str] | None = None,
    prelude: bytes = b"",
) -> Coroutine[Any, Any, web.StreamResponse]:
    """Answer with a stream from ``cursor`` on, and return when the answer is over.

    ``extra`` are header fields of this answer alone (the first one's Set-Cookie, for example).
    What is returned raises TooManyReaders or CapacityError before anything is written.
    """
    answer = StreamAnswer(answer_headers(relay, request, hub.config))
    if extra is not None:
        answer.headers.extend(extra)
    if resumed:
        answer.headers["Stream-Resumed-From"] = str(cursor)
    return SseReader(hub, relay, request, answer, cursor, prelude).serve(caller, resumed=resumed)
