"""Asking an upstream: one request, over the servers that share its name, until one answers.

Foreign errors end here: ``ERRORS`` maps each of aiohttp's to one of ours. A server that cannot be
connected to has seen nothing of the request, so the next one is tried; once a request was sent, no
other server ever gets it, since the first may already be working (and billing).
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp.http import RawResponseMessage
from multidict import CIMultiDict
from yarl import URL

from proxy.config import Timeouts
from proxy.config import Upstream as UpstreamSettings
from proxy.errors import SidecarError, UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from proxy.server import wire
from proxy.server.direct import DirectProtocol
from proxy.server.upload import Upload

#: A server that refused a connection is asked last for this long, in seconds.
AVOID_SECONDS = 5.0

#: aiohttp's own header fields; a proxy sends the client's or none.
NO_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

#: The upstream's header section, in bytes a line and lines: larger than what clients may send, since
#: providers are generous with rate-limit and policy fields.
MAX_RESPONSE_FIELD = 64 * 1024
MAX_RESPONSE_LINES = 512

#: Methods without effects (RFC 9110 §9.2.1), which alone are ever sent twice.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


#: Hears of the upstream, the server's base URL, and what went wrong there.
Report = Callable[[str, str, UpstreamError], None]


@dataclass(slots=True)
class Call:
    """A request as it goes upstream.

    ``target`` is the path and query, percent-encoding untouched.
    """

    method: str
    target: str
    headers: CIMultiDict[str]
    timeouts: Timeouts
    body: Upload | None = None


class Server:
    """One base URL of an upstream, and how busy it is."""

    __slots__ = ("_base", "avoided_until", "shown", "streams")

    def __init__(self, base: str) -> None:
        self._base = URL(base.rstrip("/"))
        self.shown = str(self._base.origin())  # for logs: a path, or a user's name, may be a key
        self.streams = 0
        self.avoided_until = 0.0

    def url(self, target: str) -> URL:
        """Return where ``target`` goes. Nothing in it can change the host, or is rewritten.

        The query goes along as a part of the path: yarl would drop a bare ``?``.
        """
        base = self._base
        path = base.raw_path.rstrip("/") + target
        return URL.build(scheme=base.scheme, authority=base.raw_authority, path=path, encoded=True)


@dataclass(slots=True)
class Response:
    """An upstream's answer. ``close`` must be called, once or more, whatever happens."""

    answer: aiohttp.ClientResponse
    upstream: Upstream
    server: Server
    _open: bool = field(default=True)

    def close(self) -> None:
        """End it: back to the pool if it was read to its end, else the connection is closed."""
        if self._open:
            self._open = False
            self.answer.close()
            self.server.streams -= 1
            self.upstream.left()


class Upstream:
    """The servers behind one name of the configuration, and the pool of connections to them.

    ``report(upstream, server, error)`` hears of every attempt that got no response. An upstream that a
    reload replaced is *retired*: it closes its pool when its last response is closed.
    """

    def __init__(self, name: str, settings: UpstreamSettings, report: Report) -> None:
        self.name = name
        self.settings = settings
        self.servers = [Server(url) for url in settings.urls]
        self._report = report
        self._turn = 0
        self._busy = 0
        self._retired = False
        self._session: aiohttp.ClientSession | None = None
        self._closing: asyncio.Task[None] | None = None

    async def open(self, call: Call, interim: wire.Tell | None = None) -> Response:
        """Send ``call`` and return the response, its body unread.

        ``interim`` hears of 1xx responses. Raises UpstreamError, or what broke the request's body.
        """
        self._busy += 1
        try:
            return await self._try_servers(call, interim)
        except BaseException:
            self.left()
            raise

    async def _try_servers(self, call: Call, interim: wire.Tell | None) -> Response:
        failures: list[str] = []
        for server in self._in_turn():
            server.streams += 1
            try:
                return Response(await self._send(server, call, interim), self, server)
            except BaseException as error:
                server.streams -= 1
                if isinstance(error, UpstreamError):
                    self._report(self.name, server.shown, error)
                if not isinstance(error, UpstreamUnreachable):
                    raise
                server.avoided_until = asyncio.get_running_loop().time() + AVOID_SECONDS
                failures.append(error.reason)
        reasons = "; ".join(dict.fromkeys(failures))
        raise UpstreamUnreachable(f"upstream {self.name!r}", reasons)

    def _in_turn(self) -> list[Server]:
        """The servers, best first: those that answer, then the least busy or the next in the round."""
        self._turn += 1
        start = self._turn % len(self.servers)
        servers = self.servers[start:] + self.servers[:start]
        now = asyncio.get_running_loop().time()
        if self.settings.balance == "least_streams":
            servers.sort(key=lambda server: server.streams)
        servers.sort(key=lambda server: server.avoided_until > now)
        return servers

    async def _send(self, server: Server, call: Call, interim: wire.Tell | None) -> aiohttp.ClientResponse:
        upload = call.body
        sending = wire.Sending(interim)
        token = wire.SENDING.set(sending)
        try:
            async with asyncio.timeout(call.timeouts.first_byte) as limit:
                if upload is not None:  # a long upload is no slow answer: the clock starts when it ends
                    upload.moved = functools.partial(_put_off, limit, call.timeouts.first_byte)
                return await self._request(server, call, sending)
        except SidecarError:
            raise
        except Exception as error:
            if upload is not None and upload.error is not None:
                raise upload.error from error
            raise _translated(error, f"upstream {self.name!r}", call.timeouts) from error
        finally:
            wire.SENDING.reset(token)
            sending.tell = None  # a pooled connection keeps its first request's context, not the request
            if upload is not None:
                upload.moved = None

    async def _request(self, server: Server, call: Call, sending: wire.Sending) -> aiohttp.ClientResponse:
        """Send the request, once; and again only where it met a pooled connection's end.

        RFC 9112 §9.3.1: a client "can retry" a safe method on a new connection when the server closed
        the old one in that very moment. What has effects is never repeated.
        """
        while True:
            sending.reused = False
            try:
                answer = await self._request_once(server, call)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if not sending.reused or call.body is not None or call.method not in SAFE_METHODS:
                    raise
            else:
                fault = wire.fault_of(answer)
                if fault is not None:
                    answer.close()
                    raise UpstreamBroken(f"upstream {self.name!r}", fault, sent=True)
                return answer

    async def _request_once(self, server: Server, call: Call) -> aiohttp.ClientResponse:
        return await self._pool().request(
            call.method,
            server.url(call.target),
            headers=call.headers,
            data=call.body.chunks() if call.body is not None else None,
            allow_redirects=False,
            skip_auto_headers=NO_AUTO_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=call.timeouts.connect),
            max_field_size=MAX_RESPONSE_FIELD,
            max_line_size=MAX_RESPONSE_FIELD,
            max_headers=MAX_RESPONSE_LINES,
        )

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            loop = asyncio.get_running_loop()
            try:
                tls = _tls(self.settings)
            except OSError as error:
                raise UpstreamUnreachable(f"upstream {self.name!r}", "its tls_ca cannot be used") from error
            self._session = wire.session(
                wire.connector(DirectProtocol, tls=tls, keepalive=self.settings.keepalive, loop=loop)
            )
        return self._session

    def left(self) -> None:
        """Note that a request is over; the last one turns the light off in a retired upstream."""
        self._busy -= 1
        if self._retired and self._busy == 0 and self._session is not None:
            self._closing = asyncio.ensure_future(self._session.close())
            self._session = None  # a feed that reconnects here opens another

    def retire(self) -> None:
        """Serve what runs, then close the pool."""
        self._retired = True
        self._busy += 1
        self.left()

    async def close(self) -> None:
        """Close the pool now."""
        if self._session is not None:
            await self._session.close()
        if self._closing is not None:
            await self._closing


def _put_off(limit: asyncio.Timeout, seconds: float, now: float) -> None:
    if not limit.expired():  # the timeout may have struck in this very turn of the loop
        limit.reschedule(now + seconds)


def _tls(settings: UpstreamSettings) -> ssl.SSLContext | bool:
    if not settings.tls_verify:
        return False
    return ssl.create_default_context(cafile=settings.tls_ca) if settings.tls_ca else True


def _detail(error: Exception) -> str:
    """What the log tells of a TLS failure besides: which of the many it was."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    return str(error)


#: aiohttp's errors and ours, the first match counts. The flag says whether the request was sent.
ERRORS: tuple[tuple[type[BaseException], type[UpstreamError], bool], ...] = (
    (aiohttp.ConnectionTimeoutError, UpstreamUnreachable, False),
    (aiohttp.ClientConnectorError, UpstreamUnreachable, False),
    (aiohttp.InvalidURL, UpstreamUnreachable, False),
    (aiohttp.ClientSSLError, UpstreamUnreachable, False),
    (TimeoutError, UpstreamTimeout, True),
    (aiohttp.ClientError, UpstreamBroken, True),
    (OSError, UpstreamBroken, True),
    (ValueError, UpstreamBroken, False),
)


def _translated(error: Exception, who: str, timeouts: Timeouts) -> Exception:
    match = next((row for row in ERRORS if isinstance(error, row[0])), None)
    if match is None:
        return error
    _, ours, sent = match
    if ours is UpstreamUnreachable:
        unreachable = UpstreamUnreachable(who, _told(error))
        if isinstance(error, aiohttp.ClientSSLError):
            unreachable.detail = _detail(error)
        return unreachable
    if ours is UpstreamTimeout:
        return UpstreamTimeout(who, f"sent no response within {timeouts.first_byte:g}s", sent=sent)
    return ours(who, _told(error), sent=sent)


def _told(error: Exception) -> str:
    """What an error says to a client: without addresses, the URL (a query may hold a key) and the
    upstream's bytes. The log has all but the last two.
    """
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection in time (timeouts.connect)"
    if isinstance(error, aiohttp.InvalidURL):
        return "the target is no URL"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection before its response"
    if isinstance(error, aiohttp.ClientResponseError):
        return error.message.partition(":")[0]  # the bytes that offended follow
    if isinstance(error, OSError):
        number = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else error.errno
        return os.strerror(number) if number else type(error).__name__
    return f"{type(error).__name__}: {error}"


def as_interim(message: RawResponseMessage, headers: CIMultiDict[str]) -> bytes:
    """Return an interim response's bytes, with ``headers`` of its own that pass."""
    lines = [
        f"HTTP/1.1 {message.code} {message.reason}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
