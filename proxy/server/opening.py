"""How a stream begins: an upstream's answer becomes a relay, at once or early.

With ``open_after`` the client is answered before the upstream has answered, so that no balancer on
the way loses patience; what goes wrong afterwards can only be told in the stream.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from aiohttp import hdrs
from multidict import CIMultiDict, MultiMapping

from proxy.config import Route
from proxy.dialects import DIALECTS, Dialect, segments_of
from proxy.errors import SidecarError
from proxy.server.coding import IDENTITY, Decoder, decoder
from proxy.server.direct import source_of
from proxy.server.exchange import Exchange
from proxy.server.hub import Hub
from proxy.server.pool import Call
from proxy.server.reconnect import Reconnector
from proxy.server.relay import Relay
from proxy.server.stream_head import media_type, stream_fields
from proxy.server.upstream import Response
from proxy.stream.cursor import short
from proxy.stream.framing import Framing
from proxy.stream.sse import EVENT_STREAM

#: So long an upstream may take to send those bytes; the reader waits for word of the failure.
QUOTE_SECONDS = 2.0

#: Of an answer that is no stream but should have been one, so much is told to the client, in bytes.
QUOTED_BYTES = 2048


class Begun(NamedTuple):
    """What a request led to: a stream, or (``relay`` is None) the upstream's answer to pass on.

    ``cookies`` are header fields that only the stream's first answer carries, if there are any.
    """

    relay: Relay | None
    response: Response | None = None
    cookies: CIMultiDict[str] | None = None


#: Sends a request, and returns what came of it. Raises SidecarError.
Opening = Callable[[], Coroutine[Any, Any, Begun]]


class Body(NamedTuple):
    """How a stream's body is read: what undoes its coding, and what cuts it into blocks."""

    coding: Decoder
    framing: Framing


def body_of(route: Route, call: Call, response: Response) -> Body | None:
    """Return how a stream's body is read, or None where the answer is no stream.

    Only a 200 with ``text/event-stream``, or with another type that the route's dialect is known to stream,
    makes a stream; one in a coding that we cannot undo passes as it is.
    """
    answer = response.answer
    if answer.status != 200 or answer.method == hdrs.METH_HEAD:
        return None
    framing = framings_of(route, call).get(media_type(answer.headers.get(hdrs.CONTENT_TYPE, "")))
    if framing is None:
        return None
    coding: Decoder | None = IDENTITY
    if hdrs.CONTENT_ENCODING in answer.headers:
        coding = decoder(", ".join(answer.headers.getall(hdrs.CONTENT_ENCODING)))
    return None if coding is None else Body(coding, framing(route.max_event_bytes))


def framings_of(route: Route, call: Call) -> Mapping[str, Callable[[int], Framing]]:
    """Return how the bodies of a call's streams are cut, by media type.

    Whoever reads lines of JSON from a provider goes on to read them, unless the route names the dialect.
    """
    if route.dialect == "auto":
        return Dialect.framings
    dialect = DIALECTS[route.dialect]
    return dialect.framings if dialect.streams_at(_segments(call)) else Dialect.framings


def _segments(call: Call) -> list[str]:
    return segments_of(call.target.partition("?")[0])


class Opener:
    """Asks upstreams, and makes relays of their answers."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def prepare(self, exchange: Exchange, call: Call, *, known: bool = False) -> Opening:
        """Return what opens ``call``: at once, or early where the route says so.

        Raises what a new stream is refused with now, unless it is ``known`` to be an old one.
        """
        refusal = None if known else self._hub.refusal(exchange.origin.address)
        early = exchange.route.open_after
        at_once = functools.partial(self.open, exchange, call)
        if (refusal is None and early is None) or not await self._wants_stream(exchange, call):
            return at_once
        if refusal is not None:  # before the upstream is asked: it would be paid for nothing
            raise refusal
        return at_once if early is None else functools.partial(self.open_early, exchange, call, early)

    async def _wants_stream(self, exchange: Exchange, call: Call) -> bool:
        """Whether the client surely wants a stream, so that no other answer need be waited for.

        A body is read into memory for this, if its length says that it fits.
        """
        request, limit = exchange.request, exchange.config.limits.buffered_body
        if request.method == hdrs.METH_HEAD:
            return False
        length = exchange.upload.length
        if exchange.upload.exists and (length is None or length > limit):
            return False
        body = await exchange.upload.whole(limit)
        if EVENT_STREAM in request.headers.get(hdrs.ACCEPT, ""):
            return True
        return exchange.dialect.streams_at(_segments(call)) and exchange.dialect.wants_stream(body)

    async def open(self, exchange: Exchange, call: Call) -> Begun:
        """Send ``call`` and return what came of it. Raises SidecarError."""
        response = await exchange.upstream.open(call, exchange.tell_interim)
        return self._begun(exchange, call, response)

    async def open_early(self, exchange: Exchange, call: Call, seconds: float) -> Begun:
        """The same, but give the upstream no longer than ``seconds`` before a stream begins."""
        opening = asyncio.ensure_future(exchange.upstream.open(call))
        try:
            await asyncio.wait({opening}, timeout=seconds)
            if opening.done():
                return self._begun(exchange, call, opening.result())
            relay = self._new_relay(exchange, CIMultiDict())
        except BaseException:
            _cancel(opening)
            raise
        relay.on_end.append(lambda: _cancel(opening))
        self._hub.spawn(self._finish(exchange, relay, call, opening), f"opening {short(relay.id)}")
        return Begun(relay)

    def _begun(self, exchange: Exchange, call: Call, response: Response) -> Begun:
        body = body_of(exchange.route, call, response)
        if body is None:
            return Begun(None, response)
        try:
            relay = self._new_relay(exchange, response.answer.headers)
        except SidecarError as error:
            error.sent = True
            response.close()
            raise
        cookies = _cookies(exchange, response)
        self._feed(exchange, relay, call, response, body)
        return Begun(relay, cookies=cookies)

    async def _finish(
        self, exchange: Exchange, relay: Relay, call: Call, opening: asyncio.Task[Response]
    ) -> None:
        """Wait for the upstream behind a client that has been answered."""
        try:
            response = await opening
        except SidecarError as error:
            relay.failed(str(error), error.status)
            return
        except Exception as error:  # a fault of ours, and no reason to let the readers wait
            relay.failed(f"the sidecar failed: {type(error).__name__}", 500)
            raise
        body = body_of(exchange.route, call, response)
        if relay.finished:
            response.close()
        elif body is None:
            relay.failed(*await _quoted(exchange.route, call, response))
        else:
            relay.fields = stream_fields(response.answer.headers, credentials=exchange.credentials)
            self._feed(exchange, relay, call, response, body)

    def _new_relay(self, exchange: Exchange, upstream: MultiMapping[str]) -> Relay:
        self._hub.admit_stream()
        recorded = exchange.route.replay.enabled and self._hub.store.has_room(self._hub.loop.time())
        fields = stream_fields(upstream, credentials=exchange.credentials)
        relay = Relay(self._hub, exchange.birth(), fields, recorded=recorded)
        if exchange.alias is not None:
            self._hub.aliases.note(exchange.alias, relay)
        return relay

    def _feed(self, exchange: Exchange, relay: Relay, call: Call, response: Response, body: Body) -> None:
        if exchange.route.reconnect and call.method == hdrs.METH_GET and call.body is None:
            # Whether it is a feed is known when its first block has come; a body could not be sent twice.
            relay.reopen = Reconnector(self._hub, relay, exchange.upstream, call).reopen
        response.answer.forget_head()
        relay.answered(source_of(self._hub, response, body.coding, relay, relay.id), body.framing)


def _cookies(exchange: Exchange, response: Response) -> CIMultiDict[str] | None:
    """What only a stream's first answer carries; nothing from an upstream that spends our credential."""
    headers = response.answer.headers
    if exchange.credentials or hdrs.SET_COOKIE not in headers:
        return None
    return CIMultiDict([(hdrs.SET_COOKIE, value) for value in headers.getall(hdrs.SET_COOKIE)])


async def _quoted(route: Route, call: Call, response: Response) -> tuple[str, int, str]:
    """Tell of an answer that is no stream: what it is, its status, and the beginning of what it says."""
    answer = response.answer
    try:
        async with asyncio.timeout(QUOTE_SECONDS):
            said = (await answer.content.read(QUOTED_BYTES)).decode("utf-8", "replace").strip()
    except Exception as error:  # whatever broke: then there is nothing to quote
        said = f"({str(error) or type(error).__name__})"
    finally:
        response.close()
    expected = " or ".join(filter(None, framings_of(route, call)))
    told = f"the upstream answered {answer.status} {answer.content_type}, expected 200 {expected}"
    return told, answer.status if answer.status >= 400 else 502, f": {said}"


def _cancel(opening: asyncio.Task[Response]) -> None:
    """Close the request of a stream that ended, even if its upstream has answered at this moment."""
    if not opening.cancel() and not opening.cancelled() and opening.exception() is None:
        opening.result().close()
