"""Serving a stream as Server-Sent Events: the answer's headers, and the reader behind it.

The answer's body is written straight to the connection's transport, in whole blocks, from wherever
blocks become available: a read of the upstream, a drained socket, an alarm. The handler's task only
waits; it is woken when the socket is full, and when the stream is over.
"""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import hdrs, web
from multidict import CIMultiDict

from proxy.config import Config
from proxy.errors import Gap
from proxy.server import cors, guard
from proxy.server.headers import NOT_RETURNED, end_to_end
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.server.room import wait_for_room
from proxy.server.wheel import Alarm
from proxy.server.wire import Answer, FrontProtocol, as_chunk, is_chunked
from proxy.stream.reader import TAKE_BYTES, Reader

EVENT_STREAM = "text/event-stream"

#: Upstream fields that describe bytes which are no longer the ones that are sent.
NOT_OF_A_STREAM = (
    "content-length",
    "content-encoding",
    "cache-control",
    "x-accel-buffering",
    "accept-ranges",
    "content-digest",
    "content-md5",
    "digest",
    "etag",
    "last-modified",
    "repr-digest",
    # An upstream that is a sidecar too says these of its own stream.
    "stream-id",
    "stream-closed",
    "stream-resumed-from",
)

#: Upstream cache directives that stay in force.
KEPT_DIRECTIVES = ("no-store", "private")


def stream_headers(upstream: CIMultiDict[str], *, credentials: bool) -> CIMultiDict[str]:
    """Return what every answer of a stream carries, from the upstream's header fields."""
    drop = (*NOT_OF_A_STREAM, *(NOT_RETURNED if credentials else ()))
    headers = end_to_end(upstream, drop)
    if ";" not in headers.get(hdrs.CONTENT_TYPE, ""):
        headers[hdrs.CONTENT_TYPE] = f"{EVENT_STREAM}; charset=utf-8"
    said = {
        part.strip().lower() for value in upstream.getall(hdrs.CACHE_CONTROL, ()) for part in value.split(",")
    }
    kept = [directive for directive in KEPT_DIRECTIVES if directive in said]
    headers[hdrs.CACHE_CONTROL] = ", ".join(["no-cache", "no-transform", *kept])
    headers["X-Accel-Buffering"] = "no"
    return headers


def answer_headers(relay: Relay, request: web.BaseRequest, config: Config) -> CIMultiDict[str]:
    """Return the header fields of one answer: the stream's, and those of this reader."""
    headers = relay.headers.copy()
    headers["Stream-Id"] = relay.id
    at = f"{config.public_path}/_streams/{relay.id}"
    links = [f'<{at}>; rel="resume"'] if relay.recorded else []
    headers.add(hdrs.LINK, ", ".join([*links, f'<{at}/cancel>; rel="cancel"']))
    if relay.log.terminal is not None:
        headers["Stream-Closed"] = "true"
    cors.allow(request, headers, guard.allowed_origins(config, relay.route))
    return headers


class SseReader(Reader):
    """One client connection that reads a stream as SSE.

    ``prelude`` is written before anything of the log: what this reader missed elsewhere.
    """

    __slots__ = (
        "_alarm",
        "_answer",
        "_begun",
        "_chunked",
        "_dropped",
        "_hub",
        "_last",
        "_last_written",
        "_prelude",
        "_protocol",
        "_relay",
        "_request",
        "_transport",
        "_wake",
    )

    def __init__(
        self, hub: Hub, relay: Relay, request: web.BaseRequest, answer: Answer, cursor: int, prelude: bytes
    ) -> None:
        super().__init__(relay.log, cursor, retry=relay.retry, signal_gaps=relay.signal_gaps)
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._hub = hub
        self._relay = relay
        self._request = request
        self._answer = answer
        self._transport = request.transport
        self._protocol = cast(FrontProtocol, request.protocol)
        self._wake: asyncio.Future[None] | None = None
        self._last_written = hub.loop.time()
        self._alarm = Alarm(self._beat)
        self._begun = False  # whether the answer's head and the prelude are written
        self._last = b""  # what leaves with the answer's end
        self._chunked = is_chunked(request)
        self._dropped = False
        self._prelude = prelude

    async def serve(self) -> None:
        """Write the stream until it is over, the client leaves (cancels this), or takes nothing.

        Where something is missing at the end, and the stream does not say so itself, the connection is
        closed before the body has ended, so that the client notices.
        """
        route = self._relay.route
        send = route.timeouts.send
        self._transport.set_write_buffer_limits(high=route.high_water)
        self._protocol.on_full = self._fill_up
        self._relay.join(self)
        self._hub.wheel.set(self._alarm, self._last_written + route.heartbeat)
        try:
            await self._begin(send)
            if not self._relay.finished:
                self._protocol.keep_alive(True)  # which ends aiohttp's timer for idle connections, for now
            while not self._over():
                if self._protocol.writing_paused:
                    await wait_for_room(self._request, send)
                    self.pump()
                else:
                    self._wake = self._hub.loop.create_future()
                    await self._wake
            await wait_for_room(self._request, send)
        except TimeoutError:
            self._relay.tally.dropped("send_timeout")
            self._transport.abort()
            return
        finally:
            self._protocol.on_full = None
            self._hub.wheel.drop(self._alarm)
            self._relay.leave(self)
        if self._ended_well():
            await self._answer.write_eof(self._last)
        else:
            await self._answer.put(self._last)
            self._close()

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

    def send_live(self, wire: bytes, chunk: bytes) -> None:
        """Write what was just logged."""
        try:
            self._transport.write(chunk if self._chunked else wire)
        except RuntimeError:
            if not self._transport.is_closing():  # uvloop's raise then; the handler is about to be cancelled
                raise

    def _fill_up(self) -> None:
        """Hear that the socket is full."""
        self.fall_behind()
        self._wake_up()

    def send_between(self, wire: bytes) -> None:
        """Write what is not logged, if its place is here: behind what was logged before."""
        if self._begun and not self.lag_events:
            self._write(wire)
            self._relay.tally.wrote(len(wire))

    def pump(self) -> None:
        """Write blocks from the log until its head, or until the socket is full."""
        if not self._begun or self._relay.corked:
            return  # its turn comes
        if self._protocol.writing_paused and not self.live:
            self._wake_up()
            return
        if not (self._relay.finished and self._take_last()):
            while not (self.live or self._dropped or self._protocol.writing_paused):
                data = self._next()
                if not data:
                    break
                self._write(data)
                self._relay.tally.wrote(len(data))
        if self._protocol.writing_paused:
            self.fall_behind()
        self._relay.advanced()
        if self._over() or self._protocol.writing_paused:
            self._wake_up()

    def _next(self) -> bytes:
        """Take what comes next from the log."""
        if self._retry is not None:
            self._retry = self._relay.retry  # the upstream may have named one since this reader came
        try:
            return self.take()
        except Gap:
            self._drop("gap")
            return b""

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

    def _drop(self, cause: str) -> None:
        """Give the reader nothing more; its client will notice, and may come back."""
        self._dropped = True
        self._relay.tally.dropped(cause)

    # What happens meanwhile

    def _over(self) -> bool:
        """Whether there is nothing more to write."""
        return self._dropped or (self._relay.finished and not self.lag_events)

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
            self._write(self._relay.dialect.heartbeat)
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


class StreamAnswer(Answer):
    """The answer through which one reader follows a stream. Its head leaves with what follows it."""

    _send_headers_immediately = False


async def serve_stream(
    hub: Hub,
    relay: Relay,
    request: web.BaseRequest,
    *,
    caller: str,
    cursor: int = 0,
    resumed: bool = False,
    extra: CIMultiDict[str] | None = None,
    prelude: bytes = b"",
) -> web.StreamResponse:
    """Answer with a stream from ``cursor`` on, and return when the answer is over.

    ``extra`` are header fields of this answer alone (the first one's Set-Cookie, for example).
    Raises TooManyReaders or CapacityError before anything is written.
    """
    hub.admit_reader(relay, caller)
    try:
        response = StreamAnswer(headers=answer_headers(relay, request, hub.config))
        if extra is not None:
            response.headers.extend(extra)
        if resumed:
            relay.tally.resumed("resumed")
            response.headers["Stream-Resumed-From"] = str(cursor)
        await response.prepare(request)
        await SseReader(hub, relay, request, response, cursor, prelude).serve()
        return response
    finally:
        hub.dismiss_reader(caller)
