"""One request at one route: what is known about it, and how it goes upstream."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import hdrs, web
from aiohttp.http import RawResponseMessage
from multidict import CIMultiDict

from proxy.config import Config, Principal, Route
from proxy.dialects import DIALECTS, Dialect, propose
from proxy.errors import BadRequest
from proxy.server import headers
from proxy.server.headers import LAST_EVENT_ID, Origin
from proxy.server.pool import Call
from proxy.server.upload import Fingerprint, Upload
from proxy.server.upstream import Upstream, as_interim
from proxy.stream import cursor
from proxy.stream.cursor import Cursor
from proxy.stream.sse import EVENT_STREAM

if TYPE_CHECKING:
    from proxy.server.alias import Alias

#: What a request loses on its way, besides what belongs to the hop: by whether its upstream gets our
#: credential, else by whether its peer is trusted to say where it came from. The upstream's own Host
#: field is written for it, and the sidecar answers Expect itself.
_ALWAYS = ("host", "expect")
_BELIEVED = headers.Sieve(_ALWAYS)
_NOT_BELIEVED = headers.Sieve((*_ALWAYS, *headers.FORWARDING), (headers.FORWARDING_PREFIX,))
_PAID = headers.Sieve(
    (*_ALWAYS, *headers.FORWARDING, *headers.CREDENTIALS, *headers.PAGE),
    (headers.FORWARDING_PREFIX, "sec-fetch-"),
)

#: What a GET says that is not true of the POST which a prompt makes of it.
_OF_A_GET = (
    hdrs.CACHE_CONTROL,
    hdrs.PRAGMA,
    hdrs.CONTENT_ENCODING,
    hdrs.IF_MATCH,
    hdrs.IF_MODIFIED_SINCE,
    hdrs.IF_NONE_MATCH,
    hdrs.IF_RANGE,
    hdrs.IF_UNMODIFIED_SINCE,
    hdrs.RANGE,
    LAST_EVENT_ID,
)


class Birth(NamedTuple):
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

    ``started`` is the loop's time of its arrival. ``upload`` is its body. ``bridged``: it came over a
    WebSocket, on which there is no place for interim responses. ``alias`` is what the app calls its stream.
    """

    request: web.BaseRequest
    config: Config
    route: Route
    upstream: Upstream
    dialect: Dialect
    origin: Origin
    upload: Upload
    started: float
    bridged: bool = False
    alias: Alias | None = None

    @property
    def credentials(self) -> bool:
        """Whether the upstream gets a credential of ours."""
        return self.upstream.injects_credentials

    @property
    def guarded(self) -> bool:
        """Whether the request spends something, so that foreign pages are kept out."""
        return self.credentials or self.route.prompt is not None

    @property
    def is_feed(self) -> bool:
        """Whether a stream of this request may be an app's feed: its first block would tell."""
        if self.request.method != hdrs.METH_GET or self.route.prompt is not None:
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
        fields, prompt = self._headers(), self.route.prompt
        return Call(
            method=self.request.method if prompt is None else hdrs.METH_POST,
            target=self._target() if prompt is None else prompt.path,
            headers=fields,
            timeouts=self.route.timeouts,
            body=self.upload if self.upload.exists else None,
            host=fields[hdrs.HOST] or None,
        )

    def _target(self) -> str:
        """The path and query as the client wrote them, the route's prefix taken off.

        The prefix goes by its number of segments: the route has matched the decoded path, and the
        client may have encoded a letter of it.
        """
        said, prefix = self.request.raw_path, self.route.strip_prefix
        if not prefix and said.startswith("/") and "#" not in said:
            return said
        url = self.request.rel_url
        depth = prefix.count("/") + 1
        path = "/" + "".join(url.raw_path.split("/", depth)[depth:])
        query = url.raw_query_string
        return f"{path}?{query}" if query or said.endswith("?") else path

    def _headers(self) -> CIMultiDict[str]:
        request, origin = self.request, self.origin
        sieve = _PAID if self.credentials else _BELIEVED if origin.trusted else _NOT_BELIEVED
        host = request.headers.get(hdrs.HOST, "") if self.route.host == "client" else ""
        # "A user agent that sends Host SHOULD send it as the first field" (RFC 9110 §7.2)
        fields = CIMultiDict([(hdrs.HOST, host), *sieve.sift(request.headers)])
        if LAST_EVENT_ID in fields and own_cursor(request, self.route) is not None:
            del fields[LAST_EVENT_ID]  # an id of ours means nothing to the upstream
        if self.route.prompt is not None:
            _ask_by_post(fields)
        if self.upload.replaced:
            self.upload.describe(fields)
        if not self.credentials:
            fields.update(headers.forwarding(origin, request))
        if self.dialect.llm or EVENT_STREAM in fields.get(hdrs.ACCEPT, ""):
            fields[hdrs.ACCEPT_ENCODING] = "identity"
        for name, value in self.upstream.settings.set_headers.items():
            fields[name] = value
        return fields

    def tell_interim(self, message: RawResponseMessage) -> None:
        """Hand an interim response (103 Early Hints, say) on to a client that can understand it."""
        transport, protocol = self.request.transport, self.request.protocol
        if self.bridged or transport is None or transport.is_closing() or protocol.writing_paused:
            return  # one more hint is worth no memory
        if self.request.version >= (1, 1):
            drop = headers.NOT_RETURNED if self.credentials else ()
            transport.write(as_interim(message, headers.end_to_end(message.headers, drop)))


def _ask_by_post(fields: CIMultiDict[str]) -> None:
    """Let the fields of a GET be those of a prompt's POST; ``Upload.describe`` knows its length."""
    for name in _OF_A_GET:
        fields.popall(name, None)
    fields[hdrs.CONTENT_TYPE] = "application/json"
    fields[hdrs.CONTENT_LENGTH] = "0"


#: How many paths' dialects are remembered, and the longest such path: together they bound what clients
#: can make the sidecar hold.
PROPOSALS = 1024
PROPOSED_LENGTH = 256

_propose = functools.lru_cache(maxsize=PROPOSALS)(propose)


def dialect_of(route: Route, path: str) -> Dialect:
    """Return the dialect that the route names, or that the path proposes: the one that goes upstream."""
    if route.prompt is not None:
        path = route.prompt.path.partition("?")[0]
    if route.dialect != "auto":
        return DIALECTS[route.dialect]
    return _propose(path) if len(path) <= PROPOSED_LENGTH else propose(path)


def owner(request: web.BaseRequest, principal: Principal | None) -> bytes | None:
    """Return the digest of what binds a stream to its caller; None where the route binds nothing.

    A caller without the cookie or header is a principal too: nobody with one may read its streams.
    """
    if principal is None:
        return None
    value = principal_of(request, principal)
    return hashlib.blake2b(b"" if value is None else b"=" + value.encode("utf-8", "surrogateescape")).digest()


def principal_of(request: web.BaseRequest, principal: Principal | None) -> str | None:
    """Return the cookie or header that says whose the caller's streams are; None where it brings none."""
    if principal is None:
        return None
    if principal.cookie is not None:
        return request.cookies.get(principal.cookie)
    return request.headers.get(principal.header or "")


def last_event_id(request: web.BaseRequest) -> str | None:
    """Return the Last-Event-ID field. Raises BadRequest where it is given twice, differently."""
    if LAST_EVENT_ID not in request.headers:
        return None
    values = set(request.headers.getall(LAST_EVENT_ID))
    if len(values) > 1:
        raise BadRequest(f"{len(values)} different Last-Event-ID fields; expected one")
    return values.pop()


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
