"""The built-in provider: one small server that speaks the APIs of several, and misbehaves on request.

It is what ``sse-sidecar demo`` and the tests put behind the sidecar. It needs no key and no network,
its answers can be known beforehand, and it remembers what it saw.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiohttp import web
from openai.types import Model
from yarl import URL

from proxy.demo import (
    anthropic_events,
    app_events,
    audio,
    bedrock_events,
    cohere_events,
    feed,
    gemini_events,
    observation,
    ollama_lines,
    openai_chat,
    openai_errors,
    openai_responses,
    plain,
    realtime,
    socket_echo,
)
from proxy.demo.framing import ARRAY, EVENT_STREAM, LINES, MESSAGES, Framing
from proxy.demo.ledger import Ledger, Record, State
from proxy.demo.misbehaviour import HEADER, BadMisbehaviour, Misbehaviour, asked
from proxy.demo.observation import LEDGER, observe, record_of
from proxy.demo.playback import Playback
from proxy.demo.voice import FAILURE, Call, Script, Voice
from proxy.demo.websocket import Socket, Talk
from proxy.web.serving import serve, serve_named

#: Bound of the requests that are read whole, in bytes: prompts with images run to tens of megabytes.
MAX_CALL_BYTES = 64 * 1024 * 1024

#: Seconds that running answers get when the provider stops: they are demos, nobody waits for them.
SHUTDOWN_TIMEOUT = 0.05

#: What ``Retry-After`` says beside a 429, in seconds.
RETRY_AFTER = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one API refuses, names its request ids, which query parameters are its own, how it streams."""

    refusal: Callable[[int, str], dict[str, Any]]
    own_keys: frozenset[str] = frozenset()
    request_id: str = "X-Request-Id"
    framing: Framing = EVENT_STREAM


OPENAI = Manner(refusal=openai_errors.refusal)
ANTHROPIC = Manner(refusal=anthropic_events.refusal, own_keys=frozenset({"beta"}), request_id="Request-Id")
GEMINI = Manner(refusal=gemini_events.refusal, own_keys=frozenset({"alt", "key", "$alt"}))
GEMINI_ARRAY = replace(GEMINI, framing=ARRAY)
OLLAMA = Manner(refusal=ollama_lines.refusal, framing=LINES)
BEDROCK = Manner(refusal=bedrock_events.refusal, request_id="X-Amzn-RequestId", framing=MESSAGES)
COHERE = Manner(refusal=cohere_events.refusal)
APP = Manner(refusal=app_events.refusal, own_keys=frozenset({"prompt"}))
FEED = Manner(refusal=app_events.refusal, own_keys=frozenset({"count"}))
REALTIME = Manner(refusal=openai_errors.refusal, own_keys=frozenset({"model", "call_id", "intent"}))
SOCKET = Manner(refusal=app_events.refusal, own_keys=frozenset({"deflate"}))

#: Hears a call: from the request's body to a voice, or msgspec.DecodeError.
Listen = Callable[[Call, bytes], Voice]

#: Joins a WebSocket: from the request for it to a talk.
Join = Callable[[web.Request, Call, Misbehaviour], Talk]


#: Models that `GET /v1/models` lists; any other name is answered all the same.
MODELS = ("demo-1", "demo-1-mini")


class Exchange:
    """One request to one API and its answer, gone wrong as far as the request asked for it."""

    def __init__(self, manner: Manner, request: web.Request) -> None:
        self._manner = manner
        self._request = request
        self._record = record_of(request)

    async def converse(self, listen: Listen) -> web.StreamResponse:
        """Hear the call, answer it as a stream or whole."""
        try:
            wrong = self._misbehaviour()
            voice = listen(self._call(wrong), await self._body())
        except (BadMisbehaviour, msgspec.DecodeError) as error:
            return self._refuse(400, str(error))
        if voice.streams:
            return await self._play(voice, wrong)
        if wrong.endless:
            return self._refuse(400, "endless=1 needs a stream")
        await asyncio.sleep(wrong.headers_delay)
        if wrong.status != 200:
            return self._fail(wrong.status)
        await asyncio.sleep(wrong.first_delay)
        return web.json_response(text=voice.answer(), headers=self._request_id())

    async def follow(self) -> web.StreamResponse:
        """Play the feed from where the reader left it; 204, which stops an EventSource, after its end."""
        try:
            wrong = self._misbehaviour(interval=feed.INTERVAL)
            last_id = feed.parse_number("Last-Event-ID", self._request.headers.get("Last-Event-ID", ""))
            length = feed.parse_number("count", self._request.query.get("count", ""))
        except (BadMisbehaviour, feed.BadNumber) as error:
            return self._refuse(400, str(error))
        script = feed.Feed(last_id=last_id or 0, length=length)
        if script.exhausted:
            return web.Response(status=204)
        return await self._play(script, wrong)

    async def talk(self, join: Join) -> web.StreamResponse:
        """Upgrade to a WebSocket and talk over it; 426 for a request that did not ask for one."""
        try:
            wrong = self._misbehaviour()
        except BadMisbehaviour as error:
            return self._refuse(400, str(error))
        talk = join(self._request, self._call(wrong), wrong)
        socket = Socket(self._request, wrong, self._record, talk, self._request_id())
        if not socket.possible:
            return self._refuse(426, "This is a WebSocket's URL: ask for an upgrade")
        await asyncio.sleep(wrong.headers_delay)
        if wrong.status != 200:
            return self._fail(wrong.status)
        return await socket.hold()

    async def _play(self, script: Script, wrong: Misbehaviour) -> web.StreamResponse:
        self._record.begin_stream()
        await asyncio.sleep(wrong.headers_delay)
        if wrong.status != 200:
            return self._fail(wrong.status)
        framing = self._manner.framing
        headers = {"Content-Type": framing.content_type, "Cache-Control": "no-cache", **self._request_id()}
        return await Playback(self._request, script, wrong, self._record, headers, framing).play()

    def _misbehaviour(self, *, interval: float | None = None) -> Misbehaviour:
        header_values = self._request.headers.getall(HEADER, ())
        keys = asked(self._request.query, header_values, own_keys=self._manner.own_keys)
        return Misbehaviour.read(keys, interval=interval)

    def _call(self, wrong: Misbehaviour) -> Call:
        return Call(
            number=self._record.number,
            created=int(self._record.started),
            speech=wrong.speech,
            path_model=self._request.match_info.get("model", ""),
        )

    async def _body(self) -> bytes:
        if self._request.method == "GET":
            return json.dumps(dict(self._request.query)).encode()
        return await self._request.read()

    def _fail(self, status: int) -> web.Response:
        self._record.end(State.MISBEHAVED)
        return self._refuse(status, FAILURE)

    def _refuse(self, status: int, message: str) -> web.Response:
        headers = self._request_id()
        if status == 429:
            headers["Retry-After"] = str(RETRY_AFTER)
        if status == 426:
            headers["Upgrade"] = "websocket"
        return web.json_response(self._manner.refusal(status, message), status=status, headers=headers)

    def _request_id(self) -> dict[str, str]:
        return {self._manner.request_id: f"req_{self._record.number:06d}"}


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _converse(manner: Manner, listen: Listen) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await Exchange(manner, request).converse(listen)

    return handle


def _talk(manner: Manner, join: Join) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await Exchange(manner, request).talk(join)

    return handle


async def _stream_gemini(request: web.Request) -> web.StreamResponse:
    """Stream events for ``alt=sse``; the API's other form is one array."""
    manner = GEMINI if request.query.get("alt") == "sse" else GEMINI_ARRAY
    return await Exchange(manner, request).converse(gemini_events.listen_streaming)


async def _follow(request: web.Request) -> web.StreamResponse:
    return await Exchange(FEED, request).follow()


async def _list_models(_request: web.Request) -> web.Response:
    models = [Model(id=name, object="model", created=0, owned_by="demo").to_dict() for name in MODELS]
    return web.json_response({"object": "list", "data": models})


async def _show_playground(request: web.Request) -> web.Response:
    return serve(request, "playground.html")


async def _find_playground(_request: web.Request) -> web.Response:
    raise web.HTTPFound("../_playground")  # what it loads is named as seen from there


def _routes() -> list[web.RouteDef]:
    # The API has both versions, and Google's SDK has changed its mind about which is the default.
    gemini_model = "/{version:v1|v1beta}/models/{model:[^/:]+}"
    return [
        web.post("/v1/chat/completions", _converse(OPENAI, openai_chat.listen)),
        web.post("/v1/responses", _converse(OPENAI, openai_responses.listen)),
        web.post("/v1/messages", _converse(ANTHROPIC, anthropic_events.listen)),
        web.post(f"{gemini_model}:streamGenerateContent", _stream_gemini),
        web.post(f"{gemini_model}:generateContent", _converse(GEMINI, gemini_events.listen_whole)),
        web.post("/v2/chat", _converse(COHERE, cohere_events.listen)),
        # Below a prefix: the API's own path is where most apps have their chat, this provider's too.
        web.post("/ollama/api/chat", _converse(OLLAMA, ollama_lines.listen_chat)),
        web.post("/ollama/api/generate", _converse(OLLAMA, ollama_lines.listen_generate)),
        web.post("/model/{model}/converse-stream", _converse(BEDROCK, bedrock_events.listen_streaming)),
        web.post("/model/{model}/converse", _converse(BEDROCK, bedrock_events.listen_whole)),
        web.get("/v1/models", _list_models),
        web.post("/api/chat", _converse(APP, app_events.listen)),
        # A HEAD must not play a stream to nobody.
        web.get("/api/chat", _converse(APP, app_events.listen), allow_head=False),
        web.get("/api/events", _follow, allow_head=False),
        web.get("/v1/realtime", _talk(REALTIME, realtime.join), allow_head=False),
        web.get("/api/audio", _talk(SOCKET, audio.join), allow_head=False),
        web.get("/api/socket", _talk(SOCKET, socket_echo.join), allow_head=False),
        web.get("/_playground", _show_playground),
        web.get("/_playground/", _find_playground),
        web.get("/_playground/{asset}", serve_named),
        *plain.routes(),
        *observation.routes(),
    ]


def provider() -> web.Application:
    """The provider as an application.

    To notice a client that left during a long pause it must be run with ``handler_cancellation``, as
    ``start_provider`` does.
    """
    app = web.Application(middlewares=[observe], client_max_size=MAX_CALL_BYTES)
    app[LEDGER] = Ledger()
    app.add_routes(_routes())
    return app


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A provider that listens; ``url`` has no trailing slash."""

    url: str
    port: int
    ledger: Ledger
    runner: web.AppRunner

    @property
    def requests(self) -> list[Record]:
        """What it saw, oldest first."""
        return self.ledger.records

    async def close(self) -> None:
        """Stop listening and end whatever still runs."""
        await self.runner.cleanup()


async def start_provider(host: str = "127.0.0.1", port: int = 0) -> Running:
    """Listen on ``host``; port 0 takes a free one. OSError when the address is taken."""
    app = provider()
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # an echo tells what came, not what it meant
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_TIMEOUT,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    bound = runner.addresses[0][1]
    url = URL.build(scheme="http", host=host, port=bound)
    return Running(url=str(url), port=bound, ledger=app[LEDGER], runner=runner)
