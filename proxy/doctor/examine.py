"""The examination: what is asked, and in which order. What it means is the checks' business.

A stream costs money, so that one is made to do for nearly everything: open it, watch it, drop it, resume
it, cancel it. While it is watched, a sidecar behind the edge is asked for its state again and again: that
costs nothing upstream, and tells the sender's own pace.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from yarl import URL

from proxy.doctor import again, arrival, connection, head, holding, liveness, recovery
from proxy.doctor.ask import SAMPLE_BYTES, TIMEOUT, Asker
from proxy.doctor.dial import Dialer, Exchange, NoAnswer, NoTLS, Request, Unreachable, clock
from proxy.doctor.evidence import Head, Stream
from proxy.doctor.finding import Finding
from proxy.doctor.recovery import Upgrade
from proxy.doctor.sidecar import Address, Looker, problem_of
from proxy.doctor.transcript import Transcript
from proxy.doctor.watch import Patience, watch
from proxy.server.handshake import accept_of

#: Seconds for an answer's head: above the 60 s after which gateways answer 504, to see them do it.
HEAD_TIMEOUT = 75.0

#: So many events at the origin prove that it streams; so many seconds later the edge should have sent a head.
ENOUGH_AT_ORIGIN, LATER_THAN_ORIGIN = 3, 3.0

#: What is looked at, in the order in which it is told.
CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "connection": "how one gets there, and who answers",
        "http2": "whether a page gets more than six streams",
        "status": "whether there is a stream at all",
        "headers": "fields that make middleboxes behave, and those that were lost",
        "cors": "whether a page of another origin may read and resume it",
        "compression": "whether somebody compresses it",
        "timing": "headers, first byte, first event, gaps",
        "buffering": "whether something holds events back",
        "heartbeats": "signs of life, and their form",
        "ids": "whether events are numbered",
        "idle": "what silence the connection survives",
        "resume": "whether a reader that drops misses nothing",
        "cancel": "whether stop stops",
        "end": "whole, cut, or told as an error",
        "websocket": "whether the URL takes an Upgrade",
        "sdk": "what OpenAI's SDK makes of it",
    }
)


@dataclass(frozen=True, slots=True)
class Examination:
    """What to examine, and how patiently. ``direct`` is the origin's URL, past the edge.

    With ``websocket``, a URL that takes no Upgrade is a fault.
    """

    request: Request
    dialer: Dialer = field(default_factory=Dialer)
    patience: Patience = field(default_factory=Patience)
    websocket: bool = False
    direct: URL | None = None

    @property
    def origin(self) -> URL | None:
        """The origin's URL: with the examined one's path and query, unless it has its own."""
        if self.direct is None or self.direct.raw_path not in ("", "/") or self.direct.raw_query_string:
            return self.direct
        return self.direct.origin().join(self.request.url.relative())


class Doctor:
    """Examines one stream. ``judged`` is set once there was a stream to judge."""

    def __init__(self, examination: Examination) -> None:
        self.judged = False
        self.asker = Asker(examination.dialer)
        self._wanted = examination
        self._request = examination.request
        self._looker = Looker(self.asker, examination.request)
        self._no_origin = ""  # why not, where the origin did not answer

    @property
    def stream_id(self) -> str:
        """The stream's id, once it is known: whoever has it can read and cancel the stream."""
        return self._looker.address.stream_id if self._looker.address is not None else ""

    async def findings(self) -> AsyncGenerator[Finding]:
        """Yield what is found, as it is found."""
        direct = asyncio.create_task(self._watch_direct(), name="direct")
        try:
            try:
                exchange = await self.asker.send(self._request, upstream=True)
            except Unreachable as error:
                yield connection.judge_unreachable(str(error), without_tls=isinstance(error, NoTLS))
                return
            try:
                async for finding in self._examine(exchange, direct):
                    yield finding
            finally:
                exchange.drop()
        finally:
            direct.cancel()
            with suppress(asyncio.CancelledError):
                await direct

    async def _examine(
        self, exchange: Exchange, direct: asyncio.Task[Stream | None]
    ) -> AsyncGenerator[Finding]:
        try:
            answer = await self._head(exchange, direct)
        except NoAnswer as error:
            yield connection.judge_connection(exchange.connection, Head("", 0))
            waited = clock() - exchange.asked
            origin = direct.result() if self._wanted.direct is not None and direct.done() else None
            if error.patient and origin is not None and origin.arrivals:
                self.judged = True
                yield holding.judge_nothing(origin, waited)
            else:
                yield head.judge_no_answer(str(error), waited, patient=error.patient)
            return
        # From here on somebody must read, or what comes would seem late.
        watching = asyncio.create_task(self._watch(exchange, answer), name="watching")
        try:
            yield connection.judge_connection(exchange.connection, answer)
            http2 = await self._wanted.dialer.offers_http2(self._request.url)
            yield connection.judge_http2(exchange.connection, http2)
            stream = await watching
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        exchange.drop()
        if isinstance(stream, str):
            yield head.judge_status(answer, exchange.headed - exchange.asked, streams=False, problem=stream)
            return
        if stream.put_off:
            yield head.judge_put_off(stream)
            return
        self.judged = head.media_type(answer) == head.EVENT_STREAM or bool(stream.arrivals)
        yield head.judge_status(answer, exchange.headed - exchange.asked, streams=self.judged)
        if self.judged:
            async for finding in self._judge(stream, direct):
                yield finding

    async def _head(self, exchange: Exchange, direct: asyncio.Task[Stream | None]) -> Head:
        """Wait for the head, but not much longer than the origin needed for a stream. Raises NoAnswer."""
        if self._wanted.direct is None:
            return await exchange.head(HEAD_TIMEOUT)
        coming = asyncio.create_task(exchange.head(HEAD_TIMEOUT), name="head")
        try:
            await asyncio.wait({coming, direct}, return_when=asyncio.FIRST_COMPLETED)
            origin = direct.result() if direct.done() else None
            if origin is not None and len(origin.arrivals) >= ENOUGH_AT_ORIGIN:
                await asyncio.wait({coming}, timeout=LATER_THAN_ORIGIN)
                if not coming.done():
                    raise NoAnswer("the origin has answered, the edge has not", patient=True)
            return await coming
        finally:
            coming.cancel()

    async def _watch(self, exchange: Exchange, answer: Head) -> Stream | str:
        """What comes of the stream or, where there is none, the sidecar's word for the refusal."""
        if answer.status != 200:
            return problem_of(await exchange.whole(TIMEOUT, SAMPLE_BYTES))
        self._looker.request = self._request.remembering(answer)
        self._looker.learn(Address.of_head(answer, self._request.url))
        seen = Transcript(answer)
        async with self._looker.looking():
            await watch(exchange, seen, self._wanted.patience, self._learn)
            until = clock()
        return seen.stream(exchange, until, request=self._request, ending=exchange.ending)

    def _learn(self, seen: Transcript) -> None:
        if seen.arrivals and self._looker.address is None:
            self._looker.learn(Address.of_event(seen.arrivals[0].id, self._request.url))

    async def _judge(self, stream: Stream, direct: asyncio.Task[Stream | None]) -> AsyncGenerator[Finding]:
        """All that can be said once the first connection is over."""
        after = await self._looker.look_enough()
        stream = replace(stream, polls=tuple(self._looker.polls))
        yield head.judge_headers(stream)
        if cors := head.judge_cors(stream.head, self._request.field("Origin")):
            yield cors
        yield arrival.judge_compression(stream, self._request.field("Accept-Encoding") or "nothing")
        yield arrival.judge_timing(stream)
        origin = await direct
        pace = holding.judge(stream, origin)
        if self._wanted.direct is not None and (origin is None or not origin.arrivals):
            brought = f"brought no stream to compare with ({self._brought(origin)})"
            pace = replace(pace, message=f"{pace.message}; --direct {brought}")
        yield pace
        yield liveness.judge_heartbeats(stream)
        yield liveness.judge_ids(stream)
        yield liveness.judge_idle(stream, self._wanted.patience.idle, after)
        exchange, resumed = await again.resume(self.asker, self._looker.request, stream, self._looker.address)
        try:
            if stream.ending is None:
                newest = await self._looker.look()
                after = newest if newest is not None and newest.good else after
                stream = replace(stream, polls=tuple(self._looker.polls))
            yield recovery.judge_resume(stream, resumed)
            ended = stream.rejoined(resumed.stream if resumed is not None else None)
            yield await self._cancel(exchange, running=after is None or not after.over)
        finally:
            if exchange is not None:
                exchange.drop()
        yield liveness.judge_end(ended, after)
        yield await self._upgrade(compare=origin is not None and bool(origin.arrivals))

    async def _cancel(self, exchange: Exchange | None, *, running: bool) -> Finding:
        address = self._looker.address
        if address is None:
            return recovery.judge_cancel(None, "no sidecar's stream: to close the connection is all there is")
        if not running:
            return recovery.judge_cancel(None, "the stream had ended; a longer one shows it")
        cancelled = await again.cancel(self.asker, self._looker.request, address, exchange, self._looker)
        return recovery.judge_cancel(cancelled)

    def _brought(self, origin: Stream | None) -> str:
        """What the origin brought in place of a stream."""
        if origin is None:
            return self._no_origin
        return f"{origin.head.status}, no event" if origin.head.status == 200 else f"{origin.head.status}"

    async def _watch_direct(self) -> Stream | None:
        """Ask the origin for the same at the same time, and watch for as long."""
        url = self._wanted.origin
        if url is None:
            return None
        request = replace(self._request, url=url)
        try:
            exchange = await self.asker.send(request, upstream=True)
        except Unreachable as error:
            self._no_origin = str(error)
            return None
        address: Address | None = None
        try:
            answer = await exchange.head(HEAD_TIMEOUT)
            address = Address.of_head(answer, url)
            seen = Transcript(answer)
            await watch(exchange, seen, self._wanted.patience)
            return seen.stream(exchange, clock(), request=request, ending=exchange.ending)
        except Unreachable as error:
            self._no_origin = str(error)
            return None
        finally:
            exchange.drop()
            if address is not None:  # spare whoever pays the rest of a second generation
                await self.asker.ask(replace(request.to(address.cancel), method="POST"))

    async def _upgrade(self, *, compare: bool) -> Finding:
        """Ask for a WebSocket; at the origin too where there is something to ``compare`` with."""
        required = self._wanted.websocket
        if self._request.method == "GET" and not required:
            return recovery.judge_websocket(None, required=False)
        seen = await self._shake_hands(self._request.url)
        origin = self._wanted.origin
        direct = await self._shake_hands(origin) if origin is not None and compare else None
        return recovery.judge_websocket(seen, required=required, direct=direct)

    async def _shake_hands(self, url: URL) -> Upgrade:
        """Ask for a WebSocket (RFC 6455 §4.1), and leave."""
        key = base64.b64encode(os.urandom(16)).decode()
        handshake = self._looker.request.to(
            url,
            Accept="*/*",
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key=key,
            Sec_WebSocket_Protocol="sse-sidecar.v1",
        )
        answer, body = await self.asker.ask(handshake, upstream=True)
        if answer is None:
            return Upgrade(None, failure="the handshake was not answered")
        right = answer.get("Sec-WebSocket-Accept") == accept_of(key)
        return Upgrade(answer, right, body[:2000].decode("utf-8", "replace"))
