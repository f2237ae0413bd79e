"""Asking an upstream: one request, over the servers that share its name, until one answers.

Foreign errors end here: ``ERRORS`` maps each of aiohttp's to one of ours. A server that cannot be
connected to has seen nothing of the request, so the next one is tried; once a request was sent, no
other server ever gets it, since the first may already be working (and billing).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable

import aiohttp
from aiohttp import hdrs
from aiohttp.http import HttpProcessingError, RawResponseMessage
from multidict import CIMultiDict
from yarl import URL

from proxy.config import Timeouts
from proxy.config import Upstream as UpstreamSettings
from proxy.errors import SidecarError, UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from proxy.server.pool import Call, Pool, Reply, Tell, fault_of
from proxy.server.wheel import Alarm, Wheel

#: A server that refused a connection is asked last for this long, in seconds.
AVOID_SECONDS = 5.0

#: Hears of the upstream, the server's base URL, and what went wrong there.
Report = Callable[[str, str, UpstreamError], None]


class Patience(Alarm):
    """How long the task that makes it waits for a response: then the task is cancelled.

    This is ``asyncio.timeout`` on a wheel. A timer of the loop for every request would cost more than the
    request's way through the pool.
    """

    __slots__ = ("_cancelled", "_lost", "_seconds", "_task", "_until", "_wheel")

    def __init__(self, wheel: Wheel, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        super().__init__(self._look)
        self._task = asyncio.current_task(loop)
        self._cancelled = self._task.cancelling() if self._task is not None else 0  # so often before
        self._lost = False
        self._seconds = seconds
        self._until = loop.time() + seconds
        self._wheel = wheel
        wheel.set(self, self._until)

    def renew(self, now: float) -> None:
        """Wait anew, from ``now`` on."""
        self._until = now + self._seconds

    def lost(self) -> bool:
        """Whether the task was cancelled by this, which is then taken back, and by nobody else."""
        return self._lost and self._task is not None and self._task.uncancel() <= self._cancelled

    def end(self) -> None:
        """Wait no more."""
        self._wheel.drop(self)
        self._task = None  # the wheel may keep the alarm a little longer

    def _look(self, now: float) -> float | None:
        if now < self._until:
            return self._until
        self._lost = True
        if self._task is not None:
            self._task.cancel()
        return None


class Server:
    """One base URL of an upstream, and how busy it is."""

    __slots__ = ("_base_path", "avoided_until", "host", "origin", "shown", "streams")

    def __init__(self, base: str) -> None:
        url = URL(base)
        self.origin = url.origin()
        self.shown = str(self.origin)  # for logs: a path may be a key
        self.host = url.host_port_subcomponent or ""
        self._base_path = url.raw_path.rstrip("/")
        self.streams = 0
        self.avoided_until = 0.0

    def path_to(self, target: str) -> str:
        """Return what is asked there for ``target``, of which nothing is rewritten."""
        return self._base_path + target


class Response:
    """An upstream's answer. ``close`` must be called, once or more, whatever happens."""

    __slots__ = ("_server", "_upstream", "answer")

    def __init__(self, answer: Reply, upstream: Upstream, server: Server) -> None:
        self.answer = answer
        self._upstream: Upstream | None = upstream
        self._server = server

    def close(self) -> None:
        """End it: back to the pool if it was read to its end, else the connection is closed."""
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
            self.answer.close()
            self._server.streams -= 1
            upstream.left()


class Upstream:
    """The servers behind one name of the configuration, and the pool of connections to them.

    ``report(upstream, server, error)`` hears of every attempt that got no response. An upstream that a
    reload replaced is *retired*: it closes its pool when its last response is closed.
    """

    def __init__(self, name: str, settings: UpstreamSettings, report: Report) -> None:
        self.name = name
        self.settings = settings
        self.injects_credentials = settings.injects_credentials
        self.servers = [Server(url) for url in settings.urls]
        self._report = report
        self._turn = 0
        self._busy = 0
        self._retired = False
        self._loop = asyncio.get_running_loop()
        self._wheel = Wheel(self._loop)  # its own: there is hardly ever an alarm that is not dropped at once
        self._pool: Pool | None = None
        self._closing: asyncio.Task[None] | None = None

    async def open(self, call: Call, interim: Tell | None = None) -> Response:
        """Send ``call`` and return the response, its body unread.

        ``interim`` hears of 1xx responses. Raises UpstreamError, or what broke the request's body.
        """
        self._busy += 1
        failures: list[str] = []
        try:
            for server in self._in_turn():
                server.streams += 1
                try:
                    return Response(await self._ask(server, call, interim), self, server)
                except BaseException as error:
                    server.streams -= 1
                    if isinstance(error, UpstreamError):
                        self._report(self.name, server.shown, error)
                    if not isinstance(error, UpstreamUnreachable):
                        raise
                    server.avoided_until = self._loop.time() + AVOID_SECONDS
                    failures.append(error.reason)
            reasons = "; ".join(dict.fromkeys(failures))
            raise UpstreamUnreachable(f"upstream {self.name!r}", reasons)
        except BaseException:
            self.left()
            raise

    def _in_turn(self) -> list[Server]:
        """The servers, best first: those that answer, then the least busy or the next in the round."""
        if len(self.servers) == 1:
            return self.servers
        self._turn += 1
        start = self._turn % len(self.servers)
        servers = self.servers[start:] + self.servers[:start]
        now = self._loop.time()
        if self.settings.balance == "least_streams":
            servers.sort(key=lambda server: server.streams)
        servers.sort(key=lambda server: server.avoided_until > now)
        return servers

    async def _ask(self, server: Server, call: Call, interim: Tell | None) -> Reply:
        """Ask one server, for no longer than ``first_byte`` without a response."""
        upload = call.body
        call.headers[hdrs.HOST] = call.host if call.host is not None else server.host
        patience = Patience(self._wheel, self._loop, call.timeouts.first_byte)
        if upload is not None:  # a long upload is no slow answer: the clock starts when it ends
            upload.moved = patience.renew
        try:
            pool = self._pool_of_now()
            reply = await pool.ask(server.origin, call, server.path_to(call.target), interim)
        except SidecarError:
            raise
        except asyncio.CancelledError:
            if patience.lost():
                said = f"sent no response within {call.timeouts.first_byte:g}s"
                raise UpstreamTimeout(f"upstream {self.name!r}", said, sent=True) from None
            raise
        except Exception as error:
            if upload is not None and upload.error is not None:
                raise upload.error from error
            raise _translated(error, f"upstream {self.name!r}", call.timeouts) from error
        finally:
            patience.end()
            if upload is not None:
                upload.moved = None
        fault = fault_of(reply, upgrade=call.upgrade)
        if fault is not None:
            reply.close()
            raise UpstreamBroken(f"upstream {self.name!r}", fault, sent=True)
        return reply

    def _pool_of_now(self) -> Pool:
        if self._pool is None:
            try:
                tls = _tls(self.settings)
            except OSError as error:
                raise UpstreamUnreachable(f"upstream {self.name!r}", "its tls_ca cannot be used") from error
            self._pool = Pool(tls, self.settings.keepalive, self._loop)
        return self._pool

    def left(self) -> None:
        """Note that a request is over; the last one turns the light off in a retired upstream."""
        self._busy -= 1
        if self._retired and self._busy == 0 and self._pool is not None:
            self._closing = asyncio.ensure_future(self._pool.close())
            self._pool = None  # a feed that reconnects here opens another
            self._wheel.close()  # the loop would hold it as long as its last timer runs
            self._wheel = Wheel(self._loop)

    def retire(self) -> None:
        """Serve what runs, then close the pool."""
        self._retired = True
        self._busy += 1
        self.left()

    async def close(self) -> None:
        """Close the pool now."""
        self._wheel.close()
        if self._pool is not None:
            await self._pool.close()
        if self._closing is not None:
            await self._closing


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
    (aiohttp.ClientSSLError, UpstreamUnreachable, False),
    (TimeoutError, UpstreamTimeout, True),
    (aiohttp.ClientError, UpstreamBroken, True),
    (HttpProcessingError, UpstreamBroken, True),
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
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection before its response"
    if isinstance(error, HttpProcessingError):
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
