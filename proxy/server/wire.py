"""The seams in aiohttp: the few places where its defaults are not a proxy's.

Everything here subclasses or replaces a part of aiohttp's client or server. Nothing else in the
package reaches below aiohttp's public surface.

* ``UpstreamProtocol``: aiohttp's client swallows interim responses; a proxy "MUST forward 1xx
  responses" (RFC 9110 §15.2).
* ``Front`` and ``FrontProtocol``: aiohttp's server answers a malformed request with a text that
  echoes it, and a header section that is too large with 400.
* ``Answer``: aiohttp's response adds a Server and a Content-Type that the upstream never sent.
"""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpVersion10, RawResponseMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader

Tell = Callable[[RawResponseMessage], None]

#: Called with each interim response (1xx) that the upstream sends to the request of this context.
INTERIM: ContextVar[Tell | None] = ContextVar("interim", default=None)

#: The interim responses that concern the end points of one connection only (RFC 9110 §15.2.1, §15.2.2).
CONNECTION_ONLY = (100, 101)

#: Header lines that aiohttp's parser accepts in one message; their bytes are bounded by the caller.
MAX_HEADER_LINES = 256

#: Longest request line in bytes: RFC 9112 §3 recommends supporting "at minimum, 8000 octets".
MAX_REQUEST_LINE = 16 * 1024

#: After an answer to a request whose body was not read: how long the rest of it is read and thrown
#: away, in seconds, so that the client sees the answer and not a reset connection.
LINGERING_SECONDS = 2.0


class UpstreamProtocol(ResponseHandler):
    """aiohttp's client protocol, telling of interim responses."""

    async def read(self) -> tuple[RawResponseMessage, StreamReader]:
        """Return the next response message, interim ones included."""
        message, payload = await super().read()
        tell = INTERIM.get()
        if tell is not None and 100 < message.code < 200 and message.code not in CONNECTION_ONLY:
            tell(message)
        return message, payload


def connector(
    *, tls: ssl.SSLContext | bool, keepalive: float, loop: asyncio.AbstractEventLoop
) -> aiohttp.TCPConnector:
    """Return a pool of upstream connections, unlimited in number (streams are bounded elsewhere)."""
    pool = aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=keepalive, enable_cleanup_closed=False)
    pool._factory = functools.partial(UpstreamProtocol, loop=loop)  # type: ignore[assignment]  # a subclass
    return pool


class FrontProtocol(web.RequestHandler):
    """aiohttp's server protocol, answering unreadable requests without echoing them."""

    __slots__ = ()

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
        if isinstance(exc, LineTooLong):
            status, title = 431, "Headers too large"
        elif status == 400:
            title = "Malformed request"
        else:
            title = "Internal error"
            self.log_exception("request failed", exc_info=exc)
        answer = web.Response(
            status=status,
            body=json.dumps({"type": f"urn:sse-sidecar:{status}", "title": title, "status": status}),
            content_type="application/problem+json",
            headers={hdrs.CACHE_CONTROL: "no-store"},
        )
        answer.headers[hdrs.SERVER] = SERVER
        answer.force_close()
        return answer


SERVER = "sse-sidecar"


class Front(web.Server):
    """The listening side: hands every request to one handler, and cancels it if its client leaves."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], *, max_headers: int
    ) -> None:
        self._options: dict[str, Any] = {
            "auto_decompress": False,  # compressed request bodies pass as they are
            "access_log": None,
            "keepalive_timeout": 75.0,
            "lingering_time": LINGERING_SECONDS,
            "max_line_size": MAX_REQUEST_LINE,
            "max_field_size": max_headers,
            "max_headers": MAX_HEADER_LINES,
        }
        super().__init__(handler, handler_cancellation=True)

    def __call__(self) -> web.RequestHandler:
        """Make the protocol of a new connection."""
        return FrontProtocol(self, loop=asyncio.get_running_loop(), **self._options)


#: The status with which a request was answered, once it was.
ANSWERED: web.RequestKey[int] = web.RequestKey("answered", int)


class Answer(web.StreamResponse):
    """A response that says what the upstream said, and adds nothing to it but framing and a date."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the head."""
        request[ANSWERED] = self.status
        return await super().prepare(request)

    async def _prepare_headers(self) -> None:
        typed = hdrs.CONTENT_TYPE in self.headers
        named = hdrs.SERVER in self.headers
        await super()._prepare_headers()
        if not typed:
            self.headers.popall(hdrs.CONTENT_TYPE, None)
        if not named:
            self.headers.popall(hdrs.SERVER, None)


def is_chunked(request: web.BaseRequest) -> bool:
    """Whether a body of unknown length goes to this client in chunks (not before HTTP/1.1)."""
    return request.version > HttpVersion10


def as_chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk of a chunked body (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
