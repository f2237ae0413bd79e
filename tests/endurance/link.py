"""One connection over which a follower gets a stream: an SSE answer, or a WebSocket to the bridge.

Either gives bytes as they come, and takes them apart into blocks as they stand in an SSE body; so whoever
follows a stream over both ways can compare what came, byte for byte.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from tests.support.client import Answer, Truncated, read_answer
from tests.support.websocket import ACCEPT, PONG, TEXT, Socket, frame, handshake


class Link(Protocol):
    """A stream's bytes, and what they mean."""

    @property
    def writer(self) -> asyncio.StreamWriter:
        """The connection."""

    async def read(self) -> bytes:
        """Return the next bytes; none where the stream has ended in good order. Raises Truncated."""

    def take(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Return the first block of ``data``, or None where it is not whole, and what stands behind it."""


class SseLink:
    """An answer whose body is the stream."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.writer = answer.writer

    async def read(self) -> bytes:
        """Return a chunk."""
        return await self.answer.chunk()

    def take(self, data: bytes) -> tuple[bytes | None, bytes]:
        """A block ends with an empty line; a heartbeat may be one, before it."""
        block, empty_line, rest = data.partition(b"\n\n")
        return (block.lstrip(b"\n"), rest) if empty_line else (None, data)


class BridgeLink:
    """A WebSocket to the bridge that was told to start or to resume. ``opened`` is what it answered."""

    def __init__(self, answer: Answer, opened: Mapping[str, Any]) -> None:
        self.writer = answer.writer
        self.opened = opened
        self._reader = answer.reader
        self._over = False

    async def read(self) -> bytes:
        """Return what comes, and give a sign of life for it.

        A heartbeat may be in it, and a pong may come unasked (RFC 6455 §5.5.3).
        """
        if self._over:
            return b""
        try:
            data = await self._reader.read(65536)
        except ConnectionResetError as error:
            raise Truncated(f"{error}") from error
        if not data:
            raise Truncated("the connection ended before the stream")
        self.writer.write(frame(PONG))
        return data

    def take(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Event frames are blocks. The end's frame has none; behind it ``read`` returns nothing."""
        while (end := _frame_end(data)) is not None:
            payload, data = data[end[0] : end[1]], data[end[1] :]
            if not payload:
                continue  # a ping
            said = json.loads(payload)
            if said["type"] == "event":
                return _block_of(payload), data
            expected = ("end", self.opened["stream"], "complete")
            assert (said["type"], said["stream"], said["reason"]) == expected, said
            self._over = True
        return None, data


def _frame_end(data: bytes) -> tuple[int, int] | None:
    """Return where the payload of ``data``'s first frame begins and ends; None where it is not whole."""
    if len(data) < 2:
        return None
    begin, size = 2, data[1]
    if size >= 126:
        begin = 4 if size == 126 else 10
        size = int.from_bytes(data[2:begin], "big")
    return (begin, begin + size) if len(data) >= begin + size else None


def _block_of(payload: bytes) -> bytes:
    """Return an event frame as the block that it stands for.

    JSON stands in the frame as it stood in the block, which shows that nobody wrote it anew.
    """
    said = json.loads(payload)
    name = "" if said["event"] == "message" else f"event: {said['event']}\n"
    raw = payload.partition(b'"data":')[2].removesuffix(b"}")
    data = said["data"].encode() if isinstance(said["data"], str) else raw
    ident = said.get("upstream_id", said["id"])
    return f"id: {ident}\n{name}data: ".encode() + data


async def dial(url: str, *, narrow: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection. ``narrow`` gives it a tiny receive buffer."""
    parts = urlsplit(url)
    link = socket.socket()
    link.setblocking(False)
    if narrow:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    await asyncio.get_running_loop().sock_connect(link, (parts.hostname, parts.port))
    return await asyncio.open_connection(sock=link, limit=4096 if narrow else 2**16)


async def cross(
    url: str,
    target: str,
    command: Mapping[str, object],
    headers: Mapping[str, str] | None = None,
    *,
    narrow: bool = False,
) -> BridgeLink:
    """Open a WebSocket to the bridge at ``target``, give it one command, and return it when it says open."""
    reader, writer = await dial(url, narrow=narrow)
    writer.write(handshake(url, target, headers) + frame(TEXT, json.dumps(command).encode()))
    answer = await read_answer(reader, writer, upgrade=True)
    assert answer.status == 101, f"{answer.status} {await answer.body()!r}"
    assert answer.header("sec-websocket-accept") == ACCEPT
    opened = await Socket(answer).hear()
    assert opened["type"] == "open", opened
    assert opened["status"] == 200
    return BridgeLink(answer, opened)
