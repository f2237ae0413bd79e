"""A reader that comes back: what it gets, by the state its stream is in.

One function per question: may this caller see the stream, where does its cursor stand, and what is
the answer. Except on feeds, nothing here ever starts a new upstream request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import hdrs, web
from multidict import CIMultiDict

from proxy.errors import BadCursor, BodyDiffers, Expired, Gap, SidecarError, UnknownStream
from proxy.server import cors, guard
from proxy.server.exchange import Exchange, owner
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.server.sse import serve_stream
from proxy.server.stream_head import answer_headers
from proxy.server.wire import SERVER, Answer
from proxy.stream.cursor import Cursor, node_of, parse, parse_after
from proxy.stream.reader import gap_block
from proxy.stream.sse import EVENT_STREAM


@dataclass(frozen=True, slots=True)
class Restart:
    """A feed that has to be asked for anew.

    ``prelude`` is what the reader gets first: blocks it missed, or word of a gap. ``last_id`` is the
    upstream's own id from which the app can go on.
    """

    prelude: bytes
    last_id: bytes | None


def find(hub: Hub, stream_id: str, request: web.BaseRequest, *, at: tuple[str, str] | None = None) -> Relay:
    """Return a stream that this caller may see. Raises UnknownStream or Expired.

    ``at`` is the route and method by which it is asked for; a stream of another is unknown there.
    """
    relay = hub.find(stream_id)
    if relay is not None:
        if at not in (None, (relay.route.name, relay.birth.method)):
            raise UnknownStream
        if owner(request, relay.route.principal) != relay.birth.owner:
            raise UnknownStream
        return relay
    epitaph = hub.store.epitaph(stream_id, hub.loop.time())
    if epitaph is None:
        hub.telemetry.process.misrouted += node_of(stream_id) not in (None, hub.config.node)
        raise UnknownStream
    if at not in (None, (epitaph.route, epitaph.method)):
        raise UnknownStream
    if epitaph.owner is not None:
        route = next((route for route in hub.config.routes if route.name == epitaph.route), None)
        if route is None or owner(request, route.principal) != epitaph.owner:
            raise UnknownStream
    raise Expired


async def on_route(hub: Hub, exchange: Exchange, cursor: Cursor) -> web.StreamResponse | Restart:
    """Answer a request on a stream's own route that brings a cursor of ours."""
    request, upload = exchange.request, exchange.upload
    outcomes = hub.telemetry.route(exchange.route.name).resumes
    try:
        relay = _of_route(hub, exchange, cursor)
    except (UnknownStream, Expired) as error:
        restart = _restart_without_log(hub, exchange, cursor)
        outcomes["restarted" if restart is not None else error.kind] += 1
        if restart is None:
            raise
        return restart
    if relay.finished and relay.feed and relay.route.finished != "stop":
        if request.method == hdrs.METH_HEAD:
            return await _head(hub, request, relay, cursor.seq)
        relay.tally.resumed("restarted")
        return Restart(_rest(relay, cursor.seq), relay.numbering.last_id)
    begun_with = relay.birth.fingerprint.value
    if upload.exists and begun_with is not None and await upload.drained() not in (None, begun_with):
        outcomes[BodyDiffers.kind] += 1
        raise BodyDiffers("the request body is not the one that began this stream; resume with the same one")
    return await attach(hub, relay, request, cursor.seq, exchange.origin.address)


async def attach(
    hub: Hub, relay: Relay, request: web.BaseRequest, seq: int, caller: str
) -> web.StreamResponse:
    """Answer with the stream behind block ``seq``, and count how the resume went."""
    with counted(hub, relay):
        if is_at_end(relay, seq):
            return _nothing_more(hub, request, relay)
        if request.method == hdrs.METH_HEAD:
            return await _head(hub, request, relay, seq)
        return await serve_stream(hub, relay, request, caller=caller, cursor=seq, resumed=True)


@contextlib.contextmanager
def counted(hub: Hub, relay: Relay) -> Iterator[None]:
    """Count what a resume is refused with."""
    try:
        yield
    except SidecarError as error:
        hub.telemetry.route(relay.route.name).resumes[error.kind] += 1
        raise


def is_at_end(relay: Relay, seq: int) -> bool:
    """Return whether nothing follows ``seq`` any more. Raises UnknownStream, BadCursor or Gap."""
    if not relay.recorded:  # nothing can be read again; only its cancel has an address
        raise UnknownStream
    check_cursor(relay, seq)
    at_end = relay.finished and seq == relay.log.last
    if at_end:
        relay.tally.resumed("at_end")
    return at_end


def position(relay: Relay, last_event_id: str | None, after: str | None) -> int:
    """Where a reader of ``relay`` stands: an id, else a number of blocks, else before the first block.

    Raises BadCursor or Gap.
    """
    if last_event_id is None:
        return 0 if after is None else parse_after(after, relay.log.last)
    named = parse(last_event_id)
    if named is None:
        return seq_of(relay, last_event_id)
    if named.stream != relay.id:
        raise BadCursor("the id is of another stream than the one that is asked for")
    return named.seq


def check_cursor(relay: Relay, seq: int) -> None:
    """Raise BadCursor past the head, and Gap before the log where the stream does not signal gaps."""
    log = relay.log
    if seq > log.last:
        raise BadCursor(f"asked to resume after block {seq}; the stream has {log.last}")
    if seq + 1 < log.first and not relay.signal_gaps:
        raise Gap(seq, log.first)


def seq_of(relay: Relay, last_id: str) -> int:
    """Return where the app's own id stands in a stream that keeps the app's ids.

    Raises BadCursor where the stream's ids are ours, Gap where no held block has this id; where gaps are
    signalled and blocks have been dropped, it counts as older than them all.
    """
    if not relay.numbering.as_it_came:
        raise BadCursor(f"Last-Event-ID {last_id[:40]!r} is not of the form <stream>.<seq>")
    seq = relay.log.seq_of(last_id.encode("utf-8", "surrogateescape"))
    if seq is not None:
        return seq
    if relay.signal_gaps and relay.log.evicted:
        return 0
    raise Gap(0, relay.log.first)


def _of_route(hub: Hub, exchange: Exchange, cursor: Cursor) -> Relay:
    method = exchange.request.method
    mirrored = hdrs.METH_GET if method == hdrs.METH_HEAD else method
    return find(hub, cursor.stream, exchange.request, at=(exchange.route.name, mirrored))


def _restart_without_log(hub: Hub, exchange: Exchange, cursor: Cursor) -> Restart | None:
    """A feed's stream that is gone begins anew, after word of what may be missing."""
    route = exchange.route
    if not exchange.is_feed or route.finished == "stop" or hub.find(cursor.stream) is not None:
        return None
    epitaph = hub.store.epitaph(cursor.stream, hub.loop.time())
    if epitaph is None:
        return Restart(gap_block(cursor.seq + 1, None), None)
    if not epitaph.feed or (epitaph.route, epitaph.method) != (route.name, hdrs.METH_GET):
        return None
    if epitaph.owner != owner(exchange.request, route.principal):
        return None
    missed = gap_block(cursor.seq + 1, epitaph.last) if cursor.seq < epitaph.last else b""
    return Restart(missed, epitaph.last_id)


def _rest(relay: Relay, seq: int) -> bytes:
    """What a finished feed still holds behind ``seq``: at most ``replay.max_bytes``."""
    log = relay.log
    missed = b""
    if seq + 1 < log.first:
        missed, seq = gap_block(seq + 1, log.first - 1), log.first - 1
    return missed + b"".join(log.after(seq, log.bytes)) if seq < log.last else missed


def _nothing_more(hub: Hub, request: web.BaseRequest, relay: Relay) -> web.StreamResponse:
    """Say that the reader has everything: 204 is the standard's way to stop an EventSource.

    fetch-event-source repeats a POST for ever on 204, and stops at an empty event stream.
    """
    if request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
        response = web.Response(status=204)
    else:
        response = web.Response(body=b"", content_type=EVENT_STREAM, charset="utf-8")
    response.headers["Stream-Id"] = relay.id
    response.headers["Stream-Closed"] = "true"
    return readable(hub, request, relay, response)


def readable(hub: Hub, request: web.BaseRequest, relay: Relay, answer: web.Response) -> web.Response:
    """CORS follows the stream's route: what its first answer allowed is allowed here.

    Our own answers are never stored.
    """
    stream = CIMultiDict(relay.fields)
    for name in (hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS):
        if name in stream:
            answer.headers[name] = stream[name]
    cors.allow(request, answer.headers, guard.allowed_origins(hub.config, relay.route))
    answer.headers[hdrs.CACHE_CONTROL] = "no-store"
    answer.headers[hdrs.SERVER] = SERVER
    return answer


async def _head(hub: Hub, request: web.BaseRequest, relay: Relay, seq: int) -> web.StreamResponse:
    """Answer HEAD with what GET would have begun with."""
    response = Answer(headers=answer_headers(relay, request, hub.config))
    response.headers["Stream-Resumed-From"] = str(seq)
    await response.prepare(request)
    return response
