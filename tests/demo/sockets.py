"""WebSocket clients for these tests: the ``websockets`` library, which shares no code with the provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from proxy.demo import Running

from .wire import READ_TIMEOUT

#: Bytes of the largest message that these clients take.
MAX_MESSAGE = 64 * 1024 * 1024


class Peer:
    """One open socket, on which nothing takes longer than a few seconds."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        await self.connection.send(message)

    async def send_json(self, **document: Any) -> None:
        """Send one JSON object as text."""
        await self.send(json.dumps(document))

    async def receive(self) -> str | bytes:
        """The next message; ConnectionClosed at the end."""
        async with asyncio.timeout(READ_TIMEOUT):
            return await self.connection.recv()

    async def receive_json(self) -> Any:
        """The next message, which must be a text with JSON."""
        text = await self.receive()
        assert isinstance(text, str)
        return json.loads(text)

    async def closing(self) -> tuple[int, str]:
        """Code and reason of the provider's close, which must be the next that comes."""
        with pytest.raises(ConnectionClosed) as closed:
            await self.receive()
        assert closed.value.rcvd is not None, "the connection was lost without a close"
        return closed.value.rcvd.code, closed.value.rcvd.reason


@asynccontextmanager
async def joined(running: Running, target: str, *, protocols: Sequence[str] = ()) -> AsyncIterator[Peer]:
    """A socket at ``target``, without compression."""
    offered = [Subprotocol(each) for each in protocols]
    url = running.url.replace("http", "ws", 1) + target
    connecting = connect(
        url, subprotocols=offered or None, compression=None, max_size=MAX_MESSAGE, ping_interval=None
    )
    async with connecting as connection:
        yield Peer(connection)
