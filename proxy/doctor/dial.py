"""Connections and requests, timed step by step: name, TCP, TLS, head, and each read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from proxy import __version__
from proxy.doctor.evidence import Connection, Ending, Head
from proxy.doctor.http import Answer, Garbled, parse_head
from proxy.server.coding import decoder

USER_AGENT = f"sse-sidecar-doctor/{__version__}"

#: Seconds that a connection may take, name and TLS included.
CONNECT_TIMEOUT = 10.0

#: What all times are taken from. A loop's own clock may be coarser: uvloop's counts milliseconds.
clock = time.monotonic

#: Bytes taken from a socket at once.
READ_BYTES = 64 * 1024


#: Cookies of one answer that are sent again.
MAX_COOKIES = 20


class Unreachable(Exception):
    """There was no connection, or no answer on it; the message says which step failed."""


class NoTLS(Unreachable):
    """Whoever accepted the connection did not complete a TLS handshake."""


class NoAnswer(Unreachable):
    """No head came; ``patient`` where the peer might still have sent one."""

    def __init__(self, said: str, *, patient: bool) -> None:
        super().__init__(said)
        self.patient = patient


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. ``fields`` are sent as they are, behind Host and Content-Length."""

    url: URL
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None

    def to(self, url: URL, method: str = "GET", **fields: str) -> Request:
        """The same caller asks for something else, without a body; ``Last_Event_ID`` names Last-Event-ID."""
        extra = {name.replace("_", "-"): value for name, value in fields.items()}
        gone = {*(name.lower() for name in extra), "content-type", "idempotency-key"}
        kept = tuple(pair for pair in self.fields if pair[0].lower() not in gone)
        return Request(url, method, (*kept, *extra.items()))

    def remembering(self, head: Head) -> Request:
        """The same with the cookies that an answer has set: a balancer's stickiness may be one of them."""
        values = [value for name, value in head.fields if name.lower() == "set-cookie"]
        pairs = [value.partition(";")[0].strip() for value in values[:MAX_COOKIES]]
        if not pairs:
            return self
        sent = [value for name, value in self.fields if name.lower() == "cookie"]
        kept = tuple(pair for pair in self.fields if pair[0].lower() != "cookie")
        return replace(self, fields=(*kept, ("Cookie", "; ".join([*sent, *pairs]))))

    def field(self, name: str) -> str | None:
        """The first value of a field that is sent."""
        return next((value for key, value in self.fields if key.lower() == name.lower()), None)

    def head(self, *, absolute: bool = False) -> bytes:
        """The head's bytes; ``absolute``: as a forward proxy wants them."""
        target = str(self.url.with_user(None).with_fragment(None)) if absolute else self.url.raw_path_qs
        lines = [f"{self.method} {target} HTTP/1.1", f"Host: {host_field(self.url)}"]
        if self.body is not None or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(self.body or b'')}")
        lines += [f"{name}: {value}" for name, value in self.fields]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def host_field(url: URL) -> str:
    """What ``Host`` says."""
    host = f"[{url.raw_host}]" if ":" in (url.raw_host or "") else url.raw_host
    return f"{host}" if url.is_default_port() else f"{host}:{url.port}"


@dataclass(frozen=True, slots=True)
class Dialer:
    """How to reach servers: which certificates to believe."""

    insecure: bool = False
    cacert: Path | None = None

    def context(self, protocols: Iterable[str]) -> ssl.SSLContext:
        """A TLS context that offers these protocols."""
        context = ssl.create_default_context(cafile=str(self.cacert) if self.cacert else None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(list(protocols))
        return context

    async def offers_http2(self, url: URL) -> bool | None:
        """Whether the edge chooses HTTP/2 where it is offered (RFC 7301); None where there is no asking."""
        if url.scheme != "https":
            return None
        try:
            line = await self.connect(url, ("h2", "http/1.1"))
        except Unreachable:
            return None
        try:
            tls = line.writer.get_extra_info("ssl_object")
            return bool(tls.selected_alpn_protocol() == "h2")
        finally:
            line.writer.transport.abort()

    async def send(self, request: Request) -> Exchange:
        """Open a connection and send a request. Raises Unreachable."""
        line = await self.connect(request.url, ("http/1.1",))
        absolute = bool(line.told.proxy) and not line.told.encrypted
        exchange = Exchange(line, request.method)
        exchange.send(request.head(absolute=absolute) + (request.body or b""))
        return exchange

    async def connect(self, url: URL, protocols: Iterable[str]) -> Line:
        """Open a connection, through the environment's proxy where it names one. Raises Unreachable."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._connect(url, protocols)
        except TimeoutError:
            raise Unreachable(f"no connection within {CONNECT_TIMEOUT:.0f} s") from None

    async def _connect(self, url: URL, protocols: Iterable[str]) -> Line:
        proxy = proxy_for(url)
        near = proxy or url
        told = Connection(url.raw_host or "", url.port or 0, proxy=host_field(proxy) if proxy else "")
        sock, told = await _tcp(near, told)
        if proxy is not None and url.scheme == "https":
            try:
                await _tunnel(sock, proxy, url)
            except BaseException:
                sock.close()
                raise
        # From here on the socket is a transport's: closed under it, its number would be given to another one.
        return await self._finish(sock, url, told, protocols)

    async def _finish(
        self, sock: socket.socket, url: URL, told: Connection, protocols: Iterable[str]
    ) -> Line:
        if url.scheme != "https":
            reader, writer = await asyncio.open_connection(sock=sock)
            return Line(reader, writer, told)
        began = clock()
        try:
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=self.context(protocols), server_hostname=url.raw_host
            )
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(f"TLS: {error.verify_message}") from error
        except (ssl.SSLError, OSError) as error:
            raise NoTLS(f"TLS: {_told(error)}") from error
        tls = writer.get_extra_info("ssl_object")
        return Line(reader, writer, replace(told, tls=tls.version() or "TLS", handshake=clock() - began))


async def _tcp(url: URL, told: Connection) -> tuple[socket.socket, Connection]:
    loop = asyncio.get_running_loop()
    began = clock()
    try:
        found = await loop.getaddrinfo(url.raw_host, url.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"{url.raw_host}: {_told(error)}") from error
    looked_up = clock()
    failure: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
            continue
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lookup = None if url.raw_host == address[0] else looked_up - began
        return sock, replace(told, address=str(address[0]), lookup=lookup, connect=clock() - looked_up)
    raise Unreachable(f"{host_field(url)}: {_told(failure) if failure else 'no address'}")


async def _tunnel(sock: socket.socket, proxy: URL, url: URL) -> None:
    """Ask a forward proxy for a tunnel (RFC 9110 §9.3.6)."""
    loop = asyncio.get_running_loop()
    ask = f"CONNECT {url.raw_host}:{url.port} HTTP/1.1\r\nHost: {url.raw_host}:{url.port}\r\n"
    if proxy.user:
        login = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
        ask += f"Proxy-Authorization: Basic {login}\r\n"
    await loop.sock_sendall(sock, ask.encode() + b"\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = await loop.sock_recv(sock, 1)  # no byte of what follows may be taken
        if not data or len(answer) > READ_BYTES:
            raise Unreachable(f"the proxy {host_field(proxy)} did not answer a CONNECT")
        answer += data
    status = parse_head(answer.partition(b"\r\n\r\n")[0]).status
    if status != 200:
        raise Unreachable(f"the proxy {host_field(proxy)} answered CONNECT with {status}")


def proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for this URL (``https_proxy``, ``no_proxy`` …)."""
    named = getproxies().get(url.scheme)
    if not named or proxy_bypass(url.raw_host or ""):
        return None
    proxy = URL(named if "//" in named else f"http://{named}")
    return proxy if proxy.scheme == "http" and proxy.raw_host else None


def _told(error: OSError) -> str:
    """The system's words for a failure: Python's repeat the address, or name a line of its own source."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


@dataclass(frozen=True, slots=True)
class Line:
    """A connection that is open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    told: Connection


class Exchange:
    """One request on its way and the answer to it. ``ending`` is set when the answer is over."""

    def __init__(self, line: Line, method: str) -> None:
        self.connection = line.told
        self.asked = 0.0
        self.asked_wall = 0.0
        self.headed = 0.0
        self.ending: Ending | None = None
        self._line = line
        self._answer = Answer(method)
        self._body = b""

    def send(self, data: bytes) -> None:
        """Write the request; what the peer does not take at once follows by itself."""
        self.asked, self.asked_wall = clock(), time.time()
        self._line.writer.write(data)

    async def head(self, timeout: float) -> Head:
        """Wait for the answer's head. Raises NoAnswer."""
        try:
            async with asyncio.timeout(timeout):
                while self._answer.head is None and self.ending is None:
                    self._body += await self._receive()
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout:.0f} s", patient=True) from None
        if self._answer.head is None:
            ended = self.ending.value if self.ending else "it ended"
            raise NoAnswer(f"no answer: {ended}", patient=False)
        self.headed = clock()
        return self._answer.head

    async def read(self) -> bytes:
        """The next bytes of the body, or none at its end."""
        body, self._body = self._body, b""
        while not body and self.ending is None:
            body = await self._receive()
        return body

    async def whole(self, timeout: float, most: int) -> bytes:
        """The rest of the body without its coding, about ``most`` bytes of it, as far as it comes in time."""
        body = bytearray()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while len(body) < most and (data := await self.read()):
                    body += data
        head = self._answer.head
        return _decoded(bytes(body), head.get("Content-Encoding") if head is not None else "", most)

    def drop(self) -> None:
        """Be gone, as a client is that loses its network."""
        self._line.writer.transport.abort()

    async def _receive(self) -> bytes:
        try:
            if self._answer.over:
                data = b""
            else:
                data = await self._line.reader.read(READ_BYTES)
            body = self._answer.feed(data)
        except Garbled:
            self.ending = Ending.GARBLED
            return b""
        except (OSError, ssl.SSLError):
            self.ending = Ending.RESET
            return b""
        if not data or self._answer.over:
            self.ending = self._answer.end()
        return body


def _decoded(body: bytes, coding: str, most: int) -> bytes:
    """What a body was before it was coded, as far as we can tell; about ``most`` bytes of it."""
    undo = decoder(coding)
    if undo is None:
        return body
    decoded = bytearray()
    with contextlib.suppress(ValueError):
        for piece in undo.decode(body):
            decoded += piece
            if len(decoded) >= most:
                break
    return bytes(decoded)
