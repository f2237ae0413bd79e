"""An upstream that does exactly what a test tells it, byte by byte, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

#: How long a test waits for something that must happen, in seconds. Only a failing test waits so long. It is
#: less than the usual heartbeat of 15 s, after which some of it would happen by itself.
PATIENCE = 12.0

#: The same where a program has to start first, or a browser to draw, on a machine that has much else to do.
PROGRAM_PATIENCE = 60.0

SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(slots=True)
class Connection:
    """One request at the origin, and the means to answer it.

    ``head`` is the request's head as it came, ``headers`` its fields by lower-case name, ``body`` its
    (decoded) body. ``peer_closed`` is set once ``gone`` has seen the peer close.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    method: str = ""
    target: str = ""
    head: bytes = b""
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: bytes = b""
    peer_closed: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> str | None:
        """Return a field's only value."""
        values = self.headers.get(name.lower(), [])
        assert len(values) <= 1, f"{name} was sent {len(values)} times: {values}"
        return values[0] if values else None

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def start_stream(self, extra: bytes = b"") -> None:
        """Answer 200 with a chunked event stream; ``extra`` are more header lines, each with CRLF."""
        await self.send(SSE_HEAD[:-2] + extra + b"\r\n")

    async def chunk(self, data: bytes) -> None:
        """Write one chunk of the body."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """End the chunked body as it should be ended."""
        await self.send(b"0\r\n\r\n")

    async def close(self) -> None:
        """Close the connection, whatever was promised."""
        self.writer.close()

    async def gone(self) -> None:
        """Wait until the peer has closed the connection, or has reset it."""
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(65536):
                    pass
        self.peer_closed.set()


Script = Callable[[Connection], Awaitable[None]]


def response(*fields: str, status: str = "200 OK", body: bytes = b"") -> bytes:
    """Return the bytes of a response with these header lines, a Content-Length and ``body``."""
    head = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def reply(raw: bytes | None = None, *, close: bool = False) -> Script:
    """Return a script that answers each request with these bytes (an empty 200), and may then hang up."""

    async def script(connection: Connection) -> None:
        await connection.send(response() if raw is None else raw)
        if close:
            await connection.close()

    return script


class Origin:
    """A server whose every request is answered by ``script``. ``requests`` keeps what came.

    Without ``whole_bodies`` a request counts as soon as its head is there, and its body is the script's
    to read.
    """

    def __init__(self, script: Script, *, whole_bodies: bool = True) -> None:
        self.script = script
        self.whole_bodies = whole_bodies
        self.requests: list[Connection] = []
        self.errors: list[BaseException] = []
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)

    @property
    def port(self) -> int:
        """The port."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

    async def request(self, number: int = 1) -> Connection:
        """Wait for the request of this number (from 1)."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= number)
        return self.requests[number - 1]

    async def stop(self) -> None:
        """Close the server and every connection."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                connection = await _read_request(reader, writer)
                if self.whole_bodies:
                    connection.body = await _read_body(reader, connection)
                async with self._arrived:
                    self.requests.append(connection)
                    self._arrived.notify_all()
                await self.script(connection)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    connection = Connection(reader, writer, method, target, head)
    for line in lines:
        name, _, value = line.partition(":")
        connection.headers.setdefault(name.lower(), []).append(value.strip())
    return connection


async def _read_body(reader: asyncio.StreamReader, connection: Connection) -> bytes:
    if "chunked" in (connection.header("transfer-encoding") or ""):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while (await reader.readuntil(b"\r\n")) != b"\r\n":
            pass
        return body
    return await reader.readexactly(int(connection.header("content-length") or "0"))
