"""A client that shows what is on the wire: it frames nothing away and forgives nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.demo import Running

CHAT = {"model": "demo-1", "messages": [{"role": "user", "content": "Hi"}], "stream": True}

#: Seconds that any single read may take before a test gives up.
READ_TIMEOUT = 30.0


class Wire:
    """One connection, read piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Write ``data`` as it is."""
        self._writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and header fields, names in lower case, of the next response on the connection."""
        head = await self._read(self._reader.readuntil(b"\r\n\r\n"))
        status, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
        fields = (line.split(": ", 1) for line in lines)
        return int(status.split()[1]), {name.lower(): value for name, value in fields}

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body, empty for the last. IncompleteReadError when it never comes."""
        size = int(await self._read(self._reader.readuntil(b"\r\n")), 16)
        data = await self._read(self._reader.readexactly(size + 2))
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def chunks(self) -> list[bytes]:
        """The chunks up to the last one."""
        chunks: list[bytes] = []
        await self._collect(chunks)
        return chunks

    async def chunks_before_cut(self) -> list[bytes]:
        """The chunks of a body that ends without its last one."""
        chunks: list[bytes] = []
        with pytest.raises(asyncio.IncompleteReadError):
            await self._collect(chunks)
        return chunks

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return await self._read(self._reader.read())

    def hang_up(self) -> None:
        """Close the connection, whatever was to come."""
        self._writer.transport.abort()

    async def _collect(self, chunks: list[bytes]) -> None:
        while chunk := await self.chunk():
            chunks.append(chunk)

    async def _read(self, reading: Any) -> bytes:
        async with asyncio.timeout(READ_TIMEOUT):
            data = await reading
        assert isinstance(data, bytes)
        return data


@asynccontextmanager
async def connect(running: Running) -> AsyncIterator[Wire]:
    """A connection to the provider, closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def get(target: str, *header_lines: str) -> bytes:
    """The bytes of a GET."""
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: demo", *header_lines, "", ""]).encode()


def post(target: str, document: object, *header_lines: str) -> bytes:
    """The bytes of a POST of a JSON document."""
    body = json.dumps(document).encode()
    lines = [f"POST {target} HTTP/1.1", "Host: demo", f"Content-Length: {len(body)}", *header_lines, "", ""]
    return "\r\n".join(lines).encode() + body


def data_of(blocks: bytes) -> list[str]:
    """The data of each block in a body with LF line ends."""
    lines = (block.split("\n") for block in blocks.decode().split("\n\n") if block)
    return ["\n".join(line[6:] for line in block if line.startswith("data: ")) for block in lines]
