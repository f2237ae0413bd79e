"""A WebSocket echo server, made with one of two libraries: ``python -m tests.conformance.echo aiohttp``.

It listens on a free port of loopback, prints the port, and serves until it is ended. It agrees to
permessage-deflate, and sends no pings, so that all its frames are answers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web
from websockets.asyncio.server import ServerConnection, serve

#: Octets. The suite's largest message has 16 MiB, which is the sidecar's default limit: this is well beyond.
MAX_MESSAGE = 64 * 1024 * 1024


async def echo(connection: ServerConnection) -> None:
    """Send back each message as it came, with ``websockets``."""
    async for message in connection:
        await connection.send(message)


async def _serve_websockets() -> int:
    server = await serve(echo, "127.0.0.1", 0, max_size=MAX_MESSAGE, ping_interval=None)
    return int(next(iter(server.sockets)).getsockname()[1])


async def _echo_aiohttp(request: web.Request) -> web.WebSocketResponse:
    connection = web.WebSocketResponse(max_msg_size=MAX_MESSAGE)
    await connection.prepare(request)
    async for message in connection:
        if message.type is WSMsgType.TEXT:
            await connection.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await connection.send_bytes(message.data)
    return connection


async def _serve_aiohttp() -> int:
    app = web.Application()
    app.router.add_get("/{tail:.*}", _echo_aiohttp)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


SERVERS: dict[str, Callable[[], Awaitable[int]]] = {
    "websockets": _serve_websockets,
    "aiohttp": _serve_aiohttp,
}


async def main(library: str) -> None:
    """Serve with this library."""
    port = await SERVERS[library]()
    print(port, flush=True)  # noqa: T201 - whoever started it reads this
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
