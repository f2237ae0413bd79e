"""``/_streams/``: read, inspect and cancel a stream by its id, whatever route began it."""

from __future__ import annotations

from aiohttp import hdrs, web

from proxy.errors import MethodNotAllowed, Refused, UnknownStream
from proxy.server import cors, guard, report, resume
from proxy.server.exchange import last_event_id
from proxy.server.headers import Peers, origin_of
from proxy.server.hub import Hub
from proxy.server.relay import Relay
from proxy.server.wire import json_body
from proxy.stream.cursor import is_stream_id

PREFIX = report.STREAMS_PREFIX

#: What a stream's address can be asked for.
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")


class StreamsHandler:
    """Answers requests below ``/_streams/``."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def handle(self, request: web.BaseRequest, peers: Peers) -> web.StreamResponse:
        """Answer one request. Raises SidecarError."""
        stream_id, _, rest = request.rel_url.raw_path.removeprefix(PREFIX).partition("/")
        if not is_stream_id(stream_id) or rest not in ("", "cancel", "state"):
            raise UnknownStream
        if cors.is_preflight(request):
            return self._preflight(request, stream_id)
        allowed = {"": ("GET", "HEAD", "DELETE"), "cancel": ("POST",), "state": ("GET", "HEAD")}[rest]
        if request.method not in allowed:
            raise MethodNotAllowed(request.method[:20], allowed)
        relay = resume.find(self._hub, stream_id, request)
        self._check_page(request, relay)
        if rest == "state":
            return resume.readable(self._hub, request, relay, _json(report.snapshot(relay)))
        if rest == "cancel" or request.method == hdrs.METH_DELETE:
            return resume.readable(self._hub, request, relay, _cancel(relay))
        caller = origin_of(request, peers).address
        return await resume.attach(self._hub, relay, request, _position(relay, request), caller)

    def _preflight(self, request: web.BaseRequest, stream_id: str) -> web.Response:
        relay = self._hub.find(stream_id)
        if relay is None:
            raise UnknownStream
        answer = resume.readable(self._hub, request, relay, cors.preflight(request, METHODS))
        if answer.headers.get(hdrs.ACCESS_CONTROL_ALLOW_ORIGIN) not in ("*", request.headers[hdrs.ORIGIN]):
            raise Refused("this origin may not read the stream: its route did not allow it")
        return answer

    def _check_page(self, request: web.BaseRequest, relay: Relay) -> None:
        """A route that spends a credential is guarded here as it is under its own path."""
        guard.check_caller(request, self._hub.config, relay.route, credentials=relay.birth.credentials)


def named(request: web.BaseRequest) -> str:
    """Return the stream id that a path below ``/_streams/`` names, whatever it looks like."""
    return request.rel_url.raw_path.removeprefix(PREFIX).partition("/")[0]


def _position(relay: Relay, request: web.BaseRequest) -> int:
    """Where the reader stands: the header, else the query. Raises BadCursor or Gap."""
    value = last_event_id(request) or request.query.get("last_event_id")
    return resume.position(relay, value, request.query.get("after"))


def _cancel(relay: Relay) -> web.Response:
    """202 while it ran, 200 with the final state after; idempotent."""
    ran = not relay.finished
    relay.cancel("client", "cancelled by the client")
    answer = _json(report.snapshot(relay))
    answer.set_status(202 if ran else 200)
    return answer


def _json(document: object) -> web.Response:
    return web.Response(body=json_body(document), content_type="application/json")
