"""One request at one route: what is known about it, and how it goes upstream."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from aiohttp import hdrs, web
from aiohttp.http import RawResponseMessage
from multidict import CIMultiDict

from proxy.config import Config, Principal, Route
from proxy.dialects import DIALECTS, Dialect, propose
from proxy.errors import BadRequest
from proxy.server import headers
from proxy.server.headers import LAST_EVENT_ID, Origin
from proxy.server.upload import Fingerprint, Upload
from proxy.server.upstream import Call, Upstream, as_interim
from proxy.stream import cursor
from proxy.stream.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Birth:
    """The request that began a stream."""

    route: Route
    dialect: Dialect
    method: str
    path: str
    client: str
    owner: bytes | None
    fingerprint: Fingerprint
    at: float
    upstream: str
    credentials: bool


@dataclass(slots=True)
class Exchange:
    """A request that a route has accepted.

    ``started`` is the loop's time of its arrival. ``upload`` is its body.
    """

    request: web.BaseRequest
    config: Config
    route: Route
    upstream: Upstream
    dialect: Dialect
    origin: Origin
    upload: Upload
    started: float

    @property
    def credentials(self) -> bool:
        """Whether the upstream gets a credential of ours."""
        return self.upstream.settings.injects_credentials

    @property
    def is_feed(self) -> bool:
        """Whether a stream of this request may be an app's feed: its first block would tell."""
        if self.request.method != hdrs.METH_GET:
            return False
        guessed = self.route.dialect == "auto"  # an app may well have a feed at /api/messages
        return not self.dialect.llm or (guessed and not self.dialect.streams_get)

    def birth(self) -> Birth:
        """Return what a stream remembers of this request."""
        return Birth(
            route=self.route,
            dialect=self.dialect,
            method=self.request.method,
            path=self.request.rel_url.raw_path,
            client=self.origin.address,
            owner=owner(self.request, self.route.principal),
            fingerprint=self.upload.fingerprint,
            at=self.started,
            upstream=self.upstream.name,
            credentials=self.credentials,
        )

    def call(self) -> Call:
        """Return the request that goes upstream."""
        return Call(
            method=self.request.method,
            target=self._target(),
            headers=self._headers(),
            timeouts=self.route.timeouts,
            body=self.upload if self.upload.exists else None,
        )

    def _target(self) -> str:
        """The path and query as the client wrote them, the route's prefix taken off.

        The prefix goes by its number of segments: the route has matched the decoded path, and the
        client may have encoded a letter of it.
        """
        url = self.request.rel_url
        depth = self.route.strip_prefix.count("/") + 1
        path = "/" + "".join(url.raw_path.split("/", depth)[depth:])
        query = url.raw_query_string
        has_query = query or self.request.raw_path.endswith("?")
        return f"{path}?{query}" if has_query else path

    def _headers(self) -> CIMultiDict[str]:
        request, settings = self.request, self.upstream.settings
        names = {name.lower() for name in request.headers}
        drop = {"host", "expect", *filter(self._not_believed, names)}
        if self.credentials:
            drop |= headers.CREDENTIALS | headers.PAGE
            drop |= {name for name in names if name.startswith("sec-fetch-")}
        mine = last_event_id(request)
        if mine is not None and cursor.parse(mine) is not None and self.route.ids != "upstream":
            drop.add(LAST_EVENT_ID.lower())  # an id of ours means nothing to the upstream
        fields = headers.end_to_end(request.headers, drop)
        if self.route.host == "client":
            fields[hdrs.HOST] = request.headers.get(hdrs.HOST, "")
        if not self.credentials:
            fields.update(headers.forwarding(self.origin, request))
        if self.dialect.llm or "text/event-stream" in request.headers.get(hdrs.ACCEPT, ""):
            fields[hdrs.ACCEPT_ENCODING] = "identity"
        for name, value in settings.set_headers.items():
            fields[name] = value
        return fields

    def _not_believed(self, name: str) -> bool:
        """Whether a field says where the request came from, and only a trusted peer may say so."""
        return headers.is_forwarding(name) and (self.credentials or not self.origin.trusted)

    def tell_interim(self, message: RawResponseMessage) -> None:
        """Hand an interim response (103 Early Hints, say) on to a client that can understand it."""
        transport, protocol = self.request.transport, self.request.protocol
        if transport is None or transport.is_closing() or protocol.writing_paused:
            return  # one more hint is worth no memory
        if self.request.version >= (1, 1):
            drop = headers.NOT_RETURNED if self.credentials else ()
            transport.write(as_interim(message, headers.end_to_end(message.headers, drop)))


def dialect_of(route: Route, path: str) -> Dialect:
    """Return the dialect that the route names, or that the path proposes."""
    return propose(path) if route.dialect == "auto" else DIALECTS[route.dialect]


def owner(request: web.BaseRequest, principal: Principal | None) -> bytes | None:
    """Return the digest of what binds a stream to its caller; None where the route binds nothing.

    A caller without the cookie or header is a principal too: nobody with one may read its streams.
    """
    if principal is None:
        return None
    if principal.cookie is not None:
        value = request.cookies.get(principal.cookie)
    else:
        value = request.headers.get(principal.header or "")
    return hashlib.blake2b(b"" if value is None else b"=" + value.encode("utf-8", "surrogateescape")).digest()


def last_event_id(request: web.BaseRequest) -> str | None:
    """Return the Last-Event-ID field. Raises BadRequest where it is given twice, differently."""
    values = set(request.headers.getall(LAST_EVENT_ID, ()))
    if len(values) > 1:
        raise BadRequest(f"{len(values)} different Last-Event-ID fields; expected one")
    return values.pop() if values else None


def named_stream(request: web.BaseRequest) -> str | None:
    """Return the id of the stream that a request on a route would go on with, if it names one."""
    values = request.headers.getall(LAST_EVENT_ID, ())
    named = cursor.parse(values[0]) if values else None
    return named.stream if named is not None else None


def own_cursor(request: web.BaseRequest, route: Route) -> Cursor | None:
    """Return the cursor that a request on a route brings, or None where its id is the app's."""
    value = last_event_id(request)
    if value is None or route.ids == "upstream":
        return None
    return cursor.parse(value)
