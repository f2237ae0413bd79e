"""One request on a pooled connection, and the reply to it.

aiohttp's ``ClientSession`` serves every kind of client: redirects, cookies, forms, authentication,
netrc, tracing. A proxy wants none of it, since all of that is its own client's business, and a session
takes more time for one request than all that a stream's set-up does besides. So the session is left
out, and its last step is made here with the same parts: aiohttp's connector (the pool, names, TLS), its
protocol and parser, and its ``StreamReader`` for the body.

A body that has come whole leaves with the head, in one write. A longer one is sent by a task, while the
reply may already be on its way.
"""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from aiohttp.http import RawResponseMessage, StreamWriter
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.config import Timeouts
from proxy.server import wire
from proxy.server.direct import DirectProtocol
from proxy.server.upload import Upload

#: The upstream's header section, in bytes a line and lines: larger than what clients may send, since
#: providers are generous with rate-limit and policy fields.
MAX_RESPONSE_FIELD = 64 * 1024
MAX_RESPONSE_LINES = 512

#: Bytes of a body that aiohttp holds before it stops reading (it stops at twice as many).
READ_BYTES = 64 * 1024

#: Methods without effects (RFC 9110 §9.2.1), which alone are ever sent twice.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

#: Methods whose requests say that they have no body where they have none (RFC 9110 §8.6).
BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})

#: What aiohttp would make anew for every body.
NO_TIMER = TimerNoop()

NO_FIELDS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())

LAST_CHUNK = b"0\r\n\r\n"

#: Hears of each interim response (1xx) that is a client's to see.
Tell = Callable[[RawResponseMessage], None]


@dataclass(slots=True)
class Call:
    """A request as it goes upstream.

    ``target`` is the path and query, percent-encoding untouched. ``headers`` begin with a Host field,
    which becomes each server's own unless ``host`` names another. ``upgrade``: it asks to switch protocols.
    """

    method: str
    target: str
    headers: CIMultiDict[str]
    timeouts: Timeouts
    body: Upload | None = None
    host: str | None = None
    upgrade: bool = False


class Reply:
    """A response, its body unread. ``close`` must be called, once or more, whatever happens.

    ``connection`` is None as soon as the response is over: then it is back in the pool.
    """

    __slots__ = ("_sending", "connection", "content", "headers", "method", "reason", "status")

    def __init__(
        self, method: str, message: RawResponseMessage, content: StreamReader, connection: Connection
    ) -> None:
        self.method = method
        self.status: int = message.code
        self.reason: str = message.reason or ""
        self.headers: CIMultiDictProxy[str] = message.headers
        self.content = content
        self.connection: Connection | None = connection
        self._sending: asyncio.Task[None] | None = None

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty where there is none."""
        return self.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()

    def follow(self, sending: asyncio.Task[None] | None) -> None:
        """Return the connection to the pool when the body, and the sending of the request's, is over."""
        self._sending = sending
        self.content.on_eof(self._over)

    def forget_head(self) -> None:
        """Let go of the header fields, where all that they say is known: a body may last for hours."""
        self.headers = NO_FIELDS

    def close(self) -> None:
        """End it: the connection is dropped, unless the response was whole."""
        if self.connection is None:
            return
        if self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientConnectionError("the response was closed"))
        self._leave(self.connection.close)

    def _over(self) -> None:
        if self.connection is not None:
            sent = self._sending is None or self._sending.done()
            self._leave(self.connection.release if sent else self.connection.close)

    def _leave(self, release: Callable[[], None]) -> None:
        self.connection = None
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        release()


class Pool:
    """Connections to the servers of one upstream, unlimited in number (streams are bounded elsewhere)."""

    def __init__(self, tls: ssl.SSLContext | bool, keepalive: float, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._connector = wire.connector(DirectProtocol, tls=tls, keepalive=keepalive, loop=loop)
        self._places: dict[URL, aiohttp.ClientRequest] = {}

    async def close(self) -> None:
        """Close every connection."""
        await self._connector.close()

    async def ask(self, origin: URL, call: Call, path: str, tell: Tell | None) -> Reply:
        """Send ``call`` to a server, once; and again only where it met a pooled connection's end.

        ``origin`` is the server's base URL without its path, ``path`` what is asked there. Raises what
        aiohttp raises.

        RFC 9112 §9.3.1: a client "can retry" a safe method on a new connection when the server closed
        the old one in that very moment. What has effects is never repeated.
        """
        while True:
            connection = await self._connect(origin, call.timeouts.connect)
            protocol = connection.protocol
            assert isinstance(protocol, ResponseHandler)
            reused = protocol._parser is not None  # it gets one with its first request
            try:
                return await self._exchange(connection, protocol, call, path, tell)
            except (OSError, aiohttp.ServerDisconnectedError):
                if not reused or call.body is not None or call.method not in SAFE_METHODS:
                    raise

    async def _connect(self, origin: URL, seconds: float) -> Connection:
        place = self._places.get(origin)
        if place is None:  # of a request, the connector looks at the URL only
            place = self._places[origin] = aiohttp.ClientRequest("GET", origin, loop=self._loop)
        try:
            return await self._connector.connect(place, traces=[], timeout=_to_connect(seconds))
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {origin}") from error

    async def _exchange(
        self, connection: Connection, protocol: ResponseHandler, call: Call, path: str, tell: Tell | None
    ) -> Reply:
        sending: asyncio.Task[None] | None = None
        try:
            protocol.set_response_params(
                timer=NO_TIMER,
                skip_payload=call.method == hdrs.METH_HEAD,
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=READ_BYTES,
                max_line_size=MAX_RESPONSE_FIELD,
                max_field_size=MAX_RESPONSE_FIELD,
                max_headers=MAX_RESPONSE_LINES,
            )
            sending = self._send(protocol, call, path)
            while True:
                message, content = await protocol.read()
                if message.code >= 200 or message.code == 101:
                    break
                if tell is not None and message.code not in wire.CONNECTION_ONLY:
                    tell(message)
        except BaseException:
            if sending is not None:
                sending.cancel()
            connection.close()
            raise
        reply = Reply(call.method, message, content, connection)
        if message.code != 101:  # behind which no other request follows
            reply.follow(sending)
        return reply

    def _send(self, protocol: ResponseHandler, call: Call, path: str) -> asyncio.Task[None] | None:
        """Write the request; return the task that sends the rest of its body, if there is any."""
        upload, headers = call.body, call.headers
        if upload is None:
            if call.method in BODY_METHODS and hdrs.CONTENT_LENGTH not in headers:
                headers[hdrs.CONTENT_LENGTH] = "0"
            _write(protocol, _head(call, path))
            return None
        chunked = hdrs.CONTENT_LENGTH not in headers
        if chunked:
            headers[hdrs.TRANSFER_ENCODING] = "chunked"
        body = upload.arrived()
        if body is not None:
            if chunked:
                body = wire.as_chunk(body) + LAST_CHUNK if body else LAST_CHUNK
            _write(protocol, _head(call, path) + body)
            return None
        _write(protocol, _head(call, path))
        writer = StreamWriter(protocol, self._loop)
        if chunked:
            writer.enable_chunking()
        return self._loop.create_task(_send_body(protocol, upload, writer), name="request body")


async def _send_body(protocol: ResponseHandler, upload: Upload, writer: StreamWriter) -> None:
    """Send a body as it comes. What breaks it breaks the response that is waited for."""
    try:
        async for chunk in upload.chunks():
            await writer.write(chunk)
        await writer.write_eof()
    except Exception as error:
        protocol.set_exception(aiohttp.ClientConnectionError("the request's body broke off"), error)


def _write(protocol: ResponseHandler, data: bytes) -> None:
    transport = protocol.transport
    if transport is None or transport.is_closing():
        raise aiohttp.ClientConnectionResetError("the connection is closing")
    transport.write(data)


def _head(call: Call, path: str) -> bytes:
    return wire.serialized(f"{call.method} {path} HTTP/1.1", call.headers)


@functools.lru_cache(maxsize=64)  # as many as configurations name
def _to_connect(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=seconds)


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def fault_of(reply: Reply, *, upgrade: bool) -> str | None:
    """Tell what in a response's head must not reach a client, though aiohttp's parser let it through."""
    if reply.status == 101 and not upgrade:
        return "switched protocols, unasked"
    headers = reply.headers
    if hdrs.TRANSFER_ENCODING in headers and headers[hdrs.TRANSFER_ENCODING].lower() != "chunked":
        return "used a transfer coding, unasked"
    text = "".join((reply.reason, *headers.values()))
    if not text.isprintable() and _CONTROL.search(text):  # the search takes ten times as long
        return "sent a control character in its head"
    return None
