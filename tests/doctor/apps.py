"""Apps that stream without a sidecar."""

from __future__ import annotations

import asyncio
import itertools
import json
import time

from tests.support.origin import Connection

#: No chunks and no length, as many an app streams: nothing tells a proxy where an event ends.
UNFRAMED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Connection: close\r\n\r\n"
)

#: A completion's chunk, as OpenAI writes it, with its text left out.
CHUNK = {"id": "c1", "object": "chat.completion.chunk", "created": 0, "model": "demo"}


async def numbered_with_pings(connection: Connection) -> None:
    """Write a completion with ids and, between its chunks, a comment as a block of its own."""
    await connection.start_stream(b"Cache-Control: no-cache\r\n")
    for number in itertools.count(1):
        chunk = {
            **CHUNK,
            "choices": [{"index": 0, "delta": {"content": f"{number} "}, "finish_reason": None}],
        }
        await connection.chunk(b"id: %d\ndata: %b\n\n" % (number, json.dumps(chunk).encode()))
        await asyncio.sleep(0.1)
        await connection.chunk(b": ping\n\n")


async def ticking(connection: Connection) -> None:
    """Write an event every few hundredths of a second, and into it what time it is."""
    await connection.send(UNFRAMED)
    while True:
        tick = {"time": time.time(), "text": "tick " * 40}
        await connection.send(b"data: %b\n\n" % json.dumps(tick).encode())
        await asyncio.sleep(0.04)
