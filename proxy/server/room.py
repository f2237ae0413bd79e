"""Room in a client's socket, and what happens where there is none for too long."""

from __future__ import annotations

import asyncio

from aiohttp import web


async def wait_for_room(request: web.BaseRequest, seconds: float) -> None:
    """Wait until the client's socket takes bytes again.

    Raises TimeoutError when it takes nothing at all for ``seconds``, and ConnectionResetError when the
    client has left: the socket of one that is gone stays full, and nothing else would end the waiting.
    """
    transport = request.transport
    while request.protocol.writing_paused:
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        waiting = transport.get_write_buffer_size()
        try:
            async with asyncio.timeout(seconds):
                await request.writer.drain()
        except TimeoutError:
            if transport.get_write_buffer_size() >= waiting:
                raise
