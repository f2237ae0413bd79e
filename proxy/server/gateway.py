"""The front door of the data plane: every request comes in here and leaves answered.

A request passes, in this order: its path and method (``routing``), who may ask (``guard``), a stream
it comes back for (``resume``), a key it repeats (``idempotency``); what is left goes upstream, and
the answer is a stream (``opening``, ``sse``) or is not (``plain``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from aiohttp import hdrs, web
from multidict import CIMultiDict

from proxy.config import Config, Route
from proxy.dialects import Dialect
from proxy.emit import emit_for
from proxy.errors import HeadersTooLarge, NoRoute, SidecarError, UnknownStream, VersionNotSupported
from proxy.server import (
    cors,
    guard,
    handshake,
    inject,
    problem,
    prompt,
    report,
    resume,
    resume_by_alias,
    streams,
)
from proxy.server.bridge import Bridge
from proxy.server.exchange import Exchange, dialect_of, named_stream, own_cursor
from proxy.server.headers import LAST_EVENT_ID, Origin, Peers, origin_of
from proxy.server.hub import Hub
from proxy.server.idempotency import Attempts, Key, key_of
from proxy.server.opening import Opener, Opening
from proxy.server.plain import pass_on
from proxy.server.pool import Call
from proxy.server.relay import Relay
from proxy.server.resume import Restart
from proxy.server.routing import COMMON_METHODS, RouteTable
from proxy.server.sse import serve_stream
from proxy.server.stream_head import StreamAnswer
from proxy.server.streams import PREFIX, StreamsHandler
from proxy.server.tunnel import Tunnel
from proxy.server.upload import Upload
from proxy.server.upstream import Upstream
from proxy.server.wire import Answer, FrontProtocol, answer_in_our_version


@dataclass(slots=True)
class Visit:
    """One request and what came of it.

    ``started`` is the loop's time of its arrival, ``response`` what was returned to it, which may be
    nothing although an answer has begun: then its client has left. ``name`` is its route's, or what
    stands in place of one; ``began`` is the stream that it began.
    """

    request: web.BaseRequest
    origin: Origin
    config: Config
    started: float
    name: str = "-"
    route: Route | None = None
    dialect: Dialect | None = None
    began: Relay | None = None
    response: web.StreamResponse | None = None
    failed: bool = False
    error: SidecarError | None = None

    @property
    def answer(self) -> web.StreamResponse | None:
        """The answer, whole or begun."""
        if self.response is not None:
            return self.response
        protocol = self.request.protocol
        return protocol.answer if isinstance(protocol, FrontProtocol) else None

    @property
    def status(self) -> int:
        """The status that the client saw, or would have seen."""
        if self.answer is not None:
            return self.answer.status
        return 500 if self.failed else report.CLIENT_LEFT

    @property
    def sent(self) -> int:
        """Bytes of the answer's body."""
        answer = self.answer
        if isinstance(answer, Answer):
            return answer.sent
        if answer is None or self.request.method == hdrs.METH_HEAD:
            return 0
        return answer.content_length or 0


class Reading(NamedTuple):
    """What is left to do for a request that began a stream: to give it the stream.

    ``extra`` are header fields of its answer alone, ``prelude`` what it gets before anything else.
    """

    relay: Relay
    extra: CIMultiDict[str] | None
    prelude: bytes = b""


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
        visit = Visit(request, origin_of(request, self._peers), self._config, self._hub.loop.time())
        self.in_flight += 1
        self._idle.clear()
        try:
            answer = await self._answer(visit)
            if isinstance(answer, Reading):
                # Awaited here and not deeper: what lasts as long as a stream should hold little.
                answer = await self._read(answer, visit)
            return self._answered(visit, answer)
        except SidecarError as error:
            return self._answered(visit, self._refusal(error, visit))
        except ConnectionResetError:  # the client's; of an upstream's we make an UpstreamError
            raise
        except Exception:
            visit.failed = True
            raise
        finally:  # also when the client left, in the middle of its answer or before it
            self._left(visit)
            if isinstance(request.protocol, FrontProtocol):
                request.protocol.answer = None  # which knows the request, which knows the protocol

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        await self._idle.wait()

    def _answer(self, visit: Visit) -> Awaitable[web.StreamResponse | Reading]:
        """Find out who answers. Raises SidecarError."""
        request = visit.request
        guard.check_message(request)
        self._check_size(request)
        path = request.rel_url.raw_path
        guard.check_path(path)
        if path.startswith(PREFIX):
            visit.name = "_streams"
            return self._streams.handle(request, self._peers)
        asked = self._table.find_alias(_method(request), request.rel_url.path_safe)
        if asked is not None:
            visit.name, visit.route = asked.route.name, asked.route
            paid = self._upstreams[asked.route.upstream].injects_credentials
            caller = visit.origin.address
            return resume_by_alias.answer(self._hub, self._config, request, asked, caller, credentials=paid)
        exchange = self._exchange(visit, path)
        visit.name, visit.route, visit.dialect = exchange.route.name, exchange.route, exchange.dialect
        if exchange.route.websocket != "off" and handshake.is_asked(request):
            return self._switch(exchange)
        return self._at_route(exchange)

    def _read(self, reading: Reading, visit: Visit) -> Coroutine[Any, Any, web.StreamResponse]:
        relay, extra, prelude = reading
        visit.began, caller = relay, visit.origin.address
        return serve_stream(self._hub, relay, visit.request, caller=caller, extra=extra, prelude=prelude)

    def _answered(self, visit: Visit, response: web.StreamResponse) -> web.StreamResponse:
        if self._hub.draining:
            response.force_close()
        visit.response = response
        return response

    def _left(self, visit: Visit) -> None:
        """Note that a request is over."""
        began = visit.began
        if began is not None:
            began.cancel_unread("the client left before the stream began")
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()
        self._tell(visit)

    def _tell(self, visit: Visit) -> None:
        """Count a request that is over and, where the log is to have it, write its line.

        A stream has a line of its own, which tells of its readers. What failed without a fault of the
        client's is told in any case.
        """
        failed = visit.failed or (visit.error is not None and visit.error.status >= 500)
        plain = self._hub.telemetry.tells_requests and not isinstance(visit.answer, StreamAnswer)
        report.request(
            self._hub,
            visit.name,
            visit.request,
            visit.origin.address,
            status=visit.status,
            started=visit.started,
            sent=visit.sent,
            told=failed or plain,
        )

    def _refusal(self, error: SidecarError, visit: Visit) -> web.StreamResponse:
        request, route = visit.request, visit.route
        visit.error = error
        error.sent = error.sent or visit.began is not None
        if isinstance(error, VersionNotSupported):
            answer_in_our_version(request)
        if route is None:
            answer = problem.answer(error, request, route=None)
            named = streams.named(request) if visit.name == "_streams" else None
            return self._readable(error, request, answer, named, visit.config.origins)
        form = visit.dialect and (emit_for(route.emit.form, visit.dialect) or visit.dialect)
        answer = problem.answer(
            error,
            request,
            route=route.name,
            dialect=visit.dialect,
            form=form,
            final=prompt.begins(request, route),
        )
        origins = guard.allowed_origins(visit.config, route)
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
        lines = request.raw_headers
        size = sum(map(len, chain.from_iterable(lines))) + len(lines) * len(": \r\n")
        if size > self._config.limits.max_headers:
            raise HeadersTooLarge(
                f"the headers are {size} bytes; limits.max_headers is {self._config.limits.max_headers}"
            )

    def _exchange(self, visit: Visit, path: str) -> Exchange:
        """Find the route. Raises NoRoute or MethodNotAllowed."""
        request = visit.request
        upgrade = handshake.is_asked(request)
        route = self._table.find(_method(request), request.rel_url.path_safe, upgrade=upgrade)
        return self._exchange_at(route, request, path, visit.origin, visit.started)

    def _exchange_at(
        self, route: Route, request: web.BaseRequest, path: str, origin: Origin, started: float
    ) -> Exchange:
        return Exchange(
            request=request,
            config=self._config,
            route=route,
            upstream=self._upstreams[route.upstream],
            dialect=dialect_of(route, path),
            origin=origin,
            upload=Upload(request, route.max_body),
            started=started,
        )

    def _switch(self, exchange: Exchange) -> Coroutine[Any, Any, web.StreamResponse]:
        """Speak WebSocket. Raises SidecarError."""
        request, route = exchange.request, exchange.route
        guard.check_caller(request, self._config, route, credentials=exchange.credentials)
        handshake.check_origin(request, self._config, route)
        if route.websocket == "passthrough":
            return Tunnel(self._hub, exchange).serve()

        def ask(start: web.BaseRequest) -> Exchange:
            path = start.rel_url.raw_path
            now = self._table.find(hdrs.METH_GET, start.rel_url.path_safe, upgrade=True)
            if (now.name, now.websocket) != (route.name, "bridge"):  # the configuration has changed since
                raise NoRoute(f"the bridge of route {route.name!r} is not here any more; connect again")
            handshake.check_origin(start, self._config, now)
            asked = self._exchange_at(now, start, path, exchange.origin, self._hub.loop.time())
            asked.bridged = True
            return asked

        return Bridge(self._hub, exchange, self._opener, ask).serve()

    async def _at_route(self, exchange: Exchange) -> web.StreamResponse | Reading:
        request, route = exchange.request, exchange.route
        guard.check_caller(request, self._config, route, credentials=exchange.guarded)
        exchange.upload.check_head()
        origins = guard.allowed_origins(self._config, route)
        if cors.is_preflight(request) and request.headers[hdrs.ORIGIN] in origins:
            answer = cors.preflight(request, route.methods or COMMON_METHODS)
            cors.allow(request, answer.headers, origins)
            return answer
        if route.prompt is not None:
            prompt.accept(exchange)
        restart: Restart | None = None
        cursor = own_cursor(request, route)
        if cursor is not None:
            resumed = await resume.on_route(self._hub, exchange, cursor)
            if not isinstance(resumed, Restart):
                return resumed
            restart = resumed
        await resume_by_alias.take(exchange)
        if route.prompt is not None:
            if request.method == hdrs.METH_HEAD:
                return problem.event_stream(b"")  # as a GET's answer begins, were there one
            prompt.check_room(self._hub)
        await inject.add(exchange)
        call = exchange.call()
        if restart is not None and restart.last_id is not None:
            call.headers[LAST_EVENT_ID] = restart.last_id.decode("utf-8", "surrogateescape")
        key = key_of(request, route)
        opening = await self._opener.prepare(exchange, call, known=key in self._attempts)
        if key is not None:
            return await self._keyed(exchange, call, opening, key)
        prelude = restart.prelude if restart is not None else b""
        begun = await opening()
        if begun.relay is not None:
            if route.prompt is not None:
                prelude = prompt.prelude(exchange, begun.relay)
            return Reading(begun.relay, begun.cookies, prelude)
        assert begun.response is not None
        if not prelude:
            return await pass_on(exchange, begun.response)
        begun.response.close()  # the client comes again, and gets the answer when nothing is owed to it
        return problem.event_stream(prelude)

    # The same request again

    async def _keyed(self, exchange: Exchange, call: Call, opening: Opening, key: Key) -> web.StreamResponse:
        """Begin a stream under a key, or join the one that the key began.

        An attempt that led to no stream, or failed, has released the key: then this is the first.
        """
        await exchange.upload.whole(self._config.limits.buffered_body)
        asked, linger = (call.target, exchange.upload.fingerprint.value), exchange.route.linger
        while True:
            attempt = self._attempts.get(key, asked)
            first = attempt is None
            if attempt is None:
                attempt = self._attempts.begin(key, asked, opening())
            with self._attempts.shared(attempt, linger):
                try:
                    begun = await asyncio.shield(attempt.begun)
                except SidecarError:
                    if first:
                        raise
                    continue
                if begun.relay is not None:
                    return await self._share(exchange, begun.relay, begun.cookies, first=first)
                if begun.response is not None and attempt.claim():
                    return await pass_on(exchange, begun.response)

    async def _share(
        self, exchange: Exchange, relay: Relay, extra: CIMultiDict[str] | None, *, first: bool
    ) -> web.StreamResponse:
        """Answer one of the requests under a key with the key's stream; ``extra`` goes to the first."""
        if not first:
            resume.check_cursor(relay, 0)
            extra = CIMultiDict({"Idempotency-Replayed": "true"})
        caller = exchange.origin.address
        return await serve_stream(self._hub, relay, exchange.request, caller=caller, extra=extra)


def _method(request: web.BaseRequest) -> str:
    """The method of a request, or the one that a preflight asks for."""
    preflight = cors.is_preflight(request)
    return request.headers[hdrs.ACCESS_CONTROL_REQUEST_METHOD] if preflight else request.method
