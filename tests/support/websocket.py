"""A WebSocket client that sees and says every byte: right frames, wrong ones, and halves of them.

It knows nothing of the sidecar's code, nor of a library's idea of what is allowed.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.client import Answer, read_answer, send
from tests.support.origin import PATIENCE

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: The key of RFC 6455 §1.3, and what must come back for it.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#: What an upstream may answer to a handshake with that key.
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n" % ACCEPT.encode()
)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    key: bytes | None = None,
) -> bytes:
    """Return one frame as a client writes it, its key random if not given; ``masked=False``, as a server."""
    first, bit = fin << 7 | rsv << 4 | opcode, masked << 7
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    key = key or os.urandom(4)
    keys = (key * (size // 4 + 1))[:size]
    hidden = (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")
    return head + key + hidden


def closing(code: int, reason: str = "") -> bytes:
    """Return a close frame's payload."""
    return struct.pack("!H", code) + reason.encode()


@dataclass(slots=True)
class Frame:
    """One frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    @property
    def code(self) -> int:
        """A close frame's code."""
        return int(struct.unpack_from("!H", self.payload)[0])

    @property
    def reason(self) -> str:
        """A close frame's reason."""
        return self.payload[2:].decode()

    def json(self) -> Any:
        """What a text frame says."""
        assert self.opcode == TEXT, self
        return json.loads(self.payload)


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """Return the next frame, or None where the connection ended before its first byte."""
    async with asyncio.timeout(PATIENCE):
        start = await reader.read(1)
        if not start:
            return None
        first, second = start[0], (await reader.readexactly(1))[0]
        size = second & 127
        if size == 126:
            size = struct.unpack("!H", await reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", await reader.readexactly(8))[0]
        key = await reader.readexactly(4) if second & 128 else b""
        payload = await reader.readexactly(size)
    if key:
        payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return Frame(first & 15, payload, bool(first & 128), first >> 4 & 7, bool(key))


class Socket:
    """A connection that speaks WebSocket now. ``answer`` is the head of the 101."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._reader = answer.reader
        self._writer = answer.writer

    async def send(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        """Send one frame; options as for ``frame``."""
        await self.send_raw(frame(opcode, payload, **options))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        async with asyncio.timeout(PATIENCE):
            await self._writer.drain()

    async def say(self, document: object) -> None:
        """Send JSON in a text frame; a string goes as it is."""
        text = document if isinstance(document, str) else json.dumps(document)
        await self.send(TEXT, text.encode())

    async def frame(self) -> Frame | None:
        """Return the next frame, pings too; None where the connection has ended."""
        return await read_frame(self._reader)

    async def hear(self) -> Any:
        """Return what the next text frame says. Pings are answered on the way."""
        while True:
            came = await self.frame()
            assert came is not None, "the connection ended"
            if came.opcode != PING:
                return came.json()
            await self.send(PONG, came.payload)

    async def hear_bytes(self) -> bytes:
        """Return what the next message says, which must be binary. Pings are answered on the way."""
        while True:
            came = await self.frame()
            assert came is not None, "the connection ended"
            if came.opcode == BINARY:
                return came.payload
            assert came.opcode == PING, came
            await self.send(PONG, came.payload)

    async def hear_until(self, kind: str) -> list[Any]:
        """Return what comes up to the first frame of this ``type``, which is the last of the list."""
        heard = [await self.hear()]
        while heard[-1]["type"] != kind:
            heard.append(await self.hear())
        return heard

    async def close(self, code: int = 1000, reason: str = "") -> Frame:
        """Close as one should, and return the other side's close frame; what comes before it is dropped."""
        await self.send(CLOSE, closing(code, reason))
        while True:
            came = await self.frame()
            assert came is not None, "the connection ended without a close frame"
            if came.opcode == CLOSE:
                return came

    async def ended(self) -> bool:
        """Wait until the server has closed the connection; False if something more comes."""
        return await self.frame() is None

    def stall(self) -> None:
        """Read nothing any more, until ``go_on``."""
        self.answer.stall()

    def go_on(self) -> None:
        """Read on."""
        self.answer.go_on()

    def abort(self) -> None:
        """Drop the connection with a reset."""
        self.answer.abort()


def handshake(url: str, target: str, headers: Mapping[str, str | None] | None = None) -> bytes:
    """Return a client's handshake. ``headers`` replace fields of it, or with None leave them out."""
    fields: dict[str, str | None] = {
        "Host": urlsplit(url).netloc,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode()


async def ask_upgrade(
    url: str,
    target: str = "/",
    headers: Mapping[str, str | None] | None = None,
    *,
    early: bytes = b"",
    window: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send a handshake, and ``early`` right behind it; return the answer's head, whatever it is.

    A 101 is an answer here. ``window`` and ``tls`` as for ``client.send``.
    """
    reader, writer = await send(url, handshake(url, target, headers) + early, window=window, tls=tls)
    return await read_answer(reader, writer, upgrade=True)


async def connect(
    url: str,
    target: str = "/",
    headers: Mapping[str, str | None] | None = None,
    *,
    early: bytes = b"",
    window: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> Socket:
    """Open a WebSocket, as ``ask_upgrade`` does; anything but a right 101 fails the test."""
    answer = await ask_upgrade(url, target, headers, early=early, window=window, tls=tls)
    assert answer.status == 101, (answer.status, await answer.body())
    assert answer.header("sec-websocket-accept") == ACCEPT
    return Socket(answer)
