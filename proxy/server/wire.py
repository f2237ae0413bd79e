"""The seams in aiohttp: the few places where its defaults are not a proxy's.

Everything here subclasses or replaces a part of aiohttp's client or server. Besides, only ``direct``
(the fast path) and ``pool`` (requests without a ClientSession) reach below aiohttp's public surface.

* ``UpstreamProtocol``: aiohttp's client takes a body after HEAD for the next response, and some bodies
  that broke off for whole ones. (``direct`` adds the fast path, ``pool`` asks without a ClientSession.)
* ``serialized``: aiohttp writes header fields as UTF-8 and leaves out every byte that is not.
* ``Front`` and ``FrontProtocol``: aiohttp's server answers a malformed request with a text that
  echoes it, and a header section that is too large with 400.
* ``FrontProtocol.take_over``, ``Switched``, ``detached``: aiohttp's WebSocket answers queue messages for
  a task, and take frames apart that are to pass as they are.
* ``standing_for``: a request that did not come over HTTP goes the way of those that did.
* ``Front.leave``: aiohttp ends connections all at once; before a restart the idle ones go first.
* ``Answer``: aiohttp's response adds a Server and a Content-Type that the upstream never sent.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import hdrs, http_writer, web
from aiohttp._websocket.helpers import websocket_mask
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.errors import BadRequest, HeadersTooLarge, SidecarError

#: The interim responses that concern the end points of one connection only (RFC 9110 §15.2.1, §15.2.2).
CONNECTION_ONLY = (100, 101)

#: Header lines that aiohttp's parser accepts in one message; their bytes are bounded by the caller.
MAX_HEADER_LINES = 256

#: Longest request line in bytes: RFC 9112 §3 recommends supporting "at minimum, 8000 octets".
MAX_REQUEST_LINE = 16 * 1024

#: After an answer to a request whose body was not read: how long the rest of it is read and thrown
#: away, in seconds, so that the client sees the answer and not a reset connection.
LINGERING_SECONDS = 2.0


HEAD_END = b"\r\n\r\n"


class Few(list[Any]):
    """A queue that hardly ever holds more than one item. An empty deque takes 700 bytes."""

    __slots__ = ()

    def popleft(self) -> Any:
        """Take the oldest item. Raises IndexError where there is none."""
        return self.pop(0)


class UpstreamProtocol(ResponseHandler):
    """aiohttp's client protocol, exact about where a response ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._buffer = Few()  # type: ignore[assignment]  # of responses, one at a time

    def data_received(self, data: bytes) -> None:
        """Take bytes from the upstream.

        Some servers send a body after HEAD. aiohttp would read it as the next response, fail, and lose
        the one that came before it; so it gets the head alone, and the connection is not used again.
        """
        end = data.find(HEAD_END) + len(HEAD_END) if self._skip_payload else 0
        if not len(HEAD_END) <= end < len(data):
            super().data_received(data)
            return
        super().data_received(data[:end])
        if self._buffer and self._buffer[-1][0][0].code >= 200:
            self.force_close()
        else:  # that was an interim response
            self.data_received(data[end:])

    def connection_lost(self, exc: BaseException | None) -> None:
        """End a body that has not ended: aiohttp forgets one whose chunks it could not read, and takes a
        reset for the end of one that ends with its connection.
        """
        payload = self._payload
        unfinished = payload is not None and not payload.is_eof()
        if payload is not None and unfinished and exc is not None:
            payload.set_exception(aiohttp.ClientPayloadError(f"the connection was lost: {exc}"))
        super().connection_lost(exc)
        if payload is not None and unfinished and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError("the body broke off"))


def salvaged(body: StreamReader) -> bytes:
    """Return what had come of a body before it broke, and was not read: aiohttp gives out the error alone."""
    return body._read_nowait(-1)


def connector(
    protocol: type[UpstreamProtocol],
    *,
    tls: ssl.SSLContext | bool,
    keepalive: float,
    loop: asyncio.AbstractEventLoop,
) -> aiohttp.TCPConnector:
    """Return a pool of upstream connections, unlimited in number (streams are bounded elsewhere)."""
    pool = aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=keepalive, enable_cleanup_closed=False)
    pool._factory = functools.partial(protocol, loop=loop)  # type: ignore[assignment]  # a subclass
    return pool


def serialized(status_line: str, headers: CIMultiDict[str]) -> bytes:
    """Return a message's head. What came as bytes outside UTF-8 leaves as the same bytes.

    RFC 9110 §5.5: "A recipient SHOULD treat other allowed octets in field content (i.e., obs-text) as
    opaque data." aiohttp's parser keeps such bytes as surrogates, which its serializer drops.
    """
    if status_line.isascii() and "".join(headers.values()).isascii():
        return _serialize(status_line, headers)
    lines = [status_line, *(f"{name}: {value}" for name, value in headers.items())]
    if any(_CONTROL.search(line) for line in lines):
        raise ValueError("a control character in a header field")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_serialize: Callable[[str, CIMultiDict[str]], bytes] = http_writer._serialize_headers

# The one place where aiohttp's own module is changed: both its client and its server look the function up
# there, and neither offers another way to say what a head is.
http_writer._serialize_headers = serialized


class FrontProtocol(web.RequestHandler):
    """aiohttp's server protocol, answering unreadable requests without echoing them.

    ``on_full`` is called when the client's socket takes no more for now. ``answer`` is what has begun to
    answer the current request; it stays when that request's client leaves, and no response is ever returned.
    """

    __slots__ = ("_between", "_take", "answer", "on_full")

    def __init__(self, manager: Front, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(manager, loop=loop, **options)
        self.on_full: Callable[[], None] | None = None
        self.answer: Answer | None = None
        self._take: Callable[[bytes], None] | None = None  # takes all bytes, once protocols were switched
        self._between = False  # whether the last read has ended a request, and holds nothing behind it
        self._messages = Few()  # type: ignore[assignment]  # of requests, mostly one at a time

    def pause_writing(self) -> None:
        """Hear that the socket is full."""
        super().pause_writing()
        if self.on_full is not None:
            self.on_full()

    @property
    def upgraded(self) -> bool:
        """Whether the newest request asked for another protocol: if it gets it, none follows."""
        return self._upgraded

    def take_over(self, take: Callable[[bytes], None]) -> None:
        """Give all bytes to ``take`` from now on, those first that came behind the request's head."""
        self.keep_alive(True)
        self._take = take
        self._parser = None
        tail, self._message_tail = self._message_tail, b""
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        if tail:
            take(tail)

    def hear_no_more(self) -> None:
        """Drop what still comes, and whoever has taken it so far."""
        self._take = _drop

    @property
    def leaving(self) -> bool:
        """Whether the answer to the current request is this connection's last."""
        return isinstance(self._manager, Front) and self._manager.leaving

    def rest(self) -> None:
        """Let go of what only a next request needs: an answer may last for hours.

        That is aiohttp's timer for idle connections and, where nothing of that request can be in it, the
        parser, which holds on to the lines of the last head. The next byte brings another.
        """
        self.keep_alive(True)
        request = self._current_request
        if self._between and request is not None and request.content.at_eof():
            self._parser = None
            if request.body_exists:
                request.content._buffer = Few()  # type: ignore[assignment]  # was read, and stays empty

    def _ends_a_request(self, data: bytes) -> bool:
        """Whether a read that brought at least one request ends with the last one's last byte.

        Never wrongly true: the parser forgets what it has begun.
        """
        message, body = self._messages[-1]
        if isinstance(message, _ErrInfo) or not body.is_eof() or self._buffer_paused or self._upgraded:
            return False
        if hdrs.CONTENT_LENGTH not in message.headers:
            return data.endswith(HEAD_END)
        head = data.find(HEAD_END) + len(HEAD_END)
        return len(self._messages) == 1 and head + int(message.headers[hdrs.CONTENT_LENGTH]) == len(data)

    def leave(self) -> None:
        """Close the connection if it waits for a request. (``close`` would keep it open, and deaf.)"""
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client.

        aiohttp answers unreadable ones in their turn, which would never come while a handler waits for
        the rest of the very body that they broke.
        """
        take = self._take
        if take is not None:
            take(data)
            return
        if self._parser is None and self._manager is not None:
            if not data:
                return  # a body that was read lets the parser go on, which has rested since
            self._parser = self._new_parser()
        super().data_received(data)
        if data:
            self._between = len(self._messages) > 0 and self._ends_a_request(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            self._lingering_time = 0  # there is nothing left that could be read and thrown away
            bodies = [body for _, body in self._messages]
            if self._current_request is not None:
                bodies.append(self._current_request.content)
            for body in bodies:
                if not body.is_eof() and body.exception() is None:
                    body.set_exception(BadRequest("the request's body is malformed"))

    def _new_parser(self) -> HttpRequestParser:
        """Make what aiohttp makes for each connection."""
        return HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed, or whose handler failed."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; all that is left is to end the connection")
        if isinstance(exc, ConnectionResetError):  # the client's; of an upstream's we make an UpstreamError
            raise exc
        if isinstance(exc, LineTooLong) or getattr(exc, "message", "").startswith("Too many headers"):
            problem: SidecarError = HeadersTooLarge("a line of the head is too long, or they are too many")
        elif status == 400 or isinstance(exc, HttpProcessingError):
            problem = BadRequest("this is no HTTP/1.1 message that can be read in one way only")
        else:
            problem = SidecarError("the sidecar failed to answer; its log says why")
            self.log_exception("request failed", exc_info=exc)
        answer = web.Response(
            status=problem.status,
            body=json_body(problem.document()),
            content_type="application/problem+json",
            headers={hdrs.CACHE_CONTROL: "no-store"},
        )
        answer.headers[hdrs.SERVER] = SERVER
        answer.force_close()
        return answer


SERVER = "sse-sidecar"


def _drop(data: bytes) -> None:
    """Take bytes that mean nothing any more."""


class Front(web.Server):
    """The listening side: hands every request to one handler, and cancels it if its client leaves."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        max_headers: int,
        keepalive: float,
    ) -> None:
        self._options: dict[str, Any] = {
            "auto_decompress": False,  # compressed request bodies pass as they are
            "access_log": None,
            "keepalive_timeout": keepalive,
            "lingering_time": LINGERING_SECONDS,
            "max_line_size": MAX_REQUEST_LINE,
            "max_field_size": max_headers,
            "max_headers": MAX_HEADER_LINES,
        }
        super().__init__(handler, handler_cancellation=True)
        self.leaving = False

    def leave(self) -> None:
        """Take no further request: close idle connections now, each other one after its answer."""
        self.leaving = True
        for connection in self.connections:
            if isinstance(connection, FrontProtocol):
                connection.leave()

    def __call__(self) -> web.RequestHandler:
        """Make the protocol of a new connection."""
        return FrontProtocol(self, asyncio.get_running_loop(), **self._options)


class Answer(web.StreamResponse):
    """A response that says what the upstream said, and adds nothing to it but framing and a date.

    ``sent`` counts the body's bytes.
    """

    sent = 0

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the head."""
        self.note(request)
        return await super().prepare(request)

    def note(self, request: web.BaseRequest) -> None:
        """Be the answer of this request's connection; its last, where the listener is leaving."""
        protocol = request.protocol
        if isinstance(protocol, FrontProtocol):
            protocol.answer = self
            if protocol.leaving:
                self.force_close()

    async def put(self, data: bytes) -> None:
        """Write a piece of the body, and do not wait for the socket: ``room`` knows for how long."""
        self.sent += len(data)
        writer = self._payload_writer
        assert isinstance(writer, http_writer.StreamWriter)
        await writer.write(data, drain=False)

    async def _prepare_headers(self) -> None:
        typed = hdrs.CONTENT_TYPE in self.headers
        named = hdrs.SERVER in self.headers
        if self.content_length is None and not self._must_be_empty_body and not self._is_chunked():
            self.force_close()  # aiohttp would keep the connection whose end is the body's end
        await super()._prepare_headers()
        if not typed:
            self.headers.popall(hdrs.CONTENT_TYPE, None)
        if not named:
            self.headers.popall(hdrs.SERVER, None)

    def _is_chunked(self) -> bool:
        return self._req is not None and is_chunked(self._req)


def unmask(payload: bytes, key: bytes) -> bytes:
    """Return what a WebSocket client has masked (RFC 6455 §5.3): aiohttp's compiled way, 4 ms for 16 MiB."""
    data = bytearray(payload)
    websocket_mask(key, data)
    return bytes(data)


class Gone(asyncio.Transport):
    """Stands for a connection that is over."""

    def is_closing(self) -> bool:
        """It is closed."""
        return True

    def get_write_buffer_size(self) -> int:
        """Nothing waits in it."""
        return 0


def detached(protocol: BaseProtocol) -> tuple[asyncio.Transport, bytes]:
    """Return the transport of a connection that has switched protocols, and what came behind the switch.

    ``protocol`` is aiohttp's, of either side. Another may take its place, but it must hear of the end; unless
    that has come already, perhaps with the switch itself: then the transport is ``Gone``.
    """
    if isinstance(protocol, FrontProtocol):
        protocol.keep_alive(True)
        protocol._parser = None
        data, protocol._message_tail = protocol._message_tail, b""
    else:
        assert isinstance(protocol, UpstreamProtocol)
        protocol._parser = None
        data, protocol._tail = protocol._tail, b""
    transport = protocol.transport
    if transport is None or transport.is_closing():
        return Gone(), data
    if protocol._buffer_paused:
        protocol._resume_reading_for_buffer()
    return transport, data


class Switched(Answer):
    """The 101 behind which a connection speaks another protocol. It has no body, and no request follows."""

    def __init__(self, headers: CIMultiDict[str]) -> None:
        super().__init__(status=101, _real_headers=headers)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the head. Raises ConnectionResetError where the client has left."""
        if self.prepared:
            return self._payload_writer
        self.note(request)
        self.force_close()
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._req = request
        self._payload_writer = request.writer
        head = serialized("HTTP/1.1 101 Switching Protocols", self._headers)
        request.writer.output_size += len(head)  # what fails from now on is not told in HTTP
        request.transport.write(head)
        return self._payload_writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Whatever ends the connection has ended it."""


def standing_for(
    request: web.BaseRequest, method: str, headers: CIMultiDict[str], body: bytes | None
) -> web.BaseRequest:
    """Return a request of the same client for the same target, with another method, fields and body."""
    other = request.clone(method=method)
    other._message = other._message._replace(
        headers=CIMultiDictProxy(headers), upgrade=False, chunked=False, compression=None
    )
    other._headers = other._message.headers
    other._payload = EMPTY_PAYLOAD if body is None else _whole(request, body)
    return other


def _whole(request: web.BaseRequest, body: bytes) -> StreamReader:
    """A body that has come. It is no connection's, which would be paused and resumed for its sake."""
    content = StreamReader(BaseProtocol(request._loop), limit=len(body) + 1, loop=request._loop)
    content.feed_data(body)
    content.feed_eof()
    return content


def answer_in_our_version(request: web.BaseRequest) -> None:
    """Let the status line say HTTP/1.1: aiohttp repeats the request's version, even one nobody speaks."""
    request._cache["version"] = HttpVersion11  # the place of aiohttp's own property


def json_body(document: object) -> bytes:
    """Return a document as the body of an answer of ours; its line end keeps terminals tidy."""
    return json.dumps(document).encode() + b"\n"


def is_chunked(request: web.BaseRequest) -> bool:
    """Whether a body of unknown length goes to this client in chunks (not before HTTP/1.1)."""
    return request.version > HttpVersion10


def as_chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk of a chunked body (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
