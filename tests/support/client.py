"""A client that sees every byte: what came, in which chunks, and how the body ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.support.origin import PATIENCE


class Truncated(Exception):
    """The body ended before its last chunk, or before its length: fetch would throw here."""


@dataclass(slots=True)
class Answer:
    """A response whose body is read as the test likes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int
    reason: str
    raw_headers: list[tuple[str, str]]
    method: str
    version: str
    interim: list[int] = field(default_factory=list)
    _rest: bytes = b""
    _taken: int = 0
    _over: bool = False

    def header(self, name: str) -> str | None:
        """Return a field's value, several ones joined by a comma."""
        values = self.headers(name)
        return ", ".join(values) if values else None

    def headers(self, name: str) -> list[str]:
        """Return all values of a field."""
        return [value for key, value in self.raw_headers if key.lower() == name.lower()]

    async def chunk(self) -> bytes:
        """Return the next piece of the body as it came: one chunk, or one read; b"" at its clean end.

        Raises Truncated where the connection ended first.
        """
        if self._over or self.method == "HEAD" or self.status in (204, 304):
            return b""
        async with asyncio.timeout(PATIENCE):
            if (self.header("transfer-encoding") or "").lower() == "chunked":
                data = await self._chunk()
            elif self.header("content-length") is not None:
                data = await self._length()
            else:
                data = await self.reader.read(65536)
        self._over = not data
        return data

    async def body(self) -> bytes:
        """Return all that is left of the body."""
        parts = []
        while data := await self.chunk():
            parts.append(data)
        return b"".join(parts)

    async def json(self) -> Any:
        """Return the body's JSON."""
        return json.loads(await self.body())

    async def until(self, marker: bytes) -> bytes:
        """Return the body up to and including ``marker``; what follows it is kept."""
        data = self._rest
        while marker not in data:
            piece = await self.chunk()
            assert piece, f"the body ended before {marker!r}: {data!r}"
            data += piece
        before, _, self._rest = data.partition(marker)
        return before + marker

    async def block(self) -> bytes:
        """Return the next SSE block, with its empty line; comments between blocks stay in front."""
        return await self.until(b"\n\n")

    async def blocks(self, count: int) -> list[bytes]:
        """Return the next blocks."""
        return [await self.block() for _ in range(count)]

    async def rest(self) -> bytes:
        """Return everything that was not taken yet, to the clean end of the body."""
        data, self._rest = self._rest, b""
        return data + await self.body()

    def stall(self) -> None:
        """Read nothing from the socket any more, so that its buffers fill, until ``go_on``."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a reader's as well

    def go_on(self) -> None:
        """Read on."""
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()

    def abort(self) -> None:
        """Drop the connection as a phone does that leaves its network: with a reset."""
        self.writer.transport.abort()

    async def closed(self) -> bool:
        """Wait until the server has closed the connection; False if it sends something more."""
        async with asyncio.timeout(PATIENCE):
            return not await self.reader.read(1)

    async def _chunk(self) -> bytes:
        try:
            size = int((await self.reader.readuntil(b"\r\n")).partition(b";")[0], 16)
            data = await self.reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            raise Truncated(f"{error}") from error
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def _length(self) -> bytes:
        left = int(self.header("content-length") or "0") - self._taken
        try:
            data = await self.reader.read(min(left, 65536))
        except ConnectionResetError as error:
            raise Truncated(f"{error}, {left} bytes before the end") from error
        if left and not data:
            raise Truncated(f"the connection ended {left} bytes before the body")
        self._taken += len(data)
        return data


#: Every connection that the running test has opened.
OPENED: list[asyncio.StreamWriter] = []


def leave() -> None:
    """Let every client that is still there leave, at once: a server that stops would give it some time."""
    for writer in OPENED:
        # asyncio's transport, closed with bytes unsent that have left since, knows its loop no more.
        with contextlib.suppress(AttributeError):
            writer.transport.abort()
    OPENED.clear()


async def send(
    url: str, raw: bytes, *, window: int | None = None, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and write ``raw`` to it.

    ``window``: the kernel keeps so many bytes unread, about. ``tls``: what an ``https`` URL is trusted by.
    """
    parts = urlsplit(url)
    if window is None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24, ssl=tls)
    else:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, (parts.hostname, parts.port))
        reader, writer = await asyncio.open_connection(sock=narrow, limit=2**24)
    OPENED.append(writer)
    writer.write(raw)
    await writer.drain()
    return reader, writer


async def read_answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str = "GET", *, upgrade: bool = False
) -> Answer:
    """Read a response's head; interim responses before it are noted by status. ``upgrade``: a 101 is none."""
    interim: list[int] = []
    while True:
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        version, status, reason = [*first.split(" ", 2), ""][:3]
        if not status.startswith("1") or (upgrade and status == "101"):
            break
        interim.append(int(status))
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    answer = Answer(reader, writer, int(status), reason, fields, method, version, interim)
    if answer.header("content-length") == "0":
        answer._over = True
    return answer


async def ask(
    url: str,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    body: bytes | None = None,
    version: str = "HTTP/1.1",
    window: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request to ``url`` and read the head of its answer.

    ``Host`` and ``Content-Length`` are added where ``headers`` has none. ``window``, ``tls`` as for ``send``.
    """
    fields = list(headers.items() if isinstance(headers, Mapping) else headers or ())
    names = {name.lower() for name, _ in fields}
    if "host" not in names:
        fields.insert(0, ("Host", urlsplit(url).netloc))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(body))))
    head = f"{method} {target} {version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    reader, writer = await send(url, head.encode("utf-8") + b"\r\n" + (body or b""), window=window, tls=tls)
    return await read_answer(reader, writer, method)
