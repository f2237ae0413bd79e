"""The front door of the data plane: every request comes in here and leaves answered.

A request passes, in this order: its path and method (``routing``), who may ask (``guard``), a stream
it comes back for (``resume``), a key it repeats (``idempotency``); what is left goes upstream, and
the answer is a stream (``opening``, ``sse``) or is not (``plain``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web
from multidict import CIMultiDict

from proxy.config import Config
from proxy.errors import HeadersTooLarge, SidecarError, UnknownStream, VersionNotSupported
from proxy.server import cors, guard, problem, resume, streams
from proxy.server.exchange import Exchange, dialect_of, named_stream, own_cursor
from proxy.server.headers import LAST_EVENT_ID, Origin, Peers, origin_of
from proxy.server.hub import Hub
from proxy.server.idempotency import Attempts, Key, key_of
from proxy.server.opening import Begun, Opener
from proxy.server.plain import pass_on
from proxy.server.relay import Relay
from proxy.server.resume import Restart
from proxy.server.routing import COMMON_METHODS, RouteTable
from proxy.server.sse import EVENT_STREAM, StreamAnswer, serve_stream
from proxy.server.streams import PREFIX, StreamsHandler, shown_path
from proxy.server.upload import Upload
from proxy.server.upstream import Call, Upstream
from proxy.server.wire import ANSWERED, Answer, answer_in_our_version
from proxy.telemetry import Visited

#: The status noted for a client that left before it was answered; nginx's word for it.
CLIENT_LEFT = 499


@dataclass(slots=True)
class Visit:
    """One request and what came of it.

    ``started`` is the loop's time of its arrival, ``response`` what was returned to it, which may be
    nothing although an answer has begun: then its client has left.
    """

    request: web.BaseRequest
    origin: Origin
    started: float
    route: str = "-"
    response: web.StreamResponse | None = None
    failed: bool = False
    error: SidecarError | None = None

    @property
    def answer(self) -> web.StreamResponse | None:
        """The answer, whole or begun."""
        return self.response if self.response is not None else self.request.get(ANSWERED)

    @property
    def status(self) -> int:
        """The status that the client saw, or would have seen."""
        if self.answer is not None:
            return self.answer.status
        return 500 if self.failed else CLIENT_LEFT

    @property
    def sent(self) -> int:
        """Bytes of the answer's body."""
        answer = self.answer
        if isinstance(answer, Answer):
            return answer.sent
        if answer is None or self.request.method == hdrs.METH_HEAD:
            return 0
        return answer.content_length or 0


class Gateway:
    """Answers requests by the configuration in force.

    ``configure`` swaps that configuration between two requests; what runs keeps what it began with.
    """

    def __init__(self, hub: Hub, config: Config, upstreams: dict[str, Upstream]) -> None:
        self._hub = hub
        self._streams = StreamsHandler(hub)
        self._opener = Opener(hub)
        self._attempts = Attempts(hub)
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.configure(config, upstreams)

    def configure(self, config: Config, upstreams: dict[str, Upstream]) -> None:
        """Answer requests by ``config`` from now on."""
        self._config = config
        self._upstreams = upstreams
        self._table = RouteTable(config.routes)
        self._peers = Peers.of(config.trusted_peers)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        visit = Visit(request, origin_of(request, self._peers), self._hub.loop.time())
        self.in_flight += 1
        self._idle.clear()
        try:
            return await self._answer(visit)
        except Exception:
            visit.failed = True
            raise
        finally:  # also when the client left, in the middle of its answer or before it
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
            self._tell(visit)

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        await self._idle.wait()

    async def _answer(self, visit: Visit) -> web.StreamResponse:
        request = visit.request
        exchange: Exchange | None = None
        try:
            guard.check_message(request)
            self._check_size(request)
            guard.check_path(request.rel_url.raw_path)
            if request.rel_url.raw_path.startswith(PREFIX):
                visit.route = "_streams"
                response = await self._streams.handle(request, self._peers)
            else:
                exchange = self._exchange(visit)
                visit.route = exchange.route.name
                response = await self._at_route(exchange)
        except SidecarError as error:
            visit.error = error
            response = self._refusal(error, request, exchange, visit.route)
        if self._hub.draining:
            response.force_close()
        visit.response = response
        return response

    def _tell(self, visit: Visit) -> None:
        """Count a request that is over and, where the log is to have it, write its line.

        A stream has a line of its own, which tells of its readers. What failed without a fault of the
        client's is told in any case.
        """
        telemetry, request = self._hub.telemetry, visit.request
        telemetry.count_request(visit.route, request.method, visit.status)
        failed = visit.failed or (visit.error is not None and visit.error.status >= 500)
        if failed or (telemetry.tells_requests and not isinstance(visit.answer, StreamAnswer)):
            telemetry.request_ended(
                Visited(
                    route=visit.route,
                    method=request.method,
                    path=shown_path(request.rel_url.raw_path),
                    client=visit.origin.address,
                    status=visit.status,
                    bytes=visit.sent,
                    duration=self._hub.loop.time() - visit.started,
                )
            )

    def _refusal(
        self, error: SidecarError, request: web.BaseRequest, exchange: Exchange | None, name: str
    ) -> web.StreamResponse:
        if isinstance(error, VersionNotSupported):
            answer_in_our_version(request)
        if exchange is None:
            answer = problem.answer(error, request, route=None)
            named = streams.named(request) if name == "_streams" else None
            return self._readable(error, request, answer, named, self._config.origins)
        answer = problem.answer(error, request, route=exchange.route.name, dialect=exchange.dialect)
        origins = guard.allowed_origins(exchange.config, exchange.route)
        return self._readable(error, request, answer, named_stream(request), origins)

    def _readable(
        self,
        error: SidecarError,
        request: web.BaseRequest,
        answer: web.Response,
        stream_id: str | None,
        origins: tuple[str, ...],
    ) -> web.Response:
        """Let a page read what went wrong, as it may read the stream that it asked for.

        Not so where the stream is unknown to this caller: that answer is the same for all.
        """
        relay = self._hub.find(stream_id) if stream_id is not None else None
        if relay is not None and not isinstance(error, UnknownStream):
            return resume.readable(self._hub, request, relay, answer)
        cors.allow(request, answer.headers, origins)
        return answer

    def _check_size(self, request: web.BaseRequest) -> None:
        size = sum(len(name) + len(value) + len(": \r\n") for name, value in request.raw_headers)
        if size > self._config.limits.max_headers:
            raise HeadersTooLarge(
                f"the headers are {size} bytes; limits.max_headers is {self._config.limits.max_headers}"
            )

    def _exchange(self, visit: Visit) -> Exchange:
        """Find the route. Raises NoRoute or MethodNotAllowed."""
        request = visit.request
        preflight = cors.is_preflight(request)
        method = request.headers[hdrs.ACCESS_CONTROL_REQUEST_METHOD] if preflight else request.method
        route = self._table.find(method, request.rel_url.path_safe)
        upstream = self._upstreams[route.upstream]
        return Exchange(
            request=request,
            config=self._config,
            route=route,
            upstream=upstream,
            dialect=dialect_of(route, request.rel_url.raw_path),
            origin=visit.origin,
            upload=Upload(request, route.max_body),
            started=visit.started,
        )

    async def _at_route(self, exchange: Exchange) -> web.StreamResponse:
        request, route = exchange.request, exchange.route
        guard.check_caller(request, self._config, route, credentials=exchange.credentials)
        exchange.upload.check_head()
        origins = guard.allowed_origins(self._config, route)
        if cors.is_preflight(request) and request.headers[hdrs.ORIGIN] in origins:
            answer = cors.preflight(request, route.methods or COMMON_METHODS)
            cors.allow(request, answer.headers, origins)
            return answer
        restart: Restart | None = None
        cursor = own_cursor(request, route)
        if cursor is not None:
            resumed = await resume.on_route(self._hub, exchange, cursor)
            if not isinstance(resumed, Restart):
                return resumed
            restart = resumed
        call = exchange.call()
        if restart is not None and restart.last_id is not None:
            call.headers[LAST_EVENT_ID] = restart.last_id.decode("utf-8", "surrogateescape")
        key = key_of(request, route)
        refusal = self._hub.refusal(exchange.origin.address) if key not in self._attempts else None
        early: float | None = None
        if (refusal is not None or route.open_after is not None) and await self._wants_stream(exchange):
            if refusal is not None:  # before the upstream is asked: it would be paid for nothing
                raise refusal
            early = route.open_after
        if key is not None:
            return await self._keyed(exchange, call, early, key)
        begun = await self._open(exchange, call, early)
        return await self._answer_with(exchange, begun, restart.prelude if restart is not None else b"")

    def _open(self, exchange: Exchange, call: Call, early: float | None) -> Coroutine[Any, Any, Begun]:
        if early is None:
            return self._opener.open(exchange, call)
        return self._opener.open_early(exchange, call, early)

    async def _answer_with(
        self, exchange: Exchange, begun: Begun, prelude: bytes = b""
    ) -> web.StreamResponse:
        """Answer the request that began something with what it began."""
        relay = begun.relay
        if relay is None:
            assert begun.response is not None
            if not prelude:
                return await pass_on(exchange, begun.response)
            begun.response.close()  # the client comes again, and gets the answer when nothing is owed to it
            return problem.event_stream(prelude)
        try:
            return await self._read(exchange, relay, begun.cookies, prelude)
        except SidecarError as error:
            error.sent = True
            raise
        finally:
            if not relay.tally.readers:  # its only client is gone, or was refused, before it could read
                relay.cancel("disconnect", "the client left before the stream began")

    async def _read(
        self, exchange: Exchange, relay: Relay, extra: CIMultiDict[str], prelude: bytes = b""
    ) -> web.StreamResponse:
        caller = exchange.origin.address
        return await serve_stream(
            self._hub, relay, exchange.request, caller=caller, extra=extra, prelude=prelude
        )

    async def _wants_stream(self, exchange: Exchange) -> bool:
        """Whether the client surely wants a stream, so that no other answer need be waited for.

        A body is read into memory for this, if its length says that it fits.
        """
        request, limit = exchange.request, self._config.limits.buffered_body
        if request.method == hdrs.METH_HEAD:
            return False
        if exchange.upload.exists and (request.content_length is None or request.content_length > limit):
            return False
        body = await exchange.upload.whole(limit)
        return EVENT_STREAM in request.headers.get(hdrs.ACCEPT, "") or exchange.dialect.wants_stream(body)

    # The same request again

    async def _keyed(
        self, exchange: Exchange, call: Call, early: float | None, key: Key
    ) -> web.StreamResponse:
        """Begin a stream under a key, or join the one that the key began.

        An attempt that led to no stream, or failed, has released the key: then this is the first.
        """
        await exchange.upload.whole(self._config.limits.buffered_body)
        asked, linger = (call.target, exchange.upload.fingerprint.value), exchange.route.linger
        while True:
            attempt = self._attempts.get(key, asked)
            first = attempt is None
            if attempt is None:
                attempt = self._attempts.begin(key, asked, self._open(exchange, call, early))
            with self._attempts.shared(attempt, linger):
                try:
                    begun = await asyncio.shield(attempt.begun)
                except SidecarError:
                    if first:
                        raise
                    continue
                if begun.relay is not None:
                    return await self._share(exchange, begun.relay, begun.cookies if first else None)
                if begun.response is not None and attempt.claim():
                    return await pass_on(exchange, begun.response)

    async def _share(
        self, exchange: Exchange, relay: Relay, cookies: CIMultiDict[str] | None
    ) -> web.StreamResponse:
        """Answer one of the requests under a key with the key's stream; ``cookies`` go to the first."""
        if cookies is not None:
            return await self._read(exchange, relay, cookies)
        resume.check_cursor(relay, 0)
        return await self._read(exchange, relay, CIMultiDict({"Idempotency-Replayed": "true"}))
