"""A GET that becomes a POST: what an EventSource asks for, in the body that a provider wants.

A browser sends a GET for anybody: for a foreign page's image, for a link that is prefetched, again after
every drop of the network. Here each costs money, so two things are looked at more closely than elsewhere:

* who asks. A foreign page must not be able to have its visitor's browser do it (``guard.check_spending``).
* whether it asked already. An EventSource comes back after every end of a connection, good or bad, with the
  last id that it heard, and gets the rest or is told to stop. One that has no id would begin anew, and
  pay again, for ever. So every stream has ids, and the first of them is told before there is any block.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from aiohttp import hdrs, web

from proxy.config import Prompt, Route
from proxy.config.template import compact
from proxy.errors import BadCursor, BadRequest, CapacityError, MethodNotAllowed, NotAcceptable
from proxy.server import guard
from proxy.server.exchange import Exchange, last_event_id, own_cursor
from proxy.server.headers import LAST_EVENT_ID
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.stream.sse import EVENT_STREAM

#: A media range that is refused: its weight is zero (RFC 9110 §12.4.2).
_NOT_WANTED = re.compile(r"\s*q\s*=\s*0(?:\.0{0,3})?\s*", re.IGNORECASE)


def accept(exchange: Exchange) -> None:
    """Check that a prompt may be sent for this request, and make it the body that goes upstream.

    Raises Refused, MethodNotAllowed, NotAcceptable, BadRequest or BadCursor.
    """
    request, route, prompt = exchange.request, exchange.route, exchange.route.prompt
    assert prompt is not None
    guard.check_spending(request, guard.allowed_origins(exchange.config, route))
    if request.method not in (route.methods or ()):
        raise MethodNotAllowed(request.method, route.methods or ())
    if not accepts_events(request):
        raise NotAcceptable(f"this route answers with {EVENT_STREAM} only; say so in Accept")
    if request.body_exists:
        raise BadRequest("a prompt's GET has no body; what is asked stands in its query")
    if last_event_id(request) and own_cursor(request, route) is None:
        raise BadCursor("Last-Event-ID is none of this route's; leave it out to begin anew")
    values = values_of(request, prompt)
    # By the values and not by the body, which a reload of the configuration may have changed since.
    exchange.upload.hold(prompt.body.filled(values), compact(values).encode())


def accepts_events(request: web.BaseRequest) -> bool:
    """Whether a request takes event streams by their name; ``*/*`` is what images and prefetches say."""
    accepted = ",".join(request.headers.getall(hdrs.ACCEPT, ()))
    for media_range in accepted.split(","):
        kind, *parameters = media_range.split(";")
        if kind.strip().lower() == EVENT_STREAM and not any(map(_NOT_WANTED.fullmatch, parameters)):
            return True
    return False


def values_of(request: web.BaseRequest, prompt: Prompt) -> dict[str, str]:
    """Return what the query says under the names that a prompt's body refers to, sorted. Raises BadRequest.

    Other names are the app's business (an edge's token, a cache's number), and go nowhere.
    """
    wanted = {reference.name: reference.default for reference in prompt.body.references}
    values: dict[str, str] = {}
    for name, value in _fields(request):
        if name not in wanted:
            continue
        if name in values:
            raise BadRequest(f"the query says {name!r} twice; expected it once")
        if len(value) > prompt.max_length:
            raise BadRequest(f"{name!r} has {len(value)} characters; expected at most {prompt.max_length}")
        values[name] = value
    missing = [name for name, default in wanted.items() if default is None and name not in values]
    if missing:
        raise BadRequest(f"the query says no {', '.join(map(repr, missing))}")
    return dict(sorted(values.items()))


def _fields(request: web.BaseRequest) -> list[tuple[str, str]]:
    """Return a query's fields, decoded as a form's are (WHATWG URL, §5.1). Raises BadRequest."""
    query = request.raw_path.partition("#")[0].partition("?")[2].encode("utf-8", "surrogateescape")
    pairs = (part.replace(b"+", b" ").partition(b"=") for part in query.split(b"&") if part)
    try:
        return [(unquote_to_bytes(name).decode(), unquote_to_bytes(said).decode()) for name, _, said in pairs]
    except UnicodeDecodeError:
        raise BadRequest("the query is not UTF-8, percent-encoded") from None


def check_room(hub: Hub) -> None:
    """Raise CapacityError where a stream would have no ids, because it cannot be recorded."""
    if not hub.store.has_room(hub.loop.time()):
        raise _unrecorded()


def prelude(exchange: Exchange, relay: Relay) -> bytes:
    """Return what comes before a new stream: an id with which to come back before there is any block.

    Only for who ``takes_bare_id``; most other readers make an empty event of it. Raises CapacityError where
    the stream could not be recorded after all.
    """
    if not relay.recorded:
        error = _unrecorded()
        error.sent = True
        relay.cancel_unread(str(error))
        raise error
    if not takes_bare_id(exchange.request):
        return b""
    return b"id: %b.0\nretry: %d\n\n" % (relay.id.encode(), relay.retry or 0)


def takes_bare_id(request: web.BaseRequest) -> bool:
    """Whether a browser's own EventSource asks, which takes an id without data in silence.

    It never asks a cache, as a ``fetch`` does by default. WHATWG HTML §9.2.2: its request's "cache mode" is
    "no-store", so that it says so in Cache-Control.
    """
    caching = request.headers.get(hdrs.CACHE_CONTROL, "")
    return "Sec-Fetch-Mode" in request.headers and ("no-cache" in caching or "no-store" in caching)


def begins(request: web.BaseRequest, route: Route) -> bool:
    """Whether a request at a route begins a generation each time that it is sent."""
    return route.prompt is not None and not request.headers.get(LAST_EVENT_ID)


def _unrecorded() -> CapacityError:
    return CapacityError("no room to record a stream (store.memory.max_bytes); it could not be resumed")
