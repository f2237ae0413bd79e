"""Room in a client's socket, and what happens where there is none for too long."""

from __future__ import annotations

import asyncio

from aiohttp import web


async def wait_for_room(request: web.BaseRequest, seconds: float) -> None:
    """Wait until the client's socket takes bytes again.

    Raises TimeoutError when it takes nothing at all for ``seconds``, and ConnectionResetError when the
    client has left: the socket of one that is gone stays full, and nothing else would end the waiting.
    """
    while request.protocol.writing_paused:
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client has left")
        await _drained(request, request.transport, seconds)


async def _drained(request: web.BaseRequest, transport: asyncio.Transport, seconds: float) -> None:
    """Wait for one drain, for as long as the peer takes anything.

    A task of its own: aiohttp keeps the future that it waits for, so a wait that is cancelled would
    spoil the next one.
    """
    drained = asyncio.ensure_future(request.writer.drain())
    try:
        while not drained.done():
            waiting = transport.get_write_buffer_size()
            await asyncio.wait({drained}, timeout=seconds)
            if not drained.done() and transport.get_write_buffer_size() >= waiting:
                raise TimeoutError
        drained.result()
    finally:
        drained.cancel()
