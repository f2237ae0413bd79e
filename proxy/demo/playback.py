"""Plays one script to one client, wrong in exactly the ways that were asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from aiohttp import web

from proxy.demo.encoding import encoder
from proxy.demo.event import Event
from proxy.demo.framing import EVENT_STREAM, Framing
from proxy.demo.ledger import Record, State
from proxy.demo.misbehaviour import Misbehaviour
from proxy.demo.voice import Script

#: What OpenRouter sends while a model thinks; its blank line dispatches an empty event in some parsers.
UPSTREAM_COMMENT = ": OPENROUTER PROCESSING"


class UnframedResponse(web.StreamResponse):
    """A body without chunks and without a length, which ends when the connection does."""

    # aiohttp chunks every HTTP/1.1 body of unknown length but those of its own WebSocketResponse,
    # which turns that off by this switch.
    _length_check = False


class Outlet:
    """The way of bytes to the client: coded, cut into writes, and ended well or badly."""

    def __init__(self, request: web.Request, misbehaviour: Misbehaviour, headers: Mapping[str, str]) -> None:
        self._request = request
        self._split = misbehaviour.split
        self._encoder = encoder(misbehaviour.encoding)
        self._response = UnframedResponse() if misbehaviour.close else web.StreamResponse()
        if misbehaviour.close:
            self._response.force_close()
        self._response.headers.update(headers)
        if misbehaviour.encoding != "identity":
            self._response.headers["Content-Encoding"] = misbehaviour.encoding

    async def open(self) -> None:
        """Send the response headers."""
        await self._response.prepare(self._request)

    async def send(self, data: bytes) -> None:
        """Send ``data`` and let the event loop turn, so that each write is one of its own on the wire."""
        coded = self._encoder.encode(data)
        step = self._split or len(coded)
        for start in range(0, len(coded), step):
            await self._response.write(coded[start : start + step])
            await asyncio.sleep(0)

    async def end(self) -> web.StreamResponse:
        """End the body as HTTP wants it ended."""
        tail = self._encoder.finish()
        if tail:
            await self._response.write(tail)
        await self._response.write_eof()
        return self._response

    async def drop(self, data: bytes) -> web.StreamResponse:
        """Send half of ``data``, then cut the connection: no last chunk, no end of the coding."""
        coded = self._encoder.encode(data)
        if coded:
            await self._response.write(coded[: len(coded) // 2])
        hang_up(self._request)
        return self._response


class Playback:
    """One stream: ``script`` played to the client of ``request``, its facts entered in ``record``."""

    def __init__(
        self,
        request: web.Request,
        script: Script,
        misbehaviour: Misbehaviour,
        record: Record,
        headers: Mapping[str, str],
        framing: Framing = EVENT_STREAM,
    ) -> None:
        self._script = script
        self._framing = framing
        self._wrong = misbehaviour
        self._record = record
        self._outlet = Outlet(request, misbehaviour, headers)
        self._batch: list[bytes] = []
        self._played = 0  # events sent, and those of the batch that is about to be

    async def play(self) -> web.StreamResponse:
        """Play to the end, good or bad. CancelledError and ConnectionError mean that the client went."""
        await self._outlet.open()
        events = self._script.events()
        while True:
            if self._turns():
                await self._flush()
                if ended := await self._turn(events):
                    return ended
            event = next(events, None)
            if event is None:
                await self._flush()
                return await self._end()
            self._batch.append(self._block(event))
            self._played += 1
            if len(self._batch) == self._wrong.burst:
                await self._flush()

    def _turns(self) -> bool:
        """Whether something goes wrong before the next event."""
        wrong = self._wrong
        turning_points = (wrong.pause_at, wrong.hang_at, wrong.error_at, wrong.truncate_at, wrong.drop_at)
        return self._played in turning_points

    async def _turn(self, upcoming: Iterator[Event]) -> web.StreamResponse | None:
        """Do what is due now; the response when that was its end."""
        wrong, played = self._wrong, self._played
        if played == wrong.pause_at:
            await asyncio.sleep(wrong.pause)
        if played == wrong.hang_at:
            await asyncio.Event().wait()
        if played == wrong.error_at:
            self._record.end(State.MISBEHAVED)
            await self._outlet.send(self._block(self._script.complaint()))
            return await self._end()
        if played == wrong.truncate_at:
            self._record.end(State.MISBEHAVED)
            return await self._outlet.end()
        if played == wrong.drop_at:
            self._record.end(State.MISBEHAVED)
            event = next(upcoming, None)
            return await self._outlet.drop(self._block(event) if event else b"")
        return None

    async def _end(self) -> web.StreamResponse:
        """End the framing, and then the body."""
        if self._framing.end:
            await self._outlet.send(self._framing.end)
        return await self._outlet.end()

    async def _flush(self) -> None:
        """Send the batch, after the time that lies between it and the one before."""
        if not self._batch:
            return
        if self._wrong.comments and self._framing is EVENT_STREAM:  # the other framings know no comments
            await self._outlet.send(f"{UPSTREAM_COMMENT}{self._wrong.line_end * 2}".encode())
        await asyncio.sleep(self._wrong.interval if self._record.events else self._wrong.first_delay)
        await self._outlet.send(b"".join(self._batch))
        self._record.count_events(len(self._batch))
        self._batch.clear()

    def _block(self, event: Event) -> bytes:
        first = self._played == 0
        return self._framing.block(event, first=first, newline=self._wrong.line_end, size=self._wrong.size)


def hang_up(request: web.Request) -> None:
    """Close the client's connection after what was written, whatever was promised."""
    if request.transport is not None:
        request.transport.close()
